/* Bounded exhaustive exploration of the real step function: every order of events that the bounds allow, and after each
 * of them the invariants of the thesis (figure 3.2).
 *
 * Three nodes begin with a configuration in term 1. Anything of this may happen next, in every state:
 *
 *   timeout    a node stands for election, while its term is below the bound (by way of TIMEOUT_NOW, so without
 * pre-votes) propose    a leader takes an entry, while its log is below the bound deliver    any message that was ever
 * sent and has left its node, to its receiver. It stays: so messages may be lost (never delivered), doubled (delivered
 * again) and reordered in every way sync       a node syncs what it has written; what it wanted to say is sent then
 * (with --sync-at-once: always at once) crash      a node loses what it has not synced, and starts again; as often as
 * the bound allows
 *
 * States are told apart by a 64-bit hash of everything that matters (times and random numbers do not, lsns count from
 * the last sync), so a search of n states misses one with a probability below n²/2⁶⁵. Depth first; the nodes being
 * alike, the first to stand is always node 1.
 *
 * Messages that can never do anything again are left out of a state, which changes nothing of what may happen.
 *
 *     prog_raft_explore [--terms 2] [--entries 3] [--crashes 1] [--sync-at-once] [--heartbeats] [--states-max N] [--bug
 * NAME] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/internal.h"

enum { NODES = 3, LOG = 8, HELD = 12, NET = 250, MESSAGES = 60000, DEPTH = 4000, BATCH = 6 };

typedef struct entry {
    uint8_t term, by; /* by: the leader that made it */
} entry;

typedef struct disk {
    uint8_t term, vote, last;
    entry log[LOG];
} disk;

typedef struct letter { /* a message, as content */
    uint8_t type, flags, from, to, term, index, commit, hint, log_term, round, count;
    entry entries[BATCH];
} letter;

typedef struct node {
    uint64_t memory[38];
    disk now, synced;
    uint8_t held_count;
    struct {
        uint8_t after; /* lsn, from the last sync on */
        uint16_t message;
    } held[HELD];
    uint8_t commit;
} node;

typedef struct state {
    node node[NODES];
    uint8_t crashes, stood;
    uint8_t leader[8];      /* by term: what has been; 0: nobody */
    uint8_t committed;      /* and to what */
    entry log[LOG];
    uint8_t log_term[LOG];  /* the term in which it was committed */
    uint16_t net_count;
    uint16_t net[NET];      /* sorted */
} state;

static letter letters[MESSAGES];
static unsigned letter_count;
static uint32_t letter_index[1 << 17];
static uint64_t *seen;
static uint64_t seen_size, states, transitions, states_max = UINT64_MAX, deepest, doublings;
static unsigned terms = 2, entries_max = 3, crashes_max = 1;
static bool sync_at_once, heartbeats, full;
static chronik_raft_settings settings;
static chronik_raft_effects fx;
static const chronik_raft_config config = {.voter_count = 3, .voters = {1, 2, 3}};
static char what[200];

static chronik_raft *group_of(node *n) { return (chronik_raft *)(void *)n->memory; }

static uint64_t hash(const void *data, size_t len, uint64_t h) {
    const uint8_t *p = data;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        h = (h ^ x) * UINT64_C(0x9fb21c651e98df25);
        h ^= h >> 32;
    }
    for (; len > 0; len--, p++) h = (h ^ *p) * UINT64_C(0x100000001b3), h ^= h >> 29;
    return h;
}

static uint32_t log_term(void *arg, uint64_t index) { return index == 0 ? 0 : ((node *)arg)->now.log[index].term; }
static uint64_t log_fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes) {
    (void)arg;
    uint64_t count = last - first + 1 < bytes_max ? last - first + 1 : bytes_max; /* a byte each */
    *ret_bytes = (uint32_t)count;
    return first + count - 1;
}

static uint16_t intern(const letter *l) {
    uint64_t h = hash(l, sizeof *l, 7);
    unsigned at = (unsigned)(h >> 47);
    for (; letter_index[at] != 0; at = (at + 1) % (1u << 17))
        if (memcmp(&letters[letter_index[at] - 1], l, sizeof *l) == 0) return (uint16_t)(letter_index[at] - 1);
    if (letter_count == MESSAGES) abort();
    letters[letter_count] = *l;
    letter_index[at] = ++letter_count;
    return (uint16_t)(letter_count - 1);
}

static void net_add(state *s, uint16_t message) {
    unsigned at = s->net_count;
    for (unsigned i = 0; i < s->net_count; i++)
        if (s->net[i] == message) return;
    if (s->net_count == NET) abort();
    for (; at > 0 && s->net[at - 1] > message; at--) s->net[at] = s->net[at - 1];
    s->net[at] = message;
    s->net_count++;
}

static void fail(const char *text, unsigned n) {
    if (!what[0]) snprintf(what, sizeof what, "%s (node %u)", text, n + 1);
}

/* ---- a node as a host ---- */

static void step(state *s, unsigned i, const chronik_raft_event *event, const letter *in);

static void send_letter(state *s, unsigned i, const chronik_raft_effect *e) {
    node *n = &s->node[i];
    const chronik_raft_message *m = &e->message;
    letter l;
    if (m->type == CHRONIK_RAFT_HEARTBEAT && !heartbeats) return;
    memset(&l, 0, sizeof l);
    l.type = m->type, l.flags = m->flags, l.from = (uint8_t)m->from, l.to = (uint8_t)m->to, l.term = (uint8_t)m->term;
    l.index = (uint8_t)m->index, l.commit = (uint8_t)m->commit, l.hint = (uint8_t)m->hint;
    l.log_term = (uint8_t)m->log_term, l.round = (uint8_t)m->round, l.count = (uint8_t)m->count;
    for (uint32_t k = 0; k < m->count; k++) l.entries[k] = n->now.log[m->index + 1 + k];
    uint16_t message = intern(&l);
    if (e->lsn == 0 || sync_at_once) {
        net_add(s, message);
        return;
    }
    for (unsigned k = 0; k < n->held_count; k++)
        if (n->held[k].message == message && n->held[k].after == e->lsn) return;
    if (n->held_count == HELD) { /* dropped, as a host may */
        for (unsigned k = 1; k < HELD; k++) n->held[k - 1] = n->held[k];
        n->held_count--;
    }
    n->held[n->held_count].after = (uint8_t)e->lsn;
    n->held[n->held_count++].message = message;
}

static void commits(state *s, unsigned i, uint64_t index) {
    node *n = &s->node[i];
    bool leads = group_of(n)->role == CHRONIK_RAFT_ROLE_LEADER;
    if (index < n->commit) fail("the commit index goes back", i);
    for (uint64_t k = n->commit + 1u; k <= index; k++) {
        if (k <= s->committed) {
            if (memcmp(&s->log[k], &n->now.log[k], sizeof(entry)) != 0) fail("state machine safety", i);
        } else if (!leads) {
            fail("a follower commits what no leader has", i);
        } else {
            s->log[k] = n->now.log[k];
            s->log_term[k] = (uint8_t)group_of(n)->term;
            s->committed = (uint8_t)k;
        }
    }
    n->commit = (uint8_t)index;
}

static void leads(state *s, unsigned i) {
    node *n = &s->node[i];
    uint32_t term = group_of(n)->term;
    if (s->leader[term] != 0 && s->leader[term] != i + 1) fail("election safety", i);
    s->leader[term] = (uint8_t)(i + 1);
    for (unsigned k = 1; k <= s->committed; k++)
        if (s->log_term[k] < term && (k > n->now.last || memcmp(&s->log[k], &n->now.log[k], sizeof(entry)) != 0))
            fail("leader completeness", i);
}

static void carry_out(state *s, unsigned i, const letter *in) {
    node *n = &s->node[i];
    for (unsigned k = 0; k < fx.count; k++) {
        const chronik_raft_effect *e = &fx.effect[k];
        switch (e->type) {
        case CHRONIK_RAFT_DO_VOTE: n->now.term = (uint8_t)e->term, n->now.vote = (uint8_t)e->peer; break;
        case CHRONIK_RAFT_DO_TRUNCATE:
            memset(&n->now.log[e->index + 1], 0, (LOG - e->index - 1) * sizeof(entry));
            n->now.last = (uint8_t)e->index;
            break;
        case CHRONIK_RAFT_DO_APPEND:
            if (e->index + e->count > LOG) abort();
            for (uint32_t x = 0; x < e->count; x++) {
                entry made = {(uint8_t)e->term, (uint8_t)(i + 1)};
                if (e->kind == CHRONIK_RAFT_ENTRIES) made = in->entries[in->count - e->count + x];
                n->now.log[e->index + x] = made;
                n->now.last = (uint8_t)(e->index + x);
            }
            break;
        case CHRONIK_RAFT_DO_SEND: send_letter(s, i, e); break;
        case CHRONIK_RAFT_DO_COMMIT: commits(s, i, e->index); break;
        case CHRONIK_RAFT_DO_ROLE:
            if (e->role == CHRONIK_RAFT_ROLE_LEADER) leads(s, i);
            break;
        default: break;
        }
    }
}

/* What time and chance have left in a group, and numbers that have no end. */
static void normalise(node *n) {
    chronik_raft *g = group_of(n);
    g->settings = NULL;
    g->arg = NULL;
    g->now_ticks = g->heard_ticks = g->busy_ticks = 0;
    g->random = 1;
    g->timeout_ticks = 0;
    g->active = 0;
    g->stalled = 0;
    g->moved = g->rearm = false;
}

static void synced(state *s, unsigned i) {
    node *n = &s->node[i];
    chronik_raft *g = group_of(n);
    for (unsigned k = 0; k < n->held_count; k++) net_add(s, n->held[k].message);
    n->held_count = 0;
    memset(n->held, 0, sizeof n->held);
    n->synced = n->now;
    step(s, i, &(chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = g->lsn}, NULL);
}

static void step(state *s, unsigned i, const chronik_raft_event *event, const letter *in) {
    node *n = &s->node[i];
    chronik_raft *g = group_of(n);
    g->settings = &settings;
    g->arg = n;
    int rc = chronik_raft_step(g, event, &fx);
    if (rc == CHRONIK_EPROTO || rc == CHRONIK_ECORRUPT) fail("a message is refused", i);
    if (rc != 0) fx.count = 0, fx.flush = false;
    bool flush = fx.flush;
    carry_out(s, i, in);
    if (event->type == CHRONIK_RAFT_DURABLE) { /* lsns count from here */
        g->lsn -= event->lsn;
        g->vote_lsn = g->break_lsn = 0;
    }
    if (flush) step(s, i, &(chronik_raft_event){.type = CHRONIK_RAFT_FLUSH}, NULL);
    if (sync_at_once && g->lsn > 0) synced(s, i);
    normalise(n);
}

static void start(state *s, unsigned i) {
    node *n = &s->node[i];
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    chronik_raft *g;
    n->now = n->synced;
    n->held_count = 0;
    memset(n->held, 0, sizeof n->held);
    n->commit = 0;
    o.self = i + 1, o.term = n->now.term, o.voted_for = n->now.vote, o.last_index = n->now.last;
    o.config = &config, o.config_index = 1, o.settings = &settings, o.arg = n;
    if (chronik_raft_init(n->memory, chronik_raft_size(NODES), &o, NULL, &g) != 0) abort();
    normalise(n);
}

/* ---- what may happen ---- */

static void timeout(state *s, unsigned i) {
    chronik_raft *g = group_of(&s->node[i]);
    chronik_raft_message m = {.type = CHRONIK_RAFT_TIMEOUT_NOW, .from = g->leader ? g->leader : 1 + (i + 1) % NODES,
                              .to = i + 1, .term = g->term};
    step(s, i, &(chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = &m}, NULL);
}

static void deliver(state *s, const letter *l) {
    chronik_raft_entry entries[BATCH];
    chronik_raft_message m = {.type = l->type, .flags = l->flags, .term = l->term, .from = l->from, .to = l->to,
                              .index = l->index, .commit = l->commit, .hint = l->hint, .log_term = l->log_term,
                              .round = l->round, .count = l->count, .entries = entries};
    for (unsigned k = 0; k < l->count; k++) entries[k] = (chronik_raft_entry){.term = l->entries[k].term};
    step(s, l->to - 1u, &(chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = &m}, l);
}

/* The next state after the n-th thing that may happen; 0: there is no such thing, 2: it may not happen here. */
static int happen(const state *from, unsigned n, state *s) {
    unsigned kind = n / NODES, i = n % NODES;
    const node *p = &from->node[i];
    const chronik_raft *g = (const chronik_raft *)(const void *)p->memory;
    bool may = kind >= 4;
    if (kind >= 4 && n - 4 * NODES >= from->net_count) return 0;
    if (kind == 0)
        may = g->role != CHRONIK_RAFT_ROLE_LEADER && g->term < 1 + terms && (from->stood || i == 0) &&
              p->now.last < 1 + entries_max; /* it will append an entry if it wins */
    if (kind == 1) may = g->role == CHRONIK_RAFT_ROLE_LEADER && p->now.last < 1 + entries_max;
    if (kind == 2) may = g->lsn > 0;
    if (kind == 3) may = from->crashes < crashes_max && from->stood;
    if (!may) return 2;
    *s = *from;
    if (kind == 0) s->stood = 1, timeout(s, i);
    if (kind == 1) step(s, i, &(chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = 1}, NULL);
    if (kind == 2) synced(s, i);
    if (kind == 3) s->crashes++, start(s, i);
    if (kind >= 4) deliver(s, &letters[from->net[n - 4 * NODES]]);
    return 1;
}

/* Log matching, between any two. */
static void check(const state *s) {
    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = a + 1; b < NODES; b++) {
            const disk *x = &s->node[a].now, *y = &s->node[b].now;
            unsigned k = x->last < y->last ? x->last : y->last;
            while (k > 0 && x->log[k].term != y->log[k].term) k--;
            if (memcmp(x->log, y->log, (k + 1) * sizeof(entry)) != 0) fail("log matching", a);
        }
}

/* A message that can never do anything again need not be kept. A reply of an older term than its receiver's is ignored
 * (3.3); a request of an older term brings a refusal, which its sender ignores if it is in the last term that there
 * will be. A reply of the present term concerns a candidate or leader of that term, which nobody becomes a second time
 * (3.4). Terms do not go down, unless a crash takes back one that is not synced: those of the disks are looked at. */
static bool dead(const state *s, const letter *l) {
    const node *to = &s->node[l->to - 1], *from = &s->node[l->from - 1];
    bool reply = l->type == CHRONIK_RAFT_VOTE_REPLY || l->type == CHRONIK_RAFT_APPEND_REPLY ||
                 l->type == CHRONIK_RAFT_HEARTBEAT_REPLY;
    if (l->term < to->synced.term) return reply || from->synced.term == 1 + terms;
    const chronik_raft *g = (const chronik_raft *)(const void *)to->memory;
    if (!reply || l->term != g->term) return false;
    if (l->type == CHRONIK_RAFT_VOTE_REPLY)
        return g->role != CHRONIK_RAFT_ROLE_CANDIDATE || (l->flags & CHRONIK_RAFT_REFUSED);
    return g->role != CHRONIK_RAFT_ROLE_LEADER;
}

static void bury(state *s) {
    unsigned left = 0;
    for (unsigned i = 0; i < s->net_count; i++)
        if (!dead(s, &letters[s->net[i]])) s->net[left++] = s->net[i];
    s->net_count = (uint16_t)left;
}

static uint64_t identity(const state *s) {
    uint64_t h = hash(&s->crashes, offsetof(state, net) - offsetof(state, crashes), 3);
    h = hash(s->net, s->net_count * sizeof s->net[0], h);
    for (unsigned i = 0; i < NODES; i++) {
        h = hash(s->node[i].memory, chronik_raft_size(NODES), h);
        h = hash(&s->node[i].now, offsetof(node, held) - offsetof(node, now), h);
        h = hash(s->node[i].held, s->node[i].held_count * sizeof s->node[i].held[0], h);
        h = hash(&s->node[i].commit, 1, h);
    }
    return h ? h : 1;
}

static bool is_new(uint64_t h) {
    if (states * 2 >= seen_size) {
        uint64_t *old = seen, size = seen_size;
        seen_size = size ? size * 2 : 1 << 16;
        seen = calloc(seen_size, sizeof *seen);
        if (!seen) abort();
        for (uint64_t i = 0; i < size; i++) {
            if (!old[i]) continue;
            uint64_t at = old[i] & (seen_size - 1);
            while (seen[at]) at = (at + 1) & (seen_size - 1);
            seen[at] = old[i];
        }
        free(old);
        doublings++;
    }
    uint64_t at = h & (seen_size - 1);
    for (; seen[at]; at = (at + 1) & (seen_size - 1))
        if (seen[at] == h) return false;
    seen[at] = h;
    states++;
    return true;
}

static void explore(void) {
    state *stack = malloc(DEPTH * sizeof *stack);
    unsigned *next = calloc(DEPTH, sizeof *next), depth = 0;
    if (!stack || !next) abort();
    memset(&stack[0], 0, sizeof stack[0]);
    for (unsigned i = 0; i < NODES; i++) {
        stack[0].node[i].synced = (disk){.term = 1, .last = 1, .log = {{0, 0}, {1, 0}}};
        start(&stack[0], i);
    }
    (void)is_new(identity(&stack[0]));
    for (;;) {
        int did = happen(&stack[depth], next[depth], &stack[depth + 1]);
        if (did == 0) { /* all has been tried here */
            if (depth == 0) break;
            depth--;
            continue;
        }
        next[depth]++;
        if (did == 2) continue;
        transitions++;
        check(&stack[depth + 1]);
        bury(&stack[depth + 1]);
        if (what[0]) break;
        if (!is_new(identity(&stack[depth + 1]))) continue;
        if (states >= states_max) {
            full = true;
            break;
        }
        if (depth + 2 == DEPTH) abort();
        next[++depth] = 0;
        if (depth > deepest) deepest = depth;
    }
    free(stack);
    free(next);
}

static bool put_back(const char *name) {
#ifdef CNK_TEST_HOOKS
    static const char *const names[CNK_RAFT_BUG_COUNT] = {
        "none",
#define CNK_X(bug, text) text,
        CNK_RAFT_BUGS(CNK_X)
#undef CNK_X
    };
    for (int b = 1; b < CNK_RAFT_BUG_COUNT; b++)
        if (strcmp(name, names[b]) == 0) cnk_raft_bug = (enum cnk_raft_bug)b;
    return cnk_raft_bug != CNK_RAFT_BUG_NONE;
#else
    (void)name;
    return false;
#endif
}

int main(int argc, char **argv) {
    bool bug = false;
    for (int n = 1; n < argc; n++) {
        const char *value = n + 1 < argc ? argv[n + 1] : "";
        if (!strcmp(argv[n], "--terms")) terms = (unsigned)atoi(value), n++;
        else if (!strcmp(argv[n], "--entries")) entries_max = (unsigned)atoi(value), n++;
        else if (!strcmp(argv[n], "--crashes")) crashes_max = (unsigned)atoi(value), n++;
        else if (!strcmp(argv[n], "--states-max")) states_max = strtoull(value, NULL, 10), n++;
        else if (!strcmp(argv[n], "--sync-at-once")) sync_at_once = true;
        else if (!strcmp(argv[n], "--heartbeats")) heartbeats = true;
        else if (!strcmp(argv[n], "--bug")) {
            bug = put_back(value);
            if (!bug) fprintf(stderr, "no such bug, or not a test build: %s\n", value);
            if (!bug) return 2;
            n++;
        }
    }
    if (terms > 4 || entries_max > LOG - 3) return 2;
    settings = (chronik_raft_settings)CHRONIK_RAFT_SETTINGS_INIT;
    settings.message_bytes_max = 2; /* two entries in a message */
    settings.window_bytes_max = 4;
    settings.log = (chronik_raft_log){log_term, log_fit};
    explore();
    printf("%u terms, %u entries, %u crashes, %s: %llu states, %llu transitions, %llu deep, %u different messages%s\n",
           terms, entries_max, crashes_max, sync_at_once ? "synced at once" : "synced at any time",
           (unsigned long long)states, (unsigned long long)transitions, (unsigned long long)deepest, letter_count,
           full      ? "; stopped at the limit, not all was tried"
           : what[0] ? ""
                     : "; that is all");
    if (what[0]) printf("violated: %s\n", what);
    bool ok = bug ? what[0] != 0 : !what[0];
    printf("%d passed, %d failed\n", ok, !ok);
    free(seen);
    return ok ? 0 : 1;
}
