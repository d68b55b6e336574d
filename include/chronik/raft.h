/* chronik/raft.h: Raft as a state machine without a world: an event goes in, effects come out.
 *
 * A group has no clock, no disk, no network, no thread and no memory of its own: the host ticks it, keeps its log,
 * sends its messages, and gives the memory it lies in. The same events give the same effects, always.
 *
 *     chronik_raft *group;
 *     chronik_raft_init(malloc(chronik_raft_size(3)), chronik_raft_size(3), &options, &err, &group);
 *     chronik_raft_event event = {.type = CHRONIK_RAFT_TICK, .now = ++ticks};
 *     chronik_raft_step(group, &event, &effects);
 *     for (unsigned i = 0; i < effects.count; i++) carry_out(&effects.effect[i]);    // in this order
 *     if (effects.flush) ...                                                       // and now, or a little later: FLUSH
 *
 * Sections in brackets are those of D. Ongaro, Consensus: Bridging Theory and Practice, 2014.
 *
 * The host's part, all of it:
 *  H1 Effects are carried out in their order. Those that change the log or the vote ("persistent") go into the host's
 *     log at once, in memory at least, and become durable in this order. Where one cannot be carried out (no room, no
 *     memory), the host forgets the group and makes it anew from what its log holds: for the others that is a crash.
 *  H2 A message goes out only when all persistent effects up to its `lsn` are durable. Until then the host keeps it, or
 *     drops it.
 *  H3 Messages may be lost, doubled, delayed and reordered, but not altered; they come from the member that they name.
 *  H4 After a crash the group is made from the log: all of it durable (an unsynced tail is synced or cut first), with
 *     the last vote. A host whose synced entries are damaged or missing says `lost`; one that does not know its vote
 *     any more must not come back under its id, but as a new member.
 *  H5 An id stands for one log for ever: a new data directory is a new id.
 *  H6 A write or sync that failed is told (DISK_FAILED), and nothing is reported durable after it.
 *
 * Tier: extension; may change with a minor version. Threads: one at a time for each group. Functions return 0 or
 * CHRONIK_E*. */
#ifndef CHRONIK_RAFT_H
#define CHRONIK_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CHRONIK_RAFT_VOTERS_MAX = 15,  /* in each of the two sets of a configuration */
    CHRONIK_RAFT_LEARNERS_MAX = 15,
    CHRONIK_RAFT_MEMBERS_MAX = 32, /* of two consecutive configurations together */
    CHRONIK_RAFT_EFFECTS_MAX = 96, /* of one step */
    CHRONIK_RAFT_TERM_MAX = 0x7fffffff
};

typedef struct chronik_raft chronik_raft;

/* ---- configurations and entries [4] ----------------------------------------------------------------------------- */

/* Who belongs to a group. Ids are the host's, above 0. While `old_count` is not 0 the configuration is joint [4.3]: a
 * majority of `old` and a majority of `voters` count. Learners receive entries and count for nothing [4.2.1]. */
typedef struct chronik_raft_config {
    uint8_t old_count, voter_count, learner_count;
    uint64_t old[CHRONIK_RAFT_VOTERS_MAX];
    uint64_t voters[CHRONIK_RAFT_VOTERS_MAX];
    uint64_t learners[CHRONIK_RAFT_LEARNERS_MAX];
} chronik_raft_config;

/* An entry that arrives in a message, as much of it as the group wants to know. */
typedef struct chronik_raft_entry {
    uint32_t term;
    uint32_t bytes;                    /* the host's, untouched */
    const void *data;                  /* the host's, untouched */
    const chronik_raft_config *config; /* a configuration entry's content; NULL: another entry. Borrowed for the step */
} chronik_raft_entry;

/* ---- messages --------------------------------------------------------------------------------------------------- */

typedef enum chronik_raft_message_type {
    CHRONIK_RAFT_PREVOTE = 1,     /* would you vote for me? [9.6] */
    CHRONIK_RAFT_PREVOTE_REPLY,
    CHRONIK_RAFT_VOTE,            /* RequestVote [3.4] */
    CHRONIK_RAFT_VOTE_REPLY,
    CHRONIK_RAFT_APPEND,          /* AppendEntries [3.5] */
    CHRONIK_RAFT_APPEND_REPLY,    /* also the answer to SNAPSHOT */
    CHRONIK_RAFT_HEARTBEAT,       /* small, and of one size: a host may put those of many groups into one frame */
    CHRONIK_RAFT_HEARTBEAT_REPLY,
    CHRONIK_RAFT_SNAPSHOT,        /* InstallSnapshot [5.1]: the receiving host has the snapshot's bytes, all of them */
    CHRONIK_RAFT_TIMEOUT_NOW      /* leadership is handed over [3.10] */
} chronik_raft_message_type;

enum { /* flags of a message */
    CHRONIK_RAFT_REFUSED = 1,  /* replies: no */
    CHRONIK_RAFT_HANDOVER = 2, /* VOTE: the leader wants it so, do not mind that you hear from it [4.2.3] */
    CHRONIK_RAFT_LOST = 4,     /* replies: this member has lost synced entries, and does not count; PREVOTE: nor does it
                                  stand, it only makes itself heard */
    CHRONIK_RAFT_REPAIRED = 8, /* APPEND, HEARTBEAT: and now it has all that was committed: it may count */
    CHRONIK_RAFT_SLEEP = 16    /* HEARTBEAT: let us sleep; HEARTBEAT_REPLY: agreed */
};

/* What the fields mean:
 *
 *   type             term           index                       log_term       commit              others
 *   PREVOTE          the one to be; LOST: own  last entry's     last entry's   -                   -
 *   PREVOTE_REPLY    that one; REFUSED: own   -                 -              -                   -
 *   VOTE             the candidate's  last entry's              last entry's   -                   -
 *   VOTE_REPLY       own            -                           -              -                   -
 *   APPEND           the leader's   the entry before            its term       the leader's        count, entries
 *   APPEND_REPLY     the append's   matches up to; REFUSED: APPEND's  hint's term  -               hint
 *   HEARTBEAT        the leader's   the leader's last           -              min(match, commit)  round
 *   HEARTBEAT_REPLY  own            verified up to              -              -                   round
 *   SNAPSHOT         the leader's   last included               its term       -                   config
 *   TIMEOUT_NOW      the leader's   -                           -              -                   -
 *
 * SNAPSHOT's config is the one as of `index`. In an effect, APPEND has no `entries`: the host adds those from index + 1
 * to index + count out of its log; and SNAPSHOT has neither index nor log_term nor config: the host adds those of the
 * snapshot that it sends. */
typedef struct chronik_raft_message {
    uint8_t type;  /* chronik_raft_message_type */
    uint8_t flags;
    uint32_t term;
    uint64_t from, to;
    uint64_t index;
    uint64_t commit;
    uint64_t hint;
    uint32_t log_term;
    uint32_t round;
    uint32_t count;
    const chronik_raft_entry *entries;
    const chronik_raft_config *config;
} chronik_raft_message;

/* ---- events ----------------------------------------------------------------------------------------------------- */

typedef enum chronik_raft_event_type {
    CHRONIK_RAFT_TICK = 1,    /* now: ticks of the host's clock; it may jump forwards, and what is behind is ignored */
    CHRONIK_RAFT_MESSAGE,     /* message */
    CHRONIK_RAFT_PROPOSE,     /* count entries of the host's, for the leader. ENOTLEADER; EAGAIN: it hands over */
    CHRONIK_RAFT_FLUSH,       /* the effects of the steps before are carried out: send what is new */
    CHRONIK_RAFT_DURABLE,     /* lsn: all persistent effects up to it are durable */
    CHRONIK_RAFT_DISK_FAILED, /* nothing will be durable any more: the group falls silent (EFENCED from now on) */
    CHRONIK_RAFT_CONFIGURE,   /* config: the wanted voters and learners (old_count 0) [4.3]. ENOTLEADER; EAGAIN: nothing
                                 of this term is committed yet; EBUSY: the last change is under way; EINVAL */
    CHRONIK_RAFT_READ,        /* a linearizable read wants to begin [6.4]: effects READ, later READY. ENOTLEADER */
    CHRONIK_RAFT_TRANSFER,    /* peer: hand leadership over to it, 0: to the best [3.10]. ENOTLEADER, EBUSY, EINVAL */
    CHRONIK_RAFT_CAMPAIGN,    /* stand for election now, rather than at the timeout. Ignored where it may not */
    CHRONIK_RAFT_COMPACTED,   /* index: a snapshot stands for all entries up to it (at most the commit index) [5.1] */
    CHRONIK_RAFT_SNAPSHOT_SENT, /* peer, index: it has the snapshot up to index; 0: in vain. For each DO_SNAPSHOT */
    CHRONIK_RAFT_UNREACHABLE, /* peer: what was sent to it may be lost */
    CHRONIK_RAFT_WAKE         /* peer: silent, or there with a new incarnation: a sleeping group wakes */
} chronik_raft_event_type;

typedef struct chronik_raft_event {
    chronik_raft_event_type type;
    uint32_t now;
    uint32_t count;
    uint64_t lsn;
    uint64_t index;
    uint64_t peer;
    const chronik_raft_message *message; /* borrowed for the step */
    const chronik_raft_config *config;   /* borrowed for the step */
} chronik_raft_event;

/* ---- effects ---------------------------------------------------------------------------------------------------- */

typedef enum chronik_raft_effect_type {
    /* Persistent: carry out in the log, in this order. `lsn` is the effect's number, dense from 1. */
    CHRONIK_RAFT_DO_VOTE = 1, /* term, peer: the term is this one, and the vote in it (0: none) */
    CHRONIK_RAFT_DO_TRUNCATE, /* index: entries after it go */
    CHRONIK_RAFT_DO_APPEND,   /* count entries from index on: see `kind`. Each takes one lsn; the last one's is given */
    CHRONIK_RAFT_DO_RESET,    /* index, term, config: the snapshot of the message at hand takes the place of the log */
    CHRONIK_RAFT_DO_REPAIRED, /* the replica is no longer lost */
    /* Others. */
    CHRONIK_RAFT_DO_SEND,     /* message, once `lsn` is durable */
    CHRONIK_RAFT_DO_SNAPSHOT, /* message: bring a snapshot to message.to, then the message; then SNAPSHOT_SENT */
    CHRONIK_RAFT_DO_COMMIT,   /* index: entries up to it are committed; on this node they may not be durable yet */
    CHRONIK_RAFT_DO_ROLE,     /* role, term, peer: the leader, 0 where unknown. READs that are not READY fail */
    CHRONIK_RAFT_DO_READ,     /* round: that of the READ at hand */
    CHRONIK_RAFT_DO_READY,    /* round, index: serve READs up to this round when entries up to index are applied */
    CHRONIK_RAFT_DO_SLEEP,    /* no ticks are needed from here on */
    CHRONIK_RAFT_DO_WAKE      /* ticks are needed again */
} chronik_raft_effect_type;

typedef enum chronik_raft_append_kind {
    CHRONIK_RAFT_ENTRIES = 1, /* those of the message at hand, from `entries` on */
    CHRONIK_RAFT_PROPOSED,    /* the host's own, in `term`. The host may have written them before the step */
    CHRONIK_RAFT_LEADER,      /* an entry without content that begins `term` [6.4] */
    CHRONIK_RAFT_CONFIG       /* `config`, in `term` */
} chronik_raft_append_kind;

typedef enum chronik_raft_role {
    CHRONIK_RAFT_ROLE_FOLLOWER = 0, /* learners are followers that count for nothing */
    CHRONIK_RAFT_ROLE_PRECANDIDATE,
    CHRONIK_RAFT_ROLE_CANDIDATE,
    CHRONIK_RAFT_ROLE_LEADER,
    CHRONIK_RAFT_ROLE_FAILED        /* its disk has failed */
} chronik_raft_role;

typedef struct chronik_raft_effect {
    uint8_t type; /* chronik_raft_effect_type */
    uint8_t kind; /* chronik_raft_append_kind */
    uint8_t role; /* chronik_raft_role */
    uint32_t term, round, count;
    uint64_t lsn;
    uint64_t index;
    uint64_t peer;
    const chronik_raft_entry *entries;
    const chronik_raft_config *config; /* in the event's message, or in the effects; borrowed until the next step */
    chronik_raft_message message;
} chronik_raft_effect;

/* Where a step puts its effects. One of them serves any number of groups; it need not be initialised. */
typedef struct chronik_raft_effects {
    unsigned count;
    bool flush; /* a FLUSH is wanted once these are carried out; several steps may share one */
    chronik_raft_config config;
    chronik_raft_effect effect[CHRONIK_RAFT_EFFECTS_MAX];
} chronik_raft_effects;

/* ---- groups ----------------------------------------------------------------------------------------------------- */

/* What a group asks its host's log; arg is the group's. Never about entries of effects that are not carried out yet. */
typedef struct chronik_raft_log {
    /* The term of an entry from first_index - 1 (the snapshot's, 0 where there is none) to the last. */
    uint32_t (*term)(void *arg, uint64_t index);
    /* The last of the entries first to last such that all of them, from first on, take at most bytes_max together;
     * first itself where even that is larger. *ret_bytes: what they take. Called with first <= last. */
    uint64_t (*fit)(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes);
} chronik_raft_log;

/* Shared by any number of groups; borrowed as long as they live. */
typedef struct chronik_raft_settings {
    size_t size;                /* sizeof(chronik_raft_settings) */
    uint16_t election_ticks;    /* a follower waits between this and twice this; the same in all members */
    uint16_t heartbeat_ticks;   /* at most a third of it. All groups that are ticked together send theirs together */
    uint16_t sleep_ticks;       /* an idle group falls asleep after these; 0: never */
    uint32_t message_bytes_max; /* entries in one APPEND, but for one entry that is larger */
    uint32_t window_bytes_max;  /* entries on their way to one member, not acknowledged */
    chronik_raft_log log;
} chronik_raft_settings;

#define CHRONIK_RAFT_SETTINGS_INIT                                                                                    \
    { sizeof(chronik_raft_settings), 10, 2, 0, UINT32_C(1) << 20, UINT32_C(4) << 20, {NULL, NULL} }

/* A group as its log has it. A new group's log begins with its configuration, the same entry in all founders' logs. */
typedef struct chronik_raft_options {
    size_t size;            /* sizeof(chronik_raft_options) */
    uint64_t self;          /* this member's id */
    uint32_t seed;          /* of the election timeouts; different in each member */
    uint32_t term;          /* of the last vote; at least the last entry's */
    uint64_t voted_for;     /* 0: nobody */
    uint64_t first_index;   /* of the log: the snapshot's + 1, or 1 */
    uint64_t last_index;    /* first_index - 1: no entry */
    uint64_t commit_index;  /* known to be committed; the snapshot's at least */
    uint64_t config_index;  /* of the newest configuration; 0: it is the snapshot's */
    const chronik_raft_config *config;        /* the newest, committed or not; copied */
    const chronik_raft_config *config_before; /* the one before it, for the case that it must be taken back; NULL:
                                                 `config` is committed. Copied */
    bool lost; /* synced entries are lost (H4), before this start or an earlier one; no DO_REPAIRED has come since */
    const chronik_raft_settings *settings;
    void *arg; /* of settings->log */
} chronik_raft_options;

#define CHRONIK_RAFT_OPTIONS_INIT                                                                                     \
    { sizeof(chronik_raft_options), 0, 0, 0, 0, 1, 0, 0, 0, NULL, NULL, false, NULL, NULL }

/* The bytes that a group takes with room for `members` members: of its configuration, of the one before it and of the
 * one to come. At most 300 for three. */
CHRONIK_API size_t chronik_raft_size(unsigned members);

/* Makes a group in `memory` (taken, aligned to 8 bytes, `bytes` of it), a follower. There is nothing to free but the
 * memory. EINVAL: the options contradict each other; ENOMEM: not enough room for the members. */
CHRONIK_API int chronik_raft_init(void *memory, size_t bytes, const chronik_raft_options *options, chronik_error *err,
                                  chronik_raft **ret_group);

/* Moves a group to other memory, with room for more members or fewer; the old may be freed. ENOMEM: not enough. */
CHRONIK_API int chronik_raft_move(chronik_raft *group, void *memory, size_t bytes, chronik_raft **ret_group);

/* The one function that does something. On failure nothing has changed, and there is no effect:
 *  ENOTLEADER, EBUSY, EAGAIN, EINVAL, EFENCED  as the events say
 *  ENOMEM    the configuration in the message has more members than there is room for: chronik_raft_move, then again
 *  EPROTO    the message is none that a member could have sent
 *  ECORRUPT  the message contradicts what is committed here: one of the logs is damaged */
CHRONIK_API int chronik_raft_step(chronik_raft *group, const chronik_raft_event *event,
                                  chronik_raft_effects *ret_effects);

/* ---- looking ---------------------------------------------------------------------------------------------------- */

typedef struct chronik_raft_status {
    chronik_raft_role role;
    uint32_t term;
    uint64_t voted_for, leader; /* 0: none, unknown */
    uint64_t first_index, last_index, durable_index, commit_index;
    uint64_t term_start;   /* leader: the first entry of its term; in full office once that is committed */
    uint64_t config_index; /* of the newest configuration; 0: older than the log */
    uint64_t lsn;          /* the newest persistent effect's */
    bool joint, voter, lost, asleep, transferring;
} chronik_raft_status;

CHRONIK_API void chronik_raft_status_get(const chronik_raft *group, chronik_raft_status *ret_status);
CHRONIK_API void chronik_raft_config_get(const chronik_raft *group, chronik_raft_config *ret_config);

typedef struct chronik_raft_peer {
    uint64_t match_index, next_index; /* a leader's knowledge; for itself match is what is durable */
    uint32_t window_bytes;            /* on their way */
    bool probing, snapshot, lost, active; /* active: heard from since the last check of the quorum */
} chronik_raft_peer;

/* A member, as the leader sees it. ENOTFOUND; ENOTLEADER. */
CHRONIK_API int chronik_raft_peer_get(const chronik_raft *group, uint64_t id, chronik_raft_peer *ret_peer);

#ifdef __cplusplus
}
#endif
#endif
