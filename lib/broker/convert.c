/* What a job does before a batch is appended: a batch that comes in another codec than its topic's (compression.type) is
 * recompressed, of a message set of format 0 or 1 a batch is made, and a batch whose records must be looked at, but are
 * too many to be opened on the shard's thread, is judged.
 *
 * A recompressed batch's records stay as they are; the header gets the codec, the length and the CRC. A message set is
 * judged here, too (record/message_set.h). A job does it, with as many at a time as CNK_CONVERSIONS_MAX, so the memory is
 * bounded by the batches' limit; meanwhile the batch keeps its place in its partition's fifo.
 *
 * Owner: the partition's shard; between begin and done the job. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "broker/internal.h"
#include "codec/codec.h"
#include "record/message_set.h"
#include "record/record.h"

typedef struct cnk_conversion {
    cnk_turn turn;
    cnk_shard *owner;
    cnk_produce_part *part;
    cnk_batch from;
    cnk_batch_rules rules; /* of a message set, or of a batch that is judged here */
    cnk_batch_fault fault; /* likewise */
    cnk_writer out;
    bool running;
    int error;
} cnk_conversion;

static void submit(cnk_shard *shard, cnk_turn *turn);
static int64_t step(chronik_job *job);
static void done(chronik_job *job);
static int convert(cnk_conversion *c);
static int convert_old(cnk_conversion *c);
static int judge(cnk_conversion *c);
static int check_records(cnk_records *records);
static void write_header(const cnk_batch *from, unsigned codec, cnk_writer *out);

int cnk_convert_begin(cnk_shard *owner, cnk_produce_part *part) {
    const cnk_meta_topic *topic = NULL;
    int error = 0;
    if (cnk_partition_find(owner->image, part->topic, &part->topic_id, part->partition, &topic, &error) == NULL)
        return error;
    cnk_conversion *c = cnk_calloc(1, sizeof *c);
    if (c == NULL) return CHRONIK_ENOMEM;
    c->turn.job = (chronik_job){.loop = owner->loop, .step = step, .done = done};
    c->owner = owner;
    c->part = part;
    c->from = part->batch;
    c->rules = cnk_produce_rules(owner, &topic->settings, part->op->version);
    if (part->old_set) c->rules.decompressed_bytes_max = CNK_OLD_DECOMPRESSED_MAX;
    c->fault.record = -1;
    c->running = true;
    part->conversion = c;
    cnk_turn_take(owner, &c->turn);
    return 0;
}

bool cnk_convert_cancel(cnk_produce_part *part) {
    cnk_conversion *c = part->conversion;
    if (!cnk_list_linked(&c->turn.node)) return false;
    cnk_list_remove(&c->turn.node);
    c->running = false;
    return true;
}

void cnk_convert_free(cnk_produce_part *part) {
    cnk_conversion *c = part->conversion;
    if (c == NULL) return;
    CNK_ASSERT(!c->running && !cnk_list_linked(&c->turn.node));
    cnk_writer_free(&c->out);
    cnk_free(c);
    part->conversion = NULL;
}

void cnk_turn_take(cnk_shard *shard, cnk_turn *turn) {
    cnk_list_init(&turn->node);
    if (shard->conversions < CNK_CONVERSIONS_MAX)
        submit(shard, turn);
    else
        cnk_list_push_back(&shard->conversions_waiting, &turn->node);
}

void cnk_turn_end(cnk_shard *shard) {
    shard->conversions--;
    cnk_shard_memory_freed(shard);
    cnk_list *next = cnk_list_pop_front(&shard->conversions_waiting);
    if (next) submit(shard, CNK_CONTAINER(next, cnk_turn, node));
}

static void submit(cnk_shard *shard, cnk_turn *turn) {
    const chronik_io *io = shard->broker->io;
    shard->conversions++;
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_COMPUTE, &turn->job);
}

static int64_t step(chronik_job *job) {
    cnk_conversion *c = CNK_CONTAINER(job, cnk_conversion, turn.job);
    const cnk_produce_part *part = c->part;
    c->error = part->unopened ? judge(c) : 0;
    if (c->error == 0 && part->old_set) c->error = convert_old(c);
    else if (c->error == 0 && part->codec != CNK_TOPIC_CODEC_PRODUCER) c->error = convert(c);
    return CHRONIK_JOB_DONE;
}

static void done(chronik_job *job) {
    cnk_conversion *c = CNK_CONTAINER(job, cnk_conversion, turn.job);
    cnk_shard *owner = c->owner;
    cnk_produce_part *part = c->part;
    int error = c->error;
    c->running = false;
    cnk_turn_end(owner);
    if (error != 0) {
        part->fault_record = c->fault.record;
        part->error_text = c->fault.text;
    }
    if (error == 0 && c->out.len == 0) part->batch = c->from; /* it stays as it came */
    else if (error == 0) error = cnk_batch_parse(c->out.data, c->out.len, &part->batch);
    if (error == 0 && part->batch.len > part->bytes_max) error = CHRONIK_EMESSAGETOOLARGE;
    cnk_produce_converted(owner, part, error); /* may free c */
}

static int judge(cnk_conversion *c) {
    return cnk_batch_validate(c->part->data, c->part->len, &c->rules, &c->from, &c->fault);
}

static int convert_old(cnk_conversion *c) {
    const cnk_produce_part *part = c->part;
    const unsigned codec = part->codec == CNK_TOPIC_CODEC_PRODUCER ? CNK_MESSAGE_SET_KEEP : part->codec;
    cnk_writer_growing(&c->out, INT32_MAX);
    return cnk_message_set_to_batch(part->data, part->len, &c->rules, codec, part->codec_level, &c->out, &c->fault);
}

static int convert(cnk_conversion *c) {
    cnk_records records;
    int rc = cnk_records_open(&c->from, CNK_PRODUCE_DECOMPRESSED_MAX, &records);
    if (rc != 0) return rc == CHRONIK_EBOMB ? CHRONIK_EMESSAGETOOLARGE : rc;
    const uint8_t *start = records.p;
    size_t len = (size_t)(records.end - records.p);
    cnk_writer_growing(&c->out, 0);
    rc = check_records(&records);
    if (rc == 0) {
        write_header(&c->from, c->part->codec, &c->out);
        rc = c->out.error;
    }
    if (rc == 0) rc = cnk_codec_compress(c->part->codec, c->part->codec_level, start, len, &c->out);
    if (rc == 0 && c->out.len > INT32_MAX) rc = CHRONIK_EMESSAGETOOLARGE;
    if (rc == 0) {
        cnk_store_be32(c->out.data + 8, (uint32_t)(c->out.len - 12));
        cnk_store_be32(c->out.data + 17,
                       cnk_crc32c(0, c->out.data + CNK_BATCH_CRC_FROM, c->out.len - CNK_BATCH_CRC_FROM));
    }
    cnk_records_close(&records);
    return rc;
}

/* What goes into the log opened is known to be whole. */
static int check_records(cnk_records *records) {
    cnk_record record;
    int rc;
    while ((rc = cnk_records_next(records, &record)) == 1)
        ;
    return rc == CHRONIK_ECORRUPTMESSAGE ? CHRONIK_EINVALIDRECORD : rc;
}

static void write_header(const cnk_batch *from, unsigned codec, cnk_writer *out) {
    uint8_t header[CNK_BATCH_HEADER_BYTES];
    memcpy(header, from->data, sizeof header);
    cnk_store_be16(header + 21, (uint16_t)((from->attributes & ~7u) | codec));
    cnk_write_bytes(out, header, sizeof header);
}
