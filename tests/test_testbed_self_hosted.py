"""A self-hosted twin on the wire: everybody is let in, and overload is everybody's."""

import asyncio

from conftest import VirtualRun
from forebay.testbed.load.client import Target
from forebay.testbed.load.driver import Driver, Result
from forebay.testbed.load.workload import Arrival, ChatBodies, Prompts, Workload
from forebay.testbed.twins import Twin, TwinConfig
from forebay.testbed.twins.facts import SelfHosted
from forebay.testbed.virtual import VirtualWorld
from testbed_kit import OPENAI_KEY, chat

#: coarse events: what is tested is the queue, not the stream
FACTS = SelfHosted(kv_tokens=20_000, batch_max=64, events_per_s=4)


async def driven(world: VirtualWorld, rate: float, span_s: float) -> Result:
    twin = await Twin.start(world, config=TwinConfig(models={"own": FACTS}, seed=1))
    count = int(rate * span_s)
    workload = Workload("even", [Arrival(n, n / rate, 1_125, 375) for n in range(count)], [])
    target = Target.of(twin.base_url, "/v1/chat/completions", OPENAI_KEY)
    result = await Driver(world, target, ChatBodies(Prompts(1), "own")).run(workload)
    await twin.log.settled(count)
    assert "KV 0/20000" in twin.describe()  # whoever left has freed the pool
    await twin.close()
    return result


def test_below_its_capacity_it_answers_and_above_it_collapses(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        below = await driven(world, 0.8, 60)
        above = await driven(world, 4.0, 60)
        assert below.verdicts == {"ok": 48}
        assert below.ttft.quantile_us(0.5) < 2_000_000
        assert set(above.verdicts) == {"ok", "deadline"}
        # Five times the load, fewer answers that anybody waited for.
        assert above.completed < 1.5 * below.completed
        assert above.completed / above.ended < 0.5

    virtual(main)


def test_answers_are_exact_whole_or_streamed_and_after_being_thrown_out(
    virtual: VirtualRun,
) -> None:
    async def main(world: VirtualWorld) -> None:
        tight = SelfHosted(kv_tokens=600, events_per_s=4)
        twin = await Twin.start(world, config=TwinConfig(models={"own": tight}, seed=1))
        asked = [
            chat(world, twin, f"{number} [out:150]", stream=number % 2 == 0) for number in range(8)
        ]
        answers = await asyncio.gather(*(one.over for one in asked))
        for got in answers[::2]:
            texts = [e["choices"][0]["delta"].get("content") or "" for e in got.data[:-1]]
            assert len("".join(texts)) == 600
        for got in answers[1::2]:
            assert len(got.json["choices"][0]["message"]["content"]) == 600
        assert ", 0 preempted" not in twin.describe()

        too_long = await chat(world, twin, "[out:900]").over
        assert (too_long.status, too_long.json["error"]["code"]) == (
            400,
            "context_length_exceeded",
        )
        await twin.close()

    virtual(main)
