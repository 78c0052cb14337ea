"""The rows of the table: who asks, whom, and with what.

All callers are the official SDK's: two retries by its own rules (`load.retries`), in front of
the same simulated provider at the same limits. A row differs in what stands between.

    direct      the application calls the provider
    retrieval   the same, with a search before and 700 retrieved tokens in each prompt
    forebay     the application calls Forebay, which calls the provider
"""

from pathlib import Path
from typing import Any

import msgspec

from forebay.testbed.load.client import Target
from forebay.testbed.load.driver import Driver
from forebay.testbed.load.retries import SdkRetries
from forebay.testbed.load.workload import ChatBodies, Prompts, Workload
from forebay.testbed.table.children import Child, start_gateway, start_twin
from forebay.testbed.table.retrieval import Retrieval
from forebay.testbed.twins.house import KEY
from forebay.world import World

MODEL = "frontier"
TITLES = {
    "direct": "direct wrapper",
    "retrieval": "direct + basic retrieval",
    "forebay": "Forebay",
}


class Stage(msgspec.Struct):
    """A row that is set up: its processes and its driver."""

    twin: Child
    gateway: Child | None
    driver: Driver
    workload: Workload
    notes: list[str]

    async def close(self) -> None:
        if self.gateway is not None:
            await self.gateway.stop()
        await self.twin.stop()


async def set_up(
    row: str, world: World, workload: Workload, retrieval: Retrieval | None, seed: int, home: Path
) -> Stage:
    """Fresh processes for each row: no limit, cache or connection is carried over."""
    twin = await start_twin([MODEL], seed, home)
    provider = twin.ready["twins"][0]["base_url"]
    gateway = None
    headers = {"authorization": f"Bearer {KEY}", "user-agent": "forebay-bench"}
    base_url = provider + "/v1"
    extra = None
    notes = []
    try:
        if row == "forebay":
            gateway = await start_gateway(gateway_config(provider), home)
            base_url = gateway.ready["gateway"]
        elif row == "retrieval":
            assert retrieval is not None
            workload = retrieval.delayed(workload)
            extra = retrieval.extra
            notes.append(retrieval.note)
    except BaseException:
        await twin.stop()
        raise
    driver = Driver(
        world,
        Target.of(base_url, "/chat/completions", headers),
        ChatBodies(Prompts(seed), MODEL, extra),
        SdkRetries(),
    )
    return Stage(twin, gateway, driver, workload, notes)


def gateway_config(provider: str) -> dict[str, Any]:
    """forebay.yaml of the Forebay row: defaults, and where the provider is."""
    return {
        "providers": {
            "twin": {"kind": "openai", "base_url": provider + "/v1", "api_key": KEY, "prices": ""}
        },
        "models": {MODEL: f"twin/{MODEL}"},
    }
