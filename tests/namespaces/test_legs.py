"""The path MTU by relay, where one leg is narrow, on the direct path after it, and back again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.namespaces.legs import Legs
from tunnel.io.lab import Lab, missing

pytestmark = pytest.mark.root

OCTETS = 3_000_000
OUTER = {4: 20, 6: 40}
DIRECT = 8 + 34  # UDP, and ESP in tunnel mode with its trailer; on ESP's alignment
NESTED = DIRECT + 40 + 34 + 2  # one more IPv6 header, and a second ESP, which pads by two


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def legs(request: pytest.FixtureRequest) -> Iterator[tuple[Legs, int]]:
    """The network, and the octets of its IP header."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Legs(lab, request.param, OCTETS), OUTER[request.param]


@pytest.mark.parametrize("silent", [False, True], ids=["told", "black hole"])
@pytest.mark.parametrize("leg", ["first", "second"])
def test_one_narrow_leg(legs: tuple[Legs, int], leg: str, silent: bool) -> None:
    """The inner packet that fits both legs is found, and everything gets through meanwhile."""
    stage, header = legs
    width = 1282 + header + NESTED
    stage.cut(True)
    stage.silent(silent)
    stage.widths(**{leg: width})
    stage.again()
    stage.takes("relay")
    stage.transfer()
    stage.knows(1282)
    stage.passes(1282)
    stage.transfer()


def test_a_leg_too_narrow_for_what_ipv6_demands(legs: tuple[Legs, int]) -> None:
    """1280 octets of an inner packet go in two."""
    stage, header = legs
    stage.cut(True)
    stage.silent(True)
    stage.widths(first=1202 + header + NESTED)
    stage.again()
    stage.takes("relay")
    stage.transfer()
    stage.knows(1202, "error")
    stage.passes(1280)
    stage.transfer()


def test_a_narrow_direct_path_after_a_wide_relay_and_the_relay_again(
    legs: tuple[Legs, int],
) -> None:
    """Each path has its own size, also where one comes after the other."""
    stage, header = legs
    stage.cut(True)
    stage.silent(True)
    stage.widths(direct=1400)
    stage.again()
    stage.takes("relay")
    stage.knows(_aligned(1500 - header - NESTED))
    stage.cut(False)
    stage.takes("direct")
    stage.transfer()
    stage.knows(_aligned(1400 - header - DIRECT))
    stage.passes(_aligned(1400 - header - DIRECT))
    stage.cut(True)
    stage.transfer()
    stage.takes("relay")
    stage.knows(_aligned(1500 - header - NESTED))
    stage.passes(_aligned(1500 - header - NESTED))


def _aligned(octets: int) -> int:
    """ESP pads to four octets, of which two are its trailer."""
    return (octets - 2) // 4 * 4 + 2
