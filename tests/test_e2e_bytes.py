"""Bytes that pass must be the bytes that were sent: what the provider saw against what left
here, and what came back against what the provider wrote.

Ordinary JSON proves little. What is sent here is what a parse and a dump would change: order,
white space, escapes, numbers that no float holds.
"""

import gzip
import json
from typing import Any

import pytest

import sdk_kit
from forebay.observe import restore
from sdk_kit import Gateway
from sdk_stage import AZURE_KEY, USER, Stage

gateway, stage = sdk_kit.gateway, sdk_kit.stage

#: `@` stands where the model's name does.
ODD = """{ "messages" :\t[ {"content":"\\u0048i \\ud83d\\ude00 😀 \\/ [out:12]",
   "role" : "user" } ] ,\r\n "big" : 123456789012345678901234567890 , "float":1.10e+2,
 "z":1,"a":[ ],"nested":{"b":1,"b":2,"model":"not mine"}, "model" : "@",
 "null":null ,"tiny":-0.0, "":"empty name" , "max_tokens" : 50 }  """.encode()
TIGHT = b'{"model":"@","max_tokens":50,"messages":[{"role":"user","content":"[out:12]"}],"x":1.0}'
CHAT = "/v1/chat/completions"


def body(template: bytes, model: str) -> bytes:
    return template.replace(b"@", model.encode())


@pytest.mark.parametrize("template", [ODD, TIGHT])
@pytest.mark.parametrize(
    ("path", "model"), [(CHAT, "openai/instant"), ("/v1/messages", "anthropic/instant")]
)
def test_only_the_models_name_is_replaced(
    gateway: Gateway, stage: Stage, path: str, model: str, template: bytes
) -> None:
    sent = body(template, model)
    got = gateway.ask(path, sent, anthropic_version="2023-06-01")
    assert got.status == 200, got.body
    seen = stage.one(model)
    assert seen.body == body(template, "instant")
    assert got.body == bytes(seen.sent)

    record = gateway.record(got.headers["x-request-id"])
    assert restore.request(record).data == sent
    assert restore.sent(record, record.attempts[0]).data == seen.body
    assert restore.reply(record).data == got.body


@pytest.mark.parametrize("template", [ODD, TIGHT])
def test_a_name_that_is_the_providers_own_changes_nothing(
    gateway: Gateway, stage: Stage, template: bytes
) -> None:
    # Bare, it goes to the first provider that lists it; without a stream nothing is added.
    sent = body(template, "instant")
    gateway.ask("/v1/messages", sent, anthropic_version="2023-06-01")
    assert stage.one("anthropic/").body == sent


def test_a_stream_passes_but_for_the_usage_nobody_asked_for(gateway: Gateway, stage: Stage) -> None:
    sent = body(ODD, "openai/instant").replace(b'"z":1', b'"stream" : true')
    got = gateway.ask(CHAT, sent)
    seen = stage.one("openai/")
    added = b',"stream_options":{"include_usage":true}'
    assert seen.body == body(ODD, "instant").replace(b'"z":1', b'"stream" : true').replace(
        b"50 }", b"50 " + added + b"}"
    )
    events = bytes(seen.sent).split(b"\n\n")
    assert b'"choices":[],"usage"' in events[-3]
    assert got.body == b"\n\n".join(events[:-3] + events[-2:])

    record = gateway.record(got.headers["x-request-id"])
    assert restore.sent(record, record.attempts[0]).data == seen.body
    assert record.attempts[0].body.data == seen.sent
    assert restore.reply(record).data == got.body


@pytest.mark.parametrize(
    ("path", "model", "more"),
    [
        (CHAT, "openai/instant", {"stream_options": {"include_usage": True}}),
        ("/v1/messages", "anthropic/instant", {}),
        ("/v1/responses", "openai/instant", {"input": "Hello [out:12]"}),
    ],
)
def test_a_stream_is_the_providers_stream(
    gateway: Gateway, stage: Stage, path: str, model: str, more: dict[str, Any]
) -> None:
    asked = {"model": model, "messages": USER, "max_tokens": 50, "stream": True} | more
    got = gateway.ask(path, asked, anthropic_version="2023-06-01")
    seen = stage.one(model)
    assert got.body == bytes(seen.sent)
    assert json.loads(seen.body) == asked | {"model": "instant"}
    assert restore.reply(gateway.record(got.headers["x-request-id"])).data == got.body


def test_events_in_any_framing_pass(gateway: Gateway, stage: Stage) -> None:
    """CRLF, comments, retry lines, data over two lines, a BOM, a blank run."""
    choice = '{"index":0,"delta":{"content":"é€😀"},"finish_reason":null}'
    last = '{"index":0,"delta":{},"finish_reason":"stop"}'
    said = (
        "\ufeff: hello\r\n\r\nretry: 5\r\n\r\n\r\n"
        f'id: 7\r\ndata: {{"id":"c","model":"any",\r\ndata: "choices":[{choice}]}}\r\n\r\n'
        f'data:{{"id":"c","choices":[{last}]}}\n\n: bye\n\ndata: [DONE]\n\n'
    ).encode()
    stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
    got = gateway.chat("bare/any", stream=True)
    assert got.body == said
    assert got.headers["content-type"].startswith("text/event-stream")


CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
END = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "said",
    [
        CHUNK,
        CHUNK + CHUNK[:-20],
        CHUNK + USAGE + CHUNK[:-1],
        CHUNK + b"data: no JSON\n\n" + CHUNK,
        CHUNK + USAGE + END,
    ],
)
def test_a_record_of_a_broken_stream_holds_what_the_caller_got(
    gateway: Gateway, stage: Stage, said: bytes
) -> None:
    stage.bare.answer = lambda _: (200, [], said, "text/event-stream")
    got = gateway.chat("bare/any", stream=True)
    assert b'"error"' in got.body
    record = gateway.record(got.headers["x-request-id"])
    assert record.outcome in ("truncated", "bad_answer")
    assert restore.reply(record).data == got.body
    assert said.startswith(record.attempts[0].body.data)


def test_an_answer_that_nobody_asked_to_compress_is_unpacked(
    gateway: Gateway, stage: Stage
) -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
    plain = json.dumps({"id": "c", "choices": [choice]}).encode()
    packed = gzip.compress(plain)
    stage.bare.answer = lambda _: (200, [("content-encoding", "gzip")], packed, "application/json")
    got = gateway.chat("bare/any")
    assert got.body == plain
    assert "content-encoding" not in got.headers


# -- passthrough -----------------------------------------------------------------------------


def test_passthrough_carries_any_path_query_and_body(gateway: Gateway, stage: Stage) -> None:
    stage.bare.answer = lambda _: (
        201,
        [("content-disposition", "attachment"), ("set-cookie", "a=b"), ("server", "x")],
        b"\x00\x01{",
        "application/x-odd",
    )
    sent = body(ODD, "any")
    path = "/passthrough/bare/a%20b/%2e%2e/c;d=1?x=%20&y=a+b&x=2"
    got = gateway.ask(path, sent, method="PUT", accept="application/x-odd")
    assert (got.status, got.body) == (201, b"\x00\x01{")
    assert got.headers["content-type"] == "application/x-odd"
    assert got.headers["content-disposition"] == "attachment"
    assert not {"set-cookie", "server"} & got.headers.keys()
    (seen,) = stage.bare.asked
    assert (seen.method, seen.path) == ("PUT", "/base/v1/a%20b/%2e%2e/c;d=1")
    assert seen.query == "x=%20&y=a+b&x=2"
    assert seen.body == sent
    assert seen.header("accept") == "application/x-odd"
    record = gateway.record(got.headers["x-request-id"])
    assert (record.endpoint, record.method, record.status) == ("passthrough", "PUT", 201)
    assert restore.request(record).data == sent
    assert restore.reply(record).data == got.body


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_an_answer_without_a_body_leaves_the_connection_in_step(
    gateway: Gateway, stage: Stage, method: str
) -> None:
    stage.bare.answer = lambda asked: (
        (204, [], b"", "application/json")
        if asked.method == "DELETE"
        else (200, [], b"" if asked.method == "HEAD" else b"next", "text/plain")
    )
    with gateway.wire() as wire:
        wire.send(f"{method} /passthrough/bare/thing HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        wire.send(b"GET /passthrough/bare/thing HTTP/1.1\r\nhost: localhost\r\n")
        wire.send(b"connection: close\r\n\r\n")
        heads = wire.rest().split(b"\r\n\r\n")
    assert heads[0].startswith(b"HTTP/1.1 20")
    assert heads[1].startswith(b"HTTP/1.1 200 OK\r\n")  # nothing stands between the answers


def test_azure_paths_and_keys(gateway: Gateway, stage: Stage) -> None:
    gateway.chat("azure/gpt-azure")
    gateway.ask("/passthrough/azure/openai/deployments/instant/chat/completions", {"messages": []})
    first, second = stage.seen("azure/", 2)
    assert first.path == second.path == "/openai/deployments/instant/chat/completions"
    assert first.query == second.query == "api-version=2024-10-21"
    assert first.header("api-key") == second.header("api-key") == AZURE_KEY
    assert first.header("authorization") is None
