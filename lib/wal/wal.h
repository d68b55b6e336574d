/* wal: one durable log for every stream of a data device: group commit, checkpoints, recovery, recycling.
 *
 * A stream is the ordered entries of one Raft group (a partition, or the metadata), named by a 64-bit id that is never
 * reused. A row describes one frame: an entry and where its payload is, or a change of the stream's state.
 *
 * Threads. A port is a shard's door: it, and every stream attached to it, belongs to the shard's thread. The writer is
 * a job on the WAL lane that takes what all ports have built, writes and syncs it as one, and posts completions to the
 * ports' loops. Functions below are for the port's thread unless they say otherwise.
 *
 * What a caller may rely on:
 *  - `durable` is called only for rows whose write and sync have returned, in the order in which they were appended to
 *    the stream; after a failed write or sync it is never called again, and every append fails with EFENCED.
 *  - Recovery gives back every row that was ever reported durable and that is not truncated, trimmed, released or
 *    dropped; rows that were not reported may be there too, but only as a prefix in stream order, and never in part.
 *
 * Formats, the write order and the crash rules stand in lib/wal/README.md and at the top of format.h. */
#ifndef CNK_WAL_WAL_H
#define CNK_WAL_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/metric.h"
#include "base/uuid.h"

typedef struct cnk_wal cnk_wal;
typedef struct cnk_wal_port cnk_wal_port;
typedef struct cnk_wal_stream cnk_wal_stream;
typedef struct cnk_wal_slab cnk_wal_slab; /* cached memory that holds committed blocks; reference-counted */

typedef struct cnk_lsn { uint64_t v; } cnk_lsn; /* numbers commit blocks, densely, from 1 */

/* What an entry's payload is. Only DATA takes offsets. */
enum {
    CNK_ENTRY_DATA = 1,    /* one record batch, verbatim */
    CNK_ENTRY_CONFIG = 2,  /* the group's voters (R5); the first entry of every stream */
    CNK_ENTRY_LEADER = 3,  /* the first entry of a leader's term; no payload */
    CNK_ENTRY_COMMAND = 4  /* a command of the metadata, or of the log itself */
};

/* One entry, as appended, as recovered, as read. */
typedef struct cnk_wal_entry {
    uint64_t index;        /* Raft index, dense from 1 */
    uint32_t term;
    uint16_t kind;         /* CNK_ENTRY_* */
    uint32_t count;        /* offsets taken; 0 for all kinds but DATA */
    int64_t base_offset;   /* the next offset, for entries that take none */
    int64_t max_timestamp; /* ms; -1: none */
    uint8_t aux[16];       /* the owner's, kept beside the row so that recovery need not read payloads */
    uint32_t len;          /* payload bytes */
} cnk_wal_entry;

typedef struct cnk_wal_options {
    const char *dir;            /* made where missing, with its parent there */
    uint64_t file_bytes;        /* a file is sealed at this size; default 250 MB, at least 100 KB */
    uint64_t budget_bytes;      /* all WAL files; over it appends get EAGAIN; default 1 GiB, at least four files */
    uint64_t cache_bytes;       /* committed blocks kept in memory, for each port; default 64 MiB */
    uint64_t unsynced_bytes_max; /* appended and not yet durable, for each port; over it EAGAIN; default 64 MiB */
    uint32_t seal_after_ms;     /* a file is sealed at this age; default 30 min */
    uint32_t linger_us;         /* least time between the starts of two syncs under many small writers; default 500 */
    bool linger_always;         /* profiles low/medium/high/ultra: wait linger_us before each sync */
} cnk_wal_options;

#define CNK_WAL_OPTIONS_INIT \
    { NULL, UINT64_C(250000000), UINT64_C(1) << 30, UINT64_C(64) << 20, UINT64_C(64) << 20, 1800000, 500, false }

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

/* Recovers the directory and gets ready to append. Blocks; reads checkpoints, footers and the open file. `progress`
 * (may be NULL) is told every second. ECORRUPT where synced data is damaged: err says file, position, streams and the
 * remedy. EBUSY is the caller's business (a lock of the data directory). After success the data that recovery accepted
 * is durable (S4), and no file that recovery read will be appended to. */
int cnk_wal_open(const chronik_io *io, const cnk_wal_options *options,
                 void (*progress)(void *arg, uint64_t bytes_done, uint64_t bytes_all), void *progress_arg,
                 chronik_error *err, cnk_wal **ret_wal);

/* After all ports are closed, on any thread, with no job under way. NULL-safe. */
void cnk_wal_free(cnk_wal *wal);

/* What the owner of a port is told, on the port's thread. */
typedef struct cnk_wal_port_events {
    /* The stream's rows up to this index, and its state changes before them, are durable. Once for each stream and
     * completion; state changes without an entry are reported with the last durable index. */
    void (*durable)(void *arg, cnk_wal_stream *stream, uint64_t durable_index);
    /* All `durable` calls of one completion have been made. */
    void (*durable_end)(void *arg);
    /* A write or a sync failed: nothing appended from now on, or not yet reported, will ever be durable. Once. */
    void (*fenced)(void *arg, const chronik_error *why);
    /* Appends may work again after EAGAIN or ENOSPC. */
    void (*writable)(void *arg);
    /* For the port that opened first only: a file has been sealed, every port has been told of all that is in it, and it wants
     * to be converted and released. */
    void (*sealed)(void *arg, uint32_t file_seq);
    /* Gives the owner's state of the stream for a checkpoint: bytes that it wants back at recovery, as of its applied
     * index. It may change only when a row of the stream has become durable, or the commit index has moved
     * (cnk_wal_stream_commit_set): else the WAL does not ask again, and keeps what it had. Appends to `out`, of at most CNK_WAL_BLOB_MAX bytes. 0 or ENOMEM. */
    int (*snapshot)(void *arg, cnk_wal_stream *stream, cnk_writer *out, uint64_t *ret_applied_index);
} cnk_wal_port_events;

#define CNK_WAL_BLOB_MAX (64u << 20)

int cnk_wal_port_open(cnk_wal *wal, const chronik_loop *loop, const cnk_wal_port_events *events, void *arg,
                      cnk_wal_port **ret_port);
/* After cnk_wal_drain. Detaches the port's streams. */
void cnk_wal_port_close(cnk_wal_port *port);

/* Calls back on the port's thread when all that was appended is durable (or the WAL is fenced, or full: then code says
 * so), the witness block is written and no job of the WAL runs any more. Appends fail with ESHUTDOWN from now on. */
void cnk_wal_drain(cnk_wal_port *port, void (*drained)(void *arg, int code), void *arg);

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* Walks the streams that recovery found, in ascending order of their ids; start with *it = 0; NULL at the end. Before
 * any port is open, and while none of them has been attached, on the opening thread. */
cnk_wal_stream *cnk_wal_recovered_next(cnk_wal *wal, size_t *it);

/* Gives a recovered stream to a port. */
void cnk_wal_stream_attach(cnk_wal_port *port, cnk_wal_stream *stream, void *owner);

/* A new stream: appends INIT. EEXIST where the id has been used. */
int cnk_wal_stream_new(cnk_wal_port *port, uint64_t id, void *owner, cnk_wal_stream **ret_stream);

/* Deletes the stream and all of its entries: appends DROP; the handle is gone. Its space is given back. Works in the
 * state FULL. */
int cnk_wal_stream_drop(cnk_wal_stream *stream);

typedef struct cnk_wal_state {
    uint64_t id;
    uint32_t term;           /* the vote's term, at least the last entry's */
    uint64_t voted_for;      /* the owner's name of the candidate; 0: none */
    uint64_t first_index;    /* the first entry that is still wanted: after a trim, trimmed + 1; else 1 */
    int64_t start_offset;    /* the first offset that is still wanted */
    uint64_t released_index; /* entries up to it are elsewhere (packs), or trimmed */
    int64_t released_offset; /* the offset after them */
    uint32_t released_term;  /* of the entry released_index; 0 where there is none */
    uint64_t last_index;     /* appended; released_index where the WAL holds no entry */
    uint32_t last_term;
    int64_t next_offset;     /* the offset of the next entry */
    uint64_t durable_index;  /* last entry that is durable */
    bool damaged;            /* recovery found synced entries of it corrupt: appends and reads fail with ECORRUPT */
} cnk_wal_state;

const cnk_wal_state *cnk_wal_stream_state(const cnk_wal_stream *stream); /* valid until the next call that changes it */
void *cnk_wal_stream_owner(const cnk_wal_stream *stream);
uint64_t cnk_wal_stream_data_bytes(const cnk_wal_stream *stream); /* payloads of the DATA entries that the WAL holds */

/* Recovery leaves entries that were trimmed in the stream (released_index + 1 below first_index) as far as the owner's
 * state, from below, does not cover them: the owner brings its state up to date, then calls cnk_wal_stream_release.
 *
 * The owner's bytes from the checkpoint that recovery used, and their applied index; len 0 where there are none.
 * Borrowed until cnk_wal_stream_blob_forget or the first append. */
void cnk_wal_stream_blob(const cnk_wal_stream *stream, const uint8_t **ret_data, size_t *ret_len,
                         uint64_t *ret_applied_index);
void cnk_wal_stream_blob_forget(cnk_wal_stream *stream);

/* ---- appending -------------------------------------------------------------------------------------------------- */

/* A payload in pieces (a patched head and the rest, say), copied before the call returns. crc: CRC-32C of the whole. */
typedef struct cnk_wal_payload {
    struct iovec iov[3];
    int iov_count;
    uint32_t crc;
} cnk_wal_payload;

/* Appends one entry: index must be last_index + 1, term at least last_term, base_offset next_offset. The row is in the
 * next block; it is durable when `durable` says so. Fails without a trace: EAGAIN (over a budget: wait for `writable`),
 * ENOSPC (full: wait for `writable`; entries of kinds other than DATA still get in, from a reserve, where they are short:
 * 512 KiB, or a 32nd of a file), ETOOLARGE (over
 * CNK_WAL_PAYLOAD_MAX), EFENCED, ESHUTDOWN, ENOMEM. */
int cnk_wal_append(cnk_wal_stream *stream, const cnk_wal_entry *entry, const cnk_wal_payload *payload);

#define CNK_WAL_PAYLOAD_MAX (256u << 20)

/* State changes; durable in order with the entries. They work in the state FULL. */
int cnk_wal_vote(cnk_wal_stream *stream, uint32_t term, uint64_t voted_for); /* a new term, or the first vote in it */
int cnk_wal_truncate(cnk_wal_stream *stream, uint64_t last_index_kept); /* EINVAL below the commit index (S3) */
int cnk_wal_trim(cnk_wal_stream *stream, uint64_t first_index, int64_t start_offset); /* at most commit index + 1 */
/* A snapshot has been installed: the stream holds nothing, and goes on after this entry (atomic). */
int cnk_wal_reset(cnk_wal_stream *stream, uint64_t last_index, uint32_t last_term, int64_t next_offset);

/* Entries up to it are committed: never truncated, and free to leave the WAL. Soft state; not written. */
void cnk_wal_stream_commit_set(cnk_wal_stream *stream, uint64_t commit_index);

/* Rows that the port has appended so far, and how many of them are durable: what was appended before a look at the first
 * is durable once the second has reached it. The first: the port's thread; the second: any. */
uint64_t cnk_wal_port_appended(const cnk_wal_port *port);
uint64_t cnk_wal_port_durable(const cnk_wal_port *port);

/* Starts writing what has been appended. Called once for each batch of events (chronik_loop_ops.defer); calling it too
 * often only makes blocks smaller. */
void cnk_wal_kick(cnk_wal_port *port);

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Where an entry's payload is. */
typedef struct cnk_wal_place {
    cnk_wal_entry entry;
    uint32_t crc;
    const uint8_t *data; /* in memory, or NULL */
    cnk_wal_slab *slab;  /* that holds data; take a reference before the shard's next event if it is kept */
    uint32_t file_seq;   /* where it is on disk */
    uint64_t file_pos;
} cnk_wal_place;

/* The entry with this index, or the DATA entry that holds this offset or else the first one after it. Only entries that
 * the WAL holds (above released_index), durable or not. ENOTFOUND otherwise. */
int cnk_wal_find_index(const cnk_wal_stream *stream, uint64_t index, cnk_wal_place *ret_place);
int cnk_wal_find_offset(const cnk_wal_stream *stream, int64_t offset, cnk_wal_place *ret_place);
/* The first DATA entry that ends after `offset` whose max_timestamp is at or after this. */
int cnk_wal_find_timestamp(const cnk_wal_stream *stream, int64_t offset, int64_t timestamp, cnk_wal_place *ret_place);
/* The DATA entry with the greatest max_timestamp, the first of equals, of those that end after `offset` and begin before
 * `end`. Looks at every entry: for what is rare. */
int cnk_wal_find_newest(const cnk_wal_stream *stream, int64_t offset, int64_t end, cnk_wal_place *ret_place);

void cnk_wal_slab_ref(cnk_wal_slab *slab);
void cnk_wal_slab_unref(cnk_wal_slab *slab);
/* The size of all slabs that readers hold, each once: one small reference keeps the whole slab, also after the cache has
 * done with it. The port's thread. */
uint64_t cnk_wal_port_held_bytes(const cnk_wal_port *port);

/* Pins a file so that it is not recycled while something reads it; NULL where it is gone. Any thread. */
typedef struct cnk_wal_file cnk_wal_file;
cnk_wal_file *cnk_wal_file_pin(cnk_wal *wal, uint32_t file_seq);
void cnk_wal_file_unpin(cnk_wal_file *file);
/* Reads an entry's payload and checks its CRC: 0, ECORRUPT, EIO. Blocks: from jobs and start-up only. */
int cnk_wal_file_read(cnk_wal_file *file, uint64_t pos, uint32_t len, uint32_t crc, void *buf, chronik_error *err);
/* Reads raw bytes of a file, for a conversion that reads it sequentially in large pieces and checks the entries' CRCs
 * itself. pos, len and buf are multiples of 4096. Returns the bytes read (short only at the file's end) or EIO. Jobs. */
int64_t cnk_wal_file_read_raw(cnk_wal_file *file, uint64_t pos, size_t len, void *buf, chronik_error *err);

/* ---- leaving the WAL -------------------------------------------------------------------------------------------- */

/* Walks the entries of a sealed file that are live in this port's streams, committed ones only, by stream and index.
 * Start with *it zeroed; false at the end. The port's thread. Other calls may come between, and streams be dropped: then
 * the walk goes on behind what it has told. A port has one walk at a time; one that is not walked to its end is ended. */
typedef struct cnk_wal_walk {
    void *stream;
    size_t row; /* the next one; and the index of the one before */
    uint64_t index;
} cnk_wal_walk;
void cnk_wal_walk_end(cnk_wal_port *port);
bool cnk_wal_walk_file(cnk_wal_port *port, uint32_t file_seq, cnk_wal_walk *it, cnk_wal_stream **ret_stream,
                       cnk_wal_place *ret_place);

/* Entries up to `index` are safe elsewhere: the WAL forgets them. Not written: a checkpoint records it. The file is free
 * once a checkpoint covers it (cnk_wal_checkpoint). */
void cnk_wal_stream_release(cnk_wal_stream *stream, uint64_t index);
/* As above; whoever has them knows that the offsets after them begin at `end_offset`. (An entry that a repair has put in the
 * place of a lost one takes no offsets.) */
void cnk_wal_stream_release_to(cnk_wal_stream *stream, uint64_t index, int64_t end_offset);

/* Rewrites into the open file the entries of a sealed file that were not committed when it was walked (that are not now,
 * where it is not the file of the last walk). One at a time for each port. Calls back on the port's thread, perhaps before it
 * returns: 0: all of them are on their way, and durable before the file is freed; EAGAIN: some stay for now, since there is
 * no room, or they are too much to be worth it, or cannot be read; EFENCED, ENOMEM. */
void cnk_wal_rewrite(cnk_wal_port *port, uint32_t file_seq, void (*done)(void *arg, int code), void *arg);

/* Takes a checkpoint of all ports, then frees what it covers. Any port; a call while one runs asks for one more after
 * it. It never holds up a commit. Nobody has to ask: as long as there is a file to free, the WAL takes them by itself. Nothing
 * happens before ports have all recovered streams. */
void cnk_wal_checkpoint(cnk_wal_port *port);

/* ---- looking ---------------------------------------------------------------------------------------------------- */

typedef struct cnk_wal_stats {
    uint64_t blocks, syncs, bytes_written, payload_bytes, rows;
    uint64_t files_live, files_spare, bytes_on_disk, checkpoints;
    cnk_latency_counts sync_latency;
    cnk_sizes_counts sync_rows, sync_bytes; /* what one sync makes durable, and a witness is nothing */
    uint64_t queued_rows, queued_bytes;     /* appended, and not taken by the writer */
    uint64_t unsynced_bytes, unsynced_bytes_max; /* appended, and not reported durable; the limit of all ports */
    uint64_t budget_bytes, room_bytes;           /* room: of data that may still be accepted */
    uint64_t unsynced_refused, room_refused;     /* appends of data, for want of the one and the other */
    bool full, fenced;
} cnk_wal_stats;
void cnk_wal_stats_get(cnk_wal *wal, cnk_wal_stats *ret_stats); /* any thread */
void cnk_wal_fenced_by(cnk_wal *wal, chronik_error *ret_why);   /* any thread; code 0: it is not */
bool cnk_wal_busy(const cnk_wal *wal); /* entries were committed a moment ago, so more are likely to come; any thread */

#endif
