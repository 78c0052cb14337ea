"""Given a data folder with traces, when they are listed or shown in a terminal, then people read
what happened, scripts get JSON, and the terminal is told nothing by what was recorded."""

import json
from argparse import ArgumentParser
from pathlib import Path

import pytest

from forebay.commands import trace
from forebay.errors import Failure
from forebay.observe import record as records
from forebay.observe.record import Body, Record
from forebay.observe.writer import Writer
from records import Calendar, changed, chat, chat_stream, every_kind, failover, id_of


class Terminal:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.capsys = capsys

    def record(self, *made: Record) -> None:
        writer = Writer(self.home / "data" / "traces", Calendar(), secrets={})
        writer.write([records.encode(record) for record in made])
        writer.close()

    def run(self, *arguments: str) -> str:
        """What the command printed. Raises Failure as the command does."""
        parser = ArgumentParser()
        trace.add(parser.add_subparsers())
        args = parser.parse_args(["trace", *arguments])
        assert args.run(args) == 0
        return self.capsys.readouterr().out


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path))
    return Terminal(tmp_path, capsys)


def test_a_list_is_a_table_with_the_newest_first(terminal: Terminal) -> None:
    terminal.record(*every_kind())

    head, *lines = terminal.run("list").splitlines()

    assert head.split()[:3] == ["time", "(UTC)", "id"]
    assert [line.split()[2] for line in lines] == [id_of(n) for n in range(11, 0, -1)]
    assert "provider too slow" in lines[3]


def test_a_list_takes_filters_and_a_limit(terminal: Terminal) -> None:
    terminal.record(*every_kind())

    failed = json.loads(terminal.run("list", "--outcome", "failed", "--json"))
    two = json.loads(terminal.run("list", "--limit", "2", "--json"))
    older = json.loads(
        terminal.run("list", "--limit", "2", "--before", str(two["before"]), "--json")
    )

    assert [t["id"] for t in failed["traces"]] == [id_of(n) for n in (10, 9, 8)]
    assert [t["id"] for t in two["traces"] + older["traces"]] == [id_of(n) for n in (11, 10, 9, 8)]


@pytest.mark.parametrize("limit", ["0", "501", "x", "-1"])
def test_a_limit_out_of_range_is_refused(terminal: Terminal, limit: str) -> None:
    with pytest.raises(SystemExit):
        terminal.run("list", "--limit", limit)


def test_an_empty_list_says_why(terminal: Terminal) -> None:
    terminal.record()
    assert terminal.run("list") == "Nothing has been recorded yet.\n"

    terminal.record(chat(1))
    assert terminal.run("list", "--project", "nobody") == "No trace matches.\n"


def test_no_store_is_a_clear_failure(terminal: Terminal) -> None:
    with pytest.raises(Failure, match="There is no trace store"):
        terminal.run("list")


def test_show_tells_the_story_the_time_and_the_messages(terminal: Terminal) -> None:
    terminal.record(failover(7))

    text = terminal.run("show", id_of(7)[:20])

    for line in (
        id_of(7),
        "Answered by openai gpt-5-mini in 1.15 s. It cost $0.000974. 1 earlier attempt failed.",
        "cost             $0.00097365",
        "tokens           1,125 in, 256 of them cached, 375 out",
        "attempt 1        azure gpt-5-mini: provider_error, 503",
        "attempt 2        openai gpt-5-mini: ok, 200, finished: stop",
        "What is a forebay?",
        "assistant (finished: stop)",
        "The pool in front of a turbine house.",
    ):
        assert line in text.splitlines()


def test_the_waterfall_is_drawn_to_scale(terminal: Terminal) -> None:
    terminal.record(chat_stream(2))

    lines = terminal.run("show", id_of(2)).splitlines()

    (attempt,) = [line for line in lines if line.startswith("1. openai")]
    bar = attempt.partition("|")[2].partition("|")[0]
    assert len(bar) == 56
    # 418 of 621 ms until the head, 22 until the first content, 180 of content
    assert (bar.count("─"), bar.count("┄"), bar.count("█")) == (37, 2, 17)


def test_raw_prints_the_exact_text_of_every_body(terminal: Terminal) -> None:
    record = chat(1)
    terminal.record(record)

    text = terminal.run("show", record.id, "--raw")

    assert f"--- request, {len(record.body.data)} bytes\n{record.body.data.decode()}\n" in text
    assert "--- sent 1, " in text
    assert record.attempts[0].body.data.decode() in text


def test_json_is_the_twin_of_the_page(terminal: Terminal) -> None:
    record = chat(1)
    terminal.record(record)

    shown = json.loads(terminal.run("show", record.id, "--json"))

    assert shown["request"]["text"] == record.body.data.decode()
    assert shown["attempts"][0]["answer"]["text"] == record.attempts[0].body.data.decode()


def test_what_was_not_kept_is_said(terminal: Terminal) -> None:
    terminal.record(changed(chat(1), body=Body(form="off", size=5)))

    assert "The content was not kept" in terminal.run("show", id_of(1), "--raw")


@pytest.mark.parametrize("mode", [[], ["--raw"], ["--json"]])
def test_content_moves_no_cursor_and_turns_no_text_round(
    terminal: Terminal, mode: list[str]
) -> None:
    attack = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[bold]no markup[/bold]"
    record = chat(1, prompt=attack, answer=attack)
    terminal.record(
        changed(record, model=attack, project=attack, error=attack, outcome=attack, route=attack)
    )

    for text in (terminal.run("show", record.id, *mode), terminal.run("list", *mode[2:])):
        assert not any(c in text for c in "\x1b\x07\x9b\u202e")
    assert "[bold]no markup[/bold]" in terminal.run("show", record.id)


def test_an_unknown_id_is_a_clear_failure(terminal: Terminal) -> None:
    terminal.record(chat(1))

    with pytest.raises(Failure, match="No trace has the id 'req_nobody'"):
        terminal.run("show", "req_nobody")
