/* What a checkpoint costs where most streams are idle.
 *
 *   bench_checkpoint [--dir D] [--streams 10000] [--busy 10] [--blob 400] [--rounds 100]
 *
 * Each round appends to `busy` streams, and takes a checkpoint once that is durable. The owner's state of a stream is `blob`
 * bytes. Prints one line of NAME=VALUE, each for one checkpoint: cpu_us, of the whole process, shard_us of it on the shard's
 * thread, wall_us, and mb written by it. At the end the log is opened again, and each stream and its state must be there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/crc32c.h"
#include "io/event.h"
#include "wal/internal.h"

static struct {
    chronik_io *io;
    cnk_event_loop *loop;
    cnk_wal *wal;
    cnk_wal_port *port;
    chronik_timer *tick;
    cnk_wal_stream **streams;
    uint64_t streams_count, busy, blob, rounds, waiting;
    bool drained;
} b = {.streams_count = 10000, .busy = 10, .blob = 400, .rounds = 100};

static void die(const char *what) {
    fprintf(stderr, "bench_checkpoint: %s\n", what);
    exit(1);
}

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    cnk_wal_stream_commit_set(s, index);
    b.waiting--;
}
static void on_durable_end(void *arg) {
    (void)arg;
    if (b.waiting == 0) cnk_event_loop_stop(b.loop);
}
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    die(why->text);
}
static void on_nothing(void *arg) { (void)arg; }
static void on_sealed(void *arg, uint32_t seq) { (void)arg, (void)seq; }
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    for (uint64_t n = 0; n < b.blob / 8; n++) cnk_write_le64(out, st->id ^ n ^ (st->last_index << 32));
    *ret_applied_index = st->durable_index;
    return 0;
}
static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_nothing, on_sealed, on_snapshot};

static void on_tick(void *arg) {
    (void)arg;
    cnk_event_loop_stop(b.loop);
}

static void turn(unsigned us) {
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    l->ops->timer_set(l->self, b.tick, l->ops->now_ns(l->self) + us * UINT64_C(1000));
    cnk_event_loop_run(b.loop);
}

static void on_drained(void *arg, int code) {
    (void)arg;
    if (code) die("drain");
    b.drained = true;
    cnk_event_loop_stop(b.loop);
}

static void append(uint64_t n) {
    static const uint8_t data[100];
    const cnk_wal_state *st = cnk_wal_stream_state(b.streams[n]);
    cnk_wal_entry e = {.index = st->last_index + 1, .term = 1, .kind = CNK_ENTRY_DATA, .count = 1, .len = sizeof data};
    e.base_offset = st->next_offset;
    cnk_wal_payload p = {.iov = {{(void *)(uintptr_t)data, sizeof data}}, .iov_count = 1};
    p.crc = cnk_crc32c(0, data, sizeof data);
    int rc;
    while ((rc = cnk_wal_append(b.streams[n], &e, &p)) == CHRONIK_EAGAIN) {
        cnk_wal_kick(b.port);
        turn(1000);
    }
    if (rc) die(chronik_strerror(rc));
    b.waiting++;
}

static void settle(void) {
    cnk_wal_kick(b.port);
    while (b.waiting > 0) cnk_event_loop_run(b.loop);
}

static uint64_t checkpoints(void) {
    cnk_wal_stats s;
    cnk_wal_stats_get(b.wal, &s);
    return s.checkpoints;
}

static bool running(void) {
    pthread_mutex_lock(&b.wal->mutex);
    bool is = b.wal->checkpoint_running;
    pthread_mutex_unlock(&b.wal->mutex);
    return is;
}

static void checkpoint(void) {
    uint64_t before = checkpoints();
    cnk_wal_checkpoint(b.port);
    while (checkpoints() == before || running()) turn(100);
}

static uint64_t us_of(const struct rusage *u) {
    return (uint64_t)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000 + (uint64_t)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void start(const char *dir) {
    chronik_error err = CHRONIK_ERROR_INIT;
    if (chronik_io_posix_new(NULL, &err, &b.io) || cnk_event_loop_new(NULL, &err, &b.loop)) die(err.text);
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    if (l->ops->timer_new(l->self, on_tick, NULL, &b.tick)) die("no timer");
    cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    o.dir = dir;
    if (cnk_wal_open(b.io, &o, NULL, NULL, &err, &b.wal)) die(err.text);
    if (cnk_wal_port_open(b.wal, l, &events, NULL, &b.port)) die("no port");
}

static void stop(void) {
    b.drained = false;
    cnk_wal_drain(b.port, on_drained, NULL);
    while (!b.drained) turn(1000);
    cnk_wal_port_close(b.port);
    cnk_wal_free(b.wal);
    const chronik_loop *l = cnk_event_loop_get(b.loop);
    l->ops->timer_free(l->self, b.tick);
    cnk_event_loop_free(b.loop);
    chronik_io_posix_free(b.io);
}

/* Every stream is there, and so is its state, as of an entry that it has. */
static void verify(void) {
    size_t it = 0;
    uint64_t found = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(b.wal, &it));) {
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        const uint8_t *blob;
        size_t len;
        uint64_t applied;
        cnk_wal_stream_blob(s, &blob, &len, &applied);
        if (len != b.blob / 8 * 8 || applied == 0 || applied > st->last_index) die("a stream's state is not as it was");
        if (len && (cnk_load_le64(blob) ^ st->id) != applied << 32) die("a stream's state is another's");
        found++;
    }
    if (found != b.streams_count) die("streams are missing");
}

static void options(int argc, char **argv, const char **ret_dir) {
    for (int n = 1; n + 1 < argc; n += 2) {
        uint64_t value = strtoull(argv[n + 1], NULL, 10);
        if (!strcmp(argv[n], "--dir")) *ret_dir = argv[n + 1];
        else if (!strcmp(argv[n], "--streams")) b.streams_count = value;
        else if (!strcmp(argv[n], "--busy")) b.busy = value;
        else if (!strcmp(argv[n], "--blob")) b.blob = value;
        else if (!strcmp(argv[n], "--rounds")) b.rounds = value;
        else die("an option that there is not");
    }
}

int main(int argc, char **argv) {
    const char *tmp = "/var/tmp";
    char dir[300], command[400];
    struct rusage all[2], own[2];
    options(argc, argv, &tmp);
    snprintf(dir, sizeof dir, "%s/chronik-bench-checkpoint-XXXXXX", tmp);
    if (!mkdtemp(dir)) die("no directory");
    start(dir);
    b.streams = calloc(b.streams_count, sizeof *b.streams);
    for (uint64_t n = 0; n < b.streams_count; n++) {
        if (cnk_wal_stream_new(b.port, n + 1, NULL, &b.streams[n])) die("no stream");
        b.waiting++;
    }
    b.waiting = 0; /* what is told for INIT and for the first entry may come in one */
    for (uint64_t n = 0; n < b.streams_count; n++) append(n);
    cnk_wal_kick(b.port);
    for (int n = 0; n < 200; n++) turn(5000);
    b.waiting = 0;
    checkpoint();
    checkpoint();
    getrusage(RUSAGE_SELF, &all[0]);
    getrusage(RUSAGE_THREAD, &own[0]);
    uint64_t wall = 0;
    for (uint64_t round = 0; round < b.rounds; round++) {
        for (uint64_t n = 0; n < b.busy; n++) append((round * b.busy + n) % b.streams_count);
        settle();
        uint64_t at = now_us();
        checkpoint();
        wall += now_us() - at;
    }
    getrusage(RUSAGE_SELF, &all[1]);
    getrusage(RUSAGE_THREAD, &own[1]);
    char path[400];
    struct stat st = {0};
    snprintf(path, sizeof path, "%s/%020llu.checkpoint", dir, (unsigned long long)b.wal->checkpoint_number);
    if (stat(path, &st) != 0) die("no checkpoint");
    stop();
    start(dir);
    verify();
    stop();
    printf("cpu_us=%.0f shard_us=%.0f wall_us=%.0f mb=%.2f streams=%llu busy=%llu blob=%llu verified=1\n",
           (double)(us_of(&all[1]) - us_of(&all[0])) / (double)b.rounds,
           (double)(us_of(&own[1]) - us_of(&own[0])) / (double)b.rounds, (double)wall / (double)b.rounds,
           (double)st.st_size / 1e6, (unsigned long long)b.streams_count, (unsigned long long)b.busy,
           (unsigned long long)b.blob);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
