/* xoshiro256** 1.0, seeded by splitmix64, as its authors advise. A generator belongs to one thread at a time. */
#include "base/rng.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

static uint64_t rotate_left(uint64_t v, unsigned by) { return v << by | v >> (64 - by); }

void cnk_rng_seed(cnk_rng *rng, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9E3779B97F4A7C15);
        uint64_t v = seed;
        v = (v ^ (v >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        v = (v ^ (v >> 27)) * UINT64_C(0x94D049BB133111EB);
        rng->s[i] = v ^ (v >> 31);
    }
}

uint64_t cnk_rng_next(cnk_rng *rng) {
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t cnk_rng_below(cnk_rng *rng, uint64_t bound) {
    CNK_ASSERT(bound > 0);
    /* The lowest 2^64 mod bound values would make small results too likely. */
    uint64_t least = (0 - bound) % bound, v;
    do v = cnk_rng_next(rng);
    while (v < least);
    return v % bound;
}

int64_t cnk_rng_between(cnk_rng *rng, int64_t low, int64_t high) {
    CNK_ASSERT(low <= high);
    uint64_t span = (uint64_t)high - (uint64_t)low;
    uint64_t v = span == UINT64_MAX ? cnk_rng_next(rng) : cnk_rng_below(rng, span + 1);
    return (int64_t)((uint64_t)low + v);
}

bool cnk_rng_chance(cnk_rng *rng, uint32_t numerator, uint32_t denominator) {
    return cnk_rng_below(rng, denominator) < numerator;
}

void cnk_rng_fill(cnk_rng *rng, void *buf, size_t len) {
    uint8_t *p = buf;
    for (; len >= 8; p += 8, len -= 8) cnk_store_le64(p, cnk_rng_next(rng));
    if (len == 0) return;
    uint8_t tail[8];
    cnk_store_le64(tail, cnk_rng_next(rng));
    memcpy(p, tail, len);
}
