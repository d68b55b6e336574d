/* What produce demands of a partition's record data (K5). No state; any thread.
 *
 * The order of the checks, and which error each gives, are those of Apache Kafka 4.3, so that data with two faults gets
 * the same answer: the framing (its ProduceRequest), then base offset, size and CRC (its log), then the batch's fields,
 * then the records (its LogValidator). Where this differs:
 *  - a batch that says "append time" is refused always; Kafka accepts and rewrites it where the topic has create time;
 *  - records' offset deltas are 0, 1, 2, …; Kafka stores others unseen, or renumbers them where it recompresses;
 *  - compressed batches are not opened unless the rules need it; Kafka opens all;
 *  - a producer id needs an epoch, and a transactional batch a producer id;
 *  - an unknown codec is EUNSUPPORTEDCODEC, records that do not decompress are EINVALIDRECORD; Kafka calls both
 *    an unknown server error;
 *  - a wrong maxTimestamp is not rewritten, but told to the caller. */
#include <string.h>

#include "base/bytes.h"
#include "codec/codec.h"
#include "record/record.h"
#include "record/walk.h"

#define HEAD_TO_MAGIC 17u
#define LENGTH_FROM 12u
#define OLD_RECORD_MIN 14u /* the least batchLength of any format, old ones included */
#define ZSTD_SINCE_VERSION 7

static int fault(cnk_batch_fault *ret_fault, int error, int32_t record, const char *text) {
    if (ret_fault) *ret_fault = (cnk_batch_fault){record, text};
    return error;
}

static int bad_batch(cnk_batch_fault *ret_fault, const char *text) {
    return fault(ret_fault, CHRONIK_EINVALIDRECORD, -1, text);
}

/* ---- framing ---------------------------------------------------------------------------------------------------- */

/* What stands at p: the size of a whole batch of any format, 0 where there is none (or a part of one), or
 * ECORRUPTMESSAGE. */
static int64_t batch_size(const uint8_t *p, size_t len) {
    if (len < LENGTH_FROM) return 0;
    int32_t length = (int32_t)cnk_load_be32(p + 8);
    if (length < (int32_t)OLD_RECORD_MIN) return CHRONIK_ECORRUPTMESSAGE;
    if (len < HEAD_TO_MAGIC) return 0;
    if (p[HEAD_TO_MAGIC - 1] > 2) return CHRONIK_ECORRUPTMESSAGE;
    return (uint32_t)length <= len - LENGTH_FROM ? (int64_t)length + LENGTH_FROM : 0;
}

static int check_framing(const uint8_t *p, size_t len, const cnk_batch_rules *rules, cnk_batch *ret_batch,
                         cnk_batch_fault *ret_fault) {
    int64_t size = batch_size(p, len);
    if (size < 0) return fault(ret_fault, (int)size, -1, "The length or the magic of the batch is invalid");
    if (size == 0) return bad_batch(ret_fault, "There must be a whole record batch for each partition");
    if (p[HEAD_TO_MAGIC - 1] != 2) return bad_batch(ret_fault, "Only record batches of magic version 2 are allowed");
    if (size < CNK_BATCH_HEADER_BYTES)
        return fault(ret_fault, CHRONIK_ECORRUPTMESSAGE, -1, "The batch is shorter than its header");
    if (rules->produce_version < ZSTD_SINCE_VERSION && (p[22] & 7u) == CNK_CODEC_ZSTD)
        return fault(ret_fault, CHRONIK_EUNSUPPORTEDCODEC, -1, "zstd needs version 7 or later of the produce request");
    int64_t more = batch_size(p + size, len - (size_t)size);
    if (more < 0) return fault(ret_fault, (int)more, -1, "What follows the batch has an invalid length or magic");
    if (more > 0) return bad_batch(ret_fault, "There must be exactly one record batch for each partition");
    return cnk_batch_parse(p, (size_t)size, ret_batch);
}

/* ---- the header ------------------------------------------------------------------------------------------------- */

static int check_whole(const cnk_batch *b, const cnk_batch_rules *rules, cnk_batch_fault *ret_fault) {
    if (b->base_offset != 0) return bad_batch(ret_fault, "The base offset of the batch must be 0");
    if (b->len > rules->bytes_max)
        return fault(ret_fault, CHRONIK_EMESSAGETOOLARGE, -1, "The batch is larger than max.message.bytes");
    if (!cnk_batch_crc_valid(b))
        return fault(ret_fault, CHRONIK_ECORRUPTMESSAGE, -1, "The batch does not match its CRC");
    if (cnk_batch_codec(b) >= CNK_CODEC_COUNT)
        return fault(ret_fault, CHRONIK_EUNSUPPORTEDCODEC, -1, "The batch has an unknown compression type");
    return 0;
}

static int check_fields(const cnk_batch *b, cnk_batch_fault *ret_fault) {
    if (b->last_offset_delta < 0) return bad_batch(ret_fault, "The batch has an invalid offset range");
    if (b->count <= 0) return bad_batch(ret_fault, "The batch has an invalid count of records");
    if ((int64_t)b->last_offset_delta + 1 != b->count)
        return bad_batch(ret_fault, "The batch's offset range and its count of records differ");
    if (cnk_batch_control(b)) return bad_batch(ret_fault, "Clients are not allowed to write control records");
    if (b->producer_id >= 0 && b->base_sequence < 0)
        return bad_batch(ret_fault, "The batch has a producer id and an invalid sequence number");
    if (b->producer_id >= 0 && b->producer_epoch < 0)
        return bad_batch(ret_fault, "The batch has a producer id and an invalid producer epoch");
    if (b->producer_id < 0 && cnk_batch_transactional(b))
        return bad_batch(ret_fault, "The batch is transactional and has no producer id");
    return 0;
}

/* ---- the records ------------------------------------------------------------------------------------------------ */

typedef struct timestamp_range {
    int64_t low, high;
} timestamp_range;

static timestamp_range allowed(const cnk_batch_rules *rules) {
    timestamp_range range = {INT64_MIN, INT64_MAX};
    if (rules->append_time) return range;
    if (__builtin_sub_overflow(rules->now_ms, rules->timestamp_before_max_ms, &range.low)) range.low = INT64_MIN;
    if (__builtin_add_overflow(rules->now_ms, rules->timestamp_after_max_ms, &range.high)) range.high = INT64_MAX;
    return range;
}

static bool is_timely(const timestamp_range *range, int64_t timestamp) {
    return timestamp == -1 || (timestamp >= range->low && timestamp <= range->high);
}

/* The producer has set the bit for LogAppendTime: then maxTimestamp is every record's. As in Kafka that is refused where
 * the topic stamps batches itself, or where there is no timestamp; else the bit is taken away (cnk_batch_correct_times). */
static int check_bit(const cnk_batch *b, const cnk_batch_rules *rules, cnk_batch_fault *ret_fault) {
    if (!cnk_batch_append_time(b)) return 0;
    const timestamp_range range = allowed(rules);
    if (rules->append_time || b->max_timestamp == -1)
        return fault(ret_fault, CHRONIK_EINVALIDTIMESTAMP, 0,
                     "Producers must not set the timestamp type to LogAppendTime");
    if (!is_timely(&range, b->max_timestamp))
        return fault(ret_fault, CHRONIK_EINVALIDTIMESTAMP, 0, "The batch's timestamp is out of range");
    return 0;
}

/* Walks all records. A malformed one outweighs a bad timestamp, and that a missing key; of each kind the first counts.
 * -1 is "no timestamp" and always allowed. */
static int walk(cnk_batch *b, const uint8_t *p, const uint8_t *end, const cnk_batch_rules *rules,
                cnk_batch_fault *ret_fault) {
    const timestamp_range range = allowed(rules);
    const bool compacted = rules->compacted;
    int32_t keyless = -1, untimely = -1, misplaced = -1, count = b->count;
    int64_t newest = -1;
    for (int32_t i = 0; i < count; i++) {
        cnk_raw_record raw;
        p = cnk_walk_record(p, end, &raw);
        if (p == NULL) return bad_batch(ret_fault, "The batch holds a malformed record, or fewer than its count");
        int64_t timestamp = (int64_t)((uint64_t)b->base_timestamp + (uint64_t)raw.timestamp_delta);
        if (timestamp > newest) newest = timestamp;
        if (raw.offset_delta != i && misplaced < 0) misplaced = i;
        if (untimely < 0 && !is_timely(&range, timestamp) && !cnk_batch_append_time(b)) untimely = i;
        if (compacted && raw.key == NULL && keyless < 0) keyless = i;
    }
    if (p != end) return bad_batch(ret_fault, "The batch holds more than its count of records");
    if (misplaced >= 0)
        return fault(ret_fault, CHRONIK_EINVALIDRECORD, misplaced,
                     "The record's offset does not follow the last one's");
    if (untimely >= 0)
        return fault(ret_fault, CHRONIK_EINVALIDTIMESTAMP, untimely, "The record's timestamp is out of range");
    if (keyless >= 0)
        return fault(ret_fault, CHRONIK_EINVALIDRECORD, keyless, "Compacted topics accept no record without key");
    if (!cnk_batch_append_time(b)) b->max_timestamp = newest;
    return 0;
}

/* The header bounds the records' timestamps from above only, and is believed where a producer can have meant it. */
static bool needs_opening(const cnk_batch *b, const cnk_batch_rules *rules) {
    if (rules->compacted) return true;
    if (rules->append_time || cnk_batch_append_time(b)) return false;
    timestamp_range range = allowed(rules);
    bool plausible = b->max_timestamp >= b->base_timestamp && b->max_timestamp >= -1 && b->max_timestamp <= range.high;
    return !plausible || rules->timestamp_before_max_ms != INT64_MAX;
}

static int walk_compressed(cnk_batch *b, const cnk_batch_rules *rules, cnk_batch_fault *ret_fault) {
    cnk_records records;
    int error = cnk_records_open(b, rules->decompressed_bytes_max, &records);
    if (error == CHRONIK_ECORRUPTMESSAGE) return bad_batch(ret_fault, "The batch's records cannot be decompressed");
    if (error == CHRONIK_EBOMB)
        return fault(ret_fault, CHRONIK_EBOMB, -1, "The batch's records decompress to more than the limit");
    if (error) return fault(ret_fault, error, -1, chronik_strerror(error));
    error = walk(b, records.p, records.end, rules, ret_fault);
    cnk_records_close(&records);
    return error;
}

int cnk_batch_validate(const void *data, size_t len, const cnk_batch_rules *rules, cnk_batch *ret_batch,
                       cnk_batch_fault *ret_fault) {
    cnk_batch b;
    int error = check_framing(data, len, rules, &b, ret_fault);
    if (error == 0) error = check_whole(&b, rules, ret_fault);
    if (error == 0) error = check_fields(&b, ret_fault);
    if (error) return error;
    if (cnk_batch_codec(&b) == CNK_CODEC_NONE)
        error = walk(&b, b.data + CNK_BATCH_HEADER_BYTES, b.data + b.len, rules, ret_fault);
    else if (needs_opening(&b, rules))
        error = walk_compressed(&b, rules, ret_fault);
    if (error == 0) error = check_bit(&b, rules, ret_fault);
    if (error) return error;
    *ret_batch = b;
    return 0;
}
