"""Given keys that are an admin's until they are not, then sessions are theirs, and no longer."""

from forebay.console.sessions import MAX_SESSIONS, TTL_NS, Sessions


class Clock:
    def __init__(self) -> None:
        self.ns = 1

    def __call__(self) -> int:
        return self.ns


def test_only_an_admin_key_begins_a_session() -> None:
    sessions = Sessions({"k"}.__contains__, Clock())

    assert sessions.begin("x") is None
    assert sessions.begin("") is None
    token = sessions.begin("k")
    assert token is not None
    assert sessions.is_open(token)


def test_an_empty_key_is_never_asked_about() -> None:
    # Some stores say yes to what they do not know.
    assert not Sessions(lambda key: True, Clock()).admits("")


def test_tokens_are_never_alike_and_long_enough() -> None:
    sessions = Sessions(lambda key: True, Clock())

    tokens = {sessions.begin("k") for _ in range(50)}

    assert len(tokens) == 50
    assert all(token is not None and len(token) >= 43 for token in tokens)


def test_a_token_that_was_never_given_is_no_session() -> None:
    sessions = Sessions(lambda key: True, Clock())
    sessions.begin("k")

    for token in ("", "x", "\udcff", "é"):
        assert not sessions.is_open(token)


def test_a_session_ends_by_its_clock_by_logout_and_by_its_key() -> None:
    clock, keys = Clock(), {"k"}
    sessions = Sessions(keys.__contains__, clock)
    old, left, revoked = (sessions.begin("k") or "" for _ in range(3))

    sessions.end(left)
    assert not sessions.is_open(left)
    keys.clear()
    assert not sessions.is_open(revoked)
    keys.add("k")
    assert not sessions.is_open(revoked)
    clock.ns += TTL_NS
    assert not sessions.is_open(old)


def test_the_number_of_sessions_has_a_bound_and_the_oldest_goes() -> None:
    sessions = Sessions(lambda key: True, Clock())
    first = sessions.begin("k") or ""
    others = [sessions.begin("k") or "" for _ in range(MAX_SESSIONS)]

    assert not sessions.is_open(first)
    assert all(map(sessions.is_open, others))


def test_sessions_that_ended_make_room_first() -> None:
    clock = Clock()
    sessions = Sessions(lambda key: True, clock)
    for _ in range(MAX_SESSIONS):
        sessions.begin("k")
    clock.ns += TTL_NS
    sessions.begin("k")

    assert repr(sessions) == "<Sessions 1 open>"


def test_a_form_token_goes_with_its_cookie_and_its_console() -> None:
    sessions, other = Sessions(bool, Clock()), Sessions(bool, Clock())
    token = sessions.form_token("cookie")

    assert sessions.is_form_token("cookie", token)
    assert not sessions.is_form_token("other", token)
    assert not other.is_form_token("cookie", token)
    assert not sessions.is_form_token("", sessions.form_token(""))
    assert not sessions.is_form_token("cookie", "é\udcff")


def test_printing_sessions_shows_no_key() -> None:
    sessions = Sessions(lambda key: True, Clock())
    sessions.begin("fb_secret")

    assert "fb_secret" not in repr(sessions)
