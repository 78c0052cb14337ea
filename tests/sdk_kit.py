"""A real Forebay between the official SDKs and simulated providers, all over real sockets.

    SDK (this thread) ──▶ forebay up (processes of its own) ──▶ twins (a thread of this process)

The providers are sdk_stage.py's. `Gateway` is an installation whose config points at them;
`gateway` the one that most tests share.

A test module that takes a fixture from here binds it: `gateway = sdk_kit.gateway`. pytest then
knows a session fixture once for each module, so what is costly is kept in the session's stash.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import msgspec
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

import running
from forebay.admission.key_store import KeyStore
from forebay.errors import Failure
from forebay.observe import segments
from forebay.observe.query import Filter, Line, Reader
from forebay.observe.record import Record
from forebay.world import RealWorld
from sdk_stage import PROVIDER_KEYS, USER, Stage

T = TypeVar("T")


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
        self.expected: list[tuple[str, Callable[[Record], object]]] = []
        host, _, port = up.base_url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def close(self) -> None:
        assert self.up.stop() == 0

    # -- clients

    # Over plain HTTP no certificate is looked at; to load those of the whole world takes each
    # client 20 ms.

    def openai(self, key: str = "any", **more: Any) -> OpenAI:
        plain = openai.DefaultHttpxClient(verify=False)
        settings = {"max_retries": 0, "http_client": plain, **more}
        return OpenAI(base_url=self.up.base_url + "/v1", api_key=key, **settings)

    def openai_async(self, key: str = "any", **more: Any) -> AsyncOpenAI:
        plain = openai.DefaultAsyncHttpxClient(verify=False)
        settings = {"max_retries": 0, "http_client": plain, **more}
        return AsyncOpenAI(base_url=self.up.base_url + "/v1", api_key=key, **settings)

    def anthropic(self, key: str = "any", **more: Any) -> Anthropic:
        plain = anthropic.DefaultHttpxClient(verify=False)
        settings = {"max_retries": 0, "http_client": plain, **more}
        return Anthropic(base_url=self.up.base_url, api_key=key, **settings)

    def anthropic_async(self, key: str = "any", **more: Any) -> AsyncAnthropic:
        plain = anthropic.DefaultAsyncHttpxClient(verify=False)
        settings = {"max_retries": 0, "http_client": plain, **more}
        return AsyncAnthropic(base_url=self.up.base_url, api_key=key, **settings)

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

    def expect(self, request_id: str, agrees: Callable[[Record], object]) -> None:
        """Remember what a record must say, for `recorded`: each is written a quarter of a second
        after its answer, and to wait for one at a time takes minutes."""
        self.expected.append((request_id, agrees))

    def recorded(self) -> None:
        """Everything that was expected of records is so."""
        expected, self.expected = self.expected, []
        for request_id, agrees in expected:
            record = self.record(request_id)
            assert agrees(record), f"{record.outcome}: {record.error} {record.usage} of {record}"

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

    def new_key(self, **what: Any) -> tuple[str, str]:
        """A gateway key, as `forebay keys create` makes one, half a second faster: its id and
        its secret. Every worker knows it."""
        store = KeyStore.open(self.up.home / "data", self.world)
        try:
            made = store.create(**what)
        finally:
            store.close()
        # A new connection meets any of the workers.
        eventually(
            lambda: all(self.knows(made.secret) for _ in range(8)),
            "the workers never heard of a new key",
        )
        return made.row.id, made.secret

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
        "timeouts": {"first_token_s": 2.0, "between_tokens_s": 2.0},
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


@pytest.fixture(scope="module")
def records_agree(request: pytest.FixtureRequest) -> Iterator[None]:
    """At a module's end the records say what its tests expected of them."""
    yield
    if (shared := request.config.stash.get(_GATEWAY, None)) is not None:
        shared.recorded()


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
