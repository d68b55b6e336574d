/* Groups as administrators see them: described, listed, deleted.
 *
 * Owner: the instance's shard. */
#include "coord/groups.h"

static int copy(cnk_coord_call *call, cnk_text from, cnk_text *to) {
    char *p = cnk_arena_alloc(&call->arena, from.len + 1);
    if (p == NULL) return CHRONIK_ENOMEM;
    if (from.len > 0) memcpy(p, from.p, from.len);
    *to = (cnk_text){from.p ? p : NULL, from.len};
    return 0;
}

static cnk_text text_of(const char *s) { return (cnk_text){s ? s : "", s ? strlen(s) : 0}; }

static int describe_member(const cnk_group *g, const cnk_member *m, cnk_coord_call *call, cnk_coord_member *to) {
    bool stable = g->state == CNK_COORD_STABLE; /* else what it has may be about to change */
    cnk_text none = {"", 0};
    *to = (cnk_coord_member){.error = 0};
    int rc = copy(call, m->id, &to->id);
    if (rc == 0) rc = copy(call, m->instance_id, &to->instance_id);
    if (rc == 0) rc = copy(call, m->client_id, &to->client_id);
    if (rc == 0) rc = copy(call, m->client_host, &to->client_host);
    if (rc == 0) rc = copy(call, stable ? cnk_member_metadata(m, text_of(g->protocol)) : none, &to->metadata);
    if (rc == 0) rc = copy(call, (cnk_text){(const char *)m->assignment, m->assignment_len}, &to->assignment);
    return rc;
}

static int describe(const cnk_group *g, cnk_coord_call *call) {
    call->ret_state = g->state;
    call->members = cnk_arena_alloc(&call->arena, (g->by_id.count + 1) * sizeof *call->members);
    if (call->members == NULL) return CHRONIK_ENOMEM;
    int rc = copy(call, text_of(g->protocol_type), &call->protocol_type);
    if (rc == 0) rc = copy(call, text_of(g->state == CNK_COORD_STABLE ? g->protocol : NULL), &call->protocol_name);
    CNK_LIST_EACH(node, &g->members) {
        if (rc != 0) break;
        rc = describe_member(g, CNK_CONTAINER(node, cnk_member, node), call, &call->members[call->member_count++]);
    }
    return rc;
}

int cnk_groups_describe(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    const cnk_group *g = cnk_groups_find(m, call->group);
    out->clean = true;
    call->member_count = 0;
    call->ret_state = CNK_COORD_DEAD;
    call->protocol_type = call->protocol_name = (cnk_text){"", 0};
    int rc = g ? describe(g, call) : CHRONIK_EGROUPNOTFOUND;
    cnk_coord_out_answer(out, call, rc);
    return rc == CHRONIK_ENOMEM ? rc : 0;
}

/* All of this partition; who asks filters them. */
int cnk_groups_list(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    int rc = 0;
    out->clean = true;
    call->ret_group_count = 0;
    call->ret_groups = cnk_arena_alloc(&call->arena, (m->groups.count + 1) * sizeof *call->ret_groups);
    if (call->ret_groups == NULL) rc = CHRONIK_ENOMEM;
    CNK_LIST_EACH(node, &m->order) {
        if (rc != 0) break;
        const cnk_group *g = CNK_CONTAINER(node, cnk_group, node);
        cnk_coord_listed *to = &call->ret_groups[call->ret_group_count++];
        to->state = g->state;
        rc = copy(call, cnk_group_id(g), &to->id);
        if (rc == 0) rc = copy(call, text_of(g->protocol_type), &to->protocol_type);
    }
    cnk_coord_out_answer(out, call, rc);
    return rc;
}

int cnk_groups_delete(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out) {
    cnk_group *g = cnk_groups_find(m, call->group);
    out->clean = true;
    int rc = g == NULL ? CHRONIK_EGROUPNOTFOUND : g->state != CNK_COORD_EMPTY ? CHRONIK_ENONEMPTYGROUP : 0;
    cnk_coord_out_answer(out, call, rc);
    if (rc != 0) return 0;
    rc = cnk_offsets_tombstones(g, out);
    return rc ? rc : cnk_groups_tombstone(g, out);
}
