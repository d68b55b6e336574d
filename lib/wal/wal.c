/* Opening, closing, figures. */
#include <stdio.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

static int check_options(const cnk_wal_options *o, chronik_error *err) {
    if (o->file_bytes < 100000 || o->file_bytes > UINT64_C(1) << 30)
        return cnk_error(err, CHRONIK_EINVAL, 0, "wal file size %llu: must be between 100 KB and 1 GiB",
                         (unsigned long long)o->file_bytes);
    if (o->budget_bytes < 4 * o->file_bytes)
        return cnk_error(err, CHRONIK_EINVAL, 0, "wal budget %llu: must be at least four files of %llu bytes",
                         (unsigned long long)o->budget_bytes, (unsigned long long)o->file_bytes);
    return 0;
}

/* Makes the directory, and its name durable in the one above; also where it is there already: whoever made it may have
 * been killed before that. */
static int make_dir(cnk_wal *wal, chronik_error *err) {
    int code = wal->io->disk_ops->mkdir(wal->io->disk, wal->dir, err);
    if (code && code != CHRONIK_EEXIST) return code;
    char *parent = cnk_strdup(wal->dir);
    if (!parent) return CHRONIK_ENOMEM;
    char *slash = strrchr(parent, '/');
    if (slash) *slash = '\0';
    code = wal->io->disk_ops->sync_dir(wal->io->disk, slash ? (slash == parent ? "/" : parent) : ".", err);
    cnk_free(parent);
    return code;
}

int cnk_wal_open(const chronik_io *io, const cnk_wal_options *options,
                 void (*progress)(void *arg, uint64_t bytes_done, uint64_t bytes_all), void *progress_arg,
                 chronik_error *err, cnk_wal **ret_wal) {
    int code = check_options(options, err);
    if (code) return code;
    cnk_wal *wal = cnk_calloc(1, sizeof *wal);
    if (!wal) return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory to open the write-ahead log");
    pthread_mutex_init(&wal->mutex, NULL);
    wal->io = io;
    wal->options = *options;
    wal->next_number = 1;
    atomic_store(&wal->next_lsn, 1);
    wal->writer.step = cnk_wal_writer_step;
    wal->bg.step = cnk_wal_bg_step;
    wal->reserve_bytes = options->file_bytes / 4 < CNK_WAL_RESERVE_BYTES ? options->file_bytes / 4
                                                                       : CNK_WAL_RESERVE_BYTES;
    uint64_t block = options->file_bytes / 8;
    wal->block_bytes_max = block < CNK_WAL_SLAB_BYTES ? (uint64_t)cnk_wal_align_up(block) : CNK_WAL_SLAB_BYTES;
    wal->dir = cnk_strdup(options->dir);
    wal->witness_block = cnk_pages_alloc(CNK_WAL_ALIGN);
    wal->header_block = cnk_pages_alloc(CNK_WAL_ALIGN);
    code = wal->dir && wal->witness_block && wal->header_block ? 0 : CHRONIK_ENOMEM;
    if (code == 0) code = make_dir(wal, err);
    if (code == 0) code = cnk_wal_recover(wal, progress, progress_arg, err);
    if (code == 0 && cnk_wal_files_spare_count(wal) == 0) {
        code = cnk_wal_first_file(wal, err);
        if (code == CHRONIK_ENOSPC) { /* reads go on; a spare is prepared when there is room */
            atomic_store(&wal->full, true);
            code = 0;
        }
    }
    if (code) {
        if (err && !err->code) (void)cnk_error(err, code, 0, "%s: %s", options->dir, chronik_strerror(code));
        cnk_wal_free(wal);
        return code;
    }
    wal->data_bytes_max = wal->disk_bytes; /* the file of this start is for use, whatever earlier ones have left */
    if (wal->data_bytes_max < options->budget_bytes) wal->data_bytes_max = options->budget_bytes;
    cnk_wal_room_update(wal);
    *ret_wal = wal;
    return 0;
}

void cnk_wal_free(cnk_wal *wal) {
    if (!wal) return;
    for (size_t n = 0; n < wal->recovered_count; n++)
        cnk_wal_stream_destroy(wal->recovered[n]); /* those that no port took */
    cnk_free(wal->recovered);
    for (size_t n = 0; n < wal->files_count; n++) cnk_wal_file_destroy(wal->files[n]);
    if (wal->prep.file) cnk_wal_file_destroy(wal->prep.file);
    cnk_wal_checkpoint_abandon(wal);
    cnk_pages_free(wal->zeros, CNK_WAL_ZEROS_BYTES);
    cnk_free(wal->prep.tmp_path);
    cnk_free(wal->files);
    cnk_free(wal->checkpoint_candidates);
    cnk_map_free(&wal->used_ids);
    cnk_pages_free(wal->witness_block, CNK_WAL_ALIGN);
    cnk_pages_free(wal->header_block, CNK_WAL_ALIGN);
    cnk_free(wal->dir);
    pthread_mutex_destroy(&wal->mutex);
    cnk_free(wal);
}

void cnk_wal_fenced_by(cnk_wal *wal, chronik_error *ret_why) {
    pthread_mutex_lock(&wal->mutex);
    *ret_why = wal->why;
    pthread_mutex_unlock(&wal->mutex);
}

void cnk_wal_stats_get(cnk_wal *wal, cnk_wal_stats *ret_stats) {
    cnk_wal_stats s = {0};
    s.blocks = cnk_counter_get(&wal->blocks);
    s.syncs = cnk_counter_get(&wal->syncs);
    s.bytes_written = cnk_counter_get(&wal->bytes_written);
    s.payload_bytes = cnk_counter_get(&wal->payload_bytes);
    s.rows = cnk_counter_get(&wal->rows);
    s.checkpoints = cnk_counter_get(&wal->checkpoints);
    cnk_latency_read(&wal->sync_latency, &s.sync_latency);
    cnk_sizes_read(&wal->sync_rows, &s.sync_rows);
    cnk_sizes_read(&wal->sync_bytes, &s.sync_bytes);
    s.budget_bytes = wal->options.budget_bytes;
    int64_t room = atomic_load(&wal->room);
    s.room_bytes = room > 0 ? (uint64_t)room : 0;
    s.full = atomic_load(&wal->full);
    s.fenced = atomic_load(&wal->fenced);
    pthread_mutex_lock(&wal->mutex);
    s.bytes_on_disk = wal->disk_bytes;
    s.files_spare = cnk_wal_files_spare_count(wal);
    s.files_live = wal->files_count - s.files_spare;
    cnk_wal_pending(wal, &s.queued_rows, &s.queued_bytes);
    s.unsynced_bytes_max = wal->options.unsynced_bytes_max * wal->ports_count;
    for (size_t n = 0; n < wal->ports_count; n++) {
        pthread_mutex_lock(&wal->ports[n]->mutex);
        s.unsynced_bytes += wal->ports[n]->unsynced_bytes;
        s.unsynced_refused += wal->ports[n]->refused_memory;
        s.room_refused += wal->ports[n]->refused_room;
        pthread_mutex_unlock(&wal->ports[n]->mutex);
    }
    pthread_mutex_unlock(&wal->mutex);
    *ret_stats = s;
}
