/* Hosts for raft groups whose every step a test decides: nothing is synced, sent or ticked unless the test says so.
 * Included by test_raft*.c. */
#ifndef CNK_TESTS_RAFT_HOST_H
#define CNK_TESTS_RAFT_HOST_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chronik/raft.h>

enum { HOSTS = 8, LOG = 600, MAIL = 600, BATCH = 300 };

typedef struct item {
    uint32_t term, bytes;
    int config; /* in configs; -1 */
} item;

typedef struct mail {
    chronik_raft_message m;
    uint64_t lsn;
    item items[BATCH];
    int config;
} mail;

typedef struct host {
    uint64_t id;
    bool up;
    chronik_raft *raft;
    uint64_t memory[300];
    item log[LOG];
    uint64_t first, last, commit, lsn, synced;
    uint32_t snapshot_term, term, now;
    int snapshot_config;
    uint64_t vote;
    mail *held;
    unsigned held_count;
    /* what the last steps said */
    unsigned elected, deposed, ready, reset, truncated, repaired, slept, woke, snapshots_asked, appended;
    uint32_t ready_round, read_round;
    uint64_t ready_index;
} host;

static host hosts[HOSTS + 1];
static chronik_raft_config configs[64];
static int config_count;
static mail *post; /* on its way */
static unsigned post_count;
static bool cut[HOSTS + 1][HOSTS + 1];
static chronik_raft_settings settings;
static chronik_raft_effects fx;
static uint32_t item_bytes = 10;

static uint32_t host_term(void *arg, uint64_t index) {
    host *h = arg;
    if (index + 1 == h->first) return h->snapshot_term;
    ck_assert_uint_ge(index, h->first);
    ck_assert_uint_le(index, h->last);
    return h->log[index].term;
}

static uint64_t host_fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes) {
    host *h = arg;
    uint64_t at = first;
    ck_assert_uint_ge(first, h->first);
    ck_assert_uint_le(last, h->last);
    *ret_bytes = h->log[at].bytes;
    while (at < last && *ret_bytes + h->log[at + 1].bytes <= bytes_max) *ret_bytes += h->log[++at].bytes;
    return at;
}

static void put_in_log(host *h, uint64_t index, item it) {
    ck_assert_uint_lt(index, LOG);
    h->log[index] = it;
    h->last = index;
}

static void deliver_one(const mail *m);
static int step(host *h, chronik_raft_event e);

static void host_send(host *h, const chronik_raft_message *m, uint64_t lsn) {
    mail *x = &h->held[h->held_count++];
    ck_assert_uint_lt(h->held_count, MAIL);
    ck_assert_uint_le(m->count, BATCH);
    x->m = *m;
    x->lsn = lsn;
    x->config = -1;
    for (uint32_t i = 0; i < m->count; i++) x->items[i] = h->log[m->index + 1 + i];
}

/* What may leave, leaves. */
static void release(host *h) {
    unsigned left = 0;
    for (unsigned i = 0; i < h->held_count; i++) {
        mail *x = &h->held[i];
        if (x->lsn > h->synced) {
            h->held[left++] = *x;
        } else if (!cut[h->id][x->m.to]) {
            ck_assert_uint_lt(post_count, MAIL);
            post[post_count++] = *x;
        }
    }
    h->held_count = left;
}

static void carry_out(host *h, const mail *in) {
    for (unsigned i = 0; i < fx.count; i++) {
        const chronik_raft_effect *e = &fx.effect[i];
        switch (e->type) {
        case CHRONIK_RAFT_DO_VOTE: h->term = e->term, h->vote = e->peer, h->lsn = e->lsn; break;
        case CHRONIK_RAFT_DO_TRUNCATE: h->last = e->index, h->lsn = e->lsn, h->truncated++; break;
        case CHRONIK_RAFT_DO_APPEND:
            ck_assert_uint_eq(e->index, h->last + 1);
            ck_assert_uint_eq(e->lsn, h->lsn + e->count);
            for (uint32_t k = 0; k < e->count; k++) {
                item it = {e->term, item_bytes, -1};
                if (e->kind == CHRONIK_RAFT_ENTRIES) it = in->items[(e->entries - in->m.entries) + (ptrdiff_t)k];
                if (e->kind == CHRONIK_RAFT_CONFIG) it.config = config_count, configs[config_count++] = *e->config;
                put_in_log(h, e->index + k, it);
            }
            h->appended += e->count;
            h->lsn = e->lsn;
            break;
        case CHRONIK_RAFT_DO_RESET:
            h->first = e->index + 1, h->last = e->index, h->snapshot_term = e->term, h->lsn = e->lsn, h->reset++;
            h->snapshot_config = in->config;
            break;
        case CHRONIK_RAFT_DO_REPAIRED: h->repaired++, h->lsn = e->lsn; break;
        case CHRONIK_RAFT_DO_SEND: host_send(h, &e->message, e->lsn); break;
        case CHRONIK_RAFT_DO_SNAPSHOT: h->snapshots_asked++; break;
        case CHRONIK_RAFT_DO_COMMIT:
            ck_assert_uint_gt(e->index, h->commit);
            h->commit = e->index;
            break;
        case CHRONIK_RAFT_DO_ROLE:
            if (e->role == CHRONIK_RAFT_ROLE_LEADER) h->elected++;
            break;
        case CHRONIK_RAFT_DO_READ: h->read_round = e->round; break;
        case CHRONIK_RAFT_DO_READY: h->ready++, h->ready_round = e->round, h->ready_index = e->index; break;
        case CHRONIK_RAFT_DO_SLEEP: h->slept++; break;
        default: h->woke++; break;
        }
    }
    bool flush = fx.flush;
    release(h);
    if (flush) step(h, (chronik_raft_event){.type = CHRONIK_RAFT_FLUSH});
}

static int step_mail(host *h, chronik_raft_event e, const mail *in) {
    int rc = chronik_raft_step(h->raft, &e, &fx);
    if (rc != 0) ck_assert_uint_eq(fx.count, 0);
    if (rc == 0) carry_out(h, in);
    return rc;
}

static int step(host *h, chronik_raft_event e) { return step_mail(h, e, NULL); }

static int receive(host *h, const mail *x) {
    static chronik_raft_entry entries[BATCH];
    static mail copy; /* its handling may grow the post */
    copy = *x;
    for (uint32_t i = 0; i < copy.m.count; i++)
        entries[i] = (chronik_raft_entry){copy.items[i].term, copy.items[i].bytes, NULL,
                                          copy.items[i].config < 0 ? NULL : &configs[copy.items[i].config]};
    copy.m.entries = entries;
    if (copy.m.type == CHRONIK_RAFT_SNAPSHOT) copy.m.config = &configs[copy.config];
    return step_mail(h, (chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = &copy.m}, &copy);
}

static void deliver_one(const mail *x) {
    host *h = &hosts[x->m.to];
    if (h->up) ck_assert_int_eq(receive(h, x), 0);
}

/* Delivers what is on its way now. */
static void deliver(void) {
    static mail now[MAIL];
    unsigned count = post_count;
    memcpy(now, post, count * sizeof *post);
    post_count = 0;
    for (unsigned i = 0; i < count; i++) deliver_one(&now[i]);
}

static void sync_up_to(host *h, uint64_t lsn) {
    h->synced = lsn;
    step(h, (chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = lsn});
    release(h);
}

static void sync_host(host *h) {
    if (h->synced < h->lsn) sync_up_to(h, h->lsn);
}

/* Everything is synced and delivered until nothing is left to do. */
static void settle(void) {
    for (int n = 0; n < 200; n++) {
        for (unsigned i = 1; i <= HOSTS; i++)
            if (hosts[i].up) sync_host(&hosts[i]);
        if (post_count == 0) return;
        deliver();
    }
    ck_abort_msg("it does not come to rest");
}

static void tick(host *h, uint32_t ticks) {
    for (uint32_t i = 0; i < ticks; i++) step(h, (chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = ++h->now});
}

static chronik_raft_status status(const host *h) {
    chronik_raft_status s;
    chronik_raft_status_get(h->raft, &s);
    return s;
}

static bool leads(const host *h) { return status(h).role == CHRONIK_RAFT_ROLE_LEADER; }

static int config_at(const host *h, uint64_t up_to, uint64_t *ret_index) {
    for (*ret_index = up_to; *ret_index >= h->first; --*ret_index)
        if (h->log[*ret_index].config >= 0) return h->log[*ret_index].config;
    *ret_index = 0;
    return h->snapshot_config;
}

/* (Again) from its log; a crash before must have set `last` to what was synced. */
static void start(host *h, bool lost) {
    uint64_t at, before_at;
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    int config = config_at(h, h->last, &at), before = at > 0 ? config_at(h, at - 1, &before_at) : -1;
    o.self = h->id;
    o.seed = (uint32_t)h->id * 77;
    o.term = h->term;
    o.voted_for = h->vote;
    o.first_index = h->first;
    o.last_index = h->last;
    o.commit_index = h->first - 1;
    o.config_index = at;
    o.config = config < 0 ? NULL : &configs[config];
    o.config_before = before < 0 ? NULL : &configs[before];
    o.lost = lost;
    o.settings = &settings;
    o.arg = h;
    h->lsn = h->synced = 0;
    h->held_count = 0;
    h->commit = o.commit_index;
    h->up = true;
    ck_assert_int_eq(chronik_raft_init(h->memory, chronik_raft_size(HOSTS), &o, NULL, &h->raft), 0);
}

/* A group of `voters`, each with the same first entry, and empty hosts beside them. */
static void group(unsigned voters) {
    if (post == NULL) post = calloc(MAIL, sizeof *post);
    post_count = 0;
    memset(cut, 0, sizeof cut);
    settings = (chronik_raft_settings)CHRONIK_RAFT_SETTINGS_INIT;
    settings.log = (chronik_raft_log){host_term, host_fit};
    item_bytes = 10;
    config_count = 1;
    configs[0] = (chronik_raft_config){.voter_count = (uint8_t)voters};
    for (unsigned i = 0; i < voters; i++) configs[0].voters[i] = i + 1;
    for (unsigned i = 1; i <= HOSTS; i++) {
        host *h = &hosts[i];
        mail *held = h->held ? h->held : calloc(MAIL, sizeof *held);
        memset(h, 0, sizeof *h);
        h->held = held;
        h->id = i;
        h->first = 1;
        h->snapshot_config = -1;
        if (i <= voters) h->last = 1, h->log[1] = (item){1, 10, 0}, h->term = 1;
        start(h, false);
    }
}

static void elect(host *h) {
    ck_assert_int_eq(step(h, (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN}), 0);
    settle();
    ck_assert(leads(h));
}

/* The others have not heard of their leader for long. */
static void forget_leader(void) {
    for (unsigned i = 1; i <= HOSTS; i++)
        if (hosts[i].up && !leads(&hosts[i]))
            step(&hosts[i], (chronik_raft_event){.type = CHRONIK_RAFT_WAKE, .peer = status(&hosts[i]).leader});
}

static int propose(host *h, uint32_t count) {
    return step(h, (chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = count});
}

/* Nothing that it sends or is sent arrives. */
static void isolate(const host *h, bool alone) {
    for (unsigned i = 1; i <= HOSTS; i++) cut[i][h->id] = cut[h->id][i] = alone;
}

/* As a crash leaves it: the entries after `kept` were not synced. */
static void crash(host *h, uint64_t kept) {
    h->up = false;
    if (kept < h->last) h->last = kept;
    h->held_count = 0;
}

static int configure(host *h, const char *voters, const char *learners) {
    chronik_raft_config c = {0};
    for (; *voters; voters++) c.voters[c.voter_count++] = (uint64_t)(*voters - '0');
    for (; *learners; learners++) c.learners[c.learner_count++] = (uint64_t)(*learners - '0');
    return step(h, (chronik_raft_event){.type = CHRONIK_RAFT_CONFIGURE, .config = &c});
}

/* Hand-made messages. */
static mail letter(chronik_raft_message_type type, unsigned from, unsigned to, uint32_t term) {
    mail x = {.m = {.type = (uint8_t)type, .from = from, .to = to, .term = term}, .config = -1};
    return x;
}

/* The newest message of a type that is on its way to a host; NULL: none. */
static const mail *newest(chronik_raft_message_type type, unsigned to) {
    for (unsigned i = post_count; i > 0; i--)
        if (post[i - 1].m.type == type && post[i - 1].m.to == to) return &post[i - 1];
    return NULL;
}

#endif
