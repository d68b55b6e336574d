/* A broker on the host's own loop: plain epoll, one thread, no libevent in sight. The program's loop serves Kafka
 * clients and looks into the queue of events, side by side with whatever else the host does.
 *
 *     cc host_loop.c $(pkg-config --cflags --libs chronik) -lpthread && ./a.out DIRECTORY
 *
 * `struct loop` implements chronik_loop_ops: clock, timers, watches of descriptors, messages from other threads, and
 * messages to itself. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <chronik/node.h>
#include <chronik/node_loop.h>

/* ---- a loop ------------------------------------------------------------------------------------------------------ */

struct chronik_timer {
    struct chronik_timer *next;
    void (*fire)(void *arg);
    void *arg;
    uint64_t at_ns; /* UINT64_MAX: off */
};

struct chronik_watch {
    int fd;
    void (*ready)(void *arg, unsigned events);
    void *arg;
    bool added, dead; /* dead: freed while events were being handled */
    struct chronik_watch *next_dead;
};

typedef struct messages {
    chronik_post *first, **end;
} messages;

typedef struct loop {
    chronik_loop as_chronik;
    int epoll, wake;
    chronik_timer *timers; /* few, so a list does */
    chronik_watch *dead;
    messages deferred;
    pthread_mutex_t mutex; /* for posted */
    messages posted;
} loop;

static uint64_t loop_now(void *self) {
    struct timespec t;
    (void)self;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int64_t loop_wall(void *self) {
    struct timespec t;
    (void)self;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int loop_timer_new(void *self, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer) {
    loop *l = self;
    chronik_timer *t = calloc(1, sizeof *t);
    if (!t) return CHRONIK_ENOMEM;
    *t = (chronik_timer){l->timers, fire, arg, UINT64_MAX};
    *ret_timer = l->timers = t;
    return 0;
}

static void loop_timer_set(void *self, chronik_timer *timer, uint64_t at_ns) {
    (void)self;
    timer->at_ns = at_ns;
}

static void loop_timer_free(void *self, chronik_timer *timer) {
    loop *l = self;
    chronik_timer **t = &l->timers;
    while (*t && *t != timer) t = &(*t)->next;
    if (*t) *t = timer->next;
    free(timer);
}

static int loop_watch_new(void *self, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                          chronik_watch **ret_watch) {
    (void)self;
    chronik_watch *w = calloc(1, sizeof *w);
    if (!w) return CHRONIK_ENOMEM;
    w->fd = fd;
    w->ready = ready;
    w->arg = arg;
    *ret_watch = w;
    return 0;
}

static void loop_watch_set(void *self, chronik_watch *w, unsigned events) {
    loop *l = self;
    struct epoll_event e = {.data.ptr = w};
    if (events & CHRONIK_WATCH_READ) e.events |= EPOLLIN;
    if (events & CHRONIK_WATCH_WRITE) e.events |= EPOLLOUT;
    if (!events && w->added) epoll_ctl(l->epoll, EPOLL_CTL_DEL, w->fd, NULL);
    else if (events && epoll_ctl(l->epoll, w->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &e)) abort();
    w->added = events != 0;
}

/* Events for it may be waiting in the array at hand, so its memory stays until the turn's end. */
static void loop_watch_free(void *self, chronik_watch *w) {
    loop *l = self;
    if (!w) return;
    loop_watch_set(l, w, 0);
    w->dead = true;
    w->next_dead = l->dead;
    l->dead = w;
}

static void messages_add(messages *m, chronik_post *post) {
    post->next = NULL;
    *m->end = post;
    m->end = &post->next;
}

static chronik_post *messages_take(messages *m) {
    chronik_post *first = m->first;
    *m = (messages){NULL, &m->first};
    return first;
}

static void messages_run(chronik_post *post) {
    while (post) {
        chronik_post *next = post->next;
        post->run(post); /* may free it, or post it again */
        post = next;
    }
}

static void loop_post(void *self, chronik_post *post) {
    loop *l = self;
    uint64_t one = 1;
    pthread_mutex_lock(&l->mutex);
    bool first = !l->posted.first;
    messages_add(&l->posted, post);
    /* Under the mutex, so that the loop, which takes it too, is not gone meanwhile. */
    if (first && write(l->wake, &one, sizeof one) != sizeof one) abort();
    pthread_mutex_unlock(&l->mutex);
}

static void loop_defer(void *self, chronik_post *post) { messages_add(&((loop *)self)->deferred, post); }

static const chronik_loop_ops loop_ops = {
    sizeof loop_ops, loop_now,       loop_wall,       loop_timer_new, loop_timer_set, loop_timer_free,
    loop_watch_new,  loop_watch_set, loop_watch_free, loop_post,      loop_defer};

static loop *loop_new(void) {
    loop *l = calloc(1, sizeof *l);
    if (!l) abort();
    l->as_chronik = (chronik_loop){&loop_ops, l};
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->deferred.end = &l->deferred.first;
    l->posted.end = &l->posted.first;
    pthread_mutex_init(&l->mutex, NULL);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (l->epoll < 0 || l->wake < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wake, &e)) abort();
    return l;
}

static void bury(loop *l) {
    while (l->dead) {
        chronik_watch *w = l->dead;
        l->dead = w->next_dead;
        free(w);
    }
}

static void loop_free(loop *l) {
    bury(l);
    close(l->epoll);
    close(l->wake);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

static int wait_ms(const loop *l) {
    uint64_t next = UINT64_MAX, now = loop_now(NULL);
    for (const chronik_timer *t = l->timers; t; t = t->next)
        if (t->at_ns < next) next = t->at_ns;
    if (l->deferred.first || next <= now) return 0;
    if (next == UINT64_MAX) return -1;
    uint64_t ms = (next - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

static void fire_timers(loop *l) {
    for (bool again = true; again;) {
        again = false;
        uint64_t now = loop_now(NULL);
        for (chronik_timer *t = l->timers; t; t = t->next)
            if (t->at_ns <= now) {
                t->at_ns = UINT64_MAX;
                t->fire(t->arg); /* may change the list: starts from its front again */
                again = true;
                break;
            }
    }
}

/* One turn: wait, sockets, timers, messages, deferred messages. */
static void loop_turn(loop *l) {
    struct epoll_event events[64];
    int n = epoll_wait(l->epoll, events, 64, wait_ms(l));
    if (n < 0 && errno != EINTR) abort();
    for (int i = 0; i < n; i++) {
        chronik_watch *w = events[i].data.ptr;
        if (!w || w->dead) continue;
        unsigned e = (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? (unsigned)CHRONIK_WATCH_READ : 0u) |
                     (events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? (unsigned)CHRONIK_WATCH_WRITE : 0u);
        w->ready(w->arg, e);
    }
    fire_timers(l);
    pthread_mutex_lock(&l->mutex);
    uint64_t count;
    if (l->posted.first && read(l->wake, &count, sizeof count) < 0) abort();
    chronik_post *posted = messages_take(&l->posted);
    pthread_mutex_unlock(&l->mutex);
    messages_run(posted);
    messages_run(messages_take(&l->deferred));
    bury(l);
}

/* ---- the host ----------------------------------------------------------------------------------------------------- */

typedef struct host {
    chronik_node *node;
    chronik_queue *queue;
    bool stopped;
    int failures;
} host;

static void check(host *h, int rc, const char *what) {
    if (!rc) return;
    fprintf(stderr, "%s: %s\n", what, chronik_strerror(rc));
    h->failures++;
    chronik_node_stop(h->node, 0);
}

/* Each event leads to the next step: the host never waits. */
static void on_event(host *h, chronik_event *event) {
    int error = chronik_event_error(event);
    switch (chronik_event_type(event)) {
    case CHRONIK_EVENT_READY:
        printf("serving at %s\n", chronik_event_text(event));
        check(h, chronik_topic_create(h->node, "ticks", NULL, h->queue, NULL), "create");
        break;
    case CHRONIK_EVENT_TOPIC: {
        chronik_record r = CHRONIK_RECORD_INIT;
        r.value = "tick";
        r.value_len = 4;
        if (error == CHRONIK_ETOPICEXISTS) error = 0;
        check(h, error ? error : chronik_produce(h->node, "ticks", 0, &r, 1, h->queue, NULL), "produce");
        break;
    }
    case CHRONIK_EVENT_PRODUCED:
        check(h, error ? error : chronik_fetch(h->node, "ticks", 0, chronik_event_a(event), NULL, h->queue, NULL),
              "fetch");
        break;
    case CHRONIK_EVENT_FETCHED: {
        chronik_record r = CHRONIK_RECORD_INIT;
        check(h, error, "fetch");
        if (!error && chronik_event_record(event, &r) == 1)
            printf("%lld: %.*s\n", (long long)r.offset, (int)r.value_len, (const char *)r.value);
        else h->failures++;
        chronik_node_stop(h->node, 5000);
        break;
    }
    case CHRONIK_EVENT_STOPPED:
        if (error) h->failures++;
        h->stopped = true;
        break;
    default: break;
    }
}

static void on_queue(void *arg, unsigned events) {
    host *h = arg;
    chronik_event *event;
    (void)events;
    while (!h->stopped && chronik_queue_poll(h->queue, 0, &event) == 1) {
        on_event(h, event);
        chronik_event_free(event);
    }
}

int main(int argc, char **argv) {
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_config *config;
    chronik_watch *watch;
    host h = {0};
    loop *l = loop_new();
    const chronik_loop *loops[1] = {&l->as_chronik};
    if (chronik_config_new(&config)) return 1;
    if (chronik_config_set(config, "data.dir", argc > 1 ? argv[1] : "./data", &err) ||
        chronik_config_set(config, "bind", "127.0.0.1", &err) || chronik_config_set(config, "kafka.port", "0", &err) ||
        chronik_config_set(config, "http.enable", "false", &err) || chronik_queue_new(&err, &h.queue) ||
        chronik_node_new_on(config, NULL, loops, 1, h.queue, &err, &h.node) || chronik_node_start(h.node, &err)) {
        fprintf(stderr, "start: %s\n", err.text);
        return 1;
    }
    if (loop_watch_new(l, chronik_queue_fd(h.queue), on_queue, &h, &watch)) return 1;
    loop_watch_set(l, watch, CHRONIK_WATCH_READ);
    while (!h.stopped) loop_turn(l);
    chronik_node_free(h.node);
    loop_watch_free(l, watch);
    loop_free(l);
    chronik_queue_free(h.queue);
    chronik_config_free(config);
    if (!h.failures) puts("done");
    return h.failures != 0;
}
