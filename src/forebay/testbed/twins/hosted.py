"""A provider's behaviour towards one question, as pure decisions.

    time to first token = (lognormal(m, s) + prefill · (fresh + 0.1 · cached)) · load
    load                = min(5, 1 / (1 - u)),  u = busiest limit's use in the last minute
    speed               = tokens_per_s · (1 + 0.15 · z), drawn once per answer

A question above a limit is refused with the time until it would fit: `retry-after-ms` true
to the millisecond, `retry-after` rounded up to whole seconds. It is true of the bucket
alone: when a hundred callers are told the same second, ninety-nine of them come too soon.
That is how providers answer, and it is where pile-ups come from.

What the first provider counts against its token limit is the larger of `max_tokens` and its
own estimate of the prompt; the second counts uncached input and output apart.
"""

from datetime import UTC, datetime
from math import exp

import msgspec

from forebay.schema.usage import Usage
from forebay.testbed.twins.facts import Hosted
from forebay.testbed.twins.limits import Limit
from forebay.testbed.twins.luck import Draw
from forebay.testbed.twins.prompt_cache import PromptCache, Split
from forebay.testbed.twins.question import Headers, Question, Refused

LOAD_CAP = 5.0
_SLOWEST = 0.2  # of the usual speed: a normal has no floor


class Plan(msgspec.Struct, frozen=True):
    """When the answer's tokens come: the first event after `first_s`, then one each
    `event_s` with `tokens_per_event` (a fraction; the whole tokens due are sent)."""

    first_s: float
    event_s: float
    tokens_per_event: float


class HostedModel:
    """State of one model at one provider: its limits and its prompt cache."""

    def __init__(self, name: str, facts: Hosted, anthropic: bool, now_ns: int) -> None:
        self.name = name
        self.facts = facts
        self._anthropic = anthropic
        self._cache = PromptCache(facts.prompt_cache_s)
        self.requests = Limit("requests", facts.rpm, facts.burst_s, now_ns)
        tokens = "input-tokens" if anthropic else "tokens"
        self.tokens = Limit(tokens, facts.tpm, facts.burst_s, now_ns)
        self.output = Limit("output-tokens", facts.output_tpm, facts.burst_s, now_ns)
        self.limits = [self.requests, self.tokens, self.output]

    def admit(self, question: Question, answer_tokens: int, now_ns: int) -> Split:
        """Let a question in and say how the prompt cache splits it.

        Raises Refused(rate_limited) with the time to wait, without it where the question is
        larger than a whole minute's limit.
        """
        counted = max(question.tokens, question.max_tokens or 0)
        if self._anthropic:
            counted = question.tokens
        asked = ((self.requests, 1), (self.tokens, counted), (self.output, answer_tokens))
        for limit, amount in asked:
            if limit.per_minute and amount > limit.per_minute:
                raise Refused(
                    "rate_limited",
                    f"Request too large for {self.name} on {limit.name} per minute: "
                    f"Limit {limit.per_minute}, Requested {amount}.",
                )
        waits = [limit.wait_ns(amount, now_ns) for limit, amount in asked]
        if any(waits):
            worst = max(range(len(waits)), key=waits.__getitem__)
            if self.facts.refused_count:
                self.requests.charge_refused()
                waits[0] = self.requests.wait_ns(1, now_ns)
            raise self._over(*asked[worst], max(waits))
        split = self._split(question, now_ns)
        self.requests.take(1, now_ns)
        self.tokens.take(counted - (split.read if self._anthropic else 0), now_ns)
        self.output.take(answer_tokens, now_ns)
        return split

    def _over(self, limit: Limit, amount: int, wait_ns: int) -> Refused:
        wait_ms = -(-wait_ns // 1_000_000)
        used = limit.bucket.used if limit.bucket is not None else 0
        return Refused(
            "rate_limited",
            f"Rate limit reached for {self.name} on {limit.name} per minute: "
            f"Limit {limit.per_minute}, Used {used}, Requested {amount}. "
            f"Please try again in {wait_ms / 1000:g}s.",
            headers=[
                ("retry-after", str(-(-wait_ms // 1000))),
                ("retry-after-ms", str(wait_ms)),
            ],
        )

    def _split(self, question: Question, now_ns: int) -> Split:
        if self._anthropic:
            return self._cache.explicit(
                question.prompt, question.tokens, question.blocks, question.cache_marks, now_ns
            )
        return self._cache.automatic(question.prompt, question.tokens, now_ns)

    def load(self, now_ns: int) -> float:
        """The factor on the time to first token, 1 to 5."""
        used = max(limit.load(now_ns) for limit in self.limits)
        return min(LOAD_CAP, 1 / (1 - used)) if used < 1 else LOAD_CAP

    def plan(self, split: Split, draw: Draw, now_ns: int) -> Plan:
        facts = self.facts
        base_s = facts.ttft_median_s * exp(facts.ttft_sigma * draw.normal(0))
        read = split.fresh + split.written + facts.cached_prefill_share * split.read
        prefill_s = read * facts.prefill_ms_per_1k / 1_000_000
        speed = facts.tokens_per_s * max(_SLOWEST, 1 + facts.tokens_spread * draw.normal(1))
        return Plan(
            first_s=(base_s + prefill_s) * self.load(now_ns),
            event_s=1 / facts.events_per_s,
            tokens_per_event=speed / facts.events_per_s,
        )

    def limit_headers(self, wall_ns: int) -> Headers:
        """What the provider says about its limits with each answer, in its own words."""
        headers: Headers = []
        for limit in self.limits:
            if (bucket := limit.bucket) is None:
                continue
            if self._anthropic:
                prefix = f"anthropic-ratelimit-{limit.name}-"
                reset = rfc3339(wall_ns + bucket.reset_ns)
                headers.append((prefix + "limit", str(limit.per_minute)))
                headers.append((prefix + "remaining", str(bucket.remaining)))
                headers.append((prefix + "reset", reset))
            else:
                headers.append((f"x-ratelimit-limit-{limit.name}", str(limit.per_minute)))
                headers.append((f"x-ratelimit-remaining-{limit.name}", str(bucket.remaining)))
                headers.append((f"x-ratelimit-reset-{limit.name}", span(bucket.reset_ns)))
        return headers

    def describe(self, now_ns: int) -> str:
        parts = [
            f"{limit.name} {limit.bucket.remaining}/{limit.per_minute}"
            for limit in self.limits
            if limit.bucket is not None
        ]
        return (
            f"<{self.name} hosted load x{self.load(now_ns):.2f} {', '.join(parts) or 'no limits'}>"
        )


def usage(split: Split, output_tokens: int) -> Usage:
    """The provider's own account of one answer."""
    return Usage(
        input_tokens=split.fresh,
        cache_read_tokens=split.read,
        cache_write_tokens=split.written,
        output_tokens=output_tokens,
    )


def span(nanoseconds: int) -> str:
    """A duration as OpenAI's reset headers write it: `12ms`, `1.5s`, `6m0s`."""
    milliseconds = -(-nanoseconds // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds


def rfc3339(wall_ns: int) -> str:
    """A time as Anthropic's reset headers write it, in whole seconds, rounded up."""
    seconds = -(-wall_ns // 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
