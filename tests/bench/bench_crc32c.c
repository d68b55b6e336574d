/* CRC-32C from cache: GB/s of each implementation this CPU has, by buffer size, aligned and not; the copying form; and
 * the time of one combine. Each figure is the best of several rounds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/crc32c.h"
#include "base/crc32c_impl.h"

#define ROUNDS 5
#define ROUND_BYTES ((size_t)64 << 20)

static volatile uint32_t sink; /* keeps the work alive */

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double measure(const cnk_crc32c_impl *impl, uint8_t *dst, const uint8_t *src, size_t len) {
    size_t times = ROUND_BYTES / len;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t crc = 0;
        double start = now_s();
        for (size_t i = 0; i < times; i++) crc = dst ? impl->copy(crc, dst, src, len) : impl->crc(crc, src, len);
        double rate = (double)(times * len) / (now_s() - start) / 1e9;
        sink = crc;
        if (rate > best) best = rate;
    }
    return best;
}

static double combine_ns(const cnk_crc32c_impl *impl, size_t len) {
    enum { TIMES = 1000000 };
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t crc = 1;
        double start = now_s();
        for (size_t i = 0; i < TIMES; i++) crc ^= impl->shift(crc, len + (i & 1));
        double ns = (now_s() - start) * 1e9 / TIMES;
        sink = crc;
        if (ns < best) best = ns;
    }
    return best;
}

int main(void) {
    static const size_t sizes[] = {16, 64, 128, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576};
    uint8_t *src = aligned_alloc(64, (1 << 20) + 64), *dst = aligned_alloc(64, (1 << 20) + 64);
    if (src == NULL || dst == NULL) return 1;
    for (size_t i = 0; i < (1 << 20) + 64; i++) src[i] = (uint8_t)(i * 167 >> 3);
    memset(dst, 0, (1 << 20) + 64);
    printf("chosen: %s\n", cnk_crc32c_implementation());
    for (const cnk_crc32c_impl *const *impl = cnk_crc32c_impls; *impl; impl++) {
        if (!(*impl)->usable()) continue;
        printf("%s\n%10s %10s %10s %10s GB/s\n", (*impl)->name, "bytes", "aligned", "at 21", "copy");
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            printf("%10zu %10.1f %10.1f %10.1f\n", sizes[i], measure(*impl, NULL, src, sizes[i]),
                   measure(*impl, NULL, src + 21, sizes[i]), measure(*impl, dst, src + 21, sizes[i]));
        printf("combine: %.0f ns past 1 KiB, %.0f ns past 1 MiB\n", combine_ns(*impl, 1 << 10),
               combine_ns(*impl, 1 << 20));
    }
    free(src);
    free(dst);
    return 0;
}
