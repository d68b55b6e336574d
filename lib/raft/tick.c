/* Time, as far as the host tells it, and sleep (R12).
 *
 * Between ticks a group does not know the time; what sets a timer then counts from the last tick, and after a sleep,
 * when there was none, from the next (`rearm`). Clocks that jump or drift cost elections, never safety. */
#include "raft/internal.h"

static void leader_tick(chronik_raft *g, cnk_raft_out *out, uint32_t before);
static bool period_end(chronik_raft *g);
static void doze(chronik_raft *g);

void cnk_raft_tick(chronik_raft *g, cnk_raft_out *out, uint32_t now) {
    uint32_t before = g->now_ticks;
    if ((int32_t)(now - before) <= 0 && !g->rearm) return;
    g->now_ticks = now;
    if (g->asleep) return;
    if (g->rearm) {
        g->rearm = false;
        g->heard_ticks = g->busy_ticks = now;
        before = now - 1;
    }
    if (g->role == CHRONIK_RAFT_ROLE_LEADER)
        leader_tick(g, out, before);
    else if (now - g->heard_ticks < g->timeout_ticks)
        return;
    else if (cnk_raft_electable(g))
        cnk_raft_stand(g, out);
    else if (g->is_lost)
        cnk_raft_call(g, out);
}

/* Whatever happens to a sleeping group but the passing of time. */
void cnk_raft_wake(chronik_raft *g) {
    g->asleep = false;
    g->rearm = true;
}

/* The host's word about a peer: it is silent, or new. If it was our leader, one timeout from now somebody stands, each
 * at its own time; no shortest timeout protects the leader that is gone. */
void cnk_raft_woken(chronik_raft *g, uint64_t peer) {
    if (g->role == CHRONIK_RAFT_ROLE_LEADER || g->leader != peer) return;
    g->leader = 0;
    cnk_raft_timer_reset(g);
    g->timeout_ticks = (uint16_t)(1 + g->random % g->settings->election_ticks);
    g->rearm = true;
}

/* All have agreed: the leader sleeps as well. */
void cnk_raft_sleep_check(chronik_raft *g) {
    cnk_raft_mask all = cnk_raft_members(g) & ~cnk_raft_self_mask(g);
    if (g->falling_asleep && ((g->tally & all) == all || CNK_RAFT_BUG(SLEEP_UNASKED))) {
        g->falling_asleep = false;
        g->asleep = true;
    }
}

static void leader_tick(chronik_raft *g, cnk_raft_out *out, uint32_t before) {
    if (g->now_ticks - g->heard_ticks >= g->settings->election_ticks && !period_end(g)) return;
    /* Of all groups that are ticked together, at the same ticks. */
    if (g->now_ticks / g->settings->heartbeat_ticks == before / g->settings->heartbeat_ticks) return;
    doze(g);
    cnk_raft_heartbeats(g, out);
    cnk_raft_sleep_check(g);
    cnk_raft_flush(g, out);
}

/* Once in an election timeout. False: no longer the leader. */
static bool period_end(chronik_raft *g) {
    g->heard_ticks = g->now_ticks;
    if (!cnk_raft_quorum(g, g->active | cnk_raft_self_mask(g))) { /* [6.2] it may be cut off without knowing */
        cnk_raft_turn(g, CNK_RAFT_QUORUM_LOST);
        return false;
    }
    g->active = 0;
    if (g->transfer != 0 && ++g->transfer_age >= 2) g->transfer = 0; /* [3.10] */
    /* R12: heartbeats get through, but nobody acknowledges and nothing commits: perhaps somebody else can lead. */
    g->stalled = g->commit_index < g->last_index && !g->moved ? (uint8_t)(g->stalled + 1) : 0;
    g->moved = false;
    if (g->stalled >= 3 && !cnk_raft_sole_voter(g)) {
        cnk_raft_turn(g, CNK_RAFT_COMMIT_STALLED);
        return false;
    }
    if (g->stalled >= 3) g->stalled = 0;
    return true;
}

/* R12: a group may sleep when it has been idle for long and every member has all there is, committed. */
static void doze(chronik_raft *g) {
    bool idle = g->settings->sleep_ticks != 0 && g->now_ticks - g->busy_ticks >= g->settings->sleep_ticks &&
                g->commit_index == g->last_index && g->durable_index == g->last_index && g->now.old == 0 &&
                g->transfer == 0 && !g->reading && (g->probing | g->snapshot | g->lost) == 0;
    idle = idle || (CNK_RAFT_BUG(SLEEP_UNASKED) && g->settings->sleep_ticks != 0 && !g->reading &&
                    g->now_ticks - g->busy_ticks >= g->settings->sleep_ticks);
    CNK_RAFT_EACH(g, cnk_raft_members(g) & ~cnk_raft_self_mask(g), slot)
        if (g->member[slot].match != g->last_index && !CNK_RAFT_BUG(SLEEP_UNASKED)) idle = false;
    if (idle && !g->falling_asleep) g->tally = 0;
    g->falling_asleep = idle;
}
