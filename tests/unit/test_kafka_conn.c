/* The connection: frames, order, overlap, back-pressure, limits, close. On a fake broker and a fake loop. */
#include <check.h>

#include "../oracle/random_message.h"
#include "kafka_client.h"
#include "kafka_fake_broker.h"

static uint64_t seed = 1;
static cnk_kafka *kafka;

static cnk_kafka *kafka_open(const cnk_kafka_options *options) {
    const cnk_kafka_options defaults = CNK_KAFKA_OPTIONS_INIT;
    fake_reset();
    ck_assert_int_eq(cnk_kafka_new((cnk_shard *)&fake, options ? options : &defaults, &kafka), 0);
    return kafka;
}

static void kafka_close(void) {
    ck_assert_uint_eq(cnk_kafka_conn_count(kafka), 0);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0);
    ck_assert_uint_eq(fake.fetches_open, 0);
    ck_assert(cnk_kafka_quiesce(kafka));
    cnk_kafka_free(kafka);
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

START_TEST(every_cut_of_a_frame) {
    client c;
    cnk_writer w, all;
    kafka_open(NULL);
    client_open(&c, kafka);
    cnk_metadata_request m;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &m);
    m.topics.count = -1;
    client_frame(&w, CNK_KAFKA_API_METADATA, 9, 1, &m);
    cnk_writer_growing(&all, 0);
    for (int i = 0; i < 20; i++) cnk_write_bytes(&all, w.data, w.len);
    for (size_t piece = 1; piece < 3 * w.len; piece++) {
        c.in_len = c.in_at = 0;
        ck_assert_uint_eq(client_feed(&c, all.data, all.len, piece), all.len);
        client_drain(&c, SIZE_MAX);
        cnk_reader body;
        cnk_metadata_response out;
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(client_next(&c, &body), 1);
            ck_assert(client_decode(&c, CNK_KAFKA_API_METADATA, 9, &body, &out));
            ck_assert_int_eq(out.topics.count, 2);
        }
        ck_assert_int_eq(client_next(&c, &body), -1);
        cnk_arena_reset(&c.arena);
    }
    cnk_writer_free(&w);
    cnk_writer_free(&all);
    client_close(&c);
    kafka_close();
}
END_TEST

static void expect_close(const void *data, size_t len) {
    client c;
    kafka_open(NULL);
    client_open(&c, kafka);
    (void)client_feed(&c, data, len, 0);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_CLOSE);
    void *space;
    size_t room;
    ck_assert(!cnk_kafka_conn_recv_space(c.conn, &space, &room));
    client_drain(&c, SIZE_MAX);
    ck_assert_uint_eq(c.in_len, 0);
    client_close(&c);
    kafka_close();
}

START_TEST(frames_that_close) {
    const uint8_t too_large[] = {0x06, 0x40, 0x00, 0x01, 0, 0, 0, 9};
    const uint8_t negative[] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9};
    const uint8_t too_small[] = {0, 0, 0, 7, 0, 3, 0, 1, 0, 0, 0};
    const uint8_t unknown_api[] = {0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff};
    const uint8_t unknown_version[] = {0, 0, 0, 10, 0, 3, 0, 14, 0, 0, 0, 1, 0xff, 0xff};
    const uint8_t old_version[] = {0, 0, 0, 10, 0, 1, 0, 3, 0, 0, 0, 1, 0xff, 0xff};
    const uint8_t bad_client[] = {0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 1, 0, 5};
    const uint8_t bad_body[] = {0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 9};
    const uint8_t null_topics[] = {0,    0,    0,    19,   0,    19,   0, 4, 0, 0, 0, 1,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9, 0};
    const uint8_t null_topics_flexible[] = {0, 0, 0, 18, 0, 19, 0, 5, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 9, 0, 0};
    const uint8_t null_partitions[] = {0, 0, 0, 30, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1,
                                       0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0};
    const uint8_t http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const uint8_t tls[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc};
    expect_close(too_large, sizeof too_large);
    expect_close(negative, 4);
    expect_close(too_small, sizeof too_small);
    expect_close(unknown_api, sizeof unknown_api);
    expect_close(unknown_version, sizeof unknown_version);
    expect_close(old_version, sizeof old_version);
    expect_close(bad_client, sizeof bad_client);
    expect_close(bad_body, sizeof bad_body);
    expect_close(null_topics, sizeof null_topics);
    expect_close(null_topics_flexible, sizeof null_topics_flexible);
    expect_close(null_partitions, sizeof null_partitions);
    expect_close(http, sizeof http - 1);
    expect_close(tls, sizeof tls);
}
END_TEST

static size_t row_of(const char *api) {
    size_t len = 0;
    const char *name;
    for (size_t row = 0; (name = cnk_kafka_api_name(row, &len)) != NULL; row++)
        if (strlen(api) == len && memcmp(api, name, len) == 0) return row;
    ck_abort_msg("%s is not offered", api);
}

/* Each request under its API and version; neither those that are not offered nor those whose header is malformed. */
START_TEST(requests_are_counted) {
    static cnk_kafka_counts counts;
    memset(&counts, 0, sizeof counts);
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.counts = &counts;
    const uint8_t bad_client[] = {0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 1, 0, 5};
    const uint8_t bad_version[] = {0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff};
    client c;
    cnk_metadata_request m;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &m);
    kafka_open(&options);
    client_open(&c, kafka);
    client_send(&c, CNK_KAFKA_API_METADATA, 9, 1, &m);
    client_send(&c, CNK_KAFKA_API_METADATA, 9, 2, &m);
    client_send(&c, CNK_KAFKA_API_METADATA, 13, 3, &m);
    client_send(&c, CNK_KAFKA_API_API_VERSIONS, 99, 4, NULL);
    client_drain(&c, SIZE_MAX);
    (void)client_feed(&c, bad_version, sizeof bad_version, 0);
    client_close(&c);
    client_open(&c, kafka);
    (void)client_feed(&c, bad_client, sizeof bad_client, 0);
    client_close(&c);
    const size_t metadata = row_of("Metadata");
    ck_assert_uint_eq(cnk_counter_get(&counts.requests[metadata][9]), 2);
    ck_assert_uint_eq(cnk_counter_get(&counts.requests[metadata][13]), 1);
    uint64_t all = 0;
    for (size_t row = 0; row < CNK_KAFKA_APIS_MAX; row++)
        for (size_t v = 0; v < CNK_KAFKA_VERSIONS_MAX; v++) all += cnk_counter_get(&counts.requests[row][v]);
    ck_assert_uint_eq(all, 3);
    kafka_close();
}
END_TEST

/* An unknown version of ApiVersions: body version 0, header version 0, error 35, its own range. */
START_TEST(api_versions_of_an_unknown_version) {
    const uint8_t request[] = {0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 7, 'g', 'a', 'r', 'b'};
    const uint8_t answer[] = {0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4};
    client c;
    kafka_open(NULL);
    client_open(&c, kafka);
    ck_assert_uint_eq(client_feed(&c, request, sizeof request, 0), sizeof request);
    client_drain(&c, SIZE_MAX);
    ck_assert_uint_eq(c.in_len, sizeof answer);
    ck_assert_int_eq(memcmp(c.in, answer, sizeof answer), 0);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_RECV);
    client_close(&c);
    kafka_close();
}
END_TEST

/* ---- order ------------------------------------------------------------------------------------------------------ */

static void send_produce(client *c, int32_t correlation, int16_t acks, const char *data) {
    produce_one p;
    client_send(c, CNK_KAFKA_API_PRODUCE, 9, correlation, produce_of(&p, 9, 0, acks, data, strlen(data)));
}

static void send_simple(client *c, int16_t key, int version, int32_t correlation) {
    union { cnk_metadata_request metadata; cnk_fetch_request fetch; uint8_t space[512]; } m;
    cnk_kafka_defaults(cnk_kafka_api_find(key)->request->root, &m);
    if (key == CNK_KAFKA_API_METADATA) m.metadata.topics.count = -1;
    cnk_fetch_request_fetch_partition part;
    cnk_fetch_request_fetch_topic topic = {.topic = CNK_KAFKA_STRING("a"), .partitions = {&part, 1}};
    if (key == CNK_KAFKA_API_FETCH) {
        memset(&part, 0, sizeof part);
        part.current_leader_epoch = part.last_fetched_epoch = -1;
        part.log_start_offset = -1;
        part.high_watermark = INT64_MAX;
        m.fetch.topics.items = &topic;
        m.fetch.topics.count = 1;
    }
    client_send(c, key, version, correlation, &m);
}

START_TEST(produce_overlaps_and_answers_keep_the_order) {
    client c;
    cnk_reader body;
    kafka_open(NULL);
    client_open(&c, kafka);
    fake.wait = true;
    send_produce(&c, 1, -1, "one");
    send_produce(&c, 2, -1, "two");
    send_produce(&c, 3, -1, "three");
    ck_assert_uint_eq(fake.waiting_count, 3); /* all run */
    send_simple(&c, CNK_KAFKA_API_METADATA, 9, 4);
    send_produce(&c, 5, -1, "five");
    ck_assert_uint_eq(fake.waiting_count, 3); /* what is not Produce waits, and all after it */
    fake_complete(2);
    fake_complete(1);
    ck_assert_int_eq(c.wakes, 1); /* once, until the owner looks */
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), -1);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_RECV);
    fake_complete(0);
    ck_assert_int_eq(c.wakes, 2);
    ck_assert_uint_eq(fake.waiting_count, 1); /* Metadata was answered, Produce 5 has begun */
    client_drain(&c, SIZE_MAX);
    for (int i = 1; i <= 4; i++) ck_assert_int_eq(client_next(&c, &body), i);
    ck_assert_int_eq(client_next(&c, &body), -1);
    fake_complete(0);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 5);
    client_close(&c);
    kafka_close();
}
END_TEST

START_TEST(fetch_waits_alone_and_close_cancels_it) {
    client c;
    kafka_open(NULL);
    client_open(&c, kafka);
    fake.wait = true;
    send_simple(&c, CNK_KAFKA_API_FETCH, 11, 1);
    send_produce(&c, 2, 1, "x");
    ck_assert_uint_eq(fake.waiting_count, 1);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_RECV); /* the peer's close is noticed */
    ck_assert(cnk_kafka_conn_settled(c.conn) );
    client_close(&c);
    ck_assert_uint_eq(fake.waiting_count, 0);
    /* an operation that ends after the connection does: memory lives on until then */
    client_open(&c, kafka);
    cnk_list_offsets_request_list_offsets_partition part = {0, -1, -1, 1};
    cnk_list_offsets_request_list_offsets_topic topic = {CNK_KAFKA_STRING("a"), {&part, 1}};
    cnk_list_offsets_request m = {.replica_id = -1, .topics = {&topic, 1}};
    client_send(&c, CNK_KAFKA_API_LIST_OFFSETS, 7, 1, &m);
    ck_assert_uint_eq(fake.waiting_count, 1);
    ck_assert(!cnk_kafka_conn_settled(c.conn));
    client_close(&c);
    ck_assert_uint_eq(cnk_kafka_conn_count(kafka), 1);
    fake_complete(0);
    kafka_close();
}
END_TEST

START_TEST(close_with_everything_under_way) {
    client c;
    kafka_open(NULL);
    client_open(&c, kafka);
    send_simple(&c, CNK_KAFKA_API_FETCH, 11, 1); /* answered, not sent: lends memory */
    fake.wait = true;
    fake.data_needed = true;
    for (int i = 0; i < 100; i++) send_produce(&c, 2 + i, -1, "data");
    ck_assert_uint_eq(fake.waiting_count, 100);
    ck_assert_uint_eq(fake.fetches_open, 1);
    client_close(&c);
    ck_assert_uint_eq(fake.waiting_count, 0);
    /* a request of many calls, with the last of which it ends itself */
    client_open(&c, kafka);
    cnk_kafka_string groups[] = {CNK_KAFKA_STRING("a"), CNK_KAFKA_STRING("b"), CNK_KAFKA_STRING("c")};
    const cnk_describe_groups_request describe = {.groups = {groups, 3}};
    client_send(&c, CNK_KAFKA_API_DESCRIBE_GROUPS, 5, 1, &describe);
    ck_assert_uint_eq(fake.waiting_count, 3);
    fake_complete(2);
    client_close(&c);
    ck_assert_uint_eq(fake.waiting_count, 0);
    kafka_close();
}
END_TEST

/* ---- acks=0 ----------------------------------------------------------------------------------------------------- */

START_TEST(acks_zero) {
    client c;
    cnk_reader body;
    kafka_open(NULL);
    client_open(&c, kafka);
    send_produce(&c, 1, 0, "quiet");
    send_simple(&c, CNK_KAFKA_API_METADATA, 9, 2);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 2);
    ck_assert_int_eq(client_next(&c, &body), -1);
    /* a failure closes, but what was asked before is still answered */
    fake.wait = true;
    send_produce(&c, 3, 1, "loud");
    send_produce(&c, 4, 0, "quiet");
    fake.part_error = CHRONIK_ESTORAGE;
    fake_complete(1);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), 0);
    fake.part_error = 0;
    fake_complete(0);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_SEND);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 3);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_CLOSE);
    client_close(&c);
    kafka_close();
}
END_TEST

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* The broker still needs the data: it must be there, unchanged, until it is done, whatever is received meanwhile. */
START_TEST(pinned_data_stays) {
    client c, other;
    cnk_reader body;
    char data[3000];
    uint32_t crc = 0;
    cnk_rng rng;
    cnk_rng_seed(&rng, seed);
    kafka_open(NULL);
    client_open(&c, kafka);
    client_open(&other, kafka);
    fake.wait = fake.data_needed = true;
    for (int i = 0; i < 200; i++) {
        produce_one p;
        const size_t len = i % 7 == 0 ? sizeof data : 100;
        cnk_rng_fill(&rng, data, len);
        data[16] = 0; /* no batch of format 2, so not a transactional one */
        crc = cnk_crc32c(crc, data, len);
        client_send(&c, CNK_KAFKA_API_PRODUCE, 9, i, produce_of(&p, 9, 0, -1, data, len));
        fake.wait = false;
        send_simple(&other, CNK_KAFKA_API_METADATA, 9, i); /* received into the same memory, were it not pinned */
        client_drain(&other, SIZE_MAX);
        fake.wait = true;
    }
    ck_assert_uint_eq(fake.waiting_count, 200);
    for (int i = 0; i < 200; i++) fake_complete(0);
    ck_assert_uint_eq(fake.data_crc, crc);
    client_drain(&c, SIZE_MAX);
    for (int i = 0; i < 200; i++) ck_assert_int_eq(client_next(&c, &body), i);
    client_close(&c);
    client_close(&other);
    kafka_close();
}
END_TEST

static void large_frame(cnk_writer *w, size_t len, int32_t correlation) {
    produce_one p;
    char *data = calloc(1, len);
    client_frame(w, CNK_KAFKA_API_PRODUCE, 9, correlation, produce_of(&p, 9, 1, -1, data, len));
    free(data);
}

START_TEST(large_frames_wait_for_the_budget_in_turn) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.frame_bytes_max = 1u << 20;
    options.produce_bytes_max = 1500000;
    client c[3];
    cnk_writer w;
    kafka_open(&options);
    large_frame(&w, 1000000, 1);
    for (int i = 0; i < 3; i++) {
        client_open(&c[i], kafka);
        ck_assert_uint_eq(client_feed(&c[i], w.data, 20, 0), 20);
    }
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), w.len - 4); /* only the first */
    const size_t taken = client_feed(&c[1], w.data + 20, w.len - 20, 0);
    ck_assert_uint_lt(taken, 40000); /* the second is held up */
    ck_assert_uint_eq(cnk_kafka_conn_wants(c[1].conn), 0);
    ck_assert_uint_eq(client_feed(&c[0], w.data + 20, w.len - 20, 0), w.len - 20);
    ck_assert_int_eq(c[1].wakes, 1); /* it has the memory now */
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), w.len - 4);
    ck_assert_uint_eq(client_feed(&c[1], w.data + 20 + taken, w.len - 20 - taken, 0), w.len - 20 - taken);
    ck_assert_uint_eq(fake.produced_parts, 2);
    ck_assert_uint_eq(fake.produced_bytes, 2000000);
    client_close(&c[2]); /* with its reservation */
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0);
    client_close(&c[0]);
    client_close(&c[1]);
    cnk_writer_free(&w);
    kafka_close();
}
END_TEST

START_TEST(buffers_of_large_frames_are_kept_within_limits) {
    client c;
    cnk_writer w;
    kafka_open(NULL);
    client_open(&c, kafka);
    fake.wait = fake.data_needed = true;
    for (int i = 0; i < 7; i++) {
        large_frame(&w, i == 6 ? 5u << 20 : 300000, i);
        ck_assert_uint_eq(client_feed(&c, w.data, w.len, 0), w.len);
        cnk_writer_free(&w);
    }
    ck_assert_uint_eq(fake.waiting_count, 7);
    while (fake.waiting_count > 0) fake_complete(0);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0); /* what is kept is not reserved */
    ck_assert_uint_eq(kafka->spare_count, 6);              /* not the one of 5 MB */
    fake.wait = false;
    large_frame(&w, 290000, 9);
    ck_assert_uint_eq(client_feed(&c, w.data, 100, 0), 100);
    ck_assert_uint_eq(kafka->spare_count, 5); /* one is used again */
    ck_assert_uint_eq(client_feed(&c, w.data + 100, w.len - 100, 0), w.len - 100);
    ck_assert_uint_eq(kafka->spare_count, 6);
    cnk_writer_free(&w);
    /* the sizes that come now take the place of those that came before, within the bytes that may be kept */
    client more[5];
    fake.wait = true;
    large_frame(&w, 2000000, 10);
    for (int i = 0; i < 5; i++) {
        client_open(&more[i], kafka);
        ck_assert_uint_eq(client_feed(&more[i], w.data, w.len, 0), w.len);
    }
    while (fake.waiting_count > 0) fake_complete(0);
    ck_assert_uint_eq(kafka->spare_count, 4);
    ck_assert_uint_le(kafka->spare_bytes, CNK_KAFKA_SPARE_BYTES_MAX);
    for (size_t i = 0; i < kafka->spare_count; i++) ck_assert_uint_ge(kafka->spares[i]->capacity, 2000000);
    cnk_writer_free(&w);
    for (int i = 0; i < 5; i++) client_close(&more[i]);
    client_close(&c);
    ck_assert_uint_eq(kafka->spare_count, 0);
    ck_assert_uint_eq(kafka->spare_bytes, 0);
    kafka_close();
}
END_TEST

/* A client that sends faster than the WAL takes it: what waits for room is held within a limit, and then the client waits. */
START_TEST(one_peer_pins_no_more_than_its_share) {
    client c;
    cnk_writer w;
    kafka_open(NULL);
    client_open(&c, kafka);
    fake.wait = fake.data_needed = true;
    large_frame(&w, 300000, 1);
    const size_t begun = CNK_KAFKA_PINNED_BYTES_MAX / (w.len - 4) + 1;
    for (size_t i = 0; i <= begun; i++) /* one more is received, and does not begin */
        ck_assert_uint_eq(client_feed(&c, w.data, w.len, 0), w.len);
    ck_assert_uint_eq(fake.waiting_count, begun);
    ck_assert_uint_lt(client_feed(&c, w.data, w.len, 0), 2 * CNK_KAFKA_BACKLOG_MAX);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), 0);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), (begun + 1) * (w.len - 4));
    fake_complete(0);
    ck_assert_uint_eq(fake.waiting_count, begun);
    ck_assert_uint_ne(cnk_kafka_conn_wants(c.conn) & CNK_CONN_RECV, 0);
    /* what has found its room is held no longer, although it is not synced yet */
    for (size_t i = 0; i < begun; i++) fake_taken(i);
    ck_assert_uint_eq(fake.waiting_count, begun);
    const uint64_t held = cnk_kafka_reserved_bytes(kafka);
    ck_assert_uint_le(held, w.len); /* the one that has arrived in part */
    client_drain(&c, SIZE_MAX);
    cnk_writer_free(&w);
    client_close(&c);
    while (fake.waiting_count > 0) fake_complete(0);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0);
    kafka_close();
}
END_TEST

START_TEST(a_waiter_that_leaves_lets_the_next_one_in) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.frame_bytes_max = 1000100;
    options.produce_bytes_max = 1000100;
    client c[3];
    cnk_writer large, small;
    kafka_open(&options);
    large_frame(&large, 1000000, 1);
    large_frame(&small, 20000, 1);
    for (int i = 0; i < 3; i++) client_open(&c[i], kafka);
    ck_assert_uint_eq(client_feed(&c[0], small.data, 20, 0), 20); /* reserves 20,000 */
    ck_assert_uint_eq(client_feed(&c[1], large.data, 20, 0), 20); /* does not fit beside it */
    ck_assert_uint_eq(client_feed(&c[2], small.data, 20, 0), 20); /* would, but may not overtake */
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), small.len - 4);
    client_close(&c[1]);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 2 * (small.len - 4));
    ck_assert_int_eq(c[2].wakes, 1);
    client_close(&c[0]);
    client_close(&c[2]);
    cnk_writer_free(&large);
    cnk_writer_free(&small);
    kafka_close();
}
END_TEST

START_TEST(a_body_that_stops_is_closed) {
    client c, d;
    cnk_writer w;
    kafka_open(NULL);
    client_open(&c, kafka);
    client_open(&d, kafka);
    large_frame(&w, 100000, 1);
    client_feed(&c, w.data, 50, 0);
    fake_advance(UINT64_C(20000000000));
    client_feed(&d, w.data, 50, 0);
    client_feed(&c, w.data + 50, 50, 0); /* progress */
    fake_advance(UINT64_C(29000000000));
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_RECV);
    fake_advance(UINT64_C(2000000000)); /* 31 s after the last byte of each */
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_CLOSE);
    ck_assert_uint_eq(cnk_kafka_conn_wants(d.conn), CNK_CONN_CLOSE);
    ck_assert_int_eq(c.wakes, 1);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0);
    ck_assert_uint_eq(fake.timer_at, UINT64_MAX); /* idle again */
    client_close(&c);
    client_close(&d);
    cnk_writer_free(&w);
    kafka_close();
}
END_TEST

/* Who hardly sends may take his time, until others wait for the memory that he keeps. */
START_TEST(a_slow_body_goes_where_others_wait) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.frame_bytes_max = 1500000;
    options.produce_bytes_max = 1500000;
    client slow, fast, waiting;
    cnk_writer w;
    kafka_open(&options);
    large_frame(&w, 1000000, 1);
    client_open(&slow, kafka);
    client_open(&fast, kafka);
    client_open(&waiting, kafka);
    client_feed(&slow, w.data, 20, 0);
    for (size_t i = 0; i < 100; i++) { /* a byte a second, and nobody waits */
        fake_advance(UINT64_C(1000000000));
        client_feed(&slow, w.data + 20 + i, 1, 0);
    }
    ck_assert_uint_eq(cnk_kafka_conn_wants(slow.conn), CNK_CONN_RECV);
    client_feed(&fast, w.data, 20, 0);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), w.len - 4); /* waits */
    fake_advance(UINT64_C(1000000000));
    ck_assert_uint_eq(cnk_kafka_conn_wants(slow.conn), CNK_CONN_RECV);
    fake_advance(UINT64_C(1000000000) * CNK_KAFKA_CROWD_LOOK_MS / 1000);
    ck_assert_uint_eq(cnk_kafka_conn_wants(slow.conn), CNK_CONN_CLOSE);
    ck_assert_int_eq(fast.wakes, 1);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), w.len - 4);
    client_feed(&waiting, w.data, 20, 0);
    for (size_t at = 20; at + 100000 < w.len; at += 100000) { /* a megabyte in less than 30 s */
        fake_advance(UINT64_C(1000000000));
        ck_assert_uint_eq(client_feed(&fast, w.data + at, 100000, 0), 100000);
    }
    ck_assert_uint_eq(cnk_kafka_conn_wants(fast.conn), CNK_CONN_RECV);
    client_close(&fast);
    client_close(&slow);
    client_close(&waiting);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), 0);
    fake_advance(UINT64_C(10000000000));
    ck_assert_uint_eq(fake.timer_at, UINT64_MAX); /* idle again */
    cnk_writer_free(&w);
    kafka_close();
}
END_TEST

/* A whole frame that cannot begin, since its peer does not read, keeps memory too. */
START_TEST(a_held_frame_goes_where_others_wait) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.frame_bytes_max = 1500000;
    options.produce_bytes_max = 1500000;
    options.output_bytes_max = 1;
    client held, other;
    cnk_writer w;
    kafka_open(&options);
    large_frame(&w, 1000000, 1);
    client_open(&held, kafka);
    client_open(&other, kafka);
    cnk_api_versions_request v = {0};
    client_send(&held, CNK_KAFKA_API_API_VERSIONS, 0, 1, &v); /* its answer is not read */
    ck_assert_uint_eq(client_feed(&held, w.data, w.len, 0), w.len);
    ck_assert_uint_eq(fake.produced_parts, 0);
    ck_assert_uint_eq(client_feed(&other, w.data, 20, 0), 20);
    for (int i = 0; i < 20; i++) {
        fake_advance(UINT64_C(2000000000));
        if (i < 14) ck_assert_int_eq(other.wakes, 0); /* as long as its body might have taken */
    }
    ck_assert_int_eq(other.wakes, 1);
    ck_assert_uint_eq(cnk_kafka_reserved_bytes(kafka), w.len - 4);
    ck_assert_uint_eq(cnk_kafka_conn_wants(held.conn), CNK_CONN_SEND); /* the answer still goes out, then it closes */
    client_drain(&held, SIZE_MAX);
    ck_assert_uint_eq(cnk_kafka_conn_wants(held.conn), CNK_CONN_CLOSE);
    client_close(&held);
    client_close(&other);
    cnk_writer_free(&w);
    kafka_close();
}
END_TEST

/* The same for answers: a peer that hardly reads is closed only while fetches wait for the memory. */
START_TEST(a_slow_reader_goes_where_others_wait) {
    client slow, fast;
    kafka_open(NULL);
    client_open(&slow, kafka);
    client_open(&fast, kafka);
    fake.record_count = 40000;
    send_simple(&slow, CNK_KAFKA_API_FETCH, 4, 1);
    send_simple(&fast, CNK_KAFKA_API_FETCH, 4, 1);
    ck_assert_uint_gt(slow.conn->unsent, 10 * CNK_KAFKA_CROWD_ANSWER_BYTES);
    for (int i = 0; i < 100; i++) {
        fake_advance(UINT64_C(1000000000));
        cnk_kafka_conn_sent(slow.conn, 1);
    }
    ck_assert_uint_eq(fake.timer_at, UINT64_MAX); /* nobody looks */
    ck_assert_uint_eq(cnk_kafka_conn_wants(slow.conn) & CNK_CONN_CLOSE, 0);
    fake.reads_wait = true;
    cnk_kafka_crowded(kafka);
    const uint64_t all = fast.conn->unsent;
    for (int i = 0; i < 4; i++) {
        fake_advance(CNK_KAFKA_CROWD_LOOK_MS * UINT64_C(1000000));
        cnk_kafka_conn_sent(slow.conn, 1);
        cnk_kafka_conn_sent(fast.conn, all / 10);
        if (cnk_kafka_conn_wants(slow.conn) & CNK_CONN_CLOSE) break;
    }
    ck_assert_uint_eq(cnk_kafka_conn_wants(slow.conn), CNK_CONN_CLOSE); /* at once, the rest of its answer unsent */
    ck_assert_uint_eq(cnk_kafka_conn_wants(fast.conn) & CNK_CONN_CLOSE, 0);
    client_close(&slow);
    client_drain(&fast, SIZE_MAX);
    fake.reads_wait = false;
    fake_advance(CNK_KAFKA_CROWD_LOOK_MS * UINT64_C(1000000));
    fake_advance(CNK_KAFKA_CROWD_LOOK_MS * UINT64_C(1000000));
    ck_assert_uint_eq(fake.timer_at, UINT64_MAX);
    client_close(&fast);
    kafka_close();
}
END_TEST

/* A thousand requests in one piece: some are answered, then others have their turn; all are, in order, and none is read
 * ahead of by much. */
START_TEST(a_turn_ends_after_some_requests) {
    enum { REQUESTS = 1000 };
    client c;
    cnk_writer one, all;
    cnk_reader body;
    cnk_api_versions_request v = {0};
    kafka_open(NULL);
    client_open(&c, kafka);
    cnk_writer_growing(&all, 0);
    for (int i = 0; i < REQUESTS; i++) {
        client_frame(&one, CNK_KAFKA_API_API_VERSIONS, 0, i, &v);
        cnk_write_bytes(&all, one.data, one.len);
        cnk_writer_free(&one);
    }
    size_t fed = 0;
    int answers = 0, turns = 0;
    while (answers < REQUESTS) {
        cnk_kafka_conn_turn(c.conn);
        fed += client_feed(&c, all.data + fed, all.len - fed, 0);
        client_drain(&c, SIZE_MAX);
        int before = answers;
        while (client_next(&c, &body) >= 0) answers++;
        ck_assert_int_le(answers - before, CNK_KAFKA_TURN_REQUESTS);
        if (answers < REQUESTS) ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_TURN);
        turns++;
    }
    ck_assert_int_eq(turns, (REQUESTS + CNK_KAFKA_TURN_REQUESTS - 1) / CNK_KAFKA_TURN_REQUESTS);
    cnk_kafka_conn_turn(c.conn);
    ck_assert_uint_eq(cnk_kafka_conn_wants(c.conn), CNK_CONN_RECV);
    client_close(&c);
    cnk_writer_free(&all);
    kafka_close();
}
END_TEST

/* Those whose turns are over share what one of them would have had; whoever leaves leaves his share to the others. */
START_TEST(a_turn_is_shared) {
    enum { PEERS = 20, REQUESTS = 40 };
    static client c[PEERS];
    cnk_writer one, all;
    cnk_reader body;
    cnk_api_versions_request v = {0};
    kafka_open(NULL);
    cnk_writer_growing(&all, 0);
    for (int i = 0; i < REQUESTS; i++) {
        client_frame(&one, CNK_KAFKA_API_API_VERSIONS, 0, i, &v);
        cnk_write_bytes(&all, one.data, one.len);
        cnk_writer_free(&one);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < PEERS; i++) {
            client_open(&c[i], kafka);
            cnk_kafka_conn_turn(c[i].conn);
            ck_assert_uint_gt(client_feed(&c[i], all.data, all.len, 0), 0);
            client_drain(&c[i], SIZE_MAX);
            int answers = 0, share = CNK_KAFKA_TURN_REQUESTS / (i + 1);
            while (client_next(&c[i], &body) >= 0) answers++;
            ck_assert_int_eq(answers, share < CNK_KAFKA_TURN_REQUESTS_MIN ? CNK_KAFKA_TURN_REQUESTS_MIN : share);
            ck_assert_uint_eq(cnk_kafka_conn_wants(c[i].conn), CNK_CONN_TURN);
        }
        for (int i = 0; i < PEERS; i++) client_close(&c[i]);
    }
    cnk_writer_free(&all);
    kafka_close();
}
END_TEST

/* What comes behind a request that waits is kept, but not for any number of peers. */
START_TEST(large_backlogs_are_bounded_together) {
    enum { CONNECTIONS = 400, BEHIND = 200000 };
    static client c[CONNECTIONS];
    cnk_writer w;
    cnk_api_versions_request v = {0};
    kafka_open(NULL);
    fake.wait = true;
    char *rest = calloc(1, BEHIND);
    int closed = 0;
    for (int i = 0; i < CONNECTIONS; i++) {
        client_open(&c[i], kafka);
        client_frame(&w, CNK_KAFKA_API_API_VERSIONS, 0, 1, &v);
        for (size_t at = 0; at + w.len <= BEHIND; at += w.len) memcpy(rest + at, w.data, w.len);
        send_simple(&c[i], CNK_KAFKA_API_FETCH, 4, 1);
        client_feed(&c[i], rest, BEHIND / w.len * w.len, 0);
        cnk_writer_free(&w);
        closed += c[i].conn->must_close;
        ck_assert_uint_le(kafka->backlog_bytes, CNK_KAFKA_BACKLOGS_BYTES_MAX);
    }
    ck_assert_int_gt(closed, CONNECTIONS / 10);
    ck_assert_int_lt(closed, CONNECTIONS / 2);
    for (int i = 0; i < CONNECTIONS; i++) client_close(&c[i]);
    while (fake.waiting_count > 0) fake_complete(0);
    ck_assert_uint_eq(kafka->backlog_bytes, 0);
    free(rest);
    kafka_close();
}
END_TEST

/* 100 times the budget goes through, with every way out: answered, failed, refused, closed in the body, closed while it
 * waits, timed out. What is reserved at the end is what was reserved at the beginning. */
START_TEST(nothing_leaks_from_the_budget) {
    enum { CONNECTIONS = 4, LIMIT = 1 << 20 };
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.frame_bytes_max = LIMIT;
    options.produce_bytes_max = options.control_bytes_max = LIMIT;
    client c[CONNECTIONS];
    cnk_rng rng;
    uint64_t through = 0;
    cnk_rng_seed(&rng, seed);
    kafka_open(&options);
    for (int i = 0; i < CONNECTIONS; i++) client_open(&c[i], kafka);
    while (through < 100u * LIMIT) {
        client *one = &c[cnk_rng_below(&rng, CONNECTIONS)];
        cnk_writer w;
        large_frame(&w, (size_t)cnk_rng_between(&rng, 20000, 600000), 1);
        if (cnk_rng_chance(&rng, 1, 4))
            cnk_store_be16(w.data + 4, 3); /* as Metadata: malformed, and of the other budget */
        fake.wait = cnk_rng_chance(&rng, 1, 3);
        fake.data_needed = cnk_rng_chance(&rng, 1, 2);
        fake.start_error = cnk_rng_chance(&rng, 1, 5) ? CHRONIK_EAGAIN : 0;
        fake.part_error = cnk_rng_chance(&rng, 1, 5) ? CHRONIK_ESTORAGE : 0;
        const size_t want = cnk_rng_chance(&rng, 1, 4) ? (size_t)cnk_rng_below(&rng, w.len) : w.len;
        through += client_feed(one, w.data, want, 0);
        cnk_writer_free(&w);
        while (fake.waiting_count > 0 && cnk_rng_chance(&rng, 2, 3)) fake_complete(0);
        if (cnk_rng_chance(&rng, 1, 50)) fake_advance(UINT64_C(31000000000));
        one->in_len = 0;
        client_drain(one, SIZE_MAX);
        const bool broken = want < 600000 && cnk_rng_chance(&rng, 1, 3);
        if (broken || (cnk_kafka_conn_wants(one->conn) & (CNK_CONN_CLOSE | CNK_CONN_RECV)) != CNK_CONN_RECV) {
            client_close(one);
            client_open(one, kafka);
        }
        ck_assert_uint_le(cnk_kafka_reserved_bytes(kafka), 2u * LIMIT);
    }
    for (int i = 0; i < CONNECTIONS; i++) client_close(&c[i]);
    while (fake.waiting_count > 0) fake_complete(0);
    kafka_close(); /* nothing is reserved */
}
END_TEST

START_TEST(unread_answers_hold_requests_back) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.output_bytes_max = 1000;
    client c;
    cnk_writer w;
    cnk_reader body;
    kafka_open(&options);
    client_open(&c, kafka);
    cnk_metadata_request m;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &m);
    m.topics.count = -1;
    client_frame(&w, CNK_KAFKA_API_METADATA, 9, 5, &m);
    int fed = 0;
    while (fed < 100000 && client_feed(&c, w.data, w.len, 0) == w.len) fed++;
    ck_assert_int_lt(fed, 2000); /* the backlog's limit */
    struct iovec iov[1];
    size_t waiting = 0;
    ck_assert_int_eq(cnk_kafka_conn_send(c.conn, iov, 1), 1);
    waiting = iov[0].iov_len;
    ck_assert_uint_lt(waiting, 2000);
    int answers = 0;
    client_drain(&c, 100);
    while (client_next(&c, &body) == 5) answers++;
    ck_assert_int_ge(answers, fed); /* all that came whole are answered as the output drains */
    client_close(&c);
    cnk_writer_free(&w);
    kafka_close();
}
END_TEST

/* ---- everything at once ----------------------------------------------------------------------------------------- */

typedef struct sent { int32_t correlation; int16_t key; int version; bool quiet; } sent;

static void add_random_request(cnk_rng *rng, cnk_arena *arena, cnk_writer *w, sent *s, int32_t correlation) {
    const cnk_kafka_api *api = &cnk_kafka_apis[cnk_rng_below(rng, cnk_kafka_api_count)];
    if (cnk_rng_chance(rng, 1, 2)) api = cnk_kafka_api_find(CNK_KAFKA_API_PRODUCE);
    uint8_t message[512];
    const int version = (int)cnk_rng_between(rng, api->version_min, api->version_max);
    random_struct(rng, arena, api->request->root, version, message);
    s->quiet = false;
    if (api->key == CNK_KAFKA_API_PRODUCE) {
        cnk_produce_request *p = (void *)message;
        p->transactional_id.len = -1;
        p->acks = cnk_rng_chance(rng, 1, 10) ? 0 : -1;
        if (version < 3) p->acks = 1; /* a refusal of acks=0 would close */
        if (p->acks == 0) p->topic_data.count = 0;
        s->quiet = p->acks == 0;
    }
    cnk_writer one;
    client_frame(&one, api->key, version, correlation, message);
    cnk_write_bytes(w, one.data, one.len);
    cnk_writer_free(&one);
    s->correlation = correlation;
    s->key = api->key;
    s->version = version;
}

static void run_random(uint64_t run_seed) {
    static sent requests[400];
    cnk_rng rng;
    cnk_rng_seed(&rng, run_seed);
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.chunk_bytes = 4096u << cnk_rng_below(&rng, 4);
    options.output_bytes_max = cnk_rng_chance(&rng, 1, 2) ? 3000 : 1u << 20;
    options.pipelined_max = cnk_rng_chance(&rng, 1, 2) ? 3 : 256;
    client c;
    cnk_arena arena;
    cnk_writer w;
    kafka_open(&options);
    client_open(&c, kafka);
    cnk_arena_init(&arena, 4096, 0);
    cnk_writer_growing(&w, 0);
    fake.data_needed = cnk_rng_chance(&rng, 1, 2);
    fake.record_count = (size_t)cnk_rng_below(&rng, 40);
    const int count = 1 + (int)cnk_rng_below(&rng, 400);
    for (int i = 0; i < count; i++) add_random_request(&rng, &arena, &w, &requests[i], i);
    size_t fed = 0;
    int next = 0;
    for (int rounds = 0; next < count; rounds++) {
        ck_assert_int_lt(rounds, 1000000);
        ck_assert(!(cnk_kafka_conn_wants(c.conn) & CNK_CONN_CLOSE));
        fake.wait = cnk_rng_chance(&rng, 2, 3);
        const size_t want = (size_t)cnk_rng_below(&rng, cnk_rng_chance(&rng, 1, 4) ? 20000 : 300);
        if (fed < w.len) fed += client_feed(&c, w.data + fed, want < w.len - fed ? want : w.len - fed, 1 + want / 3);
        while (fake.waiting_count > 0 && cnk_rng_chance(&rng, 2, 3))
            fake_complete((size_t)cnk_rng_below(&rng, fake.waiting_count));
        if (cnk_rng_chance(&rng, 1, 2)) client_drain(&c, 1 + (size_t)cnk_rng_below(&rng, 500));
        cnk_reader body;
        while (next < count && requests[next].quiet) next++;
        for (int64_t got; next < count && (got = client_next(&c, &body)) >= 0;) {
            uint8_t out[512];
            ck_assert_int_eq(got, requests[next].correlation);
            ck_assert(client_decode(&c, requests[next].key, requests[next].version, &body, out));
            do next++;
            while (next < count && requests[next].quiet);
        }
        if (c.in_at > CLIENT_IN_MAX / 2) {
            memmove(c.in, c.in + c.in_at, c.in_len - c.in_at);
            c.in_len -= c.in_at;
            c.in_at = 0;
        }
        cnk_arena_reset(&c.arena);
    }
    client_close(&c);
    fake.wait = false;
    while (fake.waiting_count > 0) fake_complete(0);
    cnk_writer_free(&w);
    cnk_arena_free(&arena);
    kafka_close();
}

START_TEST(random_traffic) {
    const int runs = getenv("CHRONIK_TEST_RUNS") ? atoi(getenv("CHRONIK_TEST_RUNS")) : 60;
    for (int i = 0; i < runs; i++) run_random(seed * 1000003u + (uint64_t)i);
}
END_TEST

/* Closed in the middle of random traffic: nothing is left. */
START_TEST(random_close) {
    for (uint64_t i = 0; i < 60; i++) {
        static sent one;
        cnk_rng rng;
        client c;
        cnk_arena arena;
        cnk_writer w;
        cnk_rng_seed(&rng, seed * 7919u + i);
        kafka_open(NULL);
        client_open(&c, kafka);
        cnk_arena_init(&arena, 4096, 0);
        cnk_writer_growing(&w, 0);
        for (int n = 0; n < 50; n++) add_random_request(&rng, &arena, &w, &one, n);
        fake.data_needed = cnk_rng_chance(&rng, 1, 2);
        const size_t want = (size_t)cnk_rng_below(&rng, w.len);
        for (size_t fed = 0, n = 1; fed < want && n > 0; fed += n) {
            fake.wait = cnk_rng_chance(&rng, 1, 2);
            n = client_feed(&c, w.data + fed, (want - fed) / 3 + 1, 0);
            if (fake.waiting_count && cnk_rng_chance(&rng, 1, 2)) fake_complete(0);
            if (cnk_rng_chance(&rng, 1, 2)) client_drain(&c, 200);
        }
        client_close(&c);
        while (fake.waiting_count > 0) fake_complete(0);
        cnk_writer_free(&w);
        cnk_arena_free(&arena);
        kafka_close();
    }
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* The same traffic with each allocation failing in turn: answered in order or closed, never worse; nothing is left. */
static long traffic_with_failure(long fail_at) {
    static const int16_t keys[] = {18, 3, 0, 0, 1, 2, 19, 20, 22, 32, 60, 10, 0, 1};
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    cnk_writer w[sizeof keys / sizeof *keys];
    cnk_rng rng;
    cnk_arena arena;
    client c;
    cnk_reader body;
    options.chunk_bytes = 4096;
    options.rack = "r1";
    cnk_rng_seed(&rng, 5);
    cnk_arena_init(&arena, 4096, 0);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t message[64];
        const cnk_kafka_api *api = cnk_kafka_api_find(keys[i]);
        random_struct(&rng, &arena, api->request->root, api->version_max, (uint8_t *)message);
        if (keys[i] == 0) {
            ((cnk_produce_request *)message)->transactional_id.len = -1;
            ((cnk_produce_request *)message)->acks = 1;
        }
        client_frame(&w[i], keys[i], api->version_max, (int32_t)i, message);
    }
    fake_reset();
    fake.data_needed = true;
    const long before = cnk_mem_count();
    cnk_mem_fail_at(fail_at);
    if (cnk_kafka_new((cnk_shard *)&fake, &options, &kafka) == 0) {
        memset(&c, 0, sizeof c);
        cnk_arena_init(&c.arena, 4096, 0);
        if (cnk_kafka_conn_new(kafka, "x", NULL, NULL, NULL, NULL, &c.conn) == 0) {
            for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
                fake.wait = i % 3 == 0;
                size_t fed = 0;
                for (int tries = 0; tries < 5 && fed < w[i].len; tries++) /* no memory now: the socket is tried again */
                    fed += client_feed(&c, w[i].data + fed, w[i].len - fed, 700);
                while (i % 3 != 0 && fake.waiting_count > 0) fake_complete(0);
            }
            while (fake.waiting_count > 0) fake_complete(0);
            client_drain(&c, SIZE_MAX);
            const bool closes = (cnk_kafka_conn_wants(c.conn) & CNK_CONN_CLOSE) != 0;
            int answers = 0;
            for (int64_t got; (got = client_next(&c, &body)) >= 0; answers++) ck_assert_int_eq(got, answers);
            ck_assert(closes || answers == (int)(sizeof keys / sizeof *keys));
            client_close(&c);
        }
        kafka_close();
    }
    cnk_mem_fail_at(-1);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) cnk_writer_free(&w[i]);
    cnk_arena_free(&arena);
    return cnk_mem_count() - before;
}

START_TEST(each_allocation_fails) {
    const long all = traffic_with_failure(-1);
    ck_assert_int_gt(all, 20);
    for (long n = 0; n < all; n++) (void)traffic_with_failure(n);
}
END_TEST
#endif

int main(void) {
    if (getenv("CHRONIK_TEST_SEED")) seed = strtoull(getenv("CHRONIK_TEST_SEED"), NULL, 10);
    Suite *s = suite_create("kafka_conn");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, every_cut_of_a_frame);
    tcase_add_test(t, frames_that_close);
    tcase_add_test(t, requests_are_counted);
    tcase_add_test(t, api_versions_of_an_unknown_version);
    tcase_add_test(t, produce_overlaps_and_answers_keep_the_order);
    tcase_add_test(t, fetch_waits_alone_and_close_cancels_it);
    tcase_add_test(t, close_with_everything_under_way);
    tcase_add_test(t, acks_zero);
    tcase_add_test(t, pinned_data_stays);
    tcase_add_test(t, large_frames_wait_for_the_budget_in_turn);
    tcase_add_test(t, buffers_of_large_frames_are_kept_within_limits);
    tcase_add_test(t, one_peer_pins_no_more_than_its_share);
    tcase_add_test(t, a_waiter_that_leaves_lets_the_next_one_in);
    tcase_add_test(t, a_body_that_stops_is_closed);
    tcase_add_test(t, a_turn_ends_after_some_requests);
    tcase_add_test(t, a_turn_is_shared);
    tcase_add_test(t, large_backlogs_are_bounded_together);
    tcase_add_test(t, a_slow_body_goes_where_others_wait);
    tcase_add_test(t, a_held_frame_goes_where_others_wait);
    tcase_add_test(t, a_slow_reader_goes_where_others_wait);
    tcase_add_test(t, nothing_leaks_from_the_budget);
    tcase_add_test(t, unread_answers_hold_requests_back);
    tcase_add_test(t, random_traffic);
    tcase_add_test(t, random_close);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_fails);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
