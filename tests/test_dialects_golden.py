"""The conversions against answers reviewed by hand, one file a case, and against the graders.

A file of tests/golden/dialects holds what goes in, what comes out or how it is refused, and
why the case is there. Several small cases may share a file, under `cases`.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from dialects_kit import (
    GOLDEN,
    Json,
    body,
    chat_stream,
    check_chat,
    check_chat_request,
    check_chunks,
    check_message,
    check_message_events,
    check_message_request,
    events,
    messages_stream,
    parsed,
    through,
)
from forebay.dialects.chat_to_messages import ChatToMessages
from forebay.dialects.messages_to_chat import MessagesToChat
from forebay.dialects.translation import Finding, Translation
from forebay.errors import Failure
from forebay.exchange import Ask


def cases(kind: str) -> list[Any]:
    found = []
    for path in sorted(GOLDEN.glob(f"{kind}-*.json")):
        held = json.loads(path.read_text())
        for at, case in enumerate(held.get("cases", [held])):
            name = f"{path.stem}-{at}" if "cases" in held else path.stem
            found.append(pytest.param(case, id=name))
    assert found, f"no golden cases of {kind}"
    return found


def chat_to_messages() -> Translation:
    return ChatToMessages(answer_id="ex_1", created_s=1_700_000_000)


def messages_to_chat() -> Translation:
    return MessagesToChat(answer_id="ex_1")


def shown(finding: Finding) -> Json:
    usage = finding.usage
    counts = {name: getattr(usage, name) for name in usage.__struct_fields__} if usage else None
    return {
        "usage": counts and {name: count for name, count in counts.items() if count},
        "finish_reason": finding.finish_reason,
        "model": finding.model,
        "progress": finding.progress,
        "error": finding.error,
        "closed": finding.closed,
    }


def refused(case: Json, attempt: Callable[[], object]) -> bool:
    """Whether the case is one that must be refused, and was, in the words expected."""
    if "failure" not in case:
        return False
    with pytest.raises(Failure) as caught:
        attempt()
    failure = caught.value
    told = {"code": failure.code.name, "param": failure.param, "says": str(failure)}
    assert told == {"param": None} | case["failure"]
    return True


def converted_request(translation: Translation, case: Json) -> bytes:
    ask = Ask(model="asked", stream=case.get("stream", False))
    request = translation.request(parsed(case["in"]), ask, case["model"])
    assert isinstance(request, bytes)
    return request


@pytest.mark.parametrize("case", cases("chat_to_messages"))
def test_a_chat_request_becomes_a_messages_request(case: Json) -> None:
    if refused(case, lambda: converted_request(chat_to_messages(), case)):
        return
    request = converted_request(chat_to_messages(), case)
    assert json.loads(request) == case["out"]
    check_message_request(request)


@pytest.mark.parametrize("case", cases("messages_to_chat"))
def test_a_messages_request_becomes_a_chat_request(case: Json) -> None:
    if refused(case, lambda: converted_request(messages_to_chat(), case)):
        return
    request = converted_request(messages_to_chat(), case)
    assert json.loads(request) == case["out"]
    check_chat_request(request)


@pytest.mark.parametrize("case", cases("answers_as_chat_whole"))
def test_a_message_becomes_a_completion(case: Json) -> None:
    given, ask = body(case["in"]), Ask(model="asked")
    if refused(case, lambda: chat_to_messages().whole(given, ask)):
        return
    answer, finding = chat_to_messages().whole(given, ask)
    assert json.loads(answer) == case["out"]
    assert shown(finding) == case["finding"]
    check_chat(answer)


@pytest.mark.parametrize("case", cases("answers_as_messages_whole"))
def test_a_completion_becomes_a_message(case: Json) -> None:
    given, ask = body(case["in"]), Ask(model="asked")
    if refused(case, lambda: messages_to_chat().whole(given, ask)):
        return
    answer, finding = messages_to_chat().whole(given, ask)
    assert json.loads(answer) == case["out"]
    assert shown(finding) == case["finding"]
    check_message(answer)


@pytest.mark.parametrize("case", cases("answers_as_chat_stream"))
def test_message_events_become_chunks(case: Json) -> None:
    ask = Ask(model="asked", stream=True, include_usage=case.get("include_usage", False))
    given = messages_stream(*case["in"])
    for cuts in ((), range(1, len(given))):  # whole, and byte by byte
        stream = chat_to_messages().stream(ask)
        out = through(stream, given, *cuts)
        assert events(out) == case["out"]
        assert shown(stream.finding) == case["finding"]
    check_chunks(out)


@pytest.mark.parametrize("case", cases("answers_as_messages_stream"))
def test_chunks_become_message_events(case: Json) -> None:
    given = chat_stream(*case["in"])
    for cuts in ((), range(1, len(given))):
        stream = messages_to_chat().stream(Ask(model="asked", stream=True))
        out = through(stream, given, *cuts)
        assert events(out) == case["out"]
        assert shown(stream.finding) == case["finding"]
    check_message_events(out)
