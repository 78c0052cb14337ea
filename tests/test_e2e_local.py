"""The official SDKs against models that really run: what `forebay up` brings by itself.

A real model says what it likes, so these tests hold it to form, not to words; its embedder is
held to meaning, since that is what it is for.
"""

import asyncio
import os
import signal
from typing import Any

import anthropic
import openai
import pytest

import running
from running import Running
from sdk_kit import children, replaced

running_forebay = running.running_forebay

MODEL = "local/smollm2-135m-instruct"
EMBEDDER = "local-embeddings/all-minilm-l6-v2"
SAID: Any = [{"role": "user", "content": "Count: one, two, three,"}]
FRESH: Any = {"x-forebay-cache": "off"}
SHORT: Any = {"model": MODEL, "messages": SAID, "max_tokens": 8, "temperature": 0}


@pytest.fixture
def sdk(running_forebay: Running) -> Any:
    with openai.OpenAI(
        base_url=running_forebay.base_url + "/v1", api_key="none", max_retries=60
    ) as client:
        yield client


@pytest.fixture
def claude(running_forebay: Running) -> Any:
    with anthropic.Anthropic(
        base_url=running_forebay.base_url, api_key="none", max_retries=60
    ) as client:
        yield client


def test_it_is_listed_under_a_name_that_answers(sdk: openai.OpenAI) -> None:
    names = [card.id for card in sdk.models.list()]
    assert any("smollm2-135m-instruct" in name for name in names)
    for name in names:
        sdk.models.retrieve(name)


def test_it_answers_whole_and_streamed_alike(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(**SHORT, extra_headers=FRESH)
    chunks = list(
        sdk.chat.completions.create(
            **SHORT, stream=True, stream_options={"include_usage": True}, extra_headers=FRESH
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    assert text == whole.choices[0].message.content  # at temperature 0
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    assert whole.usage.prompt_tokens > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_asked_again_it_answers_from_the_cache(sdk: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": "Say it twice."}]
    asked = {**SHORT, "messages": said}
    first = sdk.chat.completions.with_raw_response.create(**asked)
    second = sdk.chat.completions.with_raw_response.create(**asked)
    assert second.headers["x-forebay-cache"] == "exact"
    assert second.parse().choices[0].message == first.parse().choices[0].message
    assert second.headers["x-forebay-cost-usd"] == "0"


def test_it_speaks_anthropics_dialect_as_well(claude: anthropic.Anthropic) -> None:
    cold: Any = {"temperature": 0}  # the SDK has no word for it any more
    message = claude.messages.create(model=MODEL, max_tokens=8, messages=SAID, extra_body=cold)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 8
    with claude.messages.stream(
        model=MODEL, max_tokens=8, messages=SAID, extra_body=cold, extra_headers=FRESH
    ) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == 8


def test_several_callers_share_it(running_forebay: Running) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str | None:
        said: Any = [{"role": "user", "content": f"Name number {number}."}]
        answer: Any = await client.chat.completions.create(**{**SHORT, "messages": said})
        text: str | None = answer.choices[0].message.content
        return text

    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=running_forebay.base_url + "/v1", api_key="none", max_retries=60
        ) as client:
            answers: list[str | None] = await asyncio.gather(*(one(client, n) for n in range(4)))
            return answers

    assert all(asyncio.run(main()))


def test_embeddings_mean_something(sdk: openai.OpenAI) -> None:
    texts = [
        "The dam holds back the river.",
        "A barrage keeps the stream from flowing.",
        "My cat likes tuna.",
    ]
    packed = sdk.embeddings.create(model=EMBEDDER, input=texts)
    plain = sdk.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert packed.usage.prompt_tokens > 15
    vectors = [one.embedding for one in packed.data]
    assert {len(vector) for vector in vectors} == {384}
    for vector, same in zip(vectors, plain.data, strict=True):
        assert vector == pytest.approx(same.embedding, abs=1e-6)

    def likeness(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    assert likeness(0, 0) == pytest.approx(1, abs=1e-3)
    assert likeness(0, 1) > likeness(0, 2) + 0.2


def test_processes_that_come_back_know_the_models(
    running_forebay: Running, sdk: openai.OpenAI
) -> None:
    """Each hears of them from the one before it: supervisor, back office, worker."""
    for name in ("back_office", "worker-0"):
        dead = children(running_forebay)[name]
        os.kill(dead, signal.SIGKILL)
        replaced(running_forebay, name, dead)
    assert sdk.chat.completions.create(**SHORT, extra_headers=FRESH).choices
    assert sdk.embeddings.create(model=EMBEDDER, input="Still here?").data


def test_what_it_is_not_made_for_is_refused(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no /v1/embeddings"):
        sdk.embeddings.create(model=MODEL, input="x")
    with pytest.raises(openai.NotFoundError, match="nothing"):
        sdk.chat.completions.create(**{**SHORT, "model": "local/nothing"})
