/* A pack's description, for those who keep one to know what it holds without opening it (pack.h has the byte table).
 *
 * What is decoded here has been written by ourselves and was under a CRC, but is checked like anything from a disk. It is
 * believed as to what the pack holds; before anything is read from the pack, cnk_pack_complete compares it with the file. */
#include "base/mem.h"
#include "segment/pack_format.h"

void cnk_pack_describe(const cnk_pack *p, cnk_writer *out) {
    cnk_write_le64(out, p->seq);
    cnk_write_bytes(out, p->uid, sizeof p->uid);
    cnk_write_le64(out, p->file_bytes);
    cnk_write_le64(out, p->directory_pos);
    cnk_write_le32(out, p->directory_len);
    cnk_write_le32(out, p->directory_crc);
    cnk_write_le32(out, p->section_count);
    cnk_write_le32(out, PACK_SECTION_ROW_BYTES);
    for (uint32_t i = 0; i < p->section_count; i++) cnk_pack_section_row_write(out, &p->sections[i]);
}

static int read_sections(cnk_pack *p, cnk_reader *r, uint32_t row_bytes) {
    for (uint32_t i = 0; i < p->section_count; i++) {
        cnk_pack_section *s = &p->sections[i];
        uint32_t must;
        *s = cnk_pack_section_row_read(cnk_read_bytes(r, row_bytes), &must);
        if (must) return CHRONIK_EUNSUPPORTED;
        if (!cnk_pack_section_sound(s, p->directory_pos) || s->block_count == 0 || (i && s->stream <= s[-1].stream))
            return CHRONIK_ECORRUPT;
    }
    return 0;
}

int cnk_pack_described(const chronik_io *io, const void *bytes, size_t len, cnk_pack **ret_pack) {
    cnk_reader r = cnk_reader_of(bytes, len);
    cnk_pack *p = cnk_calloc(1, sizeof *p);
    if (!p) return CHRONIK_ENOMEM;
    atomic_init(&p->refs, 1);
    p->io = io;
    p->seq = cnk_read_le64(&r);
    const uint8_t *uid = cnk_read_bytes(&r, sizeof p->uid);
    if (uid) memcpy(p->uid, uid, sizeof p->uid);
    p->file_bytes = cnk_read_le64(&r);
    p->directory_pos = cnk_read_le64(&r);
    p->directory_len = cnk_read_le32(&r);
    p->directory_crc = cnk_read_le32(&r);
    uint32_t count = cnk_read_le32(&r), row_bytes = cnk_read_le32(&r);
    int rc = CHRONIK_ECORRUPT;
    if (r.error || count == 0 || row_bytes < PACK_SECTION_ROW_BYTES ||
        (uint64_t)count * row_bytes != cnk_reader_left(&r) || p->directory_pos > p->file_bytes)
        goto out;
    p->sections = cnk_calloc(count, sizeof *p->sections);
    p->section_count = count;
    rc = p->sections ? read_sections(p, &r, row_bytes) : CHRONIK_ENOMEM;
out:
    if (rc)
        cnk_pack_unref(p);
    else
        *ret_pack = p;
    return rc;
}

static bool sections_same(const cnk_pack_section *a, const cnk_pack_section *b) {
    return a->stream == b->stream && a->first_index == b->first_index && a->last_index == b->last_index &&
           a->first_offset == b->first_offset && a->end_offset == b->end_offset &&
           a->max_timestamp == b->max_timestamp && a->pos == b->pos && a->control_bytes == b->control_bytes &&
           a->data_bytes == b->data_bytes && a->block_first == b->block_first && a->block_count == b->block_count &&
           a->first_term == b->first_term && a->last_term == b->last_term && a->entries == b->entries;
}

int cnk_pack_complete(cnk_pack *p, cnk_pack *opened) {
    if (memcmp(p->uid, opened->uid, sizeof p->uid) != 0 || p->seq != opened->seq ||
        p->file_bytes != opened->file_bytes || p->directory_pos != opened->directory_pos ||
        p->directory_len != opened->directory_len || p->directory_crc != opened->directory_crc ||
        p->section_count != opened->section_count)
        return CHRONIK_ECORRUPT;
    for (uint32_t i = 0; i < p->section_count; i++)
        if (!sections_same(&p->sections[i], &opened->sections[i])) return CHRONIK_ECORRUPT;
    if (p->file) return 0;
    p->file = opened->file;
    p->blocks = opened->blocks;
    p->block_count = opened->block_count;
    opened->file = NULL;
    opened->blocks = NULL;
    return 0;
}
