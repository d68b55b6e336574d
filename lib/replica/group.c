/* A replica's consensus group: the host's part of chronik/raft.h. The log that the group asks about is the WAL's stream;
 * what a step says is carried out here, persistent effects first and in their order, then what others are told, for
 * whoever is told may propose at once.
 *
 * The group numbers its persistent effects; the WAL reports an index. Between two changes that are no entries (a vote)
 * the two go side by side, so their distance is all that is kept; a change without an entry counts as durable with the
 * next entry.
 *
 * A group of one voter has nobody to send to and nothing to wait for: it needs no ticks. Owner: the shard's thread; the
 * opening thread before the loop runs. */
#include "base/assert.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include "replica/internal.h"

#define NOT_YET UINT64_MAX

static uint32_t term_at(void *arg, uint64_t index);
static uint64_t fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes);
static int step(cnk_replica *r, const chronik_raft_event *event);
static int carry_out(cnk_replica *r, const chronik_raft_effects *effects);
static int append_own(cnk_replica *r, const chronik_raft_effect *e);
static void flush_later(cnk_replica *r);
static void propose(cnk_replica *r);
static uint64_t member_id(const cnk_voter *voter);
static void members(const cnk_voters *voters, uint64_t *ids, uint8_t *ret_count);

const chronik_raft_log cnk_replica_raft_log = {term_at, fit};

int cnk_replica_group_make(cnk_replica *r, uint32_t term_floor, chronik_error *err) {
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    chronik_raft_config config = {0};
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    const cnk_replica_config *own = cnk_replica_config_of(r);
    members(&own->old, config.old, &config.old_count);
    members(&own->new_, config.voters, &config.voter_count);
    o.self = member_id(&r->shard->options.self);
    o.seed = (uint32_t)cnk_hash_u64(r->id);
    o.term = state->term > term_floor ? state->term : term_floor;
    o.voted_for = o.term == state->term ? state->voted_for : 0;
    o.first_index = state->released_index + 1;
    o.last_index = state->last_index;
    o.commit_index = r->commit_index;
    o.config_index = r->config_index > state->released_index ? r->config_index : 0;
    o.config = &config;
    o.settings = &r->shard->raft;
    o.arg = r;
    size_t bytes = chronik_raft_size((unsigned)config.old_count + config.voter_count);
    void *memory = cnk_malloc(bytes);
    if (memory == NULL) return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for a raft group");
    int rc = chronik_raft_init(memory, bytes, &o, err, &r->group);
    if (rc != 0) {
        cnk_free(memory);
        return rc;
    }
    r->lsn_from = NOT_YET;
    r->proposed = 0;
    r->raft_first_index = o.first_index;
    return 0;
}

void cnk_replica_group_forget(cnk_replica *r) {
    cnk_list_remove(&r->flush_node);
    cnk_free(r->group);
    r->group = NULL;
}

int cnk_replica_group_campaign(cnk_replica *r) {
    return step(r, &(chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
}

/* An entry has been written: the group hears of it with the others of this batch of the loop's events. */
void cnk_replica_group_proposed(cnk_replica *r) {
    r->proposed++;
    flush_later(r);
}

void cnk_replica_group_flush(cnk_replica *r) {
    propose(r);
    if (!r->flush_wanted) return;
    r->flush_wanted = false;
    (void)step(r, &(chronik_raft_event){.type = CHRONIK_RAFT_FLUSH});
}

/* The group leads, and hands nothing over, so it refuses only where the disk has failed. */
static void propose(cnk_replica *r) {
    if (r->proposed == 0) return;
    chronik_raft_event event = {.type = CHRONIK_RAFT_PROPOSE, .count = r->proposed};
    r->proposed = 0;
    int rc = step(r, &event);
    CNK_ASSERT(rc == 0 || rc == CHRONIK_EFENCED);
}

void cnk_replica_group_durable(cnk_replica *r, uint64_t durable_index) {
    if (r->group == NULL) return;
    propose(r);
    if (durable_index < r->lsn_from || durable_index <= r->commit_index) return;
    int rc = step(r, &(chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = durable_index + r->lsn_ahead});
    CNK_ASSERT(rc == 0 || rc == CHRONIK_EFENCED);
}

/* R2: nothing will be durable, so nothing will be committed. Who reads goes on being served by this replica as it was: a
 * group of one voter has no other. */
void cnk_replica_group_disk_failed(cnk_replica *r) {
    if (r->group) (void)step(r, &(chronik_raft_event){.type = CHRONIK_RAFT_DISK_FAILED});
}

/* ---- the log, as the group sees it ------------------------------------------------------------------------------- */

static uint32_t term_at(void *arg, uint64_t index) {
    const cnk_replica *r = arg;
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    if (index == state->released_index) return state->released_term;
    cnk_wal_place place;
    int rc = cnk_wal_find_index(r->stream, index, &place);
    CNK_ASSERT(rc == 0);
    return place.entry.term;
}

static uint64_t fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes) {
    const cnk_replica *r = arg;
    uint64_t bytes = 0, index = first;
    for (; index <= last; index++) {
        cnk_wal_place place;
        int rc = cnk_wal_find_index(r->stream, index, &place);
        CNK_ASSERT(rc == 0);
        if (index > first && bytes + place.entry.len > bytes_max) break;
        bytes += place.entry.len;
    }
    *ret_bytes = (uint32_t)bytes;
    return index - 1;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static int step(cnk_replica *r, const chronik_raft_event *event) {
    chronik_raft_effects *effects = &r->shard->effects;
    uint64_t released = cnk_wal_stream_state(r->stream)->released_index;
    if (released >= r->raft_first_index) { /* what has left the WAL is behind a snapshot */
        chronik_raft_event compacted = {.type = CHRONIK_RAFT_COMPACTED, .index = released};
        if (chronik_raft_step(r->group, &compacted, effects) == 0) r->raft_first_index = released + 1;
    }
    int rc = chronik_raft_step(r->group, event, effects);
    return rc ? rc : carry_out(r, effects);
}

static int carry_out(cnk_replica *r, const chronik_raft_effects *effects) {
    uint64_t commit = 0;
    bool elected = false;
    const cnk_replica_config *config = cnk_replica_config_of(r);
    if (effects->flush && config->old.count + config->new_.count > 1) { /* there is somebody to send to */
        r->flush_wanted = true;
        flush_later(r);
    }
    for (unsigned i = 0; i < effects->count; i++) {
        const chronik_raft_effect *e = &effects->effect[i];
        int rc = 0;
        switch (e->type) {
        case CHRONIK_RAFT_DO_VOTE:
            rc = cnk_wal_vote(r->stream, e->term, e->peer);
            r->lsn_from = NOT_YET;
            break;
        case CHRONIK_RAFT_DO_APPEND: rc = append_own(r, e); break;
        case CHRONIK_RAFT_DO_COMMIT: commit = e->index; break;
        case CHRONIK_RAFT_DO_ROLE: elected |= e->role == CHRONIK_RAFT_ROLE_LEADER; break;
        default: CNK_ASSERT(false); /* a group of one voter sends nothing, truncates nothing and takes no snapshot */
        }
        if (rc != 0) return rc;
    }
    if (elected) cnk_replica_elected(r);
    if (commit > 0) cnk_replica_committed(r, commit);
    return 0;
}

static void flush_later(cnk_replica *r) {
    if (!cnk_list_linked(&r->flush_node)) cnk_list_push_back(&r->shard->flushes, &r->flush_node);
}

static int append_own(cnk_replica *r, const chronik_raft_effect *e) {
    uint64_t last = e->index + e->count - 1;
    if (e->kind == CHRONIK_RAFT_LEADER) {
        int rc = cnk_replica_append_plain(r, CNK_ENTRY_LEADER, e->term, NULL, 0);
        if (rc != 0) return rc;
        r->term = e->term;
        r->leader_index = e->index;
    } else {
        CNK_ASSERT(e->kind == CHRONIK_RAFT_PROPOSED);
    }
    CNK_ASSERT(cnk_wal_stream_state(r->stream)->last_index == last);
    if (r->lsn_from == NOT_YET) r->lsn_from = e->index;
    r->lsn_ahead = e->lsn - last;
    return 0;
}

/* ---- members ---------------------------------------------------------------------------------------------------- */

/* A directory's random id stands for its log (R4). */
static uint64_t member_id(const cnk_voter *voter) {
    uint64_t id = cnk_load_le64(voter->directory.bytes);
    return id ? id : 1;
}

static void members(const cnk_voters *voters, uint64_t *ids, uint8_t *ret_count) {
    for (size_t i = 0; i < voters->count; i++) ids[i] = member_id(&voters->voter[i]);
    *ret_count = voters->count;
}
