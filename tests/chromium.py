"""A real browser, driven over a pipe: Chromium's own protocol, no driver and no websocket.

Chromium reads commands from file descriptor 3 and writes answers and events to 4, each a JSON
text ended by NUL. It is started without any state of its own and without a network beyond
this machine's.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
DEADLINE_S = 60.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


#: Puts the pipe's ends where Chromium looks for them; by way of high numbers, since either may
#: be 3 or 4 already.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 60), os.dup2(int(sys.argv[2]), 61)
os.dup2(60, 3), os.dup2(61, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one page. A context manager: the browser ends with it."""

    def __init__(self, profile: Path) -> None:
        """`profile` is an empty folder. Raises RuntimeError where no Chromium is installed."""
        if PROGRAM is None:
            raise RuntimeError("chromium is not installed")
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _LAUNCH,
                str(their_in),
                str(their_out),
                PROGRAM,
                *_FLAGS,
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        self._held = b""
        self._number = 0
        #: what pages wrote to their consoles, refused loads and errors among it
        self.complaints: list[str] = []
        #: addresses that pages asked for
        self.requested: list[str] = []
        self._session = ""
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result. Raises RuntimeError where it failed."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        self.do("Page.navigate", url=address)
        self._await("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page (our tool; pages have no script)."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def submit(self, form: str, **fields: str) -> None:
        """Fill a form (a CSS selector) and send it as a person does, and wait for what comes."""
        for name, value in fields.items():
            box = f"document.querySelector({json.dumps(form)}).elements[{json.dumps(name)}]"
            self.evaluate(f"{box}.value = {json.dumps(value)}")
        button = f"document.querySelector({json.dumps(form)}).querySelector('[type=submit]')"
        self.evaluate(f"{button}.click()")
        self._await("Page.loadEventFired")

    def look(self, path: Path, width: int = 1360, height: int = 900, *, dark: bool = False) -> None:
        """A picture of the whole page."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        shot = self.do("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _await(self, method: str) -> None:
        while (message := self._next()).get("method") != method:
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params))
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + DEADLINE_S  # noqa: TID251 - real processes, real time
        while b"\0" not in self._held:
            left = end - time.monotonic()  # noqa: TID251
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise TimeoutError(f"chromium said nothing for {DEADLINE_S} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("chromium ended")
            self._held += data
        message, _, self._held = self._held.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded
