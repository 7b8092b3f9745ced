"""``doctor``: each thing that can be wrong is found, with cause and fix."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

import fastpath
from tests.cli.support import DOMAIN, Person
from tunnel.cli import checks
from tunnel.cli.checks import State
from tunnel.config import HostConfig, load_host
from tunnel.io import netlink, privilege, resolved


def finding(facts: dict[str, Any], check: str) -> dict[str, Any]:
    (found,) = [one for one in facts["findings"] if one["check"] == check]
    return dict(found)


@pytest.fixture
def config(owner: Person) -> HostConfig:
    return load_host(owner.config)


def test_every_finding_has_the_same_four_fields(owner: Person) -> None:
    facts = owner.json("doctor", code=1)
    assert {"python", "engine", "config", "secret", "tun", "capability", "port", "resolver"} <= {
        one["check"] for one in facts["findings"]
    }
    for one in facts["findings"]:
        assert set(one) == {"check", "state", "found", "fix"}
        assert one["state"] == "ok" or one["fix"]


def test_a_broken_configuration_is_a_finding_and_not_the_end(owner: Person) -> None:
    owner.config.write_text("[hots]\n")
    facts = owner.json("doctor", code=1)
    assert not facts["ok"]
    found = finding(facts, "config")
    assert found["state"] == "failed"
    assert "hots: unknown table" in found["found"]
    assert 'did you mean "host"?' in found["fix"]
    assert finding(facts, "python")["state"] == "ok"


def test_a_rendezvous_that_does_not_answer_is_found(owner: Person) -> None:
    found = finding(owner.json("doctor", code=1), "rendezvous")
    assert found["state"] == "failed"
    assert found["found"] == "127.0.0.1:9: connection refused"
    assert "check that the rendezvous runs" in found["fix"]


def test_a_careless_secret_is_found(config: HostConfig) -> None:
    key = config.account_secret_path()
    assert key is not None
    assert checks.secrets(config).state is State.OK
    key.chmod(0o640)
    found = checks.secrets(config)
    assert found.state is State.FAILED
    assert f"chmod 600 {key}" in found.fix


def test_an_occupied_port_is_found_with_the_way_to_its_owner() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        found = checks.port(port, running=False)
        assert found.state is State.FAILED
        assert f"UDP port {port} is occupied" in found.found
        assert f"ss -ulnp sport = :{port}" in found.fix
        assert checks.port(port, running=True).state is State.OK
    assert checks.port(port, running=False).state is State.OK


def test_a_missing_tun_is_found(tmp_path: Path) -> None:
    found = checks.tun(tmp_path / "tun")
    assert (found.state, found.fix) == (State.FAILED, "run `sudo modprobe tun`")
    (tmp_path / "file").touch()
    assert "is no device" in checks.tun(tmp_path / "file").found


def test_a_missing_capability_is_found_unless_there_is_a_device(
    config: HostConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "can_configure", lambda: False)
    monkeypatch.setattr(netlink, "link", lambda name: None)
    found = checks.capability(config, running=False)
    assert found.state is State.FAILED
    assert "sudo autotunnel device create --user" in found.fix
    assert checks.capability(config, running=True).state is State.OK
    there = netlink.Link(7, "at0", 1400, True, "tun", frozenset())
    monkeypatch.setattr(netlink, "link", lambda name: there)
    assert checks.capability(config, running=False).state is State.OK


@pytest.mark.parametrize(
    ("native", "wish", "threads", "state", "word"),
    [
        (("ipsec-mb 1.3", None, True), "auto", 1, State.OK, "ipsec-mb 1.3"),
        (("ipsec-mb 1.3", None, True), "auto", 4, State.OK, "4 pairs of threads"),
        (("ipsec-mb 1.3", "old sources; run `make build`", True), "auto", 1, State.WARNING, "old"),
        ((None, "not built; run `make build`", False), "auto", 1, State.WARNING, "not built"),
        ((None, "not built; run `make build`", False), "native", 1, State.FAILED, "not built"),
        (("ipsec-mb 1.3", None, True), "reference", 1, State.WARNING, "slow"),
        (("ipsec-mb 1.3", None, True), "reference", 4, State.WARNING, "serves all 4 queues"),
    ],
)
def test_the_engine_is_never_a_surprise(
    monkeypatch: pytest.MonkeyPatch,
    native: tuple[str | None, str | None, bool],
    wish: str,
    threads: int,
    state: State,
    word: str,
) -> None:
    aead, reason, available = native
    known = {
        "native": fastpath.EngineInfo("native", available, aead, reason),
        "reference": fastpath.EngineInfo("reference", True, "cryptography 50", None),
    }
    monkeypatch.setattr(fastpath, "engines", lambda: known)
    found = checks.engine(wish, threads)
    assert found.state is state
    assert word in found.found
    assert found.fix or state is State.OK


ASKS: dict[str, Any] = {"integrated": True, "reason": None}


@pytest.mark.parametrize(
    ("runs", "integrate", "host", "state", "said"),
    [
        (True, "auto", ASKS, State.OK, "systemd-resolved asks us"),
        (True, "auto", None, State.OK, "is told when a host is up"),
        (True, "auto", {"integrated": False, "reason": "Access denied"}, State.WARNING, "denied"),
        (True, "off", None, State.WARNING, "resolver.integrate is off"),
        (False, "auto", None, State.WARNING, "nothing routes"),
    ],
)
def test_it_is_told_whether_systemd_resolved_asks_us(
    monkeypatch: pytest.MonkeyPatch,
    config: HostConfig,
    runs: bool,
    integrate: Literal["auto", "off"],
    host: dict[str, Any] | None,
    state: State,
    said: str,
) -> None:
    monkeypatch.setattr(resolved, "is_running", lambda _stub: runs)
    section = msgspec.structs.replace(config.resolver, integrate=integrate)
    finding = checks.resolver(msgspec.structs.replace(config, resolver=section), host)
    assert finding.state is state
    assert said in finding.found
    if runs and state is State.WARNING:
        assert "sudo resolvectl dns at0 127.0.0.1:4553" in finding.fix
        assert f"sudo resolvectl domain at0 '~{DOMAIN}'" in finding.fix


def test_the_servers_of_a_resolver_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 192.0.2.1\nnameserver 127.0.0.53\nsearch example\nnameserver\n")
    assert checks.nameservers(path) == ["127.0.0.53"]
    assert checks.nameservers(tmp_path / "no") == []
