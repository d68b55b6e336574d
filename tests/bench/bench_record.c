/* The produce path's own work on a batch, from cache: validating (framing, CRC, walk) and iterating, in ns for each
 * record, by value size; and opening compressed batches. Each figure is the best of several rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "codec/codec.h"
#include "record/record.h"

#define ROUNDS 7

static volatile int64_t sink; /* keeps the work alive */

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void build(unsigned codec, size_t value_len, int count, cnk_writer *out) {
    cnk_batch_builder builder;
    cnk_rng rng;
    uint8_t *value = malloc(value_len + 1);
    cnk_rng_seed(&rng, 1);
    cnk_batch_builder_init(&builder, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (int i = 0; i < count; i++) {
        cnk_rng_fill(&rng, value, value_len / 2); /* packs about 2:1 */
        memset(value + value_len / 2, 'x', value_len - value_len / 2);
        cnk_record_spec record = {.timestamp = 1000000 + i / 100, .value = value, .value_len = value_len};
        if (cnk_batch_builder_add(&builder, &record)) abort();
    }
    if (cnk_batch_builder_finish(&builder, out)) abort();
    cnk_batch_builder_free(&builder);
    free(value);
}

static int64_t validate(const cnk_writer *w, const cnk_batch_rules *rules) {
    cnk_batch batch;
    if (cnk_batch_validate(w->data, w->len, rules, &batch, NULL)) abort();
    return batch.max_timestamp;
}

static int64_t iterate(const cnk_writer *w, const cnk_batch_rules *rules) {
    cnk_batch batch;
    cnk_records records;
    cnk_record record;
    int64_t sum = 0;
    if (cnk_batch_parse(w->data, w->len, &batch)) abort();
    if (cnk_records_open(&batch, rules->decompressed_bytes_max, &records)) abort();
    while (cnk_records_next(&records, &record) == 1) sum += record.timestamp + record.value_len;
    cnk_records_close(&records);
    return sum;
}

static int64_t check_crc(const cnk_writer *w, const cnk_batch_rules *rules) {
    cnk_batch batch;
    (void)rules;
    if (cnk_batch_parse(w->data, w->len, &batch) || !cnk_batch_crc_valid(&batch)) abort();
    return batch.crc;
}

static double record_ns(int64_t (*work)(const cnk_writer *, const cnk_batch_rules *), const cnk_writer *w,
                        const cnk_batch_rules *rules, int count) {
    double best = 1e9;
    int times = 2000000 / count + 1;
    if (w->len > 0) times = (int)((size_t)64 * 1000000 / w->len) + 1;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_s();
        for (int i = 0; i < times; i++) sink = work(w, rules);
        double ns = (now_s() - start) * 1e9 / times / count;
        if (ns < best) best = ns;
    }
    return best;
}

int main(void) {
    static const size_t sizes[] = {10, 100, 256, 1024};
    cnk_batch_rules rules = {.produce_version = 13,
                             .bytes_max = 1u << 30,
                             .now_ms = 1000000,
                             .timestamp_before_max_ms = INT64_MAX,
                             .timestamp_after_max_ms = 3600000,
                             .decompressed_bytes_max = 1u << 30};
    printf("ns for each record\n%8s %8s %10s %10s %10s\n", "codec", "value", "crc", "validate", "iterate");
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        rules.timestamp_before_max_ms = codec == CNK_CODEC_NONE ? INT64_MAX : 1000; /* opens compressed ones */
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            cnk_writer w;
            int count = (int)(100000 / sizes[i]) + 1;
            cnk_writer_growing(&w, 0);
            build(codec, sizes[i], count, &w);
            printf("%8s %8zu %10.2f %10.2f %10.2f\n", cnk_codec_name(codec), sizes[i],
                   record_ns(check_crc, &w, &rules, count), record_ns(validate, &w, &rules, count),
                   record_ns(iterate, &w, &rules, count));
            cnk_writer_free(&w);
        }
    }
    return 0;
}
