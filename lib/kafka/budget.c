/* Budgets: see budget.h. */
#include "kafka/budget.h"

#include "base/assert.h"

void cnk_kafka_budget_init(cnk_kafka_budget *b, uint64_t limit) {
    b->limit = limit;
    b->used = 0;
    cnk_list_init(&b->waiters);
}

bool cnk_kafka_budget_take(cnk_kafka_budget *b, cnk_kafka_waiter *w) {
    CNK_ASSERT(w->want <= b->limit);
    if (cnk_list_empty(&b->waiters) && w->want <= b->limit - b->used) {
        b->used += w->want;
        return true;
    }
    cnk_list_push_back(&b->waiters, &w->node);
    return false;
}

static void grant(cnk_kafka_budget *b) {
    while (!cnk_list_empty(&b->waiters)) {
        cnk_kafka_waiter *w = CNK_CONTAINER(b->waiters.next, cnk_kafka_waiter, node);
        if (w->want > b->limit - b->used) return;
        cnk_list_remove(&w->node);
        b->used += w->want;
        w->granted(w);
    }
}

void cnk_kafka_budget_cancel(cnk_kafka_budget *b, cnk_kafka_waiter *w) {
    if (!cnk_list_linked(&w->node)) return;
    cnk_list_remove(&w->node);
    grant(b); /* the first in the queue may have been the largest */
}

void cnk_kafka_budget_give(cnk_kafka_budget *b, uint64_t bytes) {
    CNK_ASSERT(bytes <= b->used);
    b->used -= bytes;
    grant(b);
}
