"""The same request, the same answer: no model asked, nothing paid.

A key is a full SHA-256 over the tenant, the target that would answer and everything in the
body that can change the answer. Left out are only the members that change how it is
delivered: `stream` and `stream_options`. So one entry serves callers who stream and callers
who don't: it keeps the body as it came and makes the other form when somebody first asks for
it. Each delivery carries a fresh id, since callers use ids to tell answers apart.

What enters: complete successful answers to requests that said they are deterministic
(temperature 0; embeddings always) or asked to be cached (`x-forebay-cache: on`). Bounded by
bytes, least recently used out first; each entry has its own end of life.

Plain LRU: admission policies (TinyLFU) win where one-off keys flood a small cache; at 64 MiB
of 2 KB answers that is 30,000 one-off requests between two equal ones.
"""

import hashlib
import secrets
from collections import OrderedDict
from typing import Annotated

import msgspec

from forebay.dialects import stitch
from forebay.dialects.decoding import encode
from forebay.dialects.usage import as_chat
from forebay.errors import Failure
from forebay.exchange import Exchange, Head, Headers
from forebay.schema.usage import Usage
from forebay.wire import members as top
from forebay.wire.clock import SECOND_NS
from forebay.wire.members import Members
from forebay.world import World

_DELIVERY = frozenset({"stream", "stream_options"})
#: Headers that go up and name the request, not what it asks: another value each time.
_LABELS = frozenset({b"idempotency-key", b"x-client-request-id"})
#: Bookkeeping per entry beside the bytes of its forms: key, slots, lists (sys.getsizeof).
ENTRY_OVERHEAD = 700

#: Stands where an id will be. Random for each process: no answer can contain it by design.
_ID_MARK = "id-" + secrets.token_hex(16)
_ID_BYTES = _ID_MARK.encode()


_ID_PREFIX = {"chat": "chatcmpl-", "messages": "msg_"}


class Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exact cache."""

    #: false: nothing is kept, every reply says `bypass`
    enabled: bool = True
    #: most memory for answers, in MiB, per worker
    max_mb: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 64
    #: how long an answer may be given again, in seconds
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 3600.0

    def build(self) -> "ExactCache | None":
        return ExactCache(self.max_mb * 1024 * 1024, self.ttl_s) if self.enabled else None


class Entry:
    """One answer, in the forms that were asked for so far."""

    __slots__ = (
        "_body",
        "_endpoint",
        "_forms",
        "_streamed",
        "cost_nusd",
        "expires_ns",
        "model",
        "provider",
        "size",
        "source",
        "usage",
    )

    def __init__(
        self,
        x: Exchange,
        body: bytes,
        streamed: bool,
    ) -> None:
        attempt = x.attempts[-1]
        self._body = body
        self._streamed = streamed
        self._endpoint = x.endpoint
        self._forms: dict[tuple[bool, bool], list[bytes]] = {}
        self.source = x.id
        self.provider = attempt.provider
        self.model = attempt.model
        self.usage: Usage | None = x.usage
        self.cost_nusd = x.cost_nusd or 0
        self.expires_ns = 0
        self.size = len(body) + ENTRY_OVERHEAD

    def form(self, stream: bool, include_usage: bool, world: World) -> tuple[bytes, str]:
        """The answer as JSON or as a stream, and the fresh id it carries ("" where answers of
        its kind have none). Sync, ~1 µs; the first time in a form, as long as its conversion
        takes (~50 µs for 2 KB)."""
        pieces = self._forms.get((stream, include_usage))
        if pieces is None:
            pieces = self._cut(stream, include_usage)
            self._forms[stream, include_usage] = pieces
        if len(pieces) == 1:
            return pieces[0], ""
        new_id = world.new_id(_ID_PREFIX[self._endpoint])
        return new_id.encode().join(pieces), new_id

    def _cut(self, stream: bool, include_usage: bool) -> list[bytes]:
        body = self._body
        if self._endpoint == "chat":
            if self._streamed:
                body = self._with_usage(stitch.assemble_chat(body))
            if stream:
                body = stitch.unstitch_chat(body, include_usage)
        elif self._endpoint == "messages":
            if self._streamed:
                body = stitch.assemble_messages(body)
            if stream:
                body = stitch.unstitch_messages(body)
        else:
            return [body]
        return stitch.with_id(body, _ID_MARK).split(_ID_BYTES)

    def _with_usage(self, body: bytes) -> bytes:
        """A converted stream holds its usage only where its first caller had asked for it."""
        if self.usage is None or self.usage.estimated:
            return body
        members = top.parse(body)
        if "usage" in members.raw:
            return body
        return top.apply(body, members.edits({"usage": encode(as_chat(self.usage))}))


class ExactCache:
    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self.max_bytes = max_bytes
        self.ttl_ns = int(ttl_s * SECOND_NS)
        self.held_bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"<ExactCache {len(self._entries)} entries, {self.held_bytes} of {self.max_bytes} "
            f"bytes, {self.hits} hits, {self.misses} misses>"
        )

    def get(self, key: bytes, now_ns: int) -> Entry | None:
        """Sync, ~0.4 µs."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        if entry.expires_ns <= now_ns:
            self._drop(key)
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry, now_ns: int) -> None:
        """Keep an answer; one larger than the whole cache is not kept. Sync, ~1 µs."""
        if key in self._entries:
            self._drop(key)
        if entry.size > self.max_bytes:
            return
        entry.expires_ns = now_ns + self.ttl_ns
        self._entries[key] = entry
        self.held_bytes += entry.size
        while self.held_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def forget(self, key: bytes) -> None:
        """An entry turned out to be of no use."""
        if key in self._entries:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self.held_bytes -= self._entries.pop(key).size


def wish_of(head: Head) -> str:
    """What the caller asks of the cache: on, off, refresh, or "" for the default.

    Raises Failure(bad_request).
    """
    wish = head.single.get(b"x-forebay-cache")
    if wish is None:
        return ""
    text = wish.strip().lower().decode("latin-1")
    if text not in ("on", "off", "refresh"):
        raise Failure(
            "bad_request",
            f"x-forebay-cache is {text[:40]!r}.",
            hint="It can be on, off or refresh.",
            param="x-forebay-cache",
        )
    return text


def key_of(x: Exchange, members: Members, target: str, headers: Headers) -> bytes:
    """What makes two requests the same: 32 bytes. Sync, ~6 µs for 5 KB.

    `target` names provider and model; `headers` are those that go to the provider, which may
    change the answer (`anthropic-beta`), but for labels of the request. Parts are joined by
    NUL, which ids, headers and JSON cannot hold (a model's name may, but it stands among the
    members again, as JSON), so that no two different requests are the same bytes.
    """
    tenant = x.tenant
    parts = [f"{tenant.team}\0{tenant.project}\0{x.endpoint}\0{target}".encode()]
    for header in sorted(headers):
        if header[0] not in _LABELS:
            parts += header
    parts.append(b"")  # no header has an empty name: here the members begin
    raw = members.raw
    for name in sorted(raw):
        if name not in _DELIVERY:
            # A decoded name may hold anything; its JSON spelling holds no NUL.
            parts += (name.encode() if name.isalnum() else repr(name).encode(), raw[name])
    return hashlib.sha256(b"\0".join(parts)).digest()
