"""Callers who leave and callers who dawdle, measured where it counts: at the provider.

The provider's clock is the test's own, so the time from a caller's last act to the end of the
provider's connection is one subtraction. Machines that run tests are busy: of several
departures the middle one is held to the 100 ms, and every one to two seconds.
"""

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sdk_kit
from forebay.testbed.twins.seen import Seen
from sdk_kit import Gateway, Wire
from sdk_stage import USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

LIMIT_MS = 100.0
TIMES = 3
#: (path, provider, what is asked beside the model, what a stream says with each token)
WAYS: dict[str, tuple[str, str, dict[str, Any], bytes]] = {
    "chat": ("/v1/chat/completions", "openai", {"messages": USER}, b'"content":"'),
    "chat converted": ("/v1/chat/completions", "anthropic", {"messages": USER}, b'"content":"'),
    "messages": (
        "/v1/messages",
        "anthropic",
        {"messages": USER, "max_tokens": 99},
        b"text_delta",
    ),
    "messages converted": (
        "/v1/messages",
        "openai",
        {"messages": USER, "max_tokens": 99},
        b"text_delta",
    ),
    "responses": ("/v1/responses", "openai", {"input": "Hi [out:99]"}, b"output_text.delta"),
    "azure": ("/v1/chat/completions", "azure", {"messages": USER}, b'"content":"'),
    "TLS": ("/v1/chat/completions", "trusted", {"messages": USER}, b'"content":"'),
    "passthrough": (
        "/passthrough/openai/chat/completions",
        "openai",
        {"messages": USER},
        b'"content":"',
    ),
}


def departures(leave: Callable[[], tuple[int, Seen]]) -> None:
    """`leave` goes, and tells when (ns) and what the provider saw of it."""
    took_ms = []
    for _ in range(TIMES):
        left_ns, seen = leave()
        assert seen.outcome == "gone"
        took_ms.append((seen.ended_ns - left_ns) / 1e6)
    assert max(took_ms) < 2000, took_ms
    assert statistics.median(took_ms) < LIMIT_MS, took_ms


@pytest.mark.parametrize("way", WAYS)
def test_leaving_in_the_middle_of_a_stream_reaches_the_provider(
    gateway: Gateway, stage: Stage, way: str
) -> None:
    path, provider, asked, token = WAYS[way]
    model = "slow" if "passthrough" in path else f"{provider}/slow"

    def leave() -> tuple[int, Seen]:
        stage.reset()
        with gateway.wire() as wire:
            wire.post(path, {"model": model, "stream": True} | asked)
            wire.until(token)
            left_ns = gateway.world.now_ns()
        return left_ns, stage.one(provider + "/")

    departures(leave)
    sdk_kit.eventually(
        lambda: all(r.outcome == "cancelled" for r in gateway.lines(model=model)[:TIMES]),
        "the records don't say that the caller left",
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token_reaches_the_provider(
    gateway: Gateway, stage: Stage, way: str, stream: bool
) -> None:
    path, provider, asked, _ = WAYS[way]
    model = "silent" if "passthrough" in path else f"{provider}/silent"
    log = stage.twin(provider + "/").log

    def leave() -> tuple[int, Seen]:
        stage.reset()
        with gateway.wire() as wire:
            wire.post(path, {"model": model, "stream": stream} | asked)
            stage.run(log.until(lambda: log.total == 1))
            left_ns = gateway.world.now_ns()
        return left_ns, stage.one(provider + "/")

    departures(leave)


def test_what_was_made_until_then_is_accounted_for(gateway: Gateway, stage: Stage) -> None:
    with gateway.wire() as wire:
        wire.post(
            "/v1/chat/completions", {"model": "openai/slow", "messages": USER, "stream": True}
        )
        head = wire.until(b'"content":"')
        wire.until(b'"content":"')
    (name,) = [line for line in head.split(b"\r\n") if line.startswith(b"x-request-id")]
    record = gateway.record(name.partition(b": ")[2].decode())
    assert record.outcome == record.attempts[0].outcome == "cancelled"
    assert record.usage is not None
    assert record.usage.estimated
    seen = stage.one("openai/")
    assert 1 <= record.usage.output_tokens <= seen.tokens + 1
    assert (
        bytes(record.attempts[0].body.data) == bytes(seen.sent)[: len(record.attempts[0].body.data)]
    )


def test_the_openai_sdk_leaves(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk:

        def leave() -> tuple[int, Seen]:
            stage.reset()
            stream = sdk.chat.completions.create(model="openai/slow", messages=USER, stream=True)
            next(iter(stream))
            left_ns = gateway.world.now_ns()
            stream.close()
            return left_ns, stage.one("openai/")

        departures(leave)


def test_a_cancelled_task_of_the_anthropic_sdk_leaves(gateway: Gateway, stage: Stage) -> None:
    async def main() -> tuple[int, Seen]:
        stage.reset()
        arrived = asyncio.Event()

        async def read() -> None:
            async with claude.messages.stream(
                model="anthropic/slow", max_tokens=99, messages=USER
            ) as stream:
                async for _ in stream.text_stream:
                    arrived.set()

        async with gateway.anthropic_async() as claude:
            reading = asyncio.create_task(read())
            await arrived.wait()
            left_ns = gateway.world.now_ns()
            reading.cancel()
            await asyncio.wait([reading])
            return left_ns, await asyncio.to_thread(stage.one, "anthropic/")

    departures(lambda: asyncio.run(main()))


def test_many_who_leave_at_once_leave_nothing_behind(gateway: Gateway, stage: Stage) -> None:
    async def one(sdk: Any, number: int) -> None:
        stream = await sdk.chat.completions.create(
            model="openai/slow" if number % 2 else "anthropic/slow", messages=USER, stream=True
        )
        async for _ in stream:
            break
        await stream.close()

    async def main() -> None:
        async with gateway.openai_async() as sdk:
            await asyncio.gather(*(one(sdk, number) for number in range(60)))

    asyncio.run(main())
    assert {seen.outcome for seen in stage.seen("openai/", 30)} == {"gone"}
    assert {seen.outcome for seen in stage.seen("anthropic/", 30)} == {"gone"}
    # And the gateway goes on as before.
    assert gateway.chat("openai/instant").status == 200


# -- slow readers ----------------------------------------------------------------------------


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def held_back(stage: Stage, model: str) -> int:
    """How many bytes a provider has sent, once that has stopped growing."""
    sizes: list[int] = []

    def rests() -> bool:
        log = stage.twin(model).log
        sizes.append(stage.do(lambda: log[0].sent_size if log.total else 0))
        return sizes[-1] > 0 and len(sizes) > 12 and len(set(sizes[-12:])) == 1

    sdk_kit.eventually(rests, f"the provider was never held back: {sizes[-12:]}")
    return sizes[-1]


def ask_for_much(wire: Wire, model: str, tokens: int) -> None:
    said = [{"role": "user", "content": f"Tell me all. [out:{tokens}]"}]
    path = "/v1/messages" if "anthropic" in model else "/v1/chat/completions"
    wire.post(path, {"model": model, "messages": said, "max_tokens": 10**6, "stream": True})


@pytest.mark.parametrize("model", ["openai/flood", "anthropic/flood"])
def test_a_caller_that_does_not_read_holds_the_provider_back(
    gateway: Gateway, stage: Stage, model: str
) -> None:
    tokens = 200_000  # 50 MB, a quarter of a kilobyte each
    worker = sdk_kit.children(gateway.up)["worker-0"]
    gateway.chat("openai/instant")
    stage.reset()
    before = rss_bytes(worker)
    with gateway.wire(receive_buffer=8192) as wire:
        ask_for_much(wire, model, tokens)
        log = stage.twin(model).log
        taken = held_back(stage, model)
        grown = rss_bytes(worker) - before
        assert not log[0].ended
        # Whatever was taken lies in socket buffers, the kernel's three times four megabytes.
        assert taken < 20_000_000
        assert grown < 16_000_000
        assert gateway.chat("openai/instant").status == 200  # nobody else waits
    assert stage.seen(model)[0].outcome == "gone"


def test_a_caller_that_reads_late_gets_everything(gateway: Gateway, stage: Stage) -> None:
    tokens = 20_000
    with gateway.wire(receive_buffer=8192) as wire:
        ask_for_much(wire, "openai/flood", tokens)
        held_back(stage, "openai/flood")
        got = wire.until(b"data: [DONE]\n\n")
    assert got.count(b'"content":"') == tokens + 1  # the opening chunk has an empty one
    assert got.count(b'"finish_reason":"stop"') == 1
    assert stage.one("openai/").outcome == "complete"
