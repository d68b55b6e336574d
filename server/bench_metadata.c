/* Metadata as load: each client asks for the topic's metadata and waits for the answer, in a thread of its own, since
 * librdkafka offers that only as a call that waits. Request i is due at start + i / rate, for client i mod count;
 * without a rate a client asks again when it has been answered. An answer counts where it names as many partitions as
 * there were. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { CONNECT_TIMEOUT_MS = 30000, FAILURES_MAX = 1000 };

typedef struct bench_client {
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
} client;

static void sleep_until(const bench_run *run, int64_t ns) {
    enum { LOOK_UP_NS = 20000000 };
    for (int64_t now; (now = bench_now_ns()) < ns && !run->stop;) {
        int64_t until = ns < now + LOOK_UP_NS ? ns : now + LOOK_UP_NS;
        struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
}

static rd_kafka_resp_err_t ask(client *c, const bench_run *run, int timeout_ms) {
    const struct rd_kafka_metadata *md;
    rd_kafka_resp_err_t rc = rd_kafka_metadata(c->rk, 0, c->rkt, &md, timeout_ms);
    if (rc) return rc;
    if (md->topic_cnt != 1) rc = RD_KAFKA_RESP_ERR__BAD_MSG;
    else if (md->topics[0].err) rc = md->topics[0].err;
    else if (md->topics[0].partition_cnt != run->partitions) rc = RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
    rd_kafka_metadata_destroy(md);
    return rc;
}

static void one(bench_driver *d, int64_t intended) {
    bench_run *run = d->run;
    bench_counter_add(&d->sent, 1);
    rd_kafka_resp_err_t rc = ask(d->clients, run, (int)run->options->request_timeout_ms);
    int64_t now = bench_now_ns();
    if (rc) {
        bench_counter_add(&d->failed, 1);
        bench_failure_note(run, "%s", rd_kafka_err2str(rc));
        if (bench_counter_get(&d->failed) >= FAILURES_MAX) run->stop = true;
        return;
    }
    bench_counter_add(&d->acked, 1);
    bench_counter_add(&d->events, 1);
    if (intended >= run->warm_ns) bench_histogram_add(&d->latency, now - intended);
    if (now < run->warm_ns || now > run->stop_ns) return;
    bench_counter_add(&d->counted, 1);
    d->last_ns = now;
}

static void *ask_on(void *arg) {
    bench_driver *d = arg;
    bench_run *run = d->run;
    const bench_options *o = run->options;
    while (!run->start_ns && !run->stop) nanosleep(&(struct timespec){0, 1000000}, NULL);
    sleep_until(run, run->start_ns);
    for (uint64_t k = 0; !run->stop; k++) {
        uint64_t i = o->rate_limit ? k * (uint64_t)run->driver_count + (uint64_t)d->index : run->next_sequence++;
        int64_t due =
            o->rate_limit ? run->start_ns + (int64_t)((double)i * 1e9 / (double)o->rate_limit) : bench_now_ns();
        if (due >= run->stop_ns || (o->message_count && i >= (uint64_t)o->message_count)) break;
        sleep_until(run, due);
        if (!run->stop) one(d, due);
    }
    d->drained = true;
    return NULL;
}

void bench_metadata_start(bench_run *run) {
    const bench_options *o = run->options;
    run->driver_count = run->producers;
    run->drivers = calloc((size_t)run->driver_count, sizeof *run->drivers);
    if (!run->drivers) bench_die(BENCH_EXIT_WRONG, "there is no memory");
    pthread_mutex_init(&run->mutex, NULL);
    for (int i = 0; i < run->driver_count; i++) {
        bench_driver *d = &run->drivers[i];
        d->run = run;
        d->index = i;
        d->clients = calloc(1, sizeof *d->clients);
        if (!d->clients) bench_die(BENCH_EXIT_WRONG, "there is no memory");
        d->clients->rk = bench_client_new(o, RD_KAFKA_CONSUMER, run->driver_count, NULL, NULL);
        d->clients->rkt = rd_kafka_topic_new(d->clients->rk, o->topic, NULL);
        if (!d->clients->rkt) bench_die(BENCH_EXIT_WRONG, "topic: %s", rd_kafka_err2str(rd_kafka_last_error()));
    }
    for (int i = 0; i < run->driver_count; i++) {
        rd_kafka_resp_err_t rc = ask(run->drivers[i].clients, run, CONNECT_TIMEOUT_MS);
        if (rc) bench_die(BENCH_EXIT_WRONG, "client %d does not connect: %s", i, rd_kafka_err2str(rc));
        if (pthread_create(&run->drivers[i].thread, NULL, ask_on, &run->drivers[i]))
            bench_die(BENCH_EXIT_WRONG, "no further thread can be had; fewer clients (-c) need fewer");
    }
}

void bench_metadata_free(bench_run *run) {
    for (int i = 0; i < run->driver_count; i++) {
        client *c = run->drivers[i].clients;
        rd_kafka_topic_destroy(c->rkt);
        rd_kafka_destroy(c->rk);
        free(c);
    }
    free(run->drivers);
    pthread_mutex_destroy(&run->mutex);
}
