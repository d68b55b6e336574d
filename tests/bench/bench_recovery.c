/* How long a node that was killed takes until it serves again.
 *
 *   bench_recovery [--dir D] [--gb 10] [--open-mb 240] [--partitions 100] [--batch-kb 16] [--runs 5] [--keep]
 *
 * A child is a node that takes batches until it holds as many GB in packs, and as many MB in one WAL file that is still open
 * (it has no footer, so recovery has to read all of it), and is then killed. Each run starts a node on a copy of that
 * directory (packs are linked, not copied) in a process of its own, and measures from before chronik_node_new to READY. What is
 * acknowledged is then held against the end offsets, and the first and the last batch of a partition are read.
 *
 * The WAL is opened with O_DIRECT, so each run reads it from the device, whatever the page cache holds; the ends of packs
 * likewise. Prints one line of NAME=VALUE: ready_ms (the median), longest_ms, all in milliseconds, and what there was. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chronik/node.h>

#include "base/mem.h"
#include "codec/codec.h"
#include "record/record.h"
#include "wal/format.h"

enum { FLIGHT_MAX = 256, RUNS_MAX = 50, RECORD_BYTES = 1024 };

static struct {
    char dir[300], data[310], run[310];
    uint64_t gb, open_mb;
    int partitions, batch_kb, runs;
    bool keep;
} o = {.gb = 10, .open_mb = 240, .partitions = 100, .batch_kb = 16, .runs = 5};

static void die(const char *what, const chronik_error *err) {
    fprintf(stderr, "bench_recovery: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    _exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- what is on the disk ---- */

static void each_file(const char *data, const char *sub, void (*each)(const char *path, void *arg), void *arg) {
    char path[900];
    snprintf(path, sizeof path, "%s/%s", data, sub);
    DIR *d = opendir(path);
    for (const struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s/%s", data, sub, e->d_name);
        if (e->d_name[0] != '.') each(path, arg);
    }
    if (d) closedir(d);
}

typedef struct found {
    uint64_t files, bytes;
    uint64_t newest, newest_bytes; /* WAL: the file that is being written */
} found;

static void add_pack(const char *path, void *arg) {
    found *f = arg;
    struct stat st;
    size_t len = strlen(path);
    if (len < 5 || strcmp(path + len - 5, ".pack") != 0 || stat(path, &st) != 0) return;
    f->files++;
    f->bytes += (uint64_t)st.st_size;
}

/* Counts files that are in use: their header has the number of the name. */
static void add_wal(const char *path, void *arg) {
    found *f = arg;
    struct stat st;
    cnk_wal_file_header h;
    void *page = NULL;
    int fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0 || posix_memalign(&page, CNK_WAL_ALIGN, CNK_WAL_ALIGN) != 0) return;
    const char *name = strrchr(path, '/') + 1;
    bool live = pread(fd, page, CNK_WAL_ALIGN, 0) == CNK_WAL_ALIGN && fstat(fd, &st) == 0 &&
                cnk_wal_file_header_get(page, &h) == 0 && h.number == strtoull(name, NULL, 10);
    free(page);
    close(fd);
    if (!live) return;
    f->files++;
    f->bytes += (uint64_t)st.st_size;
    if (h.number > f->newest) {
        f->newest = h.number;
        f->newest_bytes = (uint64_t)st.st_size;
    }
}

static found look(const char *sub, void (*add)(const char *path, void *arg)) {
    found f = {0};
    each_file(o.data, sub, add, &f);
    return f;
}

/* ---- a node ---- */

typedef struct node {
    chronik_config *config;
    chronik_queue *queue;
    chronik_node *node;
} node;

static node node_start(const char *data) {
    node n = {0};
    chronik_error err = CHRONIK_ERROR_INIT;
    if (chronik_config_new(&n.config) || chronik_config_set(n.config, "data.dir", data, &err) ||
        chronik_config_set(n.config, "bind", "127.0.0.1", &err) ||
        chronik_config_set(n.config, "kafka.port", "0", &err) ||
        chronik_config_set(n.config, "http.enable", "false", &err) || chronik_queue_new(&err, &n.queue) ||
        chronik_node_new(n.config, n.queue, &err, &n.node) || chronik_node_start(n.node, &err) ||
        chronik_node_wait_ready(n.node, -1, &err))
        die("start", &err);
    return n;
}

static void batch_build(cnk_writer *out) {
    uint8_t value[RECORD_BYTES];
    cnk_batch_builder b;
    cnk_batch_builder_init(&b, 0, CNK_CODEC_LEVEL_DEFAULT, 0);
    for (size_t i = 0; i < sizeof value; i++) value[i] = (uint8_t)(i * 31 + i / 7);
    for (int i = 0; i < o.batch_kb; i++) {
        cnk_record_spec r = {.timestamp = 1700000000000 + i, .value = value, .value_len = sizeof value - 16};
        if (cnk_batch_builder_add(&b, &r)) die("a batch", NULL);
    }
    cnk_writer_growing(out, INT32_MAX);
    if (cnk_batch_builder_finish(&b, out)) die("a batch", NULL);
    cnk_batch_builder_free(&b);
}

typedef struct feed {
    node n;
    cnk_writer batch;
    uint64_t sent, acked; /* batches */
} feed;

static void feed_wait(feed *f, uint64_t flight) {
    while (f->sent - f->acked > flight) {
        chronik_event *e = NULL;
        if (chronik_queue_poll(f->n.queue, -1, &e) != 1) continue;
        if (chronik_event_type(e) == CHRONIK_EVENT_PRODUCED) {
            if (chronik_event_error(e)) die(chronik_event_text(e), NULL);
            f->acked++;
        }
        chronik_event_free(e);
    }
}

static void feed_bytes(feed *f, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += f->batch.len) {
        feed_wait(f, FLIGHT_MAX - 1);
        int rc = chronik_produce_batch(f->n.node, "bench", (int32_t)(f->sent % (uint64_t)o.partitions), f->batch.data,
                                       f->batch.len, f->n.queue, NULL);
        if (rc) die(chronik_strerror(rc), NULL);
        f->sent++;
    }
}

/* Fills the directory, says how many batches it has, and waits to be killed. */
static void build(int out) {
    feed f = {.n = node_start(o.data)};
    chronik_topic_options t = CHRONIK_TOPIC_OPTIONS_INIT;
    chronik_error err = CHRONIK_ERROR_INIT;
    t.partitions = o.partitions;
    if (chronik_topic_create_sync(f.n.node, "bench", &t, &err)) die("topic", &err);
    batch_build(&f.batch);
    while (look("packs", add_pack).bytes < o.gb * 1000000000) feed_bytes(&f, 50000000);
    feed_wait(&f, 0);
    uint64_t before = look("wal", add_wal).newest;
    found wal;
    do {
        feed_bytes(&f, 1000000);
        feed_wait(&f, 0);
        wal = look("wal", add_wal);
    } while (wal.newest == before || wal.newest_bytes < o.open_mb * 1000000);
    feed_bytes(&f, (o.open_mb - 1) * 1000000);
    feed_wait(&f, 0);
    for (int i = 0; i < 600 && look("wal", add_wal).files > 1; i++) usleep(100000);
    usleep(300000); /* the witness */
    if (write(out, &f.acked, sizeof f.acked) != sizeof f.acked) die("pipe", NULL);
    pause();
}

/* ---- a run ---- */

typedef struct result {
    uint64_t ready_ns, cpu_us, rss_kb;
} result;

static void read_one(const node *n, int32_t partition, int64_t offset) {
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_event *e;
    chronik_record r = CHRONIK_RECORD_INIT;
    if (chronik_fetch_sync(n->node, "bench", partition, offset, NULL, &err, &e)) die("fetch", &err);
    if (chronik_event_error(e) || chronik_event_record(e, &r) != 1 || r.value_len != RECORD_BYTES - 16)
        die("what was written cannot be read", NULL);
    chronik_event_free(e);
}

static void check(const node *n, uint64_t batches) {
    chronik_fetch_options fo = CHRONIK_FETCH_OPTIONS_INIT;
    chronik_error err = CHRONIK_ERROR_INIT;
    uint64_t records = 0;
    fo.max_wait_ms = 0;
    for (int p = 0; p < o.partitions; p++) {
        chronik_event *e;
        if (chronik_fetch_sync(n->node, "bench", p, -1, &fo, &err, &e)) die("fetch", &err);
        records += (uint64_t)chronik_event_a(e);
        if (p == 0) {
            read_one(n, 0, -2);
            read_one(n, 0, chronik_event_a(e) - 1);
        }
        chronik_event_free(e);
    }
    if (records != batches * (uint64_t)o.batch_kb) die("end offsets are not what was acknowledged", NULL);
}

static void measure(int out, uint64_t batches) {
    result r = {0};
    struct rusage u;
    uint64_t from = now_ns();
    node n = node_start(o.run);
    r.ready_ns = now_ns() - from;
    getrusage(RUSAGE_SELF, &u);
    r.cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    r.rss_kb = (uint64_t)u.ru_maxrss;
    check(&n, batches);
    if (write(out, &r, sizeof r) != sizeof r) die("pipe", NULL);
    _exit(0);
}

/* ---- the whole ---- */

static pid_t child(void (*build_or_null)(int out), uint64_t batches, int *ret_in) {
    int ends[2];
    if (pipe(ends) != 0) die("pipe", NULL);
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) die("fork", NULL);
    if (pid == 0) {
        close(ends[0]);
        if (build_or_null) build_or_null(ends[1]);
        else measure(ends[1], batches);
        _exit(0);
    }
    close(ends[1]);
    *ret_in = ends[0];
    return pid;
}

static int by_time(const void *a, const void *b) {
    uint64_t x = ((const result *)a)->ready_ns, y = ((const result *)b)->ready_ns;
    return x < y ? -1 : x > y;
}

static void options(int argc, char **argv) {
    const char *dir = "/var/tmp";
    for (int n = 1; n < argc; n++) {
        const char *value = n + 1 < argc ? argv[n + 1] : "0";
        if (!strcmp(argv[n], "--keep")) o.keep = true;
        else if (!strcmp(argv[n], "--dir")) dir = value, n++;
        else if (!strcmp(argv[n], "--gb")) o.gb = strtoull(value, NULL, 10), n++;
        else if (!strcmp(argv[n], "--open-mb")) o.open_mb = strtoull(value, NULL, 10), n++;
        else if (!strcmp(argv[n], "--partitions")) o.partitions = atoi(value), n++;
        else if (!strcmp(argv[n], "--batch-kb")) o.batch_kb = atoi(value), n++;
        else if (!strcmp(argv[n], "--runs")) o.runs = atoi(value), n++;
        else die("an option that there is not", NULL);
    }
    if (o.runs < 1 || o.runs > RUNS_MAX || o.partitions < 1 || o.batch_kb < 1 || o.batch_kb > 900 || o.open_mb < 1 || o.open_mb > 245)
        die("an option out of its range (open-mb 1 to 245, batch-kb 1 to 900)", NULL);
    snprintf(o.dir, sizeof o.dir, "%s/chronik-bench-recovery-XXXXXX", dir);
}

/* A copy to start from; packs are immutable, so links do. */
static void copy_make(void) {
    char command[3000];
    snprintf(command, sizeof command,
             "rm -rf '%s' && mkdir '%s' && cp -al '%s/packs' '%s/' && "
             "find '%s' -mindepth 1 -maxdepth 1 ! -name packs -exec cp -a {} '%s/' ';' && sync",
             o.run, o.run, o.data, o.run, o.data, o.run);
    if (system(command) != 0) die(command, NULL);
}

static bool run_one(uint64_t batches, result *ret) {
    int in, status;
    copy_make();
    pid_t pid = child(NULL, batches, &in);
    bool ok = read(in, ret, sizeof *ret) == sizeof *ret;
    waitpid(pid, &status, 0);
    close(in);
    return ok;
}

static void print(result *results, const found *packs, const found *wal, uint64_t batches) {
    qsort(results, (size_t)o.runs, sizeof *results, by_time);
    const result *middle = &results[o.runs / 2];
    printf("ready_ms=%.1f longest_ms=%.1f shortest_ms=%.1f cpu_ms=%.1f rss_mb=%.1f packs=%llu packs_mb=%.0f wal_files=%llu "
           "wal_mb=%.0f batches=%llu partitions=%d verified=1\n",
           (double)middle->ready_ns / 1e6, (double)results[o.runs - 1].ready_ns / 1e6, (double)results[0].ready_ns / 1e6,
           (double)middle->cpu_us / 1e3, (double)middle->rss_kb / 1024, (unsigned long long)packs->files,
           (double)packs->bytes / 1e6, (unsigned long long)wal->files, (double)wal->bytes / 1e6,
           (unsigned long long)batches, o.partitions);
}

int main(int argc, char **argv) {
    options(argc, argv);
    if (!mkdtemp(o.dir)) die("no directory", NULL);
    snprintf(o.data, sizeof o.data, "%s/data", o.dir);
    snprintf(o.run, sizeof o.run, "%s/run", o.dir);
    int in, status;
    uint64_t batches = 0;
    result results[RUNS_MAX];
    pid_t pid = child(build, 0, &in);
    bool ok = read(in, &batches, sizeof batches) == sizeof batches;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(in);
    found packs = look("packs", add_pack), wal = look("wal", add_wal);
    for (int n = 0; ok && n < o.runs; n++) ok = run_one(batches, &results[n]);
    if (ok) print(results, &packs, &wal, batches);
    if (o.keep) {
        printf("kept: %s\n", o.data);
        return ok ? 0 : 1;
    }
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", o.dir);
    return system(command) == 0 && ok ? 0 : 1;
}
