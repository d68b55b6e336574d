/* The tier's insides.
 *
 * Who owns what. The catalog (packs, streams, row cache, scratches, statistics): whoever holds tier->mutex, never for
 * longer than a look-up. Ports: their own thread. cnk_tier.convert: the home port's thread; cnk_tier.job: the job while
 * one is under way, else home. */
#ifndef CNK_TIER_INTERNAL_H
#define CNK_TIER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "segment/pack.h"
#include "tier/tier.h"

#ifdef CNK_TEST_HOOKS
#define TIER_BUG(b) (cnk_tier_bug == CNK_TIER_BUG_##b)
#else
#define TIER_BUG(b) 0
#endif

/* ---- the catalog ---- */

typedef struct tier_pack {
    cnk_list link; /* tier->packs, ascending by seq */
    cnk_pack *pack;
    uint32_t instance; /* names this opening of it in the row cache */
    uint32_t live_sections;
    uint64_t live_bytes, payload_bytes;
    bool spoilt; /* damaged, which has been told: neither thinned out nor deleted */
} tier_pack;

typedef struct tier_section {
    tier_pack *in;
    const cnk_pack_section *s; /* in->pack's */
} tier_section;

typedef struct tier_hole {
    int64_t first_offset, end_offset;
} tier_hole;

typedef struct tier_stream {
    uint64_t id;
    bool attached, dropped;
    bool stuck;             /* the WAL's copy of an entry is damaged: it stays where it is, for fsck */
    tier_section *sections; /* ascending */
    size_t count, capacity;
    tier_hole holes[CNK_TIER_HOLES_MAX];
    uint32_t hole_count;
} tier_stream;

/* A drop or a trim that is not durable yet: until then, a crash would bring the sections back to life. */
typedef struct tier_death {
    cnk_wal_port *port;
    uint64_t appended; /* durable once cnk_wal_port_durable has reached this */
    uint64_t stream, first_index;
} tier_death;

/* The catalog file, as catalog_file.c keeps it: of the job while one is under way, else home's. */
typedef struct tier_catalog {
    uint8_t uid[16];
    uint64_t bytes;    /* of the file */
    bool whole;        /* it ends with a whole record, and so can be appended to */
    bool due;          /* it is to be written anew */
    atomic_bool wrong; /* a pack was not what it told: removed, and not written before the next start */
} tier_catalog;

typedef struct tier_rows { /* a cached row block */
    cnk_list link;         /* tier->rows, the newest first */
    atomic_uint refs;
    uint64_t key;
    uint32_t len;
    uint8_t bytes[];
} tier_rows;

/* ---- ports and conversion ---- */

typedef enum tier_asked { ASK_WALK, ASK_WALK_ON, ASK_RELEASE, ASK_REWRITE } tier_asked;

typedef struct tier_walk {
    cnk_wal_walk it;
    uint64_t stream;   /* the one at hand; 0: none yet */
    uint64_t expected; /* the index that comes next in it */
    bool listed;       /* some of it is */
    bool stuck;
} tier_walk;

struct cnk_tier_port {
    cnk_tier *tier;
    const chronik_loop *loop;
    cnk_wal_port *wal_port;
    cnk_map streams; /* id → cnk_wal_stream of those that are attached */
    /* what home asks for; between ask and reply the port's, else home's */
    chronik_post ask, reply;
    chronik_post nudge; /* to home: something died */
    atomic_bool nudged;
    tier_asked asked;
    uint32_t file_seq;
    uint32_t rows_max;
    int result;
    tier_walk walk;
    bool more;      /* the walk ended before the file did */
    bool left_over; /* not all that is uncommitted could be rewritten */
    cnk_pack_list list;
    uint32_t sources[CNK_TIER_SOURCES_MAX]; /* further WAL files from which entries come */
    uint32_t source_count;
    chronik_error error;
};

/* A copy's source: which file in the top bits (0: the sealed one, else 1 + its place in the job's sources), where
 * below. */
#define TIER_SOURCE_SHIFT 48
#define TIER_PORTS_MAX 256

typedef enum tier_phase {
    TIER_IDLE,
    TIER_WALKING,
    TIER_WRITING,
    TIER_RELEASING,
    TIER_REWRITING,
    TIER_COLLECTING, /* a pack is deleted or rewritten, or the catalog file is */
    TIER_PAUSED      /* the timer says when to go on */
} tier_phase;

/* One pack being written, by a job: from WAL files, or from an older pack. */
typedef struct tier_job {
    chronik_job job;
    cnk_tier *tier;
    enum { JOB_CONVERT, JOB_REWRITE, JOB_DELETE, JOB_CATALOG } what;
    enum { STEP_OPEN, STEP_COPY, STEP_FINISH, STEP_NAME, STEP_END } step;
    uint64_t seq;
    char *path, *temporary;
    cnk_pack_list *lists[TIER_PORTS_MAX];
    size_t list_count;
    uint32_t *sources; /* CONVERT: numbers of WAL files; and the files, pinned */
    cnk_wal_file **files;
    size_t source_count, source_capacity;
    tier_pack *old;     /* REWRITE, DELETE */
    cnk_pack_list list; /* REWRITE: its own */
    uint64_t *live;     /* REWRITE: streams to keep, ascending */
    size_t live_count;
    cnk_pack_writer *writer;
    uint8_t *buf;
    const cnk_pack_copy *copies;
    size_t copy_count, copy_next;
    uint32_t copy_done, copy_crc;
    cnk_pack *made; /* the new pack, open */
    chronik_file *catalog; /* CATALOG: the new one */
    uint8_t catalog_uid[16];
    uint64_t catalog_bytes;
    cnk_list *catalog_next; /* the pack that comes next; packs neither come nor go meanwhile */
    uint64_t bad_stream;
    int code;
    chronik_error error;
} tier_job;

struct cnk_tier {
    const chronik_io *io;
    cnk_wal *wal;
    cnk_tier_options options;
    char *dir;
    cnk_tier_events events;
    void *events_arg;
    cnk_log_cold cold;

    pthread_mutex_t mutex;
    cnk_list packs;
    cnk_map streams; /* id → tier_stream */
    uint32_t next_instance;
    tier_death *deaths;
    size_t death_count, death_capacity;
    cnk_list rows;
    cnk_map rows_of;
    uint64_t rows_bytes;
    uint8_t *scratches[CNK_TIER_SCRATCHES_KEPT];
    uint32_t scratch_count;
    cnk_tier_stats stats;
    bool converting; /* between the walk and the release: dropped streams are remembered */

    /* home's */
    cnk_tier_port **ports;
    size_t port_count, port_capacity;
    uint64_t next_seq;
    uint32_t *sealed; /* FIFO */
    size_t sealed_count, sealed_capacity;
    uint32_t *later; /* converted files with uncommitted entries that cannot be rewritten yet: looked at again */
    size_t later_count, later_capacity;
    uint64_t later_at_ns;
    tier_phase phase;
    size_t asked_count; /* replies that are missing */
    bool started, more, left_over;
    bool worked; /* a job was submitted since the last rest */
    size_t rewriting; /* the port whose turn it is */
    chronik_timer *timer;
    uint64_t wake_at_ns; /* 0: the timer is off */
    uint32_t retries;
    bool paused_told;
    void (*drained)(void *arg);
    void *drained_arg;
    chronik_post drained_post;
    bool drained_posted;
    tier_job job;
    tier_catalog catalog;
    cnk_pack_pool pool; /* the job's; given back when there is nothing to do */
    atomic_bool stopping, hurry;
};

/* catalog.c: with the mutex held by the caller where the name says so */
void cnk_tier_lock(cnk_tier *t);
void cnk_tier_unlock(cnk_tier *t);
tier_stream *cnk_tier_stream_locked(cnk_tier *t, uint64_t id, bool make); /* NULL: not there, or no memory */
int cnk_tier_pack_add(cnk_tier *t, cnk_pack *pack);                       /* takes the reference on success */
int cnk_tier_pack_replace(cnk_tier *t, tier_pack *old, cnk_pack *pack);   /* takes the reference on success */
void cnk_tier_pack_remove(cnk_tier *t, tier_pack *p);
/* Blocks, without the mutex: a pack that the catalog file told of is opened, unless it is, and must be what was told; else
 * ECORRUPT, and it is told (`damaged`). */
int cnk_tier_pack_load(cnk_tier *t, cnk_pack *pack, chronik_error *err);
void cnk_tier_pack_spoilt(cnk_tier *t, const cnk_pack *pack, const chronik_error *why); /* tells it, once */
void cnk_tier_sections_kill_locked(cnk_tier *t, tier_stream *s, uint64_t first_index);
bool cnk_tier_deaths_settle(cnk_tier *t); /* those that are durable now; false: some are not */
void cnk_tier_stream_forget_locked(cnk_tier *t, tier_stream *s);
void cnk_tier_streams_forget_dropped(cnk_tier *t);
void cnk_tier_catalog_free(cnk_tier *t);
/* With a reference; blocks that are not cached are read, with those that follow before `end`. */
int cnk_tier_rows_get(cnk_tier *t, const cnk_pack *pack, uint32_t instance, uint32_t block, uint32_t end,
                  chronik_error *err, tier_rows **ret_rows);
void cnk_tier_rows_unref(tier_rows *rows);
uint8_t *cnk_tier_scratch_get(cnk_tier *t);
void cnk_tier_scratch_put(cnk_tier *t, uint8_t *scratch);

/* catalog_file.c */
char *cnk_tier_catalog_path(const char *dir, const char *suffix);
/* Blocks. Adds what the file tells of to `packs`, by seq, and says the highest seq that is in it. Whatever the error (ENOTFOUND: no
 * file; ECORRUPT, EUNSUPPORTED, EIO, ENOMEM: it was read up to some place), `packs` has what came before. */
int cnk_tier_catalog_read(const chronik_io *io, const char *dir, tier_catalog *c, cnk_map *packs, uint64_t *ret_seq_max,
                          chronik_error *err);
void cnk_tier_catalog_packs_free(cnk_map *packs);
void cnk_tier_catalog_note(cnk_tier *t, const cnk_pack *made, const cnk_pack *gone); /* job: appends; either may be NULL */
bool cnk_tier_catalog_due(cnk_tier *t);  /* home: it is to be written anew */
int cnk_tier_catalog_step(tier_job *j);  /* job: writes it anew; EAGAIN: step again */
void cnk_tier_catalog_failed(cnk_tier *t);
void cnk_tier_catalog_distrust(cnk_tier *t); /* blocks; any thread */

/* cold.c */
extern const cnk_log_cold cnk_tier_cold_ops;

/* convert.c */
void cnk_tier_move(cnk_tier *t); /* home: starts what is to be done next, where nothing is under way */
void cnk_tier_pause(cnk_tier *t, const chronik_error *why); /* ends what is under way; goes on when the timer fires */
void cnk_tier_timer(void *arg);
void cnk_tier_wake(cnk_tier *t, uint64_t delay_ms);
void cnk_tier_enqueue(cnk_tier *t, uint32_t file_seq);
void cnk_tier_port_run(chronik_post *ask);
void cnk_tier_port_reply(chronik_post *reply);

/* copy.c */
void cnk_tier_job_submit(cnk_tier *t); /* tier->job is filled; ends in cnk_tier_job_done */
void cnk_tier_job_clear(tier_job *j);
void cnk_tier_job_done(chronik_job *job); /* convert.c */

/* collect.c */
bool cnk_tier_collect(cnk_tier *t); /* home: starts a job where a pack is to be thinned out; false: none is */
void cnk_tier_collect_done(cnk_tier *t);

char *cnk_tier_path(const char *dir, uint64_t seq, const char *suffix);

#endif
