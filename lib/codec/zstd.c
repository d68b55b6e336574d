/* zstd through libzstd. A frame that states its size is decompressed straight into the output; others, Kafka's Java
 * client's among them, are streamed through a window of at most 2^27 bytes (what zstd's own tools accept). libzstd's
 * contexts come from its own allocator. */
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/format.h"

#define WINDOW_LOG_MAX 27

/* Want of memory must not pass for damage: the one goes away, the other is told to the producer as final. */
static int failure(size_t code, int otherwise) {
    return ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation ? CHRONIK_ENOMEM : otherwise;
}

/* The whole input is one frame that states a size within the limit. */
static int single_frame(const uint8_t *src, size_t len, size_t plain_len, cnk_codec_sink *sink) {
    int error = cnk_writer_reserve(sink->out, plain_len ? plain_len : 1);
    if (error) return error;
    size_t n = ZSTD_decompress(sink->out->data + sink->out->len, plain_len, src, len);
    if (ZSTD_isError(n)) return failure(n, CHRONIK_ECORRUPTMESSAGE);
    return cnk_codec_sink_took(sink, n);
}

static int stream_frames(ZSTD_DCtx *ctx, const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    ZSTD_inBuffer in = {src, len, 0};
    size_t hint;
    do {
        uint8_t *to;
        size_t room, before = in.pos;
        int error = cnk_codec_sink_room(sink, (len - in.pos) * 4, &to, &room);
        if (error) return error;
        ZSTD_outBuffer out = {to, room, 0};
        hint = ZSTD_decompressStream(ctx, &out, &in);
        if (ZSTD_isError(hint)) return failure(hint, CHRONIK_ECORRUPTMESSAGE);
        error = cnk_codec_sink_took(sink, out.pos);
        if (error) return error;
        if (out.pos == 0 && in.pos == before) return CHRONIK_ECORRUPTMESSAGE; /* cut short */
    } while (hint != 0 || in.pos < in.size);
    return 0;
}

static int zstd_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    if (len == 0) return CHRONIK_ECORRUPTMESSAGE;
    unsigned long long stated = ZSTD_getFrameContentSize(src, len);
    if (stated == ZSTD_CONTENTSIZE_ERROR) return CHRONIK_ECORRUPTMESSAGE;
    if (stated != ZSTD_CONTENTSIZE_UNKNOWN) {
        if (stated > cnk_codec_sink_left(sink)) return CHRONIK_EBOMB;
        if (ZSTD_findFrameCompressedSize(src, len) == len) return single_frame(src, len, (size_t)stated, sink);
    }
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (ctx == NULL) return CHRONIK_ENOMEM;
    ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    int error = stream_frames(ctx, src, len, sink);
    ZSTD_freeDCtx(ctx);
    return error;
}

static int zstd_compress(int level, const uint8_t *src, size_t len, cnk_writer *out) {
    size_t bound = ZSTD_compressBound(len);
    int error = cnk_writer_reserve(out, bound);
    if (error) return error;
    size_t n = ZSTD_compress(out->data + out->len, bound, src, len, level);
    if (ZSTD_isError(n)) return failure(n, CHRONIK_EINTERNAL);
    out->len += n;
    return 0;
}

const cnk_codec_format cnk_codec_zstd = {"zstd", -131072, 22, 3, zstd_decompress, zstd_compress};
