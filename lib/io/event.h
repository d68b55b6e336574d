/* A shard's loop on libevent (core only). */
#ifndef CNK_IO_EVENT_H
#define CNK_IO_EVENT_H

#include <chronik/error.h>
#include <chronik/io.h>

struct event_base;

typedef struct cnk_event_loop cnk_event_loop;

/* base: borrowed, run by its owner; NULL: the loop makes one, and cnk_event_loop_run runs it. Any thread. */
int cnk_event_loop_new(struct event_base *base, chronik_error *err, cnk_event_loop **ret_loop);

/* Borrowed; as long-lived as the loop. */
const chronik_loop *cnk_event_loop_get(cnk_event_loop *loop);

/* Runs until cnk_event_loop_stop; the calling thread becomes the loop's. May be called again after it returned. */
void cnk_event_loop_run(cnk_event_loop *loop);

/* Any thread, also before run (which then returns after one turn), also the loop's own. Messages that the calling
 * thread posted before are run first. */
void cnk_event_loop_stop(cnk_event_loop *loop);

/* NULL-safe. Not while it runs. Waits for posts that are under way in other threads; messages that have not run are
 * dropped; timers and watches must be freed before. */
void cnk_event_loop_free(cnk_event_loop *loop);

#endif
