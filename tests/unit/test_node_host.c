/* node on the host's loop, everything in one thread (jobs=inline): no further thread is ever there; each allocation, each
 * call for a file and each call for a socket fails in turn while the node starts, serves and stops. The same calls come
 * in the same order each time, so "in turn" means every one.
 *
 * Whatever fails, each call of the API ends, the node stops, memory, descriptors and messages are given back (the
 * sanitizer and this test look), and what was acknowledged is there in the end. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <arpa/inet.h>

#include <event2/event.h>

#include <chronik/io_event.h>
#include <chronik/io_posix.h>
#include <chronik/node.h>
#include <chronik/node_loop.h>

#include "base/mem.h"
#include "node/internal.h"

static char root[64];
static chronik_error err;

static void setup(void) {
    /* Thousands of starts and stops: in memory where there is such a directory, since what is synced is not looked at. */
    strcpy(root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/chronik-test-XXXXXX" : "/tmp/chronik-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    memset(&err, 0, sizeof err);
}

static void teardown(void) {
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

static int entries(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}
static int open_files(void) { return entries("/proc/self/fd"); }
#ifndef __SANITIZE_THREAD__ /* which has a thread of its own */
static int threads(void) { return entries("/proc/self/task") - 2; }
#endif

/* ---- calls that fail ---------------------------------------------------------------------------------------------- */

static struct {
    const chronik_io *inner;
    chronik_io io;
    long calls, fail_at; /* the call that fails, from 1; 0: none */
    int code;
    bool net; /* calls for sockets are counted, not those for files */
    bool full, broken; /* no space is given; no write succeeds */
    size_t sent;       /* to sockets */
    char what[200];
} faulty;

static bool must_fail(bool net, const char *what) {
    if (net != faulty.net || ++faulty.calls != faulty.fail_at) return false;
    snprintf(faulty.what, sizeof faulty.what, "%s", what);
    return true;
}
static int refuse(chronik_error *e, const char *what) {
    if (e) {
        e->code = faulty.code;
        snprintf(e->text, sizeof e->text, "%s: the test says no", what);
    }
    return faulty.code;
}
#define DISK faulty.inner->disk_ops
#define SELF faulty.inner->disk

static int d_open(void *d, const char *path, unsigned flags, chronik_error *e, chronik_file **ret) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->open(SELF, path, flags, e, ret);
}
static void d_close(void *d, chronik_file *f) { (void)d, DISK->close(SELF, f); }
static int d_write(void *d, chronik_file *f, const struct iovec *iov, int n, uint64_t pos, chronik_error *e) {
    (void)d;
    if (faulty.broken) return CHRONIK_EIO;
    return must_fail(false, "write") ? refuse(e, "write") : DISK->write(SELF, f, iov, n, pos, e);
}
static int64_t d_read(void *d, chronik_file *f, void *buf, size_t len, uint64_t pos, chronik_error *e) {
    (void)d;
    return must_fail(false, "read") ? refuse(e, "read") : DISK->read(SELF, f, buf, len, pos, e);
}
static int64_t d_read_cached(void *d, chronik_file *f, void *buf, size_t len, uint64_t pos) {
    (void)d;
    return DISK->read_cached(SELF, f, buf, len, pos);
}
static int d_sync(void *d, chronik_file *f, chronik_error *e) {
    (void)d;
    return must_fail(false, "sync") ? refuse(e, "sync") : DISK->sync(SELF, f, e);
}
static int d_allocate(void *d, chronik_file *f, uint64_t len, chronik_error *e) {
    (void)d;
    if (faulty.full) return CHRONIK_ENOSPC;
    return must_fail(false, "allocate") ? refuse(e, "allocate") : DISK->allocate(SELF, f, len, e);
}
static int d_truncate(void *d, chronik_file *f, uint64_t len, chronik_error *e) {
    (void)d;
    return must_fail(false, "truncate") ? refuse(e, "truncate") : DISK->truncate(SELF, f, len, e);
}
static int d_size(void *d, chronik_file *f, chronik_error *e, uint64_t *ret) {
    (void)d;
    return must_fail(false, "size") ? refuse(e, "size") : DISK->size_get(SELF, f, e, ret);
}
static int d_rename(void *d, const char *from, const char *to, chronik_error *e) {
    (void)d;
    return must_fail(false, to) ? refuse(e, to) : DISK->rename(SELF, from, to, e);
}
static int d_unlink(void *d, const char *path, chronik_error *e) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->unlink(SELF, path, e);
}
static int d_mkdir(void *d, const char *path, chronik_error *e) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->mkdir(SELF, path, e);
}
static int d_sync_dir(void *d, const char *path, chronik_error *e) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->sync_dir(SELF, path, e);
}
static int d_list(void *d, const char *path, int (*each)(void *arg, const char *name), void *arg, chronik_error *e) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->list(SELF, path, each, arg, e);
}
static int d_lock(void *d, const char *path, chronik_error *e, chronik_file **ret) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->lock(SELF, path, e, ret);
}
static int d_space(void *d, const char *path, chronik_error *e, chronik_disk_space *ret) {
    (void)d;
    return must_fail(false, path) ? refuse(e, path) : DISK->space(SELF, path, e, ret);
}
static void d_forget(void *d, chronik_file *f, uint64_t pos, uint64_t len) { (void)d, DISK->forget(SELF, f, pos, len); }

static const chronik_disk_ops disk_ops = {sizeof(chronik_disk_ops), d_open,   d_close,    d_write,  d_read,
                                          d_read_cached,            d_sync,   d_allocate, d_truncate, d_size,
                                          d_rename,                 d_unlink, d_mkdir,    d_sync_dir, d_list,
                                          d_lock,                   d_space,  d_forget,   NULL};

static int n_listen(void *n, const char *host, uint16_t port, chronik_error *e, int *ret_fd, chronik_address *local) {
    (void)n;
    return must_fail(true, "listen") ? refuse(e, "listen")
                                     : faulty.inner->net_ops->listen(faulty.inner->net, host, port, e, ret_fd, local);
}
static int n_accept(void *n, int fd, int *ret_fd, chronik_address *local, chronik_address *peer) {
    (void)n;
    return must_fail(true, "accept") ? faulty.code : faulty.inner->net_ops->accept(faulty.inner->net, fd, ret_fd, local, peer);
}
static ssize_t n_recv(void *n, int fd, const struct iovec *iov, int count) {
    (void)n;
    return must_fail(true, "recv") ? faulty.code : faulty.inner->net_ops->recv(faulty.inner->net, fd, iov, count);
}
static ssize_t n_send(void *n, int fd, const struct iovec *iov, int count) {
    (void)n;
    if (must_fail(true, "send")) return faulty.code;
    ssize_t sent = faulty.inner->net_ops->send(faulty.inner->net, fd, iov, count);
    if (sent > 0) faulty.sent += (size_t)sent;
    return sent;
}
static void n_close(void *n, int fd) { (void)n, faulty.inner->net_ops->close(faulty.inner->net, fd); }
static const chronik_net_ops net_ops = {sizeof(chronik_net_ops), n_listen, n_accept, n_recv, n_send, n_close};

/* ---- a host ------------------------------------------------------------------------------------------------------- */

typedef struct host {
    struct event_base *base;
    chronik_io *posix;
    chronik_io_event *event;
    chronik_config *config;
    chronik_queue *queue;
    chronik_node *node;
    bool ready, stopped, fenced;
} host;

/* What belongs to the host stays outside of the failing. */
static host host_new(void) {
    host h = {.base = event_base_new()};
    char dir[128];
    snprintf(dir, sizeof dir, "%s/data", root);
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &h.posix), 0);
    ck_assert_int_eq(chronik_io_event_new(h.base, &err, &h.event), 0);
    ck_assert_int_eq(chronik_queue_new(&err, &h.queue), 0);
    ck_assert_int_eq(chronik_config_new(&h.config), 0);
    static const char *const options[][2] = {{"bind", "127.0.0.1"}, {"kafka.port", "0"}, {"http.port", "0"}, {"jobs", "inline"},
                                              {"wal.rotation.size", "1MB"}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        ck_assert_int_eq(chronik_config_set(h.config, options[i][0], options[i][1], &err), 0);
    ck_assert_int_eq(chronik_config_set(h.config, "data.dir", dir, &err), 0);
    faulty.inner = h.posix;
    faulty.io = *h.posix;
    faulty.io.disk_ops = &disk_ops;
    faulty.io.net_ops = &net_ops;
    return h;
}

static int host_make(host *h) {
    const chronik_loop *loops[1] = {chronik_io_event_loop(h->event)};
    return chronik_node_new_on(h->config, &faulty.io, loops, 1, h->queue, &err, &h->node);
}

static void turn(host *h) { event_base_loop(h->base, EVLOOP_NONBLOCK); }

static void host_free(host *h) {
    chronik_node_free(h->node);
    for (int i = 0; i < 5; i++) turn(h); /* nothing of the node is left on the loop */
    chronik_queue_free(h->queue);
    chronik_config_free(h->config);
    chronik_io_event_free(h->event);
    chronik_io_posix_free(h->posix);
    event_base_free(h->base);
}

/* The next event that is not about the node itself; NULL: there is none yet. */
static chronik_event *look(host *h) {
    chronik_event *e;
    while (chronik_queue_poll(h->queue, 0, &e) == 1) {
        int type = chronik_event_type(e);
        if (type >= CHRONIK_EVENT_TOPIC) return e;
        h->ready |= type == CHRONIK_EVENT_READY;
        h->fenced |= type == CHRONIK_EVENT_FENCED;
        h->stopped |= type == CHRONIK_EVENT_STOPPED;
        chronik_event_free(e);
    }
    return NULL;
}

/* Runs the loop until the call's event comes. */
static chronik_event *await(host *h) {
    for (;;) {
        chronik_event *e = look(h);
        if (e) return e;
        if (h->stopped) return NULL;
        event_base_loop(h->base, EVLOOP_ONCE);
    }
}

static int await_code(host *h) {
    chronik_event *e = await(h);
    ck_assert_ptr_nonnull(e);
    int code = chronik_event_error(e);
    chronik_event_free(e);
    return code;
}

static bool start(host *h) {
    if (chronik_node_start(h->node, &err) != 0) return false;
    while (!h->ready && !h->stopped) {
        ck_assert_ptr_null(look(h));
        if (!h->ready && !h->stopped) event_base_loop(h->base, EVLOOP_ONCE);
    }
    return h->ready;
}

static void stop(host *h) {
    chronik_node_stop(h->node, 5000);
    while (!h->stopped) {
        chronik_event_free(look(h));
        if (!h->stopped) event_base_loop(h->base, EVLOOP_ONCE);
    }
}

/* ---- what is done ------------------------------------------------------------------------------------------------- */

enum { RECORDS = 3 };
static long acked[RECORDS]; /* how often; over all runs on one directory */

static int produce(host *h, int which) {
    static const char *const values[RECORDS] = {"a", "b", "c"};
    chronik_record r = CHRONIK_RECORD_INIT;
    r.value = values[which];
    r.value_len = 1;
    int rc = chronik_produce(h->node, "t", 0, &r, 1, h->queue, NULL);
    if (rc == 0) rc = await_code(h);
    if (rc == 0) acked[which]++;
    return rc;
}

/* Counts what is there of each record; false: it cannot be read now. */
static bool read_all(host *h, long found[RECORDS]) {
    int64_t offset = -2;
    for (;;) {
        chronik_fetch_options o = CHRONIK_FETCH_OPTIONS_INIT;
        o.max_wait_ms = 0;
        if (chronik_fetch(h->node, "t", 0, offset, &o, h->queue, NULL)) return false;
        chronik_event *e = await(h);
        ck_assert_ptr_nonnull(e);
        bool any = false;
        int code = chronik_event_error(e), rc = 0;
        chronik_record r = CHRONIK_RECORD_INIT;
        while (!code && (rc = chronik_event_record(e, &r)) == 1) {
            ck_assert_uint_eq(r.value_len, 1);
            found[((const char *)r.value)[0] - 'a']++;
            any = true;
        }
        offset = chronik_event_next_offset(e);
        chronik_event_free(e);
        if (code || rc) return false;
        if (!any) return true;
    }
}

static int client(const char *address) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!address) return -1;
    a.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Sends, and waits for an answer, or for the connection's end: whether there was one. */
static char answer[16384];
static bool ask(host *h, const char *address, const void *request, size_t len) {
    int fd = client(address);
    if (fd < 0) return false;
    ck_assert_int_eq(write(fd, request, len), (ssize_t)len);
    ssize_t n;
    while ((n = read(fd, answer, sizeof answer - 1)) < 0 && (errno == EAGAIN || errno == EINTR))
        event_base_loop(h->base, EVLOOP_ONCE);
    close(fd);
    answer[n > 0 ? n : 0] = '\0';
    for (int i = 0; i < 3; i++) turn(h);
    return n > 0;
}

static const unsigned char api_versions[] = {0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255};
static const unsigned char metadata[] = {0, 0, 0, 17, 0, 3, 0, 0, 0, 0, 0, 8, 255, 255, 0, 0, 0, 1, 0, 1, 't'};
static const char health[] = "GET /metrics HTTP/1.1\r\n\r\n";

#ifdef CNK_TEST_HOOKS
static void fail_allocation(long n) { cnk_mem_fail_at(n); }
static long count_allocations(void) { return cnk_mem_count(); }
#else
static long count_allocations(void) { return 0; }
static void fail_allocation(long n) { (void)n; }
#endif

/* Starts, does a little of everything, stops. allocation: the one that fails; negative: none. True: nothing went
 * wrong. */
static long allocations; /* in the last one */
static bool scenario(long allocation) {
    long found[RECORDS] = {0};
    host h = host_new();
    int before = open_files();
    bool good = false;
    fail_allocation(allocation);
    allocations = -count_allocations();
    if (host_make(&h) == 0 && start(&h)) {
        good = true;
        int rc = chronik_topic_create(h.node, "t", NULL, h.queue, NULL);
        if (rc == 0) rc = await_code(&h);
        good &= rc == 0 || rc == CHRONIK_ETOPICEXISTS;
        for (int i = 0; i < RECORDS; i++) good &= produce(&h, i) == 0;
        good &= read_all(&h, found);
        good &= ask(&h, chronik_node_address(h.node, "kafka"), api_versions, sizeof api_versions);
        good &= ask(&h, chronik_node_address(h.node, "kafka"), metadata, sizeof metadata);
        good &= ask(&h, chronik_node_address(h.node, "http"), health, sizeof health - 1);
        stop(&h);
    } else if (h.node && !h.stopped) { /* it has not begun: it may be tried again, with nothing left of the first time */
        fail_allocation(-1);
        faulty.fail_at = 0;
        ck_assert_msg(start(&h), "a second start: %s", err.text);
        stop(&h);
    }
    fail_allocation(-1);
    faulty.fail_at = 0;
    allocations += count_allocations();
    chronik_node_free(h.node);
    h.node = NULL;
    ck_assert_int_le(open_files(), before);
    host_free(&h);
    return good;
}

/* With nothing failing: whatever was acknowledged is there. */
static void check(const char *after, long n) {
    long found[RECORDS] = {0};
    host h = host_new();
    ck_assert_int_eq(host_make(&h), 0);
    ck_assert_msg(start(&h), "%s %ld (%s): no start afterwards: %s", after, n, faulty.what, err.text);
    chronik_topic_create(h.node, "t", NULL, h.queue, NULL);
    await_code(&h);
    ck_assert_msg(read_all(&h, found), "%s %ld (%s): cannot be read afterwards", after, n, faulty.what);
    for (int i = 0; i < RECORDS; i++)
        ck_assert_msg(found[i] >= acked[i], "%s %ld (%s): of %ld acknowledged %ld are there", after, n, faulty.what,
                      acked[i], found[i]);
    ck_assert_int_eq(produce(&h, 0), 0);
    stop(&h);
    host_free(&h);
}

static void fresh(void) {
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s/data'", root);
    ck_assert_int_eq(system(command), 0);
    memset(acked, 0, sizeof acked);
}

/* Readers with room in their sockets: in one turn of the loop all of them get no more than a share, so others have their turn soon;
 * in the end all have all. */
START_TEST(large_answers_go_out_in_shares) {
    enum { READERS = 4, VALUES = 6, VALUE = 900000 };
    static char value[VALUE], buffer[1 << 20];
    static const unsigned char fetch[] = {0, 0, 0, 54, 0, 1, 0, 4, 0, 0, 0, 9, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1,
                                          1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                          1, 0, 0, 0};
    ck_assert_uint_eq(sizeof fetch, 58);
    fresh();
    host h = host_new();
    ck_assert_int_eq(chronik_config_set(h.config, "wal.rotation.size", "64MB", &err), 0); /* one answer has all of it */
    ck_assert_int_eq(host_make(&h), 0);
    ck_assert_msg(start(&h), "%s", err.text);
    ck_assert_int_eq(chronik_topic_create(h.node, "t", NULL, h.queue, NULL), 0);
    ck_assert_int_eq(await_code(&h), 0);
    chronik_record r = CHRONIK_RECORD_INIT;
    r.value = value;
    r.value_len = VALUE;
    for (int i = 0; i < VALUES; i++) {
        ck_assert_int_eq(chronik_produce(h.node, "t", 0, &r, 1, h.queue, NULL), 0);
        ck_assert_int_eq(await_code(&h), 0);
    }
    int fds[READERS];
    size_t got[READERS] = {0}, most = 0;
    for (int i = 0; i < READERS; i++) {
        fds[i] = client(chronik_node_address(h.node, "kafka"));
        ck_assert_int_eq(write(fds[i], fetch, sizeof fetch), (ssize_t)sizeof fetch);
    }
    for (int whole = 0; whole < READERS;) {
        faulty.sent = 0;
        event_base_loop(h.base, EVLOOP_ONCE | EVLOOP_NONBLOCK); /* it may have sent all, and the system not yet given it */
        if (faulty.sent > most) most = faulty.sent;
        if (faulty.sent == 0) usleep(100);
        whole = 0;
        for (int i = 0; i < READERS; i++) {
            for (ssize_t n; (n = read(fds[i], buffer, sizeof buffer)) > 0;) got[i] += (size_t)n;
            whole += got[i] > (size_t)VALUES * VALUE;
        }
    }
    ck_assert_uint_le(most, 2 * NODE_SEND_BYTES_MAX); /* of its events, and of its messages */
    ck_assert_uint_gt(most, NODE_SEND_BYTES_MAX / 2);
    for (int i = 0; i < READERS; i++) close(fds[i]);
    stop(&h);
    host_free(&h);
}
END_TEST

#ifndef __SANITIZE_THREAD__
START_TEST(no_thread_but_the_hosts) {
    fresh();
    for (int round = 0; round < 3; round++) {
        long found[RECORDS] = {0};
        host h = host_new();
        ck_assert_int_eq(chronik_config_set(h.config, "wal.rotation.size", "100000", &err), 0); /* so that packs are made */
        ck_assert_int_eq(host_make(&h), 0);
        ck_assert_msg(start(&h), "%s", err.text);
        ck_assert_int_eq(threads(), 1);
        if (round == 0) {
            ck_assert_int_eq(chronik_topic_create(h.node, "t", NULL, h.queue, NULL), 0);
            ck_assert_int_eq(await_code(&h), 0);
        }
        for (int i = 0; i < 300; i++) {
            ck_assert_int_eq(produce(&h, i % RECORDS), 0);
            if (i % 50 == 0) ck_assert_int_eq(threads(), 1);
        }
        ck_assert(read_all(&h, found)); /* from packs, files and memory */
        for (int i = 0; i < RECORDS; i++) ck_assert_int_eq(found[i], 100 * (round + 1));
        ck_assert(ask(&h, chronik_node_address(h.node, "kafka"), api_versions, sizeof api_versions));
        ck_assert_int_eq(threads(), 1);
        stop(&h);
        host_free(&h);
    }
    char packs[128];
    snprintf(packs, sizeof packs, "%s/data/packs", root);
    ck_assert_int_gt(entries(packs), 2);
}
END_TEST

START_TEST(no_thread_but_the_shards) {
    for (int shards = 1; shards <= 3; shards += 2) {
        fresh();
        for (int round = 0; round < 2; round++) {
            char number[16], dir[128];
            host h = {0};
            snprintf(dir, sizeof dir, "%s/data", root);
            snprintf(number, sizeof number, "%d", shards);
            ck_assert_int_eq(chronik_queue_new(&err, &h.queue), 0);
            ck_assert_int_eq(chronik_config_new(&h.config), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "data.dir", dir, &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "bind", "127.0.0.1", &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "kafka.port", "0", &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "http.port", "0", &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "jobs", "inline", &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "wal.rotation.size", "100000", &err), 0);
            ck_assert_int_eq(chronik_config_set(h.config, "shards", number, &err), 0);
            ck_assert_int_eq(chronik_node_new(h.config, h.queue, &err, &h.node), 0);
            ck_assert_msg(chronik_node_start(h.node, &err) == 0, "%s", err.text);
            ck_assert_msg(chronik_node_wait_ready(h.node, 20000, &err) == 0, "%s", err.text);
            chronik_topic_options o = CHRONIK_TOPIC_OPTIONS_INIT;
            o.partitions = 6;
            if (round == 0) ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", &o, &err), 0);
            chronik_record r = CHRONIK_RECORD_INIT;
            r.value = "x", r.value_len = 1;
            for (int i = 0; i < 300; i++)
                ck_assert_int_eq(chronik_produce_sync(h.node, "t", i % 6, &r, 1, &err, NULL), 0);
            for (int p = 0; p < 6; p++) {
                chronik_event *e;
                int64_t offset = -2, records = 0;
                for (bool more = true; more;) {
                    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", p, offset, NULL, &err, &e), 0);
                    for (more = false; chronik_event_record(e, &r) == 1; records++) more = true;
                    offset = chronik_event_next_offset(e);
                    more = more && offset < chronik_event_a(e);
                    chronik_event_free(e);
                }
                ck_assert_int_eq(records, 50 * (round + 1));
            }
            r = (chronik_record)CHRONIK_RECORD_INIT;
            ck_assert_int_eq(threads(), 1 + shards);
            chronik_node_free(h.node);
            ck_assert_int_eq(threads(), 1);
            chronik_queue_free(h.queue);
            chronik_config_free(h.config);
        }
    }
}
END_TEST
#endif

#ifdef CNK_TEST_HOOKS
START_TEST(each_allocation_fails) {
    int bad = 0;
    for (int on_new = 0; on_new < 2; on_new++) { /* on a directory with data; then on a new one */
        for (long n = 0;; n++) {
            if (on_new || n % 20 == 0) fresh();
            if (!on_new && n % 20 == 0) ck_assert(scenario(-1));
            bool good = scenario(n);
            bool hit = allocations > n;
            bad += !good;
            ck_assert_msg(good || hit, "without any failure: %s", err.text);
            if (!hit) break;
            if (n % 16 == 0) check("allocation", n);
        }
        check("the last allocation", 0);
    }
    ck_assert_int_gt(bad, 100);
}
END_TEST
#endif

static void expect_http(host *h, const char *path, const char *status, const char *word) {
    char request[64];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n\r\n", path);
    ck_assert(ask(h, chronik_node_address(h->node, "http"), request, strlen(request)));
    ck_assert_msg(strncmp(answer + 9, status, 3) == 0 && strstr(answer, word), "%s: %s", path, answer);
}

static int produce_much(host *h) {
    static char value[2000];
    chronik_record r = CHRONIK_RECORD_INIT;
    r.value = value;
    r.value_len = sizeof value;
    int rc = chronik_produce(h->node, "t", 0, &r, 1, h->queue, NULL);
    return rc ? rc : await_code(h);
}

/* A full disk passes: reads go on, and so do writes when there is room. A broken one stays. */
START_TEST(health_of_a_full_and_of_a_broken_disk) {
    fresh();
    host h = host_new();
    ck_assert_int_eq(chronik_config_set(h.config, "wal.rotation.size", "100000", &err), 0);
    ck_assert_int_eq(host_make(&h), 0);
    ck_assert_msg(start(&h), "%s", err.text);
    chronik_topic_create(h.node, "t", NULL, h.queue, NULL);
    ck_assert_int_eq(await_code(&h), 0);
    ck_assert_int_eq(produce(&h, 1), 0);
    ck_assert(ask(&h, chronik_node_address(h.node, "kafka"), api_versions, sizeof api_versions));
    expect_http(&h, "/metrics", "200", "\nchronik_requests_total{api=\"ApiVersions\",version=\"0\"} 1\n");
    expect_http(&h, "/health", "200", "\"ok\"");
    expect_http(&h, "/ready", "200", "\"ready\"");
    faulty.full = true;
    int rc = 0;
    for (int i = 0; i < 1000 && rc == 0; i++) rc = produce_much(&h);
    ck_assert_int_eq(rc, CHRONIK_ESTORAGE);
    expect_http(&h, "/health", "200", "\"full\"");
    expect_http(&h, "/ready", "200", "\"full\"");
    expect_http(&h, "/metrics", "200", "\nchronik_wal_full 1\n");
    chronik_event *e;
    ck_assert_int_eq(chronik_fetch(h.node, "t", 0, 0, NULL, h.queue, NULL), 0);
    e = await(&h);
    ck_assert_int_eq(chronik_event_error(e), 0);
    chronik_event_free(e);
    ck_assert_int_eq(produce(&h, 2), CHRONIK_ESTORAGE);
    faulty.full = false;
    while ((rc = produce(&h, 2)) != 0) {
        ck_assert_int_eq(rc, CHRONIK_ESTORAGE);
        event_base_loop(h.base, EVLOOP_ONCE);
    }
    expect_http(&h, "/health", "200", "\"ok\"");
    faulty.broken = true;
    ck_assert_int_ne(produce(&h, 0), 0);
    expect_http(&h, "/health", "503", "\"fenced\"");
    expect_http(&h, "/ready", "503", "\"fenced\"");
    expect_http(&h, "/metrics", "200", "\nchronik_fenced 1\n");
    ck_assert_int_eq(produce(&h, 0), CHRONIK_ESTORAGE);
    stop(&h);
    ck_assert(h.fenced);
    faulty.broken = false;
    host_free(&h);
}
END_TEST

/* _i: 0: files, 1: sockets; on a new directory, or (2, 3) on one with data. */
START_TEST(each_call_fails) {
    static const int codes[] = {CHRONIK_EIO, CHRONIK_ENOSPC, CHRONIK_EAGAIN};
    int bad = 0;
    for (int c = 0; c < 3; c++) {
        if (c == 2 - _i % 2) continue; /* a disk may be full, and a socket not ready */
        for (long n = 1;; n++) {
            fresh();
            if (_i >= 2) ck_assert(scenario(-1));
            faulty.calls = 0;
            faulty.fail_at = n;
            faulty.code = codes[c];
            faulty.net = _i % 2 != 0;
            faulty.what[0] = '\0';
            bool good = scenario(-1);
            bool hit = faulty.what[0] != '\0';
            bad += !good;
            ck_assert_msg(good || hit, "without any failure: %s", err.text);
            if (!hit) break;
            check("call", n);
        }
    }
    ck_assert_int_gt(bad, _i % 2 ? 3 : 15);
}
END_TEST

int main(void) {
    Suite *s = suite_create("node on a host");
    TCase *t = tcase_create("host");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 0);
    tcase_add_test(t, large_answers_go_out_in_shares);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(t, no_thread_but_the_hosts);
    tcase_add_test(t, no_thread_but_the_shards);
#endif
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_fails);
#endif
    tcase_add_loop_test(t, each_call_fails, 0, 4);
    tcase_add_test(t, health_of_a_full_and_of_a_broken_disk);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
