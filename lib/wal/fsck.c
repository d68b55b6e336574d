/* fsck: says what is in a WAL directory and whether recovery would take it, and repairs what it would not.
 *
 * Write order of a repair, each step of which leaves a directory that fsck can be run on again:
 *   the files that stay are synced
 *   → repair file: under a temporary name, all entries that lie in damaged files and are whole, and an empty one for each
 *     that is lost, as REWRITE rows → sync → rename to the highest number → sync the directory
 *   → checkpoint of all streams, as of the block after the repair file's last, naming the files that stay → sync → rename
 *     → sync the directory: from here on nobody needs the damaged files
 *   → they are moved into `damaged/`, and so are damaged checkpoints
 *   → recovery, which changes nothing, must now say that the log is sound.
 *
 * The repair file follows no other (number before: 0), so its header asks for none; its blocks come after every LSN that
 * was seen anywhere, so that nothing that is appended later can be taken for something the checkpoint covers. */
#include <chronik/io_posix.h>
#include <chronik/wal.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/fsck.h"

enum { BLOCK_BYTES = 2 << 20, BLOCK_ROWS = 4096, FILE_BYTES = 256 << 20, NAMES_MAX = 1000 };

typedef unsigned long long ull;

/* ---- the repair file -------------------------------------------------------------------------------------------- */

typedef struct writer {
    cnk_fsck *k;
    chronik_file *file;
    char *tmp, *path;
    uint64_t number, uid, pos, lsn; /* lsn: of the next block */
    uint64_t first_lsn, file_rows;
    uint32_t prev_crc;
    uint8_t *block; /* aligned pages */
    size_t capacity, used;
    cnk_wal_row *rows; /* of the block; BLOCK_ROWS */
    size_t rows_count;
    struct made { uint64_t number, uid; } *made; /* files that are there */
    size_t made_count, made_capacity;
} writer;

static int write_at(writer *w, const void *data, size_t len, uint64_t pos) {
    const chronik_io *io = w->k->wal->io;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    return io->disk_ops->write(io->disk, w->file, &iov, 1, pos, w->k->err);
}

static int file_begin(writer *w) {
    const chronik_io *io = w->k->wal->io;
    w->path = cnk_wal_path(w->k->wal, w->number, ".wal");
    w->tmp = cnk_wal_path(w->k->wal, w->number, ".wal.tmp");
    if (!w->path || !w->tmp) return CHRONIK_ENOMEM;
    do io->entropy(io->entropy_self, &w->uid, sizeof w->uid);
    while (w->uid == 0);
    (void)io->disk_ops->unlink(io->disk, w->tmp, NULL);
    unsigned flags = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_DIRECT;
    int code = io->disk_ops->open(io->disk, w->tmp, flags, w->k->err, &w->file);
    if (code) return code;
    cnk_wal_file_header h = {.uid = w->uid, .number = w->number, .first_lsn = w->lsn};
    memset(w->block, 0, CNK_WAL_ALIGN);
    cnk_wal_file_header_put(w->block, &h);
    w->pos = CNK_WAL_ALIGN;
    w->first_lsn = w->lsn;
    w->prev_crc = 0;
    w->file_rows = 0;
    w->used = CNK_WAL_BLOCK_HEADER;
    return write_at(w, w->block, CNK_WAL_ALIGN, 0);
}

/* The block as it is, also where it is empty. Everything before this file is durable; `watermark` says so. */
static int block_end(writer *w, uint64_t watermark) {
    size_t table = (w->used + 7) & ~(size_t)7;
    size_t len = (size_t)cnk_wal_align_up(table + w->rows_count * CNK_WAL_ROW_BYTES);
    memset(w->block, 0, CNK_WAL_BLOCK_HEADER);
    memset(w->block + w->used, 0, len - w->used);
    for (size_t n = 0; n < w->rows_count; n++)
        cnk_wal_row_put(w->block + table + n * CNK_WAL_ROW_BYTES, &w->rows[n]);
    cnk_wal_block_header h = {.uid = w->uid, .lsn = w->lsn, .watermark = watermark, .prev_crc = w->prev_crc};
    h.block_number = (uint32_t)(w->pos / CNK_WAL_ALIGN);
    h.len = (uint32_t)len;
    h.rows = (uint32_t)w->rows_count;
    h.rows_pos = (uint32_t)table;
    h.rows_crc = cnk_crc32c(cnk_wal_seed(w->uid), w->block + table, w->rows_count * CNK_WAL_ROW_BYTES);
    w->prev_crc = cnk_wal_block_header_put(w->block, &h);
    int code = write_at(w, w->block, len, w->pos);
    w->pos += len;
    w->lsn++;
    w->file_rows += w->rows_count;
    w->used = CNK_WAL_BLOCK_HEADER;
    w->rows_count = 0;
    return code;
}

/* Last block, sync, and an empty block that is the witness of the last one. */
static int file_end(writer *w) {
    cnk_wal *wal = w->k->wal;
    const chronik_disk_ops *ops = wal->io->disk_ops;
    void *disk = wal->io->disk;
    chronik_error *err = w->k->err;
    int code = w->rows_count ? block_end(w, w->first_lsn - 1) : 0;
    if (code == 0) code = ops->sync(disk, w->file, err);
    if (code == 0) code = block_end(w, w->lsn - 1);
    if (code == 0) code = ops->sync(disk, w->file, err);
    if (code == 0) code = ops->rename(disk, w->tmp, w->path, err);
    if (code == 0) code = ops->sync_dir(disk, wal->dir, err);
    if (code == 0 && cnk_array_reserve((void **)&w->made, &w->made_capacity, w->made_count + 1, sizeof *w->made))
        code = CHRONIK_ENOMEM;
    if (code) return code;
    w->made[w->made_count++] = (struct made){w->number++, w->uid};
    ops->close(disk, w->file);
    w->file = NULL;
    cnk_free(w->path);
    cnk_free(w->tmp);
    w->path = w->tmp = NULL;
    return 0;
}

static int block_room(writer *w, size_t len) {
    size_t want = (size_t)cnk_wal_align_up(CNK_WAL_BLOCK_HEADER + len + 8 + (size_t)(w->rows_count + 1) * CNK_WAL_ROW_BYTES);
    if (want < BLOCK_BYTES + BLOCK_ROWS * CNK_WAL_ROW_BYTES) want = BLOCK_BYTES + BLOCK_ROWS * CNK_WAL_ROW_BYTES;
    want = (size_t)cnk_wal_align_up(want + CNK_WAL_ALIGN);
    if (want <= w->capacity) return 0;
    cnk_pages_free(w->block, w->capacity); /* empty at this moment */
    w->capacity = 0;
    w->block = cnk_pages_alloc(want);
    if (!w->block) return CHRONIK_ENOMEM;
    w->capacity = want;
    return 0;
}

static int entry_write(writer *w, const cnk_fsck_entry *e) {
    uint32_t len = e->row.e.len;
    int code = 0;
    if (w->rows_count && (w->used + len > BLOCK_BYTES || w->rows_count == BLOCK_ROWS)) code = block_end(w, w->first_lsn - 1);
    bool full = w->pos + len > FILE_BYTES || w->file_rows + w->rows_count >= CNK_WAL_FILE_ROWS_MAX - BLOCK_ROWS;
    if (code == 0 && full && w->pos > CNK_WAL_ALIGN) {
        code = file_end(w);
        if (code == 0) code = file_begin(w);
    }
    if (code == 0 && w->rows_count == 0) code = block_room(w, len);
    if (code) return code;
    cnk_wal_row row = e->row;
    row.frame = CNK_FRAME_REWRITE;
    row.pos = (uint32_t)w->used;
    if (len) {
        const uint8_t *p;
        code = cnk_fsck_window(w->k, e->file, e->pos, len, &p);
        if (code) return code;
        if (!p || cnk_crc32c(0, p, len) != row.crc)
            return cnk_error(w->k->err, CHRONIK_EIO, 0, "%s: byte %llu reads otherwise than a moment ago", e->file->path,
                             (ull)e->pos);
        memcpy(w->block + w->used, p, len);
    }
    w->used += len;
    w->rows[w->rows_count++] = row;
    return 0;
}

static int entries_write(writer *w) {
    size_t it = 0;
    int code = 0;
    for (cnk_fsck_stream *s; code == 0 && (s = cnk_map_next(&w->k->streams, &it));)
        for (size_t n = 0; code == 0 && n < s->count; n++) {
            const cnk_fsck_entry *e = &s->entries[n];
            if (e->state == FSCK_LOST || e->again || e->file->damaged) code = entry_write(w, e);
        }
    return code;
}

/* ---- the checkpoint --------------------------------------------------------------------------------------------- */

static void checkpoint_stream(cnk_writer *out, const cnk_fsck_stream *s, uint64_t as_of) {
    cnk_wal_checkpoint_row row = {s->now, as_of, s->blob_applied, s->blob_len};
    row.state.damaged = false; /* what was damaged in it has been replaced */
    uint8_t *p = cnk_write_space(out, CNK_WAL_CHECKPOINT_ROW);
    if (p) cnk_wal_checkpoint_row_put(p, &row);
    if (s->blob_len) cnk_write_bytes(out, s->blob, (size_t)s->blob_len);
}

static int by_id(const void *a, const void *b) {
    uint64_t x = (*(cnk_fsck_stream *const *)a)->now.id, y = (*(cnk_fsck_stream *const *)b)->now.id;
    return x < y ? -1 : x > y;
}

static int checkpoint_build(const writer *w, uint64_t number, cnk_writer *out) {
    const cnk_fsck *k = w->k;
    uint64_t files = w->made_count;
    cnk_fsck_stream **sorted = cnk_calloc(k->streams.count + 1, sizeof *sorted);
    if (!sorted) return CHRONIK_ENOMEM;
    size_t count = 0, it = 0;
    for (cnk_fsck_stream *s; (s = cnk_map_next(&k->streams, &it));) sorted[count++] = s;
    if (count) qsort(sorted, count, sizeof(cnk_fsck_stream *), by_id);
    for (int n = 0; n < CNK_WAL_CHECKPOINT_HEADER / 8; n++) cnk_write_le64(out, 0);
    for (size_t n = 0; n < k->files_count; n++) {
        const cnk_fsck_file *f = &k->files[n];
        if (!f->live || f->damaged) continue;
        cnk_write_le64(out, f->number);
        cnk_write_le64(out, f->header.uid);
        files++;
    }
    for (size_t n = 0; n < w->made_count; n++) {
        cnk_write_le64(out, w->made[n].number);
        cnk_write_le64(out, w->made[n].uid);
    }
    for (size_t n = 0; n < count; n++) checkpoint_stream(out, sorted[n], w->lsn);
    cnk_free(sorted);
    if (out->error) return CHRONIK_ENOMEM;
    cnk_wal_checkpoint_header_put(out->data, &(cnk_wal_checkpoint_header){number, w->lsn, count, files, out->len});
    cnk_store_le32(out->data + 12, cnk_crc32c(0, out->data + 16, out->len - 16));
    return 0;
}

static int checkpoint_write(writer *w) {
    cnk_wal *wal = w->k->wal;
    const chronik_disk_ops *ops = wal->io->disk_ops;
    void *disk = wal->io->disk;
    chronik_error *err = w->k->err;
    uint64_t number = w->k->checkpoints_count ? w->k->checkpoints[0].number + 1 : 1;
    char *path = cnk_wal_path(wal, number, ".checkpoint"), *tmp = cnk_wal_path(wal, number, ".checkpoint.tmp");
    chronik_file *file = NULL;
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    int code = path && tmp ? checkpoint_build(w, number, &out) : CHRONIK_ENOMEM;
    if (code == 0) {
        (void)ops->unlink(disk, tmp, NULL);
        code = ops->open(disk, tmp, CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE, err, &file);
    }
    struct iovec iov = {out.data, out.len};
    if (code == 0) code = ops->write(disk, file, &iov, 1, 0, err);
    if (code == 0) code = ops->sync(disk, file, err);
    ops->close(disk, file);
    if (code == 0) code = ops->rename(disk, tmp, path, err);
    if (code == 0) code = ops->sync_dir(disk, wal->dir, err);
    if (code == 0) cnk_fsck_say(w->k, "checkpoint %llu: written", (ull)number);
    cnk_writer_free(&out);
    cnk_free(path);
    cnk_free(tmp);
    return code;
}

/* ---- putting aside ---------------------------------------------------------------------------------------------- */

static bool is_there(const chronik_io *io, const char *path) {
    chronik_file *file = NULL;
    bool there = io->disk_ops->open(io->disk, path, CHRONIK_OPEN_READ, NULL, &file) == 0;
    if (there) io->disk_ops->close(io->disk, file);
    return there;
}

static int put_aside(cnk_fsck *k, const char *aside, uint64_t number, const char *suffix) {
    const chronik_io *io = k->wal->io;
    char *from = cnk_wal_path(k->wal, number, suffix), to[4400];
    int code = from ? 0 : CHRONIK_ENOMEM;
    for (int n = 0; code == 0 && n < NAMES_MAX; n++) {
        if (n == 0) snprintf(to, sizeof to, "%s/%020llu%s", aside, (ull)number, suffix);
        else snprintf(to, sizeof to, "%s/%020llu%s.%d", aside, (ull)number, suffix, n);
        if (!is_there(io, to)) break;
    }
    if (code == 0) code = io->disk_ops->rename(io->disk, from, to, k->err);
    if (code == 0) cnk_fsck_say(k, "moved: %s", to);
    cnk_free(from);
    return code;
}

static int put_all_aside(cnk_fsck *k) {
    const chronik_io *io = k->wal->io;
    char aside[4300];
    if (strlen(k->wal->dir) > 4000) return cnk_error(k->err, CHRONIK_EINVAL, 0, "the directory's name is too long");
    snprintf(aside, sizeof aside, "%s/damaged", k->wal->dir);
    bool any = false;
    int code = 0;
    for (size_t n = 0; n < k->files_count; n++) any |= k->files[n].damaged;
    for (size_t n = 0; n < k->checkpoints_count; n++) any |= !k->checkpoints[n].valid;
    if (!any) return 0;
    code = io->disk_ops->mkdir(io->disk, aside, k->err);
    if (code == CHRONIK_EEXIST) code = 0;
    for (size_t n = 0; code == 0 && n < k->files_count; n++)
        if (k->files[n].damaged) code = put_aside(k, aside, k->files[n].number, ".wal");
    for (size_t n = 0; code == 0 && n < k->checkpoints_count; n++)
        if (!k->checkpoints[n].valid) code = put_aside(k, aside, k->checkpoints[n].number, ".checkpoint");
    if (code == 0) code = io->disk_ops->sync_dir(io->disk, aside, k->err);
    if (code == 0) code = io->disk_ops->sync_dir(io->disk, k->wal->dir, k->err);
    return code;
}

/* ---- all of it -------------------------------------------------------------------------------------------------- */

static int sync_kept(cnk_fsck *k) {
    const chronik_io *io = k->wal->io;
    int code = 0;
    for (size_t n = 0; code == 0 && n < k->files_count; n++)
        if (k->files[n].live && !k->files[n].damaged) code = io->disk_ops->sync(io->disk, k->files[n].handle, k->err);
    return code ? code : io->disk_ops->sync_dir(io->disk, k->wal->dir, k->err);
}

static int repair(cnk_fsck *k) {
    writer w = {.k = k, .lsn = k->max_lsn + 1, .number = 1};
    if (k->files_count) w.number = k->files[k->files_count - 1].number + 1;
    if (k->max_lsn >= UINT64_MAX - (1u << 30) || w.number >= UINT64_MAX - (1u << 30))
        return cnk_error(k->err, CHRONIK_ECORRUPT, 0, "block and file numbers that cannot be true");
    w.rows = cnk_calloc(BLOCK_ROWS, sizeof *w.rows);
    int code = w.rows ? block_room(&w, 0) : CHRONIK_ENOMEM;
    if (code == 0) code = sync_kept(k);
    if (code == 0) code = file_begin(&w);
    if (code == 0) code = entries_write(&w);
    if (code == 0) code = file_end(&w);
    if (code == 0) code = checkpoint_write(&w);
    if (code == 0) code = put_all_aside(k);
    k->wal->io->disk_ops->close(k->wal->io->disk, w.file);
    if (w.tmp && w.file) (void)k->wal->io->disk_ops->unlink(k->wal->io->disk, w.tmp, NULL);
    cnk_free(w.tmp);
    cnk_free(w.path);
    cnk_free(w.made);
    cnk_free(w.rows);
    cnk_pages_free(w.block, w.capacity);
    return code;
}

static void say_lost(cnk_fsck *k, bool cut) {
    size_t it = 0;
    for (cnk_fsck_stream *s; (s = cnk_map_next(&k->streams, &it));)
        for (size_t n = 0; n < s->count; n++) {
            if (s->entries[n].state != FSCK_LOST) continue;
            size_t from = n;
            while (n + 1 < s->count && s->entries[n + 1].state == FSCK_LOST) n++;
            int64_t offset = s->entries[from].row.e.base_offset;
            int64_t end = n + 1 < s->count ? s->entries[n + 1].row.e.base_offset : s->now.next_offset;
            uint64_t count = (uint64_t)end - (uint64_t)offset; /* of damaged rows, any number */
            cnk_fsck_say(k, "lost: stream %llu, entries %llu to %llu, %lld offsets from %lld; %s", (ull)s->now.id,
                         (ull)s->entries[from].row.e.index, (ull)s->entries[n].row.e.index, (long long)count,
                         (long long)offset, cut ? "later ones keep their numbers" : "unless a copy of the file is restored");
        }
}

/* A cnk_wal that is good for recovery's reading alone. */
static int wal_make(const chronik_io *io, const char *dir, cnk_wal **ret_wal) {
    cnk_wal *wal = cnk_calloc(1, sizeof *wal);
    if (!wal) return CHRONIK_ENOMEM;
    pthread_mutex_init(&wal->mutex, NULL);
    wal->io = io;
    wal->options = (cnk_wal_options)CNK_WAL_OPTIONS_INIT;
    wal->inspect = true;
    wal->dir = cnk_strdup(dir);
    if (!wal->dir) {
        cnk_wal_free(wal);
        return CHRONIK_ENOMEM;
    }
    *ret_wal = wal;
    return 0;
}

/* What a start would say. */
static int would_start(const chronik_io *io, const char *dir, chronik_error *err) {
    cnk_wal *wal;
    int code = wal_make(io, dir, &wal);
    if (code) return code;
    code = cnk_wal_recover(wal, NULL, NULL, err);
    if (code && !err->code) (void)cnk_error(err, code, 0, "%s: %s", dir, chronik_strerror(code));
    cnk_wal_free(wal);
    return code;
}

static int look(cnk_fsck *k, chronik_error *ret_verdict, int *ret_start) {
    *ret_start = would_start(k->wal->io, k->wal->dir, ret_verdict);
    if (*ret_start && *ret_start != CHRONIK_ECORRUPT) {
        if (k->err) *k->err = *ret_verdict;
        return *ret_start;
    }
    int code = cnk_fsck_scan(k);
    if (code) return code;
    if (*ret_start) cnk_fsck_say(k, "verdict: it will not be opened: %s", ret_verdict->text);
    else if (k->findings) cnk_fsck_say(k, "verdict: it can be opened; what is damaged fails when it is read, and may keep its stream from taking more");
    else cnk_fsck_say(k, "verdict: sound");
    return 0;
}

int cnk_wal_fsck(const chronik_io *io, const char *dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                 chronik_error *err) {
    chronik_error own = CHRONIK_ERROR_INIT, verdict = CHRONIK_ERROR_INIT;
    cnk_fsck k = {.line = line, .arg = arg, .err = &own};
    bool cut = flags & CHRONIK_WAL_FSCK_CUT;
    int start = 0, code = wal_make(io, dir, &k.wal);
    if (code) return cnk_error(err, code, 0, "no memory to check %s", dir);
    code = look(&k, &verdict, &start);
    if (code == 0 && (start || k.findings)) {
        say_lost(&k, cut);
        if (!cut) {
            cnk_fsck_say(&k, "remedy: restore the damaged files from a copy; or repair with `chronikd fsck cut`: it keeps all "
                             "that is whole, puts what is damaged aside in %s/damaged, and what is lost stays lost", dir);
            code = cnk_error(&own, CHRONIK_ECORRUPT, 0, "%s: %llu damages%s%s", dir, (ull)k.findings, start ? ": " : "",
                             verdict.text);
        } else {
            code = repair(&k);
            if (code == 0) code = would_start(io, dir, &own);
            if (code == 0) cnk_fsck_say(&k, "repaired: %llu entries lost, and %llu missing here", (ull)k.lost, (ull)k.missing);
        }
    }
    if (code && !own.code) (void)cnk_error(&own, code, 0, "%s: %s", dir, chronik_strerror(code));
    if (code && err) *err = own;
    cnk_fsck_free(&k);
    cnk_wal_free(k.wal);
    return code;
}

/* A log that chronik_wal_open made has a lock; in a node's data directory the lock is another, and the caller holds it. */
static int take_lock(const chronik_io *io, const char *dir, chronik_error *err, chronik_file **ret_lock) {
    char path[4200];
    if (strlen(dir) > 4000) return cnk_error(err, CHRONIK_EINVAL, 0, "the directory's name is too long");
    snprintf(path, sizeof path, "%s/lock", dir);
    if (!is_there(io, path)) return 0;
    int code = io->disk_ops->lock(io->disk, path, err, ret_lock);
    if (code == CHRONIK_EBUSY) return cnk_error(err, code, 0, "%s: a process has this log open; stop it first", dir);
    return code;
}

int chronik_wal_fsck(const char *dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                     chronik_error *err) {
    if (!dir || (flags & ~(unsigned)CHRONIK_WAL_FSCK_CUT))
        return cnk_error(err, CHRONIK_EINVAL, 0, "a directory is needed, and no flag but CHRONIK_WAL_FSCK_CUT");
    chronik_io *io;
    chronik_file *lock = NULL;
    int code = chronik_io_posix_new(NULL, err, &io);
    if (code) return code;
    code = take_lock(io, dir, err, &lock);
    if (code == 0) code = cnk_wal_fsck(io, dir, flags, line, arg, err);
    io->disk_ops->close(io->disk, lock);
    chronik_io_posix_free(io);
    return code;
}
