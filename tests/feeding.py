"""Every way to feed a parser the same bytes; what comes out must not depend on it.

@given(data=…, cuts=CUTS)
def test_…(data: bytes, cuts: list[int]) -> None:
    for chunks in feeds(data, cuts):
        assert parse_in(chunks) == expected
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import strategies as st

#: Where to cut, for hypothesis to choose; taken modulo the length of the data.
CUTS = st.lists(st.integers(min_value=0, max_value=100_000), max_size=8)
#: Data of up to this many bytes is also cut in two at every place.
SHORT = 64


def feeds(data: bytes, cuts: Sequence[int] = (), trailing: bytes = b"") -> Iterator[list[bytes]]:
    """Lists of non-empty chunks that join to `data + trailing`: whole, byte by byte, cut at
    `cuts`, the trailing data apart, and short data in two at every place."""
    whole = data + trailing
    yield cut(whole, ())
    yield cut(whole, range(len(whole)))
    if cuts:
        yield cut(whole, [at % (len(whole) + 1) for at in cuts])
    if trailing:
        yield [*cut(data, ()), trailing]
    if len(whole) <= SHORT:
        for at in range(1, len(whole)):
            yield cut(whole, [at])


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in chunks that begin at these places; none is empty."""
    at = sorted({0, len(data), *places})
    return [data[start:end] for start, end in pairwise(at)]
