"""The official OpenAI SDK beyond chat: Responses, embeddings, models and their names, headers,
and a provider's other paths."""

import asyncio
import base64
import json
from typing import Any

import openai
import pytest

import sdk_kit
from sdk_kit import Gateway
from sdk_stage import OPENAI_KEY, USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage


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
    assert seen.header("authorization") == f"Bearer {OPENAI_KEY}"
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
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content
    seen = stage.seen("openai/", 4)
    assert [one.path for one in seen] == [
        "/v1/models/instant",
        "/v1/models",
        "/v1/chat/completions",
        "/v1/chat/completions",
    ]
    assert {one.header("authorization") for one in seen} == {f"Bearer {OPENAI_KEY}"}
    # Nothing is looked into: nobody asked for usage, so nobody was made to tell it.
    assert b"stream_options" not in seen[3].body


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

    assert asyncio.run(main()) == content
    up, down = stage.bare.asked
    assert (up.method, up.path) == ("POST", "/base/v1/files")
    assert content in up.body
    kind = up.header("content-type")
    assert kind is not None
    assert kind.startswith("multipart/form-data; boundary=")
    assert down.path == "/base/v1/files/file-1/content"
    assert secret not in str(up.headers)
