"""Secrets out of records, before anything is written.

Two kinds are known: the exact values of the providers' keys, which the operator's
configuration holds, and the gateway's own keys, of which only digests are kept, by their
shape. Wherever one stands in a record (headers, bodies, splices, errors, names), it becomes
`[secret:NAME]`. Chunk boundaries move along; a boundary inside a secret moves behind the
token, so a key that a stream cut in two is found all the same: bodies are whole here.

Every record pays for the looking, so it is done in two steps:

1. does a block hold a known value, in one of the spellings that encoders give it, or anything
   of a gateway key's shape? Substring searches, 3 µs for 7 KB and 1 µs a known value;
2. where it does: the record is decoded, and each field searched by a pattern that knows every
   spelling of every character: plain, \\u00XX with any number of backslashes (JSON quoted in
   JSON), %XX, in either case and mixed.

Spellings that step 1 knows: as it is; quoted for JSON, slashes escaped or not; for a URL; every
character escaped, as JSON or as a URL. Gateway keys need no escaping anywhere, so they are
looked for as they are.

Limits. What was compressed, encrypted or written in base64 is not seen through, nor what
somebody escaped by hand in part and nowhere else. A model that recites a key in a stream does
so in pieces, one event each, which nobody can tell from other pieces. Values shorter than 8
bytes are not searched for: local servers take "none" as a key, and replacing such words would
ruin records while protecting nothing. A secret can't straddle the edge of a splice: splices
replace whole JSON values, and secrets hold no quote.
"""

import re
from collections.abc import Mapping
from typing import Any

from forebay.observe import restore
from forebay.observe.record import AttemptRecord, Body, Record, Splice

MIN_SECRET_BYTES = 8
GATEWAY_KEY = "gateway-key"

_KEY = re.compile(rb"fb_[A-Za-z0-9_-]{20}")


class Redactor:
    """Knows the secrets and takes them out. Pure; one for each writer."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        """`secrets`: value by name (`OPENAI_API_KEY`); empty and short ones are left out."""
        known = [item for item in secrets.items() if len(item[1]) >= MIN_SECRET_BYTES]
        # The longest first: a key that begins like another must not be cut short by it.
        known.sort(key=lambda item: -len(item[1]))
        self._too_short = sorted(
            name for name, value in secrets.items() if 0 < len(value) < MIN_SECRET_BYTES
        )
        self._needles = sorted({needle for _, value in known for needle in _spellings(value)})
        self._tokens = [*(_token(name) for name, _ in known), _token(GATEWAY_KEY)]
        patterns = [*(b"".join(map(_spelt, value)) for _, value in known), _SPELT_KEY]
        self._pattern = re.compile(b"|".join(b"(" + pattern + b")" for pattern in patterns))

    def suspects(self, data: bytes) -> bool:
        """Whether a secret stands in these bytes, of one record or of many. Sync, for 7 KB
        3 µs and 1 µs a secret."""
        return any(needle in data for needle in self._needles) or _KEY.search(data) is not None

    def clean(self, record: Record) -> Record:
        """The record without its secrets. Slow (~100 µs): only for suspects."""
        # Splices point into a body. Where that body changes they would point beside it.
        if self._edits(record.body):
            for attempt in record.attempts:
                attempt.sent = restore.sent(record, attempt) if attempt.sent else []
        if record.reply_body and record.attempts and self._edits(record.attempts[-1].body):
            record.reply_body = restore.reply(record)
        self._walk(record)
        return record

    def describe(self) -> str:
        line = f"<Redactor {len(self._tokens) - 1} values and the shape of gateway keys"
        if self._too_short:
            line += f"; too short to look for: {', '.join(self._too_short)}"
        return line + ">"

    __repr__ = describe

    def _walk(self, value: Any) -> Any:
        """The value without secrets; structs are changed in place."""
        if isinstance(value, str):
            data = value.encode()
            return self._pattern.sub(self._replacement, data).decode() if data else value
        if isinstance(value, bytes):
            return self._pattern.sub(self._replacement, value)
        if isinstance(value, Body):
            edits = self._edits(value)
            return restore.spliced(value, edits) if edits else value
        if isinstance(value, list | tuple):
            return type(value)(self._walk(item) for item in value)
        if isinstance(value, Record | AttemptRecord):
            for field in value.__struct_fields__:
                setattr(value, field, self._walk(getattr(value, field)))
        return value

    def _edits(self, body: Body) -> list[Splice]:
        return [
            (match.start(), match.end(), self._replacement(match))
            for match in self._pattern.finditer(body.data)
        ]

    def _replacement(self, match: re.Match[bytes]) -> bytes:
        return self._tokens[(match.lastindex or 1) - 1]


def _token(name: str) -> bytes:
    return f"[secret:{name}]".encode()


def _spellings(value: bytes) -> set[bytes]:
    """The spellings that encoders give a value; one alone where they agree.

    Each is searched for in every block, so long ones are welcome: 56 bytes take 0.4 µs for
    7 KB, 300 bytes 0.2.
    """
    quoted = _quoted(value)
    slashed = quoted.replace(b"/", b"\\/")  # PHP does
    return {
        value,
        quoted,
        slashed,
        _quoted(quoted),  # JSON in JSON: the arguments of a tool call
        _quoted(slashed),
        *(
            b"".join(form % byte if must(byte) else bytes([byte]) for byte in value)
            for form, must in (
                (b"%%%02X", _is_reserved),
                (b"%%%02x", _is_reserved),
                (b"%%%02X", _is_any),
                (b"%%%02x", _is_any),
                (b"\\u%04X", _is_any),
                (b"\\u%04x", _is_any),
            )
        ),
    }


def _quoted(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _is_reserved(byte: int) -> bool:
    """What a URL may not hold as it is (RFC 3986, 2.3)."""
    return not (byte < 128 and chr(byte).isalnum()) and byte not in b"-._~"


def _is_any(byte: int) -> bool:
    return True


def _spelt(byte: int) -> bytes:
    """A pattern of every spelling of a byte."""
    code = f"{byte:02x}"
    either = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in code).encode()
    plain = re.escape(bytes([byte]))
    # Characters that JSON escapes with a backslash may have one, or more where it is nested.
    slashes = rb"\\*" if byte in b'/"\\' else b""
    return b"(?:" + slashes + plain + rb"|\\+u00" + either + b"|%" + either + b")"


_SPELT_KEY = (
    b"".join(map(_spelt, b"fb_"))
    + rb"(?:[A-Za-z0-9_-]|\\+u00[2-7][0-9A-Fa-f]|%[2-7][0-9A-Fa-f]){20,}"
)
