/* The connection, and the shard's part that connections share: see conn.h. Receiving is in receive.c, the life of a
 * request in request.c; here are opening, closing, and sending. */
#include <limits.h>
#include <string.h>

#include "kafka/session.h"

/* ---- the shard's part ------------------------------------------------------------------------------------------- */

static uint64_t at_least(uint64_t v, uint64_t low) { return v < low ? low : v; }

int cnk_kafka_new(cnk_shard *shard, const cnk_kafka_options *options, cnk_kafka **ret_kafka) {
    cnk_kafka *k = cnk_calloc(1, sizeof *k);
    if (!k) return CHRONIK_ENOMEM;
    k->shard = shard;
    k->loop = cnk_shard_loop(shard);
    k->options = *options;
    k->options.chunk_bytes = (uint32_t)at_least(options->chunk_bytes, 4096);
    k->options.pipelined_max = (uint32_t)at_least(options->pipelined_max, 1);
    k->options.output_bytes_max = at_least(options->output_bytes_max, 1);
    cnk_kafka_budget_init(&k->produce, at_least(options->produce_bytes_max, options->frame_bytes_max));
    cnk_kafka_budget_init(&k->control, at_least(options->control_bytes_max, options->frame_bytes_max));
    cnk_list_init(&k->pool);
    cnk_list_init(&k->conns);
    cnk_list_init(&k->bodies);
    k->crowd_at_ns = UINT64_MAX;
    cnk_kafka_sessions_init(&k->sessions, options->session_seed, options->session_slots);
    k->options.advertised_host = k->options.rack = NULL;
    if (options->advertised_host && *options->advertised_host)
        k->options.advertised_host = k->advertised_host = cnk_strdup(options->advertised_host);
    if (options->rack) k->options.rack = k->rack = cnk_strdup(options->rack);
    const bool texts = (k->advertised_host || !options->advertised_host || !*options->advertised_host) &&
                       (k->rack || !options->rack);
    const int code = k->loop->ops->timer_new(k->loop->self, cnk_kafka_receive_timeout, k, &k->timer);
    if (!texts || code) {
        cnk_kafka_free(k);
        return code ? code : CHRONIK_ENOMEM;
    }
    *ret_kafka = k;
    return 0;
}

bool cnk_kafka_quiesce(cnk_kafka *kafka) {
    CNK_ASSERT(kafka->conn_count == 0);
    return cnk_kafka_sessions_end(&kafka->sessions);
}

void cnk_kafka_free(cnk_kafka *kafka) {
    cnk_kafka *k = kafka;
    if (!k) return;
    CNK_ASSERT(k->conn_count == 0);
    cnk_list *node;
    while ((node = cnk_list_pop_front(&k->pool)) != NULL) {
        cnk_kafka_request *r = CNK_CONTAINER(node, cnk_kafka_request, node);
        cnk_arena_free(&r->arena);
        cnk_writer_free(&r->out);
        cnk_free(r);
    }
    if (k->timer) k->loop->ops->timer_free(k->loop->self, k->timer);
    cnk_kafka_sessions_free(&k->sessions);
    cnk_kafka_chunk_unref(k->chunk);
    cnk_kafka_spares_free(k);
    cnk_free(k->advertised_host);
    cnk_free(k->rack);
    cnk_free(k);
}

size_t cnk_kafka_conn_count(const cnk_kafka *kafka) { return kafka->conn_count; }

uint64_t cnk_kafka_reserved_bytes(const cnk_kafka *kafka) {
    return cnk_counter_get(&kafka->produce.used) + cnk_counter_get(&kafka->control.used);
}

static cnk_kafka_use use_of(const cnk_kafka_budget *b) {
    return (cnk_kafka_use){b->limit, cnk_counter_get(&b->used), cnk_counter_get(&b->waits)};
}

void cnk_kafka_stats_get(const cnk_kafka *kafka, cnk_kafka_stats *ret_stats) {
    const cnk_kafka_sessions *s = &kafka->sessions;
    ret_stats->produce = use_of(&kafka->produce);
    ret_stats->control = use_of(&kafka->control);
    ret_stats->sessions =
        (cnk_kafka_use){CNK_KAFKA_SESSION_BYTES_MAX, cnk_counter_get(&s->bytes), cnk_counter_get(&s->refused)};
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

int cnk_kafka_conn_new(cnk_kafka *kafka, const char *listener, const chronik_address *peer,
                       const chronik_address *local, void (*wake)(void *arg), void *arg, cnk_kafka_conn **ret_conn) {
    cnk_kafka_conn *c = cnk_calloc(1, sizeof *c);
    char *name = cnk_strdup(listener ? listener : "");
    if (!c || !name) {
        cnk_free(c);
        cnk_free(name);
        return CHRONIK_ENOMEM;
    }
    c->kafka = kafka;
    c->listener = name;
    if (peer) c->peer = *peer;
    if (local) c->local = *local;
    c->turn_left = UINT_MAX;
    c->wake = wake;
    c->wake_arg = arg;
    cnk_list_init(&c->requests);
    c->id = cnk_broker_connect(kafka->shard, &c->peer);
    cnk_list_push_back(&kafka->conns, &c->node);
    kafka->conn_count++;
    *ret_conn = c;
    return 0;
}

/* It waits for a turn no longer. */
static void turn_begun(cnk_kafka_conn *c) {
    if (c->turn_left == 0) c->kafka->over_count--;
    c->turn_left = UINT_MAX;
}

void cnk_kafka_conn_close(cnk_kafka_conn *conn) {
    cnk_kafka_conn *c = conn;
    if (!c) return;
    CNK_ASSERT(!c->closed);
    c->closed = c->must_close = true;
    turn_begun(c);
    cnk_list_remove(&c->node);
    c->calls++;
    cnk_kafka_receive_drop(c);
    CNK_LIST_EACH(it, &c->requests) { /* cancelling takes away at most the request itself */
        cnk_kafka_request *r = CNK_CONTAINER(it, cnk_kafka_request, node);
        if (r->answered) cnk_kafka_request_drop(r);
        else if (r->cancel) r->cancel(r);
    }
    cnk_broker_disconnect(c->kafka->shard, c->id);
    c->calls--;
    cnk_kafka_conn_free_if_done(c);
}

bool cnk_kafka_conn_settled(const cnk_kafka_conn *conn) {
    CNK_LIST_EACH(it, &conn->requests) {
        const cnk_kafka_request *r = CNK_CONTAINER(it, cnk_kafka_request, node);
        if (r->answered || r->api->key != CNK_KAFKA_API_FETCH) return false;
    }
    return true;
}

void cnk_kafka_conn_free_if_done(cnk_kafka_conn *c) {
    if (!c->closed || c->calls > 0 || c->pumping || !cnk_list_empty(&c->requests)) return;
    if (--c->kafka->conn_count == 0) cnk_kafka_spares_free(c->kafka);
    cnk_free(c->listener);
    cnk_free(c);
}

void cnk_kafka_conn_fail(cnk_kafka_conn *c, cnk_kafka_why why) {
    if (!c->must_close) c->why = why;
    c->must_close = true;
}

cnk_kafka_why cnk_kafka_conn_why(const cnk_kafka_conn *conn) { return conn->why; }

void cnk_kafka_conn_wake(cnk_kafka_conn *c) {
    if (c->closed || c->woken || c->calls > 0 || c->pumping) return;
    c->woken = true;
    if (c->wake) c->wake(c->wake_arg);
}

void cnk_kafka_conn_turn(cnk_kafka_conn *c) {
    c->many = c->turn_left == 0;
    turn_begun(c);
    const unsigned share = CNK_KAFKA_TURN_REQUESTS / (c->kafka->over_count + 1);
    c->turn_left = share < CNK_KAFKA_TURN_REQUESTS_MIN ? CNK_KAFKA_TURN_REQUESTS_MIN : share;
    c->calls++;
    cnk_kafka_receive_pump(c);
    c->calls--;
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

unsigned cnk_kafka_conn_wants(cnk_kafka_conn *conn) {
    cnk_kafka_conn *c = conn;
    unsigned wants = 0;
    c->woken = false;
    if (c->abandoned) return CNK_CONN_CLOSE;
    const cnk_kafka_request *first =
        cnk_list_empty(&c->requests) ? NULL : CNK_CONTAINER(c->requests.next, cnk_kafka_request, node);
    if (first && first->answered && first->answer_bytes > 0) wants |= CNK_CONN_SEND;
    /* Answers that come before the end are still sent. */
    if (c->must_close) return first ? wants : CNK_CONN_CLOSE;
    if (c->turn_left == 0) return wants | CNK_CONN_TURN;
    const bool held = c->backlog_len > 0 || c->frame_waiting || (c->frame && c->frame_filled == c->frame_len);
    if (!held || c->backlog_len < CNK_KAFKA_BACKLOG_MAX) wants |= CNK_CONN_RECV;
    return wants;
}

/* Appends a piece of memory, or makes the last one longer where they touch. */
static bool iov_add(struct iovec *iov, int *count, int max, const uint8_t *p, size_t len) {
    if (*count > 0 && (const uint8_t *)iov[*count - 1].iov_base + iov[*count - 1].iov_len == p) {
        iov[*count - 1].iov_len += len;
        return true;
    }
    if (*count == max) return false;
    iov[(*count)++] = (struct iovec){(void *)(uintptr_t)p, len};
    return true;
}

typedef struct place { size_t piece, iov, offset; } place;

/* The pieces of one answer from a place on; false: the array is full. */
static bool answer_gather(const cnk_kafka_request *r, place at, struct iovec *iov, int *count, int max) {
    for (; at.piece < r->piece_count; at.piece++, at.iov = 0, at.offset = 0) {
        const cnk_kafka_piece *p = &r->pieces[at.piece];
        if (!p->iov) {
            if (!iov_add(iov, count, max, r->out.data + p->from + at.offset, p->len - at.offset)) return false;
            continue;
        }
        for (; at.iov < p->iov_count; at.iov++, at.offset = 0) {
            const struct iovec *v = &p->iov[at.iov];
            if (v->iov_len == at.offset) continue;
            if (!iov_add(iov, count, max, (const uint8_t *)v->iov_base + at.offset, v->iov_len - at.offset))
                return false;
        }
    }
    return true;
}

int cnk_kafka_conn_send(cnk_kafka_conn *conn, struct iovec *iov, int max) {
    cnk_kafka_conn *c = conn;
    place at = {c->sent_piece, c->sent_iov, c->sent_offset};
    int count = 0;
    CNK_LIST_EACH(it, &c->requests) {
        const cnk_kafka_request *r = CNK_CONTAINER(it, cnk_kafka_request, node);
        if (!r->answered) break;
        if (r->answer_bytes > 0 && !answer_gather(r, at, iov, &count, max)) break;
        at = (place){0, 0, 0};
    }
    return count;
}

/* Moves the place of the first answer on; the bytes that are left after its end. */
static size_t answer_advance(cnk_kafka_conn *c, const cnk_kafka_request *r, size_t len) {
    while (c->sent_piece < r->piece_count) {
        const cnk_kafka_piece *p = &r->pieces[c->sent_piece];
        if (p->iov && c->sent_iov == p->iov_count) {
            c->sent_piece++;
            c->sent_iov = c->sent_offset = 0;
            continue;
        }
        const size_t whole = p->iov ? p->iov[c->sent_iov].iov_len : p->len;
        if (len < whole - c->sent_offset) {
            c->sent_offset += len;
            return 0;
        }
        len -= whole - c->sent_offset;
        c->sent_offset = 0;
        if (p->iov) c->sent_iov++;
        else c->sent_piece++;
    }
    return len;
}

void cnk_kafka_conn_sent(cnk_kafka_conn *conn, size_t len) {
    cnk_kafka_conn *c = conn;
    CNK_ASSERT(len <= c->unsent);
    c->calls++;
    c->unsent -= len;
    c->bytes_sent += len;
    while (!cnk_list_empty(&c->requests)) {
        cnk_kafka_request *r = CNK_CONTAINER(c->requests.next, cnk_kafka_request, node);
        if (!r->answered) break;
        if (r->answer_bytes > 0) {
            if (len == 0 && c->sent_piece < r->piece_count) break;
            len = answer_advance(c, r, len);
            if (c->sent_piece < r->piece_count) break;
        }
        cnk_kafka_request_drop(r);
        c->answers_sent++;
        c->sent_piece = c->sent_iov = c->sent_offset = 0;
    }
    CNK_ASSERT(len == 0);
    cnk_kafka_receive_pump(c);
    c->calls--;
}

/* ---- for the handlers ------------------------------------------------------------------------------------------- */

cnk_shard *cnk_kafka_request_shard(const cnk_kafka_request *r) { return r->conn->kafka->shard; }

int32_t cnk_kafka_node_id(const cnk_kafka_request *r) {
    return cnk_broker_settings(cnk_shard_broker(r->conn->kafka->shard))->node_id;
}

const char *cnk_kafka_rack(const cnk_kafka_request *r) { return r->conn->kafka->options.rack; }

void cnk_kafka_advertised(const cnk_kafka_request *r, cnk_kafka_string *ret_host, int32_t *ret_port) {
    const cnk_kafka_conn *c = r->conn;
    const cnk_kafka_options *o = &c->kafka->options;
    *ret_host = cnk_kafka_string_of(o->advertised_host ? o->advertised_host : c->local.host);
    *ret_port = o->advertised_port ? o->advertised_port : c->local.port;
}
