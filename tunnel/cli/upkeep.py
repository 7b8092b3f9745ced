"""``serve --check``, ``--export`` and ``--import``: the zone store without serving it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import dns.name

from discovery import io_state, zonefile
from discovery.io_state import StateError
from discovery.lease import LeaseLimits
from discovery.store import StoreError
from discovery.zonefile import ZoneFileError
from tunnel.cli.rendezvous import zone_limits
from tunnel.cli.talk import Failure, emit, put, say
from tunnel.config import ServeAccount, ServeConfig

_STDOUT = "-"


def check(settings: ServeConfig, as_json: bool) -> None:
    """Says what is wrong in the store; nothing changes. Raises :class:`Failure` if anything is."""
    try:
        found = io_state.check(settings.state_dir, LeaseLimits(), _unix())
    except (StateError, StoreError) as problem:
        raise Failure(str(problem)) from None
    wrong = {zone or "store": problems for zone, problems in found.items() if problems}
    known = {f"{account.domain}." for account in settings.accounts}
    strangers = sorted(zone for zone in found if zone and zone not in known)
    if as_json and not wrong:
        zones = sorted(zone.rstrip(".") for zone in found if zone)
        emit("serve-check", {"ok": True, "zones": zones, "unserved": strangers})
    for zone in strangers:
        say(f"{zone} stands in the store, and no [[serve.account]] names it")
    if wrong:
        lines = [f"{zone}: {problem}" for zone, problems in wrong.items() for problem in problems]
        fix = "stop the server, `--export` what is right, and put the zones in a new store"
        raise Failure(f"the store is damaged; {fix}:\n" + "\n".join(lines))
    if not as_json:
        say(f"the store in {settings.state_dir} is sound: {len(found) - 1} zones")


def export(settings: ServeConfig, target: str, domain: str | None, as_json: bool) -> None:
    """Writes an account's zone to a new file, or to stdout. Raises :class:`Failure`."""
    account = _account(settings, domain)
    try:
        text = io_state.export(settings.state_dir, account.domain)
    except (StateError, StoreError) as problem:
        raise Failure(str(problem)) from None
    if target == _STDOUT:
        if as_json:
            emit("serve-export", {"domain": account.domain, "zone": text})
        else:
            put(text.rstrip("\n"))
        return
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        fix = "name a new file in a folder that is writable"
        raise Failure(f"{target} cannot be written ({problem.strerror}); {fix}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if as_json:
        emit("serve-export", {"domain": account.domain, "file": target})
    else:
        say(f"{account.domain} is written to {target}")


def put_in(settings: ServeConfig, source: str, domain: str | None, as_json: bool) -> None:
    """Replaces an account's zone by a zone file (``-``: stdin); the server must not run.

    Raises :class:`Failure`.
    """
    account = _account(settings, domain)
    if account.backing is not None:
        cause = f"the zone of {account.domain} is on {account.backing}"
        raise Failure(f"{cause}; change it there")
    try:
        text = sys.stdin.read() if source == _STDOUT else Path(source).read_text()
    except OSError as problem:
        cause = f"{source} cannot be read ({problem.strerror})"
        raise Failure(f"{cause}; check its name and mode") from None
    except UnicodeDecodeError:
        raise Failure(f"{source} is not UTF-8 text; name a zone file") from None
    zone = dns.name.from_text(account.domain)
    try:
        sets = zonefile.read(zone, text, zone_limits(account), LeaseLimits(), _unix())
        serial = io_state.put(settings.state_dir, account.domain, sets)
    except ZoneFileError as problem:
        raise Failure(f"{source} is not taken: {problem}") from None
    except (StateError, StoreError) as problem:
        raise Failure(str(problem)) from None
    records = sum(len(content.items) for content in sets.values())
    if as_json:
        emit("serve-import", {"domain": account.domain, "records": records, "serial": serial})
    else:
        say(f"{account.domain} has the {records} records of {source} now, and serial {serial}")


def _account(settings: ServeConfig, domain: str | None) -> ServeAccount:
    by_domain = {account.domain: account for account in settings.accounts}
    if domain is None and len(by_domain) == 1:
        return settings.accounts[0]
    if domain is None or domain.rstrip(".").lower() not in by_domain:
        cause = "there are several accounts" if domain is None else f"no account is {domain}"
        raise Failure(f"{cause}; name one with --domain: {', '.join(by_domain)}")
    return by_domain[domain.rstrip(".").lower()]


def _unix() -> int:
    return int(time.time())
