/* coord: coordinators on internal topics; README.md says how an event goes.
 *
 * A cnk_coord is one partition's coordinator, on the shard that owns the partition's stream. Its owner (the broker) tells
 * it when the partition leads, what is committed, and serves its reads; it appends through the partition's replica.
 *
 * A cnk_coord_call is one request for one group. The caller owns it, its arrays and all that they point to, until `done`,
 * which runs on the coordinator's shard, perhaps from inside the starting call. What is answered beyond the caller's own
 * arrays lies in the call's arena, which the caller initialises before and frees afterwards.
 *
 * Threads: everything is for the thread of the instance's shard. */
#ifndef CNK_COORD_COORD_H
#define CNK_COORD_COORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <chronik/error.h>
#include <chronik/io.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "replica/replica.h"

/* Named limits (T8). */
#define CNK_COORD_BATCH_BYTES_MAX (8u << 20) /* the records of one event */
#define CNK_COORD_LOAD_BYTES (1u << 20)      /* asked for at a time while loading */
#define CNK_COORD_RETRY_MS 200               /* between attempts to load */
#define CNK_COORD_STUCK_MS 100               /* a timer that fires while a batch waits for room fires again */

#define CNK_COORD_SNAPSHOT_BYTES_MAX (32u << 20) /* a larger state has none, and loads from the log */

#define CNK_COORD_GROUPS_TOPIC "__consumer_offsets"

typedef struct cnk_coord cnk_coord;
typedef struct cnk_coord_shard cnk_coord_shard;

/* The absolute value of Java's String.hashCode of the id, as Kafka finds a group's partition. `partitions` > 0. */
int32_t cnk_coord_partition_of(cnk_text id, int32_t partitions);

/* Names of internal topics, which clients do not write to. */
bool cnk_coord_topic_is_internal(const char *name, size_t len);

/* ---- calls ------------------------------------------------------------------------------------------------------ */

typedef enum cnk_coord_kind {
    CNK_COORD_OFFSET_COMMIT,
    CNK_COORD_OFFSET_FETCH,
    CNK_COORD_OFFSET_DELETE,
    CNK_COORD_JOIN,
    CNK_COORD_SYNC,
    CNK_COORD_HEARTBEAT,
    CNK_COORD_LEAVE,
    CNK_COORD_DESCRIBE,
    CNK_COORD_LIST,
    CNK_COORD_DELETE,
    CNK_COORD_KINDS
} cnk_coord_kind;

typedef struct cnk_coord_offset { /* of a partition: to be stored, or as stored */
    int32_t partition;
    int32_t leader_epoch; /* -1: none */
    int64_t offset;       /* -1: none */
    int64_t timestamp_ms; /* of a commit; -1: now */
    cnk_text metadata;
    cnk_uuid topic_id; /* as stored: the topic that it was stored for; zero: not known */
    int error;
} cnk_coord_offset;

typedef struct cnk_coord_topic {
    cnk_text name;
    cnk_uuid id; /* zero: unknown */
    cnk_coord_offset *offsets;
    size_t offset_count;
} cnk_coord_topic;

typedef enum cnk_coord_state { /* Kafka's names for a classic group's state */
                               CNK_COORD_EMPTY = 0,
                               CNK_COORD_PREPARING_REBALANCE,
                               CNK_COORD_COMPLETING_REBALANCE,
                               CNK_COORD_STABLE,
                               CNK_COORD_DEAD,
                               CNK_COORD_STATES
} cnk_coord_state;

extern const char *const cnk_coord_state_names[CNK_COORD_STATES]; /* "PreparingRebalance" */

typedef struct cnk_coord_protocol {
    cnk_text name, metadata;
} cnk_coord_protocol;

typedef struct cnk_coord_member { /* a member: to be removed, told an assignment, or described */
    cnk_text id, instance_id;
    cnk_text client_id, client_host;
    cnk_text metadata, assignment; /* bytes */
    int error;
} cnk_coord_member;

typedef struct cnk_coord_listed {
    cnk_text id, protocol_type;
    cnk_coord_state state;
} cnk_coord_listed;

typedef struct cnk_coord_call cnk_coord_call;
struct cnk_coord_call {
    /* asked */
    cnk_coord_kind kind;
    int16_t version; /* of Kafka's request */
    cnk_text group;
    cnk_text member_id, instance_id; /* instance_id.p NULL: a dynamic member */
    int32_t generation;              /* -1: none */
    cnk_coord_topic *topics;         /* OFFSET_*; answered for OFFSET_FETCH with all_topics */
    size_t topic_count;
    bool all_topics;      /* OFFSET_FETCH: all that the group has */
    int64_t retention_ms; /* OFFSET_COMMIT, versions 2 to 4; -1: the broker's */
    cnk_text client_id, client_host;                      /* JOIN */
    int32_t session_timeout_ms, rebalance_timeout_ms;     /* JOIN */
    cnk_text protocol_type, protocol_name;                /* JOIN, SYNC; answered there and for DESCRIBE; may be null */
    const cnk_coord_protocol *protocols;                  /* JOIN: what the member speaks, the best first */
    size_t protocol_count;
    cnk_coord_member *members; /* SYNC: assignments. LEAVE: who leaves, errors are answered. Answered for JOIN (to the
                                  leader) and DESCRIBE */
    size_t member_count;
    void (*done)(cnk_coord_call *call);
    void *arg;
    /* answered */
    int error; /* of the whole; parts have their own */
    int32_t ret_generation;               /* JOIN; -1: none */
    cnk_text ret_member_id, ret_leader;   /* JOIN */
    bool ret_skip_assignment;             /* JOIN */
    cnk_text ret_assignment;              /* SYNC */
    cnk_coord_state ret_state;            /* DESCRIBE */
    cnk_coord_listed *ret_groups;         /* LIST */
    size_t ret_group_count;
    cnk_arena arena;
    /* the runtime's */
    cnk_list node; /* in the instance's list of calls that are held or wait */
    cnk_coord *coord;
    uint64_t index;
    bool answered, blocked;
};

/* ---- shards ----------------------------------------------------------------------------------------------------- */

typedef struct cnk_coord_settings { /* the broker options of groups */
    int32_t offset_metadata_max;    /* bytes */
    int64_t offsets_retention_ms, offsets_check_ms;
    int32_t session_min_ms, session_max_ms;
    int32_t initial_delay_ms;
    int32_t members_max;
    uint32_t snapshot_records; /* applied since the last snapshot, before the next one is made */
} cnk_coord_settings;

#define CNK_COORD_SETTINGS_INIT                                                                                        \
    { .offset_metadata_max = 4096, .offsets_retention_ms = INT64_C(604800000), .offsets_check_ms = 600000,           \
      .session_min_ms = 6000, .session_max_ms = 1800000, .initial_delay_ms = 3000, .members_max = INT32_MAX, \
      .snapshot_records = 10000 }

/* What an instance needs of its owner. */
typedef struct cnk_coord_host {
    /* Reads committed batches from the offset on, about `bytes` of them; cnk_coord_read_done tells the end, later. Where
     * it returns an error, nothing has begun. */
    int (*read)(void *arg, int64_t offset, uint32_t bytes);
    /* Something for the operator. */
    void (*notice)(void *arg, int code, const char *text);
    void *arg;
} cnk_coord_host;

typedef struct cnk_coord_stats {
    uint64_t groups[CNK_COORD_STATES], members;  /* there are now, of coordinators that lead or load */
    uint64_t rebalances, offset_commits;         /* begun; offsets that members and others have stored */
} cnk_coord_stats;
void cnk_coord_stats_get(const cnk_coord_shard *shard, cnk_coord_stats *ret_stats); /* any thread */

int cnk_coord_shard_new(const chronik_io *io, const chronik_loop *loop, const cnk_coord_settings *settings,
                        cnk_coord_shard **ret_shard);
void cnk_coord_shard_free(cnk_coord_shard *shard); /* after its instances; NULL-safe */

/* ---- instances -------------------------------------------------------------------------------------------------- */

/* The coordinator of groups of one partition. It answers NOT_COORDINATOR until it leads. The replica is borrowed. */
int cnk_coord_new(cnk_coord_shard *shard, cnk_replica *replica, const cnk_coord_host *host, cnk_coord **ret_coord);
/* Answers what is open with NOT_COORDINATOR. A read under way must have ended, or never end. NULL-safe. */
void cnk_coord_free(cnk_coord *coord);

void cnk_coord_lead(cnk_coord *coord);   /* the partition leads: loads, then serves */
void cnk_coord_resign(cnk_coord *coord); /* it does not any more, or writes nothing more: NOT_COORDINATOR */
void cnk_coord_writable(cnk_coord *coord); /* appends may work again after EAGAIN */
void cnk_coord_committed(cnk_coord *coord, uint64_t commit_index);
/* The read asked for has ended: with an error, or with batches in pieces, borrowed for the call. Then, when the next one may
 * be asked for: cnk_coord_load_next. */
void cnk_coord_read_done(cnk_coord *coord, int error, const struct iovec *slices, size_t slice_count);
void cnk_coord_load_next(cnk_coord *coord);

/* The newest snapshot, for a checkpoint: what it holds is committed. Nothing is appended where there is none. 0 or what the
 * writer says. */
int cnk_coord_snapshot(const cnk_coord *coord, cnk_writer *out);
/* What cnk_coord_snapshot gave, from the checkpoint that recovery has used: taken, freed with the instance. Before the first
 * cnk_coord_lead. What is wrong with it makes the instance load from the log. */
void cnk_coord_restore(cnk_coord *coord, uint8_t *state, size_t len);

/* What was stored for one topic is not another one's of the same name. An id that is not known is anybody's. */
bool cnk_coord_other_topic(const cnk_uuid *asked, const cnk_uuid *stored);
void cnk_coord_call_start(cnk_coord *coord, cnk_coord_call *call);
/* The caller has gone: the call is done with ECANCELED, from inside, unless it is done already. */
void cnk_coord_call_cancel(cnk_coord_call *call);
/* A topic has been deleted: what groups have stored for it goes. */
void cnk_coord_topic_deleted(cnk_coord *coord, cnk_text name, const cnk_uuid *id);

#endif
