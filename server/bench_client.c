/* librdkafka's handles for chronik-bench, and what is asked of the broker before and after a load: the topic, its
 * offsets. All of it runs in the first thread, but for librdkafka's log, which keeps the last line for whoever has to
 * explain a failure. */
#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ADMIN_TIMEOUT_MS = 15000, CREATED_TIMEOUT_MS = 60000, QUERY_TIMEOUT_MS = 30000, BUFFERS_KB = 512 * 1024 };

static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char last_log[512];
static bool log_shown;
static _Atomic bool all_down; /* no broker can be connected to */

void bench_die(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("chronik-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(code);
}

int64_t bench_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk;
    pthread_mutex_lock(&log_mutex);
    if (level <= 3) snprintf(last_log, sizeof last_log, "%s", text);
    if (log_shown) fprintf(stderr, "%s: %s\n", facility, text);
    pthread_mutex_unlock(&log_mutex);
}

static void on_error(rd_kafka_t *rk, int rc, const char *text, void *opaque) {
    (void)rk;
    (void)text;
    (void)opaque;
    if (rc == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) all_down = true;
}

/* ": what librdkafka said last", or nothing. */
static const char *because(char *to, size_t size) {
    pthread_mutex_lock(&log_mutex);
    const char *text = strstr(last_log, "]: ");
    snprintf(to, size, "%s%s", last_log[0] ? ": " : "", text ? text + 3 : last_log);
    pthread_mutex_unlock(&log_mutex);
    return to;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char err[512];
    if (rd_kafka_conf_set(conf, name, value, err, sizeof err) != RD_KAFKA_CONF_OK)
        bench_die(BENCH_EXIT_USAGE, "%s", err);
}

static void set_number(rd_kafka_conf_t *conf, const char *name, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    set(conf, name, text);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* A producer's buffers, and a consumer's, are a share of BUFFERS_KB, but have room for some messages. */
static int64_t share_kb(const bench_options *o, int clients) {
    return larger(BUFFERS_KB / clients, larger(1024, o->size_bytes * 4 / 1024));
}

static void set_producer(rd_kafka_conf_t *conf, const bench_options *o, int clients) {
    set(conf, "acks", bench_acks[o->acks]);
    set(conf, "compression.type", bench_codecs[o->compression]);
    set_number(conf, "linger.ms", o->linger_ms);
    set_number(conf, "batch.size", o->batch_bytes);
    set_number(conf, "request.timeout.ms", o->request_timeout_ms);
    set_number(conf, "message.timeout.ms", larger(o->message_timeout_ms, o->linger_ms + 1));
    set_number(conf, "message.max.bytes", larger(1000000, o->size_bytes + 1024));
    set_number(conf, "queue.buffering.max.messages", larger(o->rate_limit, larger(100000, o->in_flight + 1)));
    set_number(conf, "queue.buffering.max.kbytes", share_kb(o, clients));
}

static void set_consumer(rd_kafka_conf_t *conf, const bench_options *o, int clients) {
    set(conf, "allow.auto.create.topics", "false");
    set(conf, "enable.auto.commit", "false");
    set(conf, "enable.auto.offset.store", "false");
    set(conf, "auto.offset.reset", "error");
    set(conf, "enable.partition.eof", "true");
    set(conf, "check.crcs", "true");
    set_number(conf, "queued.max.messages.kbytes", share_kb(o, clients));
}

rd_kafka_t *bench_client_new(const bench_options *o, rd_kafka_type_t type, int clients, void *opaque,
                             void (*on_delivery)(rd_kafka_t *, const rd_kafka_message_t *, void *)) {
    char err[512];
    log_shown = o->verbose;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", o->brokers);
    set(conf, "client.id", "chronik-bench");
    set(conf, "socket.nagle.disable", "true"); /* a small request must not wait for the answer to the one before */
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_opaque(conf, opaque);
    if (type == RD_KAFKA_PRODUCER) set_producer(conf, o, clients);
    else set_consumer(conf, o, clients);
    if (on_delivery) rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    for (int i = 0; i < o->property_count; i++) {
        char name[256];
        const char *equals = strchr(o->properties[i], '=');
        snprintf(name, sizeof name, "%.*s", (int)(equals - o->properties[i]), o->properties[i]);
        set(conf, name, equals + 1);
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof err);
    if (!rk) bench_die(BENCH_EXIT_USAGE, "%s", err); /* options that do not go together */
    return rk;
}

/* ---- the topic -------------------------------------------------------------------------------------------------- */

/* Gives up early where nobody listens, which librdkafka tells only who polls. */
static rd_kafka_resp_err_t ask(rd_kafka_t *rk, rd_kafka_topic_t *rkt, const struct rd_kafka_metadata **ret) {
    rd_kafka_resp_err_t rc = RD_KAFKA_RESP_ERR__TRANSPORT;
    for (int ms = 250; ms < ADMIN_TIMEOUT_MS && rc && !all_down && !bench_interrupts; ms *= 2) {
        rc = rd_kafka_metadata(rk, 0, rkt, ret, ms);
        rd_kafka_poll(rk, 0);
    }
    return rc;
}

bool bench_broker_answers(rd_kafka_t *rk) {
    const struct rd_kafka_metadata *md;
    rd_kafka_poll(rk, 0); /* what was down may be up again */
    all_down = false;
    if (ask(rk, NULL, &md)) return false;
    rd_kafka_metadata_destroy(md);
    return true;
}

/* How many partitions the topic has, or 0 where there is none. */
static int partitions_of(const bench_options *o, rd_kafka_t *rk, rd_kafka_topic_t *rkt) {
    const struct rd_kafka_metadata *md;
    char why[600];
    rd_kafka_resp_err_t rc = ask(rk, rkt, &md);
    if (rc)
        bench_die(BENCH_EXIT_WRONG, "no answer from a broker at %s (%s)%s", o->brokers, rd_kafka_err2str(rc),
                  because(why, sizeof why));
    int count = 0;
    rd_kafka_resp_err_t topic_rc = md->topic_cnt == 1 ? md->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (!topic_rc || topic_rc == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) count = md->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(md);
    if (topic_rc && topic_rc != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART &&
        topic_rc != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
        bench_die(BENCH_EXIT_WRONG, "topic %s: %s", o->topic, rd_kafka_err2str(topic_rc));
    return count;
}

static rd_kafka_event_t *admin_result(const bench_options *o, rd_kafka_queue_t *q, const char *what) {
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, QUERY_TIMEOUT_MS);
    if (!ev || rd_kafka_event_error(ev))
        bench_die(BENCH_EXIT_WRONG, "%s topic %s: %s", what, o->topic,
                  ev ? rd_kafka_event_error_string(ev) : "no answer");
    return ev;
}

static void check_topic_result(const bench_options *o, const rd_kafka_topic_result_t **results, size_t n,
                               const char *what) {
    rd_kafka_resp_err_t rc = n == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;
    if (!rc || rc == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return;
    const char *why = n == 1 ? rd_kafka_topic_result_error_string(results[0]) : NULL;
    bench_die(BENCH_EXIT_WRONG, "%s topic %s: %s", what, o->topic, why ? why : rd_kafka_err2str(rc));
}

static void create(const bench_options *o, rd_kafka_t *rk) {
    char err[512];
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(o->topic, (int)o->partitions, (int)o->replication, err, sizeof err);
    if (!topic) bench_die(BENCH_EXIT_USAGE, "topic %s: %s", o->topic, err);
    rd_kafka_CreateTopics(rk, &topic, 1, NULL, q);
    rd_kafka_event_t *ev = admin_result(o, q, "create");
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
    check_topic_result(o, results, n, "create");
    rd_kafka_event_destroy(ev);
    rd_kafka_NewTopic_destroy(topic);
    rd_kafka_queue_destroy(q);
}

/* What has been created is served a little later. */
static void wait_until_served(const bench_options *o, rd_kafka_t *rk, int partitions) {
    int64_t until = bench_now_ns() + (int64_t)CREATED_TIMEOUT_MS * 1000000, low, high;
    for (int p = 0; p < partitions && !bench_interrupts;) {
        rd_kafka_resp_err_t rc = rd_kafka_query_watermark_offsets(rk, o->topic, p, &low, &high, QUERY_TIMEOUT_MS);
        if (!rc) {
            p++;
            continue;
        }
        if (bench_now_ns() > until)
            bench_die(BENCH_EXIT_WRONG, "topic %s, partition %d is not served: %s", o->topic, p, rd_kafka_err2str(rc));
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}

int bench_topic_prepare(const bench_options *o, rd_kafka_t *rk) {
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, o->topic, NULL);
    if (!rkt) bench_die(BENCH_EXIT_USAGE, "topic %s: %s", o->topic, rd_kafka_err2str(rd_kafka_last_error()));
    int partitions = partitions_of(o, rk, rkt);
    bool created = partitions == 0 && o->create_topic;
    if (created) {
        create(o, rk);
        int64_t until = bench_now_ns() + (int64_t)CREATED_TIMEOUT_MS * 1000000;
        while ((partitions = partitions_of(o, rk, rkt)) == 0 && bench_now_ns() < until && !bench_interrupts)
            nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    if (partitions == 0)
        bench_die(BENCH_EXIT_WRONG, "there is no topic %s; --create-topic makes it, -p says with how many partitions",
                  o->topic);
    if (partitions > BENCH_PARTITIONS_MAX)
        bench_die(BENCH_EXIT_WRONG, "topic %s has %d partitions; %d are supported", o->topic, partitions,
                  BENCH_PARTITIONS_MAX);
    if (created) wait_until_served(o, rk, partitions);
    else if (o->create_topic && o->partitions_given && partitions != o->partitions)
        fprintf(stderr, "chronik-bench: topic %s exists, with %d partitions and not %lld\n", o->topic, partitions,
                (long long)o->partitions);
    rd_kafka_topic_destroy(rkt);
    return partitions;
}

void bench_topic_delete(const bench_options *o, rd_kafka_t *rk) {
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(o->topic);
    rd_kafka_DeleteTopics(rk, &topic, 1, NULL, q);
    rd_kafka_event_t *ev = admin_result(o, q, "delete");
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(ev), &n);
    check_topic_result(o, results, n, "delete");
    rd_kafka_event_destroy(ev);
    rd_kafka_DeleteTopic_destroy(topic);
    rd_kafka_queue_destroy(q);
}

void bench_offsets_query(const bench_options *o, rd_kafka_t *rk, bench_range *ranges, int partitions) {
    for (int p = 0; p < partitions; p++) {
        rd_kafka_resp_err_t rc =
            rd_kafka_query_watermark_offsets(rk, o->topic, p, &ranges[p].start, &ranges[p].end, QUERY_TIMEOUT_MS);
        if (rc)
            bench_die(BENCH_EXIT_WRONG, "topic %s, partition %d: its offsets cannot be had: %s", o->topic, p,
                      rd_kafka_err2str(rc));
    }
}
