"""The child that runs a GGUF model: llama.cpp's own OpenAI-compatible server, by xllamacpp.

    python -m forebay.inference.llama --model FILE --name NAME …

To the gateway it is one more provider. It speaks /v1/chat/completions (streamed or not, JSON
schema enforced by grammar, tools where the model's chat template knows them), /v1/completions,
/v1/responses, /v1/messages, /v1/models and /health. When a caller goes, llama.cpp stops
generating: the next request of a busy slot had its first token after 0.06 s (2026-11-25).

What is set here, and why:

- bound to 127.0.0.1 with a key of its own from FOREBAY_LOCAL_KEY, since other users of the
  machine reach loopback too; only /health answers without it;
- no web page, no slot or metrics endpoints: the gateway has those;
- `context` is per request: llama.cpp divides its whole context evenly among the slots;
- llama.cpp's prompt cache may take 8 GiB by default; here 256 MiB;
- weights are verified before llama.cpp, a parser written in C++, sees them.

What the model can do is asked of the loaded model, not assumed: the announcement carries the
context window per request and whether its template knows tools. llama.cpp itself ignores tools
that a template does not mention, `tool_choice: required` included, so that is worth knowing.
"""

import argparse
import http.client
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from forebay import tether
from forebay.errors import Failure
from forebay.inference import KEY, weights

#: llama.cpp: 0 silent, 1 errors, 2 warnings, 3 a paragraph for each request.
VERBOSITY = 2
PROMPT_CACHE_MIB = 256


class Props(msgspec.Struct):
    """What llama.cpp's /props says of the loaded model, as far as we ask."""

    class Settings(msgspec.Struct):
        n_ctx: int  # per slot

    default_generation_settings: Settings
    chat_template_caps: dict[str, bool] = {}
    modalities: dict[str, bool] = {}


def main(argv: list[str] | None = None) -> int:
    tether.hold()
    # Ctrl-C's default is a traceback; SIGTERM's is the end. There is nothing to save.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = _parser().parse_args(argv)
    key = os.environ.get(KEY, "")
    if not key:
        raise SystemExit(f"forebay.inference.llama: {KEY} is not set; it is the server's API key.")
    try:
        weights.verify(args.model, args.sha256)
    except Failure as failure:
        raise SystemExit(f"forebay.inference.llama: {failure}") from None
    server, port = serve(args, key)
    props = ask(port, key)
    tether.announce(
        port=port,
        model=args.name,
        context=props.default_generation_settings.n_ctx,
        tools=props.chat_template_caps.get("supports_tools", False),
        images=props.modalities.get("vision", False),
    )
    while server is not None:  # holds it: it ends when collected
        signal.pause()
    return 0


def serve(args: argparse.Namespace, key: str) -> tuple[Any, int]:
    """Load and listen. Returns once requests are answered: 0.4 s for 98 MB, minutes for more."""
    import xllamacpp  # here: --help needs no 100 MB library

    params = xllamacpp.CommonParams()
    params.model.path = str(args.model)
    params.model_alias = {args.name}
    params.n_parallel = args.parallel
    params.n_ctx = args.context * args.parallel
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.fit_params = False  # what was asked for, or an error; nothing guessed
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.api_keys = [key]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = False
    params.verbosity = VERBOSITY
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise SystemExit(f"forebay.inference.llama: can't serve {args.model}: {error}") from None
    return server, int(server.listening_address.rpartition(":")[2])


def ask(port: int, key: str) -> Props:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/props", headers={"Authorization": f"Bearer {key}"})
        return msgspec.json.decode(connection.getresponse().read(), type=Props)
    finally:
        connection.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m forebay.inference.llama")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--name", required=True, help="what the model is called in requests")
    parser.add_argument("--sha256", default="", help="what the file must hash to (not checked)")
    parser.add_argument("--threads", type=int, default=1, help="for generating (1)")
    parser.add_argument("--context", type=int, default=4096, help="tokens a request (4096)")
    parser.add_argument("--parallel", type=int, default=4, help="requests at once (4)")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
