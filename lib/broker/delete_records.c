/* DeleteRecords (KIP-107): moves a partition's start, answered when that is durable.
 *
 *   caller's shard ── part ──► owner: cuts the log, notes the port's count of rows ── once durable ──► caller's shard
 *
 * A part waits on its owner's `cutting` list, in the order of the cuts, so of their rows. The cut holds for readers at
 * once; a crash before it is durable takes it back, and nobody has been told of it.
 *
 * Owner: each part's current shard, by message. */
#include "base/assert.h"
#include "broker/internal.h"

static void run_at_owner(chronik_post *post);
static int cut(cnk_shard *shard, cnk_partition *p, cnk_delete_records_part *part);
static void answer(cnk_shard *owner, cnk_delete_records_part *part, int error);
static void run_at_home(chronik_post *post);

int cnk_broker_delete_records(cnk_shard *shard, cnk_delete_records *op) {
    static const cnk_uuid no_id = {{0}};
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    op->shard = shard;
    op->open_parts = op->part_count;
    op->starting = true;
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_delete_records_part *part = &op->parts[i];
        const cnk_meta_topic *topic = NULL;
        part->op = op;
        part->error = 0;
        part->low_watermark = -1;
        cnk_list_init(&part->node);
        cnk_text name = part->topic.p ? part->topic : (cnk_text){"", 0};
        const cnk_meta_partition *mp =
            cnk_partition_find(shard->image, name, &no_id, part->partition, &topic, &part->error);
        if (mp && topic->internal) part->error = CHRONIK_EINVALIDTOPIC;
        if (mp && part->error == 0 && !topic->settings.delete_) part->error = CHRONIK_EPOLICY;
        if (part->error != 0) {
            op->open_parts--;
            continue;
        }
        part->stream = mp->stream;
        part->post.run = run_at_owner;
        cnk_shard_post(shard, cnk_shard_owner(shard->broker, part->stream), &part->post);
    }
    op->starting = false;
    return op->open_parts == 0 ? CNK_DONE : CNK_PENDING;
}

/* Rows of the port are durable in order. */
void cnk_delete_records_durable(cnk_shard *shard) {
    if (cnk_list_empty(&shard->cutting)) return;
    const uint64_t durable = cnk_wal_port_durable(cnk_shard_port(shard));
    while (!cnk_list_empty(&shard->cutting)) {
        cnk_delete_records_part *part = CNK_CONTAINER(shard->cutting.next, cnk_delete_records_part, node);
        if (part->rows > durable) return;
        cnk_list_remove(&part->node);
        answer(shard, part, 0);
    }
}

void cnk_delete_records_fail(cnk_shard *shard, int code) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->cutting)) != NULL;)
        answer(shard, CNK_CONTAINER(node, cnk_delete_records_part, node), code);
}

static void run_at_owner(chronik_post *post) {
    cnk_delete_records_part *part = CNK_CONTAINER(post, cnk_delete_records_part, post);
    cnk_shard *shard = cnk_shard_owner(part->op->shard->broker, part->stream);
    cnk_partition *p = cnk_shard_partition(shard, part->stream);
    int error = 0;
    if (p == NULL || p->gone)
        error = CHRONIK_EUNKNOWNTOPIC;
    else if (p->replica == NULL || shard->fenced)
        error = CHRONIK_ESTORAGE;
    else if (cnk_replica_role_of(p->replica) != CNK_ROLE_LEADER)
        error = CHRONIK_ENOTLEADER;
    else
        error = cut(shard, p, part);
    if (error != 0)
        answer(shard, part, error);
    else if (part->rows <= cnk_wal_port_durable(cnk_shard_port(shard)))
        answer(shard, part, 0);
    else
        cnk_list_push_back(&shard->cutting, &part->node);
}

static int cut(cnk_shard *shard, cnk_partition *p, cnk_delete_records_part *part) {
    const cnk_log *log = cnk_replica_log(p->replica);
    (void)shard;
    const int64_t offset = part->offset == CNK_DELETE_TO_HIGH_WATERMARK ? cnk_log_high_watermark(log) : part->offset;
    const int rc = cnk_replica_trim(p->replica, offset, &part->rows);
    part->low_watermark = cnk_log_start(log);
    if (rc == 0) cnk_fetch_moved(p); /* who waits below the start has to hear of it */
    return rc == CHRONIK_EFENCED || rc == CHRONIK_ENOSPC || rc == CHRONIK_ECORRUPT ? CHRONIK_ESTORAGE : rc;
}

static void answer(cnk_shard *owner, cnk_delete_records_part *part, int error) {
    part->error = error;
    if (error != 0) part->low_watermark = -1;
    part->post.run = run_at_home;
    const chronik_loop *home = part->op->shard->loop; /* always by message: `done` never comes from inside anything */
    if (owner == part->op->shard)
        home->ops->defer(home->self, &part->post);
    else
        home->ops->post(home->self, &part->post);
}

static void run_at_home(chronik_post *post) {
    cnk_delete_records *op = CNK_CONTAINER(post, cnk_delete_records_part, post)->op;
    CNK_ASSERT(!op->starting);
    if (--op->open_parts == 0) op->done(op);
}
