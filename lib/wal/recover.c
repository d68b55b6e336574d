/* Recovery: from what is on the disk to streams.
 *
 * Rows are replayed in LSN order. A stream that the checkpoint knows is `unsettled` until the first row at or after its
 * as-of LSN: till then rows only say where entries are, in any order, and the index may have holes; then the recorded
 * state holds, entries past its end are dead, every entry from the released one to the last must be there, and rows
 * apply one by one, each checked.
 *
 * A bad block in the last file is the torn end of the log, unless something proves that it had been synced: then it is
 * corruption, and nothing is changed on disk. Nothing that recovery read is ever written to again. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

enum { WINDOW_BYTES = 4 << 20, FOOTER_BYTES_MAX = 1 << 30, CHECKPOINT_BYTES_MAX = 1 << 30 };
#define PROGRESS_NS UINT64_C(1000000000)

typedef struct found_file {
    cnk_wal_file *file;
    cnk_wal_file_header header;
    bool valid;
    uint64_t end_lsn; /* from the next file's header */
    uint32_t end_crc;
    bool end_known;
} found_file;

typedef struct recovery {
    cnk_wal *wal;
    chronik_error *err;
    found_file *files;
    size_t files_count, files_capacity;
    uint64_t *checkpoints;
    size_t checkpoints_count, checkpoints_capacity;
    char **stale; /* temporary files */
    size_t stale_count, stale_capacity;
    uint64_t checkpoint_lsn, checkpoint_number, checkpoint_newest;
    uint8_t *checkpoint;
    cnk_wal_checkpoint_header checkpoint_header;
    cnk_map dropped;
    uint8_t *window;
    size_t window_size, window_len;
    uint64_t window_pos;
    const cnk_wal_file *window_file;
    uint64_t lsn; /* of the last block accepted */
    uint64_t lsn_min; /* the next LSN is at least this: checkpoints speak of lower ones */
    uint64_t rows_lsn, proof_lsn; /* the last block with rows; the last that something later proves */
    uint32_t crc;
    void (*progress)(void *, uint64_t, uint64_t);
    void *progress_arg;
    uint64_t bytes_before, bytes_told, bytes_all, told_ns; /* before: in files that are done with */
    bool replaying;
    size_t ahead_bytes; /* read at once where less is asked for */
} recovery;

/* ---- what is there ---------------------------------------------------------------------------------------------- */

/* "{20 digits}{suffix}": the number, or 0. */
uint64_t cnk_wal_name_number(const char *name, const char *suffix) {
    size_t len = strlen(name);
    if (len != 20 + strlen(suffix) || strcmp(name + 20, suffix) != 0) return 0;
    uint64_t number = 0;
    for (int n = 0; n < 20; n++) {
        if (name[n] < '0' || name[n] > '9') return 0;
        number = number * 10 + (uint64_t)(name[n] - '0');
    }
    return number;
}

static int note_name(void *arg, const char *name) {
    recovery *rc = arg;
    size_t len = strlen(name);
    uint64_t number = cnk_wal_name_number(name, ".wal");
    if (number) {
        if (cnk_array_reserve((void **)&rc->files, &rc->files_capacity, rc->files_count + 1, sizeof *rc->files))
            return CHRONIK_ENOMEM;
        found_file f = {0};
        int code = cnk_wal_file_new(rc->wal, number, &f.file);
        if (code == 0) rc->files[rc->files_count++] = f;
        return code;
    }
    number = cnk_wal_name_number(name, ".checkpoint");
    if (number) {
        if (cnk_array_reserve((void **)&rc->checkpoints, &rc->checkpoints_capacity, rc->checkpoints_count + 1,
                              sizeof *rc->checkpoints))
            return CHRONIK_ENOMEM;
        rc->checkpoints[rc->checkpoints_count++] = number;
        return 0;
    }
    if (len > 4 && strcmp(name + len - 4, ".tmp") == 0) {
        if (cnk_array_reserve((void **)&rc->stale, &rc->stale_capacity, rc->stale_count + 1, sizeof *rc->stale))
            return CHRONIK_ENOMEM;
        rc->stale[rc->stale_count] = cnk_strdup(name);
        if (!rc->stale[rc->stale_count]) return CHRONIK_ENOMEM;
        rc->stale_count++;
    }
    return 0; /* other names are not ours: left alone */
}

static int by_number(const void *a, const void *b) {
    uint64_t x = ((const found_file *)a)->file->number, y = ((const found_file *)b)->file->number;
    return x < y ? -1 : x > y;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

/* A file that has been read up to `pos`; one whose footer says all counts as a whole. */
static void tell_progress(recovery *rc, uint64_t pos) {
    if (!rc->progress || !rc->replaying) return;
    uint64_t now = rc->wal->io->jobs_ops->now_ns(rc->wal->io->jobs);
    if (now - rc->told_ns < PROGRESS_NS) return;
    rc->told_ns = now;
    if (rc->bytes_before + pos > rc->bytes_told) rc->bytes_told = rc->bytes_before + pos; /* some are read twice */
    rc->progress(rc->progress_arg, rc->bytes_told, rc->bytes_all);
}

static int window_grow(recovery *rc, const cnk_wal_file *f, size_t want) {
    if (want <= rc->window_size) return 0;
    uint8_t *pages = cnk_pages_alloc(want);
    if (!pages) return cnk_error(rc->err, CHRONIK_ENOMEM, 0, "%s: no memory to read %zu bytes", f->path, want);
    if (rc->window_len) memcpy(pages, rc->window, rc->window_len);
    cnk_pages_free(rc->window, rc->window_size);
    rc->window = pages;
    rc->window_size = want;
    return 0;
}

/* The bytes [pos, pos + len) of a file; NULL: past its end, or err says why not. pos is a multiple of 4096. What has been
 * read already, from pos on, is kept: a scan reads each byte once. */
static const uint8_t *window(recovery *rc, const cnk_wal_file *f, uint64_t pos, size_t len, int *ret_code) {
    *ret_code = 0;
    bool inside = rc->window_file == f && pos >= rc->window_pos && pos < rc->window_pos + rc->window_len;
    if (inside && pos + len <= rc->window_pos + rc->window_len) return rc->window + (pos - rc->window_pos);
    if (pos + len > f->bytes) return NULL;
    size_t want = (size_t)cnk_wal_align_up(len > rc->ahead_bytes ? len : rc->ahead_bytes), have = 0;
    if (inside && rc->window_len % CNK_WAL_ALIGN == 0) have = rc->window_len - (size_t)(pos - rc->window_pos);
    if (have) memmove(rc->window, rc->window + (pos - rc->window_pos), have);
    rc->window_file = NULL;
    rc->window_len = have;
    *ret_code = window_grow(rc, f, want);
    if (*ret_code) return NULL;
    uint64_t left = cnk_wal_align_up(f->bytes) - pos - have;
    size_t ask = want - have < left ? want - have : (size_t)left;
    int64_t got = rc->wal->io->disk_ops->read(rc->wal->io->disk, f->handle, rc->window + have, ask, pos + have, rc->err);
    if (got < 0) {
        *ret_code = (int)got;
        return NULL;
    }
    rc->window_file = f;
    rc->window_pos = pos;
    rc->window_len = have + (size_t)got;
    tell_progress(rc, pos + rc->window_len);
    return rc->window_len >= len ? rc->window : NULL;
}

static int open_files(recovery *rc) {
    const chronik_disk_ops *ops = rc->wal->io->disk_ops;
    for (size_t n = 0; n < rc->files_count; n++) {
        found_file *x = &rc->files[n];
        unsigned flags = CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT | (rc->wal->inspect ? 0 : CHRONIK_OPEN_WRITE);
        int code = ops->open(rc->wal->io->disk, x->file->path, flags, rc->err, &x->file->handle);
        if (code == 0) code = ops->size_get(rc->wal->io->disk, x->file->handle, rc->err, &x->file->bytes);
        if (code) return code;
        /* What a failed sync left in the page cache looks written and is not: read what the device has . */
        ops->forget(rc->wal->io->disk, x->file->handle, 0, x->file->bytes);
        const uint8_t *page = window(rc, x->file, 0, CNK_WAL_ALIGN, &code);
        if (code) return code;
        x->valid = page && cnk_wal_file_header_get(page, &x->header) == 0 && x->header.number == x->file->number;
        rc->bytes_all += x->valid ? x->file->bytes : 0;
    }
    return 0;
}

/* ---- the checkpoint --------------------------------------------------------------------------------------------- */

int cnk_wal_checkpoint_read(cnk_wal *wal, uint64_t number, chronik_error *err, uint8_t **ret_data,
                            cnk_wal_checkpoint_header *ret_header) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    void *disk = wal->io->disk;
    chronik_file *file = NULL;
    uint8_t *data = NULL;
    uint64_t len = 0;
    cnk_wal_checkpoint_header h = {0};
    char *path = cnk_wal_path(wal, number, ".checkpoint");
    int code = path ? ops->open(disk, path, CHRONIK_OPEN_READ, err, &file) : CHRONIK_ENOMEM;
    if (code == 0) code = ops->size_get(disk, file, err, &len);
    if (code == 0 && (len < CNK_WAL_CHECKPOINT_HEADER || len > CHECKPOINT_BYTES_MAX)) code = CHRONIK_ECORRUPT;
    if (code == 0 && !(data = cnk_malloc((size_t)len))) code = CHRONIK_ENOMEM;
    if (code == 0) {
        int64_t got = ops->read(disk, file, data, (size_t)len, 0, err);
        if (got < 0) code = (int)got;
        else code = (uint64_t)got == len ? cnk_wal_checkpoint_get(data, (size_t)len, &h) : CHRONIK_ECORRUPT;
        if (code == 0 && h.number != number) code = CHRONIK_ECORRUPT;
    }
    ops->close(disk, file);
    cnk_free(path);
    if (code) {
        cnk_free(data);
        return code;
    }
    *ret_data = data;
    *ret_header = h;
    return 0;
}

static int stream_add(recovery *rc, uint64_t id, cnk_wal_stream **ret_stream) {
    cnk_wal *wal = rc->wal;
    cnk_wal_stream *s = cnk_wal_stream_make(wal, id);
    if (!s) return CHRONIK_ENOMEM;
    if (cnk_map_put(&wal->streams_by_id, id, s) || cnk_map_put(&wal->used_ids, id, wal)) {
        cnk_map_remove(&wal->streams_by_id, id);
        cnk_wal_stream_destroy(s);
        return CHRONIK_ENOMEM;
    }
    *ret_stream = s;
    return 0;
}

static int checkpoint_stream(recovery *rc, cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, CNK_WAL_CHECKPOINT_ROW);
    if (!p) return CHRONIK_ECORRUPT;
    cnk_wal_checkpoint_row row;
    cnk_wal_checkpoint_row_get(p, &row);
    const uint8_t *blob = row.blob_len <= CNK_WAL_BLOB_MAX ? cnk_read_bytes(r, (size_t)row.blob_len) : NULL;
    if (row.blob_len && !blob) return CHRONIK_ECORRUPT;
    if (cnk_map_get(&rc->wal->streams_by_id, row.state.id)) return CHRONIK_ECORRUPT; /* told of twice */
    cnk_wal_stream *s;
    int code = stream_add(rc, row.state.id, &s);
    if (code) return code;
    s->exists = s->known = true;
    s->now = row.state;
    s->as_of_lsn = row.as_of;
    s->blob_applied = row.applied;
    uint64_t rows = 0; /* that all files could hold: no stream has more */
    for (size_t n = 0; n < rc->files_count; n++) rows += rc->files[n].file->bytes / CNK_WAL_ROW_BYTES;
    if (s->now.last_index < s->now.released_index || s->now.last_index - s->now.released_index > rows)
        return CHRONIK_ECORRUPT;
    if (s->as_of_lsn > rc->lsn_min) rc->lsn_min = s->as_of_lsn;
    if (row.blob_len) {
        s->blob = cnk_memdup(blob, (size_t)row.blob_len);
        if (!s->blob) return CHRONIK_ENOMEM;
        s->blob_len = (size_t)row.blob_len;
    }
    return 0;
}

static int checkpoint_load(recovery *rc) {
    for (size_t n = 0; n < rc->checkpoints_count && !rc->checkpoint; n++) {
        int code = cnk_wal_checkpoint_read(rc->wal, rc->checkpoints[n], rc->err, &rc->checkpoint,
                                           &rc->checkpoint_header);
        if (code == 0) rc->checkpoint_number = rc->checkpoints[n];
        else if (code != CHRONIK_ECORRUPT) return code;
    }
    if (rc->checkpoints_count) rc->checkpoint_newest = rc->checkpoints[0];
    if (!rc->checkpoint) return 0;
    rc->checkpoint_lsn = rc->lsn_min = rc->checkpoint_header.lsn;
    uint64_t streams = rc->checkpoint_header.streams, files = rc->checkpoint_header.files;
    cnk_reader r = cnk_reader_of(rc->checkpoint, (size_t)rc->checkpoint_header.len);
    (void)cnk_read_bytes(&r, CNK_WAL_CHECKPOINT_HEADER);
    for (uint64_t n = 0; n < files; n++) {
        uint64_t number = cnk_read_le64(&r), uid = cnk_read_le64(&r);
        bool there = false;
        for (size_t m = 0; m < rc->files_count; m++)
            there |= rc->files[m].valid && rc->files[m].file->number == number && rc->files[m].header.uid == uid;
        if (!there && !r.error)
            return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                             "%s/%020llu.wal is missing or its header is damaged, and checkpoint %llu needs it; restore "
                             "the file, or see chronikd fsck",
                             rc->wal->dir, (unsigned long long)number, (unsigned long long)rc->checkpoint_number);
    }
    for (uint64_t n = 0; n < streams; n++) {
        int code = r.error ? CHRONIK_ECORRUPT : checkpoint_stream(rc, &r);
        if (code) return cnk_error(rc->err, code, 0, "%s: checkpoint %llu is malformed", rc->wal->dir,
                                   (unsigned long long)rc->checkpoint_number);
    }
    return 0;
}

/* ---- replaying rows --------------------------------------------------------------------------------------------- */

static int corrupt_row(recovery *rc, const cnk_wal_file *f, const cnk_wal_row *row, uint64_t lsn, const char *what) {
    return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                     "%s: block %llu, stream %llu, index %llu: %s; the file is left as it is; see chronikd fsck", f->path,
                     (unsigned long long)lsn, (unsigned long long)row->stream, (unsigned long long)row->e.index, what);
}

static bool is_hole(const cnk_wal_extent *x) { return x->row.frame == 0; }

static void extent_forget(cnk_wal_extent *x) {
    if (x->file) atomic_fetch_sub(&x->file->live, 1);
    memset(x, 0, sizeof *x);
}

static void cut_after(cnk_wal_stream *s, uint64_t index) {
    cnk_wal_extents *x = &s->extents;
    while (x->count > 0) {
        cnk_wal_extent *last = cnk_wal_extents_nth(x, x->count - 1);
        if (s->extents_first + x->count - 1 <= index) break;
        extent_forget(last);
        x->count--;
    }
}

static void cut_until(cnk_wal_stream *s, uint64_t index) {
    cnk_wal_extents *x = &s->extents;
    while (x->count > 0 && s->extents_first <= index) {
        extent_forget(cnk_wal_extents_nth(x, 0));
        x->head = (x->head + 1) & (x->capacity - 1);
        x->count--;
        s->extents_first++;
    }
}

/* Puts an entry where its index belongs; what lies between stays a hole for now. */
static int extent_place(cnk_wal_stream *s, cnk_wal_file *f, const cnk_wal_row *row) {
    cnk_wal_extents *x = &s->extents;
    static const cnk_wal_extent hole;
    if (x->count == 0) s->extents_first = row->e.index;
    while (row->e.index < s->extents_first) {
        if (cnk_wal_extents_reserve(x)) return CHRONIK_ENOMEM;
        x->head = (x->head - 1) & (x->capacity - 1);
        x->items[x->head] = hole;
        x->count++;
        s->extents_first--;
    }
    while (row->e.index >= s->extents_first + x->count) {
        if (cnk_wal_extents_reserve(x)) return CHRONIK_ENOMEM;
        cnk_wal_extents_push(x, &hole);
    }
    cnk_wal_extent *at = cnk_wal_extents_nth(x, (size_t)(row->e.index - s->extents_first));
    if (!is_hole(at)) extent_forget(at);
    at->row = *row;
    at->row.frame = CNK_FRAME_ENTRY;
    at->file = f;
    at->file_pos = row->pos;
    atomic_fetch_add(&f->live, 1);
    return 0;
}

/* From here on the recorded state holds. */
static int settle(recovery *rc, cnk_wal_stream *s) {
    if (s->settled) return 0;
    s->settled = true;
    cut_until(s, s->now.released_index);
    cut_after(s, s->now.last_index);
    uint64_t have = s->extents.count, want = s->now.last_index - s->now.released_index;
    bool whole = have == want && (have == 0 || s->extents_first == s->now.released_index + 1);
    for (size_t n = 0; whole && n < s->extents.count; n++) whole = !is_hole(cnk_wal_extents_nth(&s->extents, n));
    if (whole && have > 0)
        whole = cnk_wal_extents_nth(&s->extents, s->extents.count - 1)->row.e.term == s->now.last_term;
    if (whole) return 0;
    return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                     "%s: stream %llu should hold entries %llu to %llu, and some are missing; nothing was changed; see "
                     "chronikd fsck",
                     rc->wal->dir, (unsigned long long)s->now.id, (unsigned long long)s->now.released_index + 1,
                     (unsigned long long)s->now.last_index);
}

static int replay_entry(recovery *rc, cnk_wal_stream *s, cnk_wal_file *f, const cnk_wal_row *row, uint64_t lsn) {
    if (row->e.index != s->now.last_index + 1 || row->e.base_offset != s->now.next_offset)
        return corrupt_row(rc, f, row, lsn, "does not follow the entry before it");
    int code = extent_place(s, f, row);
    cnk_wal_row entry = *row;
    entry.frame = CNK_FRAME_ENTRY; /* a rewritten one whose first place is gone is an entry like others */
    if (code == 0) cnk_wal_state_apply(&s->now, &entry);
    return code;
}

static int replay_rewrite(recovery *rc, cnk_wal_stream *s, cnk_wal_file *f, const cnk_wal_row *row, uint64_t lsn) {
    if (row->e.index == s->now.last_index + 1) return replay_entry(rc, s, f, row, lsn);
    if (row->e.index <= s->now.released_index || row->e.index > s->now.last_index) return 0;
    const cnk_wal_extent *x = cnk_wal_extents_nth(&s->extents, (size_t)(row->e.index - s->extents_first));
    return x->row.e.term == row->e.term ? extent_place(s, f, row) : 0;
}

static int replay_settled(recovery *rc, cnk_wal_stream *s, cnk_wal_file *f, const cnk_wal_row *row, uint64_t lsn) {
    switch (row->frame) {
    case CNK_FRAME_INIT: return 0;
    case CNK_FRAME_ENTRY: return replay_entry(rc, s, f, row, lsn);
    case CNK_FRAME_REWRITE: return replay_rewrite(rc, s, f, row, lsn);
    case CNK_FRAME_TRUNCATE:
        if (row->e.index < s->now.released_index || row->e.index > s->now.last_index)
            return corrupt_row(rc, f, row, lsn, "truncates what is not there");
        cut_after(s, row->e.index);
        cnk_wal_state_apply(&s->now, row);
        return 0;
    case CNK_FRAME_RESET: cut_after(s, 0); break;
    case CNK_FRAME_TRIM:
    case CNK_FRAME_VOTE: break;
    default: return corrupt_row(rc, f, row, lsn, "a frame of an unknown kind; a newer version wrote it");
    }
    cnk_wal_state_apply(&s->now, row);
    if (row->frame == CNK_FRAME_TRIM) { /* what the owner's state does not cover stays for it: README, "Recovery" */
        const cnk_wal_extents *x = &s->extents;
        uint64_t until = s->now.first_index - 1;
        if (until > s->blob_applied && !CNK_WAL_BUG(TRIM_AHEAD)) until = s->blob_applied;
        if (x->count > 0 && until >= s->extents_first && until < s->extents_first + x->count) {
            const cnk_wal_entry *e = &cnk_wal_extents_nth(x, (size_t)(until - s->extents_first))->row.e;
            s->now.released_index = e->index;
            s->now.released_term = e->term;
            s->now.released_offset = e->base_offset + e->count;
            cut_until(s, until);
        }
    }
    return 0;
}

static int replay_drop(recovery *rc, cnk_wal_stream *s, uint64_t id) {
    if (s) {
        cut_after(s, 0);
        cnk_map_remove(&rc->wal->streams_by_id, id);
        cnk_wal_stream_destroy(s);
    }
    return cnk_map_put(&rc->dropped, id, rc);
}

static int replay_unknown(recovery *rc, const cnk_wal_row *row, uint64_t lsn, cnk_wal_stream **ret_stream) {
    *ret_stream = NULL;
    if (row->frame == CNK_FRAME_INIT) {
        if (lsn < rc->checkpoint_lsn) return 0; /* dropped since */
        int code = stream_add(rc, row->stream, ret_stream);
        if (code == 0) (*ret_stream)->exists = (*ret_stream)->known = (*ret_stream)->settled = true;
        return code;
    }
    if (lsn < rc->checkpoint_lsn || cnk_map_get(&rc->dropped, row->stream)) return 0; /* a dropped stream's old rows */
    int code = stream_add(rc, row->stream, ret_stream); /* stands here until its DROP comes; else it is corruption */
    if (code == 0) (*ret_stream)->suspect_lsn = lsn;
    *ret_stream = NULL;
    return code;
}

static int replay_row(recovery *rc, cnk_wal_file *f, const cnk_wal_row *row, uint64_t lsn, bool damaged) {
    if (row->frame == CNK_FRAME_CHECKPOINT) return 0;
    cnk_wal_stream *s = cnk_map_get(&rc->wal->streams_by_id, row->stream);
    if (!s && cnk_map_put(&rc->wal->used_ids, row->stream, rc->wal)) return CHRONIK_ENOMEM;
    if (row->frame == CNK_FRAME_DROP) return s && s->known && lsn < s->as_of_lsn ? 0 : replay_drop(rc, s, row->stream);
    if (!s) {
        int code = replay_unknown(rc, row, lsn, &s);
        if (code || !s) return code;
    }
    if (!s->known) return 0;
    if (damaged) s->now.damaged = true;
    if (!s->settled && lsn < s->as_of_lsn) {
        bool entry = row->frame == CNK_FRAME_ENTRY || row->frame == CNK_FRAME_REWRITE;
        if (row->frame == CNK_FRAME_TRUNCATE) cut_after(s, row->e.index);
        if (row->frame == CNK_FRAME_RESET) cut_after(s, 0);
        bool wanted = entry && row->e.index > s->now.released_index && row->e.index <= s->now.last_index; /* not cut off later */
        return wanted ? extent_place(s, f, row) : 0;
    }
    int code = settle(rc, s);
    return code ? code : replay_settled(rc, s, f, row, lsn);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* Whether a later block of this use of the file, or its trailer, which is written when all blocks are synced, says that this
 * LSN had been synced. */
static int proven(recovery *rc, const cnk_wal_file *f, uint64_t uid, uint64_t from, uint64_t lsn, bool *ret_proven) {
    *ret_proven = false;
    if (CNK_WAL_BUG(CUT_IN_SYNCED)) return 0;
    int code = 0;
    cnk_wal_trailer t;
    const uint8_t *end = f->bytes % CNK_WAL_ALIGN ? NULL : window(rc, f, f->bytes - CNK_WAL_ALIGN, CNK_WAL_ALIGN, &code);
    if (code) return code;
    *ret_proven = end && cnk_wal_trailer_get(end, uid, &t) == 0 && t.last_lsn >= lsn;
    if (*ret_proven) return 0;
    rc->ahead_bytes = WINDOW_BYTES;
    for (uint64_t pos = from; pos + CNK_WAL_ALIGN <= f->bytes; pos += CNK_WAL_ALIGN) {
        const uint8_t *p = window(rc, f, pos, CNK_WAL_BLOCK_HEADER, &code);
        if (code) return code;
        cnk_wal_block_header h;
        if (!p || cnk_wal_block_header_get(p, uid, &h)) continue;
        if ((uint64_t)h.block_number * CNK_WAL_ALIGN != pos || h.watermark < lsn) continue;
        *ret_proven = true;
        return 0;
    }
    return 0;
}

static bool header_follows(const recovery *rc, const cnk_wal_block_header *h, uint64_t pos) {
    if (CNK_WAL_BUG(PAYLOAD_BLOCKS_LIVE)) return true;
    if ((uint64_t)h->block_number * CNK_WAL_ALIGN != pos) return false;
    return CNK_WAL_BUG(RECYCLED_BLOCKS_LIVE) || (h->lsn == rc->lsn + 1 && h->prev_crc == rc->crc);
}

/* The block at pos: 1 whole, 0 bad, negative an error. *ret_bad_row: the first row whose payload fails its CRC, in a block
 * that is whole otherwise; its bytes stay in the window. */
static int block_read(recovery *rc, const cnk_wal_file *f, uint64_t uid, uint64_t pos, cnk_wal_block_header *ret_h,
                      const uint8_t **ret_data, size_t *ret_bad_row) {
    int code;
    *ret_bad_row = SIZE_MAX;
    const uint8_t *p = window(rc, f, pos, CNK_WAL_BLOCK_HEADER, &code);
    if (!p) return code;
    if (cnk_wal_block_header_get(p, uid, ret_h) || !header_follows(rc, ret_h, pos)) return 0;
    p = window(rc, f, pos, ret_h->len, &code);
    if (!p) return code;
    if (cnk_crc32c(cnk_wal_seed(uid), p + ret_h->rows_pos, (size_t)ret_h->rows * CNK_WAL_ROW_BYTES) != ret_h->rows_crc)
        return 0;
    *ret_data = p;
    for (uint32_t n = 0; n < ret_h->rows; n++) {
        cnk_wal_row row;
        cnk_wal_row_get(p + ret_h->rows_pos + (size_t)n * CNK_WAL_ROW_BYTES, &row);
        bool payload = row.frame == CNK_FRAME_ENTRY || row.frame == CNK_FRAME_REWRITE;
        if (payload && (uint64_t)row.pos + row.e.len > ret_h->len) return 0;
        if (!payload || row.e.len == 0 || *ret_bad_row != SIZE_MAX) continue;
        if (cnk_crc32c(0, p + row.pos, row.e.len) != row.crc) *ret_bad_row = n;
    }
    return 1;
}

/* bad_row: the first whose payload is damaged, as block_read found; SIZE_MAX: none is. */
static int block_replay(recovery *rc, cnk_wal_file *f, const cnk_wal_block_header *h, const uint8_t *data, uint64_t pos,
                        size_t bad_row) {
    for (uint32_t n = 0; n < h->rows; n++) {
        cnk_wal_row row;
        cnk_wal_row_get(data + h->rows_pos + (size_t)n * CNK_WAL_ROW_BYTES, &row);
        bool payload = row.frame == CNK_FRAME_ENTRY || row.frame == CNK_FRAME_REWRITE;
        bool damaged = n >= bad_row && payload && row.e.len && cnk_crc32c(0, data + row.pos, row.e.len) != row.crc;
        row.pos += (uint32_t)pos;
        int code = replay_row(rc, f, &row, h->lsn, damaged);
        if (code) return code;
    }
    return 0;
}

static int file_scan(recovery *rc, found_file *x) {
    cnk_wal_file *f = x->file;
    uint64_t pos = CNK_WAL_ALIGN;
    for (;;) {
        if (x->end_known && rc->lsn == x->end_lsn) break;
        cnk_wal_block_header h;
        const uint8_t *data = NULL;
        size_t bad_row;
        int got = block_read(rc, f, x->header.uid, pos, &h, &data, &bad_row);
        if (got < 0) return got;
        if (got == 0 || bad_row != SIZE_MAX) {
            bool synced = x->end_known;
            if (!synced) {
                int code = proven(rc, f, x->header.uid, pos + CNK_WAL_ALIGN, rc->lsn + 1, &synced);
                if (code) return code;
            }
            if (!synced && CNK_WAL_BUG(PAYLOAD_BLOCKS_LIVE) && pos + CNK_WAL_ALIGN < f->bytes) {
                pos += CNK_WAL_ALIGN;
                continue;
            }
            if (!synced) break; /* the torn end */
            if (got == 0)
                return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                                 "%s: block %llu at byte %llu was synced and is damaged, and all streams are suspect; "
                                 "nothing was changed; restore the file, or see chronikd fsck",
                                 f->path, (unsigned long long)rc->lsn + 1, (unsigned long long)pos);
            got = block_read(rc, f, x->header.uid, pos, &h, &data, &bad_row); /* the proof may have moved the window */
            if (got != 1) return got < 0 ? got : CHRONIK_ECORRUPT;
        }
        int code = block_replay(rc, f, &h, data, pos, bad_row);
        if (code) return code;
        if (bad_row != SIZE_MAX || rc->wal->inspect) f->no_footer = true; /* damage: the next start is to find it, too */
        cnk_wal_file_note(f, data, h.rows_pos, h.rows, pos);
        rc->lsn = h.lsn;
        rc->crc = h.crc;
        rc->proof_lsn = h.watermark;
        if (h.rows) rc->rows_lsn = h.lsn;
        pos += h.len;
    }
    f->used = pos;
    if (x->end_known && rc->crc != x->end_crc)
        return cnk_error(rc->err, CHRONIK_ECORRUPT, 0, "%s: its last block is not the one that the next file names",
                         f->path);
    return 0;
}

/* Replays a sealed file from its footer: 1 done, 0 there is none, negative an error. */
static int file_footer(recovery *rc, found_file *x) {
    cnk_wal_file *f = x->file;
    int code;
    if (f->bytes < 3 * CNK_WAL_ALIGN || f->bytes % CNK_WAL_ALIGN) return 0;
    const uint8_t *p = window(rc, f, f->bytes - CNK_WAL_ALIGN, CNK_WAL_ALIGN, &code);
    if (!p) return code;
    cnk_wal_trailer t;
    if (cnk_wal_trailer_get(p, x->header.uid, &t)) return 0;
    if (x->end_known && (t.last_lsn != x->end_lsn || t.last_crc != x->end_crc)) return 0;
    if (t.footer_pos % CNK_WAL_ALIGN || t.footer_len > FOOTER_BYTES_MAX || t.footer_pos + t.footer_len > f->bytes ||
        t.footer_len != t.blocks * 4 + t.rows * CNK_WAL_ROW_BYTES || t.last_lsn - x->header.first_lsn + 1 != t.blocks)
        return 0;
    p = window(rc, f, t.footer_pos, (size_t)t.footer_len, &code);
    if (!p) return code;
    if (cnk_crc32c(cnk_wal_seed(x->header.uid), p, (size_t)t.footer_len) != t.footer_crc) return 0;
    const uint8_t *rows = p + t.blocks * 4;
    uint64_t done = 0;
    for (uint64_t b = 0; b < t.blocks; b++) {
        uint32_t count = cnk_load_le32(p + b * 4);
        if (done + count > t.rows) return corrupt_row(rc, f, &(cnk_wal_row){0}, x->header.first_lsn + b, "bad footer");
        for (uint32_t n = 0; n < count; n++, rows += CNK_WAL_ROW_BYTES) {
            cnk_wal_row row;
            cnk_wal_row_get(rows, &row);
            code = replay_row(rc, f, &row, x->header.first_lsn + b, false);
            if (code) return code;
        }
        done += count;
    }
    rc->lsn = rc->rows_lsn = rc->proof_lsn = t.last_lsn;
    rc->crc = t.last_crc;
    f->used = t.footer_pos;
    f->footer_there = true;
    return 1;
}

/* Files that hold data must form a chain; one that is missing in it is corruption, unless a checkpoint covers it. */
static int chain_check(recovery *rc) {
    found_file *before = NULL;
    for (size_t n = 0; n < rc->files_count; n++) {
        found_file *x = &rc->files[n];
        if (!x->valid) continue;
        const cnk_wal_file_header *h = &x->header;
        if (before && before->file->number == h->prev_number && before->header.uid == h->prev_uid) {
            before->end_known = true;
            before->end_lsn = h->prev_last_lsn;
            before->end_crc = h->prev_crc;
        } else if (h->prev_number != 0 && h->prev_last_lsn >= rc->checkpoint_lsn) {
            return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                             "%s/%020llu.wal is missing or its header is damaged, and %s follows it; restore the file, or "
                             "see chronikd fsck",
                             rc->wal->dir, (unsigned long long)h->prev_number, x->file->path);
        }
        before = x;
    }
    return 0;
}

/* A file without a header is unused, unless blocks in it are proved to have been synced that are newer than all that is
 * known. Nothing else need lead to it, since the file before it may have been freed; but then its newest blocks are not older
 * than the checkpoint that freed that one, as those are that a spare holds of its last use. */
static int spare_check(recovery *rc, const found_file *x) {
    int code;
    cnk_wal_block_header h;
    const uint8_t *p = window(rc, x->file, CNK_WAL_ALIGN, CNK_WAL_BLOCK_HEADER, &code);
    if (!p) return code;
    uint64_t uid = cnk_load_le64(p + 8), lsn = rc->lsn + 1 > rc->checkpoint_lsn ? rc->lsn + 1 : rc->checkpoint_lsn;
    if (cnk_wal_block_header_get(p, uid, &h) || h.block_number != 1) return 0;
    if (h.lsn > lsn) lsn = h.lsn;
    bool synced;
    code = proven(rc, x->file, uid, 2 * CNK_WAL_ALIGN, lsn, &synced);
    if (code || !synced) return code;
    return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                     "%s: the file's header was synced and is damaged, and all streams are suspect; nothing was changed; "
                     "restore the file, or see chronikd fsck",
                     x->file->path);
}

static int replay_files(recovery *rc) {
    bool any = false;
    rc->replaying = true;
    rc->ahead_bytes = WINDOW_BYTES;
    for (size_t n = 0; n < rc->files_count; n++) {
        found_file *x = &rc->files[n];
        if (!x->valid) continue;
        x->file->uid = x->header.uid;
        x->file->first_lsn = x->header.first_lsn;
        if (any && x->header.first_lsn <= rc->lsn)
            return cnk_error(rc->err, CHRONIK_ECORRUPT, 0, "%s: begins at block %llu, but block %llu was before it",
                             x->file->path, (unsigned long long)x->header.first_lsn, (unsigned long long)rc->lsn);
        rc->lsn = rc->proof_lsn = x->header.first_lsn - 1;
        rc->crc = x->header.prev_crc;
        any = true;
        int got = file_footer(rc, x);
        if (got == 0) got = file_scan(rc, x);
        if (got < 0) return got;
        x->file->last_lsn = rc->lsn;
        x->file->last_crc = rc->crc;
        rc->bytes_before += x->file->bytes;
    }
    rc->ahead_bytes = 0;
    for (size_t n = 0; n < rc->files_count; n++) {
        int code = rc->files[n].valid ? 0 : spare_check(rc, &rc->files[n]);
        if (code) return code;
    }
    return 0;
}

static int finish_streams(recovery *rc) {
    cnk_wal *wal = rc->wal;
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_map_next(&wal->streams_by_id, &it));) {
        if (!s->known)
            return cnk_error(rc->err, CHRONIK_ECORRUPT, 0,
                             "%s: block %llu speaks of stream %llu, which nothing created; nothing was changed; see "
                             "chronikd fsck",
                             wal->dir, (unsigned long long)s->suspect_lsn, (unsigned long long)s->now.id);
        int code = settle(rc, s);
        if (code) return code;
        s->durable = s->now;
        if (cnk_array_reserve((void **)&wal->recovered, &wal->recovered_capacity, wal->recovered_count + 1,
                              sizeof *wal->recovered))
            return CHRONIK_ENOMEM;
        size_t n = wal->recovered_count++;
        wal->recovered[n] = s;
    }
    return 0;
}

static int by_id(const void *a, const void *b) {
    const cnk_wal_stream *x = *(cnk_wal_stream *const *)a, *y = *(cnk_wal_stream *const *)b;
    return x->now.id < y->now.id ? -1 : x->now.id > y->now.id;
}

/* A file that was scanned is to get the footer that it lacks, in the background. */
static bool wants_footer(cnk_wal_file *f) {
    bool fits = f->bytes % CNK_WAL_ALIGN == 0 && f->used + cnk_wal_file_room_needed(f, 0, 0) <= f->bytes;
    bool wants = f->blocks_count > 0 && !f->no_footer && fits;
    if (!wants) cnk_wal_file_forget_rows(f);
    return wants;
}

/* Makes durable what was accepted, and gives each file its state. */
static int finish_files(recovery *rc) {
    cnk_wal *wal = rc->wal;
    const chronik_disk_ops *ops = wal->io->disk_ops;
    uint64_t last_valid = 0;
    int code = 0;
    for (size_t n = 0; n < rc->files_count; n++)
        if (rc->files[n].valid) last_valid = rc->files[n].file->number;
    for (size_t n = 0; code == 0 && n < rc->files_count; n++) {
        found_file *x = &rc->files[n];
        bool spare = !x->valid && x->file->number > last_valid && x->file->bytes >= 16 * CNK_WAL_ALIGN;
        x->file->state = x->valid ? FILE_SEALED : spare ? FILE_SPARE : FILE_FREE;
        if (x->valid && !wal->inspect && !CNK_WAL_BUG(TAIL_NOT_SYNCED))
            code = ops->sync(wal->io->disk, x->file->handle, rc->err);
        if (x->valid) {
            wal->prev_uid = x->file->uid;
            wal->prev_number = x->file->number;
            wal->prev_last_lsn = x->file->last_lsn;
            x->file->footer_wanted = wants_footer(x->file);
            wal->scanned |= x->file->footer_wanted;
        }
        if (x->file->number >= wal->next_number) wal->next_number = x->file->number + 1;
        if (code == 0) code = cnk_wal_files_add(wal, x->file);
        if (code == 0) x->file = NULL;
    }
    if (code == 0 && rc->files_count > 0 && !wal->inspect && !CNK_WAL_BUG(TAIL_NOT_SYNCED))
        code = ops->sync_dir(wal->io->disk, wal->dir, rc->err);
    wal->prev_crc = rc->crc;
    /* A checkpoint may name LSNs that were given to blocks which the crash took; they are not given again. */
    uint64_t next = rc->lsn + 1 > rc->lsn_min ? rc->lsn + 1 : rc->lsn_min;
    atomic_store(&wal->next_lsn, next);
    atomic_store(&wal->durable_lsn, next - 1);
    wal->rows_lsn = rc->rows_lsn; /* what nothing proves yet gets a witness, in a new file */
    wal->witnessed_lsn = rc->proof_lsn;
    wal->checkpoint_number = rc->checkpoint_newest > rc->checkpoint_number ? rc->checkpoint_newest
                                                                           : rc->checkpoint_number;
    return code;
}

static void remove_stale(recovery *rc) {
    for (size_t n = 0; n < rc->stale_count; n++) {
        size_t size = strlen(rc->wal->dir) + strlen(rc->stale[n]) + 2;
        char *path = cnk_malloc(size);
        if (!path) return;
        snprintf(path, size, "%s/%s", rc->wal->dir, rc->stale[n]);
        (void)rc->wal->io->disk_ops->unlink(rc->wal->io->disk, path, NULL);
        cnk_free(path);
    }
}

int cnk_wal_recover(cnk_wal *wal, void (*progress)(void *, uint64_t, uint64_t), void *progress_arg, chronik_error *err) {
    recovery rc = {.wal = wal, .err = err, .progress = progress, .progress_arg = progress_arg};
    rc.told_ns = wal->io->jobs_ops->now_ns(wal->io->jobs);
    int code = wal->io->disk_ops->list(wal->io->disk, wal->dir, note_name, &rc, err);
    if (code == 0 && rc.files_count) qsort(rc.files, rc.files_count, sizeof *rc.files, by_number);
    if (code == 0 && rc.checkpoints_count)
        qsort(rc.checkpoints, rc.checkpoints_count, sizeof *rc.checkpoints, newest_first);
    if (code == 0) code = open_files(&rc);
    if (code == 0) code = checkpoint_load(&rc);
    if (code == 0) code = chain_check(&rc);
    if (code == 0) code = replay_files(&rc);
    if (code == 0) code = finish_streams(&rc);
    if (code == 0 && wal->recovered_count)
        qsort(wal->recovered, wal->recovered_count, sizeof *wal->recovered, by_id);
    for (size_t n = 0; code == 0 && n < wal->recovered_count; n++) wal->recovered[n]->recovered_at = n;
    if (code == 0) wal->recovered_left = wal->recovered_count;
    if (code == 0) code = finish_files(&rc);
    if (code == 0 && !wal->inspect) remove_stale(&rc);
    for (size_t n = 0; n < rc.files_count; n++)
        if (rc.files[n].file) cnk_wal_file_destroy(rc.files[n].file);
    for (size_t n = 0; n < rc.stale_count; n++) cnk_free(rc.stale[n]);
    if (code) { /* streams that are not in the list yet */
        size_t it = 0;
        for (cnk_wal_stream *s; (s = cnk_map_next(&wal->streams_by_id, &it));) cnk_wal_stream_destroy(s);
        wal->recovered_count = 0;
    }
    cnk_map_free(&wal->streams_by_id);
    cnk_free(rc.files);
    cnk_free(rc.checkpoints);
    cnk_free(rc.stale);
    cnk_free(rc.checkpoint);
    cnk_pages_free(rc.window, rc.window_size);
    cnk_map_free(&rc.dropped);
    return code;
}
