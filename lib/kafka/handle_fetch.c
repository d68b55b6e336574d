/* Fetch: a full one, of the partitions that it names, or an incremental one, of its session's (session.h).
 * The answer lends the broker's memory until it is sent. */
#include "kafka/session.h"

typedef struct fetch_state {
    cnk_fetch op;
    cnk_kafka_fetch_answer out;
    bool begun;
    bool make_session;          /* of what this full fetch asks for */
    cnk_kafka_session *session; /* an incremental fetch's; NULL: a full one */
    int32_t session_epoch;      /* when it began: another one means that somebody else goes on with the session */
    size_t parts_capacity;      /* of op.parts, where they are the session's */
    uint64_t until_ns;
} fetch_state;

static int begin(cnk_kafka_request *r, fetch_state *s);

static int add_slices(void *arg, const cnk_fetch_part *part) {
    return cnk_kafka_answer_slices(arg, part->slices, part->slice_count, part->bytes);
}

static int encode(cnk_kafka_request *r, fetch_state *s) {
    cnk_kafka_fetch_answer *out = &s->out;
    out->node_id = cnk_kafka_node_id(r);
    out->rack = cnk_kafka_string_of(cnk_kafka_rack(r));
    cnk_kafka_advertised(r, &out->host, &out->port);
    int code = cnk_kafka_answer_begin(r, s->op.part_count);
    if (code == 0) code = cnk_kafka_fetch_encode(out, r->version, &r->out, add_slices, r);
    return code ? code : cnk_kafka_answer_end(r);
}

static int answer(cnk_kafka_request *r, fetch_state *s) {
    cnk_kafka_session *session = s->session;
    s->out.parts = s->op.parts;
    r->ended_ns = s->op.ended_ns;
    if (!session) r->conn->fetch_rotation = s->op.next;
    if (s->make_session && !r->conn->closed)
        s->out.session_id = cnk_kafka_session_make(r->conn->kafka, r->version >= 13, s->op.read_committed, &s->out);
    if (session && session->epoch != s->session_epoch) {
        s->out.error = CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH;
        s->out.session_id = session->id;
        session = NULL;
    }
    const int code = session ? cnk_kafka_session_tell(session, r, &s->op, &s->out) : 0;
    return code ? code : encode(r, s);
}

/* It was ended by news of other partitions, and has not enough without them. */
static bool goes_on(const cnk_kafka_request *r, const fetch_state *s) {
    if (!s->session || r->conn->closed || s->session->epoch != s->session_epoch) return false;
    if (s->session->ready_count == s->op.part_count || s->op.bytes >= s->op.min_bytes) return false;
    for (size_t i = 0; i < s->op.part_count; i++)
        if (s->op.parts[i].error) return false;
    return r->conn->kafka->loop->ops->now_ns(r->conn->kafka->loop->self) < s->until_ns;
}

static void fetched(cnk_fetch *op) {
    cnk_kafka_request *r = op->arg;
    fetch_state *s = r->op;
    int code;
    if (goes_on(r, s)) {
        cnk_broker_fetch_end(op);
        s->begun = false;
        code = begin(r, s);
        if (code == CNK_PENDING) return;
        code = code == CNK_DONE ? 0 : code;
    } else {
        code = answer(r, s);
    }
    cnk_kafka_request_finish(r, code);
}

static void cancel(cnk_kafka_request *r) {
    fetch_state *s = r->op;
    cnk_broker_fetch_cancel(&s->op);
}

static void release(cnk_kafka_request *r) {
    fetch_state *s = r->op;
    if (s->begun) cnk_broker_fetch_end(&s->op);
    if (!s->session) return;
    cnk_kafka_session_release(s->session, &s->op);
    cnk_free(s->op.parts);
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
    const int code = encode(r, s);
    return code ? code : CNK_DONE;
}

/* What the request means by its session: 0, or the code that refuses it. */
static int16_t open_session(cnk_kafka_request *r, const cnk_fetch_request *in, fetch_state *s) {
    cnk_kafka_session *session = cnk_kafka_session_find(r->conn->kafka, in->session_id);
    if (in->session_epoch == CNK_KAFKA_SESSION_EPOCH_INITIAL || in->session_epoch == CNK_KAFKA_SESSION_EPOCH_FINAL) {
        if (session) cnk_kafka_session_end(session);
        s->make_session = in->session_epoch == CNK_KAFKA_SESSION_EPOCH_INITIAL;
        return 0;
    }
    if (!session) return CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
    if (session->epoch != in->session_epoch) return CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH;
    if (session->by_id != (r->version >= 13)) return CNK_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR;
    /* Over the limit, or out of memory: the client begins anew, and goes on without a session if there is no room. */
    if (cnk_kafka_session_update(session, in)) return CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
    if (session->by_key.count == 0) {
        cnk_kafka_session_end(session);
        return 0;
    }
    s->session = session;
    s->session_epoch = session->epoch;
    cnk_kafka_session_hold(session, &s->op);
    return 0;
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

/* Asks the broker: CNK_PENDING; CNK_DONE, it is answered; or an error, for which the connection is closed. */
static int begin(cnk_kafka_request *r, fetch_state *s) {
    const chronik_loop *loop = r->conn->kafka->loop;
    for (;;) {
        if (s->session) {
            const uint64_t now = loop->ops->now_ns(loop->self);
            const int code = cnk_kafka_session_ask(s->session, &s->op, &s->parts_capacity);
            if (code) return code;
            s->op.max_wait_ms = now < s->until_ns ? (int32_t)((s->until_ns - now + 999999) / 1000000) : 0;
        }
        int code = cnk_broker_fetch(cnk_kafka_request_shard(r), &s->op);
        if (code < 0) return refuse_parts(r, s, code);
        s->begun = true;
        if (code == CNK_PENDING) return CNK_PENDING;
        if (!goes_on(r, s)) break;
        cnk_broker_fetch_end(&s->op);
        s->begun = false;
    }
    const int code = answer(r, s);
    return code ? code : CNK_DONE;
}

int cnk_kafka_handle_fetch(cnk_kafka_request *r) {
    cnk_fetch_request in;
    fetch_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    r->op = s;
    if (in.isolation_level < 0 || in.isolation_level > 1) {
        code = fill_parts(r, &in, s);
        s->out.session_id = in.session_id;
        return code ? code : refuse_request(r, s, CHRONIK_EINTERNAL);
    }
    r->release = release;
    const int16_t refused = open_session(r, &in, s);
    if (refused) return refuse_session(r, s, refused);
    code = s->session ? 0 : fill_parts(r, &in, s);
    if (code) return code;
    if ((r->version < 15 ? in.replica_id : in.replica_state.replica_id) >= 0) {
        s->make_session = false;
        return refuse_parts(r, s, CHRONIK_ENOTLEADER); /* nobody follows over this protocol */
    }
    s->out.read_committed = s->op.read_committed = in.isolation_level == 1;
    if (s->op.part_count == 0 && !s->session) return refuse_parts(r, s, 0);
    s->op.context = &r->context;
    s->op.max_wait_ms = in.max_wait_ms < 0 ? 0 : in.max_wait_ms;
    s->until_ns = r->context.begun_ns + (uint64_t)s->op.max_wait_ms * 1000000u;
    s->op.bytes_max = limit(in.max_bytes, CNK_KAFKA_FETCH_BYTES_MAX);
    s->op.min_bytes = limit(in.min_bytes, s->op.bytes_max);
    s->op.first = s->session ? 0 : r->conn->fetch_rotation % s->op.part_count;
    s->op.watching = s->session != NULL;
    s->op.exact_max = r->version < 3;
    s->op.no_zstd = r->version < 10;
    s->op.format = r->version < 2 ? CNK_FETCH_FORMAT_0 : r->version < 4 ? CNK_FETCH_FORMAT_1 : CNK_FETCH_AS_STORED;
    s->op.done = fetched;
    s->op.arg = r;
    r->cancel = cancel;
    return begin(r, s);
}
