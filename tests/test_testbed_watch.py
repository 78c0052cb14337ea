import pytest

from forebay.testbed.load.watch import AnthropicStream, OpenAIStream, Watch, WholeBody


def openai_stream(*deltas: str, finish: str = "stop", done: bool = True) -> bytes:
    chunk = 'data: {"choices":[{"delta":{"content":"%s"},"finish_reason":null}]}'
    events = [chunk % delta for delta in deltas]
    if finish:
        events.append(f'data: {{"choices":[{{"delta":{{}},"finish_reason":"{finish}"}}]}}')
    if done:
        events.append("data: [DONE]")
    return "".join(event + "\n\n" for event in events).encode()


ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"stop_reason":null}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"abcd"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def fed(watch: Watch, stream: bytes, size: int) -> Watch:
    for at in range(0, len(stream), size):
        watch.feed(stream[at : at + size])
    return watch


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("stream", "verdict"),
    [
        (openai_stream("", "abcd", "efgh"), "ok"),
        (openai_stream("abcd", "efg"), "wrong_length"),
        (openai_stream("abcd", "efgh", finish=""), "truncated"),
        (openai_stream("abcd", "efgh", finish="length"), "finish_length"),
        (openai_stream("abcd", "efgh", done=False), "no_end"),
        (openai_stream("abcd", finish="", done=False), "truncated"),
        (openai_stream("abcd", "efgh") + b'data: {"error":{"message":"x"}}\n\n', "error_event"),
        (b'data: { "error" : {} }\n\n', "error_event"),
        (b": ping\n\n" + openai_stream("abcdefgh"), "ok"),
        (openai_stream('\\"finish_reason\\":\\"stop\\"', finish=""), "truncated"),
        (b"", "truncated"),
    ],
)
def test_only_a_whole_openai_stream_is_ok(stream: bytes, verdict: str, size: int) -> None:
    assert fed(OpenAIStream(), stream, size).verdict(8) == verdict


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_only_a_whole_anthropic_stream_is_ok(size: int) -> None:
    assert fed(AnthropicStream(), ANTHROPIC, size).verdict(4) == "ok"
    assert fed(AnthropicStream(), ANTHROPIC, size).verdict(8) == "wrong_length"
    cut = ANTHROPIC[: ANTHROPIC.index(b"event: message_delta")]
    assert fed(AnthropicStream(), cut, size).verdict(4) == "truncated"
    error = b'event: error\ndata: {"type":"error","error":{}}\n\n'
    assert fed(AnthropicStream(), cut + error, size).verdict(4) == "error_event"
    no_stop = ANTHROPIC[: ANTHROPIC.index(b"event: message_stop")]
    assert fed(AnthropicStream(), no_stop, size).verdict(4) == "no_end"


def test_white_space_of_another_json_writer_does_not_matter() -> None:
    stream = openai_stream("abcd").replace(b'":"', b'": "')
    assert fed(OpenAIStream(), stream, 9).verdict(4) == "ok"


def test_the_first_token_is_the_first_text_not_the_first_event() -> None:
    watch = OpenAIStream()
    watch.feed(openai_stream("", finish="", done=False))
    assert (watch.events, watch.text_bytes) == (1, 0)
    watch.feed(openai_stream("abcd"))
    assert watch.text_bytes == 4


def test_whole_bodies_of_both_dialects() -> None:
    body = b'{"choices":[{"message":{"content":"abcd"},"finish_reason":"stop"}]}'
    assert fed(WholeBody(), body, 5).verdict(4) == "ok"
    body = b'{"type":"message","content":[{"type":"text","text":"abcd"}],"stop_reason":"end_turn"}'
    assert fed(WholeBody(), body, 5).verdict(4) == "ok"
    assert fed(WholeBody(), b'{"error":{"message":"no"}}', 5).verdict(4) == "error_event"
    assert fed(WholeBody(), body[:40], 5).verdict(4) == "truncated"
