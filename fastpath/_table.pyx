# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hash table of the native engine; see ``_table.pxd``."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    FIRST_SLOTS = 16


cdef int table_init(Table *table, uint64_t seed) except -1:
    table.slots = <Slot *>calloc(FIRST_SLOTS, sizeof(Slot))
    if table.slots == NULL:
        raise MemoryError
    table.mask = FIRST_SLOTS - 1
    table.used = 0
    table.seed = seed
    return 0


cdef void table_clear(Table *table) noexcept nogil:
    """Frees the slots; what they point to is the owner's."""
    free(table.slots)
    table.slots = NULL


cdef int table_reserve(const Table *table, Table *bigger) noexcept nogil:
    cdef size_t place
    bigger.slots = NULL
    if (table.used + 1) * 2 <= table.mask + 1:
        return True
    bigger.mask = table.mask * 2 + 1
    bigger.seed = table.seed
    bigger.used = 0
    bigger.slots = <Slot *>calloc(bigger.mask + 1, sizeof(Slot))
    if bigger.slots == NULL:
        return False
    for place in range(table.mask + 1):
        if table.slots[place].value != NULL:
            table_put(bigger, table.slots[place].high, table.slots[place].low,
                      table.slots[place].value)
    return True


cdef Slot *table_take(Table *table, const Table *bigger) noexcept nogil:
    cdef Slot *before = table.slots
    table[0] = bigger[0]
    return before


cdef void *table_put(Table *table, uint64_t high, uint64_t low, void *value) noexcept nogil:
    """Sets a key after :func:`table_reserve`; returns what stood there, or ``NULL``."""
    cdef size_t place = table_place(table, high, low)
    cdef void *before
    while table.slots[place].value != NULL:
        if table.slots[place].high == high and table.slots[place].low == low:
            before = table.slots[place].value
            table.slots[place].value = value
            return before
        place = (place + 1) & table.mask
    table.slots[place] = Slot(high, low, value)
    table.used += 1
    return NULL


cdef void *table_remove(Table *table, uint64_t high, uint64_t low) noexcept nogil:
    """Takes a key out and returns its value, or ``NULL``. Those behind it move up."""
    cdef size_t hole = table_place(table, high, low)
    cdef size_t place, home
    cdef void *removed
    while table.slots[hole].value != NULL:
        if table.slots[hole].high == high and table.slots[hole].low == low:
            break
        hole = (hole + 1) & table.mask
    removed = table.slots[hole].value
    if removed == NULL:
        return NULL
    table.used -= 1
    place = hole
    while True:
        table.slots[hole].value = NULL
        while True:
            place = (place + 1) & table.mask
            if table.slots[place].value == NULL:
                return removed
            home = table_place(table, table.slots[place].high, table.slots[place].low)
            # May it move into the hole? Not if its home lies behind the hole.
            if ((place - home) & table.mask) >= ((place - hole) & table.mask):
                break
        table.slots[hole] = table.slots[place]
        hole = place
