# The AEADs of ESP behind one small table of calls (RFC 4106, RFC 7634).
#
# nonce: salt 4 | IV 8. A tag of 16 octets stands behind the ciphertext. `octets` never counts it.
# Source and target are the same place or do not overlap.

from libc.stdint cimport uint8_t

cdef enum:
    AES128GCM16 = 0
    AES256GCM16 = 1
    CHACHA20POLY1305 = 2

cdef enum:
    TAG_OCTETS = 16
    SALT_OCTETS = 4
    IV_OCTETS = 8

ctypedef int (*Crypt)(
    void *state, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
    const uint8_t *source, size_t octets, uint8_t *target,
) noexcept nogil

cdef struct Backend:
    void *self
    void *(*make)(void *self, int suite, const uint8_t *key, int sealing) noexcept nogil
    Crypt seal  # writes octets + 16
    Crypt open  # 1 when the tag verifies; else the target holds rubbish that must not be used
    void (*free)(void *state) noexcept nogil  # wipes

cdef struct Aead:
    const Backend *backend
    void *state
    uint8_t salt[SALT_OCTETS]

cdef int aead_init(Aead *aead, str backend, object suite, bytes key, bint sealing) except -1
cdef void aead_clear(Aead *aead) noexcept nogil
