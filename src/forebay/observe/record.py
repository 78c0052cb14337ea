"""The record of one exchange: enough to replay it, nothing that grants access.

A record holds both wires' exact bytes, each stored once. Where bytes passed through, what the
provider was sent is splices of what the caller sent, and what the caller got is splices of
what the last attempt answered ([] = the very same bytes; a withheld usage chunk is one
splice). Chunk boundaries are pairs of little-endian uint32: end offset in bytes, µs since the
body was due. A spliced reply left in the chunks of the answer it was made from.

Version 1. A field is only ever added at the end: array-like structs decode older and newer
rows alike, with defaults.
"""

from typing import Literal

import msgspec

from forebay.schema.usage import Usage

VERSION = 1

HeaderList = list[tuple[bytes, bytes]]
"""Names in lower case, values as they came off the wire (bytes: decoding is the reader's)."""
Splice = tuple[int, int, bytes]


class Body(msgspec.Struct, omit_defaults=True, gc=False):
    """Bytes and how they were cut. `marks` is empty where there was one chunk or none.

    A map on the wire, not an array as its neighbours: so it is told from a list of splices.
    With capture `hashed`, `data` is the 32-byte SHA-256 of the bytes and `size` their number.
    """

    data: bytes = b""
    marks: bytes = b""
    size: int = 0
    form: Literal["full", "hashed", "off"] = "full"


class AttemptRecord(msgspec.Struct, array_like=True, gc=False):
    """Times are nanoseconds after the exchange's `received`; 0 means never."""

    provider: str
    model: str
    method: str
    path: str
    sent_headers: HeaderList
    sent: Body | list[Splice]  # splices: of the caller's body
    status: int
    headers: HeaderList
    body: Body
    usage: Usage | None
    cost_nusd: int | None
    finish_reason: str | None
    model_reported: str | None
    outcome: str
    started_ns: int
    head_ns: int
    first_ns: int
    ended_ns: int


class Record(msgspec.Struct, array_like=True, gc=False):
    version: int
    id: str
    received_wall_ns: int
    config_version: str
    team: str
    project: str
    key_id: str
    method: str
    path: str
    query: str
    endpoint: str
    dialect: str
    headers: HeaderList  # those on the allow-list; never a credential
    body: Body
    model: str  # as asked for
    stream: bool
    route: str
    cache: str
    cache_source: str
    attempts: list[AttemptRecord]
    status: int
    reply_headers: HeaderList
    reply_body: Body | list[Splice]  # splices: of the last attempt's body
    outcome: str
    error: str  # "" where there was none
    usage: Usage | None
    cost_nusd: int | None
    saved_nusd: int
    draws: list[str]
    #: marks per layer, ns after received; 0 means the layer was not reached
    decoded_ns: int
    identified_ns: int
    planned_ns: int
    first_ns: int
    ended_ns: int
    worker: int = 0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode
