"""What kind of network is it? Hosts in networks of each kind find out, and doctor says what to do.

The kinds of NATs are in ``test_nat_table.py``; here are those that swallow, lie, or lack IPv4."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes
from tests.namespaces.nat64 import PREFIX, Nat64
from tunnel.io.lab import Lab, Namespace, missing, wait_until
from tunnel.io.lab.nat import INSIDE, PortMapper

pytestmark = pytest.mark.root

PATIENCE = 90.0
LOGIN = "http://portal.example/login"
PORTAL = f"""
import http.server
class Redirect(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "{LOGIN}")
        self.end_headers()
print("portal", flush=True)
http.server.HTTPServer(("0.0.0.0", 8080), Redirect).serve_forever()
"""


def drop_udp(router: Namespace) -> None:
    """As many company networks do."""
    router.run("nft", "add rule ip home through iifname lan0 meta l4proto udp drop")


def want_login(router: Namespace) -> None:
    """As a hotel does: nothing gets out, and HTTP is answered by the router."""
    router.start(sys.executable, "-c", PORTAL, name="portal").wait_for("portal", PATIENCE)
    router.run("nft", "add chain ip home web { type nat hook prerouting priority dstnat ; }")
    router.run("nft", "add rule ip home web iifname lan0 tcp dport 80 redirect to :8080")
    router.run("nft", "insert rule ip home through iifname lan0 drop")


def let_out(router: Namespace) -> None:
    """Somebody has logged in."""
    router.run("nft", "flush chain ip home through")
    router.run("nft", "flush chain ip home web")


def map_ports(home: Home) -> None:
    """The first of two routers opens ports, which lead nowhere (B33)."""
    router = home.routers[0]
    subnet = router.ip_json("-4", "address", "show", "dev", INSIDE)[0]["addr_info"][0]["local"]
    PortMapper(router, f"{subnet.rpartition('.')[0]}.0/24", router.folder, upnp=False).start()


def firewall(machine: Namespace) -> None:
    """Only answers come in."""
    machine.run("nft", "-f", "-", stdin=FIREWALL)


FIREWALL = """
table inet wall {
  chain into {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname lo accept
    meta l4proto ipv6-icmp accept
    iifname "at*" accept
  }
}
"""


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """Six hosts of an account, each in a network of another kind."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "public", "public", "public", "restricted", "restricted", "double")
        map_ports(made.of("double"))
        drop_udp(blocked(made).routers[0])
        want_login(captive(made).routers[0])
        firewall(walled(made).host.machine)
        Nat64(lab, made.internet, "192.0.1.64").move(six(made).host.machine, 10)
        yield made.up()


def public(homes: Homes) -> Home:
    return homes.of("public")


def walled(homes: Homes) -> Home:
    return homes.of("public", 1)


def six(homes: Homes) -> Home:
    return homes.of("public", 2)


def blocked(homes: Homes) -> Home:
    return homes.of("restricted")


def captive(homes: Homes) -> Home:
    return homes.of("restricted", 1)


def becomes(home: Home, kind: str) -> dict[str, Any]:
    """Wait until the host says that its network is of this kind."""

    def found() -> dict[str, Any] | None:
        nat: dict[str, Any] = home.host.status()["nat"]
        return nat if nat["kind"] == kind else None

    nat = wait_until(found, PATIENCE, f"{home.label} finds {kind}")
    assert nat is not None
    return nat


def doctor(home: Home) -> str:
    """What it says of the network."""
    done = home.host.cli("doctor", "--json", "-c", str(home.host.config), check=False)
    findings = json.loads(done.stdout)["findings"]
    return " ".join(f"{one['found']}; {one['fix']}" for one in findings if one["check"] == "nat")


def test_a_public_host_is_told_so(homes: Homes) -> None:
    nat = becomes(public(homes), "public")
    assert (nat["udp"], nat["lets_in"]) == (True, "address")
    assert doctor(public(homes)) == ""


def test_a_firewall_before_a_public_address_is_found(homes: Homes) -> None:
    assert becomes(walled(homes), "firewalled")["lets_in"] == "port"
    assert "let this host's UDP port" in doctor(walled(homes))


def test_a_network_that_drops_udp_is_found_by_the_zone_that_is_there(homes: Homes) -> None:
    assert becomes(blocked(homes), "udp-blocked")["udp"] is False
    assert blocked(homes).host.status()["zone"]["published"]
    assert "let UDP out in the firewall" in doctor(blocked(homes))


def test_a_router_behind_another_is_found_by_what_it_answers(homes: Homes) -> None:
    home = homes.of("double")
    nat = becomes(home, "double-nat")
    assert nat["double_nat"] is True
    assert "your router stands behind another NAT" in doctor(home)
    endpoint = home.host.status()["host"]["endpoint"]
    assert endpoint.startswith(f"{home.outer}:"), "where the outside sees it, all the same"


def test_without_ipv4_a_host_reaches_others_by_the_nat64(homes: Homes) -> None:
    host, target = six(homes).host, public(homes)
    assert becomes(six(homes), "ipv6-only")["nat64"] == PREFIX
    wait_until(lambda: host.status()["zone"]["published"], PATIENCE, "the zone is reached")

    def pinged() -> bool:
        done = host.cli("ping", target.label, "-n", "1", "-c", str(host.config), check=False)
        return done.returncode == 0

    wait_until(pinged, PATIENCE, "the public host answers")
    peer = host.peer(target.label)
    assert peer is not None
    assert peer["endpoint"] == f"{target.outer}:4500"
    theirs = target.host.peer(six(homes).label)
    assert theirs is not None
    assert str(theirs["endpoint"]).startswith("192.0.1.64:")
    assert PREFIX in doctor(six(homes))


def test_a_captive_portal_is_found_and_so_is_its_end(homes: Homes) -> None:
    home = captive(homes)
    assert becomes(home, "captive-portal")["portal"] == LOGIN
    assert LOGIN in doctor(home)
    let_out(home.routers[0])
    becomes(home, "independent")
    wait_until(
        lambda: home.host.status()["nat"]["hairpin"] is False or None, PATIENCE, "it is surveyed"
    )
