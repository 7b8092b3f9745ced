"""UDP sockets: a port that is taken has a sentence; our own source is the kernel's choice."""

from __future__ import annotations

import os
import select
import socket
from ipaddress import IPv6Address

import pytest

from tests.ports import free_port
from tunnel.io.outer import outer_endpoints
from tunnel.io.sockets import SocketError, UdpPair, source_towards


@pytest.mark.parametrize("queues", [1, 4])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_an_occupied_port_is_told_with_its_cause_and_fix(queues: int, shared: bool) -> None:
    """Also by somebody who would share it with us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SocketError) as caught:
            UdpPair(port, "host.listen", queues)
    assert str(caught.value) == (
        f"UDP port {port} is in use by another process; "
        f"end that one (`ss -ulpn sport = :{port}` shows it) or change host.listen"
    )


def test_each_queue_has_a_socket_of_the_port_and_all_together_get_everything() -> None:
    pair = UdpPair(free_port(), "host.listen", 3)
    fds = [pair.fd(socket.AF_INET, queue) for queue in range(3)]
    try:
        assert len(set(fds)) == 3
        assert None not in fds
        for number in range(30):  # from 30 ports, so that several sockets get some
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes([number]), ("127.0.0.1", pair.port))
        got = {fd: _received(fd) for fd in fds if fd is not None}
        assert sorted(octet for some in got.values() for octet in some) == list(range(30))
        assert sum(bool(some) for some in got.values()) > 1
    finally:
        pair.close()


def _received(fd: int) -> list[int]:
    with socket.socket(fileno=os.dup(fd)) as one:
        found: list[int] = []
        while select.select([one], [], [], 0)[0]:
            found += one.recv(10)
        return found


def test_a_pair_sends_to_addresses_only_and_never_looks_up_a_name() -> None:
    pair = UdpPair(free_port(), "host.listen")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.settimeout(60)
            assert pair.send(b"hello", other.getsockname())
            assert other.recvfrom(100)[0] == b"hello"
        assert not pair.send(b"hello", ("localhost", 9))
        assert not pair.send(b"hello", ("", 9))
    finally:
        pair.close()


def test_loopback_is_our_endpoint_only_for_a_rendezvous_on_loopback() -> None:
    assert source_towards("127.0.0.1", socket.AF_INET) == "127.0.0.1"
    ours = outer_endpoints(4500, "127.0.0.1", (), IPv6Address("fd00::1"))
    assert ("127.0.0.1", 4500) in ours
    assert all(
        host not in ("127.0.0.1", "::1")
        for host, _ in outer_endpoints(4500, None, (), IPv6Address("fd00::1"))
    )


def test_our_own_host_id_is_never_an_outer_endpoint() -> None:
    """A host id on loopback stands in for the TUN device's, which the kernel might choose."""
    assert outer_endpoints(4500, "::1", (), IPv6Address("::1")) == outer_endpoints(
        4500, None, (), IPv6Address("::1")
    )
