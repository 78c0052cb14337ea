"""What one dialect cannot say in the other, and how a caller is told.

A conversion that silently leaves out what would change the answer gives a wrong answer with a
good conscience. So it refuses, names the member, and says what to do instead.
"""

from forebay.dialects import decoding
from forebay.errors import Failure
from forebay.exchange import Dialect
from forebay.wire.members import Members

NAMES: dict[Dialect, str] = {"openai": "OpenAI's", "anthropic": "Anthropic's"}

Refused = dict[str, tuple[tuple[object, ...], str]]
"""By top-level member: the values that ask for nothing, and what to do instead."""


def unsayable(dialect: Dialect, place: str, what: str, instead: str = "") -> Failure:
    """The failure for `what` at `place`, which has no counterpart in `dialect`."""
    return Failure(
        "unsupported",
        f"{place}: {what} cannot be said in {NAMES[dialect]} dialect, "
        "which this model's provider speaks.",
        hint=instead,
        param=place,
    )


def refuse(members: Members, refused: Refused, dialect: Dialect) -> None:
    """Raises Failure(unsupported) for the first member that asks for what has no counterpart."""
    for name, (harmless, instead) in refused.items():
        raw = members.raw.get(name)
        if raw is not None and decoding.value(bytes(raw)) not in harmless:
            raise unsayable(dialect, name, "what it asks for", instead)


def word(words: dict[str, str], said: str, name: str) -> str:
    """The counterpart of one of a few words. Raises Failure(bad_request) with the known ones."""
    if said not in words:
        known = ", ".join(words)
        raise Failure("bad_request", f"{name} is {said!r}; known are {known}.", param=name)
    return words[said]
