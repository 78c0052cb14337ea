"""The only place that constructs things: config in, a wired data plane out.

What a worker serves with is made here in the order in which it is used, and closed in
reverse. The same function builds it in a worker process and in virtual time.
"""

from collections.abc import Callable

import msgspec

from forebay.admission.keys import Keyring
from forebay.config import LOCAL_NAMES, Forebay
from forebay.inference.local import Served
from forebay.observe.recorder import Recorder
from forebay.pipeline import Way
from forebay.providers import OpenAI, Provider
from forebay.providers.facts import ModelFacts
from forebay.providers.prices import PriceTable
from forebay.routing.catalogue import Catalogue
from forebay.world import World


class DataPlane(msgspec.Struct):
    """A worker's wired parts. `way` is what requests see."""

    way: Way
    recorder: Recorder
    _config: Forebay
    _served: dict[str, Served] = {}

    def local(self, served: Served) -> None:
        """A model server on this machine came up, perhaps on another port than before.

        Told again of the one it knows, by a back office that started anew, it does nothing:
        there are answers under way.
        """
        if self._served.get(served.name) == served:
            return
        self._served[served.name] = served
        catalogue = self.way.catalogue
        facts = ModelFacts(
            context_tokens=served.context,
            max_output_tokens=served.max_output,
            tools=served.tools,
            images=served.images,
        )
        settings = OpenAI(
            base_url=served.base_url,
            api_key=served.api_key,
            proxy="off",
            prices="",
            models=dict.fromkeys(served.models, facts),
        )
        provider = settings.build(served.name, self.way.world)
        kinds = {"embeddings"} if served.dimensions else {"chat"}
        provider.restrict(kinds)
        before = catalogue.providers.get(served.name)
        catalogue.providers[served.name] = provider
        catalogue.expected.discard(served.name)
        catalogue.refresh()
        if before is not None:
            before.target.close()

    def close(self) -> None:
        self.recorder.flush()
        for provider in self.way.catalogue.providers.values():
            provider.target.close()


def data_plane(
    config: Forebay,
    world: World,
    pepper: bytes,
    send_records: Callable[[list[bytes]], bool],
    config_version: str = "",
    worker: int = 0,
) -> DataPlane:
    """Wire a worker. Raises Failure where a provider's settings can't work."""
    recorder = Recorder(world, send_records, config_version, worker)
    way = Way(
        world=world,
        keyring=Keyring(pepper),
        keys_required=config.keys.loopback == "required",
        catalogue=Catalogue(
            build_providers(config, world),
            config.names(),
            frozenset(LOCAL_NAMES if config.local.enabled else ()),
        ),
        cache=config.caches.exact.build(),
        prices=PriceTable(),
        timeouts=config.timeouts,
        capture=config.record.capture,
        recorder=recorder,
    )
    return DataPlane(way, recorder, config)


def build_providers(config: Forebay, world: World) -> dict[str, Provider]:
    return {name: settings.build(name, world) for name, settings in config.providers.items()}
