/* Checking a data directory while no node uses it: identity, write-ahead log, packs. */
#include <stdio.h>
#include <string.h>

#include <chronik/wal.h>

#include "base/error.h"
#include "base/mem.h"
#include "node/internal.h"
#include "tier/tier.h"

typedef struct teller {
    void (*line)(void *arg, const char *text);
    void *arg;
} teller;

static void say(void *arg, const char *text) {
    const teller *t = arg;
    if (t->line) t->line(t->arg, text);
}

/* The worse of two results: corruption is what was looked for, anything else kept us from looking. */
static int worse(int a, int b) { return a && a != CHRONIK_ECORRUPT ? a : b ? b : a; }

static int stop_at_once(void *arg, const char *name) {
    (void)arg;
    (void)name;
    return 1;
}

static bool is_directory(const chronik_io *io, const char *path) {
    return io->disk_ops->list(io->disk, path, stop_at_once, NULL, NULL) >= 0;
}

static bool is_file(const chronik_io *io, const char *path) {
    chronik_file *file = NULL;
    int rc = io->disk_ops->open(io->disk, path, CHRONIK_OPEN_READ, NULL, &file);
    io->disk_ops->close(io->disk, file);
    return rc == 0;
}

static int check(const chronik_io *io, const char *dir, unsigned flags, teller *t, chronik_error *err) {
    char path[4300], wal[4300];
    chronik_file *lock = NULL;
    cnk_identity id;
    snprintf(path, sizeof path, "%s/identity", dir);
    snprintf(wal, sizeof wal, "%s/wal", dir);
    if (!is_file(io, path) && !is_directory(io, wal)) return cnk_error(err, CHRONIK_ENOTFOUND, 0, "%s: there is no data directory of a node", dir);
    int rc = cnk_directory_take(io, dir, -1, err, &lock, &id);
    if (rc && rc != CHRONIK_ECORRUPT) return rc;
    say(t, rc ? (err ? err->text : "the identity is damaged") : "identity: sound");
    /* A data directory that has just been made holds neither. */
    unsigned cut = flags & CHRONIK_FSCK_CUT ? (unsigned)CHRONIK_WAL_FSCK_CUT : 0u;
    if (is_directory(io, wal)) rc = worse(rc, chronik_wal_fsck(wal, cut, say, t, err));
    snprintf(path, sizeof path, "%s/packs", dir);
    if (is_directory(io, path))
        rc = worse(rc, cnk_tier_check(io, path, (flags & CHRONIK_FSCK_QUARANTINE) != 0, say, t, err));
    io->disk_ops->close(io->disk, lock);
    return rc;
}

int chronik_fsck(const char *data_dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                 chronik_error *err) {
    teller t = {line, arg};
    chronik_io *io;
    chronik_error own = CHRONIK_ERROR_INIT;
    if (!data_dir || (flags & ~(unsigned)(CHRONIK_FSCK_CUT | CHRONIK_FSCK_QUARANTINE)))
        return cnk_error(err, CHRONIK_EINVAL, 0, "a directory is needed, and no other flags than CUT and QUARANTINE");
    int rc = chronik_io_posix_new(NULL, err, &io);
    if (rc) return rc;
    rc = check(io, data_dir, flags, &t, &own);
    if (rc && err) *err = own;
    chronik_io_posix_free(io);
    return rc;
}
