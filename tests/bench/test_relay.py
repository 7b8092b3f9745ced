"""The measurement of the home agent: real devices, real pumps, and octets by real packets."""

from __future__ import annotations

import signal

from bench import relay
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
