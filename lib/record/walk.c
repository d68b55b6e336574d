/* The long way of the record walk: every step checked. No state; any thread. */
#include "record/walk.h"

/* Integers of at most `bits` bits: a byte that would carry one beyond them is an error. The place behind, or NULL. */
static const uint8_t *walk_varint(const uint8_t *p, const uint8_t *end, unsigned bits, int64_t *ret_v) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < bits && p < end; shift += 7) {
        uint8_t byte = *p++;
        if (bits - shift < 7 && byte >> (bits - shift)) return NULL;
        v |= (uint64_t)(byte & 0x7Fu) << shift;
        if (byte < 0x80) {
            *ret_v = cnk_walk_unzigzag(v);
            return p;
        }
    }
    return NULL;
}

static const uint8_t *walk_i32(const uint8_t *p, const uint8_t *end, int32_t *ret_v) {
    int64_t v = 0;
    if (__builtin_expect(end - p >= 2, 1)) {
        const uint8_t *next = cnk_walk_short(p, ret_v);
        if (__builtin_expect(next != NULL, 1)) return next;
    }
    p = walk_varint(p, end, 32, &v);
    if (p) *ret_v = (int32_t)v;
    return p;
}

const uint8_t *cnk_walk_slice(const uint8_t *p, const uint8_t *end, int32_t *ret_len, const uint8_t **ret_data) {
    int32_t len;
    p = walk_i32(p, end, &len);
    if (p == NULL || len < -1 || len > end - p) return NULL;
    *ret_len = len;
    *ret_data = len < 0 ? NULL : p;
    return len < 0 ? p : p + len;
}

const uint8_t *cnk_walk_headers(const uint8_t *p, const uint8_t *end, int32_t count) {
    /* A header is at least two bytes, so a count that the bytes cannot hold ends here. */
    if (count < 0 || count > (end - p) / 2) return NULL;
    for (int32_t i = 0; i < count && p; i++) {
        int32_t len;
        const uint8_t *data;
        p = cnk_walk_slice(p, end, &len, &data);
        if (p == NULL || len < 0) return NULL; /* the key is never null */
        p = cnk_walk_slice(p, end, &len, &data);
    }
    return p == end ? p : NULL;
}

const uint8_t *cnk_walk_record_checked(const uint8_t *p, const uint8_t *end, cnk_raw_record *ret_raw) {
    int32_t len;
    p = walk_i32(p, end, &len);
    if (p == NULL || len < 1 || len > end - p) return NULL;
    const uint8_t *stop = p + len;
    p = walk_varint(p + 1, stop, 64, &ret_raw->timestamp_delta); /* behind the attributes */
    if (p) p = walk_i32(p, stop, &ret_raw->offset_delta);
    if (p) p = cnk_walk_slice(p, stop, &ret_raw->key_len, &ret_raw->key);
    if (p) p = cnk_walk_slice(p, stop, &ret_raw->value_len, &ret_raw->value);
    if (p) p = walk_i32(p, stop, &ret_raw->header_count);
    if (p == NULL) return NULL;
    ret_raw->headers = p;
    ret_raw->end = stop;
    return cnk_walk_headers(p, stop, ret_raw->header_count);
}
