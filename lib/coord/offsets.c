/* Offsets that groups store: commit, fetch, deletion with a topic, expiry.
 *
 * Expiry is a walk over all groups, a bounded number of offsets at a time: every offsets.retention.check.interval.ms from
 * the first group to the last. An offset expires at its own time where its commit gave one; else offsets.retention.minutes
 * after its commit (a simple group), or after the group became empty. A group that is left with nothing goes with a
 * tombstone.
 *
 * Owner: the instance's shard. */
#include <stdlib.h>

#include "coord/groups.h"

static uint64_t slot_of(int32_t partition) { return (uint64_t)(uint32_t)partition; }

static cnk_group_topic *topic_of(const cnk_group *g, cnk_text name) {
    return cnk_map_get_bytes(&g->topics, name.p, name.len);
}

static cnk_group_offset *offset_of(const cnk_group *g, cnk_text topic, int32_t partition) {
    const cnk_group_topic *t = topic_of(g, topic);
    return t ? cnk_map_get(&t->offsets, slot_of(partition)) : NULL;
}

/* ---- records to state ------------------------------------------------------------------------------------------- */

static void topic_free(cnk_group_topic *t) {
    cnk_group_offset *o;
    for (size_t it = 0; (o = cnk_map_next(&t->offsets, &it)) != NULL;) cnk_free(o);
    cnk_map_free(&t->offsets);
    cnk_free(t);
}

void cnk_offsets_free(cnk_group *g) {
    cnk_group_topic *t;
    for (size_t it = 0; (t = cnk_map_next(&g->topics, &it)) != NULL;) topic_free(t);
    cnk_map_free(&g->topics);
}

static int topic_make(cnk_group *g, cnk_text name, cnk_group_topic **ret_topic) {
    cnk_group_topic *t = topic_of(g, name);
    if (t == NULL) {
        t = cnk_calloc(1, sizeof *t + name.len);
        if (t == NULL) return CHRONIK_ENOMEM;
        t->name_len = (uint16_t)name.len;
        memcpy(t->name, name.p, name.len);
        if (cnk_map_put_bytes(&g->topics, t->name, t->name_len, t) != 0) {
            cnk_free(t);
            return CHRONIK_ENOMEM;
        }
    }
    *ret_topic = t;
    return 0;
}

static void offset_remove(cnk_group *g, cnk_text topic, int32_t partition) {
    cnk_group_topic *t = topic_of(g, topic);
    if (t == NULL) return;
    cnk_free(cnk_map_remove(&t->offsets, slot_of(partition)));
    if (t->offsets.count > 0) return;
    cnk_map_remove_bytes(&g->topics, t->name, t->name_len);
    topic_free(t);
}

static int offset_put(cnk_group *g, const cnk_coord_key *key, const cnk_coord_offset_value *v) {
    cnk_group_topic *t;
    int rc = topic_make(g, key->topic, &t);
    if (rc != 0) return rc;
    cnk_group_offset *old = cnk_map_get(&t->offsets, slot_of(key->partition)), *o = old;
    if (o == NULL || o->metadata_len < v->metadata.len) {
        o = cnk_malloc(sizeof *o + v->metadata.len);
        if (o == NULL || cnk_map_put(&t->offsets, slot_of(key->partition), o) != 0) {
            cnk_free(o);
            return CHRONIK_ENOMEM;
        }
        cnk_free(old);
    }
    o->partition = key->partition;
    o->leader_epoch = v->leader_epoch;
    o->offset = v->offset;
    o->commit_ms = v->commit_ms;
    o->expire_ms = v->expire_ms;
    o->topic_id = v->topic_id;
    o->metadata_len = (uint32_t)v->metadata.len;
    if (v->metadata.len > 0) memcpy(o->metadata, v->metadata.p, v->metadata.len);
    return 0;
}

int cnk_offsets_apply(cnk_groups *m, const cnk_coord_key *key, const cnk_record *record) {
    cnk_coord_offset_value v;
    cnk_group *g = cnk_groups_find(m, key->group);
    if (record->value == NULL) {
        if (g) offset_remove(g, key->topic, key->partition);
        return 0;
    }
    int rc = cnk_coord_offset_value_read(record->value, (size_t)record->value_len, &v);
    if (rc == 0 && g == NULL) rc = cnk_groups_make(m, key->group, &g);
    if (rc == CHRONIK_EAGAIN) rc = CHRONIK_ENOMEM; /* more groups than are allowed were made before */
    if (rc == 0 && m->serving) cnk_counter_add(&m->shard->offset_commits, 1);
    return rc != 0 ? rc : offset_put(g, key, &v);
}

int cnk_offsets_save(const cnk_group *g, cnk_writer *out) {
    const cnk_group_topic *t;
    const cnk_group_offset *o;
    cnk_writer key, value;
    cnk_writer_growing(&key, 0);
    cnk_writer_growing(&value, 0);
    for (size_t it = 0; (t = cnk_map_next(&g->topics, &it)) != NULL;)
        for (size_t at = 0; (o = cnk_map_next(&t->offsets, &at)) != NULL;) {
            cnk_coord_offset_value v = {.offset = o->offset,
                                        .leader_epoch = o->leader_epoch,
                                        .metadata = {o->metadata, o->metadata_len},
                                        .commit_ms = o->commit_ms,
                                        .expire_ms = o->expire_ms,
                                        .topic_id = o->topic_id};
            key.len = value.len = 0;
            cnk_coord_offset_key_write(&key, cnk_group_id(g), (cnk_text){t->name, t->name_len}, o->partition);
            cnk_coord_offset_value_write(&value, &v);
            cnk_coord_save(out, &key, value.data, value.len);
        }
    int rc = key.error ? key.error : value.error;
    cnk_writer_free(&key);
    cnk_writer_free(&value);
    return rc;
}

/* ---- commit ----------------------------------------------------------------------------------------------------- */

/* May the call store offsets for the group (NULL: there is none)? ClassicGroup.validateOffsetCommit. */
static int check_commit(const cnk_group *g, const cnk_coord_call *call) {
    if (g == NULL) return call->generation < 0 ? 0 : call->version >= 9 ? CHRONIK_EGROUPNOTFOUND : CHRONIK_EGENERATION;
    if (call->generation < 0 && g->state == CNK_COORD_EMPTY) return 0;
    if (call->generation >= 0 || call->member_id.len > 0 || call->instance_id.p) {
        int rc = cnk_group_check_member(g, call->member_id, call->instance_id);
        if (rc != 0) return rc;
        if (call->generation != g->generation && !CNK_COORD_BUG(OLD_GENERATION)) return CHRONIK_EGENERATION;
    } else if (g->state != CNK_COORD_EMPTY) {
        return CHRONIK_EUNKNOWNMEMBER;
    }
    return g->state == CNK_COORD_COMPLETING_REBALANCE ? CHRONIK_EREBALANCE : 0;
}

static int write_offset(const cnk_coord_call *call, const cnk_coord_topic *topic, const cnk_coord_offset *o,
                        cnk_coord_out *out, cnk_writer *key, cnk_writer *value) {
    cnk_coord_offset_value v = {.offset = o->offset,
                                .leader_epoch = o->leader_epoch,
                                .metadata = o->metadata,
                                .commit_ms = o->timestamp_ms >= 0 ? o->timestamp_ms : out->now_ms,
                                .expire_ms = call->retention_ms >= 0 ? out->now_ms + call->retention_ms : -1,
                                .topic_id = topic->id};
    key->len = value->len = 0;
    cnk_coord_offset_key_write(key, call->group, topic->name, o->partition);
    cnk_coord_offset_value_write(value, &v);
    return cnk_coord_out_record(out, key, value);
}

int cnk_offsets_commit(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_writer key, value;
    cnk_group *g = cnk_groups_find(m, call->group);
    out->clean = true;
    int rc = check_commit(g, call);
    cnk_coord_out_answer(out, call, rc);
    if (rc != 0) return 0;
    if (g == NULL && m->groups.count >= CNK_GROUPS_MAX) return CHRONIK_EAGAIN;
    cnk_writer_growing(&key, 0);
    cnk_writer_growing(&value, 0);
    for (size_t t = 0; t < call->topic_count && rc == 0; t++)
        for (size_t i = 0; i < call->topics[t].offset_count && rc == 0; i++) {
            cnk_coord_offset *o = &call->topics[t].offsets[i];
            o->error = o->metadata.len > (size_t)m->shard->settings.offset_metadata_max ? CHRONIK_EMETADATATOOLARGE : 0;
            if (o->error == 0) rc = write_offset(call, &call->topics[t], o, out, &key, &value);
        }
    cnk_writer_free(&key);
    cnk_writer_free(&value);
    cnk_member *member = g ? cnk_group_member(g, call->member_id) : NULL; /* who commits is alive */
    if (member && (g->state == CNK_COORD_STABLE || g->state == CNK_COORD_PREPARING_REBALANCE))
        cnk_classic_session(member, member->session_timeout_ms, out->now_ns);
    return rc;
}

/* ---- fetch ------------------------------------------------------------------------------------------------------ */

static int fill(cnk_coord_call *call, const cnk_group_offset *from, cnk_coord_offset *to) {
    to->error = 0;
    to->offset = -1;
    to->leader_epoch = -1;
    to->metadata = (cnk_text){"", 0};
    if (from == NULL) return 0;
    char *copy = cnk_arena_alloc(&call->arena, from->metadata_len + 1);
    if (copy == NULL) return CHRONIK_ENOMEM;
    memcpy(copy, from->metadata, from->metadata_len);
    to->partition = from->partition;
    to->offset = from->offset;
    to->leader_epoch = from->leader_epoch;
    to->metadata = (cnk_text){copy, from->metadata_len};
    to->topic_id = from->topic_id;
    return 0;
}

bool cnk_coord_other_topic(const cnk_uuid *asked, const cnk_uuid *stored) {
    return !cnk_uuid_is_zero(asked) && !cnk_uuid_is_zero(stored) && !cnk_uuid_equal(asked, stored);
}

static int fetch_asked(const cnk_group *g, cnk_coord_call *call) {
    int rc = 0;
    for (size_t t = 0; t < call->topic_count && rc == 0; t++)
        for (size_t i = 0; i < call->topics[t].offset_count && rc == 0; i++) {
            cnk_coord_offset *o = &call->topics[t].offsets[i];
            const cnk_group_offset *stored = g ? offset_of(g, call->topics[t].name, o->partition) : NULL;
            bool other = stored && cnk_coord_other_topic(&call->topics[t].id, &stored->topic_id);
            rc = fill(call, other ? NULL : stored, o);
        }
    return rc;
}

static int by_partition(const void *a, const void *b) {
    const cnk_coord_offset *x = a, *y = b;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

static int fetch_topic(cnk_coord_call *call, const cnk_group_topic *from, cnk_coord_topic *to) {
    const cnk_group_offset *o;
    char *name = cnk_arena_alloc(&call->arena, from->name_len + 1u);
    to->offsets = cnk_arena_alloc(&call->arena, (from->offsets.count + 1) * sizeof *to->offsets);
    if (name == NULL || to->offsets == NULL) return CHRONIK_ENOMEM;
    memcpy(name, from->name, from->name_len);
    to->name = (cnk_text){name, from->name_len};
    to->id = (cnk_uuid){{0}};
    to->offset_count = 0;
    for (size_t it = 0; (o = cnk_map_next(&from->offsets, &it)) != NULL;) {
        int rc = fill(call, o, &to->offsets[to->offset_count++]);
        if (rc != 0) return rc;
    }
    qsort(to->offsets, to->offset_count, sizeof *to->offsets, by_partition);
    return 0;
}

static int fetch_all(const cnk_group *g, cnk_coord_call *call) {
    const cnk_group_topic *t;
    call->topic_count = 0;
    if (g == NULL) return 0;
    call->topics = cnk_arena_alloc(&call->arena, (g->topics.count + 1) * sizeof *call->topics);
    if (call->topics == NULL) return CHRONIK_ENOMEM;
    for (size_t it = 0; (t = cnk_map_next(&g->topics, &it)) != NULL;) {
        int rc = fetch_topic(call, t, &call->topics[call->topic_count++]);
        if (rc != 0) return rc;
    }
    return 0;
}

int cnk_offsets_fetch(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    const cnk_group *g = cnk_groups_find(m, call->group);
    out->clean = true;
    int rc = call->all_topics ? fetch_all(g, call) : fetch_asked(g, call);
    cnk_coord_out_answer(out, call, rc);
    return rc;
}

/* ---- deletion and expiry ---------------------------------------------------------------------------------------- */

static int tombstone(const cnk_group *g, const cnk_group_topic *t, int32_t partition, cnk_coord_out *out) {
    cnk_writer key;
    cnk_writer_growing(&key, 0);
    cnk_coord_offset_key_write(&key, cnk_group_id(g), (cnk_text){t->name, t->name_len}, partition);
    int rc = cnk_coord_out_record(out, &key, NULL);
    cnk_writer_free(&key);
    return rc;
}

int cnk_offsets_tombstones(const cnk_group *g, cnk_coord_out *out) {
    const cnk_group_topic *t;
    const cnk_group_offset *o;
    for (size_t it = 0; (t = cnk_map_next(&g->topics, &it)) != NULL;)
        for (size_t at = 0; (o = cnk_map_next(&t->offsets, &at)) != NULL;) {
            int rc = tombstone(g, t, o->partition, out);
            if (rc != 0) return rc;
        }
    return 0;
}

/* OffsetMetadataManager.deleteOffsets: consumers keep what they are subscribed to; others must have gone. */
int cnk_offsets_delete(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    const cnk_group *g = cnk_groups_find(m, call->group);
    out->clean = true;
    int rc = call->group.len == 0 ? CHRONIK_EINVALIDGROUP : g == NULL ? CHRONIK_EGROUPNOTFOUND : 0;
    if (rc == 0 && g->state != CNK_COORD_EMPTY && (!g->protocol_type || strcmp(g->protocol_type, "consumer") != 0))
        rc = CHRONIK_ENONEMPTYGROUP;
    cnk_coord_out_answer(out, call, rc);
    if (rc != 0) return 0;
    for (size_t t = 0; t < call->topic_count; t++) {
        const cnk_group_topic *topic = topic_of(g, call->topics[t].name);
        bool subscribed = cnk_group_subscribed(g, call->topics[t].name);
        for (size_t i = 0; i < call->topics[t].offset_count && rc == 0; i++) {
            cnk_coord_offset *o = &call->topics[t].offsets[i];
            o->error = subscribed ? CHRONIK_ESUBSCRIBED : 0;
            if (!subscribed && offset_of(g, call->topics[t].name, o->partition))
                rc = tombstone(g, topic, o->partition, out);
        }
    }
    return rc;
}

int cnk_offsets_topic_deleted(cnk_groups *m, cnk_text name, const cnk_uuid *id, cnk_coord_out *out) {
    int rc = 0;
    (void)id;
    out->clean = true;
    CNK_LIST_EACH(node, &m->order) {
        const cnk_group *g = CNK_CONTAINER(node, cnk_group, node);
        const cnk_group_topic *t = topic_of(g, name);
        const cnk_group_offset *o;
        for (size_t it = 0; t && rc == 0 && (o = cnk_map_next(&t->offsets, &it)) != NULL;)
            rc = tombstone(g, t, o->partition, out);
    }
    return rc == CHRONIK_ETOOLARGE ? 0 : rc; /* the rest expires */
}

/* ClassicGroup.offsetExpirationCondition. */
static bool expired(const cnk_groups *m, const cnk_group *g, const cnk_group_offset *o, int64_t now_ms) {
    bool simple = g->protocol_type == NULL, empty = g->state == CNK_COORD_EMPTY;
    if (!simple && !empty && (g->state != CNK_COORD_STABLE || strcmp(g->protocol_type, "consumer") != 0)) return false;
    if (o->expire_ms >= 0) return now_ms >= o->expire_ms;
    int64_t from = !simple && empty && g->state_ms >= 0 ? g->state_ms : o->commit_ms;
    return now_ms - from >= m->shard->settings.offsets_retention_ms;
}

static int expire_group(cnk_groups *m, cnk_group *g, cnk_coord_out *out, size_t *looks) {
    const cnk_group_topic *t;
    const cnk_group_offset *o;
    size_t left = 0;
    for (size_t it = 0; (t = cnk_map_next(&g->topics, &it)) != NULL;) {
        bool subscribed = cnk_group_subscribed(g, (cnk_text){t->name, t->name_len});
        for (size_t at = 0; (o = cnk_map_next(&t->offsets, &at)) != NULL; ++*looks) {
            if (subscribed || !expired(m, g, o, out->now_ms)) {
                left++;
                continue;
            }
            int rc = tombstone(g, t, o->partition, out);
            if (rc == CHRONIK_ETOOLARGE) return 0; /* the rest in the next round */
            if (rc != 0) return rc;
        }
    }
    if (left > 0 || g->state != CNK_COORD_EMPTY) return 0;
    int rc = cnk_groups_tombstone(g, out);
    return rc == CHRONIK_ETOOLARGE ? 0 : rc;
}

static int step_expire(void *machine, void *arg, cnk_coord_out *out) {
    cnk_groups *m = machine;
    size_t looks = 0;
    int rc = 0;
    (void)arg;
    out->clean = true;
    if (m->expiry_left == 0) m->expiry_left = m->groups.count;
    for (; m->expiry_left > 0 && looks < CNK_GROUPS_EXPIRE_MAX && rc == 0 && !cnk_list_empty(&m->order);
         m->expiry_left--, looks++) {
        cnk_group *g = CNK_CONTAINER(cnk_list_pop_front(&m->order), cnk_group, node);
        cnk_list_push_back(&m->order, &g->node);
        rc = expire_group(m, g, out, &looks);
    }
    int64_t pause_ms = m->expiry_left > 0 ? CNK_GROUPS_PAUSE_MS : m->shard->settings.offsets_check_ms;
    cnk_coord_timer_set(m->shard, &m->expiry, out->now_ns + (uint64_t)pause_ms * UINT64_C(1000000));
    return rc;
}

static void on_expiry(cnk_coord_timer *timer) {
    cnk_groups *m = timer->arg;
    cnk_coord_event(m->instance, timer, step_expire, NULL);
}

void cnk_offsets_expiry_start(cnk_groups *m) {
    uint64_t now = m->shard->loop->ops->now_ns(m->shard->loop->self);
    m->expiry.fire = on_expiry;
    m->expiry.arg = m;
    cnk_coord_timer_set(m->shard, &m->expiry, now + (uint64_t)m->shard->settings.offsets_check_ms * UINT64_C(1000000));
}
