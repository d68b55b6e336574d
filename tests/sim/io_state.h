/* What io_sim.c and io_calls.c share: the state of the simulated world. */
#ifndef SIM_IO_STATE_H
#define SIM_IO_STATE_H

#include <ucontext.h>

#include "base/list.h"
#include "base/rng.h"
#include "sim/io_sim.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define SIM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define SIM_TSAN 1
#endif

enum {
    READ_THREADS_MAX = 4,
    COMPUTE_THREADS = 2,
    THREADS_MAX = READ_THREADS_MAX + COMPUTE_THREADS + 2,
    SENDERS_MAX = 1 + SIM_LOOPS_MAX + THREADS_MAX,
    STACK_BYTES = 512 * 1024,
    DIRECT_ALIGN = 4096,
    WALL_START_S = 1767225600 /* 2026-01-01 */
};

typedef struct queue {
    chronik_post *first, **end;
} queue;

struct chronik_timer {
    chronik_timer *next;
    uint64_t at_ns, number;
    void (*fire)(void *arg);
    void *arg;
};

typedef struct sim_loop {
    sim_world *world;
    chronik_loop handle;
    unsigned index;
    queue mail[SENDERS_MAX];
    unsigned mail_count;
    queue deferred;
    chronik_timer *timers;
    uint64_t timer_numbers, next_timer_ns, firing_ns;
    uint64_t stalled_until_ns; /* its thread does not get the processor */
} sim_loop;

typedef enum thread_state { THREAD_IDLE, THREAD_SLEEPS } thread_state;

typedef struct sim_thread {
    sim_world *world;
    unsigned lane, sender;
    thread_state state;
    uint64_t wake_ns;
    chronik_job *job;
    void *stack; /* NULL: not started */
    ucontext_t context;
#ifdef SIM_ASAN
    void *fake_stack;
#endif
#ifdef SIM_TSAN
    void *fiber;
#endif
} sim_thread;

typedef struct sim_lane {
    queue ready;
    chronik_post *delayed;
} sim_lane;

typedef struct fault {
    uint64_t at_call; /* or 0: the next call that fits */
    sim_op op;
    char path_part[SIM_LABEL_SIZE];
    int code; /* 0: this slot is free */
} fault;

struct chronik_file {
    cnk_list link;
    sim_inode *inode;
    unsigned flags; /* as given to the disk */
    char path[];
};

struct sim_world {
    sim_disk *disk;
    sim_world_options options;
    cnk_rng rng, entropy_rng;
    uint32_t lies_one_in; /* syncs; 0: none */
    uint64_t start_ns, now_ns, calls, crash_at;
    int64_t wall_start_ms;
    chronik_io io;

    sim_loop loops[SIM_LOOPS_MAX];
    sim_lane lanes[CHRONIK_LANE_COUNT];
    sim_thread threads[THREADS_MAX];
    unsigned thread_count, jobs_waiting;

    unsigned sender;
    bool in_loop;
    sim_thread *running; /* NULL: the scheduler, or the test */
    ucontext_t scheduler;
#ifdef SIM_ASAN
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_size;
#endif
#ifdef SIM_TSAN
    void *scheduler_fiber;
#endif

    cnk_list files;
    fault faults[SIM_FAULTS_MAX];
    unsigned fault_count, faults_hit, open_files;
    bool dead;    /* no I/O any more */
    bool crashed; /* by a crash, not by the end of the test */
    bool limping;
    char crash_point[SIM_LABEL_SIZE], last_call[SIM_LABEL_SIZE];
};

extern const chronik_disk_ops sim_disk_ops;
extern const chronik_net_ops sim_net_ops;

uint64_t sim_below(sim_world *world, uint64_t bound);
bool sim_chance(sim_world *world, uint32_t one_in);
void sim_mix(sim_world *world, uint64_t value);
void sim_trace(sim_world *world, const char *format, ...) CHRONIK_PRINTF(2, 3);
void sim_pass(sim_world *world, uint64_t ns); /* virtual time goes by; a fiber steps aside */
void sim_die(sim_world *world, const char *where);
int sim_fault_take(sim_world *world, sim_op op, const char *path); /* a planned failure's code, or 0 */
void sim_file_free(sim_world *world, chronik_file *file);

#endif
