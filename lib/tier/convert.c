/* Sealed WAL files become packs.
 *
 * The states, all on the home port's thread; one file at a time, the oldest first:
 *
 *   IDLE ─► WALKING ─► WRITING ─► RELEASING ─► REWRITING ─► IDLE
 *     │       │  └ nothing to write ──────────────►│
 *     │       ▲                       │ rows were left over: walk again
 *     │       └───────────────────────┘
 *     └► COLLECTING ─► IDLE          any failure ─► PAUSED ─ timer ─► IDLE (the file is walked afresh)
 *
 * WALKING: each port lists its streams' committed entries in the file. WRITING: a job writes the pack, until it is
 * durable under its name. RELEASING: each port's streams let go of what the pack holds. REWRITING: each port writes
 * what is not committed yet into the open file. Then nothing in the file is live, and the WAL frees it. What has to stay for
 * now keeps its file, which is looked at again a second later. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define RETRY_DOUBLINGS_MAX 6u
#define LATER_MS 1000u

_Static_assert((int)CNK_PACK_KIND_DATA == (int)CNK_ENTRY_DATA, "packs and the WAL mean the same by DATA");

static void ask_all(cnk_tier *t, tier_phase phase, tier_asked what);
static void file_done(cnk_tier *t);

/* ---- home ---- */

static void begin_file(cnk_tier *t) {
    if (t->options.budget_bytes > 0 && t->stats.pack_bytes >= t->options.budget_bytes) {
        chronik_error why = CHRONIK_ERROR_INIT;
        cnk_error(&why, CHRONIK_ENOSPC, 0, "%s: packs take %llu bytes, which is all they may", t->dir,
                  (unsigned long long)t->stats.pack_bytes);
        cnk_tier_pause(t, &why);
        return;
    }
    cnk_tier_lock(t);
    t->converting = true;
    t->left_over = false;
    cnk_tier_unlock(t);
    ask_all(t, TIER_WALKING, ASK_WALK);
}

/* However much else there is to do: files that were looked at a second ago are looked at again. */
static void later_due(cnk_tier *t) {
    const chronik_loop *loop = t->ports[0]->loop;
    if (t->later_count == 0) return;
    uint64_t now = loop->ops->now_ns(loop->self);
    if (now < t->later_at_ns)
        cnk_tier_wake(t, (t->later_at_ns - now) / UINT64_C(1000000) + 1);
    else
        while (t->later_count > 0) cnk_tier_enqueue(t, t->later[--t->later_count]);
}

static void waiting_told(cnk_tier *t) {
    atomic_store_explicit(&t->hurry, t->sealed_count > 1, memory_order_relaxed);
    cnk_tier_lock(t);
    t->stats.files_waiting = t->sealed_count;
    t->stats.files_kept = t->later_count;
    cnk_tier_unlock(t);
}

static void rest(cnk_tier *t) {
    cnk_pack_pool_free(&t->pool);
    if (t->worked && t->events.rested) t->events.rested(t->events_arg);
    t->worked = false;
}

void cnk_tier_move(cnk_tier *t) {
    bool stopping = atomic_load_explicit(&t->stopping, memory_order_relaxed);
    if (stopping && (t->phase == TIER_IDLE || t->phase == TIER_PAUSED)) {
        if (t->drained && !t->drained_posted) t->ports[0]->loop->ops->post(t->ports[0]->loop->self, &t->drained_post);
        t->drained_posted = true;
        return;
    }
    if (stopping || !t->started || t->phase != TIER_IDLE) return;
    /* Where packs could not be written, room may be made by thinning out the old ones. */
    if (t->retries > 0 && cnk_tier_collect(t)) return;
    later_due(t);
    if (t->sealed_count > 0)
        begin_file(t);
    else if (!cnk_tier_collect(t))
        rest(t);
}

/* The oldest file first; the one under way stays in front. */
void cnk_tier_enqueue(cnk_tier *t, uint32_t file_seq) {
    for (size_t i = 0; i < t->sealed_count; i++)
        if (t->sealed[i] == file_seq) return;
    /* Without memory for four bytes the file waits in the WAL until the next start. */
    if (cnk_array_reserve((void **)&t->sealed, &t->sealed_capacity, t->sealed_count + 1, sizeof *t->sealed)) return;
    bool busy = t->phase != TIER_IDLE && t->phase != TIER_PAUSED && t->phase != TIER_COLLECTING;
    size_t at = t->sealed_count++;
    for (; at > busy && t->sealed[at - 1] > file_seq; at--) t->sealed[at] = t->sealed[at - 1];
    t->sealed[at] = file_seq;
    waiting_told(t);
}

void cnk_tier_wake(cnk_tier *t, uint64_t delay_ms) {
    const chronik_loop *loop = t->ports[0]->loop;
    uint64_t at = loop->ops->now_ns(loop->self) + delay_ms * UINT64_C(1000000);
    if (t->wake_at_ns && t->wake_at_ns <= at) return;
    t->wake_at_ns = at;
    loop->ops->timer_set(loop->self, t->timer, at);
}

void cnk_tier_timer(void *arg) {
    cnk_tier *t = arg;
    t->wake_at_ns = 0;
    if (t->phase == TIER_PAUSED) t->phase = TIER_IDLE;
    cnk_tier_move(t);
}

void cnk_tier_pause(cnk_tier *t, const chronik_error *why) {
    for (size_t i = 0; i < t->port_count; i++) cnk_pack_list_free(&t->ports[i]->list);
    cnk_tier_streams_forget_dropped(t);
    if (why->code == CHRONIK_ESHUTDOWN) {
        t->phase = TIER_IDLE;
        cnk_tier_move(t);
        return;
    }
    t->phase = TIER_PAUSED;
    rest(t); /* it may last */
    cnk_tier_lock(t);
    t->stats.paused = true;
    cnk_tier_unlock(t);
    if (!t->paused_told && t->events.paused) t->events.paused(t->events_arg, why);
    t->paused_told = true;
    cnk_tier_wake(t, (uint64_t)t->options.retry_ms << t->retries);
    if (t->retries < RETRY_DOUBLINGS_MAX) t->retries++;
    cnk_tier_move(t); /* where it is to stop */
}

static void went_well(cnk_tier *t) {
    t->retries = 0;
    if (!t->paused_told) return;
    t->paused_told = false;
    cnk_tier_lock(t);
    t->stats.paused = false;
    cnk_tier_unlock(t);
    if (t->events.resumed) t->events.resumed(t->events_arg);
}

/* ---- asking ports ---- */

static void ask(cnk_tier *t, cnk_tier_port *p, tier_asked what) {
    p->asked = what;
    p->file_seq = t->sealed[0];
    p->rows_max = CNK_TIER_WALK_ROWS_MAX / (uint32_t)t->port_count;
    t->asked_count++;
    p->loop->ops->post(p->loop->self, &p->ask);
}

static void ask_all(cnk_tier *t, tier_phase phase, tier_asked what) {
    t->phase = phase;
    for (size_t i = 0; i < t->port_count; i++) ask(t, t->ports[i], what);
}

static void write_pack(cnk_tier *t);
static void rewrite_next(cnk_tier *t);

/* The first port's error, if any. */
static const chronik_error *ports_error(const cnk_tier *t) {
    for (size_t i = 0; i < t->port_count; i++)
        if (t->ports[i]->result) return &t->ports[i]->error;
    return NULL;
}

static void walked(cnk_tier *t) {
    uint64_t entries = 0;
    t->more = false;
    for (size_t i = 0; i < t->port_count; i++) {
        entries += t->ports[i]->list.entry_count;
        t->more |= t->ports[i]->more;
    }
    if (entries > 0)
        write_pack(t);
    else
        rewrite_next(t);
}

void cnk_tier_port_reply(chronik_post *reply) {
    cnk_tier *t = CNK_CONTAINER(reply, cnk_tier_port, reply)->tier;
    if (--t->asked_count > 0) return;
    const chronik_error *why = ports_error(t);
    chronik_error stop = {.code = CHRONIK_ESHUTDOWN};
    if (atomic_load_explicit(&t->stopping, memory_order_relaxed) && t->phase != TIER_RELEASING) why = &stop;
    if (why) {
        chronik_error copy = *why;
        for (size_t i = 0; i < t->port_count; i++) t->ports[i]->result = 0;
        cnk_tier_pause(t, &copy);
    } else if (t->phase == TIER_WALKING) {
        walked(t);
    } else if (t->phase == TIER_RELEASING && t->more) {
        ask_all(t, TIER_WALKING, ASK_WALK);
    } else if (t->phase == TIER_RELEASING) {
        t->rewriting = 0;
        rewrite_next(t);
    } else {
        rewrite_next(t);
    }
}

/* One port after the other; then the file is done with. */
static void rewrite_next(cnk_tier *t) {
    if (t->phase != TIER_REWRITING) t->rewriting = 0;
    t->phase = TIER_REWRITING;
    if (t->rewriting > 0) t->left_over |= t->ports[t->rewriting - 1]->left_over;
    if (t->rewriting < t->port_count)
        ask(t, t->ports[t->rewriting++], ASK_REWRITE);
    else
        file_done(t);
}

static void file_done(cnk_tier *t) {
    const chronik_loop *loop = t->ports[0]->loop;
    if (t->left_over &&
        cnk_array_reserve((void **)&t->later, &t->later_capacity, t->later_count + 1, sizeof *t->later) == 0) {
        if (t->later_count == 0) t->later_at_ns = loop->ops->now_ns(loop->self) + LATER_MS * UINT64_C(1000000);
        t->later[t->later_count++] = t->sealed[0];
    }
    t->left_over = false;
    memmove(t->sealed, t->sealed + 1, --t->sealed_count * sizeof *t->sealed);
    waiting_told(t);
    cnk_tier_lock(t);
    t->stats.files_converted++;
    cnk_tier_unlock(t);
    cnk_tier_streams_forget_dropped(t);
    t->phase = TIER_IDLE;
    went_well(t);
    cnk_tier_move(t);
}

/* ---- the pack ---- */

/* Gives the ports' further files their numbers in the job. */
static int sources_join(cnk_tier *t, tier_job *j) {
    size_t count = 1;
    for (size_t i = 0; i < t->port_count; i++) count += t->ports[i]->source_count;
    j->sources = cnk_calloc(count, sizeof *j->sources);
    j->files = cnk_calloc(count, sizeof *j->files);
    if (!j->sources || !j->files) return CHRONIK_ENOMEM;
    j->sources[j->source_count++] = t->sealed[0];
    for (size_t i = 0; i < t->port_count; i++) {
        cnk_tier_port *p = t->ports[i];
        uint64_t base = (uint64_t)(j->source_count - 1) << TIER_SOURCE_SHIFT;
        for (size_t c = 0; base > 0 && c < p->list.copy_count; c++)
            if (p->list.copies[c].src >> TIER_SOURCE_SHIFT) p->list.copies[c].src += base;
        for (uint32_t s = 0; s < p->source_count; s++) j->sources[j->source_count++] = p->sources[s];
    }
    return 0;
}

static void write_pack(cnk_tier *t) {
    tier_job *j = &t->job;
    t->phase = TIER_WRITING;
    j->what = JOB_CONVERT;
    j->seq = t->next_seq;
    if (sources_join(t, j)) {
        chronik_error why = CHRONIK_ERROR_INIT;
        cnk_error(&why, CHRONIK_ENOMEM, 0, "no memory to write a pack");
        cnk_tier_job_clear(j);
        cnk_tier_pause(t, &why);
        return;
    }
    for (size_t i = 0; i < t->port_count; i++)
        if (t->ports[i]->list.entry_count > 0) j->lists[j->list_count++] = &t->ports[i]->list;
    cnk_tier_job_submit(t);
}

/* An entry of a sealed file fails its CRC: its stream stays in the WAL, the others go on without it. */
static void stream_stuck(cnk_tier *t, uint64_t stream, const chronik_error *why) {
    cnk_tier_lock(t);
    tier_stream *s = cnk_tier_stream_locked(t, stream, true);
    if (s) s->stuck = true;
    cnk_tier_unlock(t);
    if (t->events.damaged) t->events.damaged(t->events_arg, stream, why);
}

static void converted(cnk_tier *t) {
    tier_job *j = &t->job;
    chronik_error why = j->error;
    uint64_t bad_stream = j->bad_stream;
    int rc = j->code;
    cnk_pack *made = j->made;
    j->made = NULL;
    cnk_tier_job_clear(j);
    if (rc == 0) {
        rc = cnk_tier_pack_add(t, made);
        if (rc) cnk_error(&why, rc, 0, "%s: no memory to use it", made->path);
    }
    if (rc) {
        cnk_pack_unref(made);
        if (bad_stream) stream_stuck(t, bad_stream, &why);
        cnk_tier_pause(t, &why);
        return;
    }
    cnk_tier_lock(t);
    t->stats.packs_written++;
    t->stats.bytes_converted += made->file_bytes;
    cnk_tier_unlock(t);
    ask_all(t, TIER_RELEASING, ASK_RELEASE);
}

void cnk_tier_job_done(chronik_job *job) {
    cnk_tier *t = CNK_CONTAINER(job, tier_job, job)->tier;
    if (t->job.step >= STEP_NAME) t->next_seq++; /* the name is used up, even where it came to nothing */
    if (t->phase == TIER_COLLECTING)
        cnk_tier_collect_done(t);
    else
        converted(t);
}

/* ---- on a port ---- */

static cnk_pack_row row_of(const cnk_wal_entry *e, uint32_t crc) {
    cnk_pack_row r = {.index = e->index,
                      .term = e->term,
                      .kind = e->kind,
                      .count = e->count,
                      .base_offset = e->base_offset,
                      .max_timestamp = e->max_timestamp,
                      .len = e->len,
                      .crc = e->len > 0 ? crc : 0};
    memcpy(r.aux, e->aux, sizeof r.aux);
    return r;
}

/* The number of a further file, EAGAIN where there are too many. */
static int source_of(cnk_tier_port *p, uint32_t file_seq) {
    uint32_t i = 0;
    if (file_seq == p->file_seq) return 0;
    while (i < p->source_count && p->sources[i] != file_seq) i++;
    if (i == CNK_TIER_SOURCES_MAX) return CHRONIK_EAGAIN;
    if (i == p->source_count) p->sources[p->source_count++] = file_seq;
    return (int)i + 1;
}

static int add_entry(cnk_tier_port *p, const cnk_wal_place *place) {
    int source = place->entry.len > 0 ? source_of(p, place->file_seq) : 0;
    if (source < 0) return source;
    cnk_pack_row row = row_of(&place->entry, place->crc);
    int rc = cnk_pack_list_row(&p->list, &row, (uint64_t)source << TIER_SOURCE_SHIFT | place->file_pos);
    p->walk.listed |= rc == 0;
    if (rc == 0) return 0;
    return cnk_error(&p->error, rc, 0, "cannot list the entries of WAL file %u for a pack%s", p->file_seq,
                     rc == CHRONIK_EINVAL ? ": they are not in order" : "");
}

/* Entries that an earlier file had to leave (they were not committed then) and that have moved to another file since:
 * they come first, so that what is released is always without a gap. EAGAIN: the stream has to wait. */
static int add_earlier(cnk_tier_port *p, const cnk_wal_stream *stream, uint64_t before) {
    tier_walk *w = &p->walk;
    const cnk_wal_state *state = cnk_wal_stream_state(stream);
    uint64_t durable = state->durable_index;
    for (; w->expected < before; w->expected++) {
        cnk_wal_place place;
        if (cnk_wal_find_index(stream, w->expected, &place)) { /* a repair has left a gap; or a trim, since the last slice */
            if (w->listed && w->expected < state->first_index) return CHRONIK_EAGAIN;
            continue;
        }
        if (w->expected > durable || p->list.entry_count >= p->rows_max) return CHRONIK_EAGAIN;
        int rc = add_entry(p, &place);
        if (rc) return rc;
    }
    return 0;
}

static int walk_stream_begin(cnk_tier_port *p, cnk_wal_stream *stream) {
    tier_walk *w = &p->walk;
    const cnk_wal_state *state = cnk_wal_stream_state(stream);
    w->stream = state->id;
    w->expected = state->released_index + 1;
    w->listed = false;
    cnk_tier_lock(p->tier);
    const tier_stream *s = cnk_tier_stream_locked(p->tier, state->id, false);
    w->stuck = s && s->stuck;
    cnk_tier_unlock(p->tier);
    int rc = cnk_map_put(&p->streams, state->id, stream);
    if (rc == 0) rc = cnk_pack_list_section(&p->list, state->id);
    return rc ? cnk_error(&p->error, rc, 0, "no memory to list entries for a pack") : 0;
}

static void walk_begin(cnk_tier_port *p) {
    p->walk = (tier_walk){0};
    cnk_pack_list_free(&p->list);
    p->source_count = 0;
    p->more = false;
}

static int walk_end(cnk_tier_port *p, int rc) {
    cnk_wal_walk_end(p->wal_port);
    if (rc == 0 && (rc = cnk_pack_list_end(&p->list)) != 0)
        cnk_error(&p->error, rc, 0, "no memory to list entries for a pack");
    if (rc == 0 && p->more && p->list.entry_count == 0)
        rc = cnk_error(&p->error, CHRONIK_EAGAIN, 0, "WAL file %u waits for entries that are not durable yet",
                       p->file_seq);
    return rc;
}

/* A slice of the walk, so that the loop turns in between; true: there is more. */
static bool walk_on(cnk_tier_port *p) {
    tier_walk *w = &p->walk;
    cnk_wal_stream *stream;
    cnk_wal_place place;
    int rc = 0;
    uint32_t left = CNK_TIER_WALK_SLICE;
    for (; rc == 0 && left > 0 && cnk_wal_walk_file(p->wal_port, p->file_seq, &w->it, &stream, &place); left--) {
        if (cnk_wal_stream_state(stream)->id != w->stream) rc = walk_stream_begin(p, stream);
        if (rc || w->stuck || place.entry.index < w->expected) continue;
        if (p->list.entry_count >= p->rows_max) {
            p->more = true;
            break;
        }
        rc = add_earlier(p, stream, place.entry.index);
        if (rc == 0) rc = add_entry(p, &place);
        if (rc == 0) w->expected = place.entry.index + 1;
        if (rc == CHRONIK_EAGAIN) { /* what could be listed goes first */
            p->more = w->stuck = true;
            rc = 0;
        }
    }
    if (rc == 0 && left == 0) return true;
    p->result = walk_end(p, rc);
    return false;
}

static void release(cnk_tier_port *p) {
    for (size_t i = 0; i < p->list.section_count; i++) {
        const cnk_pack_section *s = &p->list.sections[i];
        cnk_wal_stream *stream = cnk_map_get(&p->streams, s->stream); /* not where it was dropped meanwhile */
        if (!stream) continue;
        const cnk_wal_state *state = cnk_wal_stream_state(stream);
        if (s->last_index > state->released_index) cnk_wal_stream_release(stream, s->last_index);
        if (s->last_index < state->first_index) cnk_tier_stream_trimmed(p, stream); /* since it was listed */
    }
    cnk_pack_list_free(&p->list);
}

static void reply(cnk_tier_port *p) {
    const chronik_loop *home = p->tier->ports[0]->loop;
    home->ops->post(home->self, &p->reply);
}

static void rewritten(void *arg, int code) {
    cnk_tier_port *p = arg;
    p->left_over = code == CHRONIK_EAGAIN;
    p->result = p->left_over ? 0 : code;
    if (p->result)
        cnk_error(&p->error, p->result, 0, "cannot rewrite what is uncommitted in WAL file %u: %s", p->file_seq,
                  chronik_strerror(p->result));
    reply(p);
}

void cnk_tier_port_run(chronik_post *post) {
    cnk_tier_port *p = CNK_CONTAINER(post, cnk_tier_port, ask);
    p->result = 0;
    p->error = (chronik_error)CHRONIK_ERROR_INIT;
    switch (p->asked) {
    case ASK_WALK: walk_begin(p); /* fall through */
    case ASK_WALK_ON:
        if (!walk_on(p)) break;
        p->asked = ASK_WALK_ON;
        p->loop->ops->post(p->loop->self, &p->ask);
        return;
    case ASK_RELEASE: release(p); break;
    case ASK_REWRITE:
        cnk_wal_rewrite(p->wal_port, p->file_seq, rewritten, p);
        return;
    }
    reply(p);
}
