/* Small requests: many producers, each with a connection of its own and one record underway, acks=all.
 *
 *   small --broker A --topic T [--partitions N (12)] [--producers N (128)] [--size BYTES (256)] [--seconds N (5)]
 *         [--warmup N (1)] [--pid P] [--no-create]
 *
 * A client library would take more CPU for each request than a broker, so this one speaks the protocol itself, from one
 * thread. Prints one line of NAME=VALUE: requests a second, percentiles of the time from a request to its answer, the
 * broker's CPU for each request. Then all is read back: each record must be there once, in its producer's order, its
 * offset that which was acknowledged; otherwise the exit code is 1. */
#include <stdbool.h>
#include <sys/epoll.h>

#include "bench/wire.h"

enum { PRODUCERS_MAX = 4096, SAMPLES_MAX = 8000000, ANSWER_MAX = 512, VALUE_MIN = 16, FETCH_BYTES = 1 << 20 };

typedef struct producer {
    int fd;
    uint32_t id, seq; /* seq: the record underway */
    int32_t partition;
    unsigned char *request, answer[ANSWER_MAX];
    size_t request_len, value_at, batch_at, answer_len;
    double sent;
    int64_t *offsets; /* acknowledged, by seq */
    size_t offsets_cap;
} producer;

static struct {
    const char *broker, *topic;
    int partitions, producers, size, seconds, warmup, pid;
    bool create;
} opt = {.partitions = 12, .producers = 128, .size = 256, .seconds = 5, .warmup = 1, .create = true};

static producer producers[PRODUCERS_MAX];
static uint32_t *samples; /* microseconds */
static size_t sample_count, acked;
static bool measuring;

/* What a record holds: its producer, its number, and bytes that follow from both. */
static void value_fill(unsigned char *p, uint32_t id, uint32_t seq) {
    put_be32(p, id);
    put_be32(p + 4, seq);
    memset(p + 8, (int)('a' + (id + seq) % 26), (size_t)opt.size - 8);
}

static void producer_start(producer *p, uint32_t id) {
    unsigned char *value = malloc((size_t)opt.size);
    if (!value) die("memory");
    p->id = id;
    p->partition = (int32_t)id % opt.partitions;
    p->fd = wire_connect(opt.broker);
    value_fill(value, id, 0);
    produce_begin(opt.topic, p->partition, value, (size_t)opt.size);
    put_be32(buf, (uint32_t)(len - 4));
    p->request = malloc(len);
    if (!p->request) die("memory");
    memcpy(p->request, buf, len);
    p->request_len = len;
    p->value_at = len - 1 - (size_t)opt.size;
    p->batch_at = (size_t)(4 + 2 + 2 + 4 + 2 + 2 + 2 + 4 + 4 + 2 + 4 + 4 + 4) + strlen(opt.topic);
    free(value);
}

static void producer_send(producer *p) {
    unsigned char *batch = p->request + p->batch_at;
    value_fill(p->request + p->value_at, p->id, p->seq);
    put_be32(batch + 17, cnk_crc32c(0, batch + 21, p->request_len - p->batch_at - 21));
    p->sent = now_s();
    if (send(p->fd, p->request, p->request_len, MSG_NOSIGNAL) != (ssize_t)p->request_len) die("send");
}

/* The answer is there. False: it was an error that passes, and the record was sent again. */
static bool producer_acked(producer *p, double now) {
    size_t at = produce_error_at(opt.topic);
    int error = (int16_t)(p->answer[at] << 8 | p->answer[at + 1]);
    p->answer_len = 0;
    if (error_passes(error)) {
        usleep(5000);
        producer_send(p);
        return false;
    }
    if (error) {
        fprintf(stderr, "small: Produce: error %d\n", error);
        exit(1);
    }
    uint64_t offset;
    memcpy(&offset, p->answer + at + 2, 8);
    if (p->seq == p->offsets_cap) {
        p->offsets_cap = p->offsets_cap ? p->offsets_cap * 2 : 4096;
        p->offsets = realloc(p->offsets, p->offsets_cap * sizeof *p->offsets);
        if (!p->offsets) die("memory");
    }
    p->offsets[p->seq++] = (int64_t)be64toh(offset);
    acked++;
    if (measuring && sample_count < SAMPLES_MAX) samples[sample_count++] = (uint32_t)((now - p->sent) * 1e6);
    return true;
}

static bool producer_receive(producer *p) {
    ssize_t n = recv(p->fd, p->answer + p->answer_len, sizeof p->answer - p->answer_len, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) die("recv");
    p->answer_len += (size_t)n;
    uint32_t be = 0;
    if (p->answer_len >= 4) memcpy(&be, p->answer, 4);
    return p->answer_len >= 4 && p->answer_len == 4 + be32toh(be) && p->answer_len >= produce_error_at(opt.topic) + 10;
}

/* Each answer is followed by the next request until `end`, and then by none. */
static void run(int epoll, double measured_from, double end) {
    struct epoll_event events[256];
    int underway = opt.producers;
    for (int i = 0; i < opt.producers; i++) producer_send(&producers[i]);
    while (underway > 0) {
        int n = epoll_wait(epoll, events, sizeof events / sizeof events[0], 60000);
        if (n <= 0) die("no answer for a minute");
        double now = now_s();
        measuring = now >= measured_from && now < end;
        for (int i = 0; i < n; i++) {
            producer *p = events[i].data.ptr;
            if (!producer_receive(p) || !producer_acked(p, now)) continue;
            if (now < end) producer_send(p);
            else underway--;
        }
    }
}

/* ---- reading back ------------------------------------------------------------------------------------------------ */

static uint32_t seen[PRODUCERS_MAX]; /* records read, of each producer */

static bool batch_good(const unsigned char *b, size_t size, int64_t offset) {
    uint64_t base;
    uint32_t crc, id, seq;
    memcpy(&base, b, 8);
    memcpy(&crc, b + 17, 4);
    if ((int64_t)be64toh(base) != offset || be32toh(crc) != cnk_crc32c(0, b + 21, size - 21)) return false;
    const unsigned char *value = b + size - 1 - opt.size;
    memcpy(&id, value, 4);
    memcpy(&seq, value + 4, 4);
    id = be32toh(id), seq = be32toh(seq);
    if (id >= (uint32_t)opt.producers || seq != seen[id] || seq >= producers[id].seq ||
        producers[id].offsets[seq] != offset)
        return false;
    seen[id]++;
    static unsigned char want[1 << 16];
    value_fill(want, id, seq);
    return memcmp(value, want, (size_t)opt.size) == 0;
}

/* Reads a partition from `offset` on; returns the next offset, or -1 where something is wrong. */
static int64_t fetch_some(int fd, int32_t partition, int64_t offset) {
    begin(API_FETCH, 4);
    put(UINT32_MAX, 4);
    put(1000, 4);
    put(1, 4);
    put(FETCH_BYTES, 4);
    put(0, 1);
    put(1, 4);
    put_text(opt.topic);
    put(1, 4);
    put((uint32_t)partition, 4);
    put((uint64_t)offset, 8);
    put(FETCH_BYTES, 4);
    size_t got = exchange(fd), at = 4 + 4 + 4 + 4 + 2 + strlen(opt.topic) + 4 + 4;
    if (get(at, 2, got) != 0) return -1;
    at += 2 + 8 + 8;
    int32_t aborted = (int32_t)get(at, 4, got);
    at += 4 + (aborted > 0 ? (size_t)aborted * 16 : 0);
    size_t end = at + 4 + (size_t)get(at, 4, got);
    for (at += 4; at + WIRE_BATCH_HEADER <= end;) {
        size_t size = 12 + (size_t)get(at + 8, 4, got);
        if (at + size > end) break; /* cut off at the limit */
        if (size < WIRE_BATCH_HEADER + (size_t)opt.size || !batch_good(buf + at, size, offset)) return -1;
        offset++;
        at += size;
    }
    return offset;
}

static bool read_back(void) {
    int fd = wire_connect(opt.broker);
    size_t read = 0;
    for (int32_t p = 0; p < opt.partitions; p++) {
        size_t want = 0;
        for (int i = p; i < opt.producers; i += opt.partitions) want += producers[i].seq;
        for (int64_t offset = 0; offset < (int64_t)want;) {
            int64_t next = fetch_some(fd, p, offset);
            if (next <= offset) {
                fprintf(stderr, "small: partition %d: what is at offset %lld is not what was acknowledged\n", p,
                        (long long)offset);
                return false;
            }
            read += (size_t)(next - offset);
            offset = next;
        }
    }
    close(fd);
    return read == acked;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void options(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        struct {
            const char *name;
            const char **text;
            int *number;
        } all[] = {{"--broker", &opt.broker, NULL},        {"--topic", &opt.topic, NULL},
                   {"--partitions", NULL, &opt.partitions}, {"--producers", NULL, &opt.producers},
                   {"--size", NULL, &opt.size},            {"--seconds", NULL, &opt.seconds},
                   {"--warmup", NULL, &opt.warmup},        {"--pid", NULL, &opt.pid}};
        bool known = strcmp(argv[i], "--no-create") == 0;
        if (known) opt.create = false;
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
            if (strcmp(argv[i], all[k].name) != 0) continue;
            known = true;
            if (all[k].text) *all[k].text = value;
            else *all[k].number = atoi(value);
            i++;
            break;
        }
        if (!known) errno = EINVAL, die(argv[i]);
    }
    if (!opt.broker || !opt.topic || opt.partitions < 1 || opt.producers < 1 || opt.producers > PRODUCERS_MAX ||
        opt.size < VALUE_MIN || opt.size > 8000 || opt.seconds < 1)
        errno = EINVAL, die("usage: small --broker A --topic T [options]");
}

int main(int argc, char **argv) {
    wire_program = "small";
    options(argc, argv);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd = wire_connect(opt.broker);
    if (!samples || epoll < 0) die("start");
    if (opt.create) topic_create(fd, opt.topic, (uint32_t)opt.partitions);
    close(fd);
    for (int i = 0; i < opt.producers; i++) {
        producer_start(&producers[i], (uint32_t)i);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &producers[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, producers[i].fd, &ev)) die("epoll");
    }
    double warm = now_s();
    run(epoll, warm + 3600, warm + opt.warmup);
    double began = now_s(), cpu = cpu_s(opt.pid);
    size_t before = acked;
    run(epoll, began, began + opt.seconds);
    double took = now_s() - began;
    cpu = cpu_s(opt.pid) - cpu;
    size_t count = acked - before;
    for (int i = 0; i < opt.producers; i++) close(producers[i].fd);
    bool good = read_back();
    qsort(samples, sample_count, sizeof *samples, ascending);
    size_t n = sample_count;
    if (n == 0) errno = ENODATA, die("nothing was acknowledged");
    printf("verified=%d acked=%zu requests_s=%.0f cpu_us=%.1f p50_us=%u p99_us=%u p999_us=%u max_us=%u\n", good, acked,
           (double)count / took, cpu * 1e6 / (double)count, samples[n / 2], samples[n * 99 / 100],
           samples[n * 999 / 1000], samples[n - 1]);
    return good ? 0 : 1;
}
