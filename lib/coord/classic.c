/* Classic groups: rebalances.
 *
 *             first join                    all have joined, or time is up
 *   EMPTY ───────────────► PREPARING_REBALANCE ───────────────────────────► COMPLETING_REBALANCE
 *     ▲                       ▲   │ nobody is left                               │        │ the leader's assignment
 *     └───────────────────────┼───┘                                              │        ▼ is appended
 *                             └──── a member joins, leaves, changes, or ◄────────┴───── STABLE
 *                                   does not ask for its assignment
 *
 * The rules are those of Kafka's GroupMetadataManager (KIP-62, KIP-134, KIP-345, KIP-394, KIP-559). A group's record is written where Kafka writes
 * one: when the group is made, when it is empty again, with the leader's assignment, and when a static member comes back
 * under another id without a rebalance. Members, and a generation without an assignment, are in memory only.
 *
 * Owner: the instance's shard. */
#include "coord/groups.h"

#include "base/assert.h"

#define MS UINT64_C(1000000)

const char *const cnk_coord_state_names[CNK_COORD_STATES] = {"Empty", "PreparingRebalance", "CompletingRebalance",
                                                             "Stable", "Dead"};

static void on_join_timer(cnk_coord_timer *timer);
static void on_sync_timer(cnk_coord_timer *timer);
static int complete(cnk_group *g, cnk_coord_out *out);
static int32_t rebalance_timeout(const cnk_group *g);

void cnk_classic_move(cnk_group *g, cnk_coord_state to, int64_t now_ms) {
    static const uint8_t from[CNK_COORD_STATES] = {/* the states that each may be entered from, as bits */
                                                   [CNK_COORD_EMPTY] = 1u << CNK_COORD_PREPARING_REBALANCE,
                                                   [CNK_COORD_PREPARING_REBALANCE] = 1u << CNK_COORD_EMPTY | 1u << CNK_COORD_COMPLETING_REBALANCE | 1u << CNK_COORD_STABLE,
                                                   [CNK_COORD_COMPLETING_REBALANCE] = 1u << CNK_COORD_PREPARING_REBALANCE,
                                                   [CNK_COORD_STABLE] = 1u << CNK_COORD_COMPLETING_REBALANCE};
    CNK_ASSERT((from[to] >> g->state & 1) != 0);
    g->state_before = g->state;
    cnk_group_state_set(g, to);
    g->state_ms = now_ms;
    if (to == CNK_COORD_PREPARING_REBALANCE) cnk_counter_add(&g->groups->shard->rebalances, 1);
}

void cnk_classic_session(cnk_member *m, int32_t timeout_ms, uint64_t now_ns) {
    cnk_coord_timer_set(m->group->groups->shard, &m->session, now_ns + (uint64_t)timeout_ms * MS);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

void cnk_member_join_over(cnk_member *m, cnk_coord_out *out, int error) {
    if (m->joining && !m->pending) m->group->joining--;
    m->joining = false;
    if (m->join == NULL) return;
    if (error == CHRONIK_EUNKNOWNMEMBER) m->join->ret_member_id = (cnk_text){"", 0};
    cnk_coord_out_answer(out, m->join, error);
    m->join = NULL;
}

void cnk_member_sync_over(cnk_member *m, cnk_coord_out *out, int error) {
    m->syncing = false;
    if (m->sync == NULL) return;
    cnk_coord_out_answer(out, m->sync, error);
    m->sync = NULL;
}

static int copy(cnk_coord_call *call, cnk_text from, cnk_text *to) {
    *to = (cnk_text){NULL, 0};
    if (from.p == NULL) return 0;
    char *p = cnk_arena_alloc(&call->arena, from.len + 1);
    if (p == NULL) return CHRONIK_ENOMEM;
    if (from.len > 0) memcpy(p, from.p, from.len);
    *to = (cnk_text){p, from.len};
    return 0;
}

static cnk_text text_of(const char *s) { return (cnk_text){s, s ? strlen(s) : 0}; }

/* What the leader needs to know of all. */
static int copy_members(const cnk_group *g, cnk_coord_call *call) {
    call->member_count = 0;
    call->members = cnk_arena_alloc(&call->arena, (g->by_id.count + 1) * sizeof *call->members);
    if (call->members == NULL) return CHRONIK_ENOMEM;
    CNK_LIST_EACH(node, &g->members) {
        const cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        cnk_coord_member *to = &call->members[call->member_count++];
        *to = (cnk_coord_member){.error = 0};
        int rc = copy(call, m->id, &to->id);
        if (rc == 0) rc = copy(call, m->instance_id, &to->instance_id);
        if (rc == 0) rc = copy(call, cnk_member_metadata(m, text_of(g->protocol)), &to->metadata);
        if (rc != 0) return rc;
    }
    return 0;
}

int cnk_classic_answer_join(cnk_member *m, bool skip_assignment, bool with_members, cnk_text leader,
                            cnk_coord_out *out) {
    const cnk_group *g = m->group;
    cnk_coord_call *call = m->join;
    int rc = 0;
    if (call) {
        call->member_count = 0;
        call->ret_generation = g->generation;
        call->ret_skip_assignment = skip_assignment;
        rc = copy(call, text_of(g->protocol_type), &call->protocol_type);
        if (rc == 0) rc = copy(call, text_of(g->protocol), &call->protocol_name);
        if (rc == 0) rc = copy(call, m->id, &call->ret_member_id);
        if (rc == 0) rc = copy(call, leader, &call->ret_leader);
        if (rc == 0 && with_members) rc = copy_members(g, call);
    }
    if (rc == 0) cnk_member_join_over(m, out, 0);
    return rc;
}

int cnk_classic_answer_sync(cnk_member *m, cnk_coord_out *out) {
    const cnk_group *g = m->group;
    cnk_coord_call *call = m->sync;
    int rc = 0;
    if (call) {
        rc = copy(call, text_of(g->protocol_type), &call->protocol_type);
        if (rc == 0) rc = copy(call, text_of(g->protocol), &call->protocol_name);
        if (rc == 0)
            rc = copy(call, (cnk_text){m->assignment ? (char *)m->assignment : "", m->assignment_len},
                      &call->ret_assignment);
    }
    if (rc == 0) cnk_member_sync_over(m, out, 0);
    return rc;
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

static cnk_text assignment_of(const cnk_coord_call *call, cnk_text id) {
    cnk_text found = {"", 0};
    for (size_t i = 0; i < call->member_count; i++)
        if (cnk_text_equal(call->members[i].id, id) && call->members[i].assignment.p) found = call->members[i].assignment;
    return found;
}

/* With the assignments of the call; NULL: those that the members have. */
int cnk_classic_write(cnk_group *g, const cnk_coord_call *assignments, cnk_coord_out *out) {
    cnk_writer key, value;
    cnk_coord_group_value v = {.protocol_type = text_of(g->protocol_type),
                               .protocol = text_of(g->protocol),
                               .leader = g->leader ? g->leader->id : (cnk_text){NULL, 0},
                               .generation = g->generation,
                               .state_ms = g->state_ms,
                               .member_count = (int32_t)g->by_id.count};
    cnk_writer_growing(&key, 0);
    cnk_writer_growing(&value, CNK_COORD_BATCH_BYTES_MAX);
    cnk_coord_group_key_write(&key, cnk_group_id(g));
    cnk_coord_group_value_write(&value, &v);
    CNK_LIST_EACH(node, &g->members) {
        const cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        cnk_coord_member_value mv = {.id = m->id,
                                     .instance_id = m->instance_id,
                                     .client_id = m->client_id,
                                     .client_host = m->client_host,
                                     .rebalance_timeout_ms = m->rebalance_timeout_ms,
                                     .session_timeout_ms = m->session_timeout_ms,
                                     .subscription = cnk_member_metadata(m, v.protocol),
                                     .assignment = {(const char *)m->assignment, m->assignment_len}};
        if (assignments) mv.assignment = assignment_of(assignments, m->id);
        cnk_coord_member_value_write(&value, &mv);
    }
    int rc = cnk_coord_out_record(out, &key, &value);
    cnk_writer_free(&key);
    cnk_writer_free(&value);
    return rc;
}

int cnk_classic_write_new(const cnk_group *g, cnk_coord_out *out) {
    cnk_writer key, value;
    cnk_coord_group_value v = {.state_ms = g->state_ms};
    cnk_writer_growing(&key, 0);
    cnk_writer_growing(&value, 0);
    cnk_coord_group_key_write(&key, cnk_group_id(g));
    cnk_coord_group_value_write(&value, &v);
    int rc = cnk_coord_out_record(out, &key, &value);
    cnk_writer_free(&key);
    cnk_writer_free(&value);
    return rc;
}

/* The record of what was decided here: with the leader's assignment the group is stable. */
static int apply_own(cnk_group *g, const cnk_coord_group_value *v, int64_t state_ms) {
    if (v->member_count > 0 && g->state == CNK_COORD_COMPLETING_REBALANCE && g->generation == v->generation)
        cnk_classic_move(g, CNK_COORD_STABLE, state_ms);
    return 0;
}

static int load_member(cnk_group *g, const cnk_coord_member_value *mv, cnk_text protocol) {
    cnk_member *m;
    cnk_coord_member as = {
        .id = mv->id, .instance_id = mv->instance_id, .client_id = mv->client_id, .client_host = mv->client_host};
    cnk_coord_protocol p = {protocol.p ? protocol : (cnk_text){"", 0}, mv->subscription};
    if (cnk_group_member(g, mv->id)) return CHRONIK_ECORRUPT;
    int rc = cnk_member_new(g, &as, &m);
    if (rc != 0) return rc;
    m->session_timeout_ms = mv->session_timeout_ms;
    m->rebalance_timeout_ms = mv->rebalance_timeout_ms == -1 ? mv->session_timeout_ms : mv->rebalance_timeout_ms;
    rc = cnk_member_protocols_set(m, &p, 1);
    if (rc == 0) rc = cnk_member_assignment_set(m, mv->assignment);
    if (rc == 0) rc = cnk_group_join(g, m);
    if (rc != 0) cnk_member_free(m);
    return rc;
}

static int load(cnk_group *g, cnk_reader *r, int version, const cnk_coord_group_value *v) {
    cnk_coord_member_value mv;
    while (!cnk_list_empty(&g->members)) cnk_member_free(CNK_CONTAINER(g->members.next, cnk_member, node));
    g->leader = NULL;
    int rc = cnk_group_text_set(&g->protocol_type, v->protocol_type.len > 0 ? v->protocol_type : (cnk_text){NULL, 0});
    if (rc == 0) rc = cnk_group_text_set(&g->protocol, v->protocol);
    for (int32_t i = 0; i < v->member_count && rc == 0; i++) {
        rc = cnk_coord_member_value_read(r, version, &mv);
        if (rc == 0) rc = load_member(g, &mv, v->protocol);
    }
    if (rc != 0) return rc;
    cnk_member *leader = cnk_group_member(g, v->leader);
    if (leader) g->leader = leader;
    g->generation = v->generation;
    g->state_ms = v->state_ms;
    cnk_group_state_set(g, v->member_count > 0 ? CNK_COORD_STABLE : CNK_COORD_EMPTY);
    g->state_before = g->state;
    return 0;
}

int cnk_classic_apply(cnk_groups *m, cnk_group *g, const cnk_record *record) {
    cnk_reader r = cnk_reader_of(record->value, (size_t)record->value_len);
    cnk_coord_group_value v;
    int version;
    int rc = cnk_coord_group_value_read(&r, &version, &v);
    if (rc != 0) return rc;
    return m->serving ? apply_own(g, &v, record->timestamp) : load(g, &r, version, &v);
}

int cnk_classic_loaded(cnk_group *g, cnk_coord_out *out) {
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
    }
    if (g->by_id.count <= (size_t)g->groups->shard->settings.members_max) return 0;
    return cnk_classic_prepare(g, out);
}

/* ---- rebalances ------------------------------------------------------------------------------------------------- */

static int32_t rebalance_timeout(const cnk_group *g) {
    int32_t most = 0;
    CNK_LIST_EACH(node, &g->members) {
        const cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        if (m->rebalance_timeout_ms > most) most = m->rebalance_timeout_ms;
    }
    return most;
}

static bool all_joined(const cnk_group *g) { return g->by_id.count == g->joining && g->pending.count == 0; }

static void join_timer_set(cnk_group *g, int32_t after_ms, uint64_t now_ns) {
    g->join_timer.fire = on_join_timer;
    g->join_timer.arg = g;
    cnk_coord_timer_set(g->groups->shard, &g->join_timer, now_ns + (uint64_t)after_ms * MS);
}

int cnk_classic_rebalance_or_complete(cnk_group *g, cnk_coord_out *out) {
    return g->state == CNK_COORD_PREPARING_REBALANCE ? cnk_classic_complete_if_all(g, out) : cnk_classic_prepare(g, out);
}

/* In the first rebalance of a group the delay alone decides. */
int cnk_classic_complete_if_all(cnk_group *g, cnk_coord_out *out) {
    bool now = g->state == CNK_COORD_PREPARING_REBALANCE && g->state_before != CNK_COORD_EMPTY && all_joined(g);
    return now ? complete(g, out) : 0;
}

/* Whoever waits for an assignment has to join again. */
static void reset_assignments(cnk_group *g, cnk_coord_out *out) {
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        m->assignment_len = 0;
        if (m->syncing) cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
        cnk_member_sync_over(m, out, CHRONIK_EREBALANCE);
    }
}

int cnk_classic_prepare(cnk_group *g, cnk_coord_out *out) {
    bool first = g->state == CNK_COORD_EMPTY;
    if (g->state == CNK_COORD_COMPLETING_REBALANCE) reset_assignments(g, out);
    cnk_coord_timer_clear(g->groups->shard, &g->sync_timer);
    cnk_classic_move(g, CNK_COORD_PREPARING_REBALANCE, out->now_ms);
    g->delaying = first;
    if (first) {
        g->delay_ms = g->groups->shard->settings.initial_delay_ms;
        int32_t left = rebalance_timeout(g) - g->delay_ms;
        g->delay_left_ms = left > 0 ? left : 0;
        join_timer_set(g, g->delay_ms, out->now_ns);
        return 0;
    }
    if (all_joined(g)) return complete(g, out);
    join_timer_set(g, rebalance_timeout(g), out->now_ns);
    return 0;
}

static int step_join_timer(void *machine, void *arg, cnk_coord_out *out) {
    cnk_group *g = arg;
    (void)machine;
    if (!g->delaying || !g->member_added || g->delay_left_ms == 0) {
        g->delaying = false;
        return complete(g, out);
    }
    g->member_added = false; /* once more, as long as there is time */
    int32_t most = g->groups->shard->settings.initial_delay_ms, before = g->delay_ms;
    g->delay_ms = most < g->delay_left_ms ? most : g->delay_left_ms;
    g->delay_left_ms = g->delay_left_ms > before ? g->delay_left_ms - before : 0;
    join_timer_set(g, g->delay_ms, out->now_ns);
    return 0;
}

static void on_join_timer(cnk_coord_timer *timer) {
    cnk_group *g = timer->arg;
    cnk_coord_event(g->groups->instance, timer, step_join_timer, g);
}

/* A leader who has joined again; false: there is none. */
static bool elect(cnk_group *g) {
    if (g->leader == NULL || g->leader->joining) return g->leader != NULL;
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        if (!m->joining) continue;
        g->leader = m;
        return true;
    }
    return false;
}

static int answer_all(cnk_group *g, cnk_coord_out *out) {
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        int rc = cnk_classic_answer_join(m, false, m == g->leader, g->leader->id, out);
        if (rc != 0) return rc;
        cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
        m->is_new = false;
        m->sync_due = true;
    }
    return 0;
}

/* GroupMetadataManager.completeClassicGroupJoin: static members are waited for until their session ends. */
static int complete(cnk_group *g, cnk_coord_out *out) {
    cnk_text protocol = {NULL, 0};
    cnk_coord_timer_clear(g->groups->shard, &g->join_timer);
    g->delaying = g->member_added = false;
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        if (!m->joining && m->instance_id.p == NULL) cnk_member_free(m);
    }
    if (!elect(g) && g->by_id.count > 0) {
        join_timer_set(g, rebalance_timeout(g), out->now_ns);
        return 0;
    }
    g->generation = g->generation == INT32_MAX ? 0 : g->generation + 1;
    CNK_LIST_EACH(node, &g->members) CNK_CONTAINER(node, cnk_member, node)->sync_due = false;
    if (g->by_id.count > 0 && cnk_group_protocol_select(g, &protocol) != 0) return CHRONIK_EINTERNAL;
    int rc = cnk_group_text_set(&g->protocol, protocol);
    if (rc != 0) return rc;
    if (g->by_id.count == 0) {
        cnk_classic_move(g, CNK_COORD_EMPTY, out->now_ms);
        return cnk_classic_write(g, NULL, out);
    }
    cnk_classic_move(g, CNK_COORD_COMPLETING_REBALANCE, out->now_ms);
    rc = answer_all(g, out);
    g->sync_timer.fire = on_sync_timer;
    g->sync_timer.arg = g;
    cnk_coord_timer_set(g->groups->shard, &g->sync_timer, out->now_ns + (uint64_t)rebalance_timeout(g) * MS);
    return rc;
}

/* ---- the time to ask for an assignment --------------------------------------------------------------------------- */

void cnk_classic_sync_received(cnk_member *m) {
    cnk_group *g = m->group;
    m->sync_due = false;
    CNK_LIST_EACH(node, &g->members)
    if (CNK_CONTAINER(node, cnk_member, node)->sync_due) return;
    cnk_coord_timer_clear(g->groups->shard, &g->sync_timer);
}

static int step_sync_timer(void *machine, void *arg, cnk_coord_out *out) {
    cnk_group *g = arg;
    bool removed = false;
    (void)machine;
    if (g->state != CNK_COORD_COMPLETING_REBALANCE && g->state != CNK_COORD_STABLE) return 0;
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        if (!m->sync_due) continue;
        removed = true;
        cnk_member_join_over(m, out, CHRONIK_EUNKNOWNMEMBER);
        cnk_member_sync_over(m, out, CHRONIK_EUNKNOWNMEMBER);
        cnk_member_free(m);
    }
    return removed ? cnk_classic_prepare(g, out) : 0;
}

static void on_sync_timer(cnk_coord_timer *timer) {
    cnk_group *g = timer->arg;
    cnk_coord_event(g->groups->instance, timer, step_sync_timer, g);
}
