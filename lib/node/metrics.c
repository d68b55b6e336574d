/* What /metrics tells, in Prometheus' text format 0.0.4. chronik_metrics(7) is the list, and a test holds both to each other.
 *
 * All figures are counters that their owners write without locks and any thread may read; what a look costs, it costs
 * here. Each family is there from the start, with its HELP and TYPE, though it may have no sample yet.
 *
 * Topics. The first metrics.topics.max of them that a look finds have series of their own, until they are deleted; those of
 * all others are added up as OTHER, which is no topic's name. So that this sum never goes down, it is kept here, and grows by
 * what each of these topics has gained since the last look.
 *
 * Limits: one series for each API that has been asked for, CNK_LATENCY_BUCKETS and CNK_SIZES_BUCKETS buckets of a
 * histogram, metrics.topics.max topics; the topics seen are remembered in some 100 bytes each.
 *
 * Owner: shard 0's thread. */
#include <dirent.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/map.h"
#include "base/mem.h"
#include "node/internal.h"
#include "tier/tier.h"

#define OTHER "(other)"

typedef struct topic_counts {
    uint64_t messages_in, bytes_in, bytes_out, partitions;
} topic_counts;

typedef struct topic_seen {
    cnk_list node; /* among those that are gone */
    cnk_uuid id;
    bool named;
    uint64_t look; /* the last that has found it */
    topic_counts counts;
} topic_seen;

typedef struct node_metrics {
    cnk_map topics; /* id → topic_seen */
    size_t named;
    uint64_t looks;
    topic_counts other;
    double started; /* the process, Unix time; 0: not known */
} node_metrics;

enum { BUDGET_PRODUCE, BUDGET_CONTROL, BUDGET_SESSIONS, BUDGET_HOT, BUDGET_COLD, BUDGET_UNSYNCED, BUDGETS };

/* Everything that is a number, from all over the node. */
typedef struct totals {
    cnk_shard_stats broker; /* of all shards; not its budgets */
    cnk_kafka_use budgets[BUDGETS];
    cnk_wal_stats wal;
    cnk_tier_stats tier;
    uint64_t connections, accepted, received_bytes, sent_bytes, storage_bytes, ready, wal_full, fenced, paused;
} totals;

typedef struct plain_metric { /* a uint64_t of totals */
    const char *name, *type, *help;
    size_t at;
} plain_metric;

#define COUNTER(name, field, help) {name, "counter", help, offsetof(totals, field)}
#define GAUGE(name, field, help) {name, "gauge", help, offsetof(totals, field)}

static const plain_metric plain[] = {
    GAUGE("chronik_ready", ready, "1 while the node serves."),
    GAUGE("chronik_fenced", fenced, "1 once a write or a sync has failed, until the next start."),
    /* bytes and records, in and out */
    COUNTER("chronik_messages_received_total", broker.produce_records, "Messages received in sound batches."),
    COUNTER("chronik_messages_stored_total", broker.stored_records, "Messages that are durable."),
    COUNTER("chronik_produced_batches_total", broker.produce_parts, "Record batches received."),
    COUNTER("chronik_produced_bytes_total", broker.produce_bytes, "Bytes of record batches received."),
    COUNTER("chronik_fetched_partitions_total", broker.fetch_parts, "Partitions in answered fetches."),
    COUNTER("chronik_fetched_bytes_total", broker.fetch_bytes, "Bytes of record batches served."),
    COUNTER("chronik_fetched_cold_bytes_total", broker.fetch_cold_bytes, "Of these, bytes that were read from files."),
    COUNTER("chronik_fetched_ahead_bytes_total", broker.fetch_ahead_bytes,
            "Of these, bytes that had been read already: ahead, or for another consumer."),
    COUNTER("chronik_received_bytes_total", received_bytes, "Bytes received from Kafka clients."),
    COUNTER("chronik_sent_bytes_total", sent_bytes, "Bytes sent to Kafka clients."),
    /* connections */
    GAUGE("chronik_active_connections", connections, "Connections of Kafka clients."),
    COUNTER("chronik_accepted_connections_total", accepted, "Connections accepted."),
    /* what waits */
    GAUGE("chronik_waiting_fetches", broker.waiting_fetches, "Fetches that wait for data."),
    GAUGE("chronik_waiting_produces", broker.waiting_parts,
          "Batches that wait for room in the log, or for a conversion."),
    COUNTER("chronik_refused_produces_total", broker.waiting.refused, "Batches refused since too many waited."),
    /* partitions, producers */
    GAUGE("chronik_partitions", broker.partitions, "Partitions."),
    GAUGE("chronik_producers", broker.producers, "Idempotent producers remembered."),
    COUNTER("chronik_producers_evicted_total", broker.producers_evicted,
            "Idempotent producers forgotten before their time, for there were too many."),
    /* the write-ahead log */
    COUNTER("chronik_wal_syncs_total", wal.syncs, "Syncs of the write-ahead log."),
    COUNTER("chronik_wal_blocks_total", wal.blocks, "Blocks made durable."),
    COUNTER("chronik_wal_entries_total", wal.rows, "Entries made durable."),
    COUNTER("chronik_wal_payload_bytes_total", wal.payload_bytes, "Bytes of entries made durable."),
    COUNTER("chronik_wal_written_bytes_total", wal.bytes_written, "Bytes written, with what surrounds the entries."),
    GAUGE("chronik_wal_queued_entries", wal.queued_rows, "Entries that wait for the writer."),
    GAUGE("chronik_wal_queued_bytes", wal.queued_bytes, "Bytes of entries that wait for the writer."),
    GAUGE("chronik_wal_files", wal.files_live, "Files in use."),
    GAUGE("chronik_wal_spare_files", wal.files_spare, "Files that are prepared, and free."),
    GAUGE("chronik_wal_disk_bytes", wal.bytes_on_disk, "Bytes of all files."),
    GAUGE("chronik_wal_budget_bytes", wal.budget_bytes, "What wal.budget.bytes comes to."),
    GAUGE("chronik_wal_room_bytes", wal.room_bytes, "Bytes of data that may be accepted before a file is freed."),
    COUNTER("chronik_wal_room_refused_total", wal.room_refused, "How often data found no room, and waited."),
    COUNTER("chronik_wal_checkpoints_total", wal.checkpoints, "Checkpoints taken."),
    GAUGE("chronik_wal_full", wal_full, "1 while the disk has no room for the next file."),
    /* packs */
    GAUGE("chronik_packs", tier.packs, "Packs."),
    GAUGE("chronik_packs_bytes", tier.pack_bytes, "Bytes of packs."),
    GAUGE("chronik_packs_live_bytes", tier.live_bytes, "Of these, bytes of topics that are there."),
    COUNTER("chronik_packs_written_total", tier.packs_written, "Packs written."),
    COUNTER("chronik_packs_written_bytes_total", tier.bytes_converted, "Bytes moved from the write-ahead log to packs."),
    COUNTER("chronik_packs_rewritten_total", tier.packs_rewritten, "Packs thinned out."),
    COUNTER("chronik_packs_deleted_total", tier.packs_deleted, "Packs deleted."),
    COUNTER("chronik_packs_catalog_failures_total", tier.catalog_failures,
            "How often the packs' catalog file could not be written."),
    COUNTER("chronik_packs_reads_total", tier.cold_reads, "Reads from packs."),
    COUNTER("chronik_packs_read_bytes_total", tier.cold_bytes, "Bytes read from packs."),
    GAUGE("chronik_packs_waiting_files", tier.files_waiting, "Files of the write-ahead log that are to become packs."),
    GAUGE("chronik_packs_paused", paused, "1 while packs cannot be written."),
    GAUGE("chronik_storage_usage_bytes", storage_bytes, "Bytes on disk: write-ahead log and packs."),
    /* groups */
    GAUGE("chronik_group_members", broker.groups.members, "Members of groups."),
    COUNTER("chronik_group_rebalances_total", broker.groups.rebalances, "Rebalances begun."),
    COUNTER("chronik_group_offset_commits_total", broker.groups.offset_commits, "Offsets that were committed."),
};

/* ---- the format ----------------------------------------------------------------------------------------------------- */

static void put(cnk_writer *w, const char *text) { cnk_write_bytes(w, text, strlen(text)); }

static void put_head(cnk_writer *w, const char *name, const char *type, const char *help) {
    char text[512];
    snprintf(text, sizeof text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    put(w, text);
}

static void put_value(cnk_writer *w, uint64_t value) {
    char text[32];
    snprintf(text, sizeof text, " %" PRIu64 "\n", value);
    put(w, text);
}

static void put_number(cnk_writer *w, double value) {
    char text[40];
    snprintf(text, sizeof text, " %.15g\n", value);
    put(w, text);
}

static void put_one(cnk_writer *w, const char *name, const char *type, const char *help, uint64_t value) {
    put_head(w, name, type, help);
    put(w, name);
    put_value(w, value);
}

/* name{label="value"}; in a value a backslash, a quote and a line feed are escaped. */
static void put_series(cnk_writer *w, const char *name, const char *label, const char *value, size_t len) {
    put(w, name);
    put(w, "{");
    put(w, label);
    put(w, "=\"");
    for (size_t i = 0; i < len; i++) {
        if (value[i] == '\\' || value[i] == '"') put(w, "\\");
        cnk_write_bytes(w, value[i] == '\n' ? "\\n" : &value[i], value[i] == '\n' ? 2 : 1);
    }
    put(w, "\"}");
}

/* One histogram of a family; its label, "" or `api="Fetch",`, stands before the bound. Buckets are cumulative. */
typedef struct histogram {
    const uint64_t *buckets;
    size_t count;
    double (*bound)(size_t i);
    double sum;
} histogram;

static double latency_bound(size_t i) { return (double)cnk_latency_bounds_ns[i] / 1e9; }
static double sizes_bound(size_t i) { return (double)(UINT64_C(1) << 2 * i); }

static void put_histogram(cnk_writer *w, const char *name, const char *label, const histogram *h) {
    char text[256], bound[32];
    uint64_t below = 0;
    for (size_t i = 0; i < h->count; i++) {
        snprintf(bound, sizeof bound, "%.10g", i + 1 < h->count ? h->bound(i) : 0.0);
        below += h->buckets[i];
        snprintf(text, sizeof text, "%s_bucket{%sle=\"%s\"} %" PRIu64 "\n", name, label,
                 i + 1 < h->count ? bound : "+Inf", below);
        put(w, text);
    }
    int own = label[0] ? (int)strlen(label) - 1 : 0; /* without the comma */
    const char *open = own ? "{" : "", *end = own ? "}" : "";
    snprintf(text, sizeof text, "%s_sum%s%.*s%s %.15g\n", name, open, own, label, end, h->sum);
    put(w, text);
    snprintf(text, sizeof text, "%s_count%s%.*s%s %" PRIu64 "\n", name, open, own, label, end, below);
    put(w, text);
}

static void put_latency(cnk_writer *w, const char *name, const char *label, const cnk_latency_counts *l) {
    histogram h = {l->buckets, CNK_LATENCY_BUCKETS, latency_bound, (double)l->sum_ns / 1e9};
    put_histogram(w, name, label, &h);
}

static void put_sizes(cnk_writer *w, const char *name, const char *help, const cnk_sizes_counts *s) {
    histogram h = {s->buckets, CNK_SIZES_BUCKETS, sizes_bound, (double)s->sum};
    put_head(w, name, "histogram", help);
    put_histogram(w, name, "", &h);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------- */

static void add_latency(cnk_latency_counts *to, const cnk_latency_counts *from) {
    for (size_t b = 0; b < CNK_LATENCY_BUCKETS; b++) to->buckets[b] += from->buckets[b];
    to->sum_ns += from->sum_ns;
}

static void add_shard(cnk_shard_stats *to, const cnk_shard_stats *from) {
    to->produce_parts += from->produce_parts;
    to->produce_bytes += from->produce_bytes;
    to->produce_records += from->produce_records;
    to->stored_records += from->stored_records;
    to->fetch_parts += from->fetch_parts;
    to->fetch_bytes += from->fetch_bytes;
    to->fetch_cold_bytes += from->fetch_cold_bytes;
    to->fetch_ahead_bytes += from->fetch_ahead_bytes;
    to->partitions += from->partitions;
    to->producers += from->producers;
    to->producers_evicted += from->producers_evicted;
    to->waiting_fetches += from->waiting_fetches;
    to->waiting_parts += from->waiting_parts;
    to->waiting.refused += from->waiting.refused;
    for (size_t i = 0; i < CNK_COORD_STATES; i++) to->groups.groups[i] += from->groups.groups[i];
    to->groups.members += from->groups.members;
    to->groups.rebalances += from->groups.rebalances;
    to->groups.offset_commits += from->groups.offset_commits;
    add_latency(&to->produce_latency, &from->produce_latency);
    add_latency(&to->fetch_latency, &from->fetch_latency);
}

static void add_use(cnk_kafka_use *to, uint64_t limit, uint64_t used, uint64_t refused) {
    to->limit += limit;
    to->used += used;
    to->refused += refused;
}

static void add_budgets(cnk_kafka_use *b, const cnk_shard_stats *one, const cnk_kafka *kafka) {
    cnk_kafka_stats k;
    cnk_kafka_stats_get(kafka, &k);
    add_use(&b[BUDGET_PRODUCE], k.produce.limit, k.produce.used, k.produce.refused);
    add_use(&b[BUDGET_CONTROL], k.control.limit, k.control.used, k.control.refused);
    add_use(&b[BUDGET_SESSIONS], k.sessions.limit, k.sessions.used, k.sessions.refused);
    add_use(&b[BUDGET_HOT], one->pinned.limit, one->pinned.used, one->pinned.refused);
    add_use(&b[BUDGET_COLD], one->cold.limit, one->cold.used, one->cold.refused);
}

static void gather(const chronik_node *node, totals *t) {
    *t = (totals){.connections = atomic_load(&node->connections), .ready = atomic_load(&node->state) == NODE_READY};
    for (size_t i = 0; i < node->shard_count; i++) {
        const node_shard *s = &node->shards[i];
        cnk_shard_stats one;
        cnk_shard_stats_get(s->broker, &one);
        add_shard(&t->broker, &one);
        add_budgets(t->budgets, &one, s->kafka);
        t->received_bytes += cnk_counter_get(&s->received_bytes);
        t->sent_bytes += cnk_counter_get(&s->sent_bytes);
        t->accepted += cnk_counter_get(&s->accepted);
    }
    cnk_wal_stats_get(node->wal, &t->wal);
    cnk_tier_stats_get(node->tier, &t->tier);
    add_use(&t->budgets[BUDGET_UNSYNCED], t->wal.unsynced_bytes_max, t->wal.unsynced_bytes, t->wal.unsynced_refused);
    t->storage_bytes = t->wal.bytes_on_disk + t->tier.pack_bytes;
    t->wal_full = t->wal.full;
    t->fenced = t->wal.fenced;
    t->paused = t->tier.paused;
}

static void put_plain(cnk_writer *w, const totals *t) {
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        uint64_t value;
        memcpy(&value, (const char *)t + plain[i].at, sizeof value);
        put_one(w, plain[i].name, plain[i].type, plain[i].help, value);
    }
}

static void put_histograms(cnk_writer *w, const totals *t) {
    put_head(w, "chronik_produce_latency_seconds", "histogram", "From a produce request to its answer.");
    put_latency(w, "chronik_produce_latency_seconds", "", &t->broker.produce_latency);
    put_head(w, "chronik_fetch_latency_seconds", "histogram",
             "From a fetch to its answer, with the time that it waited for data.");
    put_latency(w, "chronik_fetch_latency_seconds", "", &t->broker.fetch_latency);
    put_head(w, "chronik_wal_sync_latency_seconds", "histogram", "How long syncs of the write-ahead log took.");
    put_latency(w, "chronik_wal_sync_latency_seconds", "", &t->wal.sync_latency);
    put_sizes(w, "chronik_wal_sync_entries", "Entries that one sync has made durable.", &t->wal.sync_rows);
    put_sizes(w, "chronik_wal_sync_bytes", "Bytes of entries that one sync has made durable.", &t->wal.sync_bytes);
}

static void put_groups(cnk_writer *w, const cnk_coord_stats *groups) {
    put_head(w, "chronik_groups", "gauge", "Groups, by state.");
    for (size_t i = 0; i < CNK_COORD_STATES; i++) {
        put_series(w, "chronik_groups", "state", cnk_coord_state_names[i], strlen(cnk_coord_state_names[i]));
        put_value(w, groups->groups[i]);
    }
}

/* ---- requests, connections, memory ---------------------------------------------------------------------------------- */

/* Only what has been asked for: the list stays short, and an old client stands out. */
static void put_requests(cnk_writer *w, const chronik_node *node) {
    char text[256];
    size_t len = 0;
    const char *name;
    put_head(w, "chronik_requests_total", "counter", "Requests of Kafka clients, by API and version.");
    for (size_t row = 0; (name = cnk_kafka_api_name(row, &len)) != NULL; row++)
        for (int v = 0; v < CNK_KAFKA_VERSIONS_MAX; v++) {
            uint64_t n = 0;
            for (size_t i = 0; i < node->shard_count; i++) n += cnk_counter_get(&node->shards[i].counts.requests[row][v]);
            if (n == 0) continue;
            snprintf(text, sizeof text, "chronik_requests_total{api=\"%.*s\",version=\"%d\"} %" PRIu64 "\n", (int)len, name,
                     v, n);
            put(w, text);
        }
    put_head(w, "chronik_request_latency_seconds", "histogram",
             "From the end of a request's header to its answer, by API; a fetch may wait for data, a member for its group.");
    for (size_t row = 0; (name = cnk_kafka_api_name(row, &len)) != NULL; row++) {
        cnk_latency_counts l = {{0}, 0};
        uint64_t n = 0;
        for (size_t i = 0; i < node->shard_count; i++) cnk_latency_read(&node->shards[i].counts.latency[row], &l);
        for (size_t b = 0; b < CNK_LATENCY_BUCKETS; b++) n += l.buckets[b];
        snprintf(text, sizeof text, "api=\"%.*s\",", (int)len, name);
        if (n > 0) put_latency(w, "chronik_request_latency_seconds", text, &l);
    }
}

static void put_closed(cnk_writer *w, const chronik_node *node) {
    static const char *const names[NODE_CLOSE_REASONS] = {
        [NODE_CLOSE_PEER] = "peer",         [NODE_CLOSE_PROTOCOL] = "protocol", [NODE_CLOSE_SLOW] = "slow",
        [NODE_CLOSE_MEMORY] = "memory",     [NODE_CLOSE_IDLE] = "idle",         [NODE_CLOSE_SHUTDOWN] = "shutdown",
        [NODE_CLOSE_LIMIT] = "connections"};
    put_head(w, "chronik_closed_connections_total", "counter", "Connections closed, by reason.");
    for (size_t why = 0; why < NODE_CLOSE_REASONS; why++) {
        uint64_t n = 0;
        for (size_t i = 0; i < node->shard_count; i++) n += cnk_counter_get(&node->shards[i].closed_for[why]);
        put_series(w, "chronik_closed_connections_total", "reason", names[why], strlen(names[why]));
        put_value(w, n);
    }
}

static void put_budgets(cnk_writer *w, const cnk_kafka_use *uses) {
    static const char *const names[BUDGETS] = {
        [BUDGET_PRODUCE] = "receive_produce", [BUDGET_CONTROL] = "receive_other", [BUDGET_SESSIONS] = "fetch_sessions",
        [BUDGET_HOT] = "fetch_memory",        [BUDGET_COLD] = "fetch_files",      [BUDGET_UNSYNCED] = "wal_unsynced"};
    static const struct {
        const char *name, *type, *help;
        size_t at;
    } rows[] = {
        {"chronik_memory_limit_bytes", "gauge", "Memory that a budget allows, of all shards.", offsetof(cnk_kafka_use, limit)},
        {"chronik_memory_used_bytes", "gauge", "Of this, reserved now.", offsetof(cnk_kafka_use, used)},
        {"chronik_memory_refused_total", "counter", "How often somebody found none, and waited or did without.",
         offsetof(cnk_kafka_use, refused)},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        put_head(w, rows[r].name, rows[r].type, rows[r].help);
        for (size_t i = 0; i < BUDGETS; i++) {
            uint64_t value;
            memcpy(&value, (const char *)&uses[i] + rows[r].at, sizeof value);
            put_series(w, rows[r].name, "budget", names[i], strlen(names[i]));
            put_value(w, value);
        }
    }
}

/* ---- topics --------------------------------------------------------------------------------------------------------- */

static topic_counts count_topic(const cnk_meta_topic *topic) {
    topic_counts c = {.partitions = (uint64_t)topic->partition_count};
    for (int32_t i = 0; i < topic->partition_count; i++) {
        const cnk_meta_leader *l = topic->partitions[i].leader;
        c.messages_in += cnk_counter_get(&l->messages_in);
        c.bytes_in += cnk_counter_get(&l->bytes_in);
        c.bytes_out += cnk_counter_get(&l->bytes_out);
    }
    return c;
}

static topic_seen *see(node_metrics *m, const cnk_meta_topic *topic, size_t named_max) {
    topic_seen *seen = cnk_map_get_bytes(&m->topics, topic->id.bytes, sizeof topic->id.bytes);
    if (seen) return seen;
    seen = cnk_calloc(1, sizeof *seen);
    if (!seen) return NULL;
    seen->id = topic->id;
    if (cnk_map_put_bytes(&m->topics, seen->id.bytes, sizeof seen->id.bytes, seen) != 0) {
        cnk_free(seen);
        return NULL;
    }
    seen->named = m->named < named_max;
    m->named += seen->named;
    return seen;
}

static void forget_gone(node_metrics *m) {
    cnk_list gone;
    topic_seen *seen;
    cnk_list_init(&gone);
    for (size_t it = 0; (seen = cnk_map_next(&m->topics, &it)) != NULL;)
        if (seen->look != m->looks) cnk_list_push_back(&gone, &seen->node);
    for (cnk_list *l; (l = cnk_list_pop_front(&gone)) != NULL;) {
        seen = CNK_CONTAINER(l, topic_seen, node);
        m->named -= seen->named;
        cnk_map_remove_bytes(&m->topics, seen->id.bytes, sizeof seen->id.bytes);
        cnk_free(seen);
    }
}

/* Internal topics are the coordinators' alone. */
static void look_at_topics(node_metrics *m, const cnk_meta_image *image, size_t named_max) {
    m->looks++;
    m->other.partitions = 0;
    for (size_t i = 0; i < image->topic_count; i++) {
        const cnk_meta_topic *topic = image->by_name[i];
        if (!topic->online || topic->internal) continue;
        topic_seen *seen = see(m, topic, named_max);
        if (!seen) continue; /* no memory: at the next look */
        topic_counts now = count_topic(topic);
        if (!seen->named) {
            m->other.messages_in += now.messages_in - seen->counts.messages_in;
            m->other.bytes_in += now.bytes_in - seen->counts.bytes_in;
            m->other.bytes_out += now.bytes_out - seen->counts.bytes_out;
            m->other.partitions += now.partitions;
        }
        seen->counts = now;
        seen->look = m->looks;
    }
    forget_gone(m);
}

static void put_topics(cnk_writer *w, node_metrics *m, const cnk_meta_image *image, size_t named_max) {
    static const struct {
        const char *name, *type, *help;
        size_t at;
    } rows[] = {
        {"chronik_topic_messages_in_total", "counter", "Messages that producers have appended.",
         offsetof(topic_counts, messages_in)},
        {"chronik_topic_bytes_in_total", "counter", "Bytes of record batches that producers have appended.",
         offsetof(topic_counts, bytes_in)},
        {"chronik_topic_bytes_out_total", "counter", "Bytes of record batches served.", offsetof(topic_counts, bytes_out)},
        {"chronik_topic_partitions", "gauge", "Partitions.", offsetof(topic_counts, partitions)},
    };
    look_at_topics(m, image, named_max);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        uint64_t value;
        put_head(w, rows[r].name, rows[r].type, rows[r].help);
        for (size_t i = 0; i < image->topic_count; i++) {
            const cnk_meta_topic *topic = image->by_name[i];
            const topic_seen *seen = cnk_map_get_bytes(&m->topics, topic->id.bytes, sizeof topic->id.bytes);
            if (!seen || !seen->named) continue;
            memcpy(&value, (const char *)&seen->counts + rows[r].at, sizeof value);
            put_series(w, rows[r].name, "topic", topic->name, topic->name_len);
            put_value(w, value);
        }
        memcpy(&value, (const char *)&m->other + rows[r].at, sizeof value);
        put_series(w, rows[r].name, "topic", OTHER, sizeof OTHER - 1);
        put_value(w, value);
    }
}

/* ---- the process ---------------------------------------------------------------------------------------------------- */

static bool read_proc(const char *path, const char *begins, char *text, size_t size) {
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(text, (int)size, f)) found = strncmp(text, begins, strlen(begins)) == 0;
    if (f) fclose(f);
    return found;
}

/* The 22nd field of /proc/self/stat, which comes after a name that may hold anything, is in ticks since the boot. */
static double process_started(void) {
    char text[2048];
    unsigned long long ticks = 0, boot = 0;
    if (!read_proc("/proc/self/stat", "", text, sizeof text)) return 0;
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    if (!p || sscanf(p, "%llu", &ticks) != 1) return 0;
    if (!read_proc("/proc/stat", "btime ", text, sizeof text) || sscanf(text, "btime %llu", &boot) != 1) return 0;
    return (double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Linux tells it as the directory's size (from 6.2 on); before, the entries are counted: ".", ".." and its own are none. */
static uint64_t open_files(void) {
    struct stat st;
    uint64_t n = 0;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0) return (uint64_t)st.st_size;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n > 3 ? n - 3 : 0;
}

static void put_process(cnk_writer *w, double started) {
    struct rusage use = {0};
    struct rlimit files = {0, 0};
    char text[256];
    unsigned long long pages = 0, resident = 0;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &files);
    if (read_proc("/proc/self/statm", "", text, sizeof text)) sscanf(text, "%llu %llu", &pages, &resident);
    put_head(w, "process_cpu_seconds_total", "counter", "CPU time of the process, user and system.");
    put(w, "process_cpu_seconds_total");
    put_number(w, (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                      (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
    put_one(w, "process_resident_memory_bytes", "gauge", "Resident memory of the process.", resident * page);
    put_one(w, "process_virtual_memory_bytes", "gauge", "Virtual memory of the process.", pages * page);
    put_one(w, "process_open_fds", "gauge", "Open file descriptors.", open_files());
    put_one(w, "process_max_fds", "gauge", "Limit of open file descriptors.", (uint64_t)files.rlim_cur);
    put_head(w, "process_start_time_seconds", "gauge", "When the process started, Unix time.");
    put(w, "process_start_time_seconds");
    put_number(w, started);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

static node_metrics *remembered(chronik_node *node) {
    if (!node->metrics && (node->metrics = cnk_calloc(1, sizeof *node->metrics)) != NULL)
        node->metrics->started = process_started();
    return node->metrics;
}

void cnk_node_metrics_put(chronik_node *node, cnk_writer *to) {
    node_metrics *m = remembered(node);
    totals t;
    if (!m) {
        to->error = CHRONIK_ENOMEM;
        return;
    }
    gather(node, &t);
    put_head(to, "chronik_build_info", "gauge", "1, with the version.");
    put_series(to, "chronik_build_info", "version", CNK_VERSION, sizeof CNK_VERSION - 1);
    put_value(to, 1);
    put_plain(to, &t);
    put_histograms(to, &t);
    put_requests(to, node);
    put_closed(to, node);
    put_groups(to, &t.broker.groups);
    put_budgets(to, t.budgets);
    put_topics(to, m, cnk_shard_image(node->shards[0].broker), (size_t)cnk_conf_int(node->conf, CNK_CONF_METRICS_TOPICS));
    put_process(to, m->started);
}

void cnk_node_metrics_free(chronik_node *node) {
    node_metrics *m = node->metrics;
    topic_seen *seen;
    node->metrics = NULL;
    if (!m) return;
    for (size_t it = 0; (seen = cnk_map_next(&m->topics, &it)) != NULL;) cnk_free(seen);
    cnk_map_free(&m->topics);
    cnk_free(m);
}
