from hypothesis import given
from hypothesis import strategies as st

from forebay.testbed.twins.limits import Bucket, Limit, Usage60

MS = 1_000_000
STEPS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 400)), max_size=80)


@given(st.integers(1, 10_000), st.floats(0.5, 60), STEPS)
def test_no_span_of_time_lets_through_more_than_burst_and_rate(
    limit: int, burst_s: float, steps: list[tuple[int, int]]
) -> None:
    bucket = Bucket(limit, burst_s, 0)
    burst = max(1, int(limit * burst_s / 60))
    now_ns = 0
    taken: list[tuple[int, int]] = []
    for gap_ms, amount in steps:
        now_ns += gap_ms * MS
        bucket.refill(now_ns)
        if bucket.wait_ns(amount) == 0:
            bucket.take(amount)
            taken.append((now_ns, amount))

    for first in range(len(taken)):
        let_through = 0
        for at_ns, amount in taken[first:]:
            let_through += amount
            allowed = burst + limit * (at_ns - taken[first][0]) / 60e9
            largest = max(size for _, size in taken)
            assert let_through <= allowed + max(0, largest - burst) + 1e-6


@given(st.integers(1, 1_000_000), st.floats(0.5, 60), STEPS, st.integers(1, 400))
def test_the_wait_it_names_is_true_to_the_nanosecond(
    limit: int, burst_s: float, steps: list[tuple[int, int]], amount: int
) -> None:
    bucket = Bucket(limit, burst_s, 0)
    now_ns = 0
    for gap_ms, taken in steps:
        now_ns += gap_ms * MS
        bucket.refill(now_ns)
        bucket.take(taken)
    wait_ns = bucket.wait_ns(amount)

    if wait_ns:
        bucket.refill(now_ns + wait_ns - 1)
        assert bucket.wait_ns(amount) == 1
    bucket.refill(now_ns + wait_ns)
    assert bucket.wait_ns(amount) == 0


def test_a_request_larger_than_the_burst_passes_when_the_bucket_is_full() -> None:
    bucket = Bucket(60, 1, 0)  # holds one
    assert bucket.wait_ns(30) == 0
    bucket.take(30)
    bucket.refill(10_000_000_000)
    assert bucket.wait_ns(1) == 20_000_000_000  # 10 of the 30 have come back; it holds one


def test_what_is_said_to_remain_is_of_the_minute_not_of_the_burst() -> None:
    bucket = Bucket(600, 10, 0)
    bucket.take(50)
    assert (bucket.used, bucket.remaining) == (50, 550)
    bucket.refill(1_000_000_000)
    assert (bucket.used, bucket.remaining) == (40, 560)
    assert bucket.reset_ns == 4_000_000_000


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 50)), max_size=60))
def test_the_last_minute_is_that_of_a_naive_sum(steps: list[tuple[int, int]]) -> None:
    usage = Usage60()
    now_ms = 0
    events = []
    for gap_ms, amount in steps:
        now_ms += gap_ms
        usage.add(amount, now_ms * MS)
        events.append((now_ms // 1000, amount))
        assert usage.total == sum(n for at, n in events if at > now_ms // 1000 - 60)


def test_refusals_use_up_requests_but_never_more_than_there_are() -> None:
    limit = Limit("requests", 60, 2, 0)
    for _ in range(5):
        assert limit.wait_ns(1, 0) in (0, 1_000_000_000)
        limit.charge_refused()
    assert limit.bucket is not None
    assert limit.bucket.level == 0


def test_without_a_limit_everything_passes() -> None:
    limit = Limit("tokens", 0, 10, 0)
    limit.take(10**12, 0)
    assert limit.wait_ns(10**12, 0) == 0
    assert limit.load(0) == 0.0
