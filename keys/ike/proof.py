"""Proving who we are and checking who the peer is, in IKE_AUTH: by pre-shared key or certificate.

Which of the two a peer gets is its owner's policy and never the peer's choice: where the owner has
a certification for the name, it is a signature (RFC 7427) under a certificate, both ways; else it
is the pre-shared key. A peer that does the other one is refused, with a sentence that says so.
"""

from __future__ import annotations

from keys.ike import auth, signature
from keys.ike.certificates import CertificateError, Certified, check
from keys.ike.context import Context
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import AUTH_SHARED_KEY, AUTH_SIGNATURE, Authentication, Contents, Identity
from keys.ike.sa import IkeSa
from keys.ike.signature import SignatureError

PSK, CERTIFICATE = "psk", "cert"  # as in the configuration and in `status`

_METHODS = {
    1: "an RSA signature of the old kind (method 1)",
    AUTH_SHARED_KEY: "a pre-shared key (method 2)",
    9: "an ECDSA P-256 signature of the old kind (method 9)",
    10: "an ECDSA P-384 signature of the old kind (method 10)",
    11: "an ECDSA P-521 signature of the old kind (method 11)",
    AUTH_SIGNATURE: "a certificate's signature (method 14)",
}


class ProofError(Exception):
    """We cannot prove ourselves to this peer; the text is a sentence."""


def stranger(ctx: Context, name: str) -> str | None:
    """Why nothing can be proven between ``name`` and us, or None."""
    if ctx.certified(name) is None and ctx.secret_for(name) is None:
        return f"we hold no pre-shared key for {name}"
    return None


def offered_hashes(ctx: Context, name: str | None) -> list[Notify]:
    """SIGNATURE_HASH_ALGORITHMS, where a signature may follow (RFC 7427 §4)."""
    signs = ctx.certification is not None if name is None else ctx.certified(name) is not None
    data = signature.encode_hashes()
    return [Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, data)] if signs else []


def learn_hashes(sa: IkeSa, contents: Contents) -> None:
    """Keeps which hashes the peer takes; without its notification, none."""
    notify = contents.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    sa.init.hashes = frozenset() if notify is None else signature.decode_hashes(notify.data)


# --- Ours -----------------------------------------------------------------------------------------


def prove(sa: IkeSa, contents: Contents) -> None:
    """Adds our AUTH to an IKE_AUTH message, with CERT and (in a request) CERTREQ where it is a
    certificate's. Raises :exc:`ProofError`."""
    assert sa.name is not None and sa.keys is not None
    octets = _octets(sa, sa.ctx.identity, of_initiator=sa.initiator)
    certified = sa.ctx.certified(sa.name)
    if certified is not None:
        contents.auth = Authentication(AUTH_SIGNATURE, _signature(sa, certified, octets))
        contents.certs = certified.credential.payloads()
        contents.certreq = certified.trust.authorities() if sa.initiator else None
        return
    secret = sa.ctx.secret_for(sa.name)
    if secret is None:
        raise ProofError(f"we hold no pre-shared key for {sa.name}")
    contents.auth = Authentication(
        AUTH_SHARED_KEY, auth.shared_key_mic(sa.keys.prf, secret, octets)
    )


def _signature(sa: IkeSa, certified: Certified, octets: bytes) -> bytes:
    if not sa.init.hashes:
        raise ProofError(
            f"{sa.name} does not take signatures of RFC 7427 (it sent no "
            "SIGNATURE_HASH_ALGORITHMS); we prove ourselves to it with a certificate"
        )
    try:
        return signature.sign(certified.credential.key, sa.init.hashes, octets)
    except SignatureError as error:
        raise ProofError(str(error)) from None


def doubt(sa: IkeSa) -> str:
    """Why a peer may not take our proof, for a sentence."""
    if sa.name is not None and sa.ctx.certified(sa.name) is not None:
        return "does not accept our certificate"
    return "holds another pre-shared key for it"


# --- Theirs ---------------------------------------------------------------------------------------


def verify(sa: IkeSa, identity: Identity, contents: Contents) -> str | None:
    """What is wrong with the peer's AUTH, or None: then it is who it says it is."""
    name, proof = identity.name, contents.auth
    assert sa.keys is not None and proof is not None
    if name is None:
        return f"we know peers by name only, not {identity.describe()}"
    octets = _octets(sa, identity, of_initiator=not sa.initiator)
    certified = sa.ctx.certified(name)
    if certified is not None:
        return _verify_signature(sa, certified, name, contents, octets)
    secret = sa.ctx.secret_for(name)
    if secret is None:
        return f"we hold no pre-shared key for {name}"
    if proof.method != AUTH_SHARED_KEY:
        return f"{name} used {_method(proof)}; we want a pre-shared key (method 2)"
    if not auth.verify_shared_key_mic(sa.keys.prf, secret, octets, proof.data):
        return f"the pre-shared key that {name} used is not the one that we hold for it"
    sa.authentication = PSK
    return None


def _verify_signature(
    sa: IkeSa, certified: Certified, name: str, contents: Contents, octets: bytes
) -> str | None:
    proof = contents.auth
    assert proof is not None
    if proof.method != AUTH_SIGNATURE:
        wanted = f"a certificate of {certified.trust.whose} (method 14)"
        return f"{name} used {_method(proof)}; we want {wanted}"
    try:
        key = check(contents.certs, name, certified.trust, sa.ctx.unix)
        signature.verify(key, proof.data, octets, name)
    except (CertificateError, SignatureError) as error:
        return str(error)
    sa.authentication = CERTIFICATE
    sa.peer_certificates = tuple(contents.certs)
    return None


def still_proven(sa: IkeSa) -> str | None:
    """Why the certificates that ``sa`` was made with would not do any more, or None."""
    certified = sa.ctx.certified(sa.name) if sa.name else None
    if certified is None or not sa.peer_certificates:
        return None
    assert sa.name is not None
    try:
        check(sa.peer_certificates, sa.name, certified.trust, sa.ctx.unix)
    except CertificateError as error:
        return str(error)
    return None


def _method(proof: Authentication) -> str:
    return _METHODS.get(proof.method, f"authentication method {proof.method}")


# --- Both -----------------------------------------------------------------------------------------


def _octets(sa: IkeSa, identity: Identity, *, of_initiator: bool) -> bytes:
    assert sa.keys is not None
    if of_initiator:
        message, nonce, sk_p = sa.init.request, sa.nonces.r, sa.keys.pi
    else:
        message, nonce, sk_p = sa.init.response, sa.nonces.i, sa.keys.pr
    signed = auth.signed_octets(sa.keys.prf, message, nonce, sk_p, identity)
    return signed + sa.init.intermediate.octets
