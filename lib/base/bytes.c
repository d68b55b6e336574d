/* Checked cursors over bytes: see bytes.h. Each cursor belongs to one thread at a time. */
#include "base/bytes.h"

#include "base/mem.h"

#define WRITER_FIRST_CAPACITY 64u

/* ---- reading ---------------------------------------------------------------------------------------------------- */

void cnk_reader_fail(cnk_reader *r) {
    r->error = CHRONIK_EPROTO;
    r->p = r->end;
}

const uint8_t *cnk_read_bytes(cnk_reader *r, size_t len) {
    if (r->error) return NULL;
    if (len > cnk_reader_left(r)) {
        cnk_reader_fail(r);
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += len;
    return p;
}

uint8_t cnk_read_u8(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 1);
    return p ? *p : 0;
}

uint16_t cnk_read_be16(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 2);
    return p ? cnk_load_be16(p) : 0;
}

uint32_t cnk_read_be32(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 4);
    return p ? cnk_load_be32(p) : 0;
}

uint64_t cnk_read_be64(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 8);
    return p ? cnk_load_be64(p) : 0;
}

uint16_t cnk_read_le16(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 2);
    return p ? cnk_load_le16(p) : 0;
}

uint32_t cnk_read_le32(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 4);
    return p ? cnk_load_le32(p) : 0;
}

uint64_t cnk_read_le64(cnk_reader *r) {
    const uint8_t *p = cnk_read_bytes(r, 8);
    return p ? cnk_load_le64(p) : 0;
}

/* A varint of at most `bits` bits: a byte that would carry a bit beyond them is an error. */
static uint64_t read_uvarint(cnk_reader *r, unsigned bits) {
    uint64_t v = 0;
    const uint8_t *p = r->p;
    for (unsigned shift = 0; shift < bits && p < r->end; shift += 7) {
        uint8_t byte = *p++;
        if (bits - shift < 7 && byte >> (bits - shift)) break;
        v |= (uint64_t)(byte & 0x7Fu) << shift;
        if (byte < 0x80) {
            r->p = p;
            return v;
        }
    }
    cnk_reader_fail(r);
    return 0;
}

uint64_t cnk_read_uvarint(cnk_reader *r) { return read_uvarint(r, 64); }

uint32_t cnk_read_uvarint32(cnk_reader *r) { return (uint32_t)read_uvarint(r, 32); }

int64_t cnk_read_varint(cnk_reader *r) {
    uint64_t v = read_uvarint(r, 64);
    return (int64_t)((v >> 1) ^ (0 - (v & 1)));
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

void cnk_writer_fixed(cnk_writer *w, void *buf, size_t capacity) {
    *w = (cnk_writer){.data = buf, .capacity = capacity, .limit = capacity};
}

void cnk_writer_growing(cnk_writer *w, size_t limit) {
    *w = (cnk_writer){.limit = limit ? limit : SIZE_MAX / 2, .growing = true};
}

void cnk_writer_free(cnk_writer *w) {
    if (!w->growing) return;
    cnk_free(w->data);
    w->data = NULL;
    w->len = w->capacity = 0;
}

static int writer_grow(cnk_writer *w, size_t needed) {
    if (!w->growing || needed > w->limit) return CHRONIK_ETOOLARGE;
    size_t capacity = w->capacity < WRITER_FIRST_CAPACITY ? WRITER_FIRST_CAPACITY : w->capacity;
    while (capacity < needed) capacity *= 2;
    if (capacity > w->limit) capacity = w->limit;
    uint8_t *data = cnk_realloc(w->data, capacity);
    if (data == NULL) return CHRONIK_ENOMEM;
    w->data = data;
    w->capacity = capacity;
    return 0;
}

int cnk_writer_reserve(cnk_writer *w, size_t len) {
    if (w->error) return w->error;
    if (len <= w->capacity - w->len && w->data) return 0;
    w->error = len > SIZE_MAX / 2 - w->len ? CHRONIK_ETOOLARGE : writer_grow(w, w->len + len);
    return w->error;
}

uint8_t *cnk_write_space(cnk_writer *w, size_t len) {
    if (cnk_writer_reserve(w, len)) return NULL;
    uint8_t *p = w->data + w->len;
    w->len += len;
    return p;
}

void cnk_write_bytes(cnk_writer *w, const void *p, size_t len) {
    if (len == 0) return;
    uint8_t *to = cnk_write_space(w, len);
    if (to) memcpy(to, p, len);
}

void cnk_write_u8(cnk_writer *w, uint8_t v) {
    uint8_t *p = cnk_write_space(w, 1);
    if (p) *p = v;
}

void cnk_write_be16(cnk_writer *w, uint16_t v) {
    uint8_t *p = cnk_write_space(w, 2);
    if (p) cnk_store_be16(p, v);
}

void cnk_write_be32(cnk_writer *w, uint32_t v) {
    uint8_t *p = cnk_write_space(w, 4);
    if (p) cnk_store_be32(p, v);
}

void cnk_write_be64(cnk_writer *w, uint64_t v) {
    uint8_t *p = cnk_write_space(w, 8);
    if (p) cnk_store_be64(p, v);
}

void cnk_write_le16(cnk_writer *w, uint16_t v) {
    uint8_t *p = cnk_write_space(w, 2);
    if (p) cnk_store_le16(p, v);
}

void cnk_write_le32(cnk_writer *w, uint32_t v) {
    uint8_t *p = cnk_write_space(w, 4);
    if (p) cnk_store_le32(p, v);
}

void cnk_write_le64(cnk_writer *w, uint64_t v) {
    uint8_t *p = cnk_write_space(w, 8);
    if (p) cnk_store_le64(p, v);
}

void cnk_write_uvarint(cnk_writer *w, uint64_t v) {
    uint8_t *p = cnk_write_space(w, cnk_uvarint_size(v));
    if (p == NULL) return;
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80u);
    *p = (uint8_t)v;
}

static uint64_t zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (0 - ((uint64_t)v >> 63)); }

void cnk_write_varint(cnk_writer *w, int64_t v) { cnk_write_uvarint(w, zigzag(v)); }

size_t cnk_uvarint_size(uint64_t v) { return (70 - (size_t)__builtin_clzll(v | 1)) / 7; }

size_t cnk_varint_size(int64_t v) { return cnk_uvarint_size(zigzag(v)); }
