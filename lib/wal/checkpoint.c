/* Checkpoints: what the WAL knows of each stream, so that older files can go.
 *
 *   The last entry leaves a sealed file, or somebody asks (cnk_wal_checkpoint): note the sealed files in which nothing is live now
 *     → each port, in slices, writes down the streams that have changed, as they are durable, each with the LSN from which on
 *       nothing of it is included
 *     → background: temporary file of those, and of all other streams as the checkpoint before has them (checkpoint_file.c),
 *       sync, rename, sync of the directory
 *     → first port: a CHECKPOINT row; when it is durable, the noted files that end before the smallest of those LSNs
 *       are free
 *
 * A file noted has no live row at the start, so whatever later rows do, the state written down afterwards says that its
 * entries are elsewhere; and every row in it that changes a stream's state is included. Both are needed.
 *
 * The WAL takes one by itself as long as there is a file that it would free: who releases, drops or trims need not ask. What
 * comes too early for a file (a row that moved its last entry is not durable yet, say) is followed by another.
 *
 * A stream is clean as long as neither a row of it has become durable, nor entries were released or committed, since it was
 * written down: so its state, its owner's state, and the LSN as of which they are, still hold. Dropped ones are left out. */
#include "base/assert.h"
#include "base/mem.h"
#include "wal/internal.h"

static void ports_start(cnk_wal *wal) {
    wal->checkpoint_ports_left = wal->ports_count;
    for (size_t n = 0; n < wal->ports_count; n++) {
        cnk_wal_port *p = wal->ports[n];
        p->loop->ops->post(p->loop->self, &p->checkpoint_post);
    }
}

static bool live(const cnk_wal_file *f) { return atomic_load_explicit(&f->live, memory_order_acquire) > 0; }

/* Nothing in it is live, nor is its header all that proves where the file before it ends: that one has its footer, or nothing
 * in it is live either. */
static bool released(const cnk_wal *wal, size_t n) {
    if (wal->files[n]->state != FILE_SEALED || live(wal->files[n])) return false;
    while (n > 0 && wal->files[n - 1]->state != FILE_SEALED) n--;
    return n == 0 || wal->files[n - 1]->footer_there || !live(wal->files[n - 1]);
}

/* A recovered stream that no port has yet would be missing. */
static bool may_begin(const cnk_wal *wal) {
    return wal->recovered_left == 0 && !atomic_load(&wal->fenced) && !atomic_load(&wal->shutdown);
}

static void begin(cnk_wal *wal) {
    bool cuts;
    uint64_t untold = cnk_wal_first_untold(wal, &cuts);
    if (cuts) untold = 0; /* entries they took out may be in any file, and not be counted */
    wal->checkpoint_candidates_count = 0;
    if (cnk_array_reserve((void **)&wal->checkpoint_candidates, &wal->checkpoint_candidates_capacity, wal->files_count,
                          sizeof *wal->checkpoint_candidates))
        return;
    for (size_t n = 0; n < wal->files_count; n++) {
        cnk_wal_file *f = wal->files[n];
        if (f->last_lsn >= untold || !released(wal, n)) continue;
        wal->checkpoint_candidates[wal->checkpoint_candidates_count++] = f;
        if (CNK_WAL_BUG(FREE_WITHOUT_CHECKPOINT)) f->state = FILE_FREE;
    }
    if (CNK_WAL_BUG(FREE_WITHOUT_CHECKPOINT)) {
        cnk_wal_bg_wake(wal);
    } else {
        wal->checkpoint_running = true;
        ports_start(wal);
    }
}

void cnk_wal_checkpoint(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    if (wal->checkpoint_running) wal->checkpoint_again = true;
    else if (may_begin(wal)) begin(wal);
    pthread_mutex_unlock(&wal->mutex);
}

static void put_off(cnk_wal *wal, uint64_t ms) {
    wal->checkpoint_not_before_ns = wal->io->jobs_ops->now_ns(wal->io->jobs) + ms * UINT64_C(1000000);
}

void cnk_wal_checkpoint_put_off(cnk_wal *wal) { put_off(wal, CNK_WAL_FULL_RETRY_MS); }

uint64_t cnk_wal_checkpoint_due_ns(cnk_wal *wal) {
    bool any = false;
    for (size_t n = 0; n < wal->files_count && !any; n++) any = released(wal, n);
    return any && !wal->checkpoint_running && may_begin(wal) ? wal->checkpoint_not_before_ns : UINT64_MAX;
}

void cnk_wal_checkpoint_if_due(cnk_wal *wal) {
    pthread_mutex_lock(&wal->mutex);
    if (cnk_wal_checkpoint_due_ns(wal) <= wal->io->jobs_ops->now_ns(wal->io->jobs)) {
        put_off(wal, CNK_WAL_FREE_MS);
        begin(wal);
    }
    pthread_mutex_unlock(&wal->mutex);
}

/* Whoever is being written down now is written down as it is then. */
void cnk_wal_stream_changed(cnk_wal_stream *s) {
    if (!s->port || s->noted == STREAM_CHANGED || s->noted == STREAM_WRITING) return;
    cnk_list_remove(&s->noted_link);
    cnk_list_push_back(&s->port->changed, &s->noted_link);
    s->noted = STREAM_CHANGED;
}

/* ---- what each port writes down --------------------------------------------------------------------------------- */

/* The LSN from which on nothing of this port's streams is in their durable state. */
static uint64_t port_as_of(cnk_wal_port *port) {
    pthread_mutex_lock(&port->mutex);
    uint64_t lsn = port->blocks_in_flight ? port->first_lsn_in_flight : atomic_load(&port->wal->next_lsn);
    pthread_mutex_unlock(&port->mutex);
    return lsn;
}

static void stream_put(cnk_wal_port *port, cnk_wal_stream *s, uint64_t as_of) {
    cnk_writer blob;
    uint64_t applied = 0;
    cnk_writer_growing(&blob, CNK_WAL_BLOB_MAX);
    int code = s->dropped ? 0 : port->events.snapshot(port->arg, s, &blob, &applied);
    if (code || blob.error) {
        port->checkpoint_error = code ? code : blob.error;
        cnk_writer_free(&blob);
        return;
    }
    cnk_wal_checkpoint_row row = {s->durable, as_of, applied, blob.len};
    cnk_writer *w = &port->checkpoint_rows;
    uint8_t *p = cnk_write_space(w, CNK_WAL_CHECKPOINT_ROW);
    if (p) cnk_wal_checkpoint_row_put(p, &row);
    cnk_write_bytes(w, blob.data, blob.len);
    cnk_writer_free(&blob);
    port->checkpoint_streams++;
}

/* What became of the last attempt; and which streams have changed since the checkpoint that this one builds on. */
static void port_begin(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    bool ok = wal->checkpoint_ok, all = wal->checkpoint_base == 0;
    pthread_mutex_unlock(&wal->mutex);
    for (cnk_list *l; (l = cnk_list_pop_front(&port->written));) {
        cnk_wal_stream *s = CNK_CONTAINER(l, cnk_wal_stream, noted_link);
        s->noted = ok ? STREAM_CLEAN : STREAM_CHANGED;
        if (!ok) cnk_list_push_back(&port->changed, l);
    }
    if (ok && port->gone_written > 0) {
        port->gone_count -= port->gone_written;
        memmove(port->gone, port->gone + port->gone_written, port->gone_count * sizeof *port->gone);
    }
    port->gone_written = 0;
    if (all) CNK_LIST_EACH(node, &port->streams) cnk_wal_stream_changed(CNK_CONTAINER(node, cnk_wal_stream, link));
    for (cnk_list *l; (l = cnk_list_pop_front(&port->changed));) {
        CNK_CONTAINER(l, cnk_wal_stream, noted_link)->noted = STREAM_WRITING;
        cnk_list_push_back(&port->writing, l);
    }
    port->checkpoint_begun = true;
    port->checkpoint_streams = 0;
    port->checkpoint_error = 0;
    cnk_writer_free(&port->checkpoint_rows);
    cnk_writer_growing(&port->checkpoint_rows, 0);
}

/* All is written down: the ids that the copy must leave out go with it. */
static void port_end(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    port->checkpoint_begun = false;
    port->gone_written = port->checkpoint_gone_count = port->gone_count;
    if (CNK_WAL_BUG(COPY_DROPPED)) port->checkpoint_gone_count = 0;
    if (port->gone_count > 0) port->checkpoint_gone = cnk_memdup(port->gone, port->gone_count * sizeof *port->gone);
    if (port->gone_count > 0 && !port->checkpoint_gone) port->checkpoint_error = CHRONIK_ENOMEM;
    /* A block that failed may be on the disk all the same: what was written down without it must not stand. */
    if (atomic_load(&wal->fenced)) port->checkpoint_error = CHRONIK_EFENCED;
    pthread_mutex_lock(&wal->mutex);
    if (--wal->checkpoint_ports_left == 0) {
        wal->checkpoint_write = true;
        cnk_wal_bg_wake(wal);
    }
    pthread_mutex_unlock(&wal->mutex);
}

void cnk_wal_checkpoint_port(chronik_post *post) {
    cnk_wal_port *port = CNK_CONTAINER(post, cnk_wal_port, checkpoint_post);
    uint64_t as_of = port_as_of(port);
    if (!port->checkpoint_begun) {
        port_begin(port);
        port->checkpoint_as_of = as_of;
    }
    for (int n = 0; n < CNK_WAL_CHECKPOINT_SLICE && !cnk_list_empty(&port->writing); n++) {
        cnk_list *l = cnk_list_pop_front(&port->writing);
        cnk_wal_stream *s = CNK_CONTAINER(l, cnk_wal_stream, noted_link);
        cnk_list_push_back(&port->written, l);
        s->noted = STREAM_WRITTEN;
        bool forget = CNK_WAL_BUG(CHECKPOINT_FORGETS) && s->now.id % 3 == 2;
        if (s->exists && !forget) stream_put(port, s, as_of);
    }
    if (cnk_list_empty(&port->writing)) port_end(port);
    else port->loop->ops->post(port->loop->self, &port->checkpoint_post);
}

/* ---- afterwards ------------------------------------------------------------------------------------------------- */

void cnk_wal_checkpoint_append(cnk_wal *wal) {
    cnk_wal_port *port = wal->ports[0];
    cnk_wal_row row = {.frame = CNK_FRAME_CHECKPOINT, .crc = wal->checkpoint_crc};
    row.e.index = wal->checkpoint_number;
    row.e.base_offset = (int64_t)wal->checkpoint_lsn;
    row.e.max_timestamp = -1;
    uint32_t seq, pos;
    int code = cnk_wal_port_append_row(port, NULL, &row, NULL, NULL, 0, &seq, &pos);
    pthread_mutex_lock(&wal->mutex);
    wal->checkpoint_row_wanted = false;
    if (code) {
        wal->checkpoint_running = false;
        cnk_wal_checkpoint_put_off(wal);
    }
    pthread_mutex_unlock(&wal->mutex);
    if (code == 0) cnk_wal_kick(port);
}

void cnk_wal_checkpoint_durable(cnk_wal *wal) {
    pthread_mutex_lock(&wal->mutex);
    for (size_t n = 0; n < wal->checkpoint_candidates_count; n++) {
        cnk_wal_file *f = wal->checkpoint_candidates[n];
        if (f->state != FILE_SEALED || f->last_lsn >= wal->checkpoint_lsn) continue;
        f->state = FILE_FREE;
    }
    wal->checkpoint_candidates_count = 0;
    wal->checkpoint_running = false;
    bool again = wal->checkpoint_again && wal->ports_count > 0;
    wal->checkpoint_again = false;
    cnk_wal_bg_wake(wal);
    cnk_wal_port_post_wake(wal->ports[0]);
    pthread_mutex_unlock(&wal->mutex);
    if (again) cnk_wal_checkpoint(wal->ports[0]);
}
