"""A host that asks for a way in, in a process of its own: ``python -m tests.namespaces.mapping``.

Arguments: our address, our port, the gateways (by commas), the methods (by commas), and, if wanted,
the shortest lifetime that is believed (seconds). Each outcome is a line of JSON on stdout; SIGTERM
ends it as a host ends, with its mapping deleted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import get_args

from discovery.io_nat import NatLink
from discovery.nat import natpmp, pcp
from discovery.nat.mapper import Gateway, Way
from discovery.nat.types import Method


def told(way: Way) -> None:
    line: dict[str, object] = {"reason": way.reason, "method": None}
    if way.mapping is not None:
        line |= {"method": way.mapping.method, "external": list(way.mapping.external)}
        line |= {"lifetime": way.mapping.lifetime, "double_nat": way.mapping.double_nat}
    print(json.dumps(line), flush=True)


async def main(address: str, port: str, gateways: str, methods: str, shortest: str = "") -> None:
    if shortest:
        natpmp.SHORTEST = pcp.SHORTEST = int(shortest)
        # miniupnpd grants by NAT-PMP whatever is asked for, whatever its configuration says.
        natpmp.NatPmpClient.__init__.__kwdefaults__["lifetime"] = 2 * int(shortest)
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    wanted = [one for one in get_args(Method) if one in methods.split(",")]
    link = NatLink(wanted, told)
    local = (address, int(port))
    await link.network([Gateway(gateway, local) for gateway in gateways.split(",")])
    print(json.dumps({"ready": True}), flush=True)
    waiting = asyncio.create_task(end.wait())
    while not waiting.done():
        await asyncio.wait([waiting], timeout=0.5)
        answers = {
            f"{method} {gateway}": said for (gateway, method), said in link.mapper.answers.items()
        }
        print(json.dumps({"answers": answers}), flush=True)
    await link.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
