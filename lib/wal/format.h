/* The bytes of the WAL: files, blocks, rows, footers, checkpoints. Little-endian. CRC-32C throughout.
 *
 * File `{number, 20 digits}.wal`: one 4 KiB header, then blocks, each on a 4 KiB boundary, then perhaps a footer, and in
 * the last 4 KiB of the file perhaps a trailer that says where the footer is.
 *
 * File header, 4096 bytes            Block header, 64 bytes               Row, 72 bytes
 *   0  u64 magic                       0  u32 magic                         0  u64 stream
 *   8  u32 version = 1                 4  u32 crc of 8..64, seeded          8  u64 index
 *  12  u32 crc of 16..4096             8  u64 uid of this use of the file  16  i64 base offset
 *  16  u64 uid                        16  u64 lsn                          24  i64 max timestamp
 *  24  u64 number                     24  u64 watermark                    32  u8[16] aux
 *  32  u64 first lsn                  32  u32 position / 4096              48  u32 term
 *  40  u64 uid of the file before     36  u32 length, multiple of 4096     52  u32 count
 *  48  u64 number of the file before  40  u32 crc of the block before      56  u32 payload length
 *  56  u32 crc of its last block      44  u32 rows                         60  u32 payload position in the block
 *  60  u32 zero                       48  u32 position of the row table                  (in a footer: in the file)
 *  64  u64 its last lsn               52  u32 crc of the row table, seeded 64  u32 payload crc
 *  72  u64 wall clock, ms             56  u16 bytes a row = 72             68  u8 frame
 *                                     58  u16 version = 1                  69  u8 flags: 0x80 must be understood
 *                                     60  u32 zero                         70  u16 entry kind
 * 'seeded': the CRC starts from the CRC of the 8 bytes of the uid. The payload CRC is plain.
 *
 * Frames and their fields:
 *   INIT       stream
 *   ENTRY      all fields
 *   VOTE       term; index = candidate
 *   TRUNCATE   index, term, base offset: the last entry kept, and the offset after it
 *   TRIM       index = first index, base offset = start offset
 *   RESET      index, term, base offset: the snapshot's last entry, and the offset after it
 *   REWRITE    as ENTRY: the same entry (same index and term) in a new place
 *   DROP       stream
 *   CHECKPOINT stream = 0, index = number of the checkpoint, base offset = its first lsn, crc = its crc
 *
 * Footer (written in the background after the last block, by the process that wrote it or by the next; never needed): u32 rows of each block, then all rows with
 * positions in the file. Trailer, at the start of the file's last 4 KiB, 72 bytes:
 *   0 u64 magic  8 u32 crc of 16..72  12 u32 crc of the footer  16 u64 uid  24 u64 footer position  32 u64 footer length
 *  40 u64 blocks 48 u64 rows  56 u64 last lsn  64 u32 crc of the last block  68 u32 zero
 *
 * Checkpoint `{number, 20 digits}.checkpoint`:
 *   0 u64 magic  8 u32 version = 1  12 u32 crc of 16..end  16 u64 number  24 u64 lsn: earlier rows are all covered
 *  32 u64 streams  40 u64 live files  48 u64 bytes in all  56: for each live file u64 number, u64 uid;
 *   then for each stream, in no order, 136 bytes and a blob:
 *   0 u64 id  8 u64 as-of lsn  16 u64 voted for  24 u64 first index  32 i64 start offset  40 u64 released index
 *  48 i64 released offset  56 u64 last index  64 i64 next offset  72 u32 term  76 u32 released term  80 u32 last term
 *  84 u32 flags: 1 damaged  88 u64 blob's applied index  96 u64 blob length  104 zero[32]
 *
 * Crash rules. A file header counts only with a right CRC and the number in the file's name; until then the file is
 * unused. A block counts only if its header, its row table and its payloads have right CRCs, it has the file's uid, its
 * own position, the next LSN and the CRC of the block before; the first that does not ends the file, unless a later
 * block of this uid has a watermark at or past that LSN, or a later file names an end past it: then it is corruption.
 * A footer counts only with its trailer. A checkpoint counts only whole. */
#ifndef CNK_WAL_FORMAT_H
#define CNK_WAL_FORMAT_H

#include "base/bytes.h"
#include "wal/wal.h"

enum {
    CNK_WAL_ALIGN = 4096,
    CNK_WAL_BLOCK_HEADER = 64,
    CNK_WAL_ROW_BYTES = 72,
    CNK_WAL_TRAILER_BYTES = 72,
    CNK_WAL_CHECKPOINT_HEADER = 56,
    CNK_WAL_CHECKPOINT_FILE = 16,
    CNK_WAL_CHECKPOINT_ROW = 136
};

enum {
    CNK_FRAME_INIT = 1,
    CNK_FRAME_ENTRY = 2,
    CNK_FRAME_VOTE = 3,
    CNK_FRAME_TRUNCATE = 4,
    CNK_FRAME_TRIM = 5,
    CNK_FRAME_RESET = 6,
    CNK_FRAME_REWRITE = 7,
    CNK_FRAME_DROP = 8,
    CNK_FRAME_CHECKPOINT = 9
};

typedef struct cnk_wal_row {
    uint64_t stream;
    cnk_wal_entry e; /* index, term, kind, count, base offset, max timestamp, aux, len */
    uint32_t pos;
    uint32_t crc;
    uint8_t frame;
    uint8_t flags;
} cnk_wal_row;

typedef struct cnk_wal_file_header {
    uint64_t uid, number, first_lsn, prev_uid, prev_number, prev_last_lsn, wall_ms;
    uint32_t prev_crc;
} cnk_wal_file_header;

typedef struct cnk_wal_block_header {
    uint64_t uid, lsn, watermark;
    uint32_t crc, block_number, len, prev_crc, rows, rows_pos, rows_crc;
} cnk_wal_block_header;

typedef struct cnk_wal_trailer {
    uint64_t uid, footer_pos, footer_len, blocks, rows, last_lsn;
    uint32_t footer_crc, last_crc;
} cnk_wal_trailer;

typedef struct cnk_wal_checkpoint_header {
    uint64_t number, lsn, streams, files, len;
} cnk_wal_checkpoint_header;

typedef struct cnk_wal_checkpoint_row {
    cnk_wal_state state;
    uint64_t as_of, applied, blob_len;
} cnk_wal_checkpoint_row;

static inline uint64_t cnk_wal_align_up(uint64_t n) { return (n + (CNK_WAL_ALIGN - 1)) & ~(uint64_t)(CNK_WAL_ALIGN - 1); }

uint32_t cnk_wal_seed(uint64_t uid);

void cnk_wal_row_put(uint8_t *p, const cnk_wal_row *row);
void cnk_wal_row_get(const uint8_t *p, cnk_wal_row *ret_row);

void cnk_wal_file_header_put(uint8_t p[CNK_WAL_ALIGN], const cnk_wal_file_header *h);
int cnk_wal_file_header_get(const uint8_t p[CNK_WAL_ALIGN], cnk_wal_file_header *ret_h); /* 0 or ECORRUPT */

/* Fills in the header at the start of a block; gives its CRC, which the next block repeats. */
uint32_t cnk_wal_block_header_put(uint8_t *p, const cnk_wal_block_header *h);
/* Magic, version, CRC, uid and plausible lengths: 0 or ECORRUPT. */
int cnk_wal_block_header_get(const uint8_t *p, uint64_t uid, cnk_wal_block_header *ret_h);

void cnk_wal_trailer_put(uint8_t *p, const cnk_wal_trailer *t);
int cnk_wal_trailer_get(const uint8_t *p, uint64_t uid, cnk_wal_trailer *ret_t);

/* The caller puts the CRC of all that follows it at 12, once that is known. */
void cnk_wal_checkpoint_header_put(uint8_t *p, const cnk_wal_checkpoint_header *h);
/* A whole checkpoint: 0 or ECORRUPT. */
int cnk_wal_checkpoint_get(const uint8_t *p, size_t len, cnk_wal_checkpoint_header *ret_h);
void cnk_wal_checkpoint_row_put(uint8_t p[CNK_WAL_CHECKPOINT_ROW], const cnk_wal_checkpoint_row *row);
void cnk_wal_checkpoint_row_get(const uint8_t p[CNK_WAL_CHECKPOINT_ROW], cnk_wal_checkpoint_row *ret_row);

#endif
