"""`POST /v1/embeddings` as OpenAI answers it: deterministic vectors, floats or base64."""

import base64
from typing import Any, Literal

import msgspec

from forebay.testbed.twins.form import json_encode
from forebay.testbed.twins.question import Refused
from forebay.testbed.twins.text import count, vector

MAX_INPUTS = 2_048
MAX_DIMENSIONS = 4_096


class EmbeddingsRequest(msgspec.Struct):
    input: Any  # text, texts, tokens or lists of tokens: four types that msgspec can't unite
    model: str = ""  # Azure names it in the path
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"


_decode = msgspec.json.Decoder(EmbeddingsRequest).decode


def question(body: bytes) -> EmbeddingsRequest:
    """Read a request; `input` is then a list of bytes. Raises Refused(bad_request)."""
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("bad_request", f"Invalid request body: {error}") from None
    given = request.input
    items = given if isinstance(given, list) and not _tokens(given) else [given]
    if not 1 <= len(items) <= MAX_INPUTS:
        raise Refused("bad_request", f"Invalid 'input': 1 to {MAX_INPUTS} items.", param="input")
    dimensions = request.dimensions
    if dimensions is not None and not 1 <= dimensions <= MAX_DIMENSIONS:
        raise Refused(
            "bad_request",
            f"Invalid 'dimensions': {dimensions} is not in 1 to {MAX_DIMENSIONS}.",
            param="dimensions",
        )
    request.input = list(map(_text, items))
    return request


def answer(request: EmbeddingsRequest, dimensions: int) -> tuple[bytes, int]:
    """The body, and the tokens it is charged for."""
    tokens = sum(map(count, request.input))
    data: list[dict[str, Any]] = []
    for index, text in enumerate(request.input):
        values = vector(text, request.dimensions or dimensions)
        shown: Any = values.tolist()
        if request.encoding_format == "base64":
            shown = base64.b64encode(values.tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    body = {
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json_encode(body), tokens


def _text(item: Any) -> bytes:
    if isinstance(item, str) and item:
        return item.encode()
    if isinstance(item, list) and _tokens(item):
        return b" ".join(b"t%d" % number for number in item)
    raise Refused(
        "bad_request", "Invalid 'input': text that is not empty, or tokens.", param="input"
    )


def _tokens(items: list[Any]) -> bool:
    return bool(items) and all(type(item) is int for item in items)
