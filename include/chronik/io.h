/* chronik/io.h: the world, as the library sees it.
 *
 * Time, entropy, files, sockets, threads: everything that is not a pure function of its arguments comes in through
 * these tables. The library carries two worlds: POSIX files and threads with a libevent loop (chronik/io_event.h), and,
 * in its tests, a simulated one. A host with a loop of its own implements chronik_loop_ops and takes the rest from
 * chronik_io_posix_new().
 *
 * Tier: extension; may change with a minor version. Each table starts with its size, so tables can grow at the end.
 *
 * Threads. A shard is one thread with one loop. Loop functions are called on that thread only, except `post`. Disk
 * functions block; they are called from jobs and from start-up, on any thread, never from a running shard. A file
 * handle may be used by several threads at once. Net functions never block.
 *
 * Errors. 0 or more is success, negative is CHRONIK_E*. Each disk function takes an optional chronik_error, whose text
 * names the path and the call. CHRONIK_ENOSPC stands for ENOSPC and EDQUOT. */
#ifndef CHRONIK_IO_H
#define CHRONIK_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <chronik/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- files ------------------------------------------------------------------------------------------------------ */

typedef struct chronik_file chronik_file; /* an open file; made and freed by the disk */

enum {
    CHRONIK_OPEN_READ = 1,
    CHRONIK_OPEN_WRITE = 2,
    CHRONIK_OPEN_CREATE = 4, /* create where it is missing */
    CHRONIK_OPEN_EXCL = 8,   /* with CREATE: fail with EEXIST where it is there */
    CHRONIK_OPEN_DIRECT = 16 /* bypass the page cache where the file system can; buffers, lengths and positions are
                                then multiples of 4096. Where it cannot, the file is opened buffered. */
};

typedef struct chronik_disk_space {
    uint64_t total_bytes, usable_bytes; /* of the file system; usable: that this process may still write */
} chronik_disk_space;

typedef struct chronik_disk_ops {
    size_t size;
    int (*open)(void *disk, const char *path, unsigned flags, chronik_error *err, chronik_file **ret_file);
    void (*close)(void *disk, chronik_file *file); /* NULL-safe */
    /* Writes everything or fails; never a short count. */
    int (*write)(void *disk, chronik_file *file, const struct iovec *iov, int iov_count, uint64_t pos,
                 chronik_error *err);
    /* Reads until the buffer is full or the file ends; returns the bytes read. */
    int64_t (*read)(void *disk, chronik_file *file, void *buf, size_t len, uint64_t pos, chronik_error *err);
    /* As `read`, but only what needs no waiting for the device: returns the bytes that were at hand (may be 0), or
     * CHRONIK_EAGAIN. May be called from a shard. */
    int64_t (*read_cached)(void *disk, chronik_file *file, void *buf, size_t len, uint64_t pos);
    /* Makes the file's data, and the size needed to read it, durable (fdatasync). A failure is final: the caller must
     * not try again, since dirty pages may be gone already. */
    int (*sync)(void *disk, chronik_file *file, chronik_error *err);
    /* Reserves blocks for [0, len); the file's size becomes at least len. */
    int (*allocate)(void *disk, chronik_file *file, uint64_t len, chronik_error *err);
    int (*truncate)(void *disk, chronik_file *file, uint64_t len, chronik_error *err);
    int (*size_get)(void *disk, chronik_file *file, chronik_error *err, uint64_t *ret_len);
    int (*rename)(void *disk, const char *from, const char *to, chronik_error *err); /* atomic; replaces `to` */
    int (*unlink)(void *disk, const char *path, chronik_error *err);                 /* ENOTFOUND where missing */
    int (*mkdir)(void *disk, const char *path, chronik_error *err);                  /* EEXIST where it is there */
    int (*sync_dir)(void *disk, const char *path, chronik_error *err); /* makes names in it durable (creation, rename) */
    /* Calls back for each name in the directory, in no order, without "." and "..". A non-zero return ends the walk and
     * is returned. */
    int (*list)(void *disk, const char *path, int (*each)(void *arg, const char *name), void *arg, chronik_error *err);
    /* Takes an exclusive lock that ends with the process. EBUSY where another process has it. */
    int (*lock)(void *disk, const char *path, chronik_error *err, chronik_file **ret_file);
    int (*space)(void *disk, const char *path, chronik_error *err, chronik_disk_space *ret_space);
    /* Tells the kernel that the range's cached pages are not needed any more. A hint; never fails. */
    void (*forget)(void *disk, chronik_file *file, uint64_t pos, uint64_t len);
    /* The absolute name of what is there, for people. ENOTFOUND, ETOOLARGE: longer than the text may be. NULL: names mean
     * nothing outside of this disk. */
    int (*absolute)(void *disk, const char *path, char *ret_text, size_t text_size);
} chronik_disk_ops;

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

typedef struct chronik_address {
    char host[64]; /* numeric, NUL-terminated; IPv6 without brackets */
    uint16_t port;
} chronik_address;

typedef struct chronik_net_ops {
    size_t size;
    /* A listening, non-blocking, close-on-exec stream socket. Port 0: the kernel picks. "" or "*": all addresses,
     * IPv6 and IPv4. */
    int (*listen)(void *net, const char *host, uint16_t port, chronik_error *err, int *ret_fd,
                  chronik_address *ret_local);
    /* EAGAIN where no connection waits. The new socket is non-blocking, close-on-exec, TCP_NODELAY. */
    int (*accept)(void *net, int fd, int *ret_fd, chronik_address *ret_local, chronik_address *ret_peer);
    /* Bytes moved; 0 from `recv` is the peer's end of stream; EAGAIN: not ready; ECLOSED: reset. Never SIGPIPE. */
    ssize_t (*recv)(void *net, int fd, const struct iovec *iov, int iov_count);
    ssize_t (*send)(void *net, int fd, const struct iovec *iov, int iov_count);
    void (*close)(void *net, int fd);
} chronik_net_ops;

/* ---- one shard's loop ------------------------------------------------------------------------------------------- */

typedef struct chronik_timer chronik_timer;
typedef struct chronik_watch chronik_watch;

/* A message to a loop: owned by its sender, who sets `run` and must keep it until it ran. May be posted again from
 * `run` on; posting it while it waits is a defect of the caller. */
typedef struct chronik_post {
    struct chronik_post *next; /* the loop's */
    void (*run)(struct chronik_post *post);
} chronik_post;

enum { CHRONIK_WATCH_READ = 1, CHRONIK_WATCH_WRITE = 2 };

typedef struct chronik_loop_ops {
    size_t size;
    uint64_t (*now_ns)(void *loop);  /* monotonic, from an arbitrary start */
    int64_t (*wall_ms)(void *loop);  /* Unix time */
    int (*timer_new)(void *loop, void (*fire)(void *arg), void *arg, chronik_timer **ret_timer);
    void (*timer_set)(void *loop, chronik_timer *timer, uint64_t at_ns); /* one-shot; UINT64_MAX: off */
    void (*timer_free)(void *loop, chronik_timer *timer);                /* NULL-safe */
    int (*watch_new)(void *loop, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                     chronik_watch **ret_watch);                            /* starts with no events */
    void (*watch_set)(void *loop, chronik_watch *watch, unsigned events); /* level-triggered */
    void (*watch_free)(void *loop, chronik_watch *watch);                 /* NULL-safe */
    /* Runs the message on the loop's thread, soon. Any thread; never fails; order is kept for each sender. */
    void (*post)(void *loop, chronik_post *post);
    /* Runs the message on this thread after the events at hand have been handled, before waiting again. */
    void (*defer)(void *loop, chronik_post *post);
} chronik_loop_ops;

typedef struct chronik_loop {
    const chronik_loop_ops *ops;
    void *self;
} chronik_loop;

/* ---- jobs: blocking work beside the shards ---------------------------------------------------------------------- */

enum {
    CHRONIK_LANE_WAL = 0,        /* one thread: the WAL's writer */
    CHRONIK_LANE_READ = 1,       /* cold reads for fetches */
    CHRONIK_LANE_BACKGROUND = 2, /* checkpoints, packs, preparing files; one thread */
    CHRONIK_LANE_COMPUTE = 3,    /* what a client waits for and the processor takes long over: records opened, converted */
    CHRONIK_LANE_COUNT = 4
};

#define CHRONIK_JOB_DONE INT64_C(-1)

/* A job is stepped until it says it is done: `step` returns CHRONIK_JOB_DONE, or the nanoseconds after which it wants
 * the next step (0: at once, other jobs of the lane may come first). Steps of one job never overlap. After the last
 * step, `done` (may be NULL) is posted to `loop`. The submitter owns the memory and keeps it until `done` ran; with
 * `done` NULL, until the job knows by itself that its last step is over, the job being free for a new submission as soon as the
 * step has begun to return CHRONIK_JOB_DONE. */
typedef struct chronik_job {
    chronik_post post; /* the lane's, then the loop's */
    const chronik_loop *loop;
    int64_t (*step)(struct chronik_job *job);
    void (*done)(struct chronik_job *job);
    uint64_t due_ns; /* the lane's */
} chronik_job;

typedef struct chronik_jobs_ops {
    size_t size;
    /* Any thread; never fails: the job waits its turn. */
    void (*submit)(void *jobs, unsigned lane, chronik_job *job);
    uint64_t (*now_ns)(void *jobs); /* the same clock as the loops' */
} chronik_jobs_ops;

/* ---- all of it -------------------------------------------------------------------------------------------------- */

typedef struct chronik_io {
    size_t size;
    const chronik_disk_ops *disk_ops;
    void *disk;
    const chronik_net_ops *net_ops;
    void *net;
    const chronik_jobs_ops *jobs_ops;
    void *jobs;
    void (*entropy)(void *self, void *buf, size_t len); /* unpredictable bytes; any thread */
    void *entropy_self;
} chronik_io;

#ifdef __cplusplus
}
#endif
#endif
