"""uvicorn's server, told to stop instead of listening for signals itself.

uvicorn catches SIGTERM and, when it has served, raises it once more with the handlers that
stood before: the process ends on the spot, and with it whatever was to be done last, such as
handing over the records of the streams it had waited for.
"""

import contextlib
from collections.abc import Iterator

import uvicorn


class Server(uvicorn.Server):
    """Signals are its process's own: `should_exit` stops it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
