"""Additional key exchanges: IKE_INTERMEDIATE (RFC 9242), RFC 9370, ML-KEM (FIPS 203, the draft)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keys.ike import additional as series
from keys.ike.additional import Rounds
from keys.ike.errors import InvalidSyntaxError
from keys.ike.groups import encapsulate, generate, respond
from keys.ike.header import Exchange, decode_header
from keys.ike.intauth import IntAuth
from keys.ike.keymat import Nonces, skeyseed_rekey, updated
from keys.ike.notify import NotifyType
from keys.ike.payloads import KeyExchange, decode_chain, decode_contents
from keys.ike.proposals import (
    METHOD,
    NO_ADDITIONAL,
    PROTOCOL_IKE,
    Additional,
    Proposal,
    Transform,
    TransformType,
    Wanted,
    additional_methods,
    answers,
    choose,
    decode_sa,
    describe,
    encode_sa,
    offers,
)
from keys.ike.sa_init import wanted
from keys.ike.settings import IkeSettings
from keys.ike.types import IkeFailed, IkeLog
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair
from tests.keys.ike.test_vectors import NONCES, SPI_I, SPI_R, keys

KEM = METHOD["mlkem768"]
HYBRID = ("mlkem768",)
RANDOM = b"\x5a".__mul__


def kinds(net: Net) -> list[str]:
    return list(dict.fromkeys(d.kind for d in net.sent))


def hybrid(**keywords: object) -> tuple[Net, Side, Side]:
    return pair(additional=HYBRID, **keywords)


# --- Vectors and codecs -----------------------------------------------------------------------


def test_skeyseed_of_the_first_additional_key_exchange() -> None:
    """The fact sheet's ADDKE1 vector, the secret being 55 * 32."""
    secret = b"\x55" * 32
    seed = skeyseed_rekey(keys(), NONCES, secret)
    assert seed.hex() == "eed8a2d7bd0509b3e8d870303bdfa8d206a7a0a7af679a76d10fc7a86afe1a78"
    fresh = updated(keys(), NONCES, secret, SPI_I, SPI_R)
    stream = fresh.prf.plus(seed, NONCES.both + SPI_I + SPI_R, 32)
    assert fresh.d == stream
    assert fresh.pi != keys().pi


def test_seeds_of_a_rekey_have_all_secrets_behind_the_nonces() -> None:
    """RFC 9370 §2.2.4: SK(0)|Ni|Nr|SK(1)|…"""
    nonces = Nonces(b"i" * 32, b"r" * 32)
    k = keys()
    expected = k.prf(k.d, b"zero" + nonces.both + b"one" + b"two")
    assert skeyseed_rekey(k, nonces, b"zero", b"one" + b"two") == expected


def test_int_auth_by_hand() -> None:
    """RFC 9242 §3.3.2, with each step written out."""
    k1, k2 = keys(), updated(keys(), NONCES, b"\x55" * 32, SPI_I, SPI_R)
    sums = IntAuth()
    assert sums.octets == b""
    head = SPI_I + SPI_R + bytes.fromhex("352b200000000001 000004d2".replace(" ", ""))
    req1 = bytes.fromhex("22000008deadbeef")
    whole = head[:16] + b"\x2e" + head[17:24] + (40).to_bytes(4, "big")
    a1 = whole + bytes.fromhex("2200000c") + req1
    sums.add(k1, head, 0x22, 0, req1, initiator=True)
    sums.add(k1, head, 0x22, 0, req1, initiator=False)
    i1, r1 = k1.prf(k1.pi, a1), k1.prf(k1.pr, a1)
    assert sums.octets == i1 + r1 + (2).to_bytes(4, "big")
    sums.add(k2, head, 0, 0x80, b"", initiator=True)
    a2 = head[:16] + b"\x2e" + head[17:24] + (32).to_bytes(4, "big") + b"\x00\x80\x00\x04"
    sums.add(k2, head, 0, 0x80, b"", initiator=False)
    expected = k2.prf(k2.pi, i1 + a2) + k2.prf(k2.pr, r1 + a2)
    assert sums.octets == expected + (3).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("name", "public", "sealed"), [("mlkem768", 1184, 1088), ("mlkem1024", 1568, 1568)]
)
def test_ml_kem_sizes_and_agreement(name: str, public: int, sealed: int) -> None:
    """draft-ietf-ipsecme-ikev2-mlkem §2.2."""
    key = generate(METHOD[name], RANDOM)
    assert generate(METHOD[name], RANDOM).public == key.public  # from `random` alone
    assert len(key.public) == public
    ciphertext, secret = encapsulate(METHOD[name], key.public)
    assert (len(ciphertext), len(secret)) == (sealed, 32)
    assert key.shared(ciphertext) == secret
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
        with pytest.raises(InvalidSyntaxError):
            key.shared(wrong)
    # A ciphertext of the right size that is none: another secret, and no word (FIPS 203 §6.3).
    assert key.shared(bytes(sealed)) != secret


def test_an_encapsulation_key_is_checked() -> None:
    """FIPS 203 §7.2: length and modulus."""
    public = generate(KEM, RANDOM).public
    too_large = b"\xff\xff\xff" + public[3:]  # two coefficients of 4095, above q = 3329
    just_too_large = (3329).to_bytes(2, "little") + public[2:]
    for wrong in (b"", public[:-1], public + b"\0", too_large, just_too_large):
        with pytest.raises(InvalidSyntaxError):
            encapsulate(KEM, wrong)
    encapsulate(KEM, (3328).to_bytes(2, "little") + public[2:])


def test_any_method_can_be_an_additional_one() -> None:
    for method in METHOD.values():
        one, two = Rounds([method, method]), Rounds([method, method])
        secrets = set()
        for _ in range(2):
            answer, theirs = two.respond(one.ask(RANDOM), lambda n: bytes([7]) * n, encapsulate)
            secrets |= {one.take(answer), theirs}
        assert one.more == two.more
        assert len(one) == len(two) == 0
        with pytest.raises(InvalidSyntaxError):
            two.respond(KeyExchange(method, b""), RANDOM, encapsulate)


def test_respond_is_the_other_half_of_a_diffie_hellman_exchange() -> None:
    key = generate(31, RANDOM)
    public, secret = respond(31, key.public, lambda n: b"\x77" * n, encapsulate)
    assert key.shared(public) == secret


def test_the_transforms_on_the_wire() -> None:
    """Type 6, id 36, no attribute."""
    proposal = offers(PROTOCOL_IKE, b"", {}, Additional((KEM,)))[0]
    assert encode_sa([proposal]) == bytes.fromhex("00000010" + "01010001" + "0000000806000024")
    (read,) = decode_sa(encode_sa([proposal]))
    assert read == proposal
    assert describe([proposal]) == "ke1_mlkem768"
    assert additional_methods(proposal) == (KEM,)


# --- The choice -------------------------------------------------------------------------------

TABLE = wanted(IkeSettings(encryption=("aes256gcm16",), prf=("prfsha256",), groups=("x25519",)))
CORE = tuple(t for kind in sorted(TABLE) for t in TABLE[kind])


def proposal(*more: Transform) -> Proposal:
    return Proposal(1, PROTOCOL_IKE, b"", CORE + more)


def add(number: int, method: int) -> Transform:
    return Transform(TransformType.ADDKE1 - 1 + number, method)


@pytest.mark.parametrize(
    ("offered", "additional", "chosen"),
    [
        ((), Additional((36,)), ()),
        ((), Additional((36,), required=True), None),
        ((add(1, 36),), Additional((36,)), (36,)),
        ((add(1, 36),), NO_ADDITIONAL, None),
        ((add(1, 36), add(1, 0)), Additional((36,)), (36,)),
        ((add(1, 36), add(1, 0)), NO_ADDITIONAL, ()),
        ((add(1, 36), add(1, 0)), Additional(required=True), None),
        ((add(1, 37), add(1, 36)), Additional((36, 37)), (36,)),
        ((add(3, 36), add(1, 37)), Additional((36, 37)), (37, 36)),
        # Each method only once (RFC 9370 §2.2.1), also not the one of type 4.
        ((add(1, 36), add(2, 36)), Additional((36,)), None),
        ((add(1, 36), add(2, 36), add(2, 0)), Additional((36,)), (36,)),
        ((add(1, 31),), Additional((31, 36)), None),
        ((add(1, 99),), Additional((36,)), None),
        ((add(7, 36),), Additional((36,)), (36,)),
    ],
)
def test_what_is_chosen(
    offered: tuple[Transform, ...], additional: Additional, chosen: tuple[int, ...] | None
) -> None:
    answer = choose([proposal(*offered)], PROTOCOL_IKE, 0, TABLE, additional)
    assert (None if answer is None else additional_methods(answer)) == chosen
    if answer is not None:
        assert answers(answer, [proposal(*offered)])


def test_the_offer_has_a_way_out_unless_it_is_required() -> None:
    assert [len(p.transforms) for p in offers(PROTOCOL_IKE, b"", TABLE, Additional((36,)))] == [
        len(CORE) + 1,
        len(CORE),
    ]
    assert len(offers(PROTOCOL_IKE, b"", TABLE, Additional((36,), required=True))) == 1
    assert len(offers(PROTOCOL_IKE, b"", TABLE, NO_ADDITIONAL)) == 1


# --- Ladders ----------------------------------------------------------------------------------


def test_six_messages_make_a_hybrid_tunnel() -> None:
    net, desk, lap = hybrid()
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "43q", "43r", "35q", "35r"]
    assert [decode_header(d.data).message_id for d in net.sent if d.kind == "35q"] == [2]
    assert net.pair_is_up()
    for side in (desk, lap):
        assert side.ike.views()[0].key_exchange == "x25519+mlkem768"


def test_a_big_enough_datagram_needs_no_fragments() -> None:
    """IntAuth is the same either way (RFC 9242 §3.3.2)."""
    net, desk, lap = hybrid(fragment_ipv4=1500)
    net.connect(desk, lap)
    net.play(2)
    assert [d.kind for d in net.sent] == ["34q", "34r", "43q", "43r", "35q", "35r"]
    assert net.pair_is_up()


def test_two_additional_key_exchanges_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9370 §2.2.2: each uses the keys of the one before; ids go on."""
    net, desk, lap = hybrid()
    both = (add(1, 36), add(2, 37))

    def two_offers(p: int, s: bytes, w: Wanted, _: Additional) -> tuple[Proposal, ...]:
        return (Proposal(1, p, s, tuple(t for kind in sorted(w) for t in w[kind]) + both),)

    with monkeypatch.context() as patch:
        patch.setattr("keys.ike.sa_init.offers", two_offers)
        net.connect(desk, lap)
    lap.ike._ctx.settings = replace(net.settings, additional=("mlkem768", "mlkem1024"))
    net.play(3)
    assert net.pair_is_up()
    assert desk.ike.views()[0].key_exchange == "x25519+mlkem768+mlkem1024"
    ids = [decode_header(d.data).message_id for d in net.sent]
    assert list(dict.fromkeys(ids)) == [0, 1, 2, 3]


@pytest.mark.parametrize("lost", range(12))
def test_any_one_datagram_may_be_lost(lost: int) -> None:
    net, desk, lap = hybrid(fate=lambda d: [] if d.number == lost else [DELAY])
    net.connect(desk, lap)
    net.play(4)
    assert net.pair_is_up()


@pytest.mark.parametrize("who", ["desk", "lap"])
def test_peers_without_it_get_none(who: str) -> None:
    net, desk, lap = hybrid()
    (desk if who == "desk" else lap).ike._ctx.settings = replace(net.settings, additional=())
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "35q", "35r"]
    assert net.pair_is_up()
    assert desk.ike.views()[0].key_exchange == "x25519"


def test_an_initiator_that_requires_it_refuses_a_peer_without() -> None:
    net, desk, lap = pair(additional=HYBRID, additional_required=True)
    lap.ike._ctx.settings = replace(net.settings, additional=(), additional_required=False)
    net.connect(desk, lap)
    net.play(6)
    (failed,) = desk.all(IkeFailed)
    assert "ke1_mlkem768" in failed.reason
    assert not desk.inbound


def test_a_responder_that_requires_it_refuses_a_peer_without() -> None:
    net, desk, lap = pair(additional=HYBRID, additional_required=True)
    desk.ike._ctx.settings = replace(net.settings, additional=(), additional_required=False)
    net.connect(desk, lap)
    net.play(6)
    assert "NO_PROPOSAL_CHOSEN" in desk.all(IkeFailed)[0].reason
    assert any("we accept" in log.text and "mlkem768" in log.text for log in lap.all(IkeLog))
    assert not lap.inbound


def test_without_the_notification_its_proposals_are_passed_over() -> None:
    """RFC 9370 §2.2.1, §2.1: a responder does not choose what the initiator cannot do."""
    net, desk, lap = hybrid()
    notify = NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED.to_bytes(2, "big")

    def without(datagram: Datagram) -> bytes:
        return datagram.data.replace(b"\x00\x00" + notify, b"\x00\x00\xc0\x00")

    net.tamper = without
    net.connect(desk, lap)
    net.play(0.15)
    answer = next(d.data for d in net.sent if d.kind == "34r")
    contents = decode_contents(decode_chain(answer[16], answer[28:]))
    assert contents.sa is not None
    assert additional_methods(contents.sa[0]) == ()


def test_a_chosen_method_without_the_notification_is_a_wrong_answer() -> None:
    net, desk, lap = hybrid()
    notify = NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED.to_bytes(2, "big")
    net.tamper = lambda d: (
        d.data.replace(b"\x00\x00" + notify, b"\x00\x00\xc0\x00") if d.kind == "34r" else d.data
    )
    net.connect(desk, lap)
    net.play(1)
    assert desk.ike.counters()["bad_init_answer"] >= 1
    assert "43q" not in kinds(net)


def test_a_bad_encapsulation_key_is_answered_with_invalid_syntax(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The draft §2.3: the responder checks the key."""
    net, desk, lap = hybrid()

    class Bad:
        group, public = KEM, b"\xff" * 1184

    monkeypatch.setattr(series, "generate", lambda method, random: Bad())
    net.connect(desk, lap)
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert failed.reason == "lap.alice.example refused IKE_INTERMEDIATE with INVALID_SYNTAX"
    assert not lap.inbound


@pytest.mark.parametrize("octets", [b"", bytes(1087), bytes(1089)])
def test_a_ciphertext_of_a_wrong_length_ends_the_attempt(octets: bytes) -> None:
    net, desk, lap = hybrid()
    lap.ike._ctx.encapsulate = lambda method, public: (octets, bytes(32))
    net.connect(desk, lap)
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert "ciphertext" in failed.reason
    assert not desk.inbound


def test_a_ciphertext_that_is_none_shows_in_the_next_exchange() -> None:
    """Implicit rejection: the two sides have different keys, and IKE_AUTH is never understood."""
    net, desk, lap = hybrid()
    lap.ike._ctx.encapsulate = lambda method, public: (bytes(1088), bytes(32))
    net.connect(desk, lap)
    net.play(40)
    assert "not IKE_AUTH" in desk.all(IkeFailed)[0].reason
    assert lap.ike.counters()["integrity"] > 0
    assert not lap.inbound


@pytest.mark.parametrize("role", [True, False])
def test_auth_covers_ike_intermediate(role: bool) -> None:
    """RFC 9242 §3.3.2: who changed a message there would be found out in IKE_AUTH."""
    net, desk, lap = hybrid()
    original = IntAuth.add

    def spoilt(self, keys, head, first, flags, chain, *, initiator):
        sums = [sa.init.intermediate for sa in lap.ike._ctx]
        changed = bytes(len(chain)) if self in sums and initiator is role else chain
        original(self, keys, head, first, flags, changed, initiator=initiator)

    try:
        IntAuth.add = spoilt
        net.connect(desk, lap)
        net.play(3)
    finally:
        IntAuth.add = original
    assert "AUTHENTICATION_FAILED" in desk.all(IkeFailed)[0].reason
    assert not lap.inbound


def test_ike_auth_before_its_time_is_dropped() -> None:
    """While an additional key exchange is due, nothing else is taken from a stranger."""
    net, desk, lap = hybrid()
    net.connect(desk, lap)
    net.play(2 * DELAY + 0.01)
    (sa,) = list(desk.ike._ctx)
    assert sa._seal is not None
    for exchange in (Exchange.IKE_AUTH, Exchange.IKE_FOLLOWUP_KE, Exchange.INFORMATIONAL):
        data = sa._seal.seal(sa.header(exchange, 1, response=False), [])
        assert lap.ike.receive(data, desk.address, net.now) == []
    assert lap.ike.counters()["unexpected_request"] == 3
    net.play(2)
    assert net.pair_is_up()
