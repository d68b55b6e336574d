/* What the files of lib/node share. README.md draws the life of a node. */
#ifndef CNK_NODE_INTERNAL_H
#define CNK_NODE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <chronik/io.h>
#include <chronik/io_posix.h>
#include <chronik/node.h>
#include <chronik/node_loop.h>

#include "base/list.h"
#include "base/metric.h"
#include "base/uuid.h"
#include "broker/broker.h"
#include "conf/conf.h"
#include "io/event.h"
#include "kafka/conn.h"
#include "node/world.h"
#include "wal/wal.h"

/* Limits. */
enum {
    NODE_ACCEPTS_MAX = 4,         /* connections taken in one go, so that a storm of them starves nobody */
    NODE_PUMP_BYTES_MAX = 4 << 20, /* received from one connection in one go, likewise */
    NODE_SEND_BYTES_MAX = 512 << 10, /* sent to all connections of a shard in one go, likewise; but small answers always go */
    NODE_SEND_SMALL_BYTES = 64 << 10,
    NODE_IOV_MAX = 64,            /* pieces in one send */
    NODE_ADDRESS_TEXT = 96,
    NODE_LISTENERS_MAX = 3,
    NODE_SWEEP_MS = 1000          /* how often idle connections are looked for, while there are any that can be idle */
};

/* ---- config.c -------------------------------------------------------------------------------------------------- */

const cnk_conf *cnk_config_conf(const chronik_config *config);

/* ---- queue.c --------------------------------------------------------------------------------------------------- */

struct chronik_event {
    cnk_list link;
    int type, error, level;
    int64_t a, b, time_ms;
    void *opaque;
    const char *text;                           /* what it points to is release's business */
    void (*release)(struct chronik_event *event); /* gives back the event's memory */
};

/* Never fails; the queue owns the event from now on. Any thread. */
void cnk_queue_push(chronik_queue *queue, chronik_event *event);
/* A log line: allocated, counted against CHRONIK_QUEUE_LOGS_MAX. Any thread. */
void cnk_queue_log(chronik_queue *queue, int level, int64_t time_ms, const char *text);

/* ---- directory.c ----------------------------------------------------------------------------------------------- */

typedef struct cnk_identity {
    int32_t node_id;
    cnk_uuid directory_id, cluster_id;
} cnk_identity;

/* Makes the directory where it is missing, locks it, and reads or writes its identity; node_id -1: the directory's, or
 * 1 where it is new. *ret_lock is closed by the
 * caller at the very end. EBUSY, EINVAL (another node's directory), ECORRUPT, EIO. */
int cnk_directory_take(const chronik_io *io, const char *path, int32_t node_id, chronik_error *err,
                       chronik_file **ret_lock, cnk_identity *ret_identity);

/* ---- a shard of the node --------------------------------------------------------------------------------------- */

/* Why connections were closed; metrics.c has their names. */
typedef enum node_close {
    NODE_CLOSE_PEER,     /* it has closed, or is gone */
    NODE_CLOSE_PROTOCOL, /* cnk_kafka_why */
    NODE_CLOSE_SLOW,
    NODE_CLOSE_MEMORY,
    NODE_CLOSE_IDLE,
    NODE_CLOSE_SHUTDOWN,
    NODE_CLOSE_LIMIT, /* max.connections: at once */
    NODE_CLOSE_REASONS
} node_close;

typedef struct node_shard {
    chronik_node *node;
    size_t index;
    const chronik_loop *loop, *host_loop; /* host_loop: as given; NULL: own_loop */
    cnk_event_loop *own_loop;             /* NULL on a host's loop */
    pthread_t thread;
    bool has_thread;
    cnk_shard *broker;
    cnk_kafka *kafka;
    cnk_list conns;  /* node_conn.link */
    cnk_list woken;  /* node_conn.woken: something to do for them in the deferred message */
    cnk_list calls;  /* node_call.link: begun, and not answered yet */
    chronik_post defer_post, stop_post, close_post, down_post;
    bool defer_posted;
    size_t send_left; /* of this go, once something large has been sent */
    chronik_post send_post;
    bool send_posted;
    chronik_timer *sweep, *tick;
    bool sweep_set, draining, closed;
    cnk_counter conn_count, accepted, received_bytes, sent_bytes, closed_for[NODE_CLOSE_REASONS];
    cnk_kafka_counts counts;
} node_shard;

/* The message that makes a node stop, and what it says; under the node's mutex. */
typedef struct node_stopper {
    chronik_post post;
    chronik_node *node;
    int deadline_ms;
    bool posted;
} node_stopper;

typedef struct node_listener {
    const char *name;
    int fd;
    chronik_address local;
    chronik_watch *watch;
    chronik_timer *retry; /* after EMFILE */
    chronik_node *node;
    bool http;
    char text[NODE_ADDRESS_TEXT];
} node_listener;

enum { NODE_NEW, NODE_OPENING, NODE_READY, NODE_STOPPING, NODE_STOPPED };

struct chronik_node {
    cnk_conf *conf;
    chronik_queue *queue;
    const chronik_io *io;
    chronik_io *own_io; /* NULL: the host's */
    chronik_io *lossy_io;
    cnk_world *world; /* from the start to the end; `io` is its */
    bool host_loops;
    chronik_file *lock;
    cnk_identity identity;
    cnk_wal *wal;
    struct cnk_tier *tier;
    cnk_broker *broker;
    node_shard *shards;
    const chronik_loop **loops;
    size_t shard_count;
    node_listener listeners[NODE_LISTENERS_MAX];
    size_t listener_count;
    size_t next_shard; /* for the next connection; shard 0's */
    cnk_list https;    /* HTTP connections; shard 0's */
    size_t http_count;
    struct node_metrics *metrics; /* what it remembers from one look to the next; NULL: none yet */
    _Atomic uint64_t connections, calls, calls_open;
    uint64_t connections_max;
    cnk_broker_config_row *rows;
    char **row_texts;
    size_t row_count;
    char *wal_dir, *pack_dir;
    char *data_dir; /* its absolute path, where it has one */
    char advertised_host[256]; /* "": each connection's own address */
    uint16_t advertised_port;
    chronik_event *ready_event, *failed_event, *fenced_event, *stopped_event;
    _Atomic int log_level;
    /* stopping; shard 0's */
    uint64_t stop_deadline_ns;
    chronik_timer *stop_timer;
    bool stop_begun, broker_stopping;
    size_t shards_closed;
    int stop_code;
    /* under `mutex` */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Atomic int state;
    bool ready_known, stop_asked, opening_failed;
    node_stopper stopper;
    int ready_code;
    chronik_error ready_error;
};

void cnk_node_log(chronik_node *node, int level, const char *format, ...) CHRONIK_PRINTF(3, 4);
int64_t cnk_node_wall_ms(void);

/* ---- conn.c: listening, accepting, moving bytes ----------------------------------------------------------------- */

int cnk_node_listen(chronik_node *node, const char *name, const char *host, uint16_t port, chronik_error *err);
int cnk_node_accept_start(chronik_node *node, chronik_error *err); /* shard 0's thread */
void cnk_node_listeners_close(chronik_node *node);                /* shard 0's thread, or no loop runs */
int cnk_node_shard_conns_init(node_shard *shard);
/* No request is read any more; what is under way may end; `gone` is posted once no connection is left. */
void cnk_node_shard_drain(node_shard *shard);
void cnk_node_shard_close_all(node_shard *shard); /* at the deadline */

/* ---- http.c: shard 0's thread ------------------------------------------------------------------------------------ */

void cnk_node_http_accept(chronik_node *node, int fd); /* takes the socket */
void cnk_node_http_close(chronik_node *node);

/* ---- metrics.c: shard 0's thread --------------------------------------------------------------------------------- */

void cnk_node_metrics_put(chronik_node *node, cnk_writer *to); /* errors are the writer's */
void cnk_node_metrics_free(chronik_node *node);

/* ---- call.c ---------------------------------------------------------------------------------------------------- */

void cnk_node_calls_cancel(node_shard *shard, bool all); /* waiting fetches; all: the others too */

/* A shard has perhaps nothing open any more: looks, and goes on with stopping. The shard's thread. */
void cnk_node_shard_check(node_shard *shard);

#endif
