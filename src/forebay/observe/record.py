"""The record of one exchange: enough to replay it, nothing that grants access.

A record holds both wires' exact bytes. What the provider was sent is stored as splices of
what the caller sent where bytes passed through, and what the caller got is not stored again
where it is what the provider answered (`Attempt.body is None`). Chunk boundaries are pairs
of little-endian uint32: end offset in bytes, µs since the body's first byte was due.

Version 1. A field is only ever added at the end: array-like structs decode older and newer
rows alike, with defaults.
"""

from typing import Literal

import msgspec

from forebay.schema.usage import Usage

VERSION = 1

HeaderList = list[tuple[str, str]]
Splice = tuple[int, int, bytes]


class Body(msgspec.Struct, array_like=True, gc=False):
    """Bytes and how they were cut. `marks` is empty where there was one chunk or none.

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
    body: Body | None  # None: the very bytes of Record.reply_body
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
    reply_body: Body | None
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
