/* A log's committed state as bytes, for checkpoints and snapshots; and back, with the entries after it.
 *
 * Little-endian. The checkpoint that carries the bytes has a CRC over them; here lengths and counts are checked.
 *   0   u32 "CLOG"           4  u16 version (1)        6  u16 must-understand flags (0)
 *   8   u64 commit index     16 i64 high watermark     24 i64 greatest max timestamp   32 i64 its batch's base offset
 *   40  u32 count of epochs, then each: u32 epoch · i64 start offset · u64 index
 *       u32 count of producers, the longest idle first, then each:
 *           i64 id · i16 epoch · u8 batches (1 to 5) · u8 flags (0) · i64 first offset of its open transaction (-1)
 *           then each batch, the oldest first: i32 first sequence · i32 last sequence · i64 base offset · i64 timestamp
 *       u32 count of aborted transactions, then each: i64 producer id · i64 first offset · i64 last offset
 *           · i64 last stable offset at its end
 *
 * Crash rule: none of its own; a state that is older than the log is made up for by replay, since its index is in it.
 */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "log/internal.h"

#define MAGIC UINT32_C(0x474f4c43) /* "CLOG" */
#define VERSION 1
#define EPOCH_BYTES 20u
#define PRODUCER_BYTES 20u
#define BATCH_BYTES 24u

static int read_state(cnk_log *log, cnk_reader *r, uint64_t applied_index);
static int read_epochs(cnk_log *log, cnk_reader *r);
static int read_producers(cnk_log *log, cnk_reader *r);
static int read_producer(cnk_log *log, cnk_reader *r);
static int replay(cnk_log *log, uint64_t commit_index, chronik_error *err);

int cnk_log_snapshot(const cnk_log *log, cnk_writer *out) {
    cnk_write_le32(out, MAGIC);
    cnk_write_le16(out, VERSION);
    cnk_write_le16(out, 0);
    cnk_write_le64(out, log->commit_index);
    cnk_write_le64(out, (uint64_t)log->high_watermark);
    cnk_write_le64(out, (uint64_t)log->max_timestamp);
    cnk_write_le64(out, (uint64_t)log->max_timestamp_offset);
    uint32_t epochs = 0;
    while (epochs < log->epoch_count && log->epochs[epochs].index <= log->commit_index) epochs++;
    cnk_write_le32(out, epochs);
    for (uint32_t i = 0; i < epochs; i++) {
        cnk_write_le32(out, log->epochs[i].epoch);
        cnk_write_le64(out, (uint64_t)log->epochs[i].start_offset);
        cnk_write_le64(out, log->epochs[i].index);
    }
    cnk_write_le32(out, log->known);
    for (const cnk_list *it = log->idle.next; it != &log->idle; it = it->next) {
        const producer *p = CNK_CONTAINER(it, producer, lru);
        cnk_write_le64(out, (uint64_t)p->id);
        cnk_write_le16(out, (uint16_t)p->committed.epoch);
        cnk_write_u8(out, p->committed.count);
        cnk_write_u8(out, 0);
        cnk_write_le64(out, UINT64_MAX);
        for (size_t i = 0; i < p->committed.count; i++) {
            cnk_write_le32(out, (uint32_t)p->committed.batch[i].first_sequence);
            cnk_write_le32(out, (uint32_t)p->committed.batch[i].last_sequence);
            cnk_write_le64(out, (uint64_t)p->committed.batch[i].base_offset);
            cnk_write_le64(out, (uint64_t)p->committed.batch[i].timestamp);
        }
    }
    cnk_write_le32(out, 0);
    return out->error;
}

int cnk_log_restore(cnk_log *log, const void *blob, size_t len, uint64_t applied_index, uint64_t commit_index,
                    chronik_error *err) {
    const cnk_wal_state *state = cnk_wal_stream_state(log->stream);
    int rc = 0;
    if (len > 0) {
        cnk_reader r = cnk_reader_of(blob, len);
        rc = read_state(log, &r, applied_index);
    }
    if (rc == 0 && (log->commit_index < state->released_index || log->commit_index > state->last_index))
        rc = CHRONIK_ECORRUPT;
    if (rc != 0)
        return cnk_error(err, rc, 0, "stream %llu: the checkpoint's state of the log %s", (unsigned long long)state->id,
                         rc == CHRONIK_ENOMEM ? "does not fit into memory" : "is damaged");
    return replay(log, commit_index, err);
}

/* The entries after the state, from their rows alone. */
static int replay(cnk_log *log, uint64_t commit_index, chronik_error *err) {
    uint64_t id = cnk_wal_stream_state(log->stream)->id, last = cnk_wal_stream_state(log->stream)->last_index;
    for (uint64_t index = log->commit_index + 1; index <= last; index++) {
        cnk_wal_place place;
        int rc = cnk_wal_find_index(log->stream, index, &place);
        if (rc == 0 && place.entry.kind == CNK_ENTRY_DATA && place.entry.count == 0) rc = CHRONIK_ECORRUPT;
        if (rc == 0 && cnk_log_own_command(&place.entry) && cnk_load_le16(place.entry.aux) != LOG_COMMAND_EXPIRE)
            return cnk_error(err, CHRONIK_EUNSUPPORTED, 0, "stream %llu: entry %llu is a command of a later version",
                             (unsigned long long)id, (unsigned long long)index);
        if (rc != 0)
            return cnk_error(err, CHRONIK_ECORRUPT, 0, "stream %llu: entry %llu is missing from the WAL",
                             (unsigned long long)id, (unsigned long long)index);
        rc = cnk_log_reserve(log);
        int64_t producer_id = (int64_t)cnk_load_le64(place.entry.aux);
        if (rc == 0 && place.entry.kind == CNK_ENTRY_DATA && producer_id >= 0)
            rc = cnk_log_producer_ready(log, producer_id);
        if (rc != 0)
            return cnk_error(err, rc, 0, "stream %llu: no memory to replay entry %llu", (unsigned long long)id,
                             (unsigned long long)index);
        cnk_log_appended(log, &place.entry);
        if (index <= commit_index) cnk_log_committed(log, index);
    }
    return 0;
}

static int read_state(cnk_log *log, cnk_reader *r, uint64_t applied_index) {
    uint32_t magic = cnk_read_le32(r);
    uint16_t version = cnk_read_le16(r), flags = cnk_read_le16(r);
    if (r->error != 0 || magic != MAGIC || version != VERSION || flags != 0) return CHRONIK_ECORRUPT;
    log->commit_index = cnk_read_le64(r);
    log->high_watermark = (int64_t)cnk_read_le64(r);
    log->max_timestamp = (int64_t)cnk_read_le64(r);
    log->max_timestamp_offset = (int64_t)cnk_read_le64(r);
    if (log->commit_index != applied_index || log->high_watermark < 0) return CHRONIK_ECORRUPT;
    int rc = read_epochs(log, r);
    if (rc == 0) rc = read_producers(log, r);
    if (rc == 0 && cnk_read_le32(r) != 0) /* aborted transactions: none can be there yet */
        rc = CHRONIK_ECORRUPT;
    if (rc == 0 && (r->error != 0 || cnk_reader_left(r) != 0)) rc = CHRONIK_ECORRUPT;
    return rc;
}

static int read_epochs(cnk_log *log, cnk_reader *r) {
    uint32_t count = cnk_read_le32(r);
    if (count > cnk_reader_left(r) / EPOCH_BYTES || count > CNK_LOG_EPOCHS_MAX) return CHRONIK_ECORRUPT;
    if (count == 0) return 0;
    if (cnk_array_reserve((void **)&log->epochs, &log->epoch_capacity, count, sizeof *log->epochs) != 0)
        return CHRONIK_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        epoch_row row = {.epoch = cnk_read_le32(r)};
        row.start_offset = (int64_t)cnk_read_le64(r);
        row.index = cnk_read_le64(r);
        const epoch_row *before = i > 0 ? &log->epochs[i - 1] : NULL;
        if (row.epoch > INT32_MAX || row.start_offset < 0 ||
            (before && (row.epoch <= before->epoch || row.start_offset <= before->start_offset)))
            return CHRONIK_ECORRUPT;
        log->epochs[log->epoch_count++] = row;
    }
    return 0;
}

static int read_producers(cnk_log *log, cnk_reader *r) {
    uint32_t count = cnk_read_le32(r);
    if (count > cnk_reader_left(r) / PRODUCER_BYTES) return CHRONIK_ECORRUPT;
    int rc = 0;
    for (uint32_t i = 0; i < count && rc == 0; i++) rc = read_producer(log, r);
    return rc;
}

static int read_producer(cnk_log *log, cnk_reader *r) {
    int64_t id = (int64_t)cnk_read_le64(r);
    producer_window w = {.epoch = (int16_t)cnk_read_le16(r)};
    w.count = cnk_read_u8(r);
    uint8_t flags = cnk_read_u8(r);
    int64_t transaction = (int64_t)cnk_read_le64(r);
    if (id < 0 || w.epoch < 0 || w.count == 0 || w.count > CNK_LOG_PRODUCER_BATCHES || flags != 0 || transaction != -1)
        return CHRONIK_ECORRUPT;
    for (size_t i = 0; i < w.count; i++) {
        w.batch[i].first_sequence = (int32_t)cnk_read_le32(r);
        w.batch[i].last_sequence = (int32_t)cnk_read_le32(r);
        w.batch[i].base_offset = (int64_t)cnk_read_le64(r);
        w.batch[i].timestamp = (int64_t)cnk_read_le64(r);
        if (w.batch[i].first_sequence < 0 || w.batch[i].last_sequence < 0) return CHRONIK_ECORRUPT;
    }
    return r->error != 0 ? CHRONIK_ECORRUPT : cnk_log_producer_restore(log, id, &w);
}
