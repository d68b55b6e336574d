/* One partition's log: what an append gets, what a commit changes, where the ends are.
 *
 * Invariants
 *  - `pending` has one row for each entry above the commit index that is in the WAL, in order.
 *  - high_watermark is the offset after the entry at the commit index.
 *  - `epochs` is ascending in epoch and strictly ascending in start offset: an epoch that wrote no offset makes way for
 *    the next one, as in Kafka's leader epoch cache.
 *
 * Owner: the thread of the stream's shard. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "log/internal.h"

#define PENDING_KEPT 4096 /* rows that an idle log keeps */

static int fill_append(const cnk_log *log, const cnk_batch *batch, uint32_t term, int64_t append_time_ms,
                       cnk_log_append *out);
static void fill_payload(const cnk_batch *batch, bool whole_header, cnk_log_append *out);
static int reserve_pending(cnk_log *log);
static void apply_commit(cnk_log *log, const pending_entry *e);

int cnk_log_new(cnk_log_shard *shard, cnk_wal_stream *stream, const void *blob, size_t len, uint64_t applied_index,
                uint64_t commit_index, chronik_error *err, cnk_log **ret_log) {
    cnk_log *log = cnk_log_new_empty(shard);
    if (log == NULL)
        return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory for the log of stream %llu",
                         (unsigned long long)cnk_wal_stream_state(stream)->id);
    cnk_log_bind(log, stream);
    CNK_ASSERT(commit_index <= cnk_wal_stream_state(stream)->last_index);
    int rc = cnk_log_restore(log, blob, len, applied_index, commit_index, err);
    if (rc != 0) {
        cnk_log_free(log);
        return rc;
    }
    *ret_log = log;
    return 0;
}

cnk_log *cnk_log_new_empty(cnk_log_shard *shard) {
    cnk_log *log = cnk_calloc(1, sizeof *log);
    if (log == NULL) return NULL;
    log->shard = shard;
    log->max_timestamp = NO_TIMESTAMP;
    log->max_timestamp_offset = -1;
    cnk_list_init(&log->idle);
    cnk_list_init(&log->refused);
    return log;
}

void cnk_log_bind(cnk_log *log, cnk_wal_stream *stream) { log->stream = stream; }

void cnk_log_free(cnk_log *log) {
    if (log == NULL) return;
    cnk_log_producers_free(log);
    cnk_free(log->pending);
    cnk_free(log->epochs);
    cnk_free(log);
}

int cnk_log_check(cnk_log *log, const cnk_batch *batch, uint32_t term, int64_t append_time_ms,
                  cnk_log_append *ret_append, uint64_t *ret_index, int64_t *ret_base_offset) {
    if (cnk_batch_transactional(batch) || cnk_batch_control(batch)) return CHRONIK_EUNSUPPORTED;
    if (batch->producer_id >= 0) {
        const seen_batch *seen = NULL;
        int rc = cnk_log_producer_check(log, batch, &seen);
        if (rc == CHRONIK_EDUPLICATE) {
            *ret_index = seen->index;
            *ret_base_offset = seen->base_offset;
            ret_append->append_time_ms =
                seen->timestamp; /* as Kafka answers, whatever the topic's type of timestamps */
        }
        if (rc != 0) return rc;
    }
    int rc = reserve_pending(log);
    if (rc == 0 && batch->producer_id >= 0) rc = cnk_log_producer_ready(log, batch->producer_id);
    if (rc == 0) rc = fill_append(log, batch, term, append_time_ms, ret_append);
    return rc;
}

int cnk_log_reserve(cnk_log *log) {
    size_t epochs = log->epoch_count + 1;
    if (cnk_array_reserve((void **)&log->epochs, &log->epoch_capacity, epochs, sizeof *log->epochs) != 0)
        return CHRONIK_ENOMEM;
    return reserve_pending(log);
}

/* A command's aux, le: 0 u16 what it is (0: a machine's, 1: forget producers) · 2 u48 cutoff, ms · 8 i64 offset. */
void cnk_log_expire_aux(int64_t cutoff_ms, int64_t before_offset, uint8_t ret_aux[16]) {
    CNK_ASSERT(cutoff_ms >= 0 && cutoff_ms >> 48 == 0);
    cnk_store_le64(ret_aux, (uint64_t)cutoff_ms << 16 | LOG_COMMAND_EXPIRE);
    cnk_store_le64(ret_aux + 8, (uint64_t)before_offset);
}

bool cnk_log_own_command(const cnk_wal_entry *entry) {
    return entry->kind == CNK_ENTRY_COMMAND && cnk_load_le16(entry->aux) != 0;
}

void cnk_log_appended(cnk_log *log, const cnk_wal_entry *entry) {
    CNK_ASSERT(log->pending_count < log->pending_capacity);
    pending_entry *e = pending_at(log, log->pending_count);
    *e = (pending_entry){.index = entry->index,
                         .end_offset = entry->base_offset + entry->count,
                         .max_timestamp = entry->max_timestamp,
                         .kind = entry->kind,
                         .epoch = NO_EPOCH};
    log->pending_count++;
    if (entry->kind == CNK_ENTRY_LEADER) cnk_log_epoch_add(log, entry->term, entry->base_offset, entry->index);
    if (cnk_log_own_command(entry)) {
        e->expires = true;
        e->seen.timestamp = (int64_t)(cnk_load_le64(entry->aux) >> 16);
        e->seen.base_offset = (int64_t)cnk_load_le64(entry->aux + 8);
        cnk_log_producers_expire_head(log, e);
    }
    if (entry->kind != CNK_ENTRY_DATA) return;
    int64_t id = (int64_t)cnk_load_le64(entry->aux);
    int32_t sequence = (int32_t)cnk_load_le32(entry->aux + 12);
    e->epoch = (int16_t)cnk_load_le16(entry->aux + 8);
    e->seen = (seen_batch){.base_offset = entry->base_offset,
                           .timestamp = entry->max_timestamp,
                           .index = entry->index,
                           .first_sequence = sequence,
                           .last_sequence = cnk_log_sequence_add(sequence, (int32_t)entry->count - 1)};
    if (id >= 0) e->producer = cnk_log_producer_append(log, id, e->epoch, &e->seen);
}

void cnk_log_committed(cnk_log *log, uint64_t commit_index) {
    CNK_ASSERT(commit_index >= log->commit_index);
    while (log->pending_count > 0 && pending_at(log, 0)->index <= commit_index) {
        pending_entry e = *pending_at(log, 0);
        log->pending_first = (log->pending_first + 1) & (log->pending_capacity - 1);
        log->pending_count--;
        apply_commit(log, &e);
    }
    log->commit_index = commit_index;
    if (log->pending_count == 0 && log->pending_capacity > PENDING_KEPT) {
        cnk_free(log->pending);
        log->pending = NULL;
        log->pending_capacity = 0;
    }
}

void cnk_log_truncated(cnk_log *log, uint64_t last_index_kept) {
    CNK_ASSERT(last_index_kept >= log->commit_index);
    while (log->pending_count > 0 && pending_at(log, log->pending_count - 1)->index > last_index_kept)
        log->pending_count--;
    while (log->epoch_count > 0 && log->epochs[log->epoch_count - 1].index > last_index_kept) log->epoch_count--;
    cnk_log_producers_rebuild(log);
}

uint64_t cnk_log_stream_id(const cnk_log *log) { return cnk_wal_stream_state(log->stream)->id; }
uint64_t cnk_log_commit_index(const cnk_log *log) { return log->commit_index; }
int64_t cnk_log_start(const cnk_log *log) { return cnk_wal_stream_state(log->stream)->start_offset; }
int64_t cnk_log_end(const cnk_log *log) { return cnk_wal_stream_state(log->stream)->next_offset; }
int64_t cnk_log_high_watermark(const cnk_log *log) { return log->high_watermark; }
/* No transaction can be open yet: cnk_log_check refuses their batches. */
int64_t cnk_log_last_stable(const cnk_log *log) { return log->high_watermark; }
uint32_t cnk_log_producer_count(const cnk_log *log) { return log->known; }

int32_t cnk_log_epoch_at(const cnk_log *log, int64_t offset) {
    size_t low = 0, high = log->epoch_count; /* the first row that starts after the offset */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (log->epochs[mid].start_offset <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low == 0 ? -1 : (int32_t)log->epochs[low - 1].epoch;
}

void cnk_log_epoch_end(const cnk_log *log, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end_offset) {
    *ret_epoch = -1;
    *ret_end_offset = -1;
    if (epoch == -1 || log->epoch_count == 0 || epoch > (int64_t)log->epochs[log->epoch_count - 1].epoch) return;
    /* Epochs that ended at or before the log's start are as unknown as in Kafka, whose cache is cut with the log. */
    size_t first = 0;
    while (first + 1 < log->epoch_count && log->epochs[first + 1].start_offset <= cnk_log_start(log)) first++;
    *ret_epoch = epoch; /* as Kafka says of one before all that are known */
    *ret_end_offset = log->epochs[first].start_offset > cnk_log_start(log) ? log->epochs[first].start_offset : cnk_log_start(log);
    for (size_t i = log->epoch_count; i-- > first;) {
        if ((int64_t)log->epochs[i].epoch > epoch) continue;
        *ret_epoch = (int32_t)log->epochs[i].epoch;
        *ret_end_offset = i + 1 < log->epoch_count ? log->epochs[i + 1].start_offset : cnk_log_end(log);
        return;
    }
}

uint64_t cnk_log_bytes(const cnk_log *log) {
    const cnk_log_cold *cold = log->shard->cold;
    const int64_t start = cnk_log_start(log), end = cnk_log_cold_end(log);
    uint64_t bytes = cnk_wal_stream_data_bytes(log->stream);
    if (cold && start < end) bytes += cold->bytes_hint(cold->self, cnk_log_stream_id(log), start, end, INT64_MAX);
    return bytes;
}

int64_t cnk_log_max_timestamp(const cnk_log *log, int64_t *ret_base_offset) {
    *ret_base_offset = log->max_timestamp_offset;
    return log->max_timestamp;
}

/* Room was reserved. Rows that start at or after this one wrote nothing that stayed. */
void cnk_log_epoch_add(cnk_log *log, uint32_t epoch, int64_t start_offset, uint64_t index) {
    while (log->epoch_count > 0 && log->epochs[log->epoch_count - 1].start_offset >= start_offset) log->epoch_count--;
    if (log->epoch_count == CNK_LOG_EPOCHS_MAX) {
        memmove(log->epochs, log->epochs + 1, (log->epoch_count - 1) * sizeof *log->epochs);
        log->epoch_count--;
    }
    CNK_ASSERT(log->epoch_count < log->epoch_capacity);
    log->epochs[log->epoch_count++] = (epoch_row){epoch, start_offset, index};
}

/* The row's aux, le: 0 i64 producer id · 8 i16 producer epoch · 10 u16 attributes · 12 i32 base sequence. */
static int fill_append(const cnk_log *log, const cnk_batch *batch, uint32_t term, int64_t append_time_ms,
                       cnk_log_append *out) {
    int64_t base_offset = cnk_log_end(log);
    if (base_offset > INT64_MAX - batch->last_offset_delta - 1) return CHRONIK_ETOOLARGE;
    out->append_time_ms = append_time_ms;
    bool rewritten = append_time_ms >= 0;
    if (rewritten)
        cnk_batch_stamp_append_time(batch, append_time_ms, out->header);
    else
        rewritten = cnk_batch_correct_times(batch, out->header);
    if (rewritten)
        cnk_batch_place(out->header, base_offset, (int32_t)term);
    else
        cnk_batch_head(batch, base_offset, (int32_t)term, out->header);
    fill_payload(batch, rewritten, out);
    out->entry = (cnk_wal_entry){.kind = CNK_ENTRY_DATA,
                                 .count = (uint32_t)batch->last_offset_delta + 1,
                                 .base_offset = base_offset,
                                 .max_timestamp = append_time_ms >= 0 ? append_time_ms : batch->max_timestamp,
                                 .len = batch->len};
    cnk_store_le64(out->entry.aux, (uint64_t)(batch->producer_id < 0 ? NO_PRODUCER : batch->producer_id));
    cnk_store_le16(out->entry.aux + 8, (uint16_t)batch->producer_epoch);
    cnk_store_le16(out->entry.aux + 10, batch->attributes);
    cnk_store_le32(out->entry.aux + 12, (uint32_t)batch->base_sequence);
    return 0;
}

/* The CRC of the whole from the batch's own, which covers byte 21 to the end: one look at 21 bytes. */
static void fill_payload(const cnk_batch *batch, bool whole_header, cnk_log_append *out) {
    size_t head = whole_header ? CNK_BATCH_HEADER_BYTES : CNK_BATCH_CRC_FROM;
    uint32_t crc_rest = cnk_load_be32(out->header + 17);
    out->payload.iov[0] = (struct iovec){out->header, head};
    out->payload.iov[1] = (struct iovec){(void *)(uintptr_t)(batch->data + head), batch->len - head};
    out->payload.iov_count = 2;
    out->payload.crc =
        cnk_crc32c_combine(cnk_crc32c(0, out->header, CNK_BATCH_CRC_FROM), crc_rest, batch->len - CNK_BATCH_CRC_FROM);
}

static int reserve_pending(cnk_log *log) {
    if (log->pending_count < log->pending_capacity) return 0;
    if (log->pending_count >= CNK_LOG_PENDING_MAX) return CHRONIK_EAGAIN;
    size_t capacity = log->pending_capacity ? log->pending_capacity * 2 : 2; /* most partitions are idle */
    pending_entry *grown = cnk_calloc(capacity, sizeof *grown);
    if (grown == NULL) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < log->pending_count; i++) grown[i] = *pending_at(log, i);
    cnk_free(log->pending);
    log->pending = grown;
    log->pending_first = 0;
    log->pending_capacity = capacity;
    return 0;
}

static void apply_commit(cnk_log *log, const pending_entry *e) {
    log->high_watermark = e->end_offset;
    if (e->expires) cnk_log_producers_expire_commit(log, e);
    if (e->kind != CNK_ENTRY_DATA) return;
    if (e->max_timestamp > log->max_timestamp) {
        log->max_timestamp = e->max_timestamp;
        log->max_timestamp_offset = e->seen.base_offset;
    }
    if (e->producer) cnk_log_producer_commit(log, e);
}
