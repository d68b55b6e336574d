/* Packs from the disk are not to be trusted: whatever a file holds, opening, finding, walking and checking end with an
 * answer or an error. The first byte chooses: 0: the file as it is; else the checksums are made right first, so that
 * what lies behind them is reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "fuzz/image_disk.h"
#include "segment/pack.h"

#define FILE_BYTES_MAX (1u << 20)

static void check_open(const char *path) { (void)path; }
static void check_read(uint64_t pos, size_t len) { CNK_ASSERT(pos % CNK_PACK_ALIGN == 0 && len % CNK_PACK_ALIGN == 0); }

/* The block rows' checksums, then the directory's, then the trailer's. */
static void make_right(void) {
    uint8_t *t = image + image_len - 64;
    uint64_t pos = cnk_load_le64(t);
    uint32_t len = cnk_load_le32(t + 8);
    cnk_store_le64(t + 40, image_len);
    cnk_store_le16(t + 48, 1);
    cnk_store_le16(t + 50, 0);
    cnk_store_le64(t + 56, UINT64_C(0x4c4941544b434150));
    if (pos <= image_len - 64 && len <= image_len - 64 - pos && len >= 32) {
        uint8_t *d = image + pos;
        cnk_store_le32(d + 4, len);
        cnk_store_le16(d + 8, 2);
        cnk_store_le16(d + 10, 0);
        uint64_t sections = cnk_load_le32(d + 12), section_bytes = cnk_load_le32(d + 16);
        uint64_t blocks = cnk_load_le32(d + 20), block_bytes = cnk_load_le32(d + 24);
        uint64_t rows = 32 + sections * section_bytes;
        for (uint64_t i = 0; i < blocks && block_bytes >= 64 && rows + (i + 1) * block_bytes <= len; i++) {
            uint8_t *b = d + rows + i * block_bytes;
            uint64_t at = cnk_load_le64(b);
            uint32_t n = cnk_load_le32(b + 8);
            if (at > pos || n > pos - at || n < 72) continue;
            cnk_store_le32(image + at + 4, n);
            uint32_t crc = cnk_crc32c(0, image + at + 4, n - 4);
            cnk_store_le32(image + at, crc);
            cnk_store_le32(b + 56, crc);
        }
        cnk_store_le32(d, cnk_crc32c(0, d + 4, len - 4));
        cnk_store_le32(t + 12, cnk_load_le32(d));
    }
    cnk_store_le32(t + 52, cnk_crc32c(0, t, 52));
}

static void walk(const cnk_pack *p, const cnk_pack_section *s, uint32_t block, uint8_t *buf) {
    const uint8_t *bytes;
    cnk_pack_cursor c;
    if (cnk_pack_block_read(p, block, buf, NULL, &bytes) || cnk_pack_cursor_init(&c, p, s, block, bytes)) return;
    int64_t offset = -1;
    while (cnk_pack_cursor_next(&c) > 0) {
        CNK_ASSERT(c.row.base_offset >= 0 && c.row.base_offset >= offset);
        CNK_ASSERT(c.row.pos + c.row.len <= p->file_bytes);
        offset = c.row.base_offset;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 65 || size > FILE_BYTES_MAX) return 0;
    size_t len = size - 1;
    image_len = (len + CNK_PACK_ALIGN - 1) / CNK_PACK_ALIGN * CNK_PACK_ALIGN;
    if (image_len < 2 * CNK_PACK_ALIGN) image_len = 2 * CNK_PACK_ALIGN;
    image = calloc(1, image_len);
    memcpy(image, data + 1, len - 64);
    memcpy(image + image_len - 64, data + 1 + len - 64, 64); /* the trailer stays at the end */
    if (data[0]) make_right();
    cnk_pack *p = NULL;
    if (cnk_pack_open(&io, "fuzz", NULL, &p) == 0) {
        uint8_t *buf = cnk_pages_alloc(CNK_PACK_BLOCK_BUFFER_BYTES);
        for (uint32_t i = 0; i < p->section_count; i++) {
            const cnk_pack_section *s = &p->sections[i];
            CNK_ASSERT(cnk_pack_find(p, s->stream) == s);
            (void)cnk_pack_block_of_offset(p, s, s->first_offset);
            (void)cnk_pack_block_of_index(p, s, s->last_index);
            (void)cnk_pack_block_of_timestamp(p, s, 0);
            for (uint32_t b = s->block_first; b < s->block_first + s->block_count; b++) walk(p, s, b, buf);
        }
        cnk_pages_free(buf, CNK_PACK_BLOCK_BUFFER_BYTES);
        cnk_pack_unref(p);
        cnk_pack_report report;
        (void)cnk_pack_check(&io, "fuzz", NULL, NULL, NULL, &report);
    }
    free(image);
    return 0;
}
