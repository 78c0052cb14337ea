"""The frame around the code: what is locked, built, copied and said of it agrees."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import forebay
from forebay import config
from forebay.inference.catalogue import KNOWN

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text())


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", requirement)[0].lower() for requirement in requirements}


# -- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"forebay-{forebay.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_nothing_that_runs_by_itself(
    wheel: zipfile.ZipFile,
) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"forebay", f"forebay-{forebay.__version__}.dist-info"}
    assert not [name for name in wheel.namelist() if name.endswith((".pth", ".pyc", ".so"))]


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    """Templates, migrations and py.typed too: what is not Python is easily left behind."""
    package = ROOT / "src" / "forebay"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    here = {str(path.relative_to(ROOT / "src")) for path in files}
    assert "forebay/stores/migrations/0001_tenancy.sql" in here
    assert here <= set(wheel.namelist())


def test_who_installs_by_pip_compiles_nothing(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(f"forebay-{forebay.__version__}.dist-info/METADATA").decode()
    needs = names(re.findall(r"^Requires-Dist: (.*)$", metadata, re.M))
    assert "msgspec" in needs
    assert not needs & names(PROJECT["dependency-groups"]["weights"])
    assert not needs & {"llama-cpp-python", "llm", "torch"}


def test_the_version_is_said_once() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/forebay/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", forebay.__version__)


# -- the lock


def test_every_locked_package_comes_from_the_registry_with_hashes() -> None:
    for package in LOCK["package"]:
        if package["name"] == "forebay":
            assert package["source"] == {"editable": "."}
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_weights_bring_no_runner_of_their_own() -> None:
    locked = {package["name"] for package in LOCK["package"]}
    assert names(PROJECT["dependency-groups"]["weights"]) <= locked
    assert not locked & {"llama-cpp-python", "llm", "torch"}


def test_the_weights_locked_here_are_those_that_are_pulled_elsewhere() -> None:
    locked = {package["name"]: package for package in LOCK["package"]}
    assert names(PROJECT["dependency-groups"]["weights"]) == {w.package for w in KNOWN.values()}
    for weights in KNOWN.values():
        package = locked[weights.package]
        assert package["version"] == weights.version
        assert [wheel["hash"] for wheel in package["wheels"]] == [f"sha256:{weights.wheel_sha256}"]


def test_uv_is_pinned_by_hash() -> None:
    pin = (ROOT / "scripts" / "uv.txt").read_text()
    assert re.search(r"^uv==\d+\.\d+\.\d+ \\\n    --hash=sha256:[0-9a-f]{64}", pin, re.M)


def test_the_lock_has_a_wheel_of_everything_for_every_python() -> None:
    complaints, count = script("check_wheels").check(LOCK)
    assert complaints == []
    assert count > 50


def lock_of(*wheels: str, marker: str | None = None) -> dict[str, Any]:
    """A lock in which forebay needs one package, `thing`, that has these wheels."""
    link = {"name": "thing"} | ({"marker": marker} if marker else {})
    thing = {"name": "thing", "version": "1", "wheels": [{"url": f"x/{name}"} for name in wheels]}
    return {"package": [{"name": "forebay", "optional-dependencies": {"x": [link]}}, thing]}


@pytest.mark.parametrize(
    ("lock", "lacking"),
    [
        (lock_of("thing-1-py3-none-any.whl"), ""),
        (lock_of("thing-1-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"), ""),
        (lock_of(), "3.11, 3.12, 3.13, 3.14"),
        (lock_of("thing-1-cp312-abi3-manylinux_2_28_x86_64.whl"), "3.11"),
        (lock_of("thing-1-cp313-cp313-manylinux2014_x86_64.whl"), "3.11, 3.12, 3.14"),
        (lock_of("thing-1-py3-none-macosx_11_0_arm64.whl"), "3.11, 3.12, 3.13, 3.14"),
        (lock_of("thing-1-py3-none-manylinux_2_39_x86_64.whl"), "3.11, 3.12, 3.13, 3.14"),
        (lock_of(marker="sys_platform == 'win32'"), ""),
        (lock_of(marker="python_full_version < '3.12'"), "3.11"),
    ],
)
def test_a_missing_wheel_is_noticed(lock: dict[str, Any], lacking: str) -> None:
    complaints, _ = script("check_wheels").check(lock)
    says = f"thing 1: no wheel for Python {lacking} on Linux x86_64"
    assert complaints == ([says] if lacking else [])


# -- what is said


def test_every_dependency_says_what_it_is_for() -> None:
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", page, re.M)
    explained = {name.lower() for row in rows for name in re.findall(r"`([^`]+)`", row)}
    asked_for = names(PROJECT["project"]["dependencies"])
    for part in ("optional-dependencies", "dependency-groups"):
        table = PROJECT["project"].get(part) or PROJECT.get(part) or {}
        for requirements in table.values():
            asked_for |= names(requirements)
    assert explained == asked_for


def test_the_changelog_speaks_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", text, re.M)
    assert headings[0] == "Unreleased" or headings[0] == forebay.__version__


def test_every_lint_exception_gives_its_reason() -> None:
    """`# noqa: RULE` and why, behind it or on the line above; `type: ignore` names its code."""
    unexplained = []
    for folder in ("src", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            above = ""
            for number, line in enumerate(path.read_text().splitlines(), 1):
                bare = re.search(r"# noqa(?!: [A-Z]+\d+)|# type: ignore(?!\[)", line)
                mute = re.search(r"# noqa: [A-Z0-9, ]+$", line)
                if bare or (mute and not above.strip().startswith("#")):
                    unexplained.append(f"{path.relative_to(ROOT)}:{number}")
                above = line
    assert unexplained == []


# -- the verbs


def test_make_help_lists_every_verb() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^  make (\S+) ", shown, re.M) == phony[1].split()


@pytest.mark.parametrize("path", [".ci/run", "scripts/uv"])
def test_scripts_can_be_run_and_parsed(path: str) -> None:
    file = ROOT / path
    assert os.access(file, os.X_OK)
    shell = "bash" if "bash" in file.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(file)], check=True)


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A checkout's scripts/ on a machine that has a shell and whatever a test puts into bin/."""
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "cut", "dirname", "sed"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


def put_program(machine: Path, name: str, text: str) -> None:
    program = machine / "bin" / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def run_uv(machine: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(machine / "bin" / "sh"), str(machine / "scripts" / "uv"), *words],
        env={"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_told_before_anything_is_fetched(bare_machine: Path) -> None:
    put_program(bare_machine, "python3", "echo 'Python 3.9.2'; exit 1")
    done = run_uv(bare_machine, "sync")
    assert done.returncode == 1
    assert "no Python >= 3.11 found (python3 is Python 3.9.2)" in done.stderr
    assert not (bare_machine / ".venv-tools").exists()


def test_a_python_that_can_install_nothing_is_told(bare_machine: Path) -> None:
    # It has neither venv nor pip (-m fails), as Debian's bare python3.
    put_program(bare_machine, "python3", '[ "$1" = -m ] && exit 1; echo "$0"')
    (bare_machine / "bin" / "rm").symlink_to(shutil.which("rm") or "")
    done = run_uv(bare_machine, "sync")
    assert done.returncode == 1
    assert "has neither venv nor pip" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_a_uv_of_the_pinned_version_is_used_as_it_is(bare_machine: Path) -> None:
    pinned = re.search(r"^uv==(\S+)", (ROOT / "scripts" / "uv.txt").read_text(), re.M)
    assert pinned is not None
    put_program(bare_machine, "python3", 'echo "$0"')
    put_program(
        bare_machine,
        "uv",
        f'[ "$1" = --version ] && echo "uv {pinned[1]} (x)" && exit; echo "$UV_PYTHON $*"',
    )
    done = run_uv(bare_machine, "sync", "--frozen")
    assert done.stdout == f"{bare_machine}/bin/python3 sync --frozen\n"


def test_what_the_container_copies_is_there_and_not_ignored() -> None:
    lines = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Containerfile").read_text(), re.M)
    copied = {source for line in lines for source in line.split()[:-1]}
    assert "src" in copied
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert set(let_in) == copied


def test_the_container_does_not_run_as_root() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.M) == ["forebay"]
    assert text.index("\nUSER forebay") < text.index("\nENTRYPOINT")


def test_the_containers_own_config_is_one() -> None:
    text = (ROOT / "Containerfile").read_text()
    printed = re.search(r"printf '(.*)' > forebay\.yaml", text)
    assert printed is not None
    settings = config.decode(yaml.safe_load(printed[1].replace("\\n", "\n")))
    assert settings.server.host == "0.0.0.0"
    assert f"EXPOSE {settings.server.port}\n" in text
    assert f"127.0.0.1:{settings.server.port}/healthz" in text
