"""What ``make model`` explores deeply, explored less deep; and that it would notice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.explore import WrongError, explore
from tests.model.liar import Liar
from tests.model.scenarios import WORLDS
from tests.model.second import Second
from tunnel.mobility import correspondent
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command
from tunnel.mobility.correspondent import Binding, Correspondent
from tunnel.mobility.limits import MobilitySettings


@pytest.mark.parametrize("name", WORLDS)
def test_no_traffic_to_where_nobody_was_and_no_dead_end(name: str) -> None:
    make, depth, _ = WORLDS[name]
    found = explore(make(), depth)
    assert found.states > 100


# --- The judge can say no --------------------------------------------------------------------


def test_it_notices_if_the_address_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claim, "holds", lambda self, source: True)
    with pytest.raises(WrongError, match="b sends to"):
        explore(WORLDS["changed sources"][0](), 4)


def test_it_notices_if_an_answer_counts_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_nonce(binding: Binding, nonce: bytes, source: object, now: float) -> object:
        tests = (*binding.tests, *binding.home_tests)
        return next((one for one in tests if one.nonce == nonce), None)

    monkeypatch.setattr(Correspondent, "_open_test", staticmethod(by_nonce))
    with pytest.raises(WrongError, match="UseEndpoint"):
        explore(Liar.bound(), 3)
    with pytest.raises(WrongError, match="holds proofs of"):
        explore(Second.standing(open=1, change=1), 4)


def test_it_notices_if_the_proof_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correspondent.Proofs, "holds", lambda *_: True)
    with pytest.raises(WrongError, match="UseEndpoint"):
        explore(Liar.bound(), 1)


def test_it_notices_if_nobody_asks_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Correspondent.update

    def believing(self: Correspondent, peer: str, *more: Any) -> list[Command]:
        self._bindings.setdefault(peer, Binding(0)).at_home = True
        return update(self, peer, *more)

    monkeypatch.setattr(Correspondent, "update", believing)
    with pytest.raises(WrongError, match="nobody answered at home"):
        explore(Liar(at_home=False), 3)
    with pytest.raises(WrongError, match="asked nobody at home"):
        explore(WORLDS["loss"][0](), 4)


def test_it_notices_a_dead_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for ever with a nonce that nobody remembers never arrives."""
    patient = MobilitySettings(lifetime=64, nonce_life=0.5, answers=10**6)
    monkeypatch.setattr("tests.model.worlds.SETTINGS", patient)
    with pytest.raises(WrongError, match="a dead end after"):
        explore(WORLDS["loss"][0](), 4)
