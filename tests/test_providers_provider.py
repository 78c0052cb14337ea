"""A provider as the pipeline sees it: its paths, its heads, and its key in one place only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.exchange import Headers
from forebay.providers import Anthropic, AzureOpenAI, OpenAI, Provider
from forebay.providers.provider import origin_path
from providers_kit import CANARY, anthropic, azure, lines, openai, world

EVERY = [openai(), anthropic(), azure()]
each = pytest.mark.parametrize("provider", EVERY, ids=lambda provider: provider.name)


# -- heads -----------------------------------------------------------------------------------


def test_a_provider_that_signs_sees_what_is_sent() -> None:
    provider = openai()
    provider.sign = lambda method, path, headers, body: [
        (b"x-signature", f"{method} {path} {len(headers)}".encode() + body)
    ]
    _, found = lines(provider.head("POST", "/p", [(b"openai-beta", b"y")], b"body"))
    assert dict(found)[b"x-signature"] == b"POST /p 1body"


@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [(b"text/event-stream; charset=utf-8", True), (b"Text/Event-Stream", True), (b"text/e", False)],
)
def test_a_stream_is_told_by_its_media_type(content_type: bytes, is_one: bool) -> None:
    assert openai().streams([(b"x", b"y"), (b"content-type", content_type)]) == is_one
    assert not openai().streams([])


def test_a_head_of_openai() -> None:
    first, found = lines(openai().head("POST", "/v1/chat/completions", [], b"x" * 12))
    assert first == b"POST /v1/chat/completions HTTP/1.1"
    assert found == [
        (b"host", b"x"),
        (b"user-agent", b"forebay"),
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer " + CANARY.encode()),
        (b"content-length", b"12"),
    ]


def test_a_head_of_anthropic() -> None:
    _, found = lines(anthropic().head("POST", "/v1/messages", [(b"anthropic-beta", b"x")], b"x"))
    assert (b"x-api-key", CANARY.encode()) in found
    assert (b"anthropic-beta", b"x") in found
    assert (b"anthropic-version", b"2023-06-01") in found
    sent = [(b"anthropic-version", b"2030-01-01")]
    _, found = lines(anthropic().head("POST", "/v1/messages", sent, b"x"))
    versions = [value for name, value in found if name == b"anthropic-version"]
    assert versions == [b"2030-01-01"]


def test_a_head_of_azure() -> None:
    _, found = lines(azure().head("POST", "/p", [], b"x"))
    assert (b"api-key", CANARY.encode()) in found
    assert b"authorization" not in dict(found)


@each
@pytest.mark.parametrize(
    ("method", "size", "told"),
    [
        ("POST", 0, True),
        ("PUT", 0, True),
        ("GET", 0, False),
        ("DELETE", 3, True),
        ("HEAD", 0, False),
    ],
)
def test_a_length_where_there_may_be_a_body(
    provider: Provider, method: str, size: int, told: bool
) -> None:
    _, found = lines(provider.head(method, "/p", [], b"x" * size))
    assert [value for name, value in found if name == b"content-length"] == [b"%d" % size] * told


def test_what_the_operator_set_a_caller_cannot_replace() -> None:
    provider = openai(organization="ours", headers={"X-Team": "ours"})
    sent: Headers = [
        (b"openai-organization", b"theirs"),
        (b"x-team", b"theirs"),
        (b"openai-project", b"theirs"),
    ]
    _, found = lines(provider.head("POST", "/p", sent, b""))
    assert (b"openai-organization", b"ours") in found
    assert (b"x-team", b"ours") in found
    assert (b"openai-project", b"theirs") in found
    assert len({name for name, _ in found}) == len(found)


@each
def test_a_head_is_the_same_the_second_time(provider: Provider) -> None:
    """Its beginning is remembered."""
    heads = [provider.head("POST", "/again", [(b"a", b"b")], b"x" * 3) for _ in range(2)]
    assert heads[0] == heads[1]
    assert provider.head("GET", "/again", [], b"") != heads[0]


@each
def test_what_is_remembered_of_paths_is_bounded(provider: Provider) -> None:
    for number in range(1000):
        provider.head("GET", f"/files/{number}", [], b"")
    assert len(provider._starts) <= 256


def test_without_a_key_there_is_no_credential() -> None:
    for provider in (openai(api_key=""), anthropic(api_key=""), azure(api_key="")):
        assert provider.secrets == []
        head = provider.head("POST", "/p", [], b"")
        assert b"uthorization" not in head
        assert b"api-key" not in head


def test_through_a_proxy_a_plain_request_has_the_whole_url() -> None:
    provider = openai(base_url="http://far:8000/v1", proxy="http://me:secret@near:3128")
    first, found = lines(provider.head("POST", "/v1/x", [], b""))
    assert first == b"POST http://far:8000/v1/x HTTP/1.1"
    assert dict(found)[b"proxy-authorization"].startswith(b"Basic ")
    assert dict(found)[b"host"] == b"far:8000"
    tunnelled = openai(base_url="https://far/v1", proxy="http://me:secret@near:3128")
    first, found = lines(tunnelled.head("POST", "/v1/x", [], b""))
    assert first == b"POST /v1/x HTTP/1.1"
    assert b"proxy-authorization" not in dict(found)


# -- secrets ---------------------------------------------------------------------------------


@each
def test_a_key_is_shown_nowhere(provider: Provider) -> None:
    shown = f"{provider!r} {provider.describe()} {provider.public_headers} {provider.address}"
    assert CANARY not in shown
    assert provider.name in shown


@pytest.mark.parametrize(
    "settings",
    [
        OpenAI(api_key=CANARY, headers={"x-secret": CANARY}, proxy=f"http://u:{CANARY}@p"),
        Anthropic(api_key=CANARY, headers={"x-secret": CANARY}),
        AzureOpenAI(api_key=CANARY, base_url="https://x"),
        OpenAI(base_url=f"https://user:{CANARY}@x"),
    ],
    ids=["openai", "anthropic", "azure", "in the URL"],
)
def test_settings_do_not_print_their_key(settings: Any) -> None:
    """They end up in tracebacks and logs."""
    assert CANARY not in repr(settings)
    assert CANARY not in f"{[settings]} {settings}"
    assert type(settings).__name__ in repr(settings)


@pytest.mark.parametrize("kind", [OpenAI, Anthropic, AzureOpenAI])
@pytest.mark.parametrize("value", [f"{CANARY}\n", f"{CANARY}\r\nx: y", "a\0b", "ключ", "a b\x7f"])
def test_a_key_that_is_no_header_is_refused_and_not_shown(kind: Any, value: str) -> None:
    """A line break at its end, as files have them, would end the request's head."""
    with pytest.raises(Failure) as caught:
        kind(api_key=value, base_url="http://x", proxy="off").build("home", world())
    assert "api_key" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "b\r\nx-c: d"},
        {"x-a\r\nx-c": "d"},
        {"x a": "b"},
        {"": "b"},
        {"x-a": "ключ"},
        {"x:a": "b"},
        {"content-length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"Host": "evil"},
        {"connection": "close"},
    ],
)
def test_headers_of_settings_that_break_a_request_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Failure) as caught:
        openai(headers=headers)
    assert "headers" in str(caught.value)


@pytest.mark.parametrize("field", ["organization", "project"])
def test_other_values_that_break_a_request_are_refused(field: str) -> None:
    with pytest.raises(Failure) as caught:
        openai(**{field: "a\r\nb: c"})
    assert field in str(caught.value)


@pytest.mark.parametrize("version", ["2024 10", "2024\r\nx: y", "a&b=c", "a#b"])
def test_a_version_that_breaks_a_path_is_refused(version: str) -> None:
    with pytest.raises(Failure) as caught:
        azure(api_version=version)
    assert "api_version" in str(caught.value)


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "chat"),
    [
        ("https://api.openai.com/v1", "/v1/chat/completions"),
        ("https://api.openai.com", "/v1/chat/completions"),
        ("https://api.openai.com/", "/v1/chat/completions"),
        ("https://api.openai.com/v1/", "/v1/chat/completions"),
        ("https://openrouter.ai/api/v1", "/api/v1/chat/completions"),
        ("https://x/some/prefix", "/some/prefix/v1/chat/completions"),
        ("https://x/v2", "/v2/v1/chat/completions"),
    ],
)
def test_v1_is_given_once_or_not_at_all(base: str, chat: str) -> None:
    provider = openai(base_url=base)
    assert provider.address.path("chat", "m") == chat


def test_paths_of_each_kind() -> None:
    assert openai().address.path("embeddings", "m") == "/v1/embeddings"
    assert anthropic(base_url="http://x/v1").address.path("messages", "m") == "/v1/messages"
    assert anthropic().address.path("count_tokens", "m") == "/v1/messages/count_tokens"
    path = azure(api_version="2025-01-01").address.path("chat", "our model")
    assert path == "/openai/deployments/our%20model/chat/completions?api-version=2025-01-01"
    assert not anthropic().serves("chat")
    assert not azure().serves("messages")


@given(st.text(max_size=30).filter(lambda name: name.strip(".")))
def test_a_model_stays_one_segment_of_a_path(model: str) -> None:
    path = azure().address.path("chat", model)
    before, _, query = path.partition("?")
    assert before.isascii()
    assert before.count("/") == 5
    assert query == "api-version=2024-10-21"
    assert " " not in path
    first, _ = lines(azure().head("POST", path, [], b""))
    assert first.count(b" ") == 2


@pytest.mark.parametrize("model", ["", ".", "..", "..."])
def test_a_model_is_no_step_in_a_path(model: str) -> None:
    """Servers take such segments out, escaped or not, and another path remains."""
    with pytest.raises(Failure) as caught:
        azure().address.path("chat", model)
    assert caught.value.code.name == "unknown_model"


@given(
    base=st.sampled_from(["", "/", "/v1", "/v1/", "/a/v1", "/a"]),
    suffix=st.sampled_from(["/v1/models", "/v1/chat/completions", "/files", "/v1"]),
)
def test_joined_paths_have_no_double_slash_or_version(base: str, suffix: str) -> None:
    joined = origin_path(base, suffix)
    assert joined.startswith("/")
    assert "//" not in joined
    assert "/v1/v1" not in joined


def test_names_of_models_are_the_providers_own_on_the_wire() -> None:
    provider = azure(deployments={"gpt-x": "our-x"})
    assert provider.wire_model("gpt-x") == "our-x"
    assert provider.wire_model("other") == "other"


def test_a_restricted_provider_serves_what_is_left() -> None:
    provider = openai()
    provider.restrict({"embeddings"})
    assert provider.serves("embeddings")
    assert not provider.serves("chat")
    assert provider.facts.closed
    assert provider.facts.endpoints == {"embeddings"}
    assert openai().serves("chat")  # another one is not touched


# -- prices and names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "prices", "limit_name"),
    [
        ({"base_url": "https://api.openai.com/v1"}, "openai", "max_completion_tokens"),
        ({"base_url": "https://elsewhere/v1"}, "mine", "max_tokens"),
        ({"base_url": "https://elsewhere/v1", "prices": "groq"}, "groq", "max_tokens"),
        ({"base_url": "https://elsewhere/v1", "prices": ""}, "", "max_tokens"),
    ],
)
def test_what_is_known_of_openais_own_api_is_not_said_of_others(
    settings: dict[str, str], prices: str, limit_name: str
) -> None:
    provider = openai("mine", **settings)
    assert provider.prices == prices
    assert provider.facts.limit_name == limit_name
