"""The official Anthropic SDK, unchanged, against a running gateway: what an application sees."""

import asyncio
import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

import sdk_kit
from sdk_kit import Gateway
from sdk_stage import ANTHROPIC_KEY, USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

#: A provider of the SDK's own dialect, and three of the other.
MODELS = ["anthropic/instant", "openai/instant", "azure/gpt-azure", "trusted/instant"]
ASK: Any = {"max_tokens": 100, "messages": USER}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of the next days.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# -- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_answer(gateway: Gateway, stage: Stage, model: str) -> None:
    with gateway.anthropic() as sdk:
        message = sdk.messages.create(model=model, **ASK)

    assert len(text_of(message)) == 48
    assert text_of(message).encode() in stage.one(model).sent
    assert (message.role, message.stop_reason) == ("assistant", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 12)
    assert message._request_id is not None
    assert gateway.record(message._request_id).dialect == "anthropic"


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_says_what_the_whole_answer_says(gateway: Gateway, model: str) -> None:
    with gateway.anthropic() as sdk:
        whole = sdk.messages.create(model=model, **ASK)
        events = list(sdk.messages.create(model=model, stream=True, **ASK))
        with sdk.messages.stream(model=model, **ASK) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()

    assert text_of(final) == "".join(pieces) == text_of(whole)
    assert len(pieces) == 12  # a token an event: nothing is gathered on the way
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (7, 12)
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("model", MODELS)
def test_the_asynchronous_client_gets_the_same(gateway: Gateway, model: str) -> None:
    async def main() -> tuple[Message, Message]:
        async with gateway.anthropic_async() as sdk:
            whole = await sdk.messages.create(model=model, **ASK)
            async with sdk.messages.stream(model=model, **ASK) as stream:
                return whole, await stream.get_final_message()

    whole, streamed = asyncio.run(main())
    assert text_of(whole) == text_of(streamed)
    assert streamed.usage.output_tokens == 12


@pytest.mark.parametrize("model", MODELS)
def test_a_limit_on_the_answer_is_kept_and_told(gateway: Gateway, stage: Stage, model: str) -> None:
    with gateway.anthropic() as sdk:
        message = sdk.messages.create(model=model, max_tokens=5, messages=USER)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 5
    sent = json.loads(stage.one(model).body)
    # OpenAI's own models know the limit by its newer name, most other servers by the older.
    assert sent["max_completion_tokens" if model.startswith("azure") else "max_tokens"] == 5


@pytest.mark.parametrize("model", MODELS)
def test_instructions_and_turns_arrive(gateway: Gateway, stage: Stage, model: str) -> None:
    with gateway.anthropic() as sdk:
        sdk.messages.create(
            model=model,
            max_tokens=9,
            system="Answer in one word.",
            messages=[
                {"role": "user", "content": "First?"},
                {"role": "assistant", "content": "Weir."},
                {"role": "user", "content": [{"type": "text", "text": "Second?"}]},
            ],
        )
    sent = json.loads(stage.one(model).body)
    said = [str(turn["content"]) for turn in sent["messages"]]
    if "anthropic" in model:
        assert sent["system"] == "Answer in one word."
    else:
        assert said.pop(0) == "Answer in one word."
        assert sent["messages"][0]["role"] == "system"
    assert ["First?" in said[0], "Weir." in said[1], "Second?" in said[2]] == [True] * 3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(gateway: Gateway, stage: Stage, model: str, stream: bool) -> None:
    more: Any = {"tools": [WEATHER], "tool_choice": {"type": "any"}, **ASK}
    with gateway.anthropic() as sdk:
        if stream:
            with sdk.messages.stream(model=model, **more) as events:
                fragments = [event for event in events if event.type == "input_json"]
                message = events.get_final_message()
            assert len(fragments) >= 3  # arguments come in pieces, as the model writes them
        else:
            message = sdk.messages.create(model=model, **more)
        assert message.stop_reason == "tool_use"
        call = message.content[-1]
        assert call.type == "tool_use"
        assert call.name == "weather"
        assert isinstance(call.input, dict)
        assert set(call.input) == {"city", "days"}

        # Its result goes back in the caller's dialect, whichever the provider speaks.
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain. [out:3]"}
        said: Any = [
            *USER,
            {"role": "assistant", "content": [call.to_dict(mode="json")]},
            {"role": "user", "content": [result]},
        ]
        last = sdk.messages.create(model=model, max_tokens=9, messages=said, tools=[WEATHER])
    assert last.stop_reason == "end_turn"
    second = stage.seen(model, 2)[1].body
    assert b"Rain." in second
    assert call.id.encode() in second


@pytest.mark.parametrize("model", MODELS)
def test_an_image_arrives(gateway: Gateway, stage: Stage, model: str) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    asked: Any = [
        {"type": "image", "source": source},
        {"type": "text", "text": "What is this?"},
    ]
    with gateway.anthropic() as sdk:
        sdk.messages.create(
            model=model, max_tokens=9, messages=[{"role": "user", "content": asked}]
        )
    content = json.loads(stage.one(model).body)["messages"][0]["content"]
    if "anthropic" in model:
        assert content == asked
    else:
        assert content[0]["image_url"] == {"url": "data:image/png;base64,iVBORw0KGgo="}


def test_marks_for_the_prompt_cache_are_kept_and_its_tokens_told(
    gateway: Gateway, stage: Stage
) -> None:
    system: Any = [
        {
            "type": "text",
            "text": "The history of dams. " * 400,
            "cache_control": {"type": "ephemeral"},
        }
    ]
    with gateway.anthropic() as sdk:
        told = [
            sdk.messages.create(model="anthropic/instant", system=system, **ASK) for _ in range(2)
        ]
    usage = [message.usage for message in told]
    assert usage[0].cache_creation_input_tokens == usage[1].cache_read_input_tokens
    assert (usage[1].cache_read_input_tokens or 0) > 1024
    assert json.loads(stage.seen("anthropic/", 2)[0].body)["system"] == system
    assert told[1]._request_id is not None
    recorded = gateway.record(told[1]._request_id).usage
    assert recorded is not None
    assert recorded.cache_read_tokens == usage[1].cache_read_input_tokens


def test_tokens_are_counted(gateway: Gateway, stage: Stage) -> None:
    with gateway.anthropic() as sdk:
        counted = sdk.messages.count_tokens(model="anthropic/instant", messages=USER)
    assert counted.input_tokens == 7
    assert stage.one("anthropic/").path == "/v1/messages/count_tokens"


def test_a_provider_that_counts_no_tokens_is_said_to_count_none(gateway: Gateway) -> None:
    with gateway.anthropic() as sdk, pytest.raises(anthropic.BadRequestError, match="openai has"):
        sdk.messages.count_tokens(model="openai/instant", messages=USER)


def test_what_nobody_has_heard_of_yet_is_forwarded(gateway: Gateway, stage: Stage) -> None:
    with gateway.anthropic() as sdk:
        sdk.messages.create(model="anthropic/instant", extra_body={"x_new": [1, 2.50]}, **ASK)
    assert json.loads(stage.one("anthropic/").body)["x_new"] == [1, 2.5]


# -- models, names, headers ------------------------------------------------------------------


def test_models_are_listed_and_found(gateway: Gateway) -> None:
    with gateway.anthropic() as sdk:
        cards = {card.id: card for card in sdk.models.list()}
        assert {"fast", "claude", "instant", "openai/instant"} <= set(cards)
        for name in ("claude", "openai/instant"):
            assert sdk.models.retrieve(name) == cards[name]
        with pytest.raises(anthropic.NotFoundError, match="claudde") as caught:
            sdk.models.retrieve("claudde")
    assert caught.value.request_id is not None


@pytest.mark.parametrize("asked", ["claude", "claude-haiku-4-5", "anthropic/claude-haiku-4-5"])
def test_a_name_finds_its_model(gateway: Gateway, stage: Stage, asked: str) -> None:
    with gateway.anthropic() as sdk:
        answer = sdk.messages.with_raw_response.create(model=asked, **ASK)
    assert answer.headers["x-forebay-provider"] == "anthropic"
    model = "instant" if asked == "claude" else "claude-haiku-4-5"
    assert answer.headers["x-forebay-model"] == model
    assert stage.one("anthropic/").model == model


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_name_is_not_found_and_the_nearest_is_suggested(
    gateway: Gateway, stream: bool
) -> None:
    with gateway.anthropic() as sdk, pytest.raises(anthropic.NotFoundError) as caught:
        sdk.messages.create(model="claude-haiku-4-6", stream=stream, **ASK)
    error = caught.value
    assert isinstance(error.body, dict)
    assert error.body["error"]["type"] == "not_found_error"
    assert "Did you mean claude-haiku-4-5" in error.message
    assert error.request_id is not None
    assert error.body["request_id"] == error.request_id


def test_headers_go_both_ways_by_list(gateway: Gateway, stage: Stage) -> None:
    with gateway.anthropic(key="sk-ant-the-callers-own") as sdk:
        answer = sdk.messages.with_raw_response.create(
            model="anthropic/limited",
            extra_headers={
                "anthropic-beta": "context-1m-2025-08-07,new-2027",
                "anthropic-version": "2023-06-01",
                "x-mine": "1",
            },
            **ASK,
        )
    seen = stage.one("anthropic/")
    assert seen.header("anthropic-beta") == "context-1m-2025-08-07,new-2027"
    assert seen.header("anthropic-version") == "2023-06-01"
    assert seen.header("x-api-key") == ANTHROPIC_KEY
    assert not {name for name, _ in seen.headers} & {"x-mine", "x-stainless-lang", "authorization"}
    assert "sk-ant-the-callers-own" not in str(seen.headers)

    assert answer.headers["anthropic-ratelimit-requests-limit"] == "600"
    assert "anthropic-ratelimit-requests-reset" in answer.headers
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.headers["request-id"].startswith("req_")


def test_headers_of_one_dialect_do_not_reach_the_other(gateway: Gateway, stage: Stage) -> None:
    with gateway.anthropic() as sdk:
        sdk.messages.create(
            model="openai/instant", extra_headers={"anthropic-beta": "x-2027"}, **ASK
        )
    names = {name for name, _ in stage.one("openai/").headers}
    assert not {name for name in names if name.startswith("anthropic")}


def test_a_providers_other_paths_are_reached_through_it(gateway: Gateway, stage: Stage) -> None:
    with gateway.anthropic() as plain:
        sdk = plain.with_options(base_url=f"{gateway.up.base_url}/passthrough/anthropic")
        assert sdk.models.retrieve("instant").id == "instant"
        message = sdk.messages.create(model="instant", **ASK)
        with sdk.messages.stream(model="instant", **ASK) as stream:
            assert text_of(stream.get_final_message()) == text_of(message)
    seen = stage.seen("anthropic/", 3)
    assert [one.path for one in seen] == ["/v1/models/instant", "/v1/messages", "/v1/messages"]
    assert {one.header("x-api-key") for one in seen} == {ANTHROPIC_KEY}
