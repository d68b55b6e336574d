/* The one table of what is offered (K3): APIs, versions, handlers; and features. ApiVersions is made from it.
 *
 * Versions run from the oldest of Kafka 3.9, the last release that had them, to the newest stable one of 4.3. Produce
 * goes back to 0, for ever: librdkafka turns compression off where it is not offered (KAFKA-18659). */
#include <string.h>

#include "kafka/internal.h"

#define API(NAME, name, min, max, in_place)                                                                            \
    {CNK_KAFKA_API_##NAME, min, max, in_place, &cnk_##name##_request_message, &cnk_##name##_response_message,          \
     cnk_kafka_handle_##name}

const cnk_kafka_api cnk_kafka_apis[] = {
    API(PRODUCE, produce, 0, 13, true),
    API(FETCH, fetch, 0, 18, false),
    API(LIST_OFFSETS, list_offsets, 0, 11, false),
    API(METADATA, metadata, 0, 13, false),
    API(OFFSET_COMMIT, offset_commit, 1, 10, false), /* 0 and OffsetFetch 0 were ZooKeeper's */
    API(OFFSET_FETCH, offset_fetch, 1, 10, false),
    API(FIND_COORDINATOR, find_coordinator, 0, 6, false),
    API(JOIN_GROUP, join_group, 0, 9, false),
    API(HEARTBEAT, heartbeat, 0, 4, false),
    API(LEAVE_GROUP, leave_group, 0, 5, false),
    API(SYNC_GROUP, sync_group, 0, 5, false),
    API(DESCRIBE_GROUPS, describe_groups, 0, 6, false),
    API(LIST_GROUPS, list_groups, 0, 5, false),
    API(API_VERSIONS, api_versions, 0, 4, false),
    API(CREATE_TOPICS, create_topics, 0, 7, false),
    API(DELETE_TOPICS, delete_topics, 0, 6, false),
    API(INIT_PRODUCER_ID, init_producer_id, 0, 5, false), /* 6 is unstable in Kafka 4.3 */
    API(DESCRIBE_CONFIGS, describe_configs, 0, 4, false),
    API(DELETE_GROUPS, delete_groups, 0, 2, false),
    API(OFFSET_DELETE, offset_delete, 0, 0, false),
    API(DESCRIBE_CLUSTER, describe_cluster, 0, 2, false),
    API(DELETE_RECORDS, delete_records, 0, 2, false),
    API(OFFSET_FOR_LEADER_EPOCH, offset_for_leader_epoch, 0, 4, false),
    API(ALTER_CONFIGS, alter_configs, 0, 2, false),
    API(DESCRIBE_LOG_DIRS, describe_log_dirs, 0, 5, false),
    API(CREATE_PARTITIONS, create_partitions, 0, 3, false),
    API(ELECT_LEADERS, elect_leaders, 0, 2, false),
    API(INCREMENTAL_ALTER_CONFIGS, incremental_alter_configs, 0, 1, false),
    API(LIST_PARTITION_REASSIGNMENTS, list_partition_reassignments, 0, 0, false),
    API(DESCRIBE_QUORUM, describe_quorum, 0, 2, false),
    API(UPDATE_FEATURES, update_features, 0, 2, false),
    API(DESCRIBE_PRODUCERS, describe_producers, 0, 0, false),
    API(LIST_CONFIG_RESOURCES, list_config_resources, 0, 1, false),
    API(DESCRIBE_TOPIC_PARTITIONS, describe_topic_partitions, 0, 0, false),
};
const size_t cnk_kafka_api_count = sizeof cnk_kafka_apis / sizeof *cnk_kafka_apis;
_Static_assert(sizeof cnk_kafka_apis / sizeof *cnk_kafka_apis <= CNK_KAFKA_APIS_MAX, "each has a row in the counts");

const cnk_kafka_api *cnk_kafka_api_find(int16_t key) {
    for (size_t i = 0; i < cnk_kafka_api_count; i++)
        if (cnk_kafka_apis[i].key == key) return &cnk_kafka_apis[i];
    return NULL;
}

const char *cnk_kafka_api_name(size_t row, size_t *ret_len) {
    if (row >= cnk_kafka_api_count) return NULL;
    const char *name = cnk_kafka_apis[row].request->root->name;
    *ret_len = strlen(name) - strlen("Request");
    return name;
}

const cnk_kafka_feature cnk_kafka_features[] = {
    {"transaction.version", 0, 2, 2, false}, /* AddPartitionsToTxn, EndTxn, … */
    {"group.version", 0, 1, 1, false},       /* ConsumerGroupHeartbeat, … */
    {"share.version", 0, 1, 1, false},       /* ShareFetch, … */
    {"streams.version", 0, 1, 1, false},     /* StreamsGroupHeartbeat, … */
};
const size_t cnk_kafka_feature_count = sizeof cnk_kafka_features / sizeof *cnk_kafka_features;

bool cnk_kafka_feature_shown(const cnk_kafka_feature *f, int version) {
    return f->served && version >= 3 && (version >= 4 || f->min > 0);
}
