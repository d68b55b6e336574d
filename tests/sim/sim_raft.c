/* The proof of the consensus core: see README.md beside this file. Each seed is a cluster, a plan of faults, and a
 * while of peace at the end. A seed that fails is made smaller: actions of its plan are left out as long as it goes on
 * failing.
 *
 *     sim_raft --seeds N --from S [--bug NAME] [--trace] [--coverage] [--keep-going] [--minimise] [--no-model]
 *     sim_raft --from S --only 3,17,21 --trace      the plan's actions 3, 17 and 21 alone */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/internal.h"
#include "sim/program.h"
#include "sim/raft_world.h"

static const char *const bug_names[CNK_RAFT_BUG_COUNT] = {
    "none",
#define CNK_X(name, text) text,
    CNK_RAFT_BUGS(CNK_X)
#undef CNK_X
};

static struct {
    uint64_t seeds, steps, delivered, crashes, elections, changes, snapshots, reads, sleeps, losses;
} totals;

static void add_up(const raft_world *w) {
    totals.seeds++;
    totals.steps += w->steps, totals.delivered += w->delivered, totals.crashes += w->crashes;
    totals.elections += w->elections, totals.changes += w->changes, totals.snapshots += w->snapshots;
    totals.reads += w->reads, totals.sleeps += w->sleeps, totals.losses += w->losses;
}

static void forget_counts(raft_world *w) {
    w->steps = w->delivered = w->crashes = w->elections = w->changes = w->snapshots = w->reads = w->sleeps = w->losses =
        0;
}

/* Leaves out ever smaller pieces of the plan, while the run still fails in some way. */
static void minimise(raft_world *w, uint64_t seed) {
    static bool out[RW_PLAN], tried[RW_PLAN];
    unsigned all = w->plan_count, runs = 0;
    memset(out, 0, sizeof out);
    for (unsigned piece = all / 2; piece > 0; piece /= 2)
        for (unsigned at = 0; at < all; at += piece) {
            memcpy(tried, out, sizeof out);
            bool any = false;
            for (unsigned i = at; i < at + piece && i < all; i++) any |= !tried[i], tried[i] = true;
            runs += any;
            if (any && !raft_world_run(w, seed, false, tried)) memcpy(out, tried, sizeof out);
        }
    (void)raft_world_run(w, seed, false, out);
    printf("made smaller in %u runs: %s\n  repeat: sim_raft --from %llu --trace --only ", runs, w->what,
           (unsigned long long)seed);
    bool first = true;
    for (unsigned i = 0; i < all; i++)
        if (!out[i]) printf("%s%u", first ? "" : ",", i), first = false;
    printf("%s\n", first ? "none" : "");
}

static void parse_only(const char *list, bool out[RW_PLAN]) {
    memset(out, 1, RW_PLAN);
    for (const char *at = list; *at >= '0' && *at <= '9';) {
        unsigned long n = strtoul(at, (char **)(uintptr_t)&at, 10);
        if (n < RW_PLAN) out[n] = false;
        if (*at == ',') at++;
    }
}

int main(int argc, char **argv) {
    static bool only[RW_PLAN];
    uint64_t seeds = 0, from = sim_first_seed();
    bool trace = false, keep_going = false, smaller = false, some = false, no_model = false;
    for (int n = 1; n < argc; n++) {
        const char *value = n + 1 < argc ? argv[n + 1] : "";
        if (!strcmp(argv[n], "--seeds"))
            seeds = strtoull(value, NULL, 10), n++;
        else if (!strcmp(argv[n], "--from"))
            from = strtoull(value, NULL, 10), n++;
        else if (!strcmp(argv[n], "--trace"))
            trace = true;
        else if (!strcmp(argv[n], "--keep-going"))
            keep_going = true;
        else if (!strcmp(argv[n], "--no-model"))
            no_model = true;
        else if (!strcmp(argv[n], "--minimise"))
            smaller = true;
        else if (!strcmp(argv[n], "--only"))
            parse_only(value, only), some = true, n++;
        else if (!strcmp(argv[n], "--bug")) {
            int b = CNK_RAFT_BUG_COUNT - 1;
            while (b > 0 && strcmp(value, bug_names[b]) != 0) b--;
            if (b == 0) {
                fprintf(stderr, "sim_raft: no such bug: %s\n", value);
                return 2;
            }
            cnk_raft_bug = (enum cnk_raft_bug)b;
            n++;
        }
    }
    if (seeds == 0) seeds = trace || some ? 1 : 400;
    raft_world *w = raft_world_new();
    w->no_model = no_model;
    uint64_t failed = 0, first = 0;
    printf("sim_raft: seeds %llu to %llu, bug: %s\n", (unsigned long long)from, (unsigned long long)(from + seeds - 1),
           bug_names[cnk_raft_bug]);
    for (uint64_t seed = from; seed < from + seeds; seed++) {
        forget_counts(w);
        bool ok = raft_world_run(w, seed, trace, some ? only : NULL);
        add_up(w);
        if (ok) continue;
        if (failed++ == 0) first = seed - from + 1;
        printf("seed %llu: %s\n", (unsigned long long)seed, w->what);
        if (smaller || (cnk_raft_bug == CNK_RAFT_BUG_NONE && !some && !keep_going)) minimise(w, seed);
        if (!keep_going) break;
    }
    printf("%llu seeds, %llu steps, %llu messages, %llu crashes, %llu losses, %llu elections, %llu configurations, "
           "%llu snapshots, %llu reads, %llu times asleep\n",
           (unsigned long long)totals.seeds, (unsigned long long)totals.steps, (unsigned long long)totals.delivered,
           (unsigned long long)totals.crashes, (unsigned long long)totals.losses, (unsigned long long)totals.elections,
           (unsigned long long)totals.changes, (unsigned long long)totals.snapshots, (unsigned long long)totals.reads,
           (unsigned long long)totals.sleeps);
    raft_world_free(w);
    if (cnk_raft_bug != CNK_RAFT_BUG_NONE) {
        if (failed) printf("found after %llu seeds\n", (unsigned long long)first);
        printf("%d passed, %d failed\n", failed ? 1 : 0, failed ? 0 : 1);
        return failed ? 0 : 1;
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)(totals.seeds - failed), (unsigned long long)failed);
    return failed ? 1 : 0;
}
