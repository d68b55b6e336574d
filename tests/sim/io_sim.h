/* The simulated world: a chronik_io, and loops, in one real thread, from a seed.
 *
 * A world is one run of a node, from its start to its end or its death, on a disk that outlives it (disk_sim.h):
 *
 *     sim_disk *disk = sim_disk_new(seed, NULL);
 *     for (…) {
 *         sim_world *world = sim_world_new(disk, NULL);
 *         sim_world_crash_in(world, 137);                 the 137th I/O call from here on kills it
 *         … start the node on sim_world_io(world) and sim_world_loop(world, 0) …
 *         sim_world_run(world, 5 * SIM_SECOND);
 *         … free the node's memory: its I/O calls fail and do nothing …
 *         sim_world_free(world);
 *         sim_disk_crash(disk, SIM_CRASH_POWER);
 *     }
 *     sim_disk_free(disk);
 *
 * Time is virtual: it moves when nothing can run at the present moment, and by the latency of calls. Each thread of a
 * job lane is a fiber of its own, which is put aside in each disk call, so loops and other lanes run in the middle of a
 * step, as they do in the real world. Which of those that can run goes next is drawn. All randomness comes from the
 * disk's seed, the world's options and the number of the boot: the same calls give the same sim_disk_hash.
 *
 * Death. In the call that crashes, the operation may be done, done in part, or not done; the same holds for writes that
 * other fibers have under way. It fails with CHRONIK_EIO and from now on every call does so at once, and nothing runs any more, but
 * for the steps that were under way: they go on to their ends. sim_world_limp lets the dead node's loops and jobs run
 * again, with all I/O failing, so that it can shut down in an orderly way and free its memory; what it claims meanwhile,
 * an acknowledgement say, was never heard: check sim_world_dead first.
 *
 * One thread; no memory of the library's allocator is used, so failing allocations hit the code under test alone. */
#ifndef SIM_IO_SIM_H
#define SIM_IO_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "sim/disk_sim.h"

#define SIM_MICROSECOND UINT64_C(1000)
#define SIM_MILLISECOND UINT64_C(1000000)
#define SIM_SECOND UINT64_C(1000000000)

enum { SIM_LOOPS_MAX = 16, SIM_FAULTS_MAX = 64, SIM_LABEL_SIZE = 96 };

typedef struct sim_world sim_world;
typedef struct sim_coverage sim_coverage;

/* What an I/O call does; sim_op_name gives "write", "sync-dir" and so on. */
typedef enum sim_op {
    SIM_OPEN,
    SIM_CREATE, /* open, where the file was missing */
    SIM_WRITE,
    SIM_READ,
    SIM_SYNC,
    SIM_ALLOCATE,
    SIM_TRUNCATE,
    SIM_SIZE,
    SIM_RENAME,
    SIM_UNLINK,
    SIM_MKDIR,
    SIM_SYNC_DIR,
    SIM_LIST,
    SIM_LOCK,
    SIM_SPACE,
    SIM_OP_COUNT
} sim_op;
const char *sim_op_name(sim_op op);

typedef struct sim_world_options {
    unsigned loops;         /* 1 to SIM_LOOPS_MAX */
    unsigned read_threads;  /* fibers of the READ lane, 1 to 4 */
    uint64_t seed;          /* mixed with the disk's random state */
    int64_t wall_ms;        /* Unix time at the start; 0: some day, plus what earlier worlds lasted */
    sim_coverage *coverage; /* where labels are counted; NULL: nowhere */
    void (*trace)(void *arg, const char *line); /* one line for each event, for a person; NULL: none */
    void *trace_arg;
} sim_world_options;

#define SIM_WORLD_OPTIONS_INIT {1, 2, 0, 0, NULL, NULL, NULL}

sim_world *sim_world_new(sim_disk *disk, const sim_world_options *options); /* options: NULL: defaults; copied */
/* NULL-safe. A world that lives is stopped: its open handles are closed and its messages dropped, as at an orderly
 * exit. Timers must have been freed. */
void sim_world_free(sim_world *world);

const chronik_io *sim_world_io(sim_world *world);
const chronik_loop *sim_world_loop(sim_world *world, unsigned index);

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* One event: a loop's turn, or a piece of a job's step up to its next I/O call. false: nothing waits at all, or dead. */
bool sim_world_step(sim_world *world);
/* Runs for so much virtual time, or until death. */
void sim_world_run(sim_world *world, uint64_t ns);
/* Runs until the condition holds, asked before each event; false: it did not within the time, or the world died. */
bool sim_world_run_until(sim_world *world, bool (*condition)(void *arg), void *arg, uint64_t ns_max);
/* Runs `run` as a callback of the loop: posts have the loop as their sender, and what it defers runs afterwards. From
 * outside of all callbacks only. Does nothing in a dead world that does not limp. */
void sim_world_on(sim_world *world, unsigned loop_index, void (*run)(void *arg), void *arg);

uint64_t sim_world_now_ns(const sim_world *world);
void sim_world_wall_jump(sim_world *world, int64_t ms); /* someone sets the clock */
unsigned sim_world_jobs_waiting(const sim_world *world); /* submitted and not done, all lanes */
unsigned sim_world_open_files(const sim_world *world);

/* ---- faults ----------------------------------------------------------------------------------------------------- */

/* Calls are counted from 1. Every disk operation is a call, but close, forget and read_cached. */
uint64_t sim_world_calls(const sim_world *world);
void sim_world_crash_in(sim_world *world, uint64_t calls); /* 1: the next call; 0: never */
void sim_world_fail_in(sim_world *world, uint64_t calls, int code);
/* The next call of this kind whose path contains the text fails ("": any). */
void sim_world_fail_next(sim_world *world, sim_op op, const char *path_part, int code);
/* From now on one sync in so many returns 0 and does nothing. 0: none. */
void sim_world_lie(sim_world *world, uint32_t one_in);
void sim_world_kill(sim_world *world); /* dies between calls; from outside of all callbacks */

bool sim_world_dead(const sim_world *world);
void sim_world_limp(sim_world *world);
/* Where it died: "write wal/#.wal", or "" where it lives or was killed between calls. */
const char *sim_world_crash_point(const sim_world *world);
const char *sim_world_last_call(const sim_world *world); /* the label of the last call */
unsigned sim_world_faults_hit(const sim_world *world);   /* planned failures that have happened */

/* ---- coverage: what happened at each crash point, over many worlds ---------------------------------------------- */

sim_coverage *sim_coverage_new(void);
void sim_coverage_free(sim_coverage *coverage);
void sim_coverage_add(sim_coverage *coverage, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures);
void sim_coverage_merge(sim_coverage *into, const sim_coverage *from);
/* Calls back for each label, sorted. */
void sim_coverage_each(const sim_coverage *coverage,
                       void (*each)(void *arg, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures),
                       void *arg);
uint64_t sim_coverage_crashes(const sim_coverage *coverage);

/* A path's class: its last two components, numbers (also in hexadecimal) replaced by #. */
void sim_path_class(const char *path, char *buf, size_t size);

#endif
