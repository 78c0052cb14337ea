"""Whatever comes in, a conversion answers or raises a Failure; never anything else.

Good cases (the golden ones) with one member anywhere replaced by something of another type,
and bytes that are nothing at all.
"""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dialects_kit import GOLDEN, Json, body, chat_stream, messages_stream
from forebay.dialects import stitch
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.dialects.translation import StreamTranslation, Translation
from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.wire import members

ASK = Ask(model="asked", stream=True, include_usage=True)


def inputs(kind: str) -> list[Any]:
    held = (json.loads(path.read_text()) for path in sorted(GOLDEN.glob(f"{kind}-*.json")))
    found = [case["in"] for file in held for case in file.get("cases", [file])]
    assert found
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and item anywhere inside."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from([[], {}, [[]], [{}], {"type": "text"}, [None], {"a": []}, "\x00", "<"]),
)


@st.composite
def damaged(draw: st.DrawFn, cases: list[Any]) -> Any:
    """A good case with one to three things in it replaced or left out."""
    case = copy.deepcopy(draw(st.sampled_from(cases)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(case))
        if not found:
            return case
        *path, last = draw(st.sampled_from(found))
        parent = case
        for key in path:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(odd))
    return case


def failure_of(work: Callable[[], object]) -> str | None:
    """The code of the failure that it raises, None where it succeeds; anything else escapes."""
    try:
        work()
    except Failure as failure:
        return failure.code.name
    return None


def ask_for(translation: Translation, given_: Any) -> None:
    request = members.parse(body(given_))
    failed = failure_of(lambda: translation.request(request, ASK, "claude-sonnet-4-5"))
    assert failed in (None, "bad_request", "unsupported")


def answer_with(translation: Translation, given_: bytes) -> None:
    assert failure_of(lambda: translation.whole(given_, ASK)) in (None, "bad_answer")


def stream_through(stream: StreamTranslation, given_: bytes) -> None:
    failed = failure_of(lambda: (stream.feed(given_), stream.finish()))
    assert failed in (None, "bad_answer")
    assert failed is None or stream.finding.error


def stitched(given_: bytes) -> None:
    for work in (
        stitch.assemble_chat,
        stitch.assemble_messages,
        lambda whole: stitch.unstitch_chat(whole, True),
        stitch.unstitch_messages,
        lambda whole: stitch.with_id(whole, "new"),
    ):
        failed = failure_of(lambda work=work: work(given_))  # type: ignore[misc]
        assert failed in (None, "bad_answer", "truncated")


@given(damaged(inputs("chat_to_messages")))
def test_any_chat_request(given_: Json) -> None:
    ask_for(ChatToMessages(), given_)


@given(damaged(inputs("messages_to_chat")))
def test_any_messages_request(given_: Json) -> None:
    ask_for(MessagesToChat(), given_)


@given(damaged(inputs("answers_as_chat_whole")))
def test_any_message(given_: Json) -> None:
    answer_with(ChatToMessages(), body(given_))
    stitched(body(given_))


@given(damaged(inputs("answers_as_messages_whole")))
def test_any_completion(given_: Json) -> None:
    answer_with(MessagesToChat(), body(given_))
    stitched(body(given_))


@given(damaged(inputs("answers_as_chat_stream")))
def test_any_message_events(given_: list[Any]) -> None:
    sent = chat_stream(*given_)  # unnamed events: their type is in their data
    stream_through(ChatToMessages().stream(ASK), sent)
    stitched(sent)


@given(damaged(inputs("answers_as_messages_stream")))
def test_any_chunks(given_: list[Any]) -> None:
    sent = chat_stream(*given_)
    stream_through(MessagesToChat().stream(ASK), sent)
    stitched(sent)


@given(st.binary(max_size=60).map(lambda raw: b'{"type":"message_start","choices":[' + raw))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"content":[{"type":"tool_use","name":"f","input":"\xff"}],"stop_reason":"x"}')
@example(b'{"content":[{"type":"tool_use","name":"f","input":{"a":"\xff"}}],"stop_reason":"x"}')
@example(b'{"choices":[{"message":{"content":"\xed\xa0\x80"},"finish_reason":"stop"}]}')
@example(b'{"choices":[{"message":{"content":"\\ud800"},"finish_reason":"stop"}]}')
@example(b'{"id":"c","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":\xff}')
def test_any_bytes(given_: bytes) -> None:
    for translation in (ChatToMessages(), MessagesToChat()):
        answer_with(translation, given_)
        for event in (given_, b"data: " + given_ + b"\n\n", b"data: " + given_):
            stream_through(translation.stream(ASK), event)
    for raw in (given_, b"data: " + given_ + b"\n\n"):
        stitched(raw)


def test_deep_arguments_are_refused_by_their_place() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": '{"a":' + "[" * 100_000}}
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
    with pytest.raises(Failure) as caught:
        ChatToMessages().request(members.parse(body({"messages": said})), ASK, "claude-opus-5")
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_names_of_members_that_are_not_ascii_keep_their_path() -> None:
    given_ = messages_stream({"type": "message_start", "message": {"content": 5}})
    with pytest.raises(Failure, match=r"\$\.message\.content"):
        ChatToMessages().stream(ASK).feed(given_)
