"""Two real hosts, a real rendezvous, unmodified programs: the main job of issue 2."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.namespaces.account import DESK_NAME, LAPTOP_NAME, Account
from tunnel.cli.demo.scenes import DESK, LAPTOP
from tunnel.cli.demo.secrecy import Secrets
from tunnel.io.lab import HostMachine, Lab, find_all, missing, read_packets, wait_until
from tunnel.io.lab import two_homes as place
from tunnel.io.lab.two_homes import RENDEZVOUS, STUB

pytestmark = pytest.mark.root

HOST_FIELDS = {"name", "id", "device", "mtu", "engine", "aead", "listen", "endpoint"}
NAT_FIELDS = {"method", "gateway", "external", "lifetime_s", "double_nat"}
ZONE_FIELDS = {"server", "transport", "lease_s", "llq"}
PEER_FIELDS = {
    *("name", "id", "state", "path", "endpoint", "suite", "mode", "spi_in", "spi_out"),
    *("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rtt_ms", "last_handshake_s", "drops"),
}


@pytest.fixture
def account(lab: Lab) -> Account:
    """An account whose hosts are not up yet."""
    return Account(lab)


@pytest.fixture(scope="module")
def running() -> Iterator[Account]:
    """An account whose hosts run for all tests that leave them as they are."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Account(lab).up()


def peer_of(host: HostMachine, name: str) -> dict[str, object]:
    found = host.peer(name)
    assert found is not None, f"{name} is not in {host.status()['peers']}"
    return found


def sas(host: HostMachine, name: str) -> tuple[object, object]:
    """(spi_in, spi_out) towards a peer; ``None`` where there is none."""
    peer = host.peer(name)
    return (None, None) if peer is None else (peer["spi_in"], peer["spi_out"])


# --- The main job -----------------------------------------------------------------------------


def test_files_move_both_ways_by_name(running: Account) -> None:
    for source, target, name in (
        (running.desk, running.laptop, DESK_NAME),
        (running.laptop, running.desk, LAPTOP_NAME),
    ):
        path, digest = running.serve_file(source, 2_000_003)
        assert running.fetch(target, f"http://{name}{path}") == digest


def test_status_json_has_every_field_of_the_contract(running: Account) -> None:
    running.ping(running.laptop, DESK_NAME)
    status = running.laptop.status()
    assert status["schema"] == "autotunnel/status/v1"
    assert set(status["host"]) >= HOST_FIELDS
    assert set(status["nat"]) >= NAT_FIELDS
    assert set(status["zone"]) >= ZONE_FIELDS
    peer = peer_of(running.laptop, DESK)
    assert set(peer) >= PEER_FIELDS
    assert peer["path"] == "direct"
    assert peer["id"] == running.host_id(running.desk)
    assert int(str(peer["rx_packets"])) > 0
    assert int(str(peer["tx_bytes"])) > 0
    assert status["host"]["device"] in {
        entry["ifname"] for entry in running.stage.laptop.ip_json("link", "show")
    }


def test_only_host_ids_are_routed_to_the_device(running: Account) -> None:
    running.ping(running.laptop, DESK_NAME)
    routes = running.stage.laptop.ip_json("-6", "route", "show", "dev", "at0")
    to_ids = {route["dst"] for route in routes if route["protocol"] != "kernel"}
    assert to_ids == {running.host_id(running.desk)}


def test_our_ping_and_lookup_see_the_peer(running: Account) -> None:
    config = ("-c", str(running.laptop.config))
    desk_id = running.host_id(running.desk)
    assert "ms" in running.laptop.cli("ping", DESK, "--count", "2", *config).stdout
    assert desk_id in running.laptop.cli("lookup", DESK, "--json", *config).stdout


def test_dig_sees_the_records_with_the_account_key(running: Account) -> None:
    """B11-B20: what stands in the zone, by an independent client that signs (B58)."""
    running.ping(running.laptop, DESK_NAME)
    machine = running.stage.laptop
    key = machine.folder / "tsig.key"
    key.touch(mode=0o600)
    key.write_text(running.laptop.cli("tsig", "-c", str(running.laptop.config)).stdout)

    def dig(name: str, kind: str) -> list[str]:
        command = ("dig", f"@{RENDEZVOUS}", "-k", str(key), name, kind, "+short", "+tries=1")
        return machine.run(*command).stdout.splitlines()

    desk_id, domain = running.host_id(running.desk), DESK_NAME.partition(".")[2]
    assert dig(DESK_NAME, "AAAA") == [desk_id]
    assert dig(DESK_NAME, "A") == []  # never an A beside it
    (service,) = dig(f"_autotunnel._udp.{DESK_NAME}", "SRV")
    priority, weight, port, target = service.split()
    assert (priority, weight, port) == ("0", "0", "4500")
    assert re.fullmatch(rf"AutoTunnel-([0-9A-F]{{2}}-){{7}}[0-9A-F]{{2}}\.{domain}\.", target)
    assert dig(target, "A") == [place.DESK]
    assert dig(target, "AAAA") == [desk_id]
    listed = set(dig(f"_autotunnel._udp.{domain}", "PTR"))
    assert {f"{DESK_NAME}.", f"{LAPTOP_NAME}."} <= listed


def test_a_name_that_is_not_there_is_said_at_once(running: Account) -> None:
    name = DESK_NAME.replace(DESK, "no-such-host")
    laptop = running.stage.laptop
    said = laptop.run("dig", f"@{STUB}", name, "AAAA", "+tries=1", "+time=50").stdout
    assert "status: NXDOMAIN" in said
    done = laptop.run("getent", "ahostsv6", name, check=False)
    assert done.returncode == 2
    assert not done.stdout


def test_unsigned_questions_about_the_names_are_refused(running: Account) -> None:
    for name in (DESK_NAME, f"_autotunnel._udp.{DESK_NAME}"):
        said = running.stage.laptop.run("dig", f"@{RENDEZVOUS}", name, "ANY", "+tries=1").stdout
        assert "status: REFUSED" in said


def test_nothing_readable_crosses_the_internet(running: Account) -> None:
    internet = running.stage.internet
    capture = running.lab.capture(internet.namespace, internet.device, "unreadable")
    path, _ = running.serve_file(running.desk, 300_000)
    running.know(running.desk, LAPTOP)
    running.fetch(running.laptop, f"http://{DESK_NAME}{path}")
    wait_until(lambda: capture.octets > 300_000, 60, "what crossed was written down")
    capture.stop()
    assert RENDEZVOUS in {packet.target[0] for packet in read_packets(capture.file)}
    secrets = Secrets()
    for host, name in ((running.desk, DESK_NAME), (running.laptop, LAPTOP_NAME)):
        label, _, domain = name.partition(".")
        secrets.add_host(label, domain, running.host_id(host))
    web = {"a request": b"GET /file.bin", "a program": b"curl/", "a server": b"SimpleHTTP/"}
    assert secrets.look(capture.file) == []
    assert find_all(capture.file, web) == []


def test_a_token_works_once(running: Account) -> None:
    config = ("-c", str(running.desk.config))
    said = running.desk.cli("invite", "--json", *config).stdout
    token = said.split('"token": "')[1].split('"')[0]
    first, second = (running.laptop.machine.folder / name for name in ("a.toml", "b.toml"))
    first, second = (first.parent / "a" / first.name, second.parent / "b" / second.name)
    running.laptop.cli("join", token, "--name", "tablet", "-c", str(first))
    done = running.laptop.cli("join", token, "--name", "phone", "-c", str(second), check=False)
    assert done.returncode == 1
    assert "used" in done.stderr
    assert not second.exists()


# --- On demand --------------------------------------------------------------------------------


def test_a_packet_to_a_host_id_makes_the_tunnel(account: Account) -> None:
    account.up()
    account.know(account.laptop, DESK)
    assert sas(account.laptop, DESK) == (None, None)
    desk_id = account.host_id(account.desk)
    # The very first packet waits in the queue and arrives.
    account.stage.laptop.run("ping", "-c", "1", "-W", "60", desk_id, timeout=90)
    assert None not in sas(account.laptop, DESK)


def test_both_begin_at_once_and_one_pair_of_sas_stays_usable(account: Account) -> None:
    account.up()
    desk_id, laptop_id = account.host_id(account.desk), account.host_id(account.laptop)
    account.know(account.desk, LAPTOP)
    account.know(account.laptop, DESK)
    command = ("ping", "-c", "5", "-i", "0.2", "-W", "30")
    one = account.stage.laptop.start(*command, desk_id, name="ping-one")
    other = account.stage.desk.start(*command, laptop_id, name="ping-other")
    assert one.wait(60) == 0, one.output()
    assert other.wait(60) == 0, other.output()


# --- Trouble ----------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["desk", "laptop"])
def test_a_killed_host_comes_back_and_traffic_goes_on(account: Account, victim: str) -> None:
    account.up()
    killed: HostMachine = getattr(account, victim)
    other = account.laptop if killed is account.desk else account.desk
    before = account.host_id(killed)
    account.know(other, DESK, LAPTOP)
    account.ping(other, before)
    assert killed.process is not None
    killed.process.kill()
    killed.up()
    assert account.host_id(killed) == before  # kept for one boot (B54)
    account.ping(other, before, timeout=90)
    account.ping(killed, account.host_id(other))


# --- The end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["down", "SIGTERM", "SIGINT"])
def test_the_end_leaves_nothing_behind(account: Account, way: str) -> None:
    account.up()
    laptop, desk = account.laptop, account.desk
    desk_id = account.host_id(desk)
    account.ping(laptop, desk_id)
    process = desk.process
    assert process is not None
    if way == "down":
        assert desk.down() == 0
    else:
        process.send(signal.Signals[way])
        assert process.wait(60) == 0
    # The device, its addresses and its routes.
    assert {entry["ifname"] for entry in desk.machine.ip_json("link", "show")} == {"lo", "eth0"}
    inner = [route["dst"] for route in desk.machine.ip_json("-6", "route", "show")]
    assert [target for target in inner if target.startswith("fd")] == []
    # No helper and no socket.
    assert desk.machine.pids() == []
    assert [path.name for path in desk.state_dir.iterdir() if path.is_socket()] == []
    # The records, and the peer's SAs.
    done = laptop.cli("lookup", DESK, "-c", str(laptop.config), check=False)
    assert done.returncode == 1
    wait_until(lambda: sas(laptop, DESK) == (None, None), 60, "the peer's SAs are gone")


def test_down_at_once_after_up_is_clean_too(account: Account) -> None:
    account.desk.up()
    assert account.desk.down() == 0
    account.desk.up()
    assert account.desk.down() == 0
    names = {entry["ifname"] for entry in account.stage.desk.ip_json("link", "show")}
    assert names == {"lo", "eth0"}
