"""forebay.yaml: what people write is taken, and what they meant is said where it isn't."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay import config
from forebay.config import Forebay, Loaded, load
from forebay.errors import Failure
from forebay.providers import Anthropic, AzureOpenAI, OpenAI

EXAMPLE = Path(__file__).resolve().parents[1] / "forebay.example.yaml"
CANARY = "sk-canary-0123456789abcdef"


class Configs:
    """A folder for a forebay.yaml."""

    def __init__(self, path: Path) -> None:
        self.path = path / "forebay.yaml"

    def load(self, text: str, **environ: str) -> Loaded:
        self.path.write_text(text, encoding="utf-8")
        return load(self.path, environ)

    def refused(self, text: str | bytes, **environ: str) -> str:
        data = text.encode() if isinstance(text, str) else text
        self.path.write_bytes(data)
        with pytest.raises(Failure) as caught:
            load(self.path, environ)
        assert caught.value.code.name == "not_configured"
        said = str(caught.value)
        assert said.startswith(str(self.path)) or "cannot be read" in said
        assert len(said) < 600
        assert CANARY not in said
        assert "Traceback" not in said
        return said.removeprefix(str(self.path)).removeprefix(": ")


@pytest.fixture
def configs(tmp_path: Path) -> Configs:
    return Configs(tmp_path)


def tree(**parts: Any) -> str:
    return yaml.safe_dump(parts)


HOME = {"kind": "openai", "base_url": "http://home:8000/v1"}


# -- what people write -----------------------------------------------------------------------


def test_without_a_file_everything_has_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(None, {})
    assert loaded.forebay == Forebay()
    assert (loaded.path, loaded.from_env) == (None, [])


@pytest.mark.parametrize("name", config.FILES)
def test_the_file_in_the_working_directory_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("server: {port: 9000}")
    monkeypatch.chdir(tmp_path)
    loaded = load(None, {})
    assert loaded.forebay.server.port == 9000
    assert loaded.path == Path(name)


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "---\n", "{}", "null"])
def test_an_empty_file_is_the_default(configs: Configs, text: str) -> None:
    assert configs.load(text).forebay == Forebay()


def test_the_example_is_taken_and_starts_what_it_says() -> None:
    loaded = load(EXAMPLE, {"OPENAI_API_KEY": CANARY})
    forebay = loaded.forebay
    assert set(forebay.providers) == {"openai", "anthropic", "azure", "gpu-room"}
    openai = forebay.providers["openai"]
    assert isinstance(openai, OpenAI)
    assert openai.api_key == CANARY
    assert forebay.names()["confidential"].capture == "off"
    assert loaded.from_env == []  # the file defines them all


def test_words_that_old_yaml_took_for_something_else(configs: Configs) -> None:
    forebay = configs.load(
        "record: {capture: off}\n"
        "providers:\n"
        "  home: {kind: azure_openai, base_url: http://x, api_version: 2024-10-21, proxy: off}\n"
    ).forebay
    assert forebay.record.capture == "off"
    home = forebay.providers["home"]
    assert isinstance(home, AzureOpenAI)
    assert (home.api_version, home.proxy) == ("2024-10-21", "off")
    assert configs.load("local: {enabled: false, embedder: True}").forebay.local.embedder


def test_one_part_can_be_taken_over_into_another(configs: Configs) -> None:
    providers = configs.load(
        "providers:\n"
        "  one: &one {kind: openai, base_url: http://one, connections: 7}\n"
        "  two: {<<: *one, base_url: http://two}\n"
        "  three: *one\n"
    ).forebay.providers
    assert [p.base_url for p in providers.values()] == ["http://one", "http://two", "http://one"]
    assert [p.connections for p in providers.values()] == [7, 7, 7]


def test_a_name_is_short_for_its_target(configs: Configs) -> None:
    names = configs.load(
        tree(providers={"home": HOME}, models={"a": "home/x", "b": {"target": "home/y"}})
    ).forebay.names()
    assert (names["a"].target, names["b"].target) == ("home/x", "home/y")


def test_the_version_follows_the_text(configs: Configs) -> None:
    one = configs.load("server: {port: 1}").version
    assert configs.load("server: {port: 1}").version == one
    assert configs.load("server: {port: 2}").version != one
    assert configs.load("server: {port: 1}", OPENAI_API_KEY="x").version != one


# -- what they mistype -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servr: {}", "there is no setting servr. Did you mean server?"),
        ("server: {prot: 1}", "there is no setting server.prot. Did you mean port?"),
        ("server: {zzz: 1}", "there is no setting server.zzz. Known here: body_bytes, body_s,"),
        ("caches: {exat: {}}", "there is no setting caches.exat. Did you mean exact?"),
        (
            "caches: {exact: {max_mib: 1}}",
            "there is no setting caches.exact.max_mib. Did you mean max_mb?",
        ),
        (
            "providers: {good: {kind: openai}, home: {kind: openai, api_kye: x}}",
            "there is no setting providers.home.api_kye. Did you mean api_key?",
        ),
        (
            "providers: {home: {kind: azure_openai, deploymnts: {}}}",
            "there is no setting providers.home.deploymnts. Did you mean deployments?",
        ),
        (
            "providers: {home: {kind: anthropic, organization: x}}",
            "there is no setting providers.home.organization.",
        ),
        (
            "providers: {a: {kind: openai}, home: {kind: openai, models: {m: {}, n: {tolls: 1}}}}",
            "there is no setting providers.home.models.n.tolls. Did you mean tools?",
        ),
        (
            "providers: {good: {kind: openai}, home: {kind: opnai}}",
            "providers.home.kind: Invalid value 'opnai'. "
            "It can be openai or azure_openai or anthropic.",
        ),
        (
            "providers: {home: {api_key: x}}",
            "providers.home: Object missing required field `kind`. It can be openai or",
        ),
        ("providers: {home: openai}", "providers.home: Expected `object`, got `str`."),
        ("providers: [openai]", "providers: Expected `object`, got `array`."),
        (
            "providers: {1: {kind: openai}}",
            "providers: Expected `str`, got `int` as a name; quote it.",
        ),
        ("models: {a: {target: x/y, cach: 1}}", "there is no setting models.a.cach. Did you mean"),
        ("models: {a: {cache: true}}", "models.a: Object missing required field `target`."),
        ("models: {b: x/y, a: 5}", "models.a: Expected `str | object`, got `int`."),
        (
            "models: {a: {target: x/y, capture: maybe}}",
            "models.a.capture: Invalid enum value 'maybe'. It can be full or hashed or off.",
        ),
        ("keys: {loopback: opne}", "keys.loopback: Invalid enum value 'opne'. It can be open or"),
        ("server: {port: x}", "server.port: Expected `int`, got `str`."),
        ("server: {port: 1.5}", "server.port: Expected `int`, got `float`."),
        ("server: {port: 70000}", "server.port: Expected `int` <= 65535."),
        ("server: {port: -1}", "server.port: Expected `int` >= 0."),
        ("admin: {port: 99999}", "admin.port: Expected `int` <= 65535."),
        ("server: {workers: 0}", "server.workers: Expected `int` >= 1."),
        ("server: {workers: 10000}", "server.workers: Expected `int` <= 256."),
        ("server: {connections: 0}", "server.connections: Expected `int` >= 1."),
        ("server: {head_s: 0}", "server.head_s: Expected `float` > 0.0."),
        ("server: {body_s: .nan}", "server.body_s: Expected `float` > 0.0."),
        ("server: {keep_alive_s: .inf}", "server.keep_alive_s: Expected `float` <= "),
        ("timeouts: {connect_s: -1}", "timeouts.connect_s: Expected `float` > 0.0."),
        ("caches: {exact: {ttl_s: .inf}}", "caches.exact.ttl_s: Expected `float` <= "),
        ("caches: {exact: {max_mb: -5}}", "caches.exact.max_mb: Expected `int` >= 1."),
        ("record: {retention_days: -1}", "record.retention_days: Expected `int` >= 0."),
        ("admin: {hosts: [a, 1]}", "admin.hosts[1]: Expected `str`, got `int`."),
        ("server: []", "server: Expected `object`, got `array`."),
        ("- a", "the file: Expected `object`, got `array`."),
        ("hello", "the file: Expected `object`, got `str`."),
        (
            "providers: {home: {kind: openai, connections: 0}}",
            "providers.home.connections: Expected `int` >= 1.",
        ),
    ],
)
def test_what_was_meant_is_said(configs: Configs, text: str, said: str) -> None:
    assert said in configs.refused(text)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"providers": {"a b": HOME}}, "providers.a b is no name for a provider"),
        ({"providers": {"a/b": HOME}}, "providers.a/b is no name for a provider"),
        ({"providers": {"": HOME}}, "providers. is no name for a provider"),
        ({"providers": {"local": HOME}}, "`local` is taken"),
        ({"providers": {"x" * 64: HOME}}, "is no name for a provider"),
        ({"models": {"a": "hoem/x"}, "providers": {"home": HOME}}, "Did you mean home/x?"),
        ({"models": {"a": "x"}, "providers": {"home": HOME}}, "Providers are: home, local"),
        ({"models": {"a": "home/"}, "providers": {"home": HOME}}, "Did you mean home/…?"),
        (
            {"providers": {"home": HOME | {"base_url": "home:8000"}}},
            "providers.home: base_url 'home:8000' is not an http(s) address.",
        ),
        ({"providers": {"home": {"kind": "azure_openai"}}}, "providers.home: An azure_openai"),
        ({"providers": {"home": HOME | {"api_key": "a\nb"}}}, "providers.home: api_key holds a"),
        ({"providers": {"home": HOME | {"headers": {"a b": "c"}}}}, "providers.home: headers:"),
        ({"providers": {"home": HOME | {"proxy": "socks5://x"}}}, "providers.home: The proxy is"),
        ({"providers": {"home": HOME | {"ca_file": "/none"}}}, "providers.home: ca_file '/none'"),
        ({"server": {"port": 8081}}, "server.port and admin.port are both 8081"),
    ],
)
def test_what_types_cannot_say(configs: Configs, parts: dict[str, Any], said: str) -> None:
    assert said in configs.refused(tree(**parts))


def test_free_ports_are_no_conflict(configs: Configs) -> None:
    configs.load("server: {port: 0}\nadmin: {port: 0}")
    configs.load("server: {port: 8081, host: 10.0.0.1}")


# -- files that are none ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {port: 1}\nserver: {port: 2}", "line 2: 'server' stands twice."),
        ("server:\n  port: 1\n  host: x\n  port: 2", "line 4: 'port' stands twice."),
        ("providers: {a: {kind: openai}, a: {kind: openai}}", "'a' stands twice."),
        ("a: b\n\tc: d", "line 2"),
        ("a: [b", "line"),
        ("a: 'b", "line"),
        ("a: *b", "line 1: found undefined alias 'b'."),
        ("? [a]\n: b", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: could not determine"),
        ("a: b\n---\nc: d", "line 2: but found another document."),
        (b"\xff\xfea", "cannot be read"),
        (b"a: \x00", "is not YAML"),
        ("[" * 5000, "nests deeper"),
        ("a: " + "{b: " * 3000, "nests deeper"),
    ],
)
def test_what_is_no_yaml(configs: Configs, text: str | bytes, said: str) -> None:
    assert said in configs.refused(text)


def test_a_file_that_cannot_be_read(configs: Configs) -> None:
    with pytest.raises(Failure) as caught:
        load(configs.path, {})
    assert "cannot be read" in str(caught.value)
    configs.path.mkdir()
    with pytest.raises(Failure) as caught:
        load(configs.path, {})
    assert "cannot be read" in str(caught.value)


def test_aliases_of_aliases_are_bounded(configs: Configs) -> None:
    """Nine lines that stand for a billion values, and a list that holds itself."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    assert "unfolds to over 20000 values" in configs.refused("\n".join(lines))
    assert "32 levels" in configs.refused("a: &a [*a]")
    assert "32 levels" in configs.refused("a: &a {b: *a}")


# -- the environment -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environ", "key"),
    [
        ("${KEY}", {"KEY": "x"}, "x"),
        ("a-${KEY}-b", {"KEY": "x"}, "a-x-b"),
        ("${A}${B}", {"A": "x", "B": "y"}, "xy"),
        ("${KEY:-d}", {}, "d"),
        ("${KEY:-d}", {"KEY": "x"}, "x"),
        ("${KEY:-d}", {"KEY": ""}, ""),
        ("${KEY:-}", {}, ""),
        ("${KEY:-a b:c}", {}, "a b:c"),
        ("${KEY}", {"KEY": "${OTHER}"}, "${OTHER}"),  # once, not again and again
        ("${KEY}", {"KEY": "\\1 \\g<0>"}, "\\1 \\g<0>"),
        ("${1X}", {}, "${1X}"),
        ("$KEY", {"KEY": "x"}, "$KEY"),
        ("${}", {}, "${}"),
    ],
)
def test_a_value_from_the_environment(
    configs: Configs, text: str, environ: dict[str, str], key: str
) -> None:
    home = configs.load(tree(providers={"home": HOME | {"api_key": text}}), **environ)
    assert home.forebay.providers["home"].api_key == key


def test_numbers_and_switches_may_come_from_the_environment(configs: Configs) -> None:
    text = (
        "server: {port: '${PORT}'}\n"
        "timeouts: {connect_s: '${CONNECT:-2.5}'}\n"
        "local: {enabled: '${LOCAL:-false}'}\n"
    )
    forebay = configs.load(text, PORT="9000").forebay
    assert forebay.server.port == 9000
    assert forebay.timeouts.connect_s == 2.5
    assert not forebay.local.enabled
    assert "server.port: Expected `int`" in configs.refused(text, PORT="many")


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ({"providers": {"home": HOME | {"api_key": "${MISSING}"}}}, "providers.home.api_key"),
        ({"admin": {"hosts": ["a", "${MISSING}"]}}, "admin.hosts[1]"),
        ({"server": {"host": "${MISSING}"}}, "server.host"),
    ],
)
def test_a_variable_that_is_not_set(configs: Configs, parts: dict[str, Any], path: str) -> None:
    said = configs.refused(tree(**parts))
    assert f"{path} needs the environment variable MISSING, which is not set." in said
    assert "${MISSING:-}" in said


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OPENAI_API_KEY": "x"}, ["openai"]),
        ({"OPENAI_API_KEY": ""}, []),
        ({"ANTHROPIC_API_KEY": "x", "OPENAI_API_KEY": "x"}, ["openai", "anthropic"]),
        ({"AZURE_OPENAI_API_KEY": "x"}, []),
        ({"AZURE_OPENAI_API_KEY": "x", "AZURE_OPENAI_ENDPOINT": "https://x"}, ["azure"]),
        ({"GROQ_API_KEY": "x", "XAI_API_KEY": "x"}, ["groq", "x-ai"]),
    ],
)
def test_a_key_in_the_environment_adds_its_provider(
    configs: Configs, environ: dict[str, str], names: list[str]
) -> None:
    loaded = configs.load("", **environ)
    assert list(loaded.forebay.providers) == loaded.from_env == names
    for provider in loaded.forebay.providers.values():
        assert provider.api_key == "x"


def test_details_of_a_provider_from_the_environment(configs: Configs) -> None:
    found = configs.load(
        "",
        OPENAI_API_KEY="x",
        OPENAI_ORG_ID="org",
        OPENAI_PROJECT_ID="proj",
        AZURE_OPENAI_API_KEY="x",
        AZURE_OPENAI_ENDPOINT="https://mine.openai.azure.com/",
        OPENAI_API_VERSION="2025-01-01",
    ).forebay.providers
    openai, azure = found["openai"], found["azure"]
    assert isinstance(openai, OpenAI)
    assert (openai.organization, openai.project) == ("org", "proj")
    assert isinstance(azure, AzureOpenAI)
    assert azure.api_version == "2025-01-01"


def test_what_the_file_defines_the_environment_does_not_replace(configs: Configs) -> None:
    loaded = configs.load(
        tree(providers={"openai": {"kind": "anthropic", "api_key": "mine"}}),
        OPENAI_API_KEY="theirs",
    )
    assert loaded.from_env == []
    assert isinstance(loaded.forebay.providers["openai"], Anthropic)


@pytest.mark.parametrize("key", [f"{CANARY}\n", f"{CANARY}\r\nx-evil: 1"])
def test_a_broken_key_from_the_environment_is_refused_at_once(configs: Configs, key: str) -> None:
    said = configs.refused("", OPENAI_API_KEY=key)
    assert "providers.openai: api_key holds a character" in said
    assert "line break" in said


# -- secrets ---------------------------------------------------------------------------------


def test_a_key_is_not_printed_with_the_config(configs: Configs) -> None:
    parts = {
        "home": HOME | {"api_key": CANARY, "headers": {"x-secret": CANARY}},
        "far": {"kind": "anthropic", "api_key": CANARY, "proxy": f"http://me:{CANARY}@near"},
    }
    loaded = configs.load(tree(providers=parts), OPENAI_API_KEY=CANARY)
    for shown in (loaded, loaded.forebay, loaded.forebay.providers):
        assert CANARY not in repr(shown)
        assert CANARY not in f"{shown}"


@pytest.mark.parametrize(
    "parts",
    [
        {"providers": {"home": HOME | {"base_url": CANARY}}},
        {"providers": {"home": HOME | {"base_url": f"https://me:{CANARY}@x"}}},
        {"providers": {"home": HOME | {"proxy": f"socks5://me:{CANARY}@x"}}},
        {"providers": {"home": HOME | {"kind": CANARY}}},
        {"providers": {"home": HOME | {"api_key": CANARY + "\n"}}},
        {"providers": {"home": HOME | {"api_key": [CANARY]}}},
        {"providers": {"home": HOME | {"headers": {"x": CANARY + "\n"}}}},
        {"providers": {CANARY + "/": HOME}},
        {"models": {"a": CANARY}},
        {"keys": {"loopback": CANARY}},
        {CANARY: 1},
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown_for_it(
    configs: Configs, parts: dict[str, Any]
) -> None:
    configs.refused(tree(**parts))  # which looks for the canary


# -- the schema for editors ------------------------------------------------------------------


def validator() -> jsonschema.protocols.Validator:
    schema = json.loads(json.dumps(config.schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_the_example() -> None:
    validator().validate(yaml.load(EXAMPLE.read_text(), config._StrictLoader))


@pytest.mark.parametrize(
    "parts",
    [
        {"servr": {}},
        {"server": {"prot": 1}},
        {"server": {"port": "x"}},
        {"server": {"port": 70000}},
        {"providers": {"home": {"kind": "opnai"}}},
        {"providers": {"home": {"base_url": "http://x"}}},
        {"providers": {"home": {"kind": "openai", "api_kye": "x"}}},
        {"models": {"a": 5}},
        {"keys": {"loopback": "opne"}},
        {"timeouts": {"connect_s": 0}},
    ],
)
def test_the_schema_knows_what_is_mistyped(parts: dict[str, Any]) -> None:
    assert not validator().is_valid(parts)


PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["openai", "off", "home/x", "http://x", "", "\0", "${X}"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "server",
                        "port",
                        "providers",
                        "home",
                        "kind",
                        "base_url",
                        "models",
                        "caches",
                    ),
                    *(
                        "exact",
                        "timeouts",
                        "keys",
                        "local",
                        "headers",
                        "target",
                        "admin",
                        "hosts",
                        "1",
                    ),
                ]
            )
            | st.integers(0, 2),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(parts=st.dictionaries(st.sampled_from(list(Forebay.__struct_fields__)), PARTS, max_size=3))
def test_any_tree_is_taken_or_refused_in_words(parts: dict[str, Any]) -> None:
    try:
        forebay = config.decode(config._expand(parts, {}, "it"), "it")
        config._check(forebay, "it")
    except Failure as failure:
        said = str(failure)
        code = failure.code.name
    else:
        return
    assert code == "not_configured"
    assert said.startswith("it")
    assert "[...]" not in said


@settings(max_examples=200)
@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("latin-1")))
def test_any_text_is_taken_or_refused_in_words(text: str) -> None:
    try:
        config._parse(text, "it")
    except Failure as failure:
        code = failure.code.name
    else:
        return
    assert code == "not_configured"
