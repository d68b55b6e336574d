/* OffsetCommit: a group's offsets are stored; from version 10 on topics come by id. Partitions that do not exist are refused
 * here, as Kafka's broker does; the others go to the group's coordinator. */
#include "kafka/internal.h"

typedef cnk_offset_commit_request_offset_commit_request_topic topic_in;
typedef cnk_offset_commit_response_offset_commit_response_topic topic_out;
typedef cnk_offset_commit_response_offset_commit_response_partition part_out;

typedef struct commit_state {
    cnk_kafka_groups groups;
    cnk_offset_commit_request in;
    topic_out *out;          /* the request's topics that have partitions, in order */
    int32_t out_count;
    cnk_coord_topic *topics; /* those of them that the coordinator is asked, with offsets in the order of `parts` */
    part_out ***parts;       /* [topic][offset]: its answer */
} commit_state;

static int answer(cnk_kafka_request *r) {
    commit_state *s = r->op;
    cnk_offset_commit_response out;
    const cnk_coord_call *call = &s->groups.calls[0].call;
    for (size_t t = 0; t < call->topic_count; t++)
        for (size_t i = 0; i < call->topics[t].offset_count; i++)
            s->parts[t][i]->error_code =
                cnk_kafka_group_error(call->error ? call->error : call->topics[t].offsets[i].error);
    cnk_kafka_defaults(cnk_offset_commit_response_message.root, &out);
    out.topics.items = s->out;
    out.topics.count = s->out_count;
    return cnk_kafka_answer(r, &out);
}

static const cnk_meta_topic *find(const cnk_kafka_request *r, const topic_in *in) {
    const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(r));
    if (r->version >= 10) return cnk_meta_topic_by_id(image, &in->topic_id);
    return cnk_meta_topic_by_name(image, in->name.data ? in->name.data : "", (size_t)in->name.len);
}

/* One topic of the request; the coordinator's part of it goes to s->topics[n]. */
static int collect_topic(cnk_kafka_request *r, commit_state *s, const topic_in *in, topic_out *out, size_t *n) {
    const size_t count = in->partitions.count > 0 ? (size_t)in->partitions.count : 0;
    const cnk_meta_topic *topic = find(r, in);
    cnk_coord_topic *to = &s->topics[*n];
    *out = (topic_out){.name = in->name, .topic_id = in->topic_id};
    out->partitions.items = cnk_kafka_request_alloc(r, count, sizeof(part_out));
    to->offsets = cnk_kafka_request_alloc(r, count, sizeof *to->offsets);
    s->parts[*n] = cnk_kafka_request_alloc(r, count, sizeof(part_out *));
    if (!out->partitions.items || !to->offsets || !s->parts[*n]) return CHRONIK_ENOMEM;
    out->partitions.count = in->partitions.count;
    for (size_t i = 0; i < count; i++) {
        const cnk_offset_commit_request_offset_commit_request_partition *p = &in->partitions.items[i];
        part_out *part = &out->partitions.items[i];
        part->partition_index = p->partition_index;
        if (!topic || p->partition_index < 0 || p->partition_index >= topic->partition_count) {
            part->error_code = !topic && r->version >= 10 ? CNK_KAFKA_UNKNOWN_TOPIC_ID
                                                          : CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
            continue;
        }
        s->parts[*n][to->offset_count] = part;
        to->offsets[to->offset_count++] = (cnk_coord_offset){.partition = p->partition_index,
                                                             .offset = p->committed_offset,
                                                             .leader_epoch = p->committed_leader_epoch,
                                                             .timestamp_ms = p->commit_timestamp,
                                                             .metadata = cnk_kafka_text_of(p->committed_metadata)};
    }
    if (to->offset_count == 0) return 0;
    if (!cnk_kafka_request_text(r, (cnk_kafka_string){topic->name, topic->name_len}, &to->name)) return CHRONIK_ENOMEM;
    to->id = topic->id;
    ++*n;
    return 0;
}

static int collect(cnk_kafka_request *r, commit_state *s) {
    const size_t count = s->in.topics.count > 0 ? (size_t)s->in.topics.count : 0;
    cnk_coord_call *call = &s->groups.calls[0].call;
    size_t offsets = 0;
    for (size_t t = 0; t < count; t++) offsets += (size_t)s->in.topics.items[t].partitions.count;
    if (offsets > CNK_KAFKA_OFFSETS_MAX) return CHRONIK_ETOOLARGE;
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    s->topics = cnk_kafka_request_alloc(r, count, sizeof *s->topics);
    s->parts = cnk_kafka_request_alloc(r, count, sizeof *s->parts);
    if (!s->out || !s->topics || !s->parts) return CHRONIK_ENOMEM;
    for (size_t t = 0; t < count; t++) {
        if (s->in.topics.items[t].partitions.count <= 0) continue;
        const int code = collect_topic(r, s, &s->in.topics.items[t], &s->out[s->out_count++], &call->topic_count);
        if (code) return code;
    }
    call->topics = s->topics;
    return 0;
}

int cnk_kafka_handle_offset_commit(cnk_kafka_request *r) {
    commit_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, 1, answer);
    if (code == 0) code = collect(r, s);
    if (code) return code;
    cnk_coord_call *call = &s->groups.calls[0].call;
    call->kind = CNK_COORD_OFFSET_COMMIT;
    call->group = cnk_kafka_text_of(s->in.group_id);
    call->member_id = cnk_kafka_text_of(s->in.member_id);
    call->instance_id = cnk_kafka_text_of(s->in.group_instance_id);
    call->generation = s->in.generation_id_or_member_epoch;
    call->retention_ms = s->in.retention_time_ms;
    if (call->topic_count == 0) { /* nothing is left for the coordinator */
        code = answer(r);
        return code ? code : CNK_DONE;
    }
    return cnk_kafka_groups_start(r, &s->groups);
}
