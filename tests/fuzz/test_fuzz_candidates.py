"""What a host says of its place on its local network: whatever it is, few private endpoints come
of it, and nothing breaks."""

from __future__ import annotations

import os
import random

from tunnel.candidates import LAN, MOST, is_private, lan_of
from tunnel.peers import Peer

ROUNDS = 100_000
_PIECES = (
    *("192.168.1.5", "10.0.0.1", "100.64.0.9", "203.0.113.7", "127.0.0.1", "0.0.0.0", "224.0.0.1"),
    *(
        "fe80::1",
        "::ffff:192.168.1.5",
        "fd00::1%eth0",
        "[",
        "]",
        ":",
        "::",
        ".",
        "/24",
        "\x00",
        " ",
    ),
    *("4500", "0", "-1", "65536", "99999999999999999999", "٤٥٠٠", "1e3", "lan=", ""),
)


def test_no_string_of_a_record_breaks_where_a_peer_may_be() -> None:
    seed = int(os.environ.get("FUZZ_SEED", "6281"))
    print(f"FUZZ_SEED={seed}")
    rng = random.Random(seed)
    found = 0
    for _ in range(ROUNDS):
        texts = []
        for _ in range(rng.randrange(1, 8)):
            tail = "".join(rng.choices(_PIECES, k=rng.randrange(4)))
            if rng.random() < 0.3:
                tail = f"{rng.choice(_PIECES)}:{rng.choice(_PIECES)}"
            texts.append(LAN + tail)
        places = lan_of(Peer("desk.example", "desk", info=tuple(texts)))
        assert len(places) <= MOST
        assert all(is_private(one) and 0 < one[1] < 65_536 for one in places)
        found += len(places)
    assert found > ROUNDS // 100
