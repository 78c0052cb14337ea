"""`forebay check` and `forebay schema`, as typed."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from forebay.__main__ import main

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["check", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_a_file_it_says_what_starts_by_default(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    found = plan(capsys)
    assert found["config"] is None
    assert (found["gateway"], found["console"]) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert (found["workers"], found["local"], found["providers"]) == (1, "on", {})
    assert not (folder / "home").exists()  # it starts nothing and makes nothing


CONFIG = f"""
server: {{port: 9000, workers: 2}}
keys: {{loopback: required}}
local: {{enabled: false}}
providers:
  home: {{kind: openai, base_url: "http://home:8000/v1", api_key: {CANARY}}}
  far: {{kind: anthropic}}
models: {{fast: home/m}}
"""


def test_a_file_is_told_back_without_its_keys(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "mine.yaml"
    path.write_text(CONFIG)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    found = plan(capsys, "--config", str(path))
    assert found["config"] == str(path)
    assert (found["gateway"], found["workers"]) == ("127.0.0.1:9000", 2)
    assert found["keys"] == "needed by everybody"
    assert found["local"] == "off"
    assert found["models"] == {"fast": "home/m"}
    assert "http://home:8000" in found["providers"]["home"]
    assert "without a key" in found["providers"]["far"]
    assert "from the environment" in found["providers"]["openai"]
    assert CANARY not in json.dumps(found)
    assert main(["check", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert CANARY not in out
    for text in ("9000, 2 worker(s)", "fast → home/m", "far: ", str(path)):
        assert text in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servr: {}", "Did you mean server?"),
        ("providers: {a: {kind: opnai}}", "providers.a.kind"),
        ("providers: {a: {kind: azure_openai}}", "needs base_url"),
        ("providers: {a: {kind: openai, api_key: '${NO_SUCH_KEY}'}}", "NO_SUCH_KEY"),
        ("a: [", "line 1"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_could_not_start_is_said_in_a_line(
    capsys: pytest.CaptureFixture[str], folder: Path, text: str, said: str, form: tuple[str, ...]
) -> None:
    (folder / "forebay.yaml").write_text(text)
    assert main(["check", *form]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("forebay: forebay.yaml")
    assert err.count("\n") == 1


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"server": {"port": 1}})
    assert not validator.is_valid({"servr": {}})
