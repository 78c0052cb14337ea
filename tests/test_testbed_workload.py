import itertools
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.load.workload import (
    TRACE_FILE,
    Arrival,
    ChatBodies,
    Curve,
    Prompts,
    build,
)
from forebay.testbed.twins.openai_chat import question


def test_the_curve_gives_ten_thousand_in_240_seconds() -> None:
    curve = Curve()
    assert curve.before_s == 100.0
    assert [curve.time_of(count) for count in (0, 2_500, 7_500, 10_000)] == [0, 100, 140, 240]
    assert curve.shortened(0.2).before_s == 20.0


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_time_goes_forward_along_the_curve(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert Curve().time_of(low) <= Curve().time_of(high) + 1e-9


def test_the_gamma_fallback_says_so_and_is_as_uneven_as_the_trace() -> None:
    workload = build("calibration-a", 3, None)
    assert workload.name == "calibration-a (Gamma arrivals)"
    assert "not at hand" in workload.notes[0]
    assert len(workload.arrivals) == 10_000
    assert {(a.input_tokens, a.output_tokens) for a in workload.arrivals} == {(1_125, 375)}
    times = [a.at_s for a in workload.arrivals if a.at_s < 100]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 25, rel=0.1)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1.09, rel=0.1)
    assert build("calibration-a", 3, None) == workload
    assert build("calibration-a", 4, None) != workload


def test_the_azure_lengths_are_refused_without_the_trace() -> None:
    with pytest.raises(FileNotFoundError, match="not at hand"):
        build("azure", 3, Path("/nowhere/trace.csv.gz"))


def test_the_trace_keeps_its_order_and_gets_our_rate(shared_data: Path) -> None:
    trace = shared_data / TRACE_FILE
    workload = build("azure", 1, trace)
    times = [a.at_s for a in workload.arrivals]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(240.0)
    in_spike = sum(100 <= at < 140 for at in times)
    assert in_spike == pytest.approx(5_000, rel=0.06)
    assert statistics.mean(a.output_tokens for a in workload.arrivals) == pytest.approx(217, abs=3)
    assert max(a.output_tokens for a in workload.arrivals) <= 1_000
    fixed = build("calibration-a", 1, trace)
    assert [a.at_s for a in fixed.arrivals] == times
    short = build("calibration-a", 1, trace, Curve().shortened(0.2))
    assert len(short.arrivals) == 2_000
    assert short.span_s == pytest.approx(48.0)


@given(st.integers(0, 100_000), st.integers(6, 8_000), st.integers(1, 1_000))
def test_a_prompt_has_exactly_its_tokens_and_asks_for_its_answer(
    number: int, tokens: int, output: int
) -> None:
    arrival = Arrival(number, 0.0, tokens, output)
    body = ChatBodies(PROMPTS, "m").body(arrival)
    asked = question(body)

    assert (asked.tokens, asked.wanted_tokens, asked.stream) == (tokens, output, True)
    assert json.loads(body)["max_tokens"] == 1_024
    extended = question(ChatBodies(PROMPTS, "m", lambda _: b"found " * 400).body(arrival))
    assert (extended.tokens, extended.wanted_tokens) == (tokens + 600, output)


PROMPTS = Prompts(5)


def test_prompts_are_fresh_and_repeatable() -> None:
    arrivals = [Arrival(number, 0.0, 1_125, 375) for number in range(500)]
    prompts = [PROMPTS.prompt(arrival) for arrival in arrivals]
    assert len({prompt[:8] for prompt in prompts}) == 500
    again = Prompts(5)
    assert prompts == [again.prompt(arrival) for arrival in arrivals]
