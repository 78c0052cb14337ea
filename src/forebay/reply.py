"""What the gateway itself says to a caller: its headers on every reply, and refusals.

A refusal before the reply has begun is a status and an error in the caller's dialect; after
it, an in-band error event, which the SDKs raise on. Neither ever looks like a success.
"""

from forebay.dialects import failures
from forebay.errors import Failure
from forebay.exchange import Chunks, Exchange, Headers
from forebay.schema.usage import usd
from forebay.wire.server import Caller

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
    request_id = x.id.encode()
    down = [*JSON, (b"x-request-id", request_id)]
    if x.dialect == "anthropic":
        down.append((b"request-id", request_id))
    if failure.retry_after_s is not None:
        down.append((b"retry-after", b"%d" % max(1, round(failure.retry_after_s))))
    if not failure.code.retryable:
        down.append((b"x-should-retry", b"false"))
    whole(x, caller, failure.code.status, down, body)


def _in_band(x: Exchange, failure: Failure, caller: Caller) -> None:
    event = failures.event(failure, x.dialect, x.id)
    if isinstance(x.reply_body, Chunks):
        x.reply_body.data += event
    elif x.reply_body is not None and x.attempts and (body := x.attempts[-1].body) is not None:
        x.reply_body.append((len(body.data), len(body.data), event))
    caller.push(event)
    caller.finish()


def _timing(x: Exchange) -> bytes:
    """Milliseconds in each layer so far, in the standard header's form."""
    read = (x.decoded_ns - x.received_ns) / 1e6
    plan = (x.planned_ns - x.decoded_ns) / 1e6
    if x.attempts and (last := x.attempts[-1]).head_ns:
        provider = (last.head_ns - last.started_ns) / 1e6
        return b"read;dur=%.3f, plan;dur=%.3f, provider;dur=%.3f" % (read, plan, provider)
    return b"read;dur=%.3f, plan;dur=%.3f" % (read, plan)
