"""A provider's rate limits: token buckets, exact, and how full the last minute was.

A limit is per minute; its bucket holds `burst_s` seconds' worth and refills all the time.
Providers say that they enforce minutes in shorter windows (OpenAI: "60,000 requests/minute
may be enforced as 1,000 requests/second"; Anthropic: 60 a minute may act as 1 a second;
Azure checks windows of 1 or 10 s), which is what a bucket of seconds is.

Arithmetic is in integers: a level is tokens × nanoseconds of a minute, so no refill is ever
rounded, and "wait so long" is true to the nanosecond. Bound, for any span of `t` seconds:
at most `burst + limit/60 · t` is let through, plus what a single request larger than the
whole burst may overdraw (it is let through when the bucket is full, or it never could be).

The load `u` is the share of a limit that was used in the last 60 s, in slots of 1 s.
"""

_MINUTE_NS = 60_000_000_000
_SECOND_NS = 1_000_000_000
_SLOTS = 60


class Bucket:
    """One limit per minute. `limit` > 0."""

    def __init__(self, limit: int, burst_s: float, now_ns: int) -> None:
        self.limit = limit
        self.capacity = max(1, int(limit * burst_s / 60)) * _MINUTE_NS
        self.level = self.capacity
        self._at_ns = now_ns

    def refill(self, now_ns: int) -> None:
        self.level = min(self.capacity, self.level + (now_ns - self._at_ns) * self.limit)
        self._at_ns = now_ns

    def wait_ns(self, amount: int) -> int:
        """Nanoseconds until `amount` would be let through; 0 is now. Call `refill` first."""
        missing = min(amount * _MINUTE_NS, self.capacity) - self.level
        return -(-missing // self.limit) if missing > 0 else 0

    def take(self, amount: int) -> None:
        self.level -= amount * _MINUTE_NS

    @property
    def used(self) -> int:
        """What has been taken and not yet come back. It does not depend on the burst, so
        `limit - used` is what the provider reports as remaining of the minute."""
        return -(-(self.capacity - self.level) // _MINUTE_NS)

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def reset_ns(self) -> int:
        """Until it is full again."""
        return -(-(self.capacity - self.level) // self.limit)


class Usage60:
    """How much went through in the last 60 seconds."""

    def __init__(self) -> None:
        self._slots = [0] * _SLOTS
        self._newest = 0
        self.total = 0

    def add(self, amount: int, now_ns: int) -> None:
        self.forget(now_ns)
        self._slots[self._newest % _SLOTS] += amount
        self.total += amount

    def forget(self, now_ns: int) -> None:
        second = now_ns // _SECOND_NS
        for passed in range(max(self._newest + 1, second - _SLOTS + 1), second + 1):
            self.total -= self._slots[passed % _SLOTS]
            self._slots[passed % _SLOTS] = 0
        self._newest = max(self._newest, second)


class Limit:
    """A bucket and its last minute; with `per_minute` 0 everything passes."""

    def __init__(self, name: str, per_minute: int, burst_s: float, now_ns: int) -> None:
        self.name = name  # "requests", "tokens", "input-tokens", "output-tokens"
        self.per_minute = per_minute
        self.bucket = Bucket(per_minute, burst_s, now_ns) if per_minute else None
        self._used = Usage60()

    def wait_ns(self, amount: int, now_ns: int) -> int:
        if self.bucket is None:
            return 0
        self.bucket.refill(now_ns)
        return self.bucket.wait_ns(amount)

    def take(self, amount: int, now_ns: int) -> None:
        if self.bucket is not None:
            self.bucket.take(amount)
            self._used.add(amount, now_ns)

    def charge_refused(self) -> None:
        """A refused request uses up one of the limit, while there is one."""
        if self.bucket is not None and self.bucket.wait_ns(1) == 0:
            self.bucket.take(1)

    def load(self, now_ns: int) -> float:
        """Share of the limit used in the last minute; 0 without a limit."""
        if self.bucket is None:
            return 0.0
        self._used.forget(now_ns)
        return self._used.total / self.per_minute
