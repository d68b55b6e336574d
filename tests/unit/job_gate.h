/* Jobs held back: what is submitted to a lane that is shut is begun when the lane is opened, or never. One for each program;
 * gate_set goes into a world's `io_made`. */
#ifndef JOB_GATE_H
#define JOB_GATE_H

#include <check.h>
#include <pthread.h>
#include <stdbool.h>

#include <chronik/io.h>

enum { GATE_JOBS_MAX = 16 }; /* of a lane that is shut */

static struct {
    void *jobs;
    const chronik_jobs_ops *below;
    pthread_mutex_t mutex;
    bool shut[CHRONIK_LANE_COUNT];
    chronik_job *held[CHRONIK_LANE_COUNT][GATE_JOBS_MAX];
    int count[CHRONIK_LANE_COUNT];
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static inline void gate_submit(void *jobs, unsigned lane, chronik_job *job) {
    pthread_mutex_lock(&gate.mutex);
    const bool held = gate.shut[lane];
    if (held) {
        ck_assert_int_lt(gate.count[lane], GATE_JOBS_MAX);
        gate.held[lane][gate.count[lane]++] = job;
    }
    pthread_mutex_unlock(&gate.mutex);
    if (!held) gate.below->submit(jobs, lane, job);
}

static inline uint64_t gate_now(void *jobs) { return gate.below->now_ns(jobs); }

static inline void gate_set(chronik_io *io) {
    static const chronik_jobs_ops ops = {.size = sizeof ops, .submit = gate_submit, .now_ns = gate_now};
    gate.jobs = io->jobs;
    gate.below = io->jobs_ops;
    io->jobs_ops = &ops;
}

static inline void gate_shut(unsigned lane) {
    pthread_mutex_lock(&gate.mutex);
    gate.shut[lane] = true;
    pthread_mutex_unlock(&gate.mutex);
}

static inline void gate_open(unsigned lane) {
    pthread_mutex_lock(&gate.mutex);
    gate.shut[lane] = false;
    for (int i = 0; i < gate.count[lane]; i++) gate.below->submit(gate.jobs, lane, gate.held[lane][i]);
    gate.count[lane] = 0;
    pthread_mutex_unlock(&gate.mutex);
}

/* Opens it for those that come; those that wait are never begun. */
static inline void gate_forget(unsigned lane) {
    pthread_mutex_lock(&gate.mutex);
    gate.shut[lane] = false;
    gate.count[lane] = 0;
    pthread_mutex_unlock(&gate.mutex);
}

static inline int gate_held(unsigned lane) {
    pthread_mutex_lock(&gate.mutex);
    const int count = gate.count[lane];
    pthread_mutex_unlock(&gate.mutex);
    return count;
}

#endif
