/* What the two sides of a fetch share: its run on the caller's shard, and its groups on the shards that own partitions.
 *
 *   caller's shard (fetch.c)                                       owner's shard (fetch_owner.c)
 *   run: groups, deadline ──COLLECT──► group: for each want: references to hot data, places of cold data, errors;
 *        ▲      │   ▲                          arms a waiter on each partition
 *        │      │   └────reply─────────────┘        │
 *        │      │                                   │ high watermark moves
 *        │      └───────◄──────────WAKE─────────────┘ once for each COLLECT
 *        │
 *     enough, an error, the deadline, a cancel: cut to max_bytes, read what is cold by jobs, done
 *     given back: ──RELEASE──► drops references, disarms ──► the group is freed at home
 *
 * A group's memory is touched by its owner from COLLECT or RELEASE until the answer; else by the caller's shard; but
 * the waiters (`armed`, `woken`) always by the owner. COLLECT, WAKE and RELEASE each have a message of their own, and
 * a run is freed only after RELEASE has come home, behind which no WAKE can be (the order of messages is kept). */
#ifndef CNK_BROKER_FETCH_H
#define CNK_BROKER_FETCH_H

#include <stdatomic.h>

#include "broker/internal.h"

#define CNK_FETCH_FILE_PIECES_MAX 1024 /* batches read from WAL files for one partition of one answer */

typedef struct cnk_fetch_run cnk_fetch_run;
typedef struct cnk_fetch_group cnk_fetch_group;
typedef struct cnk_extent cnk_extent; /* fetch_cold.c */

typedef struct file_piece { /* batches that lie in a WAL file */
    uint64_t pos;
    int64_t end_offset;
    uint32_t file_seq, bytes, crc;
} file_piece;

/* What one job reads: batches of one partition, from an offset on. */
typedef struct cnk_cold_read {
    /* asked */
    const cnk_broker *broker;
    uint64_t stream;
    int64_t offset, end;
    const file_piece *pieces; /* where they lie in WAL files; NULL: in the cold tier */
    size_t piece_count;
    uint32_t bytes_max;
    bool one_always; /* the first batch, even if it does not fit */
    /* answered */
    int code;
    int64_t next; /* the offset from which a reader goes on */
    cnk_rope rope;
    chronik_job job;
} cnk_cold_read;

typedef struct cnk_fetch_want {
    /* asked */
    uint64_t stream;
    int64_t offset;
    uint32_t bytes_max;
    int32_t leader_epoch;
    /* answered by the owner */
    int error;
    int64_t high_watermark, last_stable, log_start, end; /* end: what the reader may see */
    int32_t leader_id, leader_epoch_now;
    size_t slice_first, slice_count; /* in the group */
    uint32_t hot_bytes, first_bytes; /* first_bytes: of the first batch */
    uint32_t cold_bytes;             /* of the pieces, or a hint */
    bool from_tier;                  /* cold data is in the cold tier, not in WAL files */
    size_t piece_first, piece_count; /* in the group */
    size_t behind_count;             /* pieces that follow those, for reading ahead */
    /* the owner's waiter */
    cnk_list armed; /* in the partition's list */
    cnk_fetch_group *group;
    uint32_t given; /* bytes that were answered; the owner counts them when it is released */
    /* from files: asked */
    uint32_t allotted;
    bool one_always;
    bool sequential;    /* begins where an earlier fetch ended */
    cnk_list cold_node; /* in extent->wants, while it waits */
    /* answered; the slices are the extent's, or cut from it */
    int cold_code;
    cnk_extent *extent;
    const struct iovec *cold_slices;
    struct iovec *cold_cut;
    size_t cold_slice_count;
    uint32_t cold_len;
    int64_t cold_next; /* the offset behind it */
} cnk_fetch_want;

struct cnk_fetch_group {
    cnk_fetch_run *run;
    cnk_shard *owner, *home;
    chronik_post collect_post, wake_post, release_post;
    cnk_list woken_node; /* in home->fetches_woken, where home is the owner */
    cnk_fetch_want *wants;
    size_t want_count, want_capacity;
    uint32_t bytes_max;
    struct iovec *slices;
    cnk_wal_slab **slabs;
    size_t slice_count, slice_capacity, slab_count, slab_capacity;
    file_piece *pieces;
    size_t piece_count, piece_capacity;
    uint64_t pinned; /* bytes that count against the owner's cap */
    uint64_t bytes;  /* hot and cold, of all wants */
    bool any_error;
    bool read_committed;
    bool woken;          /* the owner's: WAKE is out, nothing more to say */
    uint64_t wakes_sent; /* the owner's */
    /* home's; the owner looks at it at COLLECT, since a WAKE that is still on its way must not be sent again. Home may see one at
     * that very moment: then it collects again (`again`), whichever the owner has read. */
    _Atomic uint64_t wakes_seen;
    bool busy, again; /* home's: COLLECT is out; a WAKE has come since it was sent */
};

struct cnk_fetch_run {
    cnk_list node;      /* in home->fetches */
    cnk_list cold_node; /* in home->cold_waiting */
    cnk_shard *home;
    cnk_fetch *op; /* NULL: given back */
    cnk_fetch_group *groups;
    size_t group_count;
    cnk_deadline deadline;
    uint64_t begun_ns;
    size_t collecting, jobs, releasing;
    bool cold;         /* holds extents, or room */
    uint64_t reserved; /* room for a conversion */
    uint64_t skipped_bytes; /* cold ones for which the answer has no room */
    uint32_t ahead_left; /* bytes that may still be read for the fetch after it */
    struct cnk_fetch_conversion *conversion; /* NULL: none */
    bool starting, waiting, expired, canceled, finishing, retried, done, part_error;
};

/* fetch_convert.c */
bool cnk_fetch_convert_begin(cnk_fetch_run *run); /* false: there is nothing to convert; else cnk_fetch_converted comes */
void cnk_fetch_convert_free(cnk_fetch_run *run);  /* NULL-safe */
void cnk_fetch_converted(cnk_fetch_run *run);     /* fetch.c */
/* fetch_owner.c: messages to the owner */
void cnk_fetch_collect(chronik_post *post);
void cnk_fetch_release(chronik_post *post);
/* fetch.c: messages home */
void cnk_fetch_collected(chronik_post *post);
void cnk_fetch_wake(chronik_post *post);
void cnk_fetch_released(chronik_post *post);
void cnk_fetch_cold_finished(cnk_fetch_run *run); /* one of its wants has got what it waited for, or an error */
void cnk_fetch_admit(cnk_shard *shard);           /* there may be room for those who wait for it */
/* fetch_read.c */
void cnk_cold_read_start(cnk_cold_read *read, const chronik_loop *loop, void (*done)(chronik_job *job));
/* fetch_cold.c */
uint64_t cnk_cold_need(const cnk_fetch_run *run);          /* bytes that it would read */
bool cnk_cold_room(cnk_shard *home, uint64_t bytes);       /* makes it; false: there is none while others hold theirs */
void cnk_cold_reserve(cnk_shard *home, uint64_t bytes);    /* for what is no extent */
void cnk_cold_unreserve(cnk_shard *home, uint64_t bytes);
void cnk_cold_start(cnk_fetch_run *run);                   /* for each want that waits, cnk_fetch_cold_finished comes */
void cnk_cold_give_back(cnk_fetch_want *want);

#endif
