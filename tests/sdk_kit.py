"""A real Forebay between the official SDKs and simulated providers, all over real sockets.

    SDK (this thread) ──▶ forebay up (processes of its own) ──▶ twins (a thread of this process)

The twins live in the test process, so that a test looks straight into what they saw, when and
byte for byte, on the same clock as its own. `Stage` is that thread and its providers;
`Gateway` an installation whose config points at them; `gateway` the one that most tests share.

A test module that takes a fixture from here binds it: `gateway = sdk_kit.gateway`. pytest then
knows a session fixture once for each module, so what is costly is kept in the session's stash.
"""

import asyncio
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trustme
import uvloop
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

import running
from forebay.errors import Failure
from forebay.observe import segments
from forebay.observe.query import Filter, Line, Reader
from forebay.observe.record import Record
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.connection import Connection, HttpRequest
from forebay.testbed.twins.facts import Hosted, Model
from forebay.testbed.twins.faults import Fault, Script, Status
from forebay.testbed.twins.seen import Seen
from forebay.world import RealWorld, World

T = TypeVar("T")

#: Keys of the providers. They stand in the environment of `forebay up` alone: found anywhere
#: in its home or its output, they leaked.
OPENAI_KEY = "sk-canary-openai-0123456789abcdef"
AZURE_KEY = "canary-azure-0123456789abcdef"
ANTHROPIC_KEY = "sk-ant-canary-0123456789abcdef"
WRONG_KEY = "sk-canary-wrong-0123456789abWXYZ"
PROVIDER_KEYS = {
    "CANARY_WRONG": WRONG_KEY,
    "CANARY_OPENAI": OPENAI_KEY,
    "CANARY_AZURE": AZURE_KEY,
    "CANARY_ANTHROPIC": ANTHROPIC_KEY,
}

USER: Any = [{"role": "user", "content": "What is a forebay? [out:12]"}]
INSTANT = PRESETS["instant"]


def _paced(first_s: float = 0.0, events_per_s: float = 20.0) -> Hosted:
    """One token an event."""
    return Hosted(
        ttft_median_s=first_s,
        ttft_sigma=0.0,
        prefill_ms_per_1k=0.0,
        tokens_per_s=events_per_s,
        tokens_spread=0.0,
        events_per_s=events_per_s,
    )


MODELS: dict[str, Model] = {
    "instant": INSTANT,
    # a token every 50 ms
    "slow": _paced(),
    # nothing for a minute
    "silent": _paced(first_s=60.0),
    # as much as is asked for, as fast as it is taken
    "flood": msgspec.structs.replace(INSTANT, context=2_000_000),
    # tells its limits
    "limited": msgspec.structs.replace(INSTANT, rpm=600, tpm=100_000, burst_s=60),
}
#: by the dialect that knows them: names in the price list
PRICED: dict[str, dict[str, Model]] = {
    "openai": {"gpt-4o-mini": INSTANT},
    "anthropic": {"claude-haiku-4-5": INSTANT},
}


class Bare:
    """A provider that answers any path with what it is told to, and keeps what it was asked."""

    bytes_per_s: int | None = None

    def __init__(self) -> None:
        self.world: World = RealWorld()
        self.asked: list[HttpRequest] = []
        self.answer: Callable[[HttpRequest], tuple[int, list[tuple[str, str]], bytes, str]]
        self.base_url = ""
        self._connections: set[Connection] = set()
        self.reset()

    def reset(self) -> None:
        self.asked = []
        self.answer = lambda _: (200, [], b"{}", "application/json")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.reset()

    def connected(self, connection: Connection) -> int:
        self._connections.add(connection)
        return 0

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def serve(self, request: HttpRequest, connection: Connection) -> None:
        self.asked.append(request)
        connection.respond(*self.answer(request))


class Stage:
    """The providers, on an event loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="twins", daemon=True)
        self._thread.start()
        self.world = RealWorld()
        self.bare = Bare()
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.run(self._start())

    async def _start(self) -> None:
        spoken = TwinConfig(models=MODELS | PRICED["openai"], keys=(OPENAI_KEY, AZURE_KEY), seed=1)
        self.openai = await Twin.start(self.world, config=spoken)
        self.tls = await Twin.start(self.world, config=spoken, tls=self._tls)
        self.anthropic = await Twin.start(
            self.world,
            config=TwinConfig(
                dialect="anthropic",
                models=MODELS | PRICED["anthropic"],
                keys=(ANTHROPIC_KEY,),
                seed=2,
            ),
        )
        await self.bare.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 20.0) -> T:
        """Run it where the providers live, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def do(self, what: Callable[[], T]) -> T:
        async def work() -> T:
            return what()

        return self.run(work())

    def reset(self) -> None:
        """No faults, nothing seen."""

        def work() -> None:
            for twin in self.twins:
                twin.set_script(Script([]))
                twin.log.clear()
            self.bare.reset()

        self.do(work)

    @property
    def twins(self) -> list[Twin]:
        return [self.openai, self.tls, self.anthropic]

    def twin(self, model: str) -> Twin:
        """The twin behind `provider/model`."""
        provider = model.partition("/")[0]
        return {"anthropic": self.anthropic, "trusted": self.tls}.get(provider, self.openai)

    def seen(self, model: str, number: int = 1) -> list[Seen]:
        """What the twin behind a model was asked, once so many requests have ended there."""
        return self.run(self.twin(model).log.settled(number))

    def one(self, model: str) -> Seen:
        (seen,) = self.seen(model)
        return seen

    def fault(self, model: str, what: Any, **more: Any) -> None:
        """From now on this goes wrong at the model's provider."""
        self.do(lambda: self.twin(model).set_script(Script([Fault(what=what, **more)])))

    def answers(
        self, model: str, body: bytes | str, content_type: str = "application/json"
    ) -> None:
        """From now on the model's provider answers 200 with these very bytes."""
        text = body.decode() if isinstance(body, bytes) else body
        self.fault(model, Status(status=200, body=text, content_type=content_type))

    def close(self) -> None:
        async def work() -> None:
            self.bare.close()
            for twin in self.twins:
                await twin.close()

        self.run(work())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Reply(msgspec.Struct):
    """An answer as it came; header names in lower case, the last of several."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[Any]:
        """The decoded `data:` lines of an event stream, `[DONE]` as text."""
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


class Wire:
    """One socket to a gateway."""

    def __init__(self, plug: socket.socket) -> None:
        self.plug = plug

    def send(self, data: bytes) -> None:
        self.plug.sendall(data)

    def post(self, path: str, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"anthropic-version: 2023-06-01\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            + data
        )

    def until(self, mark: bytes) -> bytes:
        """What comes, until `mark` has come."""
        got = b""
        while mark not in got:
            data = self.plug.recv(65536)
            assert data, f"the gateway closed: {got!r}"
            got += data
        return got

    def rest(self) -> bytes:
        """What comes, until the gateway closes."""
        got = []
        while data := self.plug.recv(1 << 20):
            got.append(data)
        return b"".join(got)


class Gateway:
    """An installation, and the clients of it."""

    def __init__(self, stage: Stage, up: running.Running) -> None:
        self.stage = stage
        self.up = up
        self.world = RealWorld()
        host, _, port = up.base_url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def close(self) -> None:
        assert self.up.stop() == 0

    # -- clients

    def openai(self, key: str = "any", **more: Any) -> OpenAI:
        return OpenAI(base_url=self.up.base_url + "/v1", api_key=key, **{"max_retries": 0, **more})

    def openai_async(self, key: str = "any", **more: Any) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=self.up.base_url + "/v1", api_key=key, **{"max_retries": 0, **more}
        )

    def anthropic(self, key: str = "any", **more: Any) -> Anthropic:
        return Anthropic(base_url=self.up.base_url, api_key=key, **{"max_retries": 0, **more})

    def anthropic_async(self, key: str = "any", **more: Any) -> AsyncAnthropic:
        return AsyncAnthropic(base_url=self.up.base_url, api_key=key, **{"max_retries": 0, **more})

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> Reply:
        """One request on a connection of its own. Bytes are sent as they are."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        if sent is not None:
            shown.setdefault("content-type", "application/json")
        try:
            connection.request(method or ("GET" if sent is None else "POST"), path, sent, shown)
            answer = connection.getresponse()
            read = answer.read()
        finally:
            connection.close()
        return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, read)

    def chat(self, model: str = "openai/instant", **more: Any) -> Reply:
        headers = more.pop("headers", {})
        return self.ask(
            "/v1/chat/completions", {"model": model, "messages": USER} | more, **headers
        )

    def messages(self, model: str = "anthropic/instant", **more: Any) -> Reply:
        headers = {"anthropic-version": "2023-06-01"} | more.pop("headers", {})
        body = {"model": model, "max_tokens": 100, "messages": USER} | more
        return self.ask("/v1/messages", body, **headers)

    @contextmanager
    def wire(self, receive_buffer: int = 0) -> "Iterator[Wire]":
        """A connection for a caller with its hands on the bytes."""
        with socket.socket() as plug:
            if receive_buffer:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            plug.settimeout(30)
            plug.connect(self.address)
            yield Wire(plug)

    # -- what it kept

    def reader(self) -> Reader:
        return Reader(self.up.home / "data" / "traces", self.world.now_ns)

    def record(self, request_id: str) -> Record:
        """The record of a request, as soon as it is there."""
        reader = self.reader()
        try:
            line = eventually(lambda: _found(reader, request_id), f"no record of {request_id}")
            return reader.record(line)
        finally:
            reader.close()

    def lines(self, **want: Any) -> list[Line]:
        """Everything recorded up to now that matches, the newest first."""
        reader = self.reader()
        lines: list[Line] = []
        before = None
        try:
            while True:
                page = reader.traces(Filter(**want), 500, before)
                lines += page.lines
                before = page.before
                if before is None:
                    return lines
        except Failure:  # nothing was ever written
            return []
        finally:
            reader.close()

    def forebay(self, *words: str) -> str:
        """What the command says about this installation."""
        done = subprocess.run(
            [sys.executable, "-m", "forebay", *words],
            env={**os.environ, "FOREBAY_HOME": str(self.up.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_key(self, *words: str) -> tuple[str, str]:
        """A gateway key, made with the command: its id and its secret. Workers know it."""
        made = json.loads(self.forebay("keys", "create", "--json", *words))
        # Each worker is told; a new connection meets any of them.
        eventually(
            lambda: all(self.knows(made["key"]) for _ in range(8)),
            "the workers never heard of a new key",
        )
        return made["id"], made["key"]

    def knows(self, secret: str) -> bool:
        """Whether a key is one: what is no JSON is looked at only for who has one."""
        told = self.ask("/v1/chat/completions", b"{}", content_type="text/plain", x_api_key=secret)
        return told.status == 400

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All that is on the disk in its home, segments unpacked; and what it printed."""
        for path in sorted(self.up.home.rglob("*")):
            if not path.is_file():
                continue
            yield str(path), path.read_bytes()
            if path.suffix == segments.SUFFIX:
                for block, payload in segments.scan(path):
                    yield f"{path}, block at {block.offset}", payload


def children(up: running.Running) -> dict[str, int]:
    """Process ids of its processes, by module: `worker-0`, `back_office`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text().rpartition(")")[2].split()
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if int(after[1]) == up.process.pid and after[0] != "Z":
            name = next((w for w in words if w.startswith(b"forebay.processes.")), b"")
            index = words[words.index(b"--index") + 1] if b"--index" in words else b""
            name = name.rpartition(b".")[2] + (b"-" + index if index else b"")
            found[name.decode()] = int(path.parent.name)
    return found


def replaced(up: running.Running, name: str, dead: int) -> int:
    """The process id of a child's successor, once it is there."""

    def successor() -> int | None:
        pid = children(up).get(name)
        return pid if pid != dead else None

    return eventually(successor, f"{name} was not started again", 30)


def eventually(claim: Callable[[], T | None], otherwise: str, seconds: float = 20.0) -> T:
    """Ask until there is an answer: for what another process does in its own time."""
    pause = threading.Event()
    end_ns = RealWorld().now_ns() + int(seconds * 1e9)
    while True:
        if found := claim():
            return found
        if RealWorld().now_ns() > end_ns:
            raise AssertionError(otherwise)
        pause.wait(0.02)


def _found(reader: Reader, request_id: str) -> Line | None:
    try:
        return reader.find(request_id)
    except Failure:
        return None


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config(stage: Stage, **more: Any) -> dict[str, Any]:
    """Providers of every dialect, and some that can't be reached."""
    spoken = {"kind": "openai", "api_key": "${CANARY_OPENAI}"}
    tls = stage.tls.base_url + "/v1"
    return {
        "local": {"enabled": False},
        "providers": {
            "openai": {**spoken, "base_url": stage.openai.base_url + "/v1"},
            "azure": {
                "kind": "azure_openai",
                "base_url": stage.openai.base_url,
                "api_key": "${CANARY_AZURE}",
                "deployments": {"gpt-azure": "instant"},
            },
            "anthropic": {
                "kind": "anthropic",
                "base_url": stage.anthropic.base_url,
                "api_key": "${CANARY_ANTHROPIC}",
            },
            "trusted": {**spoken, "base_url": tls, "ca_file": str(stage.ca_file)},
            "bare": {**spoken, "base_url": stage.bare.base_url + "/base/v1"},
            "wrong-key": {
                **spoken,
                "api_key": "${CANARY_WRONG}",
                "base_url": stage.openai.base_url + "/v1",
            },
            "wrong-key-claude": {
                "kind": "anthropic",
                "base_url": stage.anthropic.base_url,
                "api_key": "${CANARY_WRONG}",
            },
            "untrusted": {**spoken, "base_url": tls},
            "closed": {**spoken, "base_url": f"http://127.0.0.1:{closed_port()}/v1"},
            "nowhere": {**spoken, "base_url": "https://forebay-test.invalid/v1"},
        },
        "models": {
            "fast": "openai/instant",
            "claude": "anthropic/instant",
            "quiet": {"target": "openai/instant", "capture": "off"},
            "hashed": {"target": "openai/instant", "capture": "hashed"},
        },
        "timeouts": {"first_token_s": 3.0, "between_tokens_s": 3.0},
        **more,
    }


def start(stage: Stage, home: Path, *args: str, **more: Any) -> Gateway:
    """An installation on these providers, once it has heard which models they have."""
    up = running.start(home, config(stage, **more), *args, env=PROVIDER_KEYS)
    gateway = Gateway(stage, up)
    try:
        secret = {"x-api-key": up.admin_key}

        def told() -> bool:
            listed = gateway.ask("/v1/models", **secret).json.get("data", [])
            return any(card["id"] == "instant" for card in listed)

        # Each worker is told; a new connection meets any of them.
        eventually(
            lambda: all(told() for _ in range(8)), "the providers' models were not discovered", 60
        )
    except BaseException:
        up.stop()
        raise
    return gateway


_STAGE = pytest.StashKey[Stage]()
_GATEWAY = pytest.StashKey[Gateway]()
_GUARDED = pytest.StashKey[Gateway]()


def _shared(
    request: pytest.FixtureRequest, key: pytest.StashKey[Any], make: Callable[[], Any]
) -> Any:
    """What a session has one of, however many modules ask for it."""
    stash = request.config.stash
    if key not in stash:
        made = stash[key] = make()
        request.config.add_cleanup(made.close)
    return stash[key]


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The providers, healthy and with empty logs."""
    stage: Stage = _shared(request, _STAGE, lambda: Stage(tmp_path_factory.mktemp("stage")))
    stage.reset()
    return stage


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stage: Stage
) -> Gateway:
    """One installation for the whole session, open to this machine."""
    made: Gateway = _shared(
        request, _GATEWAY, lambda: start(stage, tmp_path_factory.mktemp("gateway"))
    )
    stage.reset()
    return made


@pytest.fixture
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stage: Stage
) -> Gateway:
    """Another one, of two workers, that asks everybody for a key."""
    made: Gateway = _shared(
        request,
        _GUARDED,
        lambda: start(
            stage,
            tmp_path_factory.mktemp("guarded"),
            server={"workers": 2},
            keys={"loopback": "required"},
        ),
    )
    stage.reset()
    return made
