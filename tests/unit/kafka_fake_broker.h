/* A broker for tests and fuzzers of lib/kafka: every function that the module calls, in memory, answered at once or
 * when the test says so. Including it replaces lib/broker: the linker then takes none of it from the library.
 *
 * Topics: "a" (3 partitions), "b" (1, whose partition has no leader). Each append gets the next offset of its
 * partition; a fetch answers with `fake.record_count` copies of a small text for partitions that exist, unless
 * `fake.logs` says less. */
#ifndef CNK_TESTS_KAFKA_FAKE_BROKER_H
#define CNK_TESTS_KAFKA_FAKE_BROKER_H

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "kafka/internal.h"

#define FAKE_WAITING_MAX 4096
#define FAKE_TOPICS 2

typedef enum fake_kind {
    FAKE_PRODUCE,
    FAKE_FETCH,
    FAKE_LIST,
    FAKE_CREATE,
    FAKE_DELETE,
    FAKE_PRODUCER,
    FAKE_GROW,
    FAKE_ALTER,
    FAKE_DESCRIBE,
    FAKE_RECORDS,
    FAKE_GROUP
} fake_kind;

typedef struct fake_wait {
    fake_kind kind;
    void *op;
} fake_wait;

typedef struct fake_log {
    int64_t high_watermark, log_start;
    int error;
    bool empty;
} fake_log;

typedef struct fake_broker {
    bool wait;             /* operations wait for fake_complete */
    bool data_needed;      /* a waiting produce still needs its data */
    int start_error;       /* operations fail to begin */
    bool reads_wait;       /* for room */
    cnk_fetch_format fetch_format; /* of the last fetch */
    bool fetch_no_zstd;            /* likewise */
    size_t fetch_first, fetch_next; /* likewise; what it is to be told */
    int64_t bounds[2];     /* of every log, where they are asked for */
    int part_error;        /* parts fail */
    int64_t next_offset;
    uint64_t produced_parts, produced_bytes, connections;
    uint32_t data_crc;     /* of everything produced, at completion */
    size_t record_count;
    int64_t producer_id;
    uint64_t fetches_open; /* begun and not ended */
    uint64_t fetch_parts;  /* of all fetches */
    uint64_t groups_open;  /* likewise */
    int32_t group_partitions;
    uint64_t describes_open;
    size_t altered_whole, altered_single; /* options, in the last change of configurations */
    fake_wait waiting[FAKE_WAITING_MAX];
    size_t waiting_count;
    cnk_meta_image image;
    cnk_meta_topic topics[FAKE_TOPICS];
    cnk_meta_topic *order[FAKE_TOPICS];
    cnk_meta_partition partitions[FAKE_TOPICS][3];
    cnk_meta_leader leaders[FAKE_TOPICS];
    fake_log logs[FAKE_TOPICS][3]; /* what a fetch finds */
    cnk_list watches[FAKE_TOPICS][3];
    bool watch_late;               /* watches are taken off by fake_watches_off */
    cnk_list watches_off;
    cnk_broker_options options;
    /* the loop */
    uint64_t now_ns;
    void (*timer_fire)(void *arg);
    void *timer_arg;
    uint64_t timer_at;
    chronik_loop loop;
} fake_broker;

static fake_broker fake;

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static uint64_t fake_now_ns(void *loop) { (void)loop; return fake.now_ns; }
static int64_t fake_wall_ms(void *loop) { (void)loop; return 1700000000000; }
static int fake_timer_new(void *loop, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer) {
    (void)loop;
    fake.timer_fire = fire;
    fake.timer_arg = arg;
    fake.timer_at = UINT64_MAX;
    *ret_timer = (chronik_timer *)(void *)&fake.timer_at;
    return 0;
}
static void fake_timer_set(void *loop, chronik_timer *timer, uint64_t at_ns) {
    (void)loop;
    (void)timer;
    fake.timer_at = at_ns;
}
static void fake_timer_free(void *loop, chronik_timer *timer) { (void)loop; (void)timer; fake.timer_at = UINT64_MAX; }

static const chronik_loop_ops fake_loop_ops = {.size = sizeof(chronik_loop_ops),
                                               .now_ns = fake_now_ns,
                                               .wall_ms = fake_wall_ms,
                                               .timer_new = fake_timer_new,
                                               .timer_set = fake_timer_set,
                                               .timer_free = fake_timer_free};

static inline void fake_advance(uint64_t ns) {
    fake.now_ns += ns;
    if (fake.timer_at > fake.now_ns) return;
    fake.timer_at = UINT64_MAX;
    fake.timer_fire(fake.timer_arg);
}

static inline void fake_reset(void) {
    memset(&fake, 0, sizeof fake);
    fake.now_ns = 1000;
    fake.timer_at = UINT64_MAX;
    fake.loop = (chronik_loop){&fake_loop_ops, &fake};
    fake.options = (cnk_broker_options)CNK_BROKER_OPTIONS_INIT;
    fake.options.node_id = 7;
    fake.producer_id = 1000;
    fake.record_count = 1;
    for (int t = 0; t < FAKE_TOPICS; t++) {
        cnk_meta_topic *topic = &fake.topics[t];
        topic->name = t == 0 ? "a" : "b";
        topic->name_len = 1;
        memset(topic->id.bytes, t + 1, sizeof topic->id.bytes);
        topic->online = true;
        topic->partition_count = topic->partition_total = t == 0 ? 3 : 1;
        topic->partitions = fake.partitions[t];
        atomic_init(&fake.leaders[t].node, t == 0 ? 7 : -1);
        atomic_init(&fake.leaders[t].epoch, t == 0 ? 5 : -1);
        for (int p = 0; p < topic->partition_count; p++)
            topic->partitions[p] = (cnk_meta_partition){.state = CNK_PARTITION_ONLINE, .replica_count = 1,
                                                        .replicas = {7}, .leader = &fake.leaders[t]};
        for (int p = 0; p < 3; p++) {
            fake.logs[t][p].high_watermark = 100;
            cnk_list_init(&fake.watches[t][p]);
        }
        fake.order[t] = topic;
    }
    cnk_list_init(&fake.watches_off);
    atomic_init(&fake.image.refs, 1);
    memset(fake.image.cluster_id.bytes, 9, 16);
    fake.image.version = 42;
    fake.image.topic_count = FAKE_TOPICS;
    fake.image.by_name = fake.image.by_id = fake.order;
}

/* ---- what lib/kafka asks ---------------------------------------------------------------------------------------- */

const chronik_loop *cnk_shard_loop(const cnk_shard *shard) { (void)shard; return &fake.loop; }
bool cnk_shard_reads_wait(const cnk_shard *shard) { (void)shard; return fake.reads_wait; }
cnk_broker *cnk_shard_broker(const cnk_shard *shard) { return (cnk_broker *)(uintptr_t)shard; }
const cnk_broker_options *cnk_broker_settings(const cnk_broker *broker) { (void)broker; return &fake.options; }
cnk_meta_image *cnk_shard_image(const cnk_shard *shard) { (void)shard; return &fake.image; }
uint64_t cnk_broker_connect(cnk_shard *shard, const chronik_address *peer) {
    (void)shard;
    (void)peer;
    return ++fake.connections;
}
void cnk_broker_disconnect(cnk_shard *shard, uint64_t connection) { (void)shard; (void)connection; }

static inline cnk_meta_topic *fake_topic(cnk_text name, const cnk_uuid *id) {
    for (int t = 0; t < FAKE_TOPICS; t++) {
        cnk_meta_topic *topic = &fake.topics[t];
        if (name.p ? name.len == 1 && name.p[0] == topic->name[0] : id && cnk_uuid_equal(id, &topic->id)) return topic;
    }
    return NULL;
}

static inline int fake_part_error(cnk_text name, const cnk_uuid *id, int32_t partition) {
    const cnk_meta_topic *t = fake_topic(name, id);
    if (!t && !name.p) return CHRONIK_EUNKNOWNTOPICID;
    if (!t || partition < 0 || partition >= t->partition_count) return CHRONIK_EUNKNOWNTOPIC;
    if (atomic_load(&t->partitions[0].leader->node) < 0) return CHRONIK_ENOTLEADER;
    return fake.part_error;
}

static inline void fake_wait_for(fake_kind kind, void *op) {
    if (fake.waiting_count == FAKE_WAITING_MAX) abort();
    fake.waiting[fake.waiting_count].kind = kind;
    fake.waiting[fake.waiting_count++].op = op;
}

static inline bool fake_forget(void *op) {
    for (size_t i = 0; i < fake.waiting_count; i++) {
        if (fake.waiting[i].op != op) continue;
        memmove(&fake.waiting[i], &fake.waiting[i + 1], (--fake.waiting_count - i) * sizeof *fake.waiting);
        return true;
    }
    return false;
}

static inline void fake_do_produce(cnk_produce *op) {
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_produce_part *p = &op->parts[i];
        p->error = fake_part_error(p->topic, &p->topic_id, p->partition);
        p->fault_record = -1;
        p->leader_id = p->leader_epoch = p->error == CHRONIK_ENOTLEADER ? 7 : -1;
        p->base_offset = p->error ? -1 : fake.next_offset++;
        p->log_append_time_ms = -1;
        p->log_start_offset = 0;
        if (p->len) fake.data_crc = cnk_crc32c(fake.data_crc, p->data, p->len);
        fake.produced_parts++;
        fake.produced_bytes += p->len;
    }
}

static const char fake_record[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static inline void fake_do_fetch(cnk_fetch *op, int error) {
    op->bytes = 0;
    fake.fetch_format = op->format;
    fake.fetch_no_zstd = op->no_zstd;
    fake.fetch_first = op->first;
    op->next = fake.fetch_next;
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_fetch_part *p = &op->parts[i];
        p->error = error ? error : fake_part_error(p->topic, &p->topic_id, p->partition);
        p->leader_id = p->leader_epoch_now = p->error == CHRONIK_ENOTLEADER ? 7 : -1;
        p->slice_count = 0;
        p->bytes = 0;
        if (p->error) continue;
        const fake_log *log = &fake.logs[fake_topic(p->topic, &p->topic_id) - fake.topics][p->partition];
        p->high_watermark = p->last_stable_offset = log->high_watermark;
        p->log_start_offset = log->log_start;
        p->error = log->error;
        if (p->error || log->empty) continue;
        struct iovec *v = calloc(fake.record_count + 1, sizeof *v);
        if (!v) abort();
        for (size_t n = 0; n < fake.record_count; n++) v[n] = (struct iovec){(void *)(uintptr_t)fake_record, 61};
        p->slices = v;
        p->slice_count = fake.record_count;
        p->bytes = (uint32_t)(61 * fake.record_count);
        op->bytes += p->bytes;
    }
}

static inline void fake_do_list(cnk_list_offsets *op) {
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_list_offsets_part *p = &op->parts[i];
        p->error = fake_part_error(p->topic, NULL, p->partition);
        p->offset = p->timestamp == CNK_OFFSET_LATEST ? 100 : 0;
        p->record_timestamp = p->timestamp >= 0 ? p->timestamp : -1;
        if (p->timestamp == CNK_OFFSET_BOUNDS) {
            p->start = fake.bounds[0];
            p->offset = fake.bounds[1];
            p->record_timestamp = 5000;
        }
        p->offset_epoch = 5;
    }
}

static inline void fake_do_create(cnk_create_topics *op) {
    for (size_t i = 0; i < op->topic_count; i++) {
        cnk_create_topic *t = &op->topics[i];
        t->error = fake_topic(t->name, NULL) ? CHRONIK_ETOPICEXISTS : fake.part_error;
        if (t->error) strcpy(t->error_text, "no");
        memset(t->topic_id.bytes, 3, 16);
        t->partitions_made = t->partitions < 0 ? 1 : t->partitions;
        t->replication_made = 1;
    }
}

static inline void fake_do_delete(cnk_delete_topics *op) {
    for (size_t i = 0; i < op->topic_count; i++) {
        cnk_delete_topic *t = &op->topics[i];
        const cnk_meta_topic *found = fake_topic(t->name, &t->topic_id);
        t->error = found ? fake.part_error : t->name.p ? CHRONIK_EUNKNOWNTOPIC : CHRONIK_EUNKNOWNTOPICID;
        if (!found) continue;
        strcpy(t->name_found, found->name);
        t->topic_id = found->id;
    }
}

static inline void fake_do_producer(cnk_init_producer *op) {
    op->error = op->transactional_id.p ? CHRONIK_ETXNIDAUTH : 0;
    op->ret_producer_id = fake.producer_id++;
    op->ret_producer_epoch = 0;
}

/* Of the coordinator: offsets are kept for nobody, and answered by partition. */
static inline void fake_do_group(cnk_group_call *op) {
    cnk_coord_call *call = &op->call;
    call->error = fake.part_error;
    call->ret_generation = 1;
    call->ret_leader = call->ret_member_id = (cnk_text){"m", 1};
    if (!call->protocol_type.p) call->protocol_type = (cnk_text){"consumer", 8};
    if (!call->protocol_name.p) call->protocol_name = (cnk_text){"range", 5};
    if (call->kind == CNK_COORD_DESCRIBE || call->kind == CNK_COORD_JOIN) call->member_count = 0;
    if (call->kind != CNK_COORD_OFFSET_FETCH || call->error) return;
    for (size_t t = 0; t < call->topic_count; t++)
        for (size_t i = 0; i < call->topics[t].offset_count; i++) {
            cnk_coord_offset *o = &call->topics[t].offsets[i];
            o->offset = INT64_C(100) + o->partition;
            o->leader_epoch = 5;
            o->metadata = (cnk_text){"m", 1};
        }
}

static inline void fake_do_grow(cnk_create_partitions *op) {
    for (size_t i = 0; i < op->topic_count; i++) {
        cnk_grow_topic *t = &op->topics[i];
        const cnk_meta_topic *found = fake_topic(t->name, NULL);
        t->error = !found ? CHRONIK_EUNKNOWNTOPIC
                          : t->count <= found->partition_count ? CHRONIK_EINVALIDPARTITIONS : fake.part_error;
        if (t->assigned && t->error == 0 && (int)t->assignment_count != t->count - found->partition_count)
            t->error = CHRONIK_EINVALIDASSIGNMENT;
        if (t->error) strcpy(t->error_text, "no");
    }
}

static inline void fake_do_alter(cnk_alter_configs *op) {
    fake.altered_whole = fake.altered_single = 0;
    for (size_t i = 0; i < op->topic_count; i++) {
        cnk_alter_topic *t = &op->topics[i];
        t->error = fake_topic(t->name, NULL) ? fake.part_error : CHRONIK_EUNKNOWNTOPIC;
        if (t->error) strcpy(t->error_text, "no");
        *(t->changes ? &fake.altered_single : &fake.altered_whole) += t->setting_count;
    }
}

static inline void fake_do_records(cnk_delete_records *op) {
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_delete_records_part *p = &op->parts[i];
        p->error = fake_part_error(p->topic, NULL, p->partition);
        if (p->error == 0 && p->offset > 100) p->error = CHRONIK_EOFFSETRANGE;
        p->low_watermark = p->offset < 0 ? 100 : p->offset;
    }
}

static inline void fake_do_describe(cnk_describe *op) {
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_describe_part *p = &op->parts[i];
        p->error = fake_part_error(p->topic, NULL, p->partition);
        p->bytes = 77;
        if (!op->producers || p->error) continue;
        cnk_log_producer *rows = calloc(2, sizeof *rows);
        if (!rows) abort();
        rows[0] = (cnk_log_producer){.id = 900, .last_timestamp = 5, .last_sequence = 3, .epoch = 2};
        rows[1] = (cnk_log_producer){.id = 901, .last_timestamp = 6};
        p->producers = rows;
        p->producer_count = 2;
    }
}

/* Completes the i-th waiting operation. */
static inline void fake_complete(size_t i) {
    if (i >= fake.waiting_count) abort();
    const fake_wait w = fake.waiting[i];
    memmove(&fake.waiting[i], &fake.waiting[i + 1], (--fake.waiting_count - i) * sizeof w);
    switch (w.kind) {
    case FAKE_PRODUCE: fake_do_produce(w.op); ((cnk_produce *)w.op)->done(w.op); break;
    case FAKE_FETCH: fake_do_fetch(w.op, 0); ((cnk_fetch *)w.op)->done(w.op); break;
    case FAKE_LIST: fake_do_list(w.op); ((cnk_list_offsets *)w.op)->done(w.op); break;
    case FAKE_CREATE: fake_do_create(w.op); ((cnk_create_topics *)w.op)->done(w.op); break;
    case FAKE_DELETE: fake_do_delete(w.op); ((cnk_delete_topics *)w.op)->done(w.op); break;
    case FAKE_GROUP: fake_do_group(w.op); ((cnk_group_call *)w.op)->done(w.op); break;
    case FAKE_GROW: fake_do_grow(w.op); ((cnk_create_partitions *)w.op)->done(w.op); break;
    case FAKE_ALTER: fake_do_alter(w.op); ((cnk_alter_configs *)w.op)->done(w.op); break;
    case FAKE_RECORDS: fake_do_records(w.op); ((cnk_delete_records *)w.op)->done(w.op); break;
    case FAKE_DESCRIBE: fake_do_describe(w.op); ((cnk_describe *)w.op)->done(w.op); break;
    case FAKE_PRODUCER: fake_do_producer(w.op); ((cnk_init_producer *)w.op)->done(w.op); break;
    }
}

#define FAKE_START(KIND, op, now)                                                                                      \
    do {                                                                                                               \
        if (fake.start_error) return fake.start_error;                                                                 \
        if (fake.wait) {                                                                                               \
            fake_wait_for(KIND, op);                                                                                   \
            return CNK_PENDING;                                                                                        \
        }                                                                                                              \
        now;                                                                                                           \
        return CNK_DONE;                                                                                               \
    } while (0)

int cnk_broker_produce(cnk_shard *shard, cnk_produce *op) {
    (void)shard;
    op->data_needed = fake.data_needed;
    if (fake.wait && !fake.data_needed) { /* the data has been taken: it must not be looked at again */
        for (size_t i = 0; i < op->part_count; i++) {
            cnk_produce_part *p = &op->parts[i];
            if (p->len) fake.data_crc = cnk_crc32c(fake.data_crc, p->data, p->len);
            fake.produced_bytes += p->len;
            p->data = NULL;
            p->len = 0;
        }
    }
    FAKE_START(FAKE_PRODUCE, op, fake_do_produce(op));
}
/* The nth of those that wait needs its data no longer. */
static inline void fake_taken(size_t n) {
    cnk_produce *op = fake.waiting[n].op;
    for (size_t i = 0; i < op->part_count; i++) op->parts[i].data = NULL, op->parts[i].len = 0;
    if (op->taken) op->taken(op);
}
void cnk_broker_produce_cancel(cnk_produce *op) {
    if (!fake_forget(op)) return;
    for (size_t i = 0; i < op->part_count; i++) op->parts[i].error = CHRONIK_ECANCELED;
    op->done(op);
}
int cnk_broker_fetch(cnk_shard *shard, cnk_fetch *op) {
    (void)shard;
    if (!fake.start_error) fake.fetches_open++;
    fake.fetch_parts += op->part_count;
    FAKE_START(FAKE_FETCH, op, fake_do_fetch(op, 0));
}
void cnk_broker_fetch_cancel(cnk_fetch *op) {
    if (!fake_forget(op)) return;
    fake_do_fetch(op, CHRONIK_ECANCELED);
    op->done(op);
}
void cnk_broker_fetch_hurry(cnk_fetch *op) {
    if (!fake_forget(op)) return;
    fake_do_fetch(op, 0);
    op->done(op);
}
void cnk_broker_fetch_end(cnk_fetch *op) {
    for (size_t i = 0; i < op->part_count; i++) {
        free((void *)(uintptr_t)op->parts[i].slices);
        op->parts[i].slices = NULL;
    }
    fake.fetches_open--;
}

/* Watches fire when fake_news is called. */
void cnk_watcher_init(cnk_watcher *watcher, cnk_shard *shard, void (*news)(cnk_watcher *watcher),
                      void (*off)(cnk_watch *watch)) {
    *watcher = (cnk_watcher){.shard = shard, .news = news, .off = off};
    cnk_list_init(&watcher->fired);
}
void cnk_watcher_close(cnk_watcher *watcher) { if (!cnk_list_empty(&watcher->fired)) abort(); }
bool cnk_watch_arm(cnk_watcher *watcher, cnk_watch *watch, cnk_text topic, const cnk_uuid *topic_id, int32_t partition,
                   int64_t high_watermark, int64_t log_start) {
    if (watch->state != CNK_WATCH_IDLE) abort();
    if (fake_part_error(topic, topic_id, partition) == CHRONIK_EUNKNOWNTOPIC) return false;
    watch->watcher = watcher;
    watch->high_watermark = high_watermark;
    watch->log_start = log_start;
    watch->state = CNK_WATCH_ARMED;
    cnk_list_push_back(&fake.watches[fake_topic(topic, topic_id) - fake.topics][partition], &watch->node);
    return true;
}
cnk_watch *cnk_watch_next(cnk_watcher *watcher) {
    cnk_list *node = cnk_list_pop_front(&watcher->fired);
    if (node) CNK_CONTAINER(node, cnk_watch, node)->state = CNK_WATCH_IDLE;
    return node ? CNK_CONTAINER(node, cnk_watch, node) : NULL;
}
bool cnk_watch_disarm(cnk_watch *watch) {
    if (watch->state == CNK_WATCH_ARMED && fake.watch_late) {
        cnk_list_remove(&watch->node);
        cnk_list_push_back(&fake.watches_off, &watch->node);
        watch->state = CNK_WATCH_DISARMING;
    }
    if (watch->state == CNK_WATCH_DISARMING) return false;
    cnk_list_remove(&watch->node);
    watch->state = CNK_WATCH_IDLE;
    return true;
}
static inline void fake_watches_off(void) {
    for (cnk_list *node; (node = cnk_list_pop_front(&fake.watches_off));) {
        cnk_watch *w = CNK_CONTAINER(node, cnk_watch, node);
        w->state = CNK_WATCH_IDLE;
        w->watcher->off(w);
    }
}
/* Fires what is not as it was told any more. */
static inline void fake_news(void) {
    for (int t = 0; t < FAKE_TOPICS; t++)
        for (int p = 0; p < 3; p++)
            for (cnk_list *it = fake.watches[t][p].next, *next; it != &fake.watches[t][p]; it = next) {
                cnk_watch *w = CNK_CONTAINER(it, cnk_watch, node);
                const fake_log *log = &fake.logs[t][p];
                next = it->next;
                if (!log->error && log->empty && w->high_watermark == log->high_watermark && w->log_start == log->log_start)
                    continue;
                cnk_list_remove(&w->node);
                cnk_list_push_back(&w->watcher->fired, &w->node);
                w->state = CNK_WATCH_FIRED;
                w->watcher->news(w->watcher);
                next = fake.watches[t][p].next; /* it may have changed the list */
            }
}
int cnk_broker_list_offsets(cnk_shard *shard, cnk_list_offsets *op) {
    (void)shard;
    FAKE_START(FAKE_LIST, op, fake_do_list(op));
}
void cnk_broker_list_offsets_cancel(cnk_list_offsets *op) { (void)op; } /* done comes later */
int cnk_broker_create_topics(cnk_shard *shard, cnk_create_topics *op) {
    (void)shard;
    FAKE_START(FAKE_CREATE, op, fake_do_create(op));
}
void cnk_broker_create_topics_cancel(cnk_create_topics *op) { if (fake_forget(op)) op->done(op); }
int cnk_broker_delete_topics(cnk_shard *shard, cnk_delete_topics *op) {
    (void)shard;
    FAKE_START(FAKE_DELETE, op, fake_do_delete(op));
}
void cnk_broker_delete_topics_cancel(cnk_delete_topics *op) { if (fake_forget(op)) op->done(op); }
int cnk_broker_init_producer(cnk_shard *shard, cnk_init_producer *op) {
    (void)shard;
    FAKE_START(FAKE_PRODUCER, op, fake_do_producer(op));
}
void cnk_broker_init_producer_cancel(cnk_init_producer *op) { if (fake_forget(op)) op->done(op); }

int cnk_broker_group(cnk_shard *shard, cnk_group_call *op) {
    (void)shard;
    fake.groups_open++;
    FAKE_START(FAKE_GROUP, op, fake_do_group(op));
}
void cnk_broker_group_cancel(cnk_group_call *op) { if (fake_forget(op)) op->done(op); }
void cnk_broker_group_end(cnk_group_call *op) { (void)op; fake.groups_open--; }
int32_t cnk_broker_group_partitions(cnk_shard *shard) { (void)shard; return fake.group_partitions; }
int cnk_broker_create_partitions(cnk_shard *shard, cnk_create_partitions *op) {
    (void)shard;
    FAKE_START(FAKE_GROW, op, fake_do_grow(op));
}
void cnk_broker_create_partitions_cancel(cnk_create_partitions *op) { if (fake_forget(op)) op->done(op); }
int cnk_broker_alter_configs(cnk_shard *shard, cnk_alter_configs *op) {
    (void)shard;
    FAKE_START(FAKE_ALTER, op, fake_do_alter(op));
}
void cnk_broker_alter_configs_cancel(cnk_alter_configs *op) { if (fake_forget(op)) op->done(op); }
int cnk_broker_delete_records(cnk_shard *shard, cnk_delete_records *op) {
    (void)shard;
    FAKE_START(FAKE_RECORDS, op, fake_do_records(op));
}
int cnk_broker_describe(cnk_shard *shard, cnk_describe *op) {
    (void)shard;
    if (!fake.start_error) fake.describes_open++;
    FAKE_START(FAKE_DESCRIBE, op, fake_do_describe(op));
}
void cnk_broker_describe_end(cnk_describe *op) {
    for (size_t i = 0; i < op->part_count; i++) free((void *)(uintptr_t)op->parts[i].producers);
    fake.describes_open--;
}
void cnk_broker_quorum(cnk_shard *shard, cnk_quorum *ret_quorum) {
    (void)shard;
    *ret_quorum = (cnk_quorum){7, 4, 41, &fake.options.directory_id};
}

static inline int fake_rows(int (*each)(void *arg, const cnk_config_row *row), void *arg, uint8_t source) {
    const cnk_config_row rows[] = {
        {.name = "alpha.ms",
         .value = "5",
         .type = CNK_CONFIG_LONG,
         .source = source,
         .doc = "Alpha.",
         .synonyms = {{"alpha.ms", "5", source}, {"log.alpha.ms", "6", CNK_SOURCE_DEFAULT}},
         .synonym_count = 2},
        {.name = "beta", .value = NULL, .type = CNK_CONFIG_STRING, .source = CNK_SOURCE_DEFAULT, .doc = NULL},
        {.name = "secret",
         .value = "x",
         .type = CNK_CONFIG_PASSWORD,
         .source = source,
         .read_only = true,
         .sensitive = true},
    };
    int code = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && code == 0; i++) code = each(arg, &rows[i]);
    return code;
}
int cnk_broker_topic_configs(cnk_shard *shard, const cnk_meta_image *image, cnk_text topic,
                             int (*each)(void *arg, const cnk_config_row *row), void *arg) {
    (void)shard;
    (void)image;
    if (topic.len == 7 && memcmp(topic.p, "missing", 7) == 0) return CHRONIK_EUNKNOWNTOPIC;
    return fake_rows(each, arg, CNK_SOURCE_TOPIC);
}
int cnk_broker_node_configs(cnk_shard *shard, int (*each)(void *arg, const cnk_config_row *row), void *arg) {
    (void)shard;
    return fake_rows(each, arg, CNK_SOURCE_STATIC_BROKER);
}

#endif
