"""strongSwan with its userspace ESP (``kernel-libipsec``), one charon in each namespace."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from tunnel.io.lab import LabError, Namespace, wait_until

CHARON = Path("/usr/lib/ipsec/charon")
INNER = ("fd00:c::1", "fd00:c::2")
# kernel-libipsec before kernel-netlink: the first one that offers ESP is taken.
PLUGINS = "random nonce openssl aes sha1 sha2 hmac kdf gcm curve25519 socket-default "
PLUGINS += "kernel-libipsec kernel-netlink vici"

STRONGSWAN_CONF = """
charon {{
  load_modular = no
  load = {plugins}
  plugins {{ vici {{ socket = unix://{folder}/vici }} }}
}}
swanctl {{ load = {plugins} }}
"""
SWANCTL_CONF = """
connections {{
  peer {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = aes128gcm16-prfsha256-x25519
    encap = yes
    local {{ auth = psk }}
    remote {{ auth = psk }}
    children {{
      inner {{ local_ts = {local_ts}/128
        remote_ts = {remote_ts}/128
        esp_proposals = aes128gcm16 }}
    }}
  }}
}}
secrets {{ ike-peer {{ secret = "only within this measurement" }} }}
"""


class StrongSwan:
    """libipsec: ESP in the charon process."""

    name = "strongswan"

    def missing(self) -> str | None:
        if CHARON.exists() and shutil.which("swanctl"):
            return None
        packages = "strongswan-charon strongswan-swanctl libcharon-extra-plugins"
        return f"not installed (Debian: {packages} libstrongswan-extra-plugins)"

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        pids = []
        for number, (end, ours, theirs) in enumerate(pair.ends):
            inner = INNER if number == 0 else INNER[::-1]
            pids.append(_start(end, (ours, theirs), inner))
        pair.left.run(
            *("swanctl", "--initiate", "--child", "inner", "--timeout", "15"),
            *("--uri", _uri(pair.left)),
        )
        wait_for_ping(pair.left, INNER[1])
        yield Tunnel(
            *INNER,
            engine=f"strongSwan {_version(pair.left)} libipsec",
            aead="aes128gcm16",
            pids=tuple(pids),
            setup_seconds=time.monotonic() - started,
        )


def _start(end: Namespace, outer: tuple[str, str], inner: tuple[str, str]) -> int:
    folder = end.folder / "charon"
    (folder / "run").mkdir(parents=True)
    conf, swan = folder / "strongswan.conf", folder / "swanctl.conf"
    conf.write_text(STRONGSWAN_CONF.format(plugins=PLUGINS, folder=folder))
    swan.write_text(
        SWANCTL_CONF.format(local=outer[0], remote=outer[1], local_ts=inner[0], remote_ts=inner[1])
    )
    end.address("lo", f"{inner[0]}/128")
    environment = {"STRONGSWAN_CONF": str(conf), "SWANCTL_DIR": str(folder)}
    script = f'mount --bind "{folder}/run" /run && exec {CHARON}'
    charon = end.start(
        *("unshare", "-m", "--propagation", "private", "sh", "-c", script),
        name="charon",
        env=environment,
    )

    def ready() -> bool:
        if not charon.running:
            raise LabError(f"charon ended: {charon.tail()}")
        return (folder / "vici").exists()

    wait_until(ready, 15.0, "charon listens")
    end.run("swanctl", "--load-all", "--uri", _uri(end), "--file", str(swan), env=environment)
    return charon.pid


def _uri(end: Namespace) -> str:
    return f"unix://{end.folder}/charon/vici"


def _version(end: Namespace) -> str:
    words = end.run("swanctl", "--version", "--uri", _uri(end), check=False).stdout.split()
    return next((word for word in words if word[:1].isdigit()), "")
