/* What must hold after every step of any of the nodes (Ongaro, figure 3.2), and what a client may rely on. The world
 * knows what is true, since it sees all logs and disks; the nodes do not. */
#include "sim/raft_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "raft/internal.h"

void rw_violation(raft_world *w, const char *format, ...) {
    if (w->failed) return;
    w->failed = true;
    va_list ap;
    va_start(ap, format);
    int at = snprintf(w->what, sizeof w->what, "at %llu.%03llu ms: ", (unsigned long long)w->time / 1000,
                      (unsigned long long)w->time % 1000);
    vsnprintf(w->what + at, sizeof w->what - (size_t)at, format, ap);
    va_end(ap);
    if (w->trace) printf("VIOLATION %s\n", w->what);
}

static unsigned long long ull(uint64_t x) { return x; }

/* Log matching: "if two logs contain an entry with the same index and term, then the logs are identical in all entries
 * up through the given index": the chain is a hash of them all. What a leader has appended counts once somebody else
 * has it, or it is durable: before, a crash takes it back together with the vote. */
void rw_check_appended(raft_world *w, rw_node *n, const rw_log *log, uint64_t index) {
    const rw_entry *e = &log->entry[index];
    uint64_t key = index << 32 | e->term;
    unsigned at = (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 49);
    while (w->chains[at].key != 0 && w->chains[at].key != key) at = (at + 1) % (1 << 15);
    if (w->chains[at].key == 0) {
        w->chains[at].key = key;
        w->chains[at].chain = e->chain;
    } else if (w->chains[at].chain != e->chain) {
        rw_violation(w, "log matching: %d has another entry %llu of term %u than somebody before", n->id, ull(index),
                     e->term);
    }
    if (index > log->first && log->entry[index - 1].term > e->term)
        rw_violation(w, "%d: terms go down at %llu", n->id, ull(index));
}

static unsigned count_in(const uint64_t *ids, unsigned count, unsigned mask) {
    unsigned sum = 0;
    for (unsigned i = 0; i < count; i++) sum += mask >> ids[i] & 1;
    return sum;
}

static bool quorum(const chronik_raft_config *c, unsigned mask) {
    return (c->old_count == 0 || count_in(c->old, c->old_count, mask) > c->old_count / 2u) &&
           count_in(c->voters, c->voter_count, mask) > c->voter_count / 2u;
}

/* No two configurations in a row with disjoint majorities; none before the last is committed. */
void rw_check_config(raft_world *w, rw_node *n, uint64_t index) {
    uint64_t before_at;
    int before = rw_config_in_log(&n->log, index - 1, &before_at);
    if (before < 0 || index == 1) return;
    const chronik_raft_config *a = &w->configs[before], *b = &w->configs[n->log.entry[index].config];
    unsigned all = (1u << (w->pool + 1)) - 2;
    for (unsigned mask = 0; mask <= all; mask += 2)
        if (quorum(a, mask) && quorum(b, all & ~mask)) {
            rw_violation(w, "%d: configurations %llu and %llu have disjoint majorities", n->id, ull(before_at),
                         ull(index));
            return;
        }
    if (n->st.role == CHRONIK_RAFT_ROLE_LEADER && before_at > n->st.commit_index)
        rw_violation(w, "%d: configuration %llu follows %llu, which is not committed", n->id, ull(index),
                     ull(before_at));
    w->changes++;
}

static bool same_set(const uint64_t *a, unsigned a_count, const uint64_t *b, unsigned b_count) {
    uint64_t x = 0, y = 0;
    for (unsigned i = 0; i < a_count; i++) x |= UINT64_C(1) << a[i];
    for (unsigned i = 0; i < b_count; i++) y |= UINT64_C(1) << b[i];
    return x == y;
}

/* "A server always uses the latest configuration in its log" (4.1). */
void rw_check_config_used(raft_world *w, rw_node *n) {
    uint64_t at;
    int config = rw_config_in_log(&n->log, n->log.last, &at);
    chronik_raft_config used;
    if (config < 0 || w->failed) return;
    const chronik_raft_config *c = &w->configs[config];
    chronik_raft_config_get(n->raft, &used);
    if (!same_set(c->voters, c->voter_count, used.voters, used.voter_count) ||
        !same_set(c->old, c->old_count, used.old, used.old_count) ||
        !same_set(c->learners, c->learner_count, used.learners, used.learner_count))
        rw_violation(w, "%d uses another configuration than the latest in its log, %llu", n->id, ull(at));
}

/* Election safety: "at most one leader can be elected in a given term". Leader completeness: "if a log entry is
 * committed in a given term, then that entry will be present in the logs of the leaders for all higher-numbered
 * terms". */
void rw_check_role(raft_world *w, rw_node *n) {
    uint32_t t = n->st.term;
    if (t >= 4096) {
        rw_violation(w, "too many terms");
        return;
    }
    bool elected =
        n->raft->vote_lsn <= n->durable_lsn || !cnk_raft_sole_voter(n->raft); /* an only voter does not wait */
    bool other = w->leaders[t].node != n->id || w->leaders[t].incarnation != n->incarnation;
    if (w->leaders[t].term == t && other && elected)
        rw_violation(w, "election safety: %d and %d both lead in term %u", w->leaders[t].node, n->id, t);
    if (elected) {
        w->leaders[t].incarnation = n->incarnation;
        w->elections += w->leaders[t].term != t;
        w->leaders[t].term = t;
        w->leaders[t].node = n->id;
    }
    for (uint64_t i = w->commit; i >= n->log.first && i > 0; i--) {
        if (w->committed[i].term >= t) continue;
        if (i > n->log.last || n->log.entry[i].chain != w->committed[i].chain)
            rw_violation(w, "leader completeness: %d leads in term %u without entry %llu, committed in term %u", n->id,
                         t, ull(i), w->committed[i].term);
        return; /* the chain covers those before */
    }
}

static bool disk_has(const raft_world *w, const rw_node *p, uint64_t index, uint64_t chain) {
    (void)w;
    if (index < p->disk.first) return p->disk.snapshot.index >= index;
    return index <= p->disk.last && p->disk.entry[index].chain == chain;
}

/* A leader has just committed: the entry is durable on a majority, the leader's own configuration decides of whom. What
 * a replica acknowledged before it lost it counts, too: it will not vote. */
static void check_durable(raft_world *w, rw_node *n, uint64_t index) {
    uint64_t at;
    int config = rw_config_in_log(&n->log, n->log.last, &at);
    unsigned mask = 0;
    for (unsigned i = 1; i <= w->pool; i++)
        if (w->node[i].ever_lost || disk_has(w, &w->node[i], index, n->log.entry[index].chain)) mask |= 1u << i;
    if (config >= 0 && !quorum(&w->configs[config], mask))
        rw_violation(w, "%d commits %llu, which is not durable on a majority", n->id, ull(index));
}

/* State machine safety: "if a server has applied a log entry at a given index, no other server will ever apply a
 * different one for the same index"; and commits only move forwards. */
void rw_check_commit(raft_world *w, rw_node *n, uint64_t index) {
    bool leads = n->led || n->st.role == CHRONIK_RAFT_ROLE_LEADER; /* it may have committed its own removal */
    if (index < n->commit) {
        rw_violation(w, "%d: the commit index goes back from %llu to %llu", n->id, ull(n->commit), ull(index));
        return;
    }
    if (index > n->log.last) {
        rw_violation(w, "%d commits %llu, which it does not have", n->id, ull(index));
        return;
    }
    for (uint64_t i = n->commit + 1 < n->log.first ? n->log.first : n->commit + 1; i <= index; i++) {
        const rw_entry *e = &n->log.entry[i];
        if (i <= w->commit) {
            if (w->committed[i].chain != e->chain)
                rw_violation(w, "state machine safety: %d commits another entry %llu than somebody before", n->id,
                             ull(i));
            if (leads && n->st.term < w->committed[i].term) w->committed[i].term = n->st.term;
        } else if (!leads) {
            rw_violation(w, "%d commits %llu, which no leader has", n->id, ull(i));
            return;
        } else {
            w->committed[i].chain = e->chain;
            w->committed[i].term = n->st.term;
            w->commit = i;
        }
    }
    if (n->log.snapshot.index == index && index <= w->commit && w->committed[index].chain != n->log.snapshot.chain)
        rw_violation(w, "%d has a snapshot of what was never committed", n->id);
    if (index < n->log.first && index > w->commit) rw_violation(w, "%d has a snapshot from the future", n->id);
    n->commit = index;
    if (leads && index >= n->log.first) check_durable(w, n, index);
}

/* A read that begins now must see all that has been acknowledged by now, by whomever. */
void rw_check_read(raft_world *w, rw_node *n, uint32_t round) {
    n->read[round % RW_READS].round = round;
    n->read[round % RW_READS].must = w->commit;
    n->read[round % RW_READS].waiting = true;
}

void rw_check_ready(raft_world *w, rw_node *n, uint32_t round, uint64_t index) {
    for (unsigned i = 0; i < RW_READS; i++) {
        if (!n->read[i].waiting || n->read[i].round > round) continue;
        n->read[i].waiting = false;
        w->reads++;
        if (index < n->read[i].must)
            rw_violation(w, "a read at %d sees up to %llu, but %llu had been acknowledged when it began", n->id,
                         ull(index), ull(n->read[i].must));
    }
}

/* R12: a leader sleeps only when every member has all there is. */
void rw_check_sleep(raft_world *w, rw_node *n) {
    chronik_raft_config c;
    uint64_t last = n->log.last;
    if (n->st.role != CHRONIK_RAFT_ROLE_LEADER || last < n->log.first) return;
    chronik_raft_config_get(n->raft, &c);
    for (unsigned i = 0; i < c.voter_count; i++) {
        const rw_node *p = &w->node[c.voters[i]];
        if (!p->ever_lost && !disk_has(w, p, last, n->log.entry[last].chain))
            rw_violation(w, "%d sleeps, but %d has not got entry %llu", n->id, p->id, ull(last));
    }
    if (n->commit != last) rw_violation(w, "%d sleeps with entries that are not committed", n->id);
}

/* Every message is limited in bytes. */
void rw_check_message(raft_world *w, const rw_message *m) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->m.count; i++) bytes += m->entry[i].bytes;
    if (m->m.count > 1 && bytes > w->settings.message_bytes_max)
        rw_violation(w, "%llu sends %llu bytes in one message", ull(m->m.from), ull(bytes));
}

/* The transcript: printed, and judged by the model. */
void rw_record(raft_world *w, const raft_record *record) {
    raft_record r = *record;
    r.time = w->time;
    if (w->failed) return;
    if (w->trace && r.kind != RAFT_STEP) raft_text_print(w, &r);
    const char *broken = w->no_model ? NULL : raft_model_feed(w->model, w, &r);
    if (broken) rw_violation(w, "the model: %d: %s", r.node, broken);
}
