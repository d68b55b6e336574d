/* Receiving: bytes become frames (T5).
 *
 *                            whole frames, in place
 *     shared chunk ───────────────────────────────────────────► dispatch
 *         │ a frame that is cut off     reserve, then fill          ▲
 *         ├──────────────► frame (its own chunk) ───────────────────┤
 *         │ nothing can begin now                                   │
 *         └──────────────► backlog ─────────────────────────────────┘  later, when an answer is out
 *
 * A frame's size, key and version are read before memory for it is reserved; the body is not read before. */
#include <string.h>

#include "kafka/internal.h"

#define FRAME_HEAD 8u /* size, key, version */
#define FRAME_MIN 8u  /* key, version, correlation id */
#define BACKLOG_STEP 4096u
#define SPARE_STEP 65536u /* capacities of large frames are multiples of it, so that they fit again */

/* ---- chunks ----------------------------------------------------------------------------------------------------- */

static cnk_kafka_chunk *chunk_new(cnk_kafka *k, size_t capacity) {
    cnk_kafka_chunk *chunk = cnk_malloc(sizeof *chunk + capacity);
    if (chunk) *chunk = (cnk_kafka_chunk){.refs = 1, .kafka = k, .capacity = capacity};
    return chunk;
}

static cnk_kafka_chunk *spare_at(cnk_kafka *k, size_t n) {
    cnk_kafka_chunk *chunk = k->spares[n];
    memmove(k->spares + n, k->spares + n + 1, (--k->spare_count - n) * sizeof *k->spares);
    k->spare_bytes -= chunk->capacity;
    return chunk;
}

/* A frame's own chunk. Large ones come back again and again in the same sizes: some are kept, for the allocator would
 * give their pages back to the kernel each time. The one that was used last is the first to be used again. */
static cnk_kafka_chunk *frame_chunk(cnk_kafka *k, size_t len) {
    const bool large = len > CNK_KAFKA_SMALL_FRAME_BYTES;
    cnk_kafka_chunk *chunk = NULL;
    for (size_t n = k->spare_count; large && !chunk && n-- > 0;)
        if (k->spares[n]->capacity >= len && k->spares[n]->capacity / 4 <= len) chunk = spare_at(k, n);
    if (chunk)
        chunk->refs = 1;
    else
        chunk = chunk_new(k, large ? (len + SPARE_STEP - 1) / SPARE_STEP * SPARE_STEP : len);
    if (chunk) chunk->frame = true;
    return chunk;
}

/* The ones that lay longest make room: those of sizes that no longer come. */
static bool spare_keep(cnk_kafka_chunk *chunk) {
    cnk_kafka *k = chunk->kafka;
    if (!chunk->frame || chunk->capacity < SPARE_STEP || chunk->capacity > CNK_KAFKA_SPARE_BYTES_MAX / 4 ||
        k->conn_count == 0)
        return false;
    chunk->budget = NULL;
    chunk->reserved = 0;
    while (k->spare_count == CNK_KAFKA_SPARES_MAX || k->spare_bytes + chunk->capacity > CNK_KAFKA_SPARE_BYTES_MAX)
        cnk_free(spare_at(k, 0));
    k->spares[k->spare_count++] = chunk;
    k->spare_bytes += chunk->capacity;
    return true;
}

void cnk_kafka_spares_free(cnk_kafka *k) {
    while (k->spare_count > 0) cnk_free(spare_at(k, 0));
}

void cnk_kafka_chunk_unref(cnk_kafka_chunk *chunk) {
    if (!chunk) return;
    CNK_ASSERT(chunk->refs > 0);
    if (--chunk->refs > 0) return;
    if (chunk->shared) chunk->kafka->chunk_count--;
    if (chunk->backlog) chunk->kafka->backlog_bytes -= chunk->capacity;
    cnk_kafka_budget *budget = chunk->budget;
    const uint64_t reserved = chunk->reserved;
    if (!spare_keep(chunk)) cnk_free(chunk);
    if (budget) cnk_kafka_budget_give(budget, reserved);
}

/* The chunk to receive into: the same as long as nobody has pinned it. NULL: no memory, or too many are pinned. */
static cnk_kafka_chunk *shared_chunk(cnk_kafka *k) {
    if (k->chunk && k->chunk->refs > 1) {
        cnk_kafka_chunk_unref(k->chunk);
        k->chunk = NULL;
    }
    if (!k->chunk && k->chunk_count < CNK_KAFKA_CHUNKS_MAX) {
        k->chunk = chunk_new(k, k->options.chunk_bytes);
        if (k->chunk) {
            k->chunk->shared = true;
            k->chunk_count++;
        }
    }
    return k->chunk;
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static uint64_t body_due(const cnk_kafka *k, const cnk_kafka_conn *c) {
    return c->progress_ns + (uint64_t)k->options.body_timeout_ms * 1000000u;
}

/* One timer: the first body's time without progress, and the next look at those who keep others waiting. */
static void timer_arm(cnk_kafka *k) {
    uint64_t at = k->crowd_at_ns;
    if (!cnk_list_empty(&k->bodies)) {
        const uint64_t due = body_due(k, CNK_CONTAINER(k->bodies.next, cnk_kafka_conn, body_node));
        if (due < at) at = due;
    }
    k->loop->ops->timer_set(k->loop->self, k->timer, at);
}

static void body_progress(cnk_kafka_conn *c) {
    cnk_kafka *k = c->kafka;
    const bool first = cnk_list_empty(&k->bodies);
    cnk_list_remove(&c->body_node);
    c->progress_ns = k->loop->ops->now_ns(k->loop->self);
    cnk_list_push_back(&k->bodies, &c->body_node);
    if (first) timer_arm(k);
}

static void body_over(cnk_kafka_conn *c) {
    cnk_kafka *k = c->kafka;
    if (!cnk_list_linked(&c->body_node)) return;
    cnk_list_remove(&c->body_node);
    if (cnk_list_empty(&k->bodies)) timer_arm(k);
}

static void give_up(cnk_kafka_conn *c) {
    cnk_kafka_conn_fail(c, CNK_KAFKA_SLOW);
    cnk_kafka_receive_drop(c);
    cnk_kafka_conn_wake(c);
}

void cnk_kafka_receive_timeout(void *kafka) {
    cnk_kafka *k = kafka;
    const uint64_t now = k->loop->ops->now_ns(k->loop->self);
    while (!cnk_list_empty(&k->bodies)) {
        cnk_kafka_conn *c = CNK_CONTAINER(k->bodies.next, cnk_kafka_conn, body_node);
        if (body_due(k, c) > now) break;
        cnk_list_remove(&c->body_node);
        give_up(c);
    }
    if (k->crowd_at_ns <= now) cnk_kafka_crowd_look(k, now);
    timer_arm(k);
}

/* ---- those who keep others waiting ------------------------------------------------------------------------------- */

static void crowd_begin(cnk_kafka *k) {
    if (k->crowd_at_ns != UINT64_MAX) return;
    k->crowd_at_ns = k->loop->ops->now_ns(k->loop->self) + CNK_KAFKA_CROWD_LOOK_MS * UINT64_C(1000000);
    timer_arm(k);
}

void cnk_kafka_crowded(cnk_kafka *kafka) {
    cnk_kafka *k = kafka;
    k->reads_wait = true;
    crowd_begin(k);
}

/* Memory is reserved for whole frames and answers, so a few peers that hardly move could keep all of it, for ever. While
 * others wait for it, a peer must move at the pace that takes its frame in, or its answer out, within body_timeout_ms,
 * measured after CNK_KAFKA_CROWD_LOOK_MS. Where nobody waits, it may be as slow as it likes. */
static bool too_slow(const cnk_kafka *k, uint64_t elapsed_ns, uint64_t moved, uint64_t whole) {
    const uint64_t elapsed_ms = elapsed_ns / 1000000u;
    return elapsed_ms >= CNK_KAFKA_CROWD_LOOK_MS && elapsed_ms * whole > moved * k->options.body_timeout_ms;
}

/* A frame that is whole and cannot begin, because its peer does not read its answers, holds memory as well; not so one
 * that waits for the WAL. */
static bool holds_up_frames(const cnk_kafka_conn *c, uint64_t now) {
    const cnk_kafka_chunk *f = c->frame;
    return f && f->budget && c->pinned_bytes < CNK_KAFKA_PINNED_BYTES_MAX && !cnk_list_empty(&f->budget->waiters) &&
           too_slow(c->kafka, now - c->frame_ns, c->frame_filled, c->frame_len);
}

/* The pace of the answer at the front, from the first look that finds it there. */
static bool holds_up_reads(cnk_kafka_conn *c, uint64_t now) {
    if (c->unsent < CNK_KAFKA_CROWD_ANSWER_BYTES) return false;
    if (c->look_ns == 0 || c->look_answers != c->answers_sent) {
        c->look_ns = now;
        c->look_answers = c->answers_sent;
        c->look_sent = c->bytes_sent;
        return false;
    }
    const uint64_t moved = c->bytes_sent - c->look_sent;
    return too_slow(c->kafka, now - c->look_ns, moved, moved + c->unsent);
}

void cnk_kafka_crowd_look(cnk_kafka *k, uint64_t now) {
    const bool reads = k->reads_wait || cnk_shard_reads_wait(k->shard);
    k->reads_wait = false;
    k->crowd_at_ns = UINT64_MAX;
    CNK_LIST_EACH(it, &k->conns) {
        cnk_kafka_conn *c = CNK_CONTAINER(it, cnk_kafka_conn, node);
        if (c->closed || c->must_close) continue;
        if (holds_up_frames(c, now)) give_up(c);
        if (!reads || !holds_up_reads(c, now)) continue;
        c->abandoned = true;
        give_up(c);
    }
    if (reads || !cnk_list_empty(&k->produce.waiters) || !cnk_list_empty(&k->control.waiters)) crowd_begin(k);
}

/* ---- a frame of its own ----------------------------------------------------------------------------------------- */

static bool frame_is_whole(const cnk_kafka_conn *c) { return c->frame && c->frame_filled == c->frame_len; }

/* The prefix has its eight bytes and the memory is reserved: makes the frame. */
static void frame_make(cnk_kafka_conn *c, cnk_kafka_budget *budget, uint64_t reserved) {
    c->frame = frame_chunk(c->kafka, c->frame_len);
    if (!c->frame) {
        if (budget) cnk_kafka_budget_give(budget, reserved);
        cnk_kafka_conn_fail(c, CNK_KAFKA_MEMORY);
        return;
    }
    c->frame->budget = budget;
    c->frame->reserved = reserved;
    memcpy(c->frame->data, c->prefix + 4, FRAME_HEAD - 4);
    c->frame_filled = FRAME_HEAD - 4;
    c->prefix_len = 0;
    body_progress(c);
    c->frame_ns = c->progress_ns;
}

static void frame_granted(cnk_kafka_waiter *w) {
    cnk_kafka_conn *c = CNK_CONTAINER(w, cnk_kafka_conn, waiter);
    c->frame_waiting = false;
    frame_make(c, c->waiting_for, w->want);
    cnk_kafka_receive_pump(c);
    cnk_kafka_conn_wake(c);
}

/* Small frames are free; a Produce frame reserves its size; any other also what it may decode to. */
static void frame_begin(cnk_kafka_conn *c) {
    cnk_kafka *k = c->kafka;
    c->frame_len = cnk_load_be32(c->prefix);
    const int16_t key = (int16_t)cnk_load_be16(c->prefix + 4);
    c->bulk = c->frame_len > k->options.chunk_bytes / 2;
    if (c->frame_len <= CNK_KAFKA_SMALL_FRAME_BYTES) {
        frame_make(c, NULL, 0);
        return;
    }
    const bool produce = key == CNK_KAFKA_API_PRODUCE;
    c->waiting_for = produce ? &k->produce : &k->control;
    uint64_t want = produce ? c->frame_len : (uint64_t)c->frame_len * (1 + CNK_KAFKA_ARENA_FACTOR);
    if (want > c->waiting_for->limit) want = c->waiting_for->limit;
    c->waiter.want = want;
    c->waiter.granted = frame_granted;
    if (cnk_kafka_budget_take(c->waiting_for, &c->waiter)) {
        frame_make(c, c->waiting_for, want);
        return;
    }
    c->frame_waiting = true;
    crowd_begin(k);
}

/* A whole frame of its own begins as soon as it may; false: not yet. */
static bool frame_dispatch(cnk_kafka_conn *c) {
    cnk_kafka_chunk *frame = c->frame;
    if (!cnk_kafka_can_begin(c, (int16_t)cnk_load_be16(frame->data))) return false;
    c->frame = NULL;
    cnk_kafka_dispatch(c, frame, frame->data, c->frame_len);
    cnk_kafka_chunk_unref(frame);
    return true;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

static bool size_is_legal(const cnk_kafka_conn *c, const uint8_t *size) {
    const uint32_t len = cnk_load_be32(size);
    return len >= FRAME_MIN && len <= c->kafka->options.frame_bytes_max;
}

static size_t take(void *to, size_t room, const uint8_t *data, size_t len) {
    const size_t n = len < room ? len : room;
    memcpy(to, data, n);
    return n;
}

/* One step; the bytes it consumed, 0: nothing can go on. */
static size_t process_some(cnk_kafka_conn *c, cnk_kafka_chunk *home, const uint8_t *data, size_t len) {
    size_t n = 0;
    if (c->frame) {
        n = take(c->frame->data + c->frame_filled, c->frame_len - c->frame_filled, data, len);
        c->frame_filled += n;
        if (frame_is_whole(c)) body_over(c);
        else body_progress(c);
        return n;
    }
    if (c->frame_waiting) return 0;
    if (c->prefix_len == 0 && len >= 4 && !size_is_legal(c, data)) {
        cnk_kafka_conn_fail(c, CNK_KAFKA_PROTOCOL);
        return 0;
    }
    if (c->prefix_len == 0 && len >= 4 && len - 4 >= cnk_load_be32(data)) {
        const uint32_t frame_len = cnk_load_be32(data);
        if (!cnk_kafka_can_begin(c, (int16_t)cnk_load_be16(data + 4))) return 0;
        c->bulk = false;
        cnk_kafka_dispatch(c, home, data + 4, frame_len);
        return 4 + (size_t)frame_len;
    }
    n = take(c->prefix + c->prefix_len, FRAME_HEAD - c->prefix_len, data, len);
    c->prefix_len += (uint32_t)n;
    if (c->prefix_len >= 4 && !size_is_legal(c, c->prefix)) cnk_kafka_conn_fail(c, CNK_KAFKA_PROTOCOL);
    else if (c->prefix_len == FRAME_HEAD) frame_begin(c);
    return n;
}

static size_t process(cnk_kafka_conn *c, cnk_kafka_chunk *home, const uint8_t *data, size_t len) {
    size_t done = 0;
    while (!c->must_close && done < len) {
        if (frame_is_whole(c)) {
            if (!frame_dispatch(c)) break;
            continue;
        }
        const size_t n = process_some(c, home, data + done, len - done);
        if (n == 0) break;
        done += n;
    }
    if (!c->must_close && frame_is_whole(c)) (void)frame_dispatch(c);
    return done;
}

static void backlog_free(cnk_kafka_conn *c) {
    cnk_kafka_chunk_unref(c->backlog);
    c->backlog = NULL;
    c->backlog_start = c->backlog_len = 0;
}

/* The frame comes before the backlog. */
static void pump_once(cnk_kafka_conn *c) {
    if (!c->must_close && frame_is_whole(c)) (void)frame_dispatch(c);
    if (c->must_close || c->backlog_len == 0) return;
    cnk_kafka_chunk *home = c->backlog;
    home->refs++;
    const size_t n = process(c, home, home->data + c->backlog_start, c->backlog_len);
    c->backlog_start += n;
    c->backlog_len -= n;
    if (c->backlog_len == 0) backlog_free(c);
    cnk_kafka_chunk_unref(home);
}

void cnk_kafka_receive_pump(cnk_kafka_conn *c) {
    if (c->closed) return;
    c->pump_again = true;
    if (c->pumping) return;
    c->pumping = true;
    while (c->pump_again) {
        c->pump_again = false;
        pump_once(c);
    }
    c->pumping = false;
    if (c->must_close) cnk_kafka_receive_drop(c);
}

void cnk_kafka_receive_drop(cnk_kafka_conn *c) {
    if (c->frame_waiting) cnk_kafka_budget_cancel(c->waiting_for, &c->waiter);
    c->frame_waiting = false;
    body_over(c);
    cnk_kafka_chunk *frame = c->frame;
    c->frame = NULL;
    c->prefix_len = 0;
    backlog_free(c);
    cnk_kafka_chunk_unref(frame);
}

/* ---- the owner's calls ------------------------------------------------------------------------------------------ */

/* NULL: no memory, or the large backlogs have all that they may have together. */
static cnk_kafka_chunk *backlog_chunk(cnk_kafka *k, size_t capacity) {
    const bool large = capacity > CNK_KAFKA_BACKLOG_MAX + BACKLOG_STEP;
    if (large && k->backlog_bytes + capacity > CNK_KAFKA_BACKLOGS_BYTES_MAX) return NULL;
    cnk_kafka_chunk *chunk = chunk_new(k, capacity);
    if (!chunk || !large) return chunk;
    chunk->backlog = true;
    k->backlog_bytes += capacity;
    return chunk;
}

/* Room for `want` more bytes behind the backlog. What a request has pinned stays where it is. */
static bool backlog_reserve(cnk_kafka_conn *c, size_t want) {
    if (c->backlog && c->backlog->capacity - c->backlog_start - c->backlog_len >= want) return true;
    cnk_kafka_chunk *grown = backlog_chunk(c->kafka, c->backlog_len + want);
    if (!grown) return false;
    if (c->backlog_len) memcpy(grown->data, c->backlog->data + c->backlog_start, c->backlog_len);
    cnk_kafka_chunk_unref(c->backlog);
    c->backlog = grown;
    c->backlog_start = 0;
    return true;
}

static bool backlog_space(cnk_kafka_conn *c, void **ret_space, size_t *ret_len) {
    if (c->backlog_len >= CNK_KAFKA_BACKLOG_MAX || !backlog_reserve(c, BACKLOG_STEP)) return false;
    const size_t end = c->backlog_start + c->backlog_len;
    c->to = RECEIVE_BACKLOG;
    *ret_space = c->backlog->data + end;
    *ret_len = c->backlog->capacity - end;
    return true;
}

bool cnk_kafka_conn_recv_space(cnk_kafka_conn *conn, void **ret_space, size_t *ret_len) {
    cnk_kafka_conn *c = conn;
    c->to = RECEIVE_NOWHERE;
    if (c->must_close) return false;
    if (c->frame && !frame_is_whole(c) && c->backlog_len == 0) {
        c->to = RECEIVE_FRAME;
        *ret_space = c->frame->data + c->frame_filled;
        *ret_len = c->frame_len - c->frame_filled;
        return true;
    }
    if (c->frame || c->frame_waiting || c->backlog_len > 0) return backlog_space(c, ret_space, ret_len);
    cnk_kafka_chunk *chunk = shared_chunk(c->kafka);
    if (!chunk) return backlog_space(c, ret_space, ret_len);
    c->to = RECEIVE_CHUNK;
    *ret_space = chunk->data;
    *ret_len = (c->bulk || c->many) && chunk->capacity > CNK_KAFKA_BULK_READ_BYTES ? CNK_KAFKA_BULK_READ_BYTES : chunk->capacity;
    return true;
}

/* What could not begin goes to the backlog: it is at most a chunk. */
static void receive_chunk(cnk_kafka_conn *c, size_t len) {
    cnk_kafka_chunk *chunk = c->kafka->chunk;
    chunk->refs++; /* a request that begins may make the shard drop its own reference */
    c->pumping = true;
    const size_t done = process(c, chunk, chunk->data, len);
    c->pumping = false;
    if (done < len && !c->must_close) {
        if (backlog_reserve(c, len - done)) {
            memcpy(c->backlog->data, chunk->data + done, len - done);
            c->backlog_len = len - done;
        } else {
            cnk_kafka_conn_fail(c, CNK_KAFKA_MEMORY);
        }
    }
    cnk_kafka_chunk_unref(chunk);
    if (c->pump_again) cnk_kafka_receive_pump(c);
}

void cnk_kafka_conn_recv_added(cnk_kafka_conn *conn, size_t len) {
    cnk_kafka_conn *c = conn;
    const receive_to to = c->to;
    CNK_ASSERT(to != RECEIVE_NOWHERE || len == 0);
    c->to = RECEIVE_NOWHERE;
    if (len == 0 || c->must_close) return;
    c->calls++;
    if (to == RECEIVE_CHUNK) {
        receive_chunk(c, len);
    } else if (to == RECEIVE_FRAME) {
        CNK_ASSERT(c->frame && len <= c->frame_len - c->frame_filled);
        c->frame_filled += len;
        if (frame_is_whole(c)) body_over(c);
        else body_progress(c);
        cnk_kafka_receive_pump(c);
    } else {
        CNK_ASSERT(c->backlog && len <= c->backlog->capacity - c->backlog_start - c->backlog_len);
        c->backlog_len += len;
        cnk_kafka_receive_pump(c);
    }
    if (c->must_close) cnk_kafka_receive_drop(c);
    c->calls--;
}

size_t cnk_kafka_conn_recv(cnk_kafka_conn *conn, const void *data, size_t len) {
    size_t done = 0, room;
    void *space;
    while (done < len && cnk_kafka_conn_recv_space(conn, &space, &room)) {
        const size_t n = take(space, room, (const uint8_t *)data + done, len - done);
        cnk_kafka_conn_recv_added(conn, n);
        done += n;
    }
    return done;
}
