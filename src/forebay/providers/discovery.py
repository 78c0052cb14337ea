"""What models a provider says it has: its own /v1/models, in either dialect.

A provider that does not answer, or not in time, is no error: what was known of it stays.
"""

from typing import Any

from forebay.dialects import decoding
from forebay.providers.provider import Provider
from forebay.wire.clock import SECOND_NS
from forebay.wire.upstream import Clocks, LinkError
from forebay.world import World

TIMEOUT_S = 10.0
MAX_BYTES = 8 * 1024 * 1024
MAX_MODELS = 5_000
#: As long as callers may name one (`dialects.asks`).
MAX_NAME = 512


async def list_models(world: World, provider: Provider) -> list[str] | None:
    """The ids, in the provider's order; None where it didn't say."""
    path = provider.address.paths.get("models")
    if path is None:
        return None
    head = provider.head("GET", path, [(b"accept", b"application/json")], b"")
    deadline = world.now_ns() + int(TIMEOUT_S * SECOND_NS)
    try:
        clocks = Clocks(TIMEOUT_S, TIMEOUT_S, TIMEOUT_S, deadline)
        call = await provider.target.call("GET", head, b"", clocks)
        body = await call.read_all(MAX_BYTES)
    except LinkError:
        return None
    return _ids(body) if call.status == 200 else None


def _ids(body: bytes) -> list[str] | None:
    page: Any = decoding.value(body)
    rows = page.get("data") if isinstance(page, dict) else None
    if not isinstance(rows, list):
        return None
    named = (row.get("id") for row in rows if isinstance(row, dict))
    ids = [name for name in named if isinstance(name, str) and 0 < len(name) <= MAX_NAME]
    return ids[:MAX_MODELS]
