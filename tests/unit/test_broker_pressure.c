/* The broker at its limits: no room in the WAL, many requests at once, cancelled ones, slow readers, cold data. */
#include "broker_world.h"
#include "job_gate.h"
#include "broker/internal.h"
#include "wal/internal.h"

static world w;

enum { MANY = 120 };

typedef struct sent {
    call c;
    cnk_writer batch;
    cnk_produce_part part;
    cnk_produce op;
    bool waited, taken; /* its data was needed after the start; and then no longer. The starting shard's thread */
} sent;

static sent many[MANY];

/* From here on the memory is the caller's: whoever still looks at it finds something else. */
static void on_sent_taken(cnk_produce *op) {
    sent *s = CNK_CONTAINER(op, sent, op);
    ck_assert(!op->data_needed && !s->taken && !s->c.over);
    s->taken = true;
    memset(s->batch.data, 0xdd, s->batch.len);
    world_poke(&w);
}

static int sent_start(call *c) {
    cnk_produce *op = c->op;
    sent *s = CNK_CONTAINER(op, sent, op);
    op->taken = on_sent_taken;
    const int rc = produce_start(c);
    s->waited = rc == CNK_PENDING && op->data_needed;
    return rc;
}

static void send(sent *s, size_t shard, const char *topic, int32_t partition, int records, producer_fields who,
                 size_t value_len, int32_t timeout_ms) {
    *s = (sent){.part = {.topic = text(topic), .partition = partition}};
    make_batch(&s->batch, records, 1700000000000, who, value_len);
    s->part.data = s->batch.data;
    s->part.len = (uint32_t)s->batch.len;
    s->op = (cnk_produce){.acks = -1, .timeout_ms = timeout_ms, .version = 11, .parts = &s->part, .part_count = 1};
    call_begin(&w, shard, &s->c, sent_start, &s->op);
}

static int await(sent *s) {
    ck_assert_int_eq(call_wait(&s->c), 0);
    cnk_writer_free(&s->batch);
    return s->part.error;
}

static void open_small(size_t shards, uint64_t unsynced, uint64_t budget) {
    world_new(&w, shards);
    world_close(&w);
    w.wal_options.unsynced_bytes_max = unsynced;
    w.wal_options.file_bytes = 1u << 20;
    w.wal_options.budget_bytes = budget;
    world_open(&w);
}

/* A WAL that holds little, and packs for the rest. */
static void open_with_packs(size_t shards, void (*io_made)(chronik_io *io)) {
    world_new(&w, shards);
    world_close(&w);
    w.wal_options.file_bytes = 1u << 20;
    w.wal_options.budget_bytes = 4u << 20;
    w.with_tier = true;
    w.io_made = io_made;
    world_open(&w);
}

/* More than the WAL takes unsynced: all get in, and each partition keeps its order (T4). */
START_TEST(test_waiting_keeps_order) {
    open_small(_i ? 3 : 1, 256 * 1024, 64u << 20);
    ck_assert_int_eq(create(&w, "t", 2), 0);
    int waited = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++)
            send(&many[i], 0, "t", i % 2, 1, (producer_fields){5, 0, round * MANY / 2 + i / 2}, 60000, 600000);
        for (int i = 0; i < MANY; i++) {
            ck_assert_int_eq(await(&many[i]), 0);
            ck_assert_int_eq(many[i].part.base_offset, round * MANY / 2 + i / 2);
            ck_assert(many[i].taken == many[i].waited);
            waited += many[i].waited;
        }
    }
    ck_assert_int_gt(waited, 0);
    for (int32_t p = 0; p < 2; p++) ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, 3 * MANY / 2);
    cnk_shard_stats stats;
    cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
    ck_assert_uint_eq(stats.waiting_parts, 0);
    world_free(&w);
}
END_TEST

/* The disk's budget for packs is used up, so the WAL fills up to its own: produces wait, time out with a code that is
 * retried, and leave nothing behind; deleting a topic gives the space back; then waiting batches get in. */
START_TEST(test_over_budget) {
    world_new(&w, _i ? 3 : 1);
    world_close(&w);
    w.wal_options.file_bytes = 1u << 20;
    w.wal_options.budget_bytes = 12u << 20;
    w.with_tier = true;
    w.tier_options.budget_bytes = 4u << 20;
    w.tier_options.retry_ms = 20;
    world_open(&w);
    ck_assert_int_eq(create(&w, "old", 1), 0);
    ck_assert_int_eq(create(&w, "new", 1), 0);
    int acked = 0, error = 0;
    while (error == 0 && acked < 10000) {
        send(&many[0], 0, "old", 0, 1, no_producer, 60000, 1);
        error = await(&many[0]);
        acked += error == 0;
    }
    ck_assert_int_eq(error, CHRONIK_ETIMEDOUT);
    ck_assert_int_gt(w.tier_pauses, 0);
    ck_assert_int_eq(fetch_all(&w, "old", 0, 0).next, acked);
    send(&many[1], 0, "new", 0, 1, no_producer, 60000, 600000); /* waits for room */
    ck_assert_int_eq(delete_one(&w, "old"), 0);
    ck_assert_int_eq(await(&many[1]), 0);
    for (int i = 0; i < 20; i++) {
        send(&many[0], 0, "new", 0, 1, no_producer, 60000, 600000);
        ck_assert_int_eq(await(&many[0]), 0);
    }
    world_reopen(&w);
    ck_assert_int_eq(fetch_all(&w, "new", 0, 0).next, 21);
    world_free(&w);
}
END_TEST

/* Far more than the WAL holds, read back from packs, files and memory, across restarts. */
START_TEST(test_packs) {
    open_with_packs(_i ? 3 : 1, NULL);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    int64_t stored = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2 * MANY; i += MANY) {
            for (int k = 0; k < MANY; k++)
                send(&many[k], (size_t)k % w.shard_count, "t", k % 3, 3, no_producer, 20000, 600000);
            for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
            stored += MANY;
        }
        for (int32_t p = 0; p < 3; p++) {
            ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, stored);
            ck_assert_int_eq(fetch_all(&w, "t", p, stored / 2).records, stored - stored / 2 / 3 * 3);
            cnk_list_offsets_part l = list_offset(&w, "t", p, 1700000000002);
            ck_assert_int_eq(l.error, 0);
            ck_assert_int_eq(l.offset, 2);
            ck_assert_int_eq(l.offset_epoch, 1);
            ck_assert_int_eq(list_offset(&w, "t", p, CNK_OFFSET_MAX_TIMESTAMP).offset, 2);
        }
        world_reopen(&w);
    }
    cnk_tier_stats stats;
    cnk_tier_stats_get(w.tier, &stats);
    ck_assert_uint_gt(stats.packs, 0);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    world_free(&w);
}
END_TEST

/* The newest of the WAL's files that is not above a number. */
static uint32_t newest_file(uint32_t file_seq) {
    for (; file_seq > 0; file_seq--) {
        cnk_wal_file *file = cnk_wal_file_pin(w.wal, file_seq);
        if (file == NULL) continue;
        cnk_wal_file_unpin(file);
        break;
    }
    return file_seq;
}

/* An offset is looked for by its timestamp in a WAL file that is freed, its data being in packs, before the job comes to
 * read it: the look is done again. The tier's first conversion waits as the look's job does. */
START_TEST(test_a_timestamp_moves_to_packs) {
    open_small(1, 1u << 20, 8u << 20);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < 2 * MANY; i += MANY) {
        for (int k = 0; k < MANY; k++) send(&many[k], 0, "t", 0, 1, no_producer, 8000, 600000);
        for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    world_close(&w);
    w.with_tier = true;
    w.io_made = gate_set;
    gate_shut(CHRONIK_LANE_COMPUTE);
    gate_shut(CHRONIK_LANE_BACKGROUND);
    world_open(&w);
    const uint32_t newest = newest_file(100);
    call look;
    cnk_list_offsets_part part = {.topic = text("t"), .leader_epoch = -1, .timestamp = 1700000000000};
    cnk_list_offsets op = {.parts = &part, .part_count = 1};
    call_begin(&w, 0, &look, list_start, &op);
    while (gate_held(CHRONIK_LANE_COMPUTE) == 0) (void)produce(&w, "t", 0, 1);
    gate_open(CHRONIK_LANE_BACKGROUND);
    while (newest_file(newest) > 0) {
        for (int k = 0; k < MANY; k++) send(&many[k], 0, "t", 0, 1, no_producer, 8000, 600000);
        for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    gate_open(CHRONIK_LANE_COMPUTE);
    ck_assert_int_eq(call_wait(&look), 0);
    ck_assert_int_eq(part.error, 0);
    ck_assert_int_eq(part.offset, 0);
    ck_assert_int_eq(part.record_timestamp, 1700000000000);
    world_free(&w);
}
END_TEST

/* No commit begins from here on: the writer, which may look again after one, has come to rest or is held. */
static void writer_shut(void) {
    gate_shut(CHRONIK_LANE_WAL);
    for (bool runs = true; runs && gate_held(CHRONIK_LANE_WAL) == 0; sched_yield()) {
        pthread_mutex_lock(&w.wal->mutex);
        runs = w.wal->writer_scheduled;
        pthread_mutex_unlock(&w.wal->mutex);
    }
}

/* While nothing is synced: a batch that goes to another shard is needed until that one has put it into the WAL, no longer. */
START_TEST(test_data_is_taken_before_the_sync) {
    world_new(&w, 3);
    world_close(&w);
    w.io_made = gate_set;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    writer_shut();
    for (int p = 0; p < 3; p++) send(&many[p], 0, "t", p, 1, no_producer, 60000, 600000);
    for (int waited = 0, taken = -1; taken != waited;) {
        cnk_event_loop_run(w.loops[0]);
        waited = taken = 0;
        for (int p = 0; p < 3; p++) waited += many[p].waited, taken += many[p].taken;
        if (waited == 0) taken = -1;
    }
    for (int p = 0; p < 3; p++) ck_assert(!many[p].c.over);
    gate_open(CHRONIK_LANE_WAL);
    for (int p = 0; p < 3; p++) {
        ck_assert_int_eq(await(&many[p]), 0);
        ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, 1);
    }
    world_free(&w);
}
END_TEST

static int cancel_produce_if_open(call *c) {
    sent *s = c->op;
    if (!s->c.over) cnk_broker_produce_cancel(&s->op);
    return CNK_DONE;
}
static int cancel_fetch(call *c) {
    cnk_broker_fetch_cancel(c->op);
    return CNK_DONE;
}

/* Connections close in the middle: every operation ends, what was appended stays, nothing leaks. */
START_TEST(test_cancel) {
    open_small(_i ? 3 : 1, 128 * 1024, 64u << 20);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    int64_t acked = 0, ended = 0;
    for (int round = 0; round < 5; round++) {
        call cancels[MANY];
        for (int i = 0; i < MANY; i++)
            send(&many[i], (size_t)i % w.shard_count, "t", i % 3, 1, no_producer, 20000, 600000);
        for (int i = 0; i < MANY; i += 2)
            if (!many[i].c.over)
                call_begin(&w, (size_t)i % w.shard_count, &cancels[i], cancel_produce_if_open, &many[i]);
            else
                cancels[i] = (call){.over = 1, .w = &w};
        for (int i = 0; i < MANY; i++) {
            if (i % 2 == 0) call_wait(&cancels[i]);
            int error = await(&many[i]);
            ck_assert(error == 0 || (i % 2 == 0 && error == CHRONIK_ECANCELED));
            acked += error == 0;
            ended++;
        }
    }
    int64_t stored = 0;
    for (int32_t p = 0; p < 3; p++) stored += fetch_all(&w, "t", p, 0).high_watermark;
    ck_assert_int_ge(stored, acked);
    ck_assert_int_le(stored, ended);

    for (size_t shard = 0; shard < w.shard_count; shard++) { /* fetches that wait */
        call c, k, e;
        cnk_fetch_part parts[3];
        for (int32_t p = 0; p < 3; p++)
            parts[p] = (cnk_fetch_part){.topic = text("t"),
                                        .partition = p,
                                        .leader_epoch = -1,
                                        .bytes_max = 1000,
                                        .offset = fetch_all(&w, "t", p, 0).high_watermark};
        cnk_fetch op = {.max_wait_ms = 600000, .min_bytes = 1, .bytes_max = 1000, .parts = parts, .part_count = 3};
        call_begin(&w, shard, &c, fetch_start, &op);
        call_begin(&w, shard, &k, cancel_fetch, &op);
        ck_assert_int_eq(call_wait(&k), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        for (int32_t p = 0; p < 3; p++) ck_assert_int_eq(parts[p].error, CHRONIK_ECANCELED);
        call_begin(&w, shard, &e, fetch_end_start, &op);
        call_wait(&e);
    }
    world_free(&w);
}
END_TEST

/* Stopping with everything under way: each operation ends, with its result or a code that clients retry. */
START_TEST(test_stop_under_load) {
    open_small(_i ? 3 : 1, 128 * 1024, 64u << 20);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    call c;
    cnk_fetch_part part = {.topic = text("t"), .partition = 1, .leader_epoch = -1, .bytes_max = 1000, .offset = 0};
    cnk_fetch op = {.max_wait_ms = 600000, .min_bytes = 100000000, .bytes_max = 1000, .parts = &part, .part_count = 1};
    call_begin(&w, w.shard_count - 1, &c, fetch_start, &op);
    for (int i = 0; i < MANY; i++) send(&many[i], (size_t)i % w.shard_count, "t", i % 3, 1, no_producer, 20000, 600000);
    cnk_broker_stop(w.broker, on_stopped, &w);
    int64_t acked = 0;
    for (int i = 0; i < MANY; i++) {
        world_wait(&w, &many[i].c.over);
        int error = many[i].c.rc < 0 ? many[i].c.rc : many[i].part.error;
        cnk_writer_free(&many[i].batch);
        ck_assert(error == 0 || error == CHRONIK_ESHUTDOWN);
        acked += error == 0;
    }
    world_wait(&w, &c.over);
    if (c.rc >= 0) {
        call e;
        call_begin(&w, w.shard_count - 1, &e, fetch_end_start, &op);
        call_wait(&e);
    }
    world_wait(&w, &w.stopped);
    ck_assert_int_eq(w.stop_code, 0);
    for (size_t i = 1; i < w.shard_count; i++) {
        cnk_event_loop_stop(w.loops[i]);
        pthread_join(w.threads[i], NULL);
    }
    cnk_event_loop_stop(w.loops[0]);
    cnk_event_loop_run(w.loops[0]);
    world_close_rest(&w);
    world_open(&w);
    int64_t stored = 0;
    for (int32_t p = 0; p < 3; p++) stored += fetch_all(&w, "t", p, 0).high_watermark;
    ck_assert_int_ge(stored, acked);
    world_free(&w);
}
END_TEST

/* Everything is read from files: after a restart, or because readers pin more than they may. */
START_TEST(test_cold_reads) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    for (int i = 0; i < 600; i++) {
        send(&many[i % MANY], 0, "t", i % 3, 2, no_producer, (size_t)(i * 37 % 3000), 600000);
        if (i % MANY == MANY - 1)
            for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    w.options.fetch_pinned_bytes_max = 0;
    w.options.fetch_cold_bytes_max = 1;
    for (int round = 0; round < 2; round++) {
        for (int32_t p = 0; p < 3; p++) {
            ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, 400);
            fetched f = fetch_from(&w, 0, "t", p, 100, 1, 0); /* less than a batch: one is served */
            ck_assert_int_eq(f.error, 0);
            ck_assert_int_eq(f.next, 102);
            f = fetch_from(&w, 0, "t", p, 101, 10000, 0);
            ck_assert_int_eq(f.first, 100);
            ck_assert_uint_le(f.bytes, 10000);
        }
        cnk_shard_stats stats;
        cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
        ck_assert_uint_eq(stats.pinned_bytes, 0);
        ck_assert_uint_eq(stats.cold_bytes, 0);
        if (round == 1) ck_assert_uint_gt(stats.fetch_cold_bytes, 0);
        world_reopen(&w);
    }
    world_free(&w);
}
END_TEST

typedef struct held {
    call c;
    cnk_fetch_part part;
    cnk_fetch op;
} held;

/* Clients at the tail who do not read their answers: each holds few bytes, but the slab that they lie in. From the limit on
 * they are served from files. */
START_TEST(test_small_answers_hold_little) {
    enum { ANSWERS = 24, LIMIT = 8 << 20 };
    static held answers[ANSWERS];
    call e;
    world_new(&w, 1);
    world_close(&w);
    w.wal_options.cache_bytes = 4u << 20;
    w.wal_options.budget_bytes = 256u << 20; /* nothing leaves the log here, and 58 MB come in */
    w.options.fetch_held_bytes_max = LIMIT;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < ANSWERS; i++) {
        for (int k = 0; k < 40; k++) send(&many[k], 0, "t", 0, 1, no_producer, 60000, 600000); /* more than a slab */
        for (int k = 0; k < 40; k++) ck_assert_int_eq(await(&many[k]), 0);
        held *a = &answers[i];
        a->part = (cnk_fetch_part){.topic = text("t"), .leader_epoch = -1, .offset = i * 40 + 39, .bytes_max = 1};
        a->op = (cnk_fetch){.min_bytes = 1, .bytes_max = 1, .parts = &a->part, .part_count = 1};
        call_begin(&w, 0, &a->c, fetch_start, &a->op);
        ck_assert_int_eq(call_wait(&a->c), 0);
        ck_assert_int_eq(read_part(&a->part).first, i * 40 + 39);
        ck_assert_uint_le(cnk_wal_port_held_bytes(cnk_shard_port(cnk_broker_shard(w.broker, 0))), LIMIT);
    }
    ck_assert_uint_eq(cnk_wal_port_held_bytes(cnk_shard_port(cnk_broker_shard(w.broker, 0))), LIMIT);
    for (int i = 0; i < ANSWERS; i++) {
        call_begin(&w, 0, &e, fetch_end_start, &answers[i].op);
        call_wait(&e);
    }
    ck_assert_uint_eq(cnk_wal_port_held_bytes(cnk_shard_port(cnk_broker_shard(w.broker, 0))), 0);
    world_free(&w);
}
END_TEST

/* Large answers that nobody reads pin all that they may. Whoever reads a little at the end is served from memory, not from
 * the files, whose buffers such readers have as well. */
START_TEST(test_small_reads_pass_large_ones) {
    enum { BATCHES = 60, LIMIT = 1 << 20, ANSWERS = 40 };
    static held answers[ANSWERS];
    cnk_shard_stats stats;
    call e;
    world_new(&w, 1);
    world_close(&w);
    w.options.fetch_pinned_bytes_max = LIMIT;
    w.options.fetch_cold_bytes_max = 1;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int k = 0; k < BATCHES; k++) send(&many[k], 0, "t", 0, 1, no_producer, 20000, 600000);
    for (int k = 0; k < BATCHES; k++) ck_assert_int_eq(await(&many[k]), 0);
    int count = 0;
    for (bool pinned = true; pinned; count++) {
        held *a = &answers[count];
        ck_assert_int_lt(count, ANSWERS);
        cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
        const uint64_t before = stats.pinned_bytes;
        a->part = (cnk_fetch_part){.topic = text("t"), .leader_epoch = -1, .bytes_max = 200000};
        a->op = (cnk_fetch){.min_bytes = 1, .bytes_max = 200000, .parts = &a->part, .part_count = 1};
        call_begin(&w, 0, &a->c, fetch_start, &a->op);
        ck_assert_int_eq(call_wait(&a->c), 0);
        ck_assert_int_eq(read_part(&a->part).first, 0);
        cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
        pinned = stats.pinned_bytes > before + CNK_FETCH_SMALL_BYTES;
    }
    cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
    ck_assert_uint_gt(stats.pinned_bytes, LIMIT - LIMIT / CNK_FETCH_SMALL_PART);
    const uint64_t cold = stats.fetch_cold_bytes;
    for (int i = 0; i < 5; i++) {
        fetched f = fetch_from(&w, 0, "t", 0, BATCHES - 1, 30000, 0);
        ck_assert_int_eq(f.error, 0);
        ck_assert_int_eq(f.next, BATCHES);
    }
    cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
    ck_assert_uint_eq(stats.fetch_cold_bytes, cold);
    ck_assert_uint_le(stats.pinned.used, LIMIT);
    for (int i = 0; i < count; i++) {
        call_begin(&w, 0, &e, fetch_end_start, &answers[i].op);
        call_wait(&e);
    }
    world_free(&w);
}
END_TEST

/* The first loop runs while the test waits for something; reads nothing. */
static void loop_a_while(int64_t end) { (void)fetch_from(&w, 0, "t", 0, end, 1, 0); }

enum { OLD_BATCHES = 300 };

static cnk_shard_stats stats_of_first(void) {
    cnk_shard_stats stats;
    cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
    return stats;
}

/* Partition 0 from the front to the end, 100,000 bytes at a time; gives the bytes read. */
static uint64_t read_through(int64_t count) {
    uint64_t bytes = 0;
    for (int64_t offset = 0; offset < count;) {
        fetched f = fetch_from(&w, 0, "t", 0, offset, 100000, 0);
        ck_assert_int_eq(f.error, 0);
        ck_assert_int_eq(f.first, offset);
        ck_assert_uint_le(f.bytes, 100000);
        bytes += f.bytes;
        offset = f.next;
    }
    return bytes;
}

/* 300 batches of 20,000 bytes in so many partitions, all in sealed files or in packs, and nothing in memory. */
static void world_of_old_data(size_t shards, bool packs, int32_t partitions) {
    world_new(&w, shards);
    world_close(&w);
    w.wal_options.file_bytes = 1u << 20;
    w.wal_options.budget_bytes = 64u << 20;
    w.with_tier = packs;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", partitions), 0);
    for (int i = 0; i < OLD_BATCHES; i += MANY / 4) {
        for (int k = 0; k < MANY / 4; k++) send(&many[k], 0, "t", (i + k) % partitions, 1, no_producer, 20000, 600000);
        for (int k = 0; k < MANY / 4; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    world_reopen(&w);
    cnk_tier_stats tier = {.files_waiting = 1};
    while (packs && tier.files_waiting > 0) {
        loop_a_while(OLD_BATCHES / partitions);
        cnk_tier_stats_get(w.tier, &tier);
    }
}

/* Who reads old data from front to back gets most of it from what was read ahead, from WAL files and from packs; who does
 * not, or where it is turned off, gets none. What nobody comes for gives its memory back. */
START_TEST(test_reading_ahead) {
    const int64_t count = OLD_BATCHES;
    world_of_old_data(_i ? 3 : 1, _i, 1);
    uint64_t bytes = read_through(count), ahead = stats_of_first().fetch_ahead_bytes;
    ck_assert_uint_gt(ahead, bytes / 2);
    for (int64_t offset = count - 1; offset >= 0; offset -= 7)
        ck_assert_int_eq(fetch_from(&w, 0, "t", 0, offset, 100000, 0).first, offset);
    ck_assert_uint_eq(stats_of_first().fetch_ahead_bytes, ahead);
    ck_assert_int_eq(fetch_from(&w, 0, "t", 0, 0, 0, 0).first, 0); /* no limit is too low for the first batch */
    while (stats_of_first().cold_bytes > 0) loop_a_while(count);
    w.options.fetch_ahead_bytes_max = 0;
    world_reopen(&w);
    ck_assert_uint_eq(read_through(count), bytes);
    ck_assert_uint_eq(stats_of_first().fetch_ahead_bytes, 0);
    world_free(&w);
}
END_TEST

/* Several who read the same read it once, wherever they begin and however much each of them asks for, as long as none falls far
 * behind. Only the first reader's first answer is read for him alone. */
START_TEST(test_readers_share) {
    enum { READERS = 5 };
    static const uint32_t limits[READERS] = {100000, 70000, 100000, 60001, 100000};
    int64_t at[READERS] = {0, 0, 3, 1, 2};
    uint64_t bytes = 0;
    world_of_old_data(1, _i, 1);
    for (bool more = true; more;) {
        more = false;
        for (int r = 0; r < READERS; r++) {
            if (at[r] >= OLD_BATCHES) continue;
            fetched f = fetch_from(&w, 0, "t", 0, at[r], limits[r], 0);
            ck_assert_int_eq(f.error, 0);
            ck_assert_int_eq(f.first, at[r]);
            ck_assert(f.bytes <= limits[r] && f.records > 0);
            at[r] = f.next;
            bytes += f.bytes;
            more = true;
        }
    }
    cnk_shard_stats stats = stats_of_first();
    ck_assert_uint_eq(stats.fetch_cold_bytes, bytes);
    ck_assert_uint_gt(stats.fetch_ahead_bytes, bytes * 95 / 100);
    if (_i) {
        cnk_tier_stats tier;
        cnk_tier_stats_get(w.tier, &tier);
        ck_assert_uint_lt(tier.cold_bytes, bytes / READERS * 12 / 10);
    }
    while (stats_of_first().cold_bytes > 0) loop_a_while(OLD_BATCHES);
    world_free(&w);
}
END_TEST

/* An answer has so much of what is cold and no more; the partitions that were left out come first in the next one, and have
 * been read by then. All are read whole, in turns. */
START_TEST(test_answers_of_old_data_are_limited) {
    enum { PARTS = 6, EACH = OLD_BATCHES / PARTS, LIMIT = 130000, OF_ONE = 60000 };
    cnk_fetch_part parts[PARTS];
    int64_t at[PARTS] = {0};
    uint64_t bytes = 0;
    size_t first = 0;
    world_of_old_data(_i % 2 ? 3 : 1, _i / 2, PARTS);
    world_close(&w);
    w.options.fetch_cold_answer_max = LIMIT;
    world_open(&w);
    for (int answers = 0; at[0] + at[1] + at[2] + at[3] + at[4] + at[5] < OLD_BATCHES; answers++) {
        call c, e;
        ck_assert_int_lt(answers, OLD_BATCHES);
        for (int32_t p = 0; p < PARTS; p++)
            parts[p] = (cnk_fetch_part){
                .topic = text("t"), .partition = p, .leader_epoch = -1, .offset = at[p], .bytes_max = OF_ONE};
        cnk_fetch op = {.min_bytes = 1, .bytes_max = 1 << 20, .parts = parts, .part_count = PARTS, .first = first % PARTS};
        call_begin(&w, 0, &c, fetch_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_uint_gt(op.bytes, 0);
        ck_assert_uint_le(op.bytes, LIMIT);
        for (size_t n = 0; n < PARTS; n++) {
            size_t p = (op.first + n) % PARTS;
            fetched f = read_part(&parts[p]);
            ck_assert_int_eq(f.error, 0);
            bool served = f.records > 0, left = at[p] < EACH;
            if (left && n == 0) ck_assert(served);
            if (left && !served) ck_assert_uint_le(op.next, op.first + n); /* which is the first that was left out */
            if (served) ck_assert_int_eq(f.first, at[p]);
            if (served) at[p] = f.next;
        }
        bytes += op.bytes;
        first = op.next;
        call_begin(&w, 0, &e, fetch_end_start, &op);
        call_wait(&e);
    }
    for (int p = 0; p < PARTS; p++) ck_assert_int_eq(at[p], EACH);
    ck_assert_uint_gt(stats_of_first().fetch_ahead_bytes, bytes * 3 / 4);
    world_close(&w);
    w.options.fetch_cold_answer_max = 1000; /* less than a batch: one is served; and to old clients what they have room for */
    world_open(&w);
    for (int exact = 0; exact < 2; exact++) {
        call c, e;
        cnk_fetch_part part = {.topic = text("t"), .leader_epoch = -1, .bytes_max = OF_ONE};
        cnk_fetch op = {.min_bytes = 1, .bytes_max = OF_ONE, .parts = &part, .part_count = 1, .exact_max = exact};
        call_begin(&w, 0, &c, fetch_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(read_part(&part).records, exact ? 2 : 1);
        call_begin(&w, 0, &e, fetch_end_start, &op);
        call_wait(&e);
    }
    world_free(&w);
}
END_TEST

static void hold(held *h, int64_t offset, uint32_t limit) {
    h->part = (cnk_fetch_part){.topic = text("t"), .leader_epoch = -1, .offset = offset, .bytes_max = limit};
    h->op = (cnk_fetch){.min_bytes = 1, .bytes_max = limit, .parts = &h->part, .part_count = 1};
    call_begin(&w, 0, &h->c, fetch_start, &h->op);
}

static void let_go(held *h) {
    call e;
    call_begin(&w, 0, &e, fetch_end_start, &h->op);
    call_wait(&e);
}

/* Two who ask at the same time wait for one read, and are answered from the same memory, which stays until both have let go;
 * what does not fit for one is left out. What is held is never given up for what others want; what is only kept is. */
START_TEST(test_shared_memory_stays_and_is_limited) {
    static held a, b, c;
    world_of_old_data(1, _i, 1);
    hold(&a, 0, 200000);
    hold(&b, 0, 200000);
    hold(&c, 0, 110000);
    ck_assert_int_eq(call_wait(&a.c) + call_wait(&b.c) + call_wait(&c.c), 0);
    ck_assert_ptr_eq(a.part.slices[0].iov_base, b.part.slices[0].iov_base);
    ck_assert_ptr_eq(a.part.slices[0].iov_base, c.part.slices[0].iov_base);
    ck_assert_uint_eq(a.part.bytes, b.part.bytes);
    ck_assert_uint_le(c.part.bytes, 110000);
    ck_assert_uint_gt(c.part.bytes, 80000);
    ck_assert_uint_eq(stats_of_first().cold_bytes, a.part.bytes); /* counted once */
    let_go(&a);
    let_go(&c);
    ck_assert_int_eq(read_part(&b.part).first, 0);
    let_go(&b);

    world_close(&w);
    w.options.fetch_cold_bytes_max = 250000;
    world_open(&w);
    hold(&a, 0, 200000);
    ck_assert_int_eq(call_wait(&a.c), 0);
    ck_assert_uint_eq(fetch_from(&w, 0, "t", 0, 50, 200000, 0).bytes, 0); /* no room, no time to wait */
    ck_assert_uint_gt(fetch_from(&w, 0, "t", 0, 0, 200000, 0).bytes, 0);  /* needs none */
    ck_assert_int_eq(read_part(&a.part).first, 0);
    let_go(&a);
    (void)fetch_from(&w, 0, "t", 0, 0, 60000, 0);
    for (int64_t offset = OLD_BATCHES - 10; offset > 10; offset -= 7) { /* kept for the one at 3, as long as there is room */
        ck_assert_int_eq(fetch_from(&w, 0, "t", 0, offset, 100000, 0).first, offset);
        ck_assert_uint_le(stats_of_first().cold_bytes, 250000);
    }
    world_free(&w);
}
END_TEST

/* max_bytes: the first partition that has data is served whatever its size, the others only within the rest (KIP-74).
 * */
START_TEST(test_fetch_limits) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    for (int i = 0; i < 30; i++) {
        send(&many[0], 0, "t", i % 3, 1, no_producer, 1000, 600000);
        ck_assert_int_eq(await(&many[0]), 0);
    }
    for (size_t first = 0; first < 3; first++)
        for (uint32_t limit = 1; limit < 12000; limit += 500) {
            call c, e;
            cnk_fetch_part parts[3];
            for (int32_t p = 0; p < 3; p++)
                parts[p] = (cnk_fetch_part){.topic = text("t"), .partition = p, .leader_epoch = -1, .bytes_max = 5000};
            cnk_fetch op = {
                .max_wait_ms = 0, .min_bytes = 1, .bytes_max = limit, .parts = parts, .part_count = 3, .first = first};
            call_begin(&w, 0, &c, fetch_start, &op);
            ck_assert_int_eq(call_wait(&c), 0);
            uint32_t bytes = 0, one = 0;
            for (size_t n = 0; n < 3; n++) {
                fetched f = read_part(&parts[(first + n) % 3]);
                ck_assert_int_eq(f.error, 0);
                ck_assert_int_eq(f.high_watermark, 10);
                if (n == 0) ck_assert_uint_ge(f.records, 1);
                one = f.records ? f.bytes / f.records : one;
                ck_assert_uint_le(f.bytes, 5000);
                bytes += f.bytes;
            }
            ck_assert_uint_eq(bytes, op.bytes);
            ck_assert(bytes <= limit || bytes == one);
            ck_assert_uint_ge(bytes + 3 * one, limit); /* and not needlessly little */
            call_begin(&w, 0, &e, fetch_end_start, &op);
            call_wait(&e);
        }
    world_free(&w);
}
END_TEST

static void create_with(const char *name, const char *option, const char *value) {
    call c;
    cnk_topic_setting setting = {text(option), text(value)};
    cnk_create_topic t = {.name = text(name), .partitions = 1, .replication = -1, .settings = &setting, .setting_count = 1};
    cnk_create_topics op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(&w, 0, &c, create_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_msg(t.error == 0, "%s", t.error_text);
}

static void send_compressed(sent *s, const char *topic, size_t value_len) {
    *s = (sent){.part = {.topic = text(topic)}};
    make_batch_codec(&s->batch, CNK_CODEC_GZIP, 2, 1700000000000, no_producer, value_len);
    s->part.data = s->batch.data;
    s->part.len = (uint32_t)s->batch.len;
    s->op = (cnk_produce){.acks = -1, .timeout_ms = 600000, .version = 11, .parts = &s->part, .part_count = 1};
    call_begin(&w, 0, &s->c, produce_start, &s->op);
}

/* Records that must be looked at: what is large once it is opened is judged the same by a job, and keeps its place
 * among the small ones. */
START_TEST(test_large_batches_are_opened_aside) {
    enum { LARGE = 700000 };
    world_new(&w, _i ? 3 : 1);
    create_with("compacted", "cleanup.policy", "compact");
    create_with("timely", "message.timestamp.before.max.ms", "1000");
    for (int i = 0; i < MANY; i++) send_compressed(&many[i], "compacted", i % 3 ? 100 : LARGE);
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(await(&many[i]), 0);
        ck_assert_int_eq(many[i].part.base_offset, 2 * i);
        ck_assert_int_eq(many[i].part.unopened, i % 3 == 0);
    }
    fetched all = fetch_all(&w, "compacted", 0, 0);
    ck_assert_int_eq(all.next, 2 * MANY);
    for (int i = 0; i < 2; i++) {
        send_compressed(&many[i], "timely", i ? 100 : LARGE);
        ck_assert_int_eq(await(&many[i]), CHRONIK_EINVALIDTIMESTAMP);
        ck_assert_int_eq(many[i].part.fault_record, 0);
        ck_assert_int_eq(many[i].part.unopened, i == 0);
    }
    ck_assert_int_eq(fetch(&w, "timely", 0, 0).high_watermark, 0);
    world_free(&w);
}
END_TEST

typedef struct cold_fetch {
    call c;
    cnk_fetch_part part;
    cnk_fetch op;
} cold_fetch;

static void cold_begin(cold_fetch *f, int32_t partition, int64_t offset, uint32_t bytes_max) {
    *f = (cold_fetch){.part = {.topic = text("t"), .partition = partition, .leader_epoch = -1, .offset = offset}};
    f->part.bytes_max = bytes_max;
    f->op = (cnk_fetch){.max_wait_ms = 600000, .min_bytes = 1, .bytes_max = bytes_max, .parts = &f->part, .part_count = 1};
    call_begin(&w, 0, &f->c, fetch_start, &f->op);
}

static void cold_end(cold_fetch *f) {
    call e;
    ck_assert_int_eq(call_wait(&f->c), 0);
    ck_assert_int_eq(f->part.error, 0);
    ck_assert_uint_gt(f->part.slice_count, 0);
    call_begin(&w, 0, &e, fetch_end_start, &f->op);
    call_wait(&e);
}

/* As many records are opened as are opened at a time, and that takes for ever: who reads what is old does not wait for it. */
START_TEST(test_no_cold_read_waits_for_conversions) {
    enum { CONVERTED = 2 * CNK_CONVERSIONS_MAX };
    open_with_packs(1, gate_set);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    create_with("zip", "compression.type", "zstd");
    for (int i = 0; i < 3 * MANY; i += MANY) {
        for (int k = 0; k < MANY; k++) send(&many[k], 0, "t", 0, 1, no_producer, 60000, 600000);
        for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    gate_shut(CHRONIK_LANE_READ);
    gate_shut(CHRONIK_LANE_COMPUTE);
    for (int i = 0; i < CONVERTED; i++) send_compressed(&many[i], "zip", 100);
    while (gate_held(CHRONIK_LANE_COMPUTE) < CNK_CONVERSIONS_MAX) (void)produce(&w, "t", 0, 1);
    cold_fetch f;
    cold_begin(&f, 0, 0, 1);
    while (gate_held(CHRONIK_LANE_READ) == 0) (void)produce(&w, "t", 0, 1);
    gate_open(CHRONIK_LANE_READ);
    cold_end(&f);
    for (int i = 0; i < CONVERTED; i++) ck_assert(!many[i].c.over);
    gate_open(CHRONIK_LANE_COMPUTE);
    for (int i = 0; i < CONVERTED; i++) ck_assert_int_eq(await(&many[i]), 0);
    world_free(&w);
}
END_TEST

/* Reads that a lane holds back, after the shard has gone through what was asked of it. */
static int reads_held(void) {
    for (int i = 0; i < 10; i++) ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST).error, 0);
    return gate_held(CHRONIK_LANE_READ);
}

/* While something is committed now and then, large reads of old data go one after the other; small ones do not wait for
 * them, and large ones not where nobody produces. */
START_TEST(test_large_reads_take_turns_beside_producers) {
    cold_fetch f[4];
    open_with_packs(1, gate_set);
    ck_assert_int_eq(create(&w, "t", 4), 0);
    for (int i = 0; i < 4 * MANY; i += MANY) {
        for (int k = 0; k < MANY; k++) send(&many[k], 0, "t", k % 4, 1, no_producer, 60000, 600000);
        for (int k = 0; k < MANY; k++) ck_assert_int_eq(await(&many[k]), 0);
    }
    for (int busy = 1; busy >= 0; busy--) {
        gate_shut(CHRONIK_LANE_READ);
        atomic_store(&w.wal->busy_until_ns, busy ? UINT64_MAX : 0);
        for (int p = 0; p < 3; p++) cold_begin(&f[p], p, busy * 20, 1 << 20);
        ck_assert_int_eq(reads_held(), busy ? 1 : 3);
        cold_begin(&f[3], 3, busy * 20, 100);
        ck_assert_int_eq(reads_held(), busy ? 2 : 4);
        gate_open(CHRONIK_LANE_READ);
        for (int p = 0; p < 4; p++) cold_end(&f[p]);
    }
    world_free(&w);
}
END_TEST

/* compression.type: batches of other codecs are recompressed, keep their records and their order, also past those that
 * need no conversion, and in the middle of cancels and of a deletion. */
START_TEST(test_conversion) {
    static const struct {
        const char *name;
        unsigned codec;
    } codecs[] = {{"uncompressed", CNK_CODEC_NONE},
                  {"gzip", CNK_CODEC_GZIP},
                  {"snappy", CNK_CODEC_SNAPPY},
                  {"lz4", CNK_CODEC_LZ4},
                  {"zstd", CNK_CODEC_ZSTD}};
    world_new(&w, _i ? 3 : 1);
    for (size_t k = 0; k < 5; k++) {
        call c;
        cnk_topic_setting setting = {text("compression.type"), text(codecs[k].name)};
        cnk_create_topic t = {
            .name = text(codecs[k].name), .partitions = 1, .replication = -1, .settings = &setting, .setting_count = 1};
        cnk_create_topics op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
        call_begin(&w, 0, &c, create_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_msg(t.error == 0, "%s", t.error_text);
        for (int i = 0; i < MANY; i++) {
            many[i] = (sent){.part = {.topic = text(codecs[k].name)}};
            make_batch_codec(&many[i].batch, (unsigned)i % 5, 3, 1700000000000 + i, (producer_fields){1, 0, i * 3},
                             2000);
            many[i].part.data = many[i].batch.data;
            many[i].part.len = (uint32_t)many[i].batch.len;
            many[i].op =
                (cnk_produce){.acks = -1, .timeout_ms = 600000, .version = 11, .parts = &many[i].part, .part_count = 1};
            call_begin(&w, 0, &many[i].c, produce_start, &many[i].op);
        }
        for (int i = 0; i < MANY; i++) {
            ck_assert_int_eq(await(&many[i]), 0);
            ck_assert_int_eq(many[i].part.base_offset, i * 3);
        }
        for (int64_t offset = 0; offset < MANY * 3; offset += 3) {
            call f, e;
            cnk_batch batch;
            cnk_record r;
            cnk_records records;
            cnk_batch_fault fault;
            cnk_fetch_part part = {.topic = text(codecs[k].name), .leader_epoch = -1, .offset = offset, .bytes_max = 1};
            cnk_fetch fetch_op = {.min_bytes = 1, .bytes_max = 1, .parts = &part, .part_count = 1};
            call_begin(&w, 0, &f, fetch_start, &fetch_op);
            ck_assert_int_eq(call_wait(&f), 0);
            ck_assert_uint_eq(part.slice_count, 1);
            ck_assert_int_eq(cnk_batch_parse(part.slices[0].iov_base, part.slices[0].iov_len, &batch), 0);
            ck_assert_int_eq(batch.base_offset, offset);
            ck_assert_uint_eq(cnk_batch_codec(&batch), codecs[k].codec);
            ck_assert_int_eq(batch.base_sequence, (int32_t)offset);
            uint8_t *copy = malloc(batch.len); /* the broker's own checks, which want base offset 0 */
            memcpy(copy, batch.data, batch.len);
            memset(copy, 0, 8);
            cnk_batch_rules rules = {.produce_version = 11,
                                     .bytes_max = 1u << 30,
                                     .now_ms = 1700000000000,
                                     .timestamp_before_max_ms = INT64_MAX,
                                     .timestamp_after_max_ms = INT64_MAX,
                                     .decompressed_bytes_max = 1u << 30};
            ck_assert_int_eq(cnk_batch_validate(copy, batch.len, &rules, &batch, &fault), 0);
            ck_assert_int_eq(cnk_records_open(&batch, 1u << 30, &records), 0);
            for (int n = 0; n < 3; n++) {
                ck_assert_int_eq(cnk_records_next(&records, &r), 1);
                ck_assert_int_eq(r.timestamp, 1700000000000 + offset / 3 + n);
                ck_assert_int_eq(r.value_len, 2000);
                ck_assert_int_eq(r.value[1999], 'v');
            }
            ck_assert_int_eq(cnk_records_next(&records, &r), 0);
            cnk_records_close(&records);
            free(copy);
            call_begin(&w, 0, &e, fetch_end_start, &fetch_op);
            call_wait(&e);
        }
        call cancels[MANY];
        for (int i = 0; i < MANY; i++) send(&many[i], 0, codecs[k].name, 0, 3, no_producer, 5000, 600000);
        for (int i = 0; i < MANY; i += 3) call_begin(&w, 0, &cancels[i], cancel_produce_if_open, &many[i]);
        int error = delete_one(&w, codecs[k].name);
        ck_assert_int_eq(error, 0);
        for (int i = 0; i < MANY; i++) {
            if (i % 3 == 0) call_wait(&cancels[i]);
            error = await(&many[i]);
            ck_assert(error == 0 || error == CHRONIK_EUNKNOWNTOPIC || (i % 3 == 0 && error == CHRONIK_ECANCELED));
        }
    }
    world_free(&w);
}
END_TEST

START_TEST(test_timestamps) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP).offset, -1);
    ck_assert_int_eq(list_offset(&w, "t", 0, 5).offset, -1);
    for (int i = 0; i < 10; i++) { /* batches of 3 records, at 1000 * i, +1, +2 */
        call c;
        cnk_writer batch;
        make_batch(&batch, 3, 1000 * (i + 1), no_producer, 10);
        cnk_produce_part part = {.topic = text("t"), .data = batch.data, .len = (uint32_t)batch.len};
        cnk_produce op = {.acks = -1, .timeout_ms = 600000, .version = 11, .parts = &part, .part_count = 1};
        call_begin(&w, 0, &c, produce_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(part.error, 0);
        cnk_writer_free(&batch);
    }
    for (int round = 0; round < 2; round++) { /* from memory, then from files */
        for (int i = 0; i < 10; i++)
            for (int k = -1; k < 4; k++) {
                cnk_list_offsets_part l = list_offset(&w, "t", 0, 1000 * (i + 1) + k);
                int64_t expected = k < 3 ? i * 3 + (k < 0 ? 0 : k) : i < 9 ? i * 3 + 3 : -1;
                ck_assert_int_eq(l.error, 0);
                ck_assert_int_eq(l.offset, expected);
                ck_assert_int_eq(l.record_timestamp, expected < 0 ? -1 : 1000 * (expected / 3 + 1) + expected % 3);
                ck_assert_int_eq(l.offset_epoch, expected < 0 ? -1 : 1);
            }
        cnk_list_offsets_part l = list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP);
        ck_assert_int_eq(l.offset, 29);
        ck_assert_int_eq(l.record_timestamp, 10002);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST_LOCAL).offset, 0);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_LATEST_TIERED).offset, -1);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST_PENDING_UPLOAD).offset, -1);
        ck_assert_int_eq(list_offset(&w, "t", 1, -1).error, CHRONIK_EUNKNOWNTOPIC);
        world_reopen(&w);
    }
    world_free(&w);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker_pressure");
    TCase *tc = tcase_create("pressure");
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, test_waiting_keeps_order, 0, 2);
    tcase_add_loop_test(tc, test_over_budget, 0, 2);
    tcase_add_loop_test(tc, test_packs, 0, 2);
    tcase_add_test(tc, test_a_timestamp_moves_to_packs);
    tcase_add_test(tc, test_data_is_taken_before_the_sync);
    tcase_add_loop_test(tc, test_cancel, 0, 2);
    tcase_add_loop_test(tc, test_stop_under_load, 0, 2);
    tcase_add_loop_test(tc, test_cold_reads, 0, 2);
    tcase_add_test(tc, test_small_answers_hold_little);
    tcase_add_test(tc, test_small_reads_pass_large_ones);
    tcase_add_loop_test(tc, test_reading_ahead, 0, 2);
    tcase_add_loop_test(tc, test_answers_of_old_data_are_limited, 0, 4);
    tcase_add_loop_test(tc, test_readers_share, 0, 2);
    tcase_add_loop_test(tc, test_shared_memory_stays_and_is_limited, 0, 2);
    tcase_add_loop_test(tc, test_fetch_limits, 0, 2);
    tcase_add_loop_test(tc, test_conversion, 0, 2);
    tcase_add_loop_test(tc, test_large_batches_are_opened_aside, 0, 2);
    tcase_add_test(tc, test_no_cold_read_waits_for_conversions);
    tcase_add_test(tc, test_large_reads_take_turns_beside_producers);
    tcase_add_loop_test(tc, test_timestamps, 0, 2);
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
