/* Producers that are idle for longer than producer.id.expiration.ms are forgotten: a broker in the simulated world,
 * with its clock, over orderly stops, kills and power cuts, and other numbers of shards. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/broker.h"
#include "codec/codec.h"
#include "record/record.h"
#include "sim/io_sim.h"
#include "tier/tier.h"

#define HOUR INT64_C(3600000)
#define HOURS(n) ((uint64_t)(n)*3600 * SIM_SECOND)
enum { SHARDS_MAX = 3, PARTITIONS = 4 };

typedef struct world {
    sim_disk *disk;
    sim_world *sim;
    unsigned shards;
    cnk_wal *wal;
    cnk_tier *tier;
    cnk_broker *broker;
    bool ready, drained, stopped, over;
    void (*run)(void);
} world;

static world w;

static void on_ready(void *arg) { (void)arg, w.ready = true; }
static void on_stopped(void *arg, int code) { (void)arg, (void)code, w.stopped = true; }
static void on_drained(void *arg) { (void)arg, w.drained = true; }
static void on_sealed(void *arg, uint32_t file_seq) { (void)arg, cnk_tier_sealed(w.tier, file_seq); }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    ck_assert_msg(sim_world_dead(w.sim), "fenced: %s", why->text);
}
static void on_nothing(void *arg) { (void)arg; }
static void on_paused(void *arg, const chronik_error *why) { (void)arg, (void)why; }
static void on_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    (void)arg, (void)stream;
    ck_abort_msg("damaged: %s", what->text);
}
static bool is(void *flag) { return *(bool *)flag; }
static void run_drain(void *arg) { (void)arg, cnk_tier_drain(w.tier, on_drained, NULL); }
static void run_stop(void *arg) { (void)arg, cnk_broker_stop(w.broker, on_stopped, NULL); }
static void run_tier_start(void *arg) { (void)arg, cnk_tier_start(w.tier); }

static void boot(unsigned shards) {
    static const cnk_tier_events events = {on_paused, on_nothing, on_damaged, NULL, NULL};
    chronik_error err = CHRONIK_ERROR_INIT;
    const chronik_loop *loops[SHARDS_MAX];
    sim_world_options so = SIM_WORLD_OPTIONS_INIT;
    so.loops = w.shards = shards;
    w.sim = sim_world_new(w.disk, &so);
    for (unsigned n = 0; n < shards; n++) loops[n] = sim_world_loop(w.sim, n);
    w.ready = w.drained = w.stopped = false;
    cnk_wal_options wo = CNK_WAL_OPTIONS_INIT;
    wo.dir = "wal";
    wo.file_bytes = 100000; /* so that entries leave the WAL, and the state comes from checkpoints */
    wo.seal_after_ms = 1000 * 3600;
    cnk_tier_options to = CNK_TIER_OPTIONS_INIT;
    to.dir = "packs";
    cnk_broker_options bo = CNK_BROKER_OPTIONS_INIT;
    memset(bo.directory_id.bytes, 7, 16);
    bo.loops = loops;
    bo.shard_count = shards;
    bo.producer_expiration_ms = 24 * HOUR;
    bo.producer_check_ms = HOUR;
    bo.ready = on_ready;
    bo.fenced = on_fenced;
    bo.sealed = on_sealed;
    ck_assert_msg(cnk_wal_open(sim_world_io(w.sim), &wo, NULL, NULL, &err, &w.wal) == 0, "%s", err.text);
    ck_assert_msg(cnk_tier_open(sim_world_io(w.sim), w.wal, &to, &events, NULL, &err, &w.tier) == 0, "%s", err.text);
    bo.tier = w.tier;
    bo.cold = cnk_tier_cold(w.tier);
    ck_assert_msg(cnk_broker_open(sim_world_io(w.sim), w.wal, &bo, &err, &w.broker) == 0, "%s", err.text);
    sim_world_on(w.sim, 0, run_tier_start, NULL);
    ck_assert(sim_world_run_until(w.sim, is, &w.ready, 100 * SIM_SECOND));
}

static void down(bool orderly) {
    if (!orderly) {
        sim_world_kill(w.sim);
        sim_world_limp(w.sim);
    }
    sim_world_on(w.sim, 0, run_drain, NULL);
    ck_assert(sim_world_run_until(w.sim, is, &w.drained, 1000 * SIM_SECOND));
    sim_world_on(w.sim, 0, run_stop, NULL);
    ck_assert(sim_world_run_until(w.sim, is, &w.stopped, 1000 * SIM_SECOND));
    sim_world_run(w.sim, SIM_SECOND);
    cnk_broker_free(w.broker);
    cnk_tier_free(w.tier);
    cnk_wal_free(w.wal);
    sim_world_free(w.sim);
}

static void again(unsigned shards) { /* each way of ending in its turn */
    static unsigned n;
    bool orderly = n++ % 3 == 0;
    down(orderly);
    if (!orderly) sim_disk_crash(w.disk, n % 3 == 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
    boot(shards);
}

static void setup(void) {
    w = (world){0};
    w.disk = sim_disk_new(4711, NULL);
    boot(1);
}

static void teardown(void) {
    down(true);
    sim_disk_free(w.disk);
}

/* ---- operations: on shard 0, one at a time ----------------------------------------------------------------------- */

static void run_it(void *arg) { (void)arg, w.run(); }
static void do_it(void (*run)(void)) {
    w.over = false;
    w.run = run;
    sim_world_on(w.sim, 0, run_it, NULL);
    ck_assert(sim_world_run_until(w.sim, is, &w.over, 100 * SIM_SECOND));
}

static cnk_create_topic topic;
static cnk_create_topics create;
static void create_done(cnk_create_topics *op) { (void)op, w.over = true; }
static void run_create(void) {
    topic = (cnk_create_topic){.name = {"t", 1}, .partitions = PARTITIONS, .replication = -1};
    create = (cnk_create_topics){.timeout_ms = 60000, .topics = &topic, .topic_count = 1, .done = create_done};
    ck_assert_int_eq(cnk_broker_create_topics(cnk_broker_shard(w.broker, 0), &create), CNK_PENDING);
}

static cnk_writer bytes;
static cnk_produce_part part;
static cnk_produce produce;
static void produce_done(cnk_produce *op) { (void)op, w.over = true; }
static void run_produce(void) {
    produce = (cnk_produce){.acks = -1, .timeout_ms = 60000, .version = 11, .parts = &part, .part_count = 1};
    produce.done = produce_done;
    int rc = cnk_broker_produce(cnk_broker_shard(w.broker, 0), &produce);
    ck_assert_int_ge(rc, 0);
    if (rc == CNK_DONE) w.over = true;
}

static int64_t now_ms(void) { /* the world's Unix time, which loops tell */
    const chronik_loop *loop = sim_world_loop(w.sim, 0);
    return loop->ops->wall_ms(loop->self);
}

/* One message of the producer, with sequence `sequence` and a timestamp so long ago: the error, and its offset. */
static int put(int64_t id, int32_t sequence, int32_t partition, int64_t age_ms, int64_t *ret_offset) {
    cnk_batch_builder b;
    cnk_record_spec r = {.timestamp = now_ms() - age_ms, .value = "v", .value_len = 1};
    cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_batch_builder_producer(&b, id, 0, sequence);
    ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    cnk_writer_growing(&bytes, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &bytes), 0);
    cnk_batch_builder_free(&b);
    part =
        (cnk_produce_part){.topic = {"t", 1}, .partition = partition, .data = bytes.data, .len = (uint32_t)bytes.len};
    do_it(run_produce);
    cnk_writer_free(&bytes);
    if (ret_offset) *ret_offset = part.base_offset;
    return part.error;
}

static uint64_t known(void) {
    uint64_t all = 0;
    for (unsigned n = 0; n < w.shards; n++) {
        cnk_shard_stats s;
        cnk_shard_stats_get(cnk_broker_shard(w.broker, n), &s);
        all += s.producers;
    }
    return all;
}

START_TEST(test_a_day) {
    int64_t first, offset;
    do_it(run_create);
    for (int32_t p = 0; p < PARTITIONS; p++) ck_assert_int_eq(put(10 + p, 0, p, 0, NULL), 0);
    ck_assert_int_eq(put(1, 5, 0, 0, &first), 0);
    ck_assert_uint_eq(known(), PARTITIONS + 1);
    sim_world_run(w.sim, HOURS(12));
    for (int32_t p = 0; p < PARTITIONS; p++) ck_assert_int_eq(put(20 + p, 0, p, 0, NULL), 0);
    sim_world_run(w.sim, HOURS(11));
    ck_assert_uint_eq(known(), 2 * PARTITIONS + 1); /* 23 hours */
    ck_assert_int_eq(put(1, 5, 0, 0, &offset), 0);  /* a retry: the same message */
    ck_assert_int_eq(offset, first);
    sim_world_run(w.sim, HOURS(3));
    ck_assert_uint_eq(known(), PARTITIONS); /* 26 hours */
    ck_assert_int_eq(put(1, 5, 0, 0, &offset), 0);
    ck_assert_int_gt(offset, first);
    for (int32_t p = 0; p < PARTITIONS; p++) {
        ck_assert_int_eq(put(20 + p, 2, p, 0, NULL), CHRONIK_EOUTOFORDER); /* still known */
        ck_assert_int_eq(put(20 + p, 1, p, 0, NULL), 0);
    }
    sim_world_run(w.sim, HOURS(27));
    ck_assert_uint_eq(known(), 0);
}
END_TEST

/* What was forgotten stays so after every kind of end; what was not is known. */
START_TEST(test_restarts) {
    static const unsigned shards[] = {3, 1, 2, 2, 3, 1};
    int64_t first, offset;
    do_it(run_create);
    for (int i = 0; i < 6; i++) {
        int64_t id = 100 + 10 * i;
        for (int32_t p = 0; p < PARTITIONS; p++) {
            ck_assert_int_eq(put(id, 0, p, 0, NULL), 0);
            ck_assert_int_eq(put(id + 1, 0, p, 30 * HOUR, &first), 0);
        }
        if (i % 2) again(shards[i]); /* before anybody looks; then the first look is enough */
        sim_world_run(w.sim, i % 2 ? HOURS(3) / 2 : HOURS(3));
        ck_assert_uint_eq(known(), PARTITIONS * (uint64_t)(i + 1)); /* all with the old timestamps are gone */
        again(shards[i]);
        ck_assert_int_eq(put(id + 1, 7, PARTITIONS - 1, 0, &offset), 0); /* as a new one */
        ck_assert_int_gt(offset, first);
        ck_assert_int_eq(put(id + 1, 6, PARTITIONS - 1, 0, NULL), CHRONIK_EOUTOFORDER);
        ck_assert_int_eq(put(id, 1, PARTITIONS - 1, 0, NULL), 0);
        ck_assert_int_eq(put(id, 3, PARTITIONS - 1, 0, NULL), CHRONIK_EOUTOFORDER);
        sim_world_run(w.sim, HOURS(30)); /* all */
        ck_assert_uint_eq(known(), 0);
        again(shards[i]);
        ck_assert_uint_eq(known(), 0);
        for (int k = 0; k <= i; k++) /* so that the next round has something to count */
            for (int32_t p = 0; p < PARTITIONS; p++) ck_assert_int_eq(put(1000 + 100 * i + k, 0, p, 0, NULL), 0);
    }
}
END_TEST

/* Who copies old messages is not forgotten while it writes. */
START_TEST(test_old_timestamps) {
    do_it(run_create);
    for (int32_t n = 0; n < 200; n++) {
        ck_assert_int_eq(put(1, n, 0, 1000 * HOUR, NULL), 0);
        ck_assert_int_eq(put(1, n + 2, 0, 1000 * HOUR, NULL), CHRONIK_EOUTOFORDER);
        sim_world_run(w.sim, HOURS(1) / 2);
    }
    sim_world_run(w.sim, HOURS(3));
    ck_assert_uint_eq(known(), 0);
}
END_TEST

/* The clock jumps: whoever has written since the last look is kept. */
START_TEST(test_clock) {
    do_it(run_create);
    ck_assert_int_eq(put(1, 0, 0, 0, NULL), 0);
    sim_world_run(w.sim, HOURS(2));
    ck_assert_int_eq(put(2, 0, 0, 0, NULL), 0);
    sim_world_wall_jump(w.sim, -20 * 365 * 24 * HOUR);
    sim_world_run(w.sim, HOURS(5));
    ck_assert_uint_eq(known(), 2);
    ck_assert_int_eq(put(2, 1, 0, 0, NULL), 0);
    sim_world_wall_jump(w.sim, 40 * 365 * 24 * HOUR);
    sim_world_run(w.sim, HOURS(1));
    ck_assert_uint_eq(known(), 1);
    ck_assert_int_eq(put(2, 3, 0, 0, NULL), CHRONIK_EOUTOFORDER);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker: producers expire");
    TCase *tc = tcase_create("expiry");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, test_a_day);
    tcase_add_test(tc, test_restarts);
    tcase_add_test(tc, test_old_timestamps);
    tcase_add_test(tc, test_clock);
    suite_add_tcase(s, tc);
    return s;
}

int main(void) {
    SRunner *r = srunner_create(suite());
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
