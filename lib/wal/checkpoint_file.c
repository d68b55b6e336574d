/* The file of a checkpoint: written by the background job in steps of about a MiB, so that other work of the lane goes on.
 *
 *   IDLE ─► ROWS: what the ports wrote down ─► BASE: the rows of the checkpoint before, but for streams that are among those
 *     ▲     or gone ─► FINISH: the head, sync, rename, sync of the directory ─┐
 *     └───────────────────────── or any failure: the older one stands ────────┘
 *
 * What is copied is checked: the CRC of the whole old file is computed on the way. Where it is wrong, or the file cannot be
 * read, this attempt fails, and the next one writes down all streams from memory. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

static int64_t read_base(cnk_wal *wal, size_t len, uint64_t pos, chronik_error *err) {
    return wal->io->disk_ops->read(wal->io->disk, wal->copy.base, wal->copy.buf, len, pos, err);
}

static int put(cnk_wal *wal, const void *data, size_t len, chronik_error *err) {
    if (len == 0) return 0;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    int code = wal->io->disk_ops->write(wal->io->disk, wal->copy.file, &iov, 1, wal->copy.pos, err);
    wal->copy.crc = cnk_crc32c(wal->copy.crc, data, len);
    wal->copy.pos += len;
    return code;
}

/* ---- the head: what is known before the rows are counted ---- */

static int head_put(cnk_wal *wal) {
    cnk_writer *w = &wal->copy.head;
    uint64_t lsn = UINT64_MAX;
    int code = 0;
    for (int n = 0; n < CNK_WAL_CHECKPOINT_HEADER / 8; n++) cnk_write_le64(w, 0);
    pthread_mutex_lock(&wal->mutex);
    for (size_t n = 0; n < wal->ports_count; n++) {
        const cnk_wal_port *p = wal->ports[n];
        if (p->checkpoint_error || p->checkpoint_rows.error) code = CHRONIK_ENOMEM;
        wal->copy.streams += p->checkpoint_streams;
        if (p->checkpoint_as_of < lsn) lsn = p->checkpoint_as_of;
    }
    for (size_t n = 0; n < wal->files_count; n++) {
        const cnk_wal_file *f = wal->files[n];
        bool candidate = false;
        for (size_t m = 0; m < wal->checkpoint_candidates_count; m++) candidate |= wal->checkpoint_candidates[m] == f;
        bool live = f->state == FILE_OPEN || f->state == FILE_SEALED;
        if (!live || candidate || f->first_lsn > atomic_load(&wal->durable_lsn)) continue;
        cnk_write_le64(w, f->number);
        cnk_write_le64(w, f->uid);
    }
    pthread_mutex_unlock(&wal->mutex);
    wal->checkpoint_lsn = lsn;
    wal->copy.pos = w->len;
    return code || w->error ? CHRONIK_ENOMEM : 0;
}

static int head_write(cnk_wal *wal, chronik_error *err) {
    cnk_writer *w = &wal->copy.head;
    uint64_t end = wal->copy.pos, files = (w->len - CNK_WAL_CHECKPOINT_HEADER) / 16;
    uint32_t body_crc = wal->copy.crc;
    cnk_wal_checkpoint_header h = {wal->checkpoint_number + 1, wal->checkpoint_lsn, wal->copy.streams, files, end};
    cnk_wal_checkpoint_header_put(w->data, &h);
    wal->checkpoint_crc = cnk_crc32c_combine(cnk_crc32c(0, w->data + 16, w->len - 16), body_crc, (size_t)(end - w->len));
    cnk_store_le32(w->data + 12, wal->checkpoint_crc);
    wal->copy.pos = 0;
    return put(wal, w->data, w->len, err);
}

/* ---- the steps ---- */

/* The ids that are not copied. Whole rows: the ports have just made them. */
static int skip_fill(cnk_wal *wal) {
    for (size_t n = 0; n < wal->ports_count; n++) {
        const cnk_wal_port *p = wal->ports[n];
        cnk_reader r = cnk_reader_of(p->checkpoint_rows.data, p->checkpoint_rows.len);
        while (cnk_reader_left(&r) > 0) {
            cnk_wal_checkpoint_row row;
            cnk_wal_checkpoint_row_get(cnk_read_bytes(&r, CNK_WAL_CHECKPOINT_ROW), &row);
            (void)cnk_read_bytes(&r, (size_t)row.blob_len);
            if (cnk_map_put(&wal->copy.skip, row.state.id, wal)) return CHRONIK_ENOMEM;
        }
        for (size_t m = 0; m < p->checkpoint_gone_count; m++)
            if (cnk_map_put(&wal->copy.skip, p->checkpoint_gone[m], wal)) return CHRONIK_ENOMEM;
    }
    return 0;
}

/* The base is distrusted by whoever finds it wrong. */
static int base_bad(cnk_wal *wal, chronik_error *err) {
    pthread_mutex_lock(&wal->mutex);
    wal->checkpoint_base = 0;
    pthread_mutex_unlock(&wal->mutex);
    return cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: checkpoint %llu cannot be read any more; the next one is made from memory",
                     wal->dir, (unsigned long long)wal->checkpoint_number);
}

static int base_open(cnk_wal *wal, chronik_error *err) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    char *path = cnk_wal_path(wal, wal->checkpoint_base, ".checkpoint");
    wal->copy.buf = cnk_malloc(CNK_WAL_CHECKPOINT_STEP_BYTES);
    int code = path && wal->copy.buf ? skip_fill(wal) : CHRONIK_ENOMEM;
    if (code == 0) {
        code = ops->open(wal->io->disk, path, CHRONIK_OPEN_READ, err, &wal->copy.base);
        if (code == 0) code = ops->size_get(wal->io->disk, wal->copy.base, err, &wal->copy.base_len);
        if (code == 0 && read_base(wal, CNK_WAL_CHECKPOINT_HEADER, 0, err) != CNK_WAL_CHECKPOINT_HEADER)
            code = CHRONIK_ECORRUPT;
        uint64_t files = code ? 0 : cnk_load_le64(wal->copy.buf + 40);
        if (code == 0 && files > wal->copy.base_len / 16) code = CHRONIK_ECORRUPT;
        wal->copy.base_pos = 16; /* that is where the CRC begins */
        wal->copy.row_left = CNK_WAL_CHECKPOINT_HEADER - 16 + files * 16;
        wal->copy.keep = false;
        if (code) code = base_bad(wal, err);
    }
    cnk_free(path);
    return code;
}

static int begin(cnk_wal *wal, chronik_error *err) {
    uint64_t number = wal->checkpoint_number + 1;
    unsigned flags = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE;
    cnk_writer_growing(&wal->copy.head, 0);
    wal->copy.state = COPY_ROWS;
    wal->copy.path = cnk_wal_path(wal, number, ".checkpoint");
    wal->copy.tmp = cnk_wal_path(wal, number, ".checkpoint.tmp");
    int code = wal->copy.path && wal->copy.tmp ? head_put(wal) : CHRONIK_ENOMEM;
    if (code) return code;
    (void)wal->io->disk_ops->unlink(wal->io->disk, wal->copy.tmp, NULL);
    code = wal->io->disk_ops->open(wal->io->disk, wal->copy.tmp, flags, err, &wal->copy.file);
    if (code == 0 && wal->checkpoint_base) code = base_open(wal, err);
    return code;
}

static int step_rows(cnk_wal *wal, chronik_error *err) {
    if (wal->copy.port == wal->ports_count) {
        wal->copy.state = wal->copy.base ? COPY_BASE : COPY_FINISH;
        return 0;
    }
    const cnk_writer *rows = &wal->ports[wal->copy.port]->checkpoint_rows;
    size_t left = rows->len - wal->copy.port_pos;
    size_t n = left < CNK_WAL_CHECKPOINT_STEP_BYTES ? left : CNK_WAL_CHECKPOINT_STEP_BYTES;
    int code = n ? put(wal, rows->data + wal->copy.port_pos, n, err) : 0;
    wal->copy.port_pos += n;
    if (wal->copy.port_pos < rows->len) return code;
    wal->copy.port++;
    wal->copy.port_pos = 0;
    return code;
}

/* The next row of the base begins at `p`, of which `len` bytes are there. false: there are too few. */
static int row_begin(cnk_wal *wal, const uint8_t *p, size_t len, uint64_t pos) {
    cnk_wal_checkpoint_row row;
    if (wal->copy.base_len - pos < CNK_WAL_CHECKPOINT_ROW) return CHRONIK_ECORRUPT;
    if (len < CNK_WAL_CHECKPOINT_ROW) return CHRONIK_EAGAIN;
    cnk_wal_checkpoint_row_get(p, &row);
    if (row.blob_len > wal->copy.base_len - pos - CNK_WAL_CHECKPOINT_ROW) return CHRONIK_ECORRUPT;
    wal->copy.row_left = CNK_WAL_CHECKPOINT_ROW + row.blob_len;
    wal->copy.keep = !cnk_map_get(&wal->copy.skip, row.state.id);
    wal->copy.streams += wal->copy.keep;
    return 0;
}

/* One piece of the base: runs of rows that are kept are written as they lie. */
static int step_base(cnk_wal *wal, chronik_error *err) {
    uint64_t left = wal->copy.base_len - wal->copy.base_pos;
    if (left == 0) {
        wal->copy.state = COPY_FINISH;
        return wal->copy.row_left == 0 && wal->copy.base_crc == wal->checkpoint_base_crc ? 0 : base_bad(wal, err);
    }
    size_t ask = left < CNK_WAL_CHECKPOINT_STEP_BYTES ? (size_t)left : CNK_WAL_CHECKPOINT_STEP_BYTES;
    if (read_base(wal, ask, wal->copy.base_pos, err) != (int64_t)ask) return base_bad(wal, err);
    const uint8_t *buf = wal->copy.buf;
    size_t at = 0, from = 0;
    while (at < ask) {
        if (wal->copy.row_left == 0) {
            bool kept = wal->copy.keep;
            int code = row_begin(wal, buf + at, ask - at, wal->copy.base_pos + at);
            if (code == CHRONIK_EAGAIN) break;
            if (code) return base_bad(wal, err);
            if (kept != wal->copy.keep) {
                code = kept ? put(wal, buf + from, at - from, err) : 0;
                if (code) return code;
                from = at;
            }
        }
        size_t n = wal->copy.row_left < ask - at ? (size_t)wal->copy.row_left : ask - at;
        wal->copy.row_left -= n;
        at += n;
    }
    wal->copy.base_crc = cnk_crc32c(wal->copy.base_crc, buf, at);
    wal->copy.base_pos += at;
    return wal->copy.keep ? put(wal, buf + from, at - from, err) : 0;
}

static int finish(cnk_wal *wal, chronik_error *err) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    uint64_t number = wal->checkpoint_number + 1;
    int code = head_write(wal, err);
    if (code == 0) {
        code = ops->sync(wal->io->disk, wal->copy.file, err);
        if (code) cnk_wal_fence(wal, err);
    }
    ops->close(wal->io->disk, wal->copy.file);
    wal->copy.file = NULL;
    if (code == 0) code = ops->rename(wal->io->disk, wal->copy.tmp, wal->copy.path, err);
    if (code == 0) code = cnk_wal_sync_dir(wal, err);
    if (code) return code;
    wal->checkpoint_number = number;
    char *old = number > 2 ? cnk_wal_path(wal, number - 2, ".checkpoint") : NULL;
    if (old) (void)ops->unlink(wal->io->disk, old, NULL); /* the newest two stay */
    cnk_free(old);
    cnk_counter_add(&wal->checkpoints, 1);
    return 0;
}

void cnk_wal_checkpoint_abandon(cnk_wal *wal) {
    const chronik_disk_ops *ops = wal->io->disk_ops;
    ops->close(wal->io->disk, wal->copy.file);
    ops->close(wal->io->disk, wal->copy.base);
    cnk_free(wal->copy.path);
    cnk_free(wal->copy.tmp);
    cnk_free(wal->copy.buf);
    cnk_writer_free(&wal->copy.head);
    cnk_map_free(&wal->copy.skip);
    memset(&wal->copy, 0, sizeof wal->copy);
    for (size_t n = 0; n < wal->ports_count; n++) {
        cnk_wal_port *p = wal->ports[n];
        cnk_writer_free(&p->checkpoint_rows);
        cnk_free(p->checkpoint_gone);
        p->checkpoint_gone = NULL;
        p->checkpoint_gone_count = 0;
    }
}

int cnk_wal_checkpoint_step(cnk_wal *wal, chronik_error *err) {
    int code = 0;
    bool done = false;
    switch (wal->copy.state) {
    case COPY_IDLE: code = begin(wal, err); break;
    case COPY_ROWS: code = step_rows(wal, err); break;
    case COPY_BASE: code = step_base(wal, err); break;
    case COPY_FINISH:
        code = finish(wal, err);
        done = true;
        break;
    }
    if (code == 0 && !done) return CHRONIK_EAGAIN;
    if (code && wal->copy.tmp) (void)wal->io->disk_ops->unlink(wal->io->disk, wal->copy.tmp, NULL);
    cnk_wal_checkpoint_abandon(wal);
    pthread_mutex_lock(&wal->mutex);
    wal->checkpoint_ok = code == 0;
    if (code == 0) {
        wal->checkpoint_base = wal->checkpoint_number;
        wal->checkpoint_base_crc = wal->checkpoint_crc;
    }
    pthread_mutex_unlock(&wal->mutex);
    return code;
}
