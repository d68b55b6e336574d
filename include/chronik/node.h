/* chronik/node.h: a broker inside your process.
 *
 *     chronik_config *config;  chronik_queue *queue;  chronik_node *node;  chronik_error err = CHRONIK_ERROR_INIT;
 *     chronik_config_new(&config);
 *     chronik_config_set(config, "data.dir", "/var/lib/mine", &err);
 *     chronik_queue_new(&err, &queue);
 *     chronik_node_new(config, queue, &err, &node);
 *     chronik_node_start(node, &err);
 *     … events arrive in the queue: CHRONIK_EVENT_READY, then what you asked for …
 *     chronik_node_stop(node, 10000);
 *     … CHRONIK_EVENT_STOPPED …
 *     chronik_node_free(node);  chronik_queue_free(queue);  chronik_config_free(config);
 *
 * What the library promises to its host: it prints nothing, installs no signal handler, never ends the process (but for
 * a broken invariant, see chronik_assert_handler_set), keeps no state outside of its handles, calls no function of the
 * host on a thread of its own, and its threads block all signals. Several nodes may live in one process, each with a
 * data directory of its own.
 *
 * Errors: 0 or a negative CHRONIK_E* (chronik/error.h); outputs stay untouched on failure.
 * Pointers: borrowed for the call, unless the comment says otherwise. Texts are UTF-8, NUL-terminated.
 * Threads: functions may be called from any thread, but one handle's `_free` from one only, when nothing else uses it. A
 * chronik_config belongs to one thread at a time.
 *
 * Tier: stable from 1.0. Until then the soname carries the minor version. */
#ifndef CHRONIK_NODE_H
#define CHRONIK_NODE_H

#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHRONIK_VERSION_MAJOR 0
#define CHRONIK_VERSION_MINOR 1
#define CHRONIK_VERSION_PATCH 0

/* The version of the library at hand, "0.1.0"; compare it with the macros, which are those of compile time. */
CHRONIK_API const char *chronik_version(void);

/* Is called when an invariant of the library's own does not hold, before abort(). Process-wide: the one exception to
 * "no state outside of handles". NULL: one line goes to standard error. */
CHRONIK_API void chronik_assert_handler_set(void (*handler)(const char *expression, const char *file, int line));

/* ---- configuration ----------------------------------------------------------------------------------------------
 * Options have one name in four spellings: num.partitions, --num-partitions, CHRONIK_NUM_PARTITIONS, num_partitions;
 * every function takes any of them. chronikd(1) lists them. */

typedef struct chronik_config chronik_config;

/* All options at their defaults. ENOMEM. */
CHRONIK_API int chronik_config_new(chronik_config **ret_config);
CHRONIK_API void chronik_config_free(chronik_config *config); /* NULL-safe */

/* Copies the value. Stronger than any file, variable or flag. EINVAL, EUNSUPPORTED: err has a sentence that says what
 * would be accepted. */
CHRONIK_API int chronik_config_set(chronik_config *config, const char *name, const char *value, chronik_error *err);

/* The value as text; the default where it has not been set; NULL where there is no such option. Borrowed until the next
 * change of the config. */
CHRONIK_API const char *chronik_config_get(const chronik_config *config, const char *name);

/* Options from a TOML file. EINVAL (with file and line), ENOTFOUND, EIO. */
CHRONIK_API int chronik_config_load_file(chronik_config *config, const char *path, chronik_error *err);

/* Options from the environment: NULL-terminated "NAME=value"; NULL: the process's own. */
CHRONIK_API int chronik_config_load_env(chronik_config *config, char *const *environment, chronik_error *err);

/* Options from a command line. Words that are no options stay in argv, argv[0] first; *ret_argc is their number. */
CHRONIK_API int chronik_config_load_args(chronik_config *config, int argc, char **argv, chronik_error *err,
                                         int *ret_argc);

/* What goes together and what does not. EINVAL with a sentence; chronik_node_new does it too. */
CHRONIK_API int chronik_config_check(const chronik_config *config, chronik_error *err);

/* The options that have been set but are without effect, one after the other: start with *it = 0; NULL at the end. */
CHRONIK_API const char *chronik_config_next_idle(const chronik_config *config, size_t *it);

/* The table of options, for help texts and user interfaces; constants. NULL past the end; hidden ones are left out. */
typedef struct chronik_option chronik_option;
CHRONIK_API const chronik_option *chronik_option_next(size_t *it); /* start with *it = 0 */
CHRONIK_API const char *chronik_option_name(const chronik_option *option);    /* "num.partitions" */
CHRONIK_API const char *chronik_option_section(const chronik_option *option); /* "Topics" */
CHRONIK_API const char *chronik_option_type(const chronik_option *option);    /* bool int bytes ms port text choice */
CHRONIK_API const char *chronik_option_unit(const chronik_option *option);    /* a choice's choices: "text|json"; or "" */
CHRONIK_API const char *chronik_option_default(const chronik_option *option); /* "": unset */
CHRONIK_API const char *chronik_option_others(const chronik_option *option);  /* other names, separated by blanks */
CHRONIK_API const char *chronik_option_doc(const chronik_option *option);
/* "": it works; "none": accepted, without effect; "refused": any value but the default is refused. */
CHRONIK_API const char *chronik_option_limits(const chronik_option *option);

/* ---- queues and events ------------------------------------------------------------------------------------------
 * Everything that happens later arrives as an event in a queue of the host's, who looks into it where and when it
 * suits: by waiting in chronik_queue_poll, or by adding chronik_queue_fd to a poll set. */

typedef struct chronik_queue chronik_queue;
typedef struct chronik_event chronik_event;

enum {
    CHRONIK_EVENT_READY = 1,     /* the node serves; text: "kafka=127.0.0.1:9092 …" */
    CHRONIK_EVENT_PROGRESS = 2,  /* recovery takes long; a: bytes read, b: bytes in all */
    CHRONIK_EVENT_FAILED = 3,    /* the node could not start; error, text. STOPPED follows */
    CHRONIK_EVENT_FENCED = 4,    /* a write or a sync has failed: no write will be accepted until a new start; error, text */
    CHRONIK_EVENT_STOPPED = 5,   /* the last event of the node; error: 0, or why data may not have been synced */
    CHRONIK_EVENT_LOG = 6,       /* a line for the log; level, text */
    CHRONIK_EVENT_TOPIC = 16,    /* chronik_topic_create is done; error, text; a: number of partitions */
    CHRONIK_EVENT_PRODUCED = 17, /* chronik_produce is done; error, text; a: the first record's offset; b: append time or -1 */
    CHRONIK_EVENT_FETCHED = 18   /* chronik_fetch is done; error; a: high watermark; b: log start; the data, below */
};

enum { CHRONIK_LOG_ERROR = 0, CHRONIK_LOG_WARN = 1, CHRONIK_LOG_INFO = 2, CHRONIK_LOG_DEBUG = 3, CHRONIK_LOG_TRACE = 4 };

/* Log lines that wait in a queue; later ones are counted, and the count is told. */
#define CHRONIK_QUEUE_LOGS_MAX 4096
/* Calls of one node under way at one time, and events of theirs not yet freed; beyond it calls get EAGAIN. */
#define CHRONIK_NODE_CALLS_MAX 65536

/* ENOMEM, EIO (no descriptor left). */
CHRONIK_API int chronik_queue_new(chronik_error *err, chronik_queue **ret_queue);

/* After all nodes that use it are free. Frees the events that wait. NULL-safe. */
CHRONIK_API void chronik_queue_free(chronik_queue *queue);

/* A descriptor that is readable while events wait. Only poll it: never read, never close it. */
CHRONIK_API int chronik_queue_fd(const chronik_queue *queue);

/* Takes the oldest event: 1, and *ret_event, to be freed by the caller; 0: none came within timeout_ms (0: look only,
 * -1: wait for ever). Several threads may wait at once. */
CHRONIK_API int chronik_queue_poll(chronik_queue *queue, int timeout_ms, chronik_event **ret_event);

/* Gives back the event and what it holds. Before the node is freed. NULL-safe. */
CHRONIK_API void chronik_event_free(chronik_event *event);

CHRONIK_API int chronik_event_type(const chronik_event *event);           /* CHRONIK_EVENT_* */
CHRONIK_API const char *chronik_event_name(const chronik_event *event);   /* "ready"; a constant */
CHRONIK_API int chronik_event_error(const chronik_event *event);          /* 0 or CHRONIK_E* */
CHRONIK_API const char *chronik_event_text(const chronik_event *event);   /* a sentence, or ""; borrowed */
CHRONIK_API int chronik_event_level(const chronik_event *event);          /* CHRONIK_LOG_*, of a LOG event */
CHRONIK_API int64_t chronik_event_time_ms(const chronik_event *event);    /* Unix time, of a LOG event */
CHRONIK_API void *chronik_event_opaque(const chronik_event *event);       /* the call's, as given; NULL for the node's */
CHRONIK_API int64_t chronik_event_a(const chronik_event *event);
CHRONIK_API int64_t chronik_event_b(const chronik_event *event);

/* ---- nodes ------------------------------------------------------------------------------------------------------ */

typedef struct chronik_node chronik_node;

/* Copies the config; borrows the queue until chronik_node_free. Touches neither disk nor network. EINVAL, ENOMEM. */
CHRONIK_API int chronik_node_new(const chronik_config *config, chronik_queue *queue, chronik_error *err,
                                 chronik_node **ret_node);

/* Takes the data directory, opens the listening sockets and starts the node's threads. READY follows, when what is on
 * the disk has been recovered, or FAILED and STOPPED. Fails at once, and may then be tried again, where the directory
 * is in use (EBUSY) or another node's (EINVAL), where a port is taken or the disk says no (EIO). Once for each node. */
CHRONIK_API int chronik_node_start(chronik_node *node, chronik_error *err);

/* Waits until the node is ready: 0; or why it will never be: as FAILED says, ESHUTDOWN; or ETIMEDOUT. timeout_ms -1: for
 * ever. Takes no event from the queue. Not on a thread that runs a loop of the node's. */
CHRONIK_API int chronik_node_wait_ready(chronik_node *node, int timeout_ms, chronik_error *err);

/* Starts to stop: new connections and calls are refused, requests under way may end within deadline_ms (-1: the option
 * shutdown.timeout.ms), everything that was appended is synced, STOPPED follows. Events with data (FETCHED) must be freed
 * for that. Nothing acknowledged is ever lost, whatever the deadline. A second call can only bring the deadline
 * nearer. Before chronik_node_start: nothing happens. */
CHRONIK_API void chronik_node_stop(chronik_node *node, int deadline_ms);

/* Waits until the node has stopped: STOPPED's error, or ETIMEDOUT; as chronik_node_wait_ready. */
CHRONIK_API int chronik_node_wait_stopped(chronik_node *node, int timeout_ms);

/* Stops the node with deadline 0 where it runs, waits for it, and frees it. Not on a thread of the node's loops; events
 * with data (FETCHED) must have been freed. NULL-safe. */
CHRONIK_API void chronik_node_free(chronik_node *node);

/* Where it listens, once started: "127.0.0.1:9092" for "kafka", "http", "metrics"; NULL where it does not. Borrowed. */
CHRONIK_API const char *chronik_node_address(const chronik_node *node, const char *listener);

/* ---- looking at a data directory that no node uses --------------------------------------------------------------- */

enum {
    CHRONIK_FSCK_CUT = 1,       /* repair the write-ahead log: damaged files go to wal/damaged/, and what is whole in them is
                                   written anew. What is not is lost, and the lines say what: its offsets stay empty, as
                                   after compaction, and all others keep their numbers. */
    CHRONIK_FSCK_QUARANTINE = 2 /* put damaged packs aside */
};

/* Checks every checksum, and tells what it finds, a line for each finding (borrowed for the call), on this thread.
 * Changes nothing without a flag. 0: sound, or so now; ECORRUPT: not. EBUSY: a node uses it. ENOTFOUND, EIO, ENOMEM. */
CHRONIK_API int chronik_fsck(const char *data_dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                             chronik_error *err);

/* ---- calls ------------------------------------------------------------------------------------------------------
 * Each returns 0 once it is under way, and exactly one event of its kind with `opaque` arrives in `queue`, with the
 * result; or a negative error at once, and no event (EINVAL, ENOMEM; EAGAIN: CHRONIK_NODE_CALLS_MAX; ESHUTDOWN: the node is
 * not ready any more; EBUSY: not yet). Each has a form that waits, `_sync`: not on a thread of the node's loops. */

typedef struct chronik_topic_options {
    size_t size;
    int32_t partitions;        /* -1: the node's num.partitions */
    int16_t replication;       /* -1: the node's default.replication.factor */
    int32_t timeout_ms;
    const char *const *settings; /* NULL, or name, value, name, value, …, NULL: Kafka's topic configuration */
} chronik_topic_options;

#define CHRONIK_TOPIC_OPTIONS_INIT {sizeof(chronik_topic_options), -1, -1, 30000, NULL}

/* Makes a topic; the event comes when it is durable and may be used. options: borrowed for the call; NULL: defaults.
 * ETOPICEXISTS, EINVALIDTOPIC, EINVALIDPARTITIONS, EINVALIDCONFIG, … */
CHRONIK_API int chronik_topic_create(chronik_node *node, const char *topic, const chronik_topic_options *options,
                                     chronik_queue *queue, void *opaque);
CHRONIK_API int chronik_topic_create_sync(chronik_node *node, const char *topic, const chronik_topic_options *options,
                                          chronik_error *err);

/* A key with a value, as stored and as read. */
typedef struct chronik_header {
    const char *name; /* need not end with NUL */
    size_t name_len;
    const void *value; /* NULL: null */
    size_t value_len;
} chronik_header;

typedef struct chronik_record {
    size_t size;
    int64_t offset;       /* when read */
    int64_t timestamp_ms; /* -1 when produced: now */
    const void *key;      /* NULL: null */
    size_t key_len;
    const void *value;    /* NULL: null */
    size_t value_len;
    const chronik_header *headers;
    size_t header_count;
} chronik_record;

#define CHRONIK_RECORD_INIT {sizeof(chronik_record), -1, -1, NULL, 0, NULL, 0, NULL, 0}

/* Appends the records to a partition, as one batch: all of them or none. They are durable when the event says so.
 * `records` is copied (encoded) before the call returns. Records per call: any number that fits max.message.bytes.
 * EUNKNOWNTOPIC, EMESSAGETOOLARGE, EFENCED, ETIMEDOUT (unknown whether appended), … */
CHRONIK_API int chronik_produce(chronik_node *node, const char *topic, int32_t partition,
                                const chronik_record *records, size_t record_count, chronik_queue *queue,
                                void *opaque);
CHRONIK_API int chronik_produce_sync(chronik_node *node, const char *topic, int32_t partition,
                                     const chronik_record *records, size_t record_count, chronik_error *err,
                                     int64_t *ret_offset);

/* As chronik_produce, from a record batch (Kafka's format v2) that is there already, compressed or not. Its bytes are
 * borrowed until the event; they are copied once, into the log's own memory. */
CHRONIK_API int chronik_produce_batch(chronik_node *node, const char *topic, int32_t partition, const void *batch,
                                      size_t batch_len, chronik_queue *queue, void *opaque);

typedef struct chronik_fetch_options {
    size_t size;
    int32_t max_wait_ms; /* how long to wait for min_bytes */
    uint32_t min_bytes;
    uint32_t max_bytes;  /* the first batch is given whole, even if it is larger */
} chronik_fetch_options;

#define CHRONIK_FETCH_OPTIONS_INIT {sizeof(chronik_fetch_options), 500, 1, 1048576}

/* Reads from a partition, from `offset` on (-2: from its start, -1: from its end). The event holds the data, without a
 * copy: what has not left the log's memory is read in place. options: NULL: defaults.
 * EOFFSETRANGE, EUNKNOWNTOPIC, … */
CHRONIK_API int chronik_fetch(chronik_node *node, const char *topic, int32_t partition, int64_t offset,
                              const chronik_fetch_options *options, chronik_queue *queue, void *opaque);
/* The event is freed by the caller. */
CHRONIK_API int chronik_fetch_sync(chronik_node *node, const char *topic, int32_t partition, int64_t offset,
                                   const chronik_fetch_options *options, chronik_error *err,
                                   chronik_event **ret_event);

/* A FETCHED event's data as it is stored: whole record batches, of which the first may begin before the offset asked
 * for. The n-th piece, from 0; NULL past the end. Borrowed from the event. */
CHRONIK_API const void *chronik_event_data(const chronik_event *event, size_t n, size_t *ret_len);

/* The next record of a FETCHED event, from the offset asked for on: 1, and *ret_record, borrowed from the event until
 * the next call; 0: no more; ECORRUPTMESSAGE, EUNSUPPORTEDCODEC, EBOMB: the batch at hand cannot be opened, and is left
 * out by the next call; ENOMEM. Set ret_record->size before the first call. One thread at a time. */
CHRONIK_API int chronik_event_record(chronik_event *event, chronik_record *ret_record);

/* The offset at which the next fetch goes on. */
CHRONIK_API int64_t chronik_event_next_offset(const chronik_event *event);

#ifdef __cplusplus
}
#endif
#endif
