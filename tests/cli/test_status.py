"""What ``status`` shows to a person, from what a host says."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from tunnel.cli.observe import status_tables

FACTS: dict[str, Any] = {
    "host": {"name": "desk.a.example", "id": "fd00::1", "engine": "native", "endpoint": None},
    "nat": {"method": None},
    "zone": {"server": "203.0.113.10", "transport": "tls"},
    "peers": [
        {
            "name": "laptop.a.example",
            "state": "up",
            "path": "direct",
            "endpoint": "192.0.2.2:4500",
            "id": "fd00::2",
            "suite": "aes256gcm16",
            "rx_bytes": 52_428_800,
            "tx_bytes": 999,
            "rtt_ms": 12.34,
        },
        {"name": "nas.a.example", "state": "failed", "reason": "nobody answers at 192.0.2.3:4500"},
    ],
}


def shown(facts: dict[str, Any]) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(status_tables(facts))
    return console.file.getvalue()


def test_a_person_sees_peers_with_path_endpoint_and_figures() -> None:
    text = shown(FACTS)
    (line,) = [line for line in text.splitlines() if line.startswith("laptop ")]
    for word in ("up", "direct", "192.0.2.2:4500", "fd00::2", "52.4 MB", "999 B", "12.3 ms"):
        assert word in line


def test_a_person_sees_why_a_peer_is_not_reached() -> None:
    assert "nas: nobody answers at 192.0.2.3:4500" in shown(FACTS)


def test_absent_is_a_dash_and_no_peers_is_a_sentence() -> None:
    text = shown({**FACTS, "peers": []})
    assert "no peers yet" in text
    assert "–, UDP port –" in text
    assert not any(line.startswith("nat ") for line in text.splitlines())


def test_a_zone_s_problem_stands_in_its_own_line() -> None:
    zone = {**FACTS["zone"], "published": False, "problem": "your clock is 900 s behind"}
    lines = [line.split(maxsplit=1) for line in shown({**FACTS, "zone": zone}).splitlines() if line]
    told = dict(line for line in lines if len(line) == 2)
    assert told["zone"].strip() == "203.0.113.10 over tls, not published"
    assert told["problem"].strip() == "your clock is 900 s behind"


IKE: dict[str, Any] = {
    "encryption": "aes256gcm16",
    "prf": "prfsha256",
    "key_exchange": "x25519+mlkem768",
    "ppk": False,
    "rekey_s": 12_600.0,
    "expires_s": 14_400.0,
}
CHILD: dict[str, Any] = {
    "traffic": "everything",
    "suite": "aes128gcm16",
    "mode": "tunnel",
    "esn": True,
    "rekey_s": 119.0,
    "expires_s": 3000.0,
}


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_a_person_sees_what_protects_each_tunnel_and_for_how_long() -> None:
    more = {**CHILD, "traffic": "protocol 135", "mode": "transport", "esn": False, "rekey_s": None}
    peer = {**FACTS["peers"][0], "auth": "cert", "ike": IKE, "children": [CHILD, more]}
    lines = shown({**FACTS, "peers": [peer, FACTS["peers"][1]]}).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("keys "))
    ike, everything, narrow = ([*cells(line)] for line in lines[start + 1 : start + 4])
    assert ike[1:] == [
        *("IKE", "aes256gcm16, prfsha256", "x25519+mlkem768", "certificate", "3.5 h", "4.0 h"),
    ]
    assert everything == ["everything", "aes128gcm16, tunnel, ESN", "119 s", "50.0 min"]
    assert narrow == ["protocol 135", "aes128gcm16, transport", "–", "50.0 min"]
    assert not any(line.startswith("keys ") for line in shown(FACTS).splitlines())


def test_a_person_sees_a_pre_shared_and_a_post_quantum_key() -> None:
    peer = {**FACTS["peers"][0], "auth": "psk", "ike": {**IKE, "ppk": True}, "children": []}
    text = shown({**FACTS, "peers": [peer]})
    assert "x25519+mlkem768, PPK" in text
    assert "pre-shared key" in text
