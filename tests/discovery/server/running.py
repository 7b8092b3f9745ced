"""A rendezvous in a process of its own, to be killed: prints its UDP port, then serves.

Usage: python -m tests.discovery.server.running STATE_DIR
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from discovery.io_serve import RendezvousServer
from tests.discovery.server.helpers import ALICE, account


async def main(state_dir: Path) -> None:
    server = RendezvousServer(
        accounts=[account(ALICE)], listen=[("127.0.0.1", 0)], state_dir=state_dir
    )
    await server.start()
    sys.stdout.write(f"{server.listening['tcp'][0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
