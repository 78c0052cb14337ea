"""When a caller asks again: the policy of the official SDK, as a pure decision.

Read from `openai` 3.57.0, `_base_client.py` (`_should_retry`, `_calculate_retry_timeout`,
`_parse_retry_after_header`) and `_constants.py`; a test holds it against the installed SDK:

1. at most two retries, and only before the first byte of an answer's body was used: a stream
   that breaks is never asked again;
2. asked again are connection errors, time-outs, and the statuses 408, 409, 429 and 5xx;
   `x-should-retry: true|false` overrides the status;
3. `retry-after-ms`, then `retry-after` (seconds or a date) is obeyed when it is above 0 and at
   most 120 s; when it is more, the SDK does not ask again;
4. else the wait is `min(0.5 · 2^n, 8)` s less up to 25 % of luck, n the retries so far.

The SDK's client also holds at most 1,000 connections; who comes later waits for one.
"""

import email.utils
import math
from collections.abc import Callable
from typing import Protocol

SDK_MAX_RETRIES = 2
SDK_MAX_CONNECTIONS = 1_000
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 8.0
_MAX_RETRY_AFTER_S = 120.0
_INFINITIES = ("inf", "+inf", "infinity", "+infinity")

Header = Callable[[str], str | None]


class Retries(Protocol):
    max_connections: int

    def delay_s(
        self, retries: int, status: int | None, header: Header, wall_s: float, draw: float
    ) -> float | None:
        """Seconds until the next attempt, None to give up.

        `retries` were made before; `status` is None where no answer came; `draw` is uniform
        in [0, 1).
        """


class NoRetries:
    max_connections = 1_000_000

    def delay_s(
        self, retries: int, status: int | None, header: Header, wall_s: float, draw: float
    ) -> float | None:
        return None


class SdkRetries:
    max_connections = SDK_MAX_CONNECTIONS

    def delay_s(
        self, retries: int, status: int | None, header: Header, wall_s: float, draw: float
    ) -> float | None:
        if retries >= SDK_MAX_RETRIES:
            return None
        asked = retry_after_s(header, wall_s)
        if status is not None and not _retryable(status, header("x-should-retry"), asked):
            return None
        if asked is not None and math.isfinite(asked) and 0 < asked <= _MAX_RETRY_AFTER_S:
            return asked
        return float(min(_FIRST_DELAY_S * 2**retries, _MAX_DELAY_S) * (1 - 0.25 * draw))


def retry_after_s(header: Header, wall_s: float) -> float | None:
    """What the server asks for, in seconds; None where it asks nothing that can be read."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = header(name)
        if value is None:
            continue
        try:
            delay = float(value)
        except ValueError:
            continue
        if delay == math.inf and value.strip().lower() not in _INFINITIES:
            return _MAX_RETRY_AFTER_S + 1  # an overflow is a long wait, not a misspelling
        return delay / divisor
    try:
        date = email.utils.parsedate_tz(header("retry-after") or "")
        return None if date is None else float(email.utils.mktime_tz(date) - wall_s)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _retryable(status: int, should: str | None, asked_s: float | None) -> bool:
    if asked_s is not None and math.isfinite(asked_s) and asked_s > _MAX_RETRY_AFTER_S:
        return False
    if should == "true":
        return True
    if should == "false":
        return False
    return status in (408, 409, 429) or status >= 500
