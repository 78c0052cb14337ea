"""The process that may take its time: `python -m forebay.processes.back_office`.

Everything that blocks, grows or holds the interpreter lives here and not in a worker: the
record writer and its SQLite, the price list, the providers' lists of models, the console. It
owns what workers only know by heart (keys, catalogue, prices) and sends them a snapshot when
they connect and whenever something changed.
"""

import argparse
import asyncio
import datetime
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from forebay import config as configuration
from forebay import tether
from forebay.admission.key_store import KeyStore
from forebay.admission.keys import Keyring
from forebay.assemble import build_providers
from forebay.console import Console
from forebay.errors import Failure
from forebay.inference.local import Served
from forebay.observe.metrics import Metrics
from forebay.observe.upkeep import Retention
from forebay.observe.writer import Writer
from forebay.processes.link import (
    METRICS,
    RECORDS,
    SNAPSHOT,
    WANTED,
    Line,
    Snapshot,
    encode_snapshot,
    unpack_records,
)
from forebay.processes.serving import Server
from forebay.providers import Provider
from forebay.providers.discovery import list_models
from forebay.providers.prices import Model, known_models, look_up
from forebay.schema.usage import Rates
from forebay.world import RealWorld

log = logging.getLogger("forebay.back_office")

KEYS_POLL_S = 0.25  # how long a revoked key may still work, at most
GATHER_S = 0.2
PRICES_S = 3600.0
DISCOVERY_S = 900.0
TIDY_S = 5.0
#: Bytes waiting for the writer at which the workers' lines are no longer read.
HIGH_WATER_BYTES = 64 * 1024 * 1024
MAX_MODELS_PRICED = 5_000

_decode_wanted = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode


class BackOffice:
    def __init__(
        self,
        world: RealWorld,
        keys: KeyStore,
        writer: Writer,
        metrics: Metrics,
        providers: dict[str, Provider],
        writing: ThreadPoolExecutor,
    ) -> None:
        self.world = world
        self.keys = keys
        self.writer = writer
        self.providers = providers
        self.metrics = metrics
        self.keyring = Keyring(keys.pepper)
        self.snapshot = Snapshot(keys=keys.snapshot(), discovered={}, listed={}, rates=[], local=[])
        self.keyring.load(self.snapshot.keys or [])
        self.lines: set[Line] = set()
        self._writing = writing
        self._pricing = ThreadPoolExecutor(1, "prices")
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._rates: dict[Model, Rates | None] = {}

    # -- lines ---------------------------------------------------------------------------

    def line(self) -> Line:
        return Line(self._frame, self.lines.discard, self._greet)

    def _greet(self, line: Line) -> None:
        self.lines.add(line)
        line.send(SNAPSHOT, encode_snapshot(self.snapshot))

    def _frame(self, line: Line, kind: bytes, payload: memoryview) -> None:
        if kind == RECORDS:
            self._pending += unpack_records(payload)
            self._pending_bytes += len(payload)
            self._arrived.set()
            if self._pending_bytes > HIGH_WATER_BYTES and line.transport is not None:
                line.transport.pause_reading()
        elif kind == METRICS:
            line.send(METRICS, self.metrics.text().encode())
        elif kind == WANTED:
            self.world.spawn(self._price(_decode_wanted(payload)), "price")
        elif kind == SNAPSHOT:  # the supervisor: a local model came up
            self.snapshot.local = msgspec.msgpack.decode(payload, type=list[Served])
            self.tell(Snapshot(local=self.snapshot.local))

    def tell(self, change: Snapshot) -> None:
        data = encode_snapshot(change)
        for line in self.lines:
            line.send(SNAPSHOT, data)

    # -- standing work -------------------------------------------------------------------

    async def write_records(self) -> None:
        """Batches to the writer, gathered a little so that a transaction holds many."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER_S)
            await self._write_pending(loop)

    async def _write_pending(self, loop: asyncio.AbstractEventLoop) -> None:
        self._arrived.clear()
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        for line in self.lines:
            if line.transport is not None and not line.transport.is_reading():
                line.transport.resume_reading()
        if batch:
            before = self.writer.trouble
            # Shielded: who stops this task must not take back a batch that waits for the thread.
            await asyncio.shield(loop.run_in_executor(self._writing, self.writer.write, batch))
            if (trouble := self.writer.trouble) and trouble != before:
                log.warning("records: %s", trouble)

    async def tidy(self) -> None:
        """Retention and sealing, whenever nothing waits."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TIDY_S)
            more = True
            while more and not self._pending:
                more = await loop.run_in_executor(self._writing, self.writer.tidy)

    async def watch_keys(self) -> None:
        """Keys made or revoked by any process on this machine reach every worker."""
        version = self.keys.version()
        while True:
            await asyncio.sleep(KEYS_POLL_S)
            try:
                if (now := self.keys.version()) == version:
                    continue
                rows = self.keys.snapshot()
            except Failure as failure:
                log.warning("keys are not refreshed: %s", failure)
                continue
            version = now
            self.snapshot.keys = rows
            self.keyring.load(rows)
            self.tell(Snapshot(keys=rows))

    async def watch_models(self) -> None:
        """What the providers say they have, and what the price list says of them."""
        loop = asyncio.get_running_loop()
        while True:
            listed = {
                name: await loop.run_in_executor(self._pricing, known_models, provider.prices)
                for name, provider in self.providers.items()
                if provider.prices
            }
            self.snapshot.listed = listed
            found = await asyncio.gather(
                *(list_models(self.world, p) for p in self.providers.values())
            )
            discovered = dict(self.snapshot.discovered or {})
            for name, models in zip(self.providers, found, strict=True):
                if models is not None:  # else keep what was known
                    discovered[name] = models
            self.snapshot.discovered = discovered
            self.tell(Snapshot(discovered=discovered, listed=listed))
            await asyncio.sleep(DISCOVERY_S)

    async def watch_prices(self) -> None:
        """Rates change by the hour of day: look all of them up again."""
        while True:
            await asyncio.sleep(PRICES_S)
            await self._price(list(self._rates))

    async def _price(self, models: list[Model]) -> None:
        loop = asyncio.get_running_loop()
        at = datetime.datetime.fromtimestamp(self.world.wall_ns() / 1e9, datetime.UTC)
        found = []
        for provider, model in models:
            if len(self._rates) >= MAX_MODELS_PRICED and (provider, model) not in self._rates:
                continue
            rates = await loop.run_in_executor(self._pricing, look_up, provider, model, at)
            self._rates[provider, model] = rates
            found.append((provider, model, rates))
        self.snapshot.rates = [(p, m, rates) for (p, m), rates in self._rates.items()]
        if found:
            self.tell(Snapshot(rates=found))

    async def close(self) -> None:
        """Everything that arrived is written before this returns."""
        loop = asyncio.get_running_loop()
        await self._write_pending(loop)
        await loop.run_in_executor(self._writing, self.writer.close)
        self._writing.shutdown()
        self._pricing.shutdown(cancel_futures=True)
        self.keys.close()


async def serve(args: argparse.Namespace) -> None:
    world = RealWorld()
    loaded = configuration.load(Path(args.config) if args.config else None)
    data = Path(args.data)
    keys = KeyStore.open(data, world)
    providers = build_providers(loaded.forebay, world)
    secrets = {
        f"{name}-key-{number}": secret.removeprefix(b"Bearer ")
        for name, provider in providers.items()
        for number, secret in enumerate(provider.secrets)
    }
    kept = loaded.forebay.record
    retention = Retention(kept.retention_days * 86400, kept.max_mb * 1024 * 1024)
    metrics = Metrics()
    # One thread writes; the loop goes on. SQLite and zstd release the interpreter. It opens the
    # store, too: SQLite lets only the thread that opened a connection use it.
    loop = asyncio.get_running_loop()
    writing = ThreadPoolExecutor(1, "writer")
    writer = await loop.run_in_executor(
        writing,
        lambda: Writer(
            data / "traces", world, secrets=secrets, retention=retention, on_rows=metrics.count
        ),
    )
    office = BackOffice(world, keys, writer, metrics, providers, writing)

    line_server = await loop.create_unix_server(office.line, str(args.link))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    standing = [
        world.spawn(work(), work.__name__)
        for work in (
            office.write_records,
            office.tidy,
            office.watch_keys,
            office.watch_models,
            office.watch_prices,
        )
    ]

    console = Console(
        data / "traces",
        world,
        auth=lambda secret: office.keyring.is_admin(secret.encode(), world.wall_ns()),
        hosts=loaded.forebay.admin.hosts,
    )
    server = Server(
        uvicorn.Config(
            console,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
        )
    )
    listening = socket.socket(fileno=args.fd)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    tether.announce(port=listening.getsockname()[1])
    await stop.wait()
    server.should_exit = True
    await serving
    line_server.close()
    for task in standing:
        task.cancel()
    await asyncio.wait(standing)
    await office.close()


def main() -> None:
    tether.hold()
    parser = argparse.ArgumentParser(prog="forebay back office")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--link", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--config", default="")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
