/* Kafka's protocol by hand, as much as the programs here need that a client library would slow down: requests are built in
 * `buf`, answers are received into it. Included once by a program; `wire_program` is its name in messages. */
#ifndef CNK_BENCH_WIRE_H
#define CNK_BENCH_WIRE_H

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "bench/clock.h"

enum { WIRE_BUF = 4 << 20, WIRE_BATCH_HEADER = 61, API_PRODUCE = 0, API_FETCH = 1, API_CREATE_TOPICS = 19 };

static const char *wire_program;
static unsigned char buf[WIRE_BUF];
static size_t len;

_Noreturn static void die(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", wire_program, what, strerror(errno));
    exit(1);
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

static void put_varint(int32_t v) {
    uint32_t zigzag = (uint32_t)v << 1 ^ (uint32_t)(v >> 31);
    for (; zigzag > 0x7f; zigzag >>= 7) put((zigzag & 0x7f) | 0x80, 1);
    put(zigzag, 1);
}

static uint64_t get(size_t at, size_t n, size_t got) {
    uint64_t v = 0;
    if (at + n > got) errno = EPROTO, die("the answer is too short");
    for (size_t i = 0; i < n; i++) v = v << 8 | buf[at + i];
    return v;
}

static void put_be32(unsigned char *p, uint32_t v) {
    v = htobe32(v);
    memcpy(p, &v, 4);
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
    put_be32(buf, (uint32_t)(len - 4));
    if (send(fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len) die("send");
    size_t got = 0, want = 4;
    while (got < want) {
        ssize_t n = recv(fd, buf + got, want - got, 0);
        if (n <= 0) die("recv");
        got += (size_t)n;
        if (got == 4 && want == 4) {
            want = 4 + (size_t)get(0, 4, got);
            if (want > sizeof buf) errno = EMSGSIZE, die("the answer");
        }
    }
    return got;
}

/* `address` is HOST:PORT, of 127.0.0.1. */
static int wire_connect(const char *address) {
    const char *colon = strrchr(address, ':');
    if (!colon) errno = EINVAL, die(address);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa)) die("connect");
    return fd;
}

static void topic_create(int fd, const char *topic, uint32_t partitions) {
    begin(API_CREATE_TOPICS, 2);
    put(1, 4);
    put_text(topic);
    put(partitions, 4);
    put(1, 2);
    put(0, 4);
    put(0, 4);
    put(30000, 4);
    put(0, 1);
    size_t got = exchange(fd);
    int error = (int16_t)get(4 + 4 + 4 + 4 + 2 + strlen(topic), 2, got);
    if (error) {
        fprintf(stderr, "%s: CreateTopics: error %d\n", wire_program, error);
        exit(1);
    }
}

/* A record batch with one record, preceded by its size. */
static void put_batch(const void *value, size_t value_len) {
    size_t size_at = len, start = len + 4;
    len = start + 12; /* base offset 0, batch length */
    memset(buf + start, 0, 12);
    put(UINT32_MAX, 4); /* leader epoch */
    put(2, 1);
    size_t crc_at = len;
    len += 4;
    put(0, 2 + 4); /* attributes, last offset delta */
    uint64_t ms = (uint64_t)time(NULL) * 1000;
    put(ms, 8);
    put(ms, 8);
    put(UINT64_MAX, 8);
    put(UINT16_MAX, 2);
    put(UINT32_MAX, 4);
    put(1, 4);
    int32_t value_varint = value_len < 64 ? 1 : value_len < 8192 ? 2 : 3;
    put_varint((int32_t)value_len + value_varint + 5); /* attributes, timestamp, offset, key and headers: a byte each */
    put(0, 3);
    put(1, 1); /* key: -1 */
    put_varint((int32_t)value_len);
    memcpy(buf + len, value, value_len);
    len += value_len;
    put(0, 1);
    put_be32(buf + size_at, (uint32_t)(len - start));
    put_be32(buf + start + 8, (uint32_t)(len - start - 12));
    put_be32(buf + crc_at, cnk_crc32c(0, buf + crc_at + 4, len - crc_at - 4));
}

/* A request to produce one record, acks=all. */
static void produce_begin(const char *topic, int32_t partition, const void *value, size_t value_len) {
    begin(API_PRODUCE, 3);
    put(0xffff, 2);
    put(0xffff, 2);
    put(30000, 4);
    put(1, 4);
    put_text(topic);
    put(1, 4);
    put((uint32_t)partition, 4);
    put_batch(value, value_len);
}

/* Where in its answer the error is; the base offset follows. */
static size_t produce_error_at(const char *topic) { return 4 + 4 + 4 + 2 + strlen(topic) + 4 + 4; }

/* Apache Kafka's partitions come up after CreateTopics has been answered. */
static int error_passes(int error) { return error == 3 || error == 5 || error == 6; }

#endif
