"""The data plane's ASGI callable: a path becomes an endpoint, a request an Exchange.

Model endpoints go to `pipeline.handle`; a provider's other paths to `pipeline.forward`; the
few things answered here (models, health, metrics) are below. An unknown path is a 404 in
the dialect its caller most likely speaks.
"""

import datetime
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from forebay import pipeline, reply
from forebay.admission import door
from forebay.dialects import failures, headers
from forebay.dialects.endpoints import BY_PATH, Endpoint
from forebay.errors import Failure
from forebay.exchange import Dialect, Exchange, Headers
from forebay.pipeline import Way
from forebay.wire.caller import Caller

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON: Headers = [(b"content-type", b"application/json")]
_TEXT: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_PASSTHROUGH = "/passthrough/"
#: What Anthropic tells of a model and nobody tells us.
_UNTOLD = dict.fromkeys(
    ("capabilities", "deprecated_at", "line", "max_input_tokens", "max_tokens", "retires_at")
)
#: Below a base URL that lacks its /v1 the SDKs' paths come without it.
_ENDPOINTS: dict[str, Endpoint] = BY_PATH | {
    path.removeprefix("/v1"): endpoint
    for path, endpoint in BY_PATH.items()
    if endpoint.dialect == "openai"
}


class Control(Protocol):
    """What the process around the app knows."""

    started_s: int  # wall clock

    def ready(self) -> str:
        """ "" when requests can be served, else why not."""

    async def metrics(self) -> str:
        """Prometheus text. Bounded in time."""


class App:
    def __init__(self, way: Way, control: Control) -> None:
        self.way = way
        self.control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _lifespan(scope, receive, send)
            return
        caller: Caller = scope["extensions"]["forebay"]
        world = self.way.world
        client = scope["client"]
        path = scope["path"]
        endpoint = _ENDPOINTS.get(path)
        dialect = endpoint.dialect if endpoint is not None else _guess(scope)
        x = Exchange(
            id=world.new_id("req_"),
            received_ns=world.now_ns(),
            received_wall_ns=world.wall_ns(),
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            head=headers.read(scope["headers"], dialect),
            dialect=dialect,
            peer=client[0] if client is not None else "",
        )
        if endpoint is not None and x.method == "POST":
            x.endpoint = endpoint.name
            await pipeline.handle(self.way, endpoint, x, caller)
        elif path.startswith(_PASSTHROUGH):
            x.endpoint = "passthrough"
            raw = scope["raw_path"].decode("latin-1")[len(_PASSTHROUGH) :]
            provider, _, rest = raw.partition("/")
            await pipeline.forward(self.way, x, provider, "/" + rest, caller)
        else:
            await self._other(x, endpoint, caller)

    async def _other(self, x: Exchange, endpoint: Endpoint | None, caller: Caller) -> None:
        caller.keep_alive = caller.keep_alive and not caller.more_body
        try:
            if endpoint is not None:
                raise Failure("method_not_allowed", f"{x.path} takes POST, not {x.method[:20]}.")
            allowed = ("GET", "HEAD")
            match x.path:
                case "/healthz":
                    status, kind, body = 200, _TEXT, b"ok\n"
                case "/readyz":
                    why = self.control.ready()
                    status, kind, body = (
                        (503, _TEXT, why.encode() + b"\n") if why else (200, _TEXT, b"ready\n")
                    )
                case "/metrics":
                    status, kind, body = 200, _TEXT, (await self.control.metrics()).encode()
                case "/v1/models" | "/models":
                    door.identify(self.way.keyring, self.way.keys_required, x)
                    status, kind, body = 200, _JSON, self._models(x.dialect)
                case path if path.startswith(("/v1/models/", "/models/")):
                    door.identify(self.way.keyring, self.way.keys_required, x)
                    name = path.partition("models/")[2]
                    status, kind, body = 200, _JSON, self._model(name, x.dialect)
                case _:
                    raise Failure(
                        "unknown_path",
                        f"There is nothing at {x.path[:200]!r}.",
                        hint="The API is under /v1; a provider's other paths are under "
                        "/passthrough/PROVIDER/.",
                    )
            if x.method not in allowed:
                raise Failure("method_not_allowed", f"{x.path} takes GET, not {x.method[:20]}.")
        except Failure as failure:
            reply.refuse(x, failure, caller)
            x.ended_ns = self.way.world.now_ns()
            self.way.recorder.keep(x)  # whoever asks for what isn't there wants to know
            return
        caller.reply(status, [*kind, *reply.request_id(x)], body)

    # -- models --------------------------------------------------------------------------

    def _models(self, dialect: Dialect) -> bytes:
        models = [self._card(name, owner, dialect) for name, owner in self.way.catalogue.models()]
        if dialect == "anthropic":
            ids = [card["id"] for card in models]
            page = {
                "data": models,
                "first_id": ids[0] if ids else None,
                "last_id": ids[-1] if ids else None,
                "has_more": False,
            }
            return msgspec.json.encode(page)
        return msgspec.json.encode({"object": "list", "data": models})

    def _model(self, name: str, dialect: Dialect) -> bytes:
        route = self.way.catalogue.find(name, "chat")
        return msgspec.json.encode(self._card(name, route.provider.name, dialect))

    def _card(self, name: str, owner: str, dialect: Dialect) -> dict[str, Any]:
        if dialect == "anthropic":
            # No provider tells when a model came to be in both dialects; this is honest
            # about one thing only: since when it is served here.
            since = msgspec.to_builtins(_utc(self.control.started_s))
            return {
                **_UNTOLD,
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": since,
                "lifecycle": "active",
            }
        return {
            "id": name,
            "object": "model",
            "created": self.control.started_s,
            "owned_by": owner,
        }


def refusal(failure: Failure) -> bytes:
    """For what is refused before there is a path: the dialect most callers speak."""
    return failures.whole(failure, "openai", "")


def _guess(scope: Scope) -> Dialect:
    """Which dialect a caller of no endpoint speaks."""
    if scope["path"].startswith("/v1/messages"):
        return "anthropic"
    if any(name == b"anthropic-version" for name, _ in scope["headers"]):
        return "anthropic"
    return "openai"


def _utc(seconds: int) -> Any:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await send({"type": "websocket.close", "code": 1000})
        return
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
