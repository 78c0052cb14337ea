from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.twins.instance import instance

LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "minLength": 9},
            {"type": "string", "maxLength": 2},
            {"type": "integer", "minimum": -3},
            {"type": "integer", "minimum": 7},
            {"type": "number"},
            {"type": "number", "minimum": 2.5},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["string", "null"]},
            {"enum": ["a", 3, None]},
            {"const": {"x": 1}},
            {},
        ]
    )
)


def _grown(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "c"])
    return st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least},
                  inner, st.integers(0, 3)),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in required if name in properties],
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=3),
            st.lists(names, unique=True),
        ),
    )  # fmt: skip


@given(st.recursive(LEAVES, _grown, max_leaves=12))
def test_an_instance_is_accepted_by_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(instance(schema))


def test_references_and_unions_are_followed_and_recursion_ends() -> None:
    schema = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}, "name": {"type": "string"}},
                "required": ["next", "name"],
            }
        },
        "allOf": [{"$ref": "#/$defs/node"}, {"properties": {"more": {"type": "integer"}}}],
    }
    value = instance(schema)
    assert value["name"] == "word"
    assert value["more"] == 0


@pytest.mark.parametrize(
    "schema",
    [
        *(None, 3, "x", [], {}),
        *({"type": "what"}, {"type": []}, {"enum": []}, {"properties": 3}),
        *({"$ref": "#/nowhere"}, {"$ref": "http://x/y"}, {"allOf": [3]}),
        {"required": "a", "properties": {"a": {}}},
        {"type": "string", "minLength": "x", "maxLength": "y"},
        {"type": "array", "minItems": None},
    ],
)
def test_nonsense_gives_something(schema: Any) -> None:
    instance(schema)


def test_no_schema_is_a_bomb() -> None:
    wide = {"$ref": "#", "type": "object"}
    schema = {"type": "object", "properties": {str(number): wide for number in range(30)}}
    assert len(str(instance(schema))) < 500_000
    deep = {"type": "array", "minItems": 10**12, "items": {"type": "string", "minLength": 10**12}}
    assert len(instance(deep)) <= 10_001
    assert instance({"type": "integer", "minimum": float("inf")}) == 0
