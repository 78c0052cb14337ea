"""A provider as the pipeline sees it: where it is, how to address it, what is true of it.

Credentials live here and in the request head made here, nowhere else: `repr` and `describe`
leave them out, and what is recorded of a head is `public_headers`.
"""

from collections.abc import Callable
from urllib.parse import quote

import msgspec

from forebay.errors import Failure
from forebay.exchange import Dialect, Headers
from forebay.providers.facts import Facts, ModelFacts
from forebay.wire.pool import Origin, Target

_MAX_STARTS = 256


class Address(msgspec.Struct, frozen=True):
    """How one kind of provider spells its paths. `{model}` is replaced, URL-quoted."""

    paths: dict[str, str]  # endpoint name → path and query
    prefix: str = ""  # before any other path (/passthrough)
    query: str = ""  # added to any other path
    #: callers' names of models → the provider's own
    aliases: dict[str, str] = {}
    #: request headers sent where the caller sent none of that name
    defaults: tuple[tuple[bytes, bytes], ...] = ()
    #: media type of its streams; how one is framed inside is the translation's business
    stream_type: bytes = b"text/event-stream"

    def path(self, endpoint: str, model: str) -> str:
        path = self.paths[endpoint]
        if "{model}" not in path:
            return path
        if not model.strip("."):  # servers take such a segment for a step up, escaped or not
            raise Failure("unknown_model", f"No model is named {model!r}.", param="model")
        return path.replace("{model}", quote(model, safe=""))


Sign = Callable[[str, str, Headers, bytes], Headers]
"""For providers whose credential is made anew for each request: from its method, path, headers
and body, the headers to add (AWS' SigV4). Pure but for the clock it closes over."""


class Provider:
    """One configured provider. Made by its config struct, used by every request to it."""

    def __init__(
        self,
        name: str,
        dialect: Dialect,
        target: Target,
        address: Address,
        credentials: Headers,
        facts: Facts,
        *,
        headers: Headers | None = None,
        models: dict[str, ModelFacts] | None = None,
        prices: str = "",
        sign: Sign | None = None,
    ) -> None:
        self.name = name
        self.dialect = dialect
        self.target = target
        self.address = address
        self.facts = facts
        #: models named in config; discovery adds to the catalogue, not here
        self.models = models or {}
        #: the provider's name in the price list, "" where its models cost nothing
        self.prices = prices
        self.public_headers: Headers = [
            (b"host", target.origin.authority.encode()),
            (b"user-agent", b"forebay"),
            (b"accept-encoding", b"identity"),
            *(headers or []),
        ]
        self.sign = sign
        self.secrets = [value for _, value in credentials]
        #: headers the operator set: a caller's of the same name does not go up
        self._own_names = frozenset(name for name, _ in [*self.public_headers, *credentials])
        self._path_start = b""
        hop: Headers = []
        if (proxy := target.origin.proxy) is not None and target.origin.tls is None:
            # Plain HTTP through a proxy: the whole URL, and the proxy's own credentials.
            self._path_start = f"http://{target.origin.authority}".encode()
            if proxy.authorization:
                hop = [(b"proxy-authorization", proxy.authorization.encode())]
        self._starts: dict[tuple[str, str], bytes] = {}
        self._head_end = b"".join(
            b"%b: %b\r\n" % header for header in [*self.public_headers, *credentials, *hop]
        )

    def __repr__(self) -> str:
        return f"<Provider {self.name} ({self.dialect}) at {self.target.origin!r}>"

    def describe(self) -> str:
        return f"{self.name}: {self.target!r}"

    def wire_model(self, model: str) -> str:
        """The provider's own name of a model."""
        return self.address.aliases.get(model, model)

    def restrict(self, endpoints: set[str]) -> None:
        """Known to serve these alone, and no model but those in its settings."""
        paths = {name: path for name, path in self.address.paths.items() if name in endpoints}
        self.address = msgspec.structs.replace(self.address, paths=paths)
        self.facts = msgspec.structs.replace(self.facts, endpoints=frozenset(paths), closed=True)

    def serves(self, endpoint: str) -> bool:
        return endpoint in self.address.paths

    def streams(self, headers: Headers) -> bool:
        """Whether a response with these headers is a stream. Sync, ~0.2 µs."""
        for name, value in headers:
            if name == b"content-type":
                return value.lower().startswith(self.address.stream_type)
        return False

    def head(self, method: str, path: str, headers: Headers, body: bytes) -> bytes:
        """A request head with credentials. `headers` are the caller's that may go up, names
        in lower case, never a credential or framing header. Sync, ~1 µs."""
        start = self._starts.get((method, path))
        if start is None:
            start = b"%b %b%b HTTP/1.1\r\n%b" % (
                method.encode(),
                self._path_start,
                path.encode(),
                self._head_end,
            )
            if len(self._starts) < _MAX_STARTS:  # /passthrough: callers choose paths
                self._starts[method, path] = start
        lines = [start]
        for header in headers:
            if header[0] not in self._own_names:
                lines.append(b"%b: %b\r\n" % header)
        for header in self.address.defaults:
            if all(name != header[0] for name, _ in headers):
                lines.append(b"%b: %b\r\n" % header)
        if self.sign is not None:
            for header in self.sign(method, path, headers, body):
                lines.append(b"%b: %b\r\n" % header)
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(b"content-length: %d\r\n" % len(body))
        lines.append(b"\r\n")
        return b"".join(lines)


def origin_path(base_path: str, suffix: str) -> str:
    """Join a base URL's path and an endpoint's, `/v1` given once or not at all in either."""
    base = base_path.rstrip("/")
    if base.endswith("/v1") and (suffix == "/v1" or suffix.startswith("/v1/")):
        suffix = suffix[3:]
    return base + suffix


__all__ = ["Address", "Origin", "Provider", "origin_path"]
