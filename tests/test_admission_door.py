"""Who may come in without a key: a program on this machine, and nothing that only looks so."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import VirtualRun
from forebay.admission import door
from forebay.admission.keys import Keyring, compose
from forebay.dialects import headers
from forebay.errors import Failure
from forebay.exchange import Exchange, Headers, Tenant
from forebay.testbed.virtual import VirtualWorld
from pipeline_kit import KEY, PEPPER, chat, gateway, key_row, request

LOCAL_PEERS = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::1%lo", ""]
FOREIGN_PEERS = [
    "10.0.0.1",
    "192.168.1.5",
    "8.8.8.8",
    "0.0.0.0",
    "::",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "2001:db8::1",
    "localhost",
    "nonsense",
]
LOCAL_HOSTS = [
    "localhost",
    "LOCALHOST",
    "localhost:8080",
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.1.2.3:1",
    "[::1]",
    "[::1]:8080",
    "[0:0:0:0:0:0:0:1]:8080",
]
FOREIGN_HOSTS = [
    "",
    ":8080",
    "example.com",
    "localhost.evil.com",
    "localhost.evil.com:8080",
    "evil-localhost",
    "127.0.0.1.nip.io",
    "127.0.0.1.evil.com:8080",
    "localtest.me",
    "evil.com#localhost",
    "evil.com?localhost",
    "evil.com/localhost",
    "localhost/evil.com",
    "localhost@evil.com",
    "localhost:80@evil.com",
    "user@localhost",
    "127.0.0.1@evil.com",
    "localhost\tevil.com",
    "localhost evil.com",
    "localhost,evil.com",
    "localhost:",
    "localhost:http",
    "localhost:999999",
    "localhost:80:80",
    "localhost.",  # DNS may be asked for it
    "2130706433",  # 127.0.0.1 as one number, as octal, as hex, in short: what a resolver reads
    "017700000001",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.01",
    "0x7f.0.0.1",
    "127.1",
    "127.0.0.1.",
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "192.168.0.1:8080",
    "[::ffff:10.0.0.1]",
    "[fe80::1]",
    "[::1",
    "::1",
    "[::1]evil.com",
    "[::1%25evil.com]",
    "[localhost]evil",
    "ｌocalhost",
    "loc\xadalhost",
]
FOREIGN_ORIGINS = [
    "null",
    "",
    "localhost",
    "//localhost",
    "file://",
    "file://localhost",
    "chrome-extension://abcdefgh",
    "ws://localhost",
    "javascript://localhost",
    "https://evil.com",
    "http://localhost.evil.com:3000",
    "http://127.0.0.1.nip.io",
    "http://evil.com:8080",
    "http://localhost:3000, https://evil.com",
    "https://localhost@evil.com",
    "http://2130706433",
    "http://localhost:3000/path",
    "HTTP://localhost",
    "http://http://localhost",
]
LOCAL_ORIGINS = ["http://localhost", "http://localhost:3000", "https://127.0.0.1", "http://[::1]:5"]
PROXY_HEADERS = [
    "forwarded: for=1.2.3.4",
    "forwarded:",
    "via: 1.1 proxy",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: localhost",
    "x-forwarded-proto: https",
    "x-forwarded-anything: x",
    "X-Forwarded-For: 1",
]
JSON_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/json ;x=y",
    "application/vnd.api+json",
]
OTHER_TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain;application/json",
    "text/json",
    "application/jsonp",
    "application/+jsonx",
    "x-application/json",
    "text/plain, application/json",
]


def exchange(peer: str = "127.0.0.1", method: str = "POST", *lines: str) -> Exchange:
    """A request as the app makes it of what came."""
    sent: Headers = []
    for line in lines:
        name, _, value = line.partition(":")
        sent.append((name.lower().encode(), value.strip(" ").encode("utf-8")))
    head = headers.read(sent, "openai")
    return Exchange("req_1", 0, 10, method, "/", "", head, peer)


def identify(x: Exchange, required: bool = False, keys: tuple[str, ...] = (KEY,)) -> Tenant:
    ring = Keyring(PEPPER)
    ring.load([key_row(key) for key in keys])
    return door.identify(ring, required, x)


def refused(x: Exchange, required: bool = False) -> Failure:
    with pytest.raises(Failure) as caught:
        identify(x, required)
    return caught.value


GOOD = ("host: localhost", "content-type: application/json")


# -- addresses and names ---------------------------------------------------------------------


@pytest.mark.parametrize("peer", LOCAL_PEERS)
def test_an_address_of_this_machine(peer: str) -> None:
    assert door.is_loopback(peer)
    assert identify(exchange(peer, "POST", *GOOD)) == Tenant()


@pytest.mark.parametrize("peer", FOREIGN_PEERS)
def test_any_other_address_needs_a_key(peer: str) -> None:
    assert not door.is_loopback(peer)
    assert refused(exchange(peer, "POST", *GOOD)).code.name == "missing_key"


@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_a_local_host(host: str) -> None:
    assert door.is_local_name(host)
    assert identify(exchange("127.0.0.1", "POST", f"host: {host}", GOOD[1])) == Tenant()


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_host_that_dns_may_decide_on_needs_a_key(host: str) -> None:
    assert not door.is_local_name(host)
    failure = refused(exchange("127.0.0.1", "POST", f"host: {host}", GOOD[1]))
    assert failure.code.name == "foreign_origin"
    assert "Host" in str(failure)
    assert "forebay keys create" in str(failure)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_name_is_judged(host: str) -> None:
    """What counts as local is one of three spellings, each with at most a port."""
    if door.is_local_name(host):
        name, _, port = host.removeprefix("[").partition("]" if host.startswith("[") else ":")
        assert name.lower() == "localhost" or door.is_loopback(name)
        assert port.lstrip(":") == "" or port.lstrip(":").isdecimal()


def test_without_a_host_it_is_no_browser() -> None:
    """HTTP/1.0 of an old script; a browser always sends one."""
    assert identify(exchange("127.0.0.1", "POST", GOOD[1])) == Tenant()


@pytest.mark.parametrize(
    "lines",
    [
        ("host: localhost", "host: localhost"),
        ("host: evil.com", "host: localhost"),
        ("host: localhost", "host: evil.com"),
        # other headers that come twice must not hide the second host
        ("host: evil.com", "host: localhost", "accept: a", "accept: b"),
        ("accept: a", "accept: b", "host: evil.com", "host: localhost"),
    ],
)
def test_two_hosts_are_none(lines: tuple[str, ...]) -> None:
    failure = refused(exchange("127.0.0.1", "POST", *lines, GOOD[1]))
    assert failure.code.name == "bad_request"
    assert "two Host headers" in str(failure)


@pytest.mark.parametrize("origin", LOCAL_ORIGINS)
def test_a_page_of_this_machine(origin: str) -> None:
    assert identify(exchange("127.0.0.1", "POST", *GOOD, f"origin: {origin}")) == Tenant()


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_page_needs_a_key(origin: str, method: str) -> None:
    failure = refused(exchange("127.0.0.1", method, *GOOD, f"origin: {origin}"))
    assert failure.code.name == "foreign_origin"
    assert "Origin" in str(failure)


@pytest.mark.parametrize("line", PROXY_HEADERS)
def test_who_comes_through_a_proxy_needs_a_key(line: str) -> None:
    """Behind a proxy on this machine the whole world has a local address."""
    failure = refused(exchange("127.0.0.1", "POST", *GOOD, line))
    assert failure.code.name == "foreign_origin"
    assert line.partition(":")[0].lower() in str(failure)


@pytest.mark.parametrize("kind", JSON_TYPES)
def test_json_is_what_a_browser_asks_first_for(kind: str) -> None:
    lines = ("host: localhost", f"content-type: {kind}")
    assert identify(exchange("127.0.0.1", "POST", *lines)) == Tenant()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_what_a_form_can_send_needs_a_key(method: str, kind: str) -> None:
    lines = [f"content-type: {kind}"] if kind else []  # none at all: a form of old
    failure = refused(exchange("127.0.0.1", method, "host: localhost", *lines))
    assert failure.code.name == "bad_content_type"


def test_a_request_without_a_body_needs_no_type() -> None:
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        assert identify(exchange("127.0.0.1", method, "host: localhost")) == Tenant()


def test_what_was_found_local_as_one_thing_is_not_local_as_another() -> None:
    """Answers are remembered; they must not depend on what was asked before."""
    for host, origin in itertools.product(("localhost:77", "127.0.0.77"), ("", "http://")):
        identify(exchange("127.0.0.1", "POST", f"host: {host}", GOOD[1]))
        identify(exchange("127.0.0.1", "POST", *GOOD, f"origin: http://{host}"))
        both = exchange("127.0.0.1", "POST", f"host: http://{host}", GOOD[1])
        assert refused(both).code.name == "foreign_origin"
        if not origin:
            bare = exchange("127.0.0.1", "POST", *GOOD, f"origin: {host}")
            assert refused(bare).code.name == "foreign_origin"


def test_what_is_remembered_is_bounded() -> None:
    for port in range(2_000):
        identify(exchange("127.0.0.1", "POST", f"host: localhost:{port}", GOOD[1]))
        identify(exchange("127.0.0.1", "POST", *GOOD, f"origin: http://localhost:{port}"))
    assert len(door._local_hosts) <= 256
    assert len(door._local_origins) <= 256


# -- keys ------------------------------------------------------------------------------------

BAD_KEY = compose(b"x" * 32)
SPELLINGS = [
    "authorization: Bearer {}",
    "Authorization: bearer  {}",
    "x-api-key: {}",
    "api-key: {}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize("required", [False, True])
def test_a_good_key_says_who_it_is(spelling: str, peer: str, required: bool) -> None:
    x = exchange(peer, "POST", *GOOD, spelling.format(KEY))
    assert identify(x, required).project == "web"


@pytest.mark.parametrize(
    "line", ["host: evil.com", "origin: https://evil.com", "via: 1.1 x", "content-type: text/plain"]
)
def test_with_a_good_key_it_does_not_matter_where_one_comes_from(line: str) -> None:
    x = exchange("127.0.0.1", "POST", line, f"authorization: Bearer {KEY}")
    assert identify(x).project == "web"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", ["sk-of-an-sdk", "none", BAD_KEY, KEY[:-1]])
def test_here_a_key_that_is_none_of_ours_is_ignored(spelling: str, key: str) -> None:
    """SDKs always send something; but it opens no door that would be closed without it."""
    line = spelling.format(key)
    assert identify(exchange("127.0.0.1", "POST", *GOOD, line)) == Tenant()
    foreign = exchange("127.0.0.1", "POST", "host: evil.com", GOOD[1], line)
    assert refused(foreign).code.name == "foreign_origin"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", ["sk-of-an-sdk", BAD_KEY, KEY[:-1]])
@pytest.mark.parametrize(("peer", "required"), [("127.0.0.1", True), ("10.0.0.1", False)])
def test_elsewhere_a_key_that_is_none_of_ours_is_refused_and_not_repeated(
    spelling: str, key: str, peer: str, required: bool
) -> None:
    failure = refused(exchange(peer, "POST", *GOOD, spelling.format(key)), required)
    assert failure.code.name == "bad_key"
    assert key not in str(failure)
    assert key not in repr(failure)


def test_the_first_of_the_places_for_a_key_counts() -> None:
    x = exchange("10.0.0.1", "POST", *GOOD, f"authorization: Bearer {BAD_KEY}", f"x-api-key: {KEY}")
    assert refused(x).code.name == "bad_key"
    basic = exchange("10.0.0.1", "POST", *GOOD, "authorization: Basic eDp5", f"x-api-key: {KEY}")
    assert identify(basic).project == "web"


# -- through a data plane --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "lines", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.0.0.1", {"origin": "http://localhost:3000"}, 200),
        ("127.0.0.1", {"origin": "https://evil.com"}, 403),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
        ("127.0.0.1", {"authorization": f"Bearer {KEY}", "origin": "https://evil.com"}, 200),
        ("127.0.0.1", {"authorization": "Bearer anything"}, 200),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "evil.com"])
def test_the_door_of_a_gateway(
    virtual: VirtualRun, peer: str, lines: dict[str, str], status: int, host: str
) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, keys=[key_row()]) as gate:
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
                client = await gate.client()
                body = chat() if method == "POST" else None
                client.send(request(path, body, lines, method, host))
                reply = await client.reply(method)
                keyed = KEY in lines.get("authorization", "")
                assert reply.status == (status if host == "localhost" or keyed else 403)
                # A page that was let in by mistake must not read the answer either.
                assert reply.header("access-control-allow-origin") is None
                client.leave()

    virtual(main)
