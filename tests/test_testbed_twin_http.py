"""A twin as an HTTP server and as something with a state that can be asked."""

import asyncio
import json
import ssl

import pytest
import trustme

from conftest import RealRun, VirtualRun
from forebay.testbed.twins import PRESETS, Twin, TwinConfig
from forebay.testbed.virtual import VirtualWorld
from forebay.world import RealWorld
from testbed_kit import admin, chat, exchange

CONFIG = TwinConfig(models={"instant": PRESETS["instant"]}, seed=1)
BODY = json.dumps(
    {"model": "instant", "messages": [{"role": "user", "content": "hi [out:3]"}]}
).encode()
CLOSE = b"connection: close\r\n"


def post(body: bytes = BODY, more: bytes = b"") -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer twin-key\r\n"
        b"%bcontent-length: %d\r\n\r\n%b" % (more, len(body), body)
    )


def test_requests_may_come_byte_by_byte_and_ahead_of_answers(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=CONFIG)
        whole = post() + post() + post(more=CLOSE)
        at_once = await exchange(twin, whole)
        in_bytes = await exchange(twin, *[whole[at : at + 1] for at in range(len(whole))])
        for said in (at_once, in_bytes):
            assert said.count(b"HTTP/1.1 200 OK") == 3
            assert said.count(b'"completion_tokens":3') == 3
        assert [seen.connection for seen in twin.log] == [1, 1, 1, 2, 2, 2]
        await twin.close()

    virtual(main)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400),
        (post() * 30, 400),
        (post(b"{", CLOSE), 400),
        (post(b'"\xff"', CLOSE), 400),
        (post(b"[" * 100_000, CLOSE), 400),
        (post(b'{"model":"instant","messages":[{"role":"user","content":3}]}', CLOSE), 400),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 401),
        (b"GET /_twin/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
    ],
)
def test_nonsense_is_refused_and_the_twin_lives_on(
    virtual: VirtualRun, raw: bytes, status: int
) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=CONFIG)
        said = await exchange(twin, raw)
        assert b"HTTP/1.1 %d " % status in said
        assert b"Traceback" not in said
        assert (await chat(world, twin, stream=False).over).status == 200
        await twin.close()

    virtual(main)


def test_an_expected_100_is_given(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=CONFIG)
        said = await exchange(twin, post(more=CLOSE + b"expect: 100-continue\r\n"))
        assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
        await twin.close()

    virtual(main)


def test_the_log_has_exact_bytes_or_only_their_digest(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        for keep in (True, False):
            config = TwinConfig(models=CONFIG.models, seed=1, keep_bodies=keep)
            twin = await Twin.start(world, config=config)
            said = await exchange(twin, post(more=CLOSE))
            status, log = await admin(twin, "GET", "log?last=5")
            [entry] = log["entries"]
            sent = said.partition(b"\r\n\r\n")[2]
            assert status == 200
            assert (entry["outcome"], entry["body_size"]) == ("complete", len(BODY))
            assert entry["sent_size"] == len(sent)
            assert (entry["body"].encode(), entry["sent"].encode()) == (
                (BODY, sent) if keep else (b"", b"")
            )
            assert (entry["body_sha256"] == "") == keep
            assert ["authorization", "***"] in entry["headers"]
            assert "twin-key" not in json.dumps(log)
            assert twin.log[0].header("authorization") == "Bearer twin-key"
            await twin.close()

    virtual(main)


def test_the_bill_is_asked_by_request_and_in_sum(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=CONFIG)
        got = await chat(world, twin, "hi [out:3]", stream=False).over
        _, bill = await admin(twin, "GET", "bill")
        assert bill == {
            "total_nusd": 90_000,
            "total_usd": "0.00009",
            "count": 1,
            "requests": 1,
            "models": {"instant": 90_000},
        }
        _, charge = await admin(twin, "GET", "bill/" + got.headers["x-request-id"])
        assert (charge["cost_nusd"], charge["usage"]["output_tokens"]) == (90_000, 3)
        assert (await admin(twin, "GET", "bill/nobody"))[0] == 404
        _, state = await admin(twin, "GET", "state")
        assert state["state"].startswith("<Twin openai http://127.0.0.1:")
        assert (await admin(twin, "DELETE", "log"))[0] == 200
        assert len(twin.log) == 0
        _, cpu = await admin(twin, "GET", "cpu")
        assert cpu["user_s"] > 0
        await twin.close()

    virtual(main)


def test_a_header_may_ask_for_a_length(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        twin = await Twin.start(world, config=CONFIG)
        said = await exchange(twin, post(more=CLOSE + b"x-twin-output-tokens: 7\r\n"))
        assert b'"completion_tokens":7' in said
        await twin.close()

    virtual(main)


def test_the_peer_that_leaves_is_seen_at_once(real: RealRun) -> None:
    async def main() -> None:
        world = RealWorld()
        models = {"frontier": PRESETS["frontier"]}
        twin = await Twin.start(world, config=TwinConfig(models=models, seed=1))
        asked = chat(world, twin, "hi [out:3]")
        await twin.log.until(lambda: twin.log.total == 1)
        left_ns = world.now_ns()
        asked.leave()
        [seen] = await asyncio.wait_for(twin.log.settled(1), 5)
        assert seen.outcome == "gone"
        assert seen.ended_ns - left_ns < 1_000_000_000
        await twin.close()

    real(main())


def test_a_reset_reaches_a_real_socket(real: RealRun) -> None:
    async def main() -> None:
        from forebay.testbed.twins.faults import Script

        twin = await Twin.start(RealWorld(), config=CONFIG)
        twin.set_script(Script.decode("- what: {kind: cut, how: rst}"))
        with pytest.raises(ConnectionResetError):
            await exchange(twin, post())
        await twin.close()

    real(main())


def test_a_connection_may_be_slow_from_its_beginning(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        config = TwinConfig(models=CONFIG.models, seed=1, bytes_per_s=500)
        twin = await Twin.start(world, config=config)
        start_ns = world.now_ns()
        said = await exchange(twin, post(more=CLOSE))
        taken_s = (world.now_ns() - start_ns) / 1e9
        assert taken_s == pytest.approx(len(said) / 500, abs=0.1)
        await twin.close()

    virtual(main)


def test_a_twin_speaks_tls(real: RealRun) -> None:
    async def main() -> None:
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        caller = ssl.create_default_context()
        authority.configure_trust(caller)
        twin = await Twin.start(RealWorld(), config=CONFIG, tls=server)
        assert twin.base_url.startswith("https://")
        reader, writer = await asyncio.open_connection("127.0.0.1", twin.port, ssl=caller)
        writer.write(post(more=CLOSE))
        assert b"HTTP/1.1 200 OK" in await reader.read()
        writer.close()
        await twin.close()

    real(main())
