"""`forebay sim` as a process, and the twins it starts."""

import json
import signal
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from conftest import RealRun, VirtualRun
from forebay.testbed.twins import Twin, TwinConfig, house
from forebay.testbed.twins.facts import PRESETS
from forebay.testbed.twins.hasten import Hastened
from forebay.testbed.virtual import VirtualWorld
from testbed_kit import chat


def sim(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "forebay", "sim", "--port", "0", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_announces_its_twins_answers_and_ends_with_its_parent() -> None:
    with sim("--json", "--until-eof", "--seed", "3") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        twins = json.loads(process.stdout.readline())["twins"]
        assert [twin["name"] for twin in twins] == ["openai", "anthropic", "second"]
        assert twins[0]["models"] == ["frontier", "small", "self_hosted", "instant"]
        request = urllib.request.Request(
            twins[0]["base_url"] + "/v1/models",
            headers={"authorization": "Bearer " + twins[0]["key"]},
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["object"] == "list"
        process.stdin.close()
        assert process.wait(20) == 0


def test_it_prints_for_people_and_ends_on_a_signal() -> None:
    with sim("--dialect", "openai", "--preset", "small") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.split()[0] == "openai"
        assert "/v1 " in line
        assert line.rstrip().endswith("models small")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "nobody"], "no preset 'nobody'"),
        (["--speed", "0"], "speed 0"),
        (["--script", "/nowhere"], "/nowhere"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(arguments: list[str], said: str) -> None:
    with sim(*arguments) as process:
        assert process.stderr is not None
        error = process.stderr.read()
        assert process.wait(20) == 1
        assert said in error
        assert error.count("\n") == 1


def test_a_second_host_serves_the_frontier_model_with_luck_of_its_own() -> None:
    twins = house.configs("both", list(PRESETS), 5, keep_bodies=False)
    assert list(twins) == ["openai", "anthropic", "second"]
    assert list(twins["second"].models) == ["frontier"]
    assert twins["second"].seed != twins["openai"].seed
    assert list(house.configs("openai", ["second"], 5, False)) == ["second"]


def test_a_hastened_world_does_everything_sooner(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        spans: list[Any] = []
        for speed in (1, 10):
            fast = Hastened(world, speed)
            models = {"frontier": PRESETS["frontier"]}
            twin = await Twin.start(fast, config=TwinConfig(models=models, seed=1))
            start_ns = world.now_ns()
            got = await chat(world, twin, "hi [out:100]").over
            spans.append((got.end_ns - start_ns) / 1e9)
            await twin.close()
        assert spans[0] == pytest.approx(10 * spans[1], rel=0.01)

    virtual(main)


def test_a_port_that_is_taken_is_refused(real: RealRun) -> None:
    async def main() -> None:
        from forebay.world import RealWorld

        twin = await Twin.start(RealWorld())
        with pytest.raises(OSError, match="in use"):
            await Twin.start(RealWorld(), port=twin.port)
        await twin.close()

    real(main())
