# fastpath.types.Drop for C; _core.pyx asserts that both are the same.

cdef enum:
    MALFORMED = 1
    UNKNOWN_SPI = 2
    REPLAY = 3
    AUTHENTICATION = 4
    PADDING = 5
    SELECTOR = 6
    NO_FLOW = 7
    SEQUENCE_EXHAUSTED = 8
    DUMMY = 9
    KEEPALIVE = 10
    TUN_WRITE = 11
    UDP_SEND = 12
    QUEUE_FULL = 13
    TOO_BIG = 14
    FOREIGN_SOURCE = 15
    NOT_RELAYED = 16
    RELAY_LIMIT = 17
    DROPS = 18
