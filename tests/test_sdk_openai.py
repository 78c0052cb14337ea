"""The official OpenAI SDK, unchanged, against a running gateway: what an application sees.

Every test names its model as `provider/model`: the SDK speaks one dialect, the provider behind
the gateway may speak another.
"""

import asyncio
import base64
import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import sdk_kit
from sdk_kit import Gateway
from sdk_stage import USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

#: A provider of the SDK's own dialect, one under Azure's paths, one behind TLS, one of the
#: other dialect.
MODELS = ["openai/instant", "azure/gpt-azure", "trusted/instant", "anthropic/instant"]
PICTURE = base64.b64encode(bytes(range(96))).decode()
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def finishes(chunks: list[ChatCompletionChunk]) -> list[str]:
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    return [reason for reason in reasons if reason]


# -- chat completions ------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_answer(gateway: Gateway, stage: Stage, model: str) -> None:
    with gateway.openai() as sdk:
        answer = sdk.chat.completions.create(model=model, messages=USER)

    seen = stage.one(model)
    text = answer.choices[0].message.content
    assert text is not None
    assert json.dumps(text).encode()[1:-1] in seen.sent
    assert len(text) == 48  # the twin's tokens are four bytes, and 12 were asked for
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 12)
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_says_what_the_whole_answer_says(gateway: Gateway, model: str) -> None:
    with gateway.openai() as sdk:
        whole = sdk.chat.completions.create(model=model, messages=USER)
        chunks = list(sdk.chat.completions.create(model=model, messages=USER, stream=True))

    assert joined(chunks) == whole.choices[0].message.content
    assert finishes(chunks) == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) >= 14  # the role, twelve tokens, the finish reason


@pytest.mark.parametrize("model", MODELS)
def test_the_asynchronous_client_gets_the_same(gateway: Gateway, model: str) -> None:
    async def main() -> tuple[ChatCompletion, list[ChatCompletionChunk]]:
        async with gateway.openai_async() as sdk:
            whole = await sdk.chat.completions.create(model=model, messages=USER)
            stream = await sdk.chat.completions.create(model=model, messages=USER, stream=True)
            return whole, [chunk async for chunk in stream]

    whole, chunks = asyncio.run(main())
    assert joined(chunks) == whole.choices[0].message.content
    assert finishes(chunks) == ["stop"]


@pytest.mark.parametrize("model", ["openai/instant", "anthropic/instant"])
def test_many_at_once_each_get_their_own(gateway: Gateway, model: str) -> None:
    async def one(sdk: openai.AsyncOpenAI, number: int) -> tuple[int, int]:
        asked: Any = [{"role": "user", "content": f"Question {number} [out:{number}]"}]
        stream = await sdk.chat.completions.create(
            model=model, messages=asked, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        return len(joined(chunks)), chunks[-1].usage.completion_tokens

    async def main() -> list[tuple[int, int]]:
        async with gateway.openai_async() as sdk:
            return await asyncio.gather(*(one(sdk, number) for number in range(1, 41)))

    assert asyncio.run(main()) == [(4 * number, number) for number in range(1, 41)]


# -- usage in streams ------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_usage_that_was_not_asked_for_is_withheld_and_counted(
    gateway: Gateway, stage: Stage, model: str
) -> None:
    with (
        gateway.openai() as sdk,
        sdk.chat.completions.with_streaming_response.create(
            model=model, messages=USER, stream=True
        ) as response,
    ):
        request_id = response.request_id
        body = b"".join(response.iter_bytes())

    assert b'"usage":{' not in body
    assert b'"choices":[]' not in body  # never a chunk more than without the gateway
    assert body.endswith(b"data: [DONE]\n\n")
    sent = json.loads(stage.one(model).body)
    if "anthropic" not in model:  # its streams tell their usage unasked
        assert sent["stream_options"] == {"include_usage": True}
    assert request_id is not None
    usage = gateway.record(request_id).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens, usage.estimated) == (7, 12, False)


@pytest.mark.parametrize("model", MODELS)
def test_usage_that_was_asked_for_comes_last_and_once(gateway: Gateway, model: str) -> None:
    with gateway.openai() as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model=model, messages=USER, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].choices == []
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_other_stream_options_stay_beside_the_one_we_add(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk:
        list(
            sdk.chat.completions.create(
                model="openai/instant",
                messages=USER,
                stream=True,
                stream_options={"include_usage": False, "include_obfuscation": False},
            )
        )
    sent = json.loads(stage.one("openai/instant").body)
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}


# -- tools, schemas, images and the rest -----------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(gateway: Gateway, stage: Stage, model: str, stream: bool) -> None:
    more: Any = {"tools": [WEATHER], "tool_choice": "required", "messages": USER}
    with gateway.openai() as sdk:
        if stream:
            with sdk.chat.completions.stream(model=model, **more) as events:
                fragments = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
                answer = events.get_final_completion()
            assert len(fragments) >= 3  # arguments come in pieces, as the model writes them
        else:
            answer = sdk.chat.completions.create(model=model, **more)

    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    # Its result goes back in the caller's dialect, whichever the provider speaks.
    said: Any = [
        *USER,
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "Rain. [out:3]"},
    ]
    with gateway.openai() as sdk:
        last = sdk.chat.completions.create(model=model, messages=said, tools=[WEATHER])
    assert last.choices[0].finish_reason == "stop"
    second = stage.seen(model, 2)[1].body
    assert b"Rain." in second
    assert call.id.encode() in second


@pytest.mark.parametrize("model", ["openai/instant", "azure/gpt-azure"])
def test_an_answer_follows_a_json_schema(gateway: Gateway, stage: Stage, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    described: Any = {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": schema},
    }
    with gateway.openai() as sdk:
        answer = sdk.chat.completions.create(model=model, messages=USER, response_format=described)
        chunks = list(
            sdk.chat.completions.create(
                model=model, messages=USER, response_format=described, stream=True
            )
        )
    for text in (answer.choices[0].message.content or "", joined(chunks)):
        assert set(json.loads(text)) == {"answer", "sure"}
    assert json.loads(stage.seen(model, 2)[0].body)["response_format"] == described


@pytest.mark.parametrize("model", MODELS)
def test_an_image_as_a_data_url_arrives(gateway: Gateway, stage: Stage, model: str) -> None:
    with gateway.openai() as sdk:
        sdk.chat.completions.create(
            model=model,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{PICTURE}"},
                        },
                    ],
                }
            ],
        )
    content = json.loads(stage.one(model).body)["messages"][0]["content"]
    if "anthropic" in model:
        assert content[1]["source"] == {
            "type": "base64",
            "media_type": "image/png",
            "data": PICTURE,
        }
    else:
        assert content[1]["image_url"] == {"url": f"data:image/png;base64,{PICTURE}"}


def completion(**choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi", "refusal": None}
    blank = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "instant",
        "choices": [blank | choice],
    }


def test_log_probabilities_pass(gateway: Gateway, stage: Stage) -> None:
    token = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}
    stage.answers(
        "openai/instant", json.dumps(completion(logprobs={"content": [token], "refusal": None}))
    )
    with gateway.openai() as sdk:
        answer = sdk.chat.completions.create(
            model="openai/instant", messages=USER, logprobs=True, top_logprobs=2
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].to_dict() == token
    sent = json.loads(stage.one("openai/instant").body)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


def test_several_choices_pass(gateway: Gateway, stage: Stage) -> None:
    answer = completion()
    answer["choices"].append({**answer["choices"][0], "index": 1, "finish_reason": "length"})
    stage.bare.answer = lambda _: (200, [], json.dumps(answer).encode(), "application/json")
    with gateway.openai() as sdk:
        got = sdk.chat.completions.create(model="bare/any", messages=USER, n=2)
    assert [choice.finish_reason for choice in got.choices] == ["stop", "length"]
    (asked,) = stage.bare.asked
    assert json.loads(asked.body)["n"] == 2


def test_several_choices_stream_interleaved(gateway: Gateway, stage: Stage) -> None:
    def chunk(index: int, text: str, finish: str | None = None) -> str:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        shown = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
        return "data: " + json.dumps(shown | {"choices": [choice]}) + "\n\n"

    pieces = [chunk(0, "a"), chunk(1, "x"), chunk(1, "y", "stop"), chunk(0, "b", "stop")]
    said = ("".join(pieces) + "data: [DONE]\n\n").encode()
    stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
    with gateway.openai() as sdk:
        chunks = list(
            sdk.chat.completions.create(model="bare/any", messages=USER, n=2, stream=True)
        )
    assert [(c.choices[0].index, c.choices[0].delta.content) for c in chunks] == [
        (0, "a"),
        (1, "x"),
        (1, "y"),
        (0, "b"),
    ]


def test_what_nobody_has_heard_of_yet_is_forwarded(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk:
        sdk.chat.completions.create(
            model="openai/instant",
            messages=USER,
            extra_body={"x_new": {"deep": [1, 2.50, None]}, "verbosity": "low"},
        )
    sent = json.loads(stage.one("openai/instant").body)
    assert sent["x_new"] == {"deep": [1, 2.5, None]}
    assert sent["verbosity"] == "low"


def test_what_the_other_dialect_cannot_say_is_refused(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk, pytest.raises(openai.BadRequestError, match="logprobs") as caught:
        sdk.chat.completions.create(model="anthropic/instant", messages=USER, logprobs=True)
    assert caught.value.code == "unsupported_parameter"
    assert stage.do(lambda: stage.anthropic.log.total) == 0
