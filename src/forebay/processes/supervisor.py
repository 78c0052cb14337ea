"""`forebay up`: starts the processes, keeps them up, and stops them in order.

Sockets are bound here and inherited, so that a worker that crashes and comes back finds its
connections still waiting in the backlog, and so that a port taken by somebody else is said
before anything else happens. Each worker has a socket of its own on the same port
(SO_REUSEPORT): the kernel spreads connections over them.

Stopping goes the other way round: workers finish their streams (bounded), then the back
office writes what they recorded, then the models go.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from forebay import tether
from forebay.admission.door import is_loopback
from forebay.admission.key_store import KeyStore
from forebay.config import Loaded
from forebay.errors import Failure
from forebay.inference.local import LocalServer, Served, servers
from forebay.processes.child import Child, Facts
from forebay.processes.link import SNAPSHOT, Line
from forebay.world import RealWorld

#: Streams have 30 s (worker.GRACE_S), their records a little more.
WORKER_GRACE_S = 40.0
OFFICE_GRACE_S = 15.0
READY_S = 60.0

Say = Callable[[str], None]


class Ports(msgspec.Struct, frozen=True):
    """Where the installation listens, once it does."""

    gateway: str
    console: str


class Supervisor:
    """One installation, from `start` to `stop`."""

    def __init__(self, loaded: Loaded, data: Path, say: Say) -> None:
        self.loaded = loaded
        self.data = data
        self.say = say
        self.world = RealWorld()
        self.children: list[Child] = []
        self.admin_key: str | None = None  # in the clear, on the very first start only
        self._lock = _lock(data)
        self._run_dir = Path(tempfile.mkdtemp(prefix="forebay-"))
        self._link = self._run_dir / "office.sock"
        self._office: Child | None = None
        self._local: dict[str, Served] = {}
        self._sockets: list[socket.socket] = []
        self._telling = asyncio.Lock()

    async def start(self) -> Ports:
        """Bring everything up; local models may still be loading when this returns.

        Raises Failure: a port is taken, the address needs keys, a process can't start.
        """
        config = self.loaded.forebay
        # What is judged is what is bound: a name may stand for more than one address.
        host = _address("server.host", config.server.host)
        admin_host = _address("admin.host", config.admin.host)
        keys = KeyStore.open(self.data, self.world)
        try:
            wall_ns = self.world.wall_ns()
            usable = [row for row in keys.snapshot() if row.state(wall_ns) == "active"]
            if not is_loopback(host) and not any(row.role == "caller" for row in usable):
                raise Failure(
                    "not_configured",
                    f"server.host {config.server.host or host} can be reached from other "
                    "machines, and no caller has a key yet.",
                    hint="Make one first: forebay keys create.",
                )
            # After the refusal: this key is shown by whoever starts, once.
            self.admin_key = keys.ensure_admin()
        finally:
            keys.close()
        gateway = self._sockets
        gateway.append(_bind(host, config.server.port))
        port = gateway[0].getsockname()[1]
        for _ in range(config.server.workers - 1):
            gateway.append(_bind(host, port, shared=True))
        admin = _bind(admin_host, config.admin.port)
        self._sockets = [*gateway, admin]

        common = ["--link", str(self._link), "--data", str(self.data)]
        quiet = [] if config.local.enabled else ["--no-local"]
        if self.loaded.path is not None:
            common += ["--config", str(self.loaded.path)]
        self._office = self._child(
            "back-office",
            "forebay.processes.back_office",
            [*common, "--fd", str(admin.fileno())],
            admin,
            on_ready=self._office_ready,
        )
        workers = [
            self._child(
                f"worker-{index}",
                "forebay.processes.worker",
                [*common, *quiet, "--fd", str(listening.fileno()), "--index", str(index)],
                listening,
            )
            for index, listening in enumerate(gateway)
        ]
        for child in self.children:
            child.start()
        await asyncio.gather(*(child.ready(READY_S) for child in [self._office, *workers]))
        self.world.spawn(self._start_local(), "local models")
        return Ports(
            f"http://{_shown(config.server.host)}:{port}/v1",
            f"http://{_shown(config.admin.host)}:{admin.getsockname()[1]}",
        )

    async def stop(self) -> None:
        """Everything down, in order; returns when it is."""
        workers = [c for c in self.children if c.launch.name.startswith("worker-")]
        office = [c for c in self.children if c.launch.name == "back-office"]
        others = [c for c in self.children if c not in workers and c not in office]
        await asyncio.gather(*(child.stop(WORKER_GRACE_S) for child in workers))
        await asyncio.gather(*(child.stop(OFFICE_GRACE_S) for child in office))
        await asyncio.gather(*(child.stop(5.0) for child in others))
        for listening in self._sockets:
            listening.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)
        os.close(self._lock)

    def describe(self) -> str:
        return "\n".join(child.describe() for child in self.children)

    # -- children ------------------------------------------------------------------------

    def _child(
        self,
        name: str,
        module: str,
        args: list[str],
        listening: socket.socket,
        on_ready: Callable[[Facts], None] = lambda _: None,
    ) -> Child:
        launch = tether.Launch(name, tether.python(module, *args), pass_fds=(listening.fileno(),))
        child = Child(
            launch,
            self.world,
            log=lambda line: self.say(f"{name}: {line}"),
            on_ready=on_ready,
            on_exit=lambda status: self._exited(name, status),
        )
        self.children.append(child)
        return child

    def _exited(self, name: str, status: int) -> None:
        if status not in (0, -15):
            self.say(f"{name} ended with status {status}; it is started again")

    # -- local models --------------------------------------------------------------------

    async def _start_local(self) -> None:
        try:
            found = await servers(self.loaded.forebay.local, self.world, self.say)
        except Failure as failure:
            self.say(f"no local model: {failure}")
            return
        for server in found:
            child = Child(
                server.launch,
                self.world,
                log=self.data / f"{server.launch.name}.log",
                on_ready=lambda facts, server=server: self._local_ready(server, facts),  # type: ignore[misc]
                on_exit=lambda status, name=server.launch.name: self._exited(name, status),  # type: ignore[misc]
            )
            self.children.append(child)
            child.start()

    def _local_ready(self, server: LocalServer, facts: Facts) -> None:
        provider = server.provider(facts)
        self._local[provider.name] = provider
        self.say(f"{provider.name} is ready: {', '.join(provider.models)}")
        self._office_ready({})

    def _office_ready(self, facts: Facts) -> None:
        """The back office is there (again): it must know what runs here."""
        if self._local:
            self.world.spawn(self._tell_office(), "tell the back office")

    async def _tell_office(self) -> None:
        """One at a time, so that the last word is the whole list."""
        async with self._telling:
            read = asyncio.Event()
            try:
                transport, line = await asyncio.get_running_loop().create_unix_connection(
                    lambda: Line(lambda *_: None, lambda _: read.set()), str(self._link)
                )
            except OSError:
                return  # gone again: the next readiness comes here again
            line.send(SNAPSHOT, msgspec.msgpack.encode(list(self._local.values())))
            # Half of it is closed, and the other side closes the rest when it has read all. It
            # greets whoever connects: to somebody who has left it can't, and would drop the
            # connection with what we sent unread.
            transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_S):
                    await read.wait()
            transport.close()


def _bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """A listening socket; `shared` joins one of ours on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if not shared:
            # With SO_REUSEPORT another installation of the same user would share its port
            # with this one without a word: ask once without it.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise Failure(
            "not_configured",
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.",
            hint="Another program has it, perhaps another `forebay up`; choose another port "
            "with --port, --admin-port or in forebay.yaml.",
        ) from None
    listening.set_inheritable(True)
    return listening


def _lock(data: Path) -> int:
    """One installation for a data folder: two writers would tear each other's segments."""
    descriptor = os.open(data / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Failure(
            "not_configured",
            f"Another forebay is running with the data in {data}.",
            hint="Stop it, or set FOREBAY_HOME to another folder.",
        ) from None
    return descriptor


def _address(setting: str, host: str) -> str:
    """The address that a host to listen on stands for, IPv4 first. Raises Failure."""
    if not host:  # which bind takes for every address there is
        return "0.0.0.0"  # noqa: S104  (judged as what it is, below)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Failure(
            "not_configured",
            f"{setting} {host[:100]!r} is no address of this machine: {error}.",
            hint="Write 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses.",
        ) from None
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return str(found[0][4][0])


def _shown(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
