/* A node below the socket in the simulated world: a WAL, a tier and a broker, from one opening to its end or death.
 *
 *     sim_node_init(&node, &rng, wrong, arg);            once; then the caller's own settings
 *     for (…) {
 *         sim_node_boot(&node, disk, &rng, NULL);        the world, and nothing in it
 *         if (sim_node_open(&node)) … work, sim_node_stop(&node) …
 *         sim_node_kill(&node);                what has not stopped is dead, and runs on without a disk
 *         … the caller ends what he has under way …
 *         sim_node_end(&node);                 all is over, and can be freed
 *         sim_node_free(&node);
 *     }
 *
 * What must not happen while a node lives, and has no failures planned, is told to `wrong`. */
#ifndef SIM_NODE_SIM_H
#define SIM_NODE_SIM_H

#include "base/rng.h"
#include "broker/broker.h"
#include "sim/io_sim.h"
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
    bool trace;                 /* what it says goes to standard output */
    void (*wrong)(void *arg, const char *sentence);
    void *arg;
    /* the node's */
    sim_world *world;
    cnk_wal *wal;
    cnk_tier *tier;
    cnk_broker *broker; /* NULL: it could not be opened */
    unsigned shards;
    const chronik_loop *loops[SIM_NODE_SHARDS_MAX];
    bool ready, fenced, draining, drained, stopping, stopped;
} sim_node;

/* WAL files so small that packs, checkpoints and recycling happen all the time; drawn from rng. */
void sim_node_init(sim_node *node, cnk_rng *rng, void (*wrong)(void *arg, const char *sentence), void *arg);
/* On one to SIM_NODE_SHARDS_MAX shards. */
void sim_node_boot(sim_node *node, sim_disk *disk, cnk_rng *rng, sim_coverage *coverage);
bool sim_node_open(sim_node *node); /* and waits until it is ready. False: it is not serving */
bool sim_node_dead(const sim_node *node);
void sim_node_stop(sim_node *node); /* in order */
void sim_node_kill(sim_node *node);
void sim_node_end(sim_node *node);
void sim_node_free(sim_node *node);

#endif
