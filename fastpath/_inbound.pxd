# UDP to TUN: fastpath/reference/datapath.py's inbound half, in batches.

from libc.stdint cimport uint8_t

from fastpath._core cimport Core
from fastpath._receiver cimport Receiver

cdef enum:
    PACKET_ROOM = 40 + 65536  # a header rebuilt in transport mode, and what a datagram can hold

cdef struct InboundWorker:
    Core *core
    Receiver *receiver
    uint8_t *room

cdef InboundWorker *inbound_new(Core *core) except NULL
cdef void inbound_free(InboundWorker *worker) noexcept nogil
cdef void inbound_run(InboundWorker *worker) noexcept nogil
