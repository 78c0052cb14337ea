"""The smallest JSON value that a JSON schema accepts, for forced tool calls and formats.

Knows what providers' strict modes allow: types, `enum`, `const`, `properties` with
`required`, `items` with `minItems`, number and length bounds, `anyOf`/`oneOf`/`allOf`, local
`$ref`. What it does not know it ignores. Depth and size are bounded, so that a recursive
schema ends and none is a bomb; past the bounds everything is `{}`.
"""

from typing import Any

_MAX_DEPTH = 12
_MAX_VALUES = 10_000
_MAX_LENGTH = 10_000


def instance(schema: Any) -> Any:
    """A value for a schema; `{}` where the schema is no object."""
    return _Maker(schema).value(schema, 0)


class _Maker:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._left < 0:
            return {}
        if isinstance(ref := schema.get("$ref"), str):
            return self.value(self._resolve(ref), depth + 1)
        if "const" in schema:
            return schema["const"]
        if isinstance(options := schema.get("enum"), list) and options:
            return options[0]
        for union in ("anyOf", "oneOf"):
            if isinstance(members := schema.get(union), list) and members:
                return self.value(members[0], depth + 1)
        if isinstance(parts := schema.get("allOf"), list) and parts:
            return self._merged(parts, depth)
        kind = schema.get("type")
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "string":
                return _string(schema)
            case "integer":
                return _int(schema, "minimum")
            case "number":
                return schema.get("minimum", 0.5)
            case "boolean":
                return True
            case "null":
                return None
            case "array":
                return self._array(schema, depth)
            case _:
                return self._object(schema, depth)

    def _merged(self, parts: list[Any], depth: int) -> Any:
        merged: dict[str, Any] = {}
        for part in parts:
            value = self.value(part, depth + 1)
            if not isinstance(value, dict):
                return value
            merged |= value
        return merged

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        items = schema.get("items", {"type": "string"})
        least = max(1, _int(schema, "minItems"))
        return [self.value(items, depth + 1) for _ in range(min(least, max(1, self._left)))]

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        required = schema.get("required", list(properties))
        return {
            name: self.value(properties[name], depth + 1)
            for name in properties
            if isinstance(required, list) and name in required
        }

    def _resolve(self, ref: str) -> Any:
        at = self._root
        for step in ref.removeprefix("#").strip("/").split("/"):
            if step:
                at = at.get(step) if isinstance(at, dict) else None
        return at


def _string(schema: dict[str, Any]) -> str:
    text = "word".ljust(min(_int(schema, "minLength"), _MAX_LENGTH), "x")
    return text[: _int(schema, "maxLength")] if "maxLength" in schema else text


def _int(schema: dict[str, Any], name: str) -> int:
    value = schema.get(name, 0)
    # NaN and infinity are no integers, and JSON readers do let them through.
    return int(value) if isinstance(value, (int, float)) and abs(value) < 2**63 else 0
