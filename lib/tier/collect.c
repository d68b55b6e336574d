/* Gives back the space of what nobody wants any more: a pack without live sections is deleted, one whose live payloads
 * are less than half is written anew under a new name. Where there is nothing of the kind, the catalog file may be due.
 *
 * A section dies by a drop or a trim, and those are rows of the WAL like any other: until they are durable, a crash
 * brings the section back to life. So it counts as dead only once the port says that the row is durable. */
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define DEATH_WAIT_MS 50u
#define RETRY_MS 1000u

static bool wanting(const tier_pack *p) {
    if (p->spoilt || p->live_sections == p->pack->section_count) return false;
    return p->live_sections == 0 || p->live_bytes < p->payload_bytes / 2;
}

/* The pack to thin out next, or NULL. */
static tier_pack *choose(cnk_tier *t) {
    tier_pack *chosen = NULL;
    cnk_tier_lock(t);
    CNK_LIST_EACH(it, &t->packs) {
        tier_pack *p = CNK_CONTAINER(it, tier_pack, link);
        if (wanting(p) && (!chosen || p->live_bytes < chosen->live_bytes)) chosen = p;
    }
    cnk_tier_unlock(t);
    return chosen;
}

/* The streams that still have a section in the pack. */
static int live_streams(cnk_tier *t, tier_pack *p, tier_job *j) {
    j->live = cnk_calloc(p->pack->section_count, sizeof *j->live);
    if (!j->live) return CHRONIK_ENOMEM;
    cnk_tier_lock(t);
    for (uint32_t i = 0; i < p->pack->section_count; i++) {
        const tier_stream *s = cnk_tier_stream_locked(t, p->pack->sections[i].stream, false);
        bool live = false;
        for (size_t k = 0; s && k < s->count && !live; k++) live = s->sections[k].in == p;
        if (live) j->live[j->live_count++] = p->pack->sections[i].stream;
    }
    cnk_tier_unlock(t);
    return 0;
}

bool cnk_tier_collect(cnk_tier *t) {
    if (!cnk_tier_deaths_settle(t)) cnk_tier_wake(t, DEATH_WAIT_MS);
    tier_job *j = &t->job;
    tier_pack *p = choose(t);
    if (!p && !cnk_tier_catalog_due(t)) return false;
    if (!p) {
        j->what = JOB_CATALOG;
        t->phase = TIER_COLLECTING;
        cnk_tier_job_submit(t);
        return true;
    }
    j->old = p;
    j->seq = TIER_BUG(NAME_USED_TWICE) ? p->pack->seq : t->next_seq;
    if (live_streams(t, p, j)) {
        cnk_tier_job_clear(j);
        cnk_tier_wake(t, RETRY_MS);
        return false;
    }
    j->what = j->live_count == 0 ? JOB_DELETE : JOB_REWRITE; /* what is dead stays dead */
    t->phase = TIER_COLLECTING;
    cnk_tier_job_submit(t);
    return true;
}

/* Without the file everything works; the next start takes longer. It is tried again after the next pack that comes or
 * goes. */
static void catalog_done(cnk_tier *t) {
    if (t->job.code && t->job.code != CHRONIK_ESHUTDOWN) cnk_tier_catalog_failed(t);
    cnk_tier_job_clear(&t->job);
    t->catalog.due = false;
    t->phase = TIER_IDLE;
    cnk_tier_move(t);
}

void cnk_tier_collect_done(cnk_tier *t) {
    tier_job *j = &t->job;
    chronik_error why = j->error;
    tier_pack *old = j->old;
    cnk_pack *made = j->made;
    bool rewritten = j->what == JOB_REWRITE;
    int rc = j->code;
    if (j->what == JOB_CATALOG) {
        catalog_done(t);
        return;
    }
    j->made = NULL;
    cnk_tier_job_clear(j);
    if (rc == 0 && rewritten) {
        cnk_tier_pack_replace(t, old, made);
    } else if (rc == 0) {
        cnk_tier_pack_remove(t, old);
        cnk_tier_lock(t);
        t->stats.packs_deleted++;
        cnk_tier_unlock(t);
    } else if (rc != CHRONIK_ENOSPC && rc != CHRONIK_ENOMEM && rc != CHRONIK_ESHUTDOWN) {
        cnk_tier_pack_spoilt(t, old->pack, &why); /* until the next start */
        rc = 0;
    }
    if (rc) {
        cnk_tier_pause(t, &why);
        return;
    }
    t->phase = TIER_IDLE;
    cnk_tier_move(t);
}
