/* Produce: from the caller's batch to the replica, and back when it is committed.
 *
 *   caller's shard: find, validate ──message──► owner: propose ─┬─ 0 ────► waiting (by index) ──committed──┐
 *        ▲                                                      ├─ EAGAIN ► fifo ──writable──► propose      │
 *        │                                                      └─ error ──┐                               │
 *        └──────────────────────────message────────────────────────────────┴───────────────────────────────┘
 * A batch that the topic wants in another codec, and a message set of old, go through the fifo, too, and a job converts
 * them meanwhile (T4).
 * Where the owner is the caller's own shard there is no message: the bytes are in the WAL when the starting call
 * returns.
 *
 * Invariants
 *  - A part is in exactly one place: on its way, in a partition's fifo, in a partition's waiting list, or answered.
 *  - The record data is not touched any more once the part has left the fifo (or never entered it).
 *  - Once a batch has been appended the answer is its commit, or a code that clients retry (K4).
 *
 * Owner: each part's current shard, by message; the operation itself its caller's. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/internal.h"
#include "record/message_set.h"

#define NOTHING_TO_DO 1
#define ZSTD_TAKEN_VERSION 7

enum {
    STEP_NEW = 0,
    STEP_CONVERTING, /* in the fifo, its batch with a job */
    STEP_FIFO,       /* in the fifo */
    STEP_WAITING,    /* appended, in the waiting list */
    STEP_ORPHAN,     /* given up while its batch is with a job: answered when that ends */
    STEP_ANSWERED
};

static int check_part(cnk_shard *shard, const cnk_produce *op, cnk_produce_part *part);
static int validate(const cnk_shard *shard, const cnk_produce *op, const cnk_meta_topic *topic, cnk_produce_part *part);
static bool needs_conversion(const cnk_produce_part *part);
static void run_at_owner(chronik_post *post);
static void enqueue(cnk_partition *p, cnk_produce_part *part);
static int propose(cnk_partition *p, cnk_produce_part *part);
static void refuse(cnk_partition *p, cnk_produce_part *part, int rc);
static void give_up_part(cnk_shard *owner, cnk_produce_part *part, int code);
static void wait_for_commit(cnk_partition *p, cnk_produce_part *part);
static void answer(cnk_shard *owner, cnk_produce_part *part, int error);
static void run_at_home(chronik_post *post);
static void run_taken(chronik_post *post);
static void part_taken(cnk_produce_part *part);
static void part_closed(cnk_produce *op);
static void give_up(cnk_produce *op, int code);
static void run_cancel(chronik_post *post);
static void run_cancel_home(chronik_post *post);
static void on_deadline(cnk_deadline *deadline);
static bool retriable(int error);

int cnk_broker_produce(cnk_shard *shard, cnk_produce *op) {
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    if (op->part_count > CNK_PRODUCE_PARTS_MAX) return CHRONIK_ETOOLARGE;
    int32_t timeout_ms = op->timeout_ms > CNK_PRODUCE_TIMEOUT_MIN_MS ? op->timeout_ms : CNK_PRODUCE_TIMEOUT_MIN_MS;
    op->shard = shard;
    op->open_parts = op->part_count;
    op->cancels = 0;
    op->stop_code = 0;
    op->starting = true;
    op->data_needed = false;
    op->held_parts = 0;
    op->deadline = (cnk_deadline){.fire = on_deadline};
    cnk_list_init(&op->node);
    cnk_list_init(&op->done_node);
    cnk_list_init(&op->taken_node);
    bool known = op->context && op->context->begun_ns;
    op->begun_ns = known ? op->context->begun_ns : cnk_shard_now_ns(shard);
    int rc = cnk_shard_deadline_set(shard, &op->deadline, op->begun_ns + (uint64_t)timeout_ms * 1000000u);
    if (rc != 0) return rc;
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_produce_part *part = &op->parts[i];
        part->op = op;
        part->fault_record = -1;
        part->error_text = NULL;
        part->base_offset = part->log_append_time_ms = part->log_start_offset = -1;
        part->leader_id = part->leader_epoch = -1;
        part->step = STEP_NEW;
        part->old_set = part->unopened = false;
        part->conversion = NULL;
        part->held = false;
        cnk_list_init(&part->node);
        rc = check_part(shard, op, part);
        if (rc != 0) {
            answer(shard, part, rc == NOTHING_TO_DO ? 0 : rc);
            continue;
        }
        part->post.run = run_at_owner;
        cnk_shard_post(shard, cnk_shard_owner(shard->broker, part->stream), &part->post);
    }
    op->starting = false;
    if (op->open_parts == 0) {
        cnk_shard_deadline_clear(shard, &op->deadline);
        op->ended_ns = cnk_shard_now_ns(shard);
        cnk_latency_add(&shard->stats.produce_latency, op->ended_ns - op->begun_ns);
        return CNK_DONE;
    }
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_produce_part *part = &op->parts[i];
        bool here = part->stream == 0 || cnk_shard_owner(shard->broker, part->stream) == shard;
        part->held = !here || part->step == STEP_FIFO || part->step == STEP_CONVERTING;
        op->held_parts += part->held;
    }
    op->data_needed = op->held_parts > 0;
    cnk_list_push_back(&shard->produces, &op->node);
    return CNK_PENDING;
}

void cnk_broker_produce_cancel(cnk_produce *op) {
    if (op->acks != 0) give_up(op, CHRONIK_ECANCELED);
}

void cnk_produce_stop(cnk_shard *shard) {
    cnk_partition *p;
    for (size_t it = 0; (p = cnk_map_next(&shard->partitions, &it)) != NULL;)
        for (cnk_list *node; (node = cnk_list_pop_front(&p->fifo)) != NULL;)
            give_up_part(shard, CNK_CONTAINER(node, cnk_produce_part, node), CHRONIK_ESHUTDOWN);
}

void cnk_produce_flush(cnk_shard *shard) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->produces_taken)) != NULL;) {
        cnk_produce *op = CNK_CONTAINER(node, cnk_produce, taken_node);
        op->data_needed = false;
        op->taken(op);
    }
    if (cnk_list_empty(&shard->produces_done)) return;
    uint64_t now = cnk_shard_now_ns(shard); /* once for all that a sync has made durable */
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->produces_done)) != NULL;) {
        cnk_produce *op = CNK_CONTAINER(node, cnk_produce, done_node);
        cnk_list_remove(&op->node);
        cnk_shard_deadline_clear(shard, &op->deadline);
        op->data_needed = false;
        op->ended_ns = now > op->begun_ns ? now : op->begun_ns;
        cnk_latency_add(&shard->stats.produce_latency, op->ended_ns - op->begun_ns);
        op->done(op);
    }
}

/* ---- the caller's shard ----------------------------------------------------------------------------------------- */

static int check_part(cnk_shard *shard, const cnk_produce *op, cnk_produce_part *part) {
    const cnk_meta_topic *topic = NULL;
    int error = 0;
    part->stream = 0;
    if (op->acks < -1 || op->acks > 1) return CHRONIK_EINVALIDACKS;
    const cnk_meta_partition *mp =
        cnk_partition_find(shard->image, part->topic, &part->topic_id, part->partition, &topic, &error);
    if (mp == NULL) return error;
    if (topic->internal) return CHRONIK_EINVALIDTOPIC; /* the coordinators' alone */
    error = validate(shard, op, topic, part);
    if (error != 0) return error;
    part->stream = mp->stream;
    part->append_time = topic->settings.append_time;
    part->min_insync = topic->settings.min_insync_replicas;
    part->codec = !part->old_set && topic->settings.codec == cnk_batch_codec(&part->batch) ? CNK_TOPIC_CODEC_PRODUCER
                                                                                           : topic->settings.codec;
    part->codec_level = topic->settings.codec_level;
    part->bytes_max = topic->settings.max_message_bytes;
    cnk_counter_add(&shard->stats.produce_parts, 1);
    cnk_counter_add(&shard->stats.produce_bytes, part->len);
    cnk_counter_add(&shard->stats.produce_records, (uint64_t)part->batch.count);
    return 0;
}

cnk_batch_rules cnk_produce_rules(const cnk_shard *shard, const cnk_topic_settings *s, int16_t version) {
    /* Kafka asks from version 3 on whether the client knows zstd. */
    return (cnk_batch_rules){.produce_version = version < 3 ? ZSTD_TAKEN_VERSION : version,
                             .bytes_max = s->max_message_bytes,
                             .now_ms = cnk_shard_wall_ms(shard),
                             .timestamp_before_max_ms = s->timestamp_before_max_ms,
                             .timestamp_after_max_ms = s->timestamp_after_max_ms,
                             .append_time = s->append_time,
                             .compacted = s->compact,
                             .decompressed_bytes_max = CNK_PRODUCE_DECOMPRESSED_MAX};
}

static int validate(const cnk_shard *shard, const cnk_produce *op, const cnk_meta_topic *topic,
                    cnk_produce_part *part) {
    cnk_batch_rules rules = cnk_produce_rules(shard, &topic->settings, op->version);
    cnk_batch_fault fault = {-1, NULL};
    if (part->data == NULL) {
        part->error_text = "The record set is null";
        return CHRONIK_EINVALIDRECORD;
    }
    if (op->version < 3) {
        int format = cnk_message_set_format(part->data, part->len);
        if (format == CHRONIK_ENOTFOUND) return NOTHING_TO_DO;
        if (format < 0) return format;
        part->old_set = format < 2;
        if (part->old_set) { /* the job judges it */
            part->batch = (cnk_batch){.data = part->data, .len = part->len, .producer_id = -1};
            return 0;
        }
    }
    rules.decompressed_bytes_max = CNK_PRODUCE_OPENED_HERE_MAX;
    int rc = cnk_batch_validate(part->data, part->len, &rules, &part->batch, &fault);
    part->unopened = rc == CHRONIK_EBOMB;
    if (part->unopened) rc = cnk_batch_parse(part->data, part->len, &part->batch);
    if (rc != 0) {
        part->fault_record = fault.record;
        part->error_text = fault.text;
        return rc;
    }
    if (cnk_batch_transactional(&part->batch))
        return CHRONIK_ETXNIDAUTH; /* there is no transaction that it could belong to */
    return 0;
}

static void run_at_home(chronik_post *post) {
    cnk_produce_part *part = CNK_CONTAINER(post, cnk_produce_part, post);
    part_taken(part);
    part_closed(part->op);
}

static void run_taken(chronik_post *post) { part_taken(CNK_CONTAINER(post, cnk_produce_part, taken_post)); }

static void part_taken(cnk_produce_part *part) {
    cnk_produce *op = part->op;
    if (!part->held) return;
    part->held = false;
    if (--op->held_parts > 0 || op->taken == NULL) return;
    cnk_list_push_back(&op->shard->produces_taken, &op->taken_node);
    cnk_shard_flush(op->shard);
}

static void part_closed(cnk_produce *op) {
    CNK_ASSERT(op->open_parts > 0);
    if (--op->open_parts > 0 || op->cancels > 0 || op->starting) return;
    cnk_list_push_back(&op->shard->produces_done, &op->done_node);
    cnk_shard_flush(op->shard);
}

static void on_deadline(cnk_deadline *deadline) {
    give_up(CNK_CONTAINER(deadline, cnk_produce, deadline), CHRONIK_ETIMEDOUT);
}

/* A message to each part that may still be open: its owner answers it, or finds it answered already. */
static void give_up(cnk_produce *op, int code) {
    if (op->stop_code != 0 || cnk_list_linked(&op->done_node) || !cnk_list_linked(&op->node))
        return; /* under way, or over already */
    op->stop_code = code;
    op->cancels = 1; /* held until all messages are out */
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_produce_part *part = &op->parts[i];
        if (part->stream == 0) continue;
        op->cancels++;
        part->cancel_post.run = run_cancel;
        cnk_shard_post(op->shard, cnk_shard_owner(op->shard->broker, part->stream), &part->cancel_post);
    }
    if (--op->cancels == 0 && op->open_parts == 0) {
        cnk_list_push_back(&op->shard->produces_done, &op->done_node);
        cnk_shard_flush(op->shard);
    }
}

static void run_cancel_home(chronik_post *post) {
    cnk_produce *op = CNK_CONTAINER(post, cnk_produce_part, cancel_post)->op;
    if (--op->cancels > 0 || op->open_parts > 0) return;
    cnk_list_push_back(&op->shard->produces_done, &op->done_node);
    cnk_shard_flush(op->shard);
}

/* ---- the owner's shard ------------------------------------------------------------------------------------------ */

static void run_at_owner(chronik_post *post) {
    cnk_produce_part *part = CNK_CONTAINER(post, cnk_produce_part, post);
    cnk_shard *shard = cnk_shard_owner(part->op->shard->broker, part->stream);
    cnk_partition *p = cnk_shard_partition(shard, part->stream);
    if (p == NULL || p->gone) {
        answer(shard, part, CHRONIK_EUNKNOWNTOPIC);
    } else if (p->replica == NULL) {
        answer(shard, part, CHRONIK_ESTORAGE);
    } else if (shard->stopping) {
        answer(shard, part, CHRONIK_ESHUTDOWN);
    } else if (part->op->acks == -1 && part->min_insync > cnk_replica_config_of(p->replica)->new_.count) {
        refuse(p, part, CHRONIK_ENOTENOUGHREPLICAS);
    } else if (needs_conversion(part) || !cnk_list_empty(&p->fifo)) {
        enqueue(p, part); /* T4: behind those who wait already */
    } else if (propose(p, part) == CHRONIK_EAGAIN) {
        enqueue(p, part);
    }
}

static bool needs_conversion(const cnk_produce_part *part) {
    return part->old_set || part->unopened || part->codec != CNK_TOPIC_CODEC_PRODUCER;
}

static void enqueue(cnk_partition *p, cnk_produce_part *part) {
    cnk_shard *shard = p->shard;
    if (cnk_counter_get(&shard->stats.waiting_parts) >= shard->broker->options.waiting_parts_max) {
        cnk_counter_add(&shard->stats.parts_refused, 1);
        refuse(p, part, CHRONIK_EAGAIN);
        return;
    }
    part->step = STEP_FIFO;
    if (needs_conversion(part)) {
        int rc = cnk_convert_begin(shard, part);
        if (rc != 0) {
            refuse(p, part, rc);
            return;
        }
        part->step = STEP_CONVERTING;
    }
    cnk_counter_add(&shard->stats.waiting_parts, 1);
    cnk_list_push_back(&p->fifo, &part->node);
    if (!cnk_list_linked(&p->blocked_node)) cnk_list_push_back(&shard->blocked, &p->blocked_node);
}

/* EAGAIN: it is still the caller's; else it waits for its commit, or is answered. */
static int propose(cnk_partition *p, cnk_produce_part *part) {
    cnk_replica_place place = {0, -1, -1};
    int64_t stamp = part->append_time ? cnk_shard_wall_ms(p->shard) : -1;
    int rc = cnk_replica_propose_batch(p->replica, &part->batch, stamp, &place);
    if (rc == CHRONIK_EAGAIN) return rc;
    cnk_list_remove(&part->node);
    cnk_convert_free(part);
    if (rc != 0 && rc != CHRONIK_EDUPLICATE) {
        refuse(p, part, rc);
        return 0;
    }
    if (rc == 0) {
        cnk_counter_add(&p->leader->messages_in, (uint64_t)part->batch.count);
        cnk_counter_add(&p->leader->bytes_in, part->batch.len);
    }
    part->index = place.index;
    part->base_offset = place.base_offset;
    part->log_append_time_ms = place.append_time_ms;
    if (part->op->acks == 0 || place.index <= cnk_replica_commit_index(p->replica)) {
        part->log_start_offset = cnk_log_start(cnk_replica_log(p->replica));
        answer(p->shard, part, 0);
    } else {
        wait_for_commit(p, part);
    }
    return 0;
}

static void refuse(cnk_partition *p, cnk_produce_part *part, int rc) {
    if (rc == CHRONIK_ENOSPC || rc == CHRONIK_EFENCED || rc == CHRONIK_ECORRUPT) rc = CHRONIK_ESTORAGE;
    if (rc == CHRONIK_EUNSUPPORTED) rc = CHRONIK_ETXNIDAUTH;
    if (rc == CHRONIK_ENOTLEADER) {
        part->leader_id = cnk_replica_leader(p->replica);
        part->leader_epoch = (int32_t)cnk_replica_term(p->replica);
    }
    if (retriable(rc)) cnk_log_refused(cnk_replica_log(p->replica), &part->batch);
    answer(p->shard, part, rc);
}

/* By index; nearly always the last. A duplicate of a batch in flight may belong further ahead. */
static void wait_for_commit(cnk_partition *p, cnk_produce_part *part) {
    cnk_list *before = p->waiting.prev;
    while (before != &p->waiting && CNK_CONTAINER(before, cnk_produce_part, node)->index > part->index)
        before = before->prev;
    part->step = STEP_WAITING;
    cnk_list_push_front(before, &part->node);
    if (part->op->taken == NULL) return;
    part->taken_post.run = run_taken;
    cnk_shard_post(p->shard, part->op->shard, &part->taken_post);
}

void cnk_produce_committed(cnk_partition *p, uint64_t commit_index) {
    int64_t log_start = cnk_log_start(cnk_replica_log(p->replica));
    while (!cnk_list_empty(&p->waiting)) {
        cnk_produce_part *part = CNK_CONTAINER(p->waiting.next, cnk_produce_part, node);
        if (part->index > commit_index) break;
        cnk_list_remove(&part->node);
        part->log_start_offset = log_start;
        answer(p->shard, part, 0);
    }
}

/* The entries are gone with their leader: the client asks again, elsewhere. */
void cnk_produce_truncated(cnk_partition *p, uint64_t last_index_kept) {
    while (!cnk_list_empty(&p->waiting)) {
        cnk_produce_part *part = CNK_CONTAINER(p->waiting.prev, cnk_produce_part, node);
        if (part->index <= last_index_kept) break;
        cnk_list_remove(&part->node);
        answer(p->shard, part, CHRONIK_ENOTLEADER);
    }
}

void cnk_produce_retry(cnk_partition *p) {
    while (!cnk_list_empty(&p->fifo)) {
        cnk_produce_part *part = CNK_CONTAINER(p->fifo.next, cnk_produce_part, node);
        if (part->step == STEP_CONVERTING || propose(p, part) == CHRONIK_EAGAIN) return;
        cnk_counter_sub(&p->shard->stats.waiting_parts, 1);
    }
    cnk_list_remove(&p->blocked_node);
}

void cnk_produce_converted(cnk_shard *owner, cnk_produce_part *part, int error) {
    cnk_partition *p = cnk_shard_partition(owner, part->stream);
    if (part->step == STEP_ORPHAN) {
        answer(owner, part, part->error);
        return;
    }
    CNK_ASSERT(part->step == STEP_CONVERTING && p != NULL);
    part->step = STEP_FIFO;
    if (part->old_set && error == 0) cnk_counter_add(&owner->stats.produce_records, (uint64_t)part->batch.count);
    if (error != 0) {
        cnk_list_remove(&part->node);
        cnk_counter_sub(&owner->stats.waiting_parts, 1);
        refuse(p, part, error);
    }
    cnk_produce_retry(p);
}

void cnk_produce_gone(cnk_partition *p, int code) {
    for (cnk_list *node; (node = cnk_list_pop_front(&p->fifo)) != NULL;)
        give_up_part(p->shard, CNK_CONTAINER(node, cnk_produce_part, node), code);
    for (cnk_list *node; (node = cnk_list_pop_front(&p->waiting)) != NULL;)
        answer(p->shard, CNK_CONTAINER(node, cnk_produce_part, node), code);
    cnk_list_remove(&p->blocked_node);
}

/* A part that has just left the fifo. */
static void give_up_part(cnk_shard *owner, cnk_produce_part *part, int code) {
    cnk_counter_sub(&owner->stats.waiting_parts, 1);
    if (part->step == STEP_CONVERTING && !cnk_convert_cancel(part)) {
        part->step = STEP_ORPHAN;
        part->error = code;
        return;
    }
    answer(owner, part, code);
}

static void run_cancel(chronik_post *post) {
    cnk_produce_part *part = CNK_CONTAINER(post, cnk_produce_part, cancel_post);
    cnk_shard *shard = cnk_shard_owner(part->op->shard->broker, part->stream);
    if (part->step == STEP_FIFO || part->step == STEP_CONVERTING) {
        cnk_partition *p = cnk_shard_partition(shard, part->stream);
        cnk_list_remove(&part->node);
        cnk_log_refused(cnk_replica_log(p->replica), &part->batch);
        give_up_part(shard, part, part->op->stop_code);
        cnk_produce_retry(p); /* those behind it */
    } else if (part->step == STEP_WAITING) {
        cnk_list_remove(&part->node);
        answer(shard, part, part->op->stop_code);
    }
    part->cancel_post.run = run_cancel_home;
    cnk_shard_post(shard, part->op->shard, &part->cancel_post);
}

static void answer(cnk_shard *owner, cnk_produce_part *part, int error) {
    CNK_ASSERT(part->step != STEP_ANSWERED);
    cnk_convert_free(part);
    part->step = STEP_ANSWERED;
    part->error = error;
    if (error != 0) part->base_offset = part->log_append_time_ms = -1;
    part->post.run = run_at_home;
    cnk_shard_post(owner, part->op->shard, &part->post);
}

/* Codes after which an idempotent client sends the same sequence again. */
static bool retriable(int error) {
    return error == CHRONIK_EAGAIN || error == CHRONIK_ETIMEDOUT || error == CHRONIK_ESTORAGE ||
           error == CHRONIK_ENOTENOUGHREPLICAS || error == CHRONIK_ENOTLEADER || error == CHRONIK_ENOMEM ||
           error == CHRONIK_ESHUTDOWN;
}
