/* Opens packs and finds things in them (pack.h has the byte table). Everything from the disk goes through checked
 * cursors and is checked once, when a pack is opened or a block is read; what cnk_pack holds may be relied on
 * afterwards.
 *
 * A pack is immutable once open; any thread. */
#include "segment/pack.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "segment/pack_format.h"

#define OPEN_READ_BYTES (64u << 10) /* the trailer and, nearly always, the directory */

static int read_trailer(cnk_pack *p, const uint8_t *t, chronik_error *err);
static int read_directory(cnk_pack *p, const uint8_t *d, chronik_error *err);

static int corrupt(const cnk_pack *p, chronik_error *err, const char *what, uint64_t pos) {
    return cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: %s at %llu; `chronikd fsck` says more", p->path, what,
                     (unsigned long long)pos);
}

static int unsupported(const cnk_pack *p, chronik_error *err, const char *what) {
    return cnk_error(err, CHRONIK_EUNSUPPORTED, 0,
                     "%s: %s that this version does not know; it was written by a newer one", p->path, what);
}

/* ---- opening ---- */

static int read_exactly(const cnk_pack *p, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    int64_t n = p->io->disk_ops->read(p->io->disk, p->file, buf, len, pos, err);
    if (n < 0) return (int)n;
    return (uint64_t)n == len ? 0 : corrupt(p, err, "the file ends too early", pos + (uint64_t)n);
}

/* The directory lies before the end that has been read, partly or whole: reads it on its own. */
static int read_far_directory(cnk_pack *p, chronik_error *err) {
    size_t span = CNK_PACK_SPAN(p->directory_pos, p->directory_len), skew;
    uint8_t *buf = cnk_pages_alloc(span);
    if (!buf) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory for its directory", p->path);
    int rc = cnk_pack_read(p, p->directory_pos, p->directory_len, buf, err, &skew);
    if (rc == 0) rc = read_directory(p, buf + skew, err);
    cnk_pages_free(buf, span);
    return rc;
}

static int read_end(cnk_pack *p, uint8_t *buf, chronik_error *err) {
    int rc = p->io->disk_ops->size_get(p->io->disk, p->file, err, &p->file_bytes);
    if (rc) return rc;
    if (p->file_bytes < 2 * CNK_PACK_ALIGN || p->file_bytes % CNK_PACK_ALIGN != 0)
        return corrupt(p, err, "the file has a length that no pack has: it ends", p->file_bytes);
    size_t len = p->file_bytes < OPEN_READ_BYTES ? (size_t)p->file_bytes : OPEN_READ_BYTES;
    uint64_t from = p->file_bytes - len;
    rc = read_exactly(p, buf, len, from, err);
    if (rc) return rc;
    rc = read_trailer(p, buf + len - PACK_TRAILER_BYTES, err);
    if (rc) return rc;
    if (p->directory_pos < from) return read_far_directory(p, err);
    return read_directory(p, buf + (p->directory_pos - from), err);
}

int cnk_pack_open(const chronik_io *io, const char *path, chronik_error *err, cnk_pack **ret_pack) {
    int rc = CHRONIK_ENOMEM;
    uint8_t *buf = NULL;
    cnk_pack *p = cnk_calloc(1, sizeof *p);
    if (!p) goto out;
    atomic_init(&p->refs, 1);
    p->io = io;
    p->path = cnk_strdup(path);
    buf = cnk_pages_alloc(OPEN_READ_BYTES);
    if (!p->path || !buf) goto out;
    rc = io->disk_ops->open(io->disk, path, CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT, err, &p->file);
    if (rc == 0) rc = read_end(p, buf, err);
out:
    if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "%s: no memory to open it", path);
    if (buf) cnk_pages_free(buf, OPEN_READ_BYTES);
    if (rc)
        cnk_pack_unref(p);
    else
        *ret_pack = p;
    return rc;
}

cnk_pack *cnk_pack_ref(cnk_pack *pack) {
    atomic_fetch_add_explicit(&pack->refs, 1, memory_order_relaxed);
    return pack;
}

void cnk_pack_unref(cnk_pack *pack) {
    if (!pack || atomic_fetch_sub_explicit(&pack->refs, 1, memory_order_acq_rel) != 1) return;
    pack->io->disk_ops->close(pack->io->disk, pack->file);
    cnk_free(pack->path);
    cnk_free(pack->sections);
    cnk_free(pack->blocks);
    cnk_free(pack);
}

static int read_trailer(cnk_pack *p, const uint8_t *t, chronik_error *err) {
    uint64_t at = p->file_bytes - PACK_TRAILER_BYTES;
    cnk_reader r = cnk_reader_of(t, PACK_TRAILER_BYTES);
    uint64_t pos = cnk_read_le64(&r);
    uint32_t len = cnk_read_le32(&r), directory_crc = cnk_read_le32(&r);
    memcpy(p->uid, cnk_read_bytes(&r, 16), 16);
    p->seq = cnk_read_le64(&r);
    uint64_t file_bytes = cnk_read_le64(&r);
    uint16_t version = cnk_read_le16(&r), must = cnk_read_le16(&r);
    uint32_t crc = cnk_read_le32(&r);
    if (cnk_read_le64(&r) != PACK_TRAILER_MAGIC || crc != cnk_crc32c(0, t, 52))
        return corrupt(p, err, "the trailer is damaged", at);
    if (version != PACK_VERSION || must != 0) return unsupported(p, err, "a format");
    if (file_bytes != p->file_bytes)
        return corrupt(p, err, "the file does not have the length it was written with", at);
    if (pos < CNK_PACK_ALIGN || pos > at || len > at - pos || len < PACK_DIRECTORY_HEADER_BYTES)
        return corrupt(p, err, "the trailer names an impossible directory", at);
    p->directory_pos = pos;
    p->directory_len = len;
    p->directory_crc = directory_crc;
    return 0;
}

/* ---- the directory ---- */

cnk_pack_section cnk_pack_section_row_read(const uint8_t *row, uint32_t *ret_must) {
    cnk_reader r = cnk_reader_of(row, PACK_SECTION_ROW_BYTES);
    cnk_pack_section s;
    s.stream = cnk_read_le64(&r);
    s.first_index = cnk_read_le64(&r);
    s.last_index = cnk_read_le64(&r);
    s.first_offset = (int64_t)cnk_read_le64(&r);
    s.end_offset = (int64_t)cnk_read_le64(&r);
    s.max_timestamp = (int64_t)cnk_read_le64(&r);
    s.pos = cnk_read_le64(&r);
    s.control_bytes = cnk_read_le64(&r);
    s.data_bytes = cnk_read_le64(&r);
    s.block_first = cnk_read_le32(&r);
    s.block_count = cnk_read_le32(&r);
    s.first_term = cnk_read_le32(&r);
    s.last_term = cnk_read_le32(&r);
    s.entries = cnk_read_le32(&r);
    *ret_must = cnk_read_le32(&r);
    return s;
}

static cnk_pack_block_row block_row(const uint8_t *row) {
    cnk_reader r = cnk_reader_of(row, PACK_BLOCK_ROW_BYTES);
    cnk_pack_block_row b;
    b.pos = cnk_read_le64(&r);
    b.len = cnk_read_le32(&r);
    b.rows = cnk_read_le32(&r);
    b.first_index = cnk_read_le64(&r);
    b.base_offset = (int64_t)cnk_read_le64(&r);
    b.end_offset = (int64_t)cnk_read_le64(&r);
    b.max_timestamp = (int64_t)cnk_read_le64(&r);
    b.data_pos = cnk_read_le64(&r);
    b.crc = cnk_read_le32(&r);
    return b;
}

bool cnk_pack_section_sound(const cnk_pack_section *s, uint64_t limit) {
    if (s->first_index > s->last_index || s->entries == 0 || s->entries - 1 > s->last_index - s->first_index)
        return false;
    if (s->first_offset < 0 || s->first_offset > s->end_offset || s->first_term > s->last_term) return false;
    return s->pos >= CNK_PACK_ALIGN && s->pos <= limit && s->control_bytes <= limit - s->pos &&
           s->data_bytes <= limit - s->pos - s->control_bytes;
}

/* Its blocks are its own, and follow each other. */
static bool section_blocks_sound(const cnk_pack *p, const cnk_pack_section *s) {
    if (s->block_count == 0 || s->block_first >= p->block_count || s->block_count > p->block_count - s->block_first)
        return false;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < s->block_count; i++) {
        const cnk_pack_block_row *b = &p->blocks[s->block_first + i], *before = i ? b - 1 : NULL;
        uint64_t index_min = before ? before->first_index + 1 : s->first_index;
        int64_t offset_min = before ? before->end_offset : s->first_offset;
        if (b->first_index < index_min || b->first_index > s->last_index || (!before && b->first_index != index_min))
            return false;
        if (b->base_offset < offset_min || b->base_offset > b->end_offset || b->end_offset > s->end_offset ||
            b->data_pos > s->data_bytes || (before && b->data_pos < before->data_pos))
            return false;
        rows += b->rows;
    }
    return rows == s->entries;
}

static int read_directory(cnk_pack *p, const uint8_t *d, chronik_error *err) {
    uint64_t pos = p->directory_pos;
    uint32_t len = p->directory_len;
    cnk_reader r = cnk_reader_of(d, len);
    uint32_t crc = cnk_read_le32(&r), length = cnk_read_le32(&r);
    uint16_t kind = cnk_read_le16(&r), must = cnk_read_le16(&r);
    uint32_t sections = cnk_read_le32(&r), section_bytes = cnk_read_le32(&r);
    uint32_t blocks = cnk_read_le32(&r), block_bytes = cnk_read_le32(&r);
    (void)cnk_read_le32(&r);
    if (r.error || length != len || kind != PACK_BLOCK_DIRECTORY || crc != p->directory_crc ||
        crc != cnk_crc32c(0, d + 4, len - 4))
        return corrupt(p, err, "the directory is damaged", pos);
    if (must) return unsupported(p, err, "a directory");
    if (sections == 0 || section_bytes < PACK_SECTION_ROW_BYTES || block_bytes < PACK_BLOCK_ROW_BYTES ||
        (uint64_t)sections * section_bytes + (uint64_t)blocks * block_bytes != cnk_reader_left(&r))
        return corrupt(p, err, "the directory's rows do not fit it", pos);
    p->sections = cnk_calloc(sections, sizeof *p->sections);
    p->blocks = cnk_calloc(blocks ? blocks : 1, sizeof *p->blocks);
    if (!p->sections || !p->blocks) return CHRONIK_ENOMEM;
    p->section_count = sections;
    p->block_count = blocks;
    const uint8_t *section_rows = r.p, *block_rows = r.p + (size_t)sections * section_bytes;
    for (uint32_t i = 0; i < blocks; i++) {
        cnk_pack_block_row *b = &p->blocks[i];
        *b = block_row(block_rows + (size_t)i * block_bytes);
        if (b->pos < CNK_PACK_ALIGN || b->pos > pos || b->len > pos - b->pos || b->len < PACK_BLOCK_HEADER_BYTES ||
            b->len > CNK_PACK_ROW_BLOCK_BYTES_MAX || b->rows == 0 || b->rows > b->len)
            return corrupt(p, err, "the directory has an impossible row block", pos);
    }
    for (uint32_t i = 0; i < sections; i++) {
        uint32_t row_must;
        p->sections[i] = cnk_pack_section_row_read(section_rows + (size_t)i * section_bytes, &row_must);
        if (row_must) return unsupported(p, err, "a section");
        if (!cnk_pack_section_sound(&p->sections[i], pos) || !section_blocks_sound(p, &p->sections[i]) ||
            (i && p->sections[i].stream <= p->sections[i - 1].stream))
            return corrupt(p, err, "the directory has an impossible section", pos);
    }
    return 0;
}

/* ---- finding ---- */

const cnk_pack_section *cnk_pack_find(const cnk_pack *pack, uint64_t stream) {
    size_t low = 0, high = pack->section_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (pack->sections[mid].stream < stream)
            low = mid + 1;
        else
            high = mid;
    }
    return low < pack->section_count && pack->sections[low].stream == stream ? &pack->sections[low] : NULL;
}

/* The first block that ends after the offset: blocks before it end at or below it. */
uint32_t cnk_pack_block_of_offset(const cnk_pack *pack, const cnk_pack_section *s, int64_t offset) {
    uint32_t low = 0, high = s->block_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (pack->blocks[s->block_first + mid].end_offset <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->block_count ? s->block_first + low : UINT32_MAX;
}

uint32_t cnk_pack_block_of_index(const cnk_pack *pack, const cnk_pack_section *s, uint64_t index) {
    if (index > s->last_index) return UINT32_MAX;
    uint32_t low = 0, high = s->block_count; /* the last block that begins at or before the index, else the first */
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (pack->blocks[s->block_first + mid].first_index <= index)
            low = mid;
        else
            high = mid;
    }
    return s->block_first + low;
}

/* Timestamps are not ordered, so this looks at each block. */
uint32_t cnk_pack_block_of_timestamp(const cnk_pack *pack, const cnk_pack_section *s, int64_t timestamp) {
    if (s->max_timestamp < timestamp) return UINT32_MAX;
    for (uint32_t i = s->block_first; i < s->block_first + s->block_count; i++)
        if (pack->blocks[i].max_timestamp >= timestamp) return i;
    return UINT32_MAX;
}

/* ---- rows ---- */

int cnk_pack_block_read(const cnk_pack *pack, uint32_t block, void *buf, chronik_error *err,
                        const uint8_t **ret_bytes) {
    CNK_ASSERT(block < pack->block_count);
    const cnk_pack_block_row *b = &pack->blocks[block];
    size_t skew;
    int rc = cnk_pack_read(pack, b->pos, b->len, buf, err, &skew);
    if (rc) return rc;
    rc = cnk_pack_block_check(pack, block, (const uint8_t *)buf + skew, err);
    if (rc == 0) *ret_bytes = (const uint8_t *)buf + skew;
    return rc;
}

int cnk_pack_block_check(const cnk_pack *pack, uint32_t block, const uint8_t *bytes, chronik_error *err) {
    const cnk_pack_block_row *b = &pack->blocks[block];
    uint32_t crc = cnk_crc32c(0, bytes + 4, b->len - 4);
    if (crc == b->crc && cnk_load_le32(bytes) == b->crc && cnk_load_le32(bytes + 4) == b->len) return 0;
    return corrupt(pack, err, "a row block is damaged", b->pos);
}

int cnk_pack_cursor_init(cnk_pack_cursor *c, const cnk_pack *pack, const cnk_pack_section *s, uint32_t block,
                         const uint8_t *bytes) {
    const cnk_pack_block_row *b = &pack->blocks[block];
    *c = (cnk_pack_cursor){.r = cnk_reader_of(bytes, b->len)};
    cnk_reader *r = &c->r;
    (void)cnk_read_le64(r); /* CRC and length, which cnk_pack_block_read has checked */
    uint16_t kind = cnk_read_le16(r), must = cnk_read_le16(r);
    c->rows_left = cnk_read_le32(r);
    uint64_t stream = cnk_read_le64(r);
    c->row.index = cnk_read_le64(r) - 1;
    c->next_offset = (int64_t)cnk_read_le64(r);
    c->row.max_timestamp = (int64_t)cnk_read_le64(r);
    uint64_t data = cnk_read_le64(r), control = cnk_read_le64(r);
    c->row.term = cnk_read_le32(r);
    (void)cnk_read_le32(r);
    if (must) return CHRONIK_EUNSUPPORTED;
    if (r->error || kind != PACK_BLOCK_ROWS || stream != s->stream || c->rows_left != b->rows ||
        c->row.index + 1 != b->first_index || c->next_offset != b->base_offset || data != b->data_pos ||
        data > s->data_bytes || control > s->control_bytes)
        return CHRONIK_ECORRUPT;
    c->data_pos = s->pos + s->control_bytes + data;
    c->data_end = s->pos + s->control_bytes + s->data_bytes;
    c->control_pos = s->pos + control;
    c->control_end = s->pos + s->control_bytes;
    return 0;
}

static void read_aux(cnk_reader *r, uint8_t aux[16]) {
    uint16_t mask = cnk_read_le16(r);
    for (unsigned i = 0; i < 16; i++)
        if (mask & (1u << i)) aux[i] = cnk_read_u8(r);
}

/* Finds the payload's place, which follows that of the row before in the same part of the section. */
static bool place_row(cnk_pack_cursor *c) {
    bool data = c->row.kind == CNK_PACK_KIND_DATA;
    uint64_t *pos = data ? &c->data_pos : &c->control_pos;
    if (c->row.len > (data ? c->data_end : c->control_end) - *pos) return false;
    c->row.pos = *pos;
    *pos += c->row.len;
    return data || c->row.count == 0;
}

int cnk_pack_cursor_next(cnk_pack_cursor *c) {
    if (c->rows_left == 0) return 0;
    cnk_reader *r = &c->r;
    cnk_pack_row *row = &c->row;
    uint64_t flags = cnk_read_uvarint(r);
    if (flags & ~(uint64_t)PACK_ROW_FLAGS_KNOWN) return CHRONIK_EUNSUPPORTED;
    uint64_t kind = flags & PACK_ROW_KIND;
    if (kind == 0) kind = cnk_read_uvarint(r);
    uint64_t skipped = flags & PACK_ROW_INDEX_GAP ? cnk_read_uvarint(r) : 0;
    uint64_t gap = flags & PACK_ROW_OFFSET_GAP ? cnk_read_uvarint(r) : 0;
    uint64_t term = row->term + (flags & PACK_ROW_TERM ? (uint64_t)cnk_read_uvarint32(r) : 0);
    row->count = flags & PACK_ROW_COUNT ? cnk_read_uvarint32(r) : 0;
    if (flags & PACK_ROW_TIMESTAMP)
        row->max_timestamp = (int64_t)((uint64_t)row->max_timestamp + (uint64_t)cnk_read_varint(r));
    if (flags & PACK_ROW_AUX) read_aux(r, row->aux);
    row->len = cnk_read_uvarint32(r);
    row->crc = row->len > 0 ? cnk_read_le32(r) : 0;
    if (r->error || kind == 0 || kind > UINT16_MAX || term > UINT32_MAX || row->len > CNK_PACK_ENTRY_BYTES_MAX ||
        skipped > UINT64_MAX - 1 - row->index || gap > (uint64_t)(INT64_MAX - c->next_offset) ||
        row->count > (uint64_t)INT64_MAX - (uint64_t)c->next_offset - gap)
        return CHRONIK_ECORRUPT;
    row->kind = (uint16_t)kind;
    row->term = (uint32_t)term;
    row->index += skipped + 1;
    row->base_offset = c->next_offset + (int64_t)gap;
    c->next_offset = row->base_offset + row->count;
    if (!place_row(c)) return CHRONIK_ECORRUPT;
    c->rows_left--;
    if (c->rows_left == 0 && cnk_reader_left(r) != 0) return CHRONIK_ECORRUPT;
    return 1;
}

/* ---- raw reads ---- */

int cnk_pack_read(const cnk_pack *pack, uint64_t pos, size_t len, void *buf, chronik_error *err, size_t *ret_skew) {
    uint64_t from = pos / CNK_PACK_ALIGN * CNK_PACK_ALIGN;
    int rc = read_exactly(pack, buf, CNK_PACK_SPAN(pos, len), from, err);
    if (rc == 0) *ret_skew = (size_t)(pos - from);
    return rc;
}
