"""Somebody who visits the console: requests straight into the ASGI app, cookies kept, pages
taken apart as a browser would."""

import asyncio
import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from forebay.console import Console

HOST = "127.0.0.1:8081"
#: Elements without an end.
_VOID = {"meta", "link", "img", "input", "br", "hr"}


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def page(self) -> "Page":
        return Page(self.text)

    def header(self, name: str) -> str:
        return ", ".join(v.decode() for n, v in self.headers if n == name.encode())


class Page(HTMLParser):
    """An HTML page: its elements with their attributes, and all of its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    @property
    def lines(self) -> list[str]:
        """The texts between tags."""
        return [text for text in self._texts if text.strip()]

    def named(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Attributes of every such element."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(n) == v for n, v in wanted.items())
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its beginning"
        # In HTML some ends may be left out; our templates leave none out.
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self._texts.append(data)


class Visitor:
    """A browser without a window. `origin=None` sends no Origin, as curl does."""

    def __init__(self, console: Console, *, scheme: str = "http") -> None:
        self.console = console
        self.scheme = scheme
        self.cookies: dict[str, str] = {}

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self._ask(method, path, headers, b"")

    def post(self, path: str, *, origin: str | None = "", **fields: str) -> Answer:
        """Send a form. Origin is the console's own unless given."""
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if origin is not None:
            headers["origin"] = origin or f"{self.scheme}://{HOST}"
        return self._ask("POST", path, headers, urlencode(fields).encode())

    def submit(self, page: Page, **fields: str) -> Answer:
        """Send the form that stands in a page, hidden fields and all."""
        (form,) = page.named("form", method="post")
        hidden = {i["name"]: i["value"] for i in page.named("input", type="hidden")}
        return self.post(form["action"], **hidden | fields)

    def log_in(self, key: str) -> Answer:
        return self.submit(self.get("/login").page, key=key)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        path, _, query = path.partition("?")
        sent = {"host": HOST} | {n.replace("_", "-"): v for n, v in headers.items()}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        scope = {
            "type": "http",
            "method": method,
            "scheme": self.scheme,
            "path": path,
            "query_string": query.encode(),
            "headers": [(n.encode(), v.encode()) for n, v in sent.items() if v != "-"],
        }
        answer = asyncio.run(exchange(self.console, scope, body))
        for name, value in answer.headers:
            if name == b"set-cookie":
                self._keep(value.decode())
        return answer

    def _keep(self, cookie: str) -> None:
        pair, *attributes = cookie.split("; ")
        name, _, value = pair.partition("=")
        if "Max-Age=0" in attributes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


async def exchange(console: Console, scope: dict[str, Any], body: bytes) -> Answer:
    pieces = [body[i : i + 5000] for i in range(0, len(body), 5000)] or [b""]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await console(scope, receive, send)
    start, *rest = sent
    data = b"".join(message.get("body", b"") for message in rest)
    lengths = [int(v) for n, v in start["headers"] if n == b"content-length"]
    assert scope["method"] == "HEAD" or lengths == [len(data)]
    return Answer(start["status"], start["headers"], data)
