/* The inside of the broker, shared by its source files. README.md draws the messages between shards. */
#ifndef CNK_BROKER_INTERNAL_H
#define CNK_BROKER_INTERNAL_H

#include "base/map.h"
#include "base/metric.h"
#include "base/rope.h"
#include "broker/broker.h"

#ifdef CNK_TEST_HOOKS
#define BROKER_BUG(b) (cnk_broker_bug == CNK_BROKER_BUG_##b)
#else
#define BROKER_BUG(b) 0
#endif

/* Named limits (T8). */
#define CNK_TIMESTAMP_JOBS_MAX 16 /* timestamp lookups that read at a time, for each shard; the rest waits in order */
#define CNK_CONVERSIONS_MAX 4     /* conversions at a time, for each shard; the rest waits in order */
#define CNK_FETCH_SMALL_BYTES 65536u /* up to it an answer from memory is small: … */
#define CNK_FETCH_SMALL_PART 8u      /* … an eighth of the bytes that answers may pin or hold is given in small ones only */
#define CNK_FETCH_CONVERTED_BYTES (UINT64_C(8) << 20) /* of message sets in one answer, but for its first batch */
#define CNK_ADMIN_MAX 1000        /* administrative operations under way, for each shard */
#define CNK_PRODUCE_TIMEOUT_MIN_MS 500 /* below it a timeout would only report the disk's ordinary pace */
#define CNK_PRODUCE_OPENED_HERE_MAX (UINT64_C(1) << 20) /* on the shard's thread; a job opens what is larger */
#define CNK_PRODUCE_DECOMPRESSED_MAX (UINT64_C(256) << 20) /* bound on opening one batch */
#define CNK_OLD_DECOMPRESSED_MAX (CNK_PRODUCE_DECOMPRESSED_MAX / 2) /* where it is held in two forms: message sets */
#define CNK_RETRY_MS 100                                   /* between attempts at what must not be given up */
#define CNK_NOTICE_TEXT 256
#define CNK_COLD_SMALL_BYTES (128u << 10) /* reads that take no turn: they do not keep a disk for long */
#define CNK_COLD_KEEP_MS 2000   /* what has been read waits so long for readers that are behind it */
#define CNK_COLD_STREAMS_MAX 1024 /* partitions whose cold readers are known, for each shard */
#define CNK_COLD_READERS_MAX 64   /* places where they go on, in each partition */
#define CNK_MEMORY_IDLE_MS 5000 /* after it, without cold reads and conversions, their memory goes back to the system */

typedef struct cnk_publisher cnk_publisher; /* shard 0's; publish.c */

/* A partition on the shard that owns its stream. */
typedef struct cnk_partition {
    cnk_shard *shard;
    uint64_t stream;
    cnk_replica *replica;      /* NULL: lost, or damaged */
    cnk_meta_leaders *leaders; /* a reference: the image that made the partition may go */
    cnk_meta_leader *leader;
    uint32_t epoch_floor;
    cnk_list fifo;             /* produce parts that wait for room in the WAL (T4) */
    cnk_list waiting;          /* produce parts that wait for a commit, by index */
    cnk_list fetchers;         /* wants of fetches that wait for data */
    cnk_list watches;          /* of those who have read all */
    cnk_list blocked_node;     /* in shard->blocked while fifo is not empty */
    cnk_list starting_node;    /* in shard->starting while cnk_replica_start must be tried again */
    struct cnk_up_message *up; /* tells shard 0 that it leads; NULL: told */
    bool fresh;                /* the stream is still to be made */
    bool gone;                 /* the topic is deleted; the stream could not be dropped yet */
    cnk_list expiry_node;      /* in shard->expiry */
    uint32_t expiry_round;     /* the last that has looked at it */
    int64_t expiry_bound;      /* the log's end at that look */
    int64_t counted_to;        /* the offset to which stored messages have been counted */
    uint64_t expiry_index;     /* of the entry proposed last */
    struct cnk_group_load *load; /* of its coordinator */
    uint8_t *coord_state; /* of the coordinator to be made, from a checkpoint; NULL: none */
    size_t coord_state_len;
    cnk_coord *coord;          /* NULL: the partition is none of groups, or has not begun */
    bool groups;               /* it is one of __consumer_offsets */
    cnk_list coord_node;       /* in shard->coords */
    cnk_uuid topic_id;
    int32_t number;
    bool moved;                /* the high watermark has moved since fetchers were woken */
    cnk_list moved_node;       /* in shard->moved */
} cnk_partition;

struct cnk_shard {
    cnk_broker *broker;
    size_t index;
    const chronik_loop *loop;
    cnk_replica_shard *replicas;
    cnk_meta_image *image;
    cnk_map partitions; /* stream → cnk_partition */
    cnk_list blocked, starting, moved;
    bool image_incomplete; /* a partition is missing, for want of memory */
    chronik_timer *retry;
    bool retry_set;
    bool stopping, fenced, closing; /* closing: the loops are at rest */
    uint64_t next_connection;

    cnk_deadline **heap; /* from slot 1 */
    size_t heap_count, heap_capacity;
    chronik_timer *timer;

    chronik_post flush;
    bool flush_waiting;
    cnk_list produces, produces_taken, produces_done; /* open ones; those whose `taken` and `done` are due */
    cnk_list lists, lists_done;       /* list offsets, likewise */
    cnk_list fetches;                 /* runs that have not been given back */
    cnk_list fetches_woken;           /* groups of this shard's own fetches */
    cnk_list watchers_due;            /* of this shard, with watches that have fired */
    cnk_list cold_waiting;            /* runs that wait for room for what they read from files */
    cnk_list conversions_waiting;     /* turns: of batches of partitions that this shard owns, of its fetches */
    size_t conversions;
    cnk_list cutting;         /* delete records parts whose cut is not durable yet, on the owner */
    cnk_list lookups_waiting; /* list offsets parts that wait for a job, on the owner */
    size_t lookups, pinned_bytes;
    cnk_rope_pool *read_pool;  /* memory of cold reads */
    cnk_deadline memory_trim;  /* set while there may be memory to give back */
    chronik_job trim_job;
    uint64_t trim_bytes; /* produced and fetched when it was last looked */
    bool trimming; /* the job is under way: a stop waits for it */
    /* what has been read from files: fetch_cold.c */
    cnk_list extents, cold_streams;
    cnk_map cold_stream_of;
    size_t extents_reading, large_reads; /* under way, or waiting for their turn; of those under way, large ones */
    cnk_list reads_waiting;              /* large ones */
    uint64_t cold_bytes, cold_pinned, cold_ahead; /* all; of these, pinned; of these and others, given to nobody yet */
    cnk_deadline cold_expire;

    cnk_list expiry; /* every partition; those at the front have not been looked at in this round */
    uint32_t expiry_round;
    bool expiry_going;
    cnk_deadline expiry_deadline;

    int64_t producer_next, producer_end; /* the block of producer ids */
    cnk_list producers_waiting;
    bool producers_asked;
    chronik_post producers_post;
    int producers_code;
    int64_t producers_from;

    cnk_coord_shard *coord_shard;
    cnk_list coords;      /* partitions with a coordinator */
    cnk_list group_calls; /* open ones of this shard */
    size_t group_loads;   /* reads under way for coordinators: a stop waits for them */

    size_t admins;
    cnk_list admin_runs;
    chronik_post stop_post;
    bool drained;
    int stop_code;

    struct {
        cnk_counter produce_parts, produce_bytes, produce_records, fetch_parts, fetch_bytes, fetch_cold_bytes;
        cnk_counter partitions, connections, producers, waiting_parts, waiting_fetches, pinned_bytes, cold_bytes;
        cnk_counter stored_records, fetch_ahead_bytes;
        cnk_counter pinned_refused, cold_refused, parts_refused, producers_evicted;
        cnk_latency produce_latency, fetch_latency;
    } stats;
};

struct cnk_broker {
    const chronik_io *io;
    cnk_wal *wal;
    cnk_broker_options options;
    cnk_shard *shards;
    size_t shard_count, shards_open;
    cnk_publisher *publisher;
    void (*stopped)(void *arg, int code);
    void *stopped_arg;
    size_t shards_draining;
    bool stop_begun;
};

/* broker.c */
void cnk_broker_stop_check(cnk_shard *shard); /* something that a stop waits for has ended */

/* shard.c */
int cnk_shard_open(cnk_broker *broker, size_t index, chronik_error *err);
void cnk_shard_close(cnk_shard *shard);
void cnk_shard_retry_later(cnk_shard *shard); /* what failed for want of memory or room, after CNK_RETRY_MS */
void cnk_shard_flush(cnk_shard *shard);       /* once, after the events at hand: calls every `done` that is due */
uint64_t cnk_shard_now_ns(const cnk_shard *shard);
int64_t cnk_shard_wall_ms(const cnk_shard *shard);
void cnk_shard_post(cnk_shard *from, cnk_shard *to, chronik_post *post); /* runs at once where both are the same */
cnk_partition *cnk_shard_partition(const cnk_shard *shard, uint64_t stream);
cnk_shard *cnk_shard_owner(const cnk_broker *broker, uint64_t stream);
int cnk_shard_deadline_set(cnk_shard *shard, cnk_deadline *deadline, uint64_t at_ns); /* 0 or ENOMEM */
void cnk_shard_deadline_clear(cnk_shard *shard, cnk_deadline *deadline);
void cnk_shard_notice(cnk_shard *shard, int code, const char *format, ...) CHRONIK_PRINTF(3, 4);
void cnk_shard_give_up(cnk_shard *shard); /* nothing will be durable any more: whoever waits for that gets ESTORAGE */

/* partition.c */
extern const cnk_replica_events cnk_partition_events;
int cnk_partition_new(cnk_shard *shard, const cnk_meta_topic *topic, int32_t number, cnk_partition **ret_partition);
void cnk_partition_free(cnk_partition *p);
void cnk_partition_begin(
    cnk_partition *p); /* creates the stream where it is fresh, and starts its term; tries again later */
bool cnk_partitions_retry(cnk_shard *shard);                         /* true: likewise */
void cnk_shard_image_apply(cnk_shard *shard, cnk_meta_image *image); /* takes the reference */
const cnk_meta_partition *cnk_partition_find(const cnk_meta_image *image, cnk_text name, const cnk_uuid *id,
                                             int32_t number, const cnk_meta_topic **ret_topic, int *ret_error);

/* produce.c, fetch.c, watch.c, list_offsets.c: what partitions and shards tell them */
void cnk_produce_committed(cnk_partition *p, uint64_t commit_index);
void cnk_produce_truncated(cnk_partition *p, uint64_t last_index_kept);
void cnk_produce_retry(cnk_partition *p); /* there may be room */
void cnk_produce_gone(cnk_partition *p, int code);
cnk_batch_rules cnk_produce_rules(const cnk_shard *shard, const cnk_topic_settings *settings, int16_t version);
/* The part's batch has been converted (error 0), or has not. */
void cnk_produce_converted(cnk_shard *owner, cnk_produce_part *part, int error);
void cnk_produce_flush(cnk_shard *shard);
void cnk_produce_stop(cnk_shard *shard);
void cnk_fetch_moved(cnk_partition *p);
void cnk_fetch_flush(cnk_shard *shard);
void cnk_watch_moved(cnk_partition *p);
void cnk_watch_flush(cnk_shard *shard);
void cnk_cold_stop(cnk_shard *shard);
void cnk_cold_close(cnk_shard *shard);
void cnk_fetch_stop(cnk_shard *shard);
void cnk_fetch_close(cnk_shard *shard);
void cnk_list_offsets_flush(cnk_shard *shard);
void cnk_delete_records_durable(cnk_shard *shard); /* rows may have become durable */
void cnk_delete_records_fail(cnk_shard *shard, int code);

/* convert.c */
typedef struct cnk_turn { /* a conversion's job, that is submitted in its turn */
    chronik_job job;
    cnk_list node; /* in shard->conversions_waiting, until then */
} cnk_turn;
void cnk_turn_take(cnk_shard *shard, cnk_turn *turn);
void cnk_turn_end(cnk_shard *shard); /* from the job's `done` */
int cnk_convert_begin(cnk_shard *owner, cnk_produce_part *part); /* 0: cnk_produce_converted comes, later */
bool cnk_convert_cancel(cnk_produce_part *part);                 /* true: it had not begun, and does not come */
void cnk_convert_free(cnk_produce_part *part);                   /* after it has come; NULL-safe */

/* publish.c: shard 0 */
int cnk_publisher_new(cnk_broker *broker, chronik_error *err);
void cnk_publisher_free(cnk_publisher *publisher);
int cnk_publisher_recover(cnk_broker *broker, cnk_wal_stream *stream, chronik_error *err); /* NULL: a new one */
int cnk_publisher_start(cnk_broker *broker, size_t partitions_starting, chronik_error *err);
cnk_meta *cnk_publisher_meta(const cnk_publisher *publisher);
const cnk_meta_options *cnk_publisher_meta_options(const cnk_publisher *publisher);
cnk_replica *cnk_publisher_replica(const cnk_publisher *publisher);
int32_t cnk_publisher_epoch(const cnk_publisher *publisher); /* any thread; -1: it does not lead yet */
bool cnk_publisher_retry(cnk_publisher *publisher);          /* true: there is something to try again */
void cnk_publisher_fail(cnk_publisher *publisher, int code); /* whoever waits gets the code */
typedef struct cnk_up_message {                              /* owned by its partition until sent, then by shard 0 */
    chronik_post post;
    cnk_broker *broker;
    cnk_uuid topic_id;
    bool online; /* the partition has been so before: the start waits for it */
} cnk_up_message;
void cnk_publisher_partition_up(chronik_post *post); /* on shard 0: a partition leads now; frees the message */

/* Something on shard 0 that waits: for an index to be committed, or for every shard to hold a version. */
typedef struct cnk_wait {
    cnk_list node;
    uint64_t at;
    void (*run)(struct cnk_wait *wait, int code);
} cnk_wait;
void cnk_publisher_when_committed(cnk_publisher *publisher, cnk_wait *wait, uint64_t index);
void cnk_publisher_when_everywhere(cnk_publisher *publisher, cnk_wait *wait, uint64_t version);
/* Waits until the topic is online everywhere, or gone (ENOTFOUND). */
typedef struct cnk_topic_wait {
    cnk_list node;
    cnk_uuid id;
    uint64_t from; /* the version that has the topic, being created at least */
    uint64_t at;   /* the version that has it online; 0: not seen yet */
    void (*run)(struct cnk_topic_wait *wait, int code);
} cnk_topic_wait;
void cnk_publisher_when_online(cnk_publisher *publisher, cnk_topic_wait *wait, const cnk_uuid *id, uint64_t from);
void cnk_publisher_producer_block(cnk_shard *shard); /* on shard 0, for `shard`: answers by its producers_post */

/* expiry.c */
void cnk_expiry_watch(cnk_shard *shard); /* there may be producers */
void cnk_expiry_led(cnk_partition *p);   /* it leads now */

/* group.c */
int cnk_group_begin(cnk_partition *p);     /* the partition has a replica: makes its coordinator. 0 or ENOMEM; again: 0 */
void cnk_group_free(cnk_partition *p);     /* NULL-safe as to the coordinator */
void cnk_groups_stop(cnk_shard *shard);    /* coordinators answer what they hold, and serve no more */
/* The replica's machine, as far as checkpoints go: a coordinator's snapshot. */
int cnk_group_snapshot(void *partition, cnk_writer *out);
int cnk_group_restore(void *partition, const uint8_t *state, size_t len, uint64_t applied_index);
void cnk_groups_writable(cnk_shard *shard);
void cnk_group_topic_removed(cnk_shard *shard, const cnk_meta_topic *topic);

/* admin.c, producer_ids.c */
void cnk_admin_stop(cnk_shard *shard);
void cnk_admin_close(cnk_shard *shard);
void cnk_producers_stop(cnk_shard *shard);

#endif
