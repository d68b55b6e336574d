/* Memory that is reserved before it is taken: a limit, and a FIFO of those who wait (T5). One shard's. */
#ifndef CNK_KAFKA_BUDGET_H
#define CNK_KAFKA_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/metric.h"

typedef struct cnk_kafka_budget {
    uint64_t limit;
    cnk_counter used, waits; /* any thread may read; waits: how often somebody had to */
    cnk_list waiters;
} cnk_kafka_budget;

typedef struct cnk_kafka_waiter {
    cnk_list node; /* linked while it waits */
    uint64_t want;
    void (*granted)(struct cnk_kafka_waiter *w); /* the reservation is made */
} cnk_kafka_waiter;

void cnk_kafka_budget_init(cnk_kafka_budget *b, uint64_t limit);
/* True: reserved. False: `w` waits for w->want bytes (at most the limit) and is told. Nobody overtakes who waits. */
bool cnk_kafka_budget_take(cnk_kafka_budget *b, cnk_kafka_waiter *w);
void cnk_kafka_budget_cancel(cnk_kafka_budget *b, cnk_kafka_waiter *w); /* stops waiting; fine if it does not */
void cnk_kafka_budget_give(cnk_kafka_budget *b, uint64_t bytes);

#endif
