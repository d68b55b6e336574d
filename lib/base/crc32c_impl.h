/* The implementations of CRC-32C, for the front and for tests. */
#ifndef CNK_BASE_CRC32C_IMPL_H
#define CNK_BASE_CRC32C_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 8-byte words in one of three interleaved lanes: 3 KiB a turn. */
#define CNK_CRC32C_LANE_WORDS_MAX 128

extern const uint32_t cnk_crc32c_table[8][256];
extern const uint32_t cnk_crc32c_shift[16][16], cnk_crc32c_shift_short[16][16];
extern const uint32_t cnk_crc32c_lane_shift[2 * CNK_CRC32C_LANE_WORDS_MAX + 1];

typedef struct cnk_crc32c_impl {
    const char *name;
    bool (*usable)(void); /* does this CPU have the instructions? */
    uint32_t (*crc)(uint32_t crc, const uint8_t *p, size_t len);
    uint32_t (*copy)(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len);
    uint32_t (*shift)(uint32_t crc, size_t len); /* crc * x^(8 * len): the CRC moved past len bytes */
} cnk_crc32c_impl;

/* Best first, the portable one last, then NULL. */
extern const cnk_crc32c_impl *const cnk_crc32c_impls[];

extern const cnk_crc32c_impl cnk_crc32c_portable;
#if defined(__x86_64__)
extern const cnk_crc32c_impl cnk_crc32c_avx512, cnk_crc32c_sse42;
#elif defined(__aarch64__)
extern const cnk_crc32c_impl cnk_crc32c_arm64;
#endif

#endif
