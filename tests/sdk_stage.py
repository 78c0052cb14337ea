"""The providers of the tests over the SDKs: twins on an event loop in a thread of this process.

So a test looks straight into what a provider saw, when and byte for byte, on the same clock as
its own. `Stage` is that thread and its providers; `Bare` one that answers whatever it is told.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trustme
import uvloop

from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.connection import Connection, HttpRequest
from forebay.testbed.twins.facts import Hosted, Model
from forebay.testbed.twins.faults import Fault, Script, Status
from forebay.testbed.twins.seen import Seen
from forebay.world import RealWorld, World

T = TypeVar("T")

#: Keys of the providers. They stand in the environment of `forebay up` alone: found anywhere
#: in its home or its output, they leaked.
OPENAI_KEY = "sk-canary-openai-0123456789abcdef"
AZURE_KEY = "canary-azure-0123456789abcdef"
ANTHROPIC_KEY = "sk-ant-canary-0123456789abcdef"
WRONG_KEY = "sk-canary-wrong-0123456789abWXYZ"
PROVIDER_KEYS = {
    "CANARY_WRONG": WRONG_KEY,
    "CANARY_OPENAI": OPENAI_KEY,
    "CANARY_AZURE": AZURE_KEY,
    "CANARY_ANTHROPIC": ANTHROPIC_KEY,
}

USER: Any = [{"role": "user", "content": "What is a forebay? [out:12]"}]
INSTANT = PRESETS["instant"]


def _paced(first_s: float = 0.0, events_per_s: float = 20.0) -> Hosted:
    """One token an event."""
    return Hosted(
        ttft_median_s=first_s,
        ttft_sigma=0.0,
        prefill_ms_per_1k=0.0,
        tokens_per_s=events_per_s,
        tokens_spread=0.0,
        events_per_s=events_per_s,
    )


MODELS: dict[str, Model] = {
    "instant": INSTANT,
    # a token every 50 ms
    "slow": _paced(),
    # nothing for a minute
    "silent": _paced(first_s=60.0),
    # as much as is asked for, as fast as it is taken
    "flood": msgspec.structs.replace(INSTANT, context=2_000_000),
    # tells its limits
    "limited": msgspec.structs.replace(INSTANT, rpm=600, tpm=100_000, burst_s=60),
}
#: by the dialect that knows them: names in the price list
PRICED: dict[str, dict[str, Model]] = {
    "openai": {"gpt-4o-mini": INSTANT},
    "anthropic": {"claude-haiku-4-5": INSTANT},
}


class Bare:
    """A provider that answers any path with what it is told to, and keeps what it was asked."""

    bytes_per_s: int | None = None

    def __init__(self) -> None:
        self.world: World = RealWorld()
        self.asked: list[HttpRequest] = []
        self.answer: Callable[[HttpRequest], tuple[int, list[tuple[str, str]], bytes, str]]
        self.base_url = ""
        self._connections: set[Connection] = set()
        self.reset()

    def reset(self) -> None:
        self.asked = []
        self.answer = lambda _: (200, [], b"{}", "application/json")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.reset()

    def connected(self, connection: Connection) -> int:
        self._connections.add(connection)
        return 0

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def serve(self, request: HttpRequest, connection: Connection) -> None:
        self.asked.append(request)
        connection.respond(*self.answer(request))


class Stage:
    """The providers, on an event loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="twins", daemon=True)
        self._thread.start()
        self.world = RealWorld()
        self.bare = Bare()
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.run(self._start())

    async def _start(self) -> None:
        spoken = TwinConfig(models=MODELS | PRICED["openai"], keys=(OPENAI_KEY, AZURE_KEY), seed=1)
        self.openai = await Twin.start(self.world, config=spoken)
        self.tls = await Twin.start(self.world, config=spoken, tls=self._tls)
        self.anthropic = await Twin.start(
            self.world,
            config=TwinConfig(
                dialect="anthropic",
                models=MODELS | PRICED["anthropic"],
                keys=(ANTHROPIC_KEY,),
                seed=2,
            ),
        )
        await self.bare.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 20.0) -> T:
        """Run it where the providers live, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def do(self, what: Callable[[], T]) -> T:
        async def work() -> T:
            return what()

        return self.run(work())

    def reset(self) -> None:
        """No faults, nothing seen."""

        def work() -> None:
            for twin in self.twins:
                twin.set_script(Script([]))
                twin.log.clear()
            self.bare.reset()

        self.do(work)

    @property
    def twins(self) -> list[Twin]:
        return [self.openai, self.tls, self.anthropic]

    def twin(self, model: str) -> Twin:
        """The twin behind `provider/model`."""
        provider = model.partition("/")[0]
        return {"anthropic": self.anthropic, "trusted": self.tls}.get(provider, self.openai)

    def seen(self, model: str, number: int = 1) -> list[Seen]:
        """What the twin behind a model was asked, once so many requests have ended there."""
        return self.run(self.twin(model).log.settled(number))

    def one(self, model: str) -> Seen:
        (seen,) = self.seen(model)
        return seen

    def fault(self, model: str, what: Any, **more: Any) -> None:
        """From now on this goes wrong at the model's provider."""
        self.do(lambda: self.twin(model).set_script(Script([Fault(what=what, **more)])))

    def answers(
        self, model: str, body: bytes | str, content_type: str = "application/json"
    ) -> None:
        """From now on the model's provider answers 200 with these very bytes."""
        text = body.decode() if isinstance(body, bytes) else body
        self.fault(model, Status(status=200, body=text, content_type=content_type))

    def close(self) -> None:
        async def work() -> None:
            self.bare.close()
            for twin in self.twins:
                await twin.close()

        self.run(work())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()
