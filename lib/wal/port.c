/* A port: builds blocks from what its shard appends, keeps them as the cache that serves readers at the tail, and tells
 * its owner what has become durable.
 *
 * The port's thread owns everything here but what internal.h marks [port->mutex]: the block that is being filled, the
 * queues to and from the writer, and the counters beside them. While one commit is under way the next block fills; the
 * writer takes it, as it is, when it is ready (group commit without a message in between). */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

/* ---- slabs ------------------------------------------------------------------------------------------------------ */

static cnk_wal_slab *slab_nth(const cnk_wal_port *port, uint32_t seq) {
    return port->slabs[seq & (port->slabs_capacity - 1)];
}

/* Without its pages. NULL: no memory. */
static cnk_wal_slab *slab_make(cnk_wal_port *port, size_t size) {
    cnk_wal_slab *slab = cnk_calloc(1, sizeof *slab);
    if (!slab) return NULL;
    slab->port = port;
    slab->size = size;
    return slab;
}

static void slab_free(cnk_wal_slab *slab) {
    if (!slab) return;
    cnk_pages_free(slab->data, slab->size);
    cnk_free(slab);
}

static void slab_release(cnk_wal_slab *slab) {
    cnk_wal_port *port = slab->port;
    CNK_ASSERT(slab->refs > 0);
    if (--slab->refs > 0) return;
    if (slab->size == CNK_WAL_SLAB_BYTES && port->pool_count < CNK_WAL_SLAB_POOL_MAX) {
        slab->next = port->pool;
        port->pool = slab;
        port->pool_count++;
        return;
    }
    slab_free(slab);
}

void cnk_wal_slab_ref(cnk_wal_slab *slab) {
    slab->refs++;
    if (slab->readers++ == 0) slab->port->held_bytes += slab->size;
}
void cnk_wal_slab_unref(cnk_wal_slab *slab) {
    CNK_ASSERT(slab->readers > 0);
    if (--slab->readers == 0) slab->port->held_bytes -= slab->size;
    slab_release(slab);
}
uint64_t cnk_wal_port_held_bytes(const cnk_wal_port *port) { return port->held_bytes; }

static void cache_evict(cnk_wal_port *port) {
    while (port->slab_bytes > port->wal->options.cache_bytes && port->slab_count > 1) {
        cnk_wal_slab *oldest = slab_nth(port, port->slab_first);
        if (oldest->in_flight > 0) break;
        port->slab_first++;
        port->slab_count--;
        port->slab_bytes -= oldest->size;
        slab_release(oldest);
    }
}

/* New pages cost their first writer dearly: two megabytes to be cleared, and on a virtual machine to be had from its
 * host first, milliseconds in all. So the next slab is made by a job, which touches each page. */
static int64_t ahead_step(chronik_job *job) {
    cnk_wal_slab *slab = CNK_CONTAINER(job, cnk_wal_port, ahead.job)->ahead.slab;
    slab->data = cnk_pages_alloc(slab->size);
    for (size_t pos = 0; slab->data && pos < slab->size; pos += CNK_WAL_ALIGN) ((volatile uint8_t *)slab->data)[pos] = 0;
    return CHRONIK_JOB_DONE;
}

static void ahead_done(chronik_job *job) {
    cnk_wal_port *port = CNK_CONTAINER(job, cnk_wal_port, ahead.job);
    cnk_wal_slab *slab = port->ahead.slab;
    port->ahead.slab = NULL;
    slab->refs = 1;
    if (slab->data) slab_release(slab);
    else slab_free(slab);
    if (port->draining) cnk_wal_kick(port);
}

/* Not while the log is shut down: rows of the last checkpoint come after the port has drained, and nobody would wait for
 * the job. */
static void slab_ahead(cnk_wal_port *port) {
    if (atomic_load(&port->wal->shutdown)) return;
    port->ahead.slab = slab_make(port, CNK_WAL_SLAB_BYTES);
    if (!port->ahead.slab) return; /* it will be made when it is needed */
    port->ahead.job = (chronik_job){.loop = port->loop, .step = ahead_step, .done = ahead_done};
    port->wal->io->jobs_ops->submit(port->wal->io->jobs, CHRONIK_LANE_BACKGROUND, &port->ahead.job);
}

static cnk_wal_slab *slab_new(cnk_wal_port *port, size_t size) {
    if (port->slab_count == port->slabs_capacity) {
        uint32_t capacity = port->slabs_capacity ? port->slabs_capacity * 2 : 16;
        cnk_wal_slab **slabs = cnk_malloc(capacity * sizeof *slabs);
        if (!slabs) return NULL;
        for (uint32_t n = 0; n < port->slab_count; n++)
            slabs[(port->slab_first + n) & (capacity - 1)] = slab_nth(port, port->slab_first + n);
        cnk_free(port->slabs);
        port->slabs = slabs;
        port->slabs_capacity = capacity;
    }
    cnk_wal_slab *slab = NULL;
    if (size == CNK_WAL_SLAB_BYTES && port->pool) {
        slab = port->pool;
        port->pool = slab->next;
        port->pool_count--;
    } else {
        slab = slab_make(port, size);
        if (!slab) return NULL;
        slab->data = cnk_pages_alloc(size);
        if (!slab->data) {
            slab_free(slab);
            return NULL;
        }
    }
    slab->used = 0;
    slab->in_flight = 0;
    slab->refs = 1;
    slab->readers = 0;
    slab->next = NULL;
    slab->seq = port->slab_first + port->slab_count;
    port->slabs[slab->seq & (port->slabs_capacity - 1)] = slab;
    port->slab_count++;
    port->slab_bytes += size;
    return slab;
}

const uint8_t *cnk_wal_port_cached(const cnk_wal_port *port, uint32_t seq, uint32_t pos, cnk_wal_slab **ret_slab) {
    if (seq == 0 || seq - port->slab_first >= port->slab_count) return NULL;
    *ret_slab = slab_nth(port, seq);
    return (*ret_slab)->data + pos;
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static size_t block_len(size_t used, size_t rows) {
    return cnk_wal_align_up(((used + 7) & ~(size_t)7) + rows * CNK_WAL_ROW_BYTES);
}

static void block_free(cnk_wal_block *b) {
    cnk_free(b->rows);
    cnk_free(b->releases);
    cnk_free(b);
}

static cnk_wal_block *block_new(cnk_wal_port *port, cnk_wal_slab *slab) {
    cnk_wal_block *b = port->free_blocks;
    if (b) {
        port->free_blocks = b->next;
        port->free_blocks_count--;
    } else {
        b = cnk_calloc(1, sizeof *b);
        if (!b) return NULL;
    }
    b->port = port;
    b->slab = slab;
    b->data = slab->data + slab->used;
    b->used = CNK_WAL_BLOCK_HEADER;
    b->len = b->rows_count = b->releases_count = 0;
    b->payload_bytes = b->lsn = b->file_pos = 0;
    b->file = NULL;
    b->failed = false;
    b->next = NULL;
    return b;
}

static void queue_push(cnk_wal_block_queue *q, cnk_wal_block *b) {
    b->next = NULL;
    if (q->last) q->last->next = b;
    else q->first = b;
    q->last = b;
}

/* Puts the row table behind the payloads. The header is the writer's. */
static void block_seal(cnk_wal_block *b) {
    size_t table = (b->used + 7) & ~(size_t)7;
    b->len = block_len(b->used, b->rows_count);
    memset(b->data, 0, CNK_WAL_BLOCK_HEADER);
    memset(b->data + b->used, 0, table - b->used);
    for (size_t n = 0; n < b->rows_count; n++)
        cnk_wal_row_put(b->data + table + n * CNK_WAL_ROW_BYTES, &b->rows[n].row);
    size_t end = table + b->rows_count * CNK_WAL_ROW_BYTES;
    memset(b->data + end, 0, b->len - end);
    b->slab->used = (size_t)(b->data - b->slab->data) + b->len;
}

bool cnk_wal_port_peek(const cnk_wal_port *port, size_t *ret_len, size_t *ret_rows) {
    const cnk_wal_block *b = port->sealed.first ? port->sealed.first : port->open;
    if (!b || b->rows_count == 0) return false;
    *ret_len = b->len ? b->len : block_len(b->used, b->rows_count);
    *ret_rows = b->rows_count;
    return true;
}

cnk_wal_block *cnk_wal_port_take(cnk_wal_port *port) {
    cnk_wal_block *b = port->sealed.first;
    if (b) {
        port->sealed.first = b->next;
        if (!b->next) port->sealed.last = NULL;
    } else {
        b = port->open;
        port->open = NULL;
        block_seal(b);
    }
    b->next = NULL;
    port->pending_bytes -= b->payload_bytes;
    b->lsn = atomic_fetch_add_explicit(&port->wal->next_lsn, 1, memory_order_relaxed);
    if (port->blocks_in_flight++ == 0) port->first_lsn_in_flight = b->lsn;
    return b;
}

/* The open block, with room for one more row and its payload; the caller holds the mutex. */
static int block_open(cnk_wal_port *port, size_t payload_len) {
    size_t limit = port->wal->block_bytes_max;
    cnk_wal_block *b = port->open;
    if (b) {
        size_t len = block_len(b->used + payload_len, b->rows_count + 1);
        size_t left = b->slab->size - (size_t)(b->data - b->slab->data);
        if (len <= limit && len <= left) return 0;
        block_seal(b);
        queue_push(&port->sealed, b);
        port->open = NULL;
    }
    size_t len = block_len(CNK_WAL_BLOCK_HEADER + payload_len, 1);
    cnk_wal_slab *slab = port->slab_count ? slab_nth(port, port->slab_first + port->slab_count - 1) : NULL;
    if (!slab || slab->size - slab->used < len || slab->size - slab->used < 4 * CNK_WAL_ALIGN) {
        slab = slab_new(port, len > CNK_WAL_SLAB_BYTES ? len : CNK_WAL_SLAB_BYTES);
        if (!slab) return CHRONIK_ENOMEM;
        cache_evict(port);
    }
    b = block_new(port, slab);
    if (!b) return CHRONIK_ENOMEM;
    slab->refs++;
    slab->in_flight++;
    port->open = b;
    return 0;
}

static int block_reserve(cnk_wal_block *b, size_t releases_count) {
    if (cnk_array_reserve((void **)&b->rows, &b->rows_capacity, b->rows_count + 1, sizeof *b->rows))
        return CHRONIK_ENOMEM;
    if (releases_count == 0) return 0;
    return cnk_array_reserve((void **)&b->releases, &b->releases_capacity, b->releases_count + releases_count,
                             sizeof *b->releases);
}

/* Whether data of this size may come in now; what is moved has some room of its own. */
static int admit(cnk_wal_port *port, uint64_t bytes, bool move) {
    cnk_wal *wal = port->wal;
    int64_t more = move ? atomic_load_explicit(&wal->moves_room, memory_order_relaxed) : 0;
    int code = 0;
    if (port->unsynced_bytes > 0 && port->unsynced_bytes + bytes > wal->options.unsynced_bytes_max) {
        code = CHRONIK_EAGAIN;
        port->refused_memory += !move;
    } else if (atomic_fetch_sub_explicit(&wal->room, (int64_t)bytes, memory_order_relaxed) <
               (int64_t)bytes - more) {
        atomic_fetch_add_explicit(&wal->room, (int64_t)bytes, memory_order_relaxed);
        code = atomic_load_explicit(&wal->full, memory_order_relaxed) ? CHRONIK_ENOSPC : CHRONIK_EAGAIN;
        port->refused_room += !move;
    }
    if (code && !move) port->blocked = true;
    return code;
}

/* What could not be moved is tried again by whoever wants it. */
static void want_moves(cnk_wal_port *port, uint64_t bytes) {
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    cnk_wal_room_update(wal);
    wal->moves_wanted = atomic_load(&wal->room) + atomic_load(&wal->moves_room) < (int64_t)bytes;
    cnk_wal_bg_wake(wal);
    pthread_mutex_unlock(&wal->mutex);
}

/* Data that was refused for lack of room wants a file in which it fits, by the account of cnk_wal_room_update: the file's
 * end, which a block may leave unused, does not count. A smaller one would satisfy nobody, and nobody would ask again. */
static void want_room(cnk_wal_port *port, uint64_t bytes) {
    cnk_wal *wal = port->wal;
    uint64_t need = cnk_wal_align_up(bytes + wal->block_bytes_max + 8 * CNK_WAL_ALIGN) + wal->reserve_bytes;
    pthread_mutex_lock(&wal->mutex);
    int64_t starved = atomic_load(&wal->starved);
    if (starved == 0 || (int64_t)bytes < starved) atomic_store(&wal->starved, (int64_t)bytes);
    if (need > wal->need_bytes) wal->need_bytes = need;
    cnk_wal_room_update(wal); /* the refused bytes were counted for a moment */
    cnk_wal_bg_wake(wal);
    pthread_mutex_unlock(&wal->mutex);
}

/* Takes entries out of the index, which may be under way to their file: those are never counted live in it, so while the
 * row is not durable, live counts are too small. */
static bool cuts(uint8_t frame) {
    return frame == CNK_FRAME_TRUNCATE || frame == CNK_FRAME_RESET || frame == CNK_FRAME_DROP;
}

int cnk_wal_port_append_row(cnk_wal_port *port, cnk_wal_stream *stream, cnk_wal_row *row,
                            const cnk_wal_payload *payload, const cnk_wal_release *releases, size_t releases_count,
                            uint32_t *ret_slab_seq, uint32_t *ret_slab_pos) {
    bool move = row->frame == CNK_FRAME_REWRITE;
    uint32_t len = row->e.len;
    bool entry = row->frame == CNK_FRAME_ENTRY;
    /* Long ones of other kinds would use up the reserve. */
    bool data = move || (entry && (row->e.kind == CNK_ENTRY_DATA || len > port->wal->reserve_bytes / 8));
    /* An entry with a block of its own may leave the rest of a file unused: it pays for that, too. */
    uint64_t charge = (uint64_t)len * (len > port->wal->block_bytes_max ? 2 : 1) + CNK_WAL_ROW_BYTES;
    int code = 0;
    pthread_mutex_lock(&port->mutex);
    if (data) code = admit(port, charge, move);
    if (code) goto out;
    code = block_open(port, len);
    if (code == 0) code = block_reserve(port->open, releases_count);
    if (code) {
        if (data) atomic_fetch_add_explicit(&port->wal->room, (int64_t)charge, memory_order_relaxed);
        goto out;
    }
    cnk_wal_block *b = port->open;
    uint8_t *to = b->data + b->used;
    for (int n = 0; payload && n < payload->iov_count; n++) {
        memcpy(to, payload->iov[n].iov_base, payload->iov[n].iov_len);
        to += payload->iov[n].iov_len;
    }
    CNK_ASSERT(to == b->data + b->used + len);
    row->pos = (uint32_t)b->used;
    b->used += len;
    b->payload_bytes += charge;
    b->rows[b->rows_count++] = (cnk_wal_block_row){*row, stream};
    if (releases_count) memcpy(b->releases + b->releases_count, releases, releases_count * sizeof *releases);
    b->releases_count += releases_count;
    port->unsynced_bytes += charge;
    port->pending_bytes += charge;
    *ret_slab_seq = b->slab->seq;
    *ret_slab_pos = (uint32_t)((size_t)(b->data - b->slab->data) + row->pos);
    if (stream) {
        stream->rows_in_flight++;
        port->rows_appended++;
    }
    if (cuts(row->frame)) port->cuts_pending++;
out:
    pthread_mutex_unlock(&port->mutex);
    bool refused = data && (code == CHRONIK_EAGAIN || code == CHRONIK_ENOSPC);
    if (refused && move) want_moves(port, charge);
    else if (refused) want_room(port, charge);
    else if (code == 0 && *ret_slab_pos >= CNK_WAL_SLAB_AHEAD_BYTES && !port->pool && !port->ahead.slab) slab_ahead(port);
    return code;
}

uint64_t cnk_wal_port_appended(const cnk_wal_port *port) { return port->rows_appended; }
uint64_t cnk_wal_port_durable(const cnk_wal_port *port) { return atomic_load(&port->rows_durable); }

void cnk_wal_kick(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    cnk_wal_writer_wake(wal);
    pthread_mutex_unlock(&wal->mutex);
}

/* ---- completions ------------------------------------------------------------------------------------------------ */

/* An entry is durable: its place becomes known, unless a truncation took it out of the index meanwhile. */
static void entry_durable(const cnk_wal_block *b, const cnk_wal_block_row *r) {
    cnk_wal_extent *x = cnk_wal_extents_at(&r->stream->extents, r->row.e.index);
    uint32_t slab_pos = (uint32_t)((size_t)(b->data - b->slab->data) + r->row.pos);
    if (!x || x->slab_seq != b->slab->seq || x->slab_pos != slab_pos) return;
    cnk_wal_file *old = x->file; /* REWRITE */
    x->file = b->file;
    x->moving = false;
    x->file_pos = (uint32_t)(b->file_pos + r->row.pos);
    atomic_fetch_add_explicit(&b->file->live, 1, memory_order_relaxed);
    if (old) cnk_wal_file_leave(old, 1);
}

static void row_durable(const cnk_wal_block *b, const cnk_wal_block_row *r, cnk_wal_stream **touched) {
    cnk_wal_stream *s = r->stream;
    bool stale = CNK_WAL_BUG(COPY_STALE) && (r->row.frame == CNK_FRAME_VOTE || r->row.frame == CNK_FRAME_TRUNCATE ||
                                                r->row.frame == CNK_FRAME_TRIM);
    if (s && !stale) cnk_wal_stream_changed(s);
    if (s) atomic_fetch_add_explicit(&b->port->rows_durable, 1, memory_order_release);
    if (!s) {
        CNK_ASSERT(r->row.frame == CNK_FRAME_CHECKPOINT);
        cnk_wal_checkpoint_durable(b->port->wal);
        return;
    }
    cnk_wal_state_apply(&s->durable, &r->row);
    s->rows_durable++;
    if (r->row.frame == CNK_FRAME_INIT) s->exists = true;
    if (r->row.frame == CNK_FRAME_TRUNCATE || r->row.frame == CNK_FRAME_RESET) s->cuts_in_flight--;
    if (r->row.frame == CNK_FRAME_ENTRY || r->row.frame == CNK_FRAME_REWRITE) entry_durable(b, r);
    if (r->row.frame == CNK_FRAME_TRIM && s->durable.first_index > 0)
        cnk_wal_stream_release(s, s->durable.first_index - 1);
    if (!s->touched) {
        s->touched = true;
        s->touched_next = *touched;
        *touched = s;
    }
}

/* Gives a block back; its slab stays in the cache. */
static void block_done(cnk_wal_port *port, cnk_wal_block *b) {
    b->slab->in_flight--;
    slab_release(b->slab);
    if (port->free_blocks_count < 8 && b->rows_capacity <= 4096) {
        b->next = port->free_blocks;
        port->free_blocks = b;
        port->free_blocks_count++;
    } else {
        block_free(b);
    }
}

static void block_complete(cnk_wal_port *port, cnk_wal_block *b, cnk_wal_stream **touched) {
    uint32_t done = 0;
    for (size_t n = 0; n < b->rows_count; n++) {
        const cnk_wal_block_row *r = &b->rows[n];
        done += cuts(r->row.frame);
        if (!b->failed) row_durable(b, r, touched);
        if (r->stream) r->stream->rows_in_flight--;
    }
    for (size_t n = 0; n < b->releases_count && !b->failed; n++)
        cnk_wal_file_leave(b->releases[n].file, b->releases[n].entries);
    pthread_mutex_lock(&port->mutex);
    port->unsynced_bytes -= b->payload_bytes;
    port->blocks_in_flight--;
    port->cuts_pending -= done;
    port->first_lsn_in_flight = port->blocks_in_flight ? b->lsn + 1 : 0;
    pthread_mutex_unlock(&port->mutex);
    block_done(port, b);
}

/* The row that drops the stream is durable: nothing speaks of it any more. */
static void stream_gone(cnk_wal_port *port, cnk_wal_stream *s) {
    CNK_ASSERT(port->gone_count < port->gone_capacity && port->dropping > 0);
    port->gone[port->gone_count++] = s->now.id;
    port->dropping--;
    cnk_wal_rewrite_forget(port, s);
    cnk_wal_walk_leave(port, s);
    cnk_wal_stream_destroy(s);
}

static void tell_durable(cnk_wal_port *port, cnk_wal_stream *touched) {
    bool any = touched != NULL;
    while (touched) {
        cnk_wal_stream *s = touched;
        touched = s->touched_next;
        s->touched = false;
        if (!s->dropped) port->events.durable(port->arg, s, cnk_wal_stream_state(s)->durable_index);
        else if (s->rows_in_flight == 0) stream_gone(port, s);
    }
    if (any) port->events.durable_end(port->arg);
}

static void tell_writable(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    if (!port->blocked || atomic_load(&wal->fenced)) return;
    pthread_mutex_lock(&wal->mutex);
    bool room = atomic_load(&wal->room) > 0;
    if (!room && atomic_load(&wal->starved) == 0) atomic_store(&wal->starved, 1); /* gone again: tell when it is back */
    bool full = atomic_load(&wal->full); /* then whoever waits asks again, and hears ENOSPC instead of waiting on */
    pthread_mutex_unlock(&wal->mutex);
    if (!room && !full) return;
    pthread_mutex_lock(&port->mutex);
    bool below = port->unsynced_bytes * 2 <= wal->options.unsynced_bytes_max;
    pthread_mutex_unlock(&port->mutex);
    if (!below) return;
    port->blocked = false;
    port->events.writable(port->arg);
}

static void tell_drained(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    if (!port->draining || port->rewrite.done || port->ahead.slab) return; /* their ends kick */
    pthread_mutex_lock(&port->mutex);
    size_t len, rows;
    bool busy = cnk_wal_port_peek(port, &len, &rows) || port->blocks_in_flight > 0;
    pthread_mutex_unlock(&port->mutex);
    pthread_mutex_lock(&wal->mutex);
    bool stuck = atomic_load(&wal->fenced) || wal->waiting_for_spare;
    if (!wal->writer_scheduled && !stuck && (busy || wal->witnessed_lsn < wal->rows_lsn)) {
        wal->witness_wanted = true;
        cnk_wal_writer_wake(wal);
        busy = true;
    }
    busy = (!stuck && (busy || wal->checkpoint_running)) || wal->writer_scheduled || wal->bg_scheduled;
    int code = atomic_load(&wal->fenced) ? CHRONIK_EFENCED : stuck ? CHRONIK_ENOSPC : 0;
    pthread_mutex_unlock(&wal->mutex);
    if (busy) return;
    port->draining = false;
    port->drained(port->drained_arg, code);
}

static void timer_set(cnk_wal_port *port, uint64_t at_ns) {
    port->loop->ops->timer_set(port->loop->self, port->timer, at_ns);
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The first port's timer looks after the witness, the age of the open file, files to be freed, and a full disk; it is off
 * while there is nothing to look after. */
static void timer_arm(cnk_wal_port *port) {
    cnk_wal *wal = port->wal;
    if (!port->timer) return;
    uint64_t now = port->loop->ops->now_ns(port->loop->self), at = UINT64_MAX;
    uint64_t retry = now + CNK_WAL_FULL_RETRY_MS * UINT64_C(1000000);
    pthread_mutex_lock(&wal->mutex);
    if (wal->open_since_ns) at = wal->open_since_ns + wal->options.seal_after_ms * UINT64_C(1000000);
    if (at < now) at = retry; /* old, and there is no room for another */
    if (atomic_load(&wal->full) || wal->spare_retry || (wal->open && atomic_load(&wal->starved))) at = least(at, retry);
    if (wal->rows_lsn > wal->witnessed_lsn) at = least(at, now + CNK_WAL_WITNESS_MS * UINT64_C(1000000));
    uint64_t free_at = cnk_wal_checkpoint_due_ns(wal);
    if (free_at != UINT64_MAX) at = least(at, free_at > now ? free_at : now + 1);
    if (atomic_load(&wal->fenced)) at = UINT64_MAX;
    bool sooner = at != UINT64_MAX && (!wal->timer_armed || at < wal->timer_at_ns);
    if (sooner) {
        wal->timer_armed = true;
        wal->timer_at_ns = at;
    }
    pthread_mutex_unlock(&wal->mutex);
    if (sooner) timer_set(port, at);
}

static void timer_fire(void *arg) {
    cnk_wal_port *port = arg;
    cnk_wal *wal = port->wal;
    uint64_t now = port->loop->ops->now_ns(port->loop->self);
    pthread_mutex_lock(&wal->mutex);
    wal->timer_armed = false;
    bool quiet = now - wal->last_activity_ns >= CNK_WAL_WITNESS_MS * UINT64_C(1000000);
    if (quiet && wal->witnessed_lsn < wal->rows_lsn) wal->witness_wanted = true;
    bool old = wal->open_since_ns && now - wal->open_since_ns >= wal->options.seal_after_ms * UINT64_C(1000000);
    /* Data has waited for room for a while, and what is in the open file may be what could make some. */
    bool last = wal->open && atomic_load(&wal->starved) && wal->open->used * 4 >= wal->open->bytes * 3;
    if ((old || last) && cnk_wal_files_next_affordable(wal)) wal->seal_wanted = true;
    if (wal->witness_wanted || wal->seal_wanted) cnk_wal_writer_wake(wal);
    if (atomic_load(&wal->full) || wal->spare_retry) cnk_wal_bg_wake(wal);
    if (atomic_load(&wal->starved)) cnk_wal_room_update(wal);
    pthread_mutex_unlock(&wal->mutex);
    cnk_wal_checkpoint_if_due(wal);
    timer_arm(port);
}

void cnk_wal_port_complete(chronik_post *post) {
    cnk_wal_port *port = CNK_CONTAINER(post, cnk_wal_port, done_post);
    cnk_wal_stream *touched = NULL;
    pthread_mutex_lock(&port->mutex);
    cnk_wal_block *b = port->done.first;
    port->done.first = port->done.last = NULL;
    port->done_posted = false;
    pthread_mutex_unlock(&port->mutex);
    while (b) {
        cnk_wal_block *next = b->next;
        block_complete(port, b, &touched);
        b = next;
    }
    cache_evict(port);
    if (atomic_load(&port->wal->sealed_waits)) {
        pthread_mutex_lock(&port->wal->mutex);
        cnk_wal_port_post_wake(port->wal->ports[0]);
        pthread_mutex_unlock(&port->wal->mutex);
    }
    tell_durable(port, touched);
    tell_writable(port);
    tell_drained(port);
}

/* ---- wake-ups from the writer and the background job ------------------------------------------------------------- */

void cnk_wal_port_post_wake(cnk_wal_port *port) {
    if (port->wake_posted) return;
    port->wake_posted = true;
    port->loop->ops->post(port->loop->self, &port->wake_post);
}

uint64_t cnk_wal_first_untold(const cnk_wal *wal, bool *ret_cuts) {
    uint64_t lsn = UINT64_MAX;
    *ret_cuts = false;
    for (size_t n = 0; n < wal->ports_count; n++) {
        cnk_wal_port *p = wal->ports[n];
        pthread_mutex_lock(&p->mutex);
        if (p->blocks_in_flight && p->first_lsn_in_flight < lsn) lsn = p->first_lsn_in_flight;
        *ret_cuts |= p->cuts_pending > 0;
        pthread_mutex_unlock(&p->mutex);
    }
    return lsn;
}

/* The next file to tell of: who walks it finds all that is in it, since every port knows of that. 0: none, for now. */
static uint32_t sealed_next(cnk_wal *wal) {
    cnk_wal_file *f = NULL;
    for (size_t n = 0; n < wal->files_count && !f; n++)
        if (wal->files[n]->state == FILE_SEALED && !wal->files[n]->sealed_told) f = wal->files[n];
    atomic_store(&wal->sealed_waits, f != NULL); /* before it is looked at what ports know: see cnk_wal_port_complete */
    bool cuts;
    if (!f || (f->last_lsn >= cnk_wal_first_untold(wal, &cuts) && !CNK_WAL_BUG(TELL_EARLY))) return 0;
    f->sealed_told = true;
    return (uint32_t)f->number;
}

static void tell_sealed(cnk_wal_port *port) {
    for (;;) {
        pthread_mutex_lock(&port->wal->mutex);
        uint32_t number = sealed_next(port->wal);
        pthread_mutex_unlock(&port->wal->mutex);
        if (number == 0) return;
        port->events.sealed(port->arg, number);
    }
}

void cnk_wal_port_wake(chronik_post *post) {
    cnk_wal_port *port = CNK_CONTAINER(post, cnk_wal_port, wake_post);
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    port->wake_posted = false;
    bool first = wal->ports_count > 0 && wal->ports[0] == port;
    bool row = first && wal->checkpoint_row_wanted;
    if (first && wal->scanned) { /* no job runs before the first loop does: an opening that fails need not wait for any */
        wal->scanned = false;
        cnk_wal_bg_wake(wal);
    }
    chronik_error why = wal->why;
    pthread_mutex_unlock(&wal->mutex);
    if (row) cnk_wal_checkpoint_append(wal);
    if (atomic_load(&wal->fenced) && !port->fenced_told) {
        port->fenced_told = true;
        port->events.fenced(port->arg, &why);
    }
    if (first && !atomic_load(&wal->shutdown)) {
        tell_sealed(port);
        cnk_wal_checkpoint_if_due(wal);
        timer_arm(port);
    }
    tell_writable(port);
    tell_drained(port);
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

int cnk_wal_port_open(cnk_wal *wal, const chronik_loop *loop, const cnk_wal_port_events *events, void *arg,
                      cnk_wal_port **ret_port) {
    cnk_wal_port *port = cnk_calloc(1, sizeof *port);
    if (!port) return CHRONIK_ENOMEM;
    port->wal = wal;
    port->loop = loop;
    port->events = *events;
    port->arg = arg;
    port->slab_first = 1;
    port->done_post.run = cnk_wal_port_complete;
    port->wake_post.run = cnk_wal_port_wake;
    port->checkpoint_post.run = cnk_wal_checkpoint_port;
    pthread_mutex_init(&port->mutex, NULL);
    cnk_list_init(&port->streams);
    cnk_list_init(&port->changed);
    cnk_list_init(&port->writing);
    cnk_list_init(&port->written);
    pthread_mutex_lock(&wal->mutex);
    int code = wal->ports_count == CNK_WAL_PORTS_MAX ? CHRONIK_EAGAIN : 0;
    if (code == 0 && wal->ports_count == 0)
        code = loop->ops->timer_new(loop->self, timer_fire, port, &port->timer);
    if (code == 0) {
        wal->ports[wal->ports_count++] = port;
        cnk_wal_port_post_wake(port); /* files that recovery found want to be converted */
    }
    pthread_mutex_unlock(&wal->mutex);
    if (code) {
        pthread_mutex_destroy(&port->mutex);
        cnk_free(port);
        return code;
    }
    *ret_port = port;
    return 0;
}

void cnk_wal_drain(cnk_wal_port *port, void (*drained)(void *arg, int code), void *arg) {
    cnk_wal *wal = port->wal;
    port->draining = true;
    port->drained = drained;
    port->drained_arg = arg;
    atomic_store(&wal->shutdown, true);
    pthread_mutex_lock(&wal->mutex);
    cnk_wal_writer_wake(wal);
    cnk_wal_port_post_wake(port);
    pthread_mutex_unlock(&wal->mutex);
}

static void blocks_free(cnk_wal_block *b) {
    while (b) {
        cnk_wal_block *next = b->next;
        block_free(b);
        b = next;
    }
}

void cnk_wal_port_close(cnk_wal_port *port) {
    if (!port) return; /* NULL-safe */
    cnk_wal *wal = port->wal;
    pthread_mutex_lock(&wal->mutex);
    for (size_t n = 0; n < wal->ports_count; n++)
        if (wal->ports[n] == port) {
            memmove(&wal->ports[n], &wal->ports[n + 1], (wal->ports_count - n - 1) * sizeof wal->ports[0]);
            wal->ports_count--;
        }
    pthread_mutex_unlock(&wal->mutex);
    if (port->timer) port->loop->ops->timer_free(port->loop->self, port->timer);
    CNK_LIST_EACH(node, &port->streams) cnk_wal_stream_destroy(CNK_CONTAINER(node, cnk_wal_stream, link));
    blocks_free(port->open);
    blocks_free(port->sealed.first);
    blocks_free(port->done.first);
    blocks_free(port->free_blocks);
    for (uint32_t n = 0; n < port->slab_count; n++) slab_free(slab_nth(port, port->slab_first + n));
    while (port->pool) {
        cnk_wal_slab *slab = port->pool;
        port->pool = slab->next;
        slab_free(slab);
    }
    slab_free(port->ahead.slab);
    cnk_free(port->slabs);
    cnk_writer_free(&port->checkpoint_rows);
    cnk_free(port->checkpoint_gone);
    cnk_free(port->rewrite.buf);
    if (port->rewrite.file) cnk_wal_file_unpin(port->rewrite.file);
    cnk_free(port->gone);
    pthread_mutex_destroy(&port->mutex);
    cnk_free(port);
}
