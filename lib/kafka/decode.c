/* The interpreter, reading: any message, any version, by its descriptor. Every length is checked against the bytes that
 * remain, every array's count against count × the smallest encoding of its element, before anything is allocated.
 * Recursion is as deep as the schema. */
#include <string.h>

#include "base/assert.h"
#include "kafka/message.h"

typedef struct decoder {
    cnk_reader *r;
    cnk_arena *arena;
    int version;
    bool flexible, out_of_memory;
} decoder;

static void decode_struct(decoder *d, const cnk_kafka_struct *s, uint8_t *out);

/* Arrays are struct { T *items; int32_t count; }; every T * looks like void * on the machines we serve, and memcpy
 * keeps the compiler from assuming more. */
typedef struct any_array { void *items; int32_t count; } any_array;

static bool is_present(const cnk_kafka_field *f, int version) {
    return version >= f->version_min && version <= f->version_max;
}

static void set_default(const cnk_kafka_field *f, uint8_t *out) {
    if (f->array) {
        const any_array a = {NULL, f->default_null ? -1 : 0};
        memcpy(out, &a, sizeof a);
        return;
    }
    switch (f->type) {
    case CNK_KAFKA_BOOL: *(bool *)(void *)out = f->default_value != 0; break;
    case CNK_KAFKA_INT8: *(int8_t *)(void *)out = (int8_t)f->default_value; break;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: *(int16_t *)(void *)out = (int16_t)f->default_value; break;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: *(int32_t *)(void *)out = (int32_t)f->default_value; break;
    case CNK_KAFKA_INT64: *(int64_t *)(void *)out = f->default_value; break;
    case CNK_KAFKA_FLOAT64: *(double *)(void *)out = 0; break;
    case CNK_KAFKA_STRING: *(cnk_kafka_string *)(void *)out = (cnk_kafka_string){NULL, f->default_null ? -1 : 0}; break;
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: *(cnk_kafka_bytes *)(void *)out = (cnk_kafka_bytes){NULL, f->default_null ? -1 : 0}; break;
    case CNK_KAFKA_UUID: memset(out, 0, sizeof(cnk_uuid)); break;
    case CNK_KAFKA_STRUCT: cnk_kafka_defaults(f->sub, out); break;
    }
}

void cnk_kafka_defaults(const cnk_kafka_struct *s, void *ret_value) {
    memset(ret_value, 0, s->size);
    for (int i = 0; i < s->field_count; i++) set_default(&s->fields[i], (uint8_t *)ret_value + s->fields[i].offset);
}

/* The fewest bytes that one value of the type can take. */
static size_t size_min(const cnk_kafka_field *f, int version, bool flexible, bool as_array) {
    flexible = flexible && !f->inflexible;
    if (as_array) return flexible || f->optional ? 1 : 4;
    size_t sum = 0;
    switch (f->type) {
    case CNK_KAFKA_BOOL:
    case CNK_KAFKA_INT8: return 1;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: return 2;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: return 4;
    case CNK_KAFKA_INT64:
    case CNK_KAFKA_FLOAT64: return 8;
    case CNK_KAFKA_UUID: return 16;
    case CNK_KAFKA_STRING: return flexible ? 1 : 2;
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: return flexible ? 1 : 4;
    case CNK_KAFKA_STRUCT:
        for (int i = 0; i < f->sub->field_count; i++) {
            const cnk_kafka_field *c = &f->sub->fields[i];
            if (is_present(c, version) && c->tag < 0) sum += size_min(c, version, flexible, c->array);
        }
        return sum + (flexible || sum == 0 ? 1 : 0);
    }
    return 1;
}

int32_t cnk_kafka_read_length(cnk_reader *r, bool flexible, bool is_short, size_t element_bytes) {
    int64_t len;
    if (flexible) len = (int64_t)cnk_read_uvarint32(r) - 1;
    else if (is_short) len = (int16_t)cnk_read_be16(r);
    else len = (int32_t)cnk_read_be32(r);
    if (r->error) return 0;
    if (len < -1 || len > INT32_MAX || (len > 0 && (uint64_t)len > cnk_reader_left(r) / element_bytes)) {
        cnk_reader_fail(r);
        return 0;
    }
    return (int32_t)len;
}

void cnk_kafka_skip_tags(cnk_reader *r) {
    const uint32_t count = cnk_read_uvarint32(r);
    int64_t last = -1;
    if (count > cnk_reader_left(r) / 2) cnk_reader_fail(r);
    for (uint32_t i = 0; i < count && !r->error; i++) {
        const uint32_t tag = cnk_read_uvarint32(r);
        (void)cnk_read_bytes(r, cnk_read_uvarint32(r));
        if ((int64_t)tag <= last) cnk_reader_fail(r);
        last = tag;
    }
}

static void decode_single(decoder *d, const cnk_kafka_field *f, bool nullable, uint8_t *out) {
    cnk_reader *r = d->r;
    const bool flexible = d->flexible && !f->inflexible;
    switch (f->type) {
    case CNK_KAFKA_BOOL: *(bool *)(void *)out = cnk_read_u8(r) != 0; break;
    case CNK_KAFKA_INT8: *(int8_t *)(void *)out = (int8_t)cnk_read_u8(r); break;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: *(uint16_t *)(void *)out = cnk_read_be16(r); break;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: *(uint32_t *)(void *)out = cnk_read_be32(r); break;
    case CNK_KAFKA_INT64: *(int64_t *)(void *)out = (int64_t)cnk_read_be64(r); break;
    case CNK_KAFKA_FLOAT64: {
        const uint64_t bits = cnk_read_be64(r);
        memcpy(out, &bits, sizeof bits);
        break;
    }
    case CNK_KAFKA_UUID: {
        const uint8_t *p = cnk_read_bytes(r, sizeof(cnk_uuid));
        if (p) memcpy(out, p, sizeof(cnk_uuid));
        break;
    }
    case CNK_KAFKA_STRING:
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: {
        const int32_t len = cnk_kafka_read_length(r, flexible, f->type == CNK_KAFKA_STRING, 1);
        const uint8_t *p = len > 0 ? cnk_read_bytes(r, (size_t)len) : r->p;
        if (len < 0 && !nullable) cnk_reader_fail(r);
        if (f->type == CNK_KAFKA_STRING)
            *(cnk_kafka_string *)(void *)out = (cnk_kafka_string){len < 0 ? NULL : (const char *)p, len};
        else *(cnk_kafka_bytes *)(void *)out = (cnk_kafka_bytes){len < 0 ? NULL : p, len};
        break;
    }
    case CNK_KAFKA_STRUCT: decode_struct(d, f->sub, out); break;
    }
}

size_t cnk_kafka_element_size(const cnk_kafka_field *f) {
    switch (f->type) {
    case CNK_KAFKA_BOOL: return sizeof(bool);
    case CNK_KAFKA_INT8: return 1;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: return 2;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: return 4;
    case CNK_KAFKA_INT64:
    case CNK_KAFKA_FLOAT64: return 8;
    case CNK_KAFKA_STRING: return sizeof(cnk_kafka_string);
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: return sizeof(cnk_kafka_bytes);
    case CNK_KAFKA_UUID: return sizeof(cnk_uuid);
    case CNK_KAFKA_STRUCT: return f->sub->size;
    }
    return 0;
}

static void decode_array(decoder *d, const cnk_kafka_field *f, bool nullable, uint8_t *out) {
    any_array a = {NULL, 0};
    if (f->optional) {
        a.count = (int8_t)cnk_read_u8(d->r);
        if (a.count != -1 && a.count != 1) cnk_reader_fail(d->r);
    } else {
        a.count = cnk_kafka_read_length(d->r, d->flexible && !f->inflexible, false,
                                        size_min(f, d->version, d->flexible, false));
    }
    if (a.count < 0 && !nullable) cnk_reader_fail(d->r);
    if (d->r->error) return;
    const size_t size = cnk_kafka_element_size(f);
    if (a.count > 0) {
        /* count is at most the bytes that remain, size is a struct's: the product fits 64 bits */
        a.items = cnk_arena_alloc(d->arena, (size_t)a.count * size);
        if (!a.items) {
            d->out_of_memory = true;
            cnk_reader_fail(d->r);
            return;
        }
    }
    for (int32_t i = 0; i < a.count && !d->r->error; i++)
        decode_single(d, f, false, (uint8_t *)a.items + (size_t)i * size);
    memcpy(out, &a, sizeof a);
}

static void decode_field(decoder *d, const cnk_kafka_field *f, uint8_t *out) {
    const bool nullable = d->version >= f->null_min && d->version <= f->null_max;
    if (f->array) decode_array(d, f, nullable, out);
    else decode_single(d, f, nullable, out);
}

/* Tags ascend strictly (KIP-482); a known one takes exactly its bytes; an unknown one is skipped. */
static void decode_tags(decoder *d, const cnk_kafka_struct *s, uint8_t *out) {
    cnk_reader *outer = d->r;
    uint32_t count = cnk_read_uvarint32(outer);
    int64_t last = -1;
    if (count > cnk_reader_left(outer) / 2) cnk_reader_fail(outer);
    for (uint32_t n = 0; n < count && !outer->error; n++) {
        const uint32_t tag = cnk_read_uvarint32(outer), len = cnk_read_uvarint32(outer);
        const uint8_t *p = cnk_read_bytes(outer, len);
        if ((int64_t)tag <= last) cnk_reader_fail(outer);
        if (outer->error) break;
        last = tag;
        for (int i = 0; i < s->field_count; i++) {
            const cnk_kafka_field *f = &s->fields[i];
            if (f->tag < 0 || (uint32_t)f->tag != tag || !is_present(f, d->version)) continue;
            cnk_reader inner = cnk_reader_of(p, len);
            d->r = &inner;
            decode_field(d, f, out + f->offset);
            d->r = outer;
            if (inner.error || cnk_reader_left(&inner) != 0) cnk_reader_fail(outer);
        }
    }
}

static void decode_struct(decoder *d, const cnk_kafka_struct *s, uint8_t *out) {
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        if (is_present(f, d->version) && f->tag < 0) decode_field(d, f, out + f->offset);
        else set_default(f, out + f->offset);
    }
    if (d->flexible) decode_tags(d, s, out);
}

int cnk_kafka_decode(const cnk_kafka_message *m, int version, cnk_reader *r, cnk_arena *arena, void *ret_value) {
    if (version < m->version_min || version > m->version_max) return CHRONIK_EUNSUPPORTEDVERSION;
    decoder d = {r, arena, version, version >= m->flexible_min, false};
    decode_struct(&d, m->root, ret_value);
    if (d.out_of_memory) return CHRONIK_ENOMEM;
    return r->error;
}
