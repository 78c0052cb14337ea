"""Which headers mean something and which cross: lists, so that what is on none stays here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.dialects import headers
from forebay.exchange import Dialect, Headers

DIALECTS: list[Dialect] = ["openai", "anthropic"]
CREDENTIALS = [
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"cookie",
    b"proxy-authorization",
    b"x-goog-api-key",
    b"x-amz-security-token",
    b"set-cookie",
]
#: they frame a message: to pass them on is to smuggle
FRAMING = [b"content-length", b"transfer-encoding", b"connection", b"host", b"upgrade", b"te"]


def names(found: Headers) -> list[bytes]:
    return [name for name, _ in found]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CREDENTIALS + FRAMING)
def test_neither_credentials_nor_framing_cross(dialect: Dialect, name: bytes) -> None:
    head = headers.read([(name, b"canary")], dialect)
    assert head.up == []
    assert headers.down([(name, b"canary")], dialect) == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CREDENTIALS)
def test_no_credential_is_recorded(dialect: Dialect, name: bytes) -> None:
    assert headers.read([(name, b"canary")], dialect).recorded == []


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        (b"anthropic-version", ["anthropic"], []),
        (b"anthropic-beta", ["anthropic"], []),
        (b"idempotency-key", ["openai", "anthropic"], []),
        (b"x-client-request-id", ["openai"], []),
        (b"openai-organization", ["openai"], ["openai"]),
        (b"openai-project", ["openai"], ["openai"]),
        (b"openai-processing-ms", ["openai"], ["openai"]),
        (b"x-ratelimit-remaining-requests", [], ["openai"]),
        (b"anthropic-ratelimit-tokens-limit", [], ["anthropic"]),
        (b"retry-after", [], ["openai", "anthropic"]),
        (b"x-should-retry", [], ["openai", "anthropic"]),
        (b"user-agent", [], []),
        (b"x-forebay-cache", [], []),
        (b"content-type", [], []),
        (b"x-request-id", [], []),  # the gateway's own goes down
        (b"access-control-allow-origin", [], []),
        (b"x-anything", [], []),
        (b"openai", [], []),
        (b"x-openai-organization", [], []),
    ],
)
def test_what_crosses_each_way(name: bytes, up: list[str], down: list[str]) -> None:
    for dialect in DIALECTS:
        sent = [(name, b"v")]
        assert headers.read(sent, dialect).up == (sent if dialect in up else [])
        assert headers.down(sent, dialect) == (sent if dialect in down else [])


def test_what_comes_several_times_crosses_as_often_and_in_order() -> None:
    sent = [(b"anthropic-beta", b"a"), (b"x", b"y"), (b"anthropic-beta", b"b")]
    head = headers.read(sent, "anthropic")
    assert head.up == [sent[0], sent[2]]
    assert head.recorded == [sent[0], sent[2]]


def test_what_the_gateway_looks_at_is_found_by_name() -> None:
    head = headers.read(
        [(b"host", b"a"), (b"accept", b"*"), (b"x-forebay-cache", b"on"), (b"other", b"x")],
        "openai",
    )
    assert head.single == {b"host": b"a", b"accept": b"*", b"x-forebay-cache": b"on"}
    assert (head.repeated, head.proxied) == (b"", b"")


@given(
    st.lists(
        st.sampled_from([b"host", b"accept", b"origin", b"via", b"forwarded", b"x-forwarded-for"]),
        max_size=8,
    )
)
def test_repetition_and_proxies_are_never_missed(sent: list[bytes]) -> None:
    head = headers.read([(name, b"%d" % at) for at, name in enumerate(sent)], "openai")
    watched = [name for name in sent if name in (b"host", b"accept", b"origin")]
    assert bool(head.repeated) == (len(set(watched)) != len(watched))
    if sent.count(b"host") > 1:  # that one decides who may come in
        assert head.repeated == b"host"
    assert bool(head.proxied) == (len(watched) != len(sent))
    for name in set(watched):  # the last one counts
        last = max(at for at, each in enumerate(sent) if each == name)
        assert head.single[name] == b"%d" % last


def test_names_are_learned_within_bounds_and_mean_the_same_afterwards() -> None:
    for number in range(2 * headers._MAX_LEARNED):
        headers.read([(b"x-learned-%d" % number, b"v")], "openai")
        headers.down([(b"y-learned-%d" % number, b"v")], "openai")
    headers.read([(b"x" * 100_000, b"v")], "openai")
    assert len(headers._known) <= headers._MAX_LEARNED
    assert max(map(len, headers._known)) <= 64
    late = [(b"openai-never-seen", b"v"), (b"x-forwarded-late", b"v")]
    head = headers.read(late, "openai")
    assert head.up == late[:1]
    assert head.proxied == b"x-forwarded-late"
