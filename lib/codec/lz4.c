/* lz4's frame format through liblz4. Written as Kafka's Java client demands it: independent blocks of 64 KiB, no
 * checksums but the header's. Read as liblz4 reads it: dependent blocks, checksums, content size, larger blocks.
 *
 * liblz4's contexts come from its own allocator; they are bounded by the frame's block size, at most 4 MiB and twice
 * that for dependent blocks. */
#include <lz4frame.h>
#include <string.h>

#include "codec/format.h"

#define LEVEL_FAST 0 /* Kafka's default level means the fast compressor */

/* Want of memory must not pass for damage: the one goes away, the other is told to the producer as final. liblz4 gives
 * its error codes a stable name only. */
static int failure(size_t code, int otherwise) {
    return strcmp(LZ4F_getErrorName(code), "ERROR_allocation_failed") == 0 ? CHRONIK_ENOMEM : otherwise;
}

static int lz4_decompress_frame(LZ4F_dctx *ctx, const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    for (;;) {
        uint8_t *to;
        size_t room;
        int error = cnk_codec_sink_room(sink, len * 3, &to, &room);
        if (error) return error;
        size_t took = len, gave = room;
        size_t hint = LZ4F_decompress(ctx, to, &gave, src, &took, NULL);
        if (LZ4F_isError(hint)) return failure(hint, CHRONIK_ECORRUPTMESSAGE);
        src += took;
        len -= took;
        error = cnk_codec_sink_took(sink, gave);
        if (error) return error;
        if (hint == 0) return len == 0 ? 0 : CHRONIK_ECORRUPTMESSAGE;
        if (took == 0 && gave == 0) return CHRONIK_ECORRUPTMESSAGE; /* there was room, so the frame is cut short */
    }
}

static int lz4_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    LZ4F_dctx *ctx;
    if (len == 0) return CHRONIK_ECORRUPTMESSAGE;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION))) return CHRONIK_ENOMEM;
    int error = lz4_decompress_frame(ctx, src, len, sink);
    LZ4F_freeDecompressionContext(ctx);
    return error;
}

static int lz4_compress(int level, const uint8_t *src, size_t len, cnk_writer *out) {
    LZ4F_preferences_t prefs = {.frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent},
                                .compressionLevel = level};
    size_t bound = LZ4F_compressFrameBound(len, &prefs);
    int error = cnk_writer_reserve(out, bound);
    if (error) return error;
    size_t n = LZ4F_compressFrame(out->data + out->len, bound, src, len, &prefs);
    if (LZ4F_isError(n)) return failure(n, CHRONIK_EINTERNAL);
    out->len += n;
    return 0;
}

const cnk_codec_format cnk_codec_lz4 = {"lz4", 1, 17, LEVEL_FAST, lz4_decompress, lz4_compress};
