/* broker: Kafka's operations without its protocol: produce, fetch, list offsets, topics, producer ids, configurations.
 *
 * Shards. A cnk_shard is the broker's part of one shard. An operation is started on the shard of its caller (a
 * connection's, say) and does its work on the shards that own the partitions, by messages; its completion comes back to
 * the caller's shard. All functions are for the shard's own thread unless they say otherwise.
 *
 * Operations. The caller owns the operation's struct and its array of parts, fills the `asked` fields (the rest
 * zeroed), and keeps them, and all that they point to, until the operation is done. Starting one returns
 *    CNK_PENDING  `done` will be called, once, later, never from inside the starting call;
 *    CNK_DONE     all is answered already, `done` will not be called;
 *    negative     (ENOMEM, EAGAIN over a limit, ESHUTDOWN) nothing has begun, `done` will not be called.
 * `done` may start other operations. Each part has an `error` of its own: 0 or CHRONIK_E*.
 *
 * Cancelling (the connection is gone) makes `done` come soon, possibly from inside the cancelling call; parts that had
 * no answer yet get ECANCELED. What has been appended stays appended.
 *
 * Answers whose memory is the broker's (images, fetched data) are valid until the `_end` function of the operation. */
#ifndef CNK_BROKER_BROKER_H
#define CNK_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <chronik/error.h>
#include <chronik/io.h>

#include "base/list.h"
#include "base/metric.h"
#include "base/uuid.h"
#include "coord/coord.h"
#include "log/log.h"
#include "meta/meta.h"
#include "record/batch.h"
#include "replica/replica.h"
#include "wal/wal.h"

typedef struct cnk_broker cnk_broker;
typedef struct cnk_shard cnk_shard;

enum { CNK_PENDING = 0, CNK_DONE = 1 };

/* Named limits (T8); those with an option say so. */
#define CNK_BROKER_SHARDS_MAX 64
#define CNK_FETCH_PARTS_MAX 100000 /* partitions in one request */
#define CNK_PRODUCE_PARTS_MAX 100000
#define CNK_FETCH_SLICES_MAX 65536  /* slices in one answer of one owning shard */
#define CNK_CREATE_TOPICS_MAX 10000 /* topics in one request */
#define CNK_CREATE_PARTITIONS_MAX 10000 /* and their partitions */

/* The broker's: something that happens at a time, unless it is taken back before. */
typedef struct cnk_deadline {
    uint64_t at_ns;
    size_t slot; /* in the shard's heap, from 1; 0: not in it */
    void (*fire)(struct cnk_deadline *deadline);
} cnk_deadline;

/* Who asks (K12). Borrowed until the operation is done. */
typedef struct cnk_context {
    uint64_t connection; /* cnk_broker_connect; 0: in-process */
    cnk_text principal;  /* "User:ANONYMOUS" */
    cnk_text listener;
    cnk_text client_id;
    const chronik_address *peer, *local; /* NULL: in-process */
    uint64_t deadline_ns;                /* of the loop's clock; 0: none */
    uint64_t begun_ns;                   /* of the loop's clock, when the request had come; 0: nobody has looked */
} cnk_context;

/* ---- life ------------------------------------------------------------------------------------------------------- */

typedef struct cnk_broker_config_row {
    const char *name, *value; /* a broker option as it stands; value NULL: null */
    const char *fallback;     /* its default, NULL: null */
    cnk_config_type type;
    bool set;       /* by the user (source STATIC_BROKER_CONFIG), else DEFAULT_CONFIG */
    bool sensitive; /* the value is never shown */
    const char *doc;
} cnk_broker_config_row;

typedef struct cnk_broker_options {
    int32_t node_id;
    cnk_uuid directory_id;            /* of the data directory (R4) */
    cnk_uuid cluster_id;              /* used where the metadata is new; must agree otherwise; zero: make one */
    const chronik_loop *const *loops; /* one for each shard; borrowed for the broker's life */
    size_t shard_count;
    int32_t num_partitions; /* defaults for new topics */
    int16_t default_replication_factor;
    bool auto_create_topics;
    bool delete_topics;                   /* delete.topic.enable */
    const cnk_broker_config_row *configs; /* for DescribeConfigs and topic defaults; borrowed for the broker's life */
    size_t config_count;
    const char *data_dir;   /* as DescribeLogDirs names it, NULL: nothing is told; borrowed for the broker's life */
    uint64_t fetch_pinned_bytes_max; /* hot bytes that answers may hold, for each shard; above it reads go to files */
    uint64_t fetch_held_bytes_max;   /* likewise, of the WAL's memory that they keep with them */
    uint64_t fetch_cold_bytes_max;   /* what has been read from files: for answers, for other readers, ahead; each shard */
    uint64_t fetch_ahead_bytes_max;  /* of it, what nobody has asked for yet; 0: nothing is read ahead */
    uint32_t fetch_cold_answer_max;  /* of one answer, and ahead of the next; the rest is for the fetches that follow */
    uint32_t producers_per_partition_max, producers_max; /* K6; the second for each shard */
    int64_t producer_expiration_ms, producer_check_ms;   /* idle producers are forgotten; the first 0: never */
    int32_t offsets_partitions; /* of the topic that groups live in, when it is made */
    int64_t offsets_segment_bytes;
    cnk_coord_settings groups;
    uint32_t waiting_parts_max; /* produce parts that wait for room in the WAL, for each shard */
    const cnk_log_cold *cold;   /* where older data comes from; NULL: nowhere */
    cnk_tier *tier;             /* where sealed WAL files go; NULL: nowhere. Started after cnk_broker_open, drained
                                         before cnk_broker_stop */
    /* Hooks, all optional, called with `hook_arg`. sealed: on shard 0's thread, a WAL file wants to be converted (on
     * every shard's port). dropped: on the owner's thread, a stream is gone and its packs are garbage. */
    void (*sealed)(void *hook_arg, uint32_t file_seq);
    void (*dropped)(void *hook_arg, uint64_t stream);
    /* On shard 0's thread, once: every group that can lead does; serve now. */
    void (*ready)(void *hook_arg);
    /* On the thread of the shard that noticed, once for each shard: no write will ever be durable again (S11). */
    void (*fenced)(void *hook_arg, const chronik_error *why);
    /* On the shard's thread, and quick: a fetch finds no room for its cold reads; it waits, or is answered without. */
    void (*crowded)(void *hook_arg, cnk_shard *shard);
    /* Any shard's thread, and quick: how large the data directory's file system is, and how much of it can be used. 0, or
     * it is not known. */
    int (*space)(void *hook_arg, uint64_t *ret_total_bytes, uint64_t *ret_usable_bytes);
    /* Any shard's thread: something to tell the operator (a lost replica, a dropped stream). */
    void (*notice)(void *hook_arg, int code, const char *text);
    void *hook_arg;
} cnk_broker_options;

#define CNK_BROKER_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        .node_id = 1, .num_partitions = 1, .default_replication_factor = 1, .auto_create_topics = true,                \
        .delete_topics = true, .fetch_pinned_bytes_max = UINT64_C(64) << 20,                                           \
        .fetch_held_bytes_max = UINT64_C(128) << 20,                                                                   \
        .fetch_cold_bytes_max = UINT64_C(80) << 20, .fetch_ahead_bytes_max = UINT64_C(40) << 20,                       \
        .fetch_cold_answer_max = 16u << 20,                                                                            \
        .producers_per_partition_max = 20000, .producers_max = 200000,                                                 \
        .producer_expiration_ms = 86400000, .producer_check_ms = 600000, .waiting_parts_max = 10000,                    \
        .offsets_partitions = 50, .offsets_segment_bytes = 104857600, .groups = CNK_COORD_SETTINGS_INIT                    \
    }

/* Takes a WAL that has just been opened: restores the metadata and every partition, opens a port for each shard, drops
 * streams that the metadata does not know, and starts a new term for every group in one block (R13). Blocks; on the
 * opening thread, before the loops run. ECORRUPT, EINVAL (another cluster's directory), ENOMEM, what the WAL says. */
int cnk_broker_open(const chronik_io *io, cnk_wal *wal, const cnk_broker_options *options, chronik_error *err,
                    cnk_broker **ret_broker);

/* Shard 0's thread: new operations get ESHUTDOWN, waiting fetches are answered, waiting produces finish; then all ports
 * are drained and closed, and `stopped` is called on shard 0's thread: 0, or what kept the WAL from being drained. */
void cnk_broker_stop(cnk_broker *broker, void (*stopped)(void *arg, int code), void *arg);

/* After `stopped`, with every operation done (fetches: ended) and the loops at rest; or where no loop has ever run.
 * NULL-safe. The WAL is its opener's. */
void cnk_broker_free(cnk_broker *broker);

size_t cnk_broker_shard_count(const cnk_broker *broker);                 /* any thread */
cnk_shard *cnk_broker_shard(cnk_broker *broker, size_t i);               /* any thread */
const cnk_broker_options *cnk_broker_settings(const cnk_broker *broker); /* any thread; a copy that lives as long */
const chronik_loop *cnk_shard_loop(const cnk_shard *shard);              /* any thread */
size_t cnk_shard_index(const cnk_shard *shard);                          /* any thread */
cnk_broker *cnk_shard_broker(const cnk_shard *shard);                    /* any thread */
cnk_wal_port *cnk_shard_port(const cnk_shard *shard);
bool cnk_shard_reads_wait(const cnk_shard *shard); /* its thread: fetches wait for the buffers of cold reads */
/* Its thread: much memory has been freed, here or by somebody else in the process. After five seconds without traffic the
 * allocator gives it back to the system. */
void cnk_shard_memory_freed(cnk_shard *shard);

/* Opening and closing of connections (K12): gives the connection its identity. */
uint64_t cnk_broker_connect(cnk_shard *shard, const chronik_address *peer);
void cnk_broker_disconnect(cnk_shard *shard, uint64_t connection);

/* ---- metadata --------------------------------------------------------------------------------------------------- */

/* The newest image that this shard holds. Borrowed until the shard's next event: cnk_meta_image_ref to keep it. */
cnk_meta_image *cnk_shard_image(const cnk_shard *shard);

/* ---- produce ---------------------------------------------------------------------------------------------------- */

typedef struct cnk_produce cnk_produce;

typedef struct cnk_produce_part {
    /* asked */
    cnk_text topic; /* by name; p NULL: by topic_id */
    cnk_uuid topic_id;
    int32_t partition;
    const uint8_t *data; /* the partition's record data; NULL: null */
    uint32_t len;
    /* answered */
    int error;
    int32_t fault_record;                                      /* the record at fault (RecordErrors); -1: none */
    const char *error_text;                                    /* a constant sentence, or NULL */
    int64_t base_offset, log_append_time_ms, log_start_offset; /* -1: none */
    int32_t leader_id, leader_epoch;                           /* with ENOTLEADER and EFENCEDEPOCH; -1: unknown */
    /* the broker's */
    chronik_post post;
    cnk_list node;
    cnk_produce *op;
    chronik_post cancel_post, taken_post;
    uint64_t stream, index;
    cnk_batch batch;
    struct cnk_conversion *conversion; /* to the topic's codec; NULL: none under way */
    uint32_t bytes_max;
    int32_t min_insync, codec_level;
    uint8_t codec; /* to convert to; CNK_TOPIC_CODEC_PRODUCER: as it is */
    uint8_t step;
    bool append_time;
    bool unopened; /* too large to be opened in passing: a job judges it */
    bool old_set; /* a message set of format 0 or 1, of which a batch is made */
    bool held;    /* its data is still needed (the caller's shard knows) */
} cnk_produce_part;

struct cnk_produce {
    /* asked */
    const cnk_context *context;
    int16_t acks; /* -1, 1, 0 */
    int32_t timeout_ms;
    int16_t version; /* of Kafka's Produce; in-process: CNK_PRODUCE_VERSION_INTERNAL */
    cnk_produce_part *parts;
    size_t part_count;
    void (*done)(cnk_produce *op);
    void (*taken)(cnk_produce *op); /* NULL, or: the data is needed no longer; once, before `done`, never from inside */
    void *arg;
    /* answered: after starting: does the broker still need the parts' record data? Where not, the caller may reuse that
     * memory at once (but not the parts). From CNK_DONE, `taken` or `done` on it never does. */
    bool data_needed;
    uint64_t ended_ns; /* of the loop's clock, when it was done */
    /* the broker's */
    cnk_shard *shard;
    size_t open_parts, cancels, held_parts;
    cnk_deadline deadline;
    uint64_t begun_ns;
    cnk_list node, done_node, taken_node;
    int stop_code;
    bool starting;
};

#define CNK_PRODUCE_VERSION_INTERNAL INT16_MAX

/* Appends each part's one batch; below version 3 also a message set (record/message_set.h), one without a whole message
 * being done with base offset -1. acks=0 is done once appended; acks=1 and -1 once committed, which is synced. A part
 * whose append cannot get room in the WAL waits in its partition's queue until the operation's timeout (ETIMEDOUT); so
 * does one that is appended and not committed. acks other than these: EINVALIDACKS in each part. A partition that comes
 * twice gets both batches, in order. */
int cnk_broker_produce(cnk_shard *shard, cnk_produce *op);
/* With acks=0 nothing is taken back: such a client closes as soon as it has sent, and what waits for a conversion or for
 * room goes on, until the operation's timeout at the latest. */
void cnk_broker_produce_cancel(cnk_produce *op);

/* ---- fetch ------------------------------------------------------------------------------------------------------ */

typedef struct cnk_fetch cnk_fetch;

typedef struct cnk_fetch_part {
    /* asked */
    cnk_text topic;
    cnk_uuid topic_id;
    int32_t partition;
    int32_t leader_epoch; /* the client's current leader epoch; negative: none */
    int64_t offset;
    uint32_t bytes_max;
    /* answered */
    int error;
    int64_t high_watermark, last_stable_offset, log_start_offset; /* -1: none */
    int32_t leader_id, leader_epoch_now;                          /* with ENOTLEADER and EFENCEDEPOCH; -1: unknown */
    const struct iovec *slices; /* whole batches, the first of which may begin before the offset; until `_end` */
    size_t slice_count;
    uint32_t bytes;       /* of all slices */
    size_t aborted_count; /* read_committed: aborted transactions, by first offset */
    const struct cnk_log_aborted *aborted;
    /* the broker's */
    uint32_t group, slot;
} cnk_fetch_part;

typedef enum cnk_fetch_format { CNK_FETCH_AS_STORED, CNK_FETCH_FORMAT_0, CNK_FETCH_FORMAT_1 } cnk_fetch_format;

struct cnk_fetch {
    /* asked */
    const cnk_context *context;
    int32_t max_wait_ms;
    uint32_t min_bytes, bytes_max;
    bool read_committed;
    bool exact_max; /* versions below 3: no batch over bytes_max is served to make progress */
    bool watching;  /* waits although it asks for nothing: cnk_broker_fetch_hurry may come */
    bool no_zstd;   /* versions below 10: topics whose compression.type is zstd are refused (EUNSUPPORTEDCODEC) */
    cnk_fetch_format format; /* versions below 4: what is answered are message sets (record/message_set.h) */
    size_t first;   /* the part to start with; the next fetch of the same parts starts with `next` */
    cnk_fetch_part *parts;
    size_t part_count;
    void (*done)(cnk_fetch *op);
    void *arg;
    /* answered */
    size_t next;    /* the first part for which there was no room, or the second one */
    uint64_t bytes; /* of all parts */
    uint64_t ended_ns; /* of the loop's clock, when it was done */
    /* the broker's */
    cnk_shard *shard;
    struct cnk_fetch_run *run;
};

/* Long poll (K7): done with min_bytes, with any part's error, at max_wait_ms, or on cancel. */
int cnk_broker_fetch(cnk_shard *shard, cnk_fetch *op);
void cnk_broker_fetch_cancel(cnk_fetch *op);
/* Done soon, with what there is, as if its time were over; one that is reading already goes on. Possibly from inside. */
void cnk_broker_fetch_hurry(cnk_fetch *op);
/* Gives the data back. Once, after CNK_DONE or `done`; the same thread. */
void cnk_broker_fetch_end(cnk_fetch *op);

/* ---- watching ---------------------------------------------------------------------------------------------------
 * Who has read partitions to their ends is told when it is worth asking again (K8), so a fetch of few among many costs
 * what the few cost. A watch is armed with what its holder has been told; it fires once, as soon as that is no longer so,
 * or the partition is gone, or leads elsewhere; rarely for nothing. All on the watcher's shard's thread. */

typedef struct cnk_watcher cnk_watcher;
typedef struct cnk_watch cnk_watch;

struct cnk_watcher {
    cnk_shard *shard;
    void (*news)(cnk_watcher *watcher); /* cnk_watch_next has some; never from inside a function of this section */
    void (*off)(cnk_watch *watch);      /* after cnk_watch_disarm has said false: nobody touches it any more */
    cnk_list fired, node;               /* the broker's */
};

struct cnk_watch { /* zeroed at first */
    cnk_watcher *watcher;
    cnk_list node; /* in the partition's watches, or the watcher's fired */
    cnk_shard *owner;
    uint64_t stream;
    int64_t high_watermark, log_start;
    chronik_post post, disarm_post;
    enum { CNK_WATCH_IDLE, CNK_WATCH_ARMED, CNK_WATCH_FIRED, CNK_WATCH_DISARMING } state; /* the watcher's shard's */
};

void cnk_watcher_init(cnk_watcher *watcher, cnk_shard *shard, void (*news)(cnk_watcher *watcher),
                      void (*off)(cnk_watch *watch));
/* None of its watches is armed, fired or being disarmed. */
void cnk_watcher_close(cnk_watcher *watcher);
/* An idle watch. The topic by name, or by id where the name is NULL. False: there is no such partition. */
bool cnk_watch_arm(cnk_watcher *watcher, cnk_watch *watch, cnk_text topic, const cnk_uuid *topic_id, int32_t partition,
                   int64_t high_watermark, int64_t log_start);
cnk_watch *cnk_watch_next(cnk_watcher *watcher); /* one that has fired, and is idle now; NULL: none is left */
/* True: it is idle now. False: it will be, and `off` says when. */
bool cnk_watch_disarm(cnk_watch *watch);

/* ---- list offsets ----------------------------------------------------------------------------------------------- */

enum { /* KIP-79, KIP-734, KIP-405, KIP-1005, KIP-1023 */
       CNK_OFFSET_LATEST = -1,
       CNK_OFFSET_EARLIEST = -2,
       CNK_OFFSET_MAX_TIMESTAMP = -3,
       CNK_OFFSET_EARLIEST_LOCAL = -4,
       CNK_OFFSET_LATEST_TIERED = -5,
       CNK_OFFSET_EARLIEST_PENDING_UPLOAD = -6,
    CNK_OFFSET_EPOCH_END = -100, /* of our own: KIP-320's end of an epoch */
    CNK_OFFSET_BOUNDS = -101     /* of our own: both ends of the log, for ListOffsets 0 */
};

typedef struct cnk_list_offsets cnk_list_offsets;

typedef struct cnk_list_offsets_part {
    /* asked */
    cnk_text topic;
    int32_t partition;
    int32_t leader_epoch; /* -1: none */
    int64_t timestamp;    /* ms, or CNK_OFFSET_* */
    int32_t asked_epoch;  /* EPOCH_END: the epoch; `offset` is its end, or that of the newest one before it */
    /* answered */
    int error;
    int64_t offset, record_timestamp; /* -1: none; BOUNDS: the end, and the newest record's */
    int64_t start;                    /* BOUNDS: the first offset */
    int32_t offset_epoch;             /* the leader epoch of that offset; -1: none */
    /* the broker's */
    chronik_post post;
    cnk_list node;
    cnk_list_offsets *op;
    uint64_t stream;
    int64_t from;   /* a timestamp is looked up from here on */
    unsigned looks; /* that found what had moved when it was read */
} cnk_list_offsets_part;

struct cnk_list_offsets {
    const cnk_context *context;
    bool read_committed;
    cnk_list_offsets_part *parts;
    size_t part_count;
    void (*done)(cnk_list_offsets *op);
    void *arg;
    /* the broker's */
    cnk_shard *shard;
    cnk_list node, done_node;
    size_t open_parts;
    bool starting;
};

int cnk_broker_list_offsets(cnk_shard *shard, cnk_list_offsets *op);
/* `done` comes when the lookups under way have ended: soon, for each reads a batch at most. */
void cnk_broker_list_offsets_cancel(cnk_list_offsets *op);

/* ---- topics ----------------------------------------------------------------------------------------------------- */

typedef struct cnk_topic_setting {
    cnk_text name, value;
} cnk_topic_setting; /* value.p NULL: null */
typedef struct cnk_topic_assignment {
    int32_t partition;
    const int32_t *nodes;
    size_t node_count;
} cnk_topic_assignment;

typedef struct cnk_create_topic {
    /* asked */
    cnk_text name;
    int32_t partitions;                      /* -1: the broker's default */
    int16_t replication;                     /* -1: the broker's default */
    const cnk_topic_assignment *assignments; /* then partitions and replication are -1 */
    size_t assignment_count;
    const cnk_topic_setting *settings;
    size_t setting_count;
    /* answered */
    int error;
    char error_text[248]; /* "": none */
    cnk_uuid topic_id;    /* zero with validate_only */
    int32_t partitions_made;
    int16_t replication_made;
} cnk_create_topic;

typedef struct cnk_create_topics cnk_create_topics;
struct cnk_create_topics {
    const cnk_context *context;
    int32_t timeout_ms;
    bool validate_only;
    bool automatic; /* from Metadata: EUNKNOWNTOPIC where topics are not made automatically; one that exists is fine */
    bool coordinator; /* besides: an internal topic, made whether or not topics are made automatically */
    cnk_create_topic *topics;
    size_t topic_count;
    void (*done)(cnk_create_topics *op);
    void *arg;
    struct cnk_admin *run; /* the broker's */
};

/* Done when every topic is refused, or committed, made durable and known to every shard (K10). After the timeout:
 * ETIMEDOUT, and the topics may still appear. The same name twice in the request: EINVALIDREQUEST for both. */
int cnk_broker_create_topics(cnk_shard *shard, cnk_create_topics *op);
void cnk_broker_create_topics_cancel(cnk_create_topics *op);

typedef struct cnk_delete_topic {
    cnk_text name;     /* by name; p NULL: by id */
    cnk_uuid topic_id; /* answered too */
    int error;
    char name_found[CNK_TOPIC_NAME_MAX + 1]; /* answered: "" where the topic is unknown */
    const char *error_text;                  /* constant or NULL */
} cnk_delete_topic;

typedef struct cnk_delete_topics cnk_delete_topics;
struct cnk_delete_topics {
    const cnk_context *context;
    int32_t timeout_ms;
    cnk_delete_topic *topics;
    size_t topic_count;
    void (*done)(cnk_delete_topics *op);
    void *arg;
    struct cnk_admin *run; /* the broker's */
};

int cnk_broker_delete_topics(cnk_shard *shard, cnk_delete_topics *op);
void cnk_broker_delete_topics_cancel(cnk_delete_topics *op);

typedef struct cnk_grow_topic {
    /* asked */
    cnk_text name;
    int32_t count; /* of partitions, with those that are there */
    bool assigned; /* `assignments` are the new ones' nodes, in order */
    const cnk_topic_assignment *assignments;
    size_t assignment_count;
    /* answered */
    int error;
    char error_text[248]; /* "": none */
} cnk_grow_topic;

typedef struct cnk_create_partitions cnk_create_partitions;
struct cnk_create_partitions {
    const cnk_context *context;
    int32_t timeout_ms;
    bool validate_only;
    cnk_grow_topic *topics;
    size_t topic_count;
    void (*done)(cnk_create_partitions *op);
    void *arg;
    struct cnk_admin *run; /* the broker's */
};

/* Done as cnk_broker_create_topics: what is answered as made leads, and is known to every shard. */
int cnk_broker_create_partitions(cnk_shard *shard, cnk_create_partitions *op);
void cnk_broker_create_partitions_cancel(cnk_create_partitions *op);

/* ---- changing configurations ------------------------------------------------------------------------------------ */

enum { /* Kafka's AlterConfigOp (KIP-339); the last two for lists only */
       CNK_CHANGE_SET = 0,
       CNK_CHANGE_DELETE = 1,
       CNK_CHANGE_APPEND = 2,
       CNK_CHANGE_SUBTRACT = 3
};

typedef struct cnk_alter_topic {
    /* asked */
    cnk_text name;
    const cnk_topic_setting *settings; /* each name once */
    const uint8_t *changes;            /* of them; NULL: they are all that the topic has from now on */
    size_t setting_count;
    /* answered */
    int error;
    char error_text[248]; /* "": none */
} cnk_alter_topic;

typedef struct cnk_alter_configs cnk_alter_configs;
struct cnk_alter_configs {
    const cnk_context *context;
    int32_t timeout_ms;
    bool validate_only;
    cnk_alter_topic *topics; /* each name once, or EINVALIDREQUEST */
    size_t topic_count;
    void (*done)(cnk_alter_configs *op);
    void *arg;
    struct cnk_admin *run; /* the broker's */
};

/* A topic's changes happen together or not at all. Done when every shard goes by them. */
int cnk_broker_alter_configs(cnk_shard *shard, cnk_alter_configs *op);
void cnk_broker_alter_configs_cancel(cnk_alter_configs *op);

/* ---- producer ids ----------------------------------------------------------------------------------------------- */

typedef struct cnk_init_producer cnk_init_producer;
struct cnk_init_producer {
    const cnk_context *context;
    cnk_text transactional_id; /* not null: ETXNIDAUTH, for there are no transactions yet */
    int64_t producer_id;       /* KIP-360: what the client has; -1: none */
    int16_t producer_epoch;
    void (*done)(cnk_init_producer *op);
    void *arg;
    int error;
    int64_t ret_producer_id;
    int16_t ret_producer_epoch;
    /* the broker's */
    cnk_list node;
    cnk_shard *shard;
};

/* Ids come from durable blocks (CNK_META_PRODUCER_BLOCK) that each shard holds: mostly done at once. */
int cnk_broker_init_producer(cnk_shard *shard, cnk_init_producer *op);
void cnk_broker_init_producer_cancel(cnk_init_producer *op);

/* ---- groups ----------------------------------------------------------------------------------------------------- */

/* One request for one group, at its coordinator: the partition of __consumer_offsets that the group's id hashes to. */
typedef struct cnk_group_call cnk_group_call;
struct cnk_group_call {
    /* asked */
    const cnk_context *context;
    cnk_coord_call call; /* what it asks; `error` and what else is answered stand there, too. Its done, arg and arena are
                            the broker's */
    int32_t partition;   /* of the topic, for what asks a partition rather than a group; -1: the group's */
    void (*done)(cnk_group_call *op);
    void *arg;
    /* the broker's */
    chronik_post post, cancel_post;
    cnk_list node;
    cnk_shard *shard;
    uint64_t stream;
    bool home, canceling; /* home: it has come back */
};

/* ENOTCOORDINATOR where there is no such topic, or the partition is not led here. OFFSET_FETCH: topics that are asked for
 * without their ids are those that have the names now, and so are all of a group's; the ids are filled in. */
int cnk_broker_group(cnk_shard *shard, cnk_group_call *op);
void cnk_broker_group_cancel(cnk_group_call *op);
/* Gives the answer's memory back. Once, after CNK_DONE or `done`. */
void cnk_broker_group_end(cnk_group_call *op);
/* The topic's partitions; 0: it is not there yet. */
int32_t cnk_broker_group_partitions(cnk_shard *shard);

/* ---- configurations --------------------------------------------------------------------------------------------- */

enum { /* Kafka's ConfigSource */
       CNK_SOURCE_TOPIC = 1,
       CNK_SOURCE_STATIC_BROKER = 4,
       CNK_SOURCE_DEFAULT = 5
};

typedef struct cnk_config_synonym {
    const char *name, *value;
    uint8_t source;
} cnk_config_synonym;

typedef struct cnk_config_row {
    const char *name, *value; /* value NULL: null, or sensitive */
    cnk_config_type type;
    uint8_t source;
    bool read_only, sensitive;
    const char *doc;
    cnk_config_synonym synonyms[3]; /* the one in force first */
    size_t synonym_count;
} cnk_config_row;

/* Calls back for each option, by name, with a row that is valid during the call; a non-zero return ends the walk and is
 * returned. EUNKNOWNTOPIC; EINVALIDTOPIC. */
int cnk_broker_topic_configs(cnk_shard *shard, const cnk_meta_image *image, cnk_text topic,
                             int (*each)(void *arg, const cnk_config_row *row), void *arg);
int cnk_broker_node_configs(cnk_shard *shard, int (*each)(void *arg, const cnk_config_row *row), void *arg);

/* ---- deleting records ------------------------------------------------------------------------------------------- */

#define CNK_DELETE_TO_HIGH_WATERMARK INT64_C(-1)

typedef struct cnk_delete_records cnk_delete_records;

typedef struct cnk_delete_records_part {
    /* asked */
    cnk_text topic;
    int32_t partition;
    int64_t offset; /* the first one that stays */
    /* answered */
    int error;
    int64_t low_watermark; /* the log's start now; -1: none */
    /* the broker's */
    chronik_post post;
    cnk_list node;
    cnk_delete_records *op;
    uint64_t stream, rows;
} cnk_delete_records_part;

struct cnk_delete_records {
    const cnk_context *context;
    cnk_delete_records_part *parts;
    size_t part_count;
    void (*done)(cnk_delete_records *op);
    void *arg;
    /* the broker's */
    cnk_shard *shard;
    size_t open_parts;
    bool starting;
};

/* Each part: done when the log's start is durable. EOFFSETRANGE (negative, or above the high watermark), EPOLICY (the
 * topic's cleanup.policy has no delete), EINVALIDTOPIC (an internal one). There is no timeout and nothing to cancel: `done` comes with
 * the next sync, or when the storage has failed. */
int cnk_broker_delete_records(cnk_shard *shard, cnk_delete_records *op);

/* ---- describing partitions -------------------------------------------------------------------------------------- */

typedef struct cnk_describe cnk_describe;

typedef struct cnk_describe_part {
    /* asked */
    cnk_text topic;
    int32_t partition;
    /* answered */
    int error;
    uint64_t bytes;                         /* of its batches, in the WAL and in packs */
    const struct cnk_log_producer *producers; /* where asked for; until `_end` */
    size_t producer_count;
    /* the broker's */
    chronik_post post;
    cnk_describe *op;
    uint64_t stream;
} cnk_describe_part;

struct cnk_describe {
    const cnk_context *context;
    bool producers; /* asked for */
    cnk_describe_part *parts;
    size_t part_count;
    void (*done)(cnk_describe *op);
    void *arg;
    /* the broker's */
    cnk_shard *shard;
    size_t open_parts;
    bool starting;
};

/* Each part is answered by the shard that owns it, at once: there is nothing to cancel. `_end` once, after CNK_DONE or
 * `done`. */
int cnk_broker_describe(cnk_shard *shard, cnk_describe *op);
void cnk_broker_describe_end(cnk_describe *op);

/* The group of the metadata, as this node sees it; a little stale. */
typedef struct cnk_quorum {
    int32_t leader, epoch; /* -1: unknown */
    uint64_t commit_index;
    const cnk_uuid *directory; /* of this node, its one voter */
} cnk_quorum;
void cnk_broker_quorum(cnk_shard *shard, cnk_quorum *ret_quorum);

/* ---- looking ---------------------------------------------------------------------------------------------------- */

/* Any thread. An operation that finds no room waits, goes another way, or is refused: each counts as refused. */
typedef struct cnk_shard_budget {
    uint64_t limit, used, refused;
} cnk_shard_budget;

typedef struct cnk_shard_stats {
    uint64_t produce_parts, produce_bytes, produce_records, fetch_parts, fetch_bytes, fetch_cold_bytes;
    uint64_t fetch_ahead_bytes; /* of the cold ones: were being read, or had been, when they were asked for */
    uint64_t stored_records; /* committed */
    uint64_t partitions, connections, producers, waiting_parts, waiting_fetches, pinned_bytes, cold_bytes;
    uint64_t producers_evicted; /* over a cap: forgotten before their time */
    cnk_shard_budget pinned, cold; /* bytes: hot ones that answers hold, those read from files */
    cnk_shard_budget waiting;      /* parts: that wait for room or a conversion */
    cnk_coord_stats groups;
    cnk_latency_counts produce_latency, fetch_latency; /* from an operation's start until it is done */
} cnk_shard_stats;
void cnk_shard_stats_get(cnk_shard *shard, cnk_shard_stats *ret_stats); /* any thread; a little stale */

#ifdef CNK_TEST_HOOKS
/* Bugs that a test can put back, to see that the simulation finds them. */
enum cnk_broker_bug {
    CNK_BROKER_BUG_NONE,
    CNK_BROKER_BUG_LOSE_WAKE, /* a fetch forgets that data has come while other shards had not answered */
    CNK_BROKER_BUG_WATCH_BLIND, /* a watch does not look at what has happened before it was armed */
    CNK_BROKER_BUG_RESUME, /* a topic that is made anew has the offsets of the one before */
    CNK_BROKER_BUG_COUNT
};
extern enum cnk_broker_bug cnk_broker_bug;
#endif

#endif
