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

/* How many, how large: a bucket for each power of four from 1 on. */
#define CNK_SIZES_BUCKETS 14 /* the last one has no upper bound; that of bucket i is 4^i */
typedef struct cnk_sizes {
    cnk_counter buckets[CNK_SIZES_BUCKETS], sum;
} cnk_sizes;
typedef struct cnk_sizes_counts { /* as read; not cumulative */
    uint64_t buckets[CNK_SIZES_BUCKETS], sum;
} cnk_sizes_counts;

void cnk_sizes_add(cnk_sizes *s, uint64_t n);
void cnk_sizes_read(const cnk_sizes *s, cnk_sizes_counts *add_to);

#endif
