"""The benchmark table: what it needs, what it prints, and one small row for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from conftest import RealRun
from forebay.errors import Failure
from forebay.testbed.load.workload import Arrival, Curve, Workload
from forebay.testbed.table import bench, report, retrieval
from forebay.testbed.table.children import Child
from forebay.testbed.table.cpu import cpu_s
from forebay.testbed.twins.text import count
from forebay.world import RealWorld


def row(name: str = "direct", lengths: str = "calibration-a", completed: int = 8) -> bench.Row:
    return bench.Row(
        row=name,
        lengths=lengths,
        interactions=10,
        completed=completed,
        success=completed / 10,
        ttft_mean_s=1.5,
        ttft_p50_s=1.25,
        ttft_p99_s=4.0,
        ttft_all_mean_s=7.2,
        ttft_all_p50_s=1.5,
        ttft_all_p99_s=30.0,
        bill_nusd=120_000_000,
        usd_per_million=15_000.0 if completed else None,
        verdicts={"ok": completed, "status_429": 10 - completed},
        attempts=14,
        provider_requests=14,
        most_in_flight=9,
        driver_cores=0.25,
        twin_cores=0.5,
        gateway_cores=None,
        lag_p99_s=0.001,
        notes=["a note"],
    )


PLAN = bench.Plan(["direct"], ["calibration-a"], 1, Curve(), None)


def printed(rows: list[bench.Row]) -> str:
    console = Console(width=110)
    with console.capture() as captured:
        console.print(report.table(rows, PLAN))
    return captured.get()


def test_the_table_shows_each_row_under_its_lengths() -> None:
    text = printed([row(), row("forebay", completed=0), row(lengths="azure")])

    assert "10,000 interactions, 25/s with 40 s at 125/s, seed 1" in text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    cells = [line for line in lines if len(line) == 9]
    assert "direct wrapper|80.0%|1.50|1.25|4.00|7.20|1.50|30.00|15,000" in map("|".join, cells)
    assert next(line for line in cells if line[0] == "Forebay")[-1] == "–"
    assert text.index("calibration-a") < text.index("azure")


def test_remarks_name_failures_and_the_rigs_share() -> None:
    first, note = report.remarks([row()])
    assert first == (
        "direct wrapper, calibration-a: failures 2 status_429; 14 attempts, 14 seen by the "
        "provider; 9 in flight at most; rig at the spike's end 0.75 cores (driver 0.25, twin "
        "0.50); driver lag p99 1.0 ms"
    )
    assert note == "  a note"


def test_figures_have_stable_names() -> None:
    lines = report.figures([row(), row("forebay", "azure", completed=0)])
    assert "figure table_direct_success = 80.00 %" in lines
    assert "figure table_direct_ttft_all_p99 = 30.000 s" in lines
    assert "figure table_direct_cost_per_million = 15000 USD" in lines
    assert "figure table_direct_rig_cores = 0.75 cores" in lines
    assert "figure table_forebay_azure_ttft_mean = 1.500 s" in lines
    assert not [line for line in lines if "forebay_azure_cost" in line]


def test_a_row_whose_driver_fell_behind_is_void_and_has_no_figures() -> None:
    late = row()
    late.lag_p99_s = 0.2
    assert "direct wrapper (void)" in printed([late])
    assert report.remarks([late])[1].startswith("  void: the driver fell behind")
    assert report.figures([late]) == []


def test_without_the_data_set_search_is_a_stated_constant() -> None:
    found = retrieval.measure(RealWorld(), None)
    workload = found.delayed(Workload("w", [Arrival(0, 1.0, 1_125, 375)], []))

    assert "not at hand" in found.note
    assert workload.arrivals[0].before_s == retrieval.STATED_SEARCH_S
    assert count(found.extra(workload.arrivals[0])) == 700


def test_a_real_search_is_measured_and_gives_exactly_700_tokens(shared_data: Path) -> None:
    found = retrieval.measure(RealWorld(), shared_data / "scifact", searches=20)

    assert len(found.texts) == len(found.search_s) == 20
    assert {len(text) for text in found.texts} == {2_800}
    assert len(set(found.texts)) > 15
    assert all(text.isascii() and not set(text) & set(b'"\\\n') for text in found.texts)
    assert 0 < min(found.search_s) < max(found.search_s) < 5


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_cpu_is_that_of_a_process_and_all_below_it() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = cpu_s(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it has used its share
        used, after = cpu_s(child.pid), cpu_s(os.getpid())
        child.kill()
    assert before is not None
    assert used is not None
    assert after is not None
    assert 0.28 <= used < 2  # ticks are 10 ms
    assert after - before >= used - 0.02
    assert cpu_s(2**30) is None


def test_a_child_that_does_not_start_says_why(real: RealRun, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Failure, match="`forebay sim` did not start") as failure:
            await Child.start("sim", "--preset", "nobody", home=tmp_path)
        assert "no preset 'nobody'" in failure.value.hint

    real(main())


def test_one_small_row_through_a_real_gateway(real: RealRun) -> None:
    """Twin, gateway and driver as processes: 20 interactions, ~10 s."""
    plan = bench.Plan(["forebay"], ["calibration-a"], 1, Curve(20, 10, 20, 0.5), None)
    told: list[int] = []

    async def main() -> list[bench.Row]:
        return await bench.run(
            RealWorld(), plan, lambda name, lengths, so_far, total: told.append(so_far.ended)
        )

    [got] = real(main())
    assert got.verdicts == {"ok": 20}
    assert got.provider_requests >= 20  # and the gateway's own look at the list of models
    assert got.usd_per_million == 15_000.0
    assert 0.2 < got.ttft_mean_s < 5
    assert "Gamma" in got.lengths
    assert told
