/* What each handler answers, above all where something is wrong. On a fake broker; what the broker decides itself is
 * tested with it. */
#include <check.h>

#include "kafka_client.h"
#include "kafka_fake_broker.h"

static cnk_kafka *kafka;
static client c;

static void setup(void) {
    const cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    fake_reset();
    ck_assert_int_eq(cnk_kafka_new((cnk_shard *)&fake, &options, &kafka), 0);
    client_open(&c, kafka);
}

static void teardown(void) {
    client_close(&c);
    ck_assert_uint_eq(cnk_kafka_conn_count(kafka), 0);
    ck_assert_uint_eq(fake.fetches_open, 0);
    ck_assert(cnk_kafka_quiesce(kafka));
    cnk_kafka_free(kafka);
}

static bool is_text(cnk_kafka_string s, const char *text) {
    return s.len == (int32_t)strlen(text) && memcmp(s.data, text, strlen(text)) == 0;
}

#define CALL(KEY, version, in, out) ck_assert(client_call(&c, CNK_KAFKA_API_##KEY, version, in, out))

/* ---- ApiVersions ------------------------------------------------------------------------------------------------ */

START_TEST(api_versions) {
    for (int version = 0; version <= 4; version++) {
        cnk_api_versions_request in = {CNK_KAFKA_STRING("test-client"), CNK_KAFKA_STRING("1.0.0-x")};
        cnk_api_versions_response out;
        CALL(API_VERSIONS, version, &in, &out);
        ck_assert_int_eq(out.error_code, 0);
        ck_assert_int_eq(out.api_keys.count, (int)cnk_kafka_api_count);
        ck_assert_int_eq(out.finalized_features_epoch, version >= 3 ? 42 : -1);
        for (int32_t i = 0; i < out.api_keys.count; i++)
            if (out.api_keys.items[i].api_key == 0) ck_assert_int_eq(out.api_keys.items[i].min_version, 0);
    }
    const cnk_kafka_string bad[] = {CNK_KAFKA_STRING(""), CNK_KAFKA_STRING("-x"), CNK_KAFKA_STRING("x."),
                                    CNK_KAFKA_STRING("a b")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cnk_api_versions_request in = {bad[i], CNK_KAFKA_STRING("1")};
        cnk_api_versions_response out;
        CALL(API_VERSIONS, 3, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_int_eq(out.api_keys.count, 0);
    }
}
END_TEST

/* ---- Metadata --------------------------------------------------------------------------------------------------- */

static void metadata(int version, cnk_metadata_request_metadata_request_topic *topics, int32_t count, bool create,
                     cnk_metadata_response *out) {
    cnk_metadata_request in;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &in);
    in.topics.items = topics;
    in.topics.count = count;
    if (version >= 4) in.allow_auto_topic_creation = create;
    if (version >= 8) in.include_topic_authorized_operations = true;
    CALL(METADATA, version, &in, out);
}

START_TEST(metadata_all_and_none) {
    for (int version = 0; version <= 13; version++) {
        cnk_metadata_response out;
        metadata(version, NULL, version == 0 ? 0 : -1, true, &out);
        ck_assert_int_eq(out.topics.count, 2);
        ck_assert_int_eq(out.brokers.count, 1);
        ck_assert_int_eq(out.brokers.items[0].node_id, 7);
        ck_assert(is_text(out.brokers.items[0].host, "127.0.0.1")); /* the accepted socket's own (K10) */
        ck_assert_int_eq(out.brokers.items[0].port, 9092);
        if (version >= 1) ck_assert_int_eq(out.controller_id, 7);
        const cnk_metadata_response_metadata_response_topic *a = &out.topics.items[0], *b = &out.topics.items[1];
        ck_assert(is_text(a->name, "a"));
        ck_assert_int_eq(a->partitions.count, 3);
        ck_assert_int_eq(a->partitions.items[2].partition_index, 2);
        ck_assert_int_eq(a->partitions.items[2].leader_id, 7);
        if (version >= 7) ck_assert_int_eq(a->partitions.items[2].leader_epoch, 5);
        ck_assert_int_eq(a->partitions.items[2].replica_nodes.count, 1);
        ck_assert_int_eq(b->partitions.items[0].error_code, CNK_KAFKA_LEADER_NOT_AVAILABLE);
        ck_assert_int_eq(b->partitions.items[0].leader_id, -1);
        ck_assert_int_eq(a->topic_authorized_operations, version >= 8 ? 3576 : INT32_MIN);
        ck_assert_int_eq(cnk_uuid_is_zero(&a->topic_id), version < 10);
        if (version == 0) continue;
        metadata(version, NULL, 0, true, &out);
        ck_assert_int_eq(out.topics.count, 0);
    }
}
END_TEST

START_TEST(metadata_by_name) {
    cnk_metadata_response out;
    cnk_metadata_request_metadata_request_topic topics[] = {
        {{{0}}, CNK_KAFKA_STRING("b")}, {{{0}}, CNK_KAFKA_STRING("nope")}, {{{0}}, CNK_KAFKA_STRING("bad/name")},
        {{{0}}, CNK_KAFKA_STRING("b")}, {{{0}}, CNK_KAFKA_STRING("")}};
    metadata(5, topics, 5, false, &out);
    ck_assert_int_eq(out.topics.count, 4); /* each once */
    ck_assert_int_eq(out.topics.items[0].error_code, 0);
    ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(out.topics.items[2].error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
    ck_assert_int_eq(out.topics.items[3].error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
    /* creation is asked for, for good names only, and its failure told */
    fake.part_error = CHRONIK_EINVALIDREPLICATION;
    metadata(5, topics, 5, true, &out);
    ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_INVALID_REPLICATION_FACTOR);
    ck_assert_int_eq(out.topics.items[2].error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
    /* versions below 4 always ask for it */
    metadata(3, topics, 5, false, &out);
    ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_INVALID_REPLICATION_FACTOR);
    fake.options.auto_create_topics = false;
    metadata(5, topics, 5, true, &out);
    ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
}
END_TEST

START_TEST(metadata_waits_for_creation) {
    cnk_metadata_request in;
    cnk_reader body;
    cnk_metadata_response out;
    cnk_metadata_request_metadata_request_topic topic = {{{0}}, CNK_KAFKA_STRING("new")};
    cnk_kafka_defaults(cnk_metadata_request_message.root, &in);
    in.topics.items = &topic;
    in.topics.count = 1;
    fake.wait = true;
    client_send(&c, CNK_KAFKA_API_METADATA, 12, 5, &in);
    ck_assert_uint_eq(fake.waiting_count, 1);
    ck_assert(((cnk_create_topics *)fake.waiting[0].op)->automatic);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), -1);
    fake_complete(0);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 5);
    ck_assert(client_decode(&c, CNK_KAFKA_API_METADATA, 12, &body, &out));
    ck_assert_int_eq(out.topics.count, 1);
}
END_TEST

START_TEST(metadata_by_id) {
    cnk_metadata_response out;
    cnk_metadata_request_metadata_request_topic topics[2] = {{{{0}}, CNK_KAFKA_STRING_NULL},
                                                             {{{0}}, CNK_KAFKA_STRING_NULL}};
    topics[0].topic_id = fake.topics[0].id;
    memset(topics[1].topic_id.bytes, 0x55, 16);
    metadata(12, topics, 2, false, &out);
    ck_assert_int_eq(out.topics.count, 2);
    ck_assert(is_text(out.topics.items[0].name, "a"));
    ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_ID);
    ck_assert_int_eq(out.topics.items[1].name.len, -1);
    ck_assert(cnk_uuid_equal(&out.topics.items[1].topic_id, &topics[1].topic_id));
    /* not below version 12 */
    metadata(10, topics, 1, false, &out);
    ck_assert_int_eq(out.topics.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
    ck_assert_int_eq(out.topics.items[0].name.len, 0);
}
END_TEST

/* ---- Produce ---------------------------------------------------------------------------------------------------- */

static cnk_produce_response_partition_produce_response produce(int version, cnk_produce_request *in) {
    cnk_produce_response out;
    CALL(PRODUCE, version, in, &out);
    ck_assert_int_eq(out.responses.count, 1);
    ck_assert_int_eq(out.responses.items[0].partition_responses.count, 1);
    return out.responses.items[0].partition_responses.items[0];
}

START_TEST(produce_answers) {
    produce_one p;
    cnk_produce_response_partition_produce_response out;
    for (int version = 0; version <= 13; version++) {
        out = produce(version, produce_of(&p, version, 2, -1, "data", 4));
        ck_assert_int_eq(out.error_code, 0);
        ck_assert_int_eq(out.index, 2);
        ck_assert_int_eq(out.base_offset, version);
    }
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 3, -1, "data", 4)).error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    memset(p.topic.topic_id.bytes, 0x77, 16);
    produce_of(&p, 13, 0, -1, "data", 4);
    memset(p.topic.topic_id.bytes, 0x77, 16);
    ck_assert_int_eq(produce(13, &p.m).error_code, CNK_KAFKA_UNKNOWN_TOPIC_ID);
    fake.part_error = CHRONIK_EINTERNAL;
    out = produce(9, produce_of(&p, 9, 0, -1, "data", 4));
    ck_assert_int_eq(out.error_code, CNK_KAFKA_UNKNOWN_SERVER_ERROR);
    ck_assert_int_eq(out.base_offset, -1);
    fake.part_error = CHRONIK_ESTORAGE; /* KIP-112 */
    ck_assert_int_eq(produce(3, produce_of(&p, 3, 0, -1, "data", 4)).error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(produce(4, produce_of(&p, 4, 0, -1, "data", 4)).error_code, CNK_KAFKA_KAFKA_STORAGE_ERROR);
    fake.part_error = CHRONIK_EUNSUPPORTEDFORMAT;
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 0, -1, "data", 4)).error_code, CNK_KAFKA_INVALID_RECORD);
    fake.part_error = 0;
    fake.start_error = CHRONIK_EAGAIN;
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 0, -1, "data", 4)).error_code, CNK_KAFKA_REQUEST_TIMED_OUT);
}
END_TEST

START_TEST(produce_refused) {
    produce_one p;
    uint8_t batch[61] = {[16] = 2, [22] = 0x10};
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 0, 2, "data", 4)).error_code, CNK_KAFKA_INVALID_REQUIRED_ACKS);
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 9, -2, "data", 4)).error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(produce(9, produce_of(&p, 9, 0, -1, batch, sizeof batch)).error_code,
                     CNK_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    produce_of(&p, 9, 0, -1, "data", 4);
    p.m.transactional_id = CNK_KAFKA_STRING("tx");
    const cnk_produce_response_partition_produce_response out = produce(9, &p.m);
    ck_assert_int_eq(out.error_code, CNK_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    ck_assert_int_gt(out.error_message.len, 0);
    ck_assert_uint_eq(fake.produced_parts, 0);
}
END_TEST

START_TEST(produce_tells_the_leader) { /* KIP-951 */
    cnk_produce_response out;
    produce_one p;
    produce_of(&p, 10, 0, -1, "data", 4);
    p.topic.name = CNK_KAFKA_STRING("b");
    CALL(PRODUCE, 10, &p.m, &out);
    ck_assert_int_eq(out.responses.items[0].partition_responses.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
    ck_assert_int_eq(out.responses.items[0].partition_responses.items[0].current_leader.leader_id, 7);
    ck_assert_int_eq(out.node_endpoints.count, 1);
    ck_assert_int_eq(out.node_endpoints.items[0].port, 9092);
    CALL(PRODUCE, 9, &p.m, &out);
    ck_assert_int_eq(out.node_endpoints.count, 0);
}
END_TEST

/* ---- Fetch ------------------------------------------------------------------------------------------------------ */

typedef struct fetch_one {
    cnk_fetch_request m;
    cnk_fetch_request_fetch_topic topic;
    cnk_fetch_request_fetch_partition part;
} fetch_one;

static cnk_fetch_request *fetch_of(fetch_one *f, int version, int32_t partition) {
    cnk_kafka_defaults(cnk_fetch_request_message.root, &f->m);
    memset(&f->topic, 0, sizeof f->topic);
    f->part = (cnk_fetch_request_fetch_partition){.partition = partition, .current_leader_epoch = -1,
                                                  .last_fetched_epoch = -1, .log_start_offset = -1,
                                                  .partition_max_bytes = 1000, .high_watermark = INT64_MAX};
    if (version < 13) f->topic.topic = CNK_KAFKA_STRING("a");
    else f->topic.topic_id = fake.topics[0].id;
    f->topic.partitions.items = &f->part;
    f->topic.partitions.count = 1;
    f->m.topics.items = &f->topic;
    f->m.topics.count = 1;
    f->m.max_wait_ms = 100;
    f->m.min_bytes = 1;
    return &f->m;
}

START_TEST(fetch_answers) {
    fetch_one f;
    cnk_fetch_response out;
    for (int version = 0; version <= 18; version++) {
        fake.record_count = (size_t)version + 1;
        CALL(FETCH, version, fetch_of(&f, version, 1), &out);
        ck_assert_int_eq(out.error_code, 0);
        ck_assert_int_eq(out.session_id, 0);
        ck_assert_int_eq(out.responses.count, 1);
        const cnk_fetch_response_partition_data *p = &out.responses.items[0].partitions.items[0];
        ck_assert_int_eq(p->error_code, 0);
        ck_assert_int_eq(p->partition_index, 1);
        ck_assert_int_eq(p->high_watermark, 100);
        ck_assert_int_eq(p->records.len, 61 * (version + 1));
        ck_assert_int_eq(fake.fetch_format, version < 2   ? CNK_FETCH_FORMAT_0
                                            : version < 4 ? CNK_FETCH_FORMAT_1
                                                          : CNK_FETCH_AS_STORED);
        ck_assert_int_eq(fake.fetch_no_zstd, version < 10);
        ck_assert_int_eq(memcmp(p->records.data + p->records.len - 61, fake_record, 61), 0);
        if (version >= 4) ck_assert_int_eq(p->aborted_transactions.count, -1);
        CALL(FETCH, version, fetch_of(&f, version, 9), &out);
        ck_assert_int_eq(out.responses.items[0].partitions.items[0].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
    fetch_of(&f, 13, 0);
    memset(f.topic.topic_id.bytes, 0x66, 16);
    CALL(FETCH, 13, &f.m, &out);
    ck_assert_int_eq(out.responses.items[0].partitions.items[0].error_code, CNK_KAFKA_UNKNOWN_TOPIC_ID);
}
END_TEST


/* A fetch without a session begins where the one before it on its connection had no more room. */
START_TEST(fetches_go_round) {
    fetch_one f;
    cnk_fetch_response out;
    cnk_fetch_request_fetch_partition parts[3];
    static const size_t nexts[] = {2, 0, 4, 3, 1, 5}, firsts[] = {0, 2, 0, 1, 0, 1};
    fake.record_count = 1;
    fetch_of(&f, 11, 0);
    for (int i = 0; i < 3; i++) {
        parts[i] = f.part;
        parts[i].partition = i;
    }
    f.topic.partitions.items = parts;
    f.topic.partitions.count = 3;
    for (size_t i = 0; i < sizeof nexts / sizeof nexts[0]; i++) {
        fake.fetch_next = nexts[i];
        CALL(FETCH, 11, &f.m, &out);
        ck_assert_uint_eq(fake.fetch_first, firsts[i]);
        ck_assert_int_eq(out.responses.items[0].partitions.count, 3);
    }
}
END_TEST

START_TEST(fetch_odd_requests) {
    fetch_one f;
    cnk_fetch_response out;
    fetch_of(&f, 11, 0);
    f.m.replica_id = 3;
    CALL(FETCH, 11, &f.m, &out);
    ck_assert_int_eq(out.responses.items[0].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
    fetch_of(&f, 17, 0);
    f.m.replica_state.replica_id = 3;
    CALL(FETCH, 17, &f.m, &out);
    ck_assert_int_eq(out.responses.items[0].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
    fetch_of(&f, 11, 0);
    f.m.isolation_level = 2;
    CALL(FETCH, 11, &f.m, &out);
    ck_assert_int_eq(out.error_code, CNK_KAFKA_UNKNOWN_SERVER_ERROR);
    fetch_of(&f, 11, 0);
    f.m.isolation_level = 1;
    f.m.max_wait_ms = f.m.min_bytes = f.m.max_bytes = f.part.partition_max_bytes = -5;
    CALL(FETCH, 11, &f.m, &out);
    ck_assert_int_eq(out.error_code, 0);
    ck_assert_int_eq(out.responses.items[0].partitions.items[0].aborted_transactions.count, 0);
    fetch_of(&f, 11, 0);
    f.m.topics.count = 0;
    CALL(FETCH, 11, &f.m, &out);
    ck_assert_int_eq(out.responses.count, 0);
}
END_TEST

/* ---- ListOffsets ------------------------------------------------------------------------------------------------ */

static cnk_list_offsets_response_list_offsets_partition_response list(int version, int32_t partition,
                                                                      int64_t timestamp) {
    cnk_list_offsets_request_list_offsets_partition part = {partition, -1, timestamp, 1};
    cnk_list_offsets_request_list_offsets_topic topic = {CNK_KAFKA_STRING("a"), {&part, 1}};
    cnk_list_offsets_request in = {.replica_id = -1, .topics = {&topic, 1}};
    cnk_list_offsets_response out;
    CALL(LIST_OFFSETS, version, &in, &out);
    ck_assert_int_eq(out.topics.count, 1);
    return out.topics.items[0].partitions.items[0];
}

START_TEST(list_offsets_versions) {
    for (int version = 1; version <= 11; version++) {
        const struct {
            int64_t timestamp;
            int from;
        } special[] = {
            {-1, 1},        {-2, 1}, {-3, 7}, {-4, 8}, {-5, 9}, {-6, 11}, {-7, 99}, {0, 0}, {1700000000000, 0},
            {INT64_MIN, 99}};
        for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
            const cnk_list_offsets_response_list_offsets_partition_response p = list(version, 0, special[i].timestamp);
            ck_assert_int_eq(p.error_code, version >= special[i].from ? 0 : CNK_KAFKA_UNSUPPORTED_VERSION);
            if (p.error_code) ck_assert_int_eq(p.offset, -1);
            else if (version >= 4) ck_assert_int_eq(p.leader_epoch, 5);
        }
        ck_assert_int_eq(list(version, 0, -1).offset, 100);
        ck_assert_int_eq(list(version, 7, -1).error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        fake.part_error = CHRONIK_EOFFSETUNAVAILABLE;
        ck_assert_int_eq(list(version, 0, -1).error_code,
                         version >= 5 ? CNK_KAFKA_OFFSET_NOT_AVAILABLE : CNK_KAFKA_LEADER_NOT_AVAILABLE);
        fake.part_error = 0;
    }
}
END_TEST

/* Version 0 counts the log as one segment, last changed when its newest record was made. */
START_TEST(list_offsets_0) {
    static const struct {
        int64_t start, end, timestamp;
        int32_t max, count;
        int64_t offsets[2];
        int16_t error;
    } cases[] = {
        {20, 100, -1, 2, 2, {100, 20}, 0},      {20, 100, -1, 1, 1, {100}, 0},         {20, 100, -1, 0, 0, {0}, 0},
        {20, 100, -2, 9, 1, {20}, 0},           {20, 100, INT64_MAX, 9, 2, {100, 20}, 0}, {20, 100, 4999, 9, 0, {0}, 0},
        {20, 100, 5000, 9, 1, {20}, 0},         {20, 100, 0, 9, 0, {0}, 0},            {7, 7, -1, 9, 1, {7}, 0},
        {7, 7, 5000, 9, 0, {0}, 0},             {7, 7, -2, 9, 1, {7}, 0},              {0, 1, -1, -1, 0, {0}, CNK_KAFKA_INVALID_REQUEST},
        {0, 1, -3, 1, 0, {0}, CNK_KAFKA_UNSUPPORTED_VERSION}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cnk_list_offsets_request_list_offsets_partition part[] = {{0, -1, cases[i].timestamp, cases[i].max},
                                                                  {0, -1, -2, 1}};
        cnk_list_offsets_request_list_offsets_topic topic = {CNK_KAFKA_STRING("a"), {part, 2}};
        cnk_list_offsets_request in = {.replica_id = -1, .topics = {&topic, 1}};
        cnk_list_offsets_response out;
        fake.bounds[0] = cases[i].start;
        fake.bounds[1] = cases[i].end;
        CALL(LIST_OFFSETS, 0, &in, &out);
        ck_assert_int_eq(out.topics.items[0].partitions.count, 2); /* named twice, answered twice */
        const cnk_list_offsets_response_list_offsets_partition_response *p = out.topics.items[0].partitions.items;
        ck_assert_int_eq(p[0].error_code, cases[i].error);
        ck_assert_int_eq(p[0].old_style_offsets.count, cases[i].count);
        for (int32_t n = 0; n < cases[i].count; n++)
            ck_assert_int_eq(p[0].old_style_offsets.items[n], cases[i].offsets[n]);
        ck_assert_int_eq(p[1].old_style_offsets.items[0], cases[i].start);
    }
    ck_assert_int_eq(list(0, 7, -1).error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
}
END_TEST

START_TEST(list_offsets_duplicates) {
    cnk_list_offsets_request_list_offsets_partition part[] = {{0, -1, -1, 1}, {1, -1, -1, 1}, {0, -1, -2, 1}};
    cnk_list_offsets_request_list_offsets_topic topics[] = {
        {CNK_KAFKA_STRING("a"), {part, 3}}, {CNK_KAFKA_STRING("b"), {part, 1}}, {CNK_KAFKA_STRING("b"), {part, 1}}};
    cnk_list_offsets_request in = {.replica_id = -1, .topics = {topics, 3}};
    cnk_list_offsets_response out;
    CALL(LIST_OFFSETS, 5, &in, &out);
    ck_assert_int_eq(out.topics.count, 2); /* each partition once, and no topic that has none left */
    ck_assert_int_eq(out.topics.items[0].partitions.count, 2);
    ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
    ck_assert_int_eq(out.topics.items[0].partitions.items[1].error_code, 0);
    ck_assert(is_text(out.topics.items[1].name, "b"));
    ck_assert_int_eq(out.topics.items[1].partitions.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
    in.topics.count = 0;
    CALL(LIST_OFFSETS, 5, &in, &out);
    ck_assert_int_eq(out.topics.count, 0);
}
END_TEST

/* ---- topics ----------------------------------------------------------------------------------------------------- */

START_TEST(create_topics) {
    for (int version = 0; version <= 7; version++) {
        int32_t node = 7;
        cnk_create_topics_request_creatable_replica_assignment assignment = {0, {&node, 1}};
        cnk_create_topics_request_creatable_topic_config config = {CNK_KAFKA_STRING("retention.ms"),
                                                                   CNK_KAFKA_STRING("1000")};
        cnk_create_topics_request_creatable_topic topics[] = {
            {CNK_KAFKA_STRING("new"), 4, 1, {NULL, 0}, {&config, 1}},
            {CNK_KAFKA_STRING("twice"), 1, 1, {NULL, 0}, {NULL, 0}},
            {CNK_KAFKA_STRING("a"), -1, -1, {&assignment, 1}, {NULL, 0}},
            {CNK_KAFKA_STRING("twice"), 1, 1, {NULL, 0}, {NULL, 0}},
            {CNK_KAFKA_STRING("__cluster_metadata"), 1, 1, {NULL, 0}, {NULL, 0}}};
        cnk_create_topics_request in = {{topics, 5}, 1000, false};
        cnk_create_topics_response out;
        CALL(CREATE_TOPICS, version, &in, &out);
        ck_assert_int_eq(out.topics.count, 4);
        ck_assert(is_text(out.topics.items[0].name, "new"));
        ck_assert_int_eq(out.topics.items[0].error_code, 0);
        if (version >= 1) ck_assert_int_eq(out.topics.items[0].error_message.len, -1);
        if (version >= 5) {
            ck_assert_int_eq(out.topics.items[0].num_partitions, 4);
            ck_assert_int_eq(out.topics.items[0].replication_factor, 1);
            ck_assert_int_eq(out.topics.items[0].configs.count, 3);
            ck_assert(is_text(out.topics.items[0].configs.items[0].name, "alpha.ms"));
            ck_assert_int_eq(out.topics.items[0].configs.items[2].value.len, -1); /* sensitive */
            ck_assert_int_eq(out.topics.items[1].num_partitions, -1);
            ck_assert_int_eq(out.topics.items[1].configs.count, 0);
        }
        ck_assert_int_eq(cnk_uuid_is_zero(&out.topics.items[0].topic_id), version < 7);
        ck_assert_int_eq(out.topics.items[1].error_code, CNK_KAFKA_INVALID_REQUEST);
        if (version >= 1) ck_assert(is_text(out.topics.items[1].error_message, "Duplicate topic name."));
        ck_assert_int_eq(out.topics.items[2].error_code, CNK_KAFKA_TOPIC_ALREADY_EXISTS);
        ck_assert_int_eq(out.topics.items[3].error_code, CNK_KAFKA_INVALID_REQUEST);
    }
}
END_TEST

START_TEST(create_topics_validated_only) {
    const cnk_broker_config_row broker[] = {{.name = "log.retention.ms", .value = "77", .set = true},
                                            {.name = "message.max.bytes", .value = "99", .set = true}};
    cnk_create_topics_request_creatable_topic_config config = {CNK_KAFKA_STRING("cleanup.policy"),
                                                               CNK_KAFKA_STRING("compact")};
    cnk_create_topics_request_creatable_topic topic = {CNK_KAFKA_STRING("new"), 2, 1, {NULL, 0}, {&config, 1}};
    cnk_create_topics_request in = {{&topic, 1}, 1000, true};
    cnk_create_topics_response out;
    fake.options.configs = broker;
    fake.options.config_count = 2;
    CALL(CREATE_TOPICS, 7, &in, &out);
    ck_assert_int_eq(out.topics.items[0].error_code, 0);
    ck_assert_int_eq(out.topics.items[0].configs.count, (int)cnk_topic_option_count());
    bool found = false;
    for (int32_t i = 0; i < out.topics.items[0].configs.count; i++) {
        const cnk_create_topics_response_creatable_topic_configs *row = &out.topics.items[0].configs.items[i];
        if (is_text(row->name, "cleanup.policy")) {
            ck_assert(is_text(row->value, "compact"));
            ck_assert_int_eq(row->config_source, CNK_SOURCE_TOPIC);
            found = true;
        }
        if (is_text(row->name, "max.message.bytes")) {
            ck_assert(is_text(row->value, "99"));
            ck_assert_int_eq(row->config_source, CNK_SOURCE_STATIC_BROKER);
        }
    }
    ck_assert(found);
}
END_TEST

START_TEST(delete_topics_by_name) {
    for (int version = 0; version <= 5; version++) {
        cnk_kafka_string names[] = {CNK_KAFKA_STRING("a"), CNK_KAFKA_STRING("nope"), CNK_KAFKA_STRING("b"),
                                    CNK_KAFKA_STRING("b")};
        cnk_delete_topics_request in = {.topic_names = {names, 4}, .timeout_ms = 1000};
        cnk_delete_topics_response out;
        CALL(DELETE_TOPICS, version, &in, &out);
        ck_assert_int_eq(out.responses.count, 3);
        ck_assert_int_eq(out.responses.items[0].error_code, 0);
        ck_assert(is_text(out.responses.items[0].name, "a"));
        ck_assert_int_eq(out.responses.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(out.responses.items[2].error_code, CNK_KAFKA_INVALID_REQUEST);
        fake.options.delete_topics = false;
        CALL(DELETE_TOPICS, version, &in, &out);
        ck_assert_int_eq(out.responses.items[0].error_code,
                         version < 3 ? CNK_KAFKA_INVALID_REQUEST : CNK_KAFKA_TOPIC_DELETION_DISABLED);
        fake.options.delete_topics = true;
    }
}
END_TEST

START_TEST(delete_topics_by_id) {
    cnk_delete_topics_request_delete_topic_state topics[] = {{CNK_KAFKA_STRING_NULL, fake.topics[0].id},
                                                             {CNK_KAFKA_STRING_NULL, {{0x44}}},
                                                             {CNK_KAFKA_STRING("b"), fake.topics[1].id},
                                                             {CNK_KAFKA_STRING_NULL, {{0}}},
                                                             {CNK_KAFKA_STRING("a"), {{0}}},
                                                             {CNK_KAFKA_STRING("nope"), {{0}}}};
    cnk_delete_topics_request in = {.topics = {topics, 6}, .timeout_ms = 1000};
    cnk_delete_topics_response out;
    CALL(DELETE_TOPICS, 6, &in, &out);
    ck_assert_int_eq(out.responses.count, 6);
    ck_assert_int_eq(out.responses.items[0].error_code, 0);
    ck_assert(is_text(out.responses.items[0].name, "a"));
    ck_assert_int_eq(out.responses.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_ID);
    ck_assert_int_eq(out.responses.items[1].name.len, -1);
    ck_assert_int_eq(out.responses.items[2].error_code, CNK_KAFKA_INVALID_REQUEST); /* both */
    ck_assert_int_eq(out.responses.items[3].error_code, CNK_KAFKA_INVALID_REQUEST); /* neither */
    ck_assert_int_eq(out.responses.items[4].error_code, CNK_KAFKA_INVALID_REQUEST); /* the first one's name */
    ck_assert_int_eq(out.responses.items[5].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
}
END_TEST

/* ---- the rest --------------------------------------------------------------------------------------------------- */

START_TEST(init_producer_id) {
    for (int version = 0; version <= 5; version++) {
        cnk_init_producer_id_request in = {
            .transactional_id = CNK_KAFKA_STRING_NULL, .producer_id = -1, .producer_epoch = -1};
        cnk_init_producer_id_response out;
        CALL(INIT_PRODUCER_ID, version, &in, &out);
        ck_assert_int_eq(out.error_code, 0);
        ck_assert_int_ge(out.producer_id, 1000 + version);
        ck_assert_int_eq(out.producer_epoch, 0);
        in.transactional_id = CNK_KAFKA_STRING("tx");
        CALL(INIT_PRODUCER_ID, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        ck_assert_int_eq(out.producer_id, -1);
        in.transactional_id = CNK_KAFKA_STRING("");
        CALL(INIT_PRODUCER_ID, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_INVALID_REQUEST);
        if (version < 3) continue;
        in.transactional_id = CNK_KAFKA_STRING_NULL;
        in.producer_id = 5; /* without an epoch */
        CALL(INIT_PRODUCER_ID, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_INVALID_REQUEST);
    }
}
END_TEST

START_TEST(find_coordinator) {
    for (int version = 0; version <= 6; version++) {
        for (int8_t type = 0; type <= (version ? 3 : 0); type++) {
            cnk_kafka_string keys[] = {CNK_KAFKA_STRING("g"), CNK_KAFKA_STRING("h")};
            cnk_find_coordinator_request in = {.key = CNK_KAFKA_STRING(""), .key_type = type};
            cnk_find_coordinator_response out;
            if (version < 4) in.key = keys[0];
            else in.coordinator_keys.items = keys, in.coordinator_keys.count = 2;
            CALL(FIND_COORDINATOR, version, &in, &out);
            const int16_t error = type == 1 ? CNK_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                                  : type == 0 ? CNK_KAFKA_NONE : CNK_KAFKA_INVALID_REQUEST;
            ck_assert_int_eq(out.coordinators.count, version >= 4 ? 2 : 0);
            ck_assert_int_eq(version >= 4 ? out.coordinators.items[1].error_code : out.error_code, error);
            ck_assert_int_eq(version >= 4 ? out.coordinators.items[1].node_id : out.node_id, type == 0 ? 7 : -1);
            if (version >= 4) ck_assert(is_text(out.coordinators.items[1].key, "h"));
        }
    }
}
END_TEST

START_TEST(offsets) {
    for (int version = 1; version <= 10; version++) {
        cnk_offset_commit_request_offset_commit_request_partition parts[] = {
            {.partition_index = 1, .committed_offset = 5}, {.partition_index = 3, .committed_offset = 6}};
        cnk_offset_commit_request_offset_commit_request_topic topics[2] = {{.name = CNK_KAFKA_STRING("a")},
                                                                           {.name = CNK_KAFKA_STRING("zz")}};
        cnk_offset_commit_request in;
        cnk_offset_commit_response out;
        for (int i = 0; i < 2; i++) {
            parts[i].committed_leader_epoch = -1;
            parts[i].commit_timestamp = -1;
            topics[i].partitions.items = parts;
            topics[i].partitions.count = 2;
            if (version >= 10) memset(topics[i].topic_id.bytes, i ? 77 : 1, 16);
        }
        cnk_kafka_defaults(cnk_offset_commit_request_message.root, &in);
        in.group_id = CNK_KAFKA_STRING("g");
        in.topics.items = topics;
        in.topics.count = 2;
        for (int failing = 0; failing < 2; failing++) {
            fake.part_error = failing ? CHRONIK_ECOORDINATORLOADING : 0;
            CALL(OFFSET_COMMIT, version, &in, &out);
            ck_assert_int_eq(out.topics.count, 2);
            ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code,
                             failing ? CNK_KAFKA_COORDINATOR_LOAD_IN_PROGRESS : 0);
            ck_assert_int_eq(out.topics.items[0].partitions.items[1].error_code,
                             CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
            ck_assert_int_eq(out.topics.items[1].partitions.items[1].error_code,
                             version >= 10 ? CNK_KAFKA_UNKNOWN_TOPIC_ID : CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        }
        cnk_offset_fetch_request ask;
        cnk_offset_fetch_response got;
        int32_t numbers[] = {2, 0};
        cnk_offset_fetch_request_offset_fetch_request_topic old = {CNK_KAFKA_STRING("a"), {numbers, 2}};
        cnk_offset_fetch_request_offset_fetch_request_topics new_ = {.name = old.name, .partition_indexes = {numbers, 2}};
        cnk_offset_fetch_request_offset_fetch_request_group group = {
            .group_id = in.group_id, .member_id = CNK_KAFKA_STRING_NULL, .member_epoch = -1, .topics = {&new_, 1}};
        cnk_kafka_defaults(cnk_offset_fetch_request_message.root, &ask);
        if (version >= 10) memset(new_.topic_id.bytes, 1, 16), new_.name = CNK_KAFKA_STRING("");
        if (version < 8) ask.group_id = in.group_id, ask.topics.items = &old, ask.topics.count = 1;
        else ask.groups.items = &group, ask.groups.count = 1;
        for (int failing = 0; failing < 2; failing++) {
            fake.part_error = failing ? CHRONIK_ENOTCOORDINATOR : 0;
            CALL(OFFSET_FETCH, version, &ask, &got);
            const int16_t error = failing ? CNK_KAFKA_NOT_COORDINATOR : 0;
            if (version >= 8) {
                ck_assert_int_eq(got.groups.items[0].error_code, error);
                ck_assert_int_eq(got.groups.items[0].topics.count, !failing);
                if (!failing)
                    ck_assert_int_eq(got.groups.items[0].topics.items[0].partitions.items[1].committed_offset, 100);
            } else {
                ck_assert_int_eq(got.error_code, version >= 2 ? error : 0);
                ck_assert_int_eq(got.topics.count, version < 2 || !failing);
                if (got.topics.count == 0) continue;
                ck_assert_int_eq(got.topics.items[0].partitions.items[0].committed_offset, failing ? -1 : 102);
                ck_assert_int_eq(got.topics.items[0].partitions.items[0].error_code, error);
            }
        }
        fake.part_error = 0;
    }
    ck_assert_uint_eq(fake.groups_open, 0);
}
END_TEST

START_TEST(describe_cluster) {
    for (int version = 0; version <= 2; version++) {
        cnk_describe_cluster_request in = {true, 1, version >= 2};
        cnk_describe_cluster_response out;
        CALL(DESCRIBE_CLUSTER, version, &in, &out);
        ck_assert_int_eq(out.error_code, 0);
        ck_assert_int_eq(out.controller_id, 7);
        ck_assert_int_eq(out.brokers.count, 1);
        ck_assert_int_eq(out.cluster_authorized_operations, 8096);
        ck_assert_int_eq(out.cluster_id.len, 22);
        if (version == 0) continue;
        in.endpoint_type = 2;
        CALL(DESCRIBE_CLUSTER, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_MISMATCHED_ENDPOINT_TYPE);
        in.endpoint_type = 3;
        CALL(DESCRIBE_CLUSTER, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_UNSUPPORTED_ENDPOINT_TYPE);
    }
}
END_TEST

static cnk_describe_configs_response_describe_configs_result configs(int version, int8_t type, const char *name,
                                                                     cnk_kafka_string *keys, int32_t key_count) {
    cnk_describe_configs_request_describe_configs_resource resource = {
        type, cnk_kafka_string_of(name), {keys, key_count}};
    cnk_describe_configs_request in = {{&resource, 1}, version >= 1, version >= 3};
    cnk_describe_configs_response out;
    CALL(DESCRIBE_CONFIGS, version, &in, &out);
    ck_assert_int_eq(out.results.count, 1);
    ck_assert_int_eq(out.results.items[0].resource_type, type);
    ck_assert(is_text(out.results.items[0].resource_name, name));
    return out.results.items[0];
}

START_TEST(describe_configs) {
    for (int version = 0; version <= 4; version++) {
        cnk_kafka_string keys[] = {CNK_KAFKA_STRING("beta"), CNK_KAFKA_STRING("unknown")};
        cnk_describe_configs_response_describe_configs_result r = configs(version, 2, "a", NULL, -1);
        ck_assert_int_eq(r.error_code, 0);
        ck_assert_int_eq(r.configs.count, 3);
        ck_assert_int_eq(r.configs.items[0].synonyms.count, version >= 1 ? 2 : 0);
        if (version >= 1) ck_assert_int_eq(r.configs.items[0].config_source, CNK_SOURCE_TOPIC);
        ck_assert_int_eq(r.configs.items[2].value.len, -1);
        if (version >= 3) ck_assert(is_text(r.configs.items[0].documentation, "Alpha."));
        ck_assert_int_eq(configs(version, 2, "a", NULL, 0).configs.count, 3); /* an empty list is all */
        r = configs(version, 2, "a", keys, 2);
        ck_assert_int_eq(r.configs.count, 1);
        ck_assert(is_text(r.configs.items[0].name, "beta"));
        ck_assert_int_eq(configs(version, 2, "nope", NULL, -1).error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(configs(version, 2, "no/pe", NULL, -1).error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
        ck_assert_int_eq(configs(version, 2, "", NULL, -1).error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
        ck_assert_int_eq(configs(version, 4, "7", NULL, -1).configs.count, 3);
        ck_assert_int_eq(configs(version, 4, "", NULL, -1).configs.count, 0);
        ck_assert_int_eq(configs(version, 4, "8", NULL, -1).error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_int_eq(configs(version, 4, "x", NULL, -1).error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_int_eq(configs(version, 3, "a", NULL, -1).error_code, CNK_KAFKA_INVALID_REQUEST);
    }
}
END_TEST

/* Requests that would cost far more than they weigh are not served. */
static bool closes(int16_t key, int version, const void *message) {
    cnk_writer w;
    client one;
    client_open(&one, kafka);
    client_frame(&w, key, version, 1, message);
    (void)client_feed(&one, w.data, w.len, 0);
    cnk_writer_free(&w);
    const bool closing = (cnk_kafka_conn_wants(one.conn) & CNK_CONN_CLOSE) != 0;
    client_close(&one);
    return closing;
}

START_TEST(counts_have_limits) {
    enum { MANY = 100001 };
    cnk_metadata_request_metadata_request_topic *names = calloc(MANY, sizeof *names);
    cnk_kafka_string *keys = calloc(MANY, sizeof *keys);
    cnk_list_offsets_request_list_offsets_partition *parts = calloc(MANY, sizeof *parts);
    cnk_describe_configs_request_describe_configs_resource *resources = calloc(MANY, sizeof *resources);
    cnk_metadata_request metadata;
    cnk_kafka_defaults(cnk_metadata_request_message.root, &metadata);
    metadata.topics.items = names;
    metadata.topics.count = CNK_KAFKA_METADATA_TOPICS_MAX + 1;
    ck_assert(closes(CNK_KAFKA_API_METADATA, 5, &metadata));
    metadata.topics.count = CNK_KAFKA_METADATA_TOPICS_MAX;
    ck_assert(!closes(CNK_KAFKA_API_METADATA, 5, &metadata));
    cnk_find_coordinator_request find = {.key = CNK_KAFKA_STRING("")};
    find.coordinator_keys.items = keys;
    find.coordinator_keys.count = CNK_KAFKA_COORDINATOR_KEYS_MAX + 1;
    ck_assert(closes(CNK_KAFKA_API_FIND_COORDINATOR, 4, &find));
    cnk_list_offsets_request_list_offsets_topic topic = {CNK_KAFKA_STRING("a"), {parts, CNK_KAFKA_LIST_PARTS_MAX + 1}};
    cnk_list_offsets_request list = {.replica_id = -1, .topics = {&topic, 1}};
    for (int i = 0; i < MANY; i++) parts[i].max_num_offsets = 1;
    ck_assert(closes(CNK_KAFKA_API_LIST_OFFSETS, 3, &list));
    cnk_describe_configs_request describe = {.resources = {resources, CNK_KAFKA_DESCRIBE_RESOURCES_MAX + 1}};
    ck_assert(closes(CNK_KAFKA_API_DESCRIBE_CONFIGS, 2, &describe));
    free(names);
    free(keys);
    free(parts);
    free(resources);
}
END_TEST

int main(void) {
    Suite *s = suite_create("kafka_handlers");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, api_versions);
    tcase_add_test(t, metadata_all_and_none);
    tcase_add_test(t, metadata_by_name);
    tcase_add_test(t, metadata_waits_for_creation);
    tcase_add_test(t, metadata_by_id);
    tcase_add_test(t, produce_answers);
    tcase_add_test(t, produce_refused);
    tcase_add_test(t, produce_tells_the_leader);
    tcase_add_test(t, fetch_answers);
    tcase_add_test(t, fetches_go_round);
    tcase_add_test(t, fetch_odd_requests);
    tcase_add_test(t, list_offsets_versions);
    tcase_add_test(t, list_offsets_0);
    tcase_add_test(t, list_offsets_duplicates);
    tcase_add_test(t, create_topics);
    tcase_add_test(t, create_topics_validated_only);
    tcase_add_test(t, delete_topics_by_name);
    tcase_add_test(t, delete_topics_by_id);
    tcase_add_test(t, find_coordinator);
    tcase_add_test(t, offsets);
    tcase_add_test(t, init_producer_id);
    tcase_add_test(t, describe_cluster);
    tcase_add_test(t, describe_configs);
    tcase_add_test(t, counts_have_limits);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
