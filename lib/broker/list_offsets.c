/* ListOffsets (K9): ends and timestamps of partitions.
 *
 * Ends are answered by the owner at once. A timestamp is looked up in the index (max timestamps of batches), then
 * inside the batch for the first record; what is cold, in a file, or compressed is a job's work. At most
 * CNK_TIMESTAMP_JOBS_MAX jobs at a time for each shard; the rest waits in order. What moves to packs or is deleted between the
 * look and the read is looked for again, LOOKS_MAX times.
 *
 * Owner: each part's current shard, by message. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/internal.h"
#include "record/record.h"

#define LOOKS_MAX 16 /* so often what is found may be gone before it is read */
#define BATCH_READ_MAX (1u << 20) /* asked from the cold tier for the one batch; a larger one comes whole */

typedef struct lookup { /* one part's job */
    chronik_job job;
    cnk_shard *owner;
    cnk_list_offsets_part *part;
    cnk_log_piece piece; /* in the WAL; NOWHERE: none */
    const cnk_log_cold *cold;
    int64_t cold_start, cold_end; /* where to look in the cold tier first; equal: nowhere */
    int64_t timestamp;            /* or CNK_OFFSET_MAX_TIMESTAMP, then the batch is known */
    int64_t from, again; /* records from here on; where to go on, for there are none in the batch: -1: nowhere */
    int64_t newest;      /* not -1: it is not, and no timestamp is above this one */
    bool slab_held;
    bool moved; /* what was found is gone from where it was: once more, from the start */
    int error;
    int64_t offset, record_timestamp;
} lookup;

static void run_at_owner(chronik_post *post);
static void serve(cnk_shard *shard, cnk_partition *p, cnk_list_offsets_part *part);
static void serve_end(cnk_partition *p, cnk_list_offsets_part *part, int64_t offset);
static void look_up(cnk_shard *shard, cnk_partition *p, cnk_list_offsets_part *part);
static bool at_once(const cnk_log_piece *piece, cnk_list_offsets_part *part);
static int64_t step(chronik_job *job);
static void job_done(chronik_job *job);
static int find_newest_cold(lookup *l);
static int find_cold(lookup *l);
static int find_in_wal(lookup *l);
static int find_in_batch(lookup *l, int64_t base_offset, const uint8_t *data, size_t len);
static void next_lookups(cnk_shard *shard);
static void answer(cnk_shard *owner, cnk_list_offsets_part *part, int error);
static void run_at_home(chronik_post *post);

int cnk_broker_list_offsets(cnk_shard *shard, cnk_list_offsets *op) {
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    op->shard = shard;
    op->open_parts = op->part_count;
    op->starting = true;
    cnk_list_init(&op->node);
    cnk_list_init(&op->done_node);
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_list_offsets_part *part = &op->parts[i];
        const cnk_meta_topic *topic = NULL;
        static const cnk_uuid no_id = {{0}};
        int error = 0;
        part->op = op;
        part->error = 0;
        part->from = 0;
        part->looks = 0;
        part->offset = part->record_timestamp = -1;
        part->offset_epoch = -1;
        cnk_list_init(&part->node);
        cnk_text name = part->topic.p ? part->topic : (cnk_text){"", 0};
        const cnk_meta_partition *mp = cnk_partition_find(shard->image, name, &no_id, part->partition, &topic, &error);
        if (mp == NULL) {
            answer(shard, part, error);
            continue;
        }
        part->stream = mp->stream;
        part->post.run = run_at_owner;
        cnk_shard_post(shard, cnk_shard_owner(shard->broker, part->stream), &part->post);
    }
    op->starting = false;
    if (op->open_parts == 0) return CNK_DONE;
    cnk_list_push_back(&shard->lists, &op->node);
    return CNK_PENDING;
}

void cnk_broker_list_offsets_cancel(cnk_list_offsets *op) { (void)op; }

void cnk_list_offsets_flush(cnk_shard *shard) {
    for (cnk_list *node; (node = cnk_list_pop_front(&shard->lists_done)) != NULL;) {
        cnk_list_offsets *op = CNK_CONTAINER(node, cnk_list_offsets, done_node);
        cnk_list_remove(&op->node);
        op->done(op);
    }
}

static void run_at_home(chronik_post *post) {
    cnk_list_offsets *op = CNK_CONTAINER(post, cnk_list_offsets_part, post)->op;
    if (--op->open_parts > 0 || op->starting) return;
    cnk_list_push_back(&op->shard->lists_done, &op->done_node);
    cnk_shard_flush(op->shard);
}

static void answer(cnk_shard *owner, cnk_list_offsets_part *part, int error) {
    part->error = error;
    if (error != 0) {
        part->offset = part->record_timestamp = -1;
        part->offset_epoch = -1;
    }
    part->post.run = run_at_home;
    cnk_shard_post(owner, part->op->shard, &part->post);
}

static void run_at_owner(chronik_post *post) {
    cnk_list_offsets_part *part = CNK_CONTAINER(post, cnk_list_offsets_part, post);
    cnk_shard *shard = cnk_shard_owner(part->op->shard->broker, part->stream);
    cnk_partition *p = cnk_shard_partition(shard, part->stream);
    int error = 0;
    if (p == NULL || p->gone)
        error = CHRONIK_EUNKNOWNTOPIC;
    else if (p->replica == NULL)
        error = CHRONIK_ESTORAGE;
    else if (cnk_replica_leader(p->replica) < 0)
        error = CHRONIK_ENOTLEADER;
    else if (part->leader_epoch != -1 && part->leader_epoch != (int64_t)cnk_replica_term(p->replica))
        error =
            part->leader_epoch < (int64_t)cnk_replica_term(p->replica) ? CHRONIK_EFENCEDEPOCH : CHRONIK_EUNKNOWNEPOCH;
    if (error != 0)
        answer(shard, part, error);
    else
        serve(shard, p, part);
}

static void serve(cnk_shard *shard, cnk_partition *p, cnk_list_offsets_part *part) {
    const cnk_log *log = cnk_replica_log(p->replica);
    bool committed = part->op->read_committed;
    switch (part->timestamp) {
    case CNK_OFFSET_LATEST:
        if (cnk_replica_role_of(p->replica) != CNK_ROLE_LEADER) /* R7 */
            answer(shard, part, CHRONIK_EOFFSETUNAVAILABLE);
        else
            serve_end(p, part, committed ? cnk_log_last_stable(log) : cnk_log_high_watermark(log));
        return;
    case CNK_OFFSET_EARLIEST:
    case CNK_OFFSET_EARLIEST_LOCAL: /* packs are on the local disk */ serve_end(p, part, cnk_log_start(log)); return;
    case CNK_OFFSET_BOUNDS:
        part->start = cnk_log_start(log);
        part->record_timestamp = cnk_log_max_timestamp(log, &(int64_t){0});
        serve_end(p, part, cnk_log_high_watermark(log));
        return;
    case CNK_OFFSET_EPOCH_END:
        cnk_log_epoch_end(log, part->asked_epoch, &part->offset_epoch, &part->offset);
        answer(shard, part, 0);
        return;
    case CNK_OFFSET_LATEST_TIERED: /* nothing is in an object store: -1, no error */
    case CNK_OFFSET_EARLIEST_PENDING_UPLOAD: answer(shard, part, 0); return;
    default:
        if (shard->lookups >= CNK_TIMESTAMP_JOBS_MAX)
            cnk_list_push_back(&shard->lookups_waiting, &part->node);
        else
            look_up(shard, p, part);
    }
}

static void serve_end(cnk_partition *p, cnk_list_offsets_part *part, int64_t offset) {
    part->offset = offset;
    part->offset_epoch = cnk_log_epoch_at(cnk_replica_log(p->replica), offset);
    answer(p->shard, part, 0);
}

static void look_up(cnk_shard *shard, cnk_partition *p, cnk_list_offsets_part *part) {
    const cnk_log *log = cnk_replica_log(p->replica);
    int64_t end = part->op->read_committed ? cnk_log_last_stable(log) : cnk_log_high_watermark(log);
    cnk_log_piece piece = {.where = CNK_LOG_NOWHERE};
    int64_t cold_start = 0, cold_end = 0, newest = -1, base = -1;
    if (part->from < cnk_log_start(log)) part->from = cnk_log_start(log);
    if (part->timestamp == CNK_OFFSET_MAX_TIMESTAMP) newest = cnk_log_max_timestamp(log, &base);
    if (base >= cnk_log_start(log)) newest = -1;
    if (part->timestamp == CNK_OFFSET_MAX_TIMESTAMP && newest < 0) {
        if (base >= cnk_log_start(log) && base < end) cnk_log_find(log, base, end, BATCH_READ_MAX, &piece);
        cold_start = piece.where == CNK_LOG_COLD ? base : 0;
        cold_end = piece.where == CNK_LOG_COLD ? piece.end_offset : 0;
    } else { /* also where the newest batch has been deleted */
        if (newest >= 0)
            cnk_log_find_newest(log, end, &piece);
        else
            cnk_log_find_timestamp(log, part->timestamp, part->from, end, &piece);
        cold_start = part->from;
        cold_end = shard->broker->options.cold ? cnk_log_cold_end(log) : cold_start;
        cold_end = cold_end < end ? cold_end : end;
    }
    bool no_cold = cold_start >= cold_end;
    if (no_cold && (piece.where == CNK_LOG_NOWHERE || at_once(&piece, part))) {
        if (part->offset >= 0) part->offset_epoch = cnk_log_epoch_at(log, part->offset);
        answer(shard, part, 0);
        return;
    }
    lookup *l = cnk_calloc(1, sizeof *l);
    if (l == NULL) {
        answer(shard, part, CHRONIK_ENOMEM);
        return;
    }
    *l = (lookup){.job = {.loop = shard->loop, .step = step, .done = job_done},
                  .owner = shard,
                  .part = part,
                  .piece = piece,
                  .cold = no_cold ? NULL : shard->broker->options.cold,
                  .cold_start = cold_start,
                  .cold_end = cold_end,
                  .timestamp = part->timestamp,
                  .newest = newest,
                  .from = part->from,
                  .again = -1,
                  .slab_held = piece.where == CNK_LOG_HOT,
                  .offset = -1,
                  .record_timestamp = -1};
    if (l->slab_held) cnk_wal_slab_ref(piece.slab);
    shard->lookups++;
    const chronik_io *io = shard->broker->io;
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_COMPUTE, &l->job);
}

/* In memory and not compressed: no job is needed. */
static bool at_once(const cnk_log_piece *piece, cnk_list_offsets_part *part) {
    cnk_batch batch;
    if (piece->where != CNK_LOG_HOT || cnk_batch_parse(piece->data, piece->bytes, &batch) != 0 ||
        cnk_batch_codec(&batch) != 0)
        return false;
    lookup l = {.timestamp = part->timestamp, .piece = *piece, .from = part->from, .again = -1};
    if (find_in_batch(&l, piece->base_offset, piece->data, piece->bytes) != 0) return false;
    part->offset = l.offset;
    part->record_timestamp = l.record_timestamp;
    return true;
}

static int64_t step(chronik_job *job) {
    lookup *l = CNK_CONTAINER(job, lookup, job);
    int rc = l->cold && l->newest >= 0 ? find_newest_cold(l) : 0;
    if (rc == 0) rc = l->cold ? find_cold(l) : CHRONIK_ENOTFOUND;
    if (rc == CHRONIK_ENOTFOUND && l->again < 0 && !l->moved && l->piece.where != CNK_LOG_NOWHERE &&
        l->piece.where != CNK_LOG_COLD)
        rc = find_in_wal(l);
    l->error = rc == CHRONIK_ENOTFOUND ? 0 : rc; /* no such record: -1 without an error */
    return CHRONIK_JOB_DONE;
}

static void job_done(chronik_job *job) {
    lookup *l = CNK_CONTAINER(job, lookup, job);
    cnk_shard *shard = l->owner;
    cnk_list_offsets_part *part = l->part;
    cnk_partition *p = cnk_shard_partition(shard, part->stream);
    if (l->slab_held) cnk_wal_slab_unref(l->piece.slab);
    part->offset = l->offset;
    part->record_timestamp = l->record_timestamp;
    if (p == NULL || p->gone) l->error = CHRONIK_EUNKNOWNTOPIC; /* with its packs, maybe before they were looked at */
    if (l->error == 0 && l->offset >= 0 && p && p->replica)
        part->offset_epoch = cnk_log_epoch_at(cnk_replica_log(p->replica), l->offset);
    if (l->error == 0 && l->moved && ++part->looks >= LOOKS_MAX) l->error = CHRONIK_ESTORAGE;
    const bool once_more = l->error == 0 && (l->moved || l->again >= 0);
    const bool told = l->error == 0 || l->error == CHRONIK_ENOMEM || l->error == CHRONIK_EUNKNOWNTOPIC;
    const int error = told ? l->error : CHRONIK_ESTORAGE;
    if (l->again >= 0) part->from = l->again;
    cnk_free(l);
    shard->lookups--;
    if (once_more)
        run_at_owner(&part->post);
    else
        answer(shard, part, error);
    next_lookups(shard);
}

static void next_lookups(cnk_shard *shard) {
    while (shard->lookups < CNK_TIMESTAMP_JOBS_MAX && !cnk_list_empty(&shard->lookups_waiting)) {
        cnk_list_offsets_part *part =
            CNK_CONTAINER(cnk_list_pop_front(&shard->lookups_waiting), cnk_list_offsets_part, node);
        run_at_owner(&part->post);
    }
}

/* The tier tells the first batch at or after a timestamp: the greatest one for which there is any is between none and
 * l->newest, and is found by halves. Where the WAL has a newer one, the tier is out of it. */
static int find_newest_cold(lookup *l) {
    const cnk_log_cold *cold = l->cold;
    int64_t low = l->piece.where == CNK_LOG_NOWHERE ? 0 : l->piece.max_timestamp, high = l->newest, base = -1;
    while (low <= high) {
        const int64_t mid = low + (high - low) / 2;
        int64_t found;
        const int rc = cold->find_timestamp(cold->self, l->part->stream, mid, l->cold_start, l->cold_end, &found, NULL);
        if (rc != 0 && rc != CHRONIK_ENOTFOUND) return rc;
        if (rc == 0) base = found;
        if (rc == 0)
            low = mid + 1;
        else
            high = mid - 1;
    }
    if (base < 0)
        l->cold = NULL;
    else
        l->cold_start = base;
    return 0;
}

static int find_cold(lookup *l) {
    int64_t base = l->cold_start;
    int rc = 0;
    if (l->timestamp != CNK_OFFSET_MAX_TIMESTAMP)
        rc = l->cold->find_timestamp(l->cold->self, l->part->stream, l->timestamp, l->cold_start, l->cold_end, &base,
                                     NULL);
    if (rc != 0) return rc;
    cnk_rope rope = CNK_ROPE_INIT(l->owner->read_pool);
    cnk_writer whole;
    cnk_writer_growing(&whole, 0);
    rc = l->cold->read(l->cold->self, l->part->stream, base, l->cold_end, 1, true, &rope, NULL, NULL);
    if (rc == 0) rc = rope.len > 0 ? cnk_rope_write(&rope, &whole) : CHRONIK_ENOTFOUND;
    if (rc == 0) rc = find_in_batch(l, base, whole.data, whole.len);
    l->moved |= rc == CHRONIK_ENOTFOUND && rope.len == 0;
    cnk_writer_free(&whole);
    cnk_rope_release(&rope);
    return rc;
}

static int find_in_wal(lookup *l) {
    if (l->piece.where == CNK_LOG_HOT) return find_in_batch(l, l->piece.base_offset, l->piece.data, l->piece.bytes);
    uint8_t *buf = cnk_malloc(l->piece.bytes);
    if (buf == NULL) return CHRONIK_ENOMEM;
    int rc = cnk_log_piece_read(l->owner->broker->wal, &l->piece, buf, NULL);
    if (rc == 0)
        rc = find_in_batch(l, l->piece.base_offset, buf, l->piece.bytes);
    else if (rc == CHRONIK_ENOTFOUND)
        l->moved = true; /* to the cold tier */
    cnk_free(buf);
    return rc;
}

/* The batch's records; one that cannot be opened, or whose maxTimestamp is not its records', counts as a whole (K5).
 * Another batch than the one that was found: that has been deleted since. */
static int find_in_batch(lookup *l, int64_t base_offset, const uint8_t *data, size_t len) {
    cnk_batch batch;
    if (cnk_batch_parse(data, len, &batch) != 0) return CHRONIK_ECORRUPT;
    l->moved = batch.base_offset != base_offset;
    if (l->moved) return CHRONIK_ENOTFOUND;
    int rc = l->timestamp == CNK_OFFSET_MAX_TIMESTAMP
                 ? cnk_batch_find_max_timestamp(&batch, CNK_PRODUCE_DECOMPRESSED_MAX, &l->offset, &l->record_timestamp)
                 : cnk_batch_find_timestamp_from(&batch, l->timestamp, l->from, CNK_PRODUCE_DECOMPRESSED_MAX,
                                                 &l->offset, &l->record_timestamp);
    if (rc == 0 || rc == CHRONIK_ENOMEM) return rc;
    if (rc == CHRONIK_ENOTFOUND && batch.base_offset < l->from) {
        l->again = batch.base_offset + batch.last_offset_delta + 1;
        return rc;
    }
    l->offset = batch.base_offset > l->from || l->timestamp == CNK_OFFSET_MAX_TIMESTAMP ? batch.base_offset : l->from;
    l->record_timestamp = batch.max_timestamp;
    return 0;
}
