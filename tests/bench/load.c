/* The load generator of the benchmarks, on librdkafka.
 *
 *   load cycle   --broker B --topic T [options]   produce as fast as it goes, check the end offsets, read all back once the
 *                                                 broker has come to rest; CPU until then is the producing's
 *   load tail    --broker B --topic T [options]   the same with a consumer at the tail while producing
 *   load groups  --broker B --topic T [options]   then --consumers N (10) read all of it at once, each the whole
 *   load latency --broker B --topic T --rate R --seconds S [options]   from the plan to the acknowledgement
 *   load e2e     --broker B --topic T --rate R --seconds S [options]   from the plan to a consumer at the tail
 *
 * Options: --partitions N (1), --size BYTES (256), --mb MEGABYTES of payload (256), --codec C (none), --linger MS (5),
 * --pid P (the broker's process, for its CPU time), --no-create (the topic is there already), --warmup SECONDS (3),
 * --set NAME=VALUE (librdkafka, producer).
 *
 * Record k of a partition carries k, its partition and bytes that follow from both; one half packs away, so lz4 makes
 * about 2:1 of it. The consumer checks every byte, and that k equals the offset. Prints one line of NAME=VALUE and exits
 * with 1 where the acknowledged count, the end offsets and what was consumed are not one and the same.
 *
 * `load version` prints librdkafka's. Latency is taken from the moment at which a record was to be sent by the plan, not
 * from when it was sent: a stall counts for every record that it held up. The records of the warm-up are sent and verified,
 * but not in the figures. README.md says how the figures compare with those of chronik-bench. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#include "bench/clock.h"

enum { PARTITIONS_MAX = 1000, POOL = 4 << 20, HEADER = 16, CONSUME_BATCH = 10000, STALL_S = 60, REST_S = 20, CONSUMERS_MAX = 32 };

static struct {
    const char *broker, *topic, *codec, *linger;
    int partitions, size, mb, pid, rate, seconds, warmup, consumers;
    bool create;
    const char *set[16];
    int set_count;
} opt = {.codec = "none", .linger = "5", .partitions = 1, .size = 256, .mb = 256, .warmup = 3, .consumers = 10, .create = true};

static unsigned char *pool;
static _Atomic int64_t acked, failed;
static int64_t acked_of[PARTITIONS_MAX]; /* by the polling thread */
static _Atomic bool disorder;
static rd_kafka_resp_err_t failure;

static void die(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

static void pool_make(void) {
    uint64_t s = 88172645463325252u;
    pool = malloc(POOL);
    if (!pool) die("memory", "none");
    for (size_t i = 0; i < POOL; i += 8) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        memcpy(pool + i, &s, 8);
    }
}

static void pieces(int32_t partition, int64_t k, size_t *ret_at, size_t *ret_noise, unsigned char *ret_fill) {
    *ret_noise = (size_t)opt.size / 2 - HEADER;
    *ret_at = (size_t)((uint64_t)k * *ret_noise + (uint64_t)partition * 7919u) % (POOL - *ret_noise);
    *ret_fill = (unsigned char)('a' + k % 26);
}

static void record_make(unsigned char *p, int32_t partition, int64_t k) {
    size_t at, noise;
    unsigned char fill;
    pieces(partition, k, &at, &noise, &fill);
    memcpy(p, &k, 8);
    memcpy(p + 8, &partition, 4);
    memcpy(p + 12, "load", 4);
    memcpy(p + HEADER, pool + at, noise);
    memset(p + HEADER + noise, fill, (size_t)opt.size - HEADER - noise);
}

static bool record_check(const unsigned char *p, size_t len, int32_t partition, int64_t k) {
    size_t at, noise;
    unsigned char fill;
    pieces(partition, k, &at, &noise, &fill);
    if (len != (size_t)opt.size || memcmp(p, &k, 8) != 0 || memcmp(p + 8, &partition, 4) != 0 ||
        memcmp(p + HEADER, pool + at, noise) != 0)
        return false;
    const unsigned char *rest = p + HEADER + noise;
    return rest[0] == fill && memcmp(rest, rest + 1, len - HEADER - noise - 1) == 0;
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void conf_set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char err[512];
    if (rd_kafka_conf_set(conf, name, value, err, sizeof err) != RD_KAFKA_CONF_OK) die("configuration", err);
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char err[512];
    conf_set(conf, "bootstrap.servers", opt.broker);
    conf_set(conf, "broker.address.family", "v4");
    conf_set(conf, "log_level", "3");
    rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof err);
    if (!rk) die("client", err);
    return rk;
}

static int64_t *latency_us; /* of record i, by the plan */
static double latency_start;
static bool to_consumer; /* the end is a consumer, not the acknowledgement */

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    (void)rk;
    (void)opaque;
    if (m->err) {
        failure = m->err;
        atomic_fetch_add_explicit(&failed, 1, memory_order_relaxed);
        return;
    }
    if (m->offset != acked_of[m->partition]++) disorder = true;
    atomic_fetch_add_explicit(&acked, 1, memory_order_relaxed);
    if (latency_us && !to_consumer) {
        intptr_t i = (intptr_t)m->_private - 1;
        latency_us[i] = (int64_t)((now_s() - latency_start - (double)i / opt.rate) * 1e6);
    }
}

static rd_kafka_t *producer(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    conf_set(conf, "acks", "all");
    conf_set(conf, "compression.type", opt.codec);
    conf_set(conf, "linger.ms", opt.linger);
    conf_set(conf, "queue.buffering.max.messages", "1000000");
    conf_set(conf, "queue.buffering.max.kbytes", "262144");
    for (int i = 0; i < opt.set_count; i++) {
        char name[128];
        const char *eq = strchr(opt.set[i], '=');
        if (!eq) die("--set", opt.set[i]);
        snprintf(name, sizeof name, "%.*s", (int)(eq - opt.set[i]), opt.set[i]);
        conf_set(conf, name, eq + 1);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return client(RD_KAFKA_PRODUCER, conf);
}

static void topic_create(void) {
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(opt.topic, opt.partitions, 1, NULL, 0);
    rd_kafka_CreateTopics(rk, &t, 1, NULL, q);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, 30000);
    if (!ev || rd_kafka_event_error(ev)) die("create topic", ev ? rd_kafka_event_error_string(ev) : "no answer");
    size_t n;
    const rd_kafka_topic_result_t **r = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
    if (n != 1 || rd_kafka_topic_result_error(r[0])) die("create topic", rd_kafka_topic_result_error_string(r[0]));
    rd_kafka_event_destroy(ev);
    for (int p = 0, tries = 0; p < opt.partitions; tries++) { /* until each is served */
        int64_t low, high;
        if (!rd_kafka_query_watermark_offsets(rk, opt.topic, p, &low, &high, 5000)) p++;
        else if (tries > 200) die("create topic", "is not served");
        else usleep(50000);
    }
    rd_kafka_NewTopic_destroy(t);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
}

static bool end_offsets_check(rd_kafka_t *rk) {
    for (int p = 0; p < opt.partitions; p++) {
        int64_t low = -1, high = -1;
        rd_kafka_resp_err_t rc = rd_kafka_query_watermark_offsets(rk, opt.topic, p, &low, &high, 30000);
        if (rc || low != 0 || high != acked_of[p]) {
            fprintf(stderr, "load: partition %d: offsets %" PRId64 "..%" PRId64 " (%s), %" PRId64 " acknowledged\n", p,
                    low, high, rd_kafka_err2str(rc), acked_of[p]);
            return false;
        }
    }
    return true;
}

/* ---- producing -------------------------------------------------------------------------------------------------- */

/* Produces `count` records round robin and waits for all acknowledgements. Returns the seconds that took. */
static double produce_all(rd_kafka_t *rk, int64_t count) {
    unsigned char *buf = malloc((size_t)opt.size);
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, opt.topic, NULL);
    if (!buf || !rkt) die("topic", "none");
    int64_t next_of[PARTITIONS_MAX] = {0};
    double began = now_s();
    for (int64_t i = 0; i < count; i++) {
        int32_t p = (int32_t)(i % opt.partitions);
        record_make(buf, p, next_of[p]++);
        while (rd_kafka_produce(rkt, p, RD_KAFKA_MSG_F_COPY, buf, (size_t)opt.size, NULL, 0, NULL)) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                die("produce", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(rk, 10);
        }
        if (i % 1000 == 0) rd_kafka_poll(rk, 0);
    }
    int64_t before = -1;
    for (double since = now_s(); acked + failed < count; rd_kafka_poll(rk, 10)) {
        if (acked + failed != before) before = acked + failed, since = now_s();
        else if (now_s() - since > STALL_S) die("produce", "no acknowledgement for a minute");
    }
    double took = now_s() - began;
    rd_kafka_topic_destroy(rkt);
    free(buf);
    return took;
}

/* ---- consuming -------------------------------------------------------------------------------------------------- */

typedef struct consumption {
    rd_kafka_t *rk;
    rd_kafka_queue_t *q;
    _Atomic int64_t want; /* INT64_MAX until it is known */
    int64_t consumed, next_of[PARTITIONS_MAX];
    const char *group;
    double first, last; /* when the first records came: librdkafka takes half a second to begin; when the last */
    int64_t first_count;
    bool good;
    atomic_int at_end;
} consumption;

static void consumer_start(consumption *c, int64_t offset) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    conf_set(conf, "group.id", c->group ? c->group : "load");
    conf_set(conf, "enable.auto.commit", "false");
    conf_set(conf, "auto.offset.reset", "error");
    conf_set(conf, "enable.partition.eof", "true");
    /* With its default, a second's rest once its queue is full, the client is at rest for most of the time. Older ones lack it. */
    (void)rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "1", NULL, 0);
    c->rk = client(RD_KAFKA_CONSUMER, conf);
    rd_kafka_poll_set_consumer(c->rk);
    c->q = rd_kafka_queue_get_consumer(c->rk);
    c->good = true;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(opt.partitions);
    for (int p = 0; p < opt.partitions; p++)
        rd_kafka_topic_partition_list_add(list, opt.topic, p)->offset = offset;
    rd_kafka_resp_err_t rc = rd_kafka_assign(c->rk, list);
    if (rc) die("assign", rd_kafka_err2str(rc));
    rd_kafka_topic_partition_list_destroy(list);
}

static void consume_one(consumption *c, const rd_kafka_message_t *m) {
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        c->at_end++;
        return;
    }
    if (m->err) {
        fprintf(stderr, "load: consume: %s\n", rd_kafka_message_errstr(m));
        c->good = false;
        return;
    }
    int64_t *next = &c->next_of[m->partition];
    if (m->offset != *next || !record_check(m->payload, m->len, m->partition, *next)) {
        if (c->good)
            fprintf(stderr, "load: partition %d: offset %" PRId64 " (%" PRId64 " was due) or its content is wrong\n",
                    m->partition, m->offset, *next);
        c->good = false;
    }
    if (latency_us && to_consumer) {
        int64_t i = *next * opt.partitions + m->partition;
        latency_us[i] = (int64_t)((now_s() - latency_start - (double)i / opt.rate) * 1e6);
    }
    ++*next;
    c->consumed++;
}

/* Reads until the wanted count is there. */
static void consume_run(consumption *c) {
    static _Thread_local rd_kafka_message_t *batch[CONSUME_BATCH];
    double since = now_s();
    while (c->good && c->consumed < c->want) {
        ssize_t n = rd_kafka_consume_batch_queue(c->q, 100, batch, to_consumer ? 1 : CONSUME_BATCH);
        for (ssize_t i = 0; i < n; i++) {
            consume_one(c, batch[i]);
            rd_kafka_message_destroy(batch[i]);
        }
        if (n > 0) c->last = since = now_s();
        if (n > 0 && c->first == 0) c->first = c->last, c->first_count = c->consumed;
        else if (now_s() - since > STALL_S) {
            fprintf(stderr, "load: nothing to consume for a minute, after %" PRId64 "\n", c->consumed);
            c->good = false;
        }
    }
}

static void *consume_thread(void *arg) {
    consume_run(arg);
    return NULL;
}

static void consumer_stop(consumption *c) {
    rd_kafka_queue_destroy(c->q);
    rd_kafka_consumer_close(c->rk);
    rd_kafka_destroy(c->rk);
}

/* ---- the modes -------------------------------------------------------------------------------------------------- */

static int64_t record_count(void) { return (int64_t)opt.mb * 1000000 / opt.size; }

static bool produced_well(rd_kafka_t *rk, int64_t count) {
    if (failed) {
        fprintf(stderr, "load: %" PRId64 " not delivered: %s\n", (int64_t)failed, rd_kafka_err2str(failure));
        return false;
    }
    if (disorder) fprintf(stderr, "load: acknowledged offsets are not dense\n");
    return acked == count && !disorder && end_offsets_check(rk);
}

/* What a broker still does about what it has been given belongs to that, and not to what comes next. */
static void rest(void) {
    double until = now_s() + REST_S;
    for (double last = -1, now; (now = cpu_s(opt.pid)) - last > 0.011 && now_s() < until; usleep(500000)) last = now;
}

static int mode_cycle(void) {
    int64_t count = record_count();
    double gb = (double)count * opt.size / 1e9;
    rd_kafka_t *rk = producer();
    double cpu = cpu_s(opt.pid), took = produce_all(rk, count);
    rest();
    cpu = cpu_s(opt.pid) - cpu;
    bool good = produced_well(rk, count);
    rd_kafka_destroy(rk);

    static consumption c;
    c.want = count;
    double cpu2 = cpu_s(opt.pid);
    consumer_start(&c, RD_KAFKA_OFFSET_BEGINNING);
    consume_run(&c);
    cpu2 = cpu_s(opt.pid) - cpu2;
    double rate2 = c.last > c.first ? (double)(c.consumed - c.first_count) * opt.size / 1e6 / (c.last - c.first) : 0;
    consumer_stop(&c);
    good = good && c.good && c.consumed == acked;
    printf("verified=%d acked=%" PRId64 " consumed=%" PRId64 " produce_mb_s=%.1f produce_cpu_s_gb=%.2f "
           "consume_mb_s=%.1f consume_cpu_s_gb=%.2f\n",
           good, (int64_t)acked, c.consumed, gb * 1000 / took, cpu / gb, rate2, cpu2 / gb);
    return good ? 0 : 1;
}

static int mode_tail(void) {
    int64_t count = record_count();
    double gb = (double)count * opt.size / 1e9;
    static consumption c;
    c.want = INT64_MAX;
    consumer_start(&c, RD_KAFKA_OFFSET_END);
    pthread_t thread;
    if (pthread_create(&thread, NULL, consume_thread, &c)) die("thread", "none");
    for (double since = now_s(); c.at_end < opt.partitions; usleep(1000))
        if (now_s() - since > STALL_S) die("consume", "does not reach the tail");
    rd_kafka_t *rk = producer();
    c.want = count;
    double began = now_s(), cpu = cpu_s(opt.pid), took = produce_all(rk, count);
    pthread_join(thread, NULL);
    cpu = cpu_s(opt.pid) - cpu;
    bool good = produced_well(rk, count) && c.good && c.consumed == acked;
    rd_kafka_destroy(rk);
    consumer_stop(&c);
    printf("verified=%d acked=%" PRId64 " consumed=%" PRId64
           " tail_mb_s=%.1f tail_produce_mb_s=%.1f tail_cpu_s_gb=%.2f\n",
           good, (int64_t)acked, c.consumed, gb * 1000 / (c.last - began), gb * 1000 / took, cpu / gb);
    return good ? 0 : 1;
}

static int mode_groups(void) {
    static consumption c[CONSUMERS_MAX];
    static char names[CONSUMERS_MAX][16];
    pthread_t threads[CONSUMERS_MAX];
    int64_t count = record_count(), consumed = 0;
    rd_kafka_t *rk = producer();
    produce_all(rk, count);
    rest();
    bool good = produced_well(rk, count);
    rd_kafka_destroy(rk);
    double cpu = cpu_s(opt.pid), began = 0, end = 0;
    for (int i = 0; i < opt.consumers; i++) {
        snprintf(names[i], sizeof names[i], "load-%d", i);
        c[i].group = names[i];
        c[i].want = count;
        consumer_start(&c[i], RD_KAFKA_OFFSET_BEGINNING);
        if (pthread_create(&threads[i], NULL, consume_thread, &c[i])) die("thread", "none");
    }
    for (int i = 0; i < opt.consumers; i++) pthread_join(threads[i], NULL);
    cpu = cpu_s(opt.pid) - cpu;
    for (int i = 0; i < opt.consumers; i++) {
        if (began == 0 || c[i].first < began) began = c[i].first;
        if (c[i].last > end) end = c[i].last;
        consumed += c[i].consumed;
        good = good && c[i].good && c[i].consumed == acked;
        consumer_stop(&c[i]);
    }
    double gb = (double)consumed * opt.size / 1e9;
    printf("verified=%d acked=%" PRId64 " consumed=%" PRId64 " groups_mb_s=%.1f groups_cpu_s_gb=%.2f\n", good,
           (int64_t)acked, consumed, end > began ? gb * 1000 / (end - began) : 0, cpu / gb);
    return good ? 0 : 1;
}

static _Atomic bool stop_polling;

static void *poll_thread(void *arg) {
    while (!stop_polling) rd_kafka_poll(arg, 100);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int mode_latency(void) {
    int64_t count = (int64_t)opt.rate * (opt.seconds + opt.warmup), skip = (int64_t)opt.rate * opt.warmup;
    int64_t next_of[PARTITIONS_MAX] = {0};
    latency_us = malloc((size_t)count * sizeof *latency_us);
    unsigned char *buf = malloc((size_t)opt.size);
    if (!latency_us || !buf) die("memory", "none");
    rd_kafka_t *rk = producer();
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, opt.topic, NULL);
    int64_t low, high; /* connect before the clock runs */
    rd_kafka_query_watermark_offsets(rk, opt.topic, 0, &low, &high, 30000);
    static consumption c;
    c.want = count;
    pthread_t thread, consumer;
    if (pthread_create(&thread, NULL, poll_thread, rk)) die("thread", "none");
    if (to_consumer) {
        consumer_start(&c, RD_KAFKA_OFFSET_END);
        if (pthread_create(&consumer, NULL, consume_thread, &c)) die("thread", "none");
        for (double since = now_s(); c.at_end < opt.partitions; usleep(1000))
            if (now_s() - since > STALL_S) die("consume", "does not reach the tail");
    }
    double cpu = 0, cpu_began = 0;
    latency_start = now_s();
    for (int64_t i = 0; i < count;) {
        int64_t due = (int64_t)((now_s() - latency_start) * opt.rate) + 1;
        if (due > count) due = count;
        for (; i < due; i++) {
            if (i == skip) cpu = cpu_s(opt.pid), cpu_began = now_s();
            int32_t p = (int32_t)(i % opt.partitions);
            record_make(buf, p, next_of[p]++);
            while (rd_kafka_produce(rkt, p, RD_KAFKA_MSG_F_COPY, buf, (size_t)opt.size, NULL, 0,
                                    (void *)(intptr_t)(i + 1)))
                usleep(100);
        }
        struct timespec nap = {0, to_consumer ? 50000 : 200000};
        nanosleep(&nap, NULL);
    }
    double percent = (cpu_s(opt.pid) - cpu) / (now_s() - cpu_began) * 100;
    int64_t before = -1;
    for (double since = now_s(); acked + failed < count; usleep(1000)) {
        if (acked + failed != before) before = acked + failed, since = now_s();
        else if (now_s() - since > STALL_S) die("produce", "no acknowledgement for a minute");
    }
    stop_polling = true;
    pthread_join(thread, NULL);
    rd_kafka_topic_destroy(rkt);
    bool good = produced_well(rk, count);
    rd_kafka_destroy(rk);
    if (!to_consumer) {
        consumer_start(&c, RD_KAFKA_OFFSET_BEGINNING);
        consume_run(&c);
    } else {
        pthread_join(consumer, NULL);
    }
    consumer_stop(&c);
    good = good && c.good && c.consumed == acked;
    int64_t *l = latency_us + skip;
    size_t n = (size_t)(count - skip);
    qsort(l, n, sizeof *l, ascending);
    printf("verified=%d acked=%" PRId64 " consumed=%" PRId64
           " p50_ms=%.2f p90_ms=%.2f p99_ms=%.2f p999_ms=%.2f max_ms=%.2f cpu_percent=%.1f\n",
           good, (int64_t)acked, c.consumed, (double)l[n / 2] / 1e3, (double)l[n * 9 / 10] / 1e3,
           (double)l[n * 99 / 100] / 1e3, (double)l[n * 999 / 1000] / 1e3, (double)l[n - 1] / 1e3, percent);
    return good ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "version") == 0) return printf("librdkafka %s\n", rd_kafka_version_str()) < 0;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--no-create") == 0) {
            opt.create = false;
            continue;
        }
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        struct {
            const char *name;
            const char **text;
            int *number;
        } all[] = {{"--broker", &opt.broker, NULL},         {"--topic", &opt.topic, NULL},
                   {"--codec", &opt.codec, NULL},           {"--linger", &opt.linger, NULL},
                   {"--partitions", NULL, &opt.partitions}, {"--size", NULL, &opt.size},
                   {"--mb", NULL, &opt.mb},                 {"--pid", NULL, &opt.pid},
                   {"--rate", NULL, &opt.rate},             {"--seconds", NULL, &opt.seconds},
                   {"--warmup", NULL, &opt.warmup},         {"--consumers", NULL, &opt.consumers}};
        bool known = false;
        for (size_t k = 0; k < sizeof all / sizeof all[0] && !known; k++) {
            if (strcmp(argv[i], all[k].name) != 0) continue;
            known = true;
            if (all[k].text) *all[k].text = value;
            else *all[k].number = atoi(value);
        }
        if (strcmp(argv[i], "--set") == 0 && opt.set_count < 16) opt.set[opt.set_count++] = value, known = true;
        if (!known) die("unknown option", argv[i]);
        i++;
    }
    if (!opt.broker || !opt.topic || opt.partitions < 1 || opt.partitions > PARTITIONS_MAX || opt.size < 64)
        die("usage", "load cycle|tail|latency --broker B --topic T …");
    pool_make();
    if (opt.create) topic_create();
    if (strcmp(mode, "cycle") == 0) return mode_cycle();
    if (strcmp(mode, "tail") == 0) return mode_tail();
    to_consumer = strcmp(mode, "e2e") == 0;
    if (strcmp(mode, "groups") == 0 && opt.consumers > 0 && opt.consumers <= CONSUMERS_MAX) return mode_groups();
    if ((strcmp(mode, "latency") == 0 || to_consumer) && opt.rate > 0 && opt.seconds > 0) return mode_latency();
    die("unknown mode", mode);
}
