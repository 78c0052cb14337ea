"""From the name a caller gave to the provider and model that will answer.

Three rules, in this order, first match wins:

1. a name defined in forebay.yaml (`models:`), which may point anywhere;
2. `provider/model`: forwarded as it is, whether or not anybody has heard of the model, so
   that a model works on the day it ships;
3. a bare name: the first provider (in the order of forebay.yaml) that lists it: in its
   settings, by its own /v1/models, or in the price list.

Anything else is a 404 that names what is near.
"""

import difflib

import msgspec

from forebay.errors import Failure
from forebay.exchange import Capture, Headers
from forebay.providers import Provider
from forebay.providers.facts import ModelFacts


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name of your own for a model."""

    #: `provider/model`
    target: str
    #: what is recorded of its prompts and answers
    capture: Capture | None = None
    #: whether its answers may be cached, where the request allows it
    cache: bool = True


class Route(msgspec.Struct, frozen=True):
    """Where a request goes, and why, in a few words for the caller and the record."""

    provider: Provider
    model: str  # the provider's own name
    why: str
    capture: Capture | None = None
    cache: bool = True
    #: what the model is known to take and give; None: nothing
    facts: ModelFacts | None = None
    #: what replies tell of it
    told: Headers = []


class Catalogue:
    def __init__(
        self,
        providers: dict[str, Provider],
        names: dict[str, Model],
        expected: frozenset[str] = frozenset(),
    ) -> None:
        self.providers = providers
        #: providers that are still starting: local models
        self.expected = set(expected) - providers.keys()
        self.names = names
        #: models each provider is known to have, beside those in its settings
        self._listed: dict[str, list[str]] = {}
        self._discovered: dict[str, list[str]] = {}
        self._bare: dict[str, str] = {}
        self._routes: dict[str, Route] = {}
        self.load({}, {})

    def __repr__(self) -> str:
        return f"<Catalogue {len(self.names)} names, {len(self._bare)} models>"

    def load(
        self, discovered: dict[str, list[str]] | None, listed: dict[str, list[str]] | None
    ) -> None:
        """Replace what is known of the providers' models: what they say themselves, and what
        the price list says of them. None: as before."""
        if discovered is not None:
            self._discovered = discovered
        if listed is not None:
            self._listed = listed
        self.refresh()

    def refresh(self) -> None:
        """Take notice of providers that were added or replaced."""
        discovered, listed = self._discovered, self._listed
        self._bare = {}
        self._routes = {}
        for name, provider in self.providers.items():
            for model in [*provider.models, *discovered.get(name, ()), *listed.get(name, ())]:
                self._bare.setdefault(model, name)

    def find(self, asked: str, endpoint: str) -> Route:
        """Raises Failure(unknown_model). Sync, ~0.2 µs for a name seen before."""
        route = self._routes.get(asked)
        if route is None:
            route = self._find(asked)
            facts = route.provider.models.get(route.model)
            if facts is None and route.provider.facts.closed:
                raise self._unknown(asked)
            route = msgspec.structs.replace(route, facts=facts, told=_told(route))
            if len(self._routes) < 10_000 and len(asked) <= 200:  # callers choose the names
                self._routes[asked] = route
        return route

    def provider(self, name: str) -> Provider:
        """By its name in the config. Raises Failure(unknown_path)."""
        try:
            return self.providers[name]
        except KeyError:
            raise Failure(
                "unknown_path",
                f"No provider is named {name[:80]!r}.",
                hint=f"Configured: {', '.join(self.providers) or 'none'}.",
            ) from None

    def models(self) -> list[tuple[str, str]]:
        """What callers can ask for, as (name, provider): configured and discovered."""
        seen = {name: self._provider_of(model.target) for name, model in self.names.items()}
        for name, provider in self.providers.items():
            for model in [*provider.models, *self._discovered.get(name, ())]:
                seen.setdefault(model if self._bare.get(model) == name else f"{name}/{model}", name)
        return list(seen.items())

    def _find(self, asked: str) -> Route:
        if (named := self.names.get(asked)) is not None:
            route = self._direct(named.target)
            if route is None:
                raise self._unknown(named.target)
            return Route(route.provider, route.model, f"name {asked}", named.capture, named.cache)
        if (route := self._direct(asked)) is not None:
            return route
        if (name := self._bare.get(asked)) is not None:
            provider = self.providers[name]
            return Route(provider, provider.wire_model(asked), f"catalogue: {name}")
        raise self._unknown(asked)

    def _direct(self, asked: str) -> Route | None:
        name, slash, model = asked.partition("/")
        provider = self.providers.get(name)
        if provider is None and name in self.expected and model:
            raise Failure(
                "overloaded",
                f"The local model server {name!r} is not up yet.",
                hint="It loads within seconds; `forebay up` says why if it can't.",
                retry_after_s=1.0,
            )
        if provider is None or not slash or not model:
            return None
        return Route(provider, provider.wire_model(model), "direct")

    def _provider_of(self, target: str) -> str:
        return target.partition("/")[0]

    def _unknown(self, asked: str) -> Failure:
        known = [*self.names, *self._bare]
        # Callers choose the length, too: to compare 30 MB takes seconds.
        near = difflib.get_close_matches(asked[:100], known, 3, 0.6)
        shown = f"{asked[:100]!r}"
        if near:
            hint = f"Did you mean {', '.join(near)}?"
        elif not self.providers:
            hint = "No provider is configured: set OPENAI_API_KEY or write a forebay.yaml."
        else:
            hint = (
                f"Ask for provider/model, with one of the providers "
                f"{', '.join(self.providers)}; GET /v1/models lists more."
            )
        return Failure("unknown_model", f"No model is named {shown}.", hint=hint, param="model")


def _told(route: Route) -> Headers:
    """Made once for each name. Callers choose names: no control character gets through."""
    facts = (
        (b"x-forebay-model", route.model),
        (b"x-forebay-provider", route.provider.name),
        (b"x-forebay-route", route.why),
    )
    return [
        (
            name,
            "".join(c if c.isprintable() else "?" for c in text[:200]).encode("latin-1", "replace"),
        )
        for name, text in facts
    ]
