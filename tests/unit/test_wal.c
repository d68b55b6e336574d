/* The WAL on real files and threads: what was reported durable is there after a reopening, whatever was done. The proof
 * under crashes is tests/sim's. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chronik/io_posix.h>
#include <chronik/wal.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/event.h"
#include "wal/internal.h"

enum { STREAMS_MAX = 64 };

typedef struct world {
    char dir[64], wal_dir[80];
    chronik_io *io;
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_wal_port *port;
    cnk_wal_options options;
    cnk_wal_stream *streams[STREAMS_MAX];
    uint64_t durable[STREAMS_MAX];
    size_t waiting_for;
    uint64_t want;
    uint64_t held; /* the slot of a stream that commits nothing */
    int drained;
    unsigned sealed, writable, fenced, snapshots, turns;
    cnk_wal_entry entry; /* of append() */
} world;

static uint64_t slot_of(cnk_wal_stream *s) { return cnk_wal_stream_state(s)->id % STREAMS_MAX; }

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    world *w = arg;
    ck_assert_uint_ge(index, w->durable[slot_of(s)]);
    w->durable[slot_of(s)] = index;
    if (slot_of(s) != w->held) cnk_wal_stream_commit_set(s, index);
}

static void on_durable_end(void *arg) {
    world *w = arg;
    if (w->want && w->durable[w->waiting_for] >= w->want) cnk_event_loop_stop(w->loop);
}

static void on_fenced(void *arg, const chronik_error *why) {
    (void)why;
    world *w = arg;
    w->fenced++;
    cnk_event_loop_stop(w->loop);
}

static void on_writable(void *arg) {
    world *w = arg;
    w->writable++;
    cnk_event_loop_stop(w->loop);
}

static void on_sealed(void *arg, uint32_t file_seq) {
    (void)file_seq;
    ((world *)arg)->sealed++;
}

static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    world *w = arg;
    w->snapshots++;
    cnk_write_le64(out, cnk_wal_stream_state(s)->id * 7);
    cnk_write_le64(out, w->durable[slot_of(s)]);
    *ret_applied_index = w->durable[slot_of(s)];
    return 0;
}

static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

static void on_drained(void *arg, int code) {
    world *w = arg;
    w->drained = code;
    cnk_event_loop_stop(w->loop);
}

static void stop_loop(void *arg) { cnk_event_loop_stop(((world *)arg)->loop); }

static const chronik_io *(*wrap)(const chronik_io *io); /* NULL: the WAL gets what there is */

static void world_open(world *w) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w->io), 0);
    ck_assert_int_eq(cnk_event_loop_new(NULL, &err, &w->loop), 0);
    w->options.dir = w->wal_dir;
    int code = cnk_wal_open(wrap ? wrap(w->io) : w->io, &w->options, NULL, NULL, &err, &w->wal);
    ck_assert_msg(code == 0, "%s", err.text);
    ck_assert_int_eq(cnk_wal_port_open(w->wal, cnk_event_loop_get(w->loop), &events, w, &w->port), 0);
    memset(w->streams, 0, sizeof w->streams);
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(w->wal, &it));) {
        cnk_wal_stream_attach(w->port, s, w);
        w->streams[slot_of(s)] = s;
        ck_assert_uint_ge(cnk_wal_stream_state(s)->last_index, w->durable[slot_of(s)]);
        if (slot_of(s) != w->held) cnk_wal_stream_commit_set(s, cnk_wal_stream_state(s)->last_index);
        w->durable[slot_of(s)] = cnk_wal_stream_state(s)->last_index;
    }
}

static void world_new_sized(world *w, uint64_t file_bytes, uint64_t budget_bytes) {
    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/chronik-test-wal-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->wal_dir, sizeof w->wal_dir, "%s/wal", w->dir);
    w->options = (cnk_wal_options)CNK_WAL_OPTIONS_INIT;
    w->options.file_bytes = file_bytes;
    w->options.budget_bytes = budget_bytes;
    w->options.cache_bytes = 4 << 20;
    w->held = UINT64_MAX;
    world_open(w);
}

static void world_new(world *w) { world_new_sized(w, 250000000, 1 << 30); }

static int drain(world *w) {
    w->drained = 1;
    w->want = 0;
    cnk_wal_drain(w->port, on_drained, w);
    while (w->drained == 1) cnk_event_loop_run(w->loop);
    return w->drained;
}

static void world_close(world *w) {
    int code = drain(w);
    cnk_wal_port_close(w->port);
    cnk_wal_free(w->wal);
    cnk_event_loop_free(w->loop);
    chronik_io_posix_free(w->io);
    ck_assert_int_eq(code, 0);
}

static void world_reopen(world *w) {
    world_close(w);
    world_open(w);
}

static void world_delete(world *w) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", w->dir);
    ck_assert_int_eq(system(command), 0);
}

static void world_remove(world *w) {
    world_close(w);
    world_delete(w);
}

/* It does not open, and says why not. */
static void refused(world *w) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal *wal;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w->io), 0);
    ck_assert_int_eq(cnk_wal_open(w->io, &w->options, NULL, NULL, &err, &wal), CHRONIK_ECORRUPT);
    ck_assert_msg(strstr(err.text, ".wal: block") && strstr(err.text, "fsck"), "%s", err.text);
    chronik_io_posix_free(w->io);
}

static void stream_new(world *w, uint64_t id) {
    ck_assert_int_eq(cnk_wal_stream_new(w->port, id, w, &w->streams[id % STREAMS_MAX]), 0);
}

/* The payload of an entry is a function of its stream and index, so it can be checked anywhere. */
static void payload_make(uint64_t stream, uint64_t index, uint8_t *buf, uint32_t len) {
    cnk_rng rng;
    cnk_rng_seed(&rng, stream * 1000003 + index);
    cnk_rng_fill(&rng, buf, len);
}

static uint32_t payload_len(uint64_t stream, uint64_t index) {
    cnk_rng rng;
    cnk_rng_seed(&rng, stream * 7919 + index);
    return (uint32_t)cnk_rng_below(&rng, cnk_rng_chance(&rng, 1, 50) ? 300000 : 3000);
}

static int append_sized(world *w, uint64_t id, uint32_t len) {
    cnk_wal_stream *s = w->streams[id % STREAMS_MAX];
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    uint8_t *buf = cnk_malloc(len + 1u);
    cnk_wal_entry e = {.index = st->last_index + 1, .term = st->last_term ? st->last_term : 1, .kind = CNK_ENTRY_DATA};
    e.count = 3;
    e.base_offset = st->next_offset;
    e.max_timestamp = (int64_t)e.index * 10;
    e.len = len;
    memset(e.aux, (int)(e.index & 0x7f), sizeof e.aux);
    payload_make(id, e.index, buf, len);
    cnk_wal_payload p = {.iov_count = 2, .crc = cnk_crc32c(0, buf, len)};
    p.iov[0] = (struct iovec){buf, len / 3};
    p.iov[1] = (struct iovec){buf + len / 3, len - len / 3};
    int code = cnk_wal_append(s, &e, &p);
    cnk_free(buf);
    return code;
}

static int append(world *w, uint64_t id) {
    const cnk_wal_state *st = cnk_wal_stream_state(w->streams[id % STREAMS_MAX]);
    return append_sized(w, id, payload_len(id, st->last_index + 1));
}

static void wait_durable(world *w, uint64_t id, uint64_t index) {
    w->waiting_for = id % STREAMS_MAX;
    w->want = index;
    cnk_wal_kick(w->port);
    while (w->durable[w->waiting_for] < index && !w->fenced) cnk_event_loop_run(w->loop);
    w->want = 0;
}

/* Appends, waiting where the WAL asks for it. */
static void append_patiently(world *w, uint64_t id) {
    for (;;) {
        int code = append(w, id);
        if (code == 0) return;
        ck_assert_int_eq(code, CHRONIK_EAGAIN);
        unsigned before = w->writable;
        cnk_wal_kick(w->port);
        while (w->writable == before) cnk_event_loop_run(w->loop);
    }
}

static void check_entry(world *w, cnk_wal_stream *s, uint64_t index) {
    cnk_wal_place p;
    uint64_t id = cnk_wal_stream_state(s)->id;
    ck_assert_int_eq(cnk_wal_find_index(s, index, &p), 0);
    ck_assert_uint_eq(p.entry.index, index);
    ck_assert_int_eq(p.entry.base_offset, (int64_t)(index - 1) * 3);
    ck_assert_int_eq(p.entry.max_timestamp, (int64_t)index * 10);
    ck_assert_uint_eq(p.entry.aux[5], index & 0x7f);
    uint8_t *want = cnk_malloc(p.entry.len + 1u), *got = cnk_malloc(p.entry.len + 1u);
    payload_make(id, index, want, p.entry.len);
    if (p.data) ck_assert_mem_eq(p.data, want, p.entry.len);
    if (p.file_seq) {
        cnk_wal_file *f = cnk_wal_file_pin(w->wal, p.file_seq);
        ck_assert_ptr_nonnull(f);
        chronik_error err = CHRONIK_ERROR_INIT;
        int code = cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, got, &err);
        ck_assert_msg(code == 0, "%s", err.text);
        ck_assert_mem_eq(got, want, p.entry.len);
        cnk_wal_file_unpin(f);
    }
    ck_assert(p.data || p.file_seq);
    cnk_free(want);
    cnk_free(got);
}

static void check_stream(world *w, uint64_t id) {
    cnk_wal_stream *s = w->streams[id % STREAMS_MAX];
    ck_assert_ptr_nonnull(s);
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    uint64_t last = st->last_index;
    ck_assert_int_eq(st->next_offset, (int64_t)last * 3);
    for (uint64_t n = st->released_index + 1; n <= last; n++) check_entry(w, s, n);
}

static bool walk_next(world *w, cnk_wal_walk *it, uint64_t *ret_stream, uint64_t *ret_index) {
    cnk_wal_stream *s;
    cnk_wal_place place;
    if (!cnk_wal_walk_file(w->port, (uint32_t)w->wal->open->number, it, &s, &place)) return false;
    *ret_stream = cnk_wal_stream_state(s)->id;
    *ret_index = place.entry.index;
    return true;
}

/* Between its steps entries are released and truncated, streams appended to and dropped, that at which it stands, too. */
START_TEST(test_a_walk_goes_on_behind_what_it_has_told) {
    world w;
    world_new(&w);
    w.held = 2;
    for (uint64_t id = 1; id <= 5; id++) stream_new(&w, id);
    for (int n = 0; n < 100; n++) ck_assert_int_eq(append_sized(&w, (uint64_t)(n % 5) + 1, 100), 0);
    wait_durable(&w, 5, 20);
    cnk_wal_stream_commit_set(w.streams[2], 15);
    cnk_wal_walk it = {0};
    uint64_t stream = 0, index = 0;
    for (uint64_t n = 1; n <= 4; n++) ck_assert(walk_next(&w, &it, &stream, &index) && stream == 1 && index == n);
    cnk_wal_stream_release(w.streams[1], 2); /* some of what it has told */
    ck_assert(walk_next(&w, &it, &stream, &index) && stream == 1 && index == 5);
    cnk_wal_stream_release(w.streams[1], 7);
    ck_assert(walk_next(&w, &it, &stream, &index) && stream == 1 && index == 8);
    cnk_wal_stream_release(w.streams[1], 20);
    for (uint64_t n = 1; n <= 15; n++) {
        ck_assert(walk_next(&w, &it, &stream, &index) && stream == 2 && index == n);
        if (n != 7) continue;
        ck_assert_int_eq(cnk_wal_truncate(w.streams[2], 16), 0);
        w.durable[2] = 16;
    }
    for (uint64_t n = 1; n <= 3; n++) ck_assert(walk_next(&w, &it, &stream, &index) && stream == 3 && index == n);
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[3]), 0);
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[4]), 0);
    ck_assert_int_eq(append_sized(&w, 5, 100), 0);
    wait_durable(&w, 5, 21); /* both are freed */
    for (uint64_t n = 1; n <= 21; n++) ck_assert(walk_next(&w, &it, &stream, &index) && stream == 5 && index == n);
    ck_assert(!walk_next(&w, &it, &stream, &index));
    ck_assert_ptr_null(w.port->walk);
    it = (cnk_wal_walk){0};
    ck_assert(walk_next(&w, &it, &stream, &index) && stream == 2); /* 1 has left */
    cnk_wal_walk_end(w.port);
    world_remove(&w);
}
END_TEST

/* The pages of the next slab are there before it is needed, and it is the one that is used. */
START_TEST(test_the_next_slab_is_made_ahead) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    ck_assert_int_eq(append_sized(&w, 1, 100000), 0);
    wait_durable(&w, 1, 1);
    ck_assert(w.port->pool_count == 0 && !w.port->ahead.slab); /* whoever writes little has one */
    for (uint64_t n = 2; n <= 8; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 100000), 0);
        wait_durable(&w, 1, n);
    }
    ck_assert(w.port->ahead.slab || w.port->pool_count == 1);
    for (uint64_t n = 9; w.port->ahead.slab; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 100), 0);
        wait_durable(&w, 1, n);
    }
    const cnk_wal_slab *next = w.port->pool;
    ck_assert_ptr_nonnull(next);
    for (int n = 0; n < 15; n++) ck_assert_int_eq(append_sized(&w, 1, 100000), 0);
    ck_assert_uint_eq(w.port->slab_count, 2);
    ck_assert_ptr_eq(w.port->slabs[(w.port->slab_first + 1) & (w.port->slabs_capacity - 1)], next);
    world_remove(&w); /* the one after it may still be on its way */

    /* What is appended after a port has drained makes none: nobody would wait for it. */
    world_new(&w);
    stream_new(&w, 1);
    for (int n = 0; n < 5; n++) ck_assert_int_eq(append_sized(&w, 1, 100000), 0);
    ck_assert_int_eq(append_sized(&w, 1, 30000), 0);
    wait_durable(&w, 1, 6);
    ck_assert(!w.port->ahead.slab && !w.port->pool);
    ck_assert_int_eq(drain(&w), 0);
    cnk_wal_row row = {.frame = CNK_FRAME_CHECKPOINT};
    uint32_t seq, pos;
    ck_assert_int_eq(cnk_wal_port_append_row(w.port, NULL, &row, NULL, NULL, 0, &seq, &pos), 0);
    ck_assert_uint_ge(pos, CNK_WAL_SLAB_AHEAD_BYTES);
    ck_assert(!w.port->ahead.slab && !w.port->pool);
    world_remove(&w);
}
END_TEST

START_TEST(test_entries_survive_reopening) {
    world w;
    world_new(&w);
    for (uint64_t id = 1; id <= 5; id++) stream_new(&w, id);
    for (int n = 0; n < 500; n++) append_patiently(&w, (uint64_t)(n % 5) + 1);
    wait_durable(&w, 5, 100);
    for (int round = 0; round < 3; round++) {
        world_reopen(&w);
        for (uint64_t id = 1; id <= 5; id++) {
            ck_assert_uint_eq(cnk_wal_stream_state(w.streams[id])->last_index, 100 + (uint64_t)round * 10);
            check_stream(&w, id);
            for (int n = 0; n < 10; n++) append_patiently(&w, id);
        }
        wait_durable(&w, 5, 100 + (uint64_t)round * 10 + 10);
    }
    world_remove(&w);
}
END_TEST

START_TEST(test_finds_by_offset_and_timestamp) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    for (int n = 0; n < 100; n++) append_patiently(&w, 1);
    wait_durable(&w, 1, 100);
    cnk_wal_place p;
    for (int64_t offset = 0; offset < 300; offset++) {
        ck_assert_int_eq(cnk_wal_find_offset(w.streams[1], offset, &p), 0);
        ck_assert_int_eq(p.entry.base_offset, offset / 3 * 3);
    }
    ck_assert_int_eq(cnk_wal_find_offset(w.streams[1], 300, &p), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(cnk_wal_find_timestamp(w.streams[1], 0, 95, &p), 0);
    ck_assert_uint_eq(p.entry.index, 10);
    ck_assert_int_eq(cnk_wal_find_timestamp(w.streams[1], 0, 1001, &p), CHRONIK_ENOTFOUND);
    world_remove(&w);
}
END_TEST

START_TEST(test_state_changes_survive) {
    world w;
    world_new(&w);
    for (uint64_t id = 1; id <= 3; id++) stream_new(&w, id);
    for (int n = 0; n < 30; n++) append_patiently(&w, (uint64_t)(n % 3) + 1);
    wait_durable(&w, 3, 10);
    w.streams[1]->commit_index = 4; /* as a group would have it whose majority lags */
    ck_assert_int_eq(cnk_wal_truncate(w.streams[1], 3), CHRONIK_EINVAL);
    ck_assert_int_eq(cnk_wal_truncate(w.streams[1], 6), 0);
    ck_assert_int_eq(cnk_wal_vote(w.streams[1], 5, 77), 0);
    ck_assert_int_eq(cnk_wal_vote(w.streams[1], 5, 78), CHRONIK_EINVAL);
    ck_assert_int_eq(cnk_wal_trim(w.streams[2], 5, 12), 0);
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[3]), 0);
    w.durable[1] = 6;
    w.durable[3] = 0;
    world_reopen(&w);
    ck_assert_ptr_null(w.streams[3]);
    const cnk_wal_state *st = cnk_wal_stream_state(w.streams[1]);
    ck_assert_uint_eq(st->last_index, 6);
    ck_assert_int_eq(st->next_offset, 18);
    ck_assert_uint_eq(st->term, 5);
    ck_assert_uint_eq(st->voted_for, 77);
    st = cnk_wal_stream_state(w.streams[2]);
    ck_assert_uint_eq(st->first_index, 5);
    ck_assert_int_eq(st->start_offset, 12);
    /* No checkpoint covers what was trimmed: its owner gets the entries once more, and then lets them go. */
    cnk_wal_place kept;
    ck_assert_uint_eq(st->released_index, 0);
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 1, &kept), 0);
    cnk_wal_stream_release(w.streams[2], st->first_index - 1);
    ck_assert_uint_eq(st->released_index, 4);
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 4, &kept), CHRONIK_ENOTFOUND);
    ck_assert_uint_eq(st->last_index, 10);
    cnk_wal_stream *again;
    ck_assert_int_eq(cnk_wal_stream_new(w.port, 2, NULL, &again), CHRONIK_EEXIST);
    world_remove(&w);
}
END_TEST

static unsigned files_of(world *w) {
    cnk_wal_stats s;
    cnk_wal_stats_get(w->wal, &s);
    return (unsigned)(s.files_live + s.files_spare);
}

/* Small files, much data, entries released as a conversion would: the WAL stays within its budget for ever. */
START_TEST(test_files_are_sealed_freed_and_recycled) {
    world w;
    world_new_sized(&w, 1 << 20, 8 << 20);
    for (uint64_t id = 1; id <= 4; id++) stream_new(&w, id);
    for (uint64_t n = 1; n <= 4000; n++) {
        for (uint64_t id = 1; id <= 4; id++) append_patiently(&w, id);
        if (n % 50 != 0) continue;
        for (uint64_t id = 1; id <= 4; id++) {
            wait_durable(&w, id, n);
            cnk_wal_stream_release(w.streams[id], n - 20);
        }
        cnk_wal_checkpoint(w.port);
        if (n % 500 == 0) {
            world_reopen(&w);
            for (uint64_t id = 1; id <= 4; id++) {
                const uint8_t *blob;
                size_t len;
                uint64_t applied;
                ck_assert_uint_ge(cnk_wal_stream_state(w.streams[id])->released_index, n > 620 ? n - 620 : 1); /* or an older checkpoint's */
                cnk_wal_stream_blob(w.streams[id], &blob, &len, &applied);
                ck_assert_uint_eq(len, 16);
                ck_assert_uint_eq(cnk_load_le64(blob), id * 7);
                check_stream(&w, id);
            }
        }
        ck_assert_uint_le(files_of(&w), 12); /* the budget may yield by a few, for checkpoints to get through */
    }
    ck_assert_uint_gt(w.sealed, 20);
    world_remove(&w);
}
END_TEST

/* Appends beyond the budget wait, and go on when space is given back. */
START_TEST(test_budget_pushes_back) {
    world w;
    world_new_sized(&w, 1 << 20, 4 << 20);
    stream_new(&w, 1);
    int code = 0;
    uint64_t n = 0;
    for (int refused = 0; refused < 2;) { /* refused with all of it durable and no spare to come: it is the budget */
        unsigned before = w.writable;
        code = append_sized(&w, 1, 1000);
        if (code == 0) n++;
        if (code == 0 && n % 100) continue;
        wait_durable(&w, 1, n);
        cnk_wal_stats s;
        cnk_wal_stats_get(w.wal, &s);
        ck_assert_uint_le(s.bytes_on_disk, 4 << 20);
        bool spent = s.bytes_on_disk == 4 << 20 && s.files_live >= 3;
        if (code == CHRONIK_EAGAIN && spent) refused++;
        if (code != CHRONIK_EAGAIN || spent) continue;
        while (w.writable == before) cnk_event_loop_run(w.loop);
    }
    ck_assert_int_eq(code, CHRONIK_EAGAIN);
    ck_assert_uint_gt(n, 1500);
    ck_assert_int_eq(cnk_wal_vote(w.streams[1], 9, 9), 0); /* votes go on */
    cnk_wal_stream_release(w.streams[1], n);
    cnk_wal_checkpoint(w.port);
    append_patiently(&w, 1);
    world_remove(&w);
}
END_TEST

START_TEST(test_large_entries) {
    world w;
    world_new_sized(&w, 1 << 20, 64 << 20);
    stream_new(&w, 1);
    static const uint32_t sizes[] = {0, 1, 5000000, 17, 2000000, 9000000};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        int code;
        while ((code = append_sized(&w, 1, sizes[n])) == CHRONIK_EAGAIN) {
            unsigned before = w.writable;
            cnk_wal_kick(w.port);
            while (w.writable == before) cnk_event_loop_run(w.loop);
        }
        ck_assert_int_eq(code, 0);
        wait_durable(&w, 1, n + 1);
    }
    check_stream(&w, 1);
    world_reopen(&w);
    check_stream(&w, 1);
    world_remove(&w);
}
END_TEST

static void damage(world *w, uint64_t number, long pos, int len) {
    char path[160];
    snprintf(path, sizeof path, "%s/%020llu.wal", w->wal_dir, (unsigned long long)number);
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, pos, SEEK_SET), 0);
    for (int n = 0; n < len; n++) fputc(0x5a, f);
    ck_assert_int_eq(fclose(f), 0);
}

/* In a file's header; it is missed at the start, and mended. */
static void damage_header(world *w, uint64_t number) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal *wal;
    damage(w, number, 292, 1);
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w->io), 0);
    ck_assert_int_eq(cnk_wal_open(w->io, &w->options, NULL, NULL, &err, &wal), CHRONIK_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "header"));
    ck_assert_int_eq(cnk_wal_fsck(w->io, w->wal_dir, 0, NULL, NULL, &err), CHRONIK_ECORRUPT);
    ck_assert_int_eq(cnk_wal_fsck(w->io, w->wal_dir, CHRONIK_WAL_FSCK_CUT, NULL, NULL, &err), 0);
    chronik_io_posix_free(w->io);
}

/* A flipped bit in synced data is reported, never cut. */
START_TEST(test_damage_is_reported) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    for (uint64_t n = 1; n <= 20; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 6000), 0);
        wait_durable(&w, 1, n);
    }
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[1], 5, &p), 0);
    world_close(&w);
    damage(&w, p.file_seq, (long)(p.file_pos & ~4095ull), 40); /* a block's header */
    refused(&w);
    world_delete(&w);
}
END_TEST

static void seal(world *w) {
    pthread_mutex_lock(&w->wal->mutex);
    w->wal->seal_wanted = true;
    pthread_mutex_unlock(&w->wal->mutex);
}

/* A sealed file that nothing follows, its witness being lost with the next one: the trailer proves it, so that a damaged
 * header is no unused file. */
START_TEST(test_trailer_proves_a_file) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    for (uint64_t n = 1; n <= 3; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 6000), 0);
        wait_durable(&w, 1, n);
    }
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[1], 3, &p), 0);
    seal(&w);
    append_patiently(&w, 1); /* goes to the next file */
    wait_durable(&w, 1, 4);
    world_close(&w);
    char path[160], aside[160];
    snprintf(path, sizeof path, "%s/%020llu.wal", w.wal_dir, (unsigned long long)p.file_seq + 1);
    snprintf(aside, sizeof aside, "%s/aside", w.wal_dir);
    ck_assert_int_eq(rename(path, aside), 0);
    damage_header(&w, p.file_seq);
    w.durable[1] = 3;
    world_open(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, 3);
    check_stream(&w, 1);
    world_remove(&w);
}
END_TEST

START_TEST(test_damaged_payload_takes_one_stream_offline) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    stream_new(&w, 2);
    for (uint64_t n = 1; n <= 20; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 6000), 0);
        ck_assert_int_eq(append_sized(&w, 2, 6000), 0);
        wait_durable(&w, 2, n);
    }
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[1], 5, &p), 0);
    world_close(&w);
    damage(&w, p.file_seq, (long)p.file_pos + 100, 4);
    w.durable[1] = 0;
    world_open(&w);
    ck_assert(cnk_wal_stream_state(w.streams[1])->damaged);
    ck_assert(!cnk_wal_stream_state(w.streams[2])->damaged);
    ck_assert_int_eq(append(&w, 1), CHRONIK_ECORRUPT);
    check_stream(&w, 2);
    append_patiently(&w, 2);
    wait_durable(&w, 2, 21);
    world_remove(&w);
}
END_TEST

/* The torn end of the log goes; what was there before stays. */
START_TEST(test_torn_end_is_cut) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    for (uint64_t n = 1; n <= 20; n++) {
        ck_assert_int_eq(append_sized(&w, 1, 6000), 0);
        wait_durable(&w, 1, n);
    }
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[1], 20, &p), 0);
    world_close(&w); /* the witness of block 20 is behind it: tear both */
    damage(&w, p.file_seq, (long)p.file_pos + 100, 12288);
    w.durable[1] = 19;
    world_open(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, 19);
    check_stream(&w, 1);
    append_patiently(&w, 1);
    wait_durable(&w, 1, 20);
    world_reopen(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, 20);
    world_remove(&w);
}
END_TEST

static void append_one(world *w, uint64_t id) {
    append_patiently(w, id);
    wait_durable(w, id, cnk_wal_stream_state(w->streams[id])->last_index);
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static void append_config(world *w, uint64_t id, int fill) {
    uint8_t config[80];
    memset(config, fill, sizeof config);
    cnk_wal_entry e = {.index = 1, .term = 1, .kind = CNK_ENTRY_CONFIG, .len = sizeof config};
    cnk_wal_payload p = {.iov_count = 1, .iov = {{config, sizeof config}}, .crc = cnk_crc32c(0, config, sizeof config)};
    ck_assert_int_eq(cnk_wal_append(w->streams[id], &e, &p), 0);
    wait_durable(w, id, 1);
}

/* A lost first entry is the same configuration as that of all others (0); or an empty one stands for it (1: they differ). */
START_TEST(test_a_lost_configuration_is_made_again) {
    world w;
    world_new(&w);
    for (uint64_t id = 1; id <= 3; id++) {
        stream_new(&w, id);
        append_config(&w, id, id == 3 && _i == 1 ? 4 : 7);
    }
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 1, &p), 0);
    world_close(&w);
    damage(&w, p.file_seq, (long)p.file_pos + 10, 4);
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w.io), 0);
    ck_assert_int_eq(cnk_wal_fsck(w.io, w.wal_dir, 0, NULL, NULL, &err), CHRONIK_ECORRUPT);
    ck_assert_int_eq(cnk_wal_fsck(w.io, w.wal_dir, CHRONIK_WAL_FSCK_CUT, NULL, NULL, &err), 0);
    ck_assert_int_eq(cnk_wal_fsck(w.io, w.wal_dir, 0, NULL, NULL, &err), 0);
    chronik_io_posix_free(w.io);
    world_open(&w);
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 1, &p), 0);
    ck_assert_int_eq(p.entry.kind, _i == 1 ? CNK_ENTRY_LEADER : CNK_ENTRY_CONFIG);
    ck_assert_uint_eq(p.entry.len, _i == 1 ? 0 : 80);
    if (_i == 0) {
        uint8_t got[80];
        cnk_wal_file *f = cnk_wal_file_pin(w.wal, p.file_seq);
        ck_assert_int_eq(cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, got, &err), 0);
        cnk_wal_file_unpin(f);
        for (size_t n = 0; n < sizeof got; n++) ck_assert_uint_eq(got[n], 7);
    }
    append_one(&w, 2);
    world_remove(&w);
}
END_TEST

/* ---- where a file ends ------------------------------------------------------------------------------------------- */

enum { END_FILE_BYTES = 200704 };

/* A disk on which some things fail. */
static struct {
    const chronik_io *under;
    chronik_io io;
    chronik_disk_ops ops;
    bool no_trailers;    /* the last pages of files of END_FILE_BYTES cannot be written */
    atomic_bool no_room; /* for more files */
} poor;

static int poor_write(void *self, chronik_file *file, const struct iovec *iov, int iov_count, uint64_t pos, chronik_error *err) {
    if (poor.no_trailers && pos == END_FILE_BYTES - CNK_WAL_ALIGN) return CHRONIK_EIO;
    return poor.under->disk_ops->write(self, file, iov, iov_count, pos, err);
}

static int poor_allocate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    if (atomic_load(&poor.no_room)) return CHRONIK_ENOSPC;
    return poor.under->disk_ops->allocate(self, file, len, err);
}

static const chronik_io *poor_wrap(const chronik_io *io) {
    poor.under = io;
    poor.io = *io;
    poor.ops = *io->disk_ops;
    poor.ops.write = poor_write;
    poor.ops.allocate = poor_allocate;
    poor.io.disk_ops = &poor.ops;
    return &poor.io;
}

static bool is_there(world *w, uint32_t number) {
    cnk_wal_file *f = cnk_wal_file_pin(w->wal, number);
    if (f) cnk_wal_file_unpin(f);
    return f != NULL;
}

/* Five entries, of which four are truncated away, and others take their places in the block that is to be damaged. */
static cnk_wal_place replace_four(world *w) {
    for (uint64_t n = 1; n <= 5; n++) {
        ck_assert_int_eq(append_sized(w, 1, 600), 0);
        wait_durable(w, 1, n);
    }
    ck_assert_int_eq(cnk_wal_vote(w->streams[1], 2, 1), 0);
    wait_durable(w, 1, 5);
    ck_assert_int_eq(cnk_wal_truncate(w->streams[1], 1), 0);
    w->durable[1] = 1;
    for (uint64_t n = 2; n <= 5; n++) {
        cnk_wal_entry e = {.index = n, .term = 2, .kind = CNK_ENTRY_DATA, .base_offset = (int64_t)(n - 1) * 3, .count = 3};
        cnk_wal_payload p = {.iov_count = 0};
        ck_assert_int_eq(cnk_wal_append(w->streams[1], &e, &p), 0);
    }
    wait_durable(w, 1, 5);
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w->streams[1], 2, &p), 0);
    return p;
}

/* A file that was open when the process ended, with uncommitted entries in its last block, and the file after it has gone,
 * whose header said where it ends. What is then damaged in it is no torn end: entries that have been replaced do not come
 * back. It has got a footer; or (1), where that failed, the next file stays. */
START_TEST(test_the_end_of_a_file_stays_proven) {
    world w;
    world_new_sized(&w, END_FILE_BYTES, 1 << 22);
    stream_new(&w, 1);
    stream_new(&w, 2);
    world_close(&w);
    w.held = 1;
    wrap = poor_wrap;
    poor.no_trailers = _i == 1;
    world_open(&w);
    append_one(&w, 2);
    seal(&w); /* what follows goes to a file of full size */
    append_one(&w, 2);
    const cnk_wal_place p = replace_four(&w);
    world_reopen(&w);
    append_one(&w, 2);
    const uint32_t next = (uint32_t)w.wal->open->number;
    ck_assert_uint_gt(next, p.file_seq);
    seal(&w);
    append_one(&w, 2);
    append_one(&w, 1); /* so that the last one is not missing */
    cnk_wal_stream_release(w.streams[2], cnk_wal_stream_state(w.streams[2])->last_index - 1);
    for (int n = 0; n < (_i == 1 ? 60 : 5000) && is_there(&w, next); n++) {
        append_one(&w, 2);
        usleep(2000);
    }
    ck_assert_int_eq(is_there(&w, next), _i == 1);
    world_close(&w);
    damage(&w, p.file_seq, (long)(p.file_pos & ~4095ull), 8192); /* and the witness behind it */
    wrap = NULL;
    if (_i == 1) {
        refused(&w);
        world_delete(&w);
        return;
    }
    world_open(&w);
    for (uint64_t n = 2; n <= 5; n++) {
        cnk_wal_place got;
        ck_assert_int_eq(cnk_wal_find_index(w.streams[1], n, &got), 0);
        ck_assert_uint_eq(got.entry.term, 2);
    }
    world_remove(&w);
}
END_TEST

static void on_rewritten(void *arg, int code) { *(int *)arg = code; }

/* Not walked (0); walked, and some (1) or all (2) of them are committed since. */
START_TEST(test_uncommitted_entries_move) {
    world w;
    world_new_sized(&w, 1 << 20, 16 << 20);
    stream_new(&w, 1);
    stream_new(&w, 2);
    for (int n = 0; n < 10; n++) ck_assert_int_eq(append_sized(&w, 2, 2000), 0);
    wait_durable(&w, 2, 10);
    w.streams[2]->commit_index = 4;
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 7, &p), 0);
    uint32_t old = p.file_seq;
    uint64_t n = 0;
    for (unsigned was = w.sealed; w.sealed == was;) {
        append_patiently(&w, 1);
        wait_durable(&w, 1, ++n);
    }
    if (_i > 0) {
        cnk_wal_walk it = {0};
        cnk_wal_stream *s;
        unsigned told = 0;
        while (cnk_wal_walk_file(w.port, old, &it, &s, &p)) told += s == w.streams[2];
        ck_assert_uint_eq(told, 4);
        w.streams[2]->commit_index = _i == 1 ? 7 : 10;
    }
    cnk_wal_stream_release(w.streams[2], 4);
    int code = 1;
    cnk_wal_rewrite(w.port, old, on_rewritten, &code);
    ck_assert_int_eq(code, 0); /* all of it is in the cache */
    append_patiently(&w, 1);
    wait_durable(&w, 1, ++n);
    for (uint64_t index = 5; index <= 10; index++) {
        ck_assert_int_eq(cnk_wal_find_index(w.streams[2], index, &p), 0);
        ck_assert_uint_ne(p.file_seq, old);
    }
    cnk_wal_stream_release(w.streams[1], n);
    cnk_wal_checkpoint(w.port);
    world_reopen(&w);
    check_stream(&w, 2);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[2])->last_index, 10);
    world_remove(&w);
}
END_TEST

static void spin(world *w, bool (*until)(world *w)) {
    const chronik_loop *l = cnk_event_loop_get(w->loop);
    chronik_timer *t;
    ck_assert_int_eq(l->ops->timer_new(l->self, stop_loop, w, &t), 0);
    while (!until(w)) {
        l->ops->timer_set(l->self, t, l->ops->now_ns(l->self) + 1000000);
        cnk_event_loop_run(w->loop);
    }
    l->ops->timer_free(l->self, t);
}

static bool no_checkpoint(world *w) {
    pthread_mutex_lock(&w->wal->mutex);
    bool none = !w->wal->checkpoint_running;
    pthread_mutex_unlock(&w->wal->mutex);
    return none;
}

static bool witnessed(world *w) {
    pthread_mutex_lock(&w->wal->mutex);
    bool done = w->wal->witnessed_lsn >= w->wal->rows_lsn;
    pthread_mutex_unlock(&w->wal->mutex);
    return done;
}

/* Each burst is followed by its witness (S5), not the first one alone: the timer may be set for the file's age by then. */
START_TEST(test_each_burst_gets_its_witness) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    for (uint64_t n = 1; n <= 3; n++) {
        append_patiently(&w, 1);
        wait_durable(&w, 1, n);
        spin(&w, witnessed);
    }
    world_remove(&w);
}
END_TEST

static bool one_file_left(world *w) {
    cnk_wal_stats s;
    cnk_wal_stats_get(w->wal, &s);
    return s.files_live == 1;
}

static bool one_turn(world *w) { return ++w->turns % 2 == 0; }

/* Nobody asks for a checkpoint: files in which nothing is live any more go, although the last of them are released while
 * one is being taken for the first. */
START_TEST(test_released_files_are_freed) {
    world w;
    uint64_t n = 0;
    world_new_sized(&w, 1 << 20, 16 << 20);
    stream_new(&w, 1);
    while (w.sealed < 4) {
        append_patiently(&w, 1);
        wait_durable(&w, 1, ++n);
    }
    for (uint64_t index = 1; index <= n; index++) {
        cnk_wal_stream_release(w.streams[1], index);
        if (index % 7 == 0) spin(&w, one_turn);
    }
    spin(&w, one_file_left);
    world_reopen(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->released_index, n);
    world_remove(&w);
}
END_TEST

static unsigned writable_before;
static uint64_t released_before;

/* Lets go of what is durable, as a conversion would. */
static bool writable_again(world *w) {
    uint64_t durable = w->durable[1] + w->durable[2] + w->durable[3] + 1000u * w->sealed;
    if (durable != released_before) {
        released_before = durable;
        for (uint64_t id = 1; id <= 3; id++) cnk_wal_stream_release(w->streams[id], w->durable[id]);
    }
    return w->writable != writable_before;
}

/* Entries nearly as large as a file, in a log that is allowed four: files grow beyond the budget for them, and when those
 * have gone, what was refused for their sake is told so. */
START_TEST(test_large_entries_go_round_in_a_small_budget) {
    world w;
    cnk_rng rng;
    world_new_sized(&w, 1 << 20, 4 << 20);
    cnk_rng_seed(&rng, 5);
    for (uint64_t id = 1; id <= 3; id++) stream_new(&w, id);
    released_before = 0;
    for (uint64_t n = 0; n < 150; n++) {
        uint64_t id = 1 + n % 3;
        uint32_t len = (uint32_t)(cnk_rng_chance(&rng, 1, 3) ? 1000000 : cnk_rng_below(&rng, 1000000));
        for (int code; (code = append_sized(&w, id, len)) != 0;) {
            ck_assert_int_eq(code, CHRONIK_EAGAIN);
            writable_before = w.writable;
            cnk_wal_kick(w.port);
            spin(&w, writable_again);
        }
    }
    for (uint64_t id = 1; id <= 3; id++) wait_durable(&w, id, 50);
    ck_assert_uint_gt(w.sealed, 20);
    world_remove(&w);
}
END_TEST

static bool room_again(world *w) { return w->writable != writable_before; }
static bool all_durable(world *w) { return cnk_wal_port_durable(w->port) == cnk_wal_port_appended(w->port); }

/* Each time that room has been made for a large entry, a larger one comes: files made for those before give way. */
START_TEST(test_growing_offers_keep_the_budget) {
    enum { MIB = 1 << 20 };
    world w;
    world_new_sized(&w, MIB, 6 * MIB);
    stream_new(&w, 1);
    cnk_wal_kick(w.port);
    spin(&w, all_durable); /* the open file is one of the first, not one that was made for what comes */
    for (uint32_t len = 2 * MIB; len < 20 * MIB; len += 5 * MIB / 4) { /* by more than the open file has room for */
        writable_before = w.writable;
        ck_assert_int_eq(append_sized(&w, 1, len), CHRONIK_EAGAIN);
        cnk_wal_kick(w.port);
        spin(&w, room_again);
        cnk_wal_stats s;
        cnk_wal_stats_get(w.wal, &s);
        ck_assert_uint_le(s.bytes_on_disk, 8 * MIB + 2 * len); /* one such file, not all of them */
    }
    world_remove(&w);
}
END_TEST

/* A checkpoint; how many streams were written down for it. */
static unsigned checkpoint(world *w) {
    unsigned before = w->snapshots;
    cnk_wal_checkpoint(w->port);
    spin(w, no_checkpoint);
    return w->snapshots - before;
}

/* The disk was full for a moment, a file that has become free helps out, and the next one is wanted before it is time to try
 * again: that is tried all the same, later. */
START_TEST(test_a_file_is_prepared_after_a_full_disk) {
    world w;
    wrap = poor_wrap;
    poor.no_trailers = false;
    world_new_sized(&w, END_FILE_BYTES, 1 << 22);
    wrap = NULL;
    stream_new(&w, 1);
    append_one(&w, 1);
    const uint32_t first = (uint32_t)w.wal->open->number;
    seal(&w);
    append_one(&w, 1);
    atomic_store(&poor.no_room, true);
    while (!atomic_load(&w.wal->full)) {
        if (append_sized(&w, 1, 1000) == 0) wait_durable(&w, 1, cnk_wal_stream_state(w.streams[1])->last_index);
        usleep(100);
    }
    cnk_wal_stream_release(w.streams[1], 1);
    while (is_there(&w, first) || atomic_load(&w.wal->full)) {
        (void)checkpoint(&w);
        usleep(100);
    }
    atomic_store(&poor.no_room, false);
    for (int n = 0; n < 3; n++) {
        seal(&w);
        append_one(&w, 1);
        spin(&w, witnessed); /* which would be tried again and again */
    }
    world_remove(&w);
}
END_TEST

static void blobs_check(world *w, uint64_t count) {
    world_close(w);
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w->io), 0);
    ck_assert_msg(cnk_wal_open(w->io, &w->options, NULL, NULL, &err, &w->wal) == 0, "%s", err.text);
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(w->wal, &it)); count--) {
        const uint8_t *blob;
        size_t len;
        uint64_t applied, id = cnk_wal_stream_state(s)->id;
        cnk_wal_stream_blob(s, &blob, &len, &applied);
        ck_assert_uint_eq(len, 16);
        ck_assert_uint_eq(cnk_load_le64(blob), id * 7);
        ck_assert_uint_eq(cnk_load_le64(blob + 8), applied);
        ck_assert_uint_eq(applied, w->durable[id]); /* nothing came after the last checkpoint */
    }
    ck_assert_uint_eq(count, 0);
    cnk_wal_free(w->wal);
    chronik_io_posix_free(w->io);
    world_open(w);
}

/* Streams that have not changed are not written down again, and are in the checkpoint all the same. */
START_TEST(test_checkpoints_copy_clean_streams) {
    world w;
    world_new(&w);
    for (uint64_t id = 1; id <= 40; id++) {
        stream_new(&w, id);
        append_patiently(&w, id);
        wait_durable(&w, id, 1);
    }
    ck_assert_uint_eq(checkpoint(&w), 40);
    ck_assert_uint_eq(checkpoint(&w), 0);
    append_patiently(&w, 7);
    wait_durable(&w, 7, 2);
    ck_assert_int_eq(cnk_wal_vote(w.streams[9], 5, 3), 0);
    append_patiently(&w, 11);
    wait_durable(&w, 11, 2);
    ck_assert_uint_eq(checkpoint(&w), 3);
    blobs_check(&w, 40);
    ck_assert_uint_eq(checkpoint(&w), 40); /* the first of a process builds on none */
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[3]), 0);
    cnk_wal_stream_release(w.streams[4], 1);
    append_patiently(&w, 5);
    wait_durable(&w, 5, 2);
    ck_assert_uint_eq(checkpoint(&w), 2);
    ck_assert_uint_eq(checkpoint(&w), 0);
    w.streams[3] = NULL;
    w.durable[3] = 0;
    blobs_check(&w, 39);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[4])->released_index, 1);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[9])->voted_for, 3);
    world_remove(&w);
}
END_TEST

/* The checkpoint that is to be copied has gone bad: nothing of it is taken, and the next one is made from memory. */
START_TEST(test_checkpoints_copy_nothing_damaged) {
    static const long at[] = {0, 41, 60, 90, 170, 400, -9};
    for (size_t n = 0; n < sizeof at / sizeof *at; n++) {
        world w;
        char path[160];
        world_new(&w);
        for (uint64_t id = 1; id <= 10; id++) {
            stream_new(&w, id);
            append_patiently(&w, id);
            wait_durable(&w, id, 1);
        }
        ck_assert_uint_eq(checkpoint(&w), 10);
        snprintf(path, sizeof path, "%s/%020llu.checkpoint", w.wal_dir, (unsigned long long)w.wal->checkpoint_number);
        FILE *f = fopen(path, "r+b");
        ck_assert_ptr_nonnull(f);
        ck_assert_int_eq(fseek(f, at[n], at[n] < 0 ? SEEK_END : SEEK_SET), 0);
        int c = fgetc(f);
        ck_assert_int_eq(fseek(f, at[n], at[n] < 0 ? SEEK_END : SEEK_SET), 0);
        fputc(c ^ 4, f);
        ck_assert_int_eq(fclose(f), 0);
        append_patiently(&w, 7);
        wait_durable(&w, 7, 2);
        ck_assert_uint_eq(checkpoint(&w), 1);
        unsigned written = checkpoint(&w); /* the one before was in vain */
        if (at[n] >= 16) ck_assert_uint_eq(written, 10);
        blobs_check(&w, 10);
        world_remove(&w);
    }
}
END_TEST

static int rewritten_code;
static bool rewritten(world *w) {
    (void)w;
    return rewritten_code != 1;
}
static int rewrite(world *w, uint32_t file_seq) {
    rewritten_code = 1;
    cnk_wal_rewrite(w->port, file_seq, on_rewritten, &rewritten_code);
    spin(w, rewritten);
    return rewritten_code;
}

/* The next sealed file behind file *seq. */
static bool sealed_next(world *w, uint32_t *seq) {
    bool found = false;
    pthread_mutex_lock(&w->wal->mutex);
    for (size_t f = 0; f < w->wal->files_count && !found; f++) {
        found = w->wal->files[f]->state == FILE_SEALED && w->wal->files[f]->number > *seq;
        if (found) *seq = (uint32_t)w->wal->files[f]->number;
    }
    pthread_mutex_unlock(&w->wal->mutex);
    return found;
}

static uint64_t bytes_on_disk(world *w) {
    cnk_wal_stats s;
    cnk_wal_stats_get(w->wal, &s);
    return s.bytes_on_disk;
}

static bool all_sealed(world *w) {
    bool none = true;
    pthread_mutex_lock(&w->wal->mutex);
    for (size_t f = 0; f < w->wal->files_count; f++) none &= w->wal->files[f]->state != FILE_OPEN;
    pthread_mutex_unlock(&w->wal->mutex);
    return none;
}

/* The last file's header is damaged, and the file before it has been freed, so that nothing leads to it: its blocks are
 * newer than the checkpoint that freed that one, and are missed. */
START_TEST(test_nothing_leads_to_the_last_file) {
    world w;
    world_new(&w);
    for (uint64_t id = 1; id <= 2; id++) stream_new(&w, id);
    w.options.seal_after_ms = 50;
    world_reopen(&w);
    append_patiently(&w, 1); /* stays in its file */
    wait_durable(&w, 1, 1);
    spin(&w, all_sealed);
    append_patiently(&w, 2); /* in the file that goes */
    wait_durable(&w, 2, 1);
    spin(&w, all_sealed);
    cnk_wal_stream_release(w.streams[2], 1);
    (void)checkpoint(&w); /* its row opens the next one */
    uint64_t last = 1;
    cnk_wal_place p;
    do {
        append_patiently(&w, 1);
        wait_durable(&w, 1, ++last);
        ck_assert_int_eq(cnk_wal_find_index(w.streams[1], last, &p), 0);
    } while (p.file_seq == 0);
    world_close(&w);
    damage_header(&w, p.file_seq);
    world_open(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, last);
    check_stream(&w, 1);
    world_remove(&w);
}
END_TEST

/* After a start nothing is in the cache: what is uncommitted is read by a job, while streams are cut and dropped. */
START_TEST(test_uncommitted_entries_are_read_to_be_moved) {
    world w;
    world_new_sized(&w, 16 << 20, 64 << 20);
    for (uint64_t id = 1; id <= 4; id++) stream_new(&w, id);
    w.held = 2;
    for (uint64_t n = 1; n <= 150; n++) {
        for (uint64_t id = 1; id <= 4; id++) append_patiently(&w, id);
        if (n % 10 == 0) wait_durable(&w, 4, n);
    }
    wait_durable(&w, 2, 150);
    cnk_wal_place p;
    ck_assert_int_eq(cnk_wal_find_index(w.streams[2], 77, &p), 0);
    world_reopen(&w);
    w.streams[3]->commit_index = w.streams[4]->commit_index = 0;
    rewritten_code = 1;
    cnk_wal_rewrite(w.port, p.file_seq, on_rewritten, &rewritten_code);
    ck_assert_int_eq(rewritten_code, 1); /* a job reads */
    w.durable[3] = 20;
    ck_assert_int_eq(cnk_wal_truncate(w.streams[3], 20), 0);
    ck_assert_int_eq(cnk_wal_stream_drop(w.streams[4]), 0);
    cnk_wal_kick(w.port);
    spin(&w, rewritten);
    ck_assert_int_eq(rewritten_code, 0);
    w.streams[4] = NULL;
    w.durable[4] = 0;
    append_patiently(&w, 1);
    wait_durable(&w, 1, 151);
    for (uint64_t index = 1; index <= 150; index++) {
        ck_assert_int_eq(cnk_wal_find_index(w.streams[2], index, &p), 0);
        ck_assert_uint_ne(p.file_seq, 1);
    }
    cnk_wal_stream_release(w.streams[1], 150);
    cnk_wal_stream_release(w.streams[3], 20);
    (void)checkpoint(&w);
    ck_assert_ptr_null(cnk_wal_file_pin(w.wal, 1)); /* it is free */
    world_reopen(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[2])->last_index, 150);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[3])->last_index, 20);
    for (uint64_t id = 1; id <= 3; id++) check_stream(&w, id);
    world_remove(&w);
}
END_TEST

/* A log full of what nobody commits: data waits, all else goes on; nothing is moved in vain; and it ends with the commit. */
START_TEST(test_full_of_uncommitted) {
    enum { MB = 1 << 20 };
    world w;
    world_new_sized(&w, 4 * MB, 16 * MB);
    for (uint64_t id = 1; id <= 2; id++) stream_new(&w, id);
    w.held = 1;
    int code;
    uint64_t n = 0;
    for (int idle = 0; idle < 20;) { /* until nothing has come in for a while */
        code = append_sized(&w, 1, 50000);
        if (code == 0) wait_durable(&w, 1, ++n);
        else if (code == CHRONIK_EAGAIN) {
            cnk_wal_kick(w.port);
            spin(&w, no_checkpoint);
            usleep(20000);
            idle++;
        } else ck_abort_msg("append: %d", code);
    }
    ck_assert_uint_gt(n * 50000, 8 * MB);
    for (uint32_t term = 1; term < 300; term++) {
        ck_assert_int_eq(cnk_wal_vote(w.streams[1], term, 1), 0);
        for (uint32_t seq = 0; term % 30 == 1 && sealed_next(&w, &seq);)
            ck_assert_int_eq(rewrite(&w, seq), CHRONIK_EAGAIN);
        if (term % 30 == 2) (void)checkpoint(&w);
        ck_assert_uint_le(bytes_on_disk(&w), (uint64_t)(16 + CNK_WAL_OVER_FILES * 4) * MB);
    }
    ck_assert_int_eq(append_sized(&w, 1, 50000), CHRONIK_EAGAIN);
    cnk_wal_stream_commit_set(w.streams[1], n);
    cnk_wal_stream_release(w.streams[1], n);
    unsigned before = w.writable;
    (void)checkpoint(&w);
    while (w.writable == before) cnk_event_loop_run(w.loop);
    w.held = UINT64_MAX;
    for (int i = 0; i < 100; i++) append_patiently(&w, 2);
    wait_durable(&w, 2, 100);
    ck_assert_uint_le(bytes_on_disk(&w), (uint64_t)(16 + CNK_WAL_OVER_FILES * 4) * MB);
    world_reopen(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->term, 299);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, n);
    check_stream(&w, 2);
    world_remove(&w);
}
END_TEST

/* Some megabytes that nobody commits go round in a small log, while ten times its size goes through. */
START_TEST(test_uncommitted_go_round) {
    enum { MB = 1 << 20 };
    world w;
    world_new_sized(&w, 4 * MB, 16 * MB);
    for (uint64_t id = 1; id <= 2; id++) stream_new(&w, id);
    w.held = 1;
    uint64_t stuck = 0, n = 0;
    for (; stuck < 60; wait_durable(&w, 1, stuck)) ck_assert_int_eq(append_sized(&w, 1, payload_len(1, ++stuck)), 0);
    for (uint64_t sum = 0, moved = 0; sum < 160 * (uint64_t)MB || moved < 10;) {
        int code = append_sized(&w, 2, payload_len(2, n + 1));
        if (code == 0) sum += payload_len(2, ++n);
        else ck_assert_int_eq(code, CHRONIK_EAGAIN);
        if (code == 0 && n % 64 != 0) continue;
        wait_durable(&w, 2, n);
        cnk_wal_stream_release(w.streams[2], n);
        for (uint32_t seq = 0; sealed_next(&w, &seq);) moved += rewrite(&w, seq) == 0;
        wait_durable(&w, 2, n);
        (void)checkpoint(&w);
        ck_assert_uint_le(bytes_on_disk(&w), (uint64_t)(16 + CNK_WAL_OVER_FILES * 4) * MB);
    }
    check_stream(&w, 1);
    world_reopen(&w);
    ck_assert_uint_eq(cnk_wal_stream_state(w.streams[1])->last_index, 60);
    check_stream(&w, 1);
    world_remove(&w);
}
END_TEST

/* A clock that goes on by so much whenever it is looked at. */
static _Atomic uint64_t hasty_now_ns, hasty_step_ns;
static uint64_t hasty_now(void *self) {
    (void)self;
    uint64_t step = hasty_step_ns;
    return atomic_fetch_add(&hasty_now_ns, step) + step; /* also by the WAL's threads */
}

static struct { unsigned calls; uint64_t done, all; } progress;
static void on_progress(void *arg, uint64_t done, uint64_t all) {
    ck_assert_ptr_eq(arg, &progress);
    ck_assert_uint_ge(done, progress.done);
    ck_assert_uint_le(done, all);
    if (progress.calls) ck_assert_uint_eq(all, progress.all);
    progress.calls++;
    progress.done = done;
    progress.all = all;
}

/* Recovery that takes longer than a second says how far it is, each second; a short one says nothing. */
START_TEST(test_recovery_tells_its_progress) {
    world w;
    world_new(&w);
    stream_new(&w, 1);
    uint64_t last = 0;
    for (uint64_t sum = 0; sum < 45000000; sum += payload_len(1, last)) {
        append_patiently(&w, 1);
        if (++last % 64 == 0) wait_durable(&w, 1, last);
    }
    wait_durable(&w, 1, last);
    uint64_t bytes = 0;
    pthread_mutex_lock(&w.wal->mutex);
    for (size_t n = 0; n < w.wal->files_count; n++)
        if (w.wal->files[n]->state != FILE_SPARE) bytes += w.wal->files[n]->bytes;
    pthread_mutex_unlock(&w.wal->mutex);
    ck_assert_uint_gt(bytes, 45000000);
    world_close(&w);

    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &w.io), 0);
    chronik_jobs_ops jobs = *w.io->jobs_ops;
    chronik_io io = *w.io;
    jobs.now_ns = hasty_now;
    io.jobs_ops = &jobs;
    hasty_step_ns = 1;
    memset(&progress, 0, sizeof progress);
    ck_assert_int_eq(cnk_wal_open(&io, &w.options, on_progress, &progress, &err, &w.wal), 0);
    ck_assert_uint_eq(progress.calls, 0);
    cnk_wal_free(w.wal);

    hasty_step_ns = 300000000;
    ck_assert_int_eq(cnk_wal_open(&io, &w.options, on_progress, &progress, &err, &w.wal), 0);
    ck_assert_uint_gt(progress.calls, 2);
    ck_assert_uint_eq(progress.all, bytes);
    ck_assert_uint_gt(progress.done, bytes / 2);
    cnk_wal_free(w.wal);
    chronik_io_posix_free(w.io);
    world_open(&w);
    check_stream(&w, 1);
    world_remove(&w);
}
END_TEST

/* ---- when the writer waits: its steps by hand ---- */

static struct {
    const chronik_io *under;
    chronik_io io;
    chronik_jobs_ops ops;
    _Atomic bool off;
    _Atomic uint64_t now_ns;
} by_hand;

static void by_hand_submit(void *self, unsigned lane, chronik_job *job) {
    if (lane != CHRONIK_LANE_WAL || by_hand.off) by_hand.under->jobs_ops->submit(self, lane, job);
}

static uint64_t by_hand_now(void *self) {
    (void)self;
    return by_hand.now_ns;
}

static const chronik_io *by_hand_wrap(const chronik_io *io) {
    by_hand.under = io;
    by_hand.io = *io;
    by_hand.ops = *io->jobs_ops;
    by_hand.ops.submit = by_hand_submit;
    by_hand.ops.now_ns = by_hand_now;
    by_hand.io.jobs_ops = &by_hand.ops;
    by_hand.off = false;
    by_hand.now_ns = io->jobs_ops->now_ns(io->jobs); /* near that of the loop, which looks after ages */
    return &by_hand.io;
}

/* Until the writer wants to wait, and how long, or is done: CHRONIK_JOB_DONE. */
static int64_t writer_run(world *w) {
    int64_t wait = 0;
    cnk_wal_kick(w->port);
    while (wait == 0) wait = w->wal->writer.step(&w->wal->writer);
    return wait;
}

static void append_many(world *w, unsigned count, uint32_t len) {
    while (count-- > 0) ck_assert_int_eq(append_sized(w, 1, len), 0);
}

static bool written(world *w) {
    if (w->durable[1] == cnk_wal_stream_state(w->streams[1])->last_index) return true;
    by_hand.now_ns += 1000000;
    ck_assert_int_eq(writer_run(w), CHRONIK_JOB_DONE);
    return false;
}

/* A commit of four rows, after which many small ones are expected. The first one waits for its file. */
static void four_rows(world *w) {
    append_many(w, 4, 100);
    spin(w, written);
    ck_assert_uint_ge(w->wal->commit_rows_before, 4);
}

static void by_hand_end(world *w) {
    pthread_mutex_lock(&w->wal->mutex);
    by_hand.off = true;
    if (w->wal->writer_scheduled) w->io->jobs_ops->submit(w->io->jobs, CHRONIK_LANE_WAL, &w->wal->writer);
    pthread_mutex_unlock(&w->wal->mutex);
}

START_TEST(test_small_writers_share_a_sync) {
    world w;
    wrap = by_hand_wrap;
    world_new(&w);
    wrap = NULL;
    stream_new(&w, 1);

    four_rows(&w);
    by_hand.now_ns = w.wal->last_sync_ns + 10000;
    append_many(&w, 2, 100);
    ck_assert_int_eq(writer_run(&w), 490000);
    append_many(&w, 20, 100); /* many, and small all the same */
    by_hand.now_ns += 490000;
    ck_assert_int_eq(writer_run(&w), CHRONIK_JOB_DONE);

    four_rows(&w);
    by_hand.now_ns = w.wal->last_sync_ns + 10000;
    append_many(&w, 300, 200); /* many that are not little together */
    ck_assert_int_eq(writer_run(&w), CHRONIK_JOB_DONE);

    four_rows(&w);
    by_hand.now_ns = w.wal->last_sync_ns + 10000;
    append_many(&w, 2, 4000); /* not small */
    ck_assert_int_eq(writer_run(&w), CHRONIK_JOB_DONE);
    ck_assert_uint_eq(w.wal->commit_rows_before, 2);

    w.wal->commit_rows_before = 1;
    append_many(&w, 1, 100); /* a lone request */
    by_hand.now_ns = w.wal->last_sync_ns + 10000;
    ck_assert_int_eq(writer_run(&w), CHRONIK_JOB_DONE);

    by_hand_end(&w);
    world_remove(&w);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("wal");
    TCase *t = tcase_create("wal");
    tcase_set_timeout(t, 120);
    suite_add_tcase(suite, t);
    tcase_add_test(t, test_a_walk_goes_on_behind_what_it_has_told);
    tcase_add_test(t, test_small_writers_share_a_sync);
    tcase_add_test(t, test_the_next_slab_is_made_ahead);
    tcase_add_test(t, test_entries_survive_reopening);
    tcase_add_test(t, test_finds_by_offset_and_timestamp);
    tcase_add_test(t, test_state_changes_survive);
    tcase_add_test(t, test_files_are_sealed_freed_and_recycled);
    tcase_add_test(t, test_each_burst_gets_its_witness);
    tcase_add_test(t, test_released_files_are_freed);
    tcase_add_test(t, test_large_entries_go_round_in_a_small_budget);
    tcase_add_test(t, test_growing_offers_keep_the_budget);
    tcase_add_test(t, test_budget_pushes_back);
    tcase_add_test(t, test_large_entries);
    tcase_add_test(t, test_damage_is_reported);
    tcase_add_test(t, test_trailer_proves_a_file);
    tcase_add_test(t, test_nothing_leads_to_the_last_file);
    tcase_add_test(t, test_damaged_payload_takes_one_stream_offline);
    tcase_add_test(t, test_torn_end_is_cut);
    tcase_add_loop_test(t, test_a_lost_configuration_is_made_again, 0, 2);
    tcase_add_loop_test(t, test_the_end_of_a_file_stays_proven, 0, 2);
    tcase_add_test(t, test_a_file_is_prepared_after_a_full_disk);
    tcase_add_loop_test(t, test_uncommitted_entries_move, 0, 3);
    tcase_add_test(t, test_recovery_tells_its_progress);
    tcase_add_test(t, test_uncommitted_entries_are_read_to_be_moved);
    tcase_add_test(t, test_full_of_uncommitted);
    tcase_add_test(t, test_uncommitted_go_round);
    tcase_add_test(t, test_checkpoints_copy_clean_streams);
    tcase_add_test(t, test_checkpoints_copy_nothing_damaged);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
