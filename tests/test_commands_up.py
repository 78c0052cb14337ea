"""`forebay up`, as typed, up to where processes would start."""

import json
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from forebay import config as configuration
from forebay.__main__ import command_line, main
from forebay.commands import up
from forebay.config import Loaded
from forebay.processes.supervisor import Ports


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def typed(*words: str) -> Namespace:
    return command_line().parse_args(["up", *words])


def overridden(*words: str, **parts: Any) -> Loaded:
    given = Loaded(configuration.decode(parts), None, "v", [])
    return up._overridden(given, typed(*words))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a start that is refused says: one line, and status 1."""
    assert main(["up", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("forebay: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_the_command_line_wins_over_the_file() -> None:
    forebay = overridden(
        "--host", "::1", "--port", "9000", "--admin-port", "9001", "--workers", "3", "--no-local",
        server={"port": 1, "head_s": 5},
        providers={"home": {"kind": "openai", "api_key": "k", "prices": ""}},
        models={"a": "home/m", "b": {"target": "home/n", "cache": False}},
    ).forebay  # fmt: skip
    assert (forebay.server.host, forebay.server.port, forebay.server.workers) == ("::1", 9000, 3)
    assert forebay.admin.port == 9001
    assert not forebay.local.enabled
    # and nothing else is touched
    assert forebay.server.head_s == 5
    assert forebay.providers["home"].api_key == "k"
    assert forebay.names()["b"].cache is False


def test_without_words_nothing_changes() -> None:
    given = configuration.decode({"server": {"port": 7}, "local": {"threads": 2}})
    assert up._overridden(Loaded(given, None, "v", []), typed()).forebay == given


def test_a_port_of_zero_is_a_choice() -> None:
    forebay = overridden("--port", "0", "--admin-port", "0").forebay
    assert (forebay.server.port, forebay.admin.port) == (0, 0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--port", "99999"), "server.port: Expected `int` <= 65535."),
        (("--port", "-1"), "server.port: Expected `int` >= 0."),
        (("--admin-port", "70000"), "admin.port: Expected `int` <= 65535."),
        (("--workers", "0"), "server.workers: Expected `int` >= 1."),
        (("--port", "8081"), "server.port and admin.port are both 8081."),
        (("--host", "no.such.host.invalid"), "is no address of this machine"),
        (("--host", "0.0.0.0", "--port", "0", "--admin-port", "0"), "forebay keys create"),
        (("--host", "", "--port", "0", "--admin-port", "0"), "forebay keys create"),
        (("--config", "missing.yaml"), "missing.yaml cannot be read"),
    ],
)
def test_what_cannot_start_says_so_in_a_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    assert text in said(capsys, *words)


def test_a_config_that_is_wrong(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "forebay.yaml").write_text("servr: {}")
    assert "Did you mean server?" in said(capsys)


def test_a_key_with_a_line_break(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to start, and each request was broken by it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789\n")
    text = said(capsys, "--port", "0", "--admin-port", "0")
    assert "providers.openai: api_key holds a character" in text
    assert "sk-canary" not in text


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert "Address already in use" in said(capsys, "--port", port, "--admin-port", "0")


def test_a_word_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["up", "--prot", "1"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


PORTS = Ports("http://127.0.0.1:8080/v1", "http://127.0.0.1:8081")


def test_for_programs_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    up._print_json(PORTS, "fb_key")
    assert json.loads(capsys.readouterr().out) == {
        "gateway": PORTS.gateway,
        "console": PORTS.console,
        "admin_key": "fb_key",
    }


def test_for_people_it_is_what_they_need_next(capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"providers": {"home": {"kind": "openai"}}, "models": {"fast": "home/m"}}
    up._print_banner(Loaded(configuration.decode(parts), None, "v", []), PORTS, "fb_key")
    out = capsys.readouterr().out
    for text in (PORTS.gateway, PORTS.console, "providers home", "fb_key", '"model": "fast"'):
        assert text in out
    assert f"curl {PORTS.gateway}/chat/completions" in out
    up._print_banner(Loaded(configuration.decode({}), None, "v", []), PORTS, None)
    out = capsys.readouterr().out
    assert "Admin key" not in out  # it was shown on the first start
    assert "local/smollm2" in out
