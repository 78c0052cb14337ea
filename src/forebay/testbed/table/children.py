"""The processes of a row: the simulated provider and the gateway, started and stopped.

Each says in one JSON line on stdout that it is ready, and ends when its stdin does, so that
none outlives a benchmark that was killed.
"""

import asyncio
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import yaml

from forebay.errors import Failure

_READY_S = 60.0
_STOP_S = 15.0
_LAST_LINES = 12


class Child:
    """A running `forebay VERB …`, its first line of stdout decoded in `ready`."""

    def __init__(self, process: asyncio.subprocess.Process, verb: str) -> None:
        self._process = process
        self._verb = verb
        self._said: deque[str] = deque(maxlen=_LAST_LINES)
        self._listening = asyncio.create_task(self._listen())
        self.ready: Any = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_words(self) -> str | None:
        """What it said at the end, if it has ended by itself; None while it runs."""
        if self._process.returncode is None:
            return None
        said = " | ".join(self._said) or "nothing"
        return f"`forebay {self._verb}` ended with {self._process.returncode}, saying: {said}"

    @classmethod
    async def start(cls, verb: str, *arguments: str, home: Path) -> "Child":
        """Raises Failure(internal) with its last words where it does not come up."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "forebay",
            verb,
            *arguments,
            "--json",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"FOREBAY_HOME": str(home)},
        )
        child = cls(process, verb)
        try:
            await child._await_ready()
        except BaseException:
            await child.stop()
            raise
        return child

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._listening

    async def _await_ready(self) -> None:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _READY_S)
        except TimeoutError:
            raise Failure(
                "internal", f"`forebay {self._verb}` was not ready within {_READY_S:.0f} s."
            ) from None
        try:
            self.ready = msgspec.json.decode(line)
        except msgspec.DecodeError:
            await asyncio.wait({self._listening}, timeout=1)
            raise Failure(
                "internal",
                f"`forebay {self._verb}` did not start.",
                hint="It said: " + (" | ".join(self._said) or repr(line)),
            ) from None

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._said.append(line.decode("utf-8", "replace").rstrip())


async def start_twin(presets: list[str], seed: int, home: Path) -> Child:
    """One simulated provider; its base URL is `ready["twins"][0]["base_url"]`."""
    chosen = [argument for preset in presets for argument in ("--preset", preset)]
    return await Child.start(
        "sim", "--dialect", "openai", *chosen, "--seed", str(seed), "--port", "0",
        "--no-bodies", "--until-eof", home=home,
    )  # fmt: skip


async def start_gateway(config: dict[str, Any], home: Path) -> Child:
    """A whole gateway with this forebay.yaml; its base URL is `ready["gateway"]`."""
    file = home / "forebay.yaml"
    file.write_text(yaml.safe_dump(config))
    return await Child.start(
        "up", "--config", str(file), "--port", "0", "--admin-port", "0", "--no-local", home=home
    )
