/* Opening, ports, and what streams tell the tier. tier.h has the rules; README.md the write order. */
#include "tier/tier.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define NAME_DIGITS 16u
#define PROGRESS_NS UINT64_C(1000000000)

#ifdef CNK_TEST_HOOKS
enum cnk_tier_bug cnk_tier_bug;
#endif

/* ---- names ---- */

char *cnk_tier_path(const char *dir, uint64_t seq, const char *suffix) {
    size_t size = strlen(dir) + NAME_DIGITS + strlen(suffix) + 2;
    char *path = cnk_malloc(size);
    if (path) snprintf(path, size, "%s/%016llx%s", dir, (unsigned long long)seq, suffix);
    return path;
}

static bool name_parse(const char *name, const char *suffix, uint64_t *ret_seq) {
    uint64_t seq = 0;
    for (unsigned i = 0; i < NAME_DIGITS; i++) {
        char c = name[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 16;
        if (digit == 16) return false;
        seq = seq << 4 | digit;
    }
    if (strcmp(name + NAME_DIGITS, suffix) != 0) return false;
    *ret_seq = seq;
    return true;
}

typedef struct names {
    const chronik_io *io;
    const char *dir;
    uint64_t *seqs, *temporary;
    size_t seq_count, seq_capacity, temporary_count, temporary_capacity;
} names;

static int name_each(void *arg, const char *name) {
    names *n = arg;
    uint64_t seq;
    bool pack = name_parse(name, ".pack", &seq);
    if (!pack && !name_parse(name, ".tmp", &seq)) return 0; /* not ours, or put aside by fsck */
    uint64_t **items = pack ? &n->seqs : &n->temporary;
    size_t *count = pack ? &n->seq_count : &n->temporary_count;
    size_t *capacity = pack ? &n->seq_capacity : &n->temporary_capacity;
    if (cnk_array_reserve((void **)items, capacity, *count + 1, sizeof **items)) return CHRONIK_ENOMEM;
    (*items)[(*count)++] = seq;
    return 0;
}

static int seq_order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int names_list(names *n, chronik_error *err) {
    int rc = n->io->disk_ops->list(n->io->disk, n->dir, name_each, n, err);
    if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "%s: no memory to list it", n->dir);
    if (rc == 0 && n->seq_count > 0) qsort(n->seqs, n->seq_count, sizeof *n->seqs, seq_order);
    return rc;
}

static void names_free(names *n) {
    cnk_free(n->seqs);
    cnk_free(n->temporary);
}

/* ---- opening ---- */

static int dir_make(const chronik_io *io, const char *dir, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    int rc = io->disk_ops->mkdir(io->disk, dir, &why);
    if (rc == CHRONIK_EEXIST) return 0;
    if (rc) return cnk_error_because(err, rc, &why);
    char *parent = cnk_strdup(dir);
    if (!parent) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory", dir);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) *slash = 0;
    rc = io->disk_ops->sync_dir(io->disk, !slash ? "." : slash == parent ? "/" : parent, err);
    cnk_free(parent);
    return rc;
}

static bool length_same(const chronik_io *io, const cnk_pack *pack) {
    chronik_file *file = NULL;
    uint64_t len = 0;
    int rc = io->disk_ops->open(io->disk, pack->path, CHRONIK_OPEN_READ, NULL, &file);
    if (rc == 0) rc = io->disk_ops->size_get(io->disk, file, NULL, &len);
    io->disk_ops->close(io->disk, file);
    return rc == 0 && len == pack->file_bytes;
}

static int open_pack(cnk_tier *t, uint64_t seq, chronik_error *err, cnk_pack **ret_pack) {
    char *path = cnk_tier_path(t->dir, seq, ".pack");
    if (!path) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to open packs", t->dir);
    int rc = cnk_pack_open(t->io, path, err, ret_pack);
    if (rc == 0 && (*ret_pack)->seq != seq)
        rc = cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: it is another pack, renamed", path);
    cnk_free(path);
    return rc;
}

static int take_one(cnk_tier *t, uint64_t seq, cnk_map *told, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    cnk_pack *pack = cnk_map_remove(told, seq);
    int rc = 0;
    if (pack && !length_same(t->io, pack)) {
        cnk_pack_unref(pack);
        pack = NULL;
    }
    if (!pack || !t->catalog.whole) t->catalog.due = true;
    if (!pack) rc = open_pack(t, seq, &why, &pack);
    if (rc == 0 && (rc = cnk_tier_pack_add(t, pack)) == 0) return 0;
    if (rc == CHRONIK_ENOMEM) cnk_error(&why, rc, 0, "%s: no memory to open its packs", t->dir);
    cnk_pack_unref(pack);
    /* A newer format is no damage: nothing may be done to a directory that is not understood. */
    if (rc != CHRONIK_ECORRUPT && rc != CHRONIK_EIO) return cnk_error_because(err, rc, &why);
    if (t->events.damaged) t->events.damaged(t->events_arg, 0, &why);
    return 0;
}

static void tell_progress(const cnk_tier *t, uint64_t done, uint64_t all, uint64_t *told_ns) {
    if (!t->events.progress) return;
    uint64_t now = t->io->jobs_ops->now_ns(t->io->jobs);
    if (*told_ns && now - *told_ns >= PROGRESS_NS) t->events.progress(t->events_arg, done, all);
    if (*told_ns == 0 || now - *told_ns >= PROGRESS_NS) *told_ns = now;
}

/* What the catalog file tells of packs; it is removed where it cannot be read to its end, so that it does not come back. */
static int read_catalog(cnk_tier *t, cnk_map *told, uint64_t *ret_seq_max, chronik_error *err) {
    char *path = cnk_tier_catalog_path(t->dir, ""), *temporary = cnk_tier_catalog_path(t->dir, ".tmp");
    int rc = path && temporary ? cnk_tier_catalog_read(t->io, t->dir, &t->catalog, told, ret_seq_max, err) : CHRONIK_ENOMEM;
    if (temporary) t->io->disk_ops->unlink(t->io->disk, temporary, NULL); /* else it goes when the file is written anew */
    if (rc && rc != CHRONIK_ENOMEM) {
        rc = t->io->disk_ops->unlink(t->io->disk, path, err);
        if (rc == CHRONIK_ENOTFOUND) rc = 0;
    }
    if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "%s: no memory to read the catalog", t->dir);
    cnk_free(path);
    cnk_free(temporary);
    return rc;
}

static int open_all(cnk_tier *t, chronik_error *err) {
    names n = {.io = t->io, .dir = t->dir};
    cnk_map told = {0};
    uint64_t seq_max = 0;
    int rc = names_list(&n, err);
    for (size_t i = 0; rc == 0 && i < n.temporary_count; i++) {
        char *path = cnk_tier_path(t->dir, n.temporary[i], ".tmp");
        rc = path ? t->io->disk_ops->unlink(t->io->disk, path, err)
                  : cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory for a name in it", t->dir);
        cnk_free(path);
    }
    if (rc == 0) rc = read_catalog(t, &told, &seq_max, err);
    /* A process that was killed may have renamed a pack and not come to sync its name: what is relied upon from here on
     * has to be durable first (S4). Its data is: a pack is renamed only after its sync. */
    if (rc == 0 && !TIER_BUG(FOUND_NOT_SYNCED)) rc = t->io->disk_ops->sync_dir(t->io->disk, t->dir, err);
    uint64_t told_ns = 0;
    for (size_t i = 0; rc == 0 && i < n.seq_count; i++) {
        tell_progress(t, i, n.seq_count, &told_ns);
        rc = take_one(t, n.seqs[i], &told, err);
    }
    if (TIER_BUG(NAME_USED_TWICE)) seq_max = 0;
    if (n.seq_count > 0 && n.seqs[n.seq_count - 1] > seq_max) seq_max = n.seqs[n.seq_count - 1];
    t->next_seq = seq_max + 1;
    cnk_tier_catalog_packs_free(&told);
    names_free(&n);
    return rc;
}

int cnk_tier_open(const chronik_io *io, cnk_wal *wal, const cnk_tier_options *options, const cnk_tier_events *events,
                  void *events_arg, chronik_error *err, cnk_tier **ret_tier) {
    cnk_tier *t = cnk_calloc(1, sizeof *t);
    if (!t) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to open packs", options->dir);
    CNK_ASSERT(pthread_mutex_init(&t->mutex, NULL) == 0);
    t->io = io;
    t->wal = wal;
    t->options = *options;
    if (events) t->events = *events;
    t->events_arg = events_arg;
    t->cold = cnk_tier_cold_ops;
    t->cold.self = t;
    t->drained_post.run = NULL;
    cnk_list_init(&t->packs);
    cnk_list_init(&t->rows);
    cnk_pack_list_init(&t->job.list);
    t->dir = cnk_strdup(options->dir);
    int rc = t->dir ? dir_make(io, t->dir, err) : cnk_error(err, CHRONIK_ENOMEM, 0, "no memory to open packs");
    if (rc == 0) rc = open_all(t, err);
    if (rc)
        cnk_tier_free(t);
    else
        *ret_tier = t;
    return rc;
}

void cnk_tier_free(cnk_tier *t) {
    if (!t) return;
    CNK_ASSERT(t->phase == TIER_IDLE || t->phase == TIER_PAUSED);
    CNK_ASSERT(t->port_count == 0);
    cnk_tier_catalog_free(t);
    cnk_tier_job_clear(&t->job);
    cnk_pack_pool_free(&t->pool);
    pthread_mutex_destroy(&t->mutex);
    cnk_free(t->ports);
    cnk_free(t->sealed);
    cnk_free(t->later);
    cnk_free(t->dir);
    cnk_free(t);
}

const cnk_log_cold *cnk_tier_cold(cnk_tier *t) { return &t->cold; }

void cnk_tier_stats_get(cnk_tier *t, cnk_tier_stats *ret_stats) {
    cnk_tier_lock(t);
    *ret_stats = t->stats;
    cnk_tier_unlock(t);
}

/* ---- ports ---- */

static void nudge_run(chronik_post *post) {
    cnk_tier_port *p = CNK_CONTAINER(post, cnk_tier_port, nudge);
    atomic_store_explicit(&p->nudged, false, memory_order_release);
    cnk_tier_move(p->tier);
}

int cnk_tier_port_open(cnk_tier *t, const chronik_loop *loop, cnk_wal_port *wal_port, cnk_tier_port **ret_port) {
    cnk_tier_port *p = cnk_calloc(1, sizeof *p);
    int rc = CHRONIK_ENOMEM;
    if (!p || t->port_count == TIER_PORTS_MAX) goto out;
    rc = cnk_array_reserve((void **)&t->ports, &t->port_capacity, t->port_count + 1, sizeof *t->ports);
    if (rc == 0 && !t->timer) rc = loop->ops->timer_new(loop->self, cnk_tier_timer, t, &t->timer);
    if (rc) goto out;
    p->tier = t;
    p->loop = loop;
    p->wal_port = wal_port;
    p->ask.run = cnk_tier_port_run;
    p->reply.run = cnk_tier_port_reply;
    p->nudge.run = nudge_run;
    atomic_init(&p->nudged, false);
    cnk_pack_list_init(&p->list);
    t->ports[t->port_count++] = p;
    *ret_port = p;
    p = NULL;
out:
    cnk_free(p);
    return rc;
}

void cnk_tier_port_close(cnk_tier_port *p) {
    if (!p) return;
    cnk_tier *t = p->tier;
    size_t i = 0;
    while (t->ports[i] != p) i++;
    if (i == 0 && t->timer) {
        p->loop->ops->timer_free(p->loop->self, t->timer);
        t->timer = NULL;
    }
    memmove(t->ports + i, t->ports + i + 1, (--t->port_count - i) * sizeof *t->ports);
    cnk_map_free(&p->streams);
    cnk_pack_list_free(&p->list);
    cnk_free(p);
}

static void nudge(cnk_tier_port *p) {
    if (atomic_exchange_explicit(&p->nudged, true, memory_order_acq_rel)) return;
    const chronik_loop *home = p->tier->ports[0]->loop;
    home->ops->post(home->self, &p->nudge);
}

/* ---- streams ---- */

static void hole_add(tier_stream *s, int64_t first_offset, int64_t end_offset, uint64_t first_index,
                     uint64_t last_index, chronik_error *err) {
    if (s->hole_count < CNK_TIER_HOLES_MAX) s->holes[s->hole_count++] = (tier_hole){first_offset, end_offset};
    cnk_error(
        err, CHRONIK_ECORRUPT, 0,
        "stream %016llx: offsets %lld to %lld (indexes %llu to %llu) have left the WAL, and no pack has them: a pack "
        "is missing or damaged",
        (unsigned long long)s->id, (long long)first_offset, (long long)(end_offset - 1),
        (unsigned long long)first_index, (unsigned long long)last_index);
}

/* What has left the WAL must be in packs, from the first wanted entry on. Only what the WAL's own checkpoint says has
 * left can be missed. */
static void holes_find(tier_stream *s, const cnk_wal_state *state, chronik_error *err) {
    uint64_t next = state->first_index;
    int64_t offset = state->start_offset;
    s->hole_count = 0;
    for (size_t i = 0; i < s->count && next <= state->released_index; i++) {
        const cnk_pack_section *x = s->sections[i].s;
        if (x->first_index > next) hole_add(s, offset, x->first_offset, next, x->first_index - 1, err);
        if (x->last_index >= next) {
            next = x->last_index + 1;
            offset = x->end_offset;
        }
    }
    if (next <= state->released_index) hole_add(s, offset, state->released_offset, next, state->released_index, err);
}

/* How far packs go on without a gap from what has left the WAL already. */
static uint64_t packed_to(const tier_stream *s, uint64_t released, int64_t *ret_end_offset) {
    for (size_t i = 0; i < s->count; i++) {
        const cnk_pack_section *x = s->sections[i].s;
        if (x->first_index > released + 1 || x->last_index <= released) continue;
        released = x->last_index;
        *ret_end_offset = x->end_offset;
    }
    return released;
}

int cnk_tier_stream_attach(cnk_tier_port *p, cnk_wal_stream *stream, chronik_error *err) {
    cnk_tier *t = p->tier;
    cnk_wal_state state = *cnk_wal_stream_state(stream);
    chronik_error why = CHRONIK_ERROR_INIT;
    if (cnk_map_put(&p->streams, state.id, stream)) return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a stream");
    uint64_t packed = state.released_index;
    int64_t end_offset = 0;
    cnk_tier_lock(t);
    tier_stream *s = cnk_tier_stream_locked(t, state.id, state.released_index >= state.first_index);
    if (s) {
        s->attached = true;
        cnk_tier_sections_kill_locked(t, s, state.first_index); /* recovered, so durable */
        holes_find(s, &state, &why);
        packed = packed_to(s, state.released_index, &end_offset);
    } else if (state.released_index >= state.first_index) {
        cnk_error(&why, CHRONIK_ENOMEM, 0, "no memory for a stream");
    }
    cnk_tier_unlock(t);
    if (packed > state.last_index)
        cnk_error(&why, CHRONIK_ECORRUPT, 0, "stream %016llx: packs hold entries to %llu, but the WAL ends at %llu",
                  (unsigned long long)state.id, (unsigned long long)packed, (unsigned long long)state.last_index);
    else if (packed > state.released_index)
        cnk_wal_stream_release_to(stream, packed, end_offset);
    if (why.code == 0) return 0;
    if (why.code == CHRONIK_ECORRUPT && t->events.damaged) t->events.damaged(t->events_arg, state.id, &why);
    return cnk_error_because(err, why.code, &why);
}

/* What the port has appended last makes sections die, once it is durable. Without memory to note it, they die at the
 * next start. */
static void death_add_locked(cnk_tier_port *p, uint64_t stream, uint64_t first_index) {
    cnk_tier *t = p->tier;
    if (cnk_array_reserve((void **)&t->deaths, &t->death_capacity, t->death_count + 1, sizeof *t->deaths)) return;
    t->deaths[t->death_count++] = (tier_death){p->wal_port, cnk_wal_port_appended(p->wal_port), stream, first_index};
}

void cnk_tier_stream_trimmed(cnk_tier_port *p, cnk_wal_stream *stream) {
    cnk_tier *t = p->tier;
    const cnk_wal_state *state = cnk_wal_stream_state(stream);
    cnk_tier_lock(t);
    tier_stream *s = cnk_tier_stream_locked(t, state->id, false);
    bool dies = s && s->count > 0 && s->sections[0].s->last_index < state->first_index;
    if (dies) death_add_locked(p, state->id, state->first_index);
    cnk_tier_unlock(t);
    if (dies) nudge(p);
}

uint64_t cnk_tier_last_index_before(cnk_tier_port *p, uint64_t id, int64_t offset) {
    uint64_t index = 0;
    cnk_tier_lock(p->tier);
    const tier_stream *s = cnk_tier_stream_locked(p->tier, id, false);
    for (size_t i = 0; s && i < s->count && s->sections[i].s->end_offset <= offset; i++)
        index = s->sections[i].s->last_index;
    cnk_tier_unlock(p->tier);
    return index;
}

void cnk_tier_stream_dropped(cnk_tier_port *p, uint64_t id) {
    cnk_tier *t = p->tier;
    cnk_map_remove(&p->streams, id);
    cnk_tier_lock(t);
    tier_stream *s = cnk_tier_stream_locked(t, id, t->converting); /* so that a pack under way finds it dead */
    bool dies = s && s->count > 0;
    if (s) s->dropped = true;
    if (dies) death_add_locked(p, id, UINT64_MAX);
    if (s && !dies && !t->converting) cnk_tier_stream_forget_locked(t, s);
    cnk_tier_unlock(t);
    if (dies) nudge(p);
}

/* ---- home ---- */

void cnk_tier_stream_keep(cnk_tier *t, uint64_t id) {
    cnk_tier_lock(t);
    tier_stream *s = cnk_tier_stream_locked(t, id, false);
    if (s) s->attached = true;
    cnk_tier_unlock(t);
}

void cnk_tier_start(cnk_tier *t) {
    size_t it = 0;
    cnk_tier_lock(t);
    for (tier_stream *s; (s = cnk_map_next(&t->streams, &it));) {
        if (s->attached) continue;
        s->dropped = true;
        cnk_tier_sections_kill_locked(t, s, UINT64_MAX); /* the WAL has recovered without it: its drop is durable */
    }
    cnk_tier_unlock(t);
    cnk_tier_streams_forget_dropped(t);
    t->started = true;
    cnk_tier_move(t);
}

void cnk_tier_sealed(cnk_tier *t, uint32_t file_seq) {
    cnk_tier_enqueue(t, file_seq);
    cnk_tier_move(t);
}

static void drained_run(chronik_post *post) {
    cnk_tier *t = CNK_CONTAINER(post, cnk_tier, drained_post);
    void (*drained)(void *) = t->drained;
    t->drained = NULL;
    drained(t->drained_arg);
}

void cnk_tier_drain(cnk_tier *t, void (*drained)(void *arg), void *arg) {
    CNK_ASSERT(!t->drained);
    t->drained = drained;
    t->drained_arg = arg;
    t->drained_post.run = drained_run;
    atomic_store_explicit(&t->stopping, true, memory_order_relaxed);
    if (t->timer) t->ports[0]->loop->ops->timer_set(t->ports[0]->loop->self, t->timer, UINT64_MAX);
    cnk_tier_move(t);
}

/* ---- fsck ---- */

typedef struct teller {
    void (*say)(void *arg, const char *sentence);
    void *arg;
} teller;

CHRONIK_PRINTF(2, 3) static void tell(const teller *to, const char *format, ...) {
    chronik_error text = CHRONIK_ERROR_INIT;
    va_list args;
    va_start(args, format);
    vsnprintf(text.text, sizeof text.text, format, args);
    va_end(args);
    if (to->say) to->say(to->arg, text.text);
}

static int check_one(const chronik_io *io, const char *dir, uint64_t seq, bool quarantine, const teller *to,
                     chronik_error *err) {
    cnk_pack_report report;
    char *path = cnk_tier_path(dir, seq, ".pack"), *aside = cnk_tier_path(dir, seq, ".pack.damaged");
    int rc = path && aside ? cnk_pack_check(io, path, to->say, to->arg, err, &report)
                           : cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to check it", dir);
    if (rc == 0)
        tell(to, "%s: sound: %llu streams, %llu entries, %llu bytes of them", path, (unsigned long long)report.sections,
             (unsigned long long)report.entries, (unsigned long long)report.payload_bytes);
    if (rc == CHRONIK_ECORRUPT && quarantine) {
        int moved = io->disk_ops->rename(io->disk, path, aside, err);
        if (moved == 0) moved = io->disk_ops->sync_dir(io->disk, dir, err);
        if (moved == 0)
            tell(to, "%s: put aside as %s; its streams miss what it held", path, aside);
        else
            rc = moved;
    }
    cnk_free(path);
    cnk_free(aside);
    return rc;
}

/* Does the catalog file tell of the pack as it is? One that cannot be opened has been told of already. */
static bool told_right(const chronik_io *io, cnk_pack *told, const char *catalog, const teller *to) {
    cnk_pack *opened = NULL;
    if (cnk_pack_open(io, told->path, NULL, &opened)) return true;
    bool right = cnk_pack_complete(told, opened) == 0;
    cnk_pack_unref(opened);
    if (!right) tell(to, "%s: it tells of another pack than %s", catalog, told->path);
    return right;
}

static int put_catalog_aside(const chronik_io *io, const char *dir, const char *path, const teller *to, chronik_error *err) {
    char *aside = cnk_tier_catalog_path(dir, ".damaged");
    int rc = aside ? io->disk_ops->rename(io->disk, path, aside, err) : CHRONIK_ENOMEM;
    if (rc == 0) rc = io->disk_ops->sync_dir(io->disk, dir, err);
    if (rc == 0) tell(to, "%s: put aside as %s; the next start writes it anew", path, aside);
    cnk_free(aside);
    return rc;
}

/* A file that ends early costs a start time, and nothing else; one that tells of other packs than there are keeps them from
 * being read. */
static int check_catalog(const chronik_io *io, const names *n, bool quarantine, const teller *to, chronik_error *err) {
    char *path = cnk_tier_catalog_path(n->dir, "");
    chronik_error why = CHRONIK_ERROR_INIT;
    tier_catalog c = {.bytes = 0};
    cnk_map told = {0};
    uint64_t seq_max;
    size_t wrong = 0;
    int rc = path ? cnk_tier_catalog_read(io, n->dir, &c, &told, &seq_max, &why) : CHRONIK_ENOMEM;
    bool cut = rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED;
    if (cut) tell(to, "%s; all from there on is ignored: the next start opens more packs, and writes it anew", why.text);
    for (size_t i = 0; (rc == 0 || cut) && i < n->seq_count; i++) {
        cnk_pack *pack = cnk_map_get(&told, n->seqs[i]);
        if (pack && !told_right(io, pack, path, to)) wrong++;
    }
    if (rc == 0 && !wrong) tell(to, "%s: sound: it tells of %llu packs", path, (unsigned long long)told.count);
    if (rc && !cut && rc != CHRONIK_ENOTFOUND) cnk_error_because(err, rc, &why);
    if (cut || rc == CHRONIK_ENOTFOUND) rc = 0;
    if (rc == 0 && (cut || wrong) && quarantine) rc = put_catalog_aside(io, n->dir, path, to, err);
    if (rc == 0 && wrong)
        rc = cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: it tells of %llu packs wrongly", path, (unsigned long long)wrong);
    cnk_tier_catalog_packs_free(&told);
    cnk_free(path);
    return rc;
}

int cnk_tier_check(const chronik_io *io, const char *dir, bool quarantine, void (*say)(void *arg, const char *sentence),
                   void *say_arg, chronik_error *err) {
    names n = {.io = io, .dir = dir};
    teller to = {say, say_arg};
    int worst = 0, rc = names_list(&n, err);
    if (rc == 0) {
        rc = check_catalog(io, &n, quarantine, &to, err);
        worst = rc == CHRONIK_ECORRUPT ? rc : 0;
        if (worst) rc = 0;
    }
    for (size_t i = 0; rc == 0 && i < n.seq_count; i++) {
        rc = check_one(io, dir, n.seqs[i], quarantine, &to, err);
        if (rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED) {
            if (worst != CHRONIK_ECORRUPT) worst = rc;
            rc = 0;
        }
    }
    for (size_t i = 0; rc == 0 && i < n.temporary_count; i++)
        tell(&to, "%s/%016llx.tmp: of a conversion that did not end; the next start removes it", dir,
             (unsigned long long)n.temporary[i]);
    names_free(&n);
    return rc ? rc : worst;
}
