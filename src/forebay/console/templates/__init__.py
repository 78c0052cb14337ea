"""The templates, and what they can do. Everything they print is escaped unless they say so,
and none of them says so (tests/test_console_hostile.py looks)."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from forebay.console import words

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "ago": words.ago,
    "duration": words.duration,
    "moment": words.moment,
    "money": words.money,
    "money_exact": words.money_exact,
    "outcome": words.outcome,
    "readable": words.readable,
    "size": words.size,
    "tone": words.tone,
    "visible": words.visible,
    "segment": lambda text: quote(text, safe=""),  # of a path
}


def render(name: str, **values: Any) -> str:
    """A page. Raises jinja2.UndefinedError where a template asks for what it was not given."""
    return _environment.get_template(name).render(values)
