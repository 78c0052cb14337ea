"""Several twins in one process: what `forebay sim` starts.

One provider per dialect serves the chosen presets under their own names; the preset `second`
is a host of its own that serves `frontier` too, slower and with limits of its own.
"""

import resource
from typing import Literal

import msgspec

from forebay.testbed.twins.facts import PRESETS, TwinConfig
from forebay.testbed.twins.faults import Script
from forebay.testbed.twins.twin import Twin
from forebay.world import World

KEY = "twin-key"
DIALECTS: dict[str, tuple[Literal["openai", "anthropic"], ...]] = {
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "both": ("openai", "anthropic"),
}


class Listed(msgspec.Struct, frozen=True):
    """A running twin as it is announced, in the order of ports."""

    name: str
    dialect: str
    base_url: str
    key: str
    models: list[str]


def configs(
    dialect: str, presets: list[str], seed: int | None, keep_bodies: bool
) -> dict[str, TwinConfig]:
    """Twins by name. Raises ValueError for a preset that does not exist."""
    for name in presets:
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    models = {name: PRESETS[name] for name in presets if name != "second"}
    twins: dict[str, TwinConfig] = {}
    for kind in DIALECTS[dialect] if models else ():
        twins[kind] = TwinConfig(
            dialect=kind, models=models, keys=(KEY,), seed=seed, keep_bodies=keep_bodies
        )
    if "second" in presets:
        twins["second"] = TwinConfig(
            models={"frontier": PRESETS["second"]},
            keys=(KEY,),
            seed=None if seed is None else seed + 1,  # a second host has luck of its own
            keep_bodies=keep_bodies,
        )
    return twins


async def start(
    world: World, host: str, port: int, twins: dict[str, TwinConfig], script: bytes | None
) -> list[tuple[Listed, Twin]]:
    """All of them, on `port` and those after it; 0 takes free ones.

    Raises OSError where a port is taken, ValueError for a script that is wrong.
    """
    running = []
    for offset, (name, config) in enumerate(twins.items()):
        twin = await Twin.start(world, host, port + offset if port else 0, config)
        if script is not None:
            twin.set_script(Script.decode(script))
        listed = Listed(name, config.dialect, twin.base_url, KEY, list(config.models))
        running.append((listed, twin))
    return running


def raise_file_limit() -> None:
    """As many sockets as the system lets us: a thousand streams need a thousand and some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
