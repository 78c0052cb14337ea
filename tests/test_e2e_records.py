"""What is kept of requests, read as an operator reads it: the command, the store, the files.

And what is not kept. The providers' keys and the gateway's own are planted wherever a caller
or a provider can put something; then every byte in the installation's home is searched, packed
ones unpacked, and everything it printed.
"""

import hashlib
import json
import os
import re
from typing import Any

import pytest

import sdk_kit
from forebay.testbed.twins.faults import Status, Write
from sdk_kit import Gateway
from sdk_stage import ANTHROPIC_KEY, OPENAI_KEY, PROVIDER_KEYS, USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage


def shown(gateway: Gateway, request_id: str) -> Any:
    gateway.record(request_id)  # it is written a moment after the answer
    return json.loads(gateway.forebay("trace", "show", "--json", request_id))


def test_a_trace_holds_both_wires_and_what_was_decided(gateway: Gateway, stage: Stage) -> None:
    """The whole of one, by the command: a caller of one dialect, a provider of the other."""
    body = {"model": "claude", "messages": USER, "stream": True, "temperature": 0.5}
    got = gateway.ask("/v1/chat/completions", body, user_agent="a test")
    trace = shown(gateway, got.headers["x-request-id"])
    seen = stage.one("anthropic/")

    assert trace["model"] == "claude"
    assert trace["route"] == "name claude"
    assert (trace["status"], trace["outcome"], trace["cache"]) == (200, "ok", "bypass")
    assert json.loads(trace["request"]["text"]) == body
    assert trace["reply"]["text"].encode() == got.body
    assert ["user-agent", "a test"] in trace["headers"]
    assert ["x-request-id", trace["id"]] in trace["reply_headers"]
    (attempt,) = trace["attempts"]
    assert (attempt["provider"], attempt["model"]) == ("anthropic", "instant")
    assert (attempt["path"], attempt["finish_reason"]) == ("/v1/messages", "end_turn")
    assert attempt["sent"]["text"].encode() == seen.body
    assert attempt["answer"]["text"].encode() == bytes(seen.sent)
    ends = [chunk["end"] for chunk in attempt["answer"]["chunks"]]
    assert ends == sorted(ends)
    assert ends[-1] == len(seen.sent)
    usage = trace["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (7, 12, False)
    marks = [trace[f"{mark}_ns"] for mark in ("identified", "decoded", "planned")]
    marks += [attempt[f"{mark}_ns"] for mark in ("started", "head", "first", "ended")]
    assert marks == sorted(marks)
    assert marks[0] > 0
    assert trace["ended_ns"] >= attempt["first_ns"]


def test_the_list_tells_how_each_request_ended(gateway: Gateway, stage: Stage) -> None:
    _, secret = gateway.new_key(project="listed")
    mine = {"authorization": f"Bearer {secret}"}
    asked = {
        "ok": gateway.chat(headers=mine, temperature=0),
        "hit": gateway.chat(headers=mine, stream=True, temperature=0),
        "priced": gateway.messages("claude-haiku-4-5", headers=mine),
        "unknown_model": gateway.chat("no-such-model", headers=mine),
        "bad_json": gateway.ask("/v1/chat/completions", b"{", **mine),
        "provider_unreachable": gateway.chat("closed/x", headers=mine),
    }
    stage.fault("openai/", Status(status=500))
    asked["provider_error"] = gateway.chat(headers=mine)
    ids = {reply.headers["x-request-id"]: name for name, reply in asked.items()}
    for request_id in ids:
        gateway.record(request_id)

    listed = json.loads(gateway.forebay("trace", "list", "--json", "--project", "listed"))
    # (The key was tried before it was used.)
    lines = {ids[line["id"]]: line for line in listed["traces"] if line["id"] in ids}
    assert set(lines) == set(asked)
    assert {name: line["outcome"] for name, line in lines.items()} == {
        name: "ok" if name in ("ok", "hit", "priced") else name for name in asked
    }
    assert {name: line["status"] for name, line in lines.items()} == {
        name: reply.status for name, reply in asked.items()
    }
    assert (lines["hit"]["cache"], lines["hit"]["attempts"]) == ("exact", 0)
    assert (lines["hit"]["tokens_out"], lines["hit"]["cost_nusd"]) == (12, 0)
    assert lines["priced"]["provider"] == "anthropic"
    failed = json.loads(gateway.forebay("trace", "list", "--json", "--outcome", "failed"))
    assert {line["outcome"] for line in failed["traces"]}.isdisjoint({"ok", "cancelled"})
    plain = gateway.forebay("trace", "list", "--project", "listed")
    assert all(request_id in plain for request_id in ids)


def test_people_can_read_one(gateway: Gateway) -> None:
    got = gateway.chat("openai/instant")
    gateway.record(got.headers["x-request-id"])
    text = gateway.forebay("trace", "show", got.headers["x-request-id"])
    assert "What is a forebay?" in text
    assert got.json["choices"][0]["message"]["content"] in text


def test_every_record_is_in_the_segments(gateway: Gateway) -> None:
    ids = [gateway.chat().headers["x-request-id"] for _ in range(5)]
    for request_id in ids:
        gateway.record(request_id)
    kept = b"".join(data for place, data in gateway.everything() if "block at" in place)
    assert all(request_id.encode() in kept for request_id in ids)


@pytest.mark.parametrize(("model", "form"), [("quiet", "off"), ("hashed", "hashed")])
@pytest.mark.parametrize("stream", [False, True])
def test_a_route_can_keep_what_was_said_to_itself(
    gateway: Gateway, model: str, form: str, stream: bool
) -> None:
    secretly = f"a matter between us, {model} {stream}"
    got = gateway.chat(model, messages=[{"role": "user", "content": secretly}], stream=stream)
    record = gateway.record(got.headers["x-request-id"])
    (attempt,) = record.attempts
    assert record.body.form == attempt.body.form == form
    assert record.usage is not None
    assert record.usage.output_tokens == 8
    assert attempt.body.size >= len(got.body)
    if form == "hashed" and not stream:
        assert attempt.body.data == hashlib.sha256(got.body).digest()
    for place, data in gateway.everything():
        assert secretly.encode() not in data, place


# -- canaries --------------------------------------------------------------------------------

MARKER = "marker-7f3a9c"  # stands beside each canary: what finds it would find the canary


def escaped(secret: str) -> str:
    """Every character as JSON may spell it."""
    return "".join(f"\\u{ord(char):04x}" for char in secret)


def percented(secret: str) -> str:
    return "".join(f"%{ord(char):02X}" for char in secret)


def plant(gateway: Gateway, stage: Stage, secret: str) -> list[str]:
    """Put a secret wherever one can be put; the ids of the requests that carried it."""
    quoting = [{"role": "user", "content": f"{MARKER} my key is {secret}, yes [out:3]"}]
    nested = json.dumps({"key": secret, "marker": MARKER})
    call = {"name": "f", "arguments": nested}
    replies = [
        gateway.chat(messages=quoting),
        gateway.chat(messages=quoting, stream=True),
        gateway.chat("anthropic/instant", messages=quoting, temperature=0),
        gateway.messages("anthropic/instant", messages=quoting, stream=True),
        gateway.messages("openai/instant", messages=quoting),
        gateway.ask(
            "/v1/chat/completions",
            b'{"model":"openai/instant","messages":[{"role":"user","content":"%b %b"}]}'
            % (MARKER.encode(), escaped(secret).encode()),
        ),
        gateway.chat(
            messages=[
                *USER,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "x"},
            ]
        ),
        gateway.chat(f"openai/{secret}"),
        gateway.chat(f"no-{secret}"),
        gateway.chat(extra_field={secret: MARKER}, user=secret),
        gateway.chat(
            headers={
                "user-agent": f"agent {secret}",
                "idempotency-key": secret,
                "openai-project": secret,
                "x-forebay-note": secret,
                "cookie": secret,
                "authorization": f"Bearer {secret}",
            }
        ),
        gateway.ask("/v1/chat/completions", f"{MARKER} {secret} no JSON".encode()),
        gateway.ask("/v1/embeddings", {"model": "openai/embedding", "input": f"{MARKER} {secret}"}),
        gateway.ask("/v1/responses", {"model": "openai/instant", "input": f"{MARKER} {secret}"}),
        gateway.ask(f"/passthrough/bare/{percented(secret)}?key={secret}&k={percented(secret)}"),
        gateway.ask(f"/passthrough/bare/{MARKER}", f"{secret}".encode()),
    ]
    for unrecorded in (f"/v1/{secret}", f"/v1/models/{secret}"):
        assert gateway.ask(unrecorded).status == 404
    # What a provider may say.
    for what in (
        Status(status=401, body=json.dumps({"error": {"message": f"wrong key {secret}"}})),
        Status(status=400, body=json.dumps({"error": {"message": f"{MARKER} not {secret}"}})),
        Status(status=502, body=f"<html>{MARKER} {secret}</html>", content_type="text/html"),
        Status(status=200, body=f"{MARKER} {secret}"),
        Status(status=200, headers={"openai-organization": secret}, body='{"choices":[]}'),
    ):
        stage.fault("openai/instant", what)
        replies += [gateway.chat(), gateway.messages("openai/instant"), gateway.chat(stream=True)]
    said = json.dumps({"choices": [{"index": 0, "delta": {"content": secret}}], "m": MARKER})
    stage.fault("openai/instant", Write(text=f"data: {said}\n\n"), where="first")
    replies.append(gateway.chat(stream=True))
    stage.reset()
    return [reply.headers["x-request-id"] for reply in replies]


def test_no_key_is_ever_written_or_printed(gateway: Gateway, stage: Stage) -> None:
    _, admin = gateway.new_key(role="admin")
    _, caller = gateway.new_key(project="canaries")
    secrets = {**PROVIDER_KEYS, "admin": admin, "caller": caller, "first": gateway.up.admin_key}
    for secret in (OPENAI_KEY, ANTHROPIC_KEY, caller):
        for request_id in plant(gateway, stage, secret):
            gateway.record(request_id)

    spellings = {
        f"{name}, {how}": spell(secret).encode()
        for name, secret in secrets.items()
        for how, spell in (("plain", str), ("escaped", escaped), ("percented", percented))
        # The gateway's own are known by their shape alone, spelled as they are.
        if how == "plain" or name in PROVIDER_KEYS
    }
    marked = 0
    for place, data in gateway.everything():
        marked += data.count(MARKER.encode())
        for name, spelling in spellings.items():
            assert spelling not in data, f"{name} key in {place}"
            assert spelling.lower() not in data.lower(), f"{name} key in {place}"
    assert marked > 40  # the search does find what was said beside the keys
    metrics = gateway.ask("/metrics").body
    output = printed(gateway)
    for name, spelling in spellings.items():
        assert spelling not in metrics + output, name
    # What was not a key of anybody's was left alone.
    assert re.search(rb"\[secret:gateway-key\]", b"".join(d for _, d in gateway.everything()))


def printed(gateway: Gateway) -> bytes:
    """What the command wrote to its output since it said where it listens."""
    out = gateway.up.process.stdout
    assert out is not None
    os.set_blocking(out.fileno(), False)
    try:
        return os.read(out.fileno(), 1 << 20)
    except BlockingIOError:
        return b""
