"""Other people's tools against the running server: nsupdate, dig (BIND), kdig, knsupdate (Knot)."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discovery.io_serve import RendezvousServer
from tests.discovery.server.helpers import ALICE, BOB, account, secret_of
from tests.ports import free_port

DEADLINE = 60.0
DESK = f"desk.{ALICE}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RendezvousServer]:
    made = RendezvousServer(
        accounts=[account(ALICE, legacy_md5=True), account(BOB)],
        listen=[("127.0.0.1", 0)],
        tls_listen=[("127.0.0.1", 0)],
        state_dir=tmp_path / "state",
    )
    await made.start()
    yield made
    await made.stop()


async def run(*command: str, given: str = "") -> str:
    program = shutil.which(command[0])
    assert program, f"{command[0]} is missing: apt-get install bind9-dnsutils knot-dnsutils"
    process = await asyncio.create_subprocess_exec(
        program,
        *command[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            out, _ = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


def key_file(
    tmp_path: Path,
    domain: str = ALICE,
    algorithm: str = "hmac-sha256",
    secret_octets: bytes | None = None,
) -> str:
    path = tmp_path / f"{domain}.{algorithm}.key"
    secret = base64.b64encode(secret_octets or secret_of(domain)).decode()
    path.write_text(f'key "{domain}." {{\n  algorithm {algorithm};\n  secret "{secret}";\n}};\n')
    return str(path)


def knot_key(domain: str = ALICE) -> str:
    return f"hmac-sha256:{domain}:{base64.b64encode(secret_of(domain)).decode()}"


def nsupdate_script(server: RendezvousServer, *lines: str, zone: str = ALICE) -> str:
    port = server.listening["udp"][0][1]
    return "\n".join((f"server 127.0.0.1 {port}", f"zone {zone}", *lines, "send", "answer", ""))


def at(server: RendezvousServer, transport: str) -> tuple[str, str, str]:
    return "@127.0.0.1", "-p", str(server.listening[transport][0][1])


@pytest.mark.parametrize(
    "algorithm", ["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-md5"]
)
async def test_nsupdate_and_dig_with_the_accounts_key(
    server: RendezvousServer, tmp_path: Path, algorithm: str
) -> None:
    key = key_file(tmp_path, algorithm=algorithm)
    out = await run(
        "nsupdate",
        "-k",
        key,
        given=nsupdate_script(
            server,
            f"prereq nxdomain {DESK}",
            f"update add {DESK} 120 AAAA fd01::1",
            f"update add _autotunnel._udp.{DESK} 120 SRV 0 0 4500 AutoTunnel-00.{ALICE}.",
        ),
    )
    assert "status: NOERROR" in out
    assert "TSIG" in out
    for flags in (("+notcp",), ("+tcp",)):
        seen = await run("dig", *at(server, "udp"), "-k", key, *flags, "+short", DESK, "AAAA")
        assert seen.split() == ["fd01::1"]
    again = nsupdate_script(server, f"prereq nxdomain {DESK}", f"update delete {DESK}")
    assert "status: YXDOMAIN" in await run("nsupdate", "-k", key, given=again)
    assert server.counters["update.NOERROR"] == 1


async def test_nsupdate_finds_the_zone_by_itself(server: RendezvousServer, tmp_path: Path) -> None:
    """Without a zone it asks for the SOA of the name, which is answered to all."""
    port = server.listening["udp"][0][1]
    script = f"server 127.0.0.1 {port}\nupdate add x.y.{DESK} 60 TXT hello\nsend\n"
    assert await run("nsupdate", "-k", key_file(tmp_path), given=script) == ""
    assert server.counters["update.NOERROR"] == 1


async def test_nsupdate_over_tcp_with_an_update_of_many_records(
    server: RendezvousServer, tmp_path: Path
) -> None:
    lines = [f"update add h{n}.{ALICE} 60 AAAA fd01::{n:x}" for n in range(1, 301)]
    key = key_file(tmp_path)
    out = await run("nsupdate", "-v", "-k", key, given=nsupdate_script(server, *lines))
    assert "status: NOERROR" in out
    seen = await run("dig", *at(server, "tcp"), "-k", key, "+short", f"h300.{ALICE}", "AAAA")
    assert seen.split() == ["fd01::12c"]


async def test_dig_sees_why_it_is_refused(server: RendezvousServer, tmp_path: Path) -> None:
    unsigned = await run("dig", *at(server, "udp"), DESK, "AAAA")
    assert "status: REFUSED" in unsigned
    assert "answered to signed questions only" in unsigned
    foreign = await run("dig", *at(server, "udp"), "-k", key_file(tmp_path, BOB), DESK, "AAAA")
    assert "status: REFUSED" in foreign
    assert "this key is of another account" in foreign
    update = nsupdate_script(server, f"update add {DESK} 60 TXT x")
    assert "REFUSED" in await run("nsupdate", given=update)


async def test_wrong_keys_are_named(server: RendezvousServer, tmp_path: Path) -> None:
    wrong = key_file(tmp_path, secret_octets=bytes(32))
    update = nsupdate_script(server, f"update add {DESK} 60 TXT x")
    assert "NOTAUTH(BADSIG)" in await run("nsupdate", "-k", wrong, given=update)
    sha1 = key_file(tmp_path, algorithm="hmac-sha1")
    assert "NOTAUTH(BADKEY)" in await run("nsupdate", "-k", sha1, given=update)
    assert server.counters == {"tsig.BADSIG": 1, "tsig.BADKEY": 1}


async def test_kdig_over_tls_reads_the_pin_that_it_is_shown(server: RendezvousServer) -> None:
    """Knot's client checks the certificate's pin itself (+tls-pin, RFC 7858 §4.2)."""
    assert server.pin is not None
    pin = base64.b64encode(server.pin).decode()
    asked = (*at(server, "tls"), "-y", knot_key(), f"_853._tcp.ns.{ALICE}", "TLSA")
    out = await run("kdig", f"+tls-pin={pin}", *asked)
    assert "TLS1.3" in out
    assert f"TLSA\t3 1 1 {server.pin.hex().upper()}" in out
    wrong = base64.b64encode(bytes(32)).decode()
    refused = await run("kdig", f"+tls-pin={wrong}", "+retry=0", *asked)
    assert "TLSA\t3 1 1" not in refused


async def test_knsupdate_updates(server: RendezvousServer) -> None:
    script = nsupdate_script(server, f"update add {DESK} 60 AAAA fd01::7").replace("update ", "")
    out = await run("knsupdate", "-y", knot_key(), given=script)
    assert "NOERROR" in out
    seen = await run("kdig", *at(server, "tcp"), "+tcp", "-y", knot_key(), "+short", DESK, "AAAA")
    assert seen.split()[0] == "fd01::7"


async def test_dig_transfers_the_zone_of_its_own_account_only(
    server: RendezvousServer, tmp_path: Path
) -> None:
    """RFC 5936, in several messages: dig verifies the whole chain of MACs (RFC 8945 §5.3.1)."""
    key = key_file(tmp_path)
    for start in range(0, 600, 200):
        numbers = range(start, start + 200)
        lines = [f"update add h{n}.{ALICE} 60 TXT {n:04}{'x' * 90}" for n in numbers]
        await run("nsupdate", "-v", "-k", key, given=nsupdate_script(server, *lines))
    out = await run("dig", *at(server, "tcp"), "-k", key, ALICE, "AXFR")
    assert out.count("\tTXT\t") == 600
    assert out.count("\tSOA\t") == 2
    messages = re.search(r"messages (\d+)", out)
    assert messages
    assert int(messages[1]) > 2
    assert "Couldn't verify" not in out
    over_tls = await run("kdig", "+tls", *at(server, "tls"), "-y", knot_key(), ALICE, "AXFR")
    assert over_tls.count("\tTXT\t") == 600
    assert "WARNING" not in over_tls
    foreign = key_file(tmp_path, BOB)
    assert "Transfer failed" in await run("dig", *at(server, "tcp"), "-k", foreign, ALICE, "AXFR")
    assert "Transfer failed" in await run("dig", *at(server, "tcp"), ALICE, "AXFR")


async def test_digs_wrong_time_and_cut_macs_are_judged(server: RendezvousServer) -> None:
    """RFC 8945 §5.2.3 (BADTIME) and §5.2.2.1 (half of a MAC is enough, less is a FORMERR)."""
    secret = base64.b64encode(secret_of(ALICE)).decode()
    asked = (*at(server, "udp"), ALICE, "SOA")
    late = await run("dig", "-y", f"hmac-sha256:{ALICE}.:{secret}", "+fuzztime=646972358", *asked)
    assert "status: NOTAUTH" in late
    assert "BADTIME" in late
    half = await run("dig", "-y", f"hmac-sha256-128:{ALICE}.:{secret}", *asked)
    assert "status: NOERROR" in half
    short = await run("dig", "-y", f"hmac-sha256-80:{ALICE}.:{secret}", *asked)
    assert "status: FORMERR" in short
    assert server.counters["tsig.BADTIME"] == 1
    assert server.counters["tsig.FORMERR"] == 1


SECONDARY = """\
options {{
    directory "{folder}"; pid-file none; session-keyfile none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; notify no; dnssec-validation no;
}};
controls {{ }};
key "{key}." {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "{key}" {{
    type secondary; file "copy";
    masterfile-format text; primaries {{ 127.0.0.1 port {primary} key "{key}."; }};
    allow-query {{ any; }};
}};
"""


KNOT_SECONDARY = """\
server:
  rundir: "{folder}"
  listen: "127.0.0.1@{port}"
database:
  storage: "{folder}"
key:
  - id: "{key}."
    algorithm: hmac-sha256
    secret: "{secret}"
remote:
  - id: rendezvous
    address: "127.0.0.1@{primary}"
    key: "{key}."
zone:
  - domain: "{key}"
    storage: "{folder}"
    file: "copy"
    zonefile-sync: 0
    master: rendezvous
"""


@pytest.mark.parametrize(
    ("program", "options", "template"),
    [("named", ("-g",), SECONDARY), ("knotd", (), KNOT_SECONDARY)],
    ids=["bind", "knot"],
)
async def test_others_as_a_secondary_take_the_zone_with_the_accounts_key(
    server: RendezvousServer,
    tmp_path: Path,
    program: str,
    options: tuple[str, ...],
    template: str,
) -> None:
    """RFC 5936 with RFC 8945 §5.3.1: they verify every message of the transfer."""
    lines = [f"update add h{n}.{ALICE} 60 TXT {n:04}{'x' * 90}" for n in range(300)]
    await run("nsupdate", "-v", "-k", key_file(tmp_path), given=nsupdate_script(server, *lines))
    port = free_port()
    config = tmp_path / "secondary.conf"
    config.write_text(
        template.format(
            folder=tmp_path,
            port=port,
            key=ALICE,
            secret=base64.b64encode(secret_of(ALICE)).decode(),
            primary=server.listening["tcp"][0][1],
        )
    )
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{program} is missing: apt-get install bind9 knot"
    secondary = await asyncio.create_subprocess_exec(
        *(found, *options, "-c", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        asked = ("@127.0.0.1", "-p", str(port), "+tries=1", "+time=1", "+short")
        async with asyncio.timeout(3 * DEADLINE):
            while "0299" not in await run("dig", *asked, f"h299.{ALICE}", "TXT"):
                assert secondary.returncode is None
    finally:
        secondary.terminate()
        await secondary.wait()
    assert server.counters["transfer.NOERROR"] == 1
    if program == "named":
        assert (tmp_path / "copy").read_text().count("TXT") == 300
