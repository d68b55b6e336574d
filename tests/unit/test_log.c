/* The partition log over a real WAL: the matrix of idempotence, commits and truncations against a plain model,
 * snapshots and replay, epochs, each allocation failed in turn. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "codec/codec.h"
#include "io/event.h"
#include "log/log.h"
#include "record/record.h"

typedef struct world {
    char dir[64], wal_dir[80];
    chronik_io *io;
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_wal_port *port;
    cnk_wal_stream *stream;
    cnk_log_shard shard;
    cnk_log *log;
    uint32_t term;
    int drained;
} world;

static world w;

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) { (void)arg, (void)s, (void)index; }
static void on_nothing(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    ck_abort_msg("fenced: %s", why->text);
}
static void on_sealed(void *arg, uint32_t seq) { (void)arg, (void)seq; }
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied) {
    world *world_ = arg;
    (void)s;
    *ret_applied = cnk_log_commit_index(world_->log);
    return cnk_log_snapshot(world_->log, out);
}
static const cnk_wal_port_events events = {on_durable, on_nothing, on_fenced, on_nothing, on_sealed, on_snapshot};

static void open_wal(void) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    o.dir = w.wal_dir;
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &w.io), 0);
    ck_assert_int_eq(cnk_event_loop_new(NULL, NULL, &w.loop), 0);
    ck_assert_msg(cnk_wal_open(w.io, &o, NULL, NULL, &err, &w.wal) == 0, "%s", err.text);
    ck_assert_int_eq(cnk_wal_port_open(w.wal, cnk_event_loop_get(w.loop), &events, &w, &w.port), 0);
    w.shard.wal = w.wal;
}

static void on_drained(void *arg, int code) {
    (void)arg;
    ck_assert_int_eq(code, 0);
    w.drained = 1;
    cnk_event_loop_stop(w.loop);
}

static void close_wal(void) {
    w.drained = 0;
    cnk_wal_kick(w.port);
    cnk_wal_drain(w.port, on_drained, NULL);
    while (!w.drained) cnk_event_loop_run(w.loop);
    cnk_log_free(w.log);
    cnk_wal_port_close(w.port);
    cnk_wal_free(w.wal);
    cnk_event_loop_free(w.loop);
    chronik_io_posix_free(w.io);
}

static void append_entry(cnk_wal_entry e) {
    const cnk_wal_state *s = cnk_wal_stream_state(w.stream);
    e.index = s->last_index + 1;
    e.term = w.term;
    e.base_offset = s->next_offset;
    e.max_timestamp = -1;
    cnk_wal_payload p = {.iov_count = 0, .crc = cnk_crc32c(0, NULL, 0)};
    ck_assert_int_eq(cnk_log_reserve(w.log), 0);
    ck_assert_int_eq(cnk_wal_append(w.stream, &e, &p), 0);
    cnk_log_appended(w.log, &e);
}

static void append_plain(uint16_t kind) { append_entry((cnk_wal_entry){.kind = kind}); }

static void append_expiry(int64_t cutoff_ms, int64_t before_offset) {
    cnk_wal_entry e = {.kind = CNK_ENTRY_COMMAND};
    cnk_log_expire_aux(cutoff_ms, before_offset, e.aux);
    append_entry(e);
}

static void new_term(void) {
    w.term++;
    ck_assert_int_eq(cnk_wal_vote(w.stream, w.term, 1), 0);
    append_plain(CNK_ENTRY_LEADER);
}

static void setup(void) {
    w = (world){.term = 0, .shard = {.producers_per_log_max = 1000, .producers_max = 1000}};
    strcpy(w.dir, "/tmp/chronik-log-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w.dir));
    snprintf(w.wal_dir, sizeof w.wal_dir, "%s/wal", w.dir);
    open_wal();
    ck_assert_int_eq(cnk_wal_stream_new(w.port, 7, &w, &w.stream), 0);
    ck_assert_int_eq(cnk_log_new(&w.shard, w.stream, NULL, 0, 0, 0, NULL, &w.log), 0);
    append_plain(CNK_ENTRY_CONFIG);
    new_term();
}

static void teardown(void) {
    char command[128];
    close_wal();
    ck_assert_uint_eq(w.shard.producers, 0);
    snprintf(command, sizeof command, "rm -rf %s", w.dir);
    ck_assert_int_eq(system(command), 0);
}

typedef struct attempt {
    int rc;
    uint64_t index;
    int64_t base_offset;
} attempt;

static void build(cnk_writer *out, int64_t id, int16_t epoch, int32_t sequence, int count, int64_t timestamp) {
    cnk_batch_builder b;
    cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_batch_builder_producer(&b, id, epoch, sequence);
    for (int i = 0; i < count; i++) {
        cnk_record_spec r = {.timestamp = timestamp, .value = "v", .value_len = 1};
        ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    }
    cnk_writer_growing(out, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, out), 0);
    cnk_batch_builder_free(&b);
}

/* What the replica does. */
static attempt try_append_at(int64_t id, int16_t epoch, int32_t sequence, int count, int64_t timestamp) {
    cnk_writer bytes;
    cnk_batch batch;
    cnk_log_append a;
    attempt result = {0, 0, -1};
    build(&bytes, id, epoch, sequence, count, timestamp);
    ck_assert_int_eq(cnk_batch_parse(bytes.data, bytes.len, &batch), 0);
    result.rc = cnk_log_check(w.log, &batch, w.term, -1, &a, &result.index, &result.base_offset);
    if (result.rc == 0) {
        a.entry.index = cnk_wal_stream_state(w.stream)->last_index + 1;
        a.entry.term = w.term;
        result.rc = cnk_wal_append(w.stream, &a.entry, &a.payload);
        if (result.rc == 0) {
            cnk_log_appended(w.log, &a.entry);
            result.index = a.entry.index;
            result.base_offset = a.entry.base_offset;
        }
    }
    cnk_writer_free(&bytes);
    return result;
}

static attempt try_append(int64_t id, int16_t epoch, int32_t sequence, int count) {
    return try_append_at(id, epoch, sequence, count, 1000);
}

static void commit_all(void) {
    uint64_t last = cnk_wal_stream_state(w.stream)->last_index;
    cnk_wal_stream_commit_set(w.stream, last);
    cnk_log_committed(w.log, last);
}

static void truncate_to_commit(void) {
    ck_assert_int_eq(cnk_wal_truncate(w.stream, cnk_log_commit_index(w.log)), 0);
    cnk_log_truncated(w.log, cnk_log_commit_index(w.log));
}

static void snapshot_bytes(const cnk_log *log, cnk_writer *out) {
    cnk_writer_growing(out, 0);
    ck_assert_int_eq(cnk_log_snapshot(log, out), 0);
}

/* A second log over the same stream, from a snapshot as of some index, must come to the same state. */
static void check_restores(const cnk_writer *snapshot, uint64_t applied) {
    cnk_log *other = NULL;
    cnk_log_shard shard = w.shard;
    cnk_writer a, b;
    shard.producers = 0;
    ck_assert_int_eq(cnk_log_new(&shard, w.stream, snapshot->data, snapshot->len, applied, cnk_log_commit_index(w.log),
                                 NULL, &other),
                     0);
    snapshot_bytes(w.log, &a);
    snapshot_bytes(other, &b);
    ck_assert_uint_eq(a.len, b.len);
    ck_assert_int_eq(memcmp(a.data, b.data, a.len), 0);
    ck_assert_int_eq(cnk_log_high_watermark(other), cnk_log_high_watermark(w.log));
    cnk_writer_free(&a);
    cnk_writer_free(&b);
    cnk_log_free(other);
    ck_assert_uint_eq(shard.producers, 0);
}

START_TEST(test_idempotence_matrix) {
    for (int committed = 0; committed < 2; committed++) {
        int64_t id = 10 + committed;
        attempt first = try_append(id, 3, 70, 5); /* no state: any sequence */
        ck_assert_int_eq(first.rc, 0);
        if (committed) commit_all();
        attempt again = try_append(id, 3, 70, 5);
        ck_assert_int_eq(again.rc, CHRONIK_EDUPLICATE);
        ck_assert_int_eq(again.base_offset, first.base_offset);
        ck_assert_uint_eq(again.index, first.index);
        ck_assert_int_eq(try_append(id, 3, 70, 4).rc, CHRONIK_EOUTOFORDER); /* not the same batch */
        ck_assert_int_eq(try_append(id, 3, 76, 1).rc, CHRONIK_EOUTOFORDER);
        ck_assert_int_eq(try_append(id, 3, 74, 1).rc, CHRONIK_EOUTOFORDER);
        ck_assert_int_eq(try_append(id, 2, 75, 1).rc, CHRONIK_EPRODUCEREPOCH);
        ck_assert_int_eq(try_append(id, 4, 75, 1).rc, CHRONIK_EOUTOFORDER);
        ck_assert_int_eq(try_append(id, 3, 75, 1).rc, 0);
        if (committed) commit_all();
        for (int i = 0; i < 4; i++) ck_assert_int_eq(try_append(id, 3, 76 + i, 1).rc, 0);
        if (committed) commit_all();
        ck_assert_int_eq(try_append(id, 3, 70, 5).rc, CHRONIK_EOUTOFORDER); /* the sixth last */
        ck_assert_int_eq(try_append(id, 3, 75, 1).rc, CHRONIK_EDUPLICATE);
        ck_assert_int_eq(try_append(id, 4, 0, 2).rc, 0);
        ck_assert_int_eq(try_append(id, 4, 0, 2).rc, CHRONIK_EDUPLICATE);
        ck_assert_int_eq(try_append(id, 3, 80, 1).rc, CHRONIK_EPRODUCEREPOCH);
        commit_all();
    }
}
END_TEST

START_TEST(test_sequence_wrap) {
    ck_assert_int_eq(try_append(1, 0, INT32_MAX - 2, 3).rc, 0); /* ends at 2^31 - 1 */
    ck_assert_int_eq(try_append(1, 0, 1, 1).rc, CHRONIK_EOUTOFORDER);
    ck_assert_int_eq(try_append(1, 0, 0, 2).rc, 0);
    ck_assert_int_eq(try_append(2, 0, INT32_MAX - 1, 4).rc, 0); /* wraps inside: ends at 1 */
    ck_assert_int_eq(try_append(2, 0, INT32_MAX - 1, 4).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(2, 0, 2, 1).rc, 0);
    commit_all();
    ck_assert_int_eq(try_append(2, 0, 2, 1).rc, CHRONIK_EDUPLICATE);
}
END_TEST

/* KAFKA-14884: 5 and 6 are in flight, 5 is refused for a while, 6 must not become the first. */
START_TEST(test_refused_sequence) {
    cnk_writer bytes;
    cnk_batch batch;
    build(&bytes, 9, 0, 5, 1, 1000);
    ck_assert_int_eq(cnk_batch_parse(bytes.data, bytes.len, &batch), 0);
    cnk_log_refused(w.log, &batch);
    ck_assert_int_eq(try_append(9, 0, 6, 1).rc, CHRONIK_EOUTOFORDER);
    ck_assert_int_eq(try_append(9, 0, 5, 1).rc, 0);
    ck_assert_int_eq(try_append(9, 0, 6, 1).rc, 0);
    ck_assert_int_eq(try_append(8, 0, 6, 1).rc, 0);
    for (int64_t id = 100; id < 100 + 3 * CNK_LOG_REFUSED_MAX; id++) { /* bounded: the oldest are forgotten */
        batch.producer_id = id;
        cnk_log_refused(w.log, &batch);
    }
    ck_assert_int_eq(try_append(100, 0, 6, 1).rc, 0);
    ck_assert_int_eq(try_append(99 + 3 * CNK_LOG_REFUSED_MAX, 0, 6, 1).rc, CHRONIK_EOUTOFORDER);
    cnk_writer_free(&bytes);
}
END_TEST

START_TEST(test_truncate_restores_producers) {
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, 0);
    commit_all();
    ck_assert_int_eq(try_append(1, 0, 1, 1).rc, 0);
    ck_assert_int_eq(try_append(1, 1, 0, 1).rc, 0);
    ck_assert_int_eq(try_append(2, 0, 0, 1).rc, 0);
    int64_t end = cnk_log_high_watermark(w.log);
    truncate_to_commit();
    ck_assert_int_eq(cnk_log_end(w.log), end);
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(1, 0, 2, 1).rc, CHRONIK_EOUTOFORDER);
    ck_assert_int_eq(try_append(2, 0, 5, 1).rc, 0); /* nothing is known of it any more */
    attempt a = try_append(1, 0, 1, 1);
    ck_assert_int_eq(a.rc, 0);
    ck_assert_int_eq(a.base_offset, end + 1);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 2);
}
END_TEST

START_TEST(test_caps_forget_the_longest_idle) {
    w.shard.producers_per_log_max = 3;
    for (int64_t id = 0; id < 5; id++) {
        ck_assert_int_eq(try_append(id, 0, 0, 1).rc, 0);
        commit_all();
    }
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 3);
    ck_assert_int_eq(try_append(4, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(2, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(0, 0, 0, 1).rc, 0); /* forgotten */
    ck_assert_int_eq(try_append(1, 0, 9, 1).rc, 0);
    for (int64_t id = 20; id < 30; id++) /* many at once, uncommitted */
        ck_assert_int_eq(try_append(id, 0, 0, 1).rc, 0);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 3);
    ck_assert_int_eq(try_append(29, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(26, 0, 7, 1).rc, 0);
}
END_TEST

/* By the timestamp and the offset of the last batch, when the entry is committed; new batches are checked as if it
 * were, from its append on. */
START_TEST(test_idle_producers_are_forgotten) {
    for (int64_t id = 1; id <= 4; id++) ck_assert_int_eq(try_append_at(id, 0, 0, 1, 1000 * id).rc, 0);
    ck_assert_int_eq(try_append_at(5, 0, 0, 1, 500).rc, 0); /* offset 4: an old timestamp */
    commit_all();
    ck_assert(!cnk_log_expirable(w.log, 999, 4));
    ck_assert(cnk_log_expirable(w.log, 999, 5));
    ck_assert(!cnk_log_expirable(w.log, 5000, 0));
    append_expiry(2000, 4);                        /* 1 and 2; 5 has written too lately */
    ck_assert(!cnk_log_expirable(w.log, 2000, 4)); /* it is on its way */
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 5);
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, 0); /* what was a duplicate begins anew */
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(3, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(5, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    truncate_to_commit(); /* and is a duplicate again without that entry */
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(2, 0, 1, 1).rc, 0);
    append_expiry(2000, 4); /* 2 has written meanwhile */
    ck_assert_int_eq(try_append(2, 0, 1, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(1, 0, 7, 1).rc, 0);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 5); /* 1 is new */
    ck_assert_uint_eq(w.shard.producers, 5);
    ck_assert_int_eq(try_append(1, 0, 7, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(1, 0, 0, 1).rc, CHRONIK_EOUTOFORDER);
    append_expiry((INT64_C(1) << 48) - 1, INT64_MAX);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 0);
    ck_assert_uint_eq(w.shard.producers, 0);
    for (int64_t id = 1; id <= 5; id++) ck_assert_int_eq(try_append(id, 0, 40, 1).rc, 0);
    append_expiry(1000, 1000); /* appended, and due, before any of them is committed */
    append_expiry(1000, 1000);
    for (int64_t id = 1; id <= 3; id++) ck_assert_int_eq(try_append(id, 0, 90, 1).rc, 0);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 3);
    ck_assert_int_eq(try_append(3, 0, 90, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(4, 0, 3, 1).rc, 0);
}
END_TEST

/* An entry that forgets stands between batches of producers that the cap forgets. */
START_TEST(test_caps_beside_expiry) {
    w.shard.producers_per_log_max = 3;
    for (int64_t id = 0; id < 3; id++) ck_assert_int_eq(try_append_at(id, 0, 0, 1, 1000 + id).rc, 0);
    commit_all();
    for (int32_t n = 1; n < 3; n++)
        for (int64_t id = 0; id < 6; id++) {
            ck_assert_int_eq(try_append_at(id, 0, id < 3 ? n : n - 1, 1, 1000 + id).rc, 0);
            append_expiry(1000 + n - 1, INT64_MAX); /* 0, then 0 and 1, again and again */
            ck_assert_int_eq(try_append_at(0, 0, 70, 1, 1000).rc, 0);
            append_expiry(1000, INT64_MAX);
            if (id == 0 || (n == 2 && id == 1)) ck_assert_int_eq(try_append_at(id, 0, n, 1, 1000 + id).rc, 0);
        }
    commit_all();
    ck_assert_uint_le(cnk_log_producer_count(w.log), 3);
    ck_assert_int_eq(try_append_at(5, 0, 1, 1, 1005).rc, CHRONIK_EDUPLICATE);
}
END_TEST

START_TEST(test_epochs) {
    int32_t epoch;
    int64_t end;
    ck_assert_int_eq(try_append(-1, -1, -1, 10).rc, 0);
    new_term(); /* 2 at 10 */
    new_term(); /* 3 at 10: 2 wrote nothing */
    ck_assert_int_eq(try_append(-1, -1, -1, 5).rc, 0);
    new_term(); /* 4 at 15 */
    commit_all();
    ck_assert_int_eq(cnk_log_epoch_at(w.log, 0), 1);
    ck_assert_int_eq(cnk_log_epoch_at(w.log, 9), 1);
    ck_assert_int_eq(cnk_log_epoch_at(w.log, 10), 3);
    ck_assert_int_eq(cnk_log_epoch_at(w.log, 15), 4);
    cnk_log_epoch_end(w.log, 1, &epoch, &end);
    ck_assert_int_eq(epoch, 1);
    ck_assert_int_eq(end, 10);
    cnk_log_epoch_end(w.log, 2, &epoch, &end);
    ck_assert_int_eq(epoch, 1);
    ck_assert_int_eq(end, 10);
    cnk_log_epoch_end(w.log, 4, &epoch, &end);
    ck_assert_int_eq(epoch, 4);
    ck_assert_int_eq(end, 15);
    cnk_log_epoch_end(w.log, 9, &epoch, &end); /* to come */
    ck_assert_int_eq(epoch, -1);
    ck_assert_int_eq(end, -1);
    cnk_log_epoch_end(w.log, -1, &epoch, &end);
    ck_assert_int_eq(epoch, -1);
    ck_assert_int_eq(end, -1);
    cnk_log_epoch_end(w.log, 0, &epoch, &end); /* before all that are known */
    ck_assert_int_eq(epoch, 0);
    ck_assert_int_eq(end, 0);
}
END_TEST

START_TEST(test_refuses_transactions) {
    cnk_writer bytes;
    cnk_batch batch;
    cnk_log_append a;
    attempt r;
    build(&bytes, 9, 0, 0, 1, 1000);
    ck_assert_int_eq(cnk_batch_parse(bytes.data, bytes.len, &batch), 0);
    batch.attributes |= 16;
    ck_assert_int_eq(cnk_log_check(w.log, &batch, 1, -1, &a, &r.index, &r.base_offset), CHRONIK_EUNSUPPORTED);
    batch.attributes = 32;
    ck_assert_int_eq(cnk_log_check(w.log, &batch, 1, -1, &a, &r.index, &r.base_offset), CHRONIK_EUNSUPPORTED);
    cnk_writer_free(&bytes);
}
END_TEST

START_TEST(test_append_time) {
    cnk_writer bytes;
    cnk_batch batch, stamped;
    cnk_log_append a;
    attempt r;
    build(&bytes, 9, 0, 0, 3, 1000);
    ck_assert_int_eq(cnk_batch_parse(bytes.data, bytes.len, &batch), 0);
    ck_assert_int_eq(cnk_log_check(w.log, &batch, 5, 123456, &a, &r.index, &r.base_offset), 0);
    uint8_t *copy = malloc(bytes.len);
    memcpy(copy, a.payload.iov[0].iov_base, a.payload.iov[0].iov_len);
    memcpy(copy + a.payload.iov[0].iov_len, a.payload.iov[1].iov_base, a.payload.iov[1].iov_len);
    ck_assert_uint_eq(cnk_crc32c(0, copy, bytes.len), a.payload.crc);
    ck_assert_int_eq(cnk_batch_parse(copy, bytes.len, &stamped), 0);
    ck_assert_int_eq(stamped.leader_epoch, 5);
    ck_assert_int_eq(stamped.max_timestamp, 123456);
    ck_assert(cnk_batch_append_time(&stamped));
    ck_assert_uint_eq(cnk_crc32c(0, copy + CNK_BATCH_CRC_FROM, bytes.len - CNK_BATCH_CRC_FROM), stamped.crc);
    free(copy);
    cnk_writer_free(&bytes);
}
END_TEST

/* Random appends, commits, truncations; the model knows each producer's whole history. */
enum { MODEL_PRODUCERS = 12, MODEL_HISTORY = 4000 };
typedef struct model_entry {
    int producer; /* -1: an entry that forgets: whose last timestamp is not above this one, and offset below `before` */
    int16_t epoch;
    int32_t sequence;
    int count;
    int64_t base, timestamp, before;
    uint64_t index;
} model_entry;

START_TEST(test_random) {
    static model_entry history[MODEL_HISTORY];
    cnk_rng rng;
    cnk_writer kept = {0};
    uint64_t kept_at = 0;
    size_t count = 0, committed = 0;
    cnk_rng_seed(&rng, 1000 + (uint64_t)_i);
    for (int step = 0; step < 3000; step++) {
        unsigned what = (unsigned)cnk_rng_below(&rng, 100);
        if (what < 70 && count < MODEL_HISTORY) {
            int p = (int)cnk_rng_below(&rng, MODEL_PRODUCERS);
            const model_entry *last = NULL;
            size_t from = 0; /* what came before is forgotten */
            for (size_t i = 0; i < count; i++) {
                const model_entry *e = &history[i];
                if (e->producer == p) {
                    last = e;
                } else if (e->producer < 0 && last && last->timestamp <= e->timestamp && last->base < e->before) {
                    last = NULL;
                    from = i;
                }
            }
            int n = 1 + (int)cnk_rng_below(&rng, 4);
            int16_t epoch = last ? last->epoch : 0;
            int32_t sequence = last ? last->sequence + last->count : 0;
            int expected = 0;
            if (last && cnk_rng_chance(&rng, 1, 4)) { /* a retry of one of the last batches */
                size_t back = (size_t)cnk_rng_below(&rng, 8), seen = 0;
                const model_entry *e = last;
                for (size_t i = count; i-- > from;)
                    if (history[i].producer == p && history[i].epoch == epoch && seen++ == back) e = &history[i];
                if (seen > back) {
                    sequence = e->sequence;
                    n = e->count;
                    expected = back < CNK_LOG_PRODUCER_BATCHES ? CHRONIK_EDUPLICATE : CHRONIK_EOUTOFORDER;
                    attempt r = try_append(p, epoch, sequence, n);
                    ck_assert_int_eq(r.rc, expected);
                    if (expected == CHRONIK_EDUPLICATE) ck_assert_int_eq(r.base_offset, e->base);
                    continue;
                }
            } else if (last && cnk_rng_chance(&rng, 1, 10)) {
                ck_assert_int_eq(try_append(p, epoch, sequence + 1, n).rc, CHRONIK_EOUTOFORDER);
                continue;
            } else if (last && cnk_rng_chance(&rng, 1, 20)) {
                epoch++;
                sequence = 0;
            }
            int64_t timestamp = 1000 + (int64_t)cnk_rng_below(&rng, 100);
            attempt r = try_append_at(p, epoch, sequence, n, timestamp);
            ck_assert_int_eq(r.rc, 0);
            history[count++] = (model_entry){p, epoch, sequence, n, r.base_offset, timestamp, 0, r.index};
        } else if (what < 73 && count < MODEL_HISTORY) {
            int64_t end = cnk_log_end(w.log), cutoff = 1000 + (int64_t)cnk_rng_below(&rng, 100);
            int64_t before = end - (int64_t)cnk_rng_below(&rng, 120);
            append_expiry(cutoff, before);
            history[count++] =
                (model_entry){-1, 0, 0, 0, end, cutoff, before, cnk_wal_stream_state(w.stream)->last_index};
        } else if (what < 85) {
            size_t to = committed + (size_t)cnk_rng_below(&rng, count - committed + 1);
            if (to > committed) {
                cnk_wal_stream_commit_set(w.stream, history[to - 1].index);
                cnk_log_committed(w.log, history[to - 1].index);
                committed = to;
                ck_assert_int_eq(cnk_log_high_watermark(w.log), history[to - 1].base + history[to - 1].count);
            }
        } else if (what < 90) {
            size_t to = committed + (size_t)cnk_rng_below(&rng, count - committed + 1);
            uint64_t keep = to > 0 ? history[to - 1].index : cnk_wal_stream_state(w.stream)->last_index;
            if (to < count && to > 0 && keep >= cnk_log_commit_index(w.log)) {
                ck_assert_int_eq(cnk_wal_truncate(w.stream, keep), 0);
                cnk_log_truncated(w.log, keep);
                count = to;
            }
        } else if (what < 93 || kept.data == NULL) {
            cnk_writer_free(&kept);
            snapshot_bytes(w.log, &kept);
            kept_at = cnk_log_commit_index(w.log);
        } else {
            check_restores(&kept, kept_at);
        }
    }
    cnk_writer_free(&kept);
    commit_all();
}
END_TEST

START_TEST(test_reopen) {
    for (int i = 0; i < 200; i++) ck_assert_int_eq(try_append(i % 3, 0, i / 3, 1).rc, 0);
    commit_all();
    cnk_writer before, after;
    snapshot_bytes(w.log, &before);
    close_wal();
    uint32_t producers = w.shard.producers;
    ck_assert_uint_eq(producers, 0);
    open_wal();
    size_t it = 0;
    const uint8_t *blob;
    size_t len;
    uint64_t applied;
    w.stream = cnk_wal_recovered_next(w.wal, &it);
    ck_assert_ptr_nonnull(w.stream);
    cnk_wal_stream_blob(w.stream, &blob, &len, &applied);
    ck_assert_int_eq(
        cnk_log_new(&w.shard, w.stream, blob, len, applied, cnk_wal_stream_state(w.stream)->last_index, NULL, &w.log),
        0);
    cnk_wal_stream_attach(w.port, w.stream, &w);
    snapshot_bytes(w.log, &after);
    ck_assert_uint_eq(before.len, after.len);
    ck_assert_int_eq(memcmp(before.data, after.data, before.len), 0);
    ck_assert_int_eq(try_append(2, 0, 65, 1).rc, CHRONIK_EDUPLICATE);
    ck_assert_int_eq(try_append(1, 0, 67, 1).rc, 0);
    cnk_writer_free(&before);
    cnk_writer_free(&after);
}
END_TEST

/* A damaged snapshot is refused, whatever bit or length is wrong, and never read beyond its end. */
START_TEST(test_damaged_snapshot) {
    cnk_writer s;
    for (int i = 0; i < 6; i++) ck_assert_int_eq(try_append(i, 0, 0, 1).rc, 0);
    commit_all();
    snapshot_bytes(w.log, &s);
    cnk_log_shard shard = {.producers_per_log_max = 10, .producers_max = 10};
    for (size_t cut = 1; cut < s.len; cut++) {
        cnk_log *log = NULL;
        uint8_t *copy = malloc(cut);
        memcpy(copy, s.data, cut);
        ck_assert_int_eq(cnk_log_new(&shard, w.stream, copy, cut, cnk_log_commit_index(w.log),
                                     cnk_log_commit_index(w.log), NULL, &log),
                         CHRONIK_ECORRUPT);
        ck_assert_ptr_null(log);
        free(copy);
    }
    for (size_t at = 0; at < s.len; at++) { /* must not crash; may be taken where only a number changed */
        cnk_log *log = NULL;
        uint8_t *copy = malloc(s.len);
        memcpy(copy, s.data, s.len);
        copy[at] ^= 0x80;
        int rc = cnk_log_new(&shard, w.stream, copy, s.len, cnk_log_commit_index(w.log), cnk_log_commit_index(w.log),
                             NULL, &log);
        ck_assert(rc == 0 || rc == CHRONIK_ECORRUPT);
        cnk_log_free(log);
        free(copy);
    }
    ck_assert_uint_eq(shard.producers, 0);
    cnk_writer_free(&s);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(test_each_allocation_fails) {
    cnk_writer s;
    for (int i = 0; i < 40; i++) ck_assert_int_eq(try_append(i, 0, 0, 1).rc, 0);
    commit_all();
    new_term();
    for (int i = 0; i < 40; i++) ck_assert_int_eq(try_append(i, 0, 1, 1).rc, 0);
    snapshot_bytes(w.log, &s);
    cnk_log_shard shard = {.producers_per_log_max = 100, .producers_max = 100};
    int failures = 0;
    for (long n = 0;; n++) {
        cnk_log *log = NULL;
        cnk_mem_fail_at(n);
        int rc = cnk_log_new(&shard, w.stream, s.data, s.len, cnk_log_commit_index(w.log), cnk_log_commit_index(w.log),
                             NULL, &log);
        cnk_mem_fail_at(-1);
        cnk_log_free(log);
        ck_assert_uint_eq(shard.producers, 0);
        if (rc == 0) break;
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
        ck_assert_ptr_null(log);
        failures++;
    }
    ck_assert_int_gt(failures, 40);
    /* Appending: the log and the WAL stay as they were, and the same batch gets in afterwards. */
    failures = 0;
    for (int64_t id = 1000; id < 1040; id++)
        for (long n = 0;; n++) {
            cnk_writer bytes;
            cnk_batch batch;
            cnk_log_append a;
            attempt r;
            build(&bytes, id, 0, 0, 1, 1000);
            ck_assert_int_eq(cnk_batch_parse(bytes.data, bytes.len, &batch), 0);
            cnk_mem_fail_at(n);
            int rc = cnk_log_check(w.log, &batch, w.term, -1, &a, &r.index, &r.base_offset);
            cnk_mem_fail_at(-1);
            cnk_writer_free(&bytes);
            if (rc == 0) break;
            ck_assert_int_eq(rc, CHRONIK_ENOMEM);
            failures++;
        }
    ck_assert_int_gt(failures, 40);
    ck_assert_int_eq(try_append(1039, 0, 0, 1).rc, 0);
    commit_all();
    ck_assert_uint_eq(cnk_log_producer_count(w.log), 41);
    cnk_writer_free(&s);
}
END_TEST
#endif

static Suite *suite(void) {
    Suite *s = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, test_idempotence_matrix);
    tcase_add_test(tc, test_sequence_wrap);
    tcase_add_test(tc, test_refused_sequence);
    tcase_add_test(tc, test_truncate_restores_producers);
    tcase_add_test(tc, test_caps_forget_the_longest_idle);
    tcase_add_test(tc, test_idle_producers_are_forgotten);
    tcase_add_test(tc, test_caps_beside_expiry);
    tcase_add_test(tc, test_epochs);
    tcase_add_test(tc, test_refuses_transactions);
    tcase_add_test(tc, test_append_time);
    tcase_add_loop_test(tc, test_random, 0, 10);
    tcase_add_test(tc, test_reopen);
    tcase_add_test(tc, test_damaged_snapshot);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(tc, test_each_allocation_fails);
#endif
    suite_add_tcase(s, tc);
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
