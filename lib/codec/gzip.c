/* gzip through zlib: one member written, any number read. zlib's memory comes from base/mem. */
#include <zlib.h>

#include "base/mem.h"
#include "codec/format.h"

#define WINDOW_GZIP (15 + 16)       /* the largest window, gzip's header and trailer */
#define INPUT_MAX ((size_t)1 << 30) /* zlib counts in unsigned int */

static void *z_alloc(void *opaque, unsigned count, unsigned size) {
    (void)opaque;
    return cnk_calloc(count, size);
}

static void z_release(void *opaque, void *p) {
    (void)opaque;
    cnk_free(p);
}

static unsigned at_most(size_t len) { return (unsigned)(len < INPUT_MAX ? len : INPUT_MAX); }

/* One call of inflate: 1 at a member's end, 0 to go on, or an error. */
static int inflate_some(z_stream *z, const uint8_t *end, cnk_codec_sink *sink) {
    uint8_t *to;
    size_t room, left = (size_t)(end - z->next_in);
    int error = cnk_codec_sink_room(sink, left * 4, &to, &room);
    if (error) return error;
    z->avail_in = at_most(left);
    z->next_out = to;
    z->avail_out = at_most(room);
    int rc = inflate(z, Z_NO_FLUSH);
    error = cnk_codec_sink_took(sink, (size_t)(z->next_out - to));
    if (error) return error;
    if (rc == Z_STREAM_END) return 1;
    if (rc == Z_MEM_ERROR) return CHRONIK_ENOMEM;
    /* Z_BUF_ERROR: there was room, so what is missing is input. */
    return rc == Z_OK ? 0 : CHRONIK_ECORRUPTMESSAGE;
}

static int gzip_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    z_stream z = {.zalloc = z_alloc, .zfree = z_release, .next_in = (Bytef *)(uintptr_t)src};
    const uint8_t *end = src + len;
    if (len == 0) return CHRONIK_ECORRUPTMESSAGE;
    if (inflateInit2(&z, WINDOW_GZIP) != Z_OK) return CHRONIK_ENOMEM;
    int error;
    do {
        error = inflate_some(&z, end, sink);
        if (error == 1 && z.next_in < end) error = inflateReset(&z) == Z_OK ? 0 : CHRONIK_EINTERNAL;
    } while (error == 0);
    inflateEnd(&z);
    return error == 1 ? 0 : error;
}

static int gzip_compress(int level, const uint8_t *src, size_t len, cnk_writer *out) {
    z_stream z = {.zalloc = z_alloc, .zfree = z_release, .next_in = (Bytef *)(uintptr_t)src};
    const uint8_t *end = src + len;
    if (deflateInit2(&z, level, Z_DEFLATED, WINDOW_GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK) return CHRONIK_ENOMEM;
    int error = 0, rc = Z_OK;
    size_t hint = deflateBound(&z, len);
    while (error == 0 && rc != Z_STREAM_END) {
        z.avail_in = at_most((size_t)(end - z.next_in));
        error = cnk_writer_reserve(out, hint);
        if (error) break;
        z.next_out = out->data + out->len;
        z.avail_out = at_most(out->capacity - out->len);
        rc = deflate(&z, z.next_in + z.avail_in == end ? Z_FINISH : Z_NO_FLUSH);
        out->len = (size_t)(z.next_out - out->data);
        if (rc == Z_STREAM_ERROR) error = CHRONIK_EINTERNAL;
        hint = 4096;
    }
    deflateEnd(&z);
    return error;
}

const cnk_codec_format cnk_codec_gzip = {"gzip", 1, 9, Z_DEFAULT_COMPRESSION, gzip_decompress, gzip_compress};
