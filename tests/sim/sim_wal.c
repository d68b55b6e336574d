/* Proves the WAL by simulation: random work on many streams, crashes at random I/O calls, power cuts and kills in
 * sequence, failed calls, full disks, flipped bits; after each restart, what recovery gives back is held against a
 * model.
 *
 *     sim_wal [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage]
 *
 * The model keeps, for each stream, the list of operations in the order of their calls (INIT, entries, truncations, …),
 * and how many of them were reported durable. After a crash the stream must be exactly what the first k operations make
 * it, for some k that is not below the number reported: nothing acknowledged is lost, nothing is there in part, offsets
 * are dense. Operations of one port are one sequence, so k must also respect what other streams of the port were told.
 * What a crash leaves, fsck finds in order; after damage, what fsck has repaired opens.
 * With --bug a known mistake is put back; the run then succeeds when it is found, and says after how many seeds.
 *
 * Exit code 0: all seeds clean (or the bug found). The last line is `N passed, M failed`. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/wal.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "sim/fsck.h"
#include "sim/program.h"
#include "wal/internal.h"

enum { PORTS_MAX = 3, STREAMS_MAX = 24, OPS_MAX = 6000, PAYLOAD_MAX = 120000, CALLS_MIN = 500, WORLDS_MAX = 60 };

typedef struct op {
    uint64_t seq; /* within its port */
    uint8_t frame;
    cnk_wal_entry e;
    uint32_t crc;
} op;

typedef struct model_stream {
    uint64_t id;
    cnk_wal_stream *handle;
    unsigned port;
    op *ops;
    size_t ops_count, acked, recovered; /* operations; those reported durable; those at the last start */
    uint64_t commit;
    bool lags; /* commits late, and so truncates */
    bool stuck; /* commits nothing for now */
    bool dropping;
    uint64_t released;
} model_stream;

typedef struct sim {
    uint64_t seed;
    cnk_rng rng;
    sim_disk *disk;
    sim_world *world;
    cnk_wal *wal;
    cnk_wal_port *ports[PORTS_MAX];
    unsigned ports_count;
    cnk_wal_options options;
    model_stream streams[STREAMS_MAX];
    uint64_t next_id;
    uint64_t port_seq[PORTS_MAX], port_acked_seq[PORTS_MAX];
    uint64_t bytes_at_open; /* each start that is killed may leave a file more */
    bool rewriting[PORTS_MAX];
    uint32_t sealed[512];
    size_t sealed_count;
    bool fenced, failed, trace, drained, flipped, lied;
    int drain_code;
    uint64_t calls, crashes, worlds;
    uint8_t *buf, *check;
    uint64_t bad_index;
    const char *bad_why;
    chronik_error bad_error;
    const char *ended; /* how the world before ended */
    char what[SIM_WHAT_BYTES];
} sim;

static sim *the_sim; /* callbacks of ports carry their port's number */
static sim_coverage *coverage;
static struct { uint64_t operations, recoveries, moved, lies, lies_survived, lost, checks, repairs; } totals;

static void violation(sim *t, const char *format, ...) CHRONIK_PRINTF(2, 3);
static void violation(sim *t, const char *format, ...) {
    if (t->failed) return;
    t->failed = true;
    va_list args;
    va_start(args, format);
    int used = snprintf(t->what, sizeof t->what, "world %llu, after %s%s: ", (unsigned long long)t->worlds,
                        t->ended ? t->ended : "nothing", t->flipped ? ", with a bit flipped" : "");
    vsnprintf(t->what + used, sizeof t->what - (size_t)used, format, args);
    va_end(args);
}

static uint64_t below(sim *t, uint64_t n) { return cnk_rng_below(&t->rng, n); }
static bool chance(sim *t, uint32_t a, uint32_t b) { return cnk_rng_chance(&t->rng, a, b); }

/* ---- the model -------------------------------------------------------------------------------------------------- */

static model_stream *model_of(sim *t, uint64_t id) {
    for (int n = 0; n < STREAMS_MAX; n++)
        if (t->streams[n].id == id) return &t->streams[n];
    return NULL;
}

static void op_add(sim *t, model_stream *m, uint8_t frame, const cnk_wal_entry *e, uint32_t crc) {
    op *o = &m->ops[m->ops_count++];
    o->seq = ++t->port_seq[m->port];
    o->frame = frame;
    o->e = *e;
    o->crc = crc;
    totals.operations++;
}

static void model_forget(model_stream *m) {
    op *ops = m->ops;
    memset(m, 0, sizeof *m);
    m->ops = ops;
}

/* What the WAL has said is durable. */
static void model_acked(sim *t, model_stream *m) {
    size_t acked = m->recovered + (size_t)m->handle->rows_durable;
    m->acked = acked;
    if (acked > 0 && m->ops[acked - 1].seq > t->port_acked_seq[m->port])
        t->port_acked_seq[m->port] = m->ops[acked - 1].seq;
}

typedef struct state {
    bool exists;
    cnk_wal_state s;
} state;

static void state_apply(state *st, const op *o) {
    cnk_wal_row row = {.frame = o->frame, .e = o->e};
    if (o->frame == CNK_FRAME_INIT) st->exists = true;
    if (o->frame == CNK_FRAME_DROP) memset(st, 0, sizeof *st);
    cnk_wal_state_apply(&st->s, &row);
}

static bool state_matches(const state *st, const cnk_wal_state *got) {
    const cnk_wal_state *s = &st->s;
    return st->exists && s->term == got->term && s->voted_for == got->voted_for && s->last_index == got->last_index &&
           s->last_term == got->last_term && s->next_offset == got->next_offset && s->first_index == got->first_index &&
           s->start_offset == got->start_offset;
}

/* The live entries are the ones of the first k operations, byte for byte. */
static bool entries_match(sim *t, model_stream *m, cnk_wal_stream *s, size_t k) {
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    for (uint64_t index = st->released_index + 1; index <= st->last_index; index++) {
        const op *o = NULL;
        for (size_t n = k; n > 0 && !o; n--)
            if (m->ops[n - 1].frame == CNK_FRAME_ENTRY && m->ops[n - 1].e.index == index) o = &m->ops[n - 1];
        cnk_wal_place p;
        t->bad_index = index;
        t->bad_why = "not in the index";
        if (!o || cnk_wal_find_index(s, index, &p)) return false;
        t->bad_why = "another entry";
        if (p.crc != o->crc || p.entry.term != o->e.term || p.entry.base_offset != o->e.base_offset ||
            p.entry.count != o->e.count || p.entry.kind != o->e.kind || p.entry.len != o->e.len ||
            p.entry.max_timestamp != o->e.max_timestamp || memcmp(p.entry.aux, o->e.aux, 16) != 0)
            return false;
        cnk_wal_file *f = cnk_wal_file_pin(t->wal, p.file_seq);
        t->bad_why = "its file is gone";
        if (!f) return false;
        t->bad_error = (chronik_error)CHRONIK_ERROR_INIT;
        t->bad_why = t->bad_error.text;
        int code = cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, t->check, &t->bad_error);
        cnk_wal_file_unpin(f);
        if (code == CHRONIK_ECORRUPT && (t->flipped || t->lied)) continue; /* reported, as it should be */
        if (code == CHRONIK_ECORRUPT) return false; /* others: a fault planned, or the world has died */
    }
    return true;
}

/* Holds a recovered stream against the model, which goes on from what it finds. */
static void stream_check(sim *t, model_stream *m, cnk_wal_stream *s) {
    const cnk_wal_state *got = cnk_wal_stream_state(s);
    state st;
    memset(&st, 0, sizeof st);
    st.s.first_index = 1;
    size_t must = t->lied ? 0 : m->acked;
    while (!t->lied && must < m->ops_count && m->ops[must].seq <= t->port_acked_seq[m->port]) must++;
    bool same = false;
    for (size_t k = 0; k <= m->ops_count; k++) {
        if (k > 0) state_apply(&st, &m->ops[k - 1]);
        if (k < must || !state_matches(&st, got)) continue;
        same = true;
        if (!entries_match(t, m, s, k)) continue;
        totals.lost += k < m->acked;
        m->ops_count = m->acked = m->recovered = k; /* what recovery gives back is durable from now on */
        m->handle = s;
        m->released = got->released_index;
        m->dropping = false;
        return;
    }
    static const char *const frames[] = {"", "INIT", "ENTRY", "VOTE", "TRUNCATE", "TRIM", "RESET", "REWRITE", "DROP"};
    for (size_t n = 0; t->trace && n < m->ops_count; n++)
        printf("  model: %zu %s index %llu term %u offset %lld count %u\n", n + 1, frames[m->ops[n].frame],
               (unsigned long long)m->ops[n].e.index, m->ops[n].e.term, (long long)m->ops[n].e.base_offset,
               m->ops[n].e.count);
    violation(t,
              "stream %llu: recovered (term %u, vote %llu, last %llu@%u, next offset %lld, first %llu, released %llu) is no "
              "state after %zu of %zu operations%s (entry %llu: %s)",
              (unsigned long long)m->id, got->term, (unsigned long long)got->voted_for,
              (unsigned long long)got->last_index, got->last_term, (long long)got->next_offset,
              (unsigned long long)got->first_index, (unsigned long long)got->released_index, must, m->ops_count,
              same ? ", its entries differ" : "", (unsigned long long)t->bad_index, same ? t->bad_why : "-");
}

static void missing_check(sim *t, model_stream *m) {
    size_t must = m->acked;
    while (must < m->ops_count && m->ops[must].seq <= t->port_acked_seq[m->port]) must++;
    bool gone = m->dropping; /* the DROP may have become durable */
    bool never = must == 0;  /* the INIT may not have */
    if (!gone && !never && !t->lied) violation(t, "stream %llu is gone", (unsigned long long)m->id);
    model_forget(m);
}

/* ---- what the WAL tells ----------------------------------------------------------------------------------------- */

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    (void)index;
    sim *t = the_sim;
    if (sim_world_dead(t->world)) return; /* never heard */
    model_stream *m = model_of(t, s->now.id);
    if (!m) return;
    model_acked(t, m);
    if (m->stuck ? chance(t, 1, 60) : !m->lags || chance(t, 1, 4)) {
        uint64_t durable = cnk_wal_stream_state(s)->durable_index;
        if (durable > m->commit) m->commit = durable;
        cnk_wal_stream_commit_set(s, m->commit);
    }
}
/* One that an entry of PAYLOAD_MAX bytes asks for (port.c: want_room), or one as configured. */
static uint64_t largest_file(const sim *t) {
    uint64_t entry = cnk_wal_align_up(2 * PAYLOAD_MAX + CNK_WAL_ROW_BYTES + t->wal->block_bytes_max + 8 * CNK_WAL_ALIGN) +
                     t->wal->reserve_bytes;
    uint64_t file = cnk_wal_align_up(t->options.file_bytes);
    return entry > file ? entry : file;
}

static void on_durable_end(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    (void)why;
    the_sim->fenced = true;
}
static void on_writable(void *arg) { (void)arg; }
static void on_sealed(void *arg, uint32_t file_seq) {
    (void)arg;
    sim *t = the_sim;
    if (t->sealed_count < sizeof t->sealed / sizeof *t->sealed) t->sealed[t->sealed_count++] = file_seq;
}
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    cnk_write_le64(out, s->now.id);
    *ret_applied_index = s->commit_index;
    return 0;
}
static void on_drained(void *arg, int code) {
    (void)arg;
    the_sim->drained = true;
    the_sim->drain_code = code;
}
static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

/* ---- work: each function runs as a callback of the port's loop ----------------------------------------------------- */

static model_stream *pick(sim *t, unsigned port) {
    model_stream *found = NULL;
    uint64_t seen = 0;
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (m->id && m->handle && m->port == port && !m->dropping && below(t, ++seen) == 0) found = m;
    }
    return found;
}

static bool room_for_ops(const model_stream *m) { return m->ops_count + 16 < OPS_MAX; }

/* A payload that may hold a valid block of this very file, where a block could begin. */
static void payload_make(sim *t, uint32_t len) {
    cnk_rng_fill(&t->rng, t->buf, len);
    if (len < 3 * CNK_WAL_ALIGN || t->wal->files_count == 0) return;
    const cnk_wal_file *f = t->wal->files[below(t, t->wal->files_count)];
    uint64_t pos = CNK_WAL_ALIGN * (1 + below(t, f->bytes / CNK_WAL_ALIGN));
    for (uint32_t at = CNK_WAL_ALIGN - CNK_WAL_BLOCK_HEADER; at + CNK_WAL_ALIGN <= len; at += CNK_WAL_ALIGN)
        if (chance(t, 2, 3) && sim_disk_peek(t->disk, f->path, pos, t->buf + at, CNK_WAL_ALIGN)) pos += CNK_WAL_ALIGN;
}

static void do_append(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    for (uint64_t count = 1 + below(t, 6); m && room_for_ops(m) && count > 0; count--) {
        const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
        cnk_wal_entry e = {.index = st->last_index + 1, .kind = CNK_ENTRY_DATA, .base_offset = st->next_offset};
        e.term = st->last_term ? st->last_term : 1;
        if (chance(t, 1, 10) || e.term < st->term) e.term = st->term + 1;
        e.count = (uint32_t)below(t, 5) + 1;
        if (chance(t, 1, 8)) {
            e.kind = CNK_ENTRY_LEADER;
            e.count = 0;
        }
        e.len = (uint32_t)(chance(t, 1, 30) ? below(t, PAYLOAD_MAX) : chance(t, 1, 3) ? below(t, 9000) : below(t, 400));
        e.max_timestamp = (int64_t)below(t, 1000000);
        cnk_rng_fill(&t->rng, e.aux, sizeof e.aux);
        payload_make(t, e.len);
        cnk_wal_payload p = {.iov_count = 1, .crc = cnk_crc32c(0, t->buf, e.len)};
        p.iov[0] = (struct iovec){t->buf, e.len};
        int code = cnk_wal_append(m->handle, &e, &p);
        if (code == 0) op_add(t, m, CNK_FRAME_ENTRY, &e, e.len ? p.crc : 0);
        else if (code != CHRONIK_EAGAIN && code != CHRONIK_ENOSPC && code != CHRONIK_EFENCED &&
                 code != CHRONIK_ESHUTDOWN && code != CHRONIK_ETOOLARGE)
            violation(t, "append to stream %llu: %s", (unsigned long long)m->id, chronik_error_name(code));
    }
}

static void do_new(sim *t, unsigned port) {
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (m->id) continue;
        cnk_wal_stream *s;
        uint64_t id = t->next_id;
        if (cnk_wal_stream_new(t->ports[port], id, NULL, &s)) return;
        t->next_id++;
        m->id = id;
        m->port = port;
        m->handle = s;
        m->lags = chance(t, 1, 3);
        m->stuck = chance(t, 1, 6);
        cnk_wal_entry e = {0};
        op_add(t, m, CNK_FRAME_INIT, &e, 0);
        return;
    }
}

static void do_vote(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || !room_for_ops(m)) return;
    cnk_wal_entry e = {.index = 1 + below(t, 5), .term = cnk_wal_stream_state(m->handle)->term + 1};
    if (cnk_wal_vote(m->handle, e.term, e.index) == 0) op_add(t, m, CNK_FRAME_VOTE, &e, 0);
}

static void do_truncate(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || !m->lags || !room_for_ops(m)) return;
    const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
    uint64_t low = m->commit > st->released_index ? m->commit : st->released_index;
    if (low >= st->last_index) return;
    cnk_wal_entry e = {.index = low + below(t, st->last_index - low), .term = st->released_term};
    e.base_offset = st->released_offset;
    cnk_wal_place p;
    if (e.index > st->released_index && cnk_wal_find_index(m->handle, e.index, &p) == 0) {
        e.term = p.entry.term;
        e.base_offset = p.entry.base_offset + p.entry.count;
    }
    if (cnk_wal_truncate(m->handle, e.index) == 0) op_add(t, m, CNK_FRAME_TRUNCATE, &e, 0);
}

static void do_trim(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || !room_for_ops(m)) return;
    const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
    if (m->commit < st->first_index) return;
    cnk_wal_entry e = {.index = st->first_index + below(t, m->commit - st->first_index + 2)};
    cnk_wal_place p;
    if (e.index <= st->released_index || cnk_wal_find_index(m->handle, e.index, &p)) return;
    e.base_offset = p.entry.base_offset;
    if (cnk_wal_trim(m->handle, e.index, e.base_offset) == 0) op_add(t, m, CNK_FRAME_TRIM, &e, 0);
}

/* A snapshot is installed: of something behind all that is committed, and often behind all that is there. */
static void do_reset(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || !room_for_ops(m) || chance(t, 3, 4)) return;
    const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
    const uint64_t low = m->commit > st->released_index ? m->commit : st->released_index;
    cnk_wal_entry e = {.index = low + 1 + below(t, 40), .term = st->last_term + (uint32_t)below(t, 3)};
    e.base_offset = st->next_offset + (int64_t)below(t, 100);
    if (e.term == 0) e.term = 1;
    if (cnk_wal_reset(m->handle, e.index, e.term, e.base_offset) == 0) op_add(t, m, CNK_FRAME_RESET, &e, 0);
}

static void do_drop(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || !room_for_ops(m)) return;
    cnk_wal_entry e = {0};
    if (cnk_wal_stream_drop(m->handle)) return;
    op_add(t, m, CNK_FRAME_DROP, &e, 0);
    m->dropping = true;
    m->handle = NULL; /* the WAL's from now on */
}

static void on_rewritten(void *arg, int code) {
    *(bool *)arg = false;
    if (code && code != CHRONIK_EAGAIN && code != CHRONIK_EFENCED)
        violation(the_sim, "rewriting: %s", chronik_error_name(code));
}

/* What a conversion does: committed entries of a sealed file are safe elsewhere. */
static void do_release(sim *t, unsigned port) {
    if (t->sealed_count == 0) return;
    uint32_t file = t->sealed[below(t, t->sealed_count)];
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (!m->id || !m->handle || m->port != port) continue;
        uint64_t index = cnk_wal_stream_state(m->handle)->released_index;
        cnk_wal_place p;
        while (index + 1 <= m->commit && cnk_wal_find_index(m->handle, index + 1, &p) == 0 && p.file_seq == file) index++;
        cnk_wal_stream_release(m->handle, index);
    }
    if (t->rewriting[port]) return;
    t->rewriting[port] = true;
    cnk_wal_rewrite(t->ports[port], file, on_rewritten, &t->rewriting[port]);
}

/* A rewritten entry is an operation that changes nothing. */
static void on_moved(cnk_wal_stream *s) {
    sim *t = the_sim;
    model_stream *m = model_of(t, s->now.id);
    cnk_wal_entry e = {0};
    if (m && m->ops_count < OPS_MAX) op_add(t, m, CNK_FRAME_REWRITE, &e, 0);
    else violation(t, "too many operations");
    totals.moved++;
}

static struct { sim *t; unsigned port; uint64_t what; } task;

static void run_task(void *arg) {
    (void)arg;
    sim *t = task.t;
    unsigned port = task.port;
    uint64_t w = task.what;
    if (w < 60) do_append(t, port);
    else if (w < 64) do_new(t, port);
    else if (w < 68) do_vote(t, port);
    else if (w < 72) do_truncate(t, port);
    else if (w < 75) do_trim(t, port);
    else if (w < 76) do_drop(t, port);
    else if (w < 77) do_reset(t, port);
    else if (w < 85) do_release(t, port);
    else if (w < 90) cnk_wal_checkpoint(t->ports[port]);
    else if (w < 95) return; /* only time passes */
    if (w < 60 ? chance(t, 3, 4) : true) cnk_wal_kick(t->ports[port]);
}

static void run_drain(void *arg) { cnk_wal_drain(arg, on_drained, NULL); }

/* ---- worlds ------------------------------------------------------------------------------------------------------- */

static void print_trace(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

static void boot(sim *t, unsigned *ret_loops) {
    sim_world_options o = SIM_WORLD_OPTIONS_INIT;
    o.loops = 1 + (unsigned)below(t, PORTS_MAX);
    o.seed = below(t, UINT64_MAX);
    o.coverage = coverage;
    if (t->trace) o.trace = print_trace;
    t->world = sim_world_new(t->disk, &o);
    *ret_loops = o.loops;
    t->fenced = t->drained = false;
    memset(t->rewriting, 0, sizeof t->rewriting);
    t->sealed_count = 0;
    t->wal = NULL;
    t->worlds++;
}

static void shut(sim *t) {
    t->calls += sim_world_calls(t->world);
    if (sim_world_dead(t->world)) t->crashes++;
    sim_world_kill(t->world);
    sim_world_limp(t->world); /* steps under way end, in vain */
    for (int n = 0; n < 100000 && sim_world_jobs_waiting(t->world) > 0; n++) (void)sim_world_step(t->world);
    for (unsigned n = 0; n < t->ports_count; n++) cnk_wal_port_close(t->ports[n]);
    t->ports_count = 0;
    cnk_wal_free(t->wal);
    t->wal = NULL;
    for (int n = 0; n < STREAMS_MAX; n++) t->streams[n].handle = NULL;
    sim_world_free(t->world);
    t->world = NULL;
}

/* Opens the WAL, holds what it gives back against the model, attaches. false: it did not open, or the world died. */
static bool start(sim *t, unsigned loops, bool may_fail) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int code = cnk_wal_open(sim_world_io(t->world), &t->options, NULL, NULL, &err, &t->wal);
    if (code) {
        t->wal = NULL;
        if (!sim_world_dead(t->world) && !may_fail)
            violation(t, "recovery fails: %s: %s", chronik_error_name(code), err.text);
        return false;
    }
    totals.recoveries++;
    t->bytes_at_open = t->wal->disk_bytes;
    if (sim_world_dead(t->world)) return false;
    for (unsigned n = 0; n < loops; n++) {
        if (cnk_wal_port_open(t->wal, sim_world_loop(t->world, n), &events, NULL, &t->ports[n])) return false;
        t->ports_count++;
    }
    bool found[STREAMS_MAX] = {false};
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(t->wal, &it));) {
        model_stream *m = model_of(t, s->now.id);
        if (!m && t->lied) continue; /* deleted, but that was lost */
        if (!m) {
            violation(t, "stream %llu was never created, or was deleted for good", (unsigned long long)s->now.id);
            return false;
        }
        found[m - t->streams] = true;
        if (!s->now.damaged) stream_check(t, m, s);
        else if (!may_fail) violation(t, "stream %llu is damaged", (unsigned long long)m->id);
        if (t->failed || sim_world_dead(t->world)) return false;
    }
    for (int n = 0; n < STREAMS_MAX; n++)
        if (t->streams[n].id && !found[n]) missing_check(t, &t->streams[n]);
    for (unsigned n = 0; n < PORTS_MAX; n++) t->port_seq[n] = t->port_acked_seq[n] = 0;
    it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(t->wal, &it));) {
        model_stream *m = model_of(t, s->now.id);
        if (!m) continue;
        m->port = (unsigned)below(t, loops); /* the number of shards is a matter of each start */
        m->handle = s;
        for (size_t n = 0; n < m->ops_count; n++) m->ops[n].seq = 0;
        cnk_wal_stream_attach(t->ports[m->port], s, NULL);
        if (m->commit > s->now.last_index && !t->lied) violation(t, "stream %llu lost a committed entry", (unsigned long long)m->id);
        cnk_wal_stream_commit_set(s, m->commit);
    }
    return !t->failed;
}

/* The budget is exceeded by two files at most, of the size that files have. */
static void budget_check(sim *t) {
    uint64_t from = t->bytes_at_open > t->options.budget_bytes ? t->bytes_at_open : t->options.budget_bytes;
    uint64_t most = from + CNK_WAL_OVER_FILES * largest_file(t);
    if (!sim_world_dead(t->world) && t->wal->disk_bytes > most)
        violation(t, "the files take %llu bytes, and may take %llu", (unsigned long long)t->wal->disk_bytes,
                  (unsigned long long)most);
}

static void work(sim *t, uint64_t steps) {
    for (uint64_t n = 0; n < steps && !t->failed && !sim_world_dead(t->world) && !t->fenced; n++) {
        task.t = t;
        task.port = (unsigned)below(t, t->ports_count);
        task.what = below(t, 100);
        sim_world_on(t->world, task.port, run_task, NULL);
        budget_check(t);
        uint64_t ns = chance(t, 1, 40) ? 150 * SIM_MILLISECOND : below(t, 400) * SIM_MICROSECOND;
        if (chance(t, 2, 3)) sim_world_run(t->world, ns);
    }
}

static void orderly_stop(sim *t) {
    for (unsigned n = 0; n < t->ports_count && !sim_world_dead(t->world); n++) {
        t->drained = false;
        sim_world_on(t->world, n, run_drain, t->ports[n]);
        for (int i = 0; i < 100 && !t->drained && !sim_world_dead(t->world); i++)
            sim_world_run(t->world, 100 * SIM_MILLISECOND);
        if (!t->drained && !sim_world_dead(t->world)) violation(t, "draining a port does not end: fenced %d, waiting for a spare %d, writer %d, background %d, checkpoint %d, rows lsn "
                      "%llu, witnessed %llu, full %d",
                      atomic_load(&t->wal->fenced), t->wal->waiting_for_spare, t->wal->writer_scheduled, t->wal->bg_scheduled,
                      t->wal->checkpoint_running, (unsigned long long)t->wal->rows_lsn,
                      (unsigned long long)t->wal->witnessed_lsn, atomic_load(&t->wal->full));
    }
}

/* Flips a bit somewhere in the WAL. Recovery must report it, or have lost nothing. */
static void flip(sim *t) {
    char path[64];
    for (int tries = 0; tries < 50; tries++) {
        snprintf(path, sizeof path, "wal/%020llu.wal", (unsigned long long)(1 + below(t, 40)));
        int64_t size = sim_disk_size(t->disk, path);
        if (size <= 0) continue;
        uint64_t pos = below(t, (uint64_t)size < 60000 ? (uint64_t)size : 60000);
        if (!sim_disk_durable(t->disk, path, pos, 1)) continue;
        if (t->trace) printf("a bit of byte %llu of %s is flipped\n", (unsigned long long)pos, path);
        sim_disk_flip(t->disk, path, pos, (unsigned)below(t, 8));
        return;
    }
}

/* What a crash leaves is in order. */
static void check(sim *t) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const int code = sim_fsck(t->disk, 0, NULL, &err);
    if (code) violation(t, "fsck finds %s: %s", chronik_error_name(code), err.text);
    totals.checks++;
}

/* What is damaged is found, and opens when it has been repaired. */
static void repair(sim *t, bool opens) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal *wal = NULL;
    sim_disk *disk = sim_disk_clone(t->disk, below(t, UINT64_MAX));
    int code = sim_fsck(disk, 0, NULL, &err);
    if (code == 0 && !opens) violation(t, "fsck finds nothing, and it does not open");
    if (code == CHRONIK_ECORRUPT && sim_fsck(disk, CHRONIK_WAL_FSCK_CUT, NULL, &err) == 0) {
        sim_world *world = sim_world_new(disk, NULL);
        totals.repairs++;
        code = cnk_wal_open(sim_world_io(world), &t->options, NULL, NULL, &err, &wal);
        if (code) violation(t, "it is repaired, and does not open: %s: %s", chronik_error_name(code), err.text);
        else cnk_wal_free(wal);
        sim_world_free(world);
        code = sim_fsck(disk, 0, NULL, &err);
        if (code) violation(t, "it is repaired, and fsck finds %s: %s", chronik_error_name(code), err.text);
    }
    sim_disk_free(disk);
}

static void life(sim *t, bool last) {
    unsigned loops;
    if (t->worlds > 0 && chance(t, 1, 4)) check(t);
    boot(t, &loops);
    bool fault = chance(t, 1, 4);
    if (fault) {
        static const int codes[] = {CHRONIK_EIO, CHRONIK_EIO, CHRONIK_ENOSPC};
        sim_world_fail_in(t->world, 1 + below(t, 150), codes[below(t, 3)]);
    }
    if (!last && chance(t, 5, 6)) sim_world_crash_in(t->world, 1 + below(t, chance(t, 1, 4) ? 20 : 250));
    if (!fault && chance(t, 1, 10)) sim_disk_space_set(t->disk, (UINT64_C(400) << 10) + below(t, 800) * 1024);
    if (start(t, loops, fault)) {
        work(t, 40 + below(t, 160));
        if (!sim_world_dead(t->world) && chance(t, 1, 3)) orderly_stop(t);
    }
    if (!t->failed && !last && t->world && !sim_world_dead(t->world) && chance(t, 1, 2)) sim_world_kill(t->world);
    bool dead = sim_world_dead(t->world);
    shut(t);
    t->ended = dead ? "a kill" : "an exit";
    sim_disk_crash(t->disk, SIM_CRASH_PROCESS); /* in any case the next one is another process */
    if (chance(t, 1, 2)) {
        t->ended = "a power cut";
        sim_disk_crash(t->disk, SIM_CRASH_POWER);
    }
    sim_disk_space_set(t->disk, UINT64_C(256) << 20);
}

/* At the end: damage, which must be noticed. */
static void damaged_life(sim *t) {
    unsigned loops;
    sim_disk_crash(t->disk, SIM_CRASH_POWER); /* all that is left is on the media */
    boot(t, &loops);
    if (start(t, loops, false)) orderly_stop(t);
    shut(t);
    sim_disk_crash(t->disk, SIM_CRASH_PROCESS);
    if (t->failed) return;
    flip(t);
    t->flipped = true;
    boot(t, &loops);
    const bool opens = start(t, loops, true);
    shut(t);
    if (!t->failed) repair(t, opens);
}

/* At the end: a disk that says it has synced, and has not, and then the power goes. What is lost cannot be brought back, but
 * nothing wrong may come of it: the log does not open, and says why; or each stream is as it was at some time. */
static void lying_life(sim *t) {
    unsigned loops;
    boot(t, &loops);
    sim_world_lie(t->world, 1 + (uint32_t)below(t, 8));
    if (start(t, loops, false)) work(t, 40 + below(t, 160));
    if (!t->failed && !sim_world_dead(t->world) && chance(t, 1, 2)) orderly_stop(t);
    shut(t);
    if (t->failed) return;
    sim_disk_crash(t->disk, SIM_CRASH_PROCESS);
    sim_disk_crash(t->disk, SIM_CRASH_POWER);
    t->lied = true;
    boot(t, &loops);
    const bool opens = start(t, loops, true);
    totals.lies_survived += opens;
    totals.lies++;
    shut(t);
    if (!t->failed) repair(t, opens);
}

static bool run_seed(sim_run *run) {
    sim *t = calloc(1, sizeof *t);
    the_sim = t;
    t->seed = run->seed;
    t->trace = run->trace;
    coverage = run->coverage;
    t->next_id = 1;
    cnk_rng_seed(&t->rng, t->seed * 0x9e3779b97f4a7c15 + 1);
    t->buf = malloc(PAYLOAD_MAX);
    t->check = malloc(PAYLOAD_MAX);
    for (int n = 0; n < STREAMS_MAX; n++) t->streams[n].ops = malloc(OPS_MAX * sizeof(op));
    sim_disk_options disk = SIM_DISK_OPTIONS_INIT;
    disk.no_direct = chance(t, 1, 8);
    t->disk = sim_disk_new(below(t, UINT64_MAX), &disk);
    t->options = (cnk_wal_options)CNK_WAL_OPTIONS_INIT;
    t->options.dir = "wal";
    t->options.file_bytes = 100000 + below(t, 200000);
    t->options.budget_bytes = t->options.file_bytes * (4 + below(t, 6));
    t->options.cache_bytes = 1 << 20;
    t->options.linger_always = chance(t, 1, 6);
    t->options.seal_after_ms = chance(t, 1, 3) ? 50 : 1800000;
    while (!t->failed && t->worlds < WORLDS_MAX && (t->calls < CALLS_MIN || t->crashes == 0 || t->worlds < 4)) life(t, false);
    if (!t->failed) life(t, true);
    if (!t->failed && t->calls < CALLS_MIN) violation(t, "only %llu calls", (unsigned long long)t->calls);
    if (!t->failed && chance(t, 1, 2)) damaged_life(t);
    else if (!t->failed && chance(t, 1, 2)) lying_life(t);
    run->calls = t->calls;
    run->crashes = t->crashes;
    run->worlds = t->worlds;
    bool ok = !t->failed;
    if (!ok) memcpy(run->what, t->what, sizeof t->what);
    sim_disk_free(t->disk);
    for (int n = 0; n < STREAMS_MAX; n++) free(t->streams[n].ops);
    free(t->buf);
    free(t->check);
    free(t);
    return ok;
}

/* ---- the program ---- */

static const char *const bugs[CNK_WAL_BUG_COUNT + 1] = {
    "none",
    "ack-before-sync",
    "recycled-blocks-live",
    "payload-blocks-live",
    "checkpoint-forgets-stream",
    "free-without-checkpoint",
    "tail-not-synced",
    "rename-not-synced",
    "cut-in-synced",
    "checkpoint-copies-stale",
    "checkpoint-copies-dropped",
    "release-early",
};

static void bug_set(size_t bug) { cnk_wal_bug = (enum cnk_wal_bug)bug; }

static void print_totals(void) {
    printf("%llu operations, %llu recoveries, %llu entries moved; %llu disks lied, %llu noticed, %llu streams shortened; %llu "
           "times checked, %llu repaired",
           (unsigned long long)totals.operations, (unsigned long long)totals.recoveries, (unsigned long long)totals.moved,
           (unsigned long long)totals.lies, (unsigned long long)(totals.lies - totals.lies_survived),
           (unsigned long long)totals.lost, (unsigned long long)totals.checks, (unsigned long long)totals.repairs);
}

int main(int argc, char **argv) {
    cnk_wal_moved = on_moved;
    static const sim_program program = {"sim_wal", 300, bugs, bug_set, run_seed, print_totals};
    return sim_main(&program, argc, argv);
}
