/* The disk that forgets: what a killed process had not synced is not there afterwards, and what it had is. */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/mem.h"
#include "base/rng.h"
#include "io/lossy_state.h"
#include "sim/io_sim.h"

enum { RW = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE, MAKE = RW | CHRONIK_OPEN_CREATE };

static char root[64];
static chronik_io *posix, *io;
static const chronik_disk_ops *d;

static const char *at(const char *name) {
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static void setup(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/chronik-lossy-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(root));
    ck_assert_int_eq(chronik_io_posix_new(NULL, NULL, &posix), 0);
    ck_assert_int_eq(cnk_lossy_new(posix, 0, NULL, &io), 0);
    d = io->disk_ops;
}

static void teardown(void) {
    cnk_lossy_free(io);
    chronik_io_posix_free(posix);
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

static chronik_file *open_ok(const char *name, unsigned flags) {
    chronik_file *file = NULL;
    chronik_error error = CHRONIK_ERROR_INIT;
    int rc = d->open(io->disk, at(name), flags, &error, &file);
    if (rc < 0) {
        fprintf(stderr, "%s\n", error.text);
        abort(); /* also in children, where libcheck does not reach */
    }
    return file;
}

static void must(int rc) {
    if (rc < 0)
        abort();
}

static void put(const char *name, const char *text, uint64_t pos, bool sync) {
    chronik_file *file = open_ok(name, MAKE);
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    must(d->write(io->disk, file, &iov, 1, pos, NULL));
    if (sync)
        must(d->sync(io->disk, file, NULL));
    d->close(io->disk, file);
}

static void sync_dir(const char *name) { must(d->sync_dir(io->disk, at(name), NULL)); }

/* What a file holds, or "-" where there is none. */
static const char *get(const char *name) {
    static char text[128];
    chronik_file *file = NULL;
    if (d->open(io->disk, at(name), CHRONIK_OPEN_READ, NULL, &file) < 0)
        return "-";
    int64_t n = d->read(io->disk, file, text, sizeof text - 1, 0, NULL);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    d->close(io->disk, file);
    return text;
}

/* Runs a part in a process of its own, which is then killed; and forgets what this one knows. */
static void killed(void (*part)(void)) {
    cnk_lossy_free(io);
    pid_t child = fork();
    if (child == 0) {
        must(cnk_lossy_new(posix, 0, NULL, &io));
        d = io->disk_ops;
        part();
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_eq(cnk_lossy_new(posix, 0, NULL, &io), 0);
    d = io->disk_ops;
}

static int count_name(void *arg, const char *name) {
    (void)name;
    ++*(int *)arg;
    return 0;
}

static int names_in(const chronik_io *where, const char *name) {
    int count = 0;
    ck_assert_int_eq(where->disk_ops->list(where->disk, at(name), count_name, &count, NULL), 0);
    return count;
}

/* ---- kills ------------------------------------------------------------------------------------------------------ */

static void data_with_and_without_sync(void) {
    put("f", "durable", 0, true);
    sync_dir("");
    put("f", "DUR", 0, false);
    put("f", "-longer", 7, false);
    if (strcmp(get("f"), "DURable-longer") != 0)
        abort();
}

START_TEST(unsynced_data_dies) {
    killed(data_with_and_without_sync);
    ck_assert_str_eq(get("f"), "durable");
}
END_TEST

static void synced_at_last(void) {
    data_with_and_without_sync();
    chronik_file *file = open_ok("f", RW);
    must(d->truncate(io->disk, file, 9, NULL));
    must(d->allocate(io->disk, file, 11, NULL));
    must(d->sync(io->disk, file, NULL));
    put("f", "gone", 0, false);
}

START_TEST(synced_data_lives) {
    killed(synced_at_last);
    ck_assert_str_eq(get("f"), "DURable-l"); /* and two zeros */
    chronik_file *file = open_ok("f", CHRONIK_OPEN_READ);
    uint64_t size = 0;
    ck_assert_int_eq(d->size_get(io->disk, file, NULL, &size), 0);
    ck_assert_uint_eq(size, 11);
    d->close(io->disk, file);
}
END_TEST

static void a_name_without_sync(void) {
    put("f", "text", 0, true);
    if (strcmp(get("f"), "text") != 0)
        abort();
}

static void a_name_with_sync(void) {
    a_name_without_sync();
    sync_dir("");
}

START_TEST(an_unsynced_name_dies_with_its_data) {
    killed(a_name_without_sync);
    ck_assert_str_eq(get("f"), "-");
    ck_assert_int_eq(names_in(io, ""), 0);
    ck_assert_int_eq(names_in(posix, ""), 0); /* the listing has cleaned up */
    killed(a_name_with_sync);
    ck_assert_str_eq(get("f"), "text");
    ck_assert_int_eq(names_in(io, ""), 1);
}
END_TEST

static void renames(void) {
    put("old", "old", 0, true);
    put("tmp", "new", 0, true);
    sync_dir("");
    must(d->rename(io->disk, at("tmp"), at("old"), NULL));
    if (strcmp(get("old"), "new") != 0 || strcmp(get("tmp"), "-") != 0)
        abort();
}

static void renames_synced(void) {
    renames();
    put("tmp", "newer", 0, true); /* another file under the old name */
    sync_dir("");
    must(d->unlink(io->disk, at("tmp"), NULL));
}

START_TEST(an_unsynced_rename_dies) {
    killed(renames);
    ck_assert_str_eq(get("old"), "old");
    ck_assert_str_eq(get("tmp"), "new");
    killed(renames_synced);
    ck_assert_str_eq(get("old"), "new");
    ck_assert_str_eq(get("tmp"), "newer"); /* its deletion was not synced */
    ck_assert_int_eq(names_in(posix, ""), 2);
}
END_TEST

static void created_renamed_synced_by_one(void) {
    put("a.tmp", "a", 0, true);
    must(d->rename(io->disk, at("a.tmp"), at("a"), NULL));
    must(d->mkdir(io->disk, at("sub"), NULL));
    put("sub/b", "b", 0, true);
    sync_dir("sub");
    sync_dir("");
    put("sub/c", "c", 0, true);
    must(d->mkdir(io->disk, at("other"), NULL));
    put("other/x", "x", 0, true);
    sync_dir("other");
    if (strcmp(get("sub/b"), "b") != 0 || strcmp(get("sub/c"), "c") != 0 || strcmp(get("other/x"), "x") != 0)
        abort();
}

START_TEST(directories_have_names_too) {
    killed(created_renamed_synced_by_one);
    ck_assert_str_eq(get("a"), "a");
    ck_assert_str_eq(get("a.tmp"), "-");
    ck_assert_str_eq(get("sub/b"), "b");
    ck_assert_str_eq(get("sub/c"), "-");
    ck_assert_str_eq(get("other/x"), "-"); /* synced, but its directory has no name */
    ck_assert_int_eq(names_in(io, ""), 2);
    ck_assert_int_eq(names_in(io, "sub"), 1);
    ck_assert_int_eq(d->mkdir(io->disk, at("sub"), NULL), CHRONIK_EEXIST);
    ck_assert_int_eq(d->mkdir(io->disk, at("other"), NULL), 0);
    ck_assert_int_eq(d->mkdir(io->disk, at("other"), NULL), CHRONIK_EEXIST);
}
END_TEST

START_TEST(free_forgets_like_a_kill) {
    data_with_and_without_sync();
    put("never", "named", 0, true);
    cnk_lossy_free(io);
    ck_assert_int_eq(names_in(posix, ""), 1);
    ck_assert_int_eq(cnk_lossy_new(posix, 0, NULL, &io), 0);
    ck_assert_str_eq(get("f"), "durable");
    ck_assert_str_eq(get("never"), "-");
}
END_TEST

/* ---- the rest --------------------------------------------------------------------------------------------------- */

START_TEST(memory_has_a_limit) {
    cnk_lossy_free(io);
    ck_assert_int_eq(cnk_lossy_new(posix, 100, NULL, &io), 0);
    put("f", "", 0, true);
    sync_dir("");
    static char big[200];
    memset(big, 'x', sizeof big - 1);
    put("f", "small", 0, false);
    put("f", big, 0, false); /* over it: written through */
    put("f", "small", 0, false);
    cnk_lossy_free(io);
    ck_assert_int_eq(cnk_lossy_new(posix, 0, NULL, &io), 0);
    char want[128] = {0};
    memset(want, 'x', sizeof want - 1);
    ck_assert_str_eq(get("f"), want);
}
END_TEST

static uint64_t unsynced(void) { return atomic_load(&((lossy *)(void *)io)->bytes); }

/* What nobody can sync any more takes no memory, named or not below, until the directory is synced. */
START_TEST(what_has_neither_name_nor_handle_takes_no_memory) {
    put("given-up", "12345", 0, false);
    put("kept", "12345", 0, true);
    put("kept", "more", 5, false);
    put("old", "old", 0, true);
    sync_dir("");
    put("old", "unsynced", 0, false);
    ck_assert_uint_eq(unsynced(), 5 + 4 + 8);
    chronik_file *file = open_ok("given-up", RW);
    must(d->unlink(io->disk, at("given-up"), NULL));
    ck_assert_uint_eq(unsynced(), 5 + 4 + 8);
    char text[6] = "";
    ck_assert_int_eq((int)d->read(io->disk, file, text, 5, 0, NULL), 5);
    ck_assert_str_eq(text, "12345");
    d->close(io->disk, file);
    ck_assert_uint_eq(unsynced(), 4 + 8);
    must(d->rename(io->disk, at("kept"), at("old"), NULL)); /* replaced */
    ck_assert_uint_eq(unsynced(), 4);
    ck_assert_str_eq(get("old"), "12345more");
    must(d->unlink(io->disk, at("old"), NULL));
    ck_assert_uint_eq(unsynced(), 0);
    put("old", "new", 0, true);
    sync_dir("");
    ck_assert_str_eq(get("old"), "new");
    ck_assert_str_eq(get("given-up"), "-");
    ck_assert_int_eq(names_in(posix, ""), 1);
}
END_TEST

START_TEST(errors_and_locks) {
    chronik_file *file = NULL, *lock = NULL;
    chronik_error error = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(d->open(io->disk, at("f"), RW, &error, &file), CHRONIK_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(error.text, "/f"));
    put("f", "x", 0, false);
    ck_assert_int_eq(d->open(io->disk, at("f"), MAKE | CHRONIK_OPEN_EXCL, &error, &file), CHRONIK_EEXIST);
    ck_assert_int_eq(d->unlink(io->disk, at("g"), &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(d->rename(io->disk, at("g"), at("h"), &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(d->open(io->disk, at("no/f"), MAKE, &error, &file), CHRONIK_ENOTFOUND);
    ck_assert_ptr_null(file);
    ck_assert_int_eq(d->unlink(io->disk, at("./f"), &error), 0);
    ck_assert_int_eq(d->unlink(io->disk, at("f"), &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(d->lock(io->disk, at("lock"), &error, &lock), 0);
    ck_assert_int_eq(d->lock(io->disk, at("lock"), &error, &file), CHRONIK_EBUSY);
    d->close(io->disk, lock);
    d->close(io->disk, NULL);
    chronik_disk_space space = {0};
    ck_assert_int_eq(d->space(io->disk, at(""), &error, &space), 0);
    char below[160], name[160];
    ck_assert_int_eq(posix->disk_ops->absolute(posix->disk, at(""), below, sizeof below), 0);
    ck_assert_int_eq(d->absolute(io->disk, at(""), name, sizeof name), 0);
    ck_assert_str_eq(name, below);
    file = open_ok("big", MAKE);
    ck_assert_int_eq(d->allocate(io->disk, file, UINT64_C(1) << 60, &error), CHRONIK_ENOSPC);
    char byte;
    ck_assert_int_eq(d->read(io->disk, file, &byte, 1, 0, &error), 0);
    d->close(io->disk, file);
}
END_TEST

/* On a disk of 1 MiB: blocks that were reserved are there for what is written into them, however full it gets; where there
 * are none, a write says so, and no sync. */
START_TEST(a_reservation_holds_on_a_full_disk) {
    enum { MIB = 1 << 20, HALF = MIB / 2 };
    for (int truncated = 0; truncated < 2; truncated++) {
        sim_disk *disk = sim_disk_new(1, &(sim_disk_options){.space_bytes = MIB});
        sim_world *world = sim_world_new(disk, NULL);
        const chronik_io *sim = sim_world_io(world);
        chronik_io *above = NULL;
        chronik_file *file = NULL, *filler = NULL, *late = NULL;
        static uint8_t data[HALF], back[HALF];
        struct iovec iov = {data, sizeof data};
        memset(data, 'r', sizeof data);
        must(cnk_lossy_new(sim, 0, NULL, &above));
        must(above->disk_ops->open(above->disk, "reserved", MAKE, NULL, &file));
        must(above->disk_ops->open(above->disk, "late", MAKE, NULL, &late));
        if (truncated) /* a change that waits for its sync, and would give the blocks back */
            must(above->disk_ops->truncate(above->disk, file, 0, NULL));
        must(above->disk_ops->allocate(above->disk, file, HALF, NULL));
        must(sim->disk_ops->open(sim->disk, "filler", MAKE, NULL, &filler));
        uint64_t filled = 0;
        struct iovec page = {data, 4096};
        while (sim->disk_ops->write(sim->disk, filler, &page, 1, filled, NULL) == 0)
            filled += page.iov_len;
        ck_assert_uint_le(filled, HALF);
        must(above->disk_ops->write(above->disk, file, &iov, 1, 0, NULL));
        ck_assert_int_eq(above->disk_ops->sync(above->disk, file, NULL), 0);
        ck_assert_int_eq(above->disk_ops->read(above->disk, file, back, HALF, 0, NULL), HALF);
        ck_assert_int_eq(memcmp(back, data, HALF), 0);
        ck_assert_int_eq(above->disk_ops->allocate(above->disk, late, HALF, NULL), CHRONIK_ENOSPC);
        ck_assert_int_eq(above->disk_ops->write(above->disk, late, &iov, 1, 0, NULL), CHRONIK_ENOSPC);
        ck_assert_int_eq(above->disk_ops->sync(above->disk, late, NULL), 0);
        above->disk_ops->close(above->disk, file);
        above->disk_ops->close(above->disk, late);
        sim->disk_ops->close(sim->disk, filler);
        cnk_lossy_free(above);
        sim_world_free(world);
        sim_disk_free(disk);
    }
}
END_TEST

START_TEST(a_disk_below_without_absolute_names_has_none_here) {
    chronik_disk_ops bare = *posix->disk_ops;
    chronik_io below = *posix, *above = NULL;
    char name[160];
    below.disk_ops = &bare;
    for (int old = 0; old < 2; old++) { /* it is NULL; the table ends before it */
        if (old) bare.size = offsetof(chronik_disk_ops, absolute);
        else bare.absolute = NULL;
        ck_assert_int_eq(cnk_lossy_new(&below, 0, NULL, &above), 0);
        ck_assert_int_eq(above->disk_ops->absolute(above->disk, at(""), name, sizeof name), CHRONIK_ENOTFOUND);
        cnk_lossy_free(above);
        bare.absolute = posix->disk_ops->absolute;
    }
}
END_TEST

/* The same random calls to this disk and to the simulated one, which shows the same until a crash. */
typedef struct pair {
    const chronik_disk_ops *ops[2];
    void *disk[2];
    const char *prefix[2];
} pair;

static const char *const some_paths[] = {"a", "b", "c", "s/d", "s/e"};

static const char *in_pair(const pair *p, int side, int path, char buf[160]) {
    snprintf(buf, 160, "%s/%s", p->prefix[side], some_paths[path]);
    return buf;
}

static int64_t pair_data_call(const pair *p, int side, int path, uint64_t kind, uint64_t pos, size_t len, int letter,
                              uint8_t *out) {
    char name[160];
    chronik_file *file = NULL;
    unsigned flags = kind == 0 ? MAKE : RW;
    int64_t rc = p->ops[side]->open(p->disk[side], in_pair(p, side, path, name), flags, NULL, &file);
    if (rc < 0)
        return rc;
    memset(out, letter, len);
    struct iovec iov = {out, len};
    if (kind <= 1)
        rc = p->ops[side]->write(p->disk[side], file, &iov, 1, pos, NULL);
    else if (kind == 2)
        rc = p->ops[side]->truncate(p->disk[side], file, pos, NULL);
    else if (kind == 3)
        rc = p->ops[side]->sync(p->disk[side], file, NULL);
    else if (kind == 4)
        rc = p->ops[side]->allocate(p->disk[side], file, pos, NULL);
    else
        rc = p->ops[side]->read(p->disk[side], file, out, len, pos, NULL);
    uint64_t size = 0;
    must(p->ops[side]->size_get(p->disk[side], file, NULL, &size));
    p->ops[side]->close(p->disk[side], file);
    return rc < 0 ? rc : rc * 1000000 + (int64_t)size;
}

static int64_t pair_name_call(const pair *p, int side, int path, int other, uint64_t kind) {
    char name[160], second[160];
    in_pair(p, side, path, name);
    in_pair(p, side, other, second);
    if (kind == 0)
        return p->ops[side]->rename(p->disk[side], name, second, NULL);
    if (kind == 1)
        return p->ops[side]->unlink(p->disk[side], name, NULL);
    snprintf(name, sizeof name, "%s%s", p->prefix[side], kind == 2 ? "" : "/s");
    if (kind < 4)
        return p->ops[side]->sync_dir(p->disk[side], kind == 2 && !*name ? "/" : name, NULL);
    int count = 0;
    int64_t rc = p->ops[side]->list(p->disk[side], *name ? name : "/", count_name, &count, NULL);
    return rc < 0 ? rc : count;
}

START_TEST(it_shows_what_any_disk_shows) {
    sim_disk *disk = sim_disk_new(1, NULL);
    sim_world *world = sim_world_new(disk, NULL);
    const chronik_io *sim = sim_world_io(world);
    pair p = {{d, sim->disk_ops}, {io->disk, sim->disk}, {root, ""}};
    ck_assert_int_eq(d->mkdir(io->disk, at("s"), NULL), 0);
    ck_assert_int_eq(sim->disk_ops->mkdir(sim->disk, "s", NULL), 0);
    cnk_rng rng;
    cnk_rng_seed(&rng, 4711);
    static uint8_t out[2][9000];
    int good = 0;
    for (int i = 0; i < 6000; i++) {
        int path = (int)cnk_rng_below(&rng, 5), other = (int)cnk_rng_below(&rng, 5);
        int letter = (int)cnk_rng_between(&rng, 'a', 'z');
        uint64_t kind = cnk_rng_below(&rng, 6), pos = cnk_rng_below(&rng, 9000);
        size_t len = (size_t)cnk_rng_below(&rng, 9000);
        bool data = cnk_rng_chance(&rng, 3, 4);
        int64_t rc[2];
        for (int side = 0; side < 2; side++)
            rc[side] = data ? pair_data_call(&p, side, path, kind, pos, len, letter, out[side])
                            : pair_name_call(&p, side, path, other, kind);
        if (rc[0] != rc[1] || memcmp(out[0], out[1], sizeof out[0]) != 0)
            ck_abort_msg("call %d (%s %d) differs: %lld, not %lld", i, data ? "data" : "name", (int)kind,
                         (long long)rc[0], (long long)rc[1]);
        good += rc[0] >= 0;
    }
    ck_assert_int_gt(good, 3000);
    sim_world_free(world);
    sim_disk_free(disk);
}
END_TEST

/* Threads at once: one writes and syncs a file, one makes, renames and deletes others, one reads and lists. */
enum { ROUNDS = 300 };

static void *write_and_sync(void *arg) {
    (void)arg;
    chronik_file *file = open_ok("shared", RW);
    static char text[5000];
    for (int i = 0; i < ROUNDS; i++) {
        memset(text, 'a' + i % 26, sizeof text);
        struct iovec iov = {text, sizeof text};
        must(d->write(io->disk, file, &iov, 1, (uint64_t)(i % 7) * 1000, NULL));
        if (i % 3 == 0)
            must(d->sync(io->disk, file, NULL));
    }
    d->close(io->disk, file);
    return NULL;
}

static void *make_and_rename(void *arg) {
    (void)arg;
    char from[32], to[32], full_from[160], full_to[160];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(from, sizeof from, "t%d.tmp", i);
        snprintf(to, sizeof to, "t%d", i % 5);
        snprintf(full_from, sizeof full_from, "%s/%s", root, from);
        snprintf(full_to, sizeof full_to, "%s/%s", root, to);
        chronik_file *file = NULL;
        must(d->open(io->disk, full_from, MAKE, NULL, &file));
        must(d->allocate(io->disk, file, 4096, NULL));
        must(d->rename(io->disk, full_from, full_to, NULL));
        if (i % 4 == 0)
            must(d->sync_dir(io->disk, root, NULL));
        if (i % 6 == 0)
            must(d->unlink(io->disk, full_to, NULL));
        d->close(io->disk, file);
    }
    return NULL;
}

static void *read_and_list(void *arg) {
    (void)arg;
    char full[160], buf[3000];
    snprintf(full, sizeof full, "%s/shared", root);
    for (int i = 0; i < ROUNDS; i++) {
        chronik_file *file = NULL;
        int count = 0;
        must(d->open(io->disk, full, CHRONIK_OPEN_READ, NULL, &file));
        must((int)d->read(io->disk, file, buf, sizeof buf, (uint64_t)i, NULL));
        (void)d->read_cached(io->disk, file, buf, sizeof buf, (uint64_t)i);
        must(d->list(io->disk, root, count_name, &count, NULL));
        if (count < 1 || count > 7) /* shared, t0 to t4, one .tmp */
            abort();
        d->close(io->disk, file);
    }
    return NULL;
}

START_TEST(threads_may_share_it) {
    put("shared", "x", 0, true);
    sync_dir("");
    static void *(*const work[])(void *) = {write_and_sync, make_and_rename, read_and_list, read_and_list};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work[i], NULL), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    sync_dir("");
    int here = names_in(io, ""), below = names_in(posix, "");
    ck_assert_int_eq(here, below);
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* Each allocation fails in turn: an error, and nothing leaked or half done. */
START_TEST(each_allocation_may_fail) {
    put("f", "text", 0, true);
    sync_dir("");
    int rc = CHRONIK_ENOMEM;
    for (long n = 0; rc == CHRONIK_ENOMEM && n < 200; n++) {
        chronik_file *file = NULL;
        int count = 0;
        struct iovec iov = {(char[]){"x"}, 1};
        char g[160], h[160], s[160];
        snprintf(g, sizeof g, "%s/g", root);
        snprintf(h, sizeof h, "%s/h", root);
        snprintf(s, sizeof s, "%s/s", root);
        cnk_mem_fail_at(n);
        rc = d->open(io->disk, g, MAKE, NULL, &file);
        if (rc == 0)
            rc = d->write(io->disk, file, &iov, 1, 0, NULL);
        if (rc == 0)
            rc = d->truncate(io->disk, file, 10, NULL);
        if (rc == 0)
            rc = d->allocate(io->disk, file, 20, NULL);
        if (rc == 0)
            rc = d->rename(io->disk, g, h, NULL);
        if (rc == 0)
            rc = d->list(io->disk, root, count_name, &count, NULL);
        if (rc == 0)
            rc = d->sync_dir(io->disk, root, NULL);
        if (rc == 0)
            rc = d->unlink(io->disk, h, NULL);
        if (rc == 0)
            rc = d->mkdir(io->disk, s, NULL);
        cnk_mem_fail_at(-1);
        ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
        d->close(io->disk, file);
        ck_assert_str_eq(get("f"), "text");
        cnk_lossy_free(io);
        ck_assert_int_eq(cnk_lossy_new(posix, 0, NULL, &io), 0);
    }
    ck_assert_int_eq(rc, 0);
}
END_TEST
#endif

int main(void) {
    Suite *suite = suite_create("io_lossy");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, unsynced_data_dies);
    tcase_add_test(t, synced_data_lives);
    tcase_add_test(t, an_unsynced_name_dies_with_its_data);
    tcase_add_test(t, an_unsynced_rename_dies);
    tcase_add_test(t, directories_have_names_too);
    tcase_add_test(t, free_forgets_like_a_kill);
    tcase_add_test(t, memory_has_a_limit);
    tcase_add_test(t, what_has_neither_name_nor_handle_takes_no_memory);
    tcase_add_test(t, errors_and_locks);
    tcase_add_test(t, a_reservation_holds_on_a_full_disk);
    tcase_add_test(t, a_disk_below_without_absolute_names_has_none_here);
    tcase_add_test(t, it_shows_what_any_disk_shows);
    tcase_add_test(t, threads_may_share_it);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_may_fail);
#endif
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
