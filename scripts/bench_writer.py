"""What recording a request costs the back office, in CPU and in bytes.

Records of a 5 KB request and a 2 KB answer, with fresh text each, go through the real Writer:
secrets looked for, written to a segment, indexed. The text is real, the sources of this
Python's standard library (prose and code), taken in turn and never twice: a shared system
prompt would flatter the sizes. CPU is user + system of this process, the median of the rounds;
an index with traces in it lies there already, since an empty one is faster.

`record_seal_us` is what it costs to compress a record properly later, when nothing waits;
`--levels` says what that would cost on the hot path instead.

    .venv/bin/python scripts/bench_writer.py [--batch 512] [--levels]
"""

import argparse
import random
import resource
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from forebay.observe import record as records
from forebay.observe import segments
from forebay.observe.upkeep import SEALED_BYTES
from forebay.observe.writer import STORED, Limits, Writer
from forebay.world import RealWorld
from records import chat

REQUEST_BYTES = 5_000
REPLY_BYTES = 2_000
#: What a request and an answer have around their text.
_AROUND = 420
SECRETS = {"OPENAI_API_KEY": b"sk-proj-" + b"Zq7wX" * 10}


def main() -> None:
    parser = argparse.ArgumentParser(description="What recording a request costs.")
    parser.add_argument("--batch", type=int, default=512, help="records handed over at once")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--filled", type=int, default=200_000, help="traces already there")
    parser.add_argument("--levels", action="store_true", help="what other levels would cost")
    args = parser.parse_args()
    texts = Texts()
    if args.levels:
        levels(texts)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        measure(Path(folder), texts, args.batch, args.rounds, args.filled)


def measure(folder: Path, texts: "Texts", batch: int, rounds: int, filled: int) -> None:
    # One segment for what is measured, so that sealing it is measured too.
    writer = Writer(folder, RealWorld(), secrets=SECRETS, limits=Limits(segment_bytes=1 << 40))
    fill(writer, filled)
    writer.close()
    writer = Writer(folder, RealWorld(), secrets=SECRETS, limits=Limits(segment_bytes=0))
    writer.write(texts.records(batch))  # a new segment
    writer._limits = Limits(segment_bytes=1 << 40)
    index = folder / "index.db"
    before = index.stat().st_size
    costs = []
    for _ in range(rounds):
        made = texts.records(batch)
        costs.append(cpu_us(partial(writer.write, made)) / batch)
    count = batch * (rounds + 1)
    writer._index.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index_bytes = (index.stat().st_size - before) / (batch * rounds)
    written = max(folder.glob("*.seg"))
    written_bytes = written.stat().st_size / count + index_bytes
    writer._close_segment()

    # Sealing both segments; the first is small records, so it is sealed before the clock starts.
    while writer._index.unsealed().get(1) is not None:
        writer.tidy()
    seal_us = cpu_us(partial(tidied, writer)) / count
    sealed_bytes = max(folder.glob("*-sealed.seg")).stat().st_size / count + index_bytes
    writer.close()

    print(f"{count:,} records of {REQUEST_BYTES:,} + {REPLY_BYTES:,} bytes, {batch} a batch,")
    print(f"onto {filled:,} traces; fastest round {min(costs):.1f} us")
    print(f"figure record_writer_us = {statistics.median(costs):.1f} us")
    print(f"figure record_bytes = {written_bytes:.0f} B")
    print(f"figure record_seal_us = {seal_us:.1f} us")
    print(f"figure record_sealed_bytes = {sealed_bytes:.0f} B")


def tidied(writer: Writer) -> None:
    while writer.tidy():
        pass


def cpu_us(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6


def levels(texts: "Texts") -> None:
    """Compression alone, of live blocks and of sealed ones."""
    made = texts.records(1024)
    for name, size in (("live", segments.BLOCK_BYTES), ("sealed", SEALED_BYTES)):
        count = size // len(made[0])
        payloads = [segments.pack(made[i : i + count]) for i in range(0, len(made), count)]
        for level in (STORED, -100, -20, 1, 3, 6):
            compress = zstandard.ZstdCompressor(level=level, write_checksum=True).compress
            costs = [cpu_us(partial(compressed, compress, payloads)) for _ in range(7)]
            total = sum(len(compress(payload)) for payload in payloads)
            print(
                f"{name:>6} blocks, level {level:>7}: {min(costs) / len(made):5.1f} us,"
                f" {total / len(made):5.0f} of {len(made[0])} B a record"
            )


def compressed(compress: Callable[[bytes], bytes], payloads: list[bytes]) -> None:
    for payload in payloads:
        compress(payload)


class Texts:
    """Pieces of the standard library's sources, one after the other."""

    def __init__(self) -> None:
        paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
        paths = [path for path in paths if "site-packages" not in path.parts]
        random.Random(7).shuffle(paths)
        self._text = "\n".join(path.read_text("utf-8", "replace") for path in paths)
        self._at = 0
        self._n = 0

    def take(self, size: int) -> str:
        if self._at + size > len(self._text):
            self._at = 0
        self._at += size
        return self._text[self._at - size : self._at]

    def records(self, count: int) -> list[bytes]:
        made = []
        for _ in range(count):
            self._n += 1
            question = self.take(REQUEST_BYTES - _AROUND)
            made.append(records.encode(chat(self._n, question, self.take(REPLY_BYTES - _AROUND))))
        return made


def fill(writer: Writer, count: int) -> None:
    """Traces with little content, so that the index is as large as it would be."""
    rng = random.Random(7)
    small = chat(1)
    for _ in range(count // 1024):
        batch = []
        for _ in range(1024):
            small.id = f"req_{rng.getrandbits(96):024x}"
            batch.append(records.encode(small))
        writer.write(batch)


if __name__ == "__main__":
    main()
