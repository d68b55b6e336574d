/* chronik/wal.h: the WAL for programs that want it alone.
 *
 * One thread runs a loop that owns the only port. A call is a message to it, and waits on a condition until it has been
 * answered; chronik_wal_sync waits until as many rows are durable as had been appended when it began. */
#include <chronik/io_posix.h>
#include <chronik/wal.h>

#include <signal.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "io/event.h"
#include "wal/internal.h"

struct chronik_wal {
    chronik_io *io;
    cnk_event_loop *loop;
    chronik_file *lock;
    cnk_wal *wal;
    cnk_wal_port *port;
    pthread_t thread;
    bool thread_runs;
    cnk_map streams; /* the loop's thread */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t appended, durable; /* [mutex] rows */
    uint64_t writable;          /* [mutex] times that appends may have become possible again */
    bool fenced, drained;       /* [mutex] */
    uint64_t entry_bytes_max;
    chronik_error why;          /* [mutex] */
};

typedef struct call {
    chronik_post post;
    chronik_wal *wal;
    int (*run)(struct call *call);
    uint64_t stream, index, last;
    const void *data;
    void *buf;
    size_t len;
    cnk_wal_file *file;
    uint64_t file_pos;
    uint32_t crc;
    chronik_error *err;
    int code;
    bool done; /* [mutex] */
} call;

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static void call_run(chronik_post *post) {
    call *c = CNK_CONTAINER(post, call, post);
    chronik_wal *w = c->wal;
    c->code = c->run(c);
    pthread_mutex_lock(&w->mutex);
    c->done = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static int call_wait(chronik_wal *w, call *c, int (*run)(call *)) {
    const chronik_loop *loop = cnk_event_loop_get(w->loop);
    c->post.run = call_run;
    c->wal = w;
    c->run = run;
    c->done = false;
    loop->ops->post(loop->self, &c->post);
    pthread_mutex_lock(&w->mutex);
    while (!c->done) pthread_cond_wait(&w->changed, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
    return c->code;
}

static cnk_wal_stream *stream_of(call *c) { return cnk_map_get(&c->wal->streams, c->stream); }

static int missing(call *c) {
    return cnk_error(c->err, CHRONIK_ENOTFOUND, 0, "stream %llu: there is none of this id",
                     (unsigned long long)c->stream);
}

static int explain(call *c, int code) {
    return code ? cnk_error(c->err, code, 0, "stream %llu: %s", (unsigned long long)c->stream, chronik_strerror(code)) : 0;
}

static void count_row(chronik_wal *w) {
    pthread_mutex_lock(&w->mutex);
    w->appended++;
    pthread_mutex_unlock(&w->mutex);
}

static int run_create(call *c) {
    cnk_wal_stream *s;
    if (c->stream == 0) return cnk_error(c->err, CHRONIK_EINVAL, 0, "stream 0: ids are above 0");
    int code = cnk_wal_stream_new(c->wal->port, c->stream, c->wal, &s);
    if (code) return explain(c, code);
    count_row(c->wal);
    code = cnk_map_put(&c->wal->streams, c->stream, s);
    if (code) {
        if (cnk_wal_stream_drop(s) == 0) count_row(c->wal);
        return explain(c, code);
    }
    return 0;
}

static int run_delete(call *c) {
    cnk_wal_stream *s = stream_of(c);
    if (!s) return missing(c);
    int code = cnk_wal_stream_drop(s);
    if (code) return explain(c, code);
    count_row(c->wal);
    cnk_map_remove(&c->wal->streams, c->stream);
    cnk_wal_kick(c->wal->port);
    return 0;
}

static int run_range(call *c) {
    cnk_wal_stream *s = stream_of(c);
    if (!s) return missing(c);
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    /* Only a repair of a log whose checkpoints were lost leaves a stream that begins later than it should. */
    c->index = st->first_index > st->released_index ? st->first_index : st->released_index + 1;
    c->last = st->last_index;
    return 0;
}

static int run_append(call *c) {
    cnk_wal_stream *s = stream_of(c);
    if (!s) return missing(c);
    const cnk_wal_state *st = cnk_wal_stream_state(s);
    cnk_wal_entry e = {.index = st->last_index + 1, .term = 1, .kind = CNK_ENTRY_DATA, .count = 1, .max_timestamp = -1};
    e.base_offset = st->next_offset;
    e.len = (uint32_t)c->len;
    cnk_wal_payload p = {.iov_count = c->len ? 1 : 0, .crc = c->crc};
    p.iov[0] = (struct iovec){(void *)(uintptr_t)c->data, c->len};
    int code = cnk_wal_append(s, &e, &p);
    if (code == CHRONIK_EAGAIN) cnk_wal_kick(c->wal->port);
    if (code) return code == CHRONIK_EAGAIN ? code : explain(c, code);
    c->index = e.index;
    count_row(c->wal);
    return 0;
}

static int run_kick(call *c) {
    cnk_wal_kick(c->wal->port);
    return 0;
}

/* From memory at once; else the caller's thread reads the file. */
static int run_find(call *c) {
    cnk_wal_stream *s = stream_of(c);
    if (!s) return missing(c);
    cnk_wal_place p;
    if (c->index < cnk_wal_stream_state(s)->first_index || cnk_wal_find_index(s, c->index, &p))
        return cnk_error(c->err, CHRONIK_ENOTFOUND, 0, "stream %llu: no entry %llu", (unsigned long long)c->stream,
                         (unsigned long long)c->index);
    if (p.entry.kind != CNK_ENTRY_DATA) /* fsck's, in its place */
        return cnk_error(c->err, CHRONIK_ECORRUPT, 0, "stream %llu: entry %llu was lost to damage",
                         (unsigned long long)c->stream, (unsigned long long)c->index);
    c->last = p.entry.len;
    if (p.data || p.entry.len == 0) {
        size_t n = p.entry.len < c->len ? p.entry.len : c->len;
        if (n) memcpy(c->buf, p.data, n);
        return 0;
    }
    c->file = cnk_wal_file_pin(c->wal->wal, p.file_seq);
    c->file_pos = p.file_pos;
    c->crc = p.crc;
    return c->file ? 0 : explain(c, CHRONIK_ENOTFOUND);
}

static int run_trim(call *c) {
    cnk_wal_stream *s = stream_of(c);
    if (!s) return missing(c);
    if (c->index <= cnk_wal_stream_state(s)->first_index) return 0;
    int code = cnk_wal_trim(s, c->index, (int64_t)c->index - 1);
    if (code) return explain(c, code);
    count_row(c->wal);
    cnk_wal_kick(c->wal->port);
    return 0;
}

/* ---- what the WAL tells; the loop's thread -------------------------------------------------------------------------- */

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    cnk_wal_stream_commit_set(s, index);
}

static void on_durable_end(void *arg) {
    chronik_wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    w->durable = w->port->rows_durable;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static void on_fenced(void *arg, const chronik_error *why) {
    chronik_wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    w->fenced = true;
    w->why = *why;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static void on_writable(void *arg) {
    chronik_wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    w->writable++;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

/* Nothing is converted here: a file goes when all in it has been trimmed. */
static void on_sealed(void *arg, uint32_t file_seq) {
    (void)arg;
    (void)file_seq;
}

static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    (void)out;
    *ret_applied_index = cnk_wal_stream_state(s)->durable_index;
    return 0;
}

static void on_drained(void *arg, int code) {
    (void)code;
    chronik_wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    w->drained = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

/* ---- the interface -------------------------------------------------------------------------------------------------- */

static void *thread_main(void *arg) {
    cnk_event_loop_run(((chronik_wal *)arg)->loop);
    return NULL;
}

static int take_lock(const chronik_io *io, const char *dir, chronik_error *err, chronik_file **ret_lock) {
    int code = io->disk_ops->mkdir(io->disk, dir, err);
    if (code && code != CHRONIK_EEXIST) return code;
    size_t size = strlen(dir) + 6;
    char *path = cnk_malloc(size);
    if (!path) return CHRONIK_ENOMEM;
    snprintf(path, size, "%s/lock", dir);
    code = io->disk_ops->lock(io->disk, path, err, ret_lock);
    cnk_free(path);
    if (code == CHRONIK_EBUSY)
        return cnk_error(err, code, 0, "%s: another process has this log open; stop it, or use another directory", dir);
    return code;
}

static int attach_all(chronik_wal *w) {
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(w->wal, &it));) {
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        if (cnk_map_put(&w->streams, st->id, s)) return CHRONIK_ENOMEM;
        cnk_wal_stream_attach(w->port, s, w);
        cnk_wal_stream_commit_set(s, st->last_index);
        cnk_wal_stream_release(s, st->first_index - 1); /* there is no state that would need what was trimmed */
    }
    return 0;
}

static int start_thread(chronik_wal *w) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&w->thread, NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    w->thread_runs = !failed;
    return failed ? CHRONIK_EAGAIN : 0;
}

int chronik_wal_open(const char *dir, const chronik_wal_options *options, chronik_error *err, chronik_wal **ret_wal) {
    chronik_wal_options o = CHRONIK_WAL_OPTIONS_INIT;
    if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    cnk_wal_options inner = CNK_WAL_OPTIONS_INIT;
    inner.dir = dir;
    inner.file_bytes = o.file_bytes;
    inner.budget_bytes = o.budget_bytes;
    inner.linger_us = o.linger_us;
    inner.cache_bytes = 8 << 20;
    chronik_wal *w = cnk_calloc(1, sizeof *w);
    if (!w) return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory to open %s", dir);
    w->entry_bytes_max = o.budget_bytes / 4 < CNK_WAL_PAYLOAD_MAX ? o.budget_bytes / 4 : CNK_WAL_PAYLOAD_MAX;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    int code = chronik_io_posix_new(NULL, err, &w->io);
    if (code == 0) code = cnk_event_loop_new(NULL, err, &w->loop);
    if (code == 0) code = take_lock(w->io, dir, err, &w->lock);
    if (code == 0) code = cnk_wal_open(w->io, &inner, NULL, NULL, err, &w->wal);
    if (code == 0) code = cnk_wal_port_open(w->wal, cnk_event_loop_get(w->loop), &events, w, &w->port);
    if (code == 0) code = attach_all(w);
    if (code == 0) code = start_thread(w);
    if (code) {
        if (err && !err->code) (void)cnk_error(err, code, 0, "%s: %s", dir, chronik_strerror(code));
        chronik_wal_close(w);
        return code;
    }
    *ret_wal = w;
    return 0;
}

static int run_drain(call *c) {
    cnk_wal_drain(c->wal->port, on_drained, c->wal);
    return 0;
}

void chronik_wal_close(chronik_wal *wal) {
    if (!wal) return;
    if (wal->thread_runs) {
        call c = {0};
        (void)call_wait(wal, &c, run_drain);
        pthread_mutex_lock(&wal->mutex);
        while (!wal->drained) pthread_cond_wait(&wal->changed, &wal->mutex);
        pthread_mutex_unlock(&wal->mutex);
        cnk_event_loop_stop(wal->loop);
        pthread_join(wal->thread, NULL);
    }
    cnk_wal_port_close(wal->port);
    cnk_wal_free(wal->wal);
    if (wal->lock) wal->io->disk_ops->close(wal->io->disk, wal->lock);
    cnk_event_loop_free(wal->loop);
    chronik_io_posix_free(wal->io);
    cnk_map_free(&wal->streams);
    pthread_cond_destroy(&wal->changed);
    pthread_mutex_destroy(&wal->mutex);
    cnk_free(wal);
}

int chronik_wal_stream_create(chronik_wal *wal, uint64_t stream, chronik_error *err) {
    call c = {.stream = stream, .err = err};
    return call_wait(wal, &c, run_create);
}

int chronik_wal_stream_delete(chronik_wal *wal, uint64_t stream, chronik_error *err) {
    call c = {.stream = stream, .err = err};
    return call_wait(wal, &c, run_delete);
}

int chronik_wal_stream_range(chronik_wal *wal, uint64_t stream, chronik_error *err, uint64_t *ret_first,
                             uint64_t *ret_last) {
    call c = {.stream = stream, .err = err};
    int code = call_wait(wal, &c, run_range);
    if (code) return code;
    *ret_first = c.index;
    *ret_last = c.last;
    return 0;
}

int chronik_wal_append(chronik_wal *wal, uint64_t stream, const void *data, size_t len, chronik_error *err,
                       uint64_t *ret_index) {
    if (len > wal->entry_bytes_max)
        return cnk_error(err, CHRONIK_ETOOLARGE, 0, "entry of %zu bytes: at most %llu", len,
                         (unsigned long long)wal->entry_bytes_max);
    call c = {.stream = stream, .data = data, .len = len, .crc = cnk_crc32c(0, data, len), .err = err};
    for (;;) {
        pthread_mutex_lock(&wal->mutex);
        uint64_t seen = wal->writable;
        pthread_mutex_unlock(&wal->mutex);
        int code = call_wait(wal, &c, run_append);
        if (code == 0) *ret_index = c.index;
        if (code != CHRONIK_EAGAIN) return code;
        pthread_mutex_lock(&wal->mutex);
        while (wal->writable == seen && !wal->fenced) pthread_cond_wait(&wal->changed, &wal->mutex);
        pthread_mutex_unlock(&wal->mutex);
    }
}

int chronik_wal_sync(chronik_wal *wal, chronik_error *err) {
    pthread_mutex_lock(&wal->mutex);
    uint64_t want = wal->appended;
    bool there = wal->durable >= want;
    pthread_mutex_unlock(&wal->mutex);
    if (!there) {
        call c = {.err = err};
        (void)call_wait(wal, &c, run_kick);
    }
    int code = 0;
    pthread_mutex_lock(&wal->mutex);
    while (wal->durable < want && !wal->fenced) pthread_cond_wait(&wal->changed, &wal->mutex);
    if (wal->durable < want) code = cnk_error_because(err, CHRONIK_EFENCED, &wal->why);
    pthread_mutex_unlock(&wal->mutex);
    return code;
}

int chronik_wal_read(chronik_wal *wal, uint64_t stream, uint64_t index, void *buf, size_t size, chronik_error *err,
                     size_t *ret_len) {
    call c = {.stream = stream, .index = index, .buf = buf, .len = size, .err = err};
    int code = call_wait(wal, &c, run_find);
    if (code == 0 && c.file) {
        uint8_t *whole = size >= c.last ? buf : cnk_malloc((size_t)c.last);
        code = whole ? cnk_wal_file_read(c.file, c.file_pos, (uint32_t)c.last, c.crc, whole, err) : CHRONIK_ENOMEM;
        if (code == 0 && whole != buf) memcpy(buf, whole, size);
        if (whole != buf) cnk_free(whole);
        cnk_wal_file_unpin(c.file);
    }
    if (code == 0) *ret_len = (size_t)c.last;
    return code;
}

int chronik_wal_trim(chronik_wal *wal, uint64_t stream, uint64_t first_index, chronik_error *err) {
    call c = {.stream = stream, .index = first_index, .err = err};
    return call_wait(wal, &c, run_trim);
}
