"""The path MTU by relay, where one leg is narrow, on the direct path after it, and back again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.namespaces.legs import Legs
from tunnel.io.lab import Lab, missing

pytestmark = pytest.mark.root

OCTETS = 2_000_000
FAMILY, HEADER = 6, 40
"""Over IPv6 no router helps by fragments; test_home_agent.py has the nested path over IPv4."""
DIRECT = HEADER + 8 + 34  # UDP, and ESP in tunnel mode with its trailer; on ESP's alignment
NESTED = DIRECT + 40 + 34 + 2  # one more IPv6 header, and a second ESP, which pads by two


@pytest.fixture(scope="module")
def legs() -> Iterator[Legs]:
    """The network; every test sets its links, and starts a host again."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Legs(lab, FAMILY, OCTETS)


@pytest.mark.parametrize(
    ("leg", "silent"), [("first", True), ("second", False)], ids=["black hole", "told"]
)
def test_one_narrow_leg(legs: Legs, leg: str, silent: bool) -> None:
    """The inner packet that fits both legs is found, and everything gets through meanwhile."""
    legs.cut(True)
    legs.silent(silent)
    legs.widths(**{leg: 1282 + NESTED})
    legs.again()
    legs.takes("relay")
    legs.transfer()
    legs.knows(1282)
    legs.passes(1282)


def test_a_leg_too_narrow_for_what_ipv6_demands(legs: Legs) -> None:
    """1280 octets of an inner packet go in two."""
    legs.cut(True)
    legs.silent(True)
    legs.widths(second=1202 + NESTED)
    legs.again()
    legs.takes("relay")
    legs.transfer()
    legs.knows(1202, "error")
    legs.passes(1280)


def test_a_narrow_direct_path_after_a_wide_relay_and_the_relay_again(legs: Legs) -> None:
    """Each path has its own size, also where one comes after the other."""
    relayed, direct = _aligned(1500 - NESTED), _aligned(1400 - DIRECT)
    legs.cut(True)
    legs.silent(True)
    legs.widths(direct=1400)
    legs.again()
    legs.takes("relay")
    legs.knows(relayed)
    legs.cut(False)
    legs.takes("direct")
    legs.transfer()
    legs.knows(direct)
    legs.passes(direct)
    legs.cut(True)
    legs.transfer()
    legs.takes("relay")
    legs.knows(relayed)
    legs.passes(relayed)


def _aligned(octets: int) -> int:
    """ESP pads to four octets, of which two are its trailer."""
    return (octets - 2) // 4 * 4 + 2
