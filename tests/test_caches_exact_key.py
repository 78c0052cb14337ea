"""What makes two requests the same (docs/decisions/0008-cache-key.md)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.caches.exact import key_of
from forebay.exchange import Exchange, Head, Headers, Tenant
from forebay.wire import members

ASK = {
    "model": "p/m",
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0,
}
HERE = Tenant("web", "shop")


def key(
    body: dict[str, object] | bytes,
    *,
    tenant: Tenant = HERE,
    endpoint: str = "chat",
    target: str = "p/m",
    headers: Headers | None = None,
) -> bytes:
    x = Exchange("req_1", 0, 0, "POST", "/", "", Head(), "127.0.0.1", endpoint, tenant=tenant)
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return key_of(x, members.parse(raw), target, headers or [])


def test_how_an_answer_is_delivered_does_not_matter() -> None:
    streamed = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    assert key(ASK) == key(streamed) == key({**ASK, "stream": False})


def test_the_order_of_members_and_the_space_between_them_do_not_matter() -> None:
    assert key(ASK) == key(dict(reversed(ASK.items())))
    assert key(b'{"a": 1, "b" :2}') == key(b'{"b":2,"a":1}')


@pytest.mark.parametrize(
    "other",
    [
        key(ASK, tenant=Tenant("web", "blog")),
        key(ASK, tenant=Tenant("ops", "shop")),
        key(ASK, endpoint="messages"),
        key(ASK, target="p/m2"),
        key(ASK, headers=[(b"anthropic-beta", b"x")]),
        key({**ASK, "temperature": 0.0}),
        key({**ASK, "seed": 1}),
        key({**ASK, "model": "alias"}),
        key({**ASK, "a_field_of_tomorrow": None}),
    ],
)
def test_whatever_may_change_the_answer_makes_another_key(other: bytes) -> None:
    assert other != key(ASK)


def test_who_asks_within_a_project_does_not_matter() -> None:
    assert key(ASK, tenant=Tenant("web", "shop", "key_1")) == key(ASK)


@pytest.mark.parametrize("label", [b"x-client-request-id", b"idempotency-key"])
def test_a_label_that_is_new_each_time_still_lets_a_request_hit(label: bytes) -> None:
    """A caller that numbered its requests got no answer from the cache, ever."""
    assert key(ASK, headers=[(label, b"1")]) == key(ASK, headers=[(label, b"2")]) == key(ASK)


NAMES = st.text('ab\0"', max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
BODIES = st.dictionaries(NAMES.filter(lambda name: not name.startswith("stream")), VALUES)
TOKENS = st.text("abc-", min_size=1, max_size=4).map(str.encode)
HEADERS = st.lists(st.tuples(TOKENS, TOKENS), max_size=2, unique_by=lambda header: header[0])
ASKED = st.tuples(BODIES, HEADERS, st.text(max_size=4))


@given(ASKED, ASKED)
def test_two_requests_share_a_key_only_if_they_are_the_same(
    one: tuple[dict[str, object], Headers, str], two: tuple[dict[str, object], Headers, str]
) -> None:
    def said(asked: tuple[dict[str, object], Headers, str]) -> object:
        body, headers, target = asked
        return {n: msgspec.json.encode(v) for n, v in body.items()}, sorted(headers), target

    def asked_key(asked: tuple[dict[str, object], Headers, str]) -> bytes:
        body, headers, model = asked
        return key({**body, "model": model}, target=model, headers=headers)

    one[0].pop("model", None)
    two[0].pop("model", None)
    assert (asked_key(one) == asked_key(two)) == (said(one) == said(two))
