"""The least a provider can be: fixed answers over raw sockets, `python -m …upstream`.

Not the twin: a twin models a provider, this one only has to cost little and answer at once,
so that what is measured is the gateway. A request whose body asks for a stream gets one event
a segment, `rate` a second; anything else a 2 KB completion. TLS where a certificate is given.
"""

import argparse
import asyncio
import itertools
import json
import ssl
import sys

import httptools
import uvloop

TEXT = (
    "the water is held and screened before it reaches the turbines and let through at the rate "
    "they can take so that no wheel is torn and no drop is lost on the way down the hill"
)
WORDS = tuple(TEXT.split())


def completion(size: int) -> bytes:
    """A chat completion of about `size` bytes, head included."""
    text = " ".join(itertools.islice(itertools.cycle(WORDS), size // 5))[: size - 620]
    body = json.dumps(
        {
            "id": "chatcmpl-overhead0123456789",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "overhead-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 1125,
                "completion_tokens": 375,
                "total_tokens": 1500,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    ).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 512\r\n"
        b"x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 1999999\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-overhead0123456789",
            "object": "chat.completion.chunk",
            "created": 1760000000,
            "model": "overhead-1",
            "system_fingerprint": "fp_0123456789",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            "usage": None,
        },
        separators=(",", ":"),
    ).encode()
    return frame(b"data: " + body + b"\n\n")


def frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
EVENT = chunk({"content": " held and screened"})
USAGE = frame(
    b'data: {"id":"chatcmpl-overhead0123456789","object":"chat.completion.chunk",'
    b'"created":1760000000,"model":"overhead-1","choices":[],"usage":{"prompt_tokens":1125,'
    b'"completion_tokens":375,"total_tokens":1500}}\n\n'
)
LAST = chunk({}, "stop") + USAGE + frame(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    def __init__(self, answer: bytes, rate: float, first_s: float, events: int) -> None:
        self.answer = answer
        self.period = 1 / rate
        self.first_s = first_s
        self.events = events
        self.left = 0
        self.due = 0.0
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body = body if not self.body else self.body + body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        if b'"stream":true' not in body:
            self.transport.write(self.answer)
            return
        loop = asyncio.get_running_loop()
        self.left = self.events
        self.due = loop.time() + self.first_s
        loop.call_at(self.due, self.begin)

    def begin(self) -> None:
        self.transport.write(HEAD + chunk({"role": "assistant", "content": ""}))
        self.event()

    def event(self) -> None:
        if self.transport.is_closing():
            return
        if self.left == 0:
            self.transport.write(LAST)
            return
        self.left -= 1
        self.transport.write(EVENT)
        self.due += self.period
        asyncio.get_running_loop().call_at(self.due, self.event)


async def serve(args: argparse.Namespace) -> None:
    tls = None
    if args.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.cert)
    answer = completion(args.size)
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(answer, args.rate, args.first_s, args.events),
        "127.0.0.1",
        0,
        ssl=tls,
        backlog=2048,
    )
    json.dump({"ready": {"port": server.sockets[0].getsockname()[1]}}, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second")
    parser.add_argument("--first-s", type=float, default=0.2)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--cert", default="", help="PEM with certificate and key")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
