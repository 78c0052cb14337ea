"""Each dialect's arithmetic of tokens, and what cannot be true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dialects_kit import Json, body
from forebay.dialects import usage
from forebay.dialects.usage import (
    usage_from_chat,
    usage_from_embeddings,
    usage_from_messages,
    usage_from_responses,
)
from forebay.schema.usage import Usage

counts = st.integers(0, 10**8)
usages = st.builds(
    lambda i, r, w, o, share: Usage(i, r, w, o, o * share // 100),
    counts,
    counts,
    counts,
    counts,
    st.integers(0, 100),
)


@given(usages)
def test_usage_written_in_a_dialect_and_read_again_is_itself(given_: Usage) -> None:
    assert usage_from_chat(usage.as_chat(given_)) == given_
    assert usage_from_messages(usage.as_messages(given_)) == given_
    assert usage_from_messages(body(usage.as_messages_delta(given_))) == given_


def test_openai_counts_the_cache_inside_the_prompt() -> None:
    report = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    expected = Usage(30, 60, 10, 20, 8)
    assert usage_from_chat(report) == expected
    assert usage_from_chat(body(report)) == expected
    assert usage_from_chat(Raw(body(report))) == expected


def test_anthropic_counts_the_cache_beside_the_input() -> None:
    report = {
        "input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 8},
    }
    assert usage_from_messages(report) == Usage(30, 60, 10, 20, 8)
    assert usage_from_messages({"input_tokens": 30, "output_tokens": 20}) == Usage(30, 0, 0, 20)


def test_responses_and_embeddings_have_names_of_their_own() -> None:
    report = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 120,
    }
    assert usage_from_responses(report) == Usage(40, 60, 0, 20, 8)
    assert usage_from_embeddings({"prompt_tokens": 7, "total_tokens": 7}) == Usage(7)


def test_deepseeks_old_name_for_the_cache_is_read() -> None:
    report = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}
    assert usage_from_chat(report) == Usage(6, 4, 0, 1)


def test_reasoning_beside_the_completion_is_output_all_the_same() -> None:
    report = {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
    }
    assert usage_from_chat(report) == Usage(32, 0, 0, 103, 94)


CHAT: Json = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
MESSAGES: Json = {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.parametrize("bad", [-1, 1.5, "5", True, 10**9 + 1, [], {}])
def test_a_count_that_cannot_be_is_no_report(bad: object) -> None:
    for name in ("prompt_tokens", "completion_tokens"):
        assert usage_from_chat(CHAT | {name: bad}) is None
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
        assert usage_from_messages(MESSAGES | {name: bad}) is None
        assert usage_from_responses({**MESSAGES, "input_tokens": bad}) is None
    assert usage_from_embeddings({"prompt_tokens": bad}) is None
    details = {"prompt_tokens_details": {"cached_tokens": bad}}
    assert usage_from_chat(CHAT | details) is None


@pytest.mark.parametrize(
    "report",
    [
        CHAT | {"prompt_tokens_details": {"cached_tokens": 11}},
        CHAT | {"prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 6}},
        CHAT | {"prompt_tokens_details": "some"},
        CHAT | {"completion_tokens_details": {"reasoning_tokens": 6}},
        {"prompt_tokens": 10},
        {"prompt_tokens": None, "completion_tokens": 5},
        {},
    ],
)
def test_a_report_that_does_not_add_up_is_none(report: Json) -> None:
    assert usage_from_chat(report) is None


def test_more_thinking_than_output_is_no_report() -> None:
    details = {"output_tokens_details": {"thinking_tokens": 6}}
    assert usage_from_messages(MESSAGES | details) is None


@pytest.mark.parametrize("nothing", [None, b"", b"null", b"[]", b"{", Raw(b""), Raw(b"null"), b"5"])
def test_what_is_no_object_is_no_report(nothing: Any) -> None:
    assert usage_from_chat(nothing) is None
    assert usage_from_messages(nothing) is None
    assert usage_from_responses(nothing) is None
    assert usage_from_embeddings(nothing) is None


def test_later_counts_of_a_stream_replace_earlier_ones_but_null_does_not() -> None:
    older = {"input_tokens": 10, "output_tokens": 1}
    newer = usage.newer(older, body({"input_tokens": None, "output_tokens": 9, "x": 1}))
    assert newer == {"input_tokens": 10, "output_tokens": 9, "x": 1}
    assert usage.newer(older, b"nonsense") == older
    assert usage.newer(older, None) == older
