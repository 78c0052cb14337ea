"""Where Forebay keeps things on a machine: data that matters and a cache that may go.

`FOREBAY_HOME` holds both for whoever wants one folder (containers, tests); otherwise the
XDG base directories decide.
"""

import os
from pathlib import Path


def data_dir() -> Path:
    """Keys, records, indexes. Created private to the user (0700): prompts are in there."""
    return _made("data", "XDG_DATA_HOME", Path.home() / ".local" / "share")


def cache_dir() -> Path:
    """Fetched weights and whatever else can be fetched again."""
    return _made("cache", "XDG_CACHE_HOME", Path.home() / ".cache")


def _made(kind: str, variable: str, default: Path) -> Path:
    if home := os.environ.get("FOREBAY_HOME"):
        path = Path(home) / kind
    else:
        path = Path(os.environ.get(variable) or default) / "forebay"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
