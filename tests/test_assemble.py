"""Config in, a wired data plane out; what it is told while it runs."""

import pytest

from conftest import VirtualRun
from forebay import config as configuration
from forebay.assemble import build_providers, data_plane
from forebay.caches.exact import ExactCache
from forebay.errors import Failure
from forebay.inference.local import Served
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.virtual import VirtualWorld
from pipeline_kit import PEPPER, chat, gateway, paced, request
from providers_kit import world

LOCAL_KEY = "local-key-0123456789"


def served(port: int, name: str = "local", dimensions: int = 0) -> Served:
    return Served(
        name, f"http://127.0.0.1:{port}/v1", LOCAL_KEY, ["tiny"], 4096, 512, dimensions=dimensions
    )


def test_settings_end_up_where_they_are_used() -> None:
    forebay = configuration.decode(
        {
            "providers": {
                "home": {"kind": "openai", "base_url": "http://x/v1"},
                "far": {"kind": "anthropic"},
            },
            "models": {"fast": "home/m"},
            "caches": {"exact": {"max_mb": 2}},
            "record": {"capture": "hashed"},
            "keys": {"loopback": "required"},
            "timeouts": {"connect_s": 1},
        }
    )
    way = data_plane(forebay, world(), PEPPER, lambda batch: True, "v1", 3).way
    assert list(way.catalogue.providers) == ["home", "far"]
    assert way.catalogue.find("fast", "chat").model == "m"
    assert isinstance(way.cache, ExactCache)
    assert way.cache.max_bytes == 2 * 1024 * 1024
    assert (way.capture, way.keys_required, way.timeouts.connect_s) == ("hashed", True, 1)


def test_what_is_off_is_not_there() -> None:
    off = {"caches": {"exact": {"enabled": False}}, "local": {"enabled": False}}
    way = data_plane(configuration.decode(off), world(), PEPPER, lambda batch: True).way
    assert way.cache is None
    assert not way.keys_required
    with pytest.raises(Failure) as caught:
        way.catalogue.find("local/tiny", "chat")
    assert caught.value.code.name == "unknown_model"


def test_local_models_are_expected_where_they_are_on() -> None:
    way = data_plane(configuration.decode({}), world(), PEPPER, lambda batch: True).way
    with pytest.raises(Failure) as caught:
        way.catalogue.find("local/tiny", "chat")
    assert caught.value.code.name == "overloaded"


def test_settings_that_cannot_work_are_refused() -> None:
    forebay = configuration.decode({"providers": {"home": {"kind": "azure_openai"}}})
    with pytest.raises(Failure):
        build_providers(forebay, world())


def test_a_local_server_comes_up_and_comes_back_elsewhere(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        config = TwinConfig(models={"tiny": PRESETS["instant"]}, keys=(LOCAL_KEY,), seed=1)
        one, two = [await Twin.start(world, config=config) for _ in range(2)]
        async with gateway(world, {"local": {"enabled": True}}) as gate:
            reply = await gate.chat(model="local/tiny")
            assert (reply.status, reply.header("retry-after")) == (503, "1")
            gate.plane.local(served(one.port))
            assert (await gate.chat(model="local/tiny")).status == 200
            assert (await gate.chat(model="tiny")).status == 200  # by its bare name
            assert (await gate.chat(model="local/huge")).status == 404
            gate.plane.local(served(two.port))
            assert (await gate.chat(model="local/tiny")).status == 200
            assert (len(one.log), len(two.log)) == (2, 1)
            for record in gate.kept:
                assert record.cost_nusd in (0, None)  # it is our own machine
        for twin in (one, two):
            await twin.close()

    virtual(main)


def test_to_be_told_of_it_again_breaks_no_answer_under_way(virtual: VirtualRun) -> None:
    """A back office that starts anew tells everything it knows: streams were cut by it."""

    async def main(world: VirtualWorld) -> None:
        config = TwinConfig(models={"tiny": paced()}, keys=(LOCAL_KEY,), seed=1)
        twin = await Twin.start(world, config=config)
        async with gateway(world, {"local": {"enabled": True}}) as gate:
            gate.plane.local(served(twin.port))
            client = await gate.client()
            body = chat("hi [out:30]", "local/tiny", stream=True)
            client.send(request("/v1/chat/completions", body))
            await client.until(b"data:")
            gate.plane.local(served(twin.port))
            reply = await client.reply()
            assert reply.data[-1] == "[DONE]"
            assert (await gate.record()).outcome == "ok"
            client.leave()
        await twin.close()

    virtual(main)


def test_an_embedder_only_embeds(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        config = TwinConfig(models={}, embeddings={}, keys=(LOCAL_KEY,), seed=1)
        twin = await Twin.start(world, config=config)
        async with gateway(world, {"local": {"enabled": True}}) as gate:
            gate.plane.local(served(twin.port, "local-embeddings", dimensions=384))
            reply = await gate.chat(model="local-embeddings/tiny")
            assert (reply.status, reply.json["error"]["code"]) == (400, "unsupported_parameter")
            assert "has no /v1/chat/completions" in reply.json["error"]["message"]
        await twin.close()

    virtual(main)


def test_closing_hands_over_the_last_records(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            await gate.chat()
            assert gate.kept == []
            gate.plane.close()
            assert len(gate.kept) == 1

    virtual(main)
