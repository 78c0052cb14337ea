"""Streams that break at a provider, as an application's SDK reads them through the gateway.

However a stream ends early, the SDK raises; what came before is there; nothing of it is taken
for an answer, neither by the caller nor by the cache, nor by the record.
"""

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import sdk_kit
from forebay.observe.record import Record
from forebay.testbed.twins.faults import Cut, Error, Stall, Write
from sdk_kit import Gateway
from sdk_stage import USER, Stage
from sdk_ways import ASK, WAYS, APIError, ask, cacheable, failed, outcome

gateway, stage, records_agree = sdk_kit.gateway, sdk_kit.stage, sdk_kit.records_agree
pytestmark = pytest.mark.usefixtures("records_agree")


def broken(
    gateway: Gateway,
    dialect: str,
    model: str,
    recorded: Callable[[Record], bool] = failed,
    **more: Any,
) -> tuple[list[Any], Exception]:
    """What came of a stream before the SDK raised, and what it raised."""
    events: list[Any] = []
    asked = {**ASK, **more}
    with gateway.openai() as sdk, gateway.anthropic() as claude:
        if dialect == "openai":
            stream: Any = sdk.chat.completions.create(model=model, stream=True, **asked)
        else:
            stream = claude.messages.create(model=model, stream=True, **asked)
        with pytest.raises(APIError) as caught:
            events.extend(_kept(stream, events))
    gateway.expect(stream.response.headers["x-request-id"], recorded)
    return events, caught.value


def _kept(stream: Any, events: list[Any]) -> Iterator[Any]:
    """Reads a stream into a list that keeps what came before it broke."""
    for event in stream:
        events.append(event)
    yield from ()


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("how", ["close", "rst", "complete"])
def test_a_stream_that_is_cut_raises(
    gateway: Gateway, stage: Stage, dialect: str, model: str, how: Any
) -> None:
    # `complete` is the tidy one: a well-formed end of HTTP without an end of the answer.
    stage.fault(model, Cut(how=how), where="event", after=3)

    def estimated(record: Record) -> bool:
        usage = record.usage
        return (
            record.outcome == "truncated"
            and record.attempts[0].finish_reason is None
            and usage is not None
            and usage.estimated
            and usage.output_tokens >= 3
        )

    asked = cacheable(f"cut {dialect} {how}")
    events, error = broken(gateway, dialect, model, estimated, **asked)

    assert len(events) >= 3
    assert model.partition("/")[0] in str(error)
    stage.reset()  # half an answer never enters the cache
    assert ask(gateway, dialect, model, stream=True, **asked)
    assert len(stage.seen(model)) == 1


@pytest.mark.parametrize("how", ["close", "rst", "complete"])
def test_a_streamed_response_that_is_cut_raises(gateway: Gateway, stage: Stage, how: Any) -> None:
    stage.fault("openai/", Cut(how=how), where="event", after=3)
    events: list[Any] = []
    with gateway.openai() as sdk:
        stream = sdk.responses.create(model="openai/instant", input="Hi [out:12]", stream=True)
        with pytest.raises(openai.APIError, match="openai"):
            events.extend(_kept(stream, events))
    assert [e.type for e in events].count("response.output_text.delta") == 3
    gateway.expect(stream.response.headers["x-request-id"], outcome("truncated"))


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_a_tool_call_that_is_cut_raises(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    if dialect == "openai":
        function = {"name": "weather", "parameters": schema}
        more: Any = {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "required",
        }
    else:
        tool = {"name": "weather", "input_schema": schema}
        more = {"tools": [tool], "tool_choice": {"type": "any"}}
    stage.fault(model, Cut(how="complete"), where="event", after=1)
    events, _ = broken(gateway, dialect, model, **more)
    told = " ".join(event.to_json(indent=None) for event in events)
    assert "weather" in told
    assert '"tool_use"' not in [getattr(e, "stop_reason", "") for e in events]


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("after", [0, 3])
def test_an_error_in_a_stream_raises_with_its_words(
    gateway: Gateway, stage: Stage, dialect: str, model: str, after: int
) -> None:
    stage.fault(model, Error(message="The moon is full."), where="event", after=after)
    _, error = broken(gateway, dialect, model, outcome("provider_error"))
    assert "The moon is full." in str(error)


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_an_event_that_is_no_json_ends_the_stream(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    junk = 'data: {"choices":[{"delta":{"content":"half\n\n'
    if model.startswith("anthropic"):
        junk = "event: content_block_delta\n" + junk
    stage.fault(model, Write(text=junk), where="event", after=2)
    model = model.replace("instant", "slow")  # each event in a packet of its own
    events, error = broken(gateway, dialect, model, outcome("bad_answer", "provider_error"))
    assert len(events) >= 2
    assert "half" not in str(error)


def test_streams_that_stall_raise(gateway: Gateway, stage: Stage) -> None:
    """All ways at once: each waits for the limit of two seconds. Comments are no progress."""
    for model in ("openai/", "anthropic/"):
        stage.fault(model, Stall(comment_every_s=0.5), where="event", after=2)

    async def drain(opening: Any) -> Any:
        return [event async for event in await opening]

    async def main() -> list[Any]:
        async with gateway.openai_async() as sdk, gateway.anthropic_async() as claude:
            more: Any = {"messages": USER, "stream": True}
            return await asyncio.gather(
                *(
                    drain(sdk.chat.completions.create(model=f"{provider}/instant", **more))
                    for provider in ("openai", "anthropic")
                ),
                *(
                    drain(claude.messages.create(model=f"{p}/instant", max_tokens=99, **more))
                    for p in ("openai", "anthropic")
                ),
                return_exceptions=True,
            )

    for error in asyncio.run(main()):
        assert isinstance(error, APIError)
        assert "stalled" in str(error)


def test_a_finish_reason_without_a_terminator_is_a_good_end(gateway: Gateway, stage: Stage) -> None:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    said = ("data: " + json.dumps(chunk | {"choices": [choice]}) + "\n\n").encode()
    stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
    with gateway.openai() as sdk:
        chunks = list(sdk.chat.completions.create(model="bare/any", messages=USER, stream=True))
    assert [c.choices[0].finish_reason for c in chunks] == ["stop"]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_server_that_does_not_stream_is_streamed_for(
    gateway: Gateway, stage: Stage, dialect: str
) -> None:
    """An SDK reads JSON in place of a stream as a stream of nothing, and says no word."""
    message = {"role": "assistant", "content": "Whole."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "any"}
    body = json.dumps(head | {"choices": [choice]}).encode()
    stage.bare.answer = lambda _: (200, [], body, "application/json")
    events = ask(gateway, dialect, "bare/any", stream=True)
    told = "".join(event.to_json(indent=None) for event in events)
    assert "Whole." in told
    assert ('"stop"' if dialect == "openai" else '"end_turn"') in told


def test_a_response_that_failed_is_recorded_as_failed(gateway: Gateway, stage: Stage) -> None:
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "failed",
        "error": {"code": "server_error", "message": "The moon is full."},
        "model": "any",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    stage.bare.answer = lambda _: (200, [], json.dumps(response).encode(), "application/json")
    with gateway.openai() as sdk:
        answer = sdk.responses.create(model="bare/any", input="Hello")
        assert answer.status == "failed"  # the SDK has a word for it: it passes as it is
        assert answer._request_id is not None
        gateway.expect(answer._request_id, outcome("provider_error"))

        event = {"type": "response.failed", "sequence_number": 0, "response": response}
        said = f"event: response.failed\ndata: {json.dumps(event)}\n\n".encode()
        stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
        stream = sdk.responses.create(model="bare/any", input="Hello", stream=True)
        assert [event.type for event in stream] == ["response.failed"]
        gateway.expect(stream.response.headers["x-request-id"], outcome("provider_error"))


def test_a_file_that_is_cut_short_does_not_look_whole(gateway: Gateway, stage: Stage) -> None:
    stage.fault("openai/", Cut(how="close"), where="first")
    body = json.dumps({"model": "instant", "messages": USER})
    connection = http.client.HTTPConnection(*gateway.address, timeout=30)
    sent = {"content-type": "application/json"}
    connection.request("POST", "/passthrough/openai/v1/chat/completions", body, sent)
    answer = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    request_id = answer.getheader("x-request-id")
    assert request_id is not None
    record = gateway.record(request_id)
    assert (record.endpoint, record.outcome) == ("passthrough", "truncated")
