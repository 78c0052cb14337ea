"""A data-plane process: `python -m forebay.processes.worker`, started by the supervisor.

It inherits its listening socket, loads the config again (the file is the message), connects
to the back office for keys, prices and the catalogue, and serves. It reports ready by one
JSON line on stdout. When the back office is away it serves with what it last knew.

The garbage collector is tuned here, for a process that lives on short acyclic objects: what
start-up made is frozen out of every collection, and generations are collected rarely, since
one full pass over a warm heap is a pause every stream would feel.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import logging
import resource
import signal
import socket
from pathlib import Path

import uvicorn
import uvloop

from forebay import app as application
from forebay import config as configuration
from forebay import tether
from forebay.admission.key_store import PEPPER_NAME
from forebay.assemble import DataPlane, data_plane
from forebay.processes.link import Link, Snapshot
from forebay.processes.serving import Server
from forebay.wire.server import Connection
from forebay.world import RealWorld

log = logging.getLogger("forebay.worker")

#: How long the first snapshot may take before serving begins without it.
SYNC_S = 5.0
#: How long open streams may go on once it is told to stop; less than WORKER_GRACE_S.
GRACE_S = 30
#: How long the last records may take to leave.
FAREWELL_S = 5.0
PRICES_S = 0.05


class WorkerControl:
    """What the app is told about its process."""

    def __init__(self, link: Link, plane: DataPlane, started_s: int) -> None:
        self.link = link
        self.plane = plane
        self.started_s = started_s
        self.stopping = False

    def ready(self) -> str:
        if self.stopping:
            return "stopping"
        return "" if self.link.synced.is_set() else "waiting for keys from the back office"

    async def metrics(self) -> str:
        """The machine's metrics from the back office, and what only this worker knows."""
        try:
            text = await self.link.metrics()
        except (TimeoutError, ConnectionError):
            text = (
                "# HELP forebay_back_office_up Whether the worker reaches the back office.\n"
                "# TYPE forebay_back_office_up gauge\nforebay_back_office_up 0\n"
            )
        recorder, cache = self.plane.recorder, self.plane.way.cache
        lines = [
            "# HELP forebay_records_dropped_total Records lost: this worker's ring was full.",
            "# TYPE forebay_records_dropped_total counter",
            f"forebay_records_dropped_total {recorder.dropped}",
            "# HELP forebay_records_without_content_total Records kept without what was said.",
            "# TYPE forebay_records_without_content_total counter",
            f"forebay_records_without_content_total {recorder.dropped_content}",
        ]
        if cache is not None:
            lines += [
                "# HELP forebay_cache_held_bytes Bytes of answers in this worker's exact cache.",
                "# TYPE forebay_cache_held_bytes gauge",
                f"forebay_cache_held_bytes {cache.held_bytes}",
            ]
        return text + "\n".join(lines) + "\n"


def apply(plane: DataPlane, snapshot: Snapshot) -> None:
    """What the back office says, put where requests see it."""
    way = plane.way
    if snapshot.keys is not None:
        way.keyring.load(snapshot.keys)
    if snapshot.discovered is not None or snapshot.listed is not None:
        way.catalogue.load(snapshot.discovered, snapshot.listed)
    if snapshot.rates is not None:
        way.prices.load({(provider, model): rates for provider, model, rates in snapshot.rates})
    for served in snapshot.local or ():
        plane.local(served)


async def serve(args: argparse.Namespace) -> None:
    world = RealWorld()
    loaded = configuration.load(Path(args.config) if args.config else None)
    if args.no_local:
        loaded = configuration.overridden(loaded, local={"enabled": False})
    pepper = (Path(args.data) / PEPPER_NAME).read_bytes()
    planes: list[DataPlane] = []
    link = Link(world, Path(args.link), lambda snapshot: apply(planes[0], snapshot))
    plane = data_plane(loaded.forebay, world, pepper, link.send_records, loaded.version, args.index)
    planes.append(plane)
    control = WorkerControl(link, plane, world.wall_ns() // 1_000_000_000)
    world.spawn(link.run(), "link")
    world.spawn(_want_prices(link, plane), "prices")

    server = Server(_server_config(world, loaded.forebay, application.App(plane.way, control)))
    listening = socket.socket(fileno=args.fd)
    _raise_file_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    try:
        async with asyncio.timeout(SYNC_S):
            await link.synced.wait()
    except TimeoutError:
        log.warning("the back office is late: serving without keys and prices")
    tether.announce(port=listening.getsockname()[1])

    def stop() -> None:
        control.stopping = server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(sockets=[listening])
    finally:
        await asyncio.sleep(0)  # what was out of time is cancelled, and settles, now
        plane.close()
        await _farewell(link, plane)


async def _farewell(link: Link, plane: DataPlane) -> None:
    """The last records leave, if there is anybody to take them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            while plane.recorder.held_bytes:
                await asyncio.sleep(PRICES_S)
                plane.recorder.flush()
            await link.close()


async def _want_prices(link: Link, plane: DataPlane) -> None:
    """Ask for the rates that requests missed, soon after they did; and each new back office
    for all of them, or it would never refresh those that another one was asked for."""
    asked: set[tuple[str, str]] = set()
    asked_whom = 0
    while True:
        await asyncio.sleep(PRICES_S)
        if not link.up:
            continue
        prices = plane.way.prices
        missing = prices.wanted - asked
        if asked_whom != link.times_up:
            asked_whom = link.times_up
            missing, asked = prices.wanted | prices.known(), set()
        if missing:
            link.want(missing)
            asked |= missing
        if len(asked) > 10_000:  # callers choose the names
            asked.clear()


def _server_config(
    world: RealWorld, config: configuration.Forebay, app: application.App
) -> uvicorn.Config:
    protocol = functools.partial(Connection, world, config.server, application.refusal)
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,  # who a caller is comes from its socket, never from a header
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=GRACE_S,
    )


def _raise_file_limit() -> None:
    """A stream takes two sockets; the usual soft limit of 1,024 is 500 streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    tether.hold()
    parser = argparse.ArgumentParser(prog="forebay worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--link", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--config", default="")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--no-local", action="store_true")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
