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

PATIENCE = 30.0
KINDS: tuple[Kind, ...] = ("public", "mapped", "restricted", "symmetric", "double")
IMPOSSIBLE = {
    frozenset(("symmetric",)),
    frozenset(("symmetric", "restricted")),
    frozenset(("symmetric", "double")),
}


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """Two hosts of every kind."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, *KINDS, *KINDS).up()
        for home in made.homes:
            wait_until(lambda home=home: settled(home) or None, PATIENCE, f"{home.label} settles")
        yield made


def settled(home: Home) -> bool:
    """Whether the host knows what stands before it."""
    nat = home.host.status()["nat"]
    wanted = {"mapped": "method", "public": None}.get(home.kind, "mapping")
    return wanted is None or nat[wanted] is not None


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
    """Direct, or told within ten seconds why not."""
    source, target = homes.of(ours), homes.of(theirs, 1)
    code, answer, said = ping(source, target)
    if frozenset((ours, theirs)) in IMPOSSIBLE:
        assert code == 1, answer
        assert "symmetric" in said, said
        return
    assert code == 0, said
    peer = source.host.peer(target.label)
    assert peer is not None
    assert peer["path"] == "direct"
