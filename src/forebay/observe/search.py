"""What a list of traces asks for and shows, and its SQL. Pure."""

from typing import Any

import msgspec

from forebay.observe import rows


class Filter(msgspec.Struct, frozen=True):
    """Which traces. An empty field asks nothing."""

    project: str = ""
    model: str = ""  # as asked for
    #: `ok`, `cancelled`, a failure's code, or `failed`: any of those
    outcome: str = ""
    cache: str = ""
    #: anywhere in id, model, provider, key or outcome; case of ASCII letters ignored
    text: str = ""
    #: received at or after, wall clock
    since_ns: int = 0


#: Asks nothing.
EVERYTHING = Filter()


class Line(msgspec.Struct, frozen=True, gc=False):
    """One trace in a list: the columns of its row."""

    n: int
    id: str
    received_ns: int
    team: str
    project: str
    key: str
    endpoint: str
    model: str
    provider: str
    used: str
    status: int
    outcome: str
    cache: str
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_nusd: int | None
    saved_nusd: int
    ttft_ns: int
    duration_ns: int
    attempts: int
    stream: bool


# Blocks from the newest backwards, and the traces of each: no sorting, and blocks that lack
# what is looked for cost one look. The + keeps SQLite from starting at the cursor, instead of
# at the block's end, in every block.
LIST = (
    f"SELECT {', '.join('traces.' + column for column in rows.COLUMNS)}"  # noqa: S608 - ours
    " FROM blocks CROSS JOIN traces"
    " ON traces.n >= blocks.first AND traces.n < blocks.first + blocks.count"
    " WHERE blocks.first >= ? AND blocks.first < ? AND +traces.n < ?{where}"
    " ORDER BY blocks.first DESC, traces.n DESC LIMIT ?"
)


def conditions(want: Filter) -> tuple[str, list[Any]]:
    """SQL to add to WHERE, and its values; of the block first, then of the trace."""
    parts: list[str] = []
    values: list[Any] = []
    for column in ("project", "model", "cache", "outcome"):
        value = getattr(want, column)
        if column == "outcome" and value == "failed":
            parts.append("blocks.failed > 0 AND traces.outcome NOT IN ('ok', 'cancelled')")
        elif value:
            parts.append(f"instr(blocks.{rows.SETS[column]}, ?) AND traces.{column} = ?")
            values += [f"{rows.MARK}{value}{rows.MARK}", value]
    if want.since_ns:
        parts.append("blocks.newest_ns >= ? AND traces.received_ns >= ?")
        values += [want.since_ns] * 2
    if want.text:
        columns = ("id", "model", "used", "provider", "key", "outcome")
        likes = " OR ".join(f"traces.{column} LIKE ? ESCAPE '!'" for column in columns)
        parts.append(f"({likes})")
        text = want.text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
        values += [f"%{text}%"] * len(columns)
    return "".join(f" AND {part}" for part in parts), values


def line_of(row: tuple[Any, ...]) -> Line:
    values = [*row[:-1], bool(row[-1])]  # SQLite has no booleans
    return Line(*values)
