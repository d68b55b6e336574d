/* DeleteRecords (KIP-107): moves the start of partitions. A partition that is named twice is answered each time. */
#include "kafka/internal.h"

typedef cnk_delete_records_response_delete_records_partition_result part_out;

typedef struct records_state {
    cnk_delete_records op;
    cnk_delete_records_request in;
} records_state;

static int answer(cnk_kafka_request *r, records_state *s) {
    cnk_delete_records_response out;
    const cnk_delete_records_part *p = s->op.parts;
    cnk_kafka_defaults(cnk_delete_records_response_message.root, &out);
    out.topics.items = cnk_kafka_request_alloc(r, (size_t)s->in.topics.count, sizeof *out.topics.items);
    if (!out.topics.items) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_delete_records_request_delete_records_topic *in = &s->in.topics.items[t];
        if (in->partitions.count == 0) continue; /* as Kafka, which groups its answers by topic */
        cnk_delete_records_response_delete_records_topic_result *topic = &out.topics.items[out.topics.count];
        topic->name = in->name;
        topic->partitions.count = in->partitions.count;
        topic->partitions.items = cnk_kafka_request_alloc(r, (size_t)in->partitions.count, sizeof(part_out));
        if (!topic->partitions.items) return CHRONIK_ENOMEM;
        for (int32_t i = 0; i < in->partitions.count; i++, p++)
            topic->partitions.items[i] = (part_out){.partition_index = p->partition,
                                                    .low_watermark = p->error ? -1 : p->low_watermark,
                                                    .error_code = cnk_kafka_error(p->error)};
        out.topics.count++;
    }
    return cnk_kafka_answer(r, &out);
}

static void deleted(cnk_delete_records *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static int fill_parts(cnk_kafka_request *r, records_state *s) {
    size_t count = 0;
    for (int32_t t = 0; t < s->in.topics.count; t++) count += (size_t)s->in.topics.items[t].partitions.count;
    if (count > CNK_KAFKA_LIST_PARTS_MAX) return CHRONIK_ETOOLARGE;
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->op.parts) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_delete_records_request_delete_records_topic *topic = &s->in.topics.items[t];
        for (int32_t i = 0; i < topic->partitions.count; i++)
            s->op.parts[s->op.part_count++] =
                (cnk_delete_records_part){.topic = cnk_kafka_text_of(topic->name),
                                          .partition = topic->partitions.items[i].partition_index,
                                          .offset = topic->partitions.items[i].offset};
    }
    return 0;
}

int cnk_kafka_handle_delete_records(cnk_kafka_request *r) {
    records_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = fill_parts(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.done = deleted;
    s->op.arg = r;
    r->op = s;
    code = s->op.part_count ? cnk_broker_delete_records(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
