"""The SSE splitter against the HTML standard, read literally, however the bytes arrive."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeding import CUTS, feeds
from forebay.errors import Failure
from forebay.wire import sse
from forebay.wire.sse import BOM, Event, Splitter, parse

LINE_ENDS = (b"\r\n", b"\n", b"\r")


def dispatched(stream: bytes, *, flush: bool) -> list[Event]:
    """HTML standard, 9.2.6, as it is written there, a byte at a time.

    `flush` takes the end of the stream for the end of the event, which the standard doesn't.
    """
    stream = stream.removeprefix(BOM)
    lines = [b""]
    at = 0
    while at < len(stream):
        if stream[at : at + 2] == b"\r\n":
            lines.append(b"")
            at += 2
        elif stream[at : at + 1] in (b"\r", b"\n"):
            lines.append(b"")
            at += 1
        else:
            lines[-1] += stream[at : at + 1]
            at += 1
    if flush:
        lines.append(b"")
    else:
        lines.pop()  # a line that has no end
    events = []
    data, name = b"", b""
    for line in lines:
        if line == b"":
            if data:
                events.append(Event(name.decode("utf-8", "replace"), data[:-1]))
            data, name = b"", b""
        elif line.startswith(b":"):
            continue
        else:
            if b":" in line:
                field, value = line.split(b":", 1)
                if value.startswith(b" "):
                    value = value[1:]
            else:
                field, value = line, b""
            if field == b"event":
                name = value
            elif field == b"data":
                data += value + b"\n"
    return events


def split(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """The raw events of these chunks, and what `close` gives."""
    splitter = Splitter()
    raw = [event for chunk in chunks for event in splitter.feed(chunk)]
    rest = splitter.close()
    assert splitter.close() == b""
    return raw, rest


def parsed(raw: list[bytes]) -> list[Event]:
    """Those events that a client would be given."""
    return [event for event in map(parse, raw) if event.data is not None]


WORDS = st.sampled_from(
    [
        *(b"data", b"event", b"id", b"retry", b"datax", b" data"),
        *(b":", b": ", b":  ", b" ", b"::"),
        *LINE_ENDS * 3,
        *(b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n\n"),
        *(b"x", "é€🐟".encode(), b"\xff\xfe", b"\x00", b"[DONE]", b'{"a":"\\n"}'),
        *(b"data: x\n\n", b": ping\n\n", b"event: e\ndata: 1\ndata: 2\n\n"),
    ]
)
STREAMS = st.builds(
    lambda bom, words: bom + b"".join(words),
    st.sampled_from([b"", BOM]),
    st.lists(WORDS, max_size=24),
)


@settings(max_examples=400)
@given(stream=STREAMS, cuts=CUTS)
@example(stream=b"\n\n", cuts=[])
@example(stream=b"\n\ndata: x\n\n", cuts=[])
@example(stream=BOM + b"\n\n", cuts=[])
@example(stream=b"data: a\r\rdata: b\r\r", cuts=[])
@example(stream=b"data: a\r\n\rdata: b\n\r\n", cuts=[])
def test_any_stream_fed_in_any_way_gives_what_the_standard_says(
    stream: bytes, cuts: list[int]
) -> None:
    expected = dispatched(stream, flush=False)
    flushed = dispatched(stream, flush=True)
    for chunks in feeds(stream, cuts):
        raw, rest = split(chunks)
        events = parsed(raw)
        if stream.endswith(b"\r"):  # may be half an ending: the last event waits for `close`
            assert events in (expected, expected[:-1])
        else:
            assert events == expected
        assert events + parsed([rest]) == flushed


@settings(max_examples=400)
@given(stream=STREAMS, cuts=CUTS)
@example(stream=b"data: x\n\n\n\n\n\n", cuts=[])
@example(stream=b"\n\n\n\n\n\ndata: x\r\n\r\n", cuts=[])
def test_the_events_and_what_is_left_are_the_stream_byte_for_byte(
    stream: bytes, cuts: list[int]
) -> None:
    for chunks in feeds(stream, cuts):
        raw, rest = split(chunks)
        joined = b"".join(raw) + rest
        assert stream.startswith(joined)
        dropped = stream[len(joined) :]
        assert dropped.removeprefix(BOM).strip(b"\r\n") == b""
        if dropped:
            assert rest == b""


@settings(max_examples=400)
@given(stream=STREAMS, cuts=CUTS)
def test_no_event_is_blank_or_holds_two(stream: bytes, cuts: list[int]) -> None:
    for chunks in feeds(stream, cuts):
        for event in split(chunks)[0]:
            assert event.removeprefix(BOM).strip(b"\r\n") != b""
            assert len(dispatched(event, flush=False)) <= 1


@settings(max_examples=400)
@given(stream=STREAMS, cuts=CUTS, ending=st.sampled_from([b"data: la", b": pi", b"e", b"data:\n"]))
def test_an_unfinished_event_waits_for_its_end_or_for_close(
    stream: bytes, cuts: list[int], ending: bytes
) -> None:
    whole = stream + b"\n\n"
    for chunks in feeds(whole, cuts, trailing=ending):
        raw, rest = split(chunks)
        assert rest.lstrip(b"\r\n").removeprefix(BOM).lstrip(b"\r\n") == ending
        assert parsed(raw) == dispatched(whole, flush=False)


@pytest.mark.parametrize("end", LINE_ENDS)
def test_what_providers_send(end: bytes) -> None:
    lines = [
        b": connected",
        b"",
        b'data: {"delta":"h\xc3\xa9"}',
        b"",
        b"event: message_stop",
        b'data: {"type":"message_stop"}',
        b"",
        b"data:[DONE]",
        b"",
    ]
    stream = b"".join(line + end for line in lines)
    for chunks in feeds(stream):
        raw, rest = split(chunks)
        if rest:  # a last CR may be half an ending
            assert end == b"\r"
            raw.append(rest)
        assert len(raw) == 4
        assert parsed(raw) == [
            Event("", '{"delta":"hé"}'.encode()),
            Event("message_stop", b'{"type":"message_stop"}'),
            Event("", b"[DONE]"),
        ]


def test_a_last_event_without_its_empty_line_is_not_lost() -> None:
    for stream in (b"data: a\n\ndata: b", b"data: a\n\ndata: b\n", b"data: a\r\n\r\ndata: b\r\n"):
        raw, rest = split([stream])
        assert [event.data for event in parsed([*raw, rest])] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (b"data\n\n", Event("", b"")),
        (b"data:\n\n", Event("", b"")),
        (b"data:\ndata\n\n", Event("", b"\n")),
        (b"data:  two spaces\n\n", Event("", b" two spaces")),
        (b"data:a:b\n\n", Event("", b"a:b")),
        (b" data: a\n\n", Event("", None)),
        (b"DATA: a\n\n", Event("", None)),
        (b"event: a\nevent: b\ndata: c\n\n", Event("b", b"c")),
        (b"event\ndata: c\n\n", Event("", b"c")),
        (b": comment\n\n", Event("", None)),
        (b"retry: 100\n\n", Event("", None)),
        (b"event: \xff\ndata: \xff\n\n", Event("\ufffd", b"\xff")),
        (BOM + b"data: a\n\n", Event("", b"a")),
    ],
)
def test_one_event(raw: bytes, event: Event) -> None:
    assert parse(raw) == event


@pytest.mark.parametrize("size", [1, 1000])
def test_an_event_that_never_ends_is_refused_at_the_limit(size: int) -> None:
    splitter = Splitter(limit=5000)
    for _ in range(5000 // size):
        assert splitter.feed(b"x" * size) == []
    with pytest.raises(Failure, match="over 5000 bytes") as caught:
        splitter.feed(b"x" * size)
    assert caught.value.code.name == "bad_answer"


def test_many_events_may_be_larger_than_the_limit_of_one() -> None:
    splitter = Splitter(limit=100)
    event = b"data: " + b"x" * 80 + b"\n\n"
    assert splitter.feed(event * 50 + event[:50]) == [event] * 50
    assert splitter.feed(event[50:]) == [event]


def test_a_large_event_in_small_pieces_takes_time_in_proportion() -> None:
    """An image of 4 MB in segments of 1,400 bytes: looking through all that is held with
    every segment would read 6 GB."""
    splitter = Splitter()
    data = b"data: " + b"x" * 4_000_000 + b"\n\n"
    events = []
    start_s = time.process_time()
    for at in range(0, len(data), 1400):
        events += splitter.feed(data[at : at + 1400])
    assert events == [data]
    assert time.process_time() - start_s < 10


@given(
    data=st.binary(max_size=20).filter(lambda d: not set(d) & set(b"\r\n")),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
)
def test_what_we_write_reads_back(data: bytes, name: str) -> None:
    raw = sse.event(data, name)
    assert split([raw]) == ([raw], b"")
    assert parse(raw) == Event(name, data)
    assert parsed([sse.comment("a word to people")]) == []
