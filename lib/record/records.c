/* The iterator over a batch's records, and the searches by timestamp. An iterator belongs to one thread at a time. */
#include "record/record.h"

#include "codec/codec.h"
#include "record/walk.h"

int cnk_records_open(const cnk_batch *batch, uint64_t decompressed_bytes_max, cnk_records *ret_records) {
    const uint8_t *p = batch->data + CNK_BATCH_HEADER_BYTES;
    size_t len = batch->len - CNK_BATCH_HEADER_BYTES;
    cnk_writer opened;
    cnk_writer_growing(&opened, 0);
    if (cnk_batch_codec(batch) != CNK_CODEC_NONE) {
        int error = cnk_codec_decompress(cnk_batch_codec(batch), p, len, decompressed_bytes_max, &opened);
        if (error) {
            cnk_writer_free(&opened);
            return error;
        }
        p = opened.data ? opened.data : p;
        len = opened.len;
    }
    *ret_records = (cnk_records){.batch = batch, .p = p, .end = p + len, .opened = opened};
    return 0;
}

void cnk_records_close(cnk_records *records) {
    cnk_writer_free(&records->opened);
    records->p = records->end = NULL;
    records->error = CHRONIK_ECORRUPTMESSAGE;
}

static int records_end(cnk_records *r) { return r->p == r->end ? 0 : (r->error = CHRONIK_ECORRUPTMESSAGE); }

int cnk_records_next(cnk_records *records, cnk_record *ret_record) {
    const cnk_batch *batch = records->batch;
    cnk_raw_record raw;
    if (records->error) return records->error;
    if (records->done >= batch->count) return records_end(records);
    const uint8_t *next = cnk_walk_record(records->p, records->end, &raw);
    if (next == NULL) return records->error = CHRONIK_ECORRUPTMESSAGE;
    records->p = next;
    records->done++;
    /* Sums of hostile deltas wrap, as Java's do; unsigned, so that wrapping is defined. */
    *ret_record = (cnk_record){
        .offset = (int64_t)((uint64_t)batch->base_offset + (uint64_t)(int64_t)raw.offset_delta),
        .timestamp = cnk_batch_append_time(batch)
                         ? batch->max_timestamp
                         : (int64_t)((uint64_t)batch->base_timestamp + (uint64_t)raw.timestamp_delta),
        .key = raw.key,
        .value = raw.value,
        .key_len = raw.key_len,
        .value_len = raw.value_len,
        .header_count = raw.header_count,
        .headers = raw.headers,
        .headers_len = (uint32_t)(raw.end - raw.headers),
    };
    return 1;
}

cnk_reader cnk_record_headers(const cnk_record *record) { return cnk_reader_of(record->headers, record->headers_len); }

int cnk_record_header_next(cnk_reader *headers, cnk_record_header *ret_header) {
    cnk_record_header h;
    const uint8_t *p = headers->p;
    if (p == headers->end) return 0;
    p = cnk_walk_slice(p, headers->end, &h.key_len, &h.key);
    if (p && h.key) p = cnk_walk_slice(p, headers->end, &h.value_len, &h.value);
    if (p == NULL || h.key == NULL) {
        cnk_reader_fail(headers);
        return 0;
    }
    headers->p = p;
    *ret_header = h;
    return 1;
}

/* The first record at or after at_ms; with `greatest`, the first of the greatest of those. */
static int find(const cnk_batch *batch, int64_t at_ms, int64_t from_offset, bool greatest, uint64_t bytes_max,
                int64_t *ret_offset, int64_t *ret_timestamp) {
    cnk_records records;
    cnk_record record, best = {0};
    bool found = false;
    int rc = cnk_records_open(batch, bytes_max, &records);
    if (rc) return rc;
    while ((rc = cnk_records_next(&records, &record)) == 1) {
        if (record.timestamp < at_ms || record.offset < from_offset || (found && record.timestamp <= best.timestamp)) continue;
        best = record;
        found = true;
        if (!greatest) break;
    }
    cnk_records_close(&records);
    if (rc < 0) return rc;
    if (!found) return CHRONIK_ENOTFOUND;
    *ret_offset = best.offset;
    *ret_timestamp = best.timestamp;
    return 0;
}

int cnk_batch_find_timestamp(const cnk_batch *batch, int64_t at_ms, uint64_t decompressed_bytes_max,
                             int64_t *ret_offset, int64_t *ret_timestamp) {
    return find(batch, at_ms, INT64_MIN, false, decompressed_bytes_max, ret_offset, ret_timestamp);
}

int cnk_batch_find_timestamp_from(const cnk_batch *batch, int64_t at_ms, int64_t from_offset,
                                  uint64_t decompressed_bytes_max, int64_t *ret_offset, int64_t *ret_timestamp) {
    return find(batch, at_ms, from_offset, false, decompressed_bytes_max, ret_offset, ret_timestamp);
}

int cnk_batch_find_max_timestamp(const cnk_batch *batch, uint64_t decompressed_bytes_max, int64_t *ret_offset,
                                 int64_t *ret_timestamp) {
    return find(batch, INT64_MIN, INT64_MIN, true, decompressed_bytes_max, ret_offset, ret_timestamp);
}
