"""The lists in the docs are the program's own; the example and the tour's configs would start."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from forebay import config
from running import start

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402 - scripts are no package


@pytest.mark.parametrize("page", reference.PARTS)
def test_what_is_generated_is_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    assert reference.renewed(page, text) == text, "run `make docs`"


def test_a_page_that_lost_its_place_for_a_list_is_told() -> None:
    page = "docs/reference/metrics.md"
    text = (ROOT / page).read_text().replace("<!-- end: metrics -->", "")
    with pytest.raises(SystemExit, match=r"metrics\.md has no one place for metrics"):
        reference.renewed(page, text)


def test_a_setting_that_nobody_explained_is_told() -> None:
    class Silent(config.Keys, frozen=True):
        secret: str = ""

    with pytest.raises(SystemExit, match="Silent: 'secret' is explained nowhere"):
        reference._docs(Silent)["secret"]


# -- configs that people copy


def test_the_example_is_a_config_that_would_start() -> None:
    loaded = config.load(ROOT / "forebay.example.yaml", {})
    assert list(loaded.forebay.providers) == ["openai", "anthropic", "azure", "gpu-room"]
    assert loaded.forebay.names()["confidential"].capture == "off"


def test_the_example_shows_every_part_of_a_config() -> None:
    tree = yaml.safe_load((ROOT / "forebay.example.yaml").read_text())
    assert set(tree) == set(config.Forebay.__struct_fields__)


def test_the_numbers_of_the_example_are_the_defaults() -> None:
    """Who copies all of it must not change what they did not mean to."""
    shown = config.load(ROOT / "forebay.example.yaml", {}).forebay
    default = config.Forebay()
    for part in ("server", "admin", "local", "caches", "record", "keys", "timeouts"):
        assert getattr(shown, part) == getattr(default, part), part


@pytest.mark.parametrize("variables", reference.PROVIDER_VARIABLES)
def test_a_key_in_the_environment_adds_the_provider_that_the_page_names(
    variables: tuple[str, ...], tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text()
    shown = " and ".join(f"`{name}`" for name in variables)
    row = re.search(rf"^\| {shown} \| `(\S+)` \|", page, re.M)
    assert row is not None
    (tmp_path / "empty.yaml").write_text("")
    environ = dict.fromkeys(variables, "https://x.openai.azure.com")
    assert config.load(tmp_path / "empty.yaml", environ).from_env == [row[1]]


@pytest.fixture
def simulated() -> Iterator[dict[str, str]]:
    """`forebay sim` as the tour starts it, faster: base URLs by name."""
    options = "--json --until-eof --port 0 --preset frontier --preset small --speed 20"
    sim = subprocess.Popen(
        [sys.executable, "-m", "forebay", "sim", *options.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sim.stdin is not None
    assert sim.stdout is not None
    with sim.stdin, sim.stdout:
        twins = json.loads(sim.stdout.readline())["twins"]
        yield {twin["name"]: twin["base_url"] for twin in twins}
        sim.stdin.close()
        assert sim.wait(10) == 0


def test_the_simulated_providers_of_the_tour_answer(
    simulated: dict[str, str], tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    (text,) = re.findall(r"```yaml\n([^`]*127\.0\.0\.1:9100[^`]*)```", page)
    text = text.replace("http://127.0.0.1:9100", simulated["openai"])
    text = text.replace("http://127.0.0.1:9101", simulated["anthropic"])
    running = start(tmp_path, yaml.safe_load(text), "--no-local")
    try:
        for model in ("fast", "careful"):
            ask = {"model": model, "messages": [{"role": "user", "content": "Hello [out:40]"}]}
            status, body = running.post("/v1/chat/completions", ask)
            assert status == 200, body
            assert json.loads(body)["usage"]["completion_tokens"] == 40
    finally:
        assert running.stop() == 0
