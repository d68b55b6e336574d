/* The schema interpreter: random round trips of every message and version, and hostile input. */
#include <check.h>
#include <stdio.h>

#include "../oracle/random_message.h"
#include "kafka/messages.h"

static uint64_t seed = 1;

/* Encodes into a growing writer; the caller frees it. */
static int encode(const cnk_kafka_message *m, int version, const void *value, cnk_writer *w) {
    cnk_writer_growing(w, 64u << 20);
    return cnk_kafka_encode(m, version, value, w);
}

static int decode(const cnk_kafka_message *m, int version, const void *p, size_t len, cnk_arena *arena, void *value) {
    cnk_reader r = cnk_reader_of(p, len);
    return cnk_kafka_decode(m, version, &r, arena, value);
}

START_TEST(round_trips) {
    cnk_rng rng;
    cnk_arena arena, arena2;
    cnk_rng_seed(&rng, seed);
    cnk_arena_init(&arena, 4096, 0);
    cnk_arena_init(&arena2, 4096, 0);
    size_t count = 0;
    for (const cnk_kafka_message *const *m = cnk_kafka_messages; *m; m++) {
        uint8_t *a = malloc((*m)->root->size), *b = malloc((*m)->root->size);
        for (int version = (*m)->version_min; version <= (*m)->version_max; version++) {
            for (int n = 0; n < 40; n++, count++) {
                cnk_writer w, w2;
                random_struct(&rng, &arena, (*m)->root, version, a);
                ck_assert_int_eq(encode(*m, version, a, &w), 0);
                cnk_reader r = cnk_reader_of(w.data, w.len);
                memset(b, 0xa5, (*m)->root->size);
                ck_assert_int_eq(cnk_kafka_decode(*m, version, &r, &arena2, b), 0);
                ck_assert_uint_eq(cnk_reader_left(&r), 0);
                ck_assert(equal_struct((*m)->root, a, b));
                ck_assert_int_eq(encode(*m, version, b, &w2), 0);
                ck_assert_uint_eq(w.len, w2.len);
                ck_assert(w.len == 0 || memcmp(w.data, w2.data, w.len) == 0);
                cnk_writer_free(&w);
                cnk_writer_free(&w2);
                cnk_arena_reset(&arena);
                cnk_arena_reset(&arena2);
            }
        }
        free(a);
        free(b);
    }
    ck_assert_uint_gt(count, 40 * 100);
    cnk_arena_free(&arena);
    cnk_arena_free(&arena2);
}
END_TEST

/* Every proper prefix fails; every single-byte change decodes or fails, within the arena's limit. */
START_TEST(cut_and_damaged) {
    cnk_rng rng;
    cnk_arena arena, arena2;
    cnk_rng_seed(&rng, seed);
    cnk_arena_init(&arena, 4096, 0);
    cnk_arena_init(&arena2, 4096, 4u << 20);
    for (const cnk_kafka_message *const *m = cnk_kafka_messages; *m; m++) {
        uint8_t *a = malloc((*m)->root->size), *b = malloc((*m)->root->size);
        for (int version = (*m)->version_min; version <= (*m)->version_max; version++) {
            cnk_writer w;
            random_struct(&rng, &arena, (*m)->root, version, a);
            ck_assert_int_eq(encode(*m, version, a, &w), 0);
            for (size_t len = 0; len < w.len && len < 400; len++) {
                uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees one byte too far */
                if (len) memcpy(exact, w.data, len);
                ck_assert_int_eq(decode(*m, version, exact, len, &arena2, b), CHRONIK_EPROTO);
                free(exact);
                cnk_arena_reset(&arena2);
            }
            for (size_t n = 0; n < 200 && w.len; n++) {
                const size_t at = (size_t)cnk_rng_below(&rng, w.len);
                const uint8_t old = w.data[at];
                w.data[at] = (uint8_t)cnk_rng_next(&rng);
                (void)decode(*m, version, w.data, w.len, &arena2, b);
                w.data[at] = old;
                cnk_arena_reset(&arena2);
            }
            cnk_writer_free(&w);
            cnk_arena_reset(&arena);
        }
        free(a);
        free(b);
    }
    cnk_arena_free(&arena);
    cnk_arena_free(&arena2);
}
END_TEST

START_TEST(counts_are_checked_before_allocation) {
    cnk_arena arena;
    cnk_metadata_request req;
    cnk_arena_init(&arena, 4096, 0);
    const uint8_t many[] = {0x7f, 0xff, 0xff, 0xff, 0, 0}; /* 2^31 - 1 names in two bytes */
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 1, many, sizeof many, &arena, &req), CHRONIK_EPROTO);
    const uint8_t two[] = {0, 0, 0, 2, 0, 0, 0}; /* two names need four bytes, three are there */
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 1, two, sizeof two, &arena, &req), CHRONIK_EPROTO);
    const uint8_t below[] = {0xff, 0xff, 0xff, 0xfe}; /* count -2 */
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 1, below, sizeof below, &arena, &req), CHRONIK_EPROTO);
    const uint8_t null[] = {0xff, 0xff, 0xff, 0xff};
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 0, null, sizeof null, &arena, &req), CHRONIK_EPROTO);
    ck_assert_uint_eq(arena.total, 0);
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 1, null, sizeof null, &arena, &req), 0);
    ck_assert_int_eq(req.topics.count, -1);
    ck_assert(req.allow_auto_topic_creation); /* its default, below version 4 */
    cnk_arena_free(&arena);
    /* more than the arena's limit */
    cnk_arena_init(&arena, 4096, 1000);
    uint8_t big[4 + 2 * 100] = {0, 0, 0, 100};
    ck_assert_int_eq(decode(&cnk_metadata_request_message, 1, big, sizeof big, &arena, &req), CHRONIK_ENOMEM);
    cnk_arena_free(&arena);
}
END_TEST

START_TEST(null_where_it_must_not_be) {
    cnk_arena arena;
    cnk_api_versions_request req;
    cnk_arena_init(&arena, 4096, 0);
    const uint8_t null_name[] = {0, 2, 'x', 0};
    ck_assert_int_eq(decode(&cnk_api_versions_request_message, 3, null_name, sizeof null_name, &arena, &req),
                     CHRONIK_EPROTO);
    cnk_writer w;
    cnk_kafka_defaults(cnk_api_versions_request_message.root, &req);
    req.client_software_name = CNK_KAFKA_STRING_NULL;
    ck_assert_int_eq(encode(&cnk_api_versions_request_message, 3, &req, &w), CHRONIK_EINVAL);
    cnk_writer_free(&w);
    cnk_arena_free(&arena);
}
END_TEST

START_TEST(tags) {
    cnk_arena arena;
    cnk_api_versions_request req;
    cnk_arena_init(&arena, 4096, 0);
    const uint8_t unknown[] = {2, 'a', 2, 'b', 2, 5, 3, 'x', 'y', 'z', 9, 0};
    ck_assert_int_eq(decode(&cnk_api_versions_request_message, 3, unknown, sizeof unknown, &arena, &req), 0);
    ck_assert_int_eq(req.client_software_version.len, 1);
    const uint8_t twice[] = {2, 'a', 2, 'b', 2, 5, 1, 'x', 5, 1, 'y'};
    ck_assert_int_eq(decode(&cnk_api_versions_request_message, 3, twice, sizeof twice, &arena, &req), CHRONIK_EPROTO);
    const uint8_t too_long[] = {2, 'a', 2, 'b', 1, 5, 3, 'x'};
    ck_assert_int_eq(decode(&cnk_api_versions_request_message, 3, too_long, sizeof too_long, &arena, &req),
                     CHRONIK_EPROTO);
    const uint8_t too_many[] = {2, 'a', 2, 'b', 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0};
    ck_assert_int_eq(decode(&cnk_api_versions_request_message, 3, too_many, sizeof too_many, &arena, &req),
                     CHRONIK_EPROTO);
    /* a known tag takes exactly its bytes: FinalizedFeaturesEpoch with nine */
    cnk_api_versions_response resp;
    const uint8_t nine[] = {0, 0, 1, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0};
    ck_assert_int_eq(decode(&cnk_api_versions_response_message, 3, nine, sizeof nine, &arena, &resp), CHRONIK_EPROTO);
    const uint8_t eight[] = {0, 0, 1, 0, 0, 0, 0, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 7};
    ck_assert_int_eq(decode(&cnk_api_versions_response_message, 3, eight, sizeof eight, &arena, &resp), 0);
    ck_assert_int_eq(resp.finalized_features_epoch, 7);
    cnk_arena_free(&arena);
}
END_TEST

START_TEST(fields_that_a_version_lacks) {
    cnk_writer w;
    cnk_metadata_request req;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &req);
    ck_assert_int_eq(encode(&cnk_metadata_request_message, 1, &req, &w), 0);
    cnk_writer_free(&w);
    req.include_topic_authorized_operations = true; /* 8+, not ignorable */
    ck_assert_int_eq(encode(&cnk_metadata_request_message, 1, &req, &w), CHRONIK_EUNSUPPORTEDVERSION);
    cnk_writer_free(&w);
    cnk_produce_response resp; /* ThrottleTimeMs 1+, ignorable */
    cnk_kafka_defaults(cnk_produce_response_message.root, &resp);
    resp.throttle_time_ms = 5;
    ck_assert_int_eq(encode(&cnk_produce_response_message, 0, &resp, &w), 0);
    ck_assert_uint_eq(w.len, 4);
    cnk_writer_free(&w);
    ck_assert_int_eq(encode(&cnk_produce_response_message, 14, &resp, &w), CHRONIK_EUNSUPPORTEDVERSION);
    ck_assert_uint_eq(w.len, 0);
    cnk_writer_free(&w);
}
END_TEST

/* Bytes written down from the protocol's guide, not from our own encoder. */
START_TEST(known_bytes) {
    cnk_arena arena;
    cnk_writer w;
    cnk_request_header header;
    cnk_arena_init(&arena, 4096, 0);
    const uint8_t v2[] = {0, 18, 0, 3, 0, 0, 0, 7, 0, 2, 'm', 'e', 0};
    ck_assert_int_eq(decode(&cnk_request_header_message, 2, v2, sizeof v2, &arena, &header), 0);
    ck_assert_int_eq(header.request_api_key, 18);
    ck_assert_int_eq(header.correlation_id, 7);
    ck_assert_int_eq(header.client_id.len, 2); /* the client id keeps the old encoding in a flexible header */
    ck_assert_int_eq(encode(&cnk_request_header_message, 2, &header, &w), 0);
    ck_assert_uint_eq(w.len, sizeof v2);
    ck_assert_int_eq(memcmp(w.data, v2, sizeof v2), 0);
    cnk_writer_free(&w);
    cnk_arena_free(&arena);
}
END_TEST

/* Requests and responses come in pairs of the same versions, flexible from the same one on. */
START_TEST(pairs) {
    for (const cnk_kafka_message *const *m = cnk_kafka_messages; *m; m++) {
        if ((*m)->api_key < 0) continue;
        int partners = 0;
        for (const cnk_kafka_message *const *n = cnk_kafka_messages; *n; n++) {
            if (*n == *m || (*n)->api_key != (*m)->api_key) continue;
            partners++;
            ck_assert_int_eq((*n)->version_min, (*m)->version_min);
            ck_assert_int_eq((*n)->version_max, (*m)->version_max);
            ck_assert_int_eq((*n)->flexible_min, (*m)->flexible_min);
        }
        ck_assert_int_eq(partners, 1);
    }
}
END_TEST

int main(void) {
    if (getenv("CHRONIK_TEST_SEED")) seed = strtoull(getenv("CHRONIK_TEST_SEED"), NULL, 10);
    Suite *s = suite_create("kafka_message");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, round_trips);
    tcase_add_test(t, cut_and_damaged);
    tcase_add_test(t, counts_are_checked_before_allocation);
    tcase_add_test(t, null_where_it_must_not_be);
    tcase_add_test(t, tags);
    tcase_add_test(t, fields_that_a_version_lacks);
    tcase_add_test(t, known_bytes);
    tcase_add_test(t, pairs);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
