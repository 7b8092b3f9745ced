"""A datagram from an address and an interface of our choice, in both pumps (I20)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from fastpath.reference.datapath import SendDatagram
from fastpath.reference.esp import InboundSa
from fastpath.types import ControlEvent, Endpoint, MobilityEvent, Opened, Source
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AT_B,
    B_TO_A,
    H_TO_A,
    HOST_A,
    HOST_B,
    MESSAGE,
    relay_endpoint,
    sa,
)
from tests.fastpath.support import ipv6
from tests.fastpath.test_pump_conformance import WAYS, Rig, endpoint_of, readable, udp
from tests.fastpath.test_relay import host_a
from tests.fastpath.test_relay_pumps import as_host, maker
from tunnel.io import sources

PACKET = ipv6(HOST_A, HOST_B, MESSAGE, 135)
LOOPBACK = socket.if_nametoindex("lo")
ELSEWHERE: Source = ("127.0.0.2", LOOPBACK)


@pytest.fixture(params=WAYS, ids=[f"{engine}-{queues}" for engine, queues in WAYS])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A, which reaches B by relay or directly."""
    engine, queues = request.param
    made = Rig(maker(engine), queues, host_id=HOST_A)
    as_host(made.pump, HOST_A, HOST_B, (A_TO_H, H_TO_A, A_TO_B, B_TO_A), endpoint_of(made.far))
    made.pump.start()
    yield made
    made.close()


def came(rig: Rig, far: socket.socket) -> tuple[bytes, Endpoint]:
    """The next datagram, and where it came from."""
    assert readable(far.fileno()), f"nothing came; {rig.pump.counters()}"
    data, (host, port, *_) = far.recvfrom(70_000)
    return data, (host, port)


def test_it_leaves_from_the_address_under_test(rig: Rig) -> None:
    """And what has no source still leaves as ever, in the order of its numbers."""
    reader = InboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=True))
    usual = endpoint_of(rig.near_udp)
    for number, (source, expected) in enumerate(
        [(None, usual), (ELSEWHERE, ("127.0.0.2", usual[1])), (None, usual)], 1
    ):
        rig.pump.send_inner(A_TO_B, endpoint_of(rig.far), PACKET, source)
        data, seen = came(rig, rig.far)
        opened = reader.open(data)
        assert isinstance(opened, Opened)
        assert (opened.payload, opened.sequence, seen) == (PACKET, number, expected)
    counters = rig.pump.counters()
    assert counters["tx_packets"] == 3
    assert not [name for name in counters if name.startswith("drop_")]


def test_ipv6_takes_the_address_of_that_interface(rig: Rig) -> None:
    rig.pump.send_inner(A_TO_B, endpoint_of(rig.far6), PACKET, ("::1", LOOPBACK))
    _, seen = came(rig, rig.far6)
    assert seen == endpoint_of(rig.near_udp6)


@pytest.mark.parametrize(
    "gone",
    [("192.0.2.77", LOOPBACK), ("127.0.0.2", 2**31 - 1)],
    ids=["no such address", "no such interface"],
)
def test_a_source_that_is_gone_is_counted(rig: Rig, gone: Source) -> None:
    rig.pump.send_inner(A_TO_B, endpoint_of(rig.far), PACKET, gone)
    rig.until("drop_udp_send", 1)
    rig.pump.send_inner(A_TO_B, endpoint_of(rig.far6), PACKET, ("::1", 2**31 - 1))
    rig.until("drop_udp_send", 2)
    assert not readable(rig.far.fileno(), 0)


def test_what_goes_nested_has_no_other_source(rig: Rig) -> None:
    rig.pump.send_inner(A_TO_B, relay_endpoint(HOST_B), PACKET, ("::1", LOOPBACK))
    rig.until("drop_not_relayed", 1)
    assert not readable(rig.far.fileno(), 0)
    assert "tx_packets" not in rig.pump.counters() or rig.pump.counters()["tx_packets"] == 0


@pytest.mark.parametrize("bad", [("::1", LOOPBACK), ("lo", 1), ("127.0.0.2", 0), ("127.0.0.2", -1)])
def test_what_is_no_source_is_refused(rig: Rig, bad: Source) -> None:
    with pytest.raises(ValueError, match=r"family|address|index"):
        rig.pump.send_inner(A_TO_B, endpoint_of(rig.far), PACKET, bad)
    assert not readable(rig.far.fileno(), 0)


def test_a_plain_datagram_has_a_source_too(rig: Rig) -> None:
    """STUN from the network under test, in order with what has none; the answer comes to us."""
    question, usual = bytes(4) + b"question", endpoint_of(rig.near_udp)
    chosen: Source = ("127.0.0.3", LOOPBACK)
    for source, seen in ((None, usual), (chosen, ("127.0.0.3", usual[1])), (None, usual)):
        rig.pump.send(question, endpoint_of(rig.far), source)
        assert came(rig, rig.far) == (question, seen)
    rig.pump.send(question, endpoint_of(rig.far6), ("::1", LOOPBACK))
    assert came(rig, rig.far6) == (question, endpoint_of(rig.near_udp6))
    rig.far.sendto(bytes(4) + b"answer", usual)
    assert rig.events(1) == [ControlEvent(b"answer", endpoint_of(rig.far), marker=True)]
    assert not [name for name in rig.pump.counters() if name.startswith("drop_")]


def test_a_plain_datagram_whose_source_is_gone_is_counted(rig: Rig) -> None:
    for gone in (("192.0.2.77", LOOPBACK), ("127.0.0.2", 2**31 - 1)):
        rig.pump.send(b"octets", endpoint_of(rig.far), gone)
    rig.until("drop_udp_send", 2)
    rig.pump.send(b"octets", relay_endpoint(HOST_B), ("::1", LOOPBACK))
    rig.until("drop_not_relayed", 1)
    assert not readable(rig.far.fileno(), 0)


@pytest.mark.parametrize("bad", [("::1", LOOPBACK), ("lo", 1), ("127.0.0.2", 0), ("127.0.0.2", -1)])
def test_a_plain_datagram_from_what_is_no_source_is_refused(rig: Rig, bad: Source) -> None:
    with pytest.raises(ValueError, match=r"family|address|index"):
        rig.pump.send(b"octets", endpoint_of(rig.far), bad)
    assert not readable(rig.far.fileno(), 0)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_without_a_socket_of_the_family_it_is_counted(engine: str) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, udp() as only4:
        near.setblocking(False)
        pump = maker(engine)(near.fileno(), only4.fileno(), None, HOST_A)
        pump.install_outbound(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
        pump.send_inner(A_TO_B, ("2001:db8::1", 4500), PACKET, ("2001:db8::2", LOOPBACK))
        pump.send(b"octets", ("2001:db8::1", 4500), ("2001:db8::2", LOOPBACK))
        assert pump.counters()["drop_udp_send"] == 2
        pump.stop()


def test_the_other_end_sees_the_address_under_test(rig: Rig) -> None:
    """I27: whoever tests an address looks answers up by where they came from."""
    other = Rig(maker(rig.pump.engine), host_id=HOST_B)
    try:
        other.pump.install_inbound(sa(A_TO_B, HOST_A, HOST_B, inbound=True))
        other.pump.start()
        rig.pump.send_inner(A_TO_B, endpoint_of(other.near_udp), PACKET, ELSEWHERE)
        seen = ("127.0.0.2", endpoint_of(rig.near_udp)[1])
        found = [one for one in other.events(2) if isinstance(one, MobilityEvent)]
        assert found == [MobilityEvent(A_TO_B, seen, MESSAGE)]
    finally:
        other.close()


def test_the_law_says_where_it_leaves() -> None:
    machine = host_a()
    [usual] = machine.send_inner(A_TO_B, AT_B, PACKET)
    [chosen] = machine.send_inner(A_TO_B, AT_B, PACKET, None, ELSEWHERE)
    assert isinstance(usual, SendDatagram)
    assert isinstance(chosen, SendDatagram)
    assert (usual.source, chosen.source) == (None, ELSEWHERE)
    assert machine.send_inner(A_TO_B, relay_endpoint(HOST_B), PACKET, None, ELSEWHERE) == []
    assert machine.send(b"octets", AT_B, None, ELSEWHERE) == [
        SendDatagram(b"octets", AT_B, source=ELSEWHERE)
    ]
    assert machine.send(b"octets", relay_endpoint(HOST_B), None, ELSEWHERE) == []
    assert machine.counters()["drop_not_relayed"] == 2


def test_elsewhere_nothing_leaves_from_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    send: Callable[..., None] = sources.send_from
    monkeypatch.setattr("sys.platform", "darwin")
    with udp() as one, pytest.raises(OSError, match="not supported"):
        send(one, ELSEWHERE, b"octets", endpoint_of(one))
