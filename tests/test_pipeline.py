"""The way of one request, in virtual time: whatever happens it ends once, and is accounted for.

Given a config and a provider's script, when these bytes arrive, then these bytes leave and
this record exists.
"""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import VirtualRun
from forebay.errors import CODES
from forebay.observe import record as records
from forebay.observe.record import Record
from forebay.schema.usage import NUSD_PER_USD
from forebay.testbed.twins.faults import Cut, Error, Fault, Stall, Status, What, When, Write
from forebay.testbed.virtual import Link, VirtualWorld, run
from pipeline_kit import (
    ANTHROPIC_KEY,
    KEY,
    OPENAI_KEY,
    RATES,
    Gateway,
    Reply,
    chat,
    gateway,
    key_row,
    messages,
    replied,
    request,
)

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
S = 1_000_000_000
#: short clocks, each of another length
CLOCKS = {"timeouts": {"connect_s": 2, "first_token_s": 7, "between_tokens_s": 4, "total_s": 20}}


class Way:
    """One pair of a caller's dialect and a provider's."""

    def __init__(self, caller: str, provider: str) -> None:
        self.caller = caller
        self.provider = provider
        self.path = CHAT if caller == "openai" else MESSAGES
        self.passes = caller == provider

    def __repr__(self) -> str:
        return f"{self.caller}-to-{self.provider}"

    def body(self, content: str = "hello [out:8]", model: str = "instant", **more: Any) -> Any:
        make = chat if self.caller == "openai" else messages
        return make(content, f"{self.provider}/{model}", **more)


WAYS = [Way(a, b) for a in ("openai", "anthropic") for b in ("openai", "anthropic")]
each_way = pytest.mark.parametrize("way", WAYS, ids=repr)
each_form = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def error_of(reply: Reply, way: Way) -> dict[str, Any]:
    """The error in a refusal, or the one that ends a stream."""
    if reply.header("content-type") == "application/json":
        body = reply.json
    else:
        last = reply.body.rstrip(b"\n").split(b"\n\n")[-1]
        if way.caller == "anthropic":
            assert last.startswith(b"event: error\n")
        body = json.loads(last.split(b"data: ", 1)[1])
        assert b"[DONE]" not in reply.body
        assert b"message_stop" not in reply.body
    error: dict[str, Any] = body["error"]
    if way.caller == "anthropic":
        assert body["type"] == "error"
    return error


def check_record(gate: Gateway, record: Record, reply: Reply | None) -> None:
    """What holds of every record, however its request ended."""
    assert record.outcome == "ok" or record.outcome == "cancelled" or record.outcome in CODES
    assert record.outcome != "internal", record.error
    assert (record.outcome in ("ok", "cancelled")) == (record.error == "")
    kept = records.encode(record)
    for secret in (OPENAI_KEY, ANTHROPIC_KEY, KEY):
        assert secret.encode() not in kept
    if reply is not None:
        assert record.status == reply.status
        assert record.id == reply.header("x-request-id")
        assert replied(record) == reply.body
    marks = [record.identified_ns, record.decoded_ns, record.planned_ns, record.ended_ns]
    reached = [mark for mark in marks if mark]
    assert reached == sorted(reached)
    for attempt in record.attempts:
        assert attempt.outcome != "open"
        assert attempt.ended_ns <= record.ended_ns
        if attempt.usage is not None and attempt.cost_nusd is not None:
            assert attempt.cost_nusd == RATES.cost_nusd(attempt.usage)
    if record.attempts:
        assert record.usage == record.attempts[-1].usage
        assert record.cost_nusd == record.attempts[-1].cost_nusd


def check_pools(gate: Gateway) -> None:
    """Every connection to a provider is free or gone."""
    for provider in gate.way.catalogue.providers.values():
        target = provider.target
        assert target.live == len(target._free), target
        assert not target._waiting


# -- what goes well --------------------------------------------------------------------------


@each_way
@each_form
def test_an_answer_is_recorded_and_costs_what_the_provider_bills(
    virtual: VirtualRun, way: Way, stream: bool
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            twin = gate.twins[way.provider]
            reply = await gate.ask(way.path, way.body(stream=stream))
            record = await gate.record()
            check_record(gate, record, reply)
            assert (reply.status, record.outcome, record.error) == (200, "ok", "")
            assert record.cost_nusd == twin.bill.total_nusd > 0
            (charge,) = twin.bill.charges.values()
            assert record.usage == charge.usage
            (attempt,) = record.attempts
            assert (attempt.provider, attempt.model, attempt.outcome) == (
                way.provider,
                "instant",
                "ok",
            )
            assert attempt.body.data == bytes(twin.log[0].sent)
            assert reply.header("x-forebay-provider") == way.provider
            assert reply.header("x-forebay-model") == "instant"
            assert reply.header("x-forebay-cache") == "bypass"
            told = reply.header("x-forebay-cost-usd")
            if stream:  # it is not known before the headers leave
                assert told is None
            else:
                assert told is not None
                assert float(told) * NUSD_PER_USD == pytest.approx(record.cost_nusd)

    virtual(main)


@each_form
def test_a_request_that_passes_is_the_callers_bytes(virtual: VirtualRun, stream: bool) -> None:
    """Unknown members, order, white space and spelling of numbers are the caller's."""
    body = (
        b'{ "zeta" : 1.50e0,\r\n "model":"openai/instant","messages":[{"role":"user",'
        b'"content":"h\\u00e9 [out:3]"}] ,"a_field_of_tomorrow":{"x":[ ]},"stream": %s }'
        % (b"true" if stream else b"false")
    )

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            client = await gate.client()
            client.send(request(CHAT, body))
            assert (await client.reply()).status == 200
            client.leave()
            (seen,) = gate.twins["openai"].log
            sent = body.replace(b'"openai/instant"', b'"instant"')
            if stream:
                sent = sent[:-1] + b',"stream_options":{"include_usage":true}}'
            assert seen.body == sent

    virtual(main)


@each_form
def test_a_reply_that_passes_is_the_providers_bytes(virtual: VirtualRun, stream: bool) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            options: Any = {"stream_options": {"include_usage": True}} if stream else {}
            reply = await gate.ask(CHAT, chat(stream=stream, **options))
            (seen,) = gate.twins["openai"].log
            assert reply.body == bytes(seen.sent)
            record = await gate.record()
            assert record.reply_body == []  # stored once

    virtual(main)


def test_the_usage_chunk_is_for_who_asked(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            plain = await gate.chat(stream=True)
            asked = await gate.chat(stream=True, stream_options={"include_usage": True})
            assert [c for c in plain.data if c != "[DONE]" and c.get("usage")] == []
            assert asked.data[-2]["usage"]["completion_tokens"] == 8
            one, two = await gate.records(2)
            assert one.usage == two.usage
            assert one.usage is not None
            assert not one.usage.estimated

    virtual(main)


def test_a_callers_credential_never_goes_up(virtual: VirtualRun) -> None:
    canaries = {
        "authorization": f"Bearer {KEY}",
        "x-api-key": "sk-canary-of-a-caller",
        "api-key": "sk-canary-of-a-caller",
        "cookie": "session=canary-of-a-caller",
        "proxy-authorization": "Basic canary-of-a-caller",
        "x-custom": "canary-of-a-caller",
    }

    async def main(world: VirtualWorld) -> None:
        async with gateway(world, keys=[key_row()]) as gate:
            for way in WAYS:
                await gate.ask(way.path, way.body(), canaries)
            await gate.ask("/passthrough/openai/v1/models", None, canaries, "GET")
            for twin, key in (("openai", OPENAI_KEY), ("anthropic", ANTHROPIC_KEY)):
                assert len(gate.twins[twin].log) >= 2
                for seen in gate.twins[twin].log:
                    text = f"{seen.headers} {seen.body!r} {seen.path}"
                    assert "canary-of-a-caller" not in text
                    assert KEY not in text
                    assert key in (
                        seen.header("x-api-key"),
                        (seen.header("authorization") or "").removeprefix("Bearer "),
                    )
            for record in await gate.records(len(WAYS) + 1):
                kept = records.encode(record)
                assert b"canary-of-a-caller" not in kept
                assert KEY.encode() not in kept
                assert (record.team, record.project, record.key_id) == ("team", "web", "key_web")

    virtual(main)


def test_headers_go_to_a_provider_of_the_callers_dialect_only(virtual: VirtualRun) -> None:
    sent = {
        "anthropic-beta": "tools-2026",
        "anthropic-version": "2024-01-01",
        "openai-organization": "org",
        "x-client-request-id": "mine",
    }

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for way in WAYS:
                await gate.ask(way.path, way.body(), sent)
            same, crossed = gate.twins["openai"].log
            assert same.header("openai-organization") == "org"
            assert same.header("anthropic-beta") is None
            assert crossed.header("openai-organization") is None
            crossed, same = gate.twins["anthropic"].log
            assert same.header("anthropic-beta") == "tools-2026"
            assert same.header("anthropic-version") == "2024-01-01"
            assert crossed.header("anthropic-beta") is None
            assert crossed.header("anthropic-version") == "2023-06-01"

    virtual(main)


# -- what goes wrong -------------------------------------------------------------------------


class Trouble(msgspec.Struct, frozen=True):
    """A fault and how a request ends that meets it."""

    name: str
    fault: Fault
    outcome: str
    #: seconds after which, by which clock; None: at once
    after_s: float | None = None
    only: str = "both"  # whole | stream | both


def _at(where: str, what: What, after: int = 0) -> Fault:
    return Fault(what=what, where=where, after=after)  # type: ignore[arg-type]


TROUBLES = [
    *(
        Trouble(f"status {status}", _at("head", Status(status=status)), outcome)
        for status, outcome in (
            (400, "provider_error"),
            (401, "provider_refused_key"),
            (403, "provider_refused_key"),
            (404, "provider_error"),
            (408, "provider_error"),
            (429, "provider_error"),
            (500, "provider_error"),
            (503, "provider_error"),
            (529, "provider_error"),
            (301, "bad_answer"),
            (307, "bad_answer"),
            (204, "bad_answer"),
            (201, "bad_answer"),
        )
    ),
    Trouble(
        "a proxy's page",
        _at(
            "head",
            Status(status=502, body="<html>10.0.0.7 says no</html>", content_type="text/html"),
        ),
        "provider_error",
    ),
    Trouble("nothing at all", _at("head", Stall()), "provider_timeout", 7),
    Trouble("closed before a word", _at("head", Cut(how="close")), "provider_unreachable"),
    Trouble("reset before a word", _at("head", Cut(how="rst")), "provider_unreachable"),
    Trouble("a 200 that is no JSON", _at("head", Status(status=200, body="OK")), "bad_answer"),
    Trouble("a 200 that is empty", _at("head", Status(status=200, body="")), "bad_answer"),
    Trouble("an empty object", _at("head", Status(status=200, body="{}")), "bad_answer"),
    Trouble(
        "an error under 200",
        _at("head", Status(status=200, body='{"error":{"message":"out of capacity"}}')),
        "provider_error",
    ),
    Trouble("a body cut in two", _at("first", Cut(how="close")), "truncated", only="whole"),
    Trouble("a body reset", _at("first", Cut(how="rst")), "truncated", only="whole"),
    *(
        Trouble(f"{what.how} {where} {after}", _at(where, what, after), "truncated", only="stream")
        for where, after in (("first", 0), ("event", 1), ("event", 4))
        for what in (Cut(how="complete"), Cut(how="close"), Cut(how="rst"))
    ),
    *(
        Trouble(
            f"an error event after {after}", _at("event", Error(), after), "provider_error",
            only="stream",
        )
        for after in (0, 3)
    ),
    Trouble("silence, then", _at("first", Stall()), "provider_timeout", 7, only="stream"),
    Trouble(
        "comments alone",
        _at("first", Stall(comment_every_s=1.0)),
        "provider_timeout",
        7,
        only="stream",
    ),
    Trouble("silence in between", _at("event", Stall(), 3), "provider_timeout", 4, only="stream"),
    Trouble(
        "comments in between",
        _at("event", Stall(comment_every_s=1.0), 3),
        "provider_timeout",
        4,
        only="stream",
    ),
    Trouble(
        "an event that is no JSON",
        _at("event", Write(text="data: {oops\n\n"), 2),
        "bad_answer",
        only="stream",
    ),
]  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
@each_way
def test_whatever_a_provider_does_a_request_ends_once(
    virtual: VirtualRun, trouble: Trouble, way: Way
) -> None:
    forms = {"whole": [False], "stream": [True], "both": [False, True]}[trouble.only]

    async def main(world: VirtualWorld) -> None:
        for stream in forms:
            async with gateway(world, CLOCKS) as gate:
                gate.faults(way.provider, trouble.fault)
                twin = gate.twins[way.provider]
                start_ns = world.now_ns()
                wish = {"x-forebay-cache": "on"}
                reply = await gate.ask(way.path, way.body(stream=stream), wish)
                took_ns = world.now_ns() - start_ns
                record = await gate.record()
                check_record(gate, record, reply)
                expected = trouble.outcome
                if trouble.name == "an error under 200" and not way.passes:
                    expected = "bad_answer"  # a conversion finds no answer; it quotes the error
                assert record.outcome == expected
                code = CODES[record.outcome]
                error = error_of(reply, way)
                begun = reply.header("content-type") != "application/json"
                # Nothing that did not work looks as if it had.
                if begun:
                    assert reply.status == 200
                    assert stream
                elif record.outcome == "provider_error" and trouble.name.startswith("status"):
                    sent = int(trouble.name.split()[1])
                    overload = {503: 529, 529: 503}
                    assert reply.status in (sent, overload.get(sent))
                else:
                    assert reply.status == code.status
                assert len(error["message"]) < 500
                assert "127.0.0.1" not in reply.body.decode()  # it names no address
                assert "10.0.0.7" not in reply.body.decode()
                if code.name in ("provider_timeout", "provider_unreachable", "truncated"):
                    assert way.provider in error["message"]
                if trouble.after_s is None:
                    assert took_ns < S
                else:
                    assert took_ns == pytest.approx(trouble.after_s * S, abs=0.01 * S)
                # Asked once, whatever came back; nothing kept; the pool as it was.
                assert len(twin.log) == len(record.attempts) == 1
                assert gate.way.cache is not None
                assert gate.way.cache.held_bytes == 0
                await twin.log.settled(1)
                check_pools(gate)

    virtual(main)


# -- the network between us and a provider ---------------------------------------------------


async def asked(gate: Gateway, way: Way, **more: Any) -> tuple[Reply, Record, float]:
    """One request: reply, record, seconds it took."""
    gate.plane.recorder.flush()
    before = len(gate.kept)
    start_ns = gate.world.now_ns()
    reply = await gate.ask(way.path, way.body(**more))
    took_s = (gate.world.now_ns() - start_ns) / S
    record = (await gate.records(before + 1))[-1]
    check_record(gate, record, reply)
    check_pools(gate)
    return reply, record, took_s


@each_way
def test_a_provider_that_cannot_be_reached(virtual: VirtualRun, way: Way) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, CLOCKS) as gate:
            twin = gate.twins[way.provider]
            world.network.set("127.0.0.1", twin.port, Link(black_hole=True))
            reply, record, took_s = await asked(gate, way)
            assert (reply.status, record.outcome, took_s) == (504, "provider_timeout", 2.0)
            assert way.provider in error_of(reply, way)["message"]
            assert record.attempts[0].status == 0
            assert record.cost_nusd is None
            await twin.close()
            world.network.set("127.0.0.1", twin.port, Link())
            reply, record, took_s = await asked(gate, way)
            assert (reply.status, record.outcome) == (502, "provider_unreachable")
            message = error_of(reply, way)["message"]
            assert way.provider in message
            assert str(twin.port) not in message

    virtual(main)


@pytest.mark.parametrize("name", ["nowhere.example", "a..b", "x" * 300])
def test_a_provider_without_an_address(virtual: VirtualRun, name: str) -> None:
    async def main(world: VirtualWorld) -> None:
        world.network.hosts[name] = []
        lost = {"kind": "openai", "base_url": f"http://{name}/v1", "api_key": OPENAI_KEY}
        async with gateway(world, {"providers": {"lost": lost}}) as gate:
            reply = await gate.chat(model="lost/m")
            record = await gate.record()
            check_record(gate, record, reply)
            assert (reply.status, record.outcome) == (502, "provider_unreachable")
            assert "lost" in reply.json["error"]["message"]

    virtual(main)


@each_way
def test_an_answer_that_takes_too_long_in_all(virtual: VirtualRun, way: Way) -> None:
    """It never stalls, so that no other clock ends it."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world, CLOCKS) as gate:
            content = "count [out:1000]"
            reply, record, took_s = await asked(
                gate, way, content=content, model="paced", stream=True, max_tokens=1000
            )
            assert (record.outcome, took_s) == ("provider_timeout", 20.0)
            assert "deadline" in error_of(reply, way)["message"]
            assert gate.twins[way.provider].log[0].outcome == "gone"
            assert record.usage is not None
            assert record.usage.estimated
            assert record.usage.output_tokens == pytest.approx(195, abs=5)

    virtual(main)


@pytest.mark.parametrize("how", ["close", "rst"])
def test_a_connection_that_was_closed_meanwhile_is_tried_once_more(
    virtual: VirtualRun, how: Any
) -> None:
    """The one retry there is: on a connection used before, and no byte of an answer came."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            assert (await gate.chat()).status == 200
            cut = Cut(how=how)
            gate.faults("openai", Fault(what=cut, when=When(times=1)))
            reply = await gate.chat()
            assert reply.status == 200
            kept = await gate.records(2)
            assert [len(record.attempts) for record in kept] == [1, 1]
            assert len(gate.twins["openai"].log) == 3
            # A new connection that ends so was no race: it is not tried again.
            gate.faults("openai", Fault(what=cut))
            reply = await gate.chat()
            assert reply.status == 502
            assert len(gate.twins["openai"].log) == 5
            check_pools(gate)

    virtual(main)


@each_way
@pytest.mark.parametrize("how", ["complete", "close", "rst"])
def test_nothing_is_asked_again_once_an_answer_began(
    virtual: VirtualRun, way: Way, how: Any
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            twin = gate.twins[way.provider]
            await gate.ask(way.path, way.body())  # a connection to use again
            gate.faults(way.provider, Fault(what=Cut(how=how), where="event", after=2))
            reply, record, _ = await asked(gate, way, stream=True)
            assert record.outcome == "truncated"
            assert error_of(reply, way)
            assert len(twin.log) == 2
            assert record.cost_nusd is not None
            assert record.cost_nusd > 0  # what was cut is paid for all the same

    virtual(main)


# -- callers who leave -----------------------------------------------------------------------


async def leave_after(gate: Gateway, raw: bytes, turns: int) -> None:
    """Send, and be gone after so many turns of the loop."""
    client = await gate.client()
    client.send(raw)
    for turn in range(turns):  # the first without time passing, the rest by microseconds
        await asyncio.sleep(0 if turn < 30 else 1e-6)
    client.leave()


@each_way
@each_form
def test_a_caller_may_leave_at_any_turn(virtual: VirtualRun, way: Way, stream: bool) -> None:
    """Between every two steps of the loop: one record, one outcome, no connection left over."""

    async def main(world: VirtualWorld) -> set[str]:
        outcomes = set()
        async with gateway(world) as gate:
            twin = gate.twins[way.provider]
            for turns in range(70):
                before = len(gate.kept)
                await leave_after(gate, request(way.path, way.body(stream=stream)), turns)
                await gate.drained()
                gate.plane.recorder.flush()
                new = gate.kept[before:]
                assert len(new) <= 1
                await twin.log.until(lambda: all(seen.ended for seen in twin.log))
                check_pools(gate)
                for record in new:
                    check_record(gate, record, None)
                    assert record.outcome in ("cancelled", "ok")
                    outcomes.add(record.outcome)
        return outcomes

    assert virtual(main) == {"cancelled", "ok"}


@each_way
@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.8, 2.0])
def test_a_caller_that_left_closes_the_way_to_the_provider(
    virtual: VirtualRun, way: Way, after_s: float
) -> None:
    """Within 100 ms, and what had been made until then is accounted for."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            twin = gate.twins[way.provider]
            world.network.set("127.0.0.1", twin.port, Link(latency_s=0.02))
            client = await gate.client()
            body = way.body("count [out:50]", "paced", stream=True)
            client.send(request(way.path, body))
            await asyncio.sleep(after_s)
            client.leave()
            left_ns = world.now_ns()
            record = await gate.record()
            check_record(gate, record, None)
            assert record.outcome == "cancelled"
            if len(twin.log) == 0:
                assert record.cost_nusd is None
                return
            (seen,) = await twin.log.settled(1)
            assert seen.outcome == "gone"
            assert seen.ended_ns - left_ns <= 0.1 * S
            if record.attempts[0].first_ns:
                assert record.usage is not None
                assert record.usage.estimated
                # what the provider made and what we counted differ by what was under way
                assert 0 <= seen.tokens - record.usage.output_tokens <= 2
            check_pools(gate)

    virtual(main)


def test_where_leaving_does_not_stop_the_bill_the_answer_is_read_to_its_end(
    virtual: VirtualRun,
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            provider = gate.way.catalogue.providers["openai"]
            provider.facts = msgspec.structs.replace(provider.facts, on_cancel="drain")
            client = await gate.client()
            client.send(request(CHAT, chat("count [out:50]", "openai/paced", stream=True)))
            await asyncio.sleep(1)
            client.leave()
            record = await gate.record()
            (seen,) = gate.twins["openai"].log
            assert seen.outcome == "complete"
            assert record.usage is not None
            assert (record.usage.output_tokens, record.usage.estimated) == (50, False)
            assert record.cost_nusd == gate.twins["openai"].bill.total_nusd
            check_pools(gate)

    virtual(main)


@each_way
def test_a_slow_reader_holds_the_provider_back(virtual: VirtualRun, way: Way) -> None:
    """Nothing in between grows, and the clock between tokens is not the reader's fault."""
    size = 5_000

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            twin = gate.twins[way.provider]
            small = Link(window=16_384, segment=8_192)
            world.network.set("127.0.0.1", gate.server.port, small)
            world.network.set("127.0.0.1", twin.port, small)
            client = await gate.client()
            client.transport.pause_reading()
            body = way.body(f"go [out:{size}]", stream=True, max_tokens=size)
            client.send(request(way.path, body))
            await asyncio.sleep(300)  # longer than the clock between tokens
            (connection,) = gate.state.connections
            held = connection.transport.get_write_buffer_size()
            assert held < 128 * 1024
            sent_size = twin.log[0].sent_size
            client.transport.resume_reading()
            reply = await client.reply()
            record = await gate.record()
            check_record(gate, record, reply)
            assert record.outcome == "ok"
            assert record.usage is not None
            assert record.usage.output_tokens == size
            assert sent_size < 0.6 * twin.log[0].sent_size
            client.leave()

    virtual(main)


# -- /passthrough ----------------------------------------------------------------------------


def test_other_paths_pass_with_a_key_and_a_record(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, keys=[key_row()]) as gate:
            reply = await gate.ask(
                "/passthrough/openai/v1/models?limit=2",
                None,
                {"authorization": f"Bearer {KEY}"},
                "GET",
            )
            assert reply.status == 200
            assert {card["id"] for card in reply.json["data"]} >= {"instant"}
            (seen,) = gate.twins["openai"].log
            assert (seen.method, seen.path, seen.query) == ("GET", "/v1/models", "limit=2")
            record = await gate.record()
            check_record(gate, record, reply)
            assert (record.outcome, record.project) == ("ok", "web")
            assert (record.endpoint, record.route) == ("passthrough", "passthrough: openai")

    virtual(main)


def test_what_passes_unread_is_framed_anew(virtual: VirtualRun) -> None:
    """HEAD and 204 have no body: their connection must stay usable."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            client = await gate.client()
            head = request("/passthrough/openai/v1/models", None, method="HEAD")
            client.send(head)
            assert (await client.reply("HEAD")).body == b""
            gate.faults("openai", Fault(what=Status(status=204, body="")))
            client.send(request("/passthrough/openai/v1/chat/completions", chat()))
            assert (await client.reply()).status == 204
            gate.faults("openai")
            client.send(request(CHAT, chat()))
            assert (await client.reply()).status == 200
            client.leave()
            await gate.records(3)

    virtual(main)


@pytest.mark.parametrize("how", ["close", "rst"])
def test_a_file_cut_short_does_not_look_whole(virtual: VirtualRun, how: Any) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            gate.faults("openai", Fault(what=Cut(how=how), where="first"))
            client = await gate.client()
            client.send(request("/passthrough/openai/v1/chat/completions", chat(model="instant")))
            raw = await client.end()
            assert raw.startswith(b"HTTP/1.1 200 ")
            assert not raw.endswith(b"0\r\n\r\n")
            assert b"event" not in raw
            record = await gate.record()
            assert record.outcome == "truncated"

    virtual(main)


@each_form
def test_a_stream_may_pass_unread(virtual: VirtualRun, stream: bool) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            path = "/passthrough/anthropic/v1/messages"
            headers = {"anthropic-version": "2023-06-01"}
            reply = await gate.ask(path, messages(model="instant", stream=stream), headers)
            assert reply.status == 200
            (seen,) = gate.twins["anthropic"].log
            assert reply.body == bytes(seen.sent)
            record = await gate.record()
            check_record(gate, record, reply)

    virtual(main)


# -- all of it at once -----------------------------------------------------------------------


FAULTS = st.one_of(
    st.builds(Fault, what=st.builds(Status, status=st.sampled_from([400, 401, 429, 500, 529]))),
    st.builds(Fault, what=st.builds(Stall, seconds=st.sampled_from([1.0, 100.0]))),
    st.builds(Fault, what=st.builds(Cut, how=st.sampled_from(["close", "rst"]))),
    st.builds(
        Fault,
        what=st.one_of(
            st.builds(Cut, how=st.sampled_from(["complete", "close", "rst"])),
            st.builds(Error),
            st.builds(Stall, comment_every_s=st.none() | st.just(1.0)),
            st.builds(Write, text=st.sampled_from([": hi\n\n", "data: {oops\n\n", "\r\n", "x"])),
        ),
        where=st.just("event"),
        after=st.integers(0, 5),
    ),
)
VISITS = st.lists(
    st.tuples(
        st.sampled_from(WAYS),
        st.booleans(),  # stream
        st.booleans(),  # may be cached
        st.sampled_from(["instant", "paced", "nothing"]),
        st.floats(0, 3),  # when it begins
        st.none() | st.floats(0, 3),  # how long its caller stays
    ),
    min_size=1,
    max_size=8,
)


async def visit(
    gate: Gateway, way: Way, stream: bool, cached: bool, model: str, at_s: float, stays: Any
) -> tuple[bytes, bool]:
    """What a caller got, and whether it stayed to the end."""
    await asyncio.sleep(at_s)
    client = await gate.client()
    more: Any = {"temperature": 0} if cached else {}
    client.send(request(way.path, way.body(model=model, stream=stream, **more)))
    try:
        async with asyncio.timeout(stays):
            reply = await client.reply()
    except TimeoutError:
        client.leave()
        return bytes(client.received), False
    client.leave()
    return reply.body, True


async def day(world: VirtualWorld, visits: list[Any], script: list[Fault]) -> tuple[Any, ...]:
    async with gateway(world, CLOCKS) as gate:
        sometimes = [msgspec.structs.replace(f, when=When(share=0.5)) for f in script]
        for name in gate.twins:
            gate.faults(name, *sometimes)
        got = await asyncio.gather(*(visit(gate, *each) for each in visits))
        await gate.drained()
        gate.plane.recorder.flush()
        check_pools(gate)
        for record in gate.kept:
            check_record(gate, record, None)
        # A visit that stayed has a record; one that left may have left before it began.
        stayed = sum(1 for _, to_the_end in got if to_the_end)
        assert stayed <= len(gate.kept) <= len(visits)
        assert len({record.id for record in gate.kept}) == len(gate.kept)
        bodies = sorted(replied(record) for record in gate.kept)
        for body, to_the_end in got:
            assert not to_the_end or body in bodies
        # Money: what went well was billed so, and nothing else was asked of a provider.
        for twin in gate.twins.values():
            assert all(seen.ended for seen in twin.log)
        asks = sum(len(record.attempts) for record in gate.kept)
        assert asks >= sum(twin.bill.count for twin in gate.twins.values())
        return got, [records.encode(record) for record in gate.kept]


@settings(max_examples=60)
@given(visits=VISITS, script=st.lists(FAULTS, max_size=3), seed=st.integers(0, 2**32))
def test_whatever_happens_each_request_ends_once(
    visits: list[Any], script: list[Fault], seed: int
) -> None:
    """And the same seed gives the same bytes and records, down to the ids."""
    once = run(lambda world: day(world, visits, script), seed)
    again = run(lambda world: day(world, visits, script), seed)
    assert once == again


def test_another_seed_gives_other_ids(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> str | None:
        async with gateway(world) as gate:
            return (await gate.chat()).header("x-request-id")

    assert virtual(main, 1) == virtual(main, 1)
    assert virtual(main, 1) != virtual(main, 2)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", CHAT), ("GET", "/passthrough/openai/v1/models")]
)
def test_a_defect_of_ours_is_an_honest_500_with_a_record(
    virtual: VirtualRun, method: str, path: str
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> None:
            raise ZeroDivisionError("a defect")

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            whole, gate.way.catalogue = gate.way.catalogue, Broken()  # type: ignore[assignment]
            reply = await gate.ask(path, chat() if method == "POST" else None, method=method)
            gate.way.catalogue = whole
            assert reply.status == 500
            record = await gate.record()
            assert (record.outcome, record.status) == ("internal", 500)
            assert record.id in reply.json["error"]["message"]
            assert "ZeroDivisionError" not in reply.body.decode()
            (seen,) = world.loop.reported
            assert isinstance(seen["exception"], ZeroDivisionError)
            assert record.id in seen["message"]
            world.loop.reported.clear()

    virtual(main)
