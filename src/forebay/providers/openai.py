"""OpenAI, and everything that speaks its dialect: vLLM, llama.cpp, Groq, Mistral, Ollama, …"""

import msgspec

from forebay.dialects.endpoints import ENDPOINTS
from forebay.exchange import Headers
from forebay.providers.facts import OPENAI, OPENAI_COMPATIBLE
from forebay.providers.provider import Address, Provider, origin_path
from forebay.providers.settings import Link, bearer, value_of
from forebay.world import World

BASE_URL = "https://api.openai.com/v1"


class OpenAI(Link, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="openai"):
    """An API in OpenAI's dialect. Without `base_url` it is OpenAI's own."""

    #: where its API lives; path included
    base_url: str = BASE_URL
    #: the provider's own key; empty sends none
    api_key: str = ""
    #: sent as OpenAI-Organization
    organization: str = ""
    #: sent as OpenAI-Project
    project: str = ""
    #: name in the price list (genai-prices); "" means free, as for a server of your own;
    #: unset: `openai` at OpenAI itself, else the name you gave the provider
    prices: str | msgspec.UnsetType = msgspec.UNSET

    def extra_headers(self) -> Headers:
        headers = super().extra_headers()
        for name in ("organization", "project"):
            if value := getattr(self, name):
                headers.append((f"openai-{name}".encode(), value_of(value, name)))
        return headers

    def credentials(self) -> Headers:
        return bearer(self.api_key)

    def build(self, name: str, world: World) -> Provider:
        own = self.base_url == BASE_URL
        path = self.url().path
        facts = OPENAI if own else OPENAI_COMPATIBLE
        paths = {e: origin_path(path, ENDPOINTS[e].path) for e in facts.endpoints}
        paths["models"] = origin_path(path, "/v1/models")
        return Provider(
            name,
            "openai",
            self.target(world),
            Address(paths, prefix=path.rstrip("/")),
            self.credentials(),
            facts,
            headers=self.extra_headers(),
            models=self.models,
            prices=self.prices if isinstance(self.prices, str) else "openai" if own else name,
        )
