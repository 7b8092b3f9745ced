"""IKEv2 (RFC 7296) as pure machines: two hosts prove who they are and agree on ESP keys.

Words. An **IKE SA** is a protected conversation between two hosts, known by one SPI of each. In
it they agree on **children** (CHILD_SAs): pairs of ESP SAs, each bound to two host ids. Whoever
began the IKE SA is its *initiator* for ever; whoever sends a request is the initiator of that
*exchange*. Every exchange is one request and one answer::

    initiator                                    responder
       |  IKE_SA_INIT  SA KE N            ──>       |   sa_init.py     (cookie.py, groups.py)
       |               <──            SA KE N       |
       |  IKE_INTERMEDIATE  KE  ML-KEM    ──>       |   intermediate.py   (if both sides know it)
       |               <──                KE        |
       |  IKE_AUTH     IDi AUTH SA TS     ──>       |   ike_auth.py    (auth.py)
       |                                       AskPeer: may this name have this host id?
       |               <──      IDr AUTH SA TS      |
       |  ============= the child carries ESP ============= |
       |  CREATE_CHILD_SA  rekey, new     <──>      |   create_child.py, rekey_ike.py
       |  IKE_FOLLOWUP_KE   KE  ML-KEM    <──>      |   followup.py
       |  INFORMATIONAL    alive?, Delete <──>      |   informational.py, mobike.py

A datagram's way in: ``endpoint.py`` finds the IKE SA by our own SPI; ``dispatch.py`` answers
repeats from the window, opens the SK payload (``cipher.py``), checks the message id, reads the
payloads (``payloads.py`` and the codecs below it) and hands them to the exchange; the exchange
changes the SA (``sa.py``, ``child.py``) and says what to answer. What it wants done in the world
goes out as commands (``types.py``), in the order in which they must happen: ready to receive
first, then the answer, then sending.

The way out: an exchange of ours is a *task* on its SA. ``window.py`` is the one owner of message
ids: it lets one task ask at a time and sends its request again until the answer comes.
``lifetimes.py`` does what time makes due. ``convergence.py`` keeps one IKE SA per peer, when a
peer restarts and when both sides begin at once.

Who can do what to us? A stranger makes us keep a little state for 30 s, at most so often, and
none once a COOKIE is due. A message that does not verify changes a counter. An unprotected error
makes us look, never act. A peer that is proven gets what its owner's policy says.

Extensions, each in a file of its own: ML-KEM after the first key exchange (``additional.py``,
``intermediate.py``, ``intauth.py``, ``followup.py``), fragments (``fragments.py``), post-quantum
pre-shared keys (``ppk.py``), moves (``mobike.py``). A peer that knows none of them sees an IKEv2
of 2014.
"""
