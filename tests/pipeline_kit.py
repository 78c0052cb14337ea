"""A whole data plane in virtual time: callers, the gateway's own parts, simulated providers.

    Client ──▶ wire.server.Connection ──▶ App ──▶ pipeline ──▶ pool ──▶ Twin

Everything between the caller's bytes and the provider's is what a worker runs
(`assemble.data_plane`, `app.App`, `wire.server.Connection`); only the process around it, its
link to the back office and the sockets are missing. `gateway` wires it, `Client` is a caller
with its hands on the wire, `Answer` what it got, parsed by h11 and not by us.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import h11
import msgspec
import uvicorn
from uvicorn.server import ServerState

from forebay import config as configuration
from forebay.admission.keys import KeyRow, compose, digest
from forebay.app import App, refusal
from forebay.assemble import DataPlane, data_plane
from forebay.observe import record as records
from forebay.observe import restore
from forebay.observe.record import Record
from forebay.schema.usage import Rates
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.facts import Hosted, Model
from forebay.testbed.twins.faults import Fault, Script
from forebay.testbed.virtual import VirtualServer, VirtualWorld
from forebay.wire.server import Connection, ServerLimits

PEPPER = b"p" * 32
KEY = compose(b"k" * 32)
OPENAI_KEY = "sk-canary-openai-0123456789"
ANTHROPIC_KEY = "sk-ant-canary-0123456789"
#: 1 dollar a million tokens in, 3 out
RATES = Rates(1_000_000_000, 100_000_000, 1_250_000_000, 3_000_000_000)


def paced(first_s: float = 0.5, events_per_s: float = 10.0, **more: Any) -> Hosted:
    """A model that sends one token an event, at a steady pace."""
    return Hosted(
        rates=RATES,
        ttft_median_s=first_s,
        ttft_sigma=0.0,
        prefill_ms_per_1k=0.0,
        tokens_per_s=events_per_s,
        tokens_spread=0.0,
        events_per_s=events_per_s,
        **more,
    )


MODELS: dict[str, Model] = {
    "instant": msgspec.structs.replace(PRESETS["instant"], rates=RATES),
    "paced": paced(),
}


class Reply(msgspec.Struct):
    """One response, as h11 understands it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    interim: list[int] = []  # statuses of 1xx responses before it

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[Any]:
        """The `data:` lines of an event stream, decoded; `[DONE]` as text."""
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        """What the model said in a chat stream."""
        chunks = [chunk for chunk in self.data if chunk != "[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
        return "".join(delta.get("content") or "" for delta in deltas)


def parse(raw: bytes, methods: Sequence[str], closed: bool = False) -> tuple[list[Reply], bytes]:
    """Complete responses to requests of these methods, and what is left over.

    Raises h11.RemoteProtocolError where a response is not well formed; `closed` says that
    nothing more will come, which is where a response without a length ends.
    """
    replies: list[Reply] = []
    for method in methods:
        connection = h11.Connection(h11.CLIENT)
        headers = [("host", "x")]
        connection.send(h11.Request(method=method, target="/", headers=headers))
        connection.send(h11.EndOfMessage())
        if raw:
            connection.receive_data(raw)
        reply = _one(connection, closed)
        if reply is None:
            return replies, raw
        replies.append(reply)
        raw = bytes(connection.trailing_data[0])
    return replies, raw


def _one(connection: h11.Connection, closed: bool) -> Reply | None:
    reply = Reply(0, [], b"")
    while True:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            framed = {"content-length", "transfer-encoding"} & {name for name, _ in reply.headers}
            if not (closed and reply.status and not framed):
                return None
            connection.receive_data(b"")
            closed = False
        match event:
            case h11.InformationalResponse():
                reply.interim.append(event.status_code)
            case h11.Response():
                reply.status = event.status_code
                reply.headers = [(n.decode(), v.decode("latin-1")) for n, v in event.headers]
            case h11.Data():
                reply.body += bytes(event.data)
            case h11.EndOfMessage():
                return reply


class Client(asyncio.Protocol):
    """A caller's connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.chunks: list[bytes] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.chunks.append(data)
        self._changed.set()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self._changed.set()

    @property
    def closed(self) -> bool:
        """The gateway closed the connection."""
        return self.lost.done()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def leave(self) -> None:
        self.transport.abort()

    async def until(self, text: bytes) -> None:
        """Wait until these bytes stand in what was received."""
        looked = 0
        while self.received.find(text, looked) < 0:
            looked = max(0, len(self.received) - len(text))
            assert not self.closed, f"closed before {text!r}: {bytes(self.received)!r}"
            await self._change()

    async def end(self) -> bytes:
        """Wait until the gateway closes; all that was received."""
        await self.lost
        return bytes(self.received)

    async def replies(self, *methods: str) -> list[Reply]:
        """Wait for one response to each of these, or for the end of the connection."""
        if b"\r\n\r\n" not in self.received and not self.closed:
            await self._change()
        if b"transfer-encoding: chunked\r\n" in self.received and not self.closed:
            await self._until_last_chunk()  # to parse 20,000 chunks again with each takes hours
        while True:
            found, _ = parse(bytes(self.received), methods, self.closed)
            if len(found) == len(methods) or self.closed:
                return found
            await self._change()

    async def _until_last_chunk(self) -> None:
        looked = 0
        while self.received.find(b"\r\n0\r\n\r\n", looked) < 0 and not self.closed:
            looked = max(0, len(self.received) - 7)
            await self._change()

    async def reply(self, method: str = "POST") -> Reply:
        """The one response there must be; it is taken away."""
        found = await self.replies(method)
        assert found, f"closed without a response: {bytes(self.received)!r}"
        _, rest = parse(bytes(self.received), [method], self.closed)
        self.received = bytearray(rest)
        return found[0]

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Control:
    """The process around the app, as far as the app knows it."""

    started_s = 1_700_000_000

    def __init__(self) -> None:
        self.why_not_ready = ""

    def ready(self) -> str:
        return self.why_not_ready

    async def metrics(self) -> str:
        return "up 1\n"


class Gateway:
    """One data plane, listening, and what it recorded."""

    def __init__(self, world: VirtualWorld, plane: DataPlane, limits: ServerLimits) -> None:
        self.world = world
        self.plane = plane
        self.limits = limits
        self.way = plane.way
        self.control = Control()
        self.app = App(plane.way, self.control)
        self.state = ServerState()
        self.kept: list[Record] = []
        self.server: VirtualServer
        self.twins: dict[str, Twin] = {}
        self._config = uvicorn.Config(
            self.app,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            access_log=False,
            server_header=False,
        )

    def connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        return Connection(
            self.world, self.limits, refusal, self._config, self.state, {}, _loop=loop
        )

    async def client(self) -> Client:
        """A new connection of a caller."""
        _, client = await self.world.loop.create_connection(Client, "127.0.0.1", self.server.port)
        assert isinstance(client, Client)
        return client

    async def ask(
        self, path: str, body: Any, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Reply:
        """One request on a connection of its own, and the response."""
        client = await self.client()
        client.send(request(path, body, headers, method))
        reply = await client.reply(method)
        client.leave()
        return reply

    async def chat(self, content: str = "hello [out:8]", **more: Any) -> Reply:
        headers = more.pop("headers", None)
        return await self.ask("/v1/chat/completions", chat(content, **more), headers)

    async def records(self, number: int) -> list[Record]:
        """Wait until so many requests were recorded; all of them. More is a failure."""
        while len(self.kept) < number:
            await asyncio.sleep(0.01)
            self.plane.recorder.flush()
        assert len(self.kept) == number, [kept.outcome for kept in self.kept]
        return self.kept

    async def record(self) -> Record:
        """The only record there is."""
        (record,) = await self.records(1)
        return record

    def faults(self, twin: str, *script: Fault) -> None:
        self.twins[twin].set_script(Script(list(script)))

    async def drained(self) -> None:
        """Wait until every request has ended and its connection is gone."""
        await asyncio.sleep(0.01)  # for what is still on the wire
        while self.state.tasks or self.state.connections:  # noqa: ASYNC110 # others' states
            await asyncio.sleep(0.01)


def request(
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    host: str = "localhost",
) -> bytes:
    """A request as an SDK sends it. `body`: bytes as they are, None for none, else JSON."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def chat(content: str = "hello [out:8]", model: str = "openai/instant", **more: Any) -> Any:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def messages(content: str = "hello [out:8]", model: str = "anthropic/instant", **more: Any) -> Any:
    return chat(content, model, **{"max_tokens": 100, **more})


@contextlib.asynccontextmanager
async def gateway(
    world: VirtualWorld,
    config: dict[str, Any] | None = None,
    *,
    models: dict[str, Model] | None = None,
    limits: ServerLimits | None = None,
    keys: Iterable[KeyRow] = (),
    peer: str = "127.0.0.1",
) -> AsyncIterator[Gateway]:
    """A gateway between callers at the address `peer` and two twins, `openai` and `anthropic`."""
    served = models or MODELS
    openai = await Twin.start(world, config=TwinConfig(models=served, keys=(OPENAI_KEY,), seed=1))
    anthropic = await Twin.start(
        world,
        config=TwinConfig(dialect="anthropic", models=served, keys=(ANTHROPIC_KEY,), seed=2),
    )
    tree: dict[str, Any] = {
        "providers": {
            "openai": {
                "kind": "openai",
                "base_url": f"{openai.base_url}/v1",
                "api_key": OPENAI_KEY,
                "proxy": "off",
            },
            "anthropic": {
                "kind": "anthropic",
                "base_url": anthropic.base_url,
                "api_key": ANTHROPIC_KEY,
                "proxy": "off",
            },
        },
        "local": {"enabled": False},
    }
    for name, part in (config or {}).items():
        tree[name] = {**tree.get(name, {}), **part}
    kept: list[bytes] = []

    def keep(batch: list[bytes]) -> bool:
        kept.extend(batch)
        gate.kept.extend(records.decode(data) for data in batch)
        return True

    plane = data_plane(configuration.decode(tree), world, PEPPER, keep, "test")
    gate = Gateway(world, plane, limits or ServerLimits())
    gate.twins = {"openai": openai, "anthropic": anthropic}
    plane.way.keyring.load(keys)
    for provider in gate.twins:
        plane.way.prices.load({(provider, model): RATES for model in served})
    gate.server = await world.loop.create_server(gate.connection, peer, 0)
    try:
        yield gate
    finally:
        gate.server.abort_clients()
        gate.server.close()
        await gate.drained()
        plane.close()
        await openai.close()
        await anthropic.close()


def key_row(key: str = KEY, project: str = "web", **more: Any) -> KeyRow:
    return KeyRow(
        id=f"key_{project}",
        team="team",
        project=project,
        name="",
        role="caller",
        digest=digest(key.encode(), PEPPER),
        last4=key[-4:],
        created_ns=1,
        **more,
    )


def replied(record: Record) -> bytes:
    """The bytes that a record says the caller got."""
    return restore.reply(record).data
