"""Rules are printed as the draft writes them (I35, I36), for data and for mobility messages."""

from __future__ import annotations

from tunnel.cli.rules import peers_of
from tunnel.mobility.rules import TrackedSa, rules_of

DATA = TrackedSa(0x2B, 0x2A, "fd00::1", "fd00::2", "198.51.100.7:4500", "203.0.113.9:4500")


def test_data_between_two_mobiles_i36() -> None:
    assert [str(one) for one in rules_of(DATA)] == [
        "dir: out, SPI: 0000002a, exp. src: fd00::1, remap. src: 198.51.100.7:4500",
        "dir: out, SPI: 0000002a, exp. dst: fd00::2, remap. dst: 203.0.113.9:4500",
        "dir: in , SPI: 0000002b, exp. dst: 198.51.100.7:4500, remap. dst: fd00::1",
        "dir: in , SPI: 0000002b, exp. src: ::, remap. src: fd00::2 (ancillary)",
    ]


def test_mobility_messages_name_their_addresses_themselves_i34() -> None:
    signals = TrackedSa(51, 50, "fd00::1", "fd00::2", "198.51.100.7:4500", "203.0.113.9:4500", True)
    assert [str(one) for one in rules_of(signals)] == [
        "dir: out, SPI: 00000032, exp. src: fd00::1, remap. src: ancillary",
        "dir: out, SPI: 00000032, exp. dst: fd00::2, remap. dst: ancillary",
        "dir: in , SPI: 00000033, exp. dst: 198.51.100.7:4500, remap. dst: fd00::1",
        "dir: in , SPI: 00000033, exp. src: ::, remap. src: fd00::2 (ancillary)",
    ]


def test_one_source_and_one_destination_rule_a_direction_i31() -> None:
    found = rules_of(DATA)
    assert len({(one.direction, one.field) for one in found}) == len(found) == 4


def child(number: int, traffic: str = "everything") -> dict[str, object]:
    return {"traffic": traffic, "spi_in": f"{number:08x}", "spi_out": f"{number + 1:08x}"}


def peer(path: str | None, endpoint: str, *children: dict[str, object]) -> dict[str, object]:
    return {
        "name": "desk.alice.members.example",
        "id": "fd00::2",
        "path": path,
        "endpoint": endpoint,
        "home_agent": "gateway" if path == "relay" else None,
        "children": list(children),
    }


HOST = {"id": "fd00::1", "endpoint": "198.51.100.7:4500"}


def test_both_sets_stand_while_an_sa_is_rekeyed_i42() -> None:
    facts = {"host": HOST, "peers": [peer("direct", "203.0.113.9:4500", child(256), child(512))]}
    (found,) = peers_of(facts)
    spis = [rule["spi"] for sa in found["sas"] for rule in sa["rules"]]
    assert sorted(set(spis)) == ["00000100", "00000101", "00000200", "00000201"]


def test_a_move_changes_all_rules_i43() -> None:
    here, there = (
        next(peers_of({"host": HOST, "peers": [peer("direct", at, child(256))]}))["sas"][0]
        for at in ("203.0.113.9:4500", "[2001:db8::9]:4500")
    )
    assert "203.0.113.9:4500" in here["text"][1] and "[2001:db8::9]:4500" in there["text"][1]
    assert len(there["rules"]) == 3, "our own IPv6 address is the system's choice"


def test_a_relayed_peer_has_none_i15() -> None:
    facts = {"host": HOST, "peers": [peer("relay", "[fd00::2]:500", child(256))]}
    (found,) = peers_of(facts)
    assert found["sas"] == [] and found["home_agent"] == "gateway"


def test_a_peer_without_a_tunnel_is_not_named() -> None:
    facts = {"host": HOST, "peers": [peer(None, "203.0.113.9:4500")]}
    assert list(peers_of(facts)) == []
