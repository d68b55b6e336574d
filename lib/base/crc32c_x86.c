/* CRC-32C on x86-64. No state; any thread.
 *
 * sse42: the crc32 instruction takes 8 bytes and 3 cycles, but starts one each cycle. So three lanes of equal length
 * run interleaved, and the first two lanes' CRCs are moved past what lies behind them by one carry-less product
 * each (Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011). The lanes are
 * as long as the buffer allows, so that 100 bytes gain as well.
 *
 * avx512: folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel
 * 2009) in 512-bit registers, four of them at once. A 128-bit block (A, B), A first in memory, at a distance of D bits
 * in front of another, may be replaced by A * x^(D+64) + B * x^D modulo the polynomial, added to the other. The product
 * of two reflected 64-bit words is one bit short of a reflected 128-bit word, hence the -1 in the constants' exponents.
 * What is left at the end, 16 bytes that have the same CRC as all before, goes through the crc32 instruction. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c_impl.h"

#define SSE42 __attribute__((target("sse4.2,pclmul")))
#define AVX512 __attribute__((target("avx512f,avx512vl,vpclmulqdq,sse4.2,pclmul")))
#define INLINE static inline __attribute__((always_inline))

#define LANES_FROM 96u /* bytes; below, the merge costs more than the lanes gain */
#define FOLD_FROM 256u /* bytes; below, lanes are as fast */
#define STREAM_FROM 16384u /* bytes; a copy from here on goes past the caches */

/* ---- sse42 ------------------------------------------------------------------------------------------------------ */

static bool sse42_usable(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }

/* One word at `at`. Where nothing is copied, dst is NULL and never looked at. */
INLINE SSE42 uint64_t step8(uint64_t crc, uint8_t *dst, const uint8_t *src, size_t at, bool copy) {
    uint64_t word = cnk_load_le64(src + at);
    if (copy) cnk_store_le64(dst + at, word);
    return _mm_crc32_u64(crc, word);
}

/* a * b * x^33, both reflected 32-bit words. */
INLINE SSE42 uint32_t multiply_short(uint32_t a, uint32_t b) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Three lanes of n words each. */
INLINE SSE42 uint64_t lanes3(uint64_t crc, uint8_t *dst, const uint8_t *src, size_t n, bool copy) {
    uint64_t a = crc, b = 0, c = 0;
    size_t lane = n * 8;
    for (size_t i = 0; i < lane; i += 8) {
        a = step8(a, dst, src, i, copy);
        b = step8(b, dst, src, lane + i, copy);
        c = step8(c, dst, src, 2 * lane + i, copy);
    }
    return multiply_short((uint32_t)a, cnk_crc32c_lane_shift[2 * n]) ^
           multiply_short((uint32_t)b, cnk_crc32c_lane_shift[n]) ^ c;
}

/* The last bytes, one word after the other. */
INLINE SSE42 uint32_t finish(uint64_t crc, uint8_t *dst, const uint8_t *src, size_t len, bool copy) {
    size_t i = 0;
    for (; i + 8 <= len; i += 8) crc = step8(crc, dst, src, i, copy);
    uint32_t c = (uint32_t)crc;
    if (len & 4) {
        uint32_t word = cnk_load_le32(src + i);
        if (copy) cnk_store_le32(dst + i, word);
        c = _mm_crc32_u32(c, word);
        i += 4;
    }
    for (; i < len; i++) {
        if (copy) dst[i] = src[i];
        c = _mm_crc32_u8(c, src[i]);
    }
    return c;
}

INLINE SSE42 uint32_t sse42_run(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len, bool copy) {
    uint64_t c = crc;
    while (len >= LANES_FROM) {
        size_t n = len / 24 < CNK_CRC32C_LANE_WORDS_MAX ? len / 24 : CNK_CRC32C_LANE_WORDS_MAX;
        c = lanes3(c, dst, src, n, copy);
        src += n * 24;
        len -= n * 24;
        if (copy) dst += n * 24;
    }
    return finish(c, dst, src, len, copy);
}

static SSE42 uint32_t sse42_crc(uint32_t crc, const uint8_t *p, size_t len) {
    return ~sse42_run(~crc, NULL, p, len, false);
}

static SSE42 uint32_t sse42_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len) {
    return ~sse42_run(~crc, dst, src, len, true);
}

static SSE42 uint32_t sse42_shift(uint32_t crc, size_t len) {
    for (unsigned digit = 0; len; digit++, len >>= 4)
        if (len & 15) crc = multiply_short(crc, cnk_crc32c_shift_short[digit][len & 15]);
    return crc;
}

const cnk_crc32c_impl cnk_crc32c_sse42 = {"sse42-pclmul", sse42_usable, sse42_crc, sse42_copy, sse42_shift};

/* ---- avx512 ----------------------------------------------------------------------------------------------------- */

/* x^(D+63) and x^(D-1) of a distance of D bits: 32-bit polynomials at the top of 64-bit words. */
#define AT_TOP(k) ((uint64_t)(k) << 32)
static const uint64_t fold_2048[2] = {AT_TOP(0xE9A5D8BE), AT_TOP(0x1426A815)};
static const uint64_t fold_512[2] = {AT_TOP(0x1C19243B), AT_TOP(0x75BBA45B)};
/* 384, 256 and 128 bits, for a register's lanes in front of its last one; that one stays. */
static const uint64_t fold_lanes[8] = {AT_TOP(0xA46EF4AA),
                                       AT_TOP(0x6051243F),
                                       AT_TOP(0x33CCBBBC),
                                       AT_TOP(0xA2158B34),
                                       AT_TOP(0x3743F7BD),
                                       AT_TOP(0x3171D430),
                                       0,
                                       0};

static bool avx512_usable(void) {
    return sse42_usable() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("vpclmulqdq");
}

INLINE AVX512 __m512i each_lane(const uint64_t k[2]) {
    return _mm512_broadcast_i32x4(_mm_set_epi64x((long long)k[1], (long long)k[0]));
}

/* A long copy goes past the caches (STREAM; dst + at is a multiple of 64 then): whoever copies that much does not read it
 * again soon, and the lines it would have to fetch before it overwrites them are a third of the memory's work. */
typedef enum copy_how { SUM_ONLY = 0, COPY, STREAM } copy_how;

INLINE AVX512 __m512i load64(uint8_t *dst, const uint8_t *src, size_t at, copy_how copy) {
    __m512i v = _mm512_loadu_si512(src + at);
    if (copy == COPY) _mm512_storeu_si512(dst + at, v);
    if (copy == STREAM) _mm512_stream_si512((void *)(dst + at), v);
    return v;
}

/* Moves x by the distance of k, onto y. */
INLINE AVX512 __m512i fold(__m512i x, __m512i k, __m512i y) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, k, 0x00), _mm512_clmulepi64_epi128(x, k, 0x11), y,
                                     0x96);
}

/* The four 128-bit lanes folded into the last one, and that reduced. */
INLINE AVX512 uint64_t reduce(__m512i x) {
    __m512i y = fold(x, _mm512_loadu_si512(fold_lanes), _mm512_maskz_mov_epi64(0xC0, x));
    __m256i z = _mm256_xor_si256(_mm512_castsi512_si256(y), _mm512_extracti64x4_epi64(y, 1));
    __m128i w = _mm_xor_si128(_mm256_castsi256_si128(z), _mm256_extracti128_si256(z, 1));
    return _mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(w)), (uint64_t)_mm_extract_epi64(w, 1));
}

INLINE AVX512 uint32_t avx512_run(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len, copy_how copy) {
    const __m512i by_512 = each_lane(fold_512), by_2048 = each_lane(fold_2048);
    __m512i x = load64(dst, src, 0, copy);
    size_t at = 64;
    x = _mm512_xor_si512(x, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    if (len >= 512) {
        __m512i x1 = load64(dst, src, 64, copy), x2 = load64(dst, src, 128, copy), x3 = load64(dst, src, 192, copy);
        for (at = 256; at + 256 <= len; at += 256) {
            x = fold(x, by_2048, load64(dst, src, at, copy));
            x1 = fold(x1, by_2048, load64(dst, src, at + 64, copy));
            x2 = fold(x2, by_2048, load64(dst, src, at + 128, copy));
            x3 = fold(x3, by_2048, load64(dst, src, at + 192, copy));
        }
        x = fold(fold(fold(x, by_512, x1), by_512, x2), by_512, x3);
    }
    for (; at + 64 <= len; at += 64) x = fold(x, by_512, load64(dst, src, at, copy));
    return finish(reduce(x), copy ? dst + at : NULL, src + at, len - at, copy != SUM_ONLY);
}

static AVX512 uint32_t avx512_crc(uint32_t crc, const uint8_t *p, size_t len) {
    return len < FOLD_FROM ? sse42_crc(crc, p, len) : ~avx512_run(~crc, NULL, p, len, SUM_ONLY);
}

static AVX512 uint32_t avx512_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t len) {
    if (len < FOLD_FROM) return sse42_copy(crc, dst, src, len);
    if (len < STREAM_FROM) return ~avx512_run(~crc, dst, src, len, COPY);
    size_t head = -(uintptr_t)dst % 64;
    crc = sse42_copy(crc, dst, src, head);
    crc = ~avx512_run(~crc, dst + head, src + head, len - head, STREAM);
    _mm_sfence();
    return crc;
}

const cnk_crc32c_impl cnk_crc32c_avx512 = {"avx512-vpclmul", avx512_usable, avx512_crc, avx512_copy, sse42_shift};

#else
typedef int cnk_crc32c_x86_is_not_here; /* a translation unit is never empty */
#endif
