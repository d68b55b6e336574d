/* Fetch sessions (KIP-227): a client names its partitions once; later fetches name only what has changed, and are told
 * only what has.
 *
 *     id 0, epoch 0 ──► a full fetch: all partitions, in the answer the session's id (0: do without)
 *     id, epoch n ────► an incremental one: partitions to add or change, partitions to forget
 *     id, epoch 0 or −1 ► ends the session
 *
 * Invariants
 *  - The epoch of the next request is known; any other is refused (INVALID_FETCH_SESSION_EPOCH), so a request that was
 *    lost or came twice is noticed. 2^31 − 1 is followed by 1.
 *  - A session speaks of topics by name or by id, never both (FETCH_SESSION_TOPIC_ID_ERROR).
 *  - A partition is told when it has data, an error, or another high watermark or log start than it was told last; after
 *    an error it is told again in any case.
 *  - A partition is ready or quiet. Quiet: its reader has read all, has been told all, and a watch is armed that makes it
 *    ready again. A fetch asks for those that are ready, so it costs what has changed (K8); and ends early when another
 *    one becomes ready, to begin anew with it.
 *  - Ready ones are served in the order of the list; one that got data goes to its end, so that none starves.
 *  - Sessions belong to the shard whose connection made them. A new one takes the place of one that has been idle for
 *    CNK_KAFKA_SESSION_IDLE_MS; where there is none the client goes on without, which is always right.
 *  - What a fetch under way has looked at (users > 0), and what a watch is being taken off, is freed only after it.
 *
 * Owner: the shard's thread. */
#ifndef CNK_KAFKA_SESSION_H
#define CNK_KAFKA_SESSION_H

#include "kafka/internal.h"

#define CNK_KAFKA_SESSION_EPOCH_INITIAL 0
#define CNK_KAFKA_SESSION_EPOCH_FINAL (-1)

typedef struct cnk_kafka_session_topic {
    cnk_uuid id;    /* zero where it goes by name */
    size_t name_len;
    size_t parts;   /* that point to it */
    char name[];
} cnk_kafka_session_topic;

typedef struct cnk_kafka_session_part {
    cnk_list node; /* in the session's ready, quiet, or forgotten */
    bool quiet;
    struct {
        cnk_kafka_session_topic *topic;
        int64_t partition;
    } key;
    int64_t offset;
    uint32_t bytes_max;
    int32_t leader_epoch;
    int64_t high_watermark, log_start; /* as told last; −1: none */
    cnk_watch watch;                   /* idle, but where it is quiet; armed still, maybe, where it was */
} cnk_kafka_session_part;

typedef struct cnk_kafka_session {
    cnk_list lru_node; /* kafka->sessions.lru, the longest unused first; or .ended */
    cnk_kafka *kafka;
    int32_t id, epoch; /* epoch: of the next request */
    bool by_id;
    bool read_committed; /* as of the last fetch */
    bool ended;          /* nobody finds it any more */
    unsigned users;      /* fetches under way */
    cnk_fetch *op;       /* the newest of them; NULL: none that waits */
    uint64_t used_ns;
    size_t bytes;
    cnk_map topics;      /* name, or id → cnk_kafka_session_topic */
    cnk_map by_key;      /* → cnk_kafka_session_part */
    cnk_list ready, quiet, forgotten;
    size_t ready_count;
    cnk_watcher watcher;
} cnk_kafka_session;

void cnk_kafka_sessions_init(cnk_kafka_sessions *all, uint64_t seed, uint32_t slots);
/* Ends all. True: none is left, none has a watch that is still being taken off. */
bool cnk_kafka_sessions_end(cnk_kafka_sessions *all);
void cnk_kafka_sessions_free(cnk_kafka_sessions *all); /* none is left */

/* NULL: there is none. */
cnk_kafka_session *cnk_kafka_session_find(cnk_kafka *k, int32_t id);
void cnk_kafka_session_end(cnk_kafka_session *s);
int32_t cnk_kafka_session_epoch_next(int32_t epoch);

/* What an incremental request changes. 0; ENOMEM, ETOOLARGE (over the shard's limit): the session is ended. */
int cnk_kafka_session_update(cnk_kafka_session *s, const cnk_fetch_request *in);

/* A session of what a full fetch asked for and is told. Its id; 0: the client goes on without one. */
int32_t cnk_kafka_session_make(cnk_kafka *k, bool by_id, bool read_committed, const cnk_kafka_fetch_answer *told);

/* A fetch begins, with the session's epoch as it is then. */
void cnk_kafka_session_hold(cnk_kafka_session *s, cnk_fetch *op);
/* op asks for what is ready now; op->parts grows (cnk_malloc), and is the caller's to free. 0 or ENOMEM. */
int cnk_kafka_session_ask(cnk_kafka_session *s, cnk_fetch *op, size_t *parts_capacity);
/* When it is done, and the epoch is what it was: the answer gets what the client has to be told, and the id. 0 or ENOMEM. */
int cnk_kafka_session_tell(cnk_kafka_session *s, cnk_kafka_request *r, const cnk_fetch *op, cnk_kafka_fetch_answer *a);
/* After it; the session may be gone then. */
void cnk_kafka_session_release(cnk_kafka_session *s, const cnk_fetch *op);

#endif
