/* Random messages, and their comparison, by descriptor: shared by the round-trip tests and the oracle's driver. */
#ifndef CNK_TESTS_RANDOM_MESSAGE_H
#define CNK_TESTS_RANDOM_MESSAGE_H

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kafka/message.h"

typedef struct random_array { void *items; int32_t count; } random_array;

static inline void random_struct(cnk_rng *rng, cnk_arena *arena, const cnk_kafka_struct *s, int version, uint8_t *out);

static inline int64_t random_integer(cnk_rng *rng) {
    switch (cnk_rng_below(rng, 4)) {
    case 0: return 0;
    case 1: return -1;
    case 2: return cnk_rng_between(rng, -1000, 1000);
    default: return (int64_t)cnk_rng_next(rng);
    }
}

static inline void random_text(cnk_rng *rng, cnk_arena *arena, bool text, const uint8_t **ret_data, int32_t *ret_len) {
    static const char *const pieces[] = {"a", "topic", "-", "_", "x.y", "0", "é", "日本", "🦀", " ", "\n"};
    const size_t room = cnk_rng_chance(rng, 1, 50) ? 5000 : 40;
    uint8_t *p = cnk_arena_alloc(arena, room);
    size_t len = 0;
    const size_t want = (size_t)cnk_rng_below(rng, room);
    if (!p) abort();
    while (len < want) {
        const char *piece = pieces[cnk_rng_below(rng, sizeof pieces / sizeof *pieces)];
        const size_t n = strlen(piece);
        if (text && len + n > room) break;
        if (text) memcpy(p + len, piece, n);
        else p[len] = (uint8_t)cnk_rng_next(rng);
        len += text ? n : 1;
    }
    *ret_data = p;
    *ret_len = (int32_t)len;
}

static inline void random_value(cnk_rng *rng, cnk_arena *arena, const cnk_kafka_field *f, int version, bool nullable,
                                uint8_t *out) {
    const int64_t v = random_integer(rng);
    const bool null = nullable && cnk_rng_chance(rng, 1, 4);
    const uint8_t *data = NULL;
    int32_t len = -1;
    switch (f->type) {
    case CNK_KAFKA_BOOL: *(bool *)(void *)out = (v & 1) != 0; break;
    case CNK_KAFKA_INT8: *(int8_t *)(void *)out = (int8_t)v; break;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: *(uint16_t *)(void *)out = (uint16_t)v; break;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: *(uint32_t *)(void *)out = (uint32_t)v; break;
    case CNK_KAFKA_INT64: *(int64_t *)(void *)out = v; break;
    case CNK_KAFKA_FLOAT64: *(double *)(void *)out = (double)v; break;
    case CNK_KAFKA_UUID: if (v) cnk_rng_fill(rng, out, 16); break;
    case CNK_KAFKA_STRING:
        if (!null) random_text(rng, arena, true, &data, &len);
        *(cnk_kafka_string *)(void *)out = (cnk_kafka_string){(const char *)data, len};
        break;
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS:
        if (!null) random_text(rng, arena, false, &data, &len);
        *(cnk_kafka_bytes *)(void *)out = (cnk_kafka_bytes){data, len};
        break;
    case CNK_KAFKA_STRUCT: random_struct(rng, arena, f->sub, version, out); break;
    }
}

/* Fills the fields that the version has; the others get their defaults. */
static inline void random_struct(cnk_rng *rng, cnk_arena *arena, const cnk_kafka_struct *s, int version, uint8_t *out) {
    cnk_kafka_defaults(s, out);
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        const bool nullable = version >= f->null_min && version <= f->null_max;
        if (version < f->version_min || version > f->version_max) continue;
        if (f->tag >= 0 && cnk_rng_chance(rng, 1, 2)) continue;
        if (!f->array) {
            random_value(rng, arena, f, version, nullable, out + f->offset);
            continue;
        }
        random_array a = {NULL, -1};
        if (!(nullable && cnk_rng_chance(rng, 1, 5))) {
            a.count = (int32_t)cnk_rng_below(rng, cnk_rng_chance(rng, 1, 20) && !f->sub ? 200 : 4);
            if (f->optional) a.count = 1;
            a.items = cnk_arena_alloc(arena, (size_t)a.count * cnk_kafka_element_size(f));
            if (!a.items) abort();
            memset(a.items, 0, (size_t)a.count * cnk_kafka_element_size(f));
        }
        for (int32_t n = 0; n < a.count; n++)
            random_value(rng, arena, f, version, false, (uint8_t *)a.items + (size_t)n * cnk_kafka_element_size(f));
        memcpy(out + f->offset, &a, sizeof a);
    }
}

static inline bool equal_struct(const cnk_kafka_struct *s, const uint8_t *a, const uint8_t *b);

static inline bool equal_value(const cnk_kafka_field *f, const uint8_t *a, const uint8_t *b) {
    if (f->type == CNK_KAFKA_STRUCT) return equal_struct(f->sub, a, b);
    if (f->type == CNK_KAFKA_STRING || f->type == CNK_KAFKA_BYTES || f->type == CNK_KAFKA_RECORDS) {
        cnk_kafka_bytes x, y; /* of the same shape as a string */
        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        return x.len == y.len && (x.len <= 0 || memcmp(x.data, y.data, (size_t)x.len) == 0);
    }
    return memcmp(a, b, cnk_kafka_element_size(f)) == 0;
}

static inline bool equal_struct(const cnk_kafka_struct *s, const uint8_t *a, const uint8_t *b) {
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        if (!f->array) {
            if (!equal_value(f, a + f->offset, b + f->offset)) return false;
            continue;
        }
        random_array x, y;
        memcpy(&x, a + f->offset, sizeof x);
        memcpy(&y, b + f->offset, sizeof y);
        if (x.count != y.count) return false;
        for (int32_t n = 0; n < x.count; n++)
            if (!equal_value(f, (uint8_t *)x.items + (size_t)n * cnk_kafka_element_size(f),
                             (uint8_t *)y.items + (size_t)n * cnk_kafka_element_size(f)))
                return false;
    }
    return true;
}

#endif
