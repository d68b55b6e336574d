/* The records that chronik-bench writes.
 *
 *     0   8   run: "ckb1", and 4 random bytes
 *     8   8   sequence number, little endian
 *    16   8   when it was to be sent: CLOCK_MONOTONIC in ns, little endian
 *    24       noise, (length - 24) / 2 bytes from a pool, from a place that follows from the sequence number
 *             one letter, likewise: the rest
 *
 * So a codec makes about 2:1 of it, and a reader knows every byte. The pool is the same in all runs. */
#include "bench.h"

#include <endian.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { POOL_BYTES = 1 << 20 };

static unsigned char pool[POOL_BYTES];
static const char magic[4] = {'c', 'k', 'b', '1'};

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void bench_records_init(void) {
    for (size_t i = 0; i < POOL_BYTES; i += 8) {
        uint64_t x = mix(i);
        memcpy(pool + i, &x, 8);
    }
}

uint64_t bench_run_id_new(void) {
    uint32_t random;
    uint64_t id;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) random = (uint32_t)bench_now_ns();
    memcpy(&id, magic, 4);
    memcpy((char *)&id + 4, &random, 4);
    return id;
}

/* Noise of `len` bytes is one piece of the pool, or for large records several. */
static const unsigned char *piece(uint64_t sequence, size_t at, size_t len, size_t *ret_len) {
    size_t from = (size_t)(mix(sequence) + at) % POOL_BYTES;
    *ret_len = len < POOL_BYTES - from ? len : POOL_BYTES - from;
    return pool + from;
}

void bench_record_make(unsigned char *p, size_t len, uint64_t run_id, uint64_t sequence, int64_t intended_ns) {
    uint64_t le_sequence = htole64(sequence), le_time = htole64((uint64_t)intended_ns);
    size_t noise = (len - BENCH_RECORD_MIN) / 2, n;
    memcpy(p, &run_id, 8);
    memcpy(p + 8, &le_sequence, 8);
    memcpy(p + 16, &le_time, 8);
    p += BENCH_RECORD_MIN;
    for (size_t at = 0; at < noise; at += n) {
        const unsigned char *from = piece(sequence, at, noise - at, &n);
        memcpy(p + at, from, n);
    }
    memset(p + noise, 'a' + (int)(sequence % 26), len - BENCH_RECORD_MIN - noise);
}

static bool content_is_right(const unsigned char *p, size_t len, uint64_t sequence) {
    size_t noise = len / 2, n;
    for (size_t at = 0; at < noise; at += n) {
        const unsigned char *from = piece(sequence, at, noise - at, &n);
        if (memcmp(p + at, from, n) != 0) return false;
    }
    const unsigned char *rest = p + noise;
    size_t rest_len = len - noise;
    return rest_len == 0 || (rest[0] == 'a' + (int)(sequence % 26) && memcmp(rest, rest + 1, rest_len - 1) == 0);
}

void bench_record_peek(const unsigned char *p, uint64_t *ret_sequence, int64_t *ret_intended_ns) {
    uint64_t sequence, time;
    memcpy(&sequence, p + 8, 8);
    memcpy(&time, p + 16, 8);
    *ret_sequence = le64toh(sequence);
    *ret_intended_ns = (int64_t)le64toh(time);
}

bench_record_kind bench_record_read(const unsigned char *p, size_t len, uint64_t run_id, uint64_t *ret_sequence,
                                    int64_t *ret_intended_ns) {
    if (!p || len < BENCH_RECORD_MIN || memcmp(p, magic, sizeof magic) != 0) return BENCH_RECORD_FOREIGN;
    uint64_t id, sequence;
    int64_t intended_ns;
    memcpy(&id, p, 8);
    bench_record_peek(p, &sequence, &intended_ns);
    if (!content_is_right(p + BENCH_RECORD_MIN, len - BENCH_RECORD_MIN, sequence)) return BENCH_RECORD_BAD;
    *ret_sequence = sequence;
    *ret_intended_ns = intended_ns;
    return id == run_id ? BENCH_RECORD_OWN : BENCH_RECORD_OTHER_RUN;
}

uint64_t bench_record_digest(uint64_t sequence, int32_t partition, int64_t offset) {
    return mix(mix(mix(sequence) ^ (uint64_t)(uint32_t)partition) ^ (uint64_t)offset);
}
