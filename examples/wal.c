/* The write-ahead log alone: a journal that says what is safe, and may be killed at any moment.
 *
 *     cc wal.c $(pkg-config --cflags --libs chronik) && ./a.out DIRECTORY [COUNT]
 *
 * First it reads back all that the journal holds, and checks it. Then it appends COUNT entries (default 100) in groups
 * of up to 8, each made durable by one sync, and prints `confirmed N` afterwards: whatever happens from then on, entry N
 * is there when the program is started again. It keeps the newest 5000 entries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/wal.h>

enum { STREAM = 7, KEEP = 5000, TEXT = 2000 };

static int fail(const char *what, const chronik_error *err) {
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

/* What entry N says, so that it can be checked later. */
static size_t text_of(uint64_t n, char text[TEXT]) {
    int used = snprintf(text, TEXT, "entry %llu:", (unsigned long long)n);
    size_t len = (size_t)used + (size_t)(n * 7919 % (TEXT - 100));
    for (size_t i = (size_t)used; i < len; i++) text[i] = (char)('a' + (n + i) % 26);
    return len;
}

static int check(chronik_wal *wal, uint64_t first, uint64_t last) {
    chronik_error err = CHRONIK_ERROR_INIT;
    char want[TEXT], got[TEXT];
    for (uint64_t n = first; n <= last; n++) {
        size_t len;
        if (chronik_wal_read(wal, STREAM, n, got, sizeof got, &err, &len)) return fail("read", &err);
        if (len == text_of(n, want) && memcmp(got, want, len) == 0) continue;
        fprintf(stderr, "entry %llu is not what was appended\n", (unsigned long long)n);
        return 1;
    }
    return 0;
}

static int append(chronik_wal *wal, uint64_t last, uint64_t count) {
    chronik_error err = CHRONIK_ERROR_INIT;
    char text[TEXT];
    for (uint64_t end = last + count; last < end;) {
        for (uint64_t group = last % 8 + 1; group > 0 && last < end; group--) {
            size_t len = text_of(last + 1, text);
            if (chronik_wal_append(wal, STREAM, text, len, &err, &last)) return fail("append", &err);
        }
        if (chronik_wal_sync(wal, &err)) return fail("sync", &err);
        printf("confirmed %llu\n", (unsigned long long)last);
        fflush(stdout);
        if (last > KEEP && chronik_wal_trim(wal, STREAM, last - KEEP + 1, &err)) return fail("trim", &err);
    }
    return 0;
}

int main(int argc, char **argv) {
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_wal *wal;
    chronik_wal_options options = CHRONIK_WAL_OPTIONS_INIT;
    options.file_bytes = 4 << 20; /* small, so that files are sealed, and given back, before long */
    options.budget_bytes = 32 << 20;
    if (chronik_wal_open(argc > 1 ? argv[1] : "journal", &options, &err, &wal)) return fail("open", &err);

    uint64_t first = 1, last = 0;
    int code = chronik_wal_stream_range(wal, STREAM, &err, &first, &last);
    if (code == CHRONIK_ENOTFOUND) code = chronik_wal_stream_create(wal, STREAM, &err);
    if (code) code = fail("stream", &err);
    if (code == 0) code = check(wal, first, last);
    if (code == 0) {
        printf("recovered %llu to %llu\n", (unsigned long long)first, (unsigned long long)last);
        code = append(wal, last, argc > 2 ? strtoull(argv[2], NULL, 10) : 100);
    }
    chronik_wal_close(wal);
    if (code == 0) puts("done");
    return code;
}
