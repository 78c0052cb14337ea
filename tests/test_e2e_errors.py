"""What goes wrong at a provider, as an application's SDK sees it through the gateway.

Three things are asked of every failure: the SDK raises what fits, nothing that grants access or
was not meant for the caller is in it, and the record says the same.
"""

import asyncio
import http.client
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

import sdk_kit
from forebay.observe.record import Record
from forebay.testbed.twins.faults import Cut, Error, Stall, Status, When, Write
from sdk_kit import USER, Gateway, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

ASK: Any = {"max_tokens": 100, "messages": USER}


def cacheable(label: str) -> Any:
    """A request that may be answered from the cache; each test asks something of its own.
    (Anthropic's SDK has no word for the temperature any more.)"""
    said = {"role": "user", "content": f"{label} [out:12]"}
    return {"messages": [said], "extra_body": {"temperature": 0}}


#: (the SDK's dialect, a model of a provider that speaks the same or the other)
WAYS = [
    ("openai", "openai/instant"),
    ("openai", "anthropic/instant"),
    ("anthropic", "anthropic/instant"),
    ("anthropic", "openai/instant"),
]
APIError = (openai.APIError, anthropic.APIError)
StatusError = (openai.APIStatusError, anthropic.APIStatusError)


def ask(gateway: Gateway, dialect: str, model: str, retries: int = 0, **more: Any) -> Any:
    """One answer by the SDK of a dialect; a stream is read to its end and given as a list."""
    if dialect == "openai":
        with gateway.openai(max_retries=retries) as sdk:
            got: Any = sdk.chat.completions.create(model=model, **{**ASK, **more})
            return list(got) if more.get("stream") else got
    with gateway.anthropic(max_retries=retries) as claude:
        got = claude.messages.create(model=model, **{**ASK, **more})
        return list(got) if more.get("stream") else got


def failing(gateway: Gateway, dialect: str, model: str, **more: Any) -> Any:
    """The error that the SDK raises for an HTTP status."""
    with pytest.raises(StatusError) as caught:
        ask(gateway, dialect, model, **more)
    error: Any = caught.value
    for secret in (*sdk_kit.PROVIDER_KEYS.values(), "<html", "Traceback", "-wrong-"):
        assert secret not in str(error.body) + error.message + str(error.response.headers)
    assert error.request_id is not None
    assert gateway.record(error.request_id).outcome not in ("ok", "open")
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
    error = failing(gateway, dialect, model)
    expected = status
    if status in (503, 529) and dialect not in model:  # the other dialect's word for overload
        expected = {"openai": 503, "anthropic": 529}[dialect]
    assert error.status_code == expected
    sdk: Any = openai if dialect == "openai" else anthropic
    if kind:
        assert isinstance(error, getattr(sdk, kind))
    assert "Scripted fault" in error.message
    assert gateway.record(error.request_id).outcome == "provider_error"


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
    error = failing(gateway, dialect, f"{provider}/instant", stream=stream, retries=2)
    assert error.status_code == 502
    assert provider in error.message
    assert sdk_kit.WRONG_KEY[-4:] not in error.message
    twin = stage.anthropic if "claude" in provider else stage.openai
    assert stage.do(lambda: twin.log.total) == 1
    record = gateway.record(error.request_id)
    assert record.outcome == "provider_refused_key"
    assert sdk_kit.WRONG_KEY not in str(record)


def test_passthrough_does_not_tell_of_the_operators_key_either(
    gateway: Gateway, stage: Stage
) -> None:
    told = gateway.ask("/passthrough/wrong-key/models")
    assert told.status == 502
    assert told.json["error"]["code"] == "provider_refused_key"
    assert sdk_kit.WRONG_KEY[-4:] not in told.body.decode()
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
    quoted = " ".join(sdk_kit.PROVIDER_KEYS.values())
    body = json.dumps({"error": {"message": f"Busy: {quoted}!", "type": "server_error"}})
    stage.fault(model, Status(status=500, body=body))
    with pytest.raises(StatusError) as caught:
        ask(gateway, dialect, model)
    own = {"anthropic": sdk_kit.ANTHROPIC_KEY, "azure": sdk_kit.AZURE_KEY}.get(
        model.partition("/")[0], sdk_kit.OPENAI_KEY
    )
    error: Any = caught.value
    assert own not in error.message + str(error.body)
    assert "Busy" in error.message
    record = gateway.record(error.request_id)
    assert all(key not in str(record) for key in sdk_kit.PROVIDER_KEYS.values())


# -- what is no answer -----------------------------------------------------------------------

HTML = f"<html><body>Bad gateway at 10.0.0.7, key {sdk_kit.OPENAI_KEY}</body></html>"


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
    [("closed", "refused"), ("nowhere", "resolve"), ("untrusted", "TLS")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_out_of_reach_is_named(
    gateway: Gateway, dialect: str, provider: str, why: str, stream: bool
) -> None:
    error = failing(gateway, dialect, f"{provider}/any", stream=stream)
    assert error.status_code == 502
    assert f"provider {provider}" in error.message
    assert why in error.message
    assert gateway.record(error.request_id).outcome == "provider_unreachable"


def test_passthrough_names_it_too(gateway: Gateway) -> None:
    told = gateway.ask("/passthrough/closed/models")
    assert told.status == 502
    assert "closed" in told.json["error"]["message"]
    assert gateway.ask("/passthrough/nobody/models").status == 404


def test_a_provider_that_answers_too_late_is_named(gateway: Gateway, stage: Stage) -> None:
    """All ways at once: each waits for the limit of three seconds."""

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


# -- streams that break ----------------------------------------------------------------------


def broken(
    gateway: Gateway, dialect: str, model: str, **more: Any
) -> tuple[list[Any], Exception, Record]:
    """What came of a stream before the SDK raised, what it raised, and the record."""
    events: list[Any] = []
    asked = {**ASK, **more}
    with gateway.openai() as sdk, gateway.anthropic() as claude:
        if dialect == "openai":
            stream: Any = sdk.chat.completions.create(model=model, stream=True, **asked)
        else:
            stream = claude.messages.create(model=model, stream=True, **asked)
        with pytest.raises(APIError) as caught:
            events.extend(_kept(stream, events))
    return events, caught.value, gateway.record(stream.response.headers["x-request-id"])


def _kept(stream: Any, events: list[Any]) -> Iterator[Any]:
    """Reads a stream into a list that keeps what came before it broke."""
    for event in stream:
        events.append(event)
    yield from ()


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("how", ["close", "rst", "complete"])
def test_a_stream_that_is_cut_raises(
    gateway: Gateway, stage: Stage, dialect: str, model: str, how: Any
) -> None:
    # `complete` is the tidy one: a well-formed end of HTTP without an end of the answer.
    stage.fault(model, Cut(how=how), where="event", after=3)
    asked = cacheable(f"cut {dialect} {how}")
    events, error, record = broken(gateway, dialect, model, **asked)

    assert len(events) >= 3
    assert model.partition("/")[0] in str(error)
    assert record.outcome == "truncated"
    assert record.attempts[0].finish_reason is None
    assert record.usage is not None
    assert record.usage.estimated
    stage.reset()  # half an answer never enters the cache
    assert ask(gateway, dialect, model, stream=True, **asked)
    assert len(stage.seen(model)) == 1


@pytest.mark.parametrize("how", ["close", "rst", "complete"])
def test_a_streamed_response_that_is_cut_raises(gateway: Gateway, stage: Stage, how: Any) -> None:
    stage.fault("openai/", Cut(how=how), where="event", after=3)
    events: list[Any] = []
    with gateway.openai() as sdk:
        stream = sdk.responses.create(model="openai/instant", input="Hi [out:12]", stream=True)
        with pytest.raises(openai.APIError, match="openai"):
            events.extend(_kept(stream, events))
    assert [e.type for e in events].count("response.output_text.delta") == 3
    assert gateway.record(stream.response.headers["x-request-id"]).outcome == "truncated"


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_a_tool_call_that_is_cut_raises(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    if dialect == "openai":
        function = {"name": "weather", "parameters": schema}
        more: Any = {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "required",
        }
    else:
        tool = {"name": "weather", "input_schema": schema}
        more = {"tools": [tool], "tool_choice": {"type": "any"}}
    stage.fault(model, Cut(how="complete"), where="event", after=1)
    events, _, _ = broken(gateway, dialect, model, **more)
    told = " ".join(event.to_json(indent=None) for event in events)
    assert "weather" in told
    assert '"tool_use"' not in [getattr(e, "stop_reason", "") for e in events]


@pytest.mark.parametrize(("dialect", "model"), WAYS)
@pytest.mark.parametrize("after", [0, 3])
def test_an_error_in_a_stream_raises_with_its_words(
    gateway: Gateway, stage: Stage, dialect: str, model: str, after: int
) -> None:
    stage.fault(model, Error(message="The moon is full."), where="event", after=after)
    _, error, record = broken(gateway, dialect, model)
    assert "The moon is full." in str(error)
    assert record.outcome == "provider_error"


@pytest.mark.parametrize(("dialect", "model"), WAYS)
def test_an_event_that_is_no_json_ends_the_stream(
    gateway: Gateway, stage: Stage, dialect: str, model: str
) -> None:
    junk = 'data: {"choices":[{"delta":{"content":"half\n\n'
    if model.startswith("anthropic"):
        junk = "event: content_block_delta\n" + junk
    stage.fault(model, Write(text=junk), where="event", after=2)
    model = model.replace("instant", "slow")  # each event in a packet of its own
    events, error, record = broken(gateway, dialect, model)
    assert len(events) >= 2
    assert "half" not in str(error)
    assert record.outcome in ("bad_answer", "provider_error")
    assert "JSON" in record.error or "API promises" in record.error


def test_streams_that_stall_raise(gateway: Gateway, stage: Stage) -> None:
    """All ways at once: each waits for the limit of three seconds. Comments are no progress."""
    for model in ("openai/", "anthropic/"):
        stage.fault(model, Stall(comment_every_s=0.5), where="event", after=2)

    async def drain(opening: Any) -> Any:
        return [event async for event in await opening]

    async def main() -> list[Any]:
        async with gateway.openai_async() as sdk, gateway.anthropic_async() as claude:
            more: Any = {"messages": USER, "stream": True}
            return await asyncio.gather(
                *(
                    drain(sdk.chat.completions.create(model=f"{provider}/instant", **more))
                    for provider in ("openai", "anthropic")
                ),
                *(
                    drain(claude.messages.create(model=f"{p}/instant", max_tokens=99, **more))
                    for p in ("openai", "anthropic")
                ),
                return_exceptions=True,
            )

    for error in asyncio.run(main()):
        assert isinstance(error, APIError)
        assert "stalled" in str(error)


def test_a_finish_reason_without_a_terminator_is_a_good_end(gateway: Gateway, stage: Stage) -> None:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    said = ("data: " + json.dumps(chunk | {"choices": [choice]}) + "\n\n").encode()
    stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
    with gateway.openai() as sdk:
        chunks = list(sdk.chat.completions.create(model="bare/any", messages=USER, stream=True))
    assert [c.choices[0].finish_reason for c in chunks] == ["stop"]


def test_a_response_that_failed_is_recorded_as_failed(gateway: Gateway, stage: Stage) -> None:
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "failed",
        "error": {"code": "server_error", "message": "The moon is full."},
        "model": "any",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    stage.bare.answer = lambda _: (200, [], json.dumps(response).encode(), "application/json")
    with gateway.openai() as sdk:
        answer = sdk.responses.create(model="bare/any", input="Hello")
        assert answer.status == "failed"  # the SDK has a word for it: it passes as it is
        assert answer._request_id is not None
        assert gateway.record(answer._request_id).outcome == "provider_error"

        event = {"type": "response.failed", "sequence_number": 0, "response": response}
        said = f"event: response.failed\ndata: {json.dumps(event)}\n\n".encode()
        stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
        stream = sdk.responses.create(model="bare/any", input="Hello", stream=True)
        assert [event.type for event in stream] == ["response.failed"]
        request_id = stream.response.headers["x-request-id"]
    assert gateway.record(request_id).outcome == "provider_error"


def test_a_file_that_is_cut_short_does_not_look_whole(gateway: Gateway, stage: Stage) -> None:
    stage.fault("openai/", Cut(how="close"), where="first")
    body = json.dumps({"model": "instant", "messages": USER})
    connection = http.client.HTTPConnection(*gateway.address, timeout=30)
    sent = {"content-type": "application/json"}
    connection.request("POST", "/passthrough/openai/v1/chat/completions", body, sent)
    answer = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    request_id = answer.getheader("x-request-id")
    assert request_id is not None
    record = gateway.record(request_id)
    assert (record.endpoint, record.outcome) == ("passthrough", "truncated")
