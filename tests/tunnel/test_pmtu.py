"""The path MTU machine on a virtual clock (RFC 8899): it finds, keeps, lowers and raises."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fastpath.support import UNHURRIED
from tunnel.pmtu import SURE, PathMtu, PmtuSettings, PmtuState

RTT = 0.05
SETTINGS = PmtuSettings()


def best(limit: int, path: int) -> int:
    """The largest inner packet that fits, where sizes count in steps of ESP's alignment."""
    return min(limit, (path - 2) // 4 * 4 + 2) if path < limit + 3 else limit


class Path:
    """A peer behind a path that takes packets of ``mtu`` octets and loses some of all sizes."""

    def __init__(self, limit: int, mtu: int, *, loss: float = 0.0, seed: int = 0) -> None:
        self.machine = PathMtu(limit)
        self.mtu = mtu
        self.loss = loss
        self.random = random.Random(seed)
        self.now = 0.0
        self.sent: list[tuple[float, int]] = []
        self.traffic = False
        self._answers: list[tuple[float, int]] = []

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Lets time pass; true as soon as ``until`` holds. Ends when nothing is due any more."""
        end = self.now + seconds
        for _ in range(20_000):
            if until():
                return True
            if self.traffic:
                self.machine.activity(self.now, self.now + 0.001)
            timer = self.machine.due
            times = [at for at in (timer, *(at for at, _ in self._answers[:1])) if at is not None]
            at = max(min(times, default=end), self.now)
            if at >= end:
                self.now = end
                return until()
            self.now = at
            while self._answers and self._answers[0][0] <= self.now:
                self.machine.answered(heapq.heappop(self._answers)[1], self.now)
            for probe in self.machine.advance(self.now):
                self.sent.append((self.now, probe.octets))
                if probe.octets <= self.mtu and self.random.random() >= self.loss:
                    heapq.heappush(self._answers, (self.now + RTT, probe.number))
        raise AssertionError("the machine does not come to rest")

    def settled(self) -> bool:
        return self.machine.state in (PmtuState.COMPLETE, PmtuState.ERROR)


def test_a_path_that_takes_all_is_known_after_one_round_trip() -> None:
    path = Path(1400, 9000)
    assert path.run(1.0, path.settled)
    assert path.now == pytest.approx(RTT)
    assert (path.machine.mtu, path.machine.largest) == (1400, 1400)
    assert [octets for _, octets in path.sent] == [514, 1282, 1402]


@UNHURRIED
@given(limit=st.integers(1280, 9000), path_mtu=st.integers(514, 9100))
def test_it_converges_to_the_true_mtu(limit: int, path_mtu: int) -> None:
    """Whatever the path: exact to the alignment of ESP, within half a minute."""
    path = Path(limit, path_mtu)
    assert path.run(30.0, path.settled)
    assert path.machine.mtu == best(limit, path_mtu)
    assert path.machine.largest == max(1280, path.machine.mtu)
    expected = PmtuState.COMPLETE if path.machine.mtu >= 1280 else PmtuState.ERROR
    assert path.machine.state is expected


@UNHURRIED
@given(limit=st.integers(1280, 9000), path_mtu=st.integers(514, 9100))
def test_while_it_searches_no_application_is_told_too_little(limit: int, path_mtu: int) -> None:
    """Its kernel would keep that for ten minutes (net.ipv6.route.mtu_expires)."""
    path = Path(limit, path_mtu)
    told: set[int] = set()
    path.run(30.0, lambda: told.add(path.machine.largest) or path.settled())
    assert min(told) >= max(1280, best(limit, path_mtu))


@UNHURRIED
@given(
    limit=st.integers(1280, 9000),
    path_mtu=st.integers(514, 9100),
    loss=st.floats(0.0, 0.4),
    seed=st.integers(0, 2**32),
)
def test_loss_never_makes_it_believe_in_too_much(
    limit: int, path_mtu: int, loss: float, seed: int
) -> None:
    path = Path(limit, path_mtu, loss=loss, seed=seed)
    path.traffic = True
    path.run(60.0)
    if path.settled():
        assert path.machine.mtu <= best(limit, path_mtu)
    path.loss = 0.0
    path.run(2 * SETTINGS.raise_after)
    assert path.settled()
    assert path.machine.mtu == best(limit, path_mtu), "the raise timer makes good what loss broke"


def test_a_peer_that_answers_nothing_is_left_alone() -> None:
    """A foreign peer discards dummy packets silently (RFC 4303 §2.6)."""
    path = Path(1400, 0)
    path.traffic = True
    path.run(SETTINGS.raise_after - 1)
    assert path.machine.state is PmtuState.DISABLED
    assert (path.machine.mtu, path.machine.largest) == (1400, 1400)
    assert len(path.sent) == 9, "three sizes, three times"
    path.mtu = 1402
    assert path.run(10.0, path.settled), "it is asked again every ten minutes"


def test_a_peer_that_probes_is_probed() -> None:
    path = Path(1400, 0)
    path.run(10.0)
    assert path.machine.state is PmtuState.DISABLED
    path.mtu = 1350
    path.machine.spoke(path.now)
    assert path.run(30.0, path.settled)
    assert path.machine.mtu == 1350


def test_a_black_hole_is_noticed_and_left() -> None:
    """The path becomes narrower and no ICMP says so (RFC 8899 §4.3)."""
    path = Path(1400, 1500)
    path.traffic = True
    assert path.run(5.0, path.settled)
    path.mtu = 1318
    started = path.now
    assert path.run(60.0, lambda: path.machine.mtu <= 1318)
    assert path.now - started <= SETTINGS.confirm + 2 * SETTINGS.patience
    assert path.run(30.0, lambda: _sizes(path.machine) == (1318, 1318))


def test_silence_after_what_we_sent_is_checked_at_once() -> None:
    path = Path(1400, 1500)
    assert path.run(5.0, path.settled)
    path.mtu = 1318
    path.machine.activity(path.now, path.now + 3.0)
    assert path.run(SETTINGS.suspect + 5.0, lambda: path.machine.mtu <= 1318)


def test_a_peer_that_falls_silent_keeps_its_mtu() -> None:
    """That nothing comes back says nothing about sizes; liveness is another one's business."""
    path = Path(1400, 1318)
    path.traffic = True
    assert path.run(30.0, path.settled)
    path.mtu = 0
    path.run(120.0)
    assert (path.machine.state, path.machine.mtu) == (PmtuState.COMPLETE, 1318)
    path.mtu = 1318
    path.run(60.0)
    assert (path.machine.state, path.machine.mtu) == (PmtuState.COMPLETE, 1318)


def test_a_wider_path_is_found_by_the_raise_timer() -> None:
    path = Path(1400, 1318)
    path.traffic = True
    assert path.run(30.0, path.settled)
    path.mtu = 1500
    started = path.now
    assert path.run(2 * SETTINGS.raise_after, lambda: path.machine.mtu == 1400)
    assert path.now - started <= SETTINGS.raise_after + SETTINGS.confirm


def test_a_vain_raise_refuses_and_fragments_nothing_meanwhile() -> None:
    path = Path(1400, 1318)
    path.traffic = True
    assert path.run(30.0, path.settled)
    seen: set[tuple[int, int]] = set()
    path.run(SETTINGS.raise_after + 60, lambda: bool(seen.add(_sizes(path.machine))))
    assert seen == {(1318, 1318)}


def test_an_idle_path_is_let_alone() -> None:
    path = Path(1400, 1318)
    assert path.run(30.0, path.settled)
    sent = len(path.sent)
    assert path.machine.due is None
    path.run(10_000.0)
    assert len(path.sent) == sent


def test_a_restart_forgets_the_old_path() -> None:
    path = Path(1400, 1318)
    assert path.run(30.0, path.settled)
    path.mtu = 1350
    path.machine.restart(path.now)
    assert _sizes(path.machine) == (SURE, 1400)
    assert path.run(30.0, path.settled)
    assert path.machine.mtu == 1350


def test_a_late_or_invented_answer_changes_nothing() -> None:
    path = Path(1400, 1318)
    assert path.run(30.0, path.settled)
    for number in range(100):
        assert path.machine.answered(number, path.now) is None
    assert path.machine.advance(path.now) == []
    assert path.machine.mtu == 1318


def _sizes(machine: PathMtu) -> tuple[int, int]:
    return machine.mtu, machine.largest
