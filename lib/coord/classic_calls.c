/* Classic groups: what members ask: to join, for their assignment, whether all is well, to leave.
 *
 * The rules are those of Kafka's GroupMetadataManager, whose functions are named beside ours.
 *
 * Owner: the instance's shard. */
#include <stdio.h>

#include "coord/groups.h"

static int join(cnk_groups *m, cnk_group *g, cnk_coord_call *call, cnk_coord_out *out);
static int join_new(cnk_group *g, cnk_coord_call *call, cnk_coord_out *out);
static int join_again(cnk_group *g, cnk_coord_call *call, cnk_coord_out *out);
static int join_refused(cnk_coord_call *call, cnk_text member_id, int error, cnk_coord_out *out);

/* An answered id lives as long as the call. */
static int keep(cnk_coord_call *call, cnk_text from, cnk_text *to) {
    char *p = cnk_arena_alloc(&call->arena, from.len + 1);
    if (p == NULL) return CHRONIK_ENOMEM;
    memcpy(p, from.p, from.len);
    *to = (cnk_text){p, from.len};
    return 0;
}

/* ---- join ------------------------------------------------------------------------------------------------------- */

int cnk_classic_join(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    const cnk_coord_settings *s = &m->shard->settings;
    int rc = 0;
    call->ret_generation = -1;
    call->ret_member_id = call->member_id;
    call->ret_leader = (cnk_text){"", 0};
    call->ret_skip_assignment = false;
    out->clean = true;
    if (call->group.len == 0) return join_refused(call, call->member_id, CHRONIK_EINVALIDGROUP, out);
    if (call->session_timeout_ms < s->session_min_ms || call->session_timeout_ms > s->session_max_ms)
        return join_refused(call, call->member_id, CHRONIK_ESESSIONTIMEOUT, out);
    cnk_group *g = cnk_groups_find(m, call->group);
    bool is_new = g == NULL;
    if (is_new && call->member_id.len > 0) return join_refused(call, call->member_id, CHRONIK_EUNKNOWNMEMBER, out);
    out->clean = false;
    if (is_new) rc = cnk_groups_make(m, call->group, &g);
    if (rc == CHRONIK_EAGAIN) return join_refused(call, call->member_id, CHRONIK_ECOORDINATORUNAVAILABLE, out);
    if (rc == 0 && is_new) g->state_ms = out->now_ms;
    if (rc == 0) rc = join(m, g, call, out);
    if (rc == 0 && is_new && out->records.count == 0) rc = cnk_classic_write_new(g, out);
    return rc;
}

static int join_refused(cnk_coord_call *call, cnk_text member_id, int error, cnk_coord_out *out) {
    call->ret_member_id = member_id;
    call->protocol_type = call->protocol_name = (cnk_text){NULL, 0};
    call->member_count = 0;
    cnk_coord_out_answer(out, call, error);
    return 0;
}

/* Is there room for it? ClassicGroup's size counts who has joined already while the group prepares, so that the last to come
 * back go where there are too many. GroupMetadataManager.acceptJoiningMember. */
static bool accepts(const cnk_groups *m, const cnk_group *g, const cnk_coord_call *call) {
    size_t most = (size_t)m->shard->settings.members_max;
    const cnk_member *member = cnk_group_member(g, call->member_id);
    if (g->state == CNK_COORD_EMPTY) return true;
    if (g->state == CNK_COORD_PREPARING_REBALANCE) return (member && member->joining) || g->joining < most;
    return member || g->by_id.count < most;
}

static int join(cnk_groups *m, cnk_group *g, cnk_coord_call *call, cnk_coord_out *out) {
    if (!accepts(m, g, call)) {
        cnk_member *over = cnk_group_member(g, call->member_id), *pending = cnk_group_pending(g, call->member_id);
        if (over) {
            cnk_member_sync_over(over, out, CHRONIK_EUNKNOWNMEMBER);
            cnk_member_free(over);
        }
        if (pending) cnk_member_free(pending);
        return join_refused(call, (cnk_text){"", 0}, CHRONIK_EGROUPFULL, out);
    }
    if (!cnk_group_speaks(g, call))
        return join_refused(call, call->member_id, CHRONIK_EGROUPPROTOCOL, out);
    return call->member_id.len == 0 ? join_new(g, call, out) : join_again(g, call, out);
}

/* The name of who asks, and 16 random bytes as a UUID. */
static int make_id(cnk_group *g, cnk_coord_call *call, cnk_text *ret_id) {
    const chronik_io *io = g->groups->shard->io;
    cnk_text name = call->instance_id.p ? call->instance_id : call->client_id;
    uint8_t b[16];
    size_t room = name.len + 38;
    char *p = cnk_arena_alloc(&call->arena, room);
    if (p == NULL) return CHRONIK_ENOMEM;
    io->entropy(io->entropy_self, b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    if (name.len > 0) memcpy(p, name.p, name.len);
    snprintf(p + name.len, 38, "-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
             b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    *ret_id = (cnk_text){p, name.len + 37};
    return 0;
}

/* It waits for the end of the rebalance. Whoever asked before in its name has gone, or should ask again. */
static void wait_for_join(cnk_member *m, cnk_coord_call *call, cnk_coord_out *out) {
    if (m->join) cnk_coord_out_answer(out, m->join, CHRONIK_EREBALANCE);
    m->group->joining += !m->joining;
    m->joining = true;
    m->join = call;
}

static int update(cnk_member *m, cnk_coord_call *call, cnk_coord_out *out) {
    int rc = cnk_member_protocols_set(m, call->protocols, call->protocol_count);
    m->rebalance_timeout_ms = call->rebalance_timeout_ms;
    m->session_timeout_ms = call->session_timeout_ms;
    wait_for_join(m, call, out);
    return rc;
}

static int member_of(cnk_group *g, const cnk_coord_call *call, cnk_text id, cnk_member **ret_member) {
    cnk_coord_member as = {.id = id,
                           .instance_id = call->instance_id,
                           .client_id = call->client_id,
                           .client_host = call->client_host};
    return cnk_member_new(g, &as, ret_member);
}

/* addMemberThenRebalanceOrCompleteJoin */
static int add(cnk_group *g, cnk_coord_call *call, cnk_text id, cnk_coord_out *out) {
    cnk_member *m, *pending = cnk_group_pending(g, id);
    if (pending) cnk_member_free(pending);
    int rc = member_of(g, call, id, &m);
    if (rc != 0) return rc;
    m->is_new = true;
    if (g->state == CNK_COORD_PREPARING_REBALANCE && g->state_before == CNK_COORD_EMPTY) g->member_added = true;
    if (cnk_list_empty(&g->members)) rc = cnk_group_text_set(&g->protocol_type, call->protocol_type);
    if (rc == 0) rc = cnk_group_join(g, m);
    if (rc != 0) {
        cnk_member_free(m);
        return rc;
    }
    rc = update(m, call, out);
    if (rc != 0) return rc; /* the instance goes, and all with it */
    cnk_classic_session(m, CNK_GROUPS_JOIN_TIMEOUT_MS, out->now_ns);
    return cnk_classic_rebalance_or_complete(g, out);
}

/* A static member comes back without its id: it takes the place of the one that it was, which is fenced (KIP-345).
 * updateStaticMemberThenRebalanceOrCompleteJoin */
static int replace(cnk_group *g, cnk_member *old, cnk_coord_call *call, cnk_text id, cnk_coord_out *out) {
    cnk_member *m;
    cnk_text leader = {"", 0};
    cnk_coord_member as = {
        .id = id, .instance_id = old->instance_id, .client_id = old->client_id, .client_host = old->client_host};
    bool led = g->leader == old;
    int rc = g->leader ? keep(call, g->leader->id, &leader) : 0;
    if (rc == 0) rc = cnk_member_new(g, &as, &m);
    if (rc != 0) return rc;
    cnk_member_join_over(old, out, CHRONIK_EFENCEDINSTANCE);
    cnk_member_sync_over(old, out, CHRONIK_EFENCEDINSTANCE);
    rc = cnk_member_assignment_set(m, (cnk_text){(const char *)old->assignment, old->assignment_len});
    m->sync_due = old->sync_due;
    cnk_member_free(old);
    if (rc == 0) rc = cnk_group_join(g, m);
    if (rc != 0) {
        cnk_member_free(m);
        return rc;
    }
    if (led) g->leader = m;
    rc = update(m, call, out);
    if (rc != 0) return rc;
    cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
    if (g->state == CNK_COORD_STABLE) {
        cnk_text next = {NULL, 0};
        if (cnk_group_protocol_select(g, &next) != 0 || !cnk_text_equal(next, (cnk_text){g->protocol, strlen(g->protocol)}))
            return cnk_classic_prepare(g, out);
        bool skip = call->version >= 9 && led; /* KIP-814 */
        rc = cnk_classic_answer_join(m, skip, skip, call->version >= 9 && led ? m->id : leader, out);
        return rc ? rc : cnk_classic_write(g, NULL, out);
    }
    if (g->state == CNK_COORD_COMPLETING_REBALANCE) return cnk_classic_prepare(g, out);
    return cnk_classic_complete_if_all(g, out);
}

static int join_new(cnk_group *g, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_text id;
    int rc = make_id(g, call, &id);
    if (rc != 0) return rc;
    if (call->instance_id.p) {
        cnk_member *old = cnk_group_instance(g, call->instance_id);
        return old ? replace(g, old, call, id, out) : add(g, call, id, out);
    }
    if (call->version < 4) return add(g, call, id, out);
    cnk_member *m; /* KIP-394: it is asked to join again with the id */
    rc = member_of(g, call, id, &m);
    if (rc != 0) return rc;
    rc = cnk_group_wait(g, m);
    if (rc != 0) {
        cnk_member_free(m);
        return rc;
    }
    cnk_classic_session(m, call->session_timeout_ms, out->now_ns);
    return join_refused(call, id, CHRONIK_EMEMBERIDREQUIRED, out);
}

/* What it is told of the generation that there is. */
static int answer_as_is(cnk_group *g, cnk_member *m, cnk_coord_call *call, bool with_members, cnk_coord_out *out) {
    if (m->join) cnk_coord_out_answer(out, m->join, CHRONIK_EREBALANCE);
    m->join = call;
    return cnk_classic_answer_join(m, false, with_members, g->leader ? g->leader->id : (cnk_text){"", 0}, out);
}

/* classicGroupJoinExistingMember */
static int join_again(cnk_group *g, cnk_coord_call *call, cnk_coord_out *out) {
    if (cnk_group_pending(g, call->member_id)) {
        if (call->instance_id.p) return join_refused(call, call->member_id, CHRONIK_EINTERNAL, out); /* as Kafka */
        return add(g, call, call->member_id, out);
    }
    int rc = cnk_group_check_member(g, call->member_id, call->instance_id);
    if (rc != 0) return join_refused(call, call->member_id, rc, out);
    cnk_member *m = cnk_group_member(g, call->member_id);
    bool same = cnk_member_matches(m, call), leads = g->leader == m;
    switch (g->state) {
    case CNK_COORD_COMPLETING_REBALANCE: /* it may have missed the answer */
        if (same) return answer_as_is(g, m, call, leads, out);
        break;
    case CNK_COORD_STABLE: /* the leader may have seen other topics */
        if (same && !leads) return answer_as_is(g, m, call, false, out);
        break;
    case CNK_COORD_PREPARING_REBALANCE: break;
    default: return join_refused(call, call->member_id, CHRONIK_EUNKNOWNMEMBER, out);
    }
    rc = update(m, call, out);
    return rc ? rc : cnk_classic_rebalance_or_complete(g, out);
}

/* ---- sync ------------------------------------------------------------------------------------------------------- */

static bool differs(cnk_text asked, const char *has) {
    return asked.p && has && (strlen(has) != asked.len || memcmp(has, asked.p, asked.len) != 0);
}

static int check_sync(const cnk_group *g, const cnk_coord_call *call) {
    if (g == NULL || g->state == CNK_COORD_EMPTY) return CHRONIK_EUNKNOWNMEMBER;
    int rc = cnk_group_check_member(g, call->member_id, call->instance_id);
    if (rc != 0) return rc;
    if (call->generation != g->generation && !CNK_COORD_BUG(SYNC_OLD_GENERATION)) return CHRONIK_EGENERATION;
    if (differs(call->protocol_type, g->protocol_type) || differs(call->protocol_name, g->protocol))
        return CHRONIK_EGROUPPROTOCOL;
    return g->state == CNK_COORD_PREPARING_REBALANCE ? CHRONIK_EREBALANCE : 0;
}

static int sync_refused(cnk_coord_call *call, int error, cnk_coord_out *out) {
    call->protocol_type = call->protocol_name = (cnk_text){NULL, 0};
    cnk_coord_out_answer(out, call, error);
    return 0;
}

/* The leader's assignment: written, and, since it is applied at once, on its way to all who have asked. */
static int settle(cnk_group *g, const cnk_coord_call *call, cnk_coord_out *out) {
    int rc = CNK_COORD_BUG(ASSIGN_UNWRITTEN) ? 0 : cnk_classic_write(g, call, out);
    if (CNK_COORD_BUG(ASSIGN_UNWRITTEN)) cnk_classic_move(g, CNK_COORD_STABLE, out->now_ms);
    CNK_LIST_EACH(node, &g->members) {
        cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
        cnk_text assignment = {"", 0};
        for (size_t i = 0; i < call->member_count; i++)
            if (cnk_text_equal(call->members[i].id, m->id)) assignment = call->members[i].assignment;
        if (rc == 0) rc = cnk_member_assignment_set(m, assignment);
        if (rc != 0 || !m->syncing) continue;
        cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
        rc = cnk_classic_answer_sync(m, out);
    }
    return rc;
}

int cnk_classic_sync(cnk_groups *groups, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_group *g = cnk_groups_find(groups, call->group);
    call->ret_assignment = (cnk_text){"", 0};
    out->clean = true;
    int rc = call->group.len == 0 ? CHRONIK_EINVALIDGROUP : check_sync(g, call);
    if (rc != 0) return sync_refused(call, rc, out);
    cnk_member *m = cnk_group_member(g, call->member_id);
    out->clean = false;
    cnk_classic_sync_received(m);
    if (m->sync) cnk_coord_out_answer(out, m->sync, CHRONIK_EREBALANCE);
    m->sync = call;
    if (g->state == CNK_COORD_STABLE) {
        cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
        return cnk_classic_answer_sync(m, out);
    }
    m->syncing = true;
    return g->leader == m ? settle(g, call, out) : 0;
}

/* ---- heartbeat -------------------------------------------------------------------------------------------------- */

int cnk_classic_heartbeat(cnk_groups *groups, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_group *g = cnk_groups_find(groups, call->group);
    out->clean = true;
    int rc = call->group.len == 0 ? CHRONIK_EINVALIDGROUP
             : g == NULL          ? CHRONIK_EUNKNOWNMEMBER
                                  : cnk_group_check_member(g, call->member_id, call->instance_id);
    if (rc == 0 && call->generation != g->generation) rc = CHRONIK_EGENERATION;
    if (rc == 0 && g->state == CNK_COORD_EMPTY) rc = CHRONIK_EUNKNOWNMEMBER;
    if (rc == 0) {
        cnk_member *m = cnk_group_member(g, call->member_id);
        cnk_classic_session(m, m->session_timeout_ms, out->now_ns);
        if (g->state == CNK_COORD_PREPARING_REBALANCE) rc = CHRONIK_EREBALANCE;
    }
    cnk_coord_out_answer(out, call, rc);
    return 0;
}

/* ---- leave ------------------------------------------------------------------------------------------------------ */

static void remove_member(cnk_member *m, cnk_coord_out *out) {
    cnk_member_join_over(m, out, CHRONIK_EUNKNOWNMEMBER);
    cnk_member_sync_over(m, out, CHRONIK_EUNKNOWNMEMBER);
    cnk_member_free(m);
}

/* By id; or, from an administrator, by instance alone. */
static int leave_one(cnk_group *g, const cnk_coord_member *who, cnk_coord_out *out) {
    cnk_member *m;
    if (who->id.len == 0) {
        m = cnk_group_instance(g, who->instance_id);
        if (m == NULL) return CHRONIK_EUNKNOWNMEMBER;
    } else if ((m = cnk_group_pending(g, who->id)) == NULL) {
        int rc = cnk_group_check_member(g, who->id, who->instance_id);
        if (rc != 0) return rc;
        m = cnk_group_member(g, who->id);
    }
    remove_member(m, out);
    return 0;
}

int cnk_classic_leave(cnk_groups *groups, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_group *g = cnk_groups_find(groups, call->group);
    size_t left = 0;
    int rc = 0;
    out->clean = g == NULL;
    for (size_t i = 0; i < call->member_count; i++) {
        call->members[i].error = g ? leave_one(g, &call->members[i], out) : CHRONIK_EUNKNOWNMEMBER;
        left += call->members[i].error == 0;
    }
    cnk_coord_out_answer(out, call, call->group.len == 0 ? CHRONIK_EINVALIDGROUP : 0);
    if (left > 0 && (g->state == CNK_COORD_STABLE || g->state == CNK_COORD_COMPLETING_REBALANCE))
        rc = cnk_classic_rebalance_or_complete(g, out);
    else if (left > 0)
        rc = cnk_classic_complete_if_all(g, out);
    return rc;
}
