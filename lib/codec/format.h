/* The codecs' own table: one row for each compression. */
#ifndef CNK_CODEC_FORMAT_H
#define CNK_CODEC_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"

/* What a decompression may still give. Room is asked for one byte beyond the limit, so that reaching the limit and
 * passing it can be told apart without knowing how a library behaves with no room at all. */
typedef struct cnk_codec_sink {
    cnk_writer *out;
    size_t start; /* out->len at the beginning */
    uint64_t max;
} cnk_codec_sink;

/* Room for at least one byte, for `hint` bytes where the limit allows: 0 and its place and size, or EBOMB, ENOMEM,
 * ETOOLARGE. */
int cnk_codec_sink_room(cnk_codec_sink *sink, size_t hint, uint8_t **ret_to, size_t *ret_room);
int cnk_codec_sink_took(cnk_codec_sink *sink, size_t len); /* counts len bytes; EBOMB when they pass the limit */
uint64_t cnk_codec_sink_left(const cnk_codec_sink *sink);  /* up to the limit */

typedef struct cnk_codec_format {
    const char *name;
    int level_min, level_max, level_default; /* default: as the library takes it; min > max: no levels */
    int (*decompress)(const uint8_t *src, size_t len, cnk_codec_sink *sink);
    int (*compress)(int level, const uint8_t *src, size_t len, cnk_writer *out); /* level: in range, or the default */
} cnk_codec_format;

/* The same with lz4's mistake of old. */
int cnk_codec_lz4_decompress_unchecked(const uint8_t *src, size_t len, cnk_codec_sink *sink);
void cnk_codec_lz4_mistake(uint8_t *frame); /* of a frame that cnk_codec_lz4 has written */

extern const cnk_codec_format cnk_codec_gzip, cnk_codec_snappy, cnk_codec_lz4, cnk_codec_zstd;

#endif
