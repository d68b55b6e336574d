/* The metadata's side of the broker, on shard 0: commits become images, images go to every shard, topics come online.
 *
 *    propose ─► commit ─► image on shard 0 ─► a message to each other shard ─► its acknowledgement
 *                                    │                        │
 *              TOPIC: streams are made on their shards; each, once it leads, tells shard 0; when all do: propose ONLINE
 *
 * Each shard has one image under way at a time; the next one sent is always the newest. Whoever waits does so for an
 * index to be committed, for a version to be everywhere, or for a topic to be online everywhere.
 *
 * Owner: shard 0's thread; the opening thread before the loops run. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "broker/internal.h"

typedef struct target { /* a shard that gets images */
    chronik_post post;  /* there, then back */
    cnk_publisher *publisher;
    cnk_shard *shard;
    cnk_meta_image *sending;
    uint64_t sent, acked;
    bool busy;
    cnk_wait block_wait; /* for its producer ids */
    int64_t block_from;
} target;

struct cnk_publisher {
    cnk_broker *broker;
    cnk_meta *meta;
    cnk_meta_options meta_options;
    cnk_replica *replica;
    cnk_list committed_waits, everywhere_waits, online_waits;
    size_t partitions_starting;
    int failed; /* not 0: nothing more will be committed, nor come online, for this reason */
    bool leads, ready, needs_cluster_id, online_due;
    atomic_int_least32_t epoch; /* that it leads in; -1: it does not */
    cnk_uuid cluster_id;
    target targets[CNK_BROKER_SHARDS_MAX]; /* [0] serves producer ids alone */
};

static const char *broker_value(void *arg, const char *name);
static void on_published(void *arg, cnk_meta_image *image);
static int on_apply(void *arg, cnk_replica *r, uint64_t index, const uint8_t *command, size_t len);
static int on_snapshot(void *arg, cnk_writer *out);
static int on_restore(void *arg, const uint8_t *state, size_t len, uint64_t applied_index);
static void on_committed(void *arg, cnk_replica *replica, uint64_t commit_index);
static void on_truncated(void *arg, cnk_replica *replica, uint64_t last_index_kept);
static void on_role(void *arg, cnk_replica *replica, cnk_replica_role role, uint32_t term);
static void propose_cluster_id(cnk_publisher *pub);
static void online_check(cnk_publisher *pub, const cnk_meta_topic *topic);
static void send_image(target *t);
static void image_arrived(chronik_post *post);
static void image_acked(chronik_post *post);
static uint64_t version_everywhere(const cnk_publisher *pub);
static void waits_check(cnk_publisher *pub);
static void ready_check(cnk_publisher *pub);
static void block_committed(cnk_wait *wait, int code);
static void block_answer(target *t, int code);
static void fail_waits(cnk_list *waits, int code);

static const cnk_replica_events meta_events = {.committed = on_committed,
                                               .truncated = on_truncated,
                                               .role = on_role,
                                               .apply = on_apply,
                                               .snapshot = on_snapshot,
                                               .restore = on_restore};

int cnk_publisher_new(cnk_broker *broker, chronik_error *err) {
    cnk_publisher *pub = cnk_calloc(1, sizeof *pub);
    if (pub == NULL) return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory for the metadata");
    pub->broker = broker;
    atomic_init(&pub->epoch, -1);
    pub->meta_options = (cnk_meta_options){.broker_value = broker_value, .published = on_published, .arg = pub};
    cnk_list_init(&pub->committed_waits);
    cnk_list_init(&pub->everywhere_waits);
    cnk_list_init(&pub->online_waits);
    for (size_t i = 0; i < broker->shard_count; i++) {
        pub->targets[i].publisher = pub;
        pub->targets[i].shard = &broker->shards[i];
        pub->targets[i].block_wait.run = block_committed;
    }
    int rc = cnk_meta_new(&pub->meta_options, &pub->meta);
    if (rc != 0) {
        cnk_free(pub);
        return cnk_error(err, rc, 0, "out of memory for the metadata");
    }
    broker->publisher = pub;
    return 0;
}

void cnk_publisher_free(cnk_publisher *pub) {
    if (pub == NULL) return;
    for (size_t i = 0; i < pub->broker->shard_count; i++) cnk_meta_image_unref(pub->targets[i].sending);
    cnk_meta_free(pub->meta);
    cnk_free(pub);
}

int cnk_publisher_recover(cnk_broker *broker, cnk_wal_stream *stream, chronik_error *err) {
    cnk_publisher *pub = broker->publisher;
    cnk_replica_shard *shard = broker->shards[0].replicas;
    int rc = stream ? cnk_replica_recover(shard, stream, &meta_events, pub, err, &pub->replica)
                    : cnk_replica_create(shard, CNK_META_STREAM, &meta_events, pub, err, &pub->replica);
    if (rc != 0) return rc;
    const cnk_uuid *found = &cnk_meta_image_now(pub->meta)->cluster_id, *asked = &broker->options.cluster_id;
    pub->needs_cluster_id = cnk_uuid_is_zero(found);
    if (!pub->needs_cluster_id && !cnk_uuid_is_zero(asked) && !cnk_uuid_equal(found, asked))
        return cnk_error(err, CHRONIK_EINVAL, 0,
                         "the data directory's metadata belong to another cluster than its "
                         "identity file says");
    pub->cluster_id = *asked;
    if (cnk_uuid_is_zero(asked)) {
        uint8_t entropy[16];
        broker->io->entropy(broker->io->entropy_self, entropy, sizeof entropy);
        cnk_uuid_make(entropy, &pub->cluster_id);
    }
    return 0;
}

int cnk_publisher_start(cnk_broker *broker, size_t partitions_starting, chronik_error *err) {
    cnk_publisher *pub = broker->publisher;
    pub->partitions_starting = partitions_starting;
    for (size_t i = 0; i < broker->shard_count; i++)
        pub->targets[i].sent = pub->targets[i].acked = cnk_meta_image_now(pub->meta)->version;
    return cnk_replica_start(pub->replica, 0, err);
}

cnk_meta *cnk_publisher_meta(const cnk_publisher *pub) { return pub->meta; }
int32_t cnk_publisher_epoch(const cnk_publisher *pub) {
    return atomic_load_explicit(&pub->epoch, memory_order_relaxed);
}
const cnk_meta_options *cnk_publisher_meta_options(const cnk_publisher *pub) { return &pub->meta_options; }
cnk_replica *cnk_publisher_replica(const cnk_publisher *pub) { return pub->replica; }

bool cnk_publisher_retry(cnk_publisher *pub) {
    if (pub->leads && pub->needs_cluster_id) propose_cluster_id(pub);
    pub->online_due = false;
    const cnk_meta_image *now = cnk_meta_image_now(pub->meta);
    for (size_t i = 0; i < now->topic_count; i++)
        if (!cnk_meta_topic_whole(now->by_id[i])) online_check(pub, now->by_id[i]);
    return pub->online_due || (pub->leads && pub->needs_cluster_id);
}

void cnk_publisher_fail(cnk_publisher *pub, int code) {
    pub->failed = code;
    fail_waits(&pub->committed_waits, code);
    fail_waits(&pub->everywhere_waits, code);
    for (cnk_list *node; (node = cnk_list_pop_front(&pub->online_waits)) != NULL;) {
        cnk_topic_wait *wait = CNK_CONTAINER(node, cnk_topic_wait, node);
        wait->run(wait, code);
    }
}

void cnk_publisher_when_committed(cnk_publisher *pub, cnk_wait *wait, uint64_t index) {
    wait->at = index;
    if (pub->failed != 0)
        wait->run(wait, pub->failed);
    else
        cnk_list_push_back(&pub->committed_waits, &wait->node);
}

void cnk_publisher_when_everywhere(cnk_publisher *pub, cnk_wait *wait, uint64_t version) {
    wait->at = version;
    cnk_list_push_back(&pub->everywhere_waits, &wait->node);
    waits_check(pub);
}

void cnk_publisher_when_online(cnk_publisher *pub, cnk_topic_wait *wait, const cnk_uuid *id, uint64_t from) {
    wait->id = *id;
    wait->from = from;
    wait->at = 0;
    cnk_list_push_back(&pub->online_waits, &wait->node);
    waits_check(pub);
}

void cnk_publisher_partition_up(chronik_post *post) {
    cnk_up_message *up = CNK_CONTAINER(post, cnk_up_message, post);
    cnk_publisher *pub = up->broker->publisher;
    const cnk_meta_topic *topic = cnk_meta_topic_any_by_id(cnk_meta_image_now(pub->meta), &up->topic_id);
    if (up->online && pub->partitions_starting > 0) pub->partitions_starting--;
    cnk_free(up);
    if (topic && !cnk_meta_topic_whole(topic)) online_check(pub, topic);
    ready_check(pub);
}

void cnk_publisher_producer_block(cnk_shard *shard) {
    cnk_publisher *pub = shard->broker->publisher;
    target *t = &pub->targets[shard->index];
    cnk_meta_command command;
    uint64_t index;
    t->block_from = cnk_meta_image_head(pub->meta)->next_producer_id;
    cnk_meta_command_init(&command);
    cnk_meta_command_producer_block(&command, t->block_from + CNK_META_PRODUCER_BLOCK);
    int rc = cnk_meta_propose(pub->meta, pub->replica, &command, &index);
    cnk_meta_command_free(&command);
    if (rc == 0)
        cnk_publisher_when_committed(pub, &t->block_wait, index);
    else
        block_answer(t, rc);
}

/* ---- the machine's events --------------------------------------------------------------------------------------- */

static const char *broker_value(void *arg, const char *name) {
    const cnk_publisher *pub = arg;
    const cnk_broker_options *o = &pub->broker->options;
    for (size_t i = 0; i < o->config_count; i++)
        if (o->configs[i].set && strcmp(o->configs[i].name, name) == 0) return o->configs[i].value;
    return NULL;
}

static void on_published(void *arg, cnk_meta_image *image) { /* several may come before on_committed, which acts */
    (void)arg;
    (void)image;
}

static int on_apply(void *arg, cnk_replica *r, uint64_t index, const uint8_t *command, size_t len) {
    return cnk_meta_apply(((cnk_publisher *)arg)->meta, r, index, command, len);
}

static int on_snapshot(void *arg, cnk_writer *out) { return cnk_meta_snapshot(((cnk_publisher *)arg)->meta, out); }

static int on_restore(void *arg, const uint8_t *state, size_t len, uint64_t applied_index) {
    return cnk_meta_restore(((cnk_publisher *)arg)->meta, state, len, applied_index);
}

static void on_committed(void *arg, cnk_replica *replica, uint64_t commit_index) {
    cnk_publisher *pub = arg;
    cnk_shard *shard = &pub->broker->shards[0];
    cnk_meta_image *now = cnk_meta_image_now(pub->meta);
    (void)replica;
    if (shard->image != now) {
        cnk_shard_image_apply(shard, cnk_meta_image_ref(now));
        for (size_t i = 1; i < pub->broker->shard_count; i++) send_image(&pub->targets[i]);
    }
    CNK_LIST_EACH(node, &pub->committed_waits) {
        cnk_wait *wait = CNK_CONTAINER(node, cnk_wait, node);
        if (wait->at > commit_index) break; /* in order of index */
        cnk_list_remove(&wait->node);
        wait->run(wait, 0);
    }
    waits_check(pub);
    ready_check(pub);
}

static void on_truncated(void *arg, cnk_replica *replica, uint64_t last_index_kept) {
    cnk_publisher *pub = arg;
    (void)replica;
    cnk_meta_truncated(pub->meta, last_index_kept);
}

static void on_role(void *arg, cnk_replica *replica, cnk_replica_role role, uint32_t term) {
    cnk_publisher *pub = arg;
    (void)replica;
    if (role != CNK_ROLE_LEADER) return;
    pub->leads = true;
    atomic_store_explicit(&pub->epoch, (int32_t)term, memory_order_relaxed);
    if (cnk_publisher_retry(pub)) cnk_shard_retry_later(&pub->broker->shards[0]);
}

static void propose_cluster_id(cnk_publisher *pub) {
    cnk_meta_command command;
    uint64_t index;
    cnk_meta_command_init(&command);
    cnk_meta_command_cluster(&command, &pub->cluster_id);
    if (cnk_meta_propose(pub->meta, pub->replica, &command, &index) == 0) pub->needs_cluster_id = false;
    cnk_meta_command_free(&command);
}

/* ---- topics on their way ---------------------------------------------------------------------------------------- */

/* A topic whose partitions all lead is proposed to be online, once; what stands in the way is tried again. Where more
 * partitions have been proposed meanwhile, these come online with them. */
static void online_check(cnk_publisher *pub, const cnk_meta_topic *topic) {
    const cnk_meta_topic *head = cnk_meta_topic_any_by_id(cnk_meta_image_head(pub->meta), &topic->id);
    cnk_meta_command command;
    uint64_t index;
    int32_t *led = &topic->leaders->led;
    while (*led < topic->partition_total &&
           atomic_load_explicit(&topic->partitions[*led].leader->node, memory_order_acquire) >= 0)
        (*led)++;
    if (*led < topic->partition_total || head == NULL || cnk_meta_topic_whole(head) ||
        head->partition_total != topic->partition_total)
        return; /* not yet; or its deletion, or this, is on the way */
    cnk_meta_command_init(&command);
    cnk_meta_command_online(&command, &topic->id);
    if (cnk_meta_propose(pub->meta, pub->replica, &command, &index) != 0) {
        pub->online_due = true;
        cnk_shard_retry_later(&pub->broker->shards[0]);
    }
    cnk_meta_command_free(&command);
}

/* ---- images to the other shards --------------------------------------------------------------------------------- */

static void send_image(target *t) {
    cnk_meta_image *now = cnk_meta_image_now(t->publisher->meta);
    if (t->busy || t->sent >= now->version) return;
    t->busy = true;
    t->sent = now->version;
    t->sending = cnk_meta_image_ref(now);
    t->post.run = image_arrived;
    t->shard->loop->ops->post(t->shard->loop->self, &t->post);
}

static void image_arrived(chronik_post *post) {
    target *t = CNK_CONTAINER(post, target, post);
    const chronik_loop *home = t->publisher->broker->shards[0].loop;
    cnk_shard_image_apply(t->shard, t->sending);
    t->sending = NULL;
    t->post.run = image_acked;
    home->ops->post(home->self, &t->post);
}

static void image_acked(chronik_post *post) {
    target *t = CNK_CONTAINER(post, target, post);
    t->busy = false;
    t->acked = t->sent;
    send_image(t);
    waits_check(t->publisher);
    ready_check(t->publisher);
}

static uint64_t version_everywhere(const cnk_publisher *pub) {
    uint64_t least = pub->broker->shards[0].image->version;
    for (size_t i = 1; i < pub->broker->shard_count; i++)
        if (pub->targets[i].acked < least) least = pub->targets[i].acked;
    return least;
}

static void waits_check(cnk_publisher *pub) {
    uint64_t everywhere = version_everywhere(pub);
    const cnk_meta_image *now = pub->broker->shards[0].image;
    CNK_LIST_EACH(node, &pub->everywhere_waits) {
        cnk_wait *wait = CNK_CONTAINER(node, cnk_wait, node);
        if (wait->at > everywhere) continue;
        cnk_list_remove(&wait->node);
        wait->run(wait, 0);
    }
    CNK_LIST_EACH(it, &pub->online_waits) {
        cnk_topic_wait *wait = CNK_CONTAINER(it, cnk_topic_wait, node);
        bool seen = now->version >= wait->from;
        const cnk_meta_topic *topic = seen ? cnk_meta_topic_any_by_id(now, &wait->id) : NULL;
        bool whole = topic && cnk_meta_topic_whole(topic);
        if (whole && wait->at == 0) wait->at = now->version;
        bool open = !seen || (topic && (wait->at == 0 || wait->at > everywhere));
        if (open && pub->failed == 0) continue;
        cnk_list_remove(&wait->node);
        wait->run(wait, open ? pub->failed : topic ? 0 : CHRONIK_ENOTFOUND);
    }
}

static void ready_check(cnk_publisher *pub) {
    /* Topics that were being created when the last run ended are not waited for: nobody was told that they exist. */
    if (pub->ready || !pub->leads || pub->partitions_starting > 0 ||
        cnk_uuid_is_zero(&pub->broker->shards[0].image->cluster_id) ||
        version_everywhere(pub) < pub->broker->shards[0].image->version)
        return;
    pub->ready = true;
    if (pub->broker->options.ready) pub->broker->options.ready(pub->broker->options.hook_arg);
}

/* ---- producer ids ----------------------------------------------------------------------------------------------- */

static void block_committed(cnk_wait *wait, int code) { block_answer(CNK_CONTAINER(wait, target, block_wait), code); }

static void block_answer(target *t, int code) {
    cnk_shard *home = &t->publisher->broker->shards[0];
    t->shard->producers_code = code;
    t->shard->producers_from = t->block_from;
    if (t->shard == home) /* never inside the asking call */
        home->loop->ops->defer(home->loop->self, &t->shard->producers_post);
    else
        t->shard->loop->ops->post(t->shard->loop->self, &t->shard->producers_post);
}

static void fail_waits(cnk_list *waits, int code) {
    for (cnk_list *node; (node = cnk_list_pop_front(waits)) != NULL;) {
        cnk_wait *wait = CNK_CONTAINER(node, cnk_wait, node);
        wait->run(wait, code);
    }
}
