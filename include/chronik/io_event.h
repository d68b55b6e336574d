/* chronik/io_event.h: a shard's loop on libevent.
 *
 * The way for a host that has a libevent loop of its own: wrap the event_base, give the chronik_loop to the library, and
 * go on running the base as before. No other header of the library names a libevent type, and the library calls none of
 * libevent's global setters.
 *
 * Threads. All functions are for the thread that runs the base, before it starts or while it runs; except that
 * `post` of the loop is for any thread. The base needs no locks (evthread_use_pthreads is not required).
 *
 * Tier: extension. */
#ifndef CHRONIK_IO_EVENT_H
#define CHRONIK_IO_EVENT_H

#include <chronik/error.h>
#include <chronik/io.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_base; /* libevent's */

typedef struct chronik_io_event chronik_io_event;

/* base: borrowed; must outlive the result. Errors: ENOMEM, EIO (no descriptor left). */
CHRONIK_API int chronik_io_event_new(struct event_base *base, chronik_error *err, chronik_io_event **ret_event);

/* The loop to hand to the library. Borrowed; valid until chronik_io_event_free. */
CHRONIK_API const chronik_loop *chronik_io_event_loop(chronik_io_event *event);

/* NULL-safe. When nothing uses the loop any more; not from one of its callbacks. Messages that wait are dropped. */
CHRONIK_API void chronik_io_event_free(chronik_io_event *event);

#ifdef __cplusplus
}
#endif
#endif
