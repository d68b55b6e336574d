/* The packs' catalog file is not to be trusted: whatever it holds, reading ends with an answer or an error, and what is taken
 * of a pack is sound in itself, and can be written down and taken again. The first byte chooses: 0: the file as it is; else
 * the checksums are made right first, so that what lies behind them is reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "fuzz/image_disk.h"
#include "tier/internal.h"

#define FILE_BYTES_MAX (1u << 20)

static void check_open(const char *path) { CNK_ASSERT(strcmp(path, "fuzz/catalog") == 0); }
static void check_read(uint64_t pos, size_t len) { CNK_ASSERT(pos + len <= image_len); }

/* The header's checksum, and those of the records as their lengths lead. */
static void make_right(void) {
    if (image_len < 40) return;
    memcpy(image, "CHRNCATA\1\0\0\0", 12);
    cnk_store_le32(image + 36, cnk_crc32c(0, image, 36));
    for (uint64_t at = cnk_load_le32(image + 12); at <= image_len && image_len - at >= 16;) {
        uint8_t seed[24], *record = image + at;
        uint32_t len = cnk_load_le32(record + 4);
        if (len < 16 || len > image_len - at) break;
        memcpy(seed, image + 16, 16);
        cnk_store_le64(seed + 16, at);
        cnk_store_le32(record, cnk_crc32c(cnk_crc32c(0, seed, sizeof seed), record + 4, len - 4));
        at += len;
    }
}

static void check_pack(const cnk_pack *p) {
    CNK_ASSERT(p->seq > 0 && p->section_count > 0 && !p->file && p->path);
    for (uint32_t i = 0; i < p->section_count; i++) {
        const cnk_pack_section *s = &p->sections[i];
        CNK_ASSERT(cnk_pack_find(p, s->stream) == s);
        CNK_ASSERT(s->first_index <= s->last_index && s->first_offset >= 0 && s->first_offset <= s->end_offset);
        CNK_ASSERT(s->pos + s->control_bytes + s->data_bytes <= p->file_bytes);
    }
    cnk_writer w;
    cnk_pack *again = NULL;
    cnk_writer_growing(&w, 0);
    cnk_pack_describe(p, &w);
    CNK_ASSERT(w.len == CNK_PACK_DESCRIPTION_BYTES(p->section_count));
    CNK_ASSERT(cnk_pack_described(&io, w.data, w.len, &again) == 0 && cnk_pack_complete(again, (cnk_pack *)p) == 0);
    cnk_pack_unref(again);
    cnk_writer_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > FILE_BYTES_MAX) return 0;
    image_len = size - 1;
    image = malloc(size);
    memcpy(image, data + 1, image_len);
    if (data[0]) make_right();
    tier_catalog c = {.bytes = 0};
    cnk_map packs = {0};
    uint64_t seq_max = 0;
    int rc = cnk_tier_catalog_read(&io, "fuzz", &c, &packs, &seq_max, NULL);
    CNK_ASSERT(rc == 0 || rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED);
    CNK_ASSERT(c.whole == (rc == 0) && (rc || c.bytes == image_len));
    size_t it = 0;
    for (const cnk_pack *p; (p = cnk_map_next(&packs, &it));) {
        CNK_ASSERT(p->seq <= seq_max);
        check_pack(p);
    }
    cnk_tier_catalog_packs_free(&packs);
    free(image);
    return 0;
}
