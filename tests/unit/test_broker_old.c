/* The broker with clients of old: message sets become batches, batches become message sets; in order, within the memory
 * that there is, in the middle of cancels and of a deletion. */
#include "broker/internal.h"
#include "broker_world.h"

#include "base/crc32c.h"
#include "record/message_set.h"

enum { MANY = 24 };

static world w;

typedef struct sent {
    call c;
    cnk_writer set;
    cnk_produce_part part;
    cnk_produce op;
} sent;
static sent many[MANY];

/* A set of `count` messages, as the broker itself would answer it. */
static void make_set(cnk_writer *out, unsigned codec, unsigned format, int count, size_t value_len) {
    cnk_writer stored;
    cnk_batch batch;
    make_batch_codec(&stored, codec, count, 1700000000000, no_producer, value_len);
    ck_assert_int_eq(cnk_batch_parse(stored.data, stored.len, &batch), 0);
    cnk_writer_growing(out, 0);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, format, 0, 1 << 30, out), 0);
    cnk_writer_free(&stored);
}

static void begin(sent *s, size_t shard, const char *topic, int16_t version) {
    s->part = (cnk_produce_part){.topic = text(topic), .data = s->set.data, .len = (uint32_t)s->set.len};
    s->op = (cnk_produce){.acks = -1, .timeout_ms = 600000, .version = version, .parts = &s->part, .part_count = 1};
    call_begin(&w, shard, &s->c, produce_start, &s->op);
}

static int await(sent *s) {
    ck_assert_int_eq(call_wait(&s->c), 0);
    cnk_writer_free(&s->set);
    return s->part.error;
}

static void put(const char *topic, unsigned codec, int count, size_t value_len) {
    make_batch_codec(&many[0].set, codec, count, 1700000000000, no_producer, value_len);
    begin(&many[0], 0, topic, 11);
    ck_assert_int_eq(await(&many[0]), 0);
}

typedef struct asked { /* a fetch in an old format */
    call c;
    cnk_fetch_part part;
    cnk_fetch op;
} asked;

static void ask(asked *a, const char *topic, int64_t offset, cnk_fetch_format format, int32_t wait_ms) {
    a->part = (cnk_fetch_part){.topic = text(topic), .leader_epoch = -1, .offset = offset, .bytes_max = 64u << 20};
    a->op = (cnk_fetch){.max_wait_ms = wait_ms, .min_bytes = 1, .bytes_max = 64u << 20, .format = format,
                        .no_zstd = true, .parts = &a->part, .part_count = 1};
    call_begin(&w, 0, &a->c, fetch_start, &a->op);
}

static void end(asked *a) {
    call e;
    call_begin(&w, 0, &e, fetch_end_start, &a->op);
    call_wait(&e);
}

/* The offsets in an answer, of one set: *next is where they go on; gives their count. */
static int read_set(const cnk_fetch_part *part, unsigned format, int64_t *next) {
    int count = 0;
    if (part->slice_count == 0) return 0;
    ck_assert_uint_eq(part->slice_count, 1);
    ck_assert_uint_eq(part->slices[0].iov_len, part->bytes);
    cnk_reader set = cnk_reader_of(part->slices[0].iov_base, part->bytes);
    cnk_message m;
    for (; cnk_message_next(&set, &m) == 1; count++) {
        ck_assert(cnk_message_crc_valid(&m));
        ck_assert_uint_eq(m.magic, format);
        ck_assert_int_ge(m.offset, *next);
        if (cnk_message_codec(&m) == CNK_CODEC_NONE) ck_assert_int_eq(m.offset, *next);
        *next = m.offset + 1;
    }
    ck_assert_uint_eq(cnk_reader_left(&set), 0);
    return count;
}

static int read_all(const char *topic, unsigned format, int64_t end_offset, size_t *ret_passes, size_t *ret_largest) {
    int count = 0;
    *ret_passes = *ret_largest = 0;
    for (int64_t next = 0; next < end_offset; ++*ret_passes) {
        asked a;
        ask(&a, topic, next, format == 0 ? CNK_FETCH_FORMAT_0 : CNK_FETCH_FORMAT_1, 0);
        ck_assert_int_eq(call_wait(&a.c), 0);
        ck_assert_int_eq(a.part.error, 0);
        const int found = read_set(&a.part, format, &next);
        ck_assert_int_gt(found, 0);
        count += found;
        if (a.part.bytes > *ret_largest) *ret_largest = a.part.bytes;
        end(&a);
    }
    return count;
}

/* Sets and batches, mixed: they are appended in the order in which they were sent. */
START_TEST(test_order) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < MANY; i++) {
        const unsigned codec = (unsigned)i % 4;
        if (i % 5 == 4) make_batch_codec(&many[i].set, codec, 3, 1700000000000, no_producer, 500);
        else make_set(&many[i].set, codec, (unsigned)i % 2, 3, 500);
        begin(&many[i], 0, "t", (int16_t)(i % 5 == 4 ? 11 : i % 3));
    }
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(await(&many[i]), 0);
        ck_assert_int_eq(many[i].part.base_offset, 3 * i);
    }
    ck_assert_uint_eq(fetch_all(&w, "t", 0, 0).records, 3 * MANY);
    for (unsigned format = 0; format < 2; format++) {
        size_t passes, largest;
        read_all("t", format, 3 * MANY, &passes, &largest);
    }
    cnk_shard_stats stats, sum = {0};
    for (size_t s = 0; s < w.shard_count; s++) {
        cnk_shard_stats_get(cnk_broker_shard(w.broker, s), &stats);
        sum.produce_records += stats.produce_records;
    }
    ck_assert_uint_eq(sum.produce_records, 3 * MANY);
    world_free(&w);
}
END_TEST

/* What is wrong is told; a set without a whole message is nothing. */
START_TEST(test_answers) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < 5; i++) {
        make_set(&many[0].set, i == 3 ? CNK_CODEC_GZIP : 0, 1, 2, 50);
        if (i == 1) many[0].set.data[20] ^= 1;
        if (i == 2) cnk_store_be32(many[0].set.data + 8, 3);
        if (i == 4) many[0].set.len = 40;
        begin(&many[0], 0, "t", i == 0 ? 3 : 2);
        static const int expected[] = {CHRONIK_EINVALIDRECORD, CHRONIK_ECORRUPTMESSAGE, CHRONIK_ECORRUPTMESSAGE, 0, 0};
        ck_assert_int_eq(await(&many[0]), expected[i]);
        ck_assert_int_eq(many[0].part.base_offset, i == 3 ? 0 : -1);
    }
    ck_assert_int_eq(fetch(&w, "t", 0, 0).high_watermark, 2);
    world_free(&w);
}
END_TEST

static int cancel_if_open(call *c) {
    sent *s = c->op;
    if (!s->c.over) cnk_broker_produce_cancel(&s->op);
    return CNK_DONE;
}

START_TEST(test_cancels_and_deletion) {
    static call cancels[MANY];
    world_new(&w, _i ? 3 : 1);
    for (int round = 0; round < 5; round++) {
        ck_assert_int_eq(create(&w, "t", 1), 0);
        for (int i = 0; i < MANY; i++) {
            make_set(&many[i].set, CNK_CODEC_GZIP, 1, 3, 20000);
            begin(&many[i], 0, "t", 2);
        }
        for (int i = 0; i < MANY; i += 3) call_begin(&w, 0, &cancels[i], cancel_if_open, &many[i]);
        ck_assert_int_eq(delete_one(&w, "t"), 0);
        for (int i = 0; i < MANY; i++) {
            if (i % 3 == 0) call_wait(&cancels[i]);
            const int error = await(&many[i]);
            ck_assert(error == 0 || error == CHRONIK_EUNKNOWNTOPIC || (i % 3 == 0 && error == CHRONIK_ECANCELED));
        }
    }
    world_free(&w);
}
END_TEST

/* With acks=0 a client closes its connection as soon as it has sent: what it has sent counts. */
START_TEST(test_sent_and_gone) {
    world_new(&w, _i ? 3 : 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < MANY; i++) {
        make_set(&many[i].set, CNK_CODEC_GZIP, 1, 3, 20000);
        begin(&many[i], 0, "t", 2);
        many[i].op.acks = 0; /* it begins later, on this thread */
    }
    static call cancels[MANY];
    for (int i = 0; i < MANY; i++) call_begin(&w, 0, &cancels[i], cancel_if_open, &many[i]);
    for (int i = 0; i < MANY; i++) {
        call_wait(&cancels[i]);
        ck_assert_int_eq(await(&many[i]), 0);
    }
    put("t", 0, 1, 10);
    ck_assert_int_eq(fetch(&w, "t", 0, 0).high_watermark, 3 * MANY + 1);
    world_free(&w);
}
END_TEST

/* What lies in memory, and what is read from files (in slices that batches do not respect): in as many passes as keep
 * to the limit. */
START_TEST(test_passes) {
    enum { BATCHES = 20, EACH = 900000 };
    world_new(&w, 1);
    if (_i) {
        world_close(&w);
        w.options.fetch_pinned_bytes_max = 0;
        world_open(&w);
    }
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < BATCHES; i++) put("t", CNK_CODEC_NONE, 3, EACH / 3);
    for (unsigned format = 0; format < 2; format++) {
        size_t passes, largest;
        ck_assert_int_eq(read_all("t", format, 3 * BATCHES, &passes, &largest), 3 * BATCHES);
        ck_assert_uint_ge(passes, (BATCHES * EACH) / CNK_FETCH_CONVERTED_BYTES);
        ck_assert_uint_le(largest, CNK_FETCH_CONVERTED_BYTES);
        ck_assert_uint_ge(largest, _i ? EACH : CNK_FETCH_CONVERTED_BYTES - 2 * EACH);
    }
    world_free(&w);
}
END_TEST

/* Room for conversions is that of cold reads: who finds none waits for it, and gets nothing at its deadline. */
START_TEST(test_room) {
    asked first, none, later;
    world_new(&w, 1);
    world_close(&w);
    w.options.fetch_cold_bytes_max = 1;
    world_open(&w);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    put("t", CNK_CODEC_LZ4, 3, 1000);
    ask(&first, "t", 0, CNK_FETCH_FORMAT_0, 0);
    ck_assert_int_eq(call_wait(&first.c), 0);
    ck_assert_uint_gt(first.part.bytes, 0);
    ask(&none, "t", 0, CNK_FETCH_FORMAT_1, 0);
    ck_assert_int_eq(call_wait(&none.c), 0);
    ck_assert_int_eq(none.part.error, 0);
    ck_assert_uint_eq(none.part.bytes, 0);
    ck_assert_int_eq(none.part.high_watermark, 3);
    end(&none);
    ask(&later, "t", 0, CNK_FETCH_FORMAT_1, 600000);
    end(&first);
    ck_assert_int_eq(call_wait(&later.c), 0);
    ck_assert_uint_gt(later.part.bytes, 0);
    end(&later);
    ask(&none, "t", 3, CNK_FETCH_FORMAT_1, 0); /* at the end no room is needed */
    ck_assert_int_eq(call_wait(&none.c), 0);
    ck_assert_uint_eq(none.part.bytes, 0);
    end(&none);
    world_free(&w);
}
END_TEST

/* A batch without an old form ends the answer before it, and is an error where the answer would begin with it. */
START_TEST(test_no_old_form) {
    static const int errors[] = {CHRONIK_EUNSUPPORTEDCODEC, CHRONIK_ECORRUPTMESSAGE};
    world_new(&w, 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    put("t", CNK_CODEC_GZIP, 2, 100);
    make_batch_codec(&many[0].set, _i ? CNK_CODEC_GZIP : CNK_CODEC_ZSTD, 1, 1700000000000, no_producer, 100);
    if (_i) {
        cnk_writer *batch = &many[0].set; /* garbage, of which the broker does not know: it has not opened it */
        memset(batch->data + CNK_BATCH_HEADER_BYTES, 7, 20);
        cnk_store_be32(batch->data + 17, cnk_crc32c(0, batch->data + 21, batch->len - 21));
    }
    begin(&many[0], 0, "t", 11);
    ck_assert_int_eq(await(&many[0]), 0);
    put("t", CNK_CODEC_GZIP, 2, 100);
    for (int64_t offset = 0; offset < 5; offset += offset < 2 ? 2 : 1) {
        asked a;
        int64_t next = offset;
        ask(&a, "t", offset, CNK_FETCH_FORMAT_1, 0);
        ck_assert_int_eq(call_wait(&a.c), 0);
        ck_assert_int_eq(a.part.error, offset == 2 ? errors[_i] : 0);
        ck_assert_int_eq(read_set(&a.part, 1, &next), offset == 2 ? 0 : 1);
        end(&a);
    }
    world_free(&w);
}
END_TEST

START_TEST(test_topic_in_zstd) {
    asked a;
    call c;
    world_new(&w, 1);
    cnk_topic_setting setting = {text("compression.type"), text("zstd")};
    cnk_create_topic t = {
        .name = text("z"), .partitions = 1, .replication = -1, .settings = &setting, .setting_count = 1};
    cnk_create_topics op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(&w, 0, &c, create_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    make_set(&many[0].set, CNK_CODEC_GZIP, 1, 3, 100);
    begin(&many[0], 0, "z", 0);
    ck_assert_int_eq(await(&many[0]), 0);
    ask(&a, "z", 0, CNK_FETCH_AS_STORED, 600000);
    ck_assert_int_eq(call_wait(&a.c), 0);
    ck_assert_int_eq(a.part.error, CHRONIK_EUNSUPPORTEDCODEC);
    end(&a);
    ck_assert_uint_eq(fetch(&w, "z", 0, 0).records, 3);
    world_free(&w);
}
END_TEST

START_TEST(test_fetch_canceled) {
    static asked all[MANY];
    world_new(&w, 1);
    ck_assert_int_eq(create(&w, "t", 1), 0);
    for (int i = 0; i < 10; i++) put("t", CNK_CODEC_GZIP, 3, 100000);
    for (int i = 0; i < MANY; i++) ask(&all[i], "t", 0, CNK_FETCH_FORMAT_0, 0);
    for (int i = 0; i < MANY; i++) {
        if (i % 2) cnk_broker_fetch_cancel(&all[i].op); /* shard 0's loop is this thread */
        ck_assert_int_eq(call_wait(&all[i].c), 0);
        end(&all[i]);
    }
    world_free(&w);
}
END_TEST

int main(void) {
    Suite *s = suite_create("broker_old");
    TCase *t = tcase_create("broker_old");
    tcase_set_timeout(t, 0);
    tcase_add_loop_test(t, test_order, 0, 2);
    tcase_add_loop_test(t, test_answers, 0, 2);
    tcase_add_loop_test(t, test_cancels_and_deletion, 0, 2);
    tcase_add_loop_test(t, test_sent_and_gone, 0, 2);
    tcase_add_loop_test(t, test_passes, 0, 2);
    tcase_add_test(t, test_room);
    tcase_add_loop_test(t, test_no_old_form, 0, 2);
    tcase_add_test(t, test_topic_in_zstd);
    tcase_add_test(t, test_fetch_canceled);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
