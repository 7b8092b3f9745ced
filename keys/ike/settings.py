"""The numbers of an IKE endpoint; every one has a unit and a source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IkeSettings:
    """Times are seconds. Lifetimes are local matters, never negotiated (RFC 7296 §2.8)."""

    # CHILD_SA and IKE SA lifetimes; a rekey starts ``margin`` × lifetime before the end, moved
    # earlier by up to half of the margin at random, so that two sides seldom collide.
    child_lifetime: float = 3600.0
    ike_lifetime: float = 4 * 3600.0
    # A child also ends by what one of its directions has carried (RFC 7296 §2.8), with the same
    # margin and jitter: 2^31 packets, 64 GiB.
    child_packets: int = 2**31
    child_octets: int = 64 * 2**30
    rekey_margin: float = 0.1
    rekey_retry: float = 10.0  # after TEMPORARY_FAILURE (RFC 7296 §2.25 leaves the value to us)
    rekey_patience: float = 300.0  # of TEMPORARY_FAILURE alone (§2.25: "several minutes")

    # After a rekey the old CHILD_SA still receives for this long, so that packets which were
    # overtaken on their way are not lost.
    drain: float = 2.0

    # Only outgoing traffic for this long starts a liveness check (RFC 7296 §2.4).
    liveness: float = 30.0
    liveness_tries: int = 6  # about 20 s
    # The same patience where another request waits already: so long after our traffic and that
    # request went unanswered, the peer counts as gone. Alone it would be asked for five minutes.
    silence: float = 20.0
    hint_interval: float = 5.0  # unauthenticated INVALID_SPI hints may start a check this often

    # Retransmission (RFC 7296 §2.1, §2.4): first after 0.5 s, ×1.8, at most 60 s, 12 times, ±10 %.
    retransmit_first: float = 0.5
    retransmit_factor: float = 1.8
    retransmit_cap: float = 60.0
    retransmit_jitter: float = 0.1
    retransmit_tries: int = 12
    close_tries: int = 4  # a Delete is retransmitted for about 6 s

    # One attempt to reach a peer, from the first message to IKE_AUTH's answer.
    connect_timeout: float = 30.0
    # An unauthenticated refusal of IKE_SA_INIT is believed only when nothing better came for
    # this long (RFC 7296 §2.21.1: "continue trying for some time before giving up").
    refusal_patience: float = 3.0

    # Strangers: half-open SAs live 30 s; above the first number a COOKIE is asked for
    # (RFC 7296 §2.6), above the second new ones are dropped.
    half_open_timeout: float = 30.0
    cookie_threshold: int = 16
    half_open_limit: int = 256
    half_open_per_source: int = 32  # an IPv4 address, or an IPv6 /64; a NAT may hide many hosts
    cookie_secret_lifetime: float = 60.0
    ask_limit: int = 64  # peers that wait for the owner's answer at once
    answers_per_second: int = 20  # unprotected error answers and log lines about strangers
    notable_lines_per_second: int = 5  # of those lines, the ones above the level debug

    # Fragments (RFC 7383 §2.5.1): the IP datagram that a message must fit into, else it is cut;
    # of the peer's, so many are joined to a message of so many octets within so long.
    fragment_ipv4: int = 576
    fragment_ipv6: int = 1280
    fragments_limit: int = 128
    reassembly_timeout: float = 30.0
    reassembly_octets: int = 65535
    reassembly_octets_half_open: int = 20_000  # before a peer is proven

    # MOBIKE (RFC 4555); so often a new endpoint is asked before IKE returns to the old one.
    mobike: bool = True
    route_tries: int = 4  # about 5 s

    # Authenticated peers are bounded too.
    sas_per_peer: int = 8
    children_per_sa: int = 8
    queue_limit: int = 16  # exchanges of ours that wait for the window of one SA

    # In order of preference. Names as strongSwan spells them.
    encryption: tuple[str, ...] = ("aes256gcm16", "aes128gcm16", "chacha20poly1305")
    prf: tuple[str, ...] = ("prfsha256", "prfsha384")
    groups: tuple[str, ...] = ("x25519", "ecp256")
    # Additional key exchanges (RFC 9370), so that who records today reads nothing tomorrow; peers
    # that know of none get none, unless they are required.
    additional: tuple[str, ...] = ("mlkem768",)
    additional_required: bool = False
    followup_timeout: float = 20.0  # between the exchanges of a rekey (§2.2.4: 5 to 20 s)
    pfs: bool = True  # a fresh key exchange when a CHILD_SA is rekeyed (RFC 7296 §2.17)
