"""Every AEAD backend of the native engine does what the reference does, octet for octet.

"ipsec-mb/sse" and "ipsec-mb/avx2" run the code that a CPU without AVX-512 gets.
"""

from __future__ import annotations

import random

import pytest

from fastpath.reference import esp as reference
from fastpath.types import Drop, Opened, SaParams, Suite
from tests.fastpath.support import OUR_ID, PEER_ID, SUITES, key_of, native_module, params

BACKENDS = list(native_module("_aead").backends())
SIZES = [*range(70), 127, 128, 129, 255, 256, 257, 1400, 4095, 9000, 65_000]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def native(name: str) -> type:
    return getattr(native_module("_esp"), name)


@pytest.mark.parametrize("esn", [True, False])
@pytest.mark.parametrize("suite", SUITES)
def test_every_backend_seals_and_opens_as_the_reference_does(
    backend: str, suite: Suite, esn: bool
) -> None:
    sa = params(suite, esn=esn)
    ours, law = native("OutboundSa")(sa, aead=backend), reference.OutboundSa(sa)
    opener = native("InboundSa")(sa, aead=backend)
    octets = random.Random(1)
    for size in SIZES:
        payload = octets.randbytes(size)
        packet = ours.seal(payload)
        assert packet == law.seal(payload), size
        broken = bytearray(packet)
        broken[octets.randrange(8, len(packet))] ^= 1 << octets.randrange(8)
        assert opener.open(bytes(broken)) is Drop.AUTHENTICATION
        assert opener.open(packet) == Opened(payload, 41, ours.sequence)


def test_the_tag_is_compared_whole(backend: str) -> None:
    sa = params()
    packet = native("OutboundSa")(sa, aead=backend).seal(b"x" * 100)
    opener = native("InboundSa")(sa, aead=backend)
    for place in range(1, 17):
        broken = bytearray(packet)
        broken[-place] ^= 0x80
        assert opener.open(bytes(broken)) is Drop.AUTHENTICATION
    assert opener.sequence == 0


def test_rfc7634_appendix_a_over_every_backend(backend: str) -> None:
    key = bytes(range(0x80, 0xA0)) + bytes.fromhex("a0a1a2a3")
    packet = bytes.fromhex(
        "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef"
        "407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b50"
        "2773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43"
    )
    sa = SaParams(0x01020304, Suite.CHACHA20POLY1305, key, OUR_ID, PEER_ID, esn=False)
    opened = native("InboundSa")(sa, aead=backend).open(packet)
    assert isinstance(opened, Opened)
    assert opened.next_header == 4
    assert opened.payload.startswith(bytes.fromhex("45000054a6f20000"))


@pytest.mark.parametrize(
    ("esn", "sequence", "tag"),
    [
        (False, 0, "191c575e98b913f7f2afdc149501bdcf"),
        (True, 0, "191c575e98b913f7f2afdc149501bdcf"),
    ],
)
def test_the_computed_gcm_packet_over_every_backend(
    backend: str, esn: bool, sequence: int, tag: str
) -> None:
    """ikev2_esp §12 prints the packet for 8 octets of associated data, i.e. without ESN."""
    key = bytes.fromhex("593b945988b11218ed631b264a53d69c95bd3ea5cda70ca54330715b17d57918d3cfe27b")
    inner = bytes.fromhex(
        "6000000000043b40fd01020304050607002269fffe8e342afd11121314151617002269fffe00000170696e67"
    )
    sa = SaParams(0xC0FFEE01, Suite.AES256GCM16, key, PEER_ID, OUR_ID, esn=esn)
    packet = native("OutboundSa")(sa, sequence, aead=backend).seal(inner)
    assert packet[:24].hex() == "c0ffee01000000010000000000000001b7a98aa32c07a00c"
    assert (packet[-16:].hex() == tag) is not esn


def test_backends_are_named_with_version_and_architecture() -> None:
    aead = native_module("_aead")
    assert aead.describe("auto") == aead.describe(BACKENDS[0])
    assert aead.describe("openssl").startswith("OpenSSL ")
    assert all(
        text.startswith("ipsec-mb ") and text.endswith(")")
        for name, text in aead.backends().items()
        if name.startswith("ipsec-mb")
    )


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'quantum' is not there.*auto, .*openssl"):
        native("OutboundSa")(params(), aead="quantum")


def test_a_key_of_the_wrong_length_is_refused(backend: str) -> None:
    short = params(key=key_of(Suite.AES128GCM16)[:-1])
    for name in ("OutboundSa", "InboundSa"):
        with pytest.raises(ValueError, match="20 octets of key and salt, not 19"):
            native(name)(short, aead=backend)
