"""What each page shows: queries and records in, plain values for a template out.

A page and its `.json` twin are made of the same findings. Nothing here knows HTTP.
"""

import base64
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from forebay.console import conversation, words
from forebay.console.conversation import Said
from forebay.console.waterfall import Waterfall, waterfall
from forebay.observe import restore
from forebay.observe.query import EVERYTHING, Filter, Line, Overview, Page, Reader
from forebay.observe.record import AttemptRecord, Body, HeaderList, Record

PAGE = 50
OVERVIEW_MINUTES = 60
#: Text of one body or message that a page shows; the rest is a download away.
MAX_SHOWN = 100_000
#: A larger request is not read for the one line that the list shows of it.
MAX_PREVIEWED_BYTES = 256 * 1024
MAX_CHUNKS = 300

SINCE = {"15m": 15, "1h": 60, "24h": 24 * 60, "7d": 7 * 24 * 60}
"""What `since` may be, in minutes."""


# -- the list


class Listed(msgspec.Struct):
    """A line of the list; `question` is None where the content is not there to be read."""

    line: Line
    question: str | None


class Traces(msgspec.Struct):
    page: Page
    listed: list[Listed]
    overview: Overview
    projects: list[str]
    models: list[str]
    want: dict[str, str]  # the filter as the address has it
    now_ns: int

    @property
    def filtered(self) -> bool:
        return bool(self.asked)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """What the filter asks for, by names that people read."""
        names = {"q": "text"}
        return [(names.get(name, name), self.want[name]) for name in _FILTERS if self.want[name]]

    def choices(self, what: str) -> list[tuple[str, str]]:
        """Values a filter can take, with their names. A failed request may have no model."""
        values = self.projects if what == "projects" else self.models
        return [(value, value) for value in values if value]

    def address(self, base: str = "/traces", **changes: str) -> str:
        """The same list with other fields; the cursor is dropped unless it is among them."""
        fields = {name: self.want[name] for name in _FILTERS} | changes
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"{base}?{query}" if query else base

    @property
    def command(self) -> str:
        options = [
            f"--{name} {words.shell_word(self.want[name])}"
            for name in ("project", "model", "outcome", "cache", "since")
            if self.want[name]
        ]
        if self.want["q"]:
            options.append(f"--text {words.shell_word(self.want['q'])}")
        return " ".join(["forebay trace list", *options])


_FILTERS = ("q", "project", "model", "outcome", "cache", "since")


def traces(reader: Reader, query: dict[str, str], wall_ns: int) -> Traces:
    """The list that an address asks for. Raises Failure where there is no store."""
    want = {name: query.get(name, "").strip() for name in (*_FILTERS, "before", "live")}
    page = reader.traces(asked_filter(want, wall_ns), PAGE, _number(want["before"]))
    listed = []
    for line, record in zip(page.lines, reader.records(page.lines), strict=True):
        listed.append(Listed(line, None if record is None else _question(record)))
    return Traces(
        page,
        listed,
        reader.overview(OVERVIEW_MINUTES, wall_ns),
        reader.choices("project"),
        reader.choices("model"),
        want,
        wall_ns,
    )


def asked_filter(want: dict[str, str], wall_ns: int) -> Filter:
    """What the fields of an address ask for; an unknown `since` asks nothing."""
    minutes = SINCE.get(want.get("since", ""))
    return msgspec.structs.replace(
        EVERYTHING,
        project=want.get("project", ""),
        model=want.get("model", ""),
        outcome=want.get("outcome", ""),
        cache=want.get("cache", ""),
        text=want.get("q", ""),
        since_ns=wall_ns - minutes * words.MINUTE if minutes else 0,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _question(record: Record) -> str | None:
    if record.body.form != "full":
        return None
    if len(record.body.data) > MAX_PREVIEWED_BYTES:
        return f"({words.size(len(record.body.data))})"
    said = conversation.question(record.body.data)
    return words.first_line(said) if said else ""


def traces_json(found: Traces) -> dict[str, Any]:
    return {
        "traces": [msgspec.structs.asdict(line) for line in found.page.lines],
        "next": (
            found.address("/traces.json", before=str(found.page.before))
            if found.page.before is not None
            else None
        ),
        "cut_short": found.page.cut_short,
        "overview": msgspec.structs.asdict(found.overview),
    }


# -- one trace


class Shown(msgspec.Struct):
    """A body for reading: its text, or why there is none."""

    name: str  # of its download
    body: Body
    text: str
    cut: bool = False  # there is more than `text`

    @property
    def why_empty(self) -> str:
        if self.body.form == "hashed":
            return (
                f"Only the SHA-256 of these {self.body.size:,} bytes was kept"
                f" (record: capture: hashed): {self.body.data.hex()}"
            )
        if self.body.form == "off":
            return "The content was not kept (record: capture: off, or no room for it)."
        return "" if self.body.data else "There were no bytes."


class Change(msgspec.Struct):
    """A splice: what stood in the caller's body, and what was put in its place."""

    start: int
    old: str
    new: str


class Tried(msgspec.Struct):
    number: int
    attempt: AttemptRecord
    sent: Shown
    answer: Shown
    changes: list[Change]
    is_reply: bool  # the caller got these very bytes


class Chunk(msgspec.Struct):
    number: int
    at_us: int
    after_us: int  # the one before
    size: int
    text: str


class Trace(msgspec.Struct):
    line: Line
    record: Record
    story: str
    waterfall: Waterfall
    asked: list[Said]
    answered: list[Said]
    tools: list[str]
    request: Shown
    reply: Shown
    tried: list[Tried]
    chunks: list[Chunk]
    chunk_count: int
    command: str
    raw: bool


def trace(line: Line, record: Record, *, raw: bool = False) -> Trace:
    """A trace for its page. Sync, ~1 ms and 20 ms for each MB of content."""
    reply = restore.reply(record)
    cuts = restore.cuts(reply)
    return Trace(
        line=line,
        record=record,
        story=words.story(record),
        waterfall=waterfall(record),
        asked=_shortened(conversation.asked(record.body.data)),
        answered=_shortened(conversation.answered(reply.data)),
        tools=[words.visible(name) for name in conversation.offered_tools(record.body.data)],
        request=_shown("request", record.body),
        reply=_shown("reply", reply),
        tried=[_tried(record, i, attempt) for i, attempt in enumerate(record.attempts, 1)],
        chunks=_chunks(reply.data, cuts[:MAX_CHUNKS]),
        chunk_count=len(cuts),
        command=words.command(line.id),
        raw=raw,
    )


def download(record: Record, name: str) -> bytes | None:
    """The exact bytes of a body by its name: `request`, `reply`, `sent-1`, `answer-1`. None
    where there is no such body or its bytes were not kept."""
    kind, _, number = name.partition("-")
    attempts = {str(i): attempt for i, attempt in enumerate(record.attempts, 1)}
    body: Body | None = None
    if name == "request":
        body = restore.request(record)
    elif name == "reply":
        body = restore.reply(record)
    elif kind == "sent" and number in attempts:
        body = restore.sent(record, attempts[number])
    elif kind == "answer" and number in attempts:
        body = attempts[number].body
    return body.data if body is not None and body.form == "full" else None


def _tried(record: Record, number: int, attempt: AttemptRecord) -> Tried:
    changes = []
    if isinstance(attempt.sent, list) and record.body.form == "full":
        for start, end, new in attempt.sent:
            old = record.body.data[start:end]
            changes.append(Change(start, words.readable(old), words.readable(new)))
    return Tried(
        number,
        attempt,
        _shown(f"sent-{number}", restore.sent(record, attempt)),
        _shown(f"answer-{number}", attempt.body),
        changes,
        is_reply=record.reply_body == [] and number == len(record.attempts),
    )


def _shown(name: str, body: Body) -> Shown:
    if body.form != "full":
        return Shown(name, body, "")
    cut = len(body.data) > MAX_SHOWN
    return Shown(name, body, words.readable(body.data[:MAX_SHOWN]), cut)


def _shortened(said: list[Said]) -> list[Said]:
    for message in said:
        message.role = words.first_line(message.role, 40)
        message.finish = words.first_line(message.finish, 40)
        for part in message.parts:
            part.title = words.first_line(part.title, 300)
            if len(part.text) > MAX_SHOWN:
                left = len(part.text) - MAX_SHOWN
                part.text = f"{part.text[:MAX_SHOWN]}\n… and {left:,} more characters"
            part.text = words.visible(part.text)
    return said


def _chunks(data: bytes, cuts: list[restore.Cut]) -> list[Chunk]:
    chunks = []
    start = before_us = 0
    for number, (end, at_us) in enumerate(cuts, 1):
        text = words.first_line(words.readable(data[start : min(end, start + 400)]), 200)
        chunks.append(Chunk(number, at_us, at_us - before_us, max(end - start, 0), text))
        start, before_us = end, at_us
    return chunks


# -- the twin


def trace_json(record: Record) -> dict[str, Any]:
    """A record with every byte: bodies as text where they are UTF-8, else in base64."""
    plain = {
        name: getattr(record, name)
        for name in record.__struct_fields__
        if name not in ("headers", "body", "attempts", "reply_headers", "reply_body", "usage")
    }
    return plain | {
        "usage": _usage(record),
        "headers": _headers(record.headers),
        "request": _body(record.body),
        "attempts": [_attempt(record, attempt) for attempt in record.attempts],
        "reply_headers": _headers(record.reply_headers),
        "reply": _body(restore.reply(record)),
        "story": words.story(record),
    }


def _attempt(record: Record, attempt: AttemptRecord) -> dict[str, Any]:
    plain = {
        name: getattr(attempt, name)
        for name in attempt.__struct_fields__
        if name not in ("sent_headers", "sent", "headers", "body", "usage")
    }
    return plain | {
        "usage": _usage(attempt),
        "sent_headers": _headers(attempt.sent_headers),
        "sent": _body(restore.sent(record, attempt)),
        "headers": _headers(attempt.headers),
        "answer": _body(attempt.body),
    }


def _usage(of: Record | AttemptRecord) -> dict[str, Any] | None:
    return None if of.usage is None else msgspec.structs.asdict(of.usage)


def _headers(headers: HeaderList) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def _body(body: Body) -> dict[str, Any]:
    value: dict[str, Any] = {"size": body.size, "kept": body.form}
    if body.form == "hashed":
        value["sha256"] = body.data.hex()
    elif body.form == "full":
        try:
            value["text"] = body.data.decode()
        except UnicodeDecodeError:
            value["base64"] = base64.b64encode(body.data).decode()
        value["chunks"] = [{"end": end, "at_us": at_us} for end, at_us in restore.cuts(body)]
    return value


def trace_address(trace_id: str, suffix: str = "") -> str:
    return f"/traces/{quote(trace_id, safe='')}{suffix}"
