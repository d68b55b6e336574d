/* codec: Kafka's compressions, each through its own library, bounded.
 *
 * The numbers are those of a batch's attributes. Whole buffers in, appended to a writer out; nothing is kept between
 * calls, so everything here may be called from any thread.
 *
 * What is read: gzip members (RFC 1952), one or more; snappy raw or in xerial's frames, as Kafka's Java client
 * sends it; one lz4 frame; zstd frames, one or more. Bytes behind the end are an error. What is written:
 * one gzip member; xerial frames with blocks of 32 KiB; an lz4 frame with independent blocks of 64 KiB; one
 * zstd frame. All of it is what Kafka's Java client reads. */
#ifndef CNK_CODEC_CODEC_H
#define CNK_CODEC_CODEC_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#include "base/bytes.h"

enum {
    CNK_CODEC_NONE = 0,
    CNK_CODEC_GZIP = 1,
    CNK_CODEC_SNAPPY = 2,
    CNK_CODEC_LZ4 = 3,
    CNK_CODEC_ZSTD = 4,
    CNK_CODEC_COUNT = 5
};

#define CNK_CODEC_LEVEL_DEFAULT INT_MIN

/* "none", "gzip", "snappy", "lz4", "zstd"; NULL for other numbers. */
const char *cnk_codec_name(unsigned codec);

/* The level lies in Kafka's range: gzip -1 and 1 to 9, lz4 1 to 17, zstd -131072 to 22. The default always does; for
 * none and snappy it is the only one. */
bool cnk_codec_level_valid(unsigned codec, int level);

/* Appends what src[0..len) decompresses to, at most `bytes_max` bytes, to `out` (which may have a limit of its own).
 * Memory: what is appended, and the library's window (at most 128 MiB of address space for zstd, touched only as far
 * as there is output). 0, or with `out` as it was: EBOMB (more than bytes_max), ECORRUPTMESSAGE, EUNSUPPORTEDCODEC,
 * ENOMEM, ETOOLARGE (the writer's own limit). NONE copies. */
int cnk_codec_decompress(unsigned codec, const void *src, size_t len, uint64_t bytes_max, cnk_writer *out);

/* Appends the compressed form of src[0..len) to `out`. 0, or with `out` as it was: EUNSUPPORTEDCODEC, EINVAL (level),
 * ENOMEM, ETOOLARGE. NONE copies. */
int cnk_codec_compress(unsigned codec, int level, const void *src, size_t len, cnk_writer *out);

/* lz4 in Kafka's message format 0, whose producers computed the frame header's checksum over the magic, too. Readers of
 * that format look away: as cnk_codec_decompress, whatever the checksum. Its writers keep the mistake, for consumers of
 * that format demand it: as cnk_codec_compress, at the default level. */
int cnk_codec_lz4_old_decompress(const void *src, size_t len, uint64_t bytes_max, cnk_writer *out);
int cnk_codec_lz4_old_compress(const void *src, size_t len, cnk_writer *out);

#endif
