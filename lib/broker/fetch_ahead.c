/* Reading ahead of those who read old data from front to back, as a new consumer does: while the answer is on its way, what
 * they will ask for next is read already. Without it the disk rests while the client works, and the client while the disk does.
 *
 *   a fetch has read cold data up to an offset ─► NOTED (that offset)
 *        a fetch begins there: it is sequential; what follows its answer ─► READING ─► READY
 *             a fetch begins there: takes what is READY, or waits for what is READING; and so on
 *   what nobody asks for goes after CNK_AHEAD_KEEP_MS
 *
 * It says nothing about what a reader may see: that is decided when he asks, and what was read ahead is given only where it
 * begins at his offset, fits, and ends before what he may see. Nothing is read ahead that would take place from others: where
 * the bytes are used up, nobody is read ahead for until some are given back.
 *
 * Owner: the shard of the connection. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/fetch.h"

typedef struct cnk_ahead {
    cnk_list node; /* in home->aheads, oldest first */
    cnk_shard *home;
    uint64_t stream;
    int64_t offset;
    uint64_t at_ns;
    enum { NOTED, READING, READY } state;
    uint64_t bytes;         /* taken from the limit */
    cnk_fetch_want *waiter; /* READING */
    file_piece *pieces;
    cnk_cold_read read;
} cnk_ahead;

static void done(chronik_job *job);
static void expire(cnk_deadline *deadline);

/* Two that differ may have the same key: then the second is not noted. */
static uint64_t key_of(uint64_t stream, int64_t offset) {
    return stream * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)offset;
}

static cnk_ahead *find(cnk_shard *home, uint64_t stream, int64_t offset) {
    cnk_ahead *a = cnk_map_get(&home->aheads_by_place, key_of(stream, offset));
    return a && a->stream == stream && a->offset == offset ? a : NULL;
}

static void drop(cnk_ahead *a) {
    cnk_shard *home = a->home;
    cnk_list_remove(&a->node);
    cnk_map_remove(&home->aheads_by_place, key_of(a->stream, a->offset));
    home->ahead_count--;
    home->ahead_bytes -= a->bytes;
    cnk_counter_sub(&home->stats.cold_bytes, a->bytes);
    cnk_rope_release(&a->read.rope);
    if (a->bytes > 0) cnk_fetch_pool_trim_later(home);
    cnk_free(a->pieces);
    cnk_free(a);
}

static void expire_later(cnk_shard *home, uint64_t at_ns) {
    if (home->aheads_expire.slot != 0) return;
    home->aheads_expire.fire = expire;
    (void)cnk_shard_deadline_set(home, &home->aheads_expire, at_ns); /* without memory: with the next one */
}

static void expire(cnk_deadline *deadline) {
    cnk_shard *home = CNK_CONTAINER(deadline, cnk_shard, aheads_expire);
    const uint64_t keep_ns = CNK_AHEAD_KEEP_MS * UINT64_C(1000000);
    uint64_t now = cnk_shard_now_ns(home);
    for (cnk_list *node = home->aheads.next, *next; node != &home->aheads; node = next) {
        cnk_ahead *a = CNK_CONTAINER(node, cnk_ahead, node);
        next = node->next;
        if (a->at_ns + keep_ns > now) break;
        if (a->state != READING) drop(a);
    }
    if (!cnk_list_empty(&home->aheads)) expire_later(home, now + keep_ns);
}

/* Room in the table: the oldest that is not being read goes. */
static bool make_room(cnk_shard *home) {
    if (home->ahead_count < CNK_AHEAD_MAX) return true;
    CNK_LIST_EACH(node, &home->aheads) {
        cnk_ahead *a = CNK_CONTAINER(node, cnk_ahead, node);
        if (a->state == READING) continue;
        drop(a);
        return true;
    }
    return false;
}

static cnk_ahead *note(cnk_shard *home, uint64_t stream, int64_t offset) {
    uint64_t key = key_of(stream, offset);
    if (cnk_map_get(&home->aheads_by_place, key) || !make_room(home)) return NULL;
    cnk_ahead *a = cnk_calloc(1, sizeof *a);
    if (!a || cnk_map_put(&home->aheads_by_place, key, a) != 0) {
        cnk_free(a);
        return NULL;
    }
    a->home = home;
    a->stream = stream;
    a->offset = offset;
    a->at_ns = cnk_shard_now_ns(home);
    a->read.rope = (cnk_rope)CNK_ROPE_INIT(home->read_pool);
    cnk_list_push_back(&home->aheads, &a->node);
    home->ahead_count++;
    expire_later(home, a->at_ns + CNK_AHEAD_KEEP_MS * UINT64_C(1000000));
    return a;
}

/* The pieces behind what the want has read, as far as they fit; a copy, for the group's go with its fetch. */
static size_t pieces_behind(const cnk_fetch_want *w, uint32_t limit, file_piece **ret_pieces) {
    const file_piece *pieces = &w->group->pieces[w->piece_first];
    size_t all = w->piece_count + w->behind_count, first = 0, count = 0;
    uint64_t bytes = 0;
    while (first < all && pieces[first].end_offset <= w->read.next) first++;
    while (first + count < all && bytes + pieces[first + count].bytes <= limit) bytes += pieces[first + count++].bytes;
    *ret_pieces = count > 0 ? cnk_memdup(pieces + first, count * sizeof *pieces) : NULL;
    return *ret_pieces ? count : 0;
}

void cnk_ahead_follow(const cnk_fetch_want *w) {
    cnk_shard *home = w->group->home;
    uint32_t limit = w->bytes_max < w->group->bytes_max ? w->bytes_max : w->group->bytes_max;
    if (home->stopping || w->read.code != 0 || w->read.rope.len == 0 || w->read.next >= w->end) return;
    cnk_ahead *a = note(home, w->stream, w->read.next);
    if (!a || !w->sequential || home->ahead_bytes + limit > home->broker->options.fetch_ahead_bytes_max) return;
    size_t count = w->from_tier ? 0 : pieces_behind(w, limit, &a->pieces);
    if (!w->from_tier && count == 0) return;
    a->read.broker = home->broker;
    a->read.stream = w->stream;
    a->read.offset = w->read.next;
    a->read.end = w->end;
    a->read.pieces = a->pieces;
    a->read.piece_count = count;
    a->read.bytes_max = limit;
    a->bytes = limit;
    a->state = READING;
    home->ahead_bytes += limit;
    home->aheads_reading++;
    cnk_counter_add(&home->stats.cold_bytes, limit);
    cnk_cold_read_start(&a->read, home->loop, done);
}

/* Gives what was read to the want, where it is what the want would read itself. */
static bool give(cnk_ahead *a, cnk_fetch_want *w) {
    const cnk_cold_read *r = &a->read;
    bool good = r->code == 0 && r->rope.len > 0 && r->rope.len <= w->allotted && r->next <= w->end;
    if (good) {
        cnk_rope empty = w->read.rope;
        w->read.rope = a->read.rope;
        w->read.next = r->next;
        w->read.code = 0;
        a->read.rope = empty;
        cnk_counter_add(&a->home->stats.fetch_ahead_bytes, w->read.rope.len);
    }
    drop(a);
    return good;
}

cnk_ahead_answer cnk_ahead_take(cnk_fetch_want *w) {
    cnk_ahead *a = find(w->group->home, w->stream, w->offset);
    w->sequential = a != NULL;
    if (!a || (a->state == READING && a->waiter)) return CNK_AHEAD_NONE;
    if (a->state == READING) {
        a->waiter = w;
        return CNK_AHEAD_COMES;
    }
    if (a->state == NOTED) {
        drop(a);
        return CNK_AHEAD_NONE;
    }
    if (!give(a, w)) return CNK_AHEAD_NONE;
    cnk_counter_add(&w->group->home->stats.fetch_cold_bytes, w->read.rope.len);
    cnk_ahead_follow(w);
    return CNK_AHEAD_TAKEN;
}

static void done(chronik_job *job) {
    cnk_ahead *a = CNK_CONTAINER(job, cnk_ahead, read.job);
    cnk_shard *home = a->home;
    cnk_fetch_want *w = a->waiter;
    a->state = READY;
    home->aheads_reading--;
    if (w && give(a, w))
        cnk_fetch_cold_finished(w->group->run, w);
    else if (w)
        cnk_fetch_cold_want(w);
    else if (home->stopping)
        drop(a);
    cnk_broker_stop_check(home);
}

void cnk_ahead_stop(cnk_shard *home) {
    for (cnk_list *node = home->aheads.next, *next; node != &home->aheads; node = next) {
        next = node->next;
        if (CNK_CONTAINER(node, cnk_ahead, node)->state != READING) drop(CNK_CONTAINER(node, cnk_ahead, node));
    }
}

/* The loops are at rest: so are the jobs. */
void cnk_ahead_close(cnk_shard *home) {
    while (!cnk_list_empty(&home->aheads)) drop(CNK_CONTAINER(home->aheads.next, cnk_ahead, node));
    cnk_map_free(&home->aheads_by_place);
}
