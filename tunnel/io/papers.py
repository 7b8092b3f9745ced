"""A host's papers: certificates, an issuer's key and ledger, and the records of other hosts.

::

    host.key  host.crt  ca.crt       on every host of an account with certificates
    ca.key  issued.json  invited     on issuers, side by side
    revoked.crl                      in the state folder: the newest revocation list seen
    records.json                     there too: what the zone last said of the account's hosts
    proofs.json                      and where these have proven to be
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.types import HostRecords
from keys import ca, store
from keys.ca import Authority, AuthorityError, Revocations
from keys.ike.certificates import Certified, Credential, Trust
from keys.issuer import Issuer, Ledger
from keys.store import SecretFileError
from tunnel import remembered
from tunnel.config import AccountSection, HostConfig, PeerSection
from tunnel.credentials import Credentials
from tunnel.mobility.proofs import MAX_FILE

LEDGER: Final = "issued.json"
INVITED: Final = "invited"  # until when, in unix seconds, an invitation of this issuer is open
REVOCATIONS: Final = "revoked.crl"
RECORDS: Final = "records.json"
PROOFS: Final = "proofs.json"
_REMEMBERED: Final = 1024  # hosts
_MAX_LEDGER: Final = 16 << 20  # octets; tens of thousands of certificates
_MAX_INVITED: Final = 64  # octets of a number


class Papers:
    """All that the configuration names, read at once. Raises :exc:`keys.store.SecretFileError`.

    ``credentials`` is ``None`` on a host that proves itself with pre-shared keys only, ``issuer``
    on every host that does not hold the CA's key, and draws from ``random``.
    """

    def __init__(
        self, config: HostConfig, random: Callable[[int], bytes] = store.random_bytes
    ) -> None:
        self._config = config
        self.issuer: Issuer | None = None
        own = authority = None
        account = config.account
        if account is not None and config.certified:
            own = self._own(account)
            (authority, *_) = store.load_certificates(config.beside(account.ca_file))
            self.issuer = issuer_of(config, random)
        static = {
            peer.name: self._certified(peer, own) for peer in config.peers if peer.auth == "cert"
        }
        self.credentials: Credentials | None = None
        if own is not None or static:
            self.credentials = Credentials(
                None if account is None else account.domain,
                own,
                authority,
                revocations=self._revocations(authority),
                revoked=() if account is None else _serials(account.revoked),
                static=static,
                others=tuple(peer.name for peer in config.peers if peer.auth == "psk"),
            )
        self._invited: int | None = None
        self._ledger_text = self._read_ledger() or ""

    def _own(self, account: AccountSection) -> Credential:
        path = self._config.beside(account.certificate_file)
        if not path.exists():
            raise SecretFileError(
                f"{path}: this host has no certificate yet; bring `autotunnel join` to its end, or "
                'set auth = "psk" under [account] if all hosts of the account do'
            )
        return _credential(self._config.beside(account.key_file), path)

    def _certified(self, peer: PeerSection, own: Credential | None) -> Certified:
        config = self._config
        if peer.certificate_file is not None and peer.key_file is not None:
            own = _credential(config.beside(peer.key_file), config.beside(peer.certificate_file))
        if own is None:
            raise SecretFileError(
                f"{config.path}: the peer {peer.name} wants a certificate of ours, and there is "
                "none; add certificate_file and key_file to its table"
            )
        assert peer.ca_file is not None  # its section has seen to it
        anchors = store.load_certificates(config.beside(peer.ca_file))
        revoked = _serials(peer.revoked)
        return Certified(own, Trust(anchors, revoked, whose=f"a CA in {peer.ca_file}"))

    def _revocations(self, authority: x509.Certificate | None) -> Revocations | None:
        with suppress(OSError, AuthorityError):
            octets = store.read_at_most(self._config.state_dir / REVOCATIONS, ca.MAX_LIST)
            if authority is not None:
                return ca.read_revocations(octets, authority)
        return None

    # --- What changes while the host runs ---------------------------------------------------

    def keep(self, what: str, content: bytes) -> None:
        """Carries out a ``Keep`` command. Raises OSError or :exc:`keys.store.SecretFileError`."""
        account = self._config.account
        assert account is not None
        if what == "certificate":
            path = self._config.beside(account.certificate_file)
            store.write_atomically(path, content, 0o644)
        elif what == "revocations":
            store.write_atomically(self._config.state_dir / REVOCATIONS, content, 0o644)
        elif what in ("records", "proofs"):
            name = RECORDS if what == "records" else PROOFS
            self._config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            store.write_atomically(self._config.state_dir / name, content, 0o600)
        elif what == "ledger":
            self._ledger_text = keep_ledger(self._config, Ledger.from_json(content.decode()))

    def remembered(self) -> tuple[HostRecords, ...]:
        """What the zone last said of the account's hosts; a damaged file is told of and ignored."""
        account, path = self._config.account, self._config.state_dir / RECORDS
        if account is None:
            return ()
        try:
            with path.open("rb") as file:
                octets = file.read(remembered.MAX_FILE + 1)
            return remembered.from_json(octets, account.domain, _REMEMBERED)
        except FileNotFoundError:
            return ()
        except (OSError, remembered.RememberedError) as problem:
            structlog.get_logger("autotunnel").warning(
                "the hosts of before are forgotten until the zone tells them again: "
                f"{path} cannot be used ({problem})"
            )
            return ()

    def proofs(self) -> bytes:
        """Where the peers have proven to be, as it was kept; nothing if there is no such file."""
        with suppress(OSError), (self._config.state_dir / PROOFS).open("rb") as file:
            return file.read(MAX_FILE + 1)
        return b""

    def invited(self) -> int | None:
        """Until when an invitation is open, if that is news."""
        if self.issuer is None:
            return None
        found = None
        with suppress(OSError, ValueError):
            found = int(store.read_at_most(self._issuer_file(INVITED), _MAX_INVITED))
        if found == self._invited:
            return None
        self._invited = found
        return found

    def changed_ledger(self) -> Ledger | None:
        """The ledger, if another process has written it since."""
        if self.issuer is None:
            return None
        text = self._read_ledger()
        if text is None or text == self._ledger_text:
            return None
        self._ledger_text = text
        with suppress(ValueError):
            return Ledger.from_json(text)
        return None

    def _read_ledger(self) -> str | None:
        if self.issuer is None:
            return None
        with suppress(OSError, UnicodeDecodeError):
            return _ledger_text(self._issuer_file(LEDGER))
        return None

    def _issuer_file(self, name: str) -> Path:
        assert self._config.account is not None
        return self._config.beside(self._config.account.ca_key_file).parent / name


def _serials(texts: Iterable[str]) -> frozenset[int]:
    return frozenset(int(text, 16) for text in texts)


def _credential(key_file: Path, certificate_file: Path) -> Credential:
    key, chain = store.load_private_key(key_file), store.load_certificates(certificate_file)
    if chain[0].public_key() != key.public_key():
        raise SecretFileError(
            f"{certificate_file}: it is not the certificate of the key in {key_file}; "
            "restore the pair that belongs together, or join again"
        )
    return Credential(key, chain)


# --- The issuer's files, which the command line uses as well --------------------------------------


def issuer_of(
    config: HostConfig, random: Callable[[int], bytes] = store.random_bytes
) -> Issuer | None:
    """The issuer on this host, or ``None`` where the CA's key is not.

    Raises :exc:`keys.store.SecretFileError`.
    """
    account = config.account
    if account is None or not config.certified:
        return None
    path = config.beside(account.ca_key_file)
    if not path.exists():
        return None
    key = store.load_private_key(path)
    (certificate, *_) = store.load_certificates(config.beside(account.ca_file))
    if not isinstance(key, Ed25519PrivateKey) or certificate.public_key() != key.public_key():
        raise SecretFileError(
            f"{path}: it is not the key of the CA in {account.ca_file}; restore the right one"
        )
    authority = Authority(account.domain, key, certificate)
    return Issuer(authority, _ledger(path.parent / LEDGER), random)


def _ledger_text(path: Path) -> str:
    return store.read_at_most(path, _MAX_LEDGER).decode()


def _ledger(path: Path) -> Ledger:
    try:
        return Ledger.from_json(_ledger_text(path))
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError) as error:
        raise SecretFileError(
            f"{path}: the list of issued certificates cannot be read ({error}); "
            "restore it from a backup, or move it away: then nothing issued before can be revoked"
        ) from None


def keep_ledger(config: HostConfig, ledger: Ledger) -> str:
    """Writes the ledger, together with what another process wrote meanwhile; returns the text."""
    assert config.account is not None
    path = config.beside(config.account.ca_key_file).parent / LEDGER
    ledger.merge(_ledger(path))
    text = ledger.to_json()
    store.write_atomically(path, text.encode(), 0o600)
    return text


def note_invitation(config: HostConfig, until: int) -> None:
    """Leaves word for the running host that it should look for a signing request often."""
    assert config.account is not None
    path = config.beside(config.account.ca_key_file).parent / INVITED
    with suppress(OSError, ValueError):
        until = max(until, int(store.read_at_most(path, _MAX_INVITED)))
    store.write_atomically(path, f"{until}\n".encode(), 0o600)
