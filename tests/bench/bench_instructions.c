/* A broker and its protocol in the simulated world, in one thread, doing the same each time: for counting instructions.
 *
 *   bench_instructions produce-batch|produce-small|fetch COUNT
 *
 * produce-batch: COUNT requests, each with one batch of 64 KiB of records of 256 bytes, 4 underway; produce-small: of one
 * such record, 16 underway; fetch: COUNT answers of 64 KiB from memory, 4 underway. `instructions` runs it under callgrind,
 * with two counts, and takes the difference; `units` is by what it divides, the records of a request. Here it is only checked that all are answered without an error, and that
 * what was produced is read back. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "broker/broker.h"
#include "codec/codec.h"
#include "kafka/conn.h"
#include "record/record.h"
#include "sim/io_sim.h"

enum { VALUE_BYTES = 256, BATCH_BYTES = 64 << 10, CONNS_MAX = 16, PRODUCE = 0, FETCH = 1, CREATE_TOPICS = 19 };

static const char topic[] = "instructions";

typedef struct client {
    cnk_kafka_conn *conn;
    bool woken, underway;
    uint8_t answer[BATCH_BYTES + 4096];
    size_t answer_len;
} client;

static struct {
    sim_world *world;
    cnk_wal *wal;
    cnk_broker *broker;
    cnk_kafka *kafka;
    client clients[CONNS_MAX];
    size_t client_count;
    bool ready, stopped;
    cnk_writer request;
    size_t left, answered;
    int16_t api;
    int64_t offset; /* of a fetch */
    uint64_t bytes; /* of records, in answers */
    size_t records; /* in a produce request */
} b;

static void die(const char *what) {
    fprintf(stderr, "bench_instructions: %s\n", what);
    exit(1);
}

static void on_ready(void *arg) {
    (void)arg;
    b.ready = true;
}
static void on_stopped(void *arg, int code) {
    (void)arg;
    if (code) die("the stop failed");
    b.stopped = true;
}
static void on_wake(void *arg) { ((client *)arg)->woken = true; }

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void text(cnk_writer *w, const char *s) {
    cnk_write_be16(w, (uint16_t)strlen(s));
    cnk_write_bytes(w, s, strlen(s));
}

static void head(cnk_writer *w, int16_t api, int16_t version) {
    w->len = 0;
    cnk_write_be32(w, 0);
    cnk_write_be16(w, (uint16_t)api);
    cnk_write_be16(w, (uint16_t)version);
    cnk_write_be32(w, 7);
    text(w, "bench");
    b.api = api;
}

static void finish(cnk_writer *w) {
    if (w->error) die("no memory");
    cnk_store_be32(w->data, (uint32_t)(w->len - 4));
}

static void create_request(cnk_writer *w) {
    head(w, CREATE_TOPICS, 2);
    cnk_write_be32(w, 1);
    text(w, topic);
    cnk_write_be32(w, 1);
    cnk_write_be16(w, 1);
    cnk_write_be32(w, 0);
    cnk_write_be32(w, 0);
    cnk_write_be32(w, 30000);
    cnk_write_u8(w, 0);
    finish(w);
}

/* Records of 256 bytes, as many as fit into `bytes`. */
static void batch(cnk_writer *w, size_t bytes) {
    cnk_batch_builder builder;
    uint8_t value[VALUE_BYTES];
    memset(value, 'v', sizeof value);
    cnk_batch_builder_init(&builder, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (size_t len = 0; len == 0 || len + 300 < bytes; len += VALUE_BYTES + 12) {
        cnk_record_spec record = {.timestamp = 1600000000000, .value = value, .value_len = sizeof value};
        if (cnk_batch_builder_add(&builder, &record)) die("no memory");
        b.records++;
    }
    if (cnk_batch_builder_finish(&builder, w)) die("no memory");
    cnk_batch_builder_free(&builder);
}

static void produce_request(cnk_writer *w, size_t bytes) {
    cnk_writer records;
    cnk_writer_growing(&records, 0);
    batch(&records, bytes);
    head(w, PRODUCE, 7);
    cnk_write_be16(w, 0xffff);
    cnk_write_be16(w, 0xffff); /* acks=all */
    cnk_write_be32(w, 30000);
    cnk_write_be32(w, 1);
    text(w, topic);
    cnk_write_be32(w, 1);
    cnk_write_be32(w, 0);
    cnk_write_be32(w, (uint32_t)records.len);
    cnk_write_bytes(w, records.data, records.len);
    finish(w);
    cnk_writer_free(&records);
}

static void fetch_request(cnk_writer *w, int64_t offset) {
    head(w, FETCH, 4);
    cnk_write_be32(w, UINT32_MAX);
    cnk_write_be32(w, 1000);
    cnk_write_be32(w, 1);
    cnk_write_be32(w, BATCH_BYTES);
    cnk_write_u8(w, 0);
    cnk_write_be32(w, 1);
    text(w, topic);
    cnk_write_be32(w, 1);
    cnk_write_be32(w, 0);
    cnk_write_be64(w, (uint64_t)offset);
    cnk_write_be32(w, BATCH_BYTES);
    finish(w);
}

/* ---- the other end of the connections ----------------------------------------------------------------------------- */

static void client_send(client *c) {
    size_t done = 0, room;
    void *space;
    while (done < b.request.len && cnk_kafka_conn_recv_space(c->conn, &space, &room)) {
        size_t n = b.request.len - done < room ? b.request.len - done : room;
        memcpy(space, b.request.data + done, n);
        cnk_kafka_conn_recv_added(c->conn, n);
        done += n;
    }
    if (done < b.request.len) die("the connection takes no more");
    c->underway = true;
    c->woken |= (cnk_kafka_conn_wants(c->conn) & CNK_CONN_SEND) != 0; /* what needs no wait is answered at once */
    b.left--;
}

/* The error in an answer, and the bytes of records that are in it. */
static int check(const client *c) {
    size_t topic_len = sizeof topic - 1;
    if (b.api == CREATE_TOPICS) return (int16_t)cnk_load_be16(c->answer + 4 + 4 + 4 + 4 + 2 + topic_len);
    if (b.api == PRODUCE) return (int16_t)cnk_load_be16(c->answer + 4 + 4 + 4 + 2 + topic_len + 4 + 4);
    size_t at = 4 + 4 + 4 + 4 + 2 + topic_len + 4 + 4;
    b.bytes += cnk_load_be32(c->answer + at + 2 + 8 + 8 + 4);
    return (int16_t)cnk_load_be16(c->answer + at);
}

static void client_receive(client *c) {
    struct iovec iov[8];
    if (cnk_kafka_conn_wants(c->conn) & CNK_CONN_CLOSE) die("the connection wants to be closed");
    for (int n; (n = cnk_kafka_conn_send(c->conn, iov, 8)) > 0;) {
        size_t sent = 0;
        for (int i = 0; i < n; i++) {
            if (c->answer_len + iov[i].iov_len > sizeof c->answer) die("the answer is too long");
            memcpy(c->answer + c->answer_len, iov[i].iov_base, iov[i].iov_len);
            c->answer_len += iov[i].iov_len;
            sent += iov[i].iov_len;
        }
        cnk_kafka_conn_sent(c->conn, sent);
    }
    if (c->answer_len < 4 || c->answer_len < 4 + (size_t)cnk_load_be32(c->answer)) return;
    if (check(c) != 0) die("an error was answered");
    c->answer_len = 0;
    c->underway = false;
    b.answered++;
}

/* Those that were woken receive; then all that have nothing underway send. */
static void turn(void *arg) {
    (void)arg;
    for (size_t i = 0; i < b.client_count; i++) {
        if (!b.clients[i].woken) continue;
        b.clients[i].woken = false;
        client_receive(&b.clients[i]);
    }
    for (size_t i = 0; i < b.client_count && b.left > 0; i++)
        if (!b.clients[i].underway) client_send(&b.clients[i]);
}

static bool any_woken(void *arg) {
    (void)arg;
    for (size_t i = 0; i < b.client_count; i++)
        if (b.clients[i].woken) return true;
    return false;
}

static void exchange(size_t count) {
    b.left = count;
    b.answered = 0;
    while (b.answered < count) {
        sim_world_on(b.world, 0, turn, NULL);
        if (b.answered < count && !sim_world_run_until(b.world, any_woken, NULL, 60 * SIM_SECOND)) die("no answer");
    }
}

/* ---- the world ---------------------------------------------------------------------------------------------------- */

static void make_clients(void *arg) {
    static const chronik_address peer = {"127.0.0.1", 40000}, local = {"127.0.0.1", 9092};
    (void)arg;
    cnk_kafka_options o = CNK_KAFKA_OPTIONS_INIT;
    if (cnk_kafka_new(cnk_broker_shard(b.broker, 0), &o, &b.kafka)) die("no memory");
    for (size_t i = 0; i < CONNS_MAX; i++)
        if (cnk_kafka_conn_new(b.kafka, "PLAINTEXT", &peer, &local, on_wake, &b.clients[i], &b.clients[i].conn))
            die("no memory");
}

static void close_clients(void *arg) {
    (void)arg;
    for (size_t i = 0; i < CONNS_MAX; i++) cnk_kafka_conn_close(b.clients[i].conn);
    if (!cnk_kafka_quiesce(b.kafka)) die("the connections are not at rest");
    cnk_kafka_free(b.kafka);
    cnk_broker_stop(b.broker, on_stopped, NULL);
}

static bool is_true(void *arg) { return *(bool *)arg; }

static void open_broker(const chronik_loop **loop) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_wal_options w = CNK_WAL_OPTIONS_INIT;
    w.dir = "wal";
    w.file_bytes = UINT64_C(64) << 20;
    w.budget_bytes = UINT64_C(512) << 20;
    w.cache_bytes = UINT64_C(64) << 20;
    if (cnk_wal_open(sim_world_io(b.world), &w, NULL, NULL, &err, &b.wal)) die(err.text);
    cnk_broker_options o = CNK_BROKER_OPTIONS_INIT;
    *loop = sim_world_loop(b.world, 0);
    memset(o.directory_id.bytes, 7, sizeof o.directory_id.bytes);
    o.loops = loop;
    o.shard_count = 1;
    o.ready = on_ready;
    if (cnk_broker_open(sim_world_io(b.world), b.wal, &o, &err, &b.broker)) die(err.text);
    if (!sim_world_run_until(b.world, is_true, &b.ready, 60 * SIM_SECOND)) die("it does not become ready");
}

int main(int argc, char **argv) {
    const char *what = argc == 3 ? argv[1] : "";
    size_t count = argc == 3 ? (size_t)atol(argv[2]) : 0;
    bool small = strcmp(what, "produce-small") == 0, fetch = strcmp(what, "fetch") == 0;
    if (count == 0 || (!small && !fetch && strcmp(what, "produce-batch") != 0))
        die("usage: bench_instructions produce-batch|produce-small|fetch COUNT");
    sim_disk_options space = {UINT64_C(1) << 30, false};
    sim_disk *disk = sim_disk_new(1, &space);
    b.world = sim_world_new(disk, NULL);
    const chronik_loop *loop;
    open_broker(&loop);
    sim_world_on(b.world, 0, make_clients, NULL);
    cnk_writer_growing(&b.request, 0);
    b.client_count = 1;
    create_request(&b.request);
    exchange(1);
    b.client_count = small ? 16 : 4;
    produce_request(&b.request, small ? 1 : BATCH_BYTES);
    exchange(fetch ? 64 : count);
    fetch_request(&b.request, 0);
    exchange(fetch ? count : 1);
    if (b.bytes == 0) die("nothing is read back");
    sim_world_on(b.world, 0, close_clients, NULL);
    if (!sim_world_run_until(b.world, is_true, &b.stopped, 60 * SIM_SECOND)) die("it does not stop");
    cnk_broker_free(b.broker);
    cnk_wal_free(b.wal);
    sim_world_free(b.world);
    sim_disk_free(disk);
    cnk_writer_free(&b.request);
    printf("answered=%zu units=%zu bytes=%llu\n", count, fetch ? 1 : b.records, (unsigned long long)b.bytes);
    return 0;
}
