"""The dice of a twin: what a question draws depends on the question, not on the hour.

Each draw is a keyed digest of (seed, prompt, how often this prompt was asked before, what is
drawn). Two callers that send the same questions to twins of one seed meet the same luck on
each of them, whichever way the questions came and in whatever order: common random numbers,
which make the rows of a benchmark comparable. Asking again (a retry, a hedge) draws anew.
"""

import hashlib
from collections import OrderedDict
from statistics import NormalDist

_QUANTILE = NormalDist().inv_cdf
_REMEMBERED = 200_000


class Draw:
    """The luck of one question: four independent numbers. Sync, ~3 µs to make all."""

    __slots__ = ("_bits",)

    def __init__(self, bits: bytes) -> None:
        self._bits = bits  # 32 bytes

    def uniform(self, which: int) -> float:
        """In (0, 1); `which` is 0 to 3."""
        word = int.from_bytes(self._bits[8 * which : 8 * which + 8], "little")
        return ((word >> 11) + 0.5) / (1 << 53)

    def normal(self, which: int) -> float:
        """Standard normal; `which` is 0 to 3."""
        return _QUANTILE(self.uniform(which))


class Luck:
    def __init__(self, seed: int) -> None:
        self._key = hashlib.sha256(str(seed).encode()).digest()
        self._asked: OrderedDict[bytes, int] = OrderedDict()

    def draw(self, digest: bytes) -> Draw:
        """The luck of the prompt with this digest, this time."""
        times = self._asked.pop(digest, 0)
        self._asked[digest] = times + 1
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        return Draw(
            hashlib.blake2b(
                digest + times.to_bytes(4, "little"), key=self._key, digest_size=32
            ).digest()
        )
