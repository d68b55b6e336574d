/* What goes into a pack, gathered before anything is written: sections, rows already in their disk form (pack.h has the
 * byte table), and the copies that bring each payload to its place.
 *
 * Everything in a list counts from the list's own start, so lists from several shards can be put one behind the other
 * without touching a row. A list belongs to one thread at a time. */
#include "segment/pack.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "segment/pack_format.h"

#define COPY_IS_DATA (UINT64_C(1) << 63) /* in dst, until the section's control part has its final length */

static void block_begin(cnk_pack_list *list, const cnk_pack_row *row);
static int block_end(cnk_pack_list *list);
static void row_encode(cnk_pack_list *list, const cnk_pack_row *row);
static int copy_add(cnk_pack_list *list, const cnk_pack_row *row, uint64_t src);

void cnk_pack_list_init(cnk_pack_list *list) {
    *list = (cnk_pack_list){0};
    cnk_writer_growing(&list->rows, 0);
}

void cnk_pack_list_free(cnk_pack_list *list) {
    cnk_free(list->sections);
    cnk_free(list->blocks);
    cnk_free(list->copies);
    cnk_writer_free(&list->rows);
    cnk_pack_list_init(list);
}

int cnk_pack_list_section(cnk_pack_list *list, uint64_t stream) {
    int rc = cnk_pack_list_end(list);
    if (rc) return rc;
    rc = cnk_array_reserve((void **)&list->sections, &list->section_capacity, list->section_count + 1,
                           sizeof *list->sections);
    if (rc) return rc;
    list->sections[list->section_count] = (cnk_pack_section){.stream = stream,
                                                             .pos = list->payload_bytes,
                                                             .block_first = (uint32_t)list->block_count,
                                                             .max_timestamp = INT64_MIN};
    list->open = true;
    list->copy_from = list->copy_count;
    list->block_from = list->block_count;
    list->control_pos = list->data_pos = 0;
    list->block.rows = 0;
    return 0;
}

static bool row_follows(const cnk_pack_list *list, const cnk_pack_section *s, const cnk_pack_row *row) {
    bool data = row->kind == CNK_PACK_KIND_DATA;
    if (row->kind == 0 || row->len > CNK_PACK_ENTRY_BYTES_MAX || (!data && row->count != 0)) return false;
    if (row->base_offset < 0 || row->base_offset > INT64_MAX - (int64_t)row->count) return false;
    if (s->entries == 0) return true;
    return row->index > list->last.index && row->term >= list->last.term && row->base_offset >= list->next_offset;
}

int cnk_pack_list_row(cnk_pack_list *list, const cnk_pack_row *row, uint64_t src) {
    CNK_ASSERT(list->open);
    cnk_pack_section *s = &list->sections[list->section_count];
    if (!row_follows(list, s, row) || list->entry_count >= CNK_PACK_ROWS_MAX) return CHRONIK_EINVAL;
    if (list->block.rows > 0 && list->rows.len - list->block_start + PACK_ROW_BYTES_MAX > CNK_PACK_ROW_BLOCK_BYTES) {
        int rc = block_end(list);
        if (rc) return rc;
    }
    if (s->entries == 0) {
        s->first_index = row->index;
        s->first_offset = row->base_offset;
        s->first_term = row->term;
    }
    if (list->block.rows == 0) block_begin(list, row);
    row_encode(list, row);
    if (list->rows.error) return list->rows.error;
    int rc = row->len > 0 ? copy_add(list, row, src) : 0;
    if (rc) return rc;
    if (row->kind == CNK_PACK_KIND_DATA) {
        list->data_pos += row->len;
        if (row->max_timestamp > list->block.max_timestamp) list->block.max_timestamp = row->max_timestamp;
        if (row->max_timestamp > s->max_timestamp) s->max_timestamp = row->max_timestamp;
    } else {
        list->control_pos += row->len;
    }
    list->block.rows++;
    list->entry_count++;
    s->entries++;
    s->last_index = row->index;
    s->last_term = row->term;
    list->next_offset = s->end_offset = row->base_offset + row->count;
    list->last = *row;
    return 0;
}

/* A section without rows vanishes. */
int cnk_pack_list_end(cnk_pack_list *list) {
    if (!list->open) return 0;
    cnk_pack_section *s = &list->sections[list->section_count];
    list->open = false;
    if (s->entries == 0) return 0;
    int rc = block_end(list);
    if (rc) return rc;
    s->block_count = (uint32_t)(list->block_count - list->block_from);
    s->control_bytes = list->control_pos;
    s->data_bytes = list->data_pos;
    for (size_t i = list->copy_from; i < list->copy_count; i++) {
        cnk_pack_copy *c = &list->copies[i];
        c->dst = c->dst & COPY_IS_DATA ? (c->dst & ~COPY_IS_DATA) + s->pos + s->control_bytes : c->dst + s->pos;
    }
    list->payload_bytes += s->control_bytes + s->data_bytes;
    list->section_count++;
    return 0;
}

static int copy_add(cnk_pack_list *list, const cnk_pack_row *row, uint64_t src) {
    int rc =
        cnk_array_reserve((void **)&list->copies, &list->copy_capacity, list->copy_count + 1, sizeof *list->copies);
    if (rc) return rc;
    uint64_t dst = row->kind == CNK_PACK_KIND_DATA ? list->data_pos | COPY_IS_DATA : list->control_pos;
    list->copies[list->copy_count++] = (cnk_pack_copy){src, dst, row->len, row->crc};
    return 0;
}

/* Leaves room for the header, which block_end fills; makes `last` what the block's first row is compared with. */
static void block_begin(cnk_pack_list *list, const cnk_pack_row *row) {
    list->block_start = list->rows.len;
    list->block = (cnk_pack_block_row){.pos = list->rows.len,
                                       .first_index = row->index,
                                       .base_offset = row->base_offset,
                                       .max_timestamp = INT64_MIN,
                                       .data_pos = list->data_pos};
    list->next_offset = row->base_offset;
    list->last = (cnk_pack_row){.index = row->index - 1, .term = row->term, .max_timestamp = row->max_timestamp};
    uint8_t *h = cnk_write_space(&list->rows, PACK_BLOCK_HEADER_BYTES);
    if (!h) return;
    memset(h, 0, PACK_BLOCK_HEADER_BYTES);
    cnk_store_le16(h + 8, PACK_BLOCK_ROWS);
    cnk_store_le64(h + 16, list->sections[list->section_count].stream);
    cnk_store_le64(h + 24, row->index);
    cnk_store_le64(h + 32, (uint64_t)row->base_offset);
    cnk_store_le64(h + 40, (uint64_t)row->max_timestamp);
    cnk_store_le64(h + 48, list->data_pos);
    cnk_store_le64(h + 56, list->control_pos);
    cnk_store_le32(h + 64, row->term);
}

static int block_end(cnk_pack_list *list) {
    int rc =
        cnk_array_reserve((void **)&list->blocks, &list->block_capacity, list->block_count + 1, sizeof *list->blocks);
    if (rc) return rc;
    uint8_t *h = list->rows.data + list->block_start;
    uint32_t len = (uint32_t)(list->rows.len - list->block_start);
    CNK_ASSERT(len <= CNK_PACK_ROW_BLOCK_BYTES_MAX);
    cnk_store_le32(h + 4, len);
    cnk_store_le32(h + 12, list->block.rows);
    list->block.len = len;
    list->block.end_offset = list->next_offset;
    list->block.crc = cnk_crc32c(0, h + 4, len - 4);
    cnk_store_le32(h, list->block.crc);
    list->blocks[list->block_count++] = list->block;
    list->block.rows = 0;
    return 0;
}

static uint16_t aux_mask(const uint8_t *a, const uint8_t *b) {
    uint16_t mask = 0;
    for (unsigned i = 0; i < 16; i++)
        if (a[i] != b[i]) mask = (uint16_t)(mask | (1u << i));
    return mask;
}

static void row_encode(cnk_pack_list *list, const cnk_pack_row *row) {
    const cnk_pack_row *last = &list->last;
    cnk_writer *w = &list->rows;
    uint16_t aux = aux_mask(row->aux, last->aux);
    uint64_t skipped = row->index - last->index - 1;
    uint64_t gap = (uint64_t)row->base_offset - (uint64_t)list->next_offset;
    /* Differences wrap: any two timestamps have one, and adding it back gives the same number. */
    uint64_t later = (uint64_t)row->max_timestamp - (uint64_t)last->max_timestamp;
    uint32_t flags = row->kind <= PACK_ROW_KIND ? row->kind : 0;
    if (later) flags |= PACK_ROW_TIMESTAMP;
    if (row->count) flags |= PACK_ROW_COUNT;
    if (aux) flags |= PACK_ROW_AUX;
    if (row->term != last->term) flags |= PACK_ROW_TERM;
    if (gap) flags |= PACK_ROW_OFFSET_GAP;
    if (skipped) flags |= PACK_ROW_INDEX_GAP;
    cnk_write_uvarint(w, flags);
    if (row->kind > PACK_ROW_KIND) cnk_write_uvarint(w, row->kind);
    if (skipped) cnk_write_uvarint(w, skipped);
    if (gap) cnk_write_uvarint(w, gap);
    if (row->term != last->term) cnk_write_uvarint(w, row->term - last->term);
    if (row->count) cnk_write_uvarint(w, row->count);
    if (later) cnk_write_varint(w, (int64_t)later);
    if (aux) {
        cnk_write_le16(w, aux);
        for (unsigned i = 0; i < 16; i++)
            if (aux & (1u << i)) cnk_write_u8(w, row->aux[i]);
    }
    cnk_write_uvarint(w, row->len);
    if (row->len > 0) cnk_write_le32(w, row->crc);
}
