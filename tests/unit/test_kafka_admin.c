/* What the handlers of administrative requests answer, above all where something is wrong. On a fake broker. */
#include <check.h>
#include <stdio.h>

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
    ck_assert_uint_eq(fake.describes_open, 0);
    ck_assert(cnk_kafka_quiesce(kafka));
    cnk_kafka_free(kafka);
}

static bool is_text(cnk_kafka_string s, const char *text) {
    return s.len == (int32_t)strlen(text) && memcmp(s.data, text, strlen(text)) == 0;
}

#define CALL(KEY, version, in, out) ck_assert(client_call(&c, CNK_KAFKA_API_##KEY, version, in, out))

START_TEST(offset_for_leader_epoch) {
    for (int version = 0; version <= 4; version++) {
        cnk_offset_for_leader_epoch_request_offset_for_leader_partition parts[] = {{0, -1, 5}, {9, -1, 5}};
        cnk_offset_for_leader_epoch_request_offset_for_leader_topic topics[] = {
            {CNK_KAFKA_STRING("a"), {parts, 2}}, {CNK_KAFKA_STRING("nope"), {parts, 1}}};
        cnk_offset_for_leader_epoch_request in = {version >= 3 ? -1 : -2, {topics, 2}};
        cnk_offset_for_leader_epoch_response out;
        CALL(OFFSET_FOR_LEADER_EPOCH, version, &in, &out);
        ck_assert_int_eq(out.topics.count, 2);
        ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, 0);
        if (version >= 1) ck_assert_int_eq(out.topics.items[0].partitions.items[0].leader_epoch, 5);
        ck_assert_int_ge(out.topics.items[0].partitions.items[0].end_offset, 0);
        ck_assert_int_eq(out.topics.items[0].partitions.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(out.topics.items[0].partitions.items[1].end_offset, -1);
        ck_assert_int_eq(out.topics.items[1].partitions.items[0].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
    fake.start_error = CHRONIK_ESHUTDOWN;
    cnk_offset_for_leader_epoch_request_offset_for_leader_partition part = {0, -1, 5};
    cnk_offset_for_leader_epoch_request_offset_for_leader_topic topic = {CNK_KAFKA_STRING("a"), {&part, 1}};
    cnk_offset_for_leader_epoch_request in = {-1, {&topic, 1}};
    cnk_offset_for_leader_epoch_response out;
    CALL(OFFSET_FOR_LEADER_EPOCH, 4, &in, &out);
    ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
}
END_TEST

START_TEST(create_partitions) {
    for (int version = 0; version <= 3; version++) {
        int32_t node = 7;
        cnk_create_partitions_request_create_partitions_assignment one = {{&node, 1}};
        cnk_create_partitions_request_create_partitions_topic topics[] = {
            {CNK_KAFKA_STRING("a"), 5, {NULL, -1}},    {CNK_KAFKA_STRING("b"), 3, {&one, 1}},
            {CNK_KAFKA_STRING("nope"), 3, {NULL, -1}}, {CNK_KAFKA_STRING("twice"), 3, {NULL, -1}},
            {CNK_KAFKA_STRING("twice"), 4, {NULL, -1}}};
        cnk_create_partitions_request in = {{topics, 5}, 1000, false};
        cnk_create_partitions_response out;
        CALL(CREATE_PARTITIONS, version, &in, &out);
        ck_assert_int_eq(out.results.count, 4);
        ck_assert_int_eq(out.results.items[0].error_code, 0);
        ck_assert_int_eq(out.results.items[0].error_message.len, -1);
        ck_assert_int_eq(out.results.items[1].error_code, CNK_KAFKA_INVALID_REPLICA_ASSIGNMENT);
        ck_assert(is_text(out.results.items[1].error_message, "no"));
        ck_assert_int_eq(out.results.items[2].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(out.results.items[3].error_code, CNK_KAFKA_INVALID_REQUEST);
        fake.start_error = CHRONIK_EAGAIN;
        CALL(CREATE_PARTITIONS, version, &in, &out);
        ck_assert_int_eq(out.results.items[0].error_code, CNK_KAFKA_REQUEST_TIMED_OUT);
        ck_assert_int_eq(out.results.items[3].error_code, CNK_KAFKA_INVALID_REQUEST);
        fake.start_error = 0;
    }
}
END_TEST

/* The operation waits; the connection closes meanwhile (teardown says whether all is given back). */
START_TEST(closed_while_waiting) {
    cnk_create_partitions_request_create_partitions_topic topic = {CNK_KAFKA_STRING("a"), 5, {NULL, -1}};
    const cnk_create_partitions_request grow = {{&topic, 1}, 1000, false};
    const cnk_alter_configs_request_alterable_config option = {CNK_KAFKA_STRING("x"), CNK_KAFKA_STRING("1")};
    cnk_alter_configs_request_alter_configs_resource resource = {
        2, CNK_KAFKA_STRING("a"), {(cnk_alter_configs_request_alterable_config *)(uintptr_t)&option, 1}};
    const cnk_alter_configs_request alter = {{&resource, 1}, false};
    const cnk_describe_log_dirs_request dirs = {{NULL, -1}};
    int32_t zero = 0;
    cnk_describe_producers_request_topic_request of = {CNK_KAFKA_STRING("a"), {&zero, 1}};
    const cnk_describe_producers_request producers = {{&of, 1}};
    cnk_create_topics_request_creatable_topic fresh = {.name = CNK_KAFKA_STRING("new"), .num_partitions = 1, .replication_factor = 1};
    const cnk_create_topics_request make = {{&fresh, 1}, 1000, false};
    cnk_delete_topics_request_delete_topic_state old = {.name = CNK_KAFKA_STRING("a")};
    const cnk_delete_topics_request unmake = {{&old, 1}, {NULL, 0}, 1000};
    cnk_metadata_request_metadata_request_topic unknown = {.name = CNK_KAFKA_STRING("new")};
    const cnk_metadata_request metadata = {{&unknown, 1}, true, false, false};
    cnk_kafka_string group = CNK_KAFKA_STRING("g");
    const cnk_find_coordinator_request coordinator = {.coordinator_keys = {&group, 1}};
    const cnk_init_producer_id_request id = {.transactional_id = CNK_KAFKA_STRING_NULL, .producer_id = -1, .producer_epoch = -1};
    cnk_list_offsets_request_list_offsets_partition when = {0, -1, -1, 1};
    cnk_list_offsets_request_list_offsets_topic times = {CNK_KAFKA_STRING("a"), {&when, 1}};
    const cnk_list_offsets_request list = {.replica_id = -1, .topics = {&times, 1}};
    cnk_offset_for_leader_epoch_request_offset_for_leader_partition epoch = {0, -1, 5};
    cnk_offset_for_leader_epoch_request_offset_for_leader_topic epochs = {CNK_KAFKA_STRING("a"), {&epoch, 1}};
    const cnk_offset_for_leader_epoch_request ends = {-1, {&epochs, 1}};
    const cnk_heartbeat_request beat = {group, 1, group, CNK_KAFKA_STRING_NULL};
    const struct {
        int16_t key;
        int version;
        const void *message;
        bool cancelled;
    } rows[] = {{CNK_KAFKA_API_CREATE_TOPICS, 7, &make, true},
                {CNK_KAFKA_API_DELETE_TOPICS, 6, &unmake, true},
                {CNK_KAFKA_API_METADATA, 12, &metadata, true},
                {CNK_KAFKA_API_FIND_COORDINATOR, 4, &coordinator, true},
                {CNK_KAFKA_API_INIT_PRODUCER_ID, 4, &id, true},
                {CNK_KAFKA_API_LIST_OFFSETS, 7, &list, false},
                {CNK_KAFKA_API_OFFSET_FOR_LEADER_EPOCH, 4, &ends, false},
                {CNK_KAFKA_API_HEARTBEAT, 4, &beat, true},
                {CNK_KAFKA_API_CREATE_PARTITIONS, 3, &grow, true},
                {CNK_KAFKA_API_ALTER_CONFIGS, 2, &alter, true},
                {CNK_KAFKA_API_DESCRIBE_LOG_DIRS, 4, &dirs, false},
                {CNK_KAFKA_API_DESCRIBE_PRODUCERS, 0, &producers, false}};
    fake.wait = true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client one;
        client_open(&one, kafka);
        client_send(&one, rows[i].key, rows[i].version, 1, rows[i].message);
        ck_assert_uint_eq(fake.waiting_count, 1);
        client_close(&one);
        ck_assert_msg(fake.waiting_count == !rows[i].cancelled, "API %d", rows[i].key);
        if (!rows[i].cancelled) fake_complete(0); /* answers for a connection that is gone */
    }
}
END_TEST

static cnk_incremental_alter_configs_response incremental(cnk_incremental_alter_configs_request_alter_configs_resource *r,
                                                          int32_t count, int version) {
    const cnk_incremental_alter_configs_request in = {{r, count}, false};
    cnk_incremental_alter_configs_response out;
    CALL(INCREMENTAL_ALTER_CONFIGS, version, &in, &out);
    ck_assert_int_eq(out.responses.count, count);
    return out;
}

START_TEST(incremental_alter_configs) {
    typedef cnk_incremental_alter_configs_request_alterable_config option;
    typedef cnk_incremental_alter_configs_request_alter_configs_resource resource;
    option good[] = {{CNK_KAFKA_STRING("x"), 0, CNK_KAFKA_STRING("1")}, {CNK_KAFKA_STRING("y"), 1, CNK_KAFKA_STRING_NULL}};
    option twice[] = {{CNK_KAFKA_STRING("x"), 0, CNK_KAFKA_STRING("1")}, {CNK_KAFKA_STRING("x"), 1, CNK_KAFKA_STRING("1")}};
    option odd[] = {{CNK_KAFKA_STRING("x"), 9, CNK_KAFKA_STRING("1")}};
    option gone[] = {{CNK_KAFKA_STRING("x"), 1, CNK_KAFKA_STRING_NULL}};
    for (int version = 0; version <= 1; version++) {
        resource rows[] = {{2, CNK_KAFKA_STRING("a"), {good, 2}},    {2, CNK_KAFKA_STRING("nope"), {good, 2}},
                           {2, CNK_KAFKA_STRING("b/d"), {good, 2}},  {2, CNK_KAFKA_STRING(""), {good, 2}},
                           {2, CNK_KAFKA_STRING("twice"), {twice, 2}}, {2, CNK_KAFKA_STRING("odd"), {odd, 1}},
                           {4, CNK_KAFKA_STRING("7"), {good, 1}},    {4, CNK_KAFKA_STRING(""), {NULL, 0}},
                           {4, CNK_KAFKA_STRING("8"), {NULL, 0}},    {3, CNK_KAFKA_STRING("7"), {NULL, 0}}};
        static const int16_t want[] = {0,
                                       CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                                       CNK_KAFKA_INVALID_TOPIC_EXCEPTION,
                                       CNK_KAFKA_INVALID_REQUEST,
                                       CNK_KAFKA_INVALID_REQUEST,
                                       CNK_KAFKA_INVALID_REQUEST,
                                       CNK_KAFKA_INVALID_REQUEST,
                                       0,
                                       CNK_KAFKA_INVALID_REQUEST,
                                       CNK_KAFKA_INVALID_REQUEST};
        cnk_incremental_alter_configs_response out = incremental(rows, 10, version);
        for (int32_t i = 0; i < 10; i++) {
            ck_assert_int_eq(out.responses.items[i].error_code, want[i]);
            ck_assert_int_eq(out.responses.items[i].error_message.len >= 0, want[i] != 0);
            ck_assert_int_eq(out.responses.items[i].resource_type, rows[i].resource_type);
        }
        ck_assert_uint_eq(fake.altered_single, 4); /* of a and nope: no other got to the broker */
        ck_assert_uint_eq(fake.altered_whole, 0);
        resource same[] = {{2, CNK_KAFKA_STRING("a"), {good, 1}}, {2, CNK_KAFKA_STRING("a"), {good, 1}},
                           {2, CNK_KAFKA_STRING("b"), {good, 1}}};
        out = incremental(same, 3, version);
        ck_assert_int_eq(out.responses.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_int_eq(out.responses.items[1].error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_int_eq(out.responses.items[2].error_code, 0);
        fake.start_error = CHRONIK_EAGAIN;
        ck_assert_int_eq(incremental(same + 2, 1, version).responses.items[0].error_code, CNK_KAFKA_REQUEST_TIMED_OUT);
        fake.start_error = 0;
        resource unset = {4, CNK_KAFKA_STRING("7"), {gone, 1}};
        ck_assert_int_eq(incremental(&unset, 1, version).responses.items[0].error_code, 0);
    }
}
END_TEST

START_TEST(alter_configs) {
    for (int version = 0; version <= 2; version++) {
        cnk_alter_configs_request_alterable_config good[] = {{CNK_KAFKA_STRING("x"), CNK_KAFKA_STRING("1")}};
        cnk_alter_configs_request_alter_configs_resource rows[] = {{2, CNK_KAFKA_STRING("a"), {good, 1}},
                                                                   {2, CNK_KAFKA_STRING("nope"), {good, 1}},
                                                                   {4, CNK_KAFKA_STRING("7"), {good, 1}}};
        const cnk_alter_configs_request in = {{rows, 3}, false};
        cnk_alter_configs_response out;
        CALL(ALTER_CONFIGS, version, &in, &out);
        ck_assert_int_eq(out.responses.items[0].error_code, 0);
        ck_assert_int_eq(out.responses.items[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(out.responses.items[2].error_code, CNK_KAFKA_INVALID_REQUEST);
        ck_assert_uint_eq(fake.altered_whole, 2);
        ck_assert_uint_eq(fake.altered_single, 0);
    }
}
END_TEST

START_TEST(list_config_resources) {
    cnk_list_config_resources_request in = {{NULL, 0}};
    cnk_list_config_resources_response out;
    int8_t kinds[] = {2, 2}, unknown[] = {2, 3};
    CALL(LIST_CONFIG_RESOURCES, 0, &in, &out);
    ck_assert_int_eq(out.config_resources.count, 0);
    CALL(LIST_CONFIG_RESOURCES, 1, &in, &out);
    ck_assert_int_eq(out.config_resources.count, 3);
    ck_assert(is_text(out.config_resources.items[2].resource_name, "7"));
    in.resource_types.items = kinds;
    in.resource_types.count = 2;
    CALL(LIST_CONFIG_RESOURCES, 1, &in, &out);
    ck_assert_int_eq(out.config_resources.count, 2);
    ck_assert(is_text(out.config_resources.items[1].resource_name, "b"));
    in.resource_types.items = unknown;
    CALL(LIST_CONFIG_RESOURCES, 1, &in, &out);
    ck_assert_int_eq(out.error_code, CNK_KAFKA_UNSUPPORTED_VERSION);
    ck_assert_int_eq(out.config_resources.count, 0);
}
END_TEST

static int space(void *arg, uint64_t *ret_total, uint64_t *ret_usable) {
    (void)arg;
    *ret_total = 1000;
    *ret_usable = 600;
    return 0;
}

START_TEST(describe_log_dirs) {
    fake.options.data_dir = "/data";
    for (int version = 0; version <= 5; version++) {
        int32_t numbers[] = {1, 1, 0, 9, -1};
        cnk_describe_log_dirs_request_describable_log_dir_topic topics[] = {
            {CNK_KAFKA_STRING("a"), {numbers, 5}}, {CNK_KAFKA_STRING("nope"), {numbers, 1}}};
        cnk_describe_log_dirs_request in = {{topics, 2}};
        cnk_describe_log_dirs_response out;
        fake.options.space = version % 2 ? space : NULL;
        CALL(DESCRIBE_LOG_DIRS, version, &in, &out);
        ck_assert_int_eq(out.results.count, 1);
        const cnk_describe_log_dirs_response_describe_log_dirs_result *dir = &out.results.items[0];
        ck_assert(is_text(dir->log_dir, "/data"));
        ck_assert_int_eq(dir->topics.count, 1);
        ck_assert_int_eq(dir->topics.items[0].partitions.count, 2);
        ck_assert_int_eq(dir->topics.items[0].partitions.items[0].partition_index, 1);
        ck_assert_int_eq(dir->topics.items[0].partitions.items[0].partition_size, 77);
        if (version >= 4) ck_assert_int_eq(dir->total_bytes, version % 2 ? 1000 : -1);
        if (version >= 4) ck_assert_int_eq(dir->usable_bytes, version % 2 ? 600 : -1);
        in.topics.items = NULL;
        in.topics.count = -1;
        CALL(DESCRIBE_LOG_DIRS, version, &in, &out);
        ck_assert_int_eq(out.results.items[0].topics.count, 1); /* b's partition is offline */
        ck_assert_int_eq(out.results.items[0].topics.items[0].partitions.count, 3);
    }
}
END_TEST

START_TEST(describe_producers) {
    int32_t numbers[] = {2, 3};
    cnk_describe_producers_request_topic_request topics[] = {{CNK_KAFKA_STRING("a"), {numbers, 2}},
                                                             {CNK_KAFKA_STRING("n/o"), {numbers, 1}}};
    cnk_describe_producers_request in = {{topics, 2}};
    cnk_describe_producers_response out;
    CALL(DESCRIBE_PRODUCERS, 0, &in, &out);
    const cnk_describe_producers_response_partition_response *p = out.topics.items[0].partitions.items;
    ck_assert_int_eq(p[0].partition_index, 2);
    ck_assert_int_eq(p[0].active_producers.count, 2);
    ck_assert_int_eq(p[0].active_producers.items[0].producer_id, 900);
    ck_assert_int_eq(p[0].active_producers.items[0].producer_epoch, 2);
    ck_assert_int_eq(p[0].active_producers.items[0].last_sequence, 3);
    ck_assert_int_eq(p[0].active_producers.items[0].current_txn_start_offset, -1);
    ck_assert_int_eq(p[1].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(out.topics.items[1].partitions.items[0].error_code, CNK_KAFKA_INVALID_TOPIC_EXCEPTION);
    fake.start_error = CHRONIK_ESHUTDOWN;
    CALL(DESCRIBE_PRODUCERS, 0, &in, &out);
    ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
}
END_TEST

START_TEST(describe_quorum) {
    for (int version = 0; version <= 2; version++) {
        cnk_describe_quorum_request_partition_data parts[] = {{0}, {1}};
        cnk_describe_quorum_request_topic_data topic = {CNK_KAFKA_STRING("__cluster_metadata"), {parts, 1}};
        cnk_describe_quorum_request in = {{&topic, 1}};
        cnk_describe_quorum_response out;
        CALL(DESCRIBE_QUORUM, version, &in, &out);
        const cnk_describe_quorum_response_partition_data *p = out.topics.items[0].partitions.items;
        ck_assert_int_eq(p->error_code, 0);
        ck_assert_int_eq(p->leader_id, 7);
        ck_assert_int_eq(p->leader_epoch, 4);
        ck_assert_int_eq(p->high_watermark, 42);
        ck_assert_int_eq(p->current_voters.count, 1);
        ck_assert_int_eq(p->current_voters.items[0].replica_id, 7);
        if (version >= 2) ck_assert_int_eq(out.nodes.items[0].listeners.items[0].port, 9092);
        topic.partitions.count = 2;
        CALL(DESCRIBE_QUORUM, version, &in, &out);
        ck_assert_int_eq(out.topics.items[0].partitions.count, 2);
        ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
}
END_TEST

START_TEST(elect_leaders) {
    for (int version = 0; version <= 2; version++) {
        for (int8_t type = 0; type <= (version ? 2 : 0); type++) {
            int32_t numbers[] = {0, 8};
            cnk_elect_leaders_request_topic_partitions topics[] = {{CNK_KAFKA_STRING("a"), {numbers, 2}},
                                                                   {CNK_KAFKA_STRING("b"), {numbers, 1}}};
            cnk_elect_leaders_request in = {type, {topics, 2}, 1000};
            cnk_elect_leaders_response out;
            CALL(ELECT_LEADERS, version, &in, &out);
            if (version >= 1) ck_assert_int_eq(out.error_code, type == 2 ? CNK_KAFKA_INVALID_REQUEST : 0);
            const cnk_elect_leaders_response_replica_election_result *r = out.replica_election_results.items;
            ck_assert_int_eq(r[0].partition_result.items[0].error_code,
                             type == 2 ? CNK_KAFKA_INVALID_REQUEST : CNK_KAFKA_ELECTION_NOT_NEEDED);
            ck_assert_int_eq(r[0].partition_result.items[1].error_code,
                             type == 2 ? CNK_KAFKA_INVALID_REQUEST : CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
            if (type < 2)
                ck_assert_int_eq(r[1].partition_result.items[0].error_code,
                                 type ? CNK_KAFKA_ELIGIBLE_LEADERS_NOT_AVAILABLE
                                      : CNK_KAFKA_PREFERRED_LEADER_NOT_AVAILABLE);
            in.topic_partitions.items = NULL;
            in.topic_partitions.count = -1;
            CALL(ELECT_LEADERS, version, &in, &out);
            ck_assert_int_eq(out.replica_election_results.count, 2);
            if (type < 2) ck_assert_int_eq(out.replica_election_results.items[0].partition_result.count, 0);
            ck_assert_int_eq(out.replica_election_results.items[1].partition_result.count, 1);
        }
    }
}
END_TEST

START_TEST(reassignments_and_features) {
    cnk_list_partition_reassignments_request moves = {1000, {NULL, -1}};
    cnk_list_partition_reassignments_response none;
    CALL(LIST_PARTITION_REASSIGNMENTS, 0, &moves, &none);
    ck_assert_int_eq(none.error_code, 0);
    ck_assert_int_eq(none.topics.count, 0);
    for (int version = 0; version <= 2; version++) {
        cnk_update_features_request_feature_update_key key = {CNK_KAFKA_STRING("no.such"), 1, false, 1};
        cnk_update_features_request in = {1000, {&key, 1}, false};
        cnk_update_features_response out;
        CALL(UPDATE_FEATURES, version, &in, &out);
        ck_assert_int_eq(out.error_code, CNK_KAFKA_INVALID_UPDATE_VERSION);
        ck_assert_int_eq(out.results.count, 0);
        in.feature_updates.count = 0;
        CALL(UPDATE_FEATURES, version, &in, &out);
        ck_assert_int_eq(out.error_code, 0);
    }
}
END_TEST

static cnk_describe_topic_partitions_response page(cnk_describe_topic_partitions_request_topic_request *topics,
                                                   int32_t count, int32_t limit, const char *topic, int32_t partition) {
    cnk_describe_topic_partitions_request_cursor from = {cnk_kafka_string_of(topic), partition};
    const cnk_describe_topic_partitions_request in = {{topics, count}, limit, {topic ? &from : NULL, topic ? 1 : -1}};
    cnk_describe_topic_partitions_response out;
    CALL(DESCRIBE_TOPIC_PARTITIONS, 0, &in, &out);
    return out;
}

START_TEST(describe_topic_partitions) {
    cnk_describe_topic_partitions_request_topic_request names[] = {
        {CNK_KAFKA_STRING("b")}, {CNK_KAFKA_STRING("zzz")}, {CNK_KAFKA_STRING("a")}, {CNK_KAFKA_STRING("b")}};
    cnk_describe_topic_partitions_response out = page(names, 4, 100, NULL, 0);
    ck_assert_int_eq(out.topics.count, 3); /* sorted, each once */
    ck_assert(is_text(out.topics.items[0].name, "a"));
    ck_assert_int_eq(out.topics.items[0].partitions.count, 3);
    ck_assert_int_eq(out.topics.items[0].partitions.items[2].leader_id, 7);
    ck_assert_int_eq(out.topics.items[1].partitions.items[0].error_code, CNK_KAFKA_LEADER_NOT_AVAILABLE);
    ck_assert_int_eq(out.topics.items[2].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ck_assert_int_eq(out.next_cursor.count, -1);
    /* all, page by page: every partition once, in order */
    const char *topic = NULL;
    int32_t partition = 0, seen = 0;
    char next[16];
    do {
        out = page(NULL, 0, 1, topic, partition);
        for (int32_t t = 0; t < out.topics.count; t++)
            for (int32_t i = 0; i < out.topics.items[t].partitions.count; i++, seen++)
                ck_assert_int_eq(out.topics.items[t].partitions.items[i].partition_index, seen % 3);
        if (out.next_cursor.count < 0) break;
        snprintf(next, sizeof next, "%.*s", (int)out.next_cursor.items->topic_name.len,
                 out.next_cursor.items->topic_name.data);
        topic = next;
        partition = out.next_cursor.items->partition_index;
    } while (seen < 10);
    ck_assert_int_eq(seen, 4);
    out = page(names, 1, 100, "a", 0); /* a cursor that was not asked for */
    ck_assert_int_eq(out.topics.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
    out = page(names, 1, 100, "b", -1);
    ck_assert_int_eq(out.topics.items[0].error_code, CNK_KAFKA_INVALID_REQUEST);
}
END_TEST

START_TEST(delete_records) {
    for (int version = 0; version <= 2; version++) {
        cnk_delete_records_request_delete_records_partition parts[] = {{0, 40}, {1, -1}, {2, 101}, {3, 0}};
        cnk_delete_records_request_delete_records_topic topics[] = {{CNK_KAFKA_STRING("a"), {parts, 4}},
                                                                    {CNK_KAFKA_STRING("b"), {parts, 1}}};
        cnk_delete_records_request in = {{topics, 2}, 1000};
        cnk_delete_records_response out;
        CALL(DELETE_RECORDS, version, &in, &out);
        const cnk_delete_records_response_delete_records_partition_result *p = out.topics.items[0].partitions.items;
        ck_assert_int_eq(p[0].error_code, 0);
        ck_assert_int_eq(p[0].low_watermark, 40);
        ck_assert_int_eq(p[1].low_watermark, 100);
        ck_assert_int_eq(p[2].error_code, CNK_KAFKA_OFFSET_OUT_OF_RANGE);
        ck_assert_int_eq(p[2].low_watermark, -1);
        ck_assert_int_eq(p[3].error_code, CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        ck_assert_int_eq(out.topics.items[1].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
        fake.start_error = CHRONIK_ESHUTDOWN;
        CALL(DELETE_RECORDS, version, &in, &out);
        ck_assert_int_eq(out.topics.items[0].partitions.items[0].error_code, CNK_KAFKA_NOT_LEADER_OR_FOLLOWER);
        fake.start_error = 0;
    }
    client one; /* the connection closes while the disk is waited for */
    cnk_delete_records_request_delete_records_partition part = {0, 1};
    cnk_delete_records_request_delete_records_topic topic = {CNK_KAFKA_STRING("a"), {&part, 1}};
    const cnk_delete_records_request in = {{&topic, 1}, 1000};
    fake.wait = true;
    client_open(&one, kafka);
    client_send(&one, CNK_KAFKA_API_DELETE_RECORDS, 2, 1, &in);
    ck_assert_uint_eq(fake.waiting_count, 1);
    client_close(&one);
    fake_complete(0);
}
END_TEST

/* Each allocation fails in turn: the request is answered, or the connection closed; nothing leaks (the sanitizers say). */
START_TEST(memory_runs_out) {
    cnk_create_partitions_request_create_partitions_topic topic = {CNK_KAFKA_STRING("a"), 5, {NULL, -1}};
    const cnk_create_partitions_request grow = {{&topic, 1}, 1000, false};
    const cnk_describe_log_dirs_request dirs = {{NULL, -1}};
    cnk_alter_configs_request_alterable_config option = {CNK_KAFKA_STRING("x"), CNK_KAFKA_STRING("1")};
    cnk_alter_configs_request_alter_configs_resource resource = {2, CNK_KAFKA_STRING("a"), {&option, 1}};
    const cnk_alter_configs_request alter = {{&resource, 1}, false};
    cnk_describe_topic_partitions_request_topic_request names[] = {{CNK_KAFKA_STRING("b")}, {CNK_KAFKA_STRING("a")}};
    const cnk_describe_topic_partitions_request pages = {{names, 2}, 10, {NULL, -1}};
    const struct {
        int16_t key;
        int version;
        const void *message;
    } rows[] = {{CNK_KAFKA_API_CREATE_PARTITIONS, 3, &grow},
                {CNK_KAFKA_API_DESCRIBE_LOG_DIRS, 4, &dirs},
                {CNK_KAFKA_API_ALTER_CONFIGS, 2, &alter},
                {CNK_KAFKA_API_DESCRIBE_TOPIC_PARTITIONS, 0, &pages}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool failed = true;
        for (long n = 0; failed; n++) {
            cnk_writer w;
            client one;
            client_open(&one, kafka);
            client_frame(&w, rows[i].key, rows[i].version, 1, rows[i].message);
            const long before = cnk_mem_count();
            cnk_mem_fail_at(n);
            (void)client_feed(&one, w.data, w.len, 0);
            failed = cnk_mem_count() - before > n;
            cnk_mem_fail_at(-1);
            cnk_writer_free(&w);
            client_close(&one);
            ck_assert_int_lt(n, 1000);
        }
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("kafka_admin");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, offset_for_leader_epoch);
    tcase_add_test(t, create_partitions);
    tcase_add_test(t, closed_while_waiting);
    tcase_add_test(t, incremental_alter_configs);
    tcase_add_test(t, alter_configs);
    tcase_add_test(t, list_config_resources);
    tcase_add_test(t, describe_log_dirs);
    tcase_add_test(t, describe_producers);
    tcase_add_test(t, describe_quorum);
    tcase_add_test(t, elect_leaders);
    tcase_add_test(t, reassignments_and_features);
    tcase_add_test(t, describe_topic_partitions);
    tcase_add_test(t, delete_records);
    tcase_add_test(t, memory_runs_out);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
