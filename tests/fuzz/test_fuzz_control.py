"""Hostile control lines: a request or a RequestError, never anything else."""

from __future__ import annotations

import os
import random

from tunnel.io.control import RequestError, parse_request

INPUTS = 100_000
VALID = [
    b'{"command": "status"}',
    b'{"command": "ping", "name": "laptop", "count": 3}',
    b'{"command": "watch", "interval_s": 1.5}',
    b'{"command": "reach", "name": "laptop.alice.members.example"}',
    b'{"command": "advertise", "service": {"type": "_ssh._tcp", "name": "x", "port": 22}}',
    b'{"command": "withdraw", "type": "_ssh._tcp", "name": "Desk"}',
    b'{"command": "browse-watch", "type": "", "interval_s": 9}',
]
KNOWN = {
    *("status", "ping", "watch", "reach", "down", "lookup", "explain"),
    *("advertise", "withdraw", "services", "browse", "browse-watch"),
}
PIECES = [
    b"{",
    b"}",
    b"[",
    b'"',
    b":",
    b"null",
    b"1e999",
    b"-1",
    b"NaN",
    b"\\ud800",
    b"\xff",
    b"true",
]


def test_100_000_hostile_lines_are_parsed_or_refused() -> None:
    seed = int(os.environ.get("FUZZ_SEED", "6281"))
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(INPUTS):
        line = bytearray(generator.choice(VALID))
        for _ in range(generator.randrange(1, 5)):
            at = generator.randrange(len(line) + 1)
            if generator.random() < 0.5:
                line[at:at] = generator.choice(PIECES)
            else:
                line[at : at + generator.randrange(3)] = generator.randbytes(generator.randrange(3))
        try:
            request = parse_request(bytes(line))
        except RequestError:
            continue
        assert request["command"] in KNOWN
