"""What a worker does with what the back office says, and without it."""

import asyncio

from conftest import VirtualRun
from forebay.processes import worker
from forebay.processes.link import WANTED, Snapshot
from forebay.processes.worker import WorkerControl, apply
from forebay.schema.usage import Rates
from forebay.testbed.virtual import VirtualWorld
from pipeline_kit import KEY, RATES, gateway, key_row
from test_processes_link import Office, linked


def test_what_the_back_office_says_is_seen_by_requests(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        required = {"keys": {"loopback": "required"}}
        async with gateway(world, required) as gate:
            headers = {"authorization": f"Bearer {KEY}"}
            assert (await gate.chat(headers=headers)).status == 401
            apply(gate.plane, Snapshot(keys=[key_row()]))
            assert (await gate.chat(headers=headers)).status == 200
            assert (await gate.chat(model="instant", headers=headers)).status == 404
            apply(gate.plane, Snapshot(discovered={"openai": ["instant"]}))
            assert (await gate.chat(model="instant", headers=headers)).status == 200
            apply(gate.plane, Snapshot(rates=[("openai", "instant", Rates(10**12))]))
            reply = await gate.chat(headers=headers)
            assert reply.header("x-forebay-cost-usd") == "0.004"  # 4 tokens at $1,000 a million
            apply(gate.plane, Snapshot(keys=[]))
            assert (await gate.chat(headers=headers)).status == 401

    virtual(main)


def test_what_is_not_said_stays_as_it_was(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world, keys=[key_row()]) as gate:
            catalogue = gate.way.catalogue
            apply(gate.plane, Snapshot(discovered={"openai": ["told"]}, listed={"openai": ["p"]}))
            for snapshot in (
                Snapshot(),
                Snapshot(rates=[]),
                Snapshot(keys=[key_row()]),
                Snapshot(listed={"openai": ["p", "q"]}),
                Snapshot(discovered={"openai": ["told", "more"]}),
            ):
                apply(gate.plane, snapshot)
                assert len(gate.way.keyring) == 1
                assert catalogue.find("told", "chat").provider.name == "openai"
                assert catalogue.find("p", "chat").provider.name == "openai"
            assert catalogue.find("q", "chat").model == "q"
            assert catalogue.find("more", "chat").model == "more"

    virtual(main)


def test_it_is_ready_once_it_knows_the_keys(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate, linked(world) as (link, office):
            link.synced.clear()
            gate.app.control = control = WorkerControl(link, gate.plane, 1)
            reply = await gate.ask("/readyz", None, method="GET")
            assert (reply.status, b"keys" in reply.body) == (503, True)
            office.tell(office.lines[0], Snapshot(keys=[]))
            await asyncio.sleep(0.01)
            assert (await gate.ask("/readyz", None, method="GET")).status == 200
            control.stopping = True
            reply = await gate.ask("/readyz", None, method="GET")
            assert (reply.status, reply.body) == (503, b"stopping\n")
            assert (await gate.ask("/healthz", None, method="GET")).status == 200

    virtual(main)


def test_metrics_of_the_machine_and_of_this_worker(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate, linked(world) as (link, office):
            gate.app.control = WorkerControl(link, gate.plane, 1)
            gate.plane.recorder.dropped = 3
            reply = await gate.ask("/metrics", None, method="GET")
            text = reply.body.decode()
            assert text.startswith("scrape 1")
            assert "\nforebay_records_dropped_total 3\n" in text
            assert "\nforebay_cache_held_bytes 0\n" in text
            office.answers_metrics = False  # it hangs
            start_ns = world.now_ns()
            reply = await gate.ask("/metrics", None, method="GET")
            assert b"forebay_back_office_up 0\n" in reply.body
            assert world.now_ns() - start_ns <= 2_100_000_000
            await office.close()  # it is gone
            reply = await gate.ask("/metrics", None, method="GET")
            assert b"forebay_back_office_up 0\n" in reply.body
            await office.open()

    virtual(main)


def wanted(office: Office) -> list[bytes]:
    return [payload for kind, payload in office.frames if kind == WANTED]


def test_prices_are_asked_for_soon_after_they_were_missed(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate, linked(world) as (link, office):
            gate.way.prices.load({("openai", "known"): RATES})
            asking = asyncio.create_task(worker._want_prices(link, gate.plane))
            await asyncio.sleep(1)
            first = wanted(office)
            assert len(first) == 1  # whoever is new is asked for everything in use
            assert b"known" in first[0]
            gate.way.prices.rates("openai", "new")
            await asyncio.sleep(1)
            assert len(wanted(office)) == 2
            assert b"new" in wanted(office)[1]
            assert b"known" not in wanted(office)[1]
            await asyncio.sleep(10)
            assert len(wanted(office)) == 2  # once
            await office.close()
            await asyncio.sleep(1)
            await office.open()  # another one, which knows of nothing
            await asyncio.sleep(1)
            assert len(wanted(office)) == 3
            assert b"known" in wanted(office)[2]
            assert b"new" in wanted(office)[2]
            asking.cancel()

    virtual(main)


def test_the_last_records_leave_before_it_ends(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate, linked(world) as (link, office):
            gate.plane.recorder._send = link.send_records
            await gate.chat()
            await worker._farewell(link, gate.plane)
            assert gate.plane.recorder.held_bytes == 0
            assert [kind for kind, _ in office.frames] == [b"R"]

    virtual(main)


def test_nobody_to_take_them_is_not_waited_for_for_ever(virtual: VirtualRun) -> None:
    async def main(world: VirtualWorld) -> None:
        async with gateway(world) as gate, linked(world) as (link, office):
            taken, gate.plane.recorder._send = gate.plane.recorder._send, link.send_records
            await office.close()
            await gate.chat()
            start_ns = world.now_ns()
            await worker._farewell(link, gate.plane)
            took_s = (world.now_ns() - start_ns) / 1e9
            assert took_s == worker.FAREWELL_S
            assert gate.plane.recorder.held_bytes > 0
            gate.plane.recorder._send = taken
            await office.open()

    virtual(main)
