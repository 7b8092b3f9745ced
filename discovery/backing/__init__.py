"""The zone on somebody else's server: BIND, Knot or PowerDNS hold it, we are its front.

Apple's dnsextd was such a front. The primary server keeps the truth, its file and its secondaries;
this side adds what it lacks: update leases, long-lived queries and DNS Push.

:mod:`~discovery.backing.reader` reads zone transfers (RFC 5936, RFC 1995) into changes;
:mod:`~discovery.backing.primary` is the conversation with the primary: it mirrors the zone, passes
UPDATEs on, and tells when the primary is gone and when it is back.
"""
