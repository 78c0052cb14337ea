"""The response reader against h11, however the bytes arrive, and against hostile bytes.

Everything runs through the pool over the network of virtual time: a provider writes the
pieces, the reader relays what it understands.
"""

import asyncio
import gzip
import re
import zlib
from collections.abc import Sequence

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeding import CUTS, cut, feeds
from forebay.testbed.virtual import VirtualWorld, run
from forebay.wire.pool import Target
from forebay.wire.upstream import MAX_HEAD_BYTES, MAX_HEADERS
from upstreams import REQUEST, SILENCE, Answer, Outcome, Provider, ask, clocks, ok

IDLE_S = 3.0  # how long the reader waits for more before the test says "it wants more"


def read(
    pieces: Sequence[bytes], method: str = "GET", closes: bool = False
) -> tuple[Outcome, bool]:
    """How the reader takes these pieces, and whether it keeps the connection for the next."""

    async def main(world: VirtualWorld) -> tuple[Outcome, bool]:
        async with Provider([Answer(pieces, "close" if closes else "")]) as provider:
            target = Target(world, provider.origin())
            limits = clocks(first_s=IDLE_S, idle_s=IDLE_S)
            seen = await ask(world, target, method, limits=limits)
            await asyncio.sleep(0.001)  # what follows has then arrived
            kept = target.live == 1
            target.close()
            return seen, kept

    return run(main)


class Reference:
    """What h11 makes of the same bytes."""

    def __init__(self, data: bytes, method: str, closes: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.refused = False
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=10_000_000)
        wire.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        wire.send(h11.EndOfMessage())
        try:
            wire.receive_data(data)
            while self._take(wire.next_event()):
                pass
            if closes and not self.complete:
                wire.receive_data(b"")
                while self._take(wire.next_event()):
                    pass
        except h11.RemoteProtocolError:
            self.refused = True
        self.reusable = self.complete and wire.our_state is wire.their_state is h11.DONE
        self.trailing = wire.trailing_data[0] if self.complete else b""

    def _take(self, event: object) -> bool:
        match event:
            case h11.Response():
                self.status = event.status_code
                self.headers = [(bytes(k), bytes(v)) for k, v in event.headers]
            case h11.Data():
                self.body += event.data
            case h11.EndOfMessage():
                self.complete = True
        going_on = (h11.InformationalResponse, h11.Response, h11.Data)
        return isinstance(event, going_on)


# -- valid answers --------------------------------------------------------------------------

NAMES = st.sampled_from([b"x-a", b"X-Request-Id", b"Date", b"server", b"Set-Cookie", b"x-1_~"])
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
PAIRS = st.lists(
    st.tuples(
        NAMES,
        st.one_of(TEXT.map(lambda t: t.strip().encode()), st.just(b"caf\xe9"), st.just(b"a\tb")),
    ),
    max_size=5,
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"data: x\n\n" * 3]),
)
SPACE = st.sampled_from([b"", b" ", b"  ", b"\t"])


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """One of the ways to send a body in chunks, with extensions and trailers."""
    extension = st.sampled_from([b"", b"", b";a=b", b';q="x y"', b";a;b=1"])
    out = b""
    for piece in cut(body, [at % (len(body) + 1) for at in draw(CUTS)]):
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x", b"000%x"])) % len(piece)
        out += size + draw(extension) + b"\r\n" + piece + b"\r\n"
    out += draw(st.sampled_from([b"0", b"000"])) + draw(extension) + b"\r\n"
    for name, value in draw(st.one_of(st.just([]), PAIRS)):
        out += name + b": " + value + b"\r\n"
    return out + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """The method asked with, the bytes of a valid answer, whether the connection then closes."""
    method = draw(st.sampled_from(["GET", "POST", "POST", "HEAD"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 304, 400, 404, 429, 500, 529]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" Not So Good"]))
    lines = [b"HTTP/" + version + b" %d" % status + reason]
    pairs = list(draw(PAIRS))
    connection = draw(st.sampled_from([b"", b"", b"close", b"keep-alive", b"Close", b"x, close"]))
    if connection:
        pairs.append((draw(st.sampled_from([b"Connection", b"connection"])), connection))
    body = draw(BODIES)
    framings = ["length", "close"] if version == b"1.0" else ["length", "chunked", "close"]
    framing = draw(st.sampled_from(framings))
    bodiless = method == "HEAD" or status in (204, 304)
    if bodiless and framing == "chunked" and method != "HEAD":
        framing = "length"
    if framing == "length":
        name = draw(st.sampled_from([b"Content-Length", b"content-length"]))
        pairs.append((name, b"%d" % len(body)))
    elif framing == "chunked":
        name = draw(st.sampled_from([b"Transfer-Encoding", b"transfer-encoding"]))
        pairs.append((name, b"chunked"))
    for name, value in draw(st.permutations(pairs)):
        after = b"" if name.lower() == b"transfer-encoding" else draw(SPACE)
        lines.append(name + b":" + draw(SPACE) + value + after)
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    if not bodiless:
        data += draw(chunked(body)) if framing == "chunked" else body
    interim = b""
    if version == b"1.1":
        for code in draw(st.lists(st.sampled_from([100, 102, 103]), max_size=2)):
            interim += b"HTTP/1.1 %d Wait\r\n" % code
            interim += b"".join(n + b": " + v + b"\r\n" for n, v in draw(PAIRS)) + b"\r\n"
    closes = draw(st.booleans()) or (framing == "close" and not bodiless)
    return method, interim + data, closes


@settings(max_examples=40000, deadline=None)
@given(answer=answers(), cuts=CUTS)
def test_a_valid_answer_is_read_as_h11_reads_it(
    answer: tuple[str, bytes, bool], cuts: list[int]
) -> None:
    method, data, closes = answer
    expected = Reference(data, method, closes)
    assert expected.complete
    assert not expected.trailing
    for chunks in feeds(data, cuts):
        seen, kept = read(chunks, method, closes)
        assert seen.brief() == (expected.status, expected.headers, expected.body, "")
        if closes or method == "HEAD":  # HEAD: the parser would wait for the body announced
            assert not kept
        elif data.rpartition(b"HTTP/")[2].startswith(b"1.0") or b"HTTP/1.0" in data[:8]:
            assert kept <= (b"keep-alive" in data)
        else:
            assert kept == expected.reusable


@settings(max_examples=40000, deadline=None)
@given(answer=answers(), cuts=CUTS, place=st.integers(0, 10_000))
def test_an_answer_cut_short_is_never_taken_for_complete(
    answer: tuple[str, bytes, bool], cuts: list[int], place: int
) -> None:
    method, data, _ = answer
    data = data[: place % len(data)]
    expected = Reference(data, method, closes=True)
    for chunks in feeds(data, cuts):
        seen, kept = read(chunks, method, closes=True)
        assert not kept
        assert (seen.error == "") == expected.complete
        if not expected.complete:
            assert seen.error == ("truncated" if seen.status else "reset")
            assert seen.answered == (data != b"")
        assert seen.body == expected.body


@settings(max_examples=40000, deadline=None)
@given(
    answer=answers().filter(lambda a: not a[2]),
    trailing=st.one_of(
        st.just(ok(b"smuggled", b"x-evil: 1")),
        st.just(b"HTTP/1.1 500 No\r\n"),
        st.just(b"H"),
        st.binary(min_size=1, max_size=20),
    ),
    cuts=CUTS,
)
def test_what_follows_an_answer_is_no_part_of_it_and_costs_the_connection(
    answer: tuple[str, bytes, bool], trailing: bytes, cuts: list[int]
) -> None:
    method, data, _ = answer
    expected = Reference(data, method, closes=False)
    for chunks in feeds(data, cuts, trailing):
        seen, kept = read(chunks, method)
        assert seen.brief() == (expected.status, expected.headers, expected.body, "")
        # Empty lines before an answer are to be ignored (RFC 9112, 2.2), so these are harmless.
        assert not kept or not trailing.strip(b"\r\n")


# -- hostile bytes --------------------------------------------------------------------------

KINDS = {"", "reset", "protocol", "truncated", "too_large", "idle_timeout", "first_byte_timeout"}
POISON = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\x00", b"\x7f", b"\x80"),
        *(b":", b";", b",", b"0", b"f", b"-1", b"+1", b"99999999999999999999", b"HTTP/1.1 "),
        *(
            b"Content-Length: 1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n folded",
            b"X : y\r\n",
        ),
        *(b"Transfer-Encoding: gzip\r\n", b"Content-Encoding: gzip\r\n", b"Upgrade: x\r\n"),
        b"Connection: upgrade\r\n",
    ]
)


ONE_HEAD = re.compile(rb"[\r\n]*(HTTP/1\.[01] (\d{3}))[^\r\n]*(\r\n(?:.*?\r\n)??\r\n)", re.DOTALL)


def plain(data: bytes) -> bytes:
    """Less what may be as odd as it likes, for nothing is made of it: line ends before an
    answer, and the reason phrase."""
    out = b""
    while head := ONE_HEAD.match(data):
        out += head[1] + b" " + head[3]
        data = data[head.end() :]
        if head[2] >= b"200":
            break
    return out + data


def check_hostile(data: bytes, method: str, cuts: list[int], closes: bool) -> None:
    """No failure but the documented ones, the same however it is fed, and never a complete
    answer where h11 sees none or another one."""
    expected = Reference(data, method, closes)
    if expected.refused:
        expected = Reference(plain(data), method, closes)
    outcomes = []
    for chunks in [cut(data, ()), cut(data, range(len(data))), cut(data, cuts)]:
        seen, kept = read(chunks, method, closes)
        assert seen.error in KINDS
        if kept:
            assert seen.error == ""
        if seen.error == "":
            assert not expected.refused or expected.complete
            assert expected.complete
            assert (seen.status, seen.body) == (expected.status, expected.body)
        outcomes.append((seen.error, seen.status, seen.body if seen.error == "" else b""))
    assert len(set(outcomes)) == 1


@settings(max_examples=40000, deadline=None)
@given(
    answer=answers(),
    places=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    poison=POISON,
    drop=st.integers(0, 4),
    cuts=CUTS,
)
def test_a_broken_answer_is_refused_in_words(
    answer: tuple[str, bytes, bool], places: list[int], poison: bytes, drop: int, cuts: list[int]
) -> None:
    method, data, closes = answer
    for place in places:
        at = place % (len(data) + 1)
        data = data[:at] + poison + data[at + drop :]
    check_hostile(data, method, [at % (len(data) + 1) for at in cuts], closes)


@settings(max_examples=40000, deadline=None)
@given(data=st.binary(max_size=100), closes=st.booleans())
@example(b"HTTP/1.1 200 OK\r\n\r\n", False)
@example(b"", True)
def test_any_bytes_are_refused_in_words(data: bytes, closes: bool) -> None:
    check_hostile(data, "GET", [], closes)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data",
    [
        # Two lengths, or a length and chunks: two readers may see two different answers.
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        HEAD + b"Content-Length: 2, 2\r\n\r\nok",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +2\r\n\r\nok",
        HEAD + b"Content-Length: -2\r\n\r\nok",
        HEAD + b"Content-Length: 0x2\r\n\r\nok",
        HEAD + b"Content-Length: \r\n\r\nok",
        HEAD + b"Content-Length: 18446744073709551616\r\n\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n",
        # Lines that end in a bare LF, a folded header, spaces where none may be.
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        HEAD + b"X: a\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length: 2\r\n\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
        HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Content-Length : 2\r\n\r\nok",
        HEAD + b" Content-Length: 2\r\n\r\nok",
        HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"X\x00: ab\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"X: a\rb\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b": nameless\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"no colon\r\nContent-Length: 2\r\n\r\nok",
        # Not an answer of HTTP/1.
        b"ICY 200 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nwhatever",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",  # TLS where plain text was expected
    ],
    ids=lambda data: repr(data.replace(HEAD, b"")[:40]),
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    for chunks in [[data], cut(data, range(len(data)))]:
        seen, kept = read(chunks)
        assert (seen.error, kept) == ("protocol", False)
        assert seen.message
        assert seen.answered


def test_an_answer_in_a_coding_nobody_asked_for_is_refused() -> None:
    """Without `chunked` at the end there is no telling where such a body ends; and a reader
    that overlooks the tab would."""
    codings = (b"gzip", b"chunked, gzip", b"gzip, chunked", b"identity", b"chunked\t", b"")
    for coding in codings:
        data = HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for chunks in ([data], cut(data, range(len(data)))):
            seen, kept = read(chunks, closes=True)
            assert (seen.error, seen.status, kept) == ("protocol", 0, False)


def test_a_coding_may_be_spelled_in_capitals() -> None:
    data = HEAD + b"Transfer-Encoding: CHUNKED \r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert read([data])[0].body == b"ok"


@pytest.mark.parametrize("place", ["head", "interim", "trailer"])
def test_headers_are_bounded_in_number_and_size(place: str) -> None:
    before = {"head": HEAD, "interim": b"HTTP/1.1 103 Early\r\n"}.get(
        place, HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    )
    floods = {
        "many": b"a: b\r\n" * 100_000,
        "long": b"a: " + b"b" * 600_000 + b"\r\n",
        "name": b"a" * 600_000 + b": b\r\n",
    }
    for name, flood in floods.items():
        data = before + flood
        for size in (1000, 60_000):
            seen, kept = read(cut(data, range(0, len(data), size)))
            assert (name, seen.error, kept) == (name, "protocol", False)
            assert str(MAX_HEAD_BYTES) in seen.message or str(MAX_HEADERS) in seen.message


def test_interim_answers_without_end_are_refused() -> None:
    data = b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000
    seen, _ = read(cut(data, range(0, len(data), 4096)))
    assert seen.error == "protocol"


def test_chunk_extensions_without_end_are_refused() -> None:
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 500_000
    seen, _ = read(cut(data, range(0, len(data), 4096)))
    assert seen.error == "protocol"


def test_as_many_headers_as_are_allowed_pass() -> None:
    pairs = b"".join(b"x-%d: y\r\n" % n for n in range(MAX_HEADERS - 1))
    data = HEAD + pairs + b"Content-Length: 2\r\n\r\nok"
    assert read([data])[0].body == b"ok"
    assert read([data.replace(b"x-0:", b"x: y\r\nx-0:")])[0].error == "protocol"


def test_a_long_stream_of_small_chunks_is_no_flood() -> None:
    piece = b"1\r\nx\r\n"
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 30_000 + b"0\r\n\r\n"
    for size in (7, 65_536):
        seen, kept = read(cut(data, range(0, len(data), size)))
        assert (len(seen.body), seen.error, kept) == (30_000, "", True)


def test_trailers_do_not_pass_for_headers() -> None:
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ncontent-type: evil\r\n\r\n"
    for chunks in feeds(data):
        seen, kept = read(chunks)
        assert seen.brief() == (200, [(b"transfer-encoding", b"chunked")], b"ok", "")
        assert kept


# -- compression nobody asked for -----------------------------------------------------------


def compressed(body: bytes, coding: str, framing: str, cut_off: int = 0) -> bytes:
    data = gzip.compress(body) if coding.endswith("gzip") else zlib.compress(body)
    data = data[: len(data) - cut_off]
    head = HEAD + b"Content-Encoding: " + coding.encode() + b"\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(data) + data
    if framing == "chunked":
        return (
            head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
        )
    return head + b"\r\n" + data


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_compressed_unasked_is_inflated(coding: str, framing: str) -> None:
    body = b"data: hello\n\n" * 50
    data = compressed(body, coding.lower(), framing).replace(
        coding.lower().encode(), coding.encode(), 1
    )
    for chunks in ([data], cut(data, range(len(data)))):
        seen, _ = read(chunks, closes=framing == "close")
        assert (seen.body, seen.error) == (body, "")


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_compressed_data_that_ends_too_early_is_truncated(framing: str) -> None:
    data = compressed(b"data: hello\n\n" * 50, "gzip", framing, cut_off=5)
    for chunks in ([data], cut(data, range(len(data)))):
        assert read(chunks, closes=True)[0].error == "truncated"


def test_a_compression_bomb_is_refused() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(bomb.compress(bytes(1_000_000)) for _ in range(200)) + bomb.flush()
    assert len(data) < 300_000
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data)

    async def main(world: VirtualWorld) -> None:
        async with Provider([Answer([head + data])]) as provider:
            target = Target(world, provider.origin())
            call = await target.call("GET", REQUEST, b"", clocks())
            with pytest.raises(Exception, match="over") as caught:
                await call.read_all()
            assert caught.value.kind == "too_large"  # type: ignore[attr-defined]
            assert target.live == 0

    run(main)


def test_broken_compression_is_refused() -> None:
    data = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"
    assert read([data])[0].error == "protocol"


# -- what came before a failure -------------------------------------------------------------


def test_what_came_before_a_failure_is_handed_over() -> None:
    chunk = b"9\r\ndata: x\n\n\r\n"
    for end in (b"zz\r\n", b"", b"9\r\ndata"):
        data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk + end
        for chunks in ([data], cut(data, range(len(data)))):
            seen, _ = read(chunks, closes=True)
            assert seen.error in ("protocol", "truncated")
            assert seen.body.startswith(b"data: x\n\n" * 2)


def test_silence_is_not_an_answer() -> None:
    async def main(world: VirtualWorld) -> None:
        async with Provider([SILENCE]) as provider:
            target = Target(world, provider.origin())
            seen = await ask(world, target, limits=clocks(first_s=2.0))
            assert (seen.error, seen.answered) == ("first_byte_timeout", False)
            assert seen.took_ns == 2_000_000_000
            assert target.live == 0

    run(main)
