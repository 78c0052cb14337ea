"""Blocks one after the other: what waits, for how long, against a naive model."""

import itertools
import json

from hypothesis import example, given
from hypothesis import strategies as st

from dialects_kit import Json, events
from forebay.dialects.streamed_blocks import Blocks
from forebay.schema.chat import AnsweredCall, AnsweredFunction


def fragment(index: int, arguments: str, name: str | None = "f") -> AnsweredCall:
    return AnsweredCall(index, f"call_{index}", AnsweredFunction(name, arguments))


nasty = st.text(alphabet='"\\{}[]:, a', max_size=8)
objects = st.dictionaries(
    nasty, nasty | st.integers() | st.lists(nasty, max_size=2) | st.dictionaries(nasty, nasty)
).map(json.dumps)


def is_whole(spelled: str) -> bool:
    try:
        json.loads(spelled)
    except ValueError:
        return False
    return True


@given(objects, st.lists(st.integers(0, 200), max_size=6))
@example('{"a": "\\\\"}', [])
@example('{"a": "\\""}', [8])
@example('{"a": "\\"}"}', [7, 8, 9])
@example('{"}": {"b": []}}', list(range(16)))
def test_a_call_waits_exactly_until_the_one_before_it_is_whole(
    spelled: str, cuts: list[int]
) -> None:
    blocks = Blocks("ex_1")
    blocks.call(fragment(0, ""))
    blocks.call(fragment(1, "{}"))
    out = blocks.take()
    bounds = [0, *sorted(min(cut, len(spelled)) for cut in cuts), len(spelled)]
    said = ""
    for start, end in itertools.pairwise(bounds):
        said += spelled[start:end]
        blocks.call(fragment(0, spelled[start:end]))
        out += blocks.take()
        second_began = '"id":"call_1"' in out.decode()
        assert second_began == is_whole(said)
    assert _arguments(events(out + blocks.close())) == [spelled, "{}"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "thinking", "call"]), st.integers(0, 2)), max_size=9
    )
)
def test_blocks_come_in_the_order_in_which_they_began(said: list[tuple[str, int]]) -> None:
    blocks = Blocks("ex_1")
    expected: list[str] = []
    for kind, index in said:
        if kind == "call":
            blocks.call(fragment(index, ""))
            if f"call_{index}" not in expected:
                expected.append(f"call_{index}")
        else:
            (blocks.say if kind == "text" else blocks.think)("x")
            if not expected or expected[-1] != kind:
                expected.append(kind)
    out = events(blocks.take() + blocks.close())
    began = [event["content_block"] for event in out if event["type"] == "content_block_start"]
    assert [block.get("id", block["type"]) for block in began] == expected


def test_what_can_flow_flows_at_once() -> None:
    blocks = Blocks("ex_1")
    blocks.say("Hel")
    assert [event["type"] for event in events(blocks.take())] == [
        "content_block_start",
        "content_block_delta",
    ]
    blocks.say("lo")
    assert [event["type"] for event in events(blocks.take())] == ["content_block_delta"]
    blocks.call(fragment(0, '{"a"'))
    assert [event["type"] for event in events(blocks.take())] == [
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]


def test_a_call_begins_when_its_name_is_known() -> None:
    blocks = Blocks("ex_1")
    blocks.call(fragment(0, "{", name=None))
    assert blocks.take() == b""
    blocks.call(fragment(0, "}"))
    assert _arguments(events(blocks.close())) == ["{}"]


def test_a_call_without_an_identifier_gets_one_of_the_answers() -> None:
    blocks = Blocks("ex_1")
    blocks.say("x")
    blocks.call(AnsweredCall(0, None, AnsweredFunction("f", "{}")))
    began = [e for e in events(blocks.close()) if e["type"] == "content_block_start"]
    assert began[1]["content_block"]["id"] == "ex_1_1"


def _arguments(out: list[Json]) -> list[str]:
    """The joined arguments of each block, in order."""
    joined: dict[int, str] = {}
    for event in out:
        if event["type"] == "content_block_start":
            joined[event["index"]] = ""
        elif event["type"] == "content_block_delta":
            joined[event["index"]] += event["delta"]["partial_json"]
    return list(joined.values())
