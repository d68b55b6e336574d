/* The life of a node. README.md draws it; the states are:
 *
 *     NEW ── start ──► OPENING ── broker ready ──► READY ── stop ──► STOPPING ── all closed, synced ──► STOPPED
 *                         │                                             ▲
 *                         ├── stop ────────────────────────────────────┘
 *                         └── opening failed ──► STOPPED
 *
 * Owner: shard 0's thread drives the state from OPENING on; `state` is atomic, and changes under `mutex`, so that
 * waiting threads see it. Stopping, in order: listeners close, every shard stops reading and lets requests end (until
 * the deadline, then it closes its connections); when no shard has a connection or a call, the broker stops, which
 * drains the WAL's ports; before it the tier, after it the loops. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "io/lossy.h"
#include "io/posix.h"
#include "node/internal.h"
#include "tier/tier.h"

enum {
    STOP_TICK_MS = 5,             /* how often a stopping node looks whether all is closed */
    LOG_LINE_MAX = 1024,
    DIR_NAME_MAX = 4096,
    PACK_END_BYTES = 64 << 10     /* what is read of a pack when it is opened */
};

const char *chronik_version(void) { return CNK_VERSION; }

int64_t cnk_node_wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void cnk_node_log(chronik_node *node, int level, const char *format, ...) {
    if (level > atomic_load_explicit(&node->log_level, memory_order_relaxed)) return;
    char line[LOG_LINE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    cnk_queue_log(node->queue, level, cnk_node_wall_ms(), line);
}

/* ---- events of the node itself ----------------------------------------------------------------------------------- */

typedef struct node_event {
    chronik_event event;
    char text[512];
} node_event;

static void release_event(chronik_event *event) { cnk_free(CNK_CONTAINER(event, node_event, event)); }

static chronik_event *event_new(int type) {
    node_event *e = cnk_calloc(1, sizeof *e);
    if (!e) return NULL;
    e->event = (chronik_event){.type = type, .text = e->text, .release = release_event};
    return &e->event;
}

/* Each of the four is sent once: afterwards it is the queue's. */
static void tell(chronik_node *node, chronik_event **which, int error, const char *text) {
    chronik_event *event = *which;
    if (!event) return;
    *which = NULL;
    node_event *e = CNK_CONTAINER(event, node_event, event);
    event->error = error;
    snprintf(e->text, sizeof e->text, "%s", text ? text : "");
    cnk_queue_push(node->queue, event);
}

static void set_state(chronik_node *node, int state) {
    pthread_mutex_lock(&node->mutex);
    atomic_store(&node->state, state);
    pthread_cond_broadcast(&node->changed);
    pthread_mutex_unlock(&node->mutex);
}

static void set_ready(chronik_node *node, int code, const chronik_error *why) {
    pthread_mutex_lock(&node->mutex);
    if (!node->ready_known) {
        node->ready_known = true;
        node->ready_code = code;
        if (why) node->ready_error = *why;
    }
    pthread_cond_broadcast(&node->changed);
    pthread_mutex_unlock(&node->mutex);
}

static bool ready_known(chronik_node *node) {
    pthread_mutex_lock(&node->mutex);
    bool known = node->ready_known;
    pthread_mutex_unlock(&node->mutex);
    return known;
}

/* Open, but never to be ready: says so, and stops. Any thread. */
static void fail_start(chronik_node *node, int code, const chronik_error *why) {
    pthread_mutex_lock(&node->mutex);
    chronik_event *event = node->failed_event;
    node->failed_event = NULL;
    pthread_mutex_unlock(&node->mutex);
    tell(node, &event, code, why->text);
    set_ready(node, code, why);
    chronik_node_stop(node, 0);
}

/* ---- making and freeing ------------------------------------------------------------------------------------------- */

static void free_rows(chronik_node *node) {
    for (size_t i = 0; node->row_texts && i < node->row_count; i++) cnk_free(node->row_texts[i]);
    cnk_free(node->row_texts);
    cnk_free(node->rows);
}

static cnk_config_type kafka_type(const cnk_conf_option *o) {
    switch (o->type) {
    case CNK_CONF_BOOL: return CNK_CONFIG_BOOLEAN;
    case CNK_CONF_INT:
    case CNK_CONF_PORT:
    case CNK_CONF_BYTES:
    case CNK_CONF_MS: return o->max > INT32_MAX ? CNK_CONFIG_LONG : CNK_CONFIG_INT;
    case CNK_CONF_CHOICE:
    case CNK_CONF_TEXT: break;
    }
    return o->flags & CNK_CONF_SECRET ? CNK_CONFIG_PASSWORD
           : o->id == CNK_CONF_CLEANUP_POLICY ? CNK_CONFIG_LIST
                                              : CNK_CONFIG_STRING;
}

/* The options as DescribeConfigs shows them. */
static int make_rows(chronik_node *node) {
    node->rows = cnk_calloc(CNK_CONF_COUNT, sizeof *node->rows);
    node->row_texts = cnk_calloc(CNK_CONF_COUNT, sizeof *node->row_texts);
    if (!node->rows || !node->row_texts) return CHRONIK_ENOMEM;
    const cnk_conf_option *o;
    for (size_t i = 0; (o = cnk_conf_option_at(i)); i++) {
        char text[4200];
        if (o->flags & CNK_CONF_HIDDEN) continue;
        if (cnk_conf_format(node->conf, o->id, text, sizeof text)) text[0] = '\0';
        bool null = !cnk_conf_is_set(node->conf, o->id);
        char *copy = cnk_strdup(text);
        if (!copy) return CHRONIK_ENOMEM;
        node->row_texts[node->row_count] = copy;
        node->rows[node->row_count++] =
            (cnk_broker_config_row){.name = o->name,
                                    .value = null ? NULL : copy,
                                    .fallback = o->fallback[0] ? o->fallback : NULL,
                                    .type = kafka_type(o),
                                    .set = cnk_conf_source_of(node->conf, o->id) != CNK_CONF_FROM_DEFAULT,
                                    .sensitive = (o->flags & CNK_CONF_SECRET) != 0,
                                    .doc = o->doc};
    }
    return 0;
}

static char *join(const char *dir, const char *name) {
    size_t n = strlen(dir), m = strlen(name);
    char *path = cnk_malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, dir, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    return path;
}

/* Everything that needs neither disk nor network. Accepts a half-made node. */
static void node_free(chronik_node *node) {
    cnk_node_metrics_free(node);
    for (size_t i = 0; node->shards && i < node->shard_count; i++) cnk_event_loop_free(node->shards[i].own_loop);
    free_rows(node);
    cnk_free(node->ready_event);
    cnk_free(node->failed_event);
    cnk_free(node->fenced_event);
    cnk_free(node->stopped_event);
    cnk_free(node->wal_dir);
    cnk_free(node->data_dir);
    cnk_free(node->pack_dir);
    cnk_free(node->shards);
    cnk_free(node->loops);
    cnk_conf_free(node->conf);
    pthread_cond_destroy(&node->changed);
    pthread_mutex_destroy(&node->mutex);
    cnk_free(node);
}

/* "host", "host:port", "[v6]:port". The host is copied. */
static int split_advertised(const char *text, char *host, size_t size, uint16_t *ret_port, chronik_error *err) {
    const char *colon = strrchr(text, ':');
    if (text[0] == '[' ? !strstr(text, "]:") : colon && strchr(text, ':') != colon) colon = NULL; /* a bare IPv6 */
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    const char *from = text;
    if (text[0] == '[' && len >= 2) {
        from++;
        len -= text[len - 1] == ']' ? 2 : 1;
    }
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!len || len >= size || (colon && (*end || end == colon + 1 || port < 1 || port > 65535)))
        return cnk_error(err, CHRONIK_EINVAL, 0, "advertised.addr is '%s'; give host or host:port", text);
    memcpy(host, from, len);
    host[len] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}

static int make(chronik_node *node, const chronik_config *config, size_t loop_count, chronik_error *err) {
    int rc = cnk_conf_copy(cnk_config_conf(config), &node->conf);
    if (rc) return rc;
    if ((rc = cnk_conf_check(node->conf, err))) return rc;
    const char *advertised = cnk_conf_text(node->conf, CNK_CONF_ADVERTISED_ADDR);
    if (advertised[0] && (rc = split_advertised(advertised, node->advertised_host, sizeof node->advertised_host,
                                                &node->advertised_port, err)))
        return rc;
    node->shard_count = loop_count ? loop_count : (size_t)cnk_conf_int(node->conf, CNK_CONF_SHARDS);
    if (node->shard_count > CNK_BROKER_SHARDS_MAX)
        return cnk_error(err, CHRONIK_EINVAL, 0, "at most %d loops can serve", CNK_BROKER_SHARDS_MAX);
    node->connections_max = (uint64_t)cnk_conf_int(node->conf, CNK_CONF_MAX_CONNECTIONS);
    atomic_store(&node->log_level, (int)cnk_conf_int(node->conf, CNK_CONF_LOG_LEVEL));
    const char *dir = cnk_conf_text(node->conf, CNK_CONF_DATA_DIR);
    node->wal_dir = join(dir, "wal");
    node->pack_dir = join(dir, "packs");
    node->shards = cnk_calloc(node->shard_count, sizeof *node->shards);
    node->loops = cnk_calloc(node->shard_count, sizeof *node->loops);
    node->ready_event = event_new(CHRONIK_EVENT_READY);
    node->failed_event = event_new(CHRONIK_EVENT_FAILED);
    node->fenced_event = event_new(CHRONIK_EVENT_FENCED);
    node->stopped_event = event_new(CHRONIK_EVENT_STOPPED);
    if (!node->wal_dir || !node->pack_dir || !node->shards || !node->loops || !node->ready_event ||
        !node->failed_event || !node->fenced_event || !node->stopped_event)
        return CHRONIK_ENOMEM;
    for (size_t i = 0; i < node->shard_count; i++) {
        node->shards[i].node = node;
        node->shards[i].index = i;
    }
    return make_rows(node);
}

static int node_new(const chronik_config *config, size_t loop_count, chronik_queue *queue, chronik_error *err,
                    chronik_node **ret_node) {
    if (!config || !queue) return cnk_error(err, CHRONIK_EINVAL, 0, "a node needs a config and a queue");
    chronik_node *node = cnk_calloc(1, sizeof *node);
    if (!node) return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&node->mutex, NULL);
    pthread_cond_init(&node->changed, &attr);
    pthread_condattr_destroy(&attr);
    node->queue = queue;
    cnk_list_init(&node->https);
    int rc = make(node, config, loop_count, err);
    if (rc) {
        if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "out of memory");
        node_free(node);
        return rc;
    }
    *ret_node = node;
    return 0;
}

int chronik_node_new(const chronik_config *config, chronik_queue *queue, chronik_error *err, chronik_node **ret_node) {
    return node_new(config, 0, queue, err, ret_node);
}

int chronik_node_new_on(const chronik_config *config, const chronik_io *io, const chronik_loop *const *loops,
                        size_t loop_count, chronik_queue *queue, chronik_error *err, chronik_node **ret_node) {
    if (!loops || !loop_count) return cnk_error(err, CHRONIK_EINVAL, 0, "at least one loop is needed");
    chronik_node *node;
    int rc = node_new(config, loop_count, queue, err, &node);
    if (rc) return rc;
    node->host_loops = true;
    node->io = io;
    for (size_t i = 0; i < loop_count; i++)
        node->shards[i].loop = node->shards[i].host_loop = node->loops[i] = loops[i];
    *ret_node = node;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static void tell_progress(chronik_node *node, uint64_t done, uint64_t all) {
    chronik_event *event = event_new(CHRONIK_EVENT_PROGRESS);
    if (event) {
        event->a = (int64_t)done;
        event->b = (int64_t)all;
        cnk_queue_push(node->queue, event);
    }
}

static void on_progress(void *arg, uint64_t done, uint64_t all) {
    chronik_node *node = arg;
    tell_progress(node, done, all);
    cnk_node_log(node, CHRONIK_LOG_INFO, "recovering: %llu of %llu MB read", (unsigned long long)(done / 1000000),
                 (unsigned long long)(all / 1000000));
}

static void on_sealed(void *arg, uint32_t file_seq) {
    chronik_node *node = arg;
    cnk_tier_sealed(node->tier, file_seq);
}

static void on_fenced(void *arg, const chronik_error *why) {
    chronik_node *node = arg;
    pthread_mutex_lock(&node->mutex);
    chronik_event *event = node->fenced_event;
    node->fenced_event = NULL;
    pthread_mutex_unlock(&node->mutex);
    if (!event) return;
    int code = why->code ? why->code : CHRONIK_EFENCED;
    cnk_node_log(node, CHRONIK_LOG_ERROR, "fenced: %s; no write is accepted until a new start", why->text);
    tell(node, &event, code, why->text);
    if (atomic_load(&node->state) == NODE_OPENING) fail_start(node, code, why); /* it will never lead anything */
}

static void on_crowded(void *arg, cnk_shard *shard) {
    chronik_node *node = arg;
    cnk_kafka_crowded(node->shards[cnk_shard_index(shard)].kafka);
}

static void on_notice(void *arg, int code, const char *text) {
    cnk_node_log(arg, code ? CHRONIK_LOG_WARN : CHRONIK_LOG_INFO, "%s", text);
}

/* The directory's absolute name, where it has one: clients are told it. */
static char *name_of_dir(const chronik_node *node, const char *dir) {
    char name[DIR_NAME_MAX];
    bool has_one = cnk_disk_absolute(node->io->disk_ops, node->io->disk, dir, name, sizeof name) == 0;
    return cnk_strdup(has_one ? name : dir);
}

static int on_space(void *arg, uint64_t *ret_total_bytes, uint64_t *ret_usable_bytes) {
    const chronik_node *node = arg;
    chronik_disk_space space = {0};
    int rc = node->io->disk_ops->space(node->io->disk, cnk_conf_text(node->conf, CNK_CONF_DATA_DIR), NULL, &space);
    *ret_total_bytes = space.total_bytes;
    *ret_usable_bytes = space.usable_bytes;
    return rc;
}

static void on_tier_paused(void *arg, const chronik_error *why) {
    cnk_node_log(arg, CHRONIK_LOG_WARN, "packs cannot be written for now, so the write-ahead log keeps its files: %s",
                 why->text);
}
static void on_tier_resumed(void *arg) { cnk_node_log(arg, CHRONIK_LOG_INFO, "packs are being written again"); }
/* For each pack the end is read, which is of some such length. */
static void on_tier_progress(void *arg, uint64_t done, uint64_t all) {
    tell_progress(arg, done * PACK_END_BYTES, all * PACK_END_BYTES);
    cnk_node_log(arg, CHRONIK_LOG_INFO, "recovering: %llu of %llu packs opened", (unsigned long long)done,
                 (unsigned long long)all);
}
static void on_tier_rested(void *arg) {
    const chronik_node *node = arg;
    cnk_shard_memory_freed(cnk_broker_shard(node->broker, 0));
}
static void on_tier_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    cnk_node_log(arg, CHRONIK_LOG_ERROR, "stream %llu: %s", (unsigned long long)stream, what->text);
}

/* The broker serves: so do we. On shard 0's thread. */
static void on_ready(void *arg) {
    chronik_node *node = arg;
    chronik_error err = CHRONIK_ERROR_INIT;
    char text[NODE_LISTENERS_MAX * (NODE_ADDRESS_TEXT + 16)] = "";
    if (node->stop_begun || ready_known(node)) return;
    int rc = cnk_node_accept_start(node, &err);
    if (rc) {
        fail_start(node, rc, &err);
        return;
    }
    for (size_t i = 0; i < node->listener_count; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s=%s", n ? " " : "", node->listeners[i].name, node->listeners[i].text);
    }
    cnk_tier_start(node->tier);
    set_state(node, NODE_READY);
    set_ready(node, 0, NULL);
    tell(node, &node->ready_event, 0, text);
}

static int open_wal(chronik_node *node, chronik_error *err) {
    static const uint32_t linger_us[] = {500, 2000, 10000, 50000, 100000}; /* adaptive, low, medium, high, ultra */
    const cnk_conf *c = node->conf;
    int64_t profile = cnk_conf_int(c, CNK_CONF_WAL_PROFILE);
    cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    o.dir = node->wal_dir;
    o.file_bytes = (uint64_t)cnk_conf_int(c, CNK_CONF_WAL_ROTATION_SIZE);
    o.budget_bytes = (uint64_t)cnk_conf_int(c, CNK_CONF_WAL_BUDGET);
    if (o.budget_bytes < 4 * o.file_bytes) o.budget_bytes = 4 * o.file_bytes; /* not set: conf has seen to that */
    o.cache_bytes = (uint64_t)cnk_conf_int(c, CNK_CONF_WAL_CACHE);
    o.unsynced_bytes_max = (uint64_t)cnk_conf_int(c, CNK_CONF_WAL_UNSYNCED);
    o.seal_after_ms = (uint32_t)cnk_conf_int(c, CNK_CONF_WAL_ROTATION_MS);
    o.linger_us = linger_us[profile];
    o.linger_always = profile > 0;
    return cnk_wal_open(node->io, &o, on_progress, node, err, &node->wal);
}

static int open_tier(chronik_node *node, chronik_error *err) {
    static const cnk_tier_events events = {on_tier_paused, on_tier_resumed, on_tier_damaged, on_tier_progress,
                                           on_tier_rested};
    cnk_tier_options o = CNK_TIER_OPTIONS_INIT;
    o.dir = node->pack_dir;
    return cnk_tier_open(node->io, node->wal, &o, &events, node, err, &node->tier);
}

static int open_broker(chronik_node *node, chronik_error *err) {
    const cnk_conf *c = node->conf;
    cnk_broker_options o = CNK_BROKER_OPTIONS_INIT;
    o.node_id = node->identity.node_id;
    o.directory_id = node->identity.directory_id;
    o.cluster_id = node->identity.cluster_id;
    o.loops = node->loops;
    o.shard_count = node->shard_count;
    o.num_partitions = (int32_t)cnk_conf_int(c, CNK_CONF_NUM_PARTITIONS);
    o.default_replication_factor = (int16_t)cnk_conf_int(c, CNK_CONF_REPLICATION_FACTOR);
    o.auto_create_topics = cnk_conf_bool(c, CNK_CONF_AUTO_CREATE);
    o.delete_topics = cnk_conf_bool(c, CNK_CONF_DELETE_TOPIC);
    o.producer_expiration_ms = cnk_conf_int(c, CNK_CONF_PRODUCER_EXPIRATION);
    o.producer_check_ms = cnk_conf_int(c, CNK_CONF_PRODUCER_CHECK);
    o.offsets_partitions = (int32_t)cnk_conf_int(c, CNK_CONF_OFFSETS_PARTITIONS);
    o.offsets_segment_bytes = cnk_conf_int(c, CNK_CONF_OFFSETS_SEGMENT);
    o.groups.offset_metadata_max = (int32_t)cnk_conf_int(c, CNK_CONF_OFFSETS_METADATA);
    o.groups.offsets_retention_ms = cnk_conf_int(c, CNK_CONF_OFFSETS_RETENTION) * 60000;
    o.groups.session_min_ms = (int32_t)cnk_conf_int(c, CNK_CONF_GROUP_MIN_SESSION);
    o.groups.session_max_ms = (int32_t)cnk_conf_int(c, CNK_CONF_GROUP_MAX_SESSION);
    o.groups.initial_delay_ms = (int32_t)cnk_conf_int(c, CNK_CONF_GROUP_DELAY);
    o.groups.members_max = (int32_t)cnk_conf_int(c, CNK_CONF_GROUP_MAX_SIZE);
    o.groups.offsets_check_ms = cnk_conf_int(c, CNK_CONF_OFFSETS_CHECK);
    o.configs = node->rows;
    o.config_count = node->row_count;
    cnk_free(node->data_dir); /* of a start that failed */
    node->data_dir = name_of_dir(node, cnk_conf_text(c, CNK_CONF_DATA_DIR));
    if (!node->data_dir) return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory");
    o.data_dir = node->data_dir;
    o.space = on_space;
    o.fetch_held_bytes_max = o.fetch_pinned_bytes_max + (uint64_t)cnk_conf_int(c, CNK_CONF_WAL_CACHE);
    o.cold = cnk_tier_cold(node->tier);
    o.tier = node->tier;
    o.sealed = on_sealed;
    o.ready = on_ready;
    o.fenced = on_fenced;
    o.crowded = on_crowded;
    o.notice = on_notice;
    o.hook_arg = node;
    return cnk_broker_open(node->io, node->wal, &o, err, &node->broker);
}

static int open_shards(chronik_node *node, chronik_error *err) {
    const cnk_conf *c = node->conf;
    cnk_kafka_options o = CNK_KAFKA_OPTIONS_INIT;
    o.frame_bytes_max = (uint32_t)cnk_conf_int(c, CNK_CONF_REQUEST_MAX);
    int64_t memory = cnk_conf_int(c, CNK_CONF_RECEIVE_MEMORY);
    if (memory > 0) o.produce_bytes_max = o.control_bytes_max = (uint64_t)memory;
    o.advertised_host = node->advertised_host;
    o.advertised_port = node->advertised_port;
    uint64_t slots = (uint64_t)cnk_conf_int(c, CNK_CONF_FETCH_SESSIONS);
    o.session_slots = (uint32_t)((slots + node->shard_count - 1) / node->shard_count);
    for (size_t i = 0; i < node->shard_count; i++) {
        node->io->entropy(node->io->entropy_self, &o.session_seed, sizeof o.session_seed);
        node_shard *s = &node->shards[i];
        s->broker = cnk_broker_shard(node->broker, i);
        o.counts = &s->counts;
        int rc = cnk_kafka_new(s->broker, &o, &s->kafka);
        if (!rc) rc = cnk_node_shard_conns_init(s);
        if (rc) return cnk_error(err, rc, 0, "out of memory");
    }
    return 0;
}

/* Recovery. On shard 0's thread, before any loop runs; on a host's loop, in chronik_node_start. */
static int open_all(chronik_node *node, chronik_error *err) {
    int rc = open_wal(node, err);
    if (!rc) rc = open_tier(node, err);
    if (!rc) rc = open_broker(node, err);
    if (!rc) rc = open_shards(node, err);
    return rc;
}

/* Gives back what opening took, with every loop at rest. */
static void close_all(chronik_node *node) {
    for (size_t i = 0; i < node->shard_count; i++) {
        node_shard *s = &node->shards[i];
        if (s->sweep) s->loop->ops->timer_free(s->loop->self, s->sweep);
        s->sweep = NULL;
        if (s->tick) s->loop->ops->timer_free(s->loop->self, s->tick); /* the last connection ended between two ticks */
        s->tick = NULL;
        cnk_kafka_free(s->kafka);
        s->kafka = NULL;
    }
    cnk_broker_free(node->broker);
    cnk_tier_free(node->tier);
    cnk_wal_free(node->wal);
    node->broker = NULL;
    node->tier = NULL;
    node->wal = NULL;
}

static void close_world(chronik_node *node) {
    cnk_node_listeners_close(node);
    if (node->lock) node->io->disk_ops->close(node->io->disk, node->lock);
    node->lock = NULL;
    node->listener_count = 0;
    cnk_world_free(node->world);
    for (size_t i = 0; node->host_loops && i < node->shard_count; i++)
        node->shards[i].loop = node->loops[i] = node->shards[i].host_loop;
    cnk_lossy_free(node->lossy_io);
    chronik_io_posix_free(node->own_io);
    node->world = NULL;
    node->lossy_io = node->own_io = NULL;
    if (!node->host_loops) node->io = NULL;
}

/* ---- stopping: shard 0's part ------------------------------------------------------------------------------------- */

static void finish_loops(chronik_node *node) {
    if (node->host_loops) {
        set_ready(node, CHRONIK_ESHUTDOWN, NULL);
        chronik_event *event = node->stopped_event;
        node->stopped_event = NULL;
        int code = node->stop_code;
        set_state(node, NODE_STOPPED);
        tell(node, &event, code, code ? chronik_strerror(code) : "");
        return;
    }
    for (size_t i = 0; i < node->shard_count; i++) cnk_event_loop_stop(node->shards[i].own_loop);
}

static void broker_stopped(void *arg, int code) {
    chronik_node *node = arg;
    node->stop_code = code;
    if (code) cnk_node_log(node, CHRONIK_LOG_ERROR, "stopped, but not everything could be synced: %s", chronik_strerror(code));
    else cnk_node_log(node, CHRONIK_LOG_INFO, "stopped; everything is synced");
    finish_loops(node);
}

static void on_deadline(chronik_post *post) {
    node_shard *s = CNK_CONTAINER(post, node_shard, close_post);
    cnk_node_calls_cancel(s, true);
    if (s->kafka) cnk_node_shard_close_all(s);
    cnk_node_shard_check(s);
}

static void tier_drained(void *arg) {
    chronik_node *node = arg;
    cnk_broker_stop(node->broker, broker_stopped, node);
}

/* Looks whether everything has ended; at the deadline, ends it. */
static void stop_tick(void *arg) {
    chronik_node *node = arg;
    const chronik_loop *loop = node->shards[0].loop;
    uint64_t now = loop->ops->now_ns(loop->self);
    if (node->broker_stopping) return;
    if (now >= node->stop_deadline_ns) {
        node->stop_deadline_ns = UINT64_MAX; /* once */
        for (size_t i = 0; i < node->shard_count; i++) {
            node_shard *s = &node->shards[i];
            s->loop->ops->post(s->loop->self, &s->close_post);
        }
    }
    if (node->shards_closed < node->shard_count || atomic_load(&node->calls_open)) {
        loop->ops->timer_set(loop->self, node->stop_timer, now + (uint64_t)STOP_TICK_MS * 1000000u);
        return;
    }
    node->broker_stopping = true;
    loop->ops->timer_free(loop->self, node->stop_timer);
    node->stop_timer = NULL;
    cnk_tier_drain(node->tier, tier_drained, node);
}

/* A shard has closed; on shard 0's thread. */
static void shard_closed(chronik_post *post) {
    chronik_node *node = CNK_CONTAINER(post, node_shard, down_post)->node;
    node->shards_closed++;
    stop_tick(node);
}

/* ---- stopping: every shard's part --------------------------------------------------------------------------------- */

void cnk_node_shard_check(node_shard *s) {
    if (!s->draining || s->closed) return;
    if (!cnk_list_empty(&s->conns) || cnk_kafka_conn_count(s->kafka) || !cnk_kafka_quiesce(s->kafka)) return;
    s->closed = true;
    s->loop->ops->timer_free(s->loop->self, s->sweep);
    if (s->tick) s->loop->ops->timer_free(s->loop->self, s->tick);
    s->sweep = s->tick = NULL;
    cnk_kafka_free(s->kafka);
    s->kafka = NULL;
    const chronik_loop *home = s->node->shards[0].loop;
    s->down_post.run = shard_closed;
    home->ops->post(home->self, &s->down_post);
}

static void on_shard_tick(void *arg);

static void shard_stop(chronik_post *post) {
    node_shard *s = CNK_CONTAINER(post, node_shard, stop_post);
    cnk_node_shard_drain(s);
    cnk_node_calls_cancel(s, false);
    on_shard_tick(s);
}

/* Operations of connections that are closed already end a little later, without telling: looks again. */
static void on_shard_tick(void *arg) {
    node_shard *s = arg;
    const chronik_loop *loop = s->loop;
    cnk_node_shard_check(s);
    if (s->closed) return;
    if (!s->tick && loop->ops->timer_new(loop->self, on_shard_tick, s, &s->tick)) {
        /* No memory for a timer: asks again by message. */
        s->stop_post.run = shard_stop;
        loop->ops->post(loop->self, &s->stop_post);
        return;
    }
    loop->ops->timer_set(loop->self, s->tick, loop->ops->now_ns(loop->self) + (uint64_t)STOP_TICK_MS * 1000000u);
}

/* On shard 0's thread: the beginning, or a nearer deadline. */
static void stop_message(chronik_post *post) {
    chronik_node *node = CNK_CONTAINER(post, node_stopper, post)->node;
    const chronik_loop *loop = node->shards[0].loop;
    pthread_mutex_lock(&node->mutex);
    node->stopper.posted = false;
    int deadline_ms = node->stopper.deadline_ms;
    pthread_mutex_unlock(&node->mutex);
    uint64_t until = loop->ops->now_ns(loop->self) + (uint64_t)deadline_ms * 1000000u;
    if (node->stop_begun) {
        if (until < node->stop_deadline_ns && node->stop_deadline_ns != UINT64_MAX) node->stop_deadline_ns = until;
        if (!node->broker_stopping) stop_tick(node);
        return;
    }
    node->stop_begun = true;
    node->stop_deadline_ns = until;
    set_state(node, NODE_STOPPING);
    set_ready(node, CHRONIK_ESHUTDOWN, NULL);
    cnk_node_log(node, CHRONIK_LOG_INFO, "stopping");
    cnk_node_listeners_close(node);
    for (size_t i = 0; i < node->shard_count; i++) {
        node_shard *s = &node->shards[i];
        s->close_post.run = on_deadline;
        s->stop_post.run = shard_stop;
        s->loop->ops->post(s->loop->self, &s->stop_post);
    }
    loop->ops->timer_set(loop->self, node->stop_timer, loop->ops->now_ns(loop->self) + (uint64_t)STOP_TICK_MS * 1000000u);
}

void chronik_node_stop(chronik_node *node, int deadline_ms) {
    pthread_mutex_lock(&node->mutex);
    int state = atomic_load(&node->state);
    if (state != NODE_NEW && state != NODE_STOPPED && !node->opening_failed) {
        if (deadline_ms < 0) deadline_ms = (int)cnk_conf_int(node->conf, CNK_CONF_STOP_TIMEOUT);
        if (!node->stop_asked || deadline_ms < node->stopper.deadline_ms) node->stopper.deadline_ms = deadline_ms;
        node->stop_asked = true;
        if (!node->stopper.posted) {
            node->stopper.posted = true;
            node->stopper.node = node;
            node->stopper.post.run = stop_message;
            node->shards[0].loop->ops->post(node->shards[0].loop->self, &node->stopper.post);
        }
    }
    pthread_mutex_unlock(&node->mutex);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static int start_thread(node_shard *s, void *(*run)(void *), chronik_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) return cnk_error(err, CHRONIK_EAGAIN, e, "cannot start a thread");
    s->has_thread = true;
    return 0;
}

static void name_thread(const node_shard *s) {
    char name[16];
    snprintf(name, sizeof name, "chronik-%zu", s->index % 1000);
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

static void *other_shard_main(void *arg) {
    node_shard *s = arg;
    name_thread(s);
    cnk_event_loop_run(s->own_loop);
    return NULL;
}

/* The opening has failed: says so, and that is all. */
static void fail_opening(chronik_node *node, int rc, const chronik_error *err) {
    pthread_mutex_lock(&node->mutex);
    node->opening_failed = true;
    pthread_mutex_unlock(&node->mutex);
    node->stop_code = rc;
    cnk_node_log(node, CHRONIK_LOG_ERROR, "cannot start: %s", err->text);
    tell(node, &node->failed_event, rc, err->text);
    set_ready(node, rc, err);
}

static void *first_shard_main(void *arg) {
    node_shard *s = arg;
    chronik_node *node = s->node;
    chronik_error err = CHRONIK_ERROR_INIT;
    name_thread(s);
    int rc = open_all(node, &err);
    for (size_t i = 1; !rc && i < node->shard_count; i++) rc = start_thread(&node->shards[i], other_shard_main, &err);
    if (rc) {
        fail_opening(node, rc, &err);
    } else {
        cnk_world_let(node->world);
        cnk_event_loop_run(s->own_loop);
    }
    for (size_t i = 1; i < node->shard_count; i++) {
        node_shard *other = &node->shards[i];
        if (!other->has_thread) continue;
        cnk_event_loop_stop(other->own_loop);
        pthread_join(other->thread, NULL);
        other->has_thread = false;
    }
    set_ready(node, CHRONIK_ESHUTDOWN, NULL);
    chronik_event *event = node->stopped_event;
    node->stopped_event = NULL;
    int code = node->stop_code;
    tell(node, &event, code, code ? chronik_strerror(code) : "");
    set_state(node, NODE_STOPPED);
    return NULL;
}

static int listen_at(chronik_node *node, const char *name, cnk_conf_id port, chronik_error *err) {
    /* Nobody has said where: then by IPv6 too, which `localhost` may mean first. */
    bool anywhere = cnk_conf_source_of(node->conf, CNK_CONF_BIND_ADDR) == CNK_CONF_FROM_DEFAULT;
    return cnk_node_listen(node, name, anywhere ? "" : cnk_conf_text(node->conf, CNK_CONF_BIND_ADDR),
                           (uint16_t)cnk_conf_int(node->conf, port), err);
}

/* A port that nobody asked for is no reason not to serve: two nodes on one machine would be in each other's way. */
static int listen_http(chronik_node *node, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    int rc = listen_at(node, "http", CNK_CONF_HTTP_PORT, &why);
    if (rc == CHRONIK_EBUSY && cnk_conf_source_of(node->conf, CNK_CONF_HTTP_PORT) == CNK_CONF_FROM_DEFAULT) {
        cnk_node_log(node, CHRONIK_LOG_WARN, "%s; serving without HTTP", why.text);
        return 0;
    }
    if (rc && err) *err = why;
    return rc;
}

static int take_world(chronik_node *node, chronik_error *err) {
    const cnk_conf *c = node->conf;
    int rc = 0;
    if (!node->io) {
        rc = chronik_io_posix_new(NULL, err, &node->own_io);
        if (rc) return rc;
        node->io = node->own_io;
    }
    if (cnk_conf_bool(c, CNK_CONF_DEBUG_LOSSY_DISK)) {
        rc = cnk_lossy_new(node->io, 0, err, &node->lossy_io);
        if (rc) return rc;
        node->io = node->lossy_io;
    }
    bool named = cnk_conf_source_of(c, CNK_CONF_NODE_ID) != CNK_CONF_FROM_DEFAULT;
    rc = cnk_directory_take(node->io, cnk_conf_text(c, CNK_CONF_DATA_DIR),
                            named ? (int32_t)cnk_conf_int(c, CNK_CONF_NODE_ID) : -1, err, &node->lock, &node->identity);
    if (rc) return rc;
    rc = listen_at(node, "kafka", CNK_CONF_KAFKA_PORT, err);
    if (!rc && cnk_conf_bool(c, CNK_CONF_HTTP_ENABLE)) rc = listen_http(node, err);
    if (!rc && cnk_conf_is_set(c, CNK_CONF_METRICS_PORT)) rc = listen_at(node, "metrics", CNK_CONF_METRICS_PORT, err);
    return rc;
}

/* Puts the world between the node and what it was given; then the timer for the stop. */
static int enter_world(chronik_node *node, chronik_error *err) {
    bool inline_jobs = cnk_conf_int(node->conf, CNK_CONF_JOBS) != 0;
    int rc = cnk_world_new(node->io, node->loops, node->shard_count, node->host_loops, inline_jobs, err, &node->world);
    if (rc) return rc;
    node->io = cnk_world_io(node->world);
    for (size_t i = 0; i < node->shard_count; i++) node->shards[i].loop = node->loops[i] = cnk_world_loop(node->world, i);
    const chronik_loop *first = node->loops[0];
    rc = first->ops->timer_new(first->self, stop_tick, node, &node->stop_timer);
    return rc ? cnk_error(err, rc, 0, "out of memory") : 0;
}

static int start_own(chronik_node *node, chronik_error *err) {
    for (size_t i = 0; i < node->shard_count; i++) {
        node_shard *s = &node->shards[i];
        if (s->own_loop) continue; /* from a start that failed before */
        int rc = cnk_event_loop_new(NULL, err, &s->own_loop);
        if (rc) return rc;
        s->loop = node->loops[i] = cnk_event_loop_get(s->own_loop);
    }
    int rc = enter_world(node, err);
    if (rc) return rc;
    set_state(node, NODE_OPENING);
    rc = start_thread(&node->shards[0], first_shard_main, err);
    if (rc) set_state(node, NODE_NEW);
    return rc;
}

static int start_on_host(chronik_node *node, chronik_error *err) {
    int rc = enter_world(node, err);
    if (rc) return rc;
    set_state(node, NODE_OPENING);
    rc = open_all(node, err);
    if (!rc) {
        cnk_world_let(node->world);
        return 0;
    }
    close_all(node);
    pthread_mutex_lock(&node->mutex);
    atomic_store(&node->state, NODE_NEW); /* a stop that was asked for meanwhile is dropped with the other messages */
    node->stop_asked = node->stopper.posted = false;
    pthread_mutex_unlock(&node->mutex);
    return rc;
}

int chronik_node_start(chronik_node *node, chronik_error *err) {
    if (atomic_load(&node->state) != NODE_NEW) return cnk_error(err, CHRONIK_EINVAL, 0, "the node has been started already");
    const chronik_io *host_io = node->io;
    int rc = take_world(node, err);
    if (!rc) rc = node->host_loops ? start_on_host(node, err) : start_own(node, err);
    if (!rc) return 0;
    if (node->stop_timer) node->shards[0].loop->ops->timer_free(node->shards[0].loop->self, node->stop_timer);
    node->stop_timer = NULL;
    if (node->io) close_world(node);
    node->io = host_io;
    return rc;
}

/* ---- waiting, freeing --------------------------------------------------------------------------------------------- */

/* Waits for `changed`, with the mutex held, until the time: false. */
static bool wait_changed(chronik_node *node, const struct timespec *until) {
    if (!until) return pthread_cond_wait(&node->changed, &node->mutex) == 0;
    return pthread_cond_timedwait(&node->changed, &node->mutex, until) != ETIMEDOUT;
}

static struct timespec time_in(int timeout_ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

int chronik_node_wait_ready(chronik_node *node, int timeout_ms, chronik_error *err) {
    struct timespec until = time_in(timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&node->mutex);
    while (!node->ready_known && wait_changed(node, timeout_ms < 0 ? NULL : &until)) {}
    int rc = node->ready_known ? node->ready_code : CHRONIK_ETIMEDOUT;
    if (rc && node->ready_known && node->ready_error.code && err) *err = node->ready_error;
    else if (rc) cnk_error(err, rc, 0, "%s", chronik_strerror(rc));
    pthread_mutex_unlock(&node->mutex);
    return rc;
}

int chronik_node_wait_stopped(chronik_node *node, int timeout_ms) {
    struct timespec until = time_in(timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&node->mutex);
    while (atomic_load(&node->state) != NODE_STOPPED && wait_changed(node, timeout_ms < 0 ? NULL : &until)) {}
    int rc = atomic_load(&node->state) == NODE_STOPPED ? node->stop_code : CHRONIK_ETIMEDOUT;
    pthread_mutex_unlock(&node->mutex);
    return rc;
}

void chronik_node_free(chronik_node *node) {
    if (!node) return;
    if (node->shards[0].has_thread) {
        chronik_node_stop(node, 0);
        pthread_join(node->shards[0].thread, NULL);
        node->shards[0].has_thread = false;
    }
    int state = atomic_load(&node->state);
    CNK_ASSERT(state == NODE_NEW || state == NODE_STOPPED);
    if (node->stop_timer) node->shards[0].loop->ops->timer_free(node->shards[0].loop->self, node->stop_timer);
    if (state == NODE_STOPPED) close_all(node);
    if (node->io) close_world(node);
    node_free(node);
}

const char *chronik_node_address(const chronik_node *node, const char *listener) {
    for (size_t i = 0; i < node->listener_count; i++)
        if (strcmp(node->listeners[i].name, listener) == 0) return node->listeners[i].text;
    return NULL;
}
