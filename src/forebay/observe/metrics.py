"""Prometheus metrics, counted in the back office from the records of all workers.

Counting there keeps the request path free of it, and makes one scrape of any worker the truth
about the whole machine. Names follow Prometheus' conventions; labels are few and bounded by
configuration, never by what callers send: a model is labelled as the provider's own name only
once it answered.
"""

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from forebay.observe.index import COLUMNS, Row

UP_HELP = "1 where the back office answered this scrape, else 0 and its metrics are missing."
_TTFT_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MAX_SERIES = 2_000

Labels = tuple[tuple[str, str], ...]


class Metrics:
    def __init__(self) -> None:
        self._counters: dict[str, Counter[Labels]] = {name: Counter() for name in _HELP}
        self._ttft = [0] * (len(_TTFT_BUCKETS_S) + 1)
        self._ttft_sum_s = 0.0

    def count(self, rows: Sequence[Row]) -> None:
        """Requests that ended, as their index rows. Sync, ~2 µs each."""
        for values in rows:
            row = dict(zip(COLUMNS, values, strict=True))
            who: Labels = (
                ("endpoint", row["endpoint"]),
                ("provider", row["provider"]),
                ("model", row["used"] if row["status"] == 200 else ""),
            )
            project = ("project", row["project"])
            ended = (("outcome", row["outcome"]), ("cache", row["cache"]))
            self._add("forebay_requests_total", (*who, *ended), 1)
            if row["saved_nusd"]:
                self._add("forebay_saved_nusd_total", (project,), row["saved_nusd"])
            if row["attempts"]:
                self._attempted(row, who, project)

    def _attempted(self, row: dict[str, Any], who: Labels, project: tuple[str, str]) -> None:
        self._add("forebay_attempts_total", who, row["attempts"])
        if row["cost_nusd"]:
            self._add("forebay_cost_nusd_total", (*who, project), row["cost_nusd"])
        self._add("forebay_input_tokens_total", who, row["tokens_in"])
        self._add("forebay_cached_tokens_total", who, row["tokens_cached"])
        self._add("forebay_output_tokens_total", who, row["tokens_out"])
        if row["outcome"] == "ok" and row["ttft_ns"]:
            seconds = row["ttft_ns"] / 1e9
            self._ttft_sum_s += seconds
            self._ttft[bisect.bisect_left(_TTFT_BUCKETS_S, seconds)] += 1

    def text(self) -> str:
        """In the text format, version 0.0.4."""
        lines = []
        for name, help_text in _HELP.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} counter"]
            for labels, value in self._counters[name].items():
                inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
                lines.append(f"{name}{{{inside}}} {value}")
        name = "forebay_first_byte_seconds"
        lines += [
            f"# HELP {name} From request to the first byte of a provider's answer.",
            f"# TYPE {name} histogram",
        ]
        total = 0
        for bound, count in zip((*_TTFT_BUCKETS_S, "+Inf"), self._ttft, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_sum {self._ttft_sum_s:.6f}", f"{name}_count {total}"]
        name = "forebay_back_office_up"
        lines += [f"# HELP {name} {UP_HELP}", f"# TYPE {name} gauge", f"{name} 1"]
        return "\n".join(lines) + "\n"

    def _add(self, name: str, labels: Labels, value: int) -> None:
        counter = self._counters[name]
        if labels not in counter and len(counter) >= MAX_SERIES:
            labels = tuple((key, "other") for key, _ in labels)
        counter[labels] += value


_HELP = {
    "forebay_requests_total": "Requests that ended, by outcome and cache.",
    "forebay_attempts_total": "Calls to providers.",
    "forebay_cost_nusd_total": "Spent, in nano-dollars.",
    "forebay_saved_nusd_total": "Not spent thanks to a cache, in nano-dollars.",
    "forebay_input_tokens_total": "Input tokens, those from a prompt cache among them.",
    "forebay_cached_tokens_total": "Input tokens read from a provider's prompt cache.",
    "forebay_output_tokens_total": "Output tokens.",
}


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
