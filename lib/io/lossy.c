/* A disk that forgets what was not synced: kill -9 of a process that uses it loses what a power failure would lose.
 *
 * Wraps another disk. No data, and no name, reaches that one before its sync:
 *
 *     data     each file has a list of changes (writes, truncations, reservations) since its last sync. Reads see them.
 *              `sync` does them below, in order, and syncs below. That is all in this process's memory, and dies with it.
 *              Only the blocks, of writes and of reservations, are taken below at once: it is these that find a disk full,
 *              not the sync.
 *     names    creations, renames and deletions are a list of operations. Lookups and listings see them. `sync_dir` does
 *              those that touch the directory, and the earlier ones on the same names that they need, below, and
 *              syncs the directory below. So names are lost, and reordered, as STORAGE's simulated disk has it: a file whose
 *              name was not synced is gone, however often its data was.
 *
 * A new file, or directory, has a place below from the start, since its data may be synced before its name: it has a
 * hidden name, .lossy-<process>-<number>, until sync_dir renames it. Listings leave hidden names out, and remove files that
 * others have left behind.
 *
 * Memory is limited (lossy.h). Not supported: renaming directories; links; one file by two different spellings of
 * its path, but for doubled slashes.
 *
 * Locks: `names` guards the operations, the entries and the list of inodes; each inode's `data` guards its changes.
 * `names` is taken first. They are held while the disk below works, so concurrent calls on one file wait for its sync;
 * read_cached does not wait but says EAGAIN. */
#include "io/lossy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "io/lossy_state.h"
#include "io/posix.h"

/* ---- data ------------------------------------------------------------------------------------------------------- */

static int change_do(lossy *l, inode *n, change *c, chronik_error *err) {
    if (c->kind == CHANGE_TRUNCATE)
        return l->ops->truncate(l->disk, n->file, c->pos, err);
    if (c->kind == CHANGE_ALLOCATE)
        return l->ops->allocate(l->disk, n->file, c->pos, err);
    struct iovec iov = {c->data, c->len};
    return l->ops->write(l->disk, n->file, &iov, 1, c->pos, err);
}

/* Brings the changes to the disk below, without a sync. */
static int changes_do(lossy *l, inode *n, chronik_error *err) {
    while (n->changes) {
        change *c = n->changes;
        int rc = change_do(l, n, c, err);
        if (rc < 0)
            return rc;
        if (c->kind == CHANGE_TRUNCATE)
            n->size_below = c->pos;
        else if (c->pos + c->len > n->size_below)
            n->size_below = c->pos + c->len;
        n->changes = c->next;
        if (!n->changes)
            n->changes_end = &n->changes;
        cnk_lossy_change_free(l, c);
    }
    return 0;
}

static change *change_new(lossy *l, inode *n, int kind, uint64_t pos, size_t len) {
    change *c = cnk_malloc(sizeof *c + len);
    if (!c)
        return NULL;
    c->next = NULL;
    c->kind = kind == CHANGE_WRITE ? CHANGE_WRITE : kind == CHANGE_TRUNCATE ? CHANGE_TRUNCATE : CHANGE_ALLOCATE;
    c->pos = pos;
    c->len = len;
    atomic_fetch_add(&l->bytes, len);
    *n->changes_end = c;
    n->changes_end = &c->next;
    return c;
}

/* The blocks below are taken when the caller can cope with having none: a sync must not find the disk full. */
static int blocks_take(lossy *l, inode *n, uint64_t len, chronik_error *err) {
    int rc = l->ops->allocate(l->disk, n->file, len, err);
    if (rc == 0 && len > n->size_below)
        n->size_below = len;
    return rc;
}

/* Puts the changes over the bytes [pos, pos + len) of the disk below; the buffer is zero where that one ends. */
static void changes_show(const inode *n, uint8_t *buf, size_t len, uint64_t pos) {
    for (const change *c = n->changes; c; c = c->next) {
        if (c->kind == CHANGE_TRUNCATE && c->pos < pos + len) {
            size_t from = c->pos > pos ? (size_t)(c->pos - pos) : 0;
            memset(buf + from, 0, len - from);
        } else if (c->kind == CHANGE_WRITE && c->pos < pos + len && c->pos + c->len > pos) {
            uint64_t from = c->pos > pos ? c->pos : pos;
            uint64_t end = c->pos + c->len < pos + len ? c->pos + c->len : pos + len;
            memcpy(buf + (from - pos), c->data + (from - c->pos), (size_t)(end - from));
        }
    }
}

/* ---- operations on files ---------------------------------------------------------------------------------------- */

static chronik_file *file_new(const char *path, chronik_error *err) {
    size_t len = strlen(path) + 1;
    chronik_file *file = cnk_calloc(1, sizeof *file + len);
    if (file)
        memcpy(file->path, path, len);
    else
        cnk_lossy_no_memory(err, path);
    return file;
}

static int create(lossy *l, const char *path, chronik_error *err, inode **ret_inode) {
    char below[PATH_SIZE];
    inode *n = NULL;
    int rc = cnk_lossy_hidden_path(l, path, below, err);
    if (rc == 0)
        rc = cnk_lossy_inode_new(l, below, err, &n);
    if (rc < 0)
        return rc;
    n->refs = 1;
    rc = cnk_lossy_inode_open(l, n, CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_EXCL, err);
    if (rc == 0) {
        rc = cnk_lossy_op_add(l, NULL, path, n, err);
        if (rc < 0)
            l->ops->unlink(l->disk, below, NULL);
    }
    if (rc < 0)
        cnk_lossy_inode_unref(l, n);
    else
        *ret_inode = n;
    return rc;
}

static int lossy_open(void *self, const char *given, unsigned flags, chronik_error *err, chronik_file **ret_file) {
    lossy *l = self;
    char path[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    chronik_file *file = file_new(given, err);
    if (!file)
        return CHRONIK_ENOMEM;
    pthread_mutex_lock(&l->names);
    chronik_error quiet = CHRONIK_ERROR_INIT;
    rc = cnk_lossy_inode_at(l, path, &quiet, &file->inode);
    if (rc == 0 && (flags & CHRONIK_OPEN_CREATE) && (flags & CHRONIK_OPEN_EXCL)) {
        cnk_lossy_inode_unref(l, file->inode);
        rc = cnk_error(err, CHRONIK_EEXIST, 0, "%s: is there already", given);
    } else if (rc == 0 && file->inode->is_dir) {
        cnk_lossy_inode_unref(l, file->inode);
        rc = cnk_error(err, CHRONIK_EIO, 0, "%s: is a directory", given);
    } else if (rc == CHRONIK_ENOTFOUND && (flags & CHRONIK_OPEN_CREATE)) {
        rc = create(l, path, err, &file->inode);
    } else if (rc < 0 && err) {
        *err = quiet;
    }
    if (rc == 0)
        file->inode->handles++;
    pthread_mutex_unlock(&l->names);
    if (rc < 0) {
        cnk_free(file);
        return rc;
    }
    file->flags = flags;
    *ret_file = file;
    return 0;
}

static void lossy_close(void *self, chronik_file *file) {
    lossy *l = self;
    if (!file)
        return;
    if (file->lock)
        l->ops->close(l->disk, file->lock);
    if (file->inode) {
        pthread_mutex_lock(&l->names);
        file->inode->handles--;
        cnk_lossy_inode_let_go(l, file->inode);
        cnk_lossy_inode_unref(l, file->inode);
        pthread_mutex_unlock(&l->names);
    }
    cnk_free(file);
}

static int lossy_write(void *self, chronik_file *file, const struct iovec *iov, int iov_count, uint64_t pos,
                       chronik_error *err) {
    lossy *l = self;
    inode *n = file->inode;
    if (!(file->flags & CHRONIK_OPEN_WRITE))
        return cnk_error(err, CHRONIK_EIO, 0, "%s: not opened for writing", file->path);
    size_t len = 0;
    for (int i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    if (len == 0)
        return 0;
    pthread_mutex_lock(&n->data);
    int rc = pos + len > n->size_below ? blocks_take(l, n, pos + len, err) : 0;
    change *c = rc == 0 ? change_new(l, n, CHANGE_WRITE, pos, len) : NULL;
    if (c) {
        size_t done = 0;
        for (int i = 0; i < iov_count; i++) {
            if (iov[i].iov_len > 0)
                memcpy(c->data + done, iov[i].iov_base, iov[i].iov_len);
            done += iov[i].iov_len;
        }
        if (pos + len > n->size)
            n->size = pos + len;
        if (atomic_load(&l->bytes) > l->bytes_max)
            rc = changes_do(l, n, err);
    } else if (rc == 0) {
        rc = cnk_lossy_no_memory(err, file->path);
    }
    pthread_mutex_unlock(&n->data);
    return rc;
}

static int64_t lossy_read(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    lossy *l = self;
    inode *n = file->inode;
    if (!(file->flags & CHRONIK_OPEN_READ))
        return cnk_error(err, CHRONIK_EIO, 0, "%s: not opened for reading", file->path);
    pthread_mutex_lock(&n->data);
    int64_t rc = 0;
    if (pos < n->size) {
        if (len > n->size - pos)
            len = (size_t)(n->size - pos);
        rc = l->ops->read(l->disk, n->file, buf, len, pos, err);
        if (rc >= 0) {
            memset((uint8_t *)buf + rc, 0, len - (size_t)rc);
            changes_show(n, buf, len, pos);
            rc = (int64_t)len;
        }
    }
    pthread_mutex_unlock(&n->data);
    return rc;
}

static int64_t lossy_read_cached(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos) {
    lossy *l = self;
    inode *n = file->inode;
    if (!(file->flags & CHRONIK_OPEN_READ) || pthread_mutex_trylock(&n->data) != 0)
        return CHRONIK_EAGAIN;
    int64_t rc = 0;
    if (pos < n->size) {
        if (len > n->size - pos)
            len = (size_t)(n->size - pos);
        memset(buf, 0, len);
        if (pos < n->size_below)
            rc = l->ops->read_cached(l->disk, n->file, buf, len, pos);
        if (rc >= 0 && pos + (uint64_t)rc >= n->size_below)
            rc = (int64_t)len; /* the rest is not below */
        if (rc > 0)
            changes_show(n, buf, (size_t)rc, pos);
    }
    pthread_mutex_unlock(&n->data);
    return rc;
}

static int lossy_sync(void *self, chronik_file *file, chronik_error *err) {
    lossy *l = self;
    inode *n = file->inode;
    pthread_mutex_lock(&n->data);
    int rc = changes_do(l, n, err);
    if (rc == 0)
        rc = l->ops->sync(l->disk, n->file, err);
    pthread_mutex_unlock(&n->data);
    return rc;
}

/* A disk may take what it has and fail only then; so what cannot fit is refused before it is tried. */
static int space_for(lossy *l, const chronik_file *file, uint64_t more, chronik_error *err) {
    char dir[PATH_SIZE];
    chronik_disk_space space = {0};
    pthread_mutex_lock(&l->names);
    const char *below = file->inode->below ? file->inode->below : "";
    snprintf(dir, sizeof dir, "%.*s", (int)cnk_lossy_dir_len(below), below);
    int rc = l->ops->space(l->disk, *dir ? dir : ".", err, &space);
    pthread_mutex_unlock(&l->names);
    if (rc == 0 && more > space.usable_bytes)
        rc = cnk_error(err, CHRONIK_ENOSPC, 0, "%s: cannot reserve space", file->path);
    return rc;
}

/* A change too where others wait, since a truncation among them would give the blocks back. */
static int lossy_allocate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    lossy *l = self;
    inode *n = file->inode;
    pthread_mutex_lock(&n->data);
    uint64_t size = n->size;
    pthread_mutex_unlock(&n->data);
    int rc = len > size ? space_for(l, file, len - size, err) : 0;
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&n->data);
    rc = blocks_take(l, n, len, err);
    if (rc == 0 && n->changes && !change_new(l, n, CHANGE_ALLOCATE, len, 0))
        rc = cnk_lossy_no_memory(err, file->path);
    if (rc == 0 && len > n->size)
        n->size = len;
    pthread_mutex_unlock(&n->data);
    return rc;
}

static int lossy_truncate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    lossy *l = self;
    inode *n = file->inode;
    pthread_mutex_lock(&n->data);
    int rc = 0;
    if (change_new(l, n, CHANGE_TRUNCATE, len, 0))
        n->size = len;
    else
        rc = cnk_lossy_no_memory(err, file->path);
    pthread_mutex_unlock(&n->data);
    return rc;
}

static int lossy_size_get(void *self, chronik_file *file, chronik_error *err, uint64_t *ret_len) {
    (void)self;
    (void)err;
    pthread_mutex_lock(&file->inode->data);
    *ret_len = file->inode->size;
    pthread_mutex_unlock(&file->inode->data);
    return 0;
}

static void lossy_forget(void *self, chronik_file *file, uint64_t pos, uint64_t len) {
    lossy *l = self;
    l->ops->forget(l->disk, file->inode->file, pos, len); /* only what is below; the changes stay */
}

/* ---- operations on names ---------------------------------------------------------------------------------------- */

/* The reference's last use: the file has lost its only name, or has not. */
static void name_lost(lossy *l, inode *n, bool lost) {
    n->nameless |= lost;
    cnk_lossy_inode_let_go(l, n);
    cnk_lossy_inode_unref(l, n);
}

static int lossy_rename(void *self, const char *given_from, const char *given_to, chronik_error *err) {
    lossy *l = self;
    char from[PATH_SIZE], to[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given_from, from, err);
    if (rc == 0)
        rc = cnk_lossy_path_tidy(given_to, to, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    inode *n = NULL, *replaced = NULL;
    rc = cnk_lossy_inode_at(l, from, err, &n);
    if (rc == 0) {
        cnk_lossy_inode_at(l, to, NULL, &replaced);
        if (n->is_dir)
            rc = cnk_error(err, CHRONIK_EUNSUPPORTED, 0, "%s: this disk renames no directories", from);
        else if (strcmp(from, to) != 0)
            rc = cnk_lossy_op_add(l, from, to, n, err);
        if (replaced)
            name_lost(l, replaced, rc == 0 && replaced != n);
        cnk_lossy_inode_unref(l, n);
    }
    pthread_mutex_unlock(&l->names);
    return rc;
}

static int lossy_unlink(void *self, const char *given, chronik_error *err) {
    lossy *l = self;
    char path[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    inode *n = NULL;
    rc = cnk_lossy_inode_at(l, path, err, &n);
    if (rc == 0) {
        rc = n->is_dir ? cnk_error(err, CHRONIK_EIO, 0, "%s: is a directory", given) : cnk_lossy_op_add(l, path, NULL, NULL, err);
        name_lost(l, n, rc == 0);
    }
    pthread_mutex_unlock(&l->names);
    return rc;
}

static int say_there(void *arg, const char *name) {
    (void)arg;
    (void)name;
    return 1;
}

/* Is there a directory, or a file, below at this path? */
static bool exists_below(lossy *l, const char *below) {
    chronik_file *file = NULL;
    if (l->ops->list(l->disk, below, say_there, NULL, NULL) >= 0)
        return true;
    if (l->ops->open(l->disk, below, CHRONIK_OPEN_READ, NULL, &file) < 0)
        return false;
    l->ops->close(l->disk, file);
    return true;
}

static int lossy_mkdir(void *self, const char *given, chronik_error *err) {
    lossy *l = self;
    char path[PATH_SIZE], below[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    const entry *e = cnk_lossy_entry_find(l, path, strlen(path));
    rc = cnk_lossy_path_below(l, path, below, err);
    if (rc == 0 && (e ? e->inode != NULL : exists_below(l, below)))
        rc = cnk_error(err, CHRONIK_EEXIST, 0, "%s: is there already", given);
    if (rc == 0)
        rc = cnk_lossy_hidden_path(l, path, below, err);
    inode *n = NULL;
    if (rc == 0)
        rc = cnk_lossy_inode_new(l, below, err, &n);
    if (rc == 0) {
        n->is_dir = true;
        n->refs = 1;
        rc = l->ops->mkdir(l->disk, below, err);
        if (rc == 0)
            rc = cnk_lossy_op_add(l, NULL, path, n, err);
        cnk_lossy_inode_unref(l, n);
    }
    pthread_mutex_unlock(&l->names);
    return rc;
}

static int lossy_sync_dir(void *self, const char *given, chronik_error *err) {
    lossy *l = self;
    char path[PATH_SIZE], below[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    cnk_lossy_ops_choose(l, path);
    rc = cnk_lossy_ops_do_chosen(l, err);
    if (rc == 0)
        rc = cnk_lossy_dir_below(l, path, below, err);
    if (rc == 0)
        rc = l->ops->sync_dir(l->disk, *below ? below : ".", err);
    pthread_mutex_unlock(&l->names);
    return rc;
}

typedef struct name_list {
    char **names;
    size_t count, capacity;
} name_list;

static int name_add(name_list *list, const char *name) {
    void *items = list->names;
    if (cnk_array_reserve(&items, &list->capacity, list->count + 1, sizeof *list->names) < 0)
        return CHRONIK_ENOMEM;
    list->names = items;
    list->names[list->count] = cnk_strdup(name);
    return list->names[list->count] ? (list->count++, 0) : CHRONIK_ENOMEM;
}

/* Hidden names stay out. Those of other processes, which are dead, since a directory has one user, are removed. */
static bool is_hidden(lossy *l, const char *dir_path, const char *name) {
    if (strncmp(name, HIDDEN_PREFIX, strlen(HIDDEN_PREFIX)) != 0)
        return false;
    char path[2 * PATH_SIZE];
    if (strncmp(name, l->hidden, strlen(l->hidden)) != 0 &&
        snprintf(path, sizeof path, "%s/%s", dir_path, name) < (int)sizeof path)
        l->ops->unlink(l->disk, path, NULL);
    return true;
}

typedef struct walk {
    lossy *l;
    const char *below; /* the directory */
    name_list found;
} walk;

static int name_collect(void *arg, const char *name) {
    walk *w = arg;
    return is_hidden(w->l, w->below, name) ? 0 : name_add(&w->found, name);
}

static int names_merge(lossy *l, const char *path, const name_list *found, name_list *all) {
    int rc = 0;
    for (size_t i = 0; i < found->count && rc == 0; i++) {
        char full[2 * PATH_SIZE];
        const char *name = found->names[i];
        snprintf(full, sizeof full, "%s%s%s", path, *path && strcmp(path, "/") != 0 ? "/" : "", name);
        if (!cnk_lossy_entry_find(l, full, strlen(full)))
            rc = name_add(all, name);
    }
    CNK_LIST_EACH(it, &l->entries) {
        const entry *e = CNK_CONTAINER(it, entry, link);
        if (rc == 0 && e->inode && cnk_lossy_in_dir(e->path, path))
            rc = name_add(all, cnk_lossy_last_name(e->path));
    }
    return rc;
}

static int lossy_list(void *self, const char *given, int (*each)(void *arg, const char *name), void *arg,
                      chronik_error *err) {
    lossy *l = self;
    char path[PATH_SIZE], below[PATH_SIZE];
    name_list all = {NULL, 0, 0};
    walk w = {l, below, {NULL, 0, 0}};
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    rc = cnk_lossy_dir_below(l, path, below, err);
    if (rc == 0 && !*below)
        snprintf(below, sizeof below, ".");
    if (rc == 0)
        rc = l->ops->list(l->disk, below, name_collect, &w, err);
    if (rc == 0)
        rc = names_merge(l, path, &w.found, &all);
    pthread_mutex_unlock(&l->names);
    if (rc == CHRONIK_ENOMEM)
        cnk_lossy_no_memory(err, given);
    for (size_t i = 0; i < all.count; i++) { /* outside of the lock: `each` may call us */
        if (rc == 0)
            rc = each(arg, all.names[i]);
        cnk_free(all.names[i]);
    }
    for (size_t i = 0; i < w.found.count; i++)
        cnk_free(w.found.names[i]);
    cnk_free(w.found.names);
    cnk_free(all.names);
    return rc;
}

/* A lock holds no data: it is below at once. */
static int lossy_lock(void *self, const char *given, chronik_error *err, chronik_file **ret_file) {
    lossy *l = self;
    char path[PATH_SIZE], below[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    chronik_file *file = file_new(given, err);
    if (!file)
        return CHRONIK_ENOMEM;
    pthread_mutex_lock(&l->names);
    rc = cnk_lossy_path_below(l, path, below, err);
    if (rc == 0)
        rc = l->ops->lock(l->disk, below, err, &file->lock);
    pthread_mutex_unlock(&l->names);
    if (rc < 0)
        cnk_free(file);
    else
        *ret_file = file;
    return rc;
}

static int lossy_space(void *self, const char *given, chronik_error *err, chronik_disk_space *ret_space) {
    lossy *l = self;
    char path[PATH_SIZE], below[PATH_SIZE];
    int rc = cnk_lossy_path_tidy(given, path, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->names);
    rc = cnk_lossy_dir_below(l, path, below, err);
    pthread_mutex_unlock(&l->names);
    return rc < 0 ? rc : l->ops->space(l->disk, below, err, ret_space);
}

static int lossy_absolute(void *self, const char *given, char *ret_text, size_t text_size) {
    lossy *l = self;
    return cnk_disk_absolute(l->ops, l->disk, given, ret_text, text_size); /* directories are where they seem to be */
}

static const chronik_disk_ops lossy_disk_ops = {
    .size = sizeof(chronik_disk_ops),
    .open = lossy_open,
    .close = lossy_close,
    .write = lossy_write,
    .read = lossy_read,
    .read_cached = lossy_read_cached,
    .sync = lossy_sync,
    .allocate = lossy_allocate,
    .truncate = lossy_truncate,
    .size_get = lossy_size_get,
    .rename = lossy_rename,
    .unlink = lossy_unlink,
    .mkdir = lossy_mkdir,
    .sync_dir = lossy_sync_dir,
    .list = lossy_list,
    .lock = lossy_lock,
    .space = lossy_space,
    .absolute = lossy_absolute,
    .forget = lossy_forget,
};

/* ---- life ------------------------------------------------------------------------------------------------------- */

int cnk_lossy_new(const chronik_io *io, uint64_t unsynced_bytes_max, chronik_error *err, chronik_io **ret_io) {
    lossy *l = cnk_calloc(1, sizeof *l);
    if (!l || pthread_mutex_init(&l->names, NULL) != 0) {
        cnk_free(l);
        return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a lossy disk");
    }
    uint32_t token = 0;
    io->entropy(io->entropy_self, &token, sizeof token);
    snprintf(l->hidden, sizeof l->hidden, HIDDEN_PREFIX "%08" PRIx32 "-", token);
    l->ops = io->disk_ops;
    l->disk = io->disk;
    l->bytes_max = unsynced_bytes_max ? unsynced_bytes_max : CNK_LOSSY_BYTES_MAX;
    cnk_list_init(&l->inodes);
    cnk_list_init(&l->entries);
    cnk_list_init(&l->name_ops);
    l->io = *io;
    l->io.size = sizeof l->io;
    l->io.disk_ops = &lossy_disk_ops;
    l->io.disk = l;
    *ret_io = &l->io;
    return 0;
}

void cnk_lossy_free(chronik_io *io) {
    if (!io)
        return;
    lossy *l = (lossy *)(void *)io;
    while (!cnk_list_empty(&l->name_ops)) {
        name_op *op = CNK_CONTAINER(l->name_ops.next, name_op, link);
        /* A file that never got its name. (A directory stays behind, hidden.) */
        if (op->inode && !op->from && !op->inode->is_dir && op->inode->below)
            l->ops->unlink(l->disk, op->inode->below, NULL);
        cnk_lossy_op_free(l, op);
    }
    while (!cnk_list_empty(&l->entries)) {
        entry *e = CNK_CONTAINER(l->entries.next, entry, link);
        cnk_list_remove(&e->link);
        if (e->inode)
            cnk_lossy_inode_unref(l, e->inode);
        cnk_free(e);
    }
    while (!cnk_list_empty(&l->inodes))
        cnk_lossy_inode_free(l, CNK_CONTAINER(l->inodes.next, inode, link));
    pthread_mutex_destroy(&l->names);
    cnk_free(l);
}
