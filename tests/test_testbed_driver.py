"""The load driver against a twin in virtual time, where every difference is an error."""

import itertools

import pytest

from conftest import VirtualRun
from forebay.testbed.load.client import Target
from forebay.testbed.load.driver import Driver, Result
from forebay.testbed.load.retries import NoRetries, Retries, SdkRetries
from forebay.testbed.load.watch import WholeBody
from forebay.testbed.load.workload import Arrival, ChatBodies, Prompts, Workload
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.facts import Hosted, Model
from forebay.testbed.twins.faults import Script
from forebay.testbed.virtual import Link, VirtualWorld
from testbed_kit import ANTHROPIC_KEY, OPENAI_KEY

LATENCY_S = 0.010
FRONTIER = {"frontier": PRESETS["frontier"]}


def even(count: int, rate: float, deadline_s: float = 30.0) -> Workload:
    arrivals = [Arrival(number, number / rate, 300, 60) for number in range(count)]
    return Workload("even", arrivals, [], deadline_s)


async def driven(
    world: VirtualWorld,
    workload: Workload,
    script: str = "",
    retries: Retries | None = None,
    models: dict[str, Model] | None = None,
    seed: int | None = 1,
) -> tuple[Result, Twin]:
    config = TwinConfig(models=models or FRONTIER, seed=seed)
    twin = await Twin.start(world, config=config)
    world.network.set("127.0.0.1", twin.port, Link(latency_s=LATENCY_S))
    twin.set_script(Script.decode(script))
    driver = Driver(
        world,
        Target.of(twin.base_url, "/v1/chat/completions", OPENAI_KEY),
        ChatBodies(Prompts(1), next(iter(config.models))),
        retries,
    )
    result = await driver.run(workload)
    await twin.close()
    return result, twin


def test_first_tokens_are_measured_to_the_microsecond(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        start_ns = world.now_ns()
        workload = even(200, 50)
        result, twin = await driven(world, workload)

        assert result.verdicts == {"ok": 200}
        # The twin's token leaves at `first_token`, and is here one latency later.
        numbers = [int(seen.body.split(b'"content":"')[1].split(b".")[0]) for seen in twin.log]
        due_ns = [start_ns + int(workload.arrivals[n].at_s * 1e9) for n in numbers]
        waits_us = [
            (seen.first_token_ns - due) / 1000 + LATENCY_S * 1e6
            for seen, due in zip(twin.log, due_ns, strict=True)
        ]
        assert result.ttft.mean_us == pytest.approx(sum(waits_us) / 200, abs=2)
        assert result.ttft.most_us == pytest.approx(max(waits_us), abs=2)
        assert result.lag.most_us == 0
        assert result.connections < 200  # they are kept alive

    virtual(main)


def test_the_same_seed_gives_the_same_bytes(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> list[dict[str, object]]:
        models: dict[str, Model] = {"tight": Hosted(rpm=600, tpm=60_000, burst_s=2)}
        _, twin = await driven(world, even(100, 30), "", SdkRetries(), models, seed=None)
        return [seen.public() for seen in twin.log]

    one, again, other = virtual(main, seed=4), virtual(main, seed=4), virtual(main, seed=5)
    assert one == again
    assert one != other
    assert sum(seen["outcome"] == "refused" for seen in one) > 10


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("{kind: status, status: 503}", "status_503"),
        ("{kind: cut, how: rst}", "connection_lost"),
        ("{kind: cut, how: rst}, where: event, after: 3", "cut"),
        ("{kind: cut, how: close}, where: event, after: 3", "cut"),
        ("{kind: cut, how: complete}, where: event, after: 3", "truncated"),
        ("{kind: error}, where: event, after: 3", "error_event"),
        ("{kind: stall}", "deadline"),
        ("{kind: stall}, where: event, after: 3", "deadline"),
    ],
)
def test_each_way_to_fail_has_its_verdict_and_counts_at_the_deadline(
    virtual: VirtualRun, fault: str, verdict: str
) -> None:
    async def main(world: VirtualWorld) -> None:
        result, twin = await driven(
            world, even(4, 10), f"- {{what: {fault}, when: {{requests: [1]}}}}", NoRetries()
        )
        assert result.verdicts == {"ok": 3, verdict: 1}
        assert (result.ttft.count, result.ttft_all.count) == (3, 4)
        assert result.ttft_all.most_us == 30_000_000
        assert result.ttft_all.sum_us == result.ttft.sum_us + 30_000_000
        assert {seen.outcome for seen in twin.log if seen.number != 1} == {"complete"}

    virtual(main)


def test_retries_wait_as_told_and_the_clock_runs_on(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        script = (
            "- {what: {kind: status, status: 429, headers: {retry-after: '3'}}, when: {times: 2}}"
        )
        result, twin = await driven(world, even(1, 1), script, SdkRetries())
        received = [seen.received_ns / 1e9 for seen in twin.log]
        gaps = [b - a for a, b in itertools.pairwise(received)]
        assert result.verdicts == {"ok": 1}
        assert result.attempts == 3
        assert gaps == pytest.approx([3.02, 3.02], abs=0.001)
        assert result.ttft.mean_us > 6_000_000

    virtual(main)


def test_nobody_there_is_a_failure_after_the_sdks_retries(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        target = Target.of("http://127.0.0.1:1", "/v1/chat/completions", {})
        driver = Driver(world, target, ChatBodies(Prompts(1), "m"), SdkRetries())
        result = await driver.run(even(2, 1))
        assert result.verdicts == {"unreachable": 2}
        assert result.attempts == 6

    virtual(main)


def test_an_open_loop_does_not_wait_for_answers(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        result, twin = await driven(world, even(100, 1_000), "- what: {kind: stall, seconds: 5}")
        received = sorted(seen.received_ns for seen in twin.log)
        assert received[-1] - received[0] == pytest.approx(99_000_000, abs=1_000_000)
        assert result.most_in_flight == 100

    virtual(main)


def test_a_client_of_few_connections_makes_the_others_wait(virtual: VirtualRun) -> None:
    class OneConnection(NoRetries):
        max_connections = 1

    async def main(world: VirtualWorld) -> None:
        result, twin = await driven(world, even(3, 1_000), retries=OneConnection())
        assert result.verdicts == {"ok": 3}
        assert result.connections == 1
        assert all(b.received_ns > a.ended_ns for a, b in itertools.pairwise(twin.log))

    virtual(main)


def test_answers_that_are_not_streamed_and_another_dialect(virtual: VirtualRun) -> None:
    class Whole:
        def body(self, arrival: Arrival) -> bytes:
            prompt = Prompts(1).prompt(arrival)
            return (
                b'{"model":"frontier","max_tokens":99,"messages":[{"role":"user","content":"%b"}]}'
                % prompt
            )

    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(
            world, config=TwinConfig(dialect="anthropic", models=FRONTIER, seed=1)
        )
        target = Target.of(twin.base_url, "/v1/messages", ANTHROPIC_KEY)
        driver = Driver(world, target, Whole(), new_watch=WholeBody)
        result = await driver.run(even(5, 10))
        assert result.verdicts == {"ok": 5}
        await twin.close()

    virtual(main)


def test_an_empty_schedule_is_over_at_once(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        result, _ = await driven(world, Workload("empty", [], []))
        assert result.ended == 0

    virtual(main)


def test_progress_is_told_each_second(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=TwinConfig(models=FRONTIER, seed=1))
        driver = Driver(
            world,
            Target.of(twin.base_url, "/v1/chat/completions", OPENAI_KEY),
            ChatBodies(Prompts(1), "frontier"),
        )
        told: list[int] = []
        await driver.run(even(20, 4), lambda so_far: told.append(so_far.ended))
        assert len(told) >= 6
        assert told == sorted(told)
        await twin.close()

    virtual(main)
