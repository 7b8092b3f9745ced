"""Where the node meets the operating system; nothing in here decides anything of the protocols.

``host.py`` joins the parts, ``driver.py`` carries out the node's commands and tells it what
happened, ``making.py`` says what a node is made from. They stand around these:

- packets: ``device`` (TUN) with ``routes`` and ``privilege`` over ``capability``, ``sockets`` (UDP)
  with ``sources``, ``fragments`` and ``offloads``; ``portable_pump`` where the native one cannot
  run, ``translation`` for networks of IPv6 alone, ``strangers``, who wait for their turn;
- our network: ``network`` says where we stand and what is published of it, from ``changes``,
  ``outer``, ``netlink`` over ``rtnetlink``, and ``surveyor``;
- the zone and the local network: ``zone``, ``nearby``, ``resolved``;
- who we are, on disk: ``identity``, ``papers``, ``services``, written by ``keeping``;
- who asks: ``control`` (the socket of the command line), ``requests``; a rendezvous: ``showing``;
- what happened, to be played again: ``recording``, ``replaying``.

``lab/`` builds whole networks on one machine, for the demo, the tests and the benchmarks.
"""
