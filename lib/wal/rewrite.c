/* Moves the entries of a sealed file that its walk could not tell of, since they were not committed, to the open one, so that
 * the file can go.
 *
 *   cnk_wal_rewrite ─► what is in the cache is appended again, as REWRITE rows ─► done
 *        ▲                │ what is not: up to READ_BYTES of it
 *        │                ▼
 *        └── appended ── a job of the background lane reads it, and checks its CRCs
 *
 * An entry's old place counts until the new one is durable. What is moved counts against the budget as data does, but may
 * take some room that data may not (files.c), since it makes room in the end. A file of which more than half would have to be
 * moved stays: moving it would win nothing, and what is moved again and again would fill the log. The port's thread, but for
 * the job's step. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

enum { READ_BYTES = 2 << 20 };

#ifdef CNK_TEST_HOOKS
void (*cnk_wal_moved)(cnk_wal_stream *stream);
#endif

static int64_t read_step(chronik_job *job);
static void read_done(chronik_job *job);

static void end(cnk_wal_port *port) {
    void (*done)(void *arg, int code) = port->rewrite.done;
    cnk_wal_kick(port);
    if (port->rewrite.file) cnk_wal_file_unpin(port->rewrite.file);
    port->rewrite.file = NULL;
    port->rewrite.done = NULL;
    done(port->rewrite.arg, port->rewrite.code);
}

static bool to_move(const cnk_wal_port *port, const cnk_wal_extent *x) {
    return x->file == port->rewrite.file && !x->moving;
}

/* One entry, again, in the open file. EAGAIN, ENOSPC: there is no room for it now. */
static int move(cnk_wal_stream *s, cnk_wal_extent *x, const uint8_t *data) {
    cnk_wal_payload payload = {.iov_count = x->row.e.len ? 1 : 0, .crc = x->row.crc};
    payload.iov[0] = (struct iovec){(void *)(uintptr_t)data, x->row.e.len};
    cnk_wal_row row = x->row;
    row.frame = CNK_FRAME_REWRITE;
    int code = cnk_wal_port_append_row(s->port, s, &row, &payload, NULL, 0, &x->slab_seq, &x->slab_pos);
    if (code) return code == CHRONIK_ENOSPC ? CHRONIK_EAGAIN : code;
    x->moving = true;
#ifdef CNK_TEST_HOOKS
    if (cnk_wal_moved) cnk_wal_moved(s);
#endif
    return 0;
}

static int move_cached(cnk_wal_stream *s, cnk_wal_extent *x, const uint8_t *data, cnk_wal_slab *slab) {
    if (data) cnk_wal_slab_ref(slab);
    int code = move(s, x, data);
    if (data) cnk_wal_slab_unref(slab);
    return code;
}

/* An entry that has to be read first. false: there are enough for this time. */
static bool note(cnk_wal_port *port, cnk_wal_stream *s, const cnk_wal_extent *x) {
    if (port->rewrite.count == CNK_WAL_MOVES_MAX ||
        (port->rewrite.count > 0 && port->rewrite.bytes + x->row.e.len > READ_BYTES))
        return false;
    port->rewrite.items[port->rewrite.count++] =
        (cnk_wal_move){s, x->row.e.index, x->file_pos, x->row.e.len, x->row.crc, NULL};
    port->rewrite.bytes += x->row.e.len;
    return true;
}

/* The last entry of the stream up to this index that is to be moved; NULL: none. What was not committed when the file was
 * walked may be now, and stays to be moved: nobody comes for it where the stream gets no more entries. */
static cnk_wal_extent *next_to_move(const cnk_wal_port *port, const cnk_wal_stream *s, uint64_t index) {
    bool walked = port->walked_file == (uint32_t)port->rewrite.file->number && !CNK_WAL_BUG(LEAVE_COMMITTED);
    uint64_t after = walked ? s->walked_commit : s->commit_index;
    if (walked && index > s->walked_last) index = s->walked_last;
    if (index > s->now.last_index) index = s->now.last_index;
    for (; index > after; index--) {
        cnk_wal_extent *x = cnk_wal_extents_at(&s->extents, index);
        if (!x) break; /* what comes before it has been released, too */
        if (to_move(port, x)) return x;
    }
    return NULL;
}

static bool stream_go(cnk_wal_port *port, cnk_wal_stream *s) {
    cnk_wal_extent *x = next_to_move(port, s, UINT64_MAX);
    for (; x; x = next_to_move(port, s, x->row.e.index - 1)) {
        cnk_wal_slab *slab = NULL;
        const uint8_t *data = x->row.e.len ? cnk_wal_port_cached(port, x->slab_seq, x->slab_pos, &slab) : NULL;
        if (x->row.e.len && !data) {
            if (!note(port, s, x)) return false;
            continue;
        }
        port->rewrite.code = move_cached(s, x, data, slab);
        if (port->rewrite.code) return false;
    }
    return true;
}

static void go(cnk_wal_port *port) {
    port->rewrite.count = 0;
    port->rewrite.bytes = 0;
    CNK_LIST_EACH(node, &port->streams) if (!stream_go(port, CNK_CONTAINER(node, cnk_wal_stream, link))) break;
    if (port->rewrite.count == 0 || port->rewrite.code) {
        end(port);
        return;
    }
    cnk_wal_kick(port);
    port->rewrite.buf = NULL;
    port->rewrite.job = (chronik_job){.loop = port->loop, .step = read_step, .done = read_done};
    port->wal->io->jobs_ops->submit(port->wal->io->jobs, CHRONIK_LANE_BACKGROUND, &port->rewrite.job);
}

static int64_t read_step(chronik_job *job) {
    cnk_wal_port *port = CNK_CONTAINER(job, cnk_wal_port, rewrite.job);
    uint8_t *to = port->rewrite.buf = cnk_malloc(port->rewrite.bytes);
    for (size_t n = 0; to && n < port->rewrite.count; n++) {
        cnk_wal_move *m = &port->rewrite.items[n];
        if (cnk_wal_file_read(port->rewrite.file, m->file_pos, m->len, m->crc, to, NULL) == 0) m->data = to;
        to += m->len;
    }
    return CHRONIK_JOB_DONE;
}

/* What has been truncated, dropped or moved meanwhile is left alone. What cannot be read stays where it is. */
static void read_done(chronik_job *job) {
    cnk_wal_port *port = CNK_CONTAINER(job, cnk_wal_port, rewrite.job);
    for (size_t n = 0; n < port->rewrite.count && port->rewrite.code == 0; n++) {
        const cnk_wal_move *m = &port->rewrite.items[n];
        cnk_wal_extent *x = m->stream && !m->stream->dropped ? cnk_wal_extents_at(&m->stream->extents, m->index) : NULL;
        if (!x || !to_move(port, x) || x->file_pos != m->file_pos) continue;
        port->rewrite.code = m->data ? move(m->stream, x, m->data) : CHRONIK_EAGAIN;
    }
    cnk_free(port->rewrite.buf);
    port->rewrite.buf = NULL;
    if (atomic_load(&port->wal->fenced)) port->rewrite.code = CHRONIK_EFENCED;
    if (port->rewrite.code) end(port);
    else go(port);
}

void cnk_wal_rewrite_forget(cnk_wal_port *port, const cnk_wal_stream *s) {
    for (size_t n = 0; port->rewrite.done && n < port->rewrite.count; n++)
        if (port->rewrite.items[n].stream == s) port->rewrite.items[n].stream = NULL;
}

/* The bytes that would have to be moved. */
static uint64_t volume(const cnk_wal_port *port) {
    uint64_t bytes = 0;
    CNK_LIST_EACH(node, &port->streams) {
        const cnk_wal_stream *s = CNK_CONTAINER(node, cnk_wal_stream, link);
        const cnk_wal_extent *x = next_to_move(port, s, UINT64_MAX);
        for (; x; x = next_to_move(port, s, x->row.e.index - 1)) bytes += x->row.e.len + CNK_WAL_ROW_BYTES;
    }
    return bytes;
}

void cnk_wal_rewrite(cnk_wal_port *port, uint32_t file_seq, void (*done)(void *arg, int code), void *arg) {
    CNK_ASSERT(!port->rewrite.done);
    cnk_wal *wal = port->wal;
    port->rewrite.done = done;
    port->rewrite.arg = arg;
    port->rewrite.code = 0;
    port->rewrite.file = cnk_wal_file_pin(wal, file_seq);
    port->rewrite.count = 0;
    pthread_mutex_lock(&wal->mutex);
    uint64_t worth = port->rewrite.file ? port->rewrite.file->bytes / (2 * wal->ports_count) : 0;
    wal->moves_wanted = false;
    pthread_mutex_unlock(&wal->mutex);
    if (port->rewrite.file && volume(port) > worth) port->rewrite.code = CHRONIK_EAGAIN;
    if (atomic_load(&wal->fenced)) port->rewrite.code = CHRONIK_EFENCED;
    if (!port->rewrite.file || port->rewrite.code) end(port);
    else go(port);
}
