"""The same through a home agent: a third pump forwards, and its tables change, too.

::

    left ══ relay SAs ══ agent ══ relay SAs ══ right, and the end-to-end SAs nested in them
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fastpath.types import Endpoint, Mode, Pump, SaParams, Suite, Traffic
from tests.fastpath.relays import AGENT, relay_endpoint
from tests.fastpath.support import PEER_ID, key_of
from tests.stress.traffic import GLIMPSE, OTHERS, Side, Stress

NESTED = Traffic(protocol=41)


class RelayedStress(Stress):
    """Two hosts whose only way is a home agent."""

    def __init__(
        self, make: Callable[..., Pump], *, rough: bool, seed: int, queues: int = 1
    ) -> None:
        super().__init__(make, rough=rough, seed=seed, queues=queues)
        self._agent = Side(make, AGENT, AGENT, queues, shared=True)
        self._relaying: dict[tuple[Side, Side], SaParams] = {}  # by sender and whom it is for

    def _all(self) -> list[Side]:
        return [*super()._all(), self._agent]

    def _way(self, other: Side) -> Endpoint:
        return relay_endpoint(other.ours)

    def _begin(self) -> None:
        self._agent.pump.start()
        for side, other in self._pairs():
            self._rekey_up(side, other)
            self._rekey_down(side, other)
        super()._begin()

    def _kinds(self) -> list[Callable[[Side, Side], None]]:
        changes = [*super()._kinds(), self._rekey_up, self._rekey_down, self._other_relays]
        changes += [self._other_relays, self._look_at_agent]
        if self._rough:
            changes += [self._lose_relay, self._wrong_relay, self._replace_up]
        return changes

    # --- Relay SAs: up to the agent, and down from it -----------------------------------------

    def _rekey_up(self, side: Side, other: Side) -> None:
        """What ``side`` has for ``other`` goes to the agent in a new relay SA."""
        self._rekey_relay(side, self._agent, other)

    def _rekey_down(self, side: Side, other: Side) -> None:
        """What the agent has for ``side`` goes to it in a new relay SA."""
        self._rekey_relay(self._agent, side, side)

    def _rekey_relay(self, sender: Side, receiver: Side, target: Side) -> None:
        sa = replace(self._new_sa(sender, receiver), mode=Mode.TRANSPORT, traffic=NESTED)
        self._install_relay(sender, receiver, sa)
        self._set_relay(sender, receiver, target, sa.spi)
        old = self._relaying.get((sender, target))
        self._relaying[sender, target] = sa
        if old is not None:
            self._retired.append((sender, receiver, old.spi))

    def _install_relay(self, sender: Side, receiver: Side, sa: SaParams) -> None:
        receiver.pump.install_inbound(replace(sa, local_id=sa.peer_id, peer_id=sa.local_id))
        sender.pump.install_outbound(sa)

    def _set_relay(self, sender: Side, receiver: Side, target: Side, spi: int) -> None:
        forward = sender is self._agent
        sender.pump.set_relay(target.ours, spi, receiver.endpoint, forward)

    # --- Other changes ------------------------------------------------------------------------

    def _other_relays(self, side: Side, other: Side) -> None:
        """Relay entries of other hosts come and go; the limit is asked for and given up."""
        for pump in (side.pump, self._agent.pump):
            pump.set_relay_limit(self._dice.choice((0, 2**40)))
            for _ in range(10):
                number = self._dice.randrange(OTHERS)
                host = PEER_ID[:8] + number.to_bytes(8, "big")
                if self._dice.random() < 0.5:
                    pump.set_relay(host, 0x8000_0000 + number, ("192.0.2.1", 4500), True)
                else:
                    pump.clear_relay(host)

    def _look_at_agent(self, side: Side, other: Side) -> None:
        self._agent.pump.drain()
        self._agent.pump.counters()
        for sender, target in ((side, other), (self._agent, side)):
            spi = self._relaying[sender, target].spi
            sender.pump.outbound_counters(spi)
            self._agent.pump.inbound_counters(spi)

    def _lose_relay(self, side: Side, other: Side) -> None:
        """For a moment the agent does not know ``side``, or ``side`` has no way to ``other``."""
        sender, receiver, target = self._dice.choice(
            ((self._agent, side, side), (side, self._agent, other))
        )
        before = sender.pump.counters().get("drop_not_relayed", 0)
        sender.pump.clear_relay(target.ours)
        deadline = time.monotonic() + GLIMPSE
        while sender.pump.counters().get("drop_not_relayed", 0) == before:
            if time.monotonic() > deadline:
                break
        self._set_relay(sender, receiver, target, self._relaying[sender, target].spi)

    def _wrong_relay(self, side: Side, other: Side) -> None:
        """A relay entry that names an SA which is none, or not there."""
        for spi in (0x7777_7777, self._sending[side].spi):
            side.pump.set_relay(other.ours, spi, self._agent.endpoint)
            side.pump.counters()
        spi = self._relaying[side, other].spi
        side.pump.set_relay(other.ours, spi, self._agent.endpoint)

    def _replace_up(self, side: Side, other: Side) -> None:
        """The same SPI with another key, while packets are under way."""
        old = self._relaying[side, other]
        fresh = key_of(Suite(old.suite), self._dice.randrange(256))
        self._relaying[side, other] = sa = replace(old, key=fresh)
        self._install_relay(side, self._agent, sa)
