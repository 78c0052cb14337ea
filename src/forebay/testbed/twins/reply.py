"""The answer to one question, from its first byte to its lines in the log and on the bill.

A reply listens to a pace (tokens become due), writes them as events of its form, and obeys
at most one fault. It ends in exactly one way: complete, gone (the peer left), or the fault's.

The hot path is `produce`: one call a token event, ~2 µs plus the write to the socket.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from forebay.testbed.twins import faults
from forebay.testbed.twins.connection import Connection
from forebay.testbed.twins.form import Form
from forebay.testbed.twins.hosted import usage
from forebay.testbed.twins.pace import Pace
from forebay.testbed.twins.question import Answer, Headers, Question
from forebay.testbed.twins.seen import Seen
from forebay.testbed.twins.text import BYTES_PER_TOKEN
from forebay.world import World

_NEVER = -1
_COMMENT = b": ping\n\n"


class House(Protocol):
    """What a reply needs of the twin."""

    world: World

    def over(self, seen: Seen, outcome: str, question: Question, answer: Answer) -> None:
        """The reply has ended; `seen.tokens` had been made."""


class Reply:
    def __init__(
        self,
        house: House,
        connection: Connection,
        seen: Seen,
        question: Question,
        answer: Answer,
        form: Form,
        pace: Pace,
        headers: Callable[[], Headers],
        fault: faults.Fault | None,
    ) -> None:
        self._house = house
        self._connection = connection
        self._seen = seen
        self._question = question
        self._answer = answer
        self._form = form
        self._pace = pace
        self._headers = headers
        self._fault = fault
        self._stream = question.stream
        self._due = 0
        self._made = 0
        self._events = 0
        self._event_tokens = 1
        self._paced = False
        self._begun = False
        self._stalled = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._comments: asyncio.TimerHandle | None = None
        # Number of content events after which the fault strikes; compared on the hot path.
        self._strike_at = _NEVER
        if fault is not None and self._stream and fault.where == "event":
            self._strike_at = fault.after

    def start(self) -> None:
        if self._fault is not None and self._stream and not self._strike_at > 0:
            # Before any token. At `event` 0 the frame events have been sent, at `first` none.
            self._begin(self._form.head if self._strike_at == 0 else b"")
            self._strike()
        else:
            self._follow_pace()

    # -- tokens

    def produce(self, tokens: int) -> None:
        """From the pace: so many more tokens are due."""
        self._due += tokens
        self._event_tokens = tokens
        self._send()

    def writable(self) -> None:
        self._send()

    def gone(self) -> None:
        self._end("gone")

    def _send(self) -> None:
        """What is due and may be sent: usually one event; after a pause all that waited, in
        events of the usual size, until the peer stops reading again."""
        while (
            self._made < self._due
            and not self._stalled
            and not self._over
            and not self._connection.paused
        ):
            if self._stream:
                self._send_event(min(self._due, self._made + self._event_tokens))
            elif self._due < self._answer.tokens:
                return
            else:
                self._send_whole()

    def _send_event(self, upto: int) -> None:
        answer = self._answer
        last = upto == answer.tokens
        start = self._made * BYTES_PER_TOKEN
        end = len(answer.payload) if last else upto * BYTES_PER_TOKEN
        self._made = upto
        event = self._form.delta(answer.payload[start:end])
        self._events += 1
        if self._events > 1:
            self._write(event)
        else:
            self._seen.first_token_ns = self._house.world.now_ns()
            self._write(event) if self._begun else self._begin(self._form.head + event)
        if self._events == self._strike_at:
            self._strike()
        if last and not self._stalled and not self._over:
            self._finish_stream()

    # -- bytes

    def _begin(self, first: bytes) -> None:
        self._begun = True
        self._seen.status = 200
        self._seen.first_byte_ns = self._house.world.now_ns()
        self._count(first)
        self._connection.begin(200, self._headers(), first)

    def _write(self, data: bytes) -> None:
        self._count(data)
        self._connection.chunk(data)

    def _count(self, data: bytes) -> None:
        seen = self._seen
        seen.sent_size += len(data)
        if seen.keep_sent:
            seen.sent += data

    def _finish_stream(self) -> None:
        tail = self._form.tail(usage(self._answer.split, self._answer.tokens))
        self._count(tail)
        self._connection.end(tail)
        self._end("complete")

    def _send_whole(self) -> None:
        self._made = self._due
        if self._fault is not None:
            self._strike_whole(self._fault.what)
            return
        self._respond(self._form.whole(usage(self._answer.split, self._answer.tokens)))

    def _respond(self, body: bytes, sent: int | None = None, outcome: str = "complete") -> None:
        """The whole body; with `sent` only so many bytes of what content-length promises."""
        now_ns = self._house.world.now_ns()
        self._seen.status = 200
        self._seen.first_byte_ns = self._seen.first_token_ns = now_ns
        self._count(body[:sent])
        if sent is None:
            self._connection.respond(200, self._headers(), body)
        else:
            self._connection.respond_in_part(200, self._headers(), body, sent)
        self._end(outcome)

    # -- faults

    def _strike(self) -> None:
        """The fault's moment in a stream has come."""
        self._strike_at = _NEVER
        assert self._fault is not None
        match self._fault.what:
            case faults.Stall(seconds=seconds, comment_every_s=often):
                self._stalled = True
                if seconds is not None:
                    self._timer = self._house.world.call_later(seconds, self._go_on)
                if often is not None:
                    self._comment(often)
                return
            case faults.Cut(how=how):
                {
                    "complete": self._connection.end,
                    "close": self._connection.close,
                    "rst": self._connection.reset,
                }[how]()
                self._end(self._outcome())
                return
            case faults.Error(error=kind, message=message):
                event = self._form.error(kind, message)
                self._count(event)
                self._connection.end(event)
                self._end(self._outcome())
                return
            case faults.Write(text=text):
                self._write(text.encode())
            case faults.Link(bytes_per_s=rate):
                self._connection.link.throttle(rate)
            case faults.Status():  # happens at head, before there is a reply
                pass
        self._follow_pace()

    def _strike_whole(self, what: faults.What) -> None:
        body = self._form.whole(usage(self._answer.split, self._answer.tokens))
        match what:
            case faults.Stall(seconds=seconds):
                if seconds is not None:
                    self._timer = self._house.world.call_later(seconds, lambda: self._respond(body))
            case faults.Cut(how="complete"):
                self._respond(body[: len(body) // 2], outcome=self._outcome())
            case faults.Cut(how=how):
                self._respond(body, len(body) // 2, outcome=self._outcome())
                self._connection.reset() if how == "rst" else self._connection.close()
            case faults.Error(error=kind, message=message):
                self._respond(self._form.error_body(kind, message), outcome=self._outcome())
            case faults.Write(text=text):
                self._respond(text.encode() + body)
            case faults.Link(bytes_per_s=rate):
                self._connection.link.throttle(rate)
                self._respond(body)
            case faults.Status():
                pass

    def _outcome(self) -> str:
        assert self._fault is not None
        return f"fault:{self._fault.label}"

    def _comment(self, often_s: float) -> None:
        if self._stalled and not self._over:
            self._write(_COMMENT)
            self._comments = self._house.world.call_later(often_s, lambda: self._comment(often_s))

    def _go_on(self) -> None:
        self._stalled = False
        self._follow_pace()
        if self._made == self._answer.tokens:
            self._finish_stream()
        else:
            self._send()

    # -- ends

    def _follow_pace(self) -> None:
        if not self._paced:
            self._paced = True
            self._pace.start(self, self._stream)

    def _end(self, outcome: str) -> None:
        if self._over:
            return
        self._over = True
        for timer in (self._timer, self._comments):
            if timer is not None:
                timer.cancel()
        if outcome == "complete":
            self._seen.tokens = self._answer.tokens
        elif self._paced:
            self._seen.tokens = self._pace.stop()
        self._seen.events = self._events
        self._house.over(self._seen, outcome, self._question, self._answer)
