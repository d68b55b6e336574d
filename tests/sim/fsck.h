/* fsck on what a crash, or damage, has left of a simulated disk. */
#ifndef SIM_FSCK_H
#define SIM_FSCK_H

#include "sim/io_sim.h"
#include "tier/tier.h"
#include "wal/internal.h"

/* The log in "wal" and, unless NULL, the packs in that directory. flags: CHRONIK_WAL_FSCK_CUT repairs the log. 0: all in order, or
 * there is no log yet; ECORRUPT: something is not. */
static inline int sim_fsck(sim_disk *disk, unsigned flags, const char *packs, chronik_error *err) {
    sim_world *world = sim_world_new(disk, NULL);
    int code = cnk_wal_fsck(sim_world_io(world), "wal", flags, NULL, NULL, err);
    if (code == 0 && packs) code = cnk_tier_check(sim_world_io(world), packs, false, NULL, NULL, err);
    sim_world_free(world);
    return code == CHRONIK_ENOTFOUND ? 0 : code;
}

#endif
