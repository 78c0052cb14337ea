import math

from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.twins.text import BYTES_PER_TOKEN, Corpus, count, marked, marker, vector

CORPUS = Corpus(seed=7)


@given(st.binary(max_size=200))
def test_a_token_is_four_bytes_rounded_up(data: bytes) -> None:
    assert count(data) == math.ceil(len(data) / 4)


@given(st.binary(min_size=4, max_size=16), st.integers(1, 200_000))
def test_an_answer_has_exactly_the_tokens_asked_for(digest: bytes, tokens: int) -> None:
    answer = CORPUS.answer(digest, tokens)

    assert len(answer) == tokens * BYTES_PER_TOKEN
    assert answer.endswith(b"end.")
    assert answer.isascii()
    assert not set(answer) & set(b'"\\\n')


def test_the_same_question_gets_the_same_answer_and_another_another() -> None:
    assert CORPUS.answer(b"aaaa", 50) == Corpus(seed=7).answer(b"aaaa", 50)
    assert CORPUS.answer(b"aaaa", 50) != CORPUS.answer(b"baaa", 50)
    assert CORPUS.answer(b"aaaa", 50) != Corpus(seed=8).answer(b"aaaa", 50)


@given(st.binary(max_size=50), st.integers(1, 999_999), st.binary(max_size=50))
def test_a_marker_is_found_wherever_it_stands(before: bytes, tokens: int, after: bytes) -> None:
    if b"[out:" not in before + after:
        assert marked(before + marker(tokens) + after) == tokens


def test_the_last_marker_counts_and_none_is_none() -> None:
    assert marked(b"[out:3] and [out:9]") == 9
    assert marked(b"[out:0]") == 1
    assert marked(b"[out:many] [out:1234567]") is None
    assert marked(b"nothing") is None


@given(st.binary(max_size=300), st.integers(1, 512))
def test_a_vector_has_length_one(text: bytes, dimensions: int) -> None:
    values = vector(text, dimensions)

    assert len(values) == dimensions
    assert math.isclose(sum(value * value for value in values), 1.0, rel_tol=1e-4)


def test_texts_that_share_words_are_nearer_than_those_that_do_not() -> None:
    card = vector(b"my card has not arrived yet", 256)

    def near(text: bytes) -> float:
        return sum(a * b for a, b in zip(card, vector(text, 256), strict=True))

    assert near(b"my new card has not arrived") > 0.6 > 0.4 > near(b"what is an exchange rate")
