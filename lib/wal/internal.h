/* The WAL's insides, shared by its files.
 *
 * Who owns what. A port and its streams: the port's thread, but for the members marked [port->mutex], which the writer
 * takes too. The members of cnk_wal marked [mutex]: whoever holds wal->mutex; it may be held while a port's mutex is
 * taken, never the other way round. The members marked [writer]: the writer job. [bg]: the background job. */
#ifndef CNK_WAL_INTERNAL_H
#define CNK_WAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/metric.h"
#include "wal/format.h"
#include "wal/wal.h"

enum {
    CNK_WAL_SLAB_BYTES = 2 << 20,
    CNK_WAL_ZEROS_BYTES = 2 << 20, /* a huge page of them, for direct writes of half of it */
    CNK_WAL_COMMIT_BYTES_MAX = 16 << 20,
    CNK_WAL_COMMIT_BLOCKS_MAX = 512,
    CNK_WAL_FILE_ROWS_MAX = 262144,
    CNK_WAL_SPARES = 2,
    CNK_WAL_SLAB_POOL_MAX = 4,
    CNK_WAL_SLAB_AHEAD_BYTES = CNK_WAL_SLAB_BYTES / 4, /* when so much of a slab is used, the next one is made */
    CNK_WAL_FIRST_FILE_BYTES = 16 << 20,
    CNK_WAL_LAST_RESORT_BYTES = 1 << 20, /* the first file on a full disk */
    CNK_WAL_RESERVE_BYTES = 4 << 20, /* for rows without data, or a quarter of a file */
    CNK_WAL_MOVES_MAX = 64,          /* entries that are read at once, to be moved */
    CNK_WAL_OVER_FILES = 2,          /* by so many files at most the budget is exceeded: see files.c */
    CNK_WAL_WITNESS_MS = 100,
    CNK_WAL_BUSY_MS = 100, /* after a commit */
    CNK_WAL_FULL_RETRY_MS = 1000,
    CNK_WAL_FREE_MS = 20, /* at least so long between checkpoints that free files */
    CNK_WAL_CHECKPOINT_SLICE = 256, /* streams written down in one turn of the loop */
    CNK_WAL_CHECKPOINT_STEP_BYTES = 1 << 20 /* of a checkpoint, written in one step of the background job */
};

/* Bugs that a test can put back, to see that the simulation finds them. */
#ifdef CNK_TEST_HOOKS
enum cnk_wal_bug {
    CNK_WAL_BUG_NONE,
    CNK_WAL_BUG_ACK_BEFORE_SYNC,
    CNK_WAL_BUG_RECYCLED_BLOCKS_LIVE,
    CNK_WAL_BUG_PAYLOAD_BLOCKS_LIVE,
    CNK_WAL_BUG_CHECKPOINT_FORGETS,
    CNK_WAL_BUG_FREE_WITHOUT_CHECKPOINT,
    CNK_WAL_BUG_TAIL_NOT_SYNCED,
    CNK_WAL_BUG_RENAME_NOT_SYNCED,
    CNK_WAL_BUG_CUT_IN_SYNCED,
    CNK_WAL_BUG_COPY_STALE, /* a checkpoint copies a stream from the one before although it voted, or was truncated or trimmed, since */
    CNK_WAL_BUG_COPY_DROPPED, /* a checkpoint copies streams that were dropped since the one before */
    CNK_WAL_BUG_RELEASE_EARLY, /* data leaves the WAL before its pack is synced; used by tier */
    CNK_WAL_BUG_TRIM_AHEAD,    /* recovery cuts what was trimmed although the owner's state does not cover it */
    CNK_WAL_BUG_LEAVE_COMMITTED, /* what was committed since a file was walked is not moved out of it; sim_tier's */
    CNK_WAL_BUG_TELL_EARLY,      /* a sealed file is told of before all ports know what is in it; sim_tier's */
    CNK_WAL_BUG_COUNT
};
extern enum cnk_wal_bug cnk_wal_bug;
extern void (*cnk_wal_moved)(struct cnk_wal_stream *stream); /* a REWRITE row of the stream has been appended */
#define CNK_WAL_BUG(b) (cnk_wal_bug == CNK_WAL_BUG_##b)
#else
#define CNK_WAL_BUG(b) 0
#endif

struct cnk_wal_file {
    cnk_wal *wal;
    chronik_file *handle;
    char *path;
    uint64_t number, uid, bytes; /* bytes: its size on disk */
    enum { FILE_SPARE, FILE_OPEN, FILE_SEALED, FILE_FREE } state; /* [mutex] */
    uint64_t first_lsn, last_lsn; /* last_lsn: [writer] while open */
    uint32_t last_crc;
    uint64_t used;                /* [writer] bytes, from the front */
    uint8_t *rows;                /* [writer], then [bg]: rows for the footer, 72 bytes each */
    size_t rows_count, rows_capacity;
    uint32_t *block_rows;
    size_t blocks_count, blocks_capacity;
    bool footer_wanted, footer_there, sealed_told; /* [mutex] */
    bool no_footer;               /* [writer] there was no memory for its rows, or something in it is damaged */
    _Atomic int64_t live;         /* entries that streams have in it */
    _Atomic int64_t pins;
};

/* One entry in a stream's index. */
typedef struct cnk_wal_extent {
    cnk_wal_row row; /* pos: unused */
    cnk_wal_file *file; /* NULL: not durable yet */
    uint32_t file_pos;
    uint32_t slab_seq, slab_pos;
    bool moving; /* it has been appended again, and that is not durable yet */
} cnk_wal_extent;

/* An entry that is read to be moved. */
typedef struct cnk_wal_move {
    cnk_wal_stream *stream; /* NULL: gone */
    uint64_t index;
    uint32_t file_pos, len, crc;
    const uint8_t *data; /* NULL: it cannot be read */
} cnk_wal_move;

typedef struct cnk_wal_extents {
    cnk_wal_extent *items; /* a ring */
    size_t head, count, capacity;
} cnk_wal_extents;

struct cnk_wal_stream {
    cnk_wal *wal;
    cnk_wal_port *port; /* NULL: not attached yet */
    void *owner;
    cnk_wal_state now;     /* what has been appended */
    cnk_wal_state durable; /* what is durable: goes into checkpoints */
    cnk_wal_extents extents;
    uint64_t data_bytes;   /* payloads of DATA entries in extents; once it is attached */
    uint64_t commit_index;
    uint64_t walked_commit, walked_last; /* the commit index and the last index when a walk was done with it */
    uint8_t *blob;
    size_t blob_len;
    uint64_t blob_applied;
    bool exists; /* its INIT is durable */
    bool dropped, touched; /* touched: in the list of a completion under way */
    uint32_t rows_in_flight;
    uint64_t rows_durable; /* since it was attached */
    /* What the newest checkpoint says of it: still true; not any more; being written down; written down for a checkpoint that
     * is not known to be durable. */
    enum { STREAM_CLEAN, STREAM_CHANGED, STREAM_WRITING, STREAM_WRITTEN } noted;
    cnk_list noted_link; /* port->changed, ->writing or ->written; else unlinked */
    uint32_t cuts_in_flight; /* truncations and resets that are not durable yet */
    uint64_t cut_index;      /* the lowest index that they keep: later entries are others than those that are durable */
    cnk_list link;         /* port->streams */
    cnk_wal_stream *touched_next;
    /* recovery only */
    uint64_t as_of_lsn;
    bool settled, known;
    uint64_t extents_first;
    size_t recovered_at;
    uint64_t suspect_lsn;
};

struct cnk_wal_slab {
    cnk_wal_port *port;
    uint8_t *data;
    size_t size, used; /* used: [port->mutex] */
    uint32_t seq;
    uint32_t in_flight; /* blocks in it that are not durable yet */
    uint32_t refs; /* the port's thread: the cache's, each block's, readers' */
    uint32_t readers; /* of these, readers' */
    cnk_wal_slab *next;
};

typedef struct cnk_wal_block_row {
    cnk_wal_row row;
    cnk_wal_stream *stream;
} cnk_wal_block_row;

/* Entries that a truncation, trim or drop took out of the index: counted out of their file once it is durable. */
typedef struct cnk_wal_release {
    cnk_wal_file *file;
    uint32_t entries;
} cnk_wal_release;

typedef struct cnk_wal_block {
    cnk_wal_port *port;
    cnk_wal_slab *slab;
    uint8_t *data;
    size_t used, len; /* len: once sealed */
    cnk_wal_block_row *rows;
    size_t rows_count, rows_capacity;
    cnk_wal_release *releases;
    size_t releases_count, releases_capacity;
    uint64_t payload_bytes;
    uint64_t lsn;
    cnk_wal_file *file;
    uint64_t file_pos;
    bool failed;
    struct cnk_wal_block *next;
} cnk_wal_block;

typedef struct cnk_wal_block_queue { cnk_wal_block *first, *last; } cnk_wal_block_queue;

struct cnk_wal_port {
    cnk_wal *wal;
    const chronik_loop *loop;
    cnk_wal_port_events events;
    void *arg;
    pthread_mutex_t mutex;
    cnk_wal_block *open;          /* [port->mutex] being filled; may be NULL */
    cnk_wal_block_queue sealed;   /* [port->mutex] wait for the writer */
    cnk_wal_block_queue done;     /* [port->mutex] written and synced (or failed) */
    uint64_t first_lsn_in_flight; /* [port->mutex] the oldest block taken and not yet completed; 0: none */
    uint32_t blocks_in_flight;    /* [port->mutex] */
    uint32_t cuts_pending;        /* [port->mutex] truncations, resets and drops that are not durable */
    uint64_t unsynced_bytes;      /* [port->mutex] appended and not completed */
    uint64_t pending_bytes;       /* [port->mutex] appended and not taken by the writer */
    uint64_t refused_memory, refused_room; /* [port->mutex] appends of data */
    bool done_posted;             /* [port->mutex] */
    chronik_post done_post;
    cnk_wal_block *free_blocks;   /* kept for reuse */
    size_t free_blocks_count;
    cnk_list streams; /* a dropped one stays until the row that says so is durable */
    /* slabs in the cache: sequence numbers [slab_first, slab_first + slab_count) */
    cnk_wal_slab **slabs;
    uint32_t slab_first, slab_count, slabs_capacity;
    uint64_t slab_bytes, held_bytes; /* held: by readers, cached or not */
    cnk_wal_slab *pool;
    size_t pool_count;
    struct {
        chronik_job job;
        cnk_wal_slab *slab; /* a background job makes its pages; NULL: none is under way */
    } ahead;
    cnk_wal_walk *walk;            /* under way; NULL: none */
    uint32_t walked_file;          /* of the last walk that came to its end; 0: none */
    uint64_t rows_appended;        /* of streams of this port, since it was opened */
    _Atomic uint64_t rows_durable; /* of them */
    bool fenced_told, blocked, draining;
    void (*drained)(void *arg, int code);
    void *drained_arg;
    chronik_post wake_post;  /* from the writer or the background job: fenced, writable, sealed, drained */
    bool wake_posted;        /* [mutex] */
    chronik_timer *timer;    /* the first port's: witness, full, age */
    uint64_t timer_at_ns;
    struct {
        void (*done)(void *arg, int code); /* NULL: nothing is under way */
        void *arg;
        int code;
        cnk_wal_file *file; /* pinned */
        chronik_job job;
        cnk_wal_move items[CNK_WAL_MOVES_MAX]; /* the job's while it runs, but for `stream` */
        size_t count;
        uint64_t bytes;
        uint8_t *buf;
    } rewrite;
    /* checkpoint */
    chronik_post checkpoint_post;
    cnk_list changed, writing, written; /* streams, by their `noted` */
    uint64_t *gone;  /* ids of streams dropped since the checkpoint before; there is room for all that are being dropped */
    size_t gone_count, gone_capacity, gone_written, dropping; /* gone_written: how many the checkpoint under way leaves out */
    bool checkpoint_begun;
    /* handed to the background job by the last slice, and freed by it */
    cnk_writer checkpoint_rows;
    uint64_t *checkpoint_gone;
    size_t checkpoint_gone_count;
    uint64_t checkpoint_as_of;
    uint64_t checkpoint_streams;
    int checkpoint_error;
};

enum { CNK_WAL_PORTS_MAX = 256 };

struct cnk_wal {
    const chronik_io *io;
    cnk_wal_options options;
    char *dir;
    pthread_mutex_t mutex;
    cnk_wal_port *ports[CNK_WAL_PORTS_MAX]; /* [mutex] */
    size_t ports_count;
    cnk_wal_file **files; /* [mutex] ascending by number */
    size_t files_count, files_capacity;
    uint64_t next_number;  /* [mutex] */
    uint64_t disk_bytes;   /* [mutex] of all files */
    _Atomic bool full, fenced, shutdown;
    _Atomic bool sealed_waits; /* a port may have to be told of blocks before a sealed file is told of */
    _Atomic int64_t room; /* bytes of data that may still be accepted; the reserves are taken off */
    _Atomic int64_t moves_room; /* what may be moved beyond that */
    uint64_t data_bytes_max; /* [mutex] the budget; or, as long as it is exceeded since the start, what there was then */
    bool moves_wanted;     /* [mutex] something could not be moved for lack of room */
    _Atomic int64_t starved; /* the smallest amount of data that was refused for lack of room; 0: none */
    uint64_t reserve_bytes, block_bytes_max;
    chronik_error why; /* [mutex] of the fencing */

    /* writer */
    chronik_job writer;
    bool writer_scheduled;     /* [mutex] */
    bool waiting_for_spare;    /* [mutex] */
    bool witness_wanted;       /* [mutex] */
    bool timer_armed;          /* [mutex] */
    uint64_t timer_at_ns; /* [mutex] when it fires, while it is armed */
    cnk_wal_file *open;        /* [writer] */
    uint64_t waiting_bytes;    /* [mutex] the size of file that the writer waits for */
    uint64_t need_bytes;       /* [mutex] the size of file that refused data needs; 0: none was refused */
    _Atomic uint64_t next_lsn;
    _Atomic uint64_t durable_lsn;
    uint64_t witnessed_lsn;    /* [writer] the newest lsn that a durable watermark names */
    uint64_t rows_lsn;         /* [writer] the newest block that has rows */
    uint64_t prev_uid, prev_number, prev_last_lsn; /* [writer] of the file before the open one */
    uint32_t prev_crc;         /* [writer] of the last block */
    uint32_t header_prev_crc;  /* [writer] what the open file's header repeats */
    size_t first_port;         /* [writer] whose blocks go first, in turn */
    enum { WRITER_GATHER, WRITER_WRITE, WRITER_SYNC, WRITER_DONE } writer_state;
    cnk_wal_block *commit[CNK_WAL_COMMIT_BLOCKS_MAX];
    size_t commit_count;
    size_t commit_rows, commit_rows_before;
    uint64_t commit_pos, commit_bytes;
    bool commit_witness, commit_header;
    uint64_t last_sync_ns;
    uint64_t last_activity_ns; /* [mutex] */
    _Atomic uint64_t busy_until_ns;
    uint64_t open_since_ns;    /* [mutex] when the open file got its first block; 0: none */
    bool seal_wanted;          /* [mutex] */
    bool ahead;                /* [mutex] a quarter of the open file is used, and the background job knows */
    uint8_t *witness_block;    /* one aligned page */
    uint8_t *header_block;     /* one aligned page */
    cnk_latency sync_latency;
    cnk_sizes sync_rows, sync_bytes;
    cnk_counter blocks, syncs, bytes_written, payload_bytes, rows, checkpoints;

    /* background */
    chronik_job bg;
    bool bg_scheduled; /* [mutex] */
    struct {
        enum { BG_IDLE, BG_FILL } state;
        cnk_wal_file *file; /* being prepared */
        char *tmp_path;
        uint64_t filled;
        uint64_t retry_at_ns;
    } prep;
    bool scanned;     /* [mutex] recovery has scanned files, which are to get their footers */
    bool spare_retry; /* [mutex] a spare is wanted, and memory was short for it, or it is not time yet to try again */
    uint8_t *zeros; /* CNK_WAL_ZEROS_BYTES, while a file is being filled */

    /* checkpoint */
    bool checkpoint_running, checkpoint_again; /* [mutex] */
    uint64_t checkpoint_not_before_ns;         /* [mutex] for those that the WAL takes by itself */
    size_t checkpoint_ports_left;              /* [mutex] */
    uint64_t checkpoint_number;                /* of the newest durable one */
    uint64_t checkpoint_lsn;
    uint32_t checkpoint_crc;
    bool checkpoint_ok;       /* [mutex] the last attempt came to a durable file */
    uint64_t checkpoint_base; /* [mutex] the checkpoint from which clean streams are copied; 0: none, write down all */
    uint32_t checkpoint_base_crc;
    struct {
        enum { COPY_IDLE, COPY_ROWS, COPY_BASE, COPY_FINISH } state;
        chronik_file *file, *base;
        char *path, *tmp;
        cnk_writer head;    /* header and live files; written at the end */
        cnk_map skip;       /* streams that are not copied: written down anew, or gone */
        uint64_t pos;       /* bytes written, and those left for the head */
        uint64_t streams;
        uint32_t crc;       /* of what follows the head */
        size_t port, port_pos;
        uint64_t base_pos, base_len, row_left; /* row_left: of the row that is under way */
        uint32_t base_crc;
        bool keep;          /* the row under way is copied */
        uint8_t *buf;
    } copy; /* [bg] */
    bool checkpoint_write; /* [mutex] all ports have written down theirs: the background job's turn */
    bool checkpoint_row_wanted; /* [mutex] file is durable: the first port appends the row */
    cnk_wal_file **checkpoint_candidates;
    size_t checkpoint_candidates_count, checkpoint_candidates_capacity;

    /* recovery */
    bool inspect; /* nothing on disk is changed or synced: fsck */
    cnk_map streams_by_id; /* until ports take them; later: none */
    cnk_wal_stream **recovered;
    size_t recovered_count, recovered_capacity;
    size_t recovered_left; /* [mutex] no port has them yet */
    cnk_map used_ids;
};

/* extents.c */
cnk_wal_extent *cnk_wal_extents_at(const cnk_wal_extents *x, uint64_t index); /* NULL: not there */
int cnk_wal_extents_reserve(cnk_wal_extents *x);
void cnk_wal_extents_push(cnk_wal_extents *x, const cnk_wal_extent *extent); /* after reserve */
static inline cnk_wal_extent *cnk_wal_extents_nth(const cnk_wal_extents *x, size_t n) {
    return &x->items[(x->head + n) & (x->capacity - 1)];
}

/* stream.c */
void cnk_wal_state_apply(cnk_wal_state *state, const cnk_wal_row *row); /* what a row does to a stream's state */
cnk_wal_stream *cnk_wal_stream_make(cnk_wal *wal, uint64_t id);
void cnk_wal_stream_destroy(cnk_wal_stream *s);
void cnk_wal_walk_leave(cnk_wal_port *port, const cnk_wal_stream *s); /* the stream is gone */

/* port.c */
void cnk_wal_port_complete(chronik_post *post);
void cnk_wal_port_wake(chronik_post *post);
void cnk_wal_port_post_wake(cnk_wal_port *port);   /* any thread, wal->mutex held */
/* The first block that a port has not been told of yet: entries from there on are not counted as live in their file. With
 * wal->mutex held. cuts: a port has cut entries off, and not been told that this is durable. */
uint64_t cnk_wal_first_untold(const cnk_wal *wal, bool *ret_cuts);
cnk_wal_block *cnk_wal_port_take(cnk_wal_port *port); /* [port->mutex] the next block for the writer, sealed; or NULL */
bool cnk_wal_port_peek(const cnk_wal_port *port, size_t *ret_len, size_t *ret_rows); /* [port->mutex] */
int cnk_wal_port_append_row(cnk_wal_port *port, cnk_wal_stream *stream, cnk_wal_row *row, const cnk_wal_payload *payload,
                            const cnk_wal_release *releases, size_t releases_count, uint32_t *ret_slab_seq,
                            uint32_t *ret_slab_pos);
const uint8_t *cnk_wal_port_cached(const cnk_wal_port *port, uint32_t seq, uint32_t pos, cnk_wal_slab **ret_slab);

/* writer.c */
int64_t cnk_wal_writer_step(chronik_job *job);
void cnk_wal_writer_wake(cnk_wal *wal); /* wal->mutex held */
void cnk_wal_pending(const cnk_wal *wal, size_t *ret_rows, uint64_t *ret_bytes); /* wal->mutex held: not taken yet */
void cnk_wal_fence(cnk_wal *wal, const chronik_error *why);

/* files.c */
int cnk_wal_file_new(cnk_wal *wal, uint64_t number, cnk_wal_file **ret_file);
void cnk_wal_file_destroy(cnk_wal_file *f);
int cnk_wal_files_add(cnk_wal *wal, cnk_wal_file *f);             /* wal->mutex held */
void cnk_wal_files_remove(cnk_wal *wal, cnk_wal_file *f);         /* wal->mutex held */
cnk_wal_file *cnk_wal_files_spare(cnk_wal *wal, uint64_t bytes);  /* wal->mutex held: the lowest spare, or NULL */
size_t cnk_wal_files_spare_count(const cnk_wal *wal);             /* wal->mutex held */
void cnk_wal_file_leave(cnk_wal_file *file, uint32_t entries); /* entries of streams have left it; any thread, no mutex */
bool cnk_wal_file_quarter_full(const cnk_wal_file *f);            /* wal->mutex held: time to prepare the next one */
bool cnk_wal_files_next_affordable(const cnk_wal *wal);           /* wal->mutex held: a file more, if one is sealed early */
/* Remembers a block's rows for the footer. Without memory the file simply gets none. The writer's, or recovery's. */
void cnk_wal_file_note(cnk_wal_file *f, const uint8_t *block, size_t table, size_t rows, uint64_t file_pos);
void cnk_wal_file_forget_rows(cnk_wal_file *f);
uint64_t cnk_wal_file_room_needed(const cnk_wal_file *f, size_t more_blocks, size_t more_rows);
int cnk_wal_sync_dir(cnk_wal *wal, chronik_error *err); /* fences on failure */
char *cnk_wal_path(const cnk_wal *wal, uint64_t number, const char *suffix);
int64_t cnk_wal_bg_step(chronik_job *job);
void cnk_wal_bg_wake(cnk_wal *wal); /* wal->mutex held */
int cnk_wal_first_file(cnk_wal *wal, chronik_error *err);
void cnk_wal_room_update(cnk_wal *wal); /* wal->mutex held */

/* checkpoint.c */
void cnk_wal_checkpoint_port(chronik_post *post);
void cnk_wal_stream_changed(cnk_wal_stream *s); /* what a checkpoint says of it is not so any more */
void cnk_wal_checkpoint_append(cnk_wal *wal);                      /* the first port's thread */
uint64_t cnk_wal_checkpoint_due_ns(cnk_wal *wal);                  /* [mutex] UINT64_MAX: there is nothing to free */
void cnk_wal_checkpoint_if_due(cnk_wal *wal);                      /* the first port's thread */
void cnk_wal_checkpoint_put_off(cnk_wal *wal);                     /* [mutex] the last one failed */
void cnk_wal_checkpoint_durable(cnk_wal *wal);                  /* the first port's thread: the row is durable */

/* checkpoint_file.c */
int cnk_wal_checkpoint_step(cnk_wal *wal, chronik_error *err); /* [bg] EAGAIN: there is more; 0: durable */
void cnk_wal_checkpoint_abandon(cnk_wal *wal);                 /* [bg], or when no job runs any more */

/* rewrite.c */
void cnk_wal_rewrite_forget(cnk_wal_port *port, const cnk_wal_stream *s); /* the stream is gone */

/* recover.c */
uint64_t cnk_wal_name_number(const char *name, const char *suffix); /* of "{20 digits}{suffix}"; or 0 */
int cnk_wal_checkpoint_read(cnk_wal *wal, uint64_t number, chronik_error *err, uint8_t **ret_data,
                            cnk_wal_checkpoint_header *ret_header);
int cnk_wal_recover(cnk_wal *wal, void (*progress)(void *, uint64_t, uint64_t), void *progress_arg, chronik_error *err);

/* fsck.c: the work of chronik_wal_fsck on any disk; the caller holds the lock. */
int cnk_wal_fsck(const chronik_io *io, const char *dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                 chronik_error *err);

#endif
