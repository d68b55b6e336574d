/* node: the C API, in one process: life, events, calls from many threads, several nodes, failing allocations. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>

#include "base/mem.h"
#include "node_host.h"

static int open_files(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static chronik_config *config_for(const char *name, const char *shards) {
    char dir[128];
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    return config_in(dir, "shards", shards);
}

static host host_new(const char *name, const char *shards) { return host_with(config_for(name, shards)); }

static host host_start(const char *name, const char *shards) {
    host h = host_new(name, shards);
    host_up(&h);
    return h;
}

/* The next event that is not a log line. */
static chronik_event *next(chronik_queue *queue, int timeout_ms) {
    chronik_event *e;
    while (chronik_queue_poll(queue, timeout_ms, &e) == 1) {
        if (chronik_event_type(e) != CHRONIK_EVENT_LOG) return e;
        chronik_event_free(e);
    }
    return NULL;
}

/* The next event of the type; others are dropped. */
static chronik_event *next_of(chronik_queue *queue, int type) {
    chronik_event *e;
    while ((e = next(queue, 20000)) && chronik_event_type(e) != type) chronik_event_free(e);
    ck_assert_ptr_nonnull(e);
    return e;
}

static void expect(chronik_queue *queue, int type) {
    chronik_event *e = next(queue, 20000);
    ck_assert_ptr_nonnull(e);
    ck_assert_msg(chronik_event_type(e) == type, "%s: %s", chronik_event_name(e), chronik_event_text(e));
    chronik_event_free(e);
}

static int produce(chronik_node *node, const char *topic, int32_t partition, const char *text, int64_t *offset) {
    chronik_record r = CHRONIK_RECORD_INIT;
    r.value = text;
    r.value_len = strlen(text);
    return chronik_produce_sync(node, topic, partition, &r, 1, &err, offset);
}

START_TEST(events_come_in_order_and_the_queue_is_pollable) {
    int before = open_files();
    host h = host_new("a", "1");
    struct pollfd p = {chronik_queue_fd(h.queue), POLLIN, 0};
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    ck_assert_int_eq(chronik_node_start(h.node, &err), 0);
    ck_assert_int_eq(poll(&p, 1, 20000), 1);
    expect(h.queue, CHRONIK_EVENT_READY);
    ck_assert_int_eq(chronik_node_start(h.node, &err), CHRONIK_EINVAL);
    ck_assert_int_eq(chronik_topic_create(h.node, "t", NULL, h.queue, &h), 0);
    chronik_event *e = next(h.queue, 20000);
    ck_assert_int_eq(chronik_event_type(e), CHRONIK_EVENT_TOPIC);
    ck_assert_int_eq(chronik_event_error(e), 0);
    ck_assert_ptr_eq(chronik_event_opaque(e), &h);
    chronik_event_free(e);
    chronik_node_stop(h.node, 1000);
    expect(h.queue, CHRONIK_EVENT_STOPPED);
    ck_assert_int_eq(chronik_topic_create(h.node, "u", NULL, h.queue, NULL), CHRONIK_ESHUTDOWN);
    chronik_node_free(h.node);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    chronik_queue_free(h.queue);
    chronik_config_free(h.config);
    ck_assert_int_eq(open_files(), before);
}
END_TEST

START_TEST(records_come_back_as_they_went) {
    host h = host_start("a", "1");
    const char *settings[] = {"max.message.bytes", "2000000", NULL};
    chronik_topic_options o = CHRONIK_TOPIC_OPTIONS_INIT;
    o.partitions = 3;
    o.settings = settings;
    ck_assert_msg(chronik_topic_create_sync(h.node, "t", &o, &err) == 0, "%s", err.text);
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", &o, &err), CHRONIK_ETOPICEXISTS);
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "a/b", NULL, &err), CHRONIK_EINVALIDTOPIC);
    chronik_header headers[20];
    for (int i = 0; i < 20; i++) headers[i] = (chronik_header){"h", 1, i % 2 ? NULL : "v", i % 2 ? 0 : 1};
    chronik_record r[3] = {CHRONIK_RECORD_INIT, CHRONIK_RECORD_INIT, CHRONIK_RECORD_INIT};
    char *big = malloc(1500000);
    memset(big, 'b', 1500000);
    r[0].key = "", r[0].key_len = 0, r[0].value = "one", r[0].value_len = 3, r[0].timestamp_ms = 1700000000000;
    r[1].headers = headers, r[1].header_count = 20;
    r[2].value = big, r[2].value_len = 1500000;
    int64_t offset = -1;
    ck_assert_msg(chronik_produce_sync(h.node, "t", 2, r, 3, &err, &offset) == 0, "%s", err.text);
    ck_assert_int_eq(offset, 0);
    ck_assert_int_eq(produce(h.node, "t", 2, "four", &offset), 0);
    ck_assert_int_eq(offset, 3);
    ck_assert_int_eq(produce(h.node, "t", 3, "x", &offset), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(produce(h.node, "none", 0, "x", &offset), CHRONIK_EUNKNOWNTOPIC);
    ck_assert_int_eq(offset, 3);

    chronik_event *e;
    chronik_fetch_options f = CHRONIK_FETCH_OPTIONS_INIT;
    f.max_bytes = 1 << 30;
    ck_assert_msg(chronik_fetch_sync(h.node, "t", 2, 1, &f, &err, &e) == 0, "%s", err.text);
    ck_assert_int_eq(chronik_event_a(e), 4);
    ck_assert_int_eq(chronik_event_b(e), 0);
    ck_assert_int_eq(chronik_event_next_offset(e), 4);
    chronik_record got = CHRONIK_RECORD_INIT;
    ck_assert_int_eq(chronik_event_record(e, &got), 1); /* 0 lies before what was asked for */
    ck_assert_int_eq(got.offset, 1);
    ck_assert_ptr_null(got.key);
    ck_assert_ptr_null(got.value);
    ck_assert_uint_eq(got.header_count, 20);
    ck_assert_ptr_null(got.headers[1].value);
    ck_assert_int_eq(memcmp(got.headers[2].value, "v", 1), 0);
    ck_assert_int_eq(chronik_event_record(e, &got), 1);
    ck_assert_uint_eq(got.value_len, 1500000);
    ck_assert_int_eq(memcmp(got.value, big, 1500000), 0);
    ck_assert_int_eq(chronik_event_record(e, &got), 1);
    ck_assert_int_eq(got.offset, 3);
    ck_assert_int_eq(chronik_event_record(e, &got), 0);
    size_t len, all = 0;
    for (size_t i = 0; chronik_event_data(e, i, &len); i++) all += len;
    ck_assert_uint_gt(all, 1500000);
    chronik_event_free(e);
    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 2, -2, &f, &err, &e), 0);
    ck_assert_int_eq(chronik_event_record(e, &got), 1);
    ck_assert_int_eq(got.offset, 0);
    ck_assert_int_eq(got.timestamp_ms, 1700000000000);
    ck_assert(got.key != NULL && got.key_len == 0);
    chronik_event_free(e);
    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 2, 99, &f, &err, &e), CHRONIK_EOFFSETRANGE);
    f.max_wait_ms = 10;
    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 2, -1, &f, &err, &e), 0);
    ck_assert_int_eq(chronik_event_record(e, &got), 0);
    ck_assert_int_eq(chronik_event_next_offset(e), 4);
    chronik_event_free(e);
    free(big);
    host_end(&h);
}
END_TEST

START_TEST(a_batch_is_taken_as_it_is) {
    host h = host_start("a", "1");
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", NULL, &err), 0);
    ck_assert_int_eq(produce(h.node, "t", 0, "seed", NULL), 0);
    chronik_event *e, *done;
    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 0, 0, NULL, &err, &e), 0);
    size_t len;
    const void *data = chronik_event_data(e, 0, &len);
    char *batch = malloc(len); /* what was stored, once more; baseOffset must be 0 */
    memcpy(batch, data, len);
    chronik_event_free(e);
    ck_assert_int_eq(chronik_produce_batch(h.node, "t", 0, batch, len, h.queue, NULL), 0);
    done = next_of(h.queue, CHRONIK_EVENT_PRODUCED);
    ck_assert_int_eq(chronik_event_error(done), 0);
    ck_assert_int_eq(chronik_event_a(done), 1);
    chronik_event_free(done);
    batch[len - 1] ^= 1;
    ck_assert_int_eq(chronik_produce_batch(h.node, "t", 0, batch, len, h.queue, NULL), 0);
    done = next(h.queue, 20000);
    ck_assert_int_eq(chronik_event_error(done), CHRONIK_ECORRUPTMESSAGE);
    chronik_event_free(done);
    free(batch);
    host_end(&h);
}
END_TEST

START_TEST(what_was_synced_is_there_after_a_restart_with_other_shards) {
    const char *shards[] = {"1", "3", "2"};
    for (int round = 0; round < 3; round++) {
        host h = host_start("a", shards[round]);
        chronik_topic_options o = CHRONIK_TOPIC_OPTIONS_INIT;
        o.partitions = 8;
        int rc = chronik_topic_create_sync(h.node, "t", &o, &err);
        ck_assert_int_eq(rc, round ? CHRONIK_ETOPICEXISTS : 0);
        for (int p = 0; p < 8; p++) {
            int64_t offset;
            ck_assert_int_eq(produce(h.node, "t", p, "x", &offset), 0);
            ck_assert_int_eq(offset, round);
        }
        host_end(&h);
    }
}
END_TEST

START_TEST(several_nodes_live_side_by_side) {
    host a = host_start("a", "1"), b = host_start("b", "2");
    ck_assert_str_ne(chronik_node_address(a.node, "kafka"), chronik_node_address(b.node, "kafka"));
    ck_assert_int_eq(chronik_topic_create_sync(a.node, "t", NULL, &err), 0);
    ck_assert_int_eq(produce(b.node, "t", 0, "x", NULL), CHRONIK_EUNKNOWNTOPIC);
    host c = host_new("a", "1");
    ck_assert_int_eq(chronik_node_start(c.node, &err), CHRONIK_EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "in use"));
    host_end(&a);
    ck_assert_msg(chronik_node_start(c.node, &err) == 0, "%s", err.text); /* a start that failed may be tried again */
    ck_assert_int_eq(chronik_node_wait_ready(c.node, 20000, &err), 0);
    ck_assert_int_eq(produce(c.node, "t", 0, "x", NULL), 0);
    host_end(&c);
    host_end(&b);
}
END_TEST

START_TEST(a_node_that_was_never_started_or_is_not_stopped_is_freed) {
    host h = host_new("a", "1");
    chronik_node_stop(h.node, 0);
    ck_assert_int_eq(chronik_produce(h.node, "t", 0, &(chronik_record)CHRONIK_RECORD_INIT, 1, h.queue, NULL), CHRONIK_EBUSY);
    ck_assert_int_eq(chronik_node_wait_ready(h.node, 0, &err), CHRONIK_ETIMEDOUT);
    chronik_node_free(h.node);
    ck_assert_int_eq(chronik_node_new(h.config, h.queue, &err, &h.node), 0);
    ck_assert_int_eq(chronik_node_start(h.node, &err), 0);
    chronik_node_free(h.node); /* perhaps while it opens */
    ck_assert_int_eq(chronik_node_new(h.config, h.queue, &err, &h.node), 0);
    ck_assert_int_eq(chronik_node_start(h.node, &err), 0);
    ck_assert_int_eq(chronik_node_wait_ready(h.node, 20000, &err), 0);
    chronik_node_free(h.node);
    chronik_queue_free(h.queue);
    chronik_config_free(h.config);
    chronik_node_free(NULL);
    chronik_queue_free(NULL);
    chronik_config_free(NULL);
    chronik_event_free(NULL);
}
END_TEST

/* ---- many threads, and a stop in the middle ---------------------------------------------------------------------- */

enum { CALLERS = 4 };

typedef struct caller {
    chronik_node *node;
    _Atomic long done;
    int last;
    int32_t partition;
} caller;

static void *call_on(void *arg) {
    caller *c = arg;
    chronik_error e = CHRONIK_ERROR_INIT;
    chronik_record r = CHRONIK_RECORD_INIT;
    r.value = "x", r.value_len = 1;
    for (;;) {
        int64_t offset;
        c->last = chronik_produce_sync(c->node, "t", c->partition, &r, 1, &e, &offset);
        if (c->last) return NULL;
        chronik_event *got;
        c->last = chronik_fetch_sync(c->node, "t", c->partition, offset, NULL, &e, &got);
        if (c->last) return NULL;
        ck_assert_int_eq(chronik_event_record(got, &r), 1);
        ck_assert_int_eq(r.offset, offset);
        chronik_event_free(got);
        r = (chronik_record)CHRONIK_RECORD_INIT;
        r.value = "x", r.value_len = 1;
        c->done++;
    }
}

START_TEST(calls_come_from_many_threads_until_the_stop) {
    host h = host_start("a", "3");
    chronik_topic_options o = CHRONIK_TOPIC_OPTIONS_INIT;
    o.partitions = CALLERS;
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", &o, &err), 0);
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        memset(&callers[i], 0, sizeof callers[i]);
        callers[i].node = h.node;
        callers[i].partition = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_on, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++)
        while (callers[i].done < 20) usleep(1000);
    chronik_event *waiting; /* a fetch that waits for data ends with the node, not with its time */
    chronik_fetch_options f = CHRONIK_FETCH_OPTIONS_INIT;
    f.max_wait_ms = 600000;
    f.min_bytes = 1 << 20;
    ck_assert_int_eq(chronik_fetch(h.node, "t", 0, -1, &f, h.queue, &f), 0);
    usleep(20000);
    chronik_node_stop(h.node, 5000);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_msg(callers[i].last == CHRONIK_ESHUTDOWN, "%d", callers[i].last);
    }
    waiting = next_of(h.queue, CHRONIK_EVENT_FETCHED);
    ck_assert_ptr_eq(chronik_event_opaque(waiting), &f);
    chronik_event_free(waiting);
    host_end(&h);
}
END_TEST

START_TEST(data_that_is_lent_holds_up_the_stop) {
    host h = host_start("a", "1");
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", NULL, &err), 0);
    ck_assert_int_eq(produce(h.node, "t", 0, "x", NULL), 0);
    chronik_event *e;
    ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 0, 0, NULL, &err, &e), 0);
    chronik_node_stop(h.node, 0);
    ck_assert_int_eq(chronik_node_wait_stopped(h.node, 100), CHRONIK_ETIMEDOUT);
    chronik_record r = CHRONIK_RECORD_INIT;
    ck_assert_int_eq(chronik_event_record(e, &r), 1); /* still there */
    ck_assert_int_eq(memcmp(r.value, "x", 1), 0);
    chronik_event_free(e);
    host_end(&h);
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* which has a thread of its own */
START_TEST(threads_of_the_library_block_signals) {
    host h = host_start("a", "2");
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", NULL, &err), 0);
    DIR *d = opendir("/proc/self/task");
    char self[32];
    int others = 0;
    snprintf(self, sizeof self, "%d", getpid());
    for (struct dirent *t; (t = readdir(d));) {
        if (t->d_name[0] == '.' || strcmp(t->d_name, self) == 0) continue;
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/self/task/%.20s/status", t->d_name);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f)) {
            unsigned long long mask;
            if (sscanf(line, "SigBlk: %llx", &mask) != 1) continue;
            for (int s = 1; s < 32; s++)
                if (s != SIGKILL && s != SIGSTOP) ck_assert_msg(mask >> (s - 1) & 1, "thread %s: signal %d", t->d_name, s);
            others++;
        }
        if (f) fclose(f);
    }
    closedir(d);
    ck_assert_int_ge(others, 2);
    host_end(&h);
}
END_TEST
#endif

START_TEST(a_wrong_configuration_is_refused_before_anything_happens) {
    chronik_config *c = config_for("a", "1");
    chronik_queue *q;
    chronik_node *n = NULL;
    ck_assert_int_eq(chronik_queue_new(&err, &q), 0);
    ck_assert_int_eq(chronik_config_set(c, "advertised.addr", "host:port", &err), 0);
    ck_assert_int_eq(chronik_node_new(c, q, &err, &n), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "advertised.addr"));
    ck_assert_ptr_null(n);
    ck_assert_int_eq(chronik_config_set(c, "advertised.addr", "[::1]:9", &err), 0);
    ck_assert_int_eq(chronik_node_new(c, q, &err, &n), 0);
    chronik_node_free(n);
    ck_assert_int_eq(access(chronik_config_get(c, "data.dir"), F_OK), -1);
    chronik_queue_free(q);
    chronik_config_free(c);
}
END_TEST

/* ---- http --------------------------------------------------------------------------------------------------------- */

static void http(const char *address, const char *request, char *answer, size_t size) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    ck_assert_int_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(fd, answer + n, size - 1 - n)) > 0;) n += (size_t)got;
    answer[n] = '\0';
    close(fd);
}

/* Prometheus' shape of a histogram: cumulative buckets that end with all, a sum in seconds. */
static void check_histogram(const char *text, const char *name, unsigned long expected) {
    char key[128];
    unsigned long n, last = 0, buckets = 0;
    double bound, before = 0, sum = 0;
    snprintf(key, sizeof key, "# TYPE %s histogram\n", name);
    const char *p = strstr(text, key);
    ck_assert_msg(p != NULL, "%s", text);
    p += strlen(key);
    snprintf(key, sizeof key, "%s_bucket{le=\"", name);
    for (; strncmp(p, key, strlen(key)) == 0; p = strchr(p, '\n') + 1, buckets++) {
        ck_assert_int_eq(sscanf(p + strlen(key), "%lf\"} %lu", &bound, &n), 2); /* +Inf is a number, too */
        ck_assert(bound > before && n >= last);
        before = bound;
        last = n;
    }
    ck_assert_uint_gt(buckets, 10);
    ck_assert_uint_eq(last, expected);
    snprintf(key, sizeof key, "%s_sum %%lf\n%s_count %%lu\n", name, name);
    ck_assert_int_eq(sscanf(p, key, &sum, &n), 2);
    ck_assert_uint_eq(n, expected);
    ck_assert(sum > 0 && sum < 600);
    if (strstr(name, "fetch")) ck_assert(sum >= 0.06); /* one has waited */
}

START_TEST(http_tells_health_and_counts) {
    static char text[65536];
    host h = host_start("a", "2");
    const char *at = chronik_node_address(h.node, "http");
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "t", NULL, &err), 0);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(produce(h.node, "t", 0, "x", NULL), 0);
    chronik_fetch_options wait = CHRONIK_FETCH_OPTIONS_INIT;
    wait.max_wait_ms = 60;
    for (int64_t offset = -2; offset < 0; offset++) { /* from the start, at once; at the end, in vain */
        chronik_event *e;
        ck_assert_int_eq(chronik_fetch_sync(h.node, "t", 0, offset, &wait, &err, &e), 0);
        chronik_event_free(e);
    }
    http(at, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", text, sizeof text);
    ck_assert_msg(strncmp(text, "HTTP/1.1 200 OK\r\n", 17) == 0 && strstr(text, "\"ok\""), "%s", text);
    http(at, "GET /ready?x=1 HTTP/1.0\r\n\r\n", text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "\"ready\""));
    http(at, "GET /metrics HTTP/1.1\r\n\r\n", text, sizeof text);
    ck_assert_msg(strstr(text, "\nchronik_messages_received_total 3\n") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "\nchronik_messages_stored_total 3\n") != NULL, "%s", text);
    ck_assert_ptr_nonnull(strstr(text, "\nchronik_active_connections 0\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nchronik_fenced 0\n"));
    check_histogram(text, "chronik_produce_latency_seconds", 3);
    check_histogram(text, "chronik_fetch_latency_seconds", 2);
    ck_assert_ptr_nonnull(strstr(text, "\nchronik_storage_usage_bytes "));
    http(at, "HEAD /health HTTP/1.1\r\n\r\n", text, sizeof text);
    ck_assert_ptr_null(strstr(text, "\"ok\""));
    http(at, "POST /health HTTP/1.1\r\n\r\n", text, sizeof text);
    ck_assert_int_eq(strncmp(text, "HTTP/1.1 405", 12), 0);
    http(at, "GET /none HTTP/1.1\r\n\r\n", text, sizeof text);
    ck_assert_int_eq(strncmp(text, "HTTP/1.1 404", 12), 0);
    http(at, "\x16\x03\x01\r\n\r\n", text, sizeof text);
    ck_assert_int_eq(strncmp(text, "HTTP/1.1 400", 12), 0);
    memset(text, 'a', 8191);
    text[8191] = '\0';
    static char answer[1024];
    http(at, text, answer, sizeof answer);
    ck_assert_int_eq(strncmp(answer, "HTTP/1.1 431", 12), 0);
    host_end(&h);
}
END_TEST

/* ---- failing allocations ------------------------------------------------------------------------------------------ */

#if defined CNK_TEST_HOOKS && !defined __SANITIZE_THREAD__ /* which makes hundreds of starts take minutes */
/* Each allocation of making and starting fails in turn: the node says so, and is freed without a trace. Later ones may
 * fail in the background, where they are made good for. */
START_TEST(each_allocation_of_a_start_may_fail) {
    chronik_config *c = config_for("a", "2");
    int served = 0, refused = 0;
    for (long n = 0; served < 3 && n < 5000; n += n < 150 ? 1 : 7) {
        chronik_queue *q;
        chronik_node *node = NULL;
        memset(&err, 0, sizeof err);
        ck_assert_int_eq(chronik_queue_new(&err, &q), 0);
        cnk_mem_fail_at(n);
        int rc = chronik_node_new(c, q, &err, &node);
        if (!rc) rc = chronik_node_start(node, &err);
        if (!rc) rc = chronik_node_wait_ready(node, 20000, &err);
        cnk_mem_fail_at(-1);
        if (rc) {
            refused++;
            served = 0;
            ck_assert_msg(rc == CHRONIK_ENOMEM, "allocation %ld: %d: %s", n, rc, err.text);
            ck_assert_msg(err.text[0], "allocation %ld", n);
        } else {
            served++;
        }
        chronik_node_free(node);
        chronik_queue_free(q);
    }
    chronik_config_free(c);
    ck_assert_int_gt(refused, 20);
}
END_TEST
#endif

int main(void) {
    Suite *s = suite_create("node");
    TCase *t = tcase_create("node");
    tcase_add_checked_fixture(t, root_make, root_remove);
    tcase_set_timeout(t, 0);
    tcase_add_test(t, events_come_in_order_and_the_queue_is_pollable);
    tcase_add_test(t, records_come_back_as_they_went);
    tcase_add_test(t, a_batch_is_taken_as_it_is);
    tcase_add_test(t, what_was_synced_is_there_after_a_restart_with_other_shards);
    tcase_add_test(t, several_nodes_live_side_by_side);
    tcase_add_test(t, a_node_that_was_never_started_or_is_not_stopped_is_freed);
    tcase_add_test(t, calls_come_from_many_threads_until_the_stop);
    tcase_add_test(t, data_that_is_lent_holds_up_the_stop);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(t, threads_of_the_library_block_signals);
#endif
    tcase_add_test(t, a_wrong_configuration_is_refused_before_anything_happens);
    tcase_add_test(t, http_tells_health_and_counts);
#if defined CNK_TEST_HOOKS && !defined __SANITIZE_THREAD__
    tcase_add_test(t, each_allocation_of_a_start_may_fail);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
