/* The machine of groups: finding and making them, records to state.
 *
 * A group is there while it has a record, offsets, or members. Its record's tombstone takes it away.
 *
 * Owner: the instance's shard. */
#include "coord/groups.h"

#include "base/assert.h"

static int new_(cnk_coord_shard *shard, void *instance, void **ret_machine) {
    cnk_groups *m = cnk_calloc(1, sizeof *m);
    if (m == NULL) return CHRONIK_ENOMEM;
    m->shard = shard;
    m->instance = instance;
    cnk_list_init(&m->order);
    *ret_machine = m;
    return 0;
}

static void free_(void *machine) {
    cnk_groups *m = machine;
    cnk_coord_timer_clear(m->shard, &m->expiry);
    while (!cnk_list_empty(&m->order)) cnk_groups_remove(m, CNK_CONTAINER(m->order.next, cnk_group, node));
    cnk_map_free(&m->groups);
    cnk_free(m);
}

cnk_group *cnk_groups_find(const cnk_groups *m, cnk_text id) { return cnk_map_get_bytes(&m->groups, id.p, id.len); }

int cnk_groups_make(cnk_groups *m, cnk_text id, cnk_group **ret_group) {
    cnk_group *g = cnk_groups_find(m, id);
    if (g == NULL) {
        if (m->groups.count >= CNK_GROUPS_MAX) return CHRONIK_EAGAIN;
        CNK_ASSERT(id.len <= INT16_MAX);
        g = cnk_calloc(1, sizeof *g + id.len);
        if (g == NULL) return CHRONIK_ENOMEM;
        g->groups = m;
        g->state_ms = -1;
        g->id_len = (uint16_t)id.len;
        memcpy(g->id, id.p, id.len);
        cnk_list_init(&g->members);
        cnk_list_init(&g->pending_members);
        if (cnk_map_put_bytes(&m->groups, g->id, g->id_len, g) != 0) {
            cnk_free(g);
            return CHRONIK_ENOMEM;
        }
        cnk_list_push_back(&m->order, &g->node);
        cnk_counter_add(&m->shard->groups[g->state], 1);
    }
    *ret_group = g;
    return 0;
}

void cnk_group_state_set(cnk_group *g, cnk_coord_state to) {
    cnk_coord_shard *shard = g->groups->shard;
    cnk_counter_sub(&shard->groups[g->state], 1);
    cnk_counter_add(&shard->groups[to], 1);
    g->state = to;
}

void cnk_groups_remove(cnk_groups *m, cnk_group *g) {
    cnk_counter_sub(&m->shard->groups[g->state], 1);
    cnk_map_remove_bytes(&m->groups, g->id, g->id_len);
    cnk_list_remove(&g->node);
    cnk_coord_timer_clear(m->shard, &g->join_timer);
    cnk_coord_timer_clear(m->shard, &g->sync_timer);
    while (!cnk_list_empty(&g->members)) cnk_member_free(CNK_CONTAINER(g->members.next, cnk_member, node));
    while (!cnk_list_empty(&g->pending_members))
        cnk_member_free(CNK_CONTAINER(g->pending_members.next, cnk_member, node));
    cnk_map_free(&g->by_id);
    cnk_map_free(&g->by_instance);
    cnk_map_free(&g->pending);
    cnk_offsets_free(g);
    cnk_free(g->protocol_type);
    cnk_free(g->protocol);
    cnk_free(g->record);
    cnk_free(g);
}

int cnk_groups_tombstone(cnk_group *g, cnk_coord_out *out) {
    cnk_writer key;
    cnk_writer_growing(&key, 0);
    cnk_coord_group_key_write(&key, cnk_group_id(g));
    int rc = cnk_coord_out_record(out, &key, NULL);
    cnk_writer_free(&key);
    return rc;
}

static int apply_group(cnk_groups *m, const cnk_coord_key *key, const cnk_record *record) {
    cnk_group *g = cnk_groups_find(m, key->group);
    int rc = 0;
    if (record->value == NULL) {
        if (g) cnk_groups_remove(m, g);
        return 0;
    }
    if (g == NULL) rc = cnk_groups_make(m, key->group, &g);
    if (rc == CHRONIK_EAGAIN) rc = CHRONIK_ENOMEM; /* more groups than are allowed were made before */
    if (rc == 0) rc = cnk_classic_apply(m, g, record);
    if (rc != 0) return rc;
    uint8_t *copy = cnk_memdup(record->value, (size_t)record->value_len);
    if (copy == NULL) return CHRONIK_ENOMEM;
    cnk_free(g->record);
    g->record = copy;
    g->record_len = (size_t)record->value_len;
    return 0;
}

/* Each group as its last record says, which may be behind what it is in memory, and its offsets. */
static int save(void *machine, cnk_writer *out) {
    cnk_groups *m = machine;
    cnk_writer key;
    int rc = 0;
    cnk_writer_growing(&key, 0);
    CNK_LIST_EACH(node, &m->order) {
        const cnk_group *g = CNK_CONTAINER(node, cnk_group, node);
        key.len = 0;
        cnk_coord_group_key_write(&key, cnk_group_id(g));
        if (g->record) cnk_coord_save(out, &key, g->record, g->record_len);
        rc = cnk_offsets_save(g, out);
        if (rc != 0 || out->error) break;
    }
    cnk_writer_free(&key);
    return rc;
}

static int apply(void *machine, const cnk_record *record) {
    cnk_coord_key key;
    if (record->key == NULL) return CHRONIK_ECORRUPT;
    int rc = cnk_coord_key_read(record->key, (size_t)record->key_len, &key);
    if (rc != 0) return rc;
    if (key.kind == CNK_COORD_KEY_OFFSET) return cnk_offsets_apply(machine, &key, record);
    if (key.kind == CNK_COORD_KEY_GROUP) return apply_group(machine, &key, record);
    return CHRONIK_ECORRUPT;
}

/* Every member has its whole session before it. */
static int loaded(void *machine, cnk_coord_out *out) {
    cnk_groups *m = machine;
    m->serving = true;
    cnk_offsets_expiry_start(m);
    CNK_LIST_EACH(node, &m->order) {
        int rc = cnk_classic_loaded(CNK_CONTAINER(node, cnk_group, node), out);
        if (rc != 0) return rc;
    }
    return 0;
}

static int step(void *machine, cnk_coord_call *call, cnk_coord_out *out) {
    static int (*const steps[CNK_COORD_KINDS])(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) = {
        [CNK_COORD_OFFSET_COMMIT] = cnk_offsets_commit, [CNK_COORD_OFFSET_FETCH] = cnk_offsets_fetch,
        [CNK_COORD_OFFSET_DELETE] = cnk_offsets_delete, [CNK_COORD_JOIN] = cnk_classic_join,
        [CNK_COORD_SYNC] = cnk_classic_sync,            [CNK_COORD_HEARTBEAT] = cnk_classic_heartbeat,
        [CNK_COORD_LEAVE] = cnk_classic_leave,          [CNK_COORD_DESCRIBE] = cnk_groups_describe,
        [CNK_COORD_LIST] = cnk_groups_list,             [CNK_COORD_DELETE] = cnk_groups_delete,
    };
    return steps[call->kind](machine, call, out);
}

/* The member stays what it is: it has joined, though nobody is there to be told. */
static void cancel(void *machine, cnk_coord_call *call) {
    cnk_group *g = cnk_groups_find(machine, call->group);
    if (g == NULL) return;
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        if (m->join == call) m->join = NULL;
        if (m->sync == call) m->sync = NULL;
    }
}

static int topic_deleted(void *machine, cnk_text name, const cnk_uuid *id, cnk_coord_out *out) {
    return cnk_offsets_topic_deleted(machine, name, id, out);
}

const cnk_coord_machine cnk_groups_machine = {.new_ = new_,
                                              .free = free_,
                                              .apply = apply,
                                              .loaded = loaded,
                                              .save = save,
                                              .step = step,
                                              .cancel = cancel,
                                              .topic_deleted = topic_deleted};
