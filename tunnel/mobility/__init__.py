"""Where hosts are, and the proof of it: Mobile IPv6 signalling after draft-ebalard-mext-ipsec-ro.

Its words in ours: the *home address* (HoA) is a host id, the *care-of address* (CoA) the endpoint
in use. Messages are Mobility Headers (RFC 6275, next header 135) between two host ids, always
inside ESP; what a message says of its sender is compared with the endpoint it came from::

    mobile                                   correspondent
      BU, "I am at X" ── from X ───────────────>  accepts traffic from X at once (I16)
      <────────────────────── AOTC, nonce, to X ──  sends nothing else to X yet
      <─── by the home agent, AOTC, another nonce ──  for the home address (I21), at the same time
      AOTR, the nonce ── from X ────────────────>  X is proven
      AOTR, the other one ── by the home agent ─>  the home address, too: traffic goes to X now
      <────────────────────────────────── BA, to X

The home address is proven once in a mobility SA; a binding without is not made (I22). With a proof
of X of before it is BU and BA alone (I19); AOTO asks for one before it is needed (I20).
Towards the home agent there is no test: it is BU with H, and BA (I29, I53).

:mod:`~tunnel.mobility.header` and :mod:`~tunnel.mobility.options` are the octets,
:mod:`~tunnel.mobility.mobile` the one who says where it is, :mod:`~tunnel.mobility.correspondent`
the one who wants it proven, :mod:`~tunnel.mobility.home` the home agent,
:mod:`~tunnel.mobility.proofs` what was proven, :mod:`~tunnel.mobility.machine` all of them behind
one door, :mod:`~tunnel.mobility.rules` what follows for packets, in the draft's syntax (I36).
Everything here is pure: messages and ``now`` in, :mod:`~tunnel.mobility.commands` out.
"""
