/* Fetch below version 4: what was fetched, as a message set of format 0 or 1.
 *
 * The answer's batches are converted part by part (record/message_set.h), in the order in which the parts are served, by
 * a job, in turn with the other conversions (convert.c). No more than CNK_FETCH_CONVERTED_BYTES come out but for the
 * answer's first batch, which is converted whatever its size: what is left out is asked for again, for the next pass.
 * Room for that counts as that of cold reads, until the answer is given back.
 *
 * A batch that cannot be converted (zstd, records that do not decompress) ends its part's answer; it is told as the
 * part's error where it comes first.
 *
 * Owner: the caller's shard; between begin and done the job. */
#include "base/assert.h"
#include "base/mem.h"
#include "broker/fetch.h"
#include "record/message_set.h"

typedef struct piece { /* of the converted bytes, one part's */
    struct iovec slice;
    size_t from, len;
    int error;
} piece;

typedef struct cnk_fetch_conversion {
    cnk_turn turn;
    cnk_fetch_run *run;
    cnk_writer out;
    cnk_writer scratch; /* a batch that does not lie in one slice */
    piece *pieces;      /* one for each part */
} cnk_fetch_conversion;

static int64_t step(chronik_job *job);
static void done(chronik_job *job);
static int convert_part(cnk_fetch_conversion *c, const cnk_fetch_part *part);
static int next_batch(cnk_slices *at, cnk_writer *scratch, cnk_batch *ret_batch);
static void leave_out(cnk_fetch *op, int error);

bool cnk_fetch_convert_begin(cnk_fetch_run *run) {
    cnk_fetch *op = run->op;
    if (op->bytes == 0) return false;
    if (run->reserved == 0) { /* there was no room in time */
        leave_out(op, 0);
        return false;
    }
    cnk_fetch_conversion *c = cnk_calloc(1, sizeof *c);
    if (c) c->pieces = cnk_calloc(op->part_count, sizeof *c->pieces);
    if (c == NULL || c->pieces == NULL) {
        cnk_free(c);
        leave_out(op, CHRONIK_ENOMEM);
        return false;
    }
    c->run = run;
    cnk_writer_growing(&c->out, INT32_MAX);
    cnk_writer_growing(&c->scratch, INT32_MAX);
    run->conversion = c;
    run->jobs++;
    c->turn.job = (chronik_job){.loop = run->home->loop, .step = step, .done = done};
    cnk_turn_take(run->home, &c->turn);
    return true;
}

void cnk_fetch_convert_free(cnk_fetch_run *run) {
    cnk_fetch_conversion *c = run->conversion;
    if (c == NULL) return;
    cnk_writer_free(&c->out);
    cnk_writer_free(&c->scratch);
    cnk_free(c->pieces);
    cnk_free(c);
    run->conversion = NULL;
}

/* Nothing of the data is answered: it is asked for again. */
static void leave_out(cnk_fetch *op, int error) {
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_fetch_part *part = &op->parts[i];
        if (part->error == 0 && part->bytes > 0) part->error = error;
        part->slices = NULL;
        part->slice_count = part->bytes = 0;
    }
    op->bytes = 0;
}

static int64_t step(chronik_job *job) {
    cnk_fetch_conversion *c = CNK_CONTAINER(job, cnk_fetch_conversion, turn.job);
    const cnk_fetch *op = c->run->op;
    for (size_t n = 0; n < op->part_count && c->out.len < CNK_FETCH_CONVERTED_BYTES; n++) {
        const size_t i = (op->first + n) % op->part_count;
        piece *to = &c->pieces[i];
        if (op->parts[i].error != 0 || op->parts[i].bytes == 0) continue;
        to->from = c->out.len;
        to->error = convert_part(c, &op->parts[i]);
        to->len = c->out.len - to->from;
    }
    return CHRONIK_JOB_DONE;
}

static void done(chronik_job *job) {
    cnk_fetch_conversion *c = CNK_CONTAINER(job, cnk_fetch_conversion, turn.job);
    cnk_fetch_run *run = c->run;
    cnk_fetch *op = run->op;
    cnk_turn_end(run->home);
    cnk_writer_free(&c->scratch);
    leave_out(op, 0);
    for (size_t i = 0; i < op->part_count; i++) {
        cnk_fetch_part *part = &op->parts[i];
        piece *from = &c->pieces[i];
        if (from->error != 0) part->error = from->error;
        if (from->len == 0) continue;
        from->slice = (struct iovec){c->out.data + from->from, from->len};
        part->slices = &from->slice;
        part->slice_count = 1;
        part->bytes = (uint32_t)from->len;
        op->bytes += part->bytes;
    }
    cnk_fetch_converted(run);
}

/* What of the part fits; an error only where there is nothing. */
static int convert_part(cnk_fetch_conversion *c, const cnk_fetch_part *part) {
    const unsigned format = c->run->op->format == CNK_FETCH_FORMAT_0 ? 0 : 1;
    const size_t start = c->out.len;
    cnk_slices at = {part->slices, 0, part->bytes};
    while (at.left > 0 && c->out.len < CNK_FETCH_CONVERTED_BYTES) {
        const size_t before = c->out.len;
        cnk_batch batch;
        int rc = next_batch(&at, &c->scratch, &batch);
        if (rc == 0)
            rc = cnk_message_set_from_batch(&batch, format, part->offset, CNK_OLD_DECOMPRESSED_MAX, &c->out);
        if (rc == CHRONIK_EBOMB) rc = CHRONIK_ECORRUPTMESSAGE;
        if (rc != 0) return c->out.len > start ? 0 : rc;
        if (before > 0 && c->out.len > CNK_FETCH_CONVERTED_BYTES) {
            c->out.len = before;
            return 0;
        }
    }
    return 0;
}

static int next_batch(cnk_slices *at, cnk_writer *scratch, cnk_batch *ret_batch) {
    uint8_t head[12];
    cnk_slices look = *at;
    if (at->left < sizeof head) return CHRONIK_ECORRUPTMESSAGE;
    cnk_slices_copy(&look, head, sizeof head);
    const uint64_t len = sizeof head + (uint64_t)cnk_load_be32(head + 8);
    if (len > at->left) return CHRONIK_ECORRUPTMESSAGE;
    const uint8_t *data = cnk_slices_take(at, (size_t)len);
    if (data == NULL) {
        scratch->len = 0;
        const int rc = cnk_writer_reserve(scratch, (size_t)len);
        if (rc) return rc;
        cnk_slices_copy(at, scratch->data, (size_t)len);
        data = scratch->data;
    }
    return cnk_batch_parse(data, (size_t)len, ret_batch);
}
