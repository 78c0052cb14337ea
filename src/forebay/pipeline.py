"""The way of one request, top to bottom. Read this first; everything else is a detail of it.

    caller ─▶ identify ─▶ read ─▶ plan ─▶ cache? ──────────────▶ reply ─▶ settle
                                            └─▶ attempt ─▶ relay ──┘

Each step stands where it does for a reason given in its comment. A step that cannot wait is
a plain function. Whatever happens, including the caller leaving at any line, the request
ends in exactly one outcome, and `settle` accounts for it once.
"""

import asyncio
from typing import Protocol

import msgspec

from forebay.admission import door
from forebay.admission.keys import Keyring
from forebay.caches.exact import Entry, ExactCache, key_of
from forebay.dialects import failures, headers
from forebay.dialects.choice import translate
from forebay.dialects.endpoints import Endpoint
from forebay.dialects.passthrough import OpaqueStream
from forebay.dialects.translation import Finding, StreamTranslation, Translation
from forebay.errors import Failure
from forebay.exchange import Ask, Attempt, Capture, Chunks, Exchange, Headers, Tenant
from forebay.providers import Provider
from forebay.providers.prices import PriceTable
from forebay.routing import attempt as attempts
from forebay.routing.attempt import Timeouts
from forebay.routing.catalogue import Catalogue, Route
from forebay.routing.relay import Relay
from forebay.schema.usage import Usage, usd
from forebay.wire import members as top
from forebay.wire.members import Members
from forebay.wire.server import Caller
from forebay.wire.upstream import MAX_BODY_BYTES, Call, LinkError
from forebay.world import World

_JSON: Headers = [(b"content-type", b"application/json")]
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
#: An error's body is for people; more than this is no error message.
_MAX_ERROR_BYTES = 1024 * 1024


class Recorder(Protocol):
    def keep(self, x: Exchange) -> None: ...


class Way(msgspec.Struct):
    """What the steps work with; made by `assemble`, one for each worker."""

    world: World
    keyring: Keyring
    keys_required: bool  # also of callers on this machine
    catalogue: Catalogue
    cache: ExactCache | None  # None: off
    prices: PriceTable
    timeouts: Timeouts
    capture: Capture
    recorder: Recorder


async def handle(way: Way, endpoint: Endpoint, x: Exchange, caller: Caller) -> None:
    """Answer one request of a model endpoint. Never raises but for cancellation."""
    world = way.world
    try:
        # 1. Who is asking, from the headers alone: a stranger's body is never read.
        x.tenant = identify(way, x)
        x.identified_ns = world.now_ns()

        # 2. Read and decode: one level deep, the rest stays the caller's bytes.
        x.body = await caller.read()
        members = top.parse(x.body)
        ask = x.ask = endpoint.read(members)
        x.decoded_ns = world.now_ns()

        # 3. Plan: the target must be known before the cache, since it is part of the key.
        route = way.catalogue.find(ask.model, endpoint.name)
        translation = _translation(endpoint, route)
        up = headers.up(x.headers, endpoint.dialect, route.provider.dialect)
        x.route, x.capture = route.why, route.capture or way.capture
        _plan_cache(way, endpoint, x, route, members, up)
        x.planned_ns = world.now_ns()

        # 4. An answer we have costs nothing and waits for nobody.
        if x.cache_key and (entry := _cached(way, x)) is not None:
            _give(way, x, entry, caller)
            return

        # 5. Ask the provider, and hand over what it says as it says it.
        await _ask(way, endpoint, x, route, translation, members, up, caller)
    except Failure as failure:
        _refuse(x, failure, caller)
    except ConnectionError:
        x.outcome = "cancelled"  # the caller left while sending: nobody to tell
    except asyncio.CancelledError:
        x.outcome = "cancelled"
        raise
    except Exception as error:
        # A defect of ours: the caller gets an honest 500, the log the traceback.
        _report(x, error)
        _refuse(
            x,
            Failure("internal", "The gateway failed.", hint=f"It is logged under {x.id}."),
            caller,
        )
    finally:
        # 6. Settle on every way out: usage, cost, cache, record. Once.
        _settle(way, x)


async def forward(way: Way, x: Exchange, provider_name: str, path: str, caller: Caller) -> None:
    """Any other path of a provider, as it is: with a key and a record, without a look inside."""
    try:
        x.tenant = identify(way, x)
        x.identified_ns = way.world.now_ns()
        x.capture = way.capture
        provider = way.catalogue.providers.get(provider_name)
        if provider is None:
            raise Failure(
                "unknown_path",
                f"No provider is named {provider_name[:80]!r}.",
                hint=f"Configured: {', '.join(way.catalogue.providers) or 'none'}.",
            )
        x.body = await caller.read()
        x.decoded_ns = x.planned_ns = way.world.now_ns()
        x.dialect, x.route = provider.dialect, f"passthrough: {provider.name}"
        query = "&".join(part for part in (x.query, provider.address.query) if part)
        target = provider.address.prefix + path + (f"?{query}" if query else "")
        up = headers.up(x.headers, provider.dialect, provider.dialect)
        up += [h for h in x.headers if h[0] in (b"content-type", b"accept")]
        clocks = way.timeouts.clocks(x.received_ns)
        attempt, call = await attempts.send(
            way.world, x, provider, "", x.method, target, up, [], clocks
        )
        down = headers.down(call.headers, provider.dialect)
        down += [h for h in call.headers if h[0] in (b"content-type", b"content-disposition")]
        await _relay(way, x, attempt, call, OpaqueStream(), caller, call.status, down)
        x.outcome = attempt.outcome = "ok" if call.status < 400 else "provider_error"
    except Failure as failure:
        _refuse(x, failure, caller)
    except ConnectionError:
        x.outcome = "cancelled"
    except asyncio.CancelledError:
        x.outcome = "cancelled"
        raise
    finally:
        _settle(way, x)


# -- 1: identify ---------------------------------------------------------------------------


def identify(way: Way, x: Exchange) -> Tenant:
    """Whose request it is. Raises Failure. Sync, ~3 µs.

    A program on this machine needs no key (`door` says when), so whatever its SDK sends as a
    key is ignored, unless it is one of ours that is good: then it says whose budget this is.
    """
    secret = b""
    for name, value in x.headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            secret = value[7:].strip()
        elif name in (b"x-api-key", b"api-key") and not secret:
            secret = value.strip()
    wall_ns = x.received_wall_ns
    if way.keys_required or not door.is_loopback(x.peer):
        return way.keyring.identify(secret, wall_ns)
    try:
        return way.keyring.identify(secret, wall_ns)
    except Failure:
        door.check(x.peer, x.method, x.headers)
        return Tenant()


# -- 3 and 4: plan, cache ------------------------------------------------------------------


def _translation(endpoint: Endpoint, route: Route) -> Translation:
    translation = translate(endpoint, route.provider.dialect)
    if translation is None or not route.provider.serves(translation.endpoint):
        raise Failure(
            "unsupported",
            f"The provider {route.provider.name} has no {endpoint.path}.",
            hint="Ask another provider, or use chat completions or messages.",
            param="model",
        )
    return translation


def _plan_cache(
    way: Way, endpoint: Endpoint, x: Exchange, route: Route, members: Members, up: Headers
) -> None:
    if way.cache is None or not endpoint.cacheable or not route.cache:
        return
    wish = b""
    for name, value in x.headers:
        if name == b"x-forebay-cache":
            wish = value.strip().lower()
    if wish not in (b"", b"on", b"off", b"refresh"):
        raise Failure(
            "bad_request",
            f"x-forebay-cache is {wish[:40].decode('latin-1')!r}.",
            hint="It can be on, off or refresh.",
            param="x-forebay-cache",
        )
    assert x.ask is not None
    if wish == b"off" or (not wish and not x.ask.deterministic):
        return
    x.cache_key = key_of(x, members, f"{route.provider.name}/{route.model}", up)
    x.cache = "refresh" if wish == b"refresh" else "miss"


def _cached(way: Way, x: Exchange) -> Entry | None:
    assert way.cache is not None
    if x.cache == "refresh":
        return None
    return way.cache.get(x.cache_key, way.world.now_ns())


def _give(way: Way, x: Exchange, entry: Entry, caller: Caller) -> None:
    """Answer from the cache: usage as it was, nothing spent."""
    ask = x.ask
    assert ask is not None
    x.cache, x.cache_source = "exact", entry.source
    new_id = way.world.new_id(_ID_PREFIX.get(x.endpoint, ""))
    x.draws.append(new_id)
    body = entry.form(ask.stream, ask.include_usage, new_id)
    x.usage, x.cost_nusd, x.saved_nusd = entry.usage, 0, entry.cost_nusd
    x.first_ns = way.world.now_ns()
    x.reply_body = Chunks(x.first_ns)
    x.reply_body.data += body
    down = _own_headers(x, entry.provider, entry.model)
    _reply(x, caller, 200, (_EVENTS if ask.stream else _JSON) + down, body)
    x.outcome = "ok"


_ID_PREFIX = {"chat": "chatcmpl-", "messages": "msg_"}


# -- 5: ask --------------------------------------------------------------------------------


async def _ask(
    way: Way,
    endpoint: Endpoint,
    x: Exchange,
    route: Route,
    translation: Translation,
    members: Members,
    up: Headers,
    caller: Caller,
) -> None:
    ask, provider = x.ask, route.provider
    assert ask is not None
    sent = translation.request(members, ask, route.model)
    path = provider.address.path(translation.endpoint, route.model)
    clocks = way.timeouts.clocks(x.received_ns)
    if provider.facts.on_cancel == "close":
        # The caller leaving cancels this task, wherever it waits, and with it the call.
        caller.on_gone = asyncio.current_task().cancel  # type: ignore[union-attr,assignment]
    attempt, call = await attempts.send(
        way.world, x, provider, route.model, "POST", path, _JSON + up, sent, clocks
    )
    down = headers.down(call.headers, provider.dialect)
    if call.status != 200:
        await _upstream_error(way, x, provider, attempt, call, caller, down)
        return
    finding = Finding()
    try:
        if ask.stream and _is_events(call.headers):
            stream = translation.stream(ask)
            finding = stream.finding
            own = _own_headers(x, provider.name, route.model)
            await _relay(way, x, attempt, call, stream, caller, 200, _EVENTS + own + down)
            if finding.error is not None:
                attempt.outcome = "provider_error"
                x.failure = Failure("provider_error", finding.error, provider=provider.name)
            elif finding.finish_reason is None:
                raise Failure(
                    "truncated",
                    f"The provider {provider.name} ended its answer without a finish reason.",
                    provider=provider.name,
                )
            caller.finish()
        else:
            body = await attempts.read(way.world, attempt, call, MAX_BODY_BYTES)
            out, finding = translation.whole(body, ask)
            attempts.account(
                attempt, finding, _estimate(ask, finding, body), way.prices, provider
            )
            x.reply_body = [] if out is body else _chunk(way, out)
            x.first_ns = way.world.now_ns()
            x.cost_nusd = attempt.cost_nusd
            own = _own_headers(x, provider.name, route.model)
            _reply(x, caller, 200, _JSON + own + down, out)
    except Failure as failure:
        attempt.outcome = failure.code.name
        raise
    finally:
        if attempt.usage is None:
            attempts.account(
                attempt, finding, _estimate(ask, finding, b""), way.prices, provider
            )
    if attempt.outcome == "open":
        attempt.outcome = "ok"
    x.outcome = attempt.outcome


async def _relay(
    way: Way,
    x: Exchange,
    attempt: Attempt,
    call: Call,
    stream: StreamTranslation,
    caller: Caller,
    status: int,
    down: Headers,
) -> None:
    """A streamed body, piece by piece, as fast as the caller reads."""

    def begin() -> None:
        x.status = status
        x.reply_headers = down
        caller.start(status, down)

    relay = Relay(way.world, x, attempt, call, stream, caller, begin)
    caller.on_slow = lambda slow: call.pause() if slow else call.resume()
    try:
        await call.relay(relay.piece)
    except LinkError as error:
        raise relay.failure or attempts.failed(attempt, error) from None
    finally:
        caller.on_slow = None
    if relay.failure is not None:
        raise relay.failure
    relay.rest()
    if not relay.began:
        begin()


async def _upstream_error(
    way: Way,
    x: Exchange,
    provider: Provider,
    attempt: Attempt,
    call: Call,
    caller: Caller,
    down: Headers,
) -> None:
    """The provider said no: in the caller's dialect, with what it may know of the cause."""
    body = await attempts.read(way.world, attempt, call, _MAX_ERROR_BYTES)
    status, out, failure = attempts.refused(x, attempt, provider, body)
    x.failure = failure
    x.outcome = failure.code.name
    x.reply_body = [] if out is body else _chunk(way, out)
    _reply(x, caller, status, _JSON + _own_headers(x, attempt.provider, attempt.model) + down, out)


# -- replies -------------------------------------------------------------------------------


def _refuse(x: Exchange, failure: Failure, caller: Caller) -> None:
    """End in a failure: a status while the reply has not begun, an in-band error after."""
    x.failure = failure
    x.outcome = failure.code.name
    if caller.response_started:
        event = failures.event(failure, x.dialect, x.id)
        caller.push(event)
        if isinstance(x.reply_body, list) and x.attempts and x.attempts[-1].body is not None:
            at = len(x.attempts[-1].body.data)
            x.reply_body.append((at, at, event))
        elif isinstance(x.reply_body, Chunks):
            x.reply_body.data += event
        caller.finish()
        return
    body = failures.whole(failure, x.dialect, x.id)
    x.reply_body = Chunks(x.received_ns)
    x.reply_body.data += body
    own = [(b"x-request-id", x.id.encode())]
    if failure.retry_after_s is not None:
        own.append((b"retry-after", b"%d" % max(1, round(failure.retry_after_s))))
    if not failure.code.retryable:
        own.append((b"x-should-retry", b"false"))
    _reply(x, caller, failure.code.status, _JSON + own, body)


def _reply(x: Exchange, caller: Caller, status: int, down: Headers, body: bytes) -> None:
    x.status = status
    x.reply_headers = down
    caller.reply(status, down, body)


def _own_headers(x: Exchange, provider: str, model: str) -> Headers:
    """What the gateway tells about an answer. Sync, ~2 µs."""
    request_id = x.id.encode()
    own = [
        (b"x-request-id", request_id),
        (b"x-forebay-cache", x.cache.encode()),
        (b"x-forebay-model", model.encode("latin-1", "replace")),
        (b"x-forebay-provider", provider.encode("latin-1", "replace")),
        (b"x-forebay-route", x.route.encode("latin-1", "replace")),
        (b"server-timing", _timing(x)),
    ]
    if x.dialect == "anthropic":
        own.append((b"request-id", request_id))
    if x.cost_nusd is not None:
        own.append((b"x-forebay-cost-usd", usd(x.cost_nusd).encode()))
    return own


def _timing(x: Exchange) -> bytes:
    """Milliseconds in each layer so far, in the standard header's form."""
    start = x.received_ns
    read = (x.decoded_ns - start) / 1e6
    plan = (x.planned_ns - x.decoded_ns) / 1e6
    if x.attempts and x.attempts[-1].head_ns:
        provider = (x.attempts[-1].head_ns - x.attempts[-1].started_ns) / 1e6
        return b"read;dur=%.3f, plan;dur=%.3f, provider;dur=%.3f" % (read, plan, provider)
    return b"read;dur=%.3f, plan;dur=%.3f" % (read, plan)


# -- 6: settle -----------------------------------------------------------------------------


def _settle(way: Way, x: Exchange) -> None:
    x.ended_ns = way.world.now_ns()
    for attempt in x.attempts:
        if not attempt.ended_ns:
            attempt.ended_ns = x.ended_ns
        if attempt.outcome == "open":
            attempt.outcome = x.outcome
    if x.attempts:
        last = x.attempts[-1]
        x.usage, x.cost_nusd = last.usage, last.cost_nusd
        if x.cache_key and x.outcome == "ok" and last.finish_reason != "content_filter":
            _fill(way, x, last)
    way.recorder.keep(x)


def _fill(way: Way, x: Exchange, attempt: Attempt) -> None:
    assert way.cache is not None
    assert x.ask is not None
    reply = x.reply_body
    if isinstance(reply, Chunks):
        body = bytes(reply.data)
    else:
        # The provider's own bytes: a withheld usage chunk belongs into the entry, since the
        # next caller may want it.
        body = bytes(attempt.body.data) if attempt.body is not None else b""
    if body:
        streamed = x.ask.stream and _is_events(x.reply_headers)
        way.cache.put(x.cache_key, Entry(x, body, streamed), way.world.now_ns())


# -- small things --------------------------------------------------------------------------


def _estimate(ask: Ask, finding: Finding, body: bytes) -> Usage:
    """Where the provider reports nothing: bytes for a whole answer, content events for a
    stream (servers send one to four tokens in each)."""
    output = len(body) // 4 if body else finding.progress
    return Usage(input_tokens=ask.input_tokens_estimate, output_tokens=output, estimated=True)


def _is_events(found: Headers) -> bool:
    return any(
        name == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in found
    )


def _chunk(way: Way, body: bytes) -> Chunks:
    chunks = Chunks(way.world.now_ns())
    chunks.data += body
    return chunks


def _report(x: Exchange, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"request {x.id} failed", "exception": error}
    )
