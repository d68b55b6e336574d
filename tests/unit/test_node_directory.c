/* node: the data directory: made, locked, identified, and refused where it is not what it should be. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "node/internal.h"

static char root[64], dir[128];
static chronik_io *io;
static chronik_error err;

static void setup(void) {
    strcpy(root, "/tmp/chronik-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    snprintf(dir, sizeof dir, "%s/a/b/c", root);
    memset(&err, 0, sizeof err);
    ck_assert_int_eq(chronik_io_posix_new(NULL, &err, &io), 0);
}

static void teardown(void) {
    char command[160];
    chronik_io_posix_free(io);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

static int take(int32_t node_id, cnk_identity *id) {
    chronik_file *lock;
    int rc = cnk_directory_take(io, dir, node_id, &err, &lock, id);
    if (!rc) io->disk_ops->close(io->disk, lock);
    return rc;
}

static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void get(const char *name, char *buf, size_t size) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    buf[fread(buf, 1, size - 1, f)] = '\0';
    fclose(f);
}

START_TEST(it_is_made_and_found_again) {
    cnk_identity a, b, c;
    ck_assert_msg(take(-1, &a) == 0, "%s", err.text);
    ck_assert_int_eq(a.node_id, 1);
    ck_assert(!cnk_uuid_is_zero(&a.directory_id) && !cnk_uuid_is_zero(&a.cluster_id));
    ck_assert(!cnk_uuid_equal(&a.directory_id, &a.cluster_id));
    ck_assert_int_eq(take(-1, &b), 0);
    ck_assert(cnk_uuid_equal(&a.directory_id, &b.directory_id) && cnk_uuid_equal(&a.cluster_id, &b.cluster_id));
    ck_assert_int_eq(take(1, &c), 0);
    ck_assert_int_eq(take(2, &c), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "belongs to node 1"));
}
END_TEST

START_TEST(only_one_may_have_it) {
    cnk_identity id;
    chronik_file *lock, *other = NULL;
    ck_assert_int_eq(cnk_directory_take(io, dir, 3, &err, &lock, &id), 0);
    ck_assert_int_eq(cnk_directory_take(io, dir, 3, &err, &other, &id), CHRONIK_EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "in use"));
    ck_assert_ptr_null(other);
    io->disk_ops->close(io->disk, lock);
    ck_assert_int_eq(take(3, &id), 0);
}
END_TEST

START_TEST(every_changed_byte_is_noticed) {
    cnk_identity id, was;
    char text[1024];
    ck_assert_int_eq(take(3, &was), 0);
    get("identity", text, sizeof text);
    for (size_t i = 0; text[i]; i++) {
        char old = text[i];
        text[i] ^= 1;
        put("identity", text);
        id = (cnk_identity){0};
        int rc = take(-1, &id);
        /* A digit's case in the checksum's own line may say the same. */
        ck_assert_msg(rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED || (!rc && !memcmp(&id, &was, sizeof id)),
                      "byte %zu: %d", i, rc);
        text[i] = old;
    }
    put("identity", "");
    ck_assert_int_eq(take(-1, &id), CHRONIK_ECORRUPT);
    put("identity", text);
    ck_assert_int_eq(take(-1, &id), 0);
}
END_TEST

START_TEST(data_without_identity_is_refused) {
    cnk_identity id;
    char path[256];
    ck_assert_int_eq(take(3, &id), 0);
    snprintf(path, sizeof path, "%s/identity", dir);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(take(3, &id), 0); /* nothing has been stored yet */
    ck_assert_int_eq(unlink(path), 0);
    snprintf(path, sizeof path, "%s/wal", dir);
    ck_assert_int_eq(mkdir(path, 0777), 0);
    ck_assert_int_eq(take(3, &id), CHRONIK_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "missing"));
}
END_TEST

START_TEST(a_later_version_is_left_alone) {
    cnk_identity id;
    ck_assert_int_eq(take(3, &id), 0);
    const char *text = "chronik-directory=2\nnode.id=3\n";
    char whole[256];
    uint32_t cnk_crc32c(uint32_t crc, const void *p, size_t len);
    snprintf(whole, sizeof whole, "%scrc32c=%08x\n", text, cnk_crc32c(0, text, strlen(text)));
    put("identity", whole);
    ck_assert_int_eq(take(3, &id), CHRONIK_EUNSUPPORTED);
}
END_TEST

START_TEST(what_cannot_be_a_directory_is_refused) {
    cnk_identity id;
    snprintf(dir, sizeof dir, "%s/file", root);
    FILE *f = fopen(dir, "w");
    fclose(f);
    ck_assert_int_lt(take(1, &id), 0);
    ck_assert(err.text[0] != '\0');
}
END_TEST

int main(void) {
    Suite *s = suite_create("node: the data directory");
    TCase *t = tcase_create("directory");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, it_is_made_and_found_again);
    tcase_add_test(t, only_one_may_have_it);
    tcase_add_test(t, every_changed_byte_is_noticed);
    tcase_add_test(t, data_without_identity_is_refused);
    tcase_add_test(t, a_later_version_is_left_alone);
    tcase_add_test(t, what_cannot_be_a_directory_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
