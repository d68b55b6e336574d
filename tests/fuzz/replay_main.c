/* Gives each file of a corpus to a fuzzer's entry point, without libFuzzer: how `make check` keeps what fuzzing found.
 *
 *     replay_fuzz_<name> [DIRECTORY]
 *
 * Beside the files as they are, every prefix of small ones and some changed bytes are tried, always the same ones. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PREFIXES_MAX = 512, CHANGES = 256, FILE_BYTES_MAX = 1 << 20 };

/* An exact-size copy each time, so that the address sanitizer sees a read past the end. */
static void try(const uint8_t *data, size_t len) {
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy) abort();
    if (len) memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void try_variations(uint8_t *data, size_t len) {
    try(data, len);
    for (size_t n = 0; n < len && n < PREFIXES_MAX; n++) try(data, n);
    uint32_t x = 2463534242u;
    for (int i = 0; len && i < CHANGES; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        size_t at = x % len;
        uint8_t old = data[at];
        data[at] = (uint8_t)(i % 4 == 0 ? 0xff : i % 4 == 1 ? 0x80 : x >> 24);
        try(data, len);
        data[at] = old;
    }
}

static int try_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return -1;
    uint8_t *data = malloc(FILE_BYTES_MAX);
    if (!data) abort();
    size_t len = fread(data, 1, FILE_BYTES_MAX, f);
    fclose(f);
    try_variations(data, len);
    free(data);
    return 0;
}

int main(int argc, char **argv) {
    int files = 0, unread = 0;
    const char *dir = argc > 1 ? argv[1] : "";
    DIR *d = argc > 1 ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        struct stat st;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= sizeof path) continue;
        if (stat(path, &st) || !S_ISREG(st.st_mode)) continue;
        if (try_file(path)) unread++;
        else files++;
    }
    if (d) closedir(d);
    try((const uint8_t *)"", 0); /* the empty input belongs to every corpus */
    files++;
    printf("%d passed, %d failed\n", files, unread);
    return unread != 0;
}
