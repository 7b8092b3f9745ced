"""HOW FAST: everything is measured side by side, in one run, and reported as ratios.

Machines are noisy and differ; an absolute figure of one run says little beside one of another.
So each measurement runs the contenders in turns (rounds), takes medians, and divides by what
the bare thing does in the same run: a veth link without any tunnel, or one call of the library.

``make bench`` is all of it that fits into a quarter of an hour: crypto, micro, tcp, pps, latency.

::

    python -m bench crypto      seal and open, ns and Gbit/s: each engine and AEAD, the bare call
    python -m bench tcp         one stream each way, four streams, CPU-seconds per GB
    python -m bench pps         64-octet UDP: delivered at overload, lost at paced rates
    python -m bench latency     ping, idle and under load
    python -m bench scale       one busy peer of many, memory of an idle one
    python -m bench handshakes  IKE handshakes a second and what each costs, beside strongSwan
    python -m bench flood       20,000 strangers a second, and one honest peer among them
    python -m bench micro       instructions of seal and open, the seal beside the bare library call
    python -m bench soak        ten minutes of everything with rekeys: what is lost, what grows
    python -m bench roam        moves and router restarts behind NATs: how long nothing arrives
    python -m bench idle        octets and wake-ups of a tunnel that nobody uses
    python -m bench plot        draws the saved results

``--rounds``, ``--seconds``, ``--peers``, ``--link``; ``--json`` for programs, ``--save`` to keep.

``machine`` describes where it ran, ``report`` prints and saves. What goes through a tunnel:
``network`` plans it, ``turns`` takes the contenders in turns, ``pair`` is two namespaces and a veth
link between them, ``peers`` holds one small file for each contender (one that is not installed says
so and is left out), ``udp`` is the sender and receiver of small packets, ``cost`` counts processor
time and memory, ``verdict`` holds the bounds that were set for us, each with what was measured.
``peers.hosts`` is ourselves as we ship; ``pump_end`` is a pump with fixed SAs and no IKE, for what
no configuration offers.
"""
