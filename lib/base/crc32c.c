/* CRC-32C: the choice of an implementation, and the portable one (slicing by 8, Kounavis and Berry 2005). Any thread:
 * the choice gives the same on each, so that racing first uses store the same pointer. */
#include "base/crc32c.h"

#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c_impl.h"

#define POLYNOMIAL 0x82F63B78u /* reflected */

const cnk_crc32c_impl *const cnk_crc32c_impls[] = {
#if defined(__x86_64__)
    &cnk_crc32c_avx512, &cnk_crc32c_sse42,
#elif defined(__aarch64__)
    &cnk_crc32c_arm64,
#endif
    &cnk_crc32c_portable, NULL};

static _Atomic(const cnk_crc32c_impl *) chosen;

static const cnk_crc32c_impl *choose(void) {
    const cnk_crc32c_impl *const *impl = cnk_crc32c_impls;
    while (!(*impl)->usable()) impl++;
    atomic_store_explicit(&chosen, *impl, memory_order_release);
    return *impl;
}

static inline const cnk_crc32c_impl *implementation(void) {
    const cnk_crc32c_impl *impl = atomic_load_explicit(&chosen, memory_order_acquire);
    return __builtin_expect(impl != NULL, 1) ? impl : choose();
}

uint32_t cnk_crc32c(uint32_t crc, const void *p, size_t len) { return implementation()->crc(crc, p, len); }

uint32_t cnk_crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len) {
    return implementation()->copy(crc, dst, src, len);
}

uint32_t cnk_crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t len_b) {
    return implementation()->shift(crc_a, len_b) ^ crc_b;
}

const char *cnk_crc32c_implementation(void) { return implementation()->name; }

/* ---- portable --------------------------------------------------------------------------------------------------- */

static bool portable_usable(void) { return true; }

static uint32_t portable_crc(uint32_t crc, const uint8_t *p, size_t len) {
    const uint32_t(*t)[256] = cnk_crc32c_table;
    uint64_t c = ~crc;
    for (; len >= 8; p += 8, len -= 8) {
        c ^= cnk_load_le64(p);
        c = t[7][c & 255] ^ t[6][c >> 8 & 255] ^ t[5][c >> 16 & 255] ^ t[4][c >> 24 & 255] ^ t[3][c >> 32 & 255] ^
            t[2][c >> 40 & 255] ^ t[1][c >> 48 & 255] ^ t[0][c >> 56];
    }
    for (; len; p++, len--) c = c >> 8 ^ t[0][(c ^ *p) & 255];
    return ~(uint32_t)c;
}

static uint32_t portable_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len) {
    if (len) memcpy(dst, src, len);
    return portable_crc(crc, src, len);
}

static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (; a; a <<= 1) {
        product ^= b & (0 - (a >> 31));
        b = b >> 1 ^ (POLYNOMIAL & (0 - (b & 1)));
    }
    return product;
}

static uint32_t portable_shift(uint32_t crc, size_t len) {
    for (unsigned digit = 0; len; digit++, len >>= 4)
        if (len & 15) crc = multiply(cnk_crc32c_shift[digit][len & 15], crc);
    return crc;
}

const cnk_crc32c_impl cnk_crc32c_portable = {"portable", portable_usable, portable_crc, portable_copy, portable_shift};
