/* The WAL alone: commits of one entry each, synced, one after the other; the measure of what it adds to the disk.
 *
 *   bench_wal --dir D [--kb 64] [--seconds 5] [--depth 2] [--file-mb 256] [--warm-mb 5 files]
 *
 * --depth: entries under way; while some are being synced the next are gathered. 1 is a lone writer that waits for each,
 * and pays two messages between threads for it; 128 are as many writers. Entries are released as they get old, so that files are recycled.
 * --warm-mb: written before the clock starts, so that what follows goes to recycled files, as rawdisk's goes to a filled
 * one; 0 measures the preparing of new files, too.
 * Prints one line of NAME=VALUE: mb_s, syncs_s, entries_s, and the percentiles of an entry from its append to its report. At the end
 * the directory is opened again, and the last entries are read back and checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/io_posix.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "io/event.h"
#include "wal/wal.h"

enum { DEPTH_MAX = 256, KEEP = 256, SAMPLES_MAX = 4000000 };

static struct {
    cnk_event_loop *loop;
    const chronik_loop *l;
    cnk_wal *wal;
    cnk_wal_port *port;
    cnk_wal_stream *stream;
    uint8_t *data;
    uint32_t len, crc;
    uint64_t appended, durable, began_ns, end_ns, sent_ns[DEPTH_MAX];
    uint64_t warm_entries, seconds, syncs_before; /* began_ns 0: still warming up */
    unsigned depth;
    uint32_t *samples;
    size_t samples_count;
    chronik_post start;
    bool waiting, drained;
} b;

static void die(const char *what, const chronik_error *err) {
    fprintf(stderr, "bench_wal: %s: %s\n", what, err ? err->text : "");
    exit(1);
}

static uint64_t now_ns(void) { return b.l->ops->now_ns(b.l->self); }

static void begin(void) {
    cnk_wal_stats stats;
    cnk_wal_stats_get(b.wal, &stats);
    b.syncs_before = stats.syncs;
    b.warm_entries = b.durable;
    b.samples_count = 0;
    b.began_ns = now_ns();
    b.end_ns = b.began_ns + b.seconds * UINT64_C(1000000000);
}

static void fill(void) {
    if (b.began_ns == 0 && b.durable >= b.warm_entries) begin();
    while (b.appended - b.durable < b.depth && now_ns() < b.end_ns) {
        const cnk_wal_state *st = cnk_wal_stream_state(b.stream);
        cnk_wal_entry e = {.index = st->last_index + 1, .term = 1, .kind = CNK_ENTRY_DATA, .count = 1, .len = b.len};
        e.base_offset = st->next_offset;
        cnk_wal_payload p = {.iov_count = 1, .crc = b.crc};
        p.iov[0] = (struct iovec){b.data, b.len};
        int code = cnk_wal_append(b.stream, &e, &p);
        b.waiting = code == CHRONIK_EAGAIN;
        if (b.waiting) break;
        if (code) die("append", NULL);
        b.sent_ns[e.index % DEPTH_MAX] = now_ns();
        b.appended = e.index;
        cnk_wal_kick(b.port);
    }
    if (b.appended == b.durable && now_ns() >= b.end_ns) cnk_event_loop_stop(b.loop);
}

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    uint64_t now = now_ns();
    for (uint64_t n = b.durable + 1; n <= index && b.samples_count < SAMPLES_MAX; n++)
        b.samples[b.samples_count++] = (uint32_t)((now - b.sent_ns[n % DEPTH_MAX]) / 1000);
    b.durable = index;
    cnk_wal_stream_commit_set(s, index);
    if (index > KEEP) cnk_wal_stream_release(s, index - KEEP);
}

static void on_durable_end(void *arg) {
    (void)arg;
    fill();
}

static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    die("fenced", why);
}

static void on_writable(void *arg) {
    (void)arg;
    if (b.waiting) fill();
}

static void on_sealed(void *arg, uint32_t file_seq) {
    (void)arg;
    (void)file_seq;
    cnk_wal_checkpoint(b.port);
}

static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    (void)s;
    (void)out;
    *ret_applied_index = b.durable;
    return 0;
}

static void on_drained(void *arg, int code) {
    (void)arg;
    (void)code;
    b.drained = true;
    cnk_event_loop_stop(b.loop);
}

static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

static void start(chronik_post *post) {
    (void)post;
    fill();
}

static int ascending(const void *x, const void *y) {
    uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
    return p < q ? -1 : p > q;
}

static void open_wal(const chronik_io *io, const cnk_wal_options *options) {
    chronik_error err = CHRONIK_ERROR_INIT;
    if (cnk_wal_open(io, options, NULL, NULL, &err, &b.wal)) die("open", &err);
    if (cnk_wal_port_open(b.wal, b.l, &events, NULL, &b.port)) die("port", NULL);
}

static void close_wal(void) {
    b.drained = false;
    cnk_wal_drain(b.port, on_drained, NULL);
    while (!b.drained) cnk_event_loop_run(b.loop);
    cnk_wal_port_close(b.port);
    cnk_wal_free(b.wal);
}

static void check(const chronik_io *io, const cnk_wal_options *options) {
    open_wal(io, options);
    size_t it = 0;
    b.stream = cnk_wal_recovered_next(b.wal, &it);
    const cnk_wal_state *st = cnk_wal_stream_state(b.stream);
    if (st->last_index != b.durable) die("the last entry is missing", NULL);
    uint8_t *got = malloc(b.len);
    for (uint64_t n = st->released_index + 1; n <= st->last_index; n++) {
        cnk_wal_place p;
        if (cnk_wal_find_index(b.stream, n, &p)) die("an entry is missing", NULL);
        cnk_wal_file *f = cnk_wal_file_pin(b.wal, p.file_seq);
        if (!f || cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, got, NULL) || memcmp(got, b.data, b.len) != 0)
            die("an entry differs", NULL);
        cnk_wal_file_unpin(f);
    }
    free(got);
    cnk_wal_stream_attach(b.port, b.stream, NULL);
    close_wal();
}

int main(int argc, char **argv) {
    const char *dir = NULL;
    uint64_t kb = 64, file_mb = 256, warm_mb = UINT64_MAX;
    b.seconds = 5;
    b.depth = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0) dir = argv[i + 1];
        else if (strcmp(argv[i], "--kb") == 0) kb = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0) b.seconds = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--depth") == 0) b.depth = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--file-mb") == 0) file_mb = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--warm-mb") == 0) warm_mb = strtoull(argv[i + 1], NULL, 10);
        else die("unknown option", NULL);
    }
    if (!dir || b.depth < 1 || b.depth > DEPTH_MAX || kb < 1) die("usage: bench_wal --dir D [--kb N] [--seconds N]", NULL);
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_io *io;
    if (chronik_io_posix_new(NULL, &err, &io) || cnk_event_loop_new(NULL, &err, &b.loop)) die("start", &err);
    b.l = cnk_event_loop_get(b.loop);
    b.len = (uint32_t)(kb << 10) - 512; /* with the block's header and table it fills its pages */
    b.data = malloc(b.len);
    b.samples = malloc(SAMPLES_MAX * sizeof *b.samples);
    cnk_rng rng;
    cnk_rng_seed(&rng, 1);
    cnk_rng_fill(&rng, b.data, b.len);
    b.crc = cnk_crc32c(0, b.data, b.len);
    cnk_wal_options options = CNK_WAL_OPTIONS_INIT;
    options.dir = dir;
    options.file_bytes = file_mb << 20;
    options.budget_bytes = options.file_bytes * 5;
    open_wal(io, &options);
    if (cnk_wal_stream_new(b.port, 1, NULL, &b.stream)) die("stream", NULL);
    b.warm_entries = ((warm_mb == UINT64_MAX ? 5 * file_mb : warm_mb) << 20) / (kb << 10);
    b.end_ns = UINT64_MAX;
    b.start.run = start;
    b.l->ops->post(b.l->self, &b.start);
    while (b.appended != b.durable || now_ns() < b.end_ns) cnk_event_loop_run(b.loop);
    double took = (double)(now_ns() - b.began_ns) / 1e9, entries = (double)(b.durable - b.warm_entries);
    cnk_wal_stats stats;
    cnk_wal_stats_get(b.wal, &stats);
    close_wal();
    check(io, &options);
    qsort(b.samples, b.samples_count, sizeof *b.samples, ascending);
    size_t n = b.samples_count;
    printf("mb_s=%.1f syncs_s=%.0f entries_s=%.0f p50_us=%u p99_us=%u max_us=%u\n",
           entries * (double)(kb << 10) / 1e6 / took, (double)(stats.syncs - b.syncs_before) / took, entries / took,
           b.samples[n / 2], b.samples[n * 99 / 100], b.samples[n - 1]);
    cnk_event_loop_free(b.loop);
    chronik_io_posix_free(io);
    free(b.data);
    free(b.samples);
    return 0;
}
