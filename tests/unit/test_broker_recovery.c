/* What a broker does with a WAL that is not as it left it: foreign, lost and unknown streams, missing metadata; one that
 * fails meanwhile. */
#include <errno.h>

#include "broker_world.h"

#include "base/error.h"
#include "job_gate.h"
#include "wal/internal.h"

static world w;

static void setup(void) { world_new(&w, 1); }

static void remove_dir(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", w.dir);
    ck_assert_int_eq(system(command), 0);
}

/* ---- the WAL, behind the broker's back -------------------------------------------------------------------------- */

typedef struct intruder {
    chronik_io *io;
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_wal_port *port;
    bool drained;
} intruder;

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) { (void)arg, (void)s, (void)index; }
static void on_event(void *arg) { (void)arg; }
static void on_bad(void *arg, const chronik_error *why) {
    (void)arg;
    ck_abort_msg("%s", why->text);
}
static void on_file(void *arg, uint32_t seq) { (void)arg, (void)seq; }
static int keep_blob(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied) {
    (void)arg;
    const uint8_t *blob = NULL;
    size_t len = 0;
    cnk_wal_stream_blob(s, &blob, &len, ret_applied);
    cnk_write_bytes(out, blob, len);
    return out->error;
}
static void on_drain(void *arg, int code) {
    intruder *in = arg;
    ck_assert_int_eq(code, 0);
    in->drained = true;
    cnk_event_loop_stop(in->loop);
}

/* Drops the stream `drop`, adds the stream `add`; 0: none. */
static void intrude(uint64_t drop, uint64_t add) {
    static const cnk_wal_port_events events = {on_durable, on_event, on_bad, on_event, on_file, keep_blob};
    intruder in = {0};
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal_stream *s, *victim = NULL, *added;
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &in.io), 0);
    ck_assert_int_eq(cnk_event_loop_new(NULL, NULL, &in.loop), 0);
    ck_assert_msg(cnk_wal_open(in.io, &w.wal_options, NULL, NULL, &err, &in.wal) == 0, "%s", err.text);
    ck_assert_int_eq(cnk_wal_port_open(in.wal, cnk_event_loop_get(in.loop), &events, &in, &in.port), 0);
    for (size_t it = 0; (s = cnk_wal_recovered_next(in.wal, &it)) != NULL;) {
        if (cnk_wal_stream_state(s)->id == drop) victim = s;
        cnk_wal_stream_attach(in.port, s, NULL);
    }
    ck_assert(!drop == !victim);
    if (victim) ck_assert_int_eq(cnk_wal_stream_drop(victim), 0);
    if (add) ck_assert_int_eq(cnk_wal_stream_new(in.port, add, NULL, &added), 0);
    cnk_wal_kick(in.port);
    cnk_wal_drain(in.port, on_drain, &in);
    while (!in.drained) cnk_event_loop_run(in.loop);
    cnk_wal_port_close(in.port);
    cnk_wal_free(in.wal);
    cnk_event_loop_free(in.loop);
    chronik_io_posix_free(in.io);
}

START_TEST(test_lost_replica) {
    ck_assert_int_eq(create(&w, "t", 2), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 5), 0);
    ck_assert_int_eq(produce(&w, "t", 1, 5), 0);
    uint64_t stream =
        cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), "t", 1)->partitions[1].stream;
    world_close(&w);
    intrude(stream, 0);
    for (int round = 0; round < 2; round++) {
        world_open(&w);
        ck_assert_int_eq(w.notices, 1);
        ck_assert_ptr_nonnull(strstr(w.notice, "partition 1 of topic t is lost"));
        const cnk_meta_topic *t = cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), "t", 1);
        ck_assert_int_eq(atomic_load(&t->partitions[1].leader->node), -1);
        ck_assert_int_eq(atomic_load(&t->partitions[0].leader->node), 1);
        ck_assert_int_eq(produce(&w, "t", 1, 1), CHRONIK_ESTORAGE);
        ck_assert_int_eq(fetch(&w, "t", 1, 0).error, CHRONIK_ESTORAGE);
        ck_assert_int_eq(list_offset(&w, "t", 1, CNK_OFFSET_LATEST).error, CHRONIK_ESTORAGE);
        ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 5 + round);
        ck_assert_int_eq(produce(&w, "t", 0, 1), 0);
        world_close(&w);
    }
    world_open(&w);
    ck_assert_int_eq(delete_one(&w, "t"), 0); /* a lost one can be deleted, too */
    world_free(&w);
}
END_TEST

START_TEST(test_unknown_stream_is_dropped) {
    ck_assert_int_eq(create(&w, "t", 1), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 5), 0);
    world_close(&w);
    intrude(0, 999);
    world_open(&w);
    ck_assert_int_eq(w.dropped, 1);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 5);
    world_reopen(&w);
    ck_assert_int_eq(w.dropped, 0);
    world_free(&w);
}
END_TEST

START_TEST(test_missing_metadata_is_refused) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(create(&w, "t", 1), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 5), 0);
    world_close(&w);
    intrude(CNK_META_STREAM, 0);
    ck_assert_int_eq(world_try_open(&w, &err), CHRONIK_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "not the metadata"));
    world_close_rest(&w);
    ck_assert_int_eq(world_try_open(&w, &err), CHRONIK_ECORRUPT); /* and nothing has been dropped */
    world_close_rest(&w);
    remove_dir();
}
END_TEST

START_TEST(test_another_directory_is_refused) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(create(&w, "t", 1), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 5), 0);
    world_close(&w);
    memset(w.options.directory_id.bytes, 8, 16);
    ck_assert_int_eq(world_try_open(&w, &err), CHRONIK_EINVAL);
    world_close_rest(&w);
    memset(w.options.directory_id.bytes, 7, 16);
    w.options.node_id = 2;
    ck_assert_int_eq(world_try_open(&w, &err), CHRONIK_EINVAL);
    world_close_rest(&w);
    w.options.node_id = 1;
    memset(w.options.cluster_id.bytes, 9, 16);
    ck_assert_int_eq(world_try_open(&w, &err), CHRONIK_EINVAL);
    world_close_rest(&w);
    memset(w.options.cluster_id.bytes, 0, 16);
    world_open(&w);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 5);
    world_free(&w);
}
END_TEST

/* The number of shards is a run-time choice (DESIGN 3). */
START_TEST(test_shards_may_change) {
    static const size_t counts[] = {3, 1, 4, 2};
    ck_assert_int_eq(create(&w, "t", 6), 0);
    for (size_t round = 0; round < 4; round++) {
        for (int32_t p = 0; p < 6; p++)
            ck_assert_int_eq(produce_from(&w, 0, "t", p, 2, (producer_fields){3, 0, (int32_t)round * 2}, -1, NULL), 0);
        world_close(&w);
        w.shard_count = counts[round];
        world_open(&w);
        for (int32_t p = 0; p < 6; p++) ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, (int64_t)round * 2 + 2);
    }
    world_free(&w);
}
END_TEST

START_TEST(test_many_partitions) {
    ck_assert_int_eq(create(&w, "t", 2000), 0);
    for (int32_t p = 0; p < 2000; p += 97) ck_assert_int_eq(produce(&w, "t", p, 1), 0);
    world_reopen(&w);
    for (int32_t p = 0; p < 2000; p += 97) ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, 1);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    ck_assert_int_eq(w.dropped, 2000);
    world_free(&w);
}
END_TEST

static int create_automatic(const char *name) {
    call c;
    cnk_create_topic t = {.name = text(name), .partitions = 3, .replication = -1};
    cnk_create_topics op = {.timeout_ms = 600000, .topics = &t, .topic_count = 1, .automatic = true};
    call_begin(&w, 0, &c, create_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return t.error;
}

/* R4: a stop anywhere between the request and the answer: at the next start the topic is not there, or comes online
 * with all of its partitions; the same for a deletion: there and whole, or gone. */
START_TEST(test_stopped_in_the_middle) {
    int there = 0, online = 0;
    world_close(&w);
    w.shard_count = _i ? 3 : 1;
    world_open(&w);
    for (int turns = 0; turns < 40; turns++) {
        char name[16];
        call c, d;
        snprintf(name, sizeof name, "t%d", turns);
        cnk_create_topic t = {.name = text(name), .partitions = 3, .replication = -1};
        cnk_create_topics op = {.timeout_ms = 600000, .topics = &t, .topic_count = 1};
        cnk_delete_topic gone = {.name = text("victim")};
        cnk_delete_topics delete_op = {.timeout_ms = 600000, .topics = &gone, .topic_count = 1};
        ck_assert_int_eq(create_automatic("victim"), 0);
        ck_assert_int_eq(produce(&w, "victim", 0, 1), 0);
        call_begin(&w, 0, &c, create_start, &op);
        call_begin(&w, w.shard_count - 1, &d, delete_start, &delete_op);
        for (int k = 0; k < turns / 2; k++) {
            cnk_event_loop_stop(w.loops[0]); /* one turn */
            cnk_event_loop_run(w.loops[0]);
        }
        world_close(&w);
        ck_assert(c.over && d.over);
        bool told = c.rc >= 0 && t.error == 0, deleted = d.rc >= 0 && gone.error == 0;
        world_open(&w);
        ck_assert_int_eq(w.notices, 0);
        const cnk_meta_image *image = cnk_shard_image(cnk_broker_shard(w.broker, 0));
        there += cnk_meta_topic_any(image, name, strlen(name)) != NULL;
        online += told;
        ck_assert(!told || cnk_meta_topic_by_name(image, name, strlen(name)));
        ck_assert(!deleted || !cnk_meta_topic_any(image, "victim", 6));
        bool victim = cnk_meta_topic_any(image, "victim", 6) != NULL;
        ck_assert_int_eq(create_automatic(name), 0);
        for (int32_t p = 0; p < 3; p++) {
            ck_assert_int_eq(produce(&w, name, p, 1), 0);
            ck_assert_int_eq(fetch_all(&w, name, p, 0).next, 1);
        }
        if (victim) {
            ck_assert_int_eq(fetch_all(&w, "victim", 0, 0).next, 1);
            ck_assert_int_eq(delete_one(&w, "victim"), 0);
        }
    }
    ck_assert_int_lt(there, 40);
    ck_assert_int_gt(there, 0);
    ck_assert_int_le(online, there);
    world_free(&w);
}
END_TEST

static void fail_the_log(void *arg, uint64_t stream) {
    (void)arg, (void)stream;
    chronik_error why = CHRONIK_ERROR_INIT;
    cnk_error(&why, CHRONIK_EIO, EIO, "the disk of this test");
    cnk_wal_fence(w.wal, &why);
}

/* The log fails while topics are being made, and again in the start that finds them, before it comes to make what is missing
 * of them (it drops an unknown stream before): it does not start, and says why; the one after it makes them. As in a node, no
 * job of a start that fails is ever begun. */
START_TEST(test_a_log_that_fails_while_it_starts) {
    int creating = 0;
    chronik_error err = CHRONIK_ERROR_INIT;
    w.io_made = gate_set;
    for (int turns = 0; turns < 20; turns++) {
        char name[16];
        call c;
        snprintf(name, sizeof name, "t%d", turns);
        cnk_create_topic t = {.name = text(name), .partitions = 3, .replication = -1};
        cnk_create_topics op = {.timeout_ms = 600000, .topics = &t, .topic_count = 1};
        call_begin(&w, 0, &c, create_start, &op);
        for (int k = 0; k < turns; k++) {
            cnk_event_loop_stop(w.loops[0]); /* one turn */
            cnk_event_loop_run(w.loops[0]);
        }
        fail_the_log(NULL, 0);
        world_wait(&w, &w.fenced);
        world_close(&w);
        ck_assert(c.over);
        intrude(0, 5000 + (uint64_t)turns);
        for (unsigned lane = 0; lane < CHRONIK_LANE_COUNT; lane++) gate_shut(lane);
        world_open_parts(&w);
        w.options.dropped = fail_the_log;
        ck_assert_int_eq(cnk_broker_open(w.io, w.wal, &w.options, &err, &w.broker), CHRONIK_EFENCED);
        ck_assert_str_eq(err.text, "the write-ahead log failed while the broker was starting: the disk of this test: "
                                   "Input/output error");
        creating += w.notices > 0;
        world_close_rest(&w);
        for (unsigned lane = 0; lane < CHRONIK_LANE_COUNT; lane++) gate_forget(lane);
        world_open(&w);
        ck_assert_int_eq(create_automatic(name), 0);
        for (int32_t p = 0; p < 3; p++) ck_assert_int_eq(produce(&w, name, p, 1), 0);
    }
    ck_assert_int_gt(creating, 0);
    world_free(&w);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker_recovery");
    TCase *tc = tcase_create("recovery");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, test_lost_replica);
    tcase_add_test(tc, test_unknown_stream_is_dropped);
    tcase_add_test(tc, test_missing_metadata_is_refused);
    tcase_add_test(tc, test_another_directory_is_refused);
    tcase_add_test(tc, test_shards_may_change);
    tcase_add_test(tc, test_many_partitions);
    tcase_add_loop_test(tc, test_stopped_in_the_middle, 0, 2);
    tcase_add_test(tc, test_a_log_that_fails_while_it_starts);
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
