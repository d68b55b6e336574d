/* Histograms of chronik-bench: log-linear buckets, see bench.h. Each is written by one thread with relaxed stores, so
 * that another one may read it while it grows. */
#include "bench.h"

static int bucket_of(uint64_t ns) {
    if (ns >> BENCH_VALUE_BITS) return BENCH_BUCKETS - 1;
    if (ns >> BENCH_SUB_BITS == 0) return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - BENCH_SUB_BITS;
    return (shift << BENCH_SUB_BITS) + (int)(ns >> shift); /* ns >> shift lies in 128 … 255 */
}

static int shift_of(int bucket) { return bucket >> BENCH_SUB_BITS ? (bucket >> BENCH_SUB_BITS) - 1 : 0; }

uint64_t bench_bucket_lower_ns(int bucket) {
    int shift = shift_of(bucket);
    return (uint64_t)(bucket - (shift << BENCH_SUB_BITS)) << shift;
}

uint64_t bench_bucket_upper_ns(int bucket) {
    return bench_bucket_lower_ns(bucket) + ((uint64_t)1 << shift_of(bucket)) - 1;
}

static void add(_Atomic uint64_t *to, uint64_t n) {
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

void bench_histogram_add(bench_histogram *h, int64_t ns) {
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    add(&h->buckets[bucket_of(v)], 1);
    add(&h->sum_ns, v);
    if (v > atomic_load_explicit(&h->max_ns, memory_order_relaxed))
        atomic_store_explicit(&h->max_ns, v, memory_order_relaxed);
}

void bench_distribution_add(bench_distribution *d, const bench_histogram *h) {
    for (int i = 0; i < BENCH_BUCKETS; i++) {
        uint64_t n = atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        d->buckets[i] += n;
        d->count += n;
    }
    d->sum_ns += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&h->max_ns, memory_order_relaxed);
    if (max > d->max_ns) d->max_ns = max;
}

uint64_t bench_distribution_quantile_since(const bench_distribution *d, const bench_distribution *before, double q) {
    uint64_t count = d->count - (before ? before->count : 0), seen = 0;
    if (count == 0) return 0;
    uint64_t wanted = (uint64_t)(q * (double)count + 0.5);
    if (wanted < 1) wanted = 1;
    for (int i = 0; i < BENCH_BUCKETS; i++) {
        seen += d->buckets[i] - (before ? before->buckets[i] : 0);
        if (seen < wanted) continue;
        uint64_t upper = bench_bucket_upper_ns(i);
        return i == BENCH_BUCKETS - 1 || upper > d->max_ns ? d->max_ns : upper;
    }
    return d->max_ns;
}

uint64_t bench_distribution_quantile(const bench_distribution *d, double q) {
    return bench_distribution_quantile_since(d, NULL, q);
}
