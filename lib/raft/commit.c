/* Majorities, and what they commit. */
#include "raft/internal.h"

static const cnk_raft_sets *in_force(const chronik_raft *g);
static bool majority(cnk_raft_mask set, cnk_raft_mask who);
static uint64_t majority_match(const chronik_raft *g, cnk_raft_mask set);
static void commit_to(chronik_raft *g, cnk_raft_out *out, uint64_t index);

/* [4.3] While the configuration is joint, agreement needs a majority of each of its sets. R2: a member that has lost
 * entries counts for nothing. */
bool cnk_raft_quorum(const chronik_raft *g, cnk_raft_mask who) {
    const cnk_raft_sets *sets = in_force(g);
    if (!CNK_RAFT_BUG(LOST_COUNTS) && g->role == CHRONIK_RAFT_ROLE_LEADER) who &= ~g->lost;
    if (CNK_RAFT_BUG(LEARNER_COUNTS)) return majority(cnk_raft_sets_all(sets), who);
    return (sets->old == 0 || CNK_RAFT_BUG(JOINT_NEW_ONLY) || majority(sets->old, who)) && majority(sets->voters, who);
}

/* [3.6.2] A leader commits what a majority has, but counts only for an entry of its own term; what lies before is
 * committed with it. `verified` is the first index of its term, so it does not matter which entry is the last. */
void cnk_raft_commit_check(chronik_raft *g, cnk_raft_out *out) {
    const cnk_raft_sets *sets = in_force(g);
    uint64_t index = majority_match(g, CNK_RAFT_BUG(LEARNER_COUNTS) ? cnk_raft_sets_all(sets) : sets->voters);
    if (sets->old != 0 && !CNK_RAFT_BUG(JOINT_NEW_ONLY)) {
        uint64_t old = majority_match(g, sets->old);
        if (old < index) index = old;
    }
    if (CNK_RAFT_BUG(COMMIT_AT_LAST_ONLY) && index != g->last_index) return;
    if (index <= g->commit_index || (index < g->verified && !CNK_RAFT_BUG(OLD_TERM_COMMIT))) return;
    commit_to(g, out, index);
}

/* Follower [3.5]: as far as the leader has committed, but no further than the log is known to be this term's leader's:
 * a heartbeat may have overtaken the entries (R3). */
void cnk_raft_commit_heard(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    uint64_t known = CNK_RAFT_BUG(HEARTBEAT_OVERTAKES) ? g->last_index : g->verified;
    uint64_t index = m->commit < known ? m->commit : known;
    if (index > g->commit_index) cnk_raft_commit_set(g, out, index);
}

void cnk_raft_commit_set(chronik_raft *g, cnk_raft_out *out, uint64_t index) {
    bool settles = g->config_index > g->commit_index && g->config_index <= index;
    g->commit_index = index;
    cnk_raft_effect(out, CHRONIK_RAFT_DO_COMMIT)->index = index;
    if (settles) cnk_raft_config_settled(g);
}

static void commit_to(chronik_raft *g, cnk_raft_out *out, uint64_t index) {
    bool settles = g->config_index > g->commit_index && g->config_index <= index;
    g->commit_index = index;
    cnk_raft_effect(out, CHRONIK_RAFT_DO_COMMIT)->index = index;
    g->moved = true;
    g->busy_ticks = g->now_ticks;
    /* R8: whoever has nothing else to hear is told at once; the others hear of it with the next entries. */
    CNK_RAFT_EACH(g, cnk_raft_members(g) & ~cnk_raft_self_mask(g) & ~g->probing & ~g->snapshot, slot)
        if (g->member[slot].match == out->sendable && g->member[slot].match >= index) cnk_raft_heartbeat(g, out, slot);
    /* A joint configuration may have been committed before this leader's time: it is its to leave. */
    bool joint = g->now.old != 0 && g->config_index <= index && !CNK_RAFT_BUG(JOINT_NEVER_LEFT);
    if (settles || joint) cnk_raft_config_committed(g, out);
    if (g->role == CHRONIK_RAFT_ROLE_LEADER) cnk_raft_read_check(g, out);
}

static const cnk_raft_sets *in_force(const chronik_raft *g) {
    if (CNK_RAFT_BUG(CONFIG_LATE) && g->config_index > g->commit_index) return &g->before;
    return &g->now;
}

static bool majority(cnk_raft_mask set, cnk_raft_mask who) {
    return __builtin_popcount(set & who) > __builtin_popcount(set) / 2;
}

/* The highest index that a majority of the set has, durably. Of the leader's own log only what is durable counts (R2):
 * it sends entries before they are [10.2.1]. */
static uint64_t majority_match(const chronik_raft *g, cnk_raft_mask set) {
    uint64_t sorted[CHRONIK_RAFT_MEMBERS_MAX]; /* descending */
    unsigned count = 0;
    CNK_RAFT_EACH(g, set, slot) {
        uint64_t match = g->member[slot].match;
        if (g->member[slot].id == g->self)
            match = CNK_RAFT_BUG(LEADER_COUNTS_UNSYNCED) ? g->last_index : g->durable_index;
        if ((g->lost & CNK_RAFT_BIT(slot)) && !CNK_RAFT_BUG(LOST_COUNTS)) match = 0;
        unsigned at = count++;
        for (; at > 0 && sorted[at - 1] < match; at--) sorted[at] = sorted[at - 1];
        sorted[at] = match;
    }
    return count == 0 ? 0 : sorted[count / 2];
}
