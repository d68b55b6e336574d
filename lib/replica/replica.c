/* One stream as a group of one voter. What the group decides comes from group.c; here is what it means.
 *
 *   OFFLINE ──start──► EINVAL                 (another directory's stream, or damaged)
 *   FOLLOWER ──start: vote, LEADER entry──► ELECTED ──LEADER entry committed──► LEADER
 *
 * Invariants
 *  - commit_index is the group's, and durable here.
 *  - Every entry of the stream has gone through cnk_log_appended, in order.
 *
 * Owner: the shard's thread; the opening thread before the loop runs. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "replica/internal.h"

static int replica_new(cnk_replica_shard *shard, const cnk_replica_events *events, void *arg, uint64_t id,
                       chronik_error *err, cnk_replica **ret_replica);
static int append_config(cnk_replica *r, uint32_t term);
static int append_entry(cnk_replica *r, cnk_wal_entry *entry, const void *payload);
static uint64_t proposed(cnk_replica *r);
static void set_role(cnk_replica *r, cnk_replica_role role);
static int tier_attach(cnk_replica_shard *shard, cnk_wal_stream *stream, chronik_error *err);
static void apply_commands(cnk_replica *r, uint64_t from, uint64_t to);

int cnk_replica_recover(cnk_replica_shard *shard, cnk_wal_stream *stream, const cnk_replica_events *events, void *arg,
                        chronik_error *err, cnk_replica **ret_replica) {
    cnk_replica *r = NULL;
    int rc = replica_new(shard, events, arg, cnk_wal_stream_state(stream)->id, err, &r);
    if (rc != 0) return rc;
    r->stream = stream;
    rc = cnk_replica_restore(r, err);
    if (rc != 0) {
        cnk_replica_forget(r);
        return rc;
    }
    r->term = cnk_wal_stream_state(stream)->term;
    r->role = cnk_replica_is_new(r) || cnk_replica_sole(r) ? CNK_ROLE_FOLLOWER : CNK_ROLE_OFFLINE;
    cnk_wal_stream_attach(shard->port, stream, r);
    cnk_list_push_back(&shard->replicas, &r->node);
    rc = tier_attach(shard, stream, err);
    if (rc != 0) {
        cnk_list_remove(&r->node);
        cnk_replica_forget(r);
        return rc;
    }
    *ret_replica = r;
    return 0;
}

int cnk_replica_create(cnk_replica_shard *shard, uint64_t stream, const cnk_replica_events *events, void *arg,
                       chronik_error *err, cnk_replica **ret_replica) {
    cnk_replica *r = NULL;
    int rc = replica_new(shard, events, arg, stream, err, &r);
    if (rc != 0) return rc;
    r->log = cnk_log_new_empty(&shard->options.log);
    rc = r->log ? cnk_wal_stream_new(shard->port, stream, r, &r->stream) : CHRONIK_ENOMEM;
    if (rc != 0) {
        cnk_error(err, rc, 0, "stream %llu cannot be created", (unsigned long long)stream);
        cnk_replica_forget(r);
        return rc;
    }
    cnk_log_bind(r->log, r->stream); /* from here on nothing fails: the id is used up */
    r->tier_due = tier_attach(shard, r->stream, NULL) != 0;
    r->role = CNK_ROLE_FOLLOWER;
    cnk_list_push_back(&shard->replicas, &r->node);
    cnk_replica_kick(shard);
    *ret_replica = r;
    return 0;
}

int cnk_replica_start(cnk_replica *r, uint32_t term_floor, chronik_error *err) {
    if (r->role == CNK_ROLE_OFFLINE)
        return cnk_error(err, CHRONIK_EINVAL, 0, "stream %llu belongs to other voters than this node and directory",
                         (unsigned long long)r->id);
    if (r->leader_index != 0) return 0;
    int rc = r->tier_due ? tier_attach(r->shard, r->stream, err) : 0;
    if (rc != 0) return rc;
    r->tier_due = false;
    if (cnk_replica_is_new(r)) rc = append_config(r, term_floor);
    if (rc == 0 && cnk_wal_stream_state(r->stream)->term >= CHRONIK_RAFT_TERM_MAX)
        return cnk_error(err, CHRONIK_ECORRUPT, 0, "stream %llu: the leader epoch has run out",
                         (unsigned long long)r->id);
    if (rc == 0) rc = cnk_replica_group_make(r, term_floor, err);
    if (rc == 0) rc = cnk_replica_group_campaign(r);
    cnk_replica_kick(r->shard);
    if (rc != 0) {
        cnk_replica_group_forget(r);
        return cnk_error(err, rc, 0, "stream %llu cannot start its term", (unsigned long long)r->id);
    }
    CNK_ASSERT(r->leader_index != 0);
    return 0;
}

int cnk_replica_drop(cnk_replica *r) {
    cnk_replica_shard *shard = r->shard;
    int rc = cnk_wal_stream_drop(r->stream);
    if (rc != 0) return rc;
    if (shard->tier && !r->tier_due) cnk_tier_stream_dropped(shard->tier, r->id);
    cnk_replica_forget(r);
    cnk_replica_kick(shard);
    return 0;
}

int cnk_replica_drop_stream(cnk_replica_shard *shard, cnk_wal_stream *stream) {
    cnk_wal_stream_attach(shard->port, stream, NULL);
    int rc = tier_attach(shard, stream, NULL);
    if (rc != 0) return rc;
    uint64_t id = cnk_wal_stream_state(stream)->id;
    rc = cnk_wal_stream_drop(stream);
    if (rc == 0 && shard->tier) cnk_tier_stream_dropped(shard->tier, id);
    cnk_replica_kick(shard);
    return rc;
}

void cnk_replica_leave(cnk_replica_shard *shard, cnk_wal_stream *stream) {
    cnk_wal_stream_attach(shard->port, stream, NULL);
    /* Nothing is released from the WAL, though packs may have it: its state in the checkpoint is an old one, and has to
     * be brought up to date from the entries when it can be recovered again. */
    if (shard->options.tier) cnk_tier_stream_keep(shard->options.tier, cnk_wal_stream_state(stream)->id);
}

cnk_log *cnk_replica_log(const cnk_replica *r) { return r->log; }
uint64_t cnk_replica_stream_id(const cnk_replica *r) { return r->id; }
void *cnk_replica_arg(const cnk_replica *r) { return r->arg; }
cnk_replica_role cnk_replica_role_of(const cnk_replica *r) { return r->role; }
uint32_t cnk_replica_term(const cnk_replica *r) { return r->term; }
const cnk_replica_config *cnk_replica_config_of(const cnk_replica *r) {
    static const cnk_replica_config none = {.new_ = {.count = 0}};
    return r->config ? &r->config->config : &none;
}
uint64_t cnk_replica_commit_index(const cnk_replica *r) { return r->commit_index; }
bool cnk_replica_is_new(const cnk_replica *r) { return cnk_replica_config_of(r)->new_.count == 0; }

int32_t cnk_replica_leader(const cnk_replica *r) {
    return r->role == CNK_ROLE_LEADER || r->role == CNK_ROLE_ELECTED ? r->shard->options.self.node : -1;
}

int cnk_replica_propose_batch(cnk_replica *r, const cnk_batch *batch, int64_t append_time_ms,
                              cnk_replica_place *ret_place) {
    if (r->leader_index == 0) return CHRONIK_ENOTLEADER;
    cnk_log_append append;
    uint64_t index = 0;
    int64_t base_offset = -1;
    int rc = cnk_log_check(r->log, batch, r->term, append_time_ms, &append, &index, &base_offset);
    if (rc == CHRONIK_EDUPLICATE) *ret_place = (cnk_replica_place){index, base_offset, append.append_time_ms};
    if (rc != 0) return rc;
    append.entry.index = cnk_wal_stream_state(r->stream)->last_index + 1;
    append.entry.term = r->term;
    rc = cnk_wal_append(r->stream, &append.entry, &append.payload);
    if (rc != 0) return rc;
    cnk_log_appended(r->log, &append.entry);
    (void)proposed(r);
    *ret_place = (cnk_replica_place){append.entry.index, append.entry.base_offset, append.append_time_ms};
    return 0;
}

int cnk_replica_propose_command(cnk_replica *r, const void *command, size_t len, uint64_t *ret_index) {
    if (r->leader_index == 0) return CHRONIK_ENOTLEADER;
    if (len > CNK_REPLICA_COMMAND_BYTES_MAX) return CHRONIK_ETOOLARGE;
    int rc = cnk_replica_append_plain(r, CNK_ENTRY_COMMAND, r->term, command, len);
    if (rc == 0) *ret_index = proposed(r);
    return rc;
}

/* The first index that is still wanted: that of the entry with the offset, where the WAL has it; else as far as whole
 * sections of packs lie before the offset. */
int cnk_replica_trim(cnk_replica *r, int64_t start_offset, uint64_t *ret_rows) {
    if (r->leader_index == 0) return CHRONIK_ENOTLEADER;
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    cnk_wal_place place;
    uint64_t first = state->first_index;
    if (start_offset < 0 || start_offset > cnk_log_high_watermark(r->log)) return CHRONIK_EOFFSETRANGE;
    if (start_offset <= state->start_offset) {
        *ret_rows = cnk_wal_port_appended(r->shard->port); /* an earlier cut to there may not be durable yet */
        return 0;
    }
    if (start_offset >= state->released_offset)
        first = cnk_wal_find_offset(r->stream, start_offset, &place) == 0 ? place.entry.index : r->commit_index + 1;
    else if (r->shard->tier)
        first = cnk_tier_last_index_before(r->shard->tier, r->id, start_offset) + 1;
    if (first > r->commit_index + 1) first = r->commit_index + 1;
    int rc = cnk_wal_trim(r->stream, first > state->first_index ? first : state->first_index, start_offset);
    if (rc != 0) return rc;
    *ret_rows = cnk_wal_port_appended(r->shard->port);
    if (r->shard->tier && !r->tier_due) cnk_tier_stream_trimmed(r->shard->tier, r->stream);
    cnk_replica_kick(r->shard);
    return 0;
}

int cnk_replica_propose_expiry(cnk_replica *r, int64_t cutoff_ms, int64_t before_offset, uint64_t *ret_index) {
    if (r->leader_index == 0) return CHRONIK_ENOTLEADER;
    cnk_wal_entry entry = {.term = r->term, .kind = CNK_ENTRY_COMMAND};
    cnk_log_expire_aux(cutoff_ms, before_offset, entry.aux);
    int rc = append_entry(r, &entry, NULL);
    if (rc == 0) *ret_index = proposed(r);
    return rc;
}

/* The entry just appended is the group's business from here on, too. Gives its index. */
static uint64_t proposed(cnk_replica *r) {
    cnk_replica_group_proposed(r);
    cnk_replica_kick(r->shard);
    return cnk_wal_stream_state(r->stream)->last_index;
}

bool cnk_replica_sole(const cnk_replica *r) {
    const cnk_replica_config *config = cnk_replica_config_of(r);
    const cnk_voter *self = &r->shard->options.self, *voter = &config->new_.voter[0];
    return config->old.count == 0 && config->new_.count == 1 && voter->node == self->node &&
           cnk_uuid_equal(&voter->directory, &self->directory);
}

void cnk_replica_elected(cnk_replica *r) { set_role(r, CNK_ROLE_ELECTED); }

void cnk_replica_committed(cnk_replica *r, uint64_t commit_index) {
    uint64_t before = r->commit_index;
    r->commit_index = commit_index;
    cnk_wal_stream_commit_set(r->stream, commit_index);
    cnk_log_committed(r->log, commit_index);
    if (r->events->apply) apply_commands(r, before + 1, commit_index);
    if (r->role == CNK_ROLE_ELECTED) set_role(r, CNK_ROLE_LEADER);
    if (r->events->committed) r->events->committed(r->arg, r, commit_index);
}

void cnk_replica_forget(cnk_replica *r) {
    cnk_list_remove(&r->node);
    cnk_replica_group_forget(r);
    cnk_log_free(r->log);
    cnk_replica_config_set(r, NULL);
    cnk_free(r);
}

static int replica_new(cnk_replica_shard *shard, const cnk_replica_events *events, void *arg, uint64_t id,
                       chronik_error *err, cnk_replica **ret_replica) {
    cnk_replica *r = cnk_calloc(1, sizeof *r);
    if (r == NULL) return cnk_error(err, CHRONIK_ENOMEM, 0, "out of memory for stream %llu", (unsigned long long)id);
    r->shard = shard;
    r->events = events;
    r->arg = arg;
    r->id = id;
    cnk_list_init(&r->node);
    cnk_list_init(&r->flush_node);
    *ret_replica = r;
    return 0;
}

/* Something missing in the packs takes the missing range offline, not the stream: the tier has told it (`damaged`). */
static int tier_attach(cnk_replica_shard *shard, cnk_wal_stream *stream, chronik_error *err) {
    int rc = shard->tier ? cnk_tier_stream_attach(shard->tier, stream, err) : 0;
    return rc == CHRONIK_ECORRUPT ? 0 : rc;
}

static int append_config(cnk_replica *r, uint32_t term) {
    uint8_t bytes[64];
    cnk_writer w;
    cnk_replica_config config = {.new_ = {.count = 1}};
    config.new_.voter[0] = r->shard->options.self;
    cnk_writer_fixed(&w, bytes, sizeof bytes);
    cnk_replica_config_write(&w, &config);
    CNK_ASSERT(w.error == 0);
    cnk_replica_shared *shared = NULL;
    int rc = cnk_replica_config_share(r->shard, &config, &shared);
    if (rc != 0) return rc;
    rc = cnk_replica_append_plain(r, CNK_ENTRY_CONFIG, term, bytes, w.len);
    if (rc != 0) {
        cnk_replica_config_unref(shared);
        return rc;
    }
    cnk_replica_config_set(r, shared);
    r->config_index = cnk_wal_stream_state(r->stream)->last_index;
    return 0;
}

int cnk_replica_append_plain(cnk_replica *r, uint16_t kind, uint32_t term, const void *payload, size_t len) {
    cnk_wal_entry entry = {.term = term, .kind = kind, .len = (uint32_t)len};
    return append_entry(r, &entry, payload);
}

/* An entry that takes no offset; the caller has filled what it is. */
static int append_entry(cnk_replica *r, cnk_wal_entry *entry, const void *payload) {
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    entry->index = state->last_index + 1;
    entry->base_offset = state->next_offset;
    entry->max_timestamp = -1;
    cnk_wal_payload bytes = {.iov = {{(void *)(uintptr_t)payload, entry->len}},
                             .iov_count = entry->len > 0,
                             .crc = cnk_crc32c(0, payload, entry->len)};
    int rc = cnk_log_reserve(r->log);
    if (rc == 0) rc = cnk_wal_append(r->stream, entry, &bytes);
    if (rc == 0) cnk_log_appended(r->log, entry);
    return rc;
}

static void set_role(cnk_replica *r, cnk_replica_role role) {
    r->role = role;
    if (r->events->role) r->events->role(r->arg, r, role, r->term);
}

/* The bytes may have left memory already: a machine that proposed the command itself has prepared for it. */
static void apply_commands(cnk_replica *r, uint64_t from, uint64_t to) {
    for (uint64_t index = from; index <= to; index++) {
        cnk_wal_place place;
        int rc = cnk_wal_find_index(r->stream, index, &place);
        CNK_ASSERT(rc == 0);
        if (place.entry.kind != CNK_ENTRY_COMMAND || cnk_log_own_command(&place.entry)) continue;
        rc = r->events->apply(r->arg, r, index, place.data, place.entry.len);
        CNK_ASSERT(rc == 0);
    }
}
