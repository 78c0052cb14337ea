"""JSON in any of the many ways in which it can be spelled, for hypothesis to choose.

@given(value=VALUES, rng=SPELLINGS)
def test_…(value: Any, rng: Random) -> None:
    assert json.loads(spelled(value, rng)) == value
"""

import json
from random import Random
from typing import Any

from hypothesis import strategies as st


class Plain(Random):
    """Spells as SDKs do: no white space, no escape that need not be."""

    def random(self) -> float:
        return 1.0

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def getrandbits(self, k: int) -> int:
        return 0  # without it `randrange` would ask `random` for ever


SPELLINGS = st.one_of(st.builds(Plain, st.just(0)), st.randoms(use_true_random=False))


def blank(rng: Random) -> str:
    return rng.choice(["", "", "", " ", "\n", "\t", "\r\n", "  \n\t "])


def spelled_string(text: str, rng: Random) -> str:
    """One of the many ways in which JSON can spell this string."""
    out = []
    for char in text:
        must = char in '"\\' or char < " "
        if must or rng.random() < 0.2:
            units = char.encode("utf-16-be")
            escaped = "".join(
                f"\\u{int.from_bytes(units[i : i + 2], 'big'):04x}" for i in range(0, len(units), 2)
            )
            short = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t"}.get(char)
            out.append(short if short and rng.random() < 0.5 else escaped)
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def spelled(value: Any, rng: Random) -> str:
    """One of the many ways in which JSON can spell this value."""
    if isinstance(value, str):
        return spelled_string(value, rng)
    if isinstance(value, list):
        items = [blank(rng) + spelled(item, rng) + blank(rng) for item in value]
        return "[" + (",".join(items) or blank(rng)) + "]"
    if isinstance(value, dict):
        return "".join(pieces(value, rng))
    exact = type(value) is int and abs(value) < 2**53  # also where it is read as a float
    if exact and rng.random() < 0.2:
        return f"{value}{rng.choice(['e0', 'E+0', 'e-0', '.0', '.000'])}"
    return json.dumps(value)


def pieces(members: dict[str, Any], rng: Random) -> list[str]:
    """An object's text: what stands before each value and the value, in turn, then the end."""
    out = []
    lead = "{"
    for name, value in members.items():
        key = blank(rng) + spelled_string(name, rng) + blank(rng) + ":" + blank(rng)
        out += [lead + key, spelled(value, rng)]
        lead = blank(rng) + ","
    return [*out, (blank(rng) if members else "{" + blank(rng)) + "}"]
