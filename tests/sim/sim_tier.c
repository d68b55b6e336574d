/* Proves the way out of the WAL by simulation: files are sealed, converted and freed, packs are read, thinned out and
 * deleted, while crashes, power cuts, failed calls and full disks come in between; after each restart every entry that
 * was reported durable must be there, in the WAL or in a pack, byte for byte.
 *
 *     sim_tier [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage] [--keep-going]
 *
 * All of an entry follows from the seed, its stream and its index, so the model keeps numbers alone: how far each
 * stream was reported durable, committed, trimmed. (What the WAL does with truncations and votes is proved by sim_wal.)
 * With --bug a known mistake is put back; the run then succeeds when it is found, and says after how many seeds.
 *
 * Exit code 0: all seeds clean (or the bug found). The last line is `N passed, M failed`. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "cold_read.h"
#include "sim/fsck.h"
#include "sim/program.h"
#include "tier/tier.h"
#include "wal/internal.h"

enum { PORTS_MAX = 3, STREAMS_MAX = 12, ENTRIES_MAX = 20000, PAYLOAD_MAX = 90000, CALLS_MIN = 500, WORLDS_MAX = 60 };

typedef struct model_stream {
    uint64_t id;
    unsigned port;
    cnk_wal_stream *handle;
    uint64_t acked, commit, trimmed; /* trimmed: the highest first index that was asked for */
    bool lags, stuck, dropping; /* stuck: commits nothing until the end */
    int64_t *base; /* offsets by index, as far as `known` */
    uint64_t known;
} model_stream;

typedef struct sim {
    uint64_t seed;
    cnk_rng rng;
    sim_disk *disk;
    sim_world *world;
    cnk_wal *wal;
    cnk_tier *tier;
    cnk_wal_port *wal_ports[PORTS_MAX];
    cnk_tier_port *ports[PORTS_MAX];
    unsigned ports_count;
    cnk_wal_options wal_options;
    cnk_tier_options options;
    model_stream streams[STREAMS_MAX];
    uint64_t next_id;
    bool fenced, failed, trace, drained, draining, flipped, faulty;
    bool named; /* the world before was killed when a pack had its name, and the name was not synced */
    bool catalog_flipped; /* a bit of the catalog file has been, since */
    unsigned damaged;
    uint64_t bytes_at_open; /* of the WAL */
    uint64_t calls, crashes, worlds;
    uint8_t *buf;
    const char *ended; /* how the world before ended */
    char what[SIM_WHAT_BYTES];
} sim;

static sim *the_sim;
static sim_coverage *coverage;
static struct { uint64_t files, packs, deleted, rewritten, entries_checked; } totals;

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

/* ---- entries ---- */

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t v = a * UINT64_C(0x9e3779b97f4a7c15) ^ b * UINT64_C(0xbf58476d1ce4e5b9) ^ c * UINT64_C(0x94d049bb133111eb);
    v = (v ^ v >> 31) * UINT64_C(0xd6e8feb86659fd93);
    return v ^ v >> 32;
}

static cnk_wal_entry entry_of(const sim *t, const model_stream *m, uint64_t index) {
    uint64_t v = mix(t->seed, m->id, index);
    cnk_wal_entry e = {.index = index, .term = 1 + (uint32_t)(index / 60), .max_timestamp = -1};
    e.kind = index == 1    ? CNK_ENTRY_CONFIG
             : v % 23 == 0 ? CNK_ENTRY_LEADER
             : v % 19 == 0 ? CNK_ENTRY_COMMAND
                           : CNK_ENTRY_DATA;
    e.len = e.kind == CNK_ENTRY_LEADER ? 0 : 1 + (uint32_t)(v >> 8) % ((v >> 40) % 25 == 0 ? PAYLOAD_MAX - 1 : 3000);
    if (e.kind == CNK_ENTRY_DATA) {
        e.count = 1 + (uint32_t)(v >> 20) % 5;
        e.max_timestamp = (int64_t)(index + (v >> 30) % 9);
    }
    memcpy(e.aux, &v, sizeof v);
    return e;
}

static void payload_of(const sim *t, const model_stream *m, const cnk_wal_entry *e, uint8_t *buf) {
    cnk_rng rng;
    cnk_rng_seed(&rng, mix(t->seed, m->id, e->index));
    cnk_rng_fill(&rng, buf, e->len);
}

static int64_t base_of(const sim *t, model_stream *m, uint64_t index) {
    if (m->known == 0) m->known = 1;
    for (; m->known < index; m->known++) m->base[m->known + 1] = m->base[m->known] + entry_of(t, m, m->known).count;
    return m->base[index];
}

/* The first DATA entry from `index` on that ends after the offset. */
static uint64_t index_at(const sim *t, model_stream *m, int64_t offset, uint64_t index) {
    for (;; index++) {
        cnk_wal_entry e = entry_of(t, m, index);
        if (e.kind == CNK_ENTRY_DATA && base_of(t, m, index) + e.count > offset) return index;
    }
}

static model_stream *model_of(sim *t, uint64_t id) {
    for (int n = 0; n < STREAMS_MAX; n++)
        if (t->streams[n].id == id) return &t->streams[n];
    return NULL;
}

static void model_forget(model_stream *m) {
    int64_t *base = m->base;
    memset(m, 0, sizeof *m);
    m->base = base;
    m->base[1] = 0;
}

/* ---- checking ---- */

/* Reads [from, end) from packs, in pieces of at most `max`, and compares. */
static void check_cold(sim *t, model_stream *m, int64_t from, int64_t end, uint32_t max) {
    const cnk_log_cold *cold = cnk_tier_cold(t->tier);
    cnk_writer out;
    uint64_t index = 1;
    cnk_writer_growing(&out, 0);
    while (from < end && !t->failed) {
        chronik_error err = CHRONIK_ERROR_INIT;
        out.len = 0;
        int rc = cold_read(cold, m->id, from, end, max, true, &out, &err);
        if (sim_world_dead(t->world)) break;
        if (rc) {
            if (!(rc == CHRONIK_ECORRUPT && t->flipped) && !t->faulty)
                violation(t, "stream %llu, offset %lld cannot be read: %s: %s", (unsigned long long)m->id,
                          (long long)from, chronik_error_name(rc), err.text);
            break; /* reported, as it should be */
        }
        if (out.len == 0) {
            violation(t, "stream %llu, offset %lld below %lld: nothing is read", (unsigned long long)m->id,
                      (long long)from, (long long)end);
            break;
        }
        for (size_t at = 0; at < out.len && !t->failed;) {
            index = index_at(t, m, from, index);
            cnk_wal_entry e = entry_of(t, m, index);
            payload_of(t, m, &e, t->buf);
            if (e.len > out.len - at || memcmp(out.data + at, t->buf, e.len) != 0)
                violation(t, "stream %llu, offset %lld (index %llu): other bytes are read", (unsigned long long)m->id,
                          (long long)from, (unsigned long long)index);
            at += e.len;
            from = base_of(t, m, index) + e.count;
            totals.entries_checked++;
            if (e.len == 0) break;
        }
    }
    cnk_writer_free(&out);
}

static void check_hot(sim *t, model_stream *m, const cnk_wal_state *st) {
    for (uint64_t i = st->released_index + 1; i <= st->last_index && !t->failed; i++) {
        cnk_wal_place p;
        cnk_wal_entry e = entry_of(t, m, i);
        chronik_error err = CHRONIK_ERROR_INIT;
        if (cnk_wal_find_index(m->handle, i, &p)) {
            violation(t, "stream %llu: index %llu is neither in the WAL nor released", (unsigned long long)m->id,
                      (unsigned long long)i);
            return;
        }
        if (!p.file_seq && i > st->durable_index) return; /* still in memory only */
        cnk_wal_file *f = p.file_seq ? cnk_wal_file_pin(t->wal, p.file_seq) : NULL;
        int rc = f ? cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, t->buf, &err) : CHRONIK_ENOTFOUND;
        if (f) cnk_wal_file_unpin(f);
        if (sim_world_dead(t->world)) return;
        uint32_t crc = 0;
        payload_of(t, m, &e, t->buf);
        crc = cnk_crc32c(0, t->buf, e.len);
        if ((rc && !t->faulty) || p.entry.base_offset != base_of(t, m, i) || p.entry.len != e.len ||
            (e.len && p.crc != crc))
            violation(t, "stream %llu: index %llu is wrong in the WAL (%s)", (unsigned long long)m->id,
                      (unsigned long long)i, err.text);
    }
}

static void check_stream(sim *t, model_stream *m) {
    const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
    if (st->last_index < m->acked || st->last_index < m->commit)
        violation(t, "stream %llu ends at %llu, but %llu was durable and %llu committed", (unsigned long long)m->id,
                  (unsigned long long)st->last_index, (unsigned long long)m->acked, (unsigned long long)m->commit);
    else if (st->released_index > m->commit && st->released_index >= st->first_index)
        violation(t, "stream %llu: %llu entries have left the WAL, %llu are committed", (unsigned long long)m->id,
                  (unsigned long long)st->released_index, (unsigned long long)m->commit);
    else if (st->first_index > 1 && st->first_index > m->trimmed)
        violation(t, "stream %llu begins at %llu, and was trimmed to %llu", (unsigned long long)m->id,
                  (unsigned long long)st->first_index, (unsigned long long)m->trimmed);
    if (t->failed) return;
    check_hot(t, m, st);
    check_cold(t, m, st->start_offset, st->released_offset, 1 + (uint32_t)below(t, 300000));
}

/* ---- what the WAL and the tier tell ---- */

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    sim *t = the_sim;
    if (sim_world_dead(t->world)) return; /* never heard */
    model_stream *m = model_of(t, cnk_wal_stream_state(s)->id);
    if (!m) return;
    if (index > m->acked) m->acked = index;
    bool commits = m->stuck ? chance(t, 1, 300) : !m->lags || chance(t, 1, 12);
    if (commits && index > m->commit) m->commit = index;
    cnk_wal_stream_commit_set(s, m->commit);
}
static void on_durable_end(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg, (void)why;
    the_sim->fenced = true;
}
static void on_writable(void *arg) { (void)arg; }
static void on_sealed(void *arg, uint32_t file_seq) {
    (void)arg;
    cnk_tier_sealed(the_sim->tier, file_seq);
}
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    cnk_write_le64(out, cnk_wal_stream_state(s)->id);
    *ret_applied_index = 0;
    return 0;
}
static const cnk_wal_port_events wal_events = {on_durable,  on_durable_end, on_fenced,
                                               on_writable, on_sealed,      on_snapshot};

static void on_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    (void)arg, (void)stream;
    sim *t = the_sim;
    t->damaged++;
    if (!t->flipped && !t->faulty && !sim_world_dead(t->world)) violation(t, "damage is reported: %s", what->text);
}
static const cnk_tier_events tier_events = {NULL, NULL, on_damaged, NULL, NULL};

static void on_drained(void *arg) {
    (void)arg;
    the_sim->drained = true;
}
static void on_wal_drained(void *arg, int code) {
    (void)arg, (void)code;
    the_sim->drained = true;
}

/* ---- work: each function runs as a callback of the port's loop ---- */

static model_stream *pick(sim *t, unsigned port) {
    model_stream *found = NULL;
    uint64_t seen = 0;
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (m->id && m->handle && m->port == port && !m->dropping && below(t, ++seen) == 0) found = m;
    }
    return found;
}

static void do_append(sim *t, unsigned port) {
    for (uint64_t count = 1 + below(t, 12); count > 0; count--) {
        model_stream *m = pick(t, port);
        if (!m) return;
        const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
        if (st->last_index + 10 > ENTRIES_MAX) return;
        cnk_wal_entry e = entry_of(t, m, st->last_index + 1);
        e.base_offset = base_of(t, m, e.index);
        payload_of(t, m, &e, t->buf);
        cnk_wal_payload p = {.iov = {{t->buf, e.len}}, .iov_count = 1, .crc = cnk_crc32c(0, t->buf, e.len)};
        int rc = cnk_wal_append(m->handle, &e, &p);
        if (rc && rc != CHRONIK_EAGAIN && rc != CHRONIK_ENOSPC && rc != CHRONIK_EFENCED && rc != CHRONIK_ESHUTDOWN)
            violation(t, "append to stream %llu: %s", (unsigned long long)m->id, chronik_error_name(rc));
        if (rc) return;
    }
}

static void do_new(sim *t, unsigned port) {
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        chronik_error err = CHRONIK_ERROR_INIT;
        if (m->id) continue;
        if (cnk_wal_stream_new(t->wal_ports[port], t->next_id, NULL, &m->handle)) return;
        m->id = t->next_id++;
        m->port = port;
        m->lags = chance(t, 1, 4);
        m->stuck = chance(t, 1, 5);
        int rc = cnk_tier_stream_attach(t->ports[port], m->handle, &err);
        if (rc) violation(t, "attaching a new stream: %s", err.text);
        return;
    }
}

static void do_trim(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m) return;
    const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
    if (m->commit < st->first_index) return;
    uint64_t to = st->first_index + below(t, m->commit - st->first_index + 2);
    if (cnk_wal_trim(m->handle, to, base_of(t, m, to))) return;
    if (to > m->trimmed) m->trimmed = to;
    cnk_tier_stream_trimmed(t->ports[port], m->handle);
}

static void do_drop(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m) return;
    if (cnk_wal_stream_drop(m->handle)) return;
    cnk_tier_stream_dropped(t->ports[port], m->id);
    m->dropping = true;
    m->handle = NULL;
}

static void do_commit(sim *t, unsigned port) {
    model_stream *m = pick(t, port);
    if (!m || m->stuck || m->acked <= m->commit) return;
    m->commit = m->acked;
    cnk_wal_stream_commit_set(m->handle, m->commit);
}

static struct {
    sim *t;
    unsigned port;
    uint64_t what;
    bool may_kill;
} task;

static void run_task(void *arg) {
    (void)arg;
    sim *t = task.t;
    uint64_t w = task.what;
    if (w < 70)
        do_append(t, task.port);
    else if (w < 74)
        do_new(t, task.port);
    else if (w < 77)
        do_trim(t, task.port);
    else if (w < 79)
        do_drop(t, task.port);
    else if (w < 84)
        do_commit(t, task.port);
    else if (w < 86)
        cnk_wal_checkpoint(t->wal_ports[task.port]);
    else if (w < 92)
        return; /* only time passes */
    if (w >= 70 || chance(t, 3, 4)) cnk_wal_kick(t->wal_ports[task.port]);
}

static void run_tier_drain(void *arg) {
    (void)arg;
    the_sim->draining = true;
    cnk_tier_drain(the_sim->tier, on_drained, NULL);
}
static void run_wal_drain(void *arg) { cnk_wal_drain(arg, on_wal_drained, NULL); }
static void run_start(void *arg) {
    (void)arg;
    cnk_tier_start(the_sim->tier);
}

/* ---- worlds ---- */

static void print_trace(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

static unsigned boot(sim *t) {
    sim_world_options o = SIM_WORLD_OPTIONS_INIT;
    o.loops = 1 + (unsigned)below(t, PORTS_MAX);
    o.seed = below(t, UINT64_MAX);
    o.coverage = coverage;
    if (t->trace) o.trace = print_trace;
    t->world = sim_world_new(t->disk, &o);
    t->fenced = t->drained = t->draining = t->faulty = false;
    t->damaged = 0;
    t->wal = NULL;
    t->tier = NULL;
    t->worlds++;
    return o.loops;
}

static void shut(sim *t) {
    cnk_tier_stats s = {0};
    t->calls += sim_world_calls(t->world);
    if (sim_world_dead(t->world)) t->crashes++;
    if (t->tier) cnk_tier_stats_get(t->tier, &s);
    totals.files += s.files_converted;
    totals.packs += s.packs_written;
    totals.deleted += s.packs_deleted;
    totals.rewritten += s.packs_rewritten;
    sim_world_kill(t->world);
    sim_world_limp(t->world); /* steps under way end, in vain */
    if (t->tier && t->ports_count > 0 && !t->draining) sim_world_on(t->world, 0, run_tier_drain, NULL);
    for (int n = 0; n < 100000 && (sim_world_jobs_waiting(t->world) > 0 || (t->tier && t->ports_count && !t->drained));
         n++)
        (void)sim_world_step(t->world);
    for (unsigned n = t->ports_count; n-- > 0;) {
        cnk_tier_port_close(t->ports[n]);
        cnk_wal_port_close(t->wal_ports[n]);
    }
    t->ports_count = 0;
    cnk_tier_free(t->tier);
    cnk_wal_free(t->wal);
    for (int n = 0; n < STREAMS_MAX; n++) t->streams[n].handle = NULL;
    sim_world_free(t->world);
    t->world = NULL;
}

/* Gives each recovered stream to a port, and holds it against the model. */
static bool attach_all(sim *t, unsigned loops) {
    size_t it = 0;
    bool found[STREAMS_MAX] = {false};
    chronik_error err = CHRONIK_ERROR_INIT;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(t->wal, &it));) {
        model_stream *m = model_of(t, cnk_wal_stream_state(s)->id);
        if (!m) {
            violation(t, "stream %llu was deleted for good", (unsigned long long)cnk_wal_stream_state(s)->id);
            return false;
        }
        found[m - t->streams] = true;
        m->handle = s;
        m->dropping = false;
        m->port = (unsigned)below(t, loops);
        cnk_wal_stream_attach(t->wal_ports[m->port], s, NULL);
        cnk_wal_stream_commit_set(s, m->commit);
        const uint64_t trimmed = cnk_wal_stream_state(s)->first_index - 1; /* wal.h asks it of an owner that is up to date */
        cnk_wal_stream_release(s, trimmed < m->commit ? trimmed : m->commit);
        int rc = cnk_tier_stream_attach(t->ports[m->port], s, &err);
        if (rc && !t->flipped && !t->faulty && !sim_world_dead(t->world)) violation(t, "attaching: %s", err.text);
        if (rc || t->failed || sim_world_dead(t->world)) continue;
        check_stream(t, m);
        m->acked = cnk_wal_stream_state(s)->last_index; /* what recovery gives back is durable from now on */
    }
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (!m->id || found[n] || sim_world_dead(t->world)) continue;
        if (!m->dropping && m->acked > 0) violation(t, "stream %llu is gone", (unsigned long long)m->id);
        model_forget(m);
    }
    return !t->failed && !sim_world_dead(t->world);
}

static bool start(sim *t, unsigned loops, bool may_fail) {
    chronik_error err = CHRONIK_ERROR_INIT;
    t->faulty = may_fail;
    int rc = cnk_wal_open(sim_world_io(t->world), &t->wal_options, NULL, NULL, &err, &t->wal);
    if (rc) t->wal = NULL;
    if (rc == 0) {
        cnk_wal_stats s;
        cnk_wal_stats_get(t->wal, &s);
        t->bytes_at_open = s.bytes_on_disk;
        rc = cnk_tier_open(sim_world_io(t->world), t->wal, &t->options, &tier_events, NULL, &err, &t->tier);
        if (rc) t->tier = NULL;
    }
    if (rc) {
        if (!sim_world_dead(t->world) && !may_fail)
            violation(t, "it does not start: %s: %s", chronik_error_name(rc), err.text);
        return false;
    }
    for (unsigned n = 0; n < loops; n++) {
        const chronik_loop *l = sim_world_loop(t->world, n);
        if (cnk_wal_port_open(t->wal, l, &wal_events, NULL, &t->wal_ports[n])) return false;
        if (cnk_tier_port_open(t->tier, l, t->wal_ports[n], &t->ports[n])) return false;
        t->ports_count++;
    }
    if (!attach_all(t, loops)) return false;
    sim_world_on(t->world, 0, run_start, NULL);
    return true;
}

/* The WAL's budget is exceeded by two files at most, be they as configured or as the longest entry needs; but each start that
 * is killed may leave a file more. */
static void budget_check(sim *t) {
    cnk_wal_stats s;
    uint64_t file = 2 * PAYLOAD_MAX + 45000 + t->wal_options.file_bytes * 3 / 8, most;
    if (sim_world_dead(t->world)) return;
    cnk_wal_stats_get(t->wal, &s);
    if (file < t->wal_options.file_bytes + 4096) file = t->wal_options.file_bytes + 4096;
    most = (t->bytes_at_open > t->wal_options.budget_bytes ? t->bytes_at_open : t->wal_options.budget_bytes) + 2 * file;
    if (s.bytes_on_disk > most)
        violation(t, "the WAL takes %llu bytes, and may take %llu", (unsigned long long)s.bytes_on_disk,
                  (unsigned long long)most);
}

static void work(sim *t, uint64_t steps) {
    for (uint64_t n = 0; n < steps && !t->failed && !sim_world_dead(t->world) && !t->fenced; n++) {
        budget_check(t);
        task.t = t;
        task.port = (unsigned)below(t, t->ports_count);
        task.what = below(t, 100);
        sim_world_on(t->world, task.port, run_task, NULL);
        uint64_t ns = chance(t, 1, 30) ? 700 * SIM_MILLISECOND : below(t, 900) * SIM_MICROSECOND;
        if (chance(t, 2, 3)) sim_world_run(t->world, ns);
        if (!chance(t, 1, 25) || sim_world_dead(t->world)) continue;
        model_stream *m = pick(t, (unsigned)below(t, t->ports_count));
        if (!m) continue;
        const cnk_wal_state *st = cnk_wal_stream_state(m->handle);
        int64_t from = st->start_offset, end = st->released_offset;
        if (from < end) check_cold(t, m, from + (int64_t)below(t, (uint64_t)(end - from)), end, 20000);
    }
}

static void commit_all(sim *t) {
    for (int n = 0; n < STREAMS_MAX; n++) {
        model_stream *m = &t->streams[n];
        if (!m->handle || m->dropping || m->acked <= m->commit) continue;
        m->commit = m->acked;
        cnk_wal_stream_commit_set(m->handle, m->commit);
    }
}

/* With nothing in the way, all sealed files become packs, and are freed. */
static void come_to_rest(sim *t) {
    cnk_tier_stats s;
    cnk_wal_stats wal;
    for (int i = 0, still = 0; i < 60 && still < 3 && !sim_world_dead(t->world); i++) {
        commit_all(t);
        sim_world_run(t->world, SIM_SECOND);
        cnk_tier_stats_get(t->tier, &s);
        cnk_wal_stats_get(t->wal, &wal);
        still = s.files_waiting + s.files_kept == 0 && wal.files_live <= 1 ? still + 1 : 0;
    }
    if (!t->fenced && !sim_world_dead(t->world) && wal.bytes_on_disk > t->wal_options.budget_bytes + 2 * PAYLOAD_MAX)
        violation(t, "at rest the WAL takes %llu bytes", (unsigned long long)wal.bytes_on_disk);
    if (!t->fenced && !sim_world_dead(t->world) && s.files_waiting + s.files_kept > 0)
        violation(t, "%llu sealed files are never converted", (unsigned long long)(s.files_waiting + s.files_kept));
    if (!t->fenced && !sim_world_dead(t->world) && wal.files_live > 1)
        violation(t, "%llu converted files are never freed", (unsigned long long)(wal.files_live - 1));
    for (int n = 0; n < STREAMS_MAX && !t->failed && !sim_world_dead(t->world); n++)
        if (t->streams[n].handle && !t->streams[n].dropping) check_stream(t, &t->streams[n]);
}

static void orderly_stop(sim *t) {
    t->drained = false;
    sim_world_on(t->world, 0, run_tier_drain, NULL);
    for (int i = 0; i < 100 && !t->drained && !sim_world_dead(t->world); i++)
        sim_world_run(t->world, 100 * SIM_MILLISECOND);
    if (!t->drained && !sim_world_dead(t->world)) violation(t, "draining the tier does not end");
    bool tier_drained = t->drained; /* the tier's callback and the WAL's share a flag */
    for (unsigned n = 0; n < t->ports_count && !sim_world_dead(t->world) && !t->failed; n++) {
        t->drained = false;
        sim_world_on(t->world, n, run_wal_drain, t->wal_ports[n]);
        for (int i = 0; i < 100 && !t->drained && !sim_world_dead(t->world); i++)
            sim_world_run(t->world, 100 * SIM_MILLISECOND);
    }
    t->drained = tier_drained;
}

static void plan_faults(sim *t) {
    static const int codes[] = {CHRONIK_EIO, CHRONIK_EIO, CHRONIK_ENOSPC};
    static const sim_op ops[] = {SIM_CREATE, SIM_WRITE,  SIM_SYNC,     SIM_ALLOCATE,
                                 SIM_RENAME, SIM_UNLINK, SIM_SYNC_DIR, SIM_OPEN};
    if (chance(t, 1, 3)) {
        sim_world_fail_next(t->world, ops[below(t, 8)], "packs", codes[below(t, 3)]);
        t->faulty = true;
    }
    if (chance(t, 1, 10)) {
        sim_world_fail_in(t->world, 1 + below(t, 250), codes[below(t, 3)]);
        t->faulty = true;
    }
}

/* A pack has its name, and the name is not synced. */
static bool named(void *world) { return strcmp(sim_world_last_call(world), "rename packs/#.pack") == 0; }

static void run_checkpoint(void *port) { cnk_wal_checkpoint(port); }

/* Whatever a start trusts that is in memory only, the WAL soon relies on; then the power goes. */
static void short_life(sim *t) {
    for (unsigned n = 0; n < t->ports_count; n++) sim_world_on(t->world, n, run_checkpoint, t->wal_ports[n]);
    sim_world_run(t->world, below(t, 8000) * SIM_MICROSECOND);
}

/* What a crash leaves is in order, also as fsck sees it. */
static void check(sim *t) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const int code = sim_fsck(t->disk, 0, "packs", &err);
    if (code) violation(t, "fsck finds %s: %s", chronik_error_name(code), err.text);
}

static void life(sim *t, bool last) {
    if (t->worlds > 0 && !t->catalog_flipped && chance(t, 1, 6)) check(t);
    t->catalog_flipped = false;
    bool short_one = t->named && !last && chance(t, 1, 2);
    t->named = false;
    unsigned loops = boot(t);
    if (!last && chance(t, 1, 6)) sim_world_crash_in(t->world, 1 + below(t, 40)); /* while it starts */
    bool started = start(t, loops, false);
    if (started && short_one) {
        short_life(t);
    } else if (started) {
        if (!last && chance(t, 5, 6)) sim_world_crash_in(t->world, 1 + below(t, chance(t, 1, 4) ? 30 : 400));
        if (!last) plan_faults(t);
        if (!t->faulty && chance(t, 1, 8)) sim_disk_space_set(t->disk, (UINT64_C(1500) << 10) + below(t, 3000) * 1024);
        work(t, 60 + below(t, 250));
        if (last || chance(t, 1, 6)) {
            sim_disk_space_set(t->disk, UINT64_C(256) << 20);
            if (!sim_world_dead(t->world) && !t->failed) come_to_rest(t);
        }
        if (!sim_world_dead(t->world) && !t->failed && !t->fenced && chance(t, 1, 3)) orderly_stop(t);
    }
    if (started && !short_one && !t->failed && !last && !sim_world_dead(t->world) && chance(t, 1, 4))
        t->named = sim_world_run_until(t->world, named, t->world, SIM_SECOND); /* the least safe moment of all */
    if (!t->failed && !last && !sim_world_dead(t->world) && (short_one || t->named || chance(t, 1, 2)))
        sim_world_kill(t->world);
    bool dead = sim_world_dead(t->world);
    shut(t);
    t->ended = dead ? "a kill" : "an exit";
    sim_disk_crash(t->disk, SIM_CRASH_PROCESS);
    if (short_one || chance(t, 1, 2)) {
        t->named = false;
        t->ended = "a power cut";
        sim_disk_crash(t->disk, SIM_CRASH_POWER);
    }
    sim_disk_space_set(t->disk, UINT64_C(256) << 20);
    /* The catalog file is a cache: whatever becomes of it does no harm. */
    int64_t size = sim_disk_size(t->disk, "packs/catalog");
    t->catalog_flipped = size > 0 && chance(t, 1, 10);
    if (t->catalog_flipped) sim_disk_flip(t->disk, "packs/catalog", below(t, (uint64_t)size), (unsigned)below(t, 8));
}

/* Flips a bit in a pack. Whoever reads it must say so, or not need it. */
static bool flip(sim *t) {
    for (int tries = 0; tries < 60; tries++) {
        char path[64];
        snprintf(path, sizeof path, "packs/%016llx.pack", (unsigned long long)(1 + below(t, 30)));
        int64_t size = sim_disk_size(t->disk, path);
        if (size <= 0) continue;
        sim_disk_flip(t->disk, path, chance(t, 1, 3) ? (uint64_t)size - 1 - below(t, 3000) : below(t, (uint64_t)size),
                      (unsigned)below(t, 8));
        return true;
    }
    return false;
}

static void damaged_life(sim *t) {
    sim_disk_crash(t->disk, SIM_CRASH_POWER);
    if (!flip(t)) return;
    t->flipped = true;
    unsigned loops = boot(t);
    (void)start(t, loops, false); /* checks what can be read, byte for byte */
    shut(t);
}

static bool run_seed(sim_run *run) {
    sim *t = calloc(1, sizeof *t);
    the_sim = t;
    t->seed = run->seed;
    t->trace = run->trace;
    coverage = run->coverage;
    t->next_id = 1;
    cnk_rng_seed(&t->rng, t->seed * UINT64_C(0x9e3779b97f4a7c15) + 3);
    t->buf = malloc(PAYLOAD_MAX);
    for (int n = 0; n < STREAMS_MAX; n++) t->streams[n].base = calloc(ENTRIES_MAX + 2, sizeof(int64_t));
    sim_disk_options disk = SIM_DISK_OPTIONS_INIT;
    disk.no_direct = chance(t, 1, 8);
    t->disk = sim_disk_new(below(t, UINT64_MAX), &disk);
    t->wal_options = (cnk_wal_options)CNK_WAL_OPTIONS_INIT;
    t->wal_options.dir = "wal";
    t->wal_options.file_bytes = 100000 + below(t, 200000);
    t->wal_options.budget_bytes = t->wal_options.file_bytes * (8 + below(t, 8));
    t->wal_options.cache_bytes = 1 << 20;
    t->options = (cnk_tier_options)CNK_TIER_OPTIONS_INIT;
    t->options.dir = "packs";
    t->options.retry_ms = 5;
    t->options.pool_bytes = 4 << 20;
    t->options.calm_bytes_per_s = chance(t, 1, 2) ? 0 : 10 << 20;
    t->options.row_cache_bytes = chance(t, 1, 2) ? 0 : 30000;
    while (!t->failed && t->worlds < WORLDS_MAX && (t->calls < CALLS_MIN || t->crashes == 0 || t->worlds < 5))
        life(t, false);
    if (!t->failed) life(t, true);
    if (!t->failed && chance(t, 1, 2)) damaged_life(t);
    run->calls = t->calls;
    run->crashes = t->crashes;
    run->worlds = t->worlds;
    bool ok = !t->failed;
    if (!ok) memcpy(run->what, t->what, sizeof t->what);
    sim_disk_free(t->disk);
    for (int n = 0; n < STREAMS_MAX; n++) free(t->streams[n].base);
    free(t->buf);
    free(t);
    return ok;
}

/* ---- the program ---- */

/* The tier's own, then those of the WAL that show here. */
static const char *const bugs[CNK_TIER_BUG_COUNT + 3] = {
    "none",           "pack-not-synced",  "rename-not-synced", "deleted-too-early", "found-not-synced",
    "name-used-twice", "leave-committed", "tell-early"};

static void bug_set(size_t bug) {
    static const enum cnk_wal_bug of_wal[] = {CNK_WAL_BUG_LEAVE_COMMITTED, CNK_WAL_BUG_TELL_EARLY};
    const bool tiers = bug < CNK_TIER_BUG_COUNT;
    cnk_tier_bug = tiers ? (enum cnk_tier_bug)bug : CNK_TIER_BUG_NONE;
    cnk_wal_bug = tiers ? CNK_WAL_BUG_NONE : of_wal[bug - CNK_TIER_BUG_COUNT];
}

static void print_totals(void) {
    printf("%llu files converted, %llu packs, %llu deleted, %llu thinned out; %llu entries read from packs",
           (unsigned long long)totals.files, (unsigned long long)totals.packs, (unsigned long long)totals.deleted,
           (unsigned long long)totals.rewritten, (unsigned long long)totals.entries_checked);
}

int main(int argc, char **argv) {
    static const sim_program program = {"sim_tier", 100, bugs, bug_set, run_seed, print_totals};
    return sim_main(&program, argc, argv);
}
