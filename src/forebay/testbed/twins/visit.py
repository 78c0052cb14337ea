"""The way of one request through a twin, from its arrival to a reply or a refusal.

1 route · 2 key · 3 read the question · 4 the script's fault · 5 model · 6 decide the answer ·
7 limits · 8 reply. Faults come before models and limits: a provider that is down says so to
everybody; but after the key, so that a script can aim at one.
"""

import asyncio
import hashlib
from typing import TYPE_CHECKING, assert_never

from forebay.schema.usage import Usage
from forebay.testbed.twins import embeddings, faults
from forebay.testbed.twins.connection import Connection, HttpRequest
from forebay.testbed.twins.form import Birth
from forebay.testbed.twins.luck import Draw
from forebay.testbed.twins.question import Headers, Question, Refused
from forebay.testbed.twins.reply import Reply
from forebay.testbed.twins.routes import is_azure, route
from forebay.testbed.twins.seen import Charge, Seen
from forebay.testbed.twins.served import Served, decide, digest

if TYPE_CHECKING:
    from forebay.testbed.twins.twin import Twin

_OUTPUT_HEADER = "x-twin-output-tokens"
_FAULT_DRAW = 3
#: a scripted status without a meaning of its own
_KIND_OF_STATUS = {
    401: "bad_key",
    403: "not_allowed",
    404: "unknown_model",
    413: "too_large",
    429: "rate_limited",
    503: "unavailable",
    529: "overloaded",
}


class Visit:
    def __init__(
        self, twin: "Twin", request: HttpRequest, connection: Connection, seen: Seen
    ) -> None:
        self._twin = twin
        self._request = request
        self._connection = connection
        self._seen = seen
        self._azure = is_azure(request)
        self._question: Question | None = None
        self._embeddings: embeddings.EmbeddingsRequest | None = None
        self._served: Served | None = None
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        try:
            self._route = route(self._request, self._twin.config.dialect)
            key = self._checked_key()
            self._read()
            fault = self._fault(key)
        except Refused as refused:
            self._refuse(refused)
            return
        if fault is not None and fault.where == "head":
            self._strike(fault)
        else:
            self._answer(fault)

    # -- what the connection tells

    def gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._reply is not None:
            self._reply.gone()
        else:
            self._close("gone")

    def writable(self) -> None:
        if self._reply is not None:
            self._reply.writable()

    # -- the steps

    def _checked_key(self) -> str:
        key = self._twin.dialect.key(self._request.header, self._azure)
        allowed = self._twin.config.keys
        if not key:
            raise Refused("bad_key", "You didn't provide an API key.")
        if allowed and key not in allowed:
            # Providers do repeat the key's end: what a gateway must not pass on.
            raise Refused("bad_key", f"Incorrect API key provided: ***{key[-4:]}.")
        return key

    def _read(self) -> None:
        endpoint, body = self._route.endpoint, self._request.body
        draw_from = body
        model = self._route.model
        if endpoint == "embeddings":
            self._embeddings = embeddings.question(body)
            self._embeddings.model = model = model or self._embeddings.model
        elif endpoint not in ("models", "model"):
            if self._twin.config.dialect == "anthropic" and not self._request.header(
                "anthropic-version"
            ):
                raise Refused("bad_request", "anthropic-version: header is required")
            self._question = question = self._twin.dialect.question(endpoint, body)
            question.model = model = model or question.model
            if (wanted := self._request.header(_OUTPUT_HEADER)) and wanted.isdecimal():
                question.wanted_tokens = max(1, int(wanted[:6]))
            draw_from = digest(question)
        self._seen.model = model
        if len(draw_from) > 64:
            draw_from = hashlib.blake2b(draw_from, digest_size=16).digest()
        self._key = draw_from
        self._draw: Draw = self._twin.luck.draw(draw_from)

    def _fault(self, key: str) -> faults.Fault | None:
        if not self._twin.script.faults:
            return None
        fault = self._twin.script.choose(
            faults.Request(
                number=self._twin.count_for_script(),
                path=self._request.path,
                model=self._seen.model,
                key=key,
                at_s=self._twin.script_age_s,
                draw=self._draw.uniform(_FAULT_DRAW),
            )
        )
        if fault is not None:
            self._seen.fault = fault.label
        return fault

    def _answer(self, fault: faults.Fault | None) -> None:
        self._timer = None
        try:
            match self._route.endpoint:
                case "models":
                    self._respond(self._twin.dialect.models(list(self._twin.config.models)))
                case "model":
                    if self._route.model not in self._twin.config.models:
                        raise self._unknown_model()
                    self._respond(self._twin.dialect.model(self._route.model))
                case "embeddings":
                    self._embed()
                case _:
                    self._converse(fault)
        except Refused as refused:
            self._refuse(refused)

    def _embed(self) -> None:
        request, config = self._embeddings, self._twin.config
        assert request is not None
        if (rates := config.embeddings.get(request.model)) is None:
            raise self._unknown_model()
        body, tokens = embeddings.answer(request, config.embedding_dimensions)
        used = Usage(input_tokens=tokens)
        self._twin.bill.add(
            Charge(self._seen.request_id, request.model, used, rates.cost_nusd(used), "complete")
        )
        self._respond(body)

    def _converse(self, fault: faults.Fault | None) -> None:
        question = self._question
        assert question is not None
        self._served = model = self._twin.models.get(question.model)
        if model is None:
            raise self._unknown_model()
        if self._route.endpoint == "count_tokens":
            self._respond(b'{"input_tokens":%d}' % question.tokens)
            return
        answer = decide(question, model.facts, self._twin.corpus, self._key, self._draw)
        pace = model.begin(question, answer, self._draw)
        form = self._twin.dialect.form(self._route.endpoint, question, answer, self._birth())
        self._reply = Reply(
            self._twin, self._connection, self._seen, question, answer, form, pace,
            self._headers, fault,
        )  # fmt: skip
        self._reply.start()

    def _strike(self, fault: faults.Fault) -> None:
        """A fault before anything of the answer."""
        what = fault.what
        match what:
            case faults.Status():
                kind = what.error or _KIND_OF_STATUS.get(
                    what.status, "server_error" if what.status >= 500 else "bad_request"
                )
                body = self._twin.dialect.refusal(
                    Refused(kind, f"Scripted fault {fault.label}."), self._azure
                )
                if what.body is not None:
                    body = what.body.encode()
                headers = self._headers() + list(what.headers.items())
                self._respond(body, what.status, headers, what.content_type, self._outcome(fault))
            case faults.Stall(seconds=seconds):
                if seconds is not None:
                    self._timer = self._twin.world.call_later(seconds, lambda: self._answer(None))
            case faults.Cut(how=how):
                self._close(self._outcome(fault))
                self._connection.reset() if how == "rst" else self._connection.close()
            case faults.Link(bytes_per_s=rate):
                self._connection.link.throttle(rate)
                self._answer(None)
            case faults.Error() | faults.Write():  # refused when the script was read
                self._answer(None)
            case _:
                assert_never(what)

    # -- answers

    def _refuse(self, refused: Refused) -> None:
        body = self._twin.dialect.refusal(refused, self._azure)
        headers = self._headers() + refused.headers
        self._respond(body, refused.status, headers, outcome="refused")

    def _respond(
        self,
        body: bytes,
        status: int = 200,
        headers: Headers | None = None,
        content_type: str = "application/json",
        outcome: str = "complete",
    ) -> None:
        seen = self._seen
        seen.status = status
        seen.first_byte_ns = self._twin.world.now_ns()
        seen.sent_size += len(body)
        if seen.keep_sent:
            seen.sent += body
        self._connection.respond(
            status, self._headers() if headers is None else headers, body, content_type
        )
        self._close(outcome)

    def _headers(self) -> Headers:
        elapsed_ms = (self._twin.world.now_ns() - self._seen.received_ns) // 1_000_000
        headers = self._twin.dialect.headers(self._seen.request_id, elapsed_ms)
        if self._served is not None:
            headers += self._served.limit_headers()
        return headers

    def _birth(self) -> Birth:
        return Birth(self._twin.new_id(), self._twin.world.wall_ns() // 1_000_000_000)

    def _close(self, outcome: str) -> None:
        self._twin.log.close(self._seen, outcome, self._twin.world.now_ns())

    def _outcome(self, fault: faults.Fault) -> str:
        return f"fault:{fault.label}"

    def _unknown_model(self) -> Refused:
        return Refused(
            "unknown_model",
            f"The model '{self._seen.model or self._route.model}' does not exist "
            "or you do not have access to it.",
            param="model",
        )
