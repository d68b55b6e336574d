/* Health, readiness and metrics over HTTP/1.x, for probes and scrapers: GET and HEAD of three paths, one request for each
 * connection, answered from counters that any thread may read. It runs on shard 0's loop, host's or own, and so keeps to
 * chronik_loop; what grows beyond this belongs into a module of its own.
 *
 *     /health   200, and whether the disk is full, which passes; 503 once the node is fenced, which only a new start mends
 *     /ready    200 while the node serves, also from a full disk; else 503
 *     /metrics  counters, in Prometheus' text format 0.0.4
 *
 * Limits: HTTP_CONNS_MAX connections at a time, a request head of HTTP_HEAD_MAX bytes, HTTP_TIMEOUT_MS for each. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "node/internal.h"
#include "tier/tier.h"

enum { HTTP_CONNS_MAX = 64, HTTP_HEAD_MAX = 8192, HTTP_TIMEOUT_MS = 10000 };

typedef struct http_conn {
    cnk_list link;
    chronik_node *node;
    int fd;
    chronik_watch *watch;
    chronik_timer *timer;
    size_t len;
    char head[HTTP_HEAD_MAX];
    cnk_writer answer;
    size_t sent;
} http_conn;

/* ---- what is told -------------------------------------------------------------------------------------------------- */

static void put(cnk_writer *w, const char *text) { cnk_write_bytes(w, text, strlen(text)); }

static void metric(cnk_writer *w, const char *name, const char *type, const char *help, uint64_t value) {
    char text[512];
    snprintf(text, sizeof text, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
    put(w, text);
}

static void latency(cnk_writer *w, const char *name, const char *help, const cnk_latency_counts *l) {
    char text[512];
    uint64_t below = 0;
    snprintf(text, sizeof text, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    put(w, text);
    for (size_t i = 0; i < CNK_LATENCY_BUCKETS; i++) {
        char bound[32] = "+Inf";
        if (i < CNK_LATENCY_BUCKETS - 1) snprintf(bound, sizeof bound, "%g", (double)cnk_latency_bounds_ns[i] / 1e9);
        below += l->buckets[i];
        snprintf(text, sizeof text, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", name, bound, below);
        put(w, text);
    }
    snprintf(text, sizeof text, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name, (double)l->sum_ns / 1e9, name, below);
    put(w, text);
}

/* Only what has been asked for: the list stays short, and an old client stands out. */
static void requests(cnk_writer *w, const chronik_node *node) {
    char text[256];
    size_t len = 0;
    put(w, "# HELP chronik_requests_total Requests of Kafka clients, by API and version.\n"
           "# TYPE chronik_requests_total counter\n");
    for (size_t row = 0; row < CNK_KAFKA_APIS_MAX; row++) {
        const char *name = cnk_kafka_api_name(row, &len);
        for (int v = 0; name && v < CNK_KAFKA_VERSIONS_MAX; v++) {
            uint64_t n = 0;
            for (size_t i = 0; i < node->shard_count; i++) n += cnk_counter_get(&node->shards[i].counts.requests[row][v]);
            if (n == 0) continue;
            snprintf(text, sizeof text, "chronik_requests_total{api=\"%.*s\",version=\"%d\"} %" PRIu64 "\n", (int)len, name,
                     v, n);
            put(w, text);
        }
    }
}

static void put_metrics(const chronik_node *node, cnk_writer *w) {
    cnk_shard_stats all = {0};
    uint64_t received = 0, sent = 0, accepted = 0;
    for (size_t i = 0; i < node->shard_count; i++) {
        const node_shard *s = &node->shards[i];
        cnk_shard_stats one;
        cnk_shard_stats_get(s->broker, &one);
        all.produce_records += one.produce_records;
        all.stored_records += one.stored_records;
        for (size_t b = 0; b < CNK_LATENCY_BUCKETS; b++) {
            all.produce_latency.buckets[b] += one.produce_latency.buckets[b];
            all.fetch_latency.buckets[b] += one.fetch_latency.buckets[b];
        }
        all.produce_latency.sum_ns += one.produce_latency.sum_ns;
        all.fetch_latency.sum_ns += one.fetch_latency.sum_ns;
        all.produce_bytes += one.produce_bytes;
        all.fetch_bytes += one.fetch_bytes;
        all.fetch_cold_bytes += one.fetch_cold_bytes;
        all.fetch_ahead_bytes += one.fetch_ahead_bytes;
        all.partitions += one.partitions;
        all.producers += one.producers;
        all.waiting_fetches += one.waiting_fetches;
        all.waiting_parts += one.waiting_parts;
        received += cnk_counter_get(&s->received_bytes);
        sent += cnk_counter_get(&s->sent_bytes);
        accepted += cnk_counter_get(&s->accepted);
    }
    cnk_wal_stats wal;
    cnk_tier_stats tier;
    cnk_wal_stats_get(node->wal, &wal);
    cnk_tier_stats_get(node->tier, &tier);
    metric(w, "chronik_messages_received_total", "counter", "Messages received in sound batches.", all.produce_records);
    metric(w, "chronik_messages_stored_total", "counter", "Messages that are durable.", all.stored_records);
    latency(w, "chronik_produce_latency_seconds", "From a produce request to its answer.", &all.produce_latency);
    latency(w, "chronik_fetch_latency_seconds", "From a fetch to its answer, with the time that it waited for data.",
            &all.fetch_latency);
    metric(w, "chronik_produced_bytes_total", "counter", "Bytes of record batches received.", all.produce_bytes);
    metric(w, "chronik_fetched_bytes_total", "counter", "Bytes of record batches served.", all.fetch_bytes);
    metric(w, "chronik_fetched_cold_bytes_total", "counter", "Of these, bytes that were read from files.",
           all.fetch_cold_bytes);
    metric(w, "chronik_fetched_ahead_bytes_total", "counter", "Of these, bytes that had been read ahead.",
           all.fetch_ahead_bytes);
    metric(w, "chronik_active_connections", "gauge", "Connections of Kafka clients.", atomic_load(&node->connections));
    metric(w, "chronik_accepted_connections_total", "counter", "Connections accepted.", accepted);
    metric(w, "chronik_received_bytes_total", "counter", "Bytes received from Kafka clients.", received);
    metric(w, "chronik_sent_bytes_total", "counter", "Bytes sent to Kafka clients.", sent);
    requests(w, node);
    metric(w, "chronik_partitions", "gauge", "Partitions.", all.partitions);
    metric(w, "chronik_producers", "gauge", "Idempotent producers remembered.", all.producers);
    metric(w, "chronik_waiting_fetches", "gauge", "Fetches that wait for data.", all.waiting_fetches);
    metric(w, "chronik_waiting_produces", "gauge", "Batches that wait for room in the log.", all.waiting_parts);
    metric(w, "chronik_storage_usage_bytes", "gauge", "Bytes on disk: write-ahead log and packs.",
           wal.bytes_on_disk + tier.pack_bytes);
    metric(w, "chronik_wal_syncs_total", "counter", "Syncs of the write-ahead log.", wal.syncs);
    metric(w, "chronik_wal_written_bytes_total", "counter", "Bytes written to the write-ahead log.", wal.bytes_written);
    metric(w, "chronik_wal_files", "gauge", "Files of the write-ahead log in use.", wal.files_live);
    metric(w, "chronik_wal_full", "gauge", "1 while the disk has no room for the next file.", wal.full);
    metric(w, "chronik_fenced", "gauge", "1 once a write or a sync has failed.", wal.fenced);
    metric(w, "chronik_packs", "gauge", "Packs.", tier.packs);
    metric(w, "chronik_packs_paused", "gauge", "1 while packs cannot be written.", tier.paused);
}

static int status_for(const char *path, const chronik_node *node, cnk_writer *body) {
    if (strcmp(path, "/metrics") == 0) {
        put_metrics(node, body);
        return 200;
    }
    cnk_wal_stats wal;
    cnk_wal_stats_get(node->wal, &wal);
    const char *limit = wal.fenced ? "{\"status\":\"fenced\"}\n" : wal.full ? "{\"status\":\"full\"}\n" : NULL;
    if (strcmp(path, "/health") == 0) {
        put(body, limit ? limit : "{\"status\":\"ok\"}\n");
        return wal.fenced ? 503 : 200;
    }
    if (strcmp(path, "/ready") == 0) {
        bool ready = atomic_load(&node->state) == NODE_READY;
        put(body, !ready ? "{\"status\":\"not ready\"}\n" : limit ? limit : "{\"status\":\"ready\"}\n");
        return ready && !wal.fenced ? 200 : 503;
    }
    put(body, "{\"error\":\"there is /health, /ready and /metrics\"}\n");
    return 404;
}

static const char *reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    default: return "Service Unavailable";
    }
}

/* Fills c->answer from the request line in c->head. */
static void answer(http_conn *c, bool too_large) {
    char method[8] = "", path[256] = "", head[256];
    cnk_writer body;
    cnk_writer_growing(&body, 1u << 20);
    int status = too_large ? 431 : sscanf(c->head, "%7[A-Z] %255[^ ?\r\n]", method, path) == 2 ? 0 : 400;
    bool is_head = strcmp(method, "HEAD") == 0;
    if (!status && strcmp(method, "GET") != 0 && !is_head) status = 405;
    if (!status) status = status_for(path, c->node, &body);
    const char *type = strcmp(path, "/metrics") == 0 ? "text/plain; version=0.0.4; charset=utf-8" : "application/json";
    snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n",
             status, reason(status), type, body.len, status == 405 ? "Allow: GET, HEAD\r\n" : "");
    put(&c->answer, head);
    if (!is_head) cnk_write_bytes(&c->answer, body.data, body.len);
    if (body.error) c->answer.error = body.error;
    cnk_writer_free(&body);
}

/* ---- connections --------------------------------------------------------------------------------------------------- */

static void close_conn(http_conn *c) {
    chronik_node *node = c->node;
    const chronik_loop *loop = node->shards[0].loop;
    if (c->watch) loop->ops->watch_free(loop->self, c->watch);
    if (c->timer) loop->ops->timer_free(loop->self, c->timer);
    node->io->net_ops->close(node->io->net, c->fd);
    cnk_writer_free(&c->answer);
    cnk_list_remove(&c->link);
    node->http_count--;
    cnk_free(c);
}

static void on_timeout(void *arg) { close_conn(arg); }

static void send_answer(http_conn *c) {
    chronik_node *node = c->node;
    const chronik_loop *loop = node->shards[0].loop;
    while (c->sent < c->answer.len) {
        struct iovec iov = {c->answer.data + c->sent, c->answer.len - c->sent};
        ssize_t n = node->io->net_ops->send(node->io->net, c->fd, &iov, 1);
        if (n == CHRONIK_EAGAIN || n == 0) {
            loop->ops->watch_set(loop->self, c->watch, CHRONIK_WATCH_WRITE);
            return;
        }
        if (n < 0) break;
        c->sent += (size_t)n;
    }
    close_conn(c);
}

static void on_ready(void *arg, unsigned events) {
    http_conn *c = arg;
    chronik_node *node = c->node;
    (void)events;
    if (c->answer.len) {
        send_answer(c);
        return;
    }
    struct iovec iov = {c->head + c->len, sizeof c->head - 1 - c->len};
    ssize_t n = node->io->net_ops->recv(node->io->net, c->fd, &iov, 1);
    if (n == CHRONIK_EAGAIN) return;
    if (n <= 0) {
        close_conn(c);
        return;
    }
    c->len += (size_t)n;
    c->head[c->len] = '\0';
    bool whole = strstr(c->head, "\r\n\r\n") || strstr(c->head, "\n\n"), full = c->len == sizeof c->head - 1;
    if (!whole && !full) return;
    answer(c, !whole);
    if (c->answer.error) close_conn(c);
    else send_answer(c);
}

void cnk_node_http_accept(chronik_node *node, int fd) {
    const chronik_loop *loop = node->shards[0].loop;
    http_conn *c = node->http_count < HTTP_CONNS_MAX ? cnk_calloc(1, sizeof *c) : NULL;
    if (!c) {
        node->io->net_ops->close(node->io->net, fd);
        return;
    }
    c->node = node;
    c->fd = fd;
    cnk_writer_growing(&c->answer, 2u << 20);
    cnk_list_push_back(&node->https, &c->link);
    node->http_count++;
    if (loop->ops->watch_new(loop->self, fd, on_ready, c, &c->watch) ||
        loop->ops->timer_new(loop->self, on_timeout, c, &c->timer)) {
        close_conn(c);
        return;
    }
    loop->ops->timer_set(loop->self, c->timer, loop->ops->now_ns(loop->self) + UINT64_C(1000000) * HTTP_TIMEOUT_MS);
    loop->ops->watch_set(loop->self, c->watch, CHRONIK_WATCH_READ);
}

void cnk_node_http_close(chronik_node *node) {
    CNK_LIST_EACH(l, &node->https) close_conn(CNK_CONTAINER(l, http_conn, link));
}
