/* Loops in C: the engine's whole esp_seal and esp_open, and nothing but the library's own call.
 *
 * bench.native_calls compiles it, with the AEAD backends of the engine's build. Times are
 * nanoseconds for each of `count` packets; a negative one says that something failed.
 */
#include "ipsec_mb.h"

#include <openssl/evp.h>
#include <time.h>

typedef long (*esp_seal_call)(void *sa, uint8_t *payload, size_t octets, uint8_t next_header,
                              uint8_t *target);
typedef int (*esp_open_call)(void *sa, const uint8_t *packet, size_t octets, uint8_t *target,
                             void *opened);

/* SPI, sequence number, IV; payload and trailer, padded to 4 octets; tag. */
static long packet_octets(size_t octets) { return 16 + (long)((octets + 2 + 3) & ~(size_t)3) + 16; }

static double since(const struct timespec *started, long count)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((now.tv_sec - started->tv_sec) * 1e9 + (now.tv_nsec - started->tv_nsec)) / count;
}

/* Packet after packet goes to `target`, `stride` octets further each time. */
double loop_seal(esp_seal_call seal, void *sa, uint8_t *payload, size_t octets, uint8_t *target,
                 size_t stride, long count)
{
    struct timespec started;
    clock_gettime(CLOCK_MONOTONIC, &started);
    for (long step = 0; step < count; step++)
        if (seal(sa, payload, octets, 41, target + step * stride) != packet_octets(octets))
            return -1;
    return since(&started, count);
}

double loop_open(esp_open_call open, void *sa, const uint8_t *packets, size_t octets,
                 size_t stride, uint8_t *target, long count)
{
    uint8_t opened[64]; /* more than struct Opened */
    struct timespec started;
    clock_gettime(CLOCK_MONOTONIC, &started);
    for (long step = 0; step < count; step++)
        if (open(sa, packets + step * stride, packet_octets(octets), target, opened) != 0)
            return -1;
    return since(&started, count);
}

/* As the engine seals: 12 octets of associated data, a new IV for each packet, a tag of 16. */
double loop_openssl(int bits, const uint8_t *key, const uint8_t *payload, size_t octets,
                    uint8_t *target, long count)
{
    const EVP_CIPHER *cipher = bits == 128 ? EVP_aes_128_gcm()
                             : bits == 256 ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    uint8_t nonce[12] = {0}, associated[12] = {0};
    struct timespec started;
    double taken;
    int done;
    EVP_EncryptInit_ex(context, cipher, NULL, key, NULL);
    clock_gettime(CLOCK_MONOTONIC, &started);
    for (long step = 0; step < count; step++) {
        memcpy(nonce + 4, &step, 8);
        EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce);
        EVP_EncryptUpdate(context, NULL, &done, associated, sizeof associated);
        EVP_EncryptUpdate(context, target, &done, payload, (int)octets);
        EVP_EncryptFinal_ex(context, target + octets, &done);
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, target + octets);
    }
    taken = since(&started, count);
    EVP_CIPHER_CTX_free(context);
    return taken;
}

/* AES-GCM by the library's direct call; negative where `arch` is not there (0: the best). */
double loop_ipsec_mb(int arch, int bits, const uint8_t *key, const uint8_t *payload,
                     size_t octets, uint8_t *target, long count)
{
#ifdef AUTOTUNNEL_IPSEC_MB
    IMB_MGR *manager = imb_manager(arch);
    struct gcm_key_data *keys = aligned_alloc(64, (sizeof *keys + 63) & ~(size_t)63);
    struct gcm_context_data context;
    uint8_t nonce[12] = {0}, associated[12] = {0};
    struct timespec started;
    double taken = -1;
    if (manager != NULL && keys != NULL) {
        if (bits == 128)
            IMB_AES128_GCM_PRE(manager, key, keys);
        else
            IMB_AES256_GCM_PRE(manager, key, keys);
        clock_gettime(CLOCK_MONOTONIC, &started);
        for (long step = 0; step < count; step++) {
            memcpy(nonce + 4, &step, 8);
            if (bits == 128)
                IMB_AES128_GCM_ENC(manager, keys, &context, target, payload, octets, nonce,
                                   associated, sizeof associated, target + octets, 16);
            else
                IMB_AES256_GCM_ENC(manager, keys, &context, target, payload, octets, nonce,
                                   associated, sizeof associated, target + octets, 16);
        }
        taken = since(&started, count);
    }
    free(keys);
    if (manager != NULL)
        free_mb_mgr(manager);
    return taken;
#else
    (void)arch, (void)bits, (void)key, (void)payload, (void)octets, (void)target, (void)count;
    return -1;
#endif
}
