/* The Internet checksum's sum (RFC 1071), fast: in C for the compiler's sake, which makes a second
 * version for CPUs with AVX2 and takes it where it can. */
#ifndef AUTOTUNNEL_CHECKSUM_H
#define AUTOTUNNEL_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define AUTOTUNNEL_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define AUTOTUNNEL_CLONES
#endif

/* Adds `octets` at `data` to `sum` as words of this machine's byte order, which does not matter to
 * a checksum that is stored the same way (RFC 1071 §2B). An odd last octet is padded with zero. */
AUTOTUNNEL_CLONES
static uint64_t checksum_add(const uint8_t *data, size_t octets, uint64_t sum)
{
    uint32_t word;
    uint16_t half = 0;
    size_t words = octets / 4, step;

    for (step = 0; step < words; step++) {
        memcpy(&word, data + 4 * step, 4);
        sum += word;
    }
    data += 4 * words;
    octets -= 4 * words;
    if (octets >= 2) {
        memcpy(&half, data, 2);
        sum += half;
        data += 2;
        octets -= 2;
    }
    if (octets) {
        half = 0;
        memcpy(&half, data, 1);
        sum += half;
    }
    return sum;
}

/* The 16-bit one's complement sum, in this machine's byte order; not inverted. */
static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

#endif
