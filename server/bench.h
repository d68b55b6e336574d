/* chronik-bench's parts; chronik-bench.c says how they work together.
 *
 * Threads: the first one plans, watches and reports. Drivers (bench_load.c) or, for metadata, one thread for each
 * client (bench_metadata.c) do the work; each writes the counters of its own bench_driver, and any thread may read
 * them. What is no counter in it belongs to its thread until that has been joined. */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <librdkafka/rdkafka.h>

enum { BENCH_EXIT_OK = 0, BENCH_EXIT_WRONG = 1, BENCH_EXIT_USAGE = 2, BENCH_EXIT_NOW = 130 };

/* ---- options ---------------------------------------------------------------------------------------------------- */

enum { BENCH_PRODUCE, BENCH_CONSUME, BENCH_ROUND_TRIP, BENCH_METADATA }; /* in the order of their names */
enum { BENCH_ACKS_NONE, BENCH_ACKS_LEADER, BENCH_ACKS_ALL };
enum { BENCH_PROPERTIES_MAX = 64 };

typedef struct bench_options {
    const char *brokers, *topic, *csv_output, *json_output;
    int64_t clients, size_bytes, in_flight, message_count, rate_limit, partitions, replication; /* 0: no limit */
    int64_t duration_ms, warmup_ms, linger_ms, batch_bytes, request_timeout_ms, message_timeout_ms, report_interval_s;
    int64_t mode, compression, acks; /* an index of its choices */
    bool create_topic, delete_topic, progress, verbose;
    bool duration_given, partitions_given, warmup_given;
    const char *properties[BENCH_PROPERTIES_MAX]; /* NAME=VALUE of librdkafka */
    int property_count;
} bench_options;

extern const char *const bench_modes[], *const bench_codecs[], *const bench_acks[];

/* Flags over variables over defaults. Returns -1 to go on, or an exit code after it has said why, or printed help. */
int bench_options_parse(bench_options *o, int argc, char **argv);

/* ---- histograms ------------------------------------------------------------------------------------------------- */

/* Log-linear buckets of nanoseconds: 128 for each power of two, so a value is known to 0.8 %. From 2^40 ns (18 minutes)
 * on all fall into the last one; the maximum is exact. */
enum { BENCH_SUB_BITS = 7, BENCH_VALUE_BITS = 40 };
enum { BENCH_BUCKETS = (BENCH_VALUE_BITS - BENCH_SUB_BITS + 1) << BENCH_SUB_BITS };

typedef struct bench_histogram { /* written by one thread, read by any */
    _Atomic uint64_t buckets[BENCH_BUCKETS], sum_ns, max_ns;
} bench_histogram;

typedef struct bench_distribution { /* what was read of some histograms, added up */
    uint64_t buckets[BENCH_BUCKETS], count, sum_ns, max_ns;
} bench_distribution;

void bench_histogram_add(bench_histogram *h, int64_t ns); /* a negative one counts as 0 */
void bench_distribution_add(bench_distribution *d, const bench_histogram *h);
/* The smallest bucket's upper bound that the share q of the values does not exceed; 0 where there are none. */
uint64_t bench_distribution_quantile(const bench_distribution *d, double q);
/* The same of what came after `before`, which must have been read earlier. */
uint64_t bench_distribution_quantile_since(const bench_distribution *d, const bench_distribution *before, double q);
uint64_t bench_bucket_lower_ns(int bucket);
uint64_t bench_bucket_upper_ns(int bucket);

/* ---- records ---------------------------------------------------------------------------------------------------- */

enum { BENCH_RECORD_MIN = 24 };

typedef enum bench_record_kind {
    BENCH_RECORD_OWN,
    BENCH_RECORD_OTHER_RUN,
    BENCH_RECORD_FOREIGN,
    BENCH_RECORD_BAD
} bench_record_kind;

void bench_records_init(void); /* once, before any of the others */
uint64_t bench_run_id_new(void);
void bench_record_make(unsigned char *p, size_t len, uint64_t run_id, uint64_t sequence, int64_t intended_ns);
/* Of one that was made here. */
void bench_record_peek(const unsigned char *p, uint64_t *ret_sequence, int64_t *ret_intended_ns);
/* BAD: it says that it is of some run, but its content is not what such a record holds. */
bench_record_kind bench_record_read(const unsigned char *p, size_t len, uint64_t run_id, uint64_t *ret_sequence,
                                    int64_t *ret_intended_ns);
/* Summed up over records in any order, two sums agree only where the records do. */
uint64_t bench_record_digest(uint64_t sequence, int32_t partition, int64_t offset);

/* ---- the broker ------------------------------------------------------------------------------------------------- */

enum { BENCH_PARTITIONS_MAX = 100000 };

typedef struct bench_range {
    int64_t start, end; /* offsets; end is exclusive */
} bench_range;

_Noreturn void bench_die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A handle, or the program ends with a sentence. `opaque` is for callbacks; on_delivery is NULL for consumers. */
rd_kafka_t *bench_client_new(const bench_options *o, rd_kafka_type_t type, int clients, void *opaque,
                             void (*on_delivery)(rd_kafka_t *, const rd_kafka_message_t *, void *));
/* Finds the topic, or makes it where that was asked for. Ends the program where it is not there. Returns its
 * partitions. */
int bench_topic_prepare(const bench_options *o, rd_kafka_t *rk);
void bench_topic_delete(const bench_options *o, rd_kafka_t *rk);
/* After a load: is there still somebody to ask. */
bool bench_broker_answers(rd_kafka_t *rk);
/* Low and high watermark of each partition. */
void bench_offsets_query(const bench_options *o, rd_kafka_t *rk, bench_range *ranges, int partitions);

/* ---- a run ------------------------------------------------------------------------------------------------------ */

typedef struct bench_partition { /* as a consumer sees it; belongs to the driver of that consumer */
    bench_range want;            /* end: INT64_MAX where it is not known yet */
    int64_t next, count, own, foreign;
    bool at_eof, done;
} bench_partition;

typedef struct bench_counter {
    _Atomic uint64_t value;
} bench_counter;

static inline uint64_t bench_counter_get(const bench_counter *c) {
    return atomic_load_explicit(&c->value, memory_order_relaxed);
}
static inline void bench_counter_add(bench_counter *c, uint64_t n) { /* by its owner alone */
    atomic_store_explicit(&c->value, bench_counter_get(c) + n, memory_order_relaxed);
}

struct bench_client;
struct bench_run;

typedef struct bench_driver {
    struct bench_run *run;
    int index;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct bench_client *ready_first, *ready_last; /* under the mutex */
    struct bench_client *clients;                  /* of this driver */
    struct bench_client *turn;                     /* whose message is the next one, at a constant rate */
    uint64_t planned, outstanding;
    bool sending;
    unsigned char *scratch;

    bench_histogram latency; /* of messages intended after the warm-up */
    /* Of the whole run: sent, acknowledged, failed, received (own ones and others'). `counted` and `counted_bytes` are
     * of the time that is measured; `events` are what progress shows. */
    bench_counter sent, acked, failed, received, received_own, counted, counted_bytes, events, bad;
    bench_counter left, left_at_eof;   /* partitions not yet read to their end; those of them where nothing more came */
    _Atomic bool drained;              /* sends nothing more, and waits for no answer */
    _Atomic int64_t first_ns, last_ns; /* of counted events; first_ns: of any received */
    int64_t *acked_of;                 /* for each partition */
    uint64_t acked_digest, received_digest;
} bench_driver;

/* One load on the broker: drivers, and what they have to do. Made, started, watched and ended by the first thread. */
typedef struct bench_run {
    const bench_options *options;
    int mode; /* of this load: verification consumes, whatever options->mode is */
    uint64_t id;
    int partitions, producers, consumers, driver_count;
    bench_driver *drivers;
    bench_partition *parts; /* where it consumes */
    _Atomic uint64_t next_sequence;
    _Atomic int64_t start_ns;         /* 0: not yet */
    _Atomic int64_t warm_ns, stop_ns; /* when measuring begins, and sending ends; 0: not known yet, INT64_MAX: never */
    _Atomic bool stop, finish;        /* send no more; end */
    pthread_mutex_t mutex;
    char failure[256]; /* the first one; under the mutex */
} bench_run;

extern volatile int bench_interrupts; /* how often SIGINT or SIGTERM came */

int64_t bench_now_ns(void); /* monotonic */
void bench_failure_note(bench_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Producers and consumers for `run`, which says how many; connects them. Consumers read `parts`. */
void bench_load_start(bench_run *run);
void bench_metadata_start(bench_run *run);
/* The clock runs from now on. */
void bench_run_begin(bench_run *run);
/* Ends its threads; counters and parts remain. */
void bench_run_join(bench_run *run);
void bench_load_free(bench_run *run);
void bench_metadata_free(bench_run *run);

/* ---- results ---------------------------------------------------------------------------------------------------- */

enum { BENCH_INTERVALS_MAX = 100000, BENCH_PROBLEMS_MAX = 16 };

typedef struct bench_interval {
    double at_s; /* its end, since the start */
    double per_s;
    uint64_t p50_ns, p99_ns, failed;
} bench_interval;

typedef struct bench_result {
    int partitions, consumers;
    double seconds, cpu_percent; /* of the time that is measured; of one processor, by this program, in the run */
    uint64_t sent, acked, failed, counted, counted_bytes, read, read_own;
    int64_t offsets_grown; /* over all partitions */
    bool interrupted, early;
    bench_distribution latency;
    bench_interval *intervals;
    int interval_count;
    char problems[BENCH_PROBLEMS_MAX][320];
    int problem_count; /* all of them, also those that found no room */
} bench_result;

void bench_result_problem(bench_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bench_report_head(const bench_options *o, const bench_result *r);
void bench_report_text(const bench_options *o, const bench_result *r);
/* Both return false where the file cannot be written, after they have said so. */
bool bench_report_csv(const bench_options *o, const bench_result *r);
bool bench_report_json(const bench_options *o, const bench_result *r);

#endif
