"""What is refused before anything starts. That it starts, keeps up and stops in order is seen
on whole installations (test_e2e_processes.py)."""

import asyncio
import socket
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from forebay import config as configuration
from forebay.admission.key_store import KeyStore
from forebay.config import Loaded
from forebay.errors import Failure
from forebay.processes.supervisor import Supervisor, _address, _bind, _shown
from forebay.world import RealWorld

T = TypeVar("T")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folders are made here, so that a test sees what is left of them."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def loaded(**parts: Any) -> Loaded:
    tree: dict[str, Any] = {
        "server": {"port": 0},
        "admin": {"port": 0},
        "local": {"enabled": False},
    }
    for name, part in parts.items():
        tree[name] = {**tree.get(name, {}), **part}
    return Loaded(configuration.decode(tree), None, "v", [])


def refused(data: Path, config: Loaded) -> Failure:
    """What `start` refuses; everything it had taken is given back."""

    async def main() -> Failure:
        supervisor = Supervisor(config, data, lambda line: None)
        try:
            with pytest.raises(Failure) as caught:
                await supervisor.start()
            assert supervisor.children == []
            return caught.value
        finally:
            await supervisor.stop()

    return run(main())


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 20))


def create_key(data: Path, role: Any = "caller") -> None:
    store = KeyStore.open(data, RealWorld())
    store.create(role=role)
    store.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "0", "0.0.0.0 "])
def test_other_machines_are_let_in_with_keys_only(tmp_path: Path, host: str) -> None:
    """An empty host is every address to `bind`, and was none to us."""
    failure = refused(tmp_path, loaded(server={"host": host}))
    assert failure.code.name == "not_configured"
    if host.strip() == host:
        assert "can be reached from other machines" in str(failure)
        assert "forebay keys create" in failure.hint


def test_an_admins_key_lets_no_caller_in(tmp_path: Path) -> None:
    create_key(tmp_path, "admin")
    failure = refused(tmp_path, loaded(server={"host": "0.0.0.0"}))
    assert "no caller has a key yet" in str(failure)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300, "a..b", "256.1.1.1"])
@pytest.mark.parametrize("part", ["server", "admin"])
def test_a_host_that_is_no_address(tmp_path: Path, host: str, part: str) -> None:
    failure = refused(tmp_path, loaded(**{part: {"host": host}}))
    assert f"{part}.host" in str(failure)
    assert len(str(failure)) < 400


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    create_key(tmp_path)
    failure = refused(tmp_path, loaded(server={"host": "192.0.2.1"}))
    assert "Cannot listen on 192.0.2.1:0" in str(failure)


@pytest.mark.parametrize("part", ["server", "admin"])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_that_is_taken(tmp_path: Path, part: str, reuse: bool) -> None:
    """Also by one that would share it."""
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failure = refused(tmp_path, loaded(**{part: {"port": port}}))
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in str(failure)
    assert "--port" in failure.hint


def test_one_installation_for_a_folder(tmp_path: Path, scratch: Path) -> None:
    async def main() -> None:
        first = Supervisor(loaded(), tmp_path, lambda line: None)
        with pytest.raises(Failure) as caught:
            Supervisor(loaded(), tmp_path, lambda line: None)
        assert str(tmp_path) in str(caught.value)
        assert "FOREBAY_HOME" in caught.value.hint
        await first.stop()
        await Supervisor(loaded(), tmp_path, lambda line: None).stop()

    run(main())
    assert list(scratch.iterdir()) == []  # nothing stays behind, whichever way it ended


def test_the_admin_key_is_made_on_the_first_start_that_is_one(tmp_path: Path) -> None:
    """Shown once: not to be made, and lost, by a start that was refused."""

    async def main() -> None:
        config = loaded(server={"host": "0.0.0.0"})
        supervisor = Supervisor(config, tmp_path, lambda line: None)
        with pytest.raises(Failure):
            await supervisor.start()
        assert supervisor.admin_key is None
        await supervisor.stop()

    run(main())
    store = KeyStore.open(tmp_path, RealWorld())
    assert store.snapshot() == []
    store.close()


def test_sockets_are_given_back(tmp_path: Path) -> None:
    """The gateway's port was bound before the console's turned out to be taken."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        refused(tmp_path, loaded(server={"port": free}, admin={"port": taken}))
    _bind("127.0.0.1", free).close()


def test_workers_share_a_port() -> None:
    first = _bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    second = _bind("127.0.0.1", port, shared=True)
    assert second.getsockname()[1] == port
    assert first.get_inheritable()
    with pytest.raises(Failure):
        _bind("127.0.0.1", port)  # somebody else
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("", "0.0.0.0"),
        ("0", "0.0.0.0"),
        ("127.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_what_is_judged_is_what_is_bound(host: str, address: str) -> None:
    assert _address("server.host", host) == address


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::1", "[::1]"),
        ("box.local", "box.local"),
    ],
)
def test_an_address_to_paste(host: str, shown: str) -> None:
    assert _shown(host) == shown
