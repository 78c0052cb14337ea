"""What goes wrong at a provider, as an application's SDK sees it through the gateway.

Three things are asked of every failure: the SDK raises what fits, nothing that grants access or
was not meant for the caller is in it, and the record says the same.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

import sdk_kit
from forebay.observe.record import Record
from forebay.testbed.twins.faults import Cut, Status, When
from sdk_kit import Gateway
from sdk_stage import ANTHROPIC_KEY, AZURE_KEY, OPENAI_KEY, PROVIDER_KEYS, USER, WRONG_KEY, Stage
from sdk_ways import ASK, WAYS, StatusError, ask, cacheable, failed, outcome

gateway, stage, records_agree = sdk_kit.gateway, sdk_kit.stage, sdk_kit.records_agree
pytestmark = pytest.mark.usefixtures("records_agree")


def failing(
    gateway: Gateway,
    dialect: str,
    model: str,
    recorded: Callable[[Record], bool] = failed,
    **more: Any,
) -> Any:
    """The error that the SDK raises for an HTTP status; `recorded` holds for its record."""
    with pytest.raises(StatusError) as caught:
        ask(gateway, dialect, model, **more)
    error: Any = caught.value
    for secret in (*PROVIDER_KEYS.values(), "<html", "Traceback", "-wrong-"):
        assert secret not in str(error.body) + error.message + str(error.response.headers)
    assert error.request_id is not None
    gateway.expect(error.request_id, recorded)
    return error


# -- statuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (404, "NotFoundError"),
        (413, ""),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
        (529, "InternalServerError"),
    ],
)
def test_a_providers_error_keeps_its_meaning(
    gateway: Gateway, stage: Stage, dialect: str, model: str, status: int, kind: str
) -> None:
    stage.fault(model, Status(status=status))
    error = failing(gateway, dialect, model, outcome("provider_error"))
    expected = status
    if status in (503, 529) and dialect not in model:  # the other dialect's word for overload
        expected = {"openai": 503, "anthropic": 529}[dialect]
    assert error.status_code == expected
    sdk: Any = openai if dialect == "openai" else anthropic
    if kind:
        assert isinstance(error, getattr(sdk, kind))
    assert "Scripted fault" in error.message


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_the_sdk_waits_as_long_as_the_provider_says(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    # The SDKs' own first wait is at most half a second.
    refusal = Status(status=429, headers={"retry-after-ms": "900", "retry-after": "1"})
    stage.fault(model, refusal, when=When(times=1))
    ask(gateway, dialect, model, retries=1)
    first, second = stage.seen(model, 2)
    assert (first.status, second.status) == (429, 200)
    assert (second.received_ns - first.ended_ns) / 1e9 >= 0.9


def test_a_prompt_that_is_too_long_is_told_so(gateway: Gateway, stage: Stage) -> None:
    stage.fault("openai/", Status(status=400, error="context_too_long"))
    error = failing(gateway, "openai", "openai/instant")
    assert error.code == "context_length_exceeded"
    stage.fault("openai/", Status(status=400, error="context_too_long"))
    assert failing(gateway, "anthropic", "openai/instant").status_code == 400


# -- the operator's key ----------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("provider", ["wrong-key", "wrong-key-claude"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_provider_key_is_the_operators_fault(
    gateway: Gateway, stage: Stage, dialect: str, provider: str, stream: bool
) -> None:
    # Not 401: the caller would look for a mistake in its own key. Not retryable: with two
    # retries allowed the SDK asks once.
    def unquoted(record: Record) -> bool:
        return record.outcome == "provider_refused_key" and WRONG_KEY not in str(record)

    error = failing(gateway, dialect, f"{provider}/instant", unquoted, stream=stream, retries=2)
    assert error.status_code == 502
    assert provider in error.message
    assert WRONG_KEY[-4:] not in error.message
    twin = stage.anthropic if "claude" in provider else stage.openai
    assert stage.do(lambda: twin.log.total) == 1


def test_passthrough_does_not_tell_of_the_operators_key_either(
    gateway: Gateway, stage: Stage
) -> None:
    told = gateway.ask("/passthrough/wrong-key/models")
    assert told.status == 502
    assert told.json["error"]["code"] == "provider_refused_key"
    assert WRONG_KEY[-4:] not in told.body.decode()
    stage.bare.answer = lambda _: (502, [], HTML.encode(), "text/html")
    told = gateway.ask("/passthrough/bare/any")
    assert told.status == 502
    assert "10.0.0.7" not in told.body.decode()
    stage.bare.answer = lambda _: (404, [], b'{"error":{"message":"No file.","x":1}}', "a/json")
    told = gateway.ask("/passthrough/bare/any")
    assert (told.status, told.body) == (404, b'{"error":{"message":"No file.","x":1}}')


@pytest.mark.parametrize(("dialect", "model"), [*WAYS, ("openai", "azure/gpt-azure")])
def test_an_error_that_quotes_the_operators_key_is_passed_without_it(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    quoted = " ".join(PROVIDER_KEYS.values())
    body = json.dumps({"error": {"message": f"Busy: {quoted}!", "type": "server_error"}})
    stage.fault(model, Status(status=500, body=body))
    with pytest.raises(StatusError) as caught:
        ask(gateway, dialect, model)
    own = {"anthropic": ANTHROPIC_KEY, "azure": AZURE_KEY}.get(model.partition("/")[0], OPENAI_KEY)
    error: Any = caught.value
    assert own not in error.message + str(error.body)
    assert "Busy" in error.message
    gateway.expect(
        error.request_id,
        lambda record: all(key not in str(record) for key in PROVIDER_KEYS.values()),
    )


# -- what is no answer -----------------------------------------------------------------------

HTML = f"<html><body>Bad gateway at 10.0.0.7, key {OPENAI_KEY}</body></html>"


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("status", [200, 502])
def test_a_proxys_page_is_not_passed_on(
    gateway: Gateway, stage: Stage, dialect: str, model: str, status: int
) -> None:
    stage.fault(model, Status(status=status, body=HTML, content_type="text/html"))
    error = failing(gateway, dialect, model)
    assert error.status_code == 502
    assert "10.0.0.7" not in error.message


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_under_200_is_an_error(
    gateway: Gateway, stage: Stage, dialect: str, model: str, stream: bool
) -> None:
    body = '{"error":{"message":"The moon is full.","type":"server_error","code":null}}'
    stage.fault(model, Status(status=200, body=body))
    asked = cacheable(f"error under 200 {dialect} {stream}")
    error = failing(gateway, dialect, model, stream=stream, **asked)
    assert error.status_code == 502
    assert "The moon is full." in error.message
    stage.reset()  # and it is not what the next one gets
    ask(gateway, dialect, model, **asked)
    assert len(stage.seen(model)) == 1


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_a_redirect_is_not_followed(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    elsewhere = stage.bare.base_url + "/elsewhere"
    stage.fault(model, Status(status=307, headers={"location": elsewhere}))
    error = failing(gateway, dialect, model)
    assert error.status_code == 502
    assert "redirects are not followed" in error.message
    assert stage.bare.asked == []
    assert elsewhere not in str(error.response.headers)


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("how", ["close", "rst", "complete"])
def test_half_an_answer_is_no_answer(
    gateway: Gateway, stage: Stage, dialect: str, model: str, how: Any
) -> None:
    stage.fault(model, Cut(how=how), where="first")
    error = failing(gateway, dialect, model)
    assert error.status_code == 502


# -- unreachable -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("provider", "why"),
    [("closed", "accepts connections"), ("nowhere", "resolve"), ("untrusted", "TLS")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_out_of_reach_is_named(
    gateway: Gateway, dialect: str, provider: str, why: str, stream: bool
) -> None:
    unreachable = outcome("provider_unreachable")
    error = failing(gateway, dialect, f"{provider}/any", unreachable, stream=stream)
    assert error.status_code == 502
    assert f"provider {provider}" in error.message
    assert why in error.message
    for address in ("127.0.0.1", "forebay-test.invalid"):
        assert address not in error.message


def test_passthrough_names_it_too(gateway: Gateway) -> None:
    told = gateway.ask("/passthrough/closed/models")
    assert told.status == 502
    assert "closed" in told.json["error"]["message"]
    assert gateway.ask("/passthrough/nobody/models").status == 404


def test_a_provider_that_answers_too_late_is_named(gateway: Gateway, stage: Stage) -> None:
    """All ways at once: each waits for the limit of two seconds."""

    async def main() -> Any:
        async with gateway.openai_async() as sdk, gateway.anthropic_async() as claude:
            return await asyncio.gather(
                sdk.chat.completions.create(model="openai/silent", messages=USER),
                sdk.chat.completions.create(model="anthropic/silent", messages=USER, stream=True),
                claude.messages.create(model="anthropic/silent", **ASK),
                claude.messages.create(model="openai/silent", stream=True, **ASK),
                return_exceptions=True,
            )

    for error, provider in zip(
        asyncio.run(main()), ("openai", "anthropic", "anthropic", "openai"), strict=True
    ):
        assert isinstance(error, StatusError)
        assert error.status_code == 504
        assert f"provider {provider}" in error.message
        assert "in time" in error.message
    # Given up means closed, not left running.
    outcomes = [seen.outcome for m in ("openai/", "anthropic/") for seen in stage.seen(m, 2)]
    assert outcomes == ["gone"] * 4
