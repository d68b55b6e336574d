/* AppendEntries [3.5]: the follower's side, the leader's side, and the pipeline between them [10.2.1].
 *
 * To each member a leader is in one of three states: probing (one APPEND at a time, to find where the logs agree), open
 * (up to window_bytes_max on their way), snapshot (it waits for one). Every APPEND is limited in bytes.
 *
 * APPENDs carry no lsn but that of the leader's vote: the leader writes and sends at the same time [10.2.1]. An answer
 * carries the follower's newest, since it says "durable" (R1, R2), and the term of the APPEND, so that no later leader
 * takes it for an answer to its own. */
#include "raft/internal.h"

static void refuse(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
static uint64_t take(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
static void send_append(chronik_raft *g, cnk_raft_out *out, int slot);
static void acknowledged(chronik_raft *g, cnk_raft_out *out, int slot, uint64_t match);
static void refused(chronik_raft *g, const chronik_raft_message *m, int slot);
static uint32_t bytes_of(const chronik_raft *g, uint64_t first, uint64_t last);

/* ---- follower --------------------------------------------------------------------------------------------------- */

void cnk_raft_on_append(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    bool stale = m->term < g->term;
    if (stale && (!CNK_RAFT_BUG(STALE_TERM) || g->role != CHRONIK_RAFT_ROLE_FOLLOWER)) {
        refuse(g, out, m); /* [3.3] a leader of the past; it must hear of the term: pre-votes do not tell it [9.6] */
        return;
    }
    if (!stale) cnk_raft_leader_seen(g, m);
    /* [3.5] The entry before must be ours as well. What a snapshot stands for is committed, and so equal. */
    uint64_t prev = m->index;
    if (prev > g->last_index || (prev + 1 >= g->first_index && cnk_raft_term_at(g, prev) != m->log_term &&
                                 !CNK_RAFT_BUG(APPEND_WITHOUT_CHECK))) {
        refuse(g, out, m);
        return;
    }
    uint64_t match = take(g, out, m);
    if (match > g->verified) g->verified = match;
    cnk_raft_commit_heard(g, out, m);
    cnk_raft_repaired(g, out, m);
    cnk_raft_answer_append(g, out, m->from, match);
    if (stale) out->effects->effect[out->effects->count - 1].message.term = m->term;
}

void cnk_raft_answer_append(chronik_raft *g, cnk_raft_out *out, uint64_t to, uint64_t match) {
    uint64_t lsn = CNK_RAFT_BUG(ACK_BEFORE_SYNC) ? 0 : g->lsn;
    chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_APPEND_REPLY, to, lsn);
    r->index = match;
    if (g->is_lost) r->flags = CHRONIK_RAFT_LOST;
}

/* [3.5] The follower may say where the leader should look next: the last entry, up to the refused one, whose term is
 * not above the leader's entry there. */
static void refuse(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_APPEND_REPLY, m->from, g->vote_lsn);
    r->flags = (uint8_t)(CHRONIK_RAFT_REFUSED | (g->is_lost ? CHRONIK_RAFT_LOST : 0));
    r->index = m->index;
    if (m->term < g->term) return;
    uint64_t hint = m->index < g->last_index ? m->index : g->last_index;
    r->hint = cnk_raft_last_of_term(g, hint, m->log_term);
    r->log_term = cnk_raft_term_at(g, r->hint);
}

/* [3.5] "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and
 * all that follow it": only then, since the message may be an old one. Takes entries up to, not with, a second
 * configuration. Returns up to where the log now is the leader's. */
static uint64_t take(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    uint32_t skip = 0, count = 0;
    const chronik_raft_config *config = NULL;
    uint64_t config_index = 0;
    while (skip < m->count) { /* what we have, or a snapshot stands for */
        uint64_t index = m->index + 1 + skip;
        if (index > g->last_index) break;
        if (index >= g->first_index && cnk_raft_term_at(g, index) != m->entries[skip].term) break;
        skip++;
    }
    uint64_t kept = m->index + skip;
    if (CNK_RAFT_BUG(TRUNCATE_ALWAYS) && kept < g->last_index && kept >= g->commit_index) {
        cnk_raft_config_take_back(g, kept);
        cnk_raft_truncate(g, out, kept);
    }
    for (count = skip; count < m->count; count++) {
        const chronik_raft_entry *e = &m->entries[count];
        if (e->config != NULL && config != NULL) break;
        if (e->config != NULL) config = e->config, config_index = m->index + 1 + count;
    }
    if (skip == count) return m->index + count;
    if (kept < g->last_index) {
        cnk_raft_config_take_back(g, kept);
        cnk_raft_truncate(g, out, kept);
    }
    cnk_raft_append_received(g, out, m->entries + skip, count - skip);
    if (config != NULL) cnk_raft_config_adopt(g, config, config_index);
    return m->index + count;
}

/* ---- leader ----------------------------------------------------------------------------------------------------- */

void cnk_raft_on_append_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    int slot = cnk_raft_slot(g, m->from);
    if (slot < 0 || m->index > g->last_index) return;
    if (m->flags & CHRONIK_RAFT_REFUSED)
        refused(g, m, slot);
    else
        acknowledged(g, out, slot, m->index);
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return; /* it has committed its own removal */
    cnk_raft_replicate(g, out, cnk_raft_slot(g, m->from));
    cnk_raft_transfer_check(g, out);
}

static void acknowledged(chronik_raft *g, cnk_raft_out *out, int slot, uint64_t match) {
    cnk_raft_member *p = &g->member[slot];
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    bool news = match > p->match;
    if (news) {
        if (!((g->probing | g->snapshot) & bit)) {
            uint32_t bytes = match < p->next ? bytes_of(g, p->match + 1, match) : p->window;
            p->window -= bytes < p->window ? bytes : p->window;
        }
        p->match = match;
        g->moved = true;
        if (p->next <= match) p->next = match + 1;
        g->doubt &= ~bit;
    }
    if (g->snapshot & bit) {
        if (p->match + 1 < g->first_index) return; /* still too far behind for the log */
        g->snapshot &= ~bit;
        g->probing |= bit;
    }
    if (g->probing & bit) { /* the logs agree: open the pipeline */
        g->probing &= ~bit;
        g->doubt &= ~bit;
        p->next = p->match + 1;
        p->window = 0;
    }
    if (!news) return;
    uint64_t commit = g->commit_index;
    cnk_raft_commit_check(g, out);
    /* R8: the last to acknowledge is told of the commit index, too, when nothing else follows. */
    if (g->role == CHRONIK_RAFT_ROLE_LEADER && g->commit_index == commit && match == out->sendable && match <= commit)
        cnk_raft_heartbeat(g, out, slot);
}

/* Back off to probing where the follower's hint and our log say that they may agree. */
static void refused(chronik_raft *g, const chronik_raft_message *m, int slot) {
    cnk_raft_member *p = &g->member[slot];
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    if ((g->snapshot & bit) || m->index <= p->match) return;     /* an old answer */
    if ((g->probing & bit) && m->index != p->next - 1) return;   /* likewise */
    uint64_t hint = m->hint < m->index ? m->hint : m->index - 1;
    if (hint + 1 >= g->first_index) hint = cnk_raft_last_of_term(g, hint, m->log_term);
    cnk_raft_probe(g, slot, hint + 1);
}

/* From here on one APPEND at a time, beginning with this entry. */
void cnk_raft_probe(chronik_raft *g, int slot, uint64_t next) {
    cnk_raft_member *p = &g->member[slot];
    p->next = next > p->match ? next : p->match + 1;
    p->window = 0;
    g->probing |= CNK_RAFT_BIT(slot);
    g->doubt &= ~CNK_RAFT_BIT(slot);
}

/* What was sent may be lost: once a heartbeat is answered, we ask. */
void cnk_raft_unreachable(chronik_raft *g, uint64_t peer) {
    int slot = cnk_raft_slot(g, peer);
    if (g->role != CHRONIK_RAFT_ROLE_LEADER || slot < 0 || peer == g->self) return;
    if ((g->snapshot | g->probing) & CNK_RAFT_BIT(slot)) return;
    cnk_raft_probe(g, slot, g->member[slot].match + 1);
    g->doubt |= CNK_RAFT_BIT(slot);
}

/* FLUSH: what has been appended is in the host's log now, and goes to everybody who can take it. */
void cnk_raft_flush(chronik_raft *g, cnk_raft_out *out) {
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return;
    CNK_RAFT_EACH(g, cnk_raft_members(g) & ~cnk_raft_self_mask(g), slot) {
        cnk_raft_mask bit = CNK_RAFT_BIT(slot);
        /* In a very large group some wait for the answer to their next heartbeat. */
        if (out->effects->count + CNK_RAFT_BURST + CNK_RAFT_SPARE > CHRONIK_RAFT_EFFECTS_MAX) break;
        if ((g->probing & bit) || g->member[slot].next <= g->last_index) cnk_raft_replicate(g, out, slot);
    }
}

void cnk_raft_replicate(chronik_raft *g, cnk_raft_out *out, int slot) {
    if (slot < 0) return;
    cnk_raft_member *p = &g->member[slot];
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    if (g->snapshot & bit) return;
    if (p->next < g->first_index) { /* [5] the log does not reach back so far */
        cnk_raft_snapshot_send(g, out, slot);
    } else if (g->probing & bit) {
        if (!(g->doubt & bit)) send_append(g, out, slot);
        g->doubt |= bit;
    } else {
        for (int n = 0; n < CNK_RAFT_BURST && p->next <= out->sendable && p->window < g->settings->window_bytes_max;
             n++)
            send_append(g, out, slot);
    }
}

/* One APPEND from `next` on, no larger than the limit: a probe, too, is small, however far behind the follower is. */
static void send_append(chronik_raft *g, cnk_raft_out *out, int slot) {
    cnk_raft_member *p = &g->member[slot];
    chronik_raft_message *m = cnk_raft_send(g, out, CHRONIK_RAFT_APPEND, p->id, g->vote_lsn);
    m->index = p->next - 1;
    m->log_term = cnk_raft_term_at(g, m->index);
    m->commit = g->commit_index;
    m->flags = cnk_raft_repaired_flag(g, slot);
    if (p->next > out->sendable) return; /* nothing but the question */
    uint32_t bytes = 0;
    bool probe = (g->probing & CNK_RAFT_BIT(slot)) != 0;
    uint32_t limit = probe && CNK_RAFT_BUG(UNLIMITED_PROBE) ? UINT32_MAX : g->settings->message_bytes_max;
    uint64_t last = g->settings->log.fit(g->arg, p->next, out->sendable, limit, &bytes);
    CNK_ASSERT(last >= p->next && last <= out->sendable);
    m->count = (uint32_t)(last - p->next + 1);
    if (probe) return; /* `next` stays until the answer is there */
    p->next = last + 1;
    p->window += bytes;
}

static uint32_t bytes_of(const chronik_raft *g, uint64_t first, uint64_t last) {
    uint32_t bytes = 0;
    if (first < g->first_index) return UINT32_MAX;
    return g->settings->log.fit(g->arg, first, last, UINT32_MAX, &bytes) == last ? bytes : UINT32_MAX;
}
