/* Who belongs to the group [4].
 *
 * A configuration holds from the moment its entry is in the log, committed or not [4.1]; when the entry is truncated,
 * the one before holds again. Only the newest can be truncated: a leader appends the next one once the last is
 * committed. So two are kept, as sets of slots. A change of voters goes by way of a joint configuration [4.3]. */
#include "raft/internal.h"

static void sets_of(chronik_raft *g, const chronik_raft_config *c, cnk_raft_sets *ret_sets);
static cnk_raft_mask mask_of(chronik_raft *g, const uint64_t *ids, unsigned count);
static int slot_for(chronik_raft *g, uint64_t id);
static void free_slots(chronik_raft *g);
static bool holds(const uint64_t *ids, unsigned count, uint64_t id);
static bool same_ids(const uint64_t *a, unsigned a_count, const uint64_t *b, unsigned b_count);

bool cnk_raft_config_valid(const chronik_raft_config *c) {
    if (c->old_count > CHRONIK_RAFT_VOTERS_MAX || c->voter_count == 0 || c->voter_count > CHRONIK_RAFT_VOTERS_MAX ||
        c->learner_count > CHRONIK_RAFT_LEARNERS_MAX)
        return false;
    for (unsigned i = 0; i < c->old_count; i++)
        if (c->old[i] == 0 || holds(c->old, i, c->old[i])) return false;
    for (unsigned i = 0; i < c->voter_count; i++)
        if (c->voters[i] == 0 || holds(c->voters, i, c->voters[i])) return false;
    for (unsigned i = 0; i < c->learner_count; i++) { /* of the old voters some may be learners to be */
        uint64_t id = c->learners[i];
        if (id == 0 || holds(c->learners, i, id) || holds(c->voters, c->voter_count, id)) return false;
    }
    return true;
}

/* Is there room for it beside those that may be in force? */
bool cnk_raft_config_fits(const chronik_raft *g, const chronik_raft_config *c) {
    unsigned slots = (unsigned)__builtin_popcount(cnk_raft_members(g));
    for (unsigned i = 0; i < c->voter_count; i++) slots += cnk_raft_slot(g, c->voters[i]) < 0;
    for (unsigned i = 0; i < c->learner_count; i++) slots += cnk_raft_slot(g, c->learners[i]) < 0;
    for (unsigned i = 0; i < c->old_count; i++) {
        bool counted = holds(c->voters, c->voter_count, c->old[i]) || holds(c->learners, c->learner_count, c->old[i]);
        slots += !counted && cnk_raft_slot(g, c->old[i]) < 0;
    }
    return slots <= g->capacity;
}

/* [4.1] "A server always uses the latest configuration in its log." */
void cnk_raft_config_adopt(chronik_raft *g, const chronik_raft_config *c, uint64_t index) {
    cnk_raft_sets next;
    g->before = g->now;
    free_slots(g);
    sets_of(g, c, &next);
    g->now = next;
    g->config_index = index;
}

/* The newest configuration's entry is truncated. */
void cnk_raft_config_take_back(chronik_raft *g, uint64_t last_kept) {
    if (g->config_index <= last_kept || CNK_RAFT_BUG(CONFIG_NOT_TAKEN_BACK)) return;
    g->now = g->before;
    g->config_index = 0; /* committed, wherever it is */
    free_slots(g);
}

/* The newest configuration is committed, or a snapshot's: there is no way back from it. */
void cnk_raft_config_settled(chronik_raft *g) {
    g->before = g->now;
    free_slots(g);
}

/* [4.3] From the present voters to the wanted ones by way of both. A change that leaves the voters as they are needs no
 * joint configuration, since the majorities are the same. */
int cnk_raft_configure(chronik_raft *g, cnk_raft_out *out, const chronik_raft_config *wanted) {
    if (g->role != CHRONIK_RAFT_ROLE_LEADER) return CHRONIK_ENOTLEADER;
    if (!cnk_raft_config_valid(wanted) || wanted->old_count != 0) return CHRONIK_EINVAL;
    /* R5, and Ongaro's correction of 2015: none before an entry of the own term is committed. One change at a time. */
    if (g->commit_index < g->verified && !CNK_RAFT_BUG(CONFIG_BEFORE_COMMIT)) return CHRONIK_EAGAIN;
    if (g->now.old != 0 || g->config_index > g->commit_index) return CHRONIK_EBUSY;
    chronik_raft_config *c = &out->effects->config, now;
    *c = *wanted;
    chronik_raft_config_get(g, &now);
    if (!same_ids(now.voters, now.voter_count, c->voters, c->voter_count) && !CNK_RAFT_BUG(CONFIG_WITHOUT_JOINT)) {
        c->old_count = now.voter_count;
        for (unsigned i = 0; i < now.voter_count; i++) c->old[i] = now.voters[i];
    }
    if (!cnk_raft_config_fits(g, c)) return CHRONIK_ENOMEM;
    cnk_raft_append_own(g, out, CHRONIK_RAFT_CONFIG, 1);
    cnk_raft_config_adopt(g, c, g->last_index);
    return 0;
}

/* Leader: the newest configuration has just been committed. */
void cnk_raft_config_committed(chronik_raft *g, cnk_raft_out *out) {
    cnk_raft_config_settled(g);
    if (g->now.old != 0) { /* [4.3] "…the leader creates a log entry describing C_new" */
        chronik_raft_config *c = &out->effects->config;
        chronik_raft_config_get(g, c);
        c->old_count = 0;
        cnk_raft_append_own(g, out, CHRONIK_RAFT_CONFIG, 1);
        cnk_raft_config_adopt(g, c, g->last_index);
    } else if (!cnk_raft_is_voter(g)) { /* [4.2.2] "…steps down … once it has committed C_new" */
        cnk_raft_turn(g, CNK_RAFT_REMOVED);
    }
}

int cnk_raft_slot(const chronik_raft *g, uint64_t id) {
    for (int slot = 0; slot < g->capacity; slot++)
        if (g->member[slot].id == id && id != 0) return slot;
    return -1;
}

cnk_raft_mask cnk_raft_self_mask(const chronik_raft *g) {
    int slot = cnk_raft_slot(g, g->self);
    return slot < 0 ? 0 : CNK_RAFT_BIT(slot);
}

cnk_raft_mask cnk_raft_voters(const chronik_raft *g) { return g->now.old | g->now.voters; }

/* While a change is not committed, those whom it removes are told of it. */
cnk_raft_mask cnk_raft_members(const chronik_raft *g) {
    return cnk_raft_sets_all(&g->now) | cnk_raft_sets_all(&g->before);
}

cnk_raft_mask cnk_raft_sets_all(const cnk_raft_sets *sets) { return sets->old | sets->voters | sets->learners; }

bool cnk_raft_is_voter(const chronik_raft *g) { return (cnk_raft_voters(g) & cnk_raft_self_mask(g)) != 0; }

bool cnk_raft_sole_voter(const chronik_raft *g) {
    cnk_raft_mask self = cnk_raft_self_mask(g);
    return self != 0 && cnk_raft_voters(g) == self;
}

static void sets_of(chronik_raft *g, const chronik_raft_config *c, cnk_raft_sets *ret_sets) {
    ret_sets->old = mask_of(g, c->old, c->old_count);
    ret_sets->voters = mask_of(g, c->voters, c->voter_count);
    ret_sets->learners = mask_of(g, c->learners, c->learner_count);
}

static cnk_raft_mask mask_of(chronik_raft *g, const uint64_t *ids, unsigned count) {
    cnk_raft_mask mask = 0;
    for (unsigned i = 0; i < count; i++) mask |= CNK_RAFT_BIT(slot_for(g, ids[i]));
    return mask;
}

/* The member's slot, or a new one. */
static int slot_for(chronik_raft *g, uint64_t id) {
    int slot = cnk_raft_slot(g, id);
    if (slot >= 0) return slot;
    for (slot = 0; slot < g->capacity && g->member[slot].id != 0; slot++) {}
    CNK_ASSERT(slot < g->capacity);
    g->member[slot] = (cnk_raft_member){.id = id, .next = g->last_index + 1};
    g->probing |= CNK_RAFT_BIT(slot);
    g->active |= CNK_RAFT_BIT(slot);
    return slot;
}

static void free_slots(chronik_raft *g) {
    cnk_raft_mask used = cnk_raft_members(g);
    for (int slot = 0; slot < g->capacity; slot++)
        if (!(used & CNK_RAFT_BIT(slot))) g->member[slot] = (cnk_raft_member){0};
    g->tally &= used;
    g->active &= used;
    g->lost &= used;
    g->probing &= used;
    g->snapshot &= used;
    g->doubt &= used;
    if (g->transfer && !(used & CNK_RAFT_BIT(g->transfer - 1))) g->transfer = 0;
}

static bool holds(const uint64_t *ids, unsigned count, uint64_t id) {
    for (unsigned i = 0; i < count; i++)
        if (ids[i] == id) return true;
    return false;
}

static bool same_ids(const uint64_t *a, unsigned a_count, const uint64_t *b, unsigned b_count) {
    if (a_count != b_count) return false;
    for (unsigned i = 0; i < a_count; i++)
        if (!holds(b, b_count, a[i])) return false;
    return true;
}
