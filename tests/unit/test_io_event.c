/* The libevent loop: turns, messages, timers, descriptors. */
#include <check.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chronik/io_event.h>

#include "base/list.h"
#include "base/mem.h"
#include "io/event.h"

static cnk_event_loop *loop;
static const chronik_loop *l;
static char trace[256]; /* what happened, one letter each */

static void setup(void) {
    chronik_error error = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    l = cnk_event_loop_get(loop);
    trace[0] = '\0';
}

static void teardown(void) { cnk_event_loop_free(loop); }

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
    int times;
    void (*also)(struct letter *letter);
} letter;

static void letter_run(chronik_post *post) {
    letter *m = CNK_CONTAINER(post, letter, post);
    note(m->c);
    if (m->also)
        m->also(m);
}

static void stop_also(letter *m) {
    (void)m;
    cnk_event_loop_stop(loop);
}

START_TEST(messages_keep_their_order) {
    letter m[5];
    for (int i = 0; i < 5; i++) {
        m[i] = (letter){.post.run = letter_run, .c = (char)('a' + i)};
        l->ops->post(l->self, &m[i].post);
    }
    cnk_event_loop_stop(loop);
    cnk_event_loop_run(loop);
    ck_assert_str_eq(trace, "abcde");
    /* The loop runs again after it has stopped. */
    m[0].also = stop_also;
    l->ops->post(l->self, &m[0].post);
    cnk_event_loop_run(loop);
    ck_assert_str_eq(trace, "abcdea");
}
END_TEST

static void defer_self(letter *m) {
    if (--m->times > 0)
        l->ops->defer(l->self, &m->post);
    else
        cnk_event_loop_stop(loop);
}

static letter deferred;
static int pair[2];

static void readable(void *arg, unsigned events) {
    ck_assert_uint_eq(events, CHRONIK_WATCH_READ);
    char byte;
    ck_assert_int_eq(read(*(int *)arg, &byte, 1), 1);
    note(byte);
}

/* A message that defers itself for ever must not keep sockets from being read. */
START_TEST(deferring_starves_nobody) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    chronik_watch *watch = NULL;
    ck_assert_int_eq(l->ops->watch_new(l->self, pair[0], readable, &pair[0], &watch), 0);
    l->ops->watch_set(l->self, watch, CHRONIK_WATCH_READ);
    deferred = (letter){.post.run = letter_run, .c = '.', .times = 8, .also = defer_self};
    ck_assert_int_eq(write(pair[1], "xyz", 3), 3);
    l->ops->defer(l->self, &deferred.post);
    cnk_event_loop_run(loop);
    const char *z = strchr(trace, 'z');
    ck_assert_msg(z != NULL, "the socket starved: %s", trace);
    ck_assert_msg(strchr(z, '.') != NULL, "all deferred ran before the socket: %s", trace);
    l->ops->watch_free(l->self, watch);
    l->ops->watch_free(l->self, NULL);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

static letter in_batch;

static void readable_defers(void *arg, unsigned events) {
    if (in_batch.times++ == 0)
        l->ops->defer(l->self, &in_batch.post);
    readable(arg, events);
}

/* Two sockets are ready at once; what the first one defers runs after the second one, and before the next wait. */
START_TEST(deferred_runs_after_the_batch) {
    int other[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    chronik_watch *watch[2] = {NULL};
    ck_assert_int_eq(l->ops->watch_new(l->self, pair[0], readable_defers, &pair[0], &watch[0]), 0);
    ck_assert_int_eq(l->ops->watch_new(l->self, other[0], readable_defers, &other[0], &watch[1]), 0);
    for (int i = 0; i < 2; i++)
        l->ops->watch_set(l->self, watch[i], CHRONIK_WATCH_READ);
    in_batch = (letter){.post.run = letter_run, .c = '.', .also = stop_also};
    ck_assert_int_eq(write(pair[1], "x", 1), 1);
    ck_assert_int_eq(write(other[1], "x", 1), 1);
    cnk_event_loop_run(loop);
    ck_assert_str_eq(trace, "xx.");
    for (int i = 0; i < 2; i++) {
        l->ops->watch_free(l->self, watch[i]);
        close(pair[i]);
        close(other[i]);
    }
}
END_TEST

static chronik_watch *self_freed;

static void writable_frees(void *arg, unsigned events) {
    (void)arg;
    ck_assert_uint_eq(events, CHRONIK_WATCH_WRITE);
    note('w');
    l->ops->watch_free(l->self, self_freed);
    cnk_event_loop_stop(loop);
}

START_TEST(a_watch_may_be_freed_in_its_callback) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(l->ops->watch_new(l->self, pair[0], writable_frees, NULL, &self_freed), 0);
    l->ops->watch_set(l->self, self_freed, CHRONIK_WATCH_READ | CHRONIK_WATCH_WRITE);
    l->ops->watch_set(l->self, self_freed, CHRONIK_WATCH_WRITE);
    cnk_event_loop_run(loop);
    ck_assert_str_eq(trace, "w");
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* ---- timers ----------------------------------------------------------------------------------------------------- */

typedef struct ring {
    chronik_timer *timer;
    uint64_t at_ns;
    char c;
    int rings;
} ring;

static int rings_left;
static uint64_t last_ring_ns;

static void ring_fire(void *arg) {
    ring *r = arg;
    ck_assert_uint_ge(l->ops->now_ns(l->self), r->at_ns); /* never early */
    ck_assert_uint_ge(r->at_ns, last_ring_ns);            /* in order */
    last_ring_ns = r->at_ns;
    r->rings++;
    if (--rings_left == 0)
        cnk_event_loop_stop(loop);
}

START_TEST(timers_fire_in_order) {
    enum { TIMERS = 200 };
    static ring r[TIMERS];
    memset(r, 0, sizeof r);
    uint64_t now = l->ops->now_ns(l->self);
    rings_left = 0;
    last_ring_ns = 0;
    for (int i = 0; i < TIMERS; i++) {
        ck_assert_int_eq(l->ops->timer_new(l->self, ring_fire, &r[i], &r[i].timer), 0);
        l->ops->timer_set(l->self, r[i].timer, now + (uint64_t)((i * 7919) % TIMERS) * 10000 + 1);
    }
    for (int i = 0; i < TIMERS; i++) { /* moved, later and earlier, every third one off */
        r[i].at_ns = now + (uint64_t)((i * 104729) % TIMERS) * 20000 + 1;
        l->ops->timer_set(l->self, r[i].timer, i % 3 == 0 ? UINT64_MAX : r[i].at_ns);
        rings_left += i % 3 != 0;
    }
    cnk_event_loop_run(loop);
    for (int i = 0; i < TIMERS; i++) {
        ck_assert_int_eq(r[i].rings, i % 3 != 0);
        l->ops->timer_free(l->self, r[i].timer);
    }
    l->ops->timer_free(l->self, NULL);
}
END_TEST

static chronik_timer *past, *once;

static void past_fire(void *arg) {
    (void)arg;
    note('t');
    l->ops->timer_set(l->self, past, 1);
}

static void once_fire(void *arg) {
    (void)arg;
    note('o');
    l->ops->timer_free(l->self, once);
}

static void stop_after_four(void *arg, unsigned events) {
    readable(arg, events);
    if (strchr(trace, 'd'))
        cnk_event_loop_stop(loop);
}

/* A timer that sets itself to the past for ever leaves room for sockets; another frees itself while firing. */
START_TEST(timers_starve_nobody) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    chronik_watch *watch = NULL;
    ck_assert_int_eq(l->ops->watch_new(l->self, pair[0], stop_after_four, &pair[0], &watch), 0);
    l->ops->watch_set(l->self, watch, CHRONIK_WATCH_READ);
    ck_assert_int_eq(write(pair[1], "abcd", 4), 4);
    ck_assert_int_eq(l->ops->timer_new(l->self, past_fire, NULL, &past), 0);
    ck_assert_int_eq(l->ops->timer_new(l->self, once_fire, NULL, &once), 0);
    l->ops->timer_set(l->self, past, 1);
    l->ops->timer_set(l->self, once, 2);
    cnk_event_loop_run(loop);
    ck_assert_ptr_nonnull(strchr(trace, 't'));
    ck_assert_ptr_nonnull(strchr(trace, 'o'));
    ck_assert_ptr_eq(strchr(trace, 'o'), strrchr(trace, 'o'));
    l->ops->timer_free(l->self, past);
    l->ops->watch_free(l->self, watch);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* ---- posts from other threads ----------------------------------------------------------------------------------- */

enum { SENDERS = 4, ROUNDS = 20000, WINDOW = 16 };

typedef struct sender sender;
typedef struct numbered {
    chronik_post post;
    sender *from;
    int number;
    atomic_bool free;
} numbered;

struct sender {
    pthread_t thread;
    numbered slots[WINDOW];
    int expected;
};

static sender senders[SENDERS];
static int senders_left;

static void numbered_run(chronik_post *post) {
    numbered *m = CNK_CONTAINER(post, numbered, post);
    sender *from = m->from;
    ck_assert_int_eq(m->number, from->expected);
    from->expected++;
    bool last = m->number == ROUNDS - 1;
    atomic_store_explicit(&m->free, true, memory_order_release);
    if (last && --senders_left == 0)
        cnk_event_loop_stop(loop);
}

static void *send_many(void *arg) {
    sender *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        numbered *m = &s->slots[i % WINDOW];
        while (!atomic_load_explicit(&m->free, memory_order_acquire))
            sched_yield();
        atomic_store_explicit(&m->free, false, memory_order_relaxed);
        m->number = i;
        l->ops->post(l->self, &m->post);
    }
    return NULL;
}

START_TEST(no_message_is_lost) {
    memset(senders, 0, sizeof senders);
    senders_left = SENDERS;
    for (int i = 0; i < SENDERS; i++) {
        for (int k = 0; k < WINDOW; k++) {
            senders[i].slots[k].from = &senders[i];
            senders[i].slots[k].post.run = numbered_run;
            atomic_store(&senders[i].slots[k].free, true);
        }
        ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_many, &senders[i]), 0);
    }
    cnk_event_loop_run(loop);
    for (int i = 0; i < SENDERS; i++) {
        ck_assert_int_eq(pthread_join(senders[i].thread, NULL), 0);
        ck_assert_int_eq(senders[i].expected, ROUNDS);
    }
}
END_TEST

/* One message at a time between two sleeping loops: each post must wake. A lost wake-up hangs this test. */
static cnk_event_loop *far;
static letter ball;

static void ball_here(chronik_post *post);

static void ball_there(chronik_post *post) {
    post->run = ball_here;
    l->ops->post(l->self, post);
}

static void ball_here(chronik_post *post) {
    if (--ball.times == 0) {
        cnk_event_loop_stop(far);
        cnk_event_loop_stop(loop);
        return;
    }
    post->run = ball_there;
    const chronik_loop *to = cnk_event_loop_get(far);
    to->ops->post(to->self, post);
}

static void *run_far(void *arg) {
    (void)arg;
    cnk_event_loop_run(far);
    return NULL;
}

START_TEST(each_post_wakes_a_sleeper) {
    ck_assert_int_eq(cnk_event_loop_new(NULL, NULL, &far), 0);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_far, NULL), 0);
    ball = (letter){.post.run = ball_here, .times = 5000};
    l->ops->post(l->self, &ball.post);
    cnk_event_loop_run(loop);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(ball.times, 0);
    cnk_event_loop_free(far);
}
END_TEST

/* The last message lets the loop be freed while its sender may still be within `post`. */
static cnk_event_loop *short_lived;

static void last_run(chronik_post *post) {
    (void)post;
    cnk_event_loop_stop(short_lived);
}

static void *send_last(void *arg) {
    const chronik_loop *to = cnk_event_loop_get(short_lived);
    to->ops->post(to->self, arg);
    return NULL;
}

START_TEST(free_waits_for_senders) {
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(cnk_event_loop_new(NULL, NULL, &short_lived), 0);
        chronik_post last = {NULL, last_run};
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, send_last, &last), 0);
        cnk_event_loop_run(short_lived);
        cnk_event_loop_free(short_lived);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
    }
}
END_TEST

/* ---- a host's base ---------------------------------------------------------------------------------------------- */

static struct event_base *host;
static const chronik_loop *host_loop;
static int host_pings;

static void host_ping(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    (void)arg;
    host_pings++;
    note('h');
}

static void host_stop(letter *m) {
    (void)m;
    event_base_loopexit(host, NULL);
}

START_TEST(a_host_keeps_its_own_base) {
    host = event_base_new();
    chronik_io_event *event = NULL;
    ck_assert_int_eq(chronik_io_event_new(NULL, NULL, &event), CHRONIK_EINVAL);
    ck_assert_int_eq(chronik_io_event_new(host, NULL, &event), 0);
    host_loop = chronik_io_event_loop(event);
    struct event *ping = event_new(host, -1, 0, host_ping, NULL);
    event_active(ping, EV_TIMEOUT, 1);
    letter a = {.post.run = letter_run, .c = 'a'}, b = {.post.run = letter_run, .c = 'b', .also = host_stop};
    host_loop->ops->defer(host_loop->self, &b.post);
    host_loop->ops->post(host_loop->self, &a.post);
    event_base_dispatch(host);
    ck_assert_str_eq(trace, "hab");
    ck_assert_int_eq(host_pings, 1);
    chronik_io_event_free(event);
    chronik_io_event_free(NULL);
    event_free(ping);
    event_base_free(host);
}
END_TEST

START_TEST(clocks_run) {
    uint64_t a = l->ops->now_ns(l->self), b = l->ops->now_ns(l->self);
    ck_assert_uint_le(a, b);
    ck_assert_int_gt(l->ops->wall_ms(l->self), INT64_C(1700000000000));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("io_event");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, messages_keep_their_order);
    tcase_add_test(t, deferring_starves_nobody);
    tcase_add_test(t, deferred_runs_after_the_batch);
    tcase_add_test(t, a_watch_may_be_freed_in_its_callback);
    tcase_add_test(t, timers_fire_in_order);
    tcase_add_test(t, timers_starve_nobody);
    tcase_add_test(t, no_message_is_lost);
    tcase_add_test(t, each_post_wakes_a_sleeper);
    tcase_add_test(t, free_waits_for_senders);
    tcase_add_test(t, a_host_keeps_its_own_base);
    tcase_add_test(t, clocks_run);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
