# UDP to TUN: fastpath/reference/datapath.py's inbound half, in batches.

from libc.stdint cimport uint8_t

from fastpath._core cimport InboundEntry, Lane, Relay
from fastpath._merge cimport Merger
from fastpath._outbound cimport OutboundWorker
from fastpath._receiver cimport Receiver
from fastpath._relay cimport Hop
from fastpath._sender cimport Sender

cdef struct InboundWorker:
    Lane *lane
    Receiver *receiver
    Merger *merger
    InboundEntry *held  # the SA that only we may open with, until the end of the batch
    InboundEntry *held_inside  # and the one whose packets came nested in its
    Sender *forwarded  # packets of others on their way; what is nested is opened into its room
    const Relay *relay  # of the packet before in this batch, and its way
    uint8_t relay_id[16]
    Hop hop
    OutboundWorker *outbound  # for TUN, while it is our turn
    bint our_turn
    size_t packets  # received in this round, and their octets
    size_t octets

cdef InboundWorker *inbound_new(Lane *lane, OutboundWorker *outbound) except NULL
cdef void inbound_free(InboundWorker *worker) noexcept nogil
cdef void inbound_run(InboundWorker *worker) noexcept nogil
