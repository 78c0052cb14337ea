"""The lists in the docs are the program's own, and the example config is a config."""

import sys
from pathlib import Path

import pytest

from forebay import config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402 - scripts are no package


@pytest.mark.parametrize("page", reference.PARTS)
def test_what_is_generated_is_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    assert reference.renewed(page, text) == text, "run .venv/bin/python scripts/reference.py"


def test_the_example_is_a_config_that_would_start() -> None:
    loaded = config.load(ROOT / "forebay.example.yaml", {})
    assert list(loaded.forebay.providers) == ["openai", "anthropic", "azure", "gpu-room"]
    assert loaded.forebay.names()["confidential"].capture == "off"
