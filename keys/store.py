"""What this machine keeps of who it is: secret files, the host id of this boot (DESIGN §5).

The only file of ``keys`` that touches the operating system. Secrets live in files of mode 0600;
a file that others may read is refused, with the command that mends it. Files are replaced
atomically, so that a power cut leaves the old content or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from keys import hostid
from keys.account import Account, AccountSecretError, decode_secret, encode_secret
from keys.ike.signature import SigningKey

MAX_SECRET_FILE: Final = 8192  # octets
MAX_CERTIFICATES: Final = 1_048_576  # octets of a file of certificates; hundreds of them
HOST_ID_FILE: Final = "host-id.json"
_MAX_HOST_ID_FILE: Final = 4096  # octets

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ROUTES4 = Path("/proc/net/route")
_ROUTES6 = Path("/proc/net/ipv6_route")
_SIOCGIFHWADDR: Final = 0x8927  # linux/sockios.h
_ARPHRD_ETHER: Final = 1  # linux/if_arp.h
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretFileError(Exception):
    """A secret file cannot be used; the message names the file, the cause and the fix."""


class HostIdError(Exception):
    """The host id cannot be kept; the message names the cause and the fix."""


def random_bytes(size: int) -> bytes:
    """Return ``size`` octets from the system's CSPRNG."""
    return secrets.token_bytes(size)


def read_at_most(path: Path, limit: int) -> bytes:
    """Return the octets of a file. Raises OSError: EFBIG if there are more than ``limit``."""
    with path.open("rb") as file:
        octets = file.read(limit + 1)
    if len(octets) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return octets


# --- Secret files ---------------------------------------------------------------------------


def read_secret(path: Path) -> bytes:
    """Return the octets of a secret file, without one trailing newline.

    Raises :exc:`SecretFileError`: absent, not a regular file, readable by others, owned by
    somebody else, empty, or longer than 8192 octets.
    """
    content = _read_private(path)
    secret = content[:-1] if content.endswith(b"\n") else content
    if not secret:
        raise SecretFileError(f"{path}: the file is empty; put the secret into it")
    return secret


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a secret file of mode 0600, atomically. Raises :exc:`SecretFileError`.

    Unless ``replace`` is set, an existing file is left alone and that is an error.
    """
    try:
        write_atomically(path, content, replace=replace)
    except FileExistsError:
        raise SecretFileError(f"{path}: the file exists already; move it away first") from None
    except OSError as error:
        raise SecretFileError(
            f"{path}: cannot be written ({error.strerror}); check the directory and its owner"
        ) from error


def load_account(domain: str, path: Path) -> Account:
    """Return the account whose secret stands, in base64, in ``path``.

    Raises :exc:`SecretFileError`.
    """
    try:
        return Account(domain, decode_secret(_read_private(path)))
    except AccountSecretError as error:
        raise SecretFileError(
            f"{path}: not an account secret: {error}; "
            "copy the file from another host of the account, or join with an invitation"
        ) from error


def save_account_secret(path: Path, secret: bytes, *, replace: bool = False) -> None:
    """Write the account secret in base64, mode 0600. Raises :exc:`SecretFileError`."""
    write_secret(path, encode_secret(secret).encode("ascii") + b"\n", replace=replace)


def _read_private(path: Path) -> bytes:
    try:
        # Non-blocking, so that a FIFO in the file's place cannot hold us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SecretFileError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise SecretFileError(
            f"{path}: cannot be read ({error.strerror}); "
            "make the user that runs autotunnel its owner"
        ) from error
    try:
        _refuse_careless(path, os.fstat(descriptor))
        content = os.read(descriptor, MAX_SECRET_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_SECRET_FILE:
        raise SecretFileError(
            f"{path}: the file is longer than {MAX_SECRET_FILE} octets; is it the right file?"
        )
    return content


def _refuse_careless(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretFileError(f"{path}: it is not a regular file; check the path")
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretFileError(
            f"{path}: others may read or change the secret (mode {mode:04o}); run: chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise SecretFileError(
            f"{path}: it belongs to another user (uid {status.st_uid}); "
            f"run: chown {os.geteuid()} {path}"
        )


def write_atomically(
    path: Path, content: bytes, mode: int = 0o600, *, replace: bool = True
) -> None:
    """Make ``path`` a file with this content and mode. Raises OSError, which names it
    (FileExistsError if it is there and not to be replaced).

    The content is on stable storage before the name changes, the name before we return.
    """
    try:
        _write_beside(path, content, mode, replace=replace)
    except OSError as problem:
        problem.filename, problem.filename2 = str(path), None  # not that of our draft, or none
        raise


def _write_beside(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            Path(temporary).replace(path)
        else:
            path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# --- Keys and certificates ------------------------------------------------------------------


def save_private_key(path: Path, key: SigningKey) -> None:
    """Write a new private key in PEM (PKCS #8), mode 0600. Raises :exc:`SecretFileError`."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(path, pem)


def load_private_key(path: Path) -> SigningKey:
    """Return the private key in ``path`` (PEM, no password). Raises :exc:`SecretFileError`."""
    try:
        key = serialization.load_pem_private_key(_read_private(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SecretFileError(
            f"{path}: not a private key in PEM without a password; check the path"
        ) from None
    kinds = (Ed25519PrivateKey, EllipticCurvePrivateKey, RSAPrivateKey)
    if not isinstance(key, kinds):
        raise SecretFileError(f"{path}: a key of a kind that IKE does not sign with; use Ed25519")
    return key


def save_certificates(
    path: Path, certificates: Iterable[x509.Certificate], *, replace: bool = False
) -> None:
    """Write certificates in PEM, mode 0644, atomically. Raises :exc:`SecretFileError`."""
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
    try:
        write_atomically(path, pem, 0o644, replace=replace)
    except FileExistsError:
        raise SecretFileError(f"{path}: the file exists already; move it away first") from None
    except OSError as error:
        raise SecretFileError(
            f"{path}: cannot be written ({error.strerror}); check the directory and its owner"
        ) from error


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Return the certificates in ``path`` (PEM), at least one. Raises :exc:`SecretFileError`."""
    try:
        return tuple(x509.load_pem_x509_certificates(read_at_most(path, MAX_CERTIFICATES)))
    except OSError as error:
        raise SecretFileError(
            f"{path}: the certificate cannot be read ({error.strerror}); "
            "check the path, or join with an invitation"
        ) from None
    except ValueError:
        raise SecretFileError(f"{path}: no certificate in PEM is in it; check the path") from None


# --- The host id of this boot ---------------------------------------------------------------


def boot_id() -> str:
    """Return the kernel's name for this boot (Linux). Raises :exc:`HostIdError` where unknown."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError as error:
        raise HostIdError(
            "this system does not say which boot this is; fix the host id in the configuration: "
            '[host] id = "fd…"'
        ) from error


def load_or_make_host_id(
    state_dir: Path, mac: bytes | None, random: Callable[[int], bytes] = random_bytes
) -> IPv6Address:
    """Return the host id of this boot, made and kept in ``state_dir`` if there is none (B52, B54).

    ``mac`` is the primary interface's (6 octets), or ``None`` for a random EUI-64. A host id that
    stands already is kept whatever ``mac`` says: it outlives changes of the network. Two processes
    that start together agree on one. Raises :exc:`HostIdError`.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(state_dir):
            path = state_dir / HOST_ID_FILE
            boot = boot_id()
            kept = _kept_host_id(path, boot)
            if kept is not None:
                return kept
            made = hostid.generate(mac, random)
            content = json.dumps({"boot_id": boot, "host_id": str(made)}) + "\n"
            write_atomically(path, content.encode("ascii"))
            return made
    except OSError as error:
        raise HostIdError(
            f"{state_dir}: the host id cannot be kept there ({error.strerror}); "
            "make the user that runs autotunnel its owner, or set [host] state_dir"
        ) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # releases the lock


def _kept_host_id(path: Path, boot: str) -> IPv6Address | None:
    """Return the host id of this boot; ``None`` for another boot's, a damaged or absent file."""
    try:
        kept = json.loads(read_at_most(path, _MAX_HOST_ID_FILE))
        if kept["boot_id"] != boot:
            return None
        address = IPv6Address(kept["host_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AddressValueError):
        return None
    return address if address.packed[0] == hostid.ULA_FIRST_OCTET else None


def primary_mac() -> bytes | None:
    """Return the MAC address of the primary interface, or ``None`` if there is none (Linux).

    The primary interface is that of the default route, IPv4 before IPv6 (B16). Interfaces that
    are not Ethernet-like (point-to-point links, tunnels) have no MAC.
    """
    for interface in (*_default_interfaces4(), *_default_interfaces6()):
        mac = _mac_of(interface)
        if mac is not None:
            return mac
    return None


def _default_interfaces4() -> list[str]:
    """Interfaces of IPv4 default routes, best metric first."""
    return _by_metric(
        (int(fields[6]), fields[0])
        for fields in _table(_ROUTES4)[1:]
        if len(fields) > 7 and fields[1] == fields[7] == "00000000"
    )


def _default_interfaces6() -> list[str]:
    """Interfaces of IPv6 default routes, best metric first; loopback's reject routes left out."""
    return _by_metric(
        (int(fields[5], 16), fields[9])
        for fields in _table(_ROUTES6)
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo"
    )


def _by_metric(routes: Iterable[tuple[int, str]]) -> list[str]:
    return [interface for _, interface in sorted(routes)]


def _table(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("ascii").splitlines()]
    except OSError:
        return []


def _mac_of(interface: str) -> bytes | None:
    request = struct.pack("16s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)
        except OSError:
            return None
    (kind,) = struct.unpack_from("H", answer, 16)
    mac = answer[18:24]
    usable = kind == _ARPHRD_ETHER and any(mac) and not mac[0] & 1
    return mac if usable else None
