/* Members of groups: their memory, their names, what protocols they speak.
 *
 * Owner: the instance's shard. */
#include "coord/groups.h"

#include "base/assert.h"

static char *text_put(char **at, cnk_text from, cnk_text *ret_text) {
    *ret_text = (cnk_text){from.p ? *at : NULL, from.len};
    if (from.len > 0) memcpy(*at, from.p, from.len);
    *at += from.len;
    return *at;
}

static void on_session(cnk_coord_timer *timer);

int cnk_member_new(cnk_group *g, const cnk_coord_member *as, cnk_member **ret_member) {
    cnk_member *m = cnk_calloc(1, sizeof *m);
    char *at = cnk_malloc(as->id.len + as->instance_id.len + as->client_id.len + as->client_host.len + 1);
    if (m == NULL || at == NULL) {
        cnk_free(m);
        cnk_free(at);
        return CHRONIK_ENOMEM;
    }
    m->group = g;
    m->texts = at;
    text_put(&at, as->id, &m->id);
    text_put(&at, as->instance_id, &m->instance_id);
    text_put(&at, as->client_id, &m->client_id);
    text_put(&at, as->client_host, &m->client_host);
    m->session = (cnk_coord_timer){.fire = on_session, .arg = m};
    cnk_list_init(&m->node);
    *ret_member = m;
    return 0;
}

void cnk_member_free(cnk_member *m) {
    cnk_group *g = m->group;
    cnk_coord_timer_clear(g->groups->shard, &m->session);
    cnk_list_remove(&m->node);
    if (cnk_group_member(g, m->id) == m) {
        cnk_map_remove_bytes(&g->by_id, m->id.p, m->id.len);
        cnk_counter_sub(&g->groups->shard->members, 1);
    }
    if (m->instance_id.p && cnk_group_instance(g, m->instance_id) == m)
        cnk_map_remove_bytes(&g->by_instance, m->instance_id.p, m->instance_id.len);
    if (cnk_group_pending(g, m->id) == m) cnk_map_remove_bytes(&g->pending, m->id.p, m->id.len);
    if (m->joining && !m->pending) g->joining--;
    if (g->leader == m)
        g->leader = cnk_list_empty(&g->members) ? NULL : CNK_CONTAINER(g->members.next, cnk_member, node);
    cnk_free(m->texts);
    cnk_free(m->protocols);
    cnk_free(m->assignment);
    cnk_free(m);
}

/* ---- what members speak ----------------------------------------------------------------------------------------- */

int cnk_member_protocols_set(cnk_member *m, const cnk_coord_protocol *protocols, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += protocols[i].name.len + protocols[i].metadata.len;
    cnk_coord_protocol *copy = cnk_malloc(count * sizeof *copy + bytes + 1);
    if (copy == NULL) return CHRONIK_ENOMEM;
    char *at = (char *)(copy + count);
    for (size_t i = 0; i < count; i++) {
        text_put(&at, protocols[i].name, &copy[i].name);
        text_put(&at, protocols[i].metadata, &copy[i].metadata);
    }
    cnk_free(m->protocols);
    m->protocols = copy;
    m->protocol_count = count;
    return 0;
}

bool cnk_member_matches(const cnk_member *m, const cnk_coord_call *call) {
    if (m->protocol_count != call->protocol_count) return false;
    for (size_t i = 0; i < m->protocol_count; i++)
        if (!cnk_text_equal(m->protocols[i].name, call->protocols[i].name) ||
            m->protocols[i].metadata.len != call->protocols[i].metadata.len ||
            (m->protocols[i].metadata.len > 0 &&
             memcmp(m->protocols[i].metadata.p, call->protocols[i].metadata.p, m->protocols[i].metadata.len) != 0))
            return false;
    return true;
}

int cnk_member_assignment_set(cnk_member *m, cnk_text assignment) {
    uint8_t *copy = cnk_memdup(assignment.p ? assignment.p : "", assignment.len);
    if (copy == NULL) return CHRONIK_ENOMEM;
    cnk_free(m->assignment);
    m->assignment = copy;
    m->assignment_len = assignment.len;
    return 0;
}

cnk_text cnk_member_metadata(const cnk_member *m, cnk_text protocol) {
    for (size_t i = 0; i < m->protocol_count; i++)
        if (cnk_text_equal(m->protocols[i].name, protocol))
            return m->protocols[i].metadata.p ? m->protocols[i].metadata : (cnk_text){"", 0};
    return (cnk_text){NULL, 0};
}

static bool all_speak(const cnk_group *g, cnk_text protocol) {
    CNK_LIST_EACH(node, &g->members)
    if (cnk_member_metadata(CNK_CONTAINER(node, cnk_member, node), protocol).p == NULL) return false;
    return true;
}

/* Can who asks be a member beside those that there are? ClassicGroup.supportsProtocols. */
bool cnk_group_speaks(const cnk_group *g, const cnk_coord_call *call) {
    if (g->state == CNK_COORD_EMPTY) return call->protocol_type.len > 0 && call->protocol_count > 0;
    if (g->protocol_type == NULL || strlen(g->protocol_type) != call->protocol_type.len ||
        memcmp(g->protocol_type, call->protocol_type.p, call->protocol_type.len) != 0)
        return false;
    for (size_t i = 0; i < call->protocol_count; i++)
        if (all_speak(g, call->protocols[i].name)) return true;
    return false;
}

/* Each member votes for the first of its protocols that all speak; ties go to the one that came first. */
int cnk_group_protocol_select(cnk_group *g, cnk_text *ret_protocol) {
    size_t best = 0;
    const cnk_member *first = CNK_CONTAINER(g->members.next, cnk_member, node);
    for (size_t i = 0; !cnk_list_empty(&g->members) && i < first->protocol_count; i++) {
        size_t votes = 0;
        if (!all_speak(g, first->protocols[i].name)) continue;
        CNK_LIST_EACH(node, &g->members) {
            const cnk_member *m = CNK_CONTAINER(node, cnk_member, node);
            size_t n = 0;
            while (!all_speak(g, m->protocols[n].name)) n++;
            votes += cnk_text_equal(m->protocols[n].name, first->protocols[i].name);
        }
        if (votes > best) {
            best = votes;
            *ret_protocol = first->protocols[i].name;
        }
    }
    return best > 0 ? 0 : CHRONIK_ENOTFOUND;
}

/* ---- who is who ------------------------------------------------------------------------------------------------- */

cnk_member *cnk_group_member(const cnk_group *g, cnk_text id) {
    return id.p ? cnk_map_get_bytes(&g->by_id, id.p, id.len) : NULL;
}

cnk_member *cnk_group_instance(const cnk_group *g, cnk_text instance_id) {
    return instance_id.p ? cnk_map_get_bytes(&g->by_instance, instance_id.p, instance_id.len) : NULL;
}

cnk_member *cnk_group_pending(const cnk_group *g, cnk_text id) {
    return id.p ? cnk_map_get_bytes(&g->pending, id.p, id.len) : NULL;
}

int cnk_group_join(cnk_group *g, cnk_member *m) {
    if (cnk_map_put_bytes(&g->by_id, m->id.p, m->id.len, m) != 0) return CHRONIK_ENOMEM;
    cnk_counter_add(&g->groups->shard->members, 1);
    if (m->instance_id.p && cnk_map_put_bytes(&g->by_instance, m->instance_id.p, m->instance_id.len, m) != 0)
        return CHRONIK_ENOMEM; /* the maps know the member, and its end takes it out */
    cnk_list_push_back(&g->members, &m->node);
    if (g->leader == NULL) g->leader = m;
    return 0;
}

int cnk_group_wait(cnk_group *g, cnk_member *m) {
    m->pending = true;
    if (cnk_map_put_bytes(&g->pending, m->id.p, m->id.len, m) != 0) return CHRONIK_ENOMEM;
    cnk_list_push_back(&g->pending_members, &m->node);
    return 0;
}

/* ClassicGroup.validateMember (KIP-345). */
int cnk_group_check_member(const cnk_group *g, cnk_text id, cnk_text instance_id) {
    if (instance_id.p) {
        const cnk_member *m = cnk_group_instance(g, instance_id);
        if (m == NULL) return CHRONIK_EUNKNOWNMEMBER;
        if (!cnk_text_equal(m->id, id)) return CHRONIK_EFENCEDINSTANCE;
    }
    return cnk_group_member(g, id) ? 0 : CHRONIK_EUNKNOWNMEMBER;
}

int cnk_group_text_set(char **text, cnk_text to) {
    char *copy = NULL;
    if (to.p) {
        copy = cnk_malloc(to.len + 1);
        if (copy == NULL) return CHRONIK_ENOMEM;
        memcpy(copy, to.p, to.len);
        copy[to.len] = 0;
    }
    cnk_free(*text);
    *text = copy;
    return 0;
}

/* ---- subscriptions ---------------------------------------------------------------------------------------------- */

/* The head of a consumer's subscription, the same in all versions: i16 version, array of topics. 1: it names the topic; 0: it
 * does not; ECORRUPT. */
static int names_topic(cnk_text subscription, cnk_text topic) {
    cnk_reader r = cnk_reader_of(subscription.p, subscription.len);
    (void)cnk_read_be16(&r);
    int32_t count = (int32_t)cnk_read_be32(&r);
    bool found = false;
    for (int32_t i = 0; i < count && r.error == 0; i++) {
        uint16_t len = cnk_read_be16(&r);
        const uint8_t *p = cnk_read_bytes(&r, len);
        if (p && len == topic.len && memcmp(p, topic.p, len) == 0) found = true;
    }
    return r.error ? CHRONIK_ECORRUPT : found;
}

/* ClassicGroup.isSubscribedToTopic: where the subscriptions cannot be read, consumers count as subscribed to all. */
bool cnk_group_subscribed(const cnk_group *g, cnk_text topic) {
    if (g->protocol_type == NULL || cnk_list_empty(&g->members)) return false;
    if (strcmp(g->protocol_type, "consumer") != 0) return false;
    if (g->protocol == NULL) return true;
    CNK_LIST_EACH(node, &g->members) {
        int rc = names_topic(
            cnk_member_metadata(CNK_CONTAINER(node, cnk_member, node), (cnk_text){g->protocol, strlen(g->protocol)}),
            topic);
        if (rc != 0) return true;
    }
    return false;
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

/* GroupMetadataManager.expireClassicGroupMemberHeartbeat. */
static int step_expired(void *machine, void *arg, cnk_coord_out *out) {
    cnk_member *m = arg;
    cnk_group *g = m->group;
    (void)machine;
    if (m->pending) {
        cnk_member_free(m);
        return cnk_classic_complete_if_all(g, out);
    }
    if (!m->is_new && (m->joining || m->syncing)) return 0; /* it waits for us, not we for it */
    cnk_member_join_over(m, out, CHRONIK_EUNKNOWNMEMBER);
    cnk_member_sync_over(m, out, CHRONIK_EUNKNOWNMEMBER);
    cnk_member_free(m);
    if (g->state == CNK_COORD_STABLE || g->state == CNK_COORD_COMPLETING_REBALANCE)
        return cnk_classic_rebalance_or_complete(g, out);
    return cnk_classic_complete_if_all(g, out);
}

static void on_session(cnk_coord_timer *timer) {
    cnk_member *m = timer->arg;
    cnk_coord_event(m->group->groups->instance, timer, step_expired, m);
}
