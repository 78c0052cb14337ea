"""The smallest JSON value that a JSON schema accepts, for forced tool calls and formats.

Knows what providers' strict modes allow: types, `enum`, `const`, `properties` with
`required`, `items` with `minItems`, number and length bounds, `anyOf`/`oneOf`/`allOf`, local
`$ref`. What it does not know it ignores; depth is bounded, so a recursive schema ends.
"""

from typing import Any

_MAX_DEPTH = 12


def instance(schema: Any) -> Any:
    """A value for a schema; `{}` where the schema is no object."""
    return _value(schema, schema, 0)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {}
    if isinstance(ref := schema.get("$ref"), str):
        return _value(_resolve(ref, root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(options := schema.get("enum"), list) and options:
        return options[0]
    for union in ("anyOf", "oneOf"):
        if isinstance(members := schema.get(union), list) and members:
            return _value(members[0], root, depth + 1)
    if isinstance(parts := schema.get("allOf"), list) and parts:
        merged: dict[str, Any] = {}
        for part in parts:
            value = _value(part, root, depth + 1)
            if not isinstance(value, dict):
                return value
            merged |= value
        return merged
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    match kind:
        case "string":
            return "word".ljust(_int(schema, "minLength"), "x")[: schema.get("maxLength")]
        case "integer":
            return _int(schema, "minimum")
        case "number":
            return schema.get("minimum", 0.5)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            item = _value(schema.get("items", {"type": "string"}), root, depth + 1)
            return [item] * max(1, _int(schema, "minItems"))
        case _:
            return _object(schema, root, depth)


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    required = schema.get("required", list(properties))
    return {
        name: _value(properties[name], root, depth + 1)
        for name in properties
        if isinstance(required, list) and name in required
    }


def _int(schema: dict[str, Any], name: str) -> int:
    value = schema.get(name, 0)
    return int(value) if isinstance(value, (int, float)) else 0


def _resolve(ref: str, root: Any) -> Any:
    at = root
    for step in ref.removeprefix("#").strip("/").split("/"):
        if not step:
            continue
        at = at.get(step) if isinstance(at, dict) else None
    return at
