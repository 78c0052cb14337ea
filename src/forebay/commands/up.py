"""`forebay up`: everything on this machine, until Ctrl-C."""

import argparse
import asyncio
import signal
from pathlib import Path

import msgspec
from rich.console import Console

from forebay import config as configuration
from forebay import home
from forebay.commands import Verbs
from forebay.config import Loaded
from forebay.processes.supervisor import Ports, Supervisor


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "up",
        help="start the gateway, the console and the local model",
        description="Start everything on this machine. Without a config, key or network a "
        "small local model answers.",
    )
    parser.add_argument("--config", type=Path, help="default: ./forebay.yaml, where there is one")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="gateway's port (default 8080; 0: free)")
    parser.add_argument("--admin-port", type=int, help="console's port (default 8081; 0: free)")
    parser.add_argument("--workers", type=int, help="data-plane processes (default 1)")
    parser.add_argument("--no-local", action="store_true", help="start no local model")
    parser.add_argument("--json", action="store_true", help="say when ready as one JSON line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(_up(_overridden(configuration.load(args.config), args), args.json))


def _overridden(loaded: Loaded, args: argparse.Namespace) -> Loaded:
    server = {
        name: getattr(args, name)
        for name in ("host", "port", "workers")
        if getattr(args, name) is not None
    }
    admin = {} if args.admin_port is None else {"port": args.admin_port}
    local = {"enabled": False} if args.no_local else {}
    return configuration.overridden(loaded, server=server, admin=admin, local=local)


async def _up(loaded: Loaded, as_json: bool) -> int:
    err = Console(stderr=True, highlight=False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor(loaded, home.data_dir(), lambda line: err.print(line, markup=False))
    try:
        starting = asyncio.create_task(supervisor.start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return 130
        ports = starting.result()
        if as_json:
            _print_json(ports, supervisor.admin_key)
        else:
            _print_banner(loaded, ports, supervisor.admin_key)
        await stop.wait()
        if not as_json:
            err.print("stopping: open streams have 30 s", markup=False)
    finally:
        await supervisor.stop()
    return 0


def _print_json(ports: Ports, admin_key: str | None) -> None:
    ready = {"gateway": ports.gateway, "console": ports.console, "admin_key": admin_key}
    print(msgspec.json.encode(ready).decode(), flush=True)


def _print_banner(loaded: Loaded, ports: Ports, admin_key: str | None) -> None:
    out = Console(highlight=False, soft_wrap=True)
    model = next(iter(loaded.forebay.models), "local/smollm2-135m-instruct")
    providers = list(loaded.forebay.providers)
    out.print()
    out.print(f"  [bold]Forebay is up.[/]  base URL  [bold]{ports.gateway}[/]")
    out.print(f"                  console   {ports.console}")
    if providers:
        out.print(f"                  providers {', '.join(providers)}")
    if admin_key:
        out.print()
        out.print("  Admin key, shown this once (the console asks for it):")
        out.print(f"  [bold]{admin_key}[/]", markup=True)
    out.print()
    out.print("  Try it:")
    out.print(
        f"    curl {ports.gateway}/chat/completions -H 'content-type: application/json' -d '"
        f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        markup=False,
    )
    out.print()
    out.print("  Ctrl-C stops it.")
