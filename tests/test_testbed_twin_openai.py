"""The official OpenAI SDK against a twin, over real sockets."""

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import openai
import pytest

from conftest import RealRun
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.facts import Hosted
from forebay.world import RealWorld

MESSAGES: Any = [{"role": "user", "content": "What is a forebay? [out:12]"}]
CONFIG = TwinConfig(
    models={
        "instant": PRESETS["instant"],
        "tight": Hosted(rpm=1, burst_s=60, ttft_median_s=0, tokens_per_s=1e6, events_per_s=1e6),
        "small-context": Hosted(context=20, ttft_median_s=0, tokens_per_s=1e6, events_per_s=1e6),
    },
    seed=1,
)
With = Callable[[Twin, openai.AsyncOpenAI], Awaitable[None]]


def against(scenario: With) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        twin = await Twin.start(RealWorld(), config=CONFIG)
        try:
            async with openai.AsyncOpenAI(
                base_url=twin.base_url + "/v1", api_key="twin-key", max_retries=0
            ) as sdk:
                await scenario(twin, sdk)
        finally:
            await twin.close()

    return main()


def test_a_whole_answer_has_the_text_usage_and_bill(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        answer = await sdk.chat.completions.create(model="instant", messages=MESSAGES)

        text = answer.choices[0].message.content
        assert text is not None
        assert len(text) == 48
        assert text.endswith("end.")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 12)
        [seen] = twin.log
        assert (seen.outcome, seen.tokens, seen.status) == ("complete", 12, 200)
        assert json.loads(seen.body)["messages"] == MESSAGES
        assert twin.bill.charges[seen.request_id].cost_nusd == 7 * 5_000 + 12 * 25_000
        assert twin.bill.total_nusd == 335_000

    real(against(scenario))


def test_a_stream_brings_the_same_text_and_usage_only_if_asked(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        whole = await sdk.chat.completions.create(model="instant", messages=MESSAGES)
        stream = await sdk.chat.completions.create(
            model="instant", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage == whole.usage
        assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)

        stream = await sdk.chat.completions.create(model="instant", messages=MESSAGES, stream=True)
        assert [(len(chunk.choices), chunk.usage) async for chunk in stream][-1] == (1, None)

    real(against(scenario))


def test_the_sync_sdk_works_as_well(real: RealRun) -> None:
    def ask(base_url: str) -> list[str]:
        with openai.OpenAI(base_url=base_url, api_key="twin-key") as sdk:
            whole = sdk.chat.completions.create(model="instant", messages=MESSAGES)
            stream = sdk.chat.completions.create(model="instant", messages=MESSAGES, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return [whole.choices[0].message.content or "", streamed]

    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        whole, streamed = await asyncio.to_thread(ask, twin.base_url + "/v1")
        assert whole == streamed != ""

    real(against(scenario))


def test_a_bound_cuts_the_answer_and_says_so(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        bounds: list[Any] = [{"max_tokens": 5}, {"max_completion_tokens": 5}]
        for bound in bounds:
            answer = await sdk.chat.completions.create(model="instant", messages=MESSAGES, **bound)
            assert answer.choices[0].finish_reason == "length"
            assert len(answer.choices[0].message.content or "") == 20

    real(against(scenario))


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer", "minimum": 1},
                    "unit": {"enum": ["C", "F"]},
                },
                "required": ["city", "days"],
            },
        },
    }
]


def test_a_forced_tool_is_called_with_arguments_its_schema_accepts(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        choice: Any = {"type": "function", "function": {"name": "weather"}}
        whole = await sdk.chat.completions.create(
            model="instant", messages=MESSAGES, tools=TOOLS, tool_choice=choice
        )
        [call] = whole.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (whole.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")
        assert json.loads(call.function.arguments) == {"city": "word", "days": 1}

        stream = await sdk.chat.completions.create(
            model="instant", messages=MESSAGES, tools=TOOLS, tool_choice="required", stream=True
        )
        deltas = [chunk.choices[0].delta.tool_calls async for chunk in stream]
        fragments = [d[0].function.arguments or "" for d in deltas if d and d[0].function]
        assert len(fragments) > 3
        assert "".join(fragments) == call.function.arguments

    real(against(scenario))


def test_a_json_schema_is_answered_with_an_instance(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        schema: Any = {
            "type": "json_schema",
            "json_schema": {
                "name": "n",
                "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
            },
        }
        answer = await sdk.chat.completions.create(
            model="instant", messages=MESSAGES, response_format=schema
        )
        assert answer.choices[0].message.content == '{"ok": true}'

    real(against(scenario))


def test_responses_answer_whole_and_streamed(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        whole = await sdk.responses.create(model="instant", input="hello [out:9]")
        assert len(whole.output_text) == 36
        assert whole.usage is not None
        assert whole.usage.output_tokens == 9

        stream = await sdk.responses.create(
            model="instant", input="hello [out:9]", stream=True, max_output_tokens=4
        )
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.incomplete"
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert len("".join(deltas)) == 16

    real(against(scenario))


def test_embeddings_are_the_same_as_floats_and_as_base64(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        # The SDK itself asks for base64 where nothing is said.
        said = await sdk.embeddings.create(model="embedding", input=["one two", "three"])
        floats = await sdk.embeddings.create(
            model="embedding", input=["one two", "three"], encoding_format="float"
        )
        raw = await sdk.embeddings.with_raw_response.create(
            model="embedding", input="one two", encoding_format="base64", dimensions=16
        )
        assert [d.embedding for d in said.data] == [
            list(struct.unpack("256f", struct.pack("256f", *d.embedding))) for d in floats.data
        ]
        encoded = json.loads(raw.text)["data"][0]["embedding"]
        assert len(base64.b64decode(encoded)) == 16 * 4
        assert said.usage.prompt_tokens == 4
        assert twin.bill.total_nusd == 4 * 20 * 2 + 2 * 20

    real(against(scenario))


def test_models_are_listed_and_found(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in sdk.models.list()] == list(CONFIG.models)
        assert (await sdk.models.retrieve("tight")).id == "tight"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("nobody")

    real(against(scenario))


def test_errors_reach_the_sdk_as_its_own_types(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        create = sdk.chat.completions.create
        with pytest.raises(openai.NotFoundError, match="'nobody' does not exist"):
            await create(model="nobody", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="n must be 1"):
            await create(model="instant", messages=MESSAGES, n=2)
        with pytest.raises(openai.BadRequestError, match="empty array"):
            await create(model="instant", messages=[])
        with pytest.raises(openai.BadRequestError) as long:
            await create(model="small-context", messages=[{"role": "user", "content": "x" * 80}])
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            await sdk.with_options(api_key="wrong").models.list()

        await create(model="tight", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError) as limited:
            await create(model="tight", messages=MESSAGES)
        headers = limited.value.response.headers
        assert limited.value.type == "requests"
        assert 59 <= int(headers["retry-after"]) <= 60
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert twin.log[-1].outcome == "refused"

    real(against(scenario))


def test_azure_paths_keys_and_errors(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: openai.AsyncOpenAI) -> None:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=twin.base_url, api_version="2024-10-21", api_key="twin-key"
        ) as azure:
            answer = await azure.chat.completions.create(model="instant", messages=MESSAGES)
            assert answer.model == "instant"
            assert twin.log[-1].path == "/openai/deployments/instant/chat/completions"
            assert twin.log[-1].header("api-key") == "twin-key"
            vectors = await azure.embeddings.create(model="embedding", input="x")
            assert len(vectors.data) == 1
            with pytest.raises(openai.AuthenticationError, match="401"):
                await azure.with_options(api_key="wrong").chat.completions.create(
                    model="instant", messages=MESSAGES
                )

    real(against(scenario))
