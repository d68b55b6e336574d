/* Puts the WAL's structures into bytes and takes them out again; the byte tables stand in format.h. Each structure has one
 * list of its fields, F(width, type, position, member), from which both directions are made. */
#include "wal/format.h"

#include "base/crc32c.h"

#define FILE_MAGIC UINT64_C(0x314c41574b4e4843)       /* "CHNKWAL1" */
#define TRAILER_MAGIC UINT64_C(0x31444e454b4e4843)    /* "CHNKEND1" */
#define CHECKPOINT_MAGIC UINT64_C(0x3154504b434e4843) /* "CHNCKPT1" */
#define BLOCK_MAGIC UINT32_C(0x4b4c4243)              /* "CBLK" */

#define PUT(width, type, position, member) cnk_store_le##width(p + (position), (uint##width##_t)from->member);
#define GET(width, type, position, member) to->member = (type)cnk_load_le##width(p + (position));

static void cnk_store_le8(uint8_t *p, uint8_t v) { *p = v; }
static uint8_t cnk_load_le8(const uint8_t *p) { return *p; }

#define ROW_FIELDS(F)                                                                                                   \
    F(64, uint64_t, 0, stream)                                                                                          \
    F(64, uint64_t, 8, e.index)                                                                                         \
    F(64, int64_t, 16, e.base_offset)                                                                                   \
    F(64, int64_t, 24, e.max_timestamp)                                                                                 \
    F(32, uint32_t, 48, e.term)                                                                                         \
    F(32, uint32_t, 52, e.count)                                                                                        \
    F(32, uint32_t, 56, e.len)                                                                                          \
    F(32, uint32_t, 60, pos)                                                                                            \
    F(32, uint32_t, 64, crc)                                                                                            \
    F(8, uint8_t, 68, frame)                                                                                            \
    F(8, uint8_t, 69, flags)                                                                                            \
    F(16, uint16_t, 70, e.kind)

#define FILE_HEADER_FIELDS(F)                                                                                           \
    F(64, uint64_t, 16, uid)                                                                                            \
    F(64, uint64_t, 24, number)                                                                                         \
    F(64, uint64_t, 32, first_lsn)                                                                                      \
    F(64, uint64_t, 40, prev_uid)                                                                                       \
    F(64, uint64_t, 48, prev_number)                                                                                    \
    F(32, uint32_t, 56, prev_crc)                                                                                       \
    F(64, uint64_t, 64, prev_last_lsn)                                                                                  \
    F(64, uint64_t, 72, wall_ms)

#define BLOCK_HEADER_FIELDS(F)                                                                                          \
    F(64, uint64_t, 8, uid)                                                                                             \
    F(64, uint64_t, 16, lsn)                                                                                            \
    F(64, uint64_t, 24, watermark)                                                                                      \
    F(32, uint32_t, 32, block_number)                                                                                   \
    F(32, uint32_t, 36, len)                                                                                            \
    F(32, uint32_t, 40, prev_crc)                                                                                       \
    F(32, uint32_t, 44, rows)                                                                                           \
    F(32, uint32_t, 48, rows_pos)                                                                                       \
    F(32, uint32_t, 52, rows_crc)

#define TRAILER_FIELDS(F)                                                                                               \
    F(32, uint32_t, 12, footer_crc)                                                                                     \
    F(64, uint64_t, 16, uid)                                                                                            \
    F(64, uint64_t, 24, footer_pos)                                                                                     \
    F(64, uint64_t, 32, footer_len)                                                                                     \
    F(64, uint64_t, 40, blocks)                                                                                         \
    F(64, uint64_t, 48, rows)                                                                                           \
    F(64, uint64_t, 56, last_lsn)                                                                                       \
    F(32, uint32_t, 64, last_crc)

#define CHECKPOINT_HEADER_FIELDS(F)                                                                                     \
    F(64, uint64_t, 16, number)                                                                                         \
    F(64, uint64_t, 24, lsn)                                                                                            \
    F(64, uint64_t, 32, streams)                                                                                        \
    F(64, uint64_t, 40, files)                                                                                          \
    F(64, uint64_t, 48, len)

#define CHECKPOINT_ROW_FIELDS(F)                                                                                        \
    F(64, uint64_t, 0, state.id)                                                                                        \
    F(64, uint64_t, 8, as_of)                                                                                           \
    F(64, uint64_t, 16, state.voted_for)                                                                                \
    F(64, uint64_t, 24, state.first_index)                                                                              \
    F(64, int64_t, 32, state.start_offset)                                                                              \
    F(64, uint64_t, 40, state.released_index)                                                                           \
    F(64, int64_t, 48, state.released_offset)                                                                           \
    F(64, uint64_t, 56, state.last_index)                                                                               \
    F(64, int64_t, 64, state.next_offset)                                                                               \
    F(32, uint32_t, 72, state.term)                                                                                     \
    F(32, uint32_t, 76, state.released_term)                                                                            \
    F(32, uint32_t, 80, state.last_term)                                                                                \
    F(64, uint64_t, 88, applied)                                                                                        \
    F(64, uint64_t, 96, blob_len)

uint32_t cnk_wal_seed(uint64_t uid) {
    uint8_t b[8];
    cnk_store_le64(b, uid);
    return cnk_crc32c(0, b, sizeof b);
}

void cnk_wal_row_put(uint8_t *p, const cnk_wal_row *from) {
    ROW_FIELDS(PUT)
    memcpy(p + 32, from->e.aux, 16);
}

void cnk_wal_row_get(const uint8_t *p, cnk_wal_row *to) {
    ROW_FIELDS(GET)
    memcpy(to->e.aux, p + 32, 16);
}

void cnk_wal_file_header_put(uint8_t p[CNK_WAL_ALIGN], const cnk_wal_file_header *from) {
    memset(p, 0, CNK_WAL_ALIGN);
    cnk_store_le64(p, FILE_MAGIC);
    cnk_store_le32(p + 8, 1);
    FILE_HEADER_FIELDS(PUT)
    cnk_store_le32(p + 12, cnk_crc32c(0, p + 16, CNK_WAL_ALIGN - 16));
}

int cnk_wal_file_header_get(const uint8_t p[CNK_WAL_ALIGN], cnk_wal_file_header *to) {
    if (cnk_load_le64(p) != FILE_MAGIC || cnk_load_le32(p + 8) != 1 ||
        cnk_load_le32(p + 12) != cnk_crc32c(0, p + 16, CNK_WAL_ALIGN - 16))
        return CHRONIK_ECORRUPT;
    FILE_HEADER_FIELDS(GET)
    return 0;
}

uint32_t cnk_wal_block_header_put(uint8_t *p, const cnk_wal_block_header *from) {
    cnk_store_le32(p, BLOCK_MAGIC);
    BLOCK_HEADER_FIELDS(PUT)
    cnk_store_le16(p + 56, CNK_WAL_ROW_BYTES);
    cnk_store_le16(p + 58, 1);
    cnk_store_le32(p + 60, 0);
    uint32_t crc = cnk_crc32c(cnk_wal_seed(from->uid), p + 8, CNK_WAL_BLOCK_HEADER - 8);
    cnk_store_le32(p + 4, crc);
    return crc;
}

int cnk_wal_block_header_get(const uint8_t *p, uint64_t uid, cnk_wal_block_header *ret_h) {
    if (cnk_load_le32(p) != BLOCK_MAGIC || cnk_load_le64(p + 8) != uid) return CHRONIK_ECORRUPT;
    cnk_wal_block_header h, *to = &h;
    h.crc = cnk_load_le32(p + 4);
    if (h.crc != cnk_crc32c(cnk_wal_seed(uid), p + 8, CNK_WAL_BLOCK_HEADER - 8)) return CHRONIK_ECORRUPT;
    BLOCK_HEADER_FIELDS(GET)
    if (cnk_load_le16(p + 56) != CNK_WAL_ROW_BYTES || cnk_load_le16(p + 58) != 1) return CHRONIK_ECORRUPT;
    if (h.len < CNK_WAL_ALIGN || h.len % CNK_WAL_ALIGN != 0 || h.rows_pos < CNK_WAL_BLOCK_HEADER ||
        (uint64_t)h.rows_pos + (uint64_t)h.rows * CNK_WAL_ROW_BYTES > h.len)
        return CHRONIK_ECORRUPT;
    *ret_h = h;
    return 0;
}

void cnk_wal_trailer_put(uint8_t *p, const cnk_wal_trailer *from) {
    cnk_store_le64(p, TRAILER_MAGIC);
    TRAILER_FIELDS(PUT)
    cnk_store_le32(p + 68, 0);
    cnk_store_le32(p + 8, cnk_crc32c(cnk_wal_seed(from->uid), p + 12, CNK_WAL_TRAILER_BYTES - 12));
}

int cnk_wal_trailer_get(const uint8_t *p, uint64_t uid, cnk_wal_trailer *to) {
    if (cnk_load_le64(p) != TRAILER_MAGIC || cnk_load_le64(p + 16) != uid ||
        cnk_load_le32(p + 8) != cnk_crc32c(cnk_wal_seed(uid), p + 12, CNK_WAL_TRAILER_BYTES - 12))
        return CHRONIK_ECORRUPT;
    TRAILER_FIELDS(GET)
    return 0;
}

void cnk_wal_checkpoint_header_put(uint8_t *p, const cnk_wal_checkpoint_header *from) {
    cnk_store_le64(p, CHECKPOINT_MAGIC);
    cnk_store_le32(p + 8, 1);
    cnk_store_le32(p + 12, 0);
    CHECKPOINT_HEADER_FIELDS(PUT)
}

int cnk_wal_checkpoint_get(const uint8_t *p, size_t len, cnk_wal_checkpoint_header *ret_h) {
    if (len < CNK_WAL_CHECKPOINT_HEADER || cnk_load_le64(p) != CHECKPOINT_MAGIC || cnk_load_le32(p + 8) != 1)
        return CHRONIK_ECORRUPT;
    cnk_wal_checkpoint_header h, *to = &h;
    CHECKPOINT_HEADER_FIELDS(GET)
    if (h.len != len || cnk_load_le32(p + 12) != cnk_crc32c(0, p + 16, len - 16)) return CHRONIK_ECORRUPT;
    size_t left = len - CNK_WAL_CHECKPOINT_HEADER;
    if (h.files > left / CNK_WAL_CHECKPOINT_FILE) return CHRONIK_ECORRUPT;
    if (h.streams > (left - h.files * CNK_WAL_CHECKPOINT_FILE) / CNK_WAL_CHECKPOINT_ROW) return CHRONIK_ECORRUPT;
    *ret_h = h;
    return 0;
}

void cnk_wal_checkpoint_row_put(uint8_t p[CNK_WAL_CHECKPOINT_ROW], const cnk_wal_checkpoint_row *from) {
    CHECKPOINT_ROW_FIELDS(PUT)
    cnk_store_le32(p + 84, from->state.damaged ? 1 : 0);
    memset(p + 104, 0, CNK_WAL_CHECKPOINT_ROW - 104);
}

void cnk_wal_checkpoint_row_get(const uint8_t p[CNK_WAL_CHECKPOINT_ROW], cnk_wal_checkpoint_row *to) {
    memset(to, 0, sizeof *to);
    CHECKPOINT_ROW_FIELDS(GET)
    to->state.damaged = cnk_load_le32(p + 84) & 1u;
}
