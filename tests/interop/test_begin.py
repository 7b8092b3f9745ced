"""How a tunnel begins, and what may stand in its way."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from ipaddress import IPv6Address

import pytest

from keys.ike.endpoint import IkeEndpoint, IkeSettings
from keys.ike.types import PeerPolicy, SendIke
from tests.interop.stage import (
    OUR_OUTER,
    OURS,
    PSK,
    THEIR_NAME,
    THEIR_OUTER,
    THEIRS,
    Papers,
    Play,
    Stage,
)
from tunnel.io.lab import LabError

pytestmark = pytest.mark.root

# --- Cookies ----------------------------------------------------------------------------------

# IKE_SA_INIT of somebody who never goes on: its octets are the last argument.
STRANGER = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], 0))
one.settimeout(60)
one.sendto(bytes(4) + bytes.fromhex(sys.argv[3]), (sys.argv[2], 4500))
one.recvfrom(65535)
"""


def half_open(play: Play) -> None:
    """Make one half-open exchange at charon, by a stranger who never goes on."""
    stranger = IkeEndpoint(
        local_name="stranger.example",
        secret_for=lambda name: PSK,
        random=secrets.token_bytes,
        settings=IkeSettings(encryption=("aes128gcm16",)),
    )
    policy = PeerPolicy(THEIR_NAME, IPv6Address(OURS), IPv6Address(THEIRS))
    first = stranger.connect(THEIR_NAME, policy, (THEIR_OUTER, 4500), 0.0)
    (message,) = (command.data for command in first if isinstance(command, SendIke))
    play.stage.ours.run("python3", "-c", STRANGER, OUR_OUTER, THEIR_OUTER, message.hex())


def test_charon_asks_us_for_a_cookie(stage: Stage) -> None:
    with stage.play("cookies") as play:
        half_open(play)
        play.reach()
        play.check_both_ways()
    # Asked for, brought back: one more exchange than usual.
    assert play.cookies() >= 2


def test_we_ask_charon_for_a_cookie(stage: Stage) -> None:
    with stage.play("cookies") as play:
        play.charon.initiate()
        play.check_both_ways()
    assert play.cookies() >= 2


# --- Selectors and ports ----------------------------------------------------------------------


@pytest.mark.parametrize("who", ["we", "charon"])
def test_wide_selectors_are_narrowed_to_two_host_ids(stage: Stage, who: str) -> None:
    with stage.play("narrowing") as play:
        play.reach() if who == "we" else play.charon.initiate()
        play.check_both_ways()
        said = play.charon.sas()
        assert re.search(rf"local +{THEIRS}/128$", said, re.MULTILINE), said
        assert re.search(rf"remote +{OURS}/128$", said, re.MULTILINE), said


@pytest.mark.parametrize("port", ["4500", "500"])
def test_charon_begins_from_its_port_500(stage: Stage, port: str) -> None:
    with stage.play("port_500", port=port) as play:
        play.charon.initiate()
        play.check_both_ways()
        play.reach()


# --- Refusals ---------------------------------------------------------------------------------

IKE, ESP = "aes128gcm16-prfsha256-x25519", "aes128gcm16"
WELL = {"ike": IKE, "esp": ESP, "local_id": THEIRS, "remote_id": OURS, "psk_file": "gateway.psk"}

# What charon wants instead; what we say when we begin; what our log says when charon begins.
MISMATCHES = {
    "IKE cipher": (
        {"ike": "aes256-sha256-x25519"},
        r"NO_PROPOSAL_CHOSEN.*none of what we offer \(.*aes256gcm16.*\)",
        r"the peer offers aes256-.*sha256.*x25519; we accept .*aes256gcm16.*x25519",
    ),
    "IKE hash": (
        {"ike": "aes128gcm16-prfsha512-x25519"},
        r"NO_PROPOSAL_CHOSEN.*none of what we offer \(.*prfsha256.*\)",
        r"the peer offers aes128gcm16-prfsha512-x25519; we accept .*prfsha256",
    ),
    "IKE group": (
        {"ike": "aes128gcm16-prfsha256-modp3072"},
        r"NO_PROPOSAL_CHOSEN.*none of what we offer \(.*x25519.*ecp256.*\)",
        r"the peer offers aes128gcm16-prfsha256-modp3072; we accept .*x25519",
    ),
    "ESP cipher": (
        {"esp": "aes256-sha256"},
        r"refused the child with NO_PROPOSAL_CHOSEN; we offered aes128gcm16",
        r"gateway.example offers aes256-.*sha256.*; we accept aes128gcm16",
    ),
    "ESP key size": (
        {"esp": "aes256gcm16"},
        r"refused the child with NO_PROPOSAL_CHOSEN; we offered aes128gcm16",
        r"gateway.example offers aes256gcm16-noesn; we accept aes128gcm16",
    ),
    "our host id": (
        {"remote_id": "fd12:3456:789a::9"},
        rf"refused the child with TS_UNACCEPTABLE; we wanted {OURS} to {THEIRS}",
        rf"wants {THEIRS} to fd12:3456:789a::9; it may have {THEIRS} to {OURS}",
    ),
    "its host id": (
        {"local_id": "fd12:3456:789a::9"},
        rf"refused the child with TS_UNACCEPTABLE; we wanted {OURS} to {THEIRS}",
        r"claims .*fd12:3456:789a::9",
    ),
    "the key": (
        {"psk_file": "other.psk"},
        r"AUTHENTICATION_FAILED",
        r"pre-shared key",
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_a_refusal_says_which_side_wanted_what(stage: Stage, what: str) -> None:
    change, to_person, to_log = MISMATCHES[what]
    wrong = Papers({"other.psk": b"a key that charon does not have."}, {})
    with stage.play("refusals", opens=False, papers=wrong, **WELL | change) as play:
        assert re.search(to_person, play.refusal()), play.refusal()
        play.charon.try_initiate()
        process = play.host.process
        assert process is not None

        def said() -> str:
            return re.sub(r"\x1b\[[0-9;]*m", "", process.output())

        with suppress(LabError):  # it answers first, and writes down why
            play.until(lambda: re.search(to_log, said()), "our log says why")
        assert re.search(to_log, said()), said()
        assert not play.charon.children()
