/* How fast sealed WAL files become packs, and packs are read, and what that costs.
 *
 *   bench_pack [directory] [streams] [batch bytes] [megabytes]
 *
 * Fills a WAL, converts it at full speed and reads everything back through the cold table. CPU is
 * user + system of the process. What was appended is compared with what is read back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cold_read.h"
#include "io/event.h"
#include "tier/tier.h"

static struct {
    chronik_io *io;
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_wal_port *wal_port;
    cnk_tier *tier;
    cnk_tier_port *port;
    chronik_timer *tick;
    uint32_t sealed[1000];
    size_t sealed_count;
    bool converting, drained;
} b;

static void die(const char *what) {
    fprintf(stderr, "bench_pack: %s\n", what);
    exit(1);
}

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    cnk_wal_stream_commit_set(s, index);
}
static void on_durable_end(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    die(why->text);
}
static void on_writable(void *arg) {
    (void)arg;
    cnk_event_loop_stop(b.loop);
}
static void on_sealed(void *arg, uint32_t seq) {
    (void)arg;
    if (b.converting)
        cnk_tier_sealed(b.tier, seq);
    else if (b.sealed_count < 1000)
        b.sealed[b.sealed_count++] = seq;
}
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg, (void)out;
    *ret_applied_index = cnk_wal_stream_state(s)->durable_index;
    return 0;
}
static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

static void on_tick(void *arg) {
    (void)arg;
    cnk_event_loop_stop(b.loop);
}
static void turn(unsigned ms) {
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    l->ops->timer_set(l->self, b.tick, l->ops->now_ns(l->self) + ms * UINT64_C(1000000));
    cnk_event_loop_run(b.loop);
}

typedef struct mark {
    double wall, cpu;
} mark;

static mark now(void) {
    struct rusage u;
    struct timespec t;
    getrusage(RUSAGE_SELF, &u);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (mark){(double)t.tv_sec + (double)t.tv_nsec / 1e9,
                  (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                      (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6};
}

static void report(const char *what, mark from, uint64_t bytes) {
    mark to = now();
    double gb = (double)bytes / 1e9, wall = to.wall - from.wall;
    printf("%-34s %8.0f MB %7.3f s %7.0f MB/s %7.3f CPU s/GB\n", what, gb * 1000, wall, gb * 1000 / wall,
           (to.cpu - from.cpu) / gb);
}

static void on_drained(void *arg) {
    (void)arg;
    b.drained = true;
    cnk_event_loop_stop(b.loop);
}
static void on_wal_drained(void *arg, int code) {
    (void)code;
    on_drained(arg);
}

static void start(const char *dir) {
    char wal_dir[300], pack_dir[300];
    chronik_error err = CHRONIK_ERROR_INIT;
    snprintf(wal_dir, sizeof wal_dir, "%s/wal", dir);
    snprintf(pack_dir, sizeof pack_dir, "%s/packs", dir);
    if (chronik_io_posix_new(NULL, &err, &b.io) || cnk_event_loop_new(NULL, &err, &b.loop)) die(err.text);
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    if (l->ops->timer_new(l->self, on_tick, NULL, &b.tick)) die("no timer");
    cnk_wal_options wo = CNK_WAL_OPTIONS_INIT;
    wo.dir = wal_dir;
    wo.budget_bytes = UINT64_C(8) << 30;
    cnk_tier_options to = CNK_TIER_OPTIONS_INIT;
    to.dir = pack_dir;
    to.calm_bytes_per_s = 0;
    if (cnk_wal_open(b.io, &wo, NULL, NULL, &err, &b.wal)) die(err.text);
    if (cnk_tier_open(b.io, b.wal, &to, NULL, NULL, &err, &b.tier)) die(err.text);
    if (cnk_wal_port_open(b.wal, l, &events, NULL, &b.wal_port) || cnk_tier_port_open(b.tier, l, b.wal_port, &b.port))
        die("no port");
}

static void stop(void) {
    b.drained = false;
    cnk_tier_drain(b.tier, on_drained, NULL);
    while (!b.drained) turn(10);
    b.drained = false;
    cnk_wal_drain(b.wal_port, on_wal_drained, NULL);
    while (!b.drained) turn(10);
    cnk_tier_port_close(b.port);
    cnk_wal_port_close(b.wal_port);
    cnk_tier_free(b.tier);
    cnk_wal_free(b.wal);
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    l->ops->timer_free(l->self, b.tick);
    cnk_event_loop_free(b.loop);
    chronik_io_posix_free(b.io);
}

/* Appends to random streams; one CRC over all lengths and CRCs of each stream stands for its content. */
static void fill(cnk_wal_stream **streams, uint32_t *sums, uint64_t count, uint32_t batch, uint64_t bytes) {
    static uint8_t data[1 << 20];
    cnk_rng rng;
    cnk_rng_seed(&rng, 1);
    cnk_rng_fill(&rng, data, sizeof data);
    uint64_t done = 0;
    for (uint64_t n = 0; done < bytes; n++) {
        uint64_t i = cnk_rng_below(&rng, count);
        const cnk_wal_state *st = cnk_wal_stream_state(streams[i]);
        uint32_t len = batch / 2 + (uint32_t)cnk_rng_below(&rng, batch),
                 from = (uint32_t)cnk_rng_below(&rng, sizeof data - len);
        uint32_t crc = cnk_crc32c(cnk_crc32c(0, &len, sizeof len), data + from, len - sizeof len);
        cnk_wal_entry e = {.index = st->last_index + 1, .term = 1, .kind = CNK_ENTRY_DATA, .count = 16, .len = len};
        e.base_offset = st->next_offset;
        e.max_timestamp = (int64_t)n;
        cnk_wal_payload p = {.iov = {{&len, sizeof len}, {data + from, len - sizeof len}}, .iov_count = 2, .crc = crc};
        int rc;
        while ((rc = cnk_wal_append(streams[i], &e, &p)) == CHRONIK_EAGAIN) {
            cnk_wal_kick(b.wal_port);
            turn(20);
        }
        if (rc) die(chronik_strerror(rc));
        if (st->last_index % 16 == 1) sums[i] = cnk_crc32c(sums[i], &crc, sizeof crc);
        done += len;
        if (n % 256 == 255) {
            cnk_wal_kick(b.wal_port);
            turn(0);
        }
    }
    cnk_wal_kick(b.wal_port);
    turn(300);
}

static void convert(void) {
    cnk_tier_stats s;
    for (size_t i = 0; i < b.sealed_count; i++) cnk_tier_sealed(b.tier, b.sealed[i]);
    b.converting = true;
    mark from = now();
    cnk_tier_start(b.tier);
    do {
        turn(1);
        cnk_tier_stats_get(b.tier, &s);
    } while (s.files_waiting > 0);
    report("WAL files to packs", from, s.bytes_converted);
    printf("%zu files, %llu packs\n", b.sealed_count, (unsigned long long)s.packs_written);
}

/* Reads all streams in turn, as consumers would, `max` bytes at a time into new memory. Each batch begins with its
 * length; of each 16th the CRC is compared, by a sum for each stream. */
static void consume(cnk_wal_stream **streams, const uint32_t *sums, uint64_t count, uint32_t max, bool check) {
    const cnk_log_cold *cold = cnk_tier_cold(b.tier);
    chronik_error err = CHRONIK_ERROR_INIT;
    uint64_t bytes = 0;
    int64_t *at = calloc(count, sizeof *at);
    uint32_t *crc = calloc(count, sizeof *crc);
    mark from = now();
    for (bool more = true; more;) {
        more = false;
        for (uint64_t i = 0; i < count; i++) {
            int64_t end = cnk_wal_stream_state(streams[i])->released_offset;
            if (at[i] >= end) continue;
            more = true;
            cnk_writer out;
            cnk_writer_growing(&out, 0);
            if (cold_read(cold, cnk_wal_stream_state(streams[i])->id, at[i], end, max, true, &out, &err))
                die(err.text);
            for (size_t pos = 0; pos < out.len; at[i] += 16) {
                uint32_t len = cnk_load_le32(out.data + pos);
                if (len > out.len - pos) die("what was read is not what was written");
                if (check && at[i] / 16 % 16 == 0) {
                    uint32_t sum = cnk_crc32c(0, out.data + pos, len);
                    crc[i] = cnk_crc32c(crc[i], &sum, sizeof sum);
                }
                pos += len;
            }
            if (out.len == 0) die("a read gave nothing");
            bytes += out.len;
            cnk_writer_free(&out);
        }
    }
    char what[64];
    snprintf(what, sizeof what, "reading, %u KiB at a time%s", max >> 10, check ? ", checked" : "");
    report(what, from, bytes);
    for (uint64_t i = 0; check && i < count; i++) {
        const cnk_wal_state *st = cnk_wal_stream_state(streams[i]);
        if (st->released_index == st->last_index && crc[i] != sums[i]) die("what was read is not what was written");
    }
    free(at);
    free(crc);
}

int main(int argc, char **argv) {
    const char *tmp = argc > 1 ? argv[1] : "/tmp";
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 100, mb = argc > 4 ? strtoull(argv[4], NULL, 10) : 1000;
    uint32_t batch = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 16384;
    char dir[250], command[300];
    snprintf(dir, sizeof dir, "%s/chronik-bench-pack-XXXXXX", tmp);
    if (!mkdtemp(dir)) die("no directory");
    start(dir);
    cnk_wal_stream **streams = calloc(count, sizeof *streams);
    uint32_t *sums = calloc(count, sizeof *sums);
    chronik_error err = CHRONIK_ERROR_INIT;
    for (uint64_t i = 0; i < count; i++)
        if (cnk_wal_stream_new(b.wal_port, i + 1, NULL, &streams[i]) ||
            cnk_tier_stream_attach(b.port, streams[i], &err))
            die("no stream");
    mark from = now();
    fill(streams, sums, count, batch, mb * 1000000);
    report("filling the WAL", from, mb * 1000000);
    convert();
    consume(streams, sums, count, 1 << 20, true);
    consume(streams, sums, count, 1 << 20, false);
    consume(streams, sums, count, 256 << 10, false);
    stop();
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
