/* ElectLeaders (KIP-183, KIP-460): every partition has one replica, which leads by itself as soon as it can: nothing is
 * ever to be done, and what cannot lead cannot be made to. */
#include <inttypes.h>
#include <stdio.h>

#include "kafka/internal.h"

enum { ELECT_PREFERRED = 0, ELECT_UNCLEAN = 1 };

typedef cnk_elect_leaders_response_replica_election_result topic_out;
typedef cnk_elect_leaders_response_partition_result part_out;

static int elect(cnk_kafka_request *r, const cnk_elect_leaders_request *in, const cnk_meta_topic *t,
                 cnk_kafka_string topic, int32_t partition, part_out *out) {
    const int8_t type = in->election_type;
    *out = (part_out){.partition_id = partition, .error_message = CNK_KAFKA_STRING_NULL};
    if (in->timeout_ms <= 0) {
        out->error_code = CNK_KAFKA_REQUEST_TIMED_OUT;
    } else if (type != ELECT_PREFERRED && type != ELECT_UNCLEAN) {
        out->error_code = CNK_KAFKA_INVALID_REQUEST;
        out->error_message = CNK_KAFKA_STRING("Unknown election type");
    } else if (!t || partition < 0 || partition >= t->partition_count) {
        out->error_code = CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        const size_t size = (size_t)topic.len + sizeof "No such partition as -2147483648";
        char *text = cnk_kafka_request_alloc(r, size, 1);
        if (!text) return CHRONIK_ENOMEM;
        if (t) snprintf(text, size, "No such partition as %.*s-%" PRId32, (int)topic.len, topic.data, partition);
        else snprintf(text, size, "No such topic as %.*s", (int)topic.len, topic.data);
        out->error_message = cnk_kafka_string_of(text);
    } else if (atomic_load(&t->partitions[partition].leader->node) >= 0) {
        out->error_code = CNK_KAFKA_ELECTION_NOT_NEEDED;
    } else {
        out->error_code = type == ELECT_PREFERRED ? CNK_KAFKA_PREFERRED_LEADER_NOT_AVAILABLE
                                                  : CNK_KAFKA_ELIGIBLE_LEADERS_NOT_AVAILABLE;
    }
    return 0;
}

/* Of all: those that lead, as they should, are not named. */
static int fill_all(cnk_kafka_request *r, const cnk_elect_leaders_request *in, const cnk_meta_image *image,
                    cnk_elect_leaders_response *out) {
    out->replica_election_results.items = cnk_kafka_request_alloc(r, image->topic_count, sizeof(topic_out));
    if (!out->replica_election_results.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < image->topic_count; i++) {
        const cnk_meta_topic *t = image->by_name[i];
        if (!t->online) continue;
        topic_out *topic = &out->replica_election_results.items[out->replica_election_results.count++];
        topic->topic = (cnk_kafka_string){t->name, t->name_len};
        topic->partition_result.items = cnk_kafka_request_alloc(r, (size_t)t->partition_count, sizeof(part_out));
        if (!topic->partition_result.items) return CHRONIK_ENOMEM;
        for (int32_t p = 0; p < t->partition_count; p++) {
            part_out *part = &topic->partition_result.items[topic->partition_result.count];
            if (elect(r, in, t, topic->topic, p, part) != 0) return CHRONIK_ENOMEM;
            topic->partition_result.count += part->error_code != CNK_KAFKA_ELECTION_NOT_NEEDED;
        }
    }
    return 0;
}

static int fill_named(cnk_kafka_request *r, const cnk_elect_leaders_request *in, const cnk_meta_image *image,
                      cnk_elect_leaders_response *out) {
    out->replica_election_results.items =
        cnk_kafka_request_alloc(r, (size_t)in->topic_partitions.count, sizeof(topic_out));
    if (!out->replica_election_results.items) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < in->topic_partitions.count; i++) {
        const cnk_elect_leaders_request_topic_partitions *from = &in->topic_partitions.items[i];
        const cnk_meta_topic *t =
            cnk_meta_topic_by_name(image, from->topic.len > 0 ? from->topic.data : "", (size_t)from->topic.len);
        topic_out *topic = &out->replica_election_results.items[out->replica_election_results.count++];
        topic->topic = from->topic;
        topic->partition_result.items = cnk_kafka_request_alloc(r, (size_t)from->partitions.count, sizeof(part_out));
        if (!topic->partition_result.items) return CHRONIK_ENOMEM;
        for (int32_t p = 0; p < from->partitions.count; p++)
            if (elect(r, in, t, from->topic, from->partitions.items[p],
                      &topic->partition_result.items[topic->partition_result.count++]) != 0)
                return CHRONIK_ENOMEM;
    }
    return 0;
}

int cnk_kafka_handle_elect_leaders(cnk_kafka_request *r) {
    cnk_elect_leaders_request in;
    cnk_elect_leaders_response out;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    cnk_kafka_defaults(cnk_elect_leaders_response_message.root, &out);
    cnk_meta_image *image = cnk_meta_image_ref(cnk_shard_image(cnk_kafka_request_shard(r)));
    if (in.timeout_ms <= 0) out.error_code = r->version >= 1 ? CNK_KAFKA_REQUEST_TIMED_OUT : CNK_KAFKA_NONE;
    else if (in.election_type != ELECT_PREFERRED && in.election_type != ELECT_UNCLEAN)
        out.error_code = CNK_KAFKA_INVALID_REQUEST;
    if (in.topic_partitions.count >= 0) code = fill_named(r, &in, image, &out);
    else if (in.timeout_ms > 0) code = fill_all(r, &in, image, &out);
    if (code == 0) code = cnk_kafka_answer(r, &out);
    cnk_meta_image_unref(image);
    return code ? code : CNK_DONE;
}
