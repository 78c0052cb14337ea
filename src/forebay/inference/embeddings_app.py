"""OpenAI's /v1/embeddings in front of an embedder, on bare ASGI; also /v1/models and /health.

What it refuses, each with what was seen and the limit:

- a text of more than 256 tokens, as OpenAI does above its own limit: cutting it silently would
  make two documents with the same beginning the same;
- `dimensions` other than 384: only models trained for it (Matryoshka) survive being cut;
- token arrays: they are numbers of another model's vocabulary;
- empty texts, more than 2,048 texts, bodies over 4 MiB, more than 64 requests waiting.

One thread computes. Requests take turns between passes, so that a question (5 ms) waits for one
pass of a running ingest (≤ 80 ms), not for its 2,048 texts; a caller that goes away frees its
turn at the next pass. `usage` counts the tokens that were computed, the two that frame each
text included. base64 is what OpenAI's SDK asks for by default: float32, little-endian.
"""

import asyncio
import base64
import hmac
import math
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from forebay.errors import Failure
from forebay.inference.embedding import DIMENSIONS, MAX_TOKENS, Vectors, batches

MAX_BODY = 4 << 20
MAX_TEXTS = 2048  # OpenAI's limit
#: Most characters of a text that are even tokenized: 64 a token, where English has 4 to 5.
MAX_CHARS = 64 * MAX_TOKENS
MAX_WAITING = 64

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Engine(Protocol):
    """What the server needs of `Embedder`."""

    def tokens(self, text: str) -> list[int]: ...

    def embed(self, texts: list[list[int]]) -> Vectors: ...


class Ask(msgspec.Struct):
    """The body of /v1/embeddings. `user` and whatever else comes is ignored, as by others."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_decode = msgspec.json.Decoder(Ask).decode


class App:
    """The ASGI callable."""

    def __init__(self, engine: Engine, name: str, key: str) -> None:
        self._engine = engine
        self._name = name
        self._credential = b"Bearer " + key.encode()
        self._turn = asyncio.Lock()  # first come, first served
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "embed")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "lifespan and websockets are switched off"
        try:
            status, body, more = 200, await self._answer(scope, receive), []
        except Failure as failure:
            status, body = failure.code.status, _error(failure)
            more = [(b"connection", b"close")]  # the request's body may be unread
            if failure.retry_after_s is not None:
                more.append((b"retry-after", b"%d" % math.ceil(failure.retry_after_s)))
        except Gone:
            return
        length = (b"content-length", b"%d" % len(body))
        headers = [(b"content-type", b"application/json"), length, *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/health"):
            return b'{"status":"ok"}'
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._credential):
            raise Failure("bad_key", "The key is not this server's.")
        if (method, path) == ("GET", "/v1/models"):
            model = {"id": self._name, "object": "model", "created": 0, "owned_by": "forebay"}
            return msgspec.json.encode({"object": "list", "data": [model]})
        if path != "/v1/embeddings":
            raise Failure("unknown_path", f"There is no {path[:100]} here.")
        if method != "POST":
            raise Failure("method_not_allowed", f"{path} takes POST, not {method[:20]}.")
        ask = parse(await _body(receive))
        texts = self._check(ask)
        if self._waiting >= MAX_WAITING:
            raise Failure(
                "overloaded",
                f"{self._waiting} requests are waiting for the embedder; it holds no more.",
                retry_after_s=1.0,
            )
        self._waiting += 1
        gone = asyncio.ensure_future(_gone(receive))
        try:
            vectors, count = await self._embed(texts, gone)
        finally:
            self._waiting -= 1
            gone.cancel()
        return _reply(self._name, vectors, count, ask.encoding_format)

    def _check(self, ask: Ask) -> list[str]:
        if ask.model != self._name:
            raise Failure(
                "unknown_model",
                f"This server has the model {self._name}, not {ask.model[:100]!r}.",
                param="model",
            )
        if ask.dimensions not in (None, DIMENSIONS):
            raise Failure(
                "unsupported",
                f"{self._name} makes vectors of {DIMENSIONS} dimensions, not {ask.dimensions}; "
                "it was not trained to be cut shorter.",
                hint="Leave `dimensions` out.",
                param="dimensions",
            )
        return texts_of(ask.input)

    async def _embed(self, texts: list[str], gone: "asyncio.Future[None]") -> tuple[Vectors, int]:
        loop = asyncio.get_running_loop()
        async with self._turn:
            tokens = await loop.run_in_executor(self._thread, self._tokenize, texts)
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for batch in batches([len(text) for text in tokens]):
            async with self._turn:
                if gone.done():
                    raise Gone
                rows = [tokens[at] for at in batch]
                vectors[batch] = await loop.run_in_executor(self._thread, self._engine.embed, rows)
        return vectors, sum(map(len, tokens))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        out = []
        for at, text in enumerate(texts):
            # Far too long is refused unread: 4 MiB take the tokenizer seconds.
            size = len(text) if len(text) > MAX_CHARS else None
            tokens = self._engine.tokens(text) if size is None else []
            if size is not None or len(tokens) > MAX_TOKENS:
                seen = f"{len(tokens)} tokens" if size is None else f"{size} characters"
                raise Failure(
                    "bad_request",
                    f"input[{at}] has {seen}; {self._name} takes at most {MAX_TOKENS} tokens.",
                    hint="Split the text and embed the parts.",
                    param="input",
                )
            out.append(tokens)
        return out


class Gone(Exception):
    """The caller left; nobody is there to answer."""


def parse(body: bytes) -> Ask:
    """Raises Failure: bad_json, bad_request."""
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise Failure("bad_request", f"The body is not as expected: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure("bad_json", f"The body is not JSON: {error}.") from None


def texts_of(given: str | list[str | int | list[int]]) -> list[str]:
    """The texts of an `input`. Raises Failure(bad_request) that says what is wrong with which."""
    items = [given] if isinstance(given, str) else given
    if not 1 <= len(items) <= MAX_TEXTS:
        raise Failure(
            "bad_request",
            f"`input` has {len(items)} texts; it takes 1 to {MAX_TEXTS}.",
            param="input",
        )
    texts = []
    for at, item in enumerate(items):
        if not isinstance(item, str):
            raise Failure(
                "unsupported",
                f"input[{at}] is token numbers, of a vocabulary that is not this model's.",
                hint="Send the text.",
                param="input",
            )
        if not item.strip():
            raise Failure("bad_request", f"input[{at}] is empty.", param="input")
        texts.append(item)
    return texts


def _reply(name: str, vectors: Vectors, count: int, form: str) -> bytes:
    rows: list[Any]
    if form == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return msgspec.json.encode({"object": "list", "data": data, "model": name, "usage": usage})


def _error(failure: Failure) -> bytes:
    caller = failure.code.fault == "caller"
    return msgspec.json.encode(
        {
            "error": {
                "message": str(failure),
                "type": "invalid_request_error" if caller else "server_error",
                "param": failure.param,
                "code": failure.code.name,
            }
        }
    )


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise Failure(
                "body_too_large", f"The body has more than {MAX_BODY} bytes; send fewer texts."
            )
        if not message.get("more_body", False):
            return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
