/* What is done to the nodes. All of it is drawn in advance, so that actions can be left out one by one when a failing
 * run is made smaller. Then all faults end, and the cluster must live again within a bounded time. */
#include "sim/raft_world.h"

#include <stdio.h>
#include <string.h>

#include "raft/internal.h"

static const unsigned weights[RW_ACTIONS] = {
    [RW_PROPOSE] = 300, [RW_READ] = 60,     [RW_CRASH] = 30,     [RW_RESTART] = 45, [RW_SPLIT] = 14,
    [RW_CUT_ONE_WAY] = 14, [RW_ISOLATE] = 16, [RW_HEAL] = 40,    [RW_STALL] = 14,   [RW_FAIL_DISK] = 5,
    [RW_DAMAGE] = 10,   [RW_WIPE] = 4,      [RW_JUMP] = 10,      [RW_PAUSE] = 12,   [RW_CONFIGURE] = 30,
    [RW_TRANSFER] = 14, [RW_COMPACT] = 14,  [RW_CAMPAIGN] = 16,  [RW_UNREACHABLE] = 6, [RW_WEATHER] = 12,
};

enum {
    LOADED_US = 3000000,
    /* bounds of liveness: 15 to 30 election timeouts under load */ CHAOS_US = 3000000,
    CALM_US = 8000000,
    LIVE_MARGIN = 30
};

void rw_plan(raft_world *w, const bool *left_out) {
    unsigned weight[RW_ACTIONS], sum = 0;
    cnk_rng rng;
    cnk_rng_seed(&rng, w->seed * 2 + 1);
    for (int k = 0; k < RW_ACTIONS; k++) { /* each seed has its own taste */
        weight[k] = weights[k] * (unsigned)(cnk_rng_chance(&rng, 1, 4) ? 0 : cnk_rng_chance(&rng, 1, 5) ? 4 : 1);
        if (k == RW_PROPOSE) weight[k] = weights[k];
        sum += weight[k];
    }
    uint64_t chaos = CHAOS_US / 3 + cnk_rng_below(&rng, CHAOS_US), time = 0;
    uint64_t pace = 3000 + cnk_rng_below(&rng, 15000);
    w->drop = (unsigned)(cnk_rng_chance(&rng, 1, 2) ? 0 : cnk_rng_below(&rng, 150));
    w->twice = (unsigned)(cnk_rng_chance(&rng, 1, 2) ? 0 : cnk_rng_below(&rng, 200));
    w->slow = (unsigned)(cnk_rng_chance(&rng, 1, 3) ? 0 : cnk_rng_below(&rng, 300));
    while (time < chaos && w->plan_count < RW_PLAN) {
        rw_action *a = &w->plan[w->plan_count];
        uint64_t draw = cnk_rng_below(&rng, sum);
        int kind = 0;
        while (draw >= weight[kind]) draw -= weight[kind++];
        time += cnk_rng_below(&rng, 2 * pace) + 1;
        if (w->settings.sleep_ticks && cnk_rng_chance(&rng, 1, 20)) /* quiet, so that groups fall asleep in the midst */
            time += cnk_rng_below(&rng, 600000);
        *a = (rw_action){(rw_action_kind)kind, time, cnk_rng_next(&rng), cnk_rng_next(&rng), false};
        a->left_out = left_out && left_out[w->plan_count];
        if (!a->left_out) rw_push(w, time, RW_EV_ACTION, 0, w->plan_count, NULL);
        w->plan_count++;
    }
    w->end = chaos + CALM_US;
    rw_push(w, chaos, RW_EV_LOOK, 0, 0, NULL);
}

/* ---- actions --------------------------------------------------------------------------------------------------- */

static void tell(raft_world *w, const char *format, int a, int b) {
    char text[120];
    snprintf(text, sizeof text, format, a, b);
    rw_record(w, &(raft_record){.kind = RAFT_NEMESIS, .node = a, .text = text});
}

static rw_node *who(raft_world *w, uint64_t dice) { return &w->node[1 + dice % w->pool]; }

/* Most clients find the newest leader, some an old one. */
static rw_node *some_leader(raft_world *w, uint64_t dice) {
    rw_node *n = who(w, dice);
    if (dice % 4 == 0 && n->up && n->st.role == CHRONIK_RAFT_ROLE_LEADER) return n;
    return rw_leader(w);
}

static bool in_config(const chronik_raft_config *c, uint64_t id) {
    for (unsigned i = 0; i < c->voter_count; i++)
        if (c->voters[i] == id) return true;
    for (unsigned i = 0; i < c->old_count; i++)
        if (c->old[i] == id) return true;
    return false;
}

/* May one more voter be harmed for good? Not while another one is, nor in groups that survive no failure. */
static bool may_harm(raft_world *w, const rw_node *victim) {
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *n = &w->node[i];
        if (n != victim && (n->damaged || n->gone || n->disk.lost)) return false;
        for (uint64_t k = 0; k <= n->log.last; k++) { /* any configuration that is about */
            if (k > 0 && k < n->log.first) continue;
            int config = k == 0 ? n->log.snapshot.config : n->log.entry[k].config;
            if (config < 0) continue;
            const chronik_raft_config *c = &w->configs[config];
            if (in_config(c, (uint64_t)victim->id) && (c->voter_count < 3 || (c->old_count > 0 && c->old_count < 3)))
                return false;
        }
    }
    return !victim->gone;
}

static void configure(raft_world *w, const rw_action *a) {
    chronik_raft_config c = {0};
    rw_node *n = some_leader(w, a->a);
    bool harmed = false;
    if (!n || w->config_count > RW_CONFIGS - 20) return;
    for (unsigned i = 1; i <= w->pool; i++) harmed |= w->node[i].gone || w->node[i].damaged || w->node[i].disk.lost;
    for (unsigned i = 1; i <= w->pool; i++) {
        if (w->node[i].gone) continue;
        uint64_t draw = (a->b >> (4 * i)) % 8;
        if (draw < 4)
            c.voters[c.voter_count++] = i;
        else if (draw == 4)
            c.learners[c.learner_count++] = i;
    }
    if (c.voter_count == 0 || (harmed && c.voter_count < 3)) return;
    int rc = rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_CONFIGURE, .config = &c}, NULL);
    if (rc == 0) tell(w, "%d is asked to change its configuration", n->id, 0);
}

/* A snapshot stands for a part of what is committed and durable here. */
static void compact(raft_world *w, rw_node *n, uint64_t dice) {
    if (!n->up || n->commit < n->log.first) return;
    uint64_t index = n->log.first + dice % (n->commit - n->log.first + 1), at;
    if (index >= n->disk.last || index < n->disk.first || n->disk.first != n->log.first ||
        n->disk.entry[index].chain != n->log.entry[index].chain)
        return;
    for (unsigned i = 0; i < n->op_count; i++) { /* nothing that will change what lies before */
        const rw_op *op = &n->op[(n->op_first + i) % RW_OPS];
        if (op->type == CHRONIK_RAFT_DO_RESET || (op->type == CHRONIK_RAFT_DO_TRUNCATE && op->index <= index)) return;
    }
    rw_snapshot s = {index, n->log.entry[index].chain, n->log.entry[index].term, rw_config_in_log(&n->log, index, &at)};
    n->log.snapshot = n->disk.snapshot = s;
    n->log.first = n->disk.first = index + 1;
    rw_record(w, &(raft_record){.kind = RAFT_COMPACT, .node = n->id, .index = index});
    rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_COMPACTED, .index = index}, NULL);
}

/* Synced entries are found to be damaged at the next start. Term and vote are whole. */
static void damage(raft_world *w, rw_node *n, uint64_t dice) {
    if (!may_harm(w, n) || n->log.last < n->log.first) return;
    rw_crash(w, n, 100);
    if (n->disk.last < n->disk.first) return;
    n->disk.last = n->disk.first - 1 + dice % (n->disk.last - n->disk.first + 1);
    n->disk.lost = true;
    n->ever_lost = n->damaged = true;
    w->losses++;
    rw_record(w, &(raft_record){.kind = RAFT_DAMAGE, .node = n->id, .index = n->disk.last});
}

/* The directory is gone. Under its id it never comes back (H5): a new one would be another member. */
static void wipe(raft_world *w, rw_node *n) {
    if (!may_harm(w, n) || w->losses > 0) return;
    rw_crash(w, n, 0);
    if (!CNK_RAFT_BUG(WIPED_VOTES)) {
        n->gone = true;
    } else {
        n->disk.term = 0, n->disk.vote = 0, n->disk.first = 1, n->disk.last = 0;
        n->disk.snapshot = (rw_snapshot){0, 0, 0, -1};
        n->ever_lost = true;
        rw_start(w, n);
    }
    w->losses++;
    tell(w, "%d loses its directory", n->id, 0);
}

static void split(raft_world *w, uint64_t dice) {
    for (unsigned i = 1; i <= w->pool; i++)
        for (unsigned k = 1; k <= w->pool; k++) w->blocked[i][k] = ((dice >> i) & 1) != ((dice >> k) & 1);
    tell(w, "the network falls into two", 0, 0);
}

void rw_act(raft_world *w, rw_action *a) {
    rw_node *n = who(w, a->a);
    if (w->healed) return;
    switch (a->kind) {
    case RW_PROPOSE:
        n = some_leader(w, a->a);
        if (n && n->log.last < RW_LOG / 3)
            rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = 1 + (uint32_t)(a->b % 5)}, NULL);
        break;
    case RW_READ:
        n = some_leader(w, a->a * 4);
        if (n) rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_READ}, NULL);
        break;
    case RW_CRASH:
        if (a->b % 3 == 0 && rw_leader(w)) n = rw_leader(w);
        rw_crash(w, n, (unsigned)(a->b >> 8) % 3 == 0 ? 0 : (unsigned)(a->b >> 16) % 101);
        break;
    case RW_RESTART:
        for (unsigned i = 0; i < w->pool && (n->up || n->gone); i++) n = who(w, a->a + i);
        if (!n->up && !n->gone) rw_start(w, n);
        break;
    case RW_SPLIT: split(w, a->b); break;
    case RW_CUT_ONE_WAY:
        w->blocked[n->id][who(w, a->b)->id] = true;
        tell(w, "what %d sends to %d is lost", n->id, who(w, a->b)->id);
        break;
    case RW_ISOLATE:
        if (a->b % 2 && rw_leader(w)) n = rw_leader(w);
        for (unsigned k = 1; k <= w->pool; k++) w->blocked[n->id][k] = w->blocked[k][n->id] = true;
        tell(w, "%d is cut off", n->id, 0);
        break;
    case RW_HEAL:
        memset(w->blocked, 0, sizeof w->blocked);
        tell(w, "the network is whole", 0, 0);
        break;
    case RW_STALL:
        n->stalled_until = w->time + a->b % 500000;
        tell(w, "the disk of %d stalls", n->id, 0);
        break;
    case RW_FAIL_DISK:
        if (!n->up || n->disk_failed) break;
        tell(w, "the disk of %d fails", n->id, 0);
        n->disk_failed = true;
        n->held_count = 0;
        rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_DISK_FAILED}, NULL);
        break;
    case RW_DAMAGE: damage(w, n, a->b); break;
    case RW_WIPE: wipe(w, n); break;
    case RW_JUMP:
        n->ticks += (uint32_t)(a->b % 100);
        tell(w, "the clock of %d jumps by %d ticks", n->id, (int)(a->b % 100));
        break;
    case RW_PAUSE:
        n->paused_until = w->time + a->b % 400000;
        tell(w, "%d is stopped for a while", n->id, 0);
        break;
    case RW_CONFIGURE: configure(w, a); break;
    case RW_TRANSFER:
        n = some_leader(w, a->a * 4);
        if (n)
            rw_step(w, n,
                    &(chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER,
                                          .peer = a->b % 2 ? (uint64_t)who(w, a->b >> 8)->id : 0},
                    NULL);
        break;
    case RW_COMPACT: compact(w, n, a->b); break;
    case RW_CAMPAIGN:
        if (n->up) rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN}, NULL);
        break;
    case RW_UNREACHABLE:
        if (n->up)
            rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_UNREACHABLE, .peer = (uint64_t)who(w, a->b)->id},
                    NULL);
        break;
    default:
        w->drop = a->b % 3 ? 0 : (unsigned)(a->a % 300);
        w->slow = (a->b >> 8) % 3 ? 0 : (unsigned)(a->a >> 16) % 500;
        break;
    }
}

/* ---- healing --------------------------------------------------------------------------------------------------- */

void rw_heal(raft_world *w) {
    tell(w, "all faults end", 0, 0);
    w->healed = w->loading = true;
    w->healed_at = w->time;
    w->drop = w->twice = w->slow = 0;
    memset(w->blocked, 0, sizeof w->blocked);
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *n = &w->node[i];
        n->paused_until = n->stalled_until = 0;
        if (n->disk_failed) rw_crash(w, n, 0);
        if (!n->up && !n->gone) rw_start(w, n);
    }
    w->goal = w->commit + LIVE_MARGIN;
    rw_push(w, 1000, RW_EV_LOAD, 0, 0, NULL);
}

/* Clients that never pause: there is always something that is not committed yet. */
void rw_load(raft_world *w) {
    rw_node *n = rw_leader(w);
    if (!w->loading) return;
    if (n && n->log.last < RW_LOG - 300)
        rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = 1}, NULL);
    rw_push(w, 2500, RW_EV_LOAD, 0, 0, NULL);
}

static bool all_agree(raft_world *w) {
    rw_node *l = rw_leader(w);
    chronik_raft_config c;
    if (!l || l->st.commit_index != l->st.last_index || l->st.joint) return false;
    chronik_raft_config_get(l->raft, &c);
    for (unsigned i = 0; i < c.voter_count; i++) {
        rw_node *n = &w->node[c.voters[i]];
        if (n->up && (n->st.commit_index != l->st.commit_index || n->st.lost)) return false;
        if (n->up && w->settings.sleep_ticks && !n->st.asleep) { /* it sleeps unless somebody is missing for ever */
            bool whole = true;
            for (unsigned k = 0; k < c.voter_count; k++) whole &= w->node[c.voters[k]].up;
            for (unsigned k = 0; k < c.learner_count; k++) whole &= w->node[c.learners[k]].up;
            if (whole) return false;
        }
    }
    return true;
}

static bool member(const chronik_raft_config *c, unsigned id) {
    bool in = false;
    for (unsigned i = 0; i < c->voter_count; i++) in |= c->voters[i] == id;
    for (unsigned i = 0; i < c->learner_count; i++) in |= c->learners[i] == id;
    return in;
}

/* Whoever was cut off when its removal was committed asks for votes for ever, and wakes the others: its host takes it away. */
static void removed_leave(raft_world *w) {
    rw_node *l = rw_leader(w);
    chronik_raft_config c;
    if (!l || l->st.joint || l->st.config_index > l->st.commit_index) return;
    chronik_raft_config_get(l->raft, &c);
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *n = &w->node[i];
        if (!n->up || member(&c, i)) continue;
        rw_crash(w, n, 100);
        n->gone = true;
    }
}

static void show(raft_world *w) {
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *n = &w->node[i];
        chronik_raft_config c = {0};
        if (n->up) chronik_raft_config_get(n->raft, &c);
        printf("%u: %s%s role %d term %u log %llu to %llu durable %llu commit %llu%s%s%s; voters", i,
               n->up ? "up" : "down", n->gone ? " for ever" : "", (int)n->st.role, n->st.term,
               (unsigned long long)n->st.first_index, (unsigned long long)n->st.last_index,
               (unsigned long long)n->st.durable_index, (unsigned long long)n->st.commit_index,
               n->st.asleep ? " asleep" : "", n->st.lost ? " lost" : "", n->st.joint ? " joint" : "");
        for (unsigned k = 0; k < c.voter_count; k++) printf(" %llu", (unsigned long long)c.voters[k]);
        printf(" old");
        for (unsigned k = 0; k < c.old_count; k++) printf(" %llu", (unsigned long long)c.old[k]);
        printf(" learners");
        for (unsigned k = 0; k < c.learner_count; k++) printf(" %llu", (unsigned long long)c.learners[k]);
        printf("\n");
    }
}

/* After the chaos, and then again and again: a leader, progress under load, and in the end agreement (and sleep). */
void rw_look(raft_world *w) {
    if (!w->healed) rw_heal(w);
    if (w->loading && w->commit >= w->goal) {
        w->loading = false;
        rw_node *n = who(w, w->seed); /* one more starts again, and nobody writes any more */
        if (n->up && n != rw_leader(w)) {
            rw_crash(w, n, 100);
            rw_start(w, n);
        }
    }
    if (!w->loading) removed_leave(w);
    if (!w->loading && all_agree(w)) {
        w->end = w->time;
        return;
    }
    if (w->time + 120000 >= w->end && w->trace) show(w);
    if (w->time + 120000 >= w->end || (w->loading && w->time > w->healed_at + LOADED_US))
        rw_violation(w,
                     w->loading
                         ? "%d: no progress long after all faults have ended"
                         : "%d: the logs do not come together, or do not fall asleep, long after all faults have ended",
                     rw_leader(w) ? rw_leader(w)->id : 0);
    rw_push(w, 100000, RW_EV_LOOK, 0, 0, NULL);
}
