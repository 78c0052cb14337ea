"""The command `forebay`: parse, find the verb, run it. Each verb is a file in commands/."""

import argparse
import importlib
import sys

from forebay import __version__, commands
from forebay.errors import Failure


def command_line() -> argparse.ArgumentParser:
    """Every verb and its options; docs/reference/cli.md is generated from it."""
    parser = argparse.ArgumentParser(
        prog="forebay",
        description="The layered gateway between applications and their language models.",
        epilog="`forebay up` starts everything on this machine; docs/start.md is the tour.",
    )
    parser.add_argument("--version", action="version", version=f"forebay {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, add in commands.VERBS:
        module = "check" if name == "schema" else name
        getattr(importlib.import_module(f"forebay.commands.{module}"), add)(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or failed (said on stderr), 2 wrong usage, 130 Ctrl-C."""
    args = command_line().parse_args(argv)
    try:
        return int(args.run(args))
    except Failure as failure:
        print(f"forebay: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
