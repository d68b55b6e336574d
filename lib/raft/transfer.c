/* Leadership transfer [3.10]: no new proposals, the target is brought up to date, then told to stand at once. */
#include "raft/internal.h"

int cnk_raft_transfer(chronik_raft *g, cnk_raft_out *out, uint64_t peer) {
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return CHRONIK_ENOTLEADER;
    if (g->transfer != 0) return CHRONIK_EBUSY;
    int best = peer != 0 ? cnk_raft_slot(g, peer) : -1;
    cnk_raft_mask may = cnk_raft_voters(g) & ~cnk_raft_self_mask(g) & ~g->lost;
    if (peer == 0)
        CNK_RAFT_EACH(g, may & g->active, slot)
            if (best < 0 || g->member[slot].match > g->member[best].match) best = slot;
    if (best < 0 || !(may & CNK_RAFT_BIT(best))) return CHRONIK_EINVAL;
    g->transfer = (uint8_t)(best + 1);
    g->transfer_age = 0;
    g->falling_asleep = false;
    cnk_raft_transfer_check(g, out);
    return 0;
}

/* Has the target everything? [3.10] "…sends a TimeoutNow request." If nothing comes of it, the leader takes proposals
 * again after an election timeout (tick.c). */
void cnk_raft_transfer_check(chronik_raft *g, cnk_raft_out *out) {
    if (g->transfer == 0 || g->role != CHRONIK_RAFT_ROLE_LEADER) return;
    const cnk_raft_member *p = &g->member[g->transfer - 1];
    if (p->match == g->last_index) (void)cnk_raft_send(g, out, CHRONIK_RAFT_TIMEOUT_NOW, p->id, g->vote_lsn);
}

/* [3.10] As if the election timeout had passed; no pre-vote, and voters do not mind that they hear from the leader. */
void cnk_raft_on_timeout_now(chronik_raft *g, cnk_raft_out *out) {
    if (cnk_raft_electable(g)) cnk_raft_campaign(g, out, CHRONIK_RAFT_HANDOVER);
}
