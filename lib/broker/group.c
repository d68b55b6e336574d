/* Groups: calls to their coordinators, and what a coordinator needs of its partition.
 *
 *   caller's shard: cnk_broker_group ──call──► owner of the partition: cnk_coord_call_start … done
 *        ▲                                        │
 *        └─────────────── the answer ◄────────────┘
 *
 * A call goes and comes by message, also where both shards are the same, so that `done` never runs inside the starting
 * call. A cancelled one is over when its answer and the cancellation have both come home.
 *
 * A topic that is made anew resumes nowhere: offsets are those of the topic that has the name now, by the image of the
 * caller's shard, also where those of an earlier one could not be taken away (a crash, a log without room).
 *
 * A coordinator loads by ordinary fetches of its own partition, one at a time.
 *
 * Owner of an operation: its caller's shard, but for the call itself, which is the coordinator's from message to message. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/internal.h"

typedef struct cnk_group_load { /* what reads for a coordinator */
    chronik_post post;
    cnk_shard *shard;
    cnk_partition *p; /* NULL: gone meanwhile */
    bool busy;
    cnk_context context;
    cnk_fetch fetch;
    cnk_fetch_part part;
} cnk_group_load;

static void send(cnk_shard *from, cnk_shard *to, chronik_post *post);
static void run_at_owner(chronik_post *post);
static void call_done(cnk_coord_call *call);
static void run_at_home(chronik_post *post);
static void run_cancel(chronik_post *post);
static void run_cancel_home(chronik_post *post);
static void over(cnk_group_call *op);
static void ids_fill(const cnk_shard *shard, cnk_coord_call *call);
static void offsets_sift(const cnk_shard *shard, cnk_coord_call *call);
static int on_read(void *arg, int64_t offset, uint32_t bytes);
static void on_notice(void *arg, int code, const char *text);
static void on_fetched(cnk_fetch *op);
static void run_fetched(chronik_post *post);

/* ---- the caller's shard ----------------------------------------------------------------------------------------- */

int cnk_broker_group(cnk_shard *shard, cnk_group_call *op) {
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    const cnk_meta_topic *topic =
        cnk_meta_topic_by_name(shard->image, CNK_COORD_GROUPS_TOPIC, sizeof CNK_COORD_GROUPS_TOPIC - 1);
    op->shard = shard;
    op->home = op->canceling = false;
    cnk_list_init(&op->node);
    cnk_list_init(&op->call.node);
    cnk_arena_init(&op->call.arena, 1024, 0);
    op->call.done = call_done;
    op->call.arg = op;
    op->call.error = CHRONIK_ENOTCOORDINATOR;
    if (topic == NULL || op->partition >= topic->partition_count) return CNK_DONE;
    if (op->call.kind == CNK_COORD_OFFSET_FETCH && !op->call.all_topics) ids_fill(shard, &op->call);
    int32_t number =
        op->partition >= 0 ? op->partition : cnk_coord_partition_of(op->call.group, topic->partition_count);
    op->stream = topic->partitions[number].stream;
    op->post.run = run_at_owner;
    cnk_list_push_back(&shard->group_calls, &op->node); /* bounded: one request for each connection */
    send(shard, cnk_shard_owner(shard->broker, op->stream), &op->post);
    return CNK_PENDING;
}

void cnk_broker_group_cancel(cnk_group_call *op) {
    if (op->home || op->canceling || !cnk_list_linked(&op->node)) return;
    op->canceling = true;
    op->cancel_post.run = run_cancel;
    send(op->shard, cnk_shard_owner(op->shard->broker, op->stream), &op->cancel_post);
}

void cnk_broker_group_end(cnk_group_call *op) { cnk_arena_free(&op->call.arena); }

int32_t cnk_broker_group_partitions(cnk_shard *shard) {
    const cnk_meta_topic *topic =
        cnk_meta_topic_by_name(shard->image, CNK_COORD_GROUPS_TOPIC, sizeof CNK_COORD_GROUPS_TOPIC - 1);
    return topic ? topic->partition_count : 0;
}

static void run_at_home(chronik_post *post) {
    cnk_group_call *op = CNK_CONTAINER(post, cnk_group_call, post);
    op->home = true;
    if (!op->canceling) over(op);
}

static void run_cancel_home(chronik_post *post) {
    cnk_group_call *op = CNK_CONTAINER(post, cnk_group_call, cancel_post);
    op->canceling = false;
    if (op->home) over(op);
}

static void over(cnk_group_call *op) {
    cnk_list_remove(&op->node);
    if (op->call.kind == CNK_COORD_OFFSET_FETCH && op->call.all_topics && op->call.error == 0)
        offsets_sift(op->shard, &op->call);
    op->done(op);
}

static void ids_fill(const cnk_shard *shard, cnk_coord_call *call) {
    for (size_t i = 0; i < call->topic_count; i++) {
        cnk_coord_topic *t = &call->topics[i];
        if (!cnk_uuid_is_zero(&t->id) || BROKER_BUG(RESUME)) continue;
        const cnk_meta_topic *now = cnk_meta_topic_by_name(shard->image, t->name.p, t->name.len);
        if (now) t->id = now->id;
    }
}

/* Of all that a group has: topics that are there get their ids, and keep what is theirs. */
static void offsets_sift(const cnk_shard *shard, cnk_coord_call *call) {
    size_t topics = 0;
    ids_fill(shard, call);
    for (size_t i = 0; i < call->topic_count; i++) {
        cnk_coord_topic *t = &call->topics[i];
        size_t offsets = 0;
        for (size_t n = 0; n < t->offset_count; n++)
            if (!cnk_coord_other_topic(&t->id, &t->offsets[n].topic_id)) t->offsets[offsets++] = t->offsets[n];
        t->offset_count = offsets;
        if (offsets > 0) call->topics[topics++] = *t;
    }
    call->topic_count = topics;
}

static void send(cnk_shard *from, cnk_shard *to, chronik_post *post) {
    if (from == to)
        to->loop->ops->defer(to->loop->self, post);
    else
        to->loop->ops->post(to->loop->self, post);
}

/* ---- the coordinator's shard ------------------------------------------------------------------------------------ */

static void run_at_owner(chronik_post *post) {
    cnk_group_call *op = CNK_CONTAINER(post, cnk_group_call, post);
    cnk_partition *p = cnk_shard_partition(cnk_shard_owner(op->shard->broker, op->stream), op->stream);
    if (p && p->coord)
        cnk_coord_call_start(p->coord, &op->call);
    else
        call_done(&op->call); /* ENOTCOORDINATOR still */
}

static void call_done(cnk_coord_call *call) {
    cnk_group_call *op = call->arg;
    op->post.run = run_at_home;
    send(cnk_shard_owner(op->shard->broker, op->stream), op->shard, &op->post);
}

static void run_cancel(chronik_post *post) {
    cnk_group_call *op = CNK_CONTAINER(post, cnk_group_call, cancel_post);
    cnk_coord_call_cancel(&op->call);
    op->cancel_post.run = run_cancel_home;
    send(cnk_shard_owner(op->shard->broker, op->stream), op->shard, &op->cancel_post);
}

int cnk_group_begin(cnk_partition *p) {
    if (!p->groups || p->coord) return 0;
    cnk_group_load *load = p->load ? p->load : cnk_calloc(1, sizeof *load);
    if (load == NULL) return CHRONIK_ENOMEM;
    p->load = load;
    load->shard = p->shard;
    load->p = p;
    load->post.run = run_fetched;
    cnk_coord_host host = {on_read, on_notice, load};
    int rc = cnk_coord_new(p->shard->coord_shard, p->replica, &host, &p->coord);
    if (rc != 0) return rc;
    cnk_list_push_back(&p->shard->coords, &p->coord_node);
    if (p->coord_state) cnk_coord_restore(p->coord, p->coord_state, p->coord_state_len);
    p->coord_state = NULL;
    return 0;
}

int cnk_group_snapshot(void *partition, cnk_writer *out) {
    const cnk_partition *p = partition;
    if (p->coord) return cnk_coord_snapshot(p->coord, out);
    if (p->coord_state) cnk_write_bytes(out, p->coord_state, p->coord_state_len); /* not begun yet */
    return out->error;
}

int cnk_group_restore(void *partition, const uint8_t *state, size_t len, uint64_t applied_index) {
    cnk_partition *p = partition;
    (void)applied_index;
    if (!p->groups) return 0;
    p->coord_state = cnk_memdup(state, len);
    p->coord_state_len = len;
    return p->coord_state ? 0 : CHRONIK_ENOMEM;
}

void cnk_group_free(cnk_partition *p) {
    cnk_group_load *load = p->load;
    cnk_list_remove(&p->coord_node);
    cnk_coord_free(p->coord);
    cnk_free(p->coord_state);
    p->coord = NULL;
    p->coord_state = NULL;
    p->load = NULL;
    if (load == NULL) return;
    load->p = NULL;
    if (load->busy && !load->shard->closing)
        cnk_broker_fetch_cancel(&load->fetch); /* frees it in the end */
    else
        cnk_free(load);
}

void cnk_groups_stop(cnk_shard *shard) {
    CNK_LIST_EACH(node, &shard->coords) cnk_coord_resign(CNK_CONTAINER(node, cnk_partition, coord_node)->coord);
}

void cnk_groups_writable(cnk_shard *shard) {
    CNK_LIST_EACH(node, &shard->coords) cnk_coord_writable(CNK_CONTAINER(node, cnk_partition, coord_node)->coord);
}

void cnk_group_topic_removed(cnk_shard *shard, const cnk_meta_topic *topic) {
    cnk_text name = {topic->name, topic->name_len};
    if (shard->stopping || shard->fenced) return;
    CNK_LIST_EACH(node, &shard->coords)
    cnk_coord_topic_deleted(CNK_CONTAINER(node, cnk_partition, coord_node)->coord, name, &topic->id);
}

/* ---- reading for a coordinator ---------------------------------------------------------------------------------- */

static int on_read(void *arg, int64_t offset, uint32_t bytes) {
    cnk_group_load *load = arg;
    CNK_ASSERT(!load->busy);
    load->part = (cnk_fetch_part){
        .topic_id = load->p->topic_id, .partition = load->p->number, .leader_epoch = -1, .offset = offset, .bytes_max = bytes};
    load->fetch = (cnk_fetch){.context = &load->context,
                              .bytes_max = bytes,
                              .parts = &load->part,
                              .part_count = 1,
                              .done = on_fetched,
                              .arg = load};
    int rc = cnk_broker_fetch(load->shard, &load->fetch);
    if (rc < 0) return rc;
    load->busy = true;
    load->shard->group_loads++;
    if (rc == CNK_DONE) send(load->shard, load->shard, &load->post);
    return 0;
}

static void on_notice(void *arg, int code, const char *text) {
    cnk_group_load *load = arg;
    cnk_shard_notice(load->shard, code, "partition %d of %s: %s", (int)load->p->number, CNK_COORD_GROUPS_TOPIC, text);
}

static void on_fetched(cnk_fetch *op) { run_fetched(&((cnk_group_load *)op->arg)->post); }

static void run_fetched(chronik_post *post) {
    cnk_group_load *load = CNK_CONTAINER(post, cnk_group_load, post);
    const cnk_fetch_part *part = &load->part;
    if (load->p) cnk_coord_read_done(load->p->coord, part->error, part->slices, part->slice_count);
    cnk_broker_fetch_end(&load->fetch);
    load->busy = false;
    cnk_shard *shard = load->shard;
    shard->group_loads--;
    if (load->p)
        cnk_coord_load_next(load->p->coord);
    else
        cnk_free(load);
    cnk_broker_stop_check(shard);
}
