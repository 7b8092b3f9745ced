# UDP to TUN: fastpath/reference/datapath.py's inbound half, in batches.

from fastpath._core cimport Core
from fastpath._merge cimport Merger
from fastpath._outbound cimport OutboundWorker
from fastpath._receiver cimport Receiver

cdef struct InboundWorker:
    Core *core
    Receiver *receiver
    Merger *merger
    OutboundWorker *outbound  # for TUN, while it is our turn
    bint our_turn
    size_t packets  # received in this round, and their octets
    size_t octets

cdef InboundWorker *inbound_new(Core *core, OutboundWorker *outbound) except NULL
cdef void inbound_free(InboundWorker *worker) noexcept nogil
cdef void inbound_run(InboundWorker *worker) noexcept nogil
