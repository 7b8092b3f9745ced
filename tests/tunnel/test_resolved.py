"""What systemd-resolved is told, and when it is not; the real one is in tests/namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.discovery.client.waiting import until
from tunnel.io import resolved
from tunnel.io.resolved import Call, Integration, ResolvedError

STUB = ("127.0.0.1", 4553)
DOMAIN = "alice.members.example"


def test_the_server_is_named_last_and_for_the_accounts_names_only() -> None:
    made = resolved.calls(7, DOMAIN, STUB)
    assert made[0] == Call("SetLinkDefaultRoute", "ib", ("7", "false"))
    domains = ("7", "2", DOMAIN, "true", "d.f.ip6.arpa", "true")
    assert made[1] == Call("SetLinkDomains", "ia(sb)", domains)
    server = ("7", "1", "2", "4", "127", "0", "0", "1", "4553", "")
    assert made[-1] == Call("SetLinkDNSEx", "ia(iayqs)", server)
    over6 = resolved.calls(7, DOMAIN, ("::1", 53))[-1]
    assert over6.arguments == ("7", "1", "10", "16", *(["0"] * 15), "1", "53", "")


def test_a_person_can_do_the_same() -> None:
    assert resolved.by_hand(DOMAIN, "at0", ("::1", 53)) == (
        "resolvectl dns at0 [::1]:53",
        f"resolvectl domain at0 '~{DOMAIN}' '~d.f.ip6.arpa'",
        "resolvectl default-route at0 false",
    )


def test_a_resolved_of_another_network_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its_socket = tmp_path / "socket"
    assert not resolved.is_running(STUB, its_socket)  # it does not run at all
    its_socket.touch()
    monkeypatch.setattr(resolved, "_network_of", lambda process: process)
    monkeypatch.setattr(resolved, "_listens_here", lambda _stub: False)
    assert not resolved.is_running(STUB, its_socket)
    monkeypatch.setattr(resolved, "_listens_here", lambda _stub: True)
    assert resolved.is_running(STUB, its_socket)


def test_our_own_stub_on_its_address_is_not_taken_for_it() -> None:
    assert not resolved._listens_here(("127.0.0.53", 53))


class Bus:
    """Stands in for the calls: what was asked, and what goes wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.trouble = ""
        monkeypatch.setattr(resolved, "perform", self.perform)
        monkeypatch.setattr(resolved, "_AGAIN", 0.01)
        monkeypatch.setattr(resolved, "_listens_here", lambda _stub: True)

    async def perform(self, call: Call) -> None:
        if self.trouble:
            raise ResolvedError(self.trouble)
        self.made.append(call.method)


async def test_it_is_told_when_it_comes_when_it_restarts_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, its_socket = Bus(monkeypatch), tmp_path / "socket"
    integration = Integration("lo", DOMAIN, STUB, its_socket)
    await integration.start()
    assert (integration.integrated, bus.made) == (False, [])
    its_socket.touch()
    await until(lambda: integration.integrated)
    assert bus.made.count("SetLinkDNSEx") == 1
    its_socket.unlink()
    await until(lambda: not integration.integrated)
    (tmp_path / "other").touch()
    (tmp_path / "other").rename(its_socket)
    await until(lambda: integration.integrated)
    assert bus.made.count("SetLinkDNSEx") == 2
    await integration.stop()
    assert bus.made[-1] == "RevertLink"


async def test_a_refusal_is_kept_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, its_socket = Bus(monkeypatch), tmp_path / "socket"
    its_socket.touch()
    bus.trouble = "Access denied"
    integration = Integration("lo", DOMAIN, STUB, its_socket)
    await integration.start()
    assert (integration.integrated, integration.reason) == (False, "Access denied")
    bus.trouble = ""
    await until(lambda: integration.integrated)
    assert integration.reason is None
    await integration.stop()


async def test_a_device_that_is_not_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bus(monkeypatch)
    (tmp_path / "socket").touch()
    integration = Integration("nosuch0", DOMAIN, STUB, tmp_path / "socket")
    await integration.start()
    assert integration.reason
    await integration.stop()
    await integration.stop()  # again does no harm


async def test_without_a_bus_the_reason_is_busctls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    with pytest.raises(ResolvedError):
        await resolved.perform(resolved.revert_call(1))
    monkeypatch.setattr(resolved.shutil, "which", lambda _: None)
    with pytest.raises(ResolvedError, match="no busctl"):
        await resolved.perform(resolved.revert_call(1))
