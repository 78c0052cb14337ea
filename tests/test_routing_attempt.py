"""What a call cost, and what became of it when it failed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.dialects.translation import Finding
from forebay.errors import CODES, Failure
from forebay.exchange import Ask, Attempt, Dialect, Exchange, Head
from forebay.providers.prices import PriceTable
from forebay.routing import attempt as attempts
from forebay.routing.attempt import Timeouts
from forebay.schema.usage import Rates, Usage
from forebay.wire.upstream import Kind, LinkError
from providers_kit import CANARY, anthropic, openai

RATES = Rates(1_000_000_000, 100_000_000, 1_250_000_000, 3_000_000_000)
KINDS: dict[Kind, str] = {
    "dns": "provider_unreachable",
    "refused": "provider_unreachable",
    "tls": "provider_unreachable",
    "proxy": "provider_unreachable",
    "pool_full": "provider_unreachable",
    "reset": "provider_unreachable",
    "given_up": "provider_unreachable",
    "connect_timeout": "provider_timeout",
    "first_byte_timeout": "provider_timeout",
    "idle_timeout": "provider_timeout",
    "total_timeout": "provider_timeout",
    "protocol": "bad_answer",
    "too_large": "bad_answer",
    "truncated": "truncated",
}


def exchange(dialect: Dialect = "openai") -> Exchange:
    return Exchange("req_1", 0, 0, "POST", "/", "", Head(), "", dialect=dialect)


def test_clocks_count_from_when_the_request_came() -> None:
    clocks = Timeouts(1, 2, 3, 4).clocks(10)
    assert (clocks.connect_s, clocks.first_s, clocks.idle_s) == (1, 2, 3)
    assert clocks.total_at_ns == 4_000_000_010


@pytest.mark.parametrize(("kind", "code"), KINDS.items())
def test_what_fails_below_http_names_the_provider_and_no_address(kind: Kind, code: str) -> None:
    attempt = Attempt("home", "m")
    error = LinkError(kind, "said by the wire" if code != "provider_unreachable" else "at 10.1.2.3")
    failure = attempts.failed(attempt, error)
    assert (failure.code.name, attempt.outcome, failure.provider) == (code, code, "home")
    assert "home" in failure.message
    if kind in ("dns", "refused", "proxy"):
        assert "10.1.2.3" not in str(failure)


def test_every_way_a_call_can_fail_has_a_code() -> None:
    assert set(KINDS) == set(Kind.__args__)  # type: ignore[attr-defined]
    assert set(KINDS.values()) <= CODES.keys()


# -- answers other than 200 ------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_operators_business(status: int) -> None:
    attempt = Attempt("home", "m", status=status)
    body = json.dumps({"error": {"message": f"Incorrect API key: {CANARY}"}}).encode()
    with pytest.raises(Failure) as caught:
        attempts.refused(exchange(), attempt, openai("home"), body)
    assert (caught.value.code.name, attempt.outcome) == ("provider_refused_key",) * 2
    assert CANARY not in str(caught.value)
    assert attempt.cost_nusd == 0


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    attempt = Attempt("home", "m", status=status)
    with pytest.raises(Failure) as caught:
        attempts.refused(exchange(), attempt, openai("home"), b"")
    assert caught.value.code.name == "bad_answer"


@pytest.mark.parametrize("status", [400, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529, 599])
def test_within_a_dialect_a_providers_error_passes(status: int) -> None:
    body = b'{ "error" : {"message":"no","x":1} }'
    for provider, dialect in ((openai(), "openai"), (anthropic(), "anthropic")):
        attempt = Attempt(provider.name, "m", status=status)
        x = exchange(dialect)  # type: ignore[arg-type]
        shown, out, failure = attempts.refused(x, attempt, provider, body)
        assert (shown, out) == (status, body)
        assert out is body
        assert (failure.code.name, failure.message) == ("provider_error", "no")
        assert (attempt.usage, attempt.cost_nusd) == (Usage(), 0)


@pytest.mark.parametrize(
    "body", [b"", b"<html>10.0.0.7</html>", b"no", b"[]", b'{"detail":"no"}', b'{"\xff":1}']
)
def test_what_is_no_error_of_the_dialect_is_said_in_it(body: bytes) -> None:
    attempt = Attempt("openai", "m", status=500)
    status, out, failure = attempts.refused(exchange(), attempt, openai(), body)
    assert status == 500
    assert json.loads(out)["error"]["message"] == failure.message
    assert b"10.0.0.7" not in out


def test_where_the_key_is_quoted_it_is_masked() -> None:
    body = json.dumps({"error": {"message": f"bad header: Bearer {CANARY}"}}).encode()
    attempt = Attempt("openai", "m", status=400)
    _, out, failure = attempts.refused(exchange(), attempt, openai(), body)
    assert CANARY.encode() not in out
    assert CANARY not in str(failure)


# -- how a stream ended ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "code"),
    [
        (Finding(finish_reason="stop"), None),
        (Finding(finish_reason="stop", closed=True), None),
        (Finding(), "truncated"),
        (Finding(closed=True), "truncated"),
        (Finding(progress=100), "truncated"),
        (Finding(error="no"), "provider_error"),
        (Finding(finish_reason="stop", error="no"), "provider_error"),
    ],
)
def test_a_stream_is_a_success_with_a_reason_and_without_an_error(
    finding: Finding, code: str | None
) -> None:
    failure = attempts.unfinished(finding, "home")
    assert (failure.code.name if failure else None) == code


# -- money -----------------------------------------------------------------------------------


def accounted(finding: Finding, size: int = 0, model: str = "m") -> Attempt:
    prices = PriceTable()
    prices.load({("openai", "m"): RATES})
    attempt = Attempt("openai", model)
    ask = Ask("openai/m", input_tokens_estimate=7)
    attempts.account(attempt, finding, ask, size, prices, openai(prices="openai"))
    return attempt


def test_a_report_of_usage_is_what_was_used() -> None:
    usage = Usage(10, 20, 30, 40, 5)
    attempt = accounted(Finding(usage=usage, finish_reason="stop", model="m-1"))
    assert attempt.usage == usage
    assert attempt.cost_nusd == 10_000 + 2_000 + 37_500 + 120_000
    assert (attempt.finish_reason, attempt.model_reported) == ("stop", "m-1")


@pytest.mark.parametrize(
    ("finding", "size", "usage"),
    [
        (Finding(finish_reason="stop"), 400, Usage(7, 0, 0, 100, estimated=True)),
        (Finding(finish_reason="stop", progress=9), 0, Usage(7, 0, 0, 9, estimated=True)),
        (Finding(), 0, Usage(7, estimated=True)),
        # cut: the report that opened the stream holds no count of what was made
        (
            Finding(usage=Usage(50, 3, 0, 1), progress=9),
            0,
            Usage(50, 3, 0, 9, estimated=True),
        ),
    ],
)
def test_where_nothing_was_reported_an_estimate_says_so(
    finding: Finding, size: int, usage: Usage
) -> None:
    assert accounted(finding, size).usage == usage


def test_a_model_without_a_price_costs_nobody_knows_what() -> None:
    prices = PriceTable()
    attempt = Attempt("openai", "new")
    ask = Ask("openai/new")
    finding = Finding(usage=Usage(1), finish_reason="stop")
    attempts.account(attempt, finding, ask, 0, prices, openai(prices="openai"))
    assert attempt.cost_nusd is None
    assert prices.wanted == {("openai", "new")}
    attempts.account(attempt, finding, ask, 0, prices, openai(prices=""))
    assert attempt.cost_nusd == 0  # a server of one's own


@given(
    usage=st.none() | st.builds(Usage, *[st.integers(0, 10**9)] * 5),
    reason=st.none() | st.just("stop"),
    progress=st.integers(0, 10**6),
    size=st.integers(0, 10**8),
)
def test_a_cost_is_never_negative_and_always_that_of_the_usage(
    usage: Usage | None, reason: str | None, progress: int, size: int
) -> None:
    attempt = accounted(Finding(usage=usage, finish_reason=reason, progress=progress), size)
    assert attempt.usage is not None
    assert attempt.cost_nusd == RATES.cost_nusd(attempt.usage) >= 0
    if usage is None or reason is None:
        assert attempt.usage.estimated
    else:
        assert attempt.usage == usage
