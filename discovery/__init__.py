"""Where peers are: what a host publishes, how it finds the others, and who keeps it.

A DNS zone that the person owns is the whole control plane. A *host* publishes its *records*
(:mod:`discovery.records`): its host id, which stays, and its *endpoint*, which changes. Whoever
wants to reach it asks for both (:mod:`discovery.lookup`, B48). Every question, update and answer is
signed with the account's TSIG key (:mod:`discovery.tsig`); unsigned ones learn the way to the
*rendezvous*, the server that holds the zone, and no more.

::

      node                                                          rendezvous
       │ publish, lookup                                             ▲      │
       ▼                                                             │      ▼
    client ── registration, lookup ── exchange ── io_transport ── io_serve  zone ── update, answers
                (pure machines)       (TSIG)        io_link                 │
                                                                          store ── io_store

The host's side: :mod:`~discovery.client` is the machine, :mod:`~discovery.exchange` one signed
question and the judgement of its answer, :mod:`~discovery.pinning` the proof of the rendezvous' TLS
key, :mod:`~discovery.redeem` how an invitation becomes the account secret. It hears of changes by
:mod:`~discovery.subscription`, in three steps (push, long-lived queries, polls) that all learn into
:mod:`~discovery.standing`; :mod:`~discovery.feed` makes of that the hosts that it watches. Where
there is no rendezvous, :mod:`~discovery.nearby` asks the local network.

The rendezvous' side: :mod:`~discovery.zone` is the machine, :mod:`~discovery.update` the rules of
RFC 2136, :mod:`~discovery.answers` who may learn what, :mod:`~discovery.store` what it remembers.
Who asked to be told of changes is told: :mod:`~discovery.llq_server` (long-lived queries) and
:mod:`~discovery.push_server` (DNS Push), under :mod:`~discovery.subscriptions`.

For applications there is the stub resolver (:mod:`~discovery.stub`): it answers the account's names
when the tunnel stands, and forwards the rest.

All files, by what they are for:

- words: ``types``, ``records``, ``services``, ``texts`` (our own octets in the zone), ``rcodes``;
- on the wire: ``message``, ``tsig`` with ``tsig_stream``, ``lease``, ``llq`` and ``llq_messages``,
  ``dso`` and ``push``, ``zonefile``, ``transfer``;
- the host: ``client`` over ``exchange``, ``registration``, ``lookup``, ``browse``, ``finding``
  (whom to ask), ``pinning``, ``redeem``; ``subscription`` with ``subscription_push``,
  ``subscription_llq`` and ``subscription_poll``, ``standing``, ``feed``; ``nearby``; ``stub`` with
  ``forwarding``;
- its I/O: ``io_transport`` over ``io_link`` and ``io_connect``, ``io_redeem``, ``io_nearby``,
  ``io_stub`` with ``io_forward``; of ``nat/`` ``io_nat``, ``io_upnp``, ``io_survey`` and
  ``io_network``;
- the rendezvous: ``zone``, ``job`` (one message on its way), ``held`` and ``content`` (a zone in
  memory), ``bootstrap`` (its own records), ``answers``, ``update``, ``duplicates``, ``batch``,
  ``store``, ``invitations``, ``rates``, ``alarms``, ``ways``, ``subscriptions`` with ``llq_server``
  and ``push_server``, ``audit``, ``census``;
- its I/O: ``io_serve`` over ``io_listen``, ``io_unasked``, ``io_writer``, ``io_store``,
  ``io_state``, ``io_certificate``, ``io_stun``; of ``backing/``, where the zone is on another
  server, ``io_backing``.

Everything but ``io_*.py`` is pure: DNS messages are bytes, ``now`` is monotonic seconds and
``unix`` the wall clock, which only TSIG needs. The room imports nothing of ours.
"""
