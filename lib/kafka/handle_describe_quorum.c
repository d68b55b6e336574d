/* DescribeQuorum (KIP-595, KIP-853): the group of the metadata, whose one voter is this node. An index of the metadata
 * stands for the offset that Kafka's log of it would have. */
#include <string.h>

#include "kafka/internal.h"

#define METADATA_TOPIC "__cluster_metadata"

typedef cnk_describe_quorum_response_partition_data part_out;
typedef cnk_describe_quorum_response_topic_data topic_out;

/* Kafka answers for its one partition, asked for alone. */
static bool is_metadata(const cnk_describe_quorum_request *in) {
    const cnk_describe_quorum_request_topic_data *t = in->topics.items;
    return in->topics.count == 1 && t->topic_name.len == sizeof METADATA_TOPIC - 1 &&
           memcmp(t->topic_name.data, METADATA_TOPIC, sizeof METADATA_TOPIC - 1) == 0 && t->partitions.count == 1 &&
           t->partitions.items[0].partition_index == 0;
}

static int answer_unknown(cnk_kafka_request *r, const cnk_describe_quorum_request *in,
                          cnk_describe_quorum_response *out) {
    out->topics.items = cnk_kafka_request_alloc(r, (size_t)in->topics.count, sizeof(topic_out));
    if (!out->topics.items) return CHRONIK_ENOMEM;
    for (; out->topics.count < in->topics.count; out->topics.count++) {
        const cnk_describe_quorum_request_topic_data *from = &in->topics.items[out->topics.count];
        topic_out *to = &out->topics.items[out->topics.count];
        to->topic_name = from->topic_name;
        to->partitions.items = cnk_kafka_request_alloc(r, (size_t)from->partitions.count, sizeof(part_out));
        if (!to->partitions.items) return CHRONIK_ENOMEM;
        for (; to->partitions.count < from->partitions.count; to->partitions.count++)
            to->partitions.items[to->partitions.count] =
                (part_out){.partition_index = from->partitions.items[to->partitions.count].partition_index,
                           .error_code = CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
                           .error_message = CNK_KAFKA_STRING_NULL};
    }
    return cnk_kafka_answer(r, out);
}

int cnk_kafka_handle_describe_quorum(cnk_kafka_request *r) {
    cnk_describe_quorum_request in;
    cnk_describe_quorum_response out;
    cnk_quorum q;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    cnk_kafka_defaults(cnk_describe_quorum_response_message.root, &out);
    out.error_message = CNK_KAFKA_STRING_NULL;
    if (!is_metadata(&in)) {
        code = answer_unknown(r, &in, &out);
        return code ? code : CNK_DONE;
    }
    cnk_shard *shard = cnk_kafka_request_shard(r);
    const chronik_loop *loop = cnk_shard_loop(shard);
    const int64_t now = loop->ops->wall_ms(loop->self);
    cnk_broker_quorum(shard, &q);
    cnk_describe_quorum_response_replica_state self = {.replica_id = cnk_kafka_node_id(r),
                                                       .replica_directory_id = *q.directory,
                                                       .log_end_offset = (int64_t)q.commit_index + 1,
                                                       .last_fetch_timestamp = now,
                                                       .last_caught_up_timestamp = now};
    part_out part = {.error_message = CNK_KAFKA_STRING_NULL,
                     .leader_id = q.leader,
                     .leader_epoch = q.epoch,
                     .high_watermark = self.log_end_offset,
                     .current_voters = {&self, 1}};
    topic_out topic = {.topic_name = CNK_KAFKA_STRING(METADATA_TOPIC), .partitions = {&part, 1}};
    cnk_kafka_string host;
    int32_t port;
    cnk_kafka_advertised(r, &host, &port);
    cnk_describe_quorum_response_listener listener = {cnk_kafka_string_from(r->context.listener), host, (uint16_t)port};
    cnk_describe_quorum_response_node node = {.node_id = self.replica_id, .listeners = {&listener, 1}};
    out.topics.items = &topic;
    out.topics.count = 1;
    if (r->version >= 2) {
        out.nodes.items = &node;
        out.nodes.count = 1;
    } else {
        self.replica_directory_id = (cnk_uuid){{0}};
    }
    code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
