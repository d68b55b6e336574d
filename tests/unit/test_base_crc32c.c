/* CRC-32C: published vectors, the tables made anew from the polynomial, and each implementation that this CPU has
 * against a bit-by-bit one. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/crc32c_impl.h"
#include "base/rng.h"

#define POLYNOMIAL 0x82F63B78u         /* 0x1EDC6F41, reflected */
__extension__ typedef __int128 int128; /* exponents pass 64 bits */

#define ORDER INT64_C(0x7FFFFFFF) /* x^(2^31 - 1) = 1 modulo the polynomial */

static uint32_t by_bits(uint32_t crc, const uint8_t *p, size_t len) {
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return ~crc;
}

static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int i = 31; i >= 0; i--) {
        if (a >> i & 1) product ^= b;
        b = b >> 1 ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

/* x^e, for negative e too. */
static uint32_t power(int128 e) {
    int64_t n = (int64_t)(e % ORDER);
    if (n < 0) n += ORDER;
    uint32_t result = 0x80000000u, square = 0x40000000u;
    for (; n; n >>= 1) {
        if (n & 1) result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

START_TEST(published_vectors) {
    uint8_t buf[48];
    static const uint8_t read_command[48] = {1, 0xC0, 0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0,
                                             0, 0,    0x14, 0,    0,    0, 0, 0, 4, 0, 0, 0, 0, 0x14,
                                             0, 0,    0,    0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 2};
    ck_assert_uint_eq(cnk_crc32c(0, "123456789", 9), 0xE3069283);
    ck_assert_uint_eq(cnk_crc32c(0, "", 0), 0);
    ck_assert_uint_eq(cnk_crc32c(0, NULL, 0), 0);
    /* RFC 3720, appendix B.4; its bytes are given in the order of transmission. */
    memset(buf, 0, 32);
    ck_assert_uint_eq(cnk_crc32c(0, buf, 32), 0x8A9136AA);
    memset(buf, 0xFF, 32);
    ck_assert_uint_eq(cnk_crc32c(0, buf, 32), 0x62A8AB43);
    for (int i = 0; i < 32; i++) buf[i] = (uint8_t)i;
    ck_assert_uint_eq(cnk_crc32c(0, buf, 32), 0x46DD794E);
    for (int i = 0; i < 32; i++) buf[i] = (uint8_t)(31 - i);
    ck_assert_uint_eq(cnk_crc32c(0, buf, 32), 0x113FDB5C);
    ck_assert_uint_eq(cnk_crc32c(0, read_command, 48), 0xD9963A56);
}
END_TEST

START_TEST(the_tables_follow_from_the_polynomial) {
    for (unsigned k = 0; k < 8; k++)
        for (unsigned b = 0; b < 256; b++) {
            uint8_t bytes[8] = {(uint8_t)b};
            ck_assert_uint_eq(cnk_crc32c_table[k][b], ~by_bits(0xFFFFFFFF, bytes, k + 1));
        }
    for (unsigned d = 0; d < 16; d++)
        for (unsigned v = 0; v < 16; v++) {
            int128 bits = (int128)8 * v << (4 * d);
            ck_assert_uint_eq(cnk_crc32c_shift[d][v], power(bits));
            ck_assert_uint_eq(cnk_crc32c_shift_short[d][v], power(bits - 33));
        }
    for (int n = 0; n <= 2 * CNK_CRC32C_LANE_WORDS_MAX; n++)
        ck_assert_uint_eq(cnk_crc32c_lane_shift[n], power(64 * n - 33));
}
END_TEST

START_TEST(every_implementation_agrees_bit_by_bit) {
    static uint8_t src[20000], dst[20200];
    cnk_rng rng;
    unsigned implementations = 0;
    cnk_rng_seed(&rng, 1);
    cnk_rng_fill(&rng, src, sizeof src);
    for (const cnk_crc32c_impl *const *impl = cnk_crc32c_impls; *impl; impl++) {
        if (!(*impl)->usable()) continue;
        implementations++;
        for (int i = 0; i < 6000; i++) {
            /* Every length up to 1100, then random ones; all alignments. */
            size_t from = cnk_rng_below(&rng, 64), to = cnk_rng_below(&rng, 64);
            size_t len = i < 1100 ? (size_t)i : cnk_rng_below(&rng, i % 16 ? 1500 : 19900);
            uint32_t init = (uint32_t)cnk_rng_next(&rng), want = by_bits(init, src + from, len);
            ck_assert_msg((*impl)->crc(init, src + from, len) == want, "%s, %zu bytes at %zu", (*impl)->name, len,
                          from);
            memset(dst, 0xEE, to + len + 64);
            ck_assert_msg((*impl)->copy(init, dst + to, src + from, len) == want, "%s copies %zu", (*impl)->name, len);
            ck_assert_int_eq(memcmp(dst + to, src + from, len), 0);
            for (size_t j = 0; j < to; j++) ck_assert_uint_eq(dst[j], 0xEE);
            for (size_t j = 0; j < 64; j++) ck_assert_uint_eq(dst[to + len + j], 0xEE);
        }
    }
    ck_assert_uint_ge(implementations, 1);
    printf("%u implementations; %s is chosen\n", implementations, cnk_crc32c_implementation());
}
END_TEST

START_TEST(the_best_one_is_chosen) {
    const cnk_crc32c_impl *const *impl = cnk_crc32c_impls;
    while (!(*impl)->usable()) impl++;
    ck_assert_str_eq(cnk_crc32c_implementation(), (*impl)->name);
}
END_TEST

START_TEST(crcs_of_parts_combine) {
    static uint8_t buf[5000];
    cnk_rng rng;
    cnk_rng_seed(&rng, 2);
    cnk_rng_fill(&rng, buf, sizeof buf);
    for (int i = 0; i < 2000; i++) {
        size_t len = cnk_rng_below(&rng, sizeof buf + 1), cut = cnk_rng_below(&rng, len + 1);
        uint32_t a = cnk_crc32c(0, buf, cut), b = cnk_crc32c(0, buf + cut, len - cut);
        ck_assert_uint_eq(cnk_crc32c_combine(a, b, len - cut), by_bits(0, buf, len));
        ck_assert_uint_eq(cnk_crc32c(a, buf + cut, len - cut), by_bits(0, buf, len));
    }
    for (const cnk_crc32c_impl *const *impl = cnk_crc32c_impls; *impl; impl++) /* lengths that no buffer has */
        for (int i = 0; (*impl)->usable() && i < 5000; i++) {
            uint32_t crc = (uint32_t)cnk_rng_next(&rng);
            size_t len = (size_t)(cnk_rng_next(&rng) >> cnk_rng_below(&rng, 64));
            ck_assert_uint_eq((*impl)->shift(crc, len), multiply(crc, power((int128)8 * len)));
        }
}
END_TEST

static void *first_use(void *arg) {
    *(uint32_t *)arg = cnk_crc32c(0, "123456789", 9);
    return NULL;
}

START_TEST(threads_may_race_for_the_first_use) {
    pthread_t threads[4];
    uint32_t crcs[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, first_use, &crcs[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_uint_eq(crcs[i], 0xE3069283);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("crc32c");
    TCase *t = tcase_create("crc32c");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, threads_may_race_for_the_first_use);
    tcase_add_test(t, published_vectors);
    tcase_add_test(t, the_tables_follow_from_the_polynomial);
    tcase_add_test(t, every_implementation_agrees_bit_by_bit);
    tcase_add_test(t, the_best_one_is_chosen);
    tcase_add_test(t, crcs_of_parts_combine);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
