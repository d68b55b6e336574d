/* Every option of a topic that Kafka has: there with Kafka's type and default, and either honoured, which a test here
 * shows on a topic in use, or in the manual's list of those that have no effect yet (tests/lint/check_topic_options
 * holds the two lists together). */
#include <time.h>

#include "broker_world.h"

static world w;

static void open_one(void) { world_new(&w, 1); }
static void close_all(void) { world_free(&w); }

DONE(alter_done, cnk_alter_configs)
START(alter_start, cnk_alter_configs, cnk_broker_alter_configs, alter_done)

/* All that the topic has from now on: name, value, …, NULL. */
static void set(const char *const *pairs) {
    call c;
    cnk_topic_setting settings[8];
    size_t count = 0;
    for (; pairs[2 * count]; count++)
        settings[count] = (cnk_topic_setting){text(pairs[2 * count]), text(pairs[2 * count + 1])};
    cnk_alter_topic t = {.name = text("t"), .settings = settings, .setting_count = count};
    cnk_alter_configs op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(&w, 0, &c, alter_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_msg(t.error == 0, "%s", t.error_text);
}
#define SET(...) set((const char *const[]){__VA_ARGS__, NULL})

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One record, compressible: the error; where there is none, the batch's offset and its stamp. */
static int put(int16_t acks, const char *key, int64_t timestamp, size_t value_len, int64_t *ret_offset,
               int64_t *ret_stamp) {
    call c;
    cnk_batch_builder b;
    cnk_writer batch;
    uint8_t *value = malloc(value_len);
    static const char words[][8] = {"offset ", "lead ", "epoch ", "of ", "a ", "batch ", "isr ", "record ",
                                    "lag ", "topic ", "key ", "log ", "and ", "term ", "vote ", "in "};
    uint32_t x = 1;
    for (size_t i = 0; i < value_len;) { /* words in no order */
        const char *word = words[(x = x * 1103515245u + 12345u) >> 28];
        while (*word && i < value_len) value[i++] = (uint8_t)*word++;
    }
    cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_record_spec r = {.timestamp = timestamp, .key = key, .key_len = key ? strlen(key) : 0, .value = value,
                         .value_len = value_len};
    ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    cnk_writer_growing(&batch, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, &batch), 0);
    cnk_batch_builder_free(&b);
    free(value);
    cnk_produce_part part = {.topic = text("t"), .data = batch.data, .len = (uint32_t)batch.len};
    cnk_produce op = {.acks = acks, .timeout_ms = 60000, .version = 11, .parts = &part, .part_count = 1};
    call_begin(&w, 0, &c, produce_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    cnk_writer_free(&batch);
    if (ret_offset) *ret_offset = part.base_offset;
    if (ret_stamp) *ret_stamp = part.log_append_time_ms;
    return part.error;
}

typedef struct stored { uint32_t bytes; unsigned codec; int64_t max_timestamp; bool append_time; } stored;

static stored look(int64_t offset) {
    call c, e;
    cnk_batch b;
    cnk_fetch_part part = {.topic = text("t"), .leader_epoch = -1, .offset = offset, .bytes_max = 1};
    cnk_fetch op = {.max_wait_ms = 0, .min_bytes = 1, .bytes_max = 1, .parts = &part, .part_count = 1};
    call_begin(&w, 0, &c, fetch_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    ck_assert_int_eq(part.error, 0);
    ck_assert_uint_eq(part.slice_count, 1);
    ck_assert_int_eq(cnk_batch_parse(part.slices[0].iov_base, part.slices[0].iov_len, &b), 0);
    ck_assert_int_eq(b.base_offset, offset);
    stored s = {b.len, cnk_batch_codec(&b), b.max_timestamp, (b.attributes & 8) != 0};
    call_begin(&w, 0, &e, fetch_end_start, &op);
    call_wait(&e);
    return s;
}

START_TEST(test_max_message_bytes) {
    SET("max.message.bytes", "300");
    ck_assert_int_eq(put(-1, "k", now_ms(), 200, NULL, NULL), 0);
    ck_assert_int_eq(put(-1, "k", now_ms(), 300, NULL, NULL), CHRONIK_EMESSAGETOOLARGE);
    SET("max.message.bytes", "500");
    ck_assert_int_eq(put(-1, "k", now_ms(), 300, NULL, NULL), 0);
}
END_TEST

START_TEST(test_message_timestamp_type) {
    int64_t offset, stamp;
    const int64_t before = now_ms();
    ck_assert_int_eq(put(-1, "k", 1700000000000, 10, &offset, &stamp), 0);
    ck_assert_int_eq(stamp, -1);
    ck_assert_int_eq(look(offset).max_timestamp, 1700000000000);
    ck_assert(!look(offset).append_time);
    SET("message.timestamp.type", "LogAppendTime");
    ck_assert_int_eq(put(-1, "k", 1700000000000, 10, &offset, &stamp), 0);
    ck_assert_int_ge(stamp, before);
    ck_assert_int_eq(look(offset).max_timestamp, stamp);
    ck_assert(look(offset).append_time);
    SET("message.timestamp.type", "CreateTime");
    ck_assert_int_eq(put(-1, "k", 1700000000000, 10, &offset, &stamp), 0);
    ck_assert_int_eq(stamp, -1);
}
END_TEST

START_TEST(test_message_timestamp_bounds) {
    const int64_t now = now_ms(), hour = 3600000;
    ck_assert_int_eq(put(-1, "k", now + 2 * hour, 10, NULL, NULL), CHRONIK_EINVALIDTIMESTAMP); /* an hour is the default */
    SET("message.timestamp.after.max.ms", "10800000");
    ck_assert_int_eq(put(-1, "k", now + 2 * hour, 10, NULL, NULL), 0);
    ck_assert_int_eq(put(-1, "k", now - 20 * hour, 10, NULL, NULL), 0);
    SET("message.timestamp.before.max.ms", "36000000");
    ck_assert_int_eq(put(-1, "k", now - 20 * hour, 10, NULL, NULL), CHRONIK_EINVALIDTIMESTAMP);
    ck_assert_int_eq(put(-1, "k", now - 5 * hour, 10, NULL, NULL), 0);
    /* with the broker's stamps the producer's do not matter */
    SET("message.timestamp.before.max.ms", "36000000", "message.timestamp.type", "LogAppendTime");
    ck_assert_int_eq(put(-1, "k", now - 20 * hour, 10, NULL, NULL), 0);
}
END_TEST

/* The broker compresses what comes uncompressed; a higher level makes it smaller. */
START_TEST(test_compression_type_and_levels) {
    static const struct {
        const char *name, *level, *low, *high;
        unsigned codec;
    } codecs[] = {{"gzip", "compression.gzip.level", "1", "9", CNK_CODEC_GZIP},
                  {"lz4", "compression.lz4.level", "1", "12", CNK_CODEC_LZ4},
                  {"zstd", "compression.zstd.level", "-50", "19", CNK_CODEC_ZSTD},
                  {"snappy", NULL, NULL, NULL, CNK_CODEC_SNAPPY},
                  {"uncompressed", NULL, NULL, NULL, CNK_CODEC_NONE}};
    int64_t offset;
    ck_assert_int_eq(put(-1, "k", now_ms(), 60000, &offset, NULL), 0);
    const uint32_t plain = look(offset).bytes;
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        SET("compression.type", codecs[i].name);
        ck_assert_int_eq(put(-1, "k", now_ms(), 60000, &offset, NULL), 0);
        ck_assert_uint_eq(look(offset).codec, codecs[i].codec);
        if (codecs[i].codec != CNK_CODEC_NONE) ck_assert_uint_lt(look(offset).bytes, plain);
        if (!codecs[i].level) continue;
        SET("compression.type", codecs[i].name, codecs[i].level, codecs[i].low);
        ck_assert_int_eq(put(-1, "k", now_ms(), 60000, &offset, NULL), 0);
        const uint32_t low = look(offset).bytes;
        SET("compression.type", codecs[i].name, codecs[i].level, codecs[i].high);
        ck_assert_int_eq(put(-1, "k", now_ms(), 60000, &offset, NULL), 0);
        ck_assert_msg(look(offset).bytes < low, "%s: %u bytes, then %u", codecs[i].name, low, look(offset).bytes);
    }
    SET("compression.type", "producer");
    ck_assert_int_eq(put(-1, "k", now_ms(), 60000, &offset, NULL), 0);
    ck_assert_uint_eq(look(offset).codec, CNK_CODEC_NONE);
}
END_TEST

START_TEST(test_min_insync_replicas) {
    SET("min.insync.replicas", "2");
    ck_assert_int_eq(put(-1, "k", now_ms(), 10, NULL, NULL), CHRONIK_ENOTENOUGHREPLICAS);
    ck_assert_int_eq(put(1, "k", now_ms(), 10, NULL, NULL), 0);
    SET("min.insync.replicas", "1");
    ck_assert_int_eq(put(-1, "k", now_ms(), 10, NULL, NULL), 0);
}
END_TEST

START_TEST(test_cleanup_policy) {
    ck_assert_int_eq(put(-1, NULL, now_ms(), 10, NULL, NULL), 0);
    SET("cleanup.policy", "compact");
    ck_assert_int_eq(put(-1, NULL, now_ms(), 10, NULL, NULL), CHRONIK_EINVALIDRECORD);
    ck_assert_int_eq(put(-1, "k", now_ms(), 10, NULL, NULL), 0);
}
END_TEST

/* Name, type, default: as Kafka 4.3 has them. */
START_TEST(test_kafkas_options) {
    static const struct {
        const char *name;
        cnk_config_type type;
        const char *value;
    } options[] = {{"cleanup.policy", CNK_CONFIG_LIST, "delete"},
                   {"compression.gzip.level", CNK_CONFIG_INT, "-1"},
                   {"compression.lz4.level", CNK_CONFIG_INT, "9"},
                   {"compression.type", CNK_CONFIG_STRING, "producer"},
                   {"compression.zstd.level", CNK_CONFIG_INT, "3"},
                   {"delete.retention.ms", CNK_CONFIG_LONG, "86400000"},
                   {"file.delete.delay.ms", CNK_CONFIG_LONG, "60000"},
                   {"flush.messages", CNK_CONFIG_LONG, "9223372036854775807"},
                   {"flush.ms", CNK_CONFIG_LONG, "9223372036854775807"},
                   {"follower.replication.throttled.replicas", CNK_CONFIG_LIST, ""},
                   {"index.interval.bytes", CNK_CONFIG_INT, "4096"},
                   {"leader.replication.throttled.replicas", CNK_CONFIG_LIST, ""},
                   {"local.retention.bytes", CNK_CONFIG_LONG, "-2"},
                   {"local.retention.ms", CNK_CONFIG_LONG, "-2"},
                   {"max.compaction.lag.ms", CNK_CONFIG_LONG, "9223372036854775807"},
                   {"max.message.bytes", CNK_CONFIG_INT, "1048588"},
                   {"message.timestamp.after.max.ms", CNK_CONFIG_LONG, "3600000"},
                   {"message.timestamp.before.max.ms", CNK_CONFIG_LONG, "9223372036854775807"},
                   {"message.timestamp.type", CNK_CONFIG_STRING, "CreateTime"},
                   {"min.cleanable.dirty.ratio", CNK_CONFIG_DOUBLE, "0.5"},
                   {"min.compaction.lag.ms", CNK_CONFIG_LONG, "0"},
                   {"min.insync.replicas", CNK_CONFIG_INT, "1"},
                   {"preallocate", CNK_CONFIG_BOOLEAN, "false"},
                   {"remote.log.copy.disable", CNK_CONFIG_BOOLEAN, "false"},
                   {"remote.log.delete.on.disable", CNK_CONFIG_BOOLEAN, "false"},
                   {"remote.storage.enable", CNK_CONFIG_BOOLEAN, "false"},
                   {"retention.bytes", CNK_CONFIG_LONG, "-1"},
                   {"retention.ms", CNK_CONFIG_LONG, "604800000"},
                   {"segment.bytes", CNK_CONFIG_INT, "1073741824"},
                   {"segment.index.bytes", CNK_CONFIG_INT, "10485760"},
                   {"segment.jitter.ms", CNK_CONFIG_LONG, "0"},
                   {"segment.ms", CNK_CONFIG_LONG, "604800000"},
                   {"unclean.leader.election.enable", CNK_CONFIG_BOOLEAN, "false"}};
    const size_t count = sizeof options / sizeof *options;
    for (size_t i = 0; i < count; i++) {
        const cnk_topic_option *o = cnk_topic_option_find(options[i].name, strlen(options[i].name));
        ck_assert_msg(o != NULL, "%s is not there", options[i].name);
        ck_assert_int_eq(o->type, options[i].type);
        ck_assert_str_eq(o->default_value, options[i].value);
        ck_assert_int_gt((int)strlen(o->doc), 10);
        ck_assert_int_eq(cnk_topic_option_check(o, o->default_value, strlen(o->default_value), NULL), 0);
    }
    ck_assert_uint_eq(cnk_topic_option_count(), count + 2); /* ours: searchable, by two names */
}
END_TEST

static void open_topic(void) {
    open_one();
    ck_assert_int_eq(create(&w, "t", 1), 0);
}

static Suite *suite(void) {
    Suite *s = suite_create("broker_options");
    TCase *tc = tcase_create("topic");
    tcase_add_checked_fixture(tc, open_topic, close_all);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, test_max_message_bytes);
    tcase_add_test(tc, test_message_timestamp_type);
    tcase_add_test(tc, test_message_timestamp_bounds);
    tcase_add_test(tc, test_compression_type_and_levels);
    tcase_add_test(tc, test_min_insync_replicas);
    tcase_add_test(tc, test_cleanup_policy);
    tcase_add_test(tc, test_kafkas_options);
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
