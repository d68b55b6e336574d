/* Record batches of format 2, as Kafka's producers send them (Kafka's message format, KIP-98).
 *
 * Byte table, big-endian. The CRC-32C covers byte 21 to the end.
 *   0  i64 baseOffset            8  i32 batchLength (bytes after this field)   12 i32 partitionLeaderEpoch
 *   16 i8  magic = 2             17 u32 crc                                    21 i16 attributes
 *   23 i32 lastOffsetDelta       27 i64 baseTimestamp                          35 i64 maxTimestamp
 *   43 i64 producerId            51 i16 producerEpoch                          53 i32 baseSequence
 *   57 i32 recordCount           61 records
 * attributes: bits 0-2 codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd), 3 timestamp type (0 create, 1 append),
 * 4 transactional, 5 control, 6 delete horizon. */
#ifndef CNK_RECORD_BATCH_H
#define CNK_RECORD_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#define CNK_BATCH_HEADER_BYTES 61u
#define CNK_BATCH_CRC_FROM 21u

typedef struct cnk_batch {
    const uint8_t *data; /* borrowed: the whole batch */
    uint32_t len;        /* 12 + batchLength */
    int64_t base_offset;
    int32_t leader_epoch;
    uint32_t crc;
    uint16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp, max_timestamp;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t count;
} cnk_batch;

static inline unsigned cnk_batch_codec(const cnk_batch *b) { return b->attributes & 7u; }
static inline bool cnk_batch_append_time(const cnk_batch *b) { return (b->attributes & 8u) != 0; }
static inline bool cnk_batch_transactional(const cnk_batch *b) { return (b->attributes & 16u) != 0; }
static inline bool cnk_batch_control(const cnk_batch *b) { return (b->attributes & 32u) != 0; }

/* Reads the header at data[0..len): 0, EUNSUPPORTEDFORMAT (magic 0 or 1), ECORRUPTMESSAGE (lengths, magic). Checks
 * lengths only: the batch lies within len. Does not look at the CRC. */
int cnk_batch_parse(const void *data, size_t len, cnk_batch *ret_batch);

bool cnk_batch_crc_valid(const cnk_batch *b);

typedef struct cnk_batch_rules {
    int16_t produce_version;         /* zstd needs 7 or more (EUNSUPPORTEDCODEC) */
    uint32_t bytes_max;              /* max.message.bytes (EMESSAGETOOLARGE) */
    int64_t now_ms;                  /* the broker's wall clock */
    int64_t timestamp_before_max_ms; /* message.timestamp.before.max.ms (EINVALIDTIMESTAMP) */
    int64_t timestamp_after_max_ms;
    bool append_time;                /* message.timestamp.type = LogAppendTime: timestamps are not checked */
    bool compacted;                  /* cleanup.policy contains compact: every record needs a key (EINVALIDRECORD) */
    uint64_t decompressed_bytes_max; /* bound on opening a compressed batch */
} cnk_batch_rules;

/* Where a validation failed inside a batch, for Produce's RecordErrors. */
typedef struct cnk_batch_fault {
    int32_t record; /* -1: the batch as a whole */
    const char *text;
} cnk_batch_fault;

/* All that produce demands of the record data of one partition (K5): exactly one batch of format 2, CRC, counts, bits,
 * codec, timestamps, producer fields, size; walks uncompressed records; opens compressed ones only where the rules need
 * it. Returns 0 or ECORRUPTMESSAGE, EINVALIDRECORD, EINVALIDTIMESTAMP, EMESSAGETOOLARGE, EUNSUPPORTEDCODEC, ENOMEM; EBOMB:
 * all is well but for what had to be opened, which is more than decompressed_bytes_max.
 * `ret_fault` (may be NULL) is filled on failure.
 *
 * On success ret_batch->len may be less than len: like Kafka, bytes behind the batch that do not make a batch are
 * dropped. ret_batch->max_timestamp is the records' own where they were walked, whatever the header says. */
int cnk_batch_validate(const void *data, size_t len, const cnk_batch_rules *rules, cnk_batch *ret_batch,
                       cnk_batch_fault *ret_fault);

/* The head of the batch as stored: bytes 0..21 with the offset and epoch the broker gives it. */
void cnk_batch_head(const cnk_batch *b, int64_t base_offset, int32_t leader_epoch,
                    uint8_t ret_head[CNK_BATCH_CRC_FROM]);

/* The same in place: at the start of a copy of the batch, or of a head or header. */
void cnk_batch_place(uint8_t *head, int64_t base_offset, int32_t leader_epoch);

/* LogAppendTime, the one rewrite on the normal path: `ret_header` becomes a copy of the header with the bit and
 * maxTimestamp set and the CRC that belongs to them, made from the old one without reading the records. Place it
 * afterwards. */
void cnk_batch_stamp_append_time(const cnk_batch *b, int64_t now_ms, uint8_t ret_header[CNK_BATCH_HEADER_BYTES]);

/* The other way round, as Kafka does it: a producer may have set the bit, or a maxTimestamp that its records contradict.
 * True: what cnk_batch_validate has found to be right differs from what the batch says, and `ret_header` is as above. */
bool cnk_batch_correct_times(const cnk_batch *b, uint8_t ret_header[CNK_BATCH_HEADER_BYTES]);

#endif
