/* Linearizable reads without a log entry [6.4], the read barrier.
 *
 * A read may be served from the state at the commit index if the leader was still the leader after the read began: a
 * majority answers a heartbeat that was sent after it. One round is under way at a time; reads that come meanwhile
 * share the next. */
#include "raft/internal.h"

static void begin(chronik_raft *g, cnk_raft_out *out);

int cnk_raft_read(chronik_raft *g, cnk_raft_out *out) {
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return CHRONIK_ENOTLEADER;
    g->busy_ticks = g->now_ticks;
    cnk_raft_effect(out, CHRONIK_RAFT_DO_READ)->round = g->read_round + 1;
    if (g->reading)
        g->reading_next = true;
    else
        begin(g, out);
    return 0;
}

/* [6.4] "If the leader has not yet marked an entry from its current term committed, it waits until it has done so." */
void cnk_raft_read_check(chronik_raft *g, cnk_raft_out *out) {
    if (!g->reading) return;
    if (!cnk_raft_quorum(g, g->tally | cnk_raft_self_mask(g)) && !CNK_RAFT_BUG(READ_WITHOUT_BARRIER)) return;
    if (g->commit_index < g->verified && !CNK_RAFT_BUG(READ_BEFORE_OWN_COMMIT)) return;
    chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_READY);
    e->round = g->read_round;
    e->index = g->commit_index;
    g->reading = false;
    if (!g->reading_next) return;
    g->reading_next = false;
    begin(g, out);
}

static void begin(chronik_raft *g, cnk_raft_out *out) {
    g->reading = true;
    g->falling_asleep = false;
    g->tally = 0;
    g->read_round++;
    cnk_raft_heartbeats(g, out);
    cnk_raft_read_check(g, out);
}
