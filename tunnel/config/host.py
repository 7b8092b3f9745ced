"""The sections of the file that ``up`` reads (DESIGN §5)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fastpath.types import ANY_PORT, NARROW_WAYS
from tunnel.config.base import (
    DEFAULT_DNS_PORT,
    DEFAULT_TLS_PORT,
    Port,
    Seconds,
    Section,
    WrongValueError,
    domain_or_refuse,
    endpoint_or_refuse,
    ula_or_refuse,
)
from tunnel.spelling import (
    Endpoint,
    is_domain,
    is_label,
    parse_address_endpoint,
    parse_endpoint,
    parse_ula,
)


class HostSection(Section, frozen=True, kw_only=True):
    """``[host]``: this machine. ``ike_port`` adds a second socket for initiators that insist.

    ``mtu`` is the device's, in octets; "auto" is what this machine's own link takes whole. Where a
    path takes less, it is found (decision 0005). ``max_peers`` bounds memory, at 20 KiB for each.
    ``multicast``: whether the account's hosts are looked for on the local network: "auto" while the
    rendezvous cannot be reached, true always, false never (decision 0045). ``home_agents``: labels
    of hosts of the account that shall relay for this one, best first; "auto" are all that offer to.
    """

    name: str
    id: str = "auto"
    listen: Port = 4500
    ike_port: Port | None = None
    device: str = "at0"
    state_dir: str = "/var/lib/autotunnel"
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=65535)] | Literal["auto"] = 1400
    max_peers: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1024
    multicast: bool | Literal["auto"] = "auto"
    home_agents: tuple[str, ...] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        for label in () if self.home_agents == "auto" else self.home_agents:
            if not is_label(label):
                raise WrongValueError(
                    "home_agents",
                    f"{label!r} is not a host label",
                    'give the labels of hosts of the account, like ["gateway"], or "auto"',
                )
        if not (is_label(self.name) or is_domain(self.name)):
            raise WrongValueError(
                "name",
                f"{self.name!r} is not a host label",
                'use lower-case letters, digits and "-", like "desk"',
            )
        if self.id != "auto":
            ula_or_refuse("id", self.id, 'use "auto" or an address like "fd12:3456::1"')
        if not self.device or len(self.device) > 15 or set(self.device) & set("/ :%"):
            raise WrongValueError(
                "device",
                f"{self.device!r} is not a device name",
                'use at most 15 characters, like "at0"',
            )
        if self.ike_port == self.listen:
            raise WrongValueError(
                "ike_port", "it is the same as host.listen", "leave it out or use 500"
            )

    @property
    def fixed_id(self) -> IPv6Address | None:
        """The host id that the file fixes, or ``None`` for one per boot."""
        return None if self.id == "auto" else parse_ula(self.id)


Serial = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{1,40}$")]
"""A certificate's serial number in hexadecimal, as ``autotunnel status`` and openssl show it."""


class AccountSection(Section, frozen=True, kw_only=True):
    """``[account]``: the domain whose zone the person owns, and the file of its secret.

    ``auth``: how its hosts prove themselves to each other. With "cert" there are this host's key
    and certificate, the CA's certificate and, on an issuer only, the CA's key. ``revoked`` are
    serial numbers, in hexadecimal, that are believed no more whatever the zone says.
    """

    domain: str
    secret_file: str = "account.key"  # noqa: S105 (the name of a file)
    auth: Literal["cert", "psk"] = "cert"
    key_file: str = "host.key"
    certificate_file: str = "host.crt"
    ca_file: str = "ca.crt"
    ca_key_file: str = "ca.key"
    revoked: tuple[Serial, ...] = ()

    def __post_init__(self) -> None:
        domain_or_refuse(self.domain)


class RendezvousSection(Section, frozen=True, kw_only=True):
    """``[rendezvous]``: the server that holds the zone; left out, the zone's SRV names find it.

    ``pin`` is the hexadecimal SHA-256 of the server's public key (SPKI), from a token or by hand.
    """

    server: str | None = None
    transport: Literal["tls", "tcp", "udp"] = "tls"
    pin: str | None = None

    def __post_init__(self) -> None:
        if self.server is not None:
            try:
                parse_endpoint(self.server, DEFAULT_TLS_PORT)
            except ValueError as problem:
                fix = 'write it like "203.0.113.10" or "203.0.113.10:853"'
                raise WrongValueError("server", str(problem), fix) from None
        if self.pin is not None and not _is_pin(self.pin):
            raise WrongValueError(
                "pin",
                "it is not the hexadecimal SHA-256 of a key",
                "copy the 64 digits that `autotunnel doctor` prints, or leave it out",
            )

    @property
    def endpoint(self) -> Endpoint | None:
        """(host or address, port) with the transport's usual port if the file gives none."""
        if self.server is None:
            return None
        default = DEFAULT_TLS_PORT if self.transport == "tls" else DEFAULT_DNS_PORT
        return parse_endpoint(self.server, default)

    @property
    def pin_octets(self) -> bytes | None:
        """The pin as 32 octets, or ``None`` if the file names none."""
        return None if self.pin is None else bytes.fromhex(self.pin)


def _is_pin(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdefABCDEF")


class NatSection(Section, frozen=True, kw_only=True):
    """``[nat]``: how mappings are asked for."""

    methods: tuple[Literal["pcp", "nat-pmp", "upnp"], ...] = ("pcp", "nat-pmp", "upnp")


class HomeAgentSection(Section, frozen=True, kw_only=True):
    """``[home_agent]``: this host relays sealed packets between hosts of the account that cannot
    meet. The table alone, empty, makes it one; others must reach it directly.

    ``rate_mbit``: what it relays at most, in megabits per second; 0 is no limit. ``hosts``: so many
    may be registered with it at a time.
    """

    rate_mbit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    hosts: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 1024


PortOrType = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class ChildSection(Section, frozen=True, kw_only=True):
    """One of ``[[peer]] children``: a CHILD_SA of its own for one protocol, or some ports of it."""

    protocol: Annotated[int, msgspec.Meta(ge=1, le=255)]
    local_ports: tuple[PortOrType, PortOrType] = ANY_PORT
    peer_ports: tuple[PortOrType, PortOrType] = ANY_PORT
    mode: Literal["tunnel", "transport"] = "tunnel"

    def __post_init__(self) -> None:
        for key in ("local_ports", "peer_ports"):
            first, last = getattr(self, key)
            if first > last:
                raise WrongValueError(
                    key, f"{first} is above {last}", "give the first port, then the last"
                )


class PeerSection(Section, frozen=True, kw_only=True):
    """``[[peer]]``: a static peer, which needs no zone. ``id`` is its inner address.

    With ``auth`` "cert", ``ca_file`` holds the CAs that it may show a certificate of; we show the
    one of ``certificate_file`` and ``key_file``, else this host's own of its account. ``revoked``
    are serial numbers, in hexadecimal, of certificates of those CAs that are believed no more.
    """

    name: str
    id: str
    endpoint: str
    auth: Literal["psk", "cert"] = "psk"
    psk_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    revoked: tuple[Serial, ...] = ()
    suites: tuple[Literal["aes128gcm16", "aes256gcm16", "chacha20poly1305"], ...] = (
        "aes128gcm16",
        "aes256gcm16",
        "chacha20poly1305",
    )
    mode: Literal["tunnel", "transport"] = "tunnel"
    children: Annotated[tuple[ChildSection, ...], msgspec.Meta(max_length=NARROW_WAYS)] = ()
    ppk_file: str | None = None
    ppk_id: str = ""
    ppk_required: bool = False

    def __post_init__(self) -> None:
        if not (is_label(self.name) or is_domain(self.name)):
            raise WrongValueError(
                "name", f"{self.name!r} is not a name", "give its IKE identity (ID_FQDN)"
            )
        wanted: tuple[str, ...] = ("psk_file",) if self.auth == "psk" else ("ca_file",)
        pair = {"certificate_file": self.certificate_file, "key_file": self.key_file}
        if any(pair.values()) and not all(pair.values()):
            wanted += tuple(pair)
        for key in wanted:
            if getattr(self, key) is None:
                raise WrongValueError(key, f'it is missing, with auth = "{self.auth}"', "add it")
        ula_or_refuse("id", self.id, 'give its inner address, like "fd12:3456::1"')
        endpoint_or_refuse("endpoint", self.endpoint, "198.51.100.7:4500", 4500)
        if (self.ppk_file is None) != (self.ppk_id == ""):
            fix = "give both, or none: the peer knows the key by its id"
            raise WrongValueError("ppk_id", "ppk_file and ppk_id go together", fix)
        if not self.suites:
            raise WrongValueError(
                "suites", "it is empty", "name at least one suite, or leave it out"
            )

    @property
    def host_id(self) -> IPv6Address:
        """Its inner address."""
        return parse_ula(self.id)

    @property
    def address(self) -> Endpoint:
        """Its endpoint; UDP port 4500 if the file gives none."""
        return parse_address_endpoint(self.endpoint, 4500)


class ResolverSection(Section, frozen=True, kw_only=True):
    """``[resolver]``: the stub resolver. ``forward`` empty: the system's own servers.

    ``integrate`` "auto": where systemd-resolved runs, it is told to ask us for the account's names.
    """

    enabled: bool = True
    integrate: Literal["auto", "off"] = "auto"
    listen: str = "127.0.0.1:4553"
    forward: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        endpoint_or_refuse("listen", self.listen, "127.0.0.1:4553")
        if not ip_address(self.address[0]).is_loopback:
            raise WrongValueError(
                "listen", f"{self.listen} is not on a loopback address", "use 127.0.0.1"
            )
        for server in self.forward:
            endpoint_or_refuse("forward", server, "192.0.2.53", DEFAULT_DNS_PORT)

    @property
    def address(self) -> Endpoint:
        """Where the stub resolver listens, UDP and TCP."""
        return parse_address_endpoint(self.listen)

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """The servers for all other names."""
        return tuple(parse_address_endpoint(text, DEFAULT_DNS_PORT) for text in self.forward)


class EngineSection(Section, frozen=True, kw_only=True):
    """``[engine]``: which data path runs. "auto": native, else reference, loudly.

    ``offload`` false: none of the kernel's help with large frames, for a driver that breaks them.
    ``threads``: queues of the device and sockets of the port, each served by its own pair of
    threads in the native engine; the packets of one peer come through one of them (decision 0031).
    """

    name: Literal["auto", "native", "reference"] = "auto"
    offload: bool = True
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class IkeSection(Section, frozen=True, kw_only=True):
    """``[ike]``: times in seconds, and the suites offered to the account's hosts.

    ``cookie_threshold``: with so many half-open exchanges a stranger must show that it is where
    it claims, before any state is made for it (RFC 7296 §2.6). ``post_quantum``: ML-KEM-768 with
    the peers that know it, with every peer or no connection, or never.
    """

    post_quantum: Literal["prefer", "require", "off"] = "prefer"

    child_lifetime: Seconds = 3600.0
    ike_lifetime: Seconds = 4 * 3600.0
    liveness: Seconds = 30.0
    cookie_threshold: Annotated[int, msgspec.Meta(ge=0, le=256)] = 16
    suites: tuple[Literal["aes128gcm16", "aes256gcm16", "chacha20poly1305"], ...] = (
        "aes128gcm16",
        "aes256gcm16",
        "chacha20poly1305",
    )

    def __post_init__(self) -> None:
        if not self.suites:
            raise WrongValueError(
                "suites", "it is empty", "name at least one suite, or leave it out"
            )


class HostFile(Section, frozen=True, kw_only=True):
    """All tables that a host's file may hold."""

    host: HostSection
    account: AccountSection | None = None
    rendezvous: RendezvousSection = RendezvousSection()
    nat: NatSection = NatSection()
    peer: tuple[PeerSection, ...] = ()
    resolver: ResolverSection = ResolverSection()
    engine: EngineSection = EngineSection()
    ike: IkeSection = IkeSection()
    home_agent: HomeAgentSection | None = None


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of ``up``. ``path`` is the file it came from; other files stand beside it.

    ``account`` is ``None`` on a host that has only static peers.
    """

    path: Path
    host: HostSection
    account: AccountSection | None = None
    rendezvous: RendezvousSection = RendezvousSection()
    nat: NatSection = NatSection()
    peers: tuple[PeerSection, ...] = ()
    resolver: ResolverSection = ResolverSection()
    engine: EngineSection = EngineSection()
    ike: IkeSection = IkeSection()
    home_agent: HomeAgentSection | None = None

    @property
    def fqdn(self) -> str:
        """This host's name and IKE identity: ``<label>.<domain>``, or ``host.name`` if alone."""
        return self.host.name if self.account is None else f"{self.host.name}.{self.account.domain}"

    @property
    def state_dir(self) -> Path:
        """The folder for state; a relative one stands beside the file."""
        return self.path.parent / self.host.state_dir

    @property
    def control_socket(self) -> Path:
        """Where ``status``, ``down`` and the others find the running host."""
        return self.state_dir / "control.sock"

    def account_secret_path(self) -> Path | None:
        """The file of the account secret, or ``None`` without an account."""
        return None if self.account is None else self.path.parent / self.account.secret_file

    def ppk_path(self, peer: PeerSection) -> Path | None:
        """The file of a static peer's post-quantum pre-shared key, or ``None``."""
        return None if peer.ppk_file is None else self.path.parent / peer.ppk_file

    def psk_path(self, peer: PeerSection) -> Path:
        """The file of a static peer's pre-shared key."""
        assert peer.psk_file is not None  # the section has seen to it
        return self.path.parent / peer.psk_file

    def beside(self, file: str) -> Path:
        """A file that is named relative to this one."""
        return self.path.parent / file

    def as_home_agent(self) -> HostConfig:
        """This configuration, with an empty ``[home_agent]`` if it has none."""
        section = self.home_agent or HomeAgentSection()
        return msgspec.structs.replace(self, home_agent=section)

    @property
    def certified(self) -> bool:
        """Whether this host has a certificate of its account."""
        return self.account is not None and self.account.auth == "cert"
