/* Message sets: judged and converted as Apache Kafka 3.9 does it (recorded in data/kafka_message_sets.txt by
 * tests/oracle/MessageSets.java); hostile ones are refused; each allocation may fail. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "record/message_set.h"
#include "record/record.h"

#define ANSWERS "tests/unit/data/kafka_message_sets.txt"
#define OPENED_MAX ((uint64_t)1 << 24)
#define TEXT_MAX 20000

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

/* Exact-size copies, so that the address sanitizer sees a read past the end. */
typedef struct bytes { uint8_t *data; size_t len; } bytes;

static bytes unhex(const char *hex) {
    bytes b = {malloc(strlen(hex) / 2 + 1), 0};
    unsigned byte;
    for (; hex[0] != '-' && sscanf(hex, "%2x", &byte) == 1; hex += 2) b.data[b.len++] = (uint8_t)byte;
    b.data = realloc(b.data, b.len ? b.len : 1);
    return b;
}

static bool same(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) {
    if (a == NULL || b == NULL) return a == b;
    return a_len == b_len && memcmp(a, b, a_len) == 0;
}

/* ---- sets to batches -------------------------------------------------------------------------------------------- */

static cnk_batch batch_of(const uint8_t *data, size_t len) {
    cnk_batch b;
    ck_assert_int_eq(cnk_batch_parse(data, len, &b), 0);
    ck_assert_uint_eq(b.len, len);
    ck_assert(cnk_batch_crc_valid(&b));
    return b;
}

static void same_records(const char *name, const cnk_batch *x, const cnk_batch *y, bool timestamps) {
    cnk_records a, b;
    cnk_record ra, rb;
    ck_assert_int_eq(cnk_records_open(x, OPENED_MAX, &a), 0);
    ck_assert_int_eq(cnk_records_open(y, OPENED_MAX, &b), 0);
    while (cnk_records_next(&a, &ra) == 1) {
        ck_assert_msg(cnk_records_next(&b, &rb) == 1, "%s: fewer records", name);
        ck_assert_msg(ra.offset == rb.offset && (!timestamps || ra.timestamp == rb.timestamp) && ra.header_count == 0 &&
                          same(ra.key, (size_t)ra.key_len, rb.key, (size_t)rb.key_len) &&
                          same(ra.value, (size_t)ra.value_len, rb.value, (size_t)rb.value_len),
                      "%s: record %lld", name, (long long)ra.offset);
    }
    ck_assert_msg(cnk_records_next(&b, &rb) == 0, "%s: more records", name);
    cnk_records_close(&a);
    cnk_records_close(&b);
}

static void compare_up(const char *line) {
    static char name[64], error[64], set_hex[TEXT_MAX], batch_hex[TEXT_MAX];
    int compacted, append, record;
    long long now, before, after;
    unsigned max;
    ck_assert_int_eq(sscanf(line, "up %63s %d %d %lld %lld %lld %u %63s %d %19999s %19999s", name, &compacted, &append, &now,
                            &before, &after, &max, error, &record, set_hex, batch_hex),
                     11);
    const cnk_batch_rules rules = {.bytes_max = max,
                                   .now_ms = now,
                                   .timestamp_before_max_ms = before,
                                   .timestamp_after_max_ms = after,
                                   .append_time = append != 0,
                                   .compacted = compacted != 0,
                                   .decompressed_bytes_max = OPENED_MAX};
    bytes set = unhex(set_hex), made = unhex(batch_hex);
    cnk_batch_fault fault = {-1, NULL};
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    const int rc = cnk_message_set_to_batch(set.data, set.len, &rules, CNK_MESSAGE_SET_KEEP, 0, &out, &fault);
    ck_assert_msg(strcmp(kafka_name(rc), error) == 0, "%s: %s, not %s (%s)", name, kafka_name(rc), error,
                  fault.text ? fault.text : "");
    ck_assert_int_eq(rc != 0, fault.text != NULL);
    if (rc == 0) {
        const cnk_batch ours = batch_of(out.data, out.len), kafkas = batch_of(made.data, made.len);
        if (!append) ck_assert_msg(memcmp(out.data + 21, made.data + 21, 40) == 0, "%s: another header", name);
        same_records(name, &ours, &kafkas, !append);
        if (!append && cnk_batch_codec(&ours) == CNK_CODEC_NONE)
            ck_assert_msg(same(out.data, out.len, made.data, made.len), "%s: other bytes", name);
    } else {
        ck_assert_uint_eq(out.len, 0);
        const bool first = strncmp(name, "too-old-and", 11) == 0; /* Kafka names the first at fault, in whatever way */
        if (record >= 0 && !first) ck_assert_msg(fault.record == record, "%s: record %d", name, fault.record);
    }
    cnk_writer_free(&out);
    free(set.data);
    free(made.data);
}

/* ---- batches to sets -------------------------------------------------------------------------------------------- */

static void same_message(const char *name, cnk_message *a, cnk_message *b) {
    ck_assert_msg(cnk_message_crc_valid(a) && cnk_message_open(a) == 0 && cnk_message_open(b) == 0, "%s", name);
    ck_assert_msg(a->offset == b->offset && a->magic == b->magic && a->attributes == b->attributes &&
                      a->timestamp == b->timestamp && same(a->key, a->key_len, b->key, b->key_len),
                  "%s: offset %lld", name, (long long)b->offset);
}

static void same_sets(const char *name, cnk_reader ours, cnk_reader kafkas) {
    cnk_message a, b;
    while (cnk_message_next(&kafkas, &b) == 1) {
        ck_assert_msg(cnk_message_next(&ours, &a) == 1, "%s: fewer messages", name);
        same_message(name, &a, &b);
        const unsigned codec = cnk_message_codec(&b);
        if (codec == CNK_CODEC_NONE) {
            ck_assert_msg(same(a.value, a.value_len, b.value, b.value_len), "%s: another value", name);
            continue;
        }
        const bool mistake = b.magic == 0 && codec == CNK_CODEC_LZ4;
        int (*const open)(const void *, size_t, uint64_t, cnk_writer *) = cnk_codec_lz4_old_decompress;
        cnk_writer x, y;
        cnk_writer_growing(&x, 0);
        cnk_writer_growing(&y, 0);
        ck_assert_int_eq(mistake ? open(a.value, a.value_len, OPENED_MAX, &x)
                                 : cnk_codec_decompress(codec, a.value, a.value_len, OPENED_MAX, &x), 0);
        ck_assert_int_eq(mistake ? open(b.value, b.value_len, OPENED_MAX, &y)
                                 : cnk_codec_decompress(codec, b.value, b.value_len, OPENED_MAX, &y), 0);
        ck_assert_msg(same(x.data, x.len, y.data, y.len), "%s: other messages inside", name);
        if (codec == CNK_CODEC_LZ4) ck_assert_int_eq(memcmp(a.value, b.value, 7), 0); /* the frame's header, its checksum */
        if (mistake) ck_assert_int_ne(cnk_codec_decompress(codec, a.value, a.value_len, OPENED_MAX, &x), 0);
        cnk_writer_free(&x);
        cnk_writer_free(&y);
    }
    ck_assert_msg(cnk_message_next(&ours, &a) == 0, "%s: more messages", name);
}

static void compare_down(const char *line) {
    static char name[64], batch_hex[TEXT_MAX], set_hex[TEXT_MAX];
    unsigned format;
    long long from;
    ck_assert_int_eq(sscanf(line, "down %63s %u %lld %19999s %19999s", name, &format, &from, batch_hex, set_hex), 5);
    bytes stored = unhex(batch_hex), made = unhex(set_hex);
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    cnk_batch batch;
    for (size_t at = 0; at < stored.len; at += batch.len) {
        ck_assert_int_eq(cnk_batch_parse(stored.data + at, stored.len - at, &batch), 0);
        ck_assert_int_eq(cnk_message_set_from_batch(&batch, format, from, OPENED_MAX, &out), 0);
    }
    same_sets(name, cnk_reader_of(out.data, out.len), cnk_reader_of(made.data, made.len));
    if (cnk_batch_codec(&batch) == CNK_CODEC_NONE)
        ck_assert_msg(out.len == made.len && (out.len == 0 || memcmp(out.data, made.data, out.len) == 0),
                      "%s: other bytes", name);
    cnk_writer_free(&out);
    free(stored.data);
    free(made.data);
}

START_TEST(sets_are_judged_and_converted_as_kafka_does) {
    static char line[2 * TEXT_MAX];
    unsigned up = 0, down = 0;
    FILE *f = fopen(ANSWERS, "r");
    ck_assert_msg(f != NULL, "%s cannot be read: the tests run from the top of the tree", ANSWERS);
    while (fgets(line, sizeof line, f)) {
        if (line[0] == 'u') up++, compare_up(line);
        else down++, compare_down(line);
    }
    fclose(f);
    ck_assert_uint_ge(up, 150);
    ck_assert_uint_ge(down, 30);
}
END_TEST

/* ---- what Kafka is not asked ------------------------------------------------------------------------------------ */

static const cnk_batch_rules usual = {.bytes_max = 1 << 20, .now_ms = 1000, .timestamp_before_max_ms = INT64_MAX,
                                      .timestamp_after_max_ms = INT64_MAX, .decompressed_bytes_max = OPENED_MAX};

static int convert(const cnk_writer *set, const cnk_batch_rules *rules, unsigned codec, cnk_writer *out) {
    cnk_batch_fault fault;
    return cnk_message_set_to_batch(set->data, set->len, rules, codec, CNK_CODEC_LEVEL_DEFAULT, out, &fault);
}

/* A batch of `count` records of `len` bytes, as a set. */
static void set_of(unsigned codec, unsigned format, int count, size_t len, cnk_writer *ret_set) {
    cnk_batch_builder b;
    cnk_writer stored;
    uint8_t *value = calloc(1, len + 1);
    cnk_writer_growing(ret_set, 0);
    cnk_writer_growing(&stored, 0);
    cnk_batch_builder_init(&b, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (int i = 0; i < count; i++)
        ck_assert_int_eq(cnk_batch_builder_add(&b, &(cnk_record_spec){.timestamp = i, .value = value, .value_len = len}), 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &stored), 0);
    const cnk_batch batch = batch_of(stored.data, stored.len);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, format, 0, OPENED_MAX, ret_set), 0);
    cnk_writer_free(&stored);
    cnk_batch_builder_free(&b);
    free(value);
}

START_TEST(any_codec_becomes_any_other) {
    for (unsigned from = 0; from <= CNK_CODEC_LZ4; from++)
        for (unsigned to = 0; to < CNK_CODEC_COUNT; to++) {
            cnk_writer set, out;
            set_of(from, _i == 0 ? 0 : 1, 5, 100, &set);
            cnk_writer_growing(&out, 0);
            ck_assert_int_eq(convert(&set, &usual, to, &out), 0);
            const cnk_batch batch = batch_of(out.data, out.len);
            ck_assert_uint_eq(cnk_batch_codec(&batch), to);
            ck_assert_int_eq(batch.count, 5);
            ck_assert_int_eq(batch.max_timestamp, _i == 0 ? -1 : 4);
            cnk_writer_free(&set);
            cnk_writer_free(&out);
        }
}
END_TEST

START_TEST(bombs_are_refused) {
    for (unsigned codec = 1; codec <= CNK_CODEC_LZ4; codec++) {
        cnk_writer set, out;
        cnk_batch_rules rules = usual;
        set_of(codec, 0, 1, 1 << 20, &set);
        cnk_writer_growing(&out, 0);
        rules.decompressed_bytes_max = (1 << 20) + 25; /* one byte less than the message inside */
        ck_assert_int_eq(convert(&set, &rules, 0, &out), CHRONIK_EMESSAGETOOLARGE);
        rules.decompressed_bytes_max++;
        ck_assert_int_eq(convert(&set, &rules, 0, &out), 0);
        const cnk_batch batch = batch_of(out.data, out.len);
        cnk_writer packed;
        cnk_writer_growing(&packed, 0);
        ck_assert_int_eq(cnk_message_set_from_batch(&batch, 1, 1, 0, &packed), 0); /* nothing from offset 1 on */
        ck_assert_uint_eq(packed.len, 0);
        cnk_writer_free(&packed);
        cnk_writer_free(&set);
        cnk_writer_free(&out);
    }
}
END_TEST

/* Records of a few bytes take many in their old form. */
START_TEST(swelling_is_bounded) {
    cnk_writer set, stored, out;
    set_of(0, 0, 1000, 0, &set);
    cnk_writer_growing(&stored, 0);
    cnk_writer_growing(&out, 0);
    ck_assert_int_eq(convert(&set, &usual, CNK_CODEC_GZIP, &stored), 0);
    const cnk_batch batch = batch_of(stored.data, stored.len);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, 0, 0, set.len - 1, &out), CHRONIK_EBOMB);
    ck_assert_uint_eq(out.len, 0);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, 0, 0, set.len, &out), 0);
    cnk_writer_free(&set);
    cnk_writer_free(&stored);
    cnk_writer_free(&out);
}
END_TEST

START_TEST(zstd_has_no_old_form) {
    cnk_writer set, stored, out;
    set_of(0, 1, 3, 10, &set);
    cnk_writer_growing(&stored, 0);
    cnk_writer_growing(&out, 0);
    ck_assert_int_eq(convert(&set, &usual, CNK_CODEC_ZSTD, &stored), 0);
    const cnk_batch batch = batch_of(stored.data, stored.len);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, 1, 0, OPENED_MAX, &out), CHRONIK_EUNSUPPORTEDCODEC);
    ck_assert_uint_eq(out.len, 0);
    cnk_writer_free(&set);
    cnk_writer_free(&stored);
    cnk_writer_free(&out);
}
END_TEST

START_TEST(first_formats) {
    cnk_writer set;
    ck_assert_int_eq(cnk_message_set_format(NULL, 0), CHRONIK_ENOTFOUND);
    for (unsigned format = 0; format < 2; format++) {
        set_of(0, format, 1, 10, &set);
        ck_assert_int_eq(cnk_message_set_format(set.data, set.len), (int)format);
        ck_assert_int_eq(cnk_message_set_format(set.data, set.len - 1), CHRONIK_ENOTFOUND);
        set.data[16] = 2;
        ck_assert_int_eq(cnk_message_set_format(set.data, set.len), 2);
        set.data[16] = 3;
        ck_assert_int_eq(cnk_message_set_format(set.data, 17), CHRONIK_ECORRUPTMESSAGE);
        ck_assert_int_eq(cnk_message_set_format(set.data, 16), CHRONIK_ENOTFOUND);
        cnk_store_be32(set.data + 8, 13);
        ck_assert_int_eq(cnk_message_set_format(set.data, 12), CHRONIK_ECORRUPTMESSAGE);
        ck_assert_int_eq(cnk_message_set_format(set.data, 11), CHRONIK_ENOTFOUND);
        cnk_writer_free(&set);
    }
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* Each allocation fails in its turn: ENOMEM, and nothing is left behind. */
START_TEST(memory_runs_out) {
    for (unsigned codec = 0; codec <= CNK_CODEC_LZ4; codec++) {
        cnk_writer set;
        set_of(codec, 1, 20, 500, &set);
        int failures = 0;
        for (long n = 0;; n++, failures++) {
            cnk_writer out, back;
            cnk_writer_growing(&out, 0);
            cnk_writer_growing(&back, 0);
            cnk_mem_fail_at(n);
            int rc = convert(&set, &usual, codec, &out);
            cnk_batch batch;
            if (rc == 0) rc = cnk_batch_parse(out.data, out.len, &batch);
            if (rc == 0) rc = cnk_message_set_from_batch(&batch, 0, 0, OPENED_MAX, &back);
            cnk_mem_fail_at(-1);
            if (rc == 0) ck_assert_uint_gt(back.len, 0);
            else ck_assert_int_eq(rc, CHRONIK_ENOMEM);
            cnk_writer_free(&out);
            cnk_writer_free(&back);
            if (rc == 0) break;
        }
        ck_assert_int_gt(failures, 2);
        cnk_writer_free(&set);
    }
}
END_TEST
#endif

int main(void) {
    Suite *s = suite_create("message_set");
    TCase *t = tcase_create("all");
    tcase_add_test(t, sets_are_judged_and_converted_as_kafka_does);
    tcase_add_loop_test(t, any_codec_becomes_any_other, 0, 2);
    tcase_add_test(t, bombs_are_refused);
    tcase_add_test(t, swelling_is_bounded);
    tcase_add_test(t, zstd_has_no_old_form);
    tcase_add_test(t, first_formats);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, memory_runs_out);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
