"""Who may come in without a key: a program on this machine that is not a web page.

A gateway that answers on loopback without a key is convenient, and a trap in two ways. Any
page in the user's browser can send requests to 127.0.0.1 (as text/plain, without asking
first), and can make its own name resolve there (DNS rebinding) to read the answers. And any
reverse proxy on the same machine makes the whole world look local. So a caller without a key
must have a loopback address, a local Host, no foreign Origin, no header that a proxy adds,
and, where it sends a body, the JSON content type that makes a browser ask first.
"""

import ipaddress
import re

from forebay.errors import Failure
from forebay.exchange import Headers

_PROXIED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
)
_PROXIED_PREFIX = b"x-forwarded-"
_HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[^:/?#@]*)(?::\d{1,5})?$")


def check(peer: str, method: str, headers: Headers) -> None:
    """Raises Failure (missing_key, foreign_origin, bad_content_type) where a key is needed.

    Sync, ~2 µs.
    """
    if not is_loopback(peer):
        raise Failure(
            "missing_key",
            "This gateway needs a key.",
            hint="Send `Authorization: Bearer fb_…` (or x-api-key); `forebay keys create` makes one.",
        )
    host: bytes | None = None
    content_type = b""
    for name, value in headers:
        if name == b"host":
            if host is not None:
                raise Failure("bad_request", "The request has two Host headers.")
            host = value
        elif name == b"content-type":
            content_type = value
        elif name == b"origin":
            if not _local_origin(value):
                raise _foreign("Origin", value)
        elif name in _PROXIED or name.startswith(_PROXIED_PREFIX):
            raise _foreign(name.decode("latin-1"), value)
    if host is not None and not is_local_name(host.decode("latin-1")):
        raise _foreign("Host", host)
    if method in ("POST", "PUT", "PATCH") and not _is_json(content_type):
        raise Failure(
            "bad_content_type",
            f"The content type is {content_type.decode('latin-1')!r}, not application/json.",
            hint="Send `Content-Type: application/json`, or use a key.",
        )


def is_loopback(address: str) -> bool:
    """An address of this machine itself; "" is a Unix socket."""
    if address in ("127.0.0.1", "::1", ""):
        return True
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def is_local_name(host: str) -> bool:
    """`localhost`, a loopback address, with or without a port; nothing a DNS name can be."""
    match = _HOST.match(host)
    if match is None:
        return False
    name = match[1].strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _local_origin(origin: bytes) -> bool:
    scheme, _, host = origin.decode("latin-1").partition("://")
    return scheme in ("http", "https") and is_local_name(host)


def _is_json(content_type: bytes) -> bool:
    media, _, _ = content_type.partition(b";")
    media = media.strip().lower()
    return media == b"application/json" or (
        media.startswith(b"application/") and media.endswith(b"+json")
    )


def _foreign(name: str, value: bytes) -> Failure:
    return Failure(
        "foreign_origin",
        f"Without a key this gateway answers local programs only; the request has "
        f"{name}: {value[:80].decode('latin-1')!r}.",
        hint="Send a key: `forebay keys create` makes one.",
    )
