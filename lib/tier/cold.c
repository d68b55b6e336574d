/* Reads what has left the WAL: implements the table that log/log.h declares.
 *
 * A read goes: stream → section (under the catalog's mutex, taking a reference to the pack, which is opened where it is not yet) → row block (cached, or one
 * read) → a range of the section's data part, whose payloads lie side by side → read in pieces to where the caller uses
 * them, each payload's CRC checked in place: nothing is copied. Any thread; references are all that a read holds. What
 * is damaged ends a read; what was good before it is given out, and what comes after it can be read.
 */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define READ_BYTES ((size_t)1 << 20) /* a piece: with what lies before and after it, it fits a chunk */

/* One stretch of neighbouring DATA rows in one block. */
typedef struct stretch {
    cnk_pack_cursor from; /* its row is the first one */
    uint32_t rows;        /* DATA rows */
    uint64_t pos, len;
    int64_t end_offset;
    bool full; /* the next row does not fit, or lies behind `end` */
} stretch;

typedef struct found {
    cnk_pack *pack; /* referenced */
    const cnk_pack_section *s;
    uint32_t instance;
    bool open;
} found;

static uint64_t cold_bytes_hint(void *self, uint64_t stream, int64_t offset, int64_t end, uint64_t limit);
static int cold_read(void *self, uint64_t stream, int64_t offset, int64_t end, uint32_t bytes_max, bool one_always,
                     cnk_rope *out, int64_t *ret_next, chronik_error *err);
static int cold_find_timestamp(void *self, uint64_t stream, int64_t timestamp, int64_t offset, int64_t end,
                               int64_t *ret_base_offset, chronik_error *err);

const cnk_log_cold cnk_tier_cold_ops = {sizeof(cnk_log_cold), NULL, cold_bytes_hint, cold_read, cold_find_timestamp};

/* ---- finding ---- */

/* The stream's first section that ends after the offset: its number, or count. */
static size_t section_of(const tier_stream *s, int64_t offset) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->sections[mid].s->end_offset <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int hole_check(const tier_stream *s, int64_t offset, chronik_error *err) {
    for (uint32_t i = 0; i < s->hole_count; i++)
        if (offset >= s->holes[i].first_offset && offset < s->holes[i].end_offset)
            return cnk_error(err, CHRONIK_ECORRUPT, 0,
                             "stream %016llx: offsets %lld to %lld are missing: no pack has them",
                             (unsigned long long)s->id, (long long)s->holes[i].first_offset,
                             (long long)(s->holes[i].end_offset - 1));
    return 0;
}

/* Takes a reference to the pack with the first section that ends after the offset and begins below `end`. ENOTFOUND:
 * there is none; ECORRUPT: the offset is known to be missing. */
static int find(cnk_tier *t, uint64_t stream, int64_t offset, int64_t end, chronik_error *err, found *ret_found) {
    int rc = CHRONIK_ENOTFOUND;
    cnk_tier_lock(t);
    const tier_stream *s = cnk_tier_stream_locked(t, stream, false);
    size_t i = s ? section_of(s, offset) : 0;
    int hole = s ? hole_check(s, offset, err) : 0;
    if (hole) {
        rc = hole;
    } else if (s && i < s->count && s->sections[i].s->first_offset < end) {
        const tier_section *x = &s->sections[i];
        *ret_found = (found){cnk_pack_ref(x->in->pack), x->s, x->in->instance, x->in->pack->file != NULL};
        rc = 0;
    }
    cnk_tier_unlock(t);
    return rc;
}

static int open_found(cnk_tier *t, const found *f, chronik_error *err) {
    chronik_error why = CHRONIK_ERROR_INIT;
    int rc = f->open ? 0 : cnk_tier_pack_load(t, f->pack, &why);
    if (rc == 0) return 0;
    return cnk_error(err, rc, 0, "stream %016llx, offsets %lld to %lld: %s", (unsigned long long)f->s->stream,
                     (long long)f->s->first_offset, (long long)(f->s->end_offset - 1), why.text);
}

/* In a pack that is not open, the whole section. */
static uint64_t section_bytes_hint(const tier_section *x, int64_t offset, int64_t end) {
    const cnk_pack *p = x->in->pack;
    if (!p->file) return x->s->data_bytes;
    uint32_t from = cnk_pack_block_of_offset(p, x->s, offset), to = cnk_pack_block_of_offset(p, x->s, end);
    uint64_t low = from == UINT32_MAX ? x->s->data_bytes : p->blocks[from].data_pos;
    bool last = to == UINT32_MAX || to + 1 == x->s->block_first + x->s->block_count;
    return (last ? x->s->data_bytes : p->blocks[to + 1].data_pos) - low;
}

static uint64_t cold_bytes_hint(void *self, uint64_t stream, int64_t offset, int64_t end, uint64_t limit) {
    cnk_tier *t = self;
    uint64_t bytes = 0;
    cnk_tier_lock(t);
    const tier_stream *s = cnk_tier_stream_locked(t, stream, false);
    if (s && hole_check(s, offset, NULL)) bytes = 1; /* to be asked for, and then told */
    for (size_t i = s ? section_of(s, offset) : 0; s && i < s->count && bytes < limit; i++) {
        if (s->sections[i].s->first_offset >= end) break;
        bytes += section_bytes_hint(&s->sections[i], offset, end);
    }
    cnk_tier_unlock(t);
    return bytes < limit ? bytes : limit;
}

/* ---- reading ---- */

static int rows_damaged(const found *f, uint32_t block, int code, chronik_error *err) {
    const cnk_pack_block_row *b = &f->pack->blocks[block];
    return cnk_error(err, code, 0, "%s: stream %016llx, offsets %lld to %lld: the row block at %llu %s", f->pack->path,
                     (unsigned long long)f->s->stream, (long long)b->base_offset, (long long)(b->end_offset - 1),
                     (unsigned long long)b->pos,
                     code == CHRONIK_EUNSUPPORTED ? "was written by a newer version" : "is damaged");
}

/* Gathers the block's DATA rows from the one that holds the offset on, as many as are wanted. */
static int gather(const found *f, uint32_t block, const tier_rows *rows, int64_t offset, int64_t end,
                  uint64_t bytes_max, bool one_always, chronik_error *err, stretch *ret_stretch) {
    stretch x = {.end_offset = offset};
    cnk_pack_cursor c;
    int rc = cnk_pack_cursor_init(&c, f->pack, f->s, block, rows->bytes);
    while (rc == 0 && (rc = cnk_pack_cursor_next(&c)) > 0) {
        rc = 0;
        const cnk_pack_row *r = &c.row;
        if (r->kind != CNK_PACK_KIND_DATA || r->base_offset + r->count <= offset) continue;
        bool fits = x.len + r->len <= bytes_max || (one_always && x.rows == 0);
        if (r->base_offset >= end || !fits) {
            x.full = true;
            break;
        }
        if (x.rows == 0) {
            x.from = c;
            x.pos = r->pos;
        }
        x.rows++;
        x.len += r->len;
        x.end_offset = r->base_offset + r->count;
    }
    if (rc) return rows_damaged(f, block, rc, err);
    *ret_stretch = x;
    return 0;
}

static int payload_damaged(const found *f, const cnk_pack_row *r, chronik_error *err) {
    return cnk_error(err, CHRONIK_ECORRUPT, 0,
                     "%s: stream %016llx, offsets %lld to %lld: the payload at %llu fails its checksum", f->pack->path,
                     (unsigned long long)f->s->stream, (long long)r->base_offset,
                     (long long)(r->base_offset + r->count - 1), (unsigned long long)r->pos);
}

/* Reads the stretch in pieces that end with a page, so that the next one begins with one; checks CRCs where the bytes lie.
 * What is damaged, and all behind it, is not added. */
static int read_stretch(const found *f, const stretch *x, cnk_rope *out, chronik_error *err) {
    cnk_pack_cursor c = x->from;
    uint32_t crc = 0, row_done = 0;
    size_t good = out->len;
    int rc = 0;
    for (uint64_t done = 0; rc == 0 && done < x->len;) {
        uint64_t left = x->len - done, pos = x->pos + done;
        size_t n = left <= READ_BYTES ? (size_t)left : READ_BYTES - (size_t)(pos % CNK_PACK_ALIGN), skew = 0;
        uint8_t *to = cnk_rope_room(out, CNK_PACK_SPAN(pos, n));
        rc = to ? cnk_pack_read(f->pack, pos, n, to, err, &skew)
                : cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a read from a pack");
        if (rc == 0) rc = cnk_rope_add(out, to + skew, n);
        for (size_t at = 0; rc == 0 && at < n;) {
            size_t part = c.row.len - row_done < n - at ? c.row.len - row_done : n - at;
            crc = cnk_crc32c(crc, to + skew + at, part);
            at += part;
            row_done += (uint32_t)part;
            if (row_done < c.row.len) continue;
            if (crc != c.row.crc) {
                rc = payload_damaged(f, &c.row, err);
                break;
            }
            good += row_done;
            int next;
            do next = cnk_pack_cursor_next(&c);
            while (next > 0 && c.row.kind != CNK_PACK_KIND_DATA);
            crc = row_done = 0;
            if (next <= 0) break; /* the block's last row: the stretch ends with it */
        }
        done += n;
    }
    if (rc) cnk_rope_cut(out, good);
    return rc;
}

/* Reads from one block. *ret_next: the offset after it; *ret_full: nothing more is wanted. */
static int read_block(cnk_tier *t, const found *f, uint32_t block, int64_t offset, int64_t end, uint64_t bytes_max,
                      bool one_always, cnk_rope *out, chronik_error *err, int64_t *ret_next, bool *ret_full) {
    tier_rows *rows = NULL;
    stretch x = {.rows = 0};
    int rc = cnk_tier_rows_get(t, f->pack, f->instance, block, f->s->block_first + f->s->block_count, err, &rows);
    if (rc == CHRONIK_ECORRUPT) rc = rows_damaged(f, block, rc, err);
    if (rc == 0) rc = gather(f, block, rows, offset, end, bytes_max, one_always, err, &x);
    if (rc == 0 && x.rows > 0) rc = read_stretch(f, &x, out, err);
    if (rc == 0) {
        *ret_full = x.full;
        *ret_next = x.full ? x.end_offset : f->pack->blocks[block].end_offset;
    }
    cnk_tier_rows_unref(rows);
    return rc;
}

static int cold_read(void *self, uint64_t stream, int64_t offset, int64_t end, uint32_t bytes_max, bool one_always,
                     cnk_rope *out, int64_t *ret_next, chronik_error *err) {
    cnk_tier *t = self;
    size_t start = out->len;
    bool full = false;
    int rc = 0;
    while (rc == 0 && !full && offset < end && out->len - start < bytes_max) {
        found f;
        rc = find(t, stream, offset, end, err, &f);
        if (rc) break;
        rc = open_found(t, &f, err);
        int64_t next = offset;
        if (rc == 0) {
            uint32_t block = cnk_pack_block_of_offset(f.pack, f.s, offset);
            CNK_ASSERT(block != UINT32_MAX);
            rc = read_block(t, &f, block, offset, end, bytes_max - (out->len - start), one_always && out->len == start,
                            out, err, &next, &full);
        }
        cnk_pack_unref(f.pack);
        if (rc == 0) offset = full || next > offset ? next : offset + 1;
    }
    if (rc == CHRONIK_ENOTFOUND) rc = 0;               /* the tier's part ends here */
    if (rc && out->len > start) rc = 0; /* what is damaged is told when it is asked for first */
    if (ret_next) *ret_next = offset;
    cnk_tier_lock(t);
    t->stats.cold_reads++;
    t->stats.cold_bytes += out->len - start;
    cnk_tier_unlock(t);
    return rc;
}

/* ---- timestamps ---- */

/* The first DATA row of the block at or after the timestamp, in [offset, end): its base offset. ENOTFOUND. */
static int block_find_timestamp(cnk_tier *t, const found *f, uint32_t block, int64_t timestamp, int64_t offset,
                                int64_t end, int64_t *ret_base_offset, chronik_error *err) {
    tier_rows *rows = NULL;
    cnk_pack_cursor c;
    int rc = cnk_tier_rows_get(t, f->pack, f->instance, block, f->s->block_first + f->s->block_count, err, &rows);
    if (rc == 0) rc = cnk_pack_cursor_init(&c, f->pack, f->s, block, rows->bytes);
    if (rc == 0)
        while ((rc = cnk_pack_cursor_next(&c)) > 0) {
            const cnk_pack_row *r = &c.row;
            if (r->kind != CNK_PACK_KIND_DATA || r->base_offset + r->count <= offset) continue;
            if (r->base_offset >= end) {
                rc = 0;
                break;
            }
            if (r->max_timestamp >= timestamp) break;
        }
    if (rc > 0) {
        *ret_base_offset = c.row.base_offset;
        rc = 0;
    } else if (rc == 0) {
        rc = CHRONIK_ENOTFOUND;
    } else {
        rc = rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED ? rows_damaged(f, block, rc, err) : rc;
    }
    cnk_tier_rows_unref(rows);
    return rc;
}

static int section_find_timestamp(cnk_tier *t, const found *f, int64_t timestamp, int64_t offset, int64_t end,
                                  int64_t *ret_base_offset, chronik_error *err) {
    int rc = open_found(t, f, err);
    if (rc) return rc;
    uint32_t block = cnk_pack_block_of_offset(f->pack, f->s, offset), after = f->s->block_first + f->s->block_count;
    for (rc = CHRONIK_ENOTFOUND; block < after && rc == CHRONIK_ENOTFOUND; block++)
        if (f->pack->blocks[block].max_timestamp >= timestamp && f->pack->blocks[block].base_offset < end)
            rc = block_find_timestamp(t, f, block, timestamp, offset, end, ret_base_offset, err);
    return rc;
}

static int cold_find_timestamp(void *self, uint64_t stream, int64_t timestamp, int64_t offset, int64_t end,
                               int64_t *ret_base_offset, chronik_error *err) {
    cnk_tier *t = self;
    int rc = CHRONIK_ENOTFOUND;
    while (rc == CHRONIK_ENOTFOUND && offset < end) {
        found f;
        rc = find(t, stream, offset, end, err, &f);
        if (rc) break;
        rc = CHRONIK_ENOTFOUND;
        if (f.s->max_timestamp >= timestamp) rc = section_find_timestamp(t, &f, timestamp, offset, end, ret_base_offset, err);
        offset = f.s->end_offset > offset ? f.s->end_offset : offset + 1;
        cnk_pack_unref(f.pack);
    }
    return rc;
}
