"""Exchanges in, batches out: everything once and in order, within bounds, content going first."""

import asyncio
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import Failure
from forebay.exchange import Ask, Attempt, Capture, Chunks, Exchange, Head, Tenant
from forebay.observe import record as records
from forebay.observe import restore
from forebay.observe.recorder import BATCH_BYTES, BATCH_S, Recorder, record
from forebay.schema.usage import Usage
from forebay.testbed.virtual import VirtualWorld, run

MS = 1_000_000


def exchange(number: int = 0, size: int = 100, capture: Capture = "full") -> Exchange:
    """One that ended; `size` bytes of body."""
    return Exchange(
        f"req_{number}",
        1000,
        2000,
        "POST",
        "/v1/chat/completions",
        "",
        Head(),
        "127.0.0.1",
        body=b"b" * size,
        capture=capture,
        outcome="ok",
        ended_ns=5000,
    )


class Office:
    """Takes batches, or doesn't."""

    def __init__(self) -> None:
        self.open = True
        self.batches: list[list[bytes]] = []

    def send(self, batch: list[bytes]) -> bool:
        if self.open:
            self.batches.append(batch)
        return self.open

    @property
    def ids(self) -> list[str]:
        return [records.decode(data).id for batch in self.batches for data in batch]


# -- when things leave -----------------------------------------------------------------------


def test_a_batch_leaves_soon_or_when_it_is_full() -> None:
    async def main(world: VirtualWorld) -> None:
        office = Office()
        recorder = Recorder(world, office.send, "v")
        for number in range(3):
            recorder.keep(exchange(number))
        assert office.batches == []
        await asyncio.sleep(BATCH_S)
        assert [len(batch) for batch in office.batches] == [3]
        recorder.keep(exchange(3, BATCH_BYTES))
        assert [len(batch) for batch in office.batches] == [3, 1]
        recorder.keep(exchange(4))
        await asyncio.sleep(BATCH_S)
        assert office.ids == [f"req_{n}" for n in range(5)]
        assert (recorder.held_bytes, recorder.kept) == (0, 5)

    run(main)


def test_what_is_not_taken_is_offered_again() -> None:
    async def main(world: VirtualWorld) -> None:
        office = Office()
        office.open = False
        recorder = Recorder(world, office.send, "v")
        recorder.keep(exchange(0))
        await asyncio.sleep(10)
        assert recorder.held_bytes > 0
        office.open = True
        await asyncio.sleep(1)
        assert office.ids == ["req_0"]
        assert recorder.held_bytes == 0

    run(main)


def test_a_large_record_that_is_not_taken_waits_for_no_other() -> None:
    """It fills a batch by itself, so no timer was set, and stayed until the next request."""

    async def main(world: VirtualWorld) -> None:
        office = Office()
        office.open = False
        recorder = Recorder(world, office.send, "v")
        recorder.keep(exchange(0, 2 * BATCH_BYTES))
        office.open = True
        await asyncio.sleep(1)
        assert office.ids == ["req_0"]

    run(main)


def test_a_backlog_leaves_in_batches() -> None:
    async def main(world: VirtualWorld) -> None:
        office = Office()
        office.open = False
        recorder = Recorder(world, office.send, "v")
        for number in range(100):
            recorder.keep(exchange(number, 10_000))
        office.open = True
        recorder.flush()
        assert office.ids == [f"req_{n}" for n in range(100)]
        assert len(office.batches) > 5
        for batch in office.batches:
            assert sum(map(len, batch)) < BATCH_BYTES + 11_000
        await asyncio.sleep(2)

    run(main)


STEPS = st.lists(
    st.one_of(
        st.integers(0, 5_000).map(lambda size: ("keep", size)),
        st.sampled_from([("open", 0), ("shut", 0), ("wait", 0), ("flush", 0)]),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(steps=STEPS, ring=st.integers(1_000, 30_000))
def test_every_record_leaves_once_and_in_order_or_is_counted(
    steps: list[tuple[str, int]], ring: int
) -> None:
    async def main(world: VirtualWorld) -> None:
        office = Office()
        recorder = Recorder(world, office.send, "v", ring_bytes=ring)
        asked = 0
        for what, size in steps:
            match what:
                case "keep":
                    recorder.keep(exchange(asked, size))
                    asked += 1
                case "open" | "shut":
                    office.open = what == "open"
                case "wait":
                    await asyncio.sleep(1)
                case "flush":
                    recorder.flush()
            waiting = [*recorder._ring, *recorder._batch]
            assert recorder.held_bytes == sum(map(len, waiting))
            # One record may be the last straw, however large.
            assert recorder.held_bytes <= ring + 5_000 + 1_000
            assert recorder.kept + recorder.dropped == asked
        office.open = True
        await asyncio.sleep(2)
        assert recorder.held_bytes == 0
        ids = office.ids
        assert len(ids) == recorder.kept
        assert ids == sorted(ids, key=lambda name: int(name[4:]))
        bare = [
            kept
            for batch in office.batches
            for kept in map(records.decode, batch)
            if kept.body.form == "off"
        ]
        assert len(bare) == recorder.dropped_content

    run(main)


def test_content_goes_before_skeletons_do() -> None:
    async def main(world: VirtualWorld) -> None:
        office = Office()
        office.open = False
        recorder = Recorder(world, office.send, "v", ring_bytes=40_000)
        for number in range(400):
            recorder.keep(exchange(number, 1_000))
        assert recorder.dropped_content > 10
        assert recorder.dropped > 10
        full = 400 - recorder.dropped - recorder.dropped_content
        assert full > 20
        office.open = True
        recorder.flush()
        forms = [records.decode(d).body.form for batch in office.batches for d in batch]
        assert forms == ["full"] * full + ["off"] * recorder.dropped_content
        shown = repr(recorder)
        assert f"{recorder.dropped_content} without content" in shown
        assert f"{recorder.dropped} dropped" in shown
        await asyncio.sleep(2)

    run(main)


def test_what_was_to_be_kept_without_content_loses_none() -> None:
    async def main(world: VirtualWorld) -> None:
        recorder = Recorder(world, lambda batch: False, "v", ring_bytes=10_000)
        for number in range(100):
            recorder.keep(exchange(number, 1_000, "off"))
        assert recorder.dropped > 0
        assert recorder.dropped_content == 0
        recorder._send = lambda batch: True
        await asyncio.sleep(2)

    run(main)


# -- what is in a record ---------------------------------------------------------------------


def told() -> Exchange:
    """An exchange with everything in it."""
    x = exchange(7)
    x.body = b'{"model":"p/m"}'
    x.tenant = Tenant("team", "project", "key")
    x.ask = Ask("p/m", stream=True)
    x.route, x.cache = "direct", "miss"
    x.identified_ns, x.decoded_ns, x.planned_ns, x.first_ns = 1001, 1002, 1003, 1500
    body = Chunks(1200)
    body.add(b"data: 1\n\n", 1200 + 5 * MS)
    body.add(b"data: 2\n\n", 1200 + 9 * MS)
    attempt = Attempt(
        "p",
        "m",
        path="/v1/x",
        sent_headers=[(b"host", b"p")],
        sent=[(9, 14, b'"m"')],
        status=200,
        headers=[(b"a", b"b")],
        body=body,
        usage=Usage(1, 0, 0, 2),
        cost_nusd=3,
        finish_reason="stop",
        model_reported="m-1",
        outcome="ok",
        started_ns=1100,
        head_ns=1200,
        first_ns=1300,
        ended_ns=1400,
    )
    x.attempts = [attempt]
    x.status, x.reply_headers, x.reply_body = 200, [(b"c", b"d")], [(0, 9, b"")]
    x.usage, x.cost_nusd, x.draws = attempt.usage, 3, ["id"]
    return x


def test_a_record_has_all_of_it() -> None:
    data = records.encode(record(told(), "full", "v1", 3))
    kept = records.decode(data)
    assert (kept.id, kept.config_version, kept.worker) == ("req_7", "v1", 3)
    assert (kept.team, kept.project, kept.key_id) == ("team", "project", "key")
    assert (kept.model, kept.stream, kept.route, kept.cache) == ("p/m", True, "direct", "miss")
    assert kept.body.data == b'{"model":"p/m"}'
    (attempt,) = kept.attempts
    assert restore.sent(kept, attempt).data == b'{"model":"m"}'
    assert restore.reply(kept).data == b"data: 2\n\n"
    assert restore.cuts(attempt.body) == [(9, 5000), (18, 9000)]
    assert (attempt.usage, attempt.cost_nusd) == (Usage(1, 0, 0, 2), 3)
    # times are counted from when the request came
    assert (attempt.started_ns, attempt.head_ns, attempt.first_ns, attempt.ended_ns) == (
        100,
        200,
        300,
        400,
    )
    assert (kept.identified_ns, kept.decoded_ns, kept.planned_ns) == (1, 2, 3)
    assert (kept.first_ns, kept.ended_ns) == (500, 4000)
    assert kept.received_wall_ns == 2000
    assert kept.draws == ["id"]


def test_what_never_happened_is_zero() -> None:
    x = exchange()
    x.ended_ns = 0
    kept = record(x, "full", "v", 0)
    assert (kept.identified_ns, kept.decoded_ns, kept.planned_ns) == (0, 0, 0)
    assert (kept.first_ns, kept.ended_ns, kept.model, kept.error) == (0, 0, "", "")
    assert kept.attempts == []


def test_a_failure_is_told_with_its_hint() -> None:
    x = exchange()
    x.failure = Failure("bad_json", "It is broken.", hint="Mend it.")
    assert record(x, "full", "v", 0).error == "It is broken. Mend it."


@pytest.mark.parametrize("capture", ["hashed", "off"])
def test_without_content_nothing_of_it_is_left(capture: Capture) -> None:
    x = told()
    kept = records.decode(records.encode(record(x, capture, "v", 0)))
    data = records.encode(kept)
    for text in (b'"model"', b"data: 1", b'"m"'):
        assert text not in data
    assert kept.body.size == len(x.body)
    assert kept.attempts[0].body.size == 18
    if capture == "hashed":
        assert kept.body.data == hashlib.sha256(x.body).digest()
        body: Any = x.attempts[0].body
        assert kept.attempts[0].body.data == hashlib.sha256(body.data).digest()
    else:
        assert kept.body.data == b""
    assert (kept.usage, kept.cost_nusd, kept.outcome) == (Usage(1, 0, 0, 2), 3, "ok")


def test_the_very_same_bytes_are_no_content() -> None:
    """[] says that nothing was changed: it stands with every capture."""
    x = told()
    x.reply_body = []
    x.attempts[0].sent = []
    captures: list[Capture] = ["full", "hashed", "off"]
    for capture in captures:
        kept = record(x, capture, "v", 0)
        assert kept.reply_body == []
        assert kept.attempts[0].sent == []
