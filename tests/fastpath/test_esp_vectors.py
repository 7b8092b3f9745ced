"""Known answers of ESP, over both engines.

RFC 7634 Appendix A is printed in the RFC. "Computed" vectors were calculated with an
independent library and confirmed by a second calculation.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastpath.types import Drop, Opened, SequenceExhausted, Suite
from tests.fastpath.support import SUITES, key_of, params, tunnelled_in

RFC7634_KEY = bytes(range(0x80, 0xA4))
RFC7634_PACKET = bytes.fromhex(
    "0102030400000005" "1011121314151617"
    "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c"
    "02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0"
    "76aaa8266b7fb0f7b11b369907e1ad43"
)  # fmt: skip
RFC7634_INNER = bytes.fromhex(
    "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011"
    "12131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
)

COMPUTED_KEY = bytes.fromhex(
    "593b945988b11218ed631b264a53d69c95bd3ea5cda70ca54330715b17d57918" "d3cfe27b"
)  # fmt: skip
COMPUTED_INNER = bytes.fromhex(
    "6000000000043b40" "fd01020304050607002269fffe8e342a" "fd11121314151617002269fffe000001"
    "70696e67"
)  # fmt: skip
COMPUTED_CIPHERTEXT = (
    "b7a98aa32c07a00c45f24e9f882a61fc2e7a6b267c373f26"
    "abb5c86e57ecfbdfb2e8abeabee5ee717488b5e570a4796b"
)
COMPUTED_PACKET = bytes.fromhex(
    "c0ffee01" "00000001" "0000000000000001"
    + COMPUTED_CIPHERTEXT
    + "191c575e98b913f7f2afdc149501bdcf"
)  # fmt: skip
COMPUTED_ESN_PACKET = COMPUTED_PACKET[:-16] + bytes.fromhex("1defb47f2142eb5e1165abac88c56b20")


def test_rfc7634_appendix_a_is_opened(engine: Any) -> None:
    sa = engine.InboundSa(
        params(Suite.CHACHA20POLY1305, spi=0x01020304, key=RFC7634_KEY, esn=False)
    )
    assert sa.open(RFC7634_PACKET) == Opened(RFC7634_INNER, 4, 5)


def test_the_computed_gcm_packet_is_sealed_octet_for_octet(engine: Any) -> None:
    sa = engine.OutboundSa(params(Suite.AES256GCM16, key=COMPUTED_KEY, esn=False))
    assert sa.seal(COMPUTED_INNER, 41) == COMPUTED_PACKET
    assert sa.sequence == 1


def test_the_computed_gcm_packet_is_opened(engine: Any) -> None:
    sa = engine.InboundSa(params(Suite.AES256GCM16, key=COMPUTED_KEY, esn=False))
    assert sa.open(COMPUTED_PACKET) == Opened(COMPUTED_INNER, 41, 1)


def test_the_computed_esn_packet_is_opened_when_the_window_has_passed_two_to_the_32(
    engine: Any,
) -> None:
    """The vector has Seqh = 1, which is never sent: the receiver has to infer it (App. A2)."""
    sa_params = params(Suite.AES256GCM16, key=COMPUTED_KEY)
    sa = engine.InboundSa(sa_params)
    for before in (2**31, 2**32 - 1):
        sent = engine.OutboundSa(sa_params, before - 1).seal(b"", 41)
        assert sa.open(sent) == Opened(b"", 41, before)
    assert sa.open(COMPUTED_ESN_PACKET) == Opened(COMPUTED_INNER, 41, 2**32 + 1)


def test_without_esn_the_esn_vector_does_not_authenticate(engine: Any) -> None:
    sa = engine.InboundSa(params(Suite.AES256GCM16, key=COMPUTED_KEY, esn=False))
    assert sa.open(COMPUTED_ESN_PACKET) is Drop.AUTHENTICATION


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [True, False])
def test_what_one_side_seals_the_other_opens(engine: Any, suite: Suite, esn: bool) -> None:
    sa_params = params(suite, esn=esn)
    sender, receiver = engine.OutboundSa(sa_params), engine.InboundSa(sa_params)
    for length in (0, 1, 2, 3, 4, 63, 64, 65, 1400):
        packet = sender.seal(bytes(length), 41)
        plaintext = len(packet) - 8 - 8 - 16
        assert plaintext % 4 == 0, "RFC 4303 §2.4: aligned to 4 octets"
        assert plaintext - length - 2 < 4, "and no more padding than that takes"
        assert receiver.open(packet) == Opened(bytes(length), 41, sender.sequence)


@pytest.mark.parametrize("suite", SUITES)
def test_every_flipped_octet_fails_authentication_and_leaves_the_window(
    engine: Any, suite: Suite
) -> None:
    sa_params = params(suite)
    packet = engine.OutboundSa(sa_params).seal(tunnelled_in(), 41)
    receiver = engine.InboundSa(sa_params)
    for index in range(4, len(packet)):
        forged = bytearray(packet)
        forged[index] ^= 0x80
        assert receiver.open(bytes(forged)) in (Drop.AUTHENTICATION, Drop.REPLAY), index
    assert receiver.sequence == 0, "a forged packet moved the window (RFC 4303 §3.4.3)"
    assert isinstance(receiver.open(packet), Opened)


def test_another_spi_is_not_ours(engine: Any) -> None:
    packet = engine.OutboundSa(params(spi=0x1000)).seal(b"x", 41)
    assert engine.InboundSa(params(spi=0x1001)).open(packet) is Drop.UNKNOWN_SPI


def test_too_short_is_malformed_at_every_length(engine: Any) -> None:
    sa_params = params()
    packet = engine.OutboundSa(sa_params).seal(b"", 41)
    receiver = engine.InboundSa(sa_params)
    for length in range(8 + 8 + 2 + 16):
        assert receiver.open(packet[:length]) is Drop.MALFORMED


def test_a_dummy_packet_is_authenticated_marked_and_dropped(engine: Any) -> None:
    """RFC 4303 §2.6: next header 59 is discarded without an error."""
    sa_params = params()
    packet = engine.OutboundSa(sa_params).seal(b"noise", 59)
    receiver = engine.InboundSa(sa_params)
    assert receiver.open(packet) is Drop.DUMMY
    assert receiver.open(packet) is Drop.REPLAY


@pytest.mark.parametrize(
    "plaintext",
    [
        bytes([1, 2, 2, 2, 41]),  # pattern 1, 2, 2 (RFC 4303 §2.4)
        bytes([0, 1, 41]),  # pattern starts at 0
        bytes([200, 41]),  # longer than the packet
        bytes([3, 41]),
    ],
)
def test_broken_padding_is_dropped_after_authentication(engine: Any, plaintext: bytes) -> None:
    receiver = engine.InboundSa(params(esn=False))
    packet = seal_raw(plaintext)
    assert receiver.open(packet) is Drop.PADDING
    assert receiver.open(packet) is Drop.REPLAY, "it was authentic, so its number is used up"


def test_padding_of_255_octets_is_accepted(engine: Any) -> None:
    padded = b"in" + bytes(range(1, 256)) + bytes([255, 41])
    assert engine.InboundSa(params(esn=False)).open(seal_raw(padded)) == Opened(b"in", 41, 1)


@pytest.mark.parametrize(("esn", "last"), [(False, 2**32 - 1), (True, 2**64 - 1)])
def test_the_sequence_never_wraps(engine: Any, esn: bool, last: int) -> None:
    """RFC 4303 §3.3.3: the sender must not let the counter cycle."""
    sa = engine.OutboundSa(params(esn=esn), last - 1)
    assert sa.seal(b"", 41)[8:16] == last.to_bytes(8, "big"), "IV = the 64-bit counter"
    for _ in range(2):
        with pytest.raises(SequenceExhausted):
            sa.seal(b"", 41)
    assert sa.sequence == last


@pytest.mark.parametrize(
    "bad",
    [
        params(spi=255),
        params(spi=2**32),
        params(key=bytes(16)),
        params(local_id=bytes(4)),
        params(peer_id=bytes(17)),
        params(replay_window=31),
        params(replay_window=65_537),
    ],
)
def test_nonsense_parameters_are_refused(engine: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        engine.InboundSa(bad)


def seal_raw(plaintext: bytes) -> bytes:
    """A packet number 1 of ``params(esn=False)`` around ``plaintext``, trailer included."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sa_params = params(esn=False)
    key = key_of(sa_params.suite)
    header, iv = sa_params.spi.to_bytes(4, "big") + bytes([0, 0, 0, 1]), bytes(8)
    return header + iv + AESGCM(key[:-4]).encrypt(key[-4:] + iv, plaintext, header)
