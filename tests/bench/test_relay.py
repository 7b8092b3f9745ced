"""The measurement of the home agent: real devices, real pumps, and octets by real packets."""

from __future__ import annotations

import signal

import pytest

from bench import relay, relay_crowd
from bench.pair import wait_for_ping


def test_octets_of_each_form() -> None:
    """I52: ESP costs 34 to 37, the inner header 40, nesting both again."""
    octets = relay.octets_per_packet(1280)
    assert octets == {
        "segment": 1280,
        "tunnel": 1356,
        "transport": 1316,
        "tunnel_nested": 1432,
        "transport_nested": 1392,
    }


def test_traffic_moves_to_the_home_agent_and_back() -> None:
    with relay.stage("offloading") as at:
        for path in ("relay", "direct", "relay"):
            at.go(path)
            wait_for_ping(at.ends.left, str(relay.IDS["right"]))
        figures = relay.measure(at, 1)
        assert figures["forward_gbit_s"] > 0
        assert figures["agent_cpu_s_per_gb"] > 0
        agent = at.processes["agent"]
        agent.stop(signal.SIGTERM)
        text = agent.output()
    assert '"relayed_packets": 0' not in text
    assert "drop_" not in text.partition("counters")[2].replace("drop_keepalive", "")


def test_sizes_of_a_crowd_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds, the second on a machine twice as slow; the smallest crowd is really measured."""
    monkeypatch.setattr(relay_crowd, "SIZES", (10, 30))
    begun = relay_crowd.measure(10, 600)
    assert begun["hosts"] == 10
    assert begun["packet_cpu_us"] > 0
    slow = {10: iter((1.0, 2.0)), 30: iter((1.5, 3.0))}

    def apart(hosts: int) -> dict[str, float]:
        return begun | {"hosts": hosts, "packet_cpu_us": next(slow[hosts])}

    monkeypatch.setattr(relay_crowd, "_apart", apart)
    small, large = relay_crowd.compare(2)
    assert (small["ratio"], large["ratio"]) == (1.0, 1.5)
    assert "1.50" in relay_crowd.render([small, large]).splitlines()[-1]
