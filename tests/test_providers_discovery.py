"""What a provider says it has, where it says so."""

import json
from typing import Any

import pytest

from conftest import VirtualRun
from forebay.providers import Anthropic, OpenAI, Provider
from forebay.providers.discovery import MAX_MODELS, TIMEOUT_S, list_models
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.virtual import Link, VirtualWorld
from upstreams import Answer, ok
from upstreams import Provider as Raw

KEY = "sk-canary-0123456789"


async def asked(world: VirtualWorld, *pieces: bytes) -> list[str] | None:
    async with Raw([Answer(pieces, "close")]) as raw:
        url = f"http://127.0.0.1:{raw.port}/v1"
        provider = OpenAI(base_url=url, api_key=KEY, proxy="off").build("home", world)
        found = await list_models(world, provider)
        provider.target.close()
        return found


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_provider_lists_its_models(virtual: VirtualRun, dialect: Any) -> None:
    async def main(world: VirtualWorld) -> None:
        models = {"one": PRESETS["instant"], "two": PRESETS["instant"]}
        config = TwinConfig(dialect=dialect, models=models, keys=(KEY,), embeddings={})
        twin = await Twin.start(world, config=config)
        kind = OpenAI if dialect == "openai" else Anthropic
        provider = kind(base_url=twin.base_url, api_key=KEY, proxy="off").build("home", world)
        assert await list_models(world, provider) == ["one", "two"]
        provider.target.close()
        await twin.close()

    virtual(main)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"data": [{"id": "a"}, {"id": "b", "x": 1}]}, ["a", "b"]),
        ({"data": []}, []),
        ({"data": [{"id": 1}, {}, None, "x", {"id": "a"}]}, ["a"]),
        ({"data": [{"id": "x" * 513}, {"id": ""}, {"id": "a"}]}, ["a"]),
        ({"data": [{"id": str(n)} for n in range(MAX_MODELS + 5)]}, None),
        ({"data": {"id": "a"}}, "none"),
        ({"models": []}, "none"),
        ([], "none"),
        ("x", "none"),
    ],
)
def test_what_is_taken_of_a_list(virtual: VirtualRun, body: Any, ids: Any) -> None:
    async def main(world: VirtualWorld) -> None:
        found = await asked(world, ok(json.dumps(body).encode()))
        if ids == "none":
            assert found is None
        elif ids is None:
            assert found is not None
            assert len(found) == MAX_MODELS
        else:
            assert found == ids

    virtual(main)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 401 No\r\ncontent-length: 11\r\n\r\n" + b'{"data":[]}',
        b"HTTP/1.1 302 No\r\nlocation: http://evil\r\ncontent-length: 0\r\n\r\n",
        ok(b"<html>"),
        ok(b'{"data":[{"id":"\xff"}]}'),
        ok(b'{"data":' + b"[" * 100_000),
        ok(b""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_who_does_not_say_is_no_error(virtual: VirtualRun, answer: bytes) -> None:
    async def main(world: VirtualWorld) -> None:
        assert await asked(world, answer) is None

    virtual(main)


def test_who_cannot_be_reached_or_is_slow_is_not_waited_for(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        def provider(port: int) -> Provider:
            url = f"http://127.0.0.1:{port}"
            return OpenAI(base_url=url, proxy="off").build("home", world)

        assert await list_models(world, provider(1)) is None
        world.network.set("127.0.0.1", 2, Link(black_hole=True))
        start_ns = world.now_ns()
        assert await list_models(world, provider(2)) is None
        async with Raw([Answer([])]) as raw:  # takes the request and says nothing
            silent = provider(raw.port)
            assert await list_models(world, silent) is None
            silent.target.close()
        assert (world.now_ns() - start_ns) / 1e9 == pytest.approx(2 * TIMEOUT_S, abs=0.1)

    virtual(main)


def test_who_serves_no_list_is_not_asked(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        provider = OpenAI(base_url="http://127.0.0.1:1", proxy="off").build("home", world)
        provider.restrict({"chat"})
        assert await list_models(world, provider) is None

    virtual(main)
