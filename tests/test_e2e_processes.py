"""What becomes of callers and records when processes of an installation die or are told to stop."""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

import sdk_kit
from sdk_kit import Gateway, children, replaced
from sdk_stage import USER, Stage

guarded, stage = sdk_kit.guarded, sdk_kit.stage


def test_two_workers_share_the_callers(guarded: Gateway) -> None:
    _, secret = guarded.new_key(project="sharing")
    asked = {
        guarded.chat(headers={"authorization": f"Bearer {secret}"}).headers["x-request-id"]
        for _ in range(24)  # all to one of two by chance: once in eight million times
    }
    served = Counter(guarded.record(request_id).worker for request_id in asked)
    assert set(served) == {0, 1}
    assert sum(served.values()) == 24


class Load:
    """Callers that ask all the time, some streaming, some not."""

    def __init__(self, gateway: Gateway, secret: str) -> None:
        self.gateway = gateway
        self.secret = secret
        self.answered: dict[str, int] = {}  # request id → when, ns
        self.failed: list[Exception] = []
        self._over = False
        self._grown = asyncio.Event()

    async def run(self, callers: int = 8, retries: int = 0) -> None:
        async with self.gateway.openai_async(self.secret, max_retries=retries) as sdk:
            await asyncio.gather(*(self._ask(sdk, number) for number in range(callers)))

    async def more(self, number: int) -> None:
        """Wait for so many more answers."""
        upto = len(self.answered) + number
        async with asyncio.timeout(30):
            while len(self.answered) < upto:
                self._grown.clear()
                await self._grown.wait()

    def stop(self) -> None:
        self._over = True

    async def _ask(self, sdk: openai.AsyncOpenAI, number: int) -> None:
        while not self._over:
            try:
                answer: Any = await sdk.chat.completions.create(
                    model="openai/instant", messages=USER, stream=bool(number % 2)
                )
                if number % 2:
                    async for _ in answer:
                        pass
                    request_id = answer.response.headers["x-request-id"]
                else:
                    request_id = answer._request_id
                self.answered[request_id] = self.gateway.world.now_ns()
                self._grown.set()
            except openai.APIError as error:
                self.failed.append(error)
            await asyncio.sleep(0.01)  # a pace: the test asks hundreds, not thousands


def test_requests_go_on_while_the_back_office_is_dead(guarded: Gateway, stage: Stage) -> None:
    _, secret = guarded.new_key(project="bereaved")
    office = children(guarded.up)["back_office"]

    async def main() -> tuple[Load, int]:
        load = Load(guarded, secret)
        running = asyncio.create_task(load.run())
        await load.more(50)
        os.kill(office, signal.SIGKILL)
        killed_ns = guarded.world.now_ns()
        await load.more(50)
        await asyncio.to_thread(replaced, guarded.up, "back_office", office)
        await load.more(50)
        load.stop()
        await running
        return load, killed_ns

    load, killed_ns = asyncio.run(main())
    assert load.failed == []
    # Before it died it may have held what it gathered for a transaction, and its socket what
    # the workers had gathered; all else is kept, what was asked meanwhile among it.
    due = {one for one, ns in load.answered.items() if not -0.6e9 < ns - killed_ns < 0.25e9}

    def kept() -> set[str]:
        return {line.id for line in guarded.lines(project="bereaved")}

    with suppress(AssertionError):
        sdk_kit.eventually(lambda: due <= kept(), "")
    assert len(due - kept()) == 0, f"of {len(due)} records {len(due - kept())} are missing"
    assert len(guarded.lines(project="bereaved")) == len(kept())  # and none of them twice
    # The new one is heard: keys that are made now are known.
    guarded.new_key()


def test_a_worker_that_is_killed_comes_back_and_nobody_waits_for_ever(
    guarded: Gateway, stage: Stage
) -> None:
    _, secret = guarded.new_key(project="widowed")
    dead = children(guarded.up)["worker-0"]

    async def main() -> Load:
        load = Load(guarded, secret)
        running = asyncio.create_task(load.run(retries=2))
        await load.more(30)
        os.kill(dead, signal.SIGKILL)
        # Connections that the dead one would have taken wait in its socket's backlog.
        await asyncio.to_thread(replaced, guarded.up, "worker-0", dead)
        await load.more(60)
        load.stop()
        await running
        return load

    load = asyncio.run(main())
    # Answers that the dead one had begun are lost, and say so: only streams, never whole ones,
    # which the SDK asks for again.
    assert len(load.failed) <= 4
    assert all(isinstance(error, openai.APIConnectionError) for error in load.failed)
    headers = {"authorization": f"Bearer {secret}"}
    asked = {guarded.chat(headers=headers).headers["x-request-id"] for _ in range(24)}
    assert {guarded.record(request_id).worker for request_id in asked} == {0, 1}


def test_it_stops_in_order_and_begins_where_it_was(stage: Stage, tmp_path: Path) -> None:
    """Asked to stop, it finishes what streams; killed, its children go too; its data stays."""
    home = tmp_path / "home"
    first = sdk_kit.start(stage, home)
    _, secret = first.new_key(project="kept")
    mine = {"authorization": f"Bearer {secret}"}
    before = first.chat(headers=mine).headers["x-request-id"]
    with first.openai(secret) as sdk:
        more: Any = [{"role": "user", "content": "Slowly. [out:20]"}]  # a second
        stream = sdk.chat.completions.create(model="openai/slow", messages=more, stream=True)
        request_id = stream.response.headers["x-request-id"]
        texts = [next(stream).choices[0].delta.content for _ in range(3)]
        began_ns = first.world.now_ns()
        first.up.process.send_signal(signal.SIGTERM)
        for chunk in stream:
            if chunk.choices:
                texts.append(chunk.choices[0].delta.content)
                reason = chunk.choices[0].finish_reason
    assert reason == "stop"
    assert len("".join(text or "" for text in texts)) == 80
    assert first.up.stop() == 0
    assert first.world.now_ns() - began_ns < 10e9
    with pytest.raises(OSError, match="refused"), socket.create_connection(first.address, 5):
        pass
    # Nobody runs; the last record is there.
    assert first.record(request_id).outcome == "ok"
    assert first.record(before).project == "kept"

    second = sdk_kit.start(stage, home)
    assert second.up.admin_key == ""  # shown once in a life
    again = second.chat(headers=mine).headers["x-request-id"]
    assert second.record(again).project == "kept"
    theirs = children(second.up)
    assert set(theirs) == {"worker-0", "back_office"}
    second.up.process.kill()
    second.up.process.wait(10)
    for name, pid in theirs.items():
        sdk_kit.eventually(partial(_ended, pid), f"{name} outlived its supervisor", 10)
    second.up.stop()
    # Cut off in the middle of everything: what was written is readable, and it starts again.
    assert second.record(request_id).outcome == "ok"
    third = sdk_kit.start(stage, home)
    try:
        assert third.chat(headers=mine).status == 200
        listed = json.loads(third.forebay("trace", "list", "--json", "--project", "kept"))
        assert {before, request_id, again} <= {line["id"] for line in listed["traces"]}
    finally:
        third.close()


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"
