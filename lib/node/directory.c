/* A data directory: who may use it, and whose it is.
 *
 *     lock       held exclusively while a node uses the directory; empty; its contents mean nothing
 *     identity   written once, before anything else:
 *
 *         chronik-directory=1                       the version of this file's form
 *         node.id=1
 *         directory.id=<22 characters of base64>    random
 *         cluster.id=<22 characters of base64>      random, unless the cluster has one already
 *         crc32c=<8 hex digits>                     of all bytes before this line
 *
 *     wal/       lib/wal
 *     packs/     lib/tier
 *
 * Crash rule. Before all else the names of the directory and of its parents are synced. `identity` is written as
 * identity.new, synced, renamed, and the directory synced, before wal/ is made. So where wal/ is there and `identity`
 * is not, or does not match its CRC, something else has been at work: ECORRUPT. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "node/internal.h"

enum { PATH_BYTES = 4200, IDENTITY_BYTES_MAX = 1024 };

/* mkdir -p. A parent that exists may be unreadable, so only the last one's failure counts. */
static int make_directory(const chronik_io *io, const char *path, chronik_error *err) {
    char part[PATH_BYTES];
    size_t len = strlen(path);
    if (len >= sizeof part) return cnk_error(err, CHRONIK_EINVAL, 0, "data.dir is too long; give a shorter path");
    for (size_t i = 1; i < len; i++) {
        if (path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        (void)io->disk_ops->mkdir(io->disk, part, NULL);
    }
    int rc = io->disk_ops->mkdir(io->disk, path, err);
    return rc == CHRONIK_EEXIST ? 0 : rc;
}

/* Makes the names of the directory and of its parents durable: all of them, since a start that was killed may have made
 * any. Those above may be unreadable, and were not made by us then. */
static int sync_parents(const chronik_io *io, const char *path, chronik_error *err) {
    char part[PATH_BYTES];
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    for (bool last = true;; last = false) {
        while (len > 0 && path[len - 1] != '/') len--;
        while (len > 1 && path[len - 1] == '/') len--;
        memcpy(part, len ? path : ".", len ? len : 1);
        part[len ? len : 1] = '\0';
        int rc = io->disk_ops->sync_dir(io->disk, part, last ? err : NULL);
        if (rc && last) return rc;
        if (len == 0 || (len == 1 && path[0] == '/')) return 0;
    }
}

static int corrupt(chronik_error *err, const char *path, const char *why) {
    return cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: %s; restore the file from a backup, or give another data.dir", path,
                     why);
}

/* The text after "name=" on a line of its own. */
static const char *field(const char *text, const char *name, char *buf, size_t size) {
    size_t n = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, name, n) != 0 || line[n] != '=') continue;
        size_t len = strcspn(line + n + 1, "\n");
        if (len >= size) return NULL;
        memcpy(buf, line + n + 1, len);
        buf[len] = '\0';
        return buf;
    }
    return NULL;
}

static int parse_identity(const char *path, const char *text, chronik_error *err, cnk_identity *ret) {
    char buf[64];
    const char *crc_line = strstr(text, "\ncrc32c=");
    if (!crc_line || !field(crc_line + 1, "crc32c", buf, sizeof buf)) return corrupt(err, path, "it has no checksum");
    if (strtoul(buf, NULL, 16) != cnk_crc32c(0, text, (size_t)(crc_line + 1 - text)))
        return corrupt(err, path, "its checksum does not match");
    if (!field(text, "chronik-directory", buf, sizeof buf) || strcmp(buf, "1") != 0)
        return cnk_error(err, CHRONIK_EUNSUPPORTED, 0, "%s: the directory was made by a later version; use that one", path);
    cnk_identity id;
    if (!field(text, "node.id", buf, sizeof buf)) return corrupt(err, path, "it has no node.id");
    id.node_id = (int32_t)strtol(buf, NULL, 10);
    if (!field(text, "directory.id", buf, sizeof buf) || cnk_uuid_parse(buf, &id.directory_id) ||
        !field(text, "cluster.id", buf, sizeof buf) || cnk_uuid_parse(buf, &id.cluster_id))
        return corrupt(err, path, "it has no ids");
    *ret = id;
    return 0;
}

static int write_identity(const chronik_io *io, const char *dir, const char *path, const cnk_identity *id,
                          chronik_error *err) {
    char fresh[PATH_BYTES], text[IDENTITY_BYTES_MAX], directory_id[CNK_UUID_TEXT_SIZE], cluster_id[CNK_UUID_TEXT_SIZE];
    cnk_uuid_format(&id->directory_id, directory_id);
    cnk_uuid_format(&id->cluster_id, cluster_id);
    int n = snprintf(text, sizeof text, "chronik-directory=1\nnode.id=%" PRId32 "\ndirectory.id=%s\ncluster.id=%s\n",
                     id->node_id, directory_id, cluster_id);
    int m = snprintf(text + n, sizeof text - (size_t)n, "crc32c=%08" PRIx32 "\n", cnk_crc32c(0, text, (size_t)n));
    snprintf(fresh, sizeof fresh, "%s/identity.new", dir);
    struct iovec iov = {text, (size_t)(n + m)};
    chronik_file *file = NULL;
    int rc = io->disk_ops->open(io->disk, fresh, CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE, err, &file);
    if (!rc) rc = io->disk_ops->truncate(io->disk, file, 0, err);
    if (!rc) rc = io->disk_ops->write(io->disk, file, &iov, 1, 0, err);
    if (!rc) rc = io->disk_ops->sync(io->disk, file, err);
    io->disk_ops->close(io->disk, file);
    if (!rc) rc = io->disk_ops->rename(io->disk, fresh, path, err);
    if (!rc) rc = io->disk_ops->sync_dir(io->disk, dir, err);
    return rc;
}

static int stop_at_wal(void *arg, const char *name) {
    (void)arg;
    return strcmp(name, "wal") == 0 || strcmp(name, "packs") == 0;
}

static int make_identity(const chronik_io *io, const char *dir, const char *path, int32_t node_id, chronik_error *err,
                         cnk_identity *ret) {
    int rc = io->disk_ops->list(io->disk, dir, stop_at_wal, NULL, err);
    if (rc < 0) return rc;
    if (rc > 0) return corrupt(err, path, "it is missing, though the directory holds data");
    uint8_t entropy[32];
    io->entropy(io->entropy_self, entropy, sizeof entropy);
    cnk_identity id = {.node_id = node_id};
    cnk_uuid_make(entropy, &id.directory_id);
    cnk_uuid_make(entropy + 16, &id.cluster_id);
    rc = sync_parents(io, dir, err);
    if (!rc) rc = write_identity(io, dir, path, &id, err);
    if (!rc) *ret = id;
    return rc;
}

int cnk_directory_take(const chronik_io *io, const char *dir, int32_t node_id, chronik_error *err,
                       chronik_file **ret_lock, cnk_identity *ret_identity) {
    char path[PATH_BYTES], text[IDENTITY_BYTES_MAX];
    chronik_file *lock = NULL, *file = NULL;
    cnk_identity id = {0};
    int rc = make_directory(io, dir, err);
    if (rc) return rc;
    snprintf(path, sizeof path, "%s/lock", dir);
    rc = io->disk_ops->lock(io->disk, path, err, &lock);
    if (rc == CHRONIK_EBUSY)
        return cnk_error(err, rc, 0, "%s is in use by another node; stop that one, or give another data.dir", dir);
    if (rc) return rc;
    snprintf(path, sizeof path, "%s/identity", dir);
    chronik_error why = CHRONIK_ERROR_INIT;
    rc = io->disk_ops->open(io->disk, path, CHRONIK_OPEN_READ, &why, &file);
    if (rc && rc != CHRONIK_ENOTFOUND && err) *err = why;
    if (rc == CHRONIK_ENOTFOUND) {
        rc = make_identity(io, dir, path, node_id < 0 ? 1 : node_id, err, &id);
    } else if (!rc) {
        int64_t len = io->disk_ops->read(io->disk, file, text, sizeof text - 1, 0, err);
        if (len >= 0) {
            text[len] = '\0';
            rc = parse_identity(path, text, err, &id);
        } else {
            rc = (int)len;
        }
    }
    if (!rc && node_id >= 0 && id.node_id != node_id)
        rc = cnk_error(err, CHRONIK_EINVAL, 0, "%s belongs to node %" PRId32 ", not to node %" PRId32
                       "; set node.id=%" PRId32 ", or give another data.dir", dir, id.node_id, node_id, id.node_id);
    io->disk_ops->close(io->disk, file);
    if (rc) {
        io->disk_ops->close(io->disk, lock);
        return rc;
    }
    *ret_lock = lock;
    *ret_identity = id;
    return 0;
}
