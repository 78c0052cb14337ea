import asyncio
import os
import random
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from forebay import tether
from forebay.errors import Failure
from forebay.processes.child import MAX_LINE, Backoff, Child, Lines
from forebay.tether import Launch
from forebay.world import RealWorld

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's coroutine on either loop, within a bound."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(work, 30))

    return run


def launch(code: str, *args: str, **rest: Any) -> Launch:
    argv = (sys.executable, "-P", "-c", textwrap.dedent(code), *args)
    return Launch("toy", argv, **rest)


READY_AND_WAIT = """
    from forebay import tether
    tether.hold()
    tether.announce(port=7, name="toy")
    import signal
    signal.pause()
"""


def quick() -> Backoff:
    return Backoff(first_s=0.01, most_s=0.02)


# -- the pure parts


def test_backoff_doubles_to_its_bound_with_up_to_half_taken_away() -> None:
    rng = random.Random(1)
    backoff = Backoff(first_s=0.5, most_s=30, steady_s=60)
    for ceiling in (0.5, 1, 2, 4, 8, 16, 30, 30, 30):
        assert ceiling / 2 <= backoff.next_s(0, rng) <= ceiling


def test_backoff_forgets_after_a_steady_life_only() -> None:
    rng = random.Random(1)
    backoff = Backoff(first_s=0.5, most_s=30, steady_s=60)
    for _ in range(8):
        backoff.next_s(0, rng)
    assert backoff.next_s(59.9, rng) >= 15
    assert backoff.next_s(60.0, rng) <= 0.5
    assert backoff.next_s(0, rng) >= 0.5


def test_backoff_survives_a_year_of_failures() -> None:
    backoff = Backoff(failures=1_000_000)
    assert 15 <= backoff.next_s(0, random.Random(1)) <= 30


@given(st.lists(st.sampled_from([b"a", b"bc\n", b"\n", b"d" * 70_000]), max_size=12))
def test_lines_are_the_same_however_the_bytes_are_cut(parts: list[bytes]) -> None:
    lines = Lines()
    out = [line for part in parts for line in lines.feed(part)]
    out += lines.finish()
    assert all(len(line) <= MAX_LINE for line in out)
    assert b"".join(out) == b"".join(parts).replace(b"\n", b"")


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (b'{"ready":{"port":1}}', {"port": 1}),
        (b'{"ready":{}}', {}),
        (b'{"ready":1}', None),
        (b'{"ready":{"a":"\xff"}}', None),
        (b'{"ready":{}, "x":1}', None),
        (b'{"ready":' + b"[" * 5000, None),
        (b'say {"ready":{}}', None),
        (b"", None),
    ],
)
def test_announcements_are_told_from_log_lines(line: bytes, facts: dict[str, Any] | None) -> None:
    assert tether.announced(line) == facts


def test_a_launch_shows_no_environment() -> None:
    assert "s3cret" not in repr(Launch("toy", ("true",), env={"KEY": "s3cret"}))


# -- one child


def test_a_child_announces_itself_and_stops_on_sigterm(run: Run) -> None:
    async def work() -> None:
        heard: list[dict[str, Any]] = []
        exits: list[int] = []
        child = Child(
            launch(READY_AND_WAIT),
            RealWorld(),
            log=lambda _: None,
            on_ready=heard.append,
            on_exit=exits.append,
        )
        assert child.describe() == "<Child toy STOPPED, 0 restarts>"
        child.start()
        facts = await child.ready(20)
        assert facts == {"port": 7, "name": "toy"}
        assert heard == [facts]
        assert child.describe().startswith(f"<Child toy READY, pid {child.pid} for ")
        await child.stop(grace_s=20)
        assert exits == [-signal.SIGTERM]
        assert child.describe() == "<Child toy STOPPED, last exit SIGTERM, 0 restarts>"

    run(work())


def test_a_child_that_ignores_sigterm_is_killed_with_its_session(run: Run) -> None:
    async def work() -> None:
        alive, held = os.pipe()
        child = Child(
            launch(
                """
                import os, signal, sys
                from forebay import tether
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.fork()  # a grandchild that knows nothing of tethers
                tether.announce() if os.getppid() == int(os.environ[tether.PARENT]) else None
                while True: signal.pause()
                """,
                pass_fds=(held,),
            ),
            RealWorld(),
            log=lambda _: None,
        )
        child.start()
        await child.ready(20)
        os.close(held)
        await child.stop(grace_s=0.05)
        assert child.exit_status == -signal.SIGKILL
        assert ended(alive)

    run(work())


def test_a_crash_loop_backs_off_and_counts(run: Run) -> None:
    async def work() -> None:
        world = RealWorld()
        enough = asyncio.Event()
        exits: list[int] = []
        lines: list[str] = []

        def on_exit(status: int) -> None:
            exits.append(status)
            if len(exits) == 4:
                enough.set()

        child = Child(
            launch("import sys; print('no weights', file=sys.stderr); sys.exit(3)"),
            world,
            log=lines.append,
            on_exit=on_exit,
            backoff=Backoff(first_s=0.02, most_s=0.08),
        )
        started_ns = world.now_ns()
        child.start()
        await enough.wait()
        elapsed_s = (world.now_ns() - started_ns) / 1e9
        assert elapsed_s >= (0.02 + 0.04 + 0.08) / 2
        await child.stop()
        assert exits[:4] == [3, 3, 3, 3]
        assert lines[:4] == ["no weights"] * 4
        assert child.restarts >= 3

    run(work())


def test_a_killed_child_comes_back_and_says_so_again(run: Run) -> None:
    async def work() -> None:
        again = asyncio.Event()
        pids: list[int | None] = []

        def on_ready(_: dict[str, Any]) -> None:
            pids.append(child.pid)
            if len(pids) == 2:
                again.set()

        child = Child(
            launch(READY_AND_WAIT),
            RealWorld(),
            log=lambda _: None,
            on_ready=on_ready,
            backoff=quick(),
        )
        child.start()
        await child.ready(20)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await again.wait()
        assert len(set(pids)) == 2
        assert child.restarts == 1
        await child.stop()

    run(work())


def test_a_wait_for_a_child_that_never_gets_ready_ends_with_its_last_words(run: Run) -> None:
    async def work() -> None:
        said = asyncio.Event()
        child = Child(
            launch("import signal; print('loading…', flush=True); signal.pause()"),
            RealWorld(),
            log=lambda _: said.set(),
        )
        child.start()
        await said.wait()
        with pytest.raises(Failure, match=r"not ready within 0.05 s.*last words: loading…"):
            await child.ready(0.05)
        await child.stop()
        with pytest.raises(Failure, match="stopped"):
            await child.ready(1)

    run(work())


def test_a_child_that_is_too_slow_is_killed_and_tried_again(run: Run) -> None:
    async def work() -> None:
        exits: asyncio.Queue[int] = asyncio.Queue()
        lines: list[str] = []
        child = Child(
            launch("import signal; signal.pause()"),
            RealWorld(),
            log=lines.append,
            on_exit=exits.put_nowait,
            ready_within_s=0.05,
            backoff=quick(),
        )
        child.start()
        assert [await exits.get(), await exits.get()] == [-signal.SIGKILL] * 2
        await child.stop()
        assert "not ready within 0.05 s: killed" in lines

    run(work())


def test_a_probe_replaces_the_announcement(run: Run) -> None:
    async def work() -> None:
        answers = iter([False, False, True])

        async def probe() -> bool:
            return next(answers)

        child = Child(
            launch("import signal; signal.pause()"),
            RealWorld(),
            log=lambda _: None,
            probe=probe,
            probe_every_s=0.001,
        )
        child.start()
        assert await child.ready(20) == {}
        assert list(answers) == []
        await child.stop()

    run(work())


def test_a_program_that_does_not_exist_is_a_failed_life(run: Run) -> None:
    async def work() -> None:
        said = asyncio.Event()
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            said.set()

        child = Child(Launch("toy", ("/nowhere/at/all",)), RealWorld(), log=log, backoff=quick())
        child.start()
        await said.wait()
        await child.stop()
        assert "could not start /nowhere/at/all" in lines[0]

    run(work())


def test_a_log_file_gets_both_streams_and_not_the_announcement(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        exits: asyncio.Queue[int] = asyncio.Queue()
        child = Child(
            launch(
                """
                import sys
                from forebay import tether
                print("on stdout", flush=True)
                tether.announce()
                print("on stderr", file=sys.stderr)
                print("unfinished", end="", flush=True)
                """
            ),
            RealWorld(),
            log=tmp_path / "toy.log",
            on_exit=exits.put_nowait,
        )
        child.start()
        await exits.get()
        await child.stop()
        lines = (tmp_path / "toy.log").read_text().split()
        assert sorted(lines) == ["on", "on", "stderr", "stdout", "unfinished"]

    run(work())


def test_environment_folder_and_descriptors_reach_the_child(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        near, far = os.pipe()
        child = Child(
            launch(
                """
                import os, signal, sys
                from forebay import tether
                tether.hold()
                os.write(int(sys.argv[1]), b"hello")
                secret = "FOREBAY_TEST_CANARY" in os.environ
                tether.announce(cwd=os.getcwd(), word=os.environ["WORD"], canary=secret)
                signal.pause()
                """,
                str(far),
                env={"WORD": "hi", "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=str(tmp_path),
                pass_fds=(far,),
            ),
            RealWorld(),
            log=lambda _: None,
        )
        child.start()
        facts = await child.ready(20)
        assert facts == {"cwd": folder, "word": "hi", "canary": False}
        assert os.read(near, 5) == b"hello"
        await child.stop()
        os.close(near)
        os.close(far)

    folder = os.path.realpath(tmp_path)
    monkeypatch.setenv("FOREBAY_TEST_CANARY", "1")
    run(work())


# -- killed with its parent: three real processes, and a pipe that ends when the last is gone

PARENT = """
    import asyncio, signal, sys
    from forebay.processes.child import Child
    from forebay.tether import Launch
    from forebay.world import RealWorld

    async def main(loop_name, held, code):
        argv = (sys.executable, "-P", "-c", code)
        child = Child(Launch("toy", argv, pass_fds=(int(held),)), RealWorld(), log=print)
        child.start()
        await child.ready(20)
        print(child.pid, flush=True)
        await asyncio.Event().wait()

    if sys.argv[1] == "uvloop":
        import uvloop
        uvloop.run(main(*sys.argv[1:]))
    else:
        asyncio.run(main(*sys.argv[1:]))
"""

CHILDREN = {
    "kernel": "tether.hold(ask_kernel=True)",
    "stdin": "tether.hold(ask_kernel=False)",
}


def ended(pipe: int, within_s: float = 20) -> bool:
    """Whether everybody who held the other end is gone. Closes it."""
    readable, _, _ = select.select([pipe], [], [], within_s)
    try:
        return bool(readable) and os.read(pipe, 1) == b""
    finally:
        os.close(pipe)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("means", ["kernel", "stdin"])
def test_kill_9_of_the_parent_kills_the_child(loop: str, means: str) -> None:
    if means == "kernel" and sys.platform != "linux":
        pytest.skip("prctl is Linux's")
    # The kernel's means must work alone: that child has let go of its stdin.
    let_go = "import os; near, far = os.pipe(); os.dup2(near, 0)" if means == "kernel" else ""
    code = f"from forebay import tether\n{let_go}\n{CHILDREN[means]}\ntether.announce()\n"
    code += "import signal\nsignal.pause()"
    alive, held = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), loop, str(held), code],
        stdout=subprocess.PIPE,
        pass_fds=(held,),
    )
    os.close(held)
    assert parent.stdout is not None
    with parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)  # it lives
        parent.kill()
        assert ended(alive)


def test_a_child_whose_parent_died_before_it_held_on_exits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from forebay import tether; tether.hold(); print('held')"],
        env={**os.environ, tether.PARENT: "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (tether.ORPHANED, b"")


def test_a_module_started_by_hand_holds_to_nobody() -> None:
    env = {name: value for name, value in os.environ.items() if name != tether.PARENT}
    done = subprocess.run(
        [sys.executable, "-c", "from forebay import tether; tether.hold(); print('here')"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"here\n")
