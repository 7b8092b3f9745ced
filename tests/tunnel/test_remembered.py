"""The kept records: written and read again, and a damaged file is told of and never believed."""

from __future__ import annotations

import json
from ipaddress import IPv6Address

import pytest

from discovery.types import HostRecords
from tunnel.remembered import MAX_FILE, RememberedError, from_json, to_json

DOMAIN = "alice.example"


def host(label: str, number: int = 1) -> HostRecords:
    return HostRecords(
        label,
        IPv6Address(0xFD << 120 | number),
        "AutoTunnel-" + "-".join(["01"] * 8),
        (("203.0.113.7", 4500), ("2001:db8::7", 4500)),
        ("model=desk",),
        home_agents=(IPv6Address("fd00::a"),),
    )


def test_what_is_written_is_read_again() -> None:
    hosts = [host("laptop", 2), host("desk", 1)]
    assert from_json(to_json(DOMAIN, hosts), DOMAIN, 1024) == (hosts[1], hosts[0])


def test_the_file_holds_records_and_nothing_else() -> None:
    kept = json.loads(to_json(DOMAIN, [host("desk")]))
    assert set(kept) == {"schema", "domain", "hosts"}
    names = {"label", "id", "target", "endpoints", "info", "home_agents"}
    assert set(kept["hosts"][0]) == names


def test_the_records_of_another_account_are_not_ours() -> None:
    assert from_json(to_json("bob.example", [host("desk")]), DOMAIN, 1024) == ()


def test_it_is_bounded() -> None:
    octets = to_json(DOMAIN, [host(f"host-{number}", number) for number in range(10_000)])
    assert len(octets) <= MAX_FILE
    assert len(from_json(octets, DOMAIN, 1024)) == 1024


def changed(key: str, value: object) -> bytes:
    kept = json.loads(to_json(DOMAIN, [host("desk")]))
    kept["hosts"][0][key] = value
    return json.dumps(kept).encode()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"schema": "autotunnel/records/v2"}',
        b'{"schema": "autotunnel/records/v1", "domain": "alice.example", "hosts": {}}',
        b'{"schema": "autotunnel/records/v1", "domain": "alice.example", "hosts": [7]}',
        changed("label", "a.b"),
        changed("id", "fd00::zz"),
        changed("endpoints", [["203.0.113.7", 0]]),
        changed("endpoints", [["example.org", 4500]]),
        changed("endpoints", [["203.0.113.7", 4500], ["203.0.113.8", 4500]]),
        changed("info", ["x" * 300]),
        changed("info", 7),
        changed("home_agents", ["desk"]),
        bytes(MAX_FILE + 1),
    ],
)
def test_a_damaged_file_is_refused_as_a_whole(octets: bytes) -> None:
    with pytest.raises(RememberedError):
        from_json(octets, DOMAIN, 1024)
