/* What a node puts between itself and the world that it was given: see world.c. */
#ifndef CNK_NODE_WORLD_H
#define CNK_NODE_WORLD_H

#include <stdbool.h>
#include <stddef.h>

#include <chronik/error.h>
#include <chronik/io.h>

typedef struct cnk_world cnk_world;

/* All is borrowed, and must outlive the result. host_loops: the loops are not the node's, so that a message cannot be
 * taken back from them. inline_jobs: jobs run on the loops. Nothing gets through before cnk_world_let. On a thread on
 * which the loops' functions may be called. ENOMEM. */
int cnk_world_new(const chronik_io *io, const chronik_loop *const *loops, size_t loop_count, bool host_loops,
                  bool inline_jobs, chronik_error *err, cnk_world **ret_world);
const chronik_io *cnk_world_io(cnk_world *world);
const chronik_loop *cnk_world_loop(cnk_world *world, size_t i);
/* Messages and jobs go through from now on, those that waited first. As cnk_world_new. */
void cnk_world_let(cnk_world *world);
/* Drops what has not got through. When nothing uses the io and the loops any more. NULL-safe. */
void cnk_world_free(cnk_world *world);

#endif
