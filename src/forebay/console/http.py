"""Requests and replies of the console, and the headers that every page has.

The console shows what attackers wrote. Text is escaped by the templates; this is the second
wall: nothing is loaded from elsewhere, no script runs, no page is framed, stored, or told to
others as a referrer.
"""

from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from forebay.admission.door import is_local_name
from forebay.errors import Failure

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_FORM_BYTES = 16 * 1024
_MAX_FIELDS = 50

_SECURITY = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: with that browsers send our own forms with `Origin: null`.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NO_STORE = (b"cache-control", b"no-store")


class Request:
    """One request to the console. Fields are as they were sent: hostile until looked at."""

    def __init__(self, scope: Scope) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.secure: bool = scope.get("scheme") == "https"
        self.query = _fields(scope.get("query_string", b"").decode("latin-1"))
        self.query_string: str = scope.get("query_string", b"").decode("latin-1")
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.form: dict[str, str] = {}

    def header(self, name: bytes) -> str:
        """The first header of this name, "" where there is none."""
        return next((v.decode("latin-1") for n, v in self._headers if n == name), "")

    def cookie(self, name: str) -> str:
        try:
            found = SimpleCookie(self.header(b"cookie")).get(name)
        except CookieError:
            return ""
        return found.value if found is not None else ""

    @property
    def bearer(self) -> str:
        scheme, _, value = self.header(b"authorization").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else ""

    def check_host(self, allowed: frozenset[str]) -> None:
        """Raises Failure where the Host is no local name and not one of `allowed`.

        A page from anywhere can make its own name resolve to this machine and then talk to
        the console as its own; only the Host header tells.
        """
        hosts = [value.decode("latin-1") for name, value in self._headers if name == b"host"]
        if len(hosts) == 1 and (is_local_name(hosts[0]) or _name(hosts[0]) in allowed):
            return
        raise Failure(
            "foreign_origin",
            f"The console does not answer under the name {' '.join(hosts)[:100]!r}.",
            hint="Open it by a local address, or name the host in forebay.yaml (admin: hosts).",
        )

    def check_origin(self) -> None:
        """Raises Failure where another site's page sent this. Browsers say so on every POST."""
        origin = self.header(b"origin")
        site = self.header(b"sec-fetch-site")
        own = origin.partition("://")[2]
        if (origin and own != self.header(b"host")) or site not in ("", "same-origin", "none"):
            raise Failure(
                "foreign_origin",
                f"This form was sent by another site ({(origin or site)[:100]!r}).",
                hint="Send it from the console's own page.",
            )

    async def read_form(self, receive: Receive) -> None:
        """Fill `form` from the body. Raises Failure where it is larger than any form here."""
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Failure("bad_request", "The form was cut off.")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_FORM_BYTES:
                raise Failure(
                    "body_too_large", f"The form has over {MAX_FORM_BYTES} bytes, the limit here."
                )
        self.form = _fields(body.decode("latin-1"))


class Reply(msgspec.Struct):
    body: bytes = b""
    status: int = 200
    kind: str = "text/html; charset=utf-8"
    headers: list[tuple[bytes, bytes]] = []
    #: static files alone may be stored, each under a name that changes with it
    store: bool = False

    async def send(self, send: Send, *, head: bool = False) -> None:
        headers = [
            (b"content-type", self.kind.encode()),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"public, max-age=31536000, immutable") if self.store else _NO_STORE,
            *_SECURITY,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def see_other(where: str, *headers: tuple[bytes, bytes]) -> Reply:
    """Go there by GET. `where` is a path of ours."""
    return Reply(status=303, headers=[(b"location", where.encode("latin-1")), *headers])


def json_reply(value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Reply:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return Reply(body, status, "application/json", list(headers))


def set_cookie(name: str, value: str, *, secure: bool, max_age_s: int) -> tuple[bytes, bytes]:
    """For the whole console and no script; 0 seconds takes it away."""
    cookie = f"{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict"
    return (b"set-cookie", (cookie + ("; Secure" if secure else "")).encode("latin-1"))


def own_path(wanted: str, otherwise: str = "/") -> str:
    """A path to go to that a form or an address asked for, only where it is one of ours."""
    printable = wanted.isascii() and wanted.isprintable() and "\\" not in wanted
    if printable and wanted.startswith("/") and not wanted.startswith("//"):
        return wanted
    return otherwise


def _fields(encoded: str) -> dict[str, str]:
    """Fields of a form or an address; of two with one name the first."""
    try:
        pairs = parse_qsl(encoded, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Failure("bad_request", f"Over {_MAX_FIELDS} fields in one form.") from None
    return dict(reversed(pairs))


def _name(host: str) -> str:
    """Without its port, in lower case."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()
