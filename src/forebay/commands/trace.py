"""`forebay trace list | show`: what was asked, answered and paid, from the records on disk.

Reads the trace store in the data folder directly, whether or not the gateway runs. What
callers and models wrote is attacker-controlled: whatever a terminal would act on instead of
showing (escape sequences, marks that turn the direction of text) is printed as `\\x1b`.
"""

import json
import sys
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from forebay import home
from forebay.commands.keys import lifetime_s
from forebay.console import pages, words
from forebay.console.conversation import Said
from forebay.console.waterfall import WIDTH, Waterfall
from forebay.observe.query import MAX_PAGE, Filter, Line, Page, Reader
from forebay.world import RealWorld

if TYPE_CHECKING:
    from forebay.commands import Verbs

_BAR_CELLS = 56
_SIGNS = {"own": "▏", "connect": "─", "wait": "┄", "content": "█", "reply": "▓", "lost": "╳"}
_STYLES = {"good": "green", "quiet": "dim", "bad": "red"}
#: Where the output is no terminal, nothing is cut to the width of one.
_PIPED_WIDTH = 220


def add(verbs: "Verbs") -> None:
    parser = verbs.add_parser("trace", help="what was asked, answered and paid")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    several = actions.add_parser("list", help="traces, the newest first")
    several.add_argument("--limit", type=_limit, default=20, help=f"1 to {MAX_PAGE} (20)")
    several.add_argument("--project", default="", help="of this project")
    several.add_argument("--model", default="", help="asked for by this name")
    several.add_argument(
        "--outcome", default="", help="ok, failed, cancelled, or a code such as provider_timeout"
    )
    several.add_argument("--cache", default="", help="exact, miss or bypass")
    several.add_argument("--text", default="", help="in id, model, provider, key or outcome")
    several.add_argument("--since", type=lifetime_s, metavar="TIME", help="15m, 1h, 24h, 7d")
    several.add_argument("--before", type=int, metavar="N", help="the page after this cursor")
    several.set_defaults(run=_list)

    one = actions.add_parser("show", help="one trace: time, messages, cost and decisions")
    one.add_argument("id", metavar="ID", help="its id, or enough of its beginning")
    one.add_argument("--raw", action="store_true", help="the exact text of every body as well")
    one.set_defaults(run=_show)

    for action in (several, one):
        action.add_argument("--json", action="store_true", help="print JSON")


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_PAGE:
        raise ArgumentTypeError(f"{text!r} is not between 1 and {MAX_PAGE}")
    return int(text)


def _list(args: Namespace) -> int:
    world = RealWorld()
    want = Filter(
        project=args.project,
        model=args.model,
        outcome=args.outcome,
        cache=args.cache,
        text=args.text,
        since_ns=world.wall_ns() - args.since * words.S if args.since else 0,
    )
    reader = Reader(home.data_dir() / "traces", world.now_ns)
    try:
        page = reader.traces(want, args.limit, args.before)
    finally:
        reader.close()
    if args.json:
        print(json.dumps(_page_json(page)))
        return 0
    if not page.lines:
        print("No trace matches." if want != Filter() else "Nothing has been recorded yet.")
    else:
        _console().print(_table(page.lines))
    if page.before is not None:
        why = "older ones were not looked through" if page.cut_short else "there are older ones"
        print(f"{why}: --before {page.before}", file=sys.stderr)
    return 0


def _page_json(page: Page) -> dict[str, Any]:
    lines = [{name: getattr(line, name) for name in line.__struct_fields__} for line in page.lines]
    return {"traces": lines, "before": page.before, "cut_short": page.cut_short}


def _table(lines: list[Line]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("time (UTC)", "id", "outcome", "model", "by", "project", "cache"):
        table.add_column(name, no_wrap=True)
    for name in ("in", "out", "cost", "first", "total"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = (
            words.moment(line.received_ns)[:19],
            words.visible(line.id),
            words.outcome(line.outcome),
            words.first_line(line.model or "–", 40),
            words.first_line(line.provider or "–", 20),
            words.first_line(line.project, 20),
            words.visible(line.cache),
            f"{line.tokens_in:,}",
            f"{line.tokens_out:,}",
            words.money(line.cost_nusd),
            words.duration(line.ttft_ns) if line.ttft_ns else "–",
            words.duration(line.duration_ns),
        )
        # Text, not strings: rich reads [markup] in strings.
        row = [Text(cell) for cell in cells]
        row[2].stylize(_STYLES[words.tone(line.outcome)])
        table.add_row(*row)
    return table


def _show(args: Namespace) -> int:
    reader = Reader(home.data_dir() / "traces", RealWorld().now_ns)
    try:
        line = reader.find(args.id)
        record = reader.record(line)
    finally:
        reader.close()
    if args.json:
        print(json.dumps(pages.trace_json(record)))
        return 0
    found = pages.trace(line, record)
    out = _console()
    write = _writer(out)
    write(words.visible(line.id), "bold")
    write(found.story, _STYLES[words.tone(record.outcome)])
    write("")
    for text in _fall(found.waterfall):
        write(text)
    write("")
    for name, value in _facts(found):
        write(f"{name:<16} {value}")
    for said in [*found.asked, *found.answered]:
        _message(write, said)
    if args.raw:
        _bodies(write, found)
    return 0


def _fall(fall: Waterfall) -> list[str]:
    """The waterfall as text, a row a line."""
    width = max(len(row.label) for row in fall.rows)
    lines = []
    for row in fall.rows:
        cells = [" "] * _BAR_CELLS
        for bar in row.bars:
            start = min(int(bar.x / WIDTH * _BAR_CELLS), _BAR_CELLS - 1)
            stop = max(round((bar.x + bar.width) / WIDTH * _BAR_CELLS), start + 1)
            cells[start:stop] = _SIGNS[bar.kind] * (min(stop, _BAR_CELLS) - start)
        lines.append(f"{row.label:<{width}}  |{''.join(cells)}|  {row.note}")
    lines.append(f"{'':<{width}}   ─ until the response head  ┄ until the first content  █ content")
    return lines


def _facts(found: pages.Trace) -> list[tuple[str, str]]:
    record, usage = found.record, found.record.usage
    facts = [
        ("received", words.moment(record.received_wall_ns) + " UTC"),
        ("request", words.visible(f"{record.method} {record.path}")),
        ("status", str(record.status or "none: the caller had left")),
        ("model", words.visible(record.model or "–")),
        ("route", words.visible(record.route or "none was needed")),
        ("cache", words.visible(f"{record.cache} {record.cache_source}".strip())),
        ("project, key", words.visible(f"{record.project}, {record.key_id or 'no key'}")),
        ("cost", words.money_exact(record.cost_nusd)),
    ]
    if usage is not None:
        cached = f", {usage.cache_read_tokens:,} of them cached" if usage.cache_read_tokens else ""
        guess = " (estimated)" if usage.estimated else ""
        tokens = f"{usage.prompt_tokens:,} in{cached}, {usage.output_tokens:,} out{guess}"
        facts.append(("tokens", tokens))
    for tried in found.tried:
        attempt = tried.attempt
        what = f"{attempt.provider} {attempt.model}: {attempt.outcome}"
        what += f", {attempt.status or 'no response'}"
        if attempt.finish_reason:
            what += f", finished: {attempt.finish_reason}"
        facts.append((f"attempt {tried.number}", words.visible(what)))
    return facts


def _message(write: Any, said: Said) -> None:
    write("")
    write(said.role + (f" (finished: {said.finish})" if said.finish else ""), "bold")
    for part in said.parts:
        if part.kind != "text":
            write(f"[{part.kind}] {part.title}".rstrip(), "dim")
        if part.text:
            write(part.text)


def _bodies(write: Any, found: pages.Trace) -> None:
    bodies = [("request", found.request)]
    for tried in found.tried:
        bodies += [(f"sent {tried.number}", tried.sent), (f"answer {tried.number}", tried.answer)]
    bodies.append(("reply", found.reply))
    for name, shown in bodies:
        write("")
        write(f"--- {name}, {shown.body.size:,} bytes", "bold")
        write(shown.why_empty or shown.text)
        if shown.cut:
            write("… (the rest is in --json)", "dim")


def _console() -> Any:
    from rich.console import Console

    tty = sys.stdout.isatty()
    return Console(highlight=False, width=None if tty else _PIPED_WIDTH)


def _writer(out: Any) -> Any:
    from rich.text import Text

    def write(text: str, style: str = "") -> None:
        out.print(Text(text, style=style), soft_wrap=True)

    return write
