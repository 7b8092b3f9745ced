# UDP to TUN: fastpath/reference/datapath.py's inbound half, in batches.

from fastpath._core cimport Core
from fastpath._merge cimport Merger
from fastpath._receiver cimport Receiver

cdef struct InboundWorker:
    Core *core
    Receiver *receiver
    Merger *merger

cdef InboundWorker *inbound_new(Core *core) except NULL
cdef void inbound_free(InboundWorker *worker) noexcept nogil
cdef void inbound_run(InboundWorker *worker) noexcept nogil
