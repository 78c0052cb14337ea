"""Bytes into shapes, and whatever is wrong with them into one kind of failure.

A conversion meets input that nobody checked: a caller's body whose top level alone was
parsed, a provider's answer that may be anything. Decoding raises one of four exceptions for
the same thing (wrong type, bad JSON, bad UTF-8 inside a string, nesting deeper than the
interpreter's stack); here they become a `Failure` that says where, as a path that an SDK
would print: `messages[0].content[1].type`.

Two ways in, because two sides can be at fault: `request` blames the caller, `answer` the
provider.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from forebay.dialects.asks import invalid
from forebay.errors import Failure

T = TypeVar("T")

Json = dict[str, Any]

encode = msgspec.json.Encoder().encode

#: What a decoder raises on bytes that are not what they should be, RecursionError on their depth.
WRONG = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


def request(decode: Callable[[bytes], T], body: bytes) -> T:
    """A caller's body in its shape. Raises Failure: bad_request with the path, bad_json."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except WRONG as error:
        raise Failure("bad_json", f"The body is not JSON: {error}.") from None


def answer(decode: Callable[[bytes], T], body: bytes, what: str) -> T:
    """A provider's bytes in their shape; `what` names them. Raises Failure(bad_answer)."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Failure("bad_answer", f"The provider's {what} is wrong: {error}.") from None
    except WRONG as error:
        raise Failure("bad_answer", f"The provider's {what} is not JSON: {error}.") from None


def text(raw: msgspec.Raw) -> str:
    """The JSON text itself of a value that came from a provider, `{"a": 1}` as it was spelled.

    Raises Failure(bad_answer): a decoder does not look at the UTF-8 of what it skips.
    """
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise Failure("bad_answer", f"The provider's answer is not UTF-8: {error}.") from None


def object_of(raw: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of a JSON object, None where the bytes are anything else."""
    try:
        return _decode_object(raw)
    except WRONG:
        return None


def is_object(raw: bytes) -> bool:
    """Whether the bytes are one whole, well-formed JSON object."""
    try:
        return isinstance(_decode_any(raw), dict)
    except WRONG:
        return False


def value(raw: bytes) -> Any:
    """Any JSON as plain Python, None where it is not JSON (or null, or not sent)."""
    try:
        return _decode_any(raw)
    except WRONG:
        return None


def sent(raw: msgspec.Raw) -> bool:
    """Whether a member was there with a value: neither left out nor null."""
    return bytes(raw) not in (b"", b"null")
