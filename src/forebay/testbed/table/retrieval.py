"""Basic retrieval, as a direct wrapper would add it: what it adds in tokens and in time.

A small real search: the 5,183 abstracts of SciFact (Wadden et al. 2020; abstracts ODC-By
1.0) in an SQLite full-text index, the claims of its test split as queries, BM25, best five.
The time of each search is measured here, once, before the run; each interaction then waits
such a time and carries 700 tokens of what was found. Where the data set is not at hand the
search time is a stated constant and the text is filler, and the row's note says so.
"""

import gzip
import json
import re
import sqlite3
from pathlib import Path

import msgspec

from forebay.testbed.load.workload import Arrival, Workload
from forebay.testbed.twins.text import BYTES_PER_TOKEN
from forebay.world import World

ADDED_TOKENS = 700
_ADDED_BYTES = ADDED_TOKENS * BYTES_PER_TOKEN
_BEST = 5
#: where nothing can be measured: 20 ms, about a local index's p99 of 5,000 documents
STATED_SEARCH_S = 0.02
_NOT_PLAIN = re.compile(r'[^ -~]|["\\]')


class Retrieval(msgspec.Struct, frozen=True):
    """Found texts, and how long each search took; used in turn."""

    texts: list[bytes]
    search_s: list[float]
    note: str

    def extra(self, arrival: Arrival) -> bytes:
        """What is put before a prompt: exactly 700 tokens, JSON-safe."""
        return self.texts[arrival.number % len(self.texts)]

    def delayed(self, workload: Workload) -> Workload:
        """The same workload, each request after its search."""
        arrivals = [
            msgspec.structs.replace(
                arrival, before_s=self.search_s[arrival.number % len(self.search_s)]
            )
            for arrival in workload.arrivals
        ]
        return msgspec.structs.replace(workload, arrivals=arrivals)


def measure(world: World, scifact: Path | None, searches: int = 300) -> Retrieval:
    """Build the index, search the first test claims. ~8 s with the data set."""
    if scifact is None or not (scifact / "corpus.jsonl.gz").is_file():
        return Retrieval(
            [_exactly("No document was at hand. ")],
            [STATED_SEARCH_S],
            f"SciFact is not at hand: search time is a stated {STATED_SEARCH_S * 1000:.0f} ms.",
        )
    index = sqlite3.connect(":memory:")
    index.execute("CREATE VIRTUAL TABLE doc USING fts5(title, text, tokenize = 'porter')")
    with gzip.open(scifact / "corpus.jsonl.gz", "rt", encoding="utf-8") as corpus:
        rows = (json.loads(line) for line in corpus)
        index.executemany("INSERT INTO doc VALUES (?, ?)", ((r["title"], r["text"]) for r in rows))
    texts, times = [], []
    queries = (scifact / "queries.test.jsonl").read_text("utf-8").splitlines()
    for line in queries[:searches]:
        query = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", json.loads(line)["text"]))
        start_ns = world.now_ns()
        found = index.execute(
            "SELECT text FROM doc WHERE doc MATCH ? ORDER BY bm25(doc) LIMIT ?", (query, _BEST)
        ).fetchall()
        times.append((world.now_ns() - start_ns) / 1e9)
        texts.append(_exactly(" ".join(text for (text,) in found)))
    index.close()
    mean_ms = sum(times) / len(times) * 1000
    return Retrieval(
        texts,
        times,
        f"search: BM25 over {len(texts)} SciFact claims, SQLite FTS5, mean {mean_ms:.1f} ms, "
        f"measured in this run; adds {ADDED_TOKENS} tokens.",
    )


def _exactly(text: str) -> bytes:
    """Text as plain ASCII that needs no escape, cut or repeated to 2,800 bytes."""
    plain = _NOT_PLAIN.sub(" ", text).encode() or b"nothing found "
    return (plain * (_ADDED_BYTES // len(plain) + 1))[:_ADDED_BYTES]
