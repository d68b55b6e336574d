/* Fetch on the caller's shard: asks the owners, waits, cuts, reads what is cold, answers. See fetch.h for the messages.
 *
 *    COLLECTING ──all replied──► enough? ──no──► WAITING ──wake──► COLLECTING (the group that woke)
 *                                   │ yes, error, deadline, cancel
 *                                   ▼
 *                      cut to max_bytes ──cold──► READING ──► DONE ──_end──► RELEASING ──► freed
 *                                              old format └──► CONVERTING ──┘
 *
 * What is read from files is capped for the shard: a fetch that does not get room waits in order, and answers empty at its
 * deadline.
 *
 * Owner: the caller's shard. */
#include "broker/fetch.h"

#include "base/assert.h"
#include "base/mem.h"
#include "codec/codec.h"

#ifdef CNK_TEST_HOOKS
enum cnk_broker_bug cnk_broker_bug;
#endif

static int run_new(cnk_shard *shard, cnk_fetch *op, cnk_fetch_run **ret_run);
static void run_free(cnk_fetch_run *run);
static int assign(cnk_fetch_run *run);
static int add_want(cnk_fetch_group *g, cnk_fetch_part *part, uint64_t stream);
static void collect(cnk_fetch_run *run, cnk_fetch_group *g);
static void collect_all(cnk_fetch_run *run);
static void advance(cnk_fetch_run *run);
static bool enough(const cnk_fetch_run *run);
static void finish(cnk_fetch_run *run);
static bool cut(cnk_fetch_run *run);
static uint64_t conversion_room(const cnk_fetch_run *run);
static uint64_t cut_part(cnk_fetch_run *run, cnk_fetch_part *part, uint64_t left, bool must);
static uint32_t trim_hot(cnk_fetch_group *g, cnk_fetch_want *w, uint32_t limit);
static bool cold_begin(cnk_fetch_run *run);
static void complete(cnk_fetch_run *run);
static void end(cnk_fetch_run *run);
static void give_answers(cnk_fetch_run *run);
static void release(cnk_fetch_run *run);
static void cold_return(cnk_fetch_run *run);
static void on_deadline(cnk_deadline *deadline);

int cnk_broker_fetch(cnk_shard *shard, cnk_fetch *op) {
    cnk_fetch_run *run = NULL;
    op->run = NULL;
    op->bytes = 0;
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    if (op->part_count > CNK_FETCH_PARTS_MAX) return CHRONIK_ETOOLARGE;
    int rc = run_new(shard, op, &run);
    if (rc != 0) return rc;
    rc = assign(run);
    if (rc == 0) {
        uint64_t wait_ns = op->max_wait_ms > 0 ? (uint64_t)op->max_wait_ms * 1000000u : 0;
        run->expired = wait_ns == 0;
        uint64_t now = cnk_shard_now_ns(shard);
        run->begun_ns = op->context && op->context->begun_ns ? op->context->begun_ns : now;
        if (wait_ns > 0) rc = cnk_shard_deadline_set(shard, &run->deadline, now + wait_ns);
    }
    if (rc != 0) {
        run_free(run);
        return rc;
    }
    op->shard = shard;
    op->run = run;
    run->starting = true;
    collect_all(run);
    advance(run);
    run->starting = false;
    return run->done ? CNK_DONE : CNK_PENDING;
}

void cnk_broker_fetch_cancel(cnk_fetch *op) {
    cnk_fetch_run *run = op->run;
    if (run == NULL || run->done) return;
    run->canceled = true;
    advance(run);
}

void cnk_broker_fetch_hurry(cnk_fetch *op) {
    cnk_fetch_run *run = op->run;
    if (run == NULL || run->done || run->finishing) return;
    run->expired = true;
    advance(run);
}

void cnk_broker_fetch_end(cnk_fetch *op) {
    cnk_fetch_run *run = op->run;
    if (run == NULL) return;
    CNK_ASSERT(run->done);
    op->run = NULL;
    run->op = NULL;
    release(run);
}

/* Every fetch that waits is answered with what there is. */
void cnk_fetch_stop(cnk_shard *shard) {
    for (cnk_list *node = shard->fetches.next, *next; node != &shard->fetches; node = next) {
        cnk_fetch_run *run = CNK_CONTAINER(node, cnk_fetch_run, node);
        next = node->next;
        run->expired = true;
        if (!run->done && !cnk_list_linked(&run->cold_node)) cnk_shard_deadline_clear(shard, &run->deadline);
    }
    /* `done` may start and end others: begin again from the start until none is left. */
    for (bool again = true; again;) {
        again = false;
        CNK_LIST_EACH(it, &shard->fetches) {
            cnk_fetch_run *run = CNK_CONTAINER(it, cnk_fetch_run, node);
            bool waits = run->waiting && run->collecting == 0; /* else it ends when it has collected */
            if (!run->done && (waits || cnk_list_linked(&run->cold_node))) {
                advance(run);
                again = true;
                break;
            }
        }
    }
}

/* The loops are at rest: runs that were given back and whose owners' answers are still on the way. */
void cnk_fetch_close(cnk_shard *shard) {
    CNK_LIST_EACH(node, &shard->fetches) {
        cnk_fetch_run *run = CNK_CONTAINER(node, cnk_fetch_run, node);
        if (run->op == NULL) run_free(run);
    }
}

void cnk_fetch_flush(cnk_shard *shard) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->fetches_woken)) != NULL;)
        cnk_fetch_wake(&CNK_CONTAINER(node, cnk_fetch_group, woken_node)->wake_post);
}

/* ---- life of a run ---------------------------------------------------------------------------------------------- */

static int run_new(cnk_shard *shard, cnk_fetch *op, cnk_fetch_run **ret_run) {
    cnk_fetch_run *run = cnk_calloc(1, sizeof *run);
    if (run) run->groups = cnk_calloc(shard->broker->shard_count, sizeof *run->groups);
    if (run == NULL || run->groups == NULL) {
        cnk_free(run);
        return CHRONIK_ENOMEM;
    }
    run->home = shard;
    run->op = op;
    run->group_count = shard->broker->shard_count;
    run->deadline.fire = on_deadline;
    for (size_t i = 0; i < run->group_count; i++) {
        cnk_fetch_group *g = &run->groups[i];
        g->run = run;
        g->home = shard;
        g->owner = &shard->broker->shards[i];
        g->bytes_max = op->bytes_max;
        g->read_committed = op->read_committed;
        cnk_list_init(&g->woken_node);
    }
    cnk_list_init(&run->cold_node);
    cnk_list_push_back(&shard->fetches, &run->node);
    *ret_run = run;
    return 0;
}

static void run_free(cnk_fetch_run *run) {
    cnk_shard_deadline_clear(run->home, &run->deadline);
    for (size_t i = 0; i < run->group_count; i++) {
        cnk_fetch_group *g = &run->groups[i];
        cnk_list_remove(&g->woken_node);
        cnk_free(g->wants);
        cnk_free(g->slices);
        cnk_free(g->slabs);
        cnk_free(g->pieces);
    }
    cnk_fetch_convert_free(run);
    cnk_list_remove(&run->cold_node);
    cnk_list_remove(&run->node);
    cnk_free(run->groups);
    cnk_free(run);
}

#define NO_GROUP UINT32_MAX

static int assign(cnk_fetch_run *run) {
    cnk_fetch *op = run->op;
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_fetch_part *part = &op->parts[i];
        const cnk_meta_topic *topic = NULL;
        part->error = 0;
        part->high_watermark = part->last_stable_offset = part->log_start_offset = -1;
        part->leader_id = part->leader_epoch_now = -1;
        part->slices = NULL;
        part->slice_count = part->aborted_count = 0;
        part->aborted = NULL;
        part->bytes = 0;
        part->group = NO_GROUP;
        const cnk_meta_partition *mp =
            cnk_partition_find(run->home->image, part->topic, &part->topic_id, part->partition, &topic, &part->error);
        if (mp != NULL && op->no_zstd && topic->settings.codec == CNK_CODEC_ZSTD) {
            part->error = CHRONIK_EUNSUPPORTEDCODEC;
            mp = NULL;
        }
        if (mp == NULL) {
            run->part_error = true;
            continue;
        }
        part->group = (uint32_t)cnk_replica_shard_of(mp->stream, run->group_count);
        int rc = add_want(&run->groups[part->group], part, mp->stream);
        if (rc != 0) return rc;
    }
    /* Now the arrays of wants stay where they are. */
    for (size_t g = 0; g < run->group_count; g++)
        for (size_t i = 0; i < run->groups[g].want_count; i++) {
            cnk_list_init(&run->groups[g].wants[i].armed);
            cnk_list_init(&run->groups[g].wants[i].cold_node);
        }
    return 0;
}

static int add_want(cnk_fetch_group *g, cnk_fetch_part *part, uint64_t stream) {
    if (cnk_array_reserve((void **)&g->wants, &g->want_capacity, g->want_count + 1, sizeof *g->wants) != 0)
        return CHRONIK_ENOMEM;
    part->slot = (uint32_t)g->want_count;
    g->wants[g->want_count++] = (cnk_fetch_want){.stream = stream,
                                                 .offset = part->offset,
                                                 .bytes_max = part->bytes_max,
                                                 .leader_epoch = part->leader_epoch,
                                                 .group = g};
    return 0;
}

/* ---- collecting and waiting ------------------------------------------------------------------------------------- */

static void collect(cnk_fetch_run *run, cnk_fetch_group *g) {
    run->collecting++;
    g->busy = true;
    g->again = false;
    g->collect_post.run = cnk_fetch_collect;
    cnk_shard_post(run->home, g->owner, &g->collect_post);
}

static void collect_all(cnk_fetch_run *run) {
    run->collecting++; /* nobody advances before the last one is asked */
    for (size_t i = 0; i < run->group_count; i++)
        if (run->groups[i].want_count > 0) collect(run, &run->groups[i]);
    run->collecting--;
}

void cnk_fetch_collected(chronik_post *post) {
    cnk_fetch_group *g = CNK_CONTAINER(post, cnk_fetch_group, collect_post);
    cnk_fetch_run *run = g->run;
    run->collecting--;
    g->busy = false;
    if (run->collecting == 0 && !run->starting) advance(run);
}

/* A WAKE may come when the run has gone on: then it says nothing new. One that comes while the run is not waiting yet, since
 * others have not answered, or before the group's own answer, is kept: nobody sends it again. */
void cnk_fetch_wake(chronik_post *post) {
    cnk_fetch_group *g = CNK_CONTAINER(post, cnk_fetch_group, wake_post);
    atomic_fetch_add_explicit(&g->wakes_seen, 1, memory_order_relaxed);
    g->again = g->busy || !BROKER_BUG(LOSE_WAKE);
    if (g->run->waiting && !g->run->done && !g->busy) collect(g->run, g);
}

/* false: nobody was woken while all were asked. */
static bool collect_woken(cnk_fetch_run *run) {
    bool any = false;
    run->collecting++; /* as above */
    for (size_t i = 0; i < run->group_count; i++) {
        if (!run->groups[i].again) continue;
        any = true;
        collect(run, &run->groups[i]);
    }
    run->collecting--;
    return any;
}

static void on_deadline(cnk_deadline *deadline) {
    cnk_fetch_run *run = CNK_CONTAINER(deadline, cnk_fetch_run, deadline);
    run->expired = true;
    advance(run);
}

static void advance(cnk_fetch_run *run) {
    if (run->collecting > 0 || run->jobs > 0 || run->done) return;
    if (cnk_list_linked(&run->cold_node)) { /* waits for room for its cold reads */
        if (!run->canceled && !run->expired) return;
        complete(run);
        return;
    }
    while (!run->finishing && !run->canceled && !run->expired && !enough(run)) {
        if (!run->waiting) cnk_counter_add(&run->home->stats.waiting_fetches, 1);
        run->waiting = true;
        if (!collect_woken(run) || run->collecting > 0) return;
    }
    finish(run);
}

static bool enough(const cnk_fetch_run *run) {
    uint64_t bytes = 0;
    if (run->part_error || (run->op->part_count == 0 && !run->op->watching)) return true;
    for (size_t i = 0; i < run->group_count; i++) {
        if (run->groups[i].any_error) return true;
        bytes += run->groups[i].bytes;
    }
    return bytes >= run->op->min_bytes;
}

static void finish(cnk_fetch_run *run) {
    if (run->waiting) cnk_counter_sub(&run->home->stats.waiting_fetches, 1);
    run->waiting = false;
    run->finishing = true;
    if (!run->canceled) {
        if (!cold_begin(run)) return;
        if (run->jobs > 0) return;
    }
    complete(run);
}

/* ---- cutting to max_bytes (KIP-74) ------------------------------------------------------------------------------- */

/* In the order of the request, from `first` on; the first partition that has data is served whatever its size. Of what is
 * cold only so much that its memory is soon used again: pages that are new cost more than the read; but old clients, whose limits
 * are exact, could be left without a batch for ever. True: some of it is cold. */
static bool cut(cnk_fetch_run *run) {
    cnk_fetch *op = run->op;
    uint64_t left = op->bytes_max;
    uint32_t cold_left = op->exact_max ? UINT32_MAX : run->home->broker->options.fetch_cold_answer_max;
    bool must = !op->exact_max, cold = false, skipped = false;
    op->next = op->first + 1;
    run->skipped_bytes = 0;
    for (size_t n = 0; n < op->part_count; n++) {
        cnk_fetch_part *part = &op->parts[(op->first + n) % op->part_count];
        if (part->group == NO_GROUP) continue;
        cnk_fetch_want *w = &run->groups[part->group].wants[part->slot];
        w->allotted = 0;
        if (w->error != 0 || w->hot_bytes + w->cold_bytes == 0) continue;
        bool hot = w->hot_bytes > 0;
        uint32_t wanted = w->cold_bytes < w->bytes_max ? w->cold_bytes : w->bytes_max;
        bool waits = !hot && cold && wanted > cold_left;
        uint64_t room = hot || left < cold_left ? left : cold_left;
        uint64_t used = waits ? 0 : cut_part(run, part, room, must);
        must = must && used == 0;
        left -= used < left ? used : left;
        if (!hot) cold_left -= used < cold_left ? (uint32_t)used : cold_left;
        cold |= w->allotted > 0;
        if (used == 0 && !hot) run->skipped_bytes += wanted;
        if (used == 0 && n > 0 && !skipped) {
            op->next = op->first + n;
            skipped = true;
        }
    }
    return cold;
}

/* Room for a conversion of what was found. */
static uint64_t conversion_room(const cnk_fetch_run *run) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < run->group_count; i++) bytes += run->groups[i].bytes;
    return run->op->format != CNK_FETCH_AS_STORED && bytes > 0 ? CNK_FETCH_CONVERTED_BYTES : 0;
}

static uint64_t cut_part(cnk_fetch_run *run, cnk_fetch_part *part, uint64_t left, bool must) {
    cnk_fetch_group *g = &run->groups[part->group];
    cnk_fetch_want *w = &g->wants[part->slot];
    uint32_t limit = w->bytes_max < left ? w->bytes_max : (uint32_t)left;
    if (w->hot_bytes > 0) {
        if (w->first_bytes > limit) limit = must ? w->first_bytes : 0;
        return trim_hot(g, w, limit);
    }
    if (!w->from_tier && w->first_bytes > limit) limit = must ? w->first_bytes : 0;
    if (limit == 0 && must) limit = 1;
    w->one_always = must;
    w->allotted = w->cold_bytes < limit ? w->cold_bytes : limit;
    return w->allotted;
}

/* Keeps whole batches up to the limit; their lengths stand in their headers. */
static uint32_t trim_hot(cnk_fetch_group *g, cnk_fetch_want *w, uint32_t limit) {
    uint32_t kept = 0;
    if (w->hot_bytes <= limit) return w->hot_bytes;
    for (size_t i = 0; i < w->slice_count; i++) {
        struct iovec *slice = &g->slices[w->slice_first + i];
        size_t at = 0;
        while (at < slice->iov_len) {
            uint32_t bytes = 12u + cnk_load_be32((const uint8_t *)slice->iov_base + at + 8);
            CNK_ASSERT(bytes <= slice->iov_len - at); /* validated when it was appended */
            if (kept + bytes > limit) {
                slice->iov_len = at;
                w->slice_count = i + (at > 0);
                w->hot_bytes = kept;
                return kept;
            }
            kept += bytes;
            at += bytes;
        }
    }
    return kept;
}

/* ---- cold reads ------------------------------------------------------------------------------------------------- */

/* Cuts, and begins to read what is cold of that. False: waits for room. */
static bool cold_begin(cnk_fetch_run *run) {
    cnk_shard *shard = run->home;
    bool cold = cut(run);
    uint64_t conversion = conversion_room(run);
    if (!cold && conversion == 0) return true;
    if (!cnk_cold_room(shard, conversion + cnk_cold_need(run))) {
        if (shard->broker->options.crowded) shard->broker->options.crowded(shard->broker->options.hook_arg, shard);
        if (!run->expired) {
            cnk_counter_add(&shard->stats.cold_refused, 1);
            cnk_list_push_back(&shard->cold_waiting, &run->cold_node);
            return false;
        }
        for (size_t g = 0; g < run->group_count; g++) /* what is hot goes out, the rest is asked for again */
            for (size_t i = 0; i < run->groups[g].want_count; i++) run->groups[g].wants[i].allotted = 0;
        return true;
    }
    run->cold = true;
    run->reserved = conversion;
    cnk_cold_reserve(shard, conversion);
    cnk_cold_start(run);
    return true;
}

void cnk_fetch_cold_finished(cnk_fetch_run *run) {
    if (--run->jobs > 0) return;
    bool moved = false;
    for (size_t g = 0; g < run->group_count; g++)
        for (size_t i = 0; i < run->groups[g].want_count; i++)
            moved |= run->groups[g].wants[i].allotted > 0 && run->groups[g].wants[i].cold_code == CHRONIK_ENOTFOUND;
    if (moved && !run->retried && !run->canceled) {
        run->retried = true;
        cold_return(run);
        collect_all(run);
        if (run->collecting > 0) return;
        advance(run);
        return;
    }
    complete(run);
}

static void cold_return(cnk_fetch_run *run) {
    if (!run->cold) return;
    run->cold = false;
    cnk_cold_unreserve(run->home, run->reserved);
    run->reserved = 0;
    for (size_t g = 0; g < run->group_count; g++)
        for (size_t i = 0; i < run->groups[g].want_count; i++) cnk_cold_give_back(&run->groups[g].wants[i]);
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static void complete(cnk_fetch_run *run) {
    cnk_list_remove(&run->cold_node);
    cnk_shard_deadline_clear(run->home, &run->deadline);
    give_answers(run);
    if (run->op->format == CNK_FETCH_AS_STORED || !cnk_fetch_convert_begin(run)) end(run);
}

void cnk_fetch_converted(cnk_fetch_run *run) {
    run->jobs--;
    end(run);
}

static void end(cnk_fetch_run *run) {
    run->op->ended_ns = cnk_shard_now_ns(run->home);
    cnk_latency_add(&run->home->stats.fetch_latency, run->op->ended_ns - run->begun_ns);
    run->done = true;
    if (!run->starting) run->op->done(run->op);
}

static void give_answers(cnk_fetch_run *run) {
    cnk_fetch *op = run->op;
    cnk_counter_add(&run->home->stats.fetch_parts, op->part_count);
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_fetch_part *part = &op->parts[i];
        if (part->group == NO_GROUP) continue;
        cnk_fetch_group *g = &run->groups[part->group];
        cnk_fetch_want *w = &g->wants[part->slot];
        w->given = 0;
        part->error = run->canceled ? CHRONIK_ECANCELED : w->error;
        part->leader_id = w->leader_id;
        part->leader_epoch_now = w->leader_epoch_now;
        if (part->error == 0 && w->allotted > 0 && w->cold_code != 0 && w->cold_code != CHRONIK_ENOTFOUND)
            part->error = w->cold_code == CHRONIK_ENOMEM ? CHRONIK_ENOMEM : CHRONIK_ESTORAGE;
        if (part->error != 0) continue;
        part->high_watermark = w->high_watermark;
        part->last_stable_offset = w->last_stable;
        part->log_start_offset = w->log_start;
        if (w->hot_bytes > 0) {
            part->slices = &g->slices[w->slice_first];
            part->slice_count = w->slice_count;
            part->bytes = w->slice_count ? w->hot_bytes : 0;
        } else if (w->allotted > 0) {
            part->slices = w->cold_slices;
            part->slice_count = w->cold_slice_count;
            part->bytes = w->cold_len;
        }
        w->given = part->bytes;
        op->bytes += part->bytes;
    }
    cnk_counter_add(&run->home->stats.fetch_bytes, op->bytes);
}

static void release(cnk_fetch_run *run) {
    cnk_shard *shard = run->home;
    cnk_fetch_convert_free(run);
    cold_return(run);
    run->releasing = 1;
    for (size_t i = 0; i < run->group_count; i++) {
        cnk_fetch_group *g = &run->groups[i];
        if (g->want_count == 0) continue;
        run->releasing++;
        g->release_post.run = cnk_fetch_release;
        cnk_shard_post(shard, g->owner, &g->release_post);
    }
    bool empty = --run->releasing == 0;
    if (empty) run_free(run);
    cnk_fetch_admit(shard);
}

void cnk_fetch_admit(cnk_shard *shard) {
    while (!cnk_list_empty(&shard->cold_waiting)) {
        cnk_fetch_run *next = CNK_CONTAINER(shard->cold_waiting.next, cnk_fetch_run, cold_node);
        cnk_list_remove(&next->cold_node);
        if (!cold_begin(next)) { /* at the end of the list again: it was the first */
            cnk_list_remove(&next->cold_node);
            cnk_list_push_front(&shard->cold_waiting, &next->cold_node);
            return;
        }
        if (next->jobs == 0) complete(next); /* `done` may end it, and come here again */
    }
}

void cnk_fetch_released(chronik_post *post) {
    cnk_fetch_run *run = CNK_CONTAINER(post, cnk_fetch_group, release_post)->run;
    if (--run->releasing == 0) run_free(run);
}
