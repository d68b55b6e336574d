/* The WAL's files: the table of them, and the background job that prepares spares, recycles what is free, writes footers
 * and checkpoints. The job runs on the BACKGROUND lane in small steps, so that other work of the lane goes on.
 *
 *   SPARE ──writer opens it──► OPEN ──full, or old──► SEALED ──nothing live, checkpoint durable──► FREE ──► SPARE, or gone
 *
 * Room. Data is accepted only against room that is there already: the rest of the open file and the spares, less a
 * reserve that is kept for votes, trims, deletions and checkpoints, without which no space would ever come back; half of it
 * may be taken by what is moved out of sealed files (rewrite.c). The budget is for data: files beyond it, CNK_WAL_OVER_FILES at most,
 * are prepared only so that what is moved has room, and that what has been accepted gets through; data gets none of them, but
 * where no file is left that could be given back: it would wait for ever. */
#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

enum { FILL_BYTES = 1 << 20, FILL_CALM_NS = 4000000 };

char *cnk_wal_path(const cnk_wal *wal, uint64_t number, const char *suffix) {
    size_t size = strlen(wal->dir) + strlen(suffix) + 24;
    char *path = cnk_malloc(size);
    if (path) snprintf(path, size, "%s/%020llu%s", wal->dir, (unsigned long long)number, suffix);
    return path;
}

int cnk_wal_file_new(cnk_wal *wal, uint64_t number, cnk_wal_file **ret_file) {
    cnk_wal_file *f = cnk_calloc(1, sizeof *f);
    if (!f) return CHRONIK_ENOMEM;
    f->wal = wal;
    f->number = number;
    f->path = cnk_wal_path(wal, number, ".wal");
    if (!f->path) {
        cnk_free(f);
        return CHRONIK_ENOMEM;
    }
    *ret_file = f;
    return 0;
}

void cnk_wal_file_forget_rows(cnk_wal_file *f) {
    cnk_free(f->rows);
    cnk_free(f->block_rows);
    f->rows = NULL;
    f->block_rows = NULL;
    f->rows_count = f->rows_capacity = f->blocks_count = f->blocks_capacity = 0;
}

void cnk_wal_file_destroy(cnk_wal_file *f) {
    if (!f) return;
    f->wal->io->disk_ops->close(f->wal->io->disk, f->handle);
    cnk_wal_file_forget_rows(f);
    cnk_free(f->path);
    cnk_free(f);
}

int cnk_wal_files_add(cnk_wal *wal, cnk_wal_file *f) {
    if (cnk_array_reserve((void **)&wal->files, &wal->files_capacity, wal->files_count + 1, sizeof *wal->files))
        return CHRONIK_ENOMEM;
    size_t n = wal->files_count++;
    for (; n > 0 && wal->files[n - 1]->number > f->number; n--) wal->files[n] = wal->files[n - 1];
    wal->files[n] = f;
    wal->disk_bytes += f->bytes;
    return 0;
}

void cnk_wal_files_remove(cnk_wal *wal, cnk_wal_file *f) {
    for (size_t n = 0; n < wal->files_count; n++) {
        if (wal->files[n] != f) continue;
        memmove(&wal->files[n], &wal->files[n + 1], (wal->files_count - n - 1) * sizeof(cnk_wal_file *));
        wal->files_count--;
        wal->disk_bytes -= f->bytes;
        return;
    }
}

cnk_wal_file *cnk_wal_files_spare(cnk_wal *wal, uint64_t bytes) {
    cnk_wal_file *found = NULL;
    uint64_t used = wal->open ? wal->open->number : wal->prev_number;
    for (size_t n = 0; n < wal->files_count && !found; n++) {
        cnk_wal_file *f = wal->files[n];
        if (f->state == FILE_SPARE && f->bytes >= bytes && f->number > used) found = f;
    }
    /* Files are used in the order of their numbers: spares that stay behind get a new one. */
    for (size_t n = 0; found && n < wal->files_count && wal->files[n] != found; n++)
        if (wal->files[n]->state == FILE_SPARE) wal->files[n]->state = FILE_FREE;
    return found;
}

size_t cnk_wal_files_spare_count(const cnk_wal *wal) {
    size_t count = 0;
    for (size_t n = 0; n < wal->files_count; n++) count += wal->files[n]->state == FILE_SPARE;
    return count;
}

uint64_t cnk_wal_file_room_needed(const cnk_wal_file *f, size_t more_blocks, size_t more_rows) {
    uint64_t blocks = (f ? f->blocks_count : 0) + more_blocks, rows = (f ? f->rows_count : 0) + more_rows;
    return cnk_wal_align_up(blocks * 4 + rows * CNK_WAL_ROW_BYTES) + CNK_WAL_ALIGN;
}

/* Is there a file that will be given back? Where there is none, to wait for room would be to wait for ever. */
static bool something_leaves(const cnk_wal *wal) {
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->state == FILE_SEALED || wal->files[n]->state == FILE_FREE) return true;
    return false;
}

void cnk_wal_room_update(cnk_wal *wal) {
    if (wal->disk_bytes < wal->data_bytes_max)
        wal->data_bytes_max = wal->disk_bytes > wal->options.budget_bytes ? wal->disk_bytes : wal->options.budget_bytes;
    int64_t over = wal->disk_bytes > wal->data_bytes_max && something_leaves(wal)
                       ? (int64_t)(wal->disk_bytes - wal->data_bytes_max)
                       : 0;
    int64_t moves = (int64_t)wal->reserve_bytes / 2 + over;
    int64_t room = -(int64_t)wal->reserve_bytes - over;
    const cnk_wal_file *f = wal->open;
    int64_t waste = (int64_t)wal->block_bytes_max; /* at a file's end, where the next block does not fit */
    if (f) {
        int64_t left = (int64_t)(f->bytes - f->used - wal->commit_bytes) - waste -
                       (int64_t)cnk_wal_file_room_needed(f, wal->commit_count, wal->commit_rows);
        room += left > 0 ? left : 0;
    }
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->state == FILE_SPARE) room += (int64_t)wal->files[n]->bytes - 4 * CNK_WAL_ALIGN - waste;
    for (size_t n = 0; n < wal->ports_count; n++) {
        pthread_mutex_lock(&wal->ports[n]->mutex);
        room -= (int64_t)wal->ports[n]->pending_bytes;
        pthread_mutex_unlock(&wal->ports[n]->mutex);
    }
    atomic_store(&wal->room, room);
    atomic_store(&wal->moves_room, moves);
    int64_t starved = atomic_load(&wal->starved);
    if (starved == 0 || room < starved) return;
    atomic_store(&wal->starved, 0);
    for (size_t n = 0; n < wal->ports_count; n++) cnk_wal_port_post_wake(wal->ports[n]);
}

/* ---- pins and reads --------------------------------------------------------------------------------------------- */

cnk_wal_file *cnk_wal_file_pin(cnk_wal *wal, uint32_t file_seq) {
    cnk_wal_file *found = NULL;
    pthread_mutex_lock(&wal->mutex);
    for (size_t n = 0; n < wal->files_count && !found; n++) {
        cnk_wal_file *f = wal->files[n];
        if ((uint32_t)f->number == file_seq && (f->state == FILE_OPEN || f->state == FILE_SEALED)) found = f;
    }
    if (found) atomic_fetch_add(&found->pins, 1);
    pthread_mutex_unlock(&wal->mutex);
    return found;
}

/* With the last entry gone from it the file may be freed at any time: it is not looked at again. */
void cnk_wal_file_leave(cnk_wal_file *file, uint32_t entries) {
    cnk_wal *wal = file->wal;
    if (atomic_fetch_sub_explicit(&file->live, entries, memory_order_release) != entries) return;
    pthread_mutex_lock(&wal->mutex);
    if (wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]); /* cnk_wal_checkpoint_if_due */
    pthread_mutex_unlock(&wal->mutex);
}

void cnk_wal_file_unpin(cnk_wal_file *file) {
    cnk_wal *wal = file->wal;
    pthread_mutex_lock(&wal->mutex);
    if (atomic_fetch_sub(&file->pins, 1) == 1 && file->state == FILE_FREE) cnk_wal_bg_wake(wal);
    pthread_mutex_unlock(&wal->mutex);
}

int64_t cnk_wal_file_read_raw(cnk_wal_file *file, uint64_t pos, size_t len, void *buf, chronik_error *err) {
    return file->wal->io->disk_ops->read(file->wal->io->disk, file->handle, buf, len, pos, err);
}

int cnk_wal_file_read(cnk_wal_file *file, uint64_t pos, uint32_t len, uint32_t crc, void *buf, chronik_error *err) {
    if (len == 0) return 0;
    uint64_t from = pos & ~(uint64_t)(CNK_WAL_ALIGN - 1);
    size_t size = (size_t)(cnk_wal_align_up(pos + len) - from);
    uint8_t *pages = cnk_pages_alloc(size);
    if (!pages) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to read %u bytes", file->path, len);
    int code = 0;
    int64_t got = cnk_wal_file_read_raw(file, from, size, pages, err);
    if (got < 0) {
        code = (int)got;
    } else if ((uint64_t)got < pos - from + len) {
        code = cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: ends before byte %llu", file->path,
                         (unsigned long long)(pos + len));
    } else if (cnk_crc32c_copy(0, buf, pages + (pos - from), len) != crc) {
        code = cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: the %u bytes at %llu fail their checksum; see chronikd fsck",
                         file->path, len, (unsigned long long)pos);
    }
    cnk_pages_free(pages, size);
    return code;
}

/* ---- preparing a spare ------------------------------------------------------------------------------------------ */

static bool spare_there(const cnk_wal *wal, uint64_t bytes) {
    uint64_t used = wal->open ? wal->open->number : wal->prev_number;
    for (size_t n = 0; n < wal->files_count; n++) {
        const cnk_wal_file *f = wal->files[n];
        if (f->state == FILE_SPARE && f->bytes >= bytes && f->number > used) return true;
    }
    return false;
}

/* What has been accepted has no file to go to. */
static bool writer_waits(const cnk_wal *wal) { return wal->waiting_for_spare && !spare_there(wal, wal->waiting_bytes); }

/* The size the next spare should have: files grow to the configured size, so that a small broker stays small. Beyond the
 * budget only what the writer waits for counts, not what data was refused. */
static uint64_t spare_bytes(const cnk_wal *wal) {
    uint64_t bytes = wal->options.file_bytes, last = 0;
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->state != FILE_FREE) last = wal->files[n]->bytes;
    if (last && last * 4 < bytes) bytes = last * 4;
    uint64_t need = bytes < wal->need_bytes ? wal->need_bytes : bytes;
    if (writer_waits(wal) && wal->disk_bytes + need > wal->options.budget_bytes)
        need = bytes < wal->waiting_bytes ? wal->waiting_bytes : bytes;
    return cnk_wal_align_up(need);
}

static bool spare_wanted(const cnk_wal *wal) {
    if (atomic_load(&wal->fenced)) return false;
    if (atomic_load(&wal->shutdown) && !wal->waiting_for_spare) return false;
    if (writer_waits(wal)) return true;
    if (wal->need_bytes && !spare_there(wal, wal->need_bytes)) return true;
    if (wal->moves_wanted && cnk_wal_files_spare_count(wal) == 0) return true;
    if (cnk_wal_files_spare_count(wal) >= CNK_WAL_SPARES) return false;
    return wal->open && cnk_wal_file_quarter_full(wal->open);
}

bool cnk_wal_file_quarter_full(const cnk_wal_file *f) {
    return f->used * 4 >= f->bytes || f->rows_count * 4 >= CNK_WAL_FILE_ROWS_MAX;
}

/* What has been accepted must get through, or the checkpoints that free space could not: then the budget yields. */
static bool spare_affordable(const cnk_wal *wal) {
    if (writer_waits(wal) || wal->disk_bytes + spare_bytes(wal) <= wal->options.budget_bytes) return true;
    if (wal->moves_wanted && wal->disk_bytes + spare_bytes(wal) <= wal->options.budget_bytes + wal->options.file_bytes)
        return true;
    /* Data was refused, and nothing will make room for it. */
    return wal->need_bytes > 0 && !something_leaves(wal) && cnk_wal_files_spare_count(wal) == 0;
}

/* Data was refused that no spare can hold: where nothing else would make room for it, the spares go. */
static void spares_yield(cnk_wal *wal) {
    if (wal->need_bytes == 0 || spare_there(wal, wal->need_bytes) || spare_affordable(wal) || something_leaves(wal))
        return;
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->state == FILE_SPARE) wal->files[n]->state = FILE_FREE;
}

bool cnk_wal_files_next_affordable(const cnk_wal *wal) {
    return cnk_wal_files_spare_count(wal) > 0 ||
           wal->disk_bytes + spare_bytes(wal) <= wal->options.budget_bytes + wal->options.file_bytes;
}

static int prep_path(cnk_wal *wal) {
    if (wal->prep.tmp_path) return 0;
    size_t size = strlen(wal->dir) + 16;
    wal->prep.tmp_path = cnk_malloc(size);
    if (!wal->prep.tmp_path) return CHRONIK_ENOMEM;
    snprintf(wal->prep.tmp_path, size, "%s/prepare.tmp", wal->dir);
    return 0;
}

/* Creates the temporary file and takes its space. */
static int prep_start(cnk_wal *wal, uint64_t number, uint64_t bytes, chronik_error *err) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    cnk_wal_file *f = NULL;
    int code = prep_path(wal);
    if (code == 0) code = cnk_wal_file_new(wal, number, &f);
    if (code) return code;
    f->bytes = bytes;
    f->state = FILE_SPARE;
    wal->prep.file = f;
    wal->prep.filled = 0;
    unsigned flags = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_DIRECT;
    (void)ops->unlink(wal->io->disk, wal->prep.tmp_path, NULL);
    code = ops->open(wal->io->disk, wal->prep.tmp_path, flags, err, &f->handle);
    if (code == 0) code = ops->allocate(wal->io->disk, f->handle, bytes, err);
    return code;
}

/* A directory whose sync failed cannot be trusted again, and no sync is ever tried twice: the node is fenced. */
int cnk_wal_sync_dir(cnk_wal *wal, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    int code = wal->io->disk_ops->sync_dir(wal->io->disk, wal->dir, &why);
    if (code) cnk_wal_fence(wal, &why);
    if (code && err) *err = why;
    return code;
}

static void prep_abandon(cnk_wal *wal) {
    cnk_wal_file_destroy(wal->prep.file);
    wal->prep.file = NULL;
    if (wal->prep.tmp_path) (void)wal->io->disk_ops->unlink(wal->io->disk, wal->prep.tmp_path, NULL);
}

static int prep_finish(cnk_wal *wal, chronik_error *err) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    cnk_wal_file *f = wal->prep.file;
    int code = ops->sync(wal->io->disk, f->handle, err);
    if (code == 0) code = ops->rename(wal->io->disk, wal->prep.tmp_path, f->path, err);
    if (code == 0 && !CNK_WAL_BUG(RENAME_NOT_SYNCED)) code = cnk_wal_sync_dir(wal, err);
    return code;
}

static int prep_fill(cnk_wal *wal, chronik_error *err) {
    uint64_t left = wal->prep.file->bytes - wal->prep.filled;
    size_t n = left < FILL_BYTES ? (size_t)left : FILL_BYTES;
    struct iovec iov = {wal->zeros, n};
    int code = wal->io->disk_ops->write(wal->io->disk, wal->prep.file->handle, &iov, 1, wal->prep.filled, err);
    wal->prep.filled += n;
    return code;
}

/* The spare is there, or there is no room for one. */
static void prep_end(cnk_wal *wal, int code) {
    cnk_wal_file *f = wal->prep.file;
    cnk_pages_free(wal->zeros, CNK_WAL_ZEROS_BYTES);
    wal->zeros = NULL;
    wal->prep.state = BG_IDLE;
    if (code) {
        prep_abandon(wal);
        wal->prep.retry_at_ns = wal->io->jobs_ops->now_ns(wal->io->jobs) + CNK_WAL_FULL_RETRY_MS * UINT64_C(1000000);
    }
    pthread_mutex_lock(&wal->mutex);
    if (code == 0) {
        wal->prep.file = NULL;
        code = cnk_wal_files_add(wal, f);
        if (code) cnk_wal_file_destroy(f);
    }
    if (code == 0) {
        if (f->bytes >= wal->need_bytes) wal->need_bytes = 0;
        wal->spare_retry = false;
        wal->moves_wanted = false;
        atomic_store(&wal->full, false);
        if (wal->waiting_for_spare) cnk_wal_writer_wake(wal);
    } else {
        /* Memory that is short says nothing of the disk: whoever waits for room waits on. */
        wal->spare_retry = code == CHRONIK_ENOMEM;
        if (!wal->spare_retry) atomic_store(&wal->full, true);
        for (size_t n = 0; n < wal->ports_count; n++) cnk_wal_port_post_wake(wal->ports[n]);
    }
    cnk_wal_room_update(wal);
    pthread_mutex_unlock(&wal->mutex);
}

/* Commits share the disk: while nothing presses, the zeros of a spare leave them most of it. */
static int64_t prep_pause(cnk_wal *wal) {
    pthread_mutex_lock(&wal->mutex);
    const cnk_wal_file *f = wal->open;
    bool calm = wal->prep.state == BG_FILL && !wal->waiting_for_spare && wal->need_bytes == 0 && !wal->moves_wanted &&
                !atomic_load(&wal->shutdown) && f && f->used * 2 < f->bytes && f->rows_count * 2 < CNK_WAL_FILE_ROWS_MAX;
    pthread_mutex_unlock(&wal->mutex);
    return calm ? FILL_CALM_NS : 0;
}

static void prep_step(cnk_wal *wal) {
    int code = 0;
    if (wal->prep.state == BG_IDLE) {
        pthread_mutex_lock(&wal->mutex);
        uint64_t number = wal->next_number++, bytes = spare_bytes(wal);
        pthread_mutex_unlock(&wal->mutex);
        wal->zeros = cnk_pages_alloc(CNK_WAL_ZEROS_BYTES);
        if (wal->zeros) *(volatile uint8_t *)wal->zeros = 0; /* what was never written is no huge page, and dear to pin */
        code = wal->zeros ? prep_start(wal, number, bytes, NULL) : CHRONIK_ENOMEM;
        wal->prep.state = BG_FILL;
    } else if (wal->prep.filled < wal->prep.file->bytes) {
        code = prep_fill(wal, NULL);
    } else {
        code = prep_finish(wal, NULL);
        prep_end(wal, code);
        return;
    }
    if (code) prep_end(wal, code);
}

static int first_file(cnk_wal *wal, uint64_t bytes, chronik_error *err) {
    int code = prep_start(wal, wal->next_number++, cnk_wal_align_up(bytes), err); /* allocated, but not filled: fast */
    if (code == 0) code = prep_finish(wal, err);
    if (code == 0) code = cnk_wal_files_add(wal, wal->prep.file);
    if (code) prep_abandon(wal);
    else wal->prep.file = NULL;
    return code;
}

/* On a full disk a small one: no data goes into it, but votes, trims and deletions, without which no space would come
 * back. Not the largest that fits: checkpoints need some room, too. */
int cnk_wal_first_file(cnk_wal *wal, chronik_error *err) {
    static const uint64_t sizes[] = {CNK_WAL_FIRST_FILE_BYTES, CNK_WAL_LAST_RESORT_BYTES, CNK_WAL_LAST_RESORT_BYTES / 4};
    int code = CHRONIK_ENOSPC;
    for (size_t n = 0; n < sizeof sizes / sizeof sizes[0] && code == CHRONIK_ENOSPC; n++) {
        if (n > 0) atomic_store(&wal->full, true);
        code = first_file(wal, wal->options.file_bytes < sizes[n] ? wal->options.file_bytes : sizes[n], err);
    }
    return code;
}

/* ---- freeing ---------------------------------------------------------------------------------------------------- */

static cnk_wal_file *files_free_next(cnk_wal *wal) {
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->state == FILE_FREE && atomic_load(&wal->files[n]->pins) == 0) return wal->files[n];
    return NULL;
}

/* Gives a free file its next number, so that its blocks can be overwritten. Rename, sync the directory, only then use. */
static int recycle(cnk_wal *wal, cnk_wal_file *f, uint64_t number) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    char *path = cnk_wal_path(wal, number, ".wal");
    if (!path) return CHRONIK_ENOMEM;
    int code = ops->rename(wal->io->disk, f->path, path, NULL);
    if (code == 0 && !CNK_WAL_BUG(RENAME_NOT_SYNCED)) code = cnk_wal_sync_dir(wal, NULL);
    cnk_free(f->path);
    f->path = path;
    return code;
}

static void free_step(cnk_wal *wal, cnk_wal_file *f) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    pthread_mutex_lock(&wal->mutex);
    cnk_wal_files_remove(wal, f);
    f->footer_wanted = false;
    bool fits = wal->disk_bytes + f->bytes <= wal->options.budget_bytes || writer_waits(wal);
    bool again = fits && cnk_wal_files_spare_count(wal) < CNK_WAL_SPARES && f->bytes >= spare_bytes(wal) &&
                 f->bytes <= 2 * spare_bytes(wal) && !atomic_load(&wal->fenced);
    uint64_t number = again ? wal->next_number++ : 0;
    pthread_mutex_unlock(&wal->mutex);
    cnk_wal_file_forget_rows(f);
    f->no_footer = f->footer_there = f->sealed_told = false;
    f->used = f->uid = f->first_lsn = f->last_lsn = 0;
    if (again && recycle(wal, f, number) == 0) {
        f->number = number;
        pthread_mutex_lock(&wal->mutex);
        f->state = FILE_SPARE;
        bool added = cnk_wal_files_add(wal, f) == 0;
        wal->spare_retry = false;
        atomic_store(&wal->full, false);
        if (added && wal->waiting_for_spare) cnk_wal_writer_wake(wal);
        cnk_wal_room_update(wal);
        pthread_mutex_unlock(&wal->mutex);
        if (added) return;
    }
    (void)ops->unlink(wal->io->disk, f->path, NULL);
    (void)cnk_wal_sync_dir(wal, NULL);
    cnk_wal_file_destroy(f);
    pthread_mutex_lock(&wal->mutex);
    cnk_wal_room_update(wal); /* what was over the budget may not be any more */
    pthread_mutex_unlock(&wal->mutex);
}

/* ---- footers ---------------------------------------------------------------------------------------------------- */

static int file_rows_reserve(cnk_wal_file *f, size_t rows) {
    if (cnk_array_reserve((void **)&f->rows, &f->rows_capacity, f->rows_count + rows, CNK_WAL_ROW_BYTES))
        return CHRONIK_ENOMEM;
    return cnk_array_reserve((void **)&f->block_rows, &f->blocks_capacity, f->blocks_count + 1, sizeof *f->block_rows);
}

void cnk_wal_file_note(cnk_wal_file *f, const uint8_t *block, size_t table, size_t rows, uint64_t file_pos) {
    if (f->no_footer) return;
    if (file_rows_reserve(f, rows)) {
        f->no_footer = true;
        return;
    }
    f->block_rows[f->blocks_count++] = (uint32_t)rows;
    if (rows == 0) return; /* a file that begins with a witness has no memory for rows yet */
    uint8_t *to = f->rows + f->rows_count * CNK_WAL_ROW_BYTES;
    memcpy(to, block + table, rows * CNK_WAL_ROW_BYTES);
    for (size_t n = 0; n < rows; n++, to += CNK_WAL_ROW_BYTES)
        cnk_store_le32(to + 60, (uint32_t)(cnk_load_le32(to + 60) + file_pos));
    f->rows_count += rows;
}

static cnk_wal_file *footer_next(cnk_wal *wal) {
    for (size_t n = 0; n < wal->files_count; n++)
        if (wal->files[n]->footer_wanted) return wal->files[n];
    return NULL;
}

/* In pieces, so that commits get to the disk in between. `buf` has room for FILL_BYTES. */
static int footer_write(cnk_wal *wal, cnk_wal_file *f, uint8_t *buf) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    size_t blocks = f->blocks_count * 4, len = blocks + f->rows_count * CNK_WAL_ROW_BYTES;
    cnk_wal_trailer t = {.uid = f->uid, .footer_pos = f->used, .footer_len = len, .blocks = f->blocks_count};
    t.rows = f->rows_count;
    t.last_lsn = f->last_lsn;
    t.last_crc = f->last_crc;
    t.footer_crc = cnk_wal_seed(f->uid);
    struct iovec iov = {buf, 0};
    int code = 0;
    for (size_t at = 0, n = 0; at < len && code == 0; at += n) {
        size_t k = 0;
        n = len - at < FILL_BYTES ? len - at : FILL_BYTES;
        for (; k < n && at + k < blocks; k += 4) cnk_store_le32(buf + k, f->block_rows[(at + k) / 4]);
        if (k < n) memcpy(buf + k, f->rows + (at + k - blocks), n - k);
        t.footer_crc = cnk_crc32c(t.footer_crc, buf, n);
        iov.iov_len = (size_t)cnk_wal_align_up(n);
        memset(buf + n, 0, iov.iov_len - n);
        code = ops->write(wal->io->disk, f->handle, &iov, 1, f->used + at, NULL);
    }
    if (code) return code;
    memset(buf, 0, CNK_WAL_ALIGN);
    cnk_wal_trailer_put(buf, &t);
    iov.iov_len = CNK_WAL_ALIGN;
    code = ops->write(wal->io->disk, f->handle, &iov, 1, f->bytes - CNK_WAL_ALIGN, NULL);
    return code ? code : ops->sync(wal->io->disk, f->handle, NULL);
}

/* Failing to write a footer costs a scan at the next start, and the file after it stays until nothing here is live. */
static void footer_step(cnk_wal *wal, cnk_wal_file *f) {
    uint8_t *buf = f->no_footer || f->blocks_count == 0 ? NULL : cnk_pages_alloc(FILL_BYTES);
    bool there = buf && footer_write(wal, f, buf) == 0;
    cnk_pages_free(buf, FILL_BYTES);
    cnk_wal_file_forget_rows(f);
    pthread_mutex_lock(&wal->mutex);
    f->footer_wanted = false;
    f->footer_there = there;
    if (there && wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]); /* the next one may be free to go */
    pthread_mutex_unlock(&wal->mutex);
}

/* ---- the job ---------------------------------------------------------------------------------------------------- */

void cnk_wal_bg_wake(cnk_wal *wal) {
    if (wal->bg_scheduled || atomic_load(&wal->fenced)) return;
    wal->bg_scheduled = true;
    wal->io->jobs_ops->submit(wal->io->jobs, CHRONIK_LANE_BACKGROUND, &wal->bg);
}

static void checkpoint_step(cnk_wal *wal) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int code = cnk_wal_checkpoint_step(wal, &err);
    if (code == CHRONIK_EAGAIN) return;
    pthread_mutex_lock(&wal->mutex);
    wal->checkpoint_write = false;
    if (code == 0) {
        wal->checkpoint_row_wanted = true;
        if (wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]);
    } else {
        wal->checkpoint_running = false; /* the older one still stands; nothing is freed */
        cnk_wal_checkpoint_put_off(wal);
        if (wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]);
    }
    pthread_mutex_unlock(&wal->mutex);
}

/* A file is wanted sooner after a failure than it is tried again: the first port's timer sees to it. wal->mutex held. */
static void retry_later(cnk_wal *wal) {
    if (wal->spare_retry || atomic_load(&wal->full) || wal->ports_count == 0) return;
    wal->spare_retry = true;
    cnk_wal_port_post_wake(wal->ports[0]);
}

int64_t cnk_wal_bg_step(chronik_job *job) {
    cnk_wal *wal = CNK_CONTAINER(job, cnk_wal, bg);
    pthread_mutex_lock(&wal->mutex);
    bool filling = wal->prep.state == BG_FILL;
    spares_yield(wal);
    cnk_wal_file *free_file = files_free_next(wal), *footer = footer_next(wal);
    bool checkpoint = wal->checkpoint_write;
    bool wait = wal->io->jobs_ops->now_ns(wal->io->jobs) < wal->prep.retry_at_ns;
    bool wanted = spare_wanted(wal) && spare_affordable(wal), prepare = wanted && !wait;
    bool rest = !filling && !free_file && !footer && !checkpoint && !prepare;
    if (rest || (atomic_load(&wal->fenced) && !filling)) {
        rest = true;
        wal->bg_scheduled = false;
        wal->checkpoint_running &= !atomic_load(&wal->fenced);
        if (wanted && !prepare) retry_later(wal);
        if (atomic_load(&wal->shutdown) || atomic_load(&wal->fenced))
            for (size_t n = 0; n < wal->ports_count; n++) cnk_wal_port_post_wake(wal->ports[n]);
    }
    pthread_mutex_unlock(&wal->mutex);
    if (rest) return CHRONIK_JOB_DONE;
    if (free_file) free_step(wal, free_file);
    else if (checkpoint) checkpoint_step(wal);
    else if (filling || (prepare && !footer)) prep_step(wal);
    else footer_step(wal, footer);
    return !free_file && !checkpoint && !footer ? prep_pause(wal) : 0;
}
