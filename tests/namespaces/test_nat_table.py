"""Who reaches whom through which NATs: every cell of the table in the README, with real routers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes, Kind
from tunnel.io.lab import Lab, missing, wait_until

pytestmark = pytest.mark.root

PATIENCE = 90.0
KINDS: tuple[Kind, ...] = ("public", "mapped", "restricted", "symmetric", "double")
RELAYED = {
    frozenset(("symmetric",)),
    frozenset(("symmetric", "restricted")),
    frozenset(("symmetric", "double")),
}


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """Two hosts of every kind, and a home agent."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, *KINDS, *KINDS, agents=1).up()
        for home in made.homes:
            wait_until(lambda home=home: settled(home) or None, PATIENCE, f"{home.label} settles")
        yield made


def settled(home: Home) -> bool:
    """Whether the host knows what stands before it, and has a home agent, or is one."""
    status = home.host.status()
    wanted = {"mapped": "method", "public": None}.get(home.kind, "mapping")
    knows = wanted is None or status["nat"][wanted] is not None
    return knows and (
        status["home_agent"] is not None or any(one["registered"] for one in status["home_agents"])
    )


def ping(source: Home, target: Home) -> tuple[int, dict[str, Any], str]:
    done = source.host.cli(
        *("ping", target.label, "-n", "1", "--json", "-c", str(source.host.config)), check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_each_host_knows_what_stands_before_it(homes: Homes, kind: Kind) -> None:
    home = homes.of(kind)
    status = home.host.status()
    nat, endpoint = status["nat"], status["host"]["endpoint"]
    assert nat["private_address"] is (kind != "public")
    assert endpoint.startswith(f"{home.outer}:")
    if kind == "mapped":
        assert (nat["method"], nat["external"]) == ("pcp", f"{home.outer}:4500")
    if kind in ("restricted", "double"):
        assert nat["mapping"] == "independent"
    if kind == "symmetric":
        assert nat["mapping"] == "dependent"
    # A NAT behind another is one NAT to those who are not told by the router of the first.
    called = {"restricted": "independent", "double": "independent"}.get(kind, kind)
    wait_until(
        lambda: home.host.status()["nat"]["kind"] == called or None,
        PATIENCE,
        f"{home.label} calls its network {called}",
    )


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(KINDS, KINDS)))
def test_the_table(homes: Homes, ours: Kind, theirs: Kind) -> None:
    """Direct, or through the home agent where two NATs cannot meet."""
    source, target = homes.of(ours), homes.of(theirs, 1)
    code, _, said = ping(source, target)
    assert code == 0, said
    peer = source.host.peer(target.label)
    assert peer is not None
    if frozenset((ours, theirs)) in RELAYED:
        assert peer["path"] == "relay"
        assert "symmetric" in peer["relay_reason"]
    else:
        assert peer["path"] == "direct"
