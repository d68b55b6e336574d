/* Producer ids: each shard hands them out from a durable block; an empty block is refilled through shard 0.
 *
 * A block is committed before its first id is used, so an id is never given twice; what a shard has not used at a stop
 * is lost, which is harmless.
 *
 * Owner: the shard's thread. */
#include "base/assert.h"
#include "broker/internal.h"

static bool give(cnk_init_producer *op);
static void ask(cnk_shard *shard);
static void run_on_first(chronik_post *post);
static void run_answer(chronik_post *post);

int cnk_broker_init_producer(cnk_shard *shard, cnk_init_producer *op) {
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    op->shard = shard;
    op->error = 0;
    op->ret_producer_id = -1;
    op->ret_producer_epoch = -1;
    cnk_list_init(&op->node);
    if (op->transactional_id.p) {
        op->error = CHRONIK_ETXNIDAUTH;
        return CNK_DONE;
    }
    if (give(op)) return CNK_DONE;
    cnk_list_push_back(&shard->producers_waiting, &op->node); /* bounded: one for each connection */
    ask(shard);
    return CNK_PENDING;
}

void cnk_broker_init_producer_cancel(cnk_init_producer *op) {
    if (!cnk_list_linked(&op->node)) return;
    cnk_list_remove(&op->node);
    op->error = CHRONIK_ECANCELED;
    op->done(op);
}

void cnk_producers_stop(cnk_shard *shard) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->producers_waiting)) != NULL;) {
        cnk_init_producer *op = CNK_CONTAINER(node, cnk_init_producer, node);
        op->error = CHRONIK_ESHUTDOWN;
        op->done(op);
    }
}

static bool give(cnk_init_producer *op) {
    cnk_shard *shard = op->shard;
    if (shard->producer_next >= shard->producer_end) return false;
    op->ret_producer_id = shard->producer_next++;
    op->ret_producer_epoch = 0;
    return true;
}

static void ask(cnk_shard *shard) {
    cnk_shard *first = &shard->broker->shards[0];
    if (shard->producers_asked) return;
    shard->producers_asked = true;
    shard->producers_post.run = run_on_first;
    cnk_shard_post(shard, first, &shard->producers_post);
}

static void run_on_first(chronik_post *post) {
    cnk_shard *shard = CNK_CONTAINER(post, cnk_shard, producers_post);
    shard->producers_post.run = run_answer;
    cnk_publisher_producer_block(shard);
}

static void run_answer(chronik_post *post) {
    cnk_shard *shard = CNK_CONTAINER(post, cnk_shard, producers_post);
    int code = shard->producers_code;
    shard->producers_asked = false;
    if (code == 0) {
        shard->producer_next = shard->producers_from;
        shard->producer_end = shard->producers_from + CNK_META_PRODUCER_BLOCK;
    }
    while (!cnk_list_empty(&shard->producers_waiting)) {
        cnk_init_producer *op = CNK_CONTAINER(shard->producers_waiting.next, cnk_init_producer, node);
        if (code == 0 && !give(op)) {
            ask(shard);
            return;
        }
        cnk_list_remove(&op->node);
        op->error = code;
        op->done(op);
    }
}
