"""Connections to providers, kept alive and bounded.

One `Target` for each origin (scheme, host, port, TLS and proxy settings). A call takes the
most recently used free connection, so that in quiet times the others age out; makes a new
one while fewer than `limit` exist; else waits in line, on the connect clock. The default
limit of 1,024 is Envoy's: a pool smaller than the number of open streams is head-of-line
blocking with our name on it.

A kept-alive connection may have been closed by the provider while the request was on its
way. That race is the one thing retried down here: once, on a connection that was *reused*,
and only while no byte of a response had come; anything else might be paid for twice
(RFC 9110 section 9.2.2 allows it where the client knows the request was not processed).
"""

import asyncio
import base64
import ssl
from collections import deque
from urllib.parse import unquote, urlsplit

import msgspec

from forebay.wire.clock import SECOND_NS
from forebay.wire.upstream import Call, Clocks, Connection, LinkError, SecureConnection
from forebay.world import World

#: Below the 60 s after which AWS and GCP balancers drop idle connections, above the pauses
#: within a conversation.
KEEP_ALIVE_S = 55.0


class Proxy(msgspec.Struct, frozen=True):
    """A forward proxy: `http://[user:password@]host:port`."""

    host: str
    port: int
    authorization: str = ""  # value of Proxy-Authorization, "" for none

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port}>"  # never the password


class Origin(msgspec.Struct, frozen=True):
    """Where a provider lives. `tls` None means plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None

    @property
    def authority(self) -> str:
        """The Host header: the port only where it isn't the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.tls else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Origin {'https' if self.tls else 'http'}://{self.authority}>"


class Target:
    """The connections to one origin."""

    def __init__(self, world: World, origin: Origin, limit: int = 1024) -> None:
        self.world = world
        self.origin = origin
        self.limit = limit
        self.live = 0  # connections that exist or are being made
        self._free: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._connections: set[Connection] = set()

    def __repr__(self) -> str:
        return (
            f"<Target {self.origin.authority} {self.live - len(self._free)} busy, "
            f"{len(self._free)} free of {self.limit}, {len(self._waiting)} waiting>"
        )

    async def call(self, method: str, head: bytes, body: bytes, clocks: Clocks) -> Call:
        """Send a request and wait for the response's head.

        `head` is everything up to and including the empty line. Raises LinkError.
        """
        connection = self._take_free()
        for retried in (False, True):
            if connection is None:
                connection = await self._open(clocks)
            reused = connection.requests > 0
            call = connection.request(method, head, body, clocks)
            try:
                await call.head()
                return call
            except LinkError as error:
                if retried or not reused or error.kind != "reset" or call.answered:
                    raise
            connection = None
        raise AssertionError("the second try returns or raises")

    def close(self) -> None:
        """Close every connection at once, busy ones too."""
        for connection in list(self._connections):
            connection.abort()

    def _take_free(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        return None

    async def _open(self, clocks: Clocks) -> Connection:
        """A connection nobody has used yet, or one that came free while waiting in line."""
        left_s = (clocks.total_at_ns - self.world.now_ns()) / SECOND_NS
        timeout_s = min(clocks.connect_s, left_s)
        step: list[str] = ["pool"]
        try:
            async with asyncio.timeout(timeout_s):
                while self.live >= self.limit:
                    handed = await self._line()
                    if handed is None:
                        break  # leave to make one: the place of one that is gone is ours
                    if not handed.closed:
                        return handed
                else:
                    self.live += 1
                try:
                    connection = await self._connect(step)
                    if connection.closed:
                        raise LinkError("reset", "the connection closed as soon as it stood")
                except BaseException:
                    self._left()
                    raise
                self._connections.add(connection)
                return connection
        except TimeoutError:
            if left_s <= clocks.connect_s:
                raise LinkError("total_timeout", f"the deadline passed ({step[0]})") from None
            if step[0] == "pool":
                raise LinkError(
                    "pool_full",
                    f"all {self.limit} connections were busy for {timeout_s:.1f} s",
                ) from None
            raise LinkError(
                "connect_timeout", f"no connection in {timeout_s:.1f} s ({step[0]})"
            ) from None

    async def _line(self) -> Connection | None:
        """Wait for our turn: a connection that came free, or None for leave to make one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # our turn had come: pass it on
                if (handed := turn.result()) is None:
                    self._left()
                elif not handed.closed:
                    self._on_free(handed)
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _hand(self, connection: Connection | None) -> bool:
        """Give it to whoever waits longest; not to the crowd, where a newcomer would be faster."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def _left(self) -> None:
        if not self._hand(None):
            self.live -= 1

    def _on_free(self, connection: Connection) -> None:
        if connection.closed:
            if connection in self._connections:
                self._connections.discard(connection)
                if connection in self._free:
                    self._free.remove(connection)
                self._left()
            return
        connection.deadline.set(self.world.now_ns() + int(KEEP_ALIVE_S * SECOND_NS))
        if not self._hand(connection):
            self._free.append(connection)

    # -- making one ----------------------------------------------------------------------

    async def _connect(self, step: list[str]) -> Connection:
        origin, proxy = self.origin, self.origin.proxy
        host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
        step[0] = "resolving the name"
        try:
            addresses = await self.world.resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: no such name can be, "a..b"
            raise LinkError("dns", f"the name {host} does not resolve: {error}") from None
        step[0] = "connecting"
        if not proxy:
            return await self._dial(addresses, origin.tls, origin.host)
        connection = await self._dial(addresses, None, proxy.host)
        if origin.tls is None:
            return connection  # plain HTTP goes through the proxy in absolute form
        step[0] = "asking the proxy"
        try:
            await self._tunnel(connection, proxy)
            step[0] = "starting TLS"
            await self._start_tls(connection, origin.tls)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _dial(
        self, addresses: list[tuple[str, int]], tls: ssl.SSLContext | None, name: str
    ) -> Connection:
        loop = asyncio.get_running_loop()
        last: Exception | None = None
        kind = SecureConnection if tls else Connection
        for address, port in addresses:
            try:
                _, connection = await loop.create_connection(
                    lambda: kind(self.world, self._on_free),
                    address,
                    port,
                    ssl=tls,
                    server_hostname=name if tls else None,
                )
                return connection
            except ssl.SSLError as error:
                raise LinkError("tls", _tls_message(error)) from None
            except OSError as error:
                last = error
        raise LinkError("refused", f"no address of {name} accepts: {last}")

    async def _tunnel(self, connection: Connection, proxy: Proxy) -> None:
        host = self.origin.host
        authority = f"[{host}]:{self.origin.port}" if ":" in host else f"{host}:{self.origin.port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
        if proxy.authorization:
            lines.append(f"proxy-authorization: {proxy.authorization}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        assert connection.transport is not None
        loop = asyncio.get_running_loop()
        answer = _ProxyAnswer(loop.create_future())
        connection.transport.set_protocol(answer)
        connection.transport.write(head)
        status = await answer.status
        if not 200 <= status < 300:
            raise LinkError("proxy", f"the proxy answered {status} to CONNECT {authority}")
        connection.transport.set_protocol(connection)

    async def _start_tls(self, connection: Connection, tls: ssl.SSLContext) -> None:
        assert connection.transport is not None
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                connection.transport, connection, tls, server_hostname=self.origin.host
            )
        except ssl.SSLError as error:
            raise LinkError("tls", _tls_message(error)) from None
        except OSError as error:
            raise LinkError("tls", f"the connection closed during TLS: {error}") from None
        assert transport is not None
        connection.connection_made(transport)


class _ProxyAnswer(asyncio.Protocol):
    """Reads a proxy's answer to CONNECT: a head without a body."""

    def __init__(self, status: asyncio.Future[int]) -> None:
        self.status = status
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self.status.done():
            return
        if b"\r\n\r\n" in self._data:
            parts = self._data.split(None, 2)
            ok = len(parts) > 1 and parts[0].startswith(b"HTTP/1.") and len(parts[1]) == 3
            ok = ok and parts[1].isdigit()
            self.status.set_result(int(parts[1]) if ok else 0)
        elif len(self._data) > 16384:
            self.status.set_result(0)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(LinkError("proxy", "the proxy closed the connection"))


def parse_proxy(url: str) -> Proxy:
    """A proxy's URL as people set it in HTTPS_PROXY. Raises ValueError."""

    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"not an http:// proxy address: {parts.scheme}://{parts.hostname or ''}")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, parts.port or 3128, authorization)


def _tls_message(error: ssl.SSLError) -> str:
    reason = getattr(error, "verify_message", "") or error.reason or str(error)
    return f"TLS failed: {reason}"
