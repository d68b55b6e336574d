/* Fetch, without sessions for now: the session id in an answer is 0, which tells the client not to use any (KIP-227).
 * The answer lends the broker's memory until it is sent. */
#include "kafka/internal.h"

#define SESSION_EPOCH_INITIAL 0
#define SESSION_EPOCH_FINAL (-1)

typedef struct fetch_state {
    cnk_fetch op;
    cnk_kafka_fetch_answer out;
    bool begun;
} fetch_state;

static int add_slices(void *arg, const cnk_fetch_part *part) {
    return cnk_kafka_answer_slices(arg, part->slices, part->slice_count, part->bytes);
}

static int answer(cnk_kafka_request *r, fetch_state *s) {
    cnk_kafka_fetch_answer *out = &s->out;
    out->parts = s->op.parts;
    out->node_id = cnk_kafka_node_id(r);
    out->rack = cnk_kafka_string_of(cnk_kafka_rack(r));
    cnk_kafka_advertised(r, &out->host, &out->port);
    int code = cnk_kafka_answer_begin(r, s->op.part_count);
    if (code == 0) code = cnk_kafka_fetch_encode(out, r->version, &r->out, add_slices, r);
    return code ? code : cnk_kafka_answer_end(r);
}

static void fetched(cnk_fetch *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    fetch_state *s = r->op;
    cnk_broker_fetch_cancel(&s->op);
}

static void release(cnk_kafka_request *r) {
    fetch_state *s = r->op;
    if (s->begun) cnk_broker_fetch_end(&s->op);
}

static int fill_parts(cnk_kafka_request *r, const cnk_fetch_request *in, fetch_state *s) {
    size_t count = 0, n = 0;
    for (int32_t t = 0; t < in->topics.count; t++) count += (size_t)in->topics.items[t].partitions.count;
    if (count > CNK_FETCH_PARTS_MAX) return CHRONIK_ETOOLARGE;
    cnk_kafka_fetch_topic *topics = cnk_kafka_request_alloc(r, (size_t)in->topics.count, sizeof *topics);
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!topics || !s->op.parts) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < in->topics.count; t++) {
        const cnk_fetch_request_fetch_topic *topic = &in->topics.items[t];
        topics[t] = (cnk_kafka_fetch_topic){topic->topic, topic->topic_id, n, (size_t)topic->partitions.count};
        for (int32_t i = 0; i < topic->partitions.count; i++, n++) {
            const cnk_fetch_request_fetch_partition *p = &topic->partitions.items[i];
            cnk_fetch_part *part = &s->op.parts[n];
            if (r->version < 13) part->topic = cnk_kafka_text_of(topic->topic);
            part->topic_id = topic->topic_id;
            part->partition = p->partition;
            part->leader_epoch = p->current_leader_epoch;
            part->offset = p->fetch_offset;
            part->bytes_max = p->partition_max_bytes < 0 ? 0 : (uint32_t)p->partition_max_bytes;
            part->leader_id = part->leader_epoch_now = -1;
        }
    }
    s->op.part_count = count;
    s->out.topics = topics;
    s->out.topic_count = (size_t)in->topics.count;
    return 0;
}

/* The session is refused: no topics, and an error. */
static int refuse_session(cnk_kafka_request *r, fetch_state *s, int16_t error) {
    s->out.error = error;
    s->out.topic_count = 0;
    s->op.part_count = 0;
    const int code = answer(r, s);
    return code ? code : CNK_DONE;
}

static int refuse_parts(cnk_kafka_request *r, fetch_state *s, int error) {
    for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = error;
    const int code = answer(r, s);
    return code ? code : CNK_DONE;
}

/* The request as a whole is refused: partitions are told only where they have names (FetchRequest.getErrorResponse). */
static int refuse_request(cnk_kafka_request *r, fetch_state *s, int error) {
    s->out.refused = true;
    s->out.error = cnk_kafka_error(error);
    if (r->version >= 13) s->out.topic_count = s->op.part_count = 0;
    return refuse_parts(r, s, error);
}

static uint32_t limit(int32_t v, uint32_t max) { return v < 0 ? 0 : (uint32_t)v > max ? max : (uint32_t)v; }

int cnk_kafka_handle_fetch(cnk_kafka_request *r) {
    cnk_fetch_request in;
    fetch_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    r->op = s;
    /* A full fetch names what it wants, whatever session it ends; anything else needs a session that we never gave. */
    if (in.session_epoch != SESSION_EPOCH_INITIAL && in.session_epoch != SESSION_EPOCH_FINAL)
        return refuse_session(r, s, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    code = fill_parts(r, &in, s);
    if (code) return code;
    if (in.isolation_level < 0 || in.isolation_level > 1) return refuse_request(r, s, CHRONIK_EINTERNAL);
    if ((r->version < 15 ? in.replica_id : in.replica_state.replica_id) >= 0)
        return refuse_parts(r, s, CHRONIK_ENOTLEADER); /* nobody follows over this protocol */
    s->out.read_committed = s->op.read_committed = in.isolation_level == 1;
    if (s->op.part_count == 0) return refuse_parts(r, s, 0);
    s->op.context = &r->context;
    s->op.max_wait_ms = in.max_wait_ms < 0 ? 0 : in.max_wait_ms;
    s->op.bytes_max = limit(in.max_bytes, CNK_KAFKA_FETCH_BYTES_MAX);
    s->op.min_bytes = limit(in.min_bytes, s->op.bytes_max);
    s->op.first = r->conn->fetch_rotation++ % s->op.part_count;
    s->op.done = fetched;
    s->op.arg = r;
    r->cancel = cancel;
    r->release = release;
    code = cnk_broker_fetch(cnk_kafka_request_shard(r), &s->op);
    if (code < 0) return refuse_parts(r, s, code);
    s->begun = true;
    if (code == CNK_PENDING) return CNK_PENDING;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
