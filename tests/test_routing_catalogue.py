"""Which provider and model a name means: three rules, the first that matches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.providers import Provider
from forebay.providers.facts import ModelFacts
from forebay.routing.catalogue import Catalogue, Model
from providers_kit import anthropic, azure, openai


def catalogue(
    *providers: Provider, names: dict[str, str | Model] | None = None, **more: frozenset[str]
) -> Catalogue:
    defined = {
        name: Model(target) if isinstance(target, str) else target
        for name, target in (names or {}).items()
    }
    return Catalogue({provider.name: provider for provider in providers}, defined, **more)


def found(of: Catalogue, asked: str) -> tuple[str, str, str]:
    route = of.find(asked, "chat")
    return route.provider.name, route.model, route.why


def refused(of: Catalogue, asked: str) -> Failure:
    with pytest.raises(Failure) as caught:
        of.find(asked, "chat")
    return caught.value


def test_a_name_of_ones_own_comes_first() -> None:
    of = catalogue(
        openai(models={"gpt-x": ModelFacts()}),
        anthropic(),
        names={"gpt-x": "anthropic/claude-x", "openai/gpt-x": "anthropic/claude-y"},
    )
    assert found(of, "gpt-x") == ("anthropic", "claude-x", "name gpt-x")
    assert found(of, "openai/gpt-x")[:2] == ("anthropic", "claude-y")


def test_provider_and_model_always_forward() -> None:
    of = catalogue(openai(), anthropic())
    for model in ("gpt-of-tomorrow", "org/model:free", "a/b/c", "/x", " "):
        assert found(of, f"openai/{model}") == ("openai", model, "direct")


def test_a_bare_name_is_the_first_providers_that_lists_it() -> None:
    of = catalogue(openai("one"), openai("two", models={"set": ModelFacts()}), openai("three"))
    of.load({"three": ["told", "set"], "two": ["told"]}, {"one": ["priced", "told"]})
    assert found(of, "set") == ("two", "set", "catalogue: two")
    assert found(of, "told") == ("one", "told", "catalogue: one")
    assert found(of, "priced")[0] == "one"
    of.load({"three": ["told"]}, {})
    assert found(of, "told")[0] == "three"
    assert refused(of, "priced").code.name == "unknown_model"


def test_a_name_stands_for_itself_only() -> None:
    """It may name a target that is a name, but is not looked up twice: no loops."""
    of = catalogue(openai("a"), names={"a": "a/a", "b": "a/b"})
    assert found(of, "a") == ("a", "a", "name a")
    assert found(of, "b") == ("a", "b", "name b")


def test_what_a_name_says_of_record_and_cache_goes_with_the_route() -> None:
    of = catalogue(openai(), names={"secret": Model("openai/m", capture="off", cache=False)})
    route = of.find("secret", "chat")
    assert (route.capture, route.cache) == ("off", False)
    route = of.find("openai/m", "chat")
    assert (route.capture, route.cache) == (None, True)


def test_a_deployment_stands_for_its_model() -> None:
    of = catalogue(azure(deployments={"gpt-x": "our-x"}))
    assert found(of, "azure/gpt-x")[:2] == ("azure", "our-x")
    assert found(of, "gpt-x")[:2] == ("azure", "our-x")
    assert found(of, "azure/our-x")[:2] == ("azure", "our-x")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("fats", "Did you mean fast?"),
        ("gpt-4", "Did you mean gpt-4o"),
        ("nothing-like-it", "one of the providers openai, anthropic; GET /v1/models lists more."),
        ("nobody/gpt", "one of the providers"),
        ("openai/", "one of the providers"),
        ("openai", "one of the providers"),
        ("", "one of the providers"),
    ],
)
def test_what_is_near_is_named(asked: str, hint: str) -> None:
    of = catalogue(openai(models={"gpt-4o": ModelFacts()}), anthropic(), names={"fast": "openai/m"})
    failure = refused(of, asked)
    assert (failure.code.name, failure.param) == ("unknown_model", "model")
    assert repr(asked) in failure.message
    assert hint in failure.hint


def test_without_a_provider_it_says_how_to_get_one() -> None:
    assert "OPENAI_API_KEY" in refused(catalogue(), "gpt").hint


@pytest.mark.parametrize("asked", ["x" * 1_000_000, "openai/" + "x" * 1_000_000])
def test_a_name_of_a_megabyte_is_neither_compared_nor_kept(asked: str) -> None:
    of = catalogue(openai(models={f"model-{n}": ModelFacts() for n in range(500)}))
    if asked.startswith("openai/"):
        of.find(asked, "chat")
    else:
        failure = refused(of, asked)
        assert len(str(failure)) < 500
    assert sum(map(len, of._routes)) < 1000


def test_what_is_remembered_of_callers_names_is_bounded() -> None:
    of = catalogue(openai())
    for number in range(10_100):
        of.find(f"openai/{number}", "chat")
    assert len(of._routes) == 10_000
    assert found(of, "openai/new")[1] == "new"  # only not remembered


def test_local_models_are_waited_for_while_they_load() -> None:
    of = catalogue(openai(), names={"small": "local/tiny"}, expected=frozenset({"local"}))
    for asked in ("local/tiny", "small"):
        failure = refused(of, asked)
        assert failure.code.name == "overloaded"
        assert failure.retry_after_s == 1.0
    local = openai("local", models={"tiny": ModelFacts()})
    of.providers["local"] = local
    of.expected.discard("local")
    of.refresh()
    assert found(of, "local/tiny")[0] == found(of, "small")[0] == "local"


def test_a_server_of_known_models_has_no_others() -> None:
    local = openai("local", models={"tiny": ModelFacts(context_tokens=4096)})
    local.restrict({"chat"})
    of = catalogue(local)
    route = of.find("local/tiny", "chat")
    assert route.facts is not None
    assert route.facts.context_tokens == 4096
    assert refused(of, "local/huge").code.name == "unknown_model"


def test_what_callers_can_ask_for() -> None:
    of = catalogue(
        openai("one", models={"a": ModelFacts()}),
        openai("two", models={"a": ModelFacts(), "b": ModelFacts()}),
        names={"mine": "two/b", "lost": "gone/x"},
    )
    of.load({"one": ["c"], "two": ["c"]}, {"one": ["only-priced"]})
    assert of.models() == [
        ("mine", "two"),
        ("lost", "gone"),
        ("a", "one"),
        ("c", "one"),
        ("two/a", "two"),
        ("b", "two"),
        ("two/c", "two"),
    ]
    for name, provider in of.models():
        if name != "lost":
            assert found(of, name)[0] == provider


def test_a_name_that_points_nowhere_says_where() -> None:
    failure = refused(catalogue(openai(), names={"lost": "gone/x"}), "lost")
    assert "'gone/x'" in failure.message


def test_passthrough_finds_providers_by_name() -> None:
    of = catalogue(openai())
    assert of.provider("openai").name == "openai"
    with pytest.raises(Failure) as caught:
        of.provider("x" * 10_000)
    assert caught.value.code.name == "unknown_path"
    assert len(str(caught.value)) < 200


@given(st.text(max_size=30))
def test_any_name_is_found_or_refused_and_told_in_a_header(model: str) -> None:
    of = catalogue(openai(), names={"fast": "openai/m"})
    for asked in (model, f"openai/{model}"):
        code = "unknown_model"
        try:
            route = of.find(asked, "chat")
        except Failure as failure:
            code = failure.code.name
            continue
        finally:
            assert code == "unknown_model"
        assert of.find(asked, "chat") == route
        for _, value in route.told:
            assert b"\n" not in value
            assert b"\r" not in value
            assert b"\0" not in value
            assert len(value) <= 200
