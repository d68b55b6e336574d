/* Message sets: Kafka's message formats 0 and 1, before record batches (format 2). What producers of those days send
 * becomes a batch here, and a batch what their consumers read.
 *
 * A set is messages, one behind the other, the last of which may be cut off. Byte table, big-endian:
 *   0  i64 offset                8  i32 size (bytes after this field, ≥ 14)    12 u32 CRC-32 (from 16 to the end)
 *   16 i8  magic: 0 or 1         17 i8  attributes                             18 i64 timestamp (format 1 only)
 *   then: i32 key length (< 0: null), key, i32 value length (< 0: null), value
 * attributes: bits 0-2 codec (0 none, 1 gzip, 2 snappy, 3 lz4), 3 timestamp type (format 1: 0 create, 1 append).
 *
 * A message with a codec is a wrapper: its value is a set of the same format, compressed, of messages without a codec.
 * Its offset is the last one's. In format 1 the offsets inside are relative to the first one's, and a wrapper whose type
 * is append time overrules the timestamps inside. In format 0 lz4 frames have a wrong checksum (codec.h).
 *
 * Nothing here keeps state; any thread. */
#ifndef CNK_RECORD_MESSAGE_SET_H
#define CNK_RECORD_MESSAGE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#include "base/bytes.h"
#include "record/batch.h"

#define CNK_MESSAGE_SIZE_MIN 14u /* that of format 0 without its value's length, which is found missing later */

/* One message; borrowed from the set. */
typedef struct cnk_message {
    const uint8_t *data; /* from the CRC on */
    uint32_t size;
    int64_t offset;
    uint8_t magic, attributes;
    /* after cnk_message_open */
    int64_t timestamp; /* -1: none */
    const uint8_t *key, *value; /* NULL: null */
    uint32_t key_len, value_len;
} cnk_message;

static inline unsigned cnk_message_codec(const cnk_message *m) { return m->attributes & 7u; }
static inline bool cnk_message_append_time(const cnk_message *m) { return m->magic == 1 && (m->attributes & 8u); }

/* The next message of the set, which is moved past it: 1; 0: the end, or one that is cut off; ECORRUPTMESSAGE: a size
 * that no message has. A message's magic may be any, its fields are not looked at. */
int cnk_message_next(cnk_reader *set, cnk_message *ret_message);
bool cnk_message_crc_valid(const cnk_message *m);
/* Finds the fields of a message of format 0 or 1; bytes behind the value are ignored, as Kafka does. 0 or
 * ECORRUPTMESSAGE. */
int cnk_message_open(cnk_message *m);

/* What a produce request below version 3 carries: 0 to 2, the format of its first message; ENOTFOUND: there is no whole
 * one, which is no error; ECORRUPTMESSAGE. */
int cnk_message_set_format(const void *data, size_t len);

#define CNK_MESSAGE_SET_KEEP UINT8_MAX

/* All that produce demands of a set (formats 0 and 1), and the batch that is stored of it, appended to `out`: in that
 * codec at that level, or, with KEEP, in the set's own. Of the rules decompressed_bytes_max bounds what is opened;
 * the batch's own size is not judged. Errors, and the order in which faults are found, are Kafka 3.9's, but for what it
 * fails over inside: 0, ECORRUPTMESSAGE, EINVALIDRECORD, EINVALIDTIMESTAMP, EMESSAGETOOLARGE, EUNSUPPORTEDCODEC, ENOMEM.
 * On failure `out` is as it was, and `ret_fault` is filled. */
int cnk_message_set_to_batch(const void *data, size_t len, const cnk_batch_rules *rules, unsigned codec, int level,
                             cnk_writer *out, cnk_batch_fault *ret_fault);

/* The other way: appends the batch as a set of the format (0 or 1), in the batch's own codec; of a batch that is not
 * compressed only what is at or after an offset. Headers are lost. Control batches become nothing. `decompressed_bytes_max`
 * bounds both what a batch is opened to and what goes into the wrapper. 0; EUNSUPPORTEDCODEC (zstd), ECORRUPTMESSAGE,
 * EBOMB, ENOMEM, ETOOLARGE (`out` has a limit), with `out` as it was. */
int cnk_message_set_from_batch(const cnk_batch *batch, unsigned format, int64_t from_offset,
                               uint64_t decompressed_bytes_max, cnk_writer *out);

#endif
