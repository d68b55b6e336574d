/* The broker's administrative operations over a real WAL, with one shard and with three: more partitions, changed
 * configurations, describing, ends of epochs; each also after a restart. */
#include "broker_world.h"

static world w;

static void open_one(void) { world_new(&w, 1); }
static void open_three(void) { world_new(&w, 3); }
static void close_all(void) { world_free(&w); }

DONE(grow_done, cnk_create_partitions)
DONE(alter_done, cnk_alter_configs)
DONE(describe_done, cnk_describe)
START(grow_start, cnk_create_partitions, cnk_broker_create_partitions, grow_done)
START(alter_start, cnk_alter_configs, cnk_broker_alter_configs, alter_done)
START(describe_start, cnk_describe, cnk_broker_describe, describe_done)

static int grow_as(const char *name, int32_t count, bool validate_only) {
    call c;
    cnk_grow_topic t = {.name = text(name), .count = count};
    cnk_create_partitions op = {.timeout_ms = 60000, .validate_only = validate_only, .topics = &t, .topic_count = 1};
    call_begin(&w, w.shard_count - 1, &c, grow_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(t.error != 0, t.error_text[0] != 0);
    return t.error;
}
static int grow(const char *name, int32_t count) { return grow_as(name, count, false); }

static const cnk_meta_topic *topic_of(const char *name) {
    return cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), name, strlen(name));
}

/* changes NULL: the settings are the whole */
static int alter(const char *name, const cnk_topic_setting *settings, const uint8_t *changes, size_t count) {
    call c;
    cnk_alter_topic t = {.name = text(name), .settings = settings, .changes = changes, .setting_count = count};
    cnk_alter_configs op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(&w, w.shard_count - 1, &c, alter_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(t.error != 0, t.error_text[0] != 0);
    return t.error;
}

static int change(const char *topic, const char *name, uint8_t what, const char *value) {
    const cnk_topic_setting s = {text(name), text(value)};
    return alter(topic, &s, &what, 1);
}

static void check_grown(int32_t count) {
    ck_assert_int_eq(topic_of("t")->partition_count, count);
    ck_assert(cnk_meta_topic_whole(topic_of("t")));
    for (int32_t p = 0; p < count; p++)
        for (int32_t q = 0; q < p; q++)
            ck_assert_uint_ne(topic_of("t")->partitions[p].stream, topic_of("t")->partitions[q].stream);
}

/* Who has asked goes away at once; what is under way may be done all the same. */
#define CANCEL(name, cancel)                                                                                           \
    static int name(call *c) {                                                                                         \
        cancel(c->op);                                                                                                 \
        return CNK_DONE;                                                                                               \
    }
CANCEL(create_cancel, cnk_broker_create_topics_cancel)
CANCEL(delete_cancel, cnk_broker_delete_topics_cancel)
CANCEL(grow_cancel, cnk_broker_create_partitions_cancel)
CANCEL(alter_cancel, cnk_broker_alter_configs_cancel)

static unsigned canceled;
static void start_and_go(size_t shard, int (*start)(call *c), int (*cancel)(call *c), void *op, const int *error) {
    call c, gone;
    call_begin(&w, shard, &c, start, op);
    call_begin(&w, shard, &gone, cancel, op);
    ck_assert_int_eq(call_wait(&gone), 0);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert(*error == CHRONIK_ECANCELED || *error == 0); /* 0: it was faster */
    canceled += *error != 0;
}

START_TEST(test_gone_at_once) {
    for (size_t shard = 0; shard < w.shard_count; shard++) {
        cnk_create_topic made = {.name = text("t"), .partitions = 2, .replication = -1};
        cnk_create_topics create_op = {.timeout_ms = 60000, .topics = &made, .topic_count = 1};
        start_and_go(shard, create_start, create_cancel, &create_op, &made.error);
        const int again = create(&w, "t", 2);
        ck_assert(again == 0 || again == CHRONIK_ETOPICEXISTS);
        while (produce(&w, "t", 1, 1) == CHRONIK_EUNKNOWNTOPIC) usleep(1000); /* it is on its way */
        cnk_grow_topic more = {.name = text("t"), .count = 3};
        cnk_create_partitions grow_op = {.timeout_ms = 60000, .topics = &more, .topic_count = 1};
        start_and_go(shard, grow_start, grow_cancel, &grow_op, &more.error);
        const int grown = grow("t", 3);
        ck_assert(grown == 0 || grown == CHRONIK_EINVALIDPARTITIONS);
        while (produce(&w, "t", 2, 3) == CHRONIK_EUNKNOWNTOPIC) usleep(1000);
        const cnk_topic_setting setting = {text("retention.ms"), text("5000")};
        cnk_alter_topic other = {.name = text("t"), .settings = &setting, .setting_count = 1};
        cnk_alter_configs alter_op = {.timeout_ms = 60000, .topics = &other, .topic_count = 1};
        start_and_go(shard, alter_start, alter_cancel, &alter_op, &other.error);
        ck_assert_int_eq(alter("t", NULL, NULL, 0), 0);
        cnk_delete_topic gone = {.name = text("t")};
        cnk_delete_topics delete_op = {.timeout_ms = 60000, .topics = &gone, .topic_count = 1};
        start_and_go(shard, delete_start, delete_cancel, &delete_op, &gone.error);
        const int deleted = delete_one(&w, "t");
        ck_assert(deleted == 0 || deleted == CHRONIK_EUNKNOWNTOPIC);
    }
    ck_assert_uint_gt(canceled, 0);
    world_reopen(&w);
    ck_assert_ptr_null(topic_of("t"));
}
END_TEST

START_TEST(test_more_partitions) {
    ck_assert_int_eq(create(&w, "t", 2), 0);
    ck_assert_int_eq(create(&w, "other", 1), 0);
    for (int32_t p = 0; p < 2; p++) ck_assert_int_eq(produce(&w, "t", p, 3), 0);
    ck_assert_int_eq(grow("t", 2), CHRONIK_EINVALIDPARTITIONS);
    ck_assert_int_eq(grow("t", 1), CHRONIK_EINVALIDPARTITIONS);
    ck_assert_int_eq(grow("t", CNK_TOPIC_PARTITIONS_MAX + 1), CHRONIK_EINVALIDPARTITIONS);
    ck_assert_int_eq(grow("nope", 3), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(grow_as("t", 5, true), 0);
    check_grown(2);
    ck_assert_int_eq(produce(&w, "t", 2, 1), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(grow("t", 5), 0);
    check_grown(5);
    for (int round = 0; round < 2; round++) {
        for (int32_t p = 0; p < 5; p++) {
            ck_assert_int_eq(produce(&w, "t", p, 2), 0);
            ck_assert_int_eq(fetch_all(&w, "t", p, 0).next, (p < 2 ? 3 : 0) + 2 + round * 2);
        }
        ck_assert_int_eq(produce(&w, "t", 5, 1), CHRONIK_EUNKNOWNTOPIC);
        world_reopen(&w);
        ck_assert_int_eq(w.notices, 0);
        check_grown(5);
    }
    ck_assert_int_eq(grow("t", 6), 0);
    ck_assert_int_eq(produce(&w, "t", 5, 1), 0);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    ck_assert_int_eq(w.dropped, 6);
    ck_assert_int_eq(create(&w, "t", 1), 0); /* leader epochs go on above those of the partitions that came later */
    ck_assert_int_eq(produce(&w, "t", 0, 1), 0);
}
END_TEST

/* Without any time the answer is that it is up, whichever comes first: the operation or its deadline. */
START_TEST(test_no_time_is_up_at_once) {
    ck_assert_int_eq(create(&w, "t", 2), 0);
    for (int i = 0; i < 100; i++) {
        call c;
        cnk_grow_topic t[2] = {{.name = text("t"), .count = 3}, {.name = text("nope"), .count = 3}};
        cnk_create_partitions op = {.timeout_ms = -(i % 2), .validate_only = true, .topics = t, .topic_count = 2};
        call_begin(&w, i % 3 ? 0 : w.shard_count - 1, &c, grow_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(t[0].error, CHRONIK_ETIMEDOUT);
        ck_assert_int_eq(t[1].error, CHRONIK_ETIMEDOUT);
    }
}
END_TEST

/* Two growths at once: both happen, whatever the order in which their partitions come up. */
START_TEST(test_growths_overlap) {
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int32_t n = 1; n < 20; n += 2) {
        call a, b;
        cnk_grow_topic first = {.name = text("t"), .count = n + 1}, second = {.name = text("t"), .count = n + 2};
        cnk_create_partitions x = {.timeout_ms = 60000, .topics = &first, .topic_count = 1};
        cnk_create_partitions y = {.timeout_ms = 60000, .topics = &second, .topic_count = 1};
        call_begin(&w, 0, &a, grow_start, &x);
        call_begin(&w, 0, &b, grow_start, &y);
        ck_assert_int_eq(call_wait(&a), 0);
        ck_assert_int_eq(call_wait(&b), 0);
        ck_assert_int_eq(first.error, 0);
        ck_assert_int_eq(second.error, 0);
        check_grown(n + 2);
        ck_assert_int_eq(produce(&w, "t", n + 1, 1), 0);
    }
}
END_TEST

START_TEST(test_changed_configurations) {
    ck_assert_int_eq(create(&w, "t", 1), 0);
    ck_assert_int_eq(change("t", "max.message.bytes", CNK_CHANGE_SET, "80"), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 1), 0);
    ck_assert_int_eq(produce(&w, "t", 0, 3), CHRONIK_EMESSAGETOOLARGE);
    ck_assert_int_eq(change("t", "max.message.bytes", CNK_CHANGE_SET, "x"), CHRONIK_EINVALIDCONFIG);
    ck_assert_int_eq(change("t", "max.message.bytes", CNK_CHANGE_APPEND, "1"), CHRONIK_EINVALIDCONFIG);
    ck_assert_int_eq(change("t", "max.message.bytes", CNK_CHANGE_SET, NULL), CHRONIK_EINVALIDREQUEST);
    ck_assert_int_eq(change("t", "no.such.thing", CNK_CHANGE_SET, "1"), CHRONIK_EINVALIDCONFIG);
    ck_assert_int_eq(change("t", "no.such.thing", CNK_CHANGE_DELETE, NULL), 0);
    ck_assert_int_eq(change("nope", "max.message.bytes", CNK_CHANGE_SET, "1"), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_str_eq(cnk_meta_topic_config(topic_of("t"), "max.message.bytes"), "80");
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_APPEND, "compact"), 0);
    ck_assert_str_eq(cnk_meta_topic_config(topic_of("t"), "cleanup.policy"), "delete,compact");
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_APPEND, "compact"), 0);
    ck_assert_str_eq(cnk_meta_topic_config(topic_of("t"), "cleanup.policy"), "delete,compact");
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_SUBTRACT, "delete"), 0);
    ck_assert_str_eq(cnk_meta_topic_config(topic_of("t"), "cleanup.policy"), "compact");
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_APPEND, "burn"), CHRONIK_EINVALIDCONFIG);
    world_reopen(&w);
    ck_assert_uint_eq(topic_of("t")->config_count, 2);
    ck_assert(topic_of("t")->settings.compact && !topic_of("t")->settings.delete_);
    ck_assert_int_eq(produce(&w, "t", 0, 3), CHRONIK_EMESSAGETOOLARGE);
    /* some of a topic's changes are wrong: none of them happens */
    const cnk_topic_setting two[] = {{text("retention.ms"), text("5")}, {text("compression.type"), text("rar")}};
    const uint8_t sets[] = {CNK_CHANGE_SET, CNK_CHANGE_SET};
    ck_assert_int_eq(alter("t", two, sets, 2), CHRONIK_EINVALIDCONFIG);
    ck_assert_ptr_null(cnk_meta_topic_config(topic_of("t"), "retention.ms"));
    /* the whole: the rest is gone */
    ck_assert_int_eq(alter("t", two, NULL, 1), 0);
    ck_assert_uint_eq(topic_of("t")->config_count, 1);
    ck_assert_str_eq(cnk_meta_topic_config(topic_of("t"), "retention.ms"), "5");
    ck_assert_int_eq(produce(&w, "t", 0, 3), 0);
    ck_assert_int_eq(change("t", "retention.ms", CNK_CHANGE_DELETE, NULL), 0);
    ck_assert_int_eq(topic_of("t")->settings.retention_ms, 604800000);
    ck_assert_int_eq(topic_of("t")->partition_count, 1);
    ck_assert_int_eq(grow("t", 2), 0); /* and the partitions are as they were */
    ck_assert_int_eq(produce(&w, "t", 1, 1), 0);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 0).next, 4);
}
END_TEST

START_TEST(test_described) {
    call c;
    int64_t base = 0;
    ck_assert_int_eq(create(&w, "t", 3), 0);
    const producer_fields who = {500, 2, 0}, other = {501, 0, 0};
    ck_assert_int_eq(produce_from(&w, 0, "t", 1, 4, who, -1, &base), 0);
    ck_assert_int_eq(produce_from(&w, 0, "t", 1, 1, other, -1, &base), 0);
    uint64_t bytes = 0;
    for (int round = 0; round < 2; round++) {
        cnk_describe_part parts[] = {{.topic = text("t"), .partition = 0},
                                     {.topic = text("t"), .partition = 1},
                                     {.topic = text("t"), .partition = 3},
                                     {.topic = text("nope"), .partition = 0}};
        cnk_describe op = {.producers = true, .parts = parts, .part_count = 4};
        call_begin(&w, 0, &c, describe_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(parts[0].error, 0);
        ck_assert_uint_eq(parts[0].bytes, 0);
        ck_assert_uint_eq(parts[0].producer_count, 0);
        ck_assert_int_eq(parts[1].error, 0);
        ck_assert_uint_eq(parts[1].bytes, fetch_all(&w, "t", 1, 0).bytes);
        ck_assert_uint_gt(parts[1].bytes, bytes);
        bytes = parts[1].bytes;
        ck_assert_uint_eq(parts[1].producer_count, 2);
        ck_assert_int_eq(parts[1].producers[0].id, round == 0 ? 500 : 501); /* the longest idle first */
        ck_assert_int_eq(parts[1].producers[round].epoch, 2);
        ck_assert_int_eq(parts[1].producers[round].last_sequence, round == 0 ? 3 : 5);
        ck_assert_int_eq(parts[1].producers[round].last_timestamp, round == 0 ? 1700000000003 : 1700000000001);
        ck_assert_int_eq(parts[2].error, CHRONIK_EUNKNOWNTOPIC);
        ck_assert_int_eq(parts[3].error, CHRONIK_EUNKNOWNTOPIC);
        cnk_broker_describe_end(&op);
        world_reopen(&w);
        producer_fields again = {500, 2, 4};
        if (round == 0) ck_assert_int_eq(produce_from(&w, 0, "t", 1, 2, again, -1, &base), 0);
    }
    cnk_quorum q;
    cnk_broker_quorum(cnk_broker_shard(w.broker, w.shard_count - 1), &q);
    ck_assert_int_eq(q.leader, 1);
    ck_assert_int_eq(q.epoch, 3);
    ck_assert_uint_gt(q.commit_index, 0);
}
END_TEST

static cnk_list_offsets_part epoch_end(int32_t epoch) {
    call c;
    cnk_list_offsets_part part = {
        .topic = text("t"), .leader_epoch = -1, .timestamp = CNK_OFFSET_EPOCH_END, .asked_epoch = epoch};
    cnk_list_offsets op = {.parts = &part, .part_count = 1};
    call_begin(&w, 0, &c, list_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(part.error, 0);
    return part;
}

START_TEST(test_ends_of_epochs) {
    ck_assert_int_eq(create(&w, "t", 1), 0);
    int32_t epochs[3];
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(produce(&w, "t", 0, 4), 0);
        epochs[i] = (int32_t)fetch_all(&w, "t", 0, 0).epoch;
        if (i < 2) world_reopen(&w);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(epoch_end(epochs[i]).offset, 4 * (i + 1));
        ck_assert_int_eq(epoch_end(epochs[i]).offset_epoch, epochs[i]);
    }
    ck_assert_int_eq(epoch_end(epochs[2] + 1).offset, -1);
    ck_assert_int_eq(epoch_end(epochs[2] + 1).offset_epoch, -1);
    ck_assert_int_eq(epoch_end(-1).offset_epoch, -1);
    ck_assert_int_eq(epoch_end(0).offset, 0); /* before all that are known */
    ck_assert_int_eq(epoch_end(0).offset_epoch, 0);
}
END_TEST

DONE(cut_done, cnk_delete_records)
START(cut_start, cnk_delete_records, cnk_broker_delete_records, cut_done)

static cnk_delete_records_part cut(const char *topic, int32_t partition, int64_t offset) {
    call c;
    cnk_delete_records_part part = {.topic = text(topic), .partition = partition, .offset = offset};
    cnk_delete_records op = {.parts = &part, .part_count = 1};
    call_begin(&w, w.shard_count - 1, &c, cut_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return part;
}

START_TEST(test_deleted_records) {
    const producer_fields who = {500, 0, 0};
    int64_t base;
    ck_assert_int_eq(create(&w, "t", 2), 0);
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 4, who, -1, &base), 0);
    for (int i = 0; i < 5; i++) ck_assert_int_eq(produce(&w, "t", 0, 4), 0); /* 0..24 */
    ck_assert_int_eq(cut("t", 0, 0).low_watermark, 0);
    ck_assert_int_eq(cut("t", 0, 25).error, CHRONIK_EOFFSETRANGE);
    ck_assert_int_eq(cut("t", 0, -2).error, CHRONIK_EOFFSETRANGE);
    ck_assert_int_eq(cut("t", 0, -2).low_watermark, -1);
    ck_assert_int_eq(cut("t", 2, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(cut("u", 0, 0).error, CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_SET, "compact"), 0);
    ck_assert_int_eq(cut("t", 0, 6).error, CHRONIK_EPOLICY);
    ck_assert_int_eq(change("t", "cleanup.policy", CNK_CHANGE_SET, "compact,delete"), 0);
    ck_assert_int_eq(cut("t", 0, 6).low_watermark, 6);
    for (int round = 0; round < 3; round++) { /* the second time from files, the third from a newer checkpoint, or none */
        ck_assert_int_eq(fetch(&w, "t", 0, 5).error, CHRONIK_EOFFSETRANGE);
        fetched f = fetch_all(&w, "t", 0, 6);
        ck_assert_int_eq(f.first, 4); /* the batch that holds it */
        ck_assert_int_eq(f.next, 24);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST).offset, 6);
        ck_assert_int_eq(list_offset(&w, "t", 0, 1700000000000).offset, 6); /* 4 would do, and is deleted */
        ck_assert_int_eq(list_offset(&w, "t", 0, 1700000000003).offset, 7);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP).offset, 7);
        ck_assert_int_eq(epoch_end(0).offset, 6);
        ck_assert_int_eq(cut("t", 0, 3).low_watermark, 6); /* never back */
        world_reopen(&w);
        ck_assert_int_eq(w.notices, 0);
    }
    const producer_fields next = {500, 0, 4}; /* what is known of producers does not go with their records */
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 1, next, -1, &base), 0);
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 4, who, -1, &base), 0);
    ck_assert_int_eq(base, 0); /* a duplicate of what was deleted */
    ck_assert_int_eq(cut("t", 0, CNK_DELETE_TO_HIGH_WATERMARK).low_watermark, 25);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(fetch(&w, "t", 0, 25).error, 0);
        ck_assert_int_eq(fetch(&w, "t", 0, 24).error, CHRONIK_EOFFSETRANGE);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST).offset, 25);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_LATEST).offset, 25);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP).offset, -1);
        world_reopen(&w);
    }
    ck_assert_int_eq(produce_from(&w, 0, "t", 0, 3, no_producer, -1, &base), 0);
    ck_assert_int_eq(base, 25);
    ck_assert_int_eq(fetch_all(&w, "t", 0, 25).next, 28);
    ck_assert_int_eq(produce(&w, "t", 1, 1), 0); /* the other partition is as it was */
    ck_assert_int_eq(fetch_all(&w, "t", 1, 0).next, 1);
}
END_TEST

enum { CUT = 25, MARK = 14 };

/* Two records. Batch 3 has the newest timestamp, batch MARK the newest behind the cut. The cut goes through batch 12, of which
 * the first record is newer than the second. */
static void make_old_batch(cnk_writer *out, int n) {
    static uint8_t value[20000];
    const int64_t first = n == 3 ? 1700001000000 : n == MARK ? 1700000900000 : n == CUT / 2 ? 1700000800000 : 1700000000000 + n;
    cnk_batch_builder b;
    cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (int i = 0; i < 2; i++) {
        cnk_record_spec r = {.timestamp = i == 0 ? first : 1700000000000 + n, .value = value, .value_len = sizeof value};
        ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    }
    cnk_writer_growing(out, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, out), 0);
    cnk_batch_builder_free(&b);
}

/* More than may be looked for at a time: the others wait for their turn. */
static void look_for_many(int64_t timestamp, int64_t offset) {
    enum { MANY = 80 };
    call c;
    cnk_list_offsets_part parts[MANY];
    for (int i = 0; i < MANY; i++)
        parts[i] = (cnk_list_offsets_part){.topic = text("t"), .leader_epoch = -1, .timestamp = timestamp};
    cnk_list_offsets op = {.parts = parts, .part_count = MANY};
    call_begin(&w, w.shard_count - 1, &c, list_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(parts[i].error, 0);
        ck_assert_int_eq(parts[i].offset, offset);
    }
}

/* From packs: whole sections go, and their space comes back; the newest timestamp is looked for anew. */
START_TEST(test_deleted_from_packs) {
    world_close(&w);
    w.with_tier = true;
    w.wal_options.file_bytes = 256u << 10;
    w.wal_options.budget_bytes = 4u << 20;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    int64_t end = 0;
    uint64_t produced = 0;
    cnk_tier_stats s = {0};
    for (int i = 0; s.packs < 4; i++) {
        call c;
        cnk_writer batch;
        make_old_batch(&batch, i);
        cnk_produce_part part = {.topic = text("t"), .data = batch.data, .len = (uint32_t)batch.len};
        cnk_produce op = {.acks = -1, .timeout_ms = 60000, .version = 11, .parts = &part, .part_count = 1};
        call_begin(&w, 0, &c, produce_start, &op);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert_int_eq(part.error, 0);
        produced += batch.len;
        cnk_writer_free(&batch);
        end += 2;
        cnk_tier_stats_get(w.tier, &s);
        ck_assert_int_lt(i, 100000);
    }
    ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP).offset, 6); /* of batch 3 */
    const int64_t to = CUT;
    ck_assert_int_eq(cut("t", 0, to).low_watermark, to);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(fetch(&w, "t", 0, to - 1).error, CHRONIK_EOFFSETRANGE);
        fetched f = fetch_all(&w, "t", 0, to);
        ck_assert_int_eq(f.error, 0);
        ck_assert_int_eq(f.first, to - 1);
        ck_assert_int_eq(f.next, end);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_EARLIEST).offset, to);
        ck_assert_int_eq(list_offset(&w, "t", 0, 1700000000000).offset, to);
        ck_assert_int_eq(list_offset(&w, "t", 0, 1700000700000).offset, 2 * MARK); /* 24 would do */
        look_for_many(1700000700000, 2 * MARK);
        ck_assert_int_eq(list_offset(&w, "t", 0, CNK_OFFSET_MAX_TIMESTAMP).offset, 2 * MARK);
        if (round == 0) world_reopen(&w);
    }
    do { /* the rest of the WAL becomes packs, too, while the loop runs */
        ck_assert_int_eq(fetch(&w, "t", 0, to).error, 0);
        cnk_tier_stats_get(w.tier, &s);
    } while (s.files_waiting > 0);
    ck_assert_uint_lt(s.live_bytes, produced - 200000); /* a whole pack at least has gone */
    ck_assert_int_eq(cut("t", 0, end).low_watermark, end);
    world_reopen(&w);
    ck_assert_int_eq(w.notices, 0);
    ck_assert_int_eq(fetch(&w, "t", 0, end).error, 0);
    ck_assert_int_eq(produce(&w, "t", 0, 1), 0);
    ck_assert_int_eq(fetch_all(&w, "t", 0, end).next, end + 1);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("broker_admin");
    TCase *tc[2] = {tcase_create("one shard"), tcase_create("three shards")};
    for (int i = 0; i < 2; i++) {
        tcase_add_checked_fixture(tc[i], i ? open_three : open_one, close_all);
        tcase_set_timeout(tc[i], 0);
        tcase_add_test(tc[i], test_gone_at_once);
        tcase_add_test(tc[i], test_more_partitions);
        tcase_add_test(tc[i], test_no_time_is_up_at_once);
        tcase_add_test(tc[i], test_growths_overlap);
        tcase_add_test(tc[i], test_changed_configurations);
        tcase_add_test(tc[i], test_described);
        tcase_add_test(tc[i], test_ends_of_epochs);
        tcase_add_test(tc[i], test_deleted_records);
        tcase_add_test(tc[i], test_deleted_from_packs);
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
