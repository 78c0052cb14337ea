"""Which headers mean something, and which cross the gateway: explicit lists each way.

Forwarding all of them leaks credentials and cookies; forwarding none breaks Claude Code
(`anthropic-beta`) and OpenAI's projects. A caller's credential is on no list that leaves, so
it can never go up. The provider's rate-limit headers go down: to the caller they are its
limits.

`read` sorts a request's headers in one pass. What a name means is looked up in one dict,
which learns each new name once (bounded: callers choose names).
"""

from forebay.exchange import Dialect, Head, Headers

_RECORD, _UP_OPENAI, _UP_ANTHROPIC, _SINGLE, _PROXIED = 1, 2, 4, 8, 16
_DOWN_OPENAI, _DOWN_ANTHROPIC = 32, 64
_UP: dict[Dialect, int] = {"openai": _UP_OPENAI, "anthropic": _UP_ANTHROPIC}
_DOWN: dict[Dialect, int] = {"openai": _DOWN_OPENAI, "anthropic": _DOWN_ANTHROPIC}

_NAMES: dict[bytes, int] = {
    # what the gateway itself looks at
    b"authorization": _SINGLE,
    b"x-api-key": _SINGLE,
    b"api-key": _SINGLE,
    b"host": _SINGLE | _RECORD,
    b"origin": _SINGLE | _RECORD,
    b"content-type": _SINGLE | _RECORD,
    b"accept": _SINGLE | _RECORD,
    b"x-forebay-cache": _SINGLE | _RECORD,
    # headers that only a proxy adds
    b"forwarded": _PROXIED,
    b"via": _PROXIED,
    # goes to a provider of the caller's dialect
    b"idempotency-key": _UP_OPENAI | _UP_ANTHROPIC | _RECORD,
    b"x-client-request-id": _UP_OPENAI | _RECORD,
    b"anthropic-version": _UP_ANTHROPIC | _RECORD,
    b"anthropic-beta": _UP_ANTHROPIC | _RECORD,
    # goes to the caller
    b"retry-after": _DOWN_OPENAI | _DOWN_ANTHROPIC,
    b"retry-after-ms": _DOWN_OPENAI | _DOWN_ANTHROPIC,
    b"x-should-retry": _DOWN_OPENAI | _DOWN_ANTHROPIC,
    # kept in records, beside those above
    b"content-length": _RECORD,
    b"user-agent": _RECORD,
    b"traceparent": _RECORD,
}
_PREFIXES: tuple[tuple[bytes, int], ...] = (
    (b"openai-", _UP_OPENAI | _DOWN_OPENAI | _RECORD),
    (b"x-ratelimit-", _DOWN_OPENAI | _RECORD),
    (b"anthropic-ratelimit-", _DOWN_ANTHROPIC | _RECORD),
    (b"x-forwarded-", _PROXIED),
    (b"x-forebay-", _RECORD),
)
_MAX_LEARNED = 4096
_known = dict(_NAMES)


def _meaning(name: bytes) -> int:
    meaning = next((m for prefix, m in _PREFIXES if name.startswith(prefix)), 0)
    if len(_known) < _MAX_LEARNED and len(name) <= 64:
        _known[name] = meaning
    return meaning


def read(headers: Headers, dialect: Dialect) -> Head:
    """A request's headers, sorted. Sync, ~2 µs for 16 of them."""
    head = Head()
    single, up, recorded = head.single, head.up, head.recorded
    forwarded = _UP[dialect]
    known = _known
    for header in headers:
        name = header[0]
        meaning = known.get(name)
        if meaning is None:
            meaning = _meaning(name)
        if meaning & _RECORD:
            recorded.append(header)
        if meaning & forwarded:
            up.append(header)
        if meaning & _SINGLE:
            if name in single and head.repeated != b"host":
                head.repeated = name
            single[name] = header[1]
        elif meaning & _PROXIED:
            head.proxied = name
    return head


def down(headers: Headers, provider: Dialect) -> Headers:
    """A provider's headers that go to the caller. Sync, ~1 µs."""
    passed = _DOWN[provider]
    found = []
    for header in headers:
        meaning = _known.get(header[0])
        if meaning is None:
            meaning = _meaning(header[0])
        if meaning & passed:
            found.append(header)
    return found
