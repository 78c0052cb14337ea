import random

from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.twins.prompt_cache import PromptCache, Split

S = 1_000_000_000


def prompt(tokens: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(tokens * 4)


def test_prompts_under_1024_tokens_are_never_cached() -> None:
    cache = PromptCache(300)
    assert cache.automatic(prompt(1023), 1023, 0) == Split(1023)
    assert cache.automatic(prompt(1023), 1023, 0) == Split(1023)


def test_a_prompt_asked_twice_is_read_in_steps_of_128() -> None:
    cache = PromptCache(300)
    assert cache.automatic(prompt(1125), 1125, 0) == Split(1125)
    assert cache.automatic(prompt(1125), 1125, S) == Split(101, read=1024)
    long = prompt(1300, seed=1)
    cache.automatic(long, 1300, 0)
    assert cache.automatic(long, 1300, S) == Split(20, read=1280)


@given(st.integers(0, 2_000), st.integers(0, 500), st.integers(0, 500))
def test_two_prompts_share_their_common_prefix_rounded_down(
    common: int, one: int, other: int
) -> None:
    cache = PromptCache(300)
    head = prompt(common)
    cache.automatic(head + prompt(one, 1), common + one, 0)
    split = cache.automatic(head + prompt(other, 2), common + other, S)

    shared = common // 128 * 128
    assert split.read == (shared if shared >= 1024 else 0)
    assert split.fresh + split.read == common + other


def test_entries_live_from_their_last_use() -> None:
    cache = PromptCache(300)
    text = prompt(1024)
    cache.automatic(text, 1024, 0)
    assert cache.automatic(text, 1024, 299 * S).read == 1024
    assert cache.automatic(text, 1024, 598 * S).read == 1024
    assert cache.automatic(text, 1024, 899 * S).read == 0


def test_explicit_without_a_mark_reads_and_writes_nothing() -> None:
    cache = PromptCache(300)
    text = prompt(3000)
    assert cache.explicit(text, 3000, [len(text)], [], 0) == Split(3000)
    assert cache.explicit(text, 3000, [len(text)], [], S) == Split(3000)


def test_explicit_writes_up_to_the_last_mark_and_reads_it_the_next_time() -> None:
    cache = PromptCache(300)
    system, first, second = prompt(2000, 1), prompt(100, 2), prompt(60, 3)
    one = system + first
    split = cache.explicit(one, 2100, [8000, 8400], [8000], 0)
    assert split == Split(100, read=0, written=2000)
    # A conversation that goes on: the old mark is read, what was added up to the new one is
    # written, the question after it is plain.
    two = system + first + second
    split = cache.explicit(two, 2160, [8000, 8400, 8640], [8000, 8400], S)
    assert split == Split(60, read=2000, written=100)
    split = cache.explicit(two, 2160, [8000, 8400, 8640], [8400], 2 * S)
    assert split == Split(60, read=2100)


def test_explicit_ignores_short_prefixes_without_a_word() -> None:
    cache = PromptCache(300)
    text = prompt(1500)
    assert cache.explicit(text, 1500, [4000, 6000], [4000], 0) == Split(1500)
