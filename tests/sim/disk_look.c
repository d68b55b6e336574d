/* Looking at the simulated disk from the outside, and meddling with it; and what the world asks of it. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/disk_state.h"

void sim_disk_space_set(sim_disk *disk, uint64_t space_bytes) { disk->options.space_bytes = space_bytes; }

uint64_t sim_disk_space(const sim_disk *disk) { return disk->options.space_bytes; }
uint64_t sim_disk_space_free(const sim_disk *disk) {
    uint64_t used = 0;
    for (const sim_inode *inode = disk->inodes; inode; inode = inode->next)
        if (inode->links > 0 || inode->open_count > 0)
            used += inode->blocks * SIM_PAGE;
    return used < disk->options.space_bytes ? disk->options.space_bytes - used : 0;
}

uint64_t sim_disk_hash(const sim_disk *disk) {
    uint64_t h = disk->hash;
    for (int i = 0; i < 4; i++)
        h = (h ^ disk->rng.s[i]) * UINT64_C(0x100000001b3);
    return h;
}

void sim_disk_hash_mix(sim_disk *disk, uint64_t value) {
    disk->hash = (disk->hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    disk->hash ^= disk->hash >> 29;
}

bool sim_disk_exists(const sim_disk *disk, const char *path) { return sim_lookup(disk, path) != NULL; }

static sim_inode *file_at(const sim_disk *disk, const char *path) {
    sim_inode *inode = sim_lookup(disk, path);
    return inode && !inode->is_dir ? inode : NULL;
}

int64_t sim_disk_size(const sim_disk *disk, const char *path) {
    const sim_inode *inode = file_at(disk, path);
    return inode ? (int64_t)inode->size : -1;
}

bool sim_disk_peek(const sim_disk *disk, const char *path, uint64_t pos, void *buf, size_t len) {
    const sim_inode *inode = file_at(disk, path);
    if (!inode || pos > inode->size || len > inode->size - pos)
        return false;
    for (size_t done = 0; done < len;) {
        size_t offset = (size_t)((pos + done) % SIM_PAGE), n = SIM_PAGE - offset;
        size_t i = (size_t)((pos + done) / SIM_PAGE);
        if (n > len - done)
            n = len - done;
        memcpy((uint8_t *)buf + done, (i < inode->page_count ? sim_page_seen(&inode->pages[i]) : sim_zeros) + offset, n);
        done += n;
    }
    return true;
}

bool sim_disk_name_durable(const sim_disk *disk, const char *path) {
    sim_inode *dir = disk->root;
    for (path += strspn(path, "/"); *path;) {
        char name[NAME_SIZE];
        size_t len = strcspn(path, "/");
        if (len == 0 || len >= NAME_SIZE)
            return false;
        memcpy(name, path, len);
        name[len] = '\0';
        const entry *now = sim_entry_find(&dir->now, name), *durable = sim_entry_find(&dir->durable, name);
        if (!now || !durable || now->inode != durable->inode)
            return false;
        for (size_t i = 0; i < disk->op_count; i++) /* away and back again: some state between may survive */
            for (int k = 0; k < disk->ops[i].count; k++)
                if (disk->ops[i].change[k].dir == dir && strcmp(disk->ops[i].change[k].name, name) == 0)
                    return false;
        dir = now->inode;
        path += len;
        path += strspn(path, "/");
    }
    return true;
}

bool sim_disk_durable(const sim_disk *disk, const char *path, uint64_t pos, size_t len) {
    const sim_inode *inode = file_at(disk, path);
    if (!inode || !sim_disk_name_durable(disk, path))
        return false;
    uint64_t end = pos + len, size = inode->media_size;
    for (size_t i = 0; i < inode->size_count; i++)
        size = inode->sizes[i].size < size ? inode->sizes[i].size : size;
    if (end > size)
        return false;
    for (size_t i = (size_t)(pos / SIM_PAGE); i < sim_pages_for(end) && i < inode->page_count; i++) {
        const page *p = &inode->pages[i];
        size_t from = i == pos / SIM_PAGE ? (size_t)(pos % SIM_PAGE) : 0;
        size_t to = (i + 1) * SIM_PAGE > end ? (size_t)(end % SIM_PAGE) : SIM_PAGE;
        const uint8_t *media = p->media ? p->media : sim_zeros;
        if (memcmp(sim_page_seen(p) + from, media + from, to - from) != 0 ||
            (p->device && memcmp(p->device + from, media + from, to - from) != 0))
            return false;
    }
    return true;
}

bool sim_disk_poke(sim_disk *disk, const char *path, uint64_t pos, const void *bytes, size_t len) {
    sim_inode *inode = file_at(disk, path);
    if (!inode || pos > inode->size || len > inode->size - pos)
        return false;
    for (size_t done = 0; done < len; done++) {
        size_t i = (size_t)((pos + done) / SIM_PAGE), offset = (size_t)((pos + done) % SIM_PAGE);
        sim_pages_reserve(inode, i + 1);
        page *p = &inode->pages[i];
        if (!p->media)
            p->media = sim_page_copy(sim_zeros);
        uint8_t byte = ((const uint8_t *)bytes)[done];
        p->media[offset] = byte;
        if (p->device)
            p->device[offset] = byte;
        if (p->cache)
            p->cache[offset] = byte;
    }
    return true;
}

bool sim_disk_flip(sim_disk *disk, const char *path, uint64_t pos, unsigned bit) {
    uint8_t byte;
    if (!sim_disk_peek(disk, path, pos, &byte, 1))
        return false;
    byte = (uint8_t)(byte ^ (1u << (bit % 8)));
    return sim_disk_poke(disk, path, pos, &byte, 1);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static void each_in(const sim_inode *dir, const char *prefix,
                    void (*each)(void *arg, const char *path, uint64_t size), void *arg) {
    size_t count = dir->now.count;
    entry *sorted = sim_must(malloc(count * sizeof *sorted + 1));
    if (count)
        memcpy(sorted, dir->now.at, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "/" : "", sorted[i].name);
        if (sorted[i].inode->is_dir)
            each_in(sorted[i].inode, path, each, arg);
        else
            each(arg, path, sorted[i].inode->size);
    }
    free(sorted);
}

void sim_disk_each(sim_disk *disk, void (*each)(void *arg, const char *path, uint64_t size), void *arg) {
    each_in(disk->root, "", each, arg);
}

uint64_t sim_disk_mixed_reads(const sim_disk *disk) { return disk->mixed_reads; }
uint64_t sim_disk_lasted_ns(const sim_disk *disk) { return disk->lasted_ns; }

uint64_t sim_disk_boot(sim_disk *disk) {
    assert(!disk->in_use);
    disk->in_use = true;
    return ++disk->boots;
}

void sim_disk_leave(sim_disk *disk, uint64_t lasted_ns) {
    assert(disk->in_use);
    disk->in_use = false;
    disk->lasted_ns += lasted_ns;
}

cnk_rng *sim_disk_rng(sim_disk *disk) { return &disk->rng; }
bool sim_disk_has_direct(const sim_disk *disk) { return !disk->options.no_direct; }

