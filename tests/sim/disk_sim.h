/* The simulated disk: what a file system and a device may do to files, and to their names, in a crash.
 *
 * It holds state alone. Time, latency, faults and call counting are the world's (io_sim.h), which calls the functions
 * below; a test calls those of the first part only. The model stands in tests/sim/README.md. One thread; everything it
 * decides comes from its seed. */
#ifndef SIM_DISK_SIM_H
#define SIM_DISK_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/rng.h"

typedef struct sim_disk sim_disk;
typedef struct sim_inode sim_inode;

enum { SIM_PAGE = 4096, SIM_SECTOR = 512 };

enum { SIM_OPEN_LOCK = 1 << 16 }; /* beside CHRONIK_OPEN_*: the handle holds the file's lock */

/* ---- for tests -------------------------------------------------------------------------------------------------- */

/* What is lost when the node goes down. */
typedef enum sim_crash {
    SIM_CRASH_PROCESS, /* kill -9: handles and locks; the page cache and the device's cache live on */
    SIM_CRASH_POWER    /* all that was not synced, in part, torn and reordered, as the model has it */
} sim_crash;

typedef struct sim_disk_options {
    uint64_t space_bytes; /* the device's size; beyond it ENOSPC */
    bool no_direct;       /* a file system without O_DIRECT: direct handles are buffered ones */
} sim_disk_options;

#define SIM_DISK_OPTIONS_INIT {UINT64_C(256) << 20, false}

sim_disk *sim_disk_new(uint64_t seed, const sim_disk_options *options); /* an empty root directory; NULL: defaults */
void sim_disk_free(sim_disk *disk);                                     /* NULL-safe; after its worlds */
/* A copy with random numbers of its own, to try several crashes from one state. The running world is not copied: what
 * is copied is the disk as a process crash would leave it. */
sim_disk *sim_disk_clone(const sim_disk *disk, uint64_t seed);

/* With no world on the disk: after sim_world_free. */
void sim_disk_crash(sim_disk *disk, sim_crash kind);

void sim_disk_space_set(sim_disk *disk, uint64_t space_bytes); /* the device grows or shrinks */
uint64_t sim_disk_space(const sim_disk *disk); /* the size */
uint64_t sim_disk_space_free(const sim_disk *disk);

/* The state of the random choices and of all that was done: same seed, same calls, same hash. */
uint64_t sim_disk_hash(const sim_disk *disk);
void sim_disk_hash_mix(sim_disk *disk, uint64_t value);

/* Looking from the outside; none of these counts as a call. Paths as in the node's calls. */
bool sim_disk_exists(const sim_disk *disk, const char *path);
int64_t sim_disk_size(const sim_disk *disk, const char *path); /* -1: no such file */
/* Bytes as a buffered read sees them. false: not there, or past the end. */
bool sim_disk_peek(const sim_disk *disk, const char *path, uint64_t pos, void *buf, size_t len);
/* Is this range, with these bytes, sure to be there after any crash: on the media, within the durable size, under a
 * durable name? */
bool sim_disk_durable(const sim_disk *disk, const char *path, uint64_t pos, size_t len);
bool sim_disk_name_durable(const sim_disk *disk, const char *path);
/* Changes bytes in all layers at once: a fault of the medium, or an evil editor. false: past the end. */
bool sim_disk_poke(sim_disk *disk, const char *path, uint64_t pos, const void *bytes, size_t len);
bool sim_disk_flip(sim_disk *disk, const char *path, uint64_t pos, unsigned bit);
/* Calls back for each file (not directory), depth first, in the order of names. */
void sim_disk_each(sim_disk *disk, void (*each)(void *arg, const char *path, uint64_t size), void *arg);

/* Buffered reads of a file while a direct handle for writing is open (S12 forbids that). */
uint64_t sim_disk_mixed_reads(const sim_disk *disk);

/* ---- for the world: 0 or CHRONIK_E* ----------------------------------------------------------------------------- */

uint64_t sim_disk_boot(sim_disk *disk); /* a world begins: the number of its boot, from 1 */
void sim_disk_leave(sim_disk *disk, uint64_t lasted_ns);
uint64_t sim_disk_lasted_ns(const sim_disk *disk); /* all worlds so far */
cnk_rng *sim_disk_rng(sim_disk *disk);
bool sim_disk_has_direct(const sim_disk *disk);

int sim_disk_open(sim_disk *disk, const char *path, unsigned flags, sim_inode **ret_inode);
void sim_disk_close(sim_disk *disk, sim_inode *inode, unsigned flags);
int sim_disk_write(sim_disk *disk, sim_inode *inode, bool direct, const struct iovec *iov, int iov_count, uint64_t pos);
/* As much of the write as a failure or a crash in its middle may leave: whole pages from the start. */
void sim_disk_write_part(sim_disk *disk, sim_inode *inode, bool direct, const struct iovec *iov, int iov_count,
                         uint64_t pos);
size_t sim_disk_read(sim_disk *disk, sim_inode *inode, bool direct, void *buf, size_t len, uint64_t pos);
void sim_disk_sync(sim_disk *disk, sim_inode *inode);
/* A part of the dirty data becomes durable; the rest is still to be written (crash in the middle of a sync). */
void sim_disk_sync_part(sim_disk *disk, sim_inode *inode);
/* A failed sync: a part becomes durable; the rest stays readable, and no later sync will write it. */
void sim_disk_sync_fail(sim_disk *disk, sim_inode *inode);
int sim_disk_allocate(sim_disk *disk, sim_inode *inode, uint64_t len);
int sim_disk_truncate(sim_disk *disk, sim_inode *inode, uint64_t len);
uint64_t sim_disk_inode_size(const sim_inode *inode);
int sim_disk_rename(sim_disk *disk, const char *from, const char *to);
int sim_disk_unlink(sim_disk *disk, const char *path);
int sim_disk_mkdir(sim_disk *disk, const char *path);
int sim_disk_sync_dir(sim_disk *disk, const char *path);
void sim_disk_sync_dir_part(sim_disk *disk, const char *path);
void sim_disk_sync_dir_fail(sim_disk *disk, const char *path);
/* The names in a directory, shuffled; a malloc'ed array of malloc'ed strings, ended by NULL. */
int sim_disk_list(sim_disk *disk, const char *path, char ***ret_names);
int sim_disk_lock(sim_disk *disk, sim_inode *inode); /* EBUSY; ends with the handle or the process */
void sim_disk_forget(sim_disk *disk, sim_inode *inode, uint64_t pos, uint64_t len);

#endif
