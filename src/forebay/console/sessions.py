"""Who is logged in to the console.

A session begins when somebody types an admin key, and is known to the browser by a random
token in a cookie. Everything else stays here, in memory: a restart logs everybody out.

The key is kept with its session and asked about again at each request, so a key that is
revoked or expires ends its sessions at once. No other copy is made of it.

A form carries a second token, made from the cookie's by a keyed hash whose key never leaves
this process. Another site can make a browser send a form and its cookie, but can't read the
cookie to compute the token. The login form, before there is a session, is guarded the same
way by a cookie of its own.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

import msgspec

TTL_NS = 12 * 3600 * 1_000_000_000
#: Far more than operators; the oldest session ends when one more begins.
MAX_SESSIONS = 256

_TOKEN_BYTES = 32


class Session(msgspec.Struct):
    key: str
    ends_ns: int  # monotonic


class Sessions:
    """All sessions of one console. `auth` says whether a key is an admin's, now."""

    def __init__(self, auth: Callable[[str], bool], now_ns: Callable[[], int]) -> None:
        self._auth = auth
        self._now_ns = now_ns
        self._sessions: dict[str, Session] = {}
        self._form_key = secrets.token_bytes(_TOKEN_BYTES)

    def admits(self, key: str) -> bool:
        """Whether this key may operate the gateway. Sync, ~2 µs."""
        return bool(key) and self._auth(key)

    def begin(self, key: str) -> str | None:
        """The token of a new session; None where the key is not an admin's."""
        if not self.admits(key):
            return None
        self._forget_ended()
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        token = new_token()
        self._sessions[_digest(token)] = Session(key, self._now_ns() + TTL_NS)
        return token

    def is_open(self, token: str) -> bool:
        """Whether a cookie's token is a session that has not ended."""
        found = self._sessions.get(_digest(token))
        if found is None:
            return False
        if self._now_ns() >= found.ends_ns or not self._auth(found.key):
            self.end(token)
            return False
        return True

    def end(self, token: str) -> None:
        self._sessions.pop(_digest(token), None)

    def form_token(self, cookie: str) -> str:
        """What a form must carry that is sent along with this cookie."""
        return hmac.new(self._form_key, cookie.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, cookie: str, sent: str) -> bool:
        return bool(cookie) and hmac.compare_digest(
            self.form_token(cookie).encode(), sent.encode("utf-8", "replace")
        )

    def _forget_ended(self) -> None:
        now = self._now_ns()
        for digest in [d for d, session in self._sessions.items() if now >= session.ends_ns]:
            del self._sessions[digest]

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} open>"


def new_token() -> str:
    """256 random bits, for a cookie. From the system and not the World: they grant access."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _digest(token: str) -> str:
    # Looked up by a hash, so that the time a look-up takes says nothing of the tokens.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
