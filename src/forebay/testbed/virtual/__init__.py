"""Virtual time: the whole gateway, its providers and its callers in one process, where
waiting takes no time and the same seed gives the same run.

    def test_something() -> None:
        async def main(world: VirtualWorld) -> None:
            server = await world.loop.create_server(Twin, "127.0.0.1", 0)
            world.network.set("127.0.0.1", server.port, Link(latency_s=0.02))
            ...

        run(main, seed=7)

`loop` has the clock, `network` the links and faults, `transport` the connections, `world`
the seed. The limits: work still costs real time, TLS and files are not simulated, and a
read in virtual time is never larger than one write of the peer.
"""

from forebay.testbed.virtual.loop import Deadlock, Livelock, VirtualLoop
from forebay.testbed.virtual.network import Fault, Link, Network, VirtualServer
from forebay.testbed.virtual.transport import VirtualTransport
from forebay.testbed.virtual.world import Leftover, Unseen, VirtualWorld, run

__all__ = [
    "Deadlock",
    "Fault",
    "Leftover",
    "Link",
    "Livelock",
    "Network",
    "Unseen",
    "VirtualLoop",
    "VirtualServer",
    "VirtualTransport",
    "VirtualWorld",
    "run",
]
