/* A shard of the broker: its deadlines, its pending completions, its statistics.
 *
 * Completions. Whatever ends an operation puts it on a list and asks for a flush, which runs after the events at hand,
 * or at the end of a WAL completion: so one sync that commits many partitions answers them together, and no `done` runs
 * inside a starting call.
 *
 * Deadlines are a binary heap over one timer, which is set only when the earliest changes.
 *
 * Owner: the shard's thread. */
#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "broker/internal.h"

static void run_flush(chronik_post *post);
static void flush_now(cnk_shard *shard);
static void on_timer(void *arg);
static void on_retry(void *arg);
static void retry(cnk_shard *shard);
static void on_fenced(void *arg, const chronik_error *why);
static void on_writable(void *arg);
static void on_committed_end(void *arg);
static void on_sealed(void *arg, uint32_t file_seq);
static void heap_up(cnk_shard *shard, size_t slot);
static void heap_down(cnk_shard *shard, size_t slot);
static void timer_update(cnk_shard *shard);

int cnk_shard_open(cnk_broker *broker, size_t index, chronik_error *err) {
    cnk_shard *shard = &broker->shards[index];
    shard->broker = broker;
    shard->index = index;
    shard->loop = broker->options.loops[index];
    shard->flush.run = run_flush;
    shard->producer_next = shard->producer_end = 0;
    cnk_list *const lists[] = {&shard->blocked,         &shard->starting,
                               &shard->moved,           &shard->produces,
                               &shard->produces_done,   &shard->lists,
                               &shard->lists_done,      &shard->fetches,
                               &shard->fetches_woken,   &shard->cold_waiting,
                               &shard->lookups_waiting, &shard->producers_waiting,
                               &shard->admin_runs,      &shard->conversions_waiting,
                               &shard->cutting,         &shard->watchers_due,
                               &shard->expiry,          &shard->coords,
                               &shard->group_calls,     &shard->extents,
                               &shard->cold_streams,    &shard->produces_taken,
                               &shard->reads_waiting};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) cnk_list_init(lists[i]);
    int rc = shard->loop->ops->timer_new(shard->loop->self, on_timer, shard, &shard->timer);
    if (rc == 0 && (shard->read_pool = cnk_rope_pool_new(broker->options.fetch_cold_bytes_max)) == NULL)
        rc = CHRONIK_ENOMEM;
    if (rc == 0) rc = shard->loop->ops->timer_new(shard->loop->self, on_retry, shard, &shard->retry);
    if (rc == 0)
        rc = cnk_coord_shard_new(broker->io, shard->loop, &broker->options.groups, &shard->coord_shard);
    cnk_replica_shard_options o = {.io = broker->io,
                                   .loop = shard->loop,
                                   .wal = broker->wal,
                                   .tier = broker->options.tier,
                                   .self = {broker->options.node_id, broker->options.directory_id},
                                   .log = {.cold = broker->options.cold,
                                           .producers_per_log_max = broker->options.producers_per_partition_max,
                                           .producers_max = broker->options.producers_max},
                                   .fenced = on_fenced,
                                   .writable = on_writable,
                                   .committed_end = on_committed_end,
                                   .sealed = on_sealed,
                                   .arg = shard};
    if (rc == 0) rc = cnk_replica_shard_open(&o, &shard->replicas);
    if (rc == 0) return 0;
    shard->loop->ops->timer_free(shard->loop->self, shard->timer);
    shard->loop->ops->timer_free(shard->loop->self, shard->retry);
    cnk_rope_pool_free(shard->read_pool);
    cnk_coord_shard_free(shard->coord_shard);
    shard->coord_shard = NULL;
    shard->timer = shard->retry = NULL;
    shard->read_pool = NULL;
    return cnk_error(err, rc, 0, "shard %zu cannot be opened", index);
}

void cnk_shard_close(cnk_shard *shard) {
    cnk_partition *p;
    shard->closing = true;
    cnk_admin_close(shard);
    cnk_fetch_close(shard);
    cnk_cold_close(shard);
    for (size_t it = 0; (p = cnk_map_next(&shard->partitions, &it)) != NULL;) cnk_partition_free(p);
    cnk_map_free(&shard->partitions);
    cnk_coord_shard_free(shard->coord_shard);
    cnk_replica_shard_close(shard->replicas);
    cnk_meta_image_unref(shard->image);
    if (shard->loop) {
        shard->loop->ops->timer_free(shard->loop->self, shard->timer);
        shard->loop->ops->timer_free(shard->loop->self, shard->retry);
    }
    cnk_free(shard->heap);
    cnk_rope_pool_free(shard->read_pool);
}

void cnk_shard_flush(cnk_shard *shard) {
    if (shard->flush_waiting) return;
    shard->flush_waiting = true;
    shard->loop->ops->defer(shard->loop->self, &shard->flush);
}

uint64_t cnk_shard_now_ns(const cnk_shard *shard) { return shard->loop->ops->now_ns(shard->loop->self); }
int64_t cnk_shard_wall_ms(const cnk_shard *shard) { return shard->loop->ops->wall_ms(shard->loop->self); }

void cnk_shard_post(cnk_shard *from, cnk_shard *to, chronik_post *post) {
    if (from == to)
        post->run(post);
    else
        to->loop->ops->post(to->loop->self, post);
}

cnk_partition *cnk_shard_partition(const cnk_shard *shard, uint64_t stream) {
    return cnk_map_get(&shard->partitions, stream);
}

cnk_shard *cnk_shard_owner(const cnk_broker *broker, uint64_t stream) {
    return &broker->shards[cnk_replica_shard_of(stream, broker->shard_count)];
}

const chronik_loop *cnk_shard_loop(const cnk_shard *shard) { return shard->loop; }
size_t cnk_shard_index(const cnk_shard *shard) { return shard->index; }
cnk_broker *cnk_shard_broker(const cnk_shard *shard) { return shard->broker; }
cnk_wal_port *cnk_shard_port(const cnk_shard *shard) { return cnk_replica_shard_port(shard->replicas); }
bool cnk_shard_reads_wait(const cnk_shard *shard) { return !cnk_list_empty(&shard->cold_waiting); }
cnk_meta_image *cnk_shard_image(const cnk_shard *shard) { return shard->image; }

uint64_t cnk_broker_connect(cnk_shard *shard, const chronik_address *peer) {
    (void)peer;
    cnk_counter_add(&shard->stats.connections, 1);
    return ++shard->next_connection * shard->broker->shard_count + shard->index;
}

void cnk_broker_disconnect(cnk_shard *shard, uint64_t connection) {
    (void)connection;
    cnk_counter_sub(&shard->stats.connections, 1);
}

void cnk_shard_stats_get(cnk_shard *shard, cnk_shard_stats *ret) {
    *ret = (cnk_shard_stats){.produce_parts = cnk_counter_get(&shard->stats.produce_parts),
                             .produce_bytes = cnk_counter_get(&shard->stats.produce_bytes),
                             .produce_records = cnk_counter_get(&shard->stats.produce_records),
                             .fetch_parts = cnk_counter_get(&shard->stats.fetch_parts),
                             .fetch_bytes = cnk_counter_get(&shard->stats.fetch_bytes),
                             .fetch_cold_bytes = cnk_counter_get(&shard->stats.fetch_cold_bytes),
                             .fetch_ahead_bytes = cnk_counter_get(&shard->stats.fetch_ahead_bytes),
                             .partitions = cnk_counter_get(&shard->stats.partitions),
                             .connections = cnk_counter_get(&shard->stats.connections),
                             .producers = cnk_counter_get(&shard->stats.producers),
                             .waiting_parts = cnk_counter_get(&shard->stats.waiting_parts),
                             .waiting_fetches = cnk_counter_get(&shard->stats.waiting_fetches),
                             .pinned_bytes = cnk_counter_get(&shard->stats.pinned_bytes),
                             .cold_bytes = cnk_counter_get(&shard->stats.cold_bytes),
                             .producers_evicted = cnk_counter_get(&shard->stats.producers_evicted),
                             .stored_records = cnk_counter_get(&shard->stats.stored_records)};
    const cnk_broker_options *o = &shard->broker->options;
    ret->pinned = (cnk_shard_budget){o->fetch_pinned_bytes_max, ret->pinned_bytes,
                                     cnk_counter_get(&shard->stats.pinned_refused)};
    ret->cold = (cnk_shard_budget){o->fetch_cold_bytes_max, ret->cold_bytes,
                                   cnk_counter_get(&shard->stats.cold_refused)};
    ret->waiting =
        (cnk_shard_budget){o->waiting_parts_max, ret->waiting_parts, cnk_counter_get(&shard->stats.parts_refused)};
    cnk_coord_stats_get(shard->coord_shard, &ret->groups);
    cnk_latency_read(&shard->stats.produce_latency, &ret->produce_latency);
    cnk_latency_read(&shard->stats.fetch_latency, &ret->fetch_latency);
}

void cnk_shard_notice(cnk_shard *shard, int code, const char *format, ...) {
    char text[CNK_NOTICE_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (shard->broker->options.notice) shard->broker->options.notice(shard->broker->options.hook_arg, code, text);
}

/* ---- memory that is given back ---------------------------------------------------------------------------------- */

static int64_t trim_step(chronik_job *job) {
    (void)job;
    cnk_mem_trim();
    return CHRONIK_JOB_DONE;
}

static void trim_done(chronik_job *job) {
    cnk_shard *shard = CNK_CONTAINER(job, cnk_shard, trim_job);
    shard->trimming = false;
    cnk_broker_stop_check(shard);
}

/* One that still reads, or has just done so, will want the memory again. The allocator is left alone while there is any
 * traffic, for it is held up: tens of milliseconds. */
static void on_memory_idle(cnk_deadline *deadline) {
    cnk_shard *shard = CNK_CONTAINER(deadline, cnk_shard, memory_trim);
    const chronik_io *io = shard->broker->io;
    bool reads = shard->cold_bytes > 0 || shard->conversions > 0;
    uint64_t bytes = cnk_counter_get(&shard->stats.produce_bytes) + cnk_counter_get(&shard->stats.fetch_bytes);
    bool traffic = bytes != shard->trim_bytes;
    shard->trim_bytes = bytes;
    if (!reads) cnk_rope_pool_trim(shard->read_pool);
    if (reads || traffic) {
        cnk_shard_memory_freed(shard);
        return;
    }
    if (shard->trimming || shard->stopping) return;
    shard->trimming = true;
    shard->trim_job = (chronik_job){.loop = shard->loop, .step = trim_step, .done = trim_done};
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_BACKGROUND, &shard->trim_job);
}

void cnk_shard_memory_freed(cnk_shard *shard) {
    if (shard->memory_trim.slot != 0 || shard->stopping) return;
    shard->memory_trim.fire = on_memory_idle;
    uint64_t at = cnk_shard_now_ns(shard) + CNK_MEMORY_IDLE_MS * UINT64_C(1000000);
    if (cnk_shard_deadline_set(shard, &shard->memory_trim, at) != 0) cnk_rope_pool_trim(shard->read_pool);
}

/* ---- deadlines -------------------------------------------------------------------------------------------------- */

int cnk_shard_deadline_set(cnk_shard *shard, cnk_deadline *deadline, uint64_t at_ns) {
    CNK_ASSERT(deadline->slot == 0);
    if (cnk_array_reserve((void **)&shard->heap, &shard->heap_capacity, shard->heap_count + 2, sizeof *shard->heap) !=
        0)
        return CHRONIK_ENOMEM;
    deadline->at_ns = at_ns;
    deadline->slot = ++shard->heap_count;
    shard->heap[deadline->slot] = deadline;
    heap_up(shard, deadline->slot);
    if (deadline->slot == 1) timer_update(shard);
    return 0;
}

/* The timer is left as it is: at worst it fires once for nothing. */
void cnk_shard_deadline_clear(cnk_shard *shard, cnk_deadline *deadline) {
    size_t slot = deadline->slot;
    if (slot == 0) return;
    deadline->slot = 0;
    cnk_deadline *last = shard->heap[shard->heap_count--];
    if (last == deadline) return;
    shard->heap[slot] = last;
    last->slot = slot;
    heap_up(shard, slot);
    heap_down(shard, last->slot);
}

static void on_timer(void *arg) {
    cnk_shard *shard = arg;
    uint64_t now = cnk_shard_now_ns(shard);
    while (shard->heap_count > 0 && shard->heap[1]->at_ns <= now) {
        cnk_deadline *deadline = shard->heap[1];
        cnk_shard_deadline_clear(shard, deadline);
        deadline->fire(deadline);
    }
    timer_update(shard);
}

static void timer_update(cnk_shard *shard) {
    uint64_t at = shard->heap_count > 0 ? shard->heap[1]->at_ns : UINT64_MAX;
    shard->loop->ops->timer_set(shard->loop->self, shard->timer, at);
}

static void heap_up(cnk_shard *shard, size_t slot) {
    cnk_deadline *d = shard->heap[slot];
    for (; slot > 1 && shard->heap[slot / 2]->at_ns > d->at_ns; slot /= 2) {
        shard->heap[slot] = shard->heap[slot / 2];
        shard->heap[slot]->slot = slot;
    }
    shard->heap[slot] = d;
    d->slot = slot;
}

static void heap_down(cnk_shard *shard, size_t slot) {
    cnk_deadline *d = shard->heap[slot];
    for (size_t child; (child = slot * 2) <= shard->heap_count; slot = child) {
        if (child < shard->heap_count && shard->heap[child + 1]->at_ns < shard->heap[child]->at_ns) child++;
        if (shard->heap[child]->at_ns >= d->at_ns) break;
        shard->heap[slot] = shard->heap[child];
        shard->heap[slot]->slot = slot;
    }
    shard->heap[slot] = d;
    d->slot = slot;
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static void run_flush(chronik_post *post) {
    cnk_shard *shard = CNK_CONTAINER(post, cnk_shard, flush);
    shard->flush_waiting = false;
    flush_now(shard);
}

static void flush_now(cnk_shard *shard) {
    cnk_produce_flush(shard);
    cnk_list_offsets_flush(shard);
    cnk_fetch_flush(shard);
    cnk_watch_flush(shard);
    cnk_counter *c = &shard->stats.producers;
    cnk_counter_add(c, cnk_replica_shard_producers(shard->replicas) - cnk_counter_get(c));
    c = &shard->stats.producers_evicted;
    cnk_counter_add(c, cnk_replica_shard_producers_evicted(shard->replicas) - cnk_counter_get(c));
    cnk_expiry_watch(shard);
}

/* At the end of a WAL completion: everything that it has committed is answered together. */
static void on_committed_end(void *arg) {
    cnk_shard *shard = arg;
    cnk_delete_records_durable(shard);
    CNK_LIST_EACH(node, &shard->moved) {
        cnk_partition *p = CNK_CONTAINER(node, cnk_partition, moved_node);
        cnk_list_remove(&p->moved_node);
        p->moved = false;
        cnk_fetch_moved(p);
    }
    flush_now(shard);
}

void cnk_shard_retry_later(cnk_shard *shard) {
    if (shard->retry_set || shard->stopping) return;
    shard->retry_set = true;
    uint64_t at = cnk_shard_now_ns(shard) + CNK_RETRY_MS * UINT64_C(1000000);
    shard->loop->ops->timer_set(shard->loop->self, shard->retry, at);
}

static void on_retry(void *arg) {
    cnk_shard *shard = arg;
    shard->retry_set = false;
    retry(shard);
}

static void retry(cnk_shard *shard) {
    bool again = !shard->fenced && cnk_partitions_retry(shard);
    if (shard->index == 0 && !shard->fenced) again |= cnk_publisher_retry(shard->broker->publisher);
    if (again) cnk_shard_retry_later(shard);
}

static void on_writable(void *arg) {
    cnk_shard *shard = arg;
    retry(shard);
    CNK_LIST_EACH(node, &shard->blocked) cnk_produce_retry(CNK_CONTAINER(node, cnk_partition, blocked_node));
    cnk_groups_writable(shard);
}

/* In a code that clients retry elsewhere. */
void cnk_shard_give_up(cnk_shard *shard) {
    cnk_partition *p;
    for (size_t it = 0; (p = cnk_map_next(&shard->partitions, &it)) != NULL;) cnk_produce_gone(p, CHRONIK_ESTORAGE);
    cnk_delete_records_fail(shard, CHRONIK_ESTORAGE);
}

static void on_fenced(void *arg, const chronik_error *why) {
    cnk_shard *shard = arg;
    shard->fenced = true;
    cnk_groups_stop(shard);
    cnk_shard_give_up(shard);
    if (shard->index == 0) cnk_publisher_fail(shard->broker->publisher, CHRONIK_ESTORAGE);
    if (shard->broker->options.fenced) shard->broker->options.fenced(shard->broker->options.hook_arg, why);
}

static void on_sealed(void *arg, uint32_t file_seq) {
    cnk_shard *shard = arg;
    if (shard->broker->options.sealed) shard->broker->options.sealed(shard->broker->options.hook_arg, file_seq);
}
