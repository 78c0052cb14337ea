"""The way of one request, top to bottom. Read this first; everything else is a detail of it.

    caller ─▶ identify ─▶ read ─▶ plan ─▶ cache? ──────────────▶ reply ─▶ settle
                                            └─▶ attempt ─▶ relay ──┘

Each step stands where it does for a reason given in its comment. A step that cannot wait is
a plain function. Whatever happens, including the caller leaving at any line, the request
ends in exactly one outcome, and `_settle` accounts for it once.
"""

import asyncio
from typing import Protocol

import msgspec

from forebay import reply
from forebay.admission import door
from forebay.admission.keys import Keyring
from forebay.caches.exact import Entry, ExactCache, key_of, wish_of
from forebay.dialects import headers, stitch
from forebay.dialects.choice import translate
from forebay.dialects.endpoints import Endpoint
from forebay.dialects.passthrough import OpaqueStream
from forebay.dialects.translation import Finding, StreamTranslation, Translation
from forebay.errors import Failure
from forebay.exchange import Ask, Attempt, Capture, Chunks, Exchange, Headers
from forebay.providers.prices import PriceTable
from forebay.providers.provider import origin_path
from forebay.routing import attempt as attempts
from forebay.routing.attempt import Timeouts
from forebay.routing.catalogue import Catalogue, Route
from forebay.routing.relay import Relay
from forebay.wire import members as top
from forebay.wire.caller import Caller
from forebay.wire.members import Members
from forebay.wire.upstream import MAX_BODY_BYTES, Call, Clocks, LinkError
from forebay.world import World

#: An error's body is for people; more than this is no error message.
_MAX_ERROR_BYTES = 1024 * 1024
#: Reasons of answers that are not kept: none, or a provider's filter cut them.
_UNFIT = frozenset({None, "content_filter", "refusal"})
#: Methods that /passthrough forwards. CONNECT and TRACE are no API's.
_FORWARDED = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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
    now_ns = way.world.now_ns
    try:
        # 1. Who is asking, from the headers alone: a stranger's body is never read.
        x.tenant = door.identify(way.keyring, way.keys_required, x)
        x.identified_ns = now_ns()

        # 2. Read and decode: one level deep, the rest stays the caller's bytes.
        x.body = await caller.read()
        members = top.parse(x.body)
        ask = x.ask = endpoint.read(members)
        x.decoded_ns = now_ns()

        # 3. Plan: the target must be known before the cache, since it is part of the key.
        route = way.catalogue.find(ask.model, endpoint.name)
        translation = _translation(endpoint, x, route)
        _check_able(route, ask, members)
        same = endpoint.dialect == route.provider.dialect
        up = x.head.up if same else []  # another dialect's headers mean nothing there
        x.route, x.capture = route.why, route.capture or way.capture
        _plan_cache(way, endpoint, x, route, members, up)
        x.planned_ns = now_ns()

        # 4. An answer we have costs nothing and waits for nobody.
        if x.cache == "miss" and _given(way, x, route, caller):
            return

        # 5. Ask the provider, and hand over what it says as it says it.
        await _ask(way, x, route, translation, members, up, caller)
    except Failure as failure:
        reply.refuse(x, failure, caller)
    except RecursionError:  # a decoder met its bound, at whichever step looked deepest
        reply.refuse(x, top.too_deep(), caller)
    except ConnectionError:
        x.outcome = "cancelled"  # the caller left while sending: nobody to tell
    except asyncio.CancelledError:
        _end_early(x, caller)
        raise
    except Exception as error:
        _own_defect(x, error, caller)
    finally:
        # 6. Settle on every way out: usage, cost, cache, record. Once.
        caller.on_gone = None
        _settle(way, x)


async def forward(way: Way, x: Exchange, name: str, path: str, caller: Caller) -> None:
    """Any other path of a provider, as it is: with a key and a record, without a look inside."""
    try:
        x.tenant = door.identify(way.keyring, way.keys_required, x)
        x.identified_ns = way.world.now_ns()
        x.capture = way.capture
        provider = way.catalogue.provider(name)
        x.dialect = provider.dialect  # nothing is converted here
        if x.method not in _FORWARDED:
            raise Failure("method_not_allowed", f"{x.method[:20]!r} is not forwarded.")
        x.body = await caller.read()
        x.decoded_ns = x.planned_ns = way.world.now_ns()
        x.route = f"passthrough: {provider.name}"
        query = "&".join(part for part in (x.query, provider.address.query) if part)
        target = origin_path(provider.address.prefix, path) + (f"?{query}" if query else "")
        single = x.head.single
        kept = (b"content-type", b"accept")
        up = [*x.head.up, *((n, single[n]) for n in kept if n in single)]
        attempt, call = await attempts.send(
            way.world, x, provider, "", x.method, target, up, [], _clocks(way, x, caller)
        )
        down = headers.down(call.headers, provider.dialect)
        if call.status >= 400:  # may speak of the operator's key, or be a proxy's page
            body = await attempts.read(way.world, attempt, call, _MAX_ERROR_BYTES)
            status, out, x.failure = attempts.refused(x, attempt, provider, body)
            x.outcome = x.failure.code.name
            x.reply_body = [] if out is body else _chunk(out, attempt.first_ns)
            reply.whole(x, caller, status, reply.JSON + reply.request_id(x) + down, out)
            return
        kept = (b"content-type", b"content-disposition")
        down += [h for h in call.headers if h[0] in kept]
        down += reply.request_id(x)
        await _relay(way, x, attempt, call, OpaqueStream(), caller, call.status, down)
        caller.finish()
        x.outcome = attempt.outcome = "ok"
    except Failure as failure:
        reply.refuse(x, failure, caller)
    except ConnectionError:
        x.outcome = "cancelled"
    except asyncio.CancelledError:
        _end_early(x, caller)
        raise
    except Exception as error:
        _own_defect(x, error, caller)
    finally:
        caller.on_gone = None
        _settle(way, x)


# -- 3 and 4: plan, cache ------------------------------------------------------------------


def _translation(endpoint: Endpoint, x: Exchange, route: Route) -> Translation:
    provider = route.provider
    limit_name = provider.facts.limit_name
    translation = translate(endpoint, provider.dialect, x.id, x.received_wall_ns, limit_name)
    if translation is None or not provider.serves(translation.endpoint):
        raise Failure(
            "unsupported",
            f"The provider {provider.name} has no {endpoint.path}.",
            hint="Ask another provider, or use chat completions or messages.",
            param="model",
        )
    return translation


def _check_able(route: Route, ask: Ask, members: Members) -> None:
    """What a model is known not to do is refused: some servers drop it without a word."""
    facts = route.facts
    if facts is None:
        return
    for able, wanted, what in (
        (facts.tools, members.raw.get("tools", b"[]") not in (b"[]", b"null"), "tools"),
        (facts.images, ask.images, "images"),
    ):
        if able is False and wanted:
            raise Failure(
                "unsupported",
                f"The model {route.model} of {route.provider.name} takes no {what}.",
                hint="Ask another model; GET /v1/models lists them.",
                param=what,
            )


def _plan_cache(
    way: Way, endpoint: Endpoint, x: Exchange, route: Route, members: Members, up: Headers
) -> None:
    """Leaves `bypass`, or sets a key and `miss` or `refresh`."""
    wish = wish_of(x.head)
    if way.cache is None or not endpoint.cacheable or not route.cache or wish == "off":
        return
    assert x.ask is not None
    if wish or x.ask.deterministic:
        x.cache_key = key_of(x, members, f"{route.provider.name}/{route.model}", up)
        x.cache = "refresh" if wish == "refresh" else "miss"


def _given(way: Way, x: Exchange, route: Route, caller: Caller) -> bool:
    """Answer from the cache, if it can: usage as it was, nothing spent."""
    ask, cache = x.ask, way.cache
    assert ask is not None
    assert cache is not None
    entry = cache.get(x.cache_key, way.world.now_ns())
    if entry is None:
        return False
    try:
        body, new_id = entry.form(ask.stream, ask.include_usage, way.world)
    except Failure:  # an answer that has no such form is none for this caller
        cache.forget(x.cache_key)
        return False
    x.cache, x.cache_source = "exact", entry.source
    if new_id:
        x.draws.append(new_id)
    x.usage, x.cost_nusd, x.saved_nusd = entry.usage, 0, entry.cost_nusd
    x.first_ns = way.world.now_ns()
    x.reply_body = _chunk(body, x.first_ns)
    kind = reply.EVENTS if ask.stream else reply.JSON
    reply.whole(x, caller, 200, kind + reply.own_headers(x, route.told), body)
    x.outcome = "ok"
    return True


# -- 5: ask --------------------------------------------------------------------------------


async def _ask(
    way: Way,
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
    clocks = _clocks(way, x, caller, provider.facts.on_cancel == "drain")
    attempt, call = await attempts.send(
        way.world, x, provider, route.model, "POST", path, reply.JSON + up, sent, clocks
    )
    down = headers.down(call.headers, provider.dialect)
    if call.status != 200:
        body = await attempts.read(way.world, attempt, call, _MAX_ERROR_BYTES)
        status, out, x.failure = attempts.refused(x, attempt, provider, body)
        x.outcome = x.failure.code.name
        x.reply_body = [] if out is body else _chunk(out, attempt.first_ns)
        own = reply.own_headers(x, route.told)
        reply.whole(x, caller, status, reply.JSON + own + down, out)
        return
    finding = Finding()
    size = 0
    converted = False
    try:
        if ask.stream and provider.streams(call.headers):
            stream = translation.stream(ask)
            finding, converted = stream.finding, stream.splices is None
            told = reply.EVENTS + reply.own_headers(x, route.told) + down
            await _relay(way, x, attempt, call, stream, caller, 200, told)
            x.failure = attempts.unfinished(finding, provider.name)
            # An error event that passed is there already; a conversion has left it to us.
            if x.failure is not None and (finding.error is None or converted):
                raise x.failure
            caller.finish()
        else:
            body = await attempts.read(way.world, attempt, call, MAX_BODY_BYTES)
            size = len(body)
            out, finding = translation.whole(body, ask)
            if finding.error is not None:  # a Response that failed says so itself, under 200
                x.failure = attempts.unfinished(finding, provider.name)
            attempts.account(attempt, finding, ask, size, way.prices, provider)
            kind = reply.JSON
            if ask.stream:
                events = stitch.as_stream(x.endpoint, out, ask.include_usage)
                if events is not None:
                    out, kind = events, reply.EVENTS
            x.reply_body = [] if out is body else _chunk(out, attempt.first_ns)
            x.first_ns, x.cost_nusd = attempt.first_ns, attempt.cost_nusd
            own = reply.own_headers(x, route.told)
            reply.whole(x, caller, 200, kind + own + down, out)
    except Failure as failure:
        attempt.outcome = failure.code.name
        raise
    finally:
        if attempt.usage is None:
            if converted:
                size = finding.progress
            attempts.account(attempt, finding, ask, size, way.prices, provider)
    x.outcome = attempt.outcome = x.failure.code.name if x.failure is not None else "ok"


def _clocks(way: Way, x: Exchange, caller: Caller, drain: bool = False) -> Clocks:
    """Deadlines of the attempt; from here on the caller leaving ends it.

    Leaving cancels this task wherever it waits, and with it the call. Where the provider
    bills the whole answer anyway it is read to its end instead, for its usage.
    """
    if not drain and caller.task is not None:
        caller.on_gone = caller.task.cancel
        if caller.disconnected:
            raise ConnectionError("the caller left before it was answered")
    return way.timeouts.clocks(x.received_ns)


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
    caller.on_slow = relay.slow
    try:
        await call.relay(relay.piece)
        if relay.failure is not None:
            raise relay.failure
        relay.rest()
    except LinkError as error:
        raise relay.failure or attempts.failed(attempt, error) from None
    finally:
        caller.on_slow = None
        stream.cut(len(attempt.body.data) if attempt.body is not None else 0)
    if not relay.began:  # nothing was sent yet: there is still time for an honest status
        if (failure := attempts.unfinished(stream.finding, attempt.provider)) is not None:
            raise failure
        begin()


# -- 6: settle -----------------------------------------------------------------------------


def _end_early(x: Exchange, caller: Caller) -> None:
    """Cancelled: the caller left; or it is there, and the time for open streams was up."""
    if caller.disconnected:
        x.outcome = "cancelled"
        return
    hint = "Ask again: another one starts, or is there already."
    reply.refuse(x, Failure("shutting_down", "The gateway is stopping.", hint=hint), caller)


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
        whole = last.finish_reason not in _UNFIT
        if x.cache_key and x.outcome == "ok" and whole:
            _fill(way, x, last)
    way.recorder.keep(x)


def _fill(way: Way, x: Exchange, attempt: Attempt) -> None:
    """Keep the answer. Where bytes passed it is the provider's own stream that is kept: the
    usage chunk withheld from this caller is what the next one may ask for."""
    kept = x.reply_body if isinstance(x.reply_body, Chunks) else attempt.body
    if kept is not None and kept.data and way.cache is not None:
        streamed = reply.is_events(x.reply_headers)
        way.cache.put(x.cache_key, Entry(x, bytes(kept.data), streamed), x.ended_ns)


# -- small things --------------------------------------------------------------------------


def _chunk(body: bytes, at_ns: int) -> Chunks:
    chunks = Chunks(at_ns)
    chunks.data += body
    return chunks


def _own_defect(x: Exchange, error: Exception, caller: Caller) -> None:
    """The caller gets an honest 500, the log the traceback."""
    hint = f"It is logged under {x.id}."
    reply.refuse(x, Failure("internal", "The gateway failed.", hint=hint), caller)
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"request {x.id} failed", "exception": error}
    )
