/* The broker over a real WAL, with one shard and with three: topics, produce, fetch, offsets, producers, restarts. */
#include "broker_world.h"

static world w;

static void open_one(void) { world_new(&w, 1); }
static void open_three(void) { world_new(&w, 3); }
static void close_all(void) { world_free(&w); }

START_TEST(test_produce_fetch) {
    ck_assert_int_eq(create(&w, "t", 4), 0);
    for (int32_t p = 0; p < 4; p++) {
        for (int i = 0; i < 10; i++) {
            int64_t base = -1;
            size_t shard = (size_t)i % w.shard_count;
            ck_assert_int_eq(produce_from(&w, shard, "t", p, 3, no_producer, i % 2 ? 1 : -1, &base), 0);
            ck_assert_int_eq(base, i * 3);
        }
        for (size_t shard = 0; shard < w.shard_count; shard++) {
            fetched f = fetch_from(&w, shard, "t", p, 0, 1u << 20, 0);
            ck_assert_int_eq(f.error, 0);
            ck_assert_int_eq(f.high_watermark, 30);
            ck_assert_int_eq(f.first, 0);
            ck_assert_int_eq(f.next, 30);
            f = fetch_from(&w, shard, "t", p, 16, 1u << 20, 0);
            ck_assert_int_eq(f.first, 15);
            ck_assert_int_eq(f.next, 30);
            f = fetch_from(&w, shard, "t", p, 30, 1u << 20, 0);
            ck_assert_int_eq(f.error, 0);
            ck_assert_int_eq(f.bytes, 0);
        }
    }
    ck_assert_int_eq(fetch(&w, "t", 0, 31).error, CHRONIK_EOFFSETRANGE);
    ck_assert_int_eq(fetch(&w, "t", 4, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(fetch(&w, "u", 0, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(produce(&w, "t", 4, 1), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 1, no_producer, 2, NULL), CHRONIK_EINVALIDACKS);
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 1, no_producer, 0, NULL), 0);
}
END_TEST

START_TEST(test_restart) {
    int32_t epoch = 0;
    ck_assert_int_eq(create(&w, "t", 3), 0);
    for (int round = 0; round < 4; round++) {
        for (int32_t p = 0; p < 3; p++) {
            int64_t base = -1;
            ck_assert_int_eq(produce_from(&w, 0, "t", p, 5, no_producer, -1, &base), 0);
            ck_assert_int_eq(base, round * 5);
            fetched f = fetch_all(&w, "t", p, 0);
            ck_assert_int_eq(f.error, 0);
            ck_assert_int_eq(f.next, round * 5 + 5);
            ck_assert_int_gt((int)f.epoch, epoch);
        }
        epoch = (int32_t)fetch_all(&w, "t", 0, 0).epoch;
        world_reopen(&w);
        cnk_list_offsets_part l = list_offset(&w, "t", 1, CNK_OFFSET_LATEST);
        ck_assert_int_eq(l.error, 0);
        ck_assert_int_eq(l.offset, round * 5 + 5);
        ck_assert_int_eq(l.offset_epoch, epoch + 1);
        ck_assert_int_eq(list_offset(&w, "t", 1, CNK_OFFSET_EARLIEST).offset, 0);
        ck_assert_int_eq(list_offset(&w, "t", 1, CNK_OFFSET_EARLIEST).offset_epoch, 1);
    }
    ck_assert_int_eq(w.notices, 0);
}
END_TEST

START_TEST(test_idempotence) {
    int64_t base = -1;
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int round = 0; round < 2; round++) { /* the second time after a restart */
        producer_fields a = {100 + round, 0, 0};
        for (int i = 0; i < 8; i++) {
            a.sequence = i * 2;
            ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), 0);
            ck_assert_int_eq(base, round * 20 + i * 2);
        }
        if (round == 0) {
            world_reopen(&w);
        }
        for (int i = 3; i < 8; i++) { /* the last five are remembered */
            a.sequence = i * 2;
            ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), 0);
            ck_assert_int_eq(base, round * 20 + i * 2);
        }
        a.sequence = 4;
        ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), CHRONIK_EOUTOFORDER);
        a.sequence = 18;
        ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), CHRONIK_EOUTOFORDER);
        a.epoch = 1;
        a.sequence = 16;
        ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), CHRONIK_EOUTOFORDER);
        a.sequence = 0;
        ck_assert_int_eq(produce_from(&w, 0, "t", 0, 4, a, -1, &base), 0);
        ck_assert_int_eq(base, round * 20 + 16);
        a.epoch = 0;
        a.sequence = 16;
        ck_assert_int_eq(produce_from(&w, 0, "t", 0, 2, a, -1, &base), CHRONIK_EPRODUCEREPOCH);
    }
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 40);
}
END_TEST

START_TEST(test_producer_ids) {
    int64_t last = -1;
    for (int round = 0; round < 3; round++) {
        for (size_t s = 0; s < w.shard_count; s++)
            for (int i = 0; i < 3; i++) {
                call c;
                cnk_init_producer op = {.producer_id = -1};
                call_begin(&w, s, &c, init_start, &op);
                ck_assert_int_eq(call_wait(&c), 0);
                ck_assert_int_eq(op.error, 0);
                ck_assert_int_eq(op.ret_producer_epoch, 0);
                ck_assert_int_gt(op.ret_producer_id, last);
                last = op.ret_producer_id;
            }
        world_reopen(&w);
    }
    call c;
    cnk_init_producer op = {.producer_id = -1, .transactional_id = text("x")};
    call_begin(&w, 0, &c, init_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(op.error, CHRONIK_ETXNIDAUTH);
}
END_TEST

START_TEST(test_delete_recreate) {
    ck_assert_int_eq(create(&w, "t", 3), 0);
    cnk_uuid old = cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), "t", 1)->id;
    for (int32_t p = 0; p < 3; p++) ck_assert_int_eq(produce(&w, "t", p, 7), 0);
    uint32_t epoch = fetch(&w, "t", 0, 0).epoch;
    ck_assert_int_eq(create(&w, "t", 3), CHRONIK_ETOPICEXISTS);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    ck_assert_int_eq(w.dropped, 3);
    ck_assert_int_eq(fetch(&w, "t", 0, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(delete_one(&w, "t"), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(create(&w, "t", 2), 0);
    const cnk_meta_topic *t = cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), "t", 1);
    ck_assert(!cnk_uuid_equal(&old, &t->id));
    ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_LATEST).offset, 0);
    ck_assert_int_eq(produce(&w, "t", 0, 2), 0);
    ck_assert_int_gt((int)fetch(&w, "t", 0, 0).epoch, (int)epoch);
    ck_assert_int_eq(fetch(&w, "t", 2, 0).error, CHRONIK_EUNKNOWNTOPIC);
    world_reopen(&w);
    ck_assert_int_eq(w.notices, 0);
    ck_assert_int_eq(fetch(&w, "t", 0, 0).next, 2);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    world_reopen(&w);
    ck_assert_int_eq(fetch(&w, "t", 0, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_uint_eq(cnk_shard_image(cnk_broker_shard(w.broker, 0))->topic_count, 0);
}
END_TEST

/* A consumer waits at the end; a batch wakes it; a deleted topic wakes it too. */
START_TEST(test_long_poll) {
    for (size_t shard = 0; shard < w.shard_count; shard++) {
        call c, e;
        ck_assert_int_eq(create(&w, "t", 2), 0);
        cnk_fetch_part parts[2] = {{.topic = text("t"), .partition = 0, .leader_epoch = -1, .bytes_max = 1000},
                                   {.topic = text("t"), .partition = 1, .leader_epoch = -1, .bytes_max = 1000}};
        cnk_fetch op = {.max_wait_ms = 600000, .min_bytes = 1, .bytes_max = 100000, .parts = parts, .part_count = 2};
        call_begin(&w, shard, &c, fetch_start, &op);
        ck_assert_int_eq(produce(&w, "t", 1, 3), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(read_part(&parts[1]).next, 3);
        ck_assert_int_eq(parts[0].bytes, 0);
        call_begin(&w, shard, &e, fetch_end_start, &op);
        call_wait(&e);

        parts[1].offset = 3; /* min_bytes needs two batches */
        op.min_bytes = 150;
        call_begin(&w, shard, &c, fetch_start, &op);
        ck_assert_int_eq(produce(&w, "t", 1, 1), 0);
        ck_assert_int_eq(produce(&w, "t", 0, 1), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(read_part(&parts[1]).next, 4);
        ck_assert_int_eq(read_part(&parts[0]).next, 1);
        call_begin(&w, shard, &e, fetch_end_start, &op);
        call_wait(&e);

        parts[1].offset = 4;
        parts[0].offset = 1;
        call_begin(&w, shard, &c, fetch_start, &op);
        ck_assert_int_eq(delete_one(&w, "t"), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert(parts[0].error == CHRONIK_EUNKNOWNTOPIC || parts[1].error == CHRONIK_EUNKNOWNTOPIC);
        call_begin(&w, shard, &e, fetch_end_start, &op);
        call_wait(&e);
    }
}
END_TEST

/* A shard that does nothing until it is told to. */
static atomic_int held, let_go;

static int hold_start(call *c) {
    (void)c;
    held = 1;
    world_poke(&w);
    while (!let_go) usleep(1000);
    return CNK_DONE;
}

static int nothing_start(call *c) {
    (void)c;
    return CNK_DONE;
}

/* Two shards are asked; one answers, and then has data, before the other has answered. */
START_TEST(test_data_comes_before_all_have_answered) {
    call block, c, e, nothing;
    int32_t at[3] = {-1, -1, -1}; /* a partition of each shard */
    ck_assert_int_eq(create(&w, "t", 24), 0);
    const cnk_meta_topic *t = cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), "t", 1);
    for (int32_t p = 0; p < 24; p++) at[cnk_replica_shard_of(t->partitions[p].stream, 3)] = p;
    ck_assert(at[1] >= 0 && at[2] >= 0);
    call_begin(&w, 2, &block, hold_start, NULL);
    world_wait(&w, &held);
    cnk_fetch_part parts[2] = {{.topic = text("t"), .partition = at[1], .leader_epoch = -1, .bytes_max = 1000},
                               {.topic = text("t"), .partition = at[2], .leader_epoch = -1, .bytes_max = 1000}};
    cnk_fetch op = {.max_wait_ms = 600000, .min_bytes = 1, .bytes_max = 100000, .parts = parts, .part_count = 2};
    call_begin(&w, 0, &c, fetch_start, &op);
    call_begin(&w, 1, &nothing, nothing_start, NULL); /* behind the fetch's question */
    call_wait(&nothing);
    ck_assert_int_eq(produce(&w, "t", at[1], 3), 0);
    for (int i = 0; i < 3; i++) {
        call_begin(&w, 1, &nothing, nothing_start, NULL);
        call_wait(&nothing);
    }
    let_go = 1;
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(read_part(&parts[0]).next, 3);
    call_begin(&w, 0, &e, fetch_end_start, &op);
    call_wait(&e);
    call_wait(&block);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker");
    TCase *tc[2] = {tcase_create("one shard"), tcase_create("three shards")};
    for (int i = 0; i < 2; i++) {
        tcase_add_checked_fixture(tc[i], i ? open_three : open_one, close_all);
        tcase_set_timeout(tc[i], 0);
        tcase_add_test(tc[i], test_produce_fetch);
        tcase_add_test(tc[i], test_restart);
        tcase_add_test(tc[i], test_idempotence);
        tcase_add_test(tc[i], test_producer_ids);
        tcase_add_test(tc[i], test_delete_recreate);
        tcase_add_test(tc[i], test_long_poll);
        if (i) tcase_add_test(tc[i], test_data_comes_before_all_have_answered);
        suite_add_tcase(s, tc[i]);
    }
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
