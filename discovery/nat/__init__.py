"""How a host finds out, and opens, the way in through the NATs before it.

One file per protocol, each a pure machine that is fed datagrams and time and returns commands
(:mod:`discovery.nat.types`): :mod:`~discovery.nat.natpmp` (RFC 6886), :mod:`~discovery.nat.pcp`
(RFC 6887), :mod:`~discovery.nat.upnp` (IGD 1 and 2), :mod:`~discovery.nat.stun` (RFC 8489).
Whoever runs them races them on every gateway and keeps the best answer; what the host publishes
is that mapping's external endpoint (RFC 6281 §4, B21–B33).
"""
