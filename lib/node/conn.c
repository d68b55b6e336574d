/* Listening, accepting, and moving bytes between sockets and lib/kafka. One connection belongs to one shard, and only
 * that shard's thread touches it. Sockets are watched level-triggered; a turn receives at most NODE_PUMP_BYTES_MAX from one
 * connection, and sends at most NODE_SEND_BYTES_MAX to all of them, so that fast ones starve nobody.
 *
 *     accept (shard 0) ─► message to the shard ─► pump ◄─► kafka conn
 *                                                  ▲
 *                       readable, writable, woken ─┘        close: peer's end, error, protocol, idle, deadline */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "node/internal.h"

typedef struct node_conn {
    cnk_list link, woken;
    node_shard *shard;
    int fd;
    chronik_watch *watch;
    unsigned watched;
    cnk_kafka_conn *kafka;
    uint64_t active_ns; /* when bytes moved last */
} node_conn;

/* An accepted socket on its way to its shard. */
typedef struct newcomer {
    chronik_post post;
    node_shard *shard;
    int fd;
    chronik_address local, peer;
} newcomer;

static uint64_t now_ns(const node_shard *s) { return s->loop->ops->now_ns(s->loop->self); }

/* ---- the life of a connection ----------------------------------------------------------------------------------- */

static void conn_close(node_conn *c, node_close why) {
    node_shard *s = c->shard;
    chronik_node *node = s->node;
    cnk_counter_add(&s->closed_for[why], 1);
    s->loop->ops->watch_free(s->loop->self, c->watch);
    cnk_kafka_conn_close(c->kafka);
    if (c->fd >= 0) node->io->net_ops->close(node->io->net, c->fd);
    cnk_list_remove(&c->link);
    cnk_list_remove(&c->woken);
    cnk_counter_sub(&s->conn_count, 1);
    atomic_fetch_sub(&node->connections, 1);
    cnk_free(c);
}

static bool can_close_quietly(const node_conn *c) { return c->shard->draining && cnk_kafka_conn_settled(c->kafka); }

static node_close protocol_says(const node_conn *c) {
    switch (cnk_kafka_conn_why(c->kafka)) {
    case CNK_KAFKA_SLOW: return NODE_CLOSE_SLOW;
    case CNK_KAFKA_MEMORY: return NODE_CLOSE_MEMORY;
    default: return NODE_CLOSE_PROTOCOL;
    }
}

/* The loop has been to all others. */
static void run_send_again(chronik_post *post) {
    node_shard *s = CNK_CONTAINER(post, node_shard, send_post);
    s->send_posted = false;
}

/* Cuts the pieces of one who has been sent so much in this go to what he may still be sent. The number of those that are left;
 * 0: none. */
static int send_share(node_shard *s, struct iovec *iov, int n, size_t sent) {
    size_t all = sent;
    for (int i = 0; i < n; i++) all += iov[i].iov_len;
    if (all <= NODE_SEND_SMALL_BYTES) return n;
    if (!s->send_posted) {
        s->send_posted = true;
        s->send_left = NODE_SEND_BYTES_MAX;
        s->send_post.run = run_send_again;
        s->loop->ops->defer(s->loop->self, &s->send_post);
    }
    size_t left = s->send_left;
    for (int i = 0; i < n; left -= iov[i++].iov_len) {
        if (left == 0) return i;
        if (iov[i].iov_len > left) iov[i].iov_len = left;
    }
    return n;
}

/* Sends what waits. False: the connection is broken. *ret_blocked: the socket takes no more; *ret_later: others have their
 * turn; *sent_bytes: in this go. */
static bool pump_out(node_conn *c, bool *ret_blocked, bool *ret_later, size_t *sent_bytes) {
    node_shard *s = c->shard;
    const chronik_io *io = s->node->io;
    struct iovec iov[NODE_IOV_MAX];
    int n = cnk_kafka_conn_send(c->kafka, iov, NODE_IOV_MAX);
    if (n <= 0) return true;
    n = send_share(s, iov, n, *sent_bytes);
    if (n == 0) {
        *ret_blocked = *ret_later = true;
        return true;
    }
    size_t all = 0;
    for (int i = 0; i < n; i++) all += iov[i].iov_len;
    ssize_t sent = io->net_ops->send(io->net, c->fd, iov, n);
    if (sent == CHRONIK_EAGAIN) sent = 0;
    if (sent < 0) return false;
    if ((size_t)sent < all) *ret_blocked = true;
    if (sent == 0) return true;
    *sent_bytes += (size_t)sent;
    if (s->send_posted) s->send_left -= (size_t)sent < s->send_left ? (size_t)sent : s->send_left;
    cnk_counter_add(&s->sent_bytes, (uint64_t)sent);
    cnk_kafka_conn_sent(c->kafka, (size_t)sent);
    return true;
}

/* Receives once. False: the peer has closed, or the connection is broken. *ret_empty: there is no more for now. */
static bool pump_in(node_conn *c, bool *ret_empty, size_t *ret_moved) {
    node_shard *s = c->shard;
    const chronik_io *io = s->node->io;
    struct iovec iov;
    if (!cnk_kafka_conn_recv_space(c->kafka, &iov.iov_base, &iov.iov_len)) {
        *ret_empty = true;
        return true;
    }
    ssize_t got = io->net_ops->recv(io->net, c->fd, &iov, 1);
    if (got == CHRONIK_EAGAIN) {
        cnk_kafka_conn_recv_added(c->kafka, 0);
        *ret_empty = true;
        return true;
    }
    if (got <= 0) {
        cnk_kafka_conn_recv_added(c->kafka, 0);
        return false;
    }
    /* A short read means that the socket is empty; level-triggered, it tells when that changes. */
    if ((size_t)got < iov.iov_len) *ret_empty = true;
    *ret_moved += (size_t)got;
    cnk_counter_add(&s->received_bytes, (uint64_t)got);
    cnk_kafka_conn_recv_added(c->kafka, (size_t)got);
    return true;
}

static void on_wake(void *arg);

/* Moves bytes both ways until nothing moves or the turn's share is used up. The connection may be gone afterwards.
 * readable: whether a read may find something; the loop tells as long as it watches. */
static void pump(node_conn *c, bool readable) {
    node_shard *s = c->shard;
    bool blocked = false, later = false, empty = !readable, moved = true;
    size_t received = 0, sent = 0;
    unsigned wants = 0;
    node_close why = NODE_CLOSE_PEER;
    cnk_kafka_conn_turn(c->kafka);
    while (moved) {
        wants = cnk_kafka_conn_wants(c->kafka);
        if (wants & CNK_CONN_CLOSE) {
            why = protocol_says(c);
            goto close;
        }
        const size_t before = received + sent;
        if ((wants & CNK_CONN_SEND) && !blocked && !pump_out(c, &blocked, &later, &sent)) goto close;
        if ((wants & CNK_CONN_RECV) && !empty && !s->draining && received < NODE_PUMP_BYTES_MAX &&
            !pump_in(c, &empty, &received))
            goto close;
        moved = received + sent > before;
        if (moved) c->active_ns = now_ns(s);
    }
    if (can_close_quietly(c)) {
        why = NODE_CLOSE_SHUTDOWN;
        goto close;
    }
    if (wants & CNK_CONN_TURN) wants |= c->watched & CHRONIK_WATCH_READ ? (unsigned)CNK_CONN_RECV : 0u;
    if (later) wants &= ~(unsigned)CNK_CONN_SEND;
    if (later || wants & CNK_CONN_TURN) on_wake(c); /* goes on after the others */
    unsigned watch = ((wants & CNK_CONN_RECV) && !s->draining ? (unsigned)CHRONIK_WATCH_READ : 0u) |
                     ((wants & CNK_CONN_SEND) ? (unsigned)CHRONIK_WATCH_WRITE : 0u);
    if (watch != c->watched) {
        c->watched = watch;
        s->loop->ops->watch_set(s->loop->self, c->watch, watch);
    }
    return;
close:
    conn_close(c, why);
    if (s->draining) cnk_node_shard_check(s);
}

static void on_socket(void *arg, unsigned events) {
    pump(arg, (events & CHRONIK_WATCH_READ) != 0);
}

/* From within lib/kafka: something has changed. Looked at after the events at hand. */
static void on_wake(void *arg) {
    node_conn *c = arg;
    node_shard *s = c->shard;
    if (!cnk_list_linked(&c->woken)) cnk_list_push_back(&s->woken, &c->woken);
    if (s->defer_posted) return;
    s->defer_posted = true;
    s->loop->ops->defer(s->loop->self, &s->defer_post);
}

static void pump_woken(chronik_post *post) {
    node_shard *s = CNK_CONTAINER(post, node_shard, defer_post);
    s->defer_posted = false;
    /* Those that are woken meanwhile have their turn in the next message. */
    cnk_list batch;
    cnk_list_init(&batch);
    for (cnk_list *l; (l = cnk_list_pop_front(&s->woken));) cnk_list_push_back(&batch, l);
    for (cnk_list *l; (l = cnk_list_pop_front(&batch));) {
        node_conn *c = CNK_CONTAINER(l, node_conn, woken);
        pump(c, !(c->watched & CHRONIK_WATCH_READ));
    }
}

/* ---- idle connections ------------------------------------------------------------------------------------------- */

/* The timer stands at the earliest time at which any connection can be idle for too long, so it hardly ever fires. */
static void sweep(void *arg) {
    node_shard *s = arg;
    uint64_t idle_ns = (uint64_t)cnk_conf_int(s->node->conf, CNK_CONF_IDLE_MS) * 1000000u;
    uint64_t now = now_ns(s), next = UINT64_MAX;
    s->sweep_set = false;
    CNK_LIST_EACH(l, &s->conns) {
        node_conn *c = CNK_CONTAINER(l, node_conn, link);
        if (now - c->active_ns >= idle_ns) {
            conn_close(c, NODE_CLOSE_IDLE);
            continue;
        }
        if (c->active_ns + idle_ns < next) next = c->active_ns + idle_ns;
    }
    if (next == UINT64_MAX) return;
    uint64_t soonest = now + (uint64_t)NODE_SWEEP_MS * 1000000u;
    s->loop->ops->timer_set(s->loop->self, s->sweep, next < soonest ? soonest : next);
    s->sweep_set = true;
}

static void sweep_start(node_shard *s) {
    int64_t idle_ms = cnk_conf_int(s->node->conf, CNK_CONF_IDLE_MS);
    if (s->sweep_set || idle_ms <= 0 || idle_ms > INT64_C(1000000) * 3600 * 24) return;
    s->sweep_set = true;
    s->loop->ops->timer_set(s->loop->self, s->sweep, now_ns(s) + (uint64_t)idle_ms * 1000000u);
}

/* ---- arriving ---------------------------------------------------------------------------------------------------- */

static int conn_open(node_shard *s, int fd, const chronik_address *local, const chronik_address *peer) {
    node_conn *c = cnk_calloc(1, sizeof *c);
    if (!c) return CHRONIK_ENOMEM;
    c->shard = s;
    c->fd = fd;
    c->active_ns = now_ns(s);
    int rc = s->loop->ops->watch_new(s->loop->self, fd, on_socket, c, &c->watch);
    if (!rc) rc = cnk_kafka_conn_new(s->kafka, "PLAINTEXT", peer, local, on_wake, c, &c->kafka);
    if (rc) {
        s->loop->ops->watch_free(s->loop->self, c->watch);
        cnk_free(c);
        return rc;
    }
    cnk_list_push_back(&s->conns, &c->link);
    cnk_counter_add(&s->conn_count, 1);
    cnk_counter_add(&s->accepted, 1);
    sweep_start(s);
    pump(c, true);
    return 0;
}

static void receive_newcomer(chronik_post *post) {
    newcomer *n = CNK_CONTAINER(post, newcomer, post);
    node_shard *s = n->shard;
    chronik_node *node = s->node;
    if (s->draining || conn_open(s, n->fd, &n->local, &n->peer)) {
        cnk_counter_add(&s->closed_for[s->draining ? NODE_CLOSE_SHUTDOWN : NODE_CLOSE_MEMORY], 1);
        node->io->net_ops->close(node->io->net, n->fd);
        atomic_fetch_sub(&node->connections, 1);
        if (s->draining) cnk_node_shard_check(s);
    }
    cnk_free(n);
}

/* Gives the socket to the next shard. */
static void welcome(chronik_node *node, int fd, const chronik_address *local, const chronik_address *peer) {
    node_shard *s = &node->shards[node->next_shard++ % node->shard_count];
    newcomer *n = NULL;
    bool over = atomic_fetch_add(&node->connections, 1) >= node->connections_max;
    if (over || !(n = cnk_calloc(1, sizeof *n))) {
        cnk_counter_add(&node->shards[0].closed_for[over ? NODE_CLOSE_LIMIT : NODE_CLOSE_MEMORY], 1);
        atomic_fetch_sub(&node->connections, 1);
        node->io->net_ops->close(node->io->net, fd);
        return;
    }
    *n = (newcomer){.post = {NULL, receive_newcomer}, .shard = s, .fd = fd, .local = *local, .peer = *peer};
    if (s->index == 0) receive_newcomer(&n->post);
    else s->loop->ops->post(s->loop->self, &n->post);
}

static void on_arrival(void *arg, unsigned events) {
    node_listener *l = arg;
    chronik_node *node = l->node;
    const chronik_loop *loop = node->shards[0].loop;
    (void)events;
    for (int i = 0; i < NODE_ACCEPTS_MAX; i++) {
        int fd;
        chronik_address local, peer;
        int rc = node->io->net_ops->accept(node->io->net, l->fd, &fd, &local, &peer);
        if (rc == CHRONIK_EAGAIN) return;
        if (rc == CHRONIK_ECLOSED) continue; /* it went away while it waited */
        if (rc) {
            /* No descriptors, or no memory: the same call would fail at once again. Waits a little. */
            cnk_node_log(node, CHRONIK_LOG_WARN, "cannot accept a connection: %s; trying again in 100 ms",
                         chronik_strerror(rc));
            loop->ops->watch_set(loop->self, l->watch, 0);
            loop->ops->timer_set(loop->self, l->retry, loop->ops->now_ns(loop->self) + 100000000u);
            return;
        }
        if (l->http) cnk_node_http_accept(node, fd);
        else welcome(node, fd, &local, &peer);
    }
}

static void accept_again(void *arg) {
    node_listener *l = arg;
    const chronik_loop *loop = l->node->shards[0].loop;
    loop->ops->watch_set(loop->self, l->watch, CHRONIK_WATCH_READ);
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

/* Where a client on this machine finds a socket that is bound to this address. */
static const char *reachable(const char *host) {
    if (strcmp(host, "0.0.0.0") == 0) return "127.0.0.1";
    if (strcmp(host, "::") == 0) return "localhost";
    return host;
}

int cnk_node_listen(chronik_node *node, const char *name, const char *host, uint16_t port, chronik_error *err) {
    CNK_ASSERT(node->listener_count < NODE_LISTENERS_MAX);
    node_listener *l = &node->listeners[node->listener_count];
    memset(l, 0, sizeof *l);
    int rc = node->io->net_ops->listen(node->io->net, host, port, err, &l->fd, &l->local);
    if (rc) return rc;
    l->name = name;
    l->node = node;
    l->http = strcmp(name, "kafka") != 0;
    const char *shown = host[0] ? reachable(l->local.host) : "127.0.0.1"; /* all addresses, IPv4 among them */
    snprintf(l->text, sizeof l->text, strchr(shown, ':') ? "[%s]:%u" : "%s:%u", shown, l->local.port);
    node->listener_count++;
    return 0;
}

int cnk_node_accept_start(chronik_node *node, chronik_error *err) {
    const chronik_loop *loop = node->shards[0].loop;
    for (size_t i = 0; i < node->listener_count; i++) {
        node_listener *l = &node->listeners[i];
        int rc = loop->ops->watch_new(loop->self, l->fd, on_arrival, l, &l->watch);
        if (!rc) rc = loop->ops->timer_new(loop->self, accept_again, l, &l->retry);
        if (rc) return cnk_error(err, rc, 0, "cannot accept connections");
        loop->ops->watch_set(loop->self, l->watch, CHRONIK_WATCH_READ);
    }
    return 0;
}

void cnk_node_listeners_close(chronik_node *node) {
    for (size_t i = 0; i < node->listener_count; i++) {
        node_listener *l = &node->listeners[i];
        if (l->watch) node->shards[0].loop->ops->watch_free(node->shards[0].loop->self, l->watch);
        if (l->retry) node->shards[0].loop->ops->timer_free(node->shards[0].loop->self, l->retry);
        if (l->fd >= 0) node->io->net_ops->close(node->io->net, l->fd);
        l->watch = NULL;
        l->retry = NULL;
        l->fd = -1;
    }
    cnk_node_http_close(node);
}

/* ---- a shard's connections ---------------------------------------------------------------------------------------- */

int cnk_node_shard_conns_init(node_shard *s) {
    cnk_list_init(&s->conns);
    cnk_list_init(&s->woken);
    cnk_list_init(&s->calls);
    s->defer_post.run = pump_woken;
    return s->loop->ops->timer_new(s->loop->self, sweep, s, &s->sweep);
}

void cnk_node_shard_drain(node_shard *s) {
    s->draining = true;
    /* pump closes those that have nothing under way, and stops reading from the others. */
    CNK_LIST_EACH(l, &s->conns) pump(CNK_CONTAINER(l, node_conn, link), false);
}

void cnk_node_shard_close_all(node_shard *s) {
    CNK_LIST_EACH(l, &s->conns) conn_close(CNK_CONTAINER(l, node_conn, link), NODE_CLOSE_SHUTDOWN);
}
