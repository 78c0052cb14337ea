"""The exact cache as callers meet it: the same question is asked of a provider once.

Whether the provider was asked is read from the provider, not from a header of ours.
"""

import json
from typing import Any

import anthropic
import openai
import pytest

import sdk_kit
from forebay.testbed.twins.faults import Status
from sdk_kit import Gateway, Reply
from sdk_stage import USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

MODELS = ["openai/instant", "azure/gpt-azure", "anthropic/instant"]


def question(label: str) -> dict[str, Any]:
    """A deterministic request of a test's own: the cache outlives the test."""
    return {"messages": [{"role": "user", "content": f"{label} [out:12]"}], "temperature": 0}


def asked(stage: Stage, model: str) -> int:
    return stage.do(lambda: stage.twin(model).log.total)


def answer_of(reply: Reply) -> tuple[str, str, str, Any]:
    """Text, finish reason, id and usage of an answer in any form of either dialect."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        body = reply.json
        if "choices" in body:
            choice = body["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], body["id"], body["usage"]
        return body["content"][0]["text"], body["stop_reason"], body["id"], body["usage"]
    text, finish, identity = "", "", set()
    usage: Any = None
    for event in reply.data:
        if event == "[DONE]":
            continue
        if event.get("object") == "chat.completion.chunk":
            identity.add(event["id"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
        elif event["type"] == "message_start":
            identity.add(event["message"]["id"])
            usage = event["message"]["usage"]
        elif event["type"] == "content_block_delta":
            text += event["delta"]["text"]
        elif event["type"] == "message_delta":
            finish = event["delta"]["stop_reason"]
            usage = {**usage, **{k: v for k, v in event["usage"].items() if v is not None}}
    (only,) = identity
    return text, finish, only, usage


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("first", [False, True])
def test_one_entry_serves_both_forms(
    gateway: Gateway, stage: Stage, dialect: str, model: str, first: bool
) -> None:
    ask = gateway.chat if dialect == "openai" else gateway.messages
    same = question(f"forms {dialect} {first}")
    usage: Any = {"stream_options": {"include_usage": True}} if dialect == "openai" else {}
    whole = {"stream": False}
    streamed = {"stream": True, **usage}
    forms = [streamed, whole, streamed] if first else [whole, streamed, whole]

    replies = [ask(model, **same, **form) for form in forms]

    assert asked(stage, model) == 1
    assert [r.headers["x-forebay-cache"] for r in replies] == ["miss", "exact", "exact"]
    answers = [answer_of(reply) for reply in replies]
    assert len({(text, finish) for text, finish, *_ in answers}) == 1
    assert len(answers[0][0]) == 48
    assert len({identity for *_, identity, _ in answers}) == 3  # a fresh one each time
    counted = [
        {name: n for name, n in usage.items() if name.endswith("_tokens") and n}
        for *_, usage in answers
    ]
    assert counted[0] == counted[1] == counted[2]
    for reply, form in zip(replies, forms, strict=True):
        assert (reply.body.endswith(b"data: [DONE]\n\n")) == (
            form["stream"] and dialect == "openai"
        )
    records = [gateway.record(reply.headers["x-request-id"]) for reply in replies]
    assert [record.cache for record in records] == ["miss", "exact", "exact"]
    assert records[1].cache_source == records[2].cache_source == records[0].id
    assert [record.usage for record in records] == [records[0].usage] * 3
    assert [len(record.attempts) for record in records] == [1, 0, 0]
    assert replies[1].headers["x-forebay-cost-usd"] == "0"
    # The form the caller did not wait for is no less of an answer to its SDK.
    assert records[1].draws == [answers[1][2]]


@pytest.mark.parametrize("model", MODELS)
def test_a_usage_chunk_is_for_those_who_ask(gateway: Gateway, stage: Stage, model: str) -> None:
    same = question("usage chunk") | {"stream": True}
    plain = [gateway.chat(model, **same) for _ in range(2)]
    asking = gateway.chat(model, **same, stream_options={"include_usage": True})

    assert asked(stage, model) == 1
    assert b'"choices":[]' not in plain[0].body + plain[1].body
    assert asking.data[-2]["choices"] == []
    assert asking.data[-2]["usage"]["completion_tokens"] == 12


def test_the_sdks_read_answers_from_the_cache(gateway: Gateway, stage: Stage) -> None:
    same: Any = question("sdk")["messages"]
    with gateway.openai() as sdk:
        ids, texts = set(), set()
        for _ in range(3):
            whole = sdk.chat.completions.create(
                model="openai/instant", messages=same, temperature=0
            )
            ids.add(whole.id)
            texts.add(whole.choices[0].message.content)
            with sdk.chat.completions.stream(
                model="openai/instant", messages=same, temperature=0
            ) as stream:
                for _event in stream:
                    pass
                final = stream.get_final_completion()
            ids.add(final.id)
            texts.add(final.choices[0].message.content)
    assert (len(ids), len(texts)) == (6, 1)
    with gateway.anthropic() as claude:
        cold: Any = {"temperature": 0}  # the SDK has no word for it any more
        for _ in range(2):
            message = claude.messages.create(
                model="openai/instant", max_tokens=99, messages=same, extra_body=cold
            )
            with claude.messages.stream(
                model="openai/instant", max_tokens=99, messages=same, extra_body=cold
            ) as events:
                final_text = [
                    b.text for b in events.get_final_message().content if b.type == "text"
                ]
            assert final_text == [b.text for b in message.content if b.type == "text"]
    assert asked(stage, "openai/") == 2  # a limit on the answer makes it another question


def test_a_tool_call_is_cached_whole(gateway: Gateway, stage: Stage) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "required": ["a"]}},
    }
    same = question("tool") | {"tools": [tool], "tool_choice": "required"}
    first = gateway.chat("openai/instant", **same)
    again = gateway.chat("openai/instant", **same, stream=True)
    assert again.headers["x-forebay-cache"] == "exact"
    call = first.json["choices"][0]["message"]["tool_calls"][0]
    fragments = [
        delta["tool_calls"][0]
        for event in again.data[:-1]
        for choice in event["choices"]
        if (delta := choice["delta"]).get("tool_calls")
    ]
    arguments = "".join(f["function"].get("arguments", "") for f in fragments)
    assert arguments == call["function"]["arguments"]
    assert fragments[0]["id"] == call["id"]


def test_embeddings_are_always_deterministic(gateway: Gateway, stage: Stage) -> None:
    with gateway.openai() as sdk:
        twice = [
            sdk.embeddings.with_raw_response.create(model="openai/embedding", input="the weir")
            for _ in range(2)
        ]
        floats = sdk.embeddings.with_raw_response.create(
            model="openai/embedding", input="the weir", encoding_format="float"
        )
    assert [got.headers["x-forebay-cache"] for got in twice] == ["miss", "exact"]
    assert twice[0].content == twice[1].content
    assert floats.headers["x-forebay-cache"] == "miss"  # another form is another answer
    assert asked(stage, "openai/") == 2


# -- what callers can ask of it --------------------------------------------------------------


def test_on_off_and_refresh(gateway: Gateway, stage: Stage) -> None:
    warm = {**question("wishes"), "temperature": 1}

    def ask(wish: str | None, body: dict[str, Any] = warm) -> str:
        headers = {} if wish is None else {"x-forebay-cache": wish}
        told = gateway.chat("openai/instant", **body, headers=headers).headers["x-forebay-cache"]
        return f"{told} {asked(stage, 'openai/')}"

    assert ask(None) == "bypass 1"
    assert ask("on") == "miss 2"
    assert ask("on") == "exact 2"
    assert ask("ON") == "exact 2"
    assert ask("refresh") == "refresh 3"
    assert ask("on") == "exact 3"
    assert ask("off") == "bypass 4"
    assert ask(None) == "bypass 5"
    cold = question("wishes, deterministic")
    assert ask("off", cold) == "bypass 6"
    assert ask(None, cold) == "miss 7"
    assert ask(None, cold) == "exact 7"


def test_refresh_replaces_the_entry(gateway: Gateway, stage: Stage) -> None:
    same = question("refresh")
    first = gateway.chat("openai/instant", **same)
    chunk = json.loads(first.body)
    chunk["choices"][0]["message"]["content"] = "Newer."
    stage.answers("openai/instant", json.dumps(chunk))
    gateway.chat("openai/instant", **same, headers={"x-forebay-cache": "refresh"})
    got = gateway.chat("openai/instant", **same)
    assert answer_of(got)[0] == "Newer."
    assert got.headers["x-forebay-cache"] == "exact"


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_any_other_wish_is_refused(gateway: Gateway, stage: Stage, dialect: str) -> None:
    wish = {"x-forebay-cache": "maybe"}
    if dialect == "openai":
        with gateway.openai() as sdk, pytest.raises(openai.BadRequestError, match="maybe"):
            sdk.chat.completions.create(model="openai/instant", messages=USER, extra_headers=wish)
    else:
        with gateway.anthropic() as claude, pytest.raises(anthropic.BadRequestError, match="maybe"):
            claude.messages.create(
                model="openai/instant", max_tokens=9, messages=USER, extra_headers=wish
            )
    assert asked(stage, "openai/") == 0


# -- what enters, and who gets it ------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"seed": 2},
        {"max_tokens": 11},
        {"user": "somebody"},
        {"x_new": None},
        {"model": "openai/limited"},
        {"stop": ["end"]},
    ],
)
def test_whatever_can_change_the_answer_makes_another_question(
    gateway: Gateway, stage: Stage, change: dict[str, Any]
) -> None:
    same = question("change") | {"model": "openai/instant"}
    gateway.ask("/v1/chat/completions", same)  # perhaps from an earlier round: no matter
    stage.reset()
    other = question("change") | {"model": "openai/instant"} | change
    got = gateway.ask("/v1/chat/completions", other)
    assert got.status == 200
    assert asked(stage, "openai/") == 1


def test_a_header_that_goes_up_makes_another_question(gateway: Gateway, stage: Stage) -> None:
    same = question("beta")
    for beta in ("a", "b", "a"):
        gateway.messages("anthropic/instant", **same, headers={"anthropic-beta": beta})
    assert asked(stage, "anthropic/") == 2


def test_errors_and_filtered_answers_do_not_enter(gateway: Gateway, stage: Stage) -> None:
    for label, what in (
        ("status", Status(status=500)),
        ("filtered", Status(status=200, body=_filtered("content_filter"))),
        ("unfinished", Status(status=200, body=_filtered(None))),
    ):
        stage.fault("openai/instant", what)
        gateway.chat("openai/instant", **question(f"entering {label}"))
        stage.reset()
        again = gateway.chat("openai/instant", **question(f"entering {label}"))
        assert (label, again.headers["x-forebay-cache"]) == (label, "miss")
        assert asked(stage, "openai/") == 1


def _filtered(reason: str | None) -> str:
    message = {"role": "assistant", "content": "I must not."}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "instant"}
    return json.dumps({**head, "choices": [choice]})


def test_another_projects_key_never_gets_it(gateway: Gateway, stage: Stage) -> None:
    _, ours = gateway.new_key(project="ours")
    _, ours_too = gateway.new_key(project="ours")
    _, theirs = gateway.new_key(project="theirs", team="others")
    same = question("tenants")

    def ask(key: str) -> str:
        headers = {"authorization": f"Bearer {key}"}
        return gateway.chat("openai/instant", **same, headers=headers).headers["x-forebay-cache"]

    assert [ask(ours), ask(ours_too)] == ["miss", "exact"]
    assert ask(theirs) == "miss"
    assert ask("none at all") == "miss"
    assert [ask(theirs), ask(ours)] == ["exact", "exact"]
    assert asked(stage, "openai/") == 3

    def hit() -> bool:
        found = {line.project for line in gateway.lines() if line.cache == "exact"}
        return {"ours", "theirs"} <= found

    sdk_kit.eventually(hit, "the hits were not recorded under their projects")
