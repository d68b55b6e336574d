/* Extents: what has been read of a partition from files, in one piece, for whoever asks for it.
 *
 *   a fetch finds none at its offset ──► READING ──► READY: it is answered from that, and so are others who come to it
 *        a fetch that begins where another one ended reads on: what follows its answer is read while it is on its way
 *   pinned by answers, waiting fetches and the job; unpinned, it stays while there is a reader behind its end
 *
 * Readers are known by the offsets from which they will go on. So a single reader's memory is used again at once, and where
 * several read the same they read it once, as long as the slower ones are no further behind than the limit allows.
 *
 * An extent says nothing about what a reader may see: that is decided when he asks. He is given whole batches that fit,
 * from the one that holds his offset on, and none that ends behind what he may see. Extents hold committed data only.
 *
 * All extents count against one limit. Those that are pinned keep their place; others give way to a fetch that wants to
 * read, the least recently used first. Nothing is read ahead that would take place from what is pinned or not used yet.
 *
 * While producers wait for the same disk (cnk_wal_busy) a shard begins no large read beside another, since a commit waits for
 * all that are under way: they wait in order, and where any waits one is under way, whose `done` begins the next.
 *
 * Owner: the shard of the connection; an extent's read its job's, until `done`. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/fetch.h"

typedef struct reader { /* someone will go on here */
    int64_t offset;
    uint64_t at_ns;
    uint32_t count;
} reader;

typedef struct cnk_cold_stream {
    cnk_list node; /* in home->cold_streams */
    uint64_t id;
    cnk_list extents;
    reader *readers;
    size_t reader_count, reader_capacity;
} cnk_cold_stream;

struct cnk_extent {
    cnk_list node;           /* in home->extents, the least recently used first */
    cnk_list of_stream;      /* in stream->extents */
    cnk_list wants;          /* who wait for it */
    cnk_list turn;           /* in home->reads_waiting */
    cnk_shard *home;
    cnk_cold_stream *stream; /* NULL: nobody finds it */
    cnk_fetch_want *asked_by; /* while it is read: who began it; NULL: it is read ahead */
    uint32_t pins;
    bool ready;
    bool ahead;     /* nobody has been given any of it */
    uint64_t at_ns; /* unpinned */
    uint64_t bytes; /* that count */
    file_piece *pieces; /* of what is read ahead */
    cnk_cold_read read;
};

static bool want_begin(cnk_fetch_want *w);
static void want_end(cnk_fetch_want *w, int code);
static void done(chronik_job *job);
static void expire(cnk_deadline *deadline);

/* ---- streams and their readers ---------------------------------------------------------------------------------- */

static cnk_cold_stream *stream_get(const cnk_shard *home, uint64_t id) { return cnk_map_get(&home->cold_stream_of, id); }

static cnk_cold_stream *stream_make(cnk_shard *home, uint64_t id) {
    cnk_cold_stream *s = stream_get(home, id);
    if (s || home->cold_stream_of.count >= CNK_COLD_STREAMS_MAX) return s;
    s = cnk_calloc(1, sizeof *s);
    if (!s || cnk_map_put(&home->cold_stream_of, id, s) != 0) {
        cnk_free(s);
        return NULL;
    }
    s->id = id;
    cnk_list_init(&s->extents);
    cnk_list_push_back(&home->cold_streams, &s->node);
    return s;
}

static void stream_drop_empty(cnk_shard *home, cnk_cold_stream *s) {
    if (s->reader_count > 0 || !cnk_list_empty(&s->extents)) return;
    cnk_list_remove(&s->node);
    cnk_map_remove(&home->cold_stream_of, s->id);
    cnk_free(s->readers);
    cnk_free(s);
}

static reader *reader_at(cnk_cold_stream *s, int64_t offset) {
    for (size_t i = 0; i < s->reader_count; i++)
        if (s->readers[i].offset == offset) return &s->readers[i];
    return NULL;
}

/* One of those who were to go on at the offset does; false: there is none. */
static bool reader_leave(cnk_cold_stream *s, int64_t offset) {
    reader *r = s ? reader_at(s, offset) : NULL;
    if (r && --r->count == 0) *r = s->readers[--s->reader_count];
    return r != NULL;
}

static void expire_later(cnk_shard *home) {
    if (home->cold_expire.slot != 0 || home->stopping) return;
    home->cold_expire.fire = expire; /* without memory: with the next one */
    (void)cnk_shard_deadline_set(home, &home->cold_expire, cnk_shard_now_ns(home) + CNK_COLD_KEEP_MS * UINT64_C(1000000));
}

/* Someone will go on at the offset. Without memory or room that is forgotten. */
static void reader_note(cnk_shard *home, uint64_t stream, int64_t offset) {
    cnk_cold_stream *s = stream_make(home, stream);
    reader *r = s ? reader_at(s, offset) : NULL;
    if (!s) return;
    if (!r && s->reader_count < CNK_COLD_READERS_MAX &&
        cnk_array_reserve((void **)&s->readers, &s->reader_capacity, s->reader_count + 1, sizeof *s->readers) == 0) {
        r = &s->readers[s->reader_count++];
        *r = (reader){.offset = offset};
    }
    if (r) {
        r->count++;
        r->at_ns = cnk_shard_now_ns(home);
        expire_later(home);
    }
    stream_drop_empty(home, s);
}

/* He was to go on at the offset, or begin there, and still is. */
static void reader_stay(cnk_shard *home, uint64_t stream, int64_t offset) {
    (void)reader_leave(stream_get(home, stream), offset);
    reader_note(home, stream, offset);
}

/* ---- the life of an extent -------------------------------------------------------------------------------------- */

static void count(cnk_extent *e, uint64_t bytes) {
    cnk_shard *home = e->home;
    uint64_t *const sums[] = {&home->cold_bytes, e->pins > 0 ? &home->cold_pinned : NULL, e->ahead ? &home->cold_ahead : NULL};
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++)
        if (sums[i]) *sums[i] = *sums[i] - e->bytes + bytes;
    cnk_counter_sub(&home->stats.cold_bytes, e->bytes);
    cnk_counter_add(&home->stats.cold_bytes, bytes);
    e->bytes = bytes;
}

static void drop(cnk_extent *e) {
    cnk_shard *home = e->home;
    CNK_ASSERT(e->pins == 0);
    count(e, 0);
    cnk_list_remove(&e->node);
    cnk_list_remove(&e->of_stream);
    if (e->stream) stream_drop_empty(home, e->stream);
    cnk_rope_release(&e->read.rope);
    cnk_shard_memory_freed(home);
    cnk_free(e->pieces);
    cnk_free(e);
}

static void pin(cnk_extent *e) {
    if (e->pins++ == 0) e->home->cold_pinned += e->bytes;
}

static bool is_wanted(const cnk_extent *e) {
    if (!e->stream || e->home->stopping || e->read.code != 0 || e->read.rope.len == 0) return false;
    for (size_t i = 0; i < e->stream->reader_count; i++)
        if (e->stream->readers[i].offset < e->read.next) return true;
    return false;
}

static void unpin(cnk_extent *e) {
    if (--e->pins > 0) return;
    e->home->cold_pinned -= e->bytes;
    e->at_ns = cnk_shard_now_ns(e->home);
    cnk_list_remove(&e->node);
    cnk_list_push_back(&e->home->extents, &e->node);
    expire_later(e->home);
    if (!is_wanted(e)) drop(e);
}

/* Drops what nobody holds until `bytes` more fit, the least recently used first; what is read ahead only where it may. */
static void evict(cnk_shard *home, uint64_t bytes, bool also_ahead) {
    CNK_LIST_EACH(node, &home->extents) {
        cnk_extent *e = CNK_CONTAINER(node, cnk_extent, node);
        if (home->cold_bytes + bytes <= home->broker->options.fetch_cold_bytes_max) return;
        if (e->pins == 0 && (also_ahead || !e->ahead)) drop(e);
    }
}

bool cnk_cold_room(cnk_shard *home, uint64_t bytes) {
    uint64_t limit = home->broker->options.fetch_cold_bytes_max;
    if (bytes > 0 && home->cold_pinned > 0 && home->cold_pinned + bytes > limit) return false;
    evict(home, bytes, true);
    return true;
}

void cnk_cold_reserve(cnk_shard *home, uint64_t bytes) {
    home->cold_bytes += bytes;
    home->cold_pinned += bytes;
    cnk_counter_add(&home->stats.cold_bytes, bytes);
}

void cnk_cold_unreserve(cnk_shard *home, uint64_t bytes) {
    home->cold_bytes -= bytes;
    home->cold_pinned -= bytes;
    cnk_counter_sub(&home->stats.cold_bytes, bytes);
}

static cnk_extent *extent_new(cnk_shard *home, uint64_t stream, bool ahead) {
    cnk_extent *e = cnk_calloc(1, sizeof *e);
    if (!e) return NULL;
    e->home = home;
    e->ahead = ahead;
    cnk_list_init(&e->wants);
    cnk_list_init(&e->of_stream);
    e->stream = stream_make(home, stream);
    if (e->stream) cnk_list_push_back(&e->stream->extents, &e->of_stream);
    cnk_list_push_back(&home->extents, &e->node);
    e->read = (cnk_cold_read){.broker = home->broker, .stream = stream, .rope = CNK_ROPE_INIT(home->read_pool)};
    return e;
}

static bool is_large(const cnk_extent *e) { return e->read.bytes_max > CNK_COLD_SMALL_BYTES; }

static void read_begin(cnk_extent *e) {
    if (is_large(e)) e->home->large_reads++;
    cnk_cold_read_start(&e->read, e->home->loop, done);
}

/* Begins those whose turn it is. */
static void reads_go_on(cnk_shard *home) {
    while (!cnk_list_empty(&home->reads_waiting) && (home->large_reads == 0 || !cnk_wal_busy(home->broker->wal)))
        read_begin(CNK_CONTAINER(cnk_list_pop_front(&home->reads_waiting), cnk_extent, turn));
}

static void extent_read(cnk_extent *e, uint32_t bytes_max) {
    e->read.bytes_max = bytes_max;
    pin(e); /* its job's */
    count(e, bytes_max);
    e->home->extents_reading++;
    if (!is_large(e)) {
        read_begin(e);
        return;
    }
    cnk_list_push_back(&e->home->reads_waiting, &e->turn);
    reads_go_on(e->home);
}

/* ---- giving ----------------------------------------------------------------------------------------------------- */

/* The place in the extent of the batch that holds the want's offset, and how many bytes from there fit; *ret_next: the
 * offset behind them. 0: none. */
static size_t find_batches(const cnk_extent *e, const cnk_fetch_want *w, cnk_slices *ret_from, int64_t *ret_next) {
    enum { HEAD = 27 }; /* up to lastOffsetDelta (KIP-98) */
    cnk_slices at = {e->read.rope.slices, 0, e->read.rope.len};
    size_t taken = 0;
    if (e->read.offset == w->offset) {
        *ret_from = at;
        *ret_next = e->read.next;
        if (at.left <= w->allotted && e->read.next <= w->end) return at.left;
    }
    while (at.left >= HEAD) {
        uint8_t head[HEAD];
        cnk_slices look = at;
        cnk_slices_copy(&look, head, HEAD);
        size_t len = 12u + (size_t)cnk_load_be32(head + 8);
        int64_t next = (int64_t)(cnk_load_be64(head) + cnk_load_be32(head + 23) + 1);
        CNK_ASSERT(len <= at.left); /* validated when it was appended, and its CRC was checked */
        if (next > w->offset) {
            bool fits = taken + len <= w->allotted || (taken == 0 && w->one_always);
            if (!fits || next > w->end) return taken;
            if (taken == 0) *ret_from = at;
            taken += len;
            *ret_next = next;
        }
        cnk_slices_copy(&at, NULL, len);
    }
    return taken;
}

/* Answers the want from the extent, and pins it for that; false: there is nothing in it for him. */
static bool give(cnk_extent *e, cnk_fetch_want *w) {
    cnk_slices from;
    if (e->read.code != 0 || e->read.rope.len == 0) return false;
    size_t len = find_batches(e, w, &from, &w->cold_next);
    if (len == 0) return false;
    if (len == e->read.rope.len) {
        w->cold_slices = e->read.rope.slices;
        w->cold_slice_count = e->read.rope.slice_count;
    } else {
        w->cold_slices = w->cold_cut = cnk_malloc(e->read.rope.slice_count * sizeof *w->cold_cut);
        if (!w->cold_cut) return false;
        w->cold_slice_count = cnk_slices_cut(&from, len, w->cold_cut);
    }
    pin(e);
    w->extent = e;
    w->cold_len = (uint32_t)len;
    if (e->ahead) {
        e->home->cold_ahead -= e->bytes;
        e->ahead = false;
    }
    cnk_counter_add(&e->home->stats.fetch_cold_bytes, len);
    if (e->asked_by != w) cnk_counter_add(&e->home->stats.fetch_ahead_bytes, len);
    return true;
}

void cnk_cold_give_back(cnk_fetch_want *w) {
    cnk_free(w->cold_cut);
    if (w->extent) unpin(w->extent);
    w->extent = NULL;
    w->cold_slices = w->cold_cut = NULL;
    w->cold_slice_count = w->cold_len = 0;
    w->cold_code = 0;
}

/* One that is small for what the want asks is left to those who ask for little. */
static cnk_extent *find(const cnk_fetch_want *w) {
    const cnk_cold_stream *s = stream_get(w->group->home, w->stream);
    if (!s) return NULL;
    CNK_LIST_EACH(node, &s->extents) {
        cnk_extent *e = CNK_CONTAINER(node, cnk_extent, of_stream);
        const cnk_cold_read *r = &e->read;
        if (!e->ready && r->offset == w->offset && r->bytes_max >= w->allotted / 2) return e;
        if (e->ready && r->code == 0 && r->offset <= w->offset && w->offset < r->next &&
            (r->rope.len >= w->allotted / 2 || r->next >= w->end))
            return e;
    }
    return NULL;
}

uint64_t cnk_cold_need(const cnk_fetch_run *run) {
    uint64_t bytes = 0;
    for (size_t g = 0; g < run->group_count; g++)
        for (size_t i = 0; i < run->groups[g].want_count; i++) {
            const cnk_fetch_want *w = &run->groups[g].wants[i];
            if (w->allotted > 0 && !find(w)) bytes += w->allotted;
        }
    return bytes;
}

/* ---- reading ahead ---------------------------------------------------------------------------------------------- */

/* The want's pieces from the offset on, as far as they fit; a copy, for the group's go with its fetch. */
static size_t pieces_from(const cnk_fetch_want *w, int64_t offset, uint32_t limit, file_piece **ret_pieces) {
    const file_piece *pieces = &w->group->pieces[w->piece_first];
    size_t all = w->piece_count + w->behind_count, first = 0, n = 0;
    uint64_t bytes = 0;
    while (first < all && pieces[first].end_offset <= offset) first++;
    while (first + n < all && bytes + pieces[first + n].bytes <= limit) bytes += pieces[first + n++].bytes;
    *ret_pieces = n > 0 ? cnk_memdup(pieces + first, n * sizeof *pieces) : NULL;
    return *ret_pieces ? n : 0;
}

static bool is_there(const cnk_shard *home, uint64_t stream, int64_t offset) {
    const cnk_cold_stream *s = stream_get(home, stream);
    if (!s) return false;
    CNK_LIST_EACH(node, &s->extents) {
        const cnk_extent *e = CNK_CONTAINER(node, cnk_extent, of_stream);
        if (e->read.offset == offset || (e->ready && e->read.offset < offset && offset < e->read.next)) return true;
    }
    return false;
}

/* What will be asked for next, of which there is no more than `bytes`; for each fetch no more than an answer may have. */
static void read_ahead(const cnk_fetch_want *w, int64_t offset, uint32_t bytes) {
    cnk_shard *home = w->group->home;
    cnk_fetch_run *run = w->group->run;
    const cnk_broker_options *o = &home->broker->options;
    uint32_t limit = w->bytes_max < w->group->bytes_max ? w->bytes_max : w->group->bytes_max;
    if (limit > o->fetch_cold_answer_max) limit = o->fetch_cold_answer_max;
    if (limit > bytes) limit = bytes;
    bool fits = limit <= run->ahead_left;
    run->ahead_left = fits ? run->ahead_left - limit : 0;
    if (!fits) return;
    if (home->cold_ahead + limit > o->fetch_ahead_bytes_max || is_there(home, w->stream, offset)) return;
    evict(home, limit, false);
    if (home->cold_bytes + limit > o->fetch_cold_bytes_max) return;
    file_piece *pieces = NULL;
    size_t n = w->from_tier ? 0 : pieces_from(w, offset, limit, &pieces);
    cnk_extent *e = w->from_tier || n > 0 ? extent_new(home, w->stream, true) : NULL;
    if (!e) {
        cnk_free(pieces);
        return;
    }
    e->pieces = pieces;
    e->read.pieces = pieces;
    e->read.piece_count = n;
    e->read.offset = offset;
    e->read.end = w->end;
    extent_read(e, limit);
}

/* ---- wants ------------------------------------------------------------------------------------------------------ */

/* True: it has its answer; else cnk_fetch_cold_finished comes. */
static bool want_begin(cnk_fetch_want *w) {
    cnk_shard *home = w->group->home;
    cnk_extent *e = find(w);
    if (e && e->ready && give(e, w)) {
        want_end(w, 0);
        return true;
    }
    if (!e || e->ready) {
        e = extent_new(home, w->stream, false);
        if (!e) {
            want_end(w, CHRONIK_ENOMEM);
            return true;
        }
        e->asked_by = w;
        e->read.offset = w->offset;
        e->read.end = w->end;
        e->read.pieces = w->from_tier ? NULL : &w->group->pieces[w->piece_first];
        e->read.piece_count = w->piece_count;
        e->read.one_always = w->one_always;
        extent_read(e, w->allotted);
    }
    cnk_list_push_back(&e->wants, &w->cold_node);
    return false;
}

static void want_end(cnk_fetch_want *w, int code) {
    cnk_shard *home = w->group->home;
    w->cold_code = code;
    if (w->cold_len == 0 || w->cold_next >= w->end || home->stopping) return;
    reader_note(home, w->stream, w->cold_next);
    if (w->sequential) read_ahead(w, w->cold_next, UINT32_MAX);
}

/* Partitions for which this answer has no room come first in the next one. */
static void read_skipped(cnk_fetch_run *run) {
    const cnk_fetch *op = run->op;
    for (size_t n = 0; n < op->part_count && run->ahead_left > 0; n++) {
        const cnk_fetch_part *part = &op->parts[(op->next + n) % op->part_count];
        if (part->group >= run->group_count) continue;
        const cnk_fetch_want *w = &run->groups[part->group].wants[part->slot];
        if (w->allotted > 0 || w->error != 0 || w->hot_bytes > 0 || w->cold_bytes == 0) continue;
        reader_stay(run->home, w->stream, w->offset);
        read_ahead(w, w->offset, w->cold_bytes);
    }
}

void cnk_cold_start(cnk_fetch_run *run) {
    uint32_t most = run->home->broker->options.fetch_cold_answer_max;
    uint32_t kept = run->skipped_bytes < most ? (uint32_t)run->skipped_bytes : most; /* read once what is waited for has been asked for */
    run->ahead_left = most - kept;
    for (size_t g = 0; g < run->group_count; g++)
        for (size_t i = 0; i < run->groups[g].want_count; i++) {
            cnk_fetch_want *w = &run->groups[g].wants[i];
            if (w->allotted == 0) continue;
            w->sequential |= reader_leave(stream_get(run->home, w->stream), w->offset);
            run->jobs += !want_begin(w);
        }
    uint32_t left = run->ahead_left;
    run->ahead_left = kept;
    read_skipped(run);
    run->ahead_left += left;
}

/* Who gets nothing from what another one asked for, or what was read ahead, reads for himself. */
static void done(chronik_job *job) {
    cnk_extent *e = CNK_CONTAINER(job, cnk_extent, read.job);
    cnk_shard *home = e->home;
    e->ready = true;
    e->read.pieces = NULL;
    home->extents_reading--;
    if (is_large(e)) home->large_reads--;
    reads_go_on(home);
    count(e, e->read.rope.len);
    for (cnk_list *node; (node = cnk_list_pop_front(&e->wants)) != NULL;) {
        cnk_fetch_want *w = CNK_CONTAINER(node, cnk_fetch_want, cold_node);
        if (give(e, w) || e->asked_by == w) {
            want_end(w, e->read.code);
            cnk_fetch_cold_finished(w->group->run);
        } else if (want_begin(w)) {
            cnk_fetch_cold_finished(w->group->run);
        }
    }
    e->asked_by = NULL;
    unpin(e);
    cnk_fetch_admit(home);
    cnk_broker_stop_check(home);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void expire(cnk_deadline *deadline) {
    cnk_shard *home = CNK_CONTAINER(deadline, cnk_shard, cold_expire);
    uint64_t now = cnk_shard_now_ns(home), keep_ns = CNK_COLD_KEEP_MS * UINT64_C(1000000);
    CNK_LIST_EACH(node, &home->cold_streams) {
        cnk_cold_stream *s = CNK_CONTAINER(node, cnk_cold_stream, node);
        for (size_t i = s->reader_count; i-- > 0;)
            if (s->readers[i].at_ns + keep_ns <= now) s->readers[i] = s->readers[--s->reader_count];
        stream_drop_empty(home, s);
    }
    CNK_LIST_EACH(node, &home->extents) {
        cnk_extent *e = CNK_CONTAINER(node, cnk_extent, node);
        if (e->pins == 0 && (e->at_ns + keep_ns <= now || !is_wanted(e))) drop(e);
    }
    if (!cnk_list_empty(&home->cold_streams) || !cnk_list_empty(&home->extents)) expire_later(home);
}

/* What nobody holds goes; the rest with its answers. */
void cnk_cold_stop(cnk_shard *home) {
    CNK_LIST_EACH(node, &home->extents) {
        cnk_extent *e = CNK_CONTAINER(node, cnk_extent, node);
        if (e->pins == 0) drop(e);
    }
}

/* The loops are at rest: so are the jobs. */
void cnk_cold_close(cnk_shard *home) {
    while (!cnk_list_empty(&home->extents)) {
        cnk_extent *e = CNK_CONTAINER(home->extents.next, cnk_extent, node);
        e->pins = 0;
        drop(e);
    }
    while (!cnk_list_empty(&home->cold_streams)) {
        cnk_cold_stream *s = CNK_CONTAINER(home->cold_streams.next, cnk_cold_stream, node);
        s->reader_count = 0;
        stream_drop_empty(home, s);
    }
    cnk_map_free(&home->cold_stream_of);
}
