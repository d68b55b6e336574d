#include "sim/node_sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/fsck.h"

#define STOP_NS (1000 * SIM_SECOND)

void sim_node_wrong(sim_node *node, const char *format, ...) {
    char *what = node->run->what;
    if (node->failed) return;
    node->failed = true;
    va_list args;
    va_start(args, format);
    const int used = snprintf(what, SIM_WHAT_BYTES, "world %llu, after %s: ", (unsigned long long)node->run->worlds,
                              node->ended ? node->ended : "nothing");
    vsnprintf(what + used, SIM_WHAT_BYTES - (size_t)used, format, args);
    va_end(args);
    if (node->run->trace) printf("VIOLATION %s\n", what);
}

void sim_node_say(const sim_node *node, const char *format, ...) {
    if (!node->run->trace) return;
    va_list args;
    va_start(args, format);
    printf("  [%llu us] ", (unsigned long long)(sim_world_now_ns(node->world) / SIM_MICROSECOND));
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

static bool sound(const sim_node *node) { return !sim_node_dead(node) && !node->faulty; }

bool sim_node_dead(const sim_node *node) { return sim_world_dead(node->world); }

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

static void on_ready(void *arg) { ((sim_node *)arg)->ready = true; }
static void on_fenced(void *arg, const chronik_error *why) {
    sim_node *node = arg;
    node->fenced = true;
    sim_node_say(node, "fenced: %s", why->text);
    if (sound(node)) sim_node_wrong(node, "the WAL is fenced: %s", why->text);
}
static void on_notice(void *arg, int code, const char *text) {
    sim_node *node = arg;
    sim_node_say(node, "notice: %s", text);
    if (code == CHRONIK_ECORRUPT && sound(node)) sim_node_wrong(node, "a notice: %s", text);
}
static void on_sealed(void *arg, uint32_t file_seq) { cnk_tier_sealed(((sim_node *)arg)->tier, file_seq); }
static void on_damaged(void *arg, uint64_t stream, const chronik_error *what) {
    sim_node *node = arg;
    if (sound(node)) sim_node_wrong(node, "damage of stream %llu is reported: %s", (unsigned long long)stream, what->text);
}
static void on_drained(void *arg) { ((sim_node *)arg)->drained = true; }
static void on_stopped(void *arg, int code) {
    sim_node *node = arg;
    node->stopped = true;
    if (code && sound(node) && !node->tight) sim_node_wrong(node, "stopping: %s", chronik_error_name(code));
}
static const cnk_tier_events tier_events = {NULL, NULL, on_damaged, NULL, NULL};

static bool is_ready(void *arg) { return ((sim_node *)arg)->ready || ((sim_node *)arg)->fenced; }
static bool is_drained(void *arg) { return ((sim_node *)arg)->drained; }
static bool is_stopped(void *arg) { return ((sim_node *)arg)->stopped; }

static void run_drain(void *arg) {
    sim_node *node = arg;
    node->draining = true;
    cnk_tier_drain(node->tier, on_drained, node);
}
static void run_stop(void *arg) {
    sim_node *node = arg;
    node->stopping = true;
    cnk_broker_stop(node->broker, on_stopped, node);
}
static void run_tier_start(void *arg) { cnk_tier_start(((sim_node *)arg)->tier); }

/* ---- life ------------------------------------------------------------------------------------------------------- */

void sim_node_init(sim_node *node, sim_run *run, cnk_rng *rng) {
    sim_disk_options disk = SIM_DISK_OPTIONS_INIT;
    disk.no_direct = cnk_rng_chance(rng, 1, 8);
    *node = (sim_node){.wal_options = CNK_WAL_OPTIONS_INIT, .tier_options = CNK_TIER_OPTIONS_INIT, .options = CNK_BROKER_OPTIONS_INIT,
                       .run = run, .rng = rng};
    node->disk = sim_disk_new(cnk_rng_below(rng, UINT64_MAX), &disk);
    node->wal_options.dir = "wal";
    node->wal_options.file_bytes = 100000 + cnk_rng_below(rng, 200000);
    node->wal_options.budget_bytes = node->wal_options.file_bytes * (6 + cnk_rng_below(rng, 8));
    node->wal_options.cache_bytes = 1 << 20;
    node->tier_options.dir = "packs";
    node->tier_options.retry_ms = 5;
    node->tier_options.pool_bytes = 4 << 20;
    memset(node->options.directory_id.bytes, 7, sizeof node->options.directory_id.bytes);
    node->options.ready = on_ready;
    node->options.notice = on_notice;
    node->options.fenced = on_fenced;
    node->options.sealed = on_sealed;
    node->options.hook_arg = node;
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

bool sim_node_over(sim_node *node) {
    sim_disk_free(node->disk);
    return !node->failed;
}

bool sim_node_goes_on(const sim_node *node, uint64_t worlds_min, uint64_t worlds_max, uint64_t calls_min) {
    const sim_run *run = node->run;
    return !node->failed && run->worlds < worlds_max && (run->calls < calls_min || run->crashes == 0 || run->worlds < worlds_min);
}

/* What a crash leaves is in order. */
static void check(sim_node *node) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const int code = sim_fsck(node->disk, 0, node->tier_options.dir, &err);
    if (code) sim_node_wrong(node, "fsck finds %s: %s", chronik_error_name(code), err.text);
}

void sim_node_boot(sim_node *node) {
    if (node->ended && cnk_rng_chance(node->rng, 1, 8)) check(node);
    sim_world_options o = SIM_WORLD_OPTIONS_INIT;
    o.loops = node->shards = 1 + (unsigned)cnk_rng_below(node->rng, SIM_NODE_SHARDS_MAX);
    o.seed = cnk_rng_below(node->rng, UINT64_MAX);
    o.coverage = node->run->coverage;
    if (node->run->trace && getenv("SIM_TRACE_WORLD")) o.trace = print_line;
    node->world = sim_world_new(node->disk, &o);
    node->ready = node->fenced = node->draining = node->drained = node->stopping = node->stopped = false;
    node->killed = node->died = false;
    node->faulty = node->tight = false;
    node->run->worlds++;
    sim_node_say(node, "---- world %llu, %u shards, after %s", (unsigned long long)node->run->worlds, node->shards,
                 node->ended ? node->ended : "nothing");
}

bool sim_node_open(sim_node *node) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const chronik_io *io = sim_world_io(node->world);
    int rc = cnk_wal_open(io, &node->wal_options, NULL, NULL, &err, &node->wal);
    if (rc) node->wal = NULL;
    if (rc == 0 && (rc = cnk_tier_open(io, node->wal, &node->tier_options, &tier_events, node, &err, &node->tier))) node->tier = NULL;
    if (rc == 0) {
        for (unsigned n = 0; n < node->shards; n++) node->loops[n] = sim_world_loop(node->world, n);
        node->options.loops = node->loops;
        node->options.shard_count = node->shards;
        node->options.tier = node->tier;
        node->options.cold = cnk_tier_cold(node->tier);
        rc = cnk_broker_open(io, node->wal, &node->options, &err, &node->broker);
        if (rc) node->broker = NULL;
    }
    if (rc) {
        if (sound(node) && !(node->tight && rc == CHRONIK_ENOSPC)) sim_node_wrong(node, "it does not start: %s: %s", chronik_error_name(rc), err.text);
        return false;
    }
    sim_world_on(node->world, 0, run_tier_start, node);
    (void)sim_world_run_until(node->world, is_ready, node, 120 * SIM_SECOND);
    if (!node->ready && !node->fenced && !node->tight && sound(node)) sim_node_wrong(node, "it does not become ready");
    return node->ready && !sim_node_dead(node);
}

void sim_node_stop(sim_node *node) {
    sim_world_on(node->world, 0, run_drain, node);
    bool ended = sim_world_run_until(node->world, is_drained, node, 100 * SIM_SECOND);
    if (ended && !sim_node_dead(node)) {
        sim_world_on(node->world, 0, run_stop, node);
        ended = sim_world_run_until(node->world, is_stopped, node, 100 * SIM_SECOND);
    }
    if (sim_node_dead(node)) return;
    if (!ended) sim_node_wrong(node, "%s does not end", node->stopping ? "stopping" : "draining the tier");
    else sim_world_run(node->world, SIM_SECOND);
}

void sim_node_kill(sim_node *node) {
    node->killed = true;
    node->died = sim_node_dead(node);
    node->run->calls += sim_world_calls(node->world);
    node->run->crashes += node->died;
    sim_world_kill(node->world);
    if (node->broker) sim_world_limp(node->world);
}

void sim_node_end(sim_node *node) {
    if (!node->broker) return;
    if (!node->draining) sim_world_on(node->world, 0, run_drain, node);
    (void)sim_world_run_until(node->world, is_drained, node, STOP_NS);
    if (!node->stopping) sim_world_on(node->world, 0, run_stop, node);
    (void)sim_world_run_until(node->world, is_stopped, node, STOP_NS);
    if (!node->drained || !node->stopped) sim_node_wrong(node, "a dead broker cannot be stopped (drained %d)", node->drained);
    for (int n = 0; n < 100000 && sim_world_jobs_waiting(node->world) > 0; n++) (void)sim_world_step(node->world);
    sim_world_run(node->world, SIM_SECOND);
}

void sim_node_free(sim_node *node) {
    (void)sim_world_step(node->world); /* steps under way end, in vain; where there is no broker, no loop has run */
    cnk_broker_free(node->broker);
    cnk_tier_free(node->tier);
    cnk_wal_free(node->wal);
    sim_world_free(node->world);
    node->broker = NULL;
    node->tier = NULL;
    node->wal = NULL;
    node->world = NULL;
    node->ended = node->died ? "a kill" : "an exit";
    sim_disk_crash(node->disk, SIM_CRASH_PROCESS);
    if (cnk_rng_chance(node->rng, 1, 2)) {
        node->ended = "a power cut";
        sim_disk_crash(node->disk, SIM_CRASH_POWER);
    }
}
