"""Which headers cross the gateway, each way: explicit lists, everything else stays.

Forwarding all of them leaks credentials and cookies; forwarding none breaks Claude Code
(`anthropic-beta`) and OpenAI's projects. A caller's credential is on no list, so it can
never go up. The provider's rate-limit headers go down: to the caller they are its limits.
"""

from forebay.exchange import Dialect, Headers

_UP: dict[Dialect, frozenset[bytes]] = {
    "openai": frozenset({b"idempotency-key", b"x-client-request-id"}),
    "anthropic": frozenset({b"anthropic-version", b"anthropic-beta", b"idempotency-key"}),
}
_UP_PREFIX: dict[Dialect, bytes] = {"openai": b"openai-", "anthropic": b"\0"}

_DOWN: dict[Dialect, frozenset[bytes]] = {
    "openai": frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"}),
    "anthropic": frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"}),
}
_DOWN_PREFIXES: dict[Dialect, tuple[bytes, ...]] = {
    "openai": (b"openai-", b"x-ratelimit-"),
    "anthropic": (b"anthropic-ratelimit-",),
}

#: What a record keeps of a request's head: nothing that grants access.
_RECORDED = frozenset(
    {
        b"accept",
        b"content-type",
        b"content-length",
        b"user-agent",
        b"host",
        b"origin",
        b"traceparent",
        b"anthropic-version",
        b"anthropic-beta",
        b"idempotency-key",
    }
)
_RECORDED_PREFIXES = (b"x-forebay-", b"x-stainless-", b"openai-", b"x-ratelimit-", b"anthropic-")


def up(headers: Headers, caller: Dialect, provider: Dialect) -> Headers:
    """A caller's headers that go to the provider. Sync, ~1 µs.

    Only within one dialect: another's headers mean nothing there.
    """
    if caller != provider:
        return []
    names, prefix = _UP[caller], _UP_PREFIX[caller]
    return [header for header in headers if header[0] in names or header[0].startswith(prefix)]


def down(headers: Headers, provider: Dialect) -> Headers:
    """A provider's headers that go to the caller."""
    names, prefixes = _DOWN[provider], _DOWN_PREFIXES[provider]
    return [header for header in headers if header[0] in names or header[0].startswith(prefixes)]


def recorded(headers: Headers) -> Headers:
    """A request's headers that a record keeps."""
    return [
        header
        for header in headers
        if header[0] in _RECORDED or header[0].startswith(_RECORDED_PREFIXES)
    ]
