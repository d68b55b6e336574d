/* fsck: what it says of sound and of damaged logs, and what a repair keeps. The logs are real ones, made through
 * chronik/wal.h; damage is done to their files byte by byte. After each repair every entry that was not said to be lost is
 * there, byte for byte and under its index, appends go on, and fsck finds nothing more. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chronik/wal.h>

#include "base/mem.h"
#include "base/rng.h"
#include "sim/io_sim.h"
#include "wal/internal.h"

enum { STREAMS = 4, FILES_MAX = 64, TEXT = 12000 };

typedef struct file {
    char name[40], path[160];
    uint64_t bytes, number;
    bool wal, live;
} file;

typedef struct world {
    char dir[64], log[80], copy[80];
    chronik_wal_options options;
    uint64_t first[STREAMS + 1], last[STREAMS + 1];
    file files[FILES_MAX];
    size_t files_count;
    char said[200000];
    uint64_t lost_said;
    chronik_error err;
} world;

static void run(const char *format, const char *a, const char *b) {
    char command[400];
    snprintf(command, sizeof command, format, a, b);
    ck_assert_int_eq(system(command), 0);
}

static size_t text_of(uint64_t stream, uint64_t n, char *text) {
    int used = snprintf(text, 64, "%llu/%llu:", (unsigned long long)stream, (unsigned long long)n);
    size_t len = (size_t)used + (size_t)((n * 37 + stream * 11) % (n % 40 == 0 ? 9000 : 700));
    for (size_t i = (size_t)used; i < len; i++) text[i] = (char)(n * 31 + stream + i * i);
    return len;
}

static void append(world *w, chronik_wal *wal, uint64_t stream, uint64_t count) {
    char text[TEXT];
    for (; count > 0; count--) {
        uint64_t index;
        size_t len = text_of(stream, w->last[stream] + 1, text);
        int code = chronik_wal_append(wal, stream, text, len, &w->err, &index);
        ck_assert_msg(code == 0, "%s", w->err.text);
        ck_assert_uint_eq(index, ++w->last[stream]);
    }
}

static chronik_wal *world_open(world *w) {
    chronik_wal *wal = NULL;
    int code = chronik_wal_open(w->log, &w->options, &w->err, &wal);
    ck_assert_msg(code == 0, "%s", w->err.text);
    return wal;
}

static void world_begin(world *w) {
    memset(w, 0, sizeof *w);
    /* In memory where that can be: none of this is about the device, and there are many syncs. */
    bool shm = access("/dev/shm", W_OK | X_OK) == 0;
    snprintf(w->dir, sizeof w->dir, "%s/chronik-test-fsck-XXXXXX", shm ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->log, sizeof w->log, "%s/log", w->dir);
    snprintf(w->copy, sizeof w->copy, "%s/copy", w->dir);
    w->options = (chronik_wal_options)CHRONIK_WAL_OPTIONS_INIT;
    w->options.file_bytes = 120000;
    w->options.budget_bytes = 4 << 20;
}

/* A log with history: opened four times, trimmed, files recycled, checkpoints taken. */
static void world_new(world *w, uint64_t rounds) {
    world_begin(w);
    for (uint64_t round = 0; round < 3; round++) {
        chronik_wal *wal = world_open(w);
        for (uint64_t s = 1; s <= STREAMS; s++) {
            if (round == 0) ck_assert_int_eq(chronik_wal_stream_create(wal, s, &w->err), 0);
            w->first[s] = w->first[s] ? w->first[s] : 1;
        }
        for (uint64_t n = 0; n < rounds; n++) {
            for (uint64_t s = 1; s <= STREAMS; s++) append(w, wal, s, s * 3 + n % 5);
            ck_assert_int_eq(chronik_wal_sync(wal, &w->err), 0);
            if (n % 10 != 9) continue;
            uint64_t keep[STREAMS + 1] = {0, 20, 150, 250, 400};
            for (uint64_t s = 1; s <= STREAMS; s++) {
                if (w->last[s] < keep[s] || w->last[s] - keep[s] + 1 <= w->first[s]) continue;
                w->first[s] = w->last[s] - keep[s] + 1;
                ck_assert_int_eq(chronik_wal_trim(wal, s, w->first[s], &w->err), 0);
            }
        }
        chronik_wal_close(wal);
    }
    /* Each opening begins a file: the last one has entries of every stream, wherever the pace of syncs and witnesses has
     * put the ends of the others. */
    chronik_wal *wal = world_open(w);
    for (uint64_t n = 0; n < 3; n++) {
        for (uint64_t s = 1; s <= STREAMS; s++) append(w, wal, s, s);
        ck_assert_int_eq(chronik_wal_sync(wal, &w->err), 0);
    }
    chronik_wal_close(wal);
}

static void world_free(world *w) { run("rm -rf '%s'%s", w->dir, ""); }

static void save(world *w) { run("cp -r '%s' '%s'", w->log, w->copy); }
static void restore(world *w) {
    run("rm -rf '%s'%s", w->log, "");
    run("cp -r '%s' '%s'", w->copy, w->log);
}

static int file_order(const void *a, const void *b) { return strcmp(((const file *)a)->name, ((const file *)b)->name); }

static void look(world *w) {
    char log[80];
    memcpy(log, w->log, sizeof log);
    DIR *d = opendir(log);
    ck_assert_ptr_nonnull(d);
    w->files_count = 0;
    for (struct dirent *e; (e = readdir(d));) {
        bool wal = strstr(e->d_name, ".wal") != NULL, checkpoint = strstr(e->d_name, ".checkpoint") != NULL;
        if (!wal && !checkpoint) continue;
        file *f = &w->files[w->files_count++];
        ck_assert_uint_lt(w->files_count, FILES_MAX);
        memset(f, 0, sizeof *f);
        snprintf(f->name, sizeof f->name, "%.39s", e->d_name);
        snprintf(f->path, sizeof f->path, "%s/%.39s", log, e->d_name);
        struct stat st;
        ck_assert_int_eq(stat(f->path, &st), 0);
        f->bytes = (uint64_t)st.st_size;
        f->number = strtoull(f->name, NULL, 10);
        f->wal = wal;
        if (!wal) continue;
        uint8_t page[CNK_WAL_ALIGN];
        cnk_wal_file_header h;
        int fd = open(f->path, O_RDONLY);
        f->live = pread(fd, page, sizeof page, 0) == (ssize_t)sizeof page && cnk_wal_file_header_get(page, &h) == 0 &&
                  h.number == f->number;
        close(fd);
    }
    closedir(d);
    qsort(w->files, w->files_count, sizeof *w->files, file_order);
}

/* The n-th live WAL file, or checkpoint; from the end where n is negative. */
static file *nth(world *w, bool wal, int n) {
    look(w);
    file *found[FILES_MAX];
    int count = 0;
    for (size_t i = 0; i < w->files_count; i++)
        if (w->files[i].wal == wal && (!wal || w->files[i].live)) found[count++] = &w->files[i];
    ck_assert_int_lt(n < 0 ? -n - 1 : n, count);
    return found[n < 0 ? count + n : n];
}

static void flip(const file *f, uint64_t pos) {
    uint8_t byte = 0;
    int fd = open(f->path, O_RDWR);
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)pos), 1);
    byte ^= (uint8_t)(1 << pos % 8);
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)pos), 1);
    close(fd);
}

static void note_line(void *arg, const char *text) {
    world *w = arg;
    unsigned long long stream, from, to;
    if (sscanf(text, "lost: stream %llu, entries %llu to %llu", &stream, &from, &to) == 3) w->lost_said += to - from + 1;
    size_t used = strlen(w->said);
    snprintf(w->said + used, sizeof w->said - used, "%s\n", text);
}

static int fsck(world *w, unsigned flags) {
    w->said[0] = '\0';
    w->lost_said = 0;
    w->err = (chronik_error)CHRONIK_ERROR_INIT;
    return chronik_wal_fsck(w->log, flags, note_line, w, &w->err);
}

static void says(world *w, const char *what) { ck_assert_msg(strstr(w->said, what) != NULL, "no '%s' in:\n%s", what, w->said); }

static uint64_t sum_of_tree(const char *dir) {
    char command[200];
    snprintf(command, sizeof command, "cd '%s' && find . -type f | sort | xargs md5sum | md5sum", dir);
    FILE *p = popen(command, "r");
    char line[40] = {0};
    ck_assert_ptr_nonnull(fgets(line, 17, p));
    pclose(p);
    return strtoull(line, NULL, 16);
}

/* Reads all streams. Returns how many entries are lost; all others must be what they were. */
static uint64_t verify(world *w, chronik_wal *wal, bool tail_may_be_cut) {
    uint64_t lost = 0;
    static char want[TEXT], got[TEXT];
    for (uint64_t s = 1; s <= STREAMS; s++) {
        uint64_t first, last;
        ck_assert_msg(chronik_wal_stream_range(wal, s, &w->err, &first, &last) == 0, "%s\n%s", w->err.text, w->said);
        ck_assert_msg(last == w->last[s] || (tail_may_be_cut && last < w->last[s]), "stream %d: last %d of %d\n%s", (int)s,
                      (int)last, (int)w->last[s], w->said);
        if (first > w->first[s]) lost += first - w->first[s];
        for (uint64_t n = first > w->first[s] ? first : w->first[s]; n <= last; n++) {
            size_t len = 0, expected = text_of(s, n, want);
            int code = chronik_wal_read(wal, s, n, got, sizeof got, &w->err, &len);
            ck_assert_msg(code == 0 || code == CHRONIK_ECORRUPT, "stream %d entry %d: %s\n%s", (int)s, (int)n, w->err.text,
                          w->said);
            lost += code != 0;
            ck_assert_msg(code != 0 || (len == expected && memcmp(got, want, len) == 0), "stream %d entry %d differs\n%s",
                          (int)s, (int)n, w->said);
        }
        w->last[s] = last;
    }
    return lost;
}

/* Checks the damaged log without a flag (nothing may change), repairs it, and uses it. Returns the entries lost. */
static uint64_t repair(world *w, bool tail_may_be_cut) {
    uint64_t before = sum_of_tree(w->log);
    ck_assert_msg(fsck(w, 0) == CHRONIK_ECORRUPT, "%s", w->said);
    ck_assert_uint_eq(sum_of_tree(w->log), before);
    uint64_t would = w->lost_said;
    ck_assert_msg(fsck(w, CHRONIK_WAL_FSCK_CUT) == 0, "%s\n%s", w->err.text, w->said);
    ck_assert_uint_eq(w->lost_said, would);
    chronik_wal *wal = world_open(w);
    uint64_t saved_last[STREAMS + 1];
    memcpy(saved_last, w->last, sizeof saved_last);
    uint64_t lost = verify(w, wal, tail_may_be_cut);
    for (uint64_t s = 1; s <= STREAMS; s++) append(w, wal, s, 30);
    ck_assert_int_eq(chronik_wal_sync(wal, &w->err), 0);
    chronik_wal_close(wal);
    ck_assert_msg(fsck(w, 0) == 0, "%s\n%s", w->err.text, w->said);
    wal = world_open(w);
    ck_assert_uint_eq(verify(w, wal, false), lost);
    chronik_wal_close(wal);
    memcpy(w->last, saved_last, sizeof saved_last);
    return lost;
}

START_TEST(test_sound) {
    world w;
    world_new(&w, 60);
    ck_assert_msg(fsck(&w, 0) == 0, "%s\n%s", w.err.text, w.said);
    says(&w, "verdict: sound");
    says(&w, "footer sound");
    says(&w, "checkpoint");
    uint64_t before = sum_of_tree(w.log);
    ck_assert_int_eq(fsck(&w, CHRONIK_WAL_FSCK_CUT), 0); /* nothing to repair: nothing changes */
    ck_assert_uint_eq(sum_of_tree(w.log), before);
    chronik_wal *wal = world_open(&w);
    ck_assert_int_eq(fsck(&w, 0), CHRONIK_EBUSY);
    chronik_wal_close(wal);
    ck_assert_int_eq(chronik_wal_fsck(w.log, 8, NULL, NULL, &w.err), CHRONIK_EINVAL);
    ck_assert_int_ne(chronik_wal_fsck("/tmp/chronik-no-such-directory", 0, NULL, NULL, &w.err), 0);
    world_free(&w);
}
END_TEST

/* The header of a file in the middle: the next file, or the checkpoint, names it, and nothing is lost. */
START_TEST(test_file_header) {
    world w;
    world_new(&w, 60);
    save(&w);
    for (int n = -4; n < 0; n++) {
        flip(nth(&w, true, n), 20);
        ck_assert_uint_eq(repair(&w, false), 0);
        restore(&w);
    }
    world_free(&w);
}
END_TEST

/* A block's header in the middle of a file that has its footer: nothing is lost. */
START_TEST(test_block_header) {
    world w;
    world_new(&w, 60);
    save(&w);
    flip(nth(&w, true, -4), CNK_WAL_ALIGN + 17);
    ck_assert_uint_eq(repair(&w, false), 0);
    restore(&w);
    /* Without the footer its entries are lost, and no others. */
    const file *f = nth(&w, true, -4);
    flip(f, CNK_WAL_ALIGN + 17);
    flip(f, f->bytes - CNK_WAL_ALIGN + 3);
    uint64_t lost = repair(&w, false);
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_lt(lost, 60);
    ck_assert_int_ne(access(f->path, F_OK), 0);
    world_free(&w);
}
END_TEST

/* Flips a bit of an entry's payload, wherever it lies. */
static void flip_entry(world *w, uint64_t stream, uint64_t n) {
    char text[TEXT];
    size_t len = text_of(stream, n, text), found = 0;
    look(w);
    for (size_t i = 0; i < w->files_count; i++) {
        if (!w->files[i].live) continue;
        uint8_t *data = malloc(w->files[i].bytes);
        int fd = open(w->files[i].path, O_RDONLY);
        ck_assert_int_eq(read(fd, data, w->files[i].bytes), (ssize_t)w->files[i].bytes);
        close(fd);
        const uint8_t *at = memmem(data, w->files[i].bytes, text, len);
        if (at) flip(&w->files[i], (uint64_t)(at - data) + len / 2);
        found += at != NULL;
        free(data);
    }
    ck_assert_uint_gt(found, 0);
}

START_TEST(test_payload) {
    world w;
    world_new(&w, 60);
    save(&w);
    for (uint64_t back = 10; back < 380; back += 90) {
        flip_entry(&w, 4, w.last[4] - back);
        ck_assert_uint_eq(repair(&w, false), 1);
        restore(&w);
    }
    flip_entry(&w, 2, w.last[2]);
    flip_entry(&w, 3, w.last[3] - 100);
    flip_entry(&w, 3, w.last[3] - 99);
    ck_assert_int_eq(fsck(&w, 0), CHRONIK_ECORRUPT);
    char line[100];
    snprintf(line, sizeof line, "lost: stream 3, entries %d to %d, 2 offsets from %d;", (int)w.last[3] - 100,
             (int)w.last[3] - 99, (int)w.last[3] - 101);
    says(&w, line);
    ck_assert_uint_eq(repair(&w, false), 3);
    world_free(&w);
}
END_TEST

START_TEST(test_footer) {
    world w;
    world_new(&w, 60);
    file *f = nth(&w, true, -4);
    for (uint64_t pos = f->bytes - CNK_WAL_ALIGN; pos < f->bytes - CNK_WAL_ALIGN + 64; pos += 5) flip(f, pos);
    ck_assert_int_eq(fsck(&w, 0), 0); /* it is not needed */
    chronik_wal *wal = world_open(&w);
    ck_assert_uint_eq(verify(&w, wal, false), 0);
    chronik_wal_close(wal);
    world_free(&w);
}
END_TEST

START_TEST(test_checkpoint) {
    world w;
    world_new(&w, 60);
    save(&w);
    flip(nth(&w, false, -1), 70);
    ck_assert_int_eq(fsck(&w, 0), CHRONIK_ECORRUPT);
    says(&w, "is damaged");
    repair(&w, false);
    restore(&w);
    flip(nth(&w, false, -1), 70); /* both: what was trimmed may be thought of as missing, but nothing that is there is lost */
    flip(nth(&w, false, -2), 70);
    repair(&w, false);
    world_free(&w);
}
END_TEST

START_TEST(test_missing_file) {
    world w;
    world_new(&w, 60);
    save(&w);
    for (int n = -5; n < -1; n++) {
        ck_assert_int_eq(unlink(nth(&w, true, n)->path), 0);
        uint64_t lost = repair(&w, false);
        ck_assert_uint_lt(lost, 900);
        restore(&w);
    }
    world_free(&w);
}
END_TEST

/* A repair that ends at any moment can be run again. Its steps are told apart by what is on the disk. */
START_TEST(test_interrupted) {
    world w;
    world_new(&w, 60);
    file *f = nth(&w, true, -4);
    flip(f, CNK_WAL_ALIGN + CNK_WAL_BLOCK_HEADER + 4);
    flip(f, CNK_WAL_ALIGN + 17);
    flip(f, f->bytes - CNK_WAL_ALIGN + 3);
    save(&w);
    ck_assert_int_eq(fsck(&w, CHRONIK_WAL_FSCK_CUT), 0);
    uint64_t lost = w.lost_said;
    char after[80];
    snprintf(after, sizeof after, "%s/after", w.dir);
    run("cp -r '%s' '%s'", w.log, after);
    look(&w);
    char file_name[40] = "", checkpoint_name[40] = "";
    for (size_t n = 0; n < w.files_count; n++)
        snprintf(w.files[n].wal ? file_name : checkpoint_name, 40, "%s", w.files[n].name);
    for (int step = 0; step < 3; step++) {
        char from[200];
        restore(&w);
        snprintf(from, sizeof from, "%s/%s", after, file_name);
        if (step == 0) run("head -c 9000 '%s' > '%s/prepare.wal.tmp'", from, w.log); /* in the middle of the file */
        else run("cp '%s' '%s'", from, w.log);                                      /* before the checkpoint */
        snprintf(from, sizeof from, "%s/%s", after, checkpoint_name);
        if (step == 2) run("cp '%s' '%s'", from, w.log); /* before the files are moved */
        ck_assert_uint_eq(repair(&w, false), lost);
    }
    world_free(&w);
}
END_TEST

/* Anything, anywhere. */
START_TEST(test_random) {
    world w;
    world_new(&w, 40);
    save(&w);
    cnk_rng rng;
    cnk_rng_seed(&rng, 42 + (uint64_t)_i);
    unsigned repaired = 0, cut_short = 0;
    for (int round = 0; round < 10; round++) {
        look(&w);
        uint64_t flips = 1 + cnk_rng_below(&rng, round % 3 == 0 ? 40 : 3);
        for (uint64_t n = 0; n < flips; n++) {
            const file *f = &w.files[cnk_rng_below(&rng, w.files_count)];
            uint64_t pos = cnk_rng_below(&rng, f->bytes);
            if (cnk_rng_chance(&rng, 1, 3)) pos = pos / CNK_WAL_ALIGN * CNK_WAL_ALIGN + cnk_rng_below(&rng, 64);
            if (pos < f->bytes) flip(f, pos);
        }
        if (round % 5 == 4) ck_assert_int_eq(unlink(w.files[cnk_rng_below(&rng, w.files_count)].path), 0);
        int code = fsck(&w, 0);
        ck_assert_msg(code == 0 || code == CHRONIK_ECORRUPT, "%s", w.err.text);
        if (code) {
            repair(&w, true);
            repaired++;
        } else { /* in spares, in gaps, in footers, or in an end that nothing proves */
            chronik_wal *wal = world_open(&w);
            uint64_t saved_last[STREAMS + 1];
            memcpy(saved_last, w.last, sizeof saved_last);
            ck_assert_uint_eq(verify(&w, wal, true), 0);
            for (int s = 1; s <= STREAMS; s++) cut_short += w.last[s] != saved_last[s];
            memcpy(w.last, saved_last, sizeof saved_last);
            chronik_wal_close(wal);
        }
        restore(&w);
    }
    ck_assert_uint_gt(repaired, 2);
    ck_assert_uint_le(cut_short, 2 * STREAMS);
    world_free(&w);
}
END_TEST

/* ---- on the simulated disk: the repair dies at each of its I/O calls -------------------------------------------- */

static sim_disk *import(world *w) {
    sim_disk_options o = SIM_DISK_OPTIONS_INIT;
    sim_disk *disk = sim_disk_new(7, &o);
    sim_world *sim = sim_world_new(disk, NULL);
    const chronik_io *io = sim_world_io(sim);
    ck_assert_int_eq(io->disk_ops->mkdir(io->disk, "/log", NULL), 0);
    look(w);
    for (size_t n = 0; n < w->files_count; n++) {
        char path[80];
        snprintf(path, sizeof path, "/log/%s", w->files[n].name);
        uint8_t *data = malloc(w->files[n].bytes);
        int fd = open(w->files[n].path, O_RDONLY);
        ck_assert_int_eq(read(fd, data, w->files[n].bytes), (ssize_t)w->files[n].bytes);
        close(fd);
        chronik_file *f;
        struct iovec iov = {data, w->files[n].bytes};
        ck_assert_int_eq(io->disk_ops->open(io->disk, path, CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE, NULL, &f), 0);
        ck_assert_int_eq(io->disk_ops->write(io->disk, f, &iov, 1, 0, NULL), 0);
        ck_assert_int_eq(io->disk_ops->sync(io->disk, f, NULL), 0);
        io->disk_ops->close(io->disk, f);
        free(data);
    }
    ck_assert_int_eq(io->disk_ops->sync_dir(io->disk, "/log", NULL), 0);
    ck_assert_int_eq(io->disk_ops->sync_dir(io->disk, "/", NULL), 0);
    sim_world_free(sim);
    return disk;
}

/* Opens the log and reads all of it. Returns how many entries are lost. */
static uint64_t sim_verify(world *w, const chronik_io *io) {
    static char want[TEXT];
    static uint8_t got[TEXT];
    cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    cnk_wal *wal = NULL;
    uint64_t lost = 0;
    o.dir = "/log";
    o.file_bytes = w->options.file_bytes;
    o.budget_bytes = w->options.budget_bytes;
    int code = cnk_wal_open(io, &o, NULL, NULL, &w->err, &wal);
    ck_assert_msg(code == 0, "%s\n%s", w->err.text, w->said);
    size_t it = 0;
    unsigned streams = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(wal, &it)); streams++) {
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        ck_assert_uint_eq(st->last_index, w->last[st->id]);
        ck_assert_uint_eq((uint64_t)st->next_offset, w->last[st->id]); /* offsets keep their numbers */
        ck_assert_uint_le(st->released_index, w->first[st->id]);
        for (uint64_t n = w->first[st->id]; n <= st->last_index; n++) {
            cnk_wal_place p;
            ck_assert_int_eq(cnk_wal_find_index(s, n, &p), 0);
            lost += p.entry.kind != CNK_ENTRY_DATA;
            if (p.entry.kind != CNK_ENTRY_DATA) continue;
            size_t len = text_of(st->id, n, want);
            ck_assert_uint_eq(p.entry.len, len);
            ck_assert_uint_eq((uint64_t)p.entry.base_offset, n - 1);
            cnk_wal_file *f = cnk_wal_file_pin(wal, p.file_seq);
            ck_assert_int_eq(cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, got, NULL), 0);
            cnk_wal_file_unpin(f);
            ck_assert_int_eq(memcmp(want, got, len), 0);
        }
    }
    ck_assert_uint_eq(streams, STREAMS);
    cnk_wal_free(wal);
    return lost;
}

static int sim_fsck(world *w, const chronik_io *io, unsigned flags) {
    w->said[0] = '\0';
    w->lost_said = 0;
    w->err = (chronik_error)CHRONIK_ERROR_INIT;
    return cnk_wal_fsck(io, "/log", flags, note_line, w, &w->err);
}

START_TEST(test_crash) {
    world w;
    world_new(&w, 40);
    const file *f = nth(&w, true, -3);
    flip(f, CNK_WAL_ALIGN + CNK_WAL_BLOCK_HEADER + 4);
    flip(f, CNK_WAL_ALIGN + 17);
    flip(f, f->bytes - CNK_WAL_ALIGN + 3);
    flip(nth(&w, true, -2), CNK_WAL_ALIGN + CNK_WAL_BLOCK_HEADER + 4);
    flip(nth(&w, false, -1), 70);
    sim_disk *base = import(&w);
    uint64_t lost = UINT64_MAX, calls = 0;
    for (uint64_t crash = 0; crash <= calls; crash += crash < calls / 2 ? 7 : 1) { /* 0: never; the second half writes */
        sim_disk *disk = sim_disk_clone(base, 1000 + crash);
        sim_world *sim = sim_world_new(disk, NULL);
        sim_world_crash_in(sim, crash);
        int code = sim_fsck(&w, sim_world_io(sim), CHRONIK_WAL_FSCK_CUT);
        ck_assert_msg((code == 0) == !sim_world_dead(sim) || code == 0, "%s\n%s", w.err.text, w.said);
        if (crash == 0) calls = sim_world_calls(sim);
        sim_world_free(sim);
        sim_disk_crash(disk, crash % 3 == 0 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        sim = sim_world_new(disk, NULL);
        const chronik_io *io = sim_world_io(sim);
        code = sim_fsck(&w, io, CHRONIK_WAL_FSCK_CUT);
        ck_assert_msg(code == 0, "crash %d of %d: %s\n%s", (int)crash, (int)calls, w.err.text, w.said);
        code = sim_fsck(&w, io, 0);
        ck_assert_msg(code == 0, "crash %d of %d: %s\n%s", (int)crash, (int)calls, w.err.text, w.said);
        uint64_t now = sim_verify(&w, io);
        if (crash == 0) lost = now;
        ck_assert_uint_eq(now, lost);
        sim_world_free(sim);
        sim_disk_free(disk);
    }
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_gt(calls, 40);
    sim_disk_free(base);
    world_free(&w);
}
END_TEST

/* All files are damaged: what is kept of them has more rows than one file takes. */
START_TEST(test_what_is_kept_takes_two_files) {
    world w;
    uint64_t index, text;
    size_t len;
    world_begin(&w);
    w.options.file_bytes = 64 << 20;
    w.options.budget_bytes = 256 << 20;
    chronik_wal *wal = world_open(&w);
    ck_assert_int_eq(chronik_wal_stream_create(wal, 1, &w.err), 0);
    for (text = 1; text <= CNK_WAL_FILE_ROWS_MAX; text++) {
        ck_assert_int_eq(chronik_wal_append(wal, 1, &text, sizeof text, &w.err, &index), 0);
        ck_assert_uint_eq(index, text);
    }
    ck_assert_int_eq(chronik_wal_sync(wal, &w.err), 0);
    chronik_wal_close(wal);
    look(&w);
    for (size_t n = 0; n < w.files_count; n++)
        if (w.files[n].live) flip(&w.files[n], 20);
    ck_assert_int_eq(fsck(&w, 0), CHRONIK_ECORRUPT);
    ck_assert_msg(fsck(&w, CHRONIK_WAL_FSCK_CUT) == 0, "%s\n%s", w.err.text, w.said);
    ck_assert_uint_eq(w.lost_said, 0);
    look(&w);
    size_t live = 0;
    for (size_t n = 0; n < w.files_count; n++) live += w.files[n].live;
    ck_assert_uint_eq(live, 2);
    wal = world_open(&w);
    for (uint64_t n = 1; n <= CNK_WAL_FILE_ROWS_MAX; n += n < 4000 || n > CNK_WAL_FILE_ROWS_MAX - 9000 ? 1 : 13) {
        ck_assert_int_eq(chronik_wal_read(wal, 1, n, &text, sizeof text, &w.err, &len), 0);
        ck_assert_uint_eq(text, n);
    }
    chronik_wal_close(wal);
    ck_assert_msg(fsck(&w, 0) == 0, "%s\n%s", w.err.text, w.said);
    world_free(&w);
}
END_TEST

/* Every allocation, and every call to the disk, fails once: an error, and nothing that a second run would not mend. */
START_TEST(test_failures) {
    world w;
    world_new(&w, 20);
    flip(nth(&w, true, -2), CNK_WAL_ALIGN + CNK_WAL_BLOCK_HEADER + 4);
    flip(nth(&w, false, -1), 70);
    sim_disk *base = import(&w);
    for (long n = 0, done = 0; !done; n += 1 + n / 40) {
        sim_disk *disk = sim_disk_clone(base, 77);
        sim_world *sim = sim_world_new(disk, NULL);
        long counted = cnk_mem_count();
        cnk_mem_fail_at(n);
        int code = sim_fsck(&w, sim_world_io(sim), CHRONIK_WAL_FSCK_CUT);
        done = cnk_mem_count() - counted <= n;
        cnk_mem_fail_at(-1);
        ck_assert_msg(code == 0 || code == CHRONIK_ENOMEM, "allocation %ld: %d %s", n, code, w.err.text);
        code = sim_fsck(&w, sim_world_io(sim), CHRONIK_WAL_FSCK_CUT);
        ck_assert_msg(code == 0, "allocation %ld: %s\n%s", n, w.err.text, w.said);
        ck_assert_uint_le(sim_verify(&w, sim_world_io(sim)), 1);
        ck_assert_uint_eq(sim_world_open_files(sim), 0);
        sim_world_free(sim);
        sim_disk_free(disk);
    }
    for (uint64_t n = 1, calls = 2; n <= calls; n += 1 + n / 60) {
        sim_disk *disk = sim_disk_clone(base, 78);
        sim_world *sim = sim_world_new(disk, NULL);
        sim_world_fail_in(sim, n, n % 2 ? CHRONIK_EIO : CHRONIK_ENOSPC);
        (void)sim_fsck(&w, sim_world_io(sim), CHRONIK_WAL_FSCK_CUT);
        calls = sim_world_calls(sim);
        ck_assert_uint_eq(sim_world_open_files(sim), 0);
        sim_world_free(sim);
        sim_disk_crash(disk, SIM_CRASH_POWER);
        sim = sim_world_new(disk, NULL);
        int code = sim_fsck(&w, sim_world_io(sim), CHRONIK_WAL_FSCK_CUT);
        ck_assert_msg(code == 0, "call %d: %s\n%s", (int)n, w.err.text, w.said);
        (void)sim_verify(&w, sim_world_io(sim));
        sim_world_free(sim);
        sim_disk_free(disk);
    }
    sim_disk_free(base);
    world_free(&w);
}
END_TEST

int main(void) {
    Suite *s = suite_create("wal_fsck");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, test_sound);
    tcase_add_test(c, test_file_header);
    tcase_add_test(c, test_block_header);
    tcase_add_test(c, test_payload);
    tcase_add_test(c, test_footer);
    tcase_add_test(c, test_checkpoint);
    tcase_add_test(c, test_missing_file);
    tcase_add_test(c, test_interrupted);
    tcase_add_test(c, test_crash);
    tcase_add_test(c, test_failures);
    tcase_add_test(c, test_what_is_kept_takes_two_files);
    tcase_add_loop_test(c, test_random, 0, 3);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
