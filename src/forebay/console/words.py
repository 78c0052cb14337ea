"""Numbers and outcomes in words, the same in console and terminal. Pure."""

import re
from datetime import UTC, datetime

from forebay.observe.record import Record
from forebay.schema.usage import usd

US, MS, S, MINUTE = 1_000, 1_000_000, 1_000_000_000, 60_000_000_000

#: What a terminal or a browser acts on, or hides, instead of showing it: controls; marks that
#: turn the direction of text, by which "1000" can be made to read "0001"; characters without
#: width, in which text can be smuggled. The two joiners are left: emoji and Persian need them.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Text in which every character can be seen; line ends and tabs stay."""
    return _ACTING.sub(_spelled, text.replace("\r\n", "\n"))


def readable(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 as \\xNN."""
    return visible(data.decode("utf-8", "backslashreplace"))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def duration(ns: int) -> str:
    """`190 µs`, `841 ms`, `12.4 s`, `3 min 5 s`: three digits are enough to compare."""
    if ns < MS:
        return f"{_digits(ns / US)} µs"
    if ns < S:
        return f"{_digits(ns / MS)} ms"
    if ns < 2 * MINUTE:
        return f"{_digits(ns / S)} s"
    minutes, rest = divmod(ns, MINUTE)
    return f"{minutes:,} min {rest // S} s"


def _digits(value: float) -> str:
    places = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def money(nusd: int | None) -> str:
    """Dollars to three digits, `unpriced` where no price is known."""
    if nusd is None:
        return "unpriced"
    if nusd == 0:
        return "$0"
    dollars = abs(nusd) / 1e9
    sign = "-" if nusd < 0 else ""
    if dollars >= 1:
        return f"{sign}${dollars:,.2f}"
    places = next(p for p in range(2, 10) if dollars * 10**p >= 99.5 or p == 9)
    whole, _, part = f"{dollars:.{places}f}".partition(".")
    return f"{sign}${whole}.{part.rstrip('0').ljust(2, '0')}"


def money_exact(nusd: int | None) -> str:
    return "unpriced" if nusd is None else f"${usd(nusd)}"


def size(count: int) -> str:
    """Bytes, in thousands."""
    if count < 1000:
        return f"{count} B"
    for unit, factor in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999_500 * factor / 1e3 or unit == "GB":
            return f"{_digits(count / factor)} {unit}"
    raise AssertionError


def moment(ns: int) -> str:
    """`2026-11-25 10:00:00.040`, UTC."""
    at = datetime.fromtimestamp(ns // S, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{ns % S // MS:03d}"


def ago(ns: int) -> str:
    """How long ago, roughly: `now`, `12 s ago`, `3 h ago`, `2 d ago`."""
    seconds = ns // S
    if seconds < 1:
        return "now"
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // length} {unit} ago"
    return f"{seconds // 86400} d ago"


def first_line(text: str, limit: int = 160) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return visible(line if len(line) <= limit else line[: limit - 1] + "…")


OUTCOMES = {
    "ok": "answered",
    "cancelled": "caller left",
    "bad_json": "not JSON",
    "bad_request": "bad request",
    "unknown_model": "unknown model",
    "provider_timeout": "provider too slow",
    "provider_unreachable": "provider unreachable",
    "provider_error": "provider failed",
    "provider_refused_key": "provider refused our key",
    "truncated": "cut off",
    "bad_answer": "answer unreadable",
    "overloaded": "overloaded",
    "missing_key": "no key",
    "bad_key": "bad key",
    "open": "not finished",
}


def outcome(name: str) -> str:
    """An outcome in two or three words."""
    return OUTCOMES.get(name) or visible(name.replace("_", " "))


def tone(name: str) -> str:
    """How an outcome looks: good, quiet or bad."""
    return {"ok": "good", "cancelled": "quiet"}.get(name, "bad")


def story(record: Record) -> str:
    """What happened, in one or two sentences."""
    took = duration(record.ended_ns)
    if record.outcome == "ok" and record.cache not in ("miss", "bypass"):
        saved = f" It saved {money(record.saved_nusd)}." if record.saved_nusd else ""
        return f"Answered from the {visible(record.cache)} cache in {took}.{saved}"
    if record.outcome == "ok":
        return _answered(record, took)
    if record.outcome == "cancelled":
        return f"The caller left after {took}.{_cost(record)}"
    said = visible(record.error) or f"It ended as {outcome(record.outcome)}."
    got = f" The caller got {record.status}" if record.status else " The caller got nothing"
    return f"{said}{got} after {took}.{_cost(record)}"


def _answered(record: Record, took: str) -> str:
    who = "Answered"
    if record.attempts:
        last = record.attempts[-1]
        who += f" by {visible(last.provider)} {visible(last.model)}"
    first = f", the first byte after {duration(record.first_ns)}" if record.stream else ""
    failed = len(record.attempts) - 1
    tries = (
        f" {failed} earlier {'attempt' if failed == 1 else 'attempts'} failed." if failed else ""
    )
    return f"{who} in {took}{first}.{_cost(record)}{tries}"


def _cost(record: Record) -> str:
    if record.cost_nusd is None:
        return " No price is known for it." if record.usage is not None else ""
    return f" It cost {money(record.cost_nusd)}."


def command(record_id: str) -> str:
    """The command that shows the same in a terminal."""
    return f"forebay trace show {shell_word(record_id)}"


def shell_word(text: str) -> str:
    """One word of a shell, quoted where it must be."""
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return text
    return "'" + visible(text).replace("'", "'\"'\"'") + "'"
