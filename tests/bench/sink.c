/* The ideal sink: what a durable broker on this machine could reach at best. It speaks just enough Kafka for librdkafka
 * (ApiVersions, Metadata, Produce, ListOffsets, Fetch), receives, checks each batch's CRC-32C while it copies it into an
 * aligned image, writes the image to a preallocated file with O_DIRECT, syncs in groups, answers after the sync, and does
 * nothing else: no recovery, no topics (any name has as many partitions as its ending `-pN` says), no limits worth the
 * name beyond the image's size.
 *
 *   sink --file F [--size-mb N] [--kafka-port P] [--no-sync]
 *
 * Prints `ready kafka=127.0.0.1:PORT`. One thread receives and answers; one thread writes and syncs, and starts again as
 * soon as it is done, with all that has come meanwhile. The file is filled before `ready`, so a sync finds no metadata to
 * write. The image stays in memory: a fetch sends from it. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"

enum {
    BLOCK = 4096,
    WRITE_MAX = 8 << 20,
    RECV_SIZE = 1 << 20,
    FRAME_MAX = 100 << 20,
    TOPICS_MAX = 4096,
    PARTITIONS_MAX = 1024,
    PIECES_MAX = 500 /* of one fetch */
};

/* ---- the log ---------------------------------------------------------------------------------------------------- */

typedef struct batch {
    int64_t base, next;
    uint64_t pos; /* in the image */
    uint32_t len;
} batch;

typedef struct partition {
    batch *batches;
    size_t count, cap;
    size_t durable; /* batches whose sync has returned */
    int64_t next;
} partition;

typedef struct topic {
    char name[250];
    int partitions;
    partition *p;
} topic;

static topic topics[TOPICS_MAX];
static int topic_count;

static unsigned char *image;
static uint64_t image_size, head; /* head: end of what was received */
static int file_fd, wake_fd, epoll_fd;
static bool no_sync;
static uint16_t port;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static uint64_t write_from, write_to; /* what the writer has been given */
static bool writer_busy;

static void die(const char *what) {
    fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *writer_main(void *arg) {
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!writer_busy) pthread_cond_wait(&work, &lock);
        uint64_t from = write_from, to = write_to;
        pthread_mutex_unlock(&lock);
        while (from < to) {
            size_t n = to - from < WRITE_MAX ? (size_t)(to - from) : WRITE_MAX;
            ssize_t done = pwrite(file_fd, image + from, n, (off_t)from);
            if (done <= 0) die("pwrite");
            from += (uint64_t)done;
        }
        if (!no_sync && fdatasync(file_fd)) die("fdatasync");
        uint64_t one = 1;
        if (write(wake_fd, &one, sizeof one) != sizeof one) die("eventfd");
        pthread_mutex_lock(&lock);
        while (writer_busy && write_to == to) pthread_cond_wait(&work, &lock); /* until the main thread took note */
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

typedef struct reply {
    struct reply *next;
    uint64_t after; /* image position that must be durable first */
    unsigned char *own; /* headers, behind the iovs; these point into them and into the image */
    int iov_count, iov_first;
    struct iovec iov[];
} reply;

typedef struct conn {
    int fd;
    unsigned char *in;
    size_t in_len, in_cap;
    reply *first, **last;
    bool want_write, parked; /* parked: a fetch waits; its frame is still in `in` */
    uint64_t parked_until_ms;
    struct conn *next;
} conn;

static conn *conns;

static uint64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

typedef struct cursor {
    const unsigned char *p, *end;
    bool bad;
} cursor;

static const unsigned char *take(cursor *c, size_t n) {
    if (c->bad || (size_t)(c->end - c->p) < n) {
        c->bad = true;
        return NULL;
    }
    const unsigned char *p = c->p;
    c->p += n;
    return p;
}
static uint64_t get(cursor *c, size_t n) {
    const unsigned char *p = take(c, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++) v = v << 8 | p[i];
    return v;
}
static int16_t get16(cursor *c) { return (int16_t)get(c, 2); }
static int32_t get32(cursor *c) { return (int32_t)get(c, 4); }
static int64_t get64(cursor *c) { return (int64_t)get(c, 8); }
static const char *get_string(cursor *c, char *buf, size_t size) {
    int16_t n = get16(c);
    const unsigned char *p = n > 0 ? take(c, (size_t)n) : NULL;
    size_t len = p ? (size_t)n : 0;
    if (len >= size) c->bad = true, len = 0;
    if (len) memcpy(buf, p, len);
    buf[len] = 0;
    return buf;
}

typedef struct writer {
    unsigned char *p;
    size_t len, cap;
} writer;

static void put(writer *w, uint64_t v, size_t n) {
    if (w->len + n > w->cap) {
        w->cap = (w->len + n) * 2;
        w->p = realloc(w->p, w->cap);
        if (!w->p) die("memory");
    }
    for (size_t i = 0; i < n; i++) w->p[w->len + i] = (unsigned char)(v >> (8 * (n - 1 - i)));
    w->len += n;
}
static void put_string(writer *w, const char *s) {
    put(w, strlen(s), 2);
    for (; *s; s++) put(w, (unsigned char)*s, 1);
}

static void watch(conn *c) {
    struct epoll_event ev = {.events = EPOLLIN | (c->want_write ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

static bool conn_flush(conn *c, uint64_t durable) {
    while (c->first && c->first->after <= durable) {
        reply *r = c->first;
        while (r->iov_first < r->iov_count) {
            struct msghdr m = {.msg_iov = r->iov + r->iov_first, .msg_iovlen = (size_t)(r->iov_count - r->iov_first)};
            ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0) {
                if (errno != EAGAIN) return false;
                if (!c->want_write) {
                    c->want_write = true;
                    watch(c);
                }
                return true;
            }
            while (n > 0) {
                struct iovec *v = &r->iov[r->iov_first];
                size_t part = (size_t)n < v->iov_len ? (size_t)n : v->iov_len;
                v->iov_base = (unsigned char *)v->iov_base + part;
                v->iov_len -= part;
                n -= (ssize_t)part;
                if (v->iov_len == 0) r->iov_first++;
            }
        }
        c->first = r->next;
        if (!c->first) c->last = &c->first;
        free(r);
    }
    if (c->want_write) {
        c->want_write = false;
        watch(c);
    }
    return true;
}

/* Queues a reply of the bytes in w (w->p starts with room for the length). Extra pieces: at byte `at` of w comes data. */
typedef struct piece {
    size_t at;
    struct iovec data;
} piece;

static void conn_reply(conn *c, writer *w, uint64_t after, const piece *pieces, int piece_count) {
    size_t iov_size = (size_t)(2 * piece_count + 1) * sizeof(struct iovec);
    reply *r = malloc(sizeof *r + iov_size + w->len);
    if (!r) die("memory");
    *r = (reply){.after = after, .own = (unsigned char *)r->iov + iov_size};
    size_t total = w->len;
    for (int i = 0; i < piece_count; i++) total += pieces[i].data.iov_len;
    uint32_t len = htobe32((uint32_t)(total - 4));
    memcpy(w->p, &len, 4);
    memcpy(r->own, w->p, w->len);
    size_t at = 0;
    for (int i = 0; i < piece_count; i++) {
        if (pieces[i].at > at) r->iov[r->iov_count++] = (struct iovec){r->own + at, pieces[i].at - at};
        at = pieces[i].at;
        r->iov[r->iov_count++] = pieces[i].data;
    }
    if (w->len > at) r->iov[r->iov_count++] = (struct iovec){r->own + at, w->len - at};
    *c->last = r;
    c->last = &r->next;
}

static topic *topic_find(const char *name) {
    for (int i = topic_count - 1; i >= 0; i--)
        if (strcmp(topics[i].name, name) == 0) return &topics[i];
    const char *dash = strrchr(name, '-');
    int n = dash && dash[1] == 'p' ? atoi(dash + 2) : 1;
    if (n < 1 || n > PARTITIONS_MAX || topic_count == TOPICS_MAX) return NULL;
    topic *t = &topics[topic_count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->partitions = n;
    t->p = calloc((size_t)n, sizeof *t->p);
    return t;
}

static partition *partition_find(const char *name, int32_t index) {
    topic *t = topic_find(name);
    return t && index >= 0 && index < t->partitions ? &t->p[index] : NULL;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, FIND_COORDINATOR = 10, API_VERSIONS = 18 };

static void api_versions(writer *w, int16_t version) {
    static const int16_t offered[][3] = {{PRODUCE, 0, 7},  {FETCH, 0, 4},           {LIST_OFFSETS, 0, 2},
                                         {METADATA, 0, 4}, {FIND_COORDINATOR, 0, 0}, {API_VERSIONS, 0, 2}};
    put(w, version > 2 ? 35 : 0, 2);
    put(w, sizeof offered / sizeof offered[0], 4);
    for (size_t i = 0; i < sizeof offered / sizeof offered[0]; i++)
        for (int k = 0; k < 3; k++) put(w, (uint16_t)offered[i][k], 2);
    if (version > 0 && version <= 2) put(w, 0, 4);
}

static void metadata(writer *w, cursor *c, int16_t v) {
    if (v >= 3) put(w, 0, 4);
    put(w, 1, 4);
    put(w, 1, 4);
    put_string(w, "127.0.0.1");
    put(w, port, 4);
    if (v >= 1) put(w, 0xffff, 2); /* rack */
    if (v >= 2) put_string(w, "ideal-sink");
    if (v >= 1) put(w, 1, 4);
    int32_t n = get32(c);
    size_t count_at = w->len;
    int32_t count = 0;
    put(w, 0, 4);
    for (int32_t i = 0; i < n && !c->bad; i++) {
        char name[250];
        topic *t = topic_find(get_string(c, name, sizeof name));
        if (!t) continue;
        count++;
        put(w, 0, 2);
        put_string(w, t->name);
        if (v >= 1) put(w, 0, 1);
        put(w, (uint64_t)t->partitions, 4);
        for (int p = 0; p < t->partitions; p++) {
            put(w, 0, 2);
            put(w, (uint64_t)p, 4);
            for (int k = 0; k < 5; k++) put(w, 1, 4); /* leader, replicas [1], isr [1] */
        }
    }
    uint32_t be = htobe32((uint32_t)count);
    memcpy(w->p + count_at, &be, 4);
}

/* Copies one batch into the image, checking its CRC on the way. Returns a Kafka error code. */
static int append(partition *pt, const unsigned char *p, size_t len) {
    if (len < 61 || p[16] != 2) return 2;
    uint32_t be;
    memcpy(&be, p + 8, 4);
    if ((size_t)be32toh(be) + 12 != len) return 2;
    if (head + len + BLOCK > image_size) {
        fprintf(stderr, "sink: the image is full\n");
        exit(1);
    }
    memcpy(image + head, p, 21);
    uint32_t crc = cnk_crc32c_copy(0, image + head + 21, p + 21, len - 21);
    memcpy(&be, p + 17, 4);
    if (crc != be32toh(be)) return 2;
    memcpy(&be, p + 57, 4);
    int64_t base = pt->next;
    uint64_t be64 = htobe64((uint64_t)base);
    memcpy(image + head, &be64, 8);
    if (pt->count == pt->cap) {
        pt->cap = pt->cap ? pt->cap * 2 : 64;
        pt->batches = realloc(pt->batches, pt->cap * sizeof *pt->batches);
        if (!pt->batches) die("memory");
    }
    pt->next += be32toh(be);
    pt->batches[pt->count++] = (batch){base, pt->next, head, (uint32_t)len};
    head += len;
    return 0;
}

/* Returns acks. */
static int16_t produce(writer *w, cursor *c, int16_t v) {
    char name[250];
    if (v >= 3) get_string(c, name, sizeof name); /* transactional id */
    int16_t acks = get16(c);
    get32(c);
    int32_t topics_n = get32(c);
    put(w, (uint64_t)topics_n, 4);
    for (int32_t i = 0; i < topics_n && !c->bad; i++) {
        get_string(c, name, sizeof name);
        int32_t parts = get32(c);
        put_string(w, name);
        put(w, (uint64_t)parts, 4);
        for (int32_t k = 0; k < parts && !c->bad; k++) {
            int32_t index = get32(c), len = get32(c);
            const unsigned char *data = len > 0 ? take(c, (size_t)len) : NULL;
            partition *pt = partition_find(name, index);
            int64_t base = pt ? pt->next : -1;
            int error = pt && data ? append(pt, data, (size_t)len) : 3;
            put(w, (uint64_t)index, 4);
            put(w, (uint64_t)error, 2);
            put(w, (uint64_t)(error ? -1 : base), 8);
            if (v >= 2) put(w, UINT64_MAX, 8);
            if (v >= 5) put(w, 0, 8);
        }
    }
    if (v >= 1) put(w, 0, 4);
    return acks;
}

static void list_offsets(writer *w, cursor *c, int16_t v) {
    char name[250];
    get32(c);
    if (v >= 2) get(c, 1);
    if (v >= 2) put(w, 0, 4);
    int32_t topics_n = get32(c);
    put(w, (uint64_t)topics_n, 4);
    for (int32_t i = 0; i < topics_n && !c->bad; i++) {
        get_string(c, name, sizeof name);
        int32_t parts = get32(c);
        put_string(w, name);
        put(w, (uint64_t)parts, 4);
        for (int32_t k = 0; k < parts && !c->bad; k++) {
            int32_t index = get32(c);
            int64_t at = get64(c);
            if (v == 0) get32(c);
            partition *pt = partition_find(name, index);
            put(w, (uint64_t)index, 4);
            put(w, pt ? 0 : 3, 2);
            int64_t offset = at == -2 || !pt || !pt->durable ? 0 : pt->batches[pt->durable - 1].next;
            if (v == 0) put(w, 1, 4);
            else put(w, UINT64_MAX, 8);
            put(w, (uint64_t)offset, 8);
        }
    }
}

/* Returns false where the fetch must wait: nothing there yet, and `may_wait`. */
static bool fetch(writer *w, cursor *c, int16_t v, bool may_wait, int32_t *ret_wait_ms, piece *pieces, int *ret_pieces) {
    char name[250];
    get32(c);
    *ret_wait_ms = get32(c);
    int32_t min_bytes = get32(c), max_bytes = v >= 3 ? get32(c) : INT32_MAX;
    if (v >= 4) get(c, 1);
    if (v >= 1) put(w, 0, 4);
    int32_t topics_n = get32(c);
    put(w, (uint64_t)topics_n, 4);
    int64_t left = max_bytes, total = 0;
    int n = 0;
    for (int32_t i = 0; i < topics_n && !c->bad; i++) {
        get_string(c, name, sizeof name);
        int32_t parts = get32(c);
        put_string(w, name);
        put(w, (uint64_t)parts, 4);
        for (int32_t k = 0; k < parts && !c->bad; k++) {
            int32_t index = get32(c);
            int64_t offset = get64(c);
            int32_t part_max = get32(c);
            partition *pt = partition_find(name, index);
            int64_t hw = pt && pt->durable ? pt->batches[pt->durable - 1].next : 0;
            put(w, (uint64_t)index, 4);
            put(w, pt ? offset < 0 || offset > hw ? 1 : 0 : 3, 2);
            put(w, (uint64_t)hw, 8);
            if (v >= 4) {
                put(w, (uint64_t)hw, 8);
                put(w, 0, 4);
            }
            size_t len_at = w->len;
            put(w, 0, 4);
            size_t lo = 0, hi = pt ? pt->durable : 0;
            while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                if (pt->batches[mid].next <= offset) lo = mid + 1;
                else hi = mid;
            }
            int64_t sent = 0;
            for (; pt && offset >= 0 && lo < pt->durable && n < PIECES_MAX; lo++) {
                batch *b = &pt->batches[lo];
                if ((sent + b->len > part_max || b->len > left) && total > 0) break;
                if (n && pieces[n - 1].at == w->len && sent &&
                    (unsigned char *)pieces[n - 1].data.iov_base + pieces[n - 1].data.iov_len == image + b->pos)
                    pieces[n - 1].data.iov_len += b->len;
                else
                    pieces[n++] = (piece){w->len, {image + b->pos, b->len}};
                sent += b->len;
                left -= b->len;
                total += b->len;
            }
            uint32_t be = htobe32((uint32_t)sent);
            memcpy(w->p + len_at, &be, 4);
        }
    }
    *ret_pieces = n;
    return !(may_wait && total < min_bytes && total == 0 && *ret_wait_ms > 0);
}

/* Handles one frame; false: not now (a parked fetch). */
static bool request(conn *c, const unsigned char *p, size_t len, bool may_wait) {
    static writer w;
    static piece pieces[PIECES_MAX];
    cursor in = {p, p + len, false};
    int16_t key = get16(&in), version = get16(&in);
    int32_t correlation = get32(&in);
    char client[250];
    get_string(&in, client, sizeof client);
    w.len = 0;
    put(&w, 0, 4);
    put(&w, (uint32_t)correlation, 4);
    int n = 0;
    uint64_t after = 0;
    switch (key) {
    case API_VERSIONS: api_versions(&w, version); break;
    case METADATA: metadata(&w, &in, version); break;
    case LIST_OFFSETS: list_offsets(&w, &in, version); break;
    case PRODUCE:
        if (produce(&w, &in, version) == 0) return true;
        after = head;
        break;
    case FETCH: {
        int32_t wait_ms;
        if (!fetch(&w, &in, version, may_wait, &wait_ms, pieces, &n)) {
            if (!c->parked) c->parked_until_ms = now_ms() + (uint64_t)wait_ms;
            c->parked = true;
            return false;
        }
        break;
    }
    case FIND_COORDINATOR:
        put(&w, 15, 2);
        put(&w, UINT32_MAX, 4);
        put_string(&w, "");
        put(&w, UINT32_MAX, 4);
        break;
    default: shutdown(c->fd, SHUT_RDWR); return true;
    }
    c->parked = false;
    if (in.bad) shutdown(c->fd, SHUT_RDWR);
    else conn_reply(c, &w, after, pieces, n);
    return true;
}

static void conn_requests(conn *c, bool may_wait) {
    size_t at = 0;
    while (c->in_len - at >= 4) {
        uint32_t be;
        memcpy(&be, c->in + at, 4);
        size_t len = be32toh(be);
        if (len > FRAME_MAX) {
            shutdown(c->fd, SHUT_RDWR);
            break;
        }
        if (c->in_len - at - 4 < len) {
            if (len + 4 > c->in_cap) {
                c->in_cap = len + 4;
                c->in = realloc(c->in, c->in_cap);
                if (!c->in) die("memory");
            }
            break;
        }
        if (!request(c, c->in + at + 4, len, may_wait)) break;
        at += 4 + len;
    }
    if (at) {
        memmove(c->in, c->in + at, c->in_len - at);
        c->in_len -= at;
    }
}

static void conn_close(conn *c) {
    for (conn **p = &conns; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    close(c->fd);
    while (c->first) {
        reply *r = c->first;
        c->first = r->next;
        free(r);
    }
    free(c->in);
    free(c);
}

/* ---- group commit ----------------------------------------------------------------------------------------------- */

static uint64_t durable;

static void commit_begin(void) {
    if (writer_busy || head == write_to) return;
    head = (head + BLOCK - 1) / BLOCK * BLOCK;
    pthread_mutex_lock(&lock);
    write_from = write_to;
    write_to = head;
    writer_busy = true;
    pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);
}

static void commit_end(void) {
    uint64_t n;
    if (read(wake_fd, &n, sizeof n) != sizeof n) return;
    durable = write_to;
    pthread_mutex_lock(&lock);
    writer_busy = false;
    pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < topic_count; i++)
        for (int p = 0; p < topics[i].partitions; p++) {
            partition *pt = &topics[i].p[p];
            while (pt->durable < pt->count && pt->batches[pt->durable].pos < durable) pt->durable++;
        }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        if (!c) die("memory");
        c->fd = fd;
        c->last = &c->first;
        c->in_cap = RECV_SIZE;
        c->in = malloc(c->in_cap);
        c->next = conns;
        conns = c;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        if (!c->in || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev)) die("epoll");
    }
}

static void file_prepare(const char *path) {
    file_fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (file_fd < 0) die(path);
    image = mmap(NULL, image_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (image == MAP_FAILED) die("mmap");
    off_t filled = lseek(file_fd, 0, SEEK_END);
    for (uint64_t at = (uint64_t)filled / BLOCK * BLOCK; at < image_size; at += WRITE_MAX) {
        size_t n = image_size - at < WRITE_MAX ? (size_t)(image_size - at) : WRITE_MAX;
        if (pwrite(file_fd, image + at, n, (off_t)at) != (ssize_t)n) die("filling the file");
    }
    if (fdatasync(file_fd)) die("fdatasync");
}

int main(int argc, char **argv) {
    const char *path = NULL;
    image_size = UINT64_C(1024) << 20;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--no-sync") == 0) no_sync = true;
        else if (strcmp(argv[i], "--file") == 0) path = value, i++;
        else if (strcmp(argv[i], "--size-mb") == 0) image_size = strtoull(value, NULL, 10) << 20, i++;
        else if (strcmp(argv[i], "--kafka-port") == 0) port = (uint16_t)atoi(value), i++;
        else return fprintf(stderr, "sink: unknown option %s\n", argv[i]), 2;
    }
    if (!path) return fprintf(stderr, "sink: --file is missing\n"), 2;
    file_prepare(path);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t sa_len = sizeof sa;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&sa, sizeof sa) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&sa, &sa_len))
        die("listen");
    port = ntohs(sa.sin_port);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    static char listener_tag, wake_tag;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &listener_tag};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev);
    ev.data.ptr = &wake_tag;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &ev);
    pthread_t thread;
    if (pthread_create(&thread, NULL, writer_main, NULL)) die("thread");
    printf("ready kafka=127.0.0.1:%u\n", port);
    fflush(stdout);

    for (;;) {
        int timeout = -1;
        uint64_t now = now_ms();
        for (conn *c = conns; c; c = c->next)
            if (c->parked) {
                int left = c->parked_until_ms > now ? (int)(c->parked_until_ms - now) : 0;
                if (timeout < 0 || left < timeout) timeout = left;
            }
        struct epoll_event events[64];
        int n = epoll_wait(epoll_fd, events, 64, timeout);
        bool committed = false;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener_tag) {
                accept_all(listener);
            } else if (events[i].data.ptr == &wake_tag) {
                commit_end();
                committed = true;
            } else {
                conn *c = events[i].data.ptr;
                bool open = true;
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                    if (c->in_len == c->in_cap) {
                        c->in_cap *= 2; /* requests pipelined behind a parked fetch */
                        c->in = realloc(c->in, c->in_cap);
                        if (!c->in) die("memory");
                    }
                    ssize_t got = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
                    if (got > 0) {
                        c->in_len += (size_t)got;
                        if (!c->parked) conn_requests(c, true);
                    } else if (got == 0 || errno != EAGAIN) {
                        open = false;
                    }
                }
                if (!open || !conn_flush(c, durable)) conn_close(c);
            }
        }
        now = now_ms();
        for (conn *c = conns, *next; c; c = next) {
            next = c->next;
            if (c->parked && (committed || c->parked_until_ms <= now)) conn_requests(c, c->parked_until_ms > now);
            if ((committed || c->first) && !conn_flush(c, durable)) conn_close(c);
        }
        commit_begin();
    }
}
