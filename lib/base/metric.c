/* Histograms: values below 16 have a bucket each; above, each power of two has 16 buckets of equal width. One thread
 * writes, any thread reads; a reader beside a writer may see a sum that lacks the newest value. */
#include "base/metric.h"

#include <stddef.h>

#include "base/assert.h"

#define SUB_BITS 4u
#define SUB_COUNT (1u << SUB_BITS)

_Static_assert(CNK_HISTOGRAM_BUCKETS == SUB_COUNT * (64 - SUB_BITS + 1),
               "one group below 16, one for each power above");

static size_t bucket_of(uint64_t value) {
    if (value < SUB_COUNT) return (size_t)value;
    unsigned power = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = power - SUB_BITS;
    return (size_t)SUB_COUNT * (shift + 1) + (size_t)((value >> shift) & (SUB_COUNT - 1));
}

static uint64_t bucket_top(size_t bucket) {
    if (bucket < SUB_COUNT) return bucket;
    unsigned shift = (unsigned)(bucket / SUB_COUNT) - 1;
    uint64_t low = (uint64_t)(SUB_COUNT + bucket % SUB_COUNT) << shift;
    return low + ((UINT64_C(1) << shift) - 1);
}

void cnk_histogram_add(cnk_histogram *h, uint64_t value) {
    cnk_counter_add(&h->buckets[bucket_of(value)], 1);
    cnk_counter_add(&h->count, 1);
    cnk_counter_add(&h->sum, value);
    if (value > cnk_counter_get(&h->max)) atomic_store_explicit(&h->max.value, value, memory_order_relaxed);
}

uint64_t cnk_histogram_quantile(const cnk_histogram *h, double q) {
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < CNK_HISTOGRAM_BUCKETS; i++) total += cnk_counter_get(&h->buckets[i]);
    if (total == 0) return 0;
    double wanted = (q < 0 ? 0 : q > 1 ? 1 : q) * (double)total;
    size_t last = 0;
    for (size_t i = 0; i < CNK_HISTOGRAM_BUCKETS; i++) {
        uint64_t n = cnk_counter_get(&h->buckets[i]);
        if (n == 0) continue;
        seen += n;
        last = i;
        if ((double)seen >= wanted) break;
    }
    return bucket_top(last);
}

void cnk_histogram_merge(cnk_histogram *into, const cnk_histogram *from) {
    for (size_t i = 0; i < CNK_HISTOGRAM_BUCKETS; i++)
        cnk_counter_add(&into->buckets[i], cnk_counter_get(&from->buckets[i]));
    cnk_counter_add(&into->count, cnk_counter_get(&from->count));
    cnk_counter_add(&into->sum, cnk_counter_get(&from->sum));
    uint64_t max = cnk_counter_get(&from->max);
    if (max > cnk_counter_get(&into->max)) atomic_store_explicit(&into->max.value, max, memory_order_relaxed);
}

const uint64_t cnk_latency_bounds_ns[CNK_LATENCY_BUCKETS - 1] = {
    50000,    100000,   250000,    500000,    1000000,   2500000,    5000000,    10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 2500000000, 10000000000};

void cnk_latency_add(cnk_latency *l, uint64_t ns) {
    size_t i = 0;
    while (i < CNK_LATENCY_BUCKETS - 1 && ns > cnk_latency_bounds_ns[i]) i++;
    cnk_counter_add(&l->buckets[i], 1);
    cnk_counter_add(&l->sum_ns, ns);
}

void cnk_latency_read(const cnk_latency *l, cnk_latency_counts *add_to) {
    for (size_t i = 0; i < CNK_LATENCY_BUCKETS; i++) add_to->buckets[i] += cnk_counter_get(&l->buckets[i]);
    add_to->sum_ns += cnk_counter_get(&l->sum_ns);
}
