/* The inside of raft, shared by its source files. Sections in brackets are those of Ongaro's thesis. */
#ifndef CNK_RAFT_INTERNAL_H
#define CNK_RAFT_INTERNAL_H

#include <chronik/raft.h>

#include "base/assert.h"

enum {
    CNK_RAFT_BURST = 8, /* APPENDs to one member in one step; its answers bring the next */
    CNK_RAFT_SPARE = 4  /* effects that may follow a flush in the same step */
};

/* Mistakes that a test can put back, to see that the simulation finds them (tests/sim/README.md). */
#define CNK_RAFT_BUGS(X)                                                                                              \
    X(OLD_TERM_COMMIT, "old-term-commit")                                                                             \
    X(COMMIT_AT_LAST_ONLY, "commit-at-last-only")                                                                     \
    X(STALE_ACK, "stale-ack")                                                                                         \
    X(ELECT_UNSYNCED, "elect-unsynced")                                                                               \
    X(FAILED_DISK_LEADS, "failed-disk-leads")                                                                         \
    X(UNLIMITED_PROBE, "unlimited-probe")                                                                             \
    X(LOST_VOTES, "lost-votes")                                                                                       \
    X(LOST_COUNTS, "lost-counts")                                                                                     \
    X(REPAIRED_EARLY, "repaired-early")                                                                               \
    X(ACK_BEFORE_SYNC, "ack-before-sync")                                                                             \
    X(LEADER_COUNTS_UNSYNCED, "leader-counts-unsynced")                                                               \
    X(VOTE_NOT_PERSISTED, "vote-not-persisted")                                                                       \
    X(DOUBLE_VOTE, "double-vote")                                                                                     \
    X(STALE_TERM, "stale-term")                                                                                       \
    X(VOTE_WITHOUT_LOG, "vote-without-log-check")                                                                     \
    X(VOTE_ON_DURABLE, "vote-compares-synced-part")                                                                   \
    X(APPEND_WITHOUT_CHECK, "append-without-check")                                                                   \
    X(TRUNCATE_ALWAYS, "truncate-always")                                                                             \
    X(DURABLE_NOT_CUT, "durable-not-cut")                                                                             \
    X(HEARTBEAT_OVERTAKES, "heartbeat-overtakes")                                                                     \
    X(CONFIG_LATE, "config-late")                                                                                     \
    X(CONFIG_WITHOUT_JOINT, "config-without-joint")                                                                   \
    X(CONFIG_NOT_TAKEN_BACK, "config-not-taken-back")                                                                 \
    X(CONFIG_BEFORE_COMMIT, "config-before-own-commit")                                                               \
    X(JOINT_NEW_ONLY, "joint-new-majority-only")                                                                      \
    X(LEARNER_COUNTS, "learner-counts")                                                                               \
    X(SNAPSHOT_FORGETS_CONFIG, "snapshot-forgets-config")                                                             \
    X(SNAPSHOT_OVER_COMMITTED, "snapshot-over-committed")                                                             \
    X(READ_WITHOUT_BARRIER, "read-without-barrier")                                                                   \
    X(READ_BEFORE_OWN_COMMIT, "read-before-own-commit")                                                               \
    X(READ_OLD_ROUND, "read-counts-old-round")                                                                        \
    X(SLEEP_UNASKED, "sleep-unasked")                                                                                 \
    X(REMOVED_NEVER_STANDS, "removed-never-stands")                                                                   \
    X(JOINT_NEVER_LEFT, "joint-never-left")                                                                           \
    X(SLEEP_WHILE_PROPOSING, "sleep-while-proposing")                                                                 \
    X(RESTARTED_UNVERIFIED, "restarted-unverified")                                                                   \
    X(WIPED_VOTES, "wiped-directory-votes")

#ifdef CNK_TEST_HOOKS
enum cnk_raft_bug {
    CNK_RAFT_BUG_NONE,
#define CNK_X(name, text) CNK_RAFT_BUG_##name,
    CNK_RAFT_BUGS(CNK_X)
#undef CNK_X
        CNK_RAFT_BUG_COUNT
};
extern enum cnk_raft_bug cnk_raft_bug;
#define CNK_RAFT_BUG(b) (cnk_raft_bug == CNK_RAFT_BUG_##b)
#else
#define CNK_RAFT_BUG(b) 0
#endif

/* Members are known by their slots; a set of members is a mask with a bit for each slot. */
typedef uint32_t cnk_raft_mask;

typedef struct cnk_raft_sets {
    cnk_raft_mask old, voters, learners; /* a learner to be may still be an old voter */
} cnk_raft_sets;

typedef struct cnk_raft_member {
    uint64_t id; /* 0: the slot is free */
    /* What a leader knows [3.5]. match: durable there, and equal to ours. */
    uint64_t match, next;
    uint32_t window; /* bytes of match + 1 to next - 1 */
} cnk_raft_member;

struct chronik_raft {
    const chronik_raft_settings *settings;
    void *arg;
    uint64_t self, voted_for, leader;
    uint32_t term, last_term;
    uint64_t first_index, last_index, durable_index, commit_index;
    uint64_t verified; /* follower: up to here the log is this term's leader's (R3). Leader: first index of its term */
    uint64_t lsn;      /* persistent effects so far */
    uint64_t vote_lsn; /* the newest DO_VOTE */
    uint64_t break_lsn; /* the newest persistent effect that was no append: after it, index and lsn grow together */
    uint64_t config_index;
    cnk_raft_sets now, before; /* the newest configuration, and the one to go back to if its entry is truncated */
    cnk_raft_mask tally;       /* votes for us; leader: who answered the reading, or agreed to sleep */
    cnk_raft_mask active;      /* heard from since the last check of the quorum */
    cnk_raft_mask lost;        /* members that said so */
    cnk_raft_mask probing, snapshot; /* else the pipeline is open */
    cnk_raft_mask doubt; /* probing: an answer comes before the next. Pipeline: a heartbeat without progress */
    uint32_t now_ticks, heard_ticks, busy_ticks; /* heard: from the leader; a leader's: the last check of the quorum */
    uint32_t random;
    uint32_t read_round;
    uint16_t timeout_ticks;
    uint8_t role;
    uint8_t capacity; /* slots */
    uint8_t transfer; /* slot + 1 of who shall lead; 0: nobody */
    uint8_t transfer_age, stalled;
    bool is_lost : 1;     /* this replica is (H4) */
    bool lost_begins : 1; /* its new term has not begun yet */
    bool rearm : 1;       /* timers start at the next tick, since we do not know the time */
    bool asleep : 1, falling_asleep : 1;
    bool reading : 1, reading_next : 1; /* a round is under way; another one is wanted */
    bool moved : 1;                     /* the commit index has, or somebody's match, since the last check */
    cnk_raft_member member[];
};

/* What a step writes to. */
typedef struct cnk_raft_out {
    chronik_raft_effects *effects;
    uint64_t sendable; /* entries up to here are in the host's log */
} cnk_raft_out;

/* ---- role.c: roles, terms ---- */
typedef enum cnk_raft_cause {
    CNK_RAFT_TIMED_OUT,
    CNK_RAFT_PREVOTES_WON,
    CNK_RAFT_CALLED, /* TIMEOUT_NOW */
    CNK_RAFT_VOTED,
    CNK_RAFT_VOTES_WON,
    CNK_RAFT_HIGHER_TERM,
    CNK_RAFT_LEADER_SEEN,
    CNK_RAFT_QUORUM_LOST,
    CNK_RAFT_COMMIT_STALLED,
    CNK_RAFT_REMOVED,
    CNK_RAFT_DISK_BROKEN,
    CNK_RAFT_CAUSES
} cnk_raft_cause;
void cnk_raft_turn(chronik_raft *g, cnk_raft_cause cause);
void cnk_raft_term_set(chronik_raft *g, cnk_raft_out *out, uint32_t term, uint64_t voted_for);
void cnk_raft_lead(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_leader_seen(chronik_raft *g, const chronik_raft_message *m);
void cnk_raft_timer_reset(chronik_raft *g);
bool cnk_raft_electable(const chronik_raft *g);

/* ---- effect.c: effects, and what changes with them ---- */
chronik_raft_effect *cnk_raft_effect(cnk_raft_out *out, chronik_raft_effect_type type);
void cnk_raft_append_own(chronik_raft *g, cnk_raft_out *out, chronik_raft_append_kind kind, uint32_t count);
void cnk_raft_append_received(chronik_raft *g, cnk_raft_out *out, const chronik_raft_entry *entries, uint32_t count);
void cnk_raft_truncate(chronik_raft *g, cnk_raft_out *out, uint64_t index);
void cnk_raft_reset(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_durable(chronik_raft *g, cnk_raft_out *out, uint64_t lsn);
chronik_raft_message *cnk_raft_send(chronik_raft *g, cnk_raft_out *out, chronik_raft_message_type type, uint64_t to,
                                    uint64_t lsn);
uint32_t cnk_raft_term_at(const chronik_raft *g, uint64_t index);
uint64_t cnk_raft_last_of_term(const chronik_raft *g, uint64_t index, uint32_t term);

/* ---- config.c: who belongs to the group ---- */
bool cnk_raft_config_valid(const chronik_raft_config *c);
bool cnk_raft_config_fits(const chronik_raft *g, const chronik_raft_config *c);
void cnk_raft_config_adopt(chronik_raft *g, const chronik_raft_config *c, uint64_t index);
void cnk_raft_config_take_back(chronik_raft *g, uint64_t last_kept);
void cnk_raft_config_settled(chronik_raft *g);
int cnk_raft_configure(chronik_raft *g, cnk_raft_out *out, const chronik_raft_config *wanted);
void cnk_raft_config_committed(chronik_raft *g, cnk_raft_out *out);
int cnk_raft_slot(const chronik_raft *g, uint64_t id); /* -1: no member */
bool cnk_raft_is_voter(const chronik_raft *g);
bool cnk_raft_sole_voter(const chronik_raft *g);
cnk_raft_mask cnk_raft_self_mask(const chronik_raft *g);
cnk_raft_mask cnk_raft_voters(const chronik_raft *g);
cnk_raft_mask cnk_raft_sets_all(const cnk_raft_sets *sets);
cnk_raft_mask cnk_raft_members(const chronik_raft *g); /* of the configurations that may be in force */

/* ---- commit.c: majorities ---- */
bool cnk_raft_quorum(const chronik_raft *g, cnk_raft_mask who);
void cnk_raft_commit_check(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_commit_set(chronik_raft *g, cnk_raft_out *out, uint64_t index);
void cnk_raft_commit_heard(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);

/* ---- vote.c, append.c, heartbeat.c, snapshot.c, transfer.c, read.c: one for each RPC ---- */
void cnk_raft_stand(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_call(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_campaign(chronik_raft *g, cnk_raft_out *out, uint8_t flags);
void cnk_raft_on_prevote(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_on_prevote_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_on_vote(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_on_vote_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
bool cnk_raft_hears_leader(const chronik_raft *g);

void cnk_raft_on_append(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_on_append_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_answer_append(chronik_raft *g, cnk_raft_out *out, uint64_t to, uint64_t match);
void cnk_raft_replicate(chronik_raft *g, cnk_raft_out *out, int slot);
void cnk_raft_flush(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_unreachable(chronik_raft *g, uint64_t peer);
void cnk_raft_probe(chronik_raft *g, int slot, uint64_t next);
uint8_t cnk_raft_repaired_flag(const chronik_raft *g, int slot);

void cnk_raft_heartbeat(chronik_raft *g, cnk_raft_out *out, int slot);
void cnk_raft_heartbeats(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_on_heartbeat(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_on_heartbeat_reply(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);
void cnk_raft_repaired(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);

void cnk_raft_snapshot_send(chronik_raft *g, cnk_raft_out *out, int slot);
void cnk_raft_snapshot_sent(chronik_raft *g, uint64_t peer, uint64_t index);
void cnk_raft_on_snapshot(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m);

int cnk_raft_transfer(chronik_raft *g, cnk_raft_out *out, uint64_t peer);
void cnk_raft_transfer_check(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_on_timeout_now(chronik_raft *g, cnk_raft_out *out);

int cnk_raft_read(chronik_raft *g, cnk_raft_out *out);
void cnk_raft_read_check(chronik_raft *g, cnk_raft_out *out);

/* ---- tick.c: time, the check of the quorum, sleep ---- */
void cnk_raft_tick(chronik_raft *g, cnk_raft_out *out, uint32_t now);
void cnk_raft_wake(chronik_raft *g);
void cnk_raft_woken(chronik_raft *g, uint64_t peer);
void cnk_raft_sleep_check(chronik_raft *g);

#define CNK_RAFT_BIT(slot) ((cnk_raft_mask)1 << (slot))
#define CNK_RAFT_EACH(g, mask, slot)                                                                                  \
    for (int slot = 0; slot < (g)->capacity; slot++)                                                                  \
        if ((mask) & CNK_RAFT_BIT(slot))

#endif
