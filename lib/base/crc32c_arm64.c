/* CRC-32C on 64-bit ARM: the crc32cd instruction in three interleaved lanes, joined by carry-less products (PMULL); the
 * method is described in crc32c_x86.c. No state; any thread. */
#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c_impl.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__clang__)
#define ARM __attribute__((target("crc,aes")))
#else
#define ARM __attribute__((target("+crc+crypto")))
#endif
#define INLINE static inline __attribute__((always_inline))

#define LANES_FROM 128u /* bytes; below, the merge costs more than the lanes gain */

static bool arm64_usable(void) {
#if defined(__linux__)
    unsigned long caps = getauxval(AT_HWCAP);
    return (caps & HWCAP_CRC32) != 0 && (caps & HWCAP_PMULL) != 0;
#elif defined(__APPLE__)
    return true; /* all of Apple's have both */
#else
    return false;
#endif
}

/* As instructions, since arm_acle.h hides the intrinsics where the whole file is not compiled for them. */
INLINE uint32_t crc_u64(uint32_t crc, uint64_t v) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(v));
    return crc;
}

INLINE uint32_t crc_u32(uint32_t crc, uint32_t v) {
    __asm__(".arch_extension crc\n\tcrc32cw %w0, %w0, %w1" : "+r"(crc) : "r"(v));
    return crc;
}

INLINE uint32_t crc_u8(uint32_t crc, uint8_t v) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)v));
    return crc;
}

/* a * b * x^33, both reflected 32-bit words. */
INLINE ARM uint32_t multiply_short(uint32_t a, uint32_t b) {
    poly128_t product = vmull_p64((poly64_t)a, (poly64_t)b);
    return crc_u64(0, (uint64_t)product);
}

/* One word at `at`. Where nothing is copied, dst is NULL and never looked at. */
INLINE uint32_t step8(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t at, bool copy) {
    uint64_t word = cnk_load_le64(src + at);
    if (copy) cnk_store_le64(dst + at, word);
    return crc_u64(crc, word);
}

/* Three lanes of n words each. */
INLINE ARM uint32_t lanes3(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n, bool copy) {
    uint32_t a = crc, b = 0, c = 0;
    size_t lane = n * 8;
    for (size_t i = 0; i < lane; i += 8) {
        a = step8(a, dst, src, i, copy);
        b = step8(b, dst, src, lane + i, copy);
        c = step8(c, dst, src, 2 * lane + i, copy);
    }
    return multiply_short(a, cnk_crc32c_lane_shift[2 * n]) ^ multiply_short(b, cnk_crc32c_lane_shift[n]) ^ c;
}

INLINE ARM uint32_t run(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len, bool copy) {
    while (len >= LANES_FROM) {
        size_t n = len / 24 < CNK_CRC32C_LANE_WORDS_MAX ? len / 24 : CNK_CRC32C_LANE_WORDS_MAX;
        crc = lanes3(crc, dst, src, n, copy);
        src += n * 24;
        len -= n * 24;
        if (copy) dst += n * 24;
    }
    size_t i = 0;
    for (; i + 8 <= len; i += 8) crc = step8(crc, dst, src, i, copy);
    if (len & 4) {
        uint32_t word = cnk_load_le32(src + i);
        if (copy) cnk_store_le32(dst + i, word);
        crc = crc_u32(crc, word);
        i += 4;
    }
    for (; i < len; i++) {
        if (copy) dst[i] = src[i];
        crc = crc_u8(crc, src[i]);
    }
    return crc;
}

static ARM uint32_t arm64_crc(uint32_t crc, const uint8_t *p, size_t len) { return ~run(~crc, NULL, p, len, false); }

static ARM uint32_t arm64_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len) {
    return ~run(~crc, dst, src, len, true);
}

static ARM uint32_t arm64_shift(uint32_t crc, size_t len) {
    for (unsigned digit = 0; len; digit++, len >>= 4)
        if (len & 15) crc = multiply_short(crc, cnk_crc32c_shift_short[digit][len & 15]);
    return crc;
}

const cnk_crc32c_impl cnk_crc32c_arm64 = {"arm64-crc", arm64_usable, arm64_crc, arm64_copy, arm64_shift};

#else
typedef int cnk_crc32c_arm64_is_not_here; /* a translation unit is never empty */
#endif
