/* InstallSnapshot [5.1], the part that is Raft's: who needs one, and what it does to a log. How the bytes travel is the
 * host's affair: they are with the receiver before the message is. */
#include "raft/internal.h"

static void install(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);

/* The member needs entries that the log no longer has. */
void cnk_raft_snapshot_send(chronik_raft *g, cnk_raft_out *out, int slot) {
    cnk_raft_mask bit = CNK_RAFT_BIT(slot);
    if (!(g->active & bit)) return; /* whoever is silent does not get one */
    g->snapshot |= bit;
    g->doubt &= ~bit;
    (void)cnk_raft_send(g, out, CHRONIK_RAFT_SNAPSHOT, g->member[slot].id, g->vote_lsn);
}

/* The host is done with sending; index 0: in vain. A heartbeat's answer brings the next probe. */
void cnk_raft_snapshot_sent(chronik_raft *g, uint64_t peer, uint64_t index) {
    int slot = cnk_raft_slot(g, peer);
    if (g->role != CHRONIK_RAFT_ROLE_LEADER || slot < 0 || !(g->snapshot & CNK_RAFT_BIT(slot))) return;
    g->snapshot &= ~CNK_RAFT_BIT(slot);
    cnk_raft_probe(g, slot, index + 1);
    g->doubt |= CNK_RAFT_BIT(slot);
}

void cnk_raft_on_snapshot(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (m->term < g->term) { /* [3.3] */
        chronik_raft_message *r = cnk_raft_send(g, out, CHRONIK_RAFT_APPEND_REPLY, m->from, g->vote_lsn);
        r->flags = CHRONIK_RAFT_REFUSED;
        return;
    }
    cnk_raft_leader_seen(g, m);
    if (m->index <= g->commit_index && !CNK_RAFT_BUG(SNAPSHOT_OVER_COMMITTED)) { /* an old one: we have all of it */
        cnk_raft_answer_append(g, out, m->from, g->commit_index);
        return;
    }
    bool have = m->index <= g->last_index && m->index + 1 >= g->first_index &&
                cnk_raft_term_at(g, m->index) == m->log_term && !CNK_RAFT_BUG(SNAPSHOT_OVER_COMMITTED);
    if (have) /* [5.1] "…retain log entries following it": the log agrees up to there, and that is committed */
        cnk_raft_commit_set(g, out, m->index);
    else
        install(g, out, m);
    if (m->index > g->verified) g->verified = m->index;
    cnk_raft_answer_append(g, out, m->from, m->index);
}

/* [5.1] "…discard the entire log"; the configuration is the snapshot's. */
static void install(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    if (!CNK_RAFT_BUG(SNAPSHOT_FORGETS_CONFIG)) {
        cnk_raft_config_adopt(g, m->config, 0);
        cnk_raft_config_settled(g);
    }
    g->config_index = 0;
    cnk_raft_reset(g, out, m);
}
