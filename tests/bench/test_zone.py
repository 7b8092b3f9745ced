"""The bench of the zone, in small: every figure is there, for us and for BIND."""

from __future__ import annotations

from bench import zone


def test_every_figure_is_there() -> None:
    body = zone.measure(1, updates=30, queries=30, crowds=(10,), hosts=50, load_seconds=1)
    assert set(body["throughput"]) == {"autotunnel", "BIND"}
    for one in body[
        "throughput"
    ].values():  # the processor time of so few is below its clock's tick
        assert min(one["updates_per_s"], one["queries_per_s"]) > 0
    assert [one["subscribers"] for one in body["events"]] == [10]
    assert all(0 < one["median_ms"] <= one["worst_ms"] for one in body["events"])
    assert body["memory"]["hosts"] == 50
    assert body["load"]["answered"] > 0
    assert "a million hosts" in zone.render(body).lower()
