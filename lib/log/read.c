/* Where a reader's data is: in the WAL's memory, in a WAL file, or in the cold tier.
 *
 * A piece says where the data was when it was found. Between finding and reading it may move: a WAL file whose entries
 * have gone to packs is freed. Then reading says ENOTFOUND and the reader finds again, once: the second time the answer
 * is the cold tier.
 *
 * Owner: the thread of the stream's shard; cnk_log_piece_read runs in jobs. */
#include "base/error.h"
#include "log/internal.h"

static bool find_cold(const cnk_log *log, int64_t offset, int64_t end, uint32_t bytes_max, cnk_log_piece *piece);
static void fill_piece(const cnk_wal_place *place, cnk_log_piece *piece);

int64_t cnk_log_cold_end(const cnk_log *log) { return cnk_wal_stream_state(log->stream)->released_offset; }

void cnk_log_find(const cnk_log *log, int64_t offset, int64_t end, uint32_t bytes_max, cnk_log_piece *ret_piece) {
    *ret_piece = (cnk_log_piece){.where = CNK_LOG_NOWHERE};
    if (offset >= end || find_cold(log, offset, end, bytes_max, ret_piece)) return;
    cnk_wal_place place;
    if (cnk_wal_find_offset(log->stream, offset, &place) != 0 || place.entry.base_offset >= end) return;
    fill_piece(&place, ret_piece);
}

void cnk_log_find_timestamp(const cnk_log *log, int64_t timestamp, int64_t offset, int64_t end,
                            cnk_log_piece *ret_piece) {
    *ret_piece = (cnk_log_piece){.where = CNK_LOG_NOWHERE};
    cnk_wal_place place;
    if (cnk_wal_find_timestamp(log->stream, offset, timestamp, &place) != 0 || place.entry.base_offset >= end) return;
    fill_piece(&place, ret_piece);
}

void cnk_log_find_newest(const cnk_log *log, int64_t end, cnk_log_piece *ret_piece) {
    *ret_piece = (cnk_log_piece){.where = CNK_LOG_NOWHERE};
    cnk_wal_place place;
    if (cnk_wal_find_newest(log->stream, cnk_log_start(log), end, &place) == 0) fill_piece(&place, ret_piece);
}

int cnk_log_piece_read(cnk_wal *wal, const cnk_log_piece *piece, void *buf, chronik_error *err) {
    cnk_wal_file *file = cnk_wal_file_pin(wal, piece->file_seq);
    if (file == NULL) return cnk_error(err, CHRONIK_ENOTFOUND, 0, "WAL file %u is gone", (unsigned)piece->file_seq);
    int rc = cnk_wal_file_read(file, piece->file_pos, piece->bytes, piece->crc, buf, err);
    cnk_wal_file_unpin(file);
    return rc;
}

/* Offsets below the released one are in the cold tier, if anywhere: where it has nothing from here on (a repaired gap),
 * the WAL's first batch is the next one. */
static bool find_cold(const cnk_log *log, int64_t offset, int64_t end, uint32_t bytes_max, cnk_log_piece *piece) {
    const cnk_log_cold *cold = log->shard->cold;
    int64_t cold_end = cnk_log_cold_end(log);
    if (cold_end > end) cold_end = end;
    if (cold == NULL || offset >= cold_end) return false;
    if (bytes_max == 0) bytes_max = 1; /* or the hint would always say that there is nothing */
    uint64_t hint = cold->bytes_hint(cold->self, cnk_log_stream_id(log), offset, cold_end, bytes_max);
    if (hint == 0) return false;
    *piece = (cnk_log_piece){.where = CNK_LOG_COLD,
                             .base_offset = offset,
                             .end_offset = cold_end,
                             .max_timestamp = -1,
                             .bytes = hint > bytes_max ? bytes_max : (uint32_t)hint};
    return true;
}

static void fill_piece(const cnk_wal_place *place, cnk_log_piece *piece) {
    *piece = (cnk_log_piece){.where = place->data ? CNK_LOG_HOT : CNK_LOG_FILE,
                             .base_offset = place->entry.base_offset,
                             .end_offset = place->entry.base_offset + place->entry.count,
                             .max_timestamp = place->entry.max_timestamp,
                             .bytes = place->entry.len,
                             .crc = place->crc,
                             .data = place->data,
                             .slab = place->slab,
                             .file_seq = place->file_seq,
                             .file_pos = place->file_pos};
}
