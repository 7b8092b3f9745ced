"""``doctor`` tells of a kernel that lets in nothing by a second network, where there is one."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from tests.cli.support import Person
from tunnel.cli.checks import State
from tunnel.cli.way_checks import second_networks
from tunnel.config import HostConfig, load_host
from tunnel.io import netlink, outer
from tunnel.io.netlink import WayOut

FIRST = WayOut(4, 2, "192.168.1.1", "192.168.1.9")
SECOND = WayOut(4, 3, "10.7.0.1", "10.7.0.9")
THIRD = WayOut(4, 4, "10.8.0.1", "10.8.0.9")
SIX = WayOut(6, 5, "fe80::1%eth5", "2001:db8::9")
VPN = WayOut(4, 6, None, "10.9.0.9", tunnel=True)


@pytest.fixture
def config(owner: Person) -> HostConfig:
    return load_host(owner.config)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/sys/net/ipv4/conf; the first network is in use."""
    monkeypatch.setattr(socket, "if_indextoname", lambda index: f"eth{index}")
    monkeypatch.setattr(outer, "outer_endpoints", lambda *_: (("192.168.1.9", 4500),))
    return tmp_path


def strict(conf: Path, **values: int) -> Path:
    for name, value in values.items():
        (conf / name).mkdir()
        (conf / name / "rp_filter").write_text(f"{value}\n")
    return conf


def ways(monkeypatch: pytest.MonkeyPatch, *found: WayOut) -> None:
    monkeypatch.setattr(netlink, "ways_out", lambda: found)


@pytest.mark.parametrize(
    ("everywhere", "there", "told"),
    [(0, 1, True), (1, 0, True), (1, 1, True), (0, 0, False), (1, 2, False), (2, 1, False)],
)
def test_a_strict_filter_before_a_second_network_is_told_with_its_fix(
    config: HostConfig,
    conf: Path,
    monkeypatch: pytest.MonkeyPatch,
    everywhere: int,
    there: int,
    told: bool,
) -> None:
    """The greater of both values holds."""
    ways(monkeypatch, FIRST, SECOND)
    found = list(second_networks(config, strict(conf, all=everywhere, eth2=1, eth3=there)))
    assert bool(found) is told
    for one in found:
        assert one.state is State.WARNING
        assert "comes in by eth3 (rp_filter is strict)" in one.found
        assert "sudo sysctl -w net/ipv4/conf/eth3/rp_filter=2`" in one.fix


def test_all_strict_ones_stand_in_one_line(
    config: HostConfig, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways(monkeypatch, FIRST, SECOND, THIRD)
    (found,) = second_networks(config, strict(conf, all=1))
    assert "by eth3 and eth4 " in found.found
    assert "eth3/rp_filter=2 net/ipv4/conf/eth4/rp_filter=2`" in found.fix


@pytest.mark.parametrize("others", [(), (SIX,), (VPN,)], ids=["none", "IPv6", "a tunnel"])
def test_nothing_is_said_where_it_does_not_matter(
    config: HostConfig, conf: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[WayOut, ...]
) -> None:
    ways(monkeypatch, FIRST, *others)
    assert not list(second_networks(config, strict(conf, all=1)))


def test_nothing_is_said_of_a_host_without_an_account_or_rtnetlink(
    config: HostConfig, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict(conf, all=1)
    ways(monkeypatch, FIRST, SECOND)
    assert list(second_networks(config, conf))
    assert not list(second_networks(msgspec.structs.replace(config, account=None), conf))

    def missing() -> tuple[WayOut, ...]:
        raise AttributeError("module 'socket' has no attribute 'AF_NETLINK'")

    monkeypatch.setattr(netlink, "ways_out", missing)
    assert not list(second_networks(config, conf))


def test_a_kernel_that_says_nothing_is_not_strict(
    config: HostConfig, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways(monkeypatch, FIRST, SECOND)
    assert not list(second_networks(config, conf))
