"""Given a real browser, when an operator logs in and reads a trace that attacks the reader, then
the trace is read, nothing runs, and nothing is loaded from anywhere else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from chromium import PROGRAM, Chromium
from forebay.console import Console
from forebay.observe import record as records
from forebay.observe.writer import Writer
from records import Calendar, chat, chat_stream, id_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")

ATTACK = "<script>document.title='owned'</script><img src=https://evil.example/x onerror=alert(1)>"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A console over real sockets, with two traces."""
    world = Calendar()
    writer = Writer(tmp_path / "traces", world, secrets={})
    writer.write([records.encode(chat(1, prompt=ATTACK, answer=ATTACK))])
    writer.write([records.encode(chat_stream(2))])
    writer.close()
    console = Console(tmp_path / "traces", world, auth=lambda key: key == "fb_admin")
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(console, loop="asyncio", ws="none", lifespan="off", log_level="error")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()
    console.close()


def test_an_operator_logs_in_and_reads_a_trace(address: str, tmp_path: Path) -> None:
    with Chromium(tmp_path / "profile") as browser:
        browser.open(address + "/traces?model=openai/gpt-5-mini")
        browser.submit("form[action='/login']", key="fb_admin")
        assert browser.evaluate("location.pathname") == "/traces"
        browser.open(browser.evaluate("document.querySelector('.when a').href"))

        assert browser.evaluate("location.pathname") == f"/traces/{id_of(1)}"
        said = browser.evaluate(
            "[...document.querySelectorAll('.said .text')].map(e => e.textContent)"
        )
        assert said == ["You answer in one sentence.", ATTACK, ATTACK]
        assert browser.evaluate("document.title") == f"{id_of(1)} · Forebay"
        assert browser.evaluate("document.cookie") == ""  # HttpOnly: no script could read it
        # The style sheet was let through by the policy, and the picture has bars.
        assert browser.evaluate("getComputedStyle(document.querySelector('.fall')).display") == (
            "grid"
        )
        assert browser.evaluate("document.querySelector('rect').getBoundingClientRect().width") > 0

        browser.submit("form[action='/logout']")
        assert browser.evaluate("location.pathname") == "/login"
        browser.open(address + "/traces")
        assert browser.evaluate("location.pathname") == "/login"

    assert browser.complaints == []
    assert all(url.startswith(address) or url == "about:blank" for url in browser.requested)
