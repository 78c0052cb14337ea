"""Tokens and text of a twin: both exact, both cheap.

A token is four bytes. Counting is then `ceil(bytes / 4)` and needs no tokenizer; real
tokenizers average 4.0 to 4.5 bytes a token on English prose, so lengths and costs keep
their size. What is lost: the difference between languages, and code.

An answer is a slice of one fixed corpus, made from the twin's seed, of 65,536 words of four
bytes each (space or full stop included): `n` tokens are exactly `4·n` bytes, no event needs
to build or escape text, and the same question gets the same answer. The last token of each
answer is `end.`, so that a person sees at once that an answer was cut.

How long an answer is to be, the workload says with a marker anywhere in the prompt,
`[out:375]`, which survives any gateway; or with the header `x-twin-output-tokens`, which
few gateways forward but is handy with curl.
"""

import array
import hashlib
import random
import re
import zlib

BYTES_PER_TOKEN = 4
CORPUS_TOKENS = 65_536
LAST_TOKEN = b"end."

_WORDS = (
    "the and for are but not you all any can had her was one our out day get has him his how "
    "man new now old see two way who boy did its let put say she too use air arm art ask bag "
    "bar bed big bit box bus buy car cat cry cup cut dog dry ear eat egg end eye far few fit "
    "fly fun gas god gun hat hit hot ice ill job key kid law lay leg lie lot low map may mix "
    "net oil pay per pop red row run sea set sit six sky son sun tax tea ten tie top try war "
    "wet win yes"
)
_STOPS = ("so. ", "it. ", "us. ", "me. ", "is. ")
_MARKER = re.compile(rb"\[out:(\d{1,6})\]")


def count(data: bytes) -> int:
    """Tokens of some text: `ceil(bytes / 4)`."""
    return -(-len(data) // BYTES_PER_TOKEN)


def marker(tokens: int) -> bytes:
    """What to put into a prompt that shall be answered with `tokens` tokens (1 to 999,999)."""
    return b"[out:%d]" % tokens


def marked(prompt: bytes) -> int | None:
    """The answer's length that a prompt asks for; the last marker counts. None: it has none."""
    # Only a prompt that holds the first two characters pays for the regular expression.
    if prompt.find(b"[out:") < 0:
        return None
    found = _MARKER.findall(prompt)
    return max(1, int(found[-1])) if found else None


class Corpus:
    """The text that all answers of a twin are cut from. Built once: ~15 ms, 256 KiB."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - word salad
        vocabulary = [word + " " for word in _WORDS.split()] * 8 + list(_STOPS) * 24
        self._text = "".join(rng.choices(vocabulary, k=CORPUS_TOKENS)).encode()

    def answer(self, digest: bytes, tokens: int) -> bytes:
        """`tokens` tokens for the question with this digest; the same for the same question."""
        offset = int.from_bytes(digest[:4], "little") % CORPUS_TOKENS * BYTES_PER_TOKEN
        length = (tokens - 1) * BYTES_PER_TOKEN
        text = self._text[offset : offset + length]
        while len(text) < length:
            text += self._text[: length - len(text)]
        return text + LAST_TOKEN


def vector(text: bytes, dimensions: int) -> "array.array[float]":
    """A unit vector of float32: the sum of a random direction per word, hashed.

    Deterministic, and texts that share words are near each other, which is all that a test
    of a cache or an index needs. Cost: ~2 µs a word plus ~60 ns a dimension.
    """
    values = [0.0] * dimensions
    for word in re.findall(rb"\w+", text.lower()) or [b""]:
        bits = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
        for turn in range(8):
            at = zlib.crc32(word, turn) % dimensions
            values[at] += 1.0 if bits >> turn & 1 else -1.0
    norm = sum(value * value for value in values) ** 0.5 or 1.0
    unit = array.array("f", [value / norm for value in values])
    if not any(unit):  # every step cancelled another: any fixed direction will do
        unit[0] = 1.0
    return unit
