/* Opening, stopping, freeing.
 *
 * Order of opening: a port for each shard → the metadata (stream 1) → each recovered stream to its partition, or
 * dropped where the metadata does not know it → streams that are being created and not there yet → one new term for
 * all. Order of stopping: refuse new operations, answer what waits for data → let writes finish → drain every port →
 * stopped.
 *
 * Threads: the opening thread until the loops run; then each shard's own. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "broker/internal.h"

typedef struct place { /* a partition that the metadata knows, by its stream */
    const cnk_meta_topic *topic;
    int32_t number;
    bool found;
} place;

static int check_options(const cnk_broker_options *o, chronik_error *err);
static int recover_metadata(cnk_broker *broker, chronik_error *err);
static int recover_partitions(cnk_broker *broker, size_t *ret_starting, chronik_error *err);
static int index_partitions(const cnk_meta_image *image, place *places, cnk_map *map);
static int recover_stream(cnk_broker *broker, cnk_wal_stream *stream, place *where, chronik_error *err);
static int complete_partitions(cnk_broker *broker, place *places, size_t count, size_t *ret_starting,
                               chronik_error *err);
static void run_stop(chronik_post *post);
static void on_drained(void *arg, int code);
static void shard_drained(chronik_post *post);

int cnk_broker_open(const chronik_io *io, cnk_wal *wal, const cnk_broker_options *options, chronik_error *err,
                    cnk_broker **ret_broker) {
    size_t starting = 0;
    cnk_broker *broker = NULL;
    int rc = check_options(options, err);
    if (rc != 0) return rc;
    broker = cnk_calloc(1, sizeof *broker);
    if (broker) broker->shards = cnk_calloc(options->shard_count, sizeof *broker->shards);
    if (broker == NULL || broker->shards == NULL) {
        rc = cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory for the broker");
        goto out;
    }
    broker->io = io;
    broker->wal = wal;
    broker->options = *options;
    broker->shard_count = options->shard_count;
    rc = cnk_publisher_new(broker, err);
    for (size_t i = 0; rc == 0 && i < broker->shard_count; i++) {
        rc = cnk_shard_open(broker, i, err);
        broker->shards_open += rc == 0;
    }
    if (rc == 0) rc = recover_metadata(broker, err);
    if (rc == 0) rc = recover_partitions(broker, &starting, err);
    if (rc == 0) rc = cnk_publisher_start(broker, starting, err);
    if (rc == CHRONIK_EFENCED) {
        chronik_error why;
        cnk_wal_fenced_by(wal, &why);
        cnk_error(err, rc, 0, "the write-ahead log failed while the broker was starting: %s", why.text);
    }
    if (rc != 0) goto out;
    *ret_broker = broker;
    broker = NULL;
out:
    cnk_broker_free(broker);
    return rc;
}

void cnk_broker_free(cnk_broker *broker) {
    if (broker == NULL) return;
    for (size_t i = 0; i < broker->shards_open; i++) cnk_shard_close(&broker->shards[i]);
    cnk_publisher_free(broker->publisher);
    cnk_free(broker->shards);
    cnk_free(broker);
}

size_t cnk_broker_shard_count(const cnk_broker *broker) { return broker->shard_count; }
cnk_shard *cnk_broker_shard(cnk_broker *broker, size_t i) { return &broker->shards[i]; }
const cnk_broker_options *cnk_broker_settings(const cnk_broker *broker) { return &broker->options; }

void cnk_broker_stop(cnk_broker *broker, void (*stopped)(void *arg, int code), void *arg) {
    CNK_ASSERT(!broker->stop_begun);
    broker->stop_begun = true;
    broker->stopped = stopped;
    broker->stopped_arg = arg;
    broker->shards_draining = broker->shard_count;
    for (size_t i = 0; i < broker->shard_count; i++) {
        cnk_shard *shard = &broker->shards[i];
        shard->stop_post.run = run_stop;
        shard->loop->ops->post(shard->loop->self, &shard->stop_post);
    }
}

static int check_options(const cnk_broker_options *o, chronik_error *err) {
    if (o->shard_count == 0 || o->shard_count > CNK_BROKER_SHARDS_MAX)
        return cnk_error(err, CHRONIK_EINVAL, 0, "the number of shards is from 1 to %d", CNK_BROKER_SHARDS_MAX);
    if (o->node_id < 0 || o->num_partitions < 1 || o->num_partitions > CNK_TOPIC_PARTITIONS_MAX)
        return cnk_error(err, CHRONIK_EINVAL, 0, "the node id must not be negative, and num.partitions be from 1 to %d",
                         CNK_TOPIC_PARTITIONS_MAX);
    return 0;
}

/* Without its metadata every stream would look like nobody's: never drop data because the metadata is gone. */
static int recover_metadata(cnk_broker *broker, chronik_error *err) {
    cnk_wal_stream *stream, *found = NULL;
    size_t others = 0;
    for (size_t it = 0; (stream = cnk_wal_recovered_next(broker->wal, &it)) != NULL;) {
        if (cnk_wal_stream_state(stream)->id == CNK_META_STREAM)
            found = stream;
        else
            others++;
    }
    if (found == NULL && others > 0)
        return cnk_error(err, CHRONIK_ECORRUPT, 0,
                         "the WAL holds %zu streams but not the metadata's: nothing is touched; "
                         "see chronikd fsck",
                         others);
    cnk_tier_stats tier = {0};
    if (broker->options.tier) cnk_tier_stats_get(broker->options.tier, &tier);
    if (found == NULL && tier.packs > 0)
        return cnk_error(err, CHRONIK_ECORRUPT, 0,
                         "there are %llu packs, but the WAL holds no metadata: nothing is touched; restore the WAL's "
                         "directory, or move the packs' directory away to begin without them",
                         (unsigned long long)tier.packs);
    if (found && cnk_wal_stream_state(found)->damaged)
        return cnk_error(err, CHRONIK_ECORRUPT, 0, "the metadata's stream is damaged; see chronikd fsck");
    int rc = cnk_publisher_recover(broker, found, err);
    cnk_meta_image *image = cnk_meta_image_now(cnk_publisher_meta(broker->publisher));
    for (size_t i = 0; rc == 0 && i < broker->shard_count; i++) broker->shards[i].image = cnk_meta_image_ref(image);
    return rc;
}

static int recover_partitions(cnk_broker *broker, size_t *ret_starting, chronik_error *err) {
    const cnk_meta_image *image = broker->shards[0].image;
    cnk_wal_stream *stream;
    cnk_map map = {0};
    place *places = cnk_calloc(image->partition_count ? image->partition_count : 1, sizeof *places);
    int rc = places ? index_partitions(image, places, &map) : CHRONIK_ENOMEM;
    if (rc != 0) cnk_error(err, rc, 0, "out of memory for %zu partitions", image->partition_count);
    for (size_t it = 0; rc == 0 && (stream = cnk_wal_recovered_next(broker->wal, &it)) != NULL;) {
        uint64_t id = cnk_wal_stream_state(stream)->id;
        if (id != CNK_META_STREAM) rc = recover_stream(broker, stream, cnk_map_get(&map, id), err);
    }
    if (rc == 0) rc = complete_partitions(broker, places, image->partition_count, ret_starting, err);
    cnk_map_free(&map);
    cnk_free(places);
    return rc;
}

static int index_partitions(const cnk_meta_image *image, place *places, cnk_map *map) {
    size_t n = 0;
    for (size_t t = 0; t < image->topic_count; t++)
        for (int32_t i = 0; i < image->by_id[t]->partition_total; i++, n++) {
            places[n] = (place){image->by_id[t], i, false};
            if (cnk_map_put(map, image->by_id[t]->partitions[i].stream, &places[n]) != 0) return CHRONIK_ENOMEM;
        }
    return 0;
}

static int recover_stream(cnk_broker *broker, cnk_wal_stream *stream, place *where, chronik_error *err) {
    uint64_t id = cnk_wal_stream_state(stream)->id;
    cnk_shard *shard = cnk_shard_owner(broker, id);
    cnk_partition *p = NULL;
    if (where == NULL) {
        int rc = cnk_replica_drop_stream(shard->replicas, stream);
        if (rc == 0 && broker->options.dropped) broker->options.dropped(broker->options.hook_arg, id);
        return rc == 0
                   ? 0
                   : cnk_error(err, rc, 0, "stream %llu has no metadata and cannot be dropped", (unsigned long long)id);
    }
    where->found = true;
    int rc = cnk_partition_new(shard, where->topic, where->number, &p);
    if (rc != 0) return cnk_error(err, rc, 0, "out of memory for the partitions");
    chronik_error why = CHRONIK_ERROR_INIT;
    rc = cnk_wal_stream_state(stream)->damaged
             ? CHRONIK_ECORRUPT
             : cnk_replica_recover(shard->replicas, stream, &cnk_partition_events, p, &why, &p->replica);
    if (rc == CHRONIK_ENOMEM) return cnk_error_because(err, rc, &why);
    if (rc != 0) { /* S6: exactly this stream is offline */
        cnk_replica_leave(shard->replicas, stream);
        cnk_shard_notice(shard, rc, "partition %d of topic %s is offline: %s", (int)where->number, where->topic->name,
                         why.text[0] ? why.text : "synced entries are corrupt; see chronikd fsck");
    }
    return 0;
}

static int complete_partitions(cnk_broker *broker, place *places, size_t count, size_t *ret_starting,
                               chronik_error *err) {
    for (size_t i = 0; i < count; i++) {
        const cnk_meta_topic *topic = places[i].topic;
        cnk_shard *shard = cnk_shard_owner(broker, topic->partitions[places[i].number].stream);
        cnk_partition *p = cnk_shard_partition(shard, topic->partitions[places[i].number].stream);
        if (p == NULL && cnk_partition_new(shard, topic, places[i].number, &p) != 0)
            return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory for the partitions");
        bool fresh = !places[i].found || (p->replica && cnk_replica_is_new(p->replica));
        const bool online = topic->partitions[places[i].number].state == CNK_PARTITION_ONLINE;
        if (online && fresh) { /* R4: a lost replica; never made empty */
            cnk_shard_notice(shard, CHRONIK_ECORRUPT, "partition %d of topic %s is lost: its stream is not in the WAL",
                             (int)places[i].number, topic->name);
            if (broker->options.tier) cnk_tier_stream_keep(broker->options.tier, p->stream);
            continue;
        }
        p->fresh = !places[i].found;
        if (p->replica == NULL && !p->fresh) continue; /* offline */
        cnk_partition_begin(p);
        /* No replica: the log has failed since it was opened, and nothing can be made in it. */
        bool will_lead = cnk_list_linked(&p->starting_node) ||
                         (p->replica && cnk_replica_role_of(p->replica) == CNK_ROLE_ELECTED);
        *ret_starting += online && will_lead;
    }
    return 0;
}

/* On each shard. What waits for the WAL is answered by the drain: durable first, then the port falls silent; or, where
 * the disk is full, by us when it has ended. */
static void run_stop(chronik_post *post) {
    cnk_shard *shard = CNK_CONTAINER(post, cnk_shard, stop_post);
    shard->stopping = true;
    cnk_groups_stop(shard);
    cnk_fetch_stop(shard);
    cnk_cold_stop(shard);
    cnk_produce_stop(shard);
    cnk_producers_stop(shard);
    cnk_admin_stop(shard);
    cnk_shard_flush(shard);
    cnk_replica_shard_drain(shard->replicas, on_drained, shard);
}

static void on_drained(void *arg, int code) {
    cnk_shard *shard = arg;
    if (code != 0) cnk_shard_give_up(shard);
    shard->stop_code = code;
    shard->drained = true;
    cnk_broker_stop_check(shard);
}

void cnk_broker_stop_check(cnk_shard *shard) {
    cnk_shard *first = &shard->broker->shards[0];
    if (!shard->drained || shard->group_loads + shard->extents_reading > 0 || shard->trimming) return;
    shard->drained = false;
    shard->stop_post.run = shard_drained;
    first->loop->ops->post(first->loop->self, &shard->stop_post);
}

static void shard_drained(chronik_post *post) {
    cnk_shard *shard = CNK_CONTAINER(post, cnk_shard, stop_post);
    cnk_broker *broker = shard->broker;
    int code = 0;
    if (--broker->shards_draining > 0) return;
    cnk_publisher_fail(broker->publisher, CHRONIK_ESHUTDOWN);
    for (size_t i = 0; i < broker->shard_count; i++) code = code ? code : broker->shards[i].stop_code;
    broker->stopped(broker->stopped_arg, code);
}
