"""A network in memory: who listens where, how far away it is, and how it fails.

Addresses are `(host, port)` or the path of a Unix socket. A `Link` says how one address is
reached, by whoever connects to it: latency, bandwidth, how writes are cut, and one fault.
`Network.set` gives it to the connections that are open and to those to come;
`Network.script` gives one link to each of the next connections in turn.

A new connection takes one round trip; the server hears of it half a round trip later, just
before its first byte. An address without a listener refuses. Names resolve by `hosts`; one
that is not in it is 127.0.0.1, one with an empty list does not exist.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from forebay.testbed.virtual.transport import VirtualTransport
from forebay.testbed.virtual.way import Mark, Way

if TYPE_CHECKING:
    from forebay.testbed.virtual.loop import VirtualLoop

TcpAddress = tuple[str, int]
Address = TcpAddress | str
Factory = Callable[[], asyncio.BaseProtocol]

LOOPBACK = "127.0.0.1"
_ANY = ("0.0.0.0", "::")  # noqa: S104 # of a network in memory


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong after so many bytes one way; it strikes at the first byte beyond.

    `reset`: both ends see ConnectionResetError. `close`: the reader sees an end of file that
    the writer never sent, the writer a reset. `stall`: nothing more arrives that way, and
    nobody is told, until the link is set anew.
    """

    kind: Literal["reset", "close", "stall"]
    after: int  # bytes, ≥ 0
    way: Literal["up", "down"] = "down"  # down: towards the side that connected


class Link(msgspec.Struct, frozen=True):
    """How one address is reached."""

    latency_s: float = 0.0  # one way
    bytes_per_s: int = 0  # each way; 0: no limit
    segment: int = 65_536  # the most bytes that arrive in one piece; loopback's MTU
    window: int = 262_144  # the most bytes under way or unread; what a kernel would hold
    black_hole: bool = False  # connecting never completes and never fails
    fault: Fault | None = None


class VirtualServer(asyncio.AbstractServer):
    """Listens until closed. Prints as `<VirtualServer 127.0.0.1:20001 listening>`."""

    def __init__(
        self, network: "Network", factory: Factory, addresses: list[Address], serving: bool
    ) -> None:
        self._network = network
        self.factory = factory
        self.addresses = addresses
        self._serving = serving
        self._closed = False
        self._connections: dict[VirtualTransport, None] = {}
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        names = ", ".join(map(printed, self.addresses))
        state = "closed" if self._closed else "listening" if self._serving else "idle"
        return f"<VirtualServer {names} {state}>"

    @property
    def port(self) -> int:
        """The (first) port, which the network chose where 0 was asked for."""
        address = self.addresses[0]
        assert not isinstance(address, str), "a Unix socket has no port"
        return address[1]

    @property
    def sockets(self) -> tuple["Listening", ...]:
        return () if self._closed else tuple(Listening(a) for a in self.addresses)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        self._serving = not self._closed

    async def serve_forever(self) -> None:
        await self.start_serving()
        try:
            await self._network.loop.create_future()
        finally:
            self.close()

    def close(self) -> None:
        if not self._closed:
            self._serving = False
            self._closed = True
            self._network.unlisten(self)
            self._wake()

    async def wait_closed(self) -> None:
        """Until closed and the last connection is gone, as CPython does from 3.12 on."""
        while not self._closed or self._connections:
            waiter = self._network.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def close_clients(self) -> None:
        for transport in list(self._connections):
            transport.close()

    def abort_clients(self) -> None:
        for transport in list(self._connections):
            transport.abort()

    def attach(self, transport: VirtualTransport) -> None:
        self._connections[transport] = None

    def detach(self, transport: VirtualTransport) -> None:
        self._connections.pop(transport, None)
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Listening:
    """What stands in `Server.sockets`: a name, and nothing that could be read from."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET

    def getsockname(self) -> Address:
        return self._address


class Network:
    def __init__(self, loop: "VirtualLoop") -> None:
        self.loop = loop
        #: name → addresses; [] is a name that does not exist, an absent name is 127.0.0.1
        self.hosts: dict[str, list[str]] = {}
        self.links: dict[Address, Link] = {}
        #: called with every piece that a protocol is given: ns, connection's number, way, bytes
        self.tap: Callable[[int, int, str, bytes], None] | None = None
        self.open: dict[VirtualTransport, None] = {}
        self.listeners: dict[Address, VirtualServer] = {}
        self._scripts: dict[Address, deque[Link]] = {}
        self._last_port = 20_000
        self._last_number = 0

    # -- scripting

    def set(self, host: str, port: int, link: Link) -> None:
        """How this address is reached from now on, by open connections too."""
        address = (host, port)
        self.links[address] = link
        for transport in list(self.open):
            if transport.address == address:
                transport.outgoing.change(link)

    def script(self, host: str, port: int, links: Iterable[Link]) -> None:
        """The links of the next connections to this address, one each; then `links` again."""
        self._scripts.setdefault((host, port), deque()).extend(links)

    def reset(self, host: str, port: int) -> None:
        """Every open connection to this address is reset, at both ends."""
        for transport in list(self.open):
            if transport.address == (host, port):
                transport.outgoing.cut()

    # -- names

    def resolve(self, host: str, port: int) -> list[TcpAddress]:
        """Addresses of a host. Raises socket.gaierror (an OSError) where there is none."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            addresses = self.hosts.get(host, [LOOPBACK])
        else:
            addresses = [host]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        return [(address, port) for address in addresses]

    def getaddrinfo(self, host: Any, port: Any) -> list[tuple[Any, ...]]:
        name = host.decode() if isinstance(host, bytes) else host or LOOPBACK
        return [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in self.resolve(name, int(port or 0))
        ]

    # -- listening and connecting

    def listen(self, factory: Factory, addresses: list[Address], start: bool) -> VirtualServer:
        named = [
            self._free_address(a[0]) if not isinstance(a, str) and a[1] == 0 else a
            for a in addresses
        ]
        for address in named:
            if address in self.listeners:
                raise OSError(errno.EADDRINUSE, f"{printed(address)} is in use")
        server = VirtualServer(self, factory, named, start)
        for address in named:
            self.listeners[address] = server
        return server

    def unlisten(self, server: VirtualServer) -> None:
        for address in server.addresses:
            del self.listeners[address]

    async def connect(
        self, factory: Factory, address: Address
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        link = self._link_of_next(address)
        if link.black_hole:
            await self.loop.create_future()
        await asyncio.sleep(2 * link.latency_s)
        server = self._listener(address)
        if server is None:
            missing = errno.ENOENT if isinstance(address, str) else errno.ECONNREFUSED
            raise OSError(missing, f"{os.strerror(missing)}: {printed(address)}")
        self._last_number += 1
        up = Way(self, self._last_number, "up", link)
        down = Way(self, self._last_number, "down", link)
        near: Address = "" if isinstance(address, str) else self._free_address(LOOPBACK)
        # The server's end has a protocol once Mark.OPEN arrives there.
        there = VirtualTransport(self, None, down, up, address, (address, near), server)
        protocol = factory()
        here = VirtualTransport(self, protocol, up, down, address, (near, address), None)
        up.join(here, there, down)
        down.join(there, here, up)
        up.send(Mark.OPEN)
        self.open[here] = None
        self.open[there] = None
        protocol.connection_made(here)
        return here, protocol

    def leftovers(self) -> list[str]:
        """What was opened and not closed, a line each."""
        return [repr(x) for x in (*self.open, *dict.fromkeys(self.listeners.values()))]

    def quiet_at_ns(self) -> int:
        """When all that is under way now to an end that is still open will have arrived; 0
        where nothing is."""
        return max((transport.incoming.due_ns() for transport in self.open), default=0)

    def _listener(self, address: Address) -> VirtualServer | None:
        server = self.listeners.get(address)
        if server is None and not isinstance(address, str):
            for host in _ANY:
                server = server or self.listeners.get((host, address[1]))
        return server if server is not None and server.is_serving() else None

    def _link_of_next(self, address: Address) -> Link:
        if script := self._scripts.get(address):
            return script.popleft()
        return self.links.get(address, Link())

    def _free_address(self, host: str) -> TcpAddress:
        self._last_port += 1
        return host, self._last_port


def printed(address: Address) -> str:
    return address or "(unnamed)" if isinstance(address, str) else f"{address[0]}:{address[1]}"
