/* The partitions of a shard: made and dropped as the metadata says, each between its replica and those who wait.
 *
 * Invariants
 *  - The map holds every partition of the shard's image whose stream belongs to the shard, and those that are gone but
 *    whose stream could not be dropped yet (the WAL is fenced, or memory is short).
 *  - A partition without a replica is a lost one (R4): it answers with storage errors and is never made empty.
 *
 * Owner: the shard's thread; the opening thread before the loop runs. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/internal.h"

static void on_committed(void *arg, cnk_replica *replica, uint64_t commit_index);
static void on_truncated(void *arg, cnk_replica *replica, uint64_t last_index_kept);
static void on_role(void *arg, cnk_replica *replica, cnk_replica_role role, uint32_t term);
static void topic_added(cnk_shard *shard, const cnk_meta_topic *topic);
static void topic_removed(cnk_shard *shard, const cnk_meta_topic *topic);
static bool partition_drop(cnk_partition *p);

const cnk_replica_events cnk_partition_events = {.committed = on_committed,
                                                 .truncated = on_truncated,
                                                 .role = on_role,
                                                 .snapshot = cnk_group_snapshot,
                                                 .restore = cnk_group_restore};

int cnk_partition_new(cnk_shard *shard, const cnk_meta_topic *topic, int32_t number, cnk_partition **ret_partition) {
    cnk_partition *p = cnk_calloc(1, sizeof *p);
    if (p == NULL) return CHRONIK_ENOMEM;
    p->up = cnk_calloc(1, sizeof *p->up);
    if (p->up == NULL) {
        cnk_free(p);
        return CHRONIK_ENOMEM;
    }
    p->shard = shard;
    p->stream = topic->partitions[number].stream;
    p->leader = topic->partitions[number].leader;
    p->leaders = topic->leaders;
    p->epoch_floor = topic->epoch_floor;
    p->up->broker = shard->broker;
    p->up->topic_id = topic->id;
    p->up->online = topic->partitions[number].state == CNK_PARTITION_ONLINE;
    p->up->post.run = cnk_publisher_partition_up;
    p->topic_id = topic->id;
    p->number = number;
    p->groups = topic->internal && strcmp(topic->name, CNK_COORD_GROUPS_TOPIC) == 0;
    cnk_list_init(&p->fifo);
    cnk_list_init(&p->waiting);
    cnk_list_init(&p->fetchers);
    cnk_list_init(&p->watches);
    p->expiry_round = shard->expiry_round; /* its first look is in the next one */
    if (cnk_map_put(&shard->partitions, p->stream, p) != 0) {
        cnk_free(p->up);
        cnk_free(p);
        return CHRONIK_ENOMEM;
    }
    cnk_list_push_back(&shard->expiry, &p->expiry_node);
    cnk_meta_leaders_ref(p->leaders);
    cnk_counter_add(&shard->stats.partitions, 1);
    *ret_partition = p;
    return 0;
}

void cnk_partition_free(cnk_partition *p) {
    cnk_group_free(p);
    cnk_list_remove(&p->blocked_node);
    cnk_list_remove(&p->starting_node);
    cnk_list_remove(&p->moved_node);
    cnk_list_remove(&p->expiry_node);
    cnk_meta_leaders_unref(p->leaders);
    cnk_free(p->up);
    cnk_free(p);
}

void cnk_partition_begin(cnk_partition *p) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int rc = 0;
    if (p->fresh) rc = cnk_replica_create(p->shard->replicas, p->stream, &cnk_partition_events, p, &err, &p->replica);
    if (rc == 0) {
        p->fresh = false;
        rc = cnk_group_begin(p);
    }
    if (rc == 0) {
        rc = cnk_replica_start(p->replica, p->epoch_floor, &err);
    }
    if (rc == 0) p->counted_to = cnk_log_high_watermark(cnk_replica_log(p->replica));
    cnk_list_remove(&p->starting_node);
    if (rc == CHRONIK_EAGAIN || rc == CHRONIK_ENOSPC || rc == CHRONIK_ENOMEM) {
        cnk_list_push_back(&p->shard->starting, &p->starting_node);
        cnk_shard_retry_later(p->shard);
    } else if (rc != 0 && rc != CHRONIK_ESHUTDOWN) { /* the next start goes on where this one stopped */
        cnk_shard_notice(p->shard, rc, "%s", err.text);
    }
}

bool cnk_partitions_retry(cnk_shard *shard) {
    cnk_list due; /* each once, also those that go back to the list */
    cnk_list_init(&due);
    while (!cnk_list_empty(&shard->starting)) cnk_list_push_back(&due, cnk_list_pop_front(&shard->starting));
    while (!cnk_list_empty(&due)) {
        cnk_partition *p = CNK_CONTAINER(cnk_list_pop_front(&due), cnk_partition, starting_node);
        if (!p->gone)
            cnk_partition_begin(p);
        else if (!partition_drop(p))
            cnk_list_push_back(&shard->starting, &p->starting_node);
    }
    if (shard->image_incomplete) {
        shard->image_incomplete = false;
        for (size_t i = 0; i < shard->image->topic_count; i++)
            if (!cnk_meta_topic_whole(shard->image->by_id[i])) topic_added(shard, shard->image->by_id[i]);
    }
    return shard->image_incomplete || !cnk_list_empty(&shard->starting);
}

/* What changed between two images is found by walking both in the order of ids: topics are shared, so those that did
 * not change are the same pointer. */
void cnk_shard_image_apply(cnk_shard *shard, cnk_meta_image *image) {
    cnk_meta_image *old = shard->image;
    size_t i = 0, j = 0, old_count = old ? old->topic_count : 0;
    shard->image = image;
    while (i < old_count || j < image->topic_count) {
        int c = i == old_count            ? 1
                : j == image->topic_count ? -1
                : old->by_id[i] == image->by_id[j]
                    ? 0
                    : memcmp(old->by_id[i]->id.bytes, image->by_id[j]->id.bytes, sizeof image->by_id[j]->id.bytes);
        if (c < 0)
            topic_removed(shard, old->by_id[i]);
        else if (c > 0 || old->by_id[i]->partition_total < image->by_id[j]->partition_total)
            topic_added(shard, image->by_id[j]);
        i += c <= 0;
        j += c >= 0;
    }
    cnk_meta_image_unref(old);
}

const cnk_meta_partition *cnk_partition_find(const cnk_meta_image *image, cnk_text name, const cnk_uuid *id,
                                             int32_t number, const cnk_meta_topic **ret_topic, int *ret_error) {
    bool by_name = name.p != NULL;
    const cnk_meta_topic *topic =
        by_name ? cnk_meta_topic_by_name(image, name.p, name.len) : cnk_meta_topic_by_id(image, id);
    if (topic == NULL) {
        *ret_error = by_name ? CHRONIK_EUNKNOWNTOPIC : CHRONIK_EUNKNOWNTOPICID;
        return NULL;
    }
    if (number < 0 || number >= topic->partition_count) {
        *ret_error = CHRONIK_EUNKNOWNTOPIC;
        return NULL;
    }
    *ret_topic = topic;
    return &topic->partitions[number];
}

/* The topic, or partitions of it, are new. */
static void topic_added(cnk_shard *shard, const cnk_meta_topic *topic) {
    for (int32_t i = 0; i < topic->partition_total; i++) {
        cnk_partition *p = NULL;
        uint64_t stream = topic->partitions[i].stream;
        if (cnk_shard_owner(shard->broker, stream) != shard || cnk_map_get(&shard->partitions, stream)) continue;
        if (cnk_partition_new(shard, topic, i, &p) != 0) {
            shard->image_incomplete = true;
            cnk_shard_retry_later(shard);
            return;
        }
        p->fresh = true;
        cnk_partition_begin(p);
    }
}

static void topic_removed(cnk_shard *shard, const cnk_meta_topic *topic) {
    cnk_group_topic_removed(shard, topic);
    for (int32_t i = 0; i < topic->partition_total; i++) {
        cnk_partition *p = cnk_map_get(&shard->partitions, topic->partitions[i].stream);
        if (p == NULL) continue;
        p->gone = true;
        cnk_group_free(p);
        atomic_store_explicit(&p->leader->node, -1, memory_order_relaxed);
        cnk_produce_gone(p, CHRONIK_EUNKNOWNTOPIC);
        cnk_fetch_moved(p);
        cnk_shard_flush(shard);
        if (!partition_drop(p) && !cnk_list_linked(&p->starting_node))
            cnk_list_push_back(&shard->starting, &p->starting_node);
        if (!cnk_list_empty(&shard->starting)) cnk_shard_retry_later(shard);
    }
}

/* A fenced WAL takes no DROP: the next start finds a stream without metadata and drops it. */
static bool partition_drop(cnk_partition *p) {
    cnk_shard *shard = p->shard;
    if (p->replica && cnk_replica_drop(p->replica) != 0) return false;
    if (shard->broker->options.dropped) shard->broker->options.dropped(shard->broker->options.hook_arg, p->stream);
    cnk_map_remove(&shard->partitions, p->stream);
    cnk_counter_sub(&shard->stats.partitions, 1);
    cnk_partition_free(p);
    return true;
}

static void on_committed(void *arg, cnk_replica *replica, uint64_t commit_index) {
    cnk_partition *p = arg;
    int64_t high_watermark = cnk_log_high_watermark(cnk_replica_log(replica));
    cnk_counter_add(&p->shard->stats.stored_records, (uint64_t)(high_watermark - p->counted_to));
    p->counted_to = high_watermark;
    cnk_produce_committed(p, commit_index);
    if (p->coord) cnk_coord_committed(p->coord, commit_index);
    if (!p->moved) {
        p->moved = true;
        cnk_list_push_back(&p->shard->moved, &p->moved_node);
    }
    if (!cnk_list_empty(&p->fifo)) cnk_produce_retry(p);
}

static void on_truncated(void *arg, cnk_replica *replica, uint64_t last_index_kept) {
    cnk_partition *p = arg;
    (void)replica;
    cnk_produce_truncated(p, last_index_kept);
    if (p->coord) cnk_coord_resign(p->coord);
}

/* R13: who leads is told to all by two atomics, and the first time to shard 0, which waits for it. */
static void on_role(void *arg, cnk_replica *replica, cnk_replica_role role, uint32_t term) {
    cnk_partition *p = arg;
    if (role != CNK_ROLE_LEADER) cnk_fetch_moved(p);
    if (role != CNK_ROLE_LEADER || p->gone) return;
    cnk_expiry_led(p);
    if (p->coord) cnk_coord_lead(p->coord);
    atomic_store_explicit(&p->leader->epoch, (int32_t)term, memory_order_relaxed);
    atomic_store_explicit(&p->leader->node, cnk_replica_leader(replica), memory_order_release);
    cnk_up_message *up = p->up;
    p->up = NULL;
    if (up) { /* always by message: shard 0's own partitions must not propose inside a commit */
        const chronik_loop *loop = p->shard->broker->shards[0].loop;
        if (p->shard->index == 0)
            loop->ops->defer(loop->self, &up->post);
        else
            loop->ops->post(loop->self, &up->post);
    }
}
