/* OffsetForLeaderEpoch (KIP-101, KIP-320): where a leader epoch ends, so that a consumer notices a log that was cut. */
#include "kafka/internal.h"

typedef cnk_offset_for_leader_epoch_response_epoch_end_offset part_out;

typedef struct epoch_state {
    cnk_list_offsets op;
    cnk_offset_for_leader_epoch_request in;
} epoch_state;

static int answer(cnk_kafka_request *r, epoch_state *s) {
    cnk_offset_for_leader_epoch_response out;
    const cnk_list_offsets_part *p = s->op.parts;
    cnk_kafka_defaults(cnk_offset_for_leader_epoch_response_message.root, &out);
    out.topics.items = cnk_kafka_request_alloc(r, (size_t)s->in.topics.count, sizeof *out.topics.items);
    if (!out.topics.items) return CHRONIK_ENOMEM;
    for (; out.topics.count < s->in.topics.count; out.topics.count++) {
        const cnk_offset_for_leader_epoch_request_offset_for_leader_topic *in = &s->in.topics.items[out.topics.count];
        cnk_offset_for_leader_epoch_response_offset_for_leader_topic_result *topic =
            &out.topics.items[out.topics.count];
        topic->topic = in->topic;
        topic->partitions.count = in->partitions.count;
        topic->partitions.items = cnk_kafka_request_alloc(r, (size_t)in->partitions.count, sizeof(part_out));
        if (!topic->partitions.items) return CHRONIK_ENOMEM;
        for (int32_t i = 0; i < in->partitions.count; i++, p++)
            topic->partitions.items[i] = (part_out){.error_code = cnk_kafka_error(p->error),
                                                    .partition = p->partition,
                                                    .leader_epoch = p->error ? -1 : p->offset_epoch,
                                                    .end_offset = p->error ? -1 : p->offset};
    }
    return cnk_kafka_answer(r, &out);
}

static void listed(cnk_list_offsets *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    epoch_state *s = r->op;
    cnk_broker_list_offsets_cancel(&s->op);
}

static int fill_parts(cnk_kafka_request *r, epoch_state *s) {
    size_t count = 0;
    for (int32_t t = 0; t < s->in.topics.count; t++) count += (size_t)s->in.topics.items[t].partitions.count;
    if (count > CNK_KAFKA_LIST_PARTS_MAX) return CHRONIK_ETOOLARGE;
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->op.parts) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_offset_for_leader_epoch_request_offset_for_leader_topic *topic = &s->in.topics.items[t];
        for (int32_t i = 0; i < topic->partitions.count; i++) {
            const cnk_offset_for_leader_epoch_request_offset_for_leader_partition *p = &topic->partitions.items[i];
            s->op.parts[s->op.part_count++] = (cnk_list_offsets_part){.topic = cnk_kafka_text_of(topic->topic),
                                                                      .partition = p->partition,
                                                                      .leader_epoch = p->current_leader_epoch,
                                                                      .timestamp = CNK_OFFSET_EPOCH_END,
                                                                      .asked_epoch = p->leader_epoch};
        }
    }
    return 0;
}

int cnk_kafka_handle_offset_for_leader_epoch(cnk_kafka_request *r) {
    epoch_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = fill_parts(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.done = listed;
    s->op.arg = r;
    r->op = s;
    r->cancel = cancel;
    code = s->op.part_count ? cnk_broker_list_offsets(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
