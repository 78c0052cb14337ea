"""`forebay check` says what would start; `forebay schema` prints forebay.yaml's JSON Schema."""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from forebay import config as configuration
from forebay.assemble import build_providers
from forebay.commands import Verbs
from forebay.config import Loaded
from forebay.world import RealWorld


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "check",
        help="read the config and say what would start",
        description="Read forebay.yaml and the environment, start nothing, and say what "
        "`forebay up` would start. Exit status 1 where it could not.",
    )
    parser.add_argument("--config", type=Path, help="default: ./forebay.yaml, where there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=check)


def add_schema(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "schema",
        help="print the JSON Schema of forebay.yaml",
        description="For editors: save it and point `# yaml-language-server: $schema=` at it.",
    )
    parser.set_defaults(run=schema)


def check(args: argparse.Namespace) -> int:
    loaded = configuration.load(args.config)
    plan = _plan(loaded)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(plan), indent=2).decode())
        return 0
    print(f"config     {plan['config'] or 'none: everything by default'} ({plan['version']})")
    print(f"gateway    {plan['gateway']}, {plan['workers']} worker(s)")
    print(f"console    {plan['console']}")
    print(f"keys       {plan['keys']}")
    print(f"local      {plan['local']}")
    for name, what in plan["providers"].items():
        print(f"provider   {name}: {what}")
    for name, target in plan["models"].items():
        print(f"model      {name} → {target}")
    return 0


def schema(args: argparse.Namespace) -> int:
    text = msgspec.json.format(msgspec.json.encode(configuration.schema()), indent=2)
    print(text.decode())
    return 0


def _plan(loaded: Loaded) -> dict[str, Any]:
    config = loaded.forebay
    providers = build_providers(config, RealWorld())
    return {
        "config": str(loaded.path) if loaded.path else None,
        "version": loaded.version,
        "gateway": f"{config.server.host}:{config.server.port}",
        "workers": config.server.workers,
        "console": f"{config.admin.host}:{config.admin.port}",
        "keys": "needed by everybody"
        if config.keys.loopback == "required"
        else "needed from other machines; local programs need none",
        "local": "on" if config.local.enabled else "off",
        "providers": {
            name: f"{provider.target.origin!r} speaking {provider.dialect}"
            + (", from the environment" if name in loaded.from_env else "")
            + ("" if provider.secrets else ", without a key")
            for name, provider in providers.items()
        },
        "models": {name: model.target for name, model in config.names().items()},
    }
