/* A shard's timers: a pairing heap whose nodes lie in their owners, over one timer of the loop.
 *
 * The loop's timer is set only when the earliest moves ahead; a timer that was cleared makes it fire once for nothing.
 * Owner: the shard's thread. */
#include "base/assert.h"
#include "coord/machine.h"

static cnk_coord_timer *meld(cnk_coord_timer *a, cnk_coord_timer *b) {
    if (a == NULL) return b;
    if (b == NULL) return a;
    if (b->at_ns < a->at_ns) {
        cnk_coord_timer *t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (b->next) b->next->prev = b;
    a->child = b;
    a->next = a->prev = NULL;
    return a;
}

/* Pairs from left to right, then melds them from right to left, without recursion. */
static cnk_coord_timer *meld_children(cnk_coord_timer *first) {
    cnk_coord_timer *pairs = NULL, *all = NULL;
    while (first) {
        cnk_coord_timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b) b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs; /* a stack; prev is not used here */
        pairs = a;
    }
    while (pairs) {
        cnk_coord_timer *a = pairs;
        pairs = a->next;
        a->next = NULL;
        all = meld(all, a);
    }
    return all;
}

static void take_out(cnk_coord_shard *shard, cnk_coord_timer *timer) {
    cnk_coord_timer *below = meld_children(timer->child);
    if (timer == shard->root) {
        shard->root = below;
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next) timer->next->prev = timer->prev;
        shard->root = meld(shard->root, below);
    }
    timer->child = timer->next = timer->prev = NULL;
    timer->set = false;
}

static void update(cnk_coord_shard *shard) {
    uint64_t at = shard->root ? shard->root->at_ns : UINT64_MAX;
    if (shard->firing || at >= shard->timer_at) return;
    shard->timer_at = at;
    shard->loop->ops->timer_set(shard->loop->self, shard->timer, at);
}

void cnk_coord_timer_set(cnk_coord_shard *shard, cnk_coord_timer *timer, uint64_t at_ns) {
    CNK_ASSERT(timer->fire != NULL);
    if (timer->set) take_out(shard, timer);
    timer->at_ns = at_ns;
    timer->set = true;
    shard->root = meld(shard->root, timer);
    update(shard);
}

void cnk_coord_timer_clear(cnk_coord_shard *shard, cnk_coord_timer *timer) {
    if (timer->set) take_out(shard, timer);
}

void cnk_coord_timers_fire(void *arg) {
    cnk_coord_shard *shard = arg;
    uint64_t now = shard->loop->ops->now_ns(shard->loop->self);
    shard->timer_at = UINT64_MAX;
    shard->firing = true;
    while (shard->root && shard->root->at_ns <= now) {
        cnk_coord_timer *timer = shard->root;
        take_out(shard, timer);
        timer->fire(timer);
    }
    shard->firing = false;
    update(shard);
}
