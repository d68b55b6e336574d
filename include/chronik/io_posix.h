/* chronik/io_posix.h: the real world: POSIX files, sockets and threads.
 *
 * Gives the disk, the sockets, the jobs and the entropy of a chronik_io. Loops come from elsewhere: chronik/io_event.h,
 * or a host's own chronik_loop_ops.
 *
 * Tier: extension. */
#ifndef CHRONIK_IO_POSIX_H
#define CHRONIK_IO_POSIX_H

#include <stddef.h>

#include <chronik/error.h>
#include <chronik/io.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct chronik_io_posix_options {
    size_t size;           /* sizeof(chronik_io_posix_options) */
    unsigned read_threads; /* threads of CHRONIK_LANE_READ, 1 to 64; 0: 4 */
    int buffered;          /* not 0: CHRONIK_OPEN_DIRECT is ignored, all files go through the page cache */
} chronik_io_posix_options;

#define CHRONIK_IO_POSIX_OPTIONS_INIT {sizeof(chronik_io_posix_options), 0, 0}

/* options: borrowed for the call; NULL: defaults. No thread is made before the first job is submitted to its lane.
 * Errors: ENOMEM, EINVAL (an option out of range), EIO (the kernel gives no lock or no entropy). Any thread. */
CHRONIK_API int chronik_io_posix_new(const chronik_io_posix_options *options, chronik_error *err, chronik_io **ret_io);

/* NULL-safe. Waits for the steps that run and joins the threads; jobs that still wait are never stepped again, so let
 * them end first. Loops to which jobs post must outlive the call. Not from a job. */
CHRONIK_API void chronik_io_posix_free(chronik_io *io);

#ifdef __cplusplus
}
#endif
#endif
