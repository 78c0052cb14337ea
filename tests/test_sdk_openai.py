"""The official OpenAI SDK, unchanged, against a running gateway: what an application sees.

Every test names its model as `provider/model`: the SDK speaks one dialect, the provider behind
the gateway may speak another.
"""

import asyncio
import base64
import json
from collections.abc import Coroutine
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import sdk_kit
from sdk_kit import USER, Gateway, Stage

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


# -- Responses -------------------------------------------------------------------------------


def test_a_response_passes_through(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk:
        answer = sdk.responses.create(model="openai/instant", input="Hello [out:12]")
    assert answer.status == "completed"
    assert len(answer.output_text) == 48
    assert answer.usage is not None
    assert answer.usage.output_tokens == 12
    seen = stage.one("openai/instant")
    assert (seen.path, json.loads(seen.body)["model"]) == ("/v1/responses", "instant")
    assert answer._request_id is not None
    usage = gateway.record(answer._request_id).usage
    assert usage is not None
    assert usage.output_tokens == 12


def test_a_streamed_response_passes_through(gateway: Gateway) -> None:
    async def main() -> list[Any]:
        async with gateway.openai_async() as sdk:
            stream = await sdk.responses.create(
                model="openai/instant", input="Hello [out:12]", stream=True
            )
            return [event async for event in stream]

    events = asyncio.run(main())
    assert events[0].type == "response.created"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text


def test_the_sdks_response_stream_helper_works(gateway: Gateway) -> None:
    with (
        gateway.openai() as sdk,
        sdk.responses.stream(model="openai/instant", input="Hello [out:12]") as stream,
    ):
        for _ in stream:
            pass
        assert len(stream.get_final_response().output_text) == 48


def test_a_provider_without_responses_is_said_to_have_none(gateway: Gateway) -> None:
    with gateway.openai() as sdk, pytest.raises(openai.BadRequestError, match="anthropic has no"):
        sdk.responses.create(model="anthropic/instant", input="Hello")


# -- embeddings ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["openai/embedding", "azure/embedding"])
def test_embeddings_come_as_floats_however_they_travel(
    gateway: Gateway, stage: Stage, model: str
) -> None:
    with gateway.openai() as sdk:
        # The SDK asks for base64 by itself and decodes it.
        packed = sdk.embeddings.create(model=model, input=["the weir", "the sluice"])
        plain = sdk.embeddings.create(
            model=model, input=["the weir", "the sluice"], encoding_format="float"
        )
    asked = [json.loads(seen.body)["encoding_format"] for seen in stage.seen(model, 2)]
    assert asked == ["base64", "float"]
    assert [one.index for one in packed.data] == [0, 1]
    for a, b in zip(packed.data, plain.data, strict=True):
        assert len(a.embedding) == 256
        assert a.embedding == pytest.approx(b.embedding)
    assert packed.usage.prompt_tokens == 5


def test_raw_base64_embeddings_are_what_the_provider_sent(gateway: Gateway, stage: Stage) -> None:
    body = {"model": "openai/embedding", "input": "weir", "encoding_format": "base64"}
    got = gateway.ask("/v1/embeddings", body)
    assert got.body == bytes(stage.one("openai/embedding").sent)
    assert len(base64.b64decode(got.json["data"][0]["embedding"])) == 4 * 256


# -- models and names ------------------------------------------------------------------------


def test_models_are_listed_and_found(gateway: Gateway) -> None:
    with gateway.openai() as sdk:
        cards = {card.id: card for card in sdk.models.list()}
        assert {"fast", "claude", "instant", "gpt-azure", "openai/instant"} <= set(cards)
        assert cards["fast"].owned_by == "openai"
        assert cards["claude"].owned_by == "anthropic"
        # What it lists it also finds, under the very names.
        for name in ("fast", "instant", "openai/instant"):
            assert sdk.models.retrieve(name) == cards[name]
        with pytest.raises(openai.NotFoundError, match="fastt"):
            sdk.models.retrieve("fastt")


@pytest.mark.parametrize(
    ("asked", "provider", "model"),
    [
        ("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("fast", "openai", "instant"),
        ("claude", "anthropic", "instant"),
        # bare: of those that list it, the first in the config
        ("limited", "anthropic", "limited"),
        ("claude-haiku-4-5", "anthropic", "claude-haiku-4-5"),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("gpt-azure", "azure", "instant"),
    ],
)
def test_a_name_finds_its_model(
    gateway: Gateway, stage: Stage, asked: str, provider: str, model: str
) -> None:
    with gateway.openai() as sdk:
        answer = sdk.chat.completions.with_raw_response.create(model=asked, messages=USER)
    assert answer.headers["x-forebay-provider"] == provider
    assert answer.headers["x-forebay-model"] == model
    assert answer.headers["x-forebay-route"]
    assert stage.one(provider + "/").model == model


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_name_is_not_found_and_the_nearest_is_suggested(
    gateway: Gateway, stage: Stage, stream: bool
) -> None:
    with gateway.openai() as sdk, pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="gpt-4o-minni", messages=USER, stream=stream)
    error = caught.value
    assert (error.code, error.param, error.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "gpt-4o-minni" in error.message
    assert "gpt-4o-mini" in error.message.replace("gpt-4o-minni", "")
    assert error.response.headers["x-should-retry"] == "false"
    assert error.request_id is not None
    assert stage.do(lambda: stage.openai.log.total) == 0


def test_a_provider_that_does_not_exist_is_an_unknown_model(gateway: Gateway) -> None:
    with gateway.openai() as sdk, pytest.raises(openai.NotFoundError, match="opneai/instant"):
        sdk.chat.completions.create(model="opneai/instant", messages=USER)


# -- headers ---------------------------------------------------------------------------------


def test_headers_go_both_ways_by_list(gateway: Gateway, stage: Stage) -> None:
    def work(call: Any) -> Any:
        return call.chat.completions.with_raw_response.create(
            model="openai/limited", messages=USER, extra_headers={"x-mine": "1", "cookie": "a=b"}
        )

    with gateway.openai(key="sk-the-callers-own", organization="org-1", project="proj-1") as sdk:
        answer = work(sdk)
    seen = stage.one("openai/limited")
    assert seen.header("openai-organization") == "org-1"
    assert seen.header("openai-project") == "proj-1"
    assert seen.header("authorization") == f"Bearer {sdk_kit.OPENAI_KEY}"
    sent = {name for name, _ in seen.headers}
    assert not sent & {"x-mine", "cookie", "x-stainless-lang"}
    assert "sk-the-callers-own" not in str(seen.headers)

    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["openai-processing-ms"].isdigit()
    assert answer.headers["x-ratelimit-limit-requests"] == "600"
    assert "x-ratelimit-remaining-tokens" in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-request-id"] != seen.request_id


def test_an_answers_cost_is_told_before_it_comes(gateway: Gateway) -> None:
    with gateway.openai() as sdk:

        def ask() -> Any:
            return sdk.chat.completions.with_raw_response.create(
                model="openai/gpt-4o-mini", messages=USER
            )

        # The first request for a model makes the gateway look for its price.
        answer = sdk_kit.eventually(
            lambda: answer if "x-forebay-cost-usd" in (answer := ask()).headers else None,
            "the price never came",
        )
    # 7 tokens in, 12 out, at $0.15 and $0.60 a million
    assert float(answer.headers["x-forebay-cost-usd"]) == pytest.approx(7 * 15e-8 + 12 * 60e-8)


# -- passthrough -----------------------------------------------------------------------------


def passthrough(gateway: Gateway, provider: str) -> openai.OpenAI:
    """The SDK with a provider's own API as its base URL."""
    return gateway.openai().with_options(
        base_url=f"{gateway.up.base_url}/passthrough/{provider}/v1"
    )


def test_a_providers_other_paths_are_reached_through_it(gateway: Gateway, stage: Stage) -> None:
    with passthrough(gateway, "openai") as sdk:
        assert sdk.models.retrieve("instant").owned_by == "twin"
        assert "instant" in [card.id for card in sdk.models.list()]
        answer = sdk.chat.completions.create(model="instant", messages=USER)
        chunks = list(sdk.chat.completions.create(model="instant", messages=USER, stream=True))
    assert joined(chunks) == answer.choices[0].message.content
    seen = stage.seen("openai/", 4)
    assert [one.path for one in seen] == [
        "/v1/models/instant",
        "/v1/models",
        "/v1/chat/completions",
        "/v1/chat/completions",
    ]
    assert {one.header("authorization") for one in seen} == {f"Bearer {sdk_kit.OPENAI_KEY}"}
    # Nothing is looked into: nobody asked for usage, so nobody was made to tell it.
    assert b"stream_options" not in seen[3].body


def gather(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_files_go_up_and_come_down_as_they_are(gateway: Gateway, stage: Stage) -> None:
    content = bytes(range(256)) * 300
    described = {
        "id": "file-1",
        "object": "file",
        "bytes": len(content),
        "created_at": 1,
        "filename": "a.bin",
        "purpose": "user_data",
        "status": "processed",
    }
    stage.bare.answer = lambda request: (
        (200, [], content, "application/octet-stream")
        if request.path.endswith("/content")
        else (200, [], json.dumps(described).encode(), "application/json")
    )
    _, secret = gateway.new_key()  # a form is no JSON: what a browser could send needs a key

    async def main() -> bytes:
        async with gateway.openai_async(secret) as plain:
            url = f"{gateway.up.base_url}/passthrough/bare"
            sdk = plain.with_options(base_url=url)
            made = await sdk.files.create(file=("a.bin", content), purpose="user_data")
            return (await sdk.files.content(made.id)).content

    assert gather(main()) == content
    up, down = stage.bare.asked
    assert (up.method, up.path) == ("POST", "/base/v1/files")
    assert content in up.body
    kind = up.header("content-type")
    assert kind is not None
    assert kind.startswith("multipart/form-data; boundary=")
    assert down.path == "/base/v1/files/file-1/content"
    assert secret not in str(up.headers)
