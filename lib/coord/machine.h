/* What a coordinator is to the runtime: a machine of state, records and timers. Owner: the instance's shard. */
#ifndef CNK_COORD_MACHINE_H
#define CNK_COORD_MACHINE_H

#include "base/metric.h"
#include "coord/coord.h"
#include "record/record.h"

/* Known mistakes, which a simulation puts back to see that it finds them. */
#ifdef CNK_TEST_HOOKS
enum cnk_coord_bug {
    CNK_COORD_BUG_NONE,
    CNK_COORD_BUG_ANSWER_BEFORE_COMMIT, /* nobody waits for a commit */
    CNK_COORD_BUG_OLD_GENERATION,       /* who was in an older generation may commit offsets */
    CNK_COORD_BUG_ASSIGN_UNWRITTEN,     /* assignments are answered, and not written down */
    CNK_COORD_BUG_LOAD_STOPS_EARLY,     /* the last batch is not loaded */
    CNK_COORD_BUG_SYNC_OLD_GENERATION,  /* who was in an older generation is told what it has in this one */
    CNK_COORD_BUG_SNAPSHOT_SKIPS        /* a snapshot says that it holds one record more than it does */
};
extern enum cnk_coord_bug cnk_coord_bug;
#define CNK_COORD_BUG(b) (cnk_coord_bug == CNK_COORD_BUG_##b)
#else
#define CNK_COORD_BUG(b) false
#endif

/* ---- timers (timers.c) ------------------------------------------------------------------------------------------ */

typedef struct cnk_coord_timer { /* a node of a pairing heap: nothing is allocated, so setting one never fails */
    uint64_t at_ns;
    struct cnk_coord_timer *child, *next, *prev; /* prev: the elder sibling, or the parent */
    bool set;
    void (*fire)(struct cnk_coord_timer *timer);
    void *arg;
} cnk_coord_timer;

struct cnk_coord_shard {
    const chronik_io *io;
    const chronik_loop *loop;
    cnk_coord_settings settings;
    chronik_timer *timer;
    cnk_coord_timer *root;
    uint64_t timer_at;
    bool firing;
    cnk_counter groups[CNK_COORD_STATES], members, rebalances, offset_commits; /* see cnk_coord_stats */
};

void cnk_coord_timer_set(cnk_coord_shard *shard, cnk_coord_timer *timer, uint64_t at_ns); /* again: moves it */
void cnk_coord_timer_clear(cnk_coord_shard *shard, cnk_coord_timer *timer);
void cnk_coord_timers_fire(void *shard);

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* What a step gives. */
typedef struct cnk_coord_out {
    uint64_t now_ns;
    int64_t now_ms;
    bool clean; /* nothing but records is needed to take the step back: a failed append has no effect */
    cnk_batch_builder records;
    cnk_list answered; /* calls */
} cnk_coord_out;

/* A value of NULL is a tombstone. 0, ENOMEM, ETOOLARGE. */
int cnk_coord_out_record(cnk_coord_out *out, const cnk_writer *key, const cnk_writer *value);
/* The call is over once the records of this step, and all before them, are committed. */
void cnk_coord_out_answer(cnk_coord_out *out, cnk_coord_call *call, int error);

/* One record of a snapshot. */
void cnk_coord_save(cnk_writer *out, const cnk_writer *key, const uint8_t *value, size_t value_len);

/* Functions that may fail return ENOMEM (or ETOOLARGE, for records); then the instance is dropped, unless out->clean. */
typedef struct cnk_coord_machine {
    int (*new_)(cnk_coord_shard *shard, void *instance, void **ret_machine);
    void (*free)(void *machine); /* its timers are cleared; calls that it holds are the runtime's business */
    int (*apply)(void *machine, const cnk_record *record); /* ECORRUPT: passed over */
    int (*loaded)(void *machine, cnk_coord_out *out);
    /* The records that make the state, as of the last one applied, by cnk_coord_save. */
    int (*save)(void *machine, cnk_writer *out);
    int (*step)(void *machine, cnk_coord_call *call, cnk_coord_out *out); /* answers the call, or holds it */
    void (*cancel)(void *machine, cnk_coord_call *call);                  /* forgets a call that it holds */
    int (*topic_deleted)(void *machine, cnk_text name, const cnk_uuid *id, cnk_coord_out *out);
} cnk_coord_machine;

extern const cnk_coord_machine cnk_groups_machine;

/* For a machine's timer that has fired: runs a step, or sets the timer again where that is not possible now. */
void cnk_coord_event(void *instance, cnk_coord_timer *timer, int (*step)(void *machine, void *arg, cnk_coord_out *out), void *arg);

#endif
