"""Every refusal and failure, as data.

A `Failure` says what was refused, the value seen, the limit, and what to do next; it
carries a stable code, an HTTP status, whose fault it is and whether asking again can help.
How it looks on the wire is the dialects' business, never this module's.

    Failure
     ├─ caller's     bad_json · bad_request · duplicate_key · too_deep · unsupported ·
     │               missing_key · bad_key · key_expired · foreign_origin ·
     │               unknown_path · unknown_model · unknown_trace · method_not_allowed ·
     │               slow_request · body_too_large · bad_content_type · headers_too_large
     ├─ operator's   not_configured · provider_refused_key
     ├─ provider's   provider_error · provider_unreachable · provider_timeout · bad_answer ·
     │               truncated
     └─ ours         overloaded · internal · shutting_down
"""

from typing import Literal

import msgspec

Fault = Literal["caller", "operator", "provider", "us"]


class Code(msgspec.Struct, frozen=True):
    """What a failure code always means; the message and the numbers come with each failure."""

    name: str
    status: int
    fault: Fault
    #: whether the same request may succeed later without anybody changing anything
    retryable: bool = False


def _codes(*codes: Code) -> dict[str, Code]:
    return {code.name: code for code in codes}


CODES = _codes(
    Code("bad_json", 400, "caller"),
    Code("bad_request", 400, "caller"),
    Code("duplicate_key", 400, "caller"),
    Code("too_deep", 400, "caller"),
    Code("unsupported", 400, "caller"),
    Code("missing_key", 401, "caller"),
    Code("bad_key", 401, "caller"),
    Code("key_expired", 401, "caller"),
    Code("foreign_origin", 403, "caller"),
    Code("unknown_path", 404, "caller"),
    Code("unknown_model", 404, "caller"),
    Code("unknown_trace", 404, "caller"),
    Code("method_not_allowed", 405, "caller"),
    Code("slow_request", 408, "caller"),
    Code("body_too_large", 413, "caller"),
    Code("bad_content_type", 415, "caller"),
    Code("headers_too_large", 431, "caller"),
    Code("internal", 500, "us"),
    Code("not_configured", 501, "operator"),
    Code("provider_error", 502, "provider", retryable=True),
    Code("provider_refused_key", 502, "operator"),
    Code("provider_unreachable", 502, "provider", retryable=True),
    Code("bad_answer", 502, "provider", retryable=True),
    Code("truncated", 502, "provider", retryable=True),
    Code("overloaded", 503, "us", retryable=True),
    Code("shutting_down", 503, "us", retryable=True),
    Code("provider_timeout", 504, "provider", retryable=True),
)


class Failure(Exception):
    """One refusal or failure.

    `code` is a key of CODES. `message` is one sentence for the caller: what was refused,
    the value seen, the limit. `hint` is what to do next. `param` is the offending member of
    the request, as a path (`messages[0].role`), or None. `retry_after_s` is seconds until a
    retry can help, None where nobody knows.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
        provider: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = CODES[code]
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        self.provider = provider

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def __repr__(self) -> str:
        return f"<Failure {self.code.name} {self.code.status} ({self.code.fault}): {self}>"
