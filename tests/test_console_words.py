"""Given numbers, outcomes and texts, then people read what is meant and nothing acts on them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.console import words
from forebay.errors import CODES
from records import (
    cache_hit,
    cancelled,
    changed,
    chat,
    chat_stream,
    converted,
    cut,
    failover,
    refused,
    unreachable,
)

US, MS, S = 1_000, 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 µs"),
        (1_500, "1.5 µs"),
        (95 * US, "95 µs"),
        (1 * MS, "1 ms"),
        (12_340 * US, "12.3 ms"),
        (841 * MS, "841 ms"),
        (12_440 * MS, "12.4 s"),
        (100 * S, "100 s"),
        (185 * S, "3 min 5 s"),
        (7_200 * S, "120 min 0 s"),
    ],
)
def test_durations_have_three_digits(ns: int, text: str) -> None:
    assert words.duration(ns) == text


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (None, "unpriced"),
        (0, "$0"),
        (1, "$0.000000001"),
        (973_650, "$0.000974"),
        (7_000, "$0.000007"),
        (100_000_000, "$0.10"),
        (1_250_000_000, "$1.25"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (-5_000, "-$0.000005"),
    ],
)
def test_money_has_three_digits_and_never_looks_free(nusd: int | None, text: str) -> None:
    assert words.money(nusd) == text


@given(st.integers(1, 10**18))
def test_what_costs_something_never_reads_as_nothing(nusd: int) -> None:
    assert words.money(nusd).strip("$0.,") != ""


def test_exact_money_is_exact() -> None:
    assert words.money_exact(973_650) == "$0.00097365"
    assert words.money_exact(None) == "unpriced"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (4_950, "4.95 KB"), (999_499, "999 KB"), (999_500, "1 MB"),
     (12_345_678, "12.3 MB"), (10**10, "10 GB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (0.4, "now"), (12, "12 s ago"), (119, "119 s ago"), (600, "10 min ago"),
     (10_000, "2 h ago"), (200_000, "2 d ago")],
)  # fmt: skip
def test_how_long_ago(seconds: float, text: str) -> None:
    assert words.ago(int(seconds * S)) == text


def test_a_moment_is_utc_to_the_millisecond() -> None:
    assert words.moment(1_795_600_800_040 * MS) == "2026-11-25 10:00:00.040"


def test_what_acts_instead_of_being_seen_is_spelled_out() -> None:
    text = "a\x1b[2J\x00\u202eb\u200b\r\n\tc\x9b\x7f\rd"

    assert words.visible(text) == "a\\x1b[2J\\x00\\u202eb\\u200b\n\tc\\x9b\\x7f\\x0dd"


@given(st.text())
def test_nothing_that_acts_is_left_and_all_else_stays(text: str) -> None:
    seen = words.visible(text)

    acting = ("Cc", "Cf", "Cs", "Zl", "Zp")
    left = {c for c in seen if unicodedata.category(c) in acting} - set("\n\t\u200c\u200d")
    # Signs that are put before Arabic or Syriac numbers, and parts of hieroglyphs and scores,
    # are called format characters too: they are seen.
    assert all("\u0600" <= c <= "\u08e2" or c > "\U00010000" for c in left)
    plain = "".join(c for c in text if c.isprintable())
    assert all(c in seen for c in plain)


@given(st.binary())
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert "\x1b" not in words.readable(data)


def test_a_first_line_is_one_line() -> None:
    assert words.first_line("a\n  b\tc") == "a b c"
    assert words.first_line("x" * 200, 10) == "xxxxxxxxx…"


def test_every_failure_has_words_and_a_tone() -> None:
    for code in CODES:
        assert words.outcome(code)
        assert words.tone(code) == "bad"
    assert (words.tone("ok"), words.tone("cancelled")) == ("good", "quiet")


STORIES = {
    "ok": (chat(), "Answered by openai gpt-5-mini in 841 ms. It cost $0.000974."),
    "stream": (
        chat_stream(),
        "Answered by openai gpt-5-mini in 621 ms, the first byte after 421 ms. It cost $0.0000213.",
    ),
    "hit": (cache_hit(), "Answered from the exact cache in 190 µs. It saved $0.000974."),
    "conversion": (
        converted(),
        "Answered by anthropic claude-haiku-5-5 in 841 ms. It cost $0.000007.",
    ),
    "failover": (
        failover(),
        "Answered by openai gpt-5-mini in 1.15 s. It cost $0.000974. 1 earlier attempt failed.",
    ),
    "timeout": (
        unreachable(),
        "The provider openai sent no first token within 30 s. Try again."
        " The caller got 504 after 30 s.",
    ),
    "refusal": (
        refused(),
        "The body is not a JSON object: truncated. The caller got 400 after 95 µs.",
    ),
    "cut": (
        cut(),
        "The stream of openai ended early. The caller got 200 after 541 ms. It cost $0.0000213.",
    ),
    "left": (cancelled(), "The caller left after 541 ms. It cost $0.0000213."),
    "unpriced": (
        changed(chat(), cost_nusd=None),
        "Answered by openai gpt-5-mini in 841 ms. No price is known for it.",
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story_says_what_happened(name: str) -> None:
    record, text = STORIES[name]

    assert words.story(record) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [("gpt-5", "gpt-5"), ("a/b:c", "a/b:c"), ("two words", "'two words'"), ("", "''"),
     ("it's", "'it'\"'\"'s'"), ("$(rm -rf /)", "'$(rm -rf /)'"), ("a\nb", "'a\nb'")],
)  # fmt: skip
def test_a_word_for_a_shell_is_one_word(text: str, word: str) -> None:
    assert words.shell_word(text) == word
