/* tier: what leaves the WAL: sealed files become packs, and packs are read, thinned out and deleted.
 *
 * The order that nothing may break (S20, S21): a pack is durable under its name → the streams release what it holds →
 * the WAL takes a checkpoint → the WAL file is free. A crash anywhere leaves each entry in the WAL, in a pack, or in
 * both; when a stream is attached again, what a pack holds is released once more.
 *
 * Threads. Functions are for the thread that their first argument belongs to: a port's, or the home port's, which is
 * the port that opened first (and is the WAL's first port, too). The cold vtable may be used from any thread. Packs are
 * written and deleted by jobs on the background lane, one at a time.
 *
 * lib/tier/README.md has the write order as a recipe, and the limits. */
#ifndef CNK_TIER_TIER_H
#define CNK_TIER_TIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "log/log.h"
#include "wal/wal.h"

typedef struct cnk_tier cnk_tier;
typedef struct cnk_tier_port cnk_tier_port;

/* What the node is told, on the home port's thread; `damaged` also from cnk_tier_open, cnk_tier_stream_attach and the
 * cold vtable, on their caller's, and from jobs. */
typedef struct cnk_tier_events {
    /* Packs cannot be written (disk full, over the budget, an error): nothing is lost, sealed files wait in the WAL,
     * and the tier tries again by itself. Once for each pause. */
    void (*paused)(void *arg, const chronik_error *why);
    void (*resumed)(void *arg);
    /* A pack, or a part of it, cannot be used. `stream` 0: the whole pack. Any thread. */
    void (*damaged)(void *arg, uint64_t stream, const chronik_error *what);
    /* Opening takes long; each second, from cnk_tier_open, on its caller's thread. */
    void (*progress)(void *arg, uint64_t packs_done, uint64_t packs_all);
    /* All that there was to do is done, or has to wait: the memory that it took has been freed. Home's thread. */
    void (*rested)(void *arg);
} cnk_tier_events;

typedef struct cnk_tier_options {
    const char *dir;           /* made where missing, with its parent there */
    uint64_t budget_bytes;     /* all packs; over it conversion pauses; 0: no limit but the disk */
    uint64_t calm_bytes_per_s; /* of conversion while not more than one sealed file waits; 0: no limit */
    uint32_t retry_ms;         /* after a failure, doubling up to 64 times that */
    uint64_t row_cache_bytes;  /* row blocks kept in memory */
    size_t pool_bytes;         /* a pack writer's pool; 0: its default */
} cnk_tier_options;

#define CNK_TIER_OPTIONS_INIT                                                                                          \
    { NULL, 0, UINT64_C(64) << 20, 250, UINT64_C(8) << 20, 0 }

/* Limits. */
#define CNK_TIER_READ_BYTES (2u << 20)    /* of a WAL file, at once */
#define CNK_TIER_WALK_ROWS_MAX 131072u    /* entries that all ports together list for one pack */
#ifdef CNK_TEST_HOOKS
#define CNK_TIER_WALK_SLICE 3u
#else
#define CNK_TIER_WALK_SLICE 2048u         /* of them, listed in one turn of a loop */
#endif
#define CNK_TIER_SOURCES_MAX 255u         /* WAL files from which one pack takes entries */
#define CNK_TIER_SCRATCHES_KEPT 2u        /* of CNK_PACK_BLOCK_BUFFER_BYTES, in which row blocks are read */
#define CNK_TIER_HOLES_MAX 8u             /* missing ranges remembered for a stream */

/* ---- opening and closing ---- */

/* Lists the directory, removes temporary files, reads the catalog file, opens the packs that it does not tell of (two reads
 * for each) and syncs the directory. Blocks; at start-up, after cnk_wal_open and before any stream is attached. A pack that
 * cannot be opened is reported (`damaged`) and left out. `events` may be NULL. EIO, ENOMEM, ENOSPC. */
int cnk_tier_open(const chronik_io *io, cnk_wal *wal, const cnk_tier_options *options, const cnk_tier_events *events,
                  void *events_arg, chronik_error *err, cnk_tier **ret_tier);
/* After cnk_tier_drain and with all ports closed, no cold read under way. NULL-safe. */
void cnk_tier_free(cnk_tier *tier);

/* A shard's door; the first one is home. `loop` and `wal_port` are borrowed until it is closed. */
int cnk_tier_port_open(cnk_tier *tier, const chronik_loop *loop, cnk_wal_port *wal_port, cnk_tier_port **ret_port);
void cnk_tier_port_close(cnk_tier_port *port); /* after cnk_tier_drain; NULL-safe */

/* The stream is in use: every stream of the port is attached, right after it was made or recovered. For a recovered
 * one, releases from the WAL what packs hold already, and checks that the packs hold all that has left the WAL.
 * ECORRUPT: something is missing; err says what; the stream is attached, and reads of the missing range fail. ENOMEM.
 */
int cnk_tier_stream_attach(cnk_tier_port *port, cnk_wal_stream *stream, chronik_error *err);
/* The log start has moved (after cnk_wal_trim) or a snapshot was installed: what lies below it is given back. */
void cnk_tier_stream_trimmed(cnk_tier_port *port, cnk_wal_stream *stream);
/* The index of the last entry in packs that, with all before it, lies in sections without any offset from `offset` on; 0:
 * none. Any thread. */
uint64_t cnk_tier_last_index_before(cnk_tier_port *port, uint64_t id, int64_t offset);
/* The stream has been dropped (right after cnk_wal_stream_drop): its space is given back once that is durable. */
void cnk_tier_stream_dropped(cnk_tier_port *port, uint64_t id);

/* Home, before cnk_tier_start: a stream that should be there but is not in the WAL (lost, R4): what packs have of it is not
 * given back, so that it can be repaired. */
void cnk_tier_stream_keep(cnk_tier *tier, uint64_t id);

/* Home: all recovered streams have been attached. Packs' sections of streams that nobody attached are given back, and
 * conversion starts. */
void cnk_tier_start(cnk_tier *tier);

/* Home: the WAL sealed a file (cnk_wal_port_events.sealed); also before cnk_tier_start, in any order, more than once.
 */
void cnk_tier_sealed(cnk_tier *tier, uint32_t file_seq);

/* Home: stops converting and collecting, and calls back once no job and no message is under way. What was not converted
 * stays in the WAL. */
void cnk_tier_drain(cnk_tier *tier, void (*drained)(void *arg), void *arg);

/* ---- reading ---- */

/* For cnk_log_shard.cold. Valid as long as the tier. */
const cnk_log_cold *cnk_tier_cold(cnk_tier *tier);

/* ---- looking ---- */

typedef struct cnk_tier_stats {
    uint64_t packs, pack_bytes; /* on disk */
    uint64_t live_bytes;        /* payloads of streams that are there */
    uint64_t files_waiting;     /* sealed WAL files to convert */
    uint64_t files_kept;        /* converted, but for what is not committed yet or cannot be read */
    uint64_t files_converted, packs_written, bytes_converted;
    uint64_t packs_deleted, packs_rewritten;
    uint64_t catalog_failures; /* the catalog file could not be written */
    uint64_t cold_reads, cold_bytes;
    bool paused, busy;
} cnk_tier_stats;
void cnk_tier_stats_get(cnk_tier *tier, cnk_tier_stats *ret_stats); /* any thread */

/* For fsck, with no node running: checks every pack in the directory, and the catalog file. `say` gets a sentence for each
 * thing that is wrong, and one for each pack. `quarantine`: damaged packs, and a catalog file in which something is wrong, are renamed to
 * ….damaged. 0: all sound, or a catalog file that ends early (which does no harm); ECORRUPT, EIO. */
int cnk_tier_check(const chronik_io *io, const char *dir, bool quarantine, void (*say)(void *arg, const char *sentence),
                   void *say_arg, chronik_error *err);

#ifdef CNK_TEST_HOOKS
/* Bugs that a test can put back, to see that the simulation finds them. */
enum cnk_tier_bug {
    CNK_TIER_BUG_NONE,
    CNK_TIER_BUG_PACK_NOT_SYNCED,   /* the pack is named, and the WAL released, without a sync of its data */
    CNK_TIER_BUG_RENAME_NOT_SYNCED, /* the WAL is released before the directory has been synced */
    CNK_TIER_BUG_DELETED_TOO_EARLY, /* a dropped stream's pack is deleted before the drop is durable */
    CNK_TIER_BUG_FOUND_NOT_SYNCED,  /* packs found at the start are trusted, although their names may be in memory only
                                     */
    CNK_TIER_BUG_NAME_USED_TWICE, /* a thinned out pack takes the name of the old one, and names in the catalog file are
                                     not stepped over */
    CNK_TIER_BUG_COUNT
};
extern enum cnk_tier_bug cnk_tier_bug;
#endif

#endif
