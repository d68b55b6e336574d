/* The lossy disk's names: paths, the inodes behind them, and the operations on names that wait for a sync of their
 * directory. lossy.c has the rules; everything here runs under its lock `names`. */
#include "io/lossy_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"

int cnk_lossy_no_memory(chronik_error *err, const char *path) {
    return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory for what is not synced", path);
}

/* ---- paths ------------------------------------------------------------------------------------------------------ */

/* Drops doubled and trailing slashes and "./". */
int cnk_lossy_path_tidy(const char *path, char tidy[PATH_SIZE], chronik_error *err) {
    size_t n = 0;
    for (const char *p = path; *p; p++) {
        bool at_start = n == 0 || tidy[n - 1] == '/';
        if (*p == '/' && n > 0 && tidy[n - 1] == '/')
            continue;
        if (at_start && p[0] == '.' && p[1] == '/') {
            p++;
            continue;
        }
        if (n + 1 >= PATH_SIZE)
            return cnk_error(err, CHRONIK_EINVAL, 0, "%s: the path is too long", path);
        tidy[n++] = *p;
    }
    if (n > 1 && tidy[n - 1] == '/')
        n--;
    tidy[n] = '\0';
    return 0;
}

/* The length of the directory's part of a tidy path; 0: the working directory. */
size_t cnk_lossy_dir_len(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    return slash == path ? 1 : (size_t)(slash - path);
}

bool cnk_lossy_in_dir(const char *path, const char *dir) {
    size_t len = cnk_lossy_dir_len(path);
    if (len == 0)
        return strcmp(dir, ".") == 0 || *dir == '\0';
    return strncmp(path, dir, len) == 0 && dir[len] == '\0';
}

const char *cnk_lossy_last_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

entry *cnk_lossy_entry_find(lossy *l, const char *path, size_t len) {
    CNK_LIST_EACH(it, &l->entries) {
        entry *e = CNK_CONTAINER(it, entry, link);
        if (strncmp(e->path, path, len) == 0 && e->path[len] == '\0')
            return e;
    }
    return NULL;
}

/* Where the path is on the disk below: the longest directory in it that is hidden there is replaced. */
int cnk_lossy_path_below(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err) {
    for (size_t len = cnk_lossy_dir_len(path); len > 0;) {
        const entry *e = cnk_lossy_entry_find(l, path, len);
        if (e && e->inode && e->inode->is_dir) {
            if (snprintf(below, PATH_SIZE, "%s%s", e->inode->below, path + len) >= PATH_SIZE)
                return cnk_error(err, CHRONIK_EINVAL, 0, "%s: the path is too long", path);
            return 0;
        }
        while (len > 0 && path[len - 1] != '/')
            len--;
        len = len > 0 ? len - 1 : 0;
    }
    snprintf(below, PATH_SIZE, "%s", path);
    return 0;
}

/* A directory itself: it may be hidden. */
int cnk_lossy_dir_below(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err) {
    const entry *e = cnk_lossy_entry_find(l, path, strlen(path));
    if (e && !e->inode)
        return cnk_error(err, CHRONIK_ENOTFOUND, 0, "%s: no such directory", path);
    if (!e)
        return cnk_lossy_path_below(l, path, below, err);
    snprintf(below, PATH_SIZE, "%s", e->inode->below);
    return 0;
}

int cnk_lossy_hidden_path(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err) {
    int rc = cnk_lossy_path_below(l, path, below, err);
    if (rc < 0)
        return rc;
    size_t len = (size_t)(cnk_lossy_last_name(below) - below);
    int n = snprintf(below + len, PATH_SIZE - len, "%s%" PRIu64, l->hidden, l->hidden_count++);
    return n < 0 || (size_t)n >= PATH_SIZE - len ? cnk_error(err, CHRONIK_EINVAL, 0, "%s: the path is too long", path) : 0;
}

/* ---- inodes ----------------------------------------------------------------------------------------------------- */

int cnk_lossy_inode_new(lossy *l, const char *below, chronik_error *err, inode **ret_inode) {
    inode *n = cnk_calloc(1, sizeof *n);
    char *copy = cnk_strdup(below);
    if (!n || !copy || pthread_mutex_init(&n->data, NULL) != 0) {
        cnk_free(n);
        cnk_free(copy);
        return cnk_lossy_no_memory(err, below);
    }
    n->below = copy;
    n->changes_end = &n->changes;
    cnk_list_push_back(&l->inodes, &n->link);
    *ret_inode = n;
    return 0;
}

void cnk_lossy_change_free(lossy *l, change *c) {
    atomic_fetch_sub(&l->bytes, c->len);
    cnk_free(c);
}

static void changes_free(lossy *l, inode *n) {
    while (n->changes) {
        change *c = n->changes;
        n->changes = c->next;
        cnk_lossy_change_free(l, c);
    }
    n->changes_end = &n->changes;
}

void cnk_lossy_inode_let_go(lossy *l, inode *n) {
    if (n->nameless && n->handles == 0) changes_free(l, n);
}

void cnk_lossy_inode_free(lossy *l, inode *n) {
    cnk_list_remove(&n->link);
    changes_free(l, n);
    if (n->file)
        l->ops->close(l->disk, n->file);
    pthread_mutex_destroy(&n->data);
    cnk_free(n->below);
    cnk_free(n);
}

/* Frees it where nobody uses it, unless it is a named file with unsynced changes, which a later open must find. */
void cnk_lossy_inode_unref(lossy *l, inode *n) {
    CNK_ASSERT(n->refs > 0);
    if (--n->refs == 0 && !(n->changes && n->below))
        cnk_lossy_inode_free(l, n);
}

static inode *inode_below(lossy *l, const char *below) {
    CNK_LIST_EACH(it, &l->inodes) {
        inode *n = CNK_CONTAINER(it, inode, link);
        if (n->below && strcmp(n->below, below) == 0)
            return n;
    }
    return NULL;
}

int cnk_lossy_inode_open(lossy *l, inode *n, unsigned flags, chronik_error *err) {
    int rc = l->ops->open(l->disk, n->below, flags, err, &n->file);
    if (rc == 0)
        rc = l->ops->size_get(l->disk, n->file, err, &n->size_below);
    if (rc == 0)
        n->size = n->size_below;
    return rc;
}

/* The inode at a path, with a reference. ENOTFOUND where there is none. */
int cnk_lossy_inode_at(lossy *l, const char *path, chronik_error *err, inode **ret_inode) {
    const entry *e = cnk_lossy_entry_find(l, path, strlen(path));
    if (e && !e->inode)
        return cnk_error(err, CHRONIK_ENOTFOUND, 0, "%s: no such file", path);
    inode *n = e ? e->inode : NULL;
    if (!n) {
        char below[PATH_SIZE];
        int rc = cnk_lossy_path_below(l, path, below, err);
        if (rc < 0)
            return rc;
        n = inode_below(l, below);
        if (!n) {
            rc = cnk_lossy_inode_new(l, below, err, &n);
            if (rc < 0)
                return rc;
            rc = cnk_lossy_inode_open(l, n, CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE, err);
            if (rc < 0) {
                cnk_lossy_inode_free(l, n);
                return rc;
            }
        }
    }
    n->refs++;
    *ret_inode = n;
    return 0;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/* Sets the entry; e was made by entry_new, or is the one that is there. */
static entry *entry_new(lossy *l, const char *path) {
    entry *e = cnk_lossy_entry_find(l, path, strlen(path));
    if (e)
        return e;
    size_t len = strlen(path) + 1;
    e = cnk_calloc(1, sizeof *e + len);
    if (e)
        memcpy(e->path, path, len);
    return e;
}

static void entry_set(lossy *l, entry *e, inode *n) {
    if (!cnk_list_linked(&e->link))
        cnk_list_push_back(&l->entries, &e->link);
    if (n)
        n->refs++;
    if (e->inode)
        cnk_lossy_inode_unref(l, e->inode);
    e->inode = n;
}

void cnk_lossy_op_free(lossy *l, name_op *op) {
    if (cnk_list_linked(&op->link))
        cnk_list_remove(&op->link);
    if (op->inode)
        cnk_lossy_inode_unref(l, op->inode);
    cnk_free(op->from);
    cnk_free(op->to);
    cnk_free(op);
}

/* Does an operation in memory and writes it down: `n` comes to `to`, and `from` (may be NULL) vanishes. */
int cnk_lossy_op_add(lossy *l, const char *from, const char *to, inode *n, chronik_error *err) {
    name_op *op = cnk_calloc(1, sizeof *op);
    entry *gone = from ? entry_new(l, from) : NULL, *made = to ? entry_new(l, to) : NULL;
    bool ok = op && (!from || (gone && (op->from = cnk_strdup(from)))) && (!to || (made && (op->to = cnk_strdup(to))));
    if (!ok) {
        if (gone && !cnk_list_linked(&gone->link))
            cnk_free(gone);
        if (made && !cnk_list_linked(&made->link))
            cnk_free(made);
        if (op)
            cnk_lossy_op_free(l, op);
        return cnk_lossy_no_memory(err, to ? to : from);
    }
    if (n)
        n->refs++;
    op->inode = n;
    cnk_list_push_back(&l->name_ops, &op->link);
    if (made)
        entry_set(l, made, n);
    if (gone)
        entry_set(l, gone, NULL);
    return 0;
}

static bool op_names(const name_op *op, const char *path) {
    return (op->from && strcmp(op->from, path) == 0) || (op->to && strcmp(op->to, path) == 0);
}

static bool op_in_dir(const name_op *op, const char *dir) {
    return (op->from && cnk_lossy_in_dir(op->from, dir)) || (op->to && cnk_lossy_in_dir(op->to, dir));
}

/* What a sync of the directory must do: what touches it, and the earlier operations on the same names. */
void cnk_lossy_ops_choose(lossy *l, const char *dir) {
    for (cnk_list *it = l->name_ops.prev; it != &l->name_ops; it = it->prev) {
        name_op *op = CNK_CONTAINER(it, name_op, link);
        op->chosen = op_in_dir(op, dir);
        for (cnk_list *later = it->next; later != &l->name_ops && !op->chosen; later = later->next) {
            const name_op *o = CNK_CONTAINER(later, name_op, link);
            op->chosen = o->chosen && ((o->from && op_names(op, o->from)) || (o->to && op_names(op, o->to)));
        }
    }
}

/* The inode that was at this place below has lost it. */
static void place_lost(lossy *l, const char *below, const inode *but) {
    inode *n = inode_below(l, below);
    if (!n || n == but)
        return;
    cnk_free(n->below);
    n->below = NULL;
    if (n->refs == 0)
        cnk_lossy_inode_free(l, n);
}

/* An inode has moved below; so have those in it, if it is a directory. */
static int place_moved(lossy *l, inode *moved, const char *below, chronik_error *err) {
    size_t len = strlen(moved->below);
    CNK_LIST_EACH(it, &l->inodes) {
        inode *n = CNK_CONTAINER(it, inode, link);
        if (n == moved || !n->below || strncmp(n->below, moved->below, len) != 0 || n->below[len] != '/')
            continue;
        char path[2 * PATH_SIZE];
        snprintf(path, sizeof path, "%s%s", below, n->below + len);
        char *copy = cnk_strdup(path);
        if (!copy)
            return cnk_lossy_no_memory(err, path);
        cnk_free(n->below);
        n->below = copy;
    }
    char *copy = cnk_strdup(below);
    if (!copy)
        return cnk_lossy_no_memory(err, below);
    cnk_free(moved->below);
    moved->below = copy;
    return 0;
}

static int op_do(lossy *l, name_op *op, chronik_error *err) {
    char below[PATH_SIZE];
    int rc = cnk_lossy_path_below(l, op->to ? op->to : op->from, below, err);
    if (rc < 0)
        return rc;
    place_lost(l, below, op->inode);
    if (!op->to)
        return l->ops->unlink(l->disk, below, err);
    rc = l->ops->rename(l->disk, op->inode->below, below, err);
    return rc < 0 ? rc : place_moved(l, op->inode, below, err);
}

/* A name is below as it is here once no operation on it waits. */
static void entry_settle(lossy *l, const char *path) {
    if (!path)
        return;
    CNK_LIST_EACH(it, &l->name_ops)
        if (op_names(CNK_CONTAINER(it, name_op, link), path))
            return;
    entry *e = cnk_lossy_entry_find(l, path, strlen(path));
    if (!e)
        return;
    cnk_list_remove(&e->link);
    if (e->inode)
        cnk_lossy_inode_unref(l, e->inode);
    cnk_free(e);
}

int cnk_lossy_ops_do_chosen(lossy *l, chronik_error *err) {
    CNK_LIST_EACH(it, &l->name_ops) {
        name_op *op = CNK_CONTAINER(it, name_op, link);
        if (!op->chosen)
            continue;
        int rc = op_do(l, op, err);
        if (rc < 0)
            return rc;
        cnk_list_remove(&op->link);
        entry_settle(l, op->from);
        entry_settle(l, op->to);
        cnk_lossy_op_free(l, op);
    }
    return 0;
}
