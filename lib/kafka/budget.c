/* Budgets: see budget.h. */
#include "kafka/budget.h"

#include "base/assert.h"

void cnk_kafka_budget_init(cnk_kafka_budget *b, uint64_t limit) {
    *b = (cnk_kafka_budget){.limit = limit};
    cnk_list_init(&b->waiters);
}

static bool fits(const cnk_kafka_budget *b, uint64_t bytes) { return bytes <= b->limit - cnk_counter_get(&b->used); }

bool cnk_kafka_budget_take(cnk_kafka_budget *b, cnk_kafka_waiter *w) {
    CNK_ASSERT(w->want <= b->limit);
    if (cnk_list_empty(&b->waiters) && fits(b, w->want)) {
        cnk_counter_add(&b->used, w->want);
        return true;
    }
    cnk_counter_add(&b->waits, 1);
    cnk_list_push_back(&b->waiters, &w->node);
    return false;
}

static void grant(cnk_kafka_budget *b) {
    while (!cnk_list_empty(&b->waiters)) {
        cnk_kafka_waiter *w = CNK_CONTAINER(b->waiters.next, cnk_kafka_waiter, node);
        if (!fits(b, w->want)) return;
        cnk_list_remove(&w->node);
        cnk_counter_add(&b->used, w->want);
        w->granted(w);
    }
}

void cnk_kafka_budget_cancel(cnk_kafka_budget *b, cnk_kafka_waiter *w) {
    if (!cnk_list_linked(&w->node)) return;
    cnk_list_remove(&w->node);
    grant(b); /* the first in the queue may have been the largest */
}

void cnk_kafka_budget_give(cnk_kafka_budget *b, uint64_t bytes) {
    CNK_ASSERT(bytes <= cnk_counter_get(&b->used));
    cnk_counter_sub(&b->used, bytes);
    grant(b);
}
