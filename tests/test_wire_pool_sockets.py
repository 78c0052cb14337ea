"""The pool over real sockets, as deployed (uvloop): TLS verified, proxies, what a kernel does.

What needs no TLS is tested in virtual time, in test_wire_pool.py.
"""

import asyncio
import datetime
import re
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trustme

from forebay.wire.pool import Origin, Proxy, Target
from forebay.world import RealWorld
from upstreams import HOST, REQUEST, SILENCE, Answer, Provider, ask, clocks, ok

Real = Callable[[Coroutine[Any, Any, None]], None]

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """The default context, and one more authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# -- TLS ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", HOST])
def test_a_certificate_of_a_trusted_authority_is_accepted(
    real: Real, authority: trustme.CA, name: str
) -> None:
    async def main() -> None:
        world = RealWorld()
        tls = served(authority.issue_cert(name))
        body = bytes(range(256)) * 1000
        async with Provider([Answer([ok(body)])], tls=tls) as provider:
            target = Target(world, provider.origin(name, trusting(authority)))
            for _ in range(3):
                seen = await ask(world, target)
                assert (seen.body, seen.error) == (body, "")
            assert provider.accepted == 1  # kept alive
            target.close()

    real(main())


@pytest.mark.parametrize(
    ("names", "expires_days", "trusted", "words"),
    [
        (["localhost"], 1, False, r"unable to get local issuer|self.signed"),
        (["elsewhere.test"], 1, True, "[Hh]ostname mismatch"),
        (["localhost"], -1, True, "expired"),
    ],
    ids=["unknown authority", "another host", "expired"],
)
def test_what_cannot_be_verified_is_refused_by_default(
    real: Real,
    authority: trustme.CA,
    names: list[str],
    expires_days: int,
    trusted: bool,
    words: str,
) -> None:
    async def main() -> None:
        world = RealWorld()
        certificate = authority.issue_cert(
            *names,
            not_before=NOW - datetime.timedelta(days=2),
            not_after=NOW + datetime.timedelta(days=expires_days),
        )
        context = trusting(authority) if trusted else ssl.create_default_context()
        async with Provider(tls=served(certificate)) as provider:
            target = Target(world, provider.origin("localhost", context))
            seen = await ask(world, target)
            assert (seen.error, seen.answered) == ("tls", False)
            assert re.search(words, seen.message)
            assert target.live == 0
            assert provider.peers == []  # nothing was sent to it

    real(main())


def test_tls_to_a_server_that_speaks_none(real: Real, authority: trustme.CA) -> None:
    async def main() -> None:
        world = RealWorld()
        async with Provider([Answer([ok()])]) as provider:

            async def talk() -> None:
                await provider.has_peers(1)
                provider.peers[0].transport.write(b"HTTP/1.1 400 Plain text, please\r\n\r\n")

            talking = asyncio.create_task(talk())
            target = Target(world, provider.origin("localhost", trusting(authority)))
            seen = await ask(world, target)
            assert (seen.error, seen.answered, target.live) == ("tls", False, 0)
            await talking

    real(main())


def test_a_server_silent_in_the_handshake_ends_with_the_connect_clock(
    real: Real, authority: trustme.CA
) -> None:
    async def main() -> None:
        world = RealWorld()
        async with Provider([SILENCE]) as provider:
            target = Target(world, provider.origin("localhost", trusting(authority)))
            seen = await ask(world, target, limits=clocks(connect_s=0.2))
            assert (seen.error, seen.answered, target.live) == ("connect_timeout", False, 0)
            assert seen.took_ns >= 150_000_000  # uvloop's timers are a little early, or late

    real(main())


def test_a_call_given_up_closes_the_tls_connection(real: Real, authority: trustme.CA) -> None:
    async def main() -> None:
        world = RealWorld()
        tls = served(authority.issue_cert("localhost"))
        async with Provider([SILENCE], tls=tls) as provider:
            target = Target(world, provider.origin("localhost", trusting(authority)))
            asking = asyncio.create_task(ask(world, target))
            await provider.was_asked(1)
            asking.cancel()
            await asyncio.wait([asking])
            await provider.peers[0].lost.wait()
            assert target.live == 0

    real(main())


def test_a_paused_call_pauses_the_provider_through_tls(real: Real, authority: trustme.CA) -> None:
    async def main() -> None:
        world = RealWorld()
        size = 30_000_000
        tls = served(authority.issue_cert("localhost"))
        async with Provider([Answer([ok(bytes(size))])], [Answer([ok()])], tls=tls) as provider:
            target = Target(world, provider.origin("localhost", trusting(authority)))
            call = await target.call("GET", REQUEST, b"", clocks())
            arrived = 0

            def sink(piece: bytes) -> None:
                nonlocal arrived
                arrived += len(piece)

            call.pause()
            relaying = asyncio.create_task(call.relay(sink))
            for _ in range(100):  # others go on meanwhile, for longer than 30 MB would take
                assert (await ask(world, target)).body == b"ok"
            assert arrived < size / 2
            call.resume()
            await relaying
            assert arrived == size
            target.close()

    real(main())


# -- proxies --------------------------------------------------------------------------------


class Tunnels:
    """A CONNECT proxy that asks for a password; names resolve at its end."""

    def __init__(self, hosts: dict[str, int], password: bytes = b"Basic dXNlcjpwQHNz") -> None:
        self.hosts = hosts
        self.password = password
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Tunnels":
        self.server = await asyncio.start_server(self.serve, HOST, 0)
        self.port: int = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if b"proxy-authorization: " + self.password not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        port = self.hosts[head.split()[1].decode()]
        there_reader, there_writer = await asyncio.open_connection(HOST, port)
        self.writers.append(there_writer)
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: tunnels\r\n\r\n")
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            self.tasks.append(asyncio.create_task(self.pipe(source, sink)))

    async def pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()


def test_tls_through_a_proxy_is_verified_against_the_provider(
    real: Real, authority: trustme.CA
) -> None:
    async def main() -> None:
        world = RealWorld()
        tls = served(authority.issue_cert("api.test"))
        async with (
            Provider([Answer([ok(b"through the tunnel")])], tls=tls) as provider,
            Tunnels({"api.test:443": provider.port, "other.test:443": provider.port}) as tunnels,
        ):
            proxy = Proxy(HOST, tunnels.port, "Basic dXNlcjpwQHNz")
            target = Target(world, Origin("api.test", 443, trusting(authority), proxy))
            for _ in range(2):
                seen = await ask(world, target)
                assert (seen.body, seen.error) == (b"through the tunnel", "")
            assert provider.accepted == 1
            assert tunnels.heads[0].startswith(b"CONNECT api.test:443 HTTP/1.1\r\n")
            assert b"host: api.test:443\r\n" in tunnels.heads[0]
            target.close()

            other = Target(world, Origin("other.test", 443, trusting(authority), proxy))
            seen = await ask(world, other)
            assert (seen.error, other.live) == ("tls", 0)
            assert "mismatch" in seen.message

            stranger = Target(world, Origin("api.test", 443, ssl.create_default_context(), proxy))
            seen = await ask(world, stranger)
            assert (seen.error, stranger.live) == ("tls", 0)

            wrong = Proxy(HOST, tunnels.port, "Basic wrong")
            refused = Target(world, Origin("api.test", 443, trusting(authority), wrong))
            seen = await ask(world, refused)
            assert (seen.error, refused.live) == ("proxy", 0)
            assert "407" in seen.message

    real(main())


def test_plain_http_through_a_proxy(real: Real) -> None:
    async def main() -> None:
        world = RealWorld()
        async with Provider([Answer([ok(b"from the proxy")])]) as proxy:
            origin = Origin("no-such-name.invalid", 80, None, Proxy(HOST, proxy.port))
            target = Target(world, origin)
            head = b"GET http://no-such-name.invalid/v1 HTTP/1.1\r\nhost: x\r\n\r\n"
            for _ in range(2):
                assert (await ask(world, target, head=head)).body == b"from the proxy"
            assert proxy.peers[0].received == head * 2
            target.close()

    real(main())


# -- what only a kernel does ----------------------------------------------------------------


def test_nobody_there_is_refused(real: Real) -> None:
    async def main() -> None:
        world = RealWorld()
        async with Provider() as provider:
            origin = provider.origin()
        target = Target(world, origin)
        seen = await ask(world, target)
        assert (seen.error, seen.answered, target.live) == ("refused", False, 0)

    real(main())


@pytest.mark.parametrize("name", ["no-such-name.invalid", "a..b", "x" * 64 + ".test", "."])
def test_names_that_do_not_resolve(real: Real, name: str) -> None:
    async def main() -> None:
        world = RealWorld()
        target = Target(world, Origin(name, 80))
        seen = await ask(world, target)
        assert (seen.error, seen.answered, target.live) == ("dns", False, 0)

    real(main())


def test_a_provider_that_resets_as_it_accepts_costs_no_place(real: Real) -> None:
    async def main() -> None:
        world = RealWorld()
        async with Provider() as provider:
            target = Target(world, provider.origin(), limit=2)

            async def slam() -> None:
                for number in range(1, 31):
                    await provider.has_peers(number)
                    provider.peers[number - 1].transport.abort()

            slamming = asyncio.create_task(slam())
            for _ in range(30):
                seen = await ask(world, target, limits=clocks(first_s=5))
                assert seen.error in ("", "reset")
                if seen.error == "":  # the answer was faster than the abort
                    target.close()
            assert target.live == 0
            await slamming

    real(main())


def test_a_large_body_both_ways(real: Real) -> None:
    async def main() -> None:
        world = RealWorld()
        body = b"y" * 5_000_000
        async with Provider([Answer([ok(bytes(7_000_000))])]) as provider:
            target = Target(world, provider.origin())
            asking = asyncio.create_task(ask(world, target, "POST", body=body + b"\r\n\r\n"))
            await provider.was_asked(2)  # the head, and the end of the body, which looks like one
            seen = await asking
            assert (len(seen.body), seen.error) == (7_000_000, "")
            assert provider.peers[0].received == REQUEST + body + b"\r\n\r\n"

    real(main())
