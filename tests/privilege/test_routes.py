"""The route helper refuses all but one unique local address (/128), and undoes what it did."""

from __future__ import annotations

import errno
from ipaddress import IPv6Address
from typing import Any

import pytest

from tunnel.io import netlink, routes
from tunnel.io.routes import RouteTable

PEER = IPv6Address("fd12::2")
OTHERS = IPv6Address("fd12::3")


class Kernel:
    """A main routing table with one route of the person's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.routes = {OTHERS}
        self.failure = 0
        monkeypatch.setattr(netlink, "change_route", self.change_route)
        monkeypatch.setattr(netlink, "remove_address", self.remove_address)
        self.removed_addresses: list[IPv6Address] = []

    def change_route(self, kernel: Any, add: bool, index: int, to: IPv6Address) -> bool:
        assert index == 7
        if self.failure:
            raise OSError(self.failure, "")
        before = set(self.routes)
        (self.routes.add if add else self.routes.discard)(to)
        return self.routes != before

    def remove_address(self, kernel: Any, index: int, address: IPv6Address) -> None:
        self.removed_addresses.append(address)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def table(kernel: Kernel) -> RouteTable:
    return RouteTable(kernel, 7)


@pytest.mark.parametrize(
    "request_octets",
    [
        b"+" + IPv6Address("2001:db8::1").packed,
        b"+" + IPv6Address("::").packed,
        b"+" + IPv6Address("fe80::1").packed,
        b"+" + IPv6Address("ff02::1").packed,
        b"-" + IPv6Address("2001:db8::1").packed,
        b"*" + PEER.packed,
        b"+" + PEER.packed[:15],
        b"+" + PEER.packed + b"\x40",
        b"+",
    ],
)
def test_only_one_ula_at_a_time(table: RouteTable, kernel: Kernel, request_octets: bytes) -> None:
    assert table.handle(request_octets) == errno.EPERM
    assert kernel.routes == {OTHERS}


def test_what_it_added_it_takes_away_at_the_end(table: RouteTable, kernel: Kernel) -> None:
    address = IPv6Address("fd12::1")
    assert table.handle(b"+" + PEER.packed) == 0
    assert kernel.routes == {OTHERS, PEER}
    table.undo(address)
    assert kernel.routes == {OTHERS}
    assert kernel.removed_addresses == [address]


def test_a_route_of_the_person_s_own_stays(table: RouteTable, kernel: Kernel) -> None:
    assert table.handle(b"+" + OTHERS.packed) == 0
    assert table.handle(b"-" + OTHERS.packed) == 0
    table.undo(None)
    assert kernel.routes == {OTHERS}


def test_the_kernel_s_refusal_is_passed_on(table: RouteTable, kernel: Kernel) -> None:
    kernel.failure = errno.ENODEV
    assert table.handle(b"+" + PEER.packed) == errno.ENODEV
    table.undo(None)


def test_the_helper_knows_no_more_requests() -> None:
    assert routes._REQUEST_OCTETS == 17
