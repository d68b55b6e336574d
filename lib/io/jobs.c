/* Job lanes: threads that step blocking work beside the shards.
 *
 * A lane has two queues: `ready`, a FIFO, and `delayed`, sorted by due time. A worker takes from `ready` after moving
 * over what has come due; a delayed job never occupies a thread. An idle worker waits on a condition variable, until
 * the first delayed job is due where there is one, else without an end: an idle lane never wakes.
 *
 * Ownership. Between submit and the start of its last step, the job's `post` and `due_ns` are the lane's. Once a step
 * has begun to return CHRONIK_JOB_DONE, a job without `done` belongs to whoever knows that it is over: it may be freed,
 * or submitted anew by another thread, before `step` has come back here. So `done` and `loop` are read before each step,
 * and the job is touched after a last step only if it has a `done`, which keeps it alive until that ran. */
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "io/posix.h"

enum {
    STACK_BYTES = 1 << 20,
    THREAD_RETRY_NS = 1000000,
    BACKGROUND_NICE = 5, /* what nobody waits for yields to what somebody does; with 15, packs fall behind their producers */
    COMPUTE_NICE = 5     /* what keeps processors busy yields to what is done at once */
};

static unsigned compute_threads(unsigned read_threads);
static int lane_init(cnk_lane *lane, const char *name, unsigned threads_max, int niceness);
static void lane_free(cnk_lane *lane);
static void submit(void *self, unsigned lane, chronik_job *job);
static uint64_t now_ns(void *self);
static bool thread_add(cnk_lane *lane);
static void *worker(void *arg);
static chronik_job *job_take(cnk_lane *lane);
static void job_step(cnk_lane *lane, chronik_job *job);
static void delayed_insert(cnk_lane *lane, chronik_job *job);
static void ready_push(cnk_lane *lane, chronik_job *job);
static void wait_for_work(cnk_lane *lane);

const chronik_jobs_ops cnk_posix_jobs_ops = {.size = sizeof(chronik_jobs_ops), .submit = submit, .now_ns = now_ns};

int cnk_posix_jobs_init(cnk_posix_jobs *jobs, unsigned read_threads, chronik_error *err) {
    const struct {
        const char *name;
        unsigned threads_max;
        int niceness;
    } lanes[CHRONIK_LANE_COUNT] = {
        [CHRONIK_LANE_WAL] = {"chronik-wal", 1, 0},
        [CHRONIK_LANE_READ] = {"chronik-read", read_threads, 0},
        [CHRONIK_LANE_BACKGROUND] = {"chronik-back", 1, BACKGROUND_NICE},
        [CHRONIK_LANE_COMPUTE] = {"chronik-compute", compute_threads(read_threads), COMPUTE_NICE},
    };
    CNK_ASSERT(read_threads >= 1 && read_threads <= CNK_LANE_THREADS_MAX);
    for (unsigned i = 0; i < CHRONIK_LANE_COUNT; i++) {
        int rc = lane_init(&jobs->lanes[i], lanes[i].name, lanes[i].threads_max, lanes[i].niceness);
        if (rc != 0)
            return cnk_error(err, cnk_error_from_errno(rc), rc, "cannot make a job lane");
        jobs->lane_count = i + 1;
    }
    return 0;
}

void cnk_posix_jobs_free(cnk_posix_jobs *jobs) {
    /* All lanes stop before the first is joined: a job of one lane may submit to another in its last step. */
    for (unsigned i = 0; i < jobs->lane_count; i++) {
        cnk_lane *lane = &jobs->lanes[i];
        pthread_mutex_lock(&lane->mutex);
        lane->stopping = true;
        pthread_cond_broadcast(&lane->wake);
        pthread_mutex_unlock(&lane->mutex);
    }
    for (unsigned i = 0; i < jobs->lane_count; i++)
        for (unsigned t = 0; t < jobs->lanes[i].thread_count; t++)
            pthread_join(jobs->lanes[i].threads[t], NULL);
    for (unsigned i = 0; i < jobs->lane_count; i++)
        lane_free(&jobs->lanes[i]);
    jobs->lane_count = 0;
}

/* One for each processor; some of what they do is to read. */
static unsigned compute_threads(unsigned read_threads) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors <= (long)read_threads) return read_threads;
    return processors > CNK_LANE_THREADS_MAX ? CNK_LANE_THREADS_MAX : (unsigned)processors;
}

static int lane_init(cnk_lane *lane, const char *name, unsigned threads_max, int niceness) {
    lane->name = name;
    lane->threads_max = threads_max;
    lane->nice = niceness;
    lane->ready_end = &lane->ready;
    int rc = pthread_mutex_init(&lane->mutex, NULL);
    if (rc != 0)
        return rc;
    pthread_condattr_t attributes;
    rc = pthread_condattr_init(&attributes);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (rc == 0)
            rc = pthread_cond_init(&lane->wake, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    if (rc != 0)
        pthread_mutex_destroy(&lane->mutex);
    return rc;
}

static void lane_free(cnk_lane *lane) {
    pthread_cond_destroy(&lane->wake);
    pthread_mutex_destroy(&lane->mutex);
}

static uint64_t now_ns(void *self) {
    (void)self;
    return cnk_posix_now_ns();
}

static void submit(void *self, unsigned lane_number, chronik_job *job) {
    cnk_posix_jobs *jobs = self;
    CNK_ASSERT(lane_number < CHRONIK_LANE_COUNT);
    CNK_ASSERT(!job->done || job->loop);
    cnk_lane *lane = &jobs->lanes[lane_number];
    pthread_mutex_lock(&lane->mutex);
    ready_push(lane, job);
    if (lane->idle_count > 0)
        pthread_cond_signal(&lane->wake);
    else if (!lane->stopping && lane->thread_count < lane->threads_max) {
        /* A job must never be refused. With a thread there, a failure to make another one only costs time; without
         * any, wait for the system to have room for one. */
        while (!thread_add(lane) && lane->thread_count == 0)
            nanosleep(&(struct timespec){0, THREAD_RETRY_NS}, NULL);
    }
    pthread_mutex_unlock(&lane->mutex);
}

static bool thread_add(cnk_lane *lane) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the new thread inherits it: signals are the host's */
    bool ok = pthread_create(&lane->threads[lane->thread_count], &attributes, worker, lane) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (ok)
        lane->thread_count++;
    return ok;
}

static void *worker(void *arg) {
    cnk_lane *lane = arg;
#ifdef __linux__
    pthread_setname_np(pthread_self(), lane->name);
    if (lane->nice > 0) (void)!nice(lane->nice); /* there it is the thread's own */
#endif
    pthread_mutex_lock(&lane->mutex);
    while (!lane->stopping) {
        chronik_job *job = job_take(lane);
        if (job)
            job_step(lane, job);
        else
            wait_for_work(lane);
    }
    pthread_mutex_unlock(&lane->mutex);
    return NULL;
}

/* Called and left with the mutex held; the step itself runs without. */
static void job_step(cnk_lane *lane, chronik_job *job) {
    pthread_mutex_unlock(&lane->mutex);
    void (*done)(chronik_job *) = job->done;
    const chronik_loop *loop = job->loop;
    int64_t delay_ns = job->step(job);
    if (delay_ns == CHRONIK_JOB_DONE) {
        if (done)
            loop->ops->post(loop->self, &job->post);
        pthread_mutex_lock(&lane->mutex);
        return;
    }
    CNK_ASSERT(delay_ns >= 0);
    uint64_t due_ns = delay_ns == 0 ? 0 : cnk_posix_now_ns() + (uint64_t)delay_ns;
    pthread_mutex_lock(&lane->mutex);
    if (delay_ns == 0) {
        ready_push(lane, job);
        return;
    }
    job->due_ns = due_ns;
    delayed_insert(lane, job);
    /* This worker may go on with a long step: an idle one must watch the new first deadline. */
    if (lane->delayed == &job->post && lane->idle_count > 0)
        pthread_cond_signal(&lane->wake);
}

static void run_done(chronik_post *post) {
    chronik_job *job = CNK_CONTAINER(post, chronik_job, post);
    job->done(job);
}

static chronik_job *job_take(cnk_lane *lane) {
    if (lane->delayed) {
        uint64_t now = cnk_posix_now_ns();
        while (lane->delayed) {
            chronik_job *job = CNK_CONTAINER(lane->delayed, chronik_job, post);
            if (job->due_ns > now)
                break;
            lane->delayed = job->post.next;
            ready_push(lane, job);
        }
    }
    if (!lane->ready)
        return NULL;
    chronik_job *job = CNK_CONTAINER(lane->ready, chronik_job, post);
    lane->ready = job->post.next;
    if (!lane->ready)
        lane->ready_end = &lane->ready;
    else if (lane->idle_count > 0)
        pthread_cond_signal(&lane->wake); /* several came due at once */
    job->post.next = NULL;
    job->post.run = run_done;
    return job;
}

static void ready_push(cnk_lane *lane, chronik_job *job) {
    job->post.next = NULL;
    *lane->ready_end = &job->post;
    lane->ready_end = &job->post.next;
}

static void delayed_insert(cnk_lane *lane, chronik_job *job) {
    chronik_post **at = &lane->delayed;
    while (*at && CNK_CONTAINER(*at, chronik_job, post)->due_ns <= job->due_ns)
        at = &(*at)->next;
    job->post.next = *at;
    *at = &job->post;
}

static void wait_for_work(cnk_lane *lane) {
    lane->idle_count++;
    if (lane->delayed) {
        uint64_t due_ns = CNK_CONTAINER(lane->delayed, chronik_job, post)->due_ns;
        struct timespec until = {(time_t)(due_ns / UINT64_C(1000000000)), (long)(due_ns % UINT64_C(1000000000))};
        pthread_cond_timedwait(&lane->wake, &lane->mutex, &until);
    } else {
        pthread_cond_wait(&lane->wake, &lane->mutex);
    }
    lane->idle_count--;
}
