/* In-process calls: create a topic, produce, fetch. A call is allocated whole on the caller's thread, sent to a shard by
 * message, run there as an operation of lib/broker, and answered by its own event, so that answering cannot fail.
 *
 *     caller ── message ──► shard: broker operation ── event ──► queue ──► host ── chronik_event_free ──┐
 *                                                                                                      │
 *                           shard: gives a fetch's data back ◄── message, while the shard runs ────────┘
 *
 * node->calls counts calls that exist (limit CHRONIK_NODE_CALLS_MAX); node->calls_open those of which the broker still
 * has something: no answer yet, or data that has not come home. A node stops only when there is none of the latter. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include "codec/codec.h"
#include "node/internal.h"
#include "record/batch.h"
#include "record/record.h"

enum {
    CALL_TIMEOUT_MS = 30000,
    HEADERS_MAX = 1024,                   /* of one record, when read */
    DECOMPRESSED_MAX = 256 << 20,         /* of one batch, when read */
    FETCH_LATEST = -1, FETCH_EARLIEST = -2
};

typedef struct node_call {
    chronik_event event;
    chronik_post post;
    cnk_list link;
    chronik_node *node;
    node_shard *shard;
    chronik_queue *queue;
    cnk_context context;
    char error_text[248];
    bool canceled;
    union {
        struct {
            cnk_create_topics op;
            cnk_create_topic topic;
            cnk_topic_setting *settings;
        } create;
        struct {
            cnk_produce op;
            cnk_produce_part part;
            cnk_writer batch; /* the records, encoded; empty where the caller lends a batch */
        } produce;
        struct {
            cnk_list_offsets list; /* for -1 and -2 */
            cnk_list_offsets_part list_part;
            cnk_fetch op;
            cnk_fetch_part part;
            bool listing, begun;
            /* reading records */
            size_t slice, at;
            bool batch_open;
            cnk_batch batch;
            cnk_records records;
            chronik_header *headers;
            size_t headers_capacity;
            int64_t wanted, next_offset;
        } fetch;
    } u;
    char topic[]; /* and, behind it, the settings' texts */
} node_call;

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void call_free(node_call *call) {
    chronik_node *node = call->node;
    if (call->event.type == CHRONIK_EVENT_TOPIC) cnk_free(call->u.create.settings);
    if (call->event.type == CHRONIK_EVENT_PRODUCED) cnk_writer_free(&call->u.produce.batch);
    if (call->event.type == CHRONIK_EVENT_FETCHED) cnk_free(call->u.fetch.headers);
    cnk_free(call);
    atomic_fetch_sub(&node->calls, 1);
}

static void release_plain(chronik_event *event) { call_free(CNK_CONTAINER(event, node_call, event)); }

static void fetch_end_here(chronik_post *post) {
    node_call *call = CNK_CONTAINER(post, node_call, post);
    chronik_node *node = call->node;
    cnk_broker_fetch_end(&call->u.fetch.op);
    call_free(call);
    atomic_fetch_sub(&node->calls_open, 1);
}

/* The data belongs to the shard, and goes home by message. */
static void release_fetch(chronik_event *event) {
    node_call *call = CNK_CONTAINER(event, node_call, event);
    if (call->u.fetch.batch_open) cnk_records_close(&call->u.fetch.records);
    if (!call->u.fetch.begun) {
        call_free(call);
        return;
    }
    call->post.run = fetch_end_here;
    call->shard->loop->ops->post(call->shard->loop->self, &call->post);
}

static uint64_t hash_of(const char *topic, int32_t partition) {
    return cnk_hash_bytes(topic, strlen(topic)) + (uint64_t)(uint32_t)partition;
}

/* A call that has been counted, or an error: see node.h. `extra`: bytes behind the topic's name. */
static int call_new(chronik_node *node, int type, const char *topic, int32_t partition, size_t extra,
                    chronik_queue *queue, void *opaque, node_call **ret_call) {
    if (!node || !topic || !queue) return CHRONIK_EINVAL;
    size_t len = strlen(topic);
    if (len > CNK_TOPIC_NAME_MAX) return CHRONIK_EINVALIDTOPIC;
    if (atomic_fetch_add(&node->calls, 1) >= CHRONIK_NODE_CALLS_MAX) {
        atomic_fetch_sub(&node->calls, 1);
        return CHRONIK_EAGAIN;
    }
    node_call *call = cnk_calloc(1, sizeof *call + len + 1 + extra);
    if (!call) {
        atomic_fetch_sub(&node->calls, 1);
        return CHRONIK_ENOMEM;
    }
    memcpy(call->topic, topic, len + 1);
    call->event = (chronik_event){.type = type, .opaque = opaque, .text = "", .release = release_plain, .a = -1, .b = -1};
    call->node = node;
    call->queue = queue;
    call->context.principal = (cnk_text){"User:ANONYMOUS", 14};
    call->context.listener = (cnk_text){"INTERNAL", 8};
    call->context.client_id = (cnk_text){"", 0};
    call->post.next = NULL;
    *ret_call = call;
    if (node->shard_count) call->shard = &node->shards[hash_of(topic, partition) % node->shard_count];
    return 0;
}

/* Sends it on its way; on failure it is freed. Counted as open before the state is looked at, and the stopping node sets
 * its state before it looks at the count: one of the two sees the other. */
static int call_send(node_call *call, void (*run)(chronik_post *post)) {
    chronik_node *node = call->node;
    atomic_fetch_add(&node->calls_open, 1);
    int state = atomic_load(&node->state);
    if (state != NODE_READY) {
        atomic_fetch_sub(&node->calls_open, 1);
        call_free(call);
        return state < NODE_READY ? CHRONIK_EBUSY : CHRONIK_ESHUTDOWN;
    }
    call->post.run = run;
    call->shard->loop->ops->post(call->shard->loop->self, &call->post);
    return 0;
}

/* The answer; the call is the queue's from here on. On the shard's thread. */
static void call_answer(node_call *call, int error, const char *text) {
    chronik_node *node = call->node;
    bool lent = call->event.type == CHRONIK_EVENT_FETCHED && call->u.fetch.begun;
    cnk_list_remove(&call->link);
    call->event.error = error;
    if (text && text[0]) {
        snprintf(call->error_text, sizeof call->error_text, "%s", text);
        call->event.text = call->error_text;
    } else if (error) {
        call->event.text = chronik_strerror(error);
    }
    cnk_queue_push(call->queue, &call->event);
    if (!lent) atomic_fetch_sub(&node->calls_open, 1);
}

/* The call begins; false: the node is stopping, and it has been answered so. */
static bool call_begin(node_call *call) {
    if (call->shard->draining) {
        call_answer(call, CHRONIK_ESHUTDOWN, NULL);
        return false;
    }
    cnk_list_push_back(&call->shard->calls, &call->link);
    return true;
}

/* ---- topics ------------------------------------------------------------------------------------------------------ */

static void create_done(cnk_create_topics *op) {
    node_call *call = op->arg;
    const cnk_create_topic *t = &call->u.create.topic;
    call->event.a = t->partitions_made;
    call_answer(call, t->error, t->error_text);
}

static void create_run(chronik_post *post) {
    node_call *call = CNK_CONTAINER(post, node_call, post);
    if (!call_begin(call)) return;
    int rc = cnk_broker_create_topics(call->shard->broker, &call->u.create.op);
    if (rc == CNK_DONE) create_done(&call->u.create.op);
    else if (rc < 0) call_answer(call, rc, NULL);
}

int chronik_topic_create(chronik_node *node, const char *topic, const chronik_topic_options *given,
                         chronik_queue *queue, void *opaque) {
    const chronik_topic_options defaults = CHRONIK_TOPIC_OPTIONS_INIT;
    const chronik_topic_options *o = given ? given : &defaults;
    if (o->size < sizeof *o) return CHRONIK_EINVAL;
    size_t count = 0, bytes = 0;
    for (const char *const *s = o->settings; s && *s; s++, count++) bytes += strlen(*s) + 1;
    if (count % 2) return CHRONIK_EINVAL;
    node_call *call;
    int rc = call_new(node, CHRONIK_EVENT_TOPIC, topic, 0, bytes, queue, opaque, &call);
    if (rc) return rc;
    call->u.create.settings = cnk_calloc(count / 2 + 1, sizeof *call->u.create.settings);
    if (!call->u.create.settings) {
        call_free(call);
        return CHRONIK_ENOMEM;
    }
    char *at = call->topic + strlen(call->topic) + 1;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(o->settings[i]);
        memcpy(at, o->settings[i], len + 1);
        cnk_text text = {at, len};
        if (i % 2) call->u.create.settings[i / 2].value = text;
        else call->u.create.settings[i / 2].name = text;
        at += len + 1;
    }
    call->u.create.topic = (cnk_create_topic){.name = {call->topic, strlen(call->topic)},
                                              .partitions = o->partitions,
                                              .replication = o->replication,
                                              .settings = call->u.create.settings,
                                              .setting_count = count / 2};
    call->u.create.op = (cnk_create_topics){.context = &call->context,
                                            .timeout_ms = o->timeout_ms,
                                            .topics = &call->u.create.topic,
                                            .topic_count = 1,
                                            .done = create_done,
                                            .arg = call};
    return call_send(call, create_run);
}

/* ---- produce ------------------------------------------------------------------------------------------------------ */

static void produce_done(cnk_produce *op) {
    node_call *call = op->arg;
    const cnk_produce_part *p = &call->u.produce.part;
    call->event.a = p->base_offset;
    call->event.b = p->log_append_time_ms;
    call_answer(call, p->error, p->error_text);
}

static void produce_run(chronik_post *post) {
    node_call *call = CNK_CONTAINER(post, node_call, post);
    if (!call_begin(call)) return;
    int rc = cnk_broker_produce(call->shard->broker, &call->u.produce.op);
    if (rc == CNK_DONE) produce_done(&call->u.produce.op);
    else if (rc < 0) call_answer(call, rc, NULL);
}

static int produce_send(node_call *call, int32_t partition, const void *data, size_t len) {
    call->u.produce.part = (cnk_produce_part){.topic = {call->topic, strlen(call->topic)},
                                              .partition = partition,
                                              .data = data,
                                              .len = (uint32_t)len};
    call->u.produce.op = (cnk_produce){.context = &call->context,
                                       .acks = -1,
                                       .timeout_ms = CALL_TIMEOUT_MS,
                                       .version = CNK_PRODUCE_VERSION_INTERNAL,
                                       .parts = &call->u.produce.part,
                                       .part_count = 1,
                                       .done = produce_done,
                                       .arg = call};
    return call_send(call, produce_run);
}

int chronik_produce_batch(chronik_node *node, const char *topic, int32_t partition, const void *batch, size_t batch_len,
                          chronik_queue *queue, void *opaque) {
    if (!batch || batch_len > UINT32_MAX) return CHRONIK_EINVAL;
    node_call *call;
    int rc = call_new(node, CHRONIK_EVENT_PRODUCED, topic, partition, 0, queue, opaque, &call);
    return rc ? rc : produce_send(call, partition, batch, batch_len);
}

/* One record more. Headers are few; they are translated on the stack, or in memory of their own. */
static int add_record(cnk_batch_builder *builder, const chronik_record *r, int64_t now) {
    enum { HEADERS_HERE = 16 };
    cnk_record_header here[HEADERS_HERE], *headers = here;
    if (r->size < sizeof *r || (r->header_count && !r->headers)) return CHRONIK_EINVAL;
    if (r->header_count > HEADERS_HERE) headers = cnk_calloc(r->header_count, sizeof *headers);
    if (!headers) return CHRONIK_ENOMEM;
    int rc = 0;
    for (size_t i = 0; i < r->header_count && !rc; i++) {
        const chronik_header *h = &r->headers[i];
        if (h->name_len > INT32_MAX || h->value_len > INT32_MAX) rc = CHRONIK_EINVAL;
        headers[i] = (cnk_record_header){(const uint8_t *)h->name, h->value, (int32_t)h->name_len,
                                         h->value ? (int32_t)h->value_len : -1};
    }
    cnk_record_spec spec = {.timestamp = r->timestamp_ms < 0 ? now : r->timestamp_ms,
                            .key = r->key,
                            .value = r->value,
                            .key_len = r->key_len,
                            .value_len = r->value_len,
                            .headers = headers,
                            .header_count = r->header_count};
    if (!rc) rc = cnk_batch_builder_add(builder, &spec);
    if (headers != here) cnk_free(headers);
    return rc;
}

int chronik_produce(chronik_node *node, const char *topic, int32_t partition, const chronik_record *records,
                    size_t record_count, chronik_queue *queue, void *opaque) {
    if (!records || !record_count) return CHRONIK_EINVAL;
    node_call *call;
    int rc = call_new(node, CHRONIK_EVENT_PRODUCED, topic, partition, 0, queue, opaque, &call);
    if (rc) return rc;
    cnk_batch_builder builder;
    cnk_batch_builder_init(&builder, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_batch_builder_producer(&builder, -1, -1, -1);
    cnk_writer_growing(&call->u.produce.batch, 0);
    int64_t now = cnk_node_wall_ms();
    for (size_t i = 0; i < record_count && !rc; i++) rc = add_record(&builder, &records[i], now);
    if (!rc) rc = cnk_batch_builder_finish(&builder, &call->u.produce.batch);
    cnk_batch_builder_free(&builder);
    if (rc) {
        call_free(call);
        return rc == CHRONIK_ETOOLARGE ? CHRONIK_EMESSAGETOOLARGE : rc;
    }
    return produce_send(call, partition, call->u.produce.batch.data, call->u.produce.batch.len);
}

/* ---- fetch -------------------------------------------------------------------------------------------------------- */

static void fetch_done(cnk_fetch *op) {
    node_call *call = op->arg;
    const cnk_fetch_part *p = &call->u.fetch.part;
    call->event.a = p->high_watermark;
    call->event.b = p->log_start_offset;
    /* Cancelled by a stop: an empty answer, not an error of the partition. */
    call_answer(call, p->error == CHRONIK_ECANCELED ? CHRONIK_ESHUTDOWN : p->error, NULL);
}

static void fetch_start(node_call *call, int64_t offset) {
    call->u.fetch.listing = false;
    call->u.fetch.part.offset = call->u.fetch.wanted = call->u.fetch.next_offset = offset;
    int rc = cnk_broker_fetch(call->shard->broker, &call->u.fetch.op);
    if (rc < 0) {
        call_answer(call, rc, NULL);
        return;
    }
    call->u.fetch.begun = true;
    if (rc == CNK_DONE) fetch_done(&call->u.fetch.op);
    else if (call->canceled) cnk_broker_fetch_cancel(&call->u.fetch.op);
}

static void list_done(cnk_list_offsets *op) {
    node_call *call = op->arg;
    const cnk_list_offsets_part *p = &call->u.fetch.list_part;
    if (p->error || call->canceled) call_answer(call, p->error ? p->error : CHRONIK_ESHUTDOWN, NULL);
    else fetch_start(call, p->offset);
}

static void fetch_run(chronik_post *post) {
    node_call *call = CNK_CONTAINER(post, node_call, post);
    if (!call_begin(call)) return;
    if (!call->u.fetch.listing) {
        fetch_start(call, call->u.fetch.part.offset);
        return;
    }
    int rc = cnk_broker_list_offsets(call->shard->broker, &call->u.fetch.list);
    if (rc == CNK_DONE) list_done(&call->u.fetch.list);
    else if (rc < 0) call_answer(call, rc, NULL);
}

int chronik_fetch(chronik_node *node, const char *topic, int32_t partition, int64_t offset,
                  const chronik_fetch_options *given, chronik_queue *queue, void *opaque) {
    const chronik_fetch_options defaults = CHRONIK_FETCH_OPTIONS_INIT;
    const chronik_fetch_options *o = given ? given : &defaults;
    if (o->size < sizeof *o || offset < FETCH_EARLIEST) return CHRONIK_EINVAL;
    node_call *call;
    int rc = call_new(node, CHRONIK_EVENT_FETCHED, topic, partition, 0, queue, opaque, &call);
    if (rc) return rc;
    cnk_text name = {call->topic, strlen(call->topic)};
    call->event.release = release_fetch;
    call->u.fetch.part = (cnk_fetch_part){
        .topic = name, .partition = partition, .leader_epoch = -1, .offset = offset, .bytes_max = o->max_bytes};
    call->u.fetch.op = (cnk_fetch){.context = &call->context,
                                   .max_wait_ms = o->max_wait_ms,
                                   .min_bytes = o->min_bytes,
                                   .bytes_max = o->max_bytes,
                                   .parts = &call->u.fetch.part,
                                   .part_count = 1,
                                   .done = fetch_done,
                                   .arg = call};
    if (offset < 0) {
        call->u.fetch.listing = true;
        call->u.fetch.list_part =
            (cnk_list_offsets_part){.topic = name, .partition = partition, .leader_epoch = -1, .timestamp = offset};
        call->u.fetch.list = (cnk_list_offsets){.context = &call->context,
                                                .parts = &call->u.fetch.list_part,
                                                .part_count = 1,
                                                .done = list_done,
                                                .arg = call};
    }
    return call_send(call, fetch_run);
}

const void *chronik_event_data(const chronik_event *event, size_t n, size_t *ret_len) {
    const node_call *call = CNK_CONTAINER(event, node_call, event);
    if (event->type != CHRONIK_EVENT_FETCHED || n >= call->u.fetch.part.slice_count) return NULL;
    *ret_len = call->u.fetch.part.slices[n].iov_len;
    return call->u.fetch.part.slices[n].iov_base;
}

int64_t chronik_event_next_offset(const chronik_event *event) {
    const node_call *call = CNK_CONTAINER(event, node_call, event);
    if (event->type != CHRONIK_EVENT_FETCHED) return -1;
    /* After the last batch, whether its records have been looked at or not. */
    int64_t next = call->u.fetch.wanted;
    for (size_t i = 0; i < call->u.fetch.part.slice_count; i++) {
        const struct iovec *v = &call->u.fetch.part.slices[i];
        cnk_batch b;
        for (size_t at = 0; at < v->iov_len && !cnk_batch_parse((uint8_t *)v->iov_base + at, v->iov_len - at, &b);
             at += b.len)
            if (b.base_offset + b.last_offset_delta + 1 > next) next = b.base_offset + b.last_offset_delta + 1;
    }
    return next;
}

/* Opens the next batch with records to give: 1, 0 at the end, or an error, with the batch left behind. */
static int open_batch(node_call *call) {
    for (;;) {
        if (call->u.fetch.slice >= call->u.fetch.part.slice_count) return 0;
        const struct iovec *v = &call->u.fetch.part.slices[call->u.fetch.slice];
        if (call->u.fetch.at >= v->iov_len) {
            call->u.fetch.slice++;
            call->u.fetch.at = 0;
            continue;
        }
        cnk_batch *b = &call->u.fetch.batch;
        int rc = cnk_batch_parse((uint8_t *)v->iov_base + call->u.fetch.at, v->iov_len - call->u.fetch.at, b);
        if (rc) {
            call->u.fetch.at = v->iov_len; /* where the next one would begin is not known */
            return rc;
        }
        call->u.fetch.at += b->len;
        if (cnk_batch_control(b) || b->base_offset + b->last_offset_delta < call->u.fetch.wanted) continue;
        rc = cnk_records_open(b, DECOMPRESSED_MAX, &call->u.fetch.records);
        if (rc == CHRONIK_ENOMEM) call->u.fetch.at -= b->len;
        if (rc) return rc;
        call->u.fetch.batch_open = true;
        return 1;
    }
}

static int give_record(node_call *call, const cnk_record *r, chronik_record *ret) {
    if (r->header_count > HEADERS_MAX) return CHRONIK_ETOOLARGE;
    void *items = call->u.fetch.headers;
    if (cnk_array_reserve(&items, &call->u.fetch.headers_capacity, (size_t)r->header_count + 1,
                          sizeof *call->u.fetch.headers))
        return CHRONIK_ENOMEM;
    call->u.fetch.headers = items;
    cnk_reader reader = cnk_record_headers(r);
    size_t n = 0;
    for (cnk_record_header h; n < (size_t)r->header_count && cnk_record_header_next(&reader, &h) == 1; n++)
        call->u.fetch.headers[n] = (chronik_header){(const char *)h.key, (size_t)h.key_len, h.value,
                                                    h.value_len < 0 ? 0 : (size_t)h.value_len};
    *ret = (chronik_record){.size = ret->size,
                            .offset = r->offset,
                            .timestamp_ms = r->timestamp,
                            .key = r->key,
                            .key_len = r->key_len < 0 ? 0 : (size_t)r->key_len,
                            .value = r->value,
                            .value_len = r->value_len < 0 ? 0 : (size_t)r->value_len,
                            .headers = n ? call->u.fetch.headers : NULL,
                            .header_count = n};
    return 1;
}

int chronik_event_record(chronik_event *event, chronik_record *ret_record) {
    node_call *call = CNK_CONTAINER(event, node_call, event);
    if (event->type != CHRONIK_EVENT_FETCHED || ret_record->size < sizeof *ret_record) return CHRONIK_EINVAL;
    for (;;) {
        if (!call->u.fetch.batch_open) {
            int rc = open_batch(call);
            if (rc != 1) return rc;
        }
        cnk_record r;
        int rc = cnk_records_next(&call->u.fetch.records, &r);
        if (rc == 1 && r.offset < call->u.fetch.wanted) continue;
        if (rc == 1) return give_record(call, &r, ret_record);
        cnk_records_close(&call->u.fetch.records);
        call->u.fetch.batch_open = false;
        if (rc) return rc;
    }
}

/* ---- stopping ----------------------------------------------------------------------------------------------------- */

static void cancel(node_call *call, bool all) {
    if (call->canceled) return;
    bool fetch = call->event.type == CHRONIK_EVENT_FETCHED;
    if (!fetch && !all) return;
    call->canceled = true;
    if (call->event.type == CHRONIK_EVENT_TOPIC) cnk_broker_create_topics_cancel(&call->u.create.op);
    else if (!fetch) cnk_broker_produce_cancel(&call->u.produce.op);
    else if (call->u.fetch.listing) cnk_broker_list_offsets_cancel(&call->u.fetch.list);
    else if (call->u.fetch.begun) cnk_broker_fetch_cancel(&call->u.fetch.op);
}

void cnk_node_calls_cancel(node_shard *s, bool all) {
    CNK_LIST_EACH(l, &s->calls) cancel(CNK_CONTAINER(l, node_call, link), all);
}

/* ---- the forms that wait ------------------------------------------------------------------------------------------ */

/* Takes the one event of a private queue. */
static int await(chronik_queue *queue, int rc, chronik_error *err, chronik_event **ret_event) {
    chronik_event *event = NULL;
    if (!rc) {
        while (chronik_queue_poll(queue, -1, &event) != 1) {}
        rc = event->error;
    }
    if (rc) cnk_error(err, rc, 0, "%s", event && event->text[0] ? event->text : chronik_strerror(rc));
    *ret_event = event;
    return rc;
}

int chronik_topic_create_sync(chronik_node *node, const char *topic, const chronik_topic_options *options,
                              chronik_error *err) {
    chronik_queue *queue;
    chronik_event *event;
    int rc = chronik_queue_new(err, &queue);
    if (rc) return rc;
    rc = await(queue, chronik_topic_create(node, topic, options, queue, NULL), err, &event);
    chronik_event_free(event);
    chronik_queue_free(queue);
    return rc;
}

int chronik_produce_sync(chronik_node *node, const char *topic, int32_t partition, const chronik_record *records,
                         size_t record_count, chronik_error *err, int64_t *ret_offset) {
    chronik_queue *queue;
    chronik_event *event;
    int rc = chronik_queue_new(err, &queue);
    if (rc) return rc;
    rc = await(queue, chronik_produce(node, topic, partition, records, record_count, queue, NULL), err, &event);
    if (!rc && ret_offset) *ret_offset = event->a;
    chronik_event_free(event);
    chronik_queue_free(queue);
    return rc;
}

int chronik_fetch_sync(chronik_node *node, const char *topic, int32_t partition, int64_t offset,
                       const chronik_fetch_options *options, chronik_error *err, chronik_event **ret_event) {
    chronik_queue *queue;
    chronik_event *event;
    int rc = chronik_queue_new(err, &queue);
    if (rc) return rc;
    rc = await(queue, chronik_fetch(node, topic, partition, offset, options, queue, NULL), err, &event);
    if (rc) chronik_event_free(event);
    else *ret_event = event;
    chronik_queue_free(queue);
    return rc;
}
