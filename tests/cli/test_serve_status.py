"""``serve --status``: the rendezvous shows its owner, and nobody else, how it is."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import time
from pathlib import Path

import pytest

from discovery.census import MOST
from tests.cli.support import DOMAIN, Person, Served
from tests.discovery.server.helpers import ALICE, UNIX, Rendezvous, add
from tunnel.cli import main, upkeep
from tunnel.config import load_serve
from tunnel.io.showing import SOCKET_NAME

ZONE = f"""\
$ORIGIN {DOMAIN}.
$TTL 300
@ IN SOA ns hostmaster 7 7200 900 1209600 60
@ IN NS ns
desk 120 IN AAAA fd01::1
_autotunnel._udp.desk 120 IN SRV 0 0 4500 AutoTunnel-1 ; lease until {{leased}}
_autotunnel._udp.nas 120 IN SRV 0 0 4500 AutoTunnel-2
_autotunnel._udp.old 120 IN SRV 0 0 4500 AutoTunnel-3 ; lease until 5
_ssh._tcp.desk 120 IN SRV 0 0 22 desk
"""


@pytest.fixture
def landlord(landlord: Person, capsys: pytest.CaptureFixture[str]) -> Person:
    """Has hosts in the zone already."""
    given = landlord.home / "given.zone"
    given.write_text(ZONE.format(leased=int(time.time()) + 5000))
    upkeep.put_in(load_serve(landlord.home / "serve.toml"), str(given), None, as_json=False)
    return landlord


def asked(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(str(path))
        with contextlib.suppress(ConnectionError):  # cut off in the middle of what it says
            client.sendall(request)
            return client.recv(1 << 20)
        return b""


def test_the_status_of_a_rendezvous(
    served: Served, landlord: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ["serve", "--status", "-c", str(landlord.home / "serve.toml")]
    capsys.readouterr()
    assert main([*ours, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["schema"] == "autotunnel/serve-status/v1"
    assert facts["pid"] == served.process.pid
    assert facts["uptime_s"] >= 0
    assert facts["home_agent"] is None
    assert (facts["pin"], facts["listening"]["tls"]) == (served.told["pin"], served.told["tls"])
    assert (facts["connections"], facts["connections_limit"]) == (0, 512)
    assert facts["subscriptions"] == {"push": 0, "llq": 0}
    (zone,) = facts["zones"]
    assert (zone["domain"], zone["backing"], zone["hosts_total"]) == (DOMAIN, None, 2)
    desk, nas = zone["hosts"]
    assert (desk["name"], desk["id"]) == (f"desk.{DOMAIN}", "fd01::1")
    assert 4000 < desk["lease_s"] <= 5000
    assert nas == {"name": f"nas.{DOMAIN}", "id": None, "lease_s": None}
    assert zone["records"] > zone["names"] > 2

    assert main(ours) == 0
    shown = capsys.readouterr().out
    assert f"process {served.process.pid}, up for 0:" in shown
    assert f"zone {DOMAIN}: serial {zone['serial']}," in shown
    assert "fd01::1" in shown

    path = landlord.home / "zone" / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"does not know 'down'; ask its host" in asked(path, b'{"command": "down"}\n')
    assert b"not a line of JSON" in asked(path, b"[" * 3000 + b"\n")
    assert asked(path, b"x" * 9000) == b""
    served.end()
    assert served.process.returncode == 0
    assert not path.exists()
    assert main(ours) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"autotunnel serve: no rendezvous runs here ({path}); start it with")


def test_a_rendezvous_that_cannot_be_shown_serves_on(landlord: Person) -> None:
    (landlord.home / "zone" / SOCKET_NAME).mkdir()
    running = Served(landlord)
    assert "`serve --status` will say nothing: the control socket" in running.end()
    assert running.process.returncode == 0


def test_what_a_killed_rendezvous_left_is_no_hindrance(landlord: Person) -> None:
    running = Served(landlord)
    running.process.kill()
    running.process.communicate(timeout=60)
    assert (landlord.home / "zone" / SOCKET_NAME).exists()
    again = Served(landlord)
    done = landlord.run("serve", "--status", "-c", str(landlord.home / "serve.toml"))
    assert (done.returncode, done.stderr) == (0, "")
    again.end()


def test_of_thousands_of_hosts_some_are_named_and_all_are_counted() -> None:
    zone = Rendezvous()
    for number in range(MOST + 5):
        where = f"_autotunnel._udp.h{number}.{ALICE}"
        assert zone.update(add(where, "SRV", f"0 0 4500 t{number}.{ALICE}.")) == "NOERROR"
    found = next(one for one in zone.server.census(UNIX) if one["domain"] == ALICE)
    assert (len(found["hosts"]), found["hosts_total"]) == (MOST, MOST + 5)
