/* Watches: who has read a partition to its end is told, once, when what it was told is no longer so.
 *
 *   watcher's shard                                    owner's shard
 *     IDLE ── arm ─────────── post ───────────────────► as it was told? in the partition's list : fires at once
 *     ARMED                                                    │ the partition has moved
 *     FIRED, in the watcher's list ◄── post ───────────────────┘
 *       │ at the flush: news, next
 *     IDLE
 *     ARMED ── disarm ─────── disarm_post ─────────────► out of the list ── disarm_post ──► off, IDLE
 *
 * While it is ARMED or DISARMING, `node` is the owner's. A watch that fires while it is being disarmed is not told: its
 * message comes before the other's (the order of messages is kept). Where both shards are the same there are no
 * messages, and disarming is done at once. */
#include "base/assert.h"
#include "broker/internal.h"

static void run_arm(chronik_post *post);
static bool as_told(const cnk_partition *p, const cnk_watch *w);
static void fire(cnk_watch *w);
static void run_fired(chronik_post *post);
static void run_disarm(chronik_post *post);
static void run_off(chronik_post *post);

void cnk_watcher_init(cnk_watcher *watcher, cnk_shard *shard, void (*news)(cnk_watcher *watcher),
                      void (*off)(cnk_watch *watch)) {
    *watcher = (cnk_watcher){.shard = shard, .news = news, .off = off};
    cnk_list_init(&watcher->fired);
    cnk_list_init(&watcher->node);
}

void cnk_watcher_close(cnk_watcher *watcher) {
    CNK_ASSERT(cnk_list_empty(&watcher->fired));
    cnk_list_remove(&watcher->node);
}

bool cnk_watch_arm(cnk_watcher *watcher, cnk_watch *w, cnk_text topic, const cnk_uuid *topic_id, int32_t partition,
                   int64_t high_watermark, int64_t log_start) {
    cnk_shard *shard = watcher->shard;
    const cnk_meta_topic *found = NULL;
    int error = 0;
    CNK_ASSERT(w->state == CNK_WATCH_IDLE);
    const cnk_meta_partition *mp = cnk_partition_find(shard->image, topic, topic_id, partition, &found, &error);
    if (mp == NULL) return false;
    w->watcher = watcher;
    w->owner = cnk_shard_owner(shard->broker, mp->stream);
    w->stream = mp->stream;
    w->high_watermark = high_watermark;
    w->log_start = log_start;
    w->state = CNK_WATCH_ARMED;
    w->post.run = run_arm;
    cnk_shard_post(shard, w->owner, &w->post);
    return true;
}

cnk_watch *cnk_watch_next(cnk_watcher *watcher) {
    cnk_list *node = cnk_list_pop_front(&watcher->fired);
    if (node == NULL) return NULL;
    cnk_watch *w = CNK_CONTAINER(node, cnk_watch, node);
    w->state = CNK_WATCH_IDLE;
    return w;
}

bool cnk_watch_disarm(cnk_watch *w) {
    if (w->state == CNK_WATCH_ARMED && w->owner != w->watcher->shard) {
        w->state = CNK_WATCH_DISARMING;
        w->disarm_post.run = run_disarm;
        cnk_shard_post(w->watcher->shard, w->owner, &w->disarm_post);
    }
    if (w->state == CNK_WATCH_DISARMING) return false;
    cnk_list_remove(&w->node);
    w->state = CNK_WATCH_IDLE;
    return true;
}

/* ---- on the owner ------------------------------------------------------------------------------------------------ */

static void run_arm(chronik_post *post) {
    cnk_watch *w = CNK_CONTAINER(post, cnk_watch, post);
    cnk_partition *p = cnk_shard_partition(w->owner, w->stream);
    if (p && (as_told(p, w) || BROKER_BUG(WATCH_BLIND))) cnk_list_push_back(&p->watches, &w->node);
    else fire(w);
}

static bool as_told(const cnk_partition *p, const cnk_watch *w) {
    if (p->gone || p->replica == NULL) return false;
    const cnk_log *log = cnk_replica_log(p->replica);
    const cnk_replica_role role = cnk_replica_role_of(p->replica);
    return (role == CNK_ROLE_LEADER || role == CNK_ROLE_ELECTED) && cnk_log_high_watermark(log) == w->high_watermark &&
           cnk_log_start(log) == w->log_start;
}

void cnk_watch_moved(cnk_partition *p) {
    for (cnk_list *node; (node = cnk_list_pop_front(&p->watches)) != NULL;) fire(CNK_CONTAINER(node, cnk_watch, node));
}

static void fire(cnk_watch *w) {
    w->post.run = run_fired;
    cnk_shard_post(w->owner, w->watcher->shard, &w->post);
}

static void run_disarm(chronik_post *post) {
    cnk_watch *w = CNK_CONTAINER(post, cnk_watch, disarm_post);
    cnk_list_remove(&w->node);
    w->disarm_post.run = run_off;
    cnk_shard_post(w->owner, w->watcher->shard, &w->disarm_post);
}

/* ---- back on the watcher's shard --------------------------------------------------------------------------------- */

static void run_fired(chronik_post *post) {
    cnk_watch *w = CNK_CONTAINER(post, cnk_watch, post);
    cnk_watcher *watcher = w->watcher;
    if (w->state == CNK_WATCH_DISARMING) return;
    w->state = CNK_WATCH_FIRED;
    cnk_list_push_back(&watcher->fired, &w->node);
    if (!cnk_list_linked(&watcher->node)) cnk_list_push_back(&watcher->shard->watchers_due, &watcher->node);
    cnk_shard_flush(watcher->shard);
}

static void run_off(chronik_post *post) {
    cnk_watch *w = CNK_CONTAINER(post, cnk_watch, disarm_post);
    w->state = CNK_WATCH_IDLE;
    w->watcher->off(w);
}

void cnk_watch_flush(cnk_shard *shard) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->watchers_due)) != NULL;) {
        cnk_watcher *watcher = CNK_CONTAINER(node, cnk_watcher, node);
        watcher->news(watcher);
    }
}
