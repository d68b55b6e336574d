/* The load: producers and consumers, a librdkafka handle each, served by a few drivers.
 *
 * A driver is a thread with some of the clients. It sleeps until librdkafka has something for one of them (a callback
 * puts the client on its driver's list of those that are ready) or until the next message is due. So a hundred clients
 * cost no threads but librdkafka's own, and under load one wake-up serves many.
 *
 * Closed loop (no --rate-limit): each producer has --in-flight messages underway; an acknowledgement makes room for
 * one. Constant rate: message i is due at start + i / rate; driver d of D sends those with i mod D = d, its producers
 * by turns. One that finds no room is tried again, and stays due when it was.
 *
 * Invariants: outstanding counts what was handed to librdkafka and has no delivery report yet, for a driver and for
 * each producer. A driver holds its mutex around the list alone, and never while it calls librdkafka, whose callback
 * takes it. */
#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    DRIVERS_MAX = 16,
    TURN_MESSAGES = 256, /* sent before reports are looked at again */
    CONSUME_BATCH = 1000,
    PACE_MIN_NS = 100000,  /* shortest sleep at a constant rate */
    LOOK_UP_NS = 20000000, /* longest sleep: whether the run ends */
    START_DELAY_NS = 20000000,
    LOOK_OUT_NS = 5000000, /* it starts at a time that each driver hears of before */
    FAILURES_MAX = 1000,   /* then there is no sense in sending more */
    CONNECT_TIMEOUT_MS = 30000,
};

typedef struct bench_client {
    bench_driver *driver;
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
    rd_kafka_queue_t *queue;
    bool consumes, ready;  /* ready: is on the driver's list; under its mutex */
    int number, partition; /* partition: of its next message */
    uint64_t outstanding;
    uint64_t held;                     /* a sequence number that found no room, plus one; or 0 */
    struct bench_client *next_ready;   /* under the mutex */
    struct bench_client *next_served;  /* in the list that the driver took: meanwhile it may be ready again */
    struct bench_client *next;         /* of the driver */
    struct bench_client *next_in_turn; /* a ring of its producers */
} client;

void bench_failure_note(bench_run *run, const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&run->mutex);
    if (!run->failure[0]) vsnprintf(run->failure, sizeof run->failure, format, args);
    pthread_mutex_unlock(&run->mutex);
    va_end(args);
}

void bench_run_begin(bench_run *run) {
    const bench_options *o = run->options;
    pthread_mutex_lock(&run->mutex);
    if (!run->start_ns) {
        int64_t start = bench_now_ns() + (run->producers ? START_DELAY_NS : 0), warm = start + o->warmup_ms * 1000000;
        run->stop_ns = o->duration_ms ? warm + o->duration_ms * 1000000 : INT64_MAX;
        run->warm_ns = warm;
        run->start_ns = start; /* last: now the others count */
    }
    pthread_mutex_unlock(&run->mutex);
}

/* ---- being woken ------------------------------------------------------------------------------------------------ */

static void make_ready(client *c) {
    bench_driver *d = c->driver;
    pthread_mutex_lock(&d->mutex);
    if (!c->ready) {
        c->ready = true;
        c->next_ready = NULL;
        if (d->ready_first) d->ready_last->next_ready = c;
        else d->ready_first = c, pthread_cond_signal(&d->wake);
        d->ready_last = c;
    }
    pthread_mutex_unlock(&d->mutex);
}

/* From a thread of librdkafka's, when the queue was empty and is not any more. */
static void on_event(rd_kafka_t *rk, void *opaque) {
    (void)rk;
    make_ready(opaque);
}

static struct timespec timespec_of(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* All that are ready, as a list; where none is, sleeps for one until `until_ns`. */
static client *wait_ready(bench_driver *d, int64_t until_ns) {
    struct timespec until = timespec_of(until_ns);
    pthread_mutex_lock(&d->mutex);
    if (!d->ready_first) pthread_cond_timedwait(&d->wake, &d->mutex, &until); /* one in vain does no harm */
    client *list = d->ready_first;
    d->ready_first = d->ready_last = NULL;
    for (client *c = list; c; c = c->next_ready) {
        c->ready = false;
        c->next_served = c->next_ready;
    }
    pthread_mutex_unlock(&d->mutex);
    return list;
}

/* ---- producing -------------------------------------------------------------------------------------------------- */

static void count_event(bench_driver *d, int64_t now, int64_t bytes) {
    const bench_run *run = d->run;
    bench_counter_add(&d->events, 1);
    if (now < run->warm_ns || now > run->stop_ns) return;
    bench_counter_add(&d->counted, 1);
    bench_counter_add(&d->counted_bytes, (uint64_t)bytes);
    atomic_store_explicit(&d->last_ns, now, memory_order_relaxed);
}

static void fail(bench_driver *d, rd_kafka_resp_err_t rc) {
    bench_counter_add(&d->failed, 1);
    bench_failure_note(d->run, "%s", rd_kafka_err2str(rc));
    if (bench_counter_get(&d->failed) >= FAILURES_MAX) d->run->stop = true;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    (void)rk;
    client *c = opaque;
    bench_driver *d = c->driver;
    bench_run *run = d->run;
    uint64_t sequence;
    int64_t intended;
    c->outstanding--;
    d->outstanding--;
    if (m->err) {
        fail(d, m->err);
        return;
    }
    bench_record_peek(m->payload, &sequence, &intended);
    bench_counter_add(&d->acked, 1);
    d->acked_of[m->partition]++;
    d->acked_digest += bench_record_digest(sequence, m->partition, run->options->acks ? m->offset : 0);
    if (run->mode != BENCH_PRODUCE) return; /* the consumer measures */
    int64_t now = bench_now_ns();
    if (intended >= run->warm_ns) bench_histogram_add(&d->latency, now - intended);
    count_event(d, now, (int64_t)m->len);
}

/* False where there is no room now. */
static bool send_one(client *c, uint64_t sequence, int64_t intended_ns) {
    bench_driver *d = c->driver;
    bench_run *run = d->run;
    size_t size = (size_t)run->options->size_bytes;
    bench_record_make(d->scratch, size, run->id, sequence, intended_ns);
    if (rd_kafka_produce(c->rkt, c->partition, RD_KAFKA_MSG_F_COPY, d->scratch, size, NULL, 0, NULL)) {
        rd_kafka_resp_err_t rc = rd_kafka_last_error();
        if (rc == RD_KAFKA_RESP_ERR__QUEUE_FULL) return false;
        fail(d, rc);
        run->stop = true; /* no later one would fare better */
        return true;
    }
    bench_counter_add(&d->sent, 1);
    d->outstanding++;
    c->outstanding++;
    c->partition = c->partition + 1 == run->partitions ? 0 : c->partition + 1;
    return true;
}

/* Closed loop: what this producer may have underway more. */
static void fill(client *c) {
    bench_driver *d = c->driver;
    bench_run *run = d->run;
    uint64_t in_flight = (uint64_t)run->options->in_flight, limit = (uint64_t)run->options->message_count;
    int sent = 0;
    for (; d->sending && c->outstanding < in_flight && sent < TURN_MESSAGES; sent++) {
        int64_t now = bench_now_ns();
        uint64_t sequence =
            c->held ? c->held - 1 : atomic_fetch_add_explicit(&run->next_sequence, 1, memory_order_relaxed);
        c->held = 0;
        if (now >= run->stop_ns || run->stop || (limit && sequence >= limit)) {
            d->sending = false;
        } else if (!send_one(c, sequence, now)) {
            c->held = sequence + 1; /* a delivery report makes room */
            break;
        }
    }
    if (sent == TURN_MESSAGES) make_ready(c);
}

/* Constant rate: what is due. Returns when there is more to do. */
static int64_t send_due(bench_driver *d, int64_t now) {
    bench_run *run = d->run;
    const bench_options *o = run->options;
    for (int sent = 0; d->sending; sent++) {
        uint64_t i = d->planned * (uint64_t)run->driver_count + (uint64_t)d->index;
        int64_t due = run->start_ns + (int64_t)((double)i * 1e9 / (double)o->rate_limit);
        if (due >= run->stop_ns || run->stop || (o->message_count && i >= (uint64_t)o->message_count)) {
            d->sending = false;
            break;
        }
        if (due > now) return due > now + PACE_MIN_NS ? due : now + PACE_MIN_NS;
        if (sent == TURN_MESSAGES) return 0;
        if (!send_one(d->turn, i, due)) return now + PACE_MIN_NS;
        d->turn = d->turn->next_in_turn;
        d->planned++;
    }
    return INT64_MAX;
}

/* ---- consuming -------------------------------------------------------------------------------------------------- */

static void part_done(bench_driver *d, bench_partition *part) {
    part->done = true;
    bench_counter_add(&d->left, (uint64_t)-1);
    if (part->at_eof) bench_counter_add(&d->left_at_eof, (uint64_t)-1);
}

static void set_at_eof(bench_driver *d, bench_partition *part, bool at_eof) {
    if (part->done || part->at_eof == at_eof) return;
    part->at_eof = at_eof;
    bench_counter_add(&d->left_at_eof, at_eof ? 1 : (uint64_t)-1);
}

static void on_record(bench_driver *d, bench_partition *part, const rd_kafka_message_t *m, int64_t now) {
    bench_run *run = d->run;
    uint64_t sequence;
    int64_t intended;
    set_at_eof(d, part, false);
    part->count++;
    bench_counter_add(&d->received, 1);
    if (!d->first_ns) atomic_store_explicit(&d->first_ns, now, memory_order_relaxed);
    switch (bench_record_read(m->payload, m->len, run->id, &sequence, &intended)) {
    case BENCH_RECORD_BAD:
        bench_counter_add(&d->bad, 1);
        bench_failure_note(run, "partition %d, offset %lld", m->partition, (long long)m->offset);
        break;
    case BENCH_RECORD_OWN:
        part->own++;
        bench_counter_add(&d->received_own, 1);
        d->received_digest += bench_record_digest(sequence, m->partition, run->options->acks ? m->offset : 0);
        if (run->mode != BENCH_ROUND_TRIP) break;
        if (intended >= run->warm_ns) bench_histogram_add(&d->latency, now - intended);
        count_event(d, now, (int64_t)m->len);
        break;
    case BENCH_RECORD_OTHER_RUN:
    case BENCH_RECORD_FOREIGN: part->foreign++; break;
    }
    if (run->mode == BENCH_CONSUME && run->start_ns) count_event(d, now, (int64_t)m->len);
}

static void on_message(client *c, const rd_kafka_message_t *m, int64_t now) {
    bench_driver *d = c->driver;
    bench_partition *part = &d->run->parts[m->partition];
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (m->offset >= part->want.end && !part->done) part_done(d, part); /* the last offsets hold no records */
        set_at_eof(d, part, true);
        return;
    }
    if (m->err) {
        bench_failure_note(d->run, "partition %d: %s", m->partition, rd_kafka_message_errstr(m));
        bench_counter_add(&d->failed, 1);
        return;
    }
    if (part->done || m->offset < part->next) return; /* beyond the end; before the start of a compressed batch */
    if (m->offset < part->want.end) {
        part->next = m->offset + 1;
        on_record(d, part, m, now);
    }
    if (m->offset + 1 >= part->want.end) part_done(d, part);
}

static void consume(client *c) {
    static _Thread_local rd_kafka_message_t *batch[CONSUME_BATCH];
    ssize_t n = rd_kafka_consume_batch_queue(c->queue, 0, batch, CONSUME_BATCH);
    for (ssize_t i = 0; i < n; i++) {
        on_message(c, batch[i], bench_now_ns());
        rd_kafka_message_destroy(batch[i]);
    }
    if (n <= 0) return;
    if (c->driver->run->mode == BENCH_CONSUME) bench_run_begin(c->driver->run);
    make_ready(c); /* nobody tells of what came meanwhile */
}

/* ---- drivers ---------------------------------------------------------------------------------------------------- */

static void serve(client *c) {
    if (c->consumes) {
        consume(c);
        return;
    }
    rd_kafka_poll(c->rk, 0); /* delivers all reports that there are */
    if (c->driver->run->start_ns && !c->driver->run->options->rate_limit) fill(c);
}

static void begin_sending(bench_driver *d) {
    d->sending = d->turn != NULL;
    if (d->run->options->rate_limit) return;
    for (client *c = d->clients; c; c = c->next)
        if (!c->consumes) make_ready(c);
}

static void *drive(void *arg) {
    bench_driver *d = arg;
    bench_run *run = d->run;
    bool begun = false;
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    for (int64_t until = 0; !run->finish;) {
        for (client *c = wait_ready(d, until); c; c = c->next_served) serve(c);
        int64_t now = bench_now_ns();
        if (!begun) {
            int64_t start = run->start_ns;
            until = start && start < now + LOOK_OUT_NS ? start : now + LOOK_OUT_NS;
            if (!start || now < start) continue;
            begun = true;
            begin_sending(d);
        }
        until = now + LOOK_UP_NS;
        if (run->options->rate_limit && d->sending) {
            int64_t due = send_due(d, now);
            if (due < until) until = due;
        } else if (now >= run->stop_ns || run->stop) {
            d->sending = false;
        }
        d->drained = !d->sending && d->outstanding == 0;
    }
    return NULL;
}

/* ---- start and end ---------------------------------------------------------------------------------------------- */

static void producer_new(bench_run *run, client *c) {
    c->rk = bench_client_new(run->options, RD_KAFKA_PRODUCER, run->producers, c, on_delivery);
    c->queue = rd_kafka_queue_get_main(c->rk);
    c->partition = c->number % run->partitions;
}

/* Has it connected to the leader of its first partition. */
static void producer_connect(bench_run *run, client *c) {
    int64_t low, high;
    rd_kafka_resp_err_t rc =
        rd_kafka_query_watermark_offsets(c->rk, run->options->topic, c->partition, &low, &high, CONNECT_TIMEOUT_MS);
    if (rc) bench_die(BENCH_EXIT_WRONG, "producer %d does not connect: %s", c->number, rd_kafka_err2str(rc));
    rd_kafka_queue_cb_event_enable(c->queue, on_event, c);
}

static void consumer_start(bench_run *run, client *c) {
    c->rk = bench_client_new(run->options, RD_KAFKA_CONSUMER, run->consumers, c, NULL);
    c->queue = rd_kafka_queue_new(c->rk);
    c->rkt = rd_kafka_topic_new(c->rk, run->options->topic, NULL);
    if (!c->rkt)
        bench_die(BENCH_EXIT_WRONG, "topic %s: %s", run->options->topic, rd_kafka_err2str(rd_kafka_last_error()));
    rd_kafka_queue_cb_event_enable(c->queue, on_event, c);
    for (int p = c->number; p < run->partitions; p += run->consumers) {
        bench_partition *part = &run->parts[p];
        part->next = part->want.start;
        if (part->want.start >= part->want.end) {
            part->done = true;
            continue;
        }
        bench_counter_add(&c->driver->left, 1);
        if (rd_kafka_consume_start_queue(c->rkt, p, part->want.start, c->queue))
            bench_die(BENCH_EXIT_WRONG, "partition %d: %s", p, rd_kafka_err2str(rd_kafka_last_error()));
    }
}

static int drivers_wanted(const bench_run *run) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN) / 2;
    int n = cpus < 1 ? 1 : cpus > DRIVERS_MAX ? DRIVERS_MAX : (int)cpus;
    int clients = run->producers ? run->producers : run->consumers ? run->consumers : 1;
    return n < clients ? n : clients;
}

static void driver_init(bench_run *run, bench_driver *d, int index) {
    pthread_condattr_t attributes;
    d->run = run;
    d->index = index;
    d->scratch = malloc((size_t)run->options->size_bytes);
    d->acked_of = calloc((size_t)run->partitions, sizeof *d->acked_of);
    if (!d->scratch || !d->acked_of) bench_die(BENCH_EXIT_WRONG, "there is no memory");
    pthread_mutex_init(&d->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static client *client_add(bench_run *run, int number, bool consumes) {
    bench_driver *d = &run->drivers[number % run->driver_count];
    client *c = calloc(1, sizeof *c);
    if (!c) bench_die(BENCH_EXIT_WRONG, "there is no memory");
    c->driver = d;
    c->number = number;
    c->consumes = consumes;
    c->next = d->clients;
    d->clients = c;
    return c;
}

static void take_turns(client *c) {
    bench_driver *d = c->driver;
    if (!d->turn) d->turn = c->next_in_turn = c;
    c->next_in_turn = d->turn->next_in_turn;
    d->turn->next_in_turn = c;
}

static void producers_start(bench_run *run) {
    for (int i = 0; i < run->producers; i++) producer_new(run, client_add(run, i, false)); /* all connect at once */
    for (int i = 0; i < run->driver_count; i++)
        for (client *c = run->drivers[i].clients; c; c = c->next) {
            if (c->consumes) continue;
            c->rkt = rd_kafka_topic_new(c->rk, run->options->topic, NULL);
            if (!c->rkt) bench_die(BENCH_EXIT_WRONG, "topic: %s", rd_kafka_err2str(rd_kafka_last_error()));
            producer_connect(run, c);
            take_turns(c);
        }
}

void bench_load_start(bench_run *run) {
    run->driver_count = drivers_wanted(run);
    run->drivers = calloc((size_t)run->driver_count, sizeof *run->drivers);
    if (!run->drivers) bench_die(BENCH_EXIT_WRONG, "there is no memory");
    pthread_mutex_init(&run->mutex, NULL);
    for (int i = 0; i < run->driver_count; i++) driver_init(run, &run->drivers[i], i);
    for (int i = 0; i < run->consumers; i++) consumer_start(run, client_add(run, i, true));
    producers_start(run);
    for (int i = 0; i < run->driver_count; i++)
        if (pthread_create(&run->drivers[i].thread, NULL, drive, &run->drivers[i]))
            bench_die(BENCH_EXIT_WRONG, "no further thread can be had");
}

void bench_run_join(bench_run *run) {
    run->stop = run->finish = true;
    for (int i = 0; i < run->driver_count; i++) pthread_join(run->drivers[i].thread, NULL);
}

static void client_free(client *c, const bench_run *run) {
    if (!c) return;
    rd_kafka_queue_cb_event_enable(c->queue, NULL, NULL);
    if (c->consumes)
        for (int p = c->number; p < run->partitions; p += run->consumers) rd_kafka_consume_stop(c->rkt, p);
    rd_kafka_queue_destroy(c->queue);
    rd_kafka_topic_destroy(c->rkt);
    rd_kafka_destroy(c->rk);
    free(c);
}

void bench_load_free(bench_run *run) {
    for (int i = 0; i < run->driver_count; i++) {
        bench_driver *d = &run->drivers[i];
        for (client *c = d->clients, *next; c; c = next) {
            next = c->next;
            client_free(c, run);
        }
        pthread_cond_destroy(&d->wake);
        pthread_mutex_destroy(&d->mutex);
        free(d->scratch);
        free(d->acked_of);
    }
    free(run->drivers);
    pthread_mutex_destroy(&run->mutex);
}
