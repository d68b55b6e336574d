/* What a node puts between itself and the world that it was given: its jobs, and a host's loops.
 *
 * While it opens. Recovery, and the new terms of all groups, send messages and submit jobs before it is known whether
 * the node will start. A message cannot be taken back from a loop that the host goes on running, nor a job from a lane.
 * So all of them wait here until the node is open, and are dropped where it cannot be opened: nothing of it is under way
 * then, and everything can be freed. Afterwards they pass through.
 *
 * jobs=inline. A job's steps run as messages on a loop: those of the READ and the COMPUTE lane on the job's own, so that
 * shards do them beside each other, those of the WAL and the BACKGROUND lane on the first, so that each lane does one step
 * at a time as it does with threads. A step that wants to be stepped again goes to the end of the loop's messages; one that
 * wants to wait stands in a list, sorted by time, behind a timer.
 *
 * Threads. `held` and the lists of what waits are under `mutex` until they are let through; `delayed` belongs to its
 * loop's thread. */
#include "node/world.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"

typedef struct post_list {
    chronik_post *first, **end;
} post_list;

typedef struct world_loop {
    chronik_loop handle; /* what the node sees of a host's loop */
    const chronik_loop *inner, *seen;
    cnk_world *world;
    post_list posted, deferred; /* held */
    chronik_timer *timer;       /* jobs=inline */
    chronik_post *delayed;      /* jobs, by due_ns, ascending */
} world_loop;

struct cnk_world {
    chronik_io io;
    const chronik_io *inner;
    bool inline_jobs;
    pthread_mutex_t mutex;
    atomic_bool held;
    post_list jobs[CHRONIK_LANE_COUNT]; /* held */
    size_t loop_count;
    world_loop loops[];
};

static void list_init(post_list *l) { *l = (post_list){NULL, &l->first}; }

static void list_push(post_list *l, chronik_post *post) {
    post->next = NULL;
    *l->end = post;
    l->end = &post->next;
}

static chronik_post *list_pop(post_list *l) {
    chronik_post *post = l->first;
    if (!post) return NULL;
    l->first = post->next;
    if (!l->first) l->end = &l->first;
    return post;
}

/* True: it waits in the list. */
static bool hold(cnk_world *w, post_list *list, chronik_post *post) {
    if (!atomic_load_explicit(&w->held, memory_order_acquire)) return false;
    pthread_mutex_lock(&w->mutex);
    bool held = atomic_load_explicit(&w->held, memory_order_relaxed);
    if (held) list_push(list, post);
    pthread_mutex_unlock(&w->mutex);
    return held;
}

/* ---- a host's loop ------------------------------------------------------------------------------------------------ */

static const chronik_loop *inner_of(void *self) { return ((world_loop *)self)->inner; }

static uint64_t loop_now_ns(void *self) {
    const chronik_loop *l = inner_of(self);
    return l->ops->now_ns(l->self);
}

static int64_t loop_wall_ms(void *self) {
    const chronik_loop *l = inner_of(self);
    return l->ops->wall_ms(l->self);
}

static int loop_timer_new(void *self, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer) {
    const chronik_loop *l = inner_of(self);
    return l->ops->timer_new(l->self, fire, arg, ret_timer);
}

static void loop_timer_set(void *self, chronik_timer *timer, uint64_t at_ns) {
    const chronik_loop *l = inner_of(self);
    l->ops->timer_set(l->self, timer, at_ns);
}

static void loop_timer_free(void *self, chronik_timer *timer) {
    const chronik_loop *l = inner_of(self);
    l->ops->timer_free(l->self, timer);
}

static int loop_watch_new(void *self, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                          chronik_watch **ret_watch) {
    const chronik_loop *l = inner_of(self);
    return l->ops->watch_new(l->self, fd, ready, arg, ret_watch);
}

static void loop_watch_set(void *self, chronik_watch *watch, unsigned events) {
    const chronik_loop *l = inner_of(self);
    l->ops->watch_set(l->self, watch, events);
}

static void loop_watch_free(void *self, chronik_watch *watch) {
    const chronik_loop *l = inner_of(self);
    l->ops->watch_free(l->self, watch);
}

static void loop_post(void *self, chronik_post *post) {
    world_loop *l = self;
    if (!hold(l->world, &l->posted, post)) l->inner->ops->post(l->inner->self, post);
}

static void loop_defer(void *self, chronik_post *post) {
    world_loop *l = self;
    if (!hold(l->world, &l->deferred, post)) l->inner->ops->defer(l->inner->self, post);
}

static const chronik_loop_ops loop_ops = {.size = sizeof(chronik_loop_ops),
                                          .now_ns = loop_now_ns,
                                          .wall_ms = loop_wall_ms,
                                          .timer_new = loop_timer_new,
                                          .timer_set = loop_timer_set,
                                          .timer_free = loop_timer_free,
                                          .watch_new = loop_watch_new,
                                          .watch_set = loop_watch_set,
                                          .watch_free = loop_watch_free,
                                          .post = loop_post,
                                          .defer = loop_defer};

/* ---- jobs --------------------------------------------------------------------------------------------------------- */

static void run_done(chronik_post *post) {
    chronik_job *job = CNK_CONTAINER(post, chronik_job, post);
    job->done(job);
}

static void run_step(chronik_post *post);

/* While a job waits for its turn, due_ns holds the loop on which it runs. */
static void step_soon(world_loop *l, chronik_job *job) {
    job->due_ns = (uint64_t)(uintptr_t)l;
    job->post.run = run_step;
    l->inner->ops->post(l->inner->self, &job->post);
}

static void step_later(world_loop *l, chronik_job *job, uint64_t due_ns) {
    chronik_post **at = &l->delayed;
    while (*at && CNK_CONTAINER(*at, chronik_job, post)->due_ns <= due_ns) at = &(*at)->next;
    job->due_ns = due_ns;
    job->post.next = *at;
    *at = &job->post;
    if (l->delayed == &job->post) l->inner->ops->timer_set(l->inner->self, l->timer, due_ns);
}

/* A job without `done` is not touched after its last step: whoever knows that it is over may have freed it. */
static void run_step(chronik_post *post) {
    chronik_job *job = CNK_CONTAINER(post, chronik_job, post);
    world_loop *l = (world_loop *)(uintptr_t)job->due_ns;
    void (*done)(chronik_job *) = job->done;
    const chronik_loop *home = job->loop;
    int64_t delay_ns = job->step(job);
    if (delay_ns == CHRONIK_JOB_DONE) {
        if (!done) return;
        job->post.run = run_done;
        home->ops->post(home->self, &job->post);
        return;
    }
    CNK_ASSERT(delay_ns >= 0);
    if (delay_ns == 0) step_soon(l, job);
    else step_later(l, job, l->inner->ops->now_ns(l->inner->self) + (uint64_t)delay_ns);
}

static void on_timer(void *arg) {
    world_loop *l = arg;
    uint64_t now = l->inner->ops->now_ns(l->inner->self);
    while (l->delayed) {
        chronik_job *job = CNK_CONTAINER(l->delayed, chronik_job, post);
        if (job->due_ns > now) {
            l->inner->ops->timer_set(l->inner->self, l->timer, job->due_ns);
            return;
        }
        l->delayed = job->post.next;
        step_soon(l, job);
    }
}

static void submit(void *self, unsigned lane, chronik_job *job) {
    cnk_world *w = self;
    CNK_ASSERT(lane < CHRONIK_LANE_COUNT);
    if (hold(w, &w->jobs[lane], &job->post)) return;
    if (!w->inline_jobs) {
        w->inner->jobs_ops->submit(w->inner->jobs, lane, job);
        return;
    }
    size_t i = 0;
    if (lane == CHRONIK_LANE_READ || lane == CHRONIK_LANE_COMPUTE)
        while (i + 1 < w->loop_count && w->loops[i].seen != job->loop) i++;
    step_soon(&w->loops[i], job);
}

static uint64_t jobs_now_ns(void *self) {
    cnk_world *w = self;
    return w->inner->jobs_ops->now_ns(w->inner->jobs);
}

static const chronik_jobs_ops jobs_ops = {.size = sizeof(chronik_jobs_ops), .submit = submit, .now_ns = jobs_now_ns};

/* ---- life --------------------------------------------------------------------------------------------------------- */

int cnk_world_new(const chronik_io *io, const chronik_loop *const *loops, size_t loop_count, bool host_loops,
                  bool inline_jobs, chronik_error *err, cnk_world **ret_world) {
    cnk_world *w = cnk_calloc(1, sizeof *w + loop_count * sizeof w->loops[0]);
    if (!w || pthread_mutex_init(&w->mutex, NULL)) {
        cnk_free(w);
        return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory");
    }
    w->inner = io;
    w->io = *io;
    w->io.jobs_ops = &jobs_ops;
    w->io.jobs = w;
    w->inline_jobs = inline_jobs;
    w->loop_count = loop_count;
    atomic_init(&w->held, true);
    for (size_t i = 0; i < CHRONIK_LANE_COUNT; i++) list_init(&w->jobs[i]);
    int rc = 0;
    for (size_t i = 0; i < loop_count; i++) {
        world_loop *l = &w->loops[i];
        l->world = w;
        l->inner = loops[i];
        l->handle = (chronik_loop){&loop_ops, l};
        l->seen = host_loops ? &l->handle : l->inner;
        list_init(&l->posted);
        list_init(&l->deferred);
        if (!rc && inline_jobs) rc = l->inner->ops->timer_new(l->inner->self, on_timer, l, &l->timer);
    }
    if (rc) {
        cnk_world_free(w);
        return cnk_error(err, rc, 0, "out of memory");
    }
    *ret_world = w;
    return 0;
}

const chronik_io *cnk_world_io(cnk_world *w) { return &w->io; }
const chronik_loop *cnk_world_loop(cnk_world *w, size_t i) { return w->loops[i].seen; }

/* Each sender's order is kept: whoever finds `held` gone comes after all that waited. */
void cnk_world_let(cnk_world *w) {
    pthread_mutex_lock(&w->mutex);
    post_list jobs[CHRONIK_LANE_COUNT];
    for (size_t i = 0; i < w->loop_count; i++) {
        world_loop *l = &w->loops[i];
        for (chronik_post *p; (p = list_pop(&l->posted));) l->inner->ops->post(l->inner->self, p);
        for (chronik_post *p; (p = list_pop(&l->deferred));) l->inner->ops->defer(l->inner->self, p);
    }
    for (size_t i = 0; i < CHRONIK_LANE_COUNT; i++) {
        list_init(&jobs[i]);
        for (chronik_post *p; (p = list_pop(&w->jobs[i]));) list_push(&jobs[i], p);
    }
    atomic_store_explicit(&w->held, false, memory_order_release);
    pthread_mutex_unlock(&w->mutex);
    /* No two submissions of the same job can be in disorder: it is not submitted again before it was stepped. */
    for (unsigned i = 0; i < CHRONIK_LANE_COUNT; i++)
        for (chronik_post *p; (p = list_pop(&jobs[i]));) submit(w, i, CNK_CONTAINER(p, chronik_job, post));
}

void cnk_world_free(cnk_world *w) {
    if (!w) return;
    for (size_t i = 0; i < w->loop_count; i++)
        if (w->loops[i].timer) w->loops[i].inner->ops->timer_free(w->loops[i].inner->self, w->loops[i].timer);
    pthread_mutex_destroy(&w->mutex);
    cnk_free(w);
}
