"""Streamed pieces into the object they are pieces of, known members and unknown alike.

1. Strings are continued, lists of things with an `index` are joined by it, other lists are
   continued, objects are joined member by member;
2. but what names a thing (`id`, `type`, `role`, `name`, the finish reason) is said once: some
   servers repeat it with every fragment, and continuing it would stutter;
3. null never overwrites, numbers and booleans are replaced.

A string that is being continued is a list of its pieces until `encode`, so that the time is
linear in the length of the answer, not in its square.
"""

from typing import Any

from forebay.dialects import decoding
from forebay.dialects.decoding import Json
from forebay.errors import Failure

SAID_ONCE = frozenset({"id", "type", "role", "name", "index", "finish_reason"})


class _Pieces(list[str]):
    """A string that is still being continued."""


def join(whole: Json, piece: Json) -> None:
    """Continue `whole` by `piece`, in place."""
    for name, new in piece.items():
        old = whole.get(name)
        if new is None or (name in SAID_ONCE and old):
            whole.setdefault(name, None)
        elif isinstance(old, _Pieces) and isinstance(new, str):
            old.append(new)
        elif isinstance(old, str) and isinstance(new, str):
            whole[name] = _Pieces((old, new))
        elif isinstance(old, dict) and isinstance(new, dict):
            join(old, new)
        elif isinstance(new, list) and (old is None or type(old) is list):
            whole[name] = _continued(old or [], new)
        else:
            whole[name] = new


def encode(value: Any) -> bytes:
    """JSON, every string in one piece.

    Raises Failure(bad_answer): what nests nearly as deep as can be read cannot be written.
    """
    try:
        return decoding.encode(_settled(value))
    except RecursionError:
        raise Failure("bad_answer", "The answer nests too deep to be written again.") from None


def object_in(parent: Json, name: str) -> Json:
    """A member that is an object, {} where there is none. Raises Failure(bad_answer)."""
    found = parent.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Failure("bad_answer", f"{name!r} is no object in the provider's answer.")
    return found


def objects_in(parent: Json, name: str) -> list[Json]:
    """A member that is a list of objects, [] where there is none. Raises Failure(bad_answer)."""
    found = parent.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Failure("bad_answer", f"{name!r} is no list of objects in the provider's answer.")
    return found


def index_of(item: Json) -> int:
    """Where a piece belongs, 0 where it does not say. Raises Failure(bad_answer)."""
    index = item.get("index", 0)
    if not isinstance(index, int):
        raise Failure("bad_answer", f"An index in the provider's answer is {index!r}.")
    return index


def _continued(whole: list[Any], pieces: list[Any]) -> list[Any]:
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        same = (item for item in whole if isinstance(item, dict) and item.get("index") == index)
        if index is not None and (item := next(same, None)) is not None:
            join(item, piece)
        else:
            whole.append(piece)
    return whole


def _settled(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _settled(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value
