"""Runs the rows one after another and measures the rig beside them.

The rig is driver and twin: what the machine spends on the experiment itself. Its CPU is read
at the spike's beginning and end, where a thousand streams are open; when it comes near what
the machine has, or the driver falls behind its schedule, the row measures the machine.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from forebay.errors import Failure
from forebay.testbed.load.client import Target
from forebay.testbed.load.driver import Result
from forebay.testbed.load.workload import TRACE_FILE, Curve, Lengths, Workload, build
from forebay.testbed.table.cpu import cpu_s
from forebay.testbed.table.retrieval import Retrieval, measure
from forebay.testbed.table.rows import Stage, set_up
from forebay.world import World

#: driver lag beyond which the driver, not the system under test, was the bottleneck
LAG_LIMIT_S = 0.05

Progress = Callable[[str, Lengths, Result, int], None]


class Plan(msgspec.Struct, frozen=True):
    rows: list[str]
    lengths: list[Lengths]
    seed: int
    curve: Curve
    #: folder with the traces and SciFact; None: not at hand
    data: Path | None


class Row(msgspec.Struct):
    """What one run gave. Times in seconds, money in dollars."""

    row: str
    lengths: str
    interactions: int
    completed: int
    success: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    #: each failure counted at its deadline
    ttft_all_mean_s: float
    ttft_all_p50_s: float
    ttft_all_p99_s: float
    bill_nusd: int
    #: None: nothing was completed
    usd_per_million: float | None
    verdicts: dict[str, int]
    #: requests that callers made, and that the provider saw
    attempts: int
    provider_requests: int
    most_in_flight: int
    #: cores used in the spike; None where /proc does not say
    driver_cores: float | None
    twin_cores: float | None
    gateway_cores: float | None
    lag_p99_s: float
    notes: list[str]

    @property
    def void(self) -> bool:
        """The driver fell behind its schedule: what was measured is the machine."""
        return self.lag_p99_s > LAG_LIMIT_S


async def run(world: World, plan: Plan, progress: Progress | None) -> list[Row]:
    retrieval = None
    if "retrieval" in plan.rows:
        retrieval = measure(world, plan.data / "scifact" if plan.data else None)
    rows = []
    for lengths in plan.lengths:
        workload = build(lengths, plan.seed, _trace(plan), plan.curve)
        for name in plan.rows:
            rows.append(await _run(world, plan, name, lengths, workload, retrieval, progress))
    return rows


def _trace(plan: Plan) -> Path | None:
    return plan.data / TRACE_FILE if plan.data else None


async def _run(
    world: World,
    plan: Plan,
    name: str,
    lengths: Lengths,
    workload: Workload,
    retrieval: Retrieval | None,
    progress: Progress | None,
) -> Row:
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        stage = await set_up(name, world, workload, retrieval, plan.seed, Path(folder))
        meter = Meter(world, stage, plan.curve)
        try:
            meter.start()
            result = await stage.driver.run(
                stage.workload,
                (lambda so_far: progress(name, lengths, so_far, len(workload.arrivals)))
                if progress
                else None,
            )
            bill = await _bill(stage)
            died = stage.gateway.last_words if stage.gateway is not None else None
        finally:
            meter.stop()
            await stage.close()
    notes = [*workload.notes, *stage.notes, *([died] if died else [])]
    return _row(name, workload, result, bill, meter, notes)


class Meter:
    """CPU of the row's processes in the last quarter of the spike."""

    def __init__(self, world: World, stage: Stage, curve: Curve) -> None:
        self._world = world
        self._curve = curve
        self._pids = {"driver": os.getpid(), "twin": stage.twin.pid}
        if stage.gateway is not None:
            self._pids["gateway"] = stage.gateway.pid
        self._timers: list[asyncio.TimerHandle] = []
        self._start: dict[str, float | None] = {}
        self.cores: dict[str, float | None] = {}

    def start(self) -> None:
        # The last quarter of the spike: by then as many streams are open as there will be.
        begin_s = self._curve.before_s + 0.75 * self._curve.spike_s
        end_s = self._curve.before_s + self._curve.spike_s
        self._timers = [
            self._world.call_later(begin_s, self._begin),
            self._world.call_later(end_s, self._end),
        ]

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _read(self) -> dict[str, float | None]:
        own = os.times()
        read = {name: cpu_s(pid) for name, pid in self._pids.items()}
        read["driver"] = own.user + own.system  # without its children
        return read

    def _begin(self) -> None:
        self._begin_ns = self._world.now_ns()
        self._start = self._read()

    def _end(self) -> None:
        span_s = (self._world.now_ns() - self._begin_ns) / 1e9
        for name, now in self._read().items():
            before = self._start[name]
            self.cores[name] = None if now is None or before is None else (now - before) / span_s


async def _bill(stage: Stage) -> dict[str, Any]:
    """The provider's own account: `total_nusd`, and how many `requests` it saw."""
    base_url = stage.twin.ready["twins"][0]["base_url"]
    target = Target.of(base_url, "/_twin/bill", {})
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(b"GET /_twin/bill HTTP/1.1\r\nhost: twin\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
    except OSError as error:
        said = stage.twin.last_words or str(error)
        raise Failure("internal", f"The simulated provider gave no bill: {said}.") from None
    writer.close()
    await writer.wait_closed()
    data: dict[str, Any] = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    return data


def _row(
    name: str,
    workload: Workload,
    result: Result,
    bill: dict[str, Any],
    meter: Meter,
    notes: list[str],
) -> Row:
    completed = result.completed
    return Row(
        row=name,
        lengths=workload.name,
        interactions=result.ended,
        completed=completed,
        success=completed / result.ended if result.ended else 0.0,
        ttft_mean_s=result.ttft.mean_us / 1e6,
        ttft_p50_s=result.ttft.quantile_us(0.5) / 1e6,
        ttft_p99_s=result.ttft.quantile_us(0.99) / 1e6,
        ttft_all_mean_s=result.ttft_all.mean_us / 1e6,
        ttft_all_p50_s=result.ttft_all.quantile_us(0.5) / 1e6,
        ttft_all_p99_s=result.ttft_all.quantile_us(0.99) / 1e6,
        bill_nusd=bill["total_nusd"],
        usd_per_million=bill["total_nusd"] / completed / 1e3 if completed else None,
        provider_requests=bill["requests"],
        verdicts=dict(result.verdicts.most_common()),
        attempts=result.attempts,
        most_in_flight=result.most_in_flight,
        driver_cores=meter.cores.get("driver"),
        twin_cores=meter.cores.get("twin"),
        gateway_cores=meter.cores.get("gateway"),
        lag_p99_s=result.lag.quantile_us(0.99) / 1e6,
        notes=notes,
    )
