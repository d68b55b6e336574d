/* From exec to the first acknowledged record: how long a broker takes to start on an empty directory.
 *
 *   firstack TOPIC PROGRAM ARGS…
 *
 * Starts the program, reads its `ready … kafka=HOST:PORT` line, connects, creates the topic (CreateTopics 2), sends one
 * record with acks=all (Produce 3) and waits for the answer without an error. Then it prints one line,
 * `pid=… ready_ms=… first_ack_ms=… address=…`, and leaves the program running, for whoever called to look at and to
 * stop. Speaks the protocol itself: a client library would take longer to start than the broker. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"

extern char **environ;

static unsigned char buf[4096];
static size_t len;

static void die(const char *what) {
    fprintf(stderr, "firstack: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void put(uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++) buf[len + i] = (unsigned char)(v >> (8 * (n - 1 - i)));
    len += n;
}

static void put_text(const char *s) {
    put(strlen(s), 2);
    memcpy(buf + len, s, strlen(s));
    len += strlen(s);
}

static void begin(int16_t key, int16_t version) {
    len = 4;
    put((uint16_t)key, 2);
    put((uint16_t)version, 2);
    put(7, 4);
    put(0xffff, 2); /* no client id */
}

/* Sends the request in `buf`, receives the answer into it, and returns its length. */
static size_t exchange(int fd) {
    uint32_t be = htobe32((uint32_t)(len - 4));
    memcpy(buf, &be, 4);
    if (send(fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len) die("send");
    size_t got = 0, want = 4;
    while (got < want) {
        ssize_t n = recv(fd, buf + got, want - got, 0);
        if (n <= 0) die("recv");
        got += (size_t)n;
        if (got == 4) {
            memcpy(&be, buf, 4);
            want = 4 + be32toh(be);
            if (want > sizeof buf) die("the answer is too long");
        }
    }
    return got;
}

static int16_t int16_at(size_t at, size_t got) {
    if (at + 2 > got) die("the answer is too short");
    return (int16_t)(buf[at] << 8 | buf[at + 1]);
}

static void put_batch(void) {
    static const char value[] = "first";
    size_t size_at = len;
    len += 4;
    size_t start = len;
    put(0, 8);
    size_t length_at = len;
    len += 4;
    put(UINT32_MAX, 4); /* leader epoch */
    put(2, 1);
    size_t crc_at = len;
    len += 4;
    size_t crc_from = len;
    put(0, 2);
    put(0, 4); /* last offset delta */
    uint64_t ms = (uint64_t)time(NULL) * 1000;
    put(ms, 8);
    put(ms, 8);
    put(UINT64_MAX, 8);
    put(UINT16_MAX, 2);
    put(UINT32_MAX, 4);
    put(1, 4);
    put((sizeof value - 1 + 6) * 2, 1); /* zigzag: attributes, timestamp, offset, key, value length, headers: a byte each */
    put(0, 3);
    put(1, 1); /* key: -1 */
    put((sizeof value - 1) * 2, 1);
    memcpy(buf + len, value, sizeof value - 1);
    len += sizeof value - 1;
    put(0, 1);
    uint32_t be = htobe32((uint32_t)(len - start));
    memcpy(buf + size_at, &be, 4);
    be = htobe32((uint32_t)(len - length_at - 4));
    memcpy(buf + length_at, &be, 4);
    be = htobe32(cnk_crc32c(0, buf + crc_from, len - crc_from));
    memcpy(buf + crc_at, &be, 4);
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: firstack TOPIC PROGRAM ARGS…\n"), 2;
    const char *topic = argv[1];
    int out[2];
    posix_spawn_file_actions_t fa;
    pid_t pid;
    if (pipe(out)) die("pipe");
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, out[0]);
    posix_spawn_file_actions_addclose(&fa, out[1]);
    double began = now_ms();
    errno = posix_spawnp(&pid, argv[2], &fa, NULL, argv + 2, environ);
    if (errno) die(argv[2]);
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    char line[1024], *at = NULL;
    while (f && !at && fgets(line, sizeof line, f)) at = strncmp(line, "ready", 5) == 0 ? strstr(line, "kafka=") : NULL;
    if (!at) die("no ready line");
    double ready = now_ms();

    at += 6;
    at[strcspn(at, " \n,")] = 0;
    char *colon = strrchr(at, ':');
    if (!colon) die(at);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) die("connect");

    begin(19, 2); /* CreateTopics */
    put(1, 4);
    put_text(topic);
    put(1, 4);
    put(1, 2);
    put(0, 4);
    put(0, 4);
    put(30000, 4);
    put(0, 1);
    size_t got = exchange(fd);
    int16_t error = int16_at(4 + 4 + 4 + 4 + 2 + strlen(topic), got);
    if (error) return fprintf(stderr, "firstack: CreateTopics: error %d\n", error), 1;
    for (int tries = 0;; tries++) { /* Apache Kafka's partition comes up after that answer */
        begin(0, 3); /* Produce */
        put(0xffff, 2);
        put(0xffff, 2); /* acks=all */
        put(30000, 4);
        put(1, 4);
        put_text(topic);
        put(1, 4);
        put(0, 4);
        put_batch();
        got = exchange(fd);
        error = int16_at(4 + 4 + 4 + 2 + strlen(topic) + 4 + 4, got);
        if (error == 0) break;
        if (tries == 1000 || (error != 3 && error != 5 && error != 6))
            return fprintf(stderr, "firstack: Produce: error %d\n", error), 1;
        usleep(5000);
    }
    double acked = now_ms();
    close(fd);
    printf("pid=%d ready_ms=%.1f first_ack_ms=%.1f address=%s\n", (int)pid, ready - began, acked - began, at);
    return 0;
}
