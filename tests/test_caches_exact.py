"""What the exact cache keeps, for how long, and in which forms it gives it again.

The key has a test of its own (test_caches_exact_key.py). Here: the store against a naive
model, and the way in and out through a whole data plane.
"""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import VirtualRun
from forebay.admission.keys import compose
from forebay.caches.exact import ENTRY_OVERHEAD, Entry, Exact, ExactCache, wish_of
from forebay.errors import Failure
from forebay.exchange import Attempt, Exchange, Head
from forebay.observe.record import Record
from forebay.schema.usage import Usage
from forebay.testbed.twins.faults import Cut, Error, Fault, Stall, Status
from forebay.testbed.virtual import VirtualWorld
from pipeline_kit import KEY, Gateway, Reply, chat, gateway, key_row, messages, request

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"


# -- the store -------------------------------------------------------------------------------


def entry(size: int) -> Entry:
    """One that weighs so much beside its overhead."""
    x = Exchange("req_1", 0, 0, "POST", "/", "", Head(), "")
    x.attempts.append(Attempt("p", "m"))
    return Entry(x, b"x" * size, False)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["get", "put"]),
        st.integers(0, 5),  # key
        st.integers(0, 500),  # size
        st.integers(0, 40),  # seconds since the step before
    ),
    max_size=60,
)


@given(STEPS)
def test_it_keeps_what_was_used_last_within_its_bytes_and_time(
    steps: list[tuple[str, int, int, int]],
) -> None:
    """Against a list, the least recently used first."""
    limit = 3 * ENTRY_OVERHEAD
    ttl_s = 60
    cache = ExactCache(limit, ttl_s)
    model: list[tuple[int, Entry, int]] = []  # key, entry, end of life in s
    now = hits = misses = 0
    for what, number, size, wait in steps:
        now += wait
        key = b"%d" % number
        if what == "put":
            new = entry(size)
            model = [item for item in model if item[0] != number]
            model.append((number, new, now + ttl_s))
            while sum(item[1].size for item in model) > limit:
                model.pop(0)
            cache.put(key, new, now * 10**9)
        else:
            found = next((item for item in model if item[0] == number), None)
            if found is not None:
                model.remove(found)
                if found[2] > now:
                    model.append(found)
                else:
                    found = None
            hits += found is not None
            misses += found is None
            assert cache.get(key, now * 10**9) is (found[1] if found else None)
        assert cache.held_bytes == sum(item[1].size for item in model) <= limit
        assert (cache.hits, cache.misses) == (hits, misses)
    assert f"{len(model)} entries" in repr(cache)


def test_an_answer_larger_than_the_cache_pushes_nothing_out() -> None:
    cache = ExactCache(2 * ENTRY_OVERHEAD, 60)
    small = entry(10)
    cache.put(b"small", small, 0)
    cache.put(b"large", entry(2 * ENTRY_OVERHEAD), 0)
    assert cache.get(b"small", 1) is small
    assert cache.get(b"large", 1) is None


def test_an_answer_larger_than_the_cache_leaves_no_older_one_behind() -> None:
    """What a fresh answer replaced must not be given again because the fresh one is too big."""
    cache = ExactCache(2 * ENTRY_OVERHEAD, 60)
    cache.put(b"key", entry(10), 0)
    cache.put(b"key", entry(2 * ENTRY_OVERHEAD), 0)
    assert cache.get(b"key", 1) is None
    assert cache.held_bytes == 0


def test_it_can_be_off() -> None:
    assert Exact(enabled=False).build() is None
    built = Exact(max_mb=2, ttl_s=1.5).build()
    assert built is not None
    assert (built.max_bytes, built.ttl_ns) == (2 * 1024 * 1024, 1_500_000_000)


@pytest.mark.parametrize(
    ("value", "wish"), [(None, ""), (b"on", "on"), (b" Off\t", "off"), (b"REFRESH", "refresh")]
)
def test_a_wish(value: bytes | None, wish: str) -> None:
    assert wish_of(Head({b"x-forebay-cache": value} if value is not None else {})) == wish


@pytest.mark.parametrize("value", [b"", b"yes", b"on,off", b"\xff", b"o" * 5000])
def test_a_wish_that_is_none(value: bytes) -> None:
    with pytest.raises(Failure) as caught:
        wish_of(Head({b"x-forebay-cache": value}))
    assert caught.value.code.name == "bad_request"
    assert len(str(caught.value)) < 200


# -- through a data plane --------------------------------------------------------------------


class Question:
    """A request that can be asked again in each of its forms."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.path = path
        self.body = body

    def __repr__(self) -> str:
        return f"{self.path} {self.body['model']}"

    async def ask(
        self, gate: Gateway, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[Reply, Record]:
        gate.plane.recorder.flush()
        before = len(gate.kept)
        reply = await gate.ask(self.path, self.body | more, headers)
        return reply, (await gate.records(before + 1))[-1]


QUESTIONS = [
    Question(CHAT, chat(temperature=0)),
    Question(CHAT, chat(temperature=0, model="anthropic/instant")),
    Question(MESSAGES, messages(temperature=0)),
    Question(MESSAGES, messages(temperature=0, model="openai/instant")),
]
each_question = pytest.mark.parametrize("question", QUESTIONS, ids=repr)
USAGE = {"stream_options": {"include_usage": True}}


def content(reply: Reply, path: str) -> tuple[Any, ...]:
    """What an answer says, whichever form it has: text, reason, model, usage if told."""
    if reply.header("content-type") == "application/json":
        body = reply.json
        if path == CHAT:
            choice = body["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], body["model"]
        return body["content"][0]["text"], body["stop_reason"], body["model"]
    data = [event for event in reply.data if event != "[DONE]"]
    if path == CHAT:
        reasons = [c["choices"][0]["finish_reason"] for c in data if c["choices"]]
        assert reasons[:-1] == [None] * (len(reasons) - 1)
        assert reply.data[-1] == "[DONE]"
        return reply.text, reasons[-1], data[0]["model"]
    text = "".join(
        event["delta"].get("text", "") for event in data if event["type"] == "content_block_delta"
    )
    (ended,) = [event for event in data if event["type"] == "message_delta"]
    assert data[-1]["type"] == "message_stop"
    return text, ended["delta"]["stop_reason"], data[0]["message"]["model"]


def id_of(reply: Reply, path: str) -> str:
    if reply.header("content-type") == "application/json":
        return str(reply.json["id"])
    first = reply.data[0]
    return str(first["id"] if path == CHAT else first["message"]["id"])


@each_question
@pytest.mark.parametrize("first", [False, True], ids=["whole first", "stream first"])
def test_one_entry_serves_every_form(virtual: VirtualRun, question: Question, first: bool) -> None:
    """The content of the original under a fresh id; nobody is asked and nothing is paid."""
    forms: list[dict[str, Any]] = [{"stream": False}, {"stream": True}]
    if question.path == CHAT:
        forms += [{"stream": True, **USAGE}]

    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            original, source = await question.ask(gate, stream=first)
            assert (source.cache, source.outcome) == ("miss", "ok")
            assert original.header("x-forebay-cache") == "miss"
            said = content(original, question.path)
            ids = {id_of(original, question.path)}
            for number, form in enumerate(forms * 2, 1):
                reply, record = await question.ask(gate, **form)
                assert reply.header("x-forebay-cache") == "exact"
                assert reply.header("x-forebay-cost-usd") == "0"
                assert content(reply, question.path) == said
                ids.add(id_of(reply, question.path))
                assert len(ids) == number + 1
                assert (record.cache, record.cache_source) == ("exact", source.id)
                assert record.attempts == []
                assert (record.cost_nusd, record.saved_nusd) == (0, source.cost_nusd)
                assert record.usage == source.usage
                assert record.draws == [id_of(reply, question.path)]
                told = (
                    [c["usage"] for c in reply.data if c != "[DONE]" and c.get("usage")]
                    if (form["stream"] and question.path == CHAT)
                    else []
                )
                assert bool(told) == ("stream_options" in form)
                for usage in told:
                    assert source.usage is not None
                    assert usage["completion_tokens"] == source.usage.output_tokens
            assert sum(len(twin.log) for twin in gate.twins.values()) == 1

    virtual(main)


def test_embeddings_are_always_kept(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            question = Question(EMBEDDINGS, {"model": "openai/embedding", "input": ["a", "b"]})
            one, _ = await question.ask(gate)
            two, record = await question.ask(gate)
            assert one.body == two.body
            assert two.header("x-forebay-cache") == "exact"
            assert record.draws == []
            assert len(gate.twins["openai"].log) == 1

    virtual(main)


@pytest.mark.parametrize(
    ("more", "headers", "kept"),
    [
        ({}, {}, False),
        ({"temperature": 1}, {}, False),
        ({"temperature": 0.0}, {}, True),
        ({"temperature": -0.0}, {}, True),
        ({"temperature": 0}, {"x-forebay-cache": "off"}, False),
        ({"temperature": 1}, {"x-forebay-cache": "on"}, True),
        ({}, {"x-forebay-cache": "on"}, True),
        ({"seed": 1}, {}, False),
    ],
)
def test_what_is_looked_up(
    virtual: VirtualRun, more: dict[str, Any], headers: dict[str, str], kept: bool
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            question = Question(CHAT, chat(**more))
            await question.ask(gate, headers)
            reply, record = await question.ask(gate, headers)
            assert record.cache == ("exact" if kept else "bypass")
            assert reply.header("x-forebay-cache") == record.cache
            assert len(gate.twins["openai"].log) == (1 if kept else 2)

    virtual(main)


def test_a_refresh_asks_anew_and_keeps_the_new_answer(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            question = QUESTIONS[0]
            await question.ask(gate)
            _, fresh = await question.ask(gate, {"x-forebay-cache": "refresh"})
            assert fresh.cache == "refresh"
            _, hit = await question.ask(gate)
            assert hit.cache_source == fresh.id
            assert len(gate.twins["openai"].log) == 2

    virtual(main)


def test_what_failed_does_not_push_out_what_was_good(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            question = QUESTIONS[0]
            _, good = await question.ask(gate)
            gate.faults("openai", Fault(what=Status(status=500)))
            reply, _ = await question.ask(gate, {"x-forebay-cache": "refresh"})
            assert reply.status == 500
            _, hit = await question.ask(gate)
            assert hit.cache_source == good.id

    virtual(main)


def test_an_answer_has_an_end_of_life(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, {"caches": {"exact": {"ttl_s": 100}}}) as gate:
            question = QUESTIONS[0]
            await question.ask(gate)
            await asyncio.sleep(99)
            assert (await question.ask(gate))[1].cache == "exact"
            await asyncio.sleep(1)  # to be used does not prolong it
            assert (await question.ask(gate))[1].cache == "miss"

    virtual(main)


def test_a_model_can_be_kept_out(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        secret = {"models": {"secret": {"target": "openai/instant", "cache": False}}}
        async with gateway(world, secret) as gate:
            question = Question(CHAT, chat(model="secret", temperature=0))
            await question.ask(gate, {"x-forebay-cache": "on"})
            _, record = await question.ask(gate, {"x-forebay-cache": "on"})
            assert record.cache == "bypass"

    virtual(main)


def test_no_project_sees_what_another_asked(virtual: VirtualRun) -> None:
    other = compose(b"o" * 32)

    async def main(world: VirtualWorld) -> None:
        keys = [key_row(), key_row(other, "shop")]
        async with gateway(world, keys=keys) as gate:
            question = QUESTIONS[0]
            for key, cache in ((KEY, "miss"), (other, "miss"), ("", "miss"), (KEY, "exact")):
                _, record = await question.ask(gate, {"authorization": f"Bearer {key}"})
                assert record.cache == cache
            sources = {record.cache_source for record in gate.kept if record.cache_source}
            assert sources == {gate.kept[0].id}

    virtual(main)


NOT_KEPT = {
    "an error status": Fault(what=Status(status=500)),
    "an error under 200": Fault(what=Status(status=200, body='{"error":{"message":"no"}}')),
    "nothing": Fault(what=Status(status=200, body="{}")),
    "no choices": Fault(what=Status(status=200, body='{"choices":[],"content":[]}')),
    "no reason": Fault(
        what=Status(
            status=200,
            body='{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
            '"finish_reason":null}],"content":[{"type":"text","text":"x"}],"stop_reason":null}',
        )
    ),
    "filtered": Fault(
        what=Status(
            status=200,
            body='{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
            '"finish_reason":"content_filter"}],"content":[{"type":"text","text":"x"}],'
            '"stop_reason":"refusal"}',
        )
    ),
    "filtered in a second choice": Fault(
        what=Status(
            status=200,
            body='{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
            '"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"x"},'
            '"finish_reason":"content_filter"}],"content":[],"stop_reason":"refusal"}',
        )
    ),
    "cut": Fault(what=Cut(how="close"), where="first"),
    "cut in the middle": Fault(what=Cut(how="complete"), where="event", after=3),
    "an error in the middle": Fault(what=Error(), where="event", after=3),
}


@pytest.mark.parametrize("fault", NOT_KEPT.values(), ids=NOT_KEPT.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("question", QUESTIONS[::2], ids=repr)
def test_what_is_not_a_complete_good_answer_never_enters(
    virtual: VirtualRun, fault: Fault, stream: bool, question: Question
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            for twin in gate.twins:
                gate.faults(twin, fault)
            await question.ask(gate, stream=stream)
            assert gate.way.cache is not None
            assert gate.way.cache.held_bytes == 0
            assert gate.kept[0].cache == "miss"

    virtual(main)


def test_an_answer_whose_caller_left_never_enters(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate:
            gate.faults("openai", Fault(what=Stall(), where="event", after=3))
            client = await gate.client()
            client.send(request(CHAT, chat(temperature=0, stream=True)))
            await client.until(b"data:")
            client.leave()
            assert (await gate.record()).outcome == "cancelled"
            assert gate.way.cache is not None
            assert gate.way.cache.held_bytes == 0

    virtual(main)


# -- texts that look like something else ------------------------------------------------------

TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(
            ['"id":"', "chatcmpl-1", "data: [DONE]\n\n", "\u2028", '","id":"x', "\\", "id-", "\0"]
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150)
@given(pieces=TEXTS, streamed=st.booleans())
def test_whatever_was_said_is_said_again_under_a_fresh_id(
    pieces: list[str], streamed: bool
) -> None:
    x = Exchange("req_1", 0, 0, "POST", CHAT, "", Head(), "", endpoint="chat")
    x.attempts.append(Attempt("p", "m"))
    x.usage = Usage(1, 0, 0, 2)
    if streamed:
        chunks = [
            {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in [
                *(({"role": "assistant", "content": piece}, None) for piece in pieces),
                ({}, "stop"),
            ]
        ]  # fmt: skip
        body = b"".join(b"data: %b\n\n" % json.dumps(c).encode() for c in chunks)
        body += b"data: [DONE]\n\n"
    else:
        message = {"role": "assistant", "content": "".join(pieces)}
        body = json.dumps(
            {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
             "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        ).encode()  # fmt: skip
    kept = Entry(x, body, streamed)

    class Ids:
        count = 0

        def new_id(self, prefix: str) -> str:
            self.count += 1
            return f"{prefix}fresh{self.count}"

    ids: Any = Ids()
    for turn in (1, 2):
        whole, new_id = kept.form(False, False, ids)
        answer = json.loads(whole)
        assert answer["choices"][0]["message"]["content"] == "".join(pieces)
        assert answer["id"] == new_id
        stream, new_id = kept.form(True, False, ids)
        reply = Reply(200, [], stream)
        text = ""
        for event in stream.split(b"\n\n"):
            if event.startswith(b"data: {"):
                chunk = json.loads(event[6:])
                assert chunk["id"] == new_id
                text += chunk["choices"][0]["delta"].get("content") or ""
        assert text == "".join(pieces)
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert ids.count == 2 * turn
