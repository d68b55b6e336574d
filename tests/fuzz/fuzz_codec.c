/* Codecs: byte 0 chooses the codec, bytes 1 and 2 the limit. The rest is decompressed as it is: no more than the limit
 * comes out, and a failure leaves nothing behind. Then it is compressed and must come back the same. */
#include <string.h>

#include "base/assert.h"
#include "codec/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    unsigned codec = data[0] % 6;
    uint64_t limit = (uint64_t)cnk_load_be16(data + 1) * 8;
    cnk_writer out, packed;
    data += 3, size -= 3;

    cnk_writer_growing(&out, 0);
    int rc = cnk_codec_decompress(codec, data, size, limit, &out);
    CNK_ASSERT(out.len <= limit && out.error == 0);
    if (rc) CNK_ASSERT(out.len == 0);
    CNK_ASSERT(rc == 0 || rc == CHRONIK_EBOMB || rc == CHRONIK_ECORRUPTMESSAGE || rc == CHRONIK_EUNSUPPORTEDCODEC);
    CNK_ASSERT((rc == CHRONIK_EUNSUPPORTEDCODEC) == (codec >= CNK_CODEC_COUNT));
    cnk_writer_free(&out);
    if (codec >= CNK_CODEC_COUNT) return 0;

    cnk_writer_growing(&out, 0), cnk_writer_growing(&packed, 0);
    CNK_ASSERT(cnk_codec_compress(codec, CNK_CODEC_LEVEL_DEFAULT, data, size, &packed) == 0);
    CNK_ASSERT(cnk_codec_decompress(codec, packed.data, packed.len, size, &out) == 0);
    CNK_ASSERT(out.len == size && (size == 0 || memcmp(out.data, data, size) == 0));
    cnk_writer_free(&out), cnk_writer_free(&packed);
    return 0;
}
