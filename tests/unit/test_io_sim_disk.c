/* What the simulated disk does to files and names in a crash. The proof of the log rests on it, so each rule of
 * tests/sim/README.md has a test here, in both directions: what must survive does for every seed, and what may be lost
 * is lost for some. */
#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/io.h>

#include "base/rng.h"
#include "sim/disk_sim.h"

enum {
    SEEDS = 300,
    BUFFERED = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE,
    DIRECT = BUFFERED | CHRONIK_OPEN_DIRECT,
    PAGES = 3,
    LEN = PAGES * SIM_PAGE
};

/* libcheck notes each ck_assert, at a cost that grows with their number: the helpers, called a million times, use this. */
#define MUST(e)                                                                                                        \
    do {                                                                                                               \
        if (!(e))                                                                                                      \
            ck_abort_msg("%s:%d: %s", __FILE__, __LINE__, #e);                                                         \
    } while (0)

static sim_disk *disk;

static sim_inode *open_ok(const char *path, unsigned flags) {
    sim_inode *inode = NULL;
    MUST(sim_disk_open(disk, path, flags, &inode) == 0);
    return inode;
}

/* A file filled with one letter, by a handle of its own. */
static void put(const char *path, unsigned flags, char letter, uint64_t pos, size_t len) {
    static uint8_t bytes[64 * SIM_PAGE];
    MUST(len <= sizeof bytes);
    memset(bytes, letter, len);
    sim_inode *inode = open_ok(path, flags);
    struct iovec iov[2] = {{bytes, len / 2 / SIM_PAGE * SIM_PAGE}, {NULL, 0}};
    iov[1] = (struct iovec){bytes + iov[0].iov_len, len - iov[0].iov_len};
    MUST(sim_disk_write(disk, inode, flags & CHRONIK_OPEN_DIRECT, iov, 2, pos) == 0);
    sim_disk_close(disk, inode, flags);
}

static void sync_file(const char *path) {
    sim_inode *inode = open_ok(path, CHRONIK_OPEN_WRITE);
    sim_disk_sync(disk, inode);
    sim_disk_close(disk, inode, CHRONIK_OPEN_WRITE);
}

static void fail_sync(const char *path) {
    sim_inode *inode = open_ok(path, CHRONIK_OPEN_WRITE);
    sim_disk_sync_fail(disk, inode);
    sim_disk_close(disk, inode, CHRONIK_OPEN_WRITE);
}

/* The letter that fills the range; 0: several; '-': not there. Sectors are never mixed within. */
static char letter_at(const char *path, uint64_t pos, size_t len) {
    static uint8_t bytes[64 * SIM_PAGE];
    if (!sim_disk_peek(disk, path, pos, bytes, len))
        return '-';
    char all = (char)bytes[0];
    for (size_t i = 0; i < len; i++) {
        if (i % SIM_SECTOR != 0)
            MUST(bytes[i] == bytes[i - 1]);
        if ((char)bytes[i] != all)
            all = '\0';
    }
    return all;
}

static char letter(const char *path) { return letter_at(path, 0, LEN); }

/* Runs `prepare` and a crash for many seeds, and counts what is then seen in `path`. */
typedef struct outcome {
    int of[256]; /* by letter(path) */
} outcome;

static outcome outcomes(void (*prepare)(void), const sim_crash *crashes, int crash_count, char (*look)(void)) {
    outcome o = {{0}};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        disk = sim_disk_new(seed, NULL);
        prepare();
        for (int i = 0; i < crash_count; i++)
            sim_disk_crash(disk, crashes[i]);
        o.of[(unsigned char)look()]++;
        sim_disk_free(disk);
    }
    return o;
}

static const sim_crash process_only[] = {SIM_CRASH_PROCESS}, power_only[] = {SIM_CRASH_POWER};
static const sim_crash both[] = {SIM_CRASH_PROCESS, SIM_CRASH_POWER};

static char look_f(void) { return letter("f"); }

/* ---- data ------------------------------------------------------------------------------------------------------- */

static void durable_a(void) {
    put("f", BUFFERED, 'a', 0, LEN);
    sync_file("f");
    MUST(sim_disk_sync_dir(disk, "/") == 0);
}

static void synced_direct(void) {
    durable_a();
    put("f", DIRECT, 'b', 0, LEN);
    sync_file("f");
}

static void synced_buffered(void) {
    durable_a();
    put("f", BUFFERED, 'b', 0, LEN);
    sync_file("f");
}

START_TEST(what_is_synced_survives) {
    ck_assert_int_eq(outcomes(durable_a, both, 2, look_f).of['a'], SEEDS);
    ck_assert_int_eq(outcomes(synced_direct, power_only, 1, look_f).of['b'], SEEDS);
    ck_assert_int_eq(outcomes(synced_buffered, both, 2, look_f).of['b'], SEEDS);
}
END_TEST

static void unsynced_direct(void) {
    durable_a();
    put("f", DIRECT, 'b', 0, LEN);
}

static void unsynced_buffered(void) {
    durable_a();
    put("f", BUFFERED, 'b', 0, LEN);
}

START_TEST(what_is_not_synced_survives_a_process_only) {
    void (*const prepare[])(void) = {unsynced_direct, unsynced_buffered};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(outcomes(prepare[i], process_only, 1, look_f).of['b'], SEEDS);
        outcome o = outcomes(prepare[i], both, 2, look_f);
        ck_assert_int_gt(o.of['a'], SEEDS / 20); /* lost */
        ck_assert_int_gt(o.of['b'], SEEDS / 20); /* kept all the same */
        ck_assert_int_gt(o.of[0], SEEDS / 4);    /* torn */
        ck_assert_int_eq(o.of['a'] + o.of['b'] + o.of[0], SEEDS);
    }
}
END_TEST

/* Tears are of sectors, of pages, and of the order of writing. */
START_TEST(tears_come_in_all_kinds) {
    int by_sector = 0, by_page = 0, hole = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        disk = sim_disk_new(seed, NULL);
        unsynced_direct();
        sim_disk_crash(disk, SIM_CRASH_POWER);
        char p[PAGES];
        for (int i = 0; i < PAGES; i++)
            p[i] = letter_at("f", (uint64_t)i * SIM_PAGE, SIM_PAGE);
        by_sector += p[0] == 0 || p[1] == 0 || p[2] == 0;
        by_page += p[0] && p[1] && p[2] && (p[0] != p[1] || p[1] != p[2]);
        hole += p[0] == 'a' && p[2] == 'b'; /* a later write is there, an earlier one is not */
        sim_disk_free(disk);
    }
    ck_assert_int_gt(by_sector, 10);
    ck_assert_int_gt(by_page, 10);
    ck_assert_int_gt(hole, 5);
}
END_TEST

static void two_versions(void) {
    durable_a();
    put("f", DIRECT, 'b', 0, LEN);
    put("f", DIRECT, 'c', 0, LEN);
}

static char look_for_b(void) {
    static uint8_t bytes[LEN];
    MUST(sim_disk_peek(disk, "f", 0, bytes, LEN));
    return memchr(bytes, 'b', LEN) ? 'y' : 'n';
}

START_TEST(an_older_unsynced_version_may_be_what_is_left) {
    outcome o = outcomes(two_versions, power_only, 1, look_for_b);
    ck_assert_int_gt(o.of['y'], SEEDS / 20);
    ck_assert_int_gt(o.of['n'], SEEDS / 20);
}
END_TEST

/* Recovery that trusts the page cache and does not sync it loses it in the next power failure (S4). */
static void recovered_tail(void) {
    unsynced_buffered();
    sim_disk_crash(disk, SIM_CRASH_PROCESS);
    MUST(letter("f") == 'b');
}

static void recovered_and_synced(void) {
    recovered_tail();
    sync_file("f");
}

START_TEST(a_recovered_tail_wants_a_sync) {
    ck_assert_int_gt(outcomes(recovered_tail, power_only, 1, look_f).of['a'], 0);
    ck_assert_int_eq(outcomes(recovered_and_synced, power_only, 1, look_f).of['b'], SEEDS);
}
END_TEST

/* ---- failed syncs ----------------------------------------------------------------------------------------------- */

static void sync_fails_then_succeeds(void) {
    unsynced_buffered();
    fail_sync("f");
    MUST(letter("f") == 'b'); /* reads show the new data */
    sync_file("f");
    MUST(letter("f") == 'b');
}

static void direct_sync_fails_then_succeeds(void) {
    unsynced_direct();
    fail_sync("f");
    sync_file("f");
}

/* What a direct read shows, once a later sync has succeeded, is durable, even after a failed one (S4). */
static void direct_reads_are_true(void (*prepare)(void)) {
    static uint8_t before[LEN], after[LEN];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        disk = sim_disk_new(seed, NULL);
        prepare();
        sim_disk_crash(disk, SIM_CRASH_PROCESS);
        sim_inode *inode = open_ok("f", CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT);
        MUST(sim_disk_read(disk, inode, true, before, LEN, 0) == LEN);
        sim_disk_sync(disk, inode);
        sim_disk_crash(disk, SIM_CRASH_POWER);
        MUST(sim_disk_peek(disk, "f", 0, after, LEN));
        MUST(memcmp(before, after, LEN) == 0);
        sim_disk_free(disk);
    }
}

START_TEST(a_failed_sync_is_final) {
    outcome o = outcomes(sync_fails_then_succeeds, power_only, 1, look_f);
    ck_assert_int_gt(o.of['a'], 0);
    ck_assert_int_gt(o.of[0], 0);
    o = outcomes(direct_sync_fails_then_succeeds, power_only, 1, look_f);
    ck_assert_int_gt(o.of['a'] + o.of[0], 0);
    ck_assert_int_gt(o.of[0], 0);
    direct_reads_are_true(sync_fails_then_succeeds);
    direct_reads_are_true(direct_sync_fails_then_succeeds);
    /* Even without a crash the page cache may drop what it holds as clean; a direct read sees the truth at once. */
    o = outcomes(sync_fails_then_succeeds, process_only, 1, look_f);
    ck_assert_int_gt(o.of['b'], 0);
    ck_assert_int_gt(o.of['a'], 0);
    int stale = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        disk = sim_disk_new(seed, NULL);
        sync_fails_then_succeeds();
        static uint8_t bytes[LEN];
        sim_inode *inode = open_ok("f", CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT);
        MUST(sim_disk_read(disk, inode, true, bytes, LEN, 0) == LEN);
        stale += memchr(bytes, 'a', LEN) != NULL;
        sim_disk_close(disk, inode, CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT);
        sim_disk_free(disk);
    }
    ck_assert_int_gt(stale, 0);
}
END_TEST

static void written_again_after_failure(void) {
    sync_fails_then_succeeds();
    put("f", BUFFERED, 'c', 0, LEN);
    sync_file("f");
}

START_TEST(new_writes_after_a_failed_sync_are_durable) {
    ck_assert_int_eq(outcomes(written_again_after_failure, power_only, 1, look_f).of['c'], SEEDS);
}
END_TEST

/* ---- sizes ------------------------------------------------------------------------------------------------------ */

static char look_size(void) {
    int64_t size = sim_disk_size(disk, "f");
    return size < 0 ? '-' : size == LEN ? 'o' : size == 2 * LEN ? 'n' : 'm';
}

static void extended(void) {
    durable_a();
    put("f", BUFFERED, 'b', LEN, LEN);
}

static void extended_and_synced(void) {
    extended();
    sync_file("f");
}

static void allocated(void) {
    durable_a();
    sim_inode *inode = open_ok("f", CHRONIK_OPEN_WRITE);
    MUST(sim_disk_allocate(disk, inode, 2 * LEN) == 0);
    sim_disk_close(disk, inode, CHRONIK_OPEN_WRITE);
    MUST(letter_at("f", LEN, LEN) == '\0');
}

START_TEST(a_sync_brings_the_size) {
    outcome o = outcomes(extended, power_only, 1, look_size);
    ck_assert_int_gt(o.of['o'], 0);
    ck_assert_int_gt(o.of['n'], 0);
    ck_assert_int_gt(o.of['m'], 0);
    ck_assert_int_eq(o.of['-'], 0);
    o = outcomes(extended_and_synced, power_only, 1, look_size);
    ck_assert_int_eq(o.of['n'], SEEDS);
    o = outcomes(allocated, power_only, 1, look_size);
    ck_assert_int_gt(o.of['o'], 0);
    ck_assert_int_gt(o.of['n'], 0);
}
END_TEST

static void cut(void) {
    durable_a();
    sim_inode *inode = open_ok("f", CHRONIK_OPEN_WRITE);
    MUST(sim_disk_truncate(disk, inode, SIM_PAGE) == 0);
    MUST(sim_disk_truncate(disk, inode, LEN) == 0);
    sim_disk_close(disk, inode, CHRONIK_OPEN_WRITE);
    MUST(letter_at("f", 0, SIM_PAGE) == 'a');
    MUST(letter_at("f", SIM_PAGE, LEN - SIM_PAGE) == '\0');
    uint8_t byte = 1;
    MUST(sim_disk_peek(disk, "f", LEN - 1, &byte, 1));
    MUST(byte == 0);
}

static char look_cut(void) {
    int64_t size = sim_disk_size(disk, "f");
    MUST(letter_at("f", 0, SIM_PAGE) == 'a');
    if (size == SIM_PAGE)
        return 'c';
    MUST(size == LEN);
    uint8_t bytes[LEN - SIM_PAGE];
    MUST(sim_disk_peek(disk, "f", SIM_PAGE, bytes, sizeof bytes));
    for (size_t i = 1; i < sizeof bytes; i++)
        MUST(bytes[i] == bytes[0]);
    return bytes[0] == 'a' ? 'a' : bytes[0] == 0 ? 'z' : '?';
}

START_TEST(a_truncation_is_lost_or_done_in_order) {
    outcome o = outcomes(cut, power_only, 1, look_cut);
    ck_assert_int_gt(o.of['a'], 0); /* not done: the old data is back */
    ck_assert_int_gt(o.of['c'], 0); /* cut, and not grown again */
    ck_assert_int_gt(o.of['z'], 0); /* both */
    ck_assert_int_eq(o.of['a'] + o.of['c'] + o.of['z'], SEEDS);
}
END_TEST

/* ---- names ------------------------------------------------------------------------------------------------------ */

static void new_file(void) {
    put("f", BUFFERED, 'a', 0, LEN);
    sync_file("f");
}

static void new_file_and_name(void) {
    new_file();
    MUST(sim_disk_sync_dir(disk, "/") == 0);
}

START_TEST(a_name_wants_its_directory_synced) {
    outcome o = outcomes(new_file, power_only, 1, look_f);
    ck_assert_int_gt(o.of['-'], 0);
    ck_assert_int_gt(o.of['a'], 0);
    ck_assert_int_eq(o.of['a'] + o.of['-'], SEEDS);
    ck_assert_int_eq(outcomes(new_file, process_only, 1, look_f).of['a'], SEEDS);
    ck_assert_int_eq(outcomes(new_file_and_name, power_only, 1, look_f).of['a'], SEEDS);
}
END_TEST

static void replaced(void) {
    durable_a();
    put("g", BUFFERED, 'b', 0, LEN);
    sync_file("g");
    MUST(sim_disk_sync_dir(disk, "") == 0);
    MUST(sim_disk_rename(disk, "g", "f") == 0);
    MUST(letter("f") == 'b');
    MUST(letter("g") == '-');
}

static void replaced_and_synced(void) {
    replaced();
    MUST(sim_disk_sync_dir(disk, ".") == 0);
}

static char look_replaced(void) {
    char f = letter("f"), g = letter("g");
    ck_assert((f == 'a' && g == 'b') || (f == 'b' && g == '-')); /* atomic */
    return f;
}

START_TEST(a_rename_is_atomic_and_may_be_lost) {
    outcome o = outcomes(replaced, power_only, 1, look_replaced);
    ck_assert_int_gt(o.of['a'], 0);
    ck_assert_int_gt(o.of['b'], 0);
    ck_assert_int_eq(outcomes(replaced_and_synced, both, 2, look_replaced).of['b'], SEEDS);
}
END_TEST

/* A rename without a sync of the data before it: the new name with nothing, or a part, behind it. */
static void renamed_unsynced(void) {
    durable_a();
    put("g", BUFFERED, 'b', 0, LEN);
    MUST(sim_disk_rename(disk, "g", "f") == 0);
    MUST(sim_disk_sync_dir(disk, "/") == 0);
}

static char look_renamed_unsynced(void) {
    int64_t size = sim_disk_size(disk, "f");
    return size == LEN && letter("f") == 'b' ? 'b' : 'x';
}

START_TEST(a_rename_does_not_sync_the_data) {
    outcome o = outcomes(renamed_unsynced, power_only, 1, look_renamed_unsynced);
    ck_assert_int_gt(o.of['x'], SEEDS / 4);
}
END_TEST

static void two_renames(void) {
    put("a1", BUFFERED, 'a', 0, LEN);
    put("b1", BUFFERED, 'b', 0, LEN);
    sync_file("a1");
    sync_file("b1");
    MUST(sim_disk_sync_dir(disk, "/") == 0);
    MUST(sim_disk_rename(disk, "a1", "a2") == 0);
    MUST(sim_disk_rename(disk, "b1", "b2") == 0);
}

static char look_order(void) {
    bool first = sim_disk_exists(disk, "a2"), second = sim_disk_exists(disk, "b2");
    MUST(sim_disk_exists(disk, "a1") != first);
    MUST(sim_disk_exists(disk, "b1") != second);
    return first ? (second ? 'B' : '1') : (second ? '2' : '0');
}

START_TEST(independent_renames_are_reordered) {
    outcome o = outcomes(two_renames, power_only, 1, look_order);
    ck_assert_int_gt(o.of['0'], 0);
    ck_assert_int_gt(o.of['1'], 0);
    ck_assert_int_gt(o.of['2'], 0); /* the second without the first */
    ck_assert_int_gt(o.of['B'], 0);
}
END_TEST

/* Operations on the same name keep their order: created, moved over f, and another one created in the old place. */
static void chain(void) {
    durable_a();
    put("g", BUFFERED, 'b', 0, LEN);
    sync_file("g");
    MUST(sim_disk_rename(disk, "g", "f") == 0);
    put("g", BUFFERED, 'c', 0, LEN);
    sync_file("g");
}

static char look_chain(void) {
    char f = letter("f"), g = letter("g");
    if (f == 'a')
        MUST(g == '-' || g == 'b');
    else
        MUST(f == 'b' && (g == '-' || g == 'c'));
    return f == 'a' ? (g == '-' ? '0' : '1') : (g == '-' ? '2' : '3');
}

START_TEST(operations_on_one_name_keep_their_order) {
    outcome o = outcomes(chain, power_only, 1, look_chain);
    for (int i = '0'; i <= '3'; i++)
        ck_assert_int_gt(o.of[i], 0);
}
END_TEST

static void unlinked(void) {
    durable_a();
    MUST(sim_disk_unlink(disk, "f") == 0);
    MUST(letter("f") == '-');
}

static void unlinked_and_synced(void) {
    unlinked();
    MUST(sim_disk_sync_dir(disk, "/") == 0);
}

START_TEST(a_deleted_file_may_come_back) {
    outcome o = outcomes(unlinked, power_only, 1, look_f);
    ck_assert_int_gt(o.of['a'], 0);
    ck_assert_int_gt(o.of['-'], 0);
    ck_assert_int_eq(o.of['a'] + o.of['-'], SEEDS);
    ck_assert_int_eq(outcomes(unlinked_and_synced, power_only, 1, look_f).of['-'], SEEDS);
}
END_TEST

static void in_new_dir(void) {
    MUST(sim_disk_mkdir(disk, "d") == 0);
    put("d/f", BUFFERED, 'a', 0, LEN);
    sync_file("d/f");
    MUST(sim_disk_sync_dir(disk, "d") == 0);
}

static void in_durable_dir(void) {
    in_new_dir();
    MUST(sim_disk_sync_dir(disk, "/") == 0);
}

static char look_d(void) { return letter("d/f"); }

START_TEST(a_directory_has_a_name_too) {
    outcome o = outcomes(in_new_dir, power_only, 1, look_d);
    ck_assert_int_gt(o.of['-'], 0);
    ck_assert_int_gt(o.of['a'], 0);
    ck_assert_int_eq(outcomes(in_durable_dir, power_only, 1, look_d).of['a'], SEEDS);
}
END_TEST

static void across(void) {
    MUST(sim_disk_mkdir(disk, "d") == 0);
    durable_a();
    MUST(sim_disk_rename(disk, "f", "d/f") == 0);
    MUST(sim_disk_sync_dir(disk, "d") == 0);
}

START_TEST(syncing_either_directory_of_a_rename_will_do) {
    ck_assert_int_eq(outcomes(across, power_only, 1, look_d).of['a'], SEEDS);
    ck_assert_int_eq(outcomes(across, power_only, 1, look_f).of['-'], SEEDS);
}
END_TEST

static void dir_sync_fails(void) {
    new_file();
    sim_disk_sync_dir_fail(disk, "/");
    MUST(sim_disk_sync_dir(disk, "/") == 0);
    MUST(letter("f") == 'a');
}

START_TEST(a_failed_directory_sync_is_final) {
    outcome o = outcomes(dir_sync_fails, power_only, 1, look_f);
    ck_assert_int_gt(o.of['-'], 0);
    ck_assert_int_gt(o.of['a'], 0);
}
END_TEST

START_TEST(names_obey_their_rules) {
    disk = sim_disk_new(1, NULL);
    sim_inode *inode = NULL;
    ck_assert_int_eq(sim_disk_open(disk, "f", CHRONIK_OPEN_READ, &inode), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(sim_disk_open(disk, "no/f", BUFFERED, &inode), CHRONIK_ENOTFOUND);
    put("f", BUFFERED, 'a', 0, LEN);
    ck_assert_int_eq(sim_disk_open(disk, "f", BUFFERED | CHRONIK_OPEN_EXCL, &inode), CHRONIK_EEXIST);
    ck_assert_ptr_null(inode);
    ck_assert_int_eq(sim_disk_unlink(disk, "g"), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(sim_disk_rename(disk, "g", "h"), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(sim_disk_mkdir(disk, "d"), 0);
    ck_assert_int_eq(sim_disk_mkdir(disk, "/d/"), CHRONIK_EEXIST);
    ck_assert_int_eq(sim_disk_mkdir(disk, "d/e/f"), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(sim_disk_sync_dir(disk, "f"), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(sim_disk_unlink(disk, "d"), CHRONIK_EIO);
    char **names = NULL;
    ck_assert_int_eq(sim_disk_list(disk, "/", &names), 0);
    ck_assert((strcmp(names[0], "d") == 0) != (strcmp(names[1], "d") == 0));
    ck_assert_ptr_null(names[2]);
    free(names[0]);
    free(names[1]);
    free(names);
    ck_assert_int_eq(sim_disk_list(disk, "f", &names), CHRONIK_ENOTFOUND);

    /* An open file lives without a name; a lock ends with its handle or its process. */
    inode = open_ok("f", CHRONIK_OPEN_READ);
    ck_assert_int_eq(sim_disk_unlink(disk, "f"), 0);
    ck_assert_int_eq(sim_disk_sync_dir(disk, "/"), 0);
    char byte = 0;
    ck_assert_uint_eq(sim_disk_read(disk, inode, false, &byte, 1, 0), 1);
    ck_assert_int_eq(byte, 'a');
    sim_disk_close(disk, inode, CHRONIK_OPEN_READ);
    inode = open_ok("lock", BUFFERED);
    ck_assert_int_eq(sim_disk_lock(disk, inode), 0);
    ck_assert_int_eq(sim_disk_lock(disk, inode), CHRONIK_EBUSY);
    sim_disk_close(disk, inode, BUFFERED | SIM_OPEN_LOCK);
    inode = open_ok("lock", BUFFERED);
    ck_assert_int_eq(sim_disk_lock(disk, inode), 0);
    sim_disk_crash(disk, SIM_CRASH_PROCESS);
    inode = open_ok("lock", BUFFERED);
    ck_assert_int_eq(sim_disk_lock(disk, inode), 0);
    sim_disk_close(disk, inode, BUFFERED);
    sim_disk_free(disk);
}
END_TEST

/* ---- space, layers, looking ------------------------------------------------------------------------------------- */

START_TEST(space_runs_out_and_comes_back) {
    disk = sim_disk_new(1, &(sim_disk_options){10 * SIM_PAGE, false});
    put("f", BUFFERED, 'a', 0, 6 * SIM_PAGE);
    sim_inode *inode = open_ok("g", BUFFERED);
    ck_assert_uint_eq(sim_disk_space_free(disk), 4 * SIM_PAGE);
    ck_assert_int_eq(sim_disk_allocate(disk, inode, 5 * SIM_PAGE), CHRONIK_ENOSPC);
    ck_assert_uint_eq(sim_disk_inode_size(inode), 0);
    ck_assert_int_eq(sim_disk_allocate(disk, inode, 4 * SIM_PAGE), 0);
    put("f", BUFFERED, 'b', 0, 6 * SIM_PAGE); /* overwriting takes nothing */
    put("g", DIRECT, 'b', 0, 4 * SIM_PAGE);   /* nor does what is reserved */
    struct iovec iov = {(char[]){"x"}, 1};
    ck_assert_int_eq(sim_disk_write(disk, inode, false, &iov, 1, 4 * SIM_PAGE), CHRONIK_ENOSPC);
    ck_assert_int_eq(sim_disk_truncate(disk, inode, SIM_PAGE), 0);
    ck_assert_uint_eq(sim_disk_space_free(disk), 3 * SIM_PAGE);
    ck_assert_int_eq(sim_disk_unlink(disk, "g"), 0);
    ck_assert_uint_eq(sim_disk_space_free(disk), 3 * SIM_PAGE); /* still open */
    sim_disk_close(disk, inode, BUFFERED);
    ck_assert_uint_eq(sim_disk_space_free(disk), 4 * SIM_PAGE);
    sim_disk_space_set(disk, 20 * SIM_PAGE);
    ck_assert_uint_eq(sim_disk_space_free(disk), 14 * SIM_PAGE);
    sim_disk_free(disk);
}
END_TEST

START_TEST(direct_and_buffered_see_each_other) {
    disk = sim_disk_new(1, NULL);
    static uint8_t bytes[LEN];
    put("f", BUFFERED, 'a', 0, LEN);
    sim_inode *inode = open_ok("f", DIRECT);
    ck_assert_uint_eq(sim_disk_read(disk, inode, true, bytes, LEN, 0), LEN);
    ck_assert_uint_eq(bytes[LEN - 1], 'a');
    put("f", DIRECT, 'b', SIM_PAGE, SIM_PAGE);
    ck_assert_uint_eq(sim_disk_mixed_reads(disk), 0);
    ck_assert_uint_eq(sim_disk_read(disk, inode, false, bytes, LEN, 0), LEN);
    ck_assert_uint_eq(bytes[SIM_PAGE], 'b');
    ck_assert_uint_eq(sim_disk_mixed_reads(disk), 1); /* a direct writer is open */
    put("f", BUFFERED, 'c', SIM_PAGE + 5, 10);
    ck_assert_uint_eq(sim_disk_read(disk, inode, true, bytes, SIM_PAGE, SIM_PAGE), SIM_PAGE);
    ck_assert_mem_eq(bytes, "bbbbbccccccccccb", 16);
    ck_assert_uint_eq(sim_disk_read(disk, inode, true, bytes, LEN, LEN - 100), 100);
    ck_assert_uint_eq(sim_disk_read(disk, inode, true, bytes, LEN, LEN), 0);
    sim_disk_close(disk, inode, DIRECT);
    sim_disk_free(disk);
}
END_TEST

static void check_path(void *arg, const char *path, uint64_t size) {
    int *seen = arg;
    static const char *const want[] = {"d/a", "d/b", "f"};
    ck_assert_str_eq(path, want[*seen]);
    MUST(size == LEN);
    (*seen)++;
}

START_TEST(a_test_can_look_and_meddle) {
    disk = sim_disk_new(1, NULL);
    ck_assert_int_eq(sim_disk_mkdir(disk, "d"), 0);
    put("d/b", BUFFERED, 'b', 0, LEN);
    put("f", BUFFERED, 'f', 0, LEN);
    put("d/a", BUFFERED, 'a', 0, LEN);
    int seen = 0;
    sim_disk_each(disk, check_path, &seen);
    ck_assert_int_eq(seen, 3);
    ck_assert(!sim_disk_durable(disk, "f", 0, LEN));
    sync_file("f");
    ck_assert(!sim_disk_durable(disk, "f", 0, LEN)); /* the name is not */
    ck_assert_int_eq(sim_disk_sync_dir(disk, "/"), 0);
    ck_assert(sim_disk_durable(disk, "f", 0, LEN));
    ck_assert(!sim_disk_durable(disk, "f", 0, LEN + 1));
    ck_assert(!sim_disk_durable(disk, "d/a", 0, 1));
    put("f", DIRECT, 'g', SIM_PAGE, SIM_PAGE);
    ck_assert(sim_disk_durable(disk, "f", 0, SIM_PAGE));
    ck_assert(!sim_disk_durable(disk, "f", SIM_PAGE - 1, 2));
    sync_file("f");
    ck_assert(sim_disk_flip(disk, "f", SIM_PAGE + 7, 0));
    ck_assert(!sim_disk_flip(disk, "f", LEN, 0));
    sim_disk_crash(disk, SIM_CRASH_POWER);
    uint8_t byte = 0;
    ck_assert(sim_disk_peek(disk, "f", SIM_PAGE + 7, &byte, 1));
    ck_assert_uint_eq(byte, 'g' ^ 1);
    sim_disk_free(disk);
}
END_TEST

START_TEST(a_clone_goes_its_own_way) {
    disk = sim_disk_new(5, NULL);
    two_versions();
    put("new", BUFFERED, 'n', 0, LEN);
    ck_assert_int_eq(sim_disk_rename(disk, "new", "newer"), 0);
    sim_disk *first = disk;
    int lost = 0, kept = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        disk = sim_disk_clone(first, seed);
        ck_assert_int_eq(letter("f"), 'c');
        ck_assert_int_eq(letter("newer"), 'n');
        sim_disk_crash(disk, SIM_CRASH_POWER);
        lost += letter("f") != 'c';
        kept += sim_disk_exists(disk, "newer");
        sim_disk_free(disk);
    }
    ck_assert_int_gt(lost, 0);
    ck_assert_int_gt(kept, 0);
    disk = first;
    ck_assert_int_eq(letter("f"), 'c');
    sim_disk_free(disk);
}
END_TEST

/* ---- a random history -------------------------------------------------------------------------------------------- */

enum { FILES = 4, FILE_PAGES = 4 };
static const char *const paths[FILES] = {"a", "b", "d/c", "d/e"};

static void random_op(cnk_rng *rng, unsigned flags) {
    const char *path = paths[cnk_rng_below(rng, FILES)], *other = paths[cnk_rng_below(rng, FILES)];
    bool there = sim_disk_exists(disk, path);
    switch (cnk_rng_below(rng, 12)) {
    case 0:
        sim_disk_sync_dir(disk, cnk_rng_chance(rng, 1, 2) ? "/" : "d");
        break;
    case 1:
        if (there)
            MUST(sim_disk_rename(disk, path, other) == 0);
        break;
    case 2:
        if (there && cnk_rng_chance(rng, 1, 3))
            MUST(sim_disk_unlink(disk, path) == 0);
        break;
    case 3:
    case 4:
        if (there)
            sync_file(path);
        break;
    case 5:
        if (there && cnk_rng_chance(rng, 1, 4))
            fail_sync(path);
        break;
    case 6:
        if (there) {
            sim_inode *inode = open_ok(path, CHRONIK_OPEN_WRITE);
            sim_disk_truncate(disk, inode, cnk_rng_below(rng, FILE_PAGES + 1) * SIM_PAGE);
            sim_disk_close(disk, inode, CHRONIK_OPEN_WRITE);
        }
        break;
    default:
        put(path, flags, (char)cnk_rng_between(rng, 'a', 'z'), cnk_rng_below(rng, FILE_PAGES) * SIM_PAGE, SIM_PAGE);
    }
}

/* What sim_disk_durable promises holds after any crash; and after a crash all that is there is durable. */
START_TEST(what_is_called_durable_is) {
    int promised = 0, broken = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        disk = sim_disk_new(seed, NULL);
        cnk_rng rng;
        cnk_rng_seed(&rng, ~seed);
        MUST(sim_disk_mkdir(disk, "d") == 0);
        for (uint64_t n = cnk_rng_below(&rng, 60); n > 0; n--) {
            random_op(&rng, cnk_rng_chance(&rng, 1, 2) ? BUFFERED : DIRECT);
            if (cnk_rng_chance(&rng, 1, 20))
                sim_disk_crash(disk, SIM_CRASH_PROCESS);
        }
        char seen[FILES][FILE_PAGES];
        bool durable[FILES][FILE_PAGES];
        for (int f = 0; f < FILES; f++)
            for (uint64_t p = 0; p < FILE_PAGES; p++) {
                seen[f][p] = letter_at(paths[f], p * SIM_PAGE, SIM_PAGE);
                durable[f][p] = sim_disk_durable(disk, paths[f], p * SIM_PAGE, SIM_PAGE);
            }
        sim_disk_crash(disk, SIM_CRASH_POWER);
        for (int f = 0; f < FILES; f++)
            for (uint64_t p = 0; p < FILE_PAGES; p++) {
                char now = letter_at(paths[f], p * SIM_PAGE, SIM_PAGE);
                if (durable[f][p]) {
                    if (now != seen[f][p])
                        ck_abort_msg("seed %d: %s page %d was durable", (int)seed, paths[f], (int)p);
                    promised++;
                } else {
                    broken += now != seen[f][p];
                }
                if (now != '-')
                    MUST(sim_disk_durable(disk, paths[f], p * SIM_PAGE, SIM_PAGE));
            }
        sim_disk_free(disk);
    }
    ck_assert_int_gt(promised, 500);
    ck_assert_int_gt(broken, 500);
}
END_TEST

static uint64_t history_hash(uint64_t seed) {
    disk = sim_disk_new(seed, NULL);
    cnk_rng rng;
    cnk_rng_seed(&rng, 99);
    MUST(sim_disk_mkdir(disk, "d") == 0);
    for (int i = 0; i < 100; i++)
        random_op(&rng, BUFFERED);
    sim_disk_crash(disk, SIM_CRASH_POWER);
    uint64_t hash = sim_disk_hash(disk);
    sim_disk_free(disk);
    return hash;
}

START_TEST(the_same_seed_gives_the_same_disk) {
    ck_assert_uint_eq(history_hash(1), history_hash(1));
    ck_assert_uint_ne(history_hash(1), history_hash(2));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("io_sim_disk");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, what_is_synced_survives);
    tcase_add_test(t, what_is_not_synced_survives_a_process_only);
    tcase_add_test(t, tears_come_in_all_kinds);
    tcase_add_test(t, an_older_unsynced_version_may_be_what_is_left);
    tcase_add_test(t, a_recovered_tail_wants_a_sync);
    tcase_add_test(t, a_failed_sync_is_final);
    tcase_add_test(t, new_writes_after_a_failed_sync_are_durable);
    tcase_add_test(t, a_sync_brings_the_size);
    tcase_add_test(t, a_truncation_is_lost_or_done_in_order);
    tcase_add_test(t, a_name_wants_its_directory_synced);
    tcase_add_test(t, a_rename_is_atomic_and_may_be_lost);
    tcase_add_test(t, a_rename_does_not_sync_the_data);
    tcase_add_test(t, independent_renames_are_reordered);
    tcase_add_test(t, operations_on_one_name_keep_their_order);
    tcase_add_test(t, a_deleted_file_may_come_back);
    tcase_add_test(t, a_directory_has_a_name_too);
    tcase_add_test(t, syncing_either_directory_of_a_rename_will_do);
    tcase_add_test(t, a_failed_directory_sync_is_final);
    tcase_add_test(t, names_obey_their_rules);
    tcase_add_test(t, space_runs_out_and_comes_back);
    tcase_add_test(t, direct_and_buffered_see_each_other);
    tcase_add_test(t, a_test_can_look_and_meddle);
    tcase_add_test(t, a_clone_goes_its_own_way);
    tcase_add_test(t, what_is_called_durable_is);
    tcase_add_test(t, the_same_seed_gives_the_same_disk);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
