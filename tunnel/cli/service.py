"""``service``: a hardened systemd unit (systemd.exec(5)) for ``up`` or ``serve``.

The unit runs as its own user with one capability: CAP_NET_ADMIN for a host, which drops it after
set-up, or CAP_NET_BIND_SERVICE for a rendezvous, for port 53 and 853. A rendezvous that runs a home
agent beside itself needs both; each of the two processes drops all when it stands.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunnel.cli.files import config_path, refuse_overwrite, serve_path
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say
from tunnel.config import load_serve

DEFAULT_USER = "autotunnel"
_UNITS = Path("/etc/systemd/system")
_SYSUSERS = Path("/etc/sysusers.d")
_POLKIT = Path("/etc/polkit-1/rules.d")

# Decision 0047: what tunnel/io/resolved.py asks of systemd-resolved, for one user, and no more.
_RULE = """\
// The autotunnel host tells systemd-resolved which names to ask it for.
polkit.addRule(function(action, subject) {
    var allowed = [%s];
    if (subject.user == %s && allowed.indexOf(action.id) >= 0) {
        return polkit.Result.YES;
    }
});
"""
_ALLOWED = (
    *("set-dns-servers", "set-domains", "set-default-route", "set-llmnr", "set-mdns"),
    *("set-dns-over-tls", "set-dnssec", "revert"),
)


class Role(StrEnum):
    """What the service runs."""

    UP = "up"
    SERVE = "serve"


RoleOption = Annotated[Role, typer.Option("--for", help="A host (up) or a rendezvous (serve).")]
HomeAgentOption = Annotated[
    bool, typer.Option("--home-agent", help="Of a rendezvous: run it with --home-agent.")
]
UserOption = Annotated[str, typer.Option(metavar="NAME", help="The system user it runs as.")]
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")  # what systemd takes (sysusers.d(5))

_ONE_DROPS = "One capability, which the process drops as soon as it needs it no more."
_BOTH_DROP = "Each process drops them as soon as it needs them no more."
_UNIT = """\
[Unit]
Description={description}
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
User={user}
Group={user}
Restart=on-failure
RestartSec=2
TimeoutStopSec=30{kill_mode}
StateDirectory=autotunnel
StateDirectoryMode=0700
UMask=0077

# {privilege}
AmbientCapabilities={capability}
CapabilityBoundingSet={capability}
NoNewPrivileges=yes

# It sees its configuration, writes its state, and talks IP, netlink and its control socket.
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
{devices}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6{netlink}
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@clock @debug @module @mount @obsolete @reboot @swap
SystemCallErrorNumber=EPERM
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""


def unit_text(role: Role, user: str, config: Path, home_agent: bool = False) -> str:
    """The unit file. A host needs /dev/net/tun and netlink; a rendezvous neither, unless it runs a
    host beside itself (``home_agent``), which it then also ends itself, in order."""
    both = role is Role.SERVE and home_agent
    program = [*_program(), role.value, *(["--home-agent"] if both else []), "-c", str(config)]
    host = role is Role.UP or both
    needed = (["CAP_NET_BIND_SERVICE"] if role is Role.SERVE else []) + ["CAP_NET_ADMIN"] * host
    in_home = any(str(path).startswith(("/home/", "/root/")) for path in (config, sys.executable))
    what = "host" if role is Role.UP else "rendezvous"
    return _UNIT.format(
        description=f"autotunnel {what}" + (" and home agent" if both else ""),
        command=" ".join(_systemd_quote(word) for word in program),
        user=user,
        kill_mode="\nKillMode=mixed" if both else "",
        privilege=_BOTH_DROP if both else _ONE_DROPS,
        capability=" ".join(needed),
        protect_home="read-only" if in_home else "yes",
        devices="DevicePolicy=closed\nDeviceAllow=/dev/net/tun rw"
        if host
        else "PrivateDevices=yes",
        netlink=" AF_NETLINK" if host else "",
    )


def _program() -> list[str]:
    """The installed command, or Python told where this tree is."""
    installed = Path(sys.executable).with_name("autotunnel")
    if installed.exists():
        return [str(installed)]
    root = Path(__file__).parents[2]
    return ["/usr/bin/env", f"PYTHONPATH={root}", sys.executable, "-m", "tunnel"]


def _systemd_quote(word: str) -> str:
    """As systemd.service(5) "Command lines" wants it: % and $ doubled, then quoted if needed."""
    return shlex.quote(word.replace("%", "%%").replace("$", "$$"))


def polkit_rule(user: str) -> str:
    """The polkit(8) rule that lets ``user`` tell systemd-resolved about a device."""
    actions = ", ".join(json.dumps(f"org.freedesktop.resolve1.{action}") for action in _ALLOWED)
    return _RULE % (actions, json.dumps(user))


def register(app: typer.Typer) -> None:
    """Adds ``service print`` and ``service install``."""
    group = typer.Typer(help="A hardened systemd unit.", no_args_is_help=True)
    command(group, "print", schema="service")(print_unit)
    command(group, "install", schema="service")(install)
    app.add_typer(group, name="service")


def _config(role: Role, config: str | None, home_agent: bool) -> tuple[Path, bool]:
    """The file, and whether a home agent runs beside the rendezvous: by the option, or by it."""
    if role is Role.UP:
        if home_agent:
            raise typer.BadParameter("--home-agent goes with --for serve; [home_agent] with up")
        return config_path(config), False
    path = serve_path(config)
    named = path.exists() and load_serve(path).home_agent is not None
    return path, home_agent or named


def _check_user(user: str) -> None:
    if not _USER.fullmatch(user):
        fix = 'use lower-case letters, digits, "_" and "-"'
        raise typer.BadParameter(f"--user: {user!r} is no name of a system user; {fix}")


def print_unit(
    role: RoleOption = Role.UP,
    user: UserOption = DEFAULT_USER,
    config: ConfigOption = None,
    home_agent: HomeAgentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the unit."""
    _check_user(user)
    text = unit_text(role, user, *_config(role, config, home_agent))
    if as_json:
        emit("service", {"role": role.value, "user": user, "unit": text})
    else:
        put(text)


def _write_all(files: Mapping[Path, str]) -> None:
    """Writes all of them, or none. Raises :class:`Failure`."""
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written += [] if path.exists() else [path]
            path.write_text(text)
    except OSError as problem:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(problem, PermissionError):
            raise Failure(f"{problem.filename} cannot be written; run this with sudo") from None
        raise


def install(
    role: RoleOption = Role.UP,
    user: UserOption = DEFAULT_USER,
    config: ConfigOption = None,
    home_agent: HomeAgentOption = False,
    units: Annotated[Path, typer.Option(help="Where units live.", readable=False)] = _UNITS,
    sysusers: Annotated[
        Path, typer.Option(help="Where system users are declared.", readable=False)
    ] = _SYSUSERS,
    polkit: Annotated[
        Path, typer.Option(help="Where polkit's rules live, if it is there.", readable=False)
    ] = _POLKIT,
    as_json: JsonOption = False,
) -> None:
    """Write the unit and its user's declaration, and say which commands start it."""
    _check_user(user)
    path, both = _config(role, config, home_agent)
    if not path.exists():
        raise Failure(f"{path}: there is no such file; run `autotunnel init` or name it with -c")
    name = "autotunnel" if role is Role.UP else "autotunnel-serve"
    unit, declaration = units / f"{name}.service", sysusers / f"{name}.conf"
    refuse_overwrite([unit, declaration], "take it away if it shall be written anew")
    files = {
        unit: unit_text(role, user, path, both),
        declaration: f'u {user} - "autotunnel" /var/lib/autotunnel\n',
    }
    if (role is Role.UP or both) and polkit.is_dir():
        files[polkit / "50-autotunnel.rules"] = polkit_rule(user)
    _write_all(files)
    steps = [
        "systemd-sysusers",
        f"chown -R {user}: {shlex.quote(str(path.parent))}",
        "systemctl daemon-reload",
        f"systemctl enable --now {name}.service",
    ]
    if as_json:
        emit("service", {"role": role.value, "unit": str(unit), "commands": steps})
        return
    put(str(unit))
    say("now run, as root:\n" + "\n".join(f"  {step}" for step in steps))
