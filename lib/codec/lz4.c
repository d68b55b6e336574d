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

/* The head, which is a frame's header, or empty; then the rest of the frame. */
static int lz4_decompress_after(const uint8_t *head, size_t head_len, const uint8_t *src, size_t len,
                                cnk_codec_sink *sink) {
    LZ4F_dctx *ctx;
    if (len == 0) return CHRONIK_ECORRUPTMESSAGE;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION))) return CHRONIK_ENOMEM;
    size_t took = head_len, gave = 0;
    uint8_t nothing[1];
    size_t hint = head_len ? LZ4F_decompress(ctx, nothing, &gave, head, &took, NULL) : 0;
    int error = 0;
    if (LZ4F_isError(hint))
        error = failure(hint, CHRONIK_ECORRUPTMESSAGE);
    else if (took != head_len)
        error = CHRONIK_ECORRUPTMESSAGE;
    if (error == 0) error = lz4_decompress_frame(ctx, src, len, sink);
    LZ4F_freeDecompressionContext(ctx);
    return error;
}

static int lz4_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    return lz4_decompress_after(NULL, 0, src, len, sink);
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

/* ---- the mistake of message format 0 ----------------------------------------------------------------------------
 *
 * A frame's header: 4 magic, 1 FLG, 1 BD, [8 content size], [4 dictionary], 1 checksum: the second byte of the XXH32 of
 * all between the magic and itself; with the mistake, of the magic, too. liblz4 keeps its XXH32 to itself. */

#define MAGIC_BYTES 4u
#define DESCRIPTOR_MAX 14u /* FLG to dictionary */
#define HAS_SIZE 0x08u
#define HAS_DICTIONARY 0x01u

static uint32_t rotated(uint32_t v, unsigned by) { return v << by | v >> (32 - by); }

static uint8_t header_checksum(const uint8_t *p, size_t len) { /* of less than 16 bytes */
    uint32_t h = 374761393u + (uint32_t)len;
    for (; len >= 4; p += 4, len -= 4) h = rotated(h + cnk_load_le32(p) * 3266489917u, 17) * 668265263u;
    for (; len > 0; p++, len--) h = rotated(h + *p * 374761393u, 11) * 2654435761u;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    return (uint8_t)((h ^ h >> 16) >> 8);
}

int cnk_codec_lz4_decompress_unchecked(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    uint8_t head[MAGIC_BYTES + DESCRIPTOR_MAX + 1];
    if (len <= MAGIC_BYTES) return CHRONIK_ECORRUPTMESSAGE;
    size_t descriptor = 2 + (src[MAGIC_BYTES] & HAS_SIZE ? 8u : 0) + (src[MAGIC_BYTES] & HAS_DICTIONARY ? 4u : 0);
    size_t head_len = MAGIC_BYTES + descriptor + 1;
    if (len <= head_len) return CHRONIK_ECORRUPTMESSAGE;
    memcpy(head, src, head_len);
    head[head_len - 1] = header_checksum(head + MAGIC_BYTES, descriptor);
    return lz4_decompress_after(head, head_len, src + head_len, len - head_len, sink);
}

void cnk_codec_lz4_mistake(uint8_t *frame) { frame[MAGIC_BYTES + 2] = header_checksum(frame, MAGIC_BYTES + 2); }

const cnk_codec_format cnk_codec_lz4 = {"lz4", 1, 17, LEVEL_FAST, lz4_decompress, lz4_compress};
