/* A broker over a real WAL, in a directory of its own, with one thread for each shard: what the broker's tests share.
 *
 * Shard 0's loop runs on the test's thread while it waits; the others have threads. An operation is started on any
 * shard by on_shard(), and waited for by world_wait(). */
#ifndef BROKER_WORLD_H
#define BROKER_WORLD_H

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/list.h"
#include "base/mem.h"
#include "broker/broker.h"
#include "codec/codec.h"
#include "io/event.h"
#include "record/record.h"

enum { SHARDS_MAX = 4 };

typedef struct world {
    char dir[64], wal_dir[80];
    size_t shard_count;
    chronik_io *io;
    void (*io_made)(chronik_io *io); /* or NULL */
    cnk_event_loop *loops[SHARDS_MAX];
    const chronik_loop *loop_of[SHARDS_MAX];
    pthread_t threads[SHARDS_MAX];
    cnk_wal *wal;
    cnk_wal_options wal_options;
    bool with_tier;
    cnk_tier *tier;
    cnk_tier_options tier_options;
    char pack_dir[80];
    atomic_int tier_drained, tier_pauses;
    cnk_broker_options options;
    cnk_broker *broker;
    atomic_int ready, stopped, notices, fenced, dropped;
    char notice[256];
    int stop_code;
} world;

typedef struct call { /* something that runs on a shard, and is over when `over` is set */
    chronik_post post;
    world *w;
    cnk_shard *shard;
    int (*start)(struct call *c);
    int rc;
    atomic_int over;
    void *op;
} call;

static void world_poke(world *w) { cnk_event_loop_stop(w->loops[0]); }

static void on_ready(void *arg) {
    world *w = arg;
    w->ready = 1;
    world_poke(w);
}
static void on_notice(void *arg, int code, const char *text) {
    world *w = arg;
    (void)code;
    if (w->notices++ == 0) snprintf(w->notice, sizeof w->notice, "%s", text); /* the first one's; any thread */
}
static void on_fence(void *arg, const chronik_error *why) {
    world *w = arg;
    snprintf(w->notice, sizeof w->notice, "fenced: %s", why->text);
    w->fenced++;
    world_poke(w);
}
static void on_sealed(void *arg, uint32_t file_seq) {
    world *w = arg;
    if (w->tier) cnk_tier_sealed(w->tier, file_seq);
}
static void on_tier_paused(void *arg, const chronik_error *why) {
    world *w = arg;
    (void)why;
    w->tier_pauses++;
}
static void on_tier_resumed(void *arg) { (void)arg; }
static void on_tier_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    (void)arg, (void)stream;
    ck_abort_msg("damaged: %s", what->text);
}
static void on_tier_drained(void *arg) {
    world *w = arg;
    w->tier_drained = 1;
    world_poke(w);
}
static void on_dropped(void *arg, uint64_t stream) {
    world *w = arg;
    (void)stream;
    w->dropped++;
}
static void on_stopped(void *arg, int code) {
    world *w = arg;
    w->stop_code = code;
    w->stopped = 1;
    world_poke(w);
}

static inline void world_wait(world *w, atomic_int *flag) {
    while (!*flag) cnk_event_loop_run(w->loops[0]);
}

static inline void *loop_thread(void *arg) {
    cnk_event_loop_run(arg);
    return NULL;
}

/* All that the broker needs, without a tier. */
static inline void world_open_parts(world *w) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &w->io), 0);
    if (w->io_made) w->io_made(w->io);
    for (size_t i = 0; i < w->shard_count; i++) {
        ck_assert_int_eq(cnk_event_loop_new(NULL, NULL, &w->loops[i]), 0);
        w->loop_of[i] = cnk_event_loop_get(w->loops[i]);
    }
    w->wal_options.dir = w->wal_dir;
    ck_assert_msg(cnk_wal_open(w->io, &w->wal_options, NULL, NULL, &err, &w->wal) == 0, "%s", err.text);
    w->ready = w->stopped = w->fenced = w->notices = w->dropped = 0;
    w->options.loops = w->loop_of;
    w->options.shard_count = w->shard_count;
    w->options.ready = on_ready;
    w->options.notice = on_notice;
    w->options.fenced = on_fence;
    w->options.dropped = on_dropped;
    w->options.hook_arg = w;
    w->options.sealed = on_sealed;
}

static inline int world_try_open(world *w, chronik_error *err) {
    int rc;
    world_open_parts(w);
    if (w->with_tier) {
        static const cnk_tier_events events = {on_tier_paused, on_tier_resumed, on_tier_damaged, NULL, NULL};
        w->tier_options.dir = w->pack_dir;
        rc = cnk_tier_open(w->io, w->wal, &w->tier_options, &events, w, err, &w->tier);
        ck_assert_msg(rc == 0, "%s", err->text);
        w->options.tier = w->tier;
        w->options.cold = cnk_tier_cold(w->tier);
    }
    rc = cnk_broker_open(w->io, w->wal, &w->options, err, &w->broker);
    if (rc == 0 && w->tier) cnk_tier_start(w->tier);
    return rc;
}

static inline void world_open(world *w) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int rc = world_try_open(w, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
    for (size_t i = 1; i < w->shard_count; i++)
        ck_assert_int_eq(pthread_create(&w->threads[i], NULL, loop_thread, w->loops[i]), 0);
    world_wait(w, &w->ready);
}

static inline void world_new(world *w, size_t shards) {
    *w = (world){.shard_count = shards};
    strcpy(w->dir, "/tmp/chronik-broker-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->wal_dir, sizeof w->wal_dir, "%s/wal", w->dir);
    snprintf(w->pack_dir, sizeof w->pack_dir, "%s/packs", w->dir);
    w->tier_options = (cnk_tier_options)CNK_TIER_OPTIONS_INIT;
    w->wal_options = (cnk_wal_options)CNK_WAL_OPTIONS_INIT;
    w->wal_options.file_bytes = 4u << 20;
    w->wal_options.budget_bytes = 64u << 20;
    w->options = (cnk_broker_options)CNK_BROKER_OPTIONS_INIT;
    memset(w->options.directory_id.bytes, 7, 16);
    world_open(w);
}

static inline void world_close_rest(world *w) {
    cnk_broker_free(w->broker);
    cnk_tier_free(w->tier);
    w->tier = NULL;
    w->options.tier = NULL;
    w->options.cold = NULL;
    cnk_wal_free(w->wal);
    for (size_t i = 0; i < w->shard_count; i++) cnk_event_loop_free(w->loops[i]);
    chronik_io_posix_free(w->io);
    w->broker = NULL;
    w->wal = NULL;
}

static inline void world_close(world *w) {
    w->tier_drained = 0;
    if (w->tier) {
        cnk_tier_drain(w->tier, on_tier_drained, w);
        world_wait(w, &w->tier_drained);
    }
    cnk_broker_stop(w->broker, on_stopped, w);
    world_wait(w, &w->stopped);
    for (size_t i = 1; i < w->shard_count; i++) {
        cnk_event_loop_stop(w->loops[i]);
        pthread_join(w->threads[i], NULL);
    }
    cnk_event_loop_stop(w->loops[0]); /* one more turn for messages on their way */
    cnk_event_loop_run(w->loops[0]);
    world_close_rest(w);
}

static inline void world_free(world *w) {
    char command[128];
    world_close(w);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    ck_assert_int_eq(system(command), 0);
}

static inline void world_reopen(world *w) {
    world_close(w);
    world_open(w);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static inline void call_over(call *c) {
    world *w = c->w;
    c->over = 1; /* the call may be gone from here on */
    world_poke(w);
}

static inline void call_run(chronik_post *post) {
    call *c = CNK_CONTAINER(post, call, post);
    c->rc = c->start(c);
    if (c->rc != CNK_PENDING) call_over(c);
}

static inline void call_begin(world *w, size_t shard, call *c, int (*start)(call *c), void *op) {
    *c = (call){.w = w, .shard = cnk_broker_shard(w->broker, shard), .start = start, .op = op};
    c->post.run = call_run;
    const chronik_loop *loop = w->loop_of[shard];
    loop->ops->post(loop->self, &c->post);
}

static inline int call_wait(call *c) {
    world_wait(c->w, &c->over);
    return c->rc < 0 ? c->rc : 0;
}

#define DONE(name, type)                                                                                               \
    static inline void name(type *op) { call_over(op->arg); }
DONE(produce_done, cnk_produce)
DONE(fetch_done, cnk_fetch)
DONE(list_done, cnk_list_offsets)
DONE(create_done, cnk_create_topics)
DONE(delete_done, cnk_delete_topics)
DONE(init_done, cnk_init_producer)

#define START(name, type, function, completion)                                                                        \
    static inline int name(call *c) {                                                                                  \
        type *op = c->op;                                                                                              \
        op->arg = c;                                                                                                   \
        op->done = completion;                                                                                         \
        return function(c->shard, op);                                                                                 \
    }
START(produce_start, cnk_produce, cnk_broker_produce, produce_done)
START(fetch_start, cnk_fetch, cnk_broker_fetch, fetch_done)
START(list_start, cnk_list_offsets, cnk_broker_list_offsets, list_done)
START(create_start, cnk_create_topics, cnk_broker_create_topics, create_done)
START(delete_start, cnk_delete_topics, cnk_broker_delete_topics, delete_done)
START(init_start, cnk_init_producer, cnk_broker_init_producer, init_done)

static inline cnk_text text(const char *s) { return (cnk_text){s, s ? strlen(s) : 0}; }

static inline int create(world *w, const char *name, int32_t partitions) {
    call c;
    cnk_create_topic t = {.name = text(name), .partitions = partitions, .replication = -1};
    cnk_create_topics op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(w, 0, &c, create_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return t.error;
}

static inline int delete_one(world *w, const char *name) {
    call c;
    cnk_delete_topic t = {.name = text(name)};
    cnk_delete_topics op = {.timeout_ms = 60000, .topics = &t, .topic_count = 1};
    call_begin(w, 0, &c, delete_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return t.error;
}

typedef struct producer_fields {
    int64_t id;
    int16_t epoch;
    int32_t sequence;
} producer_fields;
static const producer_fields no_producer = {-1, -1, -1};

static inline void make_batch_codec(cnk_writer *out, unsigned codec, int count, int64_t timestamp, producer_fields who,
                                    size_t value_len) {
    cnk_batch_builder b;
    uint8_t *value = malloc(value_len + 1);
    memset(value, 'v', value_len);
    cnk_batch_builder_init(&b, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_batch_builder_producer(&b, who.id, who.epoch, who.sequence);
    for (int i = 0; i < count; i++) {
        cnk_record_spec r = {
            .timestamp = timestamp + i, .key = "k", .key_len = 1, .value = value, .value_len = value_len};
        ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    }
    cnk_writer_growing(out, 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, out), 0);
    cnk_batch_builder_free(&b);
    free(value);
}

static inline void make_batch(cnk_writer *out, int count, int64_t timestamp, producer_fields who, size_t value_len) {
    make_batch_codec(out, CNK_CODEC_NONE, count, timestamp, who, value_len);
}

/* One batch to one partition, from a shard: the error, and the base offset. */
static inline int produce_from(world *w, size_t shard, const char *topic, int32_t partition, int count,
                               producer_fields who, int16_t acks, int64_t *ret_base_offset) {
    call c;
    cnk_writer batch;
    make_batch(&batch, count, 1700000000000, who, 10);
    cnk_produce_part part = {
        .topic = text(topic), .partition = partition, .data = batch.data, .len = (uint32_t)batch.len};
    cnk_produce op = {.acks = acks, .timeout_ms = 60000, .version = 11, .parts = &part, .part_count = 1};
    call_begin(w, shard, &c, produce_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    cnk_writer_free(&batch);
    if (ret_base_offset) *ret_base_offset = part.base_offset;
    return part.error;
}

static inline int produce(world *w, const char *topic, int32_t partition, int count) {
    return produce_from(w, 0, topic, partition, count, no_producer, -1, NULL);
}

typedef struct fetched {
    int error;
    int64_t high_watermark, first, next; /* offsets in the batches; -1: none */
    uint32_t bytes, records;
    uint32_t epoch; /* of the last batch */
} fetched;

static inline int fetch_end_start(call *c) {
    cnk_broker_fetch_end(c->op);
    return CNK_DONE;
}

static inline fetched read_part(const cnk_fetch_part *part) {
    fetched f = {.error = part->error, .high_watermark = part->high_watermark, .first = -1, .next = -1};
    for (size_t s = 0; s < part->slice_count; s++)
        for (size_t at = 0; at < part->slices[s].iov_len;) {
            cnk_batch b;
            const uint8_t *p = (const uint8_t *)part->slices[s].iov_base + at;
            cnk_batch_rules rules = {.produce_version = 11,
                                     .bytes_max = 1u << 30,
                                     .timestamp_before_max_ms = INT64_MAX,
                                     .timestamp_after_max_ms = INT64_MAX};
            (void)rules;
            ck_assert_int_eq(cnk_batch_parse(p, part->slices[s].iov_len - at, &b), 0);
            ck_assert(f.next < 0 || b.base_offset == f.next);
            f.first = f.first < 0 ? b.base_offset : f.first;
            f.next = b.base_offset + b.last_offset_delta + 1;
            f.records += (uint32_t)b.count;
            f.epoch = (uint32_t)b.leader_epoch;
            f.bytes += b.len;
            at += b.len;
        }
    ck_assert_uint_eq(f.bytes, part->bytes);
    return f;
}

static inline fetched fetch_from(world *w, size_t shard, const char *topic, int32_t partition, int64_t offset,
                                 uint32_t bytes_max, int32_t wait_ms) {
    call c, e;
    cnk_fetch_part part = {
        .topic = text(topic), .partition = partition, .leader_epoch = -1, .offset = offset, .bytes_max = bytes_max};
    cnk_fetch op = {.max_wait_ms = wait_ms, .min_bytes = 1, .bytes_max = bytes_max, .parts = &part, .part_count = 1};
    call_begin(w, shard, &c, fetch_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    fetched f = read_part(&part);
    call_begin(w, shard, &e, fetch_end_start, &op);
    call_wait(&e);
    return f;
}

static inline fetched fetch(world *w, const char *topic, int32_t partition, int64_t offset) {
    return fetch_from(w, 0, topic, partition, offset, 1u << 20, 0);
}

/* From an offset to the end, in as many answers as it takes (one answer does not mix files and memory). */
static inline fetched fetch_all(world *w, const char *topic, int32_t partition, int64_t offset) {
    fetched all = fetch(w, topic, partition, offset);
    while (all.error == 0 && all.next >= 0 && all.next < all.high_watermark) {
        fetched f = fetch(w, topic, partition, all.next);
        ck_assert_int_eq(f.error, 0);
        ck_assert_int_eq(f.first, all.next);
        all.next = f.next;
        all.records += f.records;
        all.bytes += f.bytes;
        all.epoch = f.epoch;
    }
    return all;
}

static inline cnk_list_offsets_part list_offset(world *w, const char *topic, int32_t partition, int64_t timestamp) {
    call c;
    cnk_list_offsets_part part = {
        .topic = text(topic), .partition = partition, .leader_epoch = -1, .timestamp = timestamp};
    cnk_list_offsets op = {.parts = &part, .part_count = 1};
    call_begin(w, 0, &c, list_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return part;
}

#endif
