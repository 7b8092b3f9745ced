# A hash table from 16 octets to a pointer: SPIs and host ids (DESIGN §4, "Native engine").
#
# Linear probing, at most half full, no tombstones. Readers hold the lock of its owner; a writer,
# too, but not while it makes a bigger table, which only writers must be kept from: 10,000 entries
# would hold up packets for milliseconds.

from libc.stdint cimport uint64_t

cdef struct Slot:
    uint64_t high
    uint64_t low
    void *value  # NULL: empty

cdef struct Table:
    Slot *slots
    size_t mask
    size_t used
    uint64_t seed

cdef int table_init(Table *table, uint64_t seed) except -1
cdef void table_clear(Table *table) noexcept nogil
# Room for one more: in `bigger`, a copy to be taken over by table_take, or in the table itself, and
# then bigger.slots is NULL. False without memory.
cdef int table_reserve(const Table *table, Table *bigger) noexcept nogil
# Takes over a copy; the slots that are to be freed.
cdef Slot *table_take(Table *table, const Table *bigger) noexcept nogil
cdef void *table_put(Table *table, uint64_t high, uint64_t low, void *value) noexcept nogil
cdef void *table_remove(Table *table, uint64_t high, uint64_t low) noexcept nogil


cdef inline size_t table_place(const Table *table, uint64_t high, uint64_t low) noexcept nogil:
    # A peer chooses its SPIs; the seed keeps it from choosing collisions.
    cdef uint64_t mixed = (high ^ table.seed) * <uint64_t>0x9E3779B97F4A7C15
    mixed = ((mixed >> 32) ^ mixed ^ low) * <uint64_t>0xC2B2AE3D27D4EB4F
    return <size_t>(mixed ^ (mixed >> 29)) & table.mask


cdef inline void *table_get(const Table *table, uint64_t high, uint64_t low) noexcept nogil:
    cdef size_t place = table_place(table, high, low)
    cdef const Slot *slot = &table.slots[place]
    while slot.value != NULL:
        if slot.high == high and slot.low == low:
            return slot.value
        place = (place + 1) & table.mask
        slot = &table.slots[place]
    return NULL
