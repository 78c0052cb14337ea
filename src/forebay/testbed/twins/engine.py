"""One inference server of one's own: continuous batching over a pool of KV cache.

This is the server that users overload. It refuses nobody; its three ways of slowing down are

1. **the batch**: a decode step reads the weights once and each request's KV once, so a step
   takes `a + b·batch + c·kv` and each request's speed falls as the batch grows (total
   throughput still rises, ever less);
2. **prefill**: reading a new prompt occupies the server, and everybody waits;
3. **preemption**: each answer grows by a token a step. When the pool is full, the request
   that joined last is thrown out, its KV freed, and it must later be read again from its
   prompt to its last token. Work is done twice, the queue grows, callers give up after the
   tokens were paid for: the latency collapse.

The policy is vLLM's default: first come, first served; the youngest is preempted;
recompute, no swapping. Approximation: time moves in quanta (one event long); what happens
inside one is computed from its beginning, prefill is not chunked, nothing is shared between
prompts. A pure machine: it knows no clock, `advance` is told how much time went by.
"""

from collections import deque
from collections.abc import Hashable

import msgspec

from forebay.testbed.twins.facts import SelfHosted


class Job(msgspec.Struct, eq=False):
    """A request on the server."""

    id: Hashable
    prompt: int
    output: int
    made: int = 0
    part: float = 0.0  # of a token
    running: bool = False

    @property
    def held(self) -> int:
        """KV tokens it occupies while it runs."""
        return self.prompt + self.made


class Progress(msgspec.Struct, frozen=True):
    id: Hashable
    tokens: int
    done: bool


class Engine:
    def __init__(self, facts: SelfHosted) -> None:
        self.facts = facts
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []  # oldest first
        self.held = 0
        self.preemptions = 0
        self.recomputed_tokens = 0
        self._debt_s = 0.0  # prefill that has been begun and not yet paid

    def fits(self, prompt: int, output: int) -> bool:
        """Whether this request can ever end here."""
        return prompt + output <= min(self.facts.kv_tokens, self.facts.context)

    def submit(self, id: Hashable, prompt: int, output: int) -> None:
        """A request that `fits`; an id is in use until it is done or cancelled."""
        self.waiting.append(Job(id, prompt, output))

    def cancel(self, id: Hashable) -> None:
        """The caller left. Unknown ids are ignored: it may just be done."""
        for job in self.running:
            if job.id == id:
                self.running.remove(job)
                self.held -= job.held
                return
        self.waiting = deque(job for job in self.waiting if job.id != id)

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def advance(self, span_s: float) -> list[Progress]:
        """Let the server work for `span_s`; who got how many tokens."""
        self._admit()
        pay = min(span_s, self._debt_s)
        self._debt_s -= pay
        left_s = span_s - pay
        if left_s <= 0 or not self.running:
            return []
        steps = left_s / self._step_s()
        progress = []
        for job in list(self.running):
            if not job.running:  # preempted by an older one in this very quantum
                continue
            job.part += steps
            tokens = min(int(job.part), job.output - job.made)
            job.part -= int(job.part)
            if tokens and self._grow(job, tokens):
                done = job.made == job.output
                progress.append(Progress(job.id, tokens, done))
                if done:
                    self.running.remove(job)
                    self.held -= job.held
        return progress

    def _admit(self) -> None:
        # A prompt joins as soon as it fits as it is; that its answer will grow is not
        # counted. That optimism is what fills the pool, here as in the real ones.
        facts = self.facts
        while (
            self.waiting
            and len(self.running) < facts.batch_max
            and self.held + self.waiting[0].held + 1 <= facts.kv_tokens
        ):
            job = self.waiting.popleft()
            self._debt_s += job.held * facts.prefill_ms_per_1k / 1_000_000
            self.recomputed_tokens += job.made and job.held
            self.held += job.held
            job.running = True
            self.running.append(job)

    def _step_s(self) -> float:
        facts = self.facts
        return (
            facts.step_ms
            + facts.step_ms_per_request * len(self.running)
            + facts.step_ms_per_1k_kv * self.held / 1000
        ) / 1000

    def _grow(self, job: Job, tokens: int) -> bool:
        """Room for `tokens` more; the youngest give theirs. False: it was the youngest."""
        while self.held + tokens > self.facts.kv_tokens:
            youngest = self.running.pop()
            youngest.running = False
            self.held -= youngest.held
            self.waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is job:
                return False
        job.made += tokens
        self.held += tokens
        return True

    def describe(self) -> str:
        return (
            f"<engine {len(self.running)} running, {len(self.waiting)} waiting, "
            f"KV {self.held}/{self.facts.kv_tokens}, {self.preemptions} preempted>"
        )
