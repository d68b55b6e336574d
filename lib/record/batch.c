/* The header of a batch: reading, placing, stamping. No state; any thread. The byte table stands in batch.h. */
#include "record/batch.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define LENGTH_FROM 12u /* batchLength counts from here */
#define MAGIC_AT 16u
#define MAGIC 2u

int cnk_batch_parse(const void *data, size_t len, cnk_batch *ret_batch) {
    const uint8_t *p = data;
    if (len < MAGIC_AT + 1) return CHRONIK_ECORRUPTMESSAGE;
    if (p[MAGIC_AT] < MAGIC) return CHRONIK_EUNSUPPORTEDFORMAT;
    if (p[MAGIC_AT] != MAGIC || len < CNK_BATCH_HEADER_BYTES) return CHRONIK_ECORRUPTMESSAGE;
    uint32_t length = cnk_load_be32(p + 8);
    if (length < CNK_BATCH_HEADER_BYTES - LENGTH_FROM || length > INT32_MAX - LENGTH_FROM || length > len - LENGTH_FROM)
        return CHRONIK_ECORRUPTMESSAGE;
    *ret_batch = (cnk_batch){
        .data = p,
        .len = LENGTH_FROM + length,
        .base_offset = (int64_t)cnk_load_be64(p),
        .leader_epoch = (int32_t)cnk_load_be32(p + 12),
        .crc = cnk_load_be32(p + 17),
        .attributes = cnk_load_be16(p + 21),
        .last_offset_delta = (int32_t)cnk_load_be32(p + 23),
        .base_timestamp = (int64_t)cnk_load_be64(p + 27),
        .max_timestamp = (int64_t)cnk_load_be64(p + 35),
        .producer_id = (int64_t)cnk_load_be64(p + 43),
        .producer_epoch = (int16_t)cnk_load_be16(p + 51),
        .base_sequence = (int32_t)cnk_load_be32(p + 53),
        .count = (int32_t)cnk_load_be32(p + 57),
    };
    return 0;
}

bool cnk_batch_crc_valid(const cnk_batch *b) {
    return cnk_crc32c(0, b->data + CNK_BATCH_CRC_FROM, b->len - CNK_BATCH_CRC_FROM) == b->crc;
}

void cnk_batch_head(const cnk_batch *b, int64_t base_offset, int32_t leader_epoch,
                    uint8_t ret_head[CNK_BATCH_CRC_FROM]) {
    memcpy(ret_head, b->data, CNK_BATCH_CRC_FROM);
    cnk_batch_place(ret_head, base_offset, leader_epoch);
}

void cnk_batch_place(uint8_t *head, int64_t base_offset, int32_t leader_epoch) {
    cnk_store_be64(head, (uint64_t)base_offset);
    cnk_store_be32(head + 12, (uint32_t)leader_epoch);
}

/* The CRC is linear: what the header's change does to its own CRC, moved past the records, is what it does to the
 * whole. So the records are not read again, and a batch that was damaged before stays recognisable as damaged. */
static void stamp(const cnk_batch *b, unsigned attributes, int64_t max_timestamp,
                  uint8_t ret_header[CNK_BATCH_HEADER_BYTES]) {
    const size_t covered = CNK_BATCH_HEADER_BYTES - CNK_BATCH_CRC_FROM;
    memcpy(ret_header, b->data, CNK_BATCH_HEADER_BYTES);
    uint32_t before = cnk_crc32c(0, ret_header + CNK_BATCH_CRC_FROM, covered);
    cnk_store_be16(ret_header + 21, (uint16_t)attributes);
    cnk_store_be64(ret_header + 35, (uint64_t)max_timestamp);
    uint32_t after = cnk_crc32c(0, ret_header + CNK_BATCH_CRC_FROM, covered);
    uint32_t crc = cnk_crc32c_combine(before ^ after, b->crc, b->len - CNK_BATCH_HEADER_BYTES);
    cnk_store_be32(ret_header + 17, crc);
}

void cnk_batch_stamp_append_time(const cnk_batch *b, int64_t now_ms, uint8_t ret_header[CNK_BATCH_HEADER_BYTES]) {
    stamp(b, b->attributes | 8u, now_ms, ret_header);
}

bool cnk_batch_correct_times(const cnk_batch *b, uint8_t ret_header[CNK_BATCH_HEADER_BYTES]) {
    if (!cnk_batch_append_time(b) && (int64_t)cnk_load_be64(b->data + 35) == b->max_timestamp) return false;
    stamp(b, b->attributes & ~8u, b->max_timestamp, ret_header);
    return true;
}
