"""A simulated provider: the state that its requests share, and its listening socket.

The way of one request is in `visit`; the pacing of one answer in `reply`. Every request is
in the log from its first moment and ends there exactly once; whatever was made is billed.
"""

import asyncio
import random
import ssl
from typing import Self

from forebay.testbed.twins import faults
from forebay.testbed.twins.admin import admin
from forebay.testbed.twins.anthropic import AnthropicDialect
from forebay.testbed.twins.connection import Connection, HttpRequest
from forebay.testbed.twins.facts import TwinConfig
from forebay.testbed.twins.form import Dialect
from forebay.testbed.twins.hosted import usage
from forebay.testbed.twins.luck import Luck
from forebay.testbed.twins.openai_api import OpenAIDialect
from forebay.testbed.twins.question import Answer, Question
from forebay.testbed.twins.seen import Bill, Charge, Log, Seen
from forebay.testbed.twins.served import Served, served
from forebay.testbed.twins.text import Corpus
from forebay.testbed.twins.visit import Visit
from forebay.world import World


class Twin:
    """One provider. `Twin.start` makes it, `close` ends it."""

    def __init__(self, world: World, config: TwinConfig) -> None:
        seed = config.seed if config.seed is not None else world.rng.getrandbits(64)
        self.world = world
        self.config = config
        self.bytes_per_s = config.bytes_per_s
        self.log = Log(config.log_limit, config.keep_bodies)
        self.bill = Bill(config.log_limit)
        self.luck = Luck(seed)
        self.corpus = Corpus(seed)
        self.dialect: Dialect = (
            OpenAIDialect() if config.dialect == "openai" else AnthropicDialect()
        )
        self.models: dict[str, Served] = {
            name: served(world, name, facts, config.dialect == "anthropic")
            for name, facts in config.models.items()
        }
        self.base_url = ""
        self._ids = random.Random(seed)  # noqa: S311 - ids of a simulated provider
        self._connections: set[Connection] = set()
        self._connection_count = 0
        self._server: asyncio.Server | None = None
        self.set_script(faults.Script([]))

    @classmethod
    async def start(
        cls,
        world: World,
        host: str = "127.0.0.1",
        port: int = 0,
        config: TwinConfig | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """A listening twin; port 0 takes a free one. Raises OSError where it can't listen."""
        twin = cls(world, config or TwinConfig())
        loop = asyncio.get_running_loop()
        twin._server = await loop.create_server(
            lambda: Connection(twin), host, port, ssl=tls, backlog=4096
        )
        bound = twin._server.sockets[0].getsockname()[1]
        # Without `/v1`: the OpenAI SDK wants it in the base URL, Anthropic's adds it itself.
        twin.base_url = f"{'https' if tls else 'http'}://{host}:{bound}"
        return twin

    async def close(self) -> None:
        """Stop listening and reset what is connected."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.reset()
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    def new_id(self) -> str:
        """24 hex digits from the twin's own dice."""
        return f"{self._ids.getrandbits(96):024x}"

    def describe(self) -> str:
        models = " ".join(model.describe() for model in self.models.values())
        return (
            f"<Twin {self.config.dialect} {self.base_url} {len(self._connections)} connections, "
            f"{self.log.total} requests, {len(self.script.faults)} faults, {models}>"
        )

    # -- faults

    def set_script(self, script: faults.Script) -> None:
        """From now on these faults; their numbers and seconds count from here."""
        self.script = script
        self._script_since_ns = self.world.now_ns()
        self._script_requests = 0

    def count_for_script(self) -> int:
        """The number of the request that asks, counted since the script was set."""
        number = self._script_requests
        self._script_requests += 1
        return number

    @property
    def script_age_s(self) -> float:
        return (self.world.now_ns() - self._script_since_ns) / 1e9

    # -- what connections and replies tell

    def connected(self, connection: Connection) -> int:
        self._connections.add(connection)
        self._connection_count += 1
        return self._connection_count

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def serve(self, request: HttpRequest, connection: Connection) -> Visit | None:
        if request.path.startswith("/_twin/"):
            connection.respond(*admin(self, request))
            return None
        seen = self.log.open(
            connection.number,
            request.method,
            request.path,
            request.query,
            request.headers,
            request.body,
            self.world.now_ns(),
        )
        seen.request_id = f"req_{self.new_id()}"
        visit = Visit(self, request, connection, seen)
        visit.begin()
        return visit

    def over(self, seen: Seen, outcome: str, question: Question, answer: Answer) -> None:
        """A reply has ended: what was made is charged, its entry closed."""
        whole = outcome == "gone" and self.config.bill_when_gone == "whole"
        used = usage(answer.split, answer.tokens if whole else seen.tokens)
        cost_nusd = self.models[question.model].facts.rates.cost_nusd(used)
        self.bill.add(Charge(seen.request_id, question.model, used, cost_nusd, outcome))
        self.log.close(seen, outcome, self.world.now_ns())
