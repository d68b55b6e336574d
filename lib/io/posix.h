/* The parts of the POSIX world, put together by chronik_io_posix_new (chronik/io_posix.h) in posix.c. */
#ifndef CNK_IO_POSIX_H
#define CNK_IO_POSIX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <chronik/io.h>
#include <chronik/io_posix.h>

/* ---- disk.c: `self` is a cnk_posix_disk ------------------------------------------------------------------------- */

typedef struct cnk_posix_disk {
    bool buffered; /* ignore CHRONIK_OPEN_DIRECT */
} cnk_posix_disk;

extern const chronik_disk_ops cnk_posix_disk_ops;

/* Any disk's `absolute`; ENOTFOUND where it has none. */
int cnk_disk_absolute(const chronik_disk_ops *ops, void *disk, const char *path, char *ret_text, size_t text_size);

/* ---- net.c: `self` is not used ---------------------------------------------------------------------------------- */

extern const chronik_net_ops cnk_posix_net_ops;

/* ---- jobs.c: lanes of threads ----------------------------------------------------------------------------------- */

#define CNK_LANE_THREADS_MAX 64

/* All fields but the first two are under `mutex`. */
typedef struct cnk_lane {
    const char *name;
    unsigned threads_max;
    int nice; /* more than the process's */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t threads[CNK_LANE_THREADS_MAX];
    unsigned thread_count, idle_count;
    chronik_post *ready, **ready_end; /* FIFO of jobs to step now, linked through post.next */
    chronik_post *delayed;            /* by due_ns, ascending; equal ones in the order of their coming */
    bool stopping;
} cnk_lane;

typedef struct cnk_posix_jobs {
    cnk_lane lanes[CHRONIK_LANE_COUNT];
    unsigned lane_count; /* initialised ones */
} cnk_posix_jobs;

extern const chronik_jobs_ops cnk_posix_jobs_ops;

int cnk_posix_jobs_init(cnk_posix_jobs *jobs, unsigned read_threads, chronik_error *err);
void cnk_posix_jobs_free(cnk_posix_jobs *jobs); /* joins the threads; accepts a half-made one */

/* CLOCK_MONOTONIC, the clock of jobs and loops. */
uint64_t cnk_posix_now_ns(void);

#endif
