/* The inside of a log, shared by its source files. Owner: the thread of the stream's shard. */
#ifndef CNK_LOG_INTERNAL_H
#define CNK_LOG_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "log/log.h"

#define NO_EPOCH ((int16_t)-1)
#define NO_PRODUCER INT64_C(-1)
#define NO_TIMESTAMP INT64_C(-1)

/* One remembered batch of a producer. */
typedef struct seen_batch {
    int64_t base_offset, timestamp;
    uint64_t index; /* 0: below every index that anybody can wait for */
    int32_t first_sequence, last_sequence;
} seen_batch;

/* What is known of a producer: its epoch and its newest batches, the oldest first. */
typedef struct producer_window {
    int16_t epoch; /* NO_EPOCH: nothing is known */
    uint8_t count;
    seen_batch batch[CNK_LOG_PRODUCER_BATCHES];
} producer_window;

typedef struct producer {
    int64_t id;
    cnk_list lru; /* in log->idle, by the last committed batch; linked where committed.epoch is known */
    producer_window committed;
    producer_window *head; /* with everything appended; NULL: as committed, or `expiring` */
    uint32_t pending;      /* entries above the commit index */
    bool expiring;         /* without a head: nothing will be known of it once a pending entry commits */
} producer;

/* An entry above the commit index. */
typedef struct pending_entry {
    uint64_t index;
    int64_t end_offset, max_timestamp;
    producer *producer; /* NULL: not idempotent, or no batch */
    seen_batch seen;
    int16_t epoch;
    uint16_t kind;
    bool expires; /* the log's command: seen.timestamp is its cutoff, seen.base_offset its bound */
} pending_entry;

/* A producer that nothing is known of, and whose batch was turned away with a code that makes it come back. */
typedef struct refused {
    cnk_list node; /* in log->refused, the oldest first */
    int64_t id;
    int16_t epoch;
    int32_t sequence;
} refused;

typedef struct epoch_row {
    uint32_t epoch;
    int64_t start_offset;
    uint64_t index; /* of the LEADER entry */
} epoch_row;

struct cnk_log {
    cnk_log_shard *shard;
    cnk_wal_stream *stream;
    uint64_t commit_index;
    int64_t high_watermark;
    int64_t max_timestamp, max_timestamp_offset; /* of what is committed */

    epoch_row *epochs;
    size_t epoch_count, epoch_capacity;

    pending_entry *pending;                                /* a ring */
    size_t pending_first, pending_count, pending_capacity; /* capacity: 0 or a power of two */

    cnk_map producers;   /* id → producer */
    cnk_list idle;       /* producers with committed state, the longest idle first */
    uint32_t known;      /* in idle */
    producer *tentative; /* made by a check whose append may not have come */
    cnk_map refused_by_id;
    cnk_list refused;
    size_t refused_count;
};

/* producers.c */
int cnk_log_producer_check(cnk_log *log, const cnk_batch *batch, const seen_batch **ret_duplicate);
producer *cnk_log_producer_append(cnk_log *log, int64_t id, int16_t epoch, const seen_batch *seen);
void cnk_log_producer_commit(cnk_log *log, const pending_entry *e);
void cnk_log_producers_rebuild(cnk_log *log); /* heads from the committed state and the pending entries */
void cnk_log_producers_expire_head(cnk_log *log, const pending_entry *e);   /* appended */
void cnk_log_producers_expire_commit(cnk_log *log, const pending_entry *e); /* committed */
int cnk_log_producer_restore(cnk_log *log, int64_t id, const producer_window *window);
int cnk_log_producer_ready(cnk_log *log, int64_t id); /* memory for one append of this producer */
void cnk_log_producers_free(cnk_log *log);
int32_t cnk_log_sequence_add(int32_t sequence, int32_t n);
bool cnk_log_windows_equal(const producer_window *a, const producer_window *b);

static inline pending_entry *pending_at(const cnk_log *log, size_t i) {
    return &log->pending[(log->pending_first + i) & (log->pending_capacity - 1)];
}

/* log.c */
#define LOG_COMMAND_EXPIRE 1u /* an entry's aux: see cnk_log_expire_aux */
void cnk_log_epoch_add(cnk_log *log, uint32_t epoch, int64_t start_offset, uint64_t index);

/* snapshot.c */
int cnk_log_restore(cnk_log *log, const void *blob, size_t len, uint64_t applied_index, uint64_t commit_index,
                    chronik_error *err);

#endif
