"""What the pages promise is run, and what they point at is there.

Each page is read from top to bottom, as a person would, in a folder of its own, against one
gateway that runs. By the language of a fenced block:

- `console`: lines that begin with `$ ` are run by bash (a line that ends in a backslash goes
  on), and what follows them must appear in the output: each line, in order, with `…` for
  whatever may differ. The command must succeed.
- `bash`, `python`: run as a script; it must succeed.
- data (`text`, `yaml`, `json`, …): shown, not run.

A comment on the line right above can say otherwise: `<!-- not run: reason -->`, or
`<!-- file: forebay.yaml -->` to put the block into that file for the snippets after it.
The addresses in the pages, 127.0.0.1:8080 and :8081, become those of the gateway under test.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pytest

from forebay.admission.keys import PATTERN

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

RUN = {"console", "bash", "python"}
DATA = {"text", "yaml", "json", "toml", "http", "sql"}
#: Seconds one command of a page may take; the slowest is an answer of the local model.
LIMIT_S = 60

_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
_NOTE = re.compile(r"<!-- (not run|file): (\S.*?) -->\n\Z")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Running(Protocol):
    """A gateway that answers, as tests/running.py starts one."""

    @property
    def base_url(self) -> str: ...  # http://127.0.0.1:PORT, without /v1
    @property
    def console_url(self) -> str: ...
    @property
    def home(self) -> Path: ...  # its FOREBAY_HOME


if importlib.util.find_spec("running") is not None:
    running_forebay = importlib.import_module("running").running_forebay
else:

    @pytest.fixture
    def running_forebay() -> Running:
        pytest.skip("tests/running.py is not there: no gateway to run the pages against")


class Snippet(NamedTuple):
    line: int  # of its fence, from 1
    language: str
    text: str
    note: str  # "", "not run" or "file"
    value: str  # the reason or the file's name


def snippets(page: str) -> Iterator[Snippet]:
    for block in _BLOCK.finditer(page):
        note = _NOTE.search(page, 0, block.start())
        kind, value = (note[1], note[2]) if note else ("", "")
        line = page.count("\n", 0, block.start()) + 1
        yield Snippet(line, block[1].strip(), block[2], kind, value)


def complaint(snippet: Snippet) -> str:
    """What is wrong with a block as it is written, "" where nothing is."""
    if snippet.language not in RUN | DATA:
        return f"language {snippet.language!r} is none of {', '.join(sorted(RUN | DATA))}"
    if snippet.note == "not run" and snippet.language in DATA:
        return f"{snippet.language} is never run, so no reason is needed"
    if snippet.language == "console" and not snippet.text.startswith("$ "):
        return "a console block begins with a command: $ …"
    return ""


def commands(console: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the output lines shown after it."""
    found: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in console.splitlines():
        if goes_on:
            command, shown = found[-1]
            found[-1] = (f"{command}\n{line}", shown)
        elif line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
        goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
    return found


def missing(shown: list[str], output: str) -> str | None:
    """The first shown line that the output does not have after the ones before it."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in shown:
        words = re.escape(" ".join(line.split()))
        pattern = re.compile(words.replace("…", ".*"))
        if not any(pattern.fullmatch(actual) for actual in lines):
            return line
    return None


# -- the reading of pages


EXAMPLE = """\
# Page
<!-- file: forebay.yaml -->
```yaml
a: 1
```
```console
$ echo one \\
  two
one …
$ true
```
<!-- not run: it costs money -->
```bash
buy
```

<!-- not run: too far above -->

```python
pass
```
"""


def test_a_page_is_read_block_by_block() -> None:
    yaml, console, bash, python = snippets(EXAMPLE)
    assert yaml == Snippet(3, "yaml", "a: 1\n", "file", "forebay.yaml")
    assert (console.line, console.language, console.note) == (6, "console", "")
    assert (bash.note, bash.value) == ("not run", "it costs money")
    assert python.note == ""
    assert commands(console.text) == [("echo one \\\n  two", ["one …"]), ("true", [])]


@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        ("```\nx\n```\n", "language ''"),
        ("```sh\nx\n```\n", "language 'sh'"),
        ("```console\necho\n```\n", "begins with a command"),
        ("<!-- not run: why -->\n```json\n{}\n```\n", "no reason is needed"),
        ("```console\n$ echo\n```\n", ""),
    ],
)
def test_a_block_that_could_not_be_run_is_noticed(block: str, wrong: str) -> None:
    (snippet,) = snippets(block)
    assert wrong in complaint(snippet)
    assert bool(complaint(snippet)) == bool(wrong)


@pytest.mark.parametrize(
    ("shown", "output", "lacks"),
    [
        (["a", "c"], "a\nb\nc\n", None),
        (["c", "a"], "a\nb\nc\n", "a"),
        (["a   b"], "a b", None),
        (["key_… made"], "key_12 made", None),
        (["key_… made"], "key_12 is made not", "key_… made"),
        (["1.5"], "145", "1.5"),
        ([], "anything", None),
    ],
)
def test_output_is_compared_by_lines_in_order(
    shown: list[str], output: str, lacks: str | None
) -> None:
    assert missing(shown, output) == lacks


# -- the pages


@pytest.mark.parametrize("name", NAMES)
def test_every_snippet_can_run_or_says_why_not(name: str) -> None:
    found = list(snippets((ROOT / name).read_text()))
    assert [f"{name}:{s.line}: {complaint(s)}" for s in found if complaint(s)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_link_within_the_project_leads_somewhere(name: str) -> None:
    page = ROOT / name
    targets = _LINK.findall(_BLOCK.sub("", page.read_text()))
    broken = [
        target
        for target in targets
        if not urlsplit(target).scheme
        and not (page.parent / urlsplit(target).path).exists()
        and urlsplit(target).path
    ]
    assert broken == []


def test_every_page_of_the_docs_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    linked = {(ROOT / "docs" / link).resolve() for link in _LINK.findall(index)}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {str(p) for p in pages - linked} == {str(ROOT / "docs" / "index.md")}


def test_the_published_pattern_of_a_key_is_the_real_one() -> None:
    assert f"```text\n{PATTERN}\n```" in (ROOT / "docs" / "keys.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_shows_works(name: str, running_forebay: Running, tmp_path: Path) -> None:
    for snippet in snippets((ROOT / name).read_text()):
        text = _here(snippet.text, running_forebay)
        where = f"{name}:{snippet.line}"
        if snippet.note == "file":
            (tmp_path / snippet.value).write_text(text)
        elif snippet.note == "not run" or snippet.language in DATA:
            continue
        elif snippet.language == "console":
            for command, shown in commands(text):
                output = _run(["bash", "-c", command], where, running_forebay, tmp_path)
                assert missing(shown, output) is None, f"{where}: $ {command}\n{output}"
        elif snippet.language == "bash":
            _run(["bash", "-euo", "pipefail", "-c", text], where, running_forebay, tmp_path)
        else:
            _run([sys.executable, "-c", text], where, running_forebay, tmp_path)


def _here(text: str, running: Running) -> str:
    text = text.replace("127.0.0.1:8080", urlsplit(running.base_url).netloc)
    return text.replace("127.0.0.1:8081", urlsplit(running.console_url).netloc)


def _run(argv: list[str], where: str, running: Running, folder: Path) -> str:
    here = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",  # stdout and stderr in the order of a terminal
        "FOREBAY_HOME": str(running.home),
        "OPENAI_BASE_URL": f"{running.base_url}/v1",
        "OPENAI_API_KEY": "unused",
        "ANTHROPIC_BASE_URL": running.base_url,
        "ANTHROPIC_API_KEY": "unused",
    }
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, **here},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{where}: status {done.returncode}\n{done.stdout}"
    return done.stdout
