"""The single checks of ``doctor``: each looks at one thing and says cause and fix."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunnel.config import HostConfig
from tunnel.spelling import Endpoint


class State(StrEnum):
    """How a check ended. Only ``failed`` makes ``doctor`` fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``fix`` is empty when there is nothing to do."""

    check: str
    state: State
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``doctor --json``."""
        return asdict(self)


def python() -> Finding:
    """Which Python this is; an older one than 3.11 would not have come so far."""
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    return Finding("python", State.OK, found)


def engine(name: str, threads: int = 1) -> Finding:
    """The native engine is there, fresh, and with which AEAD; the reference one is a warning.

    ``threads`` is ``engine.threads`` of the configuration.
    """
    import fastpath

    known = fastpath.engines()
    if name == "reference":
        alone = f", and its one thread serves all {threads} queues" if threads > 1 else ""
        found = f"reference by configuration ({known['reference'].aead}); it is slow{alone}"
        return Finding("engine", State.WARNING, found, 'set engine.name to "auto"')
    native = known["native"]
    if native.reason is None:
        pairs = f", {threads} pairs of threads" if threads > 1 else ""
        return Finding("engine", State.OK, f"native, AEAD by {native.aead}{pairs}")
    cause, _, fix = native.reason.partition("; ")
    if native.available:
        return Finding("engine", State.WARNING, f"native, AEAD by {native.aead}; {cause}", fix)
    worse = State.FAILED if name == "native" else State.WARNING
    return Finding("engine", worse, f"the native engine cannot run: {cause}", fix)


def offloads(host: Mapping[str, Any] | None) -> Finding:
    """Which help of the kernel is in use, and what it costs that another is not.

    ``host`` is that part of the running host's status, ``None`` if none runs: then only what
    this kernel's UDP has can be said.
    """
    from tunnel.io import offloads as known

    if host is None:
        engine = "native"
        about = known.report(known.known_to_udp(), engine)
        later = "; those of the TUN device are known when a host runs"
    else:
        engine, about, later = str(host.get("engine")), host.get("offloads") or {}, ""
    on = ", ".join(name for name, one in about.items() if one["on"]) or "none"
    missing = {n: one for n, one in about.items() if not one["on"] and one["state"] != "absent"}
    if not missing:
        return Finding("offloads", State.OK, f"{on}{later}")
    costs = [f"without {n} {known.cost_of(n)} ({one['reason']})" for n, one in missing.items()]
    fixes = dict.fromkeys(known.fix_of(one["state"], engine) for one in missing.values())
    found = "; ".join([f"on: {on}", *costs])
    return Finding("offloads", State.WARNING, f"{found}{later}", "; ".join(fixes))


def secrets(config: HostConfig) -> Finding:
    """The account secret and the peers' keys can be read, and by nobody else."""
    from keys import store
    from tunnel.io.papers import Papers

    try:
        account = config.account_secret_path()
        if config.account is not None and account is not None:
            store.load_account(config.account.domain, account)
        for peer in config.peers:
            if peer.auth == "psk":
                store.read_secret(config.psk_path(peer))
        Papers(config)
    except store.SecretFileError as problem:
        found, _, fix = str(problem).partition("; ")
        return Finding("secret", State.FAILED, found, fix)
    count = len(config.peers) + (config.account is not None)
    return Finding("secret", State.OK, f"{count} secret file{'s' if count != 1 else ''}, mode 0600")


def tun(path: Path = Path("/dev/net/tun")) -> Finding:
    """/dev/net/tun is there and may be opened."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return Finding("tun", State.FAILED, f"there is no {path}", "run `sudo modprobe tun`")
    if not stat.S_ISCHR(mode):
        return Finding(
            "tun", State.FAILED, f"{path} is no device", f"remove {path}, `modprobe tun`"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        fix = f"run `sudo chmod 0666 {path}`: opening it gives no right to make devices"
        return Finding("tun", State.FAILED, f"{path} may not be opened by this user", fix)
    except OSError as problem:
        found = f"{path} cannot be opened ({problem.strerror})"
        return Finding("tun", State.FAILED, found, "run `sudo modprobe tun`")
    return Finding("tun", State.OK, str(path))


def capability(config: HostConfig, running: bool) -> Finding:
    """CAP_NET_ADMIN, or a persistent device instead of it."""
    from tunnel.io import netlink, privilege

    device = config.host.device
    if privilege.can_configure():
        return Finding("capability", State.OK, "CAP_NET_ADMIN; `up` drops it after set-up")
    link = netlink.link(device)
    if running:
        return Finding("capability", State.OK, "none here, and the host runs")
    if link is not None and link.kind == "tun":
        return Finding("capability", State.OK, f"none, and the device {device} is there")
    fix = (
        "run as root, by `autotunnel service install`, or make a device that the user owns: "
        f"`sudo autotunnel device create --user {_user()}`"
    )
    return Finding("capability", State.FAILED, f"no CAP_NET_ADMIN and no device {device}", fix)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name; which error depends on the version
        return str(os.getuid())


def port(number: int, running: bool, key: str = "host.listen") -> Finding:
    """The UDP port can be bound."""
    if running:
        return Finding("port", State.OK, f"UDP port {number} is held by the running host")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", number))
    except PermissionError:
        fix = f"choose a {key} of 1024 or more"
        return Finding("port", State.FAILED, f"UDP port {number} needs privileges", fix)
    except OSError as problem:
        found = f"UDP port {number} is occupied ({problem.strerror})"
        fix = f"find its owner with `ss -ulnp sport = :{number}`, or choose another {key}"
        return Finding("port", State.FAILED, found, fix)
    return Finding("port", State.OK, f"UDP port {number} is free")


def resolver(config: HostConfig, host: Mapping[str, Any] | None = None) -> Finding:
    """The system asks our stub resolver for the account's names. ``host`` is the ``resolver`` part
    of the running host's status.

    Looked up in settings, never by asking for a name: a question that is not routed to us would
    tell a stranger's server the names of this account.
    """
    from tunnel.io import resolved

    if config.account is None:
        return Finding("resolver", State.OK, "not needed: there is no account, only static peers")
    if not config.resolver.enabled:
        return Finding("resolver", State.WARNING, "switched off", "set resolver.enabled to true")
    domain, stub = config.account.domain, config.resolver.address
    if stub[1] == 53 and stub[0] in nameservers(Path("/etc/resolv.conf")):
        return Finding("resolver", State.OK, "/etc/resolv.conf names the stub resolver")
    if host is not None and host.get("integrated"):
        return Finding("resolver", State.OK, f"systemd-resolved asks us for {domain}")
    if not resolved.is_running(stub):
        found = f"nothing routes {domain} to the stub resolver at {_text(stub)}"
        fix = "route that domain to it in the resolver that this machine has"
        return Finding("resolver", State.WARNING, found, fix)
    if host is None and config.resolver.integrate == "auto":
        return Finding("resolver", State.OK, "systemd-resolved runs, and is told when a host is up")
    commands = " && ".join(
        f"sudo {one}" for one in resolved.by_hand(domain, config.host.device, stub)
    )
    if config.resolver.integrate == "off":
        found = "systemd-resolved runs, and resolver.integrate is off"
        return Finding("resolver", State.WARNING, found, f'set it to "auto", or run `{commands}`')
    reason = (host or {}).get("reason") or "it has not been told yet"
    found = f"systemd-resolved does not ask us for {domain}: {reason}"
    fix = f"run the host as root or let polkit allow it; or, with the host up, run `{commands}`"
    return Finding("resolver", State.WARNING, found, fix)


def nameservers(path: Path) -> list[str]:
    """The servers that a resolv.conf(5) names."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]


def _text(endpoint: Endpoint) -> str:
    host, number = endpoint
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def rendezvous(config: HostConfig) -> list[Finding]:
    """The rendezvous answers, its key is proven, and it takes our signature and our clock."""
    from keys import store
    from tunnel.cli.probe import look

    path, server = config.account_secret_path(), config.rendezvous.endpoint
    if config.account is None or path is None:
        return []
    if server is None:
        found = "rendezvous.server is left out: the zone's SRV names are asked when the host is up"
        return [Finding("rendezvous", State.WARNING, found, "see `autotunnel status`, or name it")]
    try:
        account = store.load_account(config.account.domain, path)
    except store.SecretFileError:
        return []  # told already, and nothing can be signed without it
    seen = asyncio.run(look(config, server, account))
    if seen.problem is not None:
        found, _, fix = seen.problem.partition("; ")
        fix = fix or "check the network, and rendezvous.server"
        return [Finding("rendezvous", State.FAILED, found, fix)]
    found = f"{_text(server)} ({config.rendezvous.transport}) takes our signature and our clock"
    pin = f"; its pin is {seen.pin.hex()}" if seen.pin else ""
    return [Finding("rendezvous", State.OK, found + pin)]
