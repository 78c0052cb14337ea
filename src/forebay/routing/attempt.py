"""One call to one provider: sent, answered, accounted for.

An attempt is opened before its first byte leaves and closed on every way out; what it was
sent and what it got are in the Exchange from the first moment, so that a record of a failed
call shows as much as was known.
"""

from typing import Annotated

import msgspec

from forebay.dialects import decoding, failures
from forebay.dialects.translation import Finding
from forebay.errors import Failure
from forebay.exchange import Ask, Attempt, Chunks, Exchange, Headers, Splice
from forebay.providers import Provider
from forebay.providers.prices import PriceTable
from forebay.schema.usage import Usage
from forebay.wire import members as top
from forebay.wire.clock import SECOND_NS
from forebay.wire.upstream import Call, Clocks, LinkError
from forebay.world import World

_UNREACHABLE = frozenset({"dns", "refused", "tls", "proxy", "pool_full", "reset", "given_up"})
#: Of these the wire's own words name hosts and ports, which are no caller's business.
_PRIVATE = {
    "dns": "its name does not resolve",
    "refused": "nothing accepts connections where it should be",
    "proxy": "the proxy on the way to it refused",
}
#: Local servers take words like "none" for a key.
_SHORTEST_SECRET = 8
_TOO_LATE = frozenset({"connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout"})


#: At most an hour: a record keeps times of chunks as 32 bits of microseconds.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long each wait for a provider may take, in seconds."""

    #: until there is a connection, TLS included
    connect_s: Seconds = 5.0
    #: until the answer begins; reasoning models think before their first word
    first_token_s: Seconds = 120.0
    #: between two pieces of content
    between_tokens_s: Seconds = 60.0
    #: the whole request
    total_s: Seconds = 900.0

    def clocks(self, received_ns: int) -> Clocks:
        return Clocks(
            self.connect_s,
            self.first_token_s,
            self.between_tokens_s,
            received_ns + int(self.total_s * SECOND_NS),
        )


async def send(
    world: World,
    x: Exchange,
    provider: Provider,
    model: str,
    method: str,
    path: str,
    headers: Headers,
    sent: bytes | list[Splice],
    clocks: Clocks,
) -> tuple[Attempt, Call]:
    """Open an attempt, send it, and wait for the head of its answer.

    Raises Failure (provider_unreachable, provider_timeout, bad_answer) with the attempt closed.
    """
    attempt = Attempt(
        provider=provider.name,
        model=model,
        method=method,
        path=path,
        sent_headers=[*provider.public_headers, *headers],
        sent=sent,
        started_ns=world.now_ns(),
    )
    x.attempts.append(attempt)
    if isinstance(sent, list):
        body = top.apply(x.body, sent) if sent else x.body
    else:
        body = sent
    head = provider.head(method, path, headers, body)
    try:
        call = await provider.target.call(method, head, body, clocks)
    except LinkError as error:
        raise failed(attempt, error) from None
    attempt.status = call.status
    attempt.headers = call.headers
    attempt.head_ns = world.now_ns()
    return attempt, call


async def read(world: World, attempt: Attempt, call: Call, limit: int) -> bytes:
    """The whole body, kept in the attempt. Raises Failure as `send`."""
    try:
        body = await call.read_all(limit)
    except LinkError as error:
        raise failed(attempt, error) from None
    now = world.now_ns()
    attempt.body = Chunks(now)
    attempt.body.data += body
    attempt.first_ns = now
    return body


def failed(attempt: Attempt, error: LinkError) -> Failure:
    """What went wrong below HTTP, for the caller: names the provider, never an address."""
    if error.kind in _TOO_LATE:
        code = "provider_timeout"
    elif error.kind in _UNREACHABLE:
        code = "provider_unreachable"
    else:
        code = "truncated" if error.kind == "truncated" else "bad_answer"
    attempt.outcome = code
    return Failure(
        code,
        f"The provider {attempt.provider} did not answer properly: "
        f"{_PRIVATE.get(error.kind) or error}.",
        provider=attempt.provider,
    )


def refused(
    x: Exchange, attempt: Attempt, provider: Provider, body: bytes
) -> tuple[int, bytes, Failure]:
    """An answer other than 200: the caller's status and body, and the failure it is.

    Within a dialect a provider's own error passes as it is: SDKs read details from it. Three
    things never pass: what the provider thinks of the operator's key, and a redirect, which
    would carry that key to wherever it points, are raised as a Failure; and where the key is
    quoted it is masked.
    """
    for value in provider.secrets:
        secret = value.removeprefix(b"Bearer ")
        if len(secret) >= _SHORTEST_SECRET and secret in body:
            body = body.replace(secret, b"[key]")
    attempt.usage, attempt.cost_nusd = Usage(), 0
    status, name = attempt.status, provider.name
    if status in (401, 403):
        attempt.outcome = "provider_refused_key"
        raise Failure(
            "provider_refused_key",
            f"The provider {name} refused the gateway's own key (status {status}).",
            hint="Whoever runs this gateway has to check the provider's api_key.",
            provider=name,
        )
    if status < 400:
        attempt.outcome = "bad_answer"
        raise Failure(
            "bad_answer",
            f"The provider {name} answered with status {status}; redirects are not followed.",
            hint="Whoever runs this gateway has to check the provider's base_url.",
            provider=name,
        )
    attempt.outcome = "provider_error"
    failure = Failure("provider_error", failures.read(status, body)[2], provider=name)
    if x.dialect == provider.dialect and _is_error(body):
        return status, body, failure
    return *failures.convert(status, body, x.dialect, x.id), failure


def unfinished(finding: Finding, provider: str) -> Failure | None:
    """Why a stream that ended is no success; None where it is one."""
    if finding.error is not None:
        return Failure("provider_error", finding.error, provider=provider)
    if finding.finish_reason is None:
        return Failure(
            "truncated",
            f"The provider {provider} ended its answer without a finish reason.",
            provider=provider,
        )
    return None


def _is_error(body: bytes) -> bool:
    try:
        return "error" in msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except decoding.WRONG:
        return False


def account(
    attempt: Attempt,
    finding: Finding,
    ask: Ask,
    size: int,
    prices: PriceTable,
    provider: Provider,
) -> None:
    """What the attempt used and cost.

    Where the provider reported nothing, an estimate stands and says so: for a whole answer
    or a converted stream from its `size` in characters, for a stream that passed (size 0) from
    its content events, in each of which servers send one to four tokens. An answer that was
    cut never got to its count of output tokens: Anthropic's streams open with the input's and
    a 1.
    """
    attempt.finish_reason = finding.finish_reason
    attempt.model_reported = finding.model
    usage = finding.usage or Usage(input_tokens=ask.input_tokens_estimate, estimated=True)
    if usage.estimated or finding.finish_reason is None:
        made = size // 4 if size else finding.progress
        usage = msgspec.structs.replace(
            usage, output_tokens=max(made, usage.output_tokens), estimated=True
        )
    attempt.usage = usage
    rates = prices.rates(provider.prices, attempt.model)
    attempt.cost_nusd = rates.cost_nusd(attempt.usage) if rates is not None else None
