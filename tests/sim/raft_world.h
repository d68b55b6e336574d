/* The world of raft groups: N cores with simulated logs and disks in one thread, virtual time, a network that loses,
 * doubles, delays and reorders, and everything decided by a seed.
 *
 *   raft_world.c  nodes as hosts: they carry out effects, sync, crash, start again; the network
 *   raft_check.c  what must hold after every step
 *   raft_plan.c   what is done to the nodes, drawn from the seed in advance
 *   raft_text.c   the transcript in words
 *   raft_model.c  a second opinion: Raft's rules, straight from the thesis, over the transcript
 *
 * One world at a time is enough; nothing is shared between two. */
#ifndef CNK_SIM_RAFT_WORLD_H
#define CNK_SIM_RAFT_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/raft.h>

#include "base/rng.h"

enum {
    RW_NODES = 9,       /* ids 1 to 8; 0 is nobody */
    RW_LOG = 4096,      /* entries in a run */
    RW_BATCH = 64,      /* entries in one message */
    RW_MESSAGES = 2048, /* on their way */
    RW_HELD = 128,      /* messages that wait for a sync */
    RW_OPS = 1024,      /* writes that wait for a sync */
    RW_CONFIGS = 512,
    RW_EVENTS = 8192,
    RW_PLAN = 1024,
    RW_READS = 16,
    RW_TICK_US = 10000
};

typedef struct rw_entry {
    uint32_t term;
    uint32_t bytes;
    uint64_t id;    /* its content */
    uint64_t chain; /* a hash of it and of all entries before it */
    int config;     /* in world->configs; -1: another entry */
} rw_entry;

typedef struct rw_snapshot {
    uint64_t index, chain;
    uint32_t term;
    int config; /* as of index; -1: none */
} rw_snapshot;

/* A log: entries first to last, and the snapshot before them. */
typedef struct rw_log {
    uint32_t term;
    uint64_t vote, first, last;
    bool lost;
    rw_snapshot snapshot;
    rw_entry entry[RW_LOG];
} rw_log;

typedef struct rw_op { /* a write that waits for its sync */
    uint8_t type;      /* CHRONIK_RAFT_DO_* */
    uint64_t lsn, index, vote;
    uint32_t term;
    rw_entry entry;
    rw_snapshot snapshot;
} rw_op;

typedef struct rw_message {
    chronik_raft_message m;
    uint64_t lsn;
    uint64_t chain; /* SNAPSHOT: of the last entry included */
    int config;     /* SNAPSHOT */
    bool used;
    rw_entry entry[RW_BATCH];
} rw_message;

typedef struct rw_node {
    struct raft_world *world;
    int id;
    bool up, gone, disk_failed, flush_waiting, sync_under_way, ever_lost, damaged, led; /* led: before this step */
    uint32_t incarnation, ticks;
    uint64_t paused_until, stalled_until, drift; /* drift: us of one tick */
    void *memory;
    chronik_raft *raft;
    chronik_raft_status st; /* after the last step */
    rw_log log;  /* as the node sees it */
    rw_log disk; /* what a crash leaves for sure */
    rw_op op[RW_OPS];
    unsigned op_first, op_count;
    uint64_t durable_lsn, commit;
    rw_message held[RW_HELD];
    unsigned held_count;
    struct { uint32_t round; uint64_t must; bool waiting; } read[RW_READS];
    uint32_t peers_seen[RW_NODES]; /* incarnations, when it fell asleep */
} rw_node;

/* ---- the transcript ---- */
typedef enum raft_record_kind {
    RAFT_START, RAFT_CRASH, RAFT_DAMAGE, RAFT_PERSIST, RAFT_SYNCED, RAFT_SEND, RAFT_RECEIVE, RAFT_ROLE, RAFT_COMMIT,
    RAFT_READ, RAFT_READY, RAFT_SLEEP, RAFT_WAKE, RAFT_COMPACT, RAFT_STEP, RAFT_NEMESIS
} raft_record_kind;
typedef struct raft_record {
    raft_record_kind kind;
    uint64_t time;
    int node;
    const rw_node *n; /* for START: the log that it starts with */
    const rw_op *op;  /* PERSIST */
    const rw_message *message; /* SEND, RECEIVE */
    uint8_t role;
    uint32_t term, round;
    uint64_t index, peer, lsn;
    const char *text; /* NEMESIS */
} raft_record;

/* ---- what is done ---- */
typedef enum rw_action_kind {
    RW_PROPOSE,
    RW_READ,
    RW_CRASH,
    RW_RESTART,
    RW_SPLIT,
    RW_CUT_ONE_WAY,
    RW_ISOLATE,
    RW_HEAL,
    RW_STALL,
    RW_FAIL_DISK,
    RW_DAMAGE,
    RW_WIPE,
    RW_JUMP,
    RW_PAUSE,
    RW_CONFIGURE,
    RW_TRANSFER,
    RW_COMPACT,
    RW_CAMPAIGN,
    RW_UNREACHABLE,
    RW_WEATHER,
    RW_ACTIONS
} rw_action_kind;
typedef struct rw_action {
    rw_action_kind kind;
    uint64_t time, a, b;
    bool left_out;
} rw_action;

typedef struct rw_event {
    uint64_t time, seq;
    uint8_t kind;
    int node;
    uint32_t incarnation;
    uint64_t x;
    rw_message *message;
} rw_event;

typedef struct raft_model raft_model;

typedef struct raft_world {
    uint64_t seed, time, seq, end;
    bool failed, healed, trace, loading, no_model;
    char what[400];
    chronik_raft_settings settings;
    chronik_raft_effects effects;
    rw_node node[RW_NODES];
    unsigned pool; /* nodes there are */
    rw_event heap[RW_EVENTS];
    unsigned heap_count;
    rw_message message[RW_MESSAGES];
    unsigned message_free[RW_MESSAGES], free_count;
    chronik_raft_config configs[RW_CONFIGS];
    int config_count;
    bool blocked[RW_NODES][RW_NODES];
    uint64_t link_count[RW_NODES][RW_NODES];
    unsigned drop, twice, slow; /* of 1000 messages */
    rw_action plan[RW_PLAN];
    unsigned plan_count;
    uint64_t next_id;
    /* what is known to be true (raft_check.c) */
    struct { uint64_t chain; uint32_t term; } committed[RW_LOG];
    uint64_t commit, snapshot_min;
    struct { uint32_t term, incarnation; int node; } *leaders; /* by term */
    struct { uint64_t key, chain; } *chains;
    raft_model *model;
    /* counters */
    uint64_t steps, delivered, crashes, elections, changes, snapshots, reads, sleeps, losses;
    uint64_t goal, healed_at;
} raft_world;

raft_world *raft_world_new(void);
void raft_world_free(raft_world *w);
/* Runs a seed to its end: chaos, healing, liveness. `left_out` (may be NULL, count entries): actions of the plan not
 * done. */
bool raft_world_run(raft_world *w, uint64_t seed, bool trace, const bool *left_out);

/* raft_world.c */
int rw_step(raft_world *w, rw_node *n, const chronik_raft_event *event, const rw_message *message);
void rw_push(raft_world *w, uint64_t delay, int kind, int node, uint64_t x, rw_message *message);
void rw_start(raft_world *w, rw_node *n);
void rw_crash(raft_world *w, rw_node *n, unsigned luck);
uint64_t rw_dice(raft_world *w, uint64_t a, uint64_t b, uint64_t c);
rw_node *rw_leader(raft_world *w); /* of the highest term; NULL: none */
int rw_config_in_log(const rw_log *l, uint64_t up_to, uint64_t *ret_index);
enum { RW_EV_TICK, RW_EV_DELIVER, RW_EV_SYNCED, RW_EV_SNAPSHOT, RW_EV_ACTION, RW_EV_FLUSH, RW_EV_LOAD, RW_EV_LOOK };

/* raft_plan.c */
void rw_plan(raft_world *w, const bool *left_out);
void rw_act(raft_world *w, rw_action *a);
void rw_heal(raft_world *w);
void rw_load(raft_world *w);
void rw_look(raft_world *w); /* is it alive again? */

/* raft_check.c */
void rw_violation(raft_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void rw_check_appended(raft_world *w, rw_node *n, const rw_log *log, uint64_t index);
void rw_check_config(raft_world *w, rw_node *n, uint64_t index);
void rw_check_config_used(raft_world *w, rw_node *n);
void rw_check_role(raft_world *w, rw_node *n);
void rw_check_commit(raft_world *w, rw_node *n, uint64_t index);
void rw_check_read(raft_world *w, rw_node *n, uint32_t round);
void rw_check_ready(raft_world *w, rw_node *n, uint32_t round, uint64_t index);
void rw_check_sleep(raft_world *w, rw_node *n);
void rw_check_message(raft_world *w, const rw_message *m);

/* raft_text.c, raft_model.c */
void rw_record(raft_world *w, const raft_record *r);
void raft_text_print(const raft_world *w, const raft_record *r);
raft_model *raft_model_new(void);
void raft_model_free(raft_model *model);
void raft_model_reset(raft_model *model);
/* NULL: the record follows the rules; else the rule that it breaks. */
const char *raft_model_feed(raft_model *model, const raft_world *w, const raft_record *r);

#endif
