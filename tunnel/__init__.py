"""What we promise: a host that its peers reach by name, from wherever they are.

This room composes the three leaves (``keys``, ``fastpath``, ``discovery``), which know nothing of
each other. Its words are those of the whole project: a **host** has a **host id** (a ULA) and a
name in its account's **zone**; another host, as this one knows it, is a **peer**; packets reach a
peer over a **path**, ``direct`` to the peer's **endpoint** or by ``relay`` through a **home
agent**, sealed by a pair of **SAs**, which are bound to two host ids and never to an endpoint.

::

      zone ──────> discovery.client ──┐                        ┌──> status, ping, lookup
                                      v                        │
      IKE <──────> keys.ike ──────> Node ──── commands ────> Host ──> device, routes, sockets
                                      ^   (commands.py)        │
      ping6 desk ──> acquire ─────────┴────── events ──────────┴──> fastpath pump

*The node decides, the host does.* :class:`tunnel.node.Node` is a pure machine: it takes events
(a packet without a flow, a datagram that is not ESP, a zone message, a timer) with ``now``, and
answers with a list of commands, a closed vocabulary (``commands.py``). :mod:`tunnel.io` carries
them out on a real machine; the simulator of the tests carries them out in memory, on a virtual
clock, which is why a day of rekeying takes a second there.

What happens when somebody types ``ssh desk.alice.members.example``: the stub resolver holds the
question and asks the node to *reach* ``desk``; the node asks the zone for its host id and
endpoint, tells IKE to connect, and installs the SAs that come of it, inbound first; the host adds
the one /128 route; the question is answered. From then on the pump moves packets without us, and
the node watches: liveness, rekeys, an endpoint that moves. If any step fails, the question fails
too, with the reason kept for ``status``: nothing is ever sent in clear because a tunnel is missing.

Where to read on: ``config/`` is what a person may say, ``cli/`` how a person asks, ``io/`` how it
is done; all else is what is decided, by ``node.py`` and its parts, which ``parts.py`` makes:

- what the parts share: ``core``, ``peers`` (the table), ``commands`` and ``answers``, ``settings``,
  ``pending``; ``border`` is where the engine's words begin;
- a tunnel, from its first packet to its end: ``attempts``, ``candidates``, ``calls``, ``asks``,
  ``flows``, ``pings``, ``credentials``, ``farewell``;
- where a peer is now: ``following`` (it moved), ``silence`` (it says nothing);
- by a home agent, and directly again: ``relaying`` with ``relays``, ``home_agents``, ``signals``,
  ``optimising`` and ``early``, over the machines of ``mobility/``;
- our own place: ``outside``, ``elsewhere`` (of our other networks), ``network_kind``,
  ``keepalives`` with ``patience``;
- how large a packet may be: ``path_mtus`` over ``pmtu``; ``icmpv6`` tells applications;
- the zone: ``directory``, ``remembered``, ``services``, ``signing``;
- what is shown, and played again: ``status``, ``journal``, ``explaining``, ``recording``;
  ``spelling`` reads what people write, ``remedies`` tells them what to do.
"""
