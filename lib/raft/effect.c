/* Effects, and the parts of a group's state that change with them: what the log holds, what of it is durable.
 *
 * Every persistent effect has a number, its lsn; an append has one for each entry. Since the last other effect
 * (break_lsn) index and lsn have grown together, which is all that is needed to tell how much of the log is durable. */
#include "raft/internal.h"

chronik_raft_effect *cnk_raft_effect(cnk_raft_out *out, chronik_raft_effect_type type) {
    CNK_ASSERT(out->effects->count < CHRONIK_RAFT_EFFECTS_MAX);
    chronik_raft_effect *e = &out->effects->effect[out->effects->count++];
    *e = (chronik_raft_effect){.type = (uint8_t)type};
    return e;
}

static chronik_raft_effect *append(chronik_raft *g, cnk_raft_out *out, chronik_raft_append_kind kind, uint32_t count) {
    chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_APPEND);
    e->kind = (uint8_t)kind;
    e->index = g->last_index + 1;
    e->count = count;
    g->last_index += count;
    g->lsn += count;
    e->lsn = g->lsn;
    return e;
}

/* A leader appends to its own log; [3.5] it never overwrites or deletes there. FLUSH sends it. */
void cnk_raft_append_own(chronik_raft *g, cnk_raft_out *out, chronik_raft_append_kind kind, uint32_t count) {
    chronik_raft_effect *e = append(g, out, kind, count);
    e->term = g->last_term = g->term;
    e->config = kind == CHRONIK_RAFT_CONFIG ? &out->effects->config : NULL;
    g->busy_ticks = g->now_ticks;
    if (!CNK_RAFT_BUG(SLEEP_WHILE_PROPOSING)) g->falling_asleep = false;
    out->effects->flush = true;
}

void cnk_raft_append_received(chronik_raft *g, cnk_raft_out *out, const chronik_raft_entry *entries, uint32_t count) {
    chronik_raft_effect *e = append(g, out, CHRONIK_RAFT_ENTRIES, count);
    e->entries = entries;
    e->term = g->last_term = entries[count - 1].term;
}

void cnk_raft_truncate(chronik_raft *g, cnk_raft_out *out, uint64_t index) {
    g->last_term = cnk_raft_term_at(g, index);
    g->last_index = index;
    if (g->durable_index > index && !CNK_RAFT_BUG(DURABLE_NOT_CUT)) g->durable_index = index;
    g->break_lsn = ++g->lsn;
    chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_TRUNCATE);
    e->lsn = g->lsn;
    e->index = index;
}

/* A snapshot takes the place of the log [5.1]. */
void cnk_raft_reset(chronik_raft *g, cnk_raft_out *out, const chronik_raft_message *m) {
    g->first_index = m->index + 1;
    g->last_index = m->index;
    g->last_term = m->log_term;
    g->durable_index = 0;
    g->break_lsn = ++g->lsn;
    chronik_raft_effect *e = cnk_raft_effect(out, CHRONIK_RAFT_DO_RESET);
    e->lsn = g->lsn;
    e->index = m->index;
    e->term = m->log_term;
    e->config = m->config;
    cnk_raft_commit_set(g, out, m->index);
}

void cnk_raft_durable(chronik_raft *g, cnk_raft_out *out, uint64_t lsn) {
    if (lsn < g->break_lsn || lsn > g->lsn) return;
    uint64_t index = g->last_index - (g->lsn - lsn);
    if (index <= g->durable_index) return;
    g->durable_index = index;
    if (g->role == CHRONIK_RAFT_ROLE_LEADER) cnk_raft_commit_check(g, out);
}

chronik_raft_message *cnk_raft_send(chronik_raft *g, cnk_raft_out *out, chronik_raft_message_type type, uint64_t to,
                                    uint64_t lsn) {
    chronik_raft_effect *e = cnk_raft_effect(
        out, type == CHRONIK_RAFT_SNAPSHOT ? CHRONIK_RAFT_DO_SNAPSHOT : CHRONIK_RAFT_DO_SEND);
    e->lsn = lsn;
    e->message.type = (uint8_t)type;
    e->message.from = g->self;
    e->message.to = to;
    e->message.term = g->term;
    return &e->message;
}

/* The host's log may lack the effects of this very step; of those the group knows enough itself. */
uint32_t cnk_raft_term_at(const chronik_raft *g, uint64_t index) {
    CNK_ASSERT(index + 1 >= g->first_index && index <= g->last_index);
    if (index == g->last_index) return g->last_term;
    if (g->role == CHRONIK_RAFT_ROLE_LEADER && index >= g->verified) return g->term;
    return g->settings->log.term(g->arg, index);
}

/* The last entry up to index whose term is at most `term`; first_index - 1 where there is none. Terms never go down
 * along a log [3.5], so it is found by halving. */
uint64_t cnk_raft_last_of_term(const chronik_raft *g, uint64_t index, uint32_t term) {
    uint64_t low = g->first_index - 1, high = index;
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (cnk_raft_term_at(g, middle) <= term)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
