/* DescribeProducers (KIP-664): the idempotent producers that partitions remember. No transaction is ever open yet. */
#include "kafka/internal.h"

typedef cnk_describe_producers_response_partition_response part_out;
typedef cnk_describe_producers_response_producer_state producer_out;

typedef struct producers_state {
    cnk_describe op;
    cnk_describe_producers_request in;
} producers_state;

static int fill_part(cnk_kafka_request *r, const cnk_describe_part *p, part_out *out) {
    out->partition_index = p->partition;
    out->error_code = cnk_kafka_error(p->error);
    out->error_message = CNK_KAFKA_STRING_NULL;
    if (p->error == CHRONIK_EUNKNOWNTOPIC && cnk_topic_name_check(p->topic.p ? p->topic.p : "", p->topic.len, NULL))
        out->error_code = CNK_KAFKA_INVALID_TOPIC_EXCEPTION;
    if (p->error) return 0;
    out->active_producers.items = cnk_kafka_request_alloc(r, p->producer_count, sizeof(producer_out));
    if (!out->active_producers.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < p->producer_count; i++) {
        const cnk_log_producer *from = &p->producers[i];
        out->active_producers.items[out->active_producers.count++] =
            (producer_out){.producer_id = from->id,
                           .producer_epoch = from->epoch,
                           .last_sequence = from->last_sequence,
                           .last_timestamp = from->last_timestamp,
                           .coordinator_epoch = -1,
                           .current_txn_start_offset = -1};
    }
    return 0;
}

static int answer(cnk_kafka_request *r, producers_state *s) {
    cnk_describe_producers_response out;
    const cnk_describe_part *p = s->op.parts;
    cnk_kafka_defaults(cnk_describe_producers_response_message.root, &out);
    out.topics.items = cnk_kafka_request_alloc(r, (size_t)s->in.topics.count, sizeof *out.topics.items);
    if (!out.topics.items) return CHRONIK_ENOMEM;
    for (; out.topics.count < s->in.topics.count; out.topics.count++) {
        const cnk_describe_producers_request_topic_request *in = &s->in.topics.items[out.topics.count];
        cnk_describe_producers_response_topic_response *topic = &out.topics.items[out.topics.count];
        topic->name = in->name;
        topic->partitions.items = cnk_kafka_request_alloc(r, (size_t)in->partition_indexes.count, sizeof(part_out));
        if (!topic->partitions.items) return CHRONIK_ENOMEM;
        topic->partitions.count = in->partition_indexes.count;
        for (int32_t i = 0; i < in->partition_indexes.count; i++, p++) {
            const int code = fill_part(r, p, &topic->partitions.items[i]);
            if (code) return code;
        }
    }
    return cnk_kafka_answer(r, &out);
}

static void described(cnk_describe *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void release(cnk_kafka_request *r) {
    producers_state *s = r->op;
    cnk_broker_describe_end(&s->op);
}

static int fill_parts(cnk_kafka_request *r, producers_state *s) {
    size_t count = 0;
    for (int32_t t = 0; t < s->in.topics.count; t++) count += (size_t)s->in.topics.items[t].partition_indexes.count;
    if (count > CNK_KAFKA_LIST_PARTS_MAX) return CHRONIK_ETOOLARGE;
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->op.parts) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_describe_producers_request_topic_request *topic = &s->in.topics.items[t];
        for (int32_t i = 0; i < topic->partition_indexes.count; i++)
            s->op.parts[s->op.part_count++] = (cnk_describe_part){.topic = cnk_kafka_text_of(topic->name),
                                                                  .partition = topic->partition_indexes.items[i]};
    }
    return 0;
}

int cnk_kafka_handle_describe_producers(cnk_kafka_request *r) {
    producers_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = fill_parts(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.producers = true;
    s->op.done = described;
    s->op.arg = r;
    r->op = s;
    code = s->op.part_count ? cnk_broker_describe(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code >= 0 && s->op.part_count) r->release = release;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
