"""Converted streams as the official SDKs read and accumulate them, over their own clients."""

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from dialects_kit import GOLDEN, chat_stream, messages_stream, through
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.dialects.stitch import assemble_chat, assemble_messages
from forebay.exchange import Ask

ASK = Ask(model="asked", stream=True, include_usage=True)


def finished(kind: str) -> list[Any]:
    """What goes in, of the golden streams that come to an end."""
    found = []
    for path in sorted(GOLDEN.glob(f"{kind}_stream-*.json")):
        case = json.loads(path.read_text())
        if case["finding"]["finish_reason"] and not case["finding"]["error"]:
            found.append(pytest.param(case["in"], id=path.stem))
    assert found
    return found


def streaming(answer: bytes) -> Any:
    headers = {"content-type": "text/event-stream"}
    return httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=answer))


@pytest.mark.parametrize("sent", finished("answers_as_messages"))
def test_anthropics_sdk_accumulates_what_we_assemble(sent: list[Any]) -> None:
    converted = through(MessagesToChat("ex_1").stream(ASK), chat_stream(*sent))
    transport = streaming(converted)
    with (
        anthropic.Anthropic(
            api_key="k", http_client=anthropic.DefaultHttpxClient(transport=transport)
        ) as client,
        client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        message = stream.get_final_message()
    # The SDK adds to a text block what it parsed from it, for whoever asked for a format.
    got = message.to_dict(mode="json", exclude_unset=False)
    for block in got["content"]:  # type: ignore[attr-defined]
        for own in ("parsed_output", "toolset_name"):
            block.pop(own, None)
    assert got == json.loads(assemble_messages(converted))


@pytest.mark.parametrize("sent", finished("answers_as_chat"))
def test_openais_sdk_accumulates_what_we_assemble(sent: list[Any]) -> None:
    converted = through(ChatToMessages("ex_1", 7).stream(ASK), messages_stream(*sent))
    with (
        openai.OpenAI(
            api_key="k", http_client=openai.DefaultHttpxClient(transport=streaming(converted))
        ) as client,
        client.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        for _ in stream:
            pass
        # Not the final completion: the SDK raises there where an answer was cut or filtered.
        choice = stream.current_completion_snapshot.choices[0]
    expected = json.loads(assemble_chat(converted))["choices"][0]
    said = expected["message"]
    assert choice.finish_reason == expected["finish_reason"]
    assert (choice.message.content, choice.message.refusal) == (said["content"], said["refusal"])
    calls = [
        (call.id, call.function.name, call.function.arguments)
        for call in choice.message.tool_calls or ()
    ]
    assert calls == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in said.get("tool_calls", ())
    ]
