/* Record batches: validation, iteration, search and stamping of whatever comes.
 *
 * Byte 0 chooses the rules and whether length and CRC are put right first, without which few inputs would pass the
 * first checks; the rest is the record data. Besides not crashing: what is accepted can be read to its end (where it
 * was opened), its records keep the rules, the search agrees with the walk, a stamp keeps the CRC right, and what is
 * built from the records reads the same. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "codec/codec.h"
#include "record/record.h"
#include "record/walk.h"

#define NOW INT64_C(1700000000000)
#define OPENED_MAX ((uint64_t)1 << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair(uint8_t *data, size_t size) {
    if (size < CNK_BATCH_HEADER_BYTES) return;
    cnk_store_be64(data, 0);
    cnk_store_be32(data + 8, (uint32_t)(size - 12));
    cnk_store_be32(data + 17, cnk_crc32c(0, data + CNK_BATCH_CRC_FROM, size - CNK_BATCH_CRC_FROM));
}

static bool same(const uint8_t *a, int32_t a_len, const uint8_t *b, int32_t b_len) {
    return a_len == b_len && (a == NULL) == (b == NULL) && (a_len <= 0 || memcmp(a, b, (size_t)a_len) == 0);
}

/* Where the short way through a record leads anywhere, the long way leads to the same place. */
static void check_both_ways(const uint8_t *data, size_t size) {
    const uint8_t *p = data, *end = data + size;
    while (p) {
        cnk_raw_record a, b;
        const uint8_t *quick = cnk_walk_record_short(p, end, &a);
        p = cnk_walk_record_checked(p, end, &b);
        if (quick == NULL) continue;
        CNK_ASSERT(quick == p && a.timestamp_delta == b.timestamp_delta && a.offset_delta == b.offset_delta);
        CNK_ASSERT(a.key == b.key && a.key_len == b.key_len && a.value == b.value && a.value_len == b.value_len);
        CNK_ASSERT(a.header_count == b.header_count && a.headers == b.headers && a.end == b.end);
    }
}

/* Builds the batch again from its records and compares; returns the count of records, or -1. */
static int32_t build_again(const cnk_batch *batch, unsigned codec) {
    enum { HEADERS_MAX = 64 };
    cnk_records it, it2;
    cnk_record r, r2;
    cnk_record_header headers[HEADERS_MAX];
    cnk_batch_builder builder;
    cnk_writer out;
    cnk_batch again;
    if (cnk_records_open(batch, OPENED_MAX, &it)) return -1;
    cnk_batch_builder_init(&builder, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    int32_t count = 0;
    int rc;
    bool left_out = false;
    while ((rc = cnk_records_next(&it, &r)) == 1) {
        cnk_record_spec spec = {r.timestamp,
                                r.key,
                                r.value,
                                (size_t)(r.key_len < 0 ? 0 : r.key_len),
                                (size_t)(r.value_len < 0 ? 0 : r.value_len),
                                headers,
                                0};
        cnk_reader hs = cnk_record_headers(&r);
        cnk_record_header h;
        int32_t seen = 0;
        for (; cnk_record_header_next(&hs, &h); seen++)
            if (spec.header_count < HEADERS_MAX) headers[spec.header_count++] = h;
        CNK_ASSERT(hs.error == 0 && seen == r.header_count);
        left_out |= seen > HEADERS_MAX;
        CNK_ASSERT(cnk_batch_builder_add(&builder, &spec) == 0);
        count++;
    }
    cnk_records_close(&it);
    cnk_writer_growing(&out, 0);
    if (rc == 0 && count && !left_out) {
        CNK_ASSERT(cnk_batch_builder_finish(&builder, &out) == 0);
        CNK_ASSERT(cnk_batch_parse(out.data, out.len, &again) == 0 && cnk_batch_crc_valid(&again));
        CNK_ASSERT(cnk_records_open(batch, OPENED_MAX, &it) == 0);
        CNK_ASSERT(cnk_records_open(&again, OPENED_MAX * 2, &it2) == 0);
        while (cnk_records_next(&it, &r) == 1) {
            CNK_ASSERT(cnk_records_next(&it2, &r2) == 1);
            CNK_ASSERT(r.timestamp == r2.timestamp && r.header_count == r2.header_count);
            CNK_ASSERT(same(r.key, r.key_len, r2.key, r2.key_len));
            CNK_ASSERT(same(r.value, r.value_len, r2.value, r2.value_len));
        }
        CNK_ASSERT(cnk_records_next(&it2, &r2) == 0);
        cnk_records_close(&it);
        cnk_records_close(&it2);
    }
    cnk_writer_free(&out);
    cnk_batch_builder_free(&builder);
    return rc == 0 ? count : -1;
}

static void check_search(const cnk_batch *batch, int64_t at_ms) {
    cnk_records it;
    cnk_record r;
    int64_t offset = 0, timestamp = 0;
    int rc = 0, found = cnk_batch_find_timestamp(batch, at_ms, OPENED_MAX, &offset, &timestamp);
    if (cnk_records_open(batch, OPENED_MAX, &it)) return;
    while ((rc = cnk_records_next(&it, &r)) == 1)
        if (r.timestamp >= at_ms) break;
    if (rc == 1)
        CNK_ASSERT(found == 0 && offset == r.offset && timestamp == r.timestamp);
    else
        CNK_ASSERT(found == (rc == 0 ? CHRONIK_ENOTFOUND : rc));
    cnk_records_close(&it);
}

static void check_stamp(const cnk_batch *batch) {
    cnk_batch stamped;
    uint8_t *copy = cnk_memdup(batch->data, batch->len);
    CNK_ASSERT(copy != NULL);
    cnk_batch_stamp_append_time(batch, NOW + 1, copy);
    cnk_batch_place(copy, 77, 3);
    CNK_ASSERT(cnk_batch_parse(copy, batch->len, &stamped) == 0);
    CNK_ASSERT(cnk_batch_crc_valid(&stamped) == cnk_batch_crc_valid(batch));
    CNK_ASSERT(stamped.max_timestamp == NOW + 1 && stamped.base_offset == 77 && cnk_batch_append_time(&stamped));
    cnk_free(copy);
}

/* What is stored of a batch that was accepted. */
static void check_corrected(const cnk_batch *batch) {
    cnk_batch stored;
    uint8_t *copy = cnk_memdup(batch->data, batch->len);
    CNK_ASSERT(copy != NULL);
    (void)cnk_batch_correct_times(batch, copy); /* the header, in place, or nothing */
    CNK_ASSERT(cnk_batch_parse(copy, batch->len, &stored) == 0);
    CNK_ASSERT(cnk_batch_crc_valid(&stored) && !cnk_batch_append_time(&stored));
    CNK_ASSERT(stored.max_timestamp == batch->max_timestamp && stored.base_timestamp == batch->base_timestamp);
    CNK_ASSERT((stored.attributes | 8u) == (batch->attributes | 8u) && !cnk_batch_correct_times(&stored, copy));
    cnk_free(copy);
}

static void try_batch(const uint8_t *data, size_t size, unsigned flags) {
    cnk_batch batch, parsed;
    cnk_batch_fault fault = {0, NULL};
    cnk_batch_rules rules = {.produce_version = flags & 1 ? 6 : 13,
                             .bytes_max = 1 << 20,
                             .now_ms = NOW,
                             .timestamp_before_max_ms = flags & 2 ? 1000 : INT64_MAX,
                             .timestamp_after_max_ms = 3600000,
                             .append_time = (flags & 4) != 0,
                             .compacted = (flags & 8) != 0,
                             .decompressed_bytes_max = OPENED_MAX};
    if (cnk_batch_parse(data, size, &parsed) == 0) {
        check_search(&parsed, NOW - 500);
        check_stamp(&parsed);
        build_again(&parsed, flags >> 5 & 3);
    }
    int rc = cnk_batch_validate(data, size, &rules, &batch, &fault);
    CNK_ASSERT((rc != 0) == (fault.text != NULL));
    if (rc) return;
    CNK_ASSERT(batch.len <= size && batch.count >= 1 && cnk_batch_crc_valid(&batch));
    CNK_ASSERT(!cnk_batch_control(&batch));
    check_corrected(&batch);
    int32_t count = build_again(&batch, 0);
    bool opened = cnk_batch_codec(&batch) == CNK_CODEC_NONE || rules.compacted ||
                  (!rules.append_time && !cnk_batch_append_time(&batch) && rules.timestamp_before_max_ms != INT64_MAX);
    if (opened) CNK_ASSERT(count == batch.count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    unsigned flags = data[0];
    check_both_ways(data + 1, size - 1);
    if (size > CNK_BATCH_HEADER_BYTES)
        check_both_ways(data + 1 + CNK_BATCH_HEADER_BYTES, size - 1 - CNK_BATCH_HEADER_BYTES);
    uint8_t *copy = cnk_memdup(data + 1, size - 1);
    if (copy == NULL) return 0;
    if (flags & 16) repair(copy, size - 1);
    try_batch(copy, size - 1, flags);
    cnk_free(copy);
    return 0;
}
