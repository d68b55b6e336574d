/* Each allocation of the broker's operations failed in turn: every operation ends, with its result or an error;
 * nothing is lost or half done; and all works again afterwards. */
#include "broker_world.h"

#ifdef CNK_TEST_HOOKS

static world w;

enum { TURNS_MAX = 400 };

/* The failure is armed on shard 0's thread just before the operation starts, and meets whatever allocates then: the
 * broker, the log, the WAL, the tier. */
static long fail_at;
static int (*inner_start)(call *c);
static int armed_start(call *c) {
    cnk_mem_fail_at(fail_at);
    return inner_start(c);
}

static int run(call *c, int (*start)(call *c), void *op) {
    inner_start = start;
    call_begin(&w, 0, c, armed_start, op);
    int rc = call_wait(c);
    cnk_mem_fail_at(-1);
    return rc;
}

/* The failure may meet the WAL's own threads just where they sync a directory: then the node is fenced, as it must be,
 * and the turn is over. Answers of the kind may come before the event that tells of it. */
static bool fenced_then_reopened(int error) {
    if (error == CHRONIK_ESTORAGE) world_wait(&w, &w.fenced);
    if (!w.fenced) return false;
    world_reopen(&w);
    return true;
}

static void setup(void) { world_new(&w, 1); }
static void teardown(void) { world_free(&w); }

START_TEST(test_create_and_delete) {
    int failures = 0, made = 0;
    for (fail_at = 0; fail_at < TURNS_MAX; fail_at++) {
        call c;
        char name[32];
        snprintf(name, sizeof name, "t%ld", fail_at);
        cnk_topic_setting setting = {text("retention.ms"), text("1000")};
        cnk_create_topic t = {
            .name = text(name), .partitions = 2, .replication = -1, .settings = &setting, .setting_count = 1};
        cnk_create_topics op = {.timeout_ms = 600000, .topics = &t, .topic_count = 1};
        int rc = run(&c, create_start, &op);
        if (rc == 0) rc = t.error;
        if (fenced_then_reopened(rc)) {
            (void)delete_one(&w, name);
            continue;
        }
        ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
        failures += rc != 0;
        if (rc == 0) {
            made++;
            int error = produce(&w, name, 1, 1);
            if (fenced_then_reopened(error)) {
                (void)delete_one(&w, name);
                continue;
            }
            ck_assert_int_eq(error, 0);
            call d;
            cnk_delete_topic gone = {.name = text(name)};
            cnk_delete_topics delete_op = {.timeout_ms = 600000, .topics = &gone, .topic_count = 1};
            rc = run(&d, delete_start, &delete_op);
            rc = rc ? rc : gone.error;
            if (fenced_then_reopened(rc)) {
                (void)delete_one(&w, name);
                continue;
            }
            ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
            if (rc != 0) ck_assert_int_eq(delete_one(&w, name), 0);
        }
        ck_assert_int_eq(fetch(&w, name, 0, 0).error, CHRONIK_EUNKNOWNTOPIC);
    }
    ck_assert_int_gt(failures, 10);
    ck_assert_int_gt(made, 10);
    world_reopen(&w);
    ck_assert_int_eq(w.notices, 0);
    ck_assert_uint_eq(cnk_shard_image(cnk_broker_shard(w.broker, 0))->topic_count, 0);
}
END_TEST

START_TEST(test_produce) {
    int failures = 0;
    int64_t next = 0;
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (fail_at = 0; fail_at < 60; fail_at++) {
        call c;
        cnk_writer batch;
        make_batch(&batch, 1, 1700000000000, (producer_fields){fail_at, 0, 0}, 100);
        cnk_produce_part part = {.topic = text("t"), .data = batch.data, .len = (uint32_t)batch.len};
        cnk_produce op = {.acks = -1, .timeout_ms = 600000, .version = 11, .parts = &part, .part_count = 1};
        int rc = run(&c, produce_start, &op);
        rc = rc ? rc : part.error;
        ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
        if (rc != 0) { /* the same again: not a duplicate, for nothing was appended */
            failures++;
            rc = run(&c, produce_start, &op);
            for (; rc != 0 || part.error != 0; rc = call_wait(&c)) call_begin(&w, 0, &c, produce_start, &op);
        }
        ck_assert_int_eq(part.base_offset, next);
        next++;
        cnk_writer_free(&batch);
    }
    ck_assert_int_gt(failures, 0);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, next);
    world_reopen(&w);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, next);
}
END_TEST

START_TEST(test_reads) {
    int failures = 0;
    ck_assert_int_eq(create(&w, "t", 2), 0);
    for (int i = 0; i < 20; i++) ck_assert_int_eq(produce(&w, "t", i % 2, 3), 0);
    for (int round = 0; round < 2; round++) { /* from memory, then from files */
        for (fail_at = 0; fail_at < 40; fail_at++) {
            call c, e;
            cnk_fetch_part parts[2];
            for (int32_t p = 0; p < 2; p++)
                parts[p] =
                    (cnk_fetch_part){.topic = text("t"), .partition = p, .leader_epoch = -1, .bytes_max = 100000};
            cnk_fetch op = {.min_bytes = 1, .bytes_max = 100000, .parts = parts, .part_count = 2};
            int rc = run(&c, fetch_start, &op);
            ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
            failures += rc != 0;
            if (rc == 0) {
                for (int p = 0; p < 2; p++) {
                    fetched f = read_part(&parts[p]);
                    ck_assert(f.error == 0 || f.error == CHRONIK_ENOMEM);
                    failures += f.error != 0;
                    ck_assert(f.first == 0 || f.first == -1);
                }
                call_begin(&w, 0, &e, fetch_end_start, &op);
                call_wait(&e);
            }
            for (int64_t timestamp = -3; timestamp < 5; timestamp++) {
                cnk_list_offsets_part part = {.topic = text("t"), .leader_epoch = -1, .timestamp = timestamp};
                cnk_list_offsets list = {.parts = &part, .part_count = 1};
                ck_assert_int_eq(run(&c, list_start, &list), 0);
                ck_assert(part.error == 0 || part.error == CHRONIK_ENOMEM);
                failures += part.error != 0;
            }
            call i;
            cnk_init_producer init = {.producer_id = -1};
            ck_assert_int_eq(run(&i, init_start, &init), 0);
            ck_assert(init.error == 0 || init.error == CHRONIK_ENOMEM);
        }
        ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 30);
        cnk_shard_stats stats;
        cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
        ck_assert_uint_eq(stats.pinned_bytes, 0);
        while (stats.cold_bytes > 0) { /* kept for a reader that got half of it */
            ck_assert_int_eq(fetch_from(&w, 0, "t", 0, 30, 1, 0).error, 0);
            cnk_shard_stats_get(cnk_broker_shard(w.broker, 0), &stats);
        }
        world_reopen(&w);
    }
    ck_assert_int_gt(failures, 10);
}
END_TEST

/* Opening: fails with ENOMEM and leaves everything as it was, until there is memory enough. */
START_TEST(test_open) {
    int failures = 0;
    ck_assert_int_eq(create(&w, "t", 3), 0);
    for (int32_t p = 0; p < 3; p++)
        ck_assert_int_eq(produce_from(&w, 0, "t", p, 3, (producer_fields){p, 0, 0}, -1, NULL), 0);
    world_close(&w);
    for (long n = 0;; n++) {
        chronik_error err = CHRONIK_ERROR_INIT;
        world_open_parts(&w);
        cnk_mem_fail_at(n);
        int rc = cnk_broker_open(w.io, w.wal, &w.options, &err, &w.broker);
        cnk_mem_fail_at(-1);
        if (rc == 0) break;
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
        failures++;
        w.broker = NULL;
        world_close_rest(&w);
    }
    world_wait(&w, &w.ready);
    ck_assert_int_eq(w.notices, 0);
    for (int32_t p = 0; p < 3; p++) ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, 3);
    ck_assert_int_gt(failures, 30);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker_memory");
    TCase *tc = tcase_create("memory");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, test_create_and_delete);
    tcase_add_test(tc, test_produce);
    tcase_add_test(tc, test_reads);
    tcase_add_test(tc, test_open);
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

#else
int main(void) { return 77; } /* needs the test hooks: skipped */
#endif
