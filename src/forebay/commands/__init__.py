"""The verbs of the command line, one file each: parse, call, print.

A verb's file has `add(verbs)`, which adds its parser and sets `run=` to a function
`(args) -> exit status`. `VERBS` is the order of `forebay --help`; a verb's module is imported
when the command line is parsed, so each keeps heavy imports inside its `run`.
"""

from argparse import ArgumentParser, _SubParsersAction
from typing import TypeAlias

Verbs: TypeAlias = "_SubParsersAction[ArgumentParser]"

#: module and function that adds the verb
VERBS = (
    ("up", "add"),
    ("check", "add"),
    ("schema", "add_schema"),
    ("keys", "add"),
    ("models", "add"),
    ("trace", "add"),
    ("sim", "add"),
    ("bench", "add"),
)
