"""Failures on the wire: SDKs raise where they meet them, and nothing leaks from a provider."""

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects_kit import (
    Json,
    body,
    chat_stream,
    check_anthropic_error,
    check_openai_error,
    messages_stream,
)
from forebay.dialects import failures
from forebay.errors import CODES, Failure
from forebay.exchange import Dialect

START: Json = {
    "type": "message_start",
    "message": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}
CHUNK: Json = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
}


def answering(status: int, answer: bytes, content_type: str = "application/json") -> Any:
    """A transport that answers so, for an SDK's own client."""
    headers = {"content-type": content_type}
    return httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=answer))


def ask_openai(transport: Any, *, stream: bool) -> None:
    with openai.OpenAI(
        api_key="k", max_retries=0, http_client=openai.DefaultHttpxClient(transport=transport)
    ) as client:
        said = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
        if stream:
            list(said)


def ask_anthropic(transport: Any, *, stream: bool) -> None:
    with anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=anthropic.DefaultHttpxClient(transport=transport)
    ) as client:
        said = client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
        if stream:
            list(said)


@pytest.mark.parametrize("code", CODES)
def test_every_failure_is_an_error_of_both_dialects(code: str) -> None:
    failure = Failure(code, "It failed.", hint="Do this.", param="messages[0]")
    ours = failures.whole(failure, "openai", "req_1")
    check_openai_error(ours)
    error = json.loads(ours)["error"]
    assert error["message"] == "It failed. Do this."
    assert error["param"] == "messages[0]"
    theirs = failures.whole(failure, "anthropic", "req_1")
    checked = check_anthropic_error(theirs)
    assert checked.request_id == "req_1"
    assert checked.error.message == "It failed. Do this."


def test_openais_sdk_raises_the_class_of_the_status() -> None:
    failure = Failure("unknown_model", "No model x.", param="model")
    answer = failures.whole(failure, "openai", "req_1")
    with pytest.raises(openai.NotFoundError) as raised:
        ask_openai(answering(404, answer), stream=False)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    assert raised.value.type == "invalid_request_error"


def test_anthropics_sdk_raises_the_class_of_the_status() -> None:
    answer = failures.whole(Failure("missing_key", "No key."), "anthropic", "req_1")
    with pytest.raises(anthropic.AuthenticationError) as raised:
        ask_anthropic(answering(401, answer), stream=False)
    assert raised.value.type == "authentication_error"


def test_openais_sdk_raises_in_the_middle_of_a_stream() -> None:
    event = failures.event(Failure("truncated", "Cut off."), "openai", "req_1")
    transport = answering(200, chat_stream(CHUNK) + event, "text/event-stream")
    with pytest.raises(openai.APIError, match="Cut off") as raised:
        ask_openai(transport, stream=True)
    assert raised.value.code == "truncated"


def test_anthropics_sdk_raises_in_the_middle_of_a_stream() -> None:
    event = failures.event(Failure("overloaded", "Too much."), "anthropic", "req_1")
    transport = answering(200, messages_stream(START) + event, "text/event-stream")
    with pytest.raises(anthropic.APIStatusError, match="Too much") as raised:
        ask_anthropic(transport, stream=True)
    assert raised.value.type == "overloaded_error"


# -- a provider's

OPENAI_ERROR = {
    "error": {"message": "Bad n.", "type": "invalid_request_error", "param": "n", "code": "bad_n"}
}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (OPENAI_ERROR, ("invalid_request_error", "bad_n", "Bad n.")),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ("overloaded_error", None, "Overloaded"),
        ),
        ({"error": "no model"}, (None, None, "no model")),
        ({"message": "Forbidden"}, (None, None, "Forbidden")),
        ({"Message": "Bedrock says no"}, (None, None, "Bedrock says no")),
        ({"detail": "Not Found"}, (None, None, "Not Found")),
        ({"detail": [{"loc": ["n"], "msg": "too big"}]}, (None, None, "too big")),
        ([{"error": {"code": 400, "message": "Gemini says no"}}], (None, None, "Gemini says no")),
        (
            {"object": "error", "message": "vLLM says no", "type": "BadRequestError", "code": 400},
            ("BadRequestError", None, "vLLM says no"),
        ),
        (
            {"error": {"message": "used up", "type": "insufficient_quota", "code": "429"}},
            ("insufficient_quota", None, "used up"),
        ),
    ],
)
def test_errors_of_every_servers_making_are_read(
    given_: object, expected: tuple[str | None, str | None, str]
) -> None:
    assert failures.read(400, body(given_)) == expected


NOTHING = (None, None, "The provider answered with status 502 and no message.")


@pytest.mark.parametrize(
    "given_",
    [
        b"",
        b"<html><body>nginx on host-17</body></html>",
        b" \n<!doctype html>",
        b'{"error": {"message": "<html>host-17</html>"}}',
        b'{"error": {}}',
        b'{"error": null}',
        b"[]",
        b"17",
        b'{"error": {"message": {"a": 1}}}',
    ],
)
def test_html_and_nothing_are_not_passed_on(given_: bytes) -> None:
    assert failures.read(502, given_) == NOTHING


def test_plain_text_is_passed_on_and_long_text_is_cut() -> None:
    assert failures.read(503, b"upstream connect error\n")[2] == "upstream connect error"
    assert len(failures.read(503, b"x" * 10_000)[2]) == failures.MAX_MESSAGE
    assert len(failures.read(503, body({"error": {"message": "x" * 10_000}}))[2]) == 2_000


@pytest.mark.parametrize(
    "secret",
    ["sk-proj-abc***********wxyz", "sk-ant-api03-AbCd_1234", "Bearer abc.def", "AIzaSyA1234567890"],
)
def test_what_looks_like_a_key_is_not_passed_on(secret: str) -> None:
    told = {"error": {"message": f"Incorrect API key provided: {secret}. See the docs."}}
    for given_ in (body(told), secret.encode()):
        kind, code, message = failures.read(401, given_)
        assert secret not in f"{kind} {code} {message}"
        assert "[key]" in message


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(body))
def test_reading_never_raises(given_: bytes) -> None:
    assert failures.read(500, given_)[2]
    for dialect in ("openai", "anthropic"):
        failures.convert(500, given_, dialect, "req_1")


@pytest.mark.parametrize(
    ("status", "said", "dialect", "expected"),
    [
        # (status, type, code) in the caller's dialect
        (529, "overloaded_error", "openai", (503, "server_error", None)),
        (200, "overloaded_error", "openai", (503, "server_error", None)),
        (401, "authentication_error", "openai", (401, "invalid_request_error", "invalid_api_key")),
        (404, "not_found_error", "openai", (404, "invalid_request_error", "model_not_found")),
        (429, "rate_limit_error", "openai", (429, "rate_limit_error", "rate_limit_exceeded")),
        (402, "billing_error", "openai", (402, "insufficient_quota", "insufficient_quota")),
        (400, "invalid_request_error", "openai", (400, "invalid_request_error", None)),
        (504, "timeout_error", "openai", (504, "server_error", None)),
        (503, "server_error", "anthropic", (529, "overloaded_error", None)),
        (429, "requests", "anthropic", (429, "rate_limit_error", None)),
        (429, "insufficient_quota", "anthropic", (402, "billing_error", None)),
        (403, "forbidden", "anthropic", (403, "permission_error", None)),
        (413, "too_large", "anthropic", (413, "invalid_request_error", None)),
        (500, "server_error", "anthropic", (500, "api_error", None)),
    ],
)
def test_a_providers_error_keeps_its_meaning_in_the_other_dialect(
    status: int, said: str, dialect: Dialect, expected: tuple[int, str, str | None]
) -> None:
    told = body({"type": "error", "error": {"type": said, "message": "Because."}})
    converted, answer = failures.convert(status, told, dialect, "req_1")
    error = json.loads(answer)["error"]
    assert (converted, error["type"], error.get("code")) == expected
    assert error["message"] == "Because."
    if dialect == "anthropic":
        check_anthropic_error(answer)
    else:
        check_openai_error(answer)
