"""What recording a request costs the back office, in CPU and bytes.

Records of a 5 KB request and a 2 KB answer, with fresh text each, go through the real Writer:
secrets looked for, compressed, appended, indexed. The text is real: the sources of this
Python's standard library, prose and code, cut at random places and never twice (a shared
system prompt would flatter the figures). CPU is user + system of this process, the median of
five rounds; an index of 200,000 traces lies there already, since an empty one is faster.

    .venv/bin/python scripts/bench_writer.py [--batch 256] [--levels]

`record_seal_us` is what compressing a record properly costs later, when nothing waits;
`--levels` prints what other levels would cost in its place.
"""

import argparse
import os
import random
import resource
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from forebay.observe import record as records
from forebay.observe import segments
from forebay.observe.writer import FAST_LEVEL, Writer
from forebay.observe.upkeep import SEAL_LEVEL
from forebay.world import RealWorld

REQUEST_BYTES = 5_000
REPLY_BYTES = 2_000
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=512, help="records handed over at once")
    parser.add_argument("--records", type=int, default=4096, help="records a round")
    parser.add_argument("--filled", type=int, default=200_000, help="traces already there")
    parser.add_argument("--levels", action="store_true", help="what other levels would cost")
    args = parser.parse_args()
    texts = Texts()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        writer = Writer(
            Path(folder), RealWorld(), secrets={"OPENAI_API_KEY": b"sk-proj-" + b"Zq7" * 16}
        )
        fill(writer, args.filled)
        costs = []
        for _ in range(ROUNDS):
            batches = [texts.records(args.batch) for _ in range(args.records // args.batch)]
            costs.append(cpu_us(lambda: [writer.write(batch) for batch in batches]) / args.records)  # noqa: B023
        raw = writer.counts.raw_bytes
        before, count = writer.counts.written_bytes, args.records * ROUNDS
        print(writer.describe(), f"{args.batch} a batch")
        print(f"figure record_writer_us = {statistics.median(costs):.1f} us")
        writer.close()
    del raw, before, count


def cpu_us(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6


class Texts:
    """Pieces of the standard library's sources, each given once."""

    def __init__(self) -> None:
        stdlib = Path(sysconfig.get_path("stdlib"))
        paths = sorted(p for p in stdlib.rglob("*.py") if "site-packages" not in p.parts)
        rng = random.Random(7)
        rng.shuffle(paths)
        self._text = "\n".join(
            p.read_text("utf-8", "replace") for p in paths if "idlelib" not in p.parts
        )
        self._at = 0
        self._n = 0

    def take(self, size: int) -> str:
        if self._at + size > len(self._text):
            self._at = 0
        piece = self._text[self._at : self._at + size]
        self._at += size
        return piece

    def records(self, count: int) -> list[bytes]:
        from records import chat

        made = []
        for _ in range(count):
            self._n += 1
            made.append(
                records.encode(
                    chat(self._n, self.take(REQUEST_BYTES - 400), self.take(REPLY_BYTES - 400))
                )
            )
        return made


def fill(writer: Writer, count: int) -> None:
    """Small records, so that the index is as large as it would be."""
    from records import chat

    small = [records.decode(records.encode(chat(1)))]
    for start in range(1, count, 1024):
        batch = []
        for n in range(start, start + 1024):
            small[0].id = f"req_{random.getrandbits(96):024x}"
            batch.append(records.encode(small[0]))
        writer.write(batch)


if __name__ == "__main__":
    main()
