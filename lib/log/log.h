/* log: one partition's log over one WAL stream: offsets, epochs, producers, reading.
 *
 * A log says whether a batch may be appended and what offset and bytes it gets (cnk_log_check), is told what has been
 * appended, committed and truncated, and finds what a reader asks for: in the WAL's memory, in a WAL file, or in the
 * cold tier. It never writes: its replica does.
 *
 * Two states of producers stand side by side (R9): the committed one, which checkpoints store, and beside it, only for
 * producers with entries above the commit index, what they will be once those commit. Truncation rebuilds the second
 * from the first. Everything that a batch changes here is in its WAL row (cnk_log_aux), so replay reads no payloads.
 *
 * All functions are for the thread of the shard that owns the stream, unless they say otherwise. */
#ifndef CNK_LOG_LOG_H
#define CNK_LOG_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "base/bytes.h"
#include "base/rope.h"
#include "record/batch.h"
#include "wal/wal.h"

typedef struct cnk_log cnk_log;

/* Named limits (T8). */
#define CNK_LOG_PRODUCER_BATCHES 5     /* remembered of each producer (K6) */
#define CNK_LOG_EPOCHS_MAX 100000      /* rows of the table of leader epochs */
#define CNK_LOG_REFUSED_MAX 1000       /* producers whose refused sequence is remembered, for each log */
#define CNK_LOG_PENDING_MAX (1u << 20) /* idempotent entries above the commit index, for each log */

/* ---- the cold tier ---------------------------------------------------------------------------------------------- */

/* Entries that left the WAL (cnk_wal_stream_release) are found through this table, which the tier implements. `self` is
 * shared by all shards. */
typedef struct cnk_log_cold {
    size_t size;
    void *self;
    /* From memory, never blocking, on a shard: about how many bytes of batches the tier holds for offsets in
     * [offset, end), at most `limit`; 0: none at all. Never too small by more than it must be, for an answer is cut by
     * it; too large only wastes room in the answer. Not 0 for an offset that is missing: `read` says so. */
    uint64_t (*bytes_hint)(void *self, uint64_t stream, int64_t offset, int64_t end, uint64_t limit);
    /* Blocking, from a job. Appends to `out` the whole batches that hold offsets in [offset, end), from the one that
     * holds `offset` (or the first one after), in order, verbatim, as many as fit in bytes_max; where `one_always`,
     * the first one even if it does not fit. 0 also where there is none. *ret_next (may be NULL): the offset after them, from
     * which a reader goes on. ENOTFOUND: the data moved, ask again from the start. */
    int (*read)(void *self, uint64_t stream, int64_t offset, int64_t end, uint32_t bytes_max, bool one_always,
                cnk_rope *out, int64_t *ret_next, chronik_error *err);
    /* Blocking, from a job. The base offset of the first batch in [offset, end) whose max timestamp is at or after
     * `timestamp`. ENOTFOUND. */
    int (*find_timestamp)(void *self, uint64_t stream, int64_t timestamp, int64_t offset, int64_t end,
                          int64_t *ret_base_offset, chronik_error *err);
} cnk_log_cold;

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* What the logs of a shard share: limits and their use. One for each shard; zeroed but for the settings. */
typedef struct cnk_log_shard {
    cnk_wal *wal;
    const cnk_log_cold *cold;       /* NULL: nothing is cold */
    uint32_t producers_per_log_max; /* at it, the producer that has been idle longest is forgotten */
    uint32_t producers_max;         /* of all logs of the shard; likewise */
    uint32_t producers;             /* in use */
    uint64_t producers_evicted;     /* forgotten at one of the two limits */
} cnk_log_shard;

/* A log over the stream, which is new, or recovered: then `blob` is what cnk_log_snapshot gave (len 0: nothing), as of
 * `applied_index`, and every entry after it that is in the stream is replayed; entries up to `commit_index` count as
 * committed. ECORRUPT, ENOMEM. */
int cnk_log_new(cnk_log_shard *shard, cnk_wal_stream *stream, const void *blob, size_t len, uint64_t applied_index,
                uint64_t commit_index, chronik_error *err, cnk_log **ret_log);
/* A log for a stream that is about to be made, so that nothing can fail once it is: NULL: no memory. */
cnk_log *cnk_log_new_empty(cnk_log_shard *shard);
void cnk_log_bind(cnk_log *log, cnk_wal_stream *stream);
void cnk_log_free(cnk_log *log); /* NULL-safe */

/* The committed state as bytes, as of the commit index: see snapshot.c for the format. */
int cnk_log_snapshot(const cnk_log *log, cnk_writer *out);

/* ---- appending, for the replica --------------------------------------------------------------------------------- */

typedef struct cnk_log_append {
    cnk_wal_entry entry;     /* all but index and term is filled */
    cnk_wal_payload payload; /* points into `header` and the batch */
    uint8_t header[CNK_BATCH_HEADER_BYTES];
    int64_t append_time_ms; /* LogAppendTime's stamp; -1: CreateTime */
} cnk_log_append;

/* A batch that cnk_batch_validate passed: may it be appended now, under this term? Changes nothing. `append_time_ms`:
 * the stamp for LogAppendTime, or -1.
 *   0             fills *ret_append, to be appended at once
 *   EDUPLICATE    it is in the log already: *ret_index and *ret_base_offset are the original's (index 0: committed long
 *                 ago), ret_append->append_time_ms its max timestamp; answer when that index is committed (R9)
 *   EOUTOFORDER, EPRODUCEREPOCH, EUNSUPPORTED (a transactional batch), ENOMEM, EAGAIN (CNK_LOG_PENDING_MAX) */
int cnk_log_check(cnk_log *log, const cnk_batch *batch, uint32_t term, int64_t append_time_ms,
                  cnk_log_append *ret_append, uint64_t *ret_index, int64_t *ret_base_offset);
/* The batch was refused before it reached cnk_log_check's 0 with an error that lets the client retry (KAFKA-14884):
 * later sequences of its producer are refused until this one returns. */
void cnk_log_refused(cnk_log *log, const cnk_batch *batch);
/* The entry is in the WAL (any kind). Never fails: cnk_log_check, or cnk_log_reserve for other kinds, took memory. */
void cnk_log_appended(cnk_log *log, const cnk_wal_entry *entry);
int cnk_log_reserve(cnk_log *log);

/* Idle producers are forgotten (producer.id.expiration.ms) by a COMMAND entry of the log's own, which the leader alone
 * proposes, by its clock (R10, S27): whose newest batch has a timestamp at or before `cutoff_ms`, and an offset below
 * `before_offset`. What the entry does follows from it and from the entries before it. */
bool cnk_log_expirable(const cnk_log *log, int64_t cutoff_ms, int64_t before_offset);   /* would it do anything? */
void cnk_log_expire_aux(int64_t cutoff_ms, int64_t before_offset, uint8_t ret_aux[16]); /* cutoff from 0 to 2^48 - 1 */
bool cnk_log_own_command(const cnk_wal_entry *entry); /* the log's, and no machine's */
/* Entries up to the index are committed. */
void cnk_log_committed(cnk_log *log, uint64_t commit_index);
/* Entries above the index are gone. */
void cnk_log_truncated(cnk_log *log, uint64_t last_index_kept);

/* ---- offsets and epochs ----------------------------------------------------------------------------------------- */

uint64_t cnk_log_stream_id(const cnk_log *log);
uint64_t cnk_log_commit_index(const cnk_log *log);
int64_t cnk_log_start(const cnk_log *log);          /* the first offset that there is */
int64_t cnk_log_end(const cnk_log *log);            /* after the last appended one */
int64_t cnk_log_high_watermark(const cnk_log *log); /* after the last committed one */
int64_t cnk_log_last_stable(const cnk_log *log);    /* before the first open transaction */
uint32_t cnk_log_producer_count(const cnk_log *log);

/* The epoch of an offset, or of the log's end; -1: unknown. */
int32_t cnk_log_epoch_at(const cnk_log *log, int64_t offset);
/* For OffsetForLeaderEpoch (KIP-320): the largest epoch at or below `epoch` and where it ends; -1, -1: unknown, which is
 * so for -1 and for epochs above the newest. Below the oldest: `epoch` itself, and where the oldest begins. */
void cnk_log_epoch_end(const cnk_log *log, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end_offset);

/* The committed batch with the greatest max timestamp, the first of equals, also where it has been deleted since: its base
 * offset; -1: none. */
int64_t cnk_log_max_timestamp(const cnk_log *log, int64_t *ret_base_offset);

/* ---- describing ------------------------------------------------------------------------------------------------- */

/* Bytes of the batches in the WAL; and in the cold tier, where it is asked about what it holds for the log. */
uint64_t cnk_log_bytes(const cnk_log *log);

typedef struct cnk_log_producer { /* a producer with committed batches */
    int64_t id, last_timestamp;
    int32_t last_sequence;
    int16_t epoch;
} cnk_log_producer;

/* All of them, in memory that the caller frees (cnk_free): 0, ENOMEM. */
int cnk_log_producers_list(const cnk_log *log, cnk_log_producer **ret_producers, size_t *ret_count);

/* ---- reading ---------------------------------------------------------------------------------------------------- */

typedef struct cnk_log_aborted {
    int64_t producer_id, first_offset;
} cnk_log_aborted;

/* Where data is. HOT: `data` in memory held by `slab`, to be referenced before the shard's next event. FILE: in a WAL
 * file. COLD: in the cold tier; `bytes` is a hint for all from the offset on. */
typedef enum cnk_log_where { CNK_LOG_NOWHERE = 0, CNK_LOG_HOT, CNK_LOG_FILE, CNK_LOG_COLD } cnk_log_where;

typedef struct cnk_log_piece {
    cnk_log_where where;
    int64_t base_offset, end_offset; /* HOT, FILE: of the one batch; COLD: asked for, and where the tier's part ends */
    int64_t max_timestamp;
    uint32_t bytes;
    uint32_t crc; /* of the bytes: HOT, FILE */
    const uint8_t *data;
    cnk_wal_slab *slab;
    uint32_t file_seq;
    uint64_t file_pos;
} cnk_log_piece;

/* The batch that holds the offset, or the first one after it, below `end` (a high watermark, say): NOWHERE: there is
 * none. `bytes_max` bounds a COLD piece's hint. */
void cnk_log_find(const cnk_log *log, int64_t offset, int64_t end, uint32_t bytes_max, cnk_log_piece *ret_piece);

/* The first batch in the WAL that holds offsets in [offset, end), whose max timestamp is at or after this; NOWHERE. Where part of the log is cold (cnk_log_cold_end > cnk_log_start), ask the cold tier first. */
void cnk_log_find_timestamp(const cnk_log *log, int64_t timestamp, int64_t offset, int64_t end,
                            cnk_log_piece *ret_piece);
/* The batch in the WAL with the greatest max timestamp, at or after the log start and below `end`; NOWHERE. For when
 * cnk_log_max_timestamp's batch has been deleted. */
void cnk_log_find_newest(const cnk_log *log, int64_t end, cnk_log_piece *ret_piece);
int64_t cnk_log_cold_end(const cnk_log *log); /* offsets from the start to here have left the WAL */

/* Blocking, from a job, any thread: reads a FILE piece. ENOTFOUND: the file is gone (its data moved to the cold tier,
 * or the stream is dropped): find it again. */
int cnk_log_piece_read(cnk_wal *wal, const cnk_log_piece *piece, void *buf, chronik_error *err);

#endif
