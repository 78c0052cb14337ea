"""Raw members against the standard library's json, on whatever spelling callers send."""

import json
import time
import tracemalloc
from random import Random
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from feeding import CUTS
from forebay.errors import Failure
from forebay.wire.members import apply, parse
from spelling import SPELLINGS, blank, pieces, spelled, spelled_string

# Few names, so that equal ones meet at different depths; some need escapes, some look alike.
NAMES = st.sampled_from(
    ["model", "stream", "a", "", "é", "🐟", '"', "\\", "a/b", "\n", "\x00", "{", "model "]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(['","model":"x', "}", "]", '\\",', '"a":1', "//", "\u2028"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)


def refusal(body: bytes) -> str:
    with pytest.raises(Failure) as caught:
        parse(body)
    assert str(caught.value)
    return caught.value.code.name


@settings(max_examples=200)
@given(members=OBJECTS, rng=SPELLINGS)
def test_each_member_is_found_where_it_stands(members: dict[str, Any], rng: Random) -> None:
    before, after = blank(rng), blank(rng)
    parts = pieces(members, rng)
    body = (before + "".join(parts) + after).encode()
    found = parse(body)
    assert found.body == body
    assert list(found.raw) == list(members)  # in the order they were sent
    assert found.raw == {
        name: value.encode() for name, value in zip(members, parts[1::2], strict=True)
    }
    for at, name in enumerate(members):  # and an edit hits that place
        start = len((before + "".join(parts[: 2 * at + 1])).encode())
        assert found.edits({name: b"0"}) == [(start, start + len(found.raw[name]), b"0")]


@settings(max_examples=200)
@given(members=OBJECTS, changes=OBJECTS, rng=SPELLINGS)
def test_edits_change_what_they_name_and_no_other_byte(
    members: dict[str, Any], changes: dict[str, Any], rng: Random
) -> None:
    before, after = blank(rng), blank(rng)
    parts = pieces(members, rng)
    body = (before + "".join(parts) + after).encode()
    new = {name: spelled(value, rng) for name, value in changes.items()}
    edited = parse(body)
    splices = edited.edits({name: text.encode() for name, text in new.items()})
    assert splices == sorted(splices)
    result = apply(body, splices)

    assert json.loads(result) == {**members, **changes}
    assert list(json.loads(result)) == list({**members, **changes})
    # The oracle for the bytes: the very pieces, values replaced, additions before the brace.
    expected = list(parts)
    for at, name in enumerate(members):
        if name in new:
            expected[2 * at + 1] = new[name]
    head, brace = expected[:-1], expected[-1]
    kept = (before + "".join(head)).encode() + brace[:-1].encode()
    assert result.startswith(kept)
    tail = ("}" + after).encode()
    assert result.endswith(tail)
    added = result[len(kept) : len(result) - len(tail)]
    assert (added == b"") == (changes.keys() <= members.keys())
    again = parse(result)  # and what was made is as good as what came
    assert list(again.raw) == list({**members, **changes})


@given(members=OBJECTS)
def test_no_change_is_no_splice(members: dict[str, Any]) -> None:
    body = json.dumps(members).encode()
    assert parse(body).edits({}) == []
    assert apply(body, []) == body


@settings(max_examples=300)
@given(
    members=OBJECTS.filter(bool), value=VALUES, at=st.integers(0, 10), rng=SPELLINGS, which=NAMES
)
@example(members={"model": "x"}, value="x", at=0, rng=Random(0), which="model")
def test_a_second_spelling_of_a_key_is_always_found(
    members: dict[str, Any], value: Any, at: int, rng: Random, which: str
) -> None:
    name = which if which in members else next(iter(members))
    # The same value, one that begins with it, one that holds the whole member, or any.
    value = rng.choice([value, members[name], {name: members[name]}, [members]])
    parts = pieces(members, rng)
    texts = ["".join(parts[i : i + 2]).lstrip("{, \t\r\n") for i in range(0, len(parts) - 1, 2)]
    twin = spelled_string(name, rng) + blank(rng) + ":" + blank(rng) + spelled(value, rng)
    texts.insert(at % (len(texts) + 1), twin)
    body = "{" + ",".join(text + blank(rng) for text in texts) + "}"
    assert len(json.loads(body, object_pairs_hook=list)) == len(members) + 1
    assert refusal(body.encode()) == "duplicate_key"


@pytest.mark.parametrize(
    "body",
    [
        rb'{"model":"a","mod\u0065l":"b"}',
        rb'{"mod\u0065l":"a","model":"a"}',
        rb'{"\u006d\u006F\u0064\u0065\u006c":1,"\u006D\u006f\u0064\u0065\u006C":1}',
        b'{"a":1,"a":1}',
        b'{"a":12,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":{"a":1},"a":{"a":1}}',
        b'{"a":"}","a":"}"}',
        b'{"a":"\\",\\"a\\":","a":1}',
        b'{"":1,"":1}',
        rb'{"a\/b":1,"a/b":1}',
        '{"é":1,"\\u00e9":1}'.encode(),
        '{"🐟":1,"\\ud83d\\udc1f":1}'.encode(),
    ],
)
def test_two_keys_that_are_one(body: bytes) -> None:
    assert refusal(body) == "duplicate_key"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"b":1,"b":2}}',  # below the top level a guard reads what msgspec keeps
        b'{"a":"\\"a\\":1","b":{"a":1}}',
        b'{"a":1,"A":1,"a ":1}',
        '{"é":1,"e\u0301":1}'.encode(),  # composed or not: two names
    ],
)
def test_look_alikes_that_are_not_one(body: bytes) -> None:
    assert parse(body).raw.keys() == json.loads(body).keys()


def test_the_failure_names_the_key() -> None:
    with pytest.raises(Failure) as caught:
        parse(rb'{"model":"a","stream":true,"mod\u0065l":"b"}')
    assert caught.value.param == "model"
    assert '"model" twice' in str(caught.value)


# -- depth ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_bounded(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"

    assert len(parse(nested(256)).raw) == 1  # far above any tool schema seen
    assert refusal(nested(100_000)) == "too_deep"
    assert refusal(b'{"a":' + opening * 100_000) == "too_deep"


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    for text in (b"[" * 100_000, b'{\\"a\\":' * 100_000):
        body = b'{"a":"' + text + b'","b":[' + b"[]," * 100_000 + b"{}]}"
        assert len(parse(body).raw) == 2


# -- hostile bytes --------------------------------------------------------------------------


def is_an_object(body: bytes) -> bool:
    """What the standard library takes, strictly, for a JSON object."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        text = body.decode()
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        return False


def has_duplicates(body: bytes) -> bool:
    names: list[list[str]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names.append([name for name, _ in found])
        return dict(found)

    json.loads(body.decode(), object_pairs_hook=keep)
    return len(set(names[-1])) != len(names[-1])  # the outermost object comes last


def check(body: bytes) -> None:
    """Taken or refused, by the same lights as the standard library, and nothing else."""
    try:
        found = parse(body)
    except Failure as failure:
        refused = failure.code.name
    else:
        refused = ""
        assert apply(body, found.edits({})) == body
    match refused:
        case "":
            assert is_an_object(body)
            assert not has_duplicates(body)
        case "bad_json":
            # Half a surrogate pair is a string in JSON's grammar and none in Unicode.
            assert not is_an_object(body) or b"\\u" in body
        case "duplicate_key":
            assert has_duplicates(body)
        case "too_deep":
            assert body.count(b"[") + body.count(b"{") > 256
        case _:
            pytest.fail(refused)


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":1} x')
@example(b'{"a":1}{}')
@example(b'{"a":1}\x00')
@example(b'{"a":NaN}')
@example(b'{"a":"\\ud800"}')
@example(b'{"\\ud800":1}')
@example(b'{"a":"\xed\xa0\x80"}')
@example(b'{"a":"\xff"}')
@example(b'{"a\xff":1}')
@example(b'{"a":1\x0c}')
@example("{\u00a0}".encode())
def test_any_bytes_are_taken_or_refused_in_words(body: bytes) -> None:
    check(body)


@settings(max_examples=300)
@given(
    words=st.lists(
        st.sampled_from(
            [
                *('{"', '":', "{", "}", "[", "]", ",", ":", '"', "\\", '\\"', "\\u006", "1"),
                *('"a":1', '"a"', '"\\u0061":2', "null", "tru", "-", "0", "1e5", ".5", " ", "\n"),
            ]
        ),
        max_size=20,
    )
)
def test_nearly_json_is_taken_or_refused_in_words(words: list[str]) -> None:
    check("".join(words).encode())
    check(('{"a":' + "".join(words) + "}").encode())


@settings(max_examples=300)
@given(
    members=OBJECTS, rng=SPELLINGS, places=CUTS, new=st.binary(max_size=3), drop=st.integers(0, 2)
)
def test_broken_json_is_taken_or_refused_in_words(
    members: dict[str, Any], rng: Random, places: list[int], new: bytes, drop: int
) -> None:
    body = spelled(members, rng).encode()
    for place in places:
        at = place % (len(body) + 1)
        body = body[:at] + new + body[at + drop :]
    assume(len(body) < 2000)
    check(body)


def test_quotes_without_an_end_take_time_in_proportion() -> None:
    """Each quote of a string that never ends may be taken for a beginning: half an hour of
    processor time for 1 MB, were each tried."""
    body = b'{"a":[' + b"[]," * 1000 + b'"' + b'\\"' * 500_000
    start_s = time.process_time()
    assert refusal(body) == "bad_json"
    assert time.process_time() - start_s < 10


def test_a_large_string_costs_no_memory_to_be_skipped() -> None:
    """Images come as strings of megabytes beside tools with hundreds of brackets."""
    for text in (b"x" * 8_000_000, b"\\n" * 4_000_000):
        body = b'{"image":"' + text + b'","tools":[' + b"[]," * 1000 + b"{}]}"
        tracemalloc.start()
        try:
            parse(body)
            assert tracemalloc.get_traced_memory()[1] < 2.5 * len(body)
        finally:
            tracemalloc.stop()
