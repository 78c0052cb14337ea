"""The official Anthropic SDK against a twin, over real sockets, its models made strict."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from conftest import RealRun
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.facts import Hosted
from forebay.world import RealWorld

MESSAGES: Any = [{"role": "user", "content": "What is a forebay? [out:12]"}]
CONFIG = TwinConfig(
    dialect="anthropic",
    models={
        "instant": PRESETS["instant"],
        "tight": Hosted(rpm=1, burst_s=60, ttft_median_s=0, tokens_per_s=1e6, events_per_s=1e6),
    },
    seed=1,
)
With = Callable[[Twin, anthropic.AsyncAnthropic], Awaitable[None]]


def against(scenario: With) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        twin = await Twin.start(RealWorld(), config=CONFIG)
        try:
            async with anthropic.AsyncAnthropic(
                base_url=twin.base_url, api_key="twin-key", max_retries=0
            ) as sdk:
                await scenario(twin, sdk)
        finally:
            await twin.close()

    return main()


def test_whole_and_streamed_answers_agree_with_each_other_and_the_sdks_models(
    real: RealRun,
) -> None:
    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        raw = await sdk.messages.with_raw_response.create(
            model="instant", max_tokens=100, messages=MESSAGES
        )
        whole = Message.model_validate(json.loads(await raw.text()))
        async with sdk.messages.stream(
            model="instant", max_tokens=100, messages=MESSAGES
        ) as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()

        assert whole.content[0].type == "text"
        assert whole.content[0].text == text
        assert len(text) == 48
        assert whole.stop_reason == final.stop_reason == "end_turn"
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (7, 12)
        assert final.usage.output_tokens == 12

        sent = [line for line in bytes(twin.log[-1].sent).split(b"\n") if line[:6] == b"data: "]
        event: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
        kinds = [json.loads(line[6:])["type"] for line in sent]
        for line, kind in zip(sent, kinds, strict=True):
            if kind != "ping":  # the SDK has no type for pings
                event.validate_python(json.loads(line[6:]))
        assert kinds[:3] == ["message_start", "content_block_start", "ping"]
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]

    real(against(scenario))


def test_the_sync_sdk_works_as_well(real: RealRun) -> None:
    def ask(base_url: str) -> list[str]:
        with anthropic.Anthropic(base_url=base_url, api_key="twin-key") as sdk:
            whole = sdk.messages.create(model="instant", max_tokens=100, messages=MESSAGES)
            with sdk.messages.stream(model="instant", max_tokens=100, messages=MESSAGES) as stream:
                streamed = "".join(stream.text_stream)
            assert whole.content[0].type == "text"
            return [whole.content[0].text, streamed]

    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        whole, streamed = await asyncio.to_thread(ask, twin.base_url)
        assert whole == streamed != ""

    real(against(scenario))


def test_a_forced_tool_is_called(real: RealRun) -> None:
    tools: Any = [
        {
            "name": "weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ]

    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        ask: Any = {"model": "instant", "max_tokens": 99, "messages": MESSAGES, "tools": tools}
        whole = await sdk.messages.create(**ask, tool_choice={"type": "any"})
        async with sdk.messages.stream(
            **ask, tool_choice={"type": "tool", "name": "weather"}
        ) as stream:
            final = await stream.get_final_message()
        for message in (whole, final):
            [block] = cast(list[Any], message.content)
            assert block.type == "tool_use"
            assert (block.name, block.input) == ("weather", {"city": "word"})
            assert message.stop_reason == "tool_use"

    real(against(scenario))


def test_the_prompt_cache_is_written_read_and_billed(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        system: Any = [
            {"type": "text", "text": "s" * 8_000, "cache_control": {"type": "ephemeral"}}
        ]
        usages = []
        for _ in range(2):
            answer = await sdk.messages.create(
                model="instant", max_tokens=50, system=system, messages=MESSAGES
            )
            usages.append(answer.usage)
        parts = [
            (u.input_tokens, u.cache_creation_input_tokens, u.cache_read_input_tokens)
            for u in usages
        ]
        assert parts == [(7, 2_000, 0), (7, 0, 2_000)]
        output = 12 * 25_000
        charged = [charge.cost_nusd for charge in twin.bill.charges.values()]
        assert charged == [
            7 * 5_000 + 2_000 * 6_250 + output,
            7 * 5_000 + 2_000 * 500 + output,
        ]

    real(against(scenario))


def test_tokens_are_counted_and_models_listed(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        counted = await sdk.messages.count_tokens(model="instant", messages=MESSAGES, system="abcd")
        assert counted.input_tokens == 8
        assert [model.id async for model in sdk.models.list()] == ["instant", "tight"]
        assert (await sdk.models.retrieve("tight")).id == "tight"

    real(against(scenario))


def test_errors_reach_the_sdk_as_its_own_types(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        create = sdk.messages.create
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await create(model="nobody", max_tokens=9, messages=MESSAGES)
        body: Any = unknown.value.body
        assert body["type"] == "error"
        assert body["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.AuthenticationError):
            await sdk.with_options(api_key="wrong").models.list()
        with pytest.raises(anthropic.BadRequestError, match="at least one message"):
            await create(model="instant", max_tokens=9, messages=[])
        await create(model="tight", max_tokens=9, messages=MESSAGES)
        with pytest.raises(anthropic.RateLimitError) as limited:
            await create(model="tight", max_tokens=9, messages=MESSAGES)
        headers = limited.value.response.headers
        assert 59 <= int(headers["retry-after"]) <= 60
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"

    real(against(scenario))


def test_a_request_without_a_version_is_refused(real: RealRun) -> None:
    async def scenario(twin: Twin, sdk: anthropic.AsyncAnthropic) -> None:
        # The one header that hand-written clients and gateways forget.
        absent: Any = {"anthropic-version": anthropic.Omit()}
        with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
            await sdk.messages.create(
                model="instant", max_tokens=9, messages=MESSAGES, extra_headers=absent
            )

    real(against(scenario))
