"""Given a console over a store, when somebody asks for a page, then those who may see it see
what was recorded, and nobody else learns anything."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.console import Console
from forebay.console.sessions import TTL_NS
from forebay.observe import record as records
from forebay.observe.record import Body, Record
from forebay.observe.writer import Writer
from records import Calendar, cache_hit, changed, chat, chat_stream, every_kind, id_of, whole
from visitor import HOST, Visitor, exchange

KEY = "fb_admin"

Shown = Callable[[list[Record]], Visitor]


class Site:
    """A store, its console, and the keys that are an admin's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = Calendar()
        self.keys = {KEY}
        self.console = Console(
            folder, self.world, auth=self.keys.__contains__, hosts=["console.example.com"]
        )

    def record(self, made: list[Record]) -> None:
        writer = Writer(self.folder, self.world, secrets={})
        writer.write([records.encode(record) for record in made])
        writer.close()
        self.world.at_ns += 10**9

    def visitor(self, *, logged_in: bool = True, scheme: str = "http") -> Visitor:
        visitor = Visitor(self.console, scheme=scheme)
        if logged_in:
            visitor.log_in(KEY)
        return visitor


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "traces")
    yield site
    site.console.close()


PAGES = ("/", "/traces", "/traces?q=x", f"/traces/{id_of(1)}", f"/traces/{id_of(1)}/request")
TWINS = ("/traces.json", f"/traces/{id_of(1)}.json")


# -- who may see it


@pytest.mark.parametrize("path", PAGES)
def test_who_is_not_logged_in_is_sent_to_the_login(site: Site, path: str) -> None:
    site.record([chat(1)])

    answer = site.visitor(logged_in=False).get(path)

    assert answer.status == 303
    assert answer.header("location").startswith("/login")
    assert answer.body == b""


@pytest.mark.parametrize("path", [*PAGES, *TWINS, "/nothing", "/traces/unknown"])
def test_whoever_has_no_key_learns_not_even_what_there_is(site: Site, path: str) -> None:
    site.record([chat(1, prompt="the secret question")])
    visitor = site.visitor(logged_in=False)

    answer = visitor.get(path, authorization="Bearer fb_wrong", cookie="forebay_session=x")

    assert answer.status in (303, 401)
    assert b"secret question" not in answer.body
    assert b"404" not in answer.body


@pytest.mark.parametrize("path", TWINS)
def test_a_twin_takes_the_admin_key_itself(site: Site, path: str) -> None:
    site.record([chat(1)])
    visitor = site.visitor(logged_in=False)

    assert visitor.get(path).status == 401
    assert visitor.get(path).header("www-authenticate") == "Bearer"
    assert visitor.get(path, authorization=f"Bearer {KEY}").status == 200
    assert visitor.get(path, authorization=f"bearer  {KEY}").status == 200
    assert visitor.get(path, authorization=f"Basic {KEY}").status == 401


def test_a_page_does_not_take_the_key_in_a_header(site: Site) -> None:
    visitor = site.visitor(logged_in=False)

    assert visitor.get("/traces", authorization=f"Bearer {KEY}").status == 303


def test_after_the_login_one_is_where_one_wanted_to_go(site: Site) -> None:
    site.record([chat(1)])
    visitor = site.visitor(logged_in=False)
    login = visitor.get(visitor.get("/traces?model=a%2Fb&q=%C3%BC").header("location"))

    answer = visitor.submit(login.page, key=KEY)

    assert answer.status == 303
    assert answer.header("location") == "/traces?model=a%2Fb&q=%C3%BC"


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nb"],
)
def test_the_login_leads_to_no_other_site(site: Site, elsewhere: str) -> None:
    visitor = site.visitor(logged_in=False)
    page = visitor.get("/login").page

    answer = visitor.submit(page, key=KEY, next=elsewhere)

    assert answer.header("location") == "/"


def test_a_wrong_key_is_told_so_and_nothing_more(site: Site) -> None:
    visitor = site.visitor(logged_in=False)

    answer = visitor.log_in("fb_wrong")

    assert answer.status == 401
    assert "That is no admin key of this gateway." in answer.page.text
    assert "forebay_session" not in visitor.cookies
    assert "fb_wrong" not in answer.text


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_session_cookie_is_for_no_script_and_no_other_site(
    site: Site, scheme: str, secure: bool
) -> None:
    answer = site.visitor(logged_in=False, scheme=scheme).log_in(KEY)

    cookie = next(value.decode() for name, value in answer.headers if b"forebay_session" in value)
    attributes = cookie.split("; ")[1:]
    assert attributes[:4] == ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    assert ("Secure" in attributes) is secure


def test_a_session_ends_after_twelve_hours(site: Site) -> None:
    site.record([chat(1)])
    visitor = site.visitor()
    site.world.at_ns += TTL_NS - 10**9
    assert visitor.get("/traces").status == 200

    site.world.at_ns += 2 * 10**9

    assert visitor.get("/traces").status == 303


def test_a_session_ends_when_its_key_is_revoked(site: Site) -> None:
    site.record([chat(1)])
    visitor = site.visitor()

    site.keys.clear()

    assert visitor.get("/traces").status == 303
    site.keys.add(KEY)
    assert visitor.get("/traces").status == 303  # for good


def test_logging_out_ends_the_session_on_the_server(site: Site) -> None:
    site.record([chat(1)])
    visitor = site.visitor()
    session = visitor.cookies["forebay_session"]

    answer = visitor.submit(visitor.get("/traces").page)

    assert answer.header("location") == "/login"
    assert "forebay_session" not in visitor.cookies
    visitor.cookies["forebay_session"] = session
    assert visitor.get("/traces").status == 303


def test_somebody_logged_in_is_not_asked_again(site: Site) -> None:
    assert site.visitor().get("/login?next=/traces").header("location") == "/traces"


# -- forged forms


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999"])
@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_a_form_from_another_site_is_refused(site: Site, path: str, origin: str) -> None:
    site.record([chat(1)])
    visitor = site.visitor(logged_in=path == "/logout")
    page = visitor.get("/login" if path == "/login" else "/traces").page
    (token,) = page.named("input", name="token")

    answer = visitor.post(path, origin=origin, key=KEY, token=token["value"])

    assert answer.status == 403
    assert answer.header("set-cookie") == ""


def test_a_browser_that_says_the_form_is_foreign_is_believed(site: Site) -> None:
    visitor = site.visitor(logged_in=False)

    answer = visitor.get("/login", method="POST", sec_fetch_site="cross-site")

    assert answer.status == 403


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_without_its_token_logs_nobody_in(site: Site, token: str) -> None:
    visitor = site.visitor(logged_in=False)
    visitor.get("/login")

    answer = visitor.post("/login", key=KEY, token=token)

    assert answer.status == 401
    assert "too old" in answer.page.text
    assert "forebay_session" not in visitor.cookies


def test_a_token_of_another_browser_is_no_token(site: Site) -> None:
    theirs = site.visitor(logged_in=False).get("/login").page.named("input", name="token")
    visitor = site.visitor(logged_in=False)
    visitor.get("/login")

    answer = visitor.post("/login", key=KEY, token=theirs[0]["value"])

    assert answer.status == 401


def test_a_logout_without_its_token_logs_nobody_out(site: Site) -> None:
    site.record([chat(1)])
    visitor = site.visitor()

    assert visitor.post("/logout", token="x").status == 403
    assert visitor.get("/traces").status == 200


def test_a_form_without_an_end_is_refused(site: Site) -> None:
    answer = site.visitor(logged_in=False).post("/login", key="x" * 20_000)

    assert answer.status == 413


def test_a_form_with_countless_fields_is_refused(site: Site) -> None:
    answer = site.visitor(logged_in=False).post("/login", **{f"f{i}": "x" for i in range(60)})

    assert answer.status == 400


# -- the walls


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:8081",
        "",
        "-",
    ],
)
@pytest.mark.parametrize("path", ["/login", "/traces.json", "/static/mark.svg"])
def test_another_name_for_this_machine_gets_nothing(site: Site, host: str, path: str) -> None:
    site.record([chat(1)])

    answer = site.visitor().get(path, host=host, authorization=f"Bearer {KEY}")

    assert answer.status == 403
    assert b"req_" not in answer.body


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8081", "127.0.0.1", "[::1]:8081", "console.example.com",
     "Console.Example.com:443"],
)  # fmt: skip
def test_local_and_configured_names_are_answered(site: Site, host: str) -> None:
    assert site.visitor(logged_in=False).get("/login", host=host).status == 200


def test_two_host_headers_are_refused(site: Site) -> None:
    visitor = site.visitor(logged_in=False)
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/login",
        "query_string": b"",
        "headers": [(b"host", HOST.encode()), (b"host", b"evil.example")],
    }
    assert asyncio.run(exchange(visitor.console, scope, b"")).status == 403


@pytest.mark.parametrize(
    "path",
    ["/login", "/traces", "/traces.json", f"/traces/{id_of(1)}", "/nothing", "/static/mark.svg"],
)
def test_every_answer_carries_the_walls(site: Site, path: str) -> None:
    site.record([chat(1)])
    answer = site.visitor().get(path)

    policy = dict(
        part.strip().split(" ", 1) for part in answer.header("content-security-policy").split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "same-origin"
    assert answer.header("x-frame-options") == "DENY"
    if not path.startswith("/static/"):
        assert answer.header("cache-control") == "no-store"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    assert site.visitor().get("/traces", method=method).status == 405


def test_head_is_get_without_a_body(site: Site) -> None:
    site.record([chat(1)])
    answer = site.visitor().get("/traces", method="HEAD")

    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.header("content-length")) > 1000


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/static/console.py"]
)
def test_no_other_file_is_served(site: Site, path: str) -> None:
    assert site.visitor().get(path).status == 404


def test_the_style_sheet_may_be_stored_since_its_name_changes_with_it(site: Site) -> None:
    visitor = site.visitor(logged_in=False)
    (link,) = visitor.get("/login").page.named("link", rel="stylesheet")

    answer = visitor.get(link["href"])

    assert answer.header("content-type") == "text/css; charset=utf-8"
    assert "immutable" in answer.header("cache-control")


def test_a_failure_of_ours_shows_no_traceback(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.record([chat(1)])
    visitor = site.visitor()
    site.console._reader.close()
    site.console._reader._sql = object()  # type: ignore[assignment] # a bug of ours

    with caplog.at_level(logging.ERROR):
        answer = visitor.get("/traces")

    assert answer.status == 500
    assert "Traceback" not in answer.text
    assert "object" not in answer.page.text
    assert "the console failed" in caplog.text
    site.console._reader._sql = None


def test_a_websocket_is_closed(site: Site) -> None:
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    asyncio.run(site.console({"type": "websocket"}, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1000}]


# -- the list


def test_the_list_shows_every_trace_with_what_was_asked(site: Site) -> None:
    site.record(every_kind())

    page = site.visitor().get("/traces").page

    hrefs = [link["href"] for link in page.named("a") if link["href"].startswith("/traces/")]
    assert hrefs == [f"/traces/{id_of(n)}" for n in range(11, 0, -1)]
    for text in ("What is a forebay?", "Which turbine suits a head of 400 m?", "Write a haiku"):
        assert text in page.text
    for text in ("answered", "provider too slow", "caller left", "cut off", "not JSON"):
        assert text in page.text


def test_the_figures_are_those_of_the_last_hour(site: Site) -> None:
    site.record(every_kind())

    page = site.visitor().get("/").page

    assert "Requests, last hour 11 Failed 3 27.3 %" in page.text
    assert "Saved by caches $0.000974 9 % hits" in page.text


def test_pages_follow_each_other_by_their_links(site: Site) -> None:
    site.record([chat(n) for n in range(1, 121)])
    visitor = site.visitor()
    seen = []
    path = "/traces?model=openai/gpt-5-mini"
    while True:
        page = visitor.get(path).page
        seen += [a["href"][8:] for a in page.named("a") if a["href"].startswith("/traces/req_")]
        older = page.named("a", rel="next")
        if not older:
            break
        path = older[0]["href"]
        assert "model=openai%2Fgpt-5-mini" in path

    assert seen == [id_of(n) for n in range(120, 0, -1)]


def test_the_filter_stands_in_the_form_as_it_stands_in_the_address(site: Site) -> None:
    site.record(every_kind())

    page = site.visitor().get("/traces?q=haiku&outcome=ok&model=claude-haiku-5-5&since=1h").page

    assert page.named("input", name="q")[0]["value"] == "haiku"
    chosen = [option["value"] for option in page.named("option") if "selected" in option]
    assert chosen == ["claude-haiku-5-5", "ok", "1h"]
    assert (
        "forebay trace list --model claude-haiku-5-5 --outcome ok --since 1h --text haiku"
        in page.text
    )


def test_a_value_that_no_list_offers_stays_chosen(site: Site) -> None:
    site.record([chat(1)])

    page = site.visitor().get("/traces?outcome=provider_timeout").page

    chosen = [option["value"] for option in page.named("option") if "selected" in option]
    assert chosen == ["provider_timeout"]


def test_an_id_that_is_pasted_into_the_search_leads_to_its_trace(site: Site) -> None:
    site.record([chat(1), chat(2)])
    visitor = site.visitor()

    assert visitor.get(f"/traces?q={id_of(2)}").header("location") == f"/traces/{id_of(2)}"
    assert visitor.get("/traces?q=req_nobody12").status == 200


@pytest.mark.parametrize("before", ["x", "-1", "1e9", "9" * 40, "٣"])
def test_a_cursor_that_is_none_is_the_first_page(site: Site, before: str) -> None:
    site.record([chat(1)])

    assert id_of(1) in site.visitor().get(f"/traces?before={before}").text


def test_an_empty_list_says_why(site: Site) -> None:
    site.record([])
    visitor = site.visitor()
    assert "Nothing has been recorded yet." in visitor.get("/traces").page.text

    site.record([chat(1)])
    page = visitor.get("/traces?project=nobody&q=abc").page
    assert "No trace matches. The filter asks for text abc , project nobody" in page.text


def test_no_store_yet_is_said(site: Site) -> None:
    answer = site.visitor().get("/traces")

    assert answer.status == 501
    assert "There is no trace store" in answer.page.text


def test_live_loads_the_first_page_anew_and_no_other(site: Site) -> None:
    site.record([chat(n) for n in range(1, 60)])
    visitor = site.visitor()

    assert visitor.get("/traces?live=1").header("refresh") == "5"
    assert visitor.get("/traces").header("refresh") == ""
    assert visitor.get("/traces?live=1&before=30").header("refresh") == ""


def test_what_was_not_kept_is_said_in_the_list(site: Site) -> None:
    site.record([changed(chat(1), body=Body(form="off")), changed(chat(2), body=whole(b"{"))])

    text = site.visitor().get("/traces").page.text

    assert "not kept" in text
    assert "What is a forebay?" not in text


def test_the_twin_of_the_list_has_its_lines_and_its_next(site: Site) -> None:
    site.record([chat(n) for n in range(1, 61)])
    visitor = site.visitor()

    first = visitor.get("/traces.json?project=default").json
    second = visitor.get(first["next"]).json

    assert [t["id"] for t in first["traces"] + second["traces"]] == [
        id_of(n) for n in range(60, 0, -1)
    ]
    assert second["next"] is None
    assert first["traces"][0]["cost_nusd"] == 973_650
    assert first["overview"]["requests"] == 60


# -- one trace


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: str(record.outcome))
def test_every_kind_of_trace_has_a_page_a_raw_view_and_a_twin(site: Site, record: Record) -> None:
    site.record([record])
    visitor = site.visitor()

    for path in ("", "?view=raw"):
        answer = visitor.get(f"/traces/{record.id}{path}")
        assert answer.status == 200
        assert record.id in answer.page.text
        assert answer.page.open == []
    assert visitor.get(f"/traces/{record.id}.json").json["id"] == record.id


def test_a_trace_says_what_happened_and_shows_the_messages(site: Site) -> None:
    site.record([chat(1)])

    text = site.visitor().get(f"/traces/{id_of(1)}").page.text

    for part in (
        "Answered by openai gpt-5-mini in 841 ms. It cost $0.000974.",
        "System You answer in one sentence.".lower(),
        "user What is a forebay?",
        "assistant · finished: stop The pool in front of a turbine house.",
        "Tokens in 1,125 256 read from the provider's cache",
        "Cost $0.00097365",
        f"forebay trace show {id_of(1)}",
    ):
        assert part.lower() in text.lower()


def test_a_trace_shows_what_was_changed_in_the_callers_bytes(site: Site) -> None:
    site.record([chat(1)])

    page = site.visitor().get(f"/traces/{id_of(1)}?view=raw").page

    assert '"openai/gpt-5-mini" "gpt-5-mini"' in page.text
    assert "The caller got these very bytes." in page.text
    assert all("open" in details for details in page.named("details"))


def test_a_stream_shows_its_chunks_and_when_they_came(site: Site) -> None:
    site.record([chat_stream(2)])

    text = site.visitor().get(f"/traces/{id_of(2)}").page.text

    assert "Chunks 11, as they came" in text
    assert '1 420 ms 420 ms 186 data: {"id"' in text
    assert "Still water waits — then turns." in text


def test_a_hit_leads_to_the_trace_that_filled_the_cache(site: Site) -> None:
    site.record([chat(1), cache_hit(6, source=1)])

    page = site.visitor().get(f"/traces/{id_of(6)}").page

    assert "Answered from the exact cache in 190 µs. It saved $0.000974." in page.text
    assert {"href": f"/traces/{id_of(1)}"} in page.named("a")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("request", b'{"model":"openai/gpt-5-mini"'),
        ("sent-1", b'{"model":"gpt-5-mini"'),
        ("answer-1", b'{"id":"chatcmpl-00000001"'),
        ("reply", b'{"id":"chatcmpl-00000001"'),
    ],
)
def test_exact_bytes_are_a_file_that_no_browser_shows(
    site: Site, name: str, expected: bytes
) -> None:
    site.record([chat(1)])

    answer = site.visitor().get(f"/traces/{id_of(1)}/{name}")

    assert answer.body.startswith(expected)
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("content-disposition") == f'attachment; filename="{name}.bin"'


@pytest.mark.parametrize(
    "name", ["sent-2", "sent-", "answer-0", "nothing", "request/x", "../x", "a\r\nb"]
)
def test_bytes_that_are_not_there_are_a_clear_404(site: Site, name: str) -> None:
    site.record([chat(1)])

    answer = site.visitor().get(f"/traces/{id_of(1)}/{name}")

    assert answer.status == 404


def test_the_beginning_of_an_id_is_enough(site: Site) -> None:
    site.record([chat(1), chat(2)])

    assert id_of(2) in site.visitor().get(f"/traces/{id_of(2)[:20]}").page.text


@pytest.mark.parametrize(
    "path", ["/traces/req_nobody", "/traces/%00", "/traces/", "/traces/.json", "/x"]
)
def test_what_is_not_there_is_a_clear_404(site: Site, path: str) -> None:
    site.record([chat(1)])

    answer = site.visitor().get(path)

    assert answer.status == 404


def test_the_twin_of_a_trace_has_every_byte(site: Site) -> None:
    record = changed(chat(1), body=whole(b"\xff\xfe not text"))
    record.attempts[0].sent = []
    site.record([record, chat_stream(2)])
    visitor = site.visitor()

    binary = visitor.get(f"/traces/{id_of(1)}.json").json
    stream = visitor.get(f"/traces/{id_of(2)}.json").json

    assert binary["request"] == {
        "size": 11,
        "kept": "full",
        "base64": "//4gbm90IHRleHQ=",
        "chunks": [],
    }
    assert stream["reply"]["text"].endswith("data: [DONE]\n\n")
    assert len(stream["reply"]["chunks"]) == 11
    assert stream["attempts"][0]["usage"]["output_tokens"] == 7
    assert stream["headers"][0] == ["content-type", "application/json"]


def test_a_hashed_body_says_so_with_its_hash(site: Site) -> None:
    site.record([changed(chat(1), body=Body(bytes(range(32)), b"", 4321, "hashed"))])

    text = site.visitor().get(f"/traces/{id_of(1)}").page.text

    assert "Only the SHA-256 of these 4,321 bytes was kept" in text
    assert bytes(range(32)).hex() in text
