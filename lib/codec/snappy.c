/* snappy through libsnappy, raw or in the frames of xerial's snappy-java, which Kafka's Java client uses:
 *
 *   0  82 53 4E 41 50 50 59 00   magic
 *   8  i32 version   12 i32 least version that reads it      (big-endian)
 *   16 (i32 length > 0, length bytes of raw snappy)*         where a length would be, a whole header may come again
 *
 * Raw snappy states its length first. It is believed only where the input could hold as much: no element gives more
 * than 64 bytes for 3. */
#include <snappy-c.h>
#include <string.h>

#include "base/mem.h"
#include "codec/format.h"

#define XERIAL_HEADER_BYTES 16u
#define XERIAL_BLOCK_BYTES 32768u

static const uint8_t xerial_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};

static int raw_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    size_t plain_len;
    if (snappy_uncompressed_length((const char *)src, len, &plain_len) != SNAPPY_OK) return CHRONIK_ECORRUPTMESSAGE;
    if (plain_len / 22 > len) return CHRONIK_ECORRUPTMESSAGE;
    if (plain_len > cnk_codec_sink_left(sink)) return CHRONIK_EBOMB;
    int error = cnk_writer_reserve(sink->out, plain_len);
    if (error) return error;
    size_t room = plain_len;
    char *to = (char *)sink->out->data + sink->out->len;
    if (snappy_uncompress((const char *)src, len, to, &room) != SNAPPY_OK || room != plain_len)
        return CHRONIK_ECORRUPTMESSAGE;
    return cnk_codec_sink_took(sink, plain_len);
}

static bool at_xerial_header(const cnk_reader *r) {
    return cnk_reader_left(r) >= XERIAL_HEADER_BYTES && memcmp(r->p, xerial_magic, sizeof xerial_magic) == 0;
}

static int snappy_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    cnk_reader r = cnk_reader_of(src, len);
    if (!at_xerial_header(&r)) return raw_decompress(src, len, sink);
    while (cnk_reader_left(&r)) {
        if (at_xerial_header(&r)) {
            cnk_read_bytes(&r, XERIAL_HEADER_BYTES);
            continue;
        }
        uint32_t block_len = cnk_read_be32(&r);
        const uint8_t *block = cnk_read_bytes(&r, block_len);
        if (block == NULL || block_len == 0) return CHRONIK_ECORRUPTMESSAGE;
        int error = raw_decompress(block, block_len, sink);
        if (error) return error;
    }
    return 0;
}

static int snappy_compress_block(const uint8_t *src, size_t len, cnk_writer *out) {
    size_t bound = snappy_max_compressed_length(len);
    int error = cnk_writer_reserve(out, 4 + bound);
    if (error) return error;
    uint8_t *at = out->data + out->len;
    if (snappy_compress((const char *)src, len, (char *)at + 4, &bound) != SNAPPY_OK) return CHRONIK_EINTERNAL;
    cnk_store_be32(at, (uint32_t)bound);
    out->len += 4 + bound;
    return 0;
}

static int xerial_compress(int level, const uint8_t *src, size_t len, cnk_writer *out) {
    (void)level;
    cnk_write_bytes(out, xerial_magic, sizeof xerial_magic);
    cnk_write_be32(out, 1);
    cnk_write_be32(out, 1);
    int error = out->error;
    for (size_t n; len && error == 0; src += n, len -= n) {
        n = len < XERIAL_BLOCK_BYTES ? len : XERIAL_BLOCK_BYTES;
        error = snappy_compress_block(src, n, out);
    }
    return error;
}

const cnk_codec_format cnk_codec_snappy = {"snappy", 1, 0, 0, snappy_decompress, xerial_compress};
