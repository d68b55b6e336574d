/* Kills a broker again and again under load, and looks each time whether anything that was acknowledged is gone.
 *
 *   kill --dir DATA --rounds N --seed S [--partitions P] [--graceful] -- PROGRAM ARGS…
 *
 * The program is chronikd, or what behaves like it; `--kafka-port PORT --data-dir DATA` are added to its arguments. It
 * has to be started with a disk that forgets what was not synced (--debug-lossy-disk), or the kernel's page cache
 * would survive kill -9 and hide a missing sync.
 *
 * One idempotent librdkafka producer lives through all rounds and sends, in some of them as fast as it goes, records that are numbered
 * for each partition. No record is given up: the producer repeats it until it is acknowledged. So record k of a
 * partition must be at offset k: nothing lost, nothing twice, nothing out of order, offsets dense. After each kill and
 * restart a reader of its own (no client library that could paper over something) reads every partition from 0 to its
 * end and checks the offset, number, content and CRC of every record, and that the end is at or past all that was
 * acknowledged when the broker was killed. Some rounds kill again while the broker starts.
 *
 * Prints `ok round N …` or `FAIL …` and ends at the first failure; the exit status is 1 then. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#include "base/crc32c.h"

enum {
    PARTITIONS_MAX = 64,
    OUTSTANDING_MAX = 4000,
    VALUE_MAX = 700,
    START_S = 30,
    PROGRESS_S = 60,
    FETCH_BYTES = 8 << 20,
    FULL_SPEED_EACH = 20, /* rounds */
    ARGS_MAX = 64
};

static const char topic[] = "crash";
static const char *data_dir;
static int partitions = 6, rounds = 20;
static uint64_t seed = 1;
static bool graceful; /* every other round with SIGTERM */
static char *args[ARGS_MAX];
static int arg_count;
static char port_text[16] = "0";
static uint16_t port;
static pid_t pid;

static _Atomic int64_t acked_of[PARTITIONS_MAX]; /* records 0..acked-1 are acknowledged */
static _Atomic int64_t acked_total, outstanding;
static _Atomic bool stop_producing, producer_failed, full_speed;
static char producer_why[512];

/* ---- little things ---------------------------------------------------------------------------------------------- */

static void stop_broker(int signal_number);

static void fail(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("FAIL ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    if (pid > 0) stop_broker(SIGKILL);
    _exit(1);
}

static double now_s(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void nap_ms(uint64_t ms) {
    struct timespec ts = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

static uint64_t random_below(uint64_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % n;
}

/* Record k of a partition: its number, its partition, then bytes that follow from both. */
static size_t value_make(unsigned char *p, int32_t partition, int64_t k) {
    size_t len = 16 + (size_t)((uint64_t)k * 7919 + (uint64_t)partition * 104729) % (VALUE_MAX - 16);
    memcpy(p, &k, 8);
    memcpy(p + 8, &partition, 4);
    memcpy(p + 12, "kill", 4);
    for (size_t i = 16; i < len; i++) p[i] = (unsigned char)((uint64_t)k * 31 + i * 17 + (uint64_t)partition);
    return len;
}

/* ---- the broker ------------------------------------------------------------------------------------------------- */

/* Starts it and waits until it is ready, or for `kill_after_ms`, if that is not negative, and kills it then. */
static bool start_broker(int kill_after_ms) {
    int out[2];
    if (pipe(out)) fail("pipe: %s", strerror(errno));
    pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        char *argv[ARGS_MAX + 5];
        int n = 0;
        for (; n < arg_count; n++) argv[n] = args[n];
        argv[n++] = (char *)"--kafka-port";
        argv[n++] = port_text;
        argv[n++] = (char *)"--data-dir";
        argv[n++] = (char *)(uintptr_t)data_dir;
        argv[n] = NULL;
        execvp(argv[0], argv);
        perror(argv[0]);
        _exit(127);
    }
    close(out[1]);
    if (kill_after_ms >= 0) {
        nap_ms((uint64_t)kill_after_ms);
        close(out[0]);
        stop_broker(SIGKILL);
        return false;
    }
    char line[1024];
    size_t len = 0;
    double deadline = now_s() + START_S;
    for (;;) {
        struct pollfd pfd = {out[0], POLLIN, 0};
        if (poll(&pfd, 1, 100) > 0) {
            ssize_t n = read(out[0], line + len, sizeof line - 1 - len);
            if (n <= 0) {
                int status = 0;
                waitpid(pid, &status, 0);
                pid = 0;
                fail("the broker ended while starting (status %d)", status);
            }
            len += (size_t)n;
            line[len] = 0;
            char *at = strstr(line, "kafka=");
            if (at && strchr(at, '\n')) {
                at += 6;
                char *colon = at;
                for (char *p = at; *p && *p != ' ' && *p != '\n'; p++)
                    if (*p == ':') colon = p;
                port = (uint16_t)atoi(colon + 1);
                snprintf(port_text, sizeof port_text, "%u", port);
                break;
            }
        }
        if (now_s() > deadline) fail("the broker was not ready within %d s", START_S);
    }
    fcntl(out[0], F_SETFD, FD_CLOEXEC); /* stays open, so that the broker never writes into a closed pipe */
    return true;
}

static void stop_broker(int signal_number) {
    kill(pid, signal_number);
    int status = 0;
    waitpid(pid, &status, 0);
    pid = 0;
    if (signal_number == SIGTERM && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        fail("after SIGTERM the broker ended with status %d", status);
}

/* ---- the producer ----------------------------------------------------------------------------------------------- */

static void producer_fail(const char *fmt, ...) {
    if (atomic_exchange(&producer_failed, true)) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(producer_why, sizeof producer_why, fmt, ap);
    va_end(ap);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    (void)rk;
    (void)opaque;
    int64_t k = (int64_t)(intptr_t)m->_private;
    outstanding--;
    if (m->err) {
        if (!stop_producing) producer_fail("partition %d record %" PRId64 ": %s", m->partition, k, rd_kafka_err2str(m->err));
        return;
    }
    if (m->offset >= 0 && m->offset != k)
        producer_fail("partition %d record %" PRId64 " was acknowledged at offset %" PRId64, m->partition, k, m->offset);
    if (k != acked_of[m->partition]) producer_fail("partition %d: record %" PRId64 " acknowledged out of order", m->partition, k);
    acked_of[m->partition] = k + 1;
    acked_total++;
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque) {
    (void)opaque;
    (void)reason;
    char text[400];
    if (err != RD_KAFKA_RESP_ERR__FATAL) return; /* a broker that is gone is what this is about */
    rd_kafka_resp_err_t why = rd_kafka_fatal_error(rk, text, sizeof text);
    producer_fail("fatal error of the idempotent producer: %s: %s", rd_kafka_err2name(why), text);
}

static void *producer_main(void *arg) {
    (void)arg;
    char err[512], address[64];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    const char *set[][2] = {{"bootstrap.servers", address},      {"enable.idempotence", "true"},
                            {"message.timeout.ms", "0"},         {"linger.ms", "2"},
                            {"reconnect.backoff.ms", "5"},       {"reconnect.backoff.max.ms", "50"},
                            {"retry.backoff.ms", "20"},          {"broker.address.family", "v4"},
                            {"socket.connection.setup.timeout.ms", "1000"}, {"log_level", "0"},
                            {"batch.num.messages", "100"},       {"message.send.max.retries", "10000000"},
                            {"socket.timeout.ms", "10000"}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++)
        if (rd_kafka_conf_set(conf, set[i][0], set[i][1], err, sizeof err) != RD_KAFKA_CONF_OK) fail("%s", err);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof err);
    if (!rk) fail("%s", err);
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
    unsigned char value[VALUE_MAX];
    int64_t next[PARTITIONS_MAX] = {0};
    for (uint64_t turn = 0; !stop_producing && !producer_failed; turn++) {
        if (outstanding >= OUTSTANDING_MAX) {
            rd_kafka_poll(rk, 5);
            continue;
        }
        int32_t p = (int32_t)(turn % (uint64_t)partitions);
        size_t len = value_make(value, p, next[p]);
        if (rd_kafka_produce(rkt, p, RD_KAFKA_MSG_F_COPY, value, len, NULL, 0, (void *)(intptr_t)next[p])) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                producer_fail("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(rk, 5);
            continue;
        }
        next[p]++;
        outstanding++;
        rd_kafka_poll(rk, 0);
        if (!full_speed && turn % 10 == 9) nap_ms(1); /* less than 10,000 a second, so that all can be read each time */
    }
    /* At the end everything that was sent must be acknowledged: the broker is up, and stays. */
    double since = now_s();
    for (int64_t left = -1; !producer_failed && outstanding > 0;) {
        if (outstanding != left) left = outstanding, since = now_s();
        if (now_s() - since > PROGRESS_S) producer_fail("%" PRId64 " records are never acknowledged", left);
        stop_producing = false; /* errors count again */
        rd_kafka_poll(rk, 10);
    }
    stop_producing = true;
    rd_kafka_topic_destroy(rkt);
    rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_poll(rk, 0);
    rd_kafka_destroy(rk);
    return NULL;
}

/* ---- the reader: the protocol by hand --------------------------------------------------------------------------- */

static unsigned char request[1024];
static size_t request_len;
static unsigned char *answer;
static size_t answer_len, answer_cap;

static void put(uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++) request[request_len + i] = (unsigned char)(v >> (8 * (n - 1 - i)));
    request_len += n;
}
static void put_text(const char *s) {
    put(strlen(s), 2);
    memcpy(request + request_len, s, strlen(s));
    request_len += strlen(s);
}
static void begin(uint64_t key, uint64_t version) {
    request_len = 4;
    put(key, 2);
    put(version, 2);
    put(1, 4);
    put_text("crash-reader");
}
static uint64_t get(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static int reader_connect(void) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct timeval timeout = {30, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) fail("connect: %s", strerror(errno));
    return fd;
}

static void exchange(int fd, const char *what) {
    uint32_t be = htobe32((uint32_t)(request_len - 4));
    memcpy(request, &be, 4);
    if (send(fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len) fail("%s: send: %s", what, strerror(errno));
    size_t want = 4;
    for (answer_len = 0; answer_len < want;) {
        if (want > answer_cap) {
            answer_cap = want;
            answer = realloc(answer, answer_cap);
            if (!answer) fail("memory");
        }
        ssize_t n = recv(fd, answer + answer_len, want - answer_len, 0);
        if (n <= 0) fail("%s: recv: %s", what, n ? strerror(errno) : "the connection was closed");
        answer_len += (size_t)n;
        if (answer_len == 4) want = 4 + (size_t)get(answer, 4);
    }
}

static int64_t varint(const unsigned char **p, const unsigned char *end) {
    uint64_t v = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        unsigned char b = *(*p)++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
    }
    *p = end + 1;
    return -1;
}

/* Checks one batch whose first record must be number `next`; returns the number after its last. */
static int64_t check_batch(int32_t partition, const unsigned char *b, size_t len, int64_t next) {
    int64_t base = (int64_t)get(b, 8);
    if (b[16] != 2) fail("partition %d: a batch of version %d", partition, b[16]);
    if (cnk_crc32c(0, b + 21, len - 21) != get(b + 17, 4)) fail("partition %d: wrong CRC at offset %" PRId64, partition, base);
    if (get(b + 21, 2) & 0x20) fail("partition %d: a control batch", partition);
    if (base != next) fail("partition %d: a batch at offset %" PRId64 ", %" PRId64 " was due", partition, base, next);
    int64_t count = (int64_t)get(b + 57, 4);
    if ((int64_t)get(b + 23, 4) != count - 1) fail("partition %d: last offset delta", partition);
    const unsigned char *p = b + 61, *end = b + len;
    for (int64_t i = 0; i < count; i++) {
        int64_t size = varint(&p, end);
        const unsigned char *record_end = p + size;
        if (p > end || size < 0 || record_end > end) fail("partition %d: a torn record at %" PRId64, partition, base + i);
        p++; /* attributes */
        varint(&p, end);
        if (varint(&p, end) != i) fail("partition %d: offset delta at %" PRId64, partition, base + i);
        if (varint(&p, end) != -1) fail("partition %d: a key at %" PRId64, partition, base + i);
        int64_t value_len = varint(&p, end);
        unsigned char value[VALUE_MAX];
        size_t want = value_make(value, partition, next + i);
        if (value_len != (int64_t)want || p + want > record_end || memcmp(p, value, want) != 0) {
            int64_t k = -1;
            if (value_len >= 8 && p + 8 <= record_end) memcpy(&k, p, 8);
            fail("partition %d: at offset %" PRId64 " is record %" PRId64 ", or its content is wrong", partition, base + i, k);
        }
        p = record_end;
    }
    if (p != end) fail("partition %d: bytes behind the batch at %" PRId64, partition, base);
    return next + count;
}

/* Reads the partition from 0 to its end; returns the end. */
static int64_t check_partition(int fd, int32_t partition, int64_t acked) {
    int64_t next = 0;
    for (int empty = 0;;) {
        begin(1, 4); /* Fetch */
        put(UINT32_MAX, 4);
        put(empty ? 100 : 0, 4);
        put(1, 4);
        put(FETCH_BYTES, 4);
        put(0, 1);
        put(1, 4);
        put_text(topic);
        put(1, 4);
        put((uint32_t)partition, 4);
        put((uint64_t)next, 8);
        put(FETCH_BYTES, 4);
        exchange(fd, "Fetch");
        /* length 4, correlation 4, throttle 4, topics 4, name, partitions 4, then the partition */
        size_t at = 16 + 2 + strlen(topic) + 4;
        if (answer_len < at + 4 + 2 + 8 + 8 + 4) fail("Fetch: a short answer");
        int16_t error = (int16_t)get(answer + at + 4, 2);
        int64_t high = (int64_t)get(answer + at + 6, 8);
        int32_t aborted = (int32_t)get(answer + at + 22, 4);
        if (error) fail("partition %d: Fetch at %" PRId64 ": error %d (high watermark %" PRId64 ", %" PRId64 " acknowledged)",
                        partition, next, error, high, acked);
        at += 26 + (aborted > 0 ? (size_t)aborted * 16 : 0);
        size_t size = (size_t)get(answer + at, 4);
        at += 4;
        if (size > answer_len - at && size != UINT32_MAX) fail("Fetch: torn records");
        int64_t before = next;
        for (size_t left = size == UINT32_MAX ? 0 : size; left >= 61;) {
            size_t batch_len = 12 + (size_t)get(answer + at + 8, 4);
            if (batch_len > left) break; /* cut by the limit */
            next = check_batch(partition, answer + at, batch_len, next);
            at += batch_len;
            left -= batch_len;
        }
        if (next > high) fail("partition %d: records past the high watermark %" PRId64, partition, high);
        if (next == before) {
            /* Some committed records may become visible a moment after `ready`. */
            if (next >= acked) return next;
            if (++empty == 50)
                fail("partition %d ends at %" PRId64 " (high watermark %" PRId64 "), but %" PRId64 " were acknowledged", partition,
                     next, high, acked);
        }
        if (next >= high && next >= acked) return next;
    }
}

static int64_t check_all(const int64_t *acked) {
    int fd = reader_connect();
    int64_t total = 0;
    for (int32_t p = 0; p < partitions; p++) total += check_partition(fd, p, acked[p]);
    close(fd);
    return total;
}

static void topic_create(void) {
    int fd = reader_connect();
    begin(19, 2); /* CreateTopics */
    put(1, 4);
    put_text(topic);
    put((uint64_t)partitions, 4);
    put(1, 2);
    put(0, 4);
    put(0, 4);
    put(30000, 4);
    put(0, 1);
    exchange(fd, "CreateTopics");
    int error = (int16_t)get(answer + 16 + 2 + strlen(topic), 2);
    if (error) fail("CreateTopics: error %d", error);
    close(fd);
}

/* ---- rounds ----------------------------------------------------------------------------------------------------- */

static void round_run(int n) {
    full_speed = n % FULL_SPEED_EACH == 0;
    int64_t before = acked_total;
    double deadline = now_s() + PROGRESS_S;
    while (acked_total == before && !producer_failed) { /* the load must be under way */
        if (now_s() > deadline) fail("round %d: nothing is acknowledged any more", n);
        nap_ms(1);
    }
    nap_ms(random_below(4) ? random_below(300) : random_below(20));
    bool term = graceful && n % 2;
    stop_broker(term ? SIGTERM : SIGKILL);
    full_speed = false;
    nap_ms(30); /* acknowledgements that were on their way have been counted */
    int64_t acked[PARTITIONS_MAX];
    for (int p = 0; p < partitions; p++) acked[p] = acked_of[p];
    int early = 0;
    while (random_below(4) == 0 && early < 3) early++, start_broker((int)random_below(40));
    double began = now_s();
    start_broker(-1);
    double ready = now_s();
    int64_t total = check_all(acked);
    if (producer_failed) fail("round %d: %s", n, producer_why);
    printf("ok round %d: %s, %" PRId64 " acknowledged and %" PRId64 " read, ready after %.0f ms%s\n", n,
           term ? "SIGTERM" : "SIGKILL", acked_total, total, (ready - began) * 1e3,
           early ? ", killed while starting" : "");
    fflush(stdout);
}

int main(int argc, char **argv) {
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--graceful") == 0) graceful = true;
        else if (strcmp(argv[i], "--dir") == 0) data_dir = value, i++;
        else if (strcmp(argv[i], "--rounds") == 0) rounds = atoi(value), i++;
        else if (strcmp(argv[i], "--seed") == 0) seed = strtoull(value, NULL, 10) * 2654435761u + 1, i++;
        else if (strcmp(argv[i], "--partitions") == 0) partitions = atoi(value), i++;
        else return fprintf(stderr, "kill: unknown option %s\n", argv[i]), 2;
    }
    for (i++; i < argc && arg_count < ARGS_MAX; i++) args[arg_count++] = argv[i];
    if (!data_dir || !arg_count || partitions < 1 || partitions > PARTITIONS_MAX || rounds < 1)
        return fprintf(stderr, "usage: kill --dir DATA --rounds N --seed S -- PROGRAM ARGS…\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    start_broker(-1);
    topic_create();
    pthread_t thread;
    if (pthread_create(&thread, NULL, producer_main, NULL)) fail("thread");
    for (int n = 1; n <= rounds; n++) round_run(n);
    stop_producing = true;
    pthread_join(thread, NULL);
    if (producer_failed) fail("at the end: %s", producer_why);
    int64_t acked[PARTITIONS_MAX], sum = 0;
    for (int p = 0; p < partitions; p++) sum += acked[p] = acked_of[p];
    int64_t total = check_all(acked);
    if (total != sum) fail("at the end %" PRId64 " records are there, %" PRId64 " were sent and acknowledged", total, sum);
    stop_broker(SIGTERM);
    start_broker(-1);
    total = check_all(acked);
    if (total != sum) fail("after a clean restart %" PRId64 " records are there, not %" PRId64, total, sum);
    stop_broker(SIGTERM);
    printf("ok all: %d rounds, %" PRId64 " records acknowledged, each there once, in order\n", rounds, sum);
    return 0;
}
