"""OpenAI's API around the answers: keys, headers, the list of models; and Azure's key."""

from collections.abc import Callable
from typing import Any

from forebay.testbed.twins import openai_chat, responses
from forebay.testbed.twins.form import Birth, Form, json_encode
from forebay.testbed.twins.openai_errors import error_body
from forebay.testbed.twins.question import Answer, Headers, Question, Refused

CREATED_S = 1_700_000_000  # of every model


class OpenAIDialect:
    def key(self, header: Callable[[str], str | None], azure: bool) -> str | None:
        scheme, _, token = (header("authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return header("api-key") if azure else None

    def refusal(self, refused: Refused, azure: bool) -> bytes:
        return error_body(refused, azure)

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:
        return [
            ("x-request-id", request_id),
            ("openai-processing-ms", str(elapsed_ms)),
            ("openai-version", "2020-10-01"),
            ("openai-organization", "twin"),
        ]

    def question(self, endpoint: str, body: bytes) -> Question:
        """Read a request to "chat" or "responses"."""
        if endpoint == "responses":
            return responses.question(body)
        return openai_chat.question(body)

    def form(self, endpoint: str, question: Question, answer: Answer, birth: Birth) -> Form:
        if endpoint == "responses":
            return responses.ResponseForm(question, answer, birth)
        return openai_chat.ChatForm(question, answer, birth)

    def models(self, names: list[str]) -> bytes:
        return json_encode({"object": "list", "data": list(map(_model, names))})

    def model(self, name: str) -> bytes:
        return json_encode(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED_S, "owned_by": "twin"}
