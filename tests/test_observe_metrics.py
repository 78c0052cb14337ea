"""Prometheus metrics: sums of the index rows, with labels that callers cannot make."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forebay.observe.index import COLUMNS, Row
from forebay.observe.metrics import MAX_SERIES, Metrics

DEFAULTS: dict[str, Any] = {
    "endpoint": "chat",
    "provider": "openai",
    "used": "gpt-x",
    "project": "web",
    "outcome": "ok",
    "cache": "miss",
    "status": 200,
    "attempts": 1,
    "cost_nusd": 100,
    "saved_nusd": 0,
    "ttft_ns": 20_000_000,
    "tokens_in": 10,
    "tokens_cached": 4,
    "tokens_out": 5,
}
LINE = re.compile(r'^([a-z_]+)(\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$')


def row(**values: Any) -> Row:
    known = DEFAULTS | values
    return tuple(known.get(column) for column in COLUMNS)


def counted(*rows: Row) -> Metrics:
    metrics = Metrics()
    metrics.count(rows)
    return metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """The text as a scraper reads it; every line must be one of the format."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    for line in metrics.text().splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        if line.startswith("#"):
            continue
        match = LINE.match(line)
        assert match is not None, line
        name = match[1]
        assert re.sub(r"_(bucket|sum|count)$", "", name) in typed or name in typed
        key = f"{name}{match[2] or ''}"
        assert key not in found
        found[key] = float(match[4])
    return found


WHO = '{endpoint="chat",provider="openai",model="gpt-x"}'


def test_a_request_is_counted_in_every_metric() -> None:
    found = samples(counted(row(), row()))
    everything = (
        '{endpoint="chat",provider="openai",model="gpt-x",project="web",outcome="ok",cache="miss"}'
    )
    assert found[f"forebay_requests_total{everything}"] == 2
    assert found[f"forebay_attempts_total{WHO}"] == 2
    assert found['forebay_cost_nusd_total{provider="openai",model="gpt-x",project="web"}'] == 200
    assert found[f"forebay_input_tokens_total{WHO}"] == 20
    assert found[f"forebay_cached_tokens_total{WHO}"] == 8
    assert found[f"forebay_output_tokens_total{WHO}"] == 10
    assert found["forebay_back_office_up"] == 1


def test_what_the_cache_saved_was_not_spent() -> None:
    hit = row(cache="exact", attempts=0, cost_nusd=0, saved_nusd=100, provider="", used="")
    found = samples(counted(row(), hit))
    assert found['forebay_saved_nusd_total{project="web"}'] == 100
    assert sum(v for k, v in found.items() if k.startswith("forebay_cost_nusd_total")) == 100
    assert sum(v for k, v in found.items() if k.startswith("forebay_attempts_total")) == 1


def test_a_cost_that_nobody_knows_is_none() -> None:
    found = samples(counted(row(cost_nusd=None)))
    assert not any(name.startswith("forebay_cost") for name in found)


def test_a_name_that_no_provider_answered_to_is_no_label() -> None:
    made_up = [row(used=f"made-up-{n}", status=404, outcome="provider_error") for n in range(50)]
    found = samples(counted(*made_up))
    assert not any("made-up" in name for name in found)
    assert sum(v for k, v in found.items() if k.startswith("forebay_requests_total")) == 50


def test_series_are_bounded_and_nothing_is_lost() -> None:
    many = [row(used=f"model-{n}") for n in range(MAX_SERIES + 500)]
    metrics = counted(*many)
    found = samples(metrics)
    requests = {k: v for k, v in found.items() if k.startswith("forebay_requests_total")}
    assert len(requests) == MAX_SERIES + 1
    assert sum(requests.values()) == len(many)
    assert max(requests, key=lambda name: requests[name]).count('"other"') == 6


def test_a_histogram_counts_upwards() -> None:
    times = [5, 10, 11, 900, 70_000]
    found = samples(counted(*(row(ttft_ns=ms * 1_000_000) for ms in times)))
    name = "forebay_first_byte_seconds"
    assert found[f'{name}_bucket{{le="0.01"}}'] == 2
    assert found[f'{name}_bucket{{le="0.05"}}'] == 3
    assert found[f'{name}_bucket{{le="1.0"}}'] == 4
    assert found[f'{name}_bucket{{le="60.0"}}'] == 4
    assert found[f'{name}_bucket{{le="+Inf"}}'] == found[f"{name}_count"] == 5
    assert found[f"{name}_sum"] == sum(times) / 1000


def test_what_failed_or_came_from_the_cache_has_no_first_byte() -> None:
    found = samples(counted(row(outcome="truncated"), row(attempts=0), row(ttft_ns=0)))
    assert found["forebay_first_byte_seconds_count"] == 0


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.sampled_from(
    ['"', "\\", "\n", '\\"', "\\n", '"} 1\nevil 2', "a,b"]
)


@given(st.lists(st.tuples(TEXT, TEXT, st.integers(0, 10**15)), max_size=8))
def test_any_label_is_one_line_of_the_format(rows: list[tuple[str, str, int]]) -> None:
    metrics = counted(*(row(used=m, project=p, cost_nusd=c) for m, p, c in rows))
    lines = metrics.text().split("\n")
    assert lines[-1] == ""
    kept = [line for line in lines if line.startswith("forebay_requests_total")]
    assert sum(int(line.rsplit(" ", 1)[1]) for line in kept) == len(rows)
    assert not any(line.startswith("evil") for line in lines)


def test_an_empty_scrape_is_one() -> None:
    found = samples(Metrics())
    assert found["forebay_back_office_up"] == 1
    assert found["forebay_first_byte_seconds_count"] == 0
