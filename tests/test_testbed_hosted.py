import statistics
from math import exp

import pytest

from forebay.testbed.twins.facts import PRESETS, Hosted
from forebay.testbed.twins.hosted import HostedModel, rfc3339, span, usage
from forebay.testbed.twins.luck import Luck
from forebay.testbed.twins.prompt_cache import Split
from forebay.testbed.twins.question import Question, Refused

S = 1_000_000_000


def question(tokens: int, max_tokens: int | None = None) -> Question:
    return Question(model="m", prompt=b"x" * tokens * 4, tokens=tokens, max_tokens=max_tokens)


def model(anthropic: bool = False, **facts: float) -> HostedModel:
    return HostedModel("m", Hosted(**facts), anthropic, 0)  # type: ignore[arg-type]


def test_openai_counts_the_larger_of_bound_and_prompt() -> None:
    hosted = model(tpm=6_000, burst_s=60)
    hosted.admit(question(100, max_tokens=1_000), 10, 0)
    hosted.admit(question(2_000, max_tokens=1_000), 10, 0)

    assert hosted.tokens.bucket is not None
    assert hosted.tokens.bucket.used == 3_000


def test_anthropic_counts_uncached_input_and_output_apart() -> None:
    hosted = model(anthropic=True, tpm=60_000, output_tpm=6_000, burst_s=60)
    asked = question(2_000, max_tokens=100_000)
    asked.blocks = asked.cache_marks = [8_000]
    hosted.admit(asked, 50, 0)
    assert hosted.tokens.bucket is not None
    assert hosted.output.bucket is not None
    assert (hosted.tokens.bucket.used, hosted.output.bucket.used) == (2_000, 50)
    hosted.admit(asked, 50, 0)
    assert (hosted.tokens.bucket.used, hosted.output.bucket.used) == (2_000, 100)


def test_a_refusal_says_when_and_after_that_it_fits() -> None:
    hosted = model(tpm=60_000, burst_s=1)
    hosted.admit(question(900), 1, 0)
    with pytest.raises(Refused, match=r"try again in 0\.3s") as refused:
        hosted.admit(question(900), 1, S // 2)  # 100 were left, 500 have come back
    assert refused.value.status == 429
    assert refused.value.headers == [("retry-after", "1"), ("retry-after-ms", "300")]

    with pytest.raises(Refused):
        hosted.admit(question(900), 1, S // 2 + 299_000_000)
    hosted.admit(question(900), 1, S // 2 + 300_000_000)


def test_more_than_a_minute_holds_is_refused_without_a_time() -> None:
    hosted = model(tpm=1_000)
    with pytest.raises(Refused, match=r"Limit 1000, Requested 1001\.") as refused:
        hosted.admit(question(1_001), 1, 0)
    assert refused.value.headers == []


def test_load_grows_with_the_last_minute_and_is_capped() -> None:
    hosted = model(rpm=100, burst_s=60)
    factors = []
    for _ in range(100):
        factors.append(hosted.load(0))
        hosted.admit(question(1), 1, 0)
    assert factors[0] == 1.0
    assert factors[50] == 2.0
    assert factors[75] == 4.0
    assert factors[99] == hosted.load(0) == 5.0
    assert hosted.load(61 * S) == 1.0


def test_first_tokens_are_log_normal_and_speeds_normal() -> None:
    facts = PRESETS["frontier"]
    assert isinstance(facts, Hosted)
    hosted = HostedModel("m", facts, False, 0)
    luck = Luck(1)
    plans = [
        hosted.plan(Split(0), luck.draw(number.to_bytes(8, "big")), 0) for number in range(4_000)
    ]
    firsts = sorted(plan.first_s for plan in plans)
    speeds = [plan.tokens_per_event / plan.event_s for plan in plans]

    assert firsts[2_000] == pytest.approx(0.9, rel=0.05)
    assert firsts[3_800] / firsts[2_000] == pytest.approx(exp(1.645 * 0.45), rel=0.1)
    assert statistics.mean(speeds) == pytest.approx(60, rel=0.01)
    assert statistics.stdev(speeds) == pytest.approx(9, rel=0.05)


def test_cached_tokens_take_a_tenth_of_the_time() -> None:
    hosted = model(ttft_median_s=0.0, prefill_ms_per_1k=50)
    draw = Luck(1).draw(b"q")
    assert hosted.plan(Split(10_000), draw, 0).first_s == pytest.approx(0.5)
    assert hosted.plan(Split(0, read=10_000), draw, 0).first_s == pytest.approx(0.05)
    assert hosted.plan(Split(0, written=10_000), draw, 0).first_s == pytest.approx(0.5)


def test_luck_is_of_the_question_not_of_the_hour() -> None:
    one, other = Luck(5), Luck(5)
    first = [one.draw(b"a").uniform(0), one.draw(b"b").uniform(0), one.draw(b"a").uniform(0)]
    turned = [other.draw(b"b").uniform(0), other.draw(b"a").uniform(0), other.draw(b"a").uniform(0)]

    assert first == [turned[1], turned[0], turned[2]]
    assert len(set(first)) == 3
    assert Luck(6).draw(b"a").uniform(0) != first[0]


def test_limit_headers_speak_each_dialect() -> None:
    hosted = model(rpm=600, tpm=60_000)
    hosted.admit(question(1_000), 1, 0)
    assert dict(hosted.limit_headers(0)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "59000",
        "x-ratelimit-reset-tokens": "1s",
    }
    hosted = model(anthropic=True, rpm=600, tpm=60_000)
    hosted.admit(question(1_000), 1, 0)
    assert dict(hosted.limit_headers(1_767_225_600 * S))[
        "anthropic-ratelimit-input-tokens-reset"
    ] == ("2026-01-01T00:00:01Z")


def test_spans_and_times_are_written_as_providers_write_them() -> None:
    assert span(0) == "0ms"
    assert span(12_000_000) == "12ms"
    assert span(1_500_000_000) == "1.5s"
    assert span(360 * S) == "6m0s"
    assert rfc3339(1) == "1970-01-01T00:00:01Z"


def test_a_bill_counts_each_kind_of_token() -> None:
    rates = PRESETS["frontier"].rates
    assert rates.cost_nusd(usage(Split(1_125), 375)) == 15_000_000
    assert rates.cost_nusd(usage(Split(101, read=1_024), 375)) == 101 * 5_000 + 1_024 * 500 + (
        375 * 25_000
    )
