/* Fetch on the shard that owns the partitions: finds data, lends references to it, arms waiters. See fetch.h.
 *
 * Slices of batches that lie side by side in memory are merged. References to slabs are taken here and dropped here;
 * the bytes they pin are capped for the shard (T5): over the cap, what is in memory is read from its file like cold
 * data.
 *
 * Owner: the partition's shard. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/fetch.h"

static void clear(cnk_fetch_group *g);
static void collect_want(cnk_fetch_group *g, cnk_fetch_want *w);
static int check_want(const cnk_shard *shard, cnk_partition *p, cnk_fetch_want *w);
static int gather(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log *log);
static int add_hot(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log_piece *piece);
static int add_file(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log_piece *piece);
static void look_behind(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log *log, int64_t offset, uint32_t limit);
static void disarm(cnk_fetch_group *g);

void cnk_fetch_collect(chronik_post *post) {
    cnk_fetch_group *g = CNK_CONTAINER(post, cnk_fetch_group, collect_post);
    clear(g);
    for (size_t i = 0; i < g->want_count; i++) {
        cnk_fetch_want *w = &g->wants[i];
        collect_want(g, w);
        g->any_error |= w->error != 0;
        g->bytes += (uint64_t)w->hot_bytes + w->cold_bytes;
    }
    post->run = cnk_fetch_collected;
    cnk_shard_post(g->owner, g->home, post);
}

void cnk_fetch_release(chronik_post *post) {
    cnk_fetch_group *g = CNK_CONTAINER(post, cnk_fetch_group, release_post);
    for (size_t i = 0; i < g->want_count; i++) {
        cnk_partition *p = g->wants[i].given > 0 ? cnk_shard_partition(g->owner, g->wants[i].stream) : NULL;
        if (p) cnk_counter_add(&p->leader->bytes_out, g->wants[i].given);
    }
    clear(g);
    post->run = cnk_fetch_released;
    cnk_shard_post(g->owner, g->home, post);
}

/* New data, or the partition is gone: whoever waits asks again, once. */
void cnk_fetch_moved(cnk_partition *p) {
    for (cnk_list *node; (node = cnk_list_pop_front(&p->fetchers)) != NULL;) {
        cnk_fetch_group *g = CNK_CONTAINER(node, cnk_fetch_want, armed)->group;
        if (g->woken) continue;
        g->woken = true;
        g->wakes_sent++;
        if (g->owner == g->home) {
            cnk_list_push_back(&g->home->fetches_woken, &g->woken_node);
            cnk_shard_flush(g->home);
        } else {
            g->wake_post.run = cnk_fetch_wake;
            g->home->loop->ops->post(g->home->loop->self, &g->wake_post);
        }
    }
    cnk_watch_moved(p);
}

static void clear(cnk_fetch_group *g) {
    disarm(g);
    for (size_t i = 0; i < g->slab_count; i++) cnk_wal_slab_unref(g->slabs[i]);
    g->owner->pinned_bytes -= g->pinned;
    cnk_counter_sub(&g->owner->stats.pinned_bytes, g->pinned);
    g->slab_count = g->slice_count = g->piece_count = 0;
    g->pinned = g->bytes = 0;
    g->any_error = false;
    g->woken = g->wakes_sent != atomic_load_explicit(&g->wakes_seen, memory_order_relaxed);
}

static void disarm(cnk_fetch_group *g) {
    for (size_t i = 0; i < g->want_count; i++) cnk_list_remove(&g->wants[i].armed);
}

static void collect_want(cnk_fetch_group *g, cnk_fetch_want *w) {
    cnk_partition *p = cnk_shard_partition(g->owner, w->stream);
    w->high_watermark = w->last_stable = w->log_start = -1;
    w->leader_id = w->leader_epoch_now = -1;
    w->slice_first = g->slice_count;
    w->piece_first = g->piece_count;
    w->slice_count = w->piece_count = w->behind_count = 0;
    w->hot_bytes = w->cold_bytes = w->first_bytes = 0;
    w->from_tier = false;
    w->error = check_want(g->owner, p, w);
    if (w->error != 0) return;
    const cnk_log *log = cnk_replica_log(p->replica);
    w->high_watermark = cnk_log_high_watermark(log);
    w->last_stable = cnk_log_last_stable(log);
    w->log_start = cnk_log_start(log);
    w->end = g->read_committed ? w->last_stable : w->high_watermark;
    w->error = gather(g, w, log);
    cnk_list_push_back(&p->fetchers, &w->armed);
}

static int check_want(const cnk_shard *shard, cnk_partition *p, cnk_fetch_want *w) {
    if (p == NULL || p->gone) return CHRONIK_EUNKNOWNTOPIC;
    if (p->replica == NULL) return CHRONIK_ESTORAGE;
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    cnk_replica_role role = cnk_replica_role_of(p->replica);
    if (role != CNK_ROLE_LEADER && role != CNK_ROLE_ELECTED) return CHRONIK_ENOTLEADER;
    int64_t term = cnk_replica_term(p->replica);
    if (w->leader_epoch >= 0 && w->leader_epoch != term) {
        w->leader_id = cnk_replica_leader(p->replica);
        w->leader_epoch_now = (int32_t)term;
        return w->leader_epoch < term ? CHRONIK_EFENCEDEPOCH : CHRONIK_EUNKNOWNEPOCH;
    }
    const cnk_log *log = cnk_replica_log(p->replica);
    if (w->offset < cnk_log_start(log) ||
        w->offset > cnk_log_end(log)) /* R7: between the watermark and the end is fine */
        return CHRONIK_EOFFSETRANGE;
    return 0;
}

/* Small answers that nobody reads hold little, but much of the WAL's memory with it, and that is capped too. The last part of
 * both is given in small answers only: large ones that nobody takes do not send whoever reads at the end to the files. */
static bool is_over(const cnk_fetch_group *g, uint32_t more) {
    const cnk_broker_options *o = &g->owner->broker->options;
    uint64_t pinned_max = o->fetch_pinned_bytes_max, held_max = o->fetch_held_bytes_max;
    if (g->pinned + more > CNK_FETCH_SMALL_BYTES) {
        pinned_max -= pinned_max / CNK_FETCH_SMALL_PART;
        held_max -= held_max / CNK_FETCH_SMALL_PART;
    }
    return g->owner->pinned_bytes + more > pinned_max || cnk_wal_port_held_bytes(cnk_shard_port(g->owner)) >= held_max;
}

/* Hot data up to the first batch that is not in memory; or, where the first one is not, what lies in files; or a hint
 * of what the cold tier has. The first batch is taken whatever its size: the caller's shard decides about it. */
static int gather(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log *log) {
    uint32_t limit = w->bytes_max < g->bytes_max ? w->bytes_max : g->bytes_max;
    for (int64_t offset = w->offset;;) {
        cnk_log_piece piece;
        uint32_t taken = w->hot_bytes + w->cold_bytes;
        cnk_log_find(log, offset, w->end, limit, &piece);
        if (piece.where == CNK_LOG_NOWHERE || (taken > 0 && (taken >= limit || piece.bytes > limit - taken))) {
            if (w->piece_count > 0) look_behind(g, w, log, offset, limit);
            return 0;
        }
        if (piece.where == CNK_LOG_COLD) {
            if (taken == 0) {
                w->from_tier = true;
                w->cold_bytes = piece.bytes ? piece.bytes : 1;
                w->end = piece.end_offset;
            }
            return 0;
        }
        bool over = is_over(g, piece.bytes);
        bool hot = piece.where == CNK_LOG_HOT && !over && g->slice_count < CNK_FETCH_SLICES_MAX;
        if (piece.where == CNK_LOG_HOT && over) cnk_counter_add(&g->owner->stats.pinned_refused, 1);
        if (taken > 0 && hot != (w->hot_bytes > 0)) return 0;
        if (!hot && w->piece_count == CNK_FETCH_FILE_PIECES_MAX) return 0;
        int rc = hot ? add_hot(g, w, &piece) : add_file(g, w, &piece);
        if (rc != 0) return taken > 0 ? 0 : rc;
        if (taken == 0) w->first_bytes = piece.bytes;
        offset = piece.end_offset;
    }
}

static int add_hot(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log_piece *piece) {
    if (cnk_array_reserve((void **)&g->slices, &g->slice_capacity, g->slice_count + 1, sizeof *g->slices) != 0 ||
        cnk_array_reserve((void **)&g->slabs, &g->slab_capacity, g->slab_count + 1, sizeof *g->slabs) != 0)
        return CHRONIK_ENOMEM;
    struct iovec *last = w->slice_count > 0 ? &g->slices[g->slice_count - 1] : NULL;
    bool same_slab = g->slab_count > 0 && g->slabs[g->slab_count - 1] == piece->slab;
    if (last && same_slab && (const uint8_t *)last->iov_base + last->iov_len == piece->data) {
        last->iov_len += piece->bytes;
    } else {
        g->slices[g->slice_count++] = (struct iovec){(void *)(uintptr_t)piece->data, piece->bytes};
        w->slice_count++;
    }
    if (!same_slab) {
        cnk_wal_slab_ref(piece->slab);
        g->slabs[g->slab_count++] = piece->slab;
    }
    w->hot_bytes += piece->bytes;
    g->pinned += piece->bytes;
    g->owner->pinned_bytes += piece->bytes;
    cnk_counter_add(&g->owner->stats.pinned_bytes, piece->bytes);
    return 0;
}

static int add_file(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log_piece *piece) {
    if (cnk_array_reserve((void **)&g->pieces, &g->piece_capacity, g->piece_count + 1, sizeof *g->pieces) != 0)
        return CHRONIK_ENOMEM;
    g->pieces[g->piece_count++] =
        (file_piece){piece->file_pos, piece->end_offset, piece->file_seq, piece->bytes, piece->crc};
    w->piece_count++;
    w->cold_bytes += piece->bytes;
    return 0;
}

/* What a reader that goes on will ask for next, as far as it lies in WAL files alone. */
static void look_behind(cnk_fetch_group *g, cnk_fetch_want *w, const cnk_log *log, int64_t offset, uint32_t limit) {
    for (uint32_t taken = 0; taken < limit && w->behind_count < CNK_FETCH_FILE_PIECES_MAX;) {
        cnk_log_piece piece;
        cnk_log_find(log, offset, w->end, limit, &piece);
        if (piece.where != CNK_LOG_FILE || piece.bytes > limit - taken ||
            cnk_array_reserve((void **)&g->pieces, &g->piece_capacity, g->piece_count + 1, sizeof *g->pieces) != 0)
            return;
        g->pieces[g->piece_count++] =
            (file_piece){piece.file_pos, piece.end_offset, piece.file_seq, piece.bytes, piece.crc};
        w->behind_count++;
        taken += piece.bytes;
        offset = piece.end_offset;
    }
}
