/* chronik/node_loop.h: a node on the host's own loops.
 *
 * Instead of threads of its own, the node uses loops that the host runs: wrapped event_bases (chronik/io_event.h), or the
 * host's implementation of chronik_loop_ops (chronik/io.h). Blocking work still runs on library threads, unless the option
 * `jobs` says `inline`: then nothing runs but on the host's loops, and a loop serves nobody while the log is being
 * written and synced, a pack is being made (in slices), or old data is being read.
 *
 * Tier: extension; may change with a minor version. */
#ifndef CHRONIK_NODE_LOOP_H
#define CHRONIK_NODE_LOOP_H

#include <chronik/io.h>
#include <chronik/node.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As chronik_node_new. `loops`: loop_count loops, one for each shard (the option `shards` is not used), each run by one
 * thread of the host's; they and `io` (NULL: the POSIX one) are borrowed until chronik_node_free.
 *
 * chronik_node_start is then called before the loops run, or, where there is one loop, on its thread; it does the whole
 * recovery before it returns. chronik_node_stop returns at once; the loops go on running until STOPPED has arrived.
 * chronik_node_free is called after that, with no loop running, or, where there is one loop, on its thread. */
CHRONIK_API int chronik_node_new_on(const chronik_config *config, const chronik_io *io, const chronik_loop *const *loops,
                                    size_t loop_count, chronik_queue *queue, chronik_error *err,
                                    chronik_node **ret_node);

#ifdef __cplusplus
}
#endif
#endif
