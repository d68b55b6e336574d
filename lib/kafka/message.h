/* Messages: what the generated tables say of them, and the interpreter that decodes and encodes them all.
 *
 * A message is a C struct (messages.h, generated) and a descriptor. Decoding fills the struct: strings, bytes and
 * records are slices of the input, arrays come from the arena. Encoding appends to a writer. Nothing here keeps state:
 * any thread.
 *
 * Encodings (KIP-482): in a flexible version lengths and counts are unsigned varints of n + 1 (0: null), and every
 * structure ends with tagged fields; otherwise a string's length is an int16, all others int32, −1 for null. */
#ifndef CNK_KAFKA_MESSAGE_H
#define CNK_KAFKA_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "base/uuid.h"

typedef struct cnk_kafka_string { const char *data; int32_t len; } cnk_kafka_string; /* len −1: null; no NUL */
typedef struct cnk_kafka_bytes { const uint8_t *data; int32_t len; } cnk_kafka_bytes; /* len −1: null */

#define CNK_KAFKA_STRING_NULL ((cnk_kafka_string){NULL, -1})
#define CNK_KAFKA_STRING(literal) ((cnk_kafka_string){literal, (int32_t)sizeof(literal) - 1})

typedef enum cnk_kafka_type {
    CNK_KAFKA_BOOL,
    CNK_KAFKA_INT8,
    CNK_KAFKA_INT16,
    CNK_KAFKA_UINT16,
    CNK_KAFKA_INT32,
    CNK_KAFKA_UINT32,
    CNK_KAFKA_INT64,
    CNK_KAFKA_FLOAT64,
    CNK_KAFKA_STRING,
    CNK_KAFKA_UUID,
    CNK_KAFKA_BYTES,
    CNK_KAFKA_RECORDS,
    CNK_KAFKA_STRUCT
} cnk_kafka_type;

typedef struct cnk_kafka_struct cnk_kafka_struct;

typedef struct cnk_kafka_field {
    const char *name; /* as published */
    cnk_kafka_type type;
    bool array;    /* also a structure that may be null: one item, or count −1 */
    bool optional; /* that */
    bool ignorable, inflexible, default_null;
    int tag; /* −1: none */
    int version_min, version_max, null_min, null_max;
    size_t offset; /* in the owner's C struct; arrays are struct { T *items; int32_t count; }, count −1: null */
    int64_t default_value;
    const cnk_kafka_struct *sub;
} cnk_kafka_field;

struct cnk_kafka_struct {
    const char *name;
    size_t size;
    int field_count;
    const cnk_kafka_field *fields;
};

typedef struct cnk_kafka_message {
    const cnk_kafka_struct *root;
    int api_key; /* −1: none */
    int version_min, version_max, flexible_min;
} cnk_kafka_message;

/* Sets every field to its default. */
void cnk_kafka_defaults(const cnk_kafka_struct *s, void *ret_value);

/* Decodes one message from the reader, which is left after its last byte. 0, EPROTO (malformed; or a version outside
 * the message's: EUNSUPPORTEDVERSION), ENOMEM (the arena's limit, too). ret_value is undefined after a failure. */
int cnk_kafka_decode(const cnk_kafka_message *m, int version, cnk_reader *r, cnk_arena *arena, void *ret_value);

/* Appends the message. 0, EUNSUPPORTEDVERSION (a field that is not ignorable and not at its default is missing in this
 * version), EINVAL (null where it must not be; a string over 32767 bytes), ENOMEM or ETOOLARGE from the writer. */
int cnk_kafka_encode(const cnk_kafka_message *m, int version, const void *value, cnk_writer *w);

/* Bytes that one value of the field, or one element of its array, takes in the C struct. */
size_t cnk_kafka_element_size(const cnk_kafka_field *f);

/* The primitives, for the encoders and decoders written by hand. */
static inline void cnk_kafka_write_length(cnk_writer *w, int32_t len, bool flexible, bool is_short) {
    if (flexible) cnk_write_uvarint(w, (uint64_t)((int64_t)len + 1));
    else if (is_short) cnk_write_be16(w, (uint16_t)len);
    else cnk_write_be32(w, (uint32_t)len);
}
void cnk_kafka_write_string(cnk_writer *w, cnk_kafka_string s, bool flexible); /* null is allowed */
/* Reads a length or count (−1: null) and checks it against the bytes that remain, each element taking at least
 * `element_bytes`. Fails the reader where it does not fit, or is below −1. */
int32_t cnk_kafka_read_length(cnk_reader *r, bool flexible, bool is_short, size_t element_bytes);
void cnk_kafka_skip_tags(cnk_reader *r); /* all tagged fields of a structure, unknown to us */

#endif
