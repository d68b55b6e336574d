/* pack: the entries of one sealed WAL file, sorted by stream, in one immutable file.
 *
 * All integers are little-endian. Every CRC is CRC-32C. A pack is written once, front to back in the order of this
 * table, except that payloads are written in the order in which their source gives them.
 *
 *   HEADER, 4096 bytes at 0
 *     0 u64 magic "CHRNPACK"   8 u16 version = 1   10 u16 must-understand bits = 0   12 u32 bytes = 4096
 *    16 16B uid of this pack  32 u64 seq          40 u32 crc of bytes 0..40          44 zeros
 *   SECTIONS, from 4096; one for each stream, back to back
 *     payloads of entries that are not DATA (the control part), then payloads of DATA entries; verbatim, in index
 *     order, nothing between them, so that any range of the data part is a run of whole batches
 *   ROW BLOCKS; for each section one or more, back to back
 *     0 u32 crc of bytes 4..length   4 u32 length   8 u16 kind = 1   10 u16 must-understand bits = 0   12 u32 rows
 *    16 u64 stream   24 u64 first index   32 i64 base offset   40 i64 timestamp base   48 u64 data position
 *    56 u64 control position   64 u32 term   68 u32 zero   72 rows        (positions count from the section's parts)
 *     A row: uvarint flags: bits 0-2 kind (0: a uvarint follows); 3 timestamp differs; 4 takes offsets; 5 aux differs;
 *     6 term differs; 7 offsets are skipped before it; 8 indexes are skipped before it; others: must understand.
 *     Then, each only if its bit says so: uvarint kind, uvarint indexes skipped, uvarint offsets skipped, uvarint term
 *     added, uvarint offsets taken, zigzag varint timestamp added, u16 mask and the bytes of aux that differ from the
 *     row before. Then uvarint length and, where length > 0, u32 crc of the payload.
 *     Without the bits, a row has the term, timestamp and aux of the row before (at first: the header's, aux zeros),
 *     the next index, the next offset, and takes no offsets.
 *   DIRECTORY, at the position that the trailer gives
 *     0 u32 crc of bytes 4..length   4 u32 length   8 u16 kind = 2   10 u16 must-understand bits = 0
 *    12 u32 sections   16 u32 bytes of a section row = 96   20 u32 row blocks   24 u32 bytes of a block row = 64
 *    28 u32 zero   32 section rows, by ascending stream   then block rows, by ascending position
 *     section row: 0 u64 stream   8 u64 first index  16 u64 last index  24 i64 first offset  32 i64 end offset
 *                 40 i64 max timestamp  48 u64 position  56 u64 control bytes  64 u64 data bytes  72 u32 first block
 *                 76 u32 blocks  80 u32 first term  84 u32 last term  88 u32 entries  92 u32 must-understand bits = 0
 *     block row:   0 u64 position  8 u32 length  12 u32 rows  16 u64 first index  24 i64 base offset  32 i64 end offset
 *                 40 i64 max timestamp  48 u64 data position (from the section's data part)
 *                 56 u32 crc (the block's)  60 u32 zero
 *   zeros, so that the file's length is a multiple of 4096
 *   TRAILER, the last 64 bytes
 *     0 u64 directory position  8 u32 directory length  12 u32 directory crc  16 16B uid  32 u64 seq  40 u64 file
 * length 48 u16 version = 1  50 u16 must-understand bits = 0  52 u32 crc of bytes 0..52  56 u64 magic "PACKTAIL"
 *
 * Crash rule. A pack gets its name only after its file has been synced, and counts only under its name. So what is
 * wrong under a name is corruption, never a crash: it is reported, and nothing is cut or guessed. Whatever lies under
 * the temporary name was never promised to anybody and is removed.
 *
 * Version rule (S14). Section rows and block rows may grow at their ends; their sizes say so. An unknown version or
 * must-understand bit yields EUNSUPPORTED and leaves the file alone.
 *
 * Threads. Lists, writers and cursors belong to one thread at a time. A cnk_pack is immutable once open: any number of
 * threads may read it, and its reference count is atomic. */
#ifndef CNK_SEGMENT_PACK_H
#define CNK_SEGMENT_PACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "base/bytes.h"

#define CNK_PACK_ALIGN 4096u
#define CNK_PACK_KIND_DATA 1u /* the kind of entry that takes offsets; others have count 0 */

/* Limits. */
#define CNK_PACK_ROW_BLOCK_BYTES_MAX (56u << 10) /* so that one aligned read of 64 KiB gets any of them */
#define CNK_PACK_ROW_BLOCK_BYTES (12u << 10)     /* as written: a block is walked from its start to find a row */
#define CNK_PACK_ENTRY_BYTES_MAX (256u << 20)
#define CNK_PACK_DIRECTORY_BYTES_MAX (256u << 20)
#define CNK_PACK_ROWS_MAX (1u << 20)     /* entries in one pack */
#define CNK_PACK_POOL_BYTES (24u << 20)  /* a writer's memory for payloads on their way */
#define CNK_PACK_PASS_SECTIONS_MAX 1024u /* sections written in one pass over the source, unless they are small */

typedef struct cnk_pack_row {
    uint64_t index;
    uint32_t term;
    uint16_t kind;
    uint32_t count; /* offsets taken */
    int64_t base_offset;
    int64_t max_timestamp;
    uint8_t aux[16];
    uint32_t len;
    uint32_t crc; /* of the payload */
    uint64_t pos; /* where the payload is in the pack; not used when writing */
} cnk_pack_row;

typedef struct cnk_pack_section {
    uint64_t stream;
    uint64_t first_index, last_index;
    int64_t first_offset, end_offset;
    int64_t max_timestamp; /* of its DATA entries; INT64_MIN where there is none */
    uint64_t pos, control_bytes, data_bytes;
    uint32_t block_first, block_count;
    uint32_t first_term, last_term;
    uint32_t entries;
} cnk_pack_section;

typedef struct cnk_pack_block_row {
    uint64_t pos;
    uint32_t len, rows;
    uint64_t first_index;
    int64_t base_offset, end_offset;
    int64_t max_timestamp; /* of its DATA entries; INT64_MIN where there is none */
    uint64_t data_pos;     /* of its first DATA payload, from the section's data part */
    uint32_t crc;
} cnk_pack_block_row;

/* ---- what is to be written: a list -------------------------------------------------------------------------------
 * Sections and rows, gathered before anything is written. Lists from several shards go into one pack. */

typedef struct cnk_pack_copy {
    uint64_t src; /* where the payload is in the source */
    uint64_t dst; /* where it goes, from the list's first section */
    uint32_t len, crc;
} cnk_pack_copy;

typedef struct cnk_pack_list {
    cnk_pack_section *sections; /* positions from the list's first section, blocks from the list's first block */
    size_t section_count, section_capacity;
    cnk_pack_block_row *blocks; /* positions from the list's first block */
    size_t block_count, block_capacity;
    cnk_pack_copy *copies;
    size_t copy_count, copy_capacity;
    cnk_writer rows; /* row blocks as they will be on disk */
    uint64_t payload_bytes;
    uint64_t entry_count;
    /* of the section under way */
    bool open;
    size_t copy_from, block_from, block_start;
    cnk_pack_row last;
    int64_t next_offset;
    uint64_t control_pos, data_pos;
    cnk_pack_block_row block;
} cnk_pack_list;

void cnk_pack_list_init(cnk_pack_list *list);
void cnk_pack_list_free(cnk_pack_list *list); /* leaves it empty */
/* Begins the section of a stream, ending the one before. A stream has one section in a pack. */
int cnk_pack_list_section(cnk_pack_list *list, uint64_t stream);
/* Adds an entry whose payload is at `src` in the source; index, offset and term must not go backwards. 0, ENOMEM, or
 * EINVAL for a row that breaks the order or a limit; after a failure the list is good for nothing but free. */
int cnk_pack_list_row(cnk_pack_list *list, const cnk_pack_row *row, uint64_t src);
int cnk_pack_list_end(cnk_pack_list *list); /* after the last row */

/* ---- writing -------------------------------------------------------------------------------------------------------
 * new → pass_next, put … (again, until there is no pass) → flush until it says 0 → finish → rename → sync the
 * directory. Everything but `new` runs in a job. Memory: CNK_PACK_POOL_BYTES and what the lists hold. */

typedef struct cnk_pack_writer cnk_pack_writer;

/* Memory that goes from one writer to the next, so that it is not given back and zeroed in between. Zeroed: empty. */
#define CNK_PACK_POOL_CHUNK_BYTES (4u << 20)
typedef struct cnk_pack_pool {
    uint8_t *chunks[CNK_PACK_POOL_BYTES / CNK_PACK_POOL_CHUNK_BYTES];
    uint32_t count;
} cnk_pack_pool;
void cnk_pack_pool_free(cnk_pack_pool *pool); /* leaves it empty */

/* Creates the file and takes its space. Borrows the lists' rows and takes their copies. `pool_bytes` 0: the default;
 * `pool` (may be NULL): where its memory comes from and goes to, used by one writer at a time. ENOSPC, EIO, ENOMEM,
 * EINVAL (nothing to write, a stream in two lists, over a limit). */
int cnk_pack_writer_new(const chronik_io *io, const char *path, uint64_t seq, cnk_pack_list *const *lists,
                        size_t list_count, size_t pool_bytes, cnk_pack_pool *pool, chronik_error *err,
                        cnk_pack_writer **ret_writer);
void cnk_pack_writer_free(cnk_pack_writer *w); /* NULL-safe; closes, does not remove */

/* Chooses the copies of the next pass, ordered by their source positions; false: all passes are over. Each of them has
 * to be put in whole before the next pass. Borrowed until the next call. */
bool cnk_pack_writer_pass_next(cnk_pack_writer *w, const cnk_pack_copy **ret_copies, size_t *ret_count);

/* Puts a piece of a copy: `done` bytes of it were put before. *crc runs along, starting at 0; at the end it is checked.
 * EAGAIN: the pool has no room, flush first (nothing was taken). ECORRUPT: the payload does not match its CRC. */
int cnk_pack_writer_put(cnk_pack_writer *w, const cnk_pack_copy *copy, uint32_t done, const void *bytes, uint32_t len,
                        uint32_t *crc, chronik_error *err);
size_t cnk_pack_writer_room(const cnk_pack_writer *w); /* bytes that may be put for sure before a flush */

/* Writes full blocks, about `bytes_max` of them. Returns the bytes written (0: nothing is full) or an error. */
int64_t cnk_pack_writer_flush(cnk_pack_writer *w, size_t bytes_max, chronik_error *err);

/* Writes what remains (rows, directory, trailer). In steps: EAGAIN means call again. Then the file is to be synced. */
int cnk_pack_writer_finish(cnk_pack_writer *w, size_t bytes_max, chronik_error *err);
int cnk_pack_writer_sync(cnk_pack_writer *w, chronik_error *err); /* once; a failure is final */
uint64_t cnk_pack_writer_file_bytes(const cnk_pack_writer *w);
uint64_t cnk_pack_writer_stream_at(const cnk_pack_writer *w,
                                   uint64_t dst); /* whose payload goes there; before finish */

/* ---- reading ---- */

typedef struct cnk_pack {
    atomic_uint refs;
    const chronik_io *io;
    chronik_file *file;
    char *path;
    uint64_t seq, file_bytes;
    uint8_t uid[16];
    uint64_t directory_pos;
    uint32_t directory_len, directory_crc;
    cnk_pack_section *sections; /* by ascending stream */
    uint32_t section_count;
    cnk_pack_block_row *blocks;
    uint32_t block_count;
} cnk_pack;

/* Opens a pack: one read of its end, one more where the directory is long. Blocks. ECORRUPT, EUNSUPPORTED, EIO, … */
int cnk_pack_open(const chronik_io *io, const char *path, chronik_error *err, cnk_pack **ret_pack);
cnk_pack *cnk_pack_ref(cnk_pack *pack);
void cnk_pack_unref(cnk_pack *pack); /* NULL-safe; the last one closes the file. Any thread. */

/* A pack that is known by its description, so that its file need not be opened to know what it holds:
 *   0 u64 seq  8 16B uid  24 u64 file length  32 u64 directory position  40 u32 directory length  44 u32 directory crc
 *  48 u32 sections  52 u32 bytes of a section row = 96  56 section rows, as in the directory
 * It has neither file nor blocks, nor a path: before cnk_pack_complete, nothing can be found in it or read from it. */
#define CNK_PACK_DESCRIPTION_BYTES(sections) (56 + (size_t)96 * (sections))
void cnk_pack_describe(const cnk_pack *pack, cnk_writer *out);
/* ECORRUPT, EUNSUPPORTED, ENOMEM. */
int cnk_pack_described(const chronik_io *io, const void *bytes, size_t len, cnk_pack **ret_pack);
/* Gives it the file and the blocks of the same pack, opened, unless it has them. ECORRUPT: it is another pack. Whoever
 * finds in it or reads from it does so after this, as seen under the caller's lock; its sections stay where they are. */
int cnk_pack_complete(cnk_pack *pack, cnk_pack *opened);

const cnk_pack_section *cnk_pack_find(const cnk_pack *pack, uint64_t stream); /* or NULL */

/* The block (a number within the pack) that holds the answer, without reading anything; UINT32_MAX: none in here.
 * offset: the block with the DATA entry that holds it, or the first one after it. */
uint32_t cnk_pack_block_of_offset(const cnk_pack *pack, const cnk_pack_section *s, int64_t offset);
uint32_t cnk_pack_block_of_index(const cnk_pack *pack, const cnk_pack_section *s, uint64_t index);
uint32_t cnk_pack_block_of_timestamp(const cnk_pack *pack, const cnk_pack_section *s, int64_t timestamp);

/* Reads a row block and checks it. Blocks. `buf`: 64 KiB, aligned to 4096; the block's bytes are within it afterwards.
 */
#define CNK_PACK_BLOCK_BUFFER_BYTES (64u << 10)
int cnk_pack_block_read(const cnk_pack *pack, uint32_t block, void *buf, chronik_error *err, const uint8_t **ret_bytes);

/* The same for bytes that have been read already: the block's, by their place in the file. */
int cnk_pack_block_check(const cnk_pack *pack, uint32_t block, const uint8_t *bytes, chronik_error *err);

/* Walks the rows of a block that has been checked. next: 1 a row, 0 the end, ECORRUPT, EUNSUPPORTED. */
typedef struct cnk_pack_cursor {
    cnk_reader r;
    uint32_t rows_left;
    cnk_pack_row row;
    int64_t next_offset;
    uint64_t data_pos, control_pos, data_end, control_end;
} cnk_pack_cursor;
int cnk_pack_cursor_init(cnk_pack_cursor *c, const cnk_pack *pack, const cnk_pack_section *s, uint32_t block,
                         const uint8_t *bytes);
int cnk_pack_cursor_next(cnk_pack_cursor *c);

/* Reads [pos, pos + len) with whole blocks around it, into an aligned buffer of at least CNK_PACK_SPAN(pos, len) bytes;
 * *ret_skew: where pos is in it. Blocks. EIO, ECORRUPT where the file ends before. */
#define CNK_PACK_SPAN(pos, len)                                                                                        \
    ((((pos) + (len) + CNK_PACK_ALIGN - 1) / CNK_PACK_ALIGN - (pos) / CNK_PACK_ALIGN) * CNK_PACK_ALIGN)
int cnk_pack_read(const cnk_pack *pack, uint64_t pos, size_t len, void *buf, chronik_error *err, size_t *ret_skew);

/* ---- checking ---- */

typedef struct cnk_pack_report {
    uint64_t sections, entries, payload_bytes;
    uint64_t bad_blocks, bad_entries; /* damage: row blocks and payloads that fail their CRC */
} cnk_pack_report;

/* Reads all of a pack and checks all of it: structure, order, every CRC. `say` (may be NULL) gets a sentence for each
 * thing that is wrong. 0: sound; ECORRUPT; EUNSUPPORTED; EIO. Blocks. */
int cnk_pack_check(const chronik_io *io, const char *path, void (*say)(void *arg, const char *sentence), void *say_arg,
                   chronik_error *err, cnk_pack_report *ret_report);

#endif
