/* Roles and terms.
 *
 *                  timed out                    pre-votes won              votes won
 *       FOLLOWER ─────────────► PRECANDIDATE ──────────────► CANDIDATE ──────────────► LEADER
 *          ▲   │                 │    ▲   ◄── timed out ───── │  ▲                      │
 *          │   └──── called ─────┼────┼───────────────────────┼──┘                      │
 *          └─────────────────────┴────┴───────────────────────┴─────────────────────────┘
 *            higher term, leader seen                             higher term, quorum lost, commit stalled, removed
 *
 * and from everywhere, disk broken: FAILED, which is the end. Everything that changes a role stands in the table. */
#include "raft/internal.h"

#ifdef CNK_TEST_HOOKS
enum cnk_raft_bug cnk_raft_bug;
#endif

enum { NEVER = -1, FOLLOWER = 0, PRECAND, CANDIDATE, LEADER, FAILED, ROLES };

static const int8_t transitions[CNK_RAFT_CAUSES][ROLES] = {
    /* from:                       FOLLOWER   PRECAND    CANDIDATE  LEADER     FAILED */
    [CNK_RAFT_TIMED_OUT] =      {PRECAND,   PRECAND,   PRECAND,   NEVER,     NEVER},  /* [3.4] by way of [9.6] */
    [CNK_RAFT_PREVOTES_WON] =   {NEVER,     CANDIDATE, NEVER,     NEVER,     NEVER},  /* [9.6] */
    [CNK_RAFT_CALLED] =         {CANDIDATE, CANDIDATE, CANDIDATE, NEVER,     NEVER},  /* [3.10] */
    [CNK_RAFT_VOTED] =          {FOLLOWER,  FOLLOWER,  NEVER,     NEVER,     NEVER},  /* [3.4] for another */
    [CNK_RAFT_VOTES_WON] =      {NEVER,     NEVER,     LEADER,    NEVER,     NEVER},  /* [3.4] */
    [CNK_RAFT_HIGHER_TERM] =    {FOLLOWER,  FOLLOWER,  FOLLOWER,  FOLLOWER,  NEVER},  /* [3.3] */
    [CNK_RAFT_LEADER_SEEN] =    {FOLLOWER,  FOLLOWER,  FOLLOWER,  NEVER,     NEVER},  /* [3.4] */
    [CNK_RAFT_QUORUM_LOST] =    {NEVER,     NEVER,     NEVER,     FOLLOWER,  NEVER},  /* [6.2] */
    [CNK_RAFT_COMMIT_STALLED] = {NEVER,     NEVER,     NEVER,     FOLLOWER,  NEVER},  /* R12 */
    [CNK_RAFT_REMOVED] =        {NEVER,     NEVER,     NEVER,     FOLLOWER,  NEVER},  /* [4.2.2] */
    [CNK_RAFT_DISK_BROKEN] =    {FAILED,    FAILED,    FAILED,    FAILED,    FAILED},
};

void cnk_raft_turn(chronik_raft *g, cnk_raft_cause cause) {
    int to = transitions[cause][g->role];
    CNK_ASSERT(to != NEVER);
    if (g->role == LEADER) g->verified = 0;
    if (to != LEADER && (g->role == LEADER || to == FAILED)) g->leader = 0;
    g->role = (uint8_t)to;
    g->tally = 0;
    g->transfer = 0;
    g->reading = g->reading_next = g->falling_asleep = false;
    g->asleep = false;
    cnk_raft_timer_reset(g);
}

/* [3.3] A new term begins; [3.4] or, in a new term or the present one, a vote is cast, once. */
void cnk_raft_term_set(chronik_raft *g, cnk_raft_out *out, uint32_t term, uint64_t voted_for) {
    CNK_ASSERT(term > g->term || (term == g->term && (g->voted_for == 0 || CNK_RAFT_BUG(DOUBLE_VOTE))));
    if (term > g->term) {
        g->leader = 0;
        g->verified = 0;
    }
    g->term = term;
    g->voted_for = voted_for;
    g->vote_lsn = g->break_lsn = ++g->lsn;
    chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_VOTE);
    e->lsn = g->lsn;
    e->term = term;
    e->peer = voted_for;
}

/* [3.4] Elected. Nothing is known of the others' logs but what they will say. [6.4] The first entry of a leader's term
 * is its own, so that something of its term commits soon, and with it all before [3.6.2]. */
void cnk_raft_lead(chronik_raft *g, cnk_raft_out *out) {
    cnk_raft_turn(g, CNK_RAFT_VOTES_WON);
    g->leader = g->self;
    g->verified = g->last_index + 1; /* the first index of its term */
    g->probing = cnk_raft_members(g) & ~cnk_raft_self_mask(g);
    g->active = g->probing;
    g->doubt = g->snapshot = g->lost = 0;
    g->stalled = 0;
    g->moved = true;
    g->busy_ticks = g->now_ticks;
    CNK_RAFT_EACH(g, g->probing, slot) {
        g->member[slot].match = 0;
        g->member[slot].next = g->last_index + 1;
        g->member[slot].window = 0;
    }
    cnk_raft_append_own(g, out, CHRONIK_RAFT_LEADER, 1);
}

/* A message of this term's leader [3.4]. */
void cnk_raft_leader_seen(chronik_raft *g, const chronik_raft_message *m) {
    if (g->role != FOLLOWER) cnk_raft_turn(g, CNK_RAFT_LEADER_SEEN);
    g->leader = m->from;
    cnk_raft_timer_reset(g);
}

/* [3.4] Timeouts are drawn anew each time, so that elections do not collide for ever. */
void cnk_raft_timer_reset(chronik_raft *g) {
    g->random ^= g->random << 13;
    g->random ^= g->random >> 17;
    g->random ^= g->random << 5;
    g->heard_ticks = g->now_ticks;
    g->timeout_ticks = (uint16_t)(g->settings->election_ticks + g->random % g->settings->election_ticks);
}

/* R2: a replica that has lost entries does not stand, nor does a learner [4.2.1] or one that has been removed; but
 * [4.2.2] "a server that is not part of its own latest configuration should still start new elections, as it might
 * still be needed until the C_new entry is committed". It does not count its own vote then. */
bool cnk_raft_electable(const chronik_raft *g) {
    cnk_raft_mask voters = cnk_raft_voters(g);
    if (!CNK_RAFT_BUG(REMOVED_NEVER_STANDS)) voters |= g->before.old | g->before.voters;
    return g->role < LEADER && (voters & cnk_raft_self_mask(g)) != 0 && (!g->is_lost || CNK_RAFT_BUG(LOST_VOTES)) &&
           g->term < CHRONIK_RAFT_TERM_MAX;
}
