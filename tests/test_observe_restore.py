"""Given a record whose bytes are stored once, when it is restored, then both wires have exactly
the bytes they had."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.observe import record as records
from forebay.observe import restore
from forebay.observe.record import Body, Record, Splice
from forebay.wire import members
from records import (
    cache_hit,
    changed,
    chat,
    chat_stream,
    chunked,
    converted,
    every_kind,
    messages,
    whole,
)


def test_what_the_provider_was_sent_differs_only_by_the_splices() -> None:
    record = chat()

    sent = json.loads(restore.sent(record, record.attempts[0]).data)

    assert sent == json.loads(record.body.data) | {"model": "gpt-5-mini"}


def test_what_a_conversion_sent_is_there_as_it_was() -> None:
    record = converted()

    assert json.loads(restore.sent(record, record.attempts[0]).data)["max_tokens"] == 256
    assert json.loads(restore.reply(record).data)["object"] == "chat.completion"


def test_a_reply_that_passed_is_the_answer_with_its_chunks() -> None:
    record = messages()

    assert restore.reply(record) == record.attempts[0].body


def test_a_reply_from_the_cache_is_its_own() -> None:
    assert restore.reply(cache_hit()) == chat().attempts[0].body


def test_a_withheld_chunk_is_missing_from_the_reply_and_from_its_cuts() -> None:
    record = chat_stream()
    answer = record.attempts[0].body

    reply = restore.reply(record)

    assert b'"usage"' in answer.data
    assert b'"usage"' not in reply.data
    assert reply.data.endswith(b"data: [DONE]\n\n")
    for (end, at_us), (answer_end, answer_at_us) in zip(
        restore.cuts(reply), restore.cuts(answer), strict=True
    ):
        assert at_us == answer_at_us
        if answer_end <= answer.data.index(b'"usage"'):
            assert end == answer_end
    assert restore.cuts(reply)[-1][0] == len(reply.data)


def test_hashed_and_absent_bodies_stay_what_they_are() -> None:
    hashed = Body(bytes(32), b"", 5000, "hashed")
    record = changed(chat(), body=hashed)
    record.attempts[0].sent = Body(form="off")
    record.attempts[0].body = Body(bytes(32), b"", 2000, "hashed")

    assert restore.request(record) == hashed
    assert restore.sent(record, record.attempts[0]).form == "off"
    assert restore.reply(record).size == 2000


def test_a_bare_record_keeps_who_when_and_how_much_but_no_word() -> None:
    for record in every_kind():
        sizes = [record.body.size] + [attempt.body.size for attempt in record.attempts]
        usage = record.usage

        bare = records.decode(records.encode(restore.bare(record)))

        assert [bare.body.size] + [attempt.body.size for attempt in bare.attempts] == sizes
        assert bare.usage == usage
        assert all(not body.data for body in bodies(bare))


def bodies(record: Record) -> list[Body]:
    found = [record.body, restore.reply(record)]
    for attempt in record.attempts:
        found += [attempt.body, restore.sent(record, attempt)]
    return found


@st.composite
def bodies_and_edits(draw: st.DrawFn) -> tuple[list[bytes], list[Splice]]:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=8))
    size = sum(map(len, chunks))
    places = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
    if len(places) % 2:
        places.pop()
    edits = [
        (start, stop, draw(st.binary(max_size=6)))
        for start, stop in zip(places[::2], places[1::2], strict=True)
    ]
    return chunks, edits


@given(bodies_and_edits())
def test_cuts_stay_in_order_and_inside_whatever_is_edited(
    made: tuple[list[bytes], list[Splice]],
) -> None:
    chunks, edits = made
    body = chunked(chunks)

    edited = restore.spliced(body, edits)
    ends = [end for end, _ in restore.cuts(edited)]

    assert edited.data == members.apply(body.data, edits)
    assert ends == sorted(ends)
    assert len(ends) == len(chunks)
    assert all(0 <= end <= len(edited.data) for end in ends)
    if not edits or edits[-1][1] < len(body.data):
        assert ends[-1] == len(edited.data)


@given(bodies_and_edits())
def test_a_cut_that_no_edit_touches_still_parts_the_same_bytes(
    made: tuple[list[bytes], list[Splice]],
) -> None:
    chunks, edits = made
    body = chunked(chunks)

    edited = restore.spliced(body, edits)

    for (end, _), (moved, _) in zip(restore.cuts(body), restore.cuts(edited), strict=True):
        if any(start < end < stop or start == end for start, stop, _ in edits):
            continue
        before = [edit for edit in edits if edit[1] <= end]
        assert edited.data[:moved] == members.apply(body.data[:end], before)


def test_marks_that_were_cut_short_are_read_as_far_as_they_go() -> None:
    assert restore.cuts(Body(b"ab", b"\x01\0\0\0\x09\0\0\0\x02\0", 2)) == [(1, 9)]


@pytest.mark.parametrize("record", every_kind(), ids=lambda record: str(record.outcome))
def test_every_kind_survives_its_encoding(record: Record) -> None:
    assert records.decode(records.encode(record)) == record


def test_a_body_of_one_chunk_has_no_cuts() -> None:
    assert restore.cuts(whole(b"x")) == []
