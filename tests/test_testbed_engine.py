from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.testbed.twins.engine import Engine
from forebay.testbed.twins.facts import SelfHosted

FACTS = SelfHosted(kv_tokens=20_000, batch_max=64)
QUANTUM_S = 1 / FACTS.events_per_s
JOBS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 3_000), st.integers(1, 400)),
    min_size=1,
    max_size=40,
)


@given(JOBS)
@settings(max_examples=60, deadline=None)
def test_everybody_gets_exactly_their_tokens_and_the_pool_never_overflows(
    jobs: list[tuple[int, int, int]],
) -> None:
    engine = Engine(SelfHosted(kv_tokens=4_000, batch_max=8))
    got = dict.fromkeys(range(len(jobs)), 0)
    done: set[object] = set()
    for id, (quanta, prompt, output) in enumerate(jobs):
        for _ in range(quanta):
            _advance(engine, got, done)
        engine.submit(id, prompt, output)
    turns = 0
    while not engine.idle:
        _advance(engine, got, done)
        turns += 1
        assert turns < 100_000

    assert got == {id: output for id, (_, _, output) in enumerate(jobs)}
    assert done == set(got)
    assert engine.held == 0


def _advance(engine: Engine, got: dict[int, int], done: set[object]) -> None:
    for progress in engine.advance(0.05):
        assert progress.tokens > 0
        assert isinstance(progress.id, int)
        got[progress.id] += progress.tokens
        if progress.done:
            done.add(progress.id)
    assert engine.held == sum(job.held for job in engine.running) <= engine.facts.kv_tokens
    assert len(engine.running) <= engine.facts.batch_max


def test_the_batch_slows_each_and_speeds_up_all() -> None:
    def tokens_in_a_second(batch: int) -> float:
        engine = Engine(SelfHosted())
        for id in range(batch):
            engine.submit(id, 8, 100_000)
        for _ in range(40):  # the prompts are read meanwhile
            engine.advance(QUANTUM_S)
        return sum(p.tokens for _ in range(20) for p in engine.advance(QUANTUM_S))

    one, many = tokens_in_a_second(1), tokens_in_a_second(100)
    assert one > many / 100 * 1.5
    assert many > one * 20


def test_a_caller_who_leaves_frees_the_pool() -> None:
    engine = Engine(FACTS)
    engine.submit("a", 5_000, 100)
    engine.submit("b", 5_000, 100)
    engine.advance(QUANTUM_S)
    engine.submit("c", 5_000, 100)
    engine.cancel("a")
    engine.cancel("c")
    engine.cancel("nobody")

    assert engine.held == 5_000
    assert [job.id for job in engine.running] == ["b"]
    assert not engine.waiting


def test_goodput_collapses_at_twice_the_capacity() -> None:
    """The latency collapse: callers give up after 30 s, and what was made for them is lost."""
    capacity = max(_goodput(rate)[0] for rate in (1.0, 1.5, 2.0, 2.5))
    at_twice, preempted = _goodput(2 * capacity)

    assert at_twice < 0.5 * capacity
    assert preempted > 10


def _goodput(rate: float, span_s: float = 180.0) -> tuple[float, int]:
    """Answers a second that came whole within 30 s, at an even rate of 1,125 + 375 tokens."""
    engine = Engine(FACTS)
    started: dict[object, float] = {}
    good = 0
    due_s = now_s = 0.0
    number = 0
    while now_s < span_s:
        while due_s <= now_s:
            engine.submit(number, 1_125, 375)
            started[number] = now_s
            number += 1
            due_s += 1 / rate
        for id in [id for id, at in started.items() if now_s - at > 30]:
            engine.cancel(id)
            del started[id]
        now_s += QUANTUM_S
        for progress in engine.advance(QUANTUM_S):
            if progress.done:
                good += 1
                del started[progress.id]
    return good / span_s, engine.preemptions
