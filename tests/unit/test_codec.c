/* codec: every codec there and back, at every level; what other writers send; bombs, cuts, garbage and lies about
 * sizes; writers' limits; each allocation failing. What Kafka's Java client compresses is read in test_record.c. */
#include <check.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "codec/codec.h"

enum { PLAIN_MAX = 300000 };
static uint8_t plain[PLAIN_MAX];

static void setup(void) {
    cnk_rng rng;
    cnk_rng_seed(&rng, 31);
    for (size_t i = 0; i < PLAIN_MAX;) { /* random stretches and repeated ones, of all lengths */
        size_t n = 1 + cnk_rng_below(&rng, 400);
        if (n > PLAIN_MAX - i) n = PLAIN_MAX - i;
        if (i > 800 && cnk_rng_chance(&rng, 3, 4))
            memcpy(plain + i, plain + i - n - cnk_rng_below(&rng, 400), n);
        else
            cnk_rng_fill(&rng, plain + i, n);
        i += n;
    }
}

/* From an exact-size copy, so that the address sanitizer sees a read past the end. */
static int open_up(unsigned codec, const void *src, size_t len, uint64_t max, cnk_writer *out) {
    uint8_t *copy = malloc(len ? len : 1);
    if (len) memcpy(copy, src, len);
    size_t before = out->len;
    int rc = cnk_codec_decompress(codec, copy, len, max, out);
    free(copy);
    if (rc) ck_assert_uint_eq(out->len, before);
    ck_assert_int_eq(out->error, 0);
    return rc;
}

static void expect(unsigned codec, const void *src, size_t len, const void *expected, size_t expected_len) {
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    ck_assert_int_eq(open_up(codec, src, len, expected_len, &out), 0);
    ck_assert_uint_eq(out.len, expected_len);
    ck_assert(expected_len == 0 || memcmp(out.data, expected, expected_len) == 0);
    cnk_writer_free(&out);
}

static void expect_error(unsigned codec, const void *src, size_t len, int error) {
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    cnk_write_u8(&out, 'x');
    int rc = open_up(codec, src, len, PLAIN_MAX, &out);
    ck_assert_msg(rc == error, "%s: %d, not %d", cnk_codec_name(codec), rc, error);
    ck_assert_uint_eq(out.data[0], 'x');
    cnk_writer_free(&out);
}

static cnk_writer pack(unsigned codec, int level, const void *src, size_t len) {
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_codec_compress(codec, level, src, len, &w), 0);
    return w;
}

START_TEST(there_and_back) {
    static const size_t sizes[] = {0, 1, 2, 15, 64, 1000, 32767, 32768, 32769, 65536, 65537, 131073, PLAIN_MAX};
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, plain, sizes[i]);
            expect(codec, w.data, w.len, plain, sizes[i]);
            if (codec && sizes[i] > 1000) ck_assert_uint_lt(w.len, sizes[i]);
            cnk_writer_free(&w);
        }
}
END_TEST

START_TEST(output_is_appended) {
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w, out;
        cnk_writer_growing(&w, 0), cnk_writer_growing(&out, 0);
        cnk_write_bytes(&w, "abc", 3), cnk_write_bytes(&out, "def", 3);
        ck_assert_int_eq(cnk_codec_compress(codec, CNK_CODEC_LEVEL_DEFAULT, plain, 5000, &w), 0);
        ck_assert_mem_eq(w.data, "abc", 3);
        ck_assert_int_eq(open_up(codec, w.data + 3, w.len - 3, 5000, &out), 0);
        ck_assert_mem_eq(out.data, "def", 3);
        ck_assert_uint_eq(out.len, 5003);
        ck_assert_int_eq(memcmp(out.data + 3, plain, 5000), 0);
        cnk_writer_free(&w), cnk_writer_free(&out);
    }
}
END_TEST

START_TEST(levels_are_kafkas) {
    static const struct {
        unsigned codec;
        int low, high;
    } ranges[] = {{CNK_CODEC_GZIP, 1, 9}, {CNK_CODEC_LZ4, 1, 17}, {CNK_CODEC_ZSTD, -131072, 22}};
    for (size_t i = 0; i < 3; i++) {
        unsigned codec = ranges[i].codec;
        ck_assert(!cnk_codec_level_valid(codec, ranges[i].low - 1 == 0 ? 0 : ranges[i].low - 1));
        ck_assert(!cnk_codec_level_valid(codec, ranges[i].high + 1));
        int levels[] = {ranges[i].low, ranges[i].low + 1, 5, ranges[i].high - 1, ranges[i].high};
        for (size_t j = 0; j < 5; j++) {
            cnk_writer w = pack(codec, levels[j], plain, 70000);
            expect(codec, w.data, w.len, plain, 70000);
            cnk_writer_free(&w);
        }
    }
    ck_assert(cnk_codec_level_valid(CNK_CODEC_GZIP, -1) && !cnk_codec_level_valid(CNK_CODEC_GZIP, -2));
    ck_assert(cnk_codec_level_valid(CNK_CODEC_ZSTD, 0));
    ck_assert(cnk_codec_level_valid(CNK_CODEC_SNAPPY, CNK_CODEC_LEVEL_DEFAULT) &&
              !cnk_codec_level_valid(CNK_CODEC_SNAPPY, 1));
    ck_assert(cnk_codec_level_valid(CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT) && !cnk_codec_level_valid(5, 1));
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_codec_compress(CNK_CODEC_GZIP, 10, plain, 10, &w), CHRONIK_EINVAL);
    ck_assert_int_eq(cnk_codec_compress(5, CNK_CODEC_LEVEL_DEFAULT, plain, 10, &w), CHRONIK_EUNSUPPORTEDCODEC);
    ck_assert_int_eq(cnk_codec_decompress(7, plain, 10, 10, &w), CHRONIK_EUNSUPPORTEDCODEC);
    ck_assert_uint_eq(w.len, 0);
    cnk_writer_free(&w);
    ck_assert_str_eq(cnk_codec_name(3), "lz4");
    ck_assert_ptr_null(cnk_codec_name(5));
}
END_TEST

START_TEST(the_limit_is_exact) {
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++)
        for (size_t len = 1; len <= PLAIN_MAX; len = len * 3 + 1) {
            cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, plain, len), out;
            cnk_writer_growing(&out, 0);
            ck_assert_int_eq(open_up(codec, w.data, w.len, len - 1, &out), CHRONIK_EBOMB);
            ck_assert_int_eq(open_up(codec, w.data, w.len, 0, &out), CHRONIK_EBOMB);
            ck_assert_int_eq(open_up(codec, w.data, w.len, len, &out), 0);
            ck_assert_int_eq(open_up(codec, w.data, w.len, UINT64_MAX, &out), 0);
            ck_assert_uint_eq(out.len, 2 * len);
            cnk_writer_free(&w), cnk_writer_free(&out);
        }
}
END_TEST

START_TEST(bombs_cost_no_more_than_the_limit) {
    size_t bomb_len = (size_t)100 << 20;
    uint8_t *zeros = calloc(1, bomb_len);
    for (unsigned codec = 1; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, zeros, bomb_len), out;
        cnk_writer_growing(&out, 0);
        ck_assert_int_eq(open_up(codec, w.data, w.len, 1 << 20, &out), CHRONIK_EBOMB);
        ck_assert_uint_le(out.capacity, (size_t)4 << 20);
        cnk_writer_free(&w), cnk_writer_free(&out);
    }
    free(zeros);
}
END_TEST

START_TEST(the_writers_own_limit_holds) {
    static uint8_t buf[5000];
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, plain, 5000), out;
        cnk_writer_growing(&out, 4999);
        ck_assert_int_eq(open_up(codec, w.data, w.len, 10000, &out), CHRONIK_ETOOLARGE);
        cnk_writer_free(&out);
        cnk_writer_growing(&out, 5001); /* some libraries want a byte more than they use */
        ck_assert_int_eq(open_up(codec, w.data, w.len, 10000, &out), 0);
        cnk_writer_free(&out);
        cnk_writer_fixed(&out, buf, 100);
        ck_assert_int_eq(open_up(codec, w.data, w.len, 10000, &out), CHRONIK_ETOOLARGE);
        ck_assert_int_eq(cnk_codec_compress(codec, CNK_CODEC_LEVEL_DEFAULT, plain, 5000, &out), CHRONIK_ETOOLARGE);
        ck_assert_uint_eq(out.len, 0);
        ck_assert_int_eq(out.error, 0);
        cnk_writer_free(&w);
    }
}
END_TEST

START_TEST(what_is_cut_short_is_corrupt) {
    for (unsigned codec = 1; codec < CNK_CODEC_COUNT; codec++) {
        if (codec == CNK_CODEC_SNAPPY) continue; /* xerial's stream has no end mark; see below */
        cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, plain, 700);
        for (size_t len = 0; len < w.len; len++) expect_error(codec, w.data, len, CHRONIK_ECORRUPTMESSAGE);
        cnk_write_u8(&w, 0);
        expect_error(codec, w.data, w.len, CHRONIK_ECORRUPTMESSAGE); /* a byte too many */
        cnk_writer_free(&w);
    }
    char raw[1000];
    size_t raw_len = sizeof raw;
    ck_assert_int_eq(snappy_compress((const char *)plain, 700, raw, &raw_len), SNAPPY_OK);
    for (size_t len = 0; len < raw_len; len++) expect_error(CNK_CODEC_SNAPPY, raw, len, CHRONIK_ECORRUPTMESSAGE);
    cnk_writer w = pack(CNK_CODEC_SNAPPY, CNK_CODEC_LEVEL_DEFAULT, plain, 700);
    for (size_t len = 0; len < w.len; len++)
        if (len != 16) expect_error(CNK_CODEC_SNAPPY, w.data, len, CHRONIK_ECORRUPTMESSAGE);
    expect(CNK_CODEC_SNAPPY, w.data, 16, NULL, 0); /* a header alone is an empty stream */
    cnk_writer_free(&w);
}
END_TEST

START_TEST(gzip_members_follow_each_other) {
    cnk_writer w = pack(CNK_CODEC_GZIP, 9, plain, 1000);
    ck_assert_int_eq(cnk_codec_compress(CNK_CODEC_GZIP, 1, plain + 1000, 2000, &w), 0);
    expect(CNK_CODEC_GZIP, w.data, w.len, plain, 3000);
    w.data[w.len - 8] ^= 1; /* its CRC */
    expect_error(CNK_CODEC_GZIP, w.data, w.len, CHRONIK_ECORRUPTMESSAGE);
    cnk_writer_free(&w);
    uint8_t z[2000];
    uLongf z_len = sizeof z;
    ck_assert_int_eq(compress(z, &z_len, plain, 500), Z_OK); /* zlib's own format is not gzip */
    expect_error(CNK_CODEC_GZIP, z, z_len, CHRONIK_ECORRUPTMESSAGE);
}
END_TEST

START_TEST(snappy_is_read_raw_and_framed) {
    char raw[100000];
    size_t raw_len = sizeof raw;
    ck_assert_int_eq(snappy_compress((const char *)plain, 60000, raw, &raw_len), SNAPPY_OK);
    expect(CNK_CODEC_SNAPPY, raw, raw_len, plain, 60000); /* as librdkafka sends it */
    cnk_writer w = pack(CNK_CODEC_SNAPPY, CNK_CODEC_LEVEL_DEFAULT, plain, 40000);
    ck_assert_mem_eq(w.data, "\x82SNAPPY\0\0\0\0\1\0\0\0\1", 16);
    ck_assert_int_eq(cnk_codec_compress(CNK_CODEC_SNAPPY, CNK_CODEC_LEVEL_DEFAULT, plain + 40000, 1000, &w), 0);
    expect(CNK_CODEC_SNAPPY, w.data, w.len, plain, 41000); /* a header in the middle */
    cnk_store_be32(w.data + 16, 0);
    expect_error(CNK_CODEC_SNAPPY, w.data, w.len, CHRONIK_ECORRUPTMESSAGE);
    cnk_store_be32(w.data + 16, UINT32_MAX);
    expect_error(CNK_CODEC_SNAPPY, w.data, w.len, CHRONIK_ECORRUPTMESSAGE);
    cnk_writer_free(&w);
    /* A stated length that the input cannot hold is no reason to allocate, nor a bomb. */
    expect_error(CNK_CODEC_SNAPPY, "\xFF\xFF\xFF\xFF\x0F\x00\x00", 7, CHRONIK_ECORRUPTMESSAGE);
}
END_TEST

START_TEST(lz4_frames_of_other_writers_are_read) {
    static uint8_t frame[400000];
    LZ4F_preferences_t prefs[] = {
        {.frameInfo = {.blockSizeID = LZ4F_max4MB, .blockMode = LZ4F_blockLinked}},
        {.frameInfo = {.blockSizeID = LZ4F_max64KB,
                       .blockMode = LZ4F_blockLinked,
                       .contentChecksumFlag = 1,
                       .blockChecksumFlag = 1}},
        {.frameInfo = {.blockSizeID = LZ4F_max256KB, .blockMode = LZ4F_blockIndependent, .contentSize = PLAIN_MAX}},
        {.frameInfo = {.blockSizeID = LZ4F_max64KB}, .compressionLevel = 12}};
    for (size_t i = 0; i < 4; i++) {
        size_t n = LZ4F_compressFrame(frame, sizeof frame, plain, PLAIN_MAX, &prefs[i]);
        ck_assert(!LZ4F_isError(n));
        expect(CNK_CODEC_LZ4, frame, n, plain, PLAIN_MAX);
        frame[5] ^= 0x10; /* the header's checksum, or what it covers */
        expect_error(CNK_CODEC_LZ4, frame, n, CHRONIK_ECORRUPTMESSAGE);
    }
    /* Kafka's Java client demands these of what we write. */
    cnk_writer w = pack(CNK_CODEC_LZ4, CNK_CODEC_LEVEL_DEFAULT, plain, 100000);
    ck_assert_uint_eq(cnk_load_le32(w.data), 0x184D2204);
    ck_assert_uint_eq(w.data[4], 0x60); /* version 1, independent blocks, no checksums, no size */
    ck_assert_uint_eq(w.data[5], 0x40); /* 64 KiB */
    cnk_writer_free(&w);
}
END_TEST

/* Kafka's message format 0: the header's checksum covers the magic, too. */
START_TEST(lz4_with_the_mistake_of_old) {
    static uint8_t frame[400000];
    cnk_writer w, out;
    cnk_writer_growing(&w, 0);
    cnk_write_u8(&w, 'x');
    ck_assert_int_eq(cnk_codec_lz4_old_compress(plain, 100000, &w), 0);
    ck_assert_uint_eq(w.data[1 + 6], 0x1A); /* as Kafka's client has it for 0x60 0x40; rightly 0x82 */
    expect_error(CNK_CODEC_LZ4, w.data + 1, w.len - 1, CHRONIK_ECORRUPTMESSAGE);
    for (int i = 0; i < 3; i++) {
        cnk_writer_growing(&out, 0);
        w.data[1 + 6] = (uint8_t)(0x1A + i); /* whatever it is */
        ck_assert_int_eq(cnk_codec_lz4_old_decompress(w.data + 1, w.len - 1, 100000, &out), 0);
        ck_assert_uint_eq(out.len, 100000);
        ck_assert_int_eq(memcmp(out.data, plain, 100000), 0);
        cnk_writer_free(&out);
    }
    cnk_writer_growing(&out, 0);
    ck_assert_int_eq(cnk_codec_lz4_old_decompress(w.data + 1, w.len - 1, 99999, &out), CHRONIK_EBOMB);
    for (size_t len = 0; len < 12; len++)
        ck_assert_int_eq(cnk_codec_lz4_old_decompress(w.data + 1, len, 100000, &out), CHRONIK_ECORRUPTMESSAGE);
    LZ4F_preferences_t sized = {.frameInfo = {.contentSize = PLAIN_MAX}};
    const size_t n = LZ4F_compressFrame(frame, sizeof frame, plain, PLAIN_MAX, &sized);
    frame[14] ^= 0xFF;
    ck_assert_int_eq(cnk_codec_lz4_old_decompress(frame, n, PLAIN_MAX, &out), 0);
    ck_assert_uint_eq(out.len, PLAIN_MAX);
    cnk_writer_free(&out);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(zstd_frames_follow_each_other_and_may_hide_their_size) {
    cnk_writer w = pack(CNK_CODEC_ZSTD, 3, plain, 1000);
    ck_assert_int_eq(cnk_codec_compress(CNK_CODEC_ZSTD, 19, plain + 1000, 100000, &w), 0);
    expect(CNK_CODEC_ZSTD, w.data, w.len, plain, 101000);
    cnk_write_bytes(&w, "\x50\x2A\x4D\x18\x03\0\0\0abc", 11); /* a skippable frame */
    expect(CNK_CODEC_ZSTD, w.data, w.len, plain, 101000);
    cnk_writer_free(&w);
    /* Streamed, as Java does it: no size in the header. */
    static uint8_t frame[400000];
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
    size_t n = ZSTD_compress2(ctx, frame, sizeof frame, plain, PLAIN_MAX);
    ck_assert(!ZSTD_isError(n));
    ZSTD_freeCCtx(ctx);
    ck_assert(ZSTD_getFrameContentSize(frame, n) == ZSTD_CONTENTSIZE_UNKNOWN);
    expect(CNK_CODEC_ZSTD, frame, n, plain, PLAIN_MAX);
    frame[n - 1] ^= 1; /* its checksum */
    expect_error(CNK_CODEC_ZSTD, frame, n, CHRONIK_ECORRUPTMESSAGE);
    /* A frame that claims 2^60 bytes. */
    static const uint8_t lie[] = {0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0};
    expect_error(CNK_CODEC_ZSTD, lie, sizeof lie, CHRONIK_EBOMB);
    /* One that claims what the limit allows and holds one byte. */
    static const uint8_t small_lie[] = {0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0xE0, 0x93, 0x04, 0, 9, 0, 0, 'x'};
    expect_error(CNK_CODEC_ZSTD, small_lie, sizeof small_lie, CHRONIK_ECORRUPTMESSAGE);
}
END_TEST

START_TEST(damage_is_survived) {
    cnk_rng rng;
    cnk_rng_seed(&rng, 8);
    for (unsigned codec = 1; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w = pack(codec, CNK_CODEC_LEVEL_DEFAULT, plain, 3000);
        unsigned refused = 0;
        for (int i = 0; i < 3000; i++) {
            uint8_t copy[4000];
            cnk_writer out;
            memcpy(copy, w.data, w.len);
            for (uint64_t n = 1 + cnk_rng_below(&rng, 4); n; n--)
                copy[cnk_rng_below(&rng, cnk_rng_chance(&rng, 1, 2) ? 24 : w.len)] = (uint8_t)cnk_rng_next(&rng);
            cnk_writer_growing(&out, 0);
            int rc = open_up(codec, copy, w.len, 10000, &out);
            ck_assert(rc == 0 || rc == CHRONIK_ECORRUPTMESSAGE || rc == CHRONIK_EBOMB);
            ck_assert_uint_le(out.len, 10000);
            refused += rc != 0;
            cnk_writer_free(&out);
        }
        ck_assert_uint_gt(refused, 500);
        cnk_writer_free(&w);
    }
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(each_allocation_may_fail) {
    for (unsigned codec = 0; codec < CNK_CODEC_COUNT; codec++) {
        cnk_writer w, out;
        int rc = CHRONIK_ENOMEM;
        cnk_writer_growing(&w, 0), cnk_writer_growing(&out, 0);
        for (long n = 0; rc; n++) {
            cnk_mem_fail_at(n);
            rc = cnk_codec_compress(codec, CNK_CODEC_LEVEL_DEFAULT, plain, PLAIN_MAX, &w);
            cnk_mem_fail_at(-1);
            ck_assert(rc == 0 || (rc == CHRONIK_ENOMEM && w.len == 0 && w.error == 0));
            ck_assert_int_lt(n, 50);
        }
        rc = CHRONIK_ENOMEM;
        for (long n = 0; rc; n++) {
            cnk_mem_fail_at(n);
            rc = open_up(codec, w.data, w.len, PLAIN_MAX, &out);
            cnk_mem_fail_at(-1);
            ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
            ck_assert_int_lt(n, 50);
        }
        ck_assert_uint_eq(out.len, PLAIN_MAX);
        cnk_writer_free(&w), cnk_writer_free(&out);
    }
}
END_TEST
#endif

int main(void) {
    Suite *s = suite_create("codec");
    TCase *t = tcase_create("codec");
    setup();
    tcase_set_timeout(t, 0);
    tcase_add_test(t, there_and_back);
    tcase_add_test(t, output_is_appended);
    tcase_add_test(t, levels_are_kafkas);
    tcase_add_test(t, the_limit_is_exact);
    tcase_add_test(t, bombs_cost_no_more_than_the_limit);
    tcase_add_test(t, the_writers_own_limit_holds);
    tcase_add_test(t, what_is_cut_short_is_corrupt);
    tcase_add_test(t, gzip_members_follow_each_other);
    tcase_add_test(t, snappy_is_read_raw_and_framed);
    tcase_add_test(t, lz4_frames_of_other_writers_are_read);
    tcase_add_test(t, lz4_with_the_mistake_of_old);
    tcase_add_test(t, zstd_frames_follow_each_other_and_may_hide_their_size);
    tcase_add_test(t, damage_is_survived);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_may_fail);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
