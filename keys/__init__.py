"""Who we are: a host's lasting address, its account's secret, and the keys made from it.

A *host* has a *host id* (:mod:`keys.hostid`), a ULA that stays the same while the machine is on,
wherever it goes; SAs and TCP connections are bound to it and never to an endpoint. Its last eight
octets, the EUI-64, also make the *target name* under which the zone says where the host is now.

An *account* (:mod:`keys.account`) is a domain plus one secret of 32 random octets. Nothing uses
that secret itself: HKDF makes one key for each purpose, so that none of them tells another.

::

    account secret ──HKDF──┬── TSIG key          signs every zone message
                           ├── pre-shared key    authenticates IKE between the account's hosts
                           └── invitation key    one per invitation: id and expiry are its input

An *invitation* (:mod:`keys.invitation`) is the text that brings another host in: it carries an
invitation key, never the account secret, and the rendezvous lets it be used once.

:mod:`keys.store` is the only file here that touches the operating system: secret files, the boot
id, the host id's file. :mod:`keys.ike` agrees on the keys of each SA. All else is pure: clocks and
entropy are arguments. The room imports nothing of ours.
"""
