"""The table of what callers can ask, one row each."""

from forebay.dialects.choice import translate
from forebay.dialects.endpoints import BY_PATH, ENDPOINTS
from forebay.providers.facts import ANTHROPIC, OPENAI, OPENAI_COMPATIBLE


def test_names_and_paths_are_unambiguous() -> None:
    assert [endpoint.name for endpoint in ENDPOINTS.values()] == list(ENDPOINTS)
    assert len(BY_PATH) == len(ENDPOINTS)
    assert all(path.startswith("/v1/") for path in BY_PATH)


def test_what_is_streamed_with_state_elsewhere_is_never_cached() -> None:
    """A Response is stored at its provider under its id; a count is cheaper than a lookup."""
    uncached = {endpoint.name for endpoint in ENDPOINTS.values() if not endpoint.cacheable}
    assert uncached == {"responses", "count_tokens"}


def test_every_endpoint_is_served_in_its_own_dialect_and_two_in_the_other() -> None:
    for endpoint in ENDPOINTS.values():
        own = translate(endpoint, endpoint.dialect, "req_1", 0, "max_tokens")
        assert own is not None
        assert own.endpoint == endpoint.name
        other = "anthropic" if endpoint.dialect == "openai" else "openai"
        crossed = translate(endpoint, other, "req_1", 0, "max_tokens")  # type: ignore[arg-type]
        assert (crossed is not None) == (endpoint.name in ("chat", "messages"))
        if crossed is not None:
            assert crossed.dialect == other
            assert ENDPOINTS[crossed.endpoint].dialect == other


def test_what_providers_claim_to_have_is_in_the_table() -> None:
    for facts in (OPENAI, OPENAI_COMPATIBLE, ANTHROPIC):
        assert facts.endpoints <= ENDPOINTS.keys()
        assert len({ENDPOINTS[name].dialect for name in facts.endpoints}) == 1
