"""The law: what every engine must do, in plain Python over ``cryptography``.

Short and readable before fast. It is the oracle of the native engine in tests, the data path
of the simulator, and the portable engine where the native one cannot be built. Read in the
order a packet meets it: ``classify``, ``replay``, ``aead``, ``esp``, ``inner``, ``relay``,
``tables``, ``datapath``.
"""
