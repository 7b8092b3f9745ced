"""The CA, signing requests and the issuer's judgement: who may call itself what."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keys import ca, signing
from keys.ca import Authority, AuthorityError
from keys.ike.certificates import Trust, check
from keys.issuer import Issuer, Ledger
from keys.signing import Granted, Refused, SigningError

DOMAIN = "alice.members.example"
UNIX = 1_800_000_000
SOON = UNIX + 3600
ID = b"invited!"
RNG = random.Random(7)
bytes_of = RNG.randbytes


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(Authority.new(DOMAIN, UNIX, bytes_of), Ledger(), bytes_of)


def joins(
    issuer: Issuer, label: str, *, key: object = None, identity: bytes = ID, at: int = UNIX
) -> Granted | Refused:
    """What an invited host gets that asks for this label."""
    own = key or ca.new_key(bytes_of)
    join_key = issuer.authority.join_key(identity, SOON)
    wanted = ca.request(own, f"{label}.{DOMAIN}")
    octets = signing.seal_join(join_key, identity, SOON, wanted, bytes_of)
    return signing.read_answer(issuer.answer(octets, at), join_key, signing.request_id(octets))


def renews(issuer: Issuer, certificate: bytes, request: bytes, at: int = UNIX) -> Granted | Refused:
    octets = signing.renewal(certificate, request)
    return signing.read_answer(issuer.answer(octets, at), None, signing.request_id(octets))


def test_an_invited_host_gets_a_certificate_that_ike_accepts(issuer: Issuer) -> None:
    granted = joins(issuer, "laptop")
    assert isinstance(granted, Granted)
    anchor = x509.load_der_x509_certificate(granted.authority)
    check([granted.certificate], f"laptop.{DOMAIN}", Trust((anchor,)), UNIX)
    made = x509.load_der_x509_certificate(granted.certificate)
    assert ca.expires(made) == UNIX + 30 * 86400
    assert abs(ca.renew_at(made) - (UNIX + 20 * 86400)) < 3600


def test_an_invitation_is_for_one_key(issuer: Issuer) -> None:
    key = ca.new_key(bytes_of)
    assert isinstance(joins(issuer, "laptop", key=key), Granted)
    assert isinstance(joins(issuer, "laptop", key=key), Granted), "the answer may have been lost"
    again = joins(issuer, "phone")
    assert isinstance(again, Refused) and "was used already" in again.reason


def test_an_invited_host_cannot_take_another_s_name(issuer: Issuer) -> None:
    assert isinstance(joins(issuer, "desk", identity=b"1"), Granted)
    taken = joins(issuer, "desk", identity=b"2")
    assert isinstance(taken, Refused) and "is another host already" in taken.reason
    issuer.revoke(f"desk.{DOMAIN}", UNIX)
    assert isinstance(joins(issuer, "desk", identity=b"3"), Granted), "a lost machine's name"


def test_names_outside_the_account_are_not_issued(issuer: Issuer) -> None:
    for number, label in enumerate(("a.b", "*", "")):
        refused = joins(issuer, label, identity=bytes([number]))
        assert isinstance(refused, Refused), label


def test_an_expired_invitation_is_refused_in_words(issuer: Issuer) -> None:
    late = joins(issuer, "laptop", at=SOON + 1)
    assert isinstance(late, Refused) and "has expired" in late.reason


def test_the_account_secret_does_not_make_an_issuer(issuer: Issuer) -> None:
    """A host of the account that is no issuer can write into the zone, and no more."""
    other = Authority.new(DOMAIN, UNIX, bytes_of)
    own = ca.request(ca.new_key(bytes_of), f"laptop.{DOMAIN}")
    octets = signing.seal_join(other.join_key(ID, SOON), ID, SOON, own, bytes_of)
    with pytest.raises(SigningError, match="not sealed with the key"):
        issuer.answer(octets, UNIX)
    mine = issuer.authority.join_key(ID, SOON)
    honest = signing.seal_join(mine, ID, SOON, own, bytes_of)
    theirs = Issuer(other, Ledger(), bytes_of)
    asked = signing.request_id(honest)
    forged = signing.write_answer(Refused("no"), other.join_key(ID, SOON), asked, bytes_of)
    with pytest.raises(SigningError):
        theirs.answer(honest, UNIX)
    with pytest.raises(SigningError):
        signing.read_answer(forged, mine, asked)


def test_an_answer_belongs_to_one_request(issuer: Issuer) -> None:
    key = issuer.authority.join_key(ID, SOON)
    octets = signing.write_answer(Refused("no"), key, "one", bytes_of)
    assert signing.read_answer(octets, key, "one") == Refused("no")
    with pytest.raises(SigningError):
        signing.read_answer(octets, key, "another")


def test_a_host_renews_with_its_present_certificate(issuer: Issuer) -> None:
    key = ca.new_key(bytes_of)
    granted = joins(issuer, "laptop", key=key)
    assert isinstance(granted, Granted)
    later = UNIX + 20 * 86400
    request = ca.request(key, f"laptop.{DOMAIN}")
    renewed = renews(issuer, granted.certificate, request, later)
    assert isinstance(renewed, Granted)
    made = x509.load_der_x509_certificate(renewed.certificate)
    assert ca.expires(made) == later + 30 * 86400


def test_renewal_is_refused_to_all_others(issuer: Issuer) -> None:
    key = ca.new_key(bytes_of)
    granted = joins(issuer, "laptop", key=key)
    assert isinstance(granted, Granted)
    right = ca.request(key, f"laptop.{DOMAIN}")

    def reason(certificate: bytes, request: bytes, at: int = UNIX) -> str:
        refused = renews(issuer, certificate, request, at)
        assert isinstance(refused, Refused)
        return refused.reason

    assert "another name or key" in reason(granted.certificate, ca.request(key, f"desk.{DOMAIN}"))
    stranger = ca.request(ca.new_key(bytes_of), f"laptop.{DOMAIN}")
    assert "another name or key" in reason(granted.certificate, stranger)
    other = Issuer(Authority.new(DOMAIN, UNIX, bytes_of), Ledger(), bytes_of)
    foreign = joins(other, "laptop", key=key)
    assert isinstance(foreign, Granted)
    assert "not issued by this CA" in reason(foreign.certificate, right)
    assert "cannot be read" in reason(b"x", right)
    assert "cannot be read" in reason(granted.certificate, right[:-1] + b"x")
    assert "has expired" in reason(granted.certificate, right, UNIX + 31 * 86400)
    issuer.revoke(f"laptop.{DOMAIN}", UNIX)
    assert "was revoked" in reason(granted.certificate, right)


def test_revocation_lists_only_grow_newer_and_are_signed(issuer: Issuer) -> None:
    assert issuer.revocations(UNIX) is None
    assert issuer.revoke(f"nobody.{DOMAIN}", UNIX) == []
    granted = joins(issuer, "laptop")
    assert isinstance(granted, Granted)
    (serial,) = issuer.revoke(f"laptop.{DOMAIN}", UNIX)
    octets = issuer.revocations(UNIX)
    assert octets is not None
    found = ca.read_revocations(octets, issuer.authority.certificate)
    assert (found.number, found.serials) == (1, {int(serial, 16)})
    assert issuer.revoke(serial, UNIX) == [], "it is revoked already"
    other = Authority.new(DOMAIN, UNIX, bytes_of)
    for wrong in (octets[:-1] + bytes([octets[-1] ^ 1]), b"", other.revocations({}, 9, UNIX)):
        with pytest.raises(AuthorityError, match="not signed by"):
            ca.read_revocations(wrong, issuer.authority.certificate)


def test_the_ledger_outlives_its_process_and_forgets_what_expired(issuer: Issuer) -> None:
    joins(issuer, "laptop")
    issuer.revoke(f"laptop.{DOMAIN}", UNIX)
    kept = Ledger.from_json(issuer.ledger.to_json())
    assert kept == issuer.ledger
    kept.forget(UNIX + 32 * 86400)
    assert (kept.issued, kept.revoked, kept.number) == ([], {}, 1)
    for wrong in ("", "[]", "{}", '{"issued": [{}], "revoked": {}, "number": 0}', "[" * 100_000):
        with pytest.raises(ValueError):
            Ledger.from_json(wrong)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("number",), -1),
        (("number",), True),
        (("number",), float("inf")),
        (("number",), "1"),
        (("revoked",), {"1F": UNIX}),
        (("revoked",), {"0": UNIX}),
        (("revoked",), {"-1": UNIX}),
        (("revoked",), {"words": UNIX}),
        (("revoked",), {f"{2**159:x}": UNIX}),
        (("revoked",), {"1": 253402300800}),
        (("issued", 0, "serial"), "no"),
        (("issued", 0, "expires"), None),
        (("issued", 0, "name"), 5),
    ],
)
def test_a_damaged_ledger_is_refused_before_it_is_used(
    issuer: Issuer, place: tuple[str | int, ...], value: object
) -> None:
    joins(issuer, "laptop")
    table = json.loads(issuer.ledger.to_json())
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValueError):
        Ledger.from_json(json.dumps(table))
    for number in (0, 2**159 - 1):
        fine = {"issued": [], "revoked": {f"{2**159 - 1:x}": 253402300799}, "number": number}
        assert Ledger.from_json(json.dumps(fine)).number == number


def test_a_stranger_s_oddities_raise_no_warning(issuer: Issuer) -> None:
    """A negative serial number, an attribute of a wrong length: refused in words, not warned of."""
    granted = joins(issuer, "laptop")
    assert isinstance(granted, Granted)
    certificate = x509.load_der_x509_certificate(granted.certificate)
    own = certificate.serial_number.to_bytes(16)
    negative = granted.certificate.replace(own, b"\x80" + own[1:], 1)
    request = ca.request(ca.new_key(bytes_of), f"laptop.{DOMAIN}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = renews(issuer, negative, request)
        assert isinstance(told, Refused) and "not issued by this CA" in told.reason
        country = ca.request(ca.new_key(bytes_of), f"laptop.{DOMAIN}")
        for at in range(len(country)):
            with contextlib.suppress(AuthorityError):
                ca.read_request(country[:at] + bytes((country[at] ^ 5,)) + country[at + 1 :])


def test_a_full_list_is_refused_not_cut(issuer: Issuer) -> None:
    with pytest.raises(AuthorityError, match="is full"):
        issuer.authority.revocations(dict.fromkeys(range(1, 100), UNIX), 1, UNIX)
    most = issuer.authority.revocations({2**127 + n: UNIX for n in range(ca.MAX_LIST)}, 2**31, UNIX)
    assert len(most) <= signing.MAX_MESSAGE


def test_hostile_messages_are_refused_in_words(issuer: Issuer) -> None:
    """Mutations of good ones, and noise; the seed is printed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    key = ca.new_key(bytes_of)
    granted = joins(issuer, "laptop", key=key)
    assert isinstance(granted, Granted)
    request = ca.request(key, f"laptop.{DOMAIN}")
    join_key = issuer.authority.join_key(b"2", SOON)
    good = [
        signing.renewal(granted.certificate, request),
        signing.seal_join(join_key, b"2", SOON, request, bytes_of),
        b"\x01J",
        b"",
    ]
    for _ in range(2000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randint(0, 3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[: rng.randint(0, len(data))]) if rng.random() < 0.3 else bytes(data)
        try:
            answer = issuer.answer(cut, UNIX)
        except SigningError:
            continue
        assert len(answer) <= signing.MAX_MESSAGE
        for secret in (None, join_key):
            with contextlib.suppress(SigningError):
                signing.read_answer(rng.randbytes(rng.randrange(40)), secret, "x")


def test_the_ca_is_of_one_domain(issuer: Issuer) -> None:
    wanted = ca.read_request(ca.request(ca.new_key(bytes_of), "desk.bob.example"))
    with pytest.raises(AuthorityError, match="is not a host of"):
        issuer.authority.issue(wanted, UNIX, bytes_of)
    certificate = issuer.authority.certificate
    assert certificate.public_bytes(Encoding.DER)
    twin = replace(issuer.authority, domain="bob.example")
    assert twin.join_key(ID, SOON) != issuer.authority.join_key(ID, SOON)
