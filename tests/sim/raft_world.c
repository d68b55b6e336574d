/* Nodes as hosts of a raft group each, and the network between them. See raft_world.h. */
#include "sim/raft_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/internal.h"

static void carry_out(raft_world *w, rw_node *n, chronik_raft_effects *effects, const rw_message *message);
static void append(raft_world *w, rw_node *n, const chronik_raft_effect *e, const rw_message *message);
static void persist(raft_world *w, rw_node *n, const rw_op *op);
static void hold(raft_world *w, rw_node *n, const chronik_raft_effect *e);
static void transmit(raft_world *w, rw_node *n, rw_message *m);
static void op_apply(rw_log *l, const rw_op *op);
static void on_synced(raft_world *w, rw_node *n, uint64_t lsn);
static void on_snapshot(raft_world *w, rw_node *n, int to);
static void on_tick(raft_world *w, rw_node *n);

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Decisions do not depend on each other's order, so that leaving out one changes few others. */
uint64_t rw_dice(raft_world *w, uint64_t a, uint64_t b, uint64_t c) {
    return mix(mix(mix(w->seed + a) + b) + c);
}

/* ---- the group's questions ------------------------------------------------------------------------------------- */

static uint32_t log_term(void *arg, uint64_t index) {
    rw_node *n = arg;
    if (index + 1 == n->log.first) return n->log.snapshot.term;
    if (index < n->log.first || index > n->log.last) {
        rw_violation(n->world, "%d: asked for the term of %llu, which its log does not hold", n->id,
                     (unsigned long long)index);
        return 1;
    }
    return n->log.entry[index].term;
}

static uint64_t log_fit(void *arg, uint64_t first, uint64_t last, uint32_t bytes_max, uint32_t *ret_bytes) {
    rw_node *n = arg;
    uint64_t at = first, sum = 0;
    if (first < n->log.first || last > n->log.last || first > last)
        rw_violation(n->world, "%d: asked for the size of entries that its log does not hold", n->id);
    sum = n->log.entry[at].bytes;
    while (at < last && sum + n->log.entry[at + 1].bytes <= bytes_max) sum += n->log.entry[++at].bytes;
    *ret_bytes = (uint32_t)sum;
    return at;
}

/* ---- worlds ---------------------------------------------------------------------------------------------------- */

raft_world *raft_world_new(void) {
    raft_world *w = calloc(1, sizeof *w);
    w->leaders = calloc(4096, sizeof *w->leaders);
    w->chains = calloc(1 << 15, sizeof *w->chains);
    w->model = raft_model_new();
    for (int i = 1; i < RW_NODES; i++) w->node[i].memory = malloc(2 * chronik_raft_size(CHRONIK_RAFT_MEMBERS_MAX));
    return w;
}

void raft_world_free(raft_world *w) {
    for (int i = 1; i < RW_NODES; i++) free(w->node[i].memory);
    raft_model_free(w->model);
    free(w->leaders);
    free(w->chains);
    free(w);
}

static void clear(raft_world *w, uint64_t seed, bool trace) {
    w->seed = seed;
    w->trace = trace;
    w->time = w->seq = w->end = w->commit = w->next_id = w->goal = w->snapshot_min = 0;
    w->failed = w->healed = w->loading = false;
    w->what[0] = 0;
    w->heap_count = w->plan_count = 0;
    w->config_count = 0;
    w->free_count = 0;
    for (unsigned i = 0; i < RW_MESSAGES; i++) w->message_free[w->free_count++] = i;
    memset(w->blocked, 0, sizeof w->blocked);
    memset(w->link_count, 0, sizeof w->link_count);
    memset(w->leaders, 0, 4096 * sizeof *w->leaders);
    memset(w->chains, 0, (1 << 15) * sizeof *w->chains);
    raft_model_reset(w->model);
    for (int i = 0; i < RW_NODES; i++) {
        rw_node *n = &w->node[i];
        void *memory = n->memory;
        size_t keep = offsetof(rw_node, log);
        memset(n, 0, keep);
        n->memory = memory;
        n->world = w;
        n->id = i;
        n->op_first = n->op_count = n->held_count = 0;
        n->durable_lsn = n->commit = 0;
        n->log.term = 0, n->log.vote = 0, n->log.first = 1, n->log.last = 0, n->log.lost = false;
        n->log.snapshot = (rw_snapshot){0, 0, 0, -1};
        n->disk.term = 0, n->disk.vote = 0, n->disk.first = 1, n->disk.last = 0, n->disk.lost = false;
        n->disk.snapshot = n->log.snapshot;
        memset(n->read, 0, sizeof n->read);
    }
}

/* The founders' logs begin with the same configuration. */
static void found(raft_world *w, unsigned voters) {
    chronik_raft_config *c = &w->configs[w->config_count++];
    memset(c, 0, sizeof *c);
    for (unsigned i = 1; i <= voters; i++) c->voters[c->voter_count++] = i;
    rw_entry first = {.term = 1, .bytes = 60, .id = 0, .chain = mix(17), .config = 0};
    for (unsigned i = 1; i <= voters; i++) {
        rw_log *l[2] = {&w->node[i].log, &w->node[i].disk};
        for (int k = 0; k < 2; k++) l[k]->term = 1, l[k]->last = 1, l[k]->entry[1] = first;
    }
}

bool raft_world_run(raft_world *w, uint64_t seed, bool trace, const bool *left_out) {
    static const unsigned sizes[16] = {3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 4, 4, 2, 1, 3};
    clear(w, seed, trace);
    unsigned voters = sizes[rw_dice(w, 1, 0, 0) % 16];
    w->pool = voters + 1 + (unsigned)(rw_dice(w, 2, 0, 0) % 3);
    w->settings = (chronik_raft_settings)CHRONIK_RAFT_SETTINGS_INIT;
    w->settings.sleep_ticks = rw_dice(w, 3, 0, 0) % 3 == 0 ? 15 : 0;
    w->settings.heartbeat_ticks = (uint16_t)(1 + rw_dice(w, 4, 0, 0) % 3);
    w->settings.message_bytes_max = (uint32_t)(60 + rw_dice(w, 5, 0, 0) % 400);
    w->settings.window_bytes_max = (uint32_t)(600 + rw_dice(w, 6, 0, 0) % 1500);
    w->settings.log = (chronik_raft_log){log_term, log_fit};
    found(w, voters);
    for (unsigned i = 1; i <= w->pool; i++) {
        w->node[i].drift = RW_TICK_US * (90 + rw_dice(w, 7, i, 0) % 21) / 100;
        rw_start(w, &w->node[i]);
        rw_push(w, rw_dice(w, 8, i, 0) % RW_TICK_US, RW_EV_TICK, (int)i, 0, NULL);
    }
    rw_plan(w, left_out);
    while (w->heap_count > 0 && !w->failed && w->time < w->end) {
        rw_event e = w->heap[0];
        rw_event last = w->heap[--w->heap_count];
        unsigned i = 0;
        for (unsigned child; (child = 2 * i + 1) < w->heap_count; i = child) {
            rw_event *h = w->heap;
            if (child + 1 < w->heap_count && (h[child + 1].time < h[child].time ||
                                              (h[child + 1].time == h[child].time && h[child + 1].seq < h[child].seq)))
                child++;
            if (last.time < h[child].time || (last.time == h[child].time && last.seq < h[child].seq)) break;
            h[i] = h[child];
        }
        w->heap[i] = last;
        w->time = e.time;
        rw_node *n = &w->node[e.node];
        bool current = n->up && n->incarnation == e.incarnation;
        switch (e.kind) {
        case RW_EV_TICK: on_tick(w, n); break;
        case RW_EV_DELIVER: {
            rw_message *m = e.message;
            if (n->up && n->paused_until > w->time) { /* it will find it later */
                rw_push(w, n->paused_until - w->time + 1, RW_EV_DELIVER, e.node, 0, m);
                break;
            }
            if (n->up) {
                w->delivered++;
                chronik_raft_event event = {.type = CHRONIK_RAFT_MESSAGE, .message = &m->m};
                chronik_raft_entry entries[RW_BATCH];
                for (unsigned k = 0; k < m->m.count; k++)
                    entries[k] = (chronik_raft_entry){m->entry[k].term, m->entry[k].bytes, &m->entry[k],
                                                      m->entry[k].config < 0 ? NULL : &w->configs[m->entry[k].config]};
                m->m.entries = entries;
                m->m.config = m->config < 0 ? NULL : &w->configs[m->config];
                rw_record(w, &(raft_record){.kind = RAFT_RECEIVE, .node = n->id, .message = m});
                int rc = rw_step(w, n, &event, m);
                if (rc == CHRONIK_EPROTO || rc == CHRONIK_ECORRUPT)
                    rw_violation(w, "%d refuses a message of %llu: %s", n->id, (unsigned long long)m->m.from,
                                 chronik_error_name(rc));
            }
            w->message_free[w->free_count++] = (unsigned)(m - w->message);
            break;
        }
        case RW_EV_SYNCED:
            if (current) on_synced(w, n, e.x);
            break;
        case RW_EV_SNAPSHOT:
            if (current) on_snapshot(w, n, (int)e.x);
            break;
        case RW_EV_FLUSH:
            if (current) {
                n->flush_waiting = false;
                rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_FLUSH}, NULL);
            }
            break;
        case RW_EV_ACTION: rw_act(w, &w->plan[e.x]); break;
        case RW_EV_LOAD: rw_load(w); break;
        default: rw_look(w); break;
        }
    }
    return !w->failed;
}

void rw_push(raft_world *w, uint64_t delay, int kind, int node, uint64_t x, rw_message *message) {
    if (w->heap_count == RW_EVENTS) {
        rw_violation(w, "the simulation has too many events");
        return;
    }
    rw_event e = {w->time + delay, w->seq++, (uint8_t)kind, node, w->node[node].incarnation, x, message};
    unsigned i = w->heap_count++;
    for (; i > 0; i = (i - 1) / 2) {
        rw_event *up = &w->heap[(i - 1) / 2];
        if (up->time < e.time || (up->time == e.time && up->seq < e.seq)) break;
        w->heap[i] = *up;
    }
    w->heap[i] = e;
}

rw_node *rw_leader(raft_world *w) {
    rw_node *best = NULL;
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *n = &w->node[i];
        if (n->up && n->st.role == CHRONIK_RAFT_ROLE_LEADER && (!best || n->st.term > best->st.term)) best = n;
    }
    return best;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------- */

int rw_config_in_log(const rw_log *l, uint64_t up_to, uint64_t *ret_index) {
    for (uint64_t i = up_to; i >= l->first; i--)
        if (l->entry[i].config >= 0) {
            *ret_index = i;
            return l->entry[i].config;
        }
    *ret_index = 0;
    return l->snapshot.config;
}

/* From its disk, as a process that finds its log. */
void rw_start(raft_world *w, rw_node *n) {
    uint64_t at = 0, before_at = 0;
    n->log = n->disk;
    n->incarnation++;
    n->up = true;
    n->disk_failed = n->flush_waiting = n->sync_under_way = false;
    n->paused_until = n->stalled_until = 0;
    n->op_first = n->op_count = n->held_count = 0;
    n->durable_lsn = 0;
    memset(n->read, 0, sizeof n->read);
    int config = rw_config_in_log(&n->log, n->log.last, &at);
    int before = at > 0 ? rw_config_in_log(&n->log, at - 1, &before_at) : -1;
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    o.self = (uint64_t)n->id;
    o.seed = (uint32_t)rw_dice(w, 20, (uint64_t)n->id, n->incarnation);
    o.term = n->log.term;
    o.voted_for = n->log.vote;
    o.first_index = n->log.first;
    o.last_index = n->log.last;
    o.commit_index = n->log.first - 1;
    o.config_index = at;
    o.config = config < 0 ? NULL : &w->configs[config];
    o.config_before = before < 0 ? NULL : &w->configs[before];
    o.lost = n->log.lost;
    o.settings = &w->settings;
    o.arg = n;
    n->commit = o.commit_index;
    unsigned room = 3 + (unsigned)(rw_dice(w, 21, (uint64_t)n->id, n->incarnation) % 6);
    int rc = chronik_raft_init(n->memory, chronik_raft_size(room), &o, NULL, &n->raft);
    if (rc == CHRONIK_ENOMEM)
        rc = chronik_raft_init(n->memory, chronik_raft_size(2 * RW_NODES), &o, NULL, &n->raft);
    if (rc != 0) {
        rw_violation(w, "%d does not start: %s", n->id, chronik_error_name(rc));
        n->up = false;
        return;
    }
    chronik_raft_status_get(n->raft, &n->st);
    rw_record(w, &(raft_record){.kind = RAFT_START, .node = n->id, .n = n, .term = n->log.term, .index = n->log.last});
}

/* What waited for a sync is lost, but for a part from the front (luck of 100). */
void rw_crash(raft_world *w, rw_node *n, unsigned luck) {
    if (!n->up) return;
    unsigned keep = n->op_count * luck / 100;
    uint64_t lsn = n->durable_lsn;
    for (unsigned i = 0; i < keep; i++) {
        const rw_op *op = &n->op[(n->op_first + i) % RW_OPS];
        op_apply(&n->disk, op);
        if (op->type == CHRONIK_RAFT_DO_APPEND) rw_check_appended(w, n, &n->disk, op->index);
        lsn = op->lsn;
    }
    n->up = false;
    n->incarnation++;
    n->op_count = n->held_count = 0;
    n->st.role = CHRONIK_RAFT_ROLE_FOLLOWER;
    w->crashes++;
    rw_record(w, &(raft_record){.kind = RAFT_CRASH, .node = n->id, .lsn = lsn});
}

static bool host_wakes(raft_world *w, rw_node *n) {
    for (unsigned i = 1; i <= w->pool; i++) {
        rw_node *p = &w->node[i];
        chronik_raft_peer member; /* a leader's pairs are those with the members */
        bool theirs = n->st.leader == (uint64_t)i || chronik_raft_peer_get(n->raft, i, &member) == 0;
        if (!theirs || (int)i == n->id) continue;
        bool silent = !p->up || w->blocked[i][n->id] || w->blocked[n->id][i] || p->paused_until > w->time;
        if (silent || p->incarnation != n->peers_seen[i]) {
            rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_WAKE, .peer = i}, NULL);
            return true;
        }
    }
    return false;
}

static void on_tick(raft_world *w, rw_node *n) {
    uint64_t pause = n->paused_until > w->time ? n->paused_until - w->time : 0;
    rw_push(w, n->drift + pause, RW_EV_TICK, n->id, 0, NULL);
    n->ticks++;
    if (!n->up || pause) return;
    if (n->st.asleep) { /* hibernating: the host looks after pairs of nodes only (R12) */
        host_wakes(w, n);
        return;
    }
    rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = n->ticks}, NULL);
}

int rw_step(raft_world *w, rw_node *n, const chronik_raft_event *event, const rw_message *message) {
    if (w->failed) return 0;
    if (message == NULL) rw_record(w, &(raft_record){.kind = RAFT_STEP, .node = n->id});
    int rc = chronik_raft_step(n->raft, event, &w->effects);
    if (rc == CHRONIK_ENOMEM) { /* more members than we thought */
        chronik_raft *g;
        size_t all = chronik_raft_size(2 * RW_NODES);
        void *copy = malloc(all);
        rc = chronik_raft_move(n->raft, copy, all, &g);
        if (rc == 0) rc = chronik_raft_move(g, n->memory, all, &n->raft);
        free(copy);
        if (rc == 0) rc = chronik_raft_step(n->raft, event, &w->effects);
    }
    w->steps++;
    if (rc != 0) return rc;
    chronik_raft_status was = n->st;
    chronik_raft_status_get(n->raft, &n->st);
    bool changed = false;
    for (unsigned i = 0; i < w->effects.count; i++) {
        uint8_t type = w->effects.effect[i].type;
        changed |= type == CHRONIK_RAFT_DO_RESET || type == CHRONIK_RAFT_DO_TRUNCATE || type == CHRONIK_RAFT_DO_APPEND;
    }
    n->led = was.role == CHRONIK_RAFT_ROLE_LEADER && was.term == n->st.term;
    carry_out(w, n, &w->effects, message);
    if (changed) rw_check_config_used(w, n);
    if (n->st.role == CHRONIK_RAFT_ROLE_LEADER && (was.role != CHRONIK_RAFT_ROLE_LEADER || was.term != n->st.term))
        rw_check_role(w, n);
    if (n->disk_failed && n->st.role == CHRONIK_RAFT_ROLE_LEADER) rw_violation(w, "%d leads with a failed disk", n->id);
    return 0;
}

static void carry_out(raft_world *w, rw_node *n, chronik_raft_effects *effects, const rw_message *message) {
    for (unsigned i = 0; i < effects->count && !w->failed; i++) {
        const chronik_raft_effect *e = &effects->effect[i];
        rw_op op = {.type = e->type, .lsn = e->lsn, .index = e->index, .vote = e->peer, .term = e->term};
        switch (e->type) {
        case CHRONIK_RAFT_DO_VOTE: persist(w, n, &op); break;
        case CHRONIK_RAFT_DO_TRUNCATE:
            if (e->index < n->commit) rw_violation(w, "%d truncates to %llu what is committed", n->id,
                                                   (unsigned long long)e->index);
            persist(w, n, &op);
            break;
        case CHRONIK_RAFT_DO_APPEND: append(w, n, e, message); break;
        case CHRONIK_RAFT_DO_RESET:
            op.snapshot = (rw_snapshot){e->index, message->chain, e->term, message->config};
            persist(w, n, &op);
            w->snapshots++;
            break;
        case CHRONIK_RAFT_DO_REPAIRED: persist(w, n, &op); break;
        case CHRONIK_RAFT_DO_SEND: hold(w, n, e); break;
        case CHRONIK_RAFT_DO_SNAPSHOT:
            rw_push(w, 2000 + rw_dice(w, 30, w->seq, e->message.to) % 60000, RW_EV_SNAPSHOT, n->id, e->message.to,
                    NULL);
            break;
        case CHRONIK_RAFT_DO_COMMIT:
            rw_record(w, &(raft_record){.kind = RAFT_COMMIT, .node = n->id, .index = e->index});
            rw_check_commit(w, n, e->index);
            break;
        case CHRONIK_RAFT_DO_ROLE:
            memset(n->read, 0, sizeof n->read);
            rw_record(
                w, &(raft_record){.kind = RAFT_ROLE, .node = n->id, .role = e->role, .term = e->term, .peer = e->peer});
            break;
        case CHRONIK_RAFT_DO_READ:
            rw_record(w, &(raft_record){.kind = RAFT_READ, .node = n->id, .round = e->round});
            rw_check_read(w, n, e->round);
            break;
        case CHRONIK_RAFT_DO_READY:
            rw_record(w, &(raft_record){.kind = RAFT_READY, .node = n->id, .round = e->round, .index = e->index});
            rw_check_ready(w, n, e->round, e->index);
            break;
        case CHRONIK_RAFT_DO_SLEEP:
            w->sleeps++;
            for (unsigned k = 1; k <= w->pool; k++) n->peers_seen[k] = w->node[k].incarnation;
            rw_record(w, &(raft_record){.kind = RAFT_SLEEP, .node = n->id});
            rw_check_sleep(w, n);
            break;
        default: rw_record(w, &(raft_record){.kind = RAFT_WAKE, .node = n->id}); break;
        }
    }
    if (effects->flush && !n->flush_waiting) {
        n->flush_waiting = true;
        rw_push(w, rw_dice(w, 31, w->seq, 0) % 3 ? 0 : rw_dice(w, 32, w->seq, 0) % 4000, RW_EV_FLUSH, n->id, 0, NULL);
    }
}

static void append(raft_world *w, rw_node *n, const chronik_raft_effect *e, const rw_message *message) {
    for (uint32_t i = 0; i < e->count && !w->failed; i++) {
        rw_op op = {.type = CHRONIK_RAFT_DO_APPEND, .lsn = e->lsn - e->count + 1 + i, .index = e->index + i};
        if (op.index >= RW_LOG - 1) {
            rw_violation(w, "the simulation's log is full");
            return;
        }
        uint64_t chain = op.index == n->log.first ? n->log.snapshot.chain : n->log.entry[op.index - 1].chain;
        if (op.index == 1) chain = 0;
        if (e->kind == CHRONIK_RAFT_ENTRIES) {
            op.entry = message->entry[(e->entries - message->m.entries) + (ptrdiff_t)i];
        } else {
            op.entry = (rw_entry){.term = e->term, .bytes = 20, .id = ++w->next_id, .config = -1};
            op.entry.bytes += (uint32_t)(rw_dice(w, 33, op.entry.id, 0) % 60);
            if (rw_dice(w, 34, op.entry.id, 0) % 20 == 0) op.entry.bytes += 600;
            if (e->kind == CHRONIK_RAFT_CONFIG) {
                if (w->config_count == RW_CONFIGS) rw_violation(w, "the simulation has too many configurations");
                else op.entry.config = w->config_count++, w->configs[op.entry.config] = *e->config;
            }
        }
        op.entry.chain = op.index == 1 ? mix(17) : mix(mix(chain + op.entry.term) + op.entry.id);
        op.term = op.entry.term;
        persist(w, n, &op);
        if (e->kind == CHRONIK_RAFT_ENTRIES) rw_check_appended(w, n, &n->log, op.index);
        if (op.entry.config >= 0) rw_check_config(w, n, op.index);
    }
}

static void persist(raft_world *w, rw_node *n, const rw_op *op) {
    rw_record(w, &(raft_record){.kind = RAFT_PERSIST, .node = n->id, .op = op});
    op_apply(&n->log, op);
    if (n->op_count == RW_OPS) {
        rw_violation(w, "the simulation has too many writes");
        return;
    }
    n->op[(n->op_first + n->op_count++) % RW_OPS] = *op;
    if (n->sync_under_way || n->disk_failed) return;
    n->sync_under_way = true;
    uint64_t wait = 200 + rw_dice(w, 40, w->seq, (uint64_t)n->id) % 3000;
    if (!w->healed && rw_dice(w, 41, w->seq, 0) % 16 == 0) wait += rw_dice(w, 42, w->seq, 0) % 60000;
    if (n->stalled_until > w->time) wait += n->stalled_until - w->time;
    rw_push(w, wait, RW_EV_SYNCED, n->id, op->lsn, NULL);
}

static void op_apply(rw_log *l, const rw_op *op) {
    switch (op->type) {
    case CHRONIK_RAFT_DO_VOTE: l->term = op->term, l->vote = op->vote; break;
    case CHRONIK_RAFT_DO_TRUNCATE: l->last = op->index; break;
    case CHRONIK_RAFT_DO_APPEND: l->entry[op->index] = op->entry, l->last = op->index; break;
    case CHRONIK_RAFT_DO_RESET:
        l->snapshot = op->snapshot;
        l->first = op->index + 1, l->last = op->index;
        break;
    default: l->lost = false; break;
    }
}

/* The sync covers what was written when it began; the group hears of it, and messages that waited go out. */
static void on_synced(raft_world *w, rw_node *n, uint64_t lsn) {
    n->sync_under_way = false;
    if (n->disk_failed) return;
    while (n->op_count > 0 && n->op[n->op_first].lsn <= lsn) {
        const rw_op *op = &n->op[n->op_first];
        op_apply(&n->disk, op);
        if (op->type == CHRONIK_RAFT_DO_APPEND) rw_check_appended(w, n, &n->disk, op->index);
        if (op->type == CHRONIK_RAFT_DO_REPAIRED) n->damaged = false;
        n->op_first = (n->op_first + 1) % RW_OPS;
        n->op_count--;
    }
    n->durable_lsn = lsn;
    if (n->st.role == CHRONIK_RAFT_ROLE_LEADER && n->raft->vote_lsn <= lsn) rw_check_role(w, n);
    rw_record(w, &(raft_record){.kind = RAFT_SYNCED, .node = n->id, .lsn = lsn});
    unsigned left = 0;
    for (unsigned i = 0; i < n->held_count; i++) {
        if (n->held[i].lsn <= lsn)
            transmit(w, n, &n->held[i]);
        else
            n->held[left++] = n->held[i];
    }
    n->held_count = left;
    if (n->op_count > 0) { /* the next sync begins at once */
        n->sync_under_way = true;
        uint64_t wait = 200 + rw_dice(w, 43, w->seq, (uint64_t)n->id) % 3000;
        if (n->stalled_until > w->time) wait += n->stalled_until - w->time;
        rw_push(w, wait, RW_EV_SYNCED, n->id, n->op[(n->op_first + n->op_count - 1) % RW_OPS].lsn, NULL);
    }
    rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = lsn}, NULL);
}

/* H2: a message waits for its lsn. */
static void hold(raft_world *w, rw_node *n, const chronik_raft_effect *e) {
    static rw_message m;
    m.m = e->message;
    m.lsn = e->lsn;
    m.config = -1;
    if (m.m.count > RW_BATCH) { /* none of the sizes used comes near it */
        rw_violation(w, "%d sends %u entries in one message", n->id, m.m.count);
        return;
    }
    for (uint32_t i = 0; i < m.m.count; i++) m.entry[i] = n->log.entry[m.m.index + 1 + i];
    rw_check_message(w, &m);
    if (m.lsn <= n->durable_lsn)
        transmit(w, n, &m);
    else if (!n->disk_failed && n->held_count < RW_HELD)
        n->held[n->held_count++] = m;
}

static void transmit(raft_world *w, rw_node *n, rw_message *m) {
    uint64_t to = m->m.to, from = (uint64_t)n->id;
    rw_record(w, &(raft_record){.kind = RAFT_SEND, .node = n->id, .message = m});
    uint64_t dice = rw_dice(w, 50 + to, from, w->link_count[from][to]++);
    if (to >= RW_NODES || w->blocked[from][to] || dice % 1000 < w->drop) return;
    unsigned copies = (dice >> 10) % 1000 < w->twice ? 2 : 1;
    for (unsigned c = 0; c < copies && w->free_count > 0; c++, dice = mix(dice)) {
        rw_message *sent = &w->message[w->message_free[--w->free_count]];
        size_t used = offsetof(rw_message, entry) + m->m.count * sizeof m->entry[0];
        memcpy(sent, m, used);
        uint64_t delay = 300 + (dice >> 20) % 2000;
        if ((dice >> 32) % 1000 < w->slow) delay += (dice >> 42) % ((dice >> 60) == 0 ? 1500000 : 150000);
        rw_push(w, delay, RW_EV_DELIVER, (int)to, 0, sent);
    }
}

/* The snapshot's bytes have arrived, or not; the newest one that the node has. */
static void on_snapshot(raft_world *w, rw_node *n, int to) {
    bool fails = w->blocked[n->id][to] || !w->node[to].up || (!w->healed && rw_dice(w, 60, w->seq, 0) % 5 == 0);
    static rw_message m;
    m.m = (chronik_raft_message){.type = CHRONIK_RAFT_SNAPSHOT, .from = (uint64_t)n->id, .to = (uint64_t)to,
                                 .term = n->st.term, .index = n->log.snapshot.index,
                                 .log_term = n->log.snapshot.term};
    m.lsn = 0;
    m.chain = n->log.snapshot.chain;
    m.config = n->log.snapshot.config;
    bool leads = n->st.role == CHRONIK_RAFT_ROLE_LEADER && n->raft->vote_lsn <= n->durable_lsn;
    if (!fails && leads && m.m.index > 0) transmit(w, n, &m);
    rw_step(w, n, &(chronik_raft_event){.type = CHRONIK_RAFT_SNAPSHOT_SENT, .peer = (uint64_t)to,
                                        .index = fails || !leads ? 0 : m.m.index}, NULL);
}
