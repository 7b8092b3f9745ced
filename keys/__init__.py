"""Who we are: a host's lasting address, its account's secret, and the keys made from it.

A *host* has a *host id* (:mod:`keys.hostid`), a ULA that stays the same while the machine is on,
wherever it goes; SAs and TCP connections are bound to it and never to an endpoint. Its last eight
octets, the EUI-64, also make the *target name* under which the zone says where the host is now.

Three secrets are kept apart. An *account* (:mod:`keys.account`) is a domain plus one secret of 32
random octets, which every host has. Nothing uses that secret itself: HKDF makes one key for each
purpose, so that none of them tells another. Each host's own key never leaves it. The key of the
account's CA (:mod:`keys.ca`) is on *issuers* only and says which key may use which name.

::

    account secret ──HKDF──┬── TSIG key          signs every zone message
                           ├── invitation key    one per invitation: id and expiry are its input
                           └── pre-shared key    IKE between hosts, if the account asks for it
    CA key ──signs──┬── host certificates        IKE between hosts: their own keys sign
                    └── revocation list
           ──HKDF───── join key                  one per invitation: proof of a signing request

An *invitation* (:mod:`keys.invitation`) is the text that brings another host in: it carries an
invitation key, never the account secret, and the rendezvous lets it be used once. With a join key
in it, the newcomer's signing request (:mod:`keys.signing`) is granted by an issuer
(:mod:`keys.issuer`).

:mod:`keys.store` is the only file here that touches the operating system: secret files, the boot
id, the host id's file. :mod:`keys.ike` agrees on the keys of each SA. All else is pure: clocks and
entropy are arguments. The room imports nothing of ours.
"""
