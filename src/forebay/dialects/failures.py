"""Failures on the wire, in each dialect: our own rendered, a provider's read and converted.

Ours. `whole` is the body of an error response, `event` the error in the middle of a stream,
shaped so that the official SDKs raise where they meet it (openai 3.57: any event whose data
has a truthy `error`; anthropic 2.13: an event *named* `error`). No `[DONE]` or message_stop
follows: a stream with an error in it has no good end.

A provider's. `read` takes what it can from a body that may be JSON of any server's making,
plain text or a proxy's HTML page. HTML is never passed on (it is a proxy's, it names hosts,
and it helps nobody), nor is anything that looks like a key: OpenAI quotes the end of a wrong
key in its message, and that key is the operator's. `convert` says it in the other dialect.

Statuses keep their meaning across dialects. Two have another number: overload is 503 at OpenAI
and 529 at Anthropic; and a spent quota, which OpenAI calls 429, becomes 402, because SDKs ask
again after a 429, and money does not come back by asking.
"""

import re
from typing import Any

from forebay.dialects import decoding
from forebay.dialects.decoding import Json
from forebay.errors import Failure
from forebay.exchange import Dialect
from forebay.wire import sse

#: Longer messages are cut: a provider may quote the whole request in one.
MAX_MESSAGE = 2_000

OPENAI_CODES = {
    "bad_key": "invalid_api_key",
    "key_expired": "invalid_api_key",
    "unknown_model": "model_not_found",
    "unsupported": "unsupported_parameter",
    "unknown_path": "unknown_url",
}
"""OpenAI's own words, which its callers match on; other failures keep our code."""

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status; another 4xx is an invalid_request_error, another 5xx an api_error. These are the
types of the SDK's strict `ErrorResponse`; it has none for a body too large."""

_OVERLOAD: dict[Dialect, int] = {"openai": 503, "anthropic": 529}

_KEY = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|fb)[-_][\w*.-]{6,}|\bAIza[\w*-]{8,}|\bBearer\s+\S+", re.IGNORECASE
)

_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_error"})


# -- ours


def whole(failure: Failure, dialect: Dialect, request_id: str) -> bytes:
    """The body of an error response."""
    return decoding.encode(_body(failure, dialect, request_id))


def event(failure: Failure, dialect: Dialect, request_id: str) -> bytes:
    """The error as a stream's last event."""
    name = "error" if dialect == "anthropic" else ""
    return sse.event(decoding.encode(_body(failure, dialect, request_id)), name)


def response_event(failure: Failure, number: int) -> bytes:
    """The error as the last event of a Responses stream. OpenAI's shape has no `error` member,
    and its SDK raises on nothing else; so it has both."""
    body = _body(failure, "openai", "")
    error = body["error"]
    shown = {name: error[name] for name in ("code", "message", "param")}
    event = {"type": "error", "sequence_number": number, **shown, "error": error}
    return sse.event(decoding.encode(event), "error")


def _body(failure: Failure, dialect: Dialect, request_id: str) -> Json:
    status = failure.code.status
    if dialect == "anthropic":
        return _anthropic(anthropic_type(status), str(failure), request_id)
    code = OPENAI_CODES.get(failure.code.name, failure.code.name)
    return _openai(openai_type(status), str(failure), failure.param, code)


# -- a provider's


def read(status: int, body: bytes) -> tuple[str | None, str | None, str]:
    """Type, code and message of a provider's error, None where it has none; never raises.

    Whatever dialect the provider speaks: its errors may come from a proxy that speaks none.
    The message is one that can be shown to a caller: cut to MAX_MESSAGE characters, without
    HTML and without what looks like a key.
    """
    found = decoding.value(body)
    if found is None:
        text = body[: 4 * MAX_MESSAGE].decode("utf-8", "replace").strip()
        return None, None, _shown(text, status)
    if isinstance(found, list) and found:  # Gemini's OpenAI-compatible endpoint
        found = found[0]
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return None, None, _shown(error, status)
    kind = error.get("type")
    # vLLM and others put the HTTP status where OpenAI puts a word.
    code = error.get("code")
    told = next((error[n] for n in ("message", "Message", "detail", "msg") if error.get(n)), None)
    return (
        kind if isinstance(kind, str) and kind != "error" else None,
        code if isinstance(code, str) and not code.isdigit() else None,
        _shown(told, status),
    )


def convert(status: int, body: bytes, dialect: Dialect, request_id: str) -> tuple[int, bytes]:
    """A provider's error response, said in the dialect of the caller: status and body."""
    kind, code, message = read(status, body)
    if status in _OVERLOAD.values() or kind == "overloaded_error":
        status = _OVERLOAD[dialect]
    elif kind in _SPENT or code in _SPENT:
        status = 402
    if dialect == "anthropic":
        return status, decoding.encode(_anthropic(anthropic_type(status), message, request_id))
    code = code or _CODES_FROM.get(kind or "")
    return status, decoding.encode(_openai(openai_type(status), message, None, code))


_CODES_FROM = {
    "authentication_error": "invalid_api_key",
    "billing_error": "insufficient_quota",
    "not_found_error": "model_not_found",
    "rate_limit_error": "rate_limit_exceeded",
}
"""OpenAI's code for an Anthropic type, where its callers would match on one."""


# -- shapes


def anthropic_type(status: int) -> str:
    """Anthropic's error type for an HTTP status."""
    default = "api_error" if status >= 500 else "invalid_request_error"
    return ANTHROPIC_TYPES.get(status, default)


def openai_type(status: int) -> str:
    """OpenAI's error type for an HTTP status; 401 and 404 are invalid requests there, too."""
    if status in (402, 429):
        return "insufficient_quota" if status == 402 else "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _openai(kind: str, message: str, param: str | None, code: str | None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _anthropic(kind: str, message: str, request_id: str) -> Json:
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id or None,
    }


def _shown(told: Any, status: int) -> str:
    """A message as it may be shown; a sentence of ours where nothing can be."""
    if isinstance(told, list) and told and isinstance(told[0], dict):  # FastAPI's detail
        told = told[0].get("msg")
    if not isinstance(told, str) or not told.strip() or told.lstrip().startswith("<"):
        return f"The provider answered with status {status} and no message."
    return masked(told.strip())[:MAX_MESSAGE]


def masked(text: str) -> str:
    """Without what looks like a key."""
    return _KEY.sub("[key]", text)
