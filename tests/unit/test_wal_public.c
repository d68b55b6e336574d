/* chronik/wal.h as a program uses it: appends, syncs and reads from several threads, reopening, trimming under a small
 * budget, deleting, and every way to be refused. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chronik/wal.h>

/* The two calls of the system that a commit consists of: they can be told to fail. */
static atomic_bool fail_sync, fail_write;

int fdatasync(int fd) {
    if (!atomic_load(&fail_sync)) return (int)syscall(SYS_fdatasync, fd);
    errno = EIO;
    return -1;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t pos) {
    if (!atomic_load(&fail_write)) return syscall(SYS_pwritev, fd, iov, (long)count, (long)pos, (long)((uint64_t)pos >> 32));
    errno = EIO;
    return -1;
}

typedef struct world {
    char dir[64], wal_dir[80];
    chronik_wal *wal;
    chronik_wal_options options;
    chronik_error err;
} world;

static void world_open(world *w) {
    w->err = (chronik_error)CHRONIK_ERROR_INIT;
    int code = chronik_wal_open(w->wal_dir, &w->options, &w->err, &w->wal);
    ck_assert_msg(code == 0, "%s", w->err.text);
}

static void world_new(world *w) {
    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/chronik-test-walp-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->wal_dir, sizeof w->wal_dir, "%s/log", w->dir);
    w->options = (chronik_wal_options)CHRONIK_WAL_OPTIONS_INIT;
    w->options.file_bytes = 1 << 20;
    w->options.budget_bytes = 8 << 20;
    world_open(w);
}

static void world_reopen(world *w) {
    chronik_wal_close(w->wal);
    world_open(w);
}

static void world_free(world *w) {
    chronik_wal_close(w->wal);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", w->dir);
    ck_assert_int_eq(system(command), 0);
}

static size_t text_of(uint64_t stream, uint64_t n, char *text) {
    int used = snprintf(text, 64, "%llu/%llu:", (unsigned long long)stream, (unsigned long long)n);
    size_t len = (size_t)used + (size_t)((n * 37 + stream) % 3000);
    memset(text + used, (int)('a' + (n + stream) % 26), len - (size_t)used);
    return len;
}

static void append(world *w, uint64_t stream, uint64_t n) {
    char text[4096];
    size_t len = text_of(stream, n, text);
    uint64_t index = 0;
    int code = chronik_wal_append(w->wal, stream, text, len, &w->err, &index);
    ck_assert_msg(code == 0, "%s", w->err.text);
    ck_assert_uint_eq(index, n);
}

static void verify(world *w, uint64_t stream, uint64_t first, uint64_t last) {
    char want[4096], got[4096];
    uint64_t a, b;
    ck_assert_int_eq(chronik_wal_stream_range(w->wal, stream, &w->err, &a, &b), 0);
    ck_assert_uint_eq(a, first);
    ck_assert_uint_eq(b, last);
    for (uint64_t n = first; n <= last; n++) {
        size_t len = 0, expected = text_of(stream, n, want);
        int code = chronik_wal_read(w->wal, stream, n, got, sizeof got, &w->err, &len);
        ck_assert_msg(code == 0, "%s", w->err.text);
        ck_assert_uint_eq(len, expected);
        ck_assert_int_eq(memcmp(got, want, len), 0);
    }
}

START_TEST(test_append_read_reopen) {
    world w;
    world_new(&w);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 3, &w.err), 0);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 9, NULL), 0);
    for (uint64_t n = 1; n <= 700; n++) {
        append(&w, 3, n);
        if (n % 3 == 0) append(&w, 9, n / 3);
        if (n % 100 == 0) ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
    }
    verify(&w, 3, 1, 700); /* also what is not durable yet */
    world_reopen(&w);
    verify(&w, 3, 1, 700);
    verify(&w, 9, 1, 233);
    append(&w, 9, 234);
    ck_assert_int_eq(chronik_wal_sync(w.wal, NULL), 0);
    ck_assert_int_eq(chronik_wal_sync(w.wal, NULL), 0); /* nothing to do */
    world_reopen(&w);
    verify(&w, 9, 1, 234);
    world_free(&w);
}
END_TEST

START_TEST(test_sizes) {
    world w;
    world_new(&w);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 1, &w.err), 0);
    uint64_t index;
    size_t len = 99;
    char small[4] = "xyz";
    size_t large = 1500000; /* larger than a file */
    char *data = malloc(large), *back = malloc(large);
    for (size_t n = 0; n < large; n++) data[n] = (char)(n * 31 >> 3);
    ck_assert_int_eq(chronik_wal_append(w.wal, 1, NULL, 0, &w.err, &index), 0);
    ck_assert_msg(chronik_wal_append(w.wal, 1, data, large, &w.err, &index) == 0, "%s", w.err.text);
    ck_assert_int_eq(chronik_wal_append(w.wal, 1, data, (size_t)257 << 20, &w.err, &index), CHRONIK_ETOOLARGE);
    ck_assert_int_eq(chronik_wal_append(w.wal, 1, data, w.options.budget_bytes / 4 + 1, &w.err, &index),
                     CHRONIK_ETOOLARGE);
    ck_assert_uint_eq(index, 2);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(chronik_wal_read(w.wal, 1, 1, small, sizeof small, &w.err, &len), 0);
        ck_assert_uint_eq(len, 0);
        ck_assert_int_eq(chronik_wal_read(w.wal, 1, 2, small, sizeof small, &w.err, &len), 0); /* the first bytes */
        ck_assert_uint_eq(len, large);
        ck_assert_int_eq(memcmp(small, data, sizeof small), 0);
        ck_assert_int_eq(chronik_wal_read(w.wal, 1, 2, back, large, &w.err, &len), 0);
        ck_assert_int_eq(memcmp(back, data, large), 0);
        world_reopen(&w);
    }
    free(data);
    free(back);
    world_free(&w);
}
END_TEST

START_TEST(test_refusals) {
    world w;
    world_new(&w);
    uint64_t index, a, b;
    size_t len;
    chronik_wal *other = NULL;
    chronik_wal_options bad = w.options;
    ck_assert_int_eq(chronik_wal_open(w.wal_dir, &w.options, &w.err, &other), CHRONIK_EBUSY);
    ck_assert_ptr_null(other);
    ck_assert_ptr_nonnull(strstr(w.err.text, "open"));
    bad.budget_bytes = bad.file_bytes;
    ck_assert_int_eq(chronik_wal_open("/tmp", &bad, NULL, &other), CHRONIK_EINVAL);
    ck_assert_int_eq(chronik_wal_open("/proc/none/log", NULL, &w.err, &other), w.err.code);
    ck_assert_int_ne(w.err.code, 0);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 0, &w.err), CHRONIK_EINVAL);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 5, &w.err), 0);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 5, &w.err), CHRONIK_EEXIST);
    ck_assert_int_eq(chronik_wal_append(w.wal, 6, "x", 1, &w.err, &index), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(chronik_wal_read(w.wal, 5, 1, NULL, 0, &w.err, &len), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(chronik_wal_trim(w.wal, 6, 1, &w.err), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(chronik_wal_stream_range(w.wal, 5, &w.err, &a, &b), 0);
    ck_assert_uint_eq(a, 1);
    ck_assert_uint_eq(b, 0);
    append(&w, 5, 1);
    ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
    ck_assert_int_eq(chronik_wal_trim(w.wal, 5, 3, &w.err), CHRONIK_EINVAL);
    ck_assert_int_eq(chronik_wal_stream_delete(w.wal, 5, &w.err), 0);
    ck_assert_int_eq(chronik_wal_stream_delete(w.wal, 5, &w.err), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(chronik_wal_append(w.wal, 5, "x", 1, &w.err, &index), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 5, &w.err), CHRONIK_EEXIST); /* ids are used once */
    world_reopen(&w);
    ck_assert_int_eq(chronik_wal_stream_range(w.wal, 5, &w.err, &a, &b), CHRONIK_ENOTFOUND);
    world_free(&w);
}
END_TEST

/* Several times the budget goes through, since what is trimmed makes room. */
START_TEST(test_trim) {
    world w;
    world_new(&w);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 2, &w.err), 0);
    uint64_t last = 16000;
    for (uint64_t n = 1; n <= last; n++) {
        append(&w, 2, n);
        if (n % 200 != 0) continue;
        ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
        if (n > 1000) ck_assert_int_eq(chronik_wal_trim(w.wal, 2, n - 999, &w.err), 0);
    }
    ck_assert_int_eq(chronik_wal_trim(w.wal, 2, 5, &w.err), 0); /* long done */
    verify(&w, 2, last - 999, last);
    size_t len;
    ck_assert_int_eq(chronik_wal_read(w.wal, 2, last - 1000, NULL, 0, &w.err, &len), CHRONIK_ENOTFOUND);
    world_reopen(&w);
    verify(&w, 2, last - 999, last);
    ck_assert_int_eq(chronik_wal_trim(w.wal, 2, last + 1, &w.err), 0); /* all of it */
    ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
    world_reopen(&w);
    verify(&w, 2, last + 1, last);
    append(&w, 2, last + 1);
    world_free(&w);
}
END_TEST

typedef struct worker {
    world *w;
    uint64_t stream;
    pthread_t thread;
    int code;
} worker;

static void *work(void *arg) {
    worker *k = arg;
    chronik_error err = CHRONIK_ERROR_INIT;
    char text[4096], got[4096];
    for (uint64_t n = 1; n <= 300 && k->code == 0; n++) {
        uint64_t index = 0;
        size_t size = text_of(k->stream, n, text), len = 0;
        k->code = chronik_wal_append(k->w->wal, k->stream, text, size, &err, &index);
        if (k->code == 0 && index != n) k->code = -1000;
        if (k->code == 0 && n % 3 == 0) k->code = chronik_wal_sync(k->w->wal, &err);
        if (k->code == 0) k->code = chronik_wal_read(k->w->wal, k->stream, n, got, sizeof got, &err, &len);
        if (k->code == 0 && (len != size || memcmp(got, text, len) != 0)) k->code = -1001;
    }
    return NULL;
}

START_TEST(test_threads) {
    world w;
    world_new(&w);
    worker workers[8];
    memset(workers, 0, sizeof workers);
    for (unsigned n = 0; n < 8; n++) {
        workers[n].w = &w;
        workers[n].stream = n + 1;
        ck_assert_int_eq(chronik_wal_stream_create(w.wal, n + 1, &w.err), 0);
        ck_assert_int_eq(pthread_create(&workers[n].thread, NULL, work, &workers[n]), 0);
    }
    for (unsigned n = 0; n < 8; n++) {
        pthread_join(workers[n].thread, NULL);
        ck_assert_int_eq(workers[n].code, 0);
    }
    world_reopen(&w);
    for (uint64_t n = 1; n <= 8; n++) verify(&w, n, 1, 300);
    world_free(&w);
}
END_TEST

static void *fill(void *arg) { /* far more than the budget: waits in the middle until somebody trims */
    worker *k = arg;
    char data[4096];
    memset(data, 'x', sizeof data);
    for (uint64_t n = 1, index; n <= 5000 && k->code == 0; n++)
        k->code = chronik_wal_append(k->w->wal, k->stream, data, sizeof data, NULL, &index);
    return NULL;
}

START_TEST(test_back_pressure) {
    world w;
    world_new(&w);
    worker k = {.w = &w, .stream = 4};
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 4, &w.err), 0);
    ck_assert_int_eq(pthread_create(&k.thread, NULL, fill, &k), 0);
    uint64_t first = 1, last = 0;
    while (last < 5000) {
        ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
        ck_assert_int_eq(chronik_wal_stream_range(w.wal, 4, &w.err, &first, &last), 0);
        ck_assert_uint_le((last - first + 1) * 4096, w.options.budget_bytes);
        if (last > 1000 && last < 5000) usleep(1000);
        int code = chronik_wal_trim(w.wal, 4, last > 100 ? last - 100 : 1, &w.err);
        ck_assert(code == 0 || code == CHRONIK_EINVAL); /* appended since, and not durable yet */
    }
    pthread_join(k.thread, NULL);
    ck_assert_int_eq(k.code, 0);
    world_free(&w);
}
END_TEST

/* A write, or a sync, fails: the log is fenced for good. What was confirmed can be read, and is there after a new opening;
 * what was not confirmed is there as a prefix, if at all. */
START_TEST(test_fenced) {
    atomic_bool *fails[] = {&fail_sync, &fail_write};
    world w;
    uint64_t first, last, index;
    world_new(&w);
    ck_assert_int_eq(chronik_wal_stream_create(w.wal, 1, &w.err), 0);
    for (uint64_t n = 1; n <= 50; n++) append(&w, 1, n);
    ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
    atomic_store(fails[_i], true);
    int code = 0;
    for (uint64_t n = 51; n <= 60 && code == 0; n++) { /* the failure may come before the last of them */
        char text[4096];
        code = chronik_wal_append(w.wal, 1, text, text_of(1, n, text), &w.err, &index);
    }
    if (code) ck_assert_int_eq(code, CHRONIK_EFENCED);
    ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), CHRONIK_EFENCED);
    ck_assert_uint_gt(strlen(w.err.text), 10);
    atomic_store(fails[_i], false); /* and a device that works again changes nothing */
    for (int n = 0; n < 3; n++) {
        ck_assert_int_eq(chronik_wal_append(w.wal, 1, "x", 1, &w.err, &index), CHRONIK_EFENCED);
        ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), CHRONIK_EFENCED);
        ck_assert_int_eq(chronik_wal_stream_create(w.wal, 2, &w.err), CHRONIK_EFENCED);
        ck_assert_int_eq(chronik_wal_trim(w.wal, 1, 2, &w.err), CHRONIK_EFENCED);
    }
    char want[4096], got[4096];
    for (uint64_t n = 1; n <= 50; n++) {
        size_t len = 0;
        ck_assert_int_eq(chronik_wal_read(w.wal, 1, n, got, sizeof got, &w.err, &len), 0);
        ck_assert_uint_eq(len, text_of(1, n, want));
        ck_assert_int_eq(memcmp(got, want, len), 0);
    }
    world_reopen(&w);
    ck_assert_int_eq(chronik_wal_stream_range(w.wal, 1, &w.err, &first, &last), 0);
    ck_assert_uint_ge(last, 50);
    ck_assert_uint_le(last, 60);
    verify(&w, 1, 1, last);
    append(&w, 1, last + 1);
    ck_assert_int_eq(chronik_wal_sync(w.wal, &w.err), 0);
    world_reopen(&w);
    verify(&w, 1, 1, last + 1);
    world_free(&w);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wal_public");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_append_read_reopen);
    tcase_add_test(c, test_sizes);
    tcase_add_test(c, test_refusals);
    tcase_add_test(c, test_trim);
    tcase_add_test(c, test_threads);
    tcase_add_test(c, test_back_pressure);
    tcase_add_loop_test(c, test_fenced, 0, 2);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
