"""The console's ASGI callable: an address becomes a page, for those who may see it.

Every request passes the same gates in this order:

1. the Host must be local or configured, before anything else is believed;
2. style sheet and picture are for everybody: they are the same for everybody;
3. a POST must come from a page of ours (Origin, and a token in its form);
4. whoever is not logged in gets the login form, or 401 from a `.json` twin. A twin also takes
   the admin key itself, as `Authorization: Bearer`.

Pages are made in a thread of their own, one at a time: reading the store and rendering a large
record take longer than the loop beside them may wait.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from forebay.console import pages
from forebay.console.http import (
    Receive,
    Reply,
    Request,
    Scope,
    Send,
    json_reply,
    own_path,
    see_other,
    set_cookie,
)
from forebay.console.sessions import TTL_NS, Sessions, new_token
from forebay.console.templates import render
from forebay.errors import Failure
from forebay.observe.query import Reader
from forebay.world import World

SESSION = "forebay_session"
FORM = "forebay_form"  # before there is a session

_STATIC = Path(__file__).parent / "static"
_KINDS = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

_log = logging.getLogger(__name__)


class Console:
    """The operators' web pages over one trace store."""

    def __init__(
        self,
        folder: Path,
        world: World,
        *,
        auth: Callable[[str], bool],
        hosts: Iterable[str] = (),
    ) -> None:
        """`folder` is the trace store; `auth` says whether a key is an admin's, now; `hosts`
        are names the console may be opened under beside local ones."""
        self._reader = Reader(folder, world.now_ns)
        self._world = world
        self._sessions = Sessions(auth, world.now_ns)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._thread = ThreadPoolExecutor(1, "console")
        self._static = {path.name: path.read_bytes() for path in _STATIC.iterdir()}
        self.style = _stamped("console.css", self._static["console.css"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        wants_json = scope["path"].endswith(".json")
        try:
            request = Request(scope)
            reply = await self._answer(request, receive)
        except Failure as failure:
            reply = self._failed(failure, wants_json)
        except Exception:
            _log.exception("the console failed at %r", scope["path"])
            ours = Failure("internal", "The console failed here.", hint="Its log says why.")
            reply = self._failed(ours, wants_json)
        await reply.send(send, head=scope["method"] == "HEAD")

    async def _answer(self, request: Request, receive: Receive) -> Reply:
        request.check_host(self._hosts)
        if request.path.startswith("/static/"):
            return self._file(request.path.removeprefix("/static/"))
        match request.method:
            case "GET" | "HEAD":
                return await self._get(request)
            case "POST":
                request.check_origin()
                await request.read_form(receive)
                return self._post(request)
        raise Failure(
            "method_not_allowed", f"The console takes GET and POST, not {request.method[:20]!r}."
        )

    # -- reading

    async def _get(self, request: Request) -> Reply:
        if request.path == "/login":
            return self._login_form(request)
        if not self._may_read(request):
            return self._turned_away(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._page, request)

    def _may_read(self, request: Request) -> bool:
        if self._sessions.is_open(request.cookie(SESSION)):
            return True
        return request.path.endswith(".json") and self._sessions.admits(request.bearer)

    def _page(self, request: Request) -> Reply:
        """A page that is there. In the console's thread."""
        path, wall_ns = request.path, self._world.wall_ns()
        if path in ("/", "/traces"):
            return self._list(request, wall_ns)
        if path == "/traces.json":
            found = pages.traces(self._reader, request.query, wall_ns)
            return json_reply(pages.traces_json(found))
        if path.startswith("/traces/"):
            wanted, _, rest = path.removeprefix("/traces/").partition("/")
            return self._trace(request, unquote(wanted), rest, wall_ns)
        raise Failure(
            "unknown_path",
            f"The console has no page at {path[:200]!r}.",
            hint="It begins at /traces.",
        )

    def _list(self, request: Request, wall_ns: int) -> Reply:
        text = request.query.get("q", "").strip()
        if text.startswith("req_") and len(text) >= 10:  # an id, pasted: go there
            try:
                return see_other(pages.trace_address(self._reader.find(text).id))
            except Failure:
                pass  # then it is text to look for
        found = pages.traces(self._reader, request.query, wall_ns)
        headers = []
        if found.want["live"] and not found.want["before"]:
            headers.append((b"refresh", b"5"))
        page = self._render(request, "traces.html", found=found, since=pages.SINCE)
        page.headers += headers
        return page

    def _trace(self, request: Request, wanted: str, rest: str, wall_ns: int) -> Reply:
        as_json = wanted.endswith(".json") and not rest
        line = self._reader.find(wanted.removesuffix(".json") if as_json else wanted)
        record = self._reader.record(line)
        if as_json:
            return json_reply(pages.trace_json(record))
        if rest:
            return _download(line.id, rest, pages.download(record, rest))
        shown = pages.trace(line, record, raw=request.query.get("view") == "raw")
        return self._render(request, "trace.html", found=shown, now_ns=wall_ns)

    def _file(self, name: str) -> Reply:
        name = next((n for n, data in self._static.items() if _stamped(n, data) == name), name)
        if name not in self._static:
            raise Failure("unknown_path", f"The console has no file {name[:100]!r}.")
        kind = _KINDS[Path(name).suffix]
        return Reply(self._static[name], kind=kind, store=True)

    # -- login

    def _login_form(self, request: Request, failed: str = "") -> Reply:
        if self._sessions.is_open(request.cookie(SESSION)):
            return see_other(own_path(request.query.get("next", "")))
        cookie = request.cookie(FORM) or new_token()
        reply = self._render(
            request,
            "login.html",
            form_token=self._sessions.form_token(cookie),
            wanted=own_path(request.form.get("next") or request.query.get("next", "")),
            failed=failed,
        )
        reply.status = 401 if failed else 200
        reply.headers.append(set_cookie(FORM, cookie, secure=request.secure, max_age_s=3600))
        return reply

    def _turned_away(self, request: Request) -> Reply:
        if request.path.endswith(".json"):
            failure = Failure(
                "missing_key",
                "The console shows this to operators only.",
                hint="Send an admin key as `Authorization: Bearer fb_…`, or log in.",
            )
            return _json_failure(failure, (b"www-authenticate", b"Bearer"))
        wanted = request.path + ("?" + request.query_string if request.query_string else "")
        where = "/login" if wanted == "/" else "/login?next=" + quote(wanted, safe="/")
        return see_other(where)

    def _post(self, request: Request) -> Reply:
        name = {"/login": FORM, "/logout": SESSION}.get(request.path)
        if name is None:
            raise Failure("method_not_allowed", f"Nothing is sent to {request.path[:200]!r}.")
        cookie = request.cookie(name)
        if not self._sessions.is_form_token(cookie, request.form.get("token", "")):
            if request.path == "/login":
                return self._login_form(request, "The form was too old. Here is a new one.")
            raise Failure("foreign_origin", "This form is not from the console, or too old.")
        if request.path == "/logout":
            self._sessions.end(cookie)
            gone = set_cookie(SESSION, "", secure=request.secure, max_age_s=0)
            return see_other("/login", gone)
        token = self._sessions.begin(request.form.get("key", "").strip())
        if token is None:
            return self._login_form(request, "That is no admin key of this gateway.")
        max_age_s = TTL_NS // 1_000_000_000
        return see_other(
            own_path(request.form.get("next", "")),
            set_cookie(SESSION, token, secure=request.secure, max_age_s=max_age_s),
            set_cookie(FORM, "", secure=request.secure, max_age_s=0),
        )

    # -- how

    def _render(self, request: Request, name: str, **values: Any) -> Reply:
        session = request.cookie(SESSION)
        logout_token = self._sessions.form_token(session) if name != "login.html" else ""
        page = render(name, style=self.style, logout_token=logout_token, **values)
        return Reply(page.encode("utf-8", "backslashreplace"))

    def _failed(self, failure: Failure, wants_json: bool) -> Reply:
        if wants_json:
            return _json_failure(failure)
        page = render("error.html", style=self.style, logout_token="", failure=failure)
        return Reply(page.encode("utf-8", "backslashreplace"), failure.code.status)

    def close(self) -> None:
        self._thread.shutdown()
        self._reader.close()

    def __repr__(self) -> str:
        return f"<Console {self._reader!r} {self._sessions!r}>"


def _download(trace_id: str, name: str, data: bytes | None) -> Reply:
    """Exact bytes, as a file that no browser shows."""
    if data is None:
        raise Failure(
            "unknown_path",
            f"No bytes named {name[:100]!r} are kept of {trace_id}.",
            hint="There are request, reply, and for each attempt sent-1 and answer-1.",
        )
    disposition = f'attachment; filename="{name}.bin"'.encode("latin-1")
    headers = [(b"content-disposition", disposition)]
    return Reply(data, kind="application/octet-stream", headers=headers)


def _json_failure(failure: Failure, *headers: tuple[bytes, bytes]) -> Reply:
    error = {"code": failure.code.name, "message": failure.message, "hint": failure.hint}
    return json_reply({"error": error}, failure.code.status, *headers)


def _stamped(name: str, data: bytes) -> str:
    """A static file's address: it may be stored for ever, since it changes with the file."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(data).hexdigest()[:12]}.{suffix}"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
