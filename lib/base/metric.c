/* Histograms in buckets that monitoring wants. One thread writes, any thread reads; a reader beside a writer may see a sum
 * that lacks the newest value. */
#include "base/metric.h"

#include <stddef.h>

const uint64_t cnk_latency_bounds_ns[CNK_LATENCY_BUCKETS - 1] = {
    50000,    100000,   250000,    500000,    1000000,   2500000,    5000000,    10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 2500000000, 10000000000};

/* How many bounds lie below 2^i: where to look for a value of that power. From 2^34 on: all. */
static const uint8_t bounds_below[35] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0,  1, 2,
                                         3, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 15, 15, 16};

void cnk_latency_add(cnk_latency *l, uint64_t ns) {
    unsigned power = 63u - (unsigned)__builtin_clzll(ns | 1);
    size_t i = bounds_below[power < 34 ? power : 34];
    while (i < CNK_LATENCY_BUCKETS - 1 && ns > cnk_latency_bounds_ns[i]) i++;
    cnk_counter_add(&l->buckets[i], 1);
    cnk_counter_add(&l->sum_ns, ns);
}

void cnk_latency_read(const cnk_latency *l, cnk_latency_counts *add_to) {
    for (size_t i = 0; i < CNK_LATENCY_BUCKETS; i++) add_to->buckets[i] += cnk_counter_get(&l->buckets[i]);
    add_to->sum_ns += cnk_counter_get(&l->sum_ns);
}

void cnk_sizes_add(cnk_sizes *s, uint64_t n) {
    size_t i = n <= 1 ? 0 : (size_t)(65 - __builtin_clzll(n - 1)) / 2;
    cnk_counter_add(&s->buckets[i < CNK_SIZES_BUCKETS ? i : CNK_SIZES_BUCKETS - 1], 1);
    cnk_counter_add(&s->sum, n);
}

void cnk_sizes_read(const cnk_sizes *s, cnk_sizes_counts *add_to) {
    for (size_t i = 0; i < CNK_SIZES_BUCKETS; i++) add_to->buckets[i] += cnk_counter_get(&s->buckets[i]);
    add_to->sum += cnk_counter_get(&s->sum);
}
