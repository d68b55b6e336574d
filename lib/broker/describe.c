/* Describing partitions: each part is answered by the shard that owns it, from memory.
 *
 * Owner: each part's current shard, by message. */
#include "base/mem.h"
#include "broker/internal.h"

static void run_at_owner(chronik_post *post);
static void run_at_home(chronik_post *post);

int cnk_broker_describe(cnk_shard *shard, cnk_describe *op) {
    static const cnk_uuid no_id = {{0}};
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    op->shard = shard;
    op->open_parts = op->part_count;
    op->starting = true;
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_describe_part *part = &op->parts[i];
        const cnk_meta_topic *topic = NULL;
        part->op = op;
        part->error = 0;
        part->bytes = 0;
        part->producers = NULL;
        part->producer_count = 0;
        cnk_text name = part->topic.p ? part->topic : (cnk_text){"", 0};
        const cnk_meta_partition *mp =
            cnk_partition_find(shard->image, name, &no_id, part->partition, &topic, &part->error);
        if (mp == NULL) {
            op->open_parts--;
            continue;
        }
        part->stream = mp->stream;
        part->post.run = run_at_owner;
        cnk_shard *owner = cnk_shard_owner(shard->broker, part->stream);
        if (owner == shard) /* at once, but `done` never comes from inside the starting call */
            run_at_owner(&part->post);
        else
            cnk_shard_post(shard, owner, &part->post);
    }
    op->starting = false;
    return op->open_parts == 0 ? CNK_DONE : CNK_PENDING;
}

void cnk_broker_describe_end(cnk_describe *op) {
    for (size_t i = 0; i < op->part_count; i++) cnk_free((void *)(uintptr_t)op->parts[i].producers);
}

void cnk_broker_quorum(cnk_shard *shard, cnk_quorum *ret_quorum) {
    const cnk_broker *broker = shard->broker;
    const int32_t epoch = cnk_publisher_epoch(broker->publisher);
    ret_quorum->leader = epoch < 0 ? -1 : broker->options.node_id;
    ret_quorum->epoch = epoch;
    ret_quorum->commit_index = shard->image->version;
    ret_quorum->directory = &broker->options.directory_id;
}

static void run_at_owner(chronik_post *post) {
    cnk_describe_part *part = CNK_CONTAINER(post, cnk_describe_part, post);
    cnk_shard *shard = cnk_shard_owner(part->op->shard->broker, part->stream);
    const cnk_partition *p = cnk_shard_partition(shard, part->stream);
    if (p == NULL || p->gone)
        part->error = CHRONIK_EUNKNOWNTOPIC;
    else if (p->replica == NULL)
        part->error = CHRONIK_ESTORAGE;
    else {
        const cnk_log *log = cnk_replica_log(p->replica);
        part->bytes = cnk_log_bytes(log);
        if (part->op->producers)
            part->error =
                cnk_log_producers_list(log, (cnk_log_producer **)(uintptr_t)&part->producers, &part->producer_count);
    }
    part->post.run = run_at_home;
    cnk_shard_post(shard, part->op->shard, &part->post);
}

static void run_at_home(chronik_post *post) {
    cnk_describe *op = CNK_CONTAINER(post, cnk_describe_part, post)->op;
    if (--op->open_parts == 0 && !op->starting) op->done(op);
}
