/* record: batches are judged as Apache Kafka judges them (recorded in data/kafka_batches.txt), read as its client wrote
 * them, built, searched and stamped; hostile ones are refused; each allocation may fail. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "record/record.h"
#include "record/walk.h"

#define ANSWERS "tests/unit/data/kafka_batches.txt"
#define NOW INT64_C(1700000000000)
#define OPENED_MAX ((uint64_t)1 << 24)

static const cnk_batch_rules usual = {.produce_version = 13,
                                      .bytes_max = 1048588,
                                      .now_ms = NOW,
                                      .timestamp_before_max_ms = INT64_MAX,
                                      .timestamp_after_max_ms = 3600000,
                                      .decompressed_bytes_max = OPENED_MAX};

/* Validates an exact-size copy, so that the address sanitizer sees a read past the end. */
static int validate(const uint8_t *data, size_t len, const cnk_batch_rules *rules, cnk_batch_fault *ret_fault) {
    cnk_batch batch;
    uint8_t *copy = malloc(len ? len : 1);
    if (len) memcpy(copy, data, len);
    ret_fault->text = NULL;
    int rc = cnk_batch_validate(copy, len, rules, &batch, ret_fault);
    ck_assert_int_eq(rc != 0, ret_fault->text != NULL);
    free(copy);
    return rc;
}

static void repair_crc(uint8_t *batch, size_t len) { cnk_store_be32(batch + 17, cnk_crc32c(0, batch + 21, len - 21)); }

/* ---- Kafka's answers -------------------------------------------------------------------------------------------- */

/* Names that begin so are answered otherwise, on purpose; validate.c says why. */
static const struct {
    const char *prefix, *error;
} differences[] = {
    {"codec-5", "UNSUPPORTED_COMPRESSION_TYPE"},
    {"codec-7", "UNSUPPORTED_COMPRESSION_TYPE"},
    {"epoch-", "INVALID_RECORD"},
    {"garbage-", "INVALID_RECORD"},
    {"cut-records-", "INVALID_RECORD"},
    {"record-offset-", "INVALID_RECORD"},
    {"record-key-minus-2", "INVALID_RECORD"},
};

static const char *kafka_name(int error) {
    switch (error) {
    case 0: return "NONE";
    case CHRONIK_ECORRUPTMESSAGE: return "CORRUPT_MESSAGE";
    case CHRONIK_EINVALIDRECORD: return "INVALID_RECORD";
    case CHRONIK_EINVALIDTIMESTAMP: return "INVALID_TIMESTAMP";
    case CHRONIK_EMESSAGETOOLARGE: return "MESSAGE_TOO_LARGE";
    case CHRONIK_EUNSUPPORTEDCODEC: return "UNSUPPORTED_COMPRESSION_TYPE";
    default: return chronik_error_name(error);
    }
}

typedef struct answer {
    char name[64], error[64];
    int record;
    cnk_batch_rules rules;
    uint8_t *data;
    size_t len;
} answer;

static size_t unhex(const char *hex, uint8_t *out) {
    size_t n = 0;
    unsigned byte;
    for (; hex[0] != '-' && sscanf(hex, "%2x", &byte) == 1; hex += 2) out[n++] = (uint8_t)byte;
    return n;
}

/* Calls back for each line, or fails the test when there is no file. */
static unsigned each_answer(void (*each)(const answer *)) {
    FILE *f = fopen(ANSWERS, "r");
    ck_assert_msg(f != NULL, "%s cannot be read: the tests run from the top of the tree", ANSWERS);
    static char line[200000], hex[200000];
    unsigned count = 0;
    while (fgets(line, sizeof line, f)) {
        answer a = {.rules = usual};
        int version, compacted, append;
        long long now, before, after;
        unsigned max;
        int n = sscanf(line, "%63s %d %d %d %lld %lld %lld %u %63s %d %s", a.name, &version, &compacted, &append, &now,
                       &before, &after, &max, a.error, &a.record, hex);
        ck_assert_msg(n == 11, "%s", line);
        a.rules.produce_version = (int16_t)version;
        a.rules.compacted = compacted != 0;
        a.rules.append_time = append != 0;
        a.rules.now_ms = now;
        a.rules.timestamp_before_max_ms = before;
        a.rules.timestamp_after_max_ms = after;
        a.rules.bytes_max = max;
        a.data = malloc(strlen(hex) / 2 + 1);
        a.len = unhex(hex, a.data);
        each(&a);
        free(a.data);
        count++;
    }
    fclose(f);
    return count;
}

static void compare(const answer *a) {
    const char *expected = a->error;
    bool differs = false;
    cnk_batch_fault fault = {-1, NULL};
    for (size_t i = 0; i < sizeof differences / sizeof differences[0]; i++)
        if (strncmp(a->name, differences[i].prefix, strlen(differences[i].prefix)) == 0) {
            expected = differences[i].error;
            differs = strcmp(expected, a->error) != 0;
            ck_assert_msg(differs || strncmp(a->name, "garbage", 7) == 0 || strncmp(a->name, "cut-records", 11) == 0,
                          "%s is not a difference any more", a->name);
        }
    int rc = validate(a->data, a->len, &a->rules, &fault);
    ck_assert_msg(strcmp(kafka_name(rc), expected) == 0, "%s: %s, not %s (%s)", a->name, kafka_name(rc), expected,
                  fault.text ? fault.text : "");
    if (rc && !differs) ck_assert_msg(fault.record == a->record, "%s: record %d", a->name, fault.record);
}

START_TEST(batches_are_judged_as_kafka_judges_them) { ck_assert_uint_ge(each_answer(compare), 200); }
END_TEST

static void same_bytes(const uint8_t *data, int32_t len, const char *expected) {
    if (expected == NULL) {
        ck_assert_ptr_null(data);
        ck_assert_int_eq(len, -1);
        return;
    }
    ck_assert_int_eq(len, (int)strlen(expected));
    ck_assert_int_eq(memcmp(data, expected, strlen(expected)), 0);
}

/* The rule is that of tests/oracle/RecordBatches.java. */
static void check_kafkas_record(const cnk_record *r, int i, bool keyed) {
    char key[32], value[400] = "", text[32];
    ck_assert_int_eq(r->offset, i);
    ck_assert_int_eq(r->timestamp, NOW - 1000 + i * 37 % 100);
    snprintf(key, sizeof key, "key-%d", i);
    same_bytes(r->key, r->key_len, !keyed && i % 3 == 0 ? NULL : key);
    for (int n = i % 5 * 4; n; n--) sprintf(value + strlen(value), "value-%d-", i);
    same_bytes(r->value, r->value_len, i % 7 == 6 ? NULL : value);
    ck_assert_int_eq(r->header_count, i % 4);
    cnk_reader headers = cnk_record_headers(r);
    cnk_record_header h;
    for (int n = 0; n < i % 4; n++) {
        ck_assert_int_eq(cnk_record_header_next(&headers, &h), 1);
        snprintf(text, sizeof text, "h%d", n);
        same_bytes(h.key, h.key_len, text);
        snprintf(text, sizeof text, "x%d", i);
        same_bytes(h.value, h.value_len, n == 2 ? NULL : text);
    }
    ck_assert_int_eq(cnk_record_header_next(&headers, &h), 0);
    ck_assert_int_eq(headers.error, 0);
}

static unsigned batches_read;
static void read_good(const answer *a) {
    if (strncmp(a->name, "good-", 5) != 0) return;
    cnk_batch batch;
    cnk_records records;
    cnk_record record;
    int i = 0, rc;
    ck_assert_int_eq(cnk_batch_parse(a->data, a->len, &batch), 0);
    ck_assert(cnk_batch_crc_valid(&batch));
    ck_assert_int_eq(cnk_records_open(&batch, OPENED_MAX, &records), 0);
    for (; (rc = cnk_records_next(&records, &record)) == 1; i++) check_kafkas_record(&record, i, batch.count == 200);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(i, batch.count);
    cnk_records_close(&records);
    batches_read++;
}

START_TEST(what_kafkas_client_wrote_is_read) {
    batches_read = 0;
    each_answer(read_good);
    ck_assert_uint_eq(batches_read, 15);
}
END_TEST

static void flip(const answer *a) {
    cnk_batch_fault fault;
    if (strcmp(a->name, "good-none-10") != 0) return;
    for (size_t bit = 21 * 8; bit < a->len * 8; bit++) {
        a->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(validate(a->data, a->len, &usual, &fault), CHRONIK_ECORRUPTMESSAGE);
        a->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < a->len; len++) ck_assert_int_ne(validate(a->data, len, &usual, &fault), 0);
    ck_assert_int_eq(validate(a->data, a->len, &usual, &fault), 0);
}

START_TEST(each_flipped_bit_under_the_crc_is_seen) { each_answer(flip); }
END_TEST

/* ---- building and reading --------------------------------------------------------------------------------------- */

static void add(cnk_batch_builder *b, int64_t timestamp, const char *key, const char *value) {
    cnk_record_spec spec = {timestamp, key, value, key ? strlen(key) : 0, value ? strlen(value) : 0, NULL, 0};
    ck_assert_int_eq(cnk_batch_builder_add(b, &spec), 0);
}

/* One batch with these timestamps; the values are their positions. */
static cnk_writer batch_of(unsigned codec, const int64_t *timestamps, int count) {
    cnk_batch_builder b;
    cnk_writer w;
    char value[16];
    cnk_writer_growing(&w, 0);
    cnk_batch_builder_init(&b, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (int i = 0; i < count; i++) {
        snprintf(value, sizeof value, "%d", i);
        add(&b, timestamps[i], "k", value);
    }
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), 0);
    cnk_batch_builder_free(&b);
    return w;
}

typedef struct drawn {
    uint8_t bytes[3000];
    cnk_record_spec spec;
    cnk_record_header headers[5];
} drawn;

static const uint8_t *draw_slice(cnk_rng *rng, const uint8_t *bytes, bool may_be_null, size_t *ret_len) {
    *ret_len = cnk_rng_chance(rng, 1, 20) ? cnk_rng_below(rng, 1000) : cnk_rng_below(rng, 80);
    return may_be_null && cnk_rng_chance(rng, 1, 5) ? NULL : bytes + cnk_rng_below(rng, 2000);
}

static void draw(cnk_rng *rng, drawn *d) {
    size_t len;
    cnk_rng_fill(rng, d->bytes, sizeof d->bytes);
    memset(d->bytes + 500, 'a', 1500);
    d->spec =
        (cnk_record_spec){.headers = d->headers, .header_count = cnk_rng_chance(rng, 1, 2) ? 0 : cnk_rng_below(rng, 6)};
    d->spec.timestamp = cnk_rng_chance(rng, 1, 30) ? (int64_t)cnk_rng_next(rng) : cnk_rng_between(rng, -1, 5000);
    d->spec.key = draw_slice(rng, d->bytes, true, &d->spec.key_len);
    d->spec.value = draw_slice(rng, d->bytes, true, &d->spec.value_len);
    for (size_t i = 0; i < d->spec.header_count; i++) {
        d->headers[i].key = draw_slice(rng, d->bytes, false, &len);
        d->headers[i].key_len = (int32_t)len;
        d->headers[i].value = draw_slice(rng, d->bytes, true, &len);
        d->headers[i].value_len = (int32_t)len;
    }
}

static void same_slice(const uint8_t *data, int32_t len, const void *expected, size_t expected_len) {
    ck_assert_int_eq(data == NULL, expected == NULL);
    ck_assert_int_eq(len, expected ? (int32_t)expected_len : -1);
    if (expected) ck_assert_int_eq(memcmp(data, expected, expected_len), 0);
}

START_TEST(what_is_built_is_read) {
    enum { RECORDS_MAX = 300 };
    static drawn records[RECORDS_MAX];
    cnk_rng rng;
    cnk_rng_seed(&rng, 21);
    cnk_batch_builder builder;
    for (unsigned round = 0; round < 60; round++) {
        unsigned codec = round % CNK_CODEC_COUNT;
        int count = 1 + (int)cnk_rng_below(&rng, RECORDS_MAX);
        int64_t newest = INT64_MIN;
        cnk_writer w;
        cnk_writer_growing(&w, 0);
        cnk_write_bytes(&w, "before", 6);
        cnk_batch_builder_init(&builder, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
        cnk_batch_builder_producer(&builder, 9000 + round, 7, 100);
        for (int i = 0; i < count; i++) {
            draw(&rng, &records[i]);
            if (records[i].spec.timestamp > newest) newest = records[i].spec.timestamp;
            ck_assert_int_eq(cnk_batch_builder_add(&builder, &records[i].spec), 0);
        }
        ck_assert_int_eq(cnk_batch_builder_finish(&builder, &w), 0);
        ck_assert_int_eq(cnk_batch_builder_finish(&builder, &w), CHRONIK_EINVAL); /* empty now */
        cnk_batch_builder_free(&builder);

        cnk_batch batch;
        cnk_batch_fault fault;
        cnk_records it;
        cnk_record r;
        cnk_batch_rules rules = usual;
        rules.append_time = true; /* any timestamp */
        rules.bytes_max = UINT32_MAX;
        ck_assert_int_eq(cnk_batch_validate(w.data + 6, w.len - 6, &rules, &batch, &fault), 0);
        ck_assert_uint_eq(batch.len, w.len - 6);
        ck_assert_uint_eq(cnk_batch_codec(&batch), codec);
        ck_assert_int_eq(batch.producer_id, 9000 + round);
        ck_assert_int_eq(batch.producer_epoch, 7);
        ck_assert_int_eq(batch.base_sequence, 100);
        ck_assert_int_eq(batch.leader_epoch, -1);
        ck_assert_int_eq(cnk_batch_parse(w.data + 6, w.len - 6, &batch), 0);
        ck_assert_int_eq(batch.max_timestamp, newest);
        batch.base_offset = 5000;
        ck_assert_int_eq(cnk_records_open(&batch, OPENED_MAX, &it), 0);
        for (int i = 0; i < count; i++) {
            const cnk_record_spec *s = &records[i].spec;
            ck_assert_int_eq(cnk_records_next(&it, &r), 1);
            ck_assert_int_eq(r.offset, 5000 + i);
            ck_assert_int_eq(r.timestamp, s->timestamp);
            same_slice(r.key, r.key_len, s->key, s->key_len);
            same_slice(r.value, r.value_len, s->value, s->value_len);
            ck_assert_int_eq(r.header_count, (int32_t)s->header_count);
            cnk_reader hs = cnk_record_headers(&r);
            cnk_record_header h;
            for (size_t n = 0; n < s->header_count; n++) {
                ck_assert_int_eq(cnk_record_header_next(&hs, &h), 1);
                same_slice(h.key, h.key_len, s->headers[n].key, (size_t)s->headers[n].key_len);
                same_slice(h.value, h.value_len, s->headers[n].value, (size_t)s->headers[n].value_len);
            }
            ck_assert_int_eq(cnk_record_header_next(&hs, &h), 0);
        }
        ck_assert_int_eq(cnk_records_next(&it, &r), 0);
        ck_assert_int_eq(cnk_records_next(&it, &r), 0);
        cnk_records_close(&it);
        cnk_records_close(&it);
        cnk_writer_free(&w);
    }
}
END_TEST

START_TEST(a_builder_keeps_to_its_limit_and_refuses_nonsense) {
    cnk_batch_builder b;
    cnk_writer w;
    cnk_batch batch;
    char value[100];
    memset(value, 'v', sizeof value);
    cnk_record_spec spec = {.timestamp = 1, .value = value, .value_len = sizeof value};
    cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 61 + 250);
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), 0);
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), 0);
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), CHRONIK_ETOOLARGE);
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), 0);
    ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
    ck_assert_int_eq(batch.count, 2);
    cnk_writer_free(&w);
    spec.value_len = (size_t)INT32_MAX + 1;
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), CHRONIK_EINVAL);
    spec.value_len = INT32_MAX;
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), CHRONIK_EINVAL); /* with its fields it passes 2^31 - 1 */
    cnk_record_header keyless = {NULL, NULL, 0, -1};
    spec = (cnk_record_spec){.headers = &keyless, .header_count = 1};
    ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), CHRONIK_EINVAL);
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), CHRONIK_EINVAL); /* nothing was added */
    add(&b, 1, "k", "v");
    uint8_t small[20];
    cnk_writer_fixed(&w, small, sizeof small);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), CHRONIK_ETOOLARGE);
    ck_assert_uint_eq(w.len, 0);
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), 0); /* the record was still there */
    cnk_writer_free(&w);
    cnk_batch_builder_free(&b);
    cnk_batch_builder_init(&b, 6, CNK_CODEC_LEVEL_DEFAULT, 0);
    add(&b, 1, "k", "v");
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), CHRONIK_EUNSUPPORTEDCODEC);
    cnk_batch_builder_free(&b);
    cnk_writer_free(&w);
}
END_TEST

/* ---- timestamps ------------------------------------------------------------------------------------------------- */

START_TEST(the_first_record_at_or_after_a_time_is_found) {
    static const int64_t times[] = {100, 90, 120, 120, 110, 130, -1};
    static const struct {
        int64_t at, offset, timestamp;
    } table[] = {{INT64_MIN, 40, 100}, {0, 40, 100},   {100, 40, 100}, {101, 42, 120},
                 {120, 42, 120},       {121, 45, 130}, {130, 45, 130}};
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = batch_of(codec, times, 7);
        cnk_batch batch;
        int64_t offset = -7, timestamp = -7;
        cnk_batch_place(w.data, 40, 3);
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
        ck_assert_int_eq(batch.leader_epoch, 3);
        ck_assert(cnk_batch_crc_valid(&batch));
        ck_assert_int_eq(cnk_batch_find_timestamp(&batch, 131, OPENED_MAX, &offset, &timestamp), CHRONIK_ENOTFOUND);
        ck_assert_int_eq(offset, -7);
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
            ck_assert_int_eq(cnk_batch_find_timestamp(&batch, table[i].at, OPENED_MAX, &offset, &timestamp), 0);
            ck_assert_int_eq(offset, table[i].offset);
            ck_assert_int_eq(timestamp, table[i].timestamp);
        }
        ck_assert_int_eq(cnk_batch_find_max_timestamp(&batch, OPENED_MAX, &offset, &timestamp), 0);
        ck_assert_int_eq(offset, 45);
        ck_assert_int_eq(timestamp, 130);
        if (codec) ck_assert_int_eq(cnk_batch_find_timestamp(&batch, 0, 10, &offset, &timestamp), CHRONIK_EBOMB);
        cnk_writer_free(&w);
    }
}
END_TEST

/* Kafka takes away the bit that a producer has set, and puts right a maxTimestamp that the records contradict. */
START_TEST(times_are_put_right) {
    static const int64_t times[] = {NOW - 5, NOW - 3, NOW - 4};
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++)
        for (int bit = 0; bit < 2; bit++) {
            cnk_writer w = batch_of(codec, times, 3);
            cnk_batch batch, after;
            cnk_batch_fault fault;
            uint8_t header[CNK_BATCH_HEADER_BYTES];
            ck_assert_int_eq(cnk_batch_validate(w.data, w.len, &usual, &batch, &fault), 0);
            ck_assert(!cnk_batch_correct_times(&batch, header)); /* nothing is wrong */
            cnk_store_be64(w.data + 35, (uint64_t)(NOW - 1));
            if (bit) cnk_store_be16(w.data + 21, (uint16_t)(codec | 8u));
            repair_crc(w.data, w.len);
            ck_assert_int_eq(cnk_batch_validate(w.data, w.len, &usual, &batch, &fault), 0);
            bool wrong = bit || codec == 0; /* what is compressed is not opened for that */
            ck_assert_int_eq(cnk_batch_correct_times(&batch, header), wrong);
            if (wrong) memcpy(w.data, header, sizeof header);
            ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &after), 0);
            ck_assert(cnk_batch_crc_valid(&after) && !cnk_batch_append_time(&after));
            ck_assert_int_eq(after.max_timestamp, bit || codec ? NOW - 1 : NOW - 3);
            cnk_writer_free(&w);
        }
}
END_TEST

START_TEST(append_time_is_stamped_with_the_right_crc) {
    static const int64_t times[] = {100, 90, 120};
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = batch_of(codec, times, 3);
        cnk_batch batch;
        uint8_t header[CNK_BATCH_HEADER_BYTES];
        int64_t offset, timestamp;
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
        cnk_batch_stamp_append_time(&batch, NOW, header);
        memcpy(w.data, header, sizeof header);
        cnk_batch_place(w.data, 1000, 5);
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
        ck_assert(cnk_batch_crc_valid(&batch) && cnk_batch_append_time(&batch));
        ck_assert_uint_eq(cnk_batch_codec(&batch), codec);
        ck_assert_int_eq(batch.max_timestamp, NOW);
        ck_assert_int_eq(batch.base_timestamp, 100);
        ck_assert_int_eq(cnk_batch_find_timestamp(&batch, NOW, OPENED_MAX, &offset, &timestamp), 0);
        ck_assert_int_eq(offset, 1000);
        ck_assert_int_eq(timestamp, NOW);
        ck_assert_int_eq(cnk_batch_find_timestamp(&batch, NOW + 1, OPENED_MAX, &offset, &timestamp), CHRONIK_ENOTFOUND);
        /* A batch that was damaged is not made valid by the stamp. */
        w.data[w.len - 1] ^= 1;
        cnk_batch_stamp_append_time(&batch, NOW + 1, header);
        memcpy(w.data, header, sizeof header);
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
        ck_assert(!cnk_batch_crc_valid(&batch));
        cnk_writer_free(&w);
    }
}
END_TEST

START_TEST(the_head_carries_offset_and_epoch) {
    static const int64_t times[] = {100};
    cnk_writer w = batch_of(0, times, 1);
    cnk_batch batch;
    uint8_t head[CNK_BATCH_CRC_FROM];
    ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
    cnk_batch_head(&batch, 0x0102030405060708, 0x11121314, head);
    ck_assert_mem_eq(head, "\1\2\3\4\5\6\7\10", 8);
    ck_assert_mem_eq(head + 8, w.data + 8, 4);
    ck_assert_mem_eq(head + 12, "\x11\x12\x13\x14\2", 5);
    ck_assert_mem_eq(head + 17, w.data + 17, 4);
    cnk_writer_free(&w);
}
END_TEST

/* ---- rules ------------------------------------------------------------------------------------------------------ */

START_TEST(compressed_batches_are_opened_only_where_needed) {
    static const int64_t times[] = {NOW - 5, NOW - 3, NOW - 4};
    cnk_batch batch;
    cnk_batch_fault fault;
    for (unsigned codec = 1; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = batch_of(codec, times, 3);
        cnk_batch_rules rules = usual;
        rules.decompressed_bytes_max = 1; /* whatever is opened is too large */
        ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), 0);
        rules.append_time = true;
        ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), 0);
        rules.compacted = true;
        ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), CHRONIK_EBOMB);
        rules.append_time = rules.compacted = false;
        rules.timestamp_before_max_ms = 1000;
        ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), CHRONIK_EBOMB);
        rules.timestamp_before_max_ms = INT64_MAX;
        static const int64_t implausible[] = {NOW - 6, NOW + 3600001, -2, INT64_MAX, INT64_MIN};
        for (size_t i = 0; i < 5; i++) {
            cnk_store_be64(w.data + 35, (uint64_t)implausible[i]);
            repair_crc(w.data, w.len);
            ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), CHRONIK_EBOMB);
            ck_assert_int_eq(cnk_batch_validate(w.data, w.len, &usual, &batch, &fault), 0);
            ck_assert_int_eq(batch.max_timestamp, NOW - 3); /* the truth */
        }
        /* Records that do not decompress are stored verbatim where nothing asks for them (K5). */
        cnk_store_be64(w.data + 35, (uint64_t)(NOW - 3));
        memset(w.data + 61, 0xA5, w.len - 61);
        repair_crc(w.data, w.len);
        ck_assert_int_eq(validate(w.data, w.len, &usual, &fault), 0);
        cnk_records records;
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), 0);
        ck_assert_int_lt(cnk_records_open(&batch, OPENED_MAX, &records), 0);
        cnk_writer_free(&w);
    }
}
END_TEST

START_TEST(a_lying_max_timestamp_is_told) {
    static const int64_t times[] = {NOW - 5, NOW - 3, NOW - 4};
    cnk_writer w = batch_of(0, times, 3);
    cnk_batch batch;
    cnk_store_be64(w.data + 35, (uint64_t)INT64_MAX);
    repair_crc(w.data, w.len);
    ck_assert_int_eq(cnk_batch_validate(w.data, w.len, &usual, &batch, NULL), 0);
    ck_assert_int_eq(batch.max_timestamp, NOW - 3);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(timestamp_limits_do_not_overflow) {
    static const struct {
        int64_t now, before, after, at;
        bool good;
    } table[] = {
        {NOW, 10, 10, NOW - 10, true},
        {NOW, 10, 10, NOW - 11, false},
        {NOW, 10, 10, NOW + 10, true},
        {NOW, 10, 10, NOW + 11, false},
        {NOW, 10, 10, -1, true},
        {NOW, INT64_MAX, INT64_MAX, 0, true},
        {NOW, INT64_MAX, INT64_MAX, INT64_MAX, true},
        {NOW, INT64_MAX, 10, INT64_MIN, false},
        {NOW, INT64_MAX, 10, INT64_MAX, false},
        {-5, INT64_MAX, 10, INT64_MIN, true},
        {INT64_MAX - 5, 10, 10, INT64_MAX, true},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        cnk_batch_rules rules = usual;
        cnk_batch_fault fault;
        cnk_writer w = batch_of(0, &table[i].at, 1);
        rules.now_ms = table[i].now;
        rules.timestamp_before_max_ms = table[i].before;
        rules.timestamp_after_max_ms = table[i].after;
        int rc = validate(w.data, w.len, &rules, &fault);
        ck_assert_msg(rc == (table[i].good ? 0 : CHRONIK_EINVALIDTIMESTAMP), "row %zu: %d", i, rc);
        cnk_writer_free(&w);
    }
}
END_TEST

START_TEST(faults_name_the_record) {
    cnk_batch_builder b;
    cnk_writer w;
    cnk_batch_fault fault;
    cnk_batch_rules rules = usual;
    cnk_writer_growing(&w, 0);
    cnk_batch_builder_init(&b, 0, CNK_CODEC_LEVEL_DEFAULT, 0);
    add(&b, NOW, "k", "v"), add(&b, NOW, "k", NULL), add(&b, NOW, NULL, "v"), add(&b, NOW + 3600001, "", "v");
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &w), 0);
    rules.compacted = true;
    ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), CHRONIK_EINVALIDTIMESTAMP);
    ck_assert_int_eq(fault.record, 3);
    rules.timestamp_after_max_ms *= 2;
    ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), CHRONIK_EINVALIDRECORD);
    ck_assert_int_eq(fault.record, 2); /* an empty key is a key */
    rules.compacted = false;
    ck_assert_int_eq(validate(w.data, w.len, &rules, &fault), 0);
    cnk_batch_builder_free(&b);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(transactional_batches_need_a_producer) {
    static const int64_t times[] = {NOW};
    cnk_batch_fault fault;
    cnk_writer w = batch_of(0, times, 1);
    w.data[22] |= 16;
    repair_crc(w.data, w.len);
    ck_assert_int_eq(validate(w.data, w.len, &usual, &fault), CHRONIK_EINVALIDRECORD);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(old_formats_and_short_data_do_not_parse) {
    static const int64_t times[] = {NOW};
    cnk_batch batch = {.len = 77};
    cnk_writer w = batch_of(0, times, 1);
    w.data[16] = 1;
    ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), CHRONIK_EUNSUPPORTEDFORMAT);
    w.data[16] = 0;
    ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), CHRONIK_EUNSUPPORTEDFORMAT);
    w.data[16] = 3;
    ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), CHRONIK_ECORRUPTMESSAGE);
    w.data[16] = 2;
    for (size_t len = 0; len < w.len; len++)
        ck_assert_int_eq(cnk_batch_parse(w.data, len, &batch), CHRONIK_ECORRUPTMESSAGE);
    static const uint32_t lengths[] = {0, 48, INT32_MAX, INT32_MAX - 11, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < 6; i++) {
        cnk_store_be32(w.data + 8, lengths[i]);
        ck_assert_int_eq(cnk_batch_parse(w.data, w.len, &batch), CHRONIK_ECORRUPTMESSAGE);
    }
    ck_assert_uint_eq(batch.len, 77); /* untouched */
    cnk_writer_free(&w);
}
END_TEST

/* The short way through a record says yes only where the long way does, and the same. */
static void walk_both_ways(const uint8_t *p, const uint8_t *end) {
    while (p) {
        cnk_raw_record a, b;
        const uint8_t *quick = cnk_walk_record_short(p, end, &a);
        p = cnk_walk_record_checked(p, end, &b);
        if (quick == NULL) continue;
        ck_assert_ptr_eq(quick, p);
        ck_assert(a.timestamp_delta == b.timestamp_delta && a.offset_delta == b.offset_delta && a.key == b.key &&
                  a.key_len == b.key_len && a.value == b.value && a.value_len == b.value_len &&
                  a.header_count == b.header_count && a.headers == b.headers && a.end == b.end);
    }
}

/* Whatever the records' bytes are, nothing outside is read, and validation and iteration agree on what is well formed.
 */
START_TEST(random_damage_is_survived) {
    static const int64_t times[] = {NOW, NOW + 1, NOW + 2, NOW + 3};
    cnk_rng rng;
    unsigned accepted = 0, refused = 0;
    cnk_rng_seed(&rng, 4);
    cnk_writer w = batch_of(0, times, 4);
    for (int i = 0; i < 30000; i++) {
        uint8_t copy[256];
        cnk_batch batch;
        cnk_records records;
        cnk_record r;
        cnk_batch_fault fault;
        memcpy(copy, w.data, w.len);
        for (uint64_t n = 1 + cnk_rng_below(&rng, 3); n; n--)
            copy[61 + cnk_rng_below(&rng, w.len - 61)] =
                (uint8_t)(cnk_rng_chance(&rng, 1, 2) ? cnk_rng_below(&rng, 20) : cnk_rng_next(&rng));
        repair_crc(copy, w.len);
        walk_both_ways(copy + 61, copy + w.len);
        int rc = validate(copy, w.len, &usual, &fault), read = 1;
        ck_assert_int_eq(cnk_batch_parse(copy, w.len, &batch), 0);
        ck_assert_int_eq(cnk_records_open(&batch, OPENED_MAX, &records), 0);
        while ((read = cnk_records_next(&records, &r)) == 1) continue;
        cnk_records_close(&records);
        if (rc == 0) ck_assert_int_eq(read, 0);
        if (read != 0) ck_assert_int_eq(rc, CHRONIK_EINVALIDRECORD);
        accepted += rc == 0;
        refused += rc != 0;
    }
    ck_assert_uint_gt(accepted, 500);
    ck_assert_uint_gt(refused, 500);
    cnk_writer_free(&w);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(each_allocation_may_fail) {
    static const int64_t times[] = {NOW, NOW + 1};
    cnk_batch_rules rules = usual;
    rules.compacted = true; /* opens */
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_batch_builder b;
        cnk_batch batch;
        cnk_batch_fault fault;
        cnk_writer w;
        cnk_writer_growing(&w, 0);
        cnk_batch_builder_init(&b, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
        cnk_record_spec spec = {.timestamp = times[0], .key = "k", .key_len = 1};
        cnk_mem_fail_at(0);
        ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), CHRONIK_ENOMEM);
        ck_assert_int_eq(cnk_batch_builder_add(&b, &spec), 0);
        int rc = CHRONIK_ENOMEM;
        for (long n = 0; rc; n++) {
            cnk_mem_fail_at(n);
            rc = cnk_batch_builder_finish(&b, &w);
            cnk_mem_fail_at(-1);
            ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
            if (rc) ck_assert_uint_eq(w.len, 0);
            ck_assert_int_lt(n, 50);
        }
        rc = CHRONIK_ENOMEM;
        for (long n = 0; rc; n++) {
            cnk_mem_fail_at(n);
            rc = cnk_batch_validate(w.data, w.len, &rules, &batch, &fault);
            cnk_mem_fail_at(-1);
            ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
            ck_assert_int_lt(n, 50);
        }
        ck_assert_int_eq(batch.count, 1);
        cnk_batch_builder_free(&b);
        cnk_writer_free(&w);
    }
}
END_TEST
#endif

int main(void) {
    Suite *s = suite_create("record");
    TCase *t = tcase_create("record");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, batches_are_judged_as_kafka_judges_them);
    tcase_add_test(t, what_kafkas_client_wrote_is_read);
    tcase_add_test(t, each_flipped_bit_under_the_crc_is_seen);
    tcase_add_test(t, what_is_built_is_read);
    tcase_add_test(t, a_builder_keeps_to_its_limit_and_refuses_nonsense);
    tcase_add_test(t, the_first_record_at_or_after_a_time_is_found);
    tcase_add_test(t, append_time_is_stamped_with_the_right_crc);
    tcase_add_test(t, times_are_put_right);
    tcase_add_test(t, the_head_carries_offset_and_epoch);
    tcase_add_test(t, compressed_batches_are_opened_only_where_needed);
    tcase_add_test(t, a_lying_max_timestamp_is_told);
    tcase_add_test(t, timestamp_limits_do_not_overflow);
    tcase_add_test(t, faults_name_the_record);
    tcase_add_test(t, transactional_batches_need_a_producer);
    tcase_add_test(t, old_formats_and_short_data_do_not_parse);
    tcase_add_test(t, random_damage_is_survived);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_may_fail);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
