/* A node below the socket in the simulated world, for one run of a program: a WAL, a tier and a broker on a disk, from
 * their opening to their end or death, again and again.
 *
 *     sim_node_init(&node, run, &rng);         once; then the caller's own settings
 *     while (sim_node_goes_on(&node, …)) {
 *         sim_node_boot(&node);                the world, and nothing in it
 *         if (sim_node_open(&node)) … work, sim_node_stop(&node) …
 *         sim_node_kill(&node);                what has not stopped is dead, and runs on without a disk
 *         … the caller ends what he has under way …
 *         sim_node_end(&node);                 all is over, and can be freed
 *         sim_node_free(&node);                and the disk has crashed
 *     }
 *     return sim_node_over(&node);
 *
 * The first thing that is wrong fails the run. What must not happen while a node lives, and has no failures planned, it
 * tells itself. */
#ifndef SIM_NODE_SIM_H
#define SIM_NODE_SIM_H

#include "base/rng.h"
#include "broker/broker.h"
#include "sim/program.h"
#include "tier/tier.h"
#include "wal/wal.h"

enum { SIM_NODE_SHARDS_MAX = 3 };

typedef struct sim_node {
    /* the caller's */
    cnk_wal_options wal_options;
    cnk_tier_options tier_options;
    cnk_broker_options options; /* its hooks are the node's, but `crowded`; hook_arg is the node */
    bool faulty;                /* failures are planned */
    bool tight;                 /* the disk is small: there may be no room for a start */
    /* the node's */
    sim_run *run;
    bool failed;
    const char *ended; /* how the last one did; NULL: this is the first */
    sim_disk *disk;
    cnk_rng *rng;
    sim_world *world;
    cnk_wal *wal;
    cnk_tier *tier;
    cnk_broker *broker; /* NULL: it could not be opened */
    unsigned shards;
    const chronik_loop *loops[SIM_NODE_SHARDS_MAX];
    bool ready, fenced, draining, drained, stopping, stopped;
    bool killed, died; /* killed: it runs on without a disk; died: before that */
} sim_node;

/* WAL files so small that packs, checkpoints and recycling happen all the time. Whatever is drawn comes from rng. */
void sim_node_init(sim_node *node, sim_run *run, cnk_rng *rng);
bool sim_node_over(sim_node *node); /* false: something was wrong */
/* Until there have been so many worlds and calls, and a death; or something is wrong, or there have been too many. */
bool sim_node_goes_on(const sim_node *node, uint64_t worlds_min, uint64_t worlds_max, uint64_t calls_min);
void sim_node_wrong(sim_node *node, const char *format, ...) CHRONIK_PRINTF(2, 3);
void sim_node_say(const sim_node *node, const char *format, ...) CHRONIK_PRINTF(2, 3); /* in a trace */
/* On one to SIM_NODE_SHARDS_MAX shards. */
void sim_node_boot(sim_node *node);
bool sim_node_open(sim_node *node); /* and waits until it is ready. False: it is not serving */
bool sim_node_dead(const sim_node *node);
void sim_node_stop(sim_node *node); /* in order */
void sim_node_kill(sim_node *node);
void sim_node_end(sim_node *node);
void sim_node_free(sim_node *node);

#endif
