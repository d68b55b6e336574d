/* A shard's loop on libevent.
 *
 * Turns. Everything that happens between two waits for events is one turn:
 *
 *     wait ─► socket events, timers ─► posted messages ─► deferred messages ─► wait
 *
 * The first callback of a turn makes `turn_end` active; libevent appends it to the queue of active events, so it runs
 * after all that are at hand. It takes what has been posted and deferred until then, once; what these add is left to the
 * next turn, which starts at once (a timer of 0) but polls the sockets first: nobody starves.
 *
 * Posting from other threads is a push to a lock-free stack; the loop takes the whole stack and reverses it, which keeps
 * each sender's order. The kernel is asked to wake the loop only where it sleeps:
 *
 *     AWAKE ──(turn_end, no more work)──► ASLEEP ──(first post)──► NOTIFIED ──(any callback)──► AWAKE
 *                                            └───────────(any callback)───────────────────────────►
 *
 * Before it sleeps the loop stores ASLEEP, then looks at the stack; a sender pushes, then looks at the state; both in
 * sequentially consistent order, so one of them sees the other.
 *
 * Timers are an intrusive binary heap over one libevent timer, which is armed for the first deadline at most; moving a
 * timer to a later time costs no call to libevent, only perhaps one wake-up too early.
 *
 * Owner: the thread that runs the base. Only `post` and `stop` may be called from others. */
#include "io/event.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#include <chronik/io_event.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "io/posix.h"

enum { AWAKE, ASLEEP, NOTIFIED };

#define NO_PLACE SIZE_MAX

struct chronik_timer {
    uint64_t at_ns;
    size_t place; /* in the heap, or NO_PLACE */
    void (*fire)(void *arg);
    void *arg;
};

/* Two libevent events, so that the write side comes and goes without touching the read side. */
struct chronik_watch {
    cnk_event_loop *loop;
    struct event read, write;
    unsigned events;
    void (*ready)(void *arg, unsigned events);
    void *arg;
};

struct cnk_event_loop {
    chronik_loop handle;
    struct event_base *base;
    bool base_owned, stopping;
    int wake_read, wake_write; /* one eventfd, or a pipe's ends */

    struct event wake_event;  /* wake_read is readable */
    struct event turn_end;    /* made active by the first callback of a turn */
    struct event again_event; /* timer of 0: another turn, after a poll */
    struct event timer_event;
    uint64_t armed_ns;  /* what timer_event is armed for; UINT64_MAX: nothing */
    uint64_t firing_ns; /* while timers fire: those due until then; else 0 */

    chronik_post *deferred, **deferred_end;
    chronik_timer **heap;
    size_t heap_count, heap_capacity, timer_count;

    chronik_post stop_post;
    _Atomic(bool) stop_posted;
    _Atomic(chronik_post *) posted; /* newest first */
    _Atomic(int) state;
    _Atomic(unsigned) posters; /* threads within `post` */
};

static const chronik_loop_ops loop_ops;

static int wake_open(cnk_event_loop *loop);
static void on_wake(evutil_socket_t fd, short what, void *arg);
static void on_turn_end(evutil_socket_t fd, short what, void *arg);
static void on_again(evutil_socket_t fd, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);
static void on_watch(evutil_socket_t fd, short what, void *arg);
static void on_stop(chronik_post *post);
static void loop_post(void *self, chronik_post *post);

/* ---- life ------------------------------------------------------------------------------------------------------- */

static struct event_base *base_new(void) {
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    struct event_base *base = NULL;
    if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
        base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

int cnk_event_loop_new(struct event_base *base, chronik_error *err, cnk_event_loop **ret_loop) {
    int rc = 0;
    cnk_event_loop *loop = cnk_calloc(1, sizeof *loop);
    if (!loop)
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a loop");
    loop->handle = (chronik_loop){&loop_ops, loop};
    loop->wake_read = loop->wake_write = -1;
    loop->armed_ns = UINT64_MAX;
    loop->deferred_end = &loop->deferred;
    loop->stop_post.run = on_stop;
    atomic_init(&loop->state, ASLEEP);
    loop->base = base ? base : base_new();
    loop->base_owned = !base;
    if (!loop->base) {
        rc = cnk_error(err, CHRONIK_ENOMEM, 0, "cannot make a libevent base");
        goto out;
    }
    if (wake_open(loop) != 0) {
        rc = cnk_error(err, cnk_error_from_errno(errno), errno, "cannot make a loop's wake-up descriptor");
        goto out;
    }
    event_assign(&loop->wake_event, loop->base, loop->wake_read, EV_READ | EV_PERSIST, on_wake, loop);
    event_assign(&loop->turn_end, loop->base, -1, 0, on_turn_end, loop);
    event_assign(&loop->again_event, loop->base, -1, 0, on_again, loop);
    event_assign(&loop->timer_event, loop->base, -1, 0, on_timer, loop);
    if (event_add(&loop->wake_event, NULL) != 0) {
        rc = cnk_error(err, CHRONIK_ENOMEM, 0, "libevent refuses a loop's wake-up descriptor");
        goto out;
    }
    *ret_loop = loop;
    loop = NULL;
out:
    cnk_event_loop_free(loop);
    return rc;
}

const chronik_loop *cnk_event_loop_get(cnk_event_loop *loop) { return &loop->handle; }

void cnk_event_loop_run(cnk_event_loop *loop) {
    /* The wake event is always there, so the base runs until on_stop breaks it. */
    loop->stopping = false;
    int rc = event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
    CNK_ASSERT(rc == 0); /* the poll itself failed: a closed epoll descriptor, say */
}

void cnk_event_loop_stop(cnk_event_loop *loop) {
    if (!atomic_exchange(&loop->stop_posted, true))
        loop_post(loop, &loop->stop_post);
}

void cnk_event_loop_free(cnk_event_loop *loop) {
    if (!loop)
        return;
    /* A sender may have had its message run, and its loop stopped, before it is out of `post`. */
    while (atomic_load(&loop->posters) != 0)
        sched_yield();
    CNK_ASSERT(loop->timer_count == 0);
    if (loop->base) {
        if (loop->wake_event.ev_base)
            event_del(&loop->wake_event);
        if (loop->turn_end.ev_base)
            event_del(&loop->turn_end);
        if (loop->again_event.ev_base)
            event_del(&loop->again_event);
        if (loop->timer_event.ev_base)
            event_del(&loop->timer_event);
        if (loop->base_owned)
            event_base_free(loop->base);
    }
    if (loop->wake_read >= 0)
        close(loop->wake_read);
    if (loop->wake_write >= 0 && loop->wake_write != loop->wake_read)
        close(loop->wake_write);
    cnk_free(loop->heap);
    cnk_free(loop);
}

int chronik_io_event_new(struct event_base *base, chronik_error *err, chronik_io_event **ret_event) {
    if (!base)
        return cnk_error(err, CHRONIK_EINVAL, 0, "chronik_io_event_new needs an event_base");
    cnk_event_loop *loop = NULL;
    int rc = cnk_event_loop_new(base, err, &loop);
    if (rc == 0)
        *ret_event = (chronik_io_event *)(void *)loop;
    return rc;
}

const chronik_loop *chronik_io_event_loop(chronik_io_event *event) {
    return cnk_event_loop_get((cnk_event_loop *)(void *)event);
}

void chronik_io_event_free(chronik_io_event *event) { cnk_event_loop_free((cnk_event_loop *)(void *)event); }

/* ---- turns ------------------------------------------------------------------------------------------------------ */

/* Entry of every callback: the turn begins here, unless it has. */
static void turn_begin(cnk_event_loop *loop) {
    if (atomic_load_explicit(&loop->state, memory_order_relaxed) == AWAKE)
        return;
    atomic_store(&loop->state, AWAKE);
    event_active(&loop->turn_end, EV_TIMEOUT, 1);
}

static void run_posted(cnk_event_loop *loop) {
    chronik_post *newest = atomic_exchange(&loop->posted, NULL), *oldest = NULL;
    while (newest) {
        chronik_post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        chronik_post *post = oldest;
        oldest = post->next; /* `run` may free the message, or send it again */
        post->run(post);
    }
}

static void run_deferred(cnk_event_loop *loop) {
    chronik_post *list = loop->deferred;
    loop->deferred = NULL;
    loop->deferred_end = &loop->deferred;
    while (list) {
        chronik_post *post = list;
        list = post->next;
        post->run(post);
    }
}

static void turn_finish(cnk_event_loop *loop) {
    run_posted(loop);
    run_deferred(loop);
    bool more = loop->deferred != NULL;
    if (!more) {
        atomic_store(&loop->state, ASLEEP);
        more = atomic_load(&loop->posted) != NULL;
    }
    if (more) {
        /* Awake through the next poll, which does not wait because of this timer. */
        atomic_store(&loop->state, AWAKE);
        int rc = event_add(&loop->again_event, &(struct timeval){0, 0});
        CNK_ASSERT(rc == 0);
    }
    if (loop->stopping)
        event_base_loopbreak(loop->base);
}

static void on_turn_end(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    turn_finish(arg);
}

static void on_again(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    turn_finish(arg);
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void loop_post(void *self, chronik_post *post) {
    cnk_event_loop *loop = self;
    atomic_fetch_add(&loop->posters, 1);
    chronik_post *top = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do
        post->next = top;
    while (!atomic_compare_exchange_weak(&loop->posted, &top, post));
    int asleep = ASLEEP;
    if (atomic_load(&loop->state) == ASLEEP && atomic_compare_exchange_strong(&loop->state, &asleep, NOTIFIED)) {
        uint64_t one = 1;
        ssize_t n;
        do
            n = write(loop->wake_write, &one, sizeof one);
        while (n < 0 && errno == EINTR);
        CNK_ASSERT(n > 0 || errno == EAGAIN); /* EAGAIN: full, so readable */
    }
    atomic_fetch_sub(&loop->posters, 1);
}

static void loop_defer(void *self, chronik_post *post) {
    cnk_event_loop *loop = self;
    post->next = NULL;
    *loop->deferred_end = post;
    loop->deferred_end = &post->next;
    turn_begin(loop); /* for a call from outside of the loop's callbacks */
}

static void on_stop(chronik_post *post) {
    cnk_event_loop *loop = (cnk_event_loop *)(void *)((char *)post - offsetof(cnk_event_loop, stop_post));
    loop->stopping = true;
    atomic_store(&loop->stop_posted, false);
}

static int wake_open(cnk_event_loop *loop) {
#ifdef __linux__
    loop->wake_read = loop->wake_write = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return loop->wake_read < 0 ? -1 : 0;
#else
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    loop->wake_read = ends[0];
    loop->wake_write = ends[1];
    for (int i = 0; i < 2; i++)
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) != 0 || fcntl(ends[i], F_SETFL, O_NONBLOCK) != 0)
            return -1;
    return 0;
#endif
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    cnk_event_loop *loop = arg;
    turn_begin(loop);
    uint64_t room[8];
    while (read(fd, room, sizeof room) < 0 && errno == EINTR)
        ;
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static uint64_t loop_now_ns(void *self) {
    (void)self;
    return cnk_posix_now_ns();
}

static int64_t loop_wall_ms(void *self) {
    (void)self;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void heap_put(cnk_event_loop *loop, size_t place, chronik_timer *timer) {
    loop->heap[place] = timer;
    timer->place = place;
}

static void heap_up(cnk_event_loop *loop, size_t place) {
    chronik_timer *timer = loop->heap[place];
    while (place > 0 && loop->heap[(place - 1) / 2]->at_ns > timer->at_ns) {
        heap_put(loop, place, loop->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_put(loop, place, timer);
}

static void heap_down(cnk_event_loop *loop, size_t place) {
    chronik_timer *timer = loop->heap[place];
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= loop->heap_count)
            break;
        if (child + 1 < loop->heap_count && loop->heap[child + 1]->at_ns < loop->heap[child]->at_ns)
            child++;
        if (loop->heap[child]->at_ns >= timer->at_ns)
            break;
        heap_put(loop, place, loop->heap[child]);
        place = child;
    }
    heap_put(loop, place, timer);
}

static void heap_remove(cnk_event_loop *loop, chronik_timer *timer) {
    size_t place = timer->place;
    if (place == NO_PLACE)
        return;
    timer->place = NO_PLACE;
    chronik_timer *last = loop->heap[--loop->heap_count];
    if (last == timer)
        return;
    heap_put(loop, place, last);
    heap_up(loop, place);
    heap_down(loop, last->place);
}

/* Sees to it that timer_event fires no later than the first deadline. */
static void timer_arm(cnk_event_loop *loop) {
    if (loop->heap_count == 0 || loop->armed_ns <= loop->heap[0]->at_ns)
        return;
    uint64_t at_ns = loop->heap[0]->at_ns, now = cnk_posix_now_ns();
    uint64_t wait_us = at_ns > now ? (at_ns - now + 999) / 1000 : 0;
    struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
    int rc = event_add(&loop->timer_event, &wait);
    CNK_ASSERT(rc == 0);
    loop->armed_ns = at_ns;
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    cnk_event_loop *loop = arg;
    turn_begin(loop);
    loop->armed_ns = UINT64_MAX;
    loop->firing_ns = cnk_posix_now_ns();
    while (loop->heap_count > 0 && loop->heap[0]->at_ns <= loop->firing_ns) {
        chronik_timer *timer = loop->heap[0];
        heap_remove(loop, timer);
        timer->fire(timer->arg); /* may free it */
    }
    loop->firing_ns = 0;
    timer_arm(loop);
}

static int loop_timer_new(void *self, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer) {
    cnk_event_loop *loop = self;
    /* Room for every timer in the heap, so that timer_set cannot fail. */
    void *heap = loop->heap;
    int rc = cnk_array_reserve(&heap, &loop->heap_capacity, loop->timer_count + 1, sizeof *loop->heap);
    loop->heap = heap;
    if (rc < 0)
        return rc;
    chronik_timer *timer = cnk_malloc(sizeof *timer);
    if (!timer)
        return CHRONIK_ENOMEM;
    *timer = (chronik_timer){.at_ns = UINT64_MAX, .place = NO_PLACE, .fire = fire, .arg = arg};
    loop->timer_count++;
    *ret_timer = timer;
    return 0;
}

static void loop_timer_set(void *self, chronik_timer *timer, uint64_t at_ns) {
    cnk_event_loop *loop = self;
    if (at_ns == UINT64_MAX) {
        heap_remove(loop, timer);
        if (loop->heap_count == 0 && loop->armed_ns != UINT64_MAX) {
            event_del(&loop->timer_event);
            loop->armed_ns = UINT64_MAX;
        }
        return;
    }
    /* One that is set to the past while timers fire waits for the next turn, or it would fire for ever. */
    timer->at_ns = at_ns > loop->firing_ns ? at_ns : loop->firing_ns + 1;
    if (timer->place == NO_PLACE) {
        heap_put(loop, loop->heap_count, timer);
        loop->heap_count++;
    }
    heap_up(loop, timer->place);
    heap_down(loop, timer->place);
    if (loop->firing_ns == 0)
        timer_arm(loop);
}

static void loop_timer_free(void *self, chronik_timer *timer) {
    cnk_event_loop *loop = self;
    if (!timer)
        return;
    loop_timer_set(self, timer, UINT64_MAX);
    loop->timer_count--;
    cnk_free(timer);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

static int loop_watch_new(void *self, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                          chronik_watch **ret_watch) {
    cnk_event_loop *loop = self;
    chronik_watch *watch = cnk_calloc(1, sizeof *watch);
    if (!watch)
        return CHRONIK_ENOMEM;
    watch->loop = loop;
    watch->ready = ready;
    watch->arg = arg;
    event_assign(&watch->read, loop->base, fd, EV_READ | EV_PERSIST, on_watch, watch);
    event_assign(&watch->write, loop->base, fd, EV_WRITE | EV_PERSIST, on_watch, watch);
    *ret_watch = watch;
    return 0;
}

static void watch_side(struct event *side, bool was, bool wanted) {
    if (was == wanted)
        return;
    int rc = wanted ? event_add(side, NULL) : event_del(side);
    CNK_ASSERT(rc == 0);
}

static void loop_watch_set(void *self, chronik_watch *watch, unsigned events) {
    (void)self;
    watch_side(&watch->read, watch->events & CHRONIK_WATCH_READ, events & CHRONIK_WATCH_READ);
    watch_side(&watch->write, watch->events & CHRONIK_WATCH_WRITE, events & CHRONIK_WATCH_WRITE);
    watch->events = events;
}

static void loop_watch_free(void *self, chronik_watch *watch) {
    if (!watch)
        return;
    loop_watch_set(self, watch, 0);
    cnk_free(watch);
}

static void on_watch(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    chronik_watch *watch = arg;
    turn_begin(watch->loop);
    watch->ready(watch->arg, (what & EV_READ) ? CHRONIK_WATCH_READ : CHRONIK_WATCH_WRITE); /* may free it */
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
