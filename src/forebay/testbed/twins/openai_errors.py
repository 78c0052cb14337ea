"""Errors as OpenAI words them: `{"error": {"message", "type", "param", "code"}}`, all four
always there. Azure answers a wrong key with a body of its own."""

from forebay.testbed.twins.form import json_encode
from forebay.testbed.twins.question import Refused

#: meaning → (type, code)
_ERRORS: dict[str, tuple[str, str | None]] = {
    "bad_request": ("invalid_request_error", None),
    "context_too_long": ("invalid_request_error", "context_length_exceeded"),
    "content_policy": ("invalid_request_error", "content_policy_violation"),
    "bad_key": ("invalid_request_error", "invalid_api_key"),
    "not_allowed": ("invalid_request_error", "unsupported_country_region_territory"),
    "unknown_model": ("invalid_request_error", "model_not_found"),
    "unknown_path": ("invalid_request_error", "unknown_url"),
    "bad_method": ("invalid_request_error", "method_not_supported"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "rate_limited": ("tokens", "rate_limit_exceeded"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "server_error": ("server_error", None),
    "unavailable": ("server_error", None),
    "overloaded": ("server_error", "overloaded"),
}


def error_body(refused: Refused, azure: bool = False) -> bytes:
    if azure and refused.kind in ("bad_key", "unknown_path"):
        code = {"bad_key": "401", "unknown_path": "404"}[refused.kind]
        return json_encode({"error": {"code": code, "message": refused.message}})
    kind, name = _ERRORS[refused.kind]
    if refused.kind == "rate_limited" and " requests per " in refused.message:
        kind = "requests"
    error = {"message": refused.message, "type": kind, "param": refused.param, "code": name}
    return json_encode({"error": error})
