/* The simulated world's disk calls, with their latency and their fates; and its sockets, of which there are none. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "sim/io_state.h"

static const char *const op_names[SIM_OP_COUNT] = {
    [SIM_OPEN] = "open",     [SIM_CREATE] = "create",     [SIM_WRITE] = "write",       [SIM_READ] = "read",
    [SIM_SYNC] = "sync",     [SIM_ALLOCATE] = "allocate", [SIM_TRUNCATE] = "truncate", [SIM_SIZE] = "size",
    [SIM_RENAME] = "rename", [SIM_UNLINK] = "unlink",     [SIM_MKDIR] = "mkdir",       [SIM_SYNC_DIR] = "sync-dir",
    [SIM_LIST] = "list",     [SIM_LOCK] = "lock",         [SIM_SPACE] = "space"};

const char *sim_op_name(sim_op op) { return op < SIM_OP_COUNT ? op_names[op] : "?"; }

/* ---- disk calls ------------------------------------------------------------------------------------------------- */

/* How far an operation gets. */
typedef enum verdict {
    GO,      /* it is done, and its result told */
    NOTHING, /* it fails; nothing is done */
    PART,    /* it fails in the middle */
    ALL      /* all is done, but nobody hears of it */
} verdict;

typedef struct call {
    sim_world *world;
    sim_op op;
    const char *path;
    chronik_error *err;
    verdict verdict;
    int code; /* where it fails */
} call;

static uint64_t latency_ns(sim_world *world, sim_op op) {
    if (sim_chance(world, 100)) /* the device is busy with something else */
        return sim_below(world, 50 * SIM_MILLISECOND);
    switch (op) {
    case SIM_SYNC:
    case SIM_SYNC_DIR:
        return 20 * SIM_MICROSECOND + sim_below(world, 3 * SIM_MILLISECOND);
    case SIM_READ:
    case SIM_WRITE:
    case SIM_ALLOCATE:
        return 5 * SIM_MICROSECOND + sim_below(world, 300 * SIM_MICROSECOND);
    default:
        return sim_below(world, 50 * SIM_MICROSECOND);
    }
}

static call dead_call(call c) {
    c.code = CHRONIK_EIO;
    c.verdict = NOTHING;
    return c;
}

static verdict draw_middle(sim_world *world) { return (verdict)(NOTHING + sim_below(world, 3)); }

/* Every call begins here: its time passes, it is counted, and its fate is known. */
static call call_begin(sim_world *world, sim_op op, const char *path, chronik_error *err) {
    call c = {world, op, path, err, GO, 0};
    assert(!world->in_loop); /* a blocking call on a running shard */
    if (world->dead)
        return dead_call(c);
    sim_pass(world, latency_ns(world, op));
    if (world->dead) { /* in the middle of this one */
        c = dead_call(c);
        c.verdict = world->crashed ? draw_middle(world) : NOTHING;
        return c;
    }
    world->calls++;
    char class[SIM_LABEL_SIZE - 16];
    sim_path_class(path, class, sizeof class);
    snprintf(world->last_call, sizeof world->last_call, "%s %s", sim_op_name(op), class);
    bool crash = world->calls == world->crash_at;
    int code = crash ? 0 : sim_fault_take(world, op, path);
    if (world->options.coverage)
        sim_coverage_add(world->options.coverage, world->last_call, 1, crash, code != 0);
    sim_trace(world, "#%llu %s %s%s%s", (unsigned long long)world->calls, sim_op_name(op), path, code ? ": " : "",
          code ? chronik_error_name(code) : "");
    sim_mix(world, (world->calls << 8) ^ (uint64_t)op);
    sim_mix(world, cnk_crc32c(0, path, strlen(path)));
    if (crash) {
        sim_die(world, world->last_call);
        c = dead_call(c);
        c.verdict = draw_middle(world);
    } else if (code) {
        c.code = code;
        c.verdict = PART;
    }
    return c;
}

/* Every call ends here: rc is what the disk said, where it was asked. */
static int call_end(const call *c, int rc) {
    if (c->code)
        rc = c->code;
    sim_mix(c->world, (uint64_t)(int64_t)rc);
    if (rc >= 0)
        return rc;
    return cnk_error(c->err, rc, c->code == CHRONIK_EIO ? EIO : 0, "%s: simulated %s fails", c->path,
                     sim_op_name(c->op));
}

/* Operations that have no middle: a failure leaves no trace, a crash may. */
static bool happens(const call *c) { return c->verdict == GO || (c->verdict == ALL && c->world->dead); }

static chronik_file *file_new(sim_world *world, const char *path, unsigned flags, sim_inode *inode) {
    size_t len = strlen(path) + 1;
    chronik_file *file = malloc(sizeof *file + len);
    if (!file)
        abort();
    memcpy(file->path, path, len);
    file->flags = flags;
    file->inode = inode;
    file->link = (cnk_list){NULL, NULL};
    cnk_list_push_back(&world->files, &file->link);
    world->open_files++;
    return file;
}

static int op_open(void *self, const char *path, unsigned flags, chronik_error *err, chronik_file **ret_file) {
    sim_world *world = self;
    bool creates = (flags & CHRONIK_OPEN_CREATE) && !sim_disk_exists(world->disk, path);
    call c = call_begin(world, creates ? SIM_CREATE : SIM_OPEN, path, err);
    if (!sim_disk_has_direct(world->disk))
        flags &= ~(unsigned)CHRONIK_OPEN_DIRECT;
    sim_inode *inode = NULL;
    int rc = happens(&c) ? sim_disk_open(world->disk, path, flags, &inode) : 0;
    if (c.code && inode)
        sim_disk_close(world->disk, inode, flags);
    rc = call_end(&c, rc);
    if (rc == 0)
        *ret_file = file_new(world, path, flags, inode);
    return rc;
}

static void op_close(void *self, chronik_file *file) {
    if (file)
        sim_file_free(self, file);
}

static bool aligned(uint64_t v) { return v % DIRECT_ALIGN == 0; }

static uint32_t iov_crc(const struct iovec *iov, int iov_count) {
    uint32_t crc = 0;
    for (int i = 0; i < iov_count; i++)
        crc = cnk_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
    return crc;
}

static int op_write(void *self, chronik_file *file, const struct iovec *iov, int iov_count, uint64_t pos,
                    chronik_error *err) {
    sim_world *world = self;
    bool direct = (file->flags & CHRONIK_OPEN_DIRECT) != 0, legal = (file->flags & CHRONIK_OPEN_WRITE) != 0;
    uint32_t crc = iov_crc(iov, iov_count);
    call c = call_begin(world, SIM_WRITE, file->path, err);
    assert(iov_crc(iov, iov_count) == crc); /* someone changed the bytes while they were being written */
    for (int i = 0; i < iov_count; i++)
        legal = legal && (!direct || (aligned((uintptr_t)iov[i].iov_base) && aligned(iov[i].iov_len)));
    legal = legal && (!direct || aligned(pos));
    sim_mix(world, pos ^ ((uint64_t)crc << 32));
    sim_trace(world, "   write at %llu", (unsigned long long)pos);
    int rc = 0;
    if (!legal)
        rc = CHRONIK_EIO; /* EINVAL or EBADF of the real world */
    else if (c.verdict == GO || c.verdict == ALL)
        rc = sim_disk_write(world->disk, file->inode, direct, iov, iov_count, pos);
    else if (c.verdict == PART)
        sim_disk_write_part(world->disk, file->inode, direct, iov, iov_count, pos);
    return call_end(&c, rc);
}

static int64_t op_read(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    sim_world *world = self;
    bool direct = (file->flags & CHRONIK_OPEN_DIRECT) != 0, legal = (file->flags & CHRONIK_OPEN_READ) != 0;
    call c = call_begin(world, SIM_READ, file->path, err);
    sim_mix(world, pos ^ ((uint64_t)len << 32));
    if (direct && (!aligned((uintptr_t)buf) || !aligned(len) || !aligned(pos)))
        legal = false;
    if (c.verdict != GO) { /* a failed read leaves anything behind */
        memset(buf, (int)sim_below(world, 256), len);
        return call_end(&c, 0);
    }
    size_t n = legal ? sim_disk_read(world->disk, file->inode, direct, buf, len, pos) : 0;
    int rc = call_end(&c, legal ? 0 : CHRONIK_EIO);
    return rc < 0 ? rc : (int64_t)n;
}

static int64_t op_read_cached(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos) {
    sim_world *world = self;
    if (world->dead || (file->flags & CHRONIK_OPEN_DIRECT) || sim_chance(world, 3))
        return CHRONIK_EAGAIN;
    if (len > 1 && sim_chance(world, 4))
        len = 1 + (size_t)sim_below(world, len);
    return (int64_t)sim_disk_read(world->disk, file->inode, false, buf, len, pos);
}

/* A disk that says that it has synced, and has not. */
static bool lies(sim_world *world) { return world->lies_one_in > 0 && sim_chance(world, world->lies_one_in); }

static int op_sync(void *self, chronik_file *file, chronik_error *err) {
    sim_world *world = self;
    call c = call_begin(world, SIM_SYNC, file->path, err);
    if (c.verdict == GO && lies(world))
        ;
    else if (c.verdict == GO || c.verdict == ALL)
        sim_disk_sync(world->disk, file->inode);
    else if (c.verdict == PART && world->dead)
        sim_disk_sync_part(world->disk, file->inode);
    else if (c.verdict == PART)
        sim_disk_sync_fail(world->disk, file->inode);
    return call_end(&c, 0);
}

static int op_allocate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    call c = call_begin(self, SIM_ALLOCATE, file->path, err);
    return call_end(&c, happens(&c) ? sim_disk_allocate(c.world->disk, file->inode, len) : 0);
}

static int op_truncate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    call c = call_begin(self, SIM_TRUNCATE, file->path, err);
    return call_end(&c, happens(&c) ? sim_disk_truncate(c.world->disk, file->inode, len) : 0);
}

static int op_size_get(void *self, chronik_file *file, chronik_error *err, uint64_t *ret_len) {
    call c = call_begin(self, SIM_SIZE, file->path, err);
    int rc = call_end(&c, 0);
    if (rc == 0)
        *ret_len = sim_disk_inode_size(file->inode);
    return rc;
}

static int op_rename(void *self, const char *from, const char *to, chronik_error *err) {
    call c = call_begin(self, SIM_RENAME, to, err);
    sim_mix(c.world, cnk_crc32c(0, from, strlen(from)));
    return call_end(&c, happens(&c) ? sim_disk_rename(c.world->disk, from, to) : 0);
}

static int op_unlink(void *self, const char *path, chronik_error *err) {
    call c = call_begin(self, SIM_UNLINK, path, err);
    return call_end(&c, happens(&c) ? sim_disk_unlink(c.world->disk, path) : 0);
}

static int op_mkdir(void *self, const char *path, chronik_error *err) {
    call c = call_begin(self, SIM_MKDIR, path, err);
    return call_end(&c, happens(&c) ? sim_disk_mkdir(c.world->disk, path) : 0);
}

static int op_sync_dir(void *self, const char *path, chronik_error *err) {
    sim_world *world = self;
    call c = call_begin(world, SIM_SYNC_DIR, path, err);
    int rc = 0;
    if (c.verdict == GO && lies(world))
        ;
    else if (c.verdict == GO || c.verdict == ALL)
        rc = sim_disk_sync_dir(world->disk, path);
    else if (c.verdict == PART && world->dead)
        sim_disk_sync_dir_part(world->disk, path);
    else if (c.verdict == PART)
        sim_disk_sync_dir_fail(world->disk, path);
    return call_end(&c, rc);
}

static int op_list(void *self, const char *path, int (*each)(void *arg, const char *name), void *arg,
                   chronik_error *err) {
    call c = call_begin(self, SIM_LIST, path, err);
    char **names = NULL;
    int rc = call_end(&c, c.verdict == GO ? sim_disk_list(c.world->disk, path, &names) : 0);
    for (size_t i = 0; names && names[i]; i++) {
        if (rc == 0)
            rc = each(arg, names[i]);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int op_lock(void *self, const char *path, chronik_error *err, chronik_file **ret_file) {
    sim_world *world = self;
    unsigned flags = CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE;
    call c = call_begin(world, SIM_LOCK, path, err);
    sim_inode *inode = NULL;
    int rc = happens(&c) ? sim_disk_open(world->disk, path, flags, &inode) : 0;
    if (inode) {
        if (!c.code)
            rc = sim_disk_lock(world->disk, inode);
        if (c.code || rc < 0)
            sim_disk_close(world->disk, inode, flags);
    }
    rc = call_end(&c, rc);
    if (rc == 0)
        *ret_file = file_new(world, path, flags | SIM_OPEN_LOCK, inode);
    return rc;
}

static int op_space(void *self, const char *path, chronik_error *err, chronik_disk_space *ret_space) {
    call c = call_begin(self, SIM_SPACE, path, err);
    int rc = call_end(&c, c.verdict != GO || sim_disk_exists(c.world->disk, path) ? 0 : CHRONIK_ENOTFOUND);
    if (rc == 0)
        *ret_space = (chronik_disk_space){sim_disk_space(c.world->disk), sim_disk_space_free(c.world->disk)};
    return rc;
}

static void op_forget(void *self, chronik_file *file, uint64_t pos, uint64_t len) {
    sim_world *world = self;
    if (!world->dead)
        sim_disk_forget(world->disk, file->inode, pos, len);
}

const chronik_disk_ops sim_disk_ops = {
    .size = sizeof(chronik_disk_ops),
    .open = op_open,
    .close = op_close,
    .write = op_write,
    .read = op_read,
    .read_cached = op_read_cached,
    .sync = op_sync,
    .allocate = op_allocate,
    .truncate = op_truncate,
    .size_get = op_size_get,
    .rename = op_rename,
    .unlink = op_unlink,
    .mkdir = op_mkdir,
    .sync_dir = op_sync_dir,
    .list = op_list,
    .lock = op_lock,
    .space = op_space,
    .forget = op_forget,
};

/* ---- sockets: none ---------------------------------------------------------------------------------------------- */

static int net_listen(void *self, const char *host, uint16_t port, chronik_error *err, int *ret_fd,
                      chronik_address *ret_local) {
    (void)self, (void)port, (void)ret_fd, (void)ret_local;
    return cnk_error(err, CHRONIK_EUNSUPPORTED, 0, "%s: the simulated world has no sockets", host);
}

static int net_accept(void *self, int fd, int *ret_fd, chronik_address *ret_local, chronik_address *ret_peer) {
    (void)self, (void)fd, (void)ret_fd, (void)ret_local, (void)ret_peer;
    return CHRONIK_EUNSUPPORTED;
}

static ssize_t net_move(void *self, int fd, const struct iovec *iov, int iov_count) {
    (void)self, (void)fd, (void)iov, (void)iov_count;
    return CHRONIK_EUNSUPPORTED;
}

static void net_close(void *self, int fd) { (void)self, (void)fd; }

const chronik_net_ops sim_net_ops = {.size = sizeof(chronik_net_ops),
                                        .listen = net_listen,
                                        .accept = net_accept,
                                        .recv = net_move,
                                        .send = net_move,
                                        .close = net_close};
