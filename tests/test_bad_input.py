"""Whatever a caller sends: a clear error in its own dialect, a record, and nothing else harmed.

Each row of the tables goes through a whole data plane in virtual time. `check_refusal` is what
must hold of every one of them.
"""

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import VirtualRun
from feeding import CUTS, cut
from forebay.dialects import headers as learned
from forebay.errors import CODES
from forebay.observe import record as records
from forebay.observe.record import Record
from forebay.testbed.virtual import VirtualWorld, run
from forebay.wire.server import ServerLimits
from pipeline_kit import (
    ANTHROPIC_KEY,
    KEY,
    OPENAI_KEY,
    Gateway,
    Reply,
    chat,
    gateway,
    key_row,
    messages,
    parse,
    replied,
    request,
)

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COUNT = "/v1/messages/count_tokens"
#: one good body for each endpoint
GOOD: dict[str, dict[str, Any]] = {
    CHAT: chat(),
    MESSAGES: messages(),
    RESPONSES: {"model": "openai/instant", "input": "hello [out:8]"},
    EMBEDDINGS: {"model": "openai/embedding", "input": "hello"},
    COUNT: chat(model="anthropic/instant"),
}
SMALL = ServerLimits(body_bytes=20_000, body_s=20, head_bytes=8192)

ANTHROPIC_TYPES = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "timeout_error",
    "overloaded_error",
    "api_error",
}


def check_error(path: str, reply: Reply) -> str:
    """The body is an error of the caller's dialect and nothing more. The message."""
    assert reply.header("content-type") == "application/json"
    text = reply.body.decode()
    assert "Traceback" not in text
    assert "forebay/" not in text
    assert OPENAI_KEY not in text
    assert ANTHROPIC_KEY not in text
    assert KEY not in text
    body = reply.json
    if path.startswith("/v1/messages"):
        assert body.keys() == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert body["error"].keys() == {"type", "message"}
        assert body["error"]["type"] in ANTHROPIC_TYPES
        assert body["request_id"] == reply.header("request-id")
    else:
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["type"] in ("invalid_request_error", "server_error")
    message: str = body["error"]["message"]
    assert 10 < len(message) < 700
    assert "\n" not in message
    return message


def check_refusal(path: str, reply: Reply, record: Record, status: int, code: str) -> str:
    """A refusal and its record belong together, and no provider was asked. The message."""
    message = check_error(path, reply)
    assert (reply.status, record.outcome) == (status, code)
    assert CODES[code].status == status
    assert record.status == status
    assert record.id == reply.header("x-request-id")
    assert record.error == message
    assert replied(record) == reply.body
    assert record.attempts == []
    assert record.usage is None
    assert record.cost_nusd is None
    assert record.ended_ns >= 0
    if not CODES[code].retryable:
        assert reply.header("x-should-retry") == "false"
    if path in GOOD and not path.startswith("/v1/messages"):
        assert reply.json["error"]["code"]
    return message


async def refused(
    gate: Gateway, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[Reply, Record]:
    """The refusal of a body, after which the connection still works."""
    before = len(gate.kept)
    client = await gate.client()
    client.send(request(path, body, headers))
    reply = await client.reply()
    if reply.header("connection") == "close":
        await client.end()
    else:
        client.send(request("/healthz", None, method="GET"))
        assert (await client.reply("GET")).status == 200
        client.leave()
    record = (await gate.records(before + 1))[-1]
    assert all(len(twin.log) == 0 for twin in gate.twins.values())
    return reply, record


@pytest.fixture(autouse=True)
def _nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> Any:
    """Bad input is no event of the gateway's: nothing to log, no traceback."""
    caplog.set_level(logging.WARNING)
    yield
    assert not caplog.records, caplog.text


# -- bodies that no endpoint takes -----------------------------------------------------------

DEEP = 100_000
ANYWHERE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "bad_json"),
    "white space": (b" \r\n", "bad_json"),
    "an open brace": (b"{", "bad_json"),
    "a list": (b"[]", "bad_json"),
    "a list of requests": (b'[{"model":"openai/instant"}]', "bad_json"),
    "a string": (b'"hello"', "bad_json"),
    "a number": (b"1", "bad_json"),
    "null": (b"null", "bad_json"),
    "form data": (b"model=gpt&messages=hi", "bad_json"),
    "single quotes": (b"{'model':'x'}", "bad_json"),
    "a comment": (b'{"model":"x" /* fast */}', "bad_json"),
    "a trailing comma": (b'{"model":"x",}', "bad_json"),
    "two objects": (b'{"model":"x"}{"model":"y"}', "bad_json"),
    "rubbish after it": (b'{"model":"x"} x', "bad_json"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"x"}', "bad_json"),
    "UTF-16": ('{"model":"x"}'.encode("utf-16"), "bad_json"),
    "a bad byte in a value": (b'{"model":"\xff"}', "bad_json"),
    "a bad byte in a key": (b'{"mod\xffel":"x"}', "bad_json"),
    "a cut character": (b'{"model":"\xe2\x82"}', "bad_json"),
    "an encoded surrogate": (b'{"model":"\xed\xa0\x80"}', "bad_json"),
    "half a surrogate pair": (b'{"model":"\\ud800"}', "bad_json"),
    "NUL in a value": (b'{"model":"\0"}', "bad_json"),
    "NUL after it": (b'{"model":"x"}\0', "bad_json"),
    "a line break in a value": (b'{"model":"a\nb"}', "bad_json"),
    "NaN": (b'{"model":"x","temperature":NaN}', "bad_json"),
    "infinity": (b'{"model":"x","temperature":-Infinity}', "bad_json"),
    "a leading zero": (b'{"model":"x","n":01}', "bad_json"),
    "a hex number": (b'{"model":"x","n":0x10}', "bad_json"),
    "lists without an end": (b'{"a":' + b"[" * DEEP, "too_deep"),
    "lists, very deep": (b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}", "too_deep"),
    "objects, very deep": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "too_deep"),
    "a key twice": (b'{"model":"x","model":"y"}', "duplicate_key"),
    "a key twice, escaped": (b'{"model":"x","\\u006dodel":"y"}', "duplicate_key"),
    "a key twice, spaced": (b'{ "model" : "x" ,\n"model"\t:"x" }', "duplicate_key"),
    "no model": (b"{}", "bad_request"),
    "a model of null": (b'{"model":null}', "bad_request"),
    "a model that is a number": (b'{"model":1}', "bad_request"),
    "a model that is a list": (b'{"model":["x"]}', "bad_request"),
    "an empty model": (b'{"model":""}', "bad_request"),
}


@pytest.mark.parametrize("path", GOOD)
def test_a_body_that_no_endpoint_takes(virtual: VirtualRun, path: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for name, (body, code) in ANYWHERE.items():
                status = CODES[code].status
                reply, record = await refused(gate, path, body)
                message = check_refusal(path, reply, record, status, code)
                assert record.body.data == body, name
                if code == "duplicate_key":
                    assert '"model" twice' in message

    virtual(main)


@pytest.mark.parametrize("path", GOOD)
def test_members_of_the_wrong_shape(virtual: VirtualRun, path: str) -> None:
    """Each is refused here, at once, with the member's path; what is left is the provider's."""
    wrong: dict[str, list[Any]] = {
        "messages": [None, {}, [], "hi", 1, [1], [None], [[]], [{}], [{"role": 1}]],
        "stream": ["yes", 1, [], {}],
        "stream_options": [[], "x", 1, {"include_usage": 1}, {"include_usage": "yes"}],
        "temperature": ["0", [], {}],
        "max_tokens": [-1, 1.5, "1", []],
        "max_completion_tokens": [0, -1, 1.5, "1", []],
        "max_output_tokens": [0, -1, "1"],
        "n": [0, -1, "2"],
        "input": [1, {}, True],
        "system": [1, {}, [1], [{}]],
    }
    of = {
        CHAT: "messages stream stream_options temperature max_tokens max_completion_tokens n",
        MESSAGES: "messages stream temperature max_tokens system",
        RESPONSES: "stream temperature max_output_tokens input",
        EMBEDDINGS: "input",
        COUNT: "messages",
    }

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for name in of[path].split():
                for value in wrong[name]:
                    body = json.dumps(GOOD[path] | {name: value}).encode()
                    reply, record = await refused(gate, path, body)
                    message = check_refusal(path, reply, record, 400, "bad_request")
                    assert f"`{name}" in message, (name, value, message)
                    if not path.startswith("/v1/messages"):
                        assert reply.json["error"]["param"].split(".")[0].split("[")[0] == name

    virtual(main)


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "user"}, {"role": "user", "content": 1}], "messages[1].content"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": 1}]}], "messages[0].content[0].type"),
    ],
)
def test_the_place_in_the_messages_is_named(virtual: VirtualRun, value: Any, param: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            body = json.dumps(chat(messages=value)).encode()
            reply, record = await refused(gate, CHAT, body)
            check_refusal(CHAT, reply, record, 400, "bad_request")
            assert reply.json["error"]["param"] == param

    virtual(main)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_numbers_beyond_every_range(virtual: VirtualRun, number: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for path, name in ((CHAT, "temperature"), (MESSAGES, "max_tokens"), (CHAT, "n")):
                text = json.dumps(GOOD[path] | {name: "@"}).replace('"@"', number)
                reply, record = await refused(gate, path, text.encode())
                check_refusal(path, reply, record, 400, "bad_request")

    virtual(main)


# -- models ----------------------------------------------------------------------------------


def test_a_model_that_nobody_has(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        named = {"models": {"fast": "openai/instant", "careful": "anthropic/instant"}}
        async with gateway(world, named) as gate:
            for path in GOOD:
                for model, hint in (
                    ("fats", "Did you mean fast?"),
                    ("x-model", "openai, anthropic; GET /v1/models lists more"),
                    ("nobody/gpt", "Ask for provider/model"),
                    ("openai/", "Ask for provider/model"),
                    ("/", "Ask for provider/model"),
                    (" fast", "Did you mean fast?"),
                    ("fast\0", "Did you mean fast?"),
                    ("m" * 512, "Ask for provider/model"),
                ):
                    body = json.dumps(GOOD[path] | {"model": model}).encode()
                    reply, record = await refused(gate, path, body)
                    message = check_refusal(path, reply, record, 404, "unknown_model")
                    assert hint in message
                    assert record.model == model

    virtual(main)


@pytest.mark.parametrize("size", [513, 1_000_000])
def test_a_model_name_of_any_length(virtual: VirtualRun, size: int) -> None:
    """A megabyte of name was kept for good and compared with every name there is."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for model in ("openai/" + "m" * size, "m" * size):
                reply, record = await refused(gate, CHAT, json.dumps(chat(model=model)).encode())
                message = check_refusal(CHAT, reply, record, 400, "bad_request")
                assert "512" in message
                assert reply.json["error"]["param"] == "model"

    virtual(main)


INJECTIONS = [
    "a\r\nx-injected: 1",
    "a\nx-injected: 1",
    "a\rx-injected: 1",
    "a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a\0b",
    "a\x7f\x1b[31mred",
    "a\u2028b\u0085c",
    "ключ/🐟",
    "%0d%0ax-injected:%201",
    "../../v1/models",
    "a?b#c&d e",
    " ",
]


@pytest.mark.parametrize("name", INJECTIONS)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_model_name_cannot_write_headers(virtual: VirtualRun, name: str, path: str) -> None:
    """`provider/model` is forwarded whatever the model is called, and told in a header."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            provider = "openai" if path == CHAT else "anthropic"
            body = GOOD[path] | {"model": f"{provider}/{name}"}
            client = await gate.client()
            client.send(request(path, body) + request("/healthz", None, method="GET"))
            reply, after = await client.replies("POST", "GET")
            assert after.status == 200
            client.leave()
            assert reply.status == 404  # the provider's own word
            assert reply.header("x-injected") is None
            told = reply.header("x-forebay-model")
            assert told is not None
            assert re.fullmatch(r"[ -~\xa0-\xff]*", told)
            (seen,) = gate.twins[provider].log
            assert json.loads(seen.body)["model"] == name
            assert seen.header("x-injected") is None
            record = await gate.record()
            assert (record.outcome, record.model) == ("provider_error", f"{provider}/{name}")
            assert record.attempts[0].model == name

    virtual(main)


@pytest.mark.parametrize("name", INJECTIONS)
def test_a_model_name_cannot_leave_its_place_in_a_path(virtual: VirtualRun, name: str) -> None:
    """Azure wants the model in the URL."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            azure = {
                "kind": "azure_openai",
                "base_url": gate.twins["openai"].base_url,
                "api_key": OPENAI_KEY,
                "proxy": "off",
            }
            async with gateway(world, {"providers": {"azure": azure}}) as other:
                reply = await other.chat(model=f"azure/{name}")
                assert reply.status == 404
                (seen,) = gate.twins["openai"].log
                assert seen.path.startswith("/openai/deployments/")
                assert seen.path.endswith("/chat/completions")
                assert seen.query.startswith("api-version=")
                assert seen.path.count("/") == 5
                assert seen.header("x-injected") is None

    virtual(main)


# -- paths and methods -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/completions",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/messages/batches",
        "/v1/chat/completions%00",
        "/%2e%2e/etc/passwd",
        "/v1/%0d%0ax-injected:%201",
        "/v1/<script>alert(1)</script>",
        "/" + "x" * 5000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_not_there(virtual: VirtualRun, path: str, method: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            reply = await gate.ask(path, None if method == "GET" else {}, method=method)
            message = check_refusal(path, reply, await gate.record(), 404, "unknown_path")
            assert "nothing at" in message
            assert reply.header("x-injected") is None

    virtual(main)


@pytest.mark.parametrize("path", [*GOOD, "/v1/models", "/healthz", "/metrics"])
def test_a_method_that_a_path_does_not_take(virtual: VirtualRun, path: str) -> None:
    methods = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
    if path not in GOOD:
        methods = ["POST", *methods[1:]]

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for number, method in enumerate(methods, 1):
                reply = await gate.ask(path, {}, method=method)
                record = (await gate.records(number))[-1]
                message = check_refusal(path, reply, record, 405, "method_not_allowed")
                assert method in message
                assert record.method == method
            if path in GOOD:
                reply = await gate.ask(path, None, method="HEAD")
                assert (reply.status, reply.body) == (405, b"")

    virtual(main)


def test_an_unknown_path_is_told_in_the_dialect_its_caller_speaks(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            reply = await gate.ask("/v1/x", {}, {"anthropic-version": "2023-06-01"})
            assert reply.json["type"] == "error"
            reply = await gate.ask("/v1/x", {})
            assert reply.json["error"]["code"] == "unknown_url"

    virtual(main)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/passthrough/", 404, "unknown_path"),
        ("/passthrough/nobody/v1/files", 404, "unknown_path"),
        ("/passthrough/%6fpenai/v1/files", 404, "unknown_path"),
    ],
)
def test_a_provider_that_is_not_there(
    virtual: VirtualRun, path: str, status: int, code: str
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            reply = await gate.ask(path, None, method="GET")
            check_refusal(path, reply, await gate.record(), status, code)

    virtual(main)


# -- keys ------------------------------------------------------------------------------------


CUT = KEY[:-1] + ("A" if KEY[-1] != "A" else "B")


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/models", "/passthrough/openai/v1/models"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_key"),
        ({"authorization": "Bearer"}, "missing_key"),
        ({"authorization": "Bearer "}, "missing_key"),
        ({"authorization": f"Bearer {CUT}"}, "bad_key"),
        ({"authorization": "Bearer sk-canary-of-a-caller"}, "bad_key"),
        ({"authorization": "Basic Zm9vOmJhcg=="}, "missing_key"),
        ({"x-api-key": "sk-ant-canary-of-a-caller"}, "bad_key"),
        ({"api-key": "x" * 5000}, "bad_key"),
        ({"x-api-key": "fb_" + "\xff" * 49}, "bad_key"),
        ({"authorization": f"Bearer {KEY}"}, "key_expired"),
    ],
)
def test_who_has_no_good_key(
    virtual: VirtualRun, path: str, headers: dict[str, str], code: str
) -> None:
    """The body of a stranger is never read, and what was sent as a key is never repeated."""

    async def main(world: VirtualWorld) -> None:
        config = {"keys": {"loopback": "required"}}
        expired = [key_row(expires_ns=1)]
        async with gateway(world, config, keys=expired) as gate:
            body = GOOD.get(path)
            method = "POST" if body else "GET"
            reply = await gate.ask(path, body, headers, method)
            record = await gate.record()
            check_refusal(path, reply, record, 401, code)
            assert record.body.data == b""
            kept = records.encode(record)
            for value in headers.values():
                secret = value.removeprefix("Bearer ").encode("latin-1")
                assert len(secret) < 8 or secret not in kept

    virtual(main)


# -- cut, slow and large ---------------------------------------------------------------------


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_bound(virtual: VirtualRun, path: str, chunked: bool) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, limits=SMALL) as gate:
            body = json.dumps(GOOD[path] | {"padding": "x" * SMALL.body_bytes}).encode()
            client = await gate.client()
            if chunked:
                head = request(path, b"", {"transfer-encoding": "chunked"})
                head = head.replace(b"content-length: 0\r\n", b"")
                client.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            else:
                client.send(request(path, body))
            reply = await client.reply()
            message = check_refusal(path, reply, await gate.record(), 413, "body_too_large")
            assert "20000 bytes" in message
            assert "server.body_bytes" in message
            await client.end()

    virtual(main)


@pytest.mark.parametrize("path", GOOD)
def test_a_body_that_does_not_come(virtual: VirtualRun, path: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, limits=SMALL) as gate:
            client = await gate.client()
            client.send(request(path, GOOD[path])[:-1])
            reply = await client.reply()
            record = await gate.record()
            message = check_refusal(path, reply, record, 408, "slow_request")
            assert "server.body_s is 20 s" in message
            assert record.ended_ns == SMALL.body_s * 1_000_000_000
            await client.end()

    virtual(main)


@pytest.mark.parametrize("path", GOOD)
def test_chunks_that_are_none(virtual: VirtualRun, path: str) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            head = request(path, b"", {"transfer-encoding": "chunked"})
            client = await gate.client()
            client.send(head.replace(b"content-length: 0\r\n", b"") + b"5\r\n{\r\n")
            client.send(b"nonsense")
            reply = await client.reply()
            message = check_refusal(path, reply, await gate.record(), 400, "bad_request")
            assert "HTTP/1.1" in message
            await client.end()

    virtual(main)


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("sent", [0.0, 0.5])
def test_who_leaves_before_the_request_is_complete(
    virtual: VirtualRun, path: str, sent: float
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            raw = request(path, GOOD[path])
            head = raw.index(b"\r\n\r\n") + 4
            client = await gate.client()
            client.send(raw[: head + int(sent * (len(raw) - head))])
            await asyncio.sleep(1)
            client.leave()
            record = await gate.record()
            assert (record.outcome, record.status, record.attempts) == ("cancelled", 0, [])

    virtual(main)


def test_a_bad_request_harms_none_that_was_sent_ahead_or_behind(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            client = await gate.client()
            bad = request(CHAT, b"{")
            client.send(request(CHAT, chat()) + bad + request(MESSAGES, messages()) + bad)
            replies = await client.replies("POST", "POST", "POST", "POST")
            assert [reply.status for reply in replies] == [200, 400, 200, 400]
            client.leave()
            kept = await gate.records(4)
            assert [record.outcome for record in kept] == ["ok", "bad_json", "ok", "bad_json"]

    virtual(main)


@pytest.mark.parametrize(
    ("wish", "status"), [("on", 200), (" OFF ", 200), ("refresh", 200), ("yes", 400), ("", 400)]
)
def test_a_wish_of_the_cache_that_makes_no_sense(
    virtual: VirtualRun, wish: str, status: int
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            reply = await gate.chat(headers={"x-forebay-cache": wish})
            assert reply.status == status
            if status == 400:
                message = check_refusal(CHAT, reply, await gate.record(), 400, "bad_request")
                assert "on, off or refresh" in message

    virtual(main)


def test_a_flood_of_header_names_changes_nothing(virtual: VirtualRun) -> None:
    """Names are learned as they come; callers choose them, so that is bounded, and what is
    not learned any more means what it always did."""

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            client = await gate.client()
            for number in range(60):
                flood = {f"x-flood-{number}-{i}": "v" for i in range(90)}
                client.send(request(CHAT, b"{", flood))
                await client.reply()
            client.leave()
            assert len(learned._known) <= learned._MAX_LEARNED
            reply = await gate.chat(headers={"openai-organization": "o", "x-forwarded-for": "1"})
            assert reply.status == 403  # a proxy's header is still one
            reply = await gate.chat(headers={"openai-beta": "b", "cookie": "canary"})
            (seen,) = gate.twins["openai"].log
            assert seen.header("openai-beta") == "b"
            assert seen.header("cookie") is None

    virtual(main)


# -- any bytes, any JSON ---------------------------------------------------------------------


def check_all(gate: Gateway) -> None:
    """No request was our fault, none ended twice or not at all."""
    gate.plane.recorder.flush()
    ids = [record.id for record in gate.kept]
    assert len(set(ids)) == len(ids)
    for record in gate.kept:
        assert record.outcome in CODES or record.outcome in ("ok", "cancelled")
        assert record.outcome != "internal", record.error


REQUESTS = [
    request(CHAT, chat()),
    request(CHAT, chat(stream=True, stream_options={"include_usage": False})),
    request(MESSAGES, messages(stream=True), {"anthropic-version": "2023-06-01"}),
    request(MESSAGES, messages(model="openai/instant")),
    request(EMBEDDINGS, GOOD[EMBEDDINGS], {"expect": "100-continue"}),
    request("/v1/models", None, method="GET"),
    request("/passthrough/openai/v1/models", None, method="GET"),
]
PIECES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [
            *(b"\r\n", b"\n", b"\0", b'"', b"{", b"}", b"[", b",", b"\\", b"\\u0000", b"null"),
            *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n"),
            *(b"host: evil.com\r\n", b"connection: close\r\n", b'"stream":true,', b"\xff"),
        ]
    ),
)
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 4), PIECES), min_size=1, max_size=6
)


@settings(max_examples=150)
@given(
    asked=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), edits=MUTATIONS, cuts=CUTS
)
def test_any_bytes_are_answered_or_closed(
    asked: list[bytes], edits: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    raw = b"".join(asked)
    for place, removed, added in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + added + raw[at + removed :]

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            client = await gate.client()
            for piece in cut(raw, [at % (len(raw) + 1) for at in cuts]):
                client.send(piece)
                await asyncio.sleep(0)
            said = await client.end()  # by a clock at the latest
            replies, left = parse(said, ["GET"] * said.count(b"HTTP/1.1 "), closed=True)
            assert left == b"", said
            assert all(200 <= reply.status < 500 for reply in replies), said
            await gate.drained()
            check_all(gate)

    run(main)


ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            -1,
            1.5,
            10**30,
            "",
            "x",
            "\0",
            "\u2028",
            [],
            {},
            [[]],
            [None],
            {"": 0},
        ]
    ),
    st.sampled_from(["text", "image_url", "tool", "user", "system", "function", "auto", "[out:3]"]),
)
BASES: list[tuple[str, dict[str, Any]]] = [
    (
        CHAT,
        chat(
            model=f"{provider}/instant",
            stream=stream,
            temperature=0,
            stop=["x"],
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
            tool_choice="auto",
            messages=[
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hi [out:3]"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "done"},
            ],
        ),
    )
    for provider in ("openai", "anthropic")
    for stream in (False, True)
] + [
    (
        MESSAGES,
        messages(
            model=f"{provider}/instant",
            stream=stream,
            system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            stop_sequences=["x"],
            thinking={"type": "enabled", "budget_tokens": 1024},
            tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            tool_choice={"type": "auto"},
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "hi [out:3]"}]},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "1", "content": "done"}],
                },
            ],
        ),
    )
    for provider in ("openai", "anthropic")
    for stream in (False, True)
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value, the model's name left out."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        if (*path, key) != ("model",):
            found += places(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=250)
@given(
    base=st.sampled_from(BASES), changes=st.lists(st.tuples(st.integers(0, 999), ODD), max_size=3)
)
def test_any_shape_of_request_is_answered_or_refused(
    base: tuple[str, dict[str, Any]], changes: list[tuple[int, Any]]
) -> None:
    """Conversions meet what no SDK would send: never a 500, and the provider always JSON."""
    path, body = base
    for at, new in changes:
        found = places(body)
        body = replaced(body, found[at % len(found)], new)

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            reply = await gate.ask(path, body)
            assert reply.status < 500, (body, reply.body)
            await gate.records(1)
            check_all(gate)
            for twin in gate.twins.values():
                for seen in twin.log:
                    assert isinstance(json.loads(seen.body), dict)

    run(main)
