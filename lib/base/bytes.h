/* Checked cursors over bytes, with a sticky error: after the first failure every read gives zeros and every write does
 * nothing, so code checks once, at the end. `be` is the wire's order, `le` the disk's. */
#ifndef CNK_BASE_BYTES_H
#define CNK_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <chronik/error.h>

/* Text that is not NUL-terminated; p NULL: null. Borrowed. */
typedef struct cnk_text {
    const char *p;
    size_t len;
} cnk_text;

static inline bool cnk_text_equal(cnk_text a, cnk_text b) {
    return (a.p == NULL) == (b.p == NULL) && a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* Fixed-width loads and stores, unaligned. */
static inline uint16_t cnk_load_be16(const void *p) {
    const uint8_t *b = p;
    return (uint16_t)((b[0] << 8) | b[1]);
}
static inline uint32_t cnk_load_be32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline uint64_t cnk_load_be64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
static inline uint16_t cnk_load_le16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t cnk_load_le32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t cnk_load_le64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void cnk_store_be16(void *p, uint16_t v) {
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}
static inline void cnk_store_be32(void *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
static inline void cnk_store_be64(void *p, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
static inline void cnk_store_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void cnk_store_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void cnk_store_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian hosts need swaps in the le functions above");

/* A reader over borrowed bytes. error: 0 or CHRONIK_EPROTO (the caller may turn it into ECORRUPT). */
typedef struct cnk_reader {
    const uint8_t *p, *end;
    int error;
} cnk_reader;

static inline cnk_reader cnk_reader_of(const void *p, size_t len) {
    const uint8_t *from = p ? (const uint8_t *)p : (const uint8_t *)""; /* NULL is a legal empty range */
    cnk_reader r = {from, from + len, 0};
    return r;
}
static inline size_t cnk_reader_left(const cnk_reader *r) { return (size_t)(r->end - r->p); }
void cnk_reader_fail(cnk_reader *r);                      /* sets the error and empties the reader */
const uint8_t *cnk_read_bytes(cnk_reader *r, size_t len); /* borrowed; NULL on failure */
uint8_t cnk_read_u8(cnk_reader *r);
uint16_t cnk_read_be16(cnk_reader *r);
uint32_t cnk_read_be32(cnk_reader *r);
uint64_t cnk_read_be64(cnk_reader *r);
uint16_t cnk_read_le16(cnk_reader *r);
uint32_t cnk_read_le32(cnk_reader *r);
uint64_t cnk_read_le64(cnk_reader *r);
uint64_t cnk_read_uvarint(cnk_reader *r);   /* unsigned LEB128, at most 10 bytes */
uint32_t cnk_read_uvarint32(cnk_reader *r); /* at most 5 bytes and 32 bits */
int64_t cnk_read_varint(cnk_reader *r);     /* zigzag */

/* A writer. Fixed: over the caller's buffer, failing with ETOOLARGE at its end. Growing: allocates, failing with
 * ENOMEM, or ETOOLARGE beyond `limit`. */
typedef struct cnk_writer {
    uint8_t *data;
    size_t len, capacity, limit;
    int error;
    bool growing;
} cnk_writer;

void cnk_writer_fixed(cnk_writer *w, void *buf, size_t capacity);
void cnk_writer_growing(cnk_writer *w, size_t limit); /* limit 0: none */
void cnk_writer_free(cnk_writer *w);                  /* a growing writer's memory; leaves it empty */
int cnk_writer_reserve(cnk_writer *w, size_t len);    /* room for len more bytes at data + len, not counted; else the
                                                         writer's error */
uint8_t *cnk_write_space(cnk_writer *w, size_t len);  /* room for len bytes, counted as written; NULL on failure */
void cnk_write_bytes(cnk_writer *w, const void *p, size_t len);
void cnk_write_u8(cnk_writer *w, uint8_t v);
void cnk_write_be16(cnk_writer *w, uint16_t v);
void cnk_write_be32(cnk_writer *w, uint32_t v);
void cnk_write_be64(cnk_writer *w, uint64_t v);
void cnk_write_le16(cnk_writer *w, uint16_t v);
void cnk_write_le32(cnk_writer *w, uint32_t v);
void cnk_write_le64(cnk_writer *w, uint64_t v);
void cnk_write_uvarint(cnk_writer *w, uint64_t v);
void cnk_write_varint(cnk_writer *w, int64_t v);
size_t cnk_uvarint_size(uint64_t v);
size_t cnk_varint_size(int64_t v);

#endif
