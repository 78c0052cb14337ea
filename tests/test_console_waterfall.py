"""Given the marks of an exchange, then its bars lie on the axis in the order they happened."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.console.waterfall import WIDTH, Waterfall, waterfall
from forebay.observe.record import Record
from records import MS, attempted, cache_hit, changed, chat, chat_stream, failover, unreachable


def shape(fall: Waterfall) -> list[tuple[str, list[tuple[str, int, int]]]]:
    return [
        (row.label, [(bar.kind, bar.start_ns // MS, bar.end_ns // MS) for bar in row.bars])
        for row in fall.rows
    ]


def test_a_stream_has_the_gateway_its_attempt_and_the_reply() -> None:
    fall = waterfall(chat_stream())

    assert shape(fall) == [
        ("gateway", [("own", 0, 0), ("own", 0, 0), ("own", 0, 0)]),
        ("1. openai", [("connect", 0, 418), ("wait", 418, 440), ("content", 440, 620)]),
        ("reply", [("reply", 421, 621)]),
    ]
    assert fall.total_ns == 621 * MS
    assert [tick.label for tick in fall.ticks] == ["0", "200 ms", "400 ms", "600 ms"]


def test_each_attempt_has_its_row() -> None:
    assert [row.label for row in waterfall(failover()).rows] == [
        "gateway", "1. azure", "2. openai", "reply",
    ]  # fmt: skip


def test_an_attempt_without_an_answer_is_lost_time() -> None:
    assert shape(waterfall(unreachable()))[1] == ("1. openai", [("lost", 0, 30_000)])


def test_a_head_without_content_is_lost_from_there() -> None:
    record = changed(
        chat(), attempts=[attempted("openai", "m", head_ns=100 * MS, first_ns=0, ended_ns=900 * MS)]
    )

    assert shape(waterfall(record))[1] == ("1. openai", [("connect", 0, 100), ("lost", 100, 900)])


def test_a_hit_has_no_attempt() -> None:
    assert [row.label for row in waterfall(cache_hit()).rows] == ["gateway", "reply"]


def test_a_caller_that_left_before_a_byte_has_no_reply() -> None:
    assert [row.label for row in waterfall(changed(unreachable(), first_ns=0)).rows] == [
        "gateway", "1. openai",
    ]  # fmt: skip


def test_bars_follow_each_other_where_they_touch() -> None:
    bars = waterfall(chat_stream()).rows[1].bars

    for before, after in itertools.pairwise(bars):
        assert before.x + before.width == pytest.approx(after.x, abs=0.02)


marks = st.integers(0, 2**63 - 1) | st.integers(0, 10**10)


@given(st.lists(marks, min_size=9, max_size=9))
def test_any_marks_give_bars_inside_the_picture(ns: list[int]) -> None:
    attempt = msgspec.structs.replace(
        attempted("openai", "m"), started_ns=ns[0], head_ns=ns[1], first_ns=ns[2], ended_ns=ns[3]
    )
    record: Record = changed(
        chat(),
        attempts=[attempt],
        decoded_ns=ns[4],
        identified_ns=ns[5],
        planned_ns=ns[6],
        first_ns=ns[7],
        ended_ns=ns[8],
    )

    fall = waterfall(record)

    for row in fall.rows:
        for bar in row.bars:
            assert 0 <= bar.x <= WIDTH
            assert 0 < bar.width <= WIDTH
            assert bar.x + bar.width <= WIDTH + 0.02
    assert 1 <= len(fall.ticks) <= 12
    assert all(0 <= tick.x <= WIDTH for tick in fall.ticks)
