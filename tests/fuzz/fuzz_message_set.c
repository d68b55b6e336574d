/* Message sets: whatever comes, judged, converted into a batch and back.
 *
 * Byte 0 chooses the rules, the codec and the format to go back to, and whether sizes and CRCs are put right first,
 * without which few inputs would pass the first checks; the rest is the record data. Besides not crashing: the batch that
 * is made passes the judgement of batches, has the messages' keys and values, and comes back from its old form unchanged. */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "codec/codec.h"
#include "record/message_set.h"
#include "record/record.h"

#include <zlib.h>

#define NOW INT64_C(1700000000000)
#define OPENED_MAX ((uint64_t)1 << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The messages' CRCs, as far as there are whole ones; the last one's size reaches to the end. */
static void repair(uint8_t *data, size_t size) {
    for (size_t at = 0; size - at >= 12 + CNK_MESSAGE_SIZE_MIN;) {
        uint32_t len = cnk_load_be32(data + at + 8);
        if (len < CNK_MESSAGE_SIZE_MIN || len > size - at - 12) {
            len = (uint32_t)(size - at - 12);
            cnk_store_be32(data + at + 8, len);
        }
        cnk_store_be32(data + at + 12, (uint32_t)crc32(0, data + at + 16, len - 4));
        at += 12 + len;
    }
}

static bool same(const uint8_t *a, int32_t a_len, const uint8_t *b, int32_t b_len) {
    return a_len == b_len && (a == NULL) == (b == NULL) && (a_len <= 0 || memcmp(a, b, (size_t)a_len) == 0);
}

static void check_same(const cnk_batch *x, const cnk_batch *y, bool timestamps) {
    cnk_records a, b;
    cnk_record ra, rb;
    CNK_ASSERT(x->count == y->count);
    CNK_ASSERT(cnk_records_open(x, 2 * OPENED_MAX, &a) == 0 && cnk_records_open(y, 2 * OPENED_MAX, &b) == 0);
    while (cnk_records_next(&a, &ra) == 1) {
        CNK_ASSERT(cnk_records_next(&b, &rb) == 1);
        CNK_ASSERT(ra.offset == rb.offset && (!timestamps || ra.timestamp == rb.timestamp));
        CNK_ASSERT(same(ra.key, ra.key_len, rb.key, rb.key_len) && same(ra.value, ra.value_len, rb.value, rb.value_len));
    }
    CNK_ASSERT(cnk_records_next(&b, &rb) == 0);
    cnk_records_close(&a);
    cnk_records_close(&b);
}

/* As a consumer of old would see the batch, and send it again. */
static void check_back(const cnk_batch *batch, unsigned format) {
    cnk_batch_rules rules = {.bytes_max = INT32_MAX, .append_time = true, .decompressed_bytes_max = 4 * OPENED_MAX};
    cnk_batch_fault fault;
    cnk_batch again;
    cnk_writer set, out;
    cnk_writer_growing(&set, 0);
    cnk_writer_growing(&out, 0);
    const int rc = cnk_message_set_from_batch(batch, format, 0, 2 * OPENED_MAX, &set);
    if (cnk_batch_codec(batch) == CNK_CODEC_ZSTD) {
        CNK_ASSERT(rc == CHRONIK_EUNSUPPORTEDCODEC && set.len == 0);
    } else {
        CNK_ASSERT(rc == 0);
        CNK_ASSERT(cnk_message_set_format(set.data, set.len) == (int)format);
        CNK_ASSERT(cnk_message_set_to_batch(set.data, set.len, &rules, CNK_MESSAGE_SET_KEEP, 0, &out, &fault) == 0);
        CNK_ASSERT(cnk_batch_parse(out.data, out.len, &again) == 0 && again.len == out.len);
        CNK_ASSERT(cnk_batch_codec(&again) == cnk_batch_codec(batch));
        check_same(batch, &again, format == 1);
    }
    cnk_writer_free(&set);
    cnk_writer_free(&out);
}

static void try_set(const uint8_t *data, size_t size, unsigned flags) {
    static const unsigned codecs[] = {CNK_MESSAGE_SET_KEEP, CNK_CODEC_NONE, CNK_CODEC_LZ4, CNK_CODEC_ZSTD};
    cnk_batch_rules rules = {.produce_version = 13,
                             .bytes_max = 1 << 20,
                             .now_ms = NOW,
                             .timestamp_before_max_ms = flags & 2 ? 1000 : INT64_MAX,
                             .timestamp_after_max_ms = 3600000,
                             .append_time = (flags & 4) != 0,
                             .compacted = (flags & 8) != 0,
                             .decompressed_bytes_max = OPENED_MAX};
    cnk_batch_fault fault = {0, NULL};
    cnk_batch batch, judged;
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    const int format = cnk_message_set_format(data, size);
    const int rc = cnk_message_set_to_batch(data, size, &rules, codecs[flags >> 5 & 3], CNK_CODEC_LEVEL_DEFAULT, &out,
                                            &fault);
    CNK_ASSERT((rc != 0) == (fault.text != NULL) && (rc == 0) == (out.len > 0));
    if (rc == 0) {
        CNK_ASSERT(format == 0 || format == 1);
        CNK_ASSERT(cnk_batch_parse(out.data, out.len, &batch) == 0 && batch.len == out.len);
        rules.bytes_max = INT32_MAX;
        CNK_ASSERT(cnk_batch_validate(out.data, out.len, &rules, &judged, &fault) == 0);
        CNK_ASSERT(judged.max_timestamp == batch.max_timestamp);
        check_back(&batch, flags >> 7);
    }
    cnk_writer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const unsigned flags = data[0];
    uint8_t *copy = cnk_memdup(data + 1, size - 1);
    if (copy == NULL) return 0;
    if (flags & 16) repair(copy, size - 1);
    try_set(copy, size - 1, flags);
    cnk_free(copy);
    return 0;
}
