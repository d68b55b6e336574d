/* fsck's reading: as recovery (recover.c), but it goes on where recovery stops.
 *
 *  - A file whose header is damaged is read nevertheless, where a checkpoint or the next file names it, or where it holds
 *    newer blocks than all others that are proved to have been synced.
 *  - In proven data a bad block is skipped: on to the next block of this use of the file, at its own position, with a
 *    higher LSN. Where the file has its footer, the rows of bad blocks come from there, and only payloads can be lost.
 *  - An entry that is missing, or whose payload is damaged, is replaced by one of the same index and term that takes no
 *    offsets: a gap, as compaction leaves them. All later entries keep their indexes and offsets.
 *
 * One thread; nothing is written. */
#include "wal/fsck.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"

enum { WINDOW_BYTES = 4 << 20, FOOTER_BYTES_MAX = 1 << 30 };

typedef unsigned long long ull;

void cnk_fsck_say(cnk_fsck *k, const char *format, ...) {
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (k->line) k->line(k->arg, text);
}

static void finding(cnk_fsck *k, cnk_fsck_file *f, const char *format, ...) CHRONIK_PRINTF(3, 4);
static void finding(cnk_fsck *k, cnk_fsck_file *f, const char *format, ...) {
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    k->findings++;
    if (f) f->damaged = true;
    cnk_fsck_say(k, "damage: %s%s%s", f ? f->name : "", f ? ": " : "", text);
}

static void saw_lsn(cnk_fsck *k, uint64_t lsn) {
    if (lsn > k->max_lsn) k->max_lsn = lsn;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

/* Page by page, since some cannot be read. */
static size_t read_pages(cnk_fsck *k, cnk_fsck_file *f, uint64_t pos, size_t len) {
    const chronik_io *io = k->wal->io;
    size_t done = 0;
    while (done < len && pos + done < f->bytes) {
        int64_t got = io->disk_ops->read(io->disk, f->handle, k->window + done, CNK_WAL_ALIGN, pos + done, NULL);
        if (got < 0) {
            finding(k, f, "the 4096 bytes at %llu cannot be read from the device", (ull)(pos + done));
            memset(k->window + done, 0, CNK_WAL_ALIGN);
            got = CNK_WAL_ALIGN;
        }
        if (got == 0) break;
        done += (size_t)got;
    }
    return done;
}

int cnk_fsck_window(cnk_fsck *k, cnk_fsck_file *f, uint64_t pos, size_t len, const uint8_t **ret_p) {
    const chronik_io *io = k->wal->io;
    *ret_p = NULL;
    if (len > f->bytes || pos > f->bytes - len) return 0;
    uint64_t from = pos & ~(uint64_t)(CNK_WAL_ALIGN - 1);
    if (k->window_file != f || pos < k->window_pos || pos + len > k->window_pos + k->window_len) {
        size_t want = (size_t)cnk_wal_align_up(pos - from + len);
        if (want < WINDOW_BYTES) want = WINDOW_BYTES;
        if (want > k->window_size) {
            uint8_t *pages = cnk_pages_alloc(want);
            if (!pages) return CHRONIK_ENOMEM;
            cnk_pages_free(k->window, k->window_size);
            k->window = pages;
            k->window_size = want;
        }
        k->window_file = NULL;
        uint64_t left = cnk_wal_align_up(f->bytes) - from;
        size_t ask = k->window_size < left ? k->window_size : (size_t)left;
        int64_t got = io->disk_ops->read(io->disk, f->handle, k->window, ask, from, NULL);
        k->window_len = got < 0 ? read_pages(k, f, from, ask) : (size_t)got;
        k->window_pos = from;
        k->window_file = f;
    }
    if (pos + len <= k->window_pos + k->window_len) *ret_p = k->window + (pos - k->window_pos);
    return 0;
}

static bool is_payload(const cnk_wal_row *row) { return row->frame == CNK_FRAME_ENTRY || row->frame == CNK_FRAME_REWRITE; }

/* Whether a whole block of this file is at pos: 1, 0, or an error. */
static int block_at(cnk_fsck *k, cnk_fsck_file *f, uint64_t uid, uint64_t pos, cnk_wal_block_header *ret_h,
                    const uint8_t **ret_p) {
    int code = cnk_fsck_window(k, f, pos, CNK_WAL_BLOCK_HEADER, ret_p);
    if (code || !*ret_p) return code;
    if (cnk_wal_block_header_get(*ret_p, uid, ret_h)) return 0;
    if ((uint64_t)ret_h->block_number * CNK_WAL_ALIGN != pos) return 0;
    code = cnk_fsck_window(k, f, pos, ret_h->len, ret_p);
    if (code || !*ret_p) return code;
    const uint8_t *table = *ret_p + ret_h->rows_pos;
    if (cnk_crc32c(cnk_wal_seed(uid), table, (size_t)ret_h->rows * CNK_WAL_ROW_BYTES) != ret_h->rows_crc) return 0;
    for (uint32_t n = 0; n < ret_h->rows; n++) {
        cnk_wal_row row;
        cnk_wal_row_get(table + (size_t)n * CNK_WAL_ROW_BYTES, &row);
        if (is_payload(&row) && (uint64_t)row.pos + row.e.len > ret_h->len) return 0;
    }
    saw_lsn(k, ret_h->lsn);
    return 1;
}

/* The highest watermark in the file, or the last LSN that its trailer names: everything up to it had been synced. */
static int proof_of(cnk_fsck *k, cnk_fsck_file *f, uint64_t uid, uint64_t *ret_lsn) {
    if (f->proof == 0 && f->bytes >= 3 * CNK_WAL_ALIGN && f->bytes % CNK_WAL_ALIGN == 0) {
        const uint8_t *p;
        cnk_wal_trailer t;
        int code = cnk_fsck_window(k, f, f->bytes - CNK_WAL_ALIGN, CNK_WAL_ALIGN, &p);
        if (code) return code;
        if (p && cnk_wal_trailer_get(p, uid, &t) == 0) *ret_lsn = t.last_lsn;
    }
    for (uint64_t pos = CNK_WAL_ALIGN; f->proof == 0 && pos + CNK_WAL_ALIGN <= f->bytes; pos += CNK_WAL_ALIGN) {
        const uint8_t *p;
        cnk_wal_block_header h;
        int code = cnk_fsck_window(k, f, pos, CNK_WAL_BLOCK_HEADER, &p);
        if (code) return code;
        if (!p || cnk_wal_block_header_get(p, uid, &h) || (uint64_t)h.block_number * CNK_WAL_ALIGN != pos) continue;
        if (h.watermark > *ret_lsn) *ret_lsn = h.watermark;
    }
    if (f->proof == 0) f->proof = *ret_lsn + 1;
    *ret_lsn = f->proof - 1;
    return 0;
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

static int stream_add(cnk_fsck *k, uint64_t id, cnk_fsck_stream **ret_stream) {
    cnk_fsck_stream *s = cnk_calloc(1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    s->now.id = id;
    s->now.first_index = 1;
    if (cnk_map_put(&k->streams, id, s)) {
        cnk_free(s);
        return CHRONIK_ENOMEM;
    }
    *ret_stream = s;
    return 0;
}

static void stream_free(cnk_fsck_stream *s) {
    cnk_free(s->entries);
    cnk_free(s->held);
    cnk_free(s);
}

static cnk_fsck_entry *entry_at(const cnk_fsck_stream *s, uint64_t index) {
    uint64_t base = s->now.released_index + 1;
    return index >= base && index - base < s->count ? &s->entries[index - base] : NULL;
}

static void cut_after(cnk_fsck_stream *s, uint64_t index) {
    uint64_t keep = index > s->now.released_index ? index - s->now.released_index : 0;
    if (keep < s->count) s->count = (size_t)keep;
}

/* Room for the entry, above released_index; what lies between is a hole. */
static int entry_make(cnk_fsck *k, cnk_fsck_stream *s, uint64_t index, cnk_fsck_entry **ret_entry) {
    uint64_t want = index - s->now.released_index;
    uint64_t rows = 0; /* that the files could hold */
    for (size_t n = 0; want > s->capacity && n < k->files_count; n++) rows += k->files[n].bytes / CNK_WAL_ROW_BYTES;
    if (want > s->capacity && want > rows + CNK_FSCK_LOST_MAX)
        return cnk_error(k->err, CHRONIK_ECORRUPT, 0, "stream %llu: %llu entries are more than can be true or repaired",
                         (ull)s->now.id, (ull)want);
    if (cnk_array_reserve((void **)&s->entries, &s->capacity, (size_t)want, sizeof *s->entries)) return CHRONIK_ENOMEM;
    if (want > s->count) {
        memset(&s->entries[s->count], 0, ((size_t)want - s->count) * sizeof *s->entries);
        s->count = (size_t)want;
    }
    *ret_entry = &s->entries[want - 1];
    return 0;
}

/* Nobody has the entry any more: an empty one stands in its place, and takes no offsets. */
static int entry_lose(cnk_fsck *k, const cnk_fsck_stream *s, cnk_fsck_entry *e, uint64_t index, uint32_t term,
                      int64_t offset) {
    memset(e, 0, sizeof *e);
    e->row = (cnk_wal_row){.stream = s->now.id, .frame = CNK_FRAME_ENTRY, .flags = 0x80};
    e->row.e = (cnk_wal_entry){.index = index, .term = term, .kind = CNK_ENTRY_LEADER, .base_offset = offset,
                               .max_timestamp = -1};
    e->state = FSCK_LOST;
    if (++k->lost <= CNK_FSCK_LOST_MAX) return 0;
    return cnk_error(k->err, CHRONIK_ECORRUPT, 0, "stream %llu: more entries are missing than can be repaired",
                     (ull)s->now.id);
}

static int entry_place(cnk_fsck *k, cnk_fsck_stream *s, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t pos,
                       bool lost) {
    cnk_fsck_entry *e;
    int code = entry_make(k, s, row->e.index, &e);
    if (code) return code;
    if (lost && row->frame == CNK_FRAME_REWRITE && e->state == FSCK_GOOD && e->row.e.term == row->e.term) return 0;
    if (lost) return entry_lose(k, s, e, row->e.index, row->e.term, row->e.base_offset);
    *e = (cnk_fsck_entry){.row = *row, .file = f, .pos = pos, .state = FSCK_GOOD};
    e->row.frame = CNK_FRAME_ENTRY;
    return 0;
}

/* The entries after the last one, up to this one, are lost. */
static int fill_to(cnk_fsck *k, cnk_fsck_stream *s, uint64_t index, uint32_t term) {
    cnk_fsck_entry *e;
    for (uint64_t i = s->now.last_index + 1; i <= index; i++) {
        int code = entry_make(k, s, index, &e); /* all of them at once, so that a wild index fails early */
        if (code == 0) code = entry_lose(k, s, entry_at(s, i), i, term, s->now.next_offset);
        if (code) return code;
        s->now.last_index = i;
        s->now.last_term = term;
    }
    return 0;
}

/* From here on the checkpoint's state holds; what it has and nobody else is lost. */
static int settle(cnk_fsck *k, cnk_fsck_stream *s) {
    if (s->settled) return 0;
    s->settled = true;
    cut_after(s, s->now.last_index);
    cnk_fsck_entry *e;
    int code = 0;
    if (s->now.last_index > s->now.released_index) code = entry_make(k, s, s->now.last_index, &e);
    int64_t offset = s->now.released_offset;
    uint32_t term = s->now.released_term;
    for (size_t n = 0; code == 0 && n < s->count; n++) {
        e = &s->entries[n];
        bool last = n + 1 == s->count;
        if (last && e->state == FSCK_GOOD && e->row.e.term != s->now.last_term) e->state = FSCK_HOLE;
        if (e->state == FSCK_HOLE)
            code = entry_lose(k, s, e, s->now.released_index + 1 + n, last ? s->now.last_term : term, offset);
        offset = e->row.e.base_offset + e->row.e.count;
        term = e->row.e.term;
    }
    return code;
}

/* ---- replaying -------------------------------------------------------------------------------------------------- */

static void row_dropped(cnk_fsck *k, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t lsn, const char *why) {
    finding(k, f, "block %llu, stream %llu, index %llu: %s; left out", (ull)lsn, (ull)row->stream, (ull)row->e.index, why);
}

static void back_to(cnk_fsck_stream *s, uint64_t index) {
    cut_after(s, index);
    const cnk_fsck_entry *e = entry_at(s, index);
    s->now.last_index = index;
    s->now.last_term = e ? e->row.e.term : s->now.released_term;
    s->now.next_offset = e ? e->row.e.base_offset + e->row.e.count : s->now.released_offset;
}

static int replay_entry(cnk_fsck *k, cnk_fsck_stream *s, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t pos,
                        uint64_t lsn, bool lost) {
    uint64_t index = row->e.index;
    if (row->frame == CNK_FRAME_REWRITE && index <= s->now.last_index) {
        const cnk_fsck_entry *e = entry_at(s, index);
        return e && e->row.e.term == row->e.term ? entry_place(k, s, f, row, pos, lost) : 0;
    }
    if (index <= s->now.released_index) {
        row_dropped(k, f, row, lsn, "is before what the stream holds");
        return 0;
    }
    if (index <= s->now.last_index) { /* a truncation has been lost */
        finding(k, NULL, "stream %llu: a truncation to entry %llu, before block %llu, is missing", (ull)s->now.id,
                (ull)index - 1, (ull)lsn);
        back_to(s, index - 1);
    }
    if (row->e.base_offset < s->now.next_offset || row->e.count > INT32_MAX ||
        row->e.base_offset > INT64_MAX - INT32_MAX) {
        row_dropped(k, f, row, lsn, "its offsets were given to others before");
        return 0;
    }
    int code = fill_to(k, s, index - 1, s->now.last_term);
    if (code == 0) code = entry_place(k, s, f, row, pos, lost);
    cnk_wal_row applied = *row;
    applied.frame = CNK_FRAME_ENTRY;
    if (code == 0) cnk_wal_state_apply(&s->now, &applied);
    return code;
}

static int replay_truncate(cnk_fsck *k, cnk_fsck_stream *s, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t lsn) {
    if (row->e.index < s->now.released_index) {
        row_dropped(k, f, row, lsn, "truncates what is not there");
        return 0;
    }
    int code = fill_to(k, s, row->e.index, row->e.term);
    cut_after(s, row->e.index);
    cnk_wal_state_apply(&s->now, row);
    return code;
}

static int replay_trim(cnk_fsck *k, cnk_fsck_stream *s, const cnk_wal_row *row) {
    uint64_t until = row->e.index ? row->e.index - 1 : 0;
    int code = until > s->now.last_index ? fill_to(k, s, until, s->now.last_term) : 0;
    if (code) return code;
    cnk_wal_state_apply(&s->now, row);
    if (s->now.next_offset < s->now.start_offset) s->now.next_offset = s->now.start_offset;
    if (until > s->blob_applied) until = s->blob_applied; /* as recovery: the owner's state has to be brought there first */
    const cnk_fsck_entry *e = entry_at(s, until);
    if (!e) return 0;
    size_t gone = (size_t)(until - s->now.released_index);
    s->now.released_term = e->row.e.term;
    s->now.released_offset = e->row.e.base_offset + e->row.e.count;
    s->now.released_index = until;
    s->count -= gone;
    memmove(s->entries, s->entries + gone, s->count * sizeof *s->entries);
    return 0;
}

static int replay_settled(cnk_fsck *k, cnk_fsck_stream *s, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t pos,
                          uint64_t lsn, bool lost) {
    switch (row->frame) {
    case CNK_FRAME_INIT: return 0;
    case CNK_FRAME_ENTRY:
    case CNK_FRAME_REWRITE: return replay_entry(k, s, f, row, pos, lsn, lost);
    case CNK_FRAME_TRUNCATE: return replay_truncate(k, s, f, row, lsn);
    case CNK_FRAME_TRIM: return replay_trim(k, s, row);
    case CNK_FRAME_RESET:
        s->count = 0;
        cnk_wal_state_apply(&s->now, row);
        return 0;
    case CNK_FRAME_VOTE: cnk_wal_state_apply(&s->now, row); return 0;
    default:
        return cnk_error(k->err, CHRONIK_EUNSUPPORTED, 0, "%s: block %llu holds a frame of kind %u; a newer version wrote it",
                         f->path, (ull)lsn, row->frame);
    }
}

/* A stream that the checkpoint does not know: new; or it is dropped further on; or its beginning is lost. */
static int replay_unknown(cnk_fsck *k, const cnk_wal_row *row, uint64_t lsn, cnk_fsck_stream **ret_stream) {
    *ret_stream = NULL;
    if (lsn < k->checkpoint_lsn || cnk_map_get(&k->dropped, row->stream)) return 0;
    int code = stream_add(k, row->stream, ret_stream);
    if (code) return code;
    cnk_fsck_stream *s = *ret_stream;
    s->settled = true;
    s->orphan = row->frame != CNK_FRAME_INIT;
    if (!is_payload(row) || row->e.index < 2) return 0;
    s->now.last_term = row->e.term;
    if (k->checkpoints_count == 0) return 0; /* nothing has ever left this log: all of it was here, and is lost */
    s->now.released_index = s->now.last_index = row->e.index - 1;
    s->now.released_offset = s->now.next_offset = row->e.base_offset;
    s->now.released_term = s->now.last_term = row->e.term;
    return 0;
}

static void drop(cnk_fsck *k, cnk_fsck_stream *s) {
    for (size_t n = 0; n < s->count; n++) k->lost -= s->entries[n].state == FSCK_LOST; /* nobody wants them */
    cnk_map_remove(&k->streams, s->now.id);
    stream_free(s);
}

static int hold(cnk_fsck_stream *s, const cnk_fsck_row *row) {
    if (cnk_array_reserve((void **)&s->held, &s->held_capacity, s->held_count + 1, sizeof *s->held)) return CHRONIK_ENOMEM;
    s->held[s->held_count++] = *row;
    return 0;
}

static int replay_row(cnk_fsck *k, cnk_fsck_file *f, const cnk_wal_row *row, uint64_t pos, uint64_t lsn, bool lost) {
    f->rows++;
    if (row->frame == CNK_FRAME_CHECKPOINT) {
        saw_lsn(k, (uint64_t)row->e.base_offset);
        return 0;
    }
    if (lost)
        finding(k, f, "block %llu, byte %llu: stream %llu, entry %llu: its %u bytes fail their checksum", (ull)lsn, (ull)pos,
                (ull)row->stream, (ull)row->e.index, row->e.len);
    cnk_fsck_stream *s = cnk_map_get(&k->streams, row->stream);
    if (row->frame == CNK_FRAME_DROP) {
        if (s && lsn < s->as_of) return 0;
        if (s) drop(k, s);
        return cnk_map_put(&k->dropped, row->stream, k);
    }
    if (!s) {
        int code = replay_unknown(k, row, lsn, &s);
        if (code || !s) return code;
    }
    if (s->orphan) return hold(s, &(cnk_fsck_row){*row, f, pos, lsn, lost});
    if (!s->settled && lsn < s->as_of) {
        if (row->frame == CNK_FRAME_TRUNCATE) cut_after(s, row->e.index);
        if (row->frame == CNK_FRAME_RESET) s->count = 0;
        bool wanted = is_payload(row) && row->e.index > s->now.released_index && row->e.index <= s->now.last_index;
        return wanted ? entry_place(k, s, f, row, pos, lost) : 0;
    }
    int code = settle(k, s);
    return code ? code : replay_settled(k, s, f, row, pos, lsn, lost);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static bool payload_bad(const cnk_wal_row *row, const uint8_t *p) {
    return is_payload(row) && row->e.len > 0 && cnk_crc32c(0, p, row->e.len) != row->crc;
}

static bool block_has_bad(const cnk_wal_block_header *h, const uint8_t *p) {
    bool bad = false;
    for (uint32_t n = 0; n < h->rows && !bad; n++) {
        cnk_wal_row row;
        cnk_wal_row_get(p + h->rows_pos + (size_t)n * CNK_WAL_ROW_BYTES, &row);
        bad = payload_bad(&row, p + row.pos);
    }
    return bad;
}

static int block_replay(cnk_fsck *k, cnk_fsck_file *f, const cnk_wal_block_header *h, const uint8_t *p, uint64_t pos) {
    for (uint32_t n = 0; n < h->rows; n++) {
        cnk_wal_row row;
        cnk_wal_row_get(p + h->rows_pos + (size_t)n * CNK_WAL_ROW_BYTES, &row);
        int code = replay_row(k, f, &row, pos + row.pos, h->lsn, payload_bad(&row, p + row.pos));
        if (code) return code;
    }
    return 0;
}

/* A footer that can stand for the rows of all blocks. */
static int footer_load(cnk_fsck *k, cnk_fsck_file *f) {
    const uint8_t *p;
    cnk_wal_trailer t;
    f->footer_text = "no footer";
    if (f->bytes < 3 * CNK_WAL_ALIGN || f->bytes % CNK_WAL_ALIGN) return 0;
    int code = cnk_fsck_window(k, f, f->bytes - CNK_WAL_ALIGN, CNK_WAL_ALIGN, &p);
    if (code || !p || cnk_wal_trailer_get(p, f->header.uid, &t)) return code;
    f->footer_text = "its footer is not whole, and not needed";
    if (f->end_known && t.last_lsn != f->end_lsn) return 0;
    if (t.footer_pos % CNK_WAL_ALIGN || t.footer_len > FOOTER_BYTES_MAX || t.footer_pos > f->bytes ||
        t.footer_len > f->bytes - t.footer_pos || t.blocks > t.footer_len / 4 ||
        t.footer_len != t.blocks * 4 + t.rows * CNK_WAL_ROW_BYTES || t.last_lsn - f->header.first_lsn + 1 != t.blocks)
        return 0;
    code = cnk_fsck_window(k, f, t.footer_pos, (size_t)t.footer_len, &p);
    if (code || !p || cnk_crc32c(cnk_wal_seed(f->header.uid), p, (size_t)t.footer_len) != t.footer_crc) return code;
    uint64_t rows = 0;
    for (uint64_t b = 0; b < t.blocks; b++) rows += cnk_load_le32(p + b * 4);
    if (rows != t.rows) return 0;
    f->footer = cnk_memdup(p, (size_t)t.footer_len);
    f->trailer = t;
    f->footer_text = "footer sound";
    return f->footer ? 0 : CHRONIK_ENOMEM;
}

static int footer_replay(cnk_fsck *k, cnk_fsck_file *f) {
    const cnk_wal_trailer *t = &f->trailer;
    const uint8_t *at = f->footer + t->blocks * 4;
    for (uint64_t b = 0; b < t->blocks; b++) {
        for (uint32_t n = cnk_load_le32(f->footer + b * 4); n > 0; n--, at += CNK_WAL_ROW_BYTES) {
            cnk_wal_row row;
            const uint8_t *p = NULL;
            cnk_wal_row_get(at, &row);
            bool payload = is_payload(&row) && row.e.len > 0;
            int code = payload ? cnk_fsck_window(k, f, row.pos, row.e.len, &p) : 0;
            if (code == 0) code = replay_row(k, f, &row, row.pos, f->header.first_lsn + b, payload && (!p || payload_bad(&row, p)));
            if (code) return code;
        }
    }
    return 0;
}

typedef struct scan {
    uint64_t pos, lsn;
    uint32_t crc;
    bool broken; /* its chain of CRCs */
} scan;

/* Bad bytes at s->pos. Moves on to the next good block; s->pos past the file's end: there is none. */
static int skip_bad(cnk_fsck *k, cnk_fsck_file *f, scan *s) {
    cnk_wal_block_header h;
    const uint8_t *p;
    uint64_t from = s->pos, lsn = s->lsn, end = f->footer ? f->trailer.footer_pos : f->bytes;
    int got = 0;
    for (; got == 0 && s->pos + CNK_WAL_ALIGN <= end; s->pos += CNK_WAL_ALIGN) {
        got = block_at(k, f, f->header.uid, s->pos, &h, &p);
        if (got == 1 && (h.lsn <= lsn || (f->end_known && h.lsn > f->end_lsn))) got = 0;
        if (got < 0) return got;
        if (got == 1) break;
    }
    uint64_t last = f->end_known ? f->end_lsn : f->footer ? f->trailer.last_lsn : f->proof > lsn + 1 ? f->proof - 1 : lsn + 1;
    s->lsn = got == 1 ? h.lsn - 1 : last;
    s->crc = got == 1 ? h.prev_crc : 0;
    s->broken = true;
    if (got != 1) s->pos = f->bytes;
    finding(k, f, "bytes %llu to %llu hold no good block, and blocks %llu to %llu were synced there: %s", (ull)from,
            (ull)(got == 1 ? s->pos : end) - 1, (ull)lsn + 1, (ull)s->lsn,
            f->footer ? "the footer says what they held" : "what they held, of all streams, is lost");
    return 0;
}

static int file_scan(cnk_fsck *k, cnk_fsck_file *f) {
    scan s = {CNK_WAL_ALIGN, f->header.first_lsn - 1, f->header.prev_crc, f->header.number == 0};
    int code = footer_load(k, f);
    while (code == 0 && s.pos < f->bytes) {
        if (f->end_known && s.lsn >= f->end_lsn) break;
        if (f->footer && s.lsn >= f->trailer.last_lsn) break;
        cnk_wal_block_header h;
        const uint8_t *p;
        int got = block_at(k, f, f->header.uid, s.pos, &h, &p);
        if (got < 0) return got;
        bool good = got == 1 && h.lsn == s.lsn + 1 && h.prev_crc == s.crc;
        if (!good || (!f->footer && block_has_bad(&h, p))) {
            uint64_t proof = 0;
            code = proof_of(k, f, f->header.uid, &proof);
            if (code) return code;
            if (!f->end_known && !f->footer && proof <= s.lsn) break; /* the torn end */
            if (!good) {
                code = skip_bad(k, f, &s);
                continue;
            }
            got = block_at(k, f, f->header.uid, s.pos, &h, &p); /* the window has moved */
            if (got != 1) return got < 0 ? got : CHRONIK_EIO;
        }
        if (!f->footer) code = block_replay(k, f, &h, p, s.pos);
        f->blocks++;
        s.lsn = h.lsn;
        s.crc = h.crc;
        s.pos += h.len;
    }
    if (code == 0 && f->footer) code = footer_replay(k, f);
    f->last_lsn = s.lsn;
    saw_lsn(k, s.lsn);
    if (code == 0 && f->end_known && !s.broken && (s.lsn != f->end_lsn || s.crc != f->end_crc))
        finding(k, f, "its last block is not the one that the next file names");
    return code;
}

/* ---- what is there ---------------------------------------------------------------------------------------------- */

static int note_name(void *arg, const char *name) {
    cnk_fsck *k = arg;
    uint64_t number = cnk_wal_name_number(name, ".wal");
    if (number) {
        if (cnk_array_reserve((void **)&k->files, &k->files_capacity, k->files_count + 1, sizeof *k->files))
            return CHRONIK_ENOMEM;
        cnk_fsck_file *f = &k->files[k->files_count];
        memset(f, 0, sizeof *f);
        f->number = number;
        f->path = cnk_wal_path(k->wal, number, ".wal");
        f->name = cnk_strdup(name);
        k->files_count++;
        return f->path && f->name ? 0 : CHRONIK_ENOMEM;
    }
    number = cnk_wal_name_number(name, ".checkpoint");
    if (!number) return 0;
    if (cnk_array_reserve((void **)&k->checkpoints, &k->checkpoints_capacity, k->checkpoints_count + 1,
                          sizeof *k->checkpoints))
        return CHRONIK_ENOMEM;
    k->checkpoints[k->checkpoints_count++] = (cnk_fsck_checkpoint){number, false};
    return 0;
}

static int by_number(const void *a, const void *b) {
    uint64_t x = ((const cnk_fsck_file *)a)->number, y = ((const cnk_fsck_file *)b)->number;
    return x < y ? -1 : x > y;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = ((const cnk_fsck_checkpoint *)a)->number, y = ((const cnk_fsck_checkpoint *)b)->number;
    return x > y ? -1 : x < y;
}

static int open_files(cnk_fsck *k) {
    const chronik_io *io = k->wal->io;
    for (size_t n = 0; n < k->files_count; n++) {
        cnk_fsck_file *f = &k->files[n];
        const uint8_t *p;
        int code = io->disk_ops->open(io->disk, f->path, CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT, k->err, &f->handle);
        if (code == 0) code = io->disk_ops->size_get(io->disk, f->handle, k->err, &f->bytes);
        if (code) return code;
        io->disk_ops->forget(io->disk, f->handle, 0, f->bytes);
        code = cnk_fsck_window(k, f, 0, CNK_WAL_ALIGN, &p);
        if (code) return code;
        f->whole_header = p && cnk_wal_file_header_get(p, &f->header) == 0 && f->header.number == f->number;
        if (!f->whole_header) memset(&f->header, 0, sizeof f->header);
        f->live = f->whole_header;
        saw_lsn(k, f->header.prev_last_lsn);
        if (f->live) saw_lsn(k, f->header.first_lsn);
    }
    return 0;
}

static int checkpoint_stream(cnk_fsck *k, cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, CNK_WAL_CHECKPOINT_ROW);
    cnk_wal_checkpoint_row row = {0};
    if (p) cnk_wal_checkpoint_row_get(p, &row);
    const uint8_t *blob = p && row.blob_len <= CNK_WAL_BLOB_MAX ? cnk_read_bytes(r, (size_t)row.blob_len) : NULL;
    cnk_fsck_stream *s;
    if (!p || (row.blob_len && !blob) || cnk_map_get(&k->streams, row.state.id)) return CHRONIK_ECORRUPT;
    int code = stream_add(k, row.state.id, &s);
    if (code) return code;
    s->now = row.state;
    s->as_of = row.as_of;
    saw_lsn(k, s->as_of);
    s->blob = blob;
    s->blob_len = row.blob_len;
    s->blob_applied = row.applied;
    if (s->now.last_index < s->now.released_index) return CHRONIK_ECORRUPT;
    if (s->now.damaged) finding(k, NULL, "stream %llu was taken offline before, for a damaged entry", (ull)s->now.id);
    return 0;
}

static cnk_fsck_file *file_of(cnk_fsck *k, uint64_t number) {
    for (size_t n = 0; n < k->files_count; n++)
        if (k->files[n].number == number) return &k->files[n];
    return NULL;
}

/* A file that must be there, by its number and uid: it is, or its header is damaged, or it is missing. */
static void file_expect(cnk_fsck *k, uint64_t number, uint64_t uid, const char *by) {
    cnk_fsck_file *f = file_of(k, number);
    if (f && f->live && f->header.uid == uid) return;
    if (f && !f->live) {
        f->header.uid = uid;
        f->live = true;
        finding(k, f, "its header is damaged; %s names it", by);
    } else {
        finding(k, NULL, "%020llu.wal is missing; %s names it", (ull)number, by);
    }
}

static int checkpoint_load(cnk_fsck *k) {
    for (size_t n = 0; n < k->checkpoints_count; n++) {
        cnk_fsck_checkpoint *c = &k->checkpoints[n];
        uint8_t *data;
        cnk_wal_checkpoint_header h;
        int code = cnk_wal_checkpoint_read(k->wal, c->number, NULL, &data, &h);
        if (code == CHRONIK_ENOMEM) return code;
        c->valid = code == 0;
        if (code) {
            finding(k, NULL, "checkpoint %llu is damaged", (ull)c->number);
            continue;
        }
        cnk_fsck_say(k, "checkpoint %llu: sound, %llu streams, %llu files; blocks before %llu are covered", (ull)c->number,
                     (ull)h.streams, (ull)h.files, (ull)h.lsn);
        if (k->checkpoint) {
            cnk_free(data);
            continue;
        }
        k->checkpoint = data;
        k->checkpoint_header = h;
        k->checkpoint_number = c->number;
    }
    if (!k->checkpoint) return 0;
    k->checkpoint_lsn = k->checkpoint_header.lsn;
    saw_lsn(k, k->checkpoint_lsn);
    uint64_t streams = k->checkpoint_header.streams, files = k->checkpoint_header.files;
    cnk_reader r = cnk_reader_of(k->checkpoint, (size_t)k->checkpoint_header.len);
    (void)cnk_read_bytes(&r, CNK_WAL_CHECKPOINT_HEADER);
    for (uint64_t n = 0; n < files && !r.error; n++) {
        uint64_t number = cnk_read_le64(&r), uid = cnk_read_le64(&r);
        if (!r.error) file_expect(k, number, uid, "the checkpoint");
    }
    for (uint64_t n = 0; n < streams; n++) {
        int code = r.error ? CHRONIK_ECORRUPT : checkpoint_stream(k, &r);
        if (code) return cnk_error(k->err, code, 0, "checkpoint %llu is malformed", (ull)k->checkpoint_number);
    }
    return 0;
}

/* Who follows whom, as the headers say. */
static void chain_check(cnk_fsck *k) {
    for (size_t n = 0; n < k->files_count; n++) {
        const cnk_fsck_file *f = &k->files[n];
        const cnk_wal_file_header *h = &f->header;
        if (!f->whole_header || h->prev_number == 0) continue;
        cnk_fsck_file *before = file_of(k, h->prev_number);
        bool there = before && before->live && before->header.uid == h->prev_uid;
        if (!there && h->prev_last_lsn >= k->checkpoint_lsn) {
            file_expect(k, h->prev_number, h->prev_uid, f->name);
            there = before && before->live && before->header.uid == h->prev_uid;
        }
        if (!there) continue;
        before->end_known = true;
        before->end_lsn = h->prev_last_lsn;
        before->end_crc = h->prev_crc;
    }
}

/* A file without a good header: whether it holds synced data from behind `lsn`. */
static int header_guess(cnk_fsck *k, cnk_fsck_file *f, uint64_t lsn) {
    const uint8_t *p;
    cnk_wal_block_header h;
    uint64_t uid = f->header.uid, pos = CNK_WAL_ALIGN;
    bool expected = f->live;
    int got = 0;
    if (!expected) {
        int code = cnk_fsck_window(k, f, CNK_WAL_ALIGN, CNK_WAL_BLOCK_HEADER, &p);
        if (code || !p) return code;
        uid = cnk_load_le64(p + 8);
        if (cnk_wal_block_header_get(p, uid, &h) || (uint64_t)h.block_number * CNK_WAL_ALIGN != pos) return 0;
        uint64_t proof = 0;
        code = proof_of(k, f, uid, &proof);
        if (code) return code;
        if (proof < h.lsn || proof <= lsn || proof < k->checkpoint_lsn) {
            f->proof = 0;
            return 0;
        }
        finding(k, f, "its header is damaged, and its blocks, from %llu on, were synced", (ull)h.lsn);
    }
    for (; got == 0 && pos + CNK_WAL_ALIGN <= f->bytes; pos += CNK_WAL_ALIGN) {
        got = block_at(k, f, uid, pos, &h, &p);
        if (got < 0) return got;
    }
    f->live = true;
    f->header = (cnk_wal_file_header){.uid = uid, .number = f->number, .first_lsn = lsn + 1};
    if (got == 1 && pos == 2 * CNK_WAL_ALIGN) {
        f->header.first_lsn = h.lsn;
        f->header.prev_crc = h.prev_crc;
    }
    return 0;
}

static int scan_files(cnk_fsck *k) {
    uint64_t lsn = 0;
    size_t last_whole = 0;
    for (size_t n = 0; n < k->files_count; n++)
        if (k->files[n].whole_header) last_whole = n;
    for (size_t n = 0; n < k->files_count; n++) {
        cnk_fsck_file *f = &k->files[n];
        bool may = f->live || n > last_whole || lsn == 0;
        int code = f->whole_header || !may ? 0 : header_guess(k, f, lsn);
        if (code == 0 && f->live && f->whole_header && f->header.first_lsn <= lsn) {
            finding(k, f, "begins at block %llu, but block %llu was before it; left out", (ull)f->header.first_lsn, (ull)lsn);
            continue;
        }
        if (code == 0 && f->live) code = file_scan(k, f);
        if (code) return code;
        if (f->live && f->last_lsn > lsn) lsn = f->last_lsn;
        if (f->live)
            cnk_fsck_say(k, "%s: %llu bytes, blocks %llu to %llu, %llu rows, %s%s", f->name, (ull)f->bytes,
                         (ull)f->header.first_lsn, (ull)f->last_lsn, (ull)f->rows, f->footer_text,
                         f->damaged ? ", DAMAGED" : "");
        else
            cnk_fsck_say(k, "%s: %llu bytes, %s", f->name, (ull)f->bytes, n > last_whole ? "spare" : "unused");
    }
    return 0;
}

static int finish_streams(cnk_fsck *k) {
    size_t it = 0;
    for (cnk_fsck_stream *s; (s = cnk_map_next(&k->streams, &it));) {
        int code = 0;
        for (size_t n = 0; n < s->held_count && code == 0; n++) {
            const cnk_fsck_row *r = &s->held[n];
            code = replay_settled(k, s, r->file, &r->row, r->pos, r->lsn, r->lost);
        }
        if (code == 0) code = settle(k, s);
        if (code) return code;
        if (!s->orphan || k->checkpoints_count == 0) continue;
        finding(k, NULL, "stream %llu: its creation and all before entry %llu are missing here", (ull)s->now.id,
                (ull)s->now.released_index + 1);
        if (s->now.released_index >= s->now.first_index) k->missing += s->now.released_index + 1 - s->now.first_index;
    }
    return 0;
}

/* A replica without its configuration, the first entry, can do nothing. Where all streams that have theirs have the same, a
 * lost one was that, too. */
static void configs_mend(cnk_fsck *k) {
    const cnk_fsck_entry *like = NULL;
    size_t it = 0;
    for (const cnk_fsck_stream *s; (s = cnk_map_next(&k->streams, &it));)
        for (size_t n = 0; n < s->count; n++) {
            const cnk_fsck_entry *e = &s->entries[n];
            if (e->state != FSCK_GOOD || e->row.e.kind != CNK_ENTRY_CONFIG) continue;
            if (like && (like->row.crc != e->row.crc || like->row.e.len != e->row.e.len)) return;
            like = e;
        }
    it = 0;
    for (cnk_fsck_stream *s; like && (s = cnk_map_next(&k->streams, &it));) {
        cnk_fsck_entry *e = entry_at(s, 1);
        if (!e || e->state != FSCK_LOST) continue;
        e->row.e.kind = CNK_ENTRY_CONFIG;
        e->row.e.len = like->row.e.len;
        e->row.crc = like->row.crc;
        e->file = like->file;
        e->pos = like->pos;
        e->state = FSCK_GOOD;
        e->again = true;
        k->lost--;
        cnk_fsck_say(k, "stream %llu: its first entry, the configuration, is lost, and the same as in all other streams",
                     (ull)s->now.id);
    }
}

int cnk_fsck_scan(cnk_fsck *k) {
    const chronik_io *io = k->wal->io;
    int code = io->disk_ops->list(io->disk, k->wal->dir, note_name, k, k->err);
    if (code) return code;
    if (k->files_count) qsort(k->files, k->files_count, sizeof *k->files, by_number);
    if (k->checkpoints_count) qsort(k->checkpoints, k->checkpoints_count, sizeof *k->checkpoints, newest_first);
    code = open_files(k);
    if (code == 0) code = checkpoint_load(k);
    if (code == 0) chain_check(k);
    if (code == 0) code = scan_files(k);
    if (code == 0) code = finish_streams(k);
    if (code == 0) configs_mend(k);
    return code;
}

void cnk_fsck_free(cnk_fsck *k) {
    size_t it = 0;
    for (cnk_fsck_stream *s; (s = cnk_map_next(&k->streams, &it));) stream_free(s);
    cnk_map_free(&k->streams);
    cnk_map_free(&k->dropped);
    for (size_t n = 0; n < k->files_count; n++) {
        cnk_fsck_file *f = &k->files[n];
        k->wal->io->disk_ops->close(k->wal->io->disk, f->handle);
        cnk_free(f->path);
        cnk_free(f->name);
        cnk_free(f->footer);
    }
    cnk_free(k->files);
    cnk_free(k->checkpoints);
    cnk_free(k->checkpoint);
    cnk_pages_free(k->window, k->window_size);
}
