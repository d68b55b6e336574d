/* chronik-bench: puts a load on any Kafka broker, measures, and verifies what it measured.
 *
 *     chronik-bench [OPTIONS]     run; `chronik-bench help` lists them
 *
 * On standard output: what was run, the figures, the verdict. On standard error: progress, and why it failed.
 * Exit codes: 0 done and verified; 1 it did not work, or figures differ; 2 wrong options; 130 interrupted twice.
 *
 * A run: find or make the topic; ask for its end offsets; start clients (bench_load.c, bench_metadata.c) and let them
 * connect; start the clock; wait until the time is up, all is sent or SIGINT comes; wait for what is underway; ask for
 * the end offsets again; read back what lies between; compare. What was acknowledged, how far the end offsets moved and
 * what was read back must be the same for each partition, and the same records at the same offsets.
 *
 * It uses librdkafka alone and nothing of libchronik's, so that it measures other brokers just as well. The first
 * thread plans and watches; see bench.h for the others. */
#include "bench.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_NS = 10000000,
    STALL_S = 15,        /* consuming, without a record */
    EOF_STALL_S = 1,     /* the same, where the broker says that there is no more */
    SETTLE_S = 60,       /* consumers, to reach the end of the topic */
    ARRIVE_S = 10,       /* what not all replicas have acknowledged, to be there */
    PARTITIONS_TOLD = 5, /* by name; of more only how many */
};

volatile int bench_interrupts;

static void on_signal(int sig) {
    (void)sig;
    if (++bench_interrupts > 1) _exit(BENCH_EXIT_NOW);
}

static void tick(void) { nanosleep(&(struct timespec){0, TICK_NS}, NULL); }

static double seconds_since(int64_t ns) { return (double)(bench_now_ns() - ns) / 1e9; }

static double own_cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- sums over drivers ------------------------------------------------------------------------------------------ */

#define SUM(run, counter) sum_of(run, offsetof(bench_driver, counter))

static uint64_t sum_of(const bench_run *run, size_t at) {
    uint64_t sum = 0;
    for (int i = 0; i < run->driver_count; i++)
        sum += bench_counter_get((const bench_counter *)((const char *)&run->drivers[i] + at));
    return sum;
}

static bool all_drained(const bench_run *run) {
    for (int i = 0; i < run->driver_count; i++)
        if (!run->drivers[i].drained) return false;
    return true;
}

static void add_latencies(const bench_run *run, bench_distribution *to) {
    for (int i = 0; i < run->driver_count; i++) bench_distribution_add(to, &run->drivers[i].latency);
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

typedef struct progress {
    const bench_run *run;
    bench_result *result;
    bool shown;
    int64_t next_ns, last_ns;
    uint64_t events, failed;
    bench_distribution before, now;
} progress;

static void show(const progress *p, const bench_interval *x, bool warm) {
    fprintf(stderr, "%7.1f s  %10.0f/s", x->at_s, x->per_s);
    if (x->p99_ns) fprintf(stderr, "  p50 %.3f ms  p99 %.3f ms", (double)x->p50_ns / 1e6, (double)x->p99_ns / 1e6);
    if (p->failed) fprintf(stderr, "  %" PRIu64 " failed", p->failed);
    fputs(warm ? "\n" : "  (warm-up)\n", stderr);
}

/* Closes an interval where it is time. Intervals beyond BENCH_INTERVALS_MAX are shown, but not kept. */
static void look(progress *p) {
    const bench_run *run = p->run;
    int64_t now = bench_now_ns(), every = run->options->report_interval_s * 1000000000;
    if (!run->start_ns || now < run->start_ns) return;
    if (!p->next_ns) p->last_ns = run->start_ns, p->next_ns = run->start_ns + every;
    if (now < p->next_ns) return;
    uint64_t events = SUM(run, events);
    memset(&p->now, 0, sizeof p->now);
    add_latencies(run, &p->now);
    p->failed = SUM(run, failed);
    bench_interval x = {.at_s = (double)(now - run->start_ns) / 1e9,
                        .per_s = (double)(events - p->events) / ((double)(now - p->last_ns) / 1e9),
                        .p50_ns = bench_distribution_quantile_since(&p->now, &p->before, 0.5),
                        .p99_ns = bench_distribution_quantile_since(&p->now, &p->before, 0.99),
                        .failed = p->failed};
    bool warm = p->last_ns >= run->warm_ns;
    p->before = p->now;
    p->events = events;
    p->last_ns = now;
    p->next_ns += every;
    if (p->shown) show(p, &x, warm);
    if (p->result->interval_count < BENCH_INTERVALS_MAX) p->result->intervals[p->result->interval_count++] = x;
}

/* ---- consuming to an end ---------------------------------------------------------------------------------------- */

/* Goes on until all is read, or `until_ns`, or no more comes. */
static void consume_out(bench_run *run, progress *p, bool interruptible) {
    uint64_t received = 0;
    int64_t since = bench_now_ns();
    while (SUM(run, left) > 0 && !SUM(run, failed)) {
        uint64_t now = SUM(run, received);
        if (now != received) received = now, since = bench_now_ns();
        bool at_eof = SUM(run, left_at_eof) == SUM(run, left);
        if (seconds_since(since) > (at_eof ? EOF_STALL_S : STALL_S)) break;
        if (interruptible && (bench_interrupts || (run->start_ns && bench_now_ns() >= run->stop_ns))) break;
        if (p) look(p);
        tick();
    }
}

static void add_parts(const bench_run *run, bench_result *r) {
    for (int i = 0; i < run->partitions; i++) {
        r->read += (uint64_t)run->parts[i].count;
        r->read_own += (uint64_t)run->parts[i].own;
    }
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static void compare_partitions(const bench_run *run, const bench_range *grown, const bench_run *reader,
                               bench_result *r) {
    int differing = 0;
    for (int p = 0; p < run->partitions; p++) {
        const bench_partition *part = &reader->parts[p];
        int64_t acked = 0, written = grown[p].end - grown[p].start;
        for (int i = 0; i < run->driver_count; i++) acked += run->drivers[i].acked_of[p];
        r->offsets_grown += written;
        bool more_is_fine = r->failed > 0; /* what was given up may have been written all the same */
        if (written == part->count && (part->own == acked || (more_is_fine && part->own > acked))) continue;
        if (++differing > PARTITIONS_TOLD) continue;
        bench_result_problem(r,
                             "partition %d: %" PRId64 " %s, its end offset grew by %" PRId64 " (%" PRId64 " to %" PRId64
                             "), %" PRId64 " were read back%s",
                             p, acked, run->options->acks ? "acknowledged" : "sent", written, grown[p].start,
                             grown[p].end, part->own, part->foreign ? ", and some of other producers" : "");
    }
    if (differing > PARTITIONS_TOLD) bench_result_problem(r, "%d more partitions differ", differing - PARTITIONS_TOLD);
}

static void compare_digests(const bench_run *run, const bench_run *reader, bench_result *r) {
    uint64_t acked = 0, read = 0;
    for (int i = 0; i < run->driver_count; i++) acked += run->drivers[i].acked_digest;
    for (int i = 0; i < reader->driver_count; i++) read += reader->drivers[i].received_digest;
    if (acked != read)
        bench_result_problem(r, "as many were read back as acknowledged, but not the same ones, or at other offsets");
}

static void add_read_failures(const bench_run *reader, bench_result *r) {
    uint64_t bad = SUM(reader, bad), failed = SUM(reader, failed);
    if (bad)
        bench_result_problem(r, "%" PRIu64 " records have another content than was written: %s", bad, reader->failure);
    else if (failed) bench_result_problem(r, "consuming failed: %s", reader->failure);
}

static void compare(const bench_run *run, const bench_range *grown, const bench_run *reader, bench_result *r) {
    if (r->failed)
        bench_result_problem(r, "%" PRIu64 " of %" PRIu64 " messages were not delivered: %s", r->failed, r->sent,
                             run->failure);
    else if (r->acked != r->sent)
        bench_result_problem(r, "%" PRIu64 " were sent, %" PRIu64 " acknowledged", r->sent, r->acked);
    if (reader != run) add_read_failures(reader, r);
    compare_partitions(run, grown, reader, r);
    if (r->problem_count == 0) compare_digests(run, reader, r);
    if (r->problem_count && !r->failed && r->read_own > r->acked && r->acked)
        bench_result_problem(r, "more was written than acknowledged: messages were sent again, or written twice; "
                                "-X enable.idempotence=true keeps retries apart");
}

/* ---- the modes -------------------------------------------------------------------------------------------------- */

typedef struct bench {
    const bench_options *options;
    rd_kafka_t *rk; /* for the topic and its offsets */
    bench_range *before, *after;
    bench_result *result;
} bench;

static void *zeroed(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    if (!p) bench_die(BENCH_EXIT_WRONG, "there is no memory");
    return p;
}

static void run_init(bench_run *run, const bench *b, int mode) {
    memset(run, 0, sizeof *run);
    run->options = b->options;
    run->mode = mode;
    run->partitions = b->result->partitions;
    run->parts = zeroed((size_t)run->partitions, sizeof *run->parts);
}

static int smaller(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

/* After it has ended, what the drivers counted. */
static void add_counts(const bench_run *run, bench_result *r) {
    int64_t last = 0;
    r->sent = SUM(run, sent);
    r->acked = SUM(run, acked);
    r->failed = SUM(run, failed);
    r->counted = SUM(run, counted);
    r->counted_bytes = SUM(run, counted_bytes);
    add_latencies(run, &r->latency);
    for (int i = 0; i < run->driver_count; i++)
        if (run->drivers[i].last_ns > last) last = run->drivers[i].last_ns;
    bool whole = run->stop_ns != INT64_MAX && !r->interrupted && !r->failed && !run->options->message_count;
    if (whole && run->mode != BENCH_CONSUME) last = run->stop_ns;
    r->seconds = last > run->warm_ns ? (double)(last - run->warm_ns) / 1e9 : 0;
}

/* Until everything is sent and answered. */
static void watch(bench_run *run, progress *p) {
    while (!all_drained(run)) {
        if (bench_interrupts) run->stop = true;
        look(p);
        tick();
    }
}

static progress *progress_new(const bench_run *run, bench_result *r) {
    progress *p = zeroed(1, sizeof *p);
    p->run = run;
    p->result = r;
    p->shown = run->options->progress || isatty(STDERR_FILENO);
    return p;
}

/* With acks 0 what was sent may still be on its way, and with acks 1 to the replicas, before which it is not served. */
static void query_after(bench *b, uint64_t acked) {
    int64_t began = bench_now_ns();
    for (;;) {
        int64_t grown = 0;
        bench_offsets_query(b->options, b->rk, b->after, b->result->partitions);
        for (int p = 0; p < b->result->partitions; p++) {
            b->after[p].start = b->before[p].end;
            grown += b->after[p].end - b->after[p].start;
        }
        if (b->options->acks == BENCH_ACKS_ALL || grown >= (int64_t)acked || seconds_since(began) > ARRIVE_S) return;
        tick();
    }
}

/* Reads back what lies between the end offsets of before and after, as one consumer. */
static void read_back(bench *b, const bench_run *run) {
    bench_run reader;
    run_init(&reader, b, BENCH_CONSUME);
    reader.id = run->id;
    reader.consumers = 1;
    for (int p = 0; p < run->partitions; p++) reader.parts[p].want = b->after[p];
    bench_load_start(&reader);
    consume_out(&reader, NULL, false);
    bench_run_join(&reader);
    add_parts(&reader, b->result);
    compare(run, b->after, &reader, b->result);
    bench_load_free(&reader);
    free(reader.parts);
}

/* Consumers of a round trip are at the tail before the first message is sent. */
static void settle(const bench_run *run) {
    for (int64_t began = bench_now_ns(); SUM(run, left_at_eof) < SUM(run, left); tick()) {
        if (SUM(run, failed)) bench_die(BENCH_EXIT_WRONG, "consuming failed: %s", run->failure);
        if (seconds_since(began) > SETTLE_S) bench_die(BENCH_EXIT_WRONG, "consumers do not reach the end of the topic");
        if (bench_interrupts) return;
    }
}

/* Everything acknowledged has come, or no more comes. */
static void receive_rest(const bench_run *run, progress *p) {
    uint64_t received = 0, want = SUM(run, acked);
    for (int64_t since = bench_now_ns(); SUM(run, received_own) < want; tick()) {
        uint64_t now = SUM(run, received);
        if (now != received) received = now, since = bench_now_ns();
        bool at_eof = run->options->acks == BENCH_ACKS_ALL && SUM(run, left_at_eof) == SUM(run, left);
        if (seconds_since(since) > (at_eof ? EOF_STALL_S : STALL_S)) return;
        look(p);
    }
}

static void verify(bench *b, const bench_run *run) {
    query_after(b, b->result->acked);
    if (run->mode == BENCH_ROUND_TRIP) {
        add_parts(run, b->result);
        compare(run, b->after, run, b->result);
    } else {
        read_back(b, run);
    }
}

static void produce(bench *b) {
    const bench_options *o = b->options;
    bench_result *r = b->result;
    bool round_trip = o->mode == BENCH_ROUND_TRIP;
    bench_run run;
    run_init(&run, b, (int)o->mode);
    run.id = bench_run_id_new();
    run.producers = (int)o->clients;
    run.consumers = r->consumers = round_trip ? smaller(o->clients, run.partitions) : 0;
    for (int p = 0; p < run.partitions; p++) run.parts[p].want = (bench_range){b->before[p].end, INT64_MAX};
    bench_report_head(o, r);
    bench_load_start(&run);
    if (round_trip) settle(&run);
    progress *watched = progress_new(&run, r);
    double cpu = own_cpu_s();
    bench_run_begin(&run);
    watch(&run, watched);
    r->interrupted = bench_interrupts > 0;
    r->cpu_percent = (own_cpu_s() - cpu) / seconds_since(run.start_ns) * 100;
    if (round_trip) receive_rest(&run, watched);
    bench_run_join(&run);
    add_counts(&run, r);
    if (r->failed && !bench_broker_answers(b->rk)) {
        bench_result_problem(r, "%" PRIu64 " of %" PRIu64 " messages were not delivered: %s", r->failed, r->sent,
                             run.failure);
        bench_result_problem(r, "the broker does not answer any more, so nothing can be compared");
    } else {
        verify(b, &run);
    }
    bench_load_free(&run);
    free(run.parts);
    free(watched);
}

static void compare_consumed(const bench_run *run, const bench_range *ranges, bench_result *r) {
    int differing = 0;
    r->early = false;
    for (int p = 0; p < run->partitions; p++) {
        const bench_partition *part = &run->parts[p];
        int64_t due = (r->interrupted || bench_now_ns() >= run->stop_ns ? part->next : ranges[p].end) - ranges[p].start;
        if (part->next < ranges[p].end) r->early = true;
        r->offsets_grown += ranges[p].end - ranges[p].start;
        if (part->done || part->at_eof) due = ranges[p].end - ranges[p].start;
        if (part->count == due) continue;
        if (++differing <= PARTITIONS_TOLD)
            bench_result_problem(r,
                                 "partition %d: offsets %" PRId64 " to %" PRId64 " are %" PRId64 " records, %" PRId64
                                 " were consumed, the last at %" PRId64
                                 " (a compacted topic, and transactions, leave offsets out)",
                                 p, ranges[p].start, ranges[p].start + due, due, part->count, part->next - 1);
    }
    if (differing > PARTITIONS_TOLD) bench_result_problem(r, "%d more partitions differ", differing - PARTITIONS_TOLD);
}

static void consume(bench *b) {
    const bench_options *o = b->options;
    bench_result *r = b->result;
    bench_run run;
    int64_t records = 0, left = o->message_count ? o->message_count : INT64_MAX;
    run_init(&run, b, BENCH_CONSUME);
    run.consumers = r->consumers = smaller(o->clients, run.partitions);
    for (int p = 0; p < run.partitions; p++) {
        bench_range *range = &b->before[p];
        if (range->end - range->start > left) range->end = range->start + left; /* -n: the first so many */
        left -= range->end - range->start;
        records += range->end - range->start;
        run.parts[p].want = *range;
    }
    if (records == 0)
        bench_die(BENCH_EXIT_WRONG,
                  "topic %s is empty; fill it first: chronik-bench -b %s -t %s -m produce -n 1000000 "
                  "--in-flight 1000 --linger-ms 5",
                  o->topic, o->brokers, o->topic);
    bench_report_head(o, r);
    double cpu = own_cpu_s();
    int64_t began = bench_now_ns();
    bench_load_start(&run);
    progress *watched = progress_new(&run, r);
    consume_out(&run, watched, true);
    r->interrupted = bench_interrupts > 0;
    r->cpu_percent = (own_cpu_s() - cpu) / seconds_since(began) * 100;
    bench_run_join(&run);
    add_counts(&run, r);
    add_parts(&run, r);
    add_read_failures(&run, r);
    compare_consumed(&run, b->before, r);
    bench_load_free(&run);
    free(run.parts);
    free(watched);
}

static void metadata(bench *b) {
    const bench_options *o = b->options;
    bench_result *r = b->result;
    bench_run run;
    run_init(&run, b, BENCH_METADATA);
    run.producers = (int)o->clients;
    bench_report_head(o, r);
    bench_metadata_start(&run);
    progress *watched = progress_new(&run, r);
    double cpu = own_cpu_s();
    bench_run_begin(&run);
    watch(&run, watched);
    r->interrupted = bench_interrupts > 0;
    r->cpu_percent = (own_cpu_s() - cpu) / seconds_since(run.start_ns) * 100;
    bench_run_join(&run);
    add_counts(&run, r);
    if (r->failed)
        bench_result_problem(r, "%" PRIu64 " of %" PRIu64 " requests failed: %s", r->failed, r->sent, run.failure);
    else if (r->acked != r->sent)
        bench_result_problem(r, "%" PRIu64 " were asked, %" PRIu64 " answered", r->sent, r->acked);
    bench_metadata_free(&run);
    free(run.parts);
    free(watched);
}

static int run_bench(const bench_options *o) {
    static void (*const modes[])(bench *) = {produce, consume, produce, metadata};
    bench_result *r = zeroed(1, sizeof *r);
    r->intervals = zeroed(BENCH_INTERVALS_MAX, sizeof *r->intervals);
    bench b = {.options = o, .result = r, .rk = bench_client_new(o, RD_KAFKA_CONSUMER, 1, NULL, NULL)};
    r->partitions = bench_topic_prepare(o, b.rk);
    b.before = zeroed((size_t)r->partitions, sizeof *b.before);
    b.after = zeroed((size_t)r->partitions, sizeof *b.after);
    bench_offsets_query(o, b.rk, b.before, r->partitions);
    modes[o->mode](&b);
    bench_report_text(o, r);
    bool written = !o->csv_output[0] || bench_report_csv(o, r);
    written = (!o->json_output[0] || bench_report_json(o, r)) && written;
    if (o->delete_topic) bench_topic_delete(o, b.rk);
    int code = r->problem_count || !written ? BENCH_EXIT_WRONG : BENCH_EXIT_OK;
    rd_kafka_destroy(b.rk);
    free(b.before);
    free(b.after);
    free(r->intervals);
    free(r);
    return code;
}

int main(int argc, char **argv) {
    bench_options options;
    int code = bench_options_parse(&options, argc, argv);
    if (code >= 0) return code;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    bench_records_init();
    return run_bench(&options);
}
