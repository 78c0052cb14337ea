"""The driver's retry policy is the installed SDK's: decision by decision, then end to end."""

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import _constants as constants
from openai._models import FinalRequestOptions

from conftest import RealRun
from forebay.testbed.load import retries
from forebay.testbed.load.client import Target
from forebay.testbed.load.driver import Driver
from forebay.testbed.load.retries import SdkRetries, retry_after_s
from forebay.testbed.load.workload import Arrival, ChatBodies, Prompts, Workload
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.twins.faults import Script
from forebay.world import RealWorld
from testbed_kit import OPENAI_KEY

_SAID = "0|1|-1|0.5|2.5|20|119.9|120|121|86400|nan|inf|-inf|Infinity|1e400|1e-9|x|3s||2020"
_DATES = "|Wed, 21 Oct 2015 07:28:00 GMT|Fri, 31 Dec 1999 23:59:59 GMT|Wed,01-Jan-2020"
VALUES = st.sampled_from((_SAID + _DATES).split("|"))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": VALUES,
        "retry-after-ms": VALUES,
        "x-should-retry": st.sampled_from(["true", "false", "perhaps"]),
    },
)


@pytest.fixture(scope="module")
def sdk() -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9")


def test_the_constants_are_the_sdks() -> None:
    assert retries.SDK_MAX_RETRIES == constants.DEFAULT_MAX_RETRIES
    assert constants.DEFAULT_CONNECTION_LIMITS.max_connections == retries.SDK_MAX_CONNECTIONS


@given(st.integers(400, 599), HEADERS, st.integers(0, 2))
@example(429, {"retry-after": "2"}, 0)
@example(500, {}, 1)
def test_each_decision_is_the_sdks(
    sdk: openai.OpenAI, status: int, headers: dict[str, str], made: int
) -> None:
    response = httpx2.Response(status, headers=headers)
    ours = SdkRetries().delay_s(made, status, headers.get, 4e9, 0.0)
    if made >= 2 or not sdk._should_retry(response):
        assert ours is None
        return
    options = FinalRequestOptions.construct(method="post", url="/", max_retries=2)
    theirs = sdk._calculate_retry_timeout(2 - made, options, response.headers)
    assert ours is not None
    # Theirs has drawn up to a quarter off; a delay that the server named has no luck in it.
    assert theirs <= ours <= theirs / 0.75 + 1e-9
    if retry_after_s(headers.get, 4e9) == ours:
        assert theirs == ours


def test_without_an_answer_it_backs_off_by_luck_alone() -> None:
    def delay(made: int, draw: float) -> float | None:
        return SdkRetries().delay_s(made, None, lambda name: None, 0.0, draw)

    assert [delay(0, 0.0), delay(1, 0.0), delay(2, 0.0)] == [0.5, 1.0, None]
    assert delay(0, 1.0) == 0.375


def test_a_date_is_obeyed_from_the_wall_clock() -> None:
    said = {"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}
    assert SdkRetries().delay_s(0, 429, said.get, 90.0, 0.5) == 10.0
    assert SdkRetries().delay_s(0, 429, said.get, 101.0, 0.0) == 0.5


FIRST_TIMES = (
    "- {what: {kind: status, status: %s, headers: {retry-after-ms: '20'}}, when: {times: %d}}"
)
SCRIPTS = {
    "429 once": FIRST_TIMES % ("429", 1),
    "500 twice": FIRST_TIMES % ("500", 2),
    "503 for ever": FIRST_TIMES % ("503", 9),
    "400": FIRST_TIMES % ("400", 9),
    "not to be retried": "- what: {kind: status, status: 500, headers: {x-should-retry: 'false'}}",
    "told to": "- {what: {kind: status, status: 404, headers: {x-should-retry: 'true', "
    "retry-after-ms: '20'}}, when: {times: 1}}",
    "too long": "- what: {kind: status, status: 429, headers: {retry-after: '121'}}",
    "cut mid-stream": "- {what: {kind: cut, how: rst}, where: event, after: 2}",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_driver_asks_as_often_as_the_sdk(real: RealRun, name: str) -> None:
    async def attempts(with_sdk: bool) -> tuple[int, bool]:
        world = RealWorld()
        twin = await Twin.start(
            world, config=TwinConfig(models={"instant": PRESETS["instant"]}, seed=1)
        )
        twin.set_script(Script.decode(SCRIPTS[name]))
        try:
            if with_sdk:
                succeeded = await _ask_sdk(twin)
            else:
                succeeded = await _ask_driver(world, twin)
            return twin.log.total, succeeded
        finally:
            await twin.close()

    async def main() -> None:
        theirs, ours = await attempts(with_sdk=True), await attempts(with_sdk=False)
        assert ours == theirs

    real(main())


async def _ask_sdk(twin: Twin) -> bool:
    messages: Any = [{"role": "user", "content": "hello [out:9]"}]
    async with openai.AsyncOpenAI(base_url=twin.base_url + "/v1", api_key="twin-key") as sdk:
        try:
            stream = await sdk.chat.completions.create(
                model="instant", messages=messages, stream=True
            )
            async for _ in stream:
                pass
        except (openai.OpenAIError, httpx2.HTTPError):
            return False
    return True


async def _ask_driver(world: RealWorld, twin: Twin) -> bool:
    driver = Driver(
        world,
        Target.of(twin.base_url, "/v1/chat/completions", OPENAI_KEY),
        ChatBodies(Prompts(1), "instant"),
        SdkRetries(),
    )
    result = await asyncio.wait_for(driver.run(Workload("one", [Arrival(0, 0.0, 20, 9)], [])), 20)
    return result.completed == 1
