/* DescribeCluster: the brokers, as clients reach them, and who takes administrative requests. */
#include "kafka/internal.h"

#define ENDPOINT_BROKERS 1
#define ENDPOINT_CONTROLLERS 2

static int answer_error(cnk_kafka_request *r, int16_t error, cnk_kafka_string text) {
    cnk_describe_cluster_response out;
    cnk_kafka_defaults(cnk_describe_cluster_response_message.root, &out);
    out.error_code = error;
    out.error_message = text;
    const int code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}

int cnk_kafka_handle_describe_cluster(cnk_kafka_request *r) {
    cnk_describe_cluster_request in;
    cnk_describe_cluster_response out;
    cnk_describe_cluster_response_describe_cluster_broker self = {.broker_id = cnk_kafka_node_id(r)};
    char cluster[CNK_UUID_TEXT_SIZE];
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    if (in.endpoint_type == ENDPOINT_CONTROLLERS)
        return answer_error(r, CNK_KAFKA_MISMATCHED_ENDPOINT_TYPE,
                            CNK_KAFKA_STRING("The request was sent to an endpoint of type BROKER, but we wanted an "
                                             "endpoint of type CONTROLLER"));
    if (in.endpoint_type != ENDPOINT_BROKERS)
        return answer_error(r, CNK_KAFKA_UNSUPPORTED_ENDPOINT_TYPE, CNK_KAFKA_STRING("Unsupported endpoint type"));
    cnk_kafka_defaults(cnk_describe_cluster_response_message.root, &out);
    cnk_kafka_advertised(r, &self.host, &self.port);
    self.rack = cnk_kafka_string_of(cnk_kafka_rack(r));
    cnk_uuid_format(&cnk_shard_image(cnk_kafka_request_shard(r))->cluster_id, cluster);
    out.brokers.items = &self;
    out.brokers.count = 1;
    out.cluster_id = cnk_kafka_string_of(cluster);
    out.controller_id = self.broker_id;
    if (in.include_cluster_authorized_operations) out.cluster_authorized_operations = CNK_KAFKA_CLUSTER_OPERATIONS;
    code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
