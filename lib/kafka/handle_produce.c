/* Produce: one batch for each partition (K5), appended by the broker; answers when it is as durable as `acks` asks. Below
 * version 3 it may be a message set of old, which the broker converts.
 * Record data is handed on where it was received; the frame is pinned only if the broker says that it still needs it.
 */
#include "kafka/internal.h"

typedef struct produce_state {
    cnk_produce op;
    cnk_kafka_produce_request in;
} produce_state;

typedef cnk_produce_response_topic_produce_response topic_out;
typedef cnk_produce_response_partition_produce_response part_out;

/* What only this protocol knows: an old message set is an invalid record from version 3 on, where it is not converted;
 * below version 4 clients do not know the storage's error, and would not retry (KIP-112). */
static int16_t part_error(const cnk_kafka_request *r, const cnk_produce_part *p) {
    if (p->error == CHRONIK_EUNSUPPORTEDFORMAT) return CNK_KAFKA_INVALID_RECORD;
    const int16_t error = cnk_kafka_error(p->error);
    return error == CNK_KAFKA_KAFKA_STORAGE_ERROR && r->version < 4 ? CNK_KAFKA_NOT_LEADER_OR_FOLLOWER : error;
}

static bool tells_leader(const cnk_kafka_request *r, const cnk_produce_part *p) { /* KIP-951 */
    return r->version >= 10 && p->error == CHRONIK_ENOTLEADER && p->leader_id >= 0;
}

static int fill_part(cnk_kafka_request *r, const cnk_produce_part *p, part_out *out) {
    out->index = p->partition;
    out->error_code = part_error(r, p);
    out->base_offset = p->error ? -1 : p->base_offset;
    out->log_append_time_ms = p->error ? -1 : p->log_append_time_ms;
    out->log_start_offset = p->error ? -1 : p->log_start_offset;
    out->error_message = p->error ? cnk_kafka_string_of(p->error_text) : CNK_KAFKA_STRING_NULL;
    if (tells_leader(r, p)) {
        out->current_leader.leader_id = p->leader_id;
        out->current_leader.leader_epoch = p->leader_epoch;
    }
    if (p->error == 0 || p->fault_record < 0) return 0;
    out->record_errors.items = cnk_kafka_request_alloc(r, 1, sizeof *out->record_errors.items);
    if (!out->record_errors.items) return CHRONIK_ENOMEM;
    out->record_errors.count = 1;
    out->record_errors.items[0].batch_index = p->fault_record;
    out->record_errors.items[0].batch_index_error_message = cnk_kafka_string_of(p->error_text);
    return 0;
}

static int fill_topic(cnk_kafka_request *r, const cnk_kafka_produce_request *in, const cnk_kafka_produce_topic *t,
                      topic_out *out) {
    out->name = t->name;
    out->topic_id = t->id;
    out->partition_responses.items = cnk_kafka_request_alloc(r, t->count, sizeof(part_out));
    if (!out->partition_responses.items) return CHRONIK_ENOMEM;
    out->partition_responses.count = (int32_t)t->count;
    for (uint32_t i = 0; i < t->count; i++) {
        part_out *part = &out->partition_responses.items[i];
        part->current_leader.leader_id = part->current_leader.leader_epoch = -1;
        const int code = fill_part(r, &in->parts[t->first + i], part);
        if (code) return code;
    }
    return 0;
}

/* acks=0 has no answer: a failure closes the connection, so that the client notices. */
static int answer(cnk_kafka_request *r, const produce_state *s) {
    const cnk_kafka_produce_request *in = &s->in;
    cnk_produce_response out;
    cnk_produce_response_node_endpoint self = {.node_id = cnk_kafka_node_id(r),
                                               .rack = cnk_kafka_string_of(cnk_kafka_rack(r))};
    r->ended_ns = s->op.ended_ns;
    if (in->acks == 0) {
        for (uint32_t i = 0; i < in->part_count; i++)
            if (in->parts[i].error) return in->parts[i].error;
        return 0;
    }
    cnk_kafka_defaults(cnk_produce_response_message.root, &out);
    out.responses.items = cnk_kafka_request_alloc(r, in->topic_count, sizeof(topic_out));
    if (!out.responses.items) return CHRONIK_ENOMEM;
    out.responses.count = (int32_t)in->topic_count;
    for (uint32_t i = 0; i < in->topic_count; i++) {
        const int code = fill_topic(r, in, &in->topics[i], &out.responses.items[i]);
        if (code) return code;
    }
    for (uint32_t i = 0; i < in->part_count; i++) {
        if (!tells_leader(r, &in->parts[i]) || in->parts[i].leader_id != self.node_id) continue;
        cnk_kafka_advertised(r, &self.host, &self.port);
        out.node_endpoints.items = &self;
        out.node_endpoints.count = 1;
        break;
    }
    return cnk_kafka_answer(r, &out);
}

static void produced(cnk_produce *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void taken(cnk_produce *op) { cnk_kafka_request_unpin(op->arg); }

static void cancel(cnk_kafka_request *r) {
    produce_state *s = r->op;
    cnk_broker_produce_cancel(&s->op);
}

/* The whole request is refused: every partition gets the error. */
static int refuse(cnk_kafka_request *r, produce_state *s, int error, const char *text) {
    for (uint32_t i = 0; i < s->in.part_count; i++) {
        cnk_produce_part *p = &s->in.parts[i];
        p->error = error;
        p->error_text = text;
        p->fault_record = -1;
        p->leader_id = p->leader_epoch = -1;
    }
    const int code = answer(r, s);
    return code ? code : CNK_DONE;
}

/* Invalid acks are told only of partitions that exist (ReplicaManager.appendRecords comes after the look-up). */
static int refuse_acks(cnk_kafka_request *r, produce_state *s) {
    const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(r));
    for (uint32_t i = 0; i < s->in.part_count; i++) {
        cnk_produce_part *p = &s->in.parts[i];
        const cnk_meta_topic *t = p->topic.p ? cnk_meta_topic_by_name(image, p->topic.p, p->topic.len)
                                             : cnk_meta_topic_by_id(image, &p->topic_id);
        p->fault_record = -1;
        p->leader_id = p->leader_epoch = -1;
        p->error = CHRONIK_EINVALIDACKS;
        if (!t && !p->topic.p) p->error = CHRONIK_EUNKNOWNTOPICID;
        else if (!t || p->partition < 0 || p->partition >= t->partition_count) p->error = CHRONIK_EUNKNOWNTOPIC;
    }
    const int code = answer(r, s);
    return code ? code : CNK_DONE;
}

/* Any record set whose first batch is of format 2 and transactional (RequestUtils.hasTransactionalRecords). */
static bool has_transactional_records(const cnk_kafka_produce_request *in) {
    for (uint32_t i = 0; i < in->part_count; i++) {
        const cnk_produce_part *p = &in->parts[i];
        if (p->len >= CNK_BATCH_HEADER_BYTES && p->data[16] == 2 && (p->data[22] & 0x10)) return true;
    }
    return false;
}

int cnk_kafka_handle_produce(cnk_kafka_request *r) {
    produce_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_produce_decode(&r->body, r->version, &r->arena, &s->in);
    if (code) return code;
    if (s->in.transactional_id.len >= 0 || has_transactional_records(&s->in))
        return refuse(r, s, CHRONIK_ETXNIDAUTH, "Transactions are not supported by this broker.");
    if (s->in.acks < -1 || s->in.acks > 1) return refuse_acks(r, s);
    if (s->in.part_count == 0) return refuse(r, s, 0, NULL);
    s->op = (cnk_produce){.context = &r->context,
                          .acks = s->in.acks,
                          .timeout_ms = s->in.timeout_ms,
                          .version = r->version,
                          .parts = s->in.parts,
                          .part_count = s->in.part_count,
                          .done = produced,
                          .taken = r->frame_len > CNK_KAFKA_SMALL_FRAME_BYTES ? taken : NULL,
                          .arg = r};
    r->op = s;
    r->cancel = cancel;
    code = cnk_broker_produce(cnk_kafka_request_shard(r), &s->op);
    if (code == CNK_PENDING) {
        if (s->op.data_needed) cnk_kafka_request_pin(r);
        return CNK_PENDING;
    }
    if (code < 0) return refuse(r, s, code, NULL);
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
