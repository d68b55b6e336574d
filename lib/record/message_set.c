/* Message sets (Kafka's formats 0 and 1) to batches and back. The byte table stands in message_set.h.
 *
 * Judgement is Kafka 3.9's (UnifiedLog.analyzeAndValidateRecords, then LogValidator, then the iterator over wrappers):
 * first every outer message's size and CRC, then the wrapper as a whole, then record by record. Where Kafka fails inside,
 * with an unknown server error, we say what is wrong: fields that do not fit (ECORRUPTMESSAGE), values that do not
 * decompress (EINVALIDRECORD), unknown codecs (EUNSUPPORTEDCODEC), timestamps below -1 (EINVALIDTIMESTAMP). */
#include "record/message_set.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

#include "codec/codec.h"
#include "record/record.h"

#define LOG_OVERHEAD 12u /* offset and size */
#define MAGIC_AT 4u      /* from the CRC on */
#define ATTRIBUTES_AT 5u
#define OVERHEAD_0 14u   /* CRC to the value's length, without timestamp */
#define OVERHEAD_1 22u

static int fault(cnk_batch_fault *ret_fault, int error, int32_t record, const char *text) {
    if (ret_fault) *ret_fault = (cnk_batch_fault){record, text};
    return error;
}

static uint32_t crc_of(const uint8_t *p, size_t len) { return (uint32_t)crc32(0, p, (uInt)len); }

/* ---- reading ---------------------------------------------------------------------------------------------------- */

int cnk_message_next(cnk_reader *set, cnk_message *ret_message) {
    const uint8_t *p = set->p;
    const size_t left = cnk_reader_left(set);
    if (left < LOG_OVERHEAD) return 0;
    const uint32_t size = cnk_load_be32(p + 8);
    if (size < CNK_MESSAGE_SIZE_MIN || size > INT32_MAX) return CHRONIK_ECORRUPTMESSAGE;
    if (size > left - LOG_OVERHEAD) return 0;
    *ret_message = (cnk_message){.data = p + LOG_OVERHEAD,
                                 .size = size,
                                 .offset = (int64_t)cnk_load_be64(p),
                                 .magic = p[LOG_OVERHEAD + MAGIC_AT],
                                 .attributes = p[LOG_OVERHEAD + ATTRIBUTES_AT],
                                 .timestamp = -1};
    set->p += LOG_OVERHEAD + size;
    return 1;
}

bool cnk_message_crc_valid(const cnk_message *m) {
    return crc_of(m->data + MAGIC_AT, m->size - MAGIC_AT) == cnk_load_be32(m->data);
}

/* A length, below 0 for null, and its bytes. */
static void read_field(cnk_reader *r, const uint8_t **ret_data, uint32_t *ret_len) {
    const int32_t len = (int32_t)cnk_read_be32(r);
    *ret_data = len < 0 ? NULL : cnk_read_bytes(r, (size_t)len);
    *ret_len = len < 0 ? 0 : (uint32_t)len;
}

int cnk_message_open(cnk_message *m) {
    cnk_reader r = cnk_reader_of(m->data + ATTRIBUTES_AT + 1, m->size - ATTRIBUTES_AT - 1);
    m->timestamp = m->magic == 0 ? -1 : (int64_t)cnk_read_be64(&r);
    read_field(&r, &m->key, &m->key_len);
    read_field(&r, &m->value, &m->value_len);
    return r.error ? CHRONIK_ECORRUPTMESSAGE : 0;
}

/* Kafka looks for the magic as soon as there is a size, even of a message that is cut off behind it. */
static int framed_next(cnk_reader *set, cnk_message *ret_message) {
    const uint8_t *p = set->p;
    const int rc = cnk_message_next(set, ret_message);
    if (rc < 0 || set->end - p <= (ptrdiff_t)(LOG_OVERHEAD + MAGIC_AT)) return rc;
    return p[LOG_OVERHEAD + MAGIC_AT] > 2 ? CHRONIK_ECORRUPTMESSAGE : rc;
}

int cnk_message_set_format(const void *data, size_t len) {
    cnk_reader set = cnk_reader_of(data, len);
    cnk_message m;
    const int rc = framed_next(&set, &m);
    return rc < 0 ? rc : rc == 0 ? CHRONIK_ENOTFOUND : m.magic;
}

/* ---- a set becomes a batch -------------------------------------------------------------------------------------- */

typedef struct conversion {
    const cnk_batch_rules *rules;
    cnk_batch_fault *fault;
    cnk_batch_builder builder;
    int64_t oldest, newest; /* timestamps allowed */
    int32_t index;          /* of the record, within its outer message */
    int32_t untimely, bad;  /* the first ones of the outer message; -1: none */
    const char *bad_text;
} conversion;

typedef struct outer { /* what the first walk has found */
    unsigned codec;    /* of the last one that has any */
    int32_t count;
    uint8_t magic;     /* of the first */
    bool mixed;        /* there is another magic */
} outer;

static int check_outer(const void *data, size_t len, const cnk_batch_rules *rules, outer *ret_outer,
                       cnk_batch_fault *ret_fault) {
    cnk_reader set = cnk_reader_of(data, len);
    cnk_message m;
    outer o = {.codec = CNK_CODEC_NONE};
    int rc;
    while ((rc = framed_next(&set, &m)) == 1) {
        if (m.size + LOG_OVERHEAD > rules->bytes_max)
            return fault(ret_fault, CHRONIK_EMESSAGETOOLARGE, -1, "The message is larger than max.message.bytes");
        if (m.magic < 2 && !cnk_message_crc_valid(&m))
            return fault(ret_fault, CHRONIK_ECORRUPTMESSAGE, -1, "The message does not match its CRC");
        if (m.magic < 2 && cnk_message_codec(&m) != CNK_CODEC_NONE) o.codec = cnk_message_codec(&m);
        if (o.count == 0) o.magic = m.magic;
        o.mixed |= m.magic != o.magic;
        o.count++;
    }
    if (rc < 0) return fault(ret_fault, rc, -1, "The size or the magic of a message is invalid");
    if (o.codec >= CNK_CODEC_COUNT)
        return fault(ret_fault, CHRONIK_EUNSUPPORTEDCODEC, -1, "The message has an unknown compression type");
    if (o.mixed || o.magic > 1)
        return fault(ret_fault, CHRONIK_EINVALIDRECORD, -1, "The messages are of different formats");
    if (o.codec != CNK_CODEC_NONE && o.count > 1)
        return fault(ret_fault, CHRONIK_EINVALIDRECORD, -1, "There is more than one message beside a compressed one");
    *ret_outer = o;
    return 0;
}

static void bad_record(conversion *c, const char *text) {
    if (c->bad >= 0) return;
    c->bad = c->index;
    c->bad_text = text;
}

/* Key and timestamp as the topic wants them, of a message or of what a wrapper says of it. */
static void judge(conversion *c, const cnk_message *m, bool append_time, int64_t timestamp) {
    const char *const stamped = "Producers must not set the timestamp type to LogAppendTime";
    if (c->rules->compacted && m->key == NULL) {
        bad_record(c, "Compacted topics accept no record without key");
        return;
    }
    const char *text = NULL;
    if (timestamp < -1)
        text = "The timestamp is negative";
    else if (!c->rules->append_time && timestamp != -1)
        text = timestamp < c->oldest || timestamp > c->newest ? "The record's timestamp is out of range" : NULL;
    else if (append_time)
        text = stamped;
    if (text == NULL || c->untimely >= 0) return;
    c->untimely = c->index;
    fault(c->fault, CHRONIK_EINVALIDTIMESTAMP, c->index, text);
}

static int add(conversion *c, const cnk_message *m, int64_t timestamp) {
    if (c->untimely >= 0 || c->bad >= 0) return 0; /* it will not be built */
    const cnk_record_spec spec = {.timestamp = timestamp,
                                  .key = m->key,
                                  .key_len = m->key_len,
                                  .value = m->value,
                                  .value_len = m->value_len};
    const int rc = cnk_batch_builder_add(&c->builder, &spec);
    if (rc == 0 || rc == CHRONIK_ENOMEM) return rc;
    return fault(c->fault, CHRONIK_EMESSAGETOOLARGE, -1, "The messages do not fit into one batch");
}

/* The verdict on an outer message, whose records have all been seen. */
static int verdict(const conversion *c) {
    if (c->untimely >= 0) return CHRONIK_EINVALIDTIMESTAMP;
    return c->bad >= 0 ? fault(c->fault, CHRONIK_EINVALIDRECORD, c->bad, c->bad_text) : 0;
}

static int add_plain(conversion *c, cnk_message *m) {
    if (cnk_message_open(m)) return fault(c->fault, CHRONIK_ECORRUPTMESSAGE, -1, "The message's fields do not fit");
    judge(c, m, cnk_message_append_time(m), m->timestamp);
    const int rc = add(c, m, m->timestamp);
    return rc ? rc : verdict(c);
}

static int decompress(conversion *c, const cnk_message *wrapper, cnk_writer *opened) {
    const unsigned codec = cnk_message_codec(wrapper);
    const uint64_t max = c->rules->decompressed_bytes_max;
    const int rc = wrapper->magic == 0 && codec == CNK_CODEC_LZ4
                       ? cnk_codec_lz4_old_decompress(wrapper->value, wrapper->value_len, max, opened)
                       : cnk_codec_decompress(codec, wrapper->value, wrapper->value_len, max, opened);
    if (rc == CHRONIK_ECORRUPTMESSAGE)
        return fault(c->fault, CHRONIK_EINVALIDRECORD, -1, "The message's value cannot be decompressed");
    if (rc == CHRONIK_EBOMB)
        return fault(c->fault, CHRONIK_EMESSAGETOOLARGE, -1, "The message's value decompresses to more than the limit");
    return rc ? fault(c->fault, rc, -1, chronik_strerror(rc)) : 0;
}

/* That what is inside are whole messages, and their offsets those of the wrapper (KIP-31); 0 is said of it by some
 * versions of librdkafka. */
static int check_inner(conversion *c, const cnk_message *wrapper, cnk_reader set) {
    cnk_message m;
    int rc, count = 0;
    while ((rc = cnk_message_next(&set, &m)) == 1) count = 1;
    if (rc < 0) return fault(c->fault, rc, -1, "The size of a compressed message is invalid");
    if (count == 0) return fault(c->fault, CHRONIK_EINVALIDRECORD, -1, "There is nothing in the compressed message");
    if (wrapper->magic == 1 && wrapper->offset != 0 && wrapper->offset < m.offset)
        return fault(c->fault, CHRONIK_EINVALIDRECORD, -1, "The compressed message's offset is less than its last one's");
    return 0;
}

static int add_inner(conversion *c, const cnk_message *wrapper, cnk_reader set) {
    const bool append_time = cnk_message_append_time(wrapper);
    cnk_message m;
    int rc;
    for (; (rc = cnk_message_next(&set, &m)) == 1; c->index++) {
        if (cnk_message_codec(&m) != CNK_CODEC_NONE)
            return fault(c->fault, CHRONIK_EINVALIDRECORD, c->index, "A compressed message within another");
        if (m.magic != wrapper->magic) {
            bad_record(c, "The compressed message is of another format");
            continue;
        }
        if (!cnk_message_crc_valid(&m))
            return fault(c->fault, CHRONIK_ECORRUPTMESSAGE, c->index, "The compressed message does not match its CRC");
        if (cnk_message_open(&m))
            return fault(c->fault, CHRONIK_ECORRUPTMESSAGE, c->index, "The compressed message's fields do not fit");
        const int64_t timestamp = append_time ? wrapper->timestamp : m.timestamp;
        judge(c, &m, append_time, timestamp);
        rc = add(c, &m, timestamp);
        if (rc) return rc;
    }
    return verdict(c);
}

static int add_wrapper(conversion *c, cnk_message *wrapper) {
    cnk_writer opened;
    if (cnk_message_open(wrapper))
        return fault(c->fault, CHRONIK_ECORRUPTMESSAGE, -1, "The message's fields do not fit");
    if (cnk_message_codec(wrapper) > CNK_CODEC_LZ4)
        return fault(c->fault, CHRONIK_EINVALIDRECORD, -1, "The compression type is younger than the message's format");
    if (wrapper->value == NULL)
        return fault(c->fault, CHRONIK_EINVALIDRECORD, -1, "The compressed message has no value");
    cnk_writer_growing(&opened, 0);
    int rc = decompress(c, wrapper, &opened);
    if (rc == 0) rc = check_inner(c, wrapper, cnk_reader_of(opened.data, opened.len));
    if (rc == 0) rc = add_inner(c, wrapper, cnk_reader_of(opened.data, opened.len));
    cnk_writer_free(&opened);
    return rc;
}

static int add_all(conversion *c, const void *data, size_t len) {
    cnk_reader set = cnk_reader_of(data, len);
    cnk_message m;
    int rc = 0;
    while (rc == 0 && framed_next(&set, &m) == 1) {
        c->index = 0;
        c->untimely = c->bad = -1;
        rc = cnk_message_codec(&m) == CNK_CODEC_NONE ? add_plain(c, &m) : add_wrapper(c, &m);
    }
    return rc;
}

int cnk_message_set_to_batch(const void *data, size_t len, const cnk_batch_rules *rules, unsigned codec, int level,
                             cnk_writer *out, cnk_batch_fault *ret_fault) {
    conversion c = {.rules = rules, .fault = ret_fault, .oldest = INT64_MIN, .newest = INT64_MAX};
    outer o;
    int rc = check_outer(data, len, rules, &o, ret_fault);
    if (rc) return rc;
    if (o.count == 0) return fault(ret_fault, CHRONIK_EINVALIDRECORD, -1, "There is no whole message");
    if (__builtin_sub_overflow(rules->now_ms, rules->timestamp_before_max_ms, &c.oldest)) c.oldest = INT64_MIN;
    if (__builtin_add_overflow(rules->now_ms, rules->timestamp_after_max_ms, &c.newest)) c.newest = INT64_MAX;
    if (codec == CNK_MESSAGE_SET_KEEP) {
        codec = o.codec;
        level = CNK_CODEC_LEVEL_DEFAULT;
    }
    cnk_batch_builder_init(&c.builder, codec, level, 0);
    rc = add_all(&c, data, len);
    if (rc == 0) rc = cnk_batch_builder_finish(&c.builder, out);
    if (rc == CHRONIK_ETOOLARGE)
        rc = fault(ret_fault, CHRONIK_EMESSAGETOOLARGE, -1, "The messages do not fit into one batch");
    if (rc == CHRONIK_ENOMEM) fault(ret_fault, rc, -1, chronik_strerror(rc));
    cnk_batch_builder_free(&c.builder);
    return rc;
}

/* ---- a batch becomes a set -------------------------------------------------------------------------------------- */

/* A message's head, up to its key; what it covers is not there yet. */
static void write_head(cnk_writer *w, int64_t offset, size_t size, unsigned format, unsigned attributes,
                       int64_t timestamp) {
    cnk_write_be64(w, (uint64_t)offset);
    cnk_write_be32(w, (uint32_t)size);
    cnk_write_be32(w, 0);
    cnk_write_u8(w, (uint8_t)format);
    cnk_write_u8(w, (uint8_t)attributes);
    if (format == 1) cnk_write_be64(w, (uint64_t)timestamp);
}

static void write_field(cnk_writer *w, const uint8_t *data, int32_t len) {
    cnk_write_be32(w, (uint32_t)len);
    if (len > 0) cnk_write_bytes(w, data, (size_t)len);
}

static void seal(cnk_writer *w, size_t start) { /* w->error is 0 */
    uint8_t *message = w->data + start + LOG_OVERHEAD;
    cnk_store_be32(message, crc_of(message + MAGIC_AT, w->len - start - LOG_OVERHEAD - MAGIC_AT));
}

static size_t overhead(unsigned format) { return format == 0 ? OVERHEAD_0 : OVERHEAD_1; }

static int write_record(cnk_writer *w, const cnk_record *r, int64_t offset, unsigned format, unsigned attributes) {
    const size_t start = w->len;
    const uint64_t size =
        overhead(format) + (r->key ? (uint64_t)r->key_len : 0) + (r->value ? (uint64_t)r->value_len : 0);
    if (size > INT32_MAX) return CHRONIK_ETOOLARGE;
    write_head(w, offset, (size_t)size, format, attributes, r->timestamp);
    write_field(w, r->key, r->key_len);
    write_field(w, r->value, r->value_len);
    if (w->error == 0) seal(w, start);
    return w->error;
}

typedef struct wrapping { int64_t first, last, newest; int32_t count; } wrapping;

/* The records of a compressed batch as they lie in the wrapper, not compressed yet. */
static int write_inner(cnk_writer *w, cnk_records *records, unsigned format, unsigned attributes,
                       wrapping *ret_wrapping) {
    wrapping found = {.newest = -1};
    cnk_record r;
    int rc;
    while ((rc = cnk_records_next(records, &r)) == 1) {
        if (found.count++ == 0) found.first = r.offset;
        found.last = r.offset;
        if (r.timestamp > found.newest) found.newest = r.timestamp;
        rc = write_record(w, &r, format == 0 ? r.offset : r.offset - found.first, format, attributes);
        if (rc) return rc;
    }
    *ret_wrapping = found;
    return rc;
}

static int write_wrapper(cnk_writer *w, const cnk_writer *inner, const wrapping *wrapped, unsigned format,
                         unsigned attributes, unsigned codec) {
    const size_t start = w->len;
    write_head(w, wrapped->last, 0, format, attributes | codec, wrapped->newest);
    cnk_write_be32(w, UINT32_MAX); /* no key */
    const size_t length_at = w->len;
    cnk_write_be32(w, 0);
    if (w->error) return w->error;
    const int rc = format == 0 && codec == CNK_CODEC_LZ4
                       ? cnk_codec_lz4_old_compress(inner->data, inner->len, w)
                       : cnk_codec_compress(codec, CNK_CODEC_LEVEL_DEFAULT, inner->data, inner->len, w);
    if (rc) return rc;
    const size_t size = w->len - start - LOG_OVERHEAD;
    if (size > INT32_MAX) return CHRONIK_ETOOLARGE;
    cnk_store_be32(w->data + start + 8, (uint32_t)size);
    cnk_store_be32(w->data + length_at, (uint32_t)(w->len - length_at - 4));
    seal(w, start);
    return 0;
}

static int write_compressed(cnk_writer *out, cnk_records *records, unsigned format, unsigned attributes,
                            uint64_t bytes_max) {
    cnk_writer inner;
    wrapping wrapped = {0};
    cnk_writer_growing(&inner, bytes_max < INT32_MAX ? (size_t)bytes_max : INT32_MAX);
    int rc = write_inner(&inner, records, format, attributes, &wrapped);
    if (rc == CHRONIK_ETOOLARGE) rc = CHRONIK_EBOMB;
    if (rc == 0 && wrapped.count > 0)
        rc = write_wrapper(out, &inner, &wrapped, format, attributes, cnk_batch_codec(records->batch));
    cnk_writer_free(&inner);
    return rc;
}

static int write_plain(cnk_writer *out, cnk_records *records, unsigned format, unsigned attributes,
                       int64_t from_offset) {
    cnk_record r;
    int rc;
    while ((rc = cnk_records_next(records, &r)) == 1) {
        if (r.offset < from_offset) continue;
        rc = write_record(out, &r, r.offset, format, attributes);
        if (rc) return rc;
    }
    return rc;
}

int cnk_message_set_from_batch(const cnk_batch *batch, unsigned format, int64_t from_offset,
                               uint64_t decompressed_bytes_max, cnk_writer *out) {
    const unsigned attributes = format == 1 && cnk_batch_append_time(batch) ? 8 : 0;
    const size_t start = out->len;
    cnk_records records;
    if (out->error) return out->error;
    if (cnk_batch_control(batch)) return 0;
    if (cnk_batch_codec(batch) > CNK_CODEC_LZ4) return CHRONIK_EUNSUPPORTEDCODEC;
    int rc = cnk_records_open(batch, decompressed_bytes_max, &records);
    if (rc) return rc;
    rc = cnk_batch_codec(batch) == CNK_CODEC_NONE ? write_plain(out, &records, format, attributes, from_offset)
                                                  : write_compressed(out, &records, format, attributes,
                                                                     decompressed_bytes_max);
    cnk_records_close(&records);
    if (rc == 0) return 0;
    out->len = start;
    out->error = 0;
    return rc;
}
