/* OffsetDelete: offsets of a group are deleted. Partitions that do not exist are refused here. */
#include "kafka/internal.h"

typedef cnk_offset_delete_response_offset_delete_response_topic topic_out;
typedef cnk_offset_delete_response_offset_delete_response_partition part_out;

typedef struct delete_state {
    cnk_kafka_groups groups;
    cnk_offset_delete_request in;
    topic_out *out;
    part_out ***parts; /* [topic of the call][offset]: its answer */
} delete_state;

static int answer(cnk_kafka_request *r) {
    delete_state *s = r->op;
    const cnk_coord_call *call = &s->groups.calls[0].call;
    cnk_offset_delete_response out;
    cnk_kafka_defaults(cnk_offset_delete_response_message.root, &out);
    out.error_code = cnk_kafka_group_error(call->error);
    if (out.error_code) return cnk_kafka_answer(r, &out);
    for (size_t t = 0; t < call->topic_count; t++)
        for (size_t i = 0; i < call->topics[t].offset_count; i++)
            s->parts[t][i]->error_code = cnk_kafka_group_error(call->topics[t].offsets[i].error);
    out.topics.items = s->out;
    out.topics.count = s->in.topics.count > 0 ? s->in.topics.count : 0;
    return cnk_kafka_answer(r, &out);
}

static int collect_topic(cnk_kafka_request *r, delete_state *s, size_t t, cnk_coord_call *call) {
    const cnk_offset_delete_request_offset_delete_request_topic *in = &s->in.topics.items[t];
    const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(r));
    const cnk_meta_topic *topic = cnk_meta_topic_by_name(image, in->name.data ? in->name.data : "", (size_t)in->name.len);
    const size_t count = in->partitions.count > 0 ? (size_t)in->partitions.count : 0;
    cnk_coord_topic *to = &call->topics[call->topic_count];
    part_out **parts = s->parts[call->topic_count] = cnk_kafka_request_alloc(r, count, sizeof *parts);
    s->out[t].name = in->name;
    s->out[t].partitions.items = cnk_kafka_request_alloc(r, count, sizeof(part_out));
    to->offsets = cnk_kafka_request_alloc(r, count, sizeof *to->offsets);
    if (!parts || !s->out[t].partitions.items || !to->offsets) return CHRONIK_ENOMEM;
    s->out[t].partitions.count = (int32_t)count;
    to->name = cnk_kafka_text_of(in->name);
    for (size_t i = 0; i < count; i++) {
        part_out *out = &s->out[t].partitions.items[i];
        out->partition_index = in->partitions.items[i].partition_index;
        if (!topic || out->partition_index < 0 || out->partition_index >= topic->partition_count) {
            out->error_code = CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
            continue;
        }
        parts[to->offset_count] = out;
        to->offsets[to->offset_count++].partition = out->partition_index;
    }
    call->topic_count += to->offset_count > 0;
    return 0;
}

int cnk_kafka_handle_offset_delete(cnk_kafka_request *r) {
    delete_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    size_t offsets = 0;
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, 1, answer);
    if (code) return code;
    cnk_coord_call *call = &s->groups.calls[0].call;
    const size_t count = s->in.topics.count > 0 ? (size_t)s->in.topics.count : 0;
    for (size_t t = 0; t < count; t++) offsets += (size_t)s->in.topics.items[t].partitions.count;
    if (offsets > CNK_KAFKA_OFFSETS_MAX) return CHRONIK_ETOOLARGE;
    call->kind = CNK_COORD_OFFSET_DELETE;
    call->group = cnk_kafka_text_of(s->in.group_id);
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    s->parts = cnk_kafka_request_alloc(r, count, sizeof *s->parts);
    call->topics = cnk_kafka_request_alloc(r, count, sizeof *call->topics);
    if (!s->out || !s->parts || !call->topics) return CHRONIK_ENOMEM;
    for (size_t t = 0; t < count && code == 0; t++) code = collect_topic(r, s, t, call);
    return code ? code : cnk_kafka_groups_start(r, &s->groups);
}
