/* Fetch sessions: see session.h. */
#include "kafka/session.h"

#include <string.h>

/* A row of a hash table, and what the allocator adds. */
#define OVERHEAD_BYTES 64u

static cnk_kafka_session *session_new(cnk_kafka *k, bool by_id);
static void session_close(cnk_kafka_session *s);
static bool room(cnk_kafka *k, const cnk_kafka_session *s);
static int32_t id_new(cnk_kafka *k);
static int add_told(cnk_kafka_session *s, const cnk_kafka_fetch_answer *told);
static int update_topic(cnk_kafka_session *s, const cnk_fetch_request_fetch_topic *in);
static void forget_topic(cnk_kafka_session *s, const cnk_fetch_request_forgotten_topic *in);
static cnk_kafka_session_topic *topic_find(const cnk_kafka_session *s, cnk_kafka_string name, const cnk_uuid *id);
static cnk_kafka_session_topic *topic_get(cnk_kafka_session *s, cnk_kafka_string name, const cnk_uuid *id);
static void topic_free(cnk_kafka_session *s, cnk_kafka_session_topic *topic);
static cnk_kafka_session_part *part_find(const cnk_kafka_session *s, cnk_kafka_session_topic *topic, int32_t partition);
static cnk_kafka_session_part *part_get(cnk_kafka_session *s, cnk_kafka_session_topic *topic, int32_t partition);
static void part_forget(cnk_kafka_session *s, cnk_kafka_session_part *p);
static void forgotten_free(cnk_kafka_session *s);
static void part_ready(cnk_kafka_session *s, cnk_kafka_session_part *p);
static void part_settle(cnk_kafka_session *s, cnk_kafka_session_part *p, const cnk_fetch_part *now);
static void on_news(cnk_watcher *watcher);
static void on_off(cnk_watch *watch);
static bool must_tell(const cnk_kafka_session_part *p, const cnk_fetch_part *now);
static void note_told(cnk_kafka_session_part *p, const cnk_fetch_part *now);
static void charge(cnk_kafka_session *s, size_t bytes);
static void discharge(cnk_kafka_session *s, size_t bytes);

/* ---- all of them ------------------------------------------------------------------------------------------------ */

void cnk_kafka_sessions_init(cnk_kafka_sessions *all, uint64_t seed, uint32_t slots) {
    *all = (cnk_kafka_sessions){.slots = slots};
    cnk_list_init(&all->lru);
    cnk_list_init(&all->ended);
    cnk_rng_seed(&all->rng, seed);
}

bool cnk_kafka_sessions_end(cnk_kafka_sessions *all) {
    while (!cnk_list_empty(&all->lru))
        cnk_kafka_session_end(CNK_CONTAINER(all->lru.next, cnk_kafka_session, lru_node));
    return cnk_list_empty(&all->ended);
}

void cnk_kafka_sessions_free(cnk_kafka_sessions *all) {
    CNK_ASSERT(cnk_list_empty(&all->lru) && cnk_list_empty(&all->ended) && cnk_counter_get(&all->bytes) == 0);
    cnk_map_free(&all->by_id);
}

cnk_kafka_session *cnk_kafka_session_find(cnk_kafka *k, int32_t id) {
    return id > 0 ? cnk_map_get(&k->sessions.by_id, (uint64_t)id) : NULL;
}

void cnk_kafka_session_end(cnk_kafka_session *s) {
    if (s->ended) return;
    s->ended = true;
    cnk_map_remove(&s->kafka->sessions.by_id, (uint64_t)s->id);
    cnk_list_remove(&s->lru_node);
    cnk_list_push_back(&s->kafka->sessions.ended, &s->lru_node);
    if (s->users == 0) session_close(s);
}

int32_t cnk_kafka_session_epoch_next(int32_t epoch) { return epoch == INT32_MAX ? 1 : epoch + 1; }

/* Room for one more session where `s` is new, and for what all hold: those that have been idle for long make it. */
static bool room(cnk_kafka *k, const cnk_kafka_session *s) {
    cnk_kafka_sessions *all = &k->sessions;
    const uint64_t now = k->loop->ops->now_ns(k->loop->self), idle = CNK_KAFKA_SESSION_IDLE_MS * UINT64_C(1000000);
    const size_t count_max = (size_t)all->slots - s->ended;
    for (;;) {
        if (all->by_id.count <= count_max && cnk_counter_get(&all->bytes) <= CNK_KAFKA_SESSION_BYTES_MAX) return true;
        cnk_kafka_session *oldest = CNK_CONTAINER(all->lru.next, cnk_kafka_session, lru_node);
        if (cnk_list_empty(&all->lru) || oldest == s || oldest->users > 0 || now - oldest->used_ns < idle) {
            cnk_counter_add(&all->refused, 1);
            return false;
        }
        cnk_kafka_session_end(oldest);
    }
}

static int32_t id_new(cnk_kafka *k) {
    for (;;) {
        const int32_t id = (int32_t)cnk_rng_between(&k->sessions.rng, 1, INT32_MAX);
        if (!cnk_kafka_session_find(k, id)) return id;
    }
}

/* ---- one -------------------------------------------------------------------------------------------------------- */

/* Nobody finds it yet. */
static cnk_kafka_session *session_new(cnk_kafka *k, bool by_id) {
    cnk_kafka_session *s = cnk_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->kafka = k;
    s->by_id = by_id;
    s->ended = true;
    s->epoch = 1;
    cnk_list_init(&s->ready);
    cnk_list_init(&s->quiet);
    cnk_list_init(&s->forgotten);
    cnk_watcher_init(&s->watcher, k->shard, on_news, on_off);
    cnk_list_push_back(&k->sessions.ended, &s->lru_node);
    charge(s, sizeof *s);
    return s;
}

/* It has ended, and no fetch uses it: all goes, at the latest when the last watch is off. */
static void session_close(cnk_kafka_session *s) {
    cnk_list *const lists[] = {&s->ready, &s->quiet};
    for (size_t i = 0; i < 2; i++)
        CNK_LIST_EACH(it, lists[i]) part_forget(s, CNK_CONTAINER(it, cnk_kafka_session_part, node));
    forgotten_free(s);
    if (!cnk_list_empty(&s->forgotten)) return;
    size_t it = 0; /* of an update that failed: topics without partitions */
    for (cnk_kafka_session_topic *topic; (topic = cnk_map_next(&s->topics, &it));) cnk_free(topic);
    cnk_counter_sub(&s->kafka->sessions.bytes, s->bytes);
    cnk_list_remove(&s->lru_node);
    cnk_watcher_close(&s->watcher);
    cnk_map_free(&s->topics);
    cnk_map_free(&s->by_key);
    cnk_free(s);
}

int32_t cnk_kafka_session_make(cnk_kafka *k, bool by_id, bool read_committed, const cnk_kafka_fetch_answer *told) {
    if (k->sessions.slots == 0) return 0;
    cnk_kafka_session *s = session_new(k, by_id);
    if (!s) return 0;
    s->id = id_new(k);
    s->read_committed = read_committed;
    if (add_told(s, told) || !room(k, s) || cnk_map_put(&k->sessions.by_id, (uint64_t)s->id, s)) {
        session_close(s);
        return 0;
    }
    s->ended = false;
    s->used_ns = k->loop->ops->now_ns(k->loop->self);
    cnk_list_remove(&s->lru_node);
    cnk_list_push_back(&k->sessions.lru, &s->lru_node);
    return s->id;
}

static int add_told(cnk_kafka_session *s, const cnk_kafka_fetch_answer *told) {
    for (size_t t = 0; t < told->topic_count; t++) {
        const cnk_kafka_fetch_topic *in = &told->topics[t];
        if (in->count == 0) continue;
        cnk_kafka_session_topic *topic = topic_get(s, in->name, &in->id);
        for (size_t i = in->first; topic && i < in->first + in->count; i++) {
            const cnk_fetch_part *now = &told->parts[i];
            cnk_kafka_session_part *p = part_get(s, topic, now->partition);
            if (!p) return CHRONIK_ENOMEM;
            part_ready(s, p); /* named twice */
            p->offset = now->offset;
            p->bytes_max = now->bytes_max;
            p->leader_epoch = now->leader_epoch;
            note_told(p, now);
            part_settle(s, p, now);
        }
        if (!topic) return CHRONIK_ENOMEM;
    }
    return 0;
}

/* ---- what a request changes ------------------------------------------------------------------------------------- */

int cnk_kafka_session_update(cnk_kafka_session *s, const cnk_fetch_request *in) {
    cnk_kafka *k = s->kafka;
    int rc = 0;
    for (int32_t t = 0; t < in->topics.count && rc == 0; t++) rc = update_topic(s, &in->topics.items[t]);
    for (int32_t t = 0; t < in->forgotten_topics_data.count; t++) forget_topic(s, &in->forgotten_topics_data.items[t]);
    if (rc == 0 && (s->by_key.count > CNK_FETCH_PARTS_MAX || !room(k, s))) rc = CHRONIK_ETOOLARGE;
    if (rc) {
        cnk_kafka_session_end(s);
        return rc;
    }
    if (in->isolation_level != s->read_committed) /* what the end is has changed */
        CNK_LIST_EACH(it, &s->quiet) part_ready(s, CNK_CONTAINER(it, cnk_kafka_session_part, node));
    s->read_committed = in->isolation_level == 1;
    s->epoch = cnk_kafka_session_epoch_next(s->epoch);
    if (s->op) cnk_broker_fetch_hurry(s->op); /* it will be told that it is not its session any more */
    s->used_ns = k->loop->ops->now_ns(k->loop->self);
    cnk_list_remove(&s->lru_node);
    cnk_list_push_back(&k->sessions.lru, &s->lru_node);
    return 0;
}

static int update_topic(cnk_kafka_session *s, const cnk_fetch_request_fetch_topic *in) {
    if (in->partitions.count == 0) return 0;
    cnk_kafka_session_topic *topic = topic_get(s, in->topic, &in->topic_id);
    if (!topic) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < in->partitions.count; i++) {
        const cnk_fetch_request_fetch_partition *from = &in->partitions.items[i];
        cnk_kafka_session_part *p = part_get(s, topic, from->partition);
        if (!p) return CHRONIK_ENOMEM;
        p->offset = from->fetch_offset;
        p->bytes_max = from->partition_max_bytes < 0 ? 0 : (uint32_t)from->partition_max_bytes;
        p->leader_epoch = from->current_leader_epoch;
        part_ready(s, p);
    }
    return 0;
}

static void forget_topic(cnk_kafka_session *s, const cnk_fetch_request_forgotten_topic *in) {
    cnk_kafka_session_topic *topic = topic_find(s, in->topic, &in->topic_id);
    for (int32_t i = 0; topic && i < in->partitions.count; i++) {
        cnk_kafka_session_part *p = part_find(s, topic, in->partitions.items[i]);
        if (p) part_forget(s, p);
    }
    if (s->users == 0) forgotten_free(s);
}

static void part_forget(cnk_kafka_session *s, cnk_kafka_session_part *p) {
    cnk_map_remove_bytes(&s->by_key, &p->key, sizeof p->key);
    s->ready_count -= !p->quiet;
    cnk_list_remove(&p->node);
    cnk_list_push_back(&s->forgotten, &p->node);
    (void)cnk_watch_disarm(&p->watch);
}

static void forgotten_free(cnk_kafka_session *s) {
    CNK_LIST_EACH(it, &s->forgotten) {
        cnk_kafka_session_part *p = CNK_CONTAINER(it, cnk_kafka_session_part, node);
        if (p->watch.state == CNK_WATCH_DISARMING) continue;
        cnk_list_remove(&p->node);
        if (--p->key.topic->parts == 0) topic_free(s, p->key.topic);
        cnk_free(p);
        discharge(s, sizeof *p);
    }
}

/* ---- topics and partitions -------------------------------------------------------------------------------------- */

static cnk_kafka_session_topic *topic_find(const cnk_kafka_session *s, cnk_kafka_string name, const cnk_uuid *id) {
    if (s->by_id) return cnk_map_get_bytes(&s->topics, id, sizeof *id);
    return cnk_map_get_bytes(&s->topics, name.len > 0 ? name.data : "", name.len > 0 ? (size_t)name.len : 0);
}

static cnk_kafka_session_topic *topic_get(cnk_kafka_session *s, cnk_kafka_string name, const cnk_uuid *id) {
    cnk_kafka_session_topic *topic = topic_find(s, name, id);
    if (topic) return topic;
    const size_t len = !s->by_id && name.len > 0 ? (size_t)name.len : 0;
    topic = cnk_calloc(1, sizeof *topic + len + 1);
    if (!topic) return NULL;
    topic->name_len = len;
    if (len > 0) memcpy(topic->name, name.data, len);
    if (s->by_id) topic->id = *id;
    if (s->by_id ? cnk_map_put_bytes(&s->topics, &topic->id, sizeof topic->id, topic)
                 : cnk_map_put_bytes(&s->topics, topic->name, len, topic)) {
        cnk_free(topic);
        return NULL;
    }
    charge(s, sizeof *topic + len);
    return topic;
}

static void topic_free(cnk_kafka_session *s, cnk_kafka_session_topic *topic) {
    if (s->by_id) cnk_map_remove_bytes(&s->topics, &topic->id, sizeof topic->id);
    else cnk_map_remove_bytes(&s->topics, topic->name, topic->name_len);
    discharge(s, sizeof *topic + topic->name_len);
    cnk_free(topic);
}

static cnk_kafka_session_part *part_find(const cnk_kafka_session *s, cnk_kafka_session_topic *topic, int32_t partition) {
    const cnk_kafka_session_part at = {.key = {topic, partition}};
    return cnk_map_get_bytes(&s->by_key, &at.key, sizeof at.key);
}

static cnk_kafka_session_part *part_get(cnk_kafka_session *s, cnk_kafka_session_topic *topic, int32_t partition) {
    cnk_kafka_session_part *p = part_find(s, topic, partition);
    if (p) return p;
    p = cnk_calloc(1, sizeof *p);
    if (!p) return NULL;
    p->key.topic = topic;
    p->key.partition = partition;
    p->high_watermark = p->log_start = -1;
    if (cnk_map_put_bytes(&s->by_key, &p->key, sizeof p->key, p)) {
        cnk_free(p);
        return NULL;
    }
    topic->parts++;
    s->ready_count++;
    cnk_list_push_back(&s->ready, &p->node);
    charge(s, sizeof *p);
    return p;
}

static void charge(cnk_kafka_session *s, size_t bytes) {
    s->bytes += bytes + OVERHEAD_BYTES;
    cnk_counter_add(&s->kafka->sessions.bytes, bytes + OVERHEAD_BYTES);
}

static void discharge(cnk_kafka_session *s, size_t bytes) {
    s->bytes -= bytes + OVERHEAD_BYTES;
    cnk_counter_sub(&s->kafka->sessions.bytes, bytes + OVERHEAD_BYTES);
}

/* ---- ready and quiet --------------------------------------------------------------------------------------------- */

/* Its watch may be armed still; what that tells, nobody needs then. */
static void part_ready(cnk_kafka_session *s, cnk_kafka_session_part *p) {
    if (!p->quiet) return;
    p->quiet = false;
    s->ready_count++;
    cnk_list_remove(&p->node);
    cnk_list_push_back(&s->ready, &p->node);
}

/* It has been told `now`: quiet, where its reader has read all. */
static void part_settle(cnk_kafka_session *s, cnk_kafka_session_part *p, const cnk_fetch_part *now) {
    if (now->error || now->offset < (s->read_committed ? now->last_stable_offset : now->high_watermark)) return;
    const cnk_text name = {s->by_id ? NULL : p->key.topic->name, p->key.topic->name_len};
    if (p->watch.state == CNK_WATCH_IDLE &&
        !cnk_watch_arm(&s->watcher, &p->watch, name, &p->key.topic->id, now->partition, now->high_watermark,
                       now->log_start_offset))
        return;
    p->quiet = true;
    s->ready_count--;
    cnk_list_remove(&p->node);
    cnk_list_push_back(&s->quiet, &p->node);
}

static void on_news(cnk_watcher *watcher) {
    cnk_kafka_session *s = CNK_CONTAINER(watcher, cnk_kafka_session, watcher);
    const size_t before = s->ready_count;
    for (cnk_watch *w; (w = cnk_watch_next(watcher));) part_ready(s, CNK_CONTAINER(w, cnk_kafka_session_part, watch));
    if (s->op && s->ready_count > before) cnk_broker_fetch_hurry(s->op);
}

static void on_off(cnk_watch *watch) {
    cnk_kafka_session *s = CNK_CONTAINER(watch->watcher, cnk_kafka_session, watcher);
    if (s->users > 0) return;
    if (s->ended) session_close(s);
    else forgotten_free(s);
}

/* ---- a fetch ---------------------------------------------------------------------------------------------------- */

void cnk_kafka_session_hold(cnk_kafka_session *s, cnk_fetch *op) {
    s->users++;
    s->op = op;
}

int cnk_kafka_session_ask(cnk_kafka_session *s, cnk_fetch *op, size_t *parts_capacity) {
    void *room = op->parts;
    if (cnk_array_reserve(&room, parts_capacity, s->ready_count + 1, sizeof *op->parts)) return CHRONIK_ENOMEM;
    cnk_fetch_part *part = op->parts = room;
    CNK_LIST_EACH(it, &s->ready) {
        const cnk_kafka_session_part *p = CNK_CONTAINER(it, cnk_kafka_session_part, node);
        *part++ = (cnk_fetch_part){.topic = {s->by_id ? NULL : p->key.topic->name, p->key.topic->name_len},
                                   .topic_id = p->key.topic->id,
                                   .partition = (int32_t)p->key.partition,
                                   .leader_epoch = p->leader_epoch,
                                   .offset = p->offset,
                                   .bytes_max = p->bytes_max,
                                   .leader_id = -1,
                                   .leader_epoch_now = -1};
    }
    op->part_count = s->ready_count;
    return 0;
}

/* The partitions of op are the first of the list, in its order: what has become ready since is behind them, and all else
 * that changes it changes the epoch. */
int cnk_kafka_session_tell(cnk_kafka_session *s, cnk_kafka_request *r, const cnk_fetch *op, cnk_kafka_fetch_answer *a) {
    size_t count = 0;
    const cnk_kafka_session_topic *topic = NULL;
    cnk_kafka_fetch_topic *topics = cnk_kafka_request_alloc(r, op->part_count, sizeof *topics);
    cnk_fetch_part *parts = cnk_kafka_request_alloc(r, op->part_count, sizeof *parts);
    if (!topics || !parts) return CHRONIK_ENOMEM;
    a->topic_count = 0;
    cnk_list *it = s->ready.next;
    for (size_t n = 0; n < op->part_count; n++) {
        cnk_kafka_session_part *p = CNK_CONTAINER(it, cnk_kafka_session_part, node);
        const cnk_fetch_part *now = &op->parts[n];
        it = it->next;
        if (must_tell(p, now)) {
            note_told(p, now);
            if (p->key.topic != topic) {
                topic = p->key.topic;
                topics[a->topic_count++] = (cnk_kafka_fetch_topic){
                    .name = {topic->name, (int32_t)topic->name_len}, .id = topic->id, .first = count};
            }
            topics[a->topic_count - 1].count++;
            parts[count++] = *now;
        }
        if (!now->error && now->bytes > 0) {
            cnk_list_remove(&p->node);
            cnk_list_push_back(&s->ready, &p->node);
        } else {
            part_settle(s, p, now);
        }
    }
    a->topics = topics;
    a->parts = parts;
    a->session_id = s->id;
    return 0;
}

void cnk_kafka_session_release(cnk_kafka_session *s, const cnk_fetch *op) {
    if (s->op == op) s->op = NULL;
    if (--s->users > 0) return;
    if (s->ended) session_close(s);
    else forgotten_free(s);
}

static bool must_tell(const cnk_kafka_session_part *p, const cnk_fetch_part *now) {
    return now->error || now->bytes > 0 || now->high_watermark != p->high_watermark ||
           now->log_start_offset != p->log_start;
}

static void note_told(cnk_kafka_session_part *p, const cnk_fetch_part *now) {
    p->high_watermark = now->error ? -1 : now->high_watermark;
    p->log_start = now->error ? -1 : now->log_start_offset;
}
