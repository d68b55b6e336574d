/* The interpreter, writing: any message, any version, by its descriptor. The first error sticks; the writer's own comes
 * through as it is. */
#include <string.h>

#include "base/assert.h"
#include "kafka/message.h"

typedef struct encoder {
    cnk_writer *w;
    int version, error;
    bool flexible;
} encoder;

static void encode_struct(encoder *e, const cnk_kafka_struct *s, const uint8_t *in);

typedef struct any_array { const void *items; int32_t count; } any_array;

static any_array load_array(const uint8_t *in) {
    any_array a;
    memcpy(&a, in, sizeof a);
    return a;
}

static void fail(encoder *e, int code) {
    if (e->error == 0) e->error = code;
}

static bool is_present(const cnk_kafka_field *f, int version) {
    return version >= f->version_min && version <= f->version_max;
}

static bool is_default(const cnk_kafka_field *f, const uint8_t *in) {
    static const cnk_uuid zero;
    if (f->array) return load_array(in).count == (f->default_null ? -1 : 0);
    switch (f->type) {
    case CNK_KAFKA_BOOL: return *(const bool *)(const void *)in == (f->default_value != 0);
    case CNK_KAFKA_INT8: return *(const int8_t *)(const void *)in == f->default_value;
    case CNK_KAFKA_INT16: return *(const int16_t *)(const void *)in == f->default_value;
    case CNK_KAFKA_UINT16: return *(const uint16_t *)(const void *)in == (uint16_t)f->default_value;
    case CNK_KAFKA_INT32: return *(const int32_t *)(const void *)in == f->default_value;
    case CNK_KAFKA_UINT32: return *(const uint32_t *)(const void *)in == (uint32_t)f->default_value;
    case CNK_KAFKA_INT64: return *(const int64_t *)(const void *)in == f->default_value;
    case CNK_KAFKA_FLOAT64: return cnk_load_le64(in) == 0;
    case CNK_KAFKA_STRING: return ((const cnk_kafka_string *)(const void *)in)->len == (f->default_null ? -1 : 0);
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: return ((const cnk_kafka_bytes *)(const void *)in)->len == (f->default_null ? -1 : 0);
    case CNK_KAFKA_UUID: return memcmp(in, &zero, sizeof zero) == 0;
    case CNK_KAFKA_STRUCT:
        for (int i = 0; i < f->sub->field_count; i++)
            if (!is_default(&f->sub->fields[i], in + f->sub->fields[i].offset)) return false;
        return true;
    }
    return false;
}

void cnk_kafka_write_string(cnk_writer *w, cnk_kafka_string s, bool flexible) {
    cnk_kafka_write_length(w, s.len, flexible, true);
    if (s.len > 0) cnk_write_bytes(w, s.data, (size_t)s.len);
}

static void encode_single(encoder *e, const cnk_kafka_field *f, bool nullable, const uint8_t *in) {
    cnk_writer *w = e->w;
    const bool flexible = e->flexible && !f->inflexible;
    switch (f->type) {
    case CNK_KAFKA_BOOL: cnk_write_u8(w, *(const bool *)(const void *)in ? 1 : 0); break;
    case CNK_KAFKA_INT8: cnk_write_u8(w, *in); break;
    case CNK_KAFKA_INT16:
    case CNK_KAFKA_UINT16: cnk_write_be16(w, *(const uint16_t *)(const void *)in); break;
    case CNK_KAFKA_INT32:
    case CNK_KAFKA_UINT32: cnk_write_be32(w, *(const uint32_t *)(const void *)in); break;
    case CNK_KAFKA_INT64:
    case CNK_KAFKA_FLOAT64: cnk_write_be64(w, cnk_load_le64(in)); break;
    case CNK_KAFKA_UUID: cnk_write_bytes(w, in, sizeof(cnk_uuid)); break;
    case CNK_KAFKA_STRING: {
        const cnk_kafka_string *s = (const void *)in;
        if ((s->len < 0 && !nullable) || s->len > INT16_MAX) fail(e, CHRONIK_EINVAL);
        else cnk_kafka_write_string(w, *s, flexible);
        break;
    }
    case CNK_KAFKA_BYTES:
    case CNK_KAFKA_RECORDS: {
        const cnk_kafka_bytes *b = (const void *)in;
        if (b->len < 0 && !nullable) { fail(e, CHRONIK_EINVAL); break; }
        cnk_kafka_write_length(w, b->len, flexible, false);
        if (b->len > 0) cnk_write_bytes(w, b->data, (size_t)b->len);
        break;
    }
    case CNK_KAFKA_STRUCT: encode_struct(e, f->sub, in); break;
    }
}

static void encode_field(encoder *e, const cnk_kafka_field *f, const uint8_t *in) {
    const bool nullable = e->version >= f->null_min && e->version <= f->null_max;
    if (!f->array) {
        encode_single(e, f, nullable, in);
        return;
    }
    const any_array a = load_array(in);
    if (a.count < 0 && !nullable) {
        fail(e, CHRONIK_EINVAL);
        return;
    }
    if (f->optional) cnk_write_u8(e->w, (uint8_t)(a.count > 0 ? 1 : -1));
    else cnk_kafka_write_length(e->w, a.count, e->flexible && !f->inflexible, false);
    const size_t size = cnk_kafka_element_size(f);
    for (int32_t i = 0; i < a.count && e->error == 0 && e->w->error == 0; i++)
        encode_single(e, f, false, (const uint8_t *)a.items + (size_t)i * size);
}

/* One tagged field: tag, size, bytes. The size comes first, and has as many bytes as it needs: the bytes are written
 * behind a reserved place of the largest size and moved up. */
static void encode_tag(encoder *e, const cnk_kafka_field *f, const uint8_t *in) {
    cnk_writer *w = e->w;
    uint8_t size[8];
    cnk_writer head;
    cnk_write_uvarint(w, (uint64_t)f->tag);
    const size_t mark = w->len;
    if (!cnk_write_space(w, 5)) return;
    encode_field(e, f, in);
    if (w->error || e->error) return;
    const size_t len = w->len - mark - 5;
    cnk_writer_fixed(&head, size, sizeof size);
    cnk_write_uvarint(&head, len);
    memcpy(w->data + mark, size, head.len);
    memmove(w->data + mark + head.len, w->data + mark + 5, len);
    w->len = mark + head.len + len;
}

static void encode_tags(encoder *e, const cnk_kafka_struct *s, const uint8_t *in) {
    uint64_t count = 0;
    int64_t last = -1;
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        count += f->tag >= 0 && is_present(f, e->version) && !is_default(f, in + f->offset);
    }
    cnk_write_uvarint(e->w, count);
    while (count-- > 0) { /* in ascending order; there are few */
        const cnk_kafka_field *next = NULL;
        for (int i = 0; i < s->field_count; i++) {
            const cnk_kafka_field *f = &s->fields[i];
            if (f->tag <= last || !is_present(f, e->version) || is_default(f, in + f->offset)) continue;
            if (!next || f->tag < next->tag) next = f;
        }
        CNK_ASSERT(next != NULL);
        encode_tag(e, next, in + next->offset);
        last = next->tag;
    }
}

static void encode_struct(encoder *e, const cnk_kafka_struct *s, const uint8_t *in) {
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        if (!is_present(f, e->version)) {
            if (!f->ignorable && !is_default(f, in + f->offset)) fail(e, CHRONIK_EUNSUPPORTEDVERSION);
        } else if (f->tag < 0) {
            encode_field(e, f, in + f->offset);
        }
    }
    if (e->flexible) encode_tags(e, s, in);
}

int cnk_kafka_encode(const cnk_kafka_message *m, int version, const void *value, cnk_writer *w) {
    if (version < m->version_min || version > m->version_max) return CHRONIK_EUNSUPPORTEDVERSION;
    encoder e = {w, version, 0, version >= m->flexible_min};
    encode_struct(&e, m->root, value);
    return e.error ? e.error : w->error;
}
