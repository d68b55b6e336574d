/* replica: one stream as a Raft group over a log and the WAL.
 *
 * What stands above it sees propose, committed and truncated, and a role. What is inside today is the group of one
 * voter: its commit index is what its own WAL has made durable, once an entry of the current term is (R2). A consensus
 * core for groups of several takes its place behind this header: entries carry term and index, the first entry of each
 * stream is its configuration with two voter sets (R5), commit and role come as events.
 *
 * A cnk_replica_shard owns one shard's WAL port and every replica on it. All functions are for the shard's thread (the
 * opening thread before the loops run). Formats stand in config.c. */
#ifndef CNK_REPLICA_REPLICA_H
#define CNK_REPLICA_REPLICA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/uuid.h"
#include "log/log.h"
#include "record/batch.h"
#include "tier/tier.h"
#include "wal/wal.h"

typedef struct cnk_replica cnk_replica;
typedef struct cnk_replica_shard cnk_replica_shard;

#define CNK_REPLICA_VOTERS_MAX 15
#define CNK_REPLICA_COMMAND_BYTES_MAX (8u << 20)

/* A voter is a node and its data directory (R4). */
typedef struct cnk_voter {
    int32_t node;
    cnk_uuid directory;
} cnk_voter;
typedef struct cnk_voters {
    uint8_t count;
    cnk_voter voter[CNK_REPLICA_VOTERS_MAX];
} cnk_voters;
typedef struct cnk_replica_config {
    cnk_voters old, new_;
} cnk_replica_config; /* old empty: no change under way */

typedef enum cnk_replica_role {
    CNK_ROLE_OFFLINE = 0, /* cannot vote: another directory's, or damaged */
    CNK_ROLE_FOLLOWER,
    CNK_ROLE_ELECTED, /* leads, but has committed nothing in its term yet (R7) */
    CNK_ROLE_LEADER
} cnk_replica_role;

/* The shard a stream belongs to. */
size_t cnk_replica_shard_of(uint64_t stream, size_t shard_count);

/* ---- the shard -------------------------------------------------------------------------------------------------- */

typedef struct cnk_replica_shard_options {
    const chronik_io *io;
    const chronik_loop *loop;
    cnk_wal *wal;
    cnk_tier *tier; /* where sealed WAL files go; NULL: nowhere. Drained before the shard is closed */
    cnk_voter self;
    cnk_log_shard log; /* its settings; the counters are the shard's */
    void (*fenced)(void *arg, const chronik_error *why);
    void (*writable)(void *arg);      /* appends may work again after EAGAIN or ENOSPC */
    void (*committed_end)(void *arg); /* all `committed` calls of one completion have been made */
    void (*sealed)(void *arg, uint32_t file_seq);
    void *arg;
} cnk_replica_shard_options;

int cnk_replica_shard_open(const cnk_replica_shard_options *options, cnk_replica_shard **ret_shard);
void cnk_replica_shard_drain(cnk_replica_shard *shard, void (*drained)(void *arg, int code), void *arg);
/* After drained: frees every replica and closes the port. NULL-safe. */
void cnk_replica_shard_close(cnk_replica_shard *shard);
cnk_wal_port *cnk_replica_shard_port(cnk_replica_shard *shard);
uint32_t cnk_replica_shard_producers(const cnk_replica_shard *shard);
uint64_t cnk_replica_shard_producers_evicted(const cnk_replica_shard *shard); /* over a cap, since the start */

/* ---- replicas --------------------------------------------------------------------------------------------------- */

typedef struct cnk_replica_events {
    /* Entries up to the index are committed, and the log's high watermark says so. */
    void (*committed)(void *arg, cnk_replica *replica, uint64_t commit_index);
    /* Entries above the index are gone; whoever waits for them must be told. */
    void (*truncated)(void *arg, cnk_replica *replica, uint64_t last_index_kept);
    void (*role)(void *arg, cnk_replica *replica, cnk_replica_role role, uint32_t term);
    /* A state machine over the group's COMMAND entries; all NULL: none. `apply` is called for committed entries, in
     * order, once each since the snapshot. At recovery `command` is there and apply may fail (ENOMEM, ECORRUPT); later
     * it is NULL where the bytes have left memory, and apply must not fail: who proposes prepares. `snapshot` appends
     * the machine's state as of the last applied entry. */
    int (*apply)(void *arg, cnk_replica *replica, uint64_t index, const uint8_t *command, size_t len);
    int (*snapshot)(void *arg, cnk_writer *out);
    int (*restore)(void *arg, const uint8_t *state, size_t len, uint64_t applied_index);
} cnk_replica_events;

/* Takes a recovered stream. Blocks (it may read a configuration or commands). No event but restore and apply is
 * called. ECORRUPT: damaged, err says how. */
int cnk_replica_recover(cnk_replica_shard *shard, cnk_wal_stream *stream, const cnk_replica_events *events, void *arg,
                        chronik_error *err, cnk_replica **ret_replica);

/* A new stream: appends INIT. EEXIST, and what the WAL says. */
int cnk_replica_create(cnk_replica_shard *shard, uint64_t stream, const cnk_replica_events *events, void *arg,
                       chronik_error *err, cnk_replica **ret_replica);

/* Starts to take part. A new stream gets its configuration: this node as the only voter. A sole voter votes for itself
 * in a new term above `term_floor`, and appends its LEADER entry (R13); `role` follows, LEADER when that is committed.
 * EAGAIN, ENOSPC, ENOMEM: nothing is half done, call again. EINVAL: the role is OFFLINE. */
int cnk_replica_start(cnk_replica *replica, uint32_t term_floor, chronik_error *err);

/* Deletes the stream and the replica. On failure (EFENCED, ENOMEM) both are still there. */
int cnk_replica_drop(cnk_replica *replica);
/* A recovered stream that nobody wants. */
int cnk_replica_drop_stream(cnk_replica_shard *shard, cnk_wal_stream *stream);

/* A recovered stream that is damaged: it stays in the WAL as it is, with its state in checkpoints, and serves nobody.
 */
void cnk_replica_leave(cnk_replica_shard *shard, cnk_wal_stream *stream);

cnk_log *cnk_replica_log(const cnk_replica *replica);
uint64_t cnk_replica_stream_id(const cnk_replica *replica);
void *cnk_replica_arg(const cnk_replica *replica);
cnk_replica_role cnk_replica_role_of(const cnk_replica *replica);
uint32_t cnk_replica_term(const cnk_replica *replica);
int32_t cnk_replica_leader(const cnk_replica *replica); /* node id; -1: unknown */
const cnk_replica_config *cnk_replica_config_of(const cnk_replica *replica);
bool cnk_replica_is_new(const cnk_replica *replica); /* has no configuration yet: INIT is all that there is */
uint64_t cnk_replica_commit_index(const cnk_replica *replica);

/* Where a batch has its place. */
typedef struct cnk_replica_place {
    uint64_t index; /* answer when the commit index is here; 0: committed long ago */
    int64_t base_offset;
    int64_t append_time_ms; /* LogAppendTime: the stamp; a duplicate's newest timestamp; else -1 */
} cnk_replica_place;

/* Proposes a validated batch, whose bytes are copied before the call returns: 0 and its place; EDUPLICATE and the
 * original's (see cnk_log_check); other codes of cnk_log_check; ENOTLEADER; EAGAIN, ENOSPC, EFENCED, ESHUTDOWN,
 * ETOOLARGE of the WAL. After 0, `committed` or `truncated` tells what became of the index. */
int cnk_replica_propose_batch(cnk_replica *replica, const cnk_batch *batch, int64_t append_time_ms,
                              cnk_replica_place *ret_place);
/* Proposes a COMMAND, copied likewise. */
int cnk_replica_propose_command(cnk_replica *replica, const void *command, size_t len, uint64_t *ret_index);
/* Moves the log's start to the offset (DeleteRecords), from the start to the high watermark, and gives back what lies
 * before: whole entries in the WAL, whole sections in packs. 0: it holds from now on, and is durable when
 * cnk_wal_port_durable reaches *ret_rows; EOFFSETRANGE, ENOTLEADER, what the WAL says. */
int cnk_replica_trim(cnk_replica *replica, int64_t start_offset, uint64_t *ret_rows);
/* Proposes that the log forgets its idle producers: see cnk_log_expirable. */
int cnk_replica_propose_expiry(cnk_replica *replica, int64_t cutoff_ms, int64_t before_offset, uint64_t *ret_index);

#endif
