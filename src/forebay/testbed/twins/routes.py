"""Which of a provider's endpoints a request means."""

import re
from typing import Literal

import msgspec

from forebay.testbed.twins.connection import HttpRequest
from forebay.testbed.twins.question import Refused

_AZURE = re.compile(r"/openai/deployments/([^/]+)/(chat/completions|embeddings)")

#: path → (method, endpoint)
_OPENAI = {
    "/v1/chat/completions": ("POST", "chat"),
    "/v1/responses": ("POST", "responses"),
    "/v1/embeddings": ("POST", "embeddings"),
    "/v1/models": ("GET", "models"),
}
_ANTHROPIC = {
    "/v1/messages": ("POST", "messages"),
    "/v1/messages/count_tokens": ("POST", "count_tokens"),
    "/v1/models": ("GET", "models"),
}


class Route(msgspec.Struct, frozen=True):
    endpoint: str  # chat, responses, embeddings, messages, count_tokens, models, model
    #: named by the path: the model, or Azure's deployment
    model: str = ""
    azure: bool = False


def is_azure(request: HttpRequest) -> bool:
    return request.path.startswith("/openai/")


def route(request: HttpRequest, dialect: Literal["openai", "anthropic"]) -> Route:
    """Raises Refused(unknown_path, bad_method)."""
    path = request.path
    if dialect == "openai" and (azure := _AZURE.fullmatch(path)):
        if "api-version=" not in request.query:
            raise Refused("unknown_path", "Resource not found")
        endpoint = "embeddings" if azure[2] == "embeddings" else "chat"
        return _checked(request, "POST", Route(endpoint, azure[1], azure=True))
    if path.startswith("/v1/models/"):
        return _checked(request, "GET", Route("model", path.removeprefix("/v1/models/")))
    known = (_OPENAI if dialect == "openai" else _ANTHROPIC).get(path)
    if known is None:
        raise Refused("unknown_path", f"Unknown request URL: {request.method} {path}.")
    method, endpoint = known
    return _checked(request, method, Route(endpoint))


def _checked(request: HttpRequest, method: str, route: Route) -> Route:
    if request.method != method:
        raise Refused("bad_method", f"Not allowed to {request.method} on {request.path}.")
    return route
