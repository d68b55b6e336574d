/* What the two files of the lossy disk share: lossy.c has the operations, lossy_names.c names and who bears them. */
#ifndef CNK_IO_LOSSY_STATE_H
#define CNK_IO_LOSSY_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/list.h"
#include "io/lossy.h"

enum { PATH_SIZE = 1024, HIDDEN_SIZE = 32 };
#define HIDDEN_PREFIX ".lossy-"

typedef struct change {
    struct change *next;
    enum { CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_ALLOCATE } kind;
    uint64_t pos; /* or the new length */
    size_t len;
    uint8_t data[];
} change;

typedef struct inode {
    cnk_list link;
    char *below; /* its path on the disk below; NULL: it has none any more */
    bool is_dir;
    unsigned refs; /* handles, entries and operations */
    unsigned handles;
    bool nameless; /* unlinked, or replaced: without a handle, what is not synced never will be */
    chronik_file *file; /* below; not of a directory */
    pthread_mutex_t data;
    change *changes, **changes_end;
    uint64_t size, size_below;
} inode;

/* A name that is not as it is below. */
typedef struct entry {
    cnk_list link;
    inode *inode; /* NULL: not there */
    char path[];
} entry;

typedef struct name_op {
    cnk_list link;
    inode *inode; /* that comes to `to`; NULL: nothing does */
    char *from;   /* that vanishes; NULL: nothing does */
    char *to;
    bool chosen;
} name_op;

typedef struct lossy {
    chronik_io io; /* first: cnk_lossy_free casts back */
    const chronik_disk_ops *ops;
    void *disk;
    uint64_t bytes_max;
    _Atomic(uint64_t) bytes;
    pthread_mutex_t names;
    cnk_list inodes, entries, name_ops;
    char hidden[HIDDEN_SIZE]; /* prefix of this process's hidden names */
    uint64_t hidden_count;
} lossy;

struct chronik_file {
    inode *inode;       /* NULL: a lock */
    chronik_file *lock; /* below */
    unsigned flags;
    char path[]; /* as opened, for error texts */
};

/* lossy_names.c; the caller holds `names` where a lossy disk is an argument. */
int cnk_lossy_no_memory(chronik_error *err, const char *path);
int cnk_lossy_path_tidy(const char *path, char tidy[PATH_SIZE], chronik_error *err);
size_t cnk_lossy_dir_len(const char *path);
bool cnk_lossy_in_dir(const char *path, const char *dir);
const char *cnk_lossy_last_name(const char *path);
entry *cnk_lossy_entry_find(lossy *l, const char *path, size_t len);
int cnk_lossy_path_below(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err);
int cnk_lossy_dir_below(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err);
int cnk_lossy_hidden_path(lossy *l, const char *path, char below[PATH_SIZE], chronik_error *err);
int cnk_lossy_inode_new(lossy *l, const char *below, chronik_error *err, inode **ret_inode);
void cnk_lossy_change_free(lossy *l, change *c);
void cnk_lossy_inode_free(lossy *l, inode *n);
void cnk_lossy_inode_let_go(lossy *l, inode *n); /* of changes that nobody can sync any more, where it is so */
void cnk_lossy_inode_unref(lossy *l, inode *n);
int cnk_lossy_inode_open(lossy *l, inode *n, unsigned flags, chronik_error *err);
int cnk_lossy_inode_at(lossy *l, const char *path, chronik_error *err, inode **ret_inode);
void cnk_lossy_op_free(lossy *l, name_op *op);
int cnk_lossy_op_add(lossy *l, const char *from, const char *to, inode *n, chronik_error *err);
void cnk_lossy_ops_choose(lossy *l, const char *dir);
int cnk_lossy_ops_do_chosen(lossy *l, chronik_error *err);

#endif
