"""What tests share: a run in virtual time, a run over real sockets, the public data sets."""

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import uvloop
from hypothesis import settings

from forebay.testbed.virtual import VirtualWorld
from forebay.testbed.virtual import run as run_virtual

T = TypeVar("T")

# The same examples in every run: what a search finds is a test of its own afterwards.
# HYPOTHESIS_PROFILE=search looks for new ones, ten times as many.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


class VirtualRun(Protocol):
    def __call__(
        self, main: Callable[[VirtualWorld], Coroutine[Any, Any, T]], seed: int = 0
    ) -> T: ...


class RealRun(Protocol):
    def __call__(self, main: Coroutine[Any, Any, T]) -> T: ...


@pytest.fixture(scope="session")
def virtual() -> VirtualRun:
    """`virtual(main, seed)` runs `main(world)` where time jumps and the network is memory."""
    return run_virtual


@pytest.fixture(scope="session")
def real() -> RealRun:
    """`real(coro)` runs over real sockets on uvloop, as deployed; bind to port 0."""

    def run(main: Coroutine[Any, Any, T]) -> T:
        result: T = uvloop.run(main)
        return result

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public data sets that lie beside a checkout where there are any."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"{path} is not here: this test needs the public data sets")
    return path
