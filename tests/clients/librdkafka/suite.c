/* librdkafka against a broker: topics, every codec and acknowledgement mode, times, large messages, the tail, a restart.
 *
 *   suite BROKER PHASE RUN
 *
 * PHASE: `main` runs the tests that need no restart; `write` leaves a topic behind for `read`, which is run after the
 * broker was restarted. RUN (Unix seconds) names topics and sets record timestamps, the same in `write` and `read`.
 * Each test prints one line: `ok NAME`, `FAIL NAME: why` or `skip NAME: why`. The exit status is 1 after a failure.
 *
 * Record i of a topic goes to partition i mod 3, and everything in it follows from i (see `expected`), so a consumer
 * checks content, order and completeness from the offset alone. */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

enum { PARTITIONS = 3, RECORDS = 301, TIMEOUT_MS = 30000, RESTART_RECORDS = 5000 };

static const char *broker;
static long run_id;
static int failures;
static char why[1024];

static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd"};
enum { CODECS = sizeof codecs / sizeof codecs[0] };

/* ---- one record ------------------------------------------------------------------------------------------------- */

typedef struct record {
    char key[32];
    bool key_null;
    char value[1024];
    size_t value_len;
    bool value_null;
    int headers; /* 0, 1 or 3: h1=v<i>, h2=null, h3="" */
    char h1[32];
    int64_t timestamp_ms;
} record;

static int64_t base_ms(void) { return ((int64_t)run_id - 3600) * 1000; }

static void expected(const char *topic, int i, record *r) {
    memset(r, 0, sizeof *r);
    r->key_null = i % 5 == 0;
    snprintf(r->key, sizeof r->key, "k%d", i % 23);
    r->value_null = i % 31 == 30;
    int head = snprintf(r->value, sizeof r->value, "%s/%d/", topic, i);
    size_t fill = (size_t)(i * 37 % 600);
    memset(r->value + head, 'a' + i % 26, fill);
    r->value_len = (size_t)head + fill;
    r->headers = i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : 3;
    snprintf(r->h1, sizeof r->h1, "v%d", i);
    r->timestamp_ms = base_ms() + (int64_t)i * 10;
}

/* ---- reporting -------------------------------------------------------------------------------------------------- */

static bool fail(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return false;
}

static void report(bool passed, const char *name) {
    if (passed) {
        printf("ok %s\n", name);
    } else {
        printf("FAIL %s: %s\n", name, why);
        failures++;
    }
    fflush(stdout);
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

/* A client with name/value pairs of configuration up to NULL. */
static rd_kafka_t *client(rd_kafka_type_t type, ...) {
    char err[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", broker, NULL, 0);
    rd_kafka_conf_set(conf, "broker.address.family", "v4", NULL, 0);
    rd_kafka_conf_set(conf, "log_level", "2", NULL, 0);
    va_list ap;
    va_start(ap, type);
    for (const char *name; (name = va_arg(ap, const char *)) != NULL;) {
        const char *value = va_arg(ap, const char *);
        if (rd_kafka_conf_set(conf, name, value, err, sizeof err) != RD_KAFKA_CONF_OK) {
            fprintf(stderr, "%s\n", err);
            exit(2);
        }
    }
    va_end(ap);
    rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof err);
    if (!rk) {
        fprintf(stderr, "%s\n", err);
        exit(2);
    }
    return rk;
}

typedef struct deliveries {
    int ok, failed;
    rd_kafka_resp_err_t last_error;
    int64_t next_offset[PARTITIONS]; /* of acknowledged records that told an offset */
    bool disorder;
} deliveries;

static void on_delivery(const rd_kafka_message_t *m, deliveries *d) {
    if (m->err) {
        d->failed++;
        d->last_error = m->err;
        return;
    }
    d->ok++;
    if (m->offset >= 0 && m->partition < PARTITIONS) {
        if (m->offset != d->next_offset[m->partition]) d->disorder = true;
        d->next_offset[m->partition] = m->offset + 1;
    }
}

static void delivery_cb(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    (void)rk;
    (void)opaque;
    on_delivery(m, m->_private);
}

static rd_kafka_t *producer(const char *codec, const char *acks, const char *idempotent, const char *max_bytes) {
    char err[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *set[][2] = {{"bootstrap.servers", broker}, {"broker.address.family", "v4"},
                            {"log_level", "2"},            {"compression.type", codec},
                            {"acks", acks},                {"enable.idempotence", idempotent},
                            {"linger.ms", "2"},            {"message.max.bytes", max_bytes},
                            {"batch.num.messages", "50"},  {"message.timeout.ms", "30000"}};
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++) {
        if (rd_kafka_conf_set(conf, set[i][0], set[i][1], err, sizeof err) != RD_KAFKA_CONF_OK) {
            fprintf(stderr, "%s\n", err);
            exit(2);
        }
    }
    rd_kafka_conf_set_dr_msg_cb(conf, delivery_cb);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof err);
    if (!rk) {
        fprintf(stderr, "%s\n", err);
        exit(2);
    }
    return rk;
}

static bool produce_one(rd_kafka_t *rk, const char *topic, int i, deliveries *d) {
    record r;
    expected(topic, i, &r);
    rd_kafka_headers_t *headers = NULL;
    if (r.headers > 0) {
        headers = rd_kafka_headers_new(4);
        rd_kafka_header_add(headers, "h1", -1, r.h1, -1);
        if (r.headers == 3) {
            rd_kafka_header_add(headers, "h2", -1, NULL, 0);
            rd_kafka_header_add(headers, "h3", -1, "", 0);
        }
    }
    rd_kafka_resp_err_t rc;
    for (;;) {
        rc = rd_kafka_producev(
            rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(i % PARTITIONS), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(r.key_null ? NULL : r.key, r.key_null ? 0 : strlen(r.key)),
            RD_KAFKA_V_VALUE(r.value_null ? NULL : r.value, r.value_null ? 0 : r.value_len),
            RD_KAFKA_V_TIMESTAMP(r.timestamp_ms), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(d), RD_KAFKA_V_END);
        if (rc != RD_KAFKA_RESP_ERR__QUEUE_FULL) break;
        rd_kafka_poll(rk, 100);
    }
    if (rc) {
        if (headers) rd_kafka_headers_destroy(headers);
        return fail("produce %d: %s", i, rd_kafka_err2str(rc));
    }
    rd_kafka_poll(rk, 0);
    return true;
}

static bool produce_all(rd_kafka_t *rk, const char *topic, int from, int to) {
    deliveries d = {0};
    for (int i = from; i < to; i++)
        if (!produce_one(rk, topic, i, &d)) return false;
    rd_kafka_resp_err_t rc = rd_kafka_flush(rk, TIMEOUT_MS);
    if (rc) return fail("flush: %s; %d acknowledged, %d failed", rd_kafka_err2str(rc), d.ok, d.failed);
    if (d.failed) return fail("%d of %d not delivered: %s", d.failed, to - from, rd_kafka_err2str(d.last_error));
    if (d.ok != to - from) return fail("%d delivery reports for %d records", d.ok, to - from);
    if (from == 0 && d.disorder) return fail("offsets in delivery reports are not dense from 0");
    return true;
}

/* ---- administration --------------------------------------------------------------------------------------------- */

static rd_kafka_resp_err_t topic_result(rd_kafka_event_t *ev, bool creation) {
    if (!ev) return RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (rd_kafka_event_error(ev)) return rd_kafka_event_error(ev);
    size_t n = 0;
    const rd_kafka_topic_result_t **res =
        creation ? rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n)
                 : rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(ev), &n);
    return n == 1 ? rd_kafka_topic_result_error(res[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;
}

static rd_kafka_resp_err_t topic_create(const char *topic, int partitions) {
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, NULL);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, 1, NULL, 0);
    rd_kafka_CreateTopics(rk, &t, 1, NULL, q);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, TIMEOUT_MS);
    rd_kafka_resp_err_t rc = topic_result(ev, true);
    if (ev) rd_kafka_event_destroy(ev);
    rd_kafka_NewTopic_destroy(t);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
    return rc;
}

static rd_kafka_resp_err_t topic_delete(const char *topic) {
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, NULL);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_DeleteTopic_t *t = rd_kafka_DeleteTopic_new(topic);
    rd_kafka_DeleteTopics(rk, &t, 1, NULL, q);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, TIMEOUT_MS);
    rd_kafka_resp_err_t rc = topic_result(ev, false);
    if (ev) rd_kafka_event_destroy(ev);
    rd_kafka_DeleteTopic_destroy(t);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
    return rc;
}

/* Partitions of the topic as metadata shows them, or minus the error. Does not create it. */
static int topic_partitions(rd_kafka_t *rk, const char *topic) {
    const struct rd_kafka_metadata *md;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
    rd_kafka_resp_err_t rc = rd_kafka_metadata(rk, 0, rkt, &md, TIMEOUT_MS);
    rd_kafka_topic_destroy(rkt);
    if (rc) return -1000 + (int)rc;
    int n = md->topic_cnt == 1 ? md->topics[0].partition_cnt : 0;
    if (md->topic_cnt == 1 && md->topics[0].err) n = -(int)md->topics[0].err;
    rd_kafka_metadata_destroy(md);
    return n;
}

/* Creates the topic and waits until each partition answers: Apache Kafka's partitions come up after its answer, and
 * without idempotence a refused first batch would be retried behind its successors. */
static bool created(const char *topic) {
    rd_kafka_resp_err_t rc = topic_create(topic, PARTITIONS);
    if (rc) return fail("create %s: %s", topic, rd_kafka_err2str(rc));
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, NULL);
    for (int p = 0, tries = 0; p < PARTITIONS && tries < 100; tries++) {
        int64_t low, high;
        rc = rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high, 5000);
        struct timespec nap = {0, 50000000};
        if (rc) nanosleep(&nap, NULL);
        else p++;
    }
    rd_kafka_destroy(rk);
    return rc ? fail("%s is not served: %s", topic, rd_kafka_err2str(rc)) : true;
}

static bool deleted(const char *topic) {
    rd_kafka_resp_err_t rc = topic_delete(topic);
    return rc ? fail("delete %s: %s", topic, rd_kafka_err2str(rc)) : true;
}

/* ---- consuming -------------------------------------------------------------------------------------------------- */

static bool check_headers(const rd_kafka_message_t *m, const record *r, int i) {
    rd_kafka_headers_t *h = NULL;
    rd_kafka_resp_err_t rc = rd_kafka_message_headers(m, &h);
    if (rc == RD_KAFKA_RESP_ERR__NOENT) return r->headers == 0 ? true : fail("record %d lost its headers", i);
    if (rc) return fail("record %d: headers: %s", i, rd_kafka_err2str(rc));
    if (rd_kafka_header_cnt(h) != (size_t)r->headers) return fail("record %d: %zu headers", i, rd_kafka_header_cnt(h));
    static const char *const names[] = {"h1", "h2", "h3"};
    for (size_t k = 0; k < (size_t)r->headers; k++) {
        const char *name;
        const void *value;
        size_t len;
        if (rd_kafka_header_get_all(h, k, &name, &value, &len) || strcmp(name, names[k]) != 0)
            return fail("record %d: header %zu is not %s", i, k, names[k]);
        bool good = k == 0   ? len == strlen(r->h1) && memcmp(value, r->h1, len) == 0
                    : k == 1 ? value == NULL
                             : value != NULL && len == 0;
        if (!good) return fail("record %d: header %s has another value", i, name);
    }
    return true;
}

static bool check_record(const char *topic, const rd_kafka_message_t *m) {
    record r;
    int i = (int)m->offset * PARTITIONS + m->partition;
    expected(topic, i, &r);
    if (r.key_null ? m->key != NULL : !m->key || m->key_len != strlen(r.key) || memcmp(m->key, r.key, m->key_len) != 0)
        return fail("record %d: another key", i);
    if (r.value_null ? m->payload != NULL
                     : !m->payload || m->len != r.value_len || memcmp(m->payload, r.value, m->len) != 0)
        return fail("record %d (partition %d offset %" PRId64 "): another value", i, m->partition, m->offset);
    rd_kafka_timestamp_type_t type;
    int64_t ts = rd_kafka_message_timestamp(m, &type);
    if (type != RD_KAFKA_TIMESTAMP_CREATE_TIME || ts != r.timestamp_ms)
        return fail("record %d: timestamp %" PRId64 " instead of %" PRId64, i, ts, r.timestamp_ms);
    return check_headers(m, &r, i);
}

static rd_kafka_t *consumer(void) {
    return client(RD_KAFKA_CONSUMER, "group.id", "by-hand", "enable.auto.commit", "false", "enable.partition.eof", "true",
                  "check.crcs", "true", "auto.offset.reset", "error", "fetch.wait.max.ms", "200",
                  "allow.auto.create.topics", "false", "fetch.message.max.bytes", "4000000", NULL);
}

static bool assign(rd_kafka_t *rk, const char *topic, int64_t offset) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
    for (int p = 0; p < PARTITIONS; p++) rd_kafka_topic_partition_list_add(list, topic, p)->offset = offset;
    rd_kafka_resp_err_t rc = rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return rc ? fail("assign: %s", rd_kafka_err2str(rc)) : true;
}

/* Reads the topic from its beginning to its end and checks each of the `count` records. */
static bool consume_all(const char *topic, int count) {
    rd_kafka_t *rk = consumer();
    rd_kafka_poll_set_consumer(rk);
    bool good = assign(rk, topic, RD_KAFKA_OFFSET_BEGINNING);
    int64_t next[PARTITIONS] = {0};
    int seen = 0, ends = 0;
    bool ended[PARTITIONS] = {false};
    time_t deadline = time(NULL) + TIMEOUT_MS / 1000;
    while (good && ends < PARTITIONS) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 1000);
        if (!m) {
            if (time(NULL) > deadline) good = fail("timed out after %d of %d records", seen, count);
            continue;
        }
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
            if (!ended[m->partition]) ends++;
            ended[m->partition] = true;
        } else if (m->err) {
            good = fail("consume: %s", rd_kafka_message_errstr(m));
        } else if (m->offset != next[m->partition]++) {
            good = fail("partition %d: offset %" PRId64 " instead of %" PRId64, m->partition, m->offset,
                        next[m->partition] - 1);
        } else {
            good = check_record(topic, m);
            seen++;
        }
        rd_kafka_message_destroy(m);
    }
    if (good && seen != count) good = fail("%d of %d records", seen, count);
    for (int p = 0; good && p < PARTITIONS; p++) {
        int64_t low = -1, high = -1;
        rd_kafka_resp_err_t rc = rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high, TIMEOUT_MS);
        if (rc || low != 0 || high != next[p])
            good = fail("partition %d: watermarks %" PRId64 "..%" PRId64 " (%s), %" PRId64 " read", p, low, high,
                        rd_kafka_err2str(rc), next[p]);
    }
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return good;
}

/* acks=0 tells nothing: waits until the end offsets have reached `count` in all. */
static bool arrived(const char *topic, int count) {
    rd_kafka_t *rk = consumer();
    int64_t sum = 0;
    for (int tries = 0; tries < 100; tries++) {
        sum = 0;
        for (int p = 0; p < PARTITIONS; p++) {
            int64_t low = 0, high = 0;
            rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high, TIMEOUT_MS);
            sum += high;
        }
        if (sum >= count) break;
        struct timespec nap = {0, 50000000};
        nanosleep(&nap, NULL);
    }
    rd_kafka_destroy(rk);
    return sum == count ? true : fail("end offsets sum up to %" PRId64 " of %d", sum, count);
}

/* ---- the tests -------------------------------------------------------------------------------------------------- */

static bool test_roundtrip(const char *topic, const char *codec, const char *acks, const char *idempotent) {
    if (!created(topic)) return false;
    rd_kafka_t *rk = producer(codec, acks, idempotent, "1000000");
    bool good = produce_all(rk, topic, 0, RECORDS);
    rd_kafka_destroy(rk);
    return good && (acks[0] != '0' || arrived(topic, RECORDS)) && consume_all(topic, RECORDS) && deleted(topic);
}

static bool test_create(const char *topic) {
    if (!created(topic)) return false;
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, NULL);
    int n = topic_partitions(rk, topic);
    rd_kafka_destroy(rk);
    if (n != PARTITIONS) return fail("metadata shows %d partitions", n);
    rd_kafka_resp_err_t rc = topic_create(topic, PARTITIONS);
    if (rc != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return fail("created twice: %s", rd_kafka_err2name(rc));
    rc = topic_create("not a/topic", 1);
    if (rc != RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION) return fail("bad name: %s", rd_kafka_err2name(rc));
    rc = topic_create("librdkafka-none", 0);
    if (rc != RD_KAFKA_RESP_ERR_INVALID_PARTITIONS) return fail("no partitions: %s", rd_kafka_err2name(rc));
    return true;
}

static bool test_delete(const char *topic) {
    if (!deleted(topic)) return false;
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, "allow.auto.create.topics", "false", NULL);
    int n = 0;
    for (int tries = 0; tries < 50; tries++) { /* Apache Kafka's metadata lags behind its answer */
        n = topic_partitions(rk, topic);
        if (n == -(int)RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || n == 0) break;
        struct timespec nap = {0, 50000000};
        nanosleep(&nap, NULL);
    }
    rd_kafka_destroy(rk);
    if (n > 0) return fail("deleted, but metadata still shows %d partitions", n);
    rd_kafka_resp_err_t rc = topic_delete(topic);
    if (rc != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) return fail("deleted twice: %s", rd_kafka_err2name(rc));
    return true;
}

/* A topic made again under its name is a new one: empty, and it takes records from offset 0. */
static bool test_recreate(const char *topic) {
    if (!created(topic)) return false;
    rd_kafka_t *rk = producer("none", "all", "false", "1000000");
    bool good = produce_all(rk, topic, 0, 100);
    rd_kafka_destroy(rk);
    if (!good || !deleted(topic) || !created(topic) || !consume_all(topic, 0)) return false;
    rk = producer("lz4", "all", "true", "1000000");
    good = produce_all(rk, topic, 0, 50);
    rd_kafka_destroy(rk);
    return good && consume_all(topic, 50) && deleted(topic);
}

static bool test_times(const char *topic, const char *codec) {
    if (!created(topic)) return false;
    rd_kafka_t *rk = producer(codec, "all", "true", "1000000");
    bool good = produce_all(rk, topic, 0, RECORDS);
    rd_kafka_destroy(rk);
    if (!good) return false;
    rk = consumer();
    for (int i = 0; good && i <= RECORDS; i += 7) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
        int64_t at = base_ms() + (int64_t)i * 10 - 3;
        for (int p = 0; p < PARTITIONS; p++) rd_kafka_topic_partition_list_add(list, topic, p)->offset = at;
        rd_kafka_resp_err_t rc = rd_kafka_offsets_for_times(rk, list, TIMEOUT_MS);
        if (rc) good = fail("offsets_for_times: %s", rd_kafka_err2str(rc));
        for (int p = 0; good && p < PARTITIONS; p++) {
            int first = i + (p - i % PARTITIONS + PARTITIONS) % PARTITIONS; /* first record >= i of the partition */
            int64_t want = first < RECORDS ? first / PARTITIONS : RD_KAFKA_OFFSET_END;
            if (list->elems[p].err || list->elems[p].offset != want)
                good = fail("time of record %d, partition %d: offset %" PRId64 " instead of %" PRId64 " (%s)", i, p,
                            list->elems[p].offset, want, rd_kafka_err2str(list->elems[p].err));
        }
        rd_kafka_topic_partition_list_destroy(list);
    }
    rd_kafka_destroy(rk);
    return good && deleted(topic);
}

static uint32_t noise(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static bool send_large(rd_kafka_t *rk, const char *topic, size_t len, uint32_t seed, deliveries *d) {
    char *value = malloc(len);
    if (!value) return fail("out of memory");
    for (size_t i = 0; i < len; i++) value[i] = (char)noise(&seed);
    rd_kafka_resp_err_t rc = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
                                               RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_FREE), RD_KAFKA_V_VALUE(value, len),
                                               RD_KAFKA_V_OPAQUE(d), RD_KAFKA_V_END);
    if (rc) {
        free(value);
        return fail("produce: %s", rd_kafka_err2str(rc));
    }
    return rd_kafka_flush(rk, TIMEOUT_MS) ? fail("flush timed out") : true;
}

/* Eight records of 900 KB come back as they were; one of 1.5 MB is refused by the broker and leaves no offset. */
static bool test_large(const char *topic, const char *codec) {
    enum { LARGE = 900000, COUNT = 8 };
    if (!created(topic)) return false;
    deliveries d = {0};
    rd_kafka_t *rk = producer(codec, "all", "false", "3000000");
    bool good = true;
    for (uint32_t k = 0; good && k < COUNT; k++) good = send_large(rk, topic, LARGE, k + 1, &d);
    if (good && d.failed) good = fail("900 KB: %s", rd_kafka_err2str(d.last_error));
    if (good) good = send_large(rk, topic, 1500000, 99, &d);
    if (good && (d.failed != 1 || d.last_error != RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE))
        good = fail("1.5 MB: %d failed, %s", d.failed, rd_kafka_err2name(d.last_error));
    rd_kafka_destroy(rk);
    if (!good) return false;

    rk = consumer();
    rd_kafka_poll_set_consumer(rk);
    good = assign(rk, topic, RD_KAFKA_OFFSET_BEGINNING);
    time_t deadline = time(NULL) + TIMEOUT_MS / 1000;
    for (int seen = 0, ends = 0; good && ends < PARTITIONS;) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 1000);
        if (!m) {
            if (time(NULL) > deadline) good = fail("timed out after %d", seen);
            continue;
        }
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
            ends++;
            if (m->partition == 0 && seen != COUNT) good = fail("%d of %d records", seen, COUNT);
        } else if (m->err) {
            good = fail("consume: %s", rd_kafka_message_errstr(m));
        } else {
            uint32_t seed = (uint32_t)m->offset + 1;
            if (m->len != LARGE) good = fail("offset %" PRId64 " has %zu bytes", m->offset, m->len);
            for (size_t i = 0; good && i < m->len; i++)
                if (((const char *)m->payload)[i] != (char)noise(&seed)) good = fail("byte %zu differs", i);
            seen++;
        }
        rd_kafka_message_destroy(m);
    }
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return good && deleted(topic);
}

/* A consumer that waits at the end gets what comes, in order, one by one. */
static bool test_tail(const char *topic) {
    if (!created(topic)) return false;
    rd_kafka_t *rc = consumer();
    rd_kafka_poll_set_consumer(rc);
    bool good = assign(rc, topic, RD_KAFKA_OFFSET_END);
    for (int ends = 0; good && ends < PARTITIONS;) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rc, TIMEOUT_MS);
        if (!m) good = fail("no end of partition");
        if (m && m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) ends++;
        if (m && m->err && m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
            good = fail("consume: %s", rd_kafka_message_errstr(m));
        if (m) rd_kafka_message_destroy(m);
    }
    rd_kafka_t *rp = producer("none", "all", "true", "1000000");
    for (int i = 0; good && i < 40; i++) {
        good = produce_all(rp, topic, i, i + 1);
        for (bool got = false; good && !got;) {
            rd_kafka_message_t *m = rd_kafka_consumer_poll(rc, TIMEOUT_MS);
            if (!m) {
                good = fail("record %d did not come", i);
            } else if (m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
                got = true;
                if (m->err) good = fail("consume: %s", rd_kafka_message_errstr(m));
                else if (m->offset * PARTITIONS + m->partition != i) good = fail("another record than %d", i);
                else good = check_record(topic, m);
            }
            if (m) rd_kafka_message_destroy(m);
        }
    }
    rd_kafka_destroy(rp);
    rd_kafka_consumer_close(rc);
    rd_kafka_destroy(rc);
    return good && deleted(topic);
}

/* Reading from the middle of batches: each offset is where a consumer may start. */
static rd_kafka_t *member(const char *topic) {
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, "group.id", topic, "enable.auto.commit", "false", "auto.offset.reset", "earliest",
                            "session.timeout.ms", "6000", "fetch.wait.max.ms", "100", NULL);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_add(list, topic, RD_KAFKA_PARTITION_UA);
    if (rd_kafka_subscribe(rk, list)) fail("subscribe");
    rd_kafka_topic_partition_list_destroy(list);
    return rk;
}

/* Reads `count` records, and commits each; tells them on stdout where that is asked for. */
static bool member_read(rd_kafka_t *rk, const char *topic, int count, bool *seen, bool tell) {
    bool good = true;
    time_t deadline = time(NULL) + 60;
    for (int n = 0; good && n < count;) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 500);
        if (!m) {
            if (time(NULL) > deadline) good = fail("timed out after %d of %d records", n, count);
            continue;
        }
        int i = (int)m->offset * PARTITIONS + m->partition;
        if (m->err) good = fail("consume: %s", rd_kafka_message_errstr(m));
        else if (seen[i]) good = fail("record %d was read twice", i);
        else good = check_record(topic, m);
        rd_kafka_resp_err_t rc = good ? rd_kafka_commit_message(rk, m, 0) : 0;
        if (rc) good = fail("commit: %s", rd_kafka_err2str(rc));
        if (good) seen[i] = true, n++;
        if (good && tell) printf("%d\n", i), fflush(stdout);
        rd_kafka_message_destroy(m);
    }
    return good;
}

/* A member that reads so much, and goes; it begins where the group has stopped. */
static bool group_read(const char *topic, int count, bool *seen) {
    rd_kafka_t *rk = member(topic);
    bool good = member_read(rk, topic, count, seen, false);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return good;
}

/* Another process of this program: a member that reads 100 records, tells which, and waits to be killed. */
static int victim(const char *topic) {
    static bool seen[300];
    rd_kafka_t *rk = member(topic);
    if (!member_read(rk, topic, 100, seen, true)) return 1;
    for (;;) pause();
}

/* A member is killed after its commits; the next one gets all the rest, and nothing twice. */
static bool test_group_killed(const char *self, const char *topic) {
    bool seen[300] = {false};
    char command[512];
    int i, count = 0;
    rd_kafka_t *rk = producer("none", "all", "true", "1000000");
    bool good = created(topic) && produce_all(rk, topic, 0, 300);
    rd_kafka_destroy(rk);
    if (!good) return false;
    snprintf(command, sizeof command, "echo $$; exec '%s' '%s' victim %ld '%s'", self, broker, run_id, topic);
    FILE *child = popen(command, "r");
    int pid = 0;
    if (!child || fscanf(child, "%d", &pid) != 1) return fail("no second process");
    while (count < 100 && fscanf(child, "%d", &i) == 1 && i >= 0 && i < 300) seen[i] = true, count++;
    kill(pid, SIGKILL);
    pclose(child);
    if (count < 100) return fail("the member that was to be killed read %d of 100 records", count);
    return group_read(topic, 200, seen) && deleted(topic);
}

static bool test_group(const char *topic) {
    bool seen[300] = {false};
    rd_kafka_t *rk = producer("none", "all", "true", "1000000");
    bool good = created(topic) && produce_all(rk, topic, 0, 300);
    rd_kafka_destroy(rk);
    good = good && group_read(topic, 100, seen) && group_read(topic, 1, seen) && group_read(topic, 199, seen);
    for (int i = 0; good && i < 300; i++)
        if (!seen[i]) good = fail("record %d was passed over", i);
    return good && deleted(topic);
}

/* Across a restart of the broker: what has been read is known from what has been committed. */
static bool kept_group(const char *topic, bool reading) {
    bool seen[300] = {false};
    if (!reading) {
        rd_kafka_t *rk = producer("none", "all", "true", "1000000");
        bool good = created(topic) && produce_all(rk, topic, 0, 300);
        rd_kafka_destroy(rk);
        return good && group_read(topic, 100, seen);
    }
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, "group.id", topic, NULL);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
    int before = 0;
    for (int p = 0; p < PARTITIONS; p++) rd_kafka_topic_partition_list_add(list, topic, p);
    rd_kafka_resp_err_t rc = rd_kafka_committed(rk, list, TIMEOUT_MS);
    for (int p = 0; p < PARTITIONS; p++)
        for (int64_t o = 0; o < list->elems[p].offset; o++, before++) seen[o * PARTITIONS + p] = true;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    if (rc || before != 100) return fail("%d of 100 commits are left: %s", before, rd_kafka_err2str(rc));
    return group_read(topic, 200, seen) && deleted(topic);
}

static bool test_seek(const char *topic, const char *codec) {
    if (!created(topic)) return false;
    rd_kafka_t *rk = producer(codec, "all", "true", "1000000");
    bool good = produce_all(rk, topic, 0, RECORDS);
    rd_kafka_destroy(rk);
    if (!good) return false;
    rk = consumer();
    rd_kafka_poll_set_consumer(rk);
    for (int64_t from = 1; good && from < RECORDS / PARTITIONS; from += 11) {
        good = assign(rk, topic, from);
        for (int tries = 0; good; tries++) {
            rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 1000);
            if (!m) {
                if (tries > 30) good = fail("nothing from offset %" PRId64, from);
                continue;
            }
            if (m->err && m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
                good = fail("consume: %s", rd_kafka_message_errstr(m));
            if (!m->err && m->offset != from) good = fail("offset %" PRId64 " instead of %" PRId64, m->offset, from);
            if (!m->err && good) good = check_record(topic, m);
            bool done = !m->err;
            rd_kafka_message_destroy(m);
            if (done) break;
        }
    }
    if (good) good = assign(rk, topic, 1000000);
    for (int tries = 0; good; tries++) { /* past the end, with auto.offset.reset=error */
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 1000);
        if (!m && tries < 30) continue;
        if (!m || (m->err != RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET && m->err != RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE))
            good = fail("past the end: %s", m ? rd_kafka_err2name(m->err) : "nothing");
        if (m) rd_kafka_message_destroy(m);
        break;
    }
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return good && deleted(topic);
}

static bool test_cluster(void) {
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, NULL);
    char *id = rd_kafka_clusterid(rk, TIMEOUT_MS);
    bool good = id && *id ? true : fail("no cluster id");
    const struct rd_kafka_metadata *md = NULL;
    if (good && rd_kafka_metadata(rk, 1, NULL, &md, TIMEOUT_MS)) good = fail("no metadata");
    if (good && md->broker_cnt != 1) good = fail("%d brokers", md->broker_cnt);
    if (good && rd_kafka_controllerid(rk, TIMEOUT_MS) != md->brokers[0].id) good = fail("the controller is another node");
    if (md) rd_kafka_metadata_destroy(md);
    if (id) rd_kafka_mem_free(rk, id);
    rd_kafka_destroy(rk);
    return good;
}

static bool test_configs(const char *topic) {
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, NULL);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_DescribeConfigs(rk, &r, 1, NULL, q);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, TIMEOUT_MS);
    bool good = ev && !rd_kafka_event_error(ev) ? true : fail("%s", ev ? rd_kafka_event_error_string(ev) : "no answer");
    if (good) {
        size_t n = 0, entries = 0;
        const rd_kafka_ConfigResource_t **res =
            rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(ev), &n);
        if (n != 1 || rd_kafka_ConfigResource_error(res[0])) good = fail("%zu resources, or an error", n);
        const rd_kafka_ConfigEntry_t **e = good ? rd_kafka_ConfigResource_configs(res[0], &entries) : NULL;
        const char *max = NULL;
        for (size_t i = 0; i < entries; i++)
            if (strcmp(rd_kafka_ConfigEntry_name(e[i]), "max.message.bytes") == 0) max = rd_kafka_ConfigEntry_value(e[i]);
        if (good && (!max || strcmp(max, "1048588") != 0)) good = fail("max.message.bytes is %s", max ? max : "missing");
    }
    if (ev) rd_kafka_event_destroy(ev);
    rd_kafka_ConfigResource_destroy(r);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
    return good;
}

static bool test_unknown_topic(const char *topic) {
    rd_kafka_t *rk = consumer();
    int64_t low, high;
    rd_kafka_resp_err_t rc = rd_kafka_query_watermark_offsets(rk, topic, 0, &low, &high, 5000);
    rd_kafka_destroy(rk);
    return rc == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || rc == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
                   rc == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
               ? true
               : fail("its offsets: %s", rd_kafka_err2name(rc));
}

/* Producing to a topic that is not there makes it (auto.create.topics.enable is on by default). */
static bool test_auto_create(const char *topic) {
    deliveries d = {0};
    rd_kafka_t *rk = producer("none", "all", "true", "1000000");
    bool good = produce_one(rk, topic, 0, &d);
    if (good && rd_kafka_flush(rk, TIMEOUT_MS)) good = fail("flush timed out");
    if (good && (d.ok != 1 || d.next_offset[0] != 1)) good = fail("not delivered: %s", rd_kafka_err2name(d.last_error));
    int n = good ? topic_partitions(rk, topic) : 1;
    if (n != 1) good = fail("%d partitions", n);
    rd_kafka_destroy(rk);
    return good && deleted(topic);
}

static const char *name_of(char *buf, size_t size, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    return buf;
}

static void phase_main(const char *self) {
    char topic[128], name[128];
    report(test_cluster(), "cluster");
    name_of(topic, sizeof topic, "librdkafka-%ld-admin", run_id);
    report(test_create(topic), "create");
    report(test_configs(topic), "configs");
    report(test_delete(topic), "delete");
    report(test_unknown_topic(topic), "unknown-topic");
    name_of(topic, sizeof topic, "librdkafka-%ld-auto", run_id);
    report(test_auto_create(topic), "auto-create");
    name_of(topic, sizeof topic, "librdkafka-%ld-again", run_id);
    report(test_recreate(topic), "recreate");
    static const char *const modes[][3] = {
        {"idempotent", "all", "true"}, {"acks-all", "all", "false"}, {"acks-1", "1", "false"}, {"acks-0", "0", "false"}};
    for (int c = 0; c < CODECS; c++) {
        for (int m = 0; m < 4; m++) {
            name_of(topic, sizeof topic, "librdkafka-%ld-%s-%s", run_id, codecs[c], modes[m][0]);
            report(test_roundtrip(topic, codecs[c], modes[m][1], modes[m][2]),
                   name_of(name, sizeof name, "roundtrip.%s.%s", codecs[c], modes[m][0]));
        }
        name_of(topic, sizeof topic, "librdkafka-%ld-times-%s", run_id, codecs[c]);
        report(test_times(topic, codecs[c]), name_of(name, sizeof name, "times.%s", codecs[c]));
        name_of(topic, sizeof topic, "librdkafka-%ld-large-%s", run_id, codecs[c]);
        report(test_large(topic, codecs[c]), name_of(name, sizeof name, "large.%s", codecs[c]));
        name_of(topic, sizeof topic, "librdkafka-%ld-seek-%s", run_id, codecs[c]);
        report(test_seek(topic, codecs[c]), name_of(name, sizeof name, "seek.%s", codecs[c]));
    }
    name_of(topic, sizeof topic, "librdkafka-%ld-tail", run_id);
    report(test_tail(topic), "tail");
    name_of(topic, sizeof topic, "librdkafka-%ld-group", run_id);
    report(test_group(topic), "group");
    name_of(topic, sizeof topic, "librdkafka-%ld-killed", run_id);
    report(test_group_killed(self, topic), "group.killed");
}

static void phase_restart(bool reading) {
    char topic[128], name[128];
    name_of(topic, sizeof topic, "librdkafka-%ld-kept-group", run_id);
    report(kept_group(topic, reading), reading ? "restart.read.group" : "restart.write.group");
    for (int c = 0; c < CODECS; c++) {
        name_of(topic, sizeof topic, "librdkafka-%ld-kept-%s", run_id, codecs[c]);
        name_of(name, sizeof name, "restart.%s.%s", reading ? "read" : "write", codecs[c]);
        if (reading) {
            bool good = consume_all(topic, RESTART_RECORDS);
            if (good) { /* and it goes on where it ended */
                rd_kafka_t *rk = producer(codecs[c], "all", "true", "1000000");
                good = produce_all(rk, topic, RESTART_RECORDS, RESTART_RECORDS + 300);
                rd_kafka_destroy(rk);
            }
            report(good && consume_all(topic, RESTART_RECORDS + 300) && deleted(topic), name);
        } else {
            bool good = created(topic);
            rd_kafka_t *rk = producer(codecs[c], "all", "true", "1000000");
            good = good && produce_all(rk, topic, 0, RESTART_RECORDS);
            rd_kafka_destroy(rk);
            report(good, name);
        }
    }
}

int main(int argc, char **argv) {
    const bool is_victim = argc == 5 && strcmp(argv[2], "victim") == 0;
    if (argc != 4 && !is_victim) {
        fprintf(stderr, "usage: suite BROKER main|write|read RUN\n");
        return 2;
    }
    broker = argv[1];
    run_id = atol(argv[3]);
    if (is_victim) return victim(argv[4]);
    if (strcmp(argv[2], "main") == 0) phase_main(argv[0]);
    else phase_restart(strcmp(argv[2], "read") == 0);
    return failures ? 1 : 0;
}
