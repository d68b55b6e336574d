/* What the files of this module share: requests, answers, connections. Everything is the shard thread's. */
#ifndef CNK_KAFKA_INTERNAL_H
#define CNK_KAFKA_INTERNAL_H

#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "broker/broker.h"
#include "kafka/budget.h"
#include "kafka/conn.h"
#include "kafka/errors.h"
#include "kafka/message.h"
#include "kafka/messages.h"

/* Named limits (T8); those of cnk_kafka_options stand there. */
#define CNK_KAFKA_CHUNKS_MAX 64          /* shared receive chunks of a shard, pinned ones included */
#define CNK_KAFKA_PINNED_BYTES_MAX (4u << 20) /* of one connection's frames; beyond it none begins, and its peer waits */
#define CNK_KAFKA_SMALL_FRAME_BYTES 16384u /* frames up to it are not reserved from a budget */
#define CNK_KAFKA_BACKLOG_MAX 16384u     /* bytes read while nothing can begin, so that a close is noticed */
#define CNK_KAFKA_BACKLOGS_BYTES_MAX (64u << 20) /* of a shard's backlogs, as far as they are larger: beyond it, close */
#define CNK_KAFKA_BULK_READ_BYTES 16384u /* read at a time between large frames: what follows a header is copied */
#define CNK_KAFKA_SPARES_MAX 16          /* buffers of large frames kept for reuse, … */
#define CNK_KAFKA_SPARE_BYTES_MAX (8u << 20) /* … so many bytes, and a quarter of it each, while there are connections */
#define CNK_KAFKA_CROWD_LOOK_MS 2000       /* while somebody waits for memory: how often it is seen who keeps it, … */
#define CNK_KAFKA_CROWD_ANSWER_BYTES 65536u /* … and the unsent bytes from which on an answer counts */
#define CNK_KAFKA_TURN_REQUESTS 32       /* begun on one connection before others have their turn, … */
#define CNK_KAFKA_TURN_REQUESTS_MIN 4    /* … and shared with all whose turn is over, but no fewer */
#define CNK_KAFKA_POOL_MAX 128           /* requests kept for reuse */
#define CNK_KAFKA_ARENA_CHUNK 4096u
#define CNK_KAFKA_ARENA_BASE (256u << 10) /* a request may use it, and … */
#define CNK_KAFKA_ARENA_FACTOR 16u        /* … so many bytes for each byte of its frame */
#define CNK_KAFKA_OUT_KEPT_BYTES 65536u   /* an answer's buffer is kept for reuse up to this size */
#define CNK_KAFKA_ANSWER_BYTES_MAX INT32_MAX
#define CNK_KAFKA_FETCH_BYTES_MAX 57671680u /* Kafka's fetch.max.bytes of the broker */
#define CNK_KAFKA_AUTO_CREATE_MS 10000
#define CNK_KAFKA_ALTER_MS 30000 /* a change of configurations, whose request has no timeout */
#define CNK_KAFKA_SESSION_BYTES_MAX (16u << 20) /* of all fetch sessions of a shard; their number is an option */
#define CNK_KAFKA_SESSION_IDLE_MS 120000 /* unused for so long, one makes room for another; Kafka's figure */
/* In one request; more closes the connection. */
#define CNK_KAFKA_DESCRIBE_RESOURCES_MAX 10000
#define CNK_KAFKA_LIST_PARTS_MAX 100000
#define CNK_KAFKA_METADATA_TOPICS_MAX 100000
#define CNK_KAFKA_COORDINATOR_KEYS_MAX 10000
#define CNK_KAFKA_GROUPS_MAX 10000
#define CNK_KAFKA_OFFSETS_MAX 100000
#define CNK_KAFKA_PROTOCOLS_MAX 1000
#define CNK_KAFKA_MEMBERS_MAX 100000

typedef struct cnk_kafka_request cnk_kafka_request;

/* ---- the table of what is offered ------------------------------------------------------------------------------- */

typedef struct cnk_kafka_api {
    int16_t key, version_min, version_max;
    bool in_place; /* the handler copies what it keeps of the frame, or pins it; else the frame is kept for it */
    const cnk_kafka_message *request, *response;
    /* CNK_DONE: answered. CNK_PENDING: cnk_kafka_request_finish will be called later, never from inside. Negative: the
     * connection is closed. */
    int (*handle)(cnk_kafka_request *r);
} cnk_kafka_api;

extern const cnk_kafka_api cnk_kafka_apis[];
extern const size_t cnk_kafka_api_count;
const cnk_kafka_api *cnk_kafka_api_find(int16_t key); /* NULL: not offered */

typedef struct cnk_kafka_feature {
    const char *name;
    int16_t min, max, level; /* supported, and finalised */
    bool served;             /* all APIs of the feature are: else it is not offered */
} cnk_kafka_feature;

extern const cnk_kafka_feature cnk_kafka_features[];
extern const size_t cnk_kafka_feature_count;
/* Is the feature told to a client of this ApiVersions version? Below 4, one whose minimum is 0 is not (KAFKA-17492). */
bool cnk_kafka_feature_shown(const cnk_kafka_feature *f, int version);

int cnk_kafka_handle_alter_configs(cnk_kafka_request *r);
int cnk_kafka_handle_api_versions(cnk_kafka_request *r);
int cnk_kafka_handle_create_partitions(cnk_kafka_request *r);
int cnk_kafka_handle_create_topics(cnk_kafka_request *r);
int cnk_kafka_handle_delete_groups(cnk_kafka_request *r);
int cnk_kafka_handle_delete_records(cnk_kafka_request *r);
int cnk_kafka_handle_delete_topics(cnk_kafka_request *r);
int cnk_kafka_handle_describe_cluster(cnk_kafka_request *r);
int cnk_kafka_handle_describe_configs(cnk_kafka_request *r);
int cnk_kafka_handle_describe_groups(cnk_kafka_request *r);
int cnk_kafka_handle_describe_log_dirs(cnk_kafka_request *r);
int cnk_kafka_handle_describe_producers(cnk_kafka_request *r);
int cnk_kafka_handle_describe_quorum(cnk_kafka_request *r);
int cnk_kafka_handle_describe_topic_partitions(cnk_kafka_request *r);
int cnk_kafka_handle_elect_leaders(cnk_kafka_request *r);
int cnk_kafka_handle_fetch(cnk_kafka_request *r);
int cnk_kafka_handle_find_coordinator(cnk_kafka_request *r);
int cnk_kafka_handle_heartbeat(cnk_kafka_request *r);
int cnk_kafka_handle_incremental_alter_configs(cnk_kafka_request *r);
int cnk_kafka_handle_init_producer_id(cnk_kafka_request *r);
int cnk_kafka_handle_join_group(cnk_kafka_request *r);
int cnk_kafka_handle_leave_group(cnk_kafka_request *r);
int cnk_kafka_handle_list_config_resources(cnk_kafka_request *r);
int cnk_kafka_handle_list_groups(cnk_kafka_request *r);
int cnk_kafka_handle_list_offsets(cnk_kafka_request *r);
int cnk_kafka_handle_list_partition_reassignments(cnk_kafka_request *r);
int cnk_kafka_handle_metadata(cnk_kafka_request *r);
int cnk_kafka_handle_offset_commit(cnk_kafka_request *r);
int cnk_kafka_handle_offset_delete(cnk_kafka_request *r);
int cnk_kafka_handle_offset_fetch(cnk_kafka_request *r);
int cnk_kafka_handle_offset_for_leader_epoch(cnk_kafka_request *r);
int cnk_kafka_handle_produce(cnk_kafka_request *r);
int cnk_kafka_handle_sync_group(cnk_kafka_request *r);
int cnk_kafka_handle_update_features(cnk_kafka_request *r);

/* ---- memory that was received ----------------------------------------------------------------------------------- */

typedef struct cnk_kafka_chunk {
    uint32_t refs;
    bool shared;               /* counts against CNK_KAFKA_CHUNKS_MAX */
    bool frame;                /* one frame's alone */
    bool backlog;              /* counts in backlog_bytes */
    cnk_kafka *kafka;
    cnk_kafka_budget *budget;  /* that `reserved` goes back to; NULL: none */
    uint64_t reserved;
    size_t capacity;
    uint8_t data[];
} cnk_kafka_chunk;

void cnk_kafka_chunk_unref(cnk_kafka_chunk *chunk); /* NULL-safe */

/* ---- requests and answers --------------------------------------------------------------------------------------- */

/* One piece of an answer: bytes of `out`, or memory that the operation lends until `release`. */
typedef struct cnk_kafka_piece {
    size_t from, len;        /* in out.data, where iov is NULL; else len is the sum */
    const struct iovec *iov;
    size_t iov_count;
} cnk_kafka_piece;

struct cnk_kafka_request {
    cnk_list node; /* the connection's requests, in order */
    cnk_kafka_conn *conn;
    const cnk_kafka_api *api;
    int16_t version;
    int32_t correlation_id;
    bool answered;
    uint64_t ended_ns;       /* where the operation has looked at the clock at its end; else 0 */
    cnk_kafka_chunk *home;   /* where the frame lies, while the handler runs */
    cnk_kafka_chunk *pinned; /* kept until the request is done, or needs it no longer */
    size_t frame_len;        /* without the length's four bytes */
    cnk_reader body;         /* the frame after its header */
    cnk_arena arena;
    cnk_context context;
    /* the answer: `out` starts with the frame's length */
    cnk_writer out;
    cnk_kafka_piece *pieces;
    size_t piece_count, piece_max, piece_from;
    uint64_t answer_bytes;   /* 0: nothing is sent */
    /* the handler's */
    void *op;
    void (*cancel)(cnk_kafka_request *r);  /* while it runs: makes it finish soon, maybe from inside */
    void (*release)(cnk_kafka_request *r); /* after its answer was sent, or dropped; once; may be NULL */
};

/* Zeroed memory that lives as long as the request; NULL: out of memory, or over the request's limit. */
void *cnk_kafka_request_alloc(cnk_kafka_request *r, size_t count, size_t size);
/* A copy of the text in such memory. False: out of memory. */
bool cnk_kafka_request_text(cnk_kafka_request *r, cnk_kafka_string from, cnk_text *ret_text);
int cnk_kafka_request_decode(cnk_kafka_request *r, void *ret_message);
void cnk_kafka_request_pin(cnk_kafka_request *r); /* the frame stays where it is until the request is done, … */
void cnk_kafka_request_unpin(cnk_kafka_request *r); /* … or needs it no longer: from the loop, not from the handler */
/* For CNK_PENDING: it is answered (0), or the connection must be closed (negative). Nothing may touch r afterwards. */
void cnk_kafka_request_finish(cnk_kafka_request *r, int code);

/* The answer, whole: 0, or an error, for which the connection is closed. */
int cnk_kafka_answer(cnk_kafka_request *r, const void *message);
/* The same, of another version than the request's. */
int cnk_kafka_answer_version(cnk_kafka_request *r, int version, const void *message);
/* The answer by hand: begin writes the header, then r->out, and pieces between, then end. */
int cnk_kafka_answer_begin(cnk_kafka_request *r, size_t slices_max);
int cnk_kafka_answer_slices(cnk_kafka_request *r, const struct iovec *iov, size_t iov_count, size_t bytes);
int cnk_kafka_answer_end(cnk_kafka_request *r);

static inline cnk_kafka_string cnk_kafka_string_of(const char *text) {
    return text ? (cnk_kafka_string){text, (int32_t)__builtin_strlen(text)} : CNK_KAFKA_STRING_NULL;
}
static inline cnk_text cnk_kafka_text_of(cnk_kafka_string s) {
    return (cnk_text){s.len < 0 ? NULL : s.data ? s.data : "", s.len < 0 ? 0 : (size_t)s.len};
}
static inline cnk_kafka_string cnk_kafka_string_from(cnk_text t) {
    return t.p ? (cnk_kafka_string){t.p, (int32_t)t.len} : CNK_KAFKA_STRING_NULL;
}

cnk_shard *cnk_kafka_request_shard(const cnk_kafka_request *r);
int32_t cnk_kafka_node_id(const cnk_kafka_request *r);
const char *cnk_kafka_rack(const cnk_kafka_request *r); /* NULL: none */
/* The address that clients of this connection are told (K10). */
void cnk_kafka_advertised(const cnk_kafka_request *r, cnk_kafka_string *ret_host, int32_t *ret_port);

/* Authorised operations, as long as everything is allowed: the bits of AclOperation for topics and for the cluster. */
#define CNK_KAFKA_TOPIC_OPERATIONS 0xdf8
#define CNK_KAFKA_CLUSTER_OPERATIONS 0x1fa0
#define CNK_KAFKA_GROUP_OPERATIONS 0xd48 /* as Kafka 4.3 */
#define CNK_KAFKA_OPERATIONS_UNASKED INT32_MIN

/* ---- requests to coordinators ----------------------------------------------------------------------------------- */

/* The calls of one request; the first member of the handler's state, and its r->op. */
typedef struct cnk_kafka_groups {
    cnk_kafka_request *request;
    cnk_group_call *calls;
    size_t count, open, started;
    int (*answer)(cnk_kafka_request *r);
} cnk_kafka_groups;

/* Zeroed calls with context and version. 0 or ENOMEM. */
int cnk_kafka_groups_alloc(cnk_kafka_request *r, cnk_kafka_groups *g, size_t count, int (*answer)(cnk_kafka_request *r));
/* Starts those whose call.error is 0, and answers when all are over: what a handler returns. */
int cnk_kafka_groups_start(cnk_kafka_request *r, cnk_kafka_groups *g);
static inline cnk_text cnk_kafka_text_of_bytes(cnk_kafka_bytes b) {
    return (cnk_text){b.len < 0 ? NULL : b.data ? (const char *)b.data : "", b.len < 0 ? 0 : (size_t)b.len};
}
static inline cnk_kafka_bytes cnk_kafka_bytes_from(cnk_text t) {
    return (cnk_kafka_bytes){(const uint8_t *)t.p, (int32_t)t.len}; /* null: empty */
}
/* As cnk_kafka_error, in codes that clients of coordinators retry. */
int16_t cnk_kafka_group_error(int code);

/* ---- by hand ---------------------------------------------------------------------------------------------------- */

/* A Produce request: topics, and their parts in one array, in the request's order. */
typedef struct cnk_kafka_produce_topic {
    cnk_kafka_string name; /* null from version 13 on */
    cnk_uuid id;
    uint32_t first, count; /* of the parts */
} cnk_kafka_produce_topic;

typedef struct cnk_kafka_produce_request {
    cnk_kafka_string transactional_id;
    int16_t acks;
    int32_t timeout_ms;
    uint32_t topic_count, part_count;
    cnk_kafka_produce_topic *topics;
    cnk_produce_part *parts; /* topic, topic_id, partition, data, len are filled */
} cnk_kafka_produce_request;

/* Records, and the transactional id, are slices of the input; names are copied. 0, EPROTO, ENOMEM. */
int cnk_kafka_produce_decode(cnk_reader *r, int version, cnk_arena *arena, cnk_kafka_produce_request *ret_request);

/* A Fetch response: the same shape. */
typedef struct cnk_kafka_fetch_topic {
    cnk_kafka_string name;
    cnk_uuid id;
    size_t first, count;
} cnk_kafka_fetch_topic;

typedef struct cnk_kafka_fetch_answer {
    int16_t error;
    int32_t session_id; /* 0: none */
    bool read_committed;
    bool refused; /* the request as a whole, before anything was read */
    const cnk_kafka_fetch_topic *topics;
    size_t topic_count;
    const cnk_fetch_part *parts;
    int32_t node_id; /* of the endpoint that is told where a part says who leads it */
    cnk_kafka_string host, rack;
    int32_t port;
} cnk_kafka_fetch_answer;

/* Writes the response; where record data goes, calls `slices` for the part, which adds part->bytes bytes by reference.
 * What `slices` and the writer return. */
int cnk_kafka_fetch_encode(const cnk_kafka_fetch_answer *a, int version, cnk_writer *w,
                           int (*slices)(void *arg, const cnk_fetch_part *part), void *arg);

/* ---- the shard's part, and connections -------------------------------------------------------------------------- */

typedef struct cnk_kafka_sessions { /* session.h */
    cnk_map by_id;
    cnk_list lru, ended; /* ended: still in use */
    cnk_rng rng;         /* ids */
    cnk_counter bytes, refused; /* any thread may read; refused: clients that went on without one */
    uint32_t slots;
} cnk_kafka_sessions;

struct cnk_kafka {
    cnk_shard *shard;
    const chronik_loop *loop;
    cnk_kafka_options options;
    char *advertised_host, *rack;
    cnk_kafka_budget produce, control;
    cnk_kafka_chunk *chunk;    /* the one that is being received into; NULL: none yet */
    cnk_kafka_chunk *spares[CNK_KAFKA_SPARES_MAX];
    size_t spare_count, spare_bytes; /* the one that was used last comes last */
    size_t chunk_count, conn_count, pool_count;
    unsigned over_count; /* connections that wait for their next turn */
    size_t backlog_bytes;
    cnk_list pool;             /* requests for reuse */
    cnk_kafka_sessions sessions;
    cnk_list conns;
    cnk_list bodies;           /* connections within a frame's body, the longest without progress first */
    chronik_timer *timer;      /* for the first of them, and for crowd_at_ns */
    uint64_t crowd_at_ns;      /* somebody waits for memory: when to see who keeps it; UINT64_MAX: nobody does */
    bool reads_wait;           /* for buffers of cold reads, since the last look */
};

typedef enum receive_to { RECEIVE_NOWHERE, RECEIVE_CHUNK, RECEIVE_FRAME, RECEIVE_BACKLOG } receive_to;

struct cnk_kafka_conn {
    cnk_list node; /* in kafka->conns */
    cnk_kafka *kafka;
    uint64_t id;
    char *listener;
    chronik_address peer, local;
    void (*wake)(void *arg);
    void *wake_arg;
    bool woken, closed, must_close, pumping, pump_again;
    cnk_kafka_why why; /* it must be closed */
    bool abandoned; /* closes at once: its peer does not take the answers that are due */
    unsigned turn_left; /* requests that may begin in this turn */
    unsigned calls; /* owner's calls under way: no wake from inside */
    /* receiving: a prefix, then a frame of our own; or frames in the chunk; what cannot begin yet in the backlog */
    receive_to to;
    uint8_t prefix[8];
    uint32_t prefix_len;
    cnk_kafka_chunk *frame;
    size_t frame_len, frame_filled; /* without the length's four bytes */
    bool frame_waiting;             /* for the budget */
    cnk_kafka_waiter waiter;
    cnk_kafka_budget *waiting_for;
    cnk_kafka_chunk *backlog;
    size_t backlog_start, backlog_len;
    bool bulk;                      /* the last frame was large */
    bool many;                      /* the last turn was not enough: no large reads, most of which would be copied */
    cnk_list body_node;             /* in kafka->bodies */
    uint64_t progress_ns, frame_ns; /* when the body moved last; when its frame was made */
    /* requests and answers */
    cnk_list requests;
    size_t request_count, running, running_produce;
    size_t pinned_bytes; /* of frames that requests have pinned: for Produce, those that wait for room in the WAL */
    uint64_t unsent, bytes_sent, answers_sent;
    uint64_t look_ns, look_answers, look_sent; /* the last look at the answer in front: when, which, bytes_sent then */
    size_t sent_piece, sent_iov, sent_offset; /* within the first request */
    size_t fetch_rotation;
};

/* receive.c */
void cnk_kafka_receive_pump(cnk_kafka_conn *c);  /* begins what can begin now */
void cnk_kafka_receive_drop(cnk_kafka_conn *c);  /* gives everything received back */
void cnk_kafka_receive_timeout(void *kafka);     /* the timer's */
void cnk_kafka_crowd_look(cnk_kafka *k, uint64_t now);
void cnk_kafka_spares_free(cnk_kafka *k);
/* request.c */
bool cnk_kafka_can_begin(const cnk_kafka_conn *c, int16_t api_key);
void cnk_kafka_dispatch(cnk_kafka_conn *c, cnk_kafka_chunk *home, const uint8_t *frame, size_t len);
void cnk_kafka_request_drop(cnk_kafka_request *r); /* answered: releases it, back to the pool */
/* conn.c */
void cnk_kafka_conn_wake(cnk_kafka_conn *c);
void cnk_kafka_conn_fail(cnk_kafka_conn *c, cnk_kafka_why why); /* it must be closed; the first reason counts */
void cnk_kafka_conn_free_if_done(cnk_kafka_conn *c);

#endif
