/* The host's queue of events: a list under a mutex, and an eventfd that is readable while the list holds anything. Any
 * thread may push and poll. Events are allocated by those who push them (with the call they answer, mostly), so that
 * pushing cannot fail; the number of calls is bounded, and so is that of log lines. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "node/internal.h"

struct chronik_queue {
    pthread_mutex_t mutex;
    cnk_list events;
    size_t logs;      /* log lines that wait */
    uint64_t logs_lost;
    int fd;
};

typedef struct log_event {
    chronik_event event;
    char text[];
} log_event;

int chronik_queue_new(chronik_error *err, chronik_queue **ret_queue) {
    chronik_queue *q = cnk_calloc(1, sizeof *q);
    if (!q) return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory");
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0 || pthread_mutex_init(&q->mutex, NULL)) {
        int e = errno;
        if (q->fd >= 0) close(q->fd);
        cnk_free(q);
        return cnk_error(err, CHRONIK_EIO, e, "cannot make a queue");
    }
    cnk_list_init(&q->events);
    *ret_queue = q;
    return 0;
}

void chronik_queue_free(chronik_queue *q) {
    if (!q) return;
    for (cnk_list *l; (l = cnk_list_pop_front(&q->events));) chronik_event_free(CNK_CONTAINER(l, chronik_event, link));
    pthread_mutex_destroy(&q->mutex);
    close(q->fd);
    cnk_free(q);
}

int chronik_queue_fd(const chronik_queue *q) { return q->fd; }

/* With the mutex held. */
static void push(chronik_queue *q, chronik_event *event) {
    if (cnk_list_empty(&q->events)) {
        uint64_t one = 1;
        ssize_t n = write(q->fd, &one, sizeof one);
        CNK_ASSERT(n == (ssize_t)sizeof one);
    }
    cnk_list_push_back(&q->events, &event->link);
}

void cnk_queue_push(chronik_queue *q, chronik_event *event) {
    pthread_mutex_lock(&q->mutex);
    push(q, event);
    pthread_mutex_unlock(&q->mutex);
}

static void release_log(chronik_event *event) { cnk_free(CNK_CONTAINER(event, log_event, event)); }

static log_event *log_event_new(int level, int64_t time_ms, const char *text) {
    size_t len = strlen(text);
    log_event *l = cnk_calloc(1, sizeof *l + len + 1);
    if (!l) return NULL;
    memcpy(l->text, text, len + 1);
    l->event.type = CHRONIK_EVENT_LOG;
    l->event.level = level;
    l->event.time_ms = time_ms;
    l->event.text = l->text;
    l->event.release = release_log;
    return l;
}

void cnk_queue_log(chronik_queue *q, int level, int64_t time_ms, const char *text) {
    log_event *l = log_event_new(level, time_ms, text);
    pthread_mutex_lock(&q->mutex);
    if (l && q->logs < CHRONIK_QUEUE_LOGS_MAX) {
        if (q->logs_lost) {
            char lost[64];
            snprintf(lost, sizeof lost, "%llu log lines were lost here", (unsigned long long)q->logs_lost);
            log_event *gap = log_event_new(CHRONIK_LOG_WARN, time_ms, lost);
            if (gap) {
                push(q, &gap->event);
                q->logs++;
                q->logs_lost = 0;
            }
        }
        push(q, &l->event);
        q->logs++;
        l = NULL;
    } else {
        q->logs_lost++;
    }
    pthread_mutex_unlock(&q->mutex);
    if (l) release_log(&l->event);
}

static chronik_event *pop(chronik_queue *q) {
    pthread_mutex_lock(&q->mutex);
    cnk_list *l = cnk_list_pop_front(&q->events);
    chronik_event *event = l ? CNK_CONTAINER(l, chronik_event, link) : NULL;
    if (event && event->type == CHRONIK_EVENT_LOG) q->logs--;
    if (l && cnk_list_empty(&q->events)) {
        uint64_t count;
        ssize_t n = read(q->fd, &count, sizeof count);
        CNK_ASSERT(n == (ssize_t)sizeof count);
    }
    pthread_mutex_unlock(&q->mutex);
    return event;
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int chronik_queue_poll(chronik_queue *q, int timeout_ms, chronik_event **ret_event) {
    int64_t until = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    for (;;) {
        chronik_event *event = pop(q);
        if (event) {
            *ret_event = event;
            return 1;
        }
        int64_t left = timeout_ms < 0 ? -1 : until - now_ms();
        if (timeout_ms >= 0 && left <= 0) return 0;
        struct pollfd p = {q->fd, POLLIN, 0};
        (void)poll(&p, 1, (int)left); /* woken early or in vain: looks again */
    }
}

void chronik_event_free(chronik_event *event) {
    if (event) event->release(event);
}

int chronik_event_type(const chronik_event *event) { return event->type; }
int chronik_event_error(const chronik_event *event) { return event->error; }
const char *chronik_event_text(const chronik_event *event) { return event->text ? event->text : ""; }
int chronik_event_level(const chronik_event *event) { return event->level; }
int64_t chronik_event_time_ms(const chronik_event *event) { return event->time_ms; }
void *chronik_event_opaque(const chronik_event *event) { return event->opaque; }
int64_t chronik_event_a(const chronik_event *event) { return event->a; }
int64_t chronik_event_b(const chronik_event *event) { return event->b; }

const char *chronik_event_name(const chronik_event *event) {
    switch (event->type) {
    case CHRONIK_EVENT_READY: return "ready";
    case CHRONIK_EVENT_PROGRESS: return "progress";
    case CHRONIK_EVENT_FAILED: return "failed";
    case CHRONIK_EVENT_FENCED: return "fenced";
    case CHRONIK_EVENT_STOPPED: return "stopped";
    case CHRONIK_EVENT_LOG: return "log";
    case CHRONIK_EVENT_TOPIC: return "topic";
    case CHRONIK_EVENT_PRODUCED: return "produced";
    case CHRONIK_EVENT_FETCHED: return "fetched";
    default: return "?";
    }
}
