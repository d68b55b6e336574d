/* Idempotent producers (KIP-98; K6, R9): which batches a producer has written, so that a retry is recognised.
 *
 * Invariants
 *  - `committed` is a pure function of the committed entries and the caps; checkpoints store it alone.
 *  - `head` exists where a producer has pending entries, and is `committed` with those entries put to it in order, an
 *    entry that forgets idle producers among them; `expiring` is the head that such an entry alone has made.
 *  - The list `idle` is in the order of the last committed batch, so that all replicas forget the same producer (R10).
 *
 * Owner: the thread of the stream's shard. */
#include <limits.h>

#include "base/assert.h"
#include "base/mem.h"
#include "log/internal.h"

static const producer_window nothing = {.epoch = NO_EPOCH};

static const producer_window *newest(const producer *p);
static bool expires(const producer_window *w, const pending_entry *e);
static void expire_head(producer *p, const pending_entry *e);
static void head_settle(producer *p);
static void uncommit(cnk_log *log, producer *p);
static const seen_batch *find_seen(const producer_window *w, const cnk_batch *batch, int32_t last);
static void window_put(producer_window *w, int16_t epoch, const seen_batch *seen);
static int check_sequence(cnk_log *log, const producer_window *w, const cnk_batch *batch);
static void forget(cnk_log *log, producer *p);
static void evict(cnk_log *log);
static void drop_tentative(cnk_log *log);
static void refused_remove(cnk_log *log, refused *r);

int32_t cnk_log_sequence_add(int32_t sequence, int32_t n) {
    uint32_t sum = (uint32_t)sequence + (uint32_t)n; /* both at most 2^31 - 1 */
    return (int32_t)(sum & INT32_MAX);               /* 2^31 - 1 is followed by 0 */
}

/* 0: append it. EDUPLICATE: *ret_duplicate says which one it is. */
int cnk_log_producer_check(cnk_log *log, const cnk_batch *batch, const seen_batch **ret_duplicate) {
    drop_tentative(log);
    producer *p = cnk_map_get(&log->producers, (uint64_t)batch->producer_id);
    const producer_window *w = p ? newest(p) : &nothing;
    if (w->epoch == batch->producer_epoch) {
        int32_t last = cnk_log_sequence_add(batch->base_sequence, batch->last_offset_delta);
        const seen_batch *seen = find_seen(w, batch, last);
        if (seen) {
            *ret_duplicate = seen;
            return CHRONIK_EDUPLICATE;
        }
    }
    return check_sequence(log, w, batch);
}

/* KIP-98, as Kafka has it: a lower epoch is fenced; a higher one starts at 0; else the sequence goes on, wrapping from
 * 2^31 - 1 to 0. Where nothing is known, any sequence may be the first, unless an earlier one was turned away and is on
 * its way back (KAFKA-14884): taking a later one first would turn the earlier into a false duplicate or a gap. */
static int check_sequence(cnk_log *log, const producer_window *w, const cnk_batch *batch) {
    if (w->epoch == NO_EPOCH) {
        const refused *r = cnk_map_get(&log->refused_by_id, (uint64_t)batch->producer_id);
        bool later = r && r->epoch == batch->producer_epoch && batch->base_sequence > r->sequence;
        return later ? CHRONIK_EOUTOFORDER : 0;
    }
    if (batch->producer_epoch < w->epoch) return CHRONIK_EPRODUCEREPOCH;
    if (batch->producer_epoch > w->epoch) return batch->base_sequence == 0 ? 0 : CHRONIK_EOUTOFORDER;
    CNK_ASSERT(w->count > 0);
    int32_t expected = cnk_log_sequence_add(w->batch[w->count - 1].last_sequence, 1);
    return batch->base_sequence == expected ? 0 : CHRONIK_EOUTOFORDER;
}

int cnk_log_producer_ready(cnk_log *log, int64_t id) {
    producer *p = cnk_map_get(&log->producers, (uint64_t)id);
    if (p == NULL) {
        p = cnk_calloc(1, sizeof *p);
        if (p == NULL) return CHRONIK_ENOMEM;
        p->id = id;
        p->committed.epoch = NO_EPOCH;
        if (cnk_map_put(&log->producers, (uint64_t)id, p) != 0) {
            cnk_free(p);
            return CHRONIK_ENOMEM;
        }
        log->tentative = p;
    }
    if (p->head == NULL) {
        producer_window *head = cnk_malloc(sizeof *head);
        if (head == NULL) {
            drop_tentative(log);
            return CHRONIK_ENOMEM;
        }
        *head = *newest(p);
        p->head = head;
    }
    return 0;
}

producer *cnk_log_producer_append(cnk_log *log, int64_t id, int16_t epoch, const seen_batch *seen) {
    producer *p = cnk_map_get(&log->producers, (uint64_t)id);
    CNK_ASSERT(p != NULL && p->head != NULL); /* cnk_log_producer_ready came before */
    window_put(p->head, epoch, seen);
    p->pending++;
    refused *r = cnk_map_get(&log->refused_by_id, (uint64_t)id);
    if (r) refused_remove(log, r);
    return p;
}

void cnk_log_producer_commit(cnk_log *log, const pending_entry *e) {
    producer *p = e->producer;
    CNK_ASSERT(p->pending > 0);
    if (p->committed.epoch == NO_EPOCH) {
        log->known++;
        log->shard->producers++;
    }
    window_put(&p->committed, e->epoch, &e->seen);
    cnk_list_remove(&p->lru);
    cnk_list_push_back(&log->idle, &p->lru);
    if (--p->pending == 0) {
        CNK_ASSERT(p->head->epoch == NO_EPOCH || cnk_log_windows_equal(&p->committed, p->head));
        head_settle(p);
    }
    evict(log);
}

bool cnk_log_expirable(const cnk_log *log, int64_t cutoff_ms, int64_t before_offset) {
    const pending_entry e = {.seen = {.timestamp = cutoff_ms, .base_offset = before_offset}};
    for (const cnk_list *it = log->idle.next; it != &log->idle; it = it->next)
        if (expires(newest(CNK_CONTAINER(it, producer, lru)), &e)) return true;
    return false;
}

void cnk_log_producers_expire_head(cnk_log *log, const pending_entry *e) {
    producer *p;
    for (size_t it = 0; (p = cnk_map_next(&log->producers, &it)) != NULL;) expire_head(p, e);
}

/* The same producers as when it was appended: all entries before this one are committed by now. */
void cnk_log_producers_expire_commit(cnk_log *log, const pending_entry *e) {
    CNK_LIST_EACH(node, &log->idle) {
        producer *p = CNK_CONTAINER(node, producer, lru);
        if (!expires(&p->committed, e)) continue;
        uncommit(log, p);
        if (p->pending > 0) continue;
        cnk_free(p->head);
        p->head = NULL;
        forget(log, p);
    }
}

void cnk_log_producers_rebuild(cnk_log *log) {
    producer *p;
    for (size_t it = 0; (p = cnk_map_next(&log->producers, &it)) != NULL;) {
        p->pending = 0;
        p->expiring = false;
        if (p->head) *p->head = p->committed;
    }
    for (size_t i = 0; i < log->pending_count; i++) {
        pending_entry *e = pending_at(log, i);
        if (e->expires) cnk_log_producers_expire_head(log, e);
        if (e->producer) {
            window_put(e->producer->head, e->epoch, &e->seen);
            e->producer->pending++;
        }
    }
    /* The map must not change while it is walked: one at a time, from the start. */
    for (size_t it = 0; (p = cnk_map_next(&log->producers, &it)) != NULL;) {
        if (p->pending > 0 || (p->head == NULL && p->committed.epoch != NO_EPOCH)) continue;
        head_settle(p);
        if (p->committed.epoch == NO_EPOCH) {
            forget(log, p);
            it = 0;
        }
    }
}

int cnk_log_producers_list(const cnk_log *log, cnk_log_producer **ret_producers, size_t *ret_count) {
    size_t n = 0;
    cnk_log_producer *rows = cnk_calloc(log->known ? log->known : 1, sizeof *rows);
    if (rows == NULL) return CHRONIK_ENOMEM;
    for (const cnk_list *it = log->idle.next; it != &log->idle; it = it->next, n++) {
        const producer *p = CNK_CONTAINER(it, producer, lru);
        const seen_batch *last = &p->committed.batch[p->committed.count - 1];
        CNK_ASSERT(n < log->known);
        rows[n] = (cnk_log_producer){p->id, last->timestamp, last->last_sequence, p->committed.epoch};
    }
    *ret_producers = rows;
    *ret_count = n;
    return 0;
}

int cnk_log_producer_restore(cnk_log *log, int64_t id, const producer_window *window) {
    if (cnk_map_get(&log->producers, (uint64_t)id)) return CHRONIK_ECORRUPT;
    producer *p = cnk_calloc(1, sizeof *p);
    if (p == NULL) return CHRONIK_ENOMEM;
    p->id = id;
    p->committed = *window;
    if (cnk_map_put(&log->producers, (uint64_t)id, p) != 0) {
        cnk_free(p);
        return CHRONIK_ENOMEM;
    }
    log->known++;
    log->shard->producers++;
    cnk_list_push_back(&log->idle, &p->lru);
    return 0;
}

void cnk_log_producers_free(cnk_log *log) {
    producer *p;
    for (size_t it = 0; (p = cnk_map_next(&log->producers, &it)) != NULL;) {
        cnk_free(p->head);
        cnk_free(p);
    }
    log->shard->producers -= log->known;
    cnk_map_free(&log->producers);
    CNK_LIST_EACH(node, &log->refused) cnk_free(CNK_CONTAINER(node, refused, node));
    cnk_map_free(&log->refused_by_id);
}

/* Best effort: without memory the rejection is not remembered, and the producer runs into Kafka's old behaviour. */
void cnk_log_refused(cnk_log *log, const cnk_batch *batch) {
    if (batch->producer_id < 0) return;
    drop_tentative(log);
    const producer *p = cnk_map_get(&log->producers, (uint64_t)batch->producer_id);
    if (p && newest(p)->epoch != NO_EPOCH) return; /* its window tells a gap by itself */
    refused *r = cnk_map_get(&log->refused_by_id, (uint64_t)batch->producer_id);
    if (r) {
        if (batch->producer_epoch > r->epoch ||
            (batch->producer_epoch == r->epoch && batch->base_sequence < r->sequence)) {
            r->epoch = batch->producer_epoch;
            r->sequence = batch->base_sequence;
        }
        return;
    }
    if (log->refused_count >= CNK_LOG_REFUSED_MAX) refused_remove(log, CNK_CONTAINER(log->refused.next, refused, node));
    r = cnk_calloc(1, sizeof *r);
    if (r == NULL) return;
    r->id = batch->producer_id;
    r->epoch = batch->producer_epoch;
    r->sequence = batch->base_sequence;
    if (cnk_map_put(&log->refused_by_id, (uint64_t)r->id, r) != 0) {
        cnk_free(r);
        return;
    }
    cnk_list_push_back(&log->refused, &r->node);
    log->refused_count++;
}

bool cnk_log_windows_equal(const producer_window *a, const producer_window *b) {
    if (a->epoch != b->epoch || a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->batch[i].base_offset != b->batch[i].base_offset ||
            a->batch[i].first_sequence != b->batch[i].first_sequence ||
            a->batch[i].last_sequence != b->batch[i].last_sequence)
            return false;
    return true;
}

static const producer_window *newest(const producer *p) {
    return p->head ? p->head : p->expiring ? &nothing : &p->committed;
}

static bool expires(const producer_window *w, const pending_entry *e) {
    if (w->epoch == NO_EPOCH) return false;
    const seen_batch *last = &w->batch[w->count - 1];
    return last->timestamp <= e->seen.timestamp && last->base_offset < e->seen.base_offset;
}

static void expire_head(producer *p, const pending_entry *e) {
    if (!expires(newest(p), e)) return;
    if (p->head)
        *p->head = nothing;
    else
        p->expiring = true;
}

/* No entry of the producer is pending: what its head says is the committed state, or that it is to be forgotten. */
static void head_settle(producer *p) {
    if (p->head) p->expiring = p->head->epoch == NO_EPOCH && p->committed.epoch != NO_EPOCH;
    cnk_free(p->head);
    p->head = NULL;
}

/* Nothing is known of it any more, but for what its pending entries will leave. */
static void uncommit(cnk_log *log, producer *p) {
    cnk_list_remove(&p->lru);
    log->known--;
    log->shard->producers--;
    p->committed = nothing;
    p->expiring = false;
}

static const seen_batch *find_seen(const producer_window *w, const cnk_batch *batch, int32_t last) {
    for (size_t i = w->count; i-- > 0;)
        if (w->batch[i].first_sequence == batch->base_sequence && w->batch[i].last_sequence == last)
            return &w->batch[i];
    return NULL;
}

static void window_put(producer_window *w, int16_t epoch, const seen_batch *seen) {
    if (w->epoch != epoch) {
        w->epoch = epoch;
        w->count = 0;
    }
    if (w->count == CNK_LOG_PRODUCER_BATCHES) {
        memmove(&w->batch[0], &w->batch[1], (CNK_LOG_PRODUCER_BATCHES - 1) * sizeof w->batch[0]);
        w->count--;
    }
    w->batch[w->count++] = *seen;
}

static void forget(cnk_log *log, producer *p) {
    CNK_ASSERT(p->pending == 0 && p->head == NULL && p->committed.epoch == NO_EPOCH);
    cnk_map_remove(&log->producers, (uint64_t)p->id);
    if (log->tentative == p) log->tentative = NULL;
    cnk_free(p);
}

/* Over a cap: the longest idle producer of this log goes. One with pending entries keeps its place in memory until they
 * commit, and what they leave is all that is known of it then: its head has to forget as well. */
static void evict(cnk_log *log) {
    while (log->known > 1 && /* the newest stays */
           (log->known > log->shard->producers_per_log_max || log->shard->producers > log->shard->producers_max)) {
        producer *p = CNK_CONTAINER(log->idle.next, producer, lru);
        uncommit(log, p);
        log->shard->producers_evicted++;
        if (p->pending == 0) {
            cnk_free(p->head); /* a check that was not followed by an append may have left one */
            p->head = NULL;
            forget(log, p);
            continue;
        }
        *p->head = nothing;
        for (size_t i = 0; i < log->pending_count; i++) {
            const pending_entry *e = pending_at(log, i);
            if (e->expires) expire_head(p, e);
            if (e->producer == p) window_put(p->head, e->epoch, &e->seen);
        }
    }
}

static void drop_tentative(cnk_log *log) {
    producer *p = log->tentative;
    log->tentative = NULL;
    if (p == NULL || p->pending > 0 || p->committed.epoch != NO_EPOCH) return;
    cnk_free(p->head);
    p->head = NULL;
    forget(log, p);
}

static void refused_remove(cnk_log *log, refused *r) {
    cnk_list_remove(&r->node);
    cnk_map_remove(&log->refused_by_id, (uint64_t)r->id);
    log->refused_count--;
    cnk_free(r);
}
