"""`forebay keys`, as typed."""

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from forebay.admission import keys as admission_keys
from forebay.admission.key_store import KeyStore
from forebay.admission.keys import Keyring
from forebay.commands import keys
from forebay.errors import Failure
from forebay.world import RealWorld


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path))
    return tmp_path


def forebay(*words: str) -> int:
    parser = ArgumentParser(prog="forebay")
    keys.add(parser.add_subparsers())
    args = parser.parse_args(["keys", *words])
    return int(args.run(args))


def printed_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert forebay(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_create_prints_the_key_alone_so_that_a_script_can_take_it(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert forebay("create", "--project", "shop", "--team", "web", "--expires", "30d") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(admission_keys.PATTERN + "\n", out)
    assert "key of project shop (team web), until 20" in err
    assert "can't be shown again" in err
    assert out.strip() not in err

    store = KeyStore.open(home / "data", RealWorld())
    ring = Keyring(store.pepper)
    ring.load(store.snapshot())
    store.close()
    assert ring.identify(out.strip().encode(), RealWorld().wall_ns()).project == "shop"


def test_create_as_json_carries_the_key_and_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed_json(capsys, "create", "--role", "admin", "--name", "on call")
    assert re.fullmatch(admission_keys.PATTERN, made["key"])
    assert made["role"] == "admin"
    assert made["name"] == "on call"
    assert made["state"] == "active"
    assert made["expires"] is None


def test_list_shows_every_key_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    first = printed_json(capsys, "create", "--name", "first")
    second = printed_json(capsys, "create", "--expires", "1h")
    forebay("revoke", first["id"])
    capsys.readouterr()
    assert forebay("list") == 0
    out = capsys.readouterr().out
    heading, one, two = out.splitlines()
    assert heading.split()[:6] == ["id", "key", "team", "project", "role", "state"]
    assert one.split()[0] == first["id"]
    assert "revoked" in one
    assert one.endswith("first")
    assert f"fb_…{second['last4']}" in two
    assert "active" in two
    assert first["key"] not in out
    assert second["key"] not in out


def test_list_as_json_holds_no_secret_and_no_digest(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed_json(capsys, "create")
    (listed,) = printed_json(capsys, "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert "digest" not in listed


def test_list_of_nothing_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert forebay("list") == 0
    assert "forebay keys create" in capsys.readouterr().out
    assert printed_json(capsys, "list") == []


def test_revoke_takes_the_beginning_of_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed_json(capsys, "create", "--name", "old laptop")
    assert forebay("revoke", made["id"][:14]) == 0
    out = capsys.readouterr().out
    assert out == f"{made['id']} (old laptop, …{made['last4']}) is revoked.\n"
    (listed,) = printed_json(capsys, "list")
    assert listed["state"] == "revoked"
    assert listed["revoked"] is not None


def test_revoke_of_an_unknown_id_is_refused() -> None:
    with pytest.raises(Failure, match="No key has an id that begins with 'key_nope'"):
        forebay("revoke", "key_nope")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5_400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("45s", 45)],
)
def test_lifetimes_people_write(text: str, seconds: int) -> None:
    assert keys.lifetime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "1month", "٣d"])
def test_lifetimes_that_make_no_sense(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no time"):
        keys.lifetime_s(text)


@pytest.mark.parametrize(
    "words", [[], ["create", "--role", "root"], ["create", "--expires", "soon"], ["revoke"]]
)
def test_wrong_usage_is_told_before_anything_is_made(words: list[str], home: Path) -> None:
    with pytest.raises(SystemExit) as exited:
        forebay(*words)
    assert exited.value.code == 2
    assert list(home.iterdir()) == []
