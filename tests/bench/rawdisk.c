/* What the disk itself gives: sequential O_DIRECT writes into a file that was filled before, each followed by fdatasync.
 *
 *   rawdisk --file F [--kb 64] [--seconds 5] [--file-mb 256]
 *
 * The measure for `WAL alone`. Prints one line of NAME=VALUE: mb_s, syncs_s, and the percentiles of one write with its
 * sync. The file is left behind for whoever called. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_MAX = 4000000 };

static void die(const char *what) {
    fprintf(stderr, "rawdisk: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    const char *path = NULL;
    size_t kb = 64, file_mb = 256, seconds = 5;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--file") == 0) path = argv[i + 1];
        else if (strcmp(argv[i], "--kb") == 0) kb = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0) seconds = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--file-mb") == 0) file_mb = strtoul(argv[i + 1], NULL, 10);
        else return fprintf(stderr, "rawdisk: unknown option %s\n", argv[i]), 2;
    }
    size_t unit = kb << 10, size = file_mb << 20, fill = 1 << 20;
    void *buf;
    uint32_t *samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (!path || !kb || kb % 4 || unit > size) return fprintf(stderr, "rawdisk: --file, --kb in steps of 4\n"), 2;
    if (posix_memalign(&buf, 4096, unit > fill ? unit : fill) || !samples) die("memory");
    memset(buf, 0xa5, unit > fill ? unit : fill);
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
    if (fd < 0) die(path);
    for (size_t at = 0; at < size; at += fill)
        if (pwrite(fd, buf, fill, (off_t)at) != (ssize_t)fill) die("fill");
    if (fdatasync(fd)) die("fdatasync");

    size_t n = 0, at = 0;
    uint64_t began = now_ns(), end = began + seconds * 1000000000u, t = began;
    while (t < end && n < SAMPLES_MAX) {
        if (at + unit > size) at = 0;
        if (pwrite(fd, buf, unit, (off_t)at) != (ssize_t)unit) die("pwrite");
        if (fdatasync(fd)) die("fdatasync");
        at += unit;
        uint64_t now = now_ns();
        samples[n++] = (uint32_t)((now - t) / 1000);
        t = now;
    }
    double took = (double)(t - began) / 1e9;
    qsort(samples, n, sizeof *samples, ascending);
    printf("mb_s=%.1f syncs_s=%.0f p50_us=%u p99_us=%u max_us=%u\n", (double)n * (double)unit / 1e6 / took,
           (double)n / took, samples[n / 2], samples[n * 99 / 100], samples[n - 1]);
    close(fd);
    free(samples);
    free(buf);
}
