/* The simulated world: time, loops, job lanes, and the disk's calls with their latency and faults.
 *
 * One scheduler, run by sim_world_step on the test's own stack, draws among what can run now: a loop's turn, a thread
 * that wakes from a call, a job for an idle thread. If nothing can, time moves to the next moment at which something
 * can. A job lane's thread is a fiber (ucontext): it goes back to the scheduler in each disk call, and after each step.
 *
 * Whoever runs is the `sender` of what is posted: 0 is the test, then the loops, then the threads. A loop has a mailbox
 * for each of them, so each one's order is kept while the mixture is drawn. */
#include "sim/io_state.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/list.h"
#include "base/rng.h"

#ifdef SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static const chronik_loop_ops loop_ops;
static const chronik_jobs_ops jobs_ops;
static void entropy(void *self, void *buf, size_t len);
static void threads_drain(sim_world *world);
static void fiber_main(unsigned high, unsigned low);

/* ---- stacks ----------------------------------------------------------------------------------------------------- */

/* Kept from world to world, since a simulation makes hundreds of thousands. Not with AddressSanitizer, which remembers
 * what was on them. */
static _Thread_local void *spare_stacks[THREADS_MAX];
static _Thread_local unsigned spare_stack_count;

static void *stack_take(void) {
    if (spare_stack_count > 0)
        return spare_stacks[--spare_stack_count];
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        abort();
    return stack;
}

static void stack_give(void *stack) {
    if (!stack)
        return;
#ifndef SIM_ASAN
    if (spare_stack_count < THREADS_MAX) {
        spare_stacks[spare_stack_count++] = stack;
        return;
    }
#endif
    munmap(stack, STACK_BYTES);
}

/* ---- small things ----------------------------------------------------------------------------------------------- */

uint64_t sim_below(sim_world *world, uint64_t bound) { return cnk_rng_below(&world->rng, bound); }
bool sim_chance(sim_world *world, uint32_t one_in) { return cnk_rng_chance(&world->rng, 1, one_in); }
void sim_mix(sim_world *world, uint64_t value) { sim_disk_hash_mix(world->disk, value); }

static void queue_init(queue *q) {
    q->first = NULL;
    q->end = &q->first;
}

static void queue_push(queue *q, chronik_post *post) {
    post->next = NULL;
    *q->end = post;
    q->end = &post->next;
}

static chronik_post *queue_pop(queue *q) {
    chronik_post *post = q->first;
    if (!post)
        return NULL;
    q->first = post->next;
    if (!q->first)
        q->end = &q->first;
    return post;
}

void sim_trace(sim_world *world, const char *format, ...) {
    if (!world->options.trace)
        return;
    char line[512];
    int n = snprintf(line, sizeof line, "%12.6f ", (double)(world->now_ns - world->start_ns) / 1e9);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + n, sizeof line - (size_t)n, format, arguments);
    va_end(arguments);
    world->options.trace(world->options.trace_arg, line);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void threads_init(sim_world *world) {
    static const unsigned fixed[CHRONIK_LANE_COUNT] = {
        [CHRONIK_LANE_WAL] = 1, [CHRONIK_LANE_BACKGROUND] = 1, [CHRONIK_LANE_COMPUTE] = COMPUTE_THREADS};
    for (unsigned lane = 0; lane < CHRONIK_LANE_COUNT; lane++) {
        queue_init(&world->lanes[lane].ready);
        unsigned count = lane == CHRONIK_LANE_READ ? world->options.read_threads : fixed[lane];
        for (unsigned i = 0; i < count; i++) {
            sim_thread *thread = &world->threads[world->thread_count];
            thread->world = world;
            thread->lane = lane;
            thread->sender = 1 + world->options.loops + world->thread_count++;
        }
    }
}

static void loops_init(sim_world *world) {
    for (unsigned i = 0; i < world->options.loops; i++) {
        sim_loop *loop = &world->loops[i];
        loop->world = world;
        loop->index = i;
        loop->handle = (chronik_loop){&loop_ops, loop};
        loop->next_timer_ns = UINT64_MAX;
        queue_init(&loop->deferred);
        for (unsigned k = 0; k < SENDERS_MAX; k++)
            queue_init(&loop->mail[k]);
    }
}

sim_world *sim_world_new(sim_disk *disk, const sim_world_options *options) {
    sim_world *world = calloc(1, sizeof *world);
    if (!world)
        abort();
    world->disk = disk;
    world->options = options ? *options : (sim_world_options)SIM_WORLD_OPTIONS_INIT;
    assert(world->options.loops >= 1 && world->options.loops <= SIM_LOOPS_MAX);
    assert(world->options.read_threads >= 1 && world->options.read_threads <= READ_THREADS_MAX);
    uint64_t boot = sim_disk_boot(disk), seed = cnk_rng_next(sim_disk_rng(disk)) ^ world->options.seed;
    cnk_rng_seed(&world->rng, seed);
    cnk_rng_seed(&world->entropy_rng, (seed ^ UINT64_C(0x5bf03635d6d8f5c1)) + boot);
    world->start_ns = world->now_ns = SIM_SECOND + sim_below(world, 1000 * SIM_SECOND);
    world->wall_start_ms = world->options.wall_ms
                               ? world->options.wall_ms
                               : INT64_C(1000) * WALL_START_S + (int64_t)(sim_disk_lasted_ns(disk) / SIM_MILLISECOND);
    cnk_list_init(&world->files);
    loops_init(world);
    threads_init(world);
    world->io = (chronik_io){.size = sizeof world->io,
                             .disk_ops = &sim_disk_ops,
                             .disk = world,
                             .net_ops = &sim_net_ops,
                             .net = world,
                             .jobs_ops = &jobs_ops,
                             .jobs = world,
                             .entropy = entropy,
                             .entropy_self = world};
    return world;
}

void sim_file_free(sim_world *world, chronik_file *file) {
    sim_disk_close(world->disk, file->inode, file->flags);
    cnk_list_remove(&file->link);
    free(file);
    world->open_files--;
}

void sim_world_free(sim_world *world) {
    if (!world)
        return;
    assert(!world->running && !world->in_loop);
    world->dead = true; /* what is under way in an orderly end is not done, not even in part */
    threads_drain(world);
    while (!cnk_list_empty(&world->files))
        sim_file_free(world, CNK_CONTAINER(world->files.next, chronik_file, link));
    for (unsigned i = 0; i < world->options.loops; i++) {
        assert(!world->loops[i].timers || world->crashed); /* a dead node may have no way to tidy up */
        while (world->loops[i].timers) {
            chronik_timer *timer = world->loops[i].timers;
            world->loops[i].timers = timer->next;
            free(timer);
        }
    }
    for (unsigned i = 0; i < world->thread_count; i++) {
        stack_give(world->threads[i].stack);
#ifdef SIM_TSAN
        if (world->threads[i].fiber)
            __tsan_destroy_fiber(world->threads[i].fiber);
#endif
    }
    sim_disk_leave(world->disk, world->now_ns - world->start_ns);
    free(world);
}

const chronik_io *sim_world_io(sim_world *world) { return &world->io; }

const chronik_loop *sim_world_loop(sim_world *world, unsigned index) {
    assert(index < world->options.loops);
    return &world->loops[index].handle;
}

uint64_t sim_world_now_ns(const sim_world *world) { return world->now_ns; }
void sim_world_wall_jump(sim_world *world, int64_t ms) { world->wall_start_ms += ms; }
unsigned sim_world_jobs_waiting(const sim_world *world) { return world->jobs_waiting; }
unsigned sim_world_open_files(const sim_world *world) { return world->open_files; }
uint64_t sim_world_calls(const sim_world *world) { return world->calls; }
bool sim_world_dead(const sim_world *world) { return world->dead; }
const char *sim_world_crash_point(const sim_world *world) { return world->crash_point; }
const char *sim_world_last_call(const sim_world *world) { return world->last_call; }
unsigned sim_world_faults_hit(const sim_world *world) { return world->faults_hit; }

static void entropy(void *self, void *buf, size_t len) { cnk_rng_fill(&((sim_world *)self)->entropy_rng, buf, len); }

/* ---- faults ----------------------------------------------------------------------------------------------------- */

void sim_world_crash_in(sim_world *world, uint64_t calls) { world->crash_at = calls ? world->calls + calls : 0; }

static fault *fault_add(sim_world *world, int code) {
    assert(code < 0);
    assert(world->fault_count < SIM_FAULTS_MAX);
    fault *f = &world->faults[world->fault_count++];
    memset(f, 0, sizeof *f);
    f->code = code;
    return f;
}

void sim_world_lie(sim_world *world, uint32_t one_in) { world->lies_one_in = one_in; }

void sim_world_fail_in(sim_world *world, uint64_t calls, int code) {
    assert(calls > 0);
    fault_add(world, code)->at_call = world->calls + calls;
}

void sim_world_fail_next(sim_world *world, sim_op op, const char *path_part, int code) {
    fault *f = fault_add(world, code);
    f->op = op;
    snprintf(f->path_part, sizeof f->path_part, "%s", path_part);
}

/* The code of a failure planned for this call, or 0. */
int sim_fault_take(sim_world *world, sim_op op, const char *path) {
    for (unsigned i = 0; i < world->fault_count; i++) {
        fault *f = &world->faults[i];
        if (f->at_call ? f->at_call != world->calls : f->op != op || !strstr(path, f->path_part))
            continue;
        int code = f->code;
        memmove(f, f + 1, (--world->fault_count - i) * sizeof *f);
        world->faults_hit++;
        return code;
    }
    return 0;
}

void sim_die(sim_world *world, const char *where) {
    world->dead = world->crashed = true;
    snprintf(world->crash_point, sizeof world->crash_point, "%s", where);
    sim_trace(world, "-- the node dies%s%s", *where ? " in " : "", where);
}

void sim_world_kill(sim_world *world) {
    assert(!world->running && !world->in_loop);
    if (!world->dead)
        sim_die(world, "");
    threads_drain(world);
}

void sim_world_limp(sim_world *world) {
    assert(world->dead && !world->running && !world->in_loop);
    threads_drain(world);
    world->limping = true;
}

/* ---- fibers ----------------------------------------------------------------------------------------------------- */

/* From the scheduler to the thread, until it comes back. */
static void fiber_enter(sim_thread *thread) {
    sim_world *world = thread->world;
    assert(!world->running && !world->in_loop);
    unsigned sender = world->sender;
    world->running = thread;
    world->sender = thread->sender;
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&world->scheduler_fake_stack, thread->stack, STACK_BYTES);
#endif
#ifdef SIM_TSAN
    world->scheduler_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(thread->fiber, 0);
#endif
    if (swapcontext(&world->scheduler, &thread->context) != 0)
        abort();
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(world->scheduler_fake_stack, NULL, NULL);
#endif
    world->running = NULL;
    world->sender = sender;
}

/* From the running thread to the scheduler, until that enters it again. */
static void fiber_leave(sim_thread *thread) {
    sim_world *world = thread->world;
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&thread->fake_stack, world->scheduler_stack, world->scheduler_stack_size);
#endif
#ifdef SIM_TSAN
    __tsan_switch_to_fiber(world->scheduler_fiber, 0);
#endif
    if (swapcontext(&thread->context, &world->scheduler) != 0)
        abort();
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(thread->fake_stack, &world->scheduler_stack, &world->scheduler_stack_size);
#endif
}

/* Lets the call's time pass; a fiber steps aside for it. */
void sim_pass(sim_world *world, uint64_t ns) {
    sim_thread *thread = world->running;
    if (!thread) {
        world->now_ns += ns;
        return;
    }
    thread->wake_ns = world->now_ns + ns;
    thread->state = THREAD_SLEEPS;
    fiber_leave(thread);
}

static void fiber_start(sim_thread *thread) {
    thread->stack = stack_take();
    if (getcontext(&thread->context) != 0)
        abort();
    thread->context.uc_stack.ss_sp = thread->stack;
    thread->context.uc_stack.ss_size = STACK_BYTES;
    thread->context.uc_link = NULL;
#ifdef SIM_TSAN
    thread->fiber = __tsan_create_fiber(0);
#endif
    uint64_t self = (uint64_t)(uintptr_t)thread;
    makecontext(&thread->context, (void (*)(void))fiber_main, 2, (unsigned)(self >> 32), (unsigned)self);
}

static void run_done(chronik_post *post) {
    chronik_job *job = CNK_CONTAINER(post, chronik_job, post);
    job->done(job);
}

static void delayed_insert(sim_lane *lane, chronik_job *job) {
    chronik_post **at = &lane->delayed;
    while (*at && CNK_CONTAINER(*at, chronik_job, post)->due_ns <= job->due_ns)
        at = &(*at)->next;
    job->post.next = *at;
    *at = &job->post;
}

static void thread_step(sim_thread *thread) {
    sim_world *world = thread->world;
    chronik_job *job = thread->job;
    void (*done)(chronik_job *) = job->done;
    const chronik_loop *loop = job->loop;
    job->post.next = NULL;
    job->post.run = run_done;
    int64_t delay_ns = job->step(job);
    if (delay_ns == CHRONIK_JOB_DONE) { /* without `done` the job may be gone, or submitted again, by now */
        world->jobs_waiting--;
        if (done)
            loop->ops->post(loop->self, &job->post);
    } else if (delay_ns == 0) {
        queue_push(&world->lanes[thread->lane].ready, &job->post);
    } else {
        assert(delay_ns > 0);
        job->due_ns = world->now_ns + (uint64_t)delay_ns;
        delayed_insert(&world->lanes[thread->lane], job);
    }
    thread->job = NULL;
    thread->state = THREAD_IDLE;
}

static void fiber_main(unsigned high, unsigned low) {
    sim_thread *thread = (sim_thread *)(uintptr_t)(((uint64_t)high << 32) | low);
#ifdef SIM_ASAN
    sim_world *world = thread->world;
    __sanitizer_finish_switch_fiber(NULL, &world->scheduler_stack, &world->scheduler_stack_size);
#endif
    for (;;) {
        thread_step(thread);
        fiber_leave(thread);
    }
}

/* The steps that are under way in a dead world go on to their ends. */
static void threads_drain(sim_world *world) {
    for (unsigned i = 0; i < world->thread_count; i++)
        while (world->threads[i].state == THREAD_SLEEPS)
            fiber_enter(&world->threads[i]);
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

static void jobs_submit(void *self, unsigned lane, chronik_job *job) {
    sim_world *world = self;
    assert(lane < CHRONIK_LANE_COUNT);
    assert(!job->done || job->loop);
    queue_push(&world->lanes[lane].ready, &job->post);
    world->jobs_waiting++;
}

static uint64_t jobs_now_ns(void *self) { return ((sim_world *)self)->now_ns; }

static const chronik_jobs_ops jobs_ops = {
    .size = sizeof(chronik_jobs_ops), .submit = jobs_submit, .now_ns = jobs_now_ns};

static void lane_wake_delayed(sim_world *world, sim_lane *lane) {
    while (lane->delayed) {
        chronik_job *job = CNK_CONTAINER(lane->delayed, chronik_job, post);
        if (job->due_ns > world->now_ns)
            return;
        lane->delayed = job->post.next;
        queue_push(&lane->ready, &job->post);
    }
}

static void thread_run(sim_world *world, sim_thread *thread) {
    if (thread->state == THREAD_IDLE) {
        chronik_post *post = queue_pop(&world->lanes[thread->lane].ready);
        thread->job = CNK_CONTAINER(post, chronik_job, post);
        if (!thread->stack)
            fiber_start(thread);
        sim_trace(world, "lane %u: step", thread->lane);
    }
    sim_mix(world, 1000 + thread->sender);
    fiber_enter(thread);
}

/* ---- loops ------------------------------------------------------------------------------------------------------ */

static uint64_t loop_now_ns(void *self) { return ((sim_loop *)self)->world->now_ns; }

static int64_t loop_wall_ms(void *self) {
    const sim_world *world = ((sim_loop *)self)->world;
    return world->wall_start_ms + (int64_t)((world->now_ns - world->start_ns) / SIM_MILLISECOND);
}

/* Functions of a loop are for its own thread, which is the running turn, or the test between events. */
static void assert_on_loop(const sim_loop *loop) {
    assert(!loop->world->running);
    assert(!loop->world->in_loop || loop->world->sender == 1 + loop->index);
}

static int loop_timer_new(void *self, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer) {
    sim_loop *loop = self;
    assert_on_loop(loop);
    chronik_timer *timer = malloc(sizeof *timer);
    if (!timer)
        abort();
    *timer = (chronik_timer){loop->timers, UINT64_MAX, loop->timer_numbers++, fire, arg};
    loop->timers = timer;
    *ret_timer = timer;
    return 0;
}

static void loop_timers_scan(sim_loop *loop) {
    loop->next_timer_ns = UINT64_MAX;
    for (const chronik_timer *t = loop->timers; t; t = t->next)
        if (t->at_ns < loop->next_timer_ns)
            loop->next_timer_ns = t->at_ns;
}

static void loop_timer_set(void *self, chronik_timer *timer, uint64_t at_ns) {
    sim_loop *loop = self;
    assert_on_loop(loop);
    if (at_ns <= loop->firing_ns)
        at_ns = loop->firing_ns + 1; /* set to the past while timers fire: next turn */
    bool was_next = timer->at_ns == loop->next_timer_ns;
    timer->at_ns = at_ns;
    if (at_ns < loop->next_timer_ns)
        loop->next_timer_ns = at_ns;
    else if (was_next)
        loop_timers_scan(loop);
}

static void loop_timer_free(void *self, chronik_timer *timer) {
    sim_loop *loop = self;
    if (!timer)
        return;
    assert_on_loop(loop);
    chronik_timer **at = &loop->timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    free(timer);
    loop_timers_scan(loop);
}

static int loop_watch_new(void *self, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                          chronik_watch **ret_watch) {
    (void)self, (void)fd, (void)ready, (void)arg, (void)ret_watch;
    return CHRONIK_EUNSUPPORTED;
}

static void loop_watch_set(void *self, chronik_watch *watch, unsigned events) {
    (void)self, (void)events;
    assert(!watch); /* there are no descriptors */
}

static void loop_watch_free(void *self, chronik_watch *watch) {
    (void)self;
    assert(!watch);
}

static void loop_post(void *self, chronik_post *post) {
    sim_loop *loop = self;
    queue_push(&loop->mail[loop->world->sender], post);
    loop->mail_count++;
}

static void loop_defer(void *self, chronik_post *post) {
    sim_loop *loop = self;
    assert_on_loop(loop);
    queue_push(&loop->deferred, post);
}

static const chronik_loop_ops loop_ops = {
    .size = sizeof(chronik_loop_ops),
    .now_ns = loop_now_ns,
    .wall_ms = loop_wall_ms,
    .timer_new = loop_timer_new,
    .timer_set = loop_timer_set,
    .timer_free = loop_timer_free,
    .watch_new = loop_watch_new,
    .watch_set = loop_watch_set,
    .watch_free = loop_watch_free,
    .post = loop_post,
    .defer = loop_defer,
};

static void loop_fire_timers(sim_loop *loop) {
    loop->firing_ns = loop->world->now_ns;
    while (loop->next_timer_ns <= loop->firing_ns) {
        chronik_timer *first = NULL;
        for (chronik_timer *t = loop->timers; t; t = t->next)
            if (!first || t->at_ns < first->at_ns || (t->at_ns == first->at_ns && t->number < first->number))
                first = t;
        first->at_ns = UINT64_MAX;
        loop_timers_scan(loop);
        sim_trace(loop->world, "loop %u: timer", loop->index);
        first->fire(first->arg);
    }
    loop->firing_ns = 0;
}

/* Some of the messages that wait, or all; of each sender in its order. */
static void loop_run_mail(sim_loop *loop) {
    sim_world *world = loop->world;
    unsigned count = loop->mail_count;
    if (count > 1 && sim_chance(world, 4))
        count = 1 + (unsigned)sim_below(world, count);
    while (count-- > 0) {
        unsigned senders[SENDERS_MAX], n = 0;
        for (unsigned i = 0; i < SENDERS_MAX; i++)
            if (loop->mail[i].first)
                senders[n++] = i;
        unsigned pick = senders[sim_below(world, n)];
        chronik_post *post = queue_pop(&loop->mail[pick]);
        loop->mail_count--;
        sim_trace(world, "loop %u: message of %u", loop->index, pick);
        post->run(post);
    }
}

static void loop_run_deferred(sim_loop *loop) {
    chronik_post *list = loop->deferred.first;
    queue_init(&loop->deferred);
    while (list) {
        chronik_post *post = list;
        list = post->next;
        post->run(post);
    }
}

static void turn_enter(sim_loop *loop) {
    assert(!loop->world->running && !loop->world->in_loop);
    loop->world->in_loop = true;
    loop->world->sender = 1 + loop->index;
}

static void turn_leave(sim_loop *loop) {
    sim_world *world = loop->world;
    world->in_loop = false;
    world->sender = 0;
    world->now_ns += sim_below(world, 20 * SIM_MICROSECOND);
    if (sim_chance(world, 200))
        loop->stalled_until_ns = world->now_ns + sim_below(world, 5 * SIM_MILLISECOND);
}

static void loop_turn(sim_loop *loop) {
    sim_mix(loop->world, 2000 + loop->index);
    turn_enter(loop);
    bool timers_first = sim_chance(loop->world, 2);
    if (timers_first)
        loop_fire_timers(loop);
    loop_run_mail(loop);
    if (!timers_first)
        loop_fire_timers(loop);
    loop_run_deferred(loop);
    turn_leave(loop);
}

void sim_world_on(sim_world *world, unsigned loop_index, void (*run)(void *arg), void *arg) {
    assert(loop_index < world->options.loops);
    if (world->dead && !world->limping)
        return;
    sim_loop *loop = &world->loops[loop_index];
    turn_enter(loop);
    run(arg);
    loop_run_deferred(loop);
    turn_leave(loop);
}

/* ---- the scheduler ---------------------------------------------------------------------------------------------- */

/* When the loop can run next: the past for at once, UINT64_MAX for never. */
static uint64_t loop_due_ns(const sim_loop *loop) {
    uint64_t due = loop->mail_count > 0 || loop->deferred.first ? 0 : loop->next_timer_ns;
    return due < loop->stalled_until_ns ? loop->stalled_until_ns : due;
}

static uint64_t thread_due_ns(const sim_world *world, const sim_thread *thread) {
    if (thread->state == THREAD_SLEEPS)
        return thread->wake_ns;
    const sim_lane *lane = &world->lanes[thread->lane];
    if (lane->ready.first)
        return 0;
    return lane->delayed ? CNK_CONTAINER(lane->delayed, chronik_job, post)->due_ns : UINT64_MAX;
}

/* Who can run now, and the next moment at which someone can. A number below `loops` is a loop, else a thread. */
static unsigned runnable(const sim_world *world, unsigned found[SIM_LOOPS_MAX + THREADS_MAX], uint64_t *ret_next_ns) {
    unsigned count = 0;
    *ret_next_ns = UINT64_MAX;
    for (unsigned i = 0; i < world->options.loops + world->thread_count; i++) {
        uint64_t due = i < world->options.loops ? loop_due_ns(&world->loops[i])
                                                : thread_due_ns(world, &world->threads[i - world->options.loops]);
        if (due <= world->now_ns)
            found[count++] = i;
        else if (due < *ret_next_ns)
            *ret_next_ns = due;
    }
    return count;
}

/* One event that starts no later than until_ns. */
static bool step_until(sim_world *world, uint64_t until_ns) {
    assert(!world->running && !world->in_loop);
    if (world->dead) {
        threads_drain(world);
        if (!world->limping)
            return false;
    }
    unsigned found[SIM_LOOPS_MAX + THREADS_MAX];
    uint64_t next_ns;
    unsigned count = runnable(world, found, &next_ns);
    if (count == 0) {
        if (next_ns == UINT64_MAX || next_ns > until_ns)
            return false;
        world->now_ns = next_ns;
        count = runnable(world, found, &next_ns);
    }
    for (unsigned i = 0; i < CHRONIK_LANE_COUNT; i++)
        lane_wake_delayed(world, &world->lanes[i]);
    unsigned pick = found[sim_below(world, count)];
    if (pick < world->options.loops)
        loop_turn(&world->loops[pick]);
    else
        thread_run(world, &world->threads[pick - world->options.loops]);
    if (world->dead)
        threads_drain(world);
    return true;
}

bool sim_world_step(sim_world *world) { return step_until(world, UINT64_MAX); }

void sim_world_run(sim_world *world, uint64_t ns) {
    uint64_t until = world->now_ns + ns;
    while (world->now_ns < until && step_until(world, until))
        ;
    if ((!world->dead || world->limping) && world->now_ns < until)
        world->now_ns = until;
}

bool sim_world_run_until(sim_world *world, bool (*condition)(void *arg), void *arg, uint64_t ns_max) {
    uint64_t until = world->now_ns + ns_max;
    while (!condition(arg)) {
        if (world->dead && !world->limping)
            return false;
        if (world->now_ns >= until || !step_until(world, until))
            return world->dead && !world->limping ? false : condition(arg);
    }
    return true;
}
