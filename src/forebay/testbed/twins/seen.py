"""What a twin saw, and what it charged: the two accounts that tests and benchmarks trust.

`Log`: one entry a request, with exact bytes both ways (or their digests under load), when
each thing happened and how it ended:

    complete    the whole answer was handed to the connection
    refused     an error answer: a limit, a bad key, a bad request
    gone        the peer closed or reset before the end
    fault:NAME  a scripted fault was its end

`Bill`: what this provider charges, by its own count, as exact integers of nano-dollars per
request id. Refusals cost nothing; an answer whose caller left costs what had been made.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from forebay.schema.usage import Usage


class Seen(msgspec.Struct, eq=False):
    """One request. Times are ns of the World's monotonic clock; 0 is never."""

    number: int
    connection: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes  # b"" where bodies are not kept
    body_sha256: str  # "" where they are kept
    body_size: int
    received_ns: int
    request_id: str = ""
    model: str = ""
    status: int = 0
    first_byte_ns: int = 0
    first_token_ns: int = 0
    ended_ns: int = 0
    outcome: str = "open"
    fault: str = ""
    events: int = 0
    tokens: int = 0
    keep_sent: bool = False
    sent: bytearray = msgspec.field(default_factory=bytearray)  # body bytes, if kept
    sent_size: int = 0

    @property
    def ended(self) -> bool:
        return self.outcome != "open"

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def public(self) -> dict[str, Any]:
        """For the admin API: JSON values, bodies as text, keys of callers left out."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["headers"] = [
            (name, "***" if name in SECRET_HEADERS else value) for name, value in self.headers
        ]
        shown["body"] = self.body.decode("utf-8", "replace")
        shown["sent"] = self.sent.decode("utf-8", "replace")
        return shown


SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})


class Log:
    """The last requests, oldest first."""

    def __init__(self, limit: int, keep_bodies: bool) -> None:
        self.keep_bodies = keep_bodies
        self.total = 0
        self._entries: deque[Seen] = deque(maxlen=limit)
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def open(
        self,
        connection: int,
        method: str,
        path: str,
        query: str,
        headers: list[tuple[str, str]],
        body: bytes,
        now_ns: int,
    ) -> Seen:
        seen = Seen(
            number=self.total,
            connection=connection,
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body if self.keep_bodies else b"",
            body_sha256="" if self.keep_bodies else hashlib.sha256(body).hexdigest(),
            body_size=len(body),
            received_ns=now_ns,
            keep_sent=self.keep_bodies,
        )
        self.total += 1
        self._entries.append(seen)
        self.changed()
        return seen

    def close(self, seen: Seen, outcome: str, now_ns: int) -> None:
        """The one way an entry ends; the first outcome stands."""
        if not seen.ended:
            seen.outcome = outcome
            seen.ended_ns = now_ns
            self.changed()

    def changed(self) -> None:
        """Something a watcher may wait for has happened."""
        for true, waiter in list(self._watchers):
            if not waiter.done() and true():
                waiter.set_result(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until a claim about this log holds. It is looked at on each change."""
        if true():
            return
        watcher = (true, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        try:
            await watcher[1]
        finally:
            self._watchers.remove(watcher)

    async def settled(self, number: int) -> list[Seen]:
        """Wait until so many requests have come and all have ended; all of them."""
        await self.until(lambda: self.total >= number and all(seen.ended for seen in self))
        return list(self)

    def clear(self) -> None:
        self._entries.clear()
        self.total = 0

    def __iter__(self) -> Iterator[Seen]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, at: int) -> Seen:
        return self._entries[at]


class Charge(msgspec.Struct, frozen=True):
    request_id: str
    model: str
    usage: Usage
    cost_nusd: int
    outcome: str


class Bill:
    """All charges; the sums are exact however many there are, details of the last ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.total_nusd = 0
        self.count = 0
        self.models: dict[str, int] = {}  # nano-dollars by model
        self.charges: OrderedDict[str, Charge] = OrderedDict()

    def add(self, charge: Charge) -> None:
        self.total_nusd += charge.cost_nusd
        self.count += 1
        self.models[charge.model] = self.models.get(charge.model, 0) + charge.cost_nusd
        self.charges[charge.request_id] = charge
        if len(self.charges) > self._limit:
            self.charges.popitem(last=False)
