/* A seeded random number generator (xoshiro256**, Blackman and Vigna 2018): the same seed gives the same numbers on
 * every machine. Not for secrets. */
#ifndef CNK_BASE_RNG_H
#define CNK_BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cnk_rng {
    uint64_t s[4];
} cnk_rng;

void cnk_rng_seed(cnk_rng *rng, uint64_t seed);
uint64_t cnk_rng_next(cnk_rng *rng);
uint64_t cnk_rng_below(cnk_rng *rng, uint64_t bound);             /* uniform in [0, bound); bound > 0 */
int64_t cnk_rng_between(cnk_rng *rng, int64_t low, int64_t high); /* uniform in [low, high] */
bool cnk_rng_chance(cnk_rng *rng, uint32_t numerator, uint32_t denominator);
void cnk_rng_fill(cnk_rng *rng, void *buf, size_t len);

#endif
