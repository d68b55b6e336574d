/* chronik_io_posix_new: puts the parts of the POSIX world together. */
#include "io/posix.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"

typedef struct posix_io {
    chronik_io io; /* first: chronik_io_posix_free casts back */
    cnk_posix_disk disk;
    cnk_posix_jobs jobs;
} posix_io;

enum { READ_THREADS_DEFAULT = 4 };

static void entropy(void *self, void *buf, size_t len);

int chronik_io_posix_new(const chronik_io_posix_options *options, chronik_error *err, chronik_io **ret_io) {
    chronik_io_posix_options defaults = CHRONIK_IO_POSIX_OPTIONS_INIT;
    if (!options)
        options = &defaults;
    if (options->size < sizeof defaults)
        return cnk_error(err, CHRONIK_EINVAL, 0, "chronik_io_posix_options.size: start from _INIT");
    if (options->read_threads > CNK_LANE_THREADS_MAX)
        return cnk_error(err, CHRONIK_EINVAL, 0, "read_threads is %u, at most %d", options->read_threads,
                         CNK_LANE_THREADS_MAX);
    char probe;
    if (getrandom(&probe, sizeof probe, 0) != sizeof probe)
        return cnk_error(err, CHRONIK_EIO, errno, "the kernel gives no random bytes (getrandom)");

    posix_io *p = cnk_calloc(1, sizeof *p);
    if (!p)
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for the io");
    unsigned read_threads = options->read_threads ? options->read_threads : READ_THREADS_DEFAULT;
    int rc = cnk_posix_jobs_init(&p->jobs, read_threads, err);
    if (rc < 0) {
        cnk_posix_jobs_free(&p->jobs);
        cnk_free(p);
        return rc;
    }
    p->disk.buffered = options->buffered != 0;
    p->io = (chronik_io){.size = sizeof p->io,
                         .disk_ops = &cnk_posix_disk_ops,
                         .disk = &p->disk,
                         .net_ops = &cnk_posix_net_ops,
                         .net = NULL,
                         .jobs_ops = &cnk_posix_jobs_ops,
                         .jobs = &p->jobs,
                         .entropy = entropy,
                         .entropy_self = NULL};
    *ret_io = &p->io;
    return 0;
}

void chronik_io_posix_free(chronik_io *io) {
    if (!io)
        return;
    posix_io *p = (posix_io *)(void *)io;
    cnk_posix_jobs_free(&p->jobs);
    cnk_free(p);
}

uint64_t cnk_posix_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Has no way to fail: _new has seen the kernel give bytes, and it gives them ever after. */
static void entropy(void *self, void *buf, size_t len) {
    (void)self;
    char *p = buf;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        CNK_ASSERT(n > 0 || errno == EINTR);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}
