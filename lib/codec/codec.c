/* The front of all codecs: levels, limits, and what is left of `out` after a failure. No state; any thread. */
#include "codec/codec.h"

#include "codec/format.h"

#define ROOM_MIN 1024u

static int none_decompress(const uint8_t *src, size_t len, cnk_codec_sink *sink) {
    if (len > cnk_codec_sink_left(sink)) return CHRONIK_EBOMB;
    cnk_write_bytes(sink->out, src, len);
    return sink->out->error;
}

static int none_compress(int level, const uint8_t *src, size_t len, cnk_writer *out) {
    (void)level;
    cnk_write_bytes(out, src, len);
    return out->error;
}

static const cnk_codec_format none = {"none", 1, 0, 0, none_decompress, none_compress};

static const cnk_codec_format *format_of(unsigned codec) {
    static const cnk_codec_format *const formats[CNK_CODEC_COUNT] = {
        [CNK_CODEC_NONE] = &none,         [CNK_CODEC_GZIP] = &cnk_codec_gzip, [CNK_CODEC_SNAPPY] = &cnk_codec_snappy,
        [CNK_CODEC_LZ4] = &cnk_codec_lz4, [CNK_CODEC_ZSTD] = &cnk_codec_zstd,
    };
    return codec < CNK_CODEC_COUNT ? formats[codec] : NULL;
}

const char *cnk_codec_name(unsigned codec) {
    const cnk_codec_format *format = format_of(codec);
    return format ? format->name : NULL;
}

bool cnk_codec_level_valid(unsigned codec, int level) {
    const cnk_codec_format *format = format_of(codec);
    if (format == NULL) return false;
    if (level == CNK_CODEC_LEVEL_DEFAULT) return true;
    if (codec == CNK_CODEC_GZIP && level == -1) return true; /* zlib's own word for its default */
    return level >= format->level_min && level <= format->level_max;
}

/* A writer's error is sticky; a failed call must leave the writer usable and as it was. */
static int undo(cnk_writer *out, size_t start, int error) {
    out->len = start;
    out->error = 0;
    return error;
}

int cnk_codec_decompress(unsigned codec, const void *src, size_t len, uint64_t bytes_max, cnk_writer *out) {
    if (out->error) return out->error;
    const cnk_codec_format *format = format_of(codec);
    if (format == NULL) return CHRONIK_EUNSUPPORTEDCODEC;
    cnk_codec_sink sink = {out, out->len, bytes_max < SIZE_MAX / 4 ? bytes_max : SIZE_MAX / 4};
    int error = format->decompress(src ? src : "", len, &sink);
    return error ? undo(out, sink.start, error) : 0;
}

int cnk_codec_compress(unsigned codec, int level, const void *src, size_t len, cnk_writer *out) {
    if (out->error) return out->error;
    const cnk_codec_format *format = format_of(codec);
    if (format == NULL) return CHRONIK_EUNSUPPORTEDCODEC;
    if (!cnk_codec_level_valid(codec, level)) return CHRONIK_EINVAL;
    size_t start = out->len;
    if (level == CNK_CODEC_LEVEL_DEFAULT) level = format->level_default;
    int error = format->compress(level, src ? src : "", len, out);
    return error ? undo(out, start, error) : 0;
}

int cnk_codec_lz4_old_decompress(const void *src, size_t len, uint64_t bytes_max, cnk_writer *out) {
    if (out->error) return out->error;
    cnk_codec_sink sink = {out, out->len, bytes_max < SIZE_MAX / 4 ? bytes_max : SIZE_MAX / 4};
    int error = cnk_codec_lz4_decompress_unchecked(src ? src : "", len, &sink);
    return error ? undo(out, sink.start, error) : 0;
}

int cnk_codec_lz4_old_compress(const void *src, size_t len, cnk_writer *out) {
    size_t start = out->len;
    int error = cnk_codec_compress(CNK_CODEC_LZ4, CNK_CODEC_LEVEL_DEFAULT, src, len, out);
    if (error == 0) cnk_codec_lz4_mistake(out->data + start);
    return error;
}

uint64_t cnk_codec_sink_left(const cnk_codec_sink *sink) {
    uint64_t taken = sink->out->len - sink->start;
    return taken < sink->max ? sink->max - taken : 0;
}

int cnk_codec_sink_room(cnk_codec_sink *sink, size_t hint, uint8_t **ret_to, size_t *ret_room) {
    cnk_writer *out = sink->out;
    uint64_t most = cnk_codec_sink_left(sink) + 1;
    size_t want = hint > ROOM_MIN ? hint : ROOM_MIN;
    if (want > most) want = (size_t)most;
    if (out->capacity - out->len < want || out->data == NULL) {
        int error = cnk_writer_reserve(out, want);
        if (error == CHRONIK_ETOOLARGE && out->len < out->limit) {
            /* The writer ends before the limit does: what room there is may be enough. */
            out->error = 0;
            error = cnk_writer_reserve(out, out->limit - out->len);
        }
        if (error) return error;
    }
    size_t room = out->capacity - out->len;
    *ret_to = out->data + out->len;
    *ret_room = room < most ? room : (size_t)most;
    return 0;
}

int cnk_codec_sink_took(cnk_codec_sink *sink, size_t len) {
    sink->out->len += len;
    return sink->out->len - sink->start > sink->max ? CHRONIK_EBOMB : 0;
}
