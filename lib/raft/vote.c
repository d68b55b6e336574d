/* Elections: RequestVote [3.4, 3.6.1], and the question before it [9.6].
 *
 * Votes and requests carry the newest lsn of all: when they leave this node, the term, the vote and the very log that
 * was compared are durable (R1, R2). A node that crashes before has never said anything. */
#include "raft/internal.h"

static bool up_to_date(const chronik_raft *g, const chronik_raft_message *m);
static void ask_all(chronik_raft *g, cnk_raft_out *out, chronik_raft_message_type type, uint32_t term, uint8_t flags);
static void reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m, bool granted);

/* The timeout has passed [3.4]: ask whether an election can be won, before a term is begun that disturbs the others
 * [9.6]. */
void cnk_raft_stand(chronik_raft *g, cnk_raft_out *out) {
    cnk_raft_turn(g, CNK_RAFT_TIMED_OUT);
    g->leader = 0;
    g->tally = cnk_raft_self_mask(g);
    if (cnk_raft_quorum(g, g->tally))
        cnk_raft_campaign(g, out, 0);
    else
        ask_all(g, out, CHRONIK_RAFT_PREVOTE, g->term + 1, 0);
}

/* A replica that has lost entries may not stand, and cannot be helped without a leader; the others may all be asleep
 * (R12), each for the sake of a leader that is gone. A question that nobody grants wakes them. */
void cnk_raft_call(chronik_raft *g, cnk_raft_out *out) {
    cnk_raft_timer_reset(g);
    ask_all(g, out, CHRONIK_RAFT_PREVOTE, g->term, CHRONIK_RAFT_LOST);
}

/* [3.4] "…increments its current term … votes for itself and issues RequestVote." */
void cnk_raft_campaign(chronik_raft *g, cnk_raft_out *out, uint8_t flags) {
    cnk_raft_turn(g, flags & CHRONIK_RAFT_HANDOVER ? CNK_RAFT_CALLED : CNK_RAFT_PREVOTES_WON);
    cnk_raft_term_set(g, out, g->term + 1, g->self);
    g->tally = cnk_raft_self_mask(g);
    if (cnk_raft_quorum(g, g->tally)) /* the only voter: leads at once; what it sends waits for its vote (append.c) */
        cnk_raft_lead(g, out);
    else
        ask_all(g, out, CHRONIK_RAFT_VOTE, g->term, flags);
}

/* [9.6] Yes, if we would vote for it, and do not hear from a leader ourselves. No promise: nothing is written. */
void cnk_raft_on_prevote(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if ((m->flags & CHRONIK_RAFT_LOST) && m->term >= g->term) return; /* it has woken us, and wants nothing else */
    bool granted = m->term > g->term && up_to_date(g, m) && !cnk_raft_hears_leader(g) &&
                   (!g->is_lost || CNK_RAFT_BUG(LOST_VOTES));
    chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_PREVOTE_REPLY, m->from, g->vote_lsn);
    r->term = granted ? m->term : g->term;
    r->flags = granted ? 0 : CHRONIK_RAFT_REFUSED;
}

void cnk_raft_on_prevote_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    int slot = cnk_raft_slot(g, m->from);
    if (g->role != CHRONIK_RAFT_ROLE_PRECANDIDATE || (m->flags & CHRONIK_RAFT_REFUSED) || m->term != g->term + 1 ||
        slot < 0)
        return;
    g->tally |= CNK_RAFT_BIT(slot);
    if (cnk_raft_quorum(g, g->tally)) cnk_raft_campaign(g, out, 0);
}

/* RequestVote. The caller has dealt with higher terms [3.3] and with requests that a live leader makes moot [4.2.3]. */
void cnk_raft_on_vote(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (m->term < g->term && !CNK_RAFT_BUG(STALE_TERM)) { /* [3.3] */
        reply(g, out, m, false);
        return;
    }
    /* [3.4] "each server will vote for at most one candidate in a given term"; R2, R4: a replica that has lost entries
     * for none; [3.6.1] nor for one whose log lacks what ours has. */
    bool free_to = g->voted_for == 0 || g->voted_for == m->from || CNK_RAFT_BUG(DOUBLE_VOTE);
    bool granted = free_to && up_to_date(g, m) && (!g->is_lost || CNK_RAFT_BUG(LOST_VOTES));
    if (granted && g->voted_for != m->from && g->role <= CHRONIK_RAFT_ROLE_PRECANDIDATE) {
        cnk_raft_term_set(g, out, g->term, m->from);
        cnk_raft_turn(g, CNK_RAFT_VOTED); /* its own turn comes after the candidate's */
    }
    reply(g, out, m, granted);
}

void cnk_raft_on_vote_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    int slot = cnk_raft_slot(g, m->from);
    if (g->role != CHRONIK_RAFT_ROLE_CANDIDATE || (m->flags & CHRONIK_RAFT_REFUSED) || slot < 0) return;
    if (m->term != g->term) return;
    g->tally |= CNK_RAFT_BIT(slot);
    if (cnk_raft_quorum(g, g->tally)) cnk_raft_lead(g, out);
}

/* [4.2.3] Within the shortest timeout after a leader's message nobody else can rightly be elected. A sleeping group has
 * a leader as long as the host says nothing else (R12). */
bool cnk_raft_hears_leader(const chronik_raft *g) {
    if (g->role == CHRONIK_RAFT_ROLE_LEADER) return true;
    return g->leader != 0 &&
           (g->asleep || g->rearm || g->now_ticks - g->heard_ticks < g->settings->election_ticks);
}

/* [3.6.1] "…the log with the later term is more up-to-date … whichever log is longer." */
static bool up_to_date(const chronik_raft *g, const chronik_raft_message *m) {
    if (CNK_RAFT_BUG(VOTE_WITHOUT_LOG)) return true;
    uint64_t last = g->last_index;
    uint32_t term = g->last_term;
    if (CNK_RAFT_BUG(VOTE_ON_DURABLE) && g->durable_index < last && g->durable_index + 1 >= g->first_index) {
        last = g->durable_index;
        term = cnk_raft_term_at(g, last);
    }
    return m->log_term > term || (m->log_term == term && m->index >= last);
}

static void ask_all(chronik_raft *g, cnk_raft_out *out, chronik_raft_message_type type, uint32_t term, uint8_t flags) {
    uint64_t lsn = CNK_RAFT_BUG(ELECT_UNSYNCED) ? 0 : g->lsn;
    CNK_RAFT_EACH(g, cnk_raft_voters(g) & ~cnk_raft_self_mask(g), slot) {
        chronik_raft_message *m = cnk_raft_send(g, out, type, g->member[slot].id, lsn);
        m->term = term;
        m->flags = flags;
        m->index = g->last_index;
        m->log_term = g->last_term;
    }
}

static void reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m, bool granted) {
    uint64_t lsn = CNK_RAFT_BUG(VOTE_NOT_PERSISTED) ? 0 : g->lsn;
    chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_VOTE_REPLY, m->from, lsn);
    if (CNK_RAFT_BUG(STALE_TERM) && granted) r->term = m->term;
    if (!granted) r->flags = CHRONIK_RAFT_REFUSED;
}
