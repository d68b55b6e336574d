/* The simulated disk. Model: tests/sim/README.md.
 *
 * A file's page has up to three contents, newest first:
 *
 *     cache    there only where it differs from what is below: a buffered write that was not written back (`dirty`), or
 *              one that a failed sync has given up (not dirty: readable until it is evicted, and then gone)
 *     device   a direct write, or a page written back; `pending` has a bit for each sector that a flush will bring to
 *              the media. Without the bit a sector is as on the media, or will be sim_zeros once a truncation gets there
 *     media    what survives; NULL is sim_zeros
 *
 * Reads take the first that is there (direct ones begin at `device`). Decisions about what a crash keeps are made at the
 * crash, with one exception: a page that is overwritten while it waits may have had its old content written back, so a
 * coin is thrown then.
 *
 * Names: each directory has entries as they are, and entries as they are on the media. `ops` lists the changes between
 * the two, in order. An operation is atomic. One that touches the same name as an earlier one cannot survive without
 * it; others survive in any combination, until sync_dir makes those of a directory durable. */
#include "sim/disk_state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/io.h>

/* ---- memory: tests stop where there is none --------------------------------------------------------------------- */

void *sim_must(void *p) {
    if (!p) {
        fprintf(stderr, "the simulated disk is out of memory\n");
        abort();
    }
    return p;
}

static void *room_for_one(void *items, size_t *capacity, size_t count, size_t item_size) {
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 8;
    return sim_must(realloc(items, *capacity * item_size));
}

static bool chance(sim_disk *disk, uint32_t one_in) { return cnk_rng_chance(&disk->rng, 1, one_in); }

/* ---- names ------------------------------------------------------------------------------------------------------ */

entry *sim_entry_find(const entries *list, const char *name) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->at[i].name, name) == 0)
            return &list->at[i];
    return NULL;
}

static void entry_set(entries *list, const char *name, sim_inode *inode) {
    entry *e = sim_entry_find(list, name);
    if (!inode) {
        if (e)
            *e = list->at[--list->count];
        return;
    }
    if (!e) {
        list->at = room_for_one(list->at, &list->capacity, list->count, sizeof *list->at);
        e = &list->at[list->count++];
        snprintf(e->name, sizeof e->name, "%s", name);
    }
    e->inode = inode;
}

static sim_inode *inode_new(sim_disk *disk, bool is_dir) {
    sim_inode *inode = sim_must(calloc(1, sizeof *inode));
    inode->id = ++disk->inode_ids;
    inode->is_dir = is_dir;
    inode->next = disk->inodes;
    disk->inodes = inode;
    return inode;
}

/* Splits a path at its last component. NULL: a directory on the way is missing, or the name is empty or too long. */
static sim_inode *parent_of(const sim_disk *disk, const char *path, char ret_name[NAME_SIZE]) {
    sim_inode *dir = disk->root;
    for (;;) {
        while (*path == '/' || (path[0] == '.' && path[1] == '/'))
            path++;
        size_t len = strcspn(path, "/");
        if (len == 0 || len >= NAME_SIZE)
            return NULL;
        memcpy(ret_name, path, len);
        ret_name[len] = '\0';
        path += len;
        while (*path == '/')
            path++;
        if (*path == '\0')
            return dir;
        entry *e = sim_entry_find(&dir->now, ret_name);
        if (!e || !e->inode->is_dir)
            return NULL;
        dir = e->inode;
    }
}

sim_inode *sim_lookup(const sim_disk *disk, const char *path) {
    char name[NAME_SIZE];
    if (path[strspn(path, "/")] == '\0' || strcmp(path, ".") == 0)
        return disk->root;
    sim_inode *dir = parent_of(disk, path, name);
    entry *e = dir ? sim_entry_find(&dir->now, name) : NULL;
    return e ? e->inode : NULL;
}

static name_op *op_new(sim_disk *disk) {
    disk->ops = room_for_one(disk->ops, &disk->op_capacity, disk->op_count, sizeof *disk->ops);
    name_op *op = &disk->ops[disk->op_count++];
    memset(op, 0, sizeof *op);
    return op;
}

/* Adds a change to an operation and does it in memory. */
static void op_change(name_op *op, sim_inode *dir, const char *name, sim_inode *inode) {
    name_change *c = &op->change[op->count++];
    c->dir = dir;
    c->inode = inode;
    snprintf(c->name, sizeof c->name, "%s", name);
    entry *old = sim_entry_find(&dir->now, name);
    if (old)
        old->inode->links--;
    if (inode)
        inode->links++;
    entry_set(&dir->now, name, inode);
}

static bool op_shares_name(const name_op *a, const name_op *b) {
    for (int i = 0; i < a->count; i++)
        for (int k = 0; k < b->count; k++)
            if (a->change[i].dir == b->change[k].dir && strcmp(a->change[i].name, b->change[k].name) == 0)
                return true;
    return false;
}

static bool op_touches(const name_op *op, const sim_inode *dir) {
    for (int i = 0; i < op->count; i++)
        if (op->change[i].dir == dir)
            return true;
    return false;
}

/* Brings the chosen operations to the media, in order; one that is stuck, or needs one that stays behind, stays. */
static void ops_commit(sim_disk *disk) {
    for (size_t i = 0; i < disk->op_count; i++) {
        name_op *op = &disk->ops[i];
        op->chosen = op->chosen && !op->stuck;
        for (size_t k = 0; k < i && op->chosen; k++)
            op->chosen = disk->ops[k].chosen || !op_shares_name(&disk->ops[k], op);
    }
    size_t kept = 0;
    for (size_t i = 0; i < disk->op_count; i++) {
        name_op *op = &disk->ops[i];
        if (op->chosen)
            for (int k = 0; k < op->count; k++)
                entry_set(&op->change[k].dir->durable, op->change[k].name, op->change[k].inode);
        else
            disk->ops[kept++] = *op;
    }
    disk->op_count = kept;
}

/* Chooses what a sync of the directory must bring: what touches it, and what that needs. */
static void ops_choose_dir(sim_disk *disk, const sim_inode *dir) {
    for (size_t i = disk->op_count; i-- > 0;) {
        name_op *op = &disk->ops[i];
        op->chosen = op_touches(op, dir);
        for (size_t k = i + 1; k < disk->op_count && !op->chosen; k++)
            op->chosen = disk->ops[k].chosen && op_shares_name(op, &disk->ops[k]);
    }
}

/* ---- pages ------------------------------------------------------------------------------------------------------ */

const uint8_t sim_zeros[SIM_PAGE];


uint8_t *sim_page_copy(const uint8_t *content) {
    uint8_t *copy = sim_must(malloc(SIM_PAGE));
    memcpy(copy, content, SIM_PAGE);
    return copy;
}

static void page_free(page *p) {
    free(p->cache);
    free(p->device);
    free(p->media);
    memset(p, 0, sizeof *p);
}

/* The given sectors of `device` reach the media. */
static void page_destage(page *p, uint8_t sectors) {
    sectors &= p->pending;
    if (sectors == 0)
        return;
    p->pending = (uint8_t)(p->pending & ~sectors);
    if (sectors == ALL_SECTORS) { /* nothing is left of the old content */
        free(p->media);
        p->media = p->device;
        p->device = NULL;
        return;
    }
    if (!p->media)
        p->media = sim_page_copy(sim_zeros);
    for (int s = 0; s < SECTORS; s++)
        if (sectors & (1u << s))
            memcpy(p->media + s * SIM_SECTOR, p->device + s * SIM_SECTOR, SIM_SECTOR);
    if (p->pending == 0 && memcmp(p->media, p->device, SIM_PAGE) == 0) {
        free(p->device);
        p->device = NULL;
    }
}

static uint8_t random_sectors(sim_disk *disk) { return (uint8_t)cnk_rng_next(&disk->rng); }

/* A dirty page of the cache is written to the device. */
static void page_write_back(sim_disk *disk, page *p) {
    if (!p->dirty)
        return;
    if (p->pending && chance(disk, OLD_VERSION_ONE_IN))
        page_destage(p, random_sectors(disk));
    free(p->device);
    p->device = p->cache;
    p->cache = NULL;
    p->dirty = false;
    p->pending = ALL_SECTORS;
}

void sim_pages_reserve(sim_inode *inode, size_t count) {
    if (count <= inode->page_count)
        return;
    if (count > inode->page_capacity) {
        inode->page_capacity = count > 2 * inode->page_capacity ? count : 2 * inode->page_capacity;
        inode->pages = sim_must(realloc(inode->pages, inode->page_capacity * sizeof *inode->pages));
    }
    memset(inode->pages + inode->page_count, 0, (count - inode->page_count) * sizeof *inode->pages);
    inode->page_count = count;
}

/* Takes blocks for the pages that have none yet. All or nothing. */
static int blocks_take(sim_disk *disk, sim_inode *inode, size_t first, size_t end) {
    uint64_t missing = 0;
    for (size_t i = first; i < end; i++)
        missing += i >= inode->page_count || !inode->pages[i].allocated;
    if (missing == 0)
        return 0;
    if (missing * SIM_PAGE > sim_disk_space_free(disk))
        return CHRONIK_ENOSPC;
    sim_pages_reserve(inode, end);
    for (size_t i = first; i < end; i++)
        inode->pages[i].allocated = true;
    inode->blocks += missing;
    return 0;
}

static void size_change_add(sim_inode *inode, uint64_t size, bool cut) {
    inode->sizes = room_for_one(inode->sizes, &inode->size_capacity, inode->size_count, sizeof *inode->sizes);
    inode->sizes[inode->size_count++] = (size_change){size, cut};
    inode->size = size;
}

/* A change of the size reaches the media. */
static void size_commit(sim_inode *inode, size_change change) {
    inode->media_size = change.size;
    if (!change.cut)
        return;
    size_t first = (size_t)(change.size / SIM_PAGE), offset = (size_t)(change.size % SIM_PAGE);
    for (size_t i = first; i < inode->page_count; i++, offset = 0) {
        page *p = &inode->pages[i];
        if (p->media)
            memset(p->media + offset, 0, SIM_PAGE - offset);
    }
}

static void sizes_commit(sim_inode *inode, size_t count) {
    for (size_t i = 0; i < count; i++)
        size_commit(inode, inode->sizes[i]);
    inode->size_count -= count;
    if (inode->size_count)
        memmove(inode->sizes, inode->sizes + count, inode->size_count * sizeof *inode->sizes);
}

/* Some of the changes, in order; all cuts at least, since data that was written after them is about to be flushed. */
static void sizes_commit_part(sim_disk *disk, sim_inode *inode) {
    size_t count = (size_t)cnk_rng_below(&disk->rng, inode->size_count + 1);
    for (size_t i = count; i < inode->size_count; i++)
        if (inode->sizes[i].cut)
            count = i + 1;
    sizes_commit(inode, count);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void inode_free(sim_inode *inode) {
    for (size_t i = 0; i < inode->page_count; i++)
        page_free(&inode->pages[i]);
    free(inode->pages);
    free(inode->sizes);
    free(inode->now.at);
    free(inode->durable.at);
    free(inode);
}

static void mark(sim_inode *inode) {
    if (!inode || inode->marked)
        return;
    inode->marked = true;
    for (size_t i = 0; i < inode->now.count; i++)
        mark(inode->now.at[i].inode);
    for (size_t i = 0; i < inode->durable.count; i++)
        mark(inode->durable.at[i].inode);
}

/* Frees inodes that no name, now or after any crash, and no handle leads to. */
static void collect(sim_disk *disk) {
    mark(disk->root);
    for (size_t i = 0; i < disk->op_count; i++)
        for (int k = 0; k < disk->ops[i].count; k++) {
            mark(disk->ops[i].change[k].dir);
            mark(disk->ops[i].change[k].inode);
        }
    for (sim_inode *inode = disk->inodes; inode; inode = inode->next)
        if (inode->open_count > 0)
            mark(inode);
    for (sim_inode **at = &disk->inodes; *at;) {
        sim_inode *inode = *at;
        if (inode->marked) {
            inode->marked = false;
            at = &inode->next;
        } else {
            *at = inode->next;
            inode_free(inode);
        }
    }
}

sim_disk *sim_disk_new(uint64_t seed, const sim_disk_options *options) {
    sim_disk *disk = sim_must(calloc(1, sizeof *disk));
    disk->options = options ? *options : (sim_disk_options)SIM_DISK_OPTIONS_INIT;
    cnk_rng_seed(&disk->rng, seed);
    disk->hash = UINT64_C(0xcbf29ce484222325);
    disk->root = inode_new(disk, true);
    return disk;
}

void sim_disk_free(sim_disk *disk) {
    if (!disk)
        return;
    while (disk->inodes) {
        sim_inode *inode = disk->inodes;
        disk->inodes = inode->next;
        inode_free(inode);
    }
    free(disk->ops);
    free(disk);
}

static uint8_t *maybe_copy(const uint8_t *content) { return content ? sim_page_copy(content) : NULL; }

static sim_inode *inode_clone(const sim_inode *from) {
    sim_inode *to = sim_must(malloc(sizeof *to));
    *to = *from;
    to->locked = false;
    to->open_count = to->direct_writers = 0;
    to->pages = sim_must(malloc(from->page_capacity * sizeof *to->pages + 1));
    for (size_t i = 0; i < from->page_count; i++) {
        const page *p = &from->pages[i];
        to->pages[i] = *p;
        to->pages[i].cache = maybe_copy(p->cache);
        to->pages[i].device = maybe_copy(p->device);
        to->pages[i].media = maybe_copy(p->media);
    }
    to->sizes = sim_must(malloc(from->size_capacity * sizeof *to->sizes + 1));
    if (from->size_count)
        memcpy(to->sizes, from->sizes, from->size_count * sizeof *to->sizes);
    return to;
}

static entries entries_clone(const entries *from) {
    entries to = {sim_must(malloc(from->capacity * sizeof *to.at + 1)), from->count, from->capacity};
    for (size_t i = 0; i < from->count; i++) {
        to.at[i] = from->at[i];
        to.at[i].inode = from->at[i].inode->copy;
    }
    return to;
}

sim_disk *sim_disk_clone(const sim_disk *disk, uint64_t seed) {
    sim_disk *to = sim_must(malloc(sizeof *to));
    *to = *disk;
    cnk_rng_seed(&to->rng, seed);
    to->in_use = false;
    to->inodes = NULL;
    sim_inode **end = &to->inodes;
    for (sim_inode *inode = disk->inodes; inode; inode = inode->next) {
        inode->copy = inode_clone(inode);
        *end = inode->copy;
        end = &inode->copy->next;
    }
    *end = NULL;
    for (sim_inode *inode = disk->inodes; inode; inode = inode->next) {
        inode->copy->now = entries_clone(&inode->now);
        inode->copy->durable = entries_clone(&inode->durable);
    }
    to->root = disk->root->copy;
    to->ops = sim_must(malloc(disk->op_capacity * sizeof *to->ops + 1));
    for (size_t i = 0; i < disk->op_count; i++) {
        to->ops[i] = disk->ops[i];
        for (int k = 0; k < disk->ops[i].count; k++) {
            name_change *c = &to->ops[i].change[k];
            c->dir = c->dir->copy;
            c->inode = c->inode ? c->inode->copy : NULL;
        }
    }
    collect(to);
    return to;
}

/* ---- crashes ---------------------------------------------------------------------------------------------------- */

/* How one loss of power treats what waits. Drawn once for each crash, so that the extremes happen often. */
enum { FATE_NONE, FATE_ALL, FATE_SECTORS, FATE_PAGES, FATE_PREFIX, FATE_COUNT };
enum { NAMES_NONE, NAMES_ALL, NAMES_ANY, NAMES_PREFIX, NAMES_COUNT };

typedef struct fate {
    uint64_t data;     /* FATE_* */
    uint32_t of_8;     /* SECTORS, PAGES: how many of eight survive */
    uint64_t last_seq; /* PREFIX: the last write that survives; its page may be torn */
    uint64_t names;    /* NAMES_* */
    size_t last_op;
} fate;

static fate fate_draw(sim_disk *disk) {
    fate f;
    f.data = cnk_rng_below(&disk->rng, FATE_COUNT);
    f.of_8 = (uint32_t)cnk_rng_between(&disk->rng, 1, 7);
    f.last_seq = cnk_rng_below(&disk->rng, disk->write_seq + 1);
    if (chance(disk, 2) && disk->write_seq > 16) /* most of what waits is recent */
        f.last_seq = disk->write_seq - cnk_rng_below(&disk->rng, 16);
    f.names = cnk_rng_below(&disk->rng, NAMES_COUNT);
    f.last_op = (size_t)cnk_rng_below(&disk->rng, disk->op_count + 1);
    return f;
}

static uint8_t fate_sectors(sim_disk *disk, const fate *f, const page *p) {
    switch (f->data) {
    case FATE_NONE:
        return 0;
    case FATE_ALL:
        return ALL_SECTORS;
    case FATE_PAGES:
        return cnk_rng_chance(&disk->rng, f->of_8, 8) ? ALL_SECTORS : 0;
    case FATE_PREFIX:
        return p->seq < f->last_seq ? ALL_SECTORS : p->seq == f->last_seq ? random_sectors(disk) : 0;
    default: {
        uint8_t sectors = 0;
        for (int s = 0; s < SECTORS; s++)
            if (cnk_rng_chance(&disk->rng, f->of_8, 8))
                sectors = (uint8_t)(sectors | (1u << s));
        return sectors;
    }
    }
}

/* Like page_destage, for a sync or a crash that gets some of the way. */
static void page_settle(sim_disk *disk, const fate *f, page *p) {
    if (p->pending)
        page_destage(p, fate_sectors(disk, f, p));
    if (p->dirty) {
        uint8_t sectors = fate_sectors(disk, f, p);
        if (sectors) {
            page_write_back(disk, p);
            page_destage(p, sectors);
        }
    }
}

static void inode_power_loss(sim_disk *disk, const fate *f, sim_inode *inode) {
    sizes_commit(inode, (size_t)cnk_rng_below(&disk->rng, inode->size_count + 1));
    inode->size_count = 0;
    inode->size = inode->media_size;
    size_t last = sim_pages_for(inode->size);
    for (size_t i = 0; i < inode->page_count; i++) {
        page *p = &inode->pages[i];
        page_settle(disk, f, p);
        free(p->cache);
        free(p->device);
        p->cache = p->device = NULL;
        p->dirty = false;
        p->pending = 0;
        if (i >= last) {
            inode->blocks -= p->allocated;
            page_free(p);
        }
    }
    if (inode->page_count > last)
        inode->page_count = last;
    size_t tail = (size_t)(inode->size % SIM_PAGE);
    if (tail && inode->page_count == last && inode->pages[last - 1].media)
        memset(inode->pages[last - 1].media + tail, 0, SIM_PAGE - tail);
}

static void entries_restore(sim_inode *dir) {
    dir->now.count = 0;
    for (size_t i = 0; i < dir->durable.count; i++)
        entry_set(&dir->now, dir->durable.at[i].name, dir->durable.at[i].inode);
}

static void names_power_loss(sim_disk *disk, const fate *f) {
    for (size_t i = 0; i < disk->op_count; i++)
        disk->ops[i].chosen = f->names == NAMES_ALL || (f->names == NAMES_ANY && chance(disk, 2)) ||
                              (f->names == NAMES_PREFIX && i < f->last_op);
    ops_commit(disk);
    disk->op_count = 0;
    for (sim_inode *inode = disk->inodes; inode; inode = inode->next) {
        inode->links = 0;
        if (inode->is_dir)
            entries_restore(inode);
    }
}

static void count_links(sim_inode *dir) {
    for (size_t i = 0; i < dir->now.count; i++) {
        sim_inode *inode = dir->now.at[i].inode;
        if (inode->links++ == 0 && inode->is_dir)
            count_links(inode);
    }
}

void sim_disk_crash(sim_disk *disk, sim_crash kind) {
    assert(!disk->in_use);
    sim_disk_hash_mix(disk, (uint64_t)kind + 77);
    for (sim_inode *inode = disk->inodes; inode; inode = inode->next) {
        inode->open_count = inode->direct_writers = 0;
        inode->locked = inode->size_stuck = false;
    }
    for (size_t i = 0; i < disk->op_count; i++) /* of names and sizes the next process syncs what it sees */
        disk->ops[i].stuck = false;
    if (kind == SIM_CRASH_POWER) {
        fate f = fate_draw(disk);
        names_power_loss(disk, &f);
        collect(disk); /* before the pages: no dice for files that are gone */
        count_links(disk->root);
        for (sim_inode *inode = disk->inodes; inode; inode = inode->next)
            inode_power_loss(disk, &f, inode);
    } else {
        collect(disk);
        /* Memory was short, perhaps: clean pages of the cache may be gone, and what a failed sync left with them. */
        for (sim_inode *inode = disk->inodes; inode; inode = inode->next)
            if (chance(disk, 4))
                sim_disk_forget(disk, inode, 0, UINT64_MAX);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

int sim_disk_open(sim_disk *disk, const char *path, unsigned flags, sim_inode **ret_inode) {
    char name[NAME_SIZE];
    sim_inode *dir = parent_of(disk, path, name);
    if (!dir)
        return CHRONIK_ENOTFOUND;
    entry *e = sim_entry_find(&dir->now, name);
    sim_inode *inode = e ? e->inode : NULL;
    if (inode && (flags & CHRONIK_OPEN_CREATE) && (flags & CHRONIK_OPEN_EXCL))
        return CHRONIK_EEXIST;
    if (inode && inode->is_dir)
        return CHRONIK_EIO;
    if (!inode) {
        if (!(flags & CHRONIK_OPEN_CREATE))
            return CHRONIK_ENOTFOUND;
        inode = inode_new(disk, false);
        op_change(op_new(disk), dir, name, inode);
    }
    inode->open_count++;
    if ((flags & CHRONIK_OPEN_DIRECT) && (flags & CHRONIK_OPEN_WRITE))
        inode->direct_writers++;
    *ret_inode = inode;
    return 0;
}

void sim_disk_close(sim_disk *disk, sim_inode *inode, unsigned flags) {
    assert(inode->open_count > 0);
    if (flags & SIM_OPEN_LOCK)
        inode->locked = false;
    if ((flags & CHRONIK_OPEN_DIRECT) && (flags & CHRONIK_OPEN_WRITE))
        inode->direct_writers--;
    if (--inode->open_count == 0 && inode->links == 0)
        collect(disk);
}

static void page_write(sim_disk *disk, page *p, bool direct, size_t offset, const uint8_t *bytes, size_t len) {
    p->seq = ++disk->write_seq;
    if (direct) {
        assert(offset == 0 && len == SIM_PAGE);
        page_write_back(disk, p);
        free(p->cache);
        p->cache = NULL;
        if (p->pending && chance(disk, OLD_VERSION_ONE_IN))
            page_destage(p, random_sectors(disk));
        if (!p->device)
            p->device = sim_must(malloc(SIM_PAGE));
        memcpy(p->device, bytes, SIM_PAGE);
        p->pending = ALL_SECTORS;
        return;
    }
    if (p->dirty && chance(disk, OLD_VERSION_ONE_IN))
        page_write_back(disk, p);
    if (!p->cache)
        p->cache = sim_page_copy(sim_page_below_cache(p));
    memcpy(p->cache + offset, bytes, len);
    p->dirty = true;
}

/* Writes the first `len` bytes of what the iov holds. */
static void write_len(sim_disk *disk, sim_inode *inode, bool direct, const struct iovec *iov, uint64_t pos, size_t len) {
    uint8_t gathered[SIM_PAGE];
    size_t used = 0;
    while (len > 0) {
        size_t offset = (size_t)(pos % SIM_PAGE), n = SIM_PAGE - offset;
        if (n > len)
            n = len;
        for (size_t got = 0; got < n;) {
            size_t take = iov->iov_len - used < n - got ? iov->iov_len - used : n - got;
            if (take)
                memcpy(gathered + got, (const uint8_t *)iov->iov_base + used, take);
            got += take;
            used += take;
            if (used == iov->iov_len) {
                iov++;
                used = 0;
            }
        }
        page_write(disk, &inode->pages[pos / SIM_PAGE], direct, offset, gathered, n);
        pos += n;
        len -= n;
        if (pos > inode->size)
            size_change_add(inode, pos, false);
    }
}

static size_t iov_len(const struct iovec *iov, int iov_count) {
    size_t len = 0;
    for (int i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    return len;
}

int sim_disk_write(sim_disk *disk, sim_inode *inode, bool direct, const struct iovec *iov, int iov_count, uint64_t pos) {
    size_t len = iov_len(iov, iov_count);
    int rc = len ? blocks_take(disk, inode, (size_t)(pos / SIM_PAGE), sim_pages_for(pos + len)) : 0;
    if (rc == 0)
        write_len(disk, inode, direct, iov, pos, len);
    return rc;
}

void sim_disk_write_part(sim_disk *disk, sim_inode *inode, bool direct, const struct iovec *iov, int iov_count,
                         uint64_t pos) {
    size_t len = iov_len(iov, iov_count);
    if (len == 0)
        return;
    uint64_t end = pos + len, first = pos / SIM_PAGE;
    uint64_t kept = first + cnk_rng_below(&disk->rng, sim_pages_for(end) - first + 1); /* pages before this one */
    uint64_t cut = kept * SIM_PAGE;
    if (cut <= pos)
        return;
    len = (size_t)((cut < end ? cut : end) - pos);
    if (blocks_take(disk, inode, (size_t)first, sim_pages_for(pos + len)) == 0)
        write_len(disk, inode, direct, iov, pos, len);
}

size_t sim_disk_read(sim_disk *disk, sim_inode *inode, bool direct, void *buf, size_t len, uint64_t pos) {
    if (!direct && inode->direct_writers > 0)
        disk->mixed_reads++;
    if (pos >= inode->size)
        return 0;
    if (len > inode->size - pos)
        len = (size_t)(inode->size - pos);
    for (size_t done = 0; done < len;) {
        size_t i = (size_t)((pos + done) / SIM_PAGE), offset = (size_t)((pos + done) % SIM_PAGE), n = SIM_PAGE - offset;
        if (n > len - done)
            n = len - done;
        const uint8_t *from = sim_zeros;
        if (i < inode->page_count) {
            page *p = &inode->pages[i];
            if (direct)
                page_write_back(disk, p);
            from = direct ? sim_page_below_cache(p) : sim_page_seen(p);
        }
        memcpy((uint8_t *)buf + done, from + offset, n);
        done += n;
    }
    return len;
}

/* A cut comes before the data, which may have been written after it. */
void sim_disk_sync(sim_disk *disk, sim_inode *inode) {
    if (!inode->size_stuck)
        sizes_commit(inode, inode->size_count);
    for (size_t i = 0; i < inode->page_count; i++) {
        page *p = &inode->pages[i];
        if (p->dirty)
            page_write_back(disk, p);
        if (p->pending)
            page_destage(p, ALL_SECTORS);
    }
}

void sim_disk_sync_part(sim_disk *disk, sim_inode *inode) {
    fate f = fate_draw(disk);
    if (!inode->size_stuck)
        sizes_commit_part(disk, inode);
    for (size_t i = 0; i < inode->page_count; i++)
        page_settle(disk, &f, &inode->pages[i]);
}

/* Of what the device's cache held, some is written, some is lost (and reads show the old content again), and some
 * waits for the next flush. */
static void page_flush_fail(sim_disk *disk, const fate *f, page *p) {
    page_destage(p, fate_sectors(disk, f, p));
    uint8_t lost = (uint8_t)(p->pending & random_sectors(disk));
    for (int s = 0; s < SECTORS; s++)
        if (lost & (1u << s))
            memcpy(p->device + s * SIM_SECTOR, (p->media ? p->media : sim_zeros) + s * SIM_SECTOR, SIM_SECTOR);
    p->pending = (uint8_t)(p->pending & ~lost);
}

void sim_disk_sync_fail(sim_disk *disk, sim_inode *inode) {
    fate f = fate_draw(disk);
    sizes_commit_part(disk, inode);
    inode->size_stuck = inode->size_count > 0;
    for (size_t i = 0; i < inode->page_count; i++) {
        page *p = &inode->pages[i];
        if (p->dirty && chance(disk, 2)) { /* it got to the device, at least; the cache keeps its copy */
            uint8_t *copy = sim_page_copy(p->cache);
            page_write_back(disk, p);
            p->cache = copy;
        }
        p->dirty = false; /* and nobody will write it any more */
        if (p->pending)
            page_flush_fail(disk, &f, p);
    }
}

int sim_disk_allocate(sim_disk *disk, sim_inode *inode, uint64_t len) {
    int rc = blocks_take(disk, inode, 0, sim_pages_for(len));
    if (rc == 0 && len > inode->size)
        size_change_add(inode, len, false);
    return rc;
}

int sim_disk_truncate(sim_disk *disk, sim_inode *inode, uint64_t len) {
    if (len >= inode->size) {
        sim_pages_reserve(inode, sim_pages_for(len));
        if (len > inode->size)
            size_change_add(inode, len, false);
        return 0;
    }
    size_t first = (size_t)(len / SIM_PAGE), offset = (size_t)(len % SIM_PAGE);
    for (size_t i = first; i < inode->page_count; i++, offset = 0) {
        page *p = &inode->pages[i];
        page_write_back(disk, p);
        free(p->cache);
        p->cache = NULL;
        if (!p->device)
            p->device = sim_page_copy(sim_page_below_cache(p));
        memset(p->device + offset, 0, SIM_PAGE - offset);
        if (offset == 0) {
            p->pending = 0; /* no write of sim_zeros: it is the cut that makes them */
            inode->blocks -= p->allocated;
            p->allocated = false;
        } else {
            p->pending = ALL_SECTORS;
        }
    }
    size_change_add(inode, len, true);
    return 0;
}

uint64_t sim_disk_inode_size(const sim_inode *inode) { return inode->size; }

void sim_disk_forget(sim_disk *disk, sim_inode *inode, uint64_t pos, uint64_t len) {
    (void)disk;
    uint64_t end = len > UINT64_MAX - pos ? UINT64_MAX : pos + len;
    for (size_t i = (size_t)(pos / SIM_PAGE); i < inode->page_count && (uint64_t)i * SIM_PAGE < end; i++) {
        page *p = &inode->pages[i];
        if (!p->dirty) {
            free(p->cache);
            p->cache = NULL;
        }
    }
}

int sim_disk_lock(sim_disk *disk, sim_inode *inode) {
    (void)disk;
    if (inode->locked)
        return CHRONIK_EBUSY;
    inode->locked = true;
    return 0;
}

/* ---- names: operations ------------------------------------------------------------------------------------------ */

int sim_disk_rename(sim_disk *disk, const char *from, const char *to) {
    char from_name[NAME_SIZE], to_name[NAME_SIZE];
    sim_inode *from_dir = parent_of(disk, from, from_name), *to_dir = parent_of(disk, to, to_name);
    entry *e = from_dir ? sim_entry_find(&from_dir->now, from_name) : NULL;
    if (!e || !to_dir)
        return CHRONIK_ENOTFOUND;
    sim_inode *inode = e->inode;
    entry *there = sim_entry_find(&to_dir->now, to_name);
    if (there && there->inode == inode)
        return 0;
    if (there && (there->inode->is_dir || inode->is_dir))
        return CHRONIK_EIO;
    name_op *op = op_new(disk);
    op_change(op, to_dir, to_name, inode);
    op_change(op, from_dir, from_name, NULL);
    collect(disk);
    return 0;
}

int sim_disk_unlink(sim_disk *disk, const char *path) {
    char name[NAME_SIZE];
    sim_inode *dir = parent_of(disk, path, name);
    entry *e = dir ? sim_entry_find(&dir->now, name) : NULL;
    if (!e)
        return CHRONIK_ENOTFOUND;
    if (e->inode->is_dir)
        return CHRONIK_EIO;
    op_change(op_new(disk), dir, name, NULL);
    return 0;
}

int sim_disk_mkdir(sim_disk *disk, const char *path) {
    char name[NAME_SIZE];
    sim_inode *dir = parent_of(disk, path, name);
    if (!dir)
        return sim_lookup(disk, path) ? CHRONIK_EEXIST : CHRONIK_ENOTFOUND;
    if (sim_entry_find(&dir->now, name))
        return CHRONIK_EEXIST;
    op_change(op_new(disk), dir, name, inode_new(disk, true));
    return 0;
}

int sim_disk_sync_dir(sim_disk *disk, const char *path) {
    sim_inode *dir = sim_lookup(disk, path);
    if (!dir || !dir->is_dir)
        return CHRONIK_ENOTFOUND;
    ops_choose_dir(disk, dir);
    ops_commit(disk);
    collect(disk);
    return 0;
}

void sim_disk_sync_dir_part(sim_disk *disk, const char *path) {
    sim_inode *dir = sim_lookup(disk, path);
    if (!dir || !dir->is_dir)
        return;
    ops_choose_dir(disk, dir);
    for (size_t i = 0; i < disk->op_count; i++)
        disk->ops[i].chosen = disk->ops[i].chosen && chance(disk, 2);
    ops_commit(disk);
}

void sim_disk_sync_dir_fail(sim_disk *disk, const char *path) {
    sim_inode *dir = sim_lookup(disk, path);
    if (!dir || !dir->is_dir)
        return;
    sim_disk_sync_dir_part(disk, path);
    for (size_t i = 0; i < disk->op_count; i++)
        if (op_touches(&disk->ops[i], dir))
            disk->ops[i].stuck = true;
}

int sim_disk_list(sim_disk *disk, const char *path, char ***ret_names) {
    sim_inode *dir = sim_lookup(disk, path);
    if (!dir || !dir->is_dir)
        return CHRONIK_ENOTFOUND;
    size_t count = dir->now.count;
    char **names = sim_must(calloc(count + 1, sizeof *names));
    for (size_t i = 0; i < count; i++) {
        size_t k = (size_t)cnk_rng_below(&disk->rng, i + 1);
        names[i] = names[k];
        names[k] = sim_must(strdup(dir->now.at[i].name));
    }
    *ret_names = names;
    return 0;
}
