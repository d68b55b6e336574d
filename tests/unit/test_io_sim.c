/* The simulated world: determinism, order, jobs in the middle of which others run, faults and deaths; and, as the proof
 * that it finds something, a toy log with bugs that can be switched on. */
#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/rng.h"
#include "sim/io_sim.h"

static sim_disk *disk;
static sim_world *world;
static const chronik_io *io;
static const chronik_disk_ops *d;

static void start(uint64_t seed, const sim_world_options *options) {
    disk = sim_disk_new(seed, NULL);
    world = sim_world_new(disk, options);
    io = sim_world_io(world);
    d = io->disk_ops;
}

static void finish(void) {
    sim_world_free(world);
    sim_disk_free(disk);
}

static chronik_file *open_ok(const char *path, unsigned flags) {
    chronik_file *file = NULL;
    ck_assert_int_eq(d->open(io->disk, path, flags, NULL, &file), 0);
    return file;
}

enum { BUFFERED = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE };

/* ---- loops ------------------------------------------------------------------------------------------------------ */

static char trace[512];

static void note(char c) {
    size_t n = strlen(trace);
    if (n + 1 < sizeof trace) {
        trace[n] = c;
        trace[n + 1] = '\0';
    }
}

typedef struct letter {
    chronik_post post;
    char c;
    const chronik_loop *forward; /* posted there, in lower case, when it has run */
} letter;

static void letter_run(chronik_post *post) {
    letter *m = CNK_CONTAINER(post, letter, post);
    note(m->c);
    const chronik_loop *to = m->forward;
    if (to) {
        m->forward = NULL;
        m->c = (char)(m->c | 0x20);
        to->ops->post(to->self, post);
    }
}

static letter letters[2][8];

static void post_first(void *arg) {
    const chronik_loop *l = arg;
    for (int i = 0; i < 8; i++) {
        letters[0][i] = (letter){{NULL, letter_run}, (char)('a' + i), NULL};
        l->ops->post(l->self, &letters[0][i].post);
    }
}

static void post_second(void *arg) {
    const chronik_loop *l = arg;
    for (int i = 0; i < 8; i++) {
        letters[1][i] = (letter){{NULL, letter_run}, (char)('0' + i), NULL};
        l->ops->post(l->self, &letters[1][i].post);
    }
}

START_TEST(each_senders_order_is_kept_and_the_mixture_varies) {
    char seen[20][512];
    int different = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        start(seed, &(sim_world_options){.loops = 3, .read_threads = 1});
        trace[0] = '\0';
        void *target = (void *)(uintptr_t)sim_world_loop(world, 0);
        sim_world_on(world, 1, post_first, target);
        sim_world_on(world, 2, post_second, target);
        sim_world_run(world, SIM_SECOND);
        char first[17] = {0}, second[17] = {0}, *f = first, *s = second;
        for (const char *p = trace; *p; p++)
            *(*p >= 'a' ? f++ : s++) = *p;
        ck_assert_str_eq(first, "abcdefgh");
        ck_assert_str_eq(second, "01234567");
        strcpy(seen[seed], trace);
        different += seed > 0 && strcmp(seen[seed], seen[0]) != 0;
        finish();
    }
    ck_assert_int_gt(different, 10);
}
END_TEST

START_TEST(loops_talk_to_each_other) {
    start(1, &(sim_world_options){.loops = 2, .read_threads = 1});
    trace[0] = '\0';
    letter m = {{NULL, letter_run}, 'X', sim_world_loop(world, 1)};
    const chronik_loop *l = sim_world_loop(world, 0);
    l->ops->post(l->self, &m.post);
    sim_world_run(world, SIM_SECOND);
    ck_assert_str_eq(trace, "Xx");
    ck_assert(!sim_world_step(world)); /* nothing is left */
    finish();
}
END_TEST

static letter deferred;

static void defer_and_note(chronik_post *post) {
    const chronik_loop *l = sim_world_loop(world, 0);
    letter *m = CNK_CONTAINER(post, letter, post);
    note(m->c);
    l->ops->defer(l->self, &deferred.post);
}

START_TEST(deferred_runs_after_the_turn) {
    start(3, NULL);
    trace[0] = '\0';
    const chronik_loop *l = sim_world_loop(world, 0);
    deferred = (letter){{NULL, letter_run}, '.', NULL};
    letter a = {{NULL, defer_and_note}, 'a', NULL}, b = {{NULL, letter_run}, 'b', NULL};
    l->ops->post(l->self, &a.post);
    l->ops->post(l->self, &b.post);
    sim_world_run(world, SIM_SECOND);
    ck_assert(strcmp(trace, "ab.") == 0 || strcmp(trace, "a.b") == 0); /* one turn, or two */
    finish();
}
END_TEST

typedef struct alarm {
    chronik_timer *timer;
    uint64_t at_ns;
    int rings;
} alarm_clock;

static uint64_t last_ring;

static void ring(void *arg) {
    alarm_clock *a = arg;
    const chronik_loop *l = sim_world_loop(world, 0);
    uint64_t now = l->ops->now_ns(l->self);
    ck_assert_uint_ge(now, a->at_ns);
    ck_assert_uint_lt(now - a->at_ns, 10 * SIM_MILLISECOND); /* late by a stall of the loop at most */
    ck_assert_uint_ge(a->at_ns, last_ring);
    last_ring = a->at_ns;
    a->rings++;
}

START_TEST(timers_fire_in_order_of_virtual_time) {
    start(4, NULL);
    const chronik_loop *l = sim_world_loop(world, 0);
    alarm_clock clocks[30] = {{0}};
    uint64_t begin = sim_world_now_ns(world);
    int64_t wall = l->ops->wall_ms(l->self);
    last_ring = 0;
    for (uint64_t i = 0; i < 30; i++) {
        ck_assert_int_eq(l->ops->timer_new(l->self, ring, &clocks[i], &clocks[i].timer), 0);
        clocks[i].at_ns = begin + (i * 7 % 30) * 60 * SIM_SECOND;
        l->ops->timer_set(l->self, clocks[i].timer, i % 5 ? clocks[i].at_ns : UINT64_MAX);
    }
    sim_world_run(world, 3600 * SIM_SECOND);
    ck_assert_uint_ge(sim_world_now_ns(world), begin + 3600 * SIM_SECOND);
    ck_assert_int_ge(l->ops->wall_ms(l->self), wall + 3600 * 1000);
    sim_world_wall_jump(world, -7200 * 1000);
    ck_assert_int_lt(l->ops->wall_ms(l->self), wall);
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(clocks[i].rings, i % 5 != 0);
        l->ops->timer_free(l->self, clocks[i].timer);
    }
    finish();
}
END_TEST

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

typedef struct io_job {
    chronik_job job;
    const char *path;
    int steps, steps_wanted, done;
    int64_t delay_ns;
    bool in_call;
    char c;
} io_job;

static int in_calls, in_calls_max, interrupted;

/* Writes and syncs; counts who else is in the middle of a step meanwhile. */
static int64_t io_step(chronik_job *job) {
    io_job *j = CNK_CONTAINER(job, io_job, job);
    ck_assert(!j->in_call);
    j->in_call = true;
    if (++in_calls > in_calls_max)
        in_calls_max = in_calls;
    chronik_file *file = NULL;
    if (d->open(io->disk, j->path, BUFFERED, NULL, &file) == 0) {
        struct iovec iov = {&j->c, 1};
        d->write(io->disk, file, &iov, 1, (uint64_t)j->steps, NULL);
        d->sync(io->disk, file, NULL);
        d->close(io->disk, file);
    }
    in_calls--;
    j->in_call = false;
    return ++j->steps < j->steps_wanted ? j->delay_ns : CHRONIK_JOB_DONE;
}

static void io_done(chronik_job *job) {
    io_job *j = CNK_CONTAINER(job, io_job, job);
    ck_assert_int_eq(j->steps, j->steps_wanted);
    j->done++;
}

static chronik_timer *ticker;

static void tick(void *arg) {
    (void)arg;
    interrupted += in_calls > 0;
    const chronik_loop *l = sim_world_loop(world, 0);
    l->ops->timer_set(l->self, ticker, l->ops->now_ns(l->self) + 100 * SIM_MICROSECOND);
}

START_TEST(steps_are_interrupted_in_their_calls) {
    start(5, NULL);
    const chronik_loop *l = sim_world_loop(world, 0);
    in_calls = in_calls_max = interrupted = 0;
    ck_assert_int_eq(l->ops->timer_new(l->self, tick, NULL, &ticker), 0);
    l->ops->timer_set(l->self, ticker, 0);
    static const char *const names[] = {"wal", "r1", "r2", "r3", "back"};
    static const unsigned lanes[] = {CHRONIK_LANE_WAL, CHRONIK_LANE_READ, CHRONIK_LANE_READ, CHRONIK_LANE_READ,
                                     CHRONIK_LANE_BACKGROUND};
    io_job jobs[5];
    for (int i = 0; i < 5; i++) {
        jobs[i] = (io_job){.job = {.loop = l, .step = io_step, .done = io_done}, .path = names[i], .c = 'x'};
        jobs[i].steps_wanted = 5;
        jobs[i].delay_ns = i % 2 ? 0 : 300000;
        io->jobs_ops->submit(io->jobs, lanes[i], &jobs[i].job);
    }
    ck_assert_uint_eq(sim_world_jobs_waiting(world), 5);
    sim_world_run(world, SIM_SECOND);
    ck_assert_uint_eq(sim_world_jobs_waiting(world), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(jobs[i].done, 1);
        ck_assert_int_eq(sim_disk_size(disk, names[i]), 5);
    }
    ck_assert_int_eq(in_calls_max, 4); /* WAL, two of READ, BACKGROUND */
    ck_assert_int_gt(interrupted, 0);
    l->ops->timer_free(l->self, ticker);
    ck_assert_uint_eq(sim_world_open_files(world), 0);
    finish();
}
END_TEST

static int64_t nap(chronik_job *job) {
    io_job *j = CNK_CONTAINER(job, io_job, job);
    return ++j->steps < j->steps_wanted ? j->delay_ns : CHRONIK_JOB_DONE;
}

START_TEST(delayed_jobs_hold_nobody_up) {
    start(6, NULL);
    const chronik_loop *l = sim_world_loop(world, 0);
    io_job slow = {.job = {.step = nap}, .steps_wanted = 2, .delay_ns = (int64_t)(100 * SIM_SECOND)};
    io_job quick = {.job = {.loop = l, .step = nap, .done = io_done}, .steps_wanted = 3, .delay_ns = 1000};
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &slow.job);
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &quick.job);
    sim_world_run(world, SIM_SECOND);
    ck_assert_int_eq(quick.done, 1);
    ck_assert_int_eq(slow.steps, 1);
    sim_world_run(world, 100 * SIM_SECOND);
    ck_assert_int_eq(slow.steps, 2);
    finish();
}
END_TEST

/* A job without `done` whose memory goes away, or that is submitted again, in its last step. */
static int64_t vanish(chronik_job *job) {
    free(CNK_CONTAINER(job, io_job, job));
    return CHRONIK_JOB_DONE;
}

static int64_t resubmit(chronik_job *job) {
    io_job *j = CNK_CONTAINER(job, io_job, job);
    if (++j->steps < 10)
        io->jobs_ops->submit(io->jobs, CHRONIK_LANE_BACKGROUND, job);
    return CHRONIK_JOB_DONE;
}

START_TEST(a_job_without_done_is_free_at_once) {
    start(7, NULL);
    io_job *gone = calloc(1, sizeof *gone), again = {.job = {.step = resubmit}};
    gone->job.step = vanish;
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_READ, &gone->job);
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_BACKGROUND, &again.job);
    sim_world_run(world, SIM_SECOND);
    ck_assert_int_eq(again.steps, 10);
    ck_assert_uint_eq(sim_world_jobs_waiting(world), 0);
    finish();
}
END_TEST

/* ---- calls and faults ------------------------------------------------------------------------------------------- */

START_TEST(calls_have_labels_and_errors_have_texts) {
    sim_coverage *coverage = sim_coverage_new();
    start(8, &(sim_world_options){.loops = 1, .read_threads = 1, .coverage = coverage});
    ck_assert_int_eq(d->mkdir(io->disk, "data", NULL), 0);
    chronik_file *file = open_ok("data/000012.wal", BUFFERED);
    ck_assert_str_eq(sim_world_last_call(world), "create data/#.wal");
    ck_assert_uint_eq(sim_world_calls(world), 2);
    sim_world_fail_next(world, SIM_SYNC, ".wal", CHRONIK_EIO);
    struct iovec iov = {(char[]){"x"}, 1};
    ck_assert_int_eq(d->write(io->disk, file, &iov, 1, 0, NULL), 0);
    chronik_error error = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(d->sync(io->disk, file, &error), CHRONIK_EIO);
    ck_assert_ptr_nonnull(strstr(error.text, "data/000012.wal"));
    ck_assert_int_eq(error.code, CHRONIK_EIO);
    ck_assert_int_eq(d->sync(io->disk, file, &error), 0); /* the lie */
    ck_assert_uint_eq(sim_world_faults_hit(world), 1);
    sim_world_fail_in(world, 2, CHRONIK_ENOSPC);
    ck_assert_int_eq(d->allocate(io->disk, file, 4096, &error), 0);
    ck_assert_int_eq(d->allocate(io->disk, file, 8192, &error), CHRONIK_ENOSPC);
    uint64_t size = 0;
    ck_assert_int_eq(d->size_get(io->disk, file, &error, &size), 0);
    ck_assert_uint_eq(size, 4096);
    d->close(io->disk, file);
    d->close(io->disk, NULL);
    chronik_disk_space space = {0};
    ck_assert_int_eq(d->space(io->disk, "data", &error, &space), 0);
    ck_assert_uint_eq(space.total_bytes, UINT64_C(256) << 20);
    ck_assert_uint_eq(space.usable_bytes, (UINT64_C(256) << 20) - 4096);
    ck_assert_int_eq(d->unlink(io->disk, "data/nothing", &error), CHRONIK_ENOTFOUND);
    finish();
    sim_coverage *sum = sim_coverage_new();
    sim_coverage_merge(sum, coverage);
    sim_coverage_merge(sum, coverage);
    ck_assert_uint_eq(sim_coverage_crashes(sum), 0);
    sim_coverage_free(sum);
    sim_coverage_free(coverage);
}
END_TEST

START_TEST(paths_have_classes) {
    static const char *const pairs[][2] = {{"/a/b/data/wal/000017.wal", "wal/#.wal"},
                                           {"wal", "wal"},
                                           {"x/wal-00ff12ab3.tmp", "x/wal-#.tmp"},
                                           {"x/deadbeefcafe", "x/deadbeefcafe"},
                                           {"data/packs", "data/packs"},
                                           {"p/1-2.pack", "p/#-#.pack"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char class[64];
        sim_path_class(pairs[i][0], class, sizeof class);
        ck_assert_str_eq(class, pairs[i][1]);
    }
    char tight[6];
    sim_path_class("abc/defgh", tight, sizeof tight);
    ck_assert_str_eq(tight, "abc/d");
}
END_TEST

START_TEST(direct_handles_want_alignment) {
    start(9, NULL);
    chronik_file *file = open_ok("f", BUFFERED | CHRONIK_OPEN_DIRECT);
    static _Alignas(4096) uint8_t page[2 * 4096];
    struct iovec good = {page, 4096}, odd = {page + 8, 4096}, ragged = {page, 100};
    ck_assert_int_eq(d->write(io->disk, file, &good, 1, 4096, NULL), 0);
    ck_assert_int_eq(d->write(io->disk, file, &odd, 1, 0, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->write(io->disk, file, &ragged, 1, 0, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->write(io->disk, file, &good, 1, 512, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->read(io->disk, file, page, 4096, 4096, NULL), 4096);
    ck_assert_int_eq(d->read(io->disk, file, page, 100, 4096, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->read_cached(io->disk, file, page, 4096, 0), CHRONIK_EAGAIN);
    d->close(io->disk, file);
    file = open_ok("f", CHRONIK_OPEN_READ);
    ck_assert_int_eq(d->write(io->disk, file, &good, 1, 0, NULL), CHRONIK_EIO); /* opened for reading */
    int64_t n = 0, cached = 0, refused = 0;
    for (int i = 0; i < 50; i++) {
        n = d->read_cached(io->disk, file, page, 4096, 0);
        cached += n > 0;
        refused += n == CHRONIK_EAGAIN;
    }
    ck_assert_int_gt(cached, 0);
    ck_assert_int_gt(refused, 0);
    d->forget(io->disk, file, 0, 8192);
    d->close(io->disk, file);
    finish();
}
END_TEST

static int count_name(void *arg, const char *name) {
    (void)name;
    ++*(int *)arg;
    return 0;
}

static int stop_at_name(void *arg, const char *name) {
    (void)arg;
    (void)name;
    return -5;
}

START_TEST(the_dead_do_nothing) {
    start(10, NULL);
    chronik_file *file = open_ok("f", BUFFERED), *lock = NULL, *second = NULL;
    ck_assert_int_eq(d->lock(io->disk, "lock", NULL, &lock), 0);
    ck_assert_int_eq(d->lock(io->disk, "lock", NULL, &second), CHRONIK_EBUSY);
    ck_assert_ptr_null(second);
    int names = 0;
    ck_assert_int_eq(d->list(io->disk, "/", count_name, &names, NULL), 0);
    ck_assert_int_eq(names, 2);
    ck_assert_int_eq(d->list(io->disk, "/", stop_at_name, NULL, NULL), -5);
    ck_assert_int_eq(d->truncate(io->disk, file, 100, NULL), 0);
    sim_world_crash_in(world, 2);
    ck_assert_int_eq(d->sync(io->disk, file, NULL), 0);
    struct iovec iov = {(char[]){"x"}, 1};
    ck_assert_int_eq(d->write(io->disk, file, &iov, 1, 0, NULL), CHRONIK_EIO);
    ck_assert(sim_world_dead(world));
    ck_assert_str_eq(sim_world_crash_point(world), "write f");
    uint64_t calls = sim_world_calls(world);
    ck_assert_int_eq(d->unlink(io->disk, "f", NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->rename(io->disk, "f", "g", NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->mkdir(io->disk, "m", NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->list(io->disk, "/", count_name, &names, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->open(io->disk, "n", BUFFERED, NULL, &second), CHRONIK_EIO);
    char byte;
    ck_assert_int_eq(d->read(io->disk, file, &byte, 1, 0, NULL), CHRONIK_EIO);
    ck_assert_int_eq(d->read_cached(io->disk, file, &byte, 1, 0), CHRONIK_EAGAIN);
    ck_assert_uint_eq(sim_world_calls(world), calls);
    ck_assert(!sim_world_step(world));
    d->close(io->disk, lock);
    sim_world_free(world); /* with a handle open */
    ck_assert(sim_disk_exists(disk, "f") && !sim_disk_exists(disk, "g") && !sim_disk_exists(disk, "m"));
    sim_disk_crash(disk, SIM_CRASH_PROCESS);
    world = sim_world_new(disk, NULL);
    io = sim_world_io(world);
    ck_assert_int_eq(d->lock(io->disk, "lock", NULL, &lock), 0);
    finish();
}
END_TEST

/* A dead node may limp to its end: its jobs report, its loops run, nothing reaches the disk. */
START_TEST(the_dead_may_limp) {
    start(11, NULL);
    const chronik_loop *l = sim_world_loop(world, 0);
    io_job job = {.job = {.loop = l, .step = io_step, .done = io_done}, .path = "f", .c = 'x', .steps_wanted = 4};
    in_calls = 0;
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &job.job);
    sim_world_crash_in(world, 5); /* in the second step */
    sim_world_run(world, SIM_SECOND);
    ck_assert(sim_world_dead(world));
    ck_assert_int_eq(job.steps, 2); /* the step went on to its end */
    ck_assert_int_eq(job.done, 0);
    ck_assert_uint_eq(sim_world_open_files(world), 0);
    sim_world_limp(world);
    sim_world_run(world, SIM_SECOND);
    ck_assert_int_eq(job.done, 1);
    ck_assert_int_le(sim_disk_size(disk, "f"), 2);
    finish();
}
END_TEST

START_TEST(kill_interrupts_steps) {
    int torn = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        start(seed, NULL);
        io_job jobs[3];
        static const char *const names[] = {"a", "b", "c"};
        in_calls = 0;
        for (unsigned i = 0; i < 3; i++) {
            jobs[i] = (io_job){.job = {.step = io_step}, .path = names[i], .c = 'x', .steps_wanted = 1000};
            io->jobs_ops->submit(io->jobs, i, &jobs[i].job);
        }
        for (int i = 0; i < 40; i++)
            ck_assert(sim_world_step(world));
        torn += in_calls > 0;
        sim_world_kill(world);
        ck_assert_int_eq(in_calls, 0);
        ck_assert_uint_eq(sim_world_open_files(world), 0);
        finish();
    }
    ck_assert_int_gt(torn, 10);
}
END_TEST

START_TEST(entropy_differs_between_boots_and_repeats_with_the_seed) {
    uint8_t bytes[2][2][16];
    for (int run = 0; run < 2; run++) {
        disk = sim_disk_new(12, NULL);
        for (int boot = 0; boot < 2; boot++) {
            world = sim_world_new(disk, NULL);
            io = sim_world_io(world);
            io->entropy(io->entropy_self, bytes[run][boot], 16);
            sim_world_free(world);
        }
        sim_disk_free(disk);
    }
    ck_assert_mem_eq(bytes[0], bytes[1], sizeof bytes[0]);
    ck_assert_mem_ne(bytes[0][0], bytes[0][1], 16);
}
END_TEST

/* ---- a toy log: records of 512 bytes, appended, synced, acknowledged --------------------------------------------- */

typedef enum toy_bug { BUG_NONE, BUG_ACK_BEFORE_SYNC, BUG_NO_DIR_SYNC, BUG_RETRY_SYNC, BUG_TRUST_TAIL, BUG_TRUST_CACHE, BUG_COUNT } toy_bug;

enum { RECORD = 512, TOY_MAX = 400 };

typedef struct toy {
    chronik_job job;
    toy_bug bug;
    chronik_file *file;
    uint8_t record[RECORD];
    int written;          /* records in the file */
    int acked, acked_now; /* by earlier lives and this one; by the step */
    bool broken;
} toy;

static void toy_record(uint8_t record[RECORD], int number) { memset(record, 1 + number % 250, RECORD); }

static int64_t toy_step(chronik_job *job) {
    toy *t = CNK_CONTAINER(job, toy, job);
    toy_record(t->record, t->written);
    struct iovec iov = {t->record, RECORD};
    if (d->write(io->disk, t->file, &iov, 1, (uint64_t)t->written * RECORD, NULL) < 0)
        t->broken = true;
    if (!t->broken && t->bug == BUG_ACK_BEFORE_SYNC && !sim_world_dead(world))
        t->acked = t->written + 1;
    if (!t->broken && d->sync(io->disk, t->file, NULL) < 0)
        t->broken = t->bug != BUG_RETRY_SYNC || d->sync(io->disk, t->file, NULL) < 0;
    if (t->broken)
        return CHRONIK_JOB_DONE; /* fenced for ever */
    t->written++;
    if (!sim_world_dead(world))
        t->acked = t->written;
    return t->written < TOY_MAX ? 0 : CHRONIK_JOB_DONE;
}

/* Opens or makes the log, and finds its end. false: the world died, or a call failed. */
static bool toy_open(toy *t) {
    bool fresh = !sim_disk_exists(disk, "log");
    t->broken = false;
    t->file = NULL;
    t->written = 0;
    if (d->open(io->disk, "log", BUFFERED, NULL, &t->file) < 0)
        return false;
    if (fresh && t->bug != BUG_NO_DIR_SYNC && d->sync_dir(io->disk, "/", NULL) < 0)
        return false;
    if (t->bug != BUG_TRUST_CACHE) /* a sync of an earlier life may have failed: then the page cache lies */
        d->forget(io->disk, t->file, 0, UINT64_MAX);
    uint8_t want[RECORD];
    for (;; t->written++) {
        int64_t n = d->read(io->disk, t->file, t->record, RECORD, (uint64_t)t->written * RECORD, NULL);
        if (n < 0)
            return false;
        toy_record(want, t->written);
        if (n < RECORD || memcmp(want, t->record, RECORD) != 0)
            break;
    }
    /* What is found is served, which is as good as an acknowledgement: so it is synced, and its name is, first. */
    if (t->bug != BUG_TRUST_TAIL &&
        (d->sync(io->disk, t->file, NULL) < 0 || (t->bug != BUG_NO_DIR_SYNC && d->sync_dir(io->disk, "/", NULL) < 0)))
        return false;
    return true;
}

/* One seed: several lives and deaths. false: something acknowledged or served is gone. */
static bool toy_seed(uint64_t seed, toy_bug bug, sim_coverage *coverage, uint64_t *ret_hash, uint64_t *ret_calls) {
    cnk_rng rng;
    cnk_rng_seed(&rng, seed);
    disk = sim_disk_new(seed, NULL);
    toy t = {.bug = bug};
    bool good = true;
    for (int life = 0; life < 6 && good; life++) {
        sim_world_options options = SIM_WORLD_OPTIONS_INIT;
        options.coverage = coverage;
        world = sim_world_new(disk, &options);
        io = sim_world_io(world);
        d = io->disk_ops;
        sim_world_crash_in(world, 1 + cnk_rng_below(&rng, 60));
        if (cnk_rng_chance(&rng, 1, 3))
            sim_world_fail_in(world, 1 + cnk_rng_below(&rng, 60), CHRONIK_EIO);
        if (toy_open(&t)) {
            if (t.written < t.acked)
                good = false;
            t.acked = t.written;
            t.job = (chronik_job){.step = toy_step};
            io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &t.job);
            sim_world_run(world, SIM_SECOND);
        }
        *ret_calls += sim_world_calls(world);
        if (!sim_world_dead(world))
            sim_world_kill(world);
        sim_world_free(world);
        sim_disk_crash(disk, cnk_rng_chance(&rng, 1, 2) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
    }
    *ret_hash = sim_disk_hash(disk);
    sim_disk_free(disk);
    return good;
}

static void count_label(void *arg, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures) {
    (void)failures;
    int *covered = arg;
    static const char *const points[] = {"create log", "read log", "write log", "sync log", "sync-dir /", "open log"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        *covered += strcmp(label, points[i]) == 0 && calls > 0 && crashes > 0;
}

START_TEST(a_correct_toy_log_loses_nothing) {
    sim_coverage *coverage = sim_coverage_new();
    uint64_t calls = 0, hash;
    for (uint64_t seed = 0; seed < 1500; seed++)
        if (!toy_seed(seed, BUG_NONE, coverage, &hash, &calls))
            ck_abort_msg("seed %d loses an acknowledged record", (int)seed);
    int covered = 0;
    sim_coverage_each(coverage, count_label, &covered);
    ck_assert_int_eq(covered, 6);
    ck_assert_uint_gt(calls, 100000);
    sim_coverage_free(coverage);
}
END_TEST

START_TEST(each_bug_of_the_toy_log_is_found) {
    for (toy_bug bug = BUG_ACK_BEFORE_SYNC; bug < BUG_COUNT; bug++) {
        uint64_t seed = 0, calls = 0, hash;
        while (seed < 5000 && toy_seed(seed, bug, NULL, &hash, &calls))
            seed++;
        ck_assert_msg(seed < 5000, "bug %d is not found", (int)bug);
    }
}
END_TEST

START_TEST(the_same_seed_gives_the_same_run) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        uint64_t a, b, c, calls = 0;
        toy_seed(seed, BUG_NONE, NULL, &a, &calls);
        toy_seed(seed, BUG_NONE, NULL, &b, &calls);
        toy_seed(seed + 1, BUG_NONE, NULL, &c, &calls);
        ck_assert_uint_eq(a, b);
        ck_assert_uint_ne(a, c);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("io_sim");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, each_senders_order_is_kept_and_the_mixture_varies);
    tcase_add_test(t, loops_talk_to_each_other);
    tcase_add_test(t, deferred_runs_after_the_turn);
    tcase_add_test(t, timers_fire_in_order_of_virtual_time);
    tcase_add_test(t, steps_are_interrupted_in_their_calls);
    tcase_add_test(t, delayed_jobs_hold_nobody_up);
    tcase_add_test(t, a_job_without_done_is_free_at_once);
    tcase_add_test(t, calls_have_labels_and_errors_have_texts);
    tcase_add_test(t, paths_have_classes);
    tcase_add_test(t, direct_handles_want_alignment);
    tcase_add_test(t, the_dead_do_nothing);
    tcase_add_test(t, the_dead_may_limp);
    tcase_add_test(t, kill_interrupts_steps);
    tcase_add_test(t, entropy_differs_between_boots_and_repeats_with_the_seed);
    tcase_add_test(t, a_correct_toy_log_loses_nothing);
    tcase_add_test(t, each_bug_of_the_toy_log_is_found);
    tcase_add_test(t, the_same_seed_gives_the_same_run);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
