"""The verbs of the command line, one file each: parse, call, print.

A verb's file has `add(verbs)`, which adds its parser and sets `run=` to a function
`(args) -> exit status`. This list is the order of `forebay --help`.
"""

from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Callable

Verbs = _SubParsersAction[ArgumentParser]

VERBS: list[Callable[[Verbs], None]] = []
