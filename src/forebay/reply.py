"""What the gateway itself says to a caller: its headers on every reply, and refusals.

A refusal before the reply has begun is a status and an error in the caller's dialect; after
it, an in-band error event, which the SDKs raise on. Neither ever looks like a success.
"""

import re

from forebay.dialects import failures
from forebay.errors import Failure
from forebay.exchange import Chunks, Exchange, Headers
from forebay.schema.usage import usd
from forebay.wire.caller import Caller

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


def whole(x: Exchange, caller: Caller, status: int, down: Headers, body: bytes) -> None:
    """A complete reply."""
    x.status = status
    x.reply_headers = down
    caller.reply(status, down, body)


def own_headers(x: Exchange, told: Headers) -> Headers:
    """What the gateway tells about an answer; `told` is the route's part. Sync, ~2 µs."""
    request_id = x.id.encode()
    own = [
        (b"x-request-id", request_id),
        (b"x-forebay-cache", x.cache.encode()),
        *told,
        (b"server-timing", _timing(x)),
    ]
    if x.dialect == "anthropic":
        own.append((b"request-id", request_id))
    if x.cost_nusd is not None:
        own.append((b"x-forebay-cost-usd", usd(x.cost_nusd).encode()))
    return own


def request_id(x: Exchange) -> Headers:
    """The id a caller can ask about, under the name its SDK looks for."""
    value = x.id.encode()
    own = [(b"x-request-id", value)]
    return [*own, (b"request-id", value)] if x.dialect == "anthropic" else own


def is_events(headers: Headers) -> bool:
    """Whether a body is an event stream."""
    for name, value in headers:
        if name == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False


def refuse(x: Exchange, failure: Failure, caller: Caller) -> None:
    """End in a failure. Sync."""
    x.failure = failure
    x.outcome = failure.code.name
    if caller.response_started:
        _in_band(x, failure, caller)
        return
    body = failures.whole(failure, x.dialect, x.id)
    x.reply_body = Chunks(x.received_ns)
    x.reply_body.data += body
    down = JSON + request_id(x)
    if failure.retry_after_s is not None:
        down.append((b"retry-after", b"%d" % max(1, round(failure.retry_after_s))))
    if not failure.code.retryable:
        down.append((b"x-should-retry", b"false"))
    whole(x, caller, failure.code.status, down, body)


def _in_band(x: Exchange, failure: Failure, caller: Caller) -> None:
    if not is_events(x.reply_headers):
        caller.abort()  # there is no place for words; a file cut short must not look whole
        return
    if x.endpoint == "responses":
        event = failures.response_event(failure, _next_number(x))
    else:
        event = failures.event(failure, x.dialect, x.id)
    if isinstance(x.reply_body, Chunks):
        x.reply_body.data += event
    elif x.reply_body is not None and x.attempts and (body := x.attempts[-1].body) is not None:
        x.reply_body.append((len(body.data), len(body.data), event))
    caller.push(event)
    caller.finish()


_NUMBER = re.compile(rb'"sequence_number":\s*(\d{1,9})')


def _next_number(x: Exchange) -> int:
    """That of the next event of a Responses stream. A text in it can't imitate the member: its
    quotes are escaped."""
    body = x.attempts[-1].body if x.attempts else None
    numbers = _NUMBER.findall(bytes(body.data[-4096:])) if body is not None else []
    return int(numbers[-1]) + 1 if numbers else 0


def _timing(x: Exchange) -> bytes:
    """Milliseconds in each layer so far, in the standard header's form."""
    read = (x.decoded_ns - x.received_ns) / 1e6
    plan = (x.planned_ns - x.decoded_ns) / 1e6
    if x.attempts and (last := x.attempts[-1]).head_ns:
        provider = (last.head_ns - last.started_ns) / 1e6
        return b"read;dur=%.3f, plan;dur=%.3f, provider;dur=%.3f" % (read, plan, provider)
    return b"read;dur=%.3f, plan;dur=%.3f" % (read, plan)
