/* An instance: loads, runs steps, appends their records, answers when they are committed.
 *
 *   IDLE ──lead──► LOADING ──all that was in the log is applied──► ACTIVE
 *     ▲               ▲  └──────────── a failure ────────────────────┘ │
 *     └──resign───────┴────────────────────────────────────────────────┘
 *
 * A call is in one of these lists: `held` while the machine has it; `waiting`, by index, once it is answered; `stuck`, once it is
 * answered by a batch that the WAL has no room for; `blocked`, behind that one, before its step. It leaves by call_over() alone,
 * which calls `done` once.
 *
 * A batch that finds no room (EAGAIN) is kept, and appended when there is some; until then nothing else happens here.
 *
 * Owner: the shard's thread. */
#include <stdio.h>

#include "base/assert.h"
#include "codec/codec.h"
#include "coord/machine.h"

#define DECOMPRESSED_MAX (UINT64_C(64) << 20) /* of one stored batch; ours are not compressed */

typedef enum coord_state { IDLE = 0, LOADING, ACTIVE } coord_state;

#ifdef CNK_TEST_HOOKS
enum cnk_coord_bug cnk_coord_bug;
#endif

struct cnk_coord {
    cnk_coord_shard *shard;
    cnk_replica *replica;
    cnk_coord_host host;
    const cnk_coord_machine *ops;
    void *machine; /* NULL: IDLE, or no memory for it yet */
    coord_state state;
    uint64_t last_index; /* of the newest batch that was appended */
    cnk_list waiting, held, stuck, blocked;
    cnk_writer stuck_batch; /* len > 0: it waits for room */
    bool stuck_clean;
    int64_t load_at, load_end;
    bool reading, stale; /* stale: what is being read is not wanted any more */
    cnk_coord_timer retry;
    uint8_t *snapshot; /* snapshot.c; NULL: none */
    size_t snapshot_len;
    uint64_t fresh; /* records applied since it was made, or loaded */
    bool saving;    /* new calls wait until what was appended is committed, and the snapshot is made */
    uint64_t passed_over; /* records that could not be read */
};

static void snapshot_want(cnk_coord *c);
static void snapshot_take(cnk_coord *c);
static int snapshot_load(cnk_coord *c);
static void unblock(cnk_coord *c);

typedef int (*step_function)(void *machine, void *arg, cnk_coord_out *out);

static void run(cnk_coord *c, step_function step, void *arg);
static int append(cnk_coord *c, const cnk_writer *bytes, bool *ret_appended);
static void settle(cnk_coord *c, int rc, bool drop, cnk_list *answered);
static int apply_batch(cnk_coord *c, const cnk_batch *batch, int64_t from);
static void give_answers(cnk_coord *c, cnk_list *answered, int error);
static void fail(cnk_coord *c, int rc);
static void call_over(cnk_coord_call *call, int error);
static void forget(cnk_coord *c, int error);
static void load_begin(cnk_coord *c);
static void load_go_on(cnk_coord *c);
static void load_later(cnk_coord *c);
static int load_batches(cnk_coord *c, const uint8_t *p, size_t len);
static void on_retry(cnk_coord_timer *timer);

/* ---- shards ----------------------------------------------------------------------------------------------------- */

int cnk_coord_shard_new(const chronik_io *io, const chronik_loop *loop, const cnk_coord_settings *settings,
                        cnk_coord_shard **ret_shard) {
    cnk_coord_shard *shard = cnk_calloc(1, sizeof *shard);
    if (shard == NULL) return CHRONIK_ENOMEM;
    shard->io = io;
    shard->loop = loop;
    shard->settings = *settings;
    shard->timer_at = UINT64_MAX;
    int rc = loop->ops->timer_new(loop->self, cnk_coord_timers_fire, shard, &shard->timer);
    if (rc != 0) {
        cnk_free(shard);
        return rc;
    }
    *ret_shard = shard;
    return 0;
}

void cnk_coord_shard_free(cnk_coord_shard *shard) {
    if (shard == NULL) return;
    shard->loop->ops->timer_free(shard->loop->self, shard->timer);
    cnk_free(shard);
}

void cnk_coord_stats_get(const cnk_coord_shard *shard, cnk_coord_stats *ret_stats) {
    for (size_t i = 0; i < CNK_COORD_STATES; i++) ret_stats->groups[i] = cnk_counter_get(&shard->groups[i]);
    ret_stats->members = cnk_counter_get(&shard->members);
    ret_stats->rebalances = cnk_counter_get(&shard->rebalances);
    ret_stats->offset_commits = cnk_counter_get(&shard->offset_commits);
}

/* ---- instances -------------------------------------------------------------------------------------------------- */

int cnk_coord_new(cnk_coord_shard *shard, cnk_replica *replica, const cnk_coord_host *host, cnk_coord **ret_coord) {
    cnk_coord *c = cnk_calloc(1, sizeof *c);
    if (c == NULL) return CHRONIK_ENOMEM;
    c->shard = shard;
    c->replica = replica;
    c->host = *host;
    c->ops = &cnk_groups_machine;
    c->retry = (cnk_coord_timer){.fire = on_retry, .arg = c};
    cnk_list_init(&c->waiting);
    cnk_list_init(&c->held);
    cnk_list_init(&c->stuck);
    cnk_list_init(&c->blocked);
    *ret_coord = c;
    return 0;
}

void cnk_coord_free(cnk_coord *c) {
    if (c == NULL) return;
    cnk_coord_resign(c);
    cnk_free(c->snapshot);
    cnk_free(c);
}

void cnk_coord_lead(cnk_coord *c) {
    if (c->state != IDLE) return;
    c->state = LOADING;
    load_begin(c);
}

void cnk_coord_resign(cnk_coord *c) {
    c->state = IDLE;
    cnk_coord_timer_clear(c->shard, &c->retry);
    forget(c, CHRONIK_ENOTCOORDINATOR);
}

void cnk_coord_committed(cnk_coord *c, uint64_t commit_index) {
    while (!cnk_list_empty(&c->waiting)) {
        cnk_coord_call *call = CNK_CONTAINER(c->waiting.next, cnk_coord_call, node);
        if (call->index > commit_index) break;
        call_over(call, call->error);
    }
    if (c->saving && c->last_index <= commit_index) snapshot_take(c);
    if (c->state == LOADING && !c->reading && !c->retry.set) load_go_on(c);
}

static void forget(cnk_coord *c, int error) {
    for (cnk_list *lists[] = {&c->waiting, &c->stuck, &c->held, &c->blocked}, **l = lists; l < lists + 4; l++)
        while (!cnk_list_empty(*l)) call_over(CNK_CONTAINER((*l)->next, cnk_coord_call, node), error);
    if (c->machine) c->ops->free(c->machine);
    c->machine = NULL;
    cnk_writer_free(&c->stuck_batch);
    c->saving = false;
    c->stale = c->reading;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static int step_call(void *machine, void *arg, cnk_coord_out *out) {
    cnk_coord_call *call = arg;
    return call->coord->ops->step(machine, call, out);
}

void cnk_coord_call_start(cnk_coord *c, cnk_coord_call *call) {
    call->coord = c;
    call->error = 0;
    call->answered = call->blocked = false;
    call->index = 0;
    cnk_list_push_back(&c->held, &call->node);
    if (c->state == ACTIVE && c->stuck_batch.len == 0 && !c->saving) {
        run(c, step_call, call);
    } else if (c->state == ACTIVE) {
        call->blocked = true;
        cnk_list_remove(&call->node);
        cnk_list_push_back(&c->blocked, &call->node);
    } else {
        bool heartbeat = call->kind == CNK_COORD_HEARTBEAT; /* Kafka answers it: no session ends while it loads */
        call_over(call, c->state != LOADING ? CHRONIK_ENOTCOORDINATOR : heartbeat ? 0 : CHRONIK_ECOORDINATORLOADING);
    }
}

void cnk_coord_call_cancel(cnk_coord_call *call) {
    if (!cnk_list_linked(&call->node)) return;
    if (!call->answered && !call->blocked) call->coord->ops->cancel(call->coord->machine, call);
    call_over(call, CHRONIK_ECANCELED);
}

static void call_over(cnk_coord_call *call, int error) {
    cnk_list_remove(&call->node);
    call->answered = true;
    call->error = error;
    call->done(call);
}

typedef struct deleted_topic {
    cnk_coord *coord;
    cnk_text name;
    const cnk_uuid *id;
} deleted_topic;

static int step_deleted(void *machine, void *arg, cnk_coord_out *out) {
    const deleted_topic *t = arg;
    return t->coord->ops->topic_deleted(machine, t->name, t->id, out);
}

void cnk_coord_topic_deleted(cnk_coord *c, cnk_text name, const cnk_uuid *id) {
    deleted_topic t = {c, name, id};
    if (c->state == ACTIVE && c->stuck_batch.len == 0) run(c, step_deleted, &t);
}

void cnk_coord_event(void *instance, cnk_coord_timer *timer, step_function step, void *arg) {
    cnk_coord *c = instance;
    CNK_ASSERT(c->state == ACTIVE);
    if (c->stuck_batch.len > 0 || c->saving) {
        uint64_t now = c->shard->loop->ops->now_ns(c->shard->loop->self);
        cnk_coord_timer_set(c->shard, timer, now + CNK_COORD_STUCK_MS * UINT64_C(1000000));
    } else {
        run(c, step, arg);
    }
}

void cnk_coord_writable(cnk_coord *c) {
    bool appended = false;
    if (c->stuck_batch.len == 0) return;
    int rc = append(c, &c->stuck_batch, &appended);
    if (rc == CHRONIK_EAGAIN && !appended) return;
    cnk_list answered;
    cnk_list_init(&answered);
    while (!cnk_list_empty(&c->stuck)) cnk_list_push_back(&answered, cnk_list_pop_front(&c->stuck));
    cnk_writer_free(&c->stuck_batch);
    settle(c, rc, rc != 0 && (appended || !c->stuck_clean), &answered);
    unblock(c);
}

static void unblock(cnk_coord *c) {
    while (c->state == ACTIVE && c->stuck_batch.len == 0 && !c->saving && !cnk_list_empty(&c->blocked)) {
        cnk_coord_call *call = CNK_CONTAINER(cnk_list_pop_front(&c->blocked), cnk_coord_call, node);
        cnk_coord_call_start(c, call);
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

int cnk_coord_out_record(cnk_coord_out *out, const cnk_writer *key, const cnk_writer *value) {
    if (key->error) return key->error;
    if (value && value->error) return value->error;
    cnk_record_spec spec = {.timestamp = out->now_ms, .key = key->data, .key_len = key->len};
    if (value) {
        spec.value = value->data;
        spec.value_len = value->len;
    }
    return cnk_batch_builder_add(&out->records, &spec);
}

void cnk_coord_out_answer(cnk_coord_out *out, cnk_coord_call *call, int error) {
    CNK_ASSERT(!call->answered);
    call->answered = true;
    call->error = error;
    cnk_list_remove(&call->node);
    cnk_list_push_back(&out->answered, &call->node);
}

static void run(cnk_coord *c, step_function step, void *arg) {
    cnk_coord_out out = {.now_ns = c->shard->loop->ops->now_ns(c->shard->loop->self),
                         .now_ms = c->shard->loop->ops->wall_ms(c->shard->loop->self)};
    bool appended = false;
    cnk_writer bytes;
    cnk_writer_growing(&bytes, 0);
    cnk_batch_builder_init(&out.records, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, CNK_COORD_BATCH_BYTES_MAX);
    cnk_list_init(&out.answered);
    int rc = step(c->machine, arg, &out);
    if (rc == 0 && out.records.count > 0) {
        rc = cnk_batch_builder_finish(&out.records, &bytes);
        if (rc == 0) rc = append(c, &bytes, &appended);
        if (rc == CHRONIK_EAGAIN && !appended) { /* until cnk_coord_writable */
            c->stuck_batch = bytes;
            c->stuck_clean = out.clean;
            cnk_writer_growing(&bytes, 0);
            while (!cnk_list_empty(&out.answered)) cnk_list_push_back(&c->stuck, cnk_list_pop_front(&out.answered));
            rc = 0;
        }
    }
    cnk_batch_builder_free(&out.records);
    cnk_writer_free(&bytes);
    settle(c, rc, rc != 0 && (appended || !out.clean), &out.answered);
}

/* What becomes of the calls of a step; with `drop`, of the instance. */
static void settle(cnk_coord *c, int rc, bool drop, cnk_list *answered) {
    int error = rc == 0                    ? 0
                : drop                     ? CHRONIK_ENOTCOORDINATOR
                : rc == CHRONIK_ETOOLARGE  ? CHRONIK_ECOMMITSIZE
                : rc == CHRONIK_ENOTLEADER ? CHRONIK_ENOTCOORDINATOR
                                           : CHRONIK_ECOORDINATORUNAVAILABLE;
    give_answers(c, answered, error);
    if (drop)
        fail(c, rc);
    else if (c->fresh >= c->shard->settings.snapshot_records && c->state == ACTIVE && c->stuck_batch.len == 0)
        snapshot_want(c);
}

static int append(cnk_coord *c, const cnk_writer *bytes, bool *ret_appended) {
    cnk_batch batch;
    cnk_replica_place place = {0, -1, -1};
    int rc = cnk_batch_parse(bytes->data, bytes->len, &batch);
    if (rc == 0) rc = cnk_replica_propose_batch(c->replica, &batch, -1, &place);
    if (rc == 0) {
        *ret_appended = true;
        c->last_index = place.index;
        rc = apply_batch(c, &batch, 0);
    }
    return rc;
}

/* Records from the offset on. What cannot be read is passed over (README.md). 0 or ENOMEM. */
static int apply_batch(cnk_coord *c, const cnk_batch *batch, int64_t from) {
    cnk_records records;
    cnk_record record;
    if (cnk_batch_control(batch)) return 0;
    int rc = cnk_records_open(batch, DECOMPRESSED_MAX, &records);
    if (rc == CHRONIK_ENOMEM) return rc;
    if (rc != 0) {
        c->passed_over += (uint64_t)batch->count;
        return 0;
    }
    while ((rc = cnk_records_next(&records, &record)) > 0) {
        if (record.offset < from) continue;
        rc = c->ops->apply(c->machine, &record);
        c->fresh++;
        if (rc == CHRONIK_ENOMEM) break;
        c->passed_over += rc != 0;
    }
    cnk_records_close(&records);
    if (rc == CHRONIK_ENOMEM) return rc;
    c->passed_over += rc != 0;
    return 0;
}

/* With an error, at once; else each when the instance's appends up to now are committed. */
static void give_answers(cnk_coord *c, cnk_list *answered, int error) {
    bool wait = error == 0 && c->last_index > cnk_replica_commit_index(c->replica);
    if (CNK_COORD_BUG(ANSWER_BEFORE_COMMIT)) wait = false;
    for (cnk_list *node; (node = cnk_list_pop_front(answered)) != NULL;) {
        cnk_coord_call *call = CNK_CONTAINER(node, cnk_coord_call, node);
        call->index = c->last_index;
        if (wait)
            cnk_list_push_back(&c->waiting, node);
        else
            call_over(call, error ? error : call->error);
    }
}

/* The state is not to be trusted any more: loaded anew. */
static void fail(cnk_coord *c, int rc) {
    char text[96];
    snprintf(text, sizeof text, "a coordinator is loaded anew: %s", chronik_strerror(rc));
    if (rc != CHRONIK_ESHUTDOWN) c->host.notice(c->host.arg, rc, text);
    forget(c, CHRONIK_ENOTCOORDINATOR);
    c->state = LOADING;
    load_later(c);
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static void load_begin(cnk_coord *c) {
    const cnk_log *log = cnk_replica_log(c->replica);
    CNK_ASSERT(c->machine == NULL);
    if (c->reading || c->ops->new_(c->shard, c, &c->machine) != 0) {
        load_later(c);
        return;
    }
    c->load_at = cnk_log_start(log);
    c->load_end = cnk_log_end(log);
    c->passed_over = 0;
    c->fresh = 0;
    if (c->snapshot && snapshot_load(c) != 0) {
        forget(c, CHRONIK_ECOORDINATORLOADING);
        load_later(c);
        return;
    }
    load_go_on(c);
}

static int step_loaded(void *machine, void *arg, cnk_coord_out *out) {
    return ((const cnk_coord *)arg)->ops->loaded(machine, out);
}

static void load_go_on(cnk_coord *c) {
    if (c->load_at >= c->load_end || (CNK_COORD_BUG(LOAD_STOPS_EARLY) && c->load_at == c->load_end - 1)) {
        char text[96];
        c->state = ACTIVE;
        if (c->passed_over > 0) {
            snprintf(text, sizeof text, "%llu records of groups could not be read and were passed over",
                     (unsigned long long)c->passed_over);
            c->host.notice(c->host.arg, CHRONIK_ECORRUPT, text);
        }
        run(c, step_loaded, c);
        return;
    }
    if (c->load_at >= cnk_log_high_watermark(cnk_replica_log(c->replica))) return; /* a commit goes on */
    c->reading = true;
    if (c->host.read(c->host.arg, c->load_at, CNK_COORD_LOAD_BYTES) != 0) {
        c->reading = false;
        forget(c, CHRONIK_ECOORDINATORLOADING);
        load_later(c);
    }
}

void cnk_coord_read_done(cnk_coord *c, int error, const struct iovec *slices, size_t slice_count) {
    bool stale = c->stale;
    size_t len = 0;
    c->reading = c->stale = false;
    if (c->state != LOADING || stale) return; /* the retry timer is set where it is LOADING */
    for (size_t i = 0; i < slice_count; i++) len += slices[i].iov_len;
    cnk_writer bytes;
    cnk_writer_growing(&bytes, 0);
    if (error == 0) error = cnk_writer_reserve(&bytes, len ? len : 1);
    for (size_t i = 0; i < slice_count; i++) cnk_write_bytes(&bytes, slices[i].iov_base, slices[i].iov_len);
    if (error == 0 && len > 0) error = load_batches(c, bytes.data, len);
    cnk_writer_free(&bytes);
    if (error == 0 && len == 0) { /* a hole, at the end of what there is */
        c->host.notice(c->host.arg, CHRONIK_ECORRUPT, "records of groups are missing in the log");
        c->load_at = cnk_log_high_watermark(cnk_replica_log(c->replica));
    }
    if (error == 0) return;
    forget(c, CHRONIK_ECOORDINATORLOADING);
    load_later(c);
}

void cnk_coord_load_next(cnk_coord *c) {
    if (c->state == LOADING && !c->reading && !c->retry.set) load_go_on(c);
}

static int load_batches(cnk_coord *c, const uint8_t *p, size_t len) {
    cnk_batch batch;
    int64_t before = c->load_at;
    for (size_t at = 0; at < len; at += batch.len) {
        int rc = cnk_batch_parse(p + at, len - at, &batch);
        if (rc != 0) return rc;
        if (batch.base_offset + batch.last_offset_delta < c->load_at) continue;
        if (CNK_COORD_BUG(LOAD_STOPS_EARLY) && batch.base_offset + 1 >= c->load_end) return 0;
        rc = apply_batch(c, &batch, c->load_at);
        if (rc != 0) return rc;
        c->load_at = batch.base_offset + batch.last_offset_delta + 1;
    }
    return c->load_at > before ? 0 : CHRONIK_ECORRUPT;
}

static void load_later(cnk_coord *c) {
    uint64_t now = c->shard->loop->ops->now_ns(c->shard->loop->self);
    cnk_coord_timer_set(c->shard, &c->retry, now + CNK_COORD_RETRY_MS * UINT64_C(1000000));
}

static void on_retry(cnk_coord_timer *timer) {
    cnk_coord *c = timer->arg;
    if (c->state == LOADING) load_begin(c);
}

/* ---- snapshots --------------------------------------------------------------------------------------------------
 *
 * The state as records, so that loading need not begin at the log's start. Little-endian:
 *   0 u32 "CCOR" · 4 u16 version (1) · 6 u16 must-understand flags (0) · 8 i64 the offset to go on from ·
 *   then for each record: u32 length of the key, u32 length of the value, key, value
 * The checkpoint has a CRC over it. One is made at a time when all that was appended is committed, and kept until the next
 * one; checkpoints take what is there. Crash rule: the log from the offset on is loaded behind it; without a snapshot, or
 * with one that cannot be read, the whole log. */

#define SNAPSHOT_MAGIC UINT32_C(0x524f4343)
#define SNAPSHOT_HEAD 16u

void cnk_coord_save(cnk_writer *out, const cnk_writer *key, const uint8_t *value, size_t value_len) {
    if (key->error && out->error == 0) out->error = key->error;
    cnk_write_le32(out, (uint32_t)key->len);
    cnk_write_le32(out, (uint32_t)value_len);
    cnk_write_bytes(out, key->data, key->len);
    cnk_write_bytes(out, value, value_len);
}

static void snapshot_want(cnk_coord *c) {
    if (c->last_index > cnk_replica_commit_index(c->replica))
        c->saving = true; /* with the commit */
    else
        snapshot_take(c);
}

/* Without memory, or where there is too much, there is none, and the next attempt comes with as many records again. */
static void snapshot_take(cnk_coord *c) {
    cnk_writer w;
    c->saving = false;
    c->fresh = 0;
    cnk_writer_growing(&w, CNK_COORD_SNAPSHOT_BYTES_MAX);
    cnk_write_le32(&w, SNAPSHOT_MAGIC);
    cnk_write_le16(&w, 1);
    cnk_write_le16(&w, 0);
    cnk_write_le64(&w, (uint64_t)(cnk_log_end(cnk_replica_log(c->replica)) + CNK_COORD_BUG(SNAPSHOT_SKIPS)));
    int rc = c->ops->save(c->machine, &w);
    if (rc == 0 && w.error == 0) {
        cnk_free(c->snapshot);
        c->snapshot = w.data;
        c->snapshot_len = w.len;
    } else {
        cnk_writer_free(&w);
    }
    unblock(c);
}

static bool snapshot_sound(const cnk_coord *c) {
    const cnk_log *log = cnk_replica_log(c->replica);
    cnk_reader r = cnk_reader_of(c->snapshot, c->snapshot_len);
    bool head = cnk_read_le32(&r) == SNAPSHOT_MAGIC && cnk_read_le16(&r) == 1 && cnk_read_le16(&r) == 0;
    int64_t offset = (int64_t)cnk_read_le64(&r);
    int64_t end = cnk_log_end(log) + CNK_COORD_BUG(SNAPSHOT_SKIPS);
    return head && r.error == 0 && offset >= cnk_log_start(log) && offset <= end;
}

/* ENOMEM; what is not sound is thrown away. */
static int snapshot_load(cnk_coord *c) {
    int rc = snapshot_sound(c) ? 0 : CHRONIK_ECORRUPT;
    cnk_reader r = cnk_reader_of(c->snapshot, c->snapshot_len);
    (void)cnk_read_le64(&r);
    int64_t offset = (int64_t)cnk_read_le64(&r);
    while (rc == 0 && cnk_reader_left(&r) > 0) {
        uint32_t key_len = cnk_read_le32(&r), value_len = cnk_read_le32(&r);
        cnk_record record = {.key = cnk_read_bytes(&r, key_len), .key_len = (int32_t)key_len};
        record.value = cnk_read_bytes(&r, value_len);
        record.value_len = (int32_t)value_len;
        rc = r.error ? CHRONIK_ECORRUPT : c->ops->apply(c->machine, &record);
    }
    if (rc == 0) c->load_at = offset;
    if (rc == 0 || rc == CHRONIK_ENOMEM) return rc;
    c->host.notice(c->host.arg, CHRONIK_ECORRUPT, "a snapshot of groups cannot be read; the log is loaded from its start");
    cnk_free(c->snapshot);
    c->snapshot = NULL;
    c->snapshot_len = 0;
    c->ops->free(c->machine);
    c->machine = NULL;
    return c->ops->new_(c->shard, c, &c->machine);
}

int cnk_coord_snapshot(const cnk_coord *c, cnk_writer *out) {
    if (c->snapshot) cnk_write_bytes(out, c->snapshot, c->snapshot_len);
    return out->error;
}

void cnk_coord_restore(cnk_coord *c, uint8_t *state, size_t len) {
    CNK_ASSERT(c->snapshot == NULL);
    c->snapshot = state;
    c->snapshot_len = len;
}
