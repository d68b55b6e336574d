/* Heartbeats [3.4]: small, without entries, to travel beside the appends and in the company of other groups'.
 *
 * One may overtake appends, so it carries no more commit index than the member is known to have (R3). Its round number
 * tells that the leader was one after a read began [6.4]; its answer, how far the member's log is known to be the
 * leader's. */
#include "raft/internal.h"

static void progress(chronik_raft *g, cnk_raft_out *out, int slot, uint64_t verified);

void cnk_raft_heartbeat(chronik_raft *g, cnk_raft_out *out, int slot) {
    const cnk_raft_member *p = &g->member[slot];
    chronik_raft_message *m = cnk_raft_send(g, out, CHRONIK_RAFT_HEARTBEAT, p->id, g->vote_lsn);
    m->index = g->last_index;
    m->commit = p->match < g->commit_index && !CNK_RAFT_BUG(HEARTBEAT_OVERTAKES) ? p->match : g->commit_index;
    m->round = g->read_round;
    m->flags = cnk_raft_repaired_flag(g, slot);
    if (g->falling_asleep) m->flags |= CHRONIK_RAFT_SLEEP;
}

void cnk_raft_heartbeats(chronik_raft *g, cnk_raft_out *out) {
    CNK_RAFT_EACH(g, cnk_raft_members(g) & ~cnk_raft_self_mask(g), slot) cnk_raft_heartbeat(g, out, slot);
}

void cnk_raft_on_heartbeat(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (m->term < g->term) { /* [3.3], [9.6] */
        chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_HEARTBEAT_REPLY, m->from, g->vote_lsn);
        r->flags = CHRONIK_RAFT_REFUSED;
        return;
    }
    cnk_raft_leader_seen(g, m);
    cnk_raft_commit_heard(g, out, m);
    cnk_raft_repaired(g, out, m);
    chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_HEARTBEAT_REPLY, m->from, g->vote_lsn);
    r->index = g->verified;
    r->round = m->round;
    if (g->is_lost) r->flags = CHRONIK_RAFT_LOST;
    /* R12: asleep only with the leader's whole log, all of it committed. */
    bool whole = m->index == g->last_index && g->verified == g->last_index && g->commit_index == g->last_index;
    bool agreed = (m->flags & CHRONIK_RAFT_SLEEP) && whole && !g->is_lost;
    if (agreed) r->flags |= CHRONIK_RAFT_SLEEP;
    if (g->asleep && !agreed) cnk_raft_wake(g);
    g->asleep = agreed;
}

void cnk_raft_on_heartbeat_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    int slot = cnk_raft_slot(g, m->from);
    if (slot < 0 || (m->flags & CHRONIK_RAFT_REFUSED)) return;
    bool counts = (m->flags & CHRONIK_RAFT_LOST) == 0;
    if (g->reading && counts && (m->round == g->read_round || CNK_RAFT_BUG(READ_OLD_ROUND))) {
        g->tally |= CNK_RAFT_BIT(slot);
        cnk_raft_read_check(g, out);
    }
    if (g->falling_asleep && (m->flags & CHRONIK_RAFT_SLEEP)) {
        g->tally |= CNK_RAFT_BIT(slot);
        cnk_raft_sleep_check(g);
    }
    progress(g, out, slot, m->index);
}

/* Lost appends, a lost answer, or a member that has started again and knows no more how far its log is ours: a second
 * heartbeat without an acknowledgement, and we ask. What it has received is not sent a second time: the question behind
 * it is enough. */
static void progress(chronik_raft *g, cnk_raft_out *out, int slot, uint64_t verified) {
    cnk_raft_member *p = &g->member[slot];
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    if (g->snapshot & bit) return;
    if (g->probing & bit) {
        g->doubt &= ~bit;
    } else if (p->match + 1 < p->next || (verified < p->match && !CNK_RAFT_BUG(RESTARTED_UNVERIFIED))) {
        if (g->doubt & bit) cnk_raft_probe(g, slot, (verified < p->next ? verified : p->next - 1) + 1);
        else g->doubt |= bit;
    }
    if ((g->probing & bit) || p->next <= g->last_index) cnk_raft_replicate(g, out, slot);
}

/* R2: a leader with a committed entry of its own has all that was ever committed; a member that matches it up to there
 * has it, too, and may count again. Its old acknowledgements are of older terms. */
uint8_t cnk_raft_repaired_flag(const chronik_raft *g, int slot) {
    bool whole =
        (g->member[slot].match >= g->verified && g->commit_index >= g->verified) || CNK_RAFT_BUG(REPAIRED_EARLY);
    return (g->lost & CNK_RAFT_BIT(slot)) && whole ? CHRONIK_RAFT_REPAIRED : 0;
}

void cnk_raft_repaired(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (!g->is_lost || !(m->flags & CHRONIK_RAFT_REPAIRED)) return;
    g->is_lost = false;
    g->break_lsn = ++g->lsn;
    cnk_raft_effect(out, CHRONIK_RAFT_DO_REPAIRED)->lsn = g->lsn;
}
