"""HOW FAST: everything is measured side by side, in one run, and reported as ratios.

Machines are noisy and differ; an absolute figure of one run says little beside one of another.
So each measurement runs the contenders in turns (rounds), takes medians, and divides by what
the bare thing does in the same run: a veth link without any tunnel, or one call of the library.

::

    python -m bench crypto      seal and open, ns and Gbit/s: each engine and AEAD, the bare call
    python -m bench tcp         one TCP stream each way, CPU-seconds per GB
    python -m bench pps         small UDP packets: delivered at overload and at paced rates
    python -m bench latency     ping, idle and under load
    python -m bench scale       one busy peer of many, memory of an idle one
    python -m bench handshakes  IKE handshakes a second and what each costs, beside strongSwan
    python -m bench micro       instructions of seal and open, the seal beside the bare library call
    python -m bench soak        ten minutes of everything with rekeys: what is lost, what grows
    python -m bench plot        draws the saved results

``--rounds``, ``--seconds``, ``--peers``, ``--link``; ``--json`` for programs, ``--save`` to keep.

``machine`` describes where it ran, ``report`` prints and saves, ``pair`` is two namespaces and
a veth link between them, ``peers`` holds one small file for each contender (one that is not
installed says so and is left out), ``pump_end`` is one host of ours with fixed SAs and no IKE.
"""
