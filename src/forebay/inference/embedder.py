"""The child that embeds: loads all-MiniLM-L6-v2 and serves /v1/embeddings on 127.0.0.1.

    python -m forebay.inference.embedder --model FILE --name NAME …

Verified weights, a key of its own from FOREBAY_LOCAL_KEY, a free port that it announces, and it
dies with its parent, like the child in `llama`. What it answers is in `embeddings_app`.
"""

import argparse
import logging
import os
import signal
import socket
from pathlib import Path

import uvicorn

from forebay import tether
from forebay.errors import Failure
from forebay.inference import KEY, weights
from forebay.inference.embedding import DIMENSIONS, MAX_TOKENS, Embedder
from forebay.inference.embeddings_app import MAX_WAITING, App


def main(argv: list[str] | None = None) -> int:
    tether.hold()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = _parser().parse_args(argv)
    key = os.environ.get(KEY, "")
    if not key:
        raise SystemExit(f"forebay.inference.embedder: {KEY} is not set; it is the API key.")
    try:
        model = weights.read(args.model, args.sha256)
    except Failure as failure:
        raise SystemExit(f"forebay.inference.embedder: {failure}") from None
    engine = Embedder(model, args.threads)
    engine.embed([engine.tokens("the first pass allocates; do it before the first caller")])
    logging.basicConfig(level=logging.WARNING)
    listening = socket.create_server(("127.0.0.1", args.port), backlog=MAX_WAITING)
    app = App(engine, args.name, key)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    # From here on the kernel takes connections; they wait for the loop a moment.
    tether.announce(
        port=listening.getsockname()[1],
        model=args.name,
        context=MAX_TOKENS,
        dimensions=DIMENSIONS,
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m forebay.inference.embedder")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--name", required=True, help="what the model is called in requests")
    parser.add_argument("--sha256", default="", help="what the file must hash to (not checked)")
    parser.add_argument("--threads", type=int, default=1, help="for computing (1)")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
