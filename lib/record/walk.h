/* The decoding of one record. The layout stands in record.h.
 *
 * The short way is inline and takes what nearly all records are: integers of one or two bytes (so a value of up to 8
 * KiB), at least 16 bytes of batch left. It only ever says yes; everything else, malformed records too, goes the long
 * way, which checks each step. */
#ifndef CNK_RECORD_WALK_H
#define CNK_RECORD_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cnk_raw_record {
    int64_t timestamp_delta;
    int32_t offset_delta, key_len, value_len, header_count;
    const uint8_t *key, *value, *headers, *end; /* end: of the record, and of its headers */
} cnk_raw_record;

/* The long way: the place behind the record at p, or NULL where it is malformed. */
const uint8_t *cnk_walk_record_checked(const uint8_t *p, const uint8_t *end, cnk_raw_record *ret_raw);

/* The end of `count` headers, or NULL unless they are well formed and fill p..end. */
const uint8_t *cnk_walk_headers(const uint8_t *p, const uint8_t *end, int32_t count);

/* A length, -1 for null, and its bytes: the place behind them, or NULL. */
const uint8_t *cnk_walk_slice(const uint8_t *p, const uint8_t *end, int32_t *ret_len, const uint8_t **ret_data);

static inline int64_t cnk_walk_unzigzag(uint64_t v) { return (int64_t)((v >> 1) ^ (0 - (v & 1))); }

/* An integer of one or two bytes, which are there: the place behind it, or NULL where it is longer. */
static inline const uint8_t *cnk_walk_short(const uint8_t *p, int32_t *ret_v) {
    if (__builtin_expect(p[0] < 0x80, 1)) {
        *ret_v = (int32_t)cnk_walk_unzigzag(p[0]);
        return p + 1;
    }
    if (__builtin_expect(p[1] >= 0x80, 0)) return NULL;
    *ret_v = (int32_t)cnk_walk_unzigzag((p[0] & 0x7Fu) | (unsigned)p[1] << 7);
    return p + 2;
}

/* The short way: NULL where it does not lead there. Up to the key's length nine bytes are read, within the 16. */
static inline const uint8_t *cnk_walk_record_short(const uint8_t *p, const uint8_t *end, cnk_raw_record *ret_raw) {
    int32_t len, timestamp_delta;
    if (end - p < 16 || (p = cnk_walk_short(p, &len)) == NULL || len < 6 || len > end - p) return NULL;
    const uint8_t *stop = p + len;
    if ((p = cnk_walk_short(p + 1, &timestamp_delta)) == NULL) return NULL; /* behind the attributes */
    if ((p = cnk_walk_short(p, &ret_raw->offset_delta)) == NULL) return NULL;
    if ((p = cnk_walk_short(p, &ret_raw->key_len)) == NULL) return NULL;
    ret_raw->timestamp_delta = timestamp_delta;
    ret_raw->key = NULL;
    if (ret_raw->key_len >= 0) {
        if (ret_raw->key_len > stop - p) return NULL;
        ret_raw->key = p;
        p += ret_raw->key_len;
    } else if (ret_raw->key_len != -1)
        return NULL;
    if (stop - p < 2 || (p = cnk_walk_short(p, &ret_raw->value_len)) == NULL) return NULL;
    ret_raw->value = NULL;
    if (ret_raw->value_len >= 0) {
        if (ret_raw->value_len > stop - p) return NULL;
        ret_raw->value = p;
        p += ret_raw->value_len;
    } else if (ret_raw->value_len != -1)
        return NULL;
    ret_raw->end = stop;
    if (__builtin_expect(stop - p == 1 && *p == 0, 1)) { /* no headers */
        ret_raw->header_count = 0;
        ret_raw->headers = stop;
        return stop;
    }
    if (stop - p < 2 || (p = cnk_walk_short(p, &ret_raw->header_count)) == NULL) return NULL;
    ret_raw->headers = p;
    return cnk_walk_headers(p, stop, ret_raw->header_count);
}

/* Decodes the record at p and gives the place behind it; NULL: malformed. */
static inline const uint8_t *cnk_walk_record(const uint8_t *p, const uint8_t *end, cnk_raw_record *ret_raw) {
    const uint8_t *next = cnk_walk_record_short(p, end, ret_raw);
    return __builtin_expect(next != NULL, 1) ? next : cnk_walk_record_checked(p, end, ret_raw);
}

#endif
