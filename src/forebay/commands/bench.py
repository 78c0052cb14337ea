"""`forebay bench`: ten thousand interactions with and without Forebay, as a table."""

import os
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forebay.commands import Verbs
from forebay.errors import Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from forebay.testbed.load.driver import Result
    from forebay.testbed.load.workload import Lengths

ROWS = ("direct", "retrieval", "forebay")
#: `--quick` runs the same rates for a fifth of the time
QUICK = 0.2
#: where the traces may be: an environment variable, else beside the repository
DATA_VARIABLE = "FOREBAY_BENCH_DATA"
DATA_DEFAULT = Path(__file__).parents[4] / "shared" / "data"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "bench",
        help="the same 10,000 interactions with and without Forebay",
        description="Runs each row against a simulated provider on this machine: 4.5 minutes a "
        "row and set of lengths, 27 in all; --quick takes a fifth of it (and gives figures of "
        "its own). Needs nothing but loopback.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the time at the same rates"
    )
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help="of " + ",".join(ROWS))
    parser.add_argument(
        "--lengths",
        choices=("both", "calibration-a", "azure"),
        default="both",
        help="1,125 + 375 tokens each, or those of the Azure trace",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="all luck; the same seed, the same luck"
    )
    parser.add_argument(
        "--data", type=Path, help=f"folder of the traces (default ${DATA_VARIABLE})"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    import uvloop
    from rich.console import Console

    from forebay.testbed.load.workload import Curve
    from forebay.testbed.table import bench, report
    from forebay.testbed.twins.house import raise_file_limit
    from forebay.world import RealWorld

    raise_file_limit()
    data = args.data or Path(os.environ.get(DATA_VARIABLE) or DATA_DEFAULT)
    lengths: list[Lengths] = (
        ["calibration-a", "azure"] if args.lengths == "both" else [args.lengths]
    )
    err = Console(stderr=True)
    if "azure" in lengths and not (data / "azure2023_conv_first30min.csv.gz").is_file():
        if args.lengths == "azure":
            raise Failure(
                "bad_request",
                f"The Azure trace is not in {data}.",
                hint=f"Name its folder with --data or ${DATA_VARIABLE}.",
            )
        err.print(f"No Azure trace in {data}: its lengths are left out, arrivals are Gamma.")
        lengths.remove("azure")
    plan = bench.Plan(
        rows=args.rows,
        lengths=lengths,
        seed=args.seed,
        curve=Curve().shortened(QUICK) if args.quick else Curve(),
        data=data if data.is_dir() else None,
    )
    with _Bar(err, len(plan.rows) * len(plan.lengths)) as bar:
        rows = uvloop.run(bench.run(RealWorld(), plan, bar.show))
    figures = report.figures(rows)
    if args.json:
        shown = {"seed": plan.seed, "quick": args.quick, "rows": rows, "figures": figures}
        print(msgspec.json.encode(shown).decode())
        return 0
    Console(width=None if sys.stdout.isatty() else 110).print(report.table(rows, plan))
    for line in report.remarks(rows) + figures:
        print(line)
    return 0


def _rows(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in ROWS:
            raise ArgumentTypeError(f"{name!r} is no row; there are {', '.join(ROWS)}")
    return chosen


class _Bar:
    """Progress on a terminal: which row, how many interactions, failures, time to go."""

    def __init__(self, console: "Console", rows: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._rows = rows
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, row: str, lengths: "Lengths", so_far: "Result", total: int) -> None:
        name = f"{row}, {lengths}"
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(
                f"{len(self._tasks) + 1}/{self._rows} {name}", total=total, state=""
            )
        failed = so_far.ended - so_far.completed
        self._progress.update(
            self._tasks[name],
            completed=so_far.ended,
            state=f"{so_far.in_flight} in flight, {failed} failed",
        )
