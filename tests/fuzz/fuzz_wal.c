/* A WAL directory with arbitrary damage. The input says what is done to a log that was made once, in memory: bytes of
 * headers, blocks, row tables, payloads, footers and checkpoints are changed, some with their checksums made right again,
 * so that what lies behind them is reached; files are cut short or removed. Then:
 *
 *  - recovery either opens it, or says that it is corrupt, and touches no memory that is not its own;
 *  - fsck explains it without a change on disk; a repair succeeds or says why not, and where it succeeds recovery opens the
 *    log, every entry can be read whose payload is not said to be damaged, and fsck finds nothing more. */
#include <stdio.h>
#include <string.h>

#include <chronik/wal.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "sim/io_sim.h"
#include "wal/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAMS = 3, FILE_BYTES = 102400, FILES_MAX = 32, STEPS_MAX = 16, PAYLOAD_MAX = 5000 };

/* ---- the log that is damaged ------------------------------------------------------------------------------------
 *
 * It has been opened twice. Stream 2 commits nothing, and is truncated; a snapshot is put in the place of stream 3; another
 * one comes and goes. */

typedef struct maker {
    sim_world *sim;
    cnk_wal *wal;
    cnk_wal_port *port;
    cnk_wal_stream *streams[STREAMS];
    bool drained;
} maker;

static void on_durable(void *arg, cnk_wal_stream *s, uint64_t index) {
    (void)arg;
    if (cnk_wal_stream_state(s)->id != 2) cnk_wal_stream_commit_set(s, index);
}
static void on_durable_end(void *arg) { (void)arg; }
static void on_fenced(void *arg, const chronik_error *why) {
    (void)arg;
    (void)why;
}
static void on_writable(void *arg) { (void)arg; }
static void on_sealed(void *arg, uint32_t file_seq) {
    (void)arg;
    (void)file_seq;
}
static int on_snapshot(void *arg, cnk_wal_stream *s, cnk_writer *out, uint64_t *ret_applied_index) {
    (void)arg;
    cnk_write_le64(out, 42);
    *ret_applied_index = cnk_wal_stream_state(s)->durable_index;
    return 0;
}
static void on_drained(void *arg, int code) {
    (void)code;
    ((maker *)arg)->drained = true;
}
static const cnk_wal_port_events events = {on_durable, on_durable_end, on_fenced, on_writable, on_sealed, on_snapshot};

static const cnk_wal_options *options(void) {
    static cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    o.dir = "/log";
    o.file_bytes = FILE_BYTES;
    o.budget_bytes = 16 * FILE_BYTES;
    return &o;
}

static uint64_t made; /* entries so far: their contents */

static void append_some(void *arg) {
    maker *m = arg;
    static uint8_t payload[PAYLOAD_MAX];
    for (unsigned n = 0; n < 12; n++) {
        cnk_wal_stream *s = m->streams[n % STREAMS];
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        const uint32_t term = st->term > st->last_term ? st->term : st->last_term;
        cnk_wal_entry e = {.index = st->last_index + 1, .term = term ? term : 1, .kind = CNK_ENTRY_DATA};
        e.count = 2;
        e.max_timestamp = 5;
        e.base_offset = st->next_offset;
        made++;
        e.len = (uint32_t)(made * 997 % (made % 9 == 0 ? PAYLOAD_MAX : 300));
        memset(payload, (int)made, e.len);
        cnk_wal_payload p = {.iov_count = 1, .iov = {{payload, e.len}}, .crc = cnk_crc32c(0, payload, e.len)};
        CNK_ASSERT(cnk_wal_append(s, &e, &p) == 0);
    }
    cnk_wal_kick(m->port);
}

static void change_some(void *arg) {
    maker *m = arg;
    const cnk_wal_state *st = cnk_wal_stream_state(m->streams[0]);
    CNK_ASSERT(cnk_wal_vote(m->streams[1], cnk_wal_stream_state(m->streams[1])->term + 1, 1) == 0);
    if (st->durable_index > 20) CNK_ASSERT(cnk_wal_trim(m->streams[0], st->durable_index - 10, 0) == 0);
    st = cnk_wal_stream_state(m->streams[1]);
    CNK_ASSERT(cnk_wal_truncate(m->streams[1], st->last_index - 3) == 0);
    cnk_wal_stream_release(m->streams[2], cnk_wal_stream_state(m->streams[2])->durable_index / 2);
    cnk_wal_checkpoint(m->port);
    cnk_wal_kick(m->port);
}

static void begin(void *arg) {
    maker *m = arg;
    size_t it = 0;
    uint64_t id = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(m->wal, &it));) m->streams[id++] = s;
    for (uint64_t n = 0; n < id; n++) {
        cnk_wal_stream_attach(m->port, m->streams[n], NULL);
        if (n != 1) cnk_wal_stream_commit_set(m->streams[n], cnk_wal_stream_state(m->streams[n])->last_index);
    }
    while (++id <= STREAMS) CNK_ASSERT(cnk_wal_stream_new(m->port, id, NULL, &m->streams[id - 1]) == 0);
}

static void replace_and_drop(void *arg) {
    maker *m = arg;
    const cnk_wal_state *st = cnk_wal_stream_state(m->streams[2]);
    cnk_wal_stream *gone;
    CNK_ASSERT(cnk_wal_reset(m->streams[2], st->last_index + 7, st->last_term + 1, st->next_offset + 20) == 0);
    CNK_ASSERT(cnk_wal_stream_new(m->port, STREAMS + 1, NULL, &gone) == 0);
    CNK_ASSERT(cnk_wal_vote(gone, 1, 1) == 0 && cnk_wal_stream_drop(gone) == 0);
    cnk_wal_kick(m->port);
}

static void end(void *arg) { cnk_wal_drain(((maker *)arg)->port, on_drained, arg); }

static void do_on_loop(maker *m, void (*run)(void *)) {
    sim_world_on(m->sim, 0, run, m);
    sim_world_run(m->sim, 20 * SIM_MILLISECOND);
}

static void live(sim_disk *disk, bool again) {
    maker m = {.sim = sim_world_new(disk, NULL)};
    CNK_ASSERT(cnk_wal_open(sim_world_io(m.sim), options(), NULL, NULL, NULL, &m.wal) == 0);
    CNK_ASSERT(cnk_wal_port_open(m.wal, sim_world_loop(m.sim, 0), &events, &m, &m.port) == 0);
    do_on_loop(&m, begin);
    for (unsigned n = 0; n < 9; n++) {
        do_on_loop(&m, append_some);
        if (n % 6 == 4) do_on_loop(&m, change_some);
        if (again && n == 6) do_on_loop(&m, replace_and_drop);
    }
    sim_world_on(m.sim, 0, end, &m);
    for (unsigned n = 0; n < 1000 && !m.drained; n++) sim_world_run(m.sim, SIM_MILLISECOND);
    CNK_ASSERT(m.drained);
    cnk_wal_port_close(m.port);
    cnk_wal_free(m.wal);
    sim_world_free(m.sim);
}

static sim_disk *make(void) {
    sim_disk *disk = sim_disk_new(1, NULL);
    live(disk, false);
    live(disk, true);
    return disk;
}

/* ---- damage ------------------------------------------------------------------------------------------------------- */

typedef struct input {
    const uint8_t *p, *end;
} input;

static uint32_t take(input *in, unsigned bytes) {
    uint32_t v = 0;
    for (; bytes > 0 && in->p < in->end; bytes--) v = v << 8 | *in->p++;
    return v;
}

typedef struct names {
    char paths[FILES_MAX][64];
    uint64_t sizes[FILES_MAX];
    uint32_t count;
} names;

static void note_file(void *arg, const char *path, uint64_t size) {
    names *n = arg;
    if (n->count == FILES_MAX || size == 0) return;
    snprintf(n->paths[n->count], sizeof n->paths[0], "/%.62s", path + (path[0] == '/'));
    n->sizes[n->count++] = size;
}

/* Makes the checksum right again of the structure that begins at this page, if any. */
static void mend(sim_disk *disk, const char *path, uint64_t size, uint64_t page) {
    static uint8_t buf[1 << 20];
    size_t len = size - page < sizeof buf ? (size_t)(size - page) : sizeof buf;
    if (!sim_disk_peek(disk, path, page, buf, len)) return;
    if (strstr(path, ".checkpoint")) {
        if (page != 0 || len < 56) return;
        cnk_store_le64(buf + 48, len);
        cnk_store_le32(buf + 12, cnk_crc32c(0, buf + 16, len - 16));
        (void)sim_disk_poke(disk, path, 0, buf, 56);
    } else if (page == 0 && len >= CNK_WAL_ALIGN) {
        cnk_store_le32(buf + 12, cnk_crc32c(0, buf + 16, CNK_WAL_ALIGN - 16));
        (void)sim_disk_poke(disk, path, 0, buf, 16);
    } else if (len >= CNK_WAL_ALIGN && page + CNK_WAL_ALIGN == size && buf[0] == 'C' && buf[4] == 'E') {
        cnk_wal_trailer t;
        uint64_t uid = cnk_load_le64(buf + 16), pos = cnk_load_le64(buf + 24), bytes = cnk_load_le64(buf + 32);
        cnk_store_le32(buf + 8, cnk_crc32c(cnk_wal_seed(uid), buf + 12, CNK_WAL_TRAILER_BYTES - 12));
        static uint8_t footer[1 << 20];
        if (cnk_wal_trailer_get(buf, uid, &t) == 0 && bytes <= sizeof footer && pos <= size &&
            sim_disk_peek(disk, path, pos, footer, (size_t)bytes)) {
            t.footer_crc = cnk_crc32c(cnk_wal_seed(uid), footer, (size_t)bytes);
            cnk_wal_trailer_put(buf, &t);
        }
        (void)sim_disk_poke(disk, path, page, buf, CNK_WAL_TRAILER_BYTES);
    } else if (len >= CNK_WAL_ALIGN) {
        uint64_t uid = cnk_load_le64(buf + 8), pos = cnk_load_le32(buf + 48), bytes = (uint64_t)cnk_load_le32(buf + 44) * 72;
        if (pos + bytes <= len) cnk_store_le32(buf + 52, cnk_crc32c(cnk_wal_seed(uid), buf + pos, (size_t)bytes));
        cnk_store_le32(buf + 4, cnk_crc32c(cnk_wal_seed(uid), buf + 8, CNK_WAL_BLOCK_HEADER - 8));
        (void)sim_disk_poke(disk, path, page, buf, CNK_WAL_BLOCK_HEADER);
    }
}

static void cut_file(sim_disk *disk, const char *path, uint64_t size, bool whole) {
    sim_world *sim = sim_world_new(disk, NULL);
    const chronik_io *io = sim_world_io(sim);
    chronik_file *f;
    if (whole) {
        (void)io->disk_ops->unlink(io->disk, path, NULL);
        (void)io->disk_ops->sync_dir(io->disk, "/log", NULL);
    } else if (io->disk_ops->open(io->disk, path, CHRONIK_OPEN_WRITE, NULL, &f) == 0) {
        (void)io->disk_ops->truncate(io->disk, f, size, NULL);
        (void)io->disk_ops->sync(io->disk, f, NULL);
        io->disk_ops->close(io->disk, f);
    }
    sim_world_free(sim);
}

static void damage(sim_disk *disk, input *in) {
    for (unsigned step = 0; step < STEPS_MAX && in->p < in->end; step++) {
        names n = {.count = 0};
        sim_disk_each(disk, note_file, &n);
        CNK_ASSERT(n.count > 0 || step > 0); /* a log of several files is there */
        if (n.count == 0) return;
        uint32_t what = take(in, 1), file = take(in, 1) % n.count;
        const char *path = n.paths[file];
        uint64_t size = n.sizes[file], pages = (size + CNK_WAL_ALIGN - 1) / CNK_WAL_ALIGN;
        uint64_t page = take(in, 1) % pages * CNK_WAL_ALIGN;
        if (what % 16 >= 14) {
            cut_file(disk, path, page + take(in, 1), what % 16 == 15);
            continue;
        }
        uint64_t pos = page + take(in, 2) % CNK_WAL_ALIGN;
        uint8_t bytes[8];
        for (unsigned b = 0; b < 8; b++) bytes[b] = (uint8_t)take(in, 1);
        bool there = sim_disk_poke(disk, path, pos, bytes, what / 16 % 8 + 1);
        CNK_ASSERT(there || pos + 8 > size);
        if (what % 2) mend(disk, path, size, page);
    }
}

/* ---- what must hold ------------------------------------------------------------------------------------------------ */

static void read_all(cnk_wal *wal, bool sound) {
    static uint8_t buf[PAYLOAD_MAX];
    size_t it = 0;
    for (cnk_wal_stream *s; (s = cnk_wal_recovered_next(wal, &it));) {
        const cnk_wal_state *st = cnk_wal_stream_state(s);
        CNK_ASSERT(st->released_index <= st->last_index);
        for (uint64_t n = st->released_index + 1; n <= st->last_index; n++) {
            cnk_wal_place p;
            CNK_ASSERT(cnk_wal_find_index(s, n, &p) == 0 && p.entry.index == n);
            cnk_wal_file *f = cnk_wal_file_pin(wal, p.file_seq);
            CNK_ASSERT(f);
            if (p.entry.len <= sizeof buf) {
                int code = cnk_wal_file_read(f, p.file_pos, p.entry.len, p.crc, buf, NULL);
                CNK_ASSERT(code == 0 || (code == CHRONIK_ECORRUPT && !sound));
            }
            cnk_wal_file_unpin(f);
        }
    }
}

static bool recovers(sim_disk *disk, bool sound) {
    cnk_wal *wal = NULL;
    chronik_error err = CHRONIK_ERROR_INIT;
    sim_world *sim = sim_world_new(disk, NULL);
    int code = cnk_wal_open(sim_world_io(sim), options(), NULL, NULL, &err, &wal);
    CNK_ASSERT(code == 0 || (code == CHRONIK_ECORRUPT && err.text[0]) || code == CHRONIK_ENOMEM);
    if (code == 0) read_all(wal, sound);
    cnk_wal_free(wal);
    CNK_ASSERT(sim_world_open_files(sim) == 0);
    sim_world_free(sim);
    return code == 0;
}

static int fsck(sim_disk *disk, unsigned flags) {
    chronik_error err = CHRONIK_ERROR_INIT;
    sim_world *sim = sim_world_new(disk, NULL);
    int code = cnk_wal_fsck(sim_world_io(sim), "/log", flags, NULL, NULL, &err);
    CNK_ASSERT(code == 0 || err.text[0]);
    CNK_ASSERT(sim_world_open_files(sim) == 0);
    sim_world_free(sim);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sim_disk *whole;
    if (!whole) {
        whole = make();
        sim_disk *same = sim_disk_clone(whole, 2);
        CNK_ASSERT(fsck(same, 0) == 0 && recovers(same, true));
        sim_disk_free(same);
    }
    input in = {data, data + size};
    sim_disk *disk = sim_disk_clone(whole, 3);
    damage(disk, &in);
    sim_disk *other = sim_disk_clone(disk, 4);
    bool opens = recovers(other, false);
    sim_disk_free(other);
    int code = fsck(disk, 0);
    CNK_ASSERT(code == 0 || code == CHRONIK_ECORRUPT || code == CHRONIK_EUNSUPPORTED || code == CHRONIK_ENOMEM);
    CNK_ASSERT(opens || code != 0);
    if (code == CHRONIK_ECORRUPT && fsck(disk, CHRONIK_WAL_FSCK_CUT) == 0) code = fsck(disk, 0);
    if (code == 0) CNK_ASSERT(recovers(disk, true));
    sim_disk_free(disk);
    return 0;
}
