/* The writer: one job on the WAL lane. Takes what the ports have built, writes it as one, syncs, tells the ports.
 *
 *   GATHER ──nothing to do──► (job ends; a kick submits it again)
 *     │ blocks taken, numbered, stamped
 *     ▼
 *   WRITE ──► SYNC ──► DONE ──► GATHER
 *     └─ any error ─► fenced: what was taken and all that follows is given back as failed
 *
 * Nothing here allocates or takes space on the commit path: files are prepared in the background (files.c). While a
 * lone request never waits, many small ones share a sync: the next starts linger_us after the last at the earliest. */
#include <limits.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

enum { SMALL_BYTES = 64 << 10, SMALL_ROW_BYTES = 1 << 10, MANY_ROWS = 4 };

void cnk_wal_writer_wake(cnk_wal *wal) {
    if (wal->writer_scheduled) return;
    wal->writer_scheduled = true;
    wal->io->jobs_ops->submit(wal->io->jobs, CHRONIK_LANE_WAL, &wal->writer);
}

static uint64_t now_ns(const cnk_wal *wal) { return wal->io->jobs_ops->now_ns(wal->io->jobs); }

bool cnk_wal_busy(const cnk_wal *wal) {
    return now_ns(wal) < atomic_load_explicit(&wal->busy_until_ns, memory_order_relaxed);
}

static void wake_ports(cnk_wal *wal) {
    for (size_t n = 0; n < wal->ports_count; n++) cnk_wal_port_post_wake(wal->ports[n]);
}

/* ---- failing ---------------------------------------------------------------------------------------------------- */

static void give_back(cnk_wal_block *b) {
    cnk_wal_port *port = b->port;
    pthread_mutex_lock(&port->mutex);
    b->next = NULL;
    if (port->done.last) port->done.last->next = b;
    else port->done.first = b;
    port->done.last = b;
    bool post = !port->done_posted;
    port->done_posted = true;
    pthread_mutex_unlock(&port->mutex);
    if (post) port->loop->ops->post(port->loop->self, &port->done_post);
}

void cnk_wal_fence(cnk_wal *wal, const chronik_error *why) {
    pthread_mutex_lock(&wal->mutex);
    if (!atomic_load(&wal->fenced)) {
        wal->why = *why;
        atomic_store_explicit(&wal->fenced, true, memory_order_release);
        wake_ports(wal);
        if (wal->ports_count > 0) cnk_wal_writer_wake(wal); /* while it is being opened, there is nothing to give back */
    }
    pthread_mutex_unlock(&wal->mutex);
}

/* Everything that has not been reported yet is given back as failed; wal->mutex held. */
static void fail_all(cnk_wal *wal) {
    for (size_t n = 0; n < wal->ports_count; n++) {
        cnk_wal_port *port = wal->ports[n];
        size_t len, rows;
        for (;;) {
            pthread_mutex_lock(&port->mutex);
            cnk_wal_block *b = cnk_wal_port_peek(port, &len, &rows) ? cnk_wal_port_take(port) : NULL;
            pthread_mutex_unlock(&port->mutex);
            if (!b) break;
            b->failed = true;
            give_back(b);
        }
    }
}

/* The flag comes first: whoever sees a failed block come back, sees the fence too. */
static int64_t fence_commit(cnk_wal *wal, const chronik_error *why) {
    cnk_wal_fence(wal, why);
    for (size_t n = 0; n < wal->commit_count; n++) {
        wal->commit[n]->failed = true;
        give_back(wal->commit[n]);
    }
    pthread_mutex_lock(&wal->mutex);
    wal->commit_count = 0;
    pthread_mutex_unlock(&wal->mutex);
    wal->writer_state = WRITER_GATHER;
    return 0;
}

/* ---- gathering -------------------------------------------------------------------------------------------------- */

/* The open file is full, or old: its footer follows in the background. wal->mutex held. */
static void seal_open(cnk_wal *wal) {
    cnk_wal_file *f = wal->open;
    f->last_lsn = atomic_load(&wal->next_lsn) - 1;
    f->last_crc = wal->prev_crc;
    wal->prev_uid = f->uid;
    wal->prev_number = f->number;
    wal->prev_last_lsn = f->last_lsn;
    f->state = FILE_SEALED;
    f->footer_wanted = true;
    wal->open = NULL;
    wal->open_since_ns = 0;
    if (wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]);
    cnk_wal_bg_wake(wal);
}

/* A file with room for this much more; NULL: wait for a spare. wal->mutex held. */
static cnk_wal_file *room_for(cnk_wal *wal, size_t len, size_t rows) {
    cnk_wal_file *f = wal->open;
    bool fits = f && f->used + wal->commit_bytes + len + cnk_wal_file_room_needed(f, wal->commit_count + 1,
                                                                                 wal->commit_rows + rows) <= f->bytes;
    if (fits && f->rows_count + wal->commit_rows + rows <= CNK_WAL_FILE_ROWS_MAX) return f;
    if (wal->commit_count > 0) return NULL; /* this commit ends here; the next one goes to the next file */
    uint64_t need = CNK_WAL_ALIGN + len + cnk_wal_file_room_needed(NULL, 1, rows);
    cnk_wal_file *spare = cnk_wal_files_spare(wal, need);
    if (!spare) {
        wal->waiting_for_spare = true;
        wal->waiting_bytes = need;
        cnk_wal_bg_wake(wal);
        return NULL;
    }
    wal->waiting_for_spare = false;
    if (f) seal_open(wal);
    spare->state = FILE_OPEN;
    do wal->io->entropy(wal->io->entropy_self, &spare->uid, sizeof spare->uid);
    while (spare->uid == 0);
    if (CNK_WAL_BUG(RECYCLED_BLOCKS_LIVE)) spare->uid = 42;
    spare->first_lsn = atomic_load(&wal->next_lsn);
    spare->used = CNK_WAL_ALIGN;
    wal->header_prev_crc = wal->prev_crc;
    wal->commit_header = true;
    wal->open = spare;
    wal->ahead = false;
    wal->open_since_ns = now_ns(wal);
    cnk_wal_bg_wake(wal);
    return spare;
}

/* Stamps a block's header: from here on it has its place in the order of everything. */
static void stamp(cnk_wal *wal, uint8_t *data, uint64_t lsn, size_t len, size_t rows, size_t table, uint64_t pos) {
    cnk_wal_file *f = wal->open;
    cnk_wal_block_header h = {.uid = f->uid, .lsn = lsn, .prev_crc = wal->prev_crc};
    h.watermark = atomic_load_explicit(&wal->durable_lsn, memory_order_relaxed);
    h.block_number = (uint32_t)(pos / CNK_WAL_ALIGN);
    h.len = (uint32_t)len;
    h.rows = (uint32_t)rows;
    h.rows_pos = (uint32_t)table;
    h.rows_crc = cnk_crc32c(cnk_wal_seed(f->uid), data + table, rows * CNK_WAL_ROW_BYTES);
    wal->prev_crc = cnk_wal_block_header_put(data, &h);
    cnk_wal_file_note(f, data, table, rows, pos);
}

static void commit_add(cnk_wal *wal, cnk_wal_block *b) {
    uint64_t pos = wal->open->used + wal->commit_bytes;
    b->file = wal->open;
    b->file_pos = pos;
    stamp(wal, b->data, b->lsn, b->len, b->rows_count, (b->used + 7) & ~(size_t)7, pos);
    wal->commit[wal->commit_count++] = b;
    wal->commit_bytes += b->len;
    wal->commit_rows += b->rows_count;
}

/* Takes blocks of one port as long as they fit; false: the commit is full. wal->mutex held. */
static bool gather_port(cnk_wal *wal, cnk_wal_port *port) {
    bool room = true;
    pthread_mutex_lock(&port->mutex);
    for (size_t len, rows; room && cnk_wal_port_peek(port, &len, &rows);) {
        room = wal->commit_count < CNK_WAL_COMMIT_BLOCKS_MAX &&
               (wal->commit_count == 0 || wal->commit_bytes + len <= CNK_WAL_COMMIT_BYTES_MAX) &&
               room_for(wal, len, rows) != NULL;
        if (room) commit_add(wal, cnk_wal_port_take(port));
    }
    pthread_mutex_unlock(&port->mutex);
    return room;
}

void cnk_wal_pending(const cnk_wal *wal, size_t *ret_rows, uint64_t *ret_bytes) {
    *ret_rows = 0;
    *ret_bytes = 0;
    for (size_t n = 0; n < wal->ports_count; n++) {
        cnk_wal_port *port = wal->ports[n];
        pthread_mutex_lock(&port->mutex);
        for (const cnk_wal_block *b = port->sealed.first; b; b = b->next) *ret_rows += b->rows_count;
        if (port->open) *ret_rows += port->open->rows_count;
        *ret_bytes += port->pending_bytes;
        pthread_mutex_unlock(&port->mutex);
    }
}

/* Nanoseconds to wait before the next commit, so that many small writers share it; 0: none. */
static int64_t linger(const cnk_wal *wal, size_t rows, uint64_t bytes) {
    bool many = wal->commit_rows_before >= 2 && wal->commit_rows_before + rows >= MANY_ROWS;
    bool small = bytes < SMALL_BYTES && bytes < rows * SMALL_ROW_BYTES;
    if (!(many && small) && !wal->options.linger_always) return 0;
    if (atomic_load(&wal->shutdown)) return 0;
    uint64_t at = wal->last_sync_ns + wal->options.linger_us * UINT64_C(1000), now = now_ns(wal);
    return at > now ? (int64_t)(at - now) : 0;
}

static void gather_witness(cnk_wal *wal) {
    bool due = wal->witnessed_lsn < wal->rows_lsn;
    wal->witness_wanted = due && !room_for(wal, CNK_WAL_ALIGN, 0); /* then again, once there is a spare */
    if (!due || wal->witness_wanted) return;
    memset(wal->witness_block, 0, CNK_WAL_ALIGN);
    wal->commit_witness = true;
    uint64_t lsn = atomic_fetch_add(&wal->next_lsn, 1);
    stamp(wal, wal->witness_block, lsn, CNK_WAL_ALIGN, 0, CNK_WAL_BLOCK_HEADER, wal->open->used);
    wal->commit_bytes = CNK_WAL_ALIGN;
}

static int64_t rest(cnk_wal *wal) {
    wal->writer_scheduled = false;
    if (atomic_load(&wal->shutdown)) wake_ports(wal);
    return CHRONIK_JOB_DONE;
}

static int64_t gather(cnk_wal *wal) {
    int64_t wait = 0;
    pthread_mutex_lock(&wal->mutex);
    wal->commit_count = wal->commit_rows = 0;
    wal->commit_bytes = 0;
    wal->commit_witness = wal->commit_header = false;
    if (atomic_load(&wal->fenced)) {
        fail_all(wal);
        wait = rest(wal);
        goto out;
    }
    size_t rows;
    uint64_t bytes;
    cnk_wal_pending(wal, &rows, &bytes);
    if (wal->seal_wanted && wal->open) seal_open(wal);
    wal->seal_wanted = false;
    if (rows > 0) {
        wait = linger(wal, rows, bytes);
        if (wait > 0) goto out;
        for (size_t n = 0; n < wal->ports_count; n++)
            if (!gather_port(wal, wal->ports[(wal->first_port + n) % wal->ports_count])) break;
        wal->first_port++;
        cnk_wal_room_update(wal);
    } else if (wal->witness_wanted) {
        gather_witness(wal);
    }
    if (rows == 0 && !wal->witness_wanted) wal->waiting_for_spare = false; /* there is nothing that could use one */
    if (wal->commit_bytes == 0) wait = rest(wal);
    else wal->writer_state = WRITER_WRITE;
out:
    pthread_mutex_unlock(&wal->mutex);
    return wait;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void header_put(cnk_wal *wal) {
    const cnk_wal_file *f = wal->open;
    cnk_wal_file_header h = {.uid = f->uid, .number = f->number, .first_lsn = f->first_lsn};
    h.prev_uid = wal->prev_uid;
    h.prev_number = wal->prev_number;
    h.prev_last_lsn = wal->prev_last_lsn;
    /* The first block of a file repeats the CRC of the last block of the file before it: so does the header. */
    h.prev_crc = wal->header_prev_crc;
    cnk_wal_file_header_put(wal->header_block, &h);
}

static int64_t write_commit(cnk_wal *wal) {
    struct iovec iov[CNK_WAL_COMMIT_BLOCKS_MAX + 2];
    int count = 0;
    cnk_wal_file *f = wal->open;
    uint64_t pos = f->used;
    if (wal->commit_header) {
        header_put(wal);
        iov[count++] = (struct iovec){wal->header_block, CNK_WAL_ALIGN};
        pos = 0;
    }
    for (size_t n = 0; n < wal->commit_count; n++)
        iov[count++] = (struct iovec){wal->commit[n]->data, wal->commit[n]->len};
    if (wal->commit_witness) iov[count++] = (struct iovec){wal->witness_block, CNK_WAL_ALIGN};
    chronik_error why = CHRONIK_ERROR_INIT;
    int code = wal->io->disk_ops->write(wal->io->disk, f->handle, iov, count, pos, &why);
    if (code) return fence_commit(wal, &why);
    cnk_counter_add(&wal->bytes_written, wal->commit_bytes + (wal->commit_header ? CNK_WAL_ALIGN : 0));
    wal->writer_state = CNK_WAL_BUG(ACK_BEFORE_SYNC) ? WRITER_DONE : WRITER_SYNC;
    return 0;
}

static int64_t sync_commit(cnk_wal *wal) {
    chronik_error why = CHRONIK_ERROR_INIT;
    uint64_t start = now_ns(wal);
    wal->last_sync_ns = start;
    int code = wal->io->disk_ops->sync(wal->io->disk, wal->open->handle, &why);
    if (code) return fence_commit(wal, &why);
    cnk_latency_add(&wal->sync_latency, now_ns(wal) - start);
    cnk_counter_add(&wal->syncs, 1);
    wal->writer_state = WRITER_DONE;
    return 0;
}

static void finish_commit(cnk_wal *wal) {
    uint64_t last = atomic_load(&wal->next_lsn) - 1, payload = 0;
    pthread_mutex_lock(&wal->mutex);
    wal->witnessed_lsn = atomic_load(&wal->durable_lsn); /* the watermark of the blocks just synced */
    if (wal->commit_count > 0) wal->rows_lsn = last;
    wal->open->used += wal->commit_bytes;
    wal->commit_bytes = 0;
    if (!wal->ahead && cnk_wal_file_quarter_full(wal->open)) {
        wal->ahead = true;
        cnk_wal_bg_wake(wal);
    }
    atomic_store_explicit(&wal->durable_lsn, last, memory_order_release);
    wal->last_activity_ns = now_ns(wal);
    if (wal->commit_count > 0)
        atomic_store_explicit(&wal->busy_until_ns, wal->last_activity_ns + CNK_WAL_BUSY_MS * UINT64_C(1000000),
                              memory_order_relaxed);
    /* The witness is due sooner than what the timer may be set for. */
    bool late = !wal->timer_armed || wal->timer_at_ns > wal->last_activity_ns + CNK_WAL_WITNESS_MS * UINT64_C(2000000);
    if (late && wal->ports_count > 0) cnk_wal_port_post_wake(wal->ports[0]);
    pthread_mutex_unlock(&wal->mutex);
    for (size_t n = 0; n < wal->commit_count; n++) payload += wal->commit[n]->payload_bytes;
    cnk_counter_add(&wal->payload_bytes, payload);
    cnk_counter_add(&wal->blocks, wal->commit_count);
    cnk_counter_add(&wal->rows, wal->commit_rows);
    if (wal->commit_rows > 0) {
        cnk_sizes_add(&wal->sync_rows, wal->commit_rows);
        cnk_sizes_add(&wal->sync_bytes, payload);
    }
    for (size_t n = 0; n < wal->commit_count; n++) give_back(wal->commit[n]);
    wal->commit_rows_before = wal->commit_rows;
    pthread_mutex_lock(&wal->mutex); /* cnk_wal_room_update reads it, on other threads */
    wal->commit_count = 0;
    pthread_mutex_unlock(&wal->mutex);
    wal->writer_state = WRITER_GATHER;
}

int64_t cnk_wal_writer_step(chronik_job *job) {
    cnk_wal *wal = CNK_CONTAINER(job, cnk_wal, writer);
    switch (wal->writer_state) {
    case WRITER_WRITE: return write_commit(wal);
    case WRITER_SYNC: return sync_commit(wal);
    case WRITER_DONE: finish_commit(wal); return gather(wal);
    default: return gather(wal);
    }
}
