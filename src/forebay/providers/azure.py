"""Azure OpenAI: OpenAI's bodies under deployment paths, with a version and its own key header.

A *deployment* stands where the model stands elsewhere. `deployments` maps the names callers
use to yours; a name that isn't in it is taken as the deployment's own.
"""

import re
from urllib.parse import SplitResult

from forebay.errors import Failure
from forebay.exchange import Headers
from forebay.providers.facts import OPENAI, ModelFacts
from forebay.providers.provider import Address, Provider
from forebay.providers.settings import Link, value_of
from forebay.world import World

#: The first version with structured outputs and `stream_options`, still generally available.
API_VERSION = "2024-10-21"
_VERSION = re.compile(r"[A-Za-z0-9._-]+")


class AzureOpenAI(
    Link, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="azure_openai"
):
    """An Azure OpenAI resource: base_url like https://NAME.openai.azure.com."""

    #: a key of the resource
    api_key: str = ""
    #: sent as api-version, but for /v1/responses, which needs none
    api_version: str = API_VERSION
    #: names that callers use → names of your deployments
    deployments: dict[str, str] = {}  # noqa: RUF012  (msgspec copies defaults)

    def credentials(self) -> Headers:
        return [(b"api-key", value_of(self.api_key, "api_key"))] if self.api_key else []

    def url(self) -> SplitResult:
        if not _VERSION.fullmatch(self.api_version):
            raise Failure(
                "bad_request",
                f"api_version {self.api_version[:40]!r} is none.",
                hint=f"Write it like {API_VERSION}.",
                param="api_version",
            )
        if not self.base_url:
            raise Failure(
                "bad_request",
                "An azure_openai provider needs base_url.",
                hint="Copy the resource's endpoint: https://NAME.openai.azure.com.",
                param="base_url",
            )
        return super().url()

    def build(self, name: str, world: World) -> Provider:
        base = self.url().path.rstrip("/")
        query = f"api-version={self.api_version}"
        deployment = f"{base}/openai/deployments/{{model}}"
        paths = {
            "chat": f"{deployment}/chat/completions?{query}",
            "embeddings": f"{deployment}/embeddings?{query}",
            "responses": f"{base}/openai/v1/responses",
            "models": f"{base}/openai/models?{query}",
        }
        return Provider(
            name,
            "openai",
            self.target(world),
            Address(paths, prefix=base, query=query, aliases=self.deployments),
            self.credentials(),
            OPENAI,
            headers=self.extra_headers(),
            models={**dict.fromkeys(self.deployments, ModelFacts()), **self.models},
            prices="azure",
        )
