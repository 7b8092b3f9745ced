"""The anti-replay window and ESN inference, by hand and against a model that keeps everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastpath.reference.replay import ReplayWindow
from fastpath.types import Drop, Opened
from tests.fastpath.support import ENGINES, UNHURRIED, esp_engine, params

SIZES = [32, 64, 65, 1024, 4096]


def accept(window: ReplayWindow, sequence: int) -> bool:
    if not window.check(sequence):
        return False
    window.mark(sequence)
    return True


@pytest.mark.parametrize("size", SIZES)
def test_the_left_edge_of_the_window_is_exact(size: int) -> None:
    window = ReplayWindow(size, esn=False)
    top = 10 * size
    assert accept(window, top)
    assert not window.check(top - size), "left of the window"
    assert accept(window, top - size + 1), "the last one within"
    assert not window.check(top - size + 1), "seen"
    assert not window.check(top), "seen"


def test_sequence_zero_is_never_valid() -> None:
    """RFC 4303 §2.2: the first packet has number 1."""
    assert not ReplayWindow(64, esn=False).check(0)
    assert not ReplayWindow(64, esn=True).check(0)


@pytest.mark.parametrize(("size", "fine"), [(31, False), (32, True), (65536, True), (65537, False)])
def test_sizes_of_a_window(size: int, fine: bool) -> None:
    if fine:
        assert ReplayWindow(size, esn=True).size == size
    else:
        with pytest.raises(ValueError, match=f"window {size} is not within"):
            ReplayWindow(size, esn=True)


def test_checking_alone_changes_nothing() -> None:
    window = ReplayWindow(64, esn=False)
    for _ in range(3):
        assert window.check(7)
    assert window.top == 0


@pytest.mark.parametrize(
    ("top", "low", "expected"),
    [
        # Case A: Tl >= W - 1, the window lies in one subspace (App. A2.1, figure 2).
        (100, 37, 37),  # bottom of the window
        (100, 36, 2**32 + 36),  # left of it: taken for the next subspace, then fails its ICV
        (100, 2**32 - 1, 2**32 - 1),
        ((5 << 32) + 1000, 1001, (5 << 32) + 1001),
        # Tl = W - 1 is the last of case A to have the window's bottom at 0.
        (63, 5, 5),
        ((1 << 32) + 63, 0, 1 << 32),
        ((1 << 32) + 63, 2**32 - 1, (1 << 32) + 2**32 - 1),
        ((1 << 32) + 62, 2**32 - 1, 2**32 - 1),  # Tl = W - 2 is the first of case B
        ((1 << 32) + 62, 0, 1 << 32),
        # Case B: Tl < W - 1, the window spans two subspaces.
        ((1 << 32) + 10, 2**32 - 53, 2**32 - 53),  # bottom, in the subspace before
        ((1 << 32) + 10, 2**32 - 54, (1 << 32) + 2**32 - 54),  # below: a far jump ahead
        ((1 << 32) + 10, 11, (1 << 32) + 11),
        (2**32 - 1, 0, 2**32),  # the wrap itself
        # Outside the 64-bit space.
        (10, 2**32 - 53, None),
        (2**64 - 1, 5, None),
        (2**64 - 1, 2**32 - 1, 2**64 - 1),  # its last number
    ],
)
def test_esn_is_inferred_as_rfc4303_appendix_a2_says(
    top: int, low: int, expected: int | None
) -> None:
    window = ReplayWindow(64, esn=True)
    window.top = top
    assert window.infer(low) == expected


@UNHURRIED
@given(
    size=st.sampled_from(SIZES),
    top=st.integers(0, 2**64 - 1),
    offset=st.integers(-70_000, 2**31),
)
def test_any_number_near_the_window_is_inferred_right(size: int, top: int, offset: int) -> None:
    """Whatever lies within the window or less than 2^32 - W ahead comes back as it was sent."""
    sequence = top + max(offset, 1 - size)
    window = ReplayWindow(size, esn=True)
    window.top = top
    if 0 <= sequence < 2**64:
        assert window.infer(sequence & 0xFFFF_FFFF) == sequence


STEPS = st.one_of(
    st.integers(1, 3),
    st.integers(-130, 130),
    st.integers(-5000, 5000),
    st.sampled_from([-64, -63, -65, 64, 63, 65, 127, 128, 129, 4096, 4160, 100_000]),
)


@UNHURRIED
@given(size=st.sampled_from(SIZES), steps=st.lists(STEPS, max_size=200))
def test_the_ring_accepts_what_a_set_accepts(size: int, steps: list[int]) -> None:
    """Steps from the highest number so far: in order, back into the window, far ahead."""
    window, seen, top = ReplayWindow(size, esn=False), set[int](), 0
    for step in steps:
        number = top + step
        if number < 1:
            continue
        expected = number > top - size and number not in seen
        assert accept(window, number) == expected, (number, top)
        if expected:
            seen.add(number)
            top = max(top, number)


@pytest.mark.parametrize("size", SIZES)
def test_every_number_of_the_window_is_accepted_once(size: int) -> None:
    """Whatever the ring held before a jump, and wherever within its block the top stands."""
    for jump in (1, 63, 64, 65, size - 1, size, size + 63, size + 64, size + 128, 10 * size):
        window, start = ReplayWindow(size, esn=False), 3 * size + 17
        for number in range(start - size + 1, start + 1):
            accept(window, number)
        top = start + jump
        assert accept(window, top)
        for number in range(top - size + 1, top):
            assert accept(window, number) == (number > start), (jump, number)
            assert not window.check(number), (jump, number)


class EsnStream(RuleBasedStateMachine):
    """Both engines receive one stream, over the wrap of the low 32 bits, against a plain set."""

    @initialize(
        esn=st.booleans(),
        window=st.sampled_from([32, 64, 1024]),
        start=st.sampled_from([1, 5000, 2**31, 2**32 - 100]),
    )
    def begin(self, esn: bool, window: int, start: int) -> None:
        self.params = params(esn=esn, replay_window=window)
        self.limit = 2**64 - 1 if esn else 2**32 - 1
        self.engines: list[Any] = [esp_engine(name) for name in ENGINES]
        self.inbound = [engine.InboundSa(self.params) for engine in self.engines]
        self.seen: set[int] = set()
        self.top = 0
        for step in (2**31, start) if start > 2**31 else (start,):
            self.arrive(step)

    def arrive(self, sequence: int) -> None:
        if not 1 <= sequence <= self.limit:
            return
        packet = self.engines[0].OutboundSa(self.params, sequence - 1).seal(b"x", 41)
        fresh = sequence > self.top - self.params.replay_window and sequence not in self.seen
        for inbound in self.inbound:
            verdict = inbound.open(packet)
            if fresh:
                assert verdict == Opened(b"x", 41, sequence)
            else:  # a far-left one may be inferred into the next subspace, where its ICV fails
                assert verdict in (Drop.REPLAY, Drop.AUTHENTICATION)
        if fresh:
            self.seen.add(sequence)
            self.top = max(self.top, sequence)

    @rule(ahead=st.integers(1, 200))
    def newer(self, ahead: int) -> None:
        self.arrive(self.top + ahead)

    @rule(behind=st.integers(0, 1100))
    def older(self, behind: int) -> None:
        self.arrive(self.top - behind)

    @rule(pick=st.randoms(use_true_random=False))
    def duplicate(self, pick: Any) -> None:
        self.arrive(pick.choice(sorted(self.seen)))

    @rule(jump=st.sampled_from([2**16, 2**30, 2**31]))
    def jump(self, jump: int) -> None:
        self.arrive(self.top + jump)

    @rule(octet=st.integers(4, 40))
    def forge_ahead(self, octet: int) -> None:
        if self.top + 1 > self.limit:
            return
        sa = self.engines[0].OutboundSa(self.params, self.top)
        packet = bytearray(sa.seal(b"forged", 41))
        packet[octet % len(packet)] ^= 1
        for inbound in self.inbound:
            assert isinstance(inbound.open(bytes(packet)), Drop)

    @invariant()
    def windows_agree(self) -> None:
        for inbound in getattr(self, "inbound", []):
            assert inbound.sequence == self.top


EsnStream.TestCase.settings = settings(UNHURRIED, max_examples=40, stateful_step_count=40)
TestEsnStream = EsnStream.TestCase
