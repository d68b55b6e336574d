/* Groups: made, moved, looked at; and the one function that does something.
 *
 * What comes in is checked here, once and before anything changes; behind the door it is asserted. */
#include <string.h>

#include "base/error.h"
#include "raft/internal.h"

static int check(const chronik_raft *g, const chronik_raft_event *event);
static int check_message(const chronik_raft *g, const chronik_raft_message *m);
static int check_append(const chronik_raft *g, const chronik_raft_message *m);
static int dispatch(chronik_raft *g, cnk_raft_out *out, const chronik_raft_event *event);
static void receive(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
static bool term_rules(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
static bool disturbs(const chronik_raft *g, const chronik_raft_event *event);
static void tell_changes(chronik_raft *g, cnk_raft_out *out, const chronik_raft *was);

size_t chronik_raft_size(unsigned members) {
    return sizeof(chronik_raft) + (members < 1 ? 1 : members) * sizeof(cnk_raft_member);
}

_Static_assert(sizeof(chronik_raft) + 3 * sizeof(cnk_raft_member) <= 300, "a group of three is small");

static uint8_t capacity_of(size_t bytes) {
    if (bytes < sizeof(chronik_raft)) return 0;
    size_t slots = (bytes - sizeof(chronik_raft)) / sizeof(cnk_raft_member);
    return (uint8_t)(slots < CHRONIK_RAFT_MEMBERS_MAX ? slots : CHRONIK_RAFT_MEMBERS_MAX);
}

static bool settings_valid(const chronik_raft_settings *s) {
    return s != NULL && s->size >= sizeof *s && s->heartbeat_ticks > 0 && s->election_ticks >= 3 * s->heartbeat_ticks &&
           s->election_ticks < UINT16_MAX / 2 && s->message_bytes_max > 0 && s->window_bytes_max > 0 && s->log.term &&
           s->log.fit;
}

static bool options_valid(const chronik_raft_options *o) {
    return o->size >= sizeof *o && o->self != 0 && settings_valid(o->settings) && o->first_index > 0 &&
           o->last_index + 1 >= o->first_index && o->commit_index <= o->last_index &&
           o->commit_index + 1 >= o->first_index && o->config_index <= o->last_index &&
           o->term <= CHRONIK_RAFT_TERM_MAX && (o->config == NULL || cnk_raft_config_valid(o->config)) &&
           (o->config_before == NULL || (o->config != NULL && cnk_raft_config_valid(o->config_before)));
}

int chronik_raft_init(void *memory, size_t bytes, const chronik_raft_options *o, chronik_error *err,
                      chronik_raft **ret_group) {
    chronik_raft *g = memory;
    if (memory == NULL || capacity_of(bytes) == 0)
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a raft group");
    if (!options_valid(o))
        return cnk_error(err, CHRONIK_EINVAL, 0, "the options of a raft group contradict each other");
    memset(g, 0, bytes);
    g->settings = o->settings;
    g->arg = o->arg;
    g->self = o->self;
    g->capacity = capacity_of(bytes);
    g->voted_for = o->voted_for;
    g->first_index = o->first_index;
    g->last_index = g->durable_index = o->last_index;
    g->last_term = o->last_index == 0 ? 0 : o->settings->log.term(o->arg, o->last_index);
    g->term = o->term > g->last_term ? o->term : g->last_term;
    if (g->term != o->term) g->voted_for = 0;
    g->commit_index = o->commit_index;
    g->is_lost = g->lost_begins = o->lost;
    g->random = (o->seed ^ (uint32_t)o->self * UINT32_C(0x9e3779b1)) | 1;
    if ((o->config_before && !cnk_raft_config_fits(g, o->config_before)) ||
        (o->config && !cnk_raft_config_fits(g, o->config)))
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no room for the members of a raft group");
    if (o->config_before) cnk_raft_config_adopt(g, o->config_before, 0);
    if (o->config && !cnk_raft_config_fits(g, o->config))
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no room for the members of a raft group");
    if (o->config) cnk_raft_config_adopt(g, o->config, o->config_index);
    if (o->config_before == NULL) cnk_raft_config_settled(g);
    cnk_raft_timer_reset(g);
    g->rearm = true;
    *ret_group = g;
    return 0;
}

int chronik_raft_move(chronik_raft *g, void *memory, size_t bytes, chronik_raft **ret_group) {
    int used = g->capacity;
    while (used > 1 && g->member[used - 1].id == 0) used--;
    if (memory == NULL || capacity_of(bytes) < used) return CHRONIK_ENOMEM;
    chronik_raft *to = memory;
    memmove(to, g, sizeof *g + (size_t)used * sizeof g->member[0]);
    to->capacity = capacity_of(bytes);
    for (int slot = used; slot < to->capacity; slot++) to->member[slot] = (cnk_raft_member){0};
    *ret_group = to;
    return 0;
}

int chronik_raft_step(chronik_raft *g, const chronik_raft_event *event, chronik_raft_effects *effects) {
    cnk_raft_out out = {effects, g->last_index};
    chronik_raft was = *g; /* without the members */
    effects->count = 0;
    effects->flush = false;
    int rc = check(g, event);
    if (rc != 0) return rc;
    if (g->lost_begins) { /* R2: in a term in which nobody counts what this replica acknowledged before its loss */
        g->lost_begins = false;
        if (g->term < CHRONIK_RAFT_TERM_MAX) cnk_raft_term_set(g, &out, g->term + 1, 0);
    }
    if (g->asleep && disturbs(g, event)) cnk_raft_wake(g);
    rc = dispatch(g, &out, event);
    if (rc == 0) tell_changes(g, &out, &was);
    return rc;
}

static int check(const chronik_raft *g, const chronik_raft_event *event) {
    if (g->role == CHRONIK_RAFT_ROLE_FAILED && event->type != CHRONIK_RAFT_DISK_FAILED) return CHRONIK_EFENCED;
    bool leads = g->role == CHRONIK_RAFT_ROLE_LEADER;
    switch (event->type) {
    case CHRONIK_RAFT_MESSAGE: return check_message(g, event->message);
    case CHRONIK_RAFT_PROPOSE:
        if (!leads) return CHRONIK_ENOTLEADER;
        if (event->count == 0) return CHRONIK_EINVAL;
        return g->transfer != 0 ? CHRONIK_EAGAIN : 0;
    case CHRONIK_RAFT_READ: return leads ? 0 : CHRONIK_ENOTLEADER;
    case CHRONIK_RAFT_COMPACTED:
        return event->index <= g->commit_index && event->index + 1 >= g->first_index ? 0 : CHRONIK_EINVAL;
    default: return 0; /* their own functions look */
    }
}

/* What a member could have sent. The link has checked the bytes; here it is the sense. */
static int check_message(const chronik_raft *g, const chronik_raft_message *m) {
    if (m == NULL || m->from == 0 || m->from == g->self || m->to != g->self || m->term == 0 ||
        m->term > CHRONIK_RAFT_TERM_MAX || m->log_term > m->term || m->index > UINT64_MAX - UINT32_MAX)
        return CHRONIK_EPROTO;
    bool leaders = m->type == CHRONIK_RAFT_APPEND || m->type == CHRONIK_RAFT_HEARTBEAT ||
                   m->type == CHRONIK_RAFT_SNAPSHOT || m->type == CHRONIK_RAFT_TIMEOUT_NOW;
    /* [3.4] A term has one leader at most. */
    if (leaders && m->term == g->term &&
        (g->role == CHRONIK_RAFT_ROLE_LEADER || (g->leader != 0 && g->leader != m->from)))
        return CHRONIK_EPROTO;
    if (m->type == CHRONIK_RAFT_SNAPSHOT) {
        if (m->config == NULL || m->index == 0 || !cnk_raft_config_valid(m->config)) return CHRONIK_EPROTO;
        return cnk_raft_config_fits(g, m->config) ? 0 : CHRONIK_ENOMEM;
    }
    return m->type == CHRONIK_RAFT_APPEND ? check_append(g, m) : 0;
}

static int check_append(const chronik_raft *g, const chronik_raft_message *m) {
    uint32_t term = m->log_term;
    int rc = 0;
    if (m->count > 0 && m->entries == NULL) return CHRONIK_EPROTO;
    for (uint32_t i = 0; i < m->count; i++) {
        const chronik_raft_entry *e = &m->entries[i];
        if (e->term < term || e->term > m->term || e->term == 0) return CHRONIK_EPROTO; /* terms never go down [3.5] */
        term = e->term;
        if (e->config == NULL) continue;
        if (!cnk_raft_config_valid(e->config)) return CHRONIK_EPROTO;
        if (!cnk_raft_config_fits(g, e->config)) rc = CHRONIK_ENOMEM;
    }
    /* [3.6.3] What is committed here is in the log of every later leader. */
    for (uint64_t i = 0; i <= m->count && m->term >= g->term; i++) {
        uint64_t index = m->index + i;
        if (index < g->first_index) continue;
        if (index > g->commit_index) break;
        if (cnk_raft_term_at(g, index) != (i == 0 ? m->log_term : m->entries[i - 1].term)) return CHRONIK_ECORRUPT;
    }
    return rc;
}

static int dispatch(chronik_raft *g, cnk_raft_out *out, const chronik_raft_event *event) {
    switch (event->type) {
    case CHRONIK_RAFT_TICK: cnk_raft_tick(g, out, event->now); return 0;
    case CHRONIK_RAFT_MESSAGE: receive(g, out, event->message); return 0;
    case CHRONIK_RAFT_PROPOSE: cnk_raft_append_own(g, out, CHRONIK_RAFT_PROPOSED, event->count); return 0;
    case CHRONIK_RAFT_FLUSH: cnk_raft_flush(g, out); return 0;
    case CHRONIK_RAFT_DURABLE: cnk_raft_durable(g, out, event->lsn); return 0;
    case CHRONIK_RAFT_CONFIGURE: return cnk_raft_configure(g, out, event->config);
    case CHRONIK_RAFT_READ: return cnk_raft_read(g, out);
    case CHRONIK_RAFT_TRANSFER: return cnk_raft_transfer(g, out, event->peer);
    case CHRONIK_RAFT_SNAPSHOT_SENT: cnk_raft_snapshot_sent(g, event->peer, event->index); return 0;
    case CHRONIK_RAFT_WAKE: cnk_raft_woken(g, event->peer); return 0;
    case CHRONIK_RAFT_DISK_FAILED: /* R2: what it says from now on could not be made good */
        if (!CNK_RAFT_BUG(FAILED_DISK_LEADS)) cnk_raft_turn(g, CNK_RAFT_DISK_BROKEN);
        return 0;
    case CHRONIK_RAFT_CAMPAIGN:
        if (cnk_raft_electable(g)) cnk_raft_stand(g, out);
        return 0;
    case CHRONIK_RAFT_COMPACTED: g->first_index = event->index + 1; return 0;
    case CHRONIK_RAFT_UNREACHABLE: cnk_raft_unreachable(g, event->peer); return 0;
    }
    return CHRONIK_EINVAL;
}

static void receive(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (!term_rules(g, out, m)) return;
    switch (m->type) {
    case CHRONIK_RAFT_PREVOTE: cnk_raft_on_prevote(g, out, m); return;
    case CHRONIK_RAFT_PREVOTE_REPLY: cnk_raft_on_prevote_reply(g, out, m); return;
    case CHRONIK_RAFT_VOTE: cnk_raft_on_vote(g, out, m); return;
    case CHRONIK_RAFT_VOTE_REPLY: cnk_raft_on_vote_reply(g, out, m); return;
    case CHRONIK_RAFT_APPEND: cnk_raft_on_append(g, out, m); return;
    case CHRONIK_RAFT_HEARTBEAT: cnk_raft_on_heartbeat(g, out, m); return;
    case CHRONIK_RAFT_SNAPSHOT: cnk_raft_on_snapshot(g, out, m); return;
    case CHRONIK_RAFT_TIMEOUT_NOW: cnk_raft_on_timeout_now(g, out); return;
    default: break;
    }
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return;
    int slot = cnk_raft_slot(g, m->from);
    if (slot < 0) return;
    g->active |= CNK_RAFT_BIT(slot); /* [6.2] */
    if (m->flags & CHRONIK_RAFT_LOST)
        g->lost |= CNK_RAFT_BIT(slot);
    else
        g->lost &= ~CNK_RAFT_BIT(slot);
    if (m->type == CHRONIK_RAFT_APPEND_REPLY) cnk_raft_on_append_reply(g, out, m);
    if (m->type == CHRONIK_RAFT_HEARTBEAT_REPLY) cnk_raft_on_heartbeat_reply(g, out, m);
}

/* [3.3] What a message's term does, whatever else it says. False: that was all. */
static bool term_rules(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    bool request = m->type == CHRONIK_RAFT_PREVOTE || m->type == CHRONIK_RAFT_VOTE || m->type == CHRONIK_RAFT_APPEND ||
                   m->type == CHRONIK_RAFT_HEARTBEAT || m->type == CHRONIK_RAFT_SNAPSHOT;
    if (m->term < g->term) { /* requests are refused, so that the sender learns of our term; old replies are nothing */
        return request || (CNK_RAFT_BUG(STALE_ACK) && m->type == CHRONIK_RAFT_APPEND_REPLY);
    }
    if (m->term == g->term) return true;
    bool refused = (m->flags & CHRONIK_RAFT_REFUSED) != 0;
    if (m->type == CHRONIK_RAFT_PREVOTE || (m->type == CHRONIK_RAFT_PREVOTE_REPLY && !refused))
        return true; /* [9.6] a term that may never be */
    if (m->type == CHRONIK_RAFT_VOTE && !(m->flags & CHRONIK_RAFT_HANDOVER) && cnk_raft_hears_leader(g))
        return false; /* [4.2.3] "…it does not update its term or grant its vote" */
    cnk_raft_turn(g, CNK_RAFT_HIGHER_TERM);
    cnk_raft_term_set(g, out, m->term, 0);
    return true;
}

/* Does it wake a sleeping group? Not what is said while all fall asleep. */
static bool disturbs(const chronik_raft *g, const chronik_raft_event *event) {
    const chronik_raft_message *m = event->message;
    switch (event->type) {
    case CHRONIK_RAFT_TICK:
    case CHRONIK_RAFT_FLUSH:
    case CHRONIK_RAFT_DURABLE:
    case CHRONIK_RAFT_COMPACTED:
    case CHRONIK_RAFT_SNAPSHOT_SENT:
    case CHRONIK_RAFT_UNREACHABLE: return false;
    case CHRONIK_RAFT_MESSAGE:
        if (m->term < g->term) return false;
        return !((m->type == CHRONIK_RAFT_HEARTBEAT || m->type == CHRONIK_RAFT_HEARTBEAT_REPLY) &&
                 m->term == g->term && (m->flags & CHRONIK_RAFT_SLEEP));
    default: return true;
    }
}

static void tell_changes(chronik_raft *g, cnk_raft_out *out, const chronik_raft *was) {
    if (g->role != was->role || g->term != was->term || g->leader != was->leader) {
        chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_ROLE);
        e->role = g->role;
        e->term = g->term;
        e->peer = g->leader;
    }
    if (g->asleep != was->asleep)
        (void)cnk_raft_effect(out, g->asleep ? CHRONIK_RAFT_DO_SLEEP : CHRONIK_RAFT_DO_WAKE);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

void chronik_raft_status_get(const chronik_raft *g, chronik_raft_status *ret_status) {
    *ret_status = (chronik_raft_status){
        .role = (chronik_raft_role)g->role,
        .term = g->term,
        .voted_for = g->voted_for,
        .leader = g->leader,
        .first_index = g->first_index,
        .last_index = g->last_index,
        .durable_index = g->durable_index,
        .commit_index = g->commit_index,
        .term_start = g->role == CHRONIK_RAFT_ROLE_LEADER ? g->verified : 0,
        .config_index = g->config_index,
        .lsn = g->lsn,
        .joint = g->now.old != 0,
        .voter = cnk_raft_is_voter(g),
        .lost = g->is_lost,
        .asleep = g->asleep,
        .transferring = g->transfer != 0,
    };
}

void chronik_raft_config_get(const chronik_raft *g, chronik_raft_config *ret_config) {
    *ret_config = (chronik_raft_config){0};
    CNK_RAFT_EACH(g, g->now.old, slot) ret_config->old[ret_config->old_count++] = g->member[slot].id;
    CNK_RAFT_EACH(g, g->now.voters, slot) ret_config->voters[ret_config->voter_count++] = g->member[slot].id;
    CNK_RAFT_EACH(g, g->now.learners, slot) ret_config->learners[ret_config->learner_count++] = g->member[slot].id;
}

int chronik_raft_peer_get(const chronik_raft *g, uint64_t id, chronik_raft_peer *ret_peer) {
    int slot = cnk_raft_slot(g, id);
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return CHRONIK_ENOTLEADER;
    if (slot < 0) return CHRONIK_ENOTFOUND;
    const cnk_raft_member *p = &g->member[slot];
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    *ret_peer = (chronik_raft_peer){
        .match_index = id == g->self ? g->durable_index : p->match,
        .next_index = id == g->self ? g->last_index + 1 : p->next,
        .window_bytes = p->window,
        .probing = (g->probing & bit) != 0,
        .snapshot = (g->snapshot & bit) != 0,
        .lost = (g->lost & bit) != 0,
        .active = id == g->self || (g->active & bit) != 0,
    };
    return 0;
}
