"""What all providers' settings share: how to reach them, and the checks on it."""

import os
import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import msgspec

from forebay.dialects.failures import masked
from forebay.errors import Failure
from forebay.exchange import Headers
from forebay.providers.facts import ModelFacts
from forebay.wire.pool import Origin, Proxy, Target, parse_proxy
from forebay.world import World

#: What a header can hold (RFC 9110, section 5, without its obsolete part), and a request's path.
_VALUE = re.compile(r"[\t -~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URL = re.compile(r"[!-~]*")
_USER = re.compile(r"//[^/]*@")
#: They frame a message and are made for each request.
_FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to reach a provider. Every provider's settings hold these too."""

    #: where its API lives; path included
    base_url: str = ""
    #: more headers for each request, for example an organisation's
    headers: dict[str, str] = {}
    #: PEM file of certificates to trust instead of the system's
    ca_file: str = ""
    #: http:// address of a forward proxy; "" takes HTTPS_PROXY/HTTP_PROXY/NO_PROXY, "off" none
    proxy: str = ""
    #: most connections to it at once
    connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 1024
    #: models it serves, beside those it lists itself; their limits where known
    models: dict[str, ModelFacts] = {}

    def __repr__(self) -> str:
        """Settings get into tracebacks: no key, no header, no password."""
        host = _USER.sub("//", self.base_url).partition("?")[0]
        return f"<{type(self).__name__} {masked(host)}>"

    def check(self) -> None:
        """Raises Failure where no request could be made with these. Reads `ca_file`."""
        parts = self.url()
        self._proxy(parts.scheme, str(parts.hostname))
        self.extra_headers()
        self.credentials()
        if self.ca_file:
            self._tls()

    def credentials(self) -> Headers:
        """What goes up with each request and is never shown."""
        return []

    def url(self) -> SplitResult:
        """Raises Failure where it is no address."""
        try:
            parts = urlsplit(self.base_url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            good = good and (parts.port is None or parts.port > 0)
        except ValueError:  # a port out of range, half an IPv6 address
            good = False
        if not good or not _URL.fullmatch(self.base_url):
            shown = masked(_USER.sub("//…@", self.base_url))[:100]
            raise Failure(
                "bad_request",
                f"base_url {shown!r} is not an http(s) address.",
                hint="Write it like https://api.example.com/v1.",
                param="base_url",
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise Failure(
                "bad_request",
                "base_url must hold no user, query or fragment.",
                hint="Put the key into api_key.",
                param="base_url",
            )
        return parts

    def target(self, world: World) -> Target:
        """Raises Failure where the address, proxy or certificate file makes no sense."""
        parts = self.url()
        host = str(parts.hostname)
        tls = self._tls() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        origin = Origin(host, port, tls, self._proxy(parts.scheme, host))
        return Target(world, origin, self.connections)

    def extra_headers(self) -> Headers:
        for name in self.headers:
            if not _NAME.fullmatch(name) or name.lower() in _FRAMING:
                raise Failure(
                    "bad_request",
                    f"headers: {name[:60]!r} is no header that can be set.",
                    hint="Those that frame a message are made for each request.",
                    param="headers",
                )
        return [(k.lower().encode(), value_of(v, f"headers.{k}")) for k, v in self.headers.items()]

    def _tls(self) -> ssl.SSLContext:
        try:
            # Verification and host check are this function's defaults and stay on.
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise Failure(
                "bad_request",
                f"ca_file {self.ca_file!r} cannot be used: {error}.",
                param="ca_file",
            ) from None
        if not self.ca_file and (extra := os.environ.get("SSL_CERT_FILE")) and Path(extra).exists():
            context.load_verify_locations(extra)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _proxy(self, scheme: str, host: str) -> Proxy | None:
        if self.proxy == "off":
            return None
        url = self.proxy
        if not url:
            found = getproxies_environment()
            if proxy_bypass(host):
                return None
            url = found.get(scheme) or found.get("all") or ""
        try:
            return parse_proxy(url) if url else None
        except ValueError as error:
            raise Failure("bad_request", f"The proxy is {error}.", param="proxy") from None


def value_of(text: str, name: str) -> bytes:
    """A setting as the value of a header. Raises Failure, which doesn't show it."""
    if not _VALUE.fullmatch(text):
        raise Failure(
            "bad_request",
            f"{name} holds a character that no header can: a line break, a control character "
            "or one beyond ASCII.",
            hint="Look at its end: a file's last line break often comes along.",
            param=name,
        )
    return text.encode()


def bearer(key: str) -> Headers:
    return [(b"authorization", b"Bearer " + value_of(key, "api_key"))] if key else []
