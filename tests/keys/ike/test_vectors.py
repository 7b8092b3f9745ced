"""Known answers: RFC 7634 appendix B, RFC 5903 §8.1, RFC 7748 §6.1, and the computed ones of our
fact sheet (made with an independent library and confirmed by a second calculation)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from keys.ike import auth, natd
from keys.ike.cipher import MessageCipher
from keys.ike.errors import InvalidSyntaxError
from keys.ike.groups import generate
from keys.ike.header import Exchange, Header
from keys.ike.keymat import (
    IkeKeys,
    Nonces,
    Prf,
    child_keys,
    ike_keys,
    skeyseed,
    skeyseed_rekey,
)
from keys.ike.payloads import Identity, KeyExchange, Payload, PayloadType, encode_chain
from keys.ike.proposals import ENCRYPTION, ESN, PROTOCOL_ESP, Proposal, decode_sa, encode_sa
from keys.ike.selectors import decode_selectors, encode_selectors, host

H = bytes.fromhex
PRF = Prf("prfsha256")
NONCES = Nonces(bytes(range(0x20)), bytes(range(0x40, 0x60)))
SPI_I, SPI_R = H("0102030405060708"), H("1112131415161718")
SHARED = H("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def keys() -> IkeKeys:
    return ike_keys(PRF, "aes256gcm16", skeyseed(PRF, NONCES, SHARED), NONCES, SPI_I, SPI_R)


def test_keys_of_the_ike_sa() -> None:
    seed = skeyseed(PRF, NONCES, SHARED)
    assert seed.hex() == "a82ad27edb399bc731e205cabeea037fa2ab3a5cd3e9979068eecc37185784c5"
    k = keys()
    assert k.d.hex() == "b4c9e8a140dcf38e4ba332e7d8835d4098cb5a38aa8735d630c8e522018c96d4"
    assert k.ei.hex() == (
        "385ea3d92a2a2e1229662bf705fd3c16492b6eab25b9a629d80ee451b34b7fbed29a3dba"
    )
    assert k.er.hex() == (
        "e9a9600a68652ad7128b64c7908b036d43b4a30b3fa25f857547656880f14c9ddbe66e6b"
    )
    assert k.pi.hex() == "28867c33f74757cf0a39c30df886aeda48d1f8afafee7d963491cc9e5e4f3000"
    assert k.pr.hex() == "6b73983f52a02da2fd93a8f1b7bc784aedcc940fcc30ddeed9bd399de91b858f"


def test_keys_of_a_child() -> None:
    material = child_keys(keys(), "aes256gcm16", NONCES)
    assert material.initiator.hex() == (
        "593b945988b11218ed631b264a53d69c95bd3ea5cda70ca54330715b17d57918d3cfe27b"
    )
    assert material.responder.hex() == (
        "c1222a4c77e158cbcffe3996c820ce0c446c5970353ed868cb545d2334470f84dd7aba66"
    )


def test_skeyseed_of_an_ike_sa_rekey() -> None:
    seed = skeyseed_rekey(keys(), NONCES, SHARED)
    assert seed.hex() == "fc7a857d10477ef8f45179538b2cbcf2616cc44276daeb3b11b2696a86a06c3c"


def test_auth_with_a_shared_key() -> None:
    message = SPI_I + bytes(8) + H("00202208000000000000001c")
    identity = Identity.fqdn("alice.example")
    maced = PRF(keys().pi, identity.body)
    assert maced.hex() == "dbfaa4d51371108e3bc338d8687888d0488b647fa0c5e08233a33d7dcfc2359b"
    octets = auth.signed_octets(PRF, message, NONCES.r, keys().pi, identity)
    assert octets == message + NONCES.r + maced
    secret = b"correct horse battery staple"
    proof = auth.shared_key_mic(PRF, secret, octets)
    assert proof.hex() == "648600f9d3398679cd7214a6c68f1cdc3f0abfc9db2163c34dcc3eebad15490b"
    assert auth.verify_shared_key_mic(PRF, secret, octets, proof)
    assert not auth.verify_shared_key_mic(PRF, b"wrong", octets, proof)


def test_nat_detection_hash() -> None:
    made = natd.nat_hash(SPI_I, bytes(8), ("192.168.1.10", 4500))
    assert made.hex() == "1b9b9f0ae54f46e95998432644cd2309836613cd"


def test_chacha20_poly1305_message_of_rfc_7634() -> None:
    key = bytes(range(0x80, 0xA0)) + H("a0a1a2a3")
    cipher = MessageCipher("chacha20poly1305", key)
    cipher._counter = int.from_bytes(H("1011121314151617"), "big")
    header = Header(
        bytes(range(0xC0, 0xC8)),
        bytes(range(0xD0, 0xD8)),
        Exchange.INFORMATIONAL,
        9,
        response=False,
        initiator=False,
    )
    sealed = cipher.seal(header, [Payload(PayloadType.NOTIFY, H("000040010000000a"))])
    assert sealed[:32] == H("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029")
    assert sealed[32:] == H(
        "1011121314151617610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2"
    )
    opened = MessageCipher("chacha20poly1305", key).open(sealed)
    assert opened.payloads() == [Payload(PayloadType.NOTIFY, H("000040010000000a"))]


def fixed(*parts: bytes):
    stream = b"".join(parts)

    def random(octets: int) -> bytes:
        nonlocal stream
        taken, stream = stream[:octets], stream[octets:]
        return taken

    return random


def test_group_19_of_rfc_5903() -> None:
    # Our scalar is `random mod (n-1) + 1`, so the vector's private key goes in less one.
    secret_i = int("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433", 16)
    secret_r = int("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53", 16)
    one = generate(19, fixed((secret_i - 1).to_bytes(40, "big")))
    two = generate(19, fixed((secret_r - 1).to_bytes(40, "big")))
    assert one.public == H(
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    shared = "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"
    assert one.shared(two.public).hex() == two.shared(one.public).hex() == shared
    payload = Payload(PayloadType.KE, KeyExchange(19, one.public).encode())
    assert encode_chain([payload])[1].startswith(H("0000004800130000dad0b653"))


def test_curve25519_of_rfc_7748() -> None:
    one = generate(31, fixed(H("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")))
    two = generate(31, fixed(H("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")))
    assert one.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert one.shared(two.public) == two.shared(one.public) == SHARED


@pytest.mark.parametrize(
    ("group", "public"),
    [
        (31, bytes(32)),  # all-zero shared secret
        (31, b"\x01" + bytes(31)),  # another point of small order
        (31, bytes(31)),
        (19, bytes(64)),  # not on the curve
        (19, b"\x01" * 64),
        (19, bytes(65)),
    ],
)
def test_public_values_that_are_none_are_refused(group: int, public: bytes) -> None:
    key = generate(group, lambda octets: b"\x42" * octets)
    with pytest.raises(InvalidSyntaxError):
        key.shared(public)


def test_traffic_selector_payload() -> None:
    selectors = host(IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a"))
    body = encode_selectors(selectors)
    address = H("fd01020304050607002269fffe8e342a")
    assert encode_chain([Payload(PayloadType.TSI, body)])[1] == (
        H("0000003001000000080000280000ffff") + address + address
    )
    assert decode_selectors(body) == selectors


def test_sa_payload() -> None:
    proposal = Proposal(1, PROTOCOL_ESP, H("c0ffee01"), (ENCRYPTION["aes256gcm16"], ESN[False]))
    body = encode_sa([proposal])
    assert encode_chain([Payload(PayloadType.SA, body)])[1] == H(
        "000000240000002001030402c0ffee010300000c01000014800e01000000000805000000"
    )
    assert decode_sa(body) == (proposal,)
