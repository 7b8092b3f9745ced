# UDP to TUN: fastpath/reference/datapath.py's inbound half, in batches.

from fastpath._core cimport InboundEntry, Lane
from fastpath._merge cimport Merger
from fastpath._outbound cimport OutboundWorker
from fastpath._receiver cimport Receiver

cdef struct InboundWorker:
    Lane *lane
    Receiver *receiver
    Merger *merger
    InboundEntry *held  # the SA that only we may open with, until the end of the batch
    OutboundWorker *outbound  # for TUN, while it is our turn
    bint our_turn
    size_t packets  # received in this round, and their octets
    size_t octets

cdef InboundWorker *inbound_new(Lane *lane, OutboundWorker *outbound) except NULL
cdef void inbound_free(InboundWorker *worker) noexcept nogil
cdef void inbound_run(InboundWorker *worker) noexcept nogil
