"""Small UDP packets (``bench.udp``): how many arrive at overload and of a pace."""

from __future__ import annotations

import json

from bench import udp
from bench.pair import Pair
from bench.peers.types import Tunnel
from bench.turns import Column
from tunnel.io.lab import Process

PACED = (50_000, 100_000, 150_000, 250_000)  # packets a second
PORT = 5300

COLUMNS = (
    Column("delivered/s at overload", "overload_delivered_pps", "{:.0f}", ratio=True),
    *(
        Column(f"lost of {rate // 1000}k/s", f"paced_{rate // 1000}k_lost_percent", "{:.2f} %")
        for rate in PACED
    ),
)


def measure(ends: Pair, tunnel: Tunnel, seconds: int) -> dict[str, float]:
    """``overload``: as fast as the sender can. ``lost_percent`` counts what the tunnel lost of
    what was sent, ``missing_percent`` also what the sender had no processor left to send."""
    figures: dict[str, float] = {}
    seconds = max(1, seconds // 2)  # five runs; a million packets are enough
    sent, received, lasted = _run(ends, tunnel, seconds, 0)
    figures["overload_sent_pps"] = sent / seconds
    figures["overload_delivered_pps"] = received / lasted if lasted else 0.0
    for rate in PACED:
        sent, received, _ = _run(ends, tunnel, seconds, rate)
        name = f"paced_{rate // 1000}k"
        figures[f"{name}_delivered_pps"] = received / seconds
        figures[f"{name}_lost_percent"] = 100 * (1 - received / max(sent, 1))
        figures[f"{name}_missing_percent"] = max(0.0, 100 * (1 - received / (rate * seconds)))
    return figures


def _run(ends: Pair, tunnel: Tunnel, seconds: int, rate: int) -> tuple[float, float, float]:
    """Packets sent and received, and the seconds from the first to the last that came."""
    target = (tunnel.right, str(PORT))
    receiver = ends.right.start(*udp.command("receive", *target), name="udp", env=udp.ENVIRONMENT)
    receiver.wait_for("ready", 10.0)
    sending = udp.command("send", *target, str(seconds), str(rate))
    done = ends.left.run(*sending, timeout=seconds + 30, env=udp.ENVIRONMENT)
    sent = json.loads(done.stdout)["sent"]
    receiver.stop()
    found = _last_line(receiver)
    return sent, found["received"], found["seconds"]


def _last_line(process: Process) -> dict[str, float]:
    found: dict[str, float] = json.loads(process.output().splitlines()[-1])
    return found
