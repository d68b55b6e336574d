/* Health, readiness and metrics over HTTP/1.x, for probes and scrapers: GET and HEAD of three paths, one request for each
 * connection, answered from counters that any thread may read. It runs on shard 0's loop, host's or own, and so keeps to
 * chronik_loop; what grows beyond this belongs into a module of its own.
 *
 *     /health   200, and whether the disk is full, which passes; 503 once the node is fenced, which only a new start mends
 *     /ready    200 while the node serves, also from a full disk; else 503
 *     /metrics  what metrics.c tells, in Prometheus' text format 0.0.4
 *
 * Limits: HTTP_CONNS_MAX connections at a time, a request head of HTTP_HEAD_MAX bytes, HTTP_TIMEOUT_MS for each, answers of HTTP_BODY_MAX. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "node/internal.h"

enum { HTTP_CONNS_MAX = 64, HTTP_HEAD_MAX = 8192, HTTP_TIMEOUT_MS = 10000, HTTP_BODY_MAX = 16 << 20 };

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

static int status_for(const char *path, chronik_node *node, cnk_writer *body) {
    if (strcmp(path, "/metrics") == 0) {
        cnk_node_metrics_put(node, body);
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
    cnk_writer_growing(&body, HTTP_BODY_MAX);
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
    /* Full of peers that say nothing: the newcomer takes the place of the oldest, so that probes get through. */
    if (node->http_count == HTTP_CONNS_MAX) close_conn(CNK_CONTAINER(node->https.next, http_conn, link));
    http_conn *c = cnk_calloc(1, sizeof *c);
    if (!c) {
        node->io->net_ops->close(node->io->net, fd);
        return;
    }
    c->node = node;
    c->fd = fd;
    cnk_writer_growing(&c->answer, HTTP_BODY_MAX + HTTP_HEAD_MAX);
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
