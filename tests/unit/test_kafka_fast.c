/* What is written by hand, against the interpreter: Produce requests decode to the same, Fetch responses are the same
 * bytes. And the tables: errors, APIs, features. */
#include <check.h>

#include "../oracle/random_message.h"
#include "kafka_client.h"
#include "kafka_fake_broker.h"

static uint64_t seed = 1;

static void compare_produce(const cnk_produce_request *a, const cnk_kafka_produce_request *b, int version) {
    uint32_t n = 0;
    ck_assert_int_eq(a->transactional_id.len, b->transactional_id.len);
    ck_assert_int_eq(a->acks, b->acks);
    ck_assert_int_eq(a->timeout_ms, b->timeout_ms);
    ck_assert_int_eq(a->topic_data.count, (int32_t)b->topic_count);
    for (int32_t t = 0; t < a->topic_data.count; t++) {
        const cnk_produce_request_topic_produce_data *x = &a->topic_data.items[t];
        const cnk_kafka_produce_topic *y = &b->topics[t];
        ck_assert_uint_eq(y->first, n);
        ck_assert_int_eq(x->partition_data.count, (int32_t)y->count);
        ck_assert(cnk_uuid_equal(&x->topic_id, &y->id));
        ck_assert_int_eq(version < 13 ? x->name.len : -1, y->name.len);
        if (y->name.len > 0) ck_assert_int_eq(memcmp(x->name.data, y->name.data, (size_t)y->name.len), 0);
        for (int32_t i = 0; i < x->partition_data.count; i++, n++) {
            const cnk_produce_request_partition_produce_data *p = &x->partition_data.items[i];
            const cnk_produce_part *q = &b->parts[n];
            ck_assert_int_eq(p->index, q->partition);
            ck_assert_int_eq(q->topic.p == NULL, version >= 13);
            ck_assert_uint_eq(q->topic.len, version >= 13 ? 0 : (size_t)x->name.len);
            ck_assert_int_eq(p->records.len < 0, q->data == NULL);
            ck_assert_uint_eq(p->records.len < 0 ? 0 : (uint32_t)p->records.len, q->len);
            ck_assert(p->records.data == q->data); /* a slice of the input, not a copy */
        }
    }
    ck_assert_uint_eq(n, b->part_count);
}

START_TEST(produce_requests) {
    cnk_rng rng;
    cnk_arena arena;
    cnk_rng_seed(&rng, seed);
    cnk_arena_init(&arena, 4096, 0);
    for (int n = 0; n < 5000; n++) {
        const int version = n % 14;
        cnk_produce_request m, a;
        cnk_kafka_produce_request b;
        cnk_writer w;
        cnk_writer_growing(&w, 0);
        random_struct(&rng, &arena, cnk_produce_request_message.root, version, (uint8_t *)&m);
        ck_assert_int_eq(cnk_kafka_encode(&cnk_produce_request_message, version, &m, &w), 0);
        if (n % 3 == 0) { /* damaged: both say so, or both agree */
            w.data[cnk_rng_below(&rng, w.len)] = (uint8_t)cnk_rng_next(&rng);
            w.len -= (size_t)cnk_rng_below(&rng, 3) < w.len ? (size_t)cnk_rng_below(&rng, 3) : 0;
        }
        cnk_reader ra = cnk_reader_of(w.data, w.len), rb = ra;
        const int code = cnk_kafka_decode(&cnk_produce_request_message, version, &ra, &arena, &a);
        ck_assert_int_eq(code == 0, cnk_kafka_produce_decode(&rb, version, &arena, &b) == 0);
        if (code == 0) {
            ck_assert_uint_eq(cnk_reader_left(&ra), cnk_reader_left(&rb));
            compare_produce(&a, &b, version);
        }
        cnk_writer_free(&w);
        cnk_arena_reset(&arena);
    }
    cnk_arena_free(&arena);
}
END_TEST

/* ---- Fetch ------------------------------------------------------------------------------------------------------ */

typedef cnk_fetch_response_partition_data partition_out;

static int copy_slices(void *arg, const cnk_fetch_part *part) {
    for (size_t i = 0; i < part->slice_count; i++)
        cnk_write_bytes(arg, part->slices[i].iov_base, part->slices[i].iov_len);
    return 0;
}

static void random_part(cnk_rng *rng, cnk_arena *arena, cnk_fetch_part *p) {
    static const int errors[] = {
        0, 0, 0, CHRONIK_EOFFSETRANGE, CHRONIK_ENOTLEADER, CHRONIK_EFENCEDEPOCH, CHRONIK_EUNKNOWNTOPIC,
        CHRONIK_EUNSUPPORTEDCODEC, CHRONIK_ESTORAGE};
    static uint8_t data[1000];
    memset(p, 0, sizeof *p);
    p->partition = (int32_t)cnk_rng_below(rng, 100);
    p->error = errors[cnk_rng_below(rng, sizeof errors / sizeof *errors)];
    p->high_watermark = (int64_t)cnk_rng_below(rng, 1000);
    p->last_stable_offset = (int64_t)cnk_rng_below(rng, 1000);
    p->log_start_offset = (int64_t)cnk_rng_below(rng, 1000);
    p->leader_id = p->leader_epoch_now = -1;
    if (p->error == CHRONIK_ENOTLEADER && cnk_rng_chance(rng, 1, 2)) {
        p->leader_id = 7;
        p->leader_epoch_now = 3;
    }
    p->slice_count = (size_t)cnk_rng_below(rng, 5);
    struct iovec *v = cnk_arena_alloc(arena, (p->slice_count + 1) * sizeof *v);
    for (size_t i = 0; i < p->slice_count; i++) {
        v[i] = (struct iovec){data, (size_t)cnk_rng_below(rng, sizeof data)};
        p->bytes += (uint32_t)v[i].iov_len;
    }
    p->slices = v;
    p->aborted_count = (size_t)cnk_rng_below(rng, 3);
    cnk_log_aborted *aborted = cnk_arena_alloc(arena, (p->aborted_count + 1) * sizeof *aborted);
    for (size_t i = 0; i < p->aborted_count; i++) aborted[i] = (cnk_log_aborted){(int64_t)i, 5};
    p->aborted = aborted;
}

/* The same as a message for the interpreter. */
static void expected_part(cnk_arena *arena, const cnk_kafka_fetch_answer *a, const cnk_fetch_part *p, int version,
                          partition_out *out) {
    cnk_writer w;
    cnk_kafka_defaults(cnk_fetch_response_message.root->fields[3].sub->fields[2].sub, out);
    out->partition_index = p->partition;
    out->error_code = cnk_kafka_error(p->error);
    if (p->error == CHRONIK_ESTORAGE && version <= 5) out->error_code = CNK_KAFKA_NOT_LEADER_OR_FOLLOWER; /* KIP-112 */
    out->high_watermark = p->error ? -1 : p->high_watermark;
    out->last_stable_offset = p->error ? -1 : p->last_stable_offset;
    out->log_start_offset = p->error ? -1 : p->log_start_offset;
    const bool missing = p->error == CHRONIK_EUNKNOWNTOPIC || p->error == CHRONIK_EUNKNOWNTOPICID ||
                         p->error == CHRONIK_EUNSUPPORTEDCODEC;
    out->aborted_transactions.count = p->error            ? (missing ? 0 : -1)
                                      : a->read_committed ? (int32_t)p->aborted_count
                                                          : -1;
    out->aborted_transactions.items =
        cnk_arena_alloc(arena, (p->aborted_count + 1) * sizeof *out->aborted_transactions.items);
    for (size_t i = 0; i < p->aborted_count; i++)
        out->aborted_transactions.items[i] =
            (cnk_fetch_response_aborted_transaction){p->aborted[i].producer_id, p->aborted[i].first_offset};
    if (version >= 16 && p->leader_id >= 0) {
        out->current_leader.leader_id = p->leader_id;
        out->current_leader.leader_epoch = p->leader_epoch_now;
    }
    out->records.len = p->error == CHRONIK_EUNSUPPORTEDCODEC ? -1 : 0;
    if (p->error) return;
    uint8_t *data = cnk_arena_alloc(arena, p->bytes + 1);
    cnk_writer_fixed(&w, data, p->bytes + 1);
    copy_slices(&w, p);
    out->records = (cnk_kafka_bytes){data, (int32_t)p->bytes};
}

static void expected(cnk_arena *arena, const cnk_kafka_fetch_answer *a, int version, cnk_fetch_response *out) {
    bool endpoint = false;
    cnk_kafka_defaults(cnk_fetch_response_message.root, out);
    out->error_code = a->error;
    out->responses.items = cnk_arena_alloc(arena, (a->topic_count + 1) * sizeof *out->responses.items);
    out->responses.count = (int32_t)a->topic_count;
    for (size_t t = 0; t < a->topic_count; t++) {
        cnk_fetch_response_fetchable_topic_response *topic = &out->responses.items[t];
        topic->topic = a->topics[t].name;
        topic->topic_id = a->topics[t].id;
        topic->partitions.items = cnk_arena_alloc(arena, (a->topics[t].count + 1) * sizeof(partition_out));
        topic->partitions.count = (int32_t)a->topics[t].count;
        for (size_t i = 0; i < a->topics[t].count; i++) {
            const cnk_fetch_part *p = &a->parts[a->topics[t].first + i];
            expected_part(arena, a, p, version, &topic->partitions.items[i]);
            endpoint = endpoint || p->leader_id == a->node_id;
        }
    }
    if (version < 16 || !endpoint) return;
    out->node_endpoints.items = cnk_arena_alloc(arena, sizeof *out->node_endpoints.items);
    out->node_endpoints.count = 1;
    out->node_endpoints.items[0] = (cnk_fetch_response_node_endpoint){a->node_id, a->host, a->port, a->rack};
}

START_TEST(fetch_responses) {
    cnk_rng rng;
    cnk_arena arena;
    cnk_rng_seed(&rng, seed);
    cnk_arena_init(&arena, 4096, 0);
    for (int n = 0; n < 6000; n++) {
        const int version = n % 19;
        cnk_fetch_part parts[16];
        cnk_kafka_fetch_topic topics[4];
        cnk_kafka_fetch_answer a = {.error = version >= 7 ? (int16_t)cnk_rng_below(&rng, 80) : (int16_t)0,
                                    .topics = topics,
                                    .parts = parts,
                                    .topic_count = (size_t)cnk_rng_below(&rng, 5),
                                    .node_id = 7,
                                    .port = 9092,
                                    .host = CNK_KAFKA_STRING("host"),
                                    .read_committed = cnk_rng_chance(&rng, 1, 2),
                                    .rack =
                                        cnk_rng_chance(&rng, 1, 2) ? CNK_KAFKA_STRING_NULL : CNK_KAFKA_STRING("r1")};
        size_t count = 0;
        for (size_t t = 0; t < a.topic_count; t++) {
            topics[t] =
                (cnk_kafka_fetch_topic){CNK_KAFKA_STRING("some-topic"), {{0}}, count, (size_t)cnk_rng_below(&rng, 5)};
            cnk_rng_fill(&rng, topics[t].id.bytes, 16);
            for (size_t i = 0; i < topics[t].count; i++) random_part(&rng, &arena, &parts[count++]);
        }
        cnk_fetch_response m;
        cnk_writer fast, slow;
        cnk_writer_growing(&fast, 0);
        cnk_writer_growing(&slow, 0);
        ck_assert_int_eq(cnk_kafka_fetch_encode(&a, version, &fast, copy_slices, &fast), 0);
        expected(&arena, &a, version, &m);
        ck_assert_int_eq(cnk_kafka_encode(&cnk_fetch_response_message, version, &m, &slow), 0);
        ck_assert_uint_eq(fast.len, slow.len);
        ck_assert_int_eq(memcmp(fast.data, slow.data, slow.len), 0);
        cnk_writer_free(&fast);
        cnk_writer_free(&slow);
        cnk_arena_reset(&arena);
    }
    cnk_arena_free(&arena);
}
END_TEST

/* ---- tables ----------------------------------------------------------------------------------------------------- */

START_TEST(errors) {
    ck_assert_int_eq(cnk_kafka_error(0), CNK_KAFKA_NONE);
    for (int code = -200; code < 200; code++)
        if (code != 0) ck_assert_int_ne(cnk_kafka_error(code), CNK_KAFKA_NONE);
    ck_assert_int_eq(cnk_kafka_error(CHRONIK_EINTERNAL), CNK_KAFKA_UNKNOWN_SERVER_ERROR);
    ck_assert_int_eq(cnk_kafka_error(12345), CNK_KAFKA_UNKNOWN_SERVER_ERROR);
    ck_assert_int_eq(cnk_kafka_error(CHRONIK_EOUTOFORDER), CNK_KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    ck_assert_int_eq(cnk_kafka_error(CHRONIK_EUNKNOWNTOPICID), CNK_KAFKA_UNKNOWN_TOPIC_ID);
    /* every error that speaks of Kafka's operations has a code of its own */
    static const int numbers[] = {
#define CHRONIK_X(name, number, text) number,
        CHRONIK_ERRORS(CHRONIK_X)
#undef CHRONIK_X
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i] >= 40 && numbers[i] < 99)
            ck_assert_msg(cnk_kafka_error(-numbers[i]) != CNK_KAFKA_UNKNOWN_SERVER_ERROR, "%d is not mapped",
                          numbers[i]);
}
END_TEST

START_TEST(apis) {
    static const int16_t offered[][3] = {{0, 0, 13}, {1, 0, 18}, {2, 0, 11}, {3, 0, 13}, {8, 1, 10}, {9, 1, 10},
                                         {10, 0, 6}, {18, 0, 4}, {19, 0, 7}, {20, 0, 6}, {22, 0, 5}, {32, 0, 4},
                                         {60, 0, 2}, {23, 0, 4}, {33, 0, 2}, {35, 0, 5}, {37, 0, 3}, {43, 0, 2},
                                         {44, 0, 1}, {46, 0, 0}, {55, 0, 2}, {57, 0, 2}, {61, 0, 0}, {74, 0, 1},
                                         {75, 0, 0}, {11, 0, 9}, {12, 0, 4}, {13, 0, 5}, {14, 0, 5}, {15, 0, 6},
                                         {16, 0, 5}, {42, 0, 2}, {47, 0, 0}, {21, 0, 2}};
    ck_assert_uint_eq(cnk_kafka_api_count, sizeof offered / sizeof *offered);
    for (size_t i = 0; i < cnk_kafka_api_count; i++) {
        const cnk_kafka_api *a = cnk_kafka_api_find(offered[i][0]);
        ck_assert_ptr_nonnull(a);
        ck_assert_int_eq(a->version_min, offered[i][1]);
        ck_assert_int_eq(a->version_max, offered[i][2]);
        ck_assert_int_ge(a->version_min, a->request->version_min);
        ck_assert_int_le(a->version_max, a->request->version_max);
        ck_assert_int_eq(a->request->api_key, a->key);
        ck_assert_int_eq(a->response->api_key, a->key);
    }
    ck_assert_ptr_null(cnk_kafka_api_find(-1));
    ck_assert_ptr_null(cnk_kafka_api_find(1000));
}
END_TEST

START_TEST(features) { /* KAFKA-17492 */
    const cnk_kafka_feature from_zero = {"x", 0, 2, 1, true}, from_one = {"y", 1, 2, 1, true},
                            unserved = {"z", 1, 2, 1, false};
    ck_assert(!cnk_kafka_feature_shown(&from_zero, 3));
    ck_assert(cnk_kafka_feature_shown(&from_zero, 4));
    ck_assert(cnk_kafka_feature_shown(&from_one, 3));
    ck_assert(!cnk_kafka_feature_shown(&from_one, 2));
    ck_assert(!cnk_kafka_feature_shown(&unserved, 4));
}
END_TEST

int main(void) {
    if (getenv("CHRONIK_TEST_SEED")) seed = strtoull(getenv("CHRONIK_TEST_SEED"), NULL, 10);
    Suite *s = suite_create("kafka_fast");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, produce_requests);
    tcase_add_test(t, fetch_responses);
    tcase_add_test(t, errors);
    tcase_add_test(t, apis);
    tcase_add_test(t, features);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
