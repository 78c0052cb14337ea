import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.inference.embedding import PADDED_TOKENS, VOCABULARY, batches, tokenizer


def test_the_vocabulary_is_berts() -> None:
    """The digest in data/README.md, which says where it is from."""
    digest = hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
    assert digest == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert digest in (VOCABULARY.parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        # What the tokenizer.json published with the model gives.
        ("Hello world", [101, 7592, 2088, 102]),
        ("Ünïcödé, naïve!", [101, 27260, 1010, 15743, 999, 102]),
        ("中文 字", [101, 1746, 1861, 100, 102]),
        ("unaffable", [101, 14477, 20961, 3468, 102]),
        ("x" * 101, [101, 100, 102]),
        ("a\x00b\ufffdc\td", [101, 5925, 1040, 102]),
        ("", [101, 102]),
    ],
)
def test_texts_become_the_numbers_the_model_was_trained_on(text: str, ids: list[int]) -> None:
    assert tokenizer().encode(text).ids == ids


def test_control_tokens_in_a_text_are_just_text() -> None:
    ids = tokenizer().encode("one [SEP] two [CLS] [PAD] [MASK]").ids
    assert ids[0] == 101
    assert ids[-1] == 102
    assert not {0, 101, 102, 103} & set(ids[1:-1])


@given(st.lists(st.integers(2, 256), max_size=60))
def test_batches_hold_each_text_once_and_their_bound(lengths: list[int]) -> None:
    made = batches(lengths)
    assert sorted(at for batch in made for at in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) * max(lengths[at] for at in batch) <= PADDED_TOKENS


def test_short_texts_share_a_pass() -> None:
    assert len(batches([8] * 32)) == 1
    assert len(batches([200] * 3)) == 3
