"""``join``: from a token to a host of the account (decision 0004, and 0013 for certificates).

The token is redeemed for the account secret. Where the account's hosts have certificates, this
host then makes its key, leaves a signing request in the zone, and waits for an issuer that is up.
If none answers in time, what was made stays, and the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from hmac import compare_digest
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.texts import Change
from keys import ca, invitation, signing, store
from keys.account import Account
from keys.ike.certificates import CertificateError, Trust, check
from keys.invitation import Invitation
from keys.signing import Granted, Refused, SigningError
from tunnel.cli.account import NameOption, label_of, seconds
from tunnel.cli.documents import host_toml
from tunnel.cli.files import (
    CA_FILE,
    CERTIFICATE_FILE,
    HOST_KEY_FILE,
    KEY_FILE,
    config_path,
    prove_writable,
    refuse_overwrite,
    write_new,
)
from tunnel.cli.mailbox import Mailbox, MailboxError, Transport
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say
from tunnel.config import DEFAULT_DNS_PORT, DEFAULT_TLS_PORT
from tunnel.signing import INBOX, answer_name

_POLL = 0.5  # seconds between two looks for the answer
_SAY_AFTER = 3.0  # seconds of silence; an issuer that is up answers in one or two


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    command(app, "join")(join)


def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="From `autotunnel invite`.")],
    name: NameOption = None,
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="For an issuer to sign, like 90s, 5m.")
    ] = "5m",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring this host into the account whose host printed TOKEN."""
    patience = seconds(wait, "--wait")
    invited = invitation.decode(token, int(time.time()))
    label = label_of(name)
    path = config_path(config)
    folder = path.parent
    files = {"config": path, "secret_file": folder / KEY_FILE}
    host_key = folder / HOST_KEY_FILE
    certified = invited.join_key is not None
    begun = certified and host_key.exists() and not (folder / CERTIFICATE_FILE).exists()
    if certified:
        files |= {"certificate_file": folder / CERTIFICATE_FILE, "ca_file": folder / CA_FILE}
    known = begun or _is_known(invited, folder / KEY_FILE)
    made = [] if known else [folder / KEY_FILE]
    made += [host_key] if certified and not begun else []
    fresh = [file for key, file in files.items() if key != "secret_file"]
    refuse_overwrite([*fresh, *made])  # before the token is used up
    if not begun:
        prove_writable(folder)
    if not known:
        _redeem(invited, folder / KEY_FILE)
    if certified:
        if not begun:
            store.save_private_key(host_key, ca.new_key(store.random_bytes))
        _certify(invited, f"{label}.{invited.domain}", folder, patience)
    server, transport = _rendezvous_for(invited)
    text = host_toml(
        label=label,
        domain=invited.domain,
        server=server,
        transport=transport,
        auth="cert" if certified else "psk",
    )
    write_new(path, text, 0o644)
    facts = {key: str(file) for key, file in files.items()}
    if as_json:
        emit("join", {"name": f"{label}.{invited.domain}", **facts})
        return
    for file in facts.values():
        put(file)
    say(f"{label}.{invited.domain} has joined. Next: autotunnel up")


def _is_known(invited: Invitation, key: Path) -> bool:
    """Whether the secret of this very account stands there already, as on its rendezvous: the
    invitation's key follows from it."""
    if not key.exists():
        return False
    try:
        account = store.load_account(invited.domain, key)
    except store.SecretFileError:
        return False  # which is not overwritten, whatever it is
    return compare_digest(account.invitation_key(invited.identity, invited.expires), invited.key)


def _redeem(invited: Invitation, key: Path) -> None:
    from discovery.io_redeem import redeem  # slow to load

    secret = asyncio.run(
        redeem(
            server=invited.server,
            dns_port=invited.dns_port,
            tls_port=invited.tls_port,
            domain=invited.domain,
            identity=invited.identity,
            expires=invited.expires,
            key=invited.key,
            pin=invited.pin,
        )
    )
    store.save_account_secret(key, secret)


# --- The certificate ------------------------------------------------------------------------------


def _certify(invited: Invitation, name: str, folder: Path, patience: int) -> None:
    """Gets this host's certificate from an issuer, and keeps it with the CA's."""
    key = store.load_private_key(folder / HOST_KEY_FILE)
    if not isinstance(key, Ed25519PrivateKey):
        raise Failure(f"{folder / HOST_KEY_FILE}: not a host key of ours; move it away")
    account = store.load_account(invited.domain, folder / KEY_FILE)
    try:
        answer = asyncio.run(_ask_issuer(invited, account, ca.request(key, name), patience))
    except MailboxError as problem:
        raise Failure(f"the zone cannot be used: {problem}; then join again: {_AGAIN}") from None
    if answer is None:
        raise Failure(
            f"no issuer of {invited.domain} has signed this host's certificate within "
            f"{patience} s; start one (autotunnel up on the host that made the invitation), "
            f"then: {_AGAIN}"
        )
    if isinstance(answer, Refused):
        raise Failure(f"the issuer refuses: {answer.reason}")
    authority = x509.load_der_x509_certificate(answer.authority)
    try:
        public = check([answer.certificate], name, Trust((authority,)), int(time.time()))
    except CertificateError as problem:
        raise Failure(f"the issuer's answer is not usable: {problem}; {_AGAIN}") from None
    if public != key.public_key():
        raise Failure(f"the issuer's answer is for another key; {_AGAIN}")
    store.save_certificates(folder / CA_FILE, [authority])
    certificate = x509.load_der_x509_certificate(answer.certificate)
    store.save_certificates(folder / CERTIFICATE_FILE, [certificate])


_AGAIN = "autotunnel join with the same token (what has been done is kept)"


async def _ask_issuer(
    invited: Invitation, account: Account, request: bytes, patience: int
) -> Granted | Refused | None:
    """Leaves the request in the zone and waits for its answer; ``None`` if none came in time."""
    assert invited.join_key is not None
    octets = signing.seal_join(
        invited.join_key, invited.identity, invited.expires, request, store.random_bytes
    )
    asked = signing.request_id(octets)
    port = invited.tls_port or invited.dns_port or DEFAULT_DNS_PORT
    transport: Transport = "tls" if invited.tls_port is not None else "tcp"
    loop = asyncio.get_running_loop()
    begun, told = loop.time(), False
    async with Mailbox(account, (invited.server, port), transport, invited.pin) as box:
        await box.change(Change(INBOX, octets, add=True))
        while loop.time() < begun + patience:
            for message in await box.read(answer_name(asked)):
                try:
                    answer = signing.read_answer(message, invited.join_key, asked)
                except SigningError:
                    continue  # anybody of the account can write there
                await box.change(Change(answer_name(asked)))
                return answer
            if not told and loop.time() > begun + _SAY_AFTER:
                told = True
                say(f"waiting for an issuer of {invited.domain} that is up, up to {patience} s …")
            await asyncio.sleep(_POLL)
        await box.change(Change(INBOX, octets))
    return None


# --- The configuration ----------------------------------------------------------------------------


def _rendezvous_for(invited: Invitation) -> tuple[str, str]:
    """``rendezvous.server`` and ``rendezvous.transport`` of the new configuration."""
    if invited.tls_port is not None:
        return _server_text(invited.server, invited.tls_port, DEFAULT_TLS_PORT), "tls"
    port = invited.dns_port or DEFAULT_DNS_PORT
    return _server_text(invited.server, port, DEFAULT_DNS_PORT), "tcp"


def _server_text(server: str, port: int, usual: int) -> str:
    if port == usual:
        return server
    return f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
