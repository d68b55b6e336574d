/* A client for tests of lib/kafka: builds requests, feeds a connection, takes its answers apart. */
#ifndef CNK_TESTS_KAFKA_CLIENT_H
#define CNK_TESTS_KAFKA_CLIENT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

#define CLIENT_IN_MAX (8u << 20)

typedef struct client {
    cnk_kafka_conn *conn;
    int wakes;
    uint8_t *in; /* bytes of answers */
    size_t in_len, in_at, in_room;
    cnk_arena arena;
} client;

static inline void client_wake(void *arg) { ((client *)arg)->wakes++; }

static const chronik_address client_local = {"127.0.0.1", 9092}, client_peer = {"10.0.0.9", 40000};

static inline void client_open(client *c, cnk_kafka *k) {
    memset(c, 0, sizeof *c);
    cnk_arena_init(&c->arena, 4096, 0);
    if (cnk_kafka_conn_new(k, "PLAINTEXT", &client_peer, &client_local, client_wake, c, &c->conn)) abort();
}

static inline void client_close(client *c) {
    if (c->conn) cnk_kafka_conn_close(c->conn);
    c->conn = NULL;
    free(c->in);
    cnk_arena_free(&c->arena);
}

/* A whole frame; the caller frees w. */
static inline void client_frame(cnk_writer *w, int16_t key, int version, int32_t correlation, const void *message) {
    const cnk_kafka_api *api = cnk_kafka_api_find(key);
    const bool known = api && version >= api->request->version_min && version <= api->request->version_max;
    const cnk_request_header header = {key, (int16_t)version, correlation, CNK_KAFKA_STRING("test")};
    cnk_writer_growing(w, 0);
    cnk_write_be32(w, 0);
    if (cnk_kafka_encode(&cnk_request_header_message, known && version >= api->request->flexible_min ? 2 : 1, &header,
                         w))
        abort();
    if (message && known && cnk_kafka_encode(api->request, version, message, w)) abort();
    if (w->error) abort();
    cnk_store_be32(w->data, (uint32_t)(w->len - 4));
}

/* Feeds bytes through recv_space, as a socket would; returns how many were taken. */
static inline size_t client_feed(client *c, const void *data, size_t len, size_t piece) {
    size_t done = 0, room;
    void *space;
    while (done < len && (cnk_kafka_conn_wants(c->conn) & CNK_CONN_RECV) &&
           cnk_kafka_conn_recv_space(c->conn, &space, &room)) {
        size_t n = len - done < room ? len - done : room;
        if (piece && n > piece) n = piece;
        memcpy(space, (const uint8_t *)data + done, n);
        cnk_kafka_conn_recv_added(c->conn, n);
        done += n;
    }
    return done;
}

static inline void client_send(client *c, int16_t key, int version, int32_t correlation, const void *message) {
    cnk_writer w;
    client_frame(&w, key, version, correlation, message);
    if (client_feed(c, w.data, w.len, 0) != w.len) abort();
    cnk_writer_free(&w);
}

/* Takes what the connection wants to send, at most `max` bytes at a time. */
static inline void client_drain(client *c, size_t max) {
    struct iovec iov[7];
    for (int n; (n = cnk_kafka_conn_send(c->conn, iov, 7)) > 0;) {
        size_t sent = 0;
        for (int i = 0; i < n && sent < max; i++) {
            const size_t take = iov[i].iov_len < max - sent ? iov[i].iov_len : max - sent;
            if (c->in_len + take > CLIENT_IN_MAX) abort();
            while (c->in_len + take > c->in_room)
                if (!(c->in = realloc(c->in, c->in_room = c->in_room ? 2 * c->in_room : 4096))) abort();
            memcpy(c->in + c->in_len, iov[i].iov_base, take);
            c->in_len += take;
            sent += take;
        }
        cnk_kafka_conn_sent(c->conn, sent);
    }
}

/* The next whole answer: its correlation id, and the body's bytes; −1: none. */
static inline int64_t client_next(client *c, cnk_reader *ret_body) {
    if (c->in_len - c->in_at < 8) return -1;
    const uint32_t len = cnk_load_be32(c->in + c->in_at);
    if (len < 4 || c->in_len - c->in_at - 4 < len) return -1;
    const int32_t correlation = (int32_t)cnk_load_be32(c->in + c->in_at + 4);
    *ret_body = cnk_reader_of(c->in + c->in_at + 8, len - 4);
    c->in_at += 4 + (size_t)len;
    return correlation;
}

/* Decodes an answer's body whole; false: malformed. */
static inline bool client_decode(client *c, int16_t key, int version, cnk_reader *body, void *ret_message) {
    const cnk_kafka_api *api = cnk_kafka_api_find(key);
    if (version >= api->response->flexible_min && key != CNK_KAFKA_API_API_VERSIONS) cnk_kafka_skip_tags(body);
    return cnk_kafka_decode(api->response, version, body, &c->arena, ret_message) == 0 && cnk_reader_left(body) == 0;
}

/* One request, answered at once: true where the answer is whole and right in form. */
static inline bool client_call(client *c, int16_t key, int version, const void *message, void *ret_message) {
    static int32_t correlation = 1000;
    cnk_reader body;
    client_send(c, key, version, ++correlation, message);
    client_drain(c, SIZE_MAX);
    return client_next(c, &body) == correlation && client_decode(c, key, version, &body, ret_message);
}

/* A Produce request of one record set. */
typedef struct produce_one {
    cnk_produce_request m;
    cnk_produce_request_topic_produce_data topic;
    cnk_produce_request_partition_produce_data part;
} produce_one;

static inline cnk_produce_request *produce_of(produce_one *p, int version, int32_t partition, int16_t acks,
                                              const void *data, size_t len) {
    cnk_kafka_defaults(cnk_produce_request_message.root, &p->m);
    memset(&p->topic, 0, sizeof p->topic);
    p->part = (cnk_produce_request_partition_produce_data){partition, {data, (int32_t)len}};
    if (version < 13) p->topic.name = CNK_KAFKA_STRING("a");
    else memset(p->topic.topic_id.bytes, 1, 16);
    p->topic.partition_data.items = &p->part;
    p->topic.partition_data.count = 1;
    p->m.acks = acks;
    p->m.timeout_ms = 1000;
    p->m.topic_data.items = &p->topic;
    p->m.topic_data.count = 1;
    return &p->m;
}

#endif
