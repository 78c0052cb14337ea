"""A model as the twin serves it: lets a question in, decides the answer, gives it a pace."""

import hashlib
import json
from math import exp
from typing import Protocol

from forebay.testbed.twins.engine import Engine
from forebay.testbed.twins.facts import Hosted, Model, SelfHosted
from forebay.testbed.twins.hosted import HostedModel
from forebay.testbed.twins.instance import instance
from forebay.testbed.twins.luck import Draw
from forebay.testbed.twins.pace import Batch, Clockwork, Pace, Seat
from forebay.testbed.twins.prompt_cache import Split
from forebay.testbed.twins.question import Answer, Headers, Question, Refused
from forebay.testbed.twins.text import BYTES_PER_TOKEN, Corpus, count
from forebay.world import World


class Served(Protocol):
    @property
    def facts(self) -> Model: ...

    def begin(self, question: Question, answer: Answer, draw: Draw) -> Pace:
        """Let it in; sets `answer.split`. Raises Refused."""

    def limit_headers(self) -> Headers: ...

    def describe(self) -> str: ...


def served(world: World, name: str, facts: Model, anthropic: bool) -> Served:
    if isinstance(facts, Hosted):
        return ServedHosted(world, name, facts, anthropic)
    return ServedBatch(world, name, facts)


class ServedHosted:
    def __init__(self, world: World, name: str, facts: Hosted, anthropic: bool) -> None:
        self._world = world
        self.facts: Model = facts
        self._model = HostedModel(name, facts, anthropic, world.now_ns())

    def begin(self, question: Question, answer: Answer, draw: Draw) -> Pace:
        now_ns = self._world.now_ns()
        answer.split = self._model.admit(question, answer.tokens, now_ns)
        plan = self._model.plan(answer.split, draw, now_ns)
        return Clockwork(self._world, plan, answer.tokens)

    def limit_headers(self) -> Headers:
        return self._model.limit_headers(self._world.wall_ns())

    def describe(self) -> str:
        return self._model.describe(self._world.now_ns())


class ServedBatch:
    def __init__(self, world: World, name: str, facts: SelfHosted) -> None:
        self.name = name
        self.facts: Model = facts
        self._kv_tokens = facts.kv_tokens
        self._batch = Batch(world, Engine(facts))

    def begin(self, question: Question, answer: Answer, draw: Draw) -> Pace:
        if not self._batch.engine.fits(question.tokens, answer.tokens):
            raise _too_long(self._kv_tokens, question.tokens + answer.tokens)
        return Seat(self._batch, question.tokens, answer.tokens)

    def limit_headers(self) -> Headers:
        return []

    def describe(self) -> str:
        return f"<{self.name} self-hosted {self._batch.engine.describe()}>"


def digest(question: Question) -> bytes:
    """What a question's luck and answer are drawn from."""
    state = hashlib.blake2b(question.prompt, digest_size=16)
    state.update(question.model.encode())
    return state.digest()


def decide(question: Question, facts: Model, corpus: Corpus, key: bytes, draw: Draw) -> Answer:
    """What the model will say. Raises Refused(context_too_long)."""
    room = facts.context - question.tokens
    if room < 1:
        raise _too_long(facts.context, question.tokens)
    bound = min(room, question.max_tokens or room)
    if question.tool is not None or question.schema is not None:
        schema = question.tool.schema if question.tool is not None else question.schema
        payload = json.dumps(instance(schema)).encode()
        tokens = count(payload)
        cut = tokens > bound
        if cut:
            tokens, payload = bound, payload[: bound * BYTES_PER_TOKEN]
        return Answer(payload, tokens, Split(question.tokens), plain=False, cut_by_length=cut)
    wanted = question.wanted_tokens or max(
        1, round(facts.output_median * exp(facts.output_sigma * draw.normal(2)))
    )
    tokens = min(wanted, bound)
    return Answer(
        corpus.answer(key, tokens), tokens, Split(question.tokens), cut_by_length=wanted > bound
    )


def _too_long(context: int, tokens: int) -> Refused:
    return Refused(
        "context_too_long",
        f"This model's maximum context length is {context} tokens. "
        f"However, your messages resulted in {tokens} tokens.",
        param="messages",
    )
