/* The life of a request: a frame begins, its handler runs, its answer waits for its turn.
 *
 *     dispatch ─► running ──finish──► answered ──sent──► dropped
 *                    └─────cancel (the connection closed)──────┘
 *
 * An answer is `out`, which starts with the frame's length, cut into pieces where lent memory comes between. */
#include <string.h>

#include "kafka/internal.h"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static cnk_kafka_request *request_new(cnk_kafka *k) {
    cnk_list *node = cnk_list_pop_front(&k->pool);
    if (node) {
        k->pool_count--;
        return CNK_CONTAINER(node, cnk_kafka_request, node);
    }
    cnk_kafka_request *r = cnk_calloc(1, sizeof *r);
    if (!r) return NULL;
    cnk_arena_init(&r->arena, CNK_KAFKA_ARENA_CHUNK, 0);
    cnk_writer_growing(&r->out, CNK_KAFKA_ANSWER_BYTES_MAX);
    return r;
}

static void request_recycle(cnk_kafka *k, cnk_kafka_request *r) {
    cnk_arena arena = r->arena;
    cnk_writer out = r->out;
    if (k->pool_count >= CNK_KAFKA_POOL_MAX) {
        cnk_arena_free(&arena);
        cnk_writer_free(&out);
        cnk_free(r);
        return;
    }
    cnk_arena_reset(&arena);
    if (out.error || out.capacity > CNK_KAFKA_OUT_KEPT_BYTES) {
        cnk_writer_free(&out);
        cnk_writer_growing(&out, CNK_KAFKA_ANSWER_BYTES_MAX);
    }
    out.len = 0;
    *r = (cnk_kafka_request){.arena = arena, .out = out};
    cnk_list_push_front(&k->pool, &r->node);
    k->pool_count++;
}

void *cnk_kafka_request_alloc(cnk_kafka_request *r, size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) return NULL;
    void *p = cnk_arena_alloc(&r->arena, count * size);
    if (p) memset(p, 0, count * size);
    return p;
}

bool cnk_kafka_request_text(cnk_kafka_request *r, cnk_kafka_string from, cnk_text *ret_text) {
    if (from.len < 0) {
        *ret_text = (cnk_text){NULL, 0};
        return true;
    }
    char *copy = cnk_arena_alloc(&r->arena, (size_t)from.len + 1);
    if (!copy) return false;
    if (from.len > 0) memcpy(copy, from.data, (size_t)from.len);
    copy[from.len] = 0;
    *ret_text = (cnk_text){copy, (size_t)from.len};
    return true;
}

void cnk_kafka_request_pin(cnk_kafka_request *r) {
    if (r->pinned) return;
    CNK_ASSERT(r->home != NULL);
    r->home->refs++;
    r->pinned = r->home;
    r->conn->pinned_bytes += r->frame_len;
}

/* ---- beginning -------------------------------------------------------------------------------------------------- */

bool cnk_kafka_can_begin(const cnk_kafka_conn *c, int16_t api_key) {
    if (c->must_close || c->closed || c->turn_left == 0) return false;
    if (c->request_count >= c->kafka->options.pipelined_max || c->unsent >= c->kafka->options.output_bytes_max ||
        c->pinned_bytes >= CNK_KAFKA_PINNED_BYTES_MAX)
        return false;
    return c->running == 0 || (api_key == CNK_KAFKA_API_PRODUCE && c->running_produce == c->running);
}

/* The frame stays readable while the request runs: pinned where the memory is the frame's alone, else copied. */
static bool frame_keep(cnk_kafka_request *r, const uint8_t *frame, size_t len) {
    const size_t at = (size_t)(r->body.p - frame);
    if (r->home->frame) {
        cnk_kafka_request_pin(r);
        return true;
    }
    uint8_t *copy = cnk_arena_alloc(&r->arena, len);
    if (!copy) return false;
    memcpy(copy, frame, len);
    r->body = cnk_reader_of(copy + at, len - at);
    return true;
}

/* After key, version and correlation id: the client id, and tags in a flexible header. An ApiVersions request of a
 * version we do not know is answered without a look at them. */
static bool header_rest(cnk_kafka_request *r, bool known) {
    if (!known) return true;
    const int32_t len = cnk_kafka_read_length(&r->body, false, true, 1);
    const uint8_t *p = len > 0 ? cnk_read_bytes(&r->body, (size_t)len) : NULL;
    if (r->version >= r->api->request->flexible_min) cnk_kafka_skip_tags(&r->body);
    if (r->body.error) return false;
    return cnk_kafka_request_text(r, (cnk_kafka_string){(const char *)p, len}, &r->context.client_id);
}

static uint64_t now_ns(const cnk_kafka_conn *c) { return c->kafka->loop->ops->now_ns(c->kafka->loop->self); }

static void context_fill(cnk_kafka_request *r) {
    const cnk_kafka_conn *c = r->conn;
    r->context.connection = c->id;
    r->context.principal = (cnk_text){"User:ANONYMOUS", sizeof "User:ANONYMOUS" - 1};
    r->context.listener = (cnk_text){c->listener, strlen(c->listener)};
    r->context.begun_ns = now_ns(c);
    r->context.peer = &c->peer;
    r->context.local = &c->local;
}

static void count(const cnk_kafka_request *r) {
    cnk_kafka_counts *counts = r->conn->kafka->options.counts;
    CNK_ASSERT(r->version < CNK_KAFKA_VERSIONS_MAX);
    if (counts) cnk_counter_add(&counts->requests[r->api - cnk_kafka_apis][r->version], 1);
}

/* Operations that have looked at the clock at their end say what it was. */
static void count_end(const cnk_kafka_request *r) {
    cnk_kafka_counts *counts = r->conn->kafka->options.counts;
    if (!counts) return;
    uint64_t ended_ns = r->ended_ns ? r->ended_ns : now_ns(r->conn);
    cnk_latency_add(&counts->latency[r->api - cnk_kafka_apis], ended_ns - r->context.begun_ns);
}

static bool request_open(cnk_kafka_request *r, const uint8_t *frame, size_t len) {
    r->body = cnk_reader_of(frame, len);
    (void)cnk_read_be16(&r->body);
    r->version = (int16_t)cnk_read_be16(&r->body);
    r->correlation_id = (int32_t)cnk_read_be32(&r->body);
    const bool known = r->version >= r->api->version_min && r->version <= r->api->version_max;
    if (!known && r->api->key != CNK_KAFKA_API_API_VERSIONS) return false;
    context_fill(r);
    if (!header_rest(r, known)) return false;
    if (known) count(r);
    return r->api->in_place || frame_keep(r, frame, len);
}

void cnk_kafka_dispatch(cnk_kafka_conn *c, cnk_kafka_chunk *home, const uint8_t *frame, size_t len) {
    const cnk_kafka_api *api = cnk_kafka_api_find((int16_t)cnk_load_be16(frame));
    cnk_kafka_request *r = api ? request_new(c->kafka) : NULL;
    if (!r) {
        cnk_kafka_conn_fail(c, api ? CNK_KAFKA_MEMORY : CNK_KAFKA_PROTOCOL); /* an API that is not offered */
        return;
    }
    r->conn = c;
    r->api = api;
    r->home = home;
    r->frame_len = len;
    cnk_list_push_back(&c->requests, &r->node);
    c->request_count++;
    c->running++;
    c->running_produce += api->key == CNK_KAFKA_API_PRODUCE;
    if (--c->turn_left == 0) c->kafka->over_count++;
    const int code = request_open(r, frame, len) ? api->handle(r) : CHRONIK_EPROTO;
    if (code == CNK_PENDING) {
        r->home = NULL;
        return;
    }
    cnk_kafka_request_finish(r, code == CNK_DONE ? 0 : code);
}

/* What a request decodes to is limited by its size; what is allocated for its answer is not. */
int cnk_kafka_request_decode(cnk_kafka_request *r, void *ret_message) {
    const size_t len = cnk_reader_left(&r->body);
    r->arena.limit = r->arena.total + CNK_KAFKA_ARENA_BASE + CNK_KAFKA_ARENA_FACTOR * len;
    const int code = cnk_kafka_decode(r->api->request, r->version, &r->body, &r->arena, ret_message);
    r->arena.limit = 0;
    return code;
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

void cnk_kafka_request_drop(cnk_kafka_request *r) {
    cnk_kafka_conn *c = r->conn;
    cnk_list_remove(&r->node);
    c->request_count--;
    if (r->release) r->release(r);
    CNK_ASSERT(!r->pinned); /* since it was answered */
    request_recycle(c->kafka, r);
}

/* Answers of no bytes (acks=0) that have reached the front. */
static void drop_silent(cnk_kafka_conn *c) {
    while (!cnk_list_empty(&c->requests)) {
        cnk_kafka_request *r = CNK_CONTAINER(c->requests.next, cnk_kafka_request, node);
        if (!r->answered || r->answer_bytes > 0) return;
        cnk_kafka_request_drop(r);
    }
}

static void unpin(cnk_kafka_request *r) {
    cnk_kafka_chunk *pinned = r->pinned;
    if (!pinned) return;
    r->pinned = NULL;
    r->conn->pinned_bytes -= r->frame_len;
    cnk_kafka_chunk_unref(pinned);
}

void cnk_kafka_request_unpin(cnk_kafka_request *r) {
    cnk_kafka_conn *c = r->conn;
    unpin(r);
    if (c->closed) return;
    cnk_kafka_receive_pump(c);
    cnk_kafka_conn_wake(c);
}

void cnk_kafka_request_finish(cnk_kafka_request *r, int code) {
    cnk_kafka_conn *c = r->conn;
    CNK_ASSERT(!r->answered);
    r->answered = true;
    r->home = NULL;
    c->running--;
    c->running_produce -= r->api->key == CNK_KAFKA_API_PRODUCE;
    unpin(r);
    if (c->closed) {
        cnk_kafka_request_drop(r);
        cnk_kafka_conn_free_if_done(c);
        return;
    }
    if (code < 0) { /* what was answered before it still goes out */
        cnk_kafka_conn_fail(c, code == CHRONIK_ENOMEM ? CNK_KAFKA_MEMORY : CNK_KAFKA_PROTOCOL);
        r->answer_bytes = 0;
    } else {
        count_end(r);
    }
    c->unsent += r->answer_bytes;
    drop_silent(c);
    cnk_kafka_receive_pump(c);
    cnk_kafka_conn_wake(c);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static int answer_header(cnk_kafka_request *r, bool flexible) {
    r->out.len = 0;
    cnk_write_be32(&r->out, 0);
    cnk_write_be32(&r->out, (uint32_t)r->correlation_id);
    if (flexible) cnk_write_uvarint(&r->out, 0); /* no tags */
    return r->out.error;
}

/* ApiVersions answers with header version 0 whatever its own: the client does not know yet what we speak. */
static bool header_is_flexible(const cnk_kafka_request *r, int version) {
    return r->api->key != CNK_KAFKA_API_API_VERSIONS && version >= r->api->response->flexible_min;
}

int cnk_kafka_answer_version(cnk_kafka_request *r, int version, const void *message) {
    r->pieces = cnk_kafka_request_alloc(r, 1, sizeof *r->pieces);
    if (!r->pieces) return CHRONIK_ENOMEM;
    r->piece_max = 1;
    int code = answer_header(r, header_is_flexible(r, version));
    if (code == 0) code = cnk_kafka_encode(r->api->response, version, message, &r->out);
    return code ? code : cnk_kafka_answer_end(r);
}

int cnk_kafka_answer(cnk_kafka_request *r, const void *message) {
    return cnk_kafka_answer_version(r, r->version, message);
}

int cnk_kafka_answer_begin(cnk_kafka_request *r, size_t slices_max) {
    r->pieces = cnk_kafka_request_alloc(r, 2 * slices_max + 1, sizeof *r->pieces);
    if (!r->pieces) return CHRONIK_ENOMEM;
    r->piece_max = 2 * slices_max + 1;
    return answer_header(r, header_is_flexible(r, r->version));
}

static void piece_add(cnk_kafka_request *r, cnk_kafka_piece piece) {
    if (piece.len == 0) return;
    CNK_ASSERT(r->piece_count < r->piece_max);
    r->pieces[r->piece_count++] = piece;
    r->answer_bytes += piece.len;
}

static void piece_cut(cnk_kafka_request *r) {
    piece_add(r, (cnk_kafka_piece){.from = r->piece_from, .len = r->out.len - r->piece_from});
    r->piece_from = r->out.len;
}

int cnk_kafka_answer_slices(cnk_kafka_request *r, const struct iovec *iov, size_t iov_count, size_t bytes) {
    if (r->out.error) return r->out.error;
    piece_cut(r);
    piece_add(r, (cnk_kafka_piece){.len = bytes, .iov = iov, .iov_count = iov_count});
    return 0;
}

int cnk_kafka_answer_end(cnk_kafka_request *r) {
    if (r->out.error) return r->out.error;
    piece_cut(r);
    if (r->answer_bytes - 4 > CNK_KAFKA_ANSWER_BYTES_MAX) return CHRONIK_ETOOLARGE;
    cnk_store_be32(r->out.data, (uint32_t)(r->answer_bytes - 4));
    return 0;
}
