/* Intel's Multi-Buffer Crypto for IPsec, behind the four calls of fastpath/_aead.pxd.
 *
 * A header because the library's interface is C macros. Where setup.py does not find the library
 * (AUTOTUNNEL_IPSEC_MB is not defined), the same names say that there is no such backend.
 */
#ifndef AUTOTUNNEL_IPSEC_MB_H
#define AUTOTUNNEL_IPSEC_MB_H

#include <stddef.h>
#include <stdint.h>

#ifdef AUTOTUNNEL_IPSEC_MB

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* One keyed AEAD. The key tables' layout belongs to `manager`'s architecture. */
struct imb_state {
    struct gcm_key_data gcm; /* first: wants 64-octet alignment */
    const IMB_MGR *manager;
    aes_gcm_enc_dec_t encrypt, decrypt; /* NULL: ChaCha20-Poly1305 */
    uint8_t chacha_key[32];
};

/* A manager for `arch` (0 best there is, else IMB_ARCH_*), or NULL where CPU or library lack it.
 * Emulated AES (IMB_ARCH_NOAESNI) looks up tables by key octets, so it is refused. */
static void *imb_manager(int arch)
{
    IMB_MGR *manager = alloc_mb_mgr(0);
    IMB_ARCH best = IMB_ARCH_NONE;

    if (manager == NULL)
        return NULL;
    init_mb_mgr_auto(manager, &best);
    if (arch != 0 && best >= (IMB_ARCH)arch) {
        best = (IMB_ARCH)arch;
        if (arch == IMB_ARCH_SSE)
            init_mb_mgr_sse(manager);
        else if (arch == IMB_ARCH_AVX2)
            init_mb_mgr_avx2(manager);
    } else if (arch != 0) {
        best = IMB_ARCH_NONE;
    }
    if (best < IMB_ARCH_SSE || !(manager->features & IMB_FEATURE_AESNI) ||
        ((manager->features & IMB_FEATURE_SELF_TEST) &&
         !(manager->features & IMB_FEATURE_SELF_TEST_PASS))) {
        free_mb_mgr(manager);
        return NULL;
    }
    return manager;
}

static const char *imb_version(void) { return imb_get_version_str(); }

static const char *imb_arch_name(const void *manager)
{
    switch (((const IMB_MGR *)manager)->used_arch) {
    case IMB_ARCH_SSE: return "SSE";
    case IMB_ARCH_AVX: return "AVX";
    case IMB_ARCH_AVX2: return "AVX2";
    default: return "AVX512";
    }
}

static void *imb_make(void *manager_, int suite, const uint8_t *key, int sealing)
{
    const IMB_MGR *manager = manager_;
    const size_t size = (sizeof(struct imb_state) + 63) & ~(size_t)63;
    struct imb_state *state = aligned_alloc(64, size);

    (void)sealing;
    if (state == NULL)
        return NULL;
    memset(state, 0, size);
    state->manager = manager;
    if (suite == 0) {
        manager->gcm128_pre(key, &state->gcm);
        state->encrypt = manager->gcm128_enc;
        state->decrypt = manager->gcm128_dec;
    } else if (suite == 1) {
        manager->gcm256_pre(key, &state->gcm);
        state->encrypt = manager->gcm256_enc;
        state->decrypt = manager->gcm256_dec;
    } else {
        memcpy(state->chacha_key, key, sizeof state->chacha_key);
    }
    return state;
}

static void imb_free(void *state)
{
    if (state != NULL)
        OPENSSL_cleanse(state, sizeof(struct imb_state));
    free(state);
}

static int imb_seal(void *state_, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
                    const uint8_t *source, size_t octets, uint8_t *target)
{
    const struct imb_state *state = state_;
    struct chacha20_poly1305_context_data chacha;
    struct gcm_context_data gcm;

    if (state->encrypt != NULL) {
        state->encrypt(&state->gcm, &gcm, target, source, octets, nonce, aad, aad_octets,
                       target + octets, 16);
        return 1;
    }
    IMB_CHACHA20_POLY1305_INIT(state->manager, state->chacha_key, &chacha,
                               nonce, aad, aad_octets);
    IMB_CHACHA20_POLY1305_ENC_UPDATE(state->manager, state->chacha_key, &chacha,
                                     target, source, octets);
    IMB_CHACHA20_POLY1305_ENC_FINALIZE(state->manager, &chacha, target + octets, 16);
    OPENSSL_cleanse(&chacha, sizeof chacha); /* holds the one-time key */
    return 1;
}

static int imb_open(void *state_, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
                    const uint8_t *source, size_t octets, uint8_t *target)
{
    const struct imb_state *state = state_;
    struct chacha20_poly1305_context_data chacha;
    struct gcm_context_data gcm;
    uint8_t tag[16];

    if (state->decrypt != NULL) {
        state->decrypt(&state->gcm, &gcm, target, source, octets, nonce, aad, aad_octets, tag, 16);
    } else {
        IMB_CHACHA20_POLY1305_INIT(state->manager, state->chacha_key, &chacha,
                                   nonce, aad, aad_octets);
        IMB_CHACHA20_POLY1305_DEC_UPDATE(state->manager, state->chacha_key, &chacha,
                                         target, source, octets);
        IMB_CHACHA20_POLY1305_DEC_FINALIZE(state->manager, &chacha, tag, 16);
        OPENSSL_cleanse(&chacha, sizeof chacha);
    }
    return CRYPTO_memcmp(tag, source + octets, 16) == 0; /* constant time */
}

#else /* no library */

static void *imb_manager(int arch) { (void)arch; return NULL; }
static const char *imb_version(void) { return ""; }
static const char *imb_arch_name(const void *manager) { (void)manager; return ""; }

static void *imb_make(void *manager, int suite, const uint8_t *key, int sealing)
{
    (void)manager, (void)suite, (void)key, (void)sealing;
    return NULL;
}

static void imb_free(void *state) { (void)state; }

static int imb_seal(void *state, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
                    const uint8_t *source, size_t octets, uint8_t *target)
{
    (void)state, (void)nonce, (void)aad, (void)aad_octets, (void)source, (void)octets, (void)target;
    return 0;
}

static int imb_open(void *state, const uint8_t *nonce, const uint8_t *aad, size_t aad_octets,
                    const uint8_t *source, size_t octets, uint8_t *target)
{
    (void)state, (void)nonce, (void)aad, (void)aad_octets, (void)source, (void)octets, (void)target;
    return 0;
}

#endif
#endif
