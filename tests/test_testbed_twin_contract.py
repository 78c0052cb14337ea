"""What a twin answers, against OpenAI's published API description."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import VirtualRun
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.faults import Script
from forebay.testbed.virtual import VirtualWorld
from testbed_kit import call, chat

DESCRIPTION = Path(__file__).parents[2] / "shared" / "data" / "openai_openapi.json.gz"
MODELS = {"instant": PRESETS["instant"]}
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def api() -> Any:
    if not DESCRIPTION.is_file():
        pytest.skip(f"the API description is not at hand: {DESCRIPTION}")
    with gzip.open(DESCRIPTION) as file:
        return _without_nullable(json.load(file))


def _without_nullable(node: Any) -> Any:
    """`nullable: true`, which 3.1 no longer knows and the description still uses."""
    if isinstance(node, list):
        return [_without_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: _without_nullable(value) for name, value in node.items()}
    if node.pop("nullable", False) is True:
        return {"anyOf": [node, {"type": "null"}]}
    return node


def check(api: Any, name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": api["components"]}
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    assert not errors, f"{name}: {errors[0].message} at {errors[0].json_path} of {value}"


ANSWERS: list[tuple[str, str, dict[str, Any]]] = [
    ("/v1/chat/completions", "CreateChatCompletionResponse", {}),
    ("/v1/chat/completions", "CreateChatCompletionResponse", {"max_tokens": 2}),
    (
        "/v1/chat/completions",
        "CreateChatCompletionResponse",
        {"tools": TOOLS, "tool_choice": "required"},
    ),
    ("/v1/responses", "Response", {}),
    ("/v1/responses", "Response", {"max_output_tokens": 2}),
    ("/v1/embeddings", "CreateEmbeddingResponse", {"input": ["a", "b"], "model": "embedding"}),
]
STREAMS: list[tuple[str, str, dict[str, Any]]] = [
    ("/v1/chat/completions", "CreateChatCompletionStreamResponse", {}),
    (
        "/v1/chat/completions",
        "CreateChatCompletionStreamResponse",
        {"stream_options": {"include_usage": True}, "max_tokens": 2},
    ),
    (
        "/v1/chat/completions",
        "CreateChatCompletionStreamResponse",
        {"tools": TOOLS, "tool_choice": "required"},
    ),
    ("/v1/responses", "ResponseStreamEvent", {}),
    ("/v1/responses", "ResponseStreamEvent", {"max_output_tokens": 2}),
]


def _body(path: str, stream: bool, more: dict[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "instant", "stream": stream}
    if path.endswith("responses"):
        asked["input"] = "hello [out:5]"
    else:
        asked["messages"] = [{"role": "user", "content": "hello [out:5]"}]
    return asked | more


@pytest.mark.parametrize(("path", "schema", "more"), ANSWERS)
def test_whole_answers_are_valid(
    virtual: VirtualRun, api: Any, path: str, schema: str, more: dict[str, Any]
) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=MODELS))
        got = await call(world, twin, path, _body(path, False, more)).over
        assert got.status == 200, got.body
        check(api, schema, got.json)
        await twin.close()

    virtual(main)


@pytest.mark.parametrize(("path", "schema", "more"), STREAMS)
def test_events_are_valid(
    virtual: VirtualRun, api: Any, path: str, schema: str, more: dict[str, Any]
) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=MODELS))
        got = await call(world, twin, path, _body(path, True, more)).over
        events = [event for event in got.data if event != "[DONE]"]
        assert len(events) >= 3, got.body
        for event in events:
            check(api, schema, event)
        await twin.close()

    virtual(main)


def _failing() -> Iterator[tuple[str, dict[str, Any], int]]:
    yield "/v1/chat/completions", {"messages": []}, 400
    yield "/v1/chat/completions", {"messages": "no"}, 400
    yield "/v1/chat/completions", {"model": "nobody"}, 404
    yield "/v1/embeddings", {"input": []}, 400
    yield "/v1/nowhere", {}, 404
    yield "/v1/models", {}, 405


@pytest.mark.parametrize(("path", "more", "status"), list(_failing()))
def test_errors_are_valid(
    virtual: VirtualRun, api: Any, path: str, more: dict[str, Any], status: int
) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=MODELS))
        got = await call(world, twin, path, _body(path, False, more)).over
        assert got.status == status
        check(api, "ErrorResponse", got.json)
        await twin.close()

    virtual(main)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 502, 503, 529])
def test_scripted_errors_are_valid(virtual: VirtualRun, api: Any, status: int) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=MODELS))
        twin.set_script(Script.decode(f"- what: {{kind: status, status: {status}}}"))
        got = await chat(world, twin, stream=False).over
        assert got.status == status
        check(api, "ErrorResponse", got.json)
        await twin.close()

    virtual(main)


def test_an_error_in_a_stream_is_valid(virtual: VirtualRun, api: Any) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=MODELS))
        twin.set_script(Script.decode("- {what: {kind: error}, where: event, after: 2}"))
        got = await chat(world, twin).over
        check(api, "ErrorResponse", got.data[-1])
        body = {"model": "instant", "stream": True, "input": "x"}
        got = await call(world, twin, "/v1/responses", body).over
        check(api, "ResponseErrorEvent", got.data[-1])
        await twin.close()

    virtual(main)


def test_the_list_of_models_is_valid(virtual: VirtualRun, api: Any) -> None:
    from forebay.testbed.twins.openai_api import OpenAIDialect

    check(api, "ListModelsResponse", json.loads(OpenAIDialect().models(["a", "b"])))
    check(api, "Model", json.loads(OpenAIDialect().model("a")))
