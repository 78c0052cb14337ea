"""Prometheus metrics, counted in the back office from the records of all workers.

Counting there keeps the request path free of it, and makes one scrape of any worker the truth
about the whole machine. One table holds everything: sums for each combination of the labels,
from which each metric is read when it is asked for. Labels are bounded: what callers send is
never one, and past `MAX_SERIES` combinations the rest are counted as `other`.
"""

import bisect
from collections.abc import Iterator, Sequence

from forebay.observe.index import COLUMNS, Row

_TTFT_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MAX_SERIES = 2_000

_LABELS = ("endpoint", "provider", "model", "project", "outcome", "cache")
_OTHER = ("other",) * len(_LABELS)
_Key = tuple[str, ...]

#: metric → (help, the labels it is given by); in the order of a combination's sums
_HELP: dict[str, tuple[str, tuple[str, ...]]] = {
    "forebay_requests_total": ("Requests that ended.", _LABELS),
    "forebay_attempts_total": ("Calls to providers.", ("endpoint", "provider", "model")),
    "forebay_cost_nusd_total": ("Spent, in nano-dollars.", ("provider", "model", "project")),
    "forebay_saved_nusd_total": (
        "Not spent thanks to a cache, in nano-dollars.",
        ("project",),
    ),
    "forebay_input_tokens_total": (
        "Input tokens, those from a prompt cache among them.",
        ("endpoint", "provider", "model"),
    ),
    "forebay_cached_tokens_total": (
        "Input tokens read from a provider's prompt cache.",
        ("endpoint", "provider", "model"),
    ),
    "forebay_output_tokens_total": ("Output tokens.", ("endpoint", "provider", "model")),
}
_TTFT = "forebay_first_byte_seconds"
TTFT_HELP = "From request to the first byte of a provider's answer."
UP_HELP = "Whether the worker that was asked reaches the back office."

_at = {name: number for number, name in enumerate(COLUMNS)}
_ENDPOINT, _PROVIDER, _USED, _PROJECT = (
    _at[name] for name in ("endpoint", "provider", "used", "project")
)
_OUTCOME, _CACHE, _STATUS = (_at[name] for name in ("outcome", "cache", "status"))
_ATTEMPTS, _COST, _SAVED, _FIRST = (
    _at[name] for name in ("attempts", "cost_nusd", "saved_nusd", "ttft_ns")
)
_IN, _CACHED, _OUT = (_at[name] for name in ("tokens_in", "tokens_cached", "tokens_out"))


class Metrics:
    def __init__(self) -> None:
        self._sums: dict[_Key, list[int]] = {}
        self._ttft = [0] * (len(_TTFT_BUCKETS_S) + 1)
        self._ttft_sum_s = 0.0

    def count(self, rows: Sequence[Row]) -> None:
        """Requests that ended, as their index rows. Sync, ~1 µs each."""
        table = self._sums
        for row in rows:
            # A model is a label once it has answered: until then callers choose the name.
            used = row[_USED] if row[_STATUS] == 200 else ""
            outcome = row[_OUTCOME]
            key = (row[_ENDPOINT], row[_PROVIDER], used, row[_PROJECT], outcome, row[_CACHE])
            sums = table.get(key)
            if sums is None:
                sums = self._new(key)
            sums[0] += 1
            sums[3] += row[_SAVED]
            if attempts := row[_ATTEMPTS]:
                sums[1] += attempts
                sums[2] += row[_COST] or 0
                sums[4] += row[_IN]
                sums[5] += row[_CACHED]
                sums[6] += row[_OUT]
                if outcome == "ok" and row[_FIRST]:
                    seconds = row[_FIRST] / 1e9
                    self._ttft_sum_s += seconds
                    self._ttft[bisect.bisect_left(_TTFT_BUCKETS_S, seconds)] += 1

    def text(self) -> str:
        """In the text format, version 0.0.4."""
        lines = []
        for number, (name, (help_text, labels)) in enumerate(_HELP.items()):
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} counter"]
            lines += [f"{name}{shown} {value}" for shown, value in self._series(number, labels)]
        lines += [
            f"# HELP {_TTFT} {TTFT_HELP}",
            f"# TYPE {_TTFT} histogram",
        ]
        total = 0
        for bound, count in zip((*_TTFT_BUCKETS_S, "+Inf"), self._ttft, strict=True):
            total += count
            lines.append(f'{_TTFT}_bucket{{le="{bound}"}} {total}')
        lines += [f"{_TTFT}_sum {self._ttft_sum_s:.6f}", f"{_TTFT}_count {total}"]
        lines += [
            f"# HELP forebay_back_office_up {UP_HELP}",
            "# TYPE forebay_back_office_up gauge",
            "forebay_back_office_up 1",
        ]
        return "\n".join(lines) + "\n"

    def _new(self, key: _Key) -> list[int]:
        if len(self._sums) >= MAX_SERIES:
            key = _OTHER
        return self._sums.setdefault(key, [0] * len(_HELP))

    def _series(self, number: int, labels: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        """A metric's sums by its own labels."""
        chosen = [_LABELS.index(label) for label in labels]
        found: dict[_Key, int] = {}
        for key, sums in self._sums.items():
            if value := sums[number]:
                mine = tuple(key[at] for at in chosen)
                found[mine] = found.get(mine, 0) + value
        for mine, value in found.items():
            pairs = zip(labels, mine, strict=True)
            yield "{" + ",".join(f'{k}="{_escape(text)}"' for k, text in pairs) + "}", value


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
