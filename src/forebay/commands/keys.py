"""`forebay keys create | list | revoke`: who may ask this gateway.

Works on the database in the data folder directly, whether or not the gateway runs; one that
runs takes the change over within a second or so. `create` prints the key alone on stdout, so
that a script can catch it, and what there is to say about it on stderr.
"""

import json
import re
import sys
from argparse import ArgumentTypeError, Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from forebay import home
from forebay.admission.key_store import KeyStore
from forebay.admission.keys import KeyRow
from forebay.world import RealWorld

if TYPE_CHECKING:
    from forebay.commands import Verbs

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([smhdwy])")

_COLUMNS = ("id", "key", "team", "project", "role", "state", "created", "expires", "name")


def add(verbs: "Verbs") -> None:
    parser = verbs.add_parser("keys", help="create, list and revoke gateway keys")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("--project", default="default", help="who pays and whose cache it is")
    create.add_argument("--team", help="of a new project (default: default)")
    create.add_argument("--name", default="", help="what it is for, in your words")
    create.add_argument(
        "--role",
        choices=("caller", "admin"),
        default="caller",
        help="caller: may send requests; admin: may operate the gateway, too",
    )
    create.add_argument(
        "--expires", type=lifetime_s, metavar="TIME", help="from now: 90m, 12h, 30d, 1y (never)"
    )
    create.set_defaults(run=_create)

    show = actions.add_parser("list", help="every key, revoked ones too; never the keys themselves")
    show.set_defaults(run=_list)

    revoke = actions.add_parser("revoke", help="refuse a key from now on, for ever")
    revoke.add_argument("id", metavar="ID", help="the key's id, or enough of its beginning")
    revoke.set_defaults(run=_revoke)

    for action in (create, show, revoke):
        action.add_argument("--json", action="store_true", help="print JSON")


def lifetime_s(text: str) -> int:
    """Seconds in `90m`, `12h`, `30d`, `2w`, `1y`. Raises ArgumentTypeError."""
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no time: a number and one of s, m, h, d, w, y")
    return int(match[1]) * _UNIT_S[match[2]]


def _create(args: Namespace) -> int:
    store = KeyStore.open(home.data_dir(), RealWorld())
    try:
        key = store.create(
            team=args.team,
            project=args.project,
            name=args.name,
            role=args.role,
            lifetime_s=args.expires,
        )
    finally:
        store.close()
    row = key.row
    if args.json:
        print(json.dumps({"key": key.secret, **_facts(row, row.created_ns)}))
        return 0
    print(key.secret)
    until = f"until {_date(row.expires_ns)}" if row.expires_ns else "until revoked"
    print(
        f"{row.id}: {row.role} key of project {row.project} (team {row.team}), {until}.\n"
        "Keep it now: only its hash is stored, it can't be shown again.",
        file=sys.stderr,
    )
    return 0


def _list(args: Namespace) -> int:
    world = RealWorld()
    store = KeyStore.open(home.data_dir(), world)
    try:
        rows = store.snapshot()
    finally:
        store.close()
    now = world.wall_ns()
    facts = [_facts(row, now) for row in rows]
    if args.json:
        print(json.dumps(facts))
    elif facts:
        _print_table(facts)
    else:
        print("There are no keys yet. `forebay keys create` makes one.")
    return 0


def _revoke(args: Namespace) -> int:
    world = RealWorld()
    store = KeyStore.open(home.data_dir(), world)
    try:
        row = store.revoke(args.id)
    finally:
        store.close()
    if args.json:
        print(json.dumps(_facts(row, world.wall_ns())))
    else:
        print(f"{row.id} ({row.name or 'no name'}, …{row.last4}) is revoked.")
    return 0


def _facts(row: KeyRow, wall_ns: int) -> dict[str, Any]:
    """What may be told of a key, by anybody at any time: not its digest."""
    return {
        "id": row.id,
        "name": row.name,
        "team": row.team,
        "project": row.project,
        "role": row.role,
        "state": row.state(wall_ns),
        "last4": row.last4,
        "created": _date(row.created_ns),
        "expires": _date(row.expires_ns),
        "revoked": _date(row.revoked_ns),
    }


def _date(wall_ns: int) -> str | None:
    if not wall_ns:
        return None
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def _print_table(facts: list[dict[str, Any]]) -> None:
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for fact in facts:
        shown = {**fact, "key": f"fb_…{fact['last4']}", "expires": fact["expires"] or "never"}
        lines.append(tuple(str(shown[column]) for column in _COLUMNS))
    widths = [max(len(line[at]) for line in lines) for at in range(len(_COLUMNS))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
