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

from forebay.admission.keys import PREFIX, Keyring
from forebay.errors import Failure
from forebay.exchange import Exchange, Head, Tenant

_HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[^:/?#@]*)(?::\d{1,5})?$")


_NO_KEY = Tenant()
_OURS = PREFIX.encode()

#: Values found to be local; nearly every request sends one of a few.
_local_hosts: set[bytes] = set()
_local_origins: set[bytes] = set()
_MAX_LOCAL = 256


def identify(keyring: Keyring, required: bool, x: Exchange) -> Tenant:
    """Whose request it is. Raises Failure. Sync, ~2 µs.

    Where no key is needed, whatever an SDK sends as one is ignored (they always send
    something), unless it is a good one of ours: then it says whose request this is.
    """
    single = x.head.single
    secret = single.get(b"authorization", b"")
    if secret[:7].lower() == b"bearer ":
        secret = secret[7:].strip()
    else:
        secret = (single.get(b"x-api-key") or single.get(b"api-key") or b"").strip()
    if not required and is_loopback(x.peer):
        if not secret.startswith(_OURS):
            check(x.method, x.head)
            return _NO_KEY
        try:
            return keyring.identify(secret, x.received_wall_ns)
        except Failure:
            check(x.method, x.head)
            return _NO_KEY
    return keyring.identify(secret, x.received_wall_ns)


def check(method: str, head: Head) -> None:
    """Raises Failure (foreign_origin, bad_content_type, bad_request) where a key is needed.

    Sync, ~0.5 µs.
    """
    if head.repeated == b"host":
        raise Failure("bad_request", "The request has two Host headers.")
    if head.proxied:
        raise _foreign(head.proxied.decode("latin-1"), b"")
    single = head.single
    if (host := single.get(b"host")) is not None and host not in _local_hosts:
        if not is_local_name(host.decode("latin-1")):
            raise _foreign("Host", host)
        _remember(_local_hosts, host)
    if (origin := single.get(b"origin")) is not None and origin not in _local_origins:
        if not _local_origin(origin):
            raise _foreign("Origin", origin)
        _remember(_local_origins, origin)
    if method in ("POST", "PUT", "PATCH"):
        content_type = single.get(b"content-type", b"")
        if content_type != b"application/json" and not _is_json(content_type):
            raise Failure(
                "bad_content_type",
                f"The content type is {content_type.decode('latin-1')!r}, not application/json.",
                hint="Send `Content-Type: application/json`, or use a key.",
            )


def _remember(known: set[bytes], value: bytes) -> None:
    if len(known) < _MAX_LOCAL:
        known.add(value)


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
    shown = f" {value[:80].decode('latin-1')!r}" if value else ""
    return Failure(
        "foreign_origin",
        "Without a key this gateway answers local programs only; the request came with "
        f"{name}{shown}.",
        hint="Send a key: `forebay keys create` makes one.",
    )
