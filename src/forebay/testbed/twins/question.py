"""One question to a twin, whatever its dialect, and what a twin may refuse it with."""

from typing import Any

import msgspec

from forebay.testbed.twins.prompt_cache import Split

Headers = list[tuple[str, str]]


class Tool(msgspec.Struct, frozen=True):
    """A tool that the request forces: the answer is a call of it."""

    name: str
    schema: Any


class Question(msgspec.Struct):
    """What a dialect read from a request.

    `prompt` is the text of everything that goes in (tools, system, messages), end to end;
    its tokens are counted and its prefixes cached. Roles and frames count nothing.
    """

    model: str
    prompt: bytes
    tokens: int
    stream: bool = False
    #: most tokens of the answer; None: the caller set no bound
    max_tokens: int | None = None
    #: length that the workload asked for; None: the twin draws one
    wanted_tokens: int | None = None
    #: the usage chunk of an OpenAI stream was asked for
    include_usage: bool = False
    tool: Tool | None = None
    #: the answer must be an instance of this JSON schema; None: free text
    schema: Any = None
    #: ends of content blocks in `prompt`, and those with a `cache_control` (Anthropic)
    blocks: list[int] = msgspec.field(default_factory=list)
    cache_marks: list[int] = msgspec.field(default_factory=list)


class Answer(msgspec.Struct):
    """What the twin will say, decided before the first byte."""

    payload: bytes
    tokens: int
    split: Split
    #: the payload may stand in a JSON string as it is
    plain: bool = True
    #: the bound came before the end
    cut_by_length: bool = False


class Refused(Exception):
    """A request that the provider turns down; the dialect gives it its form.

    `kind` is one of the meanings below, which each dialect spells in its own way.
    """

    #: meaning → HTTP status
    KINDS = {  # noqa: RUF012 - never written
        "bad_request": 400,
        "context_too_long": 400,
        "content_policy": 400,
        "bad_key": 401,
        "not_allowed": 403,
        "unknown_model": 404,
        "unknown_path": 404,
        "bad_method": 405,
        "too_large": 413,
        "rate_limited": 429,
        "quota": 429,
        "server_error": 500,
        "unavailable": 503,
        "overloaded": 529,
    }

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.status = status or self.KINDS[kind]
        self.headers = headers or []
