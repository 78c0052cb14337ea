"""`make bench`: measures, prints a table while it goes, ends with one line per figure."""

import argparse
import asyncio
import datetime
import gc
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from forebay.testbed.overhead.load import bodies, closed_loop, open_streams
from forebay.testbed.overhead.rig import LOAD_CORE, Subject, forebay, nginx, upstream

CONNECTIONS = 32
REQUEST_BYTES, ANSWER_BYTES = 5 * 1024, 2 * 1024
STREAMS, RATE = 300, 20
#: After a load Forebay still writes its last records; they belong to what it did.
SETTLE_S = 0.5


class Figures(msgspec.Struct):
    """All runs of each figure, by its name."""

    values: dict[str, list[float]] = {}
    units: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.values.setdefault(name, []).append(value)
        self.units[name] = unit
        say(f"    {name} = {value:.2f} {unit}")

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


async def cpu_us(subject: Subject, seconds: float, source: Iterator[bytes]) -> float:
    """CPU per request of a subject, in µs, closed loop."""
    await closed_loop(subject.port, 0.5, source, CONNECTIONS)  # warm: connections, prices
    await asyncio.sleep(SETTLE_S)
    before = subject.cpu_s()
    load = await closed_loop(subject.port, seconds, source, CONNECTIONS)
    await asyncio.sleep(SETTLE_S)
    if load.failed:
        raise RuntimeError(f"{load.failed} of {load.done} requests failed: no figure")
    return (subject.cpu_s() - before) / load.done * 1e6


async def stream_costs(subject: Subject, seconds: float, seed: int) -> tuple[float, list[float]]:
    """CPU per relayed event in µs with all streams open, and each stream's TTFT in ms."""
    source = bodies(REQUEST_BYTES, stream=True, fresh=True, seed=seed)
    streams = await open_streams(subject.port, STREAMS, 3.0, source)
    await asyncio.sleep(0.5)
    before, events = subject.cpu_s(), sum(stream.events for stream in streams)
    await asyncio.sleep(seconds)
    cpu, events = subject.cpu_s() - before, sum(s.events for s in streams) - events
    first = [(stream.first - stream.sent) * 1e3 for stream in streams]
    for stream in streams:
        stream.transport.abort()
    await asyncio.sleep(SETTLE_S)
    if events < 0.95 * STREAMS * RATE * seconds:
        raise RuntimeError(f"only {events / seconds:.0f} events/s arrived: no figure")
    return cpu / events * 1e6, first


async def stream_kb(subject: Subject, seed: int) -> tuple[float, float]:
    """KB per open stream: slope of RSS from 200 to 1,000 streams, less 1.2 × bytes held."""
    source = bodies(REQUEST_BYTES, stream=True, fresh=True, seed=seed)
    few = await open_streams(subject.port, 200, 2.0, source)
    await asyncio.sleep(1.0)
    rss_few, held_few = subject.rss_bytes(), sum(stream.received for stream in few)
    many = await open_streams(subject.port, 800, 8.0, source)
    await asyncio.sleep(1.0)
    rss_many = subject.rss_bytes()
    held_many = sum(stream.received for stream in few + many)
    for stream in few + many:
        stream.transport.abort()
    await asyncio.sleep(SETTLE_S)
    slope = (rss_many - rss_few) / 800 / 1024
    held = (held_many - held_few) / 800 / 1024 + REQUEST_BYTES / 1024
    return slope, held


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def one_run(
    run: int, seconds: float, figures: Figures, subjects: dict[str, Subject], direct: int
) -> None:
    """Every figure once, subjects interleaved so that the machine's moods hit all of them."""
    gateway, proxy, tls = subjects["forebay"], subjects["nginx"], subjects["tls"]
    seed = run * 1000
    fresh = {
        name: bodies(REQUEST_BYTES, stream=False, fresh=True, seed=seed + n)
        for n, name in enumerate(("miss", "nginx", "tls"))
    }
    miss = await cpu_us(gateway, seconds, fresh["miss"])
    figures.add("miss_cpu_us", miss, "us")
    bare = await cpu_us(proxy, seconds, fresh["nginx"])
    figures.add("nginx_cpu_us", bare, "us")
    figures.add("nginx_ratio", bare / miss, "of nginx per CPU second")
    again = await cpu_us(gateway, seconds, fresh["miss"])
    secure = await cpu_us(tls, seconds, fresh["tls"])
    figures.add("tls_extra_us", secure - (miss + again) / 2, "us")
    same = bodies(REQUEST_BYTES, stream=False, fresh=False, seed=seed)
    figures.add("hit_cpu_us", await cpu_us(gateway, seconds, same), "us")

    floor = Subject("direct", os.getpid(), direct)
    event, first = await stream_costs(gateway, seconds, seed + 10)
    figures.add("event_cpu_us", event, "us")
    bare_event, _ = await stream_costs(proxy, seconds, seed + 11)
    figures.add("nginx_event_cpu_us", bare_event, "us")
    tls_event, _ = await stream_costs(tls, seconds, seed + 12)
    figures.add("tls_event_extra_us", tls_event - event, "us")
    _, directly = await stream_costs(floor, 0.5, seed + 13)
    added = quantile(first, 0.99) - quantile(directly, 0.99)
    figures.add("ttft_added_p99_ms", added, "ms")


async def measure(args: argparse.Namespace, folder: Path, figures: Figures) -> None:
    with ExitStack() as stack:
        cert, authority = _certificate(folder)
        plain = stack.enter_context(upstream("--size", str(ANSWER_BYTES), "--rate", str(RATE)))
        secure = stack.enter_context(
            upstream("--size", str(ANSWER_BYTES), "--rate", str(RATE), "--cert", cert)
        )
        subject, startup = stack.enter_context(
            forebay(folder / "plain", f"http://127.0.0.1:{plain}/v1")
        )
        figures.add("startup_s", startup, "s")
        tls, _ = stack.enter_context(
            forebay(folder / "tls", f"https://localhost:{secure}/v1", ca_file=authority)
        )
        proxy = stack.enter_context(nginx(folder, plain))
        subjects = {"forebay": subject, "tls": tls, "nginx": proxy}
        for run in range(1, args.runs + 1):
            say(f"run {run} of {args.runs}")
            await one_run(run, args.seconds, figures, subjects, plain)
    for run in range(1, min(args.runs, 3) + 1):
        with ExitStack() as stack:
            plain = stack.enter_context(upstream("--rate", str(RATE)))
            subject, startup = stack.enter_context(
                forebay(folder / f"memory-{run}", f"http://127.0.0.1:{plain}/v1")
            )
            figures.add("startup_s", startup, "s")
            slope, held = await stream_kb(subject, run)
            figures.add("stream_slope_kb", slope, "KB")
            figures.add("stream_kb", slope - 1.2 * held, "KB beside 1.2 x bytes held")


def _certificate(folder: Path) -> tuple[str, str]:
    """A certificate for localhost and the authority that signed it, as PEM files."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    folder.mkdir(parents=True, exist_ok=True)
    cert, trusted = folder / "leaf.pem", folder / "ca.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(str(cert))
    authority.cert_pem.write_to_path(str(trusted))
    return str(cert), str(trusted)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m forebay.testbed.overhead",
        description="CPU per request and per event of all Forebay processes, beside nginx.",
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--json", action="store_true", help="all runs as JSON")
    args = parser.parse_args()
    figures = Figures()
    os.sched_setaffinity(0, {LOAD_CORE})
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        uvloop.run(measure(args, Path(folder), figures))
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    say(
        f"{when}, {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
    )
    if args.json:
        print(msgspec.json.encode(figures.values).decode())  # noqa: T201  (the command's output)
    for name, unit in figures.units.items():
        print(f"figure {name} = {figures.median(name):.2f} {unit}")  # noqa: T201 - its output
    return 0


if __name__ == "__main__":
    sys.exit(main())
