/* Counters and histograms. Each belongs to one thread, which alone writes it with plain relaxed stores; any thread may
 * read. */
#ifndef CNK_BASE_METRIC_H
#define CNK_BASE_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct cnk_counter {
    _Atomic uint64_t value;
} cnk_counter;

static inline void cnk_counter_add(cnk_counter *c, uint64_t n) {
    atomic_store_explicit(&c->value, atomic_load_explicit(&c->value, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void cnk_counter_sub(cnk_counter *c, uint64_t n) { cnk_counter_add(c, (uint64_t)0 - n); }
static inline uint64_t cnk_counter_get(const cnk_counter *c) {
    return atomic_load_explicit(&c->value, memory_order_relaxed);
}

/* Log-linear buckets: 16 for each power of two, relative error at most 6.25 %. Values are unitless (callers use ns). */
#define CNK_HISTOGRAM_BUCKETS 976
typedef struct cnk_histogram {
    cnk_counter buckets[CNK_HISTOGRAM_BUCKETS];
    cnk_counter count, sum, max;
} cnk_histogram;

void cnk_histogram_add(cnk_histogram *h, uint64_t value);
uint64_t cnk_histogram_quantile(const cnk_histogram *h, double q); /* upper bound of the bucket; 0 where empty */
void cnk_histogram_merge(cnk_histogram *into, const cnk_histogram *from);

/* How long requests took, in the few buckets that monitoring wants: 1, 2.5, 5 … times a power of ten. */
#define CNK_LATENCY_BUCKETS 17 /* the last one has no upper bound */
typedef struct cnk_latency {
    cnk_counter buckets[CNK_LATENCY_BUCKETS], sum_ns;
} cnk_latency;
typedef struct cnk_latency_counts { /* as read; not cumulative */
    uint64_t buckets[CNK_LATENCY_BUCKETS], sum_ns;
} cnk_latency_counts;

extern const uint64_t cnk_latency_bounds_ns[CNK_LATENCY_BUCKETS - 1]; /* upper, inclusive */
void cnk_latency_add(cnk_latency *l, uint64_t ns);
void cnk_latency_read(const cnk_latency *l, cnk_latency_counts *add_to);

#endif
