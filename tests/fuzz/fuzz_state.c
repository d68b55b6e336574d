/* What a checkpoint says of a replica: its configuration, and its log's state, over a log of a few batches that was made once,
 * in memory. Byte 0: bits 0-3: how many of the last entries come after the state; 16: the indices and the length within are put
 * right first. What is refused comes with a sentence; what is taken can be written down again, and taken again. */
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "codec/codec.h"
#include "log/log.h"
#include "record/record.h"
#include "replica/internal.h"
#include "sim/io_sim.h"
#include "wal/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAM = 7, FILE_BYTES = 102400, BATCHES = 6 };

typedef struct world {
    sim_world *sim;
    cnk_wal *wal;
    cnk_replica_shard *shard;
    cnk_replica *replica;
    bool drained;
} world;

static const cnk_replica_events no_events;

static void on_fenced(void *arg, const chronik_error *why) { (void)arg, (void)why; }
static void on_nothing(void *arg) { (void)arg; }
static void on_sealed(void *arg, uint32_t file_seq) { (void)arg, (void)file_seq; }
static void on_drained(void *arg, int code) {
    CNK_ASSERT(code == 0);
    ((world *)arg)->drained = true;
}

static void open_world(world *w, sim_disk *disk) {
    static cnk_wal_options o = CNK_WAL_OPTIONS_INIT;
    o.dir = "/log";
    o.file_bytes = FILE_BYTES;
    o.budget_bytes = 16 * FILE_BYTES;
    *w = (world){.sim = sim_world_new(disk, NULL)};
    CNK_ASSERT(cnk_wal_open(sim_world_io(w->sim), &o, NULL, NULL, NULL, &w->wal) == 0);
    cnk_replica_shard_options r = {.io = sim_world_io(w->sim),
                                   .loop = sim_world_loop(w->sim, 0),
                                   .wal = w->wal,
                                   .self = {.node = 1, .directory = {{1}}},
                                   .log = {.producers_per_log_max = 100, .producers_max = 1000},
                                   .fenced = on_fenced,
                                   .writable = on_nothing,
                                   .committed_end = on_nothing,
                                   .sealed = on_sealed};
    CNK_ASSERT(cnk_replica_shard_open(&r, &w->shard) == 0);
}

static void drain(void *arg) { cnk_replica_shard_drain(((world *)arg)->shard, on_drained, arg); }

static void close_world(world *w) {
    sim_world_on(w->sim, 0, drain, w);
    for (unsigned n = 0; n < 1000 && !w->drained; n++) sim_world_run(w->sim, SIM_MILLISECOND);
    CNK_ASSERT(w->drained);
    cnk_replica_shard_close(w->shard);
    cnk_wal_free(w->wal);
    sim_world_free(w->sim);
}

static void begin(void *arg) {
    world *w = arg;
    CNK_ASSERT(cnk_replica_create(w->shard, STREAM, &no_events, NULL, NULL, &w->replica) == 0);
    CNK_ASSERT(cnk_replica_start(w->replica, 0, NULL) == 0);
}

static void propose(void *arg) {
    world *w = arg;
    for (int n = 0; n < BATCHES; n++) {
        cnk_batch_builder b;
        cnk_writer out;
        cnk_batch batch;
        cnk_replica_place place;
        cnk_record_spec r = {.timestamp = INT64_C(1700000000000) + n, .value = "v", .value_len = 1};
        cnk_writer_growing(&out, 0);
        cnk_batch_builder_init(&b, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
        cnk_batch_builder_producer(&b, 5, 0, n);
        CNK_ASSERT(cnk_batch_builder_add(&b, &r) == 0 && cnk_batch_builder_finish(&b, &out) == 0);
        CNK_ASSERT(cnk_batch_parse(out.data, out.len, &batch) == 0);
        CNK_ASSERT(cnk_replica_propose_batch(w->replica, &batch, -1, &place) == 0);
        cnk_batch_builder_free(&b);
        cnk_writer_free(&out);
    }
}

static sim_disk *make(void) {
    world w;
    sim_disk *disk = sim_disk_new(1, NULL);
    open_world(&w, disk);
    sim_world_on(w.sim, 0, begin, &w);
    sim_world_run(w.sim, 50 * SIM_MILLISECOND);
    CNK_ASSERT(cnk_replica_role_of(w.replica) == CNK_ROLE_LEADER);
    sim_world_on(w.sim, 0, propose, &w);
    sim_world_run(w.sim, 50 * SIM_MILLISECOND);
    close_world(&w);
    return disk;
}

/* Layout: replica/state.c and log/snapshot.c. */
static void put_right(uint8_t *blob, size_t len, uint64_t applied) {
    if (len < 8 + 4 + 4) return;
    size_t at = 8 + 4 + 20 * ((size_t)blob[9] + blob[10]);
    if (at + 4 + 16 > len) return;
    if (cnk_load_le32(blob + at) > len - at - 8) cnk_store_le32(blob + at, (uint32_t)(len - at - 8));
    cnk_store_le64(blob + at + 4 + 8, applied);
}

static cnk_wal_stream *the_stream(world *w) {
    size_t it = 0;
    cnk_wal_stream *s = cnk_wal_recovered_next(w->wal, &it);
    CNK_ASSERT(s && cnk_wal_stream_state(s)->id == STREAM);
    return s;
}

static int recover(world *w, const uint8_t *blob, size_t len, uint64_t applied, chronik_error *err) {
    cnk_wal_stream *s = the_stream(w);
    cnk_free(s->blob);
    s->blob = cnk_memdup(blob, len);
    CNK_ASSERT(s->blob != NULL);
    s->blob_len = len;
    s->blob_applied = applied;
    return cnk_replica_recover(w->shard, s, &no_events, NULL, err, &w->replica);
}

static void check_again(sim_disk *disk, const cnk_writer *state, uint64_t applied) {
    world w;
    open_world(&w, disk);
    CNK_ASSERT(recover(&w, state->data, state->len, applied, NULL) == 0);
    close_world(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sim_disk *whole;
    if (!whole) whole = make();
    if (size < 2) return 0;
    world w;
    sim_disk *disk = sim_disk_clone(whole, 3);
    uint8_t *blob = cnk_memdup(data + 1, size - 1);
    chronik_error err = CHRONIK_ERROR_INIT;
    CNK_ASSERT(blob != NULL);
    open_world(&w, disk);
    const uint64_t last = cnk_wal_stream_state(the_stream(&w))->last_index, behind = data[0] & 15;
    const uint64_t applied = behind < last ? last - behind : 0;
    if (data[0] & 16) put_right(blob, size - 1, applied);
    int rc = recover(&w, blob, size - 1, applied, &err);
    CNK_ASSERT(rc == 0 || (err.text[0] && (rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED || rc == CHRONIK_ENOMEM)));
    cnk_writer state;
    cnk_writer_growing(&state, 0);
    if (rc == 0) CNK_ASSERT(cnk_replica_state_write(w.replica, &state) == 0);
    const uint64_t commit = rc == 0 ? cnk_replica_commit_index(w.replica) : 0;
    close_world(&w);
    if (rc == 0) {
        sim_disk *other = sim_disk_clone(whole, 4);
        check_again(other, &state, commit);
        sim_disk_free(other);
    }
    cnk_writer_free(&state);
    cnk_free(blob);
    sim_disk_free(disk);
    return 0;
}
