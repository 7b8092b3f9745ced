"""A stock strongSwan in a namespace of a lab, as a real peer of the tests and the benchmarks.

Debian's charon with its user-space ESP (``kernel-libipsec``), one per namespace: its ``/run`` is a
private mount, its vici socket lies in the lab's folder, and ``swanctl`` drives it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import LabError, Process, wait_until

CHARON = Path("/usr/lib/ipsec/charon")
PACKAGES = (
    "strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-extra-plugins"
)
# kernel-libipsec before kernel-netlink: the first one that offers ESP is taken.
PLUGINS = (
    "random nonce openssl aes sha1 sha2 hmac kdf gcm chapoly curve25519 gmp pem pkcs1 pkcs8 pkcs12 "
    "x509 pubkey constraints revocation socket-default kernel-libipsec kernel-netlink vici updown "
    "counters"
)

_INSTALLED = re.compile(r"INSTALLED.*?in  ([0-9a-f]{8})[,)(].*?out ([0-9a-f]{8})[,)(]", re.DOTALL)

_STRONGSWAN_CONF = """
charon {{
  load_modular = no
  load = {plugins}
  retransmit_tries = 3
  filelog {{
    main {{
      path = {folder}/charon.log
      flush_line = yes
      default = 1
      ike = 2
      cfg = 2
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{folder}/vici
    }}
  }}
{settings}
}}
swanctl {{
  load = {plugins}
}}
"""

_SWANCTL_CONF = """
connections {{
  peer {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = {ike}
    encap = yes
    rekey_time = 4h
    local {{
      auth = psk
      id = {local_id}
    }}
    remote {{
      auth = psk
      id = {remote_id}
    }}
    children {{
      inner {{
        local_ts = {local_inner}/128
        remote_ts = {remote_inner}/128
        esp_proposals = {esp}
        rekey_time = 1h
        start_action = none
      }}
    }}
  }}
}}
secrets {{
  ike-peer {{
    id-1 = {local_id}
    id-2 = {remote_id}
    secret = 0x{psk}
  }}
}}
"""


def charon_missing() -> str | None:
    """Why there is no strongSwan here, in a sentence; ``None`` if there is one."""
    if CHARON.exists() and shutil.which("swanctl"):
        return None
    return f"not installed (Debian: {PACKAGES})"


def psk_connection(
    *,
    local: str,
    remote: str,
    local_id: str,
    remote_id: str,
    local_inner: str,
    remote_inner: str,
    psk: bytes,
    ike: str = "aes128gcm16-prfsha256-x25519",
    esp: str = "aes128gcm16",
) -> str:
    """A ``swanctl.conf`` with one connection ``peer`` by pre-shared key and its child ``inner``."""
    return _SWANCTL_CONF.format(
        local=local,
        remote=remote,
        local_id=local_id,
        remote_id=remote_id,
        local_inner=local_inner,
        remote_inner=remote_inner,
        psk=psk.hex(),
        ike=ike,
        esp=esp,
    )


class Charon:
    """One charon on ``machine`` with the connections of ``connections`` (a ``swanctl.conf``, whose
    first one is ``peer`` with a child ``inner``), its host id ``inner`` on the loopback device.

    ``settings`` are more lines for the section ``charon`` of its ``strongswan.conf``, where the
    last word counts; what must
    be there before it starts (certificates, keys) are ``files``, by their names below ``folder``.
    """

    def __init__(
        self,
        machine: Namespace,
        connections: str,
        *,
        inner: str,
        settings: str = "",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.machine = machine
        self.folder = machine.folder / "charon"
        shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier one
        (self.folder / "run").mkdir(parents=True)
        (self.folder / "strongswan.conf").write_text(
            _STRONGSWAN_CONF.format(plugins=PLUGINS, folder=self.folder, settings=settings)
        )
        for name, content in (files or {}).items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(content)
        machine.ip("address", "replace", f"{inner}/128", "dev", "lo", "nodad")
        self._env = {
            "STRONGSWAN_CONF": str(self.folder / "strongswan.conf"),
            "SWANCTL_DIR": str(self.folder),
        }
        self.process = self._start()
        self.load(connections)

    def _start(self) -> Process:
        (self.folder / "vici").unlink(missing_ok=True)
        self.process = self.machine.start(
            *("unshare", "-m", "--propagation", "private", "sh", "-c"),
            f'mount --bind "{self.folder}/run" /run && exec {CHARON}',
            name="charon",
            env=self._env,
        )
        self._wait_for_vici()
        return self.process

    def load(self, connections: str) -> None:
        """Replace its connections and secrets by those of a ``swanctl.conf``."""
        file = self.folder / "swanctl.conf"
        file.write_text(connections)
        said = self.swanctl("--load-all", "--clear", "--file", str(file))
        if "successfully loaded" not in said:
            raise LabError(f"charon did not take its connections: {said}")

    def restart(self) -> None:
        """Start it again after its end, with what it knew."""
        self._start()
        self.load((self.folder / "swanctl.conf").read_text())

    def swanctl(self, *arguments: str, check: bool = True) -> str:
        """Run ``swanctl`` against this charon; what it printed."""
        command, *rest = arguments
        done = self.machine.run(
            *("swanctl", command, "--uri", f"unix://{self.folder}/vici", *rest),
            env=self._env,
            check=False,
        )
        if check and done.returncode != 0:
            raise LabError(f"swanctl {command}: {done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout

    def initiate(self) -> None:
        """Make the tunnel from charon's side."""
        self.swanctl("--initiate", "--child", "inner", "--timeout", "50")

    def try_initiate(self) -> str:
        """Try to make the tunnel, which may fail; what charon says."""
        return self.swanctl("--initiate", "--child", "inner", "--timeout", "50", check=False)

    def rekey_child(self) -> None:
        """Have charon rekey the CHILD_SA now (RFC 7296 §1.3.3)."""
        self.swanctl("--rekey", "--child", "inner")

    def rekey_ike(self) -> None:
        """Have charon rekey the IKE SA now (RFC 7296 §1.3.2)."""
        self.swanctl("--rekey", "--ike", "peer")

    def terminate_child(self) -> None:
        """Have charon delete the CHILD_SA; the IKE SA stays (RFC 7296 §1.4.1)."""
        self.swanctl("--terminate", "--child", "inner", "--timeout", "50")

    def terminate(self) -> None:
        """Have charon delete the IKE SA and all below it."""
        self.swanctl("--terminate", "--ike", "peer", "--timeout", "50")

    def sas(self) -> str:
        """What ``swanctl --list-sas`` says."""
        return self.swanctl("--list-sas")

    def ike_spis(self) -> list[tuple[str, str]]:
        """(SPIi, SPIr) of each IKE SA, in hexadecimal, the initiator's first."""
        return [
            (found[1], found[2])
            for found in re.finditer(r"([0-9a-f]{16})_i\*? ([0-9a-f]{16})_r", self.sas())
        ]

    def children(self) -> list[tuple[int, int]]:
        """(spi_in, spi_out) of each installed CHILD_SA, as charon sees them."""
        return [(int(found[1], 16), int(found[2], 16)) for found in _INSTALLED.finditer(self.sas())]

    def is_rekeying(self) -> bool:
        """Whether a CHILD_SA has a successor and is not deleted yet."""
        return ", REKEYED, " in self.sas()

    def octets(self, spi_in: int) -> tuple[int, int]:
        """(received, sent) inner octets of the installed CHILD_SA with this inbound SPI, by
        charon's counters; it lists those that were rekeyed for some seconds more."""
        text = self.sas()
        mine = re.search(rf"^\s+in\s+{spi_in:08x}\b.*\n\s+out\s.*$", text, re.MULTILINE)
        if mine is None:
            raise LabError(f"charon has no CHILD_SA with the SPI {spi_in:08x}:\n{text}")
        received, sent = (int(number) for number in re.findall(r"(\d+) bytes", mine[0]))
        return received, sent

    def version(self) -> str:
        """Its version, like "5.9.8"."""
        words = self.swanctl("--version", check=False).split()
        return next((word for word in words if word[:1].isdigit()), "")

    def log(self) -> str:
        """Its log so far."""
        path: Path = self.folder / "charon.log"
        return path.read_text(errors="replace") if path.exists() else self.process.output()

    def _wait_for_vici(self) -> None:
        def ready() -> bool:
            if not self.process.running:
                raise LabError(f"charon ended:\n{self.process.output()}\n{self.log()}")
            return (self.folder / "vici").exists()

        wait_until(ready, 60, "charon opens its control socket")
