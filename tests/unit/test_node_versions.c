/* node: data directories of every version that was ever written are opened, read and written on.
 *
 * tests/unit/data/directory-N.txt holds one each, as text: `dir PATH`, `file PATH BYTES`, and below a file `POSITION HEX`
 * for whatever is not zero. A new one is made whenever a format changes, by the version before the change:
 *
 *     test_node_versions make DIR        fills a directory, and ends by SIGKILL, so that there is something to recover
 *     tests/unit/dump_directory DIR      writes it as text
 *
 * | file | written by |
 * | directory-1.txt | the WAL, packs and checkpoints of 0.1, with votes that name a node instead of a member |
 */
#include <check.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node_host.h"

enum { RECORDS = 60, VALUE_BYTES = 12000, LINE_BYTES = 1024 };

static char dir[128];

static host host_start(void) {
    host h = host_with(config_in(dir, "wal.rotation.size", "150000"));
    host_up(&h);
    return h;
}

/* Record n of a partition: its key says so, and its value is zeros, which take no room in the text. */
static void append(host *h, int32_t partition, int n) {
    static const char zeros[VALUE_BYTES];
    char key[32];
    chronik_record r = CHRONIK_RECORD_INIT;
    snprintf(key, sizeof key, "p%d n%d", (int)partition, n);
    r.key = key, r.key_len = strlen(key), r.value = zeros, r.value_len = sizeof zeros, r.timestamp_ms = 1700000000000 + n;
    int64_t offset = -1;
    ck_assert_msg(chronik_produce_sync(h->node, "kept", partition, &r, 1, &err, &offset) == 0, "%s", err.text);
    ck_assert_int_eq(offset, n);
}

START_TEST(fill) {
    host h = host_start();
    chronik_topic_options o = CHRONIK_TOPIC_OPTIONS_INIT;
    o.partitions = 2;
    ck_assert_int_eq(chronik_topic_create_sync(h.node, "kept", &o, &err), 0);
    for (int n = 0; n < RECORDS / 2; n++)
        for (int p = 0; p < 2; p++) append(&h, p, n);
    host_end(&h);
    h = host_start();
    for (int n = RECORDS / 2; n < RECORDS; n++)
        for (int p = 0; p < 2; p++) append(&h, p, n);
    (void)sleep(2); /* sealed files become packs meanwhile */
    (void)kill(getpid(), SIGKILL);
}
END_TEST

static void check_partition(host *h, int32_t partition, int count) {
    int64_t next = 0;
    while (next < count) {
        chronik_event *e;
        chronik_record r = CHRONIK_RECORD_INIT;
        ck_assert_msg(chronik_fetch_sync(h->node, "kept", partition, next, NULL, &err, &e) == 0, "%s", err.text);
        int64_t before = next;
        for (; chronik_event_record(e, &r) == 1; next++) {
            char key[32];
            snprintf(key, sizeof key, "p%d n%d", (int)partition, (int)next);
            ck_assert_int_eq(r.offset, next);
            ck_assert_int_eq(r.timestamp_ms, 1700000000000 + next);
            ck_assert_uint_eq(r.key_len, strlen(key));
            ck_assert_int_eq(memcmp(r.key, key, r.key_len), 0);
            ck_assert_uint_eq(r.value_len, VALUE_BYTES);
        }
        chronik_event_free(e);
        ck_assert_int_gt(next, before);
    }
    ck_assert_int_eq(next, count);
}

/* ---- from text to a directory ---- */

static unsigned nibble(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10); }

static void put_bytes(FILE *f, char *line) {
    uint8_t bytes[LINE_BYTES / 2];
    char *hex = strchr(line, ' ') + 1;
    size_t n = strcspn(hex, "\n") / 2;
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    ck_assert_int_eq(fseek(f, strtol(line, NULL, 10), SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
}

static void build(const char *text) {
    char line[LINE_BYTES], name[200], path[400];
    long size;
    const char *from = getenv("CNK_ROOT");
    snprintf(path, sizeof path, "%s/%s", from ? from : ".", text);
    FILE *in = fopen(path, "r"), *f = NULL;
    ck_assert_msg(in != NULL, "%s is missing", path);
    ck_assert_int_eq(mkdir(dir, 0750), 0);
    while (fgets(line, sizeof line, in)) {
        if (line[0] == '#') continue;
        if (sscanf(line, "dir %199s", name) == 1) {
            snprintf(path, sizeof path, "%s/%s", dir, name);
            ck_assert_int_eq(mkdir(path, 0750), 0);
        } else if (sscanf(line, "file %199s %ld", name, &size) == 2) {
            snprintf(path, sizeof path, "%s/%s", dir, name);
            if (f) fclose(f);
            f = fopen(path, "w");
            ck_assert_ptr_nonnull(f);
            ck_assert_int_eq(ftruncate(fileno(f), size), 0);
        } else {
            put_bytes(f, line);
        }
    }
    if (f) fclose(f);
    fclose(in);
}

static const char *const versions[] = {"tests/unit/data/directory-1.txt"};

START_TEST(a_directory_of_each_version_opens_and_goes_on) {
    build(versions[_i]);
    for (int round = 0; round < 3; round++) {
        host h = host_start();
        for (int p = 0; p < 2; p++) check_partition(&h, p, RECORDS + round);
        for (int p = 0; p < 2; p++) append(&h, p, RECORDS + round);
        host_end(&h);
    }
}
END_TEST

static const char *made; /* the directory to be made, instead of the tests */

static void setup(void) {
    if (made) {
        snprintf(dir, sizeof dir, "%s", made);
        return;
    }
    root_make();
    snprintf(dir, sizeof dir, "%s/data", root);
}

static void teardown(void) {
    if (!made) root_remove();
}

int main(int argc, char **argv) {
    made = argc == 3 && strcmp(argv[1], "make") == 0 ? argv[2] : NULL;
    Suite *s = suite_create("node_versions");
    TCase *tc = tcase_create("versions");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 0);
    if (made)
        tcase_add_test(tc, fill);
    else
        tcase_add_loop_test(tc, a_directory_of_each_version_opens_and_goes_on, 0,
                            (int)(sizeof versions / sizeof versions[0]));
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
