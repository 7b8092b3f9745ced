"""The numbers of the node; every one has a unit and a source."""

from __future__ import annotations

from dataclasses import dataclass, field

from keys.ike.endpoint import IkeSettings
from tunnel.pmtu import PmtuSettings

CONNECT_TIMEOUT = 15.0  # seconds from the first IKE message to the SA


@dataclass(frozen=True, slots=True)
class HomeAgentSettings:
    """Of a host that relays for others: ``octets_per_second`` at most, 0 for any number, and for
    ``hosts`` at a time."""

    octets_per_second: int = 0
    hosts: int = 1024


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Times are seconds, sizes octets. What has no source is our choice, with its reason."""

    # Half of IKE's patience: an application waits behind the attempt, and the next one is near.
    ike: IkeSettings = field(default_factory=lambda: IkeSettings(connect_timeout=CONNECT_TIMEOUT))

    # The zone. Hosts that we hear of without asking, those in use first: six subscriptions each,
    # which leaves an account of a hundred hosts within what a rendezvous holds for one account.
    watched: int = 32
    refresh: float = 60.0  # between two looks at what is not told, such as revocations
    fresh: float = 5.0  # records this young are believed without asking again

    # One attempt. The next candidate endpoint joins the race when those before were silent this
    # long (RFC 8305 §8, Connection Attempt Delay). One that has answered and has not proven to be
    # the peer by then lets the others try again.
    head_start: float = 0.25
    stall: float = 3.0
    attempt: float = 60.0  # the end of an attempt that IKE and zone together did not end
    # A peer behind a NAT that no router opens comes towards us within two seconds, or cannot.
    meeting: float = 9.0
    hopeless: float = 4.0  # the same, where the NATs are of kinds that hardly ever meet
    # After a failure: 1 s, doubling, at most 30 s; packets meanwhile are answered at once.
    backoff_first: float = 1.0
    backoff_cap: float = 30.0
    hint_interval: float = 10.0  # an unknown SPI (unauthenticated) starts an attempt this often

    # Packets that wait for a tunnel.
    queue_packets: int = 64
    queue_octets: int = 128 * 1024
    queues_packets: int = 512
    queues_octets: int = 1024 * 1024
    queue_wait: float = 30.0  # a packet that waited longer is of no use to its application
    errors_per_second: int = 20  # ICMPv6 errors, RFC 4443 §2.4(f)
    # A packet that comes although its flow is set left the pump just before; more of them than
    # this a second would mean a loop.
    late_per_second: int = 1024

    # Path MTU: of the device, and the numbers of the search.
    mtu: int = 1400
    pmtu: PmtuSettings = field(default_factory=PmtuSettings)
    too_bigs_per_second: int = 100  # ICMPv6 Packet Too Big; Linux itself has a bucket like it

    # Peers and those who wait for them.
    peers: int = 1024  # 20 KiB each (decision 0021)
    waiters: int = 64
    wait: float = 60.0

    # Peers whose host id the zone must confirm: asked anew while it says something else, since a
    # host may reach us faster than its records do.
    asks: int = 64
    ask_retries: tuple[float, ...] = (0.5, 1.0, 2.0)
    ask_wait: float = 20.0

    # A new source of authenticated packets is proven by an exchange with it; see tunnel.following.
    proof_wait: float = 3.0
    proof_tries: int = 5  # with pauses that double, since the network may be worst just then
    follow_interval: float = 1.0
    # A peer that says nothing to what we send is asked after so long, sooner if its packets came in
    # numbers before; after twice as long each time that an answer came and no packet. Asked where
    # it was, it answers within a round trip, or is looked for elsewhere, again and again.
    silence: float = 2.0
    abrupt: float = 0.6
    silence_cap: float = 16.0
    no_answer: float = 0.6
    # The same two, at least, where a home agent stands ready: together just less than what TCP
    # waits until it sends a lost segment for the second time (RFC 6298 §5.5 after 200 ms).
    hasty: float = 0.2
    search_again: float = 3.0  # between two looks elsewhere

    quiet: float = 10.0  # so long without a packet of the peer, the zone's word is tried

    # Certificates. Between two looks into the zone's inbox: while an invitation is open, else.
    inbox_open: float = 1.0
    inbox: float = 30.0
    renewal_poll: float = 60.0  # a third of a certificate's life is left: there is time
    answer_kept: float = 3600.0  # for its asker to fetch it
    recheck: float = 3600.0  # standing SAs: has a peer's certificate expired?

    # Home agents. Labels in order of preference; None: those of the account that offer to relay.
    home_agent: HomeAgentSettings | None = None  # what we are ourselves
    home_agents: tuple[str, ...] | None = None
    registrations: int = 2  # one, and one for the day on which it fails
    # The direct way has so long before the one through a home agent is tried besides: a peer comes
    # towards us within two seconds, or cannot.
    relay_after: float = 2.0
    # One of which nothing is heard is asked, and given up; one that we need is missed sooner.
    agent_check: float = 30.0
    agent_gone: float = 40.0

    keepalive: float = 20.0  # RFC 3948 §4; until it is known that the NAT remembers longer
    keepalive_longest: float = 290.0  # RFC 4787 REQ-5 recommends five minutes to NATs
    # What the outside sees of us is asked again so often at least: a router that comes back with
    # another address tells nobody.
    outside_longest: float = 60.0
    ping_wait: float = 5.0
    farewell: float = 3.0  # for DELETEs and the withdrawal, at the end
