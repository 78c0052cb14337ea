"""Each kind of scripted fault as a caller meets it, in virtual time."""

import asyncio
from typing import Any, Literal

import pytest

from conftest import VirtualRun
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.facts import Hosted
from forebay.testbed.twins.faults import Script
from forebay.testbed.twins.seen import Seen
from forebay.testbed.virtual import VirtualWorld
from testbed_kit import Got, admin, chat

#: 12 tokens, one per event, ten events a second, the first after a second
SLOW = Hosted(
    rates=PRESETS["frontier"].rates,
    ttft_median_s=1.0,
    ttft_sigma=0.0,
    prefill_ms_per_1k=0.0,
    tokens_per_s=10.0,
    tokens_spread=0.0,
    events_per_s=10.0,
)
S = 1_000_000_000
MS = 1_000_000


async def struck(
    world: VirtualWorld, script: str, dialect: Any = "openai", stream: bool = True
) -> tuple[Got, Seen, int]:
    """One answer under a script: what came, what the log says, what was charged."""
    config = TwinConfig(models={"slow": SLOW}, dialect=dialect, seed=1)
    twin = await Twin.start(world, config=config)
    twin.set_script(Script.decode(script))
    got = await chat(world, twin, stream=stream).over
    [seen] = await twin.log.settled(1)
    await twin.close()
    return got, seen, twin.bill.total_nusd


def text_of(got: Got) -> str:
    return "".join(
        event["choices"][0]["delta"].get("content") or ""
        for event in got.data
        if isinstance(event, dict) and event.get("choices")
    )


def test_without_a_fault_events_come_at_their_pace(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, charged = await struck(world, "")
        assert got.end == "done"
        assert len(text_of(got)) == 48
        assert got.data[-1] == "[DONE]"
        start_ns = seen.received_ns
        first_ns = seen.first_token_ns
        assert first_ns - start_ns == pytest.approx(S, abs=MS)
        gaps = [b - a for a, b in zip(got.times_ns, got.times_ns[1:], strict=False) if b - a > MS]
        assert len(gaps) == 11
        assert all(gap == pytest.approx(100 * MS, abs=MS) for gap in gaps)
        assert (seen.outcome, seen.tokens, seen.events) == ("complete", 12, 12)
        assert bytes(seen.sent) == got.body
        assert charged == 4 * 5_000 + 12 * 25_000

    virtual(main)


def test_a_status_comes_instead_of_the_answer(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, charged = await struck(
            world, "- what: {kind: status, status: 429, headers: {retry-after: '2'}}"
        )
        assert (got.status, got.headers["retry-after"]) == (429, "2")
        assert got.json["error"]["code"] == "rate_limit_exceeded"
        assert (seen.outcome, seen.fault, charged) == ("fault:status", "status", 0)

        got, _, _ = await struck(
            world,
            "- {what: {kind: status, status: 502, body: <html>, content_type: text/html}}",
        )
        assert (got.status, got.body, got.headers["content-type"]) == (502, b"<html>", "text/html")

        got, _, _ = await struck(world, "- {what: {kind: status, status: 529}}", "anthropic")
        assert got.json["error"]["type"] == "overloaded_error"

        got, _, _ = await struck(world, "- {what: {kind: status, status: 429, error: quota}}")
        assert got.json["error"]["code"] == "insufficient_quota"

    virtual(main)


def test_a_slow_first_token_comes_after_its_headers(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(world, "- {what: {kind: stall, seconds: 20}, where: first}")
        assert seen.first_byte_ns - seen.received_ns < MS
        assert got.times_ns[0] - seen.received_ns == pytest.approx(21 * S, abs=MS)
        assert len(text_of(got)) == 48
        assert seen.outcome == "complete"

    virtual(main)


def test_a_stall_holds_what_comes_meanwhile_and_then_goes_on(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(
            world,
            "- {what: {kind: stall, seconds: 5, comment_every_s: 1}, where: event, after: 3}",
        )
        assert got.body.count(b": ping\n\n") == 5
        assert len(text_of(got)) == 48
        assert seen.ended_ns - seen.received_ns == pytest.approx(6.2 * S, abs=10 * MS)
        assert seen.outcome == "complete"

    virtual(main)


@pytest.mark.parametrize("where", ["head", "first", "{event, after: 2}"])
def test_a_provider_that_never_answers_is_left_by_its_caller(
    virtual: VirtualRun, where: str
) -> None:
    place = "where: event, after: 2" if "event" in where else f"where: {where}"

    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models={"slow": SLOW}, seed=1))
        twin.set_script(Script.decode(f"- {{what: {{kind: stall}}, {place}}}"))
        asked = chat(world, twin)
        await asyncio.sleep(600)
        assert not asked.over.done()
        assert twin.log[0].outcome == "open"
        asked.leave()
        [seen] = await twin.log.settled(1)
        assert (seen.outcome, seen.fault) == ("gone", "stall")
        await twin.close()

    virtual(main)


@pytest.mark.parametrize(("how", "end"), [("complete", "done"), ("close", "lost"), ("rst", "lost")])
def test_a_cut_ends_the_stream_without_a_finish_reason(
    virtual: VirtualRun, how: str, end: str
) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, charged = await struck(
            world, f"- {{what: {{kind: cut, how: {how}}}, where: event, after: 3, name: snip}}"
        )
        assert got.end == end
        assert len(text_of(got)) in (12, 8)  # a reset may overtake the last event
        assert b'finish_reason":"stop' not in got.body
        assert (seen.outcome, seen.tokens) == ("fault:snip", 3)
        assert charged == 4 * 5_000 + 3 * 25_000

    virtual(main)


@pytest.mark.parametrize("how", ["close", "rst"])
def test_a_cut_before_the_head_leaves_nothing(virtual: VirtualRun, how: str) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, charged = await struck(world, f"- {{what: {{kind: cut, how: {how}}}}}")
        assert (got.status, got.body, got.end) == (0, b"", "lost")
        assert (seen.outcome, charged) == ("fault:cut", 0)

    virtual(main)


def test_an_error_event_ends_the_stream_in_each_dialect(virtual: VirtualRun) -> None:
    script = (
        "- {what: {kind: error, error: overloaded, message: Too much.}, where: event, after: 2}"
    )

    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(world, script)
        assert got.data[-1]["error"]["message"] == "Too much."
        assert len(text_of(got)) == 8
        assert seen.outcome == "fault:error"

        got, _, _ = await struck(world, script, "anthropic")
        assert got.body.endswith(b"\n\n")
        assert b"\nevent: error\n" in got.body
        assert got.data[-1]["error"]["type"] == "overloaded_error"

        got, _, _ = await struck(world, "- {what: {kind: error}, where: first}")
        assert [list(event) for event in got.data] == [["error"]]

    virtual(main)


def test_bytes_can_be_written_into_a_stream_that_goes_on(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(
            world, '- {what: {kind: write, text: "data: {oops\\n\\n"}, where: event, after: 3}'
        )
        before, broken, after = got.body.partition(b"data: {oops\n\n")
        assert broken
        assert before.count(b"data: ") == 4  # the role and three tokens
        assert after.endswith(b"data: [DONE]\n\n")
        assert seen.outcome == "complete"

    virtual(main)


def test_a_slow_link_hands_out_so_many_bytes_a_second(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(world, "- what: {kind: link, bytes_per_s: 1000}")
        assert len(text_of(got)) == 48
        taken_s = (got.times_ns[-1] - seen.received_ns) / S
        # Head and frames of chunks count too, they are bytes on the wire.
        assert len(got.body) / 1000 < taken_s < len(got.body) / 1000 + 1.0 + 0.8

    virtual(main)


def test_faults_of_answers_that_are_not_streamed(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        got, seen, _ = await struck(world, "", stream=False)
        whole = len(got.body)
        assert got.end_ns - seen.received_ns == pytest.approx(2.1 * S, abs=MS)

        place = "where: event, after: 1"
        got, seen, _ = await struck(
            world, f"- {{what: {{kind: cut, how: complete}}, {place}}}", stream=False
        )
        assert (got.end, len(got.body)) == ("done", whole // 2)
        got, seen, _ = await struck(
            world, f"- {{what: {{kind: cut, how: close}}, {place}}}", stream=False
        )
        assert (got.end, int(got.headers["content-length"])) == ("lost", whole)
        assert seen.outcome == "fault:cut"
        got, _, _ = await struck(world, f"- {{what: {{kind: error}}, {place}}}", stream=False)
        assert (got.status, list(got.json)) == (200, ["error"])
        got, seen, _ = await struck(
            world, f"- {{what: {{kind: stall, seconds: 3}}, {place}}}", stream=False
        )
        assert got.end_ns - seen.received_ns == pytest.approx(5.1 * S, abs=MS)

    virtual(main)


def test_a_script_is_set_and_read_over_http(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models={"slow": SLOW}, seed=1))
        script = b"- {what: {kind: status, status: 500}, when: {times: 1}}"
        assert (await admin(twin, "PUT", "script", script))[0] == 200
        statuses = [(await chat(world, twin, stream=False).over).status for _ in range(2)]
        assert statuses == [500, 200]
        status, said = await admin(twin, "GET", "script")
        assert (status, said["faults"][0]["matched"], said["faults"][0]["taken"]) == (200, 2, 1)

        status, said = await admin(twin, "PUT", "script", b"- {what: {kind: boom}}")
        assert status == 400
        assert "boom" in said["error"]
        assert len(twin.script.faults) == 1  # the old one stays
        await twin.close()

    virtual(main)


def test_who_leaves_pays_for_what_was_made_or_for_all(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        charged = []
        rules: list[Literal["produced", "whole"]] = ["produced", "whole"]
        for rule in rules:
            config = TwinConfig(
                models={"slow": SLOW},
                seed=1,
                bill_when_gone=rule,
            )
            twin = await Twin.start(world, config=config)
            for stream in (True, False):
                asked = chat(world, twin, stream=stream)
                await asyncio.sleep(1.55)
                asked.leave()
                await twin.log.settled(1)
                assert twin.log[-1].outcome == "gone"
                assert twin.log[-1].ended_ns == pytest.approx(world.now_ns(), abs=MS)
            charged.append([c.usage.output_tokens for c in twin.bill.charges.values()])
            await twin.close()
        assert charged == [[6, 6], [12, 12]]

    virtual(main)


def test_a_caller_that_does_not_read_stops_the_writing(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        fast = Hosted(ttft_median_s=0, tokens_per_s=1e6, events_per_s=1e4, prefill_ms_per_1k=0)
        twin = await Twin.start(world, config=TwinConfig(models={"fast": fast}, seed=1))
        asked = chat(world, twin, "go [out:190000]", max_tokens=200_000)
        await asked.begun
        assert asked._connection is not None
        asked._connection._transport.pause_reading()
        await asyncio.sleep(10)
        held = twin.log[0].sent_size
        assert held < 400_000
        asked._connection._transport.resume_reading()
        got = await asked.over
        assert len(text_of(got)) == 760_000
        assert len(got.body) > 1_000_000
        await twin.close()

    virtual(main)
