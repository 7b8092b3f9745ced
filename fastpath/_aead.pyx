# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) by libraries of the distribution.

Two backends: Intel's ipsec-mb where the build found it and the CPU has AES instructions, and
OpenSSL's libcrypto everywhere. One :class:`Aead` is keyed once, for one direction of one SA.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from fastpath.types import Suite

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG
    const EVP_CIPHER *EVP_aes_128_gcm()
    const EVP_CIPHER *EVP_aes_256_gcm()
    const EVP_CIPHER *EVP_chacha20_poly1305()
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *, int, int, void *)
    int EVP_CipherInit_ex(
        EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *, int)
    int EVP_CipherUpdate(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int)
    int EVP_CipherFinal_ex(EVP_CIPHER_CTX *, uint8_t *, int *)

cdef extern from "<openssl/crypto.h>" nogil:
    const char *OpenSSL_version(int)
    int OPENSSL_VERSION_STRING

cdef extern from "ipsec_mb.h" nogil:
    void *imb_manager(int arch)
    const char *imb_version()
    const char *imb_arch_name(const void *manager)
    void *imb_make(void *manager, int suite, const uint8_t *key, int sealing) noexcept
    void imb_free(void *state) noexcept
    int imb_seal(
        void *, const uint8_t *, const uint8_t *, size_t, const uint8_t *, size_t, uint8_t *
    ) noexcept
    int imb_open(
        void *, const uint8_t *, const uint8_t *, size_t, const uint8_t *, size_t, uint8_t *
    ) noexcept

cdef extern from *:
    const char *AUTOTUNNEL_BUILD

BUILD = AUTOTUNNEL_BUILD.decode()

# --- OpenSSL: the context is keyed once and gets a new IV for every packet ---------------------


cdef void *ossl_make(void *self, int suite, const uint8_t *key, int sealing) noexcept nogil:
    cdef const EVP_CIPHER *cipher
    cdef EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new()
    if suite == AES128GCM16:
        cipher = EVP_aes_128_gcm()
    elif suite == AES256GCM16:
        cipher = EVP_aes_256_gcm()
    else:
        cipher = EVP_chacha20_poly1305()
    if context != NULL and EVP_CipherInit_ex(context, cipher, NULL, key, NULL, sealing) != 1:
        EVP_CIPHER_CTX_free(context)
        context = NULL
    return context


cdef int ossl_run(
    EVP_CIPHER_CTX *context, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
    const uint8_t *source, size_t octets, uint8_t *target, int sealing,
) noexcept nogil:
    cdef int n = 0
    return (
        EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, sealing) == 1
        and EVP_CipherUpdate(context, NULL, &n, aad, <int>aad_octets) == 1
        and EVP_CipherUpdate(context, target, &n, source, <int>octets) == 1
    )


cdef int ossl_seal(
    void *state, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
    const uint8_t *source, size_t octets, uint8_t *target,
) noexcept nogil:
    cdef EVP_CIPHER_CTX *context = <EVP_CIPHER_CTX *>state
    cdef int n = 0
    return (
        ossl_run(context, nonce, aad, aad_octets, source, octets, target, 1)
        and EVP_CipherFinal_ex(context, target + octets, &n) == 1
        and EVP_CIPHER_CTX_ctrl(
            context, EVP_CTRL_AEAD_GET_TAG, TAG_OCTETS, target + octets) == 1
    )


cdef int ossl_open(
    void *state, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
    const uint8_t *source, size_t octets, uint8_t *target,
) noexcept nogil:
    cdef EVP_CIPHER_CTX *context = <EVP_CIPHER_CTX *>state
    cdef int n = 0
    return (
        ossl_run(context, nonce, aad, aad_octets, source, octets, target, 0)
        and EVP_CIPHER_CTX_ctrl(
            context, EVP_CTRL_AEAD_SET_TAG, TAG_OCTETS, <void *>(source + octets)) == 1
        and EVP_CipherFinal_ex(context, target + octets, &n) == 1  # compares in constant time
    )


cdef void ossl_free(void *state) noexcept nogil:
    EVP_CIPHER_CTX_free(<EVP_CIPHER_CTX *>state)  # cleanses its key


# --- The backends, by name ----------------------------------------------------------------------

cdef enum:
    BACKENDS = 4
    ARCH_SSE = 2  # IMB_ARCH_*
    ARCH_AVX2 = 4

cdef Backend _backends[BACKENDS]
_names = {}  # name -> (index, what to show); the first is the best


cdef void _add(int index, str name, str shown):
    _names[name] = (index, shown)


cdef void _add_ipsec_mb(int index, str name, int arch):
    cdef void *manager = imb_manager(arch)
    if manager == NULL:
        return
    _backends[index] = Backend(manager, imb_make, imb_seal, imb_open, imb_free)
    version = imb_version().decode()
    _add(index, name, f"ipsec-mb {version} ({imb_arch_name(manager).decode()})")


_add_ipsec_mb(0, "ipsec-mb", 0)
_backends[1] = Backend(NULL, ossl_make, ossl_seal, ossl_open, ossl_free)
_add(1, "openssl", f"OpenSSL {OpenSSL_version(OPENSSL_VERSION_STRING).decode()}")
# The same library as on older CPUs: to be measured, and held equal to the best by the tests. Made
# when someone asks, since the library's test of itself then loads 2 MiB that a host never uses.
_older = {"ipsec-mb/avx2": (2, ARCH_AVX2), "ipsec-mb/sse": (3, ARCH_SSE)}


def _add_older():
    while _older:
        name, (index, arch) = next(iter(_older.items()))
        _add_ipsec_mb(index, name, arch)
        del _older[name]


def backends():
    """Names that ``aead=`` takes, best first, each with what ``status`` shows for it."""
    _add_older()
    return {name: shown for name, (_, shown) in _names.items()}


def describe(name):
    """What ``status`` shows for backend ``name``; :class:`ValueError` when it is not there."""
    return _find(name)[1]


cdef object _find(str name):
    if name == "auto":
        return next(iter(_names.values()))
    if name not in _names:
        _add_older()
    if name not in _names:
        raise ValueError(
            f"AEAD backend {name!r} is not there; this build on this CPU has: "
            + ", ".join(("auto", *_names))
        )
    return _names[name]


cdef int aead_init(Aead *aead, str backend, object suite, bytes key, bint sealing) except -1:
    """Keys ``aead``. ``key`` is the cipher key followed by the salt (RFC 4106 §8.1)."""
    suite = Suite(suite)
    cdef int index = _find(backend)[0]
    cdef int number = list(Suite).index(suite)
    cdef size_t octets = suite.key_octets
    if <size_t>len(key) != octets + SALT_OCTETS:
        raise ValueError(
            f"{suite} needs {octets + SALT_OCTETS} octets of key and salt, not {len(key)}")
    cdef const uint8_t *place = <const uint8_t *>key
    aead.backend = &_backends[index]
    memcpy(aead.salt, place + octets, SALT_OCTETS)
    aead.state = aead.backend.make(aead.backend.self, number, place, sealing)
    if aead.state == NULL:
        raise MemoryError(f"AEAD backend {backend} cannot make a {suite} context")
    return 0


cdef void aead_clear(Aead *aead) noexcept nogil:
    """Wipes the key; harmless on an ``aead`` of zeros."""
    if aead.state != NULL:
        aead.backend.free(aead.state)
    memset(aead, 0, sizeof(Aead))


assert [suite.value for suite in Suite] == ["aes128gcm16", "aes256gcm16", "chacha20poly1305"]
