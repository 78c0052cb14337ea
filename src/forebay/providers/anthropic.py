"""Anthropic, and whatever speaks its Messages dialect."""

from forebay.dialects.endpoints import ENDPOINTS
from forebay.exchange import Headers
from forebay.providers.facts import ANTHROPIC
from forebay.providers.provider import Address, Provider, origin_path
from forebay.providers.settings import Link, value_of
from forebay.world import World

BASE_URL = "https://api.anthropic.com"
#: Sent where the caller named none; the only version there has been since 2023.
VERSION = b"2023-06-01"


class Anthropic(Link, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="anthropic"):
    """An API in Anthropic's dialect. Without `base_url` it is Anthropic's own."""

    #: where its API lives, without /v1
    base_url: str = BASE_URL
    #: the provider's own key; empty sends none
    api_key: str = ""

    def credentials(self) -> Headers:
        return [(b"x-api-key", value_of(self.api_key, "api_key"))] if self.api_key else []

    def build(self, name: str, world: World) -> Provider:
        path = self.url().path
        paths = {e: origin_path(path, ENDPOINTS[e].path) for e in ANTHROPIC.endpoints}
        paths["models"] = origin_path(path, "/v1/models")
        return Provider(
            name,
            "anthropic",
            self.target(world),
            Address(paths, prefix=path.rstrip("/"), defaults=((b"anthropic-version", VERSION),)),
            self.credentials(),
            ANTHROPIC,
            headers=self.extra_headers(),
            models=self.models,
            prices="anthropic" if self.base_url == BASE_URL else name,
        )
