"""`forebay sim`: simulated providers on this machine, to develop and test against."""

import asyncio
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forebay.commands import Verbs
from forebay.errors import Failure

if TYPE_CHECKING:
    from forebay.testbed.twins.house import Listed


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "sim",
        help="simulated providers: real sockets, real behaviour, no bill",
        description="Start simulated providers that speak, limit, charge and fail like real "
        "ones. What they saw and charged is at /_twin/log and /_twin/bill of each.",
    )
    parser.add_argument(
        "--dialect",
        choices=("openai", "anthropic", "both"),
        default="both",
        help="whose API they speak; both: one provider of each",
    )
    parser.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help="a model to serve: frontier, small, second (another host of frontier), self_hosted "
        "or instant; may be given more than once (default: all)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9100, help="first port; 0: any free ones")
    parser.add_argument("--seed", type=int, help="all luck; the same seed, the same luck")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster")
    parser.add_argument("--script", type=Path, metavar="FILE", help="faults, YAML or JSON")
    parser.add_argument("--no-bodies", action="store_true", help="log digests, not bodies")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin does")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    import uvloop

    try:
        uvloop.run(_serve(args, _show_json if args.json else _show))
    except (OSError, ValueError) as error:
        raise Failure("bad_request", f"The simulated providers did not start: {error}.") from None
    return 0


async def _serve(args: Namespace, show: "Callable[[list[Listed]], None]") -> None:
    from forebay.testbed.twins import PRESETS, house
    from forebay.testbed.twins.hasten import Hastened
    from forebay.world import RealWorld, World

    world: World = RealWorld()
    if args.speed != 1.0:
        world = Hastened(world, args.speed)
    presets = args.preset or list(PRESETS)
    twins = house.configs(args.dialect, presets, args.seed, not args.no_bodies)
    script = await asyncio.to_thread(args.script.read_bytes) if args.script else None
    house.raise_file_limit()
    running = await house.start(world, args.host, args.port, twins, script)
    over = await _end(args.until_eof)
    show([entry for entry, _ in running])
    await over.wait()
    for _, twin in running:
        await twin.close()


def _show_json(listed: "list[Listed]") -> None:
    print(msgspec.json.encode({"twins": listed}).decode(), flush=True)


def _show(listed: "list[Listed]") -> None:
    for entry in listed:
        url = entry.base_url + ("/v1" if entry.dialect == "openai" else "")
        print(f"{entry.name:<10} {url:<32} key {entry.key}   models {', '.join(entry.models)}")
    first = next((entry for entry in listed if entry.dialect == "openai"), None)
    if first is not None:
        print(
            f"\ncurl {first.base_url}/v1/chat/completions -H 'authorization: Bearer {first.key}' "
            f'-H \'content-type: application/json\' \\\n  -d \'{{"model":"{first.models[0]}",'
            '"stream":true,"messages":[{"role":"user","content":"hello [out:40]"}]}\''
        )
    sys.stdout.flush()


async def _end(until_eof: bool) -> asyncio.Event:
    """Set when it is time to go: on a signal, or when stdin ends."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    if until_eof:
        await loop.connect_read_pipe(lambda: _Lifeline(over), sys.stdin)
    return over


class _Lifeline(asyncio.Protocol):
    """Whoever started us holds the other end of our stdin; when it dies, so do we."""

    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()
