"""The ASGI app in process, with an engine whose pace the test decides."""

import asyncio
import re
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from forebay.inference.embedding import DIMENSIONS, MAX_TOKENS, Vectors
from forebay.inference.embeddings_app import (
    MAX_BODY,
    MAX_CHARS,
    MAX_TEXTS,
    MAX_WAITING,
    App,
    parse,
    texts_of,
)

KEY = "k"


class Engine:
    """One token a word; a pass waits at `gate`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.passes = 0

    def tokens(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def embed(self, texts: Sequence[list[int]]) -> Vectors:
        self.passes += 1
        self.begun.set()
        assert self.gate.wait(20)
        return np.array([[len(text)] * DIMENSIONS for text in texts], np.float32)


class Call:
    """One request to the app, its body in chunks, and what was sent back."""

    def __init__(
        self,
        app: App,
        *body: bytes,
        path: str = "/v1/embeddings",
        method: str = "POST",
        key: str = KEY,
        cut: bool = False,
    ) -> None:
        self.left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        parts = [
            {"type": "http.request", "body": part, "more_body": cut or at < len(body)}
            for at, part in enumerate(body, 1)
        ]

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop(0)
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        self.done = asyncio.ensure_future(app(scope, receive, send))

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        await asyncio.wait_for(self.done, 20)
        head, body = self.sent
        headers = {name.decode(): value.decode() for name, value in head["headers"]}
        assert int(headers["content-length"]) == len(body["body"])
        return head["status"], headers, msgspec.json.decode(body["body"])


def ask(*texts: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "input": list(texts), **more})


def answer(body: bytes, **call: Any) -> tuple[int, Any]:
    async def main() -> tuple[int, Any]:
        status, _, reply = await Call(App(Engine(), "m", KEY), body, **call).answer()
        return status, reply

    return asyncio.run(main())


def test_each_text_gets_its_own_vector_in_its_place() -> None:
    status, reply = answer(ask("one two three", "one", "one two"))
    assert status == 200
    assert [item["index"] for item in reply["data"]] == [0, 1, 2]
    assert [item["embedding"] for item in reply["data"]] == [[n] * DIMENSIONS for n in (3, 1, 2)]
    assert reply["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert reply["model"] == "m"


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"{", 400, "bad_json", "not JSON"),
        (b"[" * 100_000, 400, "bad_request", "Expected `object`, got `array`"),
        (b'{"x":' + b"[" * 100_000, 400, "bad_json", "not JSON"),
        (b'{"model":"m","input":"\xff"}', 400, "bad_json", "not JSON"),
        (b'{"input":"x"}', 400, "bad_request", "missing required field `model`"),
        (b'{"model":"m","input":{}}', 400, "bad_request", r"\$.input"),
        (
            b'{"model":"m","input":["a",1.5]}',
            400,
            "bad_request",
            r"got `float` - at `\$.input\[1\]`",
        ),
        (ask("x", encoding_format="int8"), 400, "bad_request", "encoding_format"),
        (ask("x", dimensions=128), 400, "unsupported", "384 dimensions, not 128"),
        (ask("a", "b", " \n"), 400, "bad_request", r"input\[2\] is empty"),
        (ask(), 400, "bad_request", "0 texts; it takes 1 to 2048"),
        (ask(*["x"] * (MAX_TEXTS + 1)), 400, "bad_request", "2049 texts"),
        (ask(1, 2), 400, "unsupported", "token numbers"),
        (ask([1, 2]), 400, "unsupported", "token numbers"),
        (ask("ok", "w " * 300), 400, "bad_request", r"input\[1\] has 300 tokens.*at most 256"),
        (ask("w" * (MAX_CHARS + 1)), 400, "bad_request", "has 16385 characters"),
        (b" " * (MAX_BODY + 1), 413, "body_too_large", "more than 4194304 bytes"),
        (msgspec.json.encode({"model": "n", "input": "x"}), 404, "unknown_model", "'n'"),
    ],
)
def test_what_can_not_be_embedded_is_refused_with_the_value_and_the_limit(
    body: bytes, status: int, code: str, message: str
) -> None:
    got, reply = answer(body)
    assert (got, reply["error"]["code"]) == (status, code)
    assert reply["error"]["type"] == "invalid_request_error"
    assert re.search(message, reply["error"]["message"])


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({"key": "wrong"}, 401),
        ({"key": ""}, 401),
        ({"key": "wrong", "path": "/v1/models", "method": "GET"}, 401),
        ({"path": "/v1/chat/completions"}, 404),
        ({"method": "GET"}, 405),
        ({"method": "GET", "path": "/v1/models"}, 200),
        ({"method": "GET", "path": "/health", "key": ""}, 200),
    ],
)
def test_paths_methods_and_keys(call: dict[str, str], status: int) -> None:
    assert answer(ask("x"), **call)[0] == status


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_body_may_come_in_any_pieces(size: int) -> None:
    body = ask("one two", "three")

    async def main() -> Any:
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        return await Call(App(Engine(), "m", KEY), *parts).answer()

    assert asyncio.run(main())[0] == 200


def test_a_caller_that_goes_frees_its_turn_at_the_next_pass() -> None:
    async def main() -> None:
        engine = Engine()
        engine.gate.clear()
        app = App(engine, "m", KEY)
        text = "w " * MAX_TOKENS
        leaver = Call(app, ask(*[text] * 100))
        assert await asyncio.to_thread(engine.begun.wait, 20)
        leaver.left.set()
        stayer = Call(app, ask("hello"))
        await asyncio.sleep(0)
        engine.gate.set()
        assert (await stayer.answer())[0] == 200
        await leaver.done
        assert leaver.sent == []
        assert engine.passes <= 3  # not 101

    asyncio.run(main())


def test_a_question_waits_for_one_pass_of_an_ingest_only() -> None:
    async def main() -> None:
        engine = Engine()
        engine.gate.clear()
        app = App(engine, "m", KEY)
        ingest = Call(app, ask(*["w " * MAX_TOKENS] * 50))
        assert await asyncio.to_thread(engine.begun.wait, 20)
        question = Call(app, ask("hello"))
        for _ in range(3):
            await asyncio.sleep(0)
        engine.gate.set()
        assert (await question.answer())[0] == 200
        assert engine.passes < 10
        assert (await ingest.answer())[0] == 200
        assert engine.passes == 51

    asyncio.run(main())


def test_more_than_the_bound_are_told_to_come_back() -> None:
    async def main() -> None:
        engine = Engine()
        engine.gate.clear()
        app = App(engine, "m", KEY)
        calls = [Call(app, ask("hello")) for _ in range(MAX_WAITING + 1)]
        status, headers, reply = await calls[-1].answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert reply["error"]["type"] == "server_error"
        engine.gate.set()
        assert {(await call.answer())[0] for call in calls[:-1]} == {200}

    asyncio.run(main())


def test_a_caller_that_goes_before_its_body_is_whole_gets_nothing() -> None:
    async def main() -> None:
        call = Call(App(Engine(), "m", KEY), b'{"model":', cut=True)
        call.left.set()
        await call.done
        assert call.sent == []

    asyncio.run(main())


def test_one_text_and_a_list_of_one_are_the_same() -> None:
    assert texts_of("a") == texts_of(["a"]) == ["a"]
    assert parse(b'{"model":"m","input":"a","user":{"x":1},"new":null}').input == "a"
