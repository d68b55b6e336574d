/* The records inside a batch: an iterator, a search by timestamp, and a builder.
 *
 * Byte layout of a record (all integers zigzag varints but the attributes):
 *   length (of what follows), i8 attributes (unused), timestampDelta, offsetDelta, keyLength (-1: null), key,
 *   valueLength (-1: null), value, headerCount, headers: (keyLength >= 0, key, valueLength (-1: null), value)*
 *
 * The iterator gives slices of the batch itself, or of the decompressed bytes that it holds; they live until
 * cnk_records_close (and, for an uncompressed batch, as long as the batch). Any thread, one at a time. */
#ifndef CNK_RECORD_RECORD_H
#define CNK_RECORD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#include "base/bytes.h"
#include "record/batch.h"

typedef struct cnk_record {
    int64_t offset;
    int64_t timestamp;    /* ms; -1: none. The batch's maxTimestamp where its type is append time */
    const uint8_t *key;   /* NULL: null */
    const uint8_t *value; /* NULL: null */
    int32_t key_len;      /* -1: null */
    int32_t value_len;    /* -1: null */
    int32_t header_count;
    uint32_t headers_len;
    const uint8_t *headers; /* raw; walk them with cnk_record_headers and cnk_record_header_next */
} cnk_record;

typedef struct cnk_record_header {
    const uint8_t *key;
    const uint8_t *value; /* NULL: null */
    int32_t key_len;
    int32_t value_len; /* -1: null */
} cnk_record_header;

/* ---- reading ---------------------------------------------------------------------------------------------------- */

typedef struct cnk_records {
    const cnk_batch *batch;
    const uint8_t *p, *end;
    int32_t done; /* records given */
    int error;
    cnk_writer opened; /* the decompressed bytes of a compressed batch */
} cnk_records;

/* Starts at the first record. The batch is borrowed; it has been parsed, not necessarily validated. Compressed ones are
 * decompressed here: EBOMB beyond `decompressed_bytes_max`, ECORRUPTMESSAGE, EUNSUPPORTEDCODEC, ENOMEM. On failure
 * there is nothing to close. */
int cnk_records_open(const cnk_batch *batch, uint64_t decompressed_bytes_max, cnk_records *ret_records);

/* 1: *ret_record is the next one; 0: the end, and the batch held exactly its count of records; ECORRUPTMESSAGE:
 * malformed, from here on for ever. */
int cnk_records_next(cnk_records *records, cnk_record *ret_record);

void cnk_records_close(cnk_records *records); /* may be called twice */

/* A reader over a record's headers, for cnk_record_header_next: 1, or 0 at the end. The iterator has checked their
 * form. */
cnk_reader cnk_record_headers(const cnk_record *record);
int cnk_record_header_next(cnk_reader *headers, cnk_record_header *ret_header);

/* The first record whose timestamp is at least `at_ms` (ListOffsets). ENOTFOUND where there is none, else as
 * cnk_records_open and cnk_records_next. Decompresses: a job's work where the batch is compressed. */
int cnk_batch_find_timestamp(const cnk_batch *batch, int64_t at_ms, uint64_t decompressed_bytes_max,
                             int64_t *ret_offset, int64_t *ret_timestamp);

/* The same, of those from an offset on: a log may start within a batch. */
int cnk_batch_find_timestamp_from(const cnk_batch *batch, int64_t at_ms, int64_t from_offset,
                                  uint64_t decompressed_bytes_max, int64_t *ret_offset, int64_t *ret_timestamp);

/* The first of the records with the greatest timestamp (ListOffsets -3). As above. */
int cnk_batch_find_max_timestamp(const cnk_batch *batch, uint64_t decompressed_bytes_max, int64_t *ret_offset,
                                 int64_t *ret_timestamp);

/* ---- building --------------------------------------------------------------------------------------------------- */

/* Builds one batch in memory, the way a producer does. */
typedef struct cnk_batch_builder {
    unsigned codec;
    int level;
    uint16_t attributes; /* besides the codec */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int64_t base_timestamp, max_timestamp;
    int32_t count;
    cnk_writer out; /* the header's room, then the records, uncompressed */
} cnk_batch_builder;

typedef struct cnk_record_spec { /* borrowed until cnk_batch_builder_add returns */
    int64_t timestamp;
    const void *key;   /* NULL: null */
    const void *value; /* NULL: null */
    size_t key_len, value_len;
    const cnk_record_header *headers;
    size_t header_count;
} cnk_record_spec;

/* Starts a batch. `bytes_max` bounds the batch before compression; 0: 2^31 - 1. Never fails. */
void cnk_batch_builder_init(cnk_batch_builder *builder, unsigned codec, int level, size_t bytes_max);
void cnk_batch_builder_producer(cnk_batch_builder *builder, int64_t id, int16_t epoch, int32_t base_sequence);
/* 0, ENOMEM, ETOOLARGE (the batch is as before, and can be finished), EINVAL (a length beyond 2^31 - 1, or a header
 * without key). */
int cnk_batch_builder_add(cnk_batch_builder *builder, const cnk_record_spec *record);
/* Appends the finished batch to `out` and empties the builder for the next one (producer fields stay). EINVAL without
 * records, ENOMEM, ETOOLARGE; on failure `out` is as it was, and so is the builder. */
int cnk_batch_builder_finish(cnk_batch_builder *builder, cnk_writer *out);
void cnk_batch_builder_free(cnk_batch_builder *builder);

#endif
