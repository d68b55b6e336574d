/* What disk_sim.c and disk_look.c share: the state of the simulated disk, as disk_sim.c explains it. */
#ifndef SIM_DISK_STATE_H
#define SIM_DISK_STATE_H

#include "sim/disk_sim.h"

enum { SECTORS = SIM_PAGE / SIM_SECTOR, ALL_SECTORS = 0xff, NAME_SIZE = 128, OLD_VERSION_ONE_IN = 4, NAMES_IN_OP = 2 };

typedef struct page {
    uint8_t *cache, *device, *media;
    uint64_t seq; /* of its last write, for crashes that keep a prefix */
    bool dirty, allocated;
    uint8_t pending;
} page;

typedef struct size_change {
    uint64_t size;
    bool cut; /* a truncation: what lay beyond is gone */
} size_change;

typedef struct entry {
    char name[NAME_SIZE];
    sim_inode *inode;
} entry;

typedef struct entries {
    entry *at;
    size_t count, capacity;
} entries;

struct sim_inode {
    sim_inode *next; /* all inodes of the disk */
    uint64_t id;
    bool is_dir, locked, marked;
    unsigned links, open_count, direct_writers;
    uint64_t blocks; /* pages that have one */
    sim_inode *copy; /* while the disk is cloned */
    /* a file's */
    uint64_t size, media_size;
    page *pages;
    size_t page_count, page_capacity;
    size_change *sizes; /* between media_size and size, in order */
    size_t size_count, size_capacity;
    bool size_stuck; /* a failed sync: this process cannot make these changes durable any more */
    /* a directory's */
    entries now, durable;
};

/* dir/name becomes inode, or nothing. */
typedef struct name_change {
    sim_inode *dir, *inode;
    char name[NAME_SIZE];
} name_change;

typedef struct name_op {
    name_change change[NAMES_IN_OP];
    int count;
    bool stuck;  /* a failed sync_dir: this process cannot make it durable any more */
    bool chosen; /* while a crash or a sync decides */
} name_op;

struct sim_disk {
    sim_disk_options options;
    cnk_rng rng;
    uint64_t hash, boots, lasted_ns, write_seq, inode_ids, mixed_reads;
    bool in_use; /* a world is on it */
    sim_inode *inodes, *root;
    name_op *ops;
    size_t op_count, op_capacity;
};

extern const uint8_t sim_zeros[SIM_PAGE];

void *sim_must(void *p); /* ends the program where there is no memory */
entry *sim_entry_find(const entries *list, const char *name);
sim_inode *sim_lookup(const sim_disk *disk, const char *path); /* as it is now; NULL: not there */
void sim_pages_reserve(sim_inode *inode, size_t count);
uint8_t *sim_page_copy(const uint8_t *content);

static inline size_t sim_pages_for(uint64_t len) { return (size_t)((len + SIM_PAGE - 1) / SIM_PAGE); }
static inline const uint8_t *sim_page_below_cache(const page *p) {
    return p->device ? p->device : p->media ? p->media : sim_zeros;
}
static inline const uint8_t *sim_page_seen(const page *p) { return p->cache ? p->cache : sim_page_below_cache(p); }

#endif
