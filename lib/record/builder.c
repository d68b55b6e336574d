/* Building a batch: records are encoded as they come, behind room for the header; finishing compresses them and writes
 * the header. A builder belongs to one thread at a time. */
#include "record/record.h"

#include <string.h>

#include "base/crc32c.h"
#include "codec/codec.h"

#define ATTRIBUTES_COUNTED 1u /* a record's attributes byte */

void cnk_batch_builder_init(cnk_batch_builder *builder, unsigned codec, int level, size_t bytes_max) {
    *builder = (cnk_batch_builder){
        .codec = codec, .level = level, .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    cnk_writer_growing(&builder->out, bytes_max && bytes_max < INT32_MAX ? bytes_max : INT32_MAX);
}

void cnk_batch_builder_producer(cnk_batch_builder *builder, int64_t id, int16_t epoch, int32_t base_sequence) {
    builder->producer_id = id;
    builder->producer_epoch = epoch;
    builder->base_sequence = base_sequence;
}

void cnk_batch_builder_free(cnk_batch_builder *builder) { cnk_writer_free(&builder->out); }

/* The size of a length and its bytes; 0 where the length is impossible. A null has the length -1. */
static uint64_t slice_size(bool null, uint64_t len) {
    if (null) return cnk_varint_size(-1);
    return len > INT32_MAX ? 0 : cnk_varint_size((int64_t)len) + len;
}

static void write_slice(cnk_writer *w, const void *data, size_t len) {
    cnk_write_varint(w, data ? (int64_t)len : -1);
    if (data) cnk_write_bytes(w, data, len);
}

/* The bytes that a record's length field counts, or 0 for a record that cannot be. */
static uint64_t record_size(const cnk_record_spec *r, int64_t timestamp_delta, int32_t offset_delta) {
    uint64_t key = slice_size(r->key == NULL, r->key_len), value = slice_size(r->value == NULL, r->value_len);
    if (key == 0 || value == 0 || r->header_count > INT32_MAX) return 0;
    uint64_t size = ATTRIBUTES_COUNTED + cnk_varint_size(timestamp_delta) + cnk_varint_size(offset_delta) + key +
                    value + cnk_varint_size((int64_t)r->header_count);
    for (size_t i = 0; i < r->header_count; i++) {
        const cnk_record_header *h = &r->headers[i];
        if (h->key == NULL || h->key_len < 0 || (h->value && h->value_len < 0)) return 0;
        size += slice_size(false, (uint64_t)h->key_len) + slice_size(h->value == NULL, (uint64_t)h->value_len);
    }
    return size <= INT32_MAX ? size : 0;
}

int cnk_batch_builder_add(cnk_batch_builder *builder, const cnk_record_spec *record) {
    cnk_writer *w = &builder->out;
    bool first = builder->count == 0;
    int64_t base = first ? record->timestamp : builder->base_timestamp;
    int64_t delta = (int64_t)((uint64_t)record->timestamp - (uint64_t)base);
    uint64_t size = record_size(record, delta, builder->count);
    if (size == 0) return CHRONIK_EINVAL;
    if (builder->count == INT32_MAX) return CHRONIK_ETOOLARGE;
    size_t before = w->len;
    if (first) cnk_write_space(w, CNK_BATCH_HEADER_BYTES);
    cnk_writer_reserve(w, cnk_varint_size((int64_t)size) + (size_t)size);
    if (w->error) {
        int error = w->error;
        w->error = 0;
        w->len = before;
        return error;
    }
    cnk_write_varint(w, (int64_t)size);
    cnk_write_u8(w, 0);
    cnk_write_varint(w, delta);
    cnk_write_varint(w, builder->count);
    write_slice(w, record->key, record->key_len);
    write_slice(w, record->value, record->value_len);
    cnk_write_varint(w, (int64_t)record->header_count);
    for (size_t i = 0; i < record->header_count; i++) {
        write_slice(w, record->headers[i].key, (size_t)record->headers[i].key_len);
        write_slice(w, record->headers[i].value, (size_t)record->headers[i].value_len);
    }
    if (first || record->timestamp > builder->max_timestamp) builder->max_timestamp = record->timestamp;
    builder->base_timestamp = base;
    builder->count++;
    return 0;
}

static void write_header(const cnk_batch_builder *b, uint8_t *at, size_t len) {
    cnk_writer w;
    cnk_writer_fixed(&w, at, CNK_BATCH_HEADER_BYTES);
    cnk_write_be64(&w, 0);
    cnk_write_be32(&w, (uint32_t)(len - 12));
    cnk_write_be32(&w, UINT32_MAX); /* the leader epoch is the broker's to set; -1 until then */
    cnk_write_u8(&w, 2);
    cnk_write_be32(&w, 0);
    cnk_write_be16(&w, (uint16_t)(b->attributes | b->codec));
    cnk_write_be32(&w, (uint32_t)(b->count - 1));
    cnk_write_be64(&w, (uint64_t)b->base_timestamp);
    cnk_write_be64(&w, (uint64_t)b->max_timestamp);
    cnk_write_be64(&w, (uint64_t)b->producer_id);
    cnk_write_be16(&w, (uint16_t)b->producer_epoch);
    cnk_write_be32(&w, (uint32_t)b->base_sequence);
    cnk_write_be32(&w, (uint32_t)b->count);
    cnk_store_be32(at + 17, cnk_crc32c(0, at + CNK_BATCH_CRC_FROM, len - CNK_BATCH_CRC_FROM));
}

int cnk_batch_builder_finish(cnk_batch_builder *builder, cnk_writer *out) {
    if (builder->count == 0) return CHRONIK_EINVAL;
    if (out->error) return out->error;
    size_t start = out->len;
    cnk_write_space(out, CNK_BATCH_HEADER_BYTES);
    int error = out->error;
    if (error == 0)
        error = cnk_codec_compress(builder->codec, builder->level, builder->out.data + CNK_BATCH_HEADER_BYTES,
                                   builder->out.len - CNK_BATCH_HEADER_BYTES, out);
    if (error == 0 && out->len - start > INT32_MAX) error = CHRONIK_ETOOLARGE;
    if (error) {
        out->len = start;
        out->error = 0;
        return error;
    }
    write_header(builder, out->data + start, out->len - start);
    builder->out.len = 0;
    builder->count = 0;
    return 0;
}
