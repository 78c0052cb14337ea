"""Says which locked packages would have to be compiled, and fails where one would.

Two commands set a machine up because every package in uv.lock comes as a wheel, for every
Python we support. A lock that lost one of them would still work on the machine of whoever
updated it. So this walks the lock as an installer would: from forebay with all its extras
and groups, along the dependencies whose markers hold, once for each Python.

The platform is Linux x86_64 with glibc 2.28 (Debian 10, RHEL 8: 2018) or newer. Elsewhere
most packages have wheels too, but nobody checks.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

PYTHONS = [(3, 11), (3, 12), (3, 13), (3, 14)]
GLIBC_MINOR = 28
ROOT = "forebay"

Package = dict[str, Any]


def supported(python: tuple[int, int]) -> set[Tag]:
    """Every wheel tag that an interpreter of this version accepts on that platform."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    platforms += ["linux_x86_64"]
    interpreter = f"cp{python[0]}{python[1]}"
    return {
        *cpython_tags(python, platforms=platforms),
        *compatible_tags(python, interpreter, platforms),
    }


def environment(python: tuple[int, int]) -> dict[str, str]:
    return {
        "python_version": f"{python[0]}.{python[1]}",
        "python_full_version": f"{python[0]}.{python[1]}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }


def needed(packages: list[Package], python: tuple[int, int]) -> list[Package]:
    """The packages that are installed with everything asked for, in order of name."""
    where = environment(python)
    by_name: dict[str, list[Package]] = {}
    for package in packages:
        by_name.setdefault(package["name"], []).append(package)

    def holds(marker: str | None) -> bool:
        return marker is None or Marker(marker).evaluate(where)

    def find(link: Package) -> Package:
        # Where a package is locked in several versions, each link names its own.
        versions = by_name[link["name"]]
        return next(p for p in versions if link.get("version", p["version"]) == p["version"])

    def links(package: Package, extras: frozenset[str]) -> Iterator[Package]:
        yield from package.get("dependencies", [])
        for extra, more in package.get("optional-dependencies", {}).items():
            if extra in extras or package["name"] == ROOT:
                yield from more
        for more in package.get("dev-dependencies", {}).values():
            yield from more

    found: dict[tuple[str, str], Package] = {}
    seen: set[tuple[str, str, frozenset[str]]] = set()
    todo = [(by_name[ROOT][0], frozenset[str]())]
    while todo:
        package, extras = todo.pop()
        key = (package["name"], package.get("version", ""))  # forebay's is in its code
        if (*key, extras) in seen:
            continue
        seen.add((*key, extras))
        found[key] = package
        for link in links(package, extras):
            if holds(link.get("marker")):
                todo.append((find(link), frozenset(link.get("extra", ()))))
    return [found[key] for key in sorted(found) if key[0] != ROOT]


def has_wheel(package: Package, tags: set[Tag]) -> bool:
    names = (wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", []))
    return any(parse_wheel_filename(name)[3] & tags for name in names)


def check(lock: dict[str, Any]) -> tuple[list[str], int]:
    """Complaints, one line each, and how many packages were looked at."""
    complaints: dict[str, list[str]] = {}
    looked_at: set[str] = set()
    for python in PYTHONS:
        tags = supported(python)
        for package in needed(lock["package"], python):
            name = f"{package['name']} {package['version']}"
            looked_at.add(name)
            if not has_wheel(package, tags):
                complaints.setdefault(name, []).append(f"{python[0]}.{python[1]}")
    lines = [
        f"{name}: no wheel for Python {', '.join(pythons)} on Linux x86_64"
        for name, pythons in complaints.items()
    ]
    return lines, len(looked_at)


def main() -> int:
    path = Path(__file__).parent.parent / "uv.lock"
    complaints, count = check(tomllib.loads(path.read_text()))
    for line in complaints:
        print(line, file=sys.stderr)
    if not complaints:
        spans = " ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        print(f"uv.lock: all {count} packages have wheels for Python {spans} on Linux x86_64")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
