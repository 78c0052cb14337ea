"""A real Forebay, as `forebay up` starts it: its processes, a home of its own, free ports.

`running_forebay` has the local models and no other provider; one for the whole session.
`start(config, …)` starts one with a config of the test's own.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from openai import OpenAI


class Running(msgspec.Struct):
    """`base_url` without /v1; `home` is its FOREBAY_HOME."""

    base_url: str
    console_url: str
    admin_key: str
    home: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return status

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.base_url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base_url + path, data, {"content-type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


def start(
    home: Path, config: dict[str, Any] | None = None, *args: str, env: dict[str, str] | None = None
) -> Running:
    """Start one and wait until it serves; local models may still be loading."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "forebay", "up", "--json", "--port", "0", "--admin-port", "0"]
    if config is not None:
        path = home / "forebay.yaml"
        path.write_text(yaml.safe_dump(config))
        command += ["--config", str(path)]
    log = (home / "stderr.log").open("w")
    with log:
        process = subprocess.Popen(
            [*command, *args],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=home,
            env=_environment(home) | (env or {}),
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"forebay up ended: {(home / 'stderr.log').read_text()}"
    ready = json.loads(line)
    return Running(
        ready["gateway"].removesuffix("/v1"),
        ready["console"],
        ready["admin_key"] or "",
        home,
        process,
    )


def _environment(home: Path) -> dict[str, str]:
    """Without the developer's own keys: they would add providers."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_PROXY", "_proxy"))}
    return kept | {"FOREBAY_HOME": str(home)}


def wait_for(running: Running, model: str) -> None:
    """Until a model answers. While it loads the gateway says 503 and when to ask again, which
    is what the official SDK waits for."""
    with OpenAI(base_url=running.base_url + "/v1", api_key="none", max_retries=60) as client:
        client.chat.completions.create(
            model=model, max_tokens=1, messages=[{"role": "user", "content": "Hi"}]
        )


@pytest.fixture(scope="session")
def running_forebay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("home"))
    try:
        wait_for(running, "local/smollm2-135m-instruct")
        yield running
    finally:
        running.stop()
