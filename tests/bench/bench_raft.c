/* The consensus core alone: three groups in one process, their logs in memory, messages handed over as they are.
 *
 *   one group, batches of 64 entries       entries committed a second; all three members' work on one core
 *   10,000 groups of three, ticking        processor time of ticks and heartbeats, in parts of a core, at 100 ms a tick
 *   10,000 groups asleep                   the same, when the host goes on ticking them (it need not)
 *
 * Every commit index is checked in the end. Synced means at once: what a disk costs is bench_wal's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <chronik/raft.h>

enum { BATCH = 64, ENTRY_BYTES = 100, MAIL = 256, ROUNDS = 5, GROUPS = 10000 };

typedef struct member {
    chronik_raft *raft;
    uint64_t memory[64];
    uint64_t id, last, lsn, commit;
    uint32_t term; /* of all entries but the first */
} member;

typedef struct mail {
    chronik_raft_message m;
} mail;

static chronik_raft_effects fx;
static chronik_raft_settings settings;
static chronik_raft_config config = {.voter_count = 3, .voters = {1, 2, 3}};
static mail post[MAIL];
static unsigned post_first, post_count;
static uint64_t steps, messages;

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint32_t log_term(void *arg, uint64_t index) {
    const member *m = arg;
    return index == 0 ? 0 : index == 1 ? 1 : m->term;
}

static uint64_t log_fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes) {
    (void)arg;
    uint64_t room = bytes_max / ENTRY_BYTES, count = last - first + 1;
    if (count > room) count = room ? room : 1;
    *ret_bytes = (uint32_t)count * ENTRY_BYTES;
    return first + count - 1;
}

static void step(member *m, chronik_raft_event event) {
    steps++;
    if (chronik_raft_step(m->raft, &event, &fx) != 0) abort();
    uint64_t lsn = m->lsn;
    for (unsigned i = 0; i < fx.count; i++) {
        const chronik_raft_effect *e = &fx.effect[i];
        switch (e->type) {
        case CHRONIK_RAFT_DO_APPEND:
            m->last += e->count;
            m->term = e->term;
            m->lsn = e->lsn;
            break;
        case CHRONIK_RAFT_DO_VOTE: m->lsn = e->lsn; break;
        case CHRONIK_RAFT_DO_SEND:
            if (post_count == MAIL) abort();
            post[(post_first + post_count++) % MAIL].m = e->message;
            break;
        case CHRONIK_RAFT_DO_COMMIT: m->commit = e->index; break;
        default: break;
        }
    }
    bool flush = fx.flush;
    if (m->lsn != lsn) step(m, (chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = m->lsn});
    if (flush) step(m, (chronik_raft_event){.type = CHRONIK_RAFT_FLUSH});
}

static void deliver_all(member group[3]) {
    static chronik_raft_entry entries[4096];
    while (post_count > 0) {
        chronik_raft_message m = post[post_first].m;
        post_first = (post_first + 1) % MAIL;
        post_count--;
        messages++;
        const member *from = &group[m.from - 1];
        for (uint32_t i = 0; i < m.count; i++) /* as they come off the wire */
            entries[i] = (chronik_raft_entry){from->term, ENTRY_BYTES, NULL, NULL};
        m.entries = entries;
        step(&group[m.to - 1], (chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = &m});
    }
}

static void found(member group[3]) {
    for (unsigned i = 0; i < 3; i++) {
        member *m = &group[i];
        memset(m, 0, sizeof *m);
        m->id = i + 1;
        m->last = 1;
        m->term = 1;
        chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
        o.self = m->id, o.seed = i, o.term = 1, o.last_index = 1, o.config_index = 1, o.config = &config;
        o.settings = &settings, o.arg = m;
        if (chronik_raft_init(m->memory, chronik_raft_size(3), &o, NULL, &m->raft) != 0) abort();
    }
    step(&group[0], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    deliver_all(group);
}

static void one_group(void) {
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        static member group[3];
        found(group);
        enum { PROPOSALS = 40000 };
        steps = messages = 0;
        double began = cpu_s();
        for (int n = 0; n < PROPOSALS; n++) {
            step(&group[0], (chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = BATCH});
            deliver_all(group);
        }
        double took = cpu_s() - began;
        for (unsigned i = 0; i < 3; i++)
            if (group[i].commit != 2 + (uint64_t)PROPOSALS * BATCH) abort();
        double rate = (double)PROPOSALS * BATCH / took;
        if (rate > best) best = rate;
    }
    printf("one group of three, batches of %d: %.1f million entries/s committed on one core; %.0f ns a step\n", BATCH,
           best / 1e6, 1e9 * 40000.0 * BATCH / best / (double)steps);
}

static double ticks(member *groups, unsigned seconds) {
    static uint32_t now;
    double began = cpu_s();
    for (unsigned n = 0; n < seconds * 10; n++) {
        now++;
        for (unsigned g = 0; g < GROUPS; g++) {
            for (unsigned i = 0; i < 3; i++)
                step(&groups[3 * g + i], (chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = now});
            deliver_all(&groups[3 * g]);
        }
    }
    return (cpu_s() - began) / seconds;
}

static void many_groups(uint16_t sleep_ticks) {
    member *groups = malloc(3 * GROUPS * sizeof *groups);
    if (!groups) abort();
    settings.sleep_ticks = sleep_ticks;
    for (unsigned g = 0; g < GROUPS; g++) found(&groups[3 * g]);
    (void)ticks(groups, 5);
    messages = 0;
    double cost = ticks(groups, 5);
    /* three members of each group are ticked here; a node has one of them */
    printf("%d groups of three %s: %.2f %% of a core for each of three nodes, %llu messages a second\n", GROUPS,
           sleep_ticks ? "asleep" : "ticking", 100 * cost / 3, (unsigned long long)messages / 5);
    for (unsigned g = 0; g < 3 * GROUPS; g++) {
        chronik_raft_status s;
        chronik_raft_status_get(groups[g].raft, &s);
        if (s.asleep != (sleep_ticks != 0) || s.term != 2 || s.leader != 1 || s.commit_index != 2) abort();
    }
    free(groups);
}

int main(void) {
    settings = (chronik_raft_settings)CHRONIK_RAFT_SETTINGS_INIT;
    settings.heartbeat_ticks = 3; /* election after 1 to 2 s, heartbeats each 300 ms */
    settings.log = (chronik_raft_log){log_term, log_fit};
    one_group();
    many_groups(0);
    many_groups(20);
    printf("a group of three takes %zu bytes\n", chronik_raft_size(3));
    return 0;
}
