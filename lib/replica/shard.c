/* One shard's replicas and its WAL port: hands the port's events to the replicas, and starts writes once for each batch
 * of the loop's events.
 *
 * Owner: the shard's thread; the opening thread before the loop runs. */
#include "base/assert.h"
#include "base/map.h"
#include "base/mem.h"
#include "replica/internal.h"

static void on_durable(void *arg, cnk_wal_stream *stream, uint64_t durable_index);
static void on_durable_end(void *arg);
static void on_fenced(void *arg, const chronik_error *why);
static void on_writable(void *arg);
static void on_sealed(void *arg, uint32_t file_seq);
static int on_snapshot(void *arg, cnk_wal_stream *stream, cnk_writer *out, uint64_t *ret_applied_index);
static void run_kick(chronik_post *post);

static const cnk_wal_port_events port_events = {.durable = on_durable,
                                                .durable_end = on_durable_end,
                                                .fenced = on_fenced,
                                                .writable = on_writable,
                                                .sealed = on_sealed,
                                                .snapshot = on_snapshot};

/* The metadata lives on shard 0; partitions are spread. Not part of anything on disk. */
size_t cnk_replica_shard_of(uint64_t stream, size_t shard_count) {
    return stream == 1 ? 0 : (size_t)(cnk_hash_u64(stream) % shard_count);
}

int cnk_replica_shard_open(const cnk_replica_shard_options *options, cnk_replica_shard **ret_shard) {
    cnk_replica_shard *shard = cnk_calloc(1, sizeof *shard);
    if (shard == NULL) return CHRONIK_ENOMEM;
    shard->options = *options;
    shard->options.log.wal = options->wal;
    shard->options.log.producers = 0;
    shard->kick.run = run_kick;
    shard->raft = (chronik_raft_settings)CHRONIK_RAFT_SETTINGS_INIT;
    shard->raft.log = cnk_replica_raft_log;
    cnk_list_init(&shard->replicas);
    cnk_list_init(&shard->flushes);
    cnk_list_init(&shard->configs);
    int rc = cnk_wal_port_open(options->wal, options->loop, &port_events, shard, &shard->port);
    if (rc == 0 && options->tier != NULL) {
        rc = cnk_tier_port_open(options->tier, options->loop, shard->port, &shard->tier);
        if (rc != 0) cnk_wal_port_close(shard->port);
    }
    if (rc != 0) {
        cnk_free(shard);
        return rc;
    }
    *ret_shard = shard;
    return 0;
}

void cnk_replica_shard_drain(cnk_replica_shard *shard, void (*drained)(void *arg, int code), void *arg) {
    cnk_wal_drain(shard->port, drained, arg);
}

void cnk_replica_shard_close(cnk_replica_shard *shard) {
    if (shard == NULL) return;
    cnk_tier_port_close(shard->tier);
    cnk_wal_port_close(shard->port);
    CNK_LIST_EACH(node, &shard->replicas) cnk_replica_forget(CNK_CONTAINER(node, cnk_replica, node));
    cnk_free(shard);
}

cnk_wal_port *cnk_replica_shard_port(cnk_replica_shard *shard) { return shard->port; }

uint32_t cnk_replica_shard_producers(const cnk_replica_shard *shard) { return shard->options.log.producers; }
uint64_t cnk_replica_shard_producers_evicted(const cnk_replica_shard *shard) {
    return shard->options.log.producers_evicted;
}

void cnk_replica_kick(cnk_replica_shard *shard) {
    if (shard->kick_waiting) return;
    shard->kick_waiting = true;
    shard->options.loop->ops->defer(shard->options.loop->self, &shard->kick);
}

static void run_kick(chronik_post *post) {
    cnk_replica_shard *shard = CNK_CONTAINER(post, cnk_replica_shard, kick);
    shard->kick_waiting = false;
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->flushes)) != NULL;)
        cnk_replica_group_flush(CNK_CONTAINER(node, cnk_replica, flush_node));
    cnk_wal_kick(shard->port);
}

static void on_durable(void *arg, cnk_wal_stream *stream, uint64_t durable_index) {
    (void)arg;
    cnk_replica *replica = cnk_wal_stream_owner(stream);
    if (replica) cnk_replica_group_durable(replica, durable_index);
}

static void on_durable_end(void *arg) {
    cnk_replica_shard *shard = arg;
    if (shard->options.committed_end) shard->options.committed_end(shard->options.arg);
}

static void on_fenced(void *arg, const chronik_error *why) {
    cnk_replica_shard *shard = arg;
    CNK_LIST_EACH(node, &shard->replicas) cnk_replica_group_disk_failed(CNK_CONTAINER(node, cnk_replica, node));
    if (shard->options.fenced) shard->options.fenced(shard->options.arg, why);
}

static void on_writable(void *arg) {
    cnk_replica_shard *shard = arg;
    if (shard->options.writable) shard->options.writable(shard->options.arg);
}

static void on_sealed(void *arg, uint32_t file_seq) {
    cnk_replica_shard *shard = arg;
    if (shard->options.sealed) shard->options.sealed(shard->options.arg, file_seq);
}

/* A stream without a replica (damaged, left alone) keeps the state that it had. */
static int on_snapshot(void *arg, cnk_wal_stream *stream, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    cnk_replica *replica = cnk_wal_stream_owner(stream);
    if (replica) {
        *ret_applied_index = replica->commit_index;
        return cnk_replica_state_write(replica, out);
    }
    const uint8_t *blob = NULL;
    size_t len = 0;
    cnk_wal_stream_blob(stream, &blob, &len, ret_applied_index);
    cnk_write_bytes(out, blob, len);
    return out->error;
}
