"""What the pipeline reads of a request: enough to plan, strict in shape, blind to the rest."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.dialects import asks
from forebay.errors import Failure
from forebay.exchange import Ask
from forebay.wire import members

Read = Callable[[members.Members], Ask]
USER = [{"role": "user", "content": "hello"}]


def read(of: Read, **body: Any) -> Ask:
    return of(members.parse(json.dumps(body).encode()))


def refused(of: Read, **body: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        read(of, **body)
    assert caught.value.code.name == "bad_request"
    return caught.value


def test_a_chat_request() -> None:
    found = read(asks.read_chat, model="p/m", messages=USER)
    assert (found.model, found.stream, found.include_usage) == ("p/m", False, False)
    assert (found.deterministic, found.images, found.max_output_tokens) == (False, False, None)
    found = read(
        asks.read_chat,
        model="p/m",
        messages=USER,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        max_tokens=5,
    )
    assert (found.stream, found.include_usage, found.deterministic) == (True, True, True)
    assert found.max_output_tokens == 5


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
    ],
)
def test_the_limit_of_a_chat_answer(limits: dict[str, Any], limit: int | None) -> None:
    assert read(asks.read_chat, model="m", messages=USER, **limits).max_output_tokens == limit


@pytest.mark.parametrize("of", [asks.read_chat, asks.read_messages, asks.read_responses])
@pytest.mark.parametrize(
    ("temperature", "deterministic"),
    [(0, True), (0.0, True), (-0.0, True), (1e-9, False), (1, False), (None, False)],
)
def test_what_counts_as_deterministic(of: Read, temperature: Any, deterministic: bool) -> None:
    body = {"model": "m", "messages": USER, "input": "x", "max_tokens": 1}
    found = read(of, **body, temperature=temperature)
    # Responses may refer to state at the provider: never the same twice.
    assert found.deterministic == (deterministic and of is not asks.read_responses)


def test_embeddings_and_counts_are_always_deterministic() -> None:
    assert read(asks.read_embeddings, model="m", input="x").deterministic
    assert read(asks.read_count_tokens, model="m", messages=USER).deterministic


@pytest.mark.parametrize("empty", ["", []])
def test_nothing_to_embed(empty: Any) -> None:
    assert refused(asks.read_embeddings, model="m", input=empty).param == "input"


def test_a_messages_request_must_say_how_much() -> None:
    """Anthropic does, and its SDK always sends it."""
    failure = refused(asks.read_messages, model="m", messages=USER)
    assert failure.param == "max_tokens"
    assert read(asks.read_messages, model="m", messages=USER, max_tokens=0).max_output_tokens == 0


def test_images_are_noticed() -> None:
    for of, kind in ((asks.read_chat, "image_url"), (asks.read_messages, "image")):
        content = [{"type": "text", "text": "what is this?"}, {"type": kind, kind: {}}]
        body = {"model": "m", "max_tokens": 1}
        assert read(of, **body, messages=[*USER, {"role": "user", "content": content}]).images
        assert not read(of, **body, messages=USER).images


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in asks._Chat.__struct_fields__),
        st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=4),
        max_size=4,
    )
)
def test_fields_that_nobody_here_knows_are_none_of_our_business(more: dict[str, Any]) -> None:
    assert read(asks.read_chat, model="m", messages=USER, **more).model == "m"


ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts=st.lists(ASCII | ANY, min_size=1, max_size=5), escaped=st.booleans())
def test_the_bound_is_one_and_the_estimate_is_near(texts: list[str], escaped: bool) -> None:
    """No tokenizer makes more tokens than UTF-8 bytes; templates add a few a message."""
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    raw = json.dumps(body, ensure_ascii=escaped).encode()
    found = asks.read_chat(members.parse(raw))
    size = sum(len(text.encode()) for text in texts)
    assert found.input_tokens_bound >= size + 4 * len(texts)
    assert found.input_tokens_bound <= len(raw) + 16 * len(texts)
    assert found.input_tokens_estimate >= size // 4
    assert found.input_tokens_estimate <= math.ceil(len(raw) / 4)


@pytest.mark.parametrize("member", ["tools", "functions", "response_format"])
def test_the_bound_counts_what_is_not_messages(member: str) -> None:
    plain = read(asks.read_chat, model="m", messages=USER)
    long = {"type": "json_schema", "json_schema": {"description": "x" * 1000}}
    value: Any = long if member == "response_format" else [long]
    more = read(asks.read_chat, model="m", messages=USER, **{member: value})
    assert more.input_tokens_bound >= plain.input_tokens_bound + 1000


@pytest.mark.parametrize(
    ("of", "body", "param"),
    [
        (asks.read_chat, {"messages": USER}, "model"),
        (asks.read_chat, {"model": "m"}, "messages"),
        (asks.read_chat, {"model": "m", "messages": [{"role": "user"}, {}]}, "messages[1].role"),
        (asks.read_chat, {"model": "m", "messages": [{"role": 1}]}, "messages[0].role"),
        (asks.read_chat, {"model": "m", "messages": USER, "n": 0}, "n"),
        (asks.read_chat, {"model": "m", "messages": USER, "n": 2**53}, "n"),
        (asks.read_chat, {"model": "m" * 513, "messages": USER}, "model"),
        (
            asks.read_chat,
            {"model": "m", "messages": USER, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
        ),
        (asks.read_responses, {"model": "m", "input": 1}, "input"),
        (asks.read_embeddings, {"model": "m"}, "input"),
    ],
)
def test_the_path_of_what_is_wrong_stands_apart(of: Read, body: dict[str, Any], param: str) -> None:
    failure = refused(of, **body)
    assert failure.param == param
    assert param.split(".")[-1] in failure.message
    assert "$" not in failure.message
