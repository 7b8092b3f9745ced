"""Certificates in IKE_AUTH (RFC 7296 §2.15, §3.6, §3.7; RFC 7427; RFC 8420; RFC 4945; RFC 5280)."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from keys.ike import certificates, signature
from keys.ike.certificates import CertificateError, Credential, Trust, check
from keys.ike.notify import NotifyType
from keys.ike.payloads import PayloadType, decode_chain, decode_contents
from keys.ike.signature import HashId, SignatureError
from keys.ike.types import AskPeer, IkeFailed, IkeLog, PeerDown, PeerUp
from tests.keys.ike.net import Net, Side
from tests.keys.ike.pki import DAY, NOW, UNIX, Authority, Shown, common, make_key, shown, usage

DESK, LAP = "desk.alice.example", "lap.alice.example"
KINDS = ("ed25519", "p256", "p384", "rsa2048")


def certified(desk: Shown | None, lap: Shown | None, **settings: object) -> tuple[Net, Side, Side]:
    net = Net(**settings)
    for name, one in ((DESK, desk), (LAP, lap)):
        if one is not None:
            net.certifications[name] = one
    sides = net.add(DESK, 1), net.add(LAP, 2)
    for side in sides:
        side.ike.wall_clock(UNIX)
    return net, *sides


def both(kind: str = "ed25519", other: str | None = None) -> tuple[Net, Side, Side]:
    ca = Authority()
    return certified(shown(ca, DESK, kind), shown(ca, LAP, other or kind))


def refusals(side: Side) -> str:
    return "; ".join(log.text for log in side.all(IkeLog) if log.level == "warning")


# --- The signature --------------------------------------------------------------------------------


def test_the_algorithm_identifiers_are_those_of_rfc_7427() -> None:
    """Appendix A.4.3 (with its trailer), A.3.2-4 and RFC 8420 §3.2, octet for octet."""
    printed = (
        "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d"
        "010108300d06096086480165030402010500a203020120a303020101"
    )
    assert signature.pss(HashId.SHA256, trailer=True).hex() == printed
    assert signature.describe(bytes.fromhex(printed)) == "RSA-PSS with SHA256"
    assert signature.describe(bytes.fromhex("300a06082a8648ce3d040303")) == "ECDSA with SHA384"
    assert signature.describe(bytes.fromhex("300506032b6570")) == "Ed25519"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_signs_verifies_and_nothing_else_does(kind: str) -> None:
    key = make_key(kind)
    everything = frozenset(HashId)
    data = signature.sign(key, everything, b"octets")
    signature.verify(key.public_key(), data, b"octets", "lap")
    with pytest.raises(SignatureError, match="is wrong"):
        signature.verify(key.public_key(), data, b"octetz", "lap")
    with pytest.raises(SignatureError, match="is wrong"):
        signature.verify(key.public_key(), data[:-1] + bytes((data[-1] ^ 1,)), b"octets", "lap")
    for cut in (b"", data[:1], data[:5], data[: 1 + data[0]]):
        with pytest.raises(SignatureError, match="cut short"):
            signature.verify(key.public_key(), cut, b"octets", "lap")
    other = make_key("p256" if kind == "ed25519" else "ed25519")
    with pytest.raises(SignatureError, match="its certificate holds a key for"):
        signature.verify(other.public_key(), data, b"octets", "lap")


def test_a_hash_is_used_only_if_the_peer_named_it() -> None:
    """RFC 7427 §4; RFC 8420 §2: Ed25519 goes with the identity hash alone."""
    only384 = signature.decode_hashes(bytes.fromhex("0001000300ff"))
    assert only384 == {HashId.SHA384}
    assert signature.sign(make_key("p256"), only384, b"x")[1:13] == signature.ECDSA[HashId.SHA384]
    with pytest.raises(SignatureError, match="Ed25519 and IDENTITY; the peer takes SHA384"):
        signature.sign(make_key(), only384, b"x")
    assert signature.decode_hashes(signature.encode_hashes()) == frozenset(HashId)


def test_old_rsa_padding_is_named_in_the_refusal() -> None:
    blob = bytes.fromhex("300d06092a864886f70d01010b0500")
    with pytest.raises(SignatureError, match=r"PKCS#1 v1\.5 with SHA-256"):
        signature.verify(
            make_key("rsa2048").public_key(), bytes((len(blob),)) + blob + b"x", b"", "lap"
        )


# --- The exchange ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(k, k) for k in KINDS] + [("ed25519", "p384")])
def test_two_hosts_prove_themselves_with_certificates(ours: str, theirs: str) -> None:
    net, desk, lap = both(ours, theirs)
    net.connect(desk, lap)
    net.play(2)
    assert list(dict.fromkeys(d.kind for d in net.sent)) == ["34q", "34r", "35q", "35r"]
    assert net.pair_is_up()
    assert {view.authentication for side in (desk, lap) for view in side.ike.views()} == {"cert"}


def test_init_names_hashes_and_the_ca_before_anything_is_proven() -> None:
    """RFC 7427 §4, RFC 7296 §1.2: CERTREQ stands in the answer."""
    net, desk, lap = both()
    net.connect(desk, lap)
    net.play(0.2)
    for datagram in net.sent[:2]:
        contents = decode_contents(decode_chain(datagram.data[16], datagram.data[28:]))
        notify = contents.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
        assert notify is not None and notify.data == bytes.fromhex("0002000300040005")
    assert contents.certreq == net.certifications[LAP].authorities()
    assert len(contents.certreq) == 20


def test_our_request_holds_id_cert_certreq_idr_auth_in_this_order() -> None:
    """RFC 7296 §1.2; strongSwan reads any order, others may not."""
    from keys.ike.payloads import Authentication, Contents, Identity

    contents = Contents(
        idi=Identity.fqdn(DESK),
        idr=Identity.fqdn(LAP),
        certs=[b"one", b"two"],
        certreq=bytes(20),
        auth=Authentication(14, b"x"),
    )
    payloads = contents.encode()
    assert [p.kind for p in payloads] == [35, 37, 37, 38, 36, 39]
    again = decode_contents(payloads)
    assert (again.certs, again.certreq) == ([b"one", b"two"], bytes(20))
    answer = Contents(idr=Identity.fqdn(LAP), certs=[b"one"], auth=Authentication(14, b"x"))
    assert [p.kind for p in answer.encode()] == [36, 37, 39]


def test_static_peers_keep_their_pre_shared_key_beside_certificates() -> None:
    ca = Authority()
    mine = replace(shown(ca, DESK), without=(LAP,))
    net, desk, lap = certified(mine, None)
    net.connect(lap, desk)
    net.play(2)
    assert net.pair_is_up()
    assert [view.authentication for view in desk.ike.views()] == ["psk"]


def test_a_pre_shared_key_does_not_do_where_a_certificate_is_wanted() -> None:
    """The policy is the owner's: no downgrade by the peer."""
    net, desk, lap = certified(None, shown(Authority(), LAP))
    net.connect(desk, lap)
    net.play(2)
    assert not net.pair_is_up()
    assert "used a pre-shared key (method 2); we want a certificate of the CA" in refusals(lap)
    assert not lap.all(AskPeer)


def test_an_initiator_with_a_certificate_says_when_the_peer_takes_no_signatures() -> None:
    net, desk, lap = certified(shown(Authority(), DESK), None)
    net.connect(desk, lap)
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert "does not take signatures of RFC 7427" in failed.reason


def test_a_stranger_learns_nothing_and_makes_no_question() -> None:
    ours, theirs = Authority(), Authority("somebody's CA")
    net, desk, lap = certified(shown(theirs, DESK), shown(ours, LAP))
    net.connect(desk, lap)
    net.play(2)
    assert "was not issued by the CA of alice.example but by CN=somebody's CA" in refusals(lap)
    assert not lap.all(AskPeer)
    (failed,) = desk.all(IkeFailed)
    assert "does not accept our certificate" in failed.reason


def test_the_responder_is_checked_as_well() -> None:
    ours, theirs = Authority(), Authority("somebody's CA")
    impostor = shown(theirs, LAP)
    impostor.trust = Trust((ours.certificate,))
    net, desk, lap = certified(shown(ours, DESK), impostor)
    net.connect(desk, lap)
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert "was not issued by" in failed.reason
    assert not net.pair_is_up()


def test_a_host_of_the_account_cannot_be_another_one() -> None:
    """The certificate's name must be the ID, not only of the same CA."""
    ca = Authority()
    mallory = shown(ca, "mallory.alice.example")
    net, desk, lap = certified(mallory, shown(ca, LAP))
    net.connect(desk, lap)
    net.play(2)
    assert f"{DESK} showed a certificate that is for mallory.alice.example" in refusals(lap)


def test_a_signature_of_another_key_than_the_certificate_s_is_refused() -> None:
    ca = Authority()
    stolen = shown(ca, DESK)
    stolen.credential = Credential(make_key(), stolen.credential.chain)
    net, desk, lap = certified(stolen, shown(ca, LAP))
    net.connect(desk, lap)
    net.play(2)
    assert "does not hold the key of its certificate" in refusals(lap)


def test_an_ike_sa_keeps_its_proof_over_a_rekey() -> None:
    ca = Authority()
    net, desk, lap = certified(shown(ca, DESK), shown(ca, LAP), ike_lifetime=100.0)
    net.connect(desk, lap)
    net.play(150)
    assert net.pair_is_up()
    assert {v.authentication for side in (desk, lap) for v in side.ike.views()} == {"cert"}


def test_revocation_closes_what_stands_and_refuses_what_comes() -> None:
    ca = Authority()
    net, desk, lap = certified(shown(ca, DESK), shown(ca, LAP))
    net.connect(desk, lap)
    net.play(2)
    mine = net.certifications[LAP]
    assert isinstance(mine, Shown)
    desks = net.certifications[DESK].credential.certificate.serial_number
    net.run(lap, lap.ike.recheck(net.now))
    assert net.pair_is_up(), "nothing has changed yet"
    mine.trust = replace(mine.trust, revoked=frozenset({desks}))
    net.run(lap, lap.ike.recheck(net.now))
    net.play(5)
    assert not net.pair_is_up()
    (down,) = lap.all(PeerDown)
    assert f"(serial {desks:x}) was revoked" in down.reason
    net.connect(desk, lap)
    net.play(5)
    assert len(lap.all(PeerUp)) == 1
    assert "was revoked" in refusals(lap)


def test_a_peer_whose_certificate_expires_is_let_go() -> None:
    net, desk, lap = both()
    net.connect(desk, lap)
    net.play(2)
    lap.ike.wall_clock(UNIX + 2 * 86400)
    net.run(lap, lap.ike.recheck(net.now))
    net.play(5)
    (down,) = lap.all(PeerDown)
    assert "expired" in down.reason


# --- The rules for a certificate ------------------------------------------------------------------


def judged(certificates: list[x509.Certificate], trust: Trust, unix: int = UNIX) -> str:
    """The refusal, or an empty string."""
    try:
        check([one.public_bytes(Encoding.DER) for one in certificates], LAP, trust, unix)
    except CertificateError as error:
        return str(error)
    return ""


def san(*names: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False


SIGNS = (usage("digital_signature"), True)


def test_names_validity_and_use_are_held() -> None:
    ca = Authority()
    trust = Trust((ca.certificate,), whose=ca.name)
    ok = ca.issue(LAP)
    assert judged([ok], trust) == ""
    cases = {
        "is for other.alice.example": ca.issue("other.alice.example"),
        r"is for *.alice.example": ca.issue("*.alice.example"),
        "is for no dNSName at all": ca.issue(LAP, extensions=[SIGNS]),
        "is valid from": ca.issue(LAP, first=NOW + DAY / 2),
        "expired on": ca.issue(LAP, last=NOW - DAY / 2),
        "is not for digital signatures": ca.issue(
            LAP, extensions=[san(LAP), (usage("key_encipherment"), True)]
        ),
        "is not for IKE": ca.issue(
            LAP,
            extensions=[
                san(LAP),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            ],
        ),
        "has a critical extension that we do not know (2.5.29.36)": ca.issue(
            LAP, extensions=[san(LAP), (x509.PolicyConstraints(0, None), True)]
        ),
        "holds a key that we do not accept": ca.issue(LAP, make_key("rsa1024")),
    }
    for sentence, certificate in cases.items():
        assert sentence in judged([certificate], trust)
    assert judged([ca.issue(LAP.upper())], trust) == "", "names compare without case"
    assert judged([ca.issue(LAP, extensions=[san("x.example", LAP)])], trust) == ""
    for purpose in (ExtendedKeyUsageOID.IPSEC_IKE, ExtendedKeyUsageOID.SERVER_AUTH):
        extensions = [san(LAP), (x509.ExtendedKeyUsage([purpose]), False)]
        assert judged([ca.issue(LAP, extensions=extensions)], trust) == ""


def test_chains_lead_to_the_trusted_ca_or_nowhere() -> None:
    ca = Authority()
    trust = Trust((ca.certificate,), whose=ca.name)
    lower = ca.below()
    leaf = lower.issue(LAP)
    assert judged([leaf, lower.certificate], trust) == ""
    assert "was not issued by" in judged([leaf], trust)
    assert "sent no certificate" in judged([], trust)
    assert "more than 4" in judged([leaf] * 5, trust)
    revoked = replace(trust, revoked=frozenset({lower.certificate.serial_number}))
    assert "a CA behind" in judged([leaf, lower.certificate], revoked)

    host_key = make_key()
    host = ca.issue("mallory.alice.example", host_key)
    mallory = Authority("mallory.alice.example", key=host_key)
    forged = mallory.issue(LAP)
    assert "is not one of a CA" in judged([forged, host], trust)

    deep = lower.below("b").below("c")
    assert judged([deep.issue(LAP)], Trust((deep.certificate,))) == ""


def test_path_length_and_ca_key_usage_are_held() -> None:
    root = Authority()
    root.certificate = root.sign(root.name, root.key, root.authority(path_length=0))
    lower = root.below()
    trust = Trust((root.certificate,), whose=root.name)
    assert judged([root.issue(LAP)], trust) == ""
    assert "does not allow so many CAs" in judged([lower.issue(LAP), lower.certificate], trust)
    weak = Authority("weak")
    basic = (x509.BasicConstraints(ca=True, path_length=None), True)
    weak.certificate = weak.sign("weak", weak.key, [basic, SIGNS])
    assert "is not for signing certificates" in judged(
        [weak.issue(LAP)], Trust((weak.certificate,))
    )
    old = Authority("old")
    old.certificate = old.sign("old", old.key, old.authority(), last=NOW - timedelta(hours=1))
    assert "expired" in judged([old.issue(LAP)], Trust((old.certificate,)))


def test_a_ca_s_name_alone_proves_nothing() -> None:
    ca, double = Authority(), Authority()
    assert common(ca.name) == double.certificate.subject
    assert "was not issued by" in judged([double.issue(LAP)], Trust((ca.certificate,)))
    either = Trust((ca.certificate, double.certificate))
    assert judged([double.issue(LAP)], either) == "", "CAs of the same name are told apart"


def test_hostile_certificates_are_refused_in_words() -> None:
    """Mutations of a good one, and noise; the seed is printed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ca = Authority()
    trust = Trust((ca.certificate,))
    good = ca.issue(LAP).public_bytes(Encoding.DER)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if bytes(data) == good:
            continue
        with pytest.raises(CertificateError):
            check(
                [bytes(data), rng.randbytes(rng.randrange(64))][: rng.randint(1, 2)],
                LAP,
                trust,
                UNIX,
            )


def test_other_certificate_encodings_are_passed_over() -> None:
    """RFC 7296 §3.6: only encoding 4 is read; an empty payload is none."""
    from keys.ike.payloads import Payload

    bodies = (b"\x0c" + b"hash and url", b"", b"\x04der")
    contents = decode_contents(Payload(PayloadType.CERT, body) for body in bodies)
    assert contents.certs == [b"der"]


def test_an_issuer_s_signature_is_verified_once_and_dates_every_time() -> None:
    """Strangers can only drive verdicts out: the memory for them is bounded."""
    ca = Authority()
    leaf, trust = ca.issue(LAP), Trust((ca.certificate,))
    certificates._issued.cache_clear()
    for _ in range(3):
        assert judged([leaf], trust) == ""
    said = certificates._issued.cache_info()
    assert (said.misses, said.hits, said.maxsize) == (1, 2, certificates.VERDICTS)
    assert "expired" in judged([leaf], trust, UNIX + 10 * 365 * 86400)
    assert "revoked" in judged([leaf], Trust((ca.certificate,), frozenset({leaf.serial_number})))
