"""From the configuration and its secret files to who this host is, and whom it knows."""

from __future__ import annotations

from ipaddress import IPv6Address

from keys import hostid, store
from keys.account import Account
from keys.ike.endpoint import IkeSettings
from keys.ike.types import ChildPolicy, Ppk, Traffic
from tunnel.config import HostConfig, PeerSection
from tunnel.config.host import ChildSection
from tunnel.peers import Identity, StaticPeer
from tunnel.settings import CONNECT_TIMEOUT, HomeAgentSettings, NodeSettings


def account_of(config: HostConfig) -> Account | None:
    """The account, its secret read from its file; ``None`` on a host that has none.

    Raises ``keys.store.SecretFileError``.
    """
    path = config.account_secret_path()
    if config.account is None or path is None:
        return None
    return store.load_account(config.account.domain, path)


def host_id_of(config: HostConfig) -> IPv6Address:
    """The host id that the file fixes, or that of this boot. Raises ``keys.store.HostIdError``."""
    fixed = config.host.fixed_id
    if fixed is not None:
        return fixed
    return store.load_or_make_host_id(config.state_dir, store.primary_mac())


def identity_of(config: HostConfig, account: Account | None, host_id: IPv6Address) -> Identity:
    """Who this host is. The target name holds the host id's own EUI-64 (B16, B56)."""
    return Identity(
        name=config.fqdn,
        host_id=host_id,
        target=hostid.target_label(hostid.eui64_of(host_id)),
        label=None if account is None else config.host.name,
        domain=None if account is None else account.domain,
        psk=None if account is None or config.certified else account.psk,
        suites=config.ike.suites,
    )


def static_peers_of(config: HostConfig) -> tuple[StaticPeer, ...]:
    """The peers of the file. Raises ``keys.store.SecretFileError``."""
    return tuple(
        StaticPeer(
            name=peer.name,
            host_id=peer.host_id,
            endpoint=peer.address,
            psk=store.read_secret(config.psk_path(peer)) if peer.auth == "psk" else None,
            suites=peer.suites,
            mode=peer.mode,
            more=tuple(_child_of(child) for child in peer.children),
            ppk=ppk_of(config, peer),
        )
        for peer in config.peers
    )


def _child_of(child: ChildSection) -> ChildPolicy:
    return ChildPolicy(Traffic(child.protocol, child.local_ports, child.peer_ports), child.mode)


def ppk_of(config: HostConfig, peer: PeerSection) -> Ppk | None:
    """The peer's post-quantum pre-shared key. Raises ``keys.store.SecretFileError``."""
    path = config.ppk_path(peer)
    if path is None:
        return None
    return Ppk(peer.ppk_id.encode(), store.read_secret(path), peer.ppk_required)


def settings_of(config: HostConfig) -> NodeSettings:
    """The node's numbers, with those that the file changes."""
    ike = IkeSettings(
        child_lifetime=config.ike.child_lifetime,
        ike_lifetime=config.ike.ike_lifetime,
        liveness=config.ike.liveness,
        cookie_threshold=config.ike.cookie_threshold,
        connect_timeout=CONNECT_TIMEOUT,
        additional=() if config.ike.post_quantum == "off" else ("mlkem768",),
        additional_required=config.ike.post_quantum == "require",
    )
    agents = config.host.home_agents
    return NodeSettings(
        ike=ike,
        peers=config.host.max_peers,
        home_agent=_home_agent_of(config),
        home_agents=None if agents == "auto" else agents,
    )


def _home_agent_of(config: HostConfig) -> HomeAgentSettings | None:
    section = config.home_agent
    if section is None:
        return None
    return HomeAgentSettings(section.rate_mbit * 1_000_000 // 8, section.hosts)
