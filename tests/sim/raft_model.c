/* A second, simple opinion: Raft's rules as the thesis states them (figures 3.1 and 4.1, sections 3.6, 4, 6.4), checked
 * against the transcript of a run. It knows nothing of the core: what it reads is who wrote, synced, sent, received and
 * committed what.
 *
 * Where the core keeps clever summaries, the model keeps everything: whole logs, every vote and every acknowledgement
 * of the present term. What a node says must be backed by what it has synced; a message that has waited until its
 * sender was in a later term is not judged again. */
#include "sim/raft_world.h"

#include <stdlib.h>
#include <string.h>

typedef struct model_entry {
    uint32_t term;
    uint64_t id, lsn; /* lsn: of the write; 0: it was there at the start */
    int config;
} model_entry;

typedef struct model_node {
    uint32_t term; /* currentTerm, votedFor, log[]: figure 3.1 */
    uint64_t vote, vote_lsn;
    model_entry log[RW_LOG];
    uint64_t first, last;
    uint32_t snapshot_term;
    int snapshot_config;
    uint64_t commit, synced;
    bool leads, lost;
    uint64_t term_start;            /* leader: its first entry */
    uint64_t agreed, heard_commit;  /* follower: the log is the leader's up to here; it has committed so much */
    uint64_t asked_index[RW_NODES]; /* RequestVotes of the term */
    uint32_t asked_log_term[RW_NODES], asked_term[RW_NODES];
    unsigned votes;                      /* received in the term */
    uint64_t acked[RW_NODES];
    bool broken[RW_NODES]; /* it has lost entries, and does not count */
    uint32_t round[RW_NODES];            /* of heartbeats answered */
    const rw_message *at_hand;           /* what it has just received */
} model_node;

struct raft_model {
    model_node node[RW_NODES];
};

raft_model *raft_model_new(void) { return calloc(1, sizeof(raft_model)); }
void raft_model_free(raft_model *m) { free(m); }

void raft_model_reset(raft_model *m) {
    for (int i = 0; i < RW_NODES; i++) m->node[i].first = 1, m->node[i].last = m->node[i].commit = 0;
}

static uint32_t term_of(const model_node *n, uint64_t index) {
    if (index + 1 == n->first) return n->snapshot_term;
    return index >= n->first && index <= n->last ? n->log[index].term : 0;
}

/* The latest configuration in the log (4.1), committed or not. */
static int config_of(const model_node *n, uint64_t up_to, uint64_t *ret_index) {
    for (*ret_index = up_to; *ret_index >= n->first; --*ret_index)
        if (n->log[*ret_index].config >= 0) return n->log[*ret_index].config;
    *ret_index = 0;
    return n->snapshot_config;
}

static bool majority(const uint64_t *ids, unsigned count, unsigned who) {
    unsigned have = 0;
    for (unsigned i = 0; i < count; i++) have += who >> ids[i] & 1;
    return 2 * have > count;
}

/* 4.3: agreement in a joint configuration needs separate majorities of both. */
static bool quorum(const raft_world *w, const model_node *n, unsigned who) {
    uint64_t at;
    int config = config_of(n, n->last, &at);
    if (config < 0) return false;
    const chronik_raft_config *c = &w->configs[config];
    return majority(c->voters, c->voter_count, who) && (c->old_count == 0 || majority(c->old, c->old_count, who));
}

static void new_term(model_node *n) {
    n->leads = false;
    n->votes = 0;
    n->agreed = n->heard_commit = 0;
    memset(n->acked, 0, sizeof n->acked);
    memset(n->broken, 0, sizeof n->broken);
    memset(n->round, 0, sizeof n->round);
}

static void start(model_node *n, const rw_node *from) {
    memset(n, 0, offsetof(model_node, log));
    memset(&n->commit, 0, sizeof *n - offsetof(model_node, commit));
    n->term = from->log.term;
    n->vote = from->log.vote;
    n->first = from->log.first;
    n->last = from->log.last;
    n->snapshot_term = from->log.snapshot.term;
    n->snapshot_config = from->log.snapshot.config;
    n->commit = n->first - 1;
    n->lost = from->log.lost;
    for (uint64_t i = n->first; i <= n->last; i++)
        n->log[i] = (model_entry){from->log.entry[i].term, from->log.entry[i].id, 0, from->log.entry[i].config};
}

/* ---- writes ---------------------------------------------------------------------------------------------------- */

static const char *writes_vote(model_node *n, int self, const rw_op *op) {
    if (op->term < n->term) return "its term goes down (3.3)";
    if (op->term == n->term && n->vote != 0) return "votes twice in a term (3.4)";
    if (op->term > n->term) new_term(n);
    n->term = op->term;
    n->vote = op->vote;
    n->vote_lsn = op->lsn;
    if (op->vote == 0 || op->vote == (uint64_t)self) return NULL;
    uint64_t c = op->vote;
    if (n->lost) return "votes, though it has lost entries";
    if (n->asked_term[c] != op->term) return "votes for somebody who has not asked (3.4)";
    uint32_t mine = term_of(n, n->last);
    if (n->asked_log_term[c] < mine || (n->asked_log_term[c] == mine && n->asked_index[c] < n->last))
        return "votes for somebody whose log is not up to date (3.6.1)";
    return NULL;
}

static const char *writes_truncation(model_node *n, const rw_op *op) {
    const rw_message *x = n->at_hand;
    if (x == NULL || x->m.type != CHRONIK_RAFT_APPEND || x->m.term != n->term) return "truncates without being told to";
    if (op->index < n->commit) return "truncates what is committed (3.6)";
    uint64_t at = op->index + 1;
    if (at <= x->m.index || at > x->m.index + x->m.count || x->entry[at - x->m.index - 1].term == term_of(n, at))
        return "truncates entries that do not conflict (3.5)";
    n->last = op->index;
    return NULL;
}

static const char *begins_to_lead(const raft_world *w, model_node *n, int self) {
    if (n->vote != (uint64_t)self) return "leads without having stood (3.4)";
    if (!quorum(w, n, n->votes | 1u << self)) return "leads without a majority of votes (3.4)";
    n->leads = true;
    n->term_start = n->last + 1;
    return NULL;
}

static const char *writes_own_entry(const raft_world *w, model_node *n, const rw_op *op) {
    uint64_t at;
    if (op->term != n->term) return "appends an entry of another term than its own (3.5)";
    if (op->entry.config < 0 || n->last < n->term_start) return NULL;
    if (n->commit < n->term_start)
        return "changes its configuration before it has committed anything in its term (4.1)";
    (void)config_of(n, n->last, &at);
    (void)w;
    return at > n->commit ? "changes its configuration before the last change is committed (4.1)" : NULL;
}

static const char *writes_entry(const raft_world *w, model_node *n, int self, const rw_op *op) {
    const rw_message *x = n->at_hand;
    const char *broken = NULL;
    if (op->index != n->last + 1) return "leaves a gap in its log";
    bool received = x != NULL && x->m.type == CHRONIK_RAFT_APPEND;
    if (received) {
        if (x->m.term != n->term || n->leads) return "appends what is not from the leader of its term (3.5)";
        if (op->index <= x->m.index || op->index > x->m.index + x->m.count) return "appends what it was not sent";
        const rw_entry *e = &x->entry[op->index - x->m.index - 1];
        if (e->id != op->entry.id || e->term != op->term) return "appends something else than it was sent";
    } else {
        if (!n->leads) broken = begins_to_lead(w, n, self);
        if (broken == NULL) broken = writes_own_entry(w, n, op);
    }
    n->last = op->index;
    n->log[op->index] = (model_entry){op->term, op->entry.id, op->lsn, op->entry.config};
    return broken;
}

static const char *persists(const raft_world *w, model_node *n, int self, const rw_op *op) {
    switch (op->type) {
    case CHRONIK_RAFT_DO_VOTE: return writes_vote(n, self, op);
    case CHRONIK_RAFT_DO_TRUNCATE: return writes_truncation(n, op);
    case CHRONIK_RAFT_DO_APPEND: return writes_entry(w, n, self, op);
    case CHRONIK_RAFT_DO_RESET:
        if (n->at_hand == NULL || n->at_hand->m.type != CHRONIK_RAFT_SNAPSHOT)
            return "discards its log for nothing (5.1)";
        if (op->index <= n->commit) return "discards committed entries for an old snapshot (5.1)";
        n->first = op->index + 1;
        n->last = n->agreed = n->heard_commit = op->index;
        n->snapshot_term = op->term;
        n->snapshot_config = op->snapshot.config;
        return NULL;
    default:
        n->lost = false;
        if (n->at_hand == NULL || !(n->at_hand->m.flags & CHRONIK_RAFT_REPAIRED)) return "is repaired by nobody";
        return NULL;
    }
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static const char *sends(model_node *n, int self, const rw_message *x) {
    const chronik_raft_message *m = &x->m;
    if (m->term != n->term)
        return m->term > n->term && m->type != CHRONIK_RAFT_PREVOTE && m->type != CHRONIK_RAFT_PREVOTE_REPLY
                   ? "speaks of a term that it is not in"
                   : NULL;
    switch (m->type) {
    case CHRONIK_RAFT_VOTE:
        if (n->vote != (uint64_t)self || n->vote_lsn > n->synced)
            return "asks for votes before its own is synced (3.8)";
        break;
    case CHRONIK_RAFT_VOTE_REPLY:
        if ((m->flags & CHRONIK_RAFT_REFUSED) == 0 && (n->vote != m->to || n->vote_lsn > n->synced))
            return "gives a vote that is not synced (3.8)";
        break;
    case CHRONIK_RAFT_APPEND_REPLY:
        if (m->flags & CHRONIK_RAFT_REFUSED) break;
        if (m->index > n->last || (m->index >= n->first && n->log[m->index].lsn > n->synced))
            return "acknowledges what is not synced (3.8)";
        if (m->index > n->agreed && m->index > n->commit) return "acknowledges what the leader has not sent";
        break;
    case CHRONIK_RAFT_APPEND:
        if (!n->leads) break; /* it has waited; the one who leads is judged */
        if (m->index + 1 >= n->first && m->log_term != term_of(n, m->index))
            return "sends the wrong term of the entry before";
        if (m->commit > n->commit) return "tells of a commit that is none";
        for (uint32_t i = 0; i < m->count; i++)
            if (x->entry[i].id != n->log[m->index + 1 + i].id) return "sends entries that are not in its log";
        break;
    case CHRONIK_RAFT_HEARTBEAT:
        if (n->leads && m->commit > n->acked[m->to]) return "a heartbeat tells more than the member is known to have";
        break;
    default: break;
    }
    return NULL;
}

static void receives(model_node *n, const rw_message *x) {
    const chronik_raft_message *m = &x->m;
    uint64_t from = m->from;
    n->at_hand = x;
    bool ours = m->term == n->term;
    switch (m->type) {
    case CHRONIK_RAFT_VOTE:
        n->asked_term[from] = m->term;
        n->asked_index[from] = m->index;
        n->asked_log_term[from] = m->log_term;
        break;
    case CHRONIK_RAFT_VOTE_REPLY:
        if (ours && !(m->flags & CHRONIK_RAFT_REFUSED)) n->votes |= 1u << from;
        break;
    case CHRONIK_RAFT_APPEND_REPLY:
        if (!ours) break;
        n->broken[from] = (m->flags & CHRONIK_RAFT_LOST) != 0;
        if (!(m->flags & CHRONIK_RAFT_REFUSED) && m->index > n->acked[from]) n->acked[from] = m->index;
        break;
    case CHRONIK_RAFT_HEARTBEAT_REPLY:
        if (ours) n->broken[from] = (m->flags & CHRONIK_RAFT_LOST) != 0;
        if (ours && !(m->flags & CHRONIK_RAFT_LOST) && m->round > n->round[from]) n->round[from] = m->round;
        break;
    default: break;
    }
}

/* What a leader's message allows, once the step that it causes has entered its term. */
static void follows(model_node *n) {
    const rw_message *x = n->at_hand;
    if (x == NULL || x->m.term != n->term || n->leads) return;
    const chronik_raft_message *m = &x->m;
    if (m->type == CHRONIK_RAFT_APPEND) {
        bool agrees = m->index + 1 < n->first || (m->index <= n->last && term_of(n, m->index) == m->log_term);
        uint64_t up_to = m->index;
        for (uint32_t i = 0; i < m->count && agrees; i++) /* as far as it has taken them */
            if (up_to + 1 < n->first || (up_to + 1 <= n->last && n->log[up_to + 1].id == x->entry[i].id)) up_to++;
            else break;
        if (agrees && up_to > n->agreed) n->agreed = up_to;
        if (m->commit > n->heard_commit) n->heard_commit = m->commit;
    } else if (m->type == CHRONIK_RAFT_HEARTBEAT) {
        if (m->commit > n->heard_commit) n->heard_commit = m->commit;
    } else if (m->type == CHRONIK_RAFT_SNAPSHOT && m->index <= n->last && term_of(n, m->index) == m->log_term) {
        if (m->index > n->agreed) n->agreed = m->index;
        if (m->index > n->heard_commit) n->heard_commit = m->index;
    }
}

static const char *commits(const raft_world *w, model_node *n, int self, uint64_t index) {
    if (index < n->commit) return "its commit index goes back";
    if (index > n->last) return "commits what it does not have";
    n->commit = index;
    if (!n->leads) {
        if (index > n->heard_commit) return "commits more than the leader has (3.5)";
        return index > n->agreed ? "commits what is not known to be the leader's (3.5)" : NULL;
    }
    if (term_of(n, index) != n->term) return "commits an entry of an earlier term by counting (3.6.2)";
    unsigned who = n->log[index].lsn <= n->synced ? 1u << self : 0;
    for (int i = 1; i < RW_NODES; i++)
        if (i != self && !n->broken[i] && n->acked[i] >= index) who |= 1u << i;
    return quorum(w, n, who) ? NULL : "commits without a majority of acknowledgements of its term (3.6.2)";
}

static const char *reads(const raft_world *w, model_node *n, int self, uint32_t round, uint64_t index) {
    unsigned who = 1u << self;
    if (n->commit < n->term_start) return "serves a read before it has committed anything in its term (6.4)";
    if (index < n->commit && index < n->term_start) return "serves a read from an old state (6.4)";
    for (int i = 1; i < RW_NODES; i++)
        if (n->round[i] >= round) who |= 1u << i;
    return quorum(w, n, who) ? NULL : "serves a read without knowing that it still leads (6.4)";
}

const char *raft_model_feed(raft_model *model, const raft_world *w, const raft_record *r) {
    model_node *n = &model->node[r->node];
    switch (r->kind) {
    case RAFT_START: start(n, r->n); return NULL;
    case RAFT_PERSIST: {
        const char *broken = persists(w, n, r->node, r->op);
        follows(n);
        return broken;
    }
    case RAFT_STEP: /* of something else than a message */
        n->at_hand = NULL;
        return NULL;
    case RAFT_SYNCED:
        n->synced = r->lsn;
        return NULL;
    case RAFT_SEND: return sends(n, r->node, r->message);
    case RAFT_RECEIVE:
        receives(n, r->message);
        follows(n);
        return NULL;
    case RAFT_ROLE:
        n->leads = n->leads && r->role == CHRONIK_RAFT_ROLE_LEADER;
        return NULL;
    case RAFT_COMMIT: {
        const char *broken = commits(w, n, r->node, r->index);
        return broken;
    }
    case RAFT_READY: return reads(w, n, r->node, r->round, r->index);
    case RAFT_COMPACT:
        n->snapshot_term = term_of(n, r->index);
        {
            uint64_t at;
            n->snapshot_config = config_of(n, r->index, &at);
        }
        n->first = r->index + 1;
        return NULL;
    case RAFT_NEMESIS: return NULL;
    default: return NULL;
    }
}
