/* Constants of the pack format; the byte tables and rules stand in pack.h. Private to the module. */
#ifndef CNK_SEGMENT_PACK_FORMAT_H
#define CNK_SEGMENT_PACK_FORMAT_H

#include "segment/pack.h"

#define PACK_VERSION 1u
#define PACK_MAGIC UINT64_C(0x4b4341504e524843)         /* "CHRNPACK" */
#define PACK_TRAILER_MAGIC UINT64_C(0x4c4941544b434150) /* "PACKTAIL" */

#define PACK_TRAILER_BYTES 64u
#define PACK_BLOCK_HEADER_BYTES 72u
#define PACK_DIRECTORY_HEADER_BYTES 32u
#define PACK_SECTION_ROW_BYTES 96u
#define PACK_BLOCK_ROW_BYTES 64u
#define PACK_ROW_BYTES_MAX 96u /* longest encoding of a row */

enum { PACK_BLOCK_ROWS = 1, PACK_BLOCK_DIRECTORY = 2 };

/* Flags of a row. */
enum {
    PACK_ROW_KIND = 7,
    PACK_ROW_TIMESTAMP = 8,
    PACK_ROW_COUNT = 16,
    PACK_ROW_AUX = 32,
    PACK_ROW_TERM = 64,
    PACK_ROW_OFFSET_GAP = 128,
    PACK_ROW_INDEX_GAP = 256,
    PACK_ROW_FLAGS_KNOWN = 511
};

void cnk_pack_section_row_write(cnk_writer *w, const cnk_pack_section *s);
cnk_pack_section cnk_pack_section_row_read(const uint8_t *row, uint32_t *ret_must); /* PACK_SECTION_ROW_BYTES of them */
/* A section is what it says, but for its blocks: ordered, and below `limit` in the file. */
bool cnk_pack_section_sound(const cnk_pack_section *s, uint64_t limit);

#endif
