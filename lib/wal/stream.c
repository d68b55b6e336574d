/* A stream: its state, its index, the calls that change it.
 *
 * `now` is what has been appended, `durable` what completions have reported; both change through cnk_wal_state_apply
 * alone, which recovery uses too, so that the state after a crash is the state that was reported. Owned by the port's
 * thread. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "wal/internal.h"

#ifdef CNK_TEST_HOOKS
enum cnk_wal_bug cnk_wal_bug;
#endif

static uint64_t data_bytes_of(const cnk_wal_entry *e) { return e->kind == CNK_ENTRY_DATA ? e->len : 0; }

/* ---- the index -------------------------------------------------------------------------------------------------- */

int cnk_wal_extents_reserve(cnk_wal_extents *x) {
    if (x->count < x->capacity) return 0;
    size_t capacity = x->capacity ? x->capacity * 2 : 2; /* most partitions are idle */
    cnk_wal_extent *items = cnk_malloc(capacity * sizeof *items);
    if (!items) return CHRONIK_ENOMEM;
    for (size_t n = 0; n < x->count; n++) items[n] = *cnk_wal_extents_nth(x, n);
    cnk_free(x->items);
    x->items = items;
    x->head = 0;
    x->capacity = capacity;
    return 0;
}

void cnk_wal_extents_push(cnk_wal_extents *x, const cnk_wal_extent *extent) {
    CNK_ASSERT(x->count < x->capacity);
    *cnk_wal_extents_nth(x, x->count++) = *extent;
}

cnk_wal_extent *cnk_wal_extents_at(const cnk_wal_extents *x, uint64_t index) {
    if (x->count == 0) return NULL;
    uint64_t first = x->items[x->head].row.e.index;
    if (index < first || index - first >= x->count) return NULL;
    return cnk_wal_extents_nth(x, (size_t)(index - first));
}

/* ---- state ------------------------------------------------------------------------------------------------------ */

void cnk_wal_state_apply(cnk_wal_state *state, const cnk_wal_row *row) {
    const cnk_wal_entry *e = &row->e;
    switch (row->frame) {
    case CNK_FRAME_ENTRY:
        state->last_index = e->index;
        state->last_term = e->term;
        state->next_offset = e->base_offset + e->count;
        if (e->term > state->term) {
            state->term = e->term;
            state->voted_for = 0;
        }
        break;
    case CNK_FRAME_VOTE:
        state->term = e->term;
        state->voted_for = e->index;
        break;
    case CNK_FRAME_TRUNCATE:
        state->last_index = e->index;
        state->last_term = e->term;
        state->next_offset = e->base_offset;
        break;
    case CNK_FRAME_TRIM:
        if (e->index > state->first_index) state->first_index = e->index;
        if (e->base_offset > state->start_offset) state->start_offset = e->base_offset;
        break;
    case CNK_FRAME_RESET:
        state->first_index = e->index + 1;
        state->start_offset = e->base_offset;
        state->released_index = state->last_index = e->index;
        state->released_term = state->last_term = e->term;
        state->released_offset = state->next_offset = e->base_offset;
        if (e->term > state->term) {
            state->term = e->term;
            state->voted_for = 0;
        }
        break;
    default: break; /* INIT, REWRITE, DROP: nothing in the state */
    }
}

cnk_wal_stream *cnk_wal_stream_make(cnk_wal *wal, uint64_t id) {
    cnk_wal_stream *s = cnk_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->wal = wal;
    s->now.id = id;
    s->now.first_index = 1;
    s->durable = s->now;
    return s;
}

void cnk_wal_stream_destroy(cnk_wal_stream *s) {
    if (!s) return;
    cnk_list_remove(&s->link);
    cnk_list_remove(&s->noted_link);
    cnk_free(s->extents.items);
    cnk_free(s->blob);
    cnk_free(s);
}

const cnk_wal_state *cnk_wal_stream_state(const cnk_wal_stream *stream) {
    cnk_wal_stream *s = (cnk_wal_stream *)(uintptr_t)stream;
    uint64_t index = s->durable.last_index < s->now.last_index ? s->durable.last_index : s->now.last_index;
    s->now.durable_index = s->cuts_in_flight && s->cut_index < index ? s->cut_index : index;
    return &s->now;
}

void *cnk_wal_stream_owner(const cnk_wal_stream *stream) { return stream->owner; }

uint64_t cnk_wal_stream_data_bytes(const cnk_wal_stream *stream) { return stream->data_bytes; }

void cnk_wal_stream_blob(const cnk_wal_stream *stream, const uint8_t **ret_data, size_t *ret_len,
                         uint64_t *ret_applied_index) {
    *ret_data = stream->blob;
    *ret_len = stream->blob_len;
    *ret_applied_index = stream->blob_applied;
}

void cnk_wal_stream_blob_forget(cnk_wal_stream *stream) {
    cnk_free(stream->blob);
    stream->blob = NULL;
    stream->blob_len = 0;
}

void cnk_wal_stream_commit_set(cnk_wal_stream *stream, uint64_t commit_index) {
    if (commit_index <= stream->commit_index) return;
    stream->commit_index = commit_index;
    cnk_wal_stream_changed(stream);
}

cnk_wal_stream *cnk_wal_recovered_next(cnk_wal *wal, size_t *it) {
    while (*it < wal->recovered_count && !wal->recovered[*it]) ++*it;
    return *it < wal->recovered_count ? wal->recovered[(*it)++] : NULL;
}

void cnk_wal_stream_attach(cnk_wal_port *port, cnk_wal_stream *stream, void *owner) {
    CNK_ASSERT(!stream->port);
    stream->port = port;
    stream->owner = owner;
    stream->data_bytes = 0; /* from now on the calls that change the index count */
    for (size_t n = 0; n < stream->extents.count; n++)
        stream->data_bytes += data_bytes_of(&cnk_wal_extents_nth(&stream->extents, n)->row.e);
    cnk_list_push_back(&port->streams, &stream->link);
    cnk_wal *wal = port->wal; /* it is the port's from now on */
    pthread_mutex_lock(&wal->mutex);
    CNK_ASSERT(wal->recovered[stream->recovered_at] == stream);
    wal->recovered[stream->recovered_at] = NULL;
    if (--wal->recovered_left == 0) cnk_wal_port_post_wake(wal->ports[0]); /* now checkpoints are whole */
    pthread_mutex_unlock(&wal->mutex);
}

/* ---- appending -------------------------------------------------------------------------------------------------- */

/* Whether a row may be built at all; room for data is the port's question. */
static int may_append(const cnk_wal_stream *s) {
    const cnk_wal *wal = s->wal;
    if (!s->port) return CHRONIK_EINVAL;
    if (atomic_load_explicit(&wal->fenced, memory_order_acquire)) return CHRONIK_EFENCED;
    if (atomic_load_explicit(&wal->shutdown, memory_order_relaxed)) return CHRONIK_ESHUTDOWN;
    if (s->now.damaged) return CHRONIK_ECORRUPT;
    return 0;
}

static int append_state_row(cnk_wal_stream *s, uint8_t frame, uint64_t index, uint32_t term, int64_t offset,
                            const cnk_wal_release *releases, size_t releases_count) {
    cnk_wal_row row = {.stream = s->now.id, .frame = frame, .flags = 0x80};
    row.e.index = index;
    row.e.term = term;
    row.e.base_offset = offset;
    row.e.max_timestamp = -1;
    uint32_t seq, pos;
    int code = cnk_wal_port_append_row(s->port, s, &row, NULL, releases, releases_count, &seq, &pos);
    if (code == 0) cnk_wal_state_apply(&s->now, &row);
    return code;
}

int cnk_wal_append(cnk_wal_stream *stream, const cnk_wal_entry *entry, const cnk_wal_payload *payload) {
    int code = may_append(stream);
    if (code) return code;
    const cnk_wal_state *now = &stream->now;
    if (entry->index != now->last_index + 1 || entry->term < now->last_term || entry->base_offset != now->next_offset)
        return CHRONIK_EINVAL;
    if (entry->len > CNK_WAL_PAYLOAD_MAX) return CHRONIK_ETOOLARGE;
    code = cnk_wal_extents_reserve(&stream->extents);
    if (code) return code;
    cnk_wal_extent x = {.row = {.stream = now->id, .e = *entry, .frame = CNK_FRAME_ENTRY, .flags = 0x80}};
    x.row.crc = payload && entry->len ? payload->crc : 0;
    code = cnk_wal_port_append_row(stream->port, stream, &x.row, payload, NULL, 0, &x.slab_seq, &x.slab_pos);
    if (code) return code;
    cnk_wal_extents_push(&stream->extents, &x);
    stream->data_bytes += data_bytes_of(entry);
    cnk_wal_state_apply(&stream->now, &x.row);
    return 0;
}

int cnk_wal_stream_new(cnk_wal_port *port, uint64_t id, void *owner, cnk_wal_stream **ret_stream) {
    cnk_wal *wal = port->wal;
    cnk_wal_stream *s = cnk_wal_stream_make(wal, id);
    if (!s) return CHRONIK_ENOMEM;
    s->port = port;
    s->owner = owner;
    int code = may_append(s);
    if (code == 0) {
        pthread_mutex_lock(&wal->mutex);
        code = cnk_map_get(&wal->used_ids, id) ? CHRONIK_EEXIST : cnk_map_put(&wal->used_ids, id, wal);
        pthread_mutex_unlock(&wal->mutex);
    }
    if (code == 0) {
        code = append_state_row(s, CNK_FRAME_INIT, 0, 0, 0, NULL, 0);
        if (code) {
            pthread_mutex_lock(&wal->mutex);
            cnk_map_remove(&wal->used_ids, id);
            pthread_mutex_unlock(&wal->mutex);
        }
    }
    if (code) {
        cnk_wal_stream_destroy(s);
        return code;
    }
    cnk_list_push_back(&port->streams, &s->link);
    *ret_stream = s;
    return 0;
}

/* Gathers, per file, how many of the extents [from, to) are in it. */
static int releases_of(const cnk_wal_extents *x, size_t from, size_t to, cnk_wal_release **ret, size_t *ret_count) {
    cnk_wal_release *list = NULL;
    size_t count = 0, capacity = 0;
    for (size_t n = from; n < to; n++) {
        cnk_wal_file *file = cnk_wal_extents_nth(x, n)->file;
        if (!file) continue;
        if (count == 0 || list[count - 1].file != file) {
            if (cnk_array_reserve((void **)&list, &capacity, count + 1, sizeof *list)) {
                cnk_free(list);
                return CHRONIK_ENOMEM;
            }
            list[count++] = (cnk_wal_release){file, 0};
        }
        list[count - 1].entries++;
    }
    *ret = list;
    *ret_count = count;
    return 0;
}

/* Takes extents off the front or the back of the index, once the row that says so is in a block. */
static void extents_cut(cnk_wal_stream *s, size_t from, size_t to) {
    cnk_wal_extents *x = &s->extents;
    for (size_t n = from; n < to; n++) s->data_bytes -= data_bytes_of(&cnk_wal_extents_nth(x, n)->row.e);
    if (from == 0) {
        x->head = x->capacity ? (x->head + to) & (x->capacity - 1) : 0;
        x->count -= to;
    } else {
        CNK_ASSERT(to == x->count);
        x->count = from;
    }
}

static int change_and_cut(cnk_wal_stream *s, uint8_t frame, uint64_t index, uint32_t term, int64_t offset, size_t from,
                          size_t to) {
    cnk_wal_release *list = NULL;
    size_t count = 0;
    int code = releases_of(&s->extents, from, to, &list, &count);
    if (code == 0) code = append_state_row(s, frame, index, term, offset, list, count);
    if (code == 0) {
        extents_cut(s, from, to);
        if (s->cuts_in_flight++ == 0 || index < s->cut_index) s->cut_index = index;
    }
    cnk_free(list);
    return code;
}

int cnk_wal_stream_drop(cnk_wal_stream *stream) {
    stream->now.damaged = false; /* a damaged stream can still be deleted */
    int code = may_append(stream);
    if (code) return code;
    cnk_wal_port *port = stream->port;
    code = cnk_array_reserve((void **)&port->gone, &port->gone_capacity, port->gone_count + port->dropping + 1,
                             sizeof *port->gone);
    if (code == 0) code = change_and_cut(stream, CNK_FRAME_DROP, 0, 0, 0, 0, stream->extents.count);
    if (code) return code;
    port->dropping++;
    stream->dropped = true; /* freed by the completion of its last row */
    return 0;
}

int cnk_wal_vote(cnk_wal_stream *stream, uint32_t term, uint64_t voted_for) {
    int code = may_append(stream);
    if (code) return code;
    if (term < stream->now.term || (term == stream->now.term && stream->now.voted_for != 0)) return CHRONIK_EINVAL;
    return append_state_row(stream, CNK_FRAME_VOTE, voted_for, term, 0, NULL, 0);
}

int cnk_wal_truncate(cnk_wal_stream *stream, uint64_t last_index_kept) {
    int code = may_append(stream);
    if (code) return code;
    const cnk_wal_state *now = &stream->now;
    if (last_index_kept >= now->last_index) return last_index_kept == now->last_index ? 0 : CHRONIK_EINVAL;
    if (last_index_kept < stream->commit_index || last_index_kept < now->released_index) return CHRONIK_EINVAL;
    uint32_t term = now->released_term;
    int64_t offset = now->released_offset;
    size_t keep = 0;
    if (last_index_kept > now->released_index) {
        const cnk_wal_extent *x = cnk_wal_extents_at(&stream->extents, last_index_kept);
        CNK_ASSERT(x);
        term = x->row.e.term;
        offset = x->row.e.base_offset + x->row.e.count;
        keep = (size_t)(last_index_kept - stream->extents.items[stream->extents.head].row.e.index) + 1;
    }
    size_t count = stream->extents.count;
    if (keep > 0) return change_and_cut(stream, CNK_FRAME_TRUNCATE, last_index_kept, term, offset, keep, count);
    return change_and_cut(stream, CNK_FRAME_TRUNCATE, last_index_kept, term, offset, 0, count);
}

int cnk_wal_trim(cnk_wal_stream *stream, uint64_t first_index, int64_t start_offset) {
    int code = may_append(stream);
    if (code) return code;
    if (first_index > stream->commit_index + 1 || start_offset > stream->now.next_offset) return CHRONIK_EINVAL;
    code = append_state_row(stream, CNK_FRAME_TRIM, first_index, 0, start_offset, NULL, 0);
    if (code) return code;
    /* The index keeps the entries until the trim is durable: see trimmed() in port.c. */
    return 0;
}

int cnk_wal_reset(cnk_wal_stream *stream, uint64_t last_index, uint32_t last_term, int64_t next_offset) {
    int code = may_append(stream);
    if (code) return code;
    return change_and_cut(stream, CNK_FRAME_RESET, last_index, last_term, next_offset, 0, stream->extents.count);
}

void cnk_wal_stream_release(cnk_wal_stream *stream, uint64_t index) {
    cnk_wal_extents *x = &stream->extents;
    size_t cut = 0;
    while (cut < x->count) {
        const cnk_wal_extent *e = cnk_wal_extents_nth(x, cut);
        if (e->row.e.index > index || !e->file) break;
        cnk_wal_file_leave(e->file, 1);
        cut++;
        stream->now.released_index = stream->durable.released_index = e->row.e.index;
        stream->now.released_term = stream->durable.released_term = e->row.e.term;
        stream->now.released_offset = stream->durable.released_offset = e->row.e.base_offset + e->row.e.count;
    }
    extents_cut(stream, 0, cut);
    if (cut > 0) cnk_wal_stream_changed(stream);
}

void cnk_wal_stream_release_to(cnk_wal_stream *stream, uint64_t index, int64_t end_offset) {
    const cnk_wal_extents *x = &stream->extents;
    cnk_wal_stream_release(stream, index);
    int64_t next = x->count > 0 ? cnk_wal_extents_nth(x, 0)->row.e.base_offset : stream->now.next_offset;
    if (stream->now.released_index != index || stream->now.released_offset >= end_offset || end_offset > next) return;
    stream->now.released_offset = stream->durable.released_offset = end_offset;
    cnk_wal_stream_changed(stream);
}

/* ---- finding ---------------------------------------------------------------------------------------------------- */

static void place_of(const cnk_wal_stream *s, const cnk_wal_extent *x, cnk_wal_place *ret_place) {
    cnk_wal_place p = {.entry = x->row.e, .crc = x->row.crc};
    if (s->port) p.data = cnk_wal_port_cached(s->port, x->slab_seq, x->slab_pos, &p.slab);
    if (x->file) {
        p.file_seq = (uint32_t)x->file->number;
        p.file_pos = x->file_pos;
    }
    *ret_place = p;
}

int cnk_wal_find_index(const cnk_wal_stream *stream, uint64_t index, cnk_wal_place *ret_place) {
    const cnk_wal_extent *x = cnk_wal_extents_at(&stream->extents, index);
    if (!x) return CHRONIK_ENOTFOUND;
    place_of(stream, x, ret_place);
    return 0;
}

int cnk_wal_find_offset(const cnk_wal_stream *stream, int64_t offset, cnk_wal_place *ret_place) {
    const cnk_wal_extents *x = &stream->extents;
    if (offset < stream->now.released_offset) return CHRONIK_ENOTFOUND; /* older than what is here: look elsewhere */
    size_t low = 0, high = x->count; /* the first entry that ends past the offset; ends never decrease */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const cnk_wal_entry *e = &cnk_wal_extents_nth(x, mid)->row.e;
        if (e->base_offset + e->count > offset) high = mid;
        else low = mid + 1;
    }
    while (low < x->count && cnk_wal_extents_nth(x, low)->row.e.kind != CNK_ENTRY_DATA) low++;
    if (low == x->count) return CHRONIK_ENOTFOUND;
    place_of(stream, cnk_wal_extents_nth(x, low), ret_place);
    return 0;
}

int cnk_wal_find_timestamp(const cnk_wal_stream *stream, int64_t offset, int64_t timestamp, cnk_wal_place *ret_place) {
    const cnk_wal_extents *x = &stream->extents;
    for (size_t n = 0; n < x->count; n++) {
        const cnk_wal_extent *e = cnk_wal_extents_nth(x, n);
        if (e->row.e.kind != CNK_ENTRY_DATA || e->row.e.max_timestamp < timestamp) continue;
        if (e->row.e.base_offset + e->row.e.count <= offset) continue;
        place_of(stream, e, ret_place);
        return 0;
    }
    return CHRONIK_ENOTFOUND;
}

int cnk_wal_find_newest(const cnk_wal_stream *stream, int64_t offset, int64_t end, cnk_wal_place *ret_place) {
    const cnk_wal_extents *x = &stream->extents;
    const cnk_wal_extent *newest = NULL;
    for (size_t n = 0; n < x->count; n++) {
        const cnk_wal_extent *e = cnk_wal_extents_nth(x, n);
        if (e->row.e.kind != CNK_ENTRY_DATA || e->row.e.base_offset + e->row.e.count <= offset ||
            e->row.e.base_offset >= end)
            continue;
        if (!newest || e->row.e.max_timestamp > newest->row.e.max_timestamp) newest = e;
    }
    if (!newest) return CHRONIK_ENOTFOUND;
    place_of(stream, newest, ret_place);
    return 0;
}

/* Rows may have gone since, at the front or at the end. */
static size_t walk_row(const cnk_wal_extents *x, const cnk_wal_walk *it) {
    if (it->row == 0) return 0;
    if (it->row <= x->count && cnk_wal_extents_nth(x, it->row - 1)->row.e.index == it->index) return it->row;
    size_t low = 0, high = x->count; /* the first row behind it */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (cnk_wal_extents_nth(x, mid)->row.e.index > it->index) high = mid;
        else low = mid + 1;
    }
    return low;
}

bool cnk_wal_walk_file(cnk_wal_port *port, uint32_t file_seq, cnk_wal_walk *it, cnk_wal_stream **ret_stream,
                       cnk_wal_place *ret_place) {
    cnk_list *node = it->stream ? it->stream : port->streams.next;
    port->walk = it;
    port->walked_file = 0;
    for (; node != &port->streams; node = node->next, it->row = 0) {
        cnk_wal_stream *s = CNK_CONTAINER(node, cnk_wal_stream, link);
        it->stream = node;
        it->row = walk_row(&s->extents, it);
        while (it->row < s->extents.count) {
            const cnk_wal_extent *x = cnk_wal_extents_nth(&s->extents, it->row++);
            it->index = x->row.e.index;
            if (x->row.e.index > s->commit_index) break;
            if (!x->file || (uint32_t)x->file->number != file_seq) continue;
            place_of(s, x, ret_place);
            *ret_stream = s;
            return true;
        }
        s->walked_commit = s->commit_index;
        s->walked_last = s->now.last_index;
    }
    it->stream = node;
    port->walk = NULL;
    port->walked_file = file_seq;
    return false;
}

void cnk_wal_walk_end(cnk_wal_port *port) { port->walk = NULL; }

void cnk_wal_walk_leave(cnk_wal_port *port, const cnk_wal_stream *s) {
    cnk_wal_walk *it = port->walk;
    if (!it || it->stream != &s->link) return;
    it->stream = s->link.next;
    it->row = 0;
}
