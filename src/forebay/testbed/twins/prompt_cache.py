"""A provider's prompt cache: which part of a prompt it has read before.

Two rules, as the two providers document them:

`automatic` (OpenAI): prompts of at least 1,024 tokens; the longest known prefix, in steps of
128 tokens; every prompt is remembered.

`explicit` (Anthropic): the caller marks ends of prefixes with `cache_control`. The longest
earlier marked prefix that still begins this prompt is read, what lies between it and the
last mark is written (and charged), the rest is plain input. Prefixes under 1,024 tokens are
ignored without a word.

Prefixes are known by a chained digest; entries live a fixed time after their last use. Both
know prompts per organisation; a twin is one organisation.
"""

import hashlib
from collections import OrderedDict

import msgspec

from forebay.testbed.twins.text import BYTES_PER_TOKEN

MINIMUM_TOKENS = 1_024
STEP_TOKENS = 128
MAX_ENTRIES = 100_000


class Split(msgspec.Struct, frozen=True):
    """A prompt's tokens by what the provider had to do with them."""

    fresh: int
    read: int = 0
    written: int = 0


class PromptCache:
    def __init__(self, life_s: float) -> None:
        self._life_ns = int(life_s * 1e9)
        self._until: OrderedDict[bytes, int] = OrderedDict()

    def automatic(self, prompt: bytes, tokens: int, now_ns: int) -> Split:
        """Look up and remember a prompt. Sync, ~1 µs a 128 tokens, nothing below 1,024."""
        if tokens < MINIMUM_TOKENS:
            return Split(tokens)
        step = STEP_TOKENS * BYTES_PER_TOKEN
        digest = hashlib.blake2b(digest_size=16)
        known = 0
        unbroken = True
        for end in range(step, len(prompt) + 1, step):
            digest.update(prompt[end - step : end])
            if end < MINIMUM_TOKENS * BYTES_PER_TOKEN:
                continue
            unbroken = self._seen(digest.digest(), now_ns) and unbroken
            if unbroken:
                known = end // BYTES_PER_TOKEN
        return Split(tokens - known, read=known)

    def explicit(
        self, prompt: bytes, tokens: int, blocks: list[int], marks: list[int], now_ns: int
    ) -> Split:
        """`blocks` are the ends of content blocks in bytes, `marks` those with a mark."""
        last = max(marks, default=0)
        if last < MINIMUM_TOKENS * BYTES_PER_TOKEN:
            return Split(tokens)
        digest = hashlib.blake2b(digest_size=16)
        start = read = 0
        written: list[bytes] = []
        for end in blocks:
            if end > last:
                break
            digest.update(prompt[start:end])
            start = end
            if end < MINIMUM_TOKENS * BYTES_PER_TOKEN:
                continue
            key = digest.digest()
            if self._until.get(key, 0) > now_ns:
                read = end
                self._keep(key, now_ns)
            elif end in marks:
                written.append(key)
        for key in written:
            self._keep(key, now_ns)
        read_tokens = read // BYTES_PER_TOKEN
        written_tokens = last // BYTES_PER_TOKEN - read_tokens
        return Split(tokens - read_tokens - written_tokens, read_tokens, written_tokens)

    def _seen(self, key: bytes, now_ns: int) -> bool:
        hit = self._until.get(key, 0) > now_ns
        self._keep(key, now_ns)
        return hit

    def _keep(self, key: bytes, now_ns: int) -> None:
        self._until[key] = now_ns + self._life_ns
        self._until.move_to_end(key)
        if len(self._until) > MAX_ENTRIES:
            self._until.popitem(last=False)
