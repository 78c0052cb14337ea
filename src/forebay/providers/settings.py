"""What all providers' settings share: how to reach them, and the checks on it."""

import os
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import msgspec

from forebay.errors import Failure
from forebay.exchange import Headers
from forebay.providers.facts import ModelFacts
from forebay.wire.pool import Origin, Proxy, Target, parse_proxy
from forebay.world import World


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
    connections: int = 1024
    #: models it serves, beside those it lists itself; their limits where known
    models: dict[str, ModelFacts] = {}

    def url(self) -> SplitResult:
        parts = urlsplit(self.base_url)
        try:
            port_ok = parts.port is None or 0 < parts.port < 65536
        except ValueError:
            port_ok = False
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
            raise Failure(
                "bad_request",
                f"base_url {self.base_url!r} is not an http(s) address.",
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
        return [(k.lower().encode(), v.encode()) for k, v in self.headers.items()]

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


def bearer(key: str) -> Headers:
    return [(b"authorization", b"Bearer " + key.encode())] if key else []
