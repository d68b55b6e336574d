/* What the tier knows: packs, the sections of each stream, and what is cached of them.
 *
 * Everything here is shared by all shards and by jobs, under one mutex that is held for a look-up or an insertion and
 * never for I/O. Who reads takes a reference to the pack and lets the mutex go; a pack that is replaced or deleted
 * meanwhile stays readable until the reference is given back.
 *
 * Invariants: a stream's sections ascend by first index, and none lies wholly inside another; a pack's live counts are
 * those of the sections that streams refer to. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define ROWS_OVERHEAD 64u

void cnk_tier_lock(cnk_tier *t) { CNK_ASSERT(pthread_mutex_lock(&t->mutex) == 0); }
void cnk_tier_unlock(cnk_tier *t) { CNK_ASSERT(pthread_mutex_unlock(&t->mutex) == 0); }

/* ---- streams ---- */

tier_stream *cnk_tier_stream_locked(cnk_tier *t, uint64_t id, bool make) {
    tier_stream *s = cnk_map_get(&t->streams, id);
    if (s || !make) return s;
    s = cnk_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->id = id;
    if (cnk_map_put(&t->streams, id, s)) {
        cnk_free(s);
        return NULL;
    }
    return s;
}

static void stream_free(tier_stream *s) {
    cnk_free(s->sections);
    cnk_free(s);
}

void cnk_tier_stream_forget_locked(cnk_tier *t, tier_stream *s) {
    CNK_ASSERT(s->count == 0);
    cnk_map_remove(&t->streams, s->id);
    stream_free(s);
}

void cnk_tier_streams_forget_dropped(cnk_tier *t) {
    cnk_tier_lock(t);
    t->converting = false;
    for (bool again = true; again;) {
        size_t it = 0;
        again = false;
        for (tier_stream *s; (s = cnk_map_next(&t->streams, &it));) {
            if (!s->dropped || s->count > 0) continue;
            cnk_tier_stream_forget_locked(t, s);
            again = true;
            break; /* the map has changed */
        }
    }
    cnk_tier_unlock(t);
}

/* A section of `in` has no further use: counts it out. */
static void section_dead(cnk_tier *t, const tier_section *x) {
    uint64_t bytes = x->s->control_bytes + x->s->data_bytes;
    x->in->live_sections--;
    x->in->live_bytes -= bytes;
    t->stats.live_bytes -= bytes;
}

/* Lets go of the stream's sections that lie wholly below first_index. */
void cnk_tier_sections_kill_locked(cnk_tier *t, tier_stream *s, uint64_t first_index) {
    size_t n = 0;
    while (n < s->count && s->sections[n].s->last_index < first_index) section_dead(t, &s->sections[n++]);
    s->count -= n;
    if (s->count > 0) memmove(s->sections, s->sections + n, s->count * sizeof *s->sections);
}

bool cnk_tier_deaths_settle(cnk_tier *t) {
    cnk_tier_lock(t);
    size_t left = 0;
    for (size_t i = 0; i < t->death_count; i++) {
        const tier_death *d = &t->deaths[i];
        tier_stream *s = cnk_tier_stream_locked(t, d->stream, false);
        if (cnk_wal_port_durable(d->port) < d->appended && !TIER_BUG(DELETED_TOO_EARLY)) {
            t->deaths[left++] = *d;
        } else if (s) {
            cnk_tier_sections_kill_locked(t, s, d->first_index);
            if (s->dropped && s->count == 0 && !t->converting) cnk_tier_stream_forget_locked(t, s);
        }
    }
    t->death_count = left;
    cnk_tier_unlock(t);
    return left == 0;
}

/* Where a section belongs among the stream's; false: others hold all of it already. */
static bool section_place(const tier_stream *s, const cnk_pack_section *x, size_t *ret_at) {
    size_t at = s->count;
    while (at > 0 && s->sections[at - 1].s->first_index > x->first_index) at--;
    *ret_at = at;
    if (at > 0 && s->sections[at - 1].s->last_index >= x->last_index) return false;
    return at == s->count || s->sections[at].s->first_index != x->first_index ||
           s->sections[at].s->last_index < x->last_index;
}

/* ---- packs ---- */

static int sections_reserve_locked(cnk_tier *t, const cnk_pack *pack) {
    for (uint32_t i = 0; i < pack->section_count; i++) {
        tier_stream *s = cnk_tier_stream_locked(t, pack->sections[i].stream, true);
        if (!s || cnk_array_reserve((void **)&s->sections, &s->capacity, s->count + 1, sizeof *s->sections))
            return CHRONIK_ENOMEM;
    }
    return 0;
}

static void section_add_locked(cnk_tier *t, tier_pack *p, const cnk_pack_section *x) {
    tier_stream *s = cnk_tier_stream_locked(t, x->stream, false);
    uint64_t bytes = x->control_bytes + x->data_bytes;
    size_t at;
    p->payload_bytes += bytes;
    if (s->dropped || !section_place(s, x, &at)) return;
    memmove(s->sections + at + 1, s->sections + at, (s->count - at) * sizeof *s->sections);
    s->sections[at] = (tier_section){p, x};
    s->count++;
    p->live_sections++;
    p->live_bytes += bytes;
    t->stats.live_bytes += bytes;
}

int cnk_tier_pack_add(cnk_tier *t, cnk_pack *pack) {
    tier_pack *p = cnk_calloc(1, sizeof *p);
    if (!p) return CHRONIK_ENOMEM;
    cnk_tier_lock(t);
    int rc = sections_reserve_locked(t, pack);
    if (rc == 0) {
        p->pack = pack;
        p->instance = t->next_instance++;
        cnk_list *after = t->packs.prev;
        while (after != &t->packs && CNK_CONTAINER(after, tier_pack, link)->pack->seq > pack->seq) after = after->prev;
        cnk_list_push_front(after, &p->link);
        for (uint32_t i = 0; i < pack->section_count; i++) section_add_locked(t, p, &pack->sections[i]);
        t->stats.packs++;
        t->stats.pack_bytes += pack->file_bytes;
    }
    cnk_tier_unlock(t);
    if (rc) cnk_free(p);
    return rc;
}

static void section_moved(cnk_tier *t, tier_pack *p, const cnk_pack_section *x) {
    tier_stream *s = cnk_tier_stream_locked(t, x->stream, false);
    p->payload_bytes += x->control_bytes + x->data_bytes;
    for (size_t i = 0; s && i < s->count; i++) {
        if (s->sections[i].in != p || s->sections[i].s->first_index != x->first_index) continue;
        s->sections[i].s = x;
        return;
    }
}

/* The same pack with fewer sections, under a name that comes last: what streams refer to is found in the new one. Sections
 * that died since it was begun are dead in it, too. */
int cnk_tier_pack_replace(cnk_tier *t, tier_pack *p, cnk_pack *pack) {
    cnk_tier_lock(t);
    cnk_list_remove(&p->link);
    cnk_list_push_back(&t->packs, &p->link);
    cnk_pack *old = p->pack;
    t->stats.pack_bytes += pack->file_bytes;
    t->stats.pack_bytes -= old->file_bytes;
    t->stats.packs_rewritten++;
    p->payload_bytes = 0;
    p->instance = t->next_instance++;
    for (uint32_t i = 0; i < pack->section_count; i++) section_moved(t, p, &pack->sections[i]);
    p->pack = pack;
    cnk_tier_unlock(t);
    cnk_pack_unref(old);
    return 0;
}

void cnk_tier_pack_remove(cnk_tier *t, tier_pack *p) {
    cnk_tier_lock(t);
    CNK_ASSERT(p->live_sections == 0);
    cnk_list_remove(&p->link);
    t->stats.packs--;
    t->stats.pack_bytes -= p->pack->file_bytes;
    cnk_tier_unlock(t);
    cnk_pack_unref(p->pack);
    cnk_free(p);
}

void cnk_tier_pack_spoilt(cnk_tier *t, const cnk_pack *pack, const chronik_error *why) {
    bool told = false;
    cnk_tier_lock(t);
    CNK_LIST_EACH(it, &t->packs) {
        tier_pack *p = CNK_CONTAINER(it, tier_pack, link);
        if (p->pack != pack) continue;
        told = p->spoilt;
        p->spoilt = true;
    }
    cnk_tier_unlock(t);
    if (!told && t->events.damaged) t->events.damaged(t->events_arg, 0, why);
}

static bool pack_is_open(cnk_tier *t, const cnk_pack *pack) {
    cnk_tier_lock(t);
    bool open = pack->file != NULL;
    cnk_tier_unlock(t);
    return open;
}

int cnk_tier_pack_load(cnk_tier *t, cnk_pack *pack, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    cnk_pack *opened = NULL;
    if (pack_is_open(t, pack)) return 0;
    int rc = cnk_pack_open(t->io, pack->path, &why, &opened);
    if (rc && pack_is_open(t, pack)) return 0; /* by whoever has deleted it since then */
    if (rc == 0) {
        cnk_tier_lock(t);
        rc = cnk_pack_complete(pack, opened);
        cnk_tier_unlock(t);
        if (rc) cnk_error(&why, rc, 0, "%s: it is another pack than the catalog file told of", pack->path);
    }
    cnk_pack_unref(opened);
    if (rc == CHRONIK_ENOTFOUND || rc == CHRONIK_EUNSUPPORTED) rc = CHRONIK_ECORRUPT; /* it was there, and as it was */
    if (rc == CHRONIK_ECORRUPT) {
        cnk_tier_catalog_distrust(t);
        cnk_tier_pack_spoilt(t, pack, &why);
    }
    return rc ? cnk_error_because(err, rc, &why) : 0;
}

void cnk_tier_catalog_free(cnk_tier *t) {
    cnk_free(t->deaths);
    size_t it = 0;
    for (tier_stream *s; (s = cnk_map_next(&t->streams, &it));) stream_free(s);
    cnk_map_free(&t->streams);
    for (cnk_list *l; (l = cnk_list_pop_front(&t->packs));) {
        tier_pack *p = CNK_CONTAINER(l, tier_pack, link);
        cnk_pack_unref(p->pack);
        cnk_free(p);
    }
    for (cnk_list *l; (l = cnk_list_pop_front(&t->rows));) cnk_tier_rows_unref(CNK_CONTAINER(l, tier_rows, link));
    cnk_map_free(&t->rows_of);
    while (t->scratch_count > 0) cnk_pages_free(t->scratches[--t->scratch_count], CNK_PACK_BLOCK_BUFFER_BYTES);
}

/* ---- cached rows ---- */

void cnk_tier_rows_unref(tier_rows *rows) {
    if (rows && atomic_fetch_sub_explicit(&rows->refs, 1, memory_order_acq_rel) == 1) cnk_free(rows);
}

static tier_rows *rows_cached(cnk_tier *t, uint64_t key) {
    cnk_tier_lock(t);
    tier_rows *rows = cnk_map_get(&t->rows_of, key);
    if (rows) {
        atomic_fetch_add_explicit(&rows->refs, 1, memory_order_relaxed);
        cnk_list_remove(&rows->link);
        cnk_list_push_front(&t->rows, &rows->link);
    }
    cnk_tier_unlock(t);
    return rows;
}

/* Puts them into the cache, with a reference of its own, unless somebody was faster; drops the oldest over the limit.
 */
static void rows_keep(cnk_tier *t, tier_rows *rows) {
    cnk_tier_lock(t);
    if (!cnk_map_get(&t->rows_of, rows->key) && cnk_map_put(&t->rows_of, rows->key, rows) == 0) {
        atomic_fetch_add_explicit(&rows->refs, 1, memory_order_relaxed);
        cnk_list_push_front(&t->rows, &rows->link);
        t->rows_bytes += rows->len + ROWS_OVERHEAD;
    }
    while (t->rows_bytes > t->options.row_cache_bytes && !cnk_list_empty(&t->rows)) {
        tier_rows *oldest = CNK_CONTAINER(t->rows.prev, tier_rows, link);
        cnk_list_remove(&oldest->link);
        cnk_map_remove(&t->rows_of, oldest->key);
        t->rows_bytes -= oldest->len + ROWS_OVERHEAD;
        cnk_tier_rows_unref(oldest);
    }
    cnk_tier_unlock(t);
}

static tier_rows *rows_new(const cnk_pack *pack, uint32_t instance, uint32_t block, const uint8_t *bytes) {
    uint32_t len = pack->blocks[block].len;
    tier_rows *rows = cnk_malloc(sizeof *rows + len);
    if (!rows) return NULL;
    rows->link = (cnk_list){NULL, NULL};
    atomic_init(&rows->refs, 1);
    rows->key = (uint64_t)instance << 32 | block;
    rows->len = len;
    memcpy(rows->bytes, bytes, len);
    return rows;
}

/* How far one read of CNK_PACK_BLOCK_BUFFER_BYTES gets, from the block on. */
static uint32_t rows_read_end(const cnk_pack *pack, uint32_t block, uint32_t end) {
    uint64_t pos = pack->blocks[block].pos;
    uint32_t n = block + 1;
    while (n < end && pack->blocks[n].pos == pack->blocks[n - 1].pos + pack->blocks[n - 1].len &&
           CNK_PACK_SPAN(pos, pack->blocks[n].pos + pack->blocks[n].len - pos) <= CNK_PACK_BLOCK_BUFFER_BYTES)
        n++;
    return n;
}

/* Who reads on will want the blocks that follow: they come with the same read. */
static void rows_ahead(cnk_tier *t, const cnk_pack *pack, uint32_t instance, uint32_t block, uint32_t end,
                       const uint8_t *bytes) {
    for (; block < end; block++) {
        if (cnk_pack_block_check(pack, block, bytes, NULL)) return; /* told when it is asked for */
        tier_rows *rows = rows_new(pack, instance, block, bytes);
        if (!rows) return;
        rows_keep(t, rows);
        cnk_tier_rows_unref(rows);
        bytes += pack->blocks[block].len;
    }
}

int cnk_tier_rows_get(cnk_tier *t, const cnk_pack *pack, uint32_t instance, uint32_t block, uint32_t end,
                  chronik_error *err, tier_rows **ret_rows) {
    tier_rows *rows = rows_cached(t, (uint64_t)instance << 32 | block);
    if (rows) {
        *ret_rows = rows;
        return 0;
    }
    const cnk_pack_block_row *first = &pack->blocks[block];
    uint32_t last = rows_read_end(pack, block, end) - 1;
    size_t skew = 0, len = (size_t)(pack->blocks[last].pos + pack->blocks[last].len - first->pos);
    uint8_t *scratch = cnk_tier_scratch_get(t);
    int rc = scratch ? cnk_pack_read(pack, first->pos, len, scratch, err, &skew) : CHRONIK_ENOMEM;
    if (rc == 0) rc = cnk_pack_block_check(pack, block, scratch + skew, err);
    if (rc == 0 && !(rows = rows_new(pack, instance, block, scratch + skew))) rc = CHRONIK_ENOMEM;
    if (rc == 0) {
        rows_ahead(t, pack, instance, block + 1, last + 1, scratch + skew + first->len);
        rows_keep(t, rows);
        *ret_rows = rows;
    }
    if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "%s: no memory to read rows", pack->path);
    cnk_tier_scratch_put(t, scratch);
    return rc;
}

/* ---- scratches: aligned memory for direct reads ---- */

uint8_t *cnk_tier_scratch_get(cnk_tier *t) {
    cnk_tier_lock(t);
    uint8_t *scratch = t->scratch_count > 0 ? t->scratches[--t->scratch_count] : NULL;
    cnk_tier_unlock(t);
    return scratch ? scratch : cnk_pages_alloc(CNK_PACK_BLOCK_BUFFER_BYTES);
}

void cnk_tier_scratch_put(cnk_tier *t, uint8_t *scratch) {
    if (!scratch) return;
    cnk_tier_lock(t);
    bool keep = t->scratch_count < CNK_TIER_SCRATCHES_KEPT;
    if (keep) t->scratches[t->scratch_count++] = scratch;
    cnk_tier_unlock(t);
    if (!keep) cnk_pages_free(scratch, CNK_PACK_BLOCK_BUFFER_BYTES);
}
