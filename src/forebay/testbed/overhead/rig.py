"""The processes that are measured: Forebay, nginx, the upstream; and their CPU time.

Forebay and nginx have one core to themselves, upstream and driver the other, by
`sched_setaffinity`. CPU time is user + system of *all* of a subject's processes, from
/proc/PID/stat: what getrusage gives a parent for its children, without waiting for their end.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import yaml

from forebay.testbed.overhead.load import now

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
SUBJECT_CORE, LOAD_CORE = 0, 1


class Subject(msgspec.Struct):
    """Something with a port that is measured."""

    name: str
    pid: int
    port: int

    def pids(self) -> list[int]:
        return _tree(self.pid)

    def cpu_s(self) -> float:
        """User and system time of all its processes so far, in seconds."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def rss_bytes(self) -> int:
        return sum(_rss_bytes(pid) for pid in self.pids())


@contextmanager
def upstream(*args: str) -> Iterator[int]:
    """The upstream of `testbed.overhead.upstream`; yields its port."""
    command = [sys.executable, "-m", "forebay.testbed.overhead.upstream", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(process.pid, {LOAD_CORE})
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["ready"]["port"]
    finally:
        _end(process)


@contextmanager
def forebay(folder: Path, upstream_url: str, **provider: str) -> Iterator[tuple[Subject, float]]:
    """A whole installation without local models; yields it and its seconds to ready."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    config = home / "forebay.yaml"
    settings = {
        "kind": "openai",
        "base_url": upstream_url,
        "api_key": "sk-overhead-upstream-key",
        "prices": "openai",
        **provider,
    }
    config.write_text(
        yaml.safe_dump({"providers": {"bench": settings}, "local": {"enabled": False}})
    )
    command = [sys.executable, "-m", "forebay", "up", "--json", "--port", "0", "--admin-port", "0"]
    began = now()
    process = subprocess.Popen(
        [*command, "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FOREBAY_HOME": str(home)},
        preexec_fn=lambda: os.sched_setaffinity(0, {SUBJECT_CORE}),
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        port = int(ready["gateway"].removesuffix("/v1").rpartition(":")[2])
        yield Subject("forebay", process.pid, port), now() - began
    finally:
        _end(process)


@contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Subject]:
    """nginx as a proxy with keep-alive to its upstream. Raises FileNotFoundError without it."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        raise FileNotFoundError("nginx is not installed: apt-get install nginx-light")
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream_port))
    process = subprocess.Popen(
        [program, "-c", str(config), "-e", str(folder / "nginx.log")],
        preexec_fn=lambda: os.sched_setaffinity(0, {SUBJECT_CORE}),
    )
    try:
        _wait_for_port(port)
        yield Subject("nginx", process.pid, port)
    finally:
        _end(process)


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_buffer_size 16k;
  client_header_buffer_size 8k; keepalive_requests 1000000;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    import socket

    for _ in range(20_000):  # connecting to a closed port takes ~50 µs: about a second
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise TimeoutError(f"nothing listens on port {port}")


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
