"""Same dialect in and out: bytes pass, and are watched.

Requests are spliced, never rewritten: the model's name, and for OpenAI streams
`stream_options.include_usage`, without which a streamed answer cannot be billed.

Streams are cut into events and forwarded as they are. What the gateway must know (usage,
finish reason, in-band errors, whether content moves) is found without parsing nearly every
event: an event in which the one telling key stands in its ordinary shape is content and is
passed at the cost of a few substring searches; anything else, exotic spacing included, is
parsed properly. A JSON string cannot imitate a key: its quotes are escaped.
"""

from typing import Any

import msgspec

from forebay.dialects import decoding, failures
from forebay.dialects.translation import Finding, StreamTranslation
from forebay.dialects.usage import (
    newer,
    usage_from_chat,
    usage_from_embeddings,
    usage_from_messages,
    usage_from_responses,
)
from forebay.errors import Failure
from forebay.exchange import Ask, Dialect
from forebay.schema.usage import Usage
from forebay.wire import members as top
from forebay.wire import sse
from forebay.wire.members import Members, Splice

#: No member: where msgspec would take None, but Raw knows no union.
_NONE = msgspec.Raw()

_object = msgspec.json.Decoder(dict[str, Any]).decode


# -- OpenAI Chat Completions ---------------------------------------------------------------


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


#: Of several choices the one that was filtered speaks for all: such an answer is not kept.
_FILTER = "content_filter"

_completion = msgspec.json.Decoder(_Completion).decode


class Chat:
    endpoint = "chat"
    dialect: Dialect = "openai"

    def request(self, members: Members, ask: Ask, model: str) -> list[Splice]:
        changes = {}
        if model != ask.model:
            changes["model"] = msgspec.json.encode(model)
        if ask.stream and not ask.include_usage:
            changes["stream_options"] = _with_usage(members)
        return members.edits(changes)

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        """Raises Failure(bad_answer). Sync, ~3 µs for 2 KB."""
        try:
            reply = _completion(body)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        if reply.choices is None:
            raise no_answer(body, reply.error, "choices")
        finding = Finding(model=reply.model)
        if reply.choices:
            reasons = [choice.finish_reason for choice in reply.choices]
            finding.finish_reason = _FILTER if _FILTER in reasons else reasons[0]
        if reply.usage != _NONE:
            finding.usage = usage_from_chat(reply.usage)
        return body, finding

    def stream(self, ask: Ask) -> StreamTranslation:
        return _ChatStream(withhold_usage=not ask.include_usage)


class _Watcher:
    """The part that all watched streams share: events in, events out, some left out."""

    def __init__(self) -> None:
        self.finding = Finding()
        self.splices: list[Splice] | None = []
        self._splitter = sse.Splitter()
        self._at = 0  # offset of the next event in the provider's stream

    def feed(self, chunk: bytes) -> bytes:
        # A chunk that is one whole event of content is what a stream consists of: it is told
        # by substring searches and passed as it is.
        size = len(chunk)
        if (
            not self._splitter.held
            and chunk.find(b"\n\n") == size - 2
            and chunk.endswith(b"}\n\n")  # an answer that broke inside of its JSON doesn't
            and b"\r" not in chunk
            and self._is_content(chunk)
        ):
            self.finding.progress += 1
            self._at += size
            return chunk
        at = self._at
        try:
            events = self._splitter.feed(chunk)
            if len(events) == 1:
                return self._pass(events[0])
            return b"".join([self._pass(event) for event in events])
        except Failure:
            self._at = at  # nothing of this chunk is handed over
            raise

    def finish(self) -> bytes:
        rest = self._splitter.close()
        return self._pass(rest) if rest else b""

    def cut(self, size: int) -> None:
        splices = self.splices
        assert splices is not None
        while splices and splices[-1][0] >= self._at:
            splices.pop()
        if self._at < size:
            splices.append((self._at, size, b""))

    def _pass(self, event: bytes) -> bytes:
        size = len(event)
        if not self._watch(event):
            self.splices.append((self._at, self._at + size, b""))  # type: ignore[union-attr]
            event = b""
        self._at += size
        return event

    def _is_content(self, event: bytes) -> bool:
        """Whether it is surely content and nothing else. Sync, ~0.3 µs; False is no verdict."""
        raise NotImplementedError

    def _watch(self, event: bytes) -> bool:
        """Learn from an event of any kind; False withholds it."""
        raise NotImplementedError


#: What follows a key whose value is null, as servers space it; anything else is looked into.
_NULL = (b":nul", b": nu")


class _ChatStream(_Watcher):
    def __init__(self, withhold_usage: bool) -> None:
        super().__init__()
        self._withhold_usage = withhold_usage

    def _is_content(self, event: bytes) -> bool:
        at = event.find(b'"finish_reason"')
        if at < 0 or event[at + 15 : at + 19] not in _NULL or b'"error"' in event:
            return False
        if event.find(b'"finish_reason"', at + 19) >= 0:  # of another choice
            return False
        at = event.find(b'"usage"')
        if at >= 0 and event[at + 7 : at + 11] not in _NULL:
            return False
        return b'"content":""' not in event and b'"delta":{}' not in event

    def _watch(self, event: bytes) -> bool:
        data = sse.parse(event).data
        if data is None:
            return True
        if data.strip() == b"[DONE]":
            self.finding.closed = True
            return True
        try:
            chunk = _object(data)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        finding = self.finding
        if isinstance(model := chunk.get("model"), str):
            finding.model = model
        if chunk.get("error"):
            finding.error = error_text(chunk["error"])
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and finding.finish_reason != _FILTER:
                finding.finish_reason = reason
            delta = choice.get("delta")
            if isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role"):
                finding.progress += 1
        if isinstance(usage := chunk.get("usage"), dict):
            finding.usage = usage_from_chat(usage) or finding.usage
            if not choices and self._withhold_usage:
                return False
        return True


def _with_usage(members: Members) -> bytes:
    raw = members.raw.get("stream_options")
    if raw is None or raw == b"null":
        return b'{"include_usage":true}'
    options = top.parse(raw)
    return top.apply(options.body, options.edits({"include_usage": b"true"}))


# -- Anthropic Messages --------------------------------------------------------------------


class _Message(msgspec.Struct, gc=False):
    model: str | None = None
    content: msgspec.Raw = _NONE
    stop_reason: str | None = None
    usage: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


_message = msgspec.json.Decoder(_Message).decode


class Messages:
    endpoint = "messages"
    dialect: Dialect = "anthropic"

    def request(self, members: Members, ask: Ask, model: str) -> list[Splice]:
        return renamed(members, ask, model)

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        try:
            reply = _message(body)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        if reply.content == _NONE:
            raise no_answer(body, reply.error, "content")
        finding = Finding(model=reply.model, finish_reason=reply.stop_reason)
        if reply.usage != _NONE:
            finding.usage = usage_from_messages(reply.usage)
        return body, finding

    def stream(self, ask: Ask) -> StreamTranslation:
        return _MessagesStream()


class CountTokens(Messages):
    endpoint = "count_tokens"

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        return body, Finding(finish_reason="counted", usage=Usage())


class _MessagesStream(_Watcher):
    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}  # message_start's, updated by each message_delta

    def _is_content(self, event: bytes) -> bool:
        return event.startswith(b"event: content_block_delta\n")

    def _watch(self, event: bytes) -> bool:
        data = sse.parse(event).data
        if data is None:
            return True
        try:
            body = _object(data)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        self._learn(body)
        return True

    def _learn(self, body: dict[str, Any]) -> None:
        finding = self.finding
        usage: Any = None
        match body.get("type"):
            case "message_start" if isinstance(message := body.get("message"), dict):
                usage = message.get("usage")
                if isinstance(model := message.get("model"), str):
                    finding.model = model
            case "message_delta":
                usage = body.get("usage")
                delta = body.get("delta")
                if isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str):
                    finding.finish_reason = delta["stop_reason"]
            case "content_block_delta":
                finding.progress += 1
            case "message_stop":
                finding.closed = True
            case "error":
                finding.error = error_text(body.get("error"))
        if isinstance(usage, dict):
            self._usage = newer(self._usage, usage)
            finding.usage = usage_from_messages(self._usage) or finding.usage


# -- OpenAI Responses ----------------------------------------------------------------------


class _Response(msgspec.Struct, gc=False):
    model: str | None = None
    status: str | None = None
    output: msgspec.Raw = _NONE
    usage: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


_response = msgspec.json.Decoder(_Response).decode


class Responses:
    endpoint = "responses"
    dialect: Dialect = "openai"

    def request(self, members: Members, ask: Ask, model: str) -> list[Splice]:
        return renamed(members, ask, model)

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        try:
            reply = _response(body)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        if reply.output == _NONE:
            raise no_answer(body, reply.error, "output")
        # An answer without a status is taken at its word: older servers send none.
        finding = Finding(model=reply.model, finish_reason=reply.status or "completed")
        if reply.status == "failed":
            finding.error = error_text(decoding.value(bytes(reply.error)))
        if reply.usage != _NONE:
            finding.usage = usage_from_responses(reply.usage)
        return body, finding

    def stream(self, ask: Ask) -> StreamTranslation:
        return _ResponsesStream()


class _ResponsesStream(_Watcher):
    def _is_content(self, event: bytes) -> bool:
        return event.startswith(b"event: response.") and event.find(b".delta\n") == (
            event.find(b"\n") - 6
        )

    def _watch(self, event: bytes) -> bool:
        data = sse.parse(event).data
        if data is None or data.strip() == b"[DONE]":  # some imitations add a terminator
            return True
        try:
            body = _object(data)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        finding = self.finding
        response = body.get("response")
        match body.get("type"):
            case "response.completed" | "response.incomplete" | "response.failed":
                if isinstance(response, dict):
                    finding.finish_reason = str(response.get("status") or "completed")
                    finding.closed = True
                    if isinstance(model := response.get("model"), str):
                        finding.model = model
                    if isinstance(usage := response.get("usage"), dict):
                        finding.usage = usage_from_responses(usage)
                    if finding.finish_reason == "failed":
                        finding.error = error_text(response.get("error"))
            case "error":
                finding.error = error_text(body)
            case str(kind) if kind.endswith(".delta"):
                finding.progress += 1
        return True


# -- Embeddings, and what we do not look into ----------------------------------------------


class _Embeddings(msgspec.Struct, gc=False):
    model: str | None = None
    data: msgspec.Raw = _NONE
    usage: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


_embeddings = msgspec.json.Decoder(_Embeddings).decode


class Embeddings:
    endpoint = "embeddings"
    dialect: Dialect = "openai"

    def request(self, members: Members, ask: Ask, model: str) -> list[Splice]:
        return renamed(members, ask, model)

    def whole(self, body: bytes, ask: Ask) -> tuple[bytes, Finding]:
        try:
            reply = _embeddings(body)
        except decoding.WRONG as error:
            raise bad_answer(error) from None
        if reply.data == _NONE:
            raise no_answer(body, reply.error, "data")
        usage = usage_from_embeddings(reply.usage) if reply.usage != _NONE else None
        return body, Finding(model=reply.model, finish_reason="embedded", usage=usage)

    def stream(self, ask: Ask) -> StreamTranslation:
        raise Failure("unsupported", "Embeddings are not streamed.", param="stream")


class OpaqueStream:
    """A body nobody reads: /passthrough, files, audio."""

    def __init__(self) -> None:
        self.finding = Finding(finish_reason="passed")
        self.splices: list[Splice] | None = []

    def feed(self, chunk: bytes) -> bytes:
        self.finding.progress += 1
        return chunk

    def finish(self) -> bytes:
        return b""

    def cut(self, size: int) -> None:
        """Everything went as it came."""


# -- shared --------------------------------------------------------------------------------


def renamed(members: Members, ask: Ask, model: str) -> list[Splice]:
    """The one edit a request needs: the provider's own name of the model."""
    if model == ask.model:
        return []
    return members.edits({"model": msgspec.json.encode(model)})


def bad_answer(error: Exception) -> Failure:
    return Failure("bad_answer", f"The provider's answer is not what its API promises: {error}.")


def no_answer(body: bytes, error: msgspec.Raw, lacks: str) -> Failure:
    """Status 200 and no answer: some servers and many proxies report their errors so."""
    if bytes(error) in (b"", b"null"):
        return Failure("bad_answer", f"The provider's answer has no {lacks}.")
    return Failure("provider_error", failures.read(200, body)[2])


def error_text(error: Any) -> str:
    """The human part of an in-band error, whatever shape it has."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("type") or error.get("code")
    return str(error) if error else "the provider reported an error without a message"
