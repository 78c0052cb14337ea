"""What a child process owes its parent: to say when it is ready, and never to outlive it.

A model server that survives the gateway keeps a gigabyte and a port for nobody. No parent
can promise to clean up, `kill -9` gives it no time, so the child holds the line itself, by
two means:

1. Linux: `prctl(PR_SET_PDEATHSIG, SIGKILL)`, prctl(2): the kernel kills the child when the
   *thread* that forked it ends. So children are spawned from the thread of the event loop,
   and a parent that died between fork and prctl is found by asking for the parent again.
2. Everywhere: the child's stdin is a pipe whose other end only the parent holds. A thread
   reads it; at its end the parent is gone, whoever killed it, and the process exits. It needs
   the interpreter for a moment: code that never releases it delays this second means only.

Readiness is one JSON line on stdout, `{"ready": {...}}`: a child of any language can write
it, and it carries what only the child knows (its port, its context window). The parent's half
of this contract is `processes.child`; this module is at the bottom floor because children
live on several.
"""

import ctypes
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import msgspec

#: Names the parent to hold to, set by `processes.child`; absent where a person started it.
PARENT = "FOREBAY_PARENT_PID"

_PR_SET_PDEATHSIG = 1
#: Exit status of a child that found its parent gone. Nobody is left to read it but people.
ORPHANED = 75


class Launch(msgspec.Struct, frozen=True):
    """What to run. `env` is the child's whole environment, None inherits the parent's."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] | None = None
    cwd: str | None = None
    #: open file descriptors the child gets under the same numbers (listening sockets, pipes)
    pass_fds: tuple[int, ...] = ()

    def __repr__(self) -> str:  # env holds secrets
        return f"<Launch {self.name}: {' '.join(self.argv)}>"


def python(module: str, *args: str) -> tuple[str, ...]:
    """The command line that runs a module of this installation as a child.

    -P: a `tokenizers.py` in the working directory must not be imported instead of the package.
    """
    return (sys.executable, "-P", "-m", module, *args)


def hold(*, ask_kernel: bool = sys.platform == "linux") -> None:
    """Die with the parent, from here on. First thing in a child's `main`.

    Does nothing where no parent asked for it: a person runs the module by hand.
    """
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    if ask_kernel:
        _ask_kernel()
    if str(os.getppid()) != parent:
        os._exit(ORPHANED)
    threading.Thread(target=_watch, args=(0,), name="tether", daemon=True).start()


def announce(**facts: Any) -> None:
    """Say that this process is ready, and what the parent must know. One line on stdout."""
    sys.stdout.flush()
    os.write(1, msgspec.json.encode({"ready": facts}) + b"\n")


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    ready: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode


def announced(line: bytes) -> dict[str, Any] | None:
    """The facts of an announcement; None for any other line."""
    if not line.startswith(b'{"ready":'):
        return None
    try:
        return _decode(line).ready
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _ask_kernel() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        # A sandbox may forbid it; the watcher still holds.
        sys.stderr.write(f"tether: prctl refused: {os.strerror(ctypes.get_errno())}\n")


def _watch(stdin: int) -> NoReturn:
    try:
        while os.read(stdin, 4096):
            pass
    except OSError:
        pass  # a closed descriptor says the same as its end
    os._exit(ORPHANED)
