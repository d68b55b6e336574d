/* Coordinators without a partition: where a group belongs, the formats of records, timers. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "coord/machine.h"
#include "coord/records.h"

static cnk_text text(const char *s) { return (cnk_text){s, strlen(s)}; }

static size_t unhex(const char *hex, uint8_t *to) {
    size_t n = 0;
    for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) to[n] = (uint8_t)byte;
    return n;
}

static void same_bytes(cnk_writer *w, const char *hex) {
    uint8_t want[512];
    size_t len = unhex(hex, want);
    ck_assert_int_eq(w->error, 0);
    ck_assert_uint_eq(w->len, len);
    ck_assert_mem_eq(w->data, want, len);
    cnk_writer_free(w);
}

/* As Apache Kafka 4.3 has placed them. */
START_TEST(test_partitions) {
    ck_assert_int_eq(cnk_coord_partition_of(text("g"), 50), 3);
    ck_assert_int_eq(cnk_coord_partition_of(text(""), 50), 0);
    ck_assert_int_eq(cnk_coord_partition_of(text("neg"), 50), 44);
    ck_assert_int_eq(cnk_coord_partition_of(text("gruppe-\xc3\xbc-\xe6\x97\xa5\xf0\x9f\x98\x80"), 50), 13);
    /* Java: "polygenelubricants".hashCode() is the least integer, whose absolute value Kafka takes to be 0. */
    ck_assert_int_eq(cnk_coord_partition_of(text("polygenelubricants"), 50), 0);
    for (int32_t n = 1; n < 100; n++) {
        int32_t at = cnk_coord_partition_of(text("any \xff\xfe bytes \xf0\x9f"), n);
        ck_assert(at >= 0 && at < n);
    }
    ck_assert(cnk_coord_topic_is_internal("__consumer_offsets", 18));
    ck_assert(!cnk_coord_topic_is_internal("__consumer_offset", 17));
    ck_assert(!cnk_coord_topic_is_internal("", 0));
}
END_TEST

/* Bytes as Apache Kafka 4.3 has written them. */
START_TEST(test_bytes) {
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_key_write(&w, text("g6"), text("doomed"), 0);
    same_bytes(&w, "0001000267360006646f6f6d656400000000");
    cnk_writer_growing(&w, 0);
    cnk_coord_group_key_write(&w, text("g6"));
    same_bytes(&w, "000200026736");
    cnk_coord_offset_value v = {.offset = 9, .leader_epoch = 3, .metadata = text("e"), .commit_ms = 1, .expire_ms = -1};
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_value_write(&w, &v);
    same_bytes(&w, "000400000000000000090000000302650000000000000001" "00");
    memset(v.topic_id.bytes, 0xab, 16);
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_value_write(&w, &v);
    same_bytes(&w, "000400000000000000090000000302650000000000000001" "010010abababababababababababababababab");
    v.expire_ms = 2;
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_value_write(&w, &v);
    same_bytes(&w, "00010000000000000009" "000165" "0000000000000001" "0000000000000002");
}
END_TEST

/* Every version of an offset's value, whole and cut off at each byte. */
START_TEST(test_offset_versions) {
    static const char *const values[] = {
        "0000" "0000000000000007" "00026e6f" "0000000000000005",
        "0001" "0000000000000007" "00026e6f" "0000000000000005" "0000000000000009",
        "0002" "0000000000000007" "00026e6f" "0000000000000005",
        "0003" "0000000000000007" "00000004" "00026e6f" "0000000000000005",
        "0004" "0000000000000007" "00000004" "036e6f" "0000000000000005" "02" "05020102" "0010" "0102030405060708090a0b0c0d0e0f10"};
    for (int version = 0; version < 5; version++) {
        uint8_t bytes[128];
        cnk_coord_offset_value v;
        size_t len = unhex(values[version], bytes);
        ck_assert_int_eq(cnk_coord_offset_value_read(bytes, len, &v), 0);
        ck_assert_int_eq(v.topic_id.bytes[15], version == 4 ? 0x10 : 0); /* behind a tag that is not known */
        ck_assert_int_eq(v.offset, 7);
        ck_assert_int_eq(v.leader_epoch, version >= 3 ? 4 : -1);
        ck_assert(cnk_text_equal(v.metadata, text("no")));
        ck_assert_int_eq(v.commit_ms, 5);
        ck_assert_int_eq(v.expire_ms, version == 1 ? 9 : -1);
        for (size_t cut = 0; cut < len; cut++)
            ck_assert_int_eq(cnk_coord_offset_value_read(bytes, cut, &v), CHRONIK_ECORRUPT);
    }
    cnk_coord_offset_value v;
    ck_assert_int_eq(cnk_coord_offset_value_read("\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, &v), CHRONIK_ECORRUPT);
}
END_TEST

START_TEST(test_keys) {
    cnk_writer w;
    cnk_coord_key key;
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_key_write(&w, text("group"), text("topic"), 77);
    ck_assert_int_eq(cnk_coord_key_read(w.data, w.len, &key), 0);
    ck_assert_int_eq(key.kind, CNK_COORD_KEY_OFFSET);
    ck_assert(cnk_text_equal(key.group, text("group")) && cnk_text_equal(key.topic, text("topic")));
    ck_assert_int_eq(key.partition, 77);
    for (size_t cut = 0; cut < w.len; cut++)
        ck_assert_int_eq(cnk_coord_key_read(w.data, cut, &key), CHRONIK_ECORRUPT);
    w.len = 0;
    cnk_coord_group_key_write(&w, text("group"));
    ck_assert_int_eq(cnk_coord_key_read(w.data, w.len, &key), 0);
    ck_assert_int_eq(key.kind, CNK_COORD_KEY_GROUP);
    w.data[1] = 3; /* a key of the newer kind of group */
    ck_assert_int_eq(cnk_coord_key_read(w.data, w.len, &key), 0);
    ck_assert_int_eq(key.kind, CNK_COORD_KEY_OTHER);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(test_group_value) {
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    cnk_coord_group_value v = {.protocol_type = text("consumer"), .protocol = text("range"), .leader = text("m1"),
                               .generation = 3, .state_ms = 1700000000000, .member_count = 1};
    cnk_coord_member_value m = {.id = text("m1"), .client_id = text("c"), .client_host = text("/127.0.0.1"),
                                .rebalance_timeout_ms = 300, .session_timeout_ms = 100,
                                .subscription = text("sub"), .assignment = text("")};
    cnk_coord_group_value_write(&w, &v);
    cnk_coord_member_value_write(&w, &m);
    int version;
    cnk_coord_group_value g;
    cnk_coord_member_value n;
    cnk_reader r = cnk_reader_of(w.data, w.len);
    ck_assert_int_eq(cnk_coord_group_value_read(&r, &version, &g), 0);
    ck_assert_int_eq(version, 3);
    ck_assert_int_eq(g.generation, 3);
    ck_assert_int_eq(g.member_count, 1);
    ck_assert(cnk_text_equal(g.protocol, v.protocol) && cnk_text_equal(g.leader, v.leader));
    ck_assert_int_eq(cnk_coord_member_value_read(&r, version, &n), 0);
    ck_assert_uint_eq(cnk_reader_left(&r), 0);
    ck_assert(cnk_text_equal(n.id, m.id) && n.instance_id.p == NULL && cnk_text_equal(n.subscription, m.subscription));
    ck_assert_int_eq(n.rebalance_timeout_ms, 300);
    for (size_t cut = 0; cut < w.len; cut++) {
        r = cnk_reader_of(w.data, cut);
        int rc = cnk_coord_group_value_read(&r, &version, &g);
        if (rc == 0) rc = cnk_coord_member_value_read(&r, version, &n);
        ck_assert_int_eq(rc, CHRONIK_ECORRUPT);
    }
    cnk_writer_free(&w);
}
END_TEST

/* ---- timers ----------------------------------------------------------------------------------------------------- */

static uint64_t now_ns, timer_at;
static int fired;
static uint64_t last_at;

static uint64_t fake_now(void *loop) { (void)loop; return now_ns; }
static void fake_set(void *loop, chronik_timer *timer, uint64_t at_ns) { (void)loop; (void)timer; timer_at = at_ns; }
static int fake_new(void *loop, void (*fire)(void *arg), void *arg, chronik_timer **ret) {
    (void)loop; (void)fire; (void)arg;
    *ret = (chronik_timer *)(void *)&timer_at;
    return 0;
}
static void fake_free(void *loop, chronik_timer *timer) { (void)loop; (void)timer; }
static const chronik_loop_ops fake_ops = {.size = sizeof fake_ops, .now_ns = fake_now, .timer_new = fake_new,
                                          .timer_set = fake_set, .timer_free = fake_free};

static void on_fire(cnk_coord_timer *t) {
    if (t->at_ns > now_ns || t->at_ns < last_at) ck_abort_msg("too early, or out of order");
    last_at = t->at_ns;
    *(bool *)t->arg = false;
    fired++;
}

START_TEST(test_timers) {
    enum { N = 300 };
    static cnk_coord_timer timers[N];
    static bool set[N];
    chronik_loop loop = {&fake_ops, NULL};
    cnk_coord_settings settings = CNK_COORD_SETTINGS_INIT;
    cnk_coord_shard *shard;
    cnk_rng rng;
    cnk_rng_seed(&rng, (uint64_t)_i + 1);
    ck_assert_int_eq(cnk_coord_shard_new(NULL, &loop, &settings, &shard), 0);
    now_ns = 1;
    timer_at = UINT64_MAX;
    memset(timers, 0, sizeof timers);
    memset(set, 0, sizeof set);
    for (int i = 0; i < N; i++) timers[i].fire = on_fire, timers[i].arg = &set[i];
    for (int round = 0; round < 3000; round++) {
        size_t i = cnk_rng_below(&rng, N);
        if (cnk_rng_chance(&rng, 2, 3)) {
            cnk_coord_timer_set(shard, &timers[i], now_ns + 1 + cnk_rng_below(&rng, 1000));
            set[i] = true;
        } else {
            cnk_coord_timer_clear(shard, &timers[i]);
            set[i] = false;
        }
        uint64_t least = UINT64_MAX;
        for (int n = 0; n < N; n++) {
            if (timers[n].set != set[n]) ck_abort_msg("timer %d", n);
            if (set[n] && timers[n].at_ns < least) least = timers[n].at_ns;
        }
        if (timer_at > least) ck_abort_msg("the loop's timer is late");
        if (!cnk_rng_chance(&rng, 1, 10)) continue;
        now_ns += cnk_rng_below(&rng, 300);
        last_at = 0;
        cnk_coord_timers_fire(shard);
        for (int n = 0; n < N; n++)
            if (set[n] && timers[n].at_ns <= now_ns) ck_abort_msg("timer %d has not fired", n);
    }
    ck_assert_int_gt(fired, 0);
    for (int i = 0; i < N; i++) cnk_coord_timer_clear(shard, &timers[i]);
    ck_assert_ptr_null(shard->root);
    cnk_coord_shard_free(shard);
}
END_TEST

int main(void) {
    Suite *s = suite_create("coord");
    TCase *c = tcase_create("coord");
    tcase_add_test(c, test_partitions);
    tcase_add_test(c, test_bytes);
    tcase_add_test(c, test_offset_versions);
    tcase_add_test(c, test_keys);
    tcase_add_test(c, test_group_value);
    tcase_add_loop_test(c, test_timers, 0, 10);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
