"""Relaying in the pure data path: what is nested, forwarded, opened twice, and what is not."""

from __future__ import annotations

import pytest

from fastpath.reference import relay
from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.reference.segment import upper_checksum
from fastpath.types import (
    RELAY_BURST_OCTETS,
    RELAYED_PROBES_PER_SECOND,
    SOFT_LIMIT_PACKETS,
    ControlEvent,
    Drop,
    DummyEvent,
    LifetimeEvent,
    Mode,
    NewSourceEvent,
    Opened,
    UnknownSpiEvent,
)
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    AT_A,
    AT_B,
    AT_H,
    B_TO_A,
    B_TO_H,
    FIRST_WORD,
    FORGED,
    H_TO_A,
    H_TO_B,
    HOST_A,
    HOST_B,
    HOST_C,
    HOSTILE,
    IKE,
    as_probe,
    esp_packet,
    nested,
    nested_ike,
    relay_endpoint,
    relay_sa,
    sa,
    with_hop_limit,
)
from tests.fastpath.support import ipv6


def home_agent(*, limit: int = 0) -> Datapath:
    """H, which forwards between A and B."""
    machine = Datapath(AGENT)
    machine.install_inbound(relay_sa(A_TO_H, HOST_A, AGENT, inbound=True))
    machine.install_inbound(relay_sa(B_TO_H, HOST_B, AGENT, inbound=True))
    machine.install_outbound(relay_sa(H_TO_A, AGENT, HOST_A, inbound=False))
    machine.install_outbound(relay_sa(H_TO_B, AGENT, HOST_B, inbound=False))
    machine.set_relay(HOST_A, H_TO_A, AT_A, True)
    machine.set_relay(HOST_B, H_TO_B, AT_B, True)
    machine.set_relay_limit(limit)
    return machine


def host(ours: bytes, theirs: bytes, spis: tuple[int, int, int, int]) -> Datapath:
    """A or B, which reaches the other through H; SPIs: to and from H, to and from the other."""
    to_h, from_h, to_other, from_other = spis
    machine = Datapath(ours)
    machine.install_outbound(relay_sa(to_h, ours, AGENT, inbound=False))
    machine.install_inbound(relay_sa(from_h, AGENT, ours, inbound=True))
    machine.install_outbound(sa(to_other, ours, theirs, inbound=False))
    machine.install_inbound(sa(from_other, theirs, ours, inbound=True))
    machine.set_relay(theirs, to_h, AT_H)
    machine.set_flow(theirs, to_other, relay_endpoint(theirs))
    return machine


def host_a() -> Datapath:
    return host(HOST_A, HOST_B, (A_TO_H, H_TO_A, A_TO_B, B_TO_A))


def host_b() -> Datapath:
    return host(HOST_B, HOST_A, (B_TO_H, H_TO_B, B_TO_A, A_TO_B))


def to_agent(packet: bytes, sequence: int = 1, next_header: int = 41) -> bytes:
    """The ESP packet in which A sends a nested one to H."""
    sender = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False), sequence - 1)
    return sender.seal(packet, next_header)


def from_agent(packet: bytes, sequence: int = 1, next_header: int = 41) -> bytes:
    """The ESP packet in which B gets a nested one from H."""
    sender = OutboundSa(relay_sa(H_TO_B, AGENT, HOST_B, inbound=False), sequence - 1)
    return sender.seal(packet, next_header)


def sent(outputs: list[Output]) -> list[SendDatagram]:
    return [output for output in outputs if isinstance(output, SendDatagram)]


def opened_at_agent(datagram: SendDatagram) -> Opened | Drop:
    return InboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=True)).open(datagram.data)


def test_flow_data_to_a_relay_endpoint_leaves_nested() -> None:
    """I47: the end-to-end SA inside the SA to the home agent; RFC 3884: no header between."""
    machine, packet = host_a(), ipv6(HOST_A, HOST_B, b"hello")
    [datagram] = machine.outbound(packet, 3.0)
    assert isinstance(datagram, SendDatagram)
    assert datagram.endpoint == AT_H
    expected = nested(esp_packet(), 50)
    assert opened_at_agent(datagram) == Opened(expected, 41, 1)
    inner, outer = machine.outbound_counters(A_TO_B), machine.outbound_counters(A_TO_H)
    assert inner is not None
    assert outer is not None
    assert (inner.packets, inner.octets) == (1, len(packet))
    assert (outer.packets, outer.octets, outer.last_used) == (1, len(expected), 3.0)
    assert machine.counters()["tx_packets"] == 1


def test_three_hosts_end_to_end() -> None:
    a, h, b = host_a(), home_agent(), host_b()
    packet = ipv6(HOST_A, HOST_B, b"through the middle")
    [first] = sent(a.outbound(packet, 1.0))
    [second] = sent(h.inbound(first.data, AT_A, 1.0))
    assert second.endpoint == AT_B
    outputs = b.inbound(second.data, AT_H, 1.0)
    assert outputs == [
        NewSourceEvent(H_TO_B, AT_H),
        NewSourceEvent(A_TO_B, relay_endpoint(HOST_A)),
        WritePacket(packet),
    ]
    assert h.counters()["relayed_packets"] == 1
    assert h.counters()["relayed_octets"] == len(nested(esp_packet(body=b"through the middle")))
    assert h.counters()["rx_packets"] == h.counters()["tx_packets"] == 0


def test_the_home_agent_changes_the_hop_limit_and_nothing_else() -> None:
    packet = nested(esp_packet())
    [datagram] = sent(home_agent().inbound(to_agent(packet), AT_A))
    inbound = InboundSa(relay_sa(H_TO_B, AGENT, HOST_B, inbound=True))
    assert inbound.open(datagram.data) == Opened(with_hop_limit(packet, 63), 41, 1)


@pytest.mark.parametrize("marker", [b"", bytes(4)])
def test_ike_to_a_relay_endpoint_is_nested_in_udp_500(marker: bytes) -> None:
    """I10, I48: IKE from host id to host id, through the SA to the home agent."""
    a, h, b = host_a(), home_agent(), host_b()
    [first] = sent(a.send(marker + IKE, relay_endpoint(HOST_B)))
    assert opened_at_agent(first) == Opened(nested_ike(), 41, 1)
    [second] = sent(h.inbound(first.data, AT_A))
    outputs = b.inbound(second.data, AT_H)
    came = ControlEvent(IKE, relay_endpoint(HOST_A), marker=False, relay=H_TO_B)
    assert came in outputs, "and the answer knows its way back"


def test_the_checksum_of_nested_ike_is_right() -> None:
    packet = bytearray(nested_ike())
    given = bytes(packet[46:48])
    packet[46:48] = bytes(2)
    assert upper_checksum(packet, 40, 17).to_bytes(2, "big") == given


def test_no_keepalive_is_relayed() -> None:
    machine = host_a()
    assert machine.send(b"\xff", relay_endpoint(HOST_B)) == []
    assert machine.counters()["drop_keepalive"] == 1
    assert machine.send(b"\xff", AT_B) == [SendDatagram(b"\xff", AT_B)]


@pytest.mark.parametrize("whole", [False, True])
def test_a_dummy_and_a_probe_are_nested_too(whole: bool) -> None:
    """RFC 8899 §3: a probe is not fragmented, on no leg of its way."""
    a, b = host_a(), host_b()
    [probe] = sent(a.dummy(A_TO_B, relay_endpoint(HOST_B), bytes(100), whole))
    assert probe.whole is whole
    assert probe.endpoint == AT_H
    [passed] = sent(home_agent().inbound(probe.data, AT_A))
    assert passed.whole is whole
    assert DummyEvent(A_TO_B, 100, bytes(32)) in b.inbound(passed.data, AT_H)


def test_a_host_id_that_was_relayed_is_never_an_outer_address() -> None:
    """It would come back through TUN, or be seen on the network in clear (I5, I50)."""
    machine = host_a()
    machine.clear_relay(HOST_B)
    assert machine.outbound(ipv6(HOST_A, HOST_B)) == []
    assert machine.send(IKE, relay_endpoint(HOST_B)) == []
    assert machine.dummy(A_TO_B, relay_endpoint(HOST_B)) == []
    assert machine.counters()["drop_not_relayed"] == 3
    machine.clear_flow(HOST_B)
    assert machine.send(IKE, relay_endpoint(HOST_B)) == []
    assert machine.send(IKE, relay_endpoint(HOST_A)) == [], "nor is our own"
    assert machine._outbound[A_TO_B].sa.sequence == 0, "no number was used up"


def test_a_flow_to_its_own_host_id_without_a_relay_is_no_loop() -> None:
    machine = Datapath(HOST_A)
    machine.install_outbound(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    machine.set_flow(HOST_B, A_TO_B, relay_endpoint(HOST_B))
    assert machine.outbound(ipv6(HOST_A, HOST_B)) == []
    assert machine.counters()["drop_not_relayed"] == 1


def test_a_relay_behind_a_relay_is_none() -> None:
    """Nested once: the home agent itself is reached at an outer address."""
    machine = host_a()
    machine.set_relay(AGENT, A_TO_H, relay_endpoint(HOST_B))
    machine.set_relay(HOST_B, A_TO_H, relay_endpoint(AGENT))
    assert machine.outbound(ipv6(HOST_A, HOST_B)) == []
    assert machine.counters()["drop_not_relayed"] == 1


def test_only_a_relay_sa_carries_nested_packets() -> None:
    for spi in (A_TO_B, 0x7777):  # a data SA, and one that is not there
        machine = host_a()
        machine.set_relay(HOST_B, spi, AT_H)
        assert machine.outbound(ipv6(HOST_A, HOST_B)) == []
        assert machine.counters()["drop_not_relayed"] == 1


def test_the_way_of_a_relay_may_change_under_a_flow() -> None:
    machine = host_a()
    machine.install_outbound(relay_sa(0xA055, HOST_A, AGENT, inbound=False))
    machine.set_relay(HOST_B, 0xA055, AT_A)
    [datagram] = sent(machine.outbound(ipv6(HOST_A, HOST_B)))
    assert datagram.endpoint == AT_A
    assert datagram.data[:4] == (0xA055).to_bytes(4, "big")


# --- What the home agent does not forward -------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "reason"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
@pytest.mark.parametrize("at", ["agent", "host"])
def test_hostile_nested_packets_go_nowhere(at: str, packet: bytes, reason: str) -> None:
    machine = home_agent() if at == "agent" else host_b()
    spi = A_TO_H if at == "agent" else H_TO_B
    datagram = to_agent(packet) if at == "agent" else from_agent(packet)
    outputs = machine.inbound(datagram, AT_A)
    assert outputs == [NewSourceEvent(spi, AT_A)]
    assert machine.counters()[f"drop_{reason}"] == 1
    counters = machine.inbound_counters(spi)
    assert counters is not None
    assert counters.drops == {reason: 1}
    assert counters.packets == 0


@pytest.mark.parametrize(("packet", "reason"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
def test_a_host_speaks_for_itself_and_to_those_who_are_there(packet: bytes, reason: str) -> None:
    machine = home_agent()
    assert sent(machine.inbound(to_agent(packet), AT_A)) == []
    assert machine.counters()[f"drop_{reason}"] == 1
    assert machine.counters()["relayed_packets"] == 0


def test_two_home_agents_that_point_at_each_other_do_not_loop() -> None:
    """What one forwards to the other has a source that is not the other's peer."""
    other = HOST_C
    first, second = home_agent(), Datapath(other)
    first.install_outbound(relay_sa(0xCC01, AGENT, other, inbound=False))
    first.set_relay(HOST_B, 0xCC01, AT_B, True)
    second.install_inbound(relay_sa(0xCC01, AGENT, other, inbound=True))
    second.install_outbound(relay_sa(0xCC02, other, AGENT, inbound=False))
    second.set_relay(HOST_B, 0xCC02, AT_H, True)
    [datagram] = sent(first.inbound(to_agent(nested(esp_packet())), AT_A))
    assert sent(second.inbound(datagram.data, AT_H)) == []
    assert second.counters()["drop_foreign_source"] == 1


def test_what_is_not_forwarded_any_more_is_counted() -> None:
    machine = home_agent()
    machine.clear_relay(HOST_B)
    assert sent(machine.inbound(to_agent(nested(esp_packet())), AT_A)) == []
    machine = home_agent()
    machine.remove_outbound(H_TO_B)
    assert sent(machine.inbound(to_agent(nested(esp_packet())), AT_A)) == []
    machine = home_agent()
    machine.set_relay(HOST_B, H_TO_B, AT_B)  # for ourselves only
    assert sent(machine.inbound(to_agent(nested(esp_packet())), AT_A)) == []
    assert machine.counters()["drop_not_relayed"] == 1


def test_a_next_header_other_than_ipv6_is_outside_the_traffic() -> None:
    machine = home_agent()
    machine.inbound(to_agent(nested(esp_packet()), 1, 6), AT_A)
    extension = bytes([41, 0, 1, 4, 0, 0, 0, 0])  # destination options before the IPv6 header
    machine.inbound(to_agent(extension + nested(esp_packet()), 2, 60), AT_A)
    assert machine.counters()["drop_selector"] == 2


def test_traffic_flow_padding_behind_a_nested_packet_is_cut() -> None:
    packet = nested(esp_packet())
    [datagram] = sent(home_agent().inbound(to_agent(packet + bytes(99)), AT_A))
    inbound = InboundSa(relay_sa(H_TO_B, AGENT, HOST_B, inbound=True))
    assert inbound.open(datagram.data) == Opened(with_hop_limit(packet, 63), 41, 1)


def test_a_forwarded_packet_that_no_datagram_can_carry_is_too_big() -> None:
    machine = home_agent()
    assert sent(machine.inbound(to_agent(nested(bytes(65_440))), AT_A)) == []
    counters = machine.outbound_counters(H_TO_B)
    assert counters is not None
    assert counters.drops == {"too_big": 1}
    assert machine.counters()["relayed_packets"] == 0


def test_the_relay_sa_of_the_way_out_asks_for_a_new_one_in_time() -> None:
    machine = home_agent()
    machine._outbound[H_TO_B].sa.sequence = SOFT_LIMIT_PACKETS - 1
    assert LifetimeEvent(H_TO_B) in machine.inbound(to_agent(nested(esp_packet())), AT_A)
    machine._outbound[H_TO_B].sa.sequence = 2**64 - 1
    assert sent(machine.inbound(to_agent(nested(esp_packet()), 2), AT_A)) == []
    assert machine.counters()["drop_sequence_exhausted"] == 1


def test_the_limit_lets_a_burst_pass_and_then_its_rate() -> None:
    rate, packet = 100_000, nested(esp_packet(body=bytes(900)))
    machine, number = home_agent(limit=rate), 0

    def forwarded(now: float, count: int) -> int:
        nonlocal number
        before = machine.counters()["relayed_packets"]
        for _ in range(count):
            number += 1
            machine.inbound(to_agent(packet, number), AT_A, now)
        return machine.counters()["relayed_packets"] - before

    burst = RELAY_BURST_OCTETS // len(packet)
    assert forwarded(10.0, burst + 20) == burst
    assert machine.counters()["drop_relay_limit"] == 20
    assert abs(forwarded(10.5, 100) - rate // 2 / len(packet)) <= 1
    machine.set_relay_limit(0)
    assert forwarded(10.5, 200) == 200


class Crowded:
    """A home agent with a limit; A floods it with ten times as much, B sends a tenth of it."""

    RATE = 100_000

    def __init__(self) -> None:
        self.machine = home_agent(limit=self.RATE)
        self.to_h = {
            HOST_A: OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False)),
            HOST_B: OutboundSa(relay_sa(B_TO_H, HOST_B, AGENT, inbound=False)),
        }
        self.passed = dict.fromkeys(self.to_h, 0)

    def send(self, source: bytes, target: bytes, now: float) -> None:
        """A nested packet of 1,000 octets."""
        packet = nested(bytes(960), source=source, destination=target)
        outputs = self.machine.inbound(self.to_h[source].seal(packet), AT_A, now)
        self.passed[source] += len(packet) * len(sent(outputs))

    def second(self, begin: float) -> None:
        for tick in range(100):
            for _ in range(10):
                self.send(HOST_A, HOST_B, begin + tick / 100)
            if tick % 10 == 0:
                self.send(HOST_B, HOST_A, begin + tick / 100)


def test_a_host_that_floods_takes_nothing_from_one_that_sends_little() -> None:
    """And all the rest is its own."""
    crowded = Crowded()
    for second in range(10):
        crowded.second(100.0 + second)
        if second % 3 == 0:  # a rekey, or a move
            crowded.machine.set_relay(HOST_A, H_TO_A, AT_A, True)
    assert crowded.passed[HOST_B] == 10 * 10 * 1000
    at_once = 2 * RELAY_BURST_OCTETS
    whole = crowded.passed[HOST_A] + crowded.passed[HOST_B]
    assert 10 * crowded.RATE <= whole <= 10 * crowded.RATE + at_once
    counters = crowded.machine.inbound_counters(B_TO_H)
    assert counters is not None
    assert counters.drops == {}


def test_who_is_not_registered_has_no_share_of_the_limit() -> None:
    """It competes with those who flood."""
    crowded = Crowded()
    crowded.machine.set_relay(HOST_B, H_TO_B, AT_B, False)
    crowded.machine.set_relay(HOST_C, H_TO_B, AT_B, True)
    for number in range(100):
        crowded.send(HOST_A, HOST_C, 100.0)
        assert crowded.passed[HOST_A] == 1000 * min(number + 1, RELAY_BURST_OCTETS // 1000)
    crowded.send(HOST_B, HOST_A, 100.0)
    assert crowded.passed[HOST_B] == 0


def test_so_many_probes_of_a_host_are_forwarded_a_second() -> None:
    """What is above is lost, without a share of the limit; others have their own."""
    rate = 8 * len(nested(esp_packet())) * RELAYED_PROBES_PER_SECOND
    machine, probe = home_agent(limit=rate), as_probe(nested(esp_packet()))
    for now in (10.0, 11.0):
        for number in range(RELAYED_PROBES_PER_SECOND + 20):
            outputs = machine.inbound(to_agent(probe, int(now) * 1000 + number), AT_A, now)
            assert len(sent(outputs)) == (number < RELAYED_PROBES_PER_SECOND)
    counters = machine.inbound_counters(A_TO_H)
    assert counters is not None
    assert counters.drops == {"relay_limit": 40}
    assert sent(machine.inbound(to_agent(nested(esp_packet()), 11_900), AT_A, 11.0))
    back = as_probe(nested(esp_packet(), source=HOST_B, destination=HOST_A))
    sealing = OutboundSa(relay_sa(B_TO_H, HOST_B, AGENT, inbound=False))
    assert sent(machine.inbound(sealing.seal(back), AT_B, 11.0))


# --- What is for us -----------------------------------------------------------------------------


def test_a_nested_packet_is_opened_as_if_it_had_just_come() -> None:
    machine = host_b()
    outputs = machine.inbound(from_agent(nested(esp_packet())), AT_H, 2.0)
    assert outputs[-1] == WritePacket(ipv6(HOST_A, HOST_B, b"hello"))
    assert machine.counters()["rx_packets"] == 1
    outputs = machine.inbound(from_agent(nested(esp_packet()), 2), AT_H, 2.0)
    assert outputs == []
    assert machine.counters()["drop_replay"] == 1
    relayed, inner = machine.inbound_counters(H_TO_B), machine.inbound_counters(A_TO_B)
    assert relayed is not None
    assert inner is not None
    assert (relayed.packets, inner.packets) == (2, 1)


def test_a_nested_spi_that_nobody_knows_is_told() -> None:
    machine = host_b()
    outputs = machine.inbound(from_agent(nested(b"\x12\x34\x56\x78" + bytes(60))), AT_H)
    assert outputs[1:] == [UnknownSpiEvent(0x12345678, relay_endpoint(HOST_A))]
    looks = nested(FIRST_WORD)  # behind the header for ESP it is none, whatever it looks like
    machine.inbound(from_agent(looks, 2), AT_H)
    assert machine.counters()["drop_unknown_spi"] == 2


def test_a_relay_sa_inside_a_relay_sa_is_dropped() -> None:
    """The nested depth is one: the inner packet is of a relay SA of ours, and authentic."""
    machine = host_b()
    inner = from_agent(nested(esp_packet()), 7)
    machine.inbound(from_agent(nested(inner)), AT_H)
    assert machine.counters()["drop_not_relayed"] == 1
    assert machine._inbound[H_TO_B].sa.sequence == 1, "it was not opened"


@pytest.mark.parametrize(
    "source", [HOST_B, bytes.fromhex("20010db8" + "00" * 12), b"\xff\x02" + bytes(14), bytes(16)]
)
def test_the_source_of_a_nested_packet_is_a_host_id_and_not_ours(source: bytes) -> None:
    """So no answer to it ever leaves for an outer address."""
    machine = host_b()
    machine.inbound(from_agent(nested_ike(source=source)), AT_H)
    machine.inbound(from_agent(nested(esp_packet(), source=source), 2), AT_H)
    assert machine.counters()["drop_foreign_source"] == 2


def test_a_dummy_of_the_relay_sa_itself_is_one() -> None:
    outputs = host_b().inbound(from_agent(b"probe", 1, 59), AT_H)
    assert DummyEvent(H_TO_B, 5, b"probe") in outputs


def test_bad_relays_are_refused() -> None:
    machine = home_agent()
    with pytest.raises(ValueError, match="16 octets"):
        machine.set_relay(b"short", H_TO_A, AT_A)
    with pytest.raises(ValueError, match="0 or more"):
        machine.set_relay_limit(-1)


# --- Octets on the wire (I52) --------------------------------------------------------------------


def test_octets_per_packet_of_each_form() -> None:
    """I52, RFC 4303 §2: computed from real packets, for 1,000 octets of TCP or UDP.

    The IPv6 header inside costs 40; nesting costs another 40 and one more ESP (34 to 37).
    """
    segment = bytes(1000)
    packet = ipv6(HOST_A, HOST_B, segment, 6)
    tunnel = esp_packet(body=segment)
    params = sa(A_TO_B, HOST_A, HOST_B, inbound=False, mode=Mode.TRANSPORT)
    transport = OutboundSa(params).seal(segment, 6)
    outer = {
        "tunnel": to_agent(nested(tunnel)),
        "transport": to_agent(nested(transport)),
    }
    sizes = len(tunnel), len(transport), len(outer["tunnel"]), len(outer["transport"])
    assert len(packet) == 1040
    assert sizes == (1076, 1036, 1152, 1112)
    assert len(tunnel) - len(transport) == 40
    for nested_, bare in ((outer["tunnel"], tunnel), (outer["transport"], transport)):
        assert 40 + 34 <= len(nested_) - len(bare) <= 40 + 37


def test_nesting_of_any_size_costs_between_74_and_77_octets() -> None:
    for octets in range(8, 200):
        packet = relay.around_esp(HOST_A, HOST_B, bytes(octets))
        assert 74 <= len(to_agent(packet)) - octets <= 77
