"""What travels: one request and everything that is decided and learned about it.

Read the groups from top to bottom, they are the life of a request. Each field says who
writes it, when, and what None means. Layers see the Exchange and their own state, nothing
else; only `pipeline` and the layer named here write a field.
"""

import array
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from forebay.errors import Failure
from forebay.schema.usage import Usage

Dialect = Literal["openai", "anthropic"]
Capture = Literal["off", "hashed", "full"]
Headers = list[tuple[bytes, bytes]]
"""Names in lower case; values as they came off the wire."""

Splice = tuple[int, int, bytes]


class Head(msgspec.Struct):
    """A request's headers, sorted once by what they mean (`dialects.headers.read`)."""

    #: headers the gateway looks at itself, by name
    single: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    #: those that go to a provider of the caller's dialect
    up: Headers = msgspec.field(default_factory=list)
    #: those a record keeps; nothing that grants access
    recorded: Headers = msgspec.field(default_factory=list)
    repeated: bytes = b""  # a header of `single` that came twice
    proxied: bytes = b""  # one that only a proxy adds


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """Who is asking. The tenant of every cache and record is the project."""

    team: str = "default"
    project: str = "default"
    key_id: str = ""  # "" where no key was needed (loopback)


class Ask(msgspec.Struct):
    """What the caller wants, read from the body by the endpoint's dialect.

    Only what the pipeline decides on; everything else stays bytes in `body`.
    """

    model: str
    stream: bool = False
    #: the caller asked for the usage chunk of an OpenAI stream itself
    include_usage: bool = False
    #: temperature 0 or a fixed seed with it: the same request may be given the same answer
    deterministic: bool = False
    images: bool = False  # an image is among the input
    #: upper bound on output tokens, None where the caller set none
    max_output_tokens: int | None = None
    #: upper bound of input tokens (UTF-8 bytes of all text + a constant a message)
    input_tokens_bound: int = 0
    #: what the input probably is, in tokens
    input_tokens_estimate: int = 0
    #: shape that travels with the ask to a conversion, None where bytes pass through
    shape: Any = None


class Chunks:
    """A body as it came: the bytes in one buffer, and where and when each chunk ended.

    One `bytearray` and one packed array instead of a list of objects: 300-byte events cost
    12 bytes of bookkeeping each, not 41 (`stream_kb` in docs/benchmarks.md).
    """

    __slots__ = ("data", "marks", "start_ns")

    def __init__(self, start_ns: int) -> None:
        self.data = bytearray()
        #: pairs: end offset in bytes, µs since `start_ns`
        self.marks = array.array("I")
        self.start_ns = start_ns

    def add(self, chunk: bytes, now_ns: int) -> None:
        self.data += chunk
        self.marks.append(len(self.data))
        self.marks.append(min((now_ns - self.start_ns) // 1000, 0xFFFFFFFF))


class Attempt(msgspec.Struct):
    """One call to one provider: what was sent, what came back, what it cost.

    `sent` is the upstream body, as splices of the caller's body where bytes passed through
    (nothing is stored twice), as bytes where a conversion made it.
    """

    provider: str
    model: str
    method: str = "POST"
    path: str = ""
    sent_headers: Headers = msgspec.field(default_factory=list)  # credentials left out
    sent: bytes | list[Splice] = b""
    status: int = 0  # 0: no response head arrived
    headers: Headers = msgspec.field(default_factory=list)
    body: Chunks | None = None  # None: no body arrived
    usage: Usage | None = None  # None: nothing is known
    cost_nusd: int | None = None  # None: the model has no price
    finish_reason: str | None = None  # None: no reason arrived, so not a success
    model_reported: str | None = None
    outcome: str = "open"  # ok | cancelled | a code of errors.CODES
    started_ns: int = 0
    head_ns: int = 0  # 0: never
    first_ns: int = 0  # first content byte, 0: never
    ended_ns: int = 0


class Exchange(msgspec.Struct):
    # -- arrival: written by app, before the pipeline
    id: str
    received_ns: int  # monotonic, when the request line was complete
    received_wall_ns: int
    method: str
    path: str
    query: str
    head: Head
    peer: str  # address of the caller, "" on a Unix socket
    endpoint: str = ""  # name in dialects.ENDPOINTS
    dialect: Dialect = "openai"
    body: bytes = b""
    decoded_ns: int = 0

    # -- identity: written by step 2
    tenant: Tenant = Tenant()
    identified_ns: int = 0

    # -- plan: what was decided
    ask: Ask | None = None  # None: the body never made sense
    route: str = ""  # why this target, in a few words
    capture: Capture = "full"
    cache: str = "bypass"  # exact | miss | bypass
    cache_key: bytes = b""  # b"": not cacheable
    cache_source: str = ""  # id of the exchange that filled the entry
    planned_ns: int = 0

    # -- attempts: one for each call that was made, in order
    attempts: list[Attempt] = msgspec.field(default_factory=list)

    # -- reply: what the caller received
    status: int = 0  # 0: the caller left before there was one
    reply_headers: Headers = msgspec.field(default_factory=list)
    #: splices of the last attempt's body where bytes passed through, [] = the very same
    reply_body: Chunks | list[Splice] | None = None
    first_ns: int = 0  # first body byte to the caller
    ended_ns: int = 0

    # -- account: written once, in settle
    outcome: str = "open"  # ok | cancelled | a code of errors.CODES
    failure: Failure | None = None
    usage: Usage | None = None
    cost_nusd: int | None = None
    saved_nusd: int = 0  # what a cache hit would have cost
    draws: list[str] = msgspec.field(default_factory=list)  # ids and other random choices made
    #: called when the caller leaves; set by whoever waits on its behalf
    on_gone: Callable[[], None] | None = None
