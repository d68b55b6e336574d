/* CreatePartitions (KIP-195): more partitions for topics. A topic that is named twice is refused, and answered once. */
#include "base/map.h"
#include "kafka/internal.h"

typedef cnk_create_partitions_request_create_partitions_topic topic_in;
typedef cnk_create_partitions_response_create_partitions_topic_result topic_out;

typedef struct grow_state {
    cnk_create_partitions op;
    cnk_create_partitions_request in;
    topic_out *out; /* one for each name, in the request's order */
    int32_t out_count;
    topic_out **answers; /* of op.topics */
} grow_state;

static void out_error(topic_out *out, int16_t error, cnk_kafka_string text) {
    out->error_code = error;
    out->error_message = text;
}

static int answer(cnk_kafka_request *r, grow_state *s) {
    cnk_create_partitions_response out;
    for (size_t i = 0; i < s->op.topic_count; i++) {
        const cnk_grow_topic *t = &s->op.topics[i];
        if (t->error)
            out_error(s->answers[i], cnk_kafka_error(t->error),
                      cnk_kafka_string_of(t->error_text[0] ? t->error_text : NULL));
    }
    cnk_kafka_defaults(cnk_create_partitions_response_message.root, &out);
    out.results.items = s->out;
    out.results.count = s->out_count;
    return cnk_kafka_answer(r, &out);
}

static void grown(cnk_create_partitions *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    grow_state *s = r->op;
    cnk_broker_create_partitions_cancel(&s->op);
}

static int fill_topic(cnk_kafka_request *r, const topic_in *in, cnk_grow_topic *t) {
    t->name = cnk_kafka_text_of(in->name);
    t->count = in->count;
    t->assigned = in->assignments.count >= 0;
    if (in->assignments.count <= 0) return 0;
    cnk_topic_assignment *assignments = cnk_kafka_request_alloc(r, (size_t)in->assignments.count, sizeof *assignments);
    if (!assignments) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < in->assignments.count; i++)
        assignments[i] = (cnk_topic_assignment){.nodes = in->assignments.items[i].broker_ids.items,
                                                .node_count = (size_t)in->assignments.items[i].broker_ids.count};
    t->assignments = assignments;
    t->assignment_count = (size_t)in->assignments.count;
    return 0;
}

static int collect(cnk_kafka_request *r, grow_state *s) {
    const size_t count = (size_t)s->in.topics.count;
    cnk_map first = {0};
    int code = 0;
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    s->op.topics = cnk_kafka_request_alloc(r, count, sizeof *s->op.topics);
    s->answers = cnk_kafka_request_alloc(r, count, sizeof *s->answers);
    if (!s->out || !s->op.topics || !s->answers) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < count && code == 0; i++) {
        const cnk_kafka_string name = s->in.topics.items[i].name;
        const char *key = name.data ? name.data : "";
        topic_out *out = cnk_map_get_bytes(&first, key, (size_t)name.len);
        if (out) {
            out_error(out, CNK_KAFKA_INVALID_REQUEST, CNK_KAFKA_STRING("Duplicate topic name."));
            continue;
        }
        out = &s->out[s->out_count++];
        *out = (topic_out){.name = name, .error_message = CNK_KAFKA_STRING_NULL};
        code = cnk_map_put_bytes(&first, key, (size_t)name.len, out);
    }
    for (size_t i = 0; i < count && code == 0; i++) {
        const topic_in *in = &s->in.topics.items[i];
        topic_out *out = cnk_map_get_bytes(&first, in->name.data ? in->name.data : "", (size_t)in->name.len);
        if (out->error_code) continue;
        s->answers[s->op.topic_count] = out;
        code = fill_topic(r, in, &s->op.topics[s->op.topic_count++]);
    }
    cnk_map_free(&first);
    return code;
}

int cnk_kafka_handle_create_partitions(cnk_kafka_request *r) {
    grow_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    r->op = s;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0 && s->in.topics.count > CNK_CREATE_TOPICS_MAX) code = CHRONIK_ETOOLARGE;
    if (code == 0) code = collect(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.timeout_ms = s->in.timeout_ms;
    s->op.validate_only = s->in.validate_only;
    s->op.done = grown;
    s->op.arg = r;
    r->cancel = cancel;
    code = s->op.topic_count ? cnk_broker_create_partitions(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.topic_count; i++) s->op.topics[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
