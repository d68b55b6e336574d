/* The tier over a real WAL on real files: what leaves the WAL is found in packs, byte for byte, whatever happens
 * between. The proof under crashes of a machine is tests/sim's. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chronik/io_posix.h>
#include <chronik/wal.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cold_read.h"
#include "io/event.h"
#include "leave_libcheck.h"
#include "segment/pack.h"
#include "tier/internal.h"
#include "wal/internal.h"

enum { STREAMS_MAX = 64, PORTS = 2, ENTRIES_MAX = 100000, FILE_BYTES = 1 << 20 };

/* ---- entries: all of an entry follows from its stream and index ---- */

static uint64_t mix(uint64_t stream, uint64_t index) {
    uint64_t v = stream * UINT64_C(0x9e3779b97f4a7c15) ^ (index + 1) * UINT64_C(0xbf58476d1ce4e5b9);
    v ^= v >> 29;
    return v * UINT64_C(0x94d049bb133111eb) ^ v >> 31;
}

static cnk_wal_entry entry_of(uint64_t stream, uint64_t index) {
    uint64_t v = mix(stream, index);
    cnk_wal_entry e = {.index = index, .term = 1 + (uint32_t)(index / 500), .max_timestamp = -1};
    e.kind = index == 1        ? CNK_ENTRY_CONFIG
             : index % 41 == 0 ? CNK_ENTRY_LEADER
             : index % 37 == 0 ? CNK_ENTRY_COMMAND
                               : CNK_ENTRY_DATA;
    e.len = e.kind == CNK_ENTRY_LEADER ? 0 : e.kind != CNK_ENTRY_DATA ? 40 : (uint32_t)(100 + v % 3000);
    if (e.kind == CNK_ENTRY_DATA && v % 301 == 0) e.len = 400000;
    if (e.kind == CNK_ENTRY_DATA) {
        e.count = 1 + (uint32_t)(v >> 20) % 7;
        e.max_timestamp = (int64_t)(index * 10 + (v >> 30) % 50);
    }
    memcpy(e.aux, &v, 6);
    return e;
}

static void payload_of(uint64_t stream, uint64_t index, uint8_t *buf, uint32_t len) {
    cnk_rng rng;
    cnk_rng_seed(&rng, mix(stream, index));
    cnk_rng_fill(&rng, buf, len);
}

/* Offsets of a stream's entries, by index, computed as far as is asked. */
typedef struct offsets {
    int64_t base[ENTRIES_MAX + 1];
    uint64_t known;
} offsets;
static offsets *offsets_of[STREAMS_MAX];

static int64_t base_offset(uint64_t stream, uint64_t index) {
    offsets *o = offsets_of[stream];
    if (!o) o = offsets_of[stream] = calloc(1, sizeof *o), o->known = 1;
    ck_assert_uint_le(index, ENTRIES_MAX);
    for (; o->known < index; o->known++) o->base[o->known + 1] = o->base[o->known] + entry_of(stream, o->known).count;
    return o->base[index];
}

/* The first DATA entry that ends after the offset. */
static uint64_t index_at(uint64_t stream, int64_t offset, uint64_t from) {
    uint64_t i = from ? from : 1;
    while (entry_of(stream, i).kind != CNK_ENTRY_DATA || base_offset(stream, i) + entry_of(stream, i).count <= offset)
        i++;
    return i;
}

/* ---- a disk that can be told to fail ---- */

static chronik_io *real;
static chronik_io faulty;
static chronik_disk_ops faulty_ops;
static chronik_jobs_ops faulty_jobs_ops;
static _Atomic long pack_reads; /* and of the catalog file */
static long fail_next_open = -1; /* of the calls of the next start */
static long starve_next_open = -1; /* of its allocations */
static _Atomic long calls, fail_at; /* calls that concern packs; the one that fails, or -1 */
static _Atomic int fail_code;
static _Atomic bool full; /* packs get no space */
static _Atomic bool catalog_full; /* the catalog file cannot be written */
static _Atomic bool hasty;        /* the clock is seconds ahead whenever it is looked at */
static _Atomic(chronik_file *) pack_files[4096];

static _Atomic(chronik_file *) *slot_of(const chronik_file *f) { return &pack_files[((uintptr_t)f >> 4) % 4096]; }
static bool is_pack(const chronik_file *f) { return f && atomic_load(slot_of(f)) == f; }

static int fault(bool ours, chronik_error *err) {
    if (!ours) return 0;
    long n = atomic_fetch_add(&calls, 1);
    if (n != fail_at) return 0;
    int code = fail_code;
    if (err) snprintf(err->text, sizeof err->text, "injected"), err->code = code;
    return code;
}

static _Atomic(void (*)(void)) before_open; /* happens while the next pack is being opened */

static int f_open(void *d, const char *path, unsigned flags, chronik_error *err, chronik_file **ret) {
    bool ours = strstr(path, "/packs/") != NULL;
    void (*first)(void) = strstr(path, "/packs/0") ? atomic_exchange(&before_open, NULL) : NULL;
    if (first) first();
    int rc = fault(ours, err);
    if (catalog_full && strstr(path, "/packs/catalog")) rc = CHRONIK_ENOSPC;
    if (rc == 0) rc = real->disk_ops->open(d, path, flags, err, ret);
    if (rc == 0 && ours) atomic_store(slot_of(*ret), *ret);
    return rc;
}
static void f_close(void *d, chronik_file *f) {
    if (is_pack(f)) atomic_store(slot_of(f), NULL);
    real->disk_ops->close(d, f);
}
static int f_write(void *d, chronik_file *f, const struct iovec *iov, int n, uint64_t pos, chronik_error *err) {
    int rc = fault(is_pack(f), err);
    return rc ? rc : real->disk_ops->write(d, f, iov, n, pos, err);
}
static int64_t f_read(void *d, chronik_file *f, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    pack_reads += is_pack(f);
    int rc = fault(is_pack(f), err);
    return rc ? rc : real->disk_ops->read(d, f, buf, len, pos, err);
}
static int f_size(void *d, chronik_file *f, chronik_error *err, uint64_t *ret) {
    int rc = fault(is_pack(f), err);
    return rc ? rc : real->disk_ops->size_get(d, f, err, ret);
}
static int f_sync(void *d, chronik_file *f, chronik_error *err) {
    int rc = fault(is_pack(f), err);
    return rc ? rc : real->disk_ops->sync(d, f, err);
}
static int f_allocate(void *d, chronik_file *f, uint64_t len, chronik_error *err) {
    if (full && is_pack(f)) {
        if (err) snprintf(err->text, sizeof err->text, "no space (injected)"), err->code = CHRONIK_ENOSPC;
        return CHRONIK_ENOSPC;
    }
    int rc = fault(is_pack(f), err);
    return rc ? rc : real->disk_ops->allocate(d, f, len, err);
}
static int f_rename(void *d, const char *from, const char *to, chronik_error *err) {
    int rc = fault(strstr(from, "/packs/") != NULL, err);
    return rc ? rc : real->disk_ops->rename(d, from, to, err);
}
static int f_unlink(void *d, const char *path, chronik_error *err) {
    int rc = fault(strstr(path, "/packs/") != NULL, err);
    return rc ? rc : real->disk_ops->unlink(d, path, err);
}
static int f_sync_dir(void *d, const char *path, chronik_error *err) {
    int rc = fault(strstr(path, "/packs") != NULL, err);
    return rc ? rc : real->disk_ops->sync_dir(d, path, err);
}

static uint64_t f_now(void *jobs) {
    static _Atomic uint64_t ns;
    return hasty ? atomic_fetch_add(&ns, 600000000) : real->jobs_ops->now_ns(jobs);
}

static void faulty_make(void) {
    faulty = *real;
    faulty_ops = *real->disk_ops;
    faulty_ops.open = f_open;
    faulty_ops.close = f_close;
    faulty_ops.write = f_write;
    faulty_ops.read = f_read;
    faulty_ops.size_get = f_size;
    faulty_ops.sync = f_sync;
    faulty_ops.allocate = f_allocate;
    faulty_ops.rename = f_rename;
    faulty_ops.unlink = f_unlink;
    faulty_ops.sync_dir = f_sync_dir;
    faulty.disk_ops = &faulty_ops;
    faulty_jobs_ops = *real->jobs_ops;
    faulty_jobs_ops.now_ns = f_now;
    faulty.jobs_ops = &faulty_jobs_ops;
    calls = 0;
    fail_at = -1;
    full = catalog_full = false;
}

/* ---- the world ---- */

typedef struct world {
    char dir[64], wal_dir[80], pack_dir[80], catalog[90];
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_tier *tier;
    cnk_wal_port *wal_ports[PORTS];
    cnk_tier_port *ports[PORTS];
    cnk_wal_stream *streams[STREAMS_MAX];
    uint64_t durable[STREAMS_MAX], commit_limit[STREAMS_MAX]; /* limit 0: all that is durable is committed */
    chronik_timer *tick;
    int drained, wal_drained;
    unsigned writable, paused, resumed, fenced, rested;
    _Atomic unsigned damaged; /* told by jobs, too; the others by home */
    uint64_t damaged_stream;
    chronik_error damage;
    bool attach_may_fail, start_may_fail;
    uint64_t budget;
    bool hasty; /* while packs are opened */
    unsigned progress;
    uint64_t progress_done;
    uint64_t wal_checkpoint; /* the newest when it was closed */
    int report_fd; /* where a child tells what is durable */
} world;

static world w;

static void commit(uint64_t id) {
    uint64_t to = w.durable[id], limit = w.commit_limit[id];
    cnk_wal_stream_commit_set(w.streams[id], limit && limit < to ? limit : to);
}

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    uint64_t id = cnk_wal_stream_state(s)->id;
    w.durable[id] = index;
    commit(id);
    if (w.report_fd) {
        uint64_t told[2] = {id, index};
        ck_assert_int_eq((int)write(w.report_fd, told, sizeof told), (int)sizeof told);
    }
}
static void on_durable_end(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg, (void)why;
    w.fenced++;
}
static void on_writable(void *arg) {
    (void)arg;
    w.writable++;
    cnk_event_loop_stop(w.loop);
}
static void on_sealed(void *arg, uint32_t seq) {
    (void)arg;
    cnk_tier_sealed(w.tier, seq);
}
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg, (void)out;
    *ret_applied_index = w.durable[cnk_wal_stream_state(s)->id];
    return 0;
}
static const cnk_wal_port_events wal_events = {on_durable,  on_durable_end, on_fenced,
                                               on_writable, on_sealed,      on_snapshot};

static void on_paused(void *arg, const chronik_error *why) {
    (void)arg, (void)why;
    w.paused++;
}
static void on_resumed(void *arg) {
    (void)arg;
    w.resumed++;
}
static void on_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    (void)arg;
    w.damaged_stream = stream;
    w.damage = *what;
    w.damaged++;
}
static void on_progress(void *arg, uint64_t done, uint64_t all) {
    (void)arg;
    ck_assert_uint_ge(done, w.progress_done);
    ck_assert_uint_le(done, all);
    w.progress++;
    w.progress_done = done;
}
static void on_rested(void *arg) {
    (void)arg;
    ck_assert_uint_eq(w.tier->pool.count, 0);
    w.rested++;
}
static const cnk_tier_events tier_events = {on_paused, on_resumed, on_damaged, on_progress, on_rested};

static void on_tick(void *arg) {
    (void)arg;
    cnk_event_loop_stop(w.loop);
}

/* Runs the loop for a moment. */
static void turn(unsigned ms) {
    const chronik_loop *l = cnk_event_loop_get(w.loop);
    l->ops->timer_set(l->self, w.tick, l->ops->now_ns(l->self) + ms * UINT64_C(1000000));
    cnk_event_loop_run(w.loop);
}

static void world_open(void) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &real), 0);
    faulty_make();
    ck_assert_int_eq(cnk_event_loop_new(NULL, &err, &w.loop), 0);
    const chronik_loop *l = cnk_event_loop_get(w.loop);
    ck_assert_int_eq(l->ops->timer_new(l->self, on_tick, NULL, &w.tick), 0);
    cnk_wal_options wo = CNK_WAL_OPTIONS_INIT;
    wo.dir = w.wal_dir;
    wo.file_bytes = FILE_BYTES;
    wo.budget_bytes = 64 << 20;
    wo.cache_bytes = 4 << 20;
    ck_assert_msg(cnk_wal_open(&faulty, &wo, NULL, NULL, &err, &w.wal) == 0, "%s", err.text);
    cnk_tier_options to = CNK_TIER_OPTIONS_INIT;
    to.dir = w.pack_dir;
    to.retry_ms = 1;
    to.calm_bytes_per_s = 0;
    to.pool_bytes = 4 << 20;
    to.row_cache_bytes = 100 << 10;
    to.budget_bytes = w.budget;
    hasty = w.hasty;
    calls = 0;
    fail_at = fail_next_open;
    cnk_mem_fail_at(starve_next_open);
    int opened = cnk_tier_open(&faulty, w.wal, &to, &tier_events, NULL, &err, &w.tier);
    cnk_mem_fail_at(-1);
    ck_assert_msg(opened == 0 || w.start_may_fail, "%s", err.text);
    fail_at = -1;
    hasty = false;
    if (opened) {
        w.tier = NULL;
        cnk_wal_free(w.wal);
        l->ops->timer_free(l->self, w.tick);
        cnk_event_loop_free(w.loop);
        chronik_io_posix_free(real);
        return;
    }
    for (int i = 0; i < PORTS; i++) {
        ck_assert_int_eq(cnk_wal_port_open(w.wal, l, &wal_events, NULL, &w.wal_ports[i]), 0);
        ck_assert_int_eq(cnk_tier_port_open(w.tier, l, w.wal_ports[i], &w.ports[i]), 0);
    }
    memset(w.streams, 0, sizeof w.streams);
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(w.wal, &it));) {
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        ck_assert_uint_ge(st->last_index, w.durable[st->id]);
        w.streams[st->id] = s;
        w.durable[st->id] = st->last_index;
        cnk_wal_stream_attach(w.wal_ports[st->id % PORTS], s, NULL);
        int rc = cnk_tier_stream_attach(w.ports[st->id % PORTS], s, &err);
        ck_assert_msg(rc == 0 || w.attach_may_fail, "%s", err.text);
        commit(st->id);
    }
    cnk_tier_start(w.tier);
}

static void world_new(void) {
    memset(&w, 0, sizeof w);
    const char *tmp = getenv("TMPDIR");
    snprintf(w.dir, sizeof w.dir, "%s/chronik-tier-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(w.dir));
    snprintf(w.wal_dir, sizeof w.wal_dir, "%s/wal", w.dir);
    snprintf(w.pack_dir, sizeof w.pack_dir, "%s/packs", w.dir);
    snprintf(w.catalog, sizeof w.catalog, "%s/catalog", w.pack_dir);
    world_open();
}

static void on_tier_drained(void *arg) {
    (void)arg;
    w.drained++;
}
static void on_wal_drained(void *arg, int code) {
    (void)arg, (void)code;
    w.wal_drained++;
}

static void world_close(void) {
    w.drained = w.wal_drained = 0;
    cnk_tier_drain(w.tier, on_tier_drained, NULL);
    while (!w.drained) turn(2);
    for (int i = 0; i < PORTS; i++) {
        int before = w.wal_drained;
        cnk_wal_drain(w.wal_ports[i], on_wal_drained, NULL);
        while (w.wal_drained == before) turn(2);
    }
    for (int i = PORTS; i-- > 0;) {
        cnk_tier_port_close(w.ports[i]);
        cnk_wal_port_close(w.wal_ports[i]);
    }
    cnk_tier_free(w.tier);
    w.wal_checkpoint = w.wal->checkpoint_number;
    cnk_wal_free(w.wal);
    const chronik_loop *l = cnk_event_loop_get(w.loop);
    l->ops->timer_free(l->self, w.tick);
    cnk_event_loop_free(w.loop);
    chronik_io_posix_free(real);
}

static void world_remove(void) {
    world_close();
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", w.dir);
    ck_assert_int_eq(system(command), 0);
    for (int i = 0; i < STREAMS_MAX; i++) free(offsets_of[i]), offsets_of[i] = NULL;
}

static void world_reopen(void) {
    world_close();
    world_open();
}

static cnk_tier_stats stats(void) {
    cnk_tier_stats s;
    cnk_tier_stats_get(w.tier, &s);
    return s;
}

/* ---- filling ---- */

static void stream_new(uint64_t id) {
    ck_assert_int_eq(cnk_wal_stream_new(w.wal_ports[id % PORTS], id, NULL, &w.streams[id]), 0);
    w.durable[id] = 0;
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(cnk_tier_stream_attach(w.ports[id % PORTS], w.streams[id], &err), 0);
}

static void append(uint64_t id) {
    static uint8_t buf[400000];
    const cnk_wal_state *st = cnk_wal_stream_state(w.streams[id]);
    cnk_wal_entry e = entry_of(id, st->last_index + 1);
    e.base_offset = base_offset(id, e.index);
    ck_assert_int_eq(e.base_offset, st->next_offset);
    payload_of(id, e.index, buf, e.len);
    cnk_wal_payload p = {.iov = {{buf, e.len}}, .iov_count = 1, .crc = cnk_crc32c(0, buf, e.len)};
    for (;;) {
        int rc = cnk_wal_append(w.streams[id], &e, &p);
        if (rc == 0) return;
        ck_assert_int_eq(rc, CHRONIK_EAGAIN);
        cnk_wal_kick(w.wal_ports[id % PORTS]);
        turn(5);
    }
}

static void kick(void) {
    for (int i = 0; i < PORTS; i++) cnk_wal_kick(w.wal_ports[i]);
}

/* Appends to streams 1 to n in turn, mixed. */
static void fill(uint64_t n, int entries) {
    for (int i = 0; i < entries; i++) {
        append(1 + mix(n, (uint64_t)i) % n);
        if (i % 64 == 63) {
            kick();
            turn(0);
        }
    }
    kick();
}

/* Until all is durable, and all sealed files are converted and gone. */
static void settle(void) {
    cnk_wal_stats wal;
    for (int quiet = 0; quiet < 5; quiet++) {
        kick();
        turn(2);
        for (uint64_t id = 0; id < STREAMS_MAX; id++)
            if (w.streams[id] && w.durable[id] < cnk_wal_stream_state(w.streams[id])->last_index) quiet = -1;
        cnk_wal_stats_get(w.wal, &wal);
        if (stats().files_waiting > 0) quiet = -1;
        if (w.damaged == 0 && wal.files_live > 1 + stats().files_kept) quiet = -1; /* what is damaged stays */
    }
}

/* ---- checking ---- */

static uint8_t expected[400000];

/* Reads offsets [from, released) of the stream from the tier, `max` bytes at a time, and compares all. */
static uint64_t check_cold(uint64_t id, int64_t from, uint32_t max) {
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    const cnk_wal_state *st = cnk_wal_stream_state(w.streams[id]);
    int64_t end = st->released_offset;
    uint64_t index = 0, batches = 0;
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    while (from < end) {
        chronik_error err = CHRONIK_ERROR_INIT;
        out.len = 0;
        ck_assert_uint_gt(cold->bytes_hint(cold->self, id, from, end, max), 0);
        int rc = cold_read(cold, id, from, end, max, true, &out, &err);
        ck_assert_msg(rc == 0, "stream %d offset %lld: %s", (int)id, (long long)from, err.text);
        ck_assert_uint_gt(out.len, 0);
        index = index_at(id, from, index);
        ck_assert(out.len <= max || out.len == entry_of(id, index).len);
        for (size_t at = 0; at < out.len; batches++) {
            index = index_at(id, from, index);
            cnk_wal_entry e = entry_of(id, index);
            ck_assert_uint_le(e.len, out.len - at);
            payload_of(id, index, expected, e.len);
            ck_assert_mem_eq(out.data + at, expected, e.len);
            at += e.len;
            from = base_offset(id, index) + e.count;
        }
    }
    cnk_writer_free(&out);
    return batches;
}

static void check_hot(uint64_t id) {
    const cnk_wal_state *st = cnk_wal_stream_state(w.streams[id]);
    for (uint64_t i = st->released_index + 1; i <= st->last_index; i++) {
        cnk_wal_place p;
        ck_assert_int_eq(cnk_wal_find_index(w.streams[id], i, &p), 0);
        cnk_wal_entry e = entry_of(id, i);
        ck_assert_uint_eq(p.entry.len, e.len);
        ck_assert_int_eq(p.entry.base_offset, base_offset(id, i));
    }
    if (st->released_index > 0) ck_assert_int_eq(st->released_offset, base_offset(id, st->released_index + 1));
}

/* All streams, all of each: nothing is missing between packs and the WAL. */
static uint64_t check_all(uint32_t max) {
    uint64_t batches = 0;
    for (uint64_t id = 0; id < STREAMS_MAX; id++) {
        if (!w.streams[id]) continue;
        const cnk_wal_state *st = cnk_wal_stream_state(w.streams[id]);
        ck_assert_uint_ge(st->last_index, w.durable[id]);
        batches += check_cold(id, st->start_offset, max);
        check_hot(id);
    }
    return batches;
}

/* Nothing is missing or damaged, also after a new start; the end of a test. */
static void ends_whole(void) {
    check_all(100000);
    world_reopen();
    check_all(100000);
    ck_assert_int_eq((int)w.damaged, 0);
    world_remove();
}

/* ---- tests ---- */

START_TEST(files_become_packs_and_are_read_back) {
    world_new();
    for (uint64_t id = 1; id <= 20; id++) stream_new(id);
    fill(20, 8000);
    settle();
    cnk_tier_stats s = stats();
    ck_assert_uint_gt(s.files_converted, 5);
    ck_assert_uint_gt(s.packs_written, 5);
    ck_assert_uint_eq(s.packs, s.packs_written);
    ck_assert_int_eq((int)w.damaged, 0);
    uint64_t batches = check_all(100000);
    ck_assert_uint_gt(batches, 4000);
    ck_assert_uint_eq(check_all(2000000), batches);
    ck_assert_uint_eq(check_all(1), batches);
    for (int round = 0; round < 3; round++) {
        world_reopen();
        ck_assert_uint_ge(check_all(50000), batches);
        fill(20, 700);
        settle();
        batches = check_all(300000);
    }
    ck_assert_int_eq((int)w.damaged, 0);
    /* What was converted is free: the WAL does not grow with what has been written. */
    cnk_wal_stats wal;
    for (int i = 0; i < 200; i++) {
        cnk_wal_stats_get(w.wal, &wal);
        if (wal.files_live <= 4) break;
        turn(5);
    }
    ck_assert_uint_le(wal.files_live, 4);
    world_remove();
}
END_TEST

/* Opening packs tells how far it is, each second, and nothing where it is done before. */
START_TEST(slow_starts_tell_their_progress) {
    world_new();
    for (uint64_t id = 1; id <= 3; id++) stream_new(id);
    fill(3, 4000);
    settle();
    uint64_t packs = stats().packs;
    ck_assert_uint_gt(packs, 5);
    world_reopen();
    ck_assert_uint_eq(w.progress, 0);
    w.hasty = true;
    world_reopen();
    ck_assert_uint_ge(w.progress, (unsigned)packs / 2 - 1);
    ck_assert_uint_gt(w.progress_done, packs / 2);
    w.hasty = false;
    check_all(100000);
    world_remove();
}
END_TEST

START_TEST(offsets_timestamps_and_limits_are_found) {
    world_new();
    stream_new(3);
    for (int i = 0; i < 3000; i++) {
        append(3);
        if (i % 50 == 0) kick(), turn(0);
    }
    settle();
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    int64_t end = cnk_wal_stream_state(w.streams[3])->released_offset;
    uint64_t last = cnk_wal_stream_state(w.streams[3])->released_index;
    ck_assert_int_gt(end, 2000);
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    for (int64_t offset = 0; offset < end; offset += 37) { /* every offset leads to the batch that holds it */
        uint64_t index = index_at(3, offset, 0);
        if (index > last) break;
        cnk_wal_entry e = entry_of(3, index);
        out.len = 0;
        ck_assert_int_eq(cold_read(cold, 3, offset, end, 0, true, &out, &err), 0);
        ck_assert_uint_eq(out.len, 0); /* bytes_max 0 asks for nothing */
        ck_assert_int_eq(cold_read(cold, 3, offset, end, 1, true, &out, &err), 0);
        ck_assert_uint_eq(out.len, e.len);
        out.len = 0;
        ck_assert_int_eq(cold_read(cold, 3, offset, end, e.len - 1, false, &out, &err), 0);
        ck_assert_uint_eq(out.len, 0);
        ck_assert_int_eq(cold_read(cold, 3, offset,
                                    offset < base_offset(3, index) ? base_offset(3, index) + 1 : offset + 1, 1 << 20,
                                    true, &out, &err),
                         0);
        ck_assert_uint_eq(out.len, e.len);
    }
    for (int64_t time = 0; time < 28000; time += 173) {
        int64_t base = -1, want = -1, from = time % 900;
        for (uint64_t i = 1; i <= last && want < 0; i++) {
            cnk_wal_entry e = entry_of(3, i);
            if (e.kind == CNK_ENTRY_DATA && e.max_timestamp >= time && base_offset(3, i) + e.count > from)
                want = base_offset(3, i);
        }
        int rc = cold->find_timestamp(cold->self, 3, time, from, end, &base, &err);
        ck_assert_int_eq(rc, want >= 0 ? 0 : CHRONIK_ENOTFOUND);
        ck_assert_int_eq(base, want);
    }
    out.len = 0;
    ck_assert_int_eq(cold_read(cold, 4, 0, 100, 1000, true, &out, &err), 0);
    ck_assert_uint_eq(out.len, 0);
    ck_assert_uint_eq(cold->bytes_hint(cold->self, 4, 0, 100, 1000), 0);
    ck_assert_uint_eq(cold->bytes_hint(cold->self, 3, end, end + 100, 1000), 0);
    cnk_writer_free(&out);
    world_remove();
}
END_TEST

/* A stream whose entries are not committed when their file is converted: they are rewritten, and go into a pack later,
 * before what came after them. */
static void say_wal(void *arg, const char *text) {
    (void)arg;
    if (getenv("CNK_TEST_SAY")) puts(text);
}

static void checkpoint_spoil(uint64_t number, bool remove_it) {
    char path[160];
    snprintf(path, sizeof path, "%s/%020llu.checkpoint", w.wal_dir, (unsigned long long)number);
    if (remove_it) {
        ck_assert_int_eq(unlink(path), 0);
        return;
    }
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, 70, SEEK_SET), 0);
    int c = fgetc(f);
    ck_assert_int_eq(fseek(f, 70, SEEK_SET), 0);
    fputc(c ^ 1, f);
    ck_assert_int_eq(fclose(f), 0);
}

/* The newest checkpoint is damaged (0), gone (1), or both that are kept are damaged (2) or gone (3), and most of the data has
 * left for packs. Either the log opens, or it says what to do, and the repair makes it open. Nothing acknowledged is lost: what
 * the log does not have any more is in packs. */
START_TEST(packs_make_up_for_a_lost_checkpoint) {
    world_new();
    for (uint64_t id = 1; id <= 4; id++) stream_new(id);
    fill(4, 3000);
    settle();
    fill(4, 1500);
    settle();
    ck_assert_uint_gt(stats().packs, 3);
    world_reopen(); /* begins a file, in which each stream has something: what is only in packs, fsck cannot know of */
    for (uint64_t id = 1; id <= 4; id++) append(id);
    settle();
    uint64_t newest = w.wal->checkpoint_number;
    world_close();
    newest = newest > w.wal_checkpoint ? newest : w.wal_checkpoint;
    checkpoint_spoil(newest, _i % 2);
    if (_i >= 2) checkpoint_spoil(newest - 1, _i % 2);
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &real), 0);
    int rc = cnk_wal_fsck(real, w.wal_dir, 0, say_wal, NULL, &err);
    if (rc) {
        ck_assert_int_eq(rc, CHRONIK_ECORRUPT);
        rc = cnk_wal_fsck(real, w.wal_dir, CHRONIK_WAL_FSCK_CUT, say_wal, NULL, &err);
        ck_assert_msg(rc == 0, "%s", err.text);
    }
    chronik_io_posix_free(real);
    world_open();
    check_all(100000);
    ck_assert_int_eq((int)w.damaged, 0);
    fill(4, 500);
    settle();
    check_all(100000);
    world_reopen();
    check_all(100000);
    world_remove();
}
END_TEST

START_TEST(what_is_uncommitted_waits_and_keeps_its_place) {
    world_new();
    for (uint64_t id = 1; id <= 4; id++) stream_new(id);
    w.commit_limit[2] = 30;
    w.commit_limit[3] = 1;
    fill(4, 3000);
    settle();
    ck_assert_uint_gt(stats().files_converted, 2);
    ck_assert_uint_le(cnk_wal_stream_state(w.streams[2])->released_index, 30);
    ck_assert_uint_le(cnk_wal_stream_state(w.streams[3])->released_index, 1);
    check_all(70000);
    for (int round = 1; round < 6; round++) {
        w.commit_limit[2] += 150;
        w.commit_limit[3] += 301;
        commit(2);
        commit(3);
        fill(4, 700);
        settle();
        check_all(70000);
        if (round == 3) world_reopen();
    }
    w.commit_limit[2] = w.commit_limit[3] = 0;
    fill(4, 2000);
    settle();
    check_all(70000);
    ck_assert_uint_gt(cnk_wal_stream_state(w.streams[2])->released_index, 1000);
    ck_assert_int_eq((int)w.damaged, 0);
    world_remove();
}
END_TEST

static _Atomic bool packing;

static void hold(void) {
    packing = true;
    while (packing) usleep(1000);
}

/* Stream 2 gets no more entries, and its last become committed after its file was walked: the file goes all the same. */
START_TEST(what_is_committed_while_its_pack_is_made_does_not_keep_its_file) {
    cnk_wal_place p;
    cnk_wal_stats wal;
    world_new();
    for (uint64_t id = 1; id <= 2; id++) stream_new(id);
    w.commit_limit[2] = 1;
    for (int i = 0; i < 9; i++) append(2);
    while (w.durable[2] < 9) kick(), turn(1);
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 9, &p), 0);
    uint32_t file = p.file_seq;
    before_open = hold;
    while (!packing) fill(1, 10), turn(1);
    w.commit_limit[2] = 0;
    commit(2);
    packing = false;
    bool there = true;
    for (int i = 0; there && i < 60000; i++) {
        turn(2);
        cnk_wal_stats_get(w.wal, &wal);
        there = (cnk_wal_find_index(w.streams[2], 9, &p) == 0 && p.file_seq == file) || wal.files_live > 2;
    }
    ck_assert(!there);
    check_all(100000);
    fill(1, 1500);
    settle();
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[2])->released_index, 9);
    ends_whole();
}
END_TEST

static void wait_collected(uint64_t packs_max) {
    for (int i = 0; i < 60000 && stats().packs > packs_max; i++) turn(2);
    ck_assert_uint_le(stats().packs, packs_max);
}

/* Streams 1 to n lose all but the last few entries of what has left the WAL. */
static void trim(uint64_t n) {
    for (uint64_t id = 1; id <= n; id++) {
        uint64_t to = cnk_wal_stream_state(w.streams[id])->released_index - 5;
        ck_assert_int_eq(cnk_wal_trim(w.streams[id], to, base_offset(id, to)), 0);
        cnk_tier_stream_trimmed(w.ports[id % PORTS], w.streams[id]);
    }
    kick();
}

START_TEST(dropped_streams_give_their_space_back) {
    world_new();
    for (uint64_t id = 1; id <= 8; id++) stream_new(id);
    fill(8, 4000);
    settle();
    cnk_tier_stats before = stats();
    ck_assert_uint_gt(before.packs, 3);
    for (uint64_t id = 1; id <= 6; id++) {
        ck_assert_int_eq(cnk_wal_stream_drop(w.streams[id]), 0);
        cnk_tier_stream_dropped(w.ports[id % PORTS], id);
        w.streams[id] = NULL;
        w.durable[id] = 0;
    }
    kick();
    for (int i = 0; i < 60000 && stats().pack_bytes > before.pack_bytes / 3 * 2; i++) turn(2);
    ck_assert_uint_le(stats().pack_bytes, before.pack_bytes / 3 * 2); /* packs more than half alive stay as they are */
    ck_assert_uint_gt(stats().packs_rewritten, 2);
    check_all(100000);
    world_reopen();
    check_all(100000);
    for (uint64_t id = 7; id <= 8; id++) {
        ck_assert_int_eq(cnk_wal_stream_drop(w.streams[id]), 0);
        cnk_tier_stream_dropped(w.ports[id % PORTS], id);
        w.streams[id] = NULL;
        w.durable[id] = 0;
    }
    kick();
    wait_collected(0);
    ck_assert_uint_eq(stats().pack_bytes, 0);
    world_reopen();
    ck_assert_uint_eq(stats().packs, 0);
    world_remove();
}
END_TEST

START_TEST(trimmed_logs_give_their_space_back) {
    world_new();
    stream_new(1);
    stream_new(2);
    fill(2, 3000);
    settle();
    cnk_tier_stats before = stats();
    trim(2);
    wait_collected(2); /* where the last entries happen to lie in two */
    ck_assert_uint_lt(stats().pack_bytes, before.pack_bytes);
    check_all(100000);
    world_reopen();
    check_all(100000);
    fill(2, 1000);
    settle();
    check_all(100000);
    ck_assert_int_eq((int)w.damaged, 0);
    world_remove();
}
END_TEST

/* ---- what goes wrong ---- */

START_TEST(a_full_disk_pauses_and_loses_nothing) {
    world_new();
    for (uint64_t id = 1; id <= 5; id++) stream_new(id);
    fill(5, 3000);
    settle();
    unsigned rested = w.rested;
    ck_assert_uint_gt(rested, 0);
    full = true;
    fill(5, 2000);
    for (int i = 0; i < 200 && !w.paused; i++) turn(2);
    ck_assert_uint_gt(w.paused, 0);
    ck_assert_uint_eq(w.resumed, 0);
    ck_assert(stats().paused);
    check_all(50000);
    for (int i = 0; i < 60000 && w.tier->phase != TIER_PAUSED; i++) turn(1);
    ck_assert_uint_gt(w.rested, rested); /* a pause may last */
    full = false;
    rested = w.rested;
    settle();
    ck_assert_uint_gt(w.rested, rested);
    rested = w.rested;
    cnk_tier_move(w.tier);
    ck_assert_uint_eq(w.rested, rested); /* nothing was done since */
    ck_assert_uint_eq(w.resumed, w.paused);
    ck_assert(!stats().paused);
    check_all(50000);
    world_remove();
}
END_TEST

START_TEST(the_budget_holds_up_conversion) {
    world_new();
    world_close();
    w.budget = 3 << 20;
    world_open();
    for (uint64_t id = 1; id <= 5; id++) stream_new(id);
    for (int i = 0; i < 3000 && !w.paused; i++) fill(5, 5), turn(1);
    ck_assert_uint_gt(w.paused, 0);
    ck_assert_uint_ge(stats().pack_bytes, 3 << 20);
    check_all(50000);
    /* Room is made by deleting. */
    for (uint64_t id = 1; id <= 4; id++) {
        ck_assert_int_eq(cnk_wal_stream_drop(w.streams[id]), 0);
        cnk_tier_stream_dropped(w.ports[id % PORTS], id);
        w.streams[id] = NULL;
    }
    kick();
    settle();
    ck_assert_uint_gt(w.resumed, 0);
    check_all(50000);
    world_remove();
}
END_TEST

/* Each call that concerns packs fails once, with a new start after it: nothing is lost, and conversion goes on. */
START_TEST(each_failed_call_is_survived) {
    static const int codes[] = {CHRONIK_EIO, CHRONIK_ENOSPC};
    for (long n = 0;; n++) {
        world_new();
        for (uint64_t id = 1; id <= 4; id++) stream_new(id);
        fail_code = codes[n % 2];
        fail_at = n;
        calls = 0;
        fill(4, 1500);
        settle();
        bool reached = calls > n;
        fail_at = -1;
        ck_assert_uint_eq(w.fenced, 0);
        check_all(90000);
        world_reopen();
        settle();
        check_all(90000);
        ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
        world_remove();
        if (!reached) {
            ck_assert_int_gt(n, 20);
            break;
        }
    }
}
END_TEST

static void flip(const char *path, uint64_t pos) {
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    fseek(f, (long)pos, SEEK_SET);
    int c = fgetc(f);
    fseek(f, (long)pos, SEEK_SET);
    fputc(c ^ 4, f);
    fclose(f);
}

static int count_sentences(void *arg, const char *name) {
    (void)arg;
    return strstr(name, ".damaged") ? 1 : 0;
}

static void say(void *arg, const char *sentence) {
    (void)sentence;
    ++*(int *)arg;
}

static char damaged_path[200];
static int64_t damaged_first, damaged_end;

static void pack_path(char path[200], unsigned seq) { snprintf(path, 200, "%s/%016x.pack", w.pack_dir, seq); }

/* The first pack but one in which the stream has a good part. Which one that is follows from the order of events: of what is
 * appended in turn to two ports, one's may get into a file and the other's into the next. */
static cnk_pack *pack_with(const chronik_io *io, uint64_t stream) {
    for (unsigned seq = 2;; seq++) {
        char path[200];
        cnk_pack *p = NULL;
        chronik_error err = CHRONIK_ERROR_INIT;
        pack_path(path, seq);
        ck_assert_msg(cnk_pack_open(io, path, &err, &p) == 0, "%s", err.text);
        const cnk_pack_section *s = cnk_pack_find(p, stream);
        if (s && s->entries > 50) return p;
        cnk_pack_unref(p);
    }
}

/* Its name, while no world is open. */
static unsigned seq_with(uint64_t stream) {
    chronik_io *io;
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &io), 0);
    cnk_pack *p = pack_with(io, stream);
    unsigned seq = (unsigned)p->seq;
    cnk_pack_unref(p);
    chronik_io_posix_free(io);
    return seq;
}

/* Damages a payload, the rows, or the directory of a pack, where stream 2 has its part of it. */
static void damage(int what) {
    cnk_pack *p = pack_with(real, 2);
    const cnk_pack_section *s = cnk_pack_find(p, 2);
    snprintf(damaged_path, sizeof damaged_path, "%s", p->path);
    uint64_t at = what == 0   ? s->pos + s->control_bytes + s->data_bytes / 2
                  : what == 1 ? p->blocks[s->block_first].pos + 90
                              : p->file_bytes - 30;
    damaged_first = s->first_offset;
    damaged_end = s->end_offset;
    cnk_pack_unref(p);
    flip(damaged_path, at);
}

/* Where nothing is left of what has left the WAL, a reader is told so, rather than given nothing for ever. */
START_TEST(what_is_missing_to_the_end_is_asked_for_and_told) {
    char command[300];
    world_new();
    stream_new(1);
    fill(1, 3000);
    settle();
    int64_t end = cnk_wal_stream_state(w.streams[1])->released_offset;
    ck_assert_int_gt(end, 0);
    world_close();
    snprintf(command, sizeof command, "rm '%s'/*.pack", w.pack_dir);
    ck_assert_int_eq(system(command), 0);
    w.attach_may_fail = true;
    world_open();
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    for (int64_t offset = 0; offset < end; offset += end / 3 + 1) {
        chronik_error err = CHRONIK_ERROR_INIT;
        cnk_writer out;
        cnk_writer_growing(&out, 0);
        ck_assert_uint_gt(cold->bytes_hint(cold->self, 1, offset, end, 1000), 0);
        ck_assert_int_eq(cold_read(cold, 1, offset, end, 1000, true, &out, &err), CHRONIK_ECORRUPT);
        cnk_writer_free(&out);
    }
    world_remove();
}
END_TEST

START_TEST(damage_takes_its_range_and_nothing_else) {
    world_new();
    for (uint64_t id = 1; id <= 3; id++) stream_new(id);
    fill(3, 3000);
    settle();
    damage(_i);
    w.attach_may_fail = true;
    world_reopen();
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    int64_t end = cnk_wal_stream_state(w.streams[2])->released_offset, offset = 0;
    int bad = 0;
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    while (offset < end) { /* one batch after the other: what can be read is right, what cannot lies in the range */
        chronik_error err = CHRONIK_ERROR_INIT;
        uint64_t index = index_at(2, offset, 0);
        cnk_wal_entry e = entry_of(2, index);
        out.len = 0;
        int rc = cold_read(cold, 2, offset, end, 1, true, &out, &err);
        if (rc) {
            ck_assert_int_eq(rc, CHRONIK_ECORRUPT);
            ck_assert_uint_eq(out.len, 0);
            ck_assert_int_ge(offset, damaged_first);
            ck_assert_int_lt(offset, damaged_end);
            ck_assert(strstr(err.text, "0000000000000002") != NULL);
            bad++;
        } else {
            payload_of(2, index, expected, e.len);
            ck_assert_uint_eq(out.len, e.len);
            ck_assert_mem_eq(out.data, expected, e.len);
        }
        offset = base_offset(2, index) + e.count;
    }
    if (_i == 0) ck_assert_int_eq(bad, 1);
    if (_i > 0) ck_assert_int_gt(bad, 5);
    ck_assert_int_eq((int)(w.damaged > 0), _i == 2);
    if (_i < 2) check_cold(1, 0, 100000), check_cold(3, 0, 100000);
    cnk_writer_free(&out);
    world_close();
    /* fsck says so, and puts it aside if told to. */
    chronik_error err = CHRONIK_ERROR_INIT;
    int sentences = 0;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &real), 0);
    ck_assert_int_eq(cnk_tier_check(real, w.pack_dir, false, say, &sentences, &err), CHRONIK_ECORRUPT);
    ck_assert_int_gt(sentences, 1);
    ck_assert_int_eq(real->disk_ops->list(real->disk, w.pack_dir, count_sentences, NULL, &err), 0);
    ck_assert_int_eq(cnk_tier_check(real, w.pack_dir, true, say, &sentences, &err), CHRONIK_ECORRUPT);
    ck_assert_int_eq(real->disk_ops->list(real->disk, w.pack_dir, count_sentences, NULL, &err), 1);
    ck_assert_int_eq(cnk_tier_check(real, w.pack_dir, false, say, &sentences, &err), 0);
    chronik_io_posix_free(real);
    w.damaged = 0;
    world_open();
    ck_assert_uint_gt(w.damaged, 0); /* each stream that misses something says so */
    out = (cnk_writer){0};
    cnk_writer_growing(&out, 0);
    cold = cnk_tier_cold(w.tier);
    ck_assert_int_eq(cold_read(cold, 2, damaged_first, end, 1, true, &out, &err), CHRONIK_ECORRUPT);
    ck_assert_int_eq(cold_read(cold, 2, damaged_end, end, 1, true, &out, &err), 0);
    cnk_writer_free(&out);
    world_remove();
}
END_TEST

/* An entry of a sealed WAL file is damaged before it is converted: its stream stays in the WAL, the others leave. */
START_TEST(damage_in_the_wal_keeps_one_stream_there) {
    world_new();
    for (uint64_t id = 1; id <= 4; id++) stream_new(id);
    full = true;
    fill(4, 1500);
    for (int i = 0; i < 500 && !w.paused; i++) turn(2);
    cnk_wal_place p;
    uint64_t index = cnk_wal_stream_state(w.streams[2])->released_index + 20;
    while (entry_of(2, index).len == 0) index++;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], index, &p), 0);
    ck_assert_uint_gt(p.file_seq, 0);
    char path[160];
    snprintf(path, sizeof path, "%s/%020u.wal", w.wal_dir, p.file_seq);
    flip(path, p.file_pos + p.entry.len / 2);
    full = false;
    settle();
    ck_assert_uint_gt(w.damaged, 0);
    ck_assert_uint_eq(w.damaged_stream, 2);
    ck_assert_uint_lt(cnk_wal_stream_state(w.streams[2])->released_index, index);
    for (uint64_t id = 1; id <= 4; id++)
        if (id != 2) ck_assert_uint_gt(cnk_wal_stream_state(w.streams[id])->released_index, 100);
    ck_assert_uint_eq(w.resumed, w.paused);
    check_all(100000);
    world_remove();
}
END_TEST

/* ---- the catalog file ---- */

/* How many packs of the directory it tells of; -1: it is not there, or ends early. */
static int told_packs(void) {
    cnk_map told = {0};
    tier_catalog c = {.bytes = 0};
    uint64_t seq_max;
    chronik_io *io;
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &io), 0); /* also while no world is open */
    int rc = cnk_tier_catalog_read(io, w.pack_dir, &c, &told, &seq_max, NULL), n = (int)told.count;
    cnk_tier_catalog_packs_free(&told);
    chronik_io_posix_free(io);
    return rc ? -1 : n;
}

static void wait_catalog(void) {
    for (int i = 0; i < 60000 && told_packs() != (int)stats().packs; i++) turn(2);
    ck_assert_int_eq(told_packs(), (int)stats().packs);
}

/* Three streams in some packs, all told of; closed. */
static uint64_t world_with_packs(void) {
    world_new();
    for (uint64_t id = 1; id <= 3; id++) stream_new(id);
    fill(3, 2500);
    settle();
    wait_catalog();
    uint64_t packs = stats().packs;
    ck_assert_uint_gt(packs, 3);
    world_close();
    return packs;
}

static long catalog_len(void) {
    struct stat st;
    return stat(w.catalog, &st) ? -1 : (long)st.st_size;
}

/* It opens, nothing is missing or damaged, and the file is made good. */
static void opens_as_if_nothing_were(void) {
    world_open();
    check_all(100000);
    ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
    wait_catalog();
    world_close();
}

START_TEST(a_start_reads_no_pack_of_which_the_catalog_tells) {
    uint64_t packs = world_with_packs();
    pack_reads = 0;
    world_open();
    ck_assert_int_eq((int)pack_reads, 1); /* the file's */
    ck_assert_uint_eq(stats().packs, packs);
    ck_assert_uint_gt(stats().pack_bytes, 3 << 20);
    check_all(100000);
    ck_assert_int_gt((int)pack_reads, (int)packs);
    fill(3, 1500); /* what comes is appended */
    settle();
    ck_assert_uint_gt(stats().packs, packs);
    wait_catalog();
    ck_assert_uint_eq(stats().catalog_failures, 0);
    world_close();
    pack_reads = 0;
    world_open();
    ck_assert_int_eq((int)pack_reads, 1);
    check_all(100000);
    ck_assert_int_eq((int)w.damaged, 0);
    world_remove();
}
END_TEST

static void *read_all(void *arg) {
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    const int64_t *ends = arg;
    size_t bytes = 0;
    for (uint64_t id = 1; id <= 3; id++) {
        cnk_writer out;
        cnk_writer_growing(&out, 0);
        ck_assert_int_eq(cold_read(cold, id, 0, ends[id], UINT32_MAX, true, &out, NULL), 0);
        bytes += out.len;
        cnk_writer_free(&out);
    }
    return (void *)bytes;
}

START_TEST(many_may_be_the_first_to_read) {
    (void)world_with_packs();
    world_open();
    pthread_t threads[4];
    int64_t ends[4] = {0};
    void *bytes[4];
    for (uint64_t id = 1; id <= 3; id++) ends[id] = cnk_wal_stream_state(w.streams[id])->released_offset;
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, read_all, ends), 0);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_join(threads[i], &bytes[i]), 0);
    for (int i = 0; i < 4; i++) ck_assert_ptr_eq(bytes[i], bytes[0]);
    check_all(100000);
    world_remove();
}
END_TEST

static void delete_all(void) {
    for (uint64_t id = 1; id <= 3; id++) {
        ck_assert_int_eq(cnk_wal_stream_drop(w.streams[id]), 0);
        cnk_tier_stream_dropped(w.ports[id % PORTS], id);
        w.streams[id] = NULL;
    }
    kick();
    wait_collected(0);
}

/* Whoever found a pack before it died reads it, even where it is deleted before he comes to open it. */
START_TEST(a_pack_deleted_under_its_first_reader_is_read) {
    chronik_error err = CHRONIK_ERROR_INIT;
    (void)world_with_packs();
    world_open();
    settle();
    int64_t end = cnk_wal_stream_state(w.streams[1])->released_offset;
    uint64_t index = index_at(1, 0, 0);
    cnk_wal_entry e = entry_of(1, index);
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    before_open = delete_all;
    int rc = cold_read(cnk_tier_cold(w.tier), 1, 0, end, 1, true, &out, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    ck_assert(atomic_load(&before_open) == NULL);
    ck_assert_uint_eq(stats().packs, 0);
    payload_of(1, index, expected, e.len);
    ck_assert_uint_eq(out.len, e.len);
    ck_assert_mem_eq(out.data, expected, e.len);
    ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
    cnk_writer_free(&out);
    world_remove();
}
END_TEST

/* A file of an earlier time comes back: packs that it tells of are gone, others have come, and names are not used again. */
START_TEST(a_stale_catalog_does_no_harm) {
    char command[300];
    uint64_t packs = world_with_packs();
    snprintf(command, sizeof command, "cp '%s' '%s/stale'", w.catalog, w.dir);
    ck_assert_int_eq(system(command), 0);
    world_open();
    trim(_i == 0 ? 2 : 3); /* the packs of what is not trimmed are thinned out, not deleted */
    const uint64_t gone = _i == 0 ? 2 : packs - 3; /* most of a pack may be of stream 3; the last of each lies in three at most */
    for (int i = 0; i < 60000 && stats().packs_deleted + stats().packs_rewritten < gone; i++) turn(2);
    ck_assert_uint_ge(stats().packs_deleted + stats().packs_rewritten, gone);
    wait_catalog();
    world_close();
    snprintf(command, sizeof command, "mv '%s/stale' '%s'", w.dir, w.catalog);
    ck_assert_int_eq(system(command), 0);
    uint64_t stale = (uint64_t)told_packs();
    ck_assert_uint_eq(stale, packs);
    world_open();
    check_all(100000);
    fill(3, 900);
    settle();
    wait_catalog();
    check_all(100000);
    world_reopen();
    check_all(100000);
    ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
    world_remove();
}
END_TEST

/* All packs are deleted, then the file of before comes back: the next pack is not named like one that it tells of. */
START_TEST(names_that_a_catalog_tells_of_are_not_used_again) {
    char command[300], path[200];
    world_new();
    stream_new(1);
    fill(1, 1500);
    settle();
    wait_catalog();
    uint64_t last = stats().packs_written;
    snprintf(command, sizeof command, "cp '%s' '%s/stale'", w.catalog, w.dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[1]), 0);
    cnk_tier_stream_dropped(w.ports[1], 1);
    w.streams[1] = NULL;
    kick();
    wait_collected(0);
    world_close();
    snprintf(command, sizeof command, "mv '%s/stale' '%s'", w.dir, w.catalog);
    ck_assert_int_eq(system(command), 0);
    world_open();
    stream_new(2);
    while (stats().packs_written == 0) {
        for (int i = 0; i < 40; i++) append(2);
        kick();
        turn(1);
    }
    pack_path(path, (unsigned)last + 1);
    ck_assert_int_eq(access(path, F_OK), 0);
    settle();
    ends_whole();
}
END_TEST

/* Cut at some place: what comes before it is used. */
START_TEST(a_torn_catalog_costs_time_alone) {
    static const int tenths[] = {0, 3, 5, 9};
    (void)world_with_packs();
    for (int i = 0; i < 10; i++) {
        long len = i < 6 ? (long[]){0, 1, 39, 40, 41, 60}[i] : catalog_len() * tenths[i - 6] / 10 + 13;
        ck_assert_int_eq(truncate(w.catalog, len), 0);
        opens_as_if_nothing_were();
    }
    world_open();
    check_all(100000);
    world_remove();
}
END_TEST

START_TEST(a_flipped_bit_in_the_catalog_costs_time_alone) {
    (void)world_with_packs();
    for (int i = 0; i < 10; i++) {
        flip(w.catalog, (uint64_t)(catalog_len() * i / 10));
        opens_as_if_nothing_were();
    }
    world_open();
    check_all(100000);
    world_remove();
}
END_TEST

static void store_right(uint8_t *header) {
    uint32_t crc = cnk_crc32c(0, header, 36);
    memcpy(header + 36, &crc, 4);
}

/* Missing (0), of another kind (1), of a newer version (2), with a must-understand bit in its header (3), empty but for zeros (4). */
START_TEST(a_strange_catalog_costs_time_alone) {
    uint8_t header[40];
    (void)world_with_packs();
    for (int i = 0; i < 5; i++) {
        FILE *f = fopen(w.catalog, "r+b");
        ck_assert_uint_eq(fread(header, 1, sizeof header, f), sizeof header);
        if (i == 1) memcpy(header, "#!/bin/sh\n", 10);
        if (i == 2) header[8] = 2, store_right(header);
        if (i == 3) header[11] = 0x80, store_right(header);
        if (i == 4) memset(header, 0, sizeof header);
        rewind(f);
        ck_assert_uint_eq(fwrite(header, 1, sizeof header, f), sizeof header);
        fclose(f);
        if (i == 0) ck_assert_int_eq(unlink(w.catalog), 0);
        opens_as_if_nothing_were();
    }
    world_open();
    world_remove();
}
END_TEST

/* Whoever comes later may append records of other kinds: passed over (0), or, with a must-understand bit, the end (1). */
START_TEST(later_kinds_of_records_are_passed_over_or_respected) {
    uint8_t header[40], seed[24], record[30] = {0};
    uint64_t packs = world_with_packs();
    long len = catalog_len();
    FILE *f = fopen(w.catalog, "r+b");
    ck_assert_uint_eq(fread(header, 1, sizeof header, f), sizeof header);
    memcpy(seed, header + 16, 16);
    cnk_store_le64(seed + 16, (uint64_t)len);
    cnk_store_le32(record + 4, sizeof record);
    cnk_store_le16(record + 8, 77);
    cnk_store_le16(record + 10, _i ? 2 : 0);
    cnk_store_le32(record, cnk_crc32c(cnk_crc32c(0, seed, sizeof seed), record + 4, sizeof record - 4));
    fseek(f, len, SEEK_SET);
    ck_assert_uint_eq(fwrite(record, 1, sizeof record, f), sizeof record);
    fclose(f);
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &real), 0);
    ck_assert_int_eq(told_packs(), _i ? -1 : (int)packs);
    chronik_io_posix_free(real);
    pack_reads = 0;
    world_open();
    ck_assert_int_eq((int)pack_reads, 1); /* what came before is used in either case */
    ck_assert_int_eq(catalog_len() > 0, _i == 0);
    check_all(100000);
    world_remove();
}
END_TEST

/* A pack becomes another one of the same name and length: whoever reads it is told, once, and the next start takes it as it
 * is. */
START_TEST(a_replaced_pack_is_told_by_the_first_read) {
    char path[200];
    uint8_t t[64];
    (void)world_with_packs();
    unsigned seq = seq_with(1);
    pack_path(path, seq);
    FILE *f = fopen(path, "r+b");
    ck_assert_int_eq(fseek(f, -64, SEEK_END), 0);
    ck_assert_uint_eq(fread(t, 1, sizeof t, f), sizeof t);
    t[20] ^= 1; /* its uid */
    cnk_store_le32(t + 52, cnk_crc32c(0, t, 52));
    ck_assert_int_eq(fseek(f, -64, SEEK_END), 0);
    ck_assert_uint_eq(fwrite(t, 1, sizeof t, f), sizeof t);
    fclose(f);
    world_open();
    ck_assert_int_eq((int)w.damaged, 0);
    ck_assert_int_gt((int)catalog_len(), 0);
    const tier_stream *s = cnk_tier_stream_locked(w.tier, 1, false);
    size_t at = 0;
    while (at < s->count && s->sections[at].in->pack->seq != seq) at++;
    ck_assert_uint_lt(at, s->count);
    int64_t first = s->sections[at].s->first_offset, end = s->sections[at].s->end_offset;
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    for (int64_t offset = first; offset < end; offset += end - first - 1 ? end - first - 1 : 1) {
        chronik_error err = CHRONIK_ERROR_INIT;
        int64_t base;
        cnk_writer out;
        cnk_writer_growing(&out, 0);
        ck_assert_int_eq(cold_read(cold, 1, offset, end, 1, true, &out, &err), CHRONIK_ECORRUPT);
        ck_assert_ptr_nonnull(strstr(err.text, "0000000000000001"));
        ck_assert_ptr_nonnull(strstr(err.text, path));
        ck_assert_int_eq(cold->find_timestamp(cold->self, 1, 0, offset, end, &base, &err), CHRONIK_ECORRUPT);
        cnk_writer_free(&out);
    }
    ck_assert_int_eq((int)w.damaged, 1);
    ck_assert_int_eq((int)catalog_len(), -1);
    fill(3, 600); /* nor does it come back */
    settle();
    ck_assert_int_eq((int)catalog_len(), -1);
    world_close();
    w.damaged = 0;
    opens_as_if_nothing_were();
    world_open();
    world_remove();
}
END_TEST

/* A pack that is damaged (0), or gone while it is in use (1): told by the first read; cut short (2): by the start. */
START_TEST(a_pack_spoilt_behind_the_catalog_is_told) {
    char path[200];
    (void)world_with_packs();
    pack_path(path, seq_with(1));
    w.attach_may_fail = true;
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    if (_i == 0) flip(path, (uint64_t)st.st_size - 30);
    if (_i == 2) ck_assert_int_eq(truncate(path, st.st_size - 4096), 0);
    world_open();
    if (_i == 1) ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(w.damaged > 0, _i == 2);
    chronik_error err = CHRONIK_ERROR_INIT;
    int64_t end = cnk_wal_stream_state(w.streams[1])->released_offset;
    const cnk_log_cold *cold = cnk_tier_cold(w.tier);
    unsigned bad = 0;
    for (uint64_t i = 1; base_offset(1, i) < end; i++) {
        cnk_writer out;
        cnk_writer_growing(&out, 0);
        int rc = entry_of(1, i).count ? cold_read(cold, 1, base_offset(1, i), end, 1, true, &out, &err) : 0;
        if (rc) ck_assert_int_eq(rc, CHRONIK_ECORRUPT);
        bad += rc != 0;
        cnk_writer_free(&out);
    }
    ck_assert_uint_gt(bad, 10);
    ck_assert_uint_gt(w.damaged, 0);
    unsigned told = w.damaged;
    if (_i < 2) ck_assert_uint_eq(told, 1);
    w.damaged = 0;
    world_reopen(); /* told again by the start, as it opens all packs */
    ck_assert_uint_gt(w.damaged, 0);
    world_remove();
}
END_TEST

/* Each call of a start fails in turn, and each second allocation: it does not start, and does so the next time, or nothing is
 * wrong. */
START_TEST(a_start_survives_each_failed_call) {
    uint64_t packs = world_with_packs();
    for (long n = 0; n < 1000; n++) {
        w.start_may_fail = true;
        fail_next_open = n;
        world_open();
        bool reached = calls > n;
        if (!w.tier) continue;
        ck_assert_uint_ge(stats().packs, packs);
        ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
        check_all(200000);
        wait_catalog();
        world_close();
        if (!reached) {
            ck_assert_int_gt((int)n, 10);
            break;
        }
    }
    fail_next_open = -1;
    unsigned starved = 0;
    for (starve_next_open = 0;; starve_next_open += 2) {
        world_open();
        if (w.tier) break;
        starved++;
    }
    ck_assert_uint_gt(starved, 10);
    starve_next_open = -1;
    ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
    check_all(200000);
    world_remove();
}
END_TEST

/* Where the file cannot be written, it is counted, and nothing else; the next pack that comes when it can be, mends it. */
START_TEST(a_catalog_that_cannot_be_written_costs_nothing_else) {
    uint64_t packs = world_with_packs();
    world_open();
    catalog_full = true;
    fill(3, 1500);
    settle();
    uint64_t more = stats().packs;
    ck_assert_uint_gt(more, packs);
    ck_assert_uint_gt(stats().catalog_failures, 0);
    ck_assert_uint_lt((uint64_t)told_packs(), more);
    ck_assert_uint_eq(w.paused, 0);
    check_all(100000);
    catalog_full = false;
    if (_i == 0) fill(3, 1500);
    if (_i == 1) world_reopen();
    settle();
    wait_catalog();
    ends_whole();
}
END_TEST

/* What was thinned out and deleted does not stay in the file for ever. */
START_TEST(a_catalog_of_packs_that_are_gone_is_written_anew) {
    world_new();
    for (uint64_t id = 1; id <= 12; id++) stream_new(id);
    fill(12, 5000);
    settle();
    wait_catalog();
    trim(12);
    wait_collected(2);
    long full_len = 40 + (long)stats().packs_written * (16 + 56 + 12 * 96), live = 40 + 2 * (16 + 56 + 12 * 96);
    ck_assert_int_gt((int)full_len, (int)(2 * live + 1000));
    for (int i = 0; i < 60000 && catalog_len() > 2 * live + 1000; i++) turn(2);
    ck_assert_int_le((int)catalog_len(), (int)(2 * live + 1000));
    wait_catalog();
    ends_whole();
}
END_TEST

static char sentences[4000];
static void say_all(void *arg, const char *sentence) {
    size_t n = strlen(sentences);
    (void)arg;
    snprintf(sentences + n, sizeof sentences - n, "%s\n", sentence);
}

static int check_tier(bool quarantine) {
    chronik_error err = CHRONIK_ERROR_INIT;
    sentences[0] = 0;
    return cnk_tier_check(real, w.pack_dir, quarantine, say_all, NULL, &err);
}

/* fsck: sound; cut; wrong about a pack. */
START_TEST(fsck_looks_at_the_catalog) {
    char path[200], aside[120];
    uint8_t t[64];
    chronik_error err = CHRONIK_ERROR_INIT;
    (void)world_with_packs();
    snprintf(aside, sizeof aside, "%s.damaged", w.catalog);
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &real), 0);
    ck_assert_int_eq(check_tier(true), 0);
    ck_assert_ptr_nonnull(strstr(sentences, "/catalog: sound"));
    pack_path(path, 3);
    FILE *f = fopen(path, "r+b");
    ck_assert_int_eq(fseek(f, -64, SEEK_END), 0);
    ck_assert_uint_eq(fread(t, 1, sizeof t, f), sizeof t);
    uint8_t was = t[20];
    for (int round = 0; round < 2; round++) {
        t[20] = round ? was : was ^ 1;
        cnk_store_le32(t + 52, cnk_crc32c(0, t, 52));
        ck_assert_int_eq(fseek(f, -64, SEEK_END), 0);
        ck_assert_uint_eq(fwrite(t, 1, sizeof t, f), sizeof t);
        fflush(f);
        if (round) break;
        ck_assert_int_eq(check_tier(false), CHRONIK_ECORRUPT);
        ck_assert_ptr_nonnull(strstr(sentences, "another pack"));
    }
    fclose(f);
    ck_assert_int_eq(truncate(w.catalog, catalog_len() - 1), 0);
    ck_assert_int_eq(check_tier(false), 0);
    ck_assert_ptr_nonnull(strstr(sentences, "ignored"));
    ck_assert_int_eq(access(aside, F_OK), -1);
    ck_assert_int_eq(check_tier(true), 0);
    ck_assert_ptr_nonnull(strstr(sentences, "put aside"));
    ck_assert_int_eq(access(aside, F_OK), 0);
    ck_assert_int_eq(access(w.catalog, F_OK), -1);
    chronik_io_posix_free(real);
    opens_as_if_nothing_were();
    world_open();
    world_remove();
}
END_TEST

/* ---- kill ---- */

static void child_run(int fd, uint64_t seed) {
    leave_libcheck();
    w.report_fd = fd;
    world_open();
    for (uint64_t id = 1; id <= 6; id++)
        if (!w.streams[id]) stream_new(id);
    for (;; seed++) {
        append(1 + mix(6, seed) % 6);
        if (seed % 16 == 0) kick(), turn(0);
    }
}

/* A process that converts all the time is killed again and again; another one finds all that was reported. */
START_TEST(a_killed_process_loses_nothing) {
    world_new();
    world_close();
    for (int round = 0; round < 7; round++) {
        int fds[2];
        ck_assert_int_eq(pipe(fds), 0);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            close(fds[0]);
            child_run(fds[1], (uint64_t)round * 100000);
            _exit(0);
        }
        close(fds[1]);
        uint64_t told[2], reports = 0;
        while (reports < 150 + (uint64_t)round * 57 && read(fds[0], told, sizeof told) == (ssize_t)sizeof told) {
            w.durable[told[0]] = told[1];
            reports++;
        }
        kill(child, SIGKILL);
        while (read(fds[0], told, sizeof told) == (ssize_t)sizeof told) w.durable[told[0]] = told[1];
        int status;
        waitpid(child, &status, 0);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "round %d: the child ended by itself", round);
        close(fds[0]);
        world_open();
        check_all(60000);
        ck_assert_msg(w.damaged == 0, "%s", w.damage.text);
        world_close();
    }
    world_open();
    settle();
    ck_assert_uint_gt(check_all(60000), 1000);
    ck_assert_uint_gt(stats().packs, 3);
    world_remove();
}
END_TEST

int main(void) {
    TCase *t = tcase_create("tier");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, files_become_packs_and_are_read_back);
    tcase_add_test(t, offsets_timestamps_and_limits_are_found);
    tcase_add_test(t, slow_starts_tell_their_progress);
    tcase_add_test(t, what_is_uncommitted_waits_and_keeps_its_place);
    tcase_add_test(t, what_is_committed_while_its_pack_is_made_does_not_keep_its_file);
    tcase_add_loop_test(t, packs_make_up_for_a_lost_checkpoint, 0, 4);
    tcase_add_test(t, dropped_streams_give_their_space_back);
    tcase_add_test(t, trimmed_logs_give_their_space_back);
    tcase_add_test(t, a_full_disk_pauses_and_loses_nothing);
    tcase_add_test(t, the_budget_holds_up_conversion);
    tcase_add_test(t, each_failed_call_is_survived);
    tcase_add_test(t, what_is_missing_to_the_end_is_asked_for_and_told);
    tcase_add_loop_test(t, damage_takes_its_range_and_nothing_else, 0, 3);
    tcase_add_test(t, damage_in_the_wal_keeps_one_stream_there);
    tcase_add_test(t, a_start_reads_no_pack_of_which_the_catalog_tells);
    tcase_add_test(t, many_may_be_the_first_to_read);
    tcase_add_test(t, a_pack_deleted_under_its_first_reader_is_read);
    tcase_add_loop_test(t, a_stale_catalog_does_no_harm, 0, 2);
    tcase_add_test(t, names_that_a_catalog_tells_of_are_not_used_again);
    tcase_add_test(t, a_torn_catalog_costs_time_alone);
    tcase_add_test(t, a_flipped_bit_in_the_catalog_costs_time_alone);
    tcase_add_test(t, a_strange_catalog_costs_time_alone);
    tcase_add_loop_test(t, later_kinds_of_records_are_passed_over_or_respected, 0, 2);
    tcase_add_test(t, a_replaced_pack_is_told_by_the_first_read);
    tcase_add_loop_test(t, a_pack_spoilt_behind_the_catalog_is_told, 0, 3);
    tcase_add_test(t, a_start_survives_each_failed_call);
    tcase_add_loop_test(t, a_catalog_that_cannot_be_written_costs_nothing_else, 0, 2);
    tcase_add_test(t, a_catalog_of_packs_that_are_gone_is_written_anew);
    tcase_add_test(t, fsck_looks_at_the_catalog);
    tcase_add_test(t, a_killed_process_loses_nothing);
    Suite *s = suite_create("tier");
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
