"""A NAT that soon forgets: an idle host behind it stays reachable, and learns how long it has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.namespaces.homes import Home, Homes
from tunnel.io.lab import Lab, missing, wait_until

pytestmark = pytest.mark.root

FORGETS = 25  # seconds after the last packet; keepalives begin with one every 20 (RFC 3948 §4)
PATIENCE = 60.0


@pytest.fixture(scope="module")
def homes() -> Iterator[tuple[Home, Home]]:
    """One host with a public address, one behind such a NAT."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "public", "restricted")
        public, behind = made.homes
        for name in ("udp_timeout", "udp_timeout_stream"):
            behind.routers[0].write_sysctl(f"net/netfilter/nf_conntrack_{name}", str(FORGETS))
        made.up()
        wait_until(lambda: behind.host.status()["nat"]["mapping"], PATIENCE, "the NAT is known")
        yield public, behind


def ping(source: Home, target: Home) -> int:
    config = ("-c", str(source.host.config))
    return source.host.cli("ping", target.label, "-n", "1", *config, check=False).returncode


def survived(home: Home, peer: Home) -> bool:
    """Whether a silence was tried and found to be survived."""
    said = home.host.cli("explain", peer.label, "-c", str(home.host.config)).stdout
    return "the NAT remembers us for longer" in said


def test_an_idle_host_stays_reachable_behind_a_nat_that_soon_forgets(
    homes: tuple[Home, Home],
) -> None:
    public, behind = homes
    assert ping(behind, public) == 0
    wait_until(lambda: survived(behind, public) or None, 3 * PATIENCE, "a silence survived")
    peer = behind.host.peer(public.label)
    assert peer is not None and 15 <= peer["keepalive_s"] < FORGETS
    # Twice as long as the NAT remembers, nothing but keepalives has gone; and now the other way:
    # one packet, as an application would send it.
    before = public.host.peer(behind.label)
    assert before is not None and before["keepalive_s"] is None
    assert ping(public, behind) == 0
